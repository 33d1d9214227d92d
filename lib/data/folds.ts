/** Cross-validation: a data set in parts of equal size, each of which is for validation once. */
import { makeError } from '../errors';
import { boolean, integer, optional, orElse, readOptions, required } from '../tensor/rules';
import { samplesOf, Subset, type Dataset } from './dataset';
import { Random } from './random';

export interface KFoldOptions {
  /** Parts, from 2 to the number of samples. */
  folds: number;
  /** The same seed gives the same folds. Default 0. */
  seed?: number;
  /**
   * Whether each fold has its share of each class, to within one sample. Default: where the data set knows the labels of
   * its samples.
   */
  stratified?: boolean;
}

export interface Fold<T> {
  /** The samples of the other folds, in the data set's order. */
  readonly train: Subset<T>;
  /** Of this fold, likewise. */
  readonly validation: Subset<T>;
}

/** Of the random order, beside those of loaders and of shares for validation. */
const STREAM = 4;

/**
 * Folds at random, as scikit-learn's `KFold` and `StratifiedKFold` with `shuffle=True` (with other draws). Sizes differ by one
 * sample at most.
 *
 * @example
 * for (const { train, validation } of kFold(dataset, { folds: 5 })) await evaluateOne(train, validation);
 * @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (more folds than samples), ERR_SENET_UNKNOWN_OPTION;
 *   ERR_SENET_DATASET for `stratified: true` of a data set that does not know its labels
 */
export function kFold<T>(dataset: Dataset<T>, options: KFoldOptions): Fold<T>[] {
  const where = 'kFold';
  const samples = samplesOf(dataset, `${where}: dataset`);
  if (samples < 2)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: dataset: expected 2 samples or more, got ${samples}`);
  const rules = {
    folds: required(integer(2, samples)),
    seed: orElse(0, integer(0)),
    stratified: optional(boolean),
  };
  const { folds, seed, stratified = dataset.labels !== undefined } = readOptions(options, rules, where);
  const order = new Random(seed, STREAM).permutation(dataset.length);
  if (stratified) {
    const { labels } = dataset;
    if (labels === undefined) {
      throw makeError(
        'ERR_SENET_DATASET',
        `${where}: stratified: the data set does not know the labels of its samples`,
      );
    }
    // Stable: within a class the random order stays. Each class is then dealt out in turn.
    order.sort((left, right) => (labels[left] as number) - (labels[right] as number));
  }
  const foldOf = new Array<number>(dataset.length);
  for (const [place, index] of order.entries()) foldOf[index] = place % folds;
  return Array.from({ length: folds }, (_, fold) => {
    const those = (isHeld: boolean): number[] =>
      [...foldOf.keys()].filter((index) => (foldOf[index] === fold) === isHeld);
    return { train: new Subset(dataset, those(false)), validation: new Subset(dataset, those(true)) };
  });
}
