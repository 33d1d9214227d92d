/**
 * Continuous batching: items that arrive one by one are run together, as many as are waiting when a lane is free. While
 * batches run, arrivals gather; when one ends, the next goes. Knows neither images nor tensors.
 */
import { performance } from 'node:perf_hooks';
import { clearTimeout, setImmediate, setTimeout } from 'node:timers';
import { abortError, onAbort } from '../tensor/abort';

export interface BatcherOptions<Item, Result> {
  /** Items that run together at most. */
  readonly maxBatch: number;
  /** Milliseconds that an item waits for company, unless a batch is full before. */
  readonly delay: number;
  /** Batches that may run at the same time; asked anew before each. */
  readonly lanes: () => number;
  /** Results in the order of the items. What it throws or rejects with goes to every item of the batch. */
  readonly run: (items: readonly Item[]) => Promise<readonly Result[]>;
}

interface Waiting<Item, Result> {
  readonly key: string;
  readonly item: Item;
  readonly dueAt: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: Error) => void;
}

export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  /** In the order of arrival. */
  #waiting: Waiting<Item, Result>[] = [];
  #running = 0;
  #immediate = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options;
  }

  /** Items that wait; those that run have left. */
  get size(): number {
    return this.#waiting.length;
  }

  /**
   * Runs `item` in a batch with others of the same `key`. When `signal` aborts, the item leaves the queue, or, if it runs
   * already, its result is dropped; its companions notice nothing.
   */
  add(key: string, item: Item, signal?: AbortSignal): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(abortError(signal));
        return;
      }
      const dueAt = performance.now() + this.#options.delay;
      const leave = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        entry.reject(abortError(signal as AbortSignal));
      };
      const settled = signal === undefined ? () => undefined : onAbort(signal, leave);
      const entry: Waiting<Item, Result> = {
        key,
        item,
        dueAt,
        resolve: (result) => {
          settled();
          resolve(result);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      this.#waiting.push(entry);
      this.#startSoon();
    });
  }

  /** After this turn of the event loop: whoever arrives in the same turn goes along. */
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
    while (this.#running < this.#options.lanes()) {
      const key = this.#nextKey();
      if (key === undefined) break;
      void this.#run(this.#take(key));
    }
  }

  /** The key whose turn it is: that of the item that waits longest among those that are due or have a full batch. */
  #nextKey(): string | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const wait = first.dueAt - performance.now();
    if (wait <= 0) return first.key;
    const counts = new Map<string, number>();
    for (const { key } of this.#waiting) {
      const count = (counts.get(key) ?? 0) + 1;
      if (count === this.#options.maxBatch) return key;
      counts.set(key, count);
    }
    this.#timer = setTimeout(() => this.#start(), Math.ceil(wait));
    return undefined;
  }

  #take(key: string): Waiting<Item, Result>[] {
    const batch: Waiting<Item, Result>[] = [];
    const left: Waiting<Item, Result>[] = [];
    for (const entry of this.#waiting)
      (entry.key === key && batch.length < this.#options.maxBatch ? batch : left).push(entry);
    this.#waiting = left;
    return batch;
  }

  async #run(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    this.#running++;
    try {
      const results = await this.#options.run(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, index) => resolve(results[index] as Result));
    } catch (error) {
      for (const { reject } of batch) reject(error as Error);
    } finally {
      this.#running--;
      this.#startSoon();
    }
  }
}
