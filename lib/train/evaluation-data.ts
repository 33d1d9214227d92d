/** What a path holds that a network can be evaluated on: the images that it was hopefully not trained on. */
import { stat } from 'node:fs/promises';
import path from 'node:path';

import { Cifar10, Cifar100 } from '../data/cifar';
import { ConcatDataset } from '../data/concat-dataset';
import { Subset, type Dataset } from '../data/dataset';
import { findIdxFiles } from '../data/idx';
import { IdxDataset } from '../data/idx-dataset';
import { ImageFolder } from '../data/image-folder';
import { findSplitFolders } from '../data/splits';
import { makeError } from '../errors';
import { printable } from '../printable';
import { detectDataset } from './recipe/datasets';
import type { DatasetKind } from './recipe/settings';

export interface EvaluationDataOptions {
  /** Of IDX files: the file of labels, where `data` is that of the images. */
  readonly labels?: string | undefined;
  /** Default: `detectDataset(data)`. */
  readonly dataset?: DatasetKind | undefined;
  /** Further data sets, of whatever kind: classes of the same name are one. Default none. */
  readonly also?: readonly string[] | undefined;
  /** How many images: the first, of folders and mixtures evenly spread over the classes. Default all. */
  readonly limit?: number | undefined;
}

export interface EvaluationData {
  readonly dataset: Dataset;
  /** What was taken: files, a folder. */
  readonly from: string;
}

/**
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_DATASET, ERR_SENET_ARG_MISSING (a file of images alone), and what
 *   the data sets throw
 */
export async function openEvaluationData(
  data: string,
  { labels, dataset, also = [], limit }: EvaluationDataOptions = {},
): Promise<EvaluationData> {
  const opened = await openAll(await open(data, labels, dataset), also);
  const { length } = opened.dataset;
  if (limit === undefined || limit >= length) return opened;
  const isMixed = opened.dataset instanceof ImageFolder || opened.dataset instanceof ConcatDataset;
  const step = isMixed ? length / limit : 1;
  const places = Array.from({ length: limit }, (_, place) => Math.floor(place * step));
  return { ...opened, dataset: new Subset(opened.dataset, places) };
}

async function openAll(first: EvaluationData, also: readonly string[]): Promise<EvaluationData> {
  const all = [first];
  for (const data of also) all.push(await open(data, undefined, undefined));
  if (all.length === 1) return first;
  return {
    dataset: new ConcatDataset(all.map(({ dataset }) => dataset)),
    from: all.map(({ from }) => from).join('; '),
  };
}

async function open(
  data: string,
  labels: string | undefined,
  kind: DatasetKind | undefined,
): Promise<EvaluationData> {
  if (labels !== undefined)
    return { dataset: await IdxDataset.open({ images: data, labels }), from: `${data}, ${labels}` };
  switch (kind ?? (await kindOf(data))) {
    case 'idx': {
      const files = await findIdxFiles(data);
      return {
        dataset: await IdxDataset.open(files),
        from: `${files.images} with the labels ${files.labels}`,
      };
    }
    case 'cifar10':
      return { dataset: await Cifar10.open(data, { train: false }), from: `the test images of ${data}` };
    case 'cifar100':
      return { dataset: await Cifar100.open(data, { train: false }), from: `the test images of ${data}` };
    case 'folder': {
      const splits = await findSplitFolders(data);
      const folder = splits?.test ?? splits?.validation ?? splits?.train ?? data;
      return { dataset: await ImageFolder.open(folder, { split: 'none', allowEmpty: true }), from: folder };
    }
  }
}

async function kindOf(data: string): Promise<DatasetKind> {
  const stats = await stat(data).catch(() => undefined);
  const label = printable(data, 1000);
  if (stats === undefined) throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such file or folder`);
  if (stats.isFile() && !/cifar/i.test(path.basename(data)))
    throw makeError('ERR_SENET_ARG_MISSING', 'evaluate: give the file of labels too, or a folder with both');
  return detectDataset(data);
}
