/**
 * Several data sets as one, as `torch.utils.data.ConcatDataset`; and, beyond it, with one numbering of the classes, which
 * each numbers for itself.
 */
import { makeError } from '../errors';
import { printable } from '../printable';
import { tensor } from '../tensor/factories';
import { checkInteger, describe } from '../tensor/options';
import { names, optional, readOptions } from '../tensor/rules';
import { Tensor } from '../tensor/tensor';
import {
  PixelDataset,
  Subset,
  type Dataset,
  type GetOptions,
  type Sample,
  type SampleBatch,
} from './dataset';

/** A sample's place: which data set, and where in it. */
type Place = readonly [part: number, index: number];

export interface ConcatDatasetOptions {
  /** The names of the classes in the order of the labels, all that there are. Default: in the order in which they are met. */
  classes?: readonly string[];
}

/**
 * The samples of all data sets, one data set after the other. Classes of the same name are one class: `classes` has each
 * name once, in the order in which they are met, and labels are numbers in it. Where no data set names its classes, labels
 * stay as they are.
 *
 * @example
 * const photos = new ConcatDataset([await ImageFolder.open('photos'), await ImageFolder.open('more-photos')]);
 */
export class ConcatDataset implements Dataset {
  readonly datasets: readonly Dataset[];
  readonly classes: readonly string[];
  readonly length: number;
  readonly labels: readonly number[] | undefined;
  readonly getBatch?: (indices: readonly number[], options?: GetOptions) => Promise<SampleBatch>;
  /** The index of the first sample of each, and of the one behind the last. */
  readonly #starts: readonly number[];
  /** Of each, the number of each of its labels here; none where labels stay as they are. */
  readonly #renumbered: readonly (readonly number[])[];

  /**
   * @throws ERR_SENET_ARG_TYPE for anything but an array of data sets; ERR_SENET_ARG_RANGE for none; ERR_SENET_UNKNOWN_OPTION;
   *   ERR_SENET_DATASET where some name their classes and others do not, or a name is none of `classes`; ERR_SENET_LABELS
   *   for a label without a class
   */
  constructor(datasets: readonly Dataset[], options?: ConcatDatasetOptions) {
    const { classes: wanted } = readOptions(options, { classes: optional(names) }, 'ConcatDataset');
    // Its holes too, which `every` passes over.
    const all: unknown[] = Array.isArray(datasets) ? Array.from<unknown>(datasets) : [null];
    if (!all.every(isDataset)) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `ConcatDataset: expected an array of data sets, got ${describe(datasets)}`,
      );
    }
    if (datasets.length === 0)
      throw makeError('ERR_SENET_ARG_RANGE', 'ConcatDataset: expected one data set at least, got none');
    const nameless = datasets.filter(({ classes = [] }) => classes.length === 0).length;
    if (nameless > 0 && nameless < datasets.length) {
      throw makeError(
        'ERR_SENET_DATASET',
        `ConcatDataset: ${nameless} of ${datasets.length} data sets do not name their classes: it cannot be said which of the others' they are`,
      );
    }
    this.datasets = [...datasets];
    const met = [...new Set(datasets.flatMap(({ classes = [] }) => classes))];
    const foreign = wanted && met.find((name) => !wanted.includes(name));
    if (foreign !== undefined) {
      throw makeError(
        'ERR_SENET_DATASET',
        `ConcatDataset: the class '${printable(foreign)}' is none of { classes }`,
      );
    }
    this.classes = Object.freeze([...(wanted ?? met)]);
    const numbers = new Map(this.classes.map((name, number) => [name, number]));
    this.#renumbered = datasets.map(({ classes = [] }) => classes.map((name) => numbers.get(name) as number));
    const starts = [0];
    for (const { length } of datasets) starts.push((starts.at(-1) as number) + length);
    this.#starts = starts;
    this.length = starts.at(-1) as number;
    this.labels = datasets.every(({ labels }) => labels !== undefined)
      ? datasets.flatMap(({ labels = [] }, part) => labels.map((label) => this.#labelOf(part, label)))
      : undefined;
    const [shape, ...others] = datasets.map(shapeOf);
    if (shape !== null && others.every((other) => other?.join() === shape?.join()))
      this.getBatch = (indices, options) => this.#getBatch(indices, options);
  }

  /** @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_LABELS, and what the data set throws */
  async get(index: number, options?: GetOptions): Promise<Sample> {
    const [part, place] = this.#find(index);
    const { image, label } = await (this.datasets[part] as Dataset).get(place, options);
    return { image, label: this.#labelOf(part, label) };
  }

  /** Where images have one size and are in memory: each data set once, its images put where they belong. */
  async #getBatch(indices: readonly number[], options?: GetOptions): Promise<SampleBatch> {
    const places = indices.map((index) => this.#find(index));
    const parts = [...new Set(places.map(([part]) => part))];
    const rows: number[] = []; // of the result, in the order of the parts
    const labels: number[] = [];
    const images: Tensor[] = [];
    try {
      for (const part of parts) {
        const own = [...places.keys()].filter((row) => (places[row] as Place)[0] === part);
        const wanted = own.map((row) => (places[row] as Place)[1]);
        const batch = await this.datasets[part]?.getBatch?.(wanted, options);
        images.push((batch as SampleBatch).images);
        for (const [at, row] of own.entries()) labels[row] = this.#labelOf(part, batch?.labels[at] as number);
        rows.push(...own);
      }
      if (images.length === 1) return { images: images.pop() as Tensor, labels };
      const order = new BigInt64Array(rows.length);
      for (const [at, row] of rows.entries()) order[row] = BigInt(at);
      const together = Tensor.cat(images);
      const index = tensor(order);
      try {
        return { images: together.indexSelect(0, index), labels };
      } finally {
        together.dispose();
        index.dispose();
      }
    } finally {
      for (const image of images) image.dispose();
    }
  }

  #labelOf(part: number, label: number): number {
    const numbers = this.#renumbered[part] as readonly number[];
    const number = numbers.length === 0 ? label : numbers[label];
    if (number !== undefined) return number;
    throw makeError(
      'ERR_SENET_LABELS',
      `ConcatDataset: data set ${part} has the label ${describe(label)}, and ${numbers.length} classes`,
    );
  }

  #find(index: number): Place {
    checkInteger(index, 'ConcatDataset: index', 0, this.length - 1);
    let [low, high] = [0, this.datasets.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((this.#starts[middle] as number) <= index) low = middle;
      else high = middle;
    }
    return [low, index - (this.#starts[low] as number)];
  }
}

function isDataset(value: unknown): value is Dataset {
  return typeof value === 'object' && value !== null && 'get' in value && 'length' in value;
}

/** Of the images of a data set that are in memory and of one size. */
function shapeOf(dataset: Dataset): readonly number[] | null {
  if (dataset instanceof PixelDataset) return dataset.shape;
  return dataset instanceof Subset ? shapeOf(dataset.dataset as Dataset) : null;
}
