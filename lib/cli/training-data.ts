/**
 * The data of a training run: what a path holds, which images are for training and which for validation, how their
 * pixels become the network's input, and the record of that which goes into the weights' metadata.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate } from 'node:timers';

import { printable } from '../checkpoint/problems';
import { Cifar10, Cifar100 } from '../data/cifar';
import { ColorJitter } from '../data/color-jitter';
import { Subset, type Dataset } from '../data/dataset';
import { RandomErasing } from '../data/random-erasing';
import {
  CenterCrop,
  Pad,
  RandomCrop,
  RandomHorizontalFlip,
  RandomResizedCrop,
  Resize,
} from '../data/geometry';
import { findIdxFiles, findIdxSplits, isIdxName } from '../data/idx';
import { IdxDataset } from '../data/idx-dataset';
import { ImageFolder } from '../data/image-folder';
import { Random } from '../data/random';
import { findSplitFolders } from '../data/splits';
import { Compose, Grayscale, Normalize, ToTensor, type Transform } from '../data/transforms';
import { makeError } from '../errors';
import { PLAIN, toGrey, type Preprocessing } from '../vision/preprocessing';
import type { Augmentation, DatasetKind } from './training-options';
import { percent } from './output';
import { VALIDATION_SHARE } from './training-options';

/** What of the settings says which images there are. */
export interface DataSource {
  readonly data: string;
  readonly dataset: DatasetKind;
  /** Of several data sets in a folder of IDX files, the one that is meant; of a run before that option, undefined. */
  readonly set?: string | null | undefined;
  /** False: folders called train, test and the like are classes. */
  readonly splits?: boolean | undefined;
  /** Undefined: what the data brings, else a share. */
  readonly validation: string | number | null | undefined;
  readonly limit: number | null;
  readonly seed: number;
  /** Names of the classes, instead of the data's own. */
  readonly labels: readonly string[] | undefined;
}

export interface OpenedData {
  readonly train: Dataset;
  readonly validation: Dataset | null;
  /** What was chosen. */
  readonly chosenValidation: string | number | null;
  readonly classes: readonly string[];
  /** Channels, height and width that all images have; null for folders. */
  readonly shape: readonly [channels: number, height: number, width: number] | null;
  /** What was taken as what, a line for each. */
  readonly taken: readonly (readonly [what: string, from: string])[];
}

/** Of Fashion-MNIST, whose files know numbers only (Xiao, Rasul, Vollgraf 2017). */
const FASHION_MNIST = [
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
];

/**
 * What a path holds.
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_DATASET
 */
export async function detectDataset(data: string): Promise<DatasetKind> {
  const stats = await stat(data).catch(() => undefined);
  const label = printable(data, 1000);
  if (stats === undefined) throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such file or folder`);
  if (stats.isFile()) {
    if (/cifar-?100/i.test(path.basename(data))) return 'cifar100';
    if (/cifar-?10/i.test(path.basename(data))) return 'cifar10';
    throw makeError(
      'ERR_SENET_DATASET',
      `${label}: expected a folder or an archive of CIFAR; say what it is with --dataset`,
    );
  }
  const entries = await readdir(data, { withFileTypes: true });
  const names = entries.map(({ name }) => name);
  const has = (pattern: RegExp): boolean => names.some((name) => pattern.test(name));
  const kinds: DatasetKind[] = [];
  if (names.some(isIdxName)) kinds.push('idx');
  const cifar100 = has(/^(cifar-100-(python|binary)|fine_label_names\.txt)$/);
  if (cifar100 || (names.includes('meta') && names.includes('train') && names.includes('test')))
    kinds.push('cifar100');
  if (has(/^(cifar-10-batches-(py|bin)|data_batch_1(\.bin)?)$/)) kinds.push('cifar10');
  const [kind] = kinds;
  if (kinds.length > 1) {
    throw makeError(
      'ERR_SENET_DATASET',
      `${label}: found files of several kinds (${kinds.join(', ')}); say which with --dataset`,
    );
  }
  if (kind !== undefined) return kind;
  // A link may lead to a folder.
  if (entries.some((entry) => entry.isDirectory() || entry.isSymbolicLink())) return 'folder';
  throw makeError(
    'ERR_SENET_DATASET',
    `${label}: expected a folder of images for each class, IDX files or CIFAR's files; found ${names.length === 0 ? 'nothing' : `${names.length} files such as ${printable(names.sort()[0] ?? '')}`}`,
  );
}

/** Opens the images for training and validation. @throws (rejects) what the data sets throw */
export async function openData(source: DataSource): Promise<OpenedData> {
  const { data, validation, limit, seed } = source;
  const own = await openKind(source);
  const classes = classNames(source, own.train);
  const chosen =
    validation === undefined ? (own.held === null ? VALIDATION_SHARE : own.heldPath) : validation;
  let train: Dataset = own.train;
  let held: OpenedPart | null = null;
  if (typeof chosen === 'string') {
    held =
      validation === undefined ? own.held : await openValidation(source, chosen, own.train.classes ?? []);
  } else if (chosen !== null) {
    const order = new Random(seed, 1).permutation(train.length);
    const count = Math.max(1, Math.round(chosen * train.length));
    if (count >= train.length) {
      throw makeError(
        'ERR_SENET_DATASET',
        `${printable(data)}: ${train.length} images are too few to keep some of them for validation; give --validation`,
      );
    }
    const part = (indices: number[]): Dataset =>
      new Subset(
        own.train,
        indices.sort((a, b) => a - b),
      );
    held = { dataset: part(order.slice(0, count)), from: `${percent(chosen)} of the training images` };
    train = part(order.slice(count));
  }
  return {
    train: limited(train, limit, seed),
    validation: held === null ? null : limited(held.dataset, limit, seed),
    chosenValidation: chosen,
    classes,
    shape: own.shape,
    taken: [
      ['training images', own.from],
      ['validation images', held?.from ?? 'none'],
      ...own.unused.map((what) => ['not used', what] as const),
      ...leftOutOf([own.train, held?.dataset]).map((what) => ['left out', what] as const),
    ],
  };
}

/** Files in the folders that are no images, by kind. */
function leftOutOf(parts: readonly (Dataset | undefined)[]): string[] {
  const kinds = new Map<string, number>();
  for (const part of parts) {
    if (!(part instanceof ImageFolder)) continue;
    for (const [kind, times] of part.leftOut) kinds.set(kind, (kinds.get(kind) ?? 0) + times);
  }
  if (kinds.size === 0) return [];
  const sorted = [...kinds].sort((left, right) => right[1] - left[1]);
  const shown = sorted
    .slice(0, 8)
    .map(([kind, times]) => `${times.toLocaleString('en')} ${printable(kind, 20)}`);
  return [`files: ${shown.join(', ')}${sorted.length > shown.length ? ', and others' : ''}`];
}

function limited(dataset: Dataset, limit: number | null, seed: number): Dataset {
  if (limit === null || limit >= dataset.length) return dataset;
  return new Subset(dataset, new Random(seed, 2).permutation(dataset.length).slice(0, limit));
}

interface OpenedPart {
  readonly dataset: Dataset;
  /** How messages name it. */
  readonly from: string;
}

interface OwnData {
  readonly train: Dataset;
  /** How messages name the training images. */
  readonly from: string;
  /** The data set's own images for validation, and what to open them by. */
  readonly held: OpenedPart | null;
  readonly heldPath: string;
  /** What else is there. */
  readonly unused: readonly string[];
  readonly shape: OpenedData['shape'];
}

async function openKind(source: DataSource): Promise<OwnData> {
  const { data, dataset, validation } = source;
  // What is not used is not read either.
  const wantsHeld = validation === undefined;
  switch (dataset) {
    case 'idx':
      return openIdx(source, wantsHeld);
    case 'cifar10':
    case 'cifar100': {
      const kind = dataset === 'cifar10' ? Cifar10 : Cifar100;
      const train = await kind.open(data, { train: true });
      const held = wantsHeld
        ? { dataset: await kind.open(data, { train: false }), from: "the data set's own test images" }
        : null;
      const from = "the data set's own";
      return { train, from, held, heldPath: data, unused: [], shape: [3, 32, 32] };
    }
    case 'folder':
      return openFolders(source, wantsHeld);
  }
}

async function openIdx({ data, set }: DataSource, wantsHeld: boolean): Promise<OwnData> {
  const splits = await findIdxSplits(data, set ?? undefined);
  const trainFiles = splits.train ?? (await findIdxFiles(data, 'train', set ?? undefined));
  const train = await IdxDataset.open(trainFiles);
  const heldFiles = splits.validation ?? splits.test;
  const held =
    wantsHeld && heldFiles !== null
      ? {
          dataset: await IdxDataset.open(heldFiles, { classes: train.classes }),
          from: path.basename(heldFiles.images),
        }
      : null;
  const unused = Object.values(splits).flatMap((files) =>
    files === null || files.images === trainFiles.images || (held !== null && files === heldFiles)
      ? []
      : [path.basename(files.images)],
  );
  return { train, from: path.basename(trainFiles.images), held, heldPath: data, unused, shape: train.shape };
}

async function openFolders({ data, splits }: DataSource, wantsHeld: boolean): Promise<OwnData> {
  const found = splits === false ? null : await findSplitFolders(data);
  const root = found?.train ?? data;
  const train = await ImageFolder.open(root, { split: 'none' });
  const { classes } = train;
  const beside = found === null ? null : (found.validation ?? found.test);
  const shown = (folder: string): string => path.relative(path.dirname(data), folder);
  const held =
    wantsHeld && beside !== null
      ? { dataset: await ImageFolder.open(beside, { classes }), from: shown(beside) }
      : null;
  const unused = [found?.validation, found?.test, ...(found?.others ?? [])].flatMap((folder) =>
    folder === undefined || folder === null || (held !== null && folder === beside) ? [] : [shown(folder)],
  );
  return { train, from: shown(root), held, heldPath: beside ?? data, unused, shape: null };
}

/** Each must have the classes of the training images: another set would number them otherwise. */
async function openValidation(
  { dataset, data, set }: DataSource,
  validation: string,
  classes: readonly string[],
): Promise<OpenedPart> {
  const from = path.basename(validation);
  switch (dataset) {
    case 'idx': {
      const splits = await findIdxSplits(validation, set ?? undefined);
      const own = path.resolve(validation) === path.resolve(data);
      const files =
        splits.validation ??
        splits.test ??
        (own ? null : splits.whole) ??
        (await findIdxFiles(validation, 'test', set ?? undefined));
      return {
        dataset: await IdxDataset.open(files, { classes }),
        from: path.join(from, path.basename(files.images)),
      };
    }
    case 'cifar10':
      return { dataset: await Cifar10.open(validation, { train: false }), from };
    case 'cifar100':
      return { dataset: await Cifar100.open(validation, { train: false }), from };
    case 'folder':
      if (path.resolve(validation) === path.resolve(data))
        throw makeError(
          'ERR_SENET_DATASET',
          '--validation: expected another folder than the one to train on',
        );
      return { dataset: await ImageFolder.open(validation, { classes }), from };
  }
}

function classNames({ data, dataset, labels }: DataSource, train: Dataset): readonly string[] {
  const classes = train.classes ?? [];
  if (classes.length < 2)
    throw makeError(
      'ERR_SENET_DATASET',
      `${printable(data)}: expected two classes at least, found ${classes.length}`,
    );
  if (labels !== undefined) {
    if (labels.length === classes.length) return labels;
    throw makeError(
      'ERR_SENET_LABELS',
      `--labels: expected ${classes.length} names, as many as ${printable(data)} has classes, got ${labels.length}`,
    );
  }
  const fashion = dataset === 'idx' && /fashion.?mnist/i.test(path.basename(path.resolve(data)));
  return fashion && classes.length === FASHION_MNIST.length ? FASHION_MNIST : classes;
}

/** Images of the training set that are looked at, at most, to measure mean and deviation. */
const MEASURED_IMAGES = 60_000;
const MEASURED_TOGETHER = 1000;

/**
 * Mean and standard deviation of the pixels of each channel, from 0 to 1, to four digits.
 *
 * @param kind - what becomes of the data set's images
 */
export async function measurePixels(
  dataset: Dataset,
  kind: Preprocessing['channels'],
): Promise<{ mean: number[]; std: number[] }> {
  const channels = kind === 'rgb' ? 3 : 1;
  const histograms = Array.from({ length: channels }, () => new Float64Array(256));
  const count = Math.min(dataset.length, MEASURED_IMAGES);
  for (let start = 0; start < count; start += MEASURED_TOGETHER) {
    const indices = Array.from({ length: Math.min(MEASURED_TOGETHER, count - start) }, (_, i) => start + i);
    const batch = await dataset.getBatch?.(indices);
    if (batch === undefined) throw makeError('ERR_SENET_INTERNAL', 'the data set has no batches');
    const { images } = batch;
    const measured = images.shape[1] === channels ? images : await toGrey(images, undefined);
    const pixels = measured.toTypedArray() as Uint8Array;
    for (const done of new Set([images, measured])) done.dispose();
    const plane = pixels.length / (indices.length * channels);
    for (let place = 0, at = 0; at < pixels.length; place++) {
      const histogram = histograms[place % channels] as Float64Array;
      for (const end = at + plane; at < end; at++) {
        const value = pixels[at] as number;
        histogram[value] = (histogram[value] as number) + 1;
      }
    }
    await new Promise((resolve) => setImmediate(resolve)); // Ctrl-C and the rest get their turn
  }
  const mean: number[] = [];
  const std: number[] = [];
  for (const histogram of histograms) {
    let [total, sum, squares] = [0, 0, 0];
    for (const [value, times] of histogram.entries()) {
      total += times;
      sum += times * (value / 255);
      squares += times * (value / 255) ** 2;
    }
    mean.push(fourDigits(sum / total));
    // Images of one colour have no deviation, and cannot be divided by it.
    std.push(fourDigits(Math.sqrt(Math.max(0, squares / total - (sum / total) ** 2))) || 1);
  }
  return { mean, std };
}

function fourDigits(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}

/** torchvision resizes to 256 for a centre of 224. */
const RESIZE_SHARE = 256 / 224;

/** What images become for a network of one channel or three. */
export function channelsFor(shape: OpenedData['shape'], inChannels: number): Preprocessing['channels'] {
  if (inChannels === 1) return 'grey';
  return shape?.[0] === 1 ? 'grey-repeated' : 'rgb';
}

/** How pixels become the network's input at test time, as `ImageClassifier` and `classify` do it too. */
export function testPreprocessing(
  shape: OpenedData['shape'],
  imageSize: number,
  inChannels: number,
  { mean, std }: Pick<Preprocessing, 'mean' | 'std'>,
): Preprocessing {
  const base = { ...PLAIN, channels: channelsFor(shape, inChannels), mean, std };
  if (shape === null) {
    const size = Math.round(imageSize * RESIZE_SHARE);
    return { ...base, size, crop: [imageSize, imageSize] };
  }
  const [, height, width] = shape;
  const pad =
    height === width && imageSize > height && (imageSize - height) % 2 === 0 && imageSize - height <= 8;
  return {
    ...base,
    // A few pixels are added as a border, which keeps the others sharp; more are a matter of resizing.
    size: pad ? [height, width] : [imageSize, imageSize],
    pad: pad ? (imageSize - height) / 2 : 0,
  };
}

/** The transform of the same steps, for a loader. */
export function testTransform(record: Preprocessing): Transform {
  return new Compose([...start(record), ...geometry(record, true), ...finish(record, [])]);
}

/** The same with augmentation. */
export function trainTransform(
  record: Preprocessing,
  imageSize: number,
  augment: readonly Augmentation[],
): Transform {
  const resized = augment.includes('resized-crop');
  const steps: Transform[] = resized
    ? [new RandomResizedCrop({ size: imageSize })]
    : geometry(record, !augment.includes('crop') || record.crop === null);
  // torchvision's and the papers' 4 of 32; larger images are cut out of the resized one.
  if (!resized && augment.includes('crop'))
    steps.push(
      record.crop === null
        ? new RandomCrop({ size: imageSize, padding: Math.max(1, Math.round(imageSize / 8)) })
        : new RandomCrop({ size: imageSize, padIfNeeded: true }),
    );
  if (augment.includes('flip')) steps.push(new RandomHorizontalFlip());
  if (augment.includes('jitter'))
    steps.push(new ColorJitter({ brightness: 0.4, contrast: 0.4, saturation: 0.4 }));
  return new Compose([...start(record), ...steps, ...finish(record, augment)]);
}

/** Grey before anything else, as a folder of grey images gives it. */
function start({ channels }: Preprocessing): Transform[] {
  return channels === 'grey' ? [new Grayscale({ formula: 'pillow' })] : [];
}

function geometry(record: Preprocessing, crop: boolean): Transform[] {
  const { size, pad } = record;
  return [
    ...(size === null ? [] : [new Resize({ size })]),
    ...(record.crop === null || !crop ? [] : [new CenterCrop({ size: record.crop })]),
    ...(pad === 0 ? [] : [new Pad({ padding: pad })]),
  ];
}

function finish({ channels, mean, std }: Preprocessing, augment: readonly Augmentation[]): Transform[] {
  return [
    new ToTensor(),
    new Normalize({ mean, std }),
    ...(augment.includes('erase') ? [new RandomErasing()] : []),
    ...(channels === 'grey-repeated' ? [new Grayscale({ outputChannels: 3 })] : []),
  ];
}
