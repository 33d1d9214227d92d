/** What weights bring beside their tensors: labels and preprocessing, from their file's metadata or their record. */
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { PLAIN, type Preprocessing } from '../models/preprocessing-record';
import { labelsFileOf } from '../models/pretrained';
import type { PublishedWeights } from '../models/record';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { checkLabels, readLabels } from './labels';
import { checkPreprocessing } from './preprocessing-options';

export interface Brought {
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
}

/** Weights that were given and read. */
export interface FoundWeights {
  readonly state: StateDict;
  /** Of published ones. */
  readonly published: PublishedWeights | undefined;
  readonly file: string;
}

/** Labels and preprocessing that come with the weights. */
export async function broughtBy({ state, published, file: path }: FoundWeights): Promise<Brought> {
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
  const labelsFile = published && labelsFileOf(published);
  const labels = read('labels') ?? (labelsFile === undefined ? undefined : await readLabels(labelsFile));
  const record = read('preprocessing');
  return {
    ...(labels === undefined ? {} : { labels: checkLabels(labels, `${file}: metadata 'labels'`) }),
    ...(record === undefined
      ? published?.preprocessing && { preprocessing: published.preprocessing }
      : { preprocessing: checkPreprocessing(record, PLAIN, `${file}: metadata 'preprocessing'`) }),
  };
}
