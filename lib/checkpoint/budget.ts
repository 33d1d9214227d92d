/**
 * What reading one file costs: bytes of heap, which are limited, and steps, after some of which the event loop has its
 * turn. Readers and walkers are generators that yield where `spend` says so; `inSlices` runs them. A slice ends after so
 * many steps, after so much time, since the collector's pauses and a table's collisions make some steps long, and after so
 * many bytes, which are then collected while they are few. Knows no file format.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers';
import { MAX_HEAP_BYTES, PIECE_BYTES, SLICE_MS, SLICE_STEPS, STEPS_PER_LOOK, YOUNG_BYTES } from './limits';
import { checkpointError } from './problems';
import { collectYoung } from './young-generation';

/** The longest slice of this process so far, in steps, for tests. */
export const sliceRecord = { longest: 0, turns: 0 };

export class Budget {
  #heap = 0;
  /** Bytes since the last collection that was asked for. */
  #young = 0;
  #steps = 0;
  /** Steps after which the clock is looked at, and the time at which the slice is over. */
  #look = STEPS_PER_LOOK;
  #end = performance.now() + SLICE_MS;

  /**
   * @param label - what messages call the file
   * @param limit - bytes of heap
   */
  constructor(
    private readonly label: string,
    private readonly limit = MAX_HEAP_BYTES,
  ) {}

  /** Counts bytes of heap, and the steps that filling them takes. Errors: ERR_SENET_CHECKPOINT_LIMIT. */
  charge(bytes: number, at?: number): void {
    this.#heap += bytes;
    this.#young += bytes;
    this.#steps += Math.min(bytes, PIECE_BYTES) >>> 10;
    if (this.#heap <= this.limit) return;
    const message = `its description would take more than ${this.limit} bytes of memory`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, message, at);
  }

  /** Counts bytes of heap that no limit holds, since their number is limited: they are young nevertheless. */
  made(bytes: number): void {
    this.#young += bytes;
  }

  /** Takes back what was charged for something that no longer exists. */
  release(bytes: number): void {
    this.#heap -= bytes;
  }

  /** Counts steps; true when the slice is over. */
  spend(steps: number): boolean {
    this.#steps += steps;
    if (this.#steps >= SLICE_STEPS || this.#young >= YOUNG_BYTES) return true;
    if (this.#steps < this.#look) return false;
    this.#look = this.#steps + STEPS_PER_LOOK;
    return performance.now() >= this.#end;
  }

  /** Lets the event loop turn. */
  turn(): Promise<void> {
    if (this.#steps > sliceRecord.longest) sliceRecord.longest = this.#steps;
    sliceRecord.turns++;
    return new Promise((resolve) => setImmediate(resolve)).then(() => {
      if (this.#young >= YOUNG_BYTES) {
        collectYoung();
        this.#young = 0;
      }
      this.#steps = 0;
      this.#look = STEPS_PER_LOOK;
      this.#end = performance.now() + SLICE_MS;
    });
  }
}

/** Work that stands still at each `yield`. */
export type Sliced<T> = Generator<void, T, void>;

/** Runs a generator to its end, with a turn of the event loop at each `yield`. */
export async function inSlices<T>(budget: Budget, work: Sliced<T>): Promise<T> {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
    await budget.turn();
  }
}

/** Runs a generator to its end at once. */
export function inOneStep<T>(work: Sliced<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

/** Copies bytes into as many. */
export function* copyPieces(to: Uint8Array, from: Uint8Array): Sliced<void> {
  for (let start = 0; start < from.length; start += PIECE_BYTES) {
    to.set(from.subarray(start, start + PIECE_BYTES), start);
    if (start + PIECE_BYTES < from.length) yield;
  }
}

/** The items in order, equal ones in the order given, as `toSorted` would have them. */
export function* sorted<T>(items: Iterable<T>, compare: (a: T, b: T) => number, budget: Budget): Sliced<T[]> {
  let runs: T[][] = [[]];
  for (const item of items) {
    let run = runs.at(-1) as T[];
    const last = run.at(-1);
    // What is in order already, as in nearly every file, stays one run.
    if (last !== undefined && compare(last, item) > 0) runs.push((run = []));
    run.push(item);
    if (budget.spend(1)) yield;
  }
  while (runs.length > 1) {
    const merged: T[][] = [];
    for (let i = 0; i < runs.length; i += 2) {
      merged.push(yield* merge(runs[i] as T[], runs[i + 1] ?? [], compare, budget));
    }
    runs = merged;
  }
  return runs[0] as T[];
}

function* merge<T>(
  left: readonly T[],
  right: readonly T[],
  compare: (a: T, b: T) => number,
  budget: Budget,
): Sliced<T[]> {
  const merged: T[] = [];
  for (let i = 0, j = 0; i + j < left.length + right.length;) {
    const isLeft = j >= right.length || (i < left.length && compare(left[i] as T, right[j] as T) <= 0);
    merged.push((isLeft ? left[i++] : right[j++]) as T);
    if (budget.spend(1)) yield;
  }
  return merged;
}
