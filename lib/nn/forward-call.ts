/**
 * What a call of `forward` is, besides what the module computes: of a native one a job of the executor; of a user's, as
 * Python's `__call__`, the counting of calls and the grad mode. Both run the hooks, and tell a summary what they gave.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import { isAbortSignal, isPlainObject } from '../brands';
import type { ModuleCall, ModuleHandle, TensorHandle } from '../binding';
import { makeError } from '../errors';
import { binding } from '../native';
import { throwIfAborted, untilAborted } from '../tensor/abort';
import { runJob, runJobSync } from '../tensor/jobs';
import { boolean, optional, readOptions, signal } from '../tensor/rules';
import { autocastDType, currentScope, gradEnabled, noGrad, type Scope } from '../tensor/scope';
import { handleOf, Tensor, wrapTensor } from '../tensor/tensor';
import type { TreeNode } from './module-tree';
import { forwardOf, type Forward } from './native-part';
import { currentRecorder, type Recorder, type WatchBelow } from './recorder';
import { traceNative } from './trace';

export interface ForwardOptions {
  /** Record a graph for `backward`. Default: in training mode yes, in evaluation mode no. */
  grad?: boolean;
}

export interface AsyncForwardOptions extends ForwardOptions {
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

const FORWARD = { grad: optional(boolean), signal };

interface Recorded {
  readonly output: TensorHandle;
  readonly calls: readonly ModuleCall[];
  readonly outputs: readonly (TensorHandle | null)[];
}

/** Whether the forward of a user's module that is under way records a graph: what it calls does as it does. */
const recording = new AsyncLocalStorage<boolean>();

/** Runs a module's native forward as a job. @throws (rejects) as `Module.forward` */
export async function callNative(node: TreeNode, inputs: readonly unknown[]): Promise<unknown> {
  const { handle } = node;
  if (handle === undefined) {
    throw makeError('ERR_SENET_ARG_MISSING', `${node.module.constructor.name}: the class defines no forward`);
  }
  const [x, options] = inputs as [Tensor, AsyncForwardOptions | undefined];
  const { grad, signal: abort } = readOptions(options, FORWARD, 'forward');
  const scope = currentScope();
  const traced = traceNative(node, handle, x, scope);
  if (traced !== undefined) return traced;
  const recorder = currentRecorder();
  // Where a TypeScript forward calls this one by `super`, the hooks are for the outer.
  const finish = node.hasNativeForward && node.hooks.any ? node.hooks.begin() : undefined;
  const toRecorded = recorder === undefined ? undefined : beginRecording(node, recorder);
  const value = await runJob(() => submit(node, handle, x, grad), abort);
  const output = toRecorded === undefined ? toOutput(value, scope) : toRecorded(value, scope);
  if (finish === undefined) return output;
  const finished = await finish(node.module, inputs, output);
  return recorder === undefined ? finished : recorder.pass(node.module, finished);
}

/** What tells the recorder what a native forward gave, and gives it: the module may be disposed by then. */
function beginRecording(
  node: TreeNode,
  recorder: Recorder,
): (value: unknown, scope: Scope | undefined) => Tensor {
  const parts = new Map(node.walk());
  const kept = nativelyWatched(node, recorder).filter(({ keep }) => keep);
  return (value, scope) => {
    const { output, calls, outputs } = value as Recorded;
    for (const [path, , shape] of calls) recorder.note((parts.get(path) as TreeNode).module, [shape]);
    for (const [index, { module }] of kept.entries()) {
      const handle = outputs[index] ?? null;
      if (handle !== null) recorder.keep(module, wrapTensor(handle, scope));
    }
    return wrapTensor(output, scope);
  };
}

/** What C++ watches; a module with hooks is watched behind them. */
function nativelyWatched(node: TreeNode, recorder: Recorder): readonly WatchBelow[] {
  return recorder.watchedBelow(node.path).filter(({ relative }) => relative !== '' || node.runsNatively);
}

/** As `callNative`, blocking the calling thread until it is done. @throws as `Module.forwardSync` */
export function callNativeSync(node: TreeNode, x: Tensor, options: ForwardOptions | undefined): unknown {
  const { grad } = readOptions(options, { grad: FORWARD.grad }, 'forwardSync');
  const handle = node.requireNative('forwardSync', 'block until it is done: call forward');
  const recorder = currentRecorder();
  const toRecorded = recorder === undefined ? undefined : beginRecording(node, recorder);
  const value = runJobSync(() => submit(node, handle, x, grad));
  return toRecorded === undefined ? toOutput(value, currentScope()) : toRecorded(value, currentScope());
}

/** Stands before the forward of a module, if it is TypeScript. */
export function watchForward(node: TreeNode): void {
  if (node.hasNativeForward) return;
  const forward = forwardOf(node.module);
  Object.defineProperty(node.module, 'forward', {
    configurable: true,
    enumerable: false,
    writable: true,
    value: (...inputs: unknown[]) => callTypeScript(node, forward, inputs),
  });
}

async function callTypeScript(
  node: TreeNode,
  forward: Forward,
  inputs: readonly unknown[],
): Promise<unknown> {
  node.checkOpen();
  const { grad, signal: abort } = forwardOptions(inputs);
  throwIfAborted(abort);
  const finish = node.hooks.begin();
  const recorder = currentRecorder();
  const run = (): Promise<unknown> => forward.apply(node.module, inputs as unknown[]);
  const records = recordsGraph(node, grad);
  return node.whileRunning(async () => {
    const result = recording.run(records, () => (records ? run() : noGrad(run)));
    const output = await finish(node.module, inputs, await untilAborted(result, abort));
    recorder?.note(node.module, shapesOf(output));
    return recorder === undefined ? output : recorder.pass(node.module, output);
  });
}

function submit(node: TreeNode, handle: ModuleHandle, x: Tensor, grad: boolean | undefined): number {
  const input = handleOf(x, 'forward: x');
  const mode = [recordsGraph(node, grad), autocastDType()] as const;
  const recorder = currentRecorder();
  if (recorder === undefined) return binding.moduleForward(handle, input, ...mode);
  const watched = nativelyWatched(node, recorder);
  return binding.moduleRecord(
    handle,
    input,
    ...mode,
    watched.filter(({ keep }) => keep).map(({ relative }) => relative),
    watched.flatMap(({ relative, replacement }) =>
      replacement === undefined ? [] : [[relative, handleOf(replacement, 'replacement')] as const],
    ),
  );
}

function recordsGraph(node: TreeNode, grad: boolean | undefined): boolean {
  const usual = currentRecorder()?.gradients ?? node.module.training;
  return grad ?? ((recording.getStore() ?? usual) && gradEnabled());
}

/** The library's own options, if a forward's last argument has them. */
function forwardOptions(inputs: readonly unknown[]): AsyncForwardOptions {
  const last = inputs.at(-1);
  if (!isPlainObject(last)) return {};
  return {
    ...(typeof last.grad === 'boolean' ? { grad: last.grad } : {}),
    ...(isAbortSignal(last.signal) ? { signal: last.signal } : {}),
  };
}

/** The shapes of the tensors in an output: itself, or those of an array or object. */
function shapesOf(output: unknown): (readonly number[])[] {
  if (Tensor.isTensor(output)) return [output.shape];
  if (typeof output !== 'object' || output === null) return [];
  return Object.values(output).flatMap((part: unknown) => (Tensor.isTensor(part) ? [part.shape] : []));
}

function toOutput(value: unknown, scope: Scope | undefined): unknown {
  const both = value as { logits?: TensorHandle; auxLogits?: TensorHandle };
  if (both.logits === undefined || both.auxLogits === undefined)
    return wrapTensor(value as TensorHandle, scope);
  return { logits: wrapTensor(both.logits, scope), auxLogits: wrapTensor(both.auxLogits, scope) };
}
