/**
 * The options of `train` and `finetune`: what is typed, and the whole record that a run keeps of it. The record goes
 * into the checkpoint, so that `--resume` needs nothing else; options typed beside `--resume` must say the same.
 * Loads nothing native.
 */
import path from 'node:path';

import { InvalidArgumentError, Option, type Command } from 'commander';

import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { addPlaceOptions, positiveInteger } from './load-classifier';

export type DatasetKind = 'folder' | 'idx' | 'cifar10' | 'cifar100';
export const DATASET_KINDS: readonly DatasetKind[] = ['folder', 'idx', 'cifar10', 'cifar100'];
export const AUGMENTATIONS = ['crop', 'flip', 'resized-crop', 'jitter', 'erase'] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

/** What commander gives; undefined is not typed. */
export interface TrainingArguments {
  model?: string;
  reduction?: number;
  inChannels?: number;
  weights?: string;
  key?: string;
  prefix?: string;
  pretrained?: boolean;
  checkHash?: boolean;
  freeze?: string;
  dataset?: DatasetKind;
  set?: string;
  splits?: boolean;
  labels?: string;
  validation?: string;
  limit?: number;
  imageSize?: number;
  mean?: number[];
  std?: number[];
  augment?: Augmentation[];
  mixup?: number;
  skipCorrupt?: boolean;
  epochs?: number;
  batchSize?: number;
  dropLast?: boolean;
  optimizer?: 'sgd' | 'adamw';
  lr?: number;
  momentum?: number;
  nesterov?: boolean;
  weightDecay?: number;
  schedule?: 'onecycle' | 'cosine' | 'step' | 'none';
  warmup?: number;
  minLr?: number;
  stepSize?: number;
  gamma?: number;
  labelSmoothing?: number;
  clipGradNorm?: number;
  ema?: number;
  precision?: 'float32' | 'bfloat16';
  seed?: number;
  device?: string;
  threads?: number;
  checkpointEvery?: number;
  output?: string;
  overwrite?: boolean;
  resume?: string;
  json?: boolean;
}

/** Everything that a run's numbers depend on. */
export interface TrainingSettings {
  readonly command: 'train' | 'finetune';
  readonly data: string;
  readonly dataset: DatasetKind;
  /** Of several data sets in a folder, the one that is meant; undefined in the record of an earlier version. */
  readonly set?: string | null;
  /** False: folders called train, test and the like are classes. */
  readonly splits?: boolean;
  /** The file of the classes' names; their names are in `classes`. */
  readonly labels: string | null;
  /** A folder or a pair of files, a share of the training images, or none. */
  readonly validation: string | number | null;
  readonly limit: number | null;
  readonly imageSize: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly augment: readonly Augmentation[];
  readonly mixup: number | null;
  readonly skipCorrupt: boolean;
  readonly model: string;
  /** Options of the model's factory, but for the number of classes. */
  readonly modelOptions: Readonly<Record<string, number | boolean | string>>;
  readonly weights: string | null;
  /** Paths of the parts that are frozen. */
  readonly freeze: readonly string[];
  readonly classes: readonly string[];
  readonly epochs: number;
  readonly batchSize: number;
  readonly dropLast: boolean;
  readonly optimizer: 'sgd' | 'adamw';
  readonly lr: number;
  readonly momentum: number;
  readonly nesterov: boolean;
  readonly weightDecay: number;
  readonly schedule: 'onecycle' | 'cosine' | 'step' | 'none';
  readonly warmup: number;
  readonly minLr: number;
  readonly stepSize: number;
  readonly gamma: number;
  readonly labelSmoothing: number;
  readonly clipGradNorm: number | null;
  readonly ema: number | null;
  readonly precision: 'float32' | 'bfloat16';
  readonly seed: number;
  readonly threads: number;
}

/** How much of the training images `--validation` is where the data set brings none of its own. */
export const VALIDATION_SHARE = 0.1;

export function addTrainingOptions(command: Command, kind: 'train' | 'finetune'): Command {
  const choice = (flags: string, description: string, choices: readonly string[]): Option =>
    new Option(flags, description).choices(choices);
  if (kind === 'train') {
    command
      .option('-m, --model <name>', 'the model, one of `senet-torch models` (default: se_resnet20)')
      .option('--reduction <n>', 'of its SE layers, for the small models (default: 16)', positiveInteger)
      .option(
        '--in-channels <n>',
        'of its images: 3, or 1, which makes all images grey (default: 3)',
        imageChannels,
      );
  } else {
    command
      .option('-m, --model <name>', 'the model that the weights belong to (default: what the weights say)')
      .option('-w, --weights <file>', 'the checkpoint to start from, or the name of published weights');
    addPlaceOptions(command)
      .option('--pretrained', "start from the model's published weights; downloads them if need be")
      .option('--no-check-hash', 'accept a download whose SHA-256 is not the promised one')
      .option(
        '--freeze <parts>',
        "parts that stay as they are: 'backbone' (all but the head), or paths such as conv1,bn1,layer1 (default: none)",
      );
  }
  return command
    .optionsGroup('Data:')
    .addOption(choice('--dataset <kind>', 'what <data> is (default: looked at)', DATASET_KINDS))
    .option(
      '--set <name>',
      'of several data sets in a folder of IDX files, the one that is meant, such as letters of EMNIST',
    )
    .option('--no-splits', 'folders called train, val, test and the like are classes, as all others')
    .option(
      '--labels <file>',
      'names of the classes, where the data knows numbers only: a line for each, or a JSON array or object',
    )
    .option(
      '--validation <data>',
      `data of the same kind; a share of the training images, such as ${VALIDATION_SHARE}; or none (default: the data set's own test images, a folder for validation or test beside the one for training, else ${VALIDATION_SHARE})`,
    )
    .option('--limit <n>', 'only the first N images of a random order, to try things out', positiveInteger)
    .option(
      '--image-size <n>',
      "height and width of the network's input (default: 32 for small images, else the model's)",
      positiveInteger,
    )
    .option(
      '--mean <numbers>',
      "per channel, of pixels from 0 to 1 (default: ImageNet's for folders, else measured)",
      numberList,
    )
    .option('--std <numbers>', 'the same of the standard deviation', numberList)
    .option(
      '--augment <names>',
      `of ${AUGMENTATIONS.join(', ')}; or none (default: crop,flip for small images, resized-crop,flip for folders)`,
      augmentationList,
    )
    .option(
      '--mixup <alpha>',
      'mix pairs of images with this alpha (default: not)',
      numberIn(0, 100, 'above'),
    )
    .option('--skip-corrupt', 'leave out images that cannot be decoded, and say which')
    .optionsGroup('Optimisation:')
    .option('-e, --epochs <n>', `(default: ${kind === 'train' ? 10 : 5})`, positiveInteger)
    .option('-b, --batch-size <n>', '(default: 128 for small images, else 32)', positiveInteger)
    .option('--drop-last', 'leave out a last batch that is smaller')
    .addOption(choice('--optimizer <name>', '(default: sgd)', ['sgd', 'adamw']))
    .option(
      '--lr <rate>',
      `the highest learning rate (default: sgd ${kind === 'train' ? '0.2' : '0.02'} for a batch of 128 and in proportion, adamw ${kind === 'train' ? '0.001' : '0.0001'})`,
      numberIn(0, Infinity),
    )
    .option('--momentum <m>', 'of sgd (default: 0.9)', numberIn(0, 1))
    .option('--nesterov', "sgd with Nesterov's momentum (default)")
    .option('--no-nesterov', 'sgd with plain momentum')
    .option('--weight-decay <d>', '(default: sgd 0.0005, adamw 0.01)', numberIn(0, Infinity))
    .addOption(
      choice('--schedule <name>', 'of the learning rate (default: onecycle)', [
        'onecycle',
        'cosine',
        'step',
        'none',
      ]),
    )
    .option(
      '--warmup <share>',
      'onecycle: the share of the run in which the rate rises (default: 0.25)',
      numberIn(0, 1),
    )
    .option('--min-lr <rate>', 'cosine: the rate at the end (default: 0)', numberIn(0, Infinity))
    .option(
      '--step-size <epochs>',
      'step: epochs between two changes (default: a third of them)',
      positiveInteger,
    )
    .option(
      '--gamma <factor>',
      'step: what the rate is multiplied with (default: 0.1)',
      numberIn(0, Infinity),
    )
    .option('--label-smoothing <s>', '(default: 0.05)', numberIn(0, 1))
    .option(
      '--clip-grad-norm <n>',
      'scale gradients down to this norm (default: not)',
      numberIn(0, Infinity, 'above'),
    )
    .option(
      '--ema <decay>',
      'validate and save a moving average of the weights (default: not)',
      numberIn(0, 1),
    )
    .addOption(
      choice('--precision <dtype>', 'of forward and loss (default: float32)', ['float32', 'bfloat16']),
    )
    .optionsGroup('Run:')
    .option('--seed <n>', 'of weights, order and augmentation (default: 0)', wholeNumber)
    .option('--device <device>', "'cpu', 'cuda' or 'cuda:N' (default: cpu)")
    .option('--threads <n>', 'of each operator (default: all processors)', positiveInteger)
    .option('-o, --output <folder>', 'where everything goes (default: training, or where --resume is)')
    .option('--overwrite', 'replace a run that is in the folder already')
    .option(
      '--checkpoint-every <steps>',
      'save after so many steps too (default: after each epoch)',
      positiveInteger,
    )
    .option('--resume <checkpoint>', 'go on where a run was interrupted; all else is as it was')
    .option('--json', 'print the result as JSON');
}

/** Options that may differ when a run is resumed: none changes its numbers. */
const FREE: readonly string[] = [
  'resume',
  'output',
  'overwrite',
  'json',
  'device',
  'threads',
  'checkpointEvery',
  'checkHash',
  'pretrained',
  'key',
  'prefix',
];

/** @throws ERR_SENET_RESUME if an option was typed that the run was not started with */
export function checkSameOptions(command: Command, settings: TrainingSettings): void {
  const typed = command.opts<Record<string, unknown>>();
  for (const option of command.options) {
    const name = option.attributeName();
    if (command.getOptionValueSource(name) !== 'cli' || FREE.includes(name)) continue;
    const started = startedWith(settings, name);
    const given = comparable(name, typed[name]);
    if (JSON.stringify(started) === JSON.stringify(given)) continue;
    throw makeError(
      'ERR_SENET_RESUME',
      `--resume: the run was started with ${option.long ?? name} ${shown(started)}, not ${shown(given)}; leave the option out, or start another run`,
    );
  }
}

function startedWith(settings: TrainingSettings, name: string): unknown {
  if (name === 'reduction') return settings.modelOptions.reduction ?? null;
  if (name === 'inChannels') return settings.modelOptions.inChannels ?? 3;
  if (name === 'splits') return settings.splits ?? true;
  return (settings as unknown as Record<string, unknown>)[name] ?? null;
}

function comparable(name: string, value: unknown): unknown {
  if (name === 'validation') return parseValidation(value as string);
  if (name === 'weights' || name === 'labels') return path.resolve(value as string);
  if (name === 'freeze') return (value as string).split(',');
  return value ?? null;
}

function shown(value: unknown): string {
  return Array.isArray(value) ? value.join(',') || 'none' : value === null ? 'none' : JSON.stringify(value);
}

/** A share, null for none, or the absolute path. */
export function parseValidation(text: string): string | number | null {
  if (text === 'none' || text === '0') return null;
  const share = Number(text);
  if (text.trim() === '' || Number.isNaN(share)) return path.resolve(text);
  if (share > 0 && share < 1) return share;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `--validation: expected a path, a share between 0 and 1, or none, got ${describe(text)}`,
  );
}

/** The record in a checkpoint. @throws ERR_SENET_RESUME if it is not one of this command */
export function checkSettings(value: unknown, label: string): TrainingSettings {
  const names = [
    'command',
    'data',
    'dataset',
    'model',
    'modelOptions',
    'classes',
    'epochs',
    'batchSize',
    'seed',
  ];
  if (typeof value === 'object' && value !== null && names.every((name) => name in value))
    return value as TrainingSettings;
  throw makeError(
    'ERR_SENET_RESUME',
    `--resume: ${label} was saved by a program of its own (class Trainer), which must resume it`,
  );
}

function imageChannels(text: string): number {
  if (text === '1' || text === '3') return Number(text);
  throw new InvalidArgumentError('Expected 1 (grey images) or 3 (colour).');
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError('Expected a whole number of at least 0.');
}

function numberIn(low: number, high: number, bound: 'from' | 'above' = 'from'): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (
      text.trim() !== '' &&
      Number.isFinite(value) &&
      value <= high &&
      (bound === 'from' ? value >= low : value > low)
    )
      return value;
    const range = high === Infinity ? `${bound} ${low}` : `${bound} ${low} to ${high}`;
    throw new InvalidArgumentError(`Expected a number ${range}.`);
  };
}

function numberList(text: string): number[] {
  const numbers = text.split(',').map(Number);
  if ((numbers.length === 1 || numbers.length === 3) && numbers.every(Number.isFinite)) return numbers;
  throw new InvalidArgumentError('Expected one number, or three with commas.');
}

function augmentationList(text: string): Augmentation[] {
  if (text === 'none') return [];
  const names = text.split(',') as Augmentation[];
  const unknown = names.find((name) => !AUGMENTATIONS.includes(name));
  if (unknown === undefined) return names;
  throw new InvalidArgumentError(`Expected none, or some of ${AUGMENTATIONS.join(', ')}.`);
}
