/**
 * From a layer's activations and the gradients of a class's score with respect to them to a map of where the class was
 * seen. Knows no model. Grad-CAM: Selvaraju et al., ICCV 2017; Grad-CAM++: Chattopadhyay et al., WACV 2018; LayerCAM: Jiang et
 * al., IEEE TIP 2021; in the forms in which pytorch-grad-cam computes them.
 */
import { callHereOrAsync } from '../tensor/ops';
import { noGrad } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import type { GradientCam } from './cam-methods';

/** A thread does so many elements in well under a millisecond. */
const INLINE_ELEMENTS = 2 ** 16;

/** An operator, as a job where it is much. */
export async function compute(name: string, first: Tensor, ...rest: unknown[]): Promise<Tensor> {
  const extent = { elements: first.numel, inline: INLINE_ELEMENTS };
  return (await callHereOrAsync(extent, name, first, ...rest)) as Tensor;
}

/**
 * The map of each image, relu of a weighted sum over the channels, N x h x w.
 *
 * @param activations N x C x h x w
 * @param gradients of the class's score, of the same shape
 */
export async function gradientMap(
  method: GradientCam,
  activations: Tensor,
  gradients: Tensor,
): Promise<Tensor> {
  return noGrad(async () => {
    if (method === 'layercam') {
      const positive = await compute('aten::relu', gradients);
      return sumOfChannels(await compute('aten::mul.Tensor', positive, activations));
    }
    const weights = method === 'gradcam' ? gradients.mean([2, 3]) : await plusPlus(activations, gradients);
    return weightedMap(activations, weights);
  });
}

/** relu of the sum of the channels, each by its weight. @param weights N x C */
export async function weightedMap(activations: Tensor, weights: Tensor): Promise<Tensor> {
  const factors = weights.unsqueeze(2).unsqueeze(3);
  return sumOfChannels(await compute('aten::mul.Tensor', activations, factors));
}

async function plusPlus(activations: Tensor, gradients: Tensor): Promise<Tensor> {
  const squares = await compute('aten::mul.Tensor', gradients, gradients);
  const cubes = await compute('aten::mul.Tensor', squares, gradients);
  const sums = activations.sum([2, 3], { keepdim: true });
  const below = (await compute('aten::mul.Tensor', cubes, sums)).add(squares, { alpha: 2 }).add(1e-6);
  const alphas = await compute('aten::div.Tensor', squares, below);
  const positive = await compute('aten::relu', gradients);
  return (await compute('aten::mul.Tensor', positive, alphas)).sum([2, 3]);
}

async function sumOfChannels(weighted: Tensor): Promise<Tensor> {
  return (await compute('aten::sum.dim_IntList', weighted, [1], false)).relu();
}

/** Each map from 0 to 1: its least and its greatest value. @param maps N x h x w */
export function normalise(maps: Tensor): Tensor {
  return noGrad(() => {
    const flat = maps.flatten(1);
    const above = flat.sub(flat.min(1, { keepdim: true }).values);
    const most = above.max(1, { keepdim: true }).values;
    return above.div(most.add(1e-7)).reshape(maps.shape);
  });
}
