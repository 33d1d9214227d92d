/** `RandomErasing`, as torchvision's (Zhong and others, https://arxiv.org/abs/1708.04896). */
import { makeError } from '../errors';
import { tensor } from '../tensor/factories';
import { describe } from '../tensor/options';
import { isListOf, orElse, readOptions, type Rule } from '../tensor/rules';
import { tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { drawPlace, drawSides, type Box } from './geometry';
import type { Random } from './random';
import { checkRandoms, probability, range, sizesOf, type Transform } from './transforms';

export interface RandomErasingOptions {
  /** Probability. Default 0.5. */
  p?: number;
  /** Share of the image's area that is erased. Default [0.02, 0.33]. */
  scale?: readonly [number, number];
  /** Height through width of what is erased. Default [0.3, 3.3]. */
  ratio?: readonly [number, number];
  /** What it is filled with: a number, one for each channel, or 'random' for normal draws. Default 0. */
  value?: number | readonly number[] | 'random';
}

const filling: Rule<readonly number[] | 'random'> = (value, what) => {
  const values: unknown = typeof value === 'number' ? [value] : value;
  const valid = isListOf(values, Number.isFinite) && values.length > 0;
  if (valid || values === 'random') return values as readonly number[] | 'random';
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${what}: expected a number, one for each channel or 'random', got ${describe(value)}`,
  );
};

/** Fills a random rectangle. Put it after Normalize, where 0 is the mean. */
export class RandomErasing implements Transform {
  readonly p: number;
  readonly scale: readonly [number, number];
  readonly ratio: readonly [number, number];
  readonly value: readonly number[] | 'random';

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: RandomErasingOptions) {
    const rules = {
      p: probability,
      scale: orElse([0.02, 0.33], range(0, 1)),
      ratio: orElse([0.3, 3.3], range(1e-3, 1e3)),
      value: orElse(0, filling),
    };
    const { p, scale, ratio, value } = readOptions(options, rules, 'RandomErasing');
    this.p = p;
    this.scale = scale;
    this.ratio = ratio;
    this.value = value;
  }

  /** What to erase of an image of a size; null if it is left as it is. */
  draw(random: Random, height: number, width: number): Box | null {
    if (random.uniform() >= this.p) return null;
    for (const [high, wide] of drawSides(random, height * width, this))
      if (high < height && wide < width) return drawPlace(random, [high, wide], [height, width]);
    return null;
  }

  /** @throws ERR_SENET_SHAPE (as many values as channels, or one), ERR_SENET_ARG_RANGE */
  forward(images: Tensor, randoms: readonly Random[]): Tensor {
    const [count, channels, height, width] = sizesOf(images, 'RandomErasing');
    const { value } = this;
    if (value !== 'random' && value.length !== 1 && value.length !== channels) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `RandomErasing: expected one value or ${channels}, as the images have channels, got ${value.length}`,
      );
    }
    return tidy(() => {
      let x = images;
      for (const [index, random] of checkRandoms(randoms, count, 'RandomErasing').entries()) {
        const box = this.draw(random, height, width);
        if (box === null) continue;
        if (x === images) x = images.clone();
        const part = x
          .select(0, index)
          .slice(1, box.top, box.top + box.height)
          .slice(2, box.left, box.left + box.width);
        part.copy_(this.#filling(random, [channels, box.height, box.width]));
      }
      return x;
    });
  }

  #filling(random: Random, shape: readonly number[]): Tensor {
    if (this.value !== 'random') return tensor([...this.value]).view([this.value.length, 1, 1]);
    const size = shape.reduce((product, side) => product * side, 1);
    return tensor(
      Float32Array.from({ length: size }, () => random.normal()),
      { shape },
    );
  }
}
