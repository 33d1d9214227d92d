/** A model's weights in a run: their average put in for a while, and whether all are finite. */
import type { StateDict } from '../checkpoint/state-dict';
import { isSenetError } from '../errors';
import { Module } from '../nn/module';
import type { ExponentialMovingAverage } from '../optim/ema';
import { isFloating } from '../tensor/dtype';
import { ops } from '../tensor/ops';
import { tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';

/** Tensors of their own, with the same names. */
export function copiesOf(state: StateDict): [string, Tensor][] {
  return [...state].map(([name, tensor]) => [name, tensor.clone()]);
}

/** With a moving average: runs `work` while the model has it, and puts the trained weights back afterwards. */
export async function withAverage<T>(
  model: Module<unknown>,
  ema: ExponentialMovingAverage | undefined,
  work: () => Promise<T>,
): Promise<T> {
  if (ema === undefined) return work();
  const state = model.stateDict();
  const trained = new Map(copiesOf(state));
  try {
    const average = ema.stateDict();
    model.loadStateDict(average);
    average.dispose();
    return await work();
  } finally {
    // A forward of somebody else's may be under way, which holds the average.
    for (;;) {
      try {
        model.loadStateDict(trained);
        break;
      } catch (error) {
        if (!isSenetError(error) || error.code !== 'ERR_SENET_BUSY') throw error;
        await Module.whenIdle(model);
      }
    }
    for (const tensor of trained.values()) tensor.dispose();
    state.dispose();
  }
}

/** The name of a tensor of the state dict that has a value that is not finite; null of none. */
export async function firstNotFinite(model: Module<unknown>): Promise<string | null> {
  const state = model.stateDict();
  try {
    const floating = [...state].filter(([, tensor]) => isFloating(tensor.dtype) && tensor.numel > 0);
    const norms = await tidy(async () => {
      const each = (await ops.callAsync(
        'aten::_foreach_norm.Scalar',
        floating.map(([, tensor]) => tensor),
        Infinity, // no sum of squares, which overflows
      )) as Tensor[];
      return each.map((norm) => Number(norm.item()));
    });
    const bad = norms.findIndex((norm) => !Number.isFinite(norm));
    return bad < 0 ? null : (floating[bad]?.[0] ?? '');
  } finally {
    state.dispose();
  }
}
