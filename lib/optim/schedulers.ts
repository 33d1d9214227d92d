/**
 * Learning rates that change as training goes on, as `torch.optim.lr_scheduler`. Like PyTorch's, each computes the next
 * rate from the present one of the group, so that several may act on one optimiser in turn. Each writes only `lr` and,
 * OneCycleLR, momentum; none knows what an optimiser does with them.
 *
 * State dicts have PyTorch's names (`last_epoch`, `_step_count`), so that Python continues what this library saved.
 */
import { makeError } from '../errors';
import { checkInteger, checkNumber, describe } from '../tensor/options';
import {
  boolean,
  integer,
  number,
  oneOf,
  optional,
  orElse,
  readOptions,
  required,
  type Rule,
} from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import { Optimizer, type ParamGroup } from './optimizer';
import { dictionary, list } from './state';

/** What a scheduler saves: its options and where it stands, by PyTorch's names. */
export type SchedulerState = Record<string, unknown>;

/** The base of all schedulers. Call `step()` after the optimiser's step, once for each epoch or batch as you mean it. */
export abstract class LRScheduler {
  /** @internal */
  protected readonly optimizer: Optimizer;
  #baseLrs: readonly number[] = [];
  #lastLr: number[] = [];
  #lastEpoch = -1;
  #stepCount = 0;

  /** @internal */
  protected constructor(optimizer: Optimizer, where: string) {
    if (!(optimizer instanceof Optimizer)) {
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected an optimiser, got ${describe(optimizer)}`);
    }
    this.optimizer = optimizer;
  }

  /** @internal The last act of each constructor: sets the first rates. */
  protected begin(): void {
    for (const group of this.optimizer.paramGroups) group.initialLr ??= group.lr;
    this.#baseLrs = this.optimizer.paramGroups.map((group) => group.initialLr ?? group.lr);
    this.step();
  }

  /** Steps taken since construction; the first rates are those of step 0. */
  get lastEpoch(): number {
    return this.#lastEpoch;
  }

  /** The rates of the groups when the scheduler was made. @internal */
  protected get baseLrs(): readonly number[] {
    return this.#baseLrs;
  }

  /** Goes on to the next rates and writes them into the optimiser's groups. */
  step(): void {
    const next = this.#lastEpoch + 1;
    const rates = this.optimizer.paramGroups.map((group, index) => this.nextLr(group, index, next));
    this.#lastEpoch = next;
    this.#stepCount++;
    for (const [index, group] of this.optimizer.paramGroups.entries()) group.lr = rates[index] as number;
    this.#lastLr = rates;
  }

  /** The rates of the groups, as the last step set them. */
  getLastLr(): number[] {
    return [...this.#lastLr];
  }

  /** @internal The rate of a group at step `epoch`, 0 being the first. */
  protected abstract nextLr(group: ParamGroup, index: number, epoch: number): number;
  /** @internal Options by PyTorch's names. */
  protected abstract options(): SchedulerState;
  /** @internal Takes the options of a state dict; throws ERR_SENET_STATE_DICT. */
  protected abstract takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void;

  /** Options and position with PyTorch's names; the rates themselves are in the optimiser's state. */
  stateDict(): SchedulerState {
    return {
      ...this.options(),
      base_lrs: [...this.#baseLrs],
      last_epoch: this.#lastEpoch,
      _step_count: this.#stepCount,
      _is_initial: false,
      _get_lr_called_within_step: false,
      _last_lr: [...this.#lastLr],
    };
  }

  /**
   * Takes a state dict of `stateDict()`, or what `loadCheckpoint` reads from a file of Python's. Load the optimiser's
   * state too: it has the present rates.
   *
   * @throws ERR_SENET_STATE_DICT if it is of another scheduler or other groups; nothing is changed then
   */
  loadStateDict(value: unknown): void {
    const where = `${this.constructor.name}.loadStateDict`;
    const state = dictionary(value, where);
    const { length } = this.optimizer.paramGroups;
    const rates = (name: string): number[] => {
      const values = list(state.get(name), `${where}: ${name}`).map((rate) =>
        savedNumber(rate, `${where}: ${name}`),
      );
      if (values.length === length) return values;
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: ${name}: expected ${length} rates, got ${values.length}`,
      );
    };
    const baseLrs = rates('base_lrs');
    const lastLr = state.has('_last_lr') ? rates('_last_lr') : this.#lastLr;
    const lastEpoch = savedNumber(state.get('last_epoch'), `${where}: last_epoch`);
    const stepCount = savedNumber(state.get('_step_count') ?? lastEpoch + 1, `${where}: _step_count`);
    this.takeOptions(state, where);
    this.#baseLrs = baseLrs;
    this.#lastLr = lastLr;
    this.#lastEpoch = lastEpoch;
    this.#stepCount = stepCount;
  }
}

/**
 * A number of a state dict, whatever its value: PyTorch checks none, and a schedule may end anywhere. A rate may be a
 * tensor there.
 */
function savedNumber(value: unknown, what: string): number {
  if (typeof value === 'number') return value;
  if (Tensor.isTensor(value) && value.numel === 1) return Number(value.item());
  throw makeError('ERR_SENET_STATE_DICT', `${what}: expected a number, got ${describe(value)}`);
}

const gamma = orElse(0.1, number(0));

export interface StepLROptions {
  /** Steps between two changes, at least 1. */
  stepSize: number;
  /** Default 0.1. */
  gamma?: number;
}

/** Multiplies the rates by `gamma` every `stepSize` steps. */
export class StepLR extends LRScheduler {
  #stepSize: number;
  #gamma: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: StepLROptions) {
    super(optimizer, 'StepLR');
    const checked = readOptions(options, { stepSize: required(integer(1)), gamma }, 'StepLR');
    this.#stepSize = checked.stepSize;
    this.#gamma = checked.gamma;
    this.begin();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    return epoch === 0 || epoch % this.#stepSize !== 0 ? group.lr : group.lr * this.#gamma;
  }
  protected override options(): SchedulerState {
    return { step_size: this.#stepSize, gamma: this.#gamma };
  }
  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    const stepSize = savedNumber(state.get('step_size'), `${where}: step_size`);
    this.#gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
    this.#stepSize = stepSize;
  }
}

export interface MultiStepLROptions {
  /** Steps at which the rate changes; one that stands there twice counts twice. */
  milestones: readonly number[];
  /** Default 0.1. */
  gamma?: number;
}

const steps: Rule<number[]> = (value, what) => {
  if (Array.isArray(value)) return value.map((step, i) => checkInteger(step, `${what}[${i}]`, 0));
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array of steps, got ${describe(value)}`);
};

/** Multiplies the rates by `gamma` at each milestone. */
export class MultiStepLR extends LRScheduler {
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
    this.begin();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    const times = this.#milestones.get(epoch) ?? 0;
    return times === 0 ? group.lr : group.lr * this.#gamma ** times;
  }
  protected override options(): SchedulerState {
    return { milestones: new Map(this.#milestones), gamma: this.#gamma };
  }
  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    const saved = dictionary(state.get('milestones'), `${where}: milestones`);
    const milestones = new Map(
      [...saved].map(([step, times]): [number, number] => [
        savedNumber(Number(step), `${where}: milestones`),
        savedNumber(times, `${where}: milestones`),
      ]),
    );
    this.#gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
    this.#milestones = milestones;
  }
}

export interface ExponentialLROptions {
  gamma: number;
}

/** Multiplies the rates by `gamma` at every step. */
export class ExponentialLR extends LRScheduler {
  #gamma: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: ExponentialLROptions) {
    super(optimizer, 'ExponentialLR');
    this.#gamma = readOptions(options, { gamma: required(number(0)) }, 'ExponentialLR').gamma;
    this.begin();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    return epoch === 0 ? group.lr : group.lr * this.#gamma;
  }
  protected override options(): SchedulerState {
    return { gamma: this.#gamma };
  }
  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    this.#gamma = savedNumber(state.get('gamma'), `${where}: gamma`);
  }
}

export interface CosineAnnealingLROptions {
  /** Steps from the highest rate to the lowest, at least 1. Beyond it the rate rises again. */
  tMax: number;
  /** The lowest rate. Default 0. */
  etaMin?: number;
}

/** Half a cosine from the rate at the beginning down to `etaMin`. */
export class CosineAnnealingLR extends LRScheduler {
  #tMax: number;
  #etaMin: number;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: CosineAnnealingLROptions) {
    super(optimizer, 'CosineAnnealingLR');
    const rules = { tMax: required(integer(1)), etaMin: orElse(0, number(0)) };
    const { tMax, etaMin } = readOptions(options, rules, 'CosineAnnealingLR');
    this.#tMax = tMax;
    this.#etaMin = etaMin;
    this.begin();
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
  protected override options(): SchedulerState {
    return { T_max: this.#tMax, eta_min: this.#etaMin };
  }
  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    const tMax = savedNumber(state.get('T_max'), `${where}: T_max`);
    this.#etaMin = savedNumber(state.get('eta_min'), `${where}: eta_min`);
    this.#tMax = tMax;
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
export class LinearLR extends LRScheduler {
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
    this.begin();
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
  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    const startFactor = savedNumber(state.get('start_factor'), `${where}: start_factor`);
    const endFactor = savedNumber(state.get('end_factor'), `${where}: end_factor`);
    this.#totalIters = savedNumber(state.get('total_iters'), `${where}: total_iters`);
    this.#startFactor = startFactor;
    this.#endFactor = endFactor;
  }
}

export interface OneCycleLROptions {
  /** The highest rate: of all groups, or of each. */
  maxLr: number | readonly number[];
  /** All steps; or give `epochs` and `stepsPerEpoch`. */
  totalSteps?: number;
  epochs?: number;
  stepsPerEpoch?: number;
  /** The share of the steps in which the rate rises, 0 to 1. Default 0.3. */
  pctStart?: number;
  /** Default 'cos'. */
  annealStrategy?: 'cos' | 'linear';
  /** Lower the momentum (or Adam's first beta) while the rate rises. Default true. */
  cycleMomentum?: boolean;
  /** The lowest momentum. Default 0.85. */
  baseMomentum?: number | readonly number[];
  /** The highest momentum. Default 0.95. */
  maxMomentum?: number | readonly number[];
  /** The first rate is the highest divided by this. Default 25. */
  divFactor?: number;
  /** The last rate is the first divided by this. Default 10000. */
  finalDivFactor?: number;
  /** Fall back to the first rate in as many steps as it rose, then to the last. Default false. */
  threePhase?: boolean;
}

type RateName = 'initialLr' | 'maxLr' | 'minLr';
type MomentumName = 'maxMomentum' | 'baseMomentum';

interface Phase {
  readonly endStep: number;
  readonly lr: readonly [RateName, RateName];
  readonly momentum: readonly [MomentumName, MomentumName];
}

// Names of values in a group: ours and PyTorch's.
const GROUP_NAMES = {
  initialLr: 'initial_lr',
  maxLr: 'max_lr',
  minLr: 'min_lr',
  maxMomentum: 'max_momentum',
  baseMomentum: 'base_momentum',
} as const;

/** A number for all groups, or one for each. */
function forEachGroup(groups: number): Rule<number[]> {
  return (value, what) => {
    const values: unknown[] = Array.isArray(value) ? value : Array<unknown>(groups).fill(value);
    if (values.length !== groups) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${what}: expected a number, or one for each of the ${groups} groups, got ${values.length}`,
      );
    }
    return values.map((one) => checkNumber(one, what, 0));
  };
}

const oneCycleRules = (groups: number) => ({
  maxLr: required(forEachGroup(groups)),
  totalSteps: optional(integer(1)),
  epochs: optional(integer(1)),
  stepsPerEpoch: optional(integer(1)),
  pctStart: orElse(0.3, number(0, 1)),
  annealStrategy: orElse('cos', oneOf(['cos', 'linear'])),
  cycleMomentum: orElse(true, boolean),
  baseMomentum: orElse(0.85, forEachGroup(groups)),
  maxMomentum: orElse(0.95, forEachGroup(groups)),
  divFactor: orElse(25, number(Number.MIN_VALUE)),
  finalDivFactor: orElse(1e4, number(Number.MIN_VALUE)),
  threePhase: orElse(false, boolean),
});

/**
 * One cycle: the rate rises to `maxLr` and falls far below where it began, the momentum the other way round.
 * Smith and Topin: *Super-Convergence* (2018). Call `step()` after every batch.
 */
export class OneCycleLR extends LRScheduler {
  #totalSteps: number;
  #phases: readonly Phase[];
  #strategy: 'cos' | 'linear';
  #cycleMomentum: boolean;
  readonly #usesBeta: boolean;

  /**
   * @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(optimizer: Optimizer, options: OneCycleLROptions) {
    const where = 'OneCycleLR';
    super(optimizer, where);
    const checked = readOptions(options, oneCycleRules(optimizer.paramGroups.length), where);
    const { totalSteps, epochs, stepsPerEpoch, pctStart, divFactor, finalDivFactor } = checked;
    if (totalSteps !== undefined) this.#totalSteps = totalSteps;
    else if (epochs !== undefined && stepsPerEpoch !== undefined) this.#totalSteps = epochs * stepsPerEpoch;
    else {
      throw makeError(
        'ERR_SENET_ARG_MISSING',
        `${where}: totalSteps, or epochs and stepsPerEpoch, are required`,
      );
    }
    this.#strategy = checked.annealStrategy;
    this.#cycleMomentum = checked.cycleMomentum;
    this.#phases = phases(this.#totalSteps, pctStart, checked.threePhase);
    if (this.#phases[0]?.endStep === 0) {
      // There PyTorch divides by the length of the phase and ends with a ZeroDivisionError.
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: the rise would last exactly one step (pctStart ${pctStart} of ${this.#totalSteps} steps) and have no length: expected another pctStart, or more steps`,
      );
    }
    this.#usesBeta = Object.hasOwn(optimizer.defaults, 'betas');

    for (const [index, group] of optimizer.paramGroups.entries()) {
      group.maxLr = checked.maxLr[index] as number;
      group.initialLr = group.maxLr / divFactor;
      group.minLr = group.initialLr / finalDivFactor;
      if (!this.#cycleMomentum) continue;
      group.maxMomentum = checked.maxMomentum[index] as number;
      group.baseMomentum = checked.baseMomentum[index] as number;
    }
    this.begin();
  }

  protected override nextLr(group: ParamGroup, _: number, epoch: number): number {
    if (epoch > this.#totalSteps) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `OneCycleLR: step ${epoch} of a schedule of ${this.#totalSteps} steps`,
      );
    }
    if (group.maxLr === undefined) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        'OneCycleLR: a group was added to the optimiser after the schedule began, and has no maxLr; make another OneCycleLR',
      );
    }
    let start = 0;
    const phase = this.#phases.find((candidate, index) => {
      if (epoch <= candidate.endStep || index === this.#phases.length - 1) return true;
      start = candidate.endStep;
      return false;
    }) as Phase;
    const share = (epoch - start) / (phase.endStep - start);
    const between = (names: readonly [RateName | MomentumName, RateName | MomentumName]): number =>
      this.#anneal(group[names[0]] ?? NaN, group[names[1]] ?? NaN, share);
    if (this.#cycleMomentum) {
      const momentum = between(phase.momentum);
      if (this.#usesBeta) group.betas = [momentum, group.betas?.[1] ?? NaN];
      else group.momentum = momentum;
    }
    return between(phase.lr);
  }

  #anneal(start: number, end: number, share: number): number {
    return this.#strategy === 'cos'
      ? end + ((start - end) / 2) * (Math.cos(Math.PI * share) + 1)
      : (end - start) * share + start;
  }

  protected override options(): SchedulerState {
    const saved = this.#phases.map(({ endStep, lr, momentum }) => ({
      end_step: endStep,
      start_lr: GROUP_NAMES[lr[0]],
      end_lr: GROUP_NAMES[lr[1]],
      start_momentum: GROUP_NAMES[momentum[0]],
      end_momentum: GROUP_NAMES[momentum[1]],
    }));
    return {
      total_steps: this.#totalSteps,
      _schedule_phases: saved,
      _anneal_func_type: this.#strategy,
      cycle_momentum: this.#cycleMomentum,
      ...(this.#cycleMomentum ? { use_beta1: this.#usesBeta } : {}),
    };
  }

  protected override takeOptions(state: ReadonlyMap<unknown, unknown>, where: string): void {
    const totalSteps = savedNumber(state.get('total_steps'), `${where}: total_steps`);
    // PyTorch before 2.0 saved a bound method in its place: the schedule keeps its own, as PyTorch's does.
    const strategy = state.has('_anneal_func_type') ? state.get('_anneal_func_type') : this.#strategy;
    const cycleMomentum = state.get('cycle_momentum');
    if (strategy !== 'cos' && strategy !== 'linear') {
      throw makeError('ERR_SENET_STATE_DICT', `${where}: _anneal_func_type: got ${describe(strategy)}`);
    }
    if (typeof cycleMomentum !== 'boolean') {
      throw makeError('ERR_SENET_STATE_DICT', `${where}: cycle_momentum: got ${describe(cycleMomentum)}`);
    }
    const saved = list(state.get('_schedule_phases'), `${where}: _schedule_phases`);
    this.#phases = saved.map((value): Phase => {
      const phase = dictionary(value, `${where}: a phase`);
      const name = <Name extends keyof typeof GROUP_NAMES>(key: string, names: readonly Name[]): Name => {
        const found = names.find((candidate) => GROUP_NAMES[candidate] === phase.get(key));
        if (found !== undefined) return found;
        throw makeError(
          'ERR_SENET_STATE_DICT',
          `${where}: ${key} of a phase: got ${describe(phase.get(key))}`,
        );
      };
      const rates = ['initialLr', 'maxLr', 'minLr'] as const;
      const momentums = ['maxMomentum', 'baseMomentum'] as const;
      return {
        endStep: savedNumber(phase.get('end_step'), `${where}: end_step`),
        lr: [name('start_lr', rates), name('end_lr', rates)],
        momentum: [name('start_momentum', momentums), name('end_momentum', momentums)],
      };
    });
    this.#totalSteps = totalSteps;
    this.#strategy = strategy;
    this.#cycleMomentum = cycleMomentum;
  }
}

function phases(totalSteps: number, pctStart: number, threePhase: boolean): Phase[] {
  const rise: Phase = {
    endStep: pctStart * totalSteps - 1,
    lr: ['initialLr', 'maxLr'],
    momentum: ['maxMomentum', 'baseMomentum'],
  };
  if (!threePhase) {
    return [
      rise,
      { endStep: totalSteps - 1, lr: ['maxLr', 'minLr'], momentum: ['baseMomentum', 'maxMomentum'] },
    ];
  }
  return [
    rise,
    {
      endStep: 2 * pctStart * totalSteps - 2,
      lr: ['maxLr', 'initialLr'],
      momentum: ['baseMomentum', 'maxMomentum'],
    },
    { endStep: totalSteps - 1, lr: ['initialLr', 'minLr'], momentum: ['maxMomentum', 'maxMomentum'] },
  ];
}
