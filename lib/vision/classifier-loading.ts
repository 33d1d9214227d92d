/**
 * What an ImageClassifier is made of, found and made: from a model's name and weights, or a Module, to a network that is
 * ready, with labels and preprocessing for it. In this order: the weights that are meant (`models/open-weights`), the model
 * of their shape (`models/from-weights`), what else they bring (`weights-metadata`), and what runs the model (`predictor`).
 */
import type { Device, DType } from '../binding';
import { makeError } from '../errors';
import type { ProgressOption } from '../hub/progress';
import { ClassifierModel, familyOf } from '../models/classifier-model';
import { TRANSFER } from '../models/fetch-weights';
import { wantedWeights } from '../models/find-weights';
import { createWithWeights, weightsChannels, type Subject } from '../models/from-weights';
import type { OpenedWeights } from '../models/open-weights';
import { recordBehind } from '../models/record';
import { quantizationIn, type QuantizationRecord } from '../nn/calibration';
import { openWeights, parseName, type ModelName } from '../models/registry';
import { PLAIN, type Preprocessing } from '../models/preprocessing-record';
import { Identity } from '../nn/layers';
import { Module } from '../nn/module';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkDevice, checkDType, isFloating } from '../tensor/dtype';
import { describe } from '../tensor/options';
import {
  boolean,
  integer,
  optional,
  orElse,
  readOptions,
  string,
  unchecked,
  type Rule,
  type Rules,
  type Values,
} from '../tensor/rules';
import { loadDecoder, MAX_PIXELS } from './decode';
import { BATCHING, type BatchingOptions } from './image-batches';
import type { DecodingSettings } from './image-work';
import { readLabels } from './labels';
import { checkImageChannels, moduleChannels, moduleClasses } from './model-facts';
import { checkUnchanged, fileIdentity, PlainModule } from './plain-module';
import { makePredictor, type Predictor } from './predictor';
import { chooseRecord } from './preprocessing-options';
import { broughtBy, type Brought } from './weights-metadata';

export interface ImageClassifierOptions {
  /**
   * A path (any file that `load` reads), or the name of published weights: 'fashion_mnist' of se_resnet20 (part of this
   * package), 'imagenet' of se_resnet50, timm's tags such as 'a1_in1k' of seresnet50, a repository of the hub
   * ('hf-hub:...'); they are downloaded once. Required with a model's name without a tag, unless `pretrained` is true.
   */
  weights?: string;
  /** The model's usual published weights, in place of `weights`. Default false. */
  pretrained?: boolean;
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
   * Channels of the network's input: 1 or 3, as images have them. Default: what the weights or the Module say. For another
   * number the weights of timm's, Cadene's and pytorchcv's networks are adapted, as in timm; else it is a contradiction
   * (ERR_SENET_STATE_DICT for weights, ERR_SENET_ARG_RANGE for a Module). A Module whose forward is TypeScript needs it.
   */
  inChannels?: number;
  /**
   * Prepares images for the larger size at which the weights are better than at the one that they were trained with, where
   * their record or `config.json` says one (timm's `use_test_size`); else ERR_SENET_ARG_RANGE. Default false.
   */
  useTestSize?: boolean;
  /**
   * Lets JPEGs that are much larger than `preprocessing.size` be shrunk while they are decoded (libjpeg scales by 1/2,
   * 1/4 or 1/8). Several times as fast, and near to Pillow's pixels instead of equal: scores move a little. Default false.
   */
  shrinkOnLoad?: boolean;
  /**
   * Pixels (width x height) of an image file at most; more are ERR_SENET_IMAGE_SIZE before anything is decoded. Default, and at
   * most: 89,478,485, where Pillow begins to warn of bombs.
   */
  maxPixels?: number;
  /** Default 'cpu'. */
  device?: Device;
  /**
   * Of weights and activations. Default 'float32'. The network is a compiled copy (`Module.compile`) for float32,
   * bfloat16, and float16 where the device computes with it, and 'int8' of weights that `quantizeWeights` wrote; for float64, and for a Module whose forward is TypeScript
   * that cannot be traced, it is the plain module.
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

/** What an ImageClassifier is made of. */
export interface ClassifierParts {
  /** The network's name; null of one that the library does not know. */
  readonly model: ModelName | null;
  readonly predictor: Predictor;
  /** The plain module, for `explain`. */
  readonly eager: PlainModule;
  /** In the order of the model's outputs; none if it does not say how many it has. */
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
  readonly decoding: DecodingSettings;
  readonly batching: Required<BatchingOptions>;
}

const WHERE = 'ImageClassifier.load';

const computing: Rule<DType> = (given, what) => {
  const dtype = checkDType(given, what);
  if (isFloating(dtype) || dtype === 'int8') return dtype;
  throw makeError('ERR_SENET_DTYPE', `${what}: expected a floating dtype or int8, got ${dtype}`);
};

// What stands here unchecked is checked where it is read.
const OPTIONS = {
  weights: optional(string),
  pretrained: orElse(false, boolean),
  key: optional(string),
  prefix: optional(string),
  labels: unchecked<readonly string[] | string>(),
  preprocessing: unchecked<Partial<Preprocessing>>(),
  inChannels: optional(integer(1)),
  useTestSize: orElse(false, boolean),
  shrinkOnLoad: orElse(false, boolean),
  maxPixels: orElse(MAX_PIXELS, integer(1, MAX_PIXELS)),
  device: orElse('cpu', checkDevice),
  dtype: orElse('float32', computing),
  batching: (given: unknown, what: string) =>
    readOptions(given as BatchingOptions | undefined, BATCHING, what),
  ...TRANSFER,
} satisfies Rules<ImageClassifierOptions>;

type Given = Values<typeof OPTIONS>;

/** The parts of a classifier. Errors: as `ImageClassifier.load`. */
export async function loadParts(
  model: string | Module<unknown> | null,
  options: ImageClassifierOptions | undefined,
): Promise<ClassifierParts> {
  const given = readOptions(options, OPTIONS, WHERE);
  const { dtype, device, shrinkOnLoad, maxPixels, batching, signal } = given;
  throwIfAborted(signal);
  const opened = await openFor(model, given);
  const state = opened?.state;
  try {
    const subject = opened?.subject ?? (model as Module<unknown>);
    const brought: Brought = opened === null ? {} : await broughtBy(opened);
    const channels = subjectChannels(subject, opened, given);
    const preprocessing = preprocessingFor(subject, brought, channels, given);
    const labels = given.labels === undefined ? brought.labels : await readLabels(given.labels);
    const made = Module.isModule(subject)
      ? subject
      : createWithWeights(opened as OpenedWeights, { inChannels: channels });
    const owned = made !== subject;
    try {
      if (!owned && state !== undefined) made.loadStateDict(state);
      const finalLabels = labelsFor(made, labels);
      // The predictor is made on the executor's threads, meanwhile this one loads the decoder.
      const calibration = calibrationIn(opened, dtype);
      const making = makePredictor(made, owned, dtype, device, preprocessing, signal, calibration);
      const [predictor] = await Promise.all([making, loadDecoder()]);
      const plain = owned ? predictor.module : made;
      const eager =
        plain === undefined
          ? await remaking(opened as OpenedWeights, { model, given, channels })
          : new PlainModule(() => Promise.resolve(plain), false);
      return {
        model: nameOf(subject),
        predictor,
        eager,
        labels: finalLabels,
        preprocessing,
        decoding: { shrinkOnLoad, maxPixels },
        batching,
      };
    } catch (error) {
      if (owned) made.dispose();
      throw error;
    }
  } finally {
    state?.dispose();
  }
}

/** What the weights say that bytes mean. @throws ERR_SENET_CALIBRATION */
function calibrationIn(opened: OpenedWeights<Subject> | null, dtype: DType): QuantizationRecord | undefined {
  if (dtype !== 'int8') return undefined;
  const found =
    opened === null ? undefined : quantizationIn(opened.state.fileMetadata, printable(opened.file, 1000));
  if (found !== undefined) return found;
  throw makeError(
    'ERR_SENET_CALIBRATION',
    `${WHERE}: dtype: int8 is for weights that were quantised (quantizeWeights, senet-torch quantize), and these were not`,
  );
}

/** The module that a compiled copy was made of, to be made once more of the same weights. */
async function remaking(
  { file, published }: OpenedWeights,
  { model, given, channels }: { model: string | Module<unknown> | null; given: Given; channels: number },
): Promise<PlainModule> {
  // What is published is checked by its name, wherever it lies by then.
  const identity = published === undefined ? await fileIdentity(file).catch(() => '') : undefined;
  // The call that wants it has a signal of its own, and leaves alone.
  const again: Given = { ...given, signal: undefined, progress: false };
  const make = async (): Promise<Module<unknown>> => {
    if (identity !== undefined) await checkUnchanged(file, identity);
    const opened = (await openFor(model, again)) as OpenedWeights;
    try {
      const made = createWithWeights(opened, { inChannels: channels }).eval();
      return made.to({ dtype: 'float32', device: given.device });
    } finally {
      opened.state.dispose();
    }
  };
  return new PlainModule(make, true);
}

/** The weights that are meant, with the network that they are for; null of a Module that is given none. */
async function openFor(model: unknown, given: Given): Promise<OpenedWeights<Subject> | null> {
  const { weights, pretrained } = given;
  if (Module.isModule(model)) {
    if (pretrained)
      throw makeError('ERR_SENET_ARG_RANGE', `${WHERE}: pretrained: for a Module, give weights`);
    if (weights === undefined) return null;
    return openWeights({ subject: model, weights }, given, WHERE);
  }
  if (typeof model !== 'string' && model !== null) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${WHERE}: expected a model's name or a Module, the path of weights, or null, got ${describe(model)}`,
    );
  }
  const source = model === null ? null : parseName(model, WHERE);
  return openWeights(wantedWeights(source, { weights, pretrained }, WHERE), given, WHERE);
}

function nameOf(subject: Subject): ModelName | null {
  const record = Module.isModule(subject) ? recordBehind(subject) : subject;
  return (record?.name ?? null) as ModelName | null;
}

/** Channels of the images, which a Module whose forward is TypeScript does not say; 0 is unknown. */
function subjectChannels(
  subject: Subject,
  opened: OpenedWeights<Subject> | null,
  { inChannels: told }: Given,
): number {
  const channels = Module.isModule(subject)
    ? agreedChannels(subject, told)
    : (told ?? weightsChannels(opened as OpenedWeights));
  if (channels !== 0) checkImageChannels(channels, `${WHERE}: inChannels`);
  return channels;
}

function agreedChannels(model: Module<unknown>, told: number | undefined): number {
  const own = moduleChannels(model);
  if (own !== 0 && told !== undefined && told !== own) {
    throw makeError('ERR_SENET_ARG_RANGE', `${WHERE}: inChannels: the module takes ${own}, got ${told}`);
  }
  return own || (told ?? 0);
}

function preprocessingFor(
  subject: Subject,
  brought: Brought,
  channels: number,
  { preprocessing: given, useTestSize }: Given,
): Preprocessing {
  const family = Module.isModule(subject) ? familyOf(subject) : subject;
  if (useTestSize && brought.testPreprocessing === undefined) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${WHERE}: useTestSize: the weights say of no other size that they are better at it`,
    );
  }
  const said = useTestSize ? brought.testPreprocessing : brought.preprocessing;
  const base = said ?? family?.preprocessing ?? undefined;
  if (base === undefined && given === undefined) {
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${WHERE}: preprocessing: the weights bring no record and this model has no usual one; give size, mean and std`,
    );
  }
  return chooseRecord(given, base ?? PLAIN, channels, `${WHERE}: preprocessing`);
}

/** As many as the model has classes, where it says how many: by default their numbers. @throws ERR_SENET_LABELS */
function labelsFor(model: Module<unknown>, given: readonly string[] | undefined): readonly string[] {
  if (model instanceof ClassifierModel && model.getClassifier() instanceof Identity) {
    throw makeError(
      'ERR_SENET_LABELS',
      `${WHERE}: the model has no classifier and gives ${model.numFeatures} features: it classifies after resetClassifier(numClasses) and training`,
    );
  }
  const classes = moduleClasses(model);
  const labels = given ?? Array.from({ length: classes ?? 0 }, (_, index) => String(index));
  if (classes !== undefined && labels.length !== classes) {
    throw makeError(
      'ERR_SENET_LABELS',
      `${WHERE}: the model has ${classes} classes and there are ${labels.length} labels`,
    );
  }
  return Object.freeze([...labels]);
}
