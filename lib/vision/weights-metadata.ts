/** What weights bring beside their tensors: labels and preprocessing, from their file's metadata or their record. */
import { printable } from '../checkpoint/problems';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { labelsFileOf } from '../models/pretrained';
import type { PublishedWeights } from '../models/record';
import { describe } from '../tensor/options';
import { checkLabels, readLabels } from './labels';
import { checkPreprocessing, PLAIN, type Preprocessing } from './preprocessing';

export interface Brought {
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
}

/** Labels and preprocessing that come with the weights. */
export async function broughtBy(
  state: StateDict | undefined,
  published: PublishedWeights | undefined,
  label: string,
): Promise<Brought> {
  const file = printable(label, 1000);
  const read = (name: string): unknown => {
    const text = state?.fileMetadata.get(name);
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
