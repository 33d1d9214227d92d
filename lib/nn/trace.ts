/**
 * `compile()` of a module whose forward is TypeScript: the forward is called once with a value that has no numbers
 * (lib/tensor/tracing.ts), its native parts and its operators are noted, and what was noted is compiled.
 */
import path from 'node:path';

import type { ModuleHandle, TensorHandle } from '../binding';
import { isSenetError, makeError } from '../errors';
import { binding } from '../native';
import { LIBRARY } from '../package-root';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { noGrad, tidy, type Scope } from '../tensor/scope';
import { Tensor, handleOf, wrapTensor, wrapUntracked } from '../tensor/tensor';
import { currentTrace, insideTrace, isTraced, markTraced, whileTracing, type Trace } from '../tensor/tracing';
import type { TreeNode } from './module-tree';

/** The trace of a module's forward. */
interface ForwardTrace extends Trace {
  readonly root: TreeNode;
  /** The input, until a module reads it: its channels are those of the part that was declared first. */
  guess?: undefined | { readonly input: TensorHandle; readonly channels: number };
  other?: OtherChannels;
}

/** The module that reads the input is for images of other channels. Nobody outside of this file sees it. */
class OtherChannels extends Error {
  constructor(readonly channels: number) {
    super(`the input has ${channels} channels`);
  }
}

/** True inside a forward that is being traced: it is traced in evaluation mode. */
export function isBeingTraced(): boolean {
  return currentTrace() !== undefined;
}

/** What a native module gives for a traced value; undefined for a Tensor, which it computes with. */
export function traceNative(
  node: TreeNode,
  handle: ModuleHandle,
  x: unknown,
  scope: Scope | undefined,
): Tensor | undefined {
  if (!Tensor.isTensor(x)) return undefined;
  const read = handleOf(x, 'forward: x');
  if (!isTraced(read)) return undefined;
  const trace = currentTrace() as ForwardTrace | undefined;
  if (trace?.guess?.input === read) checkGuess(trace, node);
  const output = binding.traceModule(handle, read, pathBelow(trace, node));
  return wrapTensor(markTraced(output), scope);
}

/** Throws where the first module that reads the input says that it has other channels. */
function checkGuess(trace: ForwardTrace, node: TreeNode): void {
  const [width] = node.readFacts().width;
  const guessed = trace.guess?.channels;
  trace.guess = undefined;
  if (width > 0 && width !== guessed) throw (trace.other = new OtherChannels(width));
}

/**
 * Traces a TypeScript forward and runs the job that `submit` makes of what it gives.
 *
 * @throws (rejects) ERR_SENET_TS_FORWARD where one of its modules has hooks; ERR_SENET_COMPILE with the line of what
 *   cannot be traced; what the forward throws
 */
export async function runTraced(
  node: TreeNode,
  submit: (output: TensorHandle) => number,
  signal: AbortSignal | undefined,
): Promise<unknown> {
  const all: [string, TreeNode][] = node.walk();
  for (const [where, { hooks, module }] of all) {
    if (!hooks.any) continue;
    const name = where === '' ? '' : ` ('${where}')`;
    throw makeError(
      'ERR_SENET_TS_FORWARD',
      `compile: ${module.constructor.name}${name} has forward hooks, which no compiled model calls`,
    );
  }
  const channels = all.map(([, part]) => part.readFacts().width[0]).find((width) => width > 0);
  if (channels === undefined) {
    throw makeError(
      'ERR_SENET_COMPILE',
      `compile: ${node.type} cannot be compiled: none of its parts says how many channels its images have`,
    );
  }
  // Handles of values in between go with the tidy; the job holds the graph.
  const attempt = (inputChannels: number, isGuess: boolean): Promise<unknown> =>
    tidy(async () => {
      const input = wrapUntracked(markTraced(binding.traceInput(inputChannels)));
      let job: Promise<unknown>;
      try {
        const output = await callForward(node, input, isGuess ? inputChannels : undefined);
        job = runJob(() => submit(output), signal);
      } finally {
        input.dispose();
      }
      return await job;
    });
  return whileTracing(async () => {
    try {
      return await attempt(channels, true);
    } catch (error) {
      if (!(error instanceof OtherChannels)) throw error;
      return attempt(error.channels, false);
    }
  });
}

async function callForward(
  node: TreeNode,
  input: Tensor,
  guessed: number | undefined,
): Promise<TensorHandle> {
  const trace: ForwardTrace = { root: node };
  if (guessed !== undefined) trace.guess = { input: handleOf(input, 'input'), channels: guessed };
  let output: unknown;
  try {
    output = await insideTrace(trace, () => noGrad(() => node.module.forward(input)));
  } catch (error) {
    // One that the forward caught comes first: what it did then is not what it does with numbers.
    throw trace.other ?? withLine(node, trace.refusal ?? error);
  }
  if (trace.other !== undefined) throw trace.other;
  if (trace.refusal !== undefined) throw withLine(node, trace.refusal);
  if (Tensor.isTensor(output) && isTraced(handleOf(output, 'output'))) return handleOf(output, 'output');
  const given = Tensor.isTensor(output) ? 'a Tensor that does not come from its input' : describe(output);
  throw makeError(
    'ERR_SENET_COMPILE',
    `compile: ${node.type} cannot be compiled: expected its forward to give one Tensor that comes from its input, got ${given}${at(trace.latest)}`,
  );
}

/** What the library threw inside the forward says where in the user's file it was thrown; the user's own stays. */
function withLine(node: TreeNode, error: unknown): unknown {
  if (!isSenetError(error)) return error;
  const message = error.message.replace(/^(compile: )?/, `compile: ${node.type}: `);
  return makeError(error.code, `${message}${at(error)}`.split('\n'), { cause: error });
}

/** The innermost line of a stack that is not the library's, as the end of a message. */
function at(thrown: { readonly stack?: string } | undefined): string {
  const frames = thrown?.stack?.split('\n').slice(1) ?? [];
  const users = frames.find(
    (frame) => /:\d+:\d+\)?$/.test(frame) && !frame.includes(LIBRARY + path.sep) && !frame.includes('node:'),
  );
  const line = users === undefined ? undefined : /\(?([^\s(]+:\d+:\d+)\)?$/.exec(users)?.[1];
  return line === undefined ? '' : ` (at ${line})`;
}

function pathBelow(trace: ForwardTrace | undefined, node: TreeNode): string {
  const whole = node.path;
  const above = trace?.root.path ?? '';
  return above !== '' && whole.startsWith(`${above}.`) ? whole.slice(above.length + 1) : whole;
}
