/**
 * Relay: takes items from a stream, has them worked on several at a time, and hands the results on in the order of the
 * items. Takes the next item while results wait, up to a limit. Knows neither images nor answers.
 */
import { untilAborted } from '../tensor/abort';

export class Relay<Item, Result> {
  readonly #items: AsyncIterator<Item>;
  readonly #work: (item: Item) => Promise<Result>;
  readonly #limit: number;
  /** Results in the order of their items, those under way too. */
  readonly #results: Promise<Result>[] = [];
  #ended = false;
  #stopped = false;
  #problem: { readonly error: unknown } | undefined;
  /** Wakes whoever waits for a change: of the two sides at most one waits. */
  #wake: (() => void) | undefined;

  /** @param limit - items that are under way, or done and not yet handed on */
  constructor(items: AsyncIterable<Item>, work: (item: Item) => Promise<Result>, limit: number) {
    this.#items = items[Symbol.asyncIterator]();
    this.#work = work;
    this.#limit = limit;
    void this.#take();
  }

  /**
   * The next result, or null after the last. What the work or the stream throws comes in its place in the order.
   *
   * @throws (rejects) ERR_SENET_ABORTED, at once
   */
  async next(signal: AbortSignal): Promise<Result | null> {
    while (this.#results.length === 0 && !this.#ended) await untilAborted(this.#change(), signal);
    const result = this.#results.at(0);
    if (result !== undefined) {
      const value = await untilAborted(result, signal);
      void this.#results.shift();
      this.#wake?.();
      return value;
    }
    if (this.#problem !== undefined) throw this.#problem.error;
    return null;
  }

  /** Takes no further item. */
  stop(): void {
    this.#stopped = true;
    this.#wake?.();
    // A stream that waits for its next item ends after it; nobody waits for that.
    void Promise.resolve(this.#items.return?.()).catch(() => undefined);
  }

  async #take(): Promise<void> {
    try {
      while (!this.#stopped) {
        const next = await this.#items.next();
        if (next.done === true || this.#stopped) break;
        const result = this.#work(next.value);
        result.catch(() => undefined); // it is told in its turn
        this.#results.push(result);
        this.#wake?.();
        while (this.#results.length >= this.#limit && !this.#stopped) await this.#change();
      }
    } catch (error) {
      this.#problem = { error };
    }
    this.#ended = true;
    this.#wake?.();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#wake;
      this.#wake = () => {
        before?.();
        this.#wake = undefined;
        resolve();
      };
    });
  }
}
