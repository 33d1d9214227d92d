/**
 * Work that goes on together with its like, but for some that must have the process to itself: libvips keeps one text of
 * what went wrong for all its threads, so what it says of one image is true only when no other is being decoded.
 */
export class Alone {
  #together = 0;
  #last: Promise<unknown> = Promise.resolve();
  #idle: (() => void) | undefined;

  /** Runs with others, once whoever wants to be alone is done. */
  async together<T>(work: () => Promise<T>): Promise<T> {
    // Another may have come to be alone while this one waited for the first.
    for (let seen; seen !== this.#last;) {
      seen = this.#last;
      await seen;
    }
    this.#together++;
    try {
      return await work();
    } finally {
      if (--this.#together === 0) this.#idle?.();
    }
  }

  /** Runs once everything that began before has ended, and nothing begins until it has. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const done = (async () => {
      await before;
      if (this.#together > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
      this.#idle = undefined;
      return work();
    })();
    this.#last = done.catch(() => undefined);
    return done;
  }
}
