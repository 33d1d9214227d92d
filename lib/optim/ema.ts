/**
 * An exponential moving average of a module's weights, as `torch.optim.swa_utils.AveragedModel` with
 * `get_ema_multi_avg_fn` and `use_buffers=True`: parameters and running statistics are averaged. Deviates from it where a
 * buffer counts (`num_batches_tracked`): that is copied.
 */
import { isMap } from '../brands';
import type { TensorHandle } from '../binding';
import { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { binding } from '../native';
import { Module } from '../nn/module';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { number, orElse, readOptions } from '../tensor/rules';
import { callOperator, handleOf, Tensor, wrapUntracked } from '../tensor/tensor';

export interface ExponentialMovingAverageOptions {
  /** How much of the average an update keeps, 0 to 1. Default 0.999. */
  decay?: number;
}

/** Where the number of updates stands in the state dict's metadata, so that a file keeps it. */
const UPDATES = 'ema_updates';

/**
 * ```ts
 * const ema = new ExponentialMovingAverage(model, { decay: 0.999 });
 * await optimizer.step();
 * await ema.update();
 * other.loadStateDict(ema.stateDict());
 * ```
 */
export class ExponentialMovingAverage {
  readonly decay: number;
  readonly #module: Module<unknown>;
  readonly #averages: Map<string, Tensor>;
  #updates = 0;
  #running = 0;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_DISPOSED */
  constructor(module: Module<unknown>, options?: ExponentialMovingAverageOptions) {
    const where = 'ExponentialMovingAverage';
    if (!Module.isModule(module))
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Module, got ${describe(module)}`);
    this.decay = readOptions(options, { decay: orElse(0.999, number(0, 1)) }, where).decay;
    this.#module = module;
    const state = module.stateDict();
    this.#averages = new Map([...state].map(([name, tensor]) => [name, copyOf(tensor)]));
    state.dispose();
  }

  /** How many updates there were; those that failed are none. */
  get updates(): number {
    return this.#updates;
  }

  /**
   * Takes the module's present weights into the average, as one job of the executor that runs alone: after the jobs that
   * were submitted before it, an optimiser's step too. The first update copies them.
   *
   * @throws (rejects) ERR_SENET_SHAPE if the module's tensors are others than when the average began
   */
  async update(): Promise<void> {
    const current = new Map([...this.#module.namedParameters(), ...this.#module.namedBuffers()]);
    const values = [...this.#averages.keys()].map((name) => {
      const tensor = current.get(name);
      if (tensor !== undefined) return handleOf(tensor, name);
      throw makeError('ERR_SENET_SHAPE', `ExponentialMovingAverage: the module has no '${name}' any more`);
    });
    const averages = [...this.#averages].map(([name, tensor]) => handleOf(tensor, name));
    const weight = this.#updates === 0 ? 1 : 1 - this.decay;
    const job = runJob(() => binding.averageInto(averages, values, weight));
    this.#updates++;
    this.#running++;
    try {
      await job;
    } catch (error) {
      this.#updates--;
      throw error;
    } finally {
      this.#running--;
    }
  }

  /**
   * The averages under the module's names, for its `loadStateDict` or for `save`. The next update changes them.
   *
   * @throws ERR_SENET_BUSY while an update is queued or running
   */
  stateDict(): StateDict {
    this.#checkIdle();
    const module = this.#module.stateDict();
    const metadata = new Map(module.metadata);
    module.dispose();
    metadata.set('', { ...metadata.get(''), [UPDATES]: this.#updates });
    const entries = [...this.#averages].map(([name, tensor]): [string, Tensor] => [
      name,
      callOperator('aten::detach', [tensor]) as Tensor,
    ]);
    return new StateDict(entries, metadata);
  }

  /**
   * Goes on from averages of `stateDict()`, or from any state dict of the module.
   *
   * @throws ERR_SENET_STATE_DICT unless names and shapes are the module's; nothing is changed then. ERR_SENET_BUSY
   */
  loadStateDict(state: unknown): void {
    this.#checkIdle();
    const where = 'ExponentialMovingAverage.loadStateDict';
    if (!isMap(state))
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a StateDict, got ${describe(state)}`);
    const given = new Map(
      [...(state as Map<string, unknown>)].map(([name, tensor]): [string, Tensor] => {
        if (!Tensor.isTensor(tensor)) {
          throw makeError(
            'ERR_SENET_STATE_DICT',
            `${where}: '${name}': expected a Tensor, got ${describe(tensor)}`,
          );
        }
        handleOf(tensor, `${where}: '${name}'`); // one that was disposed
        return [name, tensor];
      }),
    );
    const missing = [...this.#averages.keys()].filter((name) => !given.has(name));
    const unexpected = [...given.keys()].filter((name) => !this.#averages.has(name));
    const other = [...this.#averages].filter(
      ([name, tensor]) =>
        given.has(name) && String((given.get(name) as Tensor).shape) !== String(tensor.shape),
    );
    if (missing.length + unexpected.length + other.length > 0) {
      const facts = [`missing: ${missing.join(', ')}`, `unexpected: ${unexpected.join(', ')}`];
      const shapes = `of another shape: ${other.map(([name]) => name).join(', ')}`;
      throw makeError('ERR_SENET_STATE_DICT', `${where}: ${[...facts, shapes].join('; ')}`);
    }
    for (const [name, tensor] of this.#averages) {
      const source = handleOf(given.get(name), name);
      binding.callOperator('aten::copy_', [handleOf(tensor, name), source], null, false, null);
    }
    const updates = state instanceof StateDict ? state.metadata.get('')?.[UPDATES] : undefined;
    this.#updates = typeof updates === 'number' ? updates : 1;
  }

  /** Frees the averages. */
  dispose(): void {
    for (const tensor of this.#averages.values()) tensor.dispose();
  }

  #checkIdle(): void {
    if (this.#running > 0)
      throw makeError(
        'ERR_SENET_BUSY',
        'ExponentialMovingAverage: an update is queued or running; await it first',
      );
  }
}

/** A copy that no `tidy` disposes. */
function copyOf(tensor: Tensor): Tensor {
  const handle = binding.callOperator('aten::clone', [handleOf(tensor, 'a weight')], null, false, null);
  return wrapUntracked(handle as TensorHandle);
}
