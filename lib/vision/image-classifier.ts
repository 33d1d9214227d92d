/**
 * ImageClassifier: a model with its weights, labels and preprocessing, from image to labels with scores.
 * Decoding is `decode`'s, pixels are `preprocessing`'s; here they are put together, batched and kept in step with
 * abort and dispose.
 */
import { setMaxListeners } from 'node:events';

import type { Device, DType } from '../binding';
import { load as loadStateDict } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import type { ProgressOption } from '../hub/progress';
import { modelInfo, type ModelName } from '../models/registry';
import { binding } from '../native';
import { Module } from '../nn/module';
import { checkDevice, checkDType, isFloating } from '../tensor/dtype';
import { abortError } from '../tensor/jobs';
import { checkBoolean, checkInteger, checkOptions, checkSignal, describe } from '../tensor/options';
import { noGrad, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { Batcher } from './batcher';
import { decodeImage, loadDecoder } from './decode';
import { Gate } from './gate';
import { IMAGE_SOURCES, isImageFileSource, type ImageFileSource } from './image-source';
import { readLabels } from './labels';
import {
  countClasses,
  createFor,
  defaultPreprocessing,
  findWeights,
  makeNetwork,
  recordOf,
  toFile,
  type Network,
} from './network';
import {
  checkPreprocessing,
  PLAIN,
  preprocess,
  resizedSize,
  run,
  toPixels,
  type Preprocessing,
} from './preprocessing';
import { PUBLISHED_WEIGHTS } from './weights';

export interface ImageClassifierOptions {
  /**
   * A path (any file that `load` reads), or the name of published weights: 'fashion_mnist' of se_resnet20 (part of this
   * package) and 'imagenet' of se_resnet50 (downloaded once). Required with a model's name.
   */
  weights?: string;
  /**
   * The labels in order, or the path of a file with them: a line for each, a JSON array, a JSON object or Python dict of
   * index to name or name to index. UTF-8, or UTF-16 with a byte-order mark. Default: what the weights bring, else the
   * indices.
   */
  labels?: readonly string[] | string;
  /** Overrides fields of the record that the weights bring. Default without one: torchvision's for ImageNet-sized models. */
  preprocessing?: Partial<Preprocessing>;
  /**
   * Lets JPEGs that are much larger than `preprocessing.size` be shrunk while they are decoded (libjpeg scales by 1/2,
   * 1/4 or 1/8). Several times as fast, and near to Pillow's pixels instead of equal: scores move a little. Default false.
   */
  shrinkOnLoad?: boolean;
  /** Default 'cpu'. */
  device?: Device;
  /**
   * Of weights and activations. Default 'float32'. The network is a compiled copy (`Module.compile`) for float32,
   * bfloat16, and float16 where the device computes with it; for float64, and for a Module whose forward is TypeScript,
   * it is the plain module.
   */
  dtype?: DType;
  /** How concurrent `classify` calls share batches. */
  batching?: BatchingOptions;
  /** Of a download. Default true: a progress bar, on a terminal. */
  progress?: ProgressOption;
  /** Whether a downloaded file must have the SHA-256 that its name promises. Default true. */
  checkHash?: boolean;
  /** Rejects `load` with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface BatchingOptions {
  /** Images that go through the network together, 1 to 1,024. Default 16. */
  maxBatch?: number;
  /**
   * Milliseconds that an image waits for company while the network is free, 0 to 60,000. Default 0: it starts in the
   * same turn of the event loop.
   */
  delay?: number;
  /**
   * Images that may be accepted and not yet answered, 1 to 1,000,000. Default 1,024. Beyond it `classify` rejects with
   * ERR_SENET_QUEUE_FULL. An array counts as at most two batches, since it takes its images up one after the other.
   */
  maxQueue?: number;
}

export interface ClassifyOptions {
  /** How many labels, best first; clamped to the number of classes. Default 5. */
  topK?: number;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface Classification {
  readonly label: string;
  readonly index: number;
  /** Softmax probability. */
  readonly score: number;
}

/**
 * An image file (its path, a `file:` or `data:` URL, its bytes, a Blob), or a tensor: uint8 C x H x W with C 1 or 3
 * (pixels), or floating 3 x H x W (preprocessed).
 */
export type ImageSource = ImageFileSource | Tensor;

const LOAD_OPTIONS = [
  'weights',
  'labels',
  'preprocessing',
  'shrinkOnLoad',
  'device',
  'dtype',
  'batching',
  'progress',
  'checkHash',
  'signal',
] as const;
const BATCHING = { maxBatch: 16, delay: 0, maxQueue: 1024 };
/** So many bytes of pixels may wait for preprocessing before no further image is decoded. */
const MAX_PIXEL_BYTES = 128 * 2 ** 20;
/** Longest `batching.delay`, in milliseconds. */
const MAX_DELAY = 60_000;

/**
 * Classifies images.
 *
 * @example
 * const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
 * const [best] = await classifier.classify('shoe.png');
 * console.log(best.label, best.score);
 */
export class ImageClassifier {
  /** In the order of the model's outputs. */
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
  readonly #network: Network;
  readonly #shrinkOnLoad: boolean;
  readonly #maxQueue: number;
  /** Of one array: one batch that runs, and one that is made ready meanwhile. */
  readonly #maxTogether: number;
  readonly #batcher: Batcher<Input, Classification[]>;
  readonly #decoding: Gate;
  /** Bytes of pixels that are decoded and not preprocessed: resizing many is a job, and may wait for a forward. */
  #pixelBytes = 0;
  /** Images, or places that an array takes up, that are not answered. */
  #accepted = 0;
  readonly #running = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(
    network: Network,
    labels: readonly string[],
    preprocessing: Preprocessing,
    shrinkOnLoad: boolean,
    { maxBatch, delay, maxQueue }: Required<BatchingOptions>,
  ) {
    this.#network = network;
    this.labels = labels;
    this.preprocessing = preprocessing;
    this.#shrinkOnLoad = shrinkOnLoad;
    this.#maxQueue = maxQueue;
    this.#maxTogether = 2 * maxBatch;
    this.#batcher = new Batcher({
      maxBatch,
      delay,
      lanes: () => binding.configuration().workers,
      run: (inputs) => inScope(() => this.#runBatch(inputs)),
    });
    const together = concurrentDecodes();
    // What is ready waits in memory: no more is decoded than the next batches take.
    this.#decoding = new Gate(
      (inside) =>
        inside < together && this.#batcher.size < this.#maxTogether && this.#pixelBytes < MAX_PIXEL_BYTES,
    );
  }

  /**
   * Makes a classifier from a model's name and weights, or from a Module. The number of classes and the reduction come
   * from the shapes of the weights. A Module that is given is put into evaluation mode and moved to the device, and stays
   * the caller's to dispose. The classifier keeps a compiled copy of it, which later training does not change; for
   * float64, and if its forward is TypeScript, it is converted and used itself.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown
   *   weights), ERR_SENET_UNKNOWN_OPTION; ERR_SENET_DTYPE (not floating, or one that the device does not compute with);
   *   ERR_SENET_COMPILE; ERR_SENET_LABELS; ERR_SENET_STATE_DICT and the other errors of `load`; ERR_SENET_DOWNLOAD, ERR_SENET_OFFLINE, ERR_SENET_HASH; ERR_SENET_CUDA_UNAVAILABLE; ERR_SENET_ABORTED
   */
  static async load(
    model: ModelName | Module<unknown>,
    options?: ImageClassifierOptions,
  ): Promise<ImageClassifier> {
    const given = checkOptions(options, LOAD_OPTIONS, 'ImageClassifier.load');
    const device = given.device === undefined ? 'cpu' : checkDevice(given.device);
    const dtype = given.dtype === undefined ? 'float32' : checkDType(given.dtype);
    if (!isFloating(dtype)) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `ImageClassifier.load: dtype: expected a floating dtype, got ${dtype}`,
      );
    }
    const batching = checkBatching(given.batching);
    const { shrinkOnLoad = false } = given;
    checkBoolean(shrinkOnLoad, 'ImageClassifier.load: shrinkOnLoad');
    const signal = checkSignal(given.signal, 'ImageClassifier.load: signal');
    throwIfAborted(signal);
    const isModule = Module.isModule(model);
    if (!isModule && typeof model !== 'string') {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `ImageClassifier.load: expected a model's name or a Module, got ${describe(model)}`,
      );
    }
    if (!isModule) modelInfo(model); // throws for an unknown name
    if (!isModule && given.weights === undefined) {
      const published = PUBLISHED_WEIGHTS.filter((entry) => entry.model === model).map(
        ({ name }) => `'${name}'`,
      );
      const names =
        published.length === 0 ? 'there are no published ones' : `published: ${published.join(', ')}`;
      throw makeError(
        'ERR_SENET_ARG_MISSING',
        `ImageClassifier.load: weights: expected a path or a name (${model}: ${names})`,
      );
    }
    const source =
      given.weights === undefined ? undefined : await findWeights(given.weights, isModule ? null : model);
    const file = source === undefined ? undefined : await toFile(source, given, signal);
    const state =
      file === undefined ? undefined : await loadStateDict(file, signal === undefined ? {} : { signal });
    try {
      const published = typeof source === 'object' ? source : undefined;
      const brought = await recordOf(state, published, file ?? 'weights');
      const base = brought.preprocessing ?? defaultPreprocessing(model);
      if (base === undefined && given.preprocessing === undefined) {
        throw makeError(
          'ERR_SENET_ARG_MISSING',
          'ImageClassifier.load: preprocessing: the weights bring no record and this model has no usual one; give size, mean and std',
        );
      }
      const preprocessing = checkPreprocessing(
        given.preprocessing ?? {},
        base ?? PLAIN,
        'ImageClassifier.load: preprocessing',
      );
      const givenLabels = given.labels === undefined ? undefined : await readLabels(given.labels);
      const made = isModule ? model : createFor(model, state as StateDict);
      try {
        if (state !== undefined) made.loadStateDict(state, { assign: !isModule });
        const classes = countClasses(made);
        const labels =
          givenLabels ?? brought.labels ?? Array.from({ length: classes ?? 0 }, (_, index) => String(index));
        if (classes !== undefined && labels.length !== classes) {
          throw makeError(
            'ERR_SENET_LABELS',
            `ImageClassifier.load: the model has ${classes} classes and there are ${labels.length} labels`,
          );
        }
        // The network is made on the executor's threads, meanwhile this one loads the decoder.
        const [network] = await Promise.all([
          makeNetwork(made, !isModule, dtype, device, signal),
          loadDecoder(),
        ]);
        return new ImageClassifier(
          network,
          Object.freeze([...labels]),
          preprocessing,
          shrinkOnLoad,
          batching,
        );
      } catch (error) {
        if (!isModule) made.dispose();
        throw error;
      }
    } finally {
      state?.dispose();
    }
  }

  /**
   * Classifies one image, or several. Images of all calls that are in flight share batches (`batching` of `load`): a call
   * that is alone starts at once, and what arrives while a batch runs goes together in the next. Each call has its own
   * errors and its own abort. The bytes of an image must stay as they are until its call has settled.
   *
   * @returns the best labels of the image, best first; for an array one such list for each image
   * @throws (rejects) ERR_SENET_IMAGE, ERR_SENET_IMAGE_SIZE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE,
   *   ERR_SENET_BUFFER, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_SHAPE,
   *   ERR_SENET_DTYPE, ERR_SENET_LABELS, ERR_SENET_QUEUE_FULL, ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  classify(image: ImageSource, options?: ClassifyOptions): Promise<Classification[]>;
  classify(images: readonly ImageSource[], options?: ClassifyOptions): Promise<Classification[][]>;
  async classify(
    images: ImageSource | readonly ImageSource[],
    options?: ClassifyOptions,
  ): Promise<Classification[] | Classification[][]> {
    const { topK, signal } = this.#check(options, 'classify');
    const many = Array.isArray(images);
    const sources = many ? [...(images as readonly ImageSource[])] : [images as ImageSource]; // the array is the caller's
    for (const [index, source] of sources.entries()) {
      if (isImageFileSource(source) || Tensor.isTensor(source)) continue;
      const place = many ? `images[${index}]` : 'image';
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `classify: ${place}: expected ${IMAGE_SOURCES} or a Tensor, got ${describe(source)}`,
      );
    }
    const places = Math.min(sources.length, this.#maxTogether, this.#maxQueue);
    if (this.#accepted + places > this.#maxQueue) {
      throw makeError(
        'ERR_SENET_QUEUE_FULL',
        `classify: ${this.#accepted} images are waiting and ${places} more do not fit: batching.maxQueue is ${this.#maxQueue}`,
      );
    }
    this.#accepted += places;
    const results = await this.#track(async (ownSignal) => {
      try {
        return await this.#classifySources(sources, places, topK, ownSignal);
      } finally {
        this.#accepted -= places;
      }
    }, signal);
    return many ? results : (results[0] as Classification[]);
  }

  /**
   * Classifies pixels that are one tensor already, such as a part of a data set, as one batch.
   *
   * @param pixels - uint8, N x C x H x W with C 1 or 3
   * @throws (rejects) as `classify`
   */
  async classifyBatch(pixels: Tensor, options?: ClassifyOptions): Promise<Classification[][]> {
    const { topK, signal } = this.#check(options, 'classifyBatch');
    if (!Tensor.isTensor(pixels)) {
      throw makeError('ERR_SENET_ARG_TYPE', `classifyBatch: expected a Tensor, got ${describe(pixels)}`);
    }
    const { shape, dtype } = pixels;
    if (dtype !== 'uint8')
      throw makeError('ERR_SENET_DTYPE', `classifyBatch: expected uint8 pixels, got ${dtype}`);
    if (shape.length !== 4 || ![1, 3].includes(shape[1] as number) || shape.includes(0)) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `classifyBatch: expected N x C x H x W with C 1 or 3, got [${shape.join(', ')}]`,
      );
    }
    return this.#track(
      (ownSignal) =>
        inScope(async () => {
          const x = await preprocess(pixels, this.preprocessing, ownSignal);
          return this.#rank(x, new Array<number>(x.shape[0] as number).fill(topK));
        }),
      signal,
    );
  }

  /** Refuses new calls, waits for those that run or wait, and frees the network (a Module that was given stays). */
  async dispose(): Promise<void> {
    const first = !this.#disposed;
    this.#disposed = true;
    await Promise.allSettled(this.#running);
    if (first) this.#network.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #check(
    options: ClassifyOptions | undefined,
    where: string,
  ): { topK: number; signal: AbortSignal | undefined } {
    const { topK = 5, signal } = checkOptions(options, ['topK', 'signal'], where);
    checkInteger(topK, `${where}: topK`, 1);
    const checked = checkSignal(signal, `${where}: signal`);
    throwIfAborted(checked);
    if (this.#disposed) throw makeError('ERR_SENET_DISPOSED', `${where}: the classifier was disposed`);
    return { topK, signal: checked };
  }

  /**
   * Runs `work` so that `dispose` waits for it, and rejects at once when the signal aborts; `work` then ends unseen. Its
   * own signal takes any number of listeners, of which the caller's signal would warn.
   */
  #track<T>(
    work: (ownSignal: AbortSignal | undefined) => Promise<T>,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    const controller = signal && new AbortController();
    if (controller !== undefined) setMaxListeners(0, controller.signal);
    const running = work(controller?.signal);
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, forget);
    if (signal === undefined) return running;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        controller?.abort(signal.reason);
        reject(abortError(signal));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      running.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  /** All images, `places` at a time; after a failure no further one is taken up. */
  async #classifySources(
    sources: readonly ImageSource[],
    places: number,
    topK: number,
    signal: AbortSignal | undefined,
  ): Promise<Classification[][]> {
    const results = new Array<Classification[]>(sources.length);
    const failures: unknown[] = [];
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < sources.length && failures.length === 0) {
        const index = next++;
        try {
          results[index] = await this.#classifyOne(sources[index] as ImageSource, topK, signal);
        } catch (error) {
          failures.push(error);
        }
      }
    };
    await Promise.all(Array.from({ length: places }, work));
    if (failures.length > 0) throw failures[0];
    return results;
  }

  /** In a scope of its own, which outlives that of the caller: inputs that wait belong to the queue. */
  #classifyOne(
    source: ImageSource,
    topK: number,
    signal: AbortSignal | undefined,
  ): Promise<Classification[]> {
    return inScope(async () => {
      const x = await this.#toInput(source, signal);
      return this.#batcher.add(x.shape.join(' x '), { x, topK }, signal);
    });
  }

  /** 1 x 3 x H x W, float32. */
  async #toInput(source: ImageSource, signal: AbortSignal | undefined): Promise<Tensor> {
    throwIfAborted(signal);
    if (!Tensor.isTensor(source)) {
      return this.#prepare(async () => {
        const { size } = this.preprocessing;
        const wanted = (height: number, width: number): [number, number] => resizedSize(size, height, width);
        return toPixels(await decodeImage(source, this.#shrinkOnLoad ? wanted : undefined), signal);
      }, signal);
    }
    const { shape, dtype } = source;
    const [channels = 0] = shape;
    const preprocessed = isFloating(dtype);
    if (!preprocessed && dtype !== 'uint8') {
      throw makeError(
        'ERR_SENET_DTYPE',
        `classify: expected uint8 pixels or a floating, preprocessed image, got ${dtype}`,
      );
    }
    if (shape.length !== 3 || shape.includes(0) || !(channels === 3 || (channels === 1 && !preprocessed))) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `classify: expected an image tensor of channels x height x width, 3 channels${preprocessed ? '' : ' or 1'}, got [${shape.join(', ')}]`,
      );
    }
    // A tensor of our own, though on the same memory: the caller may dispose its one meanwhile.
    const one = source.to('cpu').unsqueeze(0);
    if (preprocessed) return one.detach().to('float32');
    return this.#prepare(() => Promise.resolve(one), signal);
  }

  /** Pixels, when it is their turn, to a model's input. */
  #prepare(toPixels: () => Promise<Tensor>, signal: AbortSignal | undefined): Promise<Tensor> {
    // A scope of its own: the pixels of a large photograph must not wait for the batch.
    return tidy(async () => {
      const pixels = await this.#decoding.run(() => {
        throwIfAborted(signal);
        return toPixels();
      });
      const bytes = pixels.numel;
      this.#pixelBytes += bytes;
      try {
        return await preprocess(pixels, this.preprocessing, signal);
      } finally {
        this.#pixelBytes -= bytes;
        this.#decoding.update();
      }
    });
  }

  /** Inputs of one shape. */
  async #runBatch(inputs: readonly Input[]): Promise<Classification[][]> {
    this.#decoding.update();
    const [first] = inputs as readonly [Input];
    const batch =
      inputs.length === 1
        ? first.x
        : await run(
            undefined,
            'aten::cat',
            inputs.map(({ x }) => x),
            0,
          );
    return this.#rank(
      batch,
      inputs.map(({ topK }) => topK),
    );
  }

  /** The best classes for each image of a batch, as many as `topK` says for that image. */
  async #rank(input: Tensor, topK: readonly number[]): Promise<Classification[][]> {
    const logits = await this.#network.forward(input);
    const [count, classes] = logits.shape;
    if (logits.shape.length !== 2 || count !== topK.length || classes === undefined) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `classify: expected N x classes from the model, got [${logits.shape.join(', ')}]`,
      );
    }
    if (this.labels.length > 0 && this.labels.length !== classes) {
      throw makeError(
        'ERR_SENET_LABELS',
        `classify: the model has ${classes} classes and there are ${this.labels.length} labels`,
      );
    }
    const probabilities = logits.to('cpu').to('float32').softmax(1);
    return topK.map((wanted, image) => {
      // One by one: which of several equal scores come first depends on how many are wanted.
      const { values, indices } = probabilities.select(0, image).topk(Math.min(wanted, classes));
      const scores = values.toTypedArray() as Float32Array;
      return Array.from(indices.toTypedArray() as BigInt64Array, (place, rank) => {
        const index = Number(place);
        return { label: this.labels[index] ?? String(index), index, score: scores[rank] as number };
      });
    });
  }
}

/** What waits for a batch. */
interface Input {
  /** 1 x 3 x height x width, float32, of the scope of its image. */
  readonly x: Tensor;
  readonly topK: number;
}

function checkBatching(given: BatchingOptions | undefined): Required<BatchingOptions> {
  const where = 'ImageClassifier.load: batching';
  const {
    maxBatch = BATCHING.maxBatch,
    delay = BATCHING.delay,
    maxQueue = BATCHING.maxQueue,
  } = checkOptions(given, Object.keys(BATCHING), where);
  checkInteger(maxBatch, `${where}: maxBatch`, 1, 1024);
  checkInteger(delay, `${where}: delay`, 0, MAX_DELAY);
  checkInteger(maxQueue, `${where}: maxQueue`, 1, 1_000_000);
  return { maxBatch, delay, maxQueue };
}

/**
 * Images that one classifier decodes at the same time. Each occupies a thread of libuv's pool: one stays free for files
 * and names.
 */
function concurrentDecodes(): number {
  const pool = Number(process.env.UV_THREADPOOL_SIZE) || 4;
  return Math.max(1, Math.min(binding.configuration().availableThreads, pool - 1));
}

function inScope<T>(work: () => Promise<T>): Promise<T> {
  return tidy(() => noGrad(work));
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}
