/** Work in pieces on a thread that a service shares. */
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';

/** Milliseconds of work after which others on this thread have their turn. */
const TURN = 4;

export class Turns {
  #since = performance.now();

  /** Between two pieces: lets others go first if this has been at it for a while. */
  async take(): Promise<void> {
    if (performance.now() - this.#since < TURN) return;
    await setImmediate();
    this.#since = performance.now();
  }
}
