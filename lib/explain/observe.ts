/**
 * One forward of a model that is looked into: in evaluation mode whatever the model's is, in full precision, with the
 * outputs of some of its modules, and with others of them replaced. What everything of this folder is made of.
 */
import { makeError } from '../errors';
import { binding } from '../native';
import { Module } from '../nn/module';
import { nodeOf } from '../nn/module-tree';
import { Recorder, type Watch } from '../nn/recorder';
import type { TensorHandle } from '../binding';
import { untilAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { currentScope, runInMode } from '../tensor/scope';
import { handleOf, Tensor, wrapTensor } from '../tensor/tensor';

export interface Look {
  /** Modules whose outputs are wanted. */
  readonly keep?: readonly Module<unknown>[];
  /** What modules give instead; a NaN leaves what was computed. */
  readonly replace?: ReadonlyMap<Module<unknown>, Tensor>;
  /** Whether to record a graph, for `gradientsOf`. Default false. */
  readonly gradients?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface Observation {
  /** Of the model. */
  readonly output: Tensor;
  /** What a kept module gave in its last call; undefined if it was not called. */
  outputOf(module: Module<unknown>): Tensor | undefined;
  /** The modules that were called, in the order in which their calls ended, with the shape of what each gave. */
  readonly calls: readonly { readonly module: Module<unknown>; readonly shape: readonly number[] }[];
}

/**
 * Runs the model on `x`. To be called inside a `tidy`, which disposes what it makes.
 *
 * @param where the public function, in messages
 * @throws (rejects) what the model's forward rejects with; ERR_SENET_SHAPE unless it gives one Tensor
 */
export async function observe(
  model: Module<unknown>,
  x: Tensor,
  { keep = [], replace = new Map<Module<unknown>, Tensor>(), gradients = false, signal }: Look,
  where: string,
): Promise<Observation> {
  const kept = new Set(keep);
  const watched = new Set([...keep, ...replace.keys()]);
  const watches = Array.from(watched, (module): Watch => {
    return { module, path: nodeOf(module).path, keep: kept.has(module), replacement: replace.get(module) };
  });
  const recorder = new Recorder(watches, gradients);
  // A forward in TypeScript has arguments of its own.
  const options = Module.isNative(model) && signal !== undefined ? [{ signal }] : [];
  const mode = { grad: gradients, autocast: null };
  const forward = recorder.run(() => runInMode(() => model.forward(x, ...options), mode));
  const output = await untilAborted(forward, signal);
  if (!Tensor.isTensor(output)) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: expected one Tensor from the model, got ${describe(output)}`,
    );
  }
  return {
    output,
    outputOf: (module) => recorder.keptOf(module),
    calls: recorder.order.map((module) => ({
      module: module as Module<unknown>,
      shape: recorder.callsOf(module).shapes[0] ?? [],
    })),
  };
}

/** What the model gave, if it is scores. @throws ERR_SENET_SHAPE unless it is N x classes */
export function requireScores({ output }: Observation, x: Tensor, where: string): Tensor {
  if (output.shape.length === 2 && output.shape[0] === x.shape[0]) return output;
  throw makeError(
    'ERR_SENET_SHAPE',
    `${where}: expected scores of N x classes from the model for an input of [${x.shape.join(', ')}], got [${output.shape.join(', ')}]`,
  );
}

/**
 * The gradients of a sum of scores with respect to what was kept, as a job; no parameter's gradient changes.
 *
 * @param again whether gradients of other scores of the same forward will be asked for
 * @throws (rejects) ERR_SENET_AUTOGRAD; ERR_SENET_ABORTED
 */
export async function gradientsOf(
  score: Tensor,
  outputs: readonly Tensor[],
  again: boolean,
  signal: AbortSignal | undefined,
): Promise<(Tensor | null)[]> {
  const scope = currentScope();
  const handles = outputs.map((output) => handleOf(output, 'output'));
  const job = runJob(() => binding.gradients(handleOf(score, 'score'), handles, again), signal);
  return ((await job) as (TensorHandle | null)[]).map((handle) =>
    handle === null ? null : wrapTensor(handle, scope),
  );
}
