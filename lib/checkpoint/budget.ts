/**
 * What reading one file costs: bytes of heap, which are limited, and steps, after some of which the event loop has its
 * turn. Readers and walkers are generators that yield where `spend` says so; `inSlices` runs them. Counted and not
 * timed, so that the same file is cut into the same slices on every machine. Knows no file format.
 */
import { setImmediate } from 'node:timers';
import { MAX_HEAP_BYTES, PIECE_BYTES, SLICE_STEPS } from './limits';
import { checkpointError } from './problems';

/** The longest slice of this process so far, in steps, for tests. */
export const sliceRecord = { longest: 0, turns: 0 };

export class Budget {
  #heap = 0;
  #steps = 0;

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
    this.#steps += Math.min(bytes, PIECE_BYTES) >>> 10;
    if (this.#heap <= this.limit) return;
    const message = `its description would take more than ${this.limit} bytes of memory`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, message, at);
  }

  /** Takes back what was charged for something that no longer exists. */
  release(bytes: number): void {
    this.#heap -= bytes;
  }

  /** Counts steps; true when the slice is over. */
  spend(steps: number): boolean {
    this.#steps += steps;
    return this.#steps >= SLICE_STEPS;
  }

  /** Lets the event loop turn. */
  turn(): Promise<void> {
    if (this.#steps > sliceRecord.longest) sliceRecord.longest = this.#steps;
    sliceRecord.turns++;
    this.#steps = 0;
    return new Promise((resolve) => setImmediate(resolve));
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
