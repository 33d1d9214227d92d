/** `Mixup` of batches, as torchvision's `v2.MixUp` (Zhang and others, https://arxiv.org/abs/1710.09412). */
import { makeError } from '../errors';
import { ops } from '../tensor/ops';
import { above, integer, orElse, readOptions } from '../tensor/rules';
import { tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import type { Batch, BatchTransform } from './loader';
import type { Random } from './random';
import { run, type TransformOptions } from './transforms';

export interface MixupOptions {
  /** Parameter of the Beta distribution that the share comes from, above 0. Default 1: uniform. */
  alpha?: number;
  /** Classes, for labels as probabilities. */
  numClasses: number;
}

/** Mixes each image, and its label, with the one before it in the batch; labels become probabilities, N x classes. */
export class Mixup implements BatchTransform {
  readonly alpha: number;
  readonly numClasses: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: MixupOptions) {
    const rules = { alpha: orElse(1, above(0, 1e6)), numClasses: integer(1) };
    const { alpha, numClasses } = readOptions(options, rules, 'Mixup');
    this.alpha = alpha;
    this.numClasses = numClasses;
  }

  /** Share of an image in its mixture. */
  draw(random: Random): number {
    return random.beta(this.alpha, this.alpha);
  }

  /** @throws (rejects) ERR_SENET_LABELS (a label outside the classes), ERR_SENET_ABORTED */
  async forward(batch: Batch, random: Random, options?: TransformOptions): Promise<Batch> {
    const share = this.draw(random);
    for (const label of batch.labels.toTypedArray()) {
      if (label >= 0 && label < this.numClasses) continue;
      throw makeError(
        'ERR_SENET_LABELS',
        `Mixup: expected labels from 0 to ${this.numClasses - 1}, got ${label}`,
      );
    }
    return tidy(async () => {
      const oneHot = ops.call('aten::one_hot', batch.labels, this.numClasses) as Tensor;
      return {
        images: await mix(batch.images, share, options),
        labels: await mix(oneHot.to('float32'), share, options),
        indices: batch.indices,
      };
    });
  }
}

/** share * x + (1 - share) * (the one before). */
async function mix(x: Tensor, share: number, options: TransformOptions | undefined): Promise<Tensor> {
  const before = await run(options, 'aten::roll', x, [1], [0]);
  await run(options, 'aten::mul_.Scalar', before, 1 - share);
  return run(options, 'aten::add_.Tensor', before, await run(options, 'aten::mul.Scalar', x, share));
}
