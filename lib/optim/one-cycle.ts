/** One cycle of learning rate and momentum, as `torch.optim.lr_scheduler.OneCycleLR`. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { boolean, integer, number, oneOf, optional, orElse, readOptions, required } from '../tensor/rules';
import type { Optimizer, ParamGroup } from './optimizer';
import { forEachGroup, savedNumber, StepwiseScheduler, type SchedulerState } from './scheduler';
import { dictionary, list } from './state';

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
export class OneCycleLR extends StepwiseScheduler {
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
    this.#phases = phasesOf(this.#totalSteps, pctStart, checked.threePhase);
    // At such a phase PyTorch divides by its length and ends with a ZeroDivisionError.
    const empty = this.#phases.findIndex(
      ({ endStep }, index) => endStep === (this.#phases[index - 1]?.endStep ?? 0),
    );
    if (empty >= 0) {
      const which = empty === 0 ? 'the rise would last exactly one step' : 'the last fall would last no step';
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: ${which} (pctStart ${pctStart} of ${this.#totalSteps} steps) and have no length: expected another pctStart, or more steps`,
      );
    }
    this.#usesBeta = Object.hasOwn(optimizer.defaults, 'betas');
    if (this.#cycleMomentum && !this.#usesBeta && !Object.hasOwn(optimizer.defaults, 'momentum')) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: expected an optimiser with momentum or betas, got ${describe(optimizer)}; cycleMomentum: false leaves momentum alone`,
      );
    }

    for (const [index, group] of optimizer.paramGroups.entries()) {
      group.maxLr = checked.maxLr[index] as number;
      group.initialLr = group.maxLr / divFactor;
      group.minLr = group.initialLr / finalDivFactor;
      if (!this.#cycleMomentum) continue;
      group.maxMomentum = checked.maxMomentum[index] as number;
      group.baseMomentum = checked.baseMomentum[index] as number;
    }
    this.start();
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

  protected override readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
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
    const phases = saved.map((value): Phase => {
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
    return () => {
      this.#phases = phases;
      this.#totalSteps = totalSteps;
      this.#strategy = strategy;
      this.#cycleMomentum = cycleMomentum;
    };
  }
}

function phasesOf(totalSteps: number, pctStart: number, threePhase: boolean): Phase[] {
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
