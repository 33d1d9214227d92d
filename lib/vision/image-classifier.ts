/**
 * ImageClassifier: a model with its weights, labels and preprocessing, from image to labels with scores.
 * What becomes of one image is `image-work`'s, which goes when is `pipeline`'s; here they meet the network.
 */
import type { Device, DType } from '../binding';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import type { ProgressOption } from '../hub/progress';
import { familyOf } from '../models/classifier-model';
import { channelsIn, makeModel, readWeights, toFile } from '../models/pretrained';
import type { ModelRecord } from '../models/record';
import { modelRecord, type ModelName } from '../models/registry';
import { findWeights } from '../models/weights';
import { binding } from '../native';
import { Module } from '../nn/module';
import { checkDevice, checkDType, isFloating } from '../tensor/dtype';
import { throwIfAborted, untilAborted } from '../tensor/abort';
import { checkBoolean, checkInteger, checkOptions, checkSignal, describe } from '../tensor/options';
import { integer, orElse, readOptions, signal } from '../tensor/rules';
import { detached, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { ByteBudget, PIXEL_BYTES } from './byte-budget';
import { loadDecoder } from './decode';
import { checkSource, ImageWork, type ImageSource } from './image-work';
import { readLabels } from './labels';
import {
  broughtBy,
  channelsOf,
  checkImageChannels,
  chooseRecord,
  countClasses,
  makeNetwork,
  type Network,
} from './network';
import { Pipeline, type QueueState } from './pipeline';
import { PLAIN, preprocess, run, type Preprocessing } from './preprocessing';

export interface ImageClassifierOptions {
  /**
   * A path (any file that `load` reads), or the name of published weights: 'fashion_mnist' of se_resnet20 (part of this
   * package) and 'imagenet' of se_resnet50 (downloaded once). Required with a model's name.
   */
  weights?: string;
  /**
   * Where in that file the state dict is: names joined by dots, such as 'state_dict_ema'. Default: the one whose names fit
   * the model best; of several a `state_dict` or `model` before an average.
   */
  key?: string;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string;
  /**
   * The labels in order, or the path of a file with them: a line for each, a JSON array, a JSON object or Python dict of
   * index to name or name to index. UTF-8, or UTF-16 with a byte-order mark. Default: what the weights bring, else the
   * indices.
   */
  labels?: readonly string[] | string;
  /**
   * Overrides fields of the record that the weights bring. Default without one: torchvision's for ImageNet-sized models.
   * For a network of one channel, a record for colour becomes the one for grey: pixels as Pillow's `convert('L')` makes
   * them before they are resized, ImageNet's mean and deviation 0.459 and 0.2256.
   */
  preprocessing?: Partial<Preprocessing>;
  /**
   * Channels of the network's input: 1 or 3, as images have them. Default: what the weights or the Module say, which
   * another number contradicts (ERR_SENET_STATE_DICT for weights, ERR_SENET_ARG_RANGE for a Module). It tells something
   * only of a Module whose forward is TypeScript.
   */
  inChannels?: number;
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
   * ERR_SENET_QUEUE_FULL, before it reads anything. A server gives as many as it answers in the time that its callers
   * wait. An array counts as at most two batches, since it takes its images up one after the other.
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

const LOAD_OPTIONS = [
  'weights',
  'key',
  'prefix',
  'labels',
  'preprocessing',
  'inChannels',
  'shrinkOnLoad',
  'device',
  'dtype',
  'batching',
  'progress',
  'checkHash',
  'signal',
] as const;
/** Longest `batching.delay`, in milliseconds. */
const MAX_DELAY = 60_000;
const BATCHING = {
  maxBatch: orElse(16, integer(1, 1024)),
  delay: orElse(0, integer(0, MAX_DELAY)),
  maxQueue: orElse(1024, integer(1, 1_000_000)),
};

const CLASSIFY_RULES = { topK: orElse(5, integer(1)), signal };
/** Of all classifiers of this thread. */
const pixelBudget = new ByteBudget(PIXEL_BYTES);

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
  readonly #pipeline: Pipeline<ImageWork, Classification[]>;
  readonly #running = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(
    network: Network,
    labels: readonly string[],
    preprocessing: Preprocessing,
    shrinkOnLoad: boolean,
    batching: Required<BatchingOptions>,
  ) {
    this.#network = network;
    this.labels = labels;
    this.preprocessing = preprocessing;
    this.#shrinkOnLoad = shrinkOnLoad;
    this.#pipeline = new Pipeline({
      ...batching,
      decoders: concurrentDecodes(),
      budget: pixelBudget,
      lanes: () => binding.configuration().workers,
      run: (works) => detached(null, () => tidy(() => this.#runBatch(works))),
    });
  }

  /**
   * Makes a classifier from a model's name and weights, or from a Module. The number of classes, the input channels and
   * the reduction come from the shapes of the weights. A Module that is given is put into evaluation mode and moved to the device, and stays
   * the caller's to dispose. The classifier keeps a compiled copy of it, which later training does not change; for
   * float64, and if its forward is TypeScript, it is converted and used itself.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown
   *   weights, input channels that no image has), ERR_SENET_UNKNOWN_OPTION; ERR_SENET_DTYPE (not floating, or one that the device does not compute with);
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
    const batching = readOptions(given.batching, BATCHING, 'ImageClassifier.load: batching');
    const { shrinkOnLoad = false } = given;
    checkBoolean(shrinkOnLoad, 'ImageClassifier.load: shrinkOnLoad');
    if (given.inChannels !== undefined) checkInteger(given.inChannels, 'ImageClassifier.load: inChannels', 1);
    const signal = checkSignal(given.signal, 'ImageClassifier.load: signal');
    throwIfAborted(signal);
    const isModule = Module.isModule(model);
    if (!isModule && typeof model !== 'string') {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `ImageClassifier.load: expected a model's name or a Module, got ${describe(model)}`,
      );
    }
    const record = isModule ? null : modelRecord(model); // throws for an unknown name
    if (record !== null && given.weights === undefined) {
      const published = record.weights.map(({ name }) => `'${name}'`);
      const names =
        published.length === 0 ? 'there are no published ones' : `published: ${published.join(', ')}`;
      throw makeError(
        'ERR_SENET_ARG_MISSING',
        `ImageClassifier.load: weights: expected a path or a name (${record.name}: ${names})`,
      );
    }
    const source =
      given.weights === undefined
        ? undefined
        : await findWeights(given.weights, isModule ? null : model, 'ImageClassifier.load');
    const file = source === undefined ? undefined : await toFile(source, { ...given, signal });
    const state =
      file === undefined
        ? undefined
        : await readWeights(file, record ?? (model as Module<unknown>), given, signal);
    try {
      const published = typeof source === 'object' ? source : undefined;
      const brought = await broughtBy(state, published, file ?? 'weights');
      const usual = (record ?? familyOf(model as Module<unknown>))?.preprocessing ?? undefined;
      const base = brought.preprocessing ?? usual;
      if (base === undefined && given.preprocessing === undefined) {
        throw makeError(
          'ERR_SENET_ARG_MISSING',
          'ImageClassifier.load: preprocessing: the weights bring no record and this model has no usual one; give size, mean and std',
        );
      }
      const channels =
        record === null
          ? channelsOfModule(model as Module<unknown>, given.inChannels)
          : (given.inChannels ?? channelsIn(record, state as StateDict));
      if (channels !== 0) checkImageChannels(channels, 'ImageClassifier.load: inChannels');
      const preprocessing = chooseRecord(
        given.preprocessing,
        base ?? PLAIN,
        channels,
        'ImageClassifier.load: preprocessing',
      );
      const givenLabels = given.labels === undefined ? undefined : await readLabels(given.labels);
      const made = isModule
        ? model
        : makeModel(record as ModelRecord, state as StateDict, { inChannels: channels });
      try {
        if (isModule && state !== undefined) made.loadStateDict(state);
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
   *   ERR_SENET_DTYPE, ERR_SENET_LABELS, ERR_SENET_NAN_OUTPUT, ERR_SENET_QUEUE_FULL, ERR_SENET_DISPOSED,
   *   ERR_SENET_ABORTED
   */
  classify(image: ImageSource, options?: ClassifyOptions): Promise<Classification[]>;
  classify(images: readonly ImageSource[], options?: ClassifyOptions): Promise<Classification[][]>;
  async classify(
    images: ImageSource | readonly ImageSource[],
    options?: ClassifyOptions,
  ): Promise<Classification[] | Classification[][]> {
    const { topK, signal } = this.#check(options, 'classify');
    const many = Array.isArray(images);
    const sources = many ? (images as readonly ImageSource[]) : [images as ImageSource];
    for (const [index, source] of sources.entries())
      checkSource(source, this.preprocessing, many ? `images[${index}]` : 'image');
    const works = sources.map(
      (source) => new ImageWork(source, this.preprocessing, this.#shrinkOnLoad, topK),
    );
    const results = await this.#track(this.#pipeline.run(works, signal));
    return many ? results : (results[0] as Classification[]);
  }

  /**
   * How many images wait and run now, as a snapshot. A server refuses a request while `waiting + running` is `limit`,
   * before it reads the body. `classifyBatch` is not in it.
   */
  get queue(): QueueState {
    return this.#pipeline.queue;
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
    const running = detached(null, () =>
      tidy(async () => {
        const own = pixels.detach(); // the caller may dispose his, and his scope may end
        const x = await preprocess(own, this.preprocessing, signal);
        return this.#rank(x, new Array<number>(shape[0] as number).fill(topK));
      }),
    );
    const results = await untilAborted(this.#track(running), signal);
    const nan = results.indexOf(null);
    if (nan >= 0) throw nanError(`classifyBatch: pixels[${nan}]`);
    return results as Classification[][];
  }

  /** Refuses new calls, waits for those that run or wait, and frees the network (a Module that was given stays). */
  async dispose(): Promise<void> {
    const first = !this.#disposed;
    this.#disposed = true;
    await Promise.allSettled([this.#pipeline.close(), ...this.#running]);
    if (first) this.#network.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #check(
    options: ClassifyOptions | undefined,
    where: string,
  ): { topK: number; signal: AbortSignal | undefined } {
    const checked = readOptions(options, CLASSIFY_RULES, where);
    throwIfAborted(checked.signal);
    if (this.#disposed) throw makeError('ERR_SENET_DISPOSED', `${where}: the classifier was disposed`);
    return checked;
  }

  /** `dispose` waits for it. */
  #track<T>(running: Promise<T>): Promise<T> {
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, forget);
    return running;
  }

  /** Inputs of one shape. */
  async #runBatch(works: readonly ImageWork[]): Promise<(Classification[] | Error)[]> {
    const inputs = works.map(({ input }) => input);
    const batch = inputs.length === 1 ? (inputs[0] as Tensor) : await run(undefined, 'aten::cat', inputs, 0);
    const results = await this.#rank(
      batch,
      works.map(({ topK }) => topK),
    );
    return results.map((labels) => labels ?? nanError('classify: image'));
  }

  /** The best classes for each image of a batch, as many as `topK` says for that image; null where its scores are NaN. */
  async #rank(input: Tensor, topK: readonly number[]): Promise<(Classification[] | null)[]> {
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
    const sums = probabilities.sum(1).toTypedArray() as Float32Array; // NaN with any score that is
    return topK.map((wanted, image) => {
      if (Number.isNaN(sums[image])) return null;
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

/** What the module says, or what is told of one that does not say it; 0 is unknown. */
function channelsOfModule(model: Module<unknown>, told: number | undefined): number {
  const own = channelsOf(model);
  if (own !== 0 && told !== undefined && told !== own) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `ImageClassifier.load: inChannels: the module takes ${own}, got ${told}`,
    );
  }
  return own || (told ?? 0);
}

/**
 * Images that one classifier decodes at the same time. Each occupies a thread of libuv's pool: one stays free for files
 * and names.
 */
function concurrentDecodes(): number {
  const pool = Number(process.env.UV_THREADPOOL_SIZE) || 4;
  return Math.max(1, Math.min(binding.configuration().availableThreads, pool - 1));
}

function nanError(where: string): Error {
  return makeError(
    'ERR_SENET_NAN_OUTPUT',
    `${where}: expected numbers from the network, its scores are NaN; look at the weights and the preprocessing`,
  );
}
