/**
 * The images of a training recipe: what a path holds, which images are for training and which for validation, and the
 * loaders that make batches of them.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

import { Cifar10, Cifar100 } from '../../data/cifar';
import { ConcatDataset } from '../../data/concat-dataset';
import { Subset, type Dataset, type Sample } from '../../data/dataset';
import { kFold, type Fold } from '../../data/folds';
import { findIdxFiles, findIdxSplits, isIdxName } from '../../data/idx';
import { IdxDataset } from '../../data/idx-dataset';
import { ImageFolder } from '../../data/image-folder';
import { DataLoader } from '../../data/loader';
import { Mixup } from '../../data/mixup';
import { Random } from '../../data/random';
import { PartSampler, ShareSampler } from '../../data/distributed-sampler';
import { WeightedRandomSampler, type Sampler } from '../../data/sampler';
import { findSplitFolders } from '../../data/splits';
import { makeError } from '../../errors';
import type { Preprocessing } from '../../models/preprocessing-record';
import { printable } from '../../printable';
import { names, optional, readOptions, string } from '../../tensor/rules';
import { percent } from '../words';
import { complete, SETTING_RULES } from './option-checks';
import { VALIDATION_SHARE } from './options';
import type { DatasetKind, TrainingSettings } from './settings';
import { createTransform } from './transforms';
import { parseFold } from './value-kinds';

/** Options of `createDatasets`. */
export interface DatasetSettings {
  /** A folder of images for each class (or with train and val), IDX files, or CIFAR-10 or -100 (folder or archive). */
  readonly data: string;
  /** Default: `detectDataset(data)`. */
  readonly dataset?: DatasetKind | undefined;
  /** Of several data sets in a folder of IDX files, the one that is meant. */
  readonly set?: string | null | undefined;
  /** False: folders called train, test and the like are classes. Default true. */
  readonly splits?: boolean | undefined;
  /** A path, a share between 0 and 1 of the training images, or null for none. Default: what the data brings, else 0.1. */
  readonly validation?: string | number | null | undefined;
  /** Further data sets, of whatever kind, that are mixed in; classes of the same name are one. Default: none. */
  readonly also?: readonly string[] | undefined;
  /** 'K/N': validation is the K-th of N parts of the training images (`kFold`), in place of `validation`. Default: not. */
  readonly fold?: string | null | undefined;
  /** Only the first so many of a random order, of each part. Default: all. */
  readonly limit?: number | null | undefined;
  /** Of that order, and of the share for validation. Default 0. */
  readonly seed?: number | undefined;
  /** Names of the classes, instead of the data's own. */
  readonly labels?: readonly string[] | undefined;
}

/** The images of a run. */
export interface TrainingDatasets {
  readonly train: Dataset;
  /** Null if there are none. */
  readonly validation: Dataset | null;
  /** What was chosen: a path, a share of the training images, or none. */
  readonly chosenValidation: string | number | null;
  /** In the order of the labels. */
  readonly classes: readonly string[];
  /** Channels, height and width that all images have; null for folders. */
  readonly shape: readonly [channels: number, height: number, width: number] | null;
  /** What was taken as what, a line for each. */
  readonly taken: readonly (readonly [what: string, from: string])[];
}

type ImageShape = TrainingDatasets['shape'];
/** With the defaults of what `openKind` and the rest need. */
type Source = DatasetSettings & { readonly dataset: DatasetKind };

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
 * What a path holds, by the names of its files.
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND; ERR_SENET_DATASET if it is none of these, or several
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
      `${label}: expected a folder or an archive of CIFAR; say what it is with --dataset (option dataset)`,
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
      `${label}: found files of several kinds (${kinds.join(', ')}); say which with --dataset (option dataset)`,
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

/**
 * Opens the images for training and validation, as `senet-torch train` does.
 *
 * @example
 * const { train, validation, classes } = await createDatasets({ data: 'photos', validation: 0.2 });
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_LABELS (another number of
 *   names than classes), ERR_SENET_DATASET, ERR_SENET_FILE_NOT_FOUND, and what the data sets throw
 */
export async function createDatasets(settings: DatasetSettings): Promise<TrainingDatasets> {
  const source = await checkDatasetSettings(settings);
  const { data, validation, limit = null, seed = 0, fold = null } = source;
  if (fold !== null && validation !== undefined && validation !== null) {
    throw makeError('ERR_SENET_ARG_RANGE', 'createDatasets: fold and validation exclude each other');
  }
  const own = await openAll(source);
  const classes = classNames(source, own.train);
  const usual = validation === undefined ? (own.held === null ? VALIDATION_SHARE : own.heldPath) : validation;
  const chosen = fold === null ? usual : null;
  let train: Dataset = own.train;
  let held: OpenedPart | null = null;
  if (fold !== null) {
    const { fold: which, folds } = parseFold(fold) as NonNullable<ReturnType<typeof parseFold>>;
    const part = kFold(own.train, { folds, seed })[which - 1] as Fold<Sample>;
    train = part.train;
    held = { dataset: part.validation, from: `part ${which} of ${folds} of the training images` };
  } else if (typeof chosen === 'string') {
    held =
      validation === undefined ? own.held : await openValidation(source, chosen, own.train.classes ?? []);
  } else if (chosen !== null) {
    const order = new Random(seed, 1).permutation(train.length);
    const count = Math.max(1, Math.round(chosen * train.length));
    if (count >= train.length) {
      throw makeError(
        'ERR_SENET_DATASET',
        `${printable(data)}: ${train.length} images are too few to keep some of them for validation; give { validation }`,
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

async function checkDatasetSettings(settings: DatasetSettings): Promise<Source> {
  const rules = { ...SETTING_RULES, data: string, labels: optional(names) };
  const given = readOptions(settings, rules, 'createDatasets') as unknown as DatasetSettings;
  return { ...given, dataset: given.dataset ?? (await detectDataset(given.data)) };
}

/** Files in the folders that are no images, by kind. */
function leftOutOf(parts: readonly (Dataset | undefined)[]): string[] {
  const kinds = new Map<string, number>();
  const all = parts.filter((part) => part !== undefined);
  for (const part of all.flatMap((one) => (one instanceof ConcatDataset ? [...one.datasets] : [one]))) {
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
  readonly shape: ImageShape;
}

/** What `data` and `also` hold, as one. */
async function openAll({ also = [], ...source }: Source): Promise<OwnData> {
  const first = await openKind(source);
  if (also.length === 0) return first;
  const all = [first];
  for (const data of also) {
    const { validation, splits, set } = source;
    // A path of images for validation is of `data` alone.
    const wanted = { validation: validation === undefined ? undefined : null, splits, set };
    all.push(await openKind({ data, dataset: await detectDataset(data), ...wanted }));
  }
  const train = new ConcatDataset(all.map((one) => one.train));
  const { classes } = train;
  const held = all.flatMap((one) => (one.held === null ? [] : [one.held]));
  const isOneShape = all.every(({ shape }) => shape?.join() === first.shape?.join());
  return {
    train,
    from: all.map(({ from }) => from).join(', '),
    held:
      held.length === 0
        ? null
        : {
            dataset: new ConcatDataset(
              held.map(({ dataset }) => dataset),
              { classes },
            ),
            from: held.map(({ from }) => from).join(', '),
          },
    heldPath: first.heldPath,
    unused: all.flatMap(({ unused }) => unused),
    shape: isOneShape ? first.shape : null,
  };
}

async function openKind(source: Source): Promise<OwnData> {
  const { data, dataset, validation, fold = null } = source;
  // What is not used is not read either.
  const wantsHeld = validation === undefined && fold === null;
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

async function openIdx({ data, set }: Source, wantsHeld: boolean): Promise<OwnData> {
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

async function openFolders({ data, splits }: Source, wantsHeld: boolean): Promise<OwnData> {
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
  { dataset, data, set }: Source,
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
          'createDatasets: validation: expected another folder than the one to train on',
        );
      return { dataset: await ImageFolder.open(validation, { classes }), from };
  }
}

function classNames({ data, dataset, labels }: Source, train: Dataset): readonly string[] {
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
      `createDatasets: labels: expected ${classes.length} names, as many as ${printable(data)} has classes, got ${labels.length}`,
    );
  }
  const fashion = dataset === 'idx' && /fashion.?mnist/i.test(path.basename(path.resolve(data)));
  return fashion && classes.length === FASHION_MNIST.length ? FASHION_MNIST : classes;
}

/** Options of `createLoaders`. */
export type LoaderSettings = Partial<
  Pick<TrainingSettings, 'batchSize' | 'seed' | 'dropLast' | 'skipCorrupt' | 'balance' | 'augment' | 'mixup'>
>;

/**
 * The label of each image. The data sets of a recipe know them without reading images.
 *
 * @throws ERR_SENET_DATASET of another that does not
 */
export function labelsOf(dataset: Dataset): readonly number[] {
  if (dataset.labels !== undefined) return dataset.labels;
  throw makeError('ERR_SENET_DATASET', 'balance: expected a data set that has the labels of its samples');
}

/**
 * The loaders of a run: shuffled (or drawn, classes balanced) and augmented for training, in order and as they are for validation.
 *
 * @param datasets - from `createDatasets`
 * @param preprocessing - how pixels become the network's input at test time, with a size of the input
 * @param settings - with the defaults of `trainFromSettings`
 * @param share - of several processes that train together, which one the loaders are for. Default: there is one
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, and as `createTransform`
 */
export function createLoaders(
  datasets: TrainingDatasets,
  preprocessing: Partial<Preprocessing>,
  settings: LoaderSettings = {},
  share?: { readonly rank: number; readonly worldSize: number },
): { train: DataLoader; validation: DataLoader | null } {
  const names = ['batchSize', 'seed', 'dropLast', 'skipCorrupt', 'balance', 'augment', 'mixup'] as const;
  const smallSize = datasets.shape?.[1] ?? null;
  const chosen = complete(settings, names, 'createLoaders', { smallSize });
  const { batchSize, seed, dropLast, skipCorrupt, balance, augment, mixup } = chosen;
  const orderOf = (sampler: Sampler | null): { sampler: Sampler } | { shuffle: true } =>
    share === undefined
      ? sampler === null
        ? { shuffle: true }
        : { sampler }
      : { sampler: new ShareSampler(datasets.train.length, sampler, { shuffle: true, ...share }) };
  const train = new DataLoader(datasets.train, {
    batchSize,
    seed,
    dropLast,
    skipCorrupt,
    ...orderOf(balance === 'sampler' ? WeightedRandomSampler.balanced(labelsOf(datasets.train)) : null),
    transform: createTransform(preprocessing, { augment }),
    ...(mixup === null
      ? {}
      : { batchTransform: new Mixup({ alpha: mixup, numClasses: datasets.classes.length }) }),
  });
  if (datasets.validation === null) return { train, validation: null };
  const transform = createTransform(preprocessing);
  const { length } = datasets.validation;
  // Too few for all to have one: each then looks at all of them.
  const parts =
    share !== undefined && length >= share.worldSize ? { sampler: new PartSampler(length, share) } : {};
  const options = { batchSize, skipCorrupt, transform, ...parts };
  return { train, validation: new DataLoader(datasets.validation, options) };
}
