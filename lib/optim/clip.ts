/** Gradient clipping, as `torch.nn.utils.clip_grad_norm_`. */
import type { TensorHandle } from '../binding';
import { makeError } from '../errors';
import { binding } from '../native';
import { runJob } from '../tensor/jobs';
import { checkNumber, describe } from '../tensor/options';
import { boolean, number, orElse, readOptions, type Rule } from '../tensor/rules';
import { currentScope } from '../tensor/scope';
import { handleOf, Tensor, wrapTensor } from '../tensor/tensor';

export interface ClipGradNormOptions {
  /** The order of the norm; `Infinity` for the largest magnitude, -Infinity for the least, 0 counts. Default 2. */
  normType?: number;
  /** Reject if the norm is NaN or infinite, instead of scaling the gradients by it. Default false. */
  errorIfNonfinite?: boolean;
}

const orInfinity =
  (rule: Rule<number>): Rule<number> =>
  (value, what) =>
    value === Infinity || value === -Infinity ? value : rule(value, what);

const RULES = { normType: orElse(2, orInfinity(number())), errorIfNonfinite: orElse(false, boolean) };

/**
 * Scales the gradients of `parameters` so that their norm, taken over all of them together, is at most `maxNorm`; as one
 * job of the executor that runs alone, as an optimiser's step. Parameters without a gradient are left out.
 *
 * @returns the norm before the scaling, a tensor of no dimensions; 0 if there are no gradients
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION; ERR_SENET_AUTOGRAD with
 *   `errorIfNonfinite`
 */
export async function clipGradNorm_(
  parameters: Tensor | Iterable<Tensor>,
  maxNorm: number,
  options?: ClipGradNormOptions,
): Promise<Tensor> {
  const where = 'clipGradNorm_';
  const { normType, errorIfNonfinite } = readOptions(options, RULES, where);
  if (maxNorm !== Infinity) checkNumber(maxNorm, `${where}: maxNorm`, 0);
  const handles = toHandles(parameters, where);
  const scope = currentScope();
  const norm = await runJob(() => binding.clipGradients(handles, maxNorm, normType, errorIfNonfinite));
  return wrapTensor(norm as TensorHandle, scope);
}

function toHandles(parameters: unknown, where: string): TensorHandle[] {
  if (Tensor.isTensor(parameters)) return [handleOf(parameters, where)];
  if (typeof parameters !== 'object' || parameters === null || !(Symbol.iterator in parameters)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: expected an array of parameters, got ${describe(parameters)}`,
    );
  }
  return [...(parameters as Iterable<unknown>)].map((tensor, i) =>
    handleOf(tensor, `${where}: parameters[${i}]`),
  );
}
