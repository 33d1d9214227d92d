/**
 * The options of a training recipe, a row for each: how it is typed, what it allows, what it means, its default, whether
 * a resumed run must have the same, and what the report shows of it. The command line's `--help` and parsing, the checks
 * of `trainFromSettings` and its parts, resuming and the report's table all follow from these rows. Loads nothing native.
 */
import path from 'node:path';

import { DEFAULT_NETWORK } from '../../models/defaults';
import { PRECISIONS } from '../../tensor/dtype';
import { count, percent } from '../words';
import {
  AUGMENTATIONS,
  BALANCES,
  DATASET_KINDS,
  type RecipeKind,
  type TrainingOptions,
  type TrainingSettings,
} from './settings';
import {
  augmentations,
  channelNumbers,
  choice,
  flag,
  foldOf,
  imageChannels,
  integer,
  modelParts,
  number,
  partFactors,
  paths,
  shareOrPath,
  text,
  type ValueKind,
} from './value-kinds';

/** What defaults depend on beside other options. */
export interface RecipeFacts {
  readonly command: RecipeKind;
  /** Height of the data set's images where all are small and alike, as MNIST's and CIFAR's; null for folders. */
  readonly smallSize: number | null;
  readonly model: { readonly inputSize: number; readonly anyInputSize: boolean };
}

type Constant = string | number | boolean | null | readonly string[];
export type Words = string | ((command: RecipeKind) => string);
export type ReportRows = readonly (readonly [name: string, value: string])[];

export interface OptionRow {
  /** As commander reads them. */
  readonly flags: string;
  readonly kind: ValueKind;
  readonly help?: Words;
  /** What is recorded if nothing was given. Default: not recorded, or found elsewhere. */
  readonly default?: Constant | ((chosen: TrainingSettings, facts: RecipeFacts) => unknown);
  /** What `--help` says of the default. Default: the default, if it is a number or a word. */
  readonly usual?: Words;
  /** A flag beside this one that turns it off. */
  readonly off?: { readonly flags: string; readonly help: string };
  readonly only?: RecipeKind;
  /** Null is as not given. */
  readonly nullable?: true;
  /** No option of the library: the caller has other ways. */
  readonly commandLineOnly?: true;
  /** Checked after parsing, with what only the library is given: its message has a code. */
  readonly late?: true;
  /** True: a resumed run may have another value, which changes none of its numbers. */
  readonly free?: true;
  /** What a run was started with. Default: the setting of this name. */
  readonly started?: (settings: TrainingSettings) => unknown;
  /** What settings may hold for a given value. Default: the value itself. */
  readonly recordedAs?: (value: never) => readonly unknown[];
  /** Rows of the report's table. */
  readonly report?: (settings: TrainingSettings, images: ImageCounts) => ReportRows;
}

export interface ImageCounts {
  readonly training: number;
  readonly validation: number;
}

/** How much of the training images is for validation where the data set brings none of its own. */
export const VALIDATION_SHARE = 0.1;
/** Images that the optimiser's default learning rate is meant for. */
const USUAL_BATCH = 128;
const USUAL_EPOCHS = { train: 10, finetune: 5 };
const USUAL_RATE = { sgd: 0.2, adamw: 1e-3 };
const USUAL_DECAY = { sgd: 5e-4, adamw: 0.01 };
/** Weights that exist are changed in smaller steps. */
const RATE_SHARE = { train: 1, finetune: 0.1 };

function usualRate(command: RecipeKind, optimizer: 'sgd' | 'adamw', batchSize: number): number {
  const scale = optimizer === 'sgd' ? batchSize / USUAL_BATCH : 1;
  return Number((USUAL_RATE[optimizer] * scale * RATE_SHARE[command]).toPrecision(6));
}

const NONE: readonly string[] = [];

const asPath = (value: string): readonly unknown[] => [path.resolve(value)];

/** What belongs to the caller's own program, beside the rows. */
export type Callback = 'command' | 'data' | 'progress' | 'signal' | 'onStart' | 'onProgress';
export type OptionName = Exclude<keyof TrainingOptions, Callback> | 'threads' | 'json';

/** The headings of `--help` after the first, and the option that each begins with. */
export const OPTION_GROUPS: readonly { readonly heading: string; readonly first: OptionName }[] = [
  { heading: 'Data:', first: 'dataset' },
  { heading: 'Optimisation:', first: 'epochs' },
  { heading: 'Run:', first: 'seed' },
];

export const OPTION_ROWS: Readonly<Record<OptionName, OptionRow>> = {
  model: {
    flags: '-m, --model <name>',
    kind: text,
    help: (command) =>
      command === 'train'
        ? 'the model, one of `senet-torch models`'
        : 'the model that the weights belong to, or what says both: a tag (seresnet50.a1_in1k), hf-hub:REPOSITORY, local-dir:FOLDER',
    usual: (command) => (command === 'train' ? DEFAULT_NETWORK : 'what the weights say'),
    report: ({ model, modelOptions }) => [
      ['model', [model, ...Object.entries(modelOptions).map((pair) => pair.join(' '))].join(', ')],
    ],
  },
  reduction: {
    flags: '--reduction <n>',
    kind: integer(1),
    help: 'of its SE layers, for the small models',
    usual: '16',
    only: 'train',
    started: ({ modelOptions }) => modelOptions.reduction,
  },
  inChannels: {
    flags: '--in-channels <n>',
    kind: imageChannels,
    help: 'of its images: 3, or 1, which makes all images grey',
    usual: '3',
    only: 'train',
    started: ({ modelOptions }) => modelOptions.inChannels ?? 3,
  },
  weights: {
    flags: '-w, --weights <file>',
    nullable: true,
    kind: text,
    help: 'the checkpoint to start from, or the name of published weights',
    only: 'finetune',
    recordedAs: (value: string) => [path.resolve(value), value],
    report: ({ weights }) => (weights === null ? [] : [['started from', path.basename(weights)]]),
  },
  key: {
    flags: '--key <key>',
    kind: text,
    help: 'where in the file the state dict is, such as state_dict_ema or model.ema; default: the one that fits',
    only: 'finetune',
    free: true,
  },
  prefix: {
    flags: '--prefix <prefix>',
    kind: text,
    help: "what its names begin with, such as 'model.'; default: what the model shows",
    only: 'finetune',
    free: true,
  },
  pretrained: {
    flags: '--pretrained',
    kind: flag,
    help: "start from the model's published weights; downloads them if need be",
    only: 'finetune',
    free: true,
  },
  checkHash: {
    flags: '--no-check-hash',
    kind: flag,
    help: 'accept a download whose SHA-256 is not the promised one',
    only: 'finetune',
    free: true,
  },
  freeze: {
    flags: '--freeze <parts>',
    kind: modelParts,
    help: "parts that stay as they are: 'backbone' (all but the head), or paths such as conv1,bn1,layer1",
    usual: 'none',
    only: 'finetune',
    report: ({ freeze }) => (freeze.length === 0 ? [] : [['frozen', freeze.join(', ')]]),
  },
  dataset: {
    flags: '--dataset <kind>',
    kind: choice(DATASET_KINDS),
    help: 'what <data> is',
    usual: 'looked at',
    report: ({ data, dataset }, { training, validation }) => [
      ['data', `${path.basename(data)} (${dataset})`],
      ['training images', training.toLocaleString('en')],
      ['validation images', validation.toLocaleString('en')],
    ],
  },
  set: {
    flags: '--set <name>',
    nullable: true,
    kind: text,
    help: 'of several data sets in a folder of IDX files, the one that is meant, such as letters of EMNIST',
    default: null,
  },
  splits: {
    flags: '--no-splits',
    kind: flag,
    help: 'folders called train, val, test and the like are classes, as all others',
    default: true,
    started: ({ splits }) => splits ?? true,
  },
  labels: {
    flags: '--labels <file>',
    nullable: true,
    kind: text,
    help: 'names of the classes, where the data knows numbers only: a line for each, or a JSON array or object',
    recordedAs: asPath,
  },
  validation: {
    flags: '--validation <data>',
    kind: shareOrPath,
    help: `data of the same kind; a share of the training images, such as ${VALIDATION_SHARE}; or none`,
    usual: `the data set's own test images, a folder for validation or test beside the one for training, else ${VALIDATION_SHARE}`,
    late: true,
    recordedAs: (value: unknown) => [typeof value === 'string' ? path.resolve(value) : value],
  },
  also: {
    flags: '--also <data...>',
    kind: paths,
    help: 'further data sets, of whatever kind, whose images are mixed with those of <data>: classes of the same name are one',
    default: NONE,
    started: ({ also }) => also ?? NONE,
    recordedAs: (value: readonly string[]) => [value.map((one) => path.resolve(one))],
    report: ({ also = NONE }) =>
      also.length === 0 ? [] : [['mixed with', also.map((one) => path.basename(one)).join(', ')]],
  },
  fold: {
    flags: '--fold <k/n>',
    nullable: true,
    kind: foldOf,
    help: 'validate with the K-th of N equal parts of the training images (cross-validation: one run for each K)',
    usual: 'not',
    default: null,
    report: ({ fold = null }) => (fold === null ? [] : [['validation is fold', fold]]),
  },
  limit: {
    flags: '--limit <n>',
    nullable: true,
    kind: integer(1),
    help: 'only the first N images of a random order, to try things out',
    default: null,
  },
  imageSize: {
    flags: '--image-size <n>',
    kind: integer(1),
    help: "height and width of the network's input",
    usual: "32 for small images, else what the weights are for, else the model's",
    default: (_, { smallSize, model }) =>
      smallSize !== null && model.anyInputSize ? Math.max(32, smallSize) : model.inputSize,
    report: ({ imageSize }) => [['image size', `${imageSize} x ${imageSize}`]],
  },
  mean: {
    flags: '--mean <numbers>',
    kind: channelNumbers,
    help: 'per channel, of pixels from 0 to 1',
    usual: "the weights', ImageNet's for folders, else measured",
    report: ({ mean, std }) => [['mean, deviation', `${mean.join(', ')}; ${std.join(', ')}`]],
  },
  std: { flags: '--std <numbers>', kind: channelNumbers, help: 'the same of the standard deviation' },
  augment: {
    flags: '--augment <names>',
    kind: augmentations,
    help: `of ${AUGMENTATIONS.join(', ')}; or none`,
    usual: 'crop,flip for small images, resized-crop,flip for folders',
    default: (_, { smallSize }) => (smallSize === null ? ['resized-crop', 'flip'] : ['crop', 'flip']),
    report: ({ augment, mixup }) => [
      ['augmentation', [...augment, ...(mixup === null ? [] : [`mixup ${mixup}`])].join(', ') || 'none'],
    ],
  },
  mixup: {
    flags: '--mixup <alpha>',
    nullable: true,
    kind: number(0, 100, 'above'),
    help: 'mix pairs of images with this alpha',
    usual: 'not',
    default: null,
  },
  skipCorrupt: {
    flags: '--skip-corrupt',
    kind: flag,
    help: 'leave out images that cannot be decoded, and say which',
    default: false,
  },
  balance: {
    flags: '--balance <how>',
    kind: choice(BALANCES),
    help: 'classes that are rare: draw each as often (sampler), or weigh them in the loss (weights)',
    default: 'none',
    started: ({ balance }) => balance ?? 'none',
    report: ({ balance = 'none' }) => (balance === 'none' ? [] : [['classes balanced by', balance]]),
  },
  epochs: {
    flags: '-e, --epochs <n>',
    kind: integer(1),
    usual: (command) => String(USUAL_EPOCHS[command]),
    default: (_, { command }) => USUAL_EPOCHS[command],
    report: ({ epochs, patience = null }) => [
      ['epochs', patience === null ? String(epochs) : `${epochs}, or ${patience} without a better one`],
    ],
  },
  patience: {
    flags: '--patience <epochs>',
    nullable: true,
    kind: integer(1),
    help: 'end after so many epochs without a better one',
    usual: 'not',
    default: null,
  },
  batchSize: {
    flags: '-b, --batch-size <n>',
    kind: integer(1),
    usual: `${USUAL_BATCH} for small images, else 32`,
    default: (_, { smallSize }) => (smallSize === null ? 32 : USUAL_BATCH),
    report: ({ batchSize, dropLast, accumulate = 1 }) => [
      [
        'batch size',
        `${batchSize}${accumulate === 1 ? '' : `, ${accumulate} in a step`}${dropLast ? ', the last dropped' : ''}`,
      ],
    ],
  },
  dropLast: {
    flags: '--drop-last',
    kind: flag,
    help: 'leave out a last batch that is smaller',
    default: false,
  },
  accumulate: {
    flags: '--accumulate <batches>',
    kind: integer(1),
    help: 'add up the gradients of so many batches in a step, in the memory of one',
    default: 1,
    started: ({ accumulate }) => accumulate ?? 1,
  },
  optimizer: {
    flags: '--optimizer <name>',
    kind: choice(['sgd', 'adamw']),
    default: 'sgd',
    report: ({ optimizer, momentum, nesterov, weightDecay }) => [
      [
        'optimiser',
        optimizer === 'sgd'
          ? `sgd, momentum ${momentum}${nesterov ? ' (Nesterov)' : ''}, weight decay ${weightDecay}`
          : `adamw, weight decay ${weightDecay}`,
      ],
    ],
  },
  lr: {
    flags: '--lr <rate>',
    kind: number(0, Infinity),
    help: 'the highest learning rate',
    usual: (command) =>
      `sgd ${usualRate(command, 'sgd', USUAL_BATCH)} for a batch of ${USUAL_BATCH} and in proportion, adamw ${usualRate(command, 'adamw', USUAL_BATCH)}`,
    default: ({ optimizer, batchSize, accumulate = 1 }, { command }) =>
      usualRate(command, optimizer, batchSize * accumulate),
    report: (settings) => [['learning rate', describeSchedule(settings)]],
  },
  momentum: {
    flags: '--momentum <m>',
    kind: number(0, 1),
    help: 'of sgd',
    default: 0.9,
  },
  nesterov: {
    flags: '--nesterov',
    kind: flag,
    help: "sgd with Nesterov's momentum (default)",
    off: { flags: '--no-nesterov', help: 'sgd with plain momentum' },
    default: true,
  },
  weightDecay: {
    flags: '--weight-decay <d>',
    kind: number(0, Infinity),
    usual: `sgd ${USUAL_DECAY.sgd}, adamw ${USUAL_DECAY.adamw}`,
    default: ({ optimizer }) => USUAL_DECAY[optimizer],
  },
  lrScale: {
    flags: '--lr-scale <part=factor,...>',
    nullable: true,
    kind: partFactors,
    help: 'learn faster or slower in parts of the model: layer1=0.1,fc=10',
    usual: 'not',
    default: null,
    report: ({ lrScale = null }) =>
      lrScale === null
        ? []
        : [
            [
              'learning rate of parts',
              Object.entries(lrScale)
                .map(([part, factor]) => `${part} x ${factor}`)
                .join(', '),
            ],
          ],
  },
  schedule: {
    flags: '--schedule <name>',
    kind: choice(['onecycle', 'cosine', 'step', 'none']),
    help: 'of the learning rate',
    default: 'onecycle',
  },
  warmup: {
    flags: '--warmup <share>',
    kind: number(0, 1),
    help: 'onecycle: the share of the run in which the rate rises',
    default: 0.25,
  },
  minLr: {
    flags: '--min-lr <rate>',
    kind: number(0, Infinity),
    help: 'cosine: the rate at the end',
    default: 0,
  },
  stepSize: {
    flags: '--step-size <epochs>',
    kind: integer(1),
    help: 'step: epochs between two changes',
    usual: 'a third of them',
    default: ({ epochs }) => Math.max(1, Math.round(epochs / 3)),
  },
  gamma: {
    flags: '--gamma <factor>',
    kind: number(0, Infinity),
    help: 'step: what the rate is multiplied with',
    default: 0.1,
  },
  labelSmoothing: {
    flags: '--label-smoothing <s>',
    kind: number(0, 1),
    default: 0.05,
    report: ({ labelSmoothing }) => [['label smoothing', String(labelSmoothing)]],
  },
  clipGradNorm: {
    flags: '--clip-grad-norm <n>',
    nullable: true,
    kind: number(0, Infinity, 'above'),
    help: 'scale gradients down to this norm',
    usual: 'not',
    default: null,
    report: ({ clipGradNorm }) =>
      clipGradNorm === null ? [] : [['gradient norm', `at most ${clipGradNorm}`]],
  },
  ema: {
    flags: '--ema <decay>',
    nullable: true,
    kind: number(0, 1),
    help: 'validate and save a moving average of the weights',
    usual: 'not',
    default: null,
    report: ({ ema }) => (ema === null ? [] : [['moving average', String(ema)]]),
  },
  precision: {
    flags: '--precision <dtype>',
    kind: choice(PRECISIONS),
    help: 'of forward and loss; float16 with a gradient scaler, on a CUDA device',
    default: 'float32',
    report: ({ precision }) => [['precision', precision]],
  },
  seed: {
    flags: '--seed <n>',
    kind: integer(0),
    help: 'of weights, order and augmentation',
    default: 0,
    report: ({ seed }) => [['seed', String(seed)]],
  },
  distributed: {
    flags: '--distributed',
    kind: flag,
    help: 'train on all processes of the group that torchrun --no-python started; --batch-size is that of each',
    free: true,
  },
  syncBatchNorm: {
    flags: '--sync-batch-norm',
    kind: flag,
    help: 'distributed: take the statistics of BatchNorm over the images of all processes',
    default: false,
    report: ({ syncBatchNorm }) => (syncBatchNorm === true ? [['BatchNorm', 'over all processes']] : []),
  },
  device: {
    flags: '--device <device>',
    kind: text,
    help: "'cpu', 'cuda' or 'cuda:N'",
    usual: 'cpu',
    free: true,
  },
  threads: {
    flags: '--threads <n>',
    kind: integer(1),
    help: 'of each operator',
    usual: 'all processors',
    commandLineOnly: true,
    free: true,
  },
  output: {
    flags: '-o, --output <folder>',
    kind: text,
    help: 'where everything goes',
    usual: 'training, or where --resume is',
    free: true,
  },
  overwrite: {
    flags: '--overwrite',
    kind: flag,
    help: 'replace a run that is in the folder already',
    free: true,
  },
  checkpointEvery: {
    flags: '--checkpoint-every <steps>',
    kind: integer(1),
    help: 'save after so many steps too',
    usual: 'after each epoch',
    free: true,
  },
  resume: {
    flags: '--resume <checkpoint>',
    kind: text,
    help: 'go on where a run was interrupted; all else is as it was',
    free: true,
  },
  json: {
    flags: '--json',
    kind: flag,
    help: 'print the result as JSON',
    commandLineOnly: true,
    free: true,
  },
};

function describeSchedule({ schedule, lr, warmup, minLr, gamma, stepSize }: TrainingSettings): string {
  switch (schedule) {
    case 'onecycle':
      return `one cycle, up to ${lr} at ${percent(warmup)} of the run`;
    case 'cosine':
      return `cosine from ${lr} to ${minLr}`;
    case 'step':
      return `${lr}, times ${gamma} every ${count(stepSize, 'epoch')}`;
    case 'none':
      return String(lr);
  }
}
