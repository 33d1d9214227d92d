/**
 * Score-CAM (Wang et al., CVPR workshops 2020), as pytorch-grad-cam computes it: a channel weighs as much as the class scores
 * where only what the channel shows is left of the image. A forward for every channel, and no gradient.
 */
import type { Module } from '../nn/module';
import { throwIfAborted } from '../tensor/abort';
import { noGrad, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { compute, weightedMap } from './cam-formulas';
import { observe, requireScores } from './observe';

/** Masked images that go through the network together. */
const BATCH = 16;

/**
 * @param x N x C x H x W, the input
 * @param activations N x K x h x w
 * @param targets the class of each image
 * @returns N x h x w
 */
export async function scoreMap(
  model: Module<unknown>,
  x: Tensor,
  activations: Tensor,
  { targets, signal, where }: { targets: readonly number[]; signal: AbortSignal | undefined; where: string },
): Promise<Tensor> {
  return noGrad(async () => {
    const rows: Tensor[] = [];
    for (const [image, target] of targets.entries()) {
      const scores = await scoresOfChannels(
        model,
        x.slice(0, image, image + 1),
        activations.select(0, image),
        {
          target,
          signal,
          where,
        },
      );
      rows.push(scores.softmax(0));
    }
    return weightedMap(activations, Tensor.stack(rows, 0));
  });
}

/** What the class scores with each channel of one image as the mask. @param channels K x h x w */
async function scoresOfChannels(
  model: Module<unknown>,
  x: Tensor,
  channels: Tensor,
  { target, signal, where }: { target: number; signal: AbortSignal | undefined; where: string },
): Promise<Tensor> {
  const count = channels.shape[0] as number;
  const size = x.shape.slice(2);
  const scores: Tensor[] = [];
  for (let first = 0; first < count; first += BATCH) {
    throwIfAborted(signal);
    scores.push(
      await tidy(async () => {
        const some = channels.slice(0, first, Math.min(first + BATCH, count)).unsqueeze(1);
        const large = await compute('aten::upsample_bilinear2d', some, size, true, null, null);
        const flat = large.flatten(1);
        const least = flat.min(1, { keepdim: true }).values;
        const extent = flat.max(1, { keepdim: true }).values.sub(least).add(1e-8);
        const masks = flat.sub(least).div(extent).reshape(large.shape);
        const masked = await compute('aten::mul.Tensor', masks.to(x.dtype), x);
        const seen = await observe(model, masked, { signal }, where);
        return requireScores(seen, masked, where).select(1, target).to('float32').clone();
      }),
    );
  }
  return Tensor.cat(scores, 0);
}
