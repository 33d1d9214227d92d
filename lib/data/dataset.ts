/**
 * What a data set is to the loader, and the kinds that need no file: pixels in memory, a part of another data set.
 * Knows no file format, no transform and no order.
 */
import { typedArrayKind } from '../brands';
import { makeError } from '../errors';
import { tensor } from '../tensor/factories';
import { checkInteger, describe } from '../tensor/options';
import { arrayOf, integer, names, type Rule } from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import { Random } from './random';

/** An image and what it shows. */
export interface Sample {
  /** channels x height x width; uint8, or floating in whatever range the network wants. */
  readonly image: Tensor;
  /** Number of the class. */
  readonly label: number;
}

/** Several samples in one piece. */
export interface SampleBatch {
  /** N x channels x height x width. */
  readonly images: Tensor;
  readonly labels: readonly number[];
}

export interface GetOptions {
  signal?: AbortSignal;
  /**
   * To be awaited before a sample of so many bytes is made, such as the pixels of a picture whose header was read: the
   * loader reads several samples at a time, and bounds what they take before they are transformed.
   */
  reserve?: (bytes: number) => Promise<void>;
}

/**
 * A collection of samples by index, as `torch.utils.data.Dataset`. Tensors that `get` makes belong to whoever asked:
 * the loader disposes them once they are in a batch, so a data set that keeps tensors makes them beforehand.
 */
export interface Dataset<T = Sample> {
  readonly length: number;
  /** The sample at an index from 0 to length - 1. */
  get(index: number, options?: GetOptions): Promise<T> | T;
  /** Several samples at once, where images are equal in size and that is faster than one by one. */
  getBatch?(indices: readonly number[], options?: GetOptions): Promise<SampleBatch> | SampleBatch;
  /** Names of the classes, where the data set knows them. */
  readonly classes?: readonly string[];
  /** The label of each sample, where the data set knows them without reading it. */
  readonly labels?: readonly number[] | undefined;
}

/** Images of one size in memory, as uint8. */
export class PixelDataset implements Dataset {
  readonly #pixels: Uint8Array;
  readonly #pixelsOfOne: number;
  /** The label of each image. */
  readonly labels: readonly number[];
  /** Of one image: channels x height x width. */
  readonly shape: readonly [channels: number, height: number, width: number];
  readonly classes: readonly string[];

  /**
   * @param pixels - count x channels x height x width, not copied
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE; ERR_SENET_SHAPE if the number of pixels or labels is another;
   *   ERR_SENET_LABELS if a label has no class
   */
  constructor(
    pixels: Uint8Array,
    labels: ArrayLike<number>,
    shape: readonly [channels: number, height: number, width: number],
    classes: readonly string[],
  ) {
    const where = 'PixelDataset';
    if (!['Uint8Array', 'Uint8ClampedArray'].includes(typedArrayKind(pixels) ?? ''))
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${where}: pixels: expected a Uint8Array, got ${describe(pixels)}`,
      );
    const sides = arrayOf('[channels, height, width]', integer(0))(shape, `${where}: shape`);
    if (sides.length !== 3)
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: shape: expected [channels, height, width], got ${describe(shape)}`,
      );
    if (!Number.isSafeInteger((labels as ArrayLike<number> | null)?.length) || typeof labels !== 'object')
      throw makeError('ERR_SENET_ARG_TYPE', `${where}: labels: expected an array, got ${describe(labels)}`);
    names(classes, `${where}: classes`);
    this.#pixels = pixels;
    this.#pixelsOfOne = shape[0] * shape[1] * shape[2];
    this.labels = Array.from(labels);
    this.shape = shape;
    this.classes = classes;
    if (pixels.length !== this.labels.length * this.#pixelsOfOne) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `PixelDataset: ${this.labels.length} images of ${shape.join(' x ')} have ` +
          `${this.labels.length * this.#pixelsOfOne} pixels, got ${pixels.length}`,
      );
    }
    const wrong = this.labels.findIndex(
      (label) => !Number.isInteger(label) || label < 0 || label >= classes.length,
    );
    if (wrong >= 0) {
      throw makeError(
        'ERR_SENET_LABELS',
        `image ${wrong} has the label ${describe(this.labels[wrong])}, and there are ${classes.length} classes`,
      );
    }
  }

  get length(): number {
    return this.labels.length;
  }

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  get(index: number): Sample {
    checkInteger(index, 'dataset index', 0, this.length - 1);
    const start = index * this.#pixelsOfOne;
    return {
      image: tensor(this.#pixels.subarray(start, start + this.#pixelsOfOne), { shape: this.shape }),
      label: this.labels[index] as number,
    };
  }

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  getBatch(indices: readonly number[]): SampleBatch {
    const size = this.#pixelsOfOne;
    const pixels = new Uint8Array(indices.length * size);
    const labels = indices.map((index, place) => {
      checkInteger(index, 'dataset index', 0, this.length - 1);
      pixels.set(this.#pixels.subarray(index * size, (index + 1) * size), place * size);
      return this.labels[index] as number;
    });
    return { images: tensor(pixels, { shape: [indices.length, ...this.shape] }), labels };
  }
}

/** How many samples a data set has. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export function samplesOf(dataset: unknown, what: string): number {
  if (typeof dataset !== 'object' || dataset === null)
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a data set, got ${describe(dataset)}`);
  return checkInteger((dataset as { length?: unknown }).length, `${what}: length`, 0);
}

/** What a data set gave for a sample. @throws ERR_SENET_ARG_TYPE */
export function checkSample(value: unknown, index: number): Sample {
  const { image } = (value ?? {}) as Partial<Sample>;
  if (Tensor.isTensor(image)) return value as Sample;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `sample ${index}: expected { image: Tensor, label: number }, got ${describe(value)}; give collate for other samples`,
  );
}

/** As an option. */
export const datasetRule: Rule<Dataset> = (given, what) => {
  samplesOf(given, what);
  return given as Dataset;
};

/** An array, with undefined where it has holes. */
function listOf(given: unknown, what: string): unknown[] {
  if (Array.isArray(given)) return Array.from(given as unknown[]);
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array, got ${describe(given)}`);
}

/** Some samples of a data set, in the order of `indices`, as `torch.utils.data.Subset`. */
export class Subset<T = Sample> implements Dataset<T> {
  readonly dataset: Dataset<T>;
  readonly indices: readonly number[];
  readonly getBatch?: (
    indices: readonly number[],
    options?: GetOptions,
  ) => Promise<SampleBatch> | SampleBatch;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (an index that the data set does not have) */
  constructor(dataset: Dataset<T>, indices: readonly number[]) {
    const samples = samplesOf(dataset, 'Subset: dataset');
    this.indices = listOf(indices, 'Subset: indices').map((index) =>
      checkInteger(index, 'Subset: index', 0, samples - 1),
    );
    this.dataset = dataset;
    const inner = dataset.getBatch?.bind(dataset);
    if (inner !== undefined) {
      this.getBatch = (places, options) =>
        inner(
          places.map((place) => this.#indexAt(place)),
          options,
        );
    }
  }

  get length(): number {
    return this.indices.length;
  }

  get classes(): readonly string[] {
    return this.dataset.classes ?? [];
  }

  get labels(): readonly number[] | undefined {
    const { labels } = this.dataset;
    return labels && this.indices.map((index) => labels[index] as number);
  }

  get(place: number, options?: GetOptions): Promise<T> | T {
    return this.dataset.get(this.#indexAt(place), options);
  }

  #indexAt(place: number): number {
    return this.indices[checkInteger(place, 'Subset: index', 0, this.length - 1)] as number;
  }
}

/**
 * Splits a data set at random into parts of the given lengths, as `torch.utils.data.random_split`.
 *
 * @param lengths - whole numbers that add up to the data set's length, or fractions that add up to 1
 * @param seed - the same seed gives the same split. Default 0
 * @throws ERR_SENET_ARG_RANGE, ERR_SENET_ARG_TYPE
 */
export function randomSplit<T>(dataset: Dataset<T>, lengths: readonly number[], seed = 0): Subset<T>[] {
  samplesOf(dataset, 'randomSplit: dataset');
  for (const length of listOf(lengths, 'randomSplit: lengths'))
    if (typeof length !== 'number')
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `randomSplit: length: expected a number, got ${describe(length)}`,
      );
  const sum = lengths.reduce((total, length) => total + length, 0);
  let sizes = [...lengths];
  if (lengths.every((length) => length >= 0 && length <= 1) && Math.abs(sum - 1) < 1e-9) {
    sizes = lengths.map((fraction) => Math.floor(fraction * dataset.length));
    // PyTorch's rule: what rounding left over goes to the parts in turn.
    const left = dataset.length - sizes.reduce((total, length) => total + length, 0);
    for (let place = 0; place < left; place++)
      sizes[place % sizes.length] = (sizes[place % sizes.length] ?? 0) + 1;
  } else {
    for (const length of lengths) checkInteger(length, 'randomSplit: length', 0);
    if (sum !== dataset.length) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `randomSplit: expected lengths that add up to ${dataset.length}, or fractions that add up to 1, got a sum of ${sum}`,
      );
    }
  }
  const order = new Random(seed).permutation(dataset.length);
  let start = 0;
  return sizes.map((size) => new Subset(dataset, order.slice(start, (start += size))));
}
