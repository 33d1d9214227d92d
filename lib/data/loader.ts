/**
 * `DataLoader`: a data set in batches, shuffled and transformed, the next ones made ready while the network works on
 * one. What a batch holds depends on (seed, epoch, index) alone, never on timing, and a saved state goes on where it
 * was. Knows no file format and no training.
 */
import { setImmediate } from 'node:timers/promises';

import { isMap } from '../brands';
import { isSenetError, makeError, type ErrorCode } from '../errors';
import { cuda } from '../tensor/cuda';
import { tensor } from '../tensor/factories';
import { abortError } from '../tensor/abort';
import { ops } from '../tensor/ops';
import { checkInteger, describe } from '../tensor/options';
import {
  boolean,
  fn,
  integer,
  matching,
  nullOr,
  orElse,
  readOptions,
  signal,
  type Rule,
} from '../tensor/rules';
import { detached, tidy, type Disposable } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { ByteBudget, PIXEL_BYTES } from '../vision/byte-budget';
import { Turns } from '../vision/turns';
import { checkSample, type Dataset, type Sample, type SampleBatch } from './dataset';
import { Iteration, type Ready } from './batch-iteration';
import { Random } from './random';
import type { Sampler } from './sampler';
import {
  checkMade,
  checkTransform,
  checkTransformed,
  run,
  sizesOf,
  ToTensor,
  type Transform,
  type TransformOptions,
} from './transforms';

/** What a loader gives. Its tensors are the caller's to dispose (the caller's `tidy` does, if there is one). */
export interface Batch {
  /** N x channels x height x width, contiguous; float32 unless the data set or a transform makes another float. */
  readonly images: Tensor;
  /** int64, N; after Mixup float32, N x classes. */
  readonly labels: Tensor;
  /** The samples' places in the data set. */
  readonly indices: readonly number[];
}

/** A transform of whole batches, such as `Mixup`. */
export interface BatchTransform {
  /** @param random - one generator for the batch, seeded by (seed, epoch, number of the batch) */
  forward(batch: Batch, random: Random, options?: TransformOptions): Batch | Promise<Batch>;
}

export interface DataLoaderOptions<T = Sample, B = Batch> {
  /** Samples in a batch. Default 1. */
  batchSize?: number;
  /** A new random order in each epoch, from (seed, epoch). Not for async iterables. Default false. */
  shuffle?: boolean;
  /** Which samples an epoch has, in its order; in place of `shuffle`, and not for async iterables. Default: all. */
  sampler?: Sampler | null;
  /** Seed of the order and of all transforms, an integer from 0. Default 0. */
  seed?: number;
  /** Leaves out a last batch that is not full. Default false. */
  dropLast?: boolean;
  /** Batches that are made ready ahead of the one in use, from 0 to 64. Default 2. */
  prefetch?: number;
  /** Applied to every image. Images that are still uint8 after it become float32 in 0..1. Default none. */
  transform?: Transform | null;
  /** Applied to every batch, after `transform`. Default none. */
  batchTransform?: BatchTransform | null;
  /** Makes a batch of samples in its own way; `transform` is applied to samples that have a tensor `image`. */
  collate?: ((samples: T[], indices: number[]) => B | Promise<B>) | null;
  /**
   * Puts batches into memory that CUDA devices read by themselves, so that nobody waits while one is uploaded (a `Trainer` on a
   * device does that). Not with `collate`. Default false.
   */
  pinMemory?: boolean;
  /** Leaves images that cannot be decoded out of their batches and lists them in `skipped`. Default false: they are errors. */
  skipCorrupt?: boolean;
  /** Aborts whatever iteration is running. */
  signal?: AbortSignal;
}

/** A sample that `skipCorrupt` left out. */
export interface SkippedSample {
  readonly index: number;
  /** Names the file. */
  readonly message: string;
  readonly error: Error;
}

/** Where a loader is, as plain values for a checkpoint. */
export interface DataLoaderState {
  /** The epoch that runs, or is next. */
  readonly epoch: number;
  /** Batches of this epoch that were given out. */
  readonly position: number;
  readonly seed: number;
  readonly batchSize: number;
  readonly shuffle: boolean;
  readonly dropLast: boolean;
  /** Samples in the data set; null for an async iterable. */
  readonly samples: number | null;
  /** Samples in an epoch of a sampler; null without one. */
  readonly sampled: number | null;
}

type Collate<T, B> = (samples: T[], indices: number[]) => B | Promise<B>;

export type DataSource<T> = Dataset<T> | readonly T[] | AsyncIterable<T>;

/** What `options` of a DataLoader must be; `collate` makes what its batches are. */
const rules = <T, B>() => ({
  batchSize: orElse(1, integer(1)),
  shuffle: orElse(false, boolean),
  sampler: orElse(
    null,
    nullOr(
      matching<Sampler>(
        'a sampler (length and order)',
        (value) =>
          typeof (value as Partial<Sampler> | null)?.order === 'function' &&
          isCount((value as Sampler).length),
      ),
    ),
  ),
  seed: orElse(0, integer(0)),
  dropLast: orElse(false, boolean),
  prefetch: orElse(2, integer(0, 64)),
  pinMemory: orElse(false, boolean),
  skipCorrupt: orElse(false, boolean),
  signal,
  transform: orElse(null, nullOr(checkTransform)),
  batchTransform: orElse(null, nullOr(checkTransform as Rule<unknown> as Rule<BatchTransform>)),
  collate: orElse(null, nullOr(fn<Collate<T, B>>())),
});
/** Samples of a batch that are read at the same time: sharp has four threads by default. */
const SAMPLES_AT_ONCE = 8;
/** What makes a sample a corrupt one; anything else (no memory, no permission) is an error of the run. */
const CORRUPT: readonly ErrorCode[] = ['ERR_SENET_IMAGE', 'ERR_SENET_IMAGE_SIZE', 'ERR_SENET_DATA_FORMAT'];
/** In place of a batch whose samples were all skipped: `collate` may make anything of the others, null too. */
const NO_BATCH = Symbol('no batch');
/** Generators for different purposes have different streams. */
const [FOR_ORDER, FOR_SAMPLE, FOR_BATCH, FOR_DRAW] = [0, 1, 2, 3];

/** What making a batch needs to know. */
interface Making {
  readonly seed: number;
  readonly epoch: number;
  readonly signal: AbortSignal;
}

/**
 * Batches of a data set, an array or an async iterable, as `torch.utils.data.DataLoader`.
 *
 * Each iteration (`for await`) is an epoch. Batches are made outside the caller's `tidy` and `noGrad` and belong to the
 * caller once they are given out; leaving the loop disposes those that are ready and waits for what is being read.
 * Tensors of samples that a `Dataset.get` makes are disposed with the batch's intermediates; those that an array or an
 * async iterable holds are not touched.
 */
export class DataLoader<T = Sample, B = Batch> implements AsyncIterable<B> {
  readonly #dataset: Dataset<T> | null;
  readonly #stream: AsyncIterable<T> | null;
  readonly #batchSize: number;
  readonly #shuffle: boolean;
  readonly #sampler: Sampler | null;
  readonly #dropLast: boolean;
  readonly #prefetch: number;
  readonly #transform: Transform | null;
  readonly #batchTransform: BatchTransform | null;
  readonly #collate: Collate<T, B> | null;
  readonly #pinMemory: boolean;
  readonly #skipCorrupt: boolean;
  readonly #signal: AbortSignal | undefined;
  readonly #skipped = new Map<number, SkippedSample>();
  /** Of what samples take while they are read and transformed: of this loader's, so that a transform may use another. */
  readonly #budget = new ByteBudget(PIXEL_BYTES);
  #seed: number;
  #epoch = 0;
  #position = 0;
  /** Whether an iteration of this epoch has begun: the next one then begins the next epoch. */
  #begun = false;
  /** The iteration whose position is the loader's: the latest. */
  #current: object | null = null;

  /**
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_DATASET (no samples, or fewer
   *   than one batch with `dropLast`); ERR_SENET_CUDA_UNAVAILABLE for `pinMemory` without a CUDA device
   */
  constructor(source: DataSource<T>, options?: DataLoaderOptions<T, B>) {
    const checked = readOptions(options, rules<T, B>(), 'DataLoader');
    const { collate, batchTransform, pinMemory } = checked;
    if (pinMemory && collate !== null) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        'DataLoader: pinMemory is for batches that collate does not make',
      );
    }
    if (pinMemory && !cuda.isAvailable()) {
      throw makeError(
        'ERR_SENET_CUDA_UNAVAILABLE',
        'DataLoader: pinMemory is memory for a CUDA device, and there is none; npx senet-torch doctor says why',
      );
    }
    if (collate !== null && batchTransform !== null) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        'DataLoader: batchTransform takes batches that collate does not make',
      );
    }
    this.#batchSize = checked.batchSize;
    this.#shuffle = checked.shuffle;
    this.#sampler = checked.sampler;
    this.#seed = checked.seed;
    this.#dropLast = checked.dropLast;
    this.#prefetch = checked.prefetch;
    this.#pinMemory = checked.pinMemory;
    this.#skipCorrupt = checked.skipCorrupt;
    this.#signal = checked.signal;
    this.#transform = checked.transform;
    this.#batchTransform = batchTransform;
    this.#collate = collate;
    this.#dataset = toDataset(source);
    this.#stream = this.#dataset === null ? (source as AsyncIterable<T>) : null;
    if (this.#shuffle && this.#sampler !== null) {
      throw makeError('ERR_SENET_ARG_TYPE', 'DataLoader: a sampler says the order: shuffle must be false');
    }
    if (this.#stream !== null && (this.#shuffle || this.#sampler !== null)) {
      const given = this.#shuffle ? 'shuffle must be false' : 'it takes no sampler';
      throw makeError('ERR_SENET_ARG_TYPE', `DataLoader: an async iterable has its own order: ${given}`);
    }
    if (this.#dataset !== null && this.length === 0) {
      const length = this.#samplesOfEpoch(this.#dataset);
      throw makeError(
        'ERR_SENET_DATASET',
        length === 0
          ? 'DataLoader: the data set has no samples'
          : `DataLoader: ${length} samples are no full batch of ${this.#batchSize}, and dropLast leaves out the rest`,
      );
    }
  }

  /** Batches of an epoch. @throws ERR_SENET_ARG_TYPE for an async iterable, whose length nobody knows */
  get length(): number {
    if (this.#dataset === null) {
      throw makeError('ERR_SENET_ARG_TYPE', 'DataLoader: the length of an async iterable is not known');
    }
    const batches = this.#samplesOfEpoch(this.#dataset) / this.#batchSize;
    return this.#dropLast ? Math.floor(batches) : Math.ceil(batches);
  }

  #samplesOfEpoch(dataset: Dataset<T>): number {
    return this.#sampler?.length ?? dataset.length;
  }

  /** The data set; null for an async iterable. */
  get dataset(): Dataset<T> | null {
    return this.#dataset;
  }

  get batchSize(): number {
    return this.#batchSize;
  }

  /** The epoch that runs, or is next: from 0. */
  get epoch(): number {
    return this.#epoch;
  }

  /** What `skipCorrupt` has left out so far, each sample once. */
  get skipped(): readonly SkippedSample[] {
    return [...this.#skipped.values()];
  }

  /** Where the loader is, as plain values. */
  stateDict(): DataLoaderState {
    return {
      epoch: this.#epoch,
      position: this.#position,
      seed: this.#seed,
      batchSize: this.#batchSize,
      shuffle: this.#shuffle,
      dropLast: this.#dropLast,
      samples: this.#dataset?.length ?? null,
      sampled: this.#sampler?.length ?? null,
    };
  }

  /**
   * Goes on where `stateDict` was taken: the next iteration gives the rest of that epoch, with the same batches.
   *
   * @param state - what `stateDict` gave; also as the Map that a checkpoint makes of it
   * @throws ERR_SENET_RESUME (of another data set, batch size or order), ERR_SENET_ARG_TYPE
   */
  loadStateDict(state: DataLoaderState | ReadonlyMap<unknown, unknown>): void {
    const given: Record<string, unknown> | null = isMap(state)
      ? Object.fromEntries(state as Map<string, unknown>)
      : (state as unknown as Record<string, unknown> | null);
    if (typeof given !== 'object' || given === null) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `DataLoader.loadStateDict: expected a state, got ${describe(state)}`,
      );
    }
    const own: DataLoaderState = this.stateDict();
    for (const name of ['samples', 'sampled', 'batchSize', 'shuffle', 'dropLast'] as const) {
      // Before there were samplers, a state had no word of them.
      if ((given[name] ?? null) === own[name]) continue;
      throw makeError(
        'ERR_SENET_RESUME',
        `DataLoader.loadStateDict: ${name}: the state is of ${describe(given[name])}, this loader has ${describe(own[name])}`,
      );
    }
    const where = 'DataLoader.loadStateDict: ';
    const most = this.#dataset === null ? Number.MAX_SAFE_INTEGER : this.length;
    const epoch = checkInteger(given.epoch, `${where}epoch`, 0);
    const position = checkInteger(given.position, `${where}position`, 0, most);
    this.#seed = checkInteger(given.seed, `${where}seed`, 0);
    this.#epoch = epoch;
    this.#position = position;
    this.#begun = false;
    this.#current = null;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<B> {
    if (this.#begun) {
      this.#epoch++;
      this.#position = 0;
    }
    this.#begun = true;
    const iteration = new Iteration<B>(
      (signal) => this.#batches({ seed: this.#seed, epoch: this.#epoch, signal }, this.#position),
      this.#prefetch,
      this.#signal,
      (position) => {
        if (this.#current !== iteration) return;
        if (position !== null) this.#position = position;
        else {
          this.#epoch++;
          this.#position = 0;
          this.#begun = false;
        }
      },
    );
    this.#current = iteration;
    return iteration;
  }

  /** The batches of an epoch from a position on, each made when it is asked for. */
  async *#batches(making: Making, from: number): AsyncGenerator<Ready<B>> {
    let position = from;
    const make = async (indices: number[], samples: T[] | null): Promise<Ready<B> | null> => {
      // Whoever just took the batch before begins with it first: this one is made while the executor works.
      await setImmediate();
      const owned = new Set<Disposable>();
      const { value: batch } = await detached(owned, () =>
        tidy(async () => holding(await this.#make(indices, samples, position, making))),
      );
      position++;
      return batch === NO_BATCH ? null : { batch, owned, position };
    };
    if (this.#dataset !== null) {
      const length = this.#samplesOfEpoch(this.#dataset);
      const order = this.#orderOf(making, this.#dataset.length);
      const batches = this.length;
      while (position < batches) {
        const start = position * this.#batchSize;
        const end = Math.min(start + this.#batchSize, length);
        const indices =
          order?.slice(start, end) ?? Array.from({ length: end - start }, (_, place) => start + place);
        const ready = await make(indices, null);
        if (ready !== null) yield ready;
      }
      return;
    }
    const stream = this.#stream as AsyncIterable<T>;
    const iterator = detached(null, () => stream[Symbol.asyncIterator]());
    let ended = false;
    try {
      const skip = position * this.#batchSize;
      let samples: T[] = [];
      for (let index = 0; ; index++) {
        if (making.signal.aborted) throw abortError(making.signal);
        const result = await detached(null, () => iterator.next());
        if (result.done === true) {
          ended = true;
          if (samples.length === 0 || this.#dropLast) return;
        } else if (index >= skip) samples.push(result.value);
        if (!ended && samples.length < this.#batchSize) continue;
        const first = index + (ended ? 0 : 1) - samples.length;
        const ready = await make(
          samples.map((_, place) => first + place),
          samples,
        );
        samples = [];
        if (ready !== null) yield ready;
        if (ended) return;
      }
    } finally {
      if (!ended) await detached(null, () => iterator.return?.());
    }
  }

  /** The order of an epoch; null for the data set's own. */
  #orderOf(making: Making, samples: number): readonly number[] | null {
    const random = new Random(making.seed, making.epoch, FOR_ORDER);
    if (this.#sampler === null) return this.#shuffle ? random.permutation(samples) : null;
    const order = this.#sampler.order(random, making.epoch);
    if (!Array.isArray(order) && !ArrayBuffer.isView(order))
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `DataLoader: expected an array of indices from the sampler, got ${describe(order)}`,
      );
    if (order.length !== this.#sampler.length) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `DataLoader: the sampler gave ${order.length} indices, and its length is ${this.#sampler.length}`,
      );
    }
    const wrong = order.findIndex((index) => !isCount(index) || index >= samples);
    if (wrong < 0) return Array.from<number>(order); // of a typed array, too: batches hold arrays
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `DataLoader: the sampler gave ${describe(order[wrong])}, which is no index of a data set of ${samples} samples`,
    );
  }

  /** One batch; none if all its samples were skipped. */
  async #make(
    indices: number[],
    given: T[] | null,
    number: number,
    making: Making,
  ): Promise<B | typeof NO_BATCH> {
    const options = { signal: making.signal };
    const getBatch = this.#collate === null ? this.#dataset?.getBatch?.bind(this.#dataset) : undefined;
    let samples: SampleBatch;
    let kept = indices;
    if (getBatch !== undefined) {
      samples = checkSamples(await getBatch(indices, options), indices.length);
      const randoms = indices.map((index, place) => this.#randomOf(index, number, place, making));
      if (this.#transform !== null) {
        const images = await this.#transform.forward(samples.images, randoms, options);
        samples = {
          images: checkTransformed(images, indices.length, 'DataLoader: transform'),
          labels: samples.labels,
        };
      }
    } else {
      const all = await this.#readSamples(indices, given, number, making);
      const good = all.flatMap((sample, place) =>
        sample === null ? [] : [{ sample: sample.value, index: indices[place] as number }],
      );
      if (good.length === 0) return NO_BATCH;
      kept = good.map(({ index }) => index);
      const values = good.map(({ sample }) => sample);
      if (this.#collate !== null) return this.#collate(values, kept);
      samples = await stack(values, kept, options);
    }
    let images = await new ToTensor().forward(samples.images, [], options);
    images = await run(options, 'aten::contiguous', images);
    const labels = tensor(BigInt64Array.from(samples.labels, toLabel), { dtype: 'int64' });
    let batch: Batch = { images, labels, indices: kept };
    if (this.#batchTransform !== null) {
      const random = new Random(making.seed, making.epoch, FOR_BATCH, number);
      batch = await this.#batchTransform.forward(batch, random, options);
      const { images: mixed, labels: mixedLabels } = (batch as Batch | null) ?? ({} as Partial<Batch>);
      for (const made of [mixed, mixedLabels]) checkMade(made, 'DataLoader: batchTransform');
    }
    // The labels are few, and what is known of them must stay known.
    if (this.#pinMemory) batch = { ...batch, images: await run(options, 'aten::pin_memory', batch.images) };
    return batch as B;
  }

  /** The samples of a batch, several at a time; null for those that were skipped. */
  async #readSamples(
    indices: readonly number[],
    given: readonly T[] | null,
    number: number,
    making: Making,
  ): Promise<({ value: T } | null)[]> {
    const samples = new Array<{ value: T } | null>(indices.length).fill(null);
    const errors = new Map<number, unknown>();
    let next = 0;
    const turns = new Turns();
    const lane = async (): Promise<void> => {
      while (next < indices.length && errors.size === 0) {
        const place = next++;
        const index = indices[place] as number;
        try {
          if (making.signal.aborted) throw abortError(making.signal);
          // Intermediates go at once: a batch of large photographs would not fit into memory.
          const hold = this.#budget.hold(making.signal);
          samples[place] = await tidy(async () => {
            const options = { signal: making.signal, reserve: hold.reserve };
            const read = given === null ? this.#dataset?.get(index, options) : given[place];
            const random = this.#randomOf(index, number, place, making);
            return holding(await this.#transformed((await read) as T, index, random, making));
          }).finally(hold.release);
        } catch (error) {
          if (this.#isSkipped(index, error)) continue;
          errors.set(place, error);
        }
        await turns.take();
      }
    };
    await Promise.all(Array.from({ length: Math.min(SAMPLES_AT_ONCE, indices.length) }, lane));
    if (errors.size > 0) throw errors.get(Math.min(...errors.keys()));
    return samples;
  }

  async #transformed(sample: T, index: number, random: Random, making: Making): Promise<T> {
    if (this.#transform === null) return sample;
    const { image } = checkSample(sample, index);
    const one = image.unsqueeze(0);
    sizesOf(one, `sample ${index}: image`);
    const done = await this.#transform.forward(one, [random], { signal: making.signal });
    return { ...sample, image: checkTransformed(done, 1, 'DataLoader: transform').select(0, 0) };
  }

  /** Of a sample in an epoch; where a sampler may give one twice, of its place in the epoch. */
  #randomOf(index: number, batch: number, place: number, { seed, epoch }: Making): Random {
    return this.#sampler === null || this.#sampler.isUnique === true
      ? new Random(seed, epoch, FOR_SAMPLE, index)
      : new Random(seed, epoch, FOR_DRAW, batch * this.#batchSize + place);
  }

  #isSkipped(index: number, error: unknown): boolean {
    if (!this.#skipCorrupt || !isSenetError(error) || !CORRUPT.includes(error.code)) return false;
    if (!this.#skipped.has(index)) this.#skipped.set(index, { index, message: error.message, error });
    return true;
  }
}

/** A value and what it holds, where `tidy` finds it: samples and batches may be of any class. */
function holding<T>(value: T): { value: T; held: unknown[] } {
  return { value, held: typeof value === 'object' && value !== null ? Object.values(value) : [] };
}

function toDataset<T>(source: DataSource<T>): Dataset<T> | null {
  if (Array.isArray(source)) {
    const items = source as readonly T[];
    return { length: items.length, get: (index) => items[index] as T };
  }
  const given = source as Partial<Dataset<T>> & Partial<AsyncIterable<T>>;
  if (typeof given === 'object' && given !== null) {
    if (typeof given.get === 'function' && isCount(given.length)) return given as Dataset<T>;
    if (typeof given[Symbol.asyncIterator] === 'function') return null;
  }
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `DataLoader: expected a data set (length and get), an array or an async iterable, got ${describe(source)}`,
  );
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** What a data set gave for a batch. @throws ERR_SENET_ARG_TYPE */
function checkSamples(value: unknown, count: number): SampleBatch {
  const { images, labels } = (value ?? {}) as Partial<SampleBatch>;
  const found = `${Tensor.isTensor(images) ? images.shape[0] : describe(images)} images and ${describe(labels)}`;
  if (
    Tensor.isTensor(images) &&
    images.shape[0] === count &&
    (labels as ArrayLike<unknown> | undefined)?.length === count
  )
    return value as SampleBatch;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `DataLoader: getBatch: expected { images, labels } of ${count} samples, got ${found}`,
  );
}

function toLabel(label: number): bigint {
  if (Number.isSafeInteger(label)) return BigInt(label);
  throw makeError('ERR_SENET_LABELS', `expected a label that is an integer, got ${describe(label)}`);
}

/** Samples of one size as a batch. */
async function stack(
  samples: readonly unknown[],
  indices: readonly number[],
  options: TransformOptions,
): Promise<SampleBatch> {
  const checked = samples.map((sample, place) => checkSample(sample, indices[place] as number));
  const shapes = checked.map(({ image }) => image.shape.join(' x '));
  const other = shapes.findIndex((shape) => shape !== shapes[0]);
  if (other >= 0) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `images of a batch must have one size: sample ${indices[0]} is ${shapes[0]}, sample ${indices[other]} is ` +
        `${shapes[other]}; add a transform such as RandomResizedCrop, or Resize and CenterCrop`,
    );
  }
  const [first] = checked;
  if (first?.image.shape.length !== 3) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `sample ${indices[0]}: expected an image of channels x height x width, got ${shapes[0]}`,
    );
  }
  const parts = checked.map(({ image }) => image);
  const elements = first.image.numel * parts.length;
  const images = (
    elements <= 2 ** 21
      ? ops.call('aten::stack', parts, 0)
      : await ops.callAsync('aten::stack', parts, 0, { signal: options.signal })
  ) as Tensor;
  return { images, labels: checked.map(({ label }) => label) };
}
