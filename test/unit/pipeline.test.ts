/**
 * Pipeline: what goes when and together, that each call has its own end, and that whatever arrives, leaves or fails when,
 * everything settles and nothing is held. Turns of the event loop stand for time.
 */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';

import { ByteBudget, type Hold } from '../../lib/vision/byte-budget';
import { Pipeline, type PipelineOptions, type Work } from '../../lib/vision/pipeline';
import { expectRejection } from '../support/errors';

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/** Ends when the test says so. */
class Step {
  begun = false;
  readonly #promise: Promise<void>;
  end!: (error?: Error) => void;

  constructor() {
    this.#promise = new Promise((resolve, reject) => {
      this.end = (error) => (error === undefined ? resolve() : reject(error));
    });
  }

  run(): Promise<void> {
    this.begun = true;
    return this.#promise;
  }
}

class FakeWork implements Work {
  readonly name: string;
  readonly encoded: boolean;
  readonly bytes: number;
  readonly decoding = new Step();
  readonly preprocessing = new Step();
  disposals = 0;

  /** @param waits - for the test to end its steps; else they end at once */
  constructor(name: string, { encoded = false, bytes = 0, waits = false } = {}) {
    this.name = name;
    this.encoded = encoded;
    this.bytes = bytes;
    if (waits) return;
    this.decoding.end();
    this.preprocessing.end();
  }

  get key(): string {
    return this.name[0] as string;
  }

  async decode(reserve: Hold['reserve']): Promise<void> {
    await reserve(this.bytes);
    await this.decoding.run();
  }

  preprocess(): Promise<void> {
    return this.preprocessing.run();
  }

  dispose(): void {
    this.disposals++;
  }
}

/** A pipeline whose batches end when the test says so. */
class Harness {
  readonly batches: { items: readonly string[]; end: (error?: Error) => void }[] = [];
  readonly budget = new ByteBudget(100);
  readonly pipeline: Pipeline<FakeWork, string>;

  constructor(options: Partial<PipelineOptions<FakeWork, string>> = {}) {
    this.pipeline = new Pipeline({
      maxBatch: 3,
      delay: 0,
      maxQueue: 1000,
      decoders: 2,
      budget: this.budget,
      lanes: () => 1,
      run: (works) =>
        new Promise((resolve, reject) => {
          const items = works.map(({ name }) => name);
          const end = (error?: Error): void =>
            error === undefined ? resolve(items.map((name) => name.toUpperCase())) : reject(error);
          this.batches.push({ items, end });
        }),
      ...options,
    });
  }

  get items(): (readonly string[])[] {
    return this.batches.map(({ items }) => items);
  }

  async one(work: FakeWork | string, signal?: AbortSignal): Promise<string> {
    const [result] = await this.pipeline.run([typeof work === 'string' ? new FakeWork(work) : work], signal);
    return result as string;
  }

  /** Ends the batch of that number, and waits until what it made possible has started. */
  async end(index: number, error?: Error): Promise<void> {
    this.batches[index]?.end(error);
    await turns(4);
  }

  expectQueue(waiting: number, running: number): void {
    const { queue } = this.pipeline;
    expect([queue.waiting, queue.running]).to.deep.equal([waiting, running]);
  }
}

/** Whether it has settled, and how. */
function outcomeOf(promise: Promise<unknown>): { readonly now: string } {
  const outcome = { now: 'pending' };
  promise.then(
    (value) => (outcome.now = `answer ${String(value)}`),
    (error: unknown) => {
      const { code, message } = error as Error & { code?: string };
      outcome.now = code ?? message;
    },
  );
  return outcome;
}

describe('Pipeline', () => {
  describe('batches', () => {
    it('starts what is alone in the next turn, and what arrives in one turn together', async () => {
      const single = new Harness();
      const alone = single.one('a');
      expect(single.batches).to.have.lengthOf(0);
      await turns(2);
      expect(single.items).to.deep.equal([['a']]);
      await single.end(0);
      expect(await alone).to.equal('A');

      const harness = new Harness();
      const both = Promise.all([harness.one('a1'), harness.one('a2')]);
      await turns(2);
      expect(harness.items).to.deep.equal([['a1', 'a2']]);
      await harness.end(0);
      expect(await both).to.deep.equal(['A1', 'A2']);
    });

    it('gathers arrivals while a batch runs, at most maxBatch, in the order of arrival', async () => {
      const harness = new Harness();
      const names = Array.from('abcdefgh', (letter) => `x${letter}`);
      const results = Promise.all(names.map((name) => harness.one(name)));
      await turns(2);
      expect(harness.items).to.deep.equal([['xa', 'xb', 'xc']]);
      harness.expectQueue(5, 3);
      for (const index of [0, 1, 2]) await harness.end(index);
      expect(harness.items).to.deep.equal([
        ['xa', 'xb', 'xc'],
        ['xd', 'xe', 'xf'],
        ['xg', 'xh'],
      ]);
      expect(await results).to.deep.equal(names.map((name) => name.toUpperCase()));
    });

    it('runs as many batches at once as there are lanes, and asks anew how many there are', async () => {
      let lanes = 2;
      const harness = new Harness({ lanes: () => lanes, maxBatch: 1 });
      const all = Promise.all(Array.from('abcde').map((item) => harness.one(item)));
      await turns(2);
      expect(harness.items).to.deep.equal([['a'], ['b']]);
      lanes = 1;
      await harness.end(0);
      expect(harness.batches).to.have.lengthOf(2);
      lanes = 3;
      await harness.end(1);
      expect(harness.items.slice(2)).to.deep.equal([['c'], ['d'], ['e']]);
      for (const index of [2, 3, 4]) await harness.end(index);
      expect(await all).to.deep.equal(Array.from('ABCDE'));
    });

    it('runs only items of the same key together; whose head waits longest goes first', async () => {
      const harness = new Harness();
      const all = Promise.all(['a1', 'b1', 'b2', 'a2', 'b3', 'b4'].map((item) => harness.one(item)));
      await turns(2);
      for (const index of [0, 1, 2]) await harness.end(index);
      expect(harness.items).to.deep.equal([['a1', 'a2'], ['b1', 'b2', 'b3'], ['b4']]);
      expect(await all).to.deep.equal(['A1', 'A2', 'B1', 'B2', 'B3', 'B4'].sort(byArrival));
    });
    const byArrival = (left: string, right: string): number =>
      ['A1', 'B1', 'B2', 'A2', 'B3', 'B4'].indexOf(left) -
      ['A1', 'B1', 'B2', 'A2', 'B3', 'B4'].indexOf(right);

    it('waits for company until the delay is over, or a batch is full', async () => {
      const harness = new Harness({ delay: 50 });
      const started = performance.now();
      // Both are ready before a timer can fire, however late it does.
      const both = Promise.all(['a1', 'a2'].map((item) => harness.one(item)));
      while (harness.batches.length === 0) await sleep(2);
      expect(performance.now() - started).to.be.at.least(49);
      expect(harness.items).to.deep.equal([['a1', 'a2']]);
      await harness.end(0);
      expect(await both).to.deep.equal(['A1', 'A2']);

      const full = new Harness({ delay: 60_000 });
      // One of another key, older and not due, does not hold it back, and goes at once when it is full itself.
      const others = [full.one('o1')];
      await turns(2);
      const results = Promise.all(['a1', 'a2', 'a3'].map((item) => full.one(item)));
      await turns(2);
      expect(full.items).to.deep.equal([['a1', 'a2', 'a3']]);
      await full.end(0);
      expect(await results).to.deep.equal(['A1', 'A2', 'A3']);
      others.push(full.one('o2'), full.one('o3'));
      await turns(2);
      expect(full.items[1]).to.deep.equal(['o1', 'o2', 'o3']);
      await full.end(1);
      await Promise.all(others);
    });

    it('waits for no company that cannot come: nothing more can become ready, or it is closed', async () => {
      const harness = new Harness({ delay: 60_000, maxBatch: 2 });
      const all = ['a', 'b', 'c', 'd', 'e'].map((name) => harness.one(name));
      await turns(2);
      expect(harness.items).to.deep.equal([['a']]); // four keys, and two batches are all that may be ready
      await harness.end(0);
      expect(harness.items).to.deep.equal([['a'], ['b']]);
      await harness.end(1);
      expect(harness.batches).to.have.lengthOf(2);
      const closed = harness.pipeline.close();
      await turns(2);
      for (const index of [2, 3, 4]) await harness.end(index);
      expect(harness.items.slice(2)).to.deep.equal([['c'], ['d'], ['e']]);
      await Promise.all([...all, closed]);
    });

    it('a batch that fails rejects exactly its own items, and the next goes on', async () => {
      const harness = new Harness();
      const settled = Promise.allSettled(['a1', 'a2', 'a3', 'a4'].map((item) => harness.one(item)));
      await turns(2);
      await harness.end(0, new Error('no'));
      await harness.end(1);
      const statuses = (await settled).map(({ status }) => status);
      expect(statuses).to.deep.equal(['rejected', 'rejected', 'rejected', 'fulfilled']);
    });

    it('an error in the place of a result is the failure of that item alone', async () => {
      const harness = new Harness({
        run: (works) =>
          Promise.resolve(works.map(({ name }) => (name === 'a2' ? new Error('mine') : name.toUpperCase()))),
      });
      const all = ['a1', 'a2', 'a3'].map((name) => outcomeOf(harness.one(name)));
      await turns(3);
      expect(all.map(({ now }) => now)).to.deep.equal(['answer A1', 'mine', 'answer A3']);
    });

    it('a run that throws at once is a batch that fails, and so is a step of an item', async () => {
      const harness = new Harness({
        run: () => {
          throw new Error('at once');
        },
      });
      const failed = outcomeOf(harness.one('a'));
      await turns(3);
      expect(failed.now).to.equal('at once');
      const works = Array.from({ length: 5000 }, () => new FakeWork('b', { encoded: true }));
      for (const work of works)
        work.decode = () => {
          throw new Error('decode');
        };
      const other = new Harness({ maxQueue: 5000 });
      const all = await Promise.allSettled(works.map((work) => other.one(work))); // no recursion
      expect(all.every(({ status }) => status === 'rejected')).to.equal(true);
      other.expectQueue(0, 0);
    });

    it('takes items that are added when another settles', async () => {
      const harness = new Harness({ run: (works) => Promise.resolve(works.map(({ name }) => `${name}a`)) });
      let chained = harness.one('a');
      for (let i = 0; i < 20; i++) chained = chained.then((name) => harness.one(name));
      expect(await chained).to.equal('a'.repeat(22));
    });
  });

  describe('the queue', () => {
    it('counts what waits and what runs, and refuses beyond its limit before anything begins', async () => {
      const harness = new Harness({ maxQueue: 4, maxBatch: 2 });
      const works = ['a1', 'a2', 'a3', 'a4'].map(
        (name) => new FakeWork(name, { encoded: true, waits: true }),
      );
      const calls = works.map((work) => outcomeOf(harness.one(work)));
      expect(harness.pipeline.queue).to.deep.equal({ waiting: 4, running: 0, limit: 4 });
      expect(Object.isFrozen(harness.pipeline.queue)).to.equal(true);
      const refused = new FakeWork('a5', { encoded: true });
      await expectRejection(
        harness.one(refused),
        'ERR_SENET_QUEUE_FULL',
        /4 images are waiting.*maxQueue is 4/,
      );
      expect([refused.decoding.begun, refused.disposals]).to.deep.equal([false, 1]);
      for (const work of works.slice(0, 2)) {
        work.decoding.end();
        work.preprocessing.end();
      }
      await turns(2);
      harness.expectQueue(2, 2);
      await harness.end(0);
      harness.expectQueue(2, 0);
      expect(calls.map(({ now }) => now)).to.deep.equal(['answer A1', 'answer A2', 'pending', 'pending']);
      const later = outcomeOf(harness.one('a6'));
      await turns(2);
      await harness.end(1);
      expect(later.now).to.equal('answer A6'); // overtakes what is still being decoded
    });

    it('an array takes two batches of places, one after the other, and keeps its order', async () => {
      const harness = new Harness({ maxQueue: 5, maxBatch: 2 });
      const names = Array.from('abcdefg', (letter) => `x${letter}`);
      const call = harness.pipeline.run(names.map((name) => new FakeWork(name)));
      harness.expectQueue(4, 0);
      await turns(2);
      harness.expectQueue(2, 2);
      for (let index = 0; index < 4; index++) {
        await harness.end(index);
        const { waiting, running } = harness.pipeline.queue;
        expect(waiting + running).to.equal(Math.max(0, Math.min(4, 7 - 2 * (index + 1))));
      }
      expect(await call).to.deep.equal(names.map((name) => name.toUpperCase()));
      expect(await harness.pipeline.run([])).to.deep.equal([]);
    });

    it('the first failure of an array is its end: nothing more is taken up, its places are free', async () => {
      const harness = new Harness({ maxQueue: 4, maxBatch: 2, decoders: 1 });
      const works = Array.from(
        { length: 9 },
        (_, index) => new FakeWork(`a${index}`, { encoded: true, waits: true }),
      );
      const call = outcomeOf(harness.pipeline.run(works));
      await turns(2);
      works[0]?.decoding.end(new Error('damaged'));
      await turns(2);
      expect(call.now).to.equal('damaged');
      harness.expectQueue(0, 0);
      expect(works.map(({ disposals }) => disposals)).to.deep.equal(works.map(() => 1));
      expect(works.filter(({ decoding }) => decoding.begun)).to.have.lengthOf(1);
    });

    it('callers that left give up their places at once: 900 gone, 900 new are answered', async () => {
      const harness = new Harness({
        maxQueue: 1000,
        maxBatch: 16,
        run: (works) => Promise.resolve(works.map(({ name }) => name)),
      });
      const controller = new AbortController();
      const gone = Array.from({ length: 900 }, () =>
        harness.one(new FakeWork('a', { encoded: true }), controller.signal),
      );
      const settled = Promise.allSettled(gone);
      controller.abort();
      harness.expectQueue(0, 0);
      const answers = Array.from({ length: 900 }, () => harness.one(new FakeWork('b', { encoded: true })));
      expect(new Set(await Promise.all(answers))).to.deep.equal(new Set(['b']));
      expect((await settled).every(({ status }) => status === 'rejected')).to.equal(true);
    });
  });

  describe('leaving', () => {
    it('wakes those behind: what is ready and leaves makes room for what waits', async () => {
      const harness = new Harness({ maxBatch: 1, decoders: 1 });
      const running = outcomeOf(harness.one('a'));
      await turns(2);
      const controller = new AbortController();
      const waiting = ['b', 'c'].map((name) => outcomeOf(harness.one(name, controller.signal)));
      await turns(2);
      const behind = ['d', 'e', 'f'].map((name) => new FakeWork(name));
      const calls = behind.map((work) => outcomeOf(harness.one(work)));
      await turns(2);
      expect(behind.map(({ preprocessing }) => preprocessing.begun)).to.deep.equal([false, false, false]);
      controller.abort();
      await turns(2);
      expect(waiting.map(({ now }) => now)).to.deep.equal(['ERR_SENET_ABORTED', 'ERR_SENET_ABORTED']);
      expect(behind.map(({ preprocessing }) => preprocessing.begun)).to.deep.equal([true, true, false]);
      for (const index of [0, 1, 2, 3]) await harness.end(index);
      expect([running, ...calls].map(({ now }) => now)).to.deep.equal(
        ['A', 'D', 'E', 'F'].map((name) => `answer ${name}`),
      );
      await harness.pipeline.close();
    });

    it('while it waits for a decoder: it never starts, and those behind move up', async () => {
      const harness = new Harness({ decoders: 1 });
      const [first, gone, last] = ['a1', 'a2', 'a3'].map(
        (name) => new FakeWork(name, { encoded: true, waits: true }),
      ) as [FakeWork, FakeWork, FakeWork];
      const controller = new AbortController();
      const reason = new Error('enough');
      void outcomeOf(harness.one(first));
      const leaving = harness.one(gone, controller.signal);
      void outcomeOf(harness.one(last));
      controller.abort(reason);
      expect(await expectRejection(leaving, 'ERR_SENET_ABORTED')).to.include({ cause: reason });
      expect(gone.disposals).to.equal(1);
      harness.expectQueue(2, 0);
      first.decoding.end();
      await turns(2);
      expect([gone.decoding.begun, last.decoding.begun]).to.deep.equal([false, true]);
    });

    it('while it is decoded: it ends unseen, and its decoder and bytes are counted until then', async () => {
      const harness = new Harness({ decoders: 1 });
      const [gone, next] = ['a1', 'a2'].map(
        (name) => new FakeWork(name, { encoded: true, bytes: 90, waits: true }),
      ) as [FakeWork, FakeWork];
      const controller = new AbortController();
      const leaving = outcomeOf(harness.one(gone, controller.signal));
      void outcomeOf(harness.one(next));
      await turns(2);
      controller.abort();
      await turns(2);
      expect(leaving.now).to.equal('ERR_SENET_ABORTED');
      harness.expectQueue(1, 0);
      expect([next.decoding.begun, gone.disposals, harness.budget.used]).to.deep.equal([false, 0, 90]);
      const closed = outcomeOf(harness.pipeline.close());
      gone.decoding.end();
      await turns(2);
      expect([next.decoding.begun, gone.disposals, harness.budget.used]).to.deep.equal([true, 1, 90]);
      expect(gone.preprocessing.begun).to.equal(false);
      next.decoding.end();
      next.preprocessing.end();
      await turns(3);
      expect(harness.budget.used).to.equal(0);
      expect(closed.now).to.equal('pending');
      await harness.end(0);
      expect(closed.now).to.equal('answer undefined');
    });

    it('while it waits for bytes: it holds none, and its decoder is free', async () => {
      const harness = new Harness({ decoders: 2 });
      const [holder, gone, next] = ['a1', 'a2', 'a3'].map(
        (name) => new FakeWork(name, { encoded: true, bytes: 60, waits: true }),
      ) as [FakeWork, FakeWork, FakeWork];
      const controller = new AbortController();
      void outcomeOf(harness.one(holder));
      void outcomeOf(harness.one(gone, controller.signal));
      void outcomeOf(harness.one(next));
      await turns(2);
      expect([gone.decoding.begun, next.decoding.begun]).to.deep.equal([false, false]);
      controller.abort();
      await turns(2);
      expect([gone.disposals, harness.budget.used, next.decoding.begun]).to.deep.equal([1, 60, false]);
      holder.decoding.end();
      holder.preprocessing.end();
      await turns(2);
      expect(next.decoding.begun).to.equal(true);
    });

    it('while it is preprocessed, or in a batch that runs: its companions notice nothing', async () => {
      const harness = new Harness();
      const [early, late] = [new AbortController(), new AbortController()];
      const work = new FakeWork('a1', { waits: true });
      const gone = outcomeOf(harness.one(work, early.signal));
      const all = [harness.one('a2'), harness.one('a3', late.signal), harness.one('a4')].map(outcomeOf);
      await turns(2);
      early.abort();
      work.preprocessing.end();
      await turns(2);
      expect([gone.now, work.disposals]).to.deep.equal(['ERR_SENET_ABORTED', 1]);
      expect(harness.items).to.deep.equal([['a2', 'a3', 'a4']]);
      late.abort();
      harness.expectQueue(0, 2);
      await harness.end(0);
      expect(all.map(({ now }) => now)).to.deep.equal(['answer A2', 'ERR_SENET_ABORTED', 'answer A4']);
      harness.expectQueue(0, 0);
      await expectRejection(harness.one('a5', AbortSignal.abort()), 'ERR_SENET_ABORTED');
    });

    it('takes its listener from the signal, however it ends', async () => {
      const harness = new Harness({ maxQueue: 1 });
      const { signal } = new AbortController();
      const counts = { add: 0, remove: 0 };
      const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
      signal.addEventListener = (...args: [string, () => void, object]) => {
        counts.add++;
        add(...args);
      };
      signal.removeEventListener = (...args: [string, () => void]) => {
        counts.remove++;
        remove(...args);
      };
      const first = harness.one('a', signal);
      await expectRejection(harness.one('b', signal), 'ERR_SENET_QUEUE_FULL');
      await turns(2);
      await harness.end(0);
      await first;
      expect(counts).to.deep.equal({ add: 1, remove: 1 });
    });
  });

  describe('decoders and bytes', () => {
    it('what needs no decoder does not wait for one', async () => {
      const harness = new Harness({ decoders: 1 });
      const slow = ['a1', 'a2'].map((name) => new FakeWork(name, { encoded: true, waits: true }));
      for (const work of slow) void outcomeOf(harness.one(work));
      const plain = outcomeOf(harness.one('b'));
      await turns(2);
      await harness.end(0);
      expect(plain.now).to.equal('answer B');
      expect(slow.map(({ decoding }) => decoding.begun)).to.deep.equal([true, false]);
    });

    it('a picture larger than the budget is decoded alone, and only one of them', async () => {
      const harness = new Harness({ decoders: 4 });
      const works = [10, 500, 500, 10].map(
        (bytes, index) => new FakeWork(`a${index}`, { encoded: true, bytes, waits: true }),
      );
      const calls = works.map((work) => outcomeOf(harness.one(work)));
      for (let done = 0; done < works.length; done++) {
        await turns(2);
        expect(works.map(({ decoding }) => decoding.begun)).to.deep.equal(
          works.map((_, index) => index <= done),
        );
        works[done]?.decoding.end();
        await turns(2);
        expect(harness.budget.used).to.equal(works[done]?.bytes); // until it is preprocessed
        works[done]?.preprocessing.end();
      }
      await turns(2);
      for (let index = 0; index < 4; index++) await harness.end(index);
      expect(calls.map(({ now }) => now)).to.deep.equal(
        ['A0', 'A1', 'A2', 'A3'].map((name) => `answer ${name}`),
      );
    });
  });

  describe('whatever arrives, leaves or fails when', () => {
    const step = fc.nat({ max: 3 });
    const work = fc.record({
      key: fc.constantFrom('x', 'y', 'z'),
      encoded: fc.boolean(),
      bytes: fc.constantFrom(0, 30, 60, 250),
      decodeTurns: step,
      preprocessTurns: step,
      fails: fc.option(fc.constantFrom('decode', 'preprocess', 'throw', 'result', 'batch'), { freq: 6 }),
    });
    const call = fc.record({
      works: fc.oneof(fc.tuple(work), fc.array(work, { maxLength: 7 })),
      /** Turns until the next call comes. */
      pause: fc.nat({ max: 4 }),
      /** Turns until the caller leaves. */
      leaves: fc.option(fc.nat({ max: 12 })),
    });
    const limits = fc.record({
      maxBatch: fc.integer({ min: 1, max: 4 }),
      maxQueue: fc.integer({ min: 1, max: 12 }),
      decoders: fc.integer({ min: 1, max: 3 }),
      lanes: fc.integer({ min: 1, max: 3 }),
      runTurns: fc.nat({ max: 3 }),
    });

    it('everything settles, nothing is held, no limit is passed, and nobody overtakes', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 25 }), limits, async (calls, given) => {
          const world = new World(given);
          for (const { works, pause, leaves } of calls) {
            world.call(works, leaves);
            await turns(pause);
          }
          await world.expectEnd();
        }),
        { numRuns: 150 },
      );
    });
  });
});

interface Plan {
  readonly key: string;
  readonly encoded: boolean;
  readonly bytes: number;
  readonly decodeTurns: number;
  readonly preprocessTurns: number;
  readonly fails: string | null;
}

type Limits = Readonly<Record<'maxBatch' | 'maxQueue' | 'decoders' | 'lanes' | 'runTurns', number>>;

/** A pipeline, and what is known of it from outside, checked at every step of every work. */
class World {
  readonly #limits: Limits;
  readonly #budget = new ByteBudget(100);
  readonly #pipeline: Pipeline<PlannedWork, number>;
  readonly #outcomes: { readonly ids: readonly number[]; outcome: unknown }[] = [];
  readonly works: PlannedWork[] = [];
  readonly inside = { decoding: new Set<PlannedWork>(), prepared: new Set<PlannedWork>() };
  readonly #holding = new Map<PlannedWork, number>();
  /** In the order in which they became ready. */
  readonly ready = new Set<PlannedWork>();
  readonly #wrong: string[] = [];
  /** Of the calls that have neither settled nor left, the most places that each may take. */
  readonly #places = new Map<object, number>();
  #running = 0;
  #pending = 0;
  /** The last call of one work whose work began, by whether it is encoded. */
  readonly begun = new Map<boolean, number>();

  constructor(limits: Limits) {
    this.#limits = limits;
    this.#pipeline = new Pipeline({
      ...limits,
      ...{ delay: 0, budget: this.#budget, lanes: () => limits.lanes },
      run: (works) => this.#run(works),
    });
  }

  call(plans: readonly Plan[], leaves: number | null): void {
    const alone = plans.length === 1;
    const first = this.works.length;
    const works = plans.map((plan, place) => new PlannedWork(this, first + place, plan, alone));
    this.works.push(...works);
    const { waiting, running, limit } = this.#pipeline.queue;
    const places = Math.min(works.length, 2 * this.#limits.maxBatch, limit);
    const fits = waiting + running + places <= limit;
    const controller = new AbortController();
    const record = { ids: works.map(({ id }) => id), outcome: undefined as unknown };
    this.#outcomes.push(record);
    this.#pending++;
    this.#places.set(record, places);
    const settled = (outcome: unknown): void => {
      this.#places.delete(record);
      record.outcome = outcome;
      this.#pending--;
    };
    this.#pipeline.run(works, controller.signal).then(settled, settled);
    const now = this.#pipeline.queue;
    // What throws at once has left already.
    if (plans.every(({ fails }) => fails !== 'throw'))
      expect(now.waiting + now.running).to.equal(waiting + running + (fits ? places : 0));
    if (!fits) expect(works.every(({ disposals }) => disposals === 1)).to.equal(true);
    if (leaves === null) return;
    void turns(leaves).then(() => {
      controller.abort();
      this.#places.delete(record); // at once
      this.check();
    });
  }

  /** An assertion inside a work would only be its failure. */
  observe(look: () => void): void {
    try {
      look();
    } catch (error) {
      this.#wrong.push((error as Error).message);
    }
  }

  check(): void {
    const { maxBatch, maxQueue, decoders } = this.#limits;
    this.observe(() => {
      expect(this.inside.decoding.size).to.be.at.most(decoders);
      expect(this.inside.prepared.size).to.be.at.most(Math.max(2 * maxBatch, decoders));
      const held = [...this.#holding.values()].filter((bytes) => bytes > 0);
      expect(held.length <= 1 || held.reduce((sum, bytes) => sum + bytes) <= 100).to.equal(true);
      const { waiting, running } = this.#pipeline.queue;
      expect(waiting).to.be.at.least(0);
      const places = [...this.#places.values()].reduce((sum, most) => sum + most, 0);
      expect(waiting + running).to.be.at.most(Math.min(maxQueue, places));
    });
  }

  hold(work: PlannedWork, bytes: number): void {
    if (bytes === 0) this.#holding.delete(work);
    else this.#holding.set(work, bytes);
    this.check();
  }

  async #run(works: readonly PlannedWork[]): Promise<(number | Error)[]> {
    this.#running++;
    this.observe(() => {
      expect(this.#running).to.be.at.most(this.#limits.lanes);
      expect(works.length).to.be.within(1, this.#limits.maxBatch);
      expect(new Set(works.map(({ key }) => key)).size).to.equal(1);
      const order = [...this.ready];
      expect(works[0]).to.equal(order[0]); // whose head waits longest
      const places = works.map((work) => order.indexOf(work));
      expect(places).to.deep.equal([...places].sort((left, right) => left - right));
    });
    for (const work of works) {
      this.ready.delete(work);
      this.inside.prepared.delete(work);
      work.busy = true;
    }
    await turns(this.#limits.runTurns);
    for (const work of works) work.busy = false;
    this.#running--;
    if (works.some(({ plan }) => plan.fails === 'batch')) throw new Error('batch');
    return works.map(({ plan, id }) => (plan.fails === 'result' ? new Error('result') : id));
  }

  async expectEnd(): Promise<void> {
    let closed = false;
    void this.#pipeline.close().then(() => {
      this.observe(() => expect(this.works.some(({ busy }) => busy)).to.equal(false));
      closed = true;
    });
    // More turns than all works, one after the other, could need.
    for (let left = 100 + 40 * this.works.length; left > 0 && !(closed && this.#pending === 0); left--)
      await turn();
    expect({ closed, pending: this.#pending }).to.deep.equal({ closed: true, pending: 0 });
    await turns(15); // the last callers leave
    const { waiting, running } = this.#pipeline.queue;
    expect({ waiting, running, bytes: this.#budget.used }).to.deep.equal({
      waiting: 0,
      running: 0,
      bytes: 0,
    });
    expect(this.works.map(({ disposals }) => disposals)).to.deep.equal(this.works.map(() => 1));
    expect(this.#wrong).to.deep.equal([]);
    for (const { ids, outcome } of this.#outcomes) {
      if (!(outcome instanceof Error)) expect(outcome).to.deep.equal(ids);
      else if ('code' in outcome) expect(outcome.code).to.match(/^ERR_SENET_(ABORTED|QUEUE_FULL)$/);
      else if (outcome.message !== 'batch') {
        expect(ids.some((id) => this.works[id]?.plan.fails === outcome.message)).to.equal(true);
      }
    }
  }
}

class PlannedWork implements Work {
  readonly id: number;
  readonly plan: Plan;
  readonly #world: World;
  /** Its call has no other work: it comes in the order of the calls. */
  readonly #alone: boolean;
  disposals = 0;
  /** A step of it is under way. */
  busy = false;

  constructor(world: World, id: number, plan: Plan, alone: boolean) {
    this.#world = world;
    this.id = id;
    this.plan = plan;
    this.#alone = alone;
  }

  get encoded(): boolean {
    return this.plan.encoded;
  }

  get key(): string {
    return this.plan.key;
  }

  decode(reserve: Hold['reserve']): Promise<void> {
    this.#begin();
    if (this.plan.fails === 'throw') throw new Error('throw');
    return this.#step('decode', async () => {
      this.#world.inside.decoding.add(this);
      try {
        await reserve(this.plan.bytes);
        this.#world.hold(this, this.plan.bytes);
        await turns(this.plan.decodeTurns);
      } finally {
        this.#world.inside.decoding.delete(this);
      }
    });
  }

  async preprocess(reserve: Hold['reserve']): Promise<void> {
    if (!this.encoded) this.#begin();
    await this.#step('preprocess', async () => {
      if (!this.encoded) await reserve(this.plan.bytes);
      this.#world.hold(this, this.plan.bytes);
      await turns(this.plan.preprocessTurns);
    });
    this.#world.hold(this, 0);
    this.#world.ready.add(this);
  }

  dispose(): void {
    this.disposals++;
    this.#note(!this.busy, 'disposed under a step');
    this.#world.hold(this, 0);
    this.#world.inside.prepared.delete(this);
    this.#world.ready.delete(this);
  }

  #begin(): void {
    const last = this.#world.begun.get(this.encoded) ?? -1;
    if (this.#alone) {
      this.#note(this.id > last, 'overtook');
      this.#world.begun.set(this.encoded, this.id);
    }
    this.#note(this.disposals === 0, 'began after it had left');
    this.#world.inside.prepared.add(this);
  }

  async #step(name: string, run: () => Promise<void>): Promise<void> {
    this.busy = true;
    try {
      await run();
      this.#world.check();
      if (this.plan.fails === name) throw new Error(name);
    } finally {
      this.busy = false;
    }
  }

  #note(holds: boolean, what: string): void {
    this.#world.observe(() => expect(holds, `work ${this.id} ${what}`).to.equal(true));
  }
}
