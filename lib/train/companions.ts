/** The processes that train one network together, as far as a Trainer asks them for something. Alone there are none. */
import { DistributedDataParallel } from '../distributed/data-parallel';
import { allReduce, getRank, getWorldSize, reportFailure } from '../distributed/process-group';
import { isSenetError } from '../errors';
import { Module } from '../nn/module';
import { abortError } from '../tensor/abort';
import { tensor } from '../tensor/factories';

export class Companions {
  /** Null where the model is trained by this process alone. */
  readonly parallel: DistributedDataParallel<unknown> | null;
  readonly rank: number;
  readonly worldSize: number;
  readonly #signal: AbortSignal | undefined;
  #stop = false;

  constructor(model: Module<unknown>, signal: AbortSignal | undefined) {
    this.parallel = model instanceof DistributedDataParallel ? model : null;
    this.rank = this.parallel === null ? 0 : getRank();
    this.worldSize = this.parallel === null ? 1 : getWorldSize();
    this.#signal = signal;
  }

  /** The one that writes files and tells of progress. */
  get isMain(): boolean {
    return this.rank === 0;
  }

  /** Whether the run is to stop here, on all processes alike: what one of them wishes, `sum` tells the others. */
  get isStopping(): boolean {
    return this.parallel === null ? this.#signal?.aborted === true : this.#stop;
  }

  throwIfStopping(): void {
    if (!this.isStopping) return;
    const { aborted } = this.#signal ?? {};
    throw abortError(
      aborted === true ? (this.#signal as AbortSignal) : AbortSignal.abort('another process was interrupted'),
    );
  }

  /** The sums of all processes' numbers. @throws (rejects) as `allReduce` */
  async sum<const N extends readonly number[]>(numbers: N): Promise<{ [I in keyof N]: number }> {
    if (this.parallel === null) return numbers as { [I in keyof N]: number };
    const all = tensor([...numbers, Number(this.#signal?.aborted === true)], { dtype: 'float64' });
    try {
      await allReduce(all);
      const sums = Array.from(all.toTypedArray() as Float64Array);
      if ((sums.pop() as number) > 0) this.#stop = true;
      return sums as { [I in keyof N]: number };
    } finally {
      all.dispose();
    }
  }

  /** Tells the others what this process fails with, unless it is what they know. Never rejects. */
  async report(error: unknown): Promise<void> {
    if (this.parallel !== null) await reportError(error);
  }
}

/** The same, of whatever ends a process of the group. */
export async function reportError(error: unknown): Promise<void> {
  const known = ['ERR_SENET_RANK_LOST', 'ERR_SENET_ABORTED'];
  if (isSenetError(error) && known.includes(error.code)) return;
  const reason = isSenetError(error) ? `${error.code}: ${error.message}` : String(error);
  await reportFailure(reason).catch(() => undefined);
}
