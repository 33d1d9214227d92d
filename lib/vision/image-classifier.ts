/**
 * ImageClassifier: a model with its weights, labels and preprocessing, from image to labels with scores.
 * Decoding is `decode`'s, pixels are `preprocessing`'s; here they are put together, batched and kept in step with
 * abort and dispose.
 */
import type { Device, DType } from '../binding';
import { load as loadStateDict } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import type { ProgressOption } from '../hub/progress';
import { modelInfo, type ModelName } from '../models/registry';
import { Module } from '../nn/module';
import { checkDevice, checkDType, isFloating } from '../tensor/dtype';
import { tensor } from '../tensor/factories';
import { abortError } from '../tensor/jobs';
import { checkInteger, checkOptions, checkSignal, describe } from '../tensor/options';
import { noGrad, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { decodeImage } from './decode';
import {
  countClasses,
  createFor,
  defaultPreprocessing,
  findWeights,
  readLabels,
  recordOf,
  toFile,
} from './network';
import { checkPreprocessing, PLAIN, preprocess, run, type Preprocessing } from './preprocessing';
import { PUBLISHED_WEIGHTS } from './weights';

export interface ImageClassifierOptions {
  /**
   * A path (any file that `load` reads), or the name of published weights: 'fashion_mnist' of se_resnet20 (part of this
   * package) and 'imagenet' of se_resnet50 (downloaded once). Required with a model's name.
   */
  weights?: string;
  /** The labels in order, or the path of a file with a JSON array or a line for each. Default: what the weights bring, else the indices. */
  labels?: readonly string[] | string;
  /** Overrides fields of the record that the weights bring. Default without one: torchvision's for ImageNet-sized models. */
  preprocessing?: Partial<Preprocessing>;
  /** Default 'cpu'. */
  device?: Device;
  /** Of weights and activations. Default 'float32'. */
  dtype?: DType;
  /** Of a download. Default true: a progress bar, on a terminal. */
  progress?: ProgressOption;
  /** Whether a downloaded file must have the SHA-256 that its name promises. Default true. */
  checkHash?: boolean;
  /** Rejects `load` with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
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

/** A path, the bytes of an image file, or a tensor: uint8 C x H x W with C 1 or 3 (pixels), or floating 3 x H x W (preprocessed). */
export type ImageSource = string | Uint8Array | Tensor;

const LOAD_OPTIONS = [
  'weights',
  'labels',
  'preprocessing',
  'device',
  'dtype',
  'progress',
  'checkHash',
  'signal',
] as const;
/** Images that go through the model together. */
const BATCH = 16;
/** Images that are decoded at the same time. */
const CONCURRENT_DECODES = 4;

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
  readonly #model: Module<unknown>;
  readonly #ownsModel: boolean;
  readonly #device: Device;
  readonly #dtype: DType;
  readonly #running = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(
    model: Module<unknown>,
    ownsModel: boolean,
    labels: readonly string[],
    preprocessing: Preprocessing,
    device: Device,
    dtype: DType,
  ) {
    this.#model = model;
    this.#ownsModel = ownsModel;
    this.labels = labels;
    this.preprocessing = preprocessing;
    this.#device = device;
    this.#dtype = dtype;
  }

  /**
   * Makes a classifier from a model's name and weights, or from a Module. The number of classes and the reduction come
   * from the shapes of the weights. A Module that is given is put into evaluation mode, and stays the caller's to dispose.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown
   *   weights), ERR_SENET_UNKNOWN_OPTION; ERR_SENET_LABELS; ERR_SENET_STATE_DICT and the other errors of `load`;
   *   ERR_SENET_DOWNLOAD, ERR_SENET_OFFLINE, ERR_SENET_HASH; ERR_SENET_CUDA_UNAVAILABLE; ERR_SENET_ABORTED
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
        made.to({ dtype, device }).eval();
        const classes = countClasses(made);
        const labels =
          givenLabels ?? brought.labels ?? Array.from({ length: classes ?? 0 }, (_, index) => String(index));
        if (classes !== undefined && labels.length !== classes) {
          throw makeError(
            'ERR_SENET_LABELS',
            `ImageClassifier.load: the model has ${classes} classes and there are ${labels.length} labels`,
          );
        }
        return new ImageClassifier(made, !isModule, Object.freeze([...labels]), preprocessing, device, dtype);
      } catch (error) {
        if (!isModule) made.dispose();
        throw error;
      }
    } finally {
      state?.dispose();
    }
  }

  /**
   * Classifies one image, or several as batches.
   *
   * @returns the best labels of the image, best first; for an array one such list for each image
   * @throws (rejects) ERR_SENET_IMAGE, ERR_SENET_IMAGE_SIZE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE,
   *   ERR_SENET_BUFFER, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_SHAPE,
   *   ERR_SENET_DTYPE, ERR_SENET_LABELS, ERR_SENET_DISPOSED, ERR_SENET_ABORTED
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
    for (const [index, source] of sources.entries()) {
      if (typeof source === 'string' || source instanceof Uint8Array || Tensor.isTensor(source)) continue;
      const place = many ? `images[${index}]` : 'image';
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `classify: ${place}: expected a path, a Uint8Array or a Tensor, got ${describe(source)}`,
      );
    }
    const results = await this.#track(async () => {
      const all: Classification[][] = [];
      for (let start = 0; start < sources.length; start += BATCH) {
        all.push(...(await this.#classifySources(sources.slice(start, start + BATCH), topK, signal)));
      }
      return all;
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
      () =>
        inScope(async () => this.#rank(await preprocess(pixels, this.preprocessing, signal), topK, signal)),
      signal,
    );
  }

  /** Refuses new calls, waits for those that run, and frees the model, unless it was given as a Module. */
  async dispose(): Promise<void> {
    const first = !this.#disposed;
    this.#disposed = true;
    await Promise.allSettled(this.#running);
    if (first && this.#ownsModel) this.#model.dispose();
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

  /** Runs `work` so that `dispose` waits for it, and rejects at once when the signal aborts; `work` then ends unseen. */
  #track<T>(work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const running = work();
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, forget);
    if (signal === undefined) return running;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(abortError(signal));
      signal.addEventListener('abort', onAbort, { once: true });
      running.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  #classifySources(
    sources: readonly ImageSource[],
    topK: number,
    signal: AbortSignal | undefined,
  ): Promise<Classification[][]> {
    return inScope(async () => {
      const inputs = new Array<Tensor>(sources.length);
      let next = 0;
      const work = async (): Promise<void> => {
        for (let index = next++; index < sources.length; index = next++) {
          throwIfAborted(signal);
          inputs[index] = await this.#toInput(sources[index] as ImageSource, signal);
        }
      };
      // All have ended before an error leaves this scope: its end disposes what they use.
      const workers = Array.from({ length: Math.min(CONCURRENT_DECODES, sources.length) }, work);
      const failed = (await Promise.allSettled(workers)).find((worker) => worker.status === 'rejected');
      if (failed !== undefined) throw failed.reason as Error;
      const shapes = new Set(inputs.map(({ shape }) => shape.slice(1).join(' x ')));
      if (shapes.size > 1) {
        throw makeError(
          'ERR_SENET_SHAPE',
          `classify: the images of a batch have different sizes after preprocessing (${[...shapes].join(', ')}); crop or classify them one by one`,
        );
      }
      const batch = inputs.length === 1 ? (inputs[0] as Tensor) : await run(signal, 'aten::cat', inputs, 0);
      return this.#rank(batch, topK, signal);
    });
  }

  /** 1 x 3 x H x W, float32. */
  async #toInput(source: ImageSource, signal: AbortSignal | undefined): Promise<Tensor> {
    if (!Tensor.isTensor(source)) {
      const { data, height, width } = await decodeImage(source);
      throwIfAborted(signal);
      // A scope of its own: the pixels of a large photograph must not wait for the rest of the batch.
      return tidy(() => {
        const pixels = tensor(data, { shape: [1, height, width, 3] }).permute([0, 3, 1, 2]);
        return preprocess(pixels, this.preprocessing, signal);
      });
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
    const one = source.to('cpu').unsqueeze(0);
    return preprocessed ? one.detach().to('float32') : preprocess(one, this.preprocessing, signal);
  }

  /** The best `topK` classes for each image of a batch. */
  async #rank(input: Tensor, topK: number, signal: AbortSignal | undefined): Promise<Classification[][]> {
    const x = input.to({ dtype: this.#dtype, device: this.#device });
    const logits = (await this.#model.forward(x, signal === undefined ? {} : { signal })) as Tensor;
    const [count, classes] = logits.shape;
    if (logits.shape.length !== 2 || count === undefined || classes === undefined) {
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
    const kept = Math.min(topK, classes);
    const { values, indices } = logits.to('cpu').to('float32').softmax(1).topk(kept);
    const scores = values.toTypedArray() as Float32Array;
    const places = indices.toTypedArray() as BigInt64Array;
    return Array.from({ length: count }, (_, image) =>
      Array.from({ length: kept }, (_unused, place) => {
        const index = Number(places[image * kept + place]);
        return {
          label: this.labels[index] ?? String(index),
          index,
          score: scores[image * kept + place] as number,
        };
      }),
    );
  }
}

function inScope<T>(work: () => Promise<T>): Promise<T> {
  return tidy(() => noGrad(work));
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}
