/**
 * `ColorJitter` and the four adjustments that it is made of, by torchvision's formulas for tensors (`torchvision`
 * 0.2x, `transforms/_functional_tensor.py`): results of uint8 images are truncated, not rounded, after each step.
 * Images of a batch are adjusted together, each by its own factors in its own order.
 */
import { makeError } from '../errors';
import { tensor } from '../tensor/factories';
import { ops } from '../tensor/ops';
import { checkNumber } from '../tensor/options';
import { readOptions, type Rule } from '../tensor/rules';
import { tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { Turns } from '../vision/turns';
import type { Random } from './random';
import {
  checkRandoms,
  checkColourChannels,
  isFloatingImage,
  range,
  sizesOf,
  toGrey,
  type Transform,
} from './transforms';

/** A number v draws from [1 - v, 1 + v] (hue: [-v, v]); a pair is the range itself. */
export type JitterRange = number | readonly [low: number, high: number];

export interface ColorJitterOptions {
  /** Range of factors from 0. Default 0: none. */
  brightness?: JitterRange;
  /** Range of factors from 0. Default 0: none. */
  contrast?: JitterRange;
  /** Range of factors from 0. Default 0: none. */
  saturation?: JitterRange;
  /** Range within [-0.5, 0.5] of a full turn of the colour circle. Default 0: none. */
  hue?: JitterRange;
}

/** One image's draws: which adjustment comes when (0 brightness, 1 contrast, 2 saturation, 3 hue), and how much of each. */
export interface JitterDraw {
  readonly order: readonly number[];
  /** null: this adjustment is off. */
  readonly factors: readonly (number | null)[];
}

/** A range about a centre, and null for the centre alone, which is what is taken where nothing is given. */
function around(centre: number, lowest: number, highest: number): Rule<[number, number] | null> {
  return (given, what) => {
    const value = given ?? 0;
    const [low, high] = range(lowest, highest)(
      typeof value === 'number'
        ? [Math.max(lowest, centre - checkNumber(value, what, 0, highest)), centre + value]
        : value,
      what,
    );
    return low === centre && high === centre ? null : [low, high];
  };
}

/** Changes brightness, contrast, saturation and hue by random amounts in random order. */
export class ColorJitter implements Transform {
  /** brightness, contrast, saturation, hue; null: off. */
  readonly ranges: readonly (readonly [low: number, high: number] | null)[];

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: ColorJitterOptions) {
    const factors = around(1, 0, 1e6);
    const rules = {
      brightness: factors,
      contrast: factors,
      saturation: factors,
      hue: around(0, -0.5, 0.5),
    };
    const { brightness, contrast, saturation, hue } = readOptions(options, rules, 'ColorJitter');
    this.ranges = [brightness, contrast, saturation, hue];
  }

  /** What happens to one image. */
  draw(random: Random): JitterDraw {
    const order = random.permutation(4);
    return { order, factors: this.ranges.map((range) => (range === null ? null : random.uniform(...range))) };
  }

  /** @throws (rejects) ERR_SENET_SHAPE (neither one nor three channels), ERR_SENET_DTYPE, ERR_SENET_ARG_RANGE */
  async forward(images: Tensor, randoms: readonly Random[]): Promise<Tensor> {
    const [count] = sizesOf(images, 'ColorJitter');
    const draws = checkRandoms(randoms, count, 'ColorJitter').map((random) => this.draw(random));
    return jitter(images, draws);
  }
}

/** The adjustments of `draws`, one draw for each image. */
export async function jitter(images: Tensor, draws: readonly JitterDraw[]): Promise<Tensor> {
  checkColourChannels(images, 'ColorJitter');
  isFloatingImage(images, 'ColorJitter');
  return tidy(async () => {
    let x = images;
    const turns = new Turns();
    for (let step = 0; step < 4; step++) {
      for (const [kind, adjust] of ADJUSTMENTS.entries()) {
        const which = draws.flatMap(({ order, factors }, index) =>
          order[step] === kind && typeof factors[kind] === 'number' ? [index] : [],
        );
        if (which.length === 0) continue;
        await turns.take();
        const factors = which.map((index) => draws[index]?.factors[kind] as number);
        if (which.length === draws.length) {
          x = adjust(x, factors);
          continue;
        }
        const index = tensor(which.map(BigInt));
        const adjusted = adjust(x.indexSelect(0, index), factors);
        if (x === images) x = images.clone();
        ops.call('aten::index_copy_', x, 0, index, adjusted);
      }
    }
    return x;
  });
}

const ADJUSTMENTS: readonly ((images: Tensor, factors: readonly number[]) => Tensor)[] = [
  adjustBrightness,
  adjustContrast,
  adjustSaturation,
  adjustHue,
];

/** Between black (0), the image (1) and beyond. */
export function adjustBrightness(images: Tensor, factors: readonly number[]): Tensor {
  return finish(images.mul(perImage(factors, images)), images);
}

/** Between the image's mean grey (0), the image (1) and beyond. */
export function adjustContrast(images: Tensor, factors: readonly number[]): Tensor {
  const grey = checkColourChannels(images, 'adjustContrast') === 3 ? toGrey(images) : images;
  const floating = isFloatingImage(images, 'adjustContrast') ? grey : grey.to('float32');
  // One by one: the order of the sum, and so its last bit, depends on the shape.
  const means = factors.map((_, index) =>
    floating.slice(0, index, index + 1).mean([1, 2, 3], { keepdim: true }),
  );
  return blend(images, Tensor.cat(means), factors);
}

/** Between the grey image (0), the image (1) and beyond; grey images stay as they are. */
export function adjustSaturation(images: Tensor, factors: readonly number[]): Tensor {
  if (checkColourChannels(images, 'adjustSaturation') === 1) return images;
  return blend(images, toGrey(images), factors);
}

/** Turns the colour circle by a share of a full turn; grey images stay as they are. */
export function adjustHue(images: Tensor, factors: readonly number[]): Tensor {
  if (checkColourChannels(images, 'adjustHue') === 1) return images;
  const floating = isFloatingImage(images, 'adjustHue');
  const rgb = floating ? images.to('float32') : images.to('float32').div_(255);
  const { hue, saturation, value } = toHsv(rgb);
  const turned = ops.call('aten::remainder.Scalar', hue.add(perImage(factors, rgb)), 1) as Tensor;
  const result = fromHsv(turned, saturation, value);
  // torchvision's `convert_image_dtype`: every integer takes an equal share of 0..1.
  return floating ? result.to(images.dtype) : result.mul_(255 + 1 - 1e-3).to('uint8');
}

/** factor * image + (1 - factor) * other. */
function blend(images: Tensor, other: Tensor, factors: readonly number[]): Tensor {
  const rest = factors.map((factor) => 1 - factor);
  return finish(images.mul(perImage(factors, images)).add(other.mul(perImage(rest, images))), images);
}

/** Into the range and the dtype of `like`. */
function finish(x: Tensor, like: Tensor): Tensor {
  return x.clamp(0, isFloatingImage(like, 'ColorJitter') ? 1 : 255).to(like.dtype);
}

function perImage(factors: readonly number[], like: Tensor): Tensor {
  const count = like.shape[0] ?? 0;
  if (factors.length !== count) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `expected a factor for each of ${count} images, got ${factors.length}`,
    );
  }
  const dtype = like.dtype === 'uint8' ? 'float32' : like.dtype;
  return tensor([...factors], { dtype }).view([count, 1, 1, 1]);
}

/** Each N x 1 x H x W; Pillow's conversion in floating point. */
function toHsv(rgb: Tensor): { hue: Tensor; saturation: Tensor; value: Tensor } {
  const channel = (index: number): Tensor => rgb.slice(1, index, index + 1);
  const value = rgb.max(1, { keepdim: true }).values;
  const range = value.sub(rgb.min(1, { keepdim: true }).values);
  // Grey pixels have no hue: dividing by 1 instead of 0 gives them 0.
  const grey = range.eq(0);
  const saturation = range.div(where(grey, 1, value));
  const distances = value.sub(rgb).div_(where(grey, 1, range));
  const distance = (index: number): Tensor => distances.slice(1, index, index + 1);
  const [dr, dg, db] = [distance(0), distance(1), distance(2)];
  const isRed = value.eq(channel(0));
  const isGreen = value.eq(channel(1));
  const fromRed = db.sub(dg);
  const fromGreen = dr.add(2).sub_(db);
  const fromBlue = dg.add(4).sub_(dr);
  const sixths = select(isRed, fromRed, select(isGreen, fromGreen, fromBlue));
  const hue = ops.call('aten::fmod.Scalar', sixths.div_(6).add_(1), 1) as Tensor;
  return { hue, saturation, value };
}

function fromHsv(hue: Tensor, saturation: Tensor, value: Tensor): Tensor {
  const sixths = hue.mul(6);
  const sector = ops.call('aten::floor', sixths) as Tensor;
  const f = sixths.sub(sector);
  const share = (x: Tensor): Tensor => value.mul(x.neg().add_(1)).clamp_(0, 1);
  const p = share(saturation);
  const q = share(saturation.mul(f));
  const t = share(saturation.mul(f.neg().add_(1)));
  const which = ops.call('aten::remainder.Scalar', sector.to('int64'), 6) as Tensor;
  const choose = (...sectors: Tensor[]): Tensor => Tensor.cat(sectors, 1).gather(1, which);
  return Tensor.cat(
    [choose(value, q, p, p, t, value), choose(t, value, value, q, p, p), choose(p, p, t, value, value, q)],
    1,
  );
}

function where(condition: Tensor, value: number, other: Tensor): Tensor {
  return ops.call('aten::where.ScalarSelf', condition, value, other) as Tensor;
}

function select(condition: Tensor, x: Tensor, other: Tensor): Tensor {
  return ops.call('aten::where.self', condition, x, other) as Tensor;
}
