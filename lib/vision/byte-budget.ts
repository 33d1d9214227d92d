/**
 * ByteBudget: bounds the memory of what several pieces of work hold at the same time, first come first served. Knows
 * nothing of the work.
 */
import { abortError, onAbort } from '../tensor/abort';

/** Pixels that are decoded and not yet small again may take so many bytes. */
export const PIXEL_BYTES = 128 * 2 ** 20;

/** What one piece of work holds. */
export interface Hold {
  /**
   * Waits until so many bytes fit. Only the first call of a piece of work waits: whoever holds some and waits for more
   * could wait for himself.
   *
   * @throws (rejects) ERR_SENET_ABORTED, and then nothing more is held
   */
  readonly reserve: (bytes: number) => Promise<void>;
  /** Gives everything back, before another way to the same end: whoever reserves then waits again. */
  readonly restart: () => void;
  /** Gives everything back. */
  readonly release: () => void;
}

interface Waiting {
  readonly bytes: number;
  readonly enter: () => void;
}

export class ByteBudget {
  readonly #limit: number;
  #used = 0;
  readonly #waiting = new Set<Waiting>();

  /** @param limit - in bytes; what is larger alone is let in when nobody else holds any, and then alone */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  hold(signal?: AbortSignal): Hold {
    let held = 0;
    let released = false;
    let first: Promise<void> | undefined;
    const add = (bytes: number): void => {
      if (released) return;
      held += bytes;
      this.#used += bytes;
    };
    return {
      reserve: async (bytes) => {
        if (first === undefined) {
          first = this.#turn(bytes, () => add(bytes), signal);
          return first;
        }
        await first;
        add(bytes);
      },
      restart: () => {
        this.#used -= held;
        held = 0;
        first = undefined;
        this.#examine();
      },
      release: () => {
        released = true;
        this.#used -= held;
        held = 0;
        this.#examine();
      },
    };
  }

  #turn(bytes: number, add: () => void, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(abortError(signal));
        return;
      }
      const waiting: Waiting = {
        bytes,
        enter: () => {
          stop?.();
          add();
          resolve();
        },
      };
      const stop =
        signal &&
        onAbort(signal, () => {
          this.#waiting.delete(waiting);
          reject(abortError(signal));
          this.#examine();
        });
      this.#waiting.add(waiting);
      this.#examine();
    });
  }

  /** Lets in, in order, what fits: nobody overtakes, so a large piece is not kept out by small ones. */
  #examine(): void {
    for (const waiting of this.#waiting) {
      if (this.#used > 0 && this.#used + waiting.bytes > this.#limit) return;
      this.#waiting.delete(waiting);
      waiting.enter();
    }
  }
}
