/**
 * Optimizer: parameter groups with their options, and the state that the native optimiser keeps for each parameter, as
 * `torch.optim.Optimizer`. Knows no optimiser by name: the
 * file of each says in its `OptimizerKind` which options it has.
 *
 * The state dict is PyTorch's, with Python's names (`param_groups`, `weight_decay`, `exp_avg`), so that `saveCheckpoint`
 * writes what `optimizer.load_state_dict` of Python reads, and the other way round.
 */
import { isMap, isSet, markClass } from '../brands';
import type { OptimizerHandle, TensorHandle } from '../binding';
import { makeError } from '../errors';
import { binding } from '../native';
import { runJob } from '../tensor/jobs';
import { checkNumber, describe } from '../tensor/options';
import {
  arrayOf,
  boolean,
  number,
  optional,
  orElse,
  readOptions,
  required,
  string,
  unchecked,
  type Rule,
} from '../tensor/rules';
import { callOperator, handleOf, Tensor, wrapUntracked } from '../tensor/tensor';
import { dictionary, list } from './state';

/** Parameters, or parameters with their names as `module.namedParameters()` gives them. */
export type Parameters = Iterable<Tensor> | Iterable<readonly [string, Tensor]>;

export type OptionValue = number | boolean | readonly [number, number];

/** The options that a group may set for itself; each optimiser says which of them it has. */
export interface GroupOptions {
  lr?: number;
  momentum?: number;
  dampening?: number;
  nesterov?: boolean;
  betas?: readonly [number, number];
  eps?: number;
  weightDecay?: number;
  amsgrad?: boolean;
  alpha?: number;
  centered?: boolean;
  lrDecay?: number;
  initialAccumulatorValue?: number;
  maximize?: boolean;
}

type OptionRules = Readonly<Partial<Record<keyof GroupOptions, OptionRule>>>;

/** What a constructor or `addParamGroup` takes: options that are left out are the optimiser's. */
export interface ParamGroupOptions extends GroupOptions {
  params: Tensor | Parameters;
  /** Yours, to find the group again. It is saved with the state. */
  name?: string;
}

/** A group of an optimiser. Its options may be changed between steps, as schedulers do. */
export interface ParamGroup extends GroupOptions {
  readonly params: readonly Tensor[];
  /** The names of `params`, if they came with names. */
  readonly paramNames?: readonly string[];
  name?: string;
  lr: number;
  /** Set by schedulers. */
  initialLr?: number;
  maxLr?: number;
  minLr?: number;
  maxMomentum?: number;
  baseMomentum?: number;
}

/** PyTorch's state dict of an optimiser. */
export interface OptimizerState {
  /** By the number of the parameter in `param_groups[i].params`; parameters that were never updated have no entry. */
  state: Map<number, Record<string, Tensor>>;
  param_groups: Record<string, unknown>[];
}

/** An option of an optimiser. */
export interface OptionRule {
  /** What a caller may give, and the default. */
  readonly given: Rule<OptionValue>;
  /**
   * What a group may come to have, which PyTorch does not check: finite numbers of any size. OneCycleLR ends below a rate of
   * 0 where its last step goes beyond its last phase, and takes a beta or a momentum as far.
   */
  readonly reached: Rule<OptionValue>;
}

const pair =
  (rule: Rule<number>): Rule<readonly [number, number]> =>
  (value, what) => {
    if (!Array.isArray(value) || value.length !== 2)
      throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected two numbers, got ${describe(value)}`);
    return arrayOf('two numbers', rule)(value, what) as unknown as readonly [number, number];
  };

const belowOne: Rule<number> = (value, what) => {
  const beta = checkNumber(value, what, 0);
  if (beta < 1) return beta;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected a number below 1, got ${beta}`);
};

export const atLeastZero = (value: number): OptionRule => ({
  given: orElse(value, number(0)),
  reached: number(),
});
export const anyNumber = (value: number): OptionRule => ({
  given: orElse(value, number()),
  reached: number(),
});
export const flag = (value: boolean): OptionRule => ({ given: orElse(value, boolean), reached: boolean });
export const twoBetas = (value: readonly [number, number]): OptionRule => ({
  given: orElse(value, pair(belowOne)),
  reached: pair(number()),
});

/** What an optimiser is made of, besides its parameters. */
export interface OptimizerKind {
  readonly name: string;
  readonly native: 'sgd' | 'adam' | 'rmsprop' | 'adagrad';
  /** By the names of options, in PyTorch's order. */
  readonly rules: OptionRules;
  /** What PyTorch's groups hold besides, with Python's names: written, and kept from a file. */
  readonly extras: Readonly<Record<string, unknown>>;
  /** Whether a step shrinks the weights instead of adding them to the gradient; reads the group's extras. */
  decouplesWeightDecay?(extras: ReadonlyMap<string, unknown>): boolean;
  /** Of tensors, by Python's names. */
  readonly stateNames: readonly string[];
  /** What it remembers of a parameter before the first step; without it nothing. */
  initialState?(parameter: Tensor, group: ParamGroup): Record<string, Tensor>;
  /** Refuses options of the constructor that do not go together; as in PyTorch, groups may. */
  checkTogether?(options: GroupOptions, where: string): void;
}

/** What schedulers write into groups, in PyTorch's order. */
const SCHEDULED = ['initialLr', 'maxLr', 'minLr', 'maxMomentum', 'baseMomentum'] as const;

/** The base of all optimisers. Made by `new SGD(...)`, `new Adam(...)`, `new AdamW(...)`, `new RMSprop(...)`, `new Adagrad(...)`. */
export abstract class Optimizer {
  /** In the order in which they were added. */
  readonly paramGroups: ParamGroup[] = [];
  /** The options of groups that do not set their own. */
  readonly defaults: Readonly<Record<string, OptionValue>>;
  readonly #kind: OptimizerKind;
  readonly #native: OptimizerHandle;
  /**
   * What a file's groups hold beside the options, in place of the kind's `extras`: written back, and what
   * `decouplesWeightDecay` reads.
   */
  readonly #extras = new WeakMap<ParamGroup, Map<string, unknown>>();

  /** @internal */
  protected constructor(
    kind: OptimizerKind,
    params: Tensor | Parameters | Iterable<ParamGroupOptions>,
    options: object | undefined,
  ) {
    this.#kind = kind;
    this.defaults = Object.freeze(
      readOptions<object, Record<string, Rule<OptionValue>>>(options, this.#rules({}), kind.name),
    );
    kind.checkTogether?.(this.defaults, kind.name);
    this.#native = binding.createOptimizer(kind.native);
    const groups = toGroups(params, kind.name);
    if (groups.length === 0)
      throw makeError('ERR_SENET_ARG_RANGE', `${kind.name}: expected parameters, got none`);
    for (const group of groups) this.addParamGroup(group);
  }

  /** What may be given; `usual` goes before the kind's own defaults. */
  #rules(usual: Readonly<Record<string, OptionValue>>): Record<string, Rule<OptionValue>> {
    const rules = Object.entries(this.#kind.rules);
    return Object.fromEntries(rules.map(([name, { given }]) => [name, orElse(usual[name], given)]));
  }

  /**
   * Adds parameters with options of their own, as for layers that are to be trained from now on.
   *
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (a parameter that another group or this one has already, names for
   *   some groups only, an impossible option), ERR_SENET_AUTOGRAD (a tensor that an operator made),
   *   ERR_SENET_UNKNOWN_OPTION
   */
  addParamGroup(group: ParamGroupOptions): void {
    const where = `${this.#kind.name}: paramGroups[${this.paramGroups.length}]`;
    const own = { params: required(unchecked()), name: optional(string) };
    const { params, name, ...options } = readOptions<object, Record<string, Rule<unknown>>>(
      group,
      { ...own, ...this.#rules(this.defaults) },
      where,
    ) as unknown as ParamGroupOptions;
    const { tensors, names } = toParameters(params, where);
    const first = this.paramGroups[0];
    if (first !== undefined && (first.paramNames !== undefined) !== (names !== undefined)) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: either all groups have parameters with names, or none has`,
      );
    }
    const taken = new Set(this.paramGroups.flatMap((other) => other.params));
    for (const [i, tensor] of tensors.entries()) {
      const what = names?.[i] ?? `params[${i}]`;
      if (callOperator('aten::is_leaf', [tensor]) !== true) {
        throw makeError(
          'ERR_SENET_AUTOGRAD',
          `${where}: ${what}: only leaves can be optimised, and an operator made this tensor; use detach()`,
        );
      }
      if (taken.has(tensor))
        throw makeError(
          'ERR_SENET_ARG_RANGE',
          `${where}: ${what} appears in more than one place of the groups`,
        );
      taken.add(tensor);
    }
    const added: ParamGroup = {
      ...(options as { lr: number }),
      ...(name === undefined ? {} : { name }),
      params: Object.freeze(tensors),
      ...(names === undefined ? {} : { paramNames: Object.freeze(names) }),
    };
    this.paramGroups.push(added);
  }

  /**
   * Updates every parameter that has a gradient, as one job of the executor that runs alone: jobs that were submitted
   * before it (a backward that nobody awaited) end first, and later ones wait for it. The options are those of the call.
   *
   * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE for options that were changed to impossible ones;
   *   ERR_SENET_AUTOGRAD for a gradient that does not fit its parameter; ERR_SENET_DISPOSED
   */
  step(): Promise<void> {
    return this.stepUnless(null);
  }

  /**
   * As `step`, but nothing changes where `foundInf` is 1; nobody waits for a device that computes it. For `GradScaler`.
   *
   * @internal
   */
  async stepUnless(foundInf: Tensor | null): Promise<void> {
    const groups = this.paramGroups.map((group, index) => {
      this.#checkGroup(group, `${this.#kind.name}: paramGroups[${index}]`);
      const { betas } = group;
      const values = Object.keys(this.#kind.rules)
        .filter((name) => name !== 'betas')
        .map((name): [string, number | boolean] => [name, this.#option(group, name) as number | boolean]);
      const options = {
        ...Object.fromEntries(values),
        ...(betas === undefined ? {} : { beta1: betas[0], beta2: betas[1] }),
        decoupledWeightDecay: this.#kind.decouplesWeightDecay?.(this.#extrasOf(group)) ?? false,
      };
      return { params: group.params.map((tensor) => handleOf(tensor, 'a parameter')), options };
    });
    const found = foundInf === null ? null : handleOf(foundInf, 'foundInf');
    await runJob(() => binding.optimizerStep(this.#native, groups, found));
  }

  /**
   * Sets the gradients of all parameters to null, as PyTorch does by default.
   *
   * @throws ERR_SENET_BUSY while a job that uses one of them is queued or running
   */
  zeroGrad(): void {
    binding.clearGrads(this.#parameters().map((tensor) => handleOf(tensor, 'a parameter')));
  }

  /**
   * State and options with Python's names, as `torch.optim.Optimizer.state_dict()`. The tensors are the optimiser's own:
   * the next step changes them.
   *
   * @throws ERR_SENET_BUSY while a step is queued or running
   */
  stateDict(): OptimizerState {
    const state = new Map<number, Record<string, Tensor>>();
    const owned = this.paramGroups.flatMap((group) => group.params.map((tensor) => [tensor, group] as const));
    for (const [index, [tensor, group]] of owned.entries()) {
      const fields = binding.optimizerState(this.#native, handleOf(tensor, 'a parameter'));
      const tensors =
        fields === null
          ? (this.#kind.initialState?.(tensor, group) ?? {})
          : Object.fromEntries(Object.entries(fields).map(([name, one]) => [name, wrapUntracked(one)]));
      if (Object.keys(tensors).length > 0) state.set(index, tensors);
    }
    let next = 0;
    const groups = this.paramGroups.map((group) => {
      const values = [...Object.keys(this.#kind.rules), ...SCHEDULED, 'name', 'paramNames']
        .filter((name) => this.#option(group, name) !== undefined)
        .map((name): [string, unknown] => {
          const value = this.#option(group, name);
          return [toPython(name), Array.isArray(value) ? [...(value as unknown[])] : value];
        });
      const extras = this.#extrasOf(group);
      const { length } = group.params;
      next += length;
      return {
        ...Object.fromEntries([...values, ...extras]),
        params: Array.from({ length }, (_, i) => next - length + i),
      };
    });
    return { state, param_groups: groups };
  }

  /**
   * Takes state and options of a state dict: one of `stateDict()`, or what `loadCheckpoint` reads from a file that
   * Python or this library wrote. The tensors are copied. The parameters stay this optimiser's own, matched by position.
   *
   * @throws ERR_SENET_STATE_DICT if groups, parameters, shapes or options do not fit; nothing is changed then.
   *   ERR_SENET_BUSY while a step is queued or running
   */
  loadStateDict(value: unknown): void {
    const where = `${this.#kind.name}.loadStateDict`;
    const dict = dictionary(value, where);
    const savedGroups = list(dict.get('param_groups'), `${where}: param_groups`).map((group, index) =>
      dictionary(group, `${where}: param_groups[${index}]`),
    );
    if (savedGroups.length !== this.paramGroups.length) {
      throw makeError(
        'ERR_SENET_STATE_DICT',
        `${where}: expected ${this.paramGroups.length} parameter groups, got ${savedGroups.length}`,
      );
    }
    const ids = new Map<unknown, Tensor>();
    const loaded = this.paramGroups.map((group, index) => {
      const what = `${where}: param_groups[${index}]`;
      const saved = savedGroups[index] as Map<unknown, unknown>;
      const numbers = list(saved.get('params'), `${what}: params`);
      if (numbers.length !== group.params.length) {
        throw makeError(
          'ERR_SENET_STATE_DICT',
          `${what}: expected ${group.params.length} parameters, got ${numbers.length}`,
        );
      }
      for (const [i, number] of numbers.entries()) ids.set(number, group.params[i] as Tensor);
      return this.#loadedGroup(group, saved, what);
    });

    const parameters: TensorHandle[] = [];
    const states: Record<string, TensorHandle>[] = [];
    const disposable: Tensor[] = [];
    try {
      for (const [number, fields] of dictionary(dict.get('state'), `${where}: state`)) {
        // Keys of an object are strings.
        const key = typeof number === 'string' && /^\d+$/.test(number) ? Number(number) : number;
        const tensor = ids.get(key);
        if (tensor === undefined) {
          throw makeError(
            'ERR_SENET_STATE_DICT',
            `${where}: state of ${describe(key)}, which is no parameter`,
          );
        }
        parameters.push(handleOf(tensor, 'a parameter'));
        states.push(this.#loadedState(fields, `${where}: state[${String(key)}]`, disposable));
      }
      binding.setOptimizerState(this.#native, parameters, states);
    } finally {
      for (const tensor of disposable) tensor.dispose();
    }
    for (const [index, { values, extras }] of loaded.entries()) {
      const group = this.paramGroups[index] as ParamGroup;
      Object.assign(group, values);
      this.#extras.set(group, extras);
    }
  }

  /** What puts the options of all groups back to what they are now, and what was added goes. @internal */
  keepOptions(): () => void {
    const kept = this.paramGroups.map((group) => [group, { ...group }, this.#extras.get(group)] as const);
    return () => {
      for (const [group, options, extras] of kept) {
        for (const name of Object.keys(group)) if (!(name in options)) Reflect.deleteProperty(group, name);
        Object.assign(group, options);
        if (extras === undefined) this.#extras.delete(group);
        else this.#extras.set(group, extras);
      }
    };
  }

  #loadedGroup(
    group: ParamGroup,
    saved: Map<unknown, unknown>,
    what: string,
  ): { values: Record<string, unknown>; extras: Map<string, unknown> } {
    const values: Record<string, unknown> = {};
    const extras = new Map<string, unknown>();
    for (const [name, given] of saved) {
      const ours = toOurs(String(name));
      const value = Array.isArray(given) ? given.map(numberOf) : numberOf(given);
      if (ours === 'params' || ours === 'paramNames') continue;
      if (Object.hasOwn(this.#kind.rules, ours)) values[ours] = value;
      else if ((SCHEDULED as readonly string[]).includes(ours)) {
        if (typeof value !== 'number')
          throw makeError(
            'ERR_SENET_STATE_DICT',
            `${what}: ${String(name)}: expected a number, got ${describe(value)}`,
          );
        values[ours] = value;
      } else if (ours === 'name' && typeof value === 'string') values[ours] = value;
      else extras.set(String(name), value);
    }
    const merged = { ...group, ...values };
    try {
      this.#checkGroup(merged, what);
    } catch (cause) {
      throw makeError('ERR_SENET_STATE_DICT', (cause as Error).message, { cause });
    }
    return { values, extras };
  }

  #loadedState(fields: unknown, what: string, disposable: Tensor[]): Record<string, TensorHandle> {
    const state: Record<string, TensorHandle> = {};
    for (const [name, value] of dictionary(fields, what)) {
      if (!this.#kind.stateNames.includes(String(name))) {
        throw makeError(
          'ERR_SENET_STATE_DICT',
          `${what}: '${String(name)}' is nothing that ${this.#kind.name} remembers (${this.#kind.stateNames.join(', ')})`,
        );
      }
      if (value === null || value === undefined) continue; // a momentum buffer before the first step
      if (typeof value === 'number' && name === 'step') {
        // Before PyTorch 1.12 the counter was a number.
        const counter = callOperator('aten::full', [[], value], { dtype: 'float32' }) as Tensor;
        disposable.push(counter);
        state[name] = handleOf(counter, what);
      } else if (Tensor.isTensor(value)) {
        state[String(name)] = handleOf(value, what);
      } else {
        throw makeError(
          'ERR_SENET_STATE_DICT',
          `${what}: '${String(name)}': expected a Tensor, got ${describe(value)}`,
        );
      }
    }
    return state;
  }

  #parameters(): Tensor[] {
    return this.paramGroups.flatMap((group) => group.params);
  }

  #extrasOf(group: ParamGroup): ReadonlyMap<string, unknown> {
    return this.#extras.get(group) ?? new Map(Object.entries(this.#kind.extras));
  }

  #option(group: ParamGroup, name: string): unknown {
    return (group as unknown as Record<string, unknown>)[name];
  }

  #checkGroup(group: ParamGroup, where: string): void {
    for (const [name, rule] of Object.entries(this.#kind.rules))
      rule.reached(this.#option(group, name), `${where}: ${name}`);
  }
}

/** A rate or a beta may be a tensor in Python, for its compiler's sake. */
function numberOf(value: unknown): unknown {
  return Tensor.isTensor(value) && value.numel === 1 ? Number(value.item()) : value;
}

/** `weightDecay` -> `weight_decay`. */
function toPython(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** `weight_decay` -> `weightDecay`. */
function toOurs(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.iterator in value;
}

/** Parameters become one group; groups stay groups. */
function toGroups(params: unknown, where: string): ParamGroupOptions[] {
  if (Tensor.isTensor(params) || !isIterable(params)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: expected an array of parameters or of groups ({ params, ... }), got ${Tensor.isTensor(params) ? 'a Tensor' : describe(params)}`,
    );
  }
  const items = [...params];
  const isGroup = (item: unknown): boolean =>
    typeof item === 'object' && item !== null && !Tensor.isTensor(item) && !Array.isArray(item);
  if (items.length === 0) return [];
  if (!isGroup(items[0])) return [{ params: items as Tensor[] }];
  for (const [i, item] of items.entries()) {
    if (isGroup(item)) continue;
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: [${i}]: expected a group ({ params, ... }) as the first, got another kind`,
    );
  }
  return items as ParamGroupOptions[];
}

markClass(Optimizer);

function toParameters(params: unknown, where: string): { tensors: Tensor[]; names: string[] | undefined } {
  if (Tensor.isTensor(params)) return { tensors: [params], names: undefined };
  if (!isIterable(params) || isMap(params) || isSet(params)) {
    // As PyTorch: the order of a set is nobody's promise.

    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: params: expected an array of Tensors such as model.parameters(), got ${describe(params)}`,
    );
  }
  const tensors: Tensor[] = [];
  const names: string[] = [];
  for (const [i, item] of [...params].entries()) {
    const named = Array.isArray(item) && item.length === 2 && typeof item[0] === 'string';
    const tensor: unknown = named ? item[1] : item;
    handleOf(tensor, `${where}: params[${i}]`);
    tensors.push(tensor as Tensor);
    if (named) names.push(item[0] as string);
  }
  if (names.length !== 0 && names.length !== tensors.length) {
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: params: either all parameters have names, or none has`);
  }
  return { tensors, names: names.length === 0 ? undefined : names };
}
