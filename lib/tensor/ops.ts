/**
 * `ops`: every ATen operator through LibTorch's dispatcher, converted by the operator's own schema.
 */
import { binding } from '../native';
import { checkSignal, checkString } from './options';
import { callOperator, callOperatorAsync, splitKeywords } from './tensor';

/** What operators give: a Tensor, a number, a list of them, or undefined. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- an operator's result type stands in its schema alone
type OperatorResult = any;

export const ops = {
  /**
   * Calls an operator on this thread: `ops.call('aten::topk', x, 5)`.
   *
   * `name` is an overload (`'aten::add.Tensor'`) or a base name, which takes the first overload that the arguments fit.
   * Arguments are positional by the schema; a last plain object gives keyword arguments by their schema names.
   * Integral numbers are integers to the operator. dtypes and devices are strings. Several results come as an array.
   *
   * LibTorch can crash on some internal operators with absurd arguments; those that were seen to are refused.
   *
   * @throws ERR_SENET_UNKNOWN_OPERATOR, ERR_SENET_REFUSED_OPERATOR, ERR_SENET_OPERATOR_ARGS, ERR_SENET_LIBTORCH
   */
  call(name: string, ...args: unknown[]): OperatorResult {
    const [positional, keywords] = splitKeywords(args);
    return callOperator(checkString(name, 'operator name'), positional, keywords);
  },

  /**
   * The same as a job of the executor. A keyword argument `signal` (an AbortSignal) is taken out of the keywords.
   *
   * @throws (rejects) as `call`, and ERR_SENET_ABORTED
   */
  async callAsync(name: string, ...args: unknown[]): Promise<OperatorResult> {
    const [positional, keywords] = splitKeywords(args);
    const { signal, ...rest } = keywords ?? {};
    const given = keywords === undefined ? undefined : rest;
    return callOperatorAsync(
      checkString(name, 'operator name'),
      positional,
      given,
      checkSignal(signal, 'callAsync'),
    );
  },

  /** The names of all operators with their overloads, sorted. */
  list(): string[] {
    return binding.listOperators().sort();
  },

  /** The schema of an operator; for a base name of all its overloads, a line each. @throws ERR_SENET_UNKNOWN_OPERATOR */
  schema(name: string): string {
    return binding.operatorSchemas(checkString(name, 'operator name')).join('\n');
  },
};

/** How much work a call of an operator is, and how much of it may keep the calling thread. */
interface Extent {
  readonly elements: number;
  /** Up to so many elements it runs on the calling thread; beyond it is a job, which may have to wait for others. */
  readonly inline: number;
  /** Of the job. */
  readonly signal?: AbortSignal | undefined;
}

/** `ops.call` or `ops.callAsync`, whichever the work asks for. @throws (rejects) as they do */
export async function callHereOrAsync(
  { elements, inline, signal }: Extent,
  name: string,
  ...args: unknown[]
): Promise<OperatorResult> {
  if (elements <= inline) return ops.call(name, ...args);
  const [positional, keywords] = splitKeywords(args);
  return await ops.callAsync(name, ...positional, { ...keywords, signal });
}
