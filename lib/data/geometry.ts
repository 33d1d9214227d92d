/**
 * Transforms that move pixels: resizing, cropping, padding, flipping, as torchvision's of the same names. Parameters
 * are drawn in torchvision's order from each image's own generator. Knows no data set.
 */
import { makeError } from '../errors';
import { tensor } from '../tensor/factories';
import { ops } from '../tensor/ops';
import { checkInteger, describe } from '../tensor/options';
import { boolean, nullOr, number, oneOf, orElse, readOptions, type Rule } from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import { centreOf, checkResizedSize, resizedSize, roundHalfToEven } from '../vision/preprocessing';
import { cut, resize, type Box } from '../vision/resize';
import type { Random } from './random';
import {
  bothSides,
  checkRandoms,
  probability,
  range,
  size,
  sizesOf,
  type Size,
  type Transform,
  type TransformOptions,
} from './transforms';

export type { Box };
export type Interpolation = 'bilinear' | 'bicubic';
export type PaddingMode = 'constant' | 'edge' | 'reflect';

const interpolation = orElse('bilinear', oneOf(['bilinear', 'bicubic']));
const fill = orElse(0, number(-3.4e38, 3.4e38));
const paddingMode = orElse('constant', oneOf(['constant', 'edge', 'reflect']));

/** Of left, top, right and bottom. */
const padding: Rule<readonly [number, number, number, number]> = (value, what) => {
  const sides = typeof value === 'number' ? [value] : value;
  if (!Array.isArray(sides) || ![1, 2, 4].includes(sides.length)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${what}: expected a number, [x, y] or [left, top, right, bottom], got ${describe(value)}`,
    );
  }
  const [left, top, right, bottom] = Array.from<unknown, number>(sides, (side) =>
    checkInteger(side, what, 0, 16_384),
  );
  const first = left as number;
  const second = top ?? first;
  return [first, second, right ?? first, bottom ?? second];
};

export interface ResizeOptions {
  /** A number resizes the short side to it and keeps the proportions; [height, width] stretches. */
  size: Size;
  /** Default 'bilinear'. Both are antialiased. */
  interpolation?: Interpolation;
}

/** Resizes: uint8 images to the pixels of torchvision's `Resize` of Pillow's images, floating ones to those of tensors. */
export class Resize implements Transform {
  readonly size: Size;
  readonly interpolation: Interpolation;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: ResizeOptions) {
    const checked = readOptions(options, { size, interpolation }, 'Resize');
    this.size = checked.size;
    this.interpolation = checked.interpolation;
  }

  /** @throws (rejects) ERR_SENET_SHAPE; ERR_SENET_IMAGE_SIZE if the long side would become too long; ERR_SENET_ABORTED */
  async forward(
    images: Tensor,
    _randoms: readonly Random[] = [],
    options?: TransformOptions,
  ): Promise<Tensor> {
    const [, , height, width] = sizesOf(images, 'Resize');
    const size = resizedSize(this.size, height, width);
    // What both sides are told is meant; the long one that follows may be without end.
    if (typeof this.size === 'number' && height > 0 && width > 0) checkResizedSize(size, height, width);
    return resize(images, { size, interpolation: this.interpolation }, options?.signal);
  }
}

export interface CenterCropOptions {
  /** A number means a square. */
  size: Size;
}

/** Cuts the centre, filling with 0 what a smaller image lacks. */
export class CenterCrop implements Transform {
  readonly size: Size;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: CenterCropOptions) {
    this.size = readOptions(options, { size }, 'CenterCrop').size;
  }

  forward(images: Tensor): Tensor {
    const [, , height, width] = sizesOf(images, 'CenterCrop');
    const { box, padding } = centreOf([height, width], bothSides(this.size));
    const x = cut(images, box);
    return padding === null ? x : x.pad(padding);
  }
}

/** One number for all sides, [x, y] for left and right, top and bottom, or [left, top, right, bottom]. */
export type Padding = number | readonly number[];

export interface PadOptions {
  padding: Padding;
  /** Value of constant padding. Default 0. */
  fill?: number;
  /** 'constant', 'edge' (the border repeated) or 'reflect' (mirrored without the border). Default 'constant'. */
  paddingMode?: PaddingMode;
}

/** Adds pixels around the image. */
export class Pad implements Transform {
  readonly padding: readonly [left: number, top: number, right: number, bottom: number];
  readonly fill: number;
  readonly paddingMode: PaddingMode;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: PadOptions) {
    const checked = readOptions(options, { padding, fill, paddingMode }, 'Pad');
    this.padding = checked.padding;
    this.fill = checked.fill;
    this.paddingMode = checked.paddingMode;
  }

  forward(images: Tensor): Tensor {
    sizesOf(images, 'Pad');
    return pad(images, this.padding, this.fill, this.paddingMode);
  }
}

export interface RandomCropOptions {
  /** A number means a square. */
  size: Size;
  /** Added on the sides before the crop. Default none. */
  padding?: Padding | null;
  /** Pads an image that is too small, on both sides. Default false. */
  padIfNeeded?: boolean;
  /** Value of constant padding. Default 0. */
  fill?: number;
  /** Default 'constant'. */
  paddingMode?: PaddingMode;
}

/** Cuts a rectangle of the given size at a random place. */
export class RandomCrop implements Transform {
  readonly size: readonly [height: number, width: number];
  readonly #padding: readonly [number, number, number, number] | null;
  readonly #padIfNeeded: boolean;
  readonly #fill: number;
  readonly #paddingMode: PaddingMode;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: RandomCropOptions) {
    const rules = {
      size,
      padding: orElse(null, nullOr(padding)),
      padIfNeeded: orElse(false, boolean),
      fill,
      paddingMode,
    };
    const checked = readOptions(options, rules, 'RandomCrop');
    this.size = bothSides(checked.size);
    this.#padding = checked.padding;
    this.#padIfNeeded = checked.padIfNeeded;
    this.#fill = checked.fill;
    this.#paddingMode = checked.paddingMode;
  }

  /** Where to cut an image of a size. @throws ERR_SENET_IMAGE_SIZE if it is smaller than the crop */
  draw(random: Random, height: number, width: number): Box {
    const [cropHeight, cropWidth] = this.size;
    if (height < cropHeight || width < cropWidth) {
      throw makeError(
        'ERR_SENET_IMAGE_SIZE',
        `RandomCrop: expected images of at least ${cropHeight} x ${cropWidth} after padding, got ${height} x ${width}; ` +
          'set padIfNeeded or resize before',
      );
    }
    if (height === cropHeight && width === cropWidth) return { top: 0, left: 0, height, width };
    const top = random.integer(0, height - cropHeight + 1);
    return { top, left: random.integer(0, width - cropWidth + 1), height: cropHeight, width: cropWidth };
  }

  /** @throws ERR_SENET_IMAGE_SIZE (smaller than the crop), ERR_SENET_SHAPE, ERR_SENET_ARG_RANGE */
  forward(images: Tensor, randoms: readonly Random[]): Tensor {
    let x = images;
    const padTo = (padding: readonly [number, number, number, number]): void => {
      x = pad(x, padding, this.#fill, this.#paddingMode);
    };
    if (this.#padding !== null) padTo(this.#padding);
    const [count, , height, width] = sizesOf(x, 'RandomCrop');
    const [cropHeight, cropWidth] = this.size;
    if (this.#padIfNeeded && width < cropWidth) padTo([cropWidth - width, 0, cropWidth - width, 0]);
    if (this.#padIfNeeded && height < cropHeight) padTo([0, cropHeight - height, 0, cropHeight - height]);
    const [, , paddedHeight, paddedWidth] = sizesOf(x, 'RandomCrop');
    const boxes = checkRandoms(randoms, count, 'RandomCrop').map((random) =>
      this.draw(random, paddedHeight, paddedWidth),
    );
    return cutEach(x, boxes);
  }
}

export interface RandomHorizontalFlipOptions {
  /** Probability. Default 0.5. */
  p?: number;
}

/** Mirrors left and right, or not. */
export class RandomHorizontalFlip implements Transform {
  readonly p: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: RandomHorizontalFlipOptions) {
    this.p = readOptions(options, { p: probability }, 'RandomHorizontalFlip').p;
  }

  forward(images: Tensor, randoms: readonly Random[]): Tensor {
    const [count] = sizesOf(images, 'RandomHorizontalFlip');
    const flips = checkRandoms(randoms, count, 'RandomHorizontalFlip').map(
      (random) => random.uniform() < this.p,
    );
    if (!flips.includes(true)) return images;
    const flipped = ops.call('aten::flip', images, [3]) as Tensor;
    if (!flips.includes(false)) return flipped;
    const which = tensor(Uint8Array.from(flips, Number), { shape: [count, 1, 1, 1], dtype: 'bool' });
    return ops.call('aten::where.self', which, flipped, images) as Tensor;
  }
}

export interface RandomResizedCropOptions {
  /** Of the result; a number means a square. */
  size: Size;
  /** Share of the image's area that is cut out. Default [0.08, 1]. */
  scale?: readonly [number, number];
  /** Width through height of what is cut out, before resizing. Default [3 / 4, 4 / 3]. */
  ratio?: readonly [number, number];
  /** Default 'bilinear'. */
  interpolation?: Interpolation;
}

/** Cuts a random part of a random shape, and resizes it: the usual augmentation for ImageNet. */
export class RandomResizedCrop implements Transform {
  readonly size: readonly [height: number, width: number];
  readonly scale: readonly [number, number];
  readonly ratio: readonly [number, number];
  readonly interpolation: Interpolation;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: RandomResizedCropOptions) {
    const rules = {
      size,
      scale: orElse([0.08, 1], range(0, 1)),
      ratio: orElse([3 / 4, 4 / 3], range(1e-3, 1e3)),
      interpolation,
    };
    const checked = readOptions(options, rules, 'RandomResizedCrop');
    this.size = bothSides(checked.size);
    this.scale = checked.scale;
    this.ratio = checked.ratio;
    this.interpolation = checked.interpolation;
  }

  /** What to cut out of an image of a size: up to ten tries, then the largest centre of an allowed shape. */
  draw(random: Random, height: number, width: number): Box {
    for (const [wide, high] of drawSides(random, height * width, this)) {
      if (wide > 0 && wide <= width && high > 0 && high <= height)
        return drawPlace(random, [high, wide], [height, width]);
    }
    const [least, most] = this.ratio;
    const box = { width, height };
    if (width / height < least) box.height = roundHalfToEven(width / least);
    else if (width / height > most) box.width = roundHalfToEven(height * most);
    return { top: Math.floor((height - box.height) / 2), left: Math.floor((width - box.width) / 2), ...box };
  }

  async forward(images: Tensor, randoms: readonly Random[], options?: TransformOptions): Promise<Tensor> {
    const [count, , height, width] = sizesOf(images, 'RandomResizedCrop');
    const parts: Tensor[] = [];
    for (const [index, random] of checkRandoms(randoms, count, 'RandomResizedCrop').entries()) {
      const one = count === 1 ? images : images.slice(0, index, index + 1);
      parts.push(await resize(cut(one, this.draw(random, height, width)), this, options?.signal));
    }
    return parts.length === 1 ? (parts[0] as Tensor) : Tensor.cat(parts);
  }
}

/** Ten draws of two sides at most: of a share of an area (`scale`), the first side through the second as `ratio` says. */
export function* drawSides(
  random: Random,
  area: number,
  { scale, ratio: [least, most] }: Pick<RandomResizedCrop, 'scale' | 'ratio'>,
): Generator<readonly [number, number]> {
  for (let attempt = 0; attempt < 10; attempt++) {
    const target = area * random.uniform(...scale);
    const ratio = Math.exp(random.uniform(Math.log(least), Math.log(most)));
    yield [roundHalfToEven(Math.sqrt(target * ratio)), roundHalfToEven(Math.sqrt(target / ratio))];
  }
}

/** A box of a size somewhere in an image. */
export function drawPlace(
  random: Random,
  [height, width]: readonly [number, number],
  [imageHeight, imageWidth]: readonly [number, number],
): Box {
  const top = random.integer(0, imageHeight - height + 1);
  return { top, left: random.integer(0, imageWidth - width + 1), height, width };
}

/** A box of each image, all of one size. */
function cutEach(images: Tensor, boxes: readonly Box[]): Tensor {
  const [first] = boxes;
  if (first === undefined) return images;
  if (boxes.every((box) => box.top === first.top && box.left === first.left)) return cut(images, first);
  // Row by row: views and LibTorch's indexing take five and twenty times as long for a batch of small images.
  const [count, channels, height, width] = sizesOf(images, 'crop');
  const from = images.toTypedArray() as Uint8Array;
  const to = new (from.constructor as typeof Uint8Array)(count * channels * first.height * first.width);
  let place = 0;
  for (const [index, box] of boxes.entries()) {
    for (let channel = 0; channel < channels; channel++) {
      let start = ((index * channels + channel) * height + box.top) * width + box.left;
      for (let row = 0; row < box.height; row++, start += width, place += box.width) {
        to.set(from.subarray(start, start + box.width), place);
      }
    }
  }
  return tensor(to, { shape: [count, channels, first.height, first.width], dtype: images.dtype });
}

function pad(
  images: Tensor,
  [left, top, right, bottom]: readonly [number, number, number, number],
  fill: number,
  mode: PaddingMode,
): Tensor {
  return images.pad([left, right, top, bottom], mode === 'edge' ? 'replicate' : mode, fill);
}
