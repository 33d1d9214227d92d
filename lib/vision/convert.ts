/**
 * `convertWeights`: a file of weights of any framework that is known, written anew as safetensors in the network's own
 * spelling, with what a classifier needs beside it: the network's name, labels, preprocessing.
 */
import { access } from 'node:fs/promises';

import { checkSafetensorsPath } from '../checkpoint/endings';
import { saveWeights } from '../checkpoint/save';
import { makeError } from '../errors';
import { createWithWeights } from '../models/from-weights';
import { openPlace, type ModelName } from '../models/registry';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import {
  boolean,
  optional,
  orElse,
  readOptions,
  signal,
  string,
  unchecked,
  type Rules,
} from '../tensor/rules';
import { readLabels } from './labels';
import { broughtBy } from './weights-metadata';

export interface ConvertOptions {
  /** The network that the weights are for. Default: what their keys and shapes say. */
  model?: ModelName;
  /** Of the state dict in the file, as of `load`. */
  key?: string;
  /** What its names begin with, as of `load`. */
  prefix?: string;
  /** The labels in order, or a file of them, as of `ImageClassifier.load`. Default: what the file brings, else none. */
  labels?: readonly string[] | string;
  /** Whether a file that exists is replaced. Default false. */
  overwrite?: boolean;
  signal?: AbortSignal;
}

/** What was written. */
export interface Converted {
  readonly model: string;
  /** Tensors in the file. */
  readonly tensors: number;
  readonly numClasses: number;
  /** Null if the file has none. */
  readonly labels: number | null;
}

const WHERE = 'convertWeights';
const RULES = {
  model: optional(string),
  key: optional(string),
  prefix: optional(string),
  labels: unchecked<readonly string[] | string>(),
  overwrite: orElse(false, boolean),
  signal,
} satisfies Rules<ConvertOptions>;

/**
 * Writes the weights of a file as safetensors with the keys of the network, which for timm's networks are timm's. Its
 * metadata name the model, labels and preprocessing, so that `ImageClassifier.load` needs nothing else. The dtypes stay;
 * `num_batches_tracked` is added where the file has none. No key is left over, in the file or in the network.
 *
 * @param file any file that `load` reads; also a repository of the hub ('hf-hub:...') or a folder ('local-dir:...')
 * @param output a path that ends in `.safetensors`
 * @throws (rejects) ERR_SENET_UNKNOWN_WEIGHTS, ERR_SENET_UNKNOWN_MODEL, ERR_SENET_STATE_DICT, ERR_SENET_LABELS,
 *   ERR_SENET_FILE (it exists; it cannot be written), ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE,
 *   ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED, and as `load`
 */
export async function convertWeights(
  file: string,
  output: string,
  options?: ConvertOptions,
): Promise<Converted> {
  const given = readOptions(options, RULES, WHERE);
  checkString(file, `${WHERE}: file`);
  checkSafetensorsPath(output, `${WHERE}: output`);
  throwIfAborted(given.signal);
  if (!given.overwrite) await checkAbsent(output);
  const opened = await openPlace(file, given.model, given, WHERE);
  const { subject: record, state } = opened;
  try {
    const brought = await broughtBy(opened);
    const labels = given.labels === undefined ? brought.labels : await readLabels(given.labels);
    const preprocessing = brought.preprocessing ?? record.preprocessing;
    const model = createWithWeights(opened);
    try {
      const { outFeatures: numClasses = 0 } = model.getClassifier() as { outFeatures?: number };
      if (labels !== undefined && labels.length !== numClasses) {
        throw makeError(
          'ERR_SENET_LABELS',
          `${WHERE}: the weights have ${numClasses} classes and there are ${labels.length} labels`,
        );
      }
      const own = model.stateDict();
      for (const [name, text] of state.fileMetadata) own.fileMetadata.set(name, text);
      await saveWeights(own, output, {
        metadata: {
          model: record.name,
          ...(labels === undefined ? {} : { labels: JSON.stringify(labels) }),
          ...(preprocessing === null ? {} : { preprocessing: JSON.stringify(preprocessing) }),
        },
      });
      return { model: record.name, tensors: own.size, numClasses, labels: labels?.length ?? null };
    } finally {
      model.dispose();
    }
  } finally {
    state.dispose();
  }
}

async function checkAbsent(output: string): Promise<void> {
  const exists = await access(output).then(
    () => true,
    () => false,
  );
  if (exists) {
    throw makeError(
      'ERR_SENET_FILE',
      `${WHERE}: ${printable(output, 1000)} exists: { overwrite } replaces it`,
    );
  }
}
