/** Batcher: what runs together, in which order, and that each item has its own end. */
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';

import { Batcher, type BatcherOptions } from '../../lib/vision/batcher';
import { expectRejection } from '../support/errors';

/** A batcher whose batches end when the test says so. */
class Harness {
  readonly batches: { items: readonly string[]; end: (error?: Error) => void }[] = [];
  readonly batcher: Batcher<string, string>;

  constructor(options: Partial<BatcherOptions<string, string>> = {}) {
    this.batcher = new Batcher({
      maxBatch: 3,
      delay: 0,
      lanes: () => 1,
      run: (items) =>
        new Promise((resolve, reject) => {
          const end = (error?: Error): void =>
            error === undefined ? resolve(items.map((item) => item.toUpperCase())) : reject(error);
          this.batches.push({ items, end });
        }),
      ...options,
    });
  }

  get items(): (readonly string[])[] {
    return this.batches.map(({ items }) => items);
  }

  /** Ends the batch of that number, and waits until what it made possible has started. */
  async end(index: number, error?: Error): Promise<void> {
    this.batches[index]?.end(error);
    await turn();
    await turn();
  }
}

describe('Batcher', () => {
  it('starts what is alone in the next turn, and what arrives in one turn together', async () => {
    const single = new Harness();
    const alone = single.batcher.add('k', 'a');
    expect(single.batches).to.have.lengthOf(0);
    await turn();
    expect(single.items).to.deep.equal([['a']]);
    await single.end(0);
    expect(await alone).to.equal('A');

    const harness = new Harness();
    const both = Promise.all([harness.batcher.add('k', 'a'), harness.batcher.add('k', 'b')]);
    await turn();
    expect(harness.items).to.deep.equal([['a', 'b']]);
    await harness.end(0);
    expect(await both).to.deep.equal(['A', 'B']);
  });

  it('gathers arrivals while a batch runs, at most maxBatch, in the order of arrival', async () => {
    const harness = new Harness();
    const results = Promise.all(Array.from('abcdefgh').map((item) => harness.batcher.add('k', item)));
    await turn();
    expect(harness.items).to.deep.equal([['a', 'b', 'c']]);
    expect(harness.batcher.size).to.equal(5);
    await harness.end(0);
    await harness.end(1);
    await harness.end(2);
    expect(harness.items).to.deep.equal([
      ['a', 'b', 'c'],
      ['d', 'e', 'f'],
      ['g', 'h'],
    ]);
    expect(await results).to.deep.equal(Array.from('ABCDEFGH'));
  });

  it('runs as many batches at once as there are lanes, and asks anew how many there are', async () => {
    let lanes = 2;
    const harness = new Harness({ lanes: () => lanes, maxBatch: 1 });
    const all = Promise.all(Array.from('abcde').map((item) => harness.batcher.add('k', item)));
    await turn();
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
    const all = Promise.all(
      ['a1', 'b1', 'b2', 'a2', 'b3', 'b4'].map((item) => harness.batcher.add(item[0] as string, item)),
    );
    await turn();
    for (const index of [0, 1, 2]) await harness.end(index);
    expect(harness.items).to.deep.equal([['a1', 'a2'], ['b1', 'b2', 'b3'], ['b4']]);
    expect(await all).to.deep.equal(['A1', 'B1', 'B2', 'A2', 'B3', 'B4']);
  });

  it('waits for company until the delay is over, or a batch is full', async () => {
    const harness = new Harness({ delay: 300 });
    const started = performance.now();
    const first = harness.batcher.add('k', 'a');
    await turn();
    const second = harness.batcher.add('k', 'b');
    while (harness.batches.length === 0) await sleep(2);
    expect(performance.now() - started).to.be.at.least(295);
    expect(harness.items).to.deep.equal([['a', 'b']]);
    await harness.end(0);
    expect(await Promise.all([first, second])).to.deep.equal(['A', 'B']);

    const full = new Harness({ delay: 60_000 });
    // One of another key, older and not due, does not hold it back, and goes at once when it is full itself.
    const others = [full.batcher.add('other', 'o')];
    const results = Promise.all(Array.from('abc').map((item) => full.batcher.add('k', item)));
    await turn();
    expect(full.items).to.deep.equal([['a', 'b', 'c']]);
    await full.end(0);
    expect(await results).to.deep.equal(Array.from('ABC'));
    others.push(full.batcher.add('other', 'p'), full.batcher.add('other', 'q'));
    await turn();
    expect(full.items[1]).to.deep.equal(['o', 'p', 'q']);
    await full.end(1);
    await Promise.all(others);
  });

  it('an item that aborts leaves the queue, or ends unseen; its companions notice nothing', async () => {
    const harness = new Harness();
    const [running, waiting] = [new AbortController(), new AbortController()];
    const reason = new Error('enough');
    const settled = Promise.allSettled([
      harness.batcher.add('k', 'a'),
      harness.batcher.add('k', 'b', running.signal),
      harness.batcher.add('k', 'c'),
      harness.batcher.add('k', 'd', waiting.signal),
      harness.batcher.add('k', 'e'),
    ]);
    await turn();
    running.abort(reason);
    waiting.abort();
    expect(harness.batcher.size).to.equal(1);
    await harness.end(0);
    await harness.end(1);
    expect(harness.items).to.deep.equal([['a', 'b', 'c'], ['e']]);
    const results = await settled;
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value : 'aborted'))).to.deep.equal(
      ['A', 'aborted', 'C', 'aborted', 'E'],
    );
    expect((results[1] as PromiseRejectedResult).reason).to.include({
      code: 'ERR_SENET_ABORTED',
      cause: reason,
    });
    await expectRejection(harness.batcher.add('k', 'f', AbortSignal.abort()), 'ERR_SENET_ABORTED');
    expect(harness.batcher.size).to.equal(0);
  });

  it('a batch that fails rejects exactly its own items, and the next goes on', async () => {
    const harness = new Harness();
    const settled = Promise.allSettled(Array.from('abcd').map((item) => harness.batcher.add('k', item)));
    await turn();
    await harness.end(0, new Error('no'));
    await harness.end(1);
    expect((await settled).map(({ status }) => status)).to.deep.equal([
      'rejected',
      'rejected',
      'rejected',
      'fulfilled',
    ]);
  });

  it('a run that throws at once is a batch that fails', async () => {
    const batcher = new Batcher<string, string>({
      maxBatch: 2,
      delay: 0,
      lanes: () => 1,
      run: () => {
        throw new Error('at once');
      },
    });
    const [result] = await Promise.allSettled([batcher.add('k', 'a')]);
    expect(result?.status).to.equal('rejected');
  });

  it('takes items that are added when another settles', async () => {
    const batcher = new Batcher<number, number>({
      maxBatch: 4,
      delay: 0,
      lanes: () => 1,
      run: (items) => Promise.resolve(items.map((item) => item + 1)),
    });
    let chained = batcher.add('k', 0);
    for (let i = 0; i < 20; i++) chained = chained.then((value) => batcher.add('k', value));
    expect(await chained).to.equal(21);
  });

  it('answers everyone with his own result, whatever arrives when', async () => {
    const action = fc.record({
      key: fc.constantFrom('x', 'y', 'z'),
      pause: fc.boolean(),
      abort: fc.boolean(),
      fails: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 3 }),
        async (actions, maxBatch, lanes) => {
          let running = 0;
          const batcher = new Batcher<{ id: number; key: string; fails: boolean }, number>({
            maxBatch,
            delay: 0,
            lanes: () => lanes,
            run: async (items) => {
              expect(++running).to.be.at.most(lanes);
              expect(items.length).to.be.within(1, maxBatch);
              expect(new Set(items.map(({ key }) => key)).size).to.equal(1);
              const ids = items.map(({ id }) => id);
              expect(ids).to.deep.equal([...ids].sort((left, right) => left - right));
              await turn();
              running--;
              if (items.some(({ fails }) => fails)) throw new Error('failed');
              return items.map(({ id }) => id);
            },
          });
          const results: Promise<number>[] = [];
          for (const [id, { key, pause, abort, fails }] of actions.entries()) {
            const controller = new AbortController();
            results.push(batcher.add(key, { id, key, fails }, controller.signal));
            results.at(-1)?.catch(() => undefined); // looked at below
            if (abort) setImmediate(() => controller.abort());
            if (pause) await turn();
          }
          const settled = await Promise.allSettled(results);
          settled.forEach((result, id) => {
            if (result.status === 'fulfilled') expect(result.value).to.equal(id);
            else expect((result.reason as Error).message).to.match(/^(failed|The operation was aborted)$/);
          });
          expect(batcher.size).to.equal(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
