/**
 * What happens to images between a data set and a network, with torchvision's names and meanings. A transform takes
 * N x C x H x W images and one generator for each, and draws only from an image's own generator: whether images pass one
 * by one or together makes no difference to their pixels. Geometry, colour and erasing have files of their own.
 * Knows no data set and no loader.
 */
import { makeError } from '../errors';
import { tensor } from '../tensor/factories';
import { callHereOrAsync } from '../tensor/ops';
import { checkInteger, checkNumber, describe } from '../tensor/options';
import { isListOf, number, oneOf, orElse, readOptions, type Rule } from '../tensor/rules';
import { handleOf, Tensor } from '../tensor/tensor';
import { toGrey as toPillowGrey } from '../vision/preprocessing';
import { MAX_SIDE } from '../vision/preprocessing-options';
import { Turns } from '../vision/turns';
import type { Random } from './random';

export interface TransformOptions {
  signal?: AbortSignal;
}

/** A step between data set and network. Write your own by implementing `forward`. */
export interface Transform {
  /**
   * @param images - N x C x H x W; not to be changed
   * @param randoms - a generator for each image; empty if the transform draws nothing
   */
  forward(images: Tensor, randoms: readonly Random[], options?: TransformOptions): Tensor | Promise<Tensor>;
}

/** Transforms one after the other. */
export class Compose implements Transform {
  readonly transforms: readonly Transform[];

  /** @throws ERR_SENET_ARG_TYPE */
  constructor(transforms: readonly Transform[]) {
    if (!Array.isArray(transforms)) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `Compose: expected an array of transforms, got ${describe(transforms)}`,
      );
    }
    this.transforms = Array.from<unknown, Transform>(transforms, (one) => checkTransform(one, 'Compose'));
  }

  async forward(images: Tensor, randoms: readonly Random[], options?: TransformOptions): Promise<Tensor> {
    let x = images;
    const turns = new Turns();
    for (const transform of this.transforms) {
      const made: unknown = await transform.forward(x, randoms, options);
      x = checkTransformed(made, x.shape[0] as number, 'Compose: a transform');
      await turns.take();
    }
    return x;
  }
}

/** uint8 to float32, from 0..255 to 0..1. Floating images stay as they are. */
export class ToTensor implements Transform {
  /** @throws ERR_SENET_DTYPE (neither uint8 nor floating), ERR_SENET_SHAPE */
  async forward(
    images: Tensor,
    _randoms: readonly Random[] = [],
    options?: TransformOptions,
  ): Promise<Tensor> {
    sizesOf(images, 'ToTensor');
    if (isFloatingImage(images, 'ToTensor')) return images;
    const memory_format = 'contiguous'; // of decoded images the channels lie side by side
    const x = await run(options, 'aten::to.dtype', images, 'float32', false, false, memory_format);
    return run(options, 'aten::div_.Scalar', x, 255);
  }
}

export interface NormalizeOptions {
  /** One number for each channel, or one for all. */
  mean: readonly number[];
  /** As many as `mean`, none 0. */
  std: readonly number[];
}

/** (x - mean) / std for each channel, of floating images. */
export class Normalize implements Transform {
  readonly mean: readonly number[];
  readonly std: readonly number[];

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: NormalizeOptions) {
    const { mean, std } = readOptions(options, { mean: numbers, std: numbers }, 'Normalize');
    this.mean = mean;
    this.std = std;
    if (this.std.includes(0)) throw makeError('ERR_SENET_ARG_RANGE', 'Normalize: std: expected no zero');
    if (this.mean.length !== this.std.length) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `Normalize: expected as many deviations as means, got ${this.std.length} and ${this.mean.length}`,
      );
    }
  }

  /** @throws ERR_SENET_DTYPE (not floating), ERR_SENET_SHAPE */
  async forward(
    images: Tensor,
    _randoms: readonly Random[] = [],
    options?: TransformOptions,
  ): Promise<Tensor> {
    const [, channels] = sizesOf(images, 'Normalize');
    if (!isFloatingImage(images, 'Normalize')) {
      throw makeError(
        'ERR_SENET_DTYPE',
        'Normalize: expected floating images, got uint8; put ToTensor before it',
      );
    }
    if (this.mean.length !== 1 && this.mean.length !== channels && channels !== 1) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `Normalize: expected images of ${this.mean.length} channels, as there are means, got ${channels}`,
      );
    }
    const { dtype } = images;
    const perChannel = (values: readonly number[]): Tensor =>
      tensor([...values], { dtype }).view([values.length, 1, 1]);
    const x = await run(options, 'aten::sub.Tensor', images, perChannel(this.mean));
    return run(options, 'aten::div_.Tensor', x, perChannel(this.std));
  }
}

export interface GrayscaleOptions {
  /** 1, or 3 equal channels. Default 1. */
  outputChannels?: 1 | 3;
  /**
   * torchvision has two: of tensors (0.2989, 0.587, 0.114, truncated), and of Pillow's images (`convert('L')`, uint8 only),
   * which `ImageClassifier` has too. Default 'tensor'.
   */
  formula?: 'tensor' | 'pillow';
}

/** RGB to grey, as torchvision; grey stays grey, repeated if three channels are asked. */
export class Grayscale implements Transform {
  readonly outputChannels: 1 | 3;
  readonly formula: 'tensor' | 'pillow';

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: GrayscaleOptions) {
    const rules = {
      outputChannels: orElse(1, oneOf([1, 3])),
      formula: orElse('tensor', oneOf(['tensor', 'pillow'])),
    };
    const { outputChannels, formula } = readOptions(options, rules, 'Grayscale');
    this.outputChannels = outputChannels;
    this.formula = formula;
  }

  /** @throws ERR_SENET_SHAPE (neither one nor three channels), ERR_SENET_DTYPE (not uint8, with Pillow's formula) */
  forward(
    images: Tensor,
    _randoms: readonly Random[] = [],
    options?: TransformOptions,
  ): Tensor | Promise<Tensor> {
    const channels = checkColourChannels(images, 'Grayscale');
    const pillow = this.formula === 'pillow';
    if (pillow && images.dtype !== 'uint8') {
      throw makeError(
        'ERR_SENET_DTYPE',
        `Grayscale: expected uint8 images for Pillow's formula, got ${images.dtype}; put it before ToTensor`,
      );
    }
    const finish = (grey: Tensor): Tensor => grey.expand([-1, this.outputChannels, -1, -1]);
    if (channels === 1) return finish(images);
    return pillow ? toPillowGrey(images, options?.signal).then(finish) : finish(toGrey(images));
  }
}

/** torchvision's grey of RGB images, in their dtype: N x 1 x H x W. */
export function toGrey(images: Tensor): Tensor {
  const channel = (index: number, weight: number): Tensor => images.slice(1, index, index + 1).mul(weight);
  return channel(0, 0.2989).add_(channel(1, 0.587)).add_(channel(2, 0.114)).to(images.dtype);
}

// ---- what all transforms share ----

/**
 * Up to so many elements an operator runs on the calling thread (about a millisecond); beyond it is a job, which may
 * have to wait for a step of the training.
 */
const INLINE_ELEMENTS = 2 ** 21;

/** One operator on `x`: here if it is short, as a job if it is not. */
export async function run(
  options: TransformOptions | undefined,
  name: string,
  x: Tensor,
  ...args: unknown[]
): Promise<Tensor> {
  const extent = { elements: x.numel, inline: INLINE_ELEMENTS, signal: options?.signal };
  return (await callHereOrAsync(extent, name, x, ...args)) as Tensor;
}

/** @throws ERR_SENET_ARG_TYPE for what is no Tensor; ERR_SENET_SHAPE unless images are N x C x H x W */
export function sizesOf(
  images: Tensor,
  where: string,
): [count: number, channels: number, height: number, width: number] {
  handleOf(images, `${where}: images`);
  const { shape } = images;
  if (shape.length !== 4) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: expected images of N x C x H x W, got [${shape.join(', ')}]`,
    );
  }
  return shape as unknown as [number, number, number, number];
}

/** @throws ERR_SENET_SHAPE unless images have one or three channels */
export function checkColourChannels(images: Tensor, where: string): 1 | 3 {
  const [, channels] = sizesOf(images, where);
  if (channels === 1 || channels === 3) return channels;
  throw makeError('ERR_SENET_SHAPE', `${where}: expected images of 1 or 3 channels, got ${channels}`);
}

/** True for floating images, false for uint8. @throws ERR_SENET_DTYPE for others */
export function isFloatingImage(images: Tensor, where: string): boolean {
  const { dtype } = images;
  if (dtype === 'uint8') return false;
  if (dtype === 'float32' || dtype === 'float64' || dtype === 'float16' || dtype === 'bfloat16') return true;
  throw makeError('ERR_SENET_DTYPE', `${where}: expected uint8 or floating images, got ${dtype}`);
}

/** The generators, one for each image. @throws ERR_SENET_ARG_RANGE if there are fewer or more */
export function checkRandoms(randoms: readonly Random[], count: number, where: string): readonly Random[] {
  if (Array.isArray(randoms) && randoms.length === count) return randoms as readonly Random[];
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: expected a generator for each of ${count} images, got ${describe(randoms)}`,
  );
}

/** @throws ERR_SENET_ARG_TYPE */
export function checkTransform(value: unknown, where: string): Transform {
  if (typeof (value as Partial<Transform> | null | undefined)?.forward === 'function')
    return value as Transform;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${where}: expected a transform (an object with a method forward), got ${describe(value)}`,
  );
}

/** What something made. @throws ERR_SENET_ARG_TYPE unless it is a Tensor */
export function checkMade(value: unknown, where: string): Tensor {
  if (Tensor.isTensor(value)) return value;
  throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Tensor from it, got ${describe(value)}`);
}

/** What a transform made of so many images: as many. @throws ERR_SENET_ARG_TYPE, ERR_SENET_SHAPE */
export function checkTransformed(value: unknown, count: number, where: string): Tensor {
  const { shape } = checkMade(value, where);
  if (shape[0] === count) return value as Tensor;
  throw makeError(
    'ERR_SENET_SHAPE',
    `${where}: expected as many images from it as it is given, ${count}, got the shape [${shape.join(', ')}]`,
  );
}

/** Two numbers in order. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export function range(minimum: number, maximum: number): Rule<[number, number]> {
  return (value, what) => {
    if (!Array.isArray(value) || value.length !== 2) {
      throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected [low, high], got ${describe(value)}`);
    }
    const low = checkNumber(value[0], what, minimum, maximum);
    return [low, checkNumber(value[1], what, low, maximum)];
  };
}

/** @throws ERR_SENET_ARG_TYPE */
const numbers: Rule<readonly number[]> = (value, what) => {
  if (isListOf(value, Number.isFinite) && value.length > 0) return [...(value as number[])];
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${what}: expected an array of finite numbers, got ${describe(value)}`,
  );
};

export type Size = number | readonly [height: number, width: number];

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export const size: Rule<Size> = (value, what) => {
  if (typeof value === 'number') return checkInteger(value, what, 1, MAX_SIDE);
  if (!Array.isArray(value) || value.length !== 2) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${what}: expected a number or [height, width], got ${describe(value)}`,
    );
  }
  return [checkInteger(value[0], what, 1, MAX_SIDE), checkInteger(value[1], what, 1, MAX_SIDE)];
};

/** A probability, 1 / 2 where it is left out. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export const probability: Rule<number> = orElse(0.5, number(0, 1));

/** One number means a square. */
export function bothSides(size: Size): [height: number, width: number] {
  return typeof size === 'number' ? [size, size] : [size[0], size[1]];
}
