/**
 * One pass over batches, some of which are made ahead: what `for await` over a DataLoader goes through. Whoever leaves early
 * disposes what is ready and waits for what is being made. Knows neither data sets nor transforms.
 */
import { onAbort, untilAborted } from '../tensor/abort';
import { adopt, currentScope, detached, type Disposable } from '../tensor/scope';

/** A batch that is ready, and the tensors in it that the loader made. */
export interface Ready<B> {
  readonly batch: B;
  readonly owned: ReadonlySet<Disposable>;
  /** Batches that have been given out once this one is. */
  readonly position: number;
}

/** One pass over a generator of batches, some of which are being made ahead. */
export class Iteration<B> implements AsyncIterableIterator<B> {
  readonly #source: AsyncGenerator<Ready<B>>;
  readonly #ahead: number;
  readonly #moved: (position: number | null) => void;
  readonly #controller = new AbortController();
  readonly #unlisten: () => void;
  /** Batches that are ready or in the making, in order. */
  #waiting: Promise<IteratorResult<Ready<B>, unknown>>[] = [];
  #closed: Promise<void> | null = null;
  /** Ended by `return`, before anything else did. */
  #returned = false;

  /** @param moved - told the position after each batch that is given out, and null at the end */
  constructor(
    start: (signal: AbortSignal) => AsyncGenerator<Ready<B>>,
    ahead: number,
    signal: AbortSignal | undefined,
    moved: (position: number | null) => void,
  ) {
    const abort = (): void => this.#controller.abort(signal?.reason);
    if (signal?.aborted === true) abort();
    this.#unlisten = signal === undefined ? () => undefined : onAbort(signal, abort);
    this.#source = start(this.#controller.signal);
    this.#ahead = ahead;
    this.#moved = moved;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<B>> {
    if (this.#closed !== null) return { done: true, value: undefined };
    const scope = currentScope();
    this.#fill(1);
    const taken = this.#waiting.shift() as Promise<IteratorResult<Ready<B>, unknown>>;
    this.#fill(this.#ahead);
    let result: IteratorResult<Ready<B>, unknown>;
    try {
      result = await untilAborted(taken, this.#controller.signal);
    } catch (error) {
      if (this.#closed === null) {
        this.#waiting.push(taken);
        void this.#close();
      } else void discard(taken); // `return` came while this one was waited for
      if (this.#returned) return { done: true, value: undefined };
      throw error;
    }
    if (result.done === true) {
      if (this.#closed === null) this.#moved(null);
      await this.#close();
      return { done: true, value: undefined };
    }
    const { batch, owned, position } = result.value;
    for (const made of owned) adopt(made, scope);
    this.#moved(position);
    return { done: false, value: batch };
  }

  /** Ends the iteration: stops what is being made and disposes what is ready. */
  async return(): Promise<IteratorResult<B>> {
    this.#returned ||= this.#closed === null;
    await this.#close();
    return { done: true, value: undefined };
  }

  #fill(count: number): void {
    while (this.#waiting.length < count) {
      // The generator makes one batch after the other, however many are asked for.
      const ready = detached(null, () => this.#source.next());
      ready.catch(() => undefined); // whoever takes it sees the error
      this.#waiting.push(ready);
    }
  }

  #close(): Promise<void> {
    return (this.#closed ??= (async () => {
      this.#unlisten();
      this.#controller.abort();
      const left = this.#waiting;
      this.#waiting = [];
      for (const ready of left) await discard(ready);
      await this.#source.return(undefined).catch(() => undefined);
    })());
  }
}

/** Disposes a batch that nobody takes, once it is made. */
async function discard<B>(ready: Promise<IteratorResult<Ready<B>, unknown>>): Promise<void> {
  const result = await ready.catch(() => undefined);
  if (result === undefined || result.done === true) return;
  for (const made of result.value.owned) made.dispose();
}
