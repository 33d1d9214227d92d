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
import { findIdxFiles } from '../data/idx';
import { IdxDataset } from '../data/idx-dataset';
import { ImageFolder } from '../data/image-folder';
import { Random } from '../data/random';
import { Compose, Grayscale, Normalize, ToTensor, type Transform } from '../data/transforms';
import { makeError } from '../errors';
import { PLAIN, type Preprocessing } from '../vision/preprocessing';
import type { Augmentation, DatasetKind } from './training-options';
import { VALIDATION_SHARE } from './training-options';

/** What of the settings says which images there are. */
export interface DataSource {
  readonly data: string;
  readonly dataset: DatasetKind;
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

const VALIDATION_FOLDERS = ['val', 'validation', 'valid', 'test'];

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
  if (names.some((name) => /images.*idx3/.test(name))) return 'idx';
  if (names.some((name) => /^(cifar-100-(python|binary)|fine_label_names\.txt)$/.test(name)))
    return 'cifar100';
  if (names.includes('meta') && names.includes('train') && names.includes('test')) return 'cifar100';
  if (names.some((name) => /^(cifar-10-batches-(py|bin)|data_batch_1(\.bin)?)$/.test(name))) return 'cifar10';
  if (entries.some((entry) => entry.isDirectory())) return 'folder';
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
    validation === undefined ? (own.test === null ? VALIDATION_SHARE : own.testPath) : validation;
  let train: Dataset = own.train;
  let held: Dataset | null = null;
  if (typeof chosen === 'string') {
    held =
      validation === undefined ? own.test : await openValidation(source, chosen, own.train.classes ?? []);
  } else if (chosen !== null) {
    const order = new Random(seed, 1).permutation(train.length);
    const count = Math.max(1, Math.round(chosen * train.length));
    if (count >= train.length) {
      throw makeError(
        'ERR_SENET_DATASET',
        `${printable(data)}: ${train.length} images are too few to keep some of them for validation; give --validation`,
      );
    }
    held = new Subset(
      own.train,
      order.slice(0, count).sort((a, b) => a - b),
    );
    train = new Subset(
      own.train,
      order.slice(count).sort((a, b) => a - b),
    );
  }
  return {
    train: limited(train, limit, seed),
    validation: held === null ? null : limited(held, limit, seed),
    chosenValidation: chosen,
    classes,
    shape: own.shape,
  };
}

function limited(dataset: Dataset, limit: number | null, seed: number): Dataset {
  if (limit === null || limit >= dataset.length) return dataset;
  return new Subset(dataset, new Random(seed, 2).permutation(dataset.length).slice(0, limit));
}

interface OwnData {
  readonly train: Dataset;
  readonly test: Dataset | null;
  readonly testPath: string;
  readonly shape: OpenedData['shape'];
}

async function openKind({ data, dataset, validation }: DataSource): Promise<OwnData> {
  // What is not used is not read either.
  const wantsTest = validation === undefined;
  switch (dataset) {
    case 'idx': {
      const train = await IdxDataset.open(data);
      const [trainFiles, testFiles] = [await findIdxFiles(data, 'train'), await findIdxFiles(data, 'test')];
      const hasTest = trainFiles.images !== testFiles.images;
      const test = wantsTest && hasTest ? await IdxDataset.open(testFiles, { classes: train.classes }) : null;
      return { train, test, testPath: data, shape: train.shape };
    }
    case 'cifar10':
    case 'cifar100': {
      const kind = dataset === 'cifar10' ? Cifar10 : Cifar100;
      const train = await kind.open(data, { train: true });
      const test = wantsTest ? await kind.open(data, { train: false }) : null;
      return { train, test, testPath: data, shape: [3, 32, 32] };
    }
    case 'folder': {
      const { root, beside } = await foldersOf(data);
      const train = await ImageFolder.open(root);
      const { classes } = train;
      const test = wantsTest && beside !== null ? await ImageFolder.open(beside, { classes }) : null;
      return { train, test, testPath: beside ?? data, shape: null };
    }
  }
}

/** `train` with `val` or the like beside it, or the folder itself. */
async function foldersOf(data: string): Promise<{ root: string; beside: string | null }> {
  const entries = await readdir(data, { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  if (!folders.includes('train')) return { root: data, beside: null };
  const beside = VALIDATION_FOLDERS.find((name) => folders.includes(name));
  return { root: path.join(data, 'train'), beside: beside === undefined ? null : path.join(data, beside) };
}

/** Each must have the classes of the training images: another set would number them otherwise. */
async function openValidation(
  { dataset, data }: DataSource,
  validation: string,
  classes: readonly string[],
): Promise<Dataset> {
  switch (dataset) {
    case 'idx':
      return IdxDataset.open(validation, { train: false, classes });
    case 'cifar10':
      return Cifar10.open(validation, { train: false });
    case 'cifar100':
      return Cifar100.open(validation, { train: false });
    case 'folder':
      if (path.resolve(validation) !== path.resolve(data)) return ImageFolder.open(validation, { classes });
      throw makeError('ERR_SENET_DATASET', '--validation: expected another folder than the one to train on');
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

/** Mean and standard deviation of the pixels of each channel, from 0 to 1, to four digits. */
export async function measurePixels(
  dataset: Dataset,
  channels: number,
): Promise<{ mean: number[]; std: number[] }> {
  const histograms = Array.from({ length: channels }, () => new Float64Array(256));
  const count = Math.min(dataset.length, MEASURED_IMAGES);
  for (let start = 0; start < count; start += MEASURED_TOGETHER) {
    const indices = Array.from({ length: Math.min(MEASURED_TOGETHER, count - start) }, (_, i) => start + i);
    const batch = await dataset.getBatch?.(indices);
    if (batch === undefined) throw makeError('ERR_SENET_INTERNAL', 'the data set has no batches');
    const pixels = batch.images.toTypedArray() as Uint8Array;
    batch.images.dispose();
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

/** How pixels become the network's input at test time, as `ImageClassifier` and `classify` do it too. */
export function testPreprocessing(
  shape: OpenedData['shape'],
  imageSize: number,
  mean: readonly number[],
  std: readonly number[],
): Preprocessing {
  const normalisation = { mean, std };
  if (shape === null) {
    const size = Math.round(imageSize * RESIZE_SHARE);
    return { ...PLAIN, size, crop: [imageSize, imageSize], ...normalisation };
  }
  const [channels, height, width] = shape;
  const pad =
    height === width && imageSize > height && (imageSize - height) % 2 === 0 && imageSize - height <= 8;
  return {
    ...PLAIN,
    channels: channels === 1 ? 'grey-repeated' : 'rgb',
    // A few pixels are added as a border, which keeps the others sharp; more are a matter of resizing.
    size: pad ? [height, width] : [imageSize, imageSize],
    pad: pad ? (imageSize - height) / 2 : 0,
    ...normalisation,
  };
}

/** The transform of the same steps, for a loader. */
export function testTransform(record: Preprocessing): Transform {
  return new Compose([...geometry(record, true), ...finish(record, [])]);
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
  return new Compose([...steps, ...finish(record, augment)]);
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
