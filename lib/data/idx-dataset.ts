/** `IdxDataset`: MNIST, Fashion-MNIST and their relatives as a data set. The format is idx.ts's affair. */
import { stat } from 'node:fs/promises';

import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { boolean, optional, orElse, readOptions, string, unchecked } from '../tensor/rules';
import { PixelDataset } from './dataset';
import { findIdxFiles, readIdxDataset, type IdxFiles } from './idx';

export interface IdxDatasetOptions {
  /** Of a folder with both: the training set, or the test set. Default true. */
  train?: boolean;
  /** Of several data sets in a folder the one whose name has these words, such as 'letters' of EMNIST. */
  set?: string;
  /** Names of the classes. Default the numbers, as many as there are labels. */
  classes?: readonly string[];
}

/** Images of IDX files, gzip-compressed or not, in memory: uint8, 1 x height x width. */
export class IdxDataset extends PixelDataset {
  /**
   * @param source - a folder with files such as train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, or both paths
   * @throws (rejects) ERR_SENET_DATA_FORMAT (no IDX files, truncated, counts that differ), ERR_SENET_DATASET (no images; a
   *   folder of several data sets without `set`),
   *   ERR_SENET_LABELS (a label without a class), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
   */
  static async open(
    source: string | { images: string; labels: string },
    options?: IdxDatasetOptions,
  ): Promise<IdxDataset> {
    const rules = {
      train: orElse(true, boolean),
      set: optional(string),
      classes: unchecked<readonly string[]>(), // by the data set
    };
    const { train, set, classes } = readOptions(options, rules, 'IdxDataset.open');
    const files = await filesOf(source, train, set);
    const { images, labels, count, height, width } = await readIdxDataset(files.images, files.labels);
    if (count === 0) throw makeError('ERR_SENET_DATASET', `${files.images}: holds no images`);
    const largest = labels.reduce((most, label) => Math.max(most, label), 0);
    const names = classes ?? Array.from({ length: largest + 1 }, (_, label) => String(label));
    return new IdxDataset(images, labels, [1, height, width], names);
  }
}

async function filesOf(
  source: string | { images: string; labels: string },
  train: boolean,
  set: string | undefined,
): Promise<IdxFiles> {
  if (typeof source === 'string') {
    const stats = await stat(source).catch(() => undefined);
    if (stats?.isFile() === true) {
      throw makeError(
        'ERR_SENET_FILE',
        `${source}: expected a folder, or { images, labels } with both files`,
      );
    }
    return findIdxFiles(source, train ? 'train' : 'test', set);
  }
  if (typeof source?.images === 'string' && typeof source.labels === 'string') return source;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `IdxDataset.open: expected a folder or { images, labels }, got ${describe(source)}`,
  );
}
