/**
 * The IDX format of MNIST and its relatives: a magic number with element type and rank, the sizes, the elements, all
 * big-endian; gzip-compressed or not (http://yann.lecun.com/exdb/mnist/). Needs no native build.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

import { isUint8Array } from '../brands';
import { checkRegular, fileError, makeError } from '../errors';
import { printable } from '../printable';
import { checkString } from '../tensor/options';
import { beginsAsGzip, MAX_EXPANSION, readPieces } from './gzip';
import { splitOf, type Split } from './splits';

const MISSING = 'no such file or folder';
/** Of an array's data, at most. */
const MAX_BYTES = 1024 ** 3;
const MAX_RANK = 8;

export type IdxElements = Uint8Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

/** An array of an IDX file, in row-major order. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly data: IdxElements;
}

interface Element {
  readonly bytes: number;
  readonly make: (buffer: ArrayBuffer) => IdxElements;
}

const BYTES = 0x08;
const INTEGERS = 0x0c;
/** Magic number's third byte -> how to read. */
const ELEMENTS: Readonly<Record<number, Element>> = {
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
 * @param checkShape - throws for an array that is not wanted, before there is room for it
 * @throws (rejects) ERR_SENET_DATA_FORMAT (no IDX file, truncated, too long), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
 */
export async function readIdx(
  file: string,
  checkShape: (shape: readonly number[], type: number) => void = () => undefined,
): Promise<IdxArray> {
  const label = printable(checkString(file, 'readIdx: file'), 1000);
  const size = await checkDataFile(file, label);
  const packed = await isGzip(file, label);
  const array = new ArrayReader(label, size, packed, checkShape);
  try {
    await readPieces(file, packed, (piece) => array.take(piece));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code?.startsWith('Z_') === true)
      throw formatError(label, `damaged or truncated gzip data (${message})`, cause);
    throw fileError(label, cause, MISSING);
  }
  return array.finish();
}

/** Takes the bytes of a file as they come; never more than its header says, nor than the file can hold. */
class ArrayReader {
  #header = Buffer.alloc(0);
  #shape: number[] | undefined;
  #element = ELEMENTS[0x08] as Element;
  #data = new Uint8Array();
  #length = 0;

  constructor(
    readonly label: string,
    readonly fileSize: number,
    readonly packed: boolean,
    readonly checkShape: (shape: readonly number[], type: number) => void,
  ) {}

  take(piece: Buffer): void {
    const rest = this.#shape === undefined ? this.#readHeader(piece) : piece;
    if (this.#shape === undefined) return;
    if (this.#length + rest.length > this.#data.length)
      throw this.#wrongLength('too long', this.#shape, `${this.#length + rest.length} or more`);
    this.#data.set(rest, this.#length);
    this.#length += rest.length;
  }

  finish(): IdxArray {
    const shape = this.#shape;
    if (shape === undefined) throw this.#noHeader();
    if (this.#length < this.#data.length) throw this.#wrongLength('truncated', shape, String(this.#length));
    const { bytes, make } = this.#element;
    // Memory of its own: aligned to its elements, and swapped in place.
    const data = Buffer.from(this.#data.buffer);
    if (bytes === 2) data.swap16();
    if (bytes === 4) data.swap32();
    if (bytes === 8) data.swap64();
    return { shape, data: make(data.buffer) };
  }

  /** What of a chunk comes after the header. */
  #readHeader(chunk: Buffer): Buffer {
    this.#header = Buffer.concat([this.#header, chunk]);
    const header = this.#header;
    if (header.length < 4) return Buffer.alloc(0);
    const [type, rank] = [header[2] ?? 0, header[3] ?? 0];
    const element = ELEMENTS[type];
    if (header[0] !== 0 || header[1] !== 0 || element === undefined || rank < 1 || rank > MAX_RANK)
      throw this.#noHeader();
    const start = 4 + 4 * rank;
    if (header.length < start) return Buffer.alloc(0);
    const shape = Array.from({ length: rank }, (_, axis) => header.readUInt32BE(4 + 4 * axis));
    this.checkShape(shape, type);
    const expected = shape.reduce((product, size) => product * size, element.bytes);
    const most = this.packed ? this.fileSize * MAX_EXPANSION : this.fileSize - start;
    if (expected > most)
      throw this.#wrongLength('truncated', shape, this.packed ? `at most ${most}` : String(most), expected);
    if (expected > MAX_BYTES)
      throw formatError(
        this.label,
        `${shape.join(' x ')} is too large: ${MAX_BYTES} bytes of data at most are read`,
      );
    this.#shape = shape;
    this.#element = element;
    this.#data = new Uint8Array(expected);
    return header.subarray(start);
  }

  #wrongLength(
    problem: string,
    shape: readonly number[],
    found: string,
    expected = this.#data.length,
  ): Error {
    return formatError(
      this.label,
      `${problem}: ${shape.join(' x ')} needs ${expected} bytes of data, found ${found}`,
    );
  }

  #noHeader(): Error {
    const magic = this.#header.subarray(0, 4).toString('hex');
    const rank = this.#header[3] ?? 0;
    if (
      this.#header.length >= 4 &&
      magic.startsWith('0000') &&
      ELEMENTS[this.#header[2] ?? 0] &&
      rank >= 1 &&
      rank <= MAX_RANK
    )
      return formatError(
        this.label,
        `truncated: the header has ${4 + 4 * rank} bytes, the file ${this.#header.length}`,
      );
    return formatError(
      this.label,
      `expected an IDX file (magic number 0000 08 03 or the like), it begins with '${magic}'`,
    );
  }
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
  const images = await readIdx(imagesFile, (shape, type) => {
    if (shape.length === 3 && type === BYTES && shape.slice(1).every((side) => side > 0)) return;
    throw formatError(
      printable(imagesFile),
      `expected images (bytes, count x height x width), found ${shape.join(' x ')}`,
    );
  });
  const [count = 0, height = 0, width = 0] = images.shape;
  const labels = await readIdx(labelsFile, (shape, type) => {
    // QMNIST has eight numbers for each image, the class first.
    const fits =
      (shape.length === 1 && type === BYTES) || (shape.length === 2 && shape[1] === 8 && type === INTEGERS);
    if (!fits) {
      throw formatError(
        printable(labelsFile),
        `expected labels (bytes, one for each image), found ${shape.join(' x ')}`,
      );
    }
    if (shape[0] === count) return;
    throw formatError(
      printable(labelsFile),
      `expected ${count} labels, as many as there are images, found ${shape[0]}`,
    );
  });
  return { images: images.data as Uint8Array, labels: toClasses(labels, labelsFile), count, height, width };
}

function toClasses({ data, shape }: IdxArray, file: string): Uint8Array {
  if (isUint8Array(data)) return data;
  const columns = shape[1] ?? 1;
  return Uint8Array.from({ length: shape[0] ?? 0 }, (_, row) => {
    const label = data[row * columns] ?? -1;
    if (label >= 0 && label <= 255) return label;
    throw formatError(printable(file), `image ${row} has the label ${label}: expected 0 to 255`);
  });
}

/** A file of images and the file of its labels. */
export interface IdxFiles {
  readonly images: string;
  readonly labels: string;
}

/** The files of one data set in a folder, by what their names say. `whole`: names that say nothing. */
export type IdxSplits = Readonly<Record<Split | 'whole', IdxFiles | null>>;

/** `train-images-idx3-ubyte.gz`, `emnist-letters-test-labels-idx1-ubyte`, `k49-train-imgs.idx`: what a name says. */
function readName(
  name: string,
): { kind: 'images' | 'labels'; split: Split | 'whole'; set: string } | undefined {
  const plain = name.replace(/\.gz$/i, '');
  const kind = /labels?|lbls?/i.test(plain) ? 'labels' : /images?|imgs?/i.test(plain) ? 'images' : undefined;
  if (kind === undefined || !/idx|ubyte/i.test(plain)) return undefined;
  const { split = 'whole', rest } = splitOf(plain.replace(/idx\d*/i, ' '));
  return { kind, split, set: rest.filter((word) => !FORMAT_WORDS.test(word)).join('-') };
}

const FORMAT_WORDS = /^(images?|imgs?|labels?|lbls?|ubyte|byte|int)$/;

/** Whether a name is that of an IDX file of images. */
export function isIdxName(name: string): boolean {
  return readName(name)?.kind === 'images';
}

/**
 * What the IDX files of a folder are.
 *
 * @param set - of several data sets in a folder the one whose name has these words: 'letters' of EMNIST's
 * @throws (rejects) ERR_SENET_DATASET (several data sets, or several files for one part of it), ERR_SENET_FILE_NOT_FOUND,
 *   ERR_SENET_FILE
 */
export async function findIdxSplits(folder: string, set?: string): Promise<IdxSplits> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (cause) {
    throw fileError(printable(folder, 1000), cause, MISSING);
  }
  const place = printable(folder, 1000);
  const files = names.flatMap((name) => {
    // Unpacked and still packed it is the same.
    const twice = /\.gz$/i.test(name) && names.includes(name.slice(0, -3));
    const said = twice ? undefined : readName(name);
    return said === undefined ? [] : [{ name, ...said }];
  });
  const isWanted = wantedSet(set, [...new Set(files.map((file) => file.set))], place);
  const images = files.filter((file) => file.kind === 'images' && isWanted(file.set));
  const sets = [...new Set(images.map((file) => file.set).filter(Boolean))];
  if (sets.length > 1) {
    throw makeError(
      'ERR_SENET_DATASET',
      `${place}: found several data sets: ${sets.slice(0, 10).join(', ')}; say which (option set, --set ${sets[0]})`,
    );
  }
  const result: Record<Split | 'whole', IdxFiles | null> = {
    train: null,
    validation: null,
    test: null,
    whole: null,
  };
  for (const { name, split, set: own } of images) {
    const labels = files.filter((file) => file.kind === 'labels' && file.split === split && file.set === own);
    const [first] = labels;
    if (first === undefined) continue;
    if (result[split] !== null || labels.length > 1) {
      const several = [...images, ...labels]
        .filter((file) => file.split === split)
        .map((file) => printable(file.name));
      throw makeError(
        'ERR_SENET_DATASET',
        `${place}: several files may be for ${split === 'train' ? 'training' : split}: ${several.slice(0, 6).join(', ')}; give the paths of images and labels`,
      );
    }
    result[split] = { images: path.join(folder, name), labels: path.join(folder, first.name) };
  }
  return result;
}

/** Whether a data set's name is the one asked for: that name itself, or all of its words. */
function wantedSet(
  set: string | undefined,
  sets: readonly string[],
  place: string,
): (name: string) => boolean {
  if (set === undefined) return () => true;
  const words = splitOf(set).rest;
  const exact = words.join('-');
  if (sets.includes(exact)) return (name) => name === exact;
  const isWanted = (name: string): boolean => words.every((word) => name.split('-').includes(word));
  if (words.length > 0 && sets.some(isWanted)) return isWanted;
  throw makeError(
    'ERR_SENET_DATASET',
    `${place}: no data set '${printable(set)}' (found ${sets.filter(Boolean).join(', ') || 'none with a name'})`,
  );
}

/**
 * The images and labels files of a folder for training or for test; files whose names say neither serve for both.
 *
 * @param set - as of `findIdxSplits`
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_DATASET, ERR_SENET_FILE
 */
export async function findIdxFiles(
  folder: string,
  part: 'test' | 'train' = 'test',
  set?: string,
): Promise<IdxFiles> {
  const splits = await findIdxSplits(folder, set);
  const files = splits[part] ?? splits.whole;
  if (files !== null) return files;
  const example = part === 'test' ? 't10k' : 'train';
  const found = Object.values(splits).flatMap((other) =>
    other === null ? [] : [path.basename(other.images)],
  );
  throw makeError(
    'ERR_SENET_FILE_NOT_FOUND',
    `${printable(folder, 1000)}: expected IDX files such as ${example}-images-idx3-ubyte.gz and ${example}-labels-idx1-ubyte.gz` +
      (found.length === 0 ? '' : `, found only ${found.map((name) => printable(name)).join(', ')}`),
  );
}

/** Its size. */
async function checkDataFile(file: string, label: string): Promise<number> {
  try {
    const stats = await stat(file);
    checkRegular(stats, label, 'an IDX file');
    return stats.size;
  } catch (cause) {
    throw fileError(label, cause, MISSING);
  }
}

async function isGzip(file: string, label: string): Promise<boolean> {
  try {
    return await beginsAsGzip(file);
  } catch (cause) {
    throw fileError(label, cause, MISSING);
  }
}

function formatError(label: string, message: string, cause?: unknown): Error {
  return makeError('ERR_SENET_DATA_FORMAT', `${label}: ${message}`, cause === undefined ? {} : { cause });
}
