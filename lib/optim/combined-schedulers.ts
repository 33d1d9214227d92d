/** Schedules made of others, as `SequentialLR` and `ChainedScheduler` of `torch.optim.lr_scheduler`. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { arrayOf, integer, readOptions, required, unchecked, type Rule } from '../tensor/rules';
import type { Optimizer } from './optimizer';
import {
  PartScheduler,
  savedNumber,
  savedRates,
  StepwiseScheduler,
  type LRScheduler,
  type SchedulerState,
} from './scheduler';
import { dictionary, list } from './state';

/** The schedulers of one optimiser, of which others are made. */
function partsOf(value: unknown, optimizer: Optimizer | undefined, where: string): PartScheduler[] {
  const parts = arrayOf('an array', (part, what) => {
    if (!(part instanceof PartScheduler)) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${what}: expected a scheduler whose steps need no metric, got ${describe(part)}`,
      );
    }
    return part;
  })(value, `${where}: schedulers`);
  const [first] = parts;
  if (first === undefined)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: schedulers: expected at least one, got none`);
  const other = parts.findIndex((part) => part.optimizer !== (optimizer ?? first.optimizer));
  if (other < 0) return parts;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: schedulers[${other}]: expected a scheduler of the same optimiser`,
  );
}

/** What both kinds do with their parts. */
abstract class CombinedScheduler extends PartScheduler {
  /** @internal */
  protected readonly parts: readonly PartScheduler[];

  protected constructor(optimizer: Optimizer, parts: readonly PartScheduler[], where: string) {
    super(optimizer, where);
    this.parts = parts;
  }

  override undo(): void {
    for (const part of this.parts) part.undo();
  }

  override keep(): () => void {
    const { lastLr } = this;
    const putBack = this.parts.map((part) => part.keep());
    return () => {
      for (const put of putBack) put();
      this.lastLr = lastLr;
    };
  }

  /** @internal */
  protected savedParts(): SchedulerState {
    return { _schedulers: this.parts.map((part) => part.stateDict()) };
  }

  /** @internal */
  protected readParts(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const saved = list(state.get('_schedulers'), `${where}: _schedulers`);
    if (saved.length !== this.parts.length) {
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: _schedulers: expected ${this.parts.length}, got ${saved.length}`,
      );
    }
    const takes = this.parts.map((part, index) => {
      const what = `${where}: _schedulers[${index}]`;
      return part.readState(dictionary(saved[index], what), what);
    });
    return () => {
      for (const take of takes) take();
    };
  }
}

export interface SequentialLROptions {
  /** One after the other, all of the one optimiser; only the first may be made of others itself. */
  schedulers: readonly LRScheduler[];
  /** The step at which each but the first begins, ascending. */
  milestones: readonly number[];
}

const milestones: Rule<number[]> = (value, what) => {
  const steps = arrayOf('an array of steps', integer(0))(value, what);
  const falling = steps.findIndex((step, index) => step < (steps[index - 1] ?? 0));
  if (falling < 0) return steps;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${what}: expected ascending steps, got ${steps[falling]} after ${steps[falling - 1]}`,
  );
};

/** One scheduler after another: as a warm-up, and then the schedule. Each begins with its own first rates. */
export class SequentialLR extends CombinedScheduler {
  #milestones: readonly number[];
  #lastEpoch = 0;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(optimizer: Optimizer, options: SequentialLROptions) {
    const where = 'SequentialLR';
    const rules = { schedulers: required(unchecked()), milestones: required(milestones) };
    const given = readOptions(options, rules, where);
    const parts = partsOf(given.schedulers, optimizer, where);
    super(optimizer, parts, where);
    if (given.milestones.length !== parts.length - 1) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: milestones: expected one less than schedulers (${parts.length - 1}), got ${given.milestones.length}`,
      );
    }
    const again = parts.findIndex((part, index) => parts.indexOf(part) < index);
    if (again >= 0) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: schedulers[${again}]: expected a scheduler of its own, got the one that is schedulers[${parts.indexOf(parts[again] as PartScheduler)}]`,
      );
    }
    const later = parts.findIndex((part, index) => index > 0 && !(part instanceof StepwiseScheduler));
    if (later > 0) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: schedulers[${later}]: only the first may be made of others: ${parts[later]?.constructor.name ?? ''} has no first rate of its own to begin with`,
      );
    }
    this.#milestones = given.milestones;
    this.undo();
    this.begin();
  }

  override get lastEpoch(): number {
    return this.#lastEpoch;
  }

  override begin(): void {
    for (const group of this.optimizer.paramGroups) group.lr = group.initialLr ?? group.lr;
    this.#lastEpoch = 0;
    this.#present().begin();
    this.lastLr = this.#present().getLastLr();
  }

  override step(): void {
    this.wholly(() => {
      this.#lastEpoch++;
      const part = this.#present();
      const begins = this.#milestones[this.parts.indexOf(part) - 1] === this.#lastEpoch;
      if (begins && part instanceof StepwiseScheduler) part.restart();
      else part.step();
      this.lastLr = part.getLastLr();
    });
  }

  override keep(): () => void {
    const putBack = super.keep();
    const lastEpoch = this.#lastEpoch;
    return () => {
      putBack();
      this.#lastEpoch = lastEpoch;
    };
  }

  /** The part whose step the present one is. */
  #present(): PartScheduler {
    const next = this.#milestones.findIndex((milestone) => milestone > this.#lastEpoch);
    return this.parts.at(next) as PartScheduler;
  }

  override stateDict(): SchedulerState {
    return {
      _milestones: [...this.#milestones],
      last_epoch: this.#lastEpoch,
      _last_lr: [...this.lastLr],
      ...this.savedParts(),
    };
  }

  override readState(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const steps = list(state.get('_milestones'), `${where}: _milestones`).map((step) =>
      savedNumber(step, `${where}: _milestones`),
    );
    if (steps.length !== this.#milestones.length) {
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: _milestones: expected ${this.#milestones.length}, got ${steps.length}`,
      );
    }
    const lastEpoch = savedNumber(state.get('last_epoch'), `${where}: last_epoch`);
    const lastLr = savedRates(state.get('_last_lr'), `${where}: _last_lr`, this.optimizer.paramGroups.length);
    const takeParts = this.readParts(state, where);
    return () => {
      takeParts();
      this.#milestones = steps;
      this.#lastEpoch = lastEpoch;
      this.lastLr = lastLr;
    };
  }
}

/** Several schedulers of one optimiser that all step at each step: what they do to a rate multiplies. */
export class ChainedScheduler extends CombinedScheduler {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (none, or of several optimisers) */
  constructor(schedulers: readonly LRScheduler[]) {
    const parts = partsOf(schedulers, undefined, 'ChainedScheduler');
    super((parts[0] as PartScheduler).optimizer, parts, 'ChainedScheduler');
    this.lastLr = this.presentLr();
  }

  override get lastEpoch(): number {
    return this.parts[0]?.lastEpoch ?? 0;
  }

  override begin(): void {
    for (const part of this.parts) {
      if (part instanceof StepwiseScheduler) part.step();
      else part.begin();
    }
    this.lastLr = this.presentLr();
  }

  override step(): void {
    this.wholly(() => {
      for (const part of this.parts) part.step();
      this.lastLr = this.presentLr();
    });
  }

  override stateDict(): SchedulerState {
    return { _last_lr: [...this.lastLr], ...this.savedParts() };
  }

  override readState(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const lastLr = savedRates(state.get('_last_lr'), `${where}: _last_lr`, this.optimizer.paramGroups.length);
    const takeParts = this.readParts(state, where);
    return () => {
      takeParts();
      this.lastLr = lastLr;
    };
  }
}
