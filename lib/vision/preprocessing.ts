/**
 * The execution by LibTorch of the record that says how pixels become a model's input. The record travels with the
 * weights, as JSON in a safetensors file's metadata. Steps, in this order: grey, resize, centre crop, pad, / 255, - mean, / std,
 * repeated to three channels. Sizes and crop offsets round as torchvision's (`Resize`, `CenterCrop`), and pixels are those of
 * torchvision's and timm's transforms of Pillow's images, to the bit. Which record that is, `preprocessing-options` says.
 * Knows no file format and no model.
 */
import { makeError } from '../errors';
import type { Preprocessing } from '../models/preprocessing-record';
import { empty, tensor, tensorOfBytes } from '../tensor/factories';
import { throwIfAborted } from '../tensor/abort';
import { callHereOrAsync } from '../tensor/ops';
import { detached, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { MAX_PIXELS } from './decode';
import type { DecodedImage } from './encoded-image';
import { recordChannels, L_WEIGHTS } from './preprocessing-options';
import { INLINE_RESIZE_ELEMENTS, resize, type Box } from './resize';

/**
 * Up to so many elements an operator runs here (well below a millisecond), beyond it as a job: a job may have to wait
 * for a forward.
 */
export const INLINE_ELEMENTS = 2 ** 19;

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
 * Pixels to a model's input.
 *
 * @param pixels - uint8, N x C x H x W with one (grey) or three (RGB) channels
 * @returns float32, N x 3 x height x width, or with one channel for 'grey'
 * @param signal - ends it before the next step: a step that was begun holds its tensors until it is done
 * @throws (rejects) ERR_SENET_IMAGE_SIZE if the image would become too large; ERR_SENET_ABORTED
 */
export function preprocess(pixels: Tensor, record: Preprocessing, signal?: AbortSignal): Promise<Tensor> {
  return tidy(async () => {
    const { x } = await shape(pixels, record, signal);
    return (await normalise(x, record, signal)).expand([-1, recordChannels(record), -1, -1]);
  });
}

/**
 * The part of `preprocess` that ends with pixels: grey, resized, cropped and padded. Who computes the rest, such as a device,
 * repeats a single channel.
 *
 * @returns uint8, N x C x height x width; it may be on the memory of `pixels`, but keeps no larger image alive
 * @throws (rejects) as `preprocess`
 */
export function shapePixels(pixels: Tensor, record: Preprocessing, signal?: AbortSignal): Promise<Tensor> {
  return tidy(async () => {
    const { x, isPart } = await shape(pixels, record, signal);
    return isPart ? callUnlessAborted(signal, 'aten::clone', x) : x;
  });
}

/** `isPart`: what was cut out and not resized is a view of the whole. */
function shape(
  pixels: Tensor,
  record: Preprocessing,
  signal: AbortSignal | undefined,
): Promise<{ x: Tensor; isPart: boolean }> {
  return tidy(async () => {
    let x = pixels;
    if (record.channels !== 'rgb' && x.shape[1] === 3) x = await toGrey(x, signal);
    const [, , height, width] = x.shape as [number, number, number, number];
    const { size, box, padding } = placementOf(record, height, width);
    checkResizedSize(size, height, width);
    x = await resize(x, { size, interpolation: record.interpolation, window: box }, signal);
    if (padding !== null) x = x.pad(padding);
    if (record.pad > 0)
      x = await callUnlessAborted(
        signal,
        'aten::constant_pad_nd',
        x,
        new Array<number>(4).fill(record.pad),
        0,
      );
    const isPart = size[0] === height && size[1] === width && box.height * box.width < height * width;
    return { x, isPart };
  });
}

async function normalise(pixels: Tensor, record: Preprocessing, signal?: AbortSignal): Promise<Tensor> {
  let x = await callUnlessAborted(signal, 'aten::to.dtype', pixels, 'float32');
  x = await callUnlessAborted(signal, 'aten::div.Scalar', x, 255);
  x = await callUnlessAborted(signal, 'aten::sub.Tensor', x, perChannel(record.mean));
  return callUnlessAborted(signal, 'aten::div.Tensor', x, perChannel(record.std));
}

const tables = new WeakMap<Preprocessing, Promise<Float32Array>>();

/** What normalising makes of the 256 values of each channel that is resized: 3 x 256 for 'rgb', else 256. */
export function normalisationTable(record: Preprocessing): Promise<Float32Array> {
  let table = tables.get(record);
  if (table === undefined) {
    table = detached(null, () =>
      tidy(async () => {
        const values = tensor(
          Uint8Array.from({ length: 256 }, (_, value) => value),
          { shape: [1, 1, 1, 256] },
        );
        const pixels = values.expand([-1, record.channels === 'rgb' ? 3 : 1, -1, -1]);
        return (await normalise(pixels, record)).contiguous().toTypedArray() as Float32Array;
      }),
    );
    tables.set(record, table);
  }
  return table;
}

/** The size that an image is resized to, the part of that which is kept, and the zeros around it as `centreOf` gives them. */
export function placementOf(
  record: Preprocessing,
  height: number,
  width: number,
): { size: readonly [height: number, width: number]; box: Box; padding: number[] | null } {
  const size = resizedSize(record.size, height, width);
  return { size, ...centreOf(size, record.crop ?? size) };
}

/** Height and width after the resize step, as `torchvision.transforms.Resize` computes them. */
export function resizedSize(size: Preprocessing['size'], height: number, width: number): [number, number] {
  if (size === null) return [height, width];
  if (typeof size !== 'number') return [size[0], size[1]];
  const long = Math.trunc((size * Math.max(height, width)) / Math.min(height, width));
  return height <= width ? [size, long] : [long, size];
}

/** @throws ERR_SENET_IMAGE_SIZE for what a few pixels in a row become whose short side is made long */
export function checkResizedSize(size: readonly [number, number], height: number, width: number): void {
  if (size[0] * size[1] <= MAX_PIXELS) return;
  throw makeError(
    'ERR_SENET_IMAGE_SIZE',
    `expected at most ${MAX_PIXELS} pixels after resizing; ${width} x ${height} would become ${size[1]} x ${size[0]}`,
  );
}

/** What `torchvision.transforms.CenterCrop` keeps of an image, and the zeros around it (left, right, top, bottom) if it is too small. */
export function centreOf(
  [height, width]: readonly [number, number],
  [cropHeight, cropWidth]: readonly [number, number],
): { box: Box; padding: number[] | null } {
  const rows = centreOfSide(height, cropHeight);
  const columns = centreOfSide(width, cropWidth);
  const box = { top: rows.start, left: columns.start, height: rows.length, width: columns.length };
  const padding = [...columns.padding, ...rows.padding];
  return { box, padding: padding.every((zeros) => zeros === 0) ? null : padding };
}

function centreOfSide(
  side: number,
  crop: number,
): { start: number; length: number; padding: [before: number, after: number] } {
  const missing = crop - side;
  if (missing <= 0) return { start: roundHalfToEven(-missing / 2), length: crop, padding: [0, 0] };
  return { start: 0, length: side, padding: [Math.floor(missing / 2), Math.floor((missing + 1) / 2)] };
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
async function callUnlessAborted(
  signal: AbortSignal | undefined,
  name: string,
  x: Tensor,
  ...args: unknown[]
): Promise<Tensor> {
  throwIfAborted(signal);
  return (await callHereOrAsync({ elements: x.numel, inline: INLINE_ELEMENTS }, name, x, ...args)) as Tensor;
}
