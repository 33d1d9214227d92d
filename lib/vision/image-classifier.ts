/**
 * ImageClassifier: from image to labels with scores. `classifier-loading` makes its parts. An image then goes, in this
 * order, through `image-work` (from what the caller gave to the network's input: `image-source`, then nearly every JPEG and
 * PNG in one job, `input-by-rows`, and all others by `decode` and `preprocessing`), `image-batches` and `pipeline` (with
 * which others, and when), `predictor` and `ranking`.
 */
import { makeError } from '../errors';
import {
  ABLATE_CHANNELS,
  ablateWith,
  type AblateChannelsOptions,
  type ChannelImportance,
} from '../explain/ablation';
import type { Preprocessing } from '../models/preprocessing-record';
import type { AnyText, ModelName, WeightsPath } from '../models/registry';
import type { Module } from '../nn/module';
import { throwIfAborted, untilAborted } from '../tensor/abort';
import { checkString, describe } from '../tensor/options';
import { fn, integer, optional, orElse, readOptions, signal, type Rules, type Values } from '../tensor/rules';
import { detached, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { loadParts, type ClassifierParts, type ImageClassifierOptions } from './classifier-loading';
import { EXPLAIN, type ExplainOptions } from './explain-input';
import { Explainer } from './explaining';
import type { Explanation } from './explanation';
import { imagePipeline } from './image-batches';
import { checkSource, ImageWork, type DecodingSettings, type ImageSource } from './image-work';
import type { ItemTimes, Pipeline, QueueState } from './pipeline';
import type { Predictor } from './predictor';
import { preprocess, shapePixels } from './preprocessing';
import { nanError, rank, type Classification, type Prediction, type Wanted } from './ranking';

export interface ClassifyOptions {
  /** How many labels, best first; clamped to the number of classes. Default 5. */
  topK?: number;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
  /** Called before the answer, with what each image took, in order. `classifyBatch` never calls it. */
  onTimes?: (times: readonly ItemTimes[]) => void;
}

const PREDICT = {
  signal,
  onTimes: optional(fn<(times: readonly ItemTimes[]) => void>()),
} satisfies Rules<PredictOptions>;
const CLASSIFY = { topK: orElse(5, integer(1)), ...PREDICT } satisfies Rules<ClassifyOptions>;

export type PredictOptions = Omit<ClassifyOptions, 'topK'>;

/**
 * Classifies images.
 *
 * @example
 * const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
 * const [best] = await classifier.classify('shoe.png');
 * console.log(best.label, best.score);
 */
export class ImageClassifier {
  /** The network's name; null of a Module that is none of `listModels`. */
  readonly model: ModelName | null;
  /** In the order of the model's outputs. */
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
  readonly #predictor: Predictor;
  readonly #decoding: DecodingSettings;
  readonly #pipeline: Pipeline<ImageWork, Classification[] | Prediction>;
  readonly #explainer: Explainer;
  readonly #running = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(parts: ClassifierParts) {
    const { model, predictor, labels, preprocessing, decoding, batching } = parts;
    this.model = model;
    this.#predictor = predictor;
    this.labels = labels;
    this.preprocessing = preprocessing;
    this.#decoding = decoding;
    this.#pipeline = imagePipeline(batching, predictor.lanes, (input, wanted) =>
      this.#classify(input, wanted),
    );
    this.#explainer = new Explainer(parts.eager, parts, batching);
  }

  /**
   * Makes a classifier from a model's name and weights, from weights alone (a path, or null and `weights`: the network is
   * the one that they are for), or from a Module. The number of classes, the input channels and
   * the reduction come from the shapes of the weights. A Module that is given is put into evaluation mode and moved to the device, and stays
   * the caller's to dispose. The classifier keeps a compiled copy of it, which later training does not change; for
   * float64, and if its forward is TypeScript that cannot be traced (`Module.compile`), it is converted and used itself.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_MODEL, ERR_SENET_UNKNOWN_WEIGHTS, ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown
   *   weights, input channels that no image has), ERR_SENET_UNKNOWN_OPTION; ERR_SENET_DTYPE (not floating, or one that the device does not compute with);
   *   ERR_SENET_COMPILE; ERR_SENET_LABELS; ERR_SENET_STATE_DICT and the other errors of `load`; ERR_SENET_DOWNLOAD, ERR_SENET_OFFLINE, ERR_SENET_HASH; ERR_SENET_CUDA_UNAVAILABLE; ERR_SENET_ABORTED
   */
  static async load<S extends string>(
    model: ModelName | `${ModelName}.${string}` | WeightsPath | AnyText<S> | Module<unknown> | null,
    options?: ImageClassifierOptions,
  ): Promise<ImageClassifier> {
    return new ImageClassifier(await loadParts(model, options));
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
  classify(
    images: ImageSource | readonly ImageSource[],
    options?: ClassifyOptions,
  ): Promise<Classification[] | Classification[][]> {
    return this.#run(images, () => this.#check(options, CLASSIFY, 'classify')) as Promise<
      Classification[] | Classification[][]
    >;
  }

  /**
   * What the network says of an image, class by class, or of several: as `classify`, in the same batches, without the
   * choice of the best.
   *
   * @throws (rejects) as `classify`
   */
  predict(image: ImageSource, options?: PredictOptions): Promise<Prediction>;
  predict(images: readonly ImageSource[], options?: PredictOptions): Promise<Prediction[]>;
  predict(
    images: ImageSource | readonly ImageSource[],
    options?: PredictOptions,
  ): Promise<Prediction | Prediction[]> {
    return this.#run(images, () => ({ ...this.#check(options, PREDICT, 'predict'), topK: 'all' })) as Promise<
      Prediction | Prediction[]
    >;
  }

  /** One function of classify and predict that rejects, and one turn between a batch and its callers. */
  async #run(
    images: ImageSource | readonly ImageSource[],
    check: () => Values<typeof PREDICT> & { topK: Wanted },
  ): Promise<unknown> {
    const { topK: wanted, signal, onTimes } = check();
    const many = Array.isArray(images);
    const sources = many ? (images as readonly ImageSource[]) : [images as ImageSource];
    for (const [index, source] of sources.entries())
      checkSource(source, this.preprocessing, many ? `images[${index}]` : 'image');
    const works = sources.map(
      (source) =>
        new ImageWork(source, this.preprocessing, this.#decoding, wanted, this.#predictor.takesPixels),
    );
    const times: ItemTimes[] | undefined = onTimes && [];
    const results = await this.#track(this.#pipeline.run(works, signal, times));
    if (times !== undefined) onTimes?.(times);
    return many ? results : results[0];
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
    const { topK, signal } = this.#check(options, CLASSIFY, 'classifyBatch');
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
        const prepare = this.#predictor.takesPixels ? shapePixels : preprocess;
        const x = await prepare(own, this.preprocessing, signal);
        return this.#classify(x, new Array<number>(shape[0] as number).fill(topK));
      }),
    );
    const results = await untilAborted(this.#track(running), signal);
    const nan = results.indexOf(null);
    if (nan >= 0) throw nanError(`classifyBatch: pixels[${nan}]`);
    return results as Classification[][];
  }

  /**
   * Explains what the network sees in an image: its labels, a map of where it saw a class, and the gates of its SE layers.
   *
   * It looks into the plain module, in evaluation mode. A Module that was given to `load` is looked into itself, as it is
   * now: later training shows, and other weights than those of the compiled copy that classifies. Of weights that `load` read,
   * the first call reads them again and makes the module, in float32 whatever `dtype` is; `dispose` frees it. A file that
   * was changed since is refused. Images are explained one at a time, beside those that are classified, off the event
   * loop; at most `batching.maxQueue` wait.
   *
   * @throws (rejects) as `classify`; ERR_SENET_ARG_RANGE for a layer that is not there, is not called or gives no
   *   N x C x h x w, for a class that is not there, and for gates of no SE layer; ERR_SENET_AUTOGRAD for a layer that the scores do
   *   not depend on; ERR_SENET_FILE_CHANGED, and what `load` rejects with for weights that cannot be read again
   */
  async explain(image: ImageSource, options?: ExplainOptions): Promise<Explanation> {
    const checked = readOptions(options, EXPLAIN, 'explain');
    this.#checkOpen(checked.signal, 'explain');
    checkSource(image, this.preprocessing, 'image', 'explain');
    return this.#track(this.#explainer.explain(image, checked));
  }

  /**
   * What each channel of one SE layer is worth for an image: how much less probable its class is without it
   * (`ablateChannels`). Of the plain module, and in turn with `explain`.
   *
   * @param layer path of the SE layer ("layer4.2.se")
   * @throws (rejects) as `explain` and `ablateChannels`
   */
  async ablate(
    image: ImageSource,
    layer: string,
    options?: AblateChannelsOptions,
  ): Promise<ChannelImportance> {
    const checked = readOptions(options, ABLATE_CHANNELS, 'ablate');
    checkString(layer, 'ablate: layer');
    this.#checkOpen(checked.signal, 'ablate');
    checkSource(image, this.preprocessing, 'image', 'ablate');
    return this.#track(
      this.#explainer.run(image, checked.signal, (model, x) => ablateWith(model, x, layer, checked)),
    );
  }

  /** Refuses new calls, waits for those that run or wait, and frees the network (a Module that was given stays). */
  async dispose(): Promise<void> {
    const first = !this.#disposed;
    this.#disposed = true;
    await Promise.allSettled([this.#pipeline.close(), this.#explainer.close(), ...this.#running]);
    if (first) this.#predictor.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #check<const R extends Rules<PredictOptions>>(
    options: PredictOptions | undefined,
    rules: R,
    where: string,
  ): Values<R> {
    const checked = readOptions(options, rules, where);
    this.#checkOpen(checked.signal as AbortSignal | undefined, where);
    return checked;
  }

  #checkOpen(signal: AbortSignal | undefined, where: string): void {
    throwIfAborted(signal);
    if (this.#disposed) throw makeError('ERR_SENET_DISPOSED', `${where}: the classifier was disposed`);
  }

  /** `dispose` waits for it. */
  #track<T>(running: Promise<T>): Promise<T> {
    this.#running.add(running);
    const forget = (): void => void this.#running.delete(running);
    running.then(forget, forget);
    return running;
  }

  async #classify(
    input: Tensor,
    wanted: readonly Wanted[],
  ): Promise<(Classification[] | Prediction | null)[]> {
    return rank(await this.#predictor.forward(input), this.labels, wanted);
  }
}
