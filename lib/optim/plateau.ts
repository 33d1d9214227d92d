/** Lower learning rates where a metric no longer improves, as `torch.optim.lr_scheduler.ReduceLROnPlateau`. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { integer, number, oneOf, orElse, readOptions } from '../tensor/rules';
import type { Optimizer } from './optimizer';
import { forEachGroup, LRScheduler, savedNumber, savedRates, type SchedulerState } from './scheduler';

export interface ReduceLROnPlateauOptions {
  /** Whether a lower metric is better ('min', as of a loss) or a higher one ('max', as of an accuracy). Default 'min'. */
  mode?: 'min' | 'max';
  /** What the rates are multiplied by, 0 to below 1. Default 0.1. */
  factor?: number;
  /** Steps without an improvement that are let pass, at least 0. Default 10. */
  patience?: number;
  /** By how much a metric must be better than the best. Default 1e-4. */
  threshold?: number;
  /** Of the best ('rel'), or as it is ('abs'). Default 'rel'. */
  thresholdMode?: 'rel' | 'abs';
  /** Steps after a lower rate in which none counts as bad. Default 0. */
  cooldown?: number;
  /** The lowest rate: of all groups, or of each. Default 0. */
  minLr?: number | readonly number[];
  /** A change of a rate that is no more than this is left out. Default 1e-8. */
  eps?: number;
}

const MODES = ['min', 'max'] as const;
const THRESHOLD_MODES = ['rel', 'abs'] as const;

const belowOne = (value: unknown, what: string): number => {
  const factor = number(0)(value, what);
  if (factor < 1) return factor;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected a number below 1, got ${factor}`);
};

const rulesOf = (groups: number) => ({
  mode: orElse('min' as const, oneOf(MODES)),
  factor: orElse(0.1, belowOne),
  patience: orElse(10, integer(0)),
  threshold: orElse(1e-4, number(0)),
  thresholdMode: orElse('rel' as const, oneOf(THRESHOLD_MODES)),
  cooldown: orElse(0, integer(0)),
  minLr: orElse(0, forEachGroup(groups)),
  eps: orElse(1e-8, number(0)),
});

/**
 * Multiplies the rates by `factor` after more than `patience` steps without a better metric. Call `step(metric)` after each
 * epoch; a `Trainer` gives it the loss of the validation, or with mode 'max' the accuracy.
 */
export class ReduceLROnPlateau extends LRScheduler {
  #mode: 'min' | 'max';
  #factor: number;
  #patience: number;
  #threshold: number;
  #thresholdMode: 'rel' | 'abs';
  #cooldown: number;
  /** For groups that come later; null where each group has its own. */
  #defaultMinLr: number | null;
  #minLrs: number[];
  #eps: number;
  #best: number;
  #cooldownLeft = 0;
  #badSteps = 0;
  #lastEpoch = 0;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options?: ReduceLROnPlateauOptions) {
    super(optimizer, 'ReduceLROnPlateau');
    const checked = readOptions(options, rulesOf(optimizer.paramGroups.length), 'ReduceLROnPlateau');
    this.#mode = checked.mode;
    this.#factor = checked.factor;
    this.#patience = checked.patience;
    this.#threshold = checked.threshold;
    this.#thresholdMode = checked.thresholdMode;
    this.#cooldown = checked.cooldown;
    this.#defaultMinLr = Array.isArray(options?.minLr) ? null : (checked.minLr[0] ?? 0);
    this.#minLrs = checked.minLr;
    this.#eps = checked.eps;
    this.#best = this.#worst();
    this.lastLr = this.presentLr();
  }

  override get lastEpoch(): number {
    return this.#lastEpoch;
  }

  /** @internal Whether a lower metric is better. */
  get mode(): 'min' | 'max' {
    return this.#mode;
  }

  /**
   * @param metric - NaN is no improvement, as in PyTorch
   * @throws ERR_SENET_ARG_MISSING without a metric, ERR_SENET_ARG_TYPE; ERR_SENET_ARG_RANGE where a group was added since,
   *   and each has its own lowest rate. Nothing is changed then
   */
  override step(metric?: number): void {
    const where = 'ReduceLROnPlateau.step';
    if (metric === undefined) throw makeError('ERR_SENET_ARG_MISSING', `${where}: metric is required`);
    if (typeof metric !== 'number')
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: metric: expected a number, got ${describe(metric)}`);
    const groups = this.optimizer.paramGroups.length;
    if (groups !== this.#minLrs.length) {
      if (this.#defaultMinLr === null) {
        throw makeError(
          'ERR_SENET_ARG_RANGE',
          `${where}: the optimiser has ${groups} groups, and minLr was given for ${this.#minLrs.length}; make another ReduceLROnPlateau`,
        );
      }
      this.#minLrs = Array<number>(groups).fill(this.#defaultMinLr);
    }
    this.#lastEpoch++;
    if (this.#isBetter(metric)) {
      this.#best = metric;
      this.#badSteps = 0;
    } else this.#badSteps++;
    if (this.#cooldownLeft > 0) {
      this.#cooldownLeft--;
      this.#badSteps = 0;
    }
    if (this.#badSteps > this.#patience) {
      this.#reduce();
      this.#cooldownLeft = this.#cooldown;
      this.#badSteps = 0;
    }
    this.lastLr = this.presentLr();
  }

  #reduce(): void {
    for (const [index, group] of this.optimizer.paramGroups.entries()) {
      const lower = Math.max(group.lr * this.#factor, this.#minLrs[index] ?? 0);
      if (group.lr - lower > this.#eps) group.lr = lower;
    }
  }

  #isBetter(metric: number): boolean {
    const [best, threshold] = [this.#best, this.#threshold];
    const isRelative = this.#thresholdMode === 'rel';
    return this.#mode === 'min'
      ? metric < (isRelative ? best * (1 - threshold) : best - threshold)
      : metric > (isRelative ? best * (threshold + 1) : best + threshold);
  }

  #worst(): number {
    return this.#mode === 'min' ? Infinity : -Infinity;
  }

  override stateDict(): SchedulerState {
    return {
      factor: this.#factor,
      default_min_lr: this.#defaultMinLr,
      min_lrs: [...this.#minLrs],
      patience: this.#patience,
      cooldown: this.#cooldown,
      eps: this.#eps,
      last_epoch: this.#lastEpoch,
      _last_lr: [...this.lastLr],
      mode_worse: this.#worst(),
      mode: this.#mode,
      threshold: this.#threshold,
      threshold_mode: this.#thresholdMode,
      best: this.#best,
      cooldown_counter: this.#cooldownLeft,
      num_bad_epochs: this.#badSteps,
    };
  }

  override readState(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const groups = this.optimizer.paramGroups.length;
    const numberOf = (name: string): number => savedNumber(state.get(name), `${where}: ${name}`);
    const oneSaved = <const T extends string>(name: string, values: readonly T[]): T => {
      const found = values.find((value) => value === state.get(name));
      if (found !== undefined) return found;
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: ${name}: expected ${values.join(' or ')}, got ${describe(state.get(name))}`,
      );
    };
    const minLrs = savedRates(state.get('min_lrs'), `${where}: min_lrs`, groups);
    const lastLr = savedRates(state.get('_last_lr'), `${where}: _last_lr`, groups);
    // Before PyTorch 2.6 nothing said whether each group has its own.
    const usual = state.get('default_min_lr') ?? null;
    const defaultMinLr = usual === null ? null : savedNumber(usual, `${where}: default_min_lr`);
    const mode = oneSaved('mode', MODES);
    const thresholdMode = oneSaved('threshold_mode', THRESHOLD_MODES);
    const [factor, patience, threshold, cooldown, eps, best, cooldownLeft, badSteps, lastEpoch] = [
      'factor',
      'patience',
      'threshold',
      'cooldown',
      'eps',
      'best',
      'cooldown_counter',
      'num_bad_epochs',
      'last_epoch',
    ].map(numberOf) as [number, number, number, number, number, number, number, number, number];
    return () => {
      this.#mode = mode;
      this.#factor = factor;
      this.#patience = patience;
      this.#threshold = threshold;
      this.#thresholdMode = thresholdMode;
      this.#cooldown = cooldown;
      this.#defaultMinLr = defaultMinLr;
      this.#minLrs = minLrs;
      this.#eps = eps;
      this.#best = best;
      this.#cooldownLeft = cooldownLeft;
      this.#badSteps = badSteps;
      this.#lastEpoch = lastEpoch;
      this.lastLr = lastLr;
    };
  }
}
