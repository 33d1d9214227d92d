/**
 * The images of an inference request: from the protocol's one input tensor to what a classifier takes. Every number that
 * the request says of itself is held against what it brings before anything is made of it.
 */
import { makeError } from '../../errors';
import { checkShape, describe } from '../../tensor/options';
import { tensor } from '../../tensor/factories';
import type { Tensor } from '../../tensor/tensor';
import { fromBase64, tooMany } from '../request-images';
import { checkInputDatatype, elementBytes, type InputDatatype } from './datatypes';

/** An input as a request has it, with its bytes or its values. */
export interface RequestInput {
  readonly datatype: InputDatatype;
  readonly shape: readonly number[];
  /** As the binary extension and gRPC have it: elements in row-major order, little-endian; BYTES each behind its length. */
  readonly raw?: Buffer;
  /** As JSON has it, nested or not; encoded images as base64. */
  readonly data?: unknown;
}

/** What a classifier takes, and what is to be called when it has answered. */
export interface Images {
  readonly images: readonly (Uint8Array | Tensor)[];
  readonly dispose: () => void;
}

const LENGTH_BYTES = 4;

/**
 * @param given - the parts of an input, unchecked
 * @throws ERR_SENET_REQUEST, ERR_SENET_DTYPE, ERR_SENET_SHAPE, ERR_SENET_ARG_TYPE
 */
export function checkInput(given: { datatype: unknown; shape: unknown }, where: string): RequestInput {
  const datatype = checkInputDatatype(given.datatype, where);
  return { datatype, shape: checkShape(given.shape, where) };
}

/** @throws ERR_SENET_REQUEST, ERR_SENET_REQUEST_SIZE, ERR_SENET_SHAPE, ERR_SENET_DTYPE */
export function imagesOf(input: RequestInput, maxImages: number): Images {
  const { datatype, shape } = input;
  const [count = 0] = shape;
  if (shape.includes(0)) throw wrongShape(input, 'no zero');
  if (count > maxImages) throw tooMany(count, maxImages);
  if (datatype === 'BYTES') {
    if (shape.length > 2 || (shape[1] ?? 1) !== 1 || shape.length === 0)
      throw wrongShape(input, '[N] or [N, 1]');
    const images = input.raw === undefined ? fromStrings(input.data, count) : fromRawBytes(input.raw, count);
    return { images, dispose: () => undefined };
  }
  if (shape.length !== 4) throw wrongShape(input, 'images x channels x height x width');
  const elements = shape.reduce((product, size) => product * size, 1);
  const batch = datatype === 'FP32' ? floatBatch(input, elements) : pixelBatch(input, elements);
  const images = Array.from({ length: count }, (_, index) => batch.select(0, index));
  batch.dispose();
  return { images, dispose: () => images.forEach((image) => image.dispose()) };
}

function wrongShape({ shape, datatype }: RequestInput, expected: string): Error {
  return makeError(
    'ERR_SENET_SHAPE',
    `the input: shape: expected ${expected} of ${datatype}, got [${shape.join(', ')}]`,
  );
}

function floatBatch(input: RequestInput, elements: number): Tensor {
  const values = new Float32Array(checkedRoom(input, elements));
  // A copy: bytes of a request lie at any address.
  if (input.raw !== undefined) new Uint8Array(values.buffer).set(input.raw);
  else fill(values, input, (value) => typeof value === 'number');
  return tensor(values, { shape: input.shape });
}

/** Pixels in the order of the network, or as pictures are in memory: height x width x channels. */
function pixelBatch(input: RequestInput, elements: number): Tensor {
  const { shape, raw } = input;
  const pictures = !isChannels(shape[1]) && isChannels(shape[3]);
  if (!pictures && !isChannels(shape[1]))
    throw wrongShape(input, 'images x channels x height x width (or channels last) with 1 or 3 channels');
  const values = raw === undefined ? new Uint8Array(checkedRoom(input, elements)) : undefined;
  if (values !== undefined)
    fill(
      values,
      input,
      (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 255,
    );
  else checkedRoom(input, elements);
  const pixels = tensor(values ?? (raw as Buffer), { shape, dtype: 'uint8' });
  if (!pictures) return pixels;
  const turned = pixels.permute([0, 3, 1, 2]);
  pixels.dispose();
  return turned;
}

function isChannels(size: number | undefined): boolean {
  return size === 1 || size === 3;
}

/** So many elements, which what has come is enough for: nothing is made for a promise. */
function checkedRoom({ raw, data, shape, datatype }: RequestInput, elements: number): number {
  if (raw === undefined) {
    if (!Array.isArray(data))
      throw makeError('ERR_SENET_REQUEST', `the input: data: expected an array, got ${describe(data)}`);
    const counted = countLeaves(data, shape.length);
    if (counted !== elements) throw wrongCount(counted, elements, shape);
    return elements;
  }
  const bytes = elements * elementBytes(datatype);
  if (raw.length === bytes) return elements;
  throw makeError(
    'ERR_SENET_REQUEST',
    `the input: expected ${bytes} bytes for [${shape.join(', ')}] of ${datatype}, got ${raw.length}`,
  );
}

function wrongCount(counted: number, elements: number, shape: readonly number[]): Error {
  return makeError(
    'ERR_SENET_REQUEST',
    `the input: data: expected ${elements} elements for the shape [${shape.join(', ')}], got ${counted}`,
  );
}

function countLeaves(data: readonly unknown[], levels: number): number {
  let count = 0;
  for (const value of data)
    count += Array.isArray(value) && levels > 1 ? countLeaves(value as unknown[], levels - 1) : 1;
  return count;
}

function fill(
  values: Float32Array | Uint8Array,
  { data, shape, datatype }: RequestInput,
  fits: (value: unknown) => boolean,
): void {
  let place = 0;
  const take = (given: readonly unknown[], levels: number): void => {
    for (const value of given) {
      if (Array.isArray(value) && levels > 1) take(value as unknown[], levels - 1);
      else if (fits(value)) values[place++] = value as number;
      else {
        throw makeError(
          'ERR_SENET_REQUEST',
          `the input: data: expected numbers of ${datatype}, got ${describe(value)}`,
        );
      }
    }
  };
  take(data as unknown[], shape.length);
}

function fromStrings(data: unknown, count: number): Uint8Array[] {
  const images = Array.isArray(data) ? (data as unknown[]).flat() : [];
  if (images.length !== count) throw wrongCount(images.length, count, [count]);
  return images.map((image, index) => {
    const text = typeof image === 'string' ? image : (image as { b64?: unknown } | null)?.b64;
    if (typeof text === 'string') return fromBase64(text, `the input: data[${index}]`);
    throw makeError(
      'ERR_SENET_REQUEST',
      `the input: data[${index}]: expected an encoded image as base64, got ${describe(image)}`,
    );
  });
}

/** Each element behind its length, an unsigned integer of four bytes. */
function fromRawBytes(raw: Buffer, count: number): Uint8Array[] {
  const images: Uint8Array[] = [];
  let place = 0;
  while (place < raw.length && images.length < count) {
    const length = raw.length - place < LENGTH_BYTES ? Infinity : raw.readUInt32LE(place);
    place += LENGTH_BYTES;
    if (length > raw.length - place) {
      throw makeError(
        'ERR_SENET_REQUEST',
        `the input: element ${images.length} of BYTES says that it is longer than what has come`,
      );
    }
    images.push(raw.subarray(place, place + length));
    place += length;
  }
  if (images.length === count && place === raw.length) return images;
  throw makeError(
    'ERR_SENET_REQUEST',
    `the input: expected ${count} elements of BYTES in ${raw.length} bytes, found ${images.length}, which end at ${place}`,
  );
}
