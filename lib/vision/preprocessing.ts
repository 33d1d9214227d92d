/**
 * The execution by LibTorch of the record that says how pixels become a model's input. The record travels with the
 * weights, as JSON in a safetensors file's metadata. Steps, in this order: grey, resize, centre crop, pad, / 255, - mean, / std,
 * repeated to three channels. Sizes and crop offsets round as torchvision's (`Resize`, `CenterCrop`); resizing equals Pillow's
 * antialiased filters. Knows no file format and no model.
 */
import { makeError } from '../errors';
import { IMAGENET, PLAIN, type Preprocessing } from '../models/preprocessing-record';
import { empty, tensor, tensorOfBytes } from '../tensor/factories';
import { throwIfAborted } from '../tensor/abort';
import { callHereOrAsync } from '../tensor/ops';
import { checkInteger, describe } from '../tensor/options';
import { integer, matching, nullOr, oneOf, orElse, readOptions, unchecked, type Rule } from '../tensor/rules';
import { tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { MAX_PIXELS } from './decode';
import type { DecodedImage } from './encoded-image';

export { IMAGENET, PLAIN, type Preprocessing };

/** What a record may make of the channels. */
export const CHANNELS: readonly Preprocessing['channels'][] = ['rgb', 'grey', 'grey-repeated'];

/** Channels of the input that a record makes. */
export function inputChannels({ channels }: Pick<Preprocessing, 'channels'>): 1 | 3 {
  return channels === 'grey' ? 1 : 3;
}

/**
 * A record for a network of so many channels: for one, grey takes the place of colour, with mean and deviation of the
 * three channels weighed as L weighs the pixels (ImageNet's become 0.459 and 0.2256).
 */
export function recordFor(record: Preprocessing, channels: number): Preprocessing {
  if (channels === inputChannels(record) || (channels !== 1 && channels !== 3)) return record;
  if (channels === 3) return { ...record, channels: 'grey-repeated' };
  return { ...record, channels: 'grey', mean: [greyOf(record.mean)], std: [greyOf(record.std)] };
}

/** One number as it is, or three by the weights of L. */
function greyOf(values: readonly number[]): number {
  if (values.length === 1) return values[0] as number;
  const sum = values.reduce((total, value, channel) => total + value * (L_WEIGHTS[channel] as number), 0);
  return Math.round((sum / 2 ** 16) * 1e4) / 1e4;
}

/** Of red, green and blue in Pillow's L, in parts of 2 ** 16. */
const L_WEIGHTS = [19595, 38470, 7471] as const;

/** No side of a model's input is longer. */
const MAX_SIDE = 16_384;
/**
 * Up to so many elements an operator runs here (well below a millisecond), beyond it as a job: a job may have to wait
 * for a forward.
 */
const INLINE_ELEMENTS = 2 ** 19;
/** The same for resizing bytes, of which a thread does four in a nanosecond. */
const INLINE_RESIZE_ELEMENTS = 2 ** 22;

/**
 * The pixels of a decoded image as 1 x 3 x height x width, channels-last. A photograph that is too large to be resized
 * here is copied in a job; its bytes are to be left alone until then.
 *
 * @throws (rejects) ERR_SENET_ABORTED
 */
export async function toPixels({ data, height, width }: DecodedImage, signal?: AbortSignal): Promise<Tensor> {
  const shape = [1, height, width, 3];
  const rows =
    data.length <= INLINE_RESIZE_ELEMENTS
      ? tensor(data, { shape })
      : await tensorOfBytes(data, shape, signal);
  const pixels = rows.permute([0, 3, 1, 2]);
  rows.dispose();
  return pixels;
}

/**
 * A whole record: what `given` says, and `base` for the rest.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, naming `where` and the field
 */
export function checkPreprocessing(given: unknown, base: Preprocessing, where: string): Preprocessing {
  const rules = {
    channels: orElse(base.channels, oneOf(CHANNELS, CHANNELS.join(' or '))),
    size: orElse(base.size, size),
    crop: orElse(base.crop, pair),
    pad: orElse(base.pad, integer(0, MAX_SIDE)),
    interpolation: orElse(base.interpolation, oneOf(INTERPOLATIONS, INTERPOLATIONS.join(' or '))),
    mean: orElse(base.mean, unchecked<readonly number[]>()),
    std: orElse(base.std, unchecked<readonly number[]>()),
  };
  const record = readOptions(given as Partial<Preprocessing> | undefined, rules, where);
  const values = record.channels === 'rgb' ? oneOrThree : one;
  const mean = values(record.mean, `${where}: mean`);
  const std = values(record.std, `${where}: std`);
  if (std.includes(0)) throw makeError('ERR_SENET_ARG_RANGE', `${where}: std: expected no zero`);
  return Object.freeze({ ...record, mean, std });
}

const INTERPOLATIONS: readonly Preprocessing['interpolation'][] = ['bilinear', 'bicubic'];

const pair: Rule<readonly [number, number] | null> = nullOr((given, what) => {
  if (!Array.isArray(given) || given.length !== 2)
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${what}: expected [height, width] or null, got ${describe(given)}`,
    );
  for (const side of given) checkInteger(side, what, 1, MAX_SIDE);
  return given as unknown as readonly [number, number];
});

const size: Rule<Preprocessing['size']> = (given, what) =>
  typeof given === 'number' ? checkInteger(given, what, 1, MAX_SIDE) : pair(given, what);

const numbers = (words: string, counts: readonly number[]): Rule<readonly number[]> =>
  matching(
    words,
    (given) => Array.isArray(given) && counts.includes(given.length) && given.every(Number.isFinite),
  );
const one = numbers('one number in an array', [1]);
const oneOrThree = numbers('one or three numbers', [1, 3]);

/**
 * The record of a classifier: what is given, over what the weights bring or is usual, for so many channels (0: unknown).
 *
 * @throws as `checkPreprocessing`; ERR_SENET_ARG_RANGE if the record would make another number of channels
 */
export function chooseRecord(
  given: Partial<Preprocessing> | undefined,
  base: Preprocessing,
  channels: number,
  where: string,
): Preprocessing {
  const kind = CHANNELS.find((name) => name === given?.channels);
  const wanted = kind === undefined ? channels : inputChannels({ channels: kind });
  if (channels === 0 || channels === wanted) return checkPreprocessing(given, recordFor(base, wanted), where);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: channels: '${kind}' makes ${wanted}, and the network takes ${channels}`,
  );
}

/**
 * Pixels to a model's input.
 *
 * @param pixels - uint8, N x C x H x W with one (grey) or three (RGB) channels
 * @returns float32, N x 3 x height x width, or with one channel for 'grey'
 * @param signal - ends it before the next step: a step that was begun holds its tensors until it is done
 * @throws (rejects) ERR_SENET_IMAGE_SIZE if the image would become too large; ERR_SENET_ABORTED
 */
export function preprocess(pixels: Tensor, record: Preprocessing, signal?: AbortSignal): Promise<Tensor> {
  return tidy(async () => {
    let x = pixels;
    if (record.channels !== 'rgb' && x.shape[1] === 3) x = await toGrey(x, signal);
    const [, , height, width] = x.shape as [number, number, number, number];
    const [newHeight, newWidth] = resizedSize(record.size, height, width);
    if (newHeight * newWidth > MAX_PIXELS) {
      throw makeError(
        'ERR_SENET_IMAGE_SIZE',
        `expected at most ${MAX_PIXELS} pixels after resizing; ${width} x ${height} would become ${newWidth} x ${newHeight}`,
      );
    }
    if (newHeight !== height || newWidth !== width)
      x = await resize(x, [newHeight, newWidth], record.interpolation);
    if (record.crop !== null) x = centreCrop(x, record.crop);
    if (record.pad > 0)
      x = await callUnlessAborted(
        signal,
        'aten::constant_pad_nd',
        x,
        new Array<number>(4).fill(record.pad),
        0,
      );
    x = await callUnlessAborted(signal, 'aten::to.dtype', x, 'float32');
    x = await callUnlessAborted(signal, 'aten::div.Scalar', x, 255);
    x = await callUnlessAborted(signal, 'aten::sub.Tensor', x, perChannel(record.mean));
    x = await callUnlessAborted(signal, 'aten::div.Tensor', x, perChannel(record.std));
    return x.expand([-1, inputChannels(record), -1, -1]);
  });
}

async function resize(
  x: Tensor,
  [newHeight, newWidth]: readonly [number, number],
  interpolation: Preprocessing['interpolation'],
): Promise<Tensor> {
  const [count, channels, height, width] = x.shape as [number, number, number, number];
  const elements = count * channels * Math.max(height * width, newHeight * newWidth);
  const name = `aten::_upsample_${interpolation}2d_aa`;
  const given = [x, [newHeight, newWidth], false, null, null];
  return (await callHereOrAsync({ elements, inline: INLINE_RESIZE_ELEMENTS }, name, ...given)) as Tensor;
}

/** Height and width after the resize step, as `torchvision.transforms.Resize` computes them. */
export function resizedSize(size: Preprocessing['size'], height: number, width: number): [number, number] {
  if (size === null) return [height, width];
  if (typeof size !== 'number') return [size[0], size[1]];
  const long = Math.trunc((size * Math.max(height, width)) / Math.min(height, width));
  return height <= width ? [size, long] : [long, size];
}

/** As `torchvision.transforms.CenterCrop`: pads first what is too small, then cuts. N x C x H x W, as a view if it can. */
function centreCrop(x: Tensor, [cropHeight, cropWidth]: readonly [number, number]): Tensor {
  const [, , height, width] = x.shape as [number, number, number, number];
  const missingHeight = Math.max(0, cropHeight - height);
  const missingWidth = Math.max(0, cropWidth - width);
  if (missingHeight > 0 || missingWidth > 0) {
    const before = (missing: number): number => Math.floor(missing / 2);
    const after = (missing: number): number => Math.floor((missing + 1) / 2);
    x = x.pad([before(missingWidth), after(missingWidth), before(missingHeight), after(missingHeight)]);
  }
  const top = roundHalfToEven((height + missingHeight - cropHeight) / 2);
  const left = roundHalfToEven((width + missingWidth - cropWidth) / 2);
  return x.slice(2, top, top + cropHeight).slice(3, left, left + cropWidth);
}

/** Python's `round`. */
export function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Elements of a piece: in int32 a few megabytes, whatever the size of the image. */
const GREY_PIECE = 1_000_000;

/**
 * Pillow's L: (19595 R + 38470 G + 7471 B + 2**15) >> 16, of uint8 N x 3 x H x W; grey pixels keep their values. In
 * bands of rows, since int32 takes four times the bytes.
 */
export async function toGrey(x: Tensor, signal: AbortSignal | undefined): Promise<Tensor> {
  const [count, , height, width] = x.shape as [number, number, number, number];
  const rows = Math.max(1, Math.floor(GREY_PIECE / Math.max(1, count * width)));
  if (rows >= height) return bandToGrey(x, signal);
  const grey = empty([count, 1, height, width], { dtype: 'uint8', device: x.device });
  for (let top = 0; top < height; top += rows) {
    const bottom = Math.min(height, top + rows);
    const band = await bandToGrey(x.slice(2, top, bottom), signal);
    await callUnlessAborted(signal, 'aten::copy_', grey.slice(2, top, bottom), band);
    band.dispose();
  }
  return grey;
}

async function bandToGrey(x: Tensor, signal: AbortSignal | undefined): Promise<Tensor> {
  const [red, green, blue] = L_WEIGHTS;
  return tidy(async () => {
    const channel = (index: number): Tensor => x.slice(1, index, index + 1);
    const grey = await callUnlessAborted(signal, 'aten::to.dtype', channel(0), 'int32');
    await callUnlessAborted(signal, 'aten::mul_.Scalar', grey, red);
    await callUnlessAborted(signal, 'aten::add_.Tensor', grey, channel(1), { alpha: green });
    await callUnlessAborted(signal, 'aten::add_.Tensor', grey, channel(2), { alpha: blue });
    await callUnlessAborted(signal, 'aten::add_.Scalar', grey, 2 ** 15);
    await callUnlessAborted(signal, 'aten::bitwise_right_shift_.Tensor_Scalar', grey, 16);
    return callUnlessAborted(signal, 'aten::to.dtype', grey, 'uint8');
  });
}

function perChannel(values: readonly number[]): Tensor {
  return tensor(Float32Array.from(values), { shape: [values.length, 1, 1] });
}

/** One operator, unless the signal has aborted: here if it is short, as a job if it is not. */
export async function callUnlessAborted(
  signal: AbortSignal | undefined,
  name: string,
  x: Tensor | Tensor[],
  ...args: unknown[]
): Promise<Tensor> {
  throwIfAborted(signal);
  const elements = Array.isArray(x) ? x.reduce((sum, one) => sum + one.numel, 0) : x.numel;
  return (await callHereOrAsync({ elements, inline: INLINE_ELEMENTS }, name, x, ...args)) as Tensor;
}
