/**
 * What weights bring beside their tensors: labels and preprocessing, from their file's metadata, their record or the hub's
 * `config.json` beside them.
 */
import { makeError } from '../errors';
import { labelsFileOf } from '../models/fetch-weights';
import type { OpenedWeights } from '../models/open-weights';
import { PLAIN, type Preprocessing } from '../models/preprocessing-record';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { checkLabels, readLabels } from './labels';
import { checkPreprocessing } from './preprocessing-options';

export interface Brought {
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
  /** For larger images, at which the network is better. */
  readonly testPreprocessing?: Preprocessing;
}

/** Labels and preprocessing that come with the weights. */
export async function broughtBy({
  state,
  published,
  config: beside,
  file: path,
}: Pick<OpenedWeights, 'state' | 'published' | 'config' | 'file'>): Promise<Brought> {
  const file = printable(path, 1000);
  const read = (name: string): unknown => {
    const text = state.fileMetadata.get(name);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw makeError(
        'ERR_SENET_CHECKPOINT_FORMAT',
        `${file}: metadata '${name}': expected JSON, got ${describe(text)}`,
        { cause },
      );
    }
  };
  const config = beside?.bring();
  const labelsFile = labelsFileOf(
    published ?? (config?.labelsFile === undefined ? {} : { labels: config.labelsFile }),
  );
  const labels = read('labels') ?? (labelsFile === undefined ? config?.labels : await readLabels(labelsFile));
  const record = read('preprocessing');
  const preprocessing =
    record === undefined
      ? (published ?? config)?.preprocessing
      : checkPreprocessing(record, PLAIN, `${file}: metadata 'preprocessing'`);
  const testPreprocessing = (published ?? config)?.testPreprocessing;
  return {
    ...(labels === undefined ? {} : { labels: checkLabels(labels, `${file}: metadata 'labels'`) }),
    ...(preprocessing === undefined ? {} : { preprocessing }),
    ...(testPreprocessing === undefined ? {} : { testPreprocessing }),
  };
}
