/**
 * What all schedules of learning rates are, as `torch.optim.lr_scheduler`: `LRScheduler`, and below it those that compute
 * the rate of each step from its number and the present one. Like PyTorch's, they write into the optimiser's groups when
 * they are made, so that several may act on one optimiser in turn. None knows what an optimiser does with a rate.
 *
 * State dicts have PyTorch's names (`last_epoch`, `_step_count`), so that Python continues what this library saved.
 */
import { makeError } from '../errors';
import { checkNumber, describe } from '../tensor/options';
import type { Rule } from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import { Optimizer, type ParamGroup } from './optimizer';
import { dictionary, list } from './state';

/** What a scheduler saves: its options and where it stands, by PyTorch's names. */
export type SchedulerState = Record<string, unknown>;

/** The base of all schedulers. Call `step()` after the optimiser's step, once for each epoch or batch as you mean it. */
export abstract class LRScheduler {
  /** @internal */
  readonly optimizer: Optimizer;
  /** @internal */
  protected lastLr: number[] = [];

  /** @internal */
  protected constructor(optimizer: Optimizer, where: string) {
    if (!(optimizer instanceof Optimizer)) {
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected an optimiser, got ${describe(optimizer)}`);
    }
    this.optimizer = optimizer;
  }

  /** Steps taken since construction; the first rates are those of step 0. */
  abstract get lastEpoch(): number;

  /** Goes on to the next rates and writes them into the optimiser's groups. */
  abstract step(): void;

  /** The rates of the groups, as the last step set them. */
  getLastLr(): number[] {
    return [...this.lastLr];
  }

  /** Options and position with PyTorch's names; the rates themselves are in the optimiser's state. */
  abstract stateDict(): SchedulerState;

  /**
   * Takes a state dict of `stateDict()`, or what `loadCheckpoint` reads from a file of Python's. Load the optimiser's
   * state too: it has the present rates.
   *
   * @throws ERR_SENET_STATE_DICT if it is of another scheduler or other groups; nothing is changed then
   */
  loadStateDict(value: unknown): void {
    const where = `${this.constructor.name}.loadStateDict`;
    this.readState(dictionary(value, where), where)();
  }

  /** @internal Reads a state dict whole, and gives what takes it; throws ERR_SENET_STATE_DICT. */
  abstract readState(state: ReadonlyMap<unknown, unknown>, where: string): () => void;

  /** @internal The rates of the groups now. */
  protected presentLr(): number[] {
    return this.optimizer.paramGroups.map(({ lr }) => lr);
  }
}

/** A scheduler that may be a part of another one. */
export abstract class PartScheduler extends LRScheduler {
  /** @internal Takes the first step back: `SequentialLR` says when it is taken. */
  abstract undo(): void;
  /** @internal Takes the first step again, from the rates that the groups have. */
  abstract begin(): void;
  /** @internal What puts the scheduler back to the step that it is at; the groups' options are the optimiser's. */
  abstract keep(): () => void;

  /** @internal Runs a step; where that throws, scheduler and groups are as before. */
  protected wholly(step: () => void): void {
    const putBack = [this.optimizer.keepOptions(), this.keep()];
    try {
      step();
    } catch (error) {
      for (const put of putBack) put();
      throw error;
    }
  }
}

/** One that computes the rates itself. */
export abstract class StepwiseScheduler extends PartScheduler {
  #baseLrs: readonly number[] = [];
  #lastEpoch = -1;
  #stepCount = 0;

  /** @internal The last act of each constructor: sets the first rates. */
  protected start(): void {
    for (const group of this.optimizer.paramGroups) group.initialLr ??= group.lr;
    this.#baseLrs = this.optimizer.paramGroups.map((group) => group.initialLr ?? group.lr);
    this.begin();
  }

  override get lastEpoch(): number {
    return this.#lastEpoch;
  }

  /** The rates of the groups when the scheduler was made. @internal */
  protected get baseLrs(): readonly number[] {
    return this.#baseLrs;
  }

  override step(): void {
    this.moveTo(this.#lastEpoch + 1);
    this.#stepCount++;
  }

  /** @internal */
  protected moveTo(epoch: number): void {
    this.#set((group, index) => this.nextLr(group, index, epoch), epoch);
  }

  #set(rateOf: (group: ParamGroup, index: number) => number, epoch: number): void {
    this.wholly(() => {
      const rates = this.optimizer.paramGroups.map(rateOf);
      this.#lastEpoch = epoch;
      for (const [index, group] of this.optimizer.paramGroups.entries()) group.lr = rates[index] as number;
      this.lastLr = rates;
    });
  }

  override keep(): () => void {
    const [lastEpoch, stepCount, lastLr] = [this.#lastEpoch, this.#stepCount, this.lastLr];
    return () => {
      this.#lastEpoch = lastEpoch;
      this.#stepCount = stepCount;
      this.lastLr = lastLr;
    };
  }

  override undo(): void {
    this.#lastEpoch--;
  }

  override begin(): void {
    this.#stepCount = 0;
    this.step();
  }

  /** @internal The first rates again, whatever the groups have; counted as no step, as PyTorch's `_update_lr(0)`. */
  restart(): void {
    this.#set((group, index) => this.firstLr(group, index), 0);
  }

  /** @internal The rate of a group at step `epoch`, 0 being the first. */
  protected abstract nextLr(group: ParamGroup, index: number, epoch: number): number;
  /** @internal The rate of a group at step 0, by the rate that it had when the scheduler was made. */
  protected firstLr(group: ParamGroup, index: number): number {
    group.lr = this.#baseLrs[index] ?? group.lr;
    return this.nextLr(group, index, 0);
  }
  /** @internal Options by PyTorch's names. */
  protected abstract options(): SchedulerState;
  /** @internal Reads the options of a state dict, and gives what takes them; throws ERR_SENET_STATE_DICT. */
  protected abstract readSaved(state: ReadonlyMap<unknown, unknown>, where: string): () => void;

  override stateDict(): SchedulerState {
    return {
      ...this.options(),
      base_lrs: [...this.#baseLrs],
      last_epoch: this.#lastEpoch,
      _step_count: this.#stepCount,
      _is_initial: false,
      _get_lr_called_within_step: false,
      _last_lr: [...this.lastLr],
    };
  }

  override readState(state: ReadonlyMap<unknown, unknown>, where: string): () => void {
    const groups = this.optimizer.paramGroups.length;
    const baseLrs = savedRates(state.get('base_lrs'), `${where}: base_lrs`, groups);
    const lastLr = state.has('_last_lr')
      ? savedRates(state.get('_last_lr'), `${where}: _last_lr`, groups)
      : this.lastLr;
    const lastEpoch = savedNumber(state.get('last_epoch'), `${where}: last_epoch`);
    const stepCount = savedNumber(state.get('_step_count') ?? lastEpoch + 1, `${where}: _step_count`);
    const takeOptions = this.readSaved(state, where);
    return () => {
      takeOptions();
      this.#baseLrs = baseLrs;
      this.lastLr = lastLr;
      this.#lastEpoch = lastEpoch;
      this.#stepCount = stepCount;
    };
  }
}

/**
 * A number of a state dict, whatever its value: PyTorch checks none, and a schedule may end anywhere. A rate may be a
 * tensor there.
 */
export function savedNumber(value: unknown, what: string): number {
  if (typeof value === 'number') return value;
  if (Tensor.isTensor(value) && value.numel === 1) return Number(value.item());
  throw makeError('ERR_SENET_STATE_DICT', `${what}: expected a number, got ${describe(value)}`);
}

/** As many rates as there are groups. */
export function savedRates(value: unknown, what: string, groups: number): number[] {
  const values = list(value, what).map((rate) => savedNumber(rate, what));
  if (values.length === groups) return values;
  throw makeError('ERR_SENET_STATE_DICT', `${what}: expected ${groups} rates, got ${values.length}`);
}

/** A number for all groups, or one for each. */
export function forEachGroup(groups: number): Rule<number[]> {
  return (value, what) => {
    const values: unknown[] = Array.isArray(value) ? value : Array<unknown>(groups).fill(value);
    if (values.length !== groups) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${what}: expected a number, or one for each of the ${groups} groups, got ${values.length}`,
      );
    }
    return Array.from(values, (one) => checkNumber(one, what, 0));
  };
}
