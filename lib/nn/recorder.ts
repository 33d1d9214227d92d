/**
 * What is noted of one forward, in evaluation mode: the shapes that every module gave, for a summary; the outputs of some
 * modules, and what others give instead of theirs, for `explain`. Knows modules as objects only.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import { makeError } from '../errors';
import { ops } from '../tensor/ops';
import { describe } from '../tensor/options';
import { Tensor } from '../tensor/tensor';

type Shape = readonly number[];

/** What a recorder does with a module besides noting its calls. */
export interface Watch {
  readonly module: object;
  /** From the root of the tree. */
  readonly path: string;
  /** Keep what its last call gave. */
  readonly keep: boolean;
  /** What it gives instead, as many elements as it gives; a NaN leaves what was computed. */
  readonly replacement?: Tensor | undefined;
}

/** A module that is watched, from where it is looked at. */
export interface WatchBelow extends Watch {
  readonly relative: string;
}

/** Collects the calls of one forward. */
export class Recorder {
  readonly #calls = new Map<object, { shapes: readonly Shape[]; all: number[][] }>();
  readonly #order: object[] = [];
  readonly #kept = new Map<object, Tensor>();

  constructor(
    readonly watches: readonly Watch[] = [],
    /** Whether the forward records a graph, which what is kept is part of. */
    readonly gradients = false,
  ) {}

  /** A call of `module` gave tensors of these shapes. */
  note(module: object, shapes: readonly Shape[]): void {
    const known = this.#calls.get(module) ?? { shapes: [], all: [] };
    this.#order.push(module);
    this.#calls.set(module, {
      shapes,
      all: [...known.all, ...shapes.slice(0, 1).map((shape) => [...shape])],
    });
  }

  /** The last output of a module, and the first tensor's shape of each of its calls. */
  callsOf(module: object): { shapes: readonly Shape[]; all: readonly Shape[] } {
    return this.#calls.get(module) ?? { shapes: [], all: [] };
  }

  /** The modules in the order in which their calls ended. */
  get order(): readonly object[] {
    return this.#order;
  }

  /** The watched modules at `path` and below it. */
  watchedBelow(path: string): readonly WatchBelow[] {
    if (path === '') return this.watches.map((watch) => ({ ...watch, relative: watch.path }));
    return this.watches.flatMap((watch) => {
      if (watch.path === path) return [{ ...watch, relative: '' }];
      return watch.path.startsWith(`${path}.`)
        ? [{ ...watch, relative: watch.path.slice(path.length + 1) }]
        : [];
    });
  }

  /** A watched module gave this. */
  keep(module: object, output: Tensor): void {
    this.#kept.set(module, output);
  }

  /** What a module that is to be kept gave; undefined if it was not called. */
  keptOf(module: object): Tensor | undefined {
    return this.#kept.get(module);
  }

  /**
   * What the forward goes on with where a module that C++ does not run gave `output`.
   *
   * @throws (rejects) ERR_SENET_ARG_RANGE for a watched module that gives no Tensor; ERR_SENET_SHAPE
   */
  async pass(module: object, output: unknown): Promise<unknown> {
    const watch = this.watches.find((one) => one.module === module);
    if (watch === undefined) return output;
    if (!Tensor.isTensor(output)) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `'${watch.path}' gives no Tensor that could be looked at or replaced: ${describe(output)}`,
      );
    }
    let given: Tensor = output;
    if (watch.replacement !== undefined) given = await replace(watch.path, given, watch.replacement);
    if (!watch.keep) return given;
    if (this.gradients && !given.requiresGrad) {
      given = given.detach();
      given.requiresGrad = true;
    }
    this.keep(module, given);
    return ops.callAsync('aten::clone', given); // what follows may change it in place
  }

  /** Calls `fn`; the forwards inside it are noted here. */
  run<T>(fn: () => T): T {
    return recorders.run(this, fn);
  }
}

async function replace(path: string, output: Tensor, replacement: Tensor): Promise<Tensor> {
  const { dtype, device, shape } = output;
  if (replacement.numel !== output.numel) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `'${path}': its output has ${output.numel} elements, what should replace it ${replacement.numel}`,
    );
  }
  const instead = replacement.to({ dtype, device }).reshape(shape);
  const absent = ops.call('aten::isnan', instead) as Tensor;
  return (await ops.callAsync('aten::where.self', absent, output, instead)) as Tensor;
}

const recorders = new AsyncLocalStorage<Recorder>();

/** The recorder inside whose forward this code runs. */
export function currentRecorder(): Recorder | undefined {
  return recorders.getStore();
}
