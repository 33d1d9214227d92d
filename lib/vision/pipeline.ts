/**
 * Pipeline: everything that a classifier has accepted and not yet answered, from the queue to the batch. Each item is in
 * one state; all counts are sizes of the sets of items, and whatever way an item goes on or out (answer, failure, abort),
 * `#examine` looks who may go on now. Knows neither images nor tensors.
 *
 *   queued -> decoding -> preprocessing -> ready -> running -> out
 *
 * Batching is continuous: what is ready runs together when a lane is free; while batches run, what becomes ready gathers.
 * An item whose call has left leaves the queue, or what is ready, at once. Work that is under way ends unseen, and what
 * it occupies (a decoder, bytes, a place among what is made ready, a lane) stays occupied until then.
 */
import { performance } from 'node:perf_hooks';
import { clearTimeout, setImmediate, setTimeout } from 'node:timers';

import { isError } from '../brands';
import { makeError } from '../errors';
import { abortError, onAbort } from '../tensor/abort';
import type { ByteBudget, Hold } from './byte-budget';

/** What is to be done for one item, step by step. */
export interface Work {
  /** Whether it needs `decode`, and so one of the decoders. */
  readonly encoded: boolean;
  /** From the source to pixels, or to the input; reserves the bytes that this takes before it makes them. */
  decode(reserve: Hold['reserve'], restart: Hold['restart']): Promise<void>;
  /** From pixels to an input that is ready; may end early once the signal has aborted. Then the bytes are given back. */
  preprocess(reserve: Hold['reserve'], signal: AbortSignal): Promise<void>;
  /** What is ready runs together with others of the same key only. */
  readonly key: string;
  /** Gives back what the work holds; nothing of it is under way. Called once. */
  dispose(): void;
}

export interface PipelineOptions<W extends Work, Result> {
  /** Items that run together at most. */
  readonly maxBatch: number;
  /** Milliseconds that a ready item waits for company, unless a batch is full before. */
  readonly delay: number;
  /** Items that may be accepted and not answered. */
  readonly maxQueue: number;
  /** Items that are decoded at the same time. */
  readonly decoders: number;
  /** Of what is decoded and not yet preprocessed; may be shared with other pipelines. */
  readonly budget: ByteBudget;
  /** Batches that may run at the same time; asked anew before each. */
  readonly lanes: () => number;
  /**
   * Results in the order of the works; an Error is the failure of that item alone. What it throws or rejects with goes to
   * every item of the batch.
   */
  readonly run: (works: readonly W[]) => Promise<readonly (Result | Error)[]>;
}

/** What waits and runs in a classifier, as images whose callers have not left. */
export interface QueueState {
  /**
   * Accepted and not in a batch that runs: waiting for their turn, being read, decoded or preprocessed, or ready. An array
   * counts with the images that it has in work, at most two batches.
   */
  readonly waiting: number;
  /** In a batch that goes through the network. */
  readonly running: number;
  /** `batching.maxQueue`: `classify` is refused when `waiting + running` would become more. */
  readonly limit: number;
}

type State = 'queued' | 'decoding' | 'preprocessing' | 'ready' | 'running';

/** What one item took on its way to an answer, in milliseconds. */
export interface ItemTimes {
  /** Accepted, and not yet taken up. */
  readonly queue: number;
  /** From the source to pixels; 0 for what needs no decoding. */
  readonly decode: number;
  readonly preprocess: number;
  /** Ready, until its batch began. */
  readonly wait: number;
  /** Its batch in the network, until the answer. */
  readonly network: number;
  /** Items of its batch, itself among them. */
  readonly batch: number;
  /** In its batch, from 0. */
  readonly place: number;
}

interface Item<W extends Work, Result> {
  readonly work: W;
  readonly call: Call<W, Result>;
  /** In its call. */
  readonly index: number;
  /** In the order of admission. */
  readonly number: number;
  state: State;
  /** When it has waited long enough for company. */
  dueAt: number;
  /** When it came into each state, if its caller wants to know. */
  readonly since: Partial<Record<State, number>> | undefined;
}

/** One caller with his works, of which some are items at a time. */
interface Call<W extends Work, Result> {
  readonly works: readonly W[];
  readonly results: Result[];
  /** Where its caller wants the times of the results. */
  readonly times: ItemTimes[] | undefined;
  /** Works that became items. */
  taken: number;
  readonly items: Set<Item<W, Result>>;
  /** Aborts when the call leaves without an answer. */
  readonly controller: AbortController;
  left: boolean;
  readonly settle: (error?: Error) => void;
}

export class Pipeline<W extends Work, Result> {
  readonly #options: PipelineOptions<W, Result>;
  /** Most items of one call, and most that are being made ready or are it: a batch to run, and one for after it. */
  readonly #two: number;
  /** Items that wait for a decoder, and those that need none. */
  readonly #queued = { encoded: new Set<Item<W, Result>>(), plain: new Set<Item<W, Result>>() };
  /** Each in the order in which its items came. */
  readonly #in = {
    decoding: new Set<Item<W, Result>>(),
    preprocessing: new Set<Item<W, Result>>(),
    ready: new Set<Item<W, Result>>(),
    running: new Set<Item<W, Result>>(),
  };
  /** Items whose calls have not left. */
  readonly #live = new Set<Item<W, Result>>();
  readonly #batches = new Set<readonly Item<W, Result>[]>();
  #admitted = 0;
  #examining = false;
  #immediate = false;
  #timer: NodeJS.Timeout | undefined;
  #closed: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;

  constructor(options: PipelineOptions<W, Result>) {
    this.#options = options;
    this.#two = 2 * options.maxBatch;
  }

  get queue(): QueueState {
    let running = 0;
    for (const item of this.#in.running) if (this.#live.has(item)) running++;
    return Object.freeze({ waiting: this.#live.size - running, running, limit: this.#options.maxQueue });
  }

  /**
   * Results of all works, in order; at most two batches of them are items at a time. The first failure is the call's, and
   * takes up no further work. The works are the pipeline's from here on, also if it refuses them.
   *
   * @param times - is given the times of each result, by the time that they are there
   * @throws (rejects) ERR_SENET_QUEUE_FULL; ERR_SENET_ABORTED, at once when the signal aborts
   */
  run(works: readonly W[], signal?: AbortSignal, times?: ItemTimes[]): Promise<Result[]> {
    return new Promise((resolve, reject) => {
      const places = Math.min(works.length, this.#two, this.#options.maxQueue);
      const refusal = this.#refusal(places, signal);
      if (refusal !== undefined) {
        for (const work of works) work.dispose();
        reject(refusal);
        return;
      }
      const results = new Array<Result>(works.length);
      const controller = new AbortController();
      const stop = signal && onAbort(signal, () => this.#leave(call, abortError(signal)));
      const settle = (error?: Error): void => {
        stop?.();
        if (error === undefined) resolve(results);
        else reject(error);
      };
      const call: Call<W, Result> = {
        ...{ works, results, times, taken: 0, items: new Set(), controller, left: false, settle },
      };
      for (let place = 0; place < places; place++) this.#take(call);
      if (places === 0) this.#leave(call);
      this.#examine();
    });
  }

  /** Nothing comes any more: waits for nobody's company. Settles when nothing is under way. */
  close(): Promise<void> {
    if (this.#closed === undefined) {
      let resolve = (): void => undefined;
      const promise = new Promise<void>((settle) => (resolve = settle));
      this.#closed = { promise, resolve };
      this.#examine();
    }
    return this.#closed.promise;
  }

  #refusal(places: number, signal: AbortSignal | undefined): Error | undefined {
    if (signal?.aborted === true) return abortError(signal);
    if (this.#live.size + places <= this.#options.maxQueue) return undefined;
    return makeError(
      'ERR_SENET_QUEUE_FULL',
      `classify: ${this.#live.size} images are waiting and ${places} more do not fit: batching.maxQueue is ${this.#options.maxQueue}`,
    );
  }

  /** Makes the next work of a call an item. */
  #take(call: Call<W, Result>): void {
    const index = call.taken++;
    const work = call.works[index] as W;
    const item: Item<W, Result> = {
      ...{ work, call, index, number: this.#admitted++, state: 'queued', dueAt: 0 },
      since: call.times && { queued: performance.now() },
    };
    call.items.add(item);
    this.#live.add(item);
    this.#setOf(item).add(item);
  }

  #setOf({ state, work }: Item<W, Result>): Set<Item<W, Result>> {
    return state === 'queued' ? this.#queued[work.encoded ? 'encoded' : 'plain'] : this.#in[state];
  }

  #move(item: Item<W, Result>, state: State): void {
    this.#setOf(item).delete(item);
    item.state = state;
    if (item.since !== undefined) item.since[state] = performance.now();
    this.#setOf(item).add(item);
  }

  /** The only way out for an item: nothing of it is under way. Its call, if it is still there, gets the outcome. */
  #end(item: Item<W, Result>, outcome?: Result | Error): void {
    this.#setOf(item).delete(item);
    this.#live.delete(item);
    item.work.dispose();
    const { call } = item;
    call.items.delete(item);
    if (call.left) return;
    if (isError(outcome)) {
      this.#leave(call, outcome);
      return;
    }
    call.results[item.index] = outcome as Result;
    if (call.taken < call.works.length) this.#take(call);
    else if (call.items.size === 0) this.#leave(call);
  }

  /** The only way out for a call: answered, or with an error. Its items give up their places. */
  #leave(call: Call<W, Result>, error?: Error): void {
    if (call.left) return;
    call.left = true;
    for (const item of call.items) {
      this.#live.delete(item);
      if (item.state === 'queued' || item.state === 'ready') this.#end(item);
    }
    for (const work of call.works.slice(call.taken)) work.dispose();
    call.taken = call.works.length;
    call.settle(error);
    if (error === undefined) return;
    call.controller.abort();
    this.#examine();
  }

  /** Who may go on? To be asked after every change. */
  #examine(): void {
    if (this.#examining) return; // below: the loop goes on until nobody may
    this.#examining = true;
    for (let item = this.#next(); item !== undefined; item = this.#next()) {
      this.#move(item, item.work.encoded ? 'decoding' : 'preprocessing');
      void this.#prepare(item);
    }
    this.#examining = false;
    const { ready, decoding, preprocessing } = this.#in;
    if (ready.size > 0) this.#startSoon();
    else clearTimeout(this.#timer);
    const held = this.#live.size + decoding.size + preprocessing.size + this.#batches.size;
    if (held === 0) this.#closed?.resolve();
  }

  /** The item that is to be made ready next: the first in the queue, where it may. */
  #next(): Item<W, Result> | undefined {
    const { decoders } = this.#options;
    const { decoding, preprocessing, ready } = this.#in;
    // What is ready waits in memory. A small batch must not leave decoders idle.
    if (decoding.size + preprocessing.size + ready.size >= Math.max(this.#two, decoders)) return undefined;
    const [plain] = this.#queued.plain;
    const [encoded] = decoding.size < decoders ? this.#queued.encoded : [];
    if (plain === undefined || encoded === undefined) return plain ?? encoded;
    return plain.number < encoded.number ? plain : encoded;
  }

  async #prepare(item: Item<W, Result>): Promise<void> {
    const { work, call } = item;
    const { signal } = call.controller;
    const hold = this.#options.budget.hold(signal);
    let failure: Error | undefined;
    try {
      if (work.encoded) {
        await work.decode(hold.reserve, hold.restart);
        this.#move(item, 'preprocessing');
        this.#examine();
      }
      if (!call.left) await work.preprocess(hold.reserve, signal);
    } catch (error) {
      failure = isError(error) ? error : new Error(String(error), { cause: error });
    }
    if (failure !== undefined || call.left) this.#end(item, failure);
    else {
      item.dueAt = performance.now() + this.#options.delay;
      this.#move(item, 'ready');
    }
    hold.release(); // after what it was for has ended
    this.#examine();
  }

  /** After this turn of the event loop: whoever becomes ready in the same turn goes along. */
  #startSoon(): void {
    if (this.#immediate) return;
    this.#immediate = true;
    setImmediate(() => {
      this.#immediate = false;
      this.#start();
    });
  }

  /** Starts batches while there are lanes and items whose time has come. */
  #start(): void {
    clearTimeout(this.#timer);
    while (this.#batches.size < this.#options.lanes()) {
      const key = this.#nextKey();
      if (key === undefined) break;
      void this.#runBatch(this.#batchOf(key));
    }
  }

  /** The key whose turn it is: that of the item that waits longest among those that are due or have a full batch. */
  #nextKey(): string | undefined {
    const { ready } = this.#in;
    const [first] = ready;
    if (first === undefined) return undefined;
    const wait = first.dueAt - performance.now();
    // No company can come where no more can become ready.
    if (wait <= 0 || this.#closed !== undefined || ready.size >= this.#two) return first.work.key;
    const counts = new Map<string, number>();
    for (const { work } of ready) {
      const count = (counts.get(work.key) ?? 0) + 1;
      if (count === this.#options.maxBatch) return work.key;
      counts.set(work.key, count);
    }
    this.#timer = setTimeout(() => this.#start(), Math.ceil(wait));
    return undefined;
  }

  #batchOf(key: string): Item<W, Result>[] {
    const batch: Item<W, Result>[] = [];
    for (const item of this.#in.ready) {
      if (batch.length === this.#options.maxBatch) break;
      if (item.work.key === key) batch.push(item);
    }
    return batch;
  }

  async #runBatch(batch: readonly Item<W, Result>[]): Promise<void> {
    this.#batches.add(batch);
    for (const item of batch) this.#move(item, 'running');
    let outcomes: readonly (Result | Error)[];
    try {
      const running = this.#options.run(batch.map(({ work }) => work));
      this.#examine();
      outcomes = await running;
    } catch (cause) {
      const error = isError(cause) ? cause : new Error(String(cause), { cause });
      outcomes = batch.map(() => error);
    }
    this.#batches.delete(batch);
    batch.forEach((item, place) => {
      if (item.since !== undefined && item.call.times !== undefined)
        item.call.times[item.index] = timesOf(item.since, batch.length, place);
      this.#end(item, outcomes[place]);
    });
    this.#examine();
  }
}

/** Of an item whose batch has just run. */
function timesOf(since: Partial<Record<State, number>>, batch: number, place: number): ItemTimes {
  const { queued = 0, decoding, preprocessing = 0, ready = 0, running = 0 } = since;
  return {
    queue: (decoding ?? preprocessing) - queued,
    decode: decoding === undefined ? 0 : preprocessing - decoding,
    preprocess: ready - preprocessing,
    wait: running - ready,
    network: performance.now() - running,
    ...{ batch, place },
  };
}
