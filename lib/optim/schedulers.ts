/**
 * Learning rates that follow a formula, as those of `torch.optim.lr_scheduler`: each computes the next rate from the
 * present one of the group.
 */
import { makeError } from '../errors';
import { checkNumber, describe } from '../tensor/options';
import { arrayOf, integer, number, orElse, readOptions, required, type Rule } from '../tensor/rules';
import type { Optimizer, ParamGroup } from './optimizer';
import { savedNumber, StepwiseScheduler, type SchedulerState } from './scheduler';
import { dictionary, list } from './state';

const gamma = orElse(0.1, number(0));

export interface StepLROptions {
  /** Steps between two changes, at least 1. */
  stepSize: number;
  /** Default 0.1. */
  gamma?: number;
}

/** Multiplies the rates by `gamma` every `stepSize` steps. */
export class StepLR extends StepwiseScheduler {
  #stepSize: number;
  #gamma: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: StepLROptions) {
    super(optimizer, 'StepLR');
    const checked = readOptions(options, { stepSize: required(integer(1)), gamma }, 'StepLR');
    this.#stepSize = checked.stepSize;
    this.#gamma = checked.gamma;
    this.start();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    return epoch === 0 || epoch % this.#stepSize !== 0 ? group.lr : group.lr * this.#gamma;
  }
  protected override options(): SchedulerState {
    return { step_size: this.#stepSize, gamma: this.#gamma };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const stepSize = savedNumber(state.get('step_size'), `${where}: step_size`);
    const gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
    return () => {
      this.#stepSize = stepSize;
      this.#gamma = gamma;
    };
  }
}

export interface MultiStepLROptions {
  /** Steps at which the rate changes; one that stands there twice counts twice. */
  milestones: readonly number[];
  /** Default 0.1. */
  gamma?: number;
}

const steps = arrayOf('an array of steps', integer(0));

/** Multiplies the rates by `gamma` at each milestone. */
export class MultiStepLR extends StepwiseScheduler {
  /** Milestone -> how many times it was given. */
  #milestones: Map<number, number>;
  #gamma: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: MultiStepLROptions) {
    super(optimizer, 'MultiStepLR');
    const checked = readOptions(options, { milestones: required(steps), gamma }, 'MultiStepLR');
    this.#milestones = new Map();
    for (const step of checked.milestones) {
      this.#milestones.set(step, (this.#milestones.get(step) ?? 0) + 1);
    }
    this.#gamma = checked.gamma;
    this.start();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    const times = this.#milestones.get(epoch) ?? 0;
    return times === 0 ? group.lr : group.lr * this.#gamma ** times;
  }
  protected override options(): SchedulerState {
    return { milestones: new Map(this.#milestones), gamma: this.#gamma };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const saved = dictionary(state.get('milestones'), `${where}: milestones`);
    const milestones = new Map(
      [...saved].map(([step, times]): [number, number] => [
        savedNumber(Number(step), `${where}: milestones`),
        savedNumber(times, `${where}: milestones`),
      ]),
    );
    const gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
    return () => {
      this.#milestones = milestones;
      this.#gamma = gamma;
    };
  }
}

export interface ExponentialLROptions {
  gamma: number;
}

/** Multiplies the rates by `gamma` at every step. */
export class ExponentialLR extends StepwiseScheduler {
  #gamma: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: ExponentialLROptions) {
    super(optimizer, 'ExponentialLR');
    this.#gamma = readOptions(options, { gamma: required(number(0)) }, 'ExponentialLR').gamma;
    this.start();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    return epoch === 0 ? group.lr : group.lr * this.#gamma;
  }
  protected override options(): SchedulerState {
    return { gamma: this.#gamma };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
    return () => {
      this.#gamma = gamma;
    };
  }
}

export interface CosineAnnealingLROptions {
  /** Steps from the highest rate to the lowest, at least 1. Beyond it the rate rises again. */
  tMax: number;
  /** The lowest rate. Default 0. */
  etaMin?: number;
}

/** Half a cosine from the rate at the beginning down to `etaMin`. */
export class CosineAnnealingLR extends StepwiseScheduler {
  #tMax: number;
  #etaMin: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: CosineAnnealingLROptions) {
    super(optimizer, 'CosineAnnealingLR');
    const rules = { tMax: required(integer(1)), etaMin: orElse(0, number(0)) };
    const { tMax, etaMin } = readOptions(options, rules, 'CosineAnnealingLR');
    this.#tMax = tMax;
    this.#etaMin = etaMin;
    this.start();
  }

  protected override nextLr(group: ParamGroup, index: number, epoch: number): number {
    if (epoch === 0) return group.lr;
    const [tMax, etaMin] = [this.#tMax, this.#etaMin];
    // At the bottom the quotient below would be 0 / 0; the rate starts to rise from there.
    if ((epoch - 1 - tMax) % (2 * tMax) === 0) {
      const base = this.baseLrs[index] ?? group.lr;
      return group.lr + ((base - etaMin) * (1 - Math.cos(Math.PI / tMax))) / 2;
    }
    const quotient =
      (1 + Math.cos((Math.PI * epoch) / tMax)) / (1 + Math.cos((Math.PI * (epoch - 1)) / tMax));
    return quotient * (group.lr - etaMin) + etaMin;
  }
  /** As PyTorch's closed form, whose rounding this is. */
  protected override firstLr(group: ParamGroup, index: number): number {
    return this.#etaMin + ((this.baseLrs[index] ?? group.lr) - this.#etaMin);
  }
  protected override options(): SchedulerState {
    return { T_max: this.#tMax, eta_min: this.#etaMin };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const tMax = savedNumber(state.get('T_max'), `${where}: T_max`);
    const etaMin = savedNumber(state.get('eta_min'), `${where}: eta_min`);
    return () => {
      this.#tMax = tMax;
      this.#etaMin = etaMin;
    };
  }
}

export interface LinearLROptions {
  /** What the rate is multiplied by at first, above 0 and at most 1. Default 1/3. */
  startFactor?: number;
  /** What it is multiplied by in the end, 0 to 1. Default 1. */
  endFactor?: number;
  /** Steps from one to the other, at least 0. Default 5. */
  totalIters?: number;
}

/** A straight line from one share of the rate to another: the warm-up at the beginning. */
export class LinearLR extends StepwiseScheduler {
  #startFactor: number;
  #endFactor: number;
  #totalIters: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options?: LinearLROptions) {
    super(optimizer, 'LinearLR');
    const rules = {
      startFactor: orElse(1 / 3, number(Number.MIN_VALUE, 1)),
      endFactor: orElse(1, number(0, 1)),
      totalIters: orElse(5, integer(0)),
    };
    const { startFactor, endFactor, totalIters } = readOptions(options, rules, 'LinearLR');
    this.#startFactor = startFactor;
    this.#endFactor = endFactor;
    this.#totalIters = totalIters;
    this.start();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    if (epoch === 0) return group.lr * this.#startFactor;
    if (epoch > this.#totalIters) return group.lr;
    const rise = this.#endFactor - this.#startFactor;
    return group.lr * (1 + rise / (this.#totalIters * this.#startFactor + (epoch - 1) * rise));
  }
  protected override options(): SchedulerState {
    return {
      start_factor: this.#startFactor,
      end_factor: this.#endFactor,
      total_iters: this.#totalIters,
    };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const startFactor = savedNumber(state.get('start_factor'), `${where}: start_factor`);
    const endFactor = savedNumber(state.get('end_factor'), `${where}: end_factor`);
    const totalIters = savedNumber(state.get('total_iters'), `${where}: total_iters`);
    return () => {
      this.#startFactor = startFactor;
      this.#endFactor = endFactor;
      this.#totalIters = totalIters;
    };
  }
}

export interface CosineAnnealingWarmRestartsOptions {
  /** Steps from the highest rate to the lowest in the first cycle, at least 1. */
  t0: number;
  /** How many times as long each cycle is as the one before, a whole number of at least 1. Default 1. */
  tMult?: number;
  /** The lowest rate. Default 0. */
  etaMin?: number;
}

/** Half a cosine down to `etaMin`, again and again. Loshchilov and Hutter: *SGDR* (2016). */
export class CosineAnnealingWarmRestarts extends StepwiseScheduler {
  #t0: number;
  #tMult: number;
  #etaMin: number;
  /** Steps of the present cycle, and those taken of it. */
  #length: number;
  #taken = -1;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: CosineAnnealingWarmRestartsOptions) {
    super(optimizer, 'CosineAnnealingWarmRestarts');
    const rules = { t0: required(integer(1)), tMult: orElse(1, integer(1)), etaMin: orElse(0, number(0)) };
    const { t0, tMult, etaMin } = readOptions(options, rules, 'CosineAnnealingWarmRestarts');
    this.#t0 = t0;
    this.#tMult = tMult;
    this.#etaMin = etaMin;
    this.#length = t0;
    this.start();
  }

  /**
   * @param epoch - the step to go to, which may lie between two: `epoch + batch / batches`. Default: the next
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (below 0)
   */
  override step(epoch?: number): void {
    // PARITY: PyTorch's step of this scheduler does not count in `_step_count`.
    if (epoch !== undefined) this.#place(checkNumber(epoch, 'CosineAnnealingWarmRestarts.step: epoch', 0));
    else if (this.lastEpoch < 0) this.#place(0);
    else if (++this.#taken >= this.#length) {
      this.#taken %= this.#length;
      this.#length *= this.#tMult;
    }
    this.moveTo(epoch === undefined ? this.lastEpoch + 1 : Math.floor(epoch));
  }

  override keep(): () => void {
    const putBack = super.keep();
    const [taken, length] = [this.#taken, this.#length];
    return () => {
      putBack();
      this.#taken = taken;
      this.#length = length;
    };
  }

  #place(epoch: number): void {
    const [t0, tMult] = [this.#t0, this.#tMult];
    if (epoch < t0) {
      this.#length = t0;
      this.#taken = epoch;
    } else if (tMult === 1) {
      this.#taken = epoch % t0;
    } else {
      const cycles = Math.trunc(Math.log((epoch / t0) * (tMult - 1) + 1) / Math.log(tMult));
      this.#taken = epoch - (t0 * (tMult ** cycles - 1)) / (tMult - 1);
      this.#length = t0 * tMult ** cycles;
    }
  }

  protected override nextLr(group: ParamGroup, index: number): number {
    const base = this.baseLrs[index] ?? group.lr;
    const share = (Math.PI * this.#taken) / this.#length;
    return this.#etaMin + ((base - this.#etaMin) * (1 + Math.cos(share))) / 2;
  }
  protected override options(): SchedulerState {
    return {
      T_0: this.#t0,
      T_i: this.#length,
      T_mult: this.#tMult,
      eta_min: this.#etaMin,
      T_cur: this.#taken,
    };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const [t0, length, tMult, etaMin, taken] = ['T_0', 'T_i', 'T_mult', 'eta_min', 'T_cur'].map((name) =>
      savedNumber(state.get(name), `${where}: ${name}`),
    ) as [number, number, number, number, number];
    return () => {
      this.#t0 = t0;
      this.#length = length;
      this.#tMult = tMult;
      this.#etaMin = etaMin;
      this.#taken = taken;
    };
  }
}

/** What a rate is multiplied by at a step, 0 being the first. */
export type LrLambda = (epoch: number) => number;

export interface LambdaLROptions {
  /** Of all groups, or one for each. It must not depend on anything but the step: a run that goes on calls it anew. */
  lrLambda: LrLambda | readonly LrLambda[];
}

/** The rates of the beginning times a function of the step. */
export class LambdaLR extends StepwiseScheduler {
  readonly #lambdas: readonly LrLambda[];

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: LambdaLROptions) {
    super(optimizer, 'LambdaLR');
    const rules = { lrLambda: required(lambdasOf(optimizer.paramGroups.length)) };
    this.#lambdas = readOptions(options, rules, 'LambdaLR').lrLambda;
    this.start();
  }

  /**
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE for what a function gives that is no number or not finite, and what
   *   it throws; nothing is changed then
   */
  override step(): void {
    super.step();
  }

  protected override nextLr(group: ParamGroup, index: number, epoch: number): number {
    const factor = this.#lambdas[index]?.(epoch);
    return (this.baseLrs[index] ?? group.lr) * checkNumber(factor, `LambdaLR: lrLambda(${epoch})`, 0);
  }
  protected override options(): SchedulerState {
    // PyTorch saves attributes of callable objects, and of functions nothing.
    return { lr_lambdas: this.#lambdas.map(() => null) };
  }
  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const saved = list(state.get('lr_lambdas'), `${where}: lr_lambdas`);
    if (saved.length === this.#lambdas.length) return () => undefined;
    throw makeError(
      'ERR_SENET_STATE_DICT',
      `${where}: lr_lambdas: expected ${this.#lambdas.length}, got ${saved.length}`,
    );
  }
}

const lambdasOf =
  (groups: number): Rule<LrLambda[]> =>
  (value, what) => {
    const given: unknown[] = Array.isArray(value) ? value : Array<unknown>(groups).fill(value);
    const wrong = given.findIndex((one) => typeof one !== 'function');
    if (wrong >= 0) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${what}: expected a function, or one for each group, got ${describe(given[wrong])}`,
      );
    }
    if (given.length === groups) return given as LrLambda[];
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected ${groups} functions, got ${given.length}`);
  };
