/**
 * GradScaler: the scale of the loss that keeps small gradients within float16's range, as `torch.amp.GradScaler`: doubled
 * after so many steps whose gradients were finite, halved after one whose were not, which is left out.
 *
 * Scale and counter are tensors where the loss is, and whether a gradient was infinite stays there too: no step waits
 * for a device.
 */
import { isMap, markClass } from '../brands';
import type { TensorHandle } from '../binding';
import { makeError } from '../errors';
import { binding } from '../native';
import { full } from '../tensor/factories';
import { runJob } from '../tensor/jobs';
import { ops } from '../tensor/ops';
import { describe } from '../tensor/options';
import { above, boolean, integer, matching, orElse, readOptions, type Rules } from '../tensor/rules';
import { detached, tidy } from '../tensor/scope';
import { handleOf, Tensor, wrapUntracked } from '../tensor/tensor';
import { Optimizer } from './optimizer';

export interface GradScalerOptions {
  /** What the loss is multiplied by at first, above 0. Default 65,536. */
  initScale?: number;
  /** The scale grows by it, above 1. Default 2. */
  growthFactor?: number;
  /** The scale shrinks by it after gradients that were not finite, above 0 and below 1. Default 0.5. */
  backoffFactor?: number;
  /** Steps with finite gradients after which the scale grows, at least 1. Default 2,000. */
  growthInterval?: number;
  /** False: everything is as without a scaler. Default true. */
  enabled?: boolean;
}

/** With Python's names, as `torch.amp.GradScaler.state_dict()`; empty of one that is not enabled. */
export interface GradScalerState {
  scale?: number;
  growth_factor?: number;
  backoff_factor?: number;
  growth_interval?: number;
  _growth_tracker?: number;
}

/** The scale is a float32, and what is counted int32. */
const scaleRule = matching<number>(
  'a number above 0 that float32 can hold',
  (value) => typeof value === 'number' && Math.fround(value) > 0 && Number.isFinite(Math.fround(value)),
  'ERR_SENET_ARG_RANGE',
);
const LARGEST_COUNT = 2 ** 31 - 1;
const growthFactor = above(1);
const backoffFactor = matching<number>(
  'a number above 0 and below 1',
  (value) => typeof value === 'number' && value > 0 && value < 1,
  'ERR_SENET_ARG_RANGE',
);
const growthInterval = integer(1, LARGEST_COUNT);
const SCALER = {
  initScale: orElse(65536, scaleRule),
  growthFactor: orElse(2, growthFactor),
  backoffFactor: orElse(0.5, backoffFactor),
  growthInterval: orElse(2000, growthInterval),
  enabled: orElse(true, boolean),
} satisfies Rules<GradScalerOptions>;

/** Of one optimiser, between two updates. */
interface Progress {
  stage: 'unscaled' | 'stepped';
  /** 1 if a gradient was not finite. */
  readonly foundInf: Tensor;
}

/**
 * @example
 * const scaler = new GradScaler();
 * const loss = await autocast(async () => criterion.forward(await model.forward(x), labels), { dtype: 'float16' });
 * await scaler.scale(loss).backward();
 * await scaler.unscale_(optimizer); // only for what looks at the gradients, such as clipGradNorm_
 * await scaler.step(optimizer);
 * scaler.update();
 */
export class GradScaler {
  #initScale: number;
  #growthFactor: number;
  #backoffFactor: number;
  #growthInterval: number;
  #initTracker = 0;
  readonly #enabled: boolean;
  /** Made where the first loss is. */
  #scale: Tensor | null = null;
  #tracker: Tensor | null = null;
  readonly #progress = new Map<Optimizer, Progress>();
  /** Calls of `unscale_` and `step` that have not settled. */
  #running = 0;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: GradScalerOptions) {
    const given = readOptions(options, SCALER, 'GradScaler');
    this.#initScale = given.initScale;
    this.#growthFactor = given.growthFactor;
    this.#backoffFactor = given.backoffFactor;
    this.#growthInterval = given.growthInterval;
    this.#enabled = given.enabled;
  }

  /**
   * The loss, or each of several, times the scale.
   *
   * @throws ERR_SENET_ARG_TYPE; ERR_SENET_BUSY while an `unscale_` or `step` of this scaler runs
   */
  scale<T extends Tensor | readonly Tensor[]>(outputs: T): T {
    const list: unknown[] = Array.isArray(outputs) ? outputs : [outputs];
    for (const [i, output] of list.entries()) handleOf(output, `GradScaler.scale: outputs[${i}]`);
    if (!this.#enabled || list.length === 0) return outputs;
    this.#checkIdle('scale');
    const [first] = list as Tensor[];
    if (this.#scale === null) this.#create((first as Tensor).device);
    const scale = this.#scale as unknown as Tensor;
    const scaled = (list as Tensor[]).map((output) => output.mul(scale.to(output.device)));
    return (Array.isArray(outputs) ? scaled : scaled[0]) as T;
  }

  /**
   * Divides the gradients of the optimiser's parameters by the scale, for what looks at them before the step, such as
   * `clipGradNorm_`; `step` does it by itself else. At most once for each optimiser between two updates, when all of
   * its gradients are there.
   *
   * @throws (rejects) ERR_SENET_AUTOGRAD if it was called before, after `step`, or before any loss was scaled;
   *   ERR_SENET_DTYPE for gradients of float16; ERR_SENET_ARG_TYPE, ERR_SENET_BUSY
   */
  async unscale_(optimizer: Optimizer): Promise<void> {
    checkOptimizer(optimizer, 'unscale_');
    if (!this.#enabled) return;
    const before = this.#progress.get(optimizer)?.stage;
    if (before !== undefined) {
      throw makeError(
        'ERR_SENET_AUTOGRAD',
        before === 'unscaled'
          ? 'GradScaler.unscale_: it was called for this optimiser already since the last update'
          : 'GradScaler.unscale_: it is called after step',
      );
    }
    await this.#exclusively('unscale_', () => this.#unscale(optimizer));
  }

  /**
   * The optimiser's step with the gradients divided by the scale, or none if one of them is infinite or NaN: parameters
   * and state stay as they are then. At most once for each optimiser between two updates.
   *
   * @throws (rejects) ERR_SENET_AUTOGRAD if it was called already since the last update, or before any loss was scaled,
   *   or if no parameter has a gradient; ERR_SENET_DTYPE for gradients of float16; as the optimiser's own step
   */
  async step(optimizer: Optimizer): Promise<void> {
    checkOptimizer(optimizer, 'step');
    if (!this.#enabled) return optimizer.step();
    if (this.#progress.get(optimizer)?.stage === 'stepped')
      throw makeError('ERR_SENET_AUTOGRAD', 'GradScaler.step: it was called already since the last update');
    await this.#exclusively('step', async () => {
      if (!this.#progress.has(optimizer)) await this.#unscale(optimizer);
      const progress = this.#progress.get(optimizer) as Progress;
      await optimizer.stepUnless(progress.foundInf);
      progress.stage = 'stepped';
    });
  }

  /**
   * Adapts the scale to whether gradients were finite since the last update, after the steps of all optimisers; or sets it.
   *
   * @param newScale - above 0; default: as the factors and the interval say
   * @throws ERR_SENET_AUTOGRAD if no step was taken since the last update; ERR_SENET_BUSY while a step runs (await it);
   *   ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
   */
  update(newScale?: number): void {
    if (!this.#enabled) return;
    this.#checkIdle('update');
    const [scale, tracker] = this.#created('update');
    const adapt = (): void => {
      if (newScale !== undefined) {
        ops.call('aten::fill_', scale, scaleRule(newScale, 'GradScaler.update: newScale'));
        return;
      }
      const found = [...this.#progress.values()].map(({ foundInf }) => foundInf.to(scale.device));
      if (found.length === 0)
        throw makeError('ERR_SENET_AUTOGRAD', 'GradScaler.update: no step was taken since the last update');
      const any = found.length === 1 ? (found[0] as Tensor) : Tensor.stack(found).max();
      ops.call(
        'aten::_amp_update_scale_',
        ...[scale, tracker, any, this.#growthFactor, this.#backoffFactor, this.#growthInterval],
      );
    };
    detached(null, () => tidy(adapt));
    for (const { foundInf } of this.#progress.values()) foundInf.dispose();
    this.#progress.clear();
  }

  /** The scale now; 1 if it is not enabled. Waits for a device that computes it. */
  getScale(): number {
    if (!this.#enabled) return 1;
    return this.#scale === null ? this.#initScale : Number(this.#scale.item());
  }

  getGrowthFactor(): number {
    return this.#growthFactor;
  }
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  setGrowthFactor(factor: number): void {
    this.#growthFactor = growthFactor(factor, 'GradScaler.setGrowthFactor');
  }
  getBackoffFactor(): number {
    return this.#backoffFactor;
  }
  /** @throws ERR_SENET_ARG_RANGE */
  setBackoffFactor(factor: number): void {
    this.#backoffFactor = backoffFactor(factor, 'GradScaler.setBackoffFactor');
  }
  getGrowthInterval(): number {
    return this.#growthInterval;
  }
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  setGrowthInterval(interval: number): void {
    this.#growthInterval = growthInterval(interval, 'GradScaler.setGrowthInterval');
  }

  isEnabled(): boolean {
    return this.#enabled;
  }

  /** With Python's names, for a checkpoint; after `update`, as in PyTorch. Empty if it is not enabled. */
  stateDict(): GradScalerState {
    if (!this.#enabled) return {};
    return {
      scale: this.getScale(),
      growth_factor: this.#growthFactor,
      backoff_factor: this.#backoffFactor,
      growth_interval: this.#growthInterval,
      _growth_tracker: this.#tracker === null ? this.#initTracker : Number(this.#tracker.item()),
    };
  }

  /**
   * Goes on where `stateDict` was taken, also one of Python's, as an object or a Map. One that is not enabled ignores it.
   *
   * @throws ERR_SENET_STATE_DICT if it is empty (of a scaler that was not enabled), or a value is missing or impossible:
   *   nothing is changed then; ERR_SENET_BUSY while a step runs
   */
  loadStateDict(state: GradScalerState | ReadonlyMap<unknown, unknown>): void {
    if (!this.#enabled) return;
    this.#checkIdle('loadStateDict');
    const where = 'GradScaler.loadStateDict';
    const given = new Map<unknown, unknown>(
      isMap(state)
        ? state
        : typeof state === 'object' && (state as unknown) !== null
          ? Object.entries(state)
          : [],
    );
    if (given.size === 0) {
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: the state is empty; was it saved by a scaler that was not enabled?`,
      );
    }
    const read = (name: keyof GradScalerState, fits: (value: number) => boolean): number => {
      const value = given.get(name);
      const numeric = typeof value === 'bigint' ? Number(value) : value;
      if (typeof numeric === 'number' && Number.isFinite(numeric) && fits(numeric)) return numeric;
      throw makeError('ERR_SENET_STATE_DICT', `${where}: ${name}: got ${describe(value)}`);
    };
    const scale = read('scale', (value) => value >= 0 && Number.isFinite(Math.fround(value))); // it may have shrunk to nothing
    const growth = read('growth_factor', (value) => value > 1);
    const backoff = read('backoff_factor', (value) => value > 0 && value < 1);
    const interval = read('growth_interval', (value) => isCount(value) && value >= 1);
    const tracker = read('_growth_tracker', isCount);
    this.#initScale = scale;
    this.#growthFactor = growth;
    this.#backoffFactor = backoff;
    this.#growthInterval = interval;
    this.#initTracker = tracker;
    if (this.#scale !== null) ops.call('aten::fill_', this.#scale, scale);
    if (this.#tracker !== null) ops.call('aten::fill_', this.#tracker, tracker);
  }

  #create(device: Tensor['device']): void {
    detached(null, () => {
      this.#scale = full([], this.#initScale, { device });
      this.#tracker = full([], this.#initTracker, { dtype: 'int32', device });
    });
  }

  #created(where: string): [scale: Tensor, tracker: Tensor] {
    if (this.#scale !== null && this.#tracker !== null) return [this.#scale, this.#tracker];
    throw makeError(
      'ERR_SENET_AUTOGRAD',
      `GradScaler.${where}: no loss was scaled yet (scale(loss).backward())`,
    );
  }

  async #unscale(optimizer: Optimizer): Promise<void> {
    const [scale] = this.#created('step');
    const parameters = optimizer.paramGroups.flatMap(({ params }) => params);
    if (parameters.every((parameter) => parameter.grad === null))
      throw makeError('ERR_SENET_AUTOGRAD', 'GradScaler: no parameter of the optimiser has a gradient');
    const handles = parameters.map((parameter) => handleOf(parameter, 'a parameter'));
    const found = await runJob(() => binding.unscaleGradients(handles, handleOf(scale, 'scale')));
    this.#progress.set(optimizer, { stage: 'unscaled', foundInf: wrapUntracked(found as TensorHandle) });
  }

  #checkIdle(where: string): void {
    if (this.#running === 0) return;
    throw makeError(
      'ERR_SENET_BUSY',
      `GradScaler.${where}: a step of this scaler is running; await it first`,
    );
  }

  async #exclusively(where: string, work: () => Promise<void>): Promise<void> {
    this.#checkIdle(where);
    this.#running++;
    try {
      await work();
    } finally {
      this.#running--;
    }
  }
}

markClass(GradScaler);

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= LARGEST_COUNT;
}

function checkOptimizer(value: unknown, where: string): void {
  if (value instanceof Optimizer) return;
  throw makeError('ERR_SENET_ARG_TYPE', `GradScaler.${where}: expected an Optimizer, got ${describe(value)}`);
}
