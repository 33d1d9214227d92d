/**
 * The IDX format of MNIST and its relatives: a magic number with element type and rank, the sizes, the elements, all
 * big-endian; gzip-compressed or not (http://yann.lecun.com/exdb/mnist/). Needs no native build.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';

import { printable } from '../checkpoint/problems';
import { isUint8Array } from '../brands';
import { makeError } from '../errors';
import { checkString } from '../tensor/options';

const decompress = promisify(gunzip);

/** Length of the file, and of its contents when unpacked, at most. */
const MAX_BYTES = 1024 ** 3;
const MAX_RANK = 8;

export type IdxElements = Uint8Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

/** An array of an IDX file, in row-major order. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly data: IdxElements;
}

/** Magic number's third byte -> how to read. */
const ELEMENTS: Readonly<Record<number, { bytes: number; make: (buffer: ArrayBuffer) => IdxElements }>> = {
  0x08: { bytes: 1, make: (buffer) => new Uint8Array(buffer) },
  0x09: { bytes: 1, make: (buffer) => new Int8Array(buffer) },
  0x0b: { bytes: 2, make: (buffer) => new Int16Array(buffer) },
  0x0c: { bytes: 4, make: (buffer) => new Int32Array(buffer) },
  0x0d: { bytes: 4, make: (buffer) => new Float32Array(buffer) },
  0x0e: { bytes: 8, make: (buffer) => new Float64Array(buffer) },
};

/**
 * Reads an IDX file, gzip-compressed or not.
 *
 * @throws (rejects) ERR_SENET_DATA_FORMAT (no IDX file, truncated, too long), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
 */
export async function readIdx(file: string): Promise<IdxArray> {
  const label = printable(checkString(file, 'readIdx: file'), 1000);
  let bytes = await readDataFile(file, label);
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
    try {
      bytes = await decompress(bytes, { maxOutputLength: MAX_BYTES });
    } catch (cause) {
      throw formatError(label, `damaged or truncated gzip data (${(cause as Error).message})`, cause);
    }
  }
  return parseIdx(bytes, label);
}

function parseIdx(bytes: Buffer, label: string): IdxArray {
  const element = ELEMENTS[bytes[2] ?? 0];
  const rank = bytes[3] ?? 0;
  if (
    bytes.length < 4 ||
    bytes[0] !== 0 ||
    bytes[1] !== 0 ||
    element === undefined ||
    rank < 1 ||
    rank > MAX_RANK
  ) {
    const magic = bytes.subarray(0, 4).toString('hex');
    throw formatError(
      label,
      `expected an IDX file (magic number 0000 08 03 or the like), it begins with '${magic}'`,
    );
  }
  const start = 4 + 4 * rank;
  if (bytes.length < start)
    throw formatError(label, `truncated: the header has ${start} bytes, the file ${bytes.length}`);
  const shape = Array.from({ length: rank }, (_, axis) => bytes.readUInt32BE(4 + 4 * axis));
  const expected = shape.reduce((product, size) => product * size, element.bytes);
  if (bytes.length - start !== expected) {
    const problem = bytes.length - start < expected ? 'truncated' : 'too long';
    throw formatError(
      label,
      `${problem}: ${shape.join(' x ')} needs ${expected} bytes of data, found ${bytes.length - start}`,
    );
  }
  // A copy of its own memory: aligned to its elements, and swapped in place.
  const data = Buffer.from(new Uint8Array(bytes.subarray(start)).buffer);
  if (element.bytes === 2) data.swap16();
  if (element.bytes === 4) data.swap32();
  if (element.bytes === 8) data.swap64();
  return { shape, data: element.make(data.buffer) };
}

/** Images with their labels. */
export interface LabelledImages {
  /** count x height x width pixels. */
  readonly images: Uint8Array;
  readonly labels: Uint8Array;
  readonly count: number;
  readonly height: number;
  readonly width: number;
}

/**
 * Reads images and labels that belong together.
 *
 * @throws (rejects) as `readIdx`, and ERR_SENET_DATA_FORMAT if a file holds something else or the counts differ
 */
export async function readIdxDataset(imagesFile: string, labelsFile: string): Promise<LabelledImages> {
  const [images, labels] = await Promise.all([readIdx(imagesFile), readIdx(labelsFile)]);
  const [count = 0, height = 0, width = 0] = images.shape;
  if (images.shape.length !== 3 || !isUint8Array(images.data) || height < 1 || width < 1) {
    throw formatError(
      printable(imagesFile),
      `expected images (bytes, count x height x width), found ${images.shape.join(' x ')}`,
    );
  }
  if (labels.shape.length !== 1 || !isUint8Array(labels.data)) {
    throw formatError(
      printable(labelsFile),
      `expected labels (bytes, one for each image), found ${labels.shape.join(' x ')}`,
    );
  }
  if (labels.data.length !== count) {
    throw formatError(
      printable(labelsFile),
      `expected ${count} labels, as many as there are images, found ${labels.data.length}`,
    );
  }
  return { images: images.data, labels: labels.data, count, height, width };
}

/**
 * The images and labels files in a folder: those of the test set (`t10k-`, `test-`) if there are several, or of the
 * training set (`train-`).
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
 */
export async function findIdxFiles(
  folder: string,
  part: 'test' | 'train' = 'test',
): Promise<{ images: string; labels: string }> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (cause) {
    throw fileError(printable(folder), cause);
  }
  const candidates = names.filter((name) => /images.*idx3/.test(name));
  const ofTest = (name: string): boolean => /^(t10k|test)/.test(name);
  const images =
    part === 'test'
      ? (candidates.find(ofTest) ?? candidates[0])
      : (candidates.find((name) => name.startsWith('train')) ?? candidates.find((name) => !ofTest(name)));
  const labels = images?.replace('images', 'labels').replace('idx3', 'idx1');
  const found = names.find((name) => name.replace(/\.gz$/, '') === labels?.replace(/\.gz$/, ''));
  if (images === undefined || found === undefined) {
    const example = part === 'test' ? 't10k' : 'train';
    throw makeError(
      'ERR_SENET_FILE_NOT_FOUND',
      `${printable(folder)}: expected IDX files such as ${example}-images-idx3-ubyte.gz and ${example}-labels-idx1-ubyte.gz`,
    );
  }
  return { images: path.join(folder, images), labels: path.join(folder, found) };
}

async function readDataFile(file: string, label: string): Promise<Buffer> {
  try {
    const stats = await stat(file);
    if (!stats.isFile()) {
      throw makeError(
        'ERR_SENET_FILE',
        `${label}: expected an IDX file, found ${stats.isDirectory() ? 'a folder' : 'no regular file'}`,
      );
    }
    if (stats.size > MAX_BYTES)
      throw formatError(label, `expected at most ${MAX_BYTES} bytes, found ${stats.size}`);
    return await readFile(file);
  } catch (cause) {
    throw fileError(label, cause);
  }
}

function fileError(label: string, cause: unknown): unknown {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code?.startsWith('ERR_SENET_') === true) return cause;
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such file or folder`, { cause });
  return makeError('ERR_SENET_FILE', `${label}: ${message}`, { cause });
}

function formatError(label: string, message: string, cause?: unknown): Error {
  return makeError('ERR_SENET_DATA_FORMAT', `${label}: ${message}`, cause === undefined ? {} : { cause });
}
