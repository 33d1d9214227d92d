/**
 * `quantizeWeights`: a file of weights written anew for int8, calibrated on the images of a data set, with what a classifier
 * needs beside it; and how good it is before and after.
 */
import { checkSafetensorsPath } from '../checkpoint/endings';
import { datasetRule, type Dataset } from '../data/dataset';
import { networkInputs } from '../data/network-inputs';
import { makeError } from '../errors';
import { createWithWeights } from '../models/from-weights';
import { openPlace, type ModelName } from '../models/registry';
import { CALIBRATION_RULES, calibrationSettings, type CalibrationSettings } from '../nn/calibration-settings';
import type { CompiledPlan } from '../nn/compiled-model';
import { throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import {
  fn,
  names,
  optional,
  orElse,
  readOptions,
  required,
  signal,
  string,
  type Rules,
} from '../tensor/rules';
import { broughtBy } from '../vision/weights-metadata';

export interface QuantizeOptions extends CalibrationSettings {
  /** Images like those to come; labels are not read. */
  calibration: Dataset;
  /** The network that the weights are for. Default: what their keys and shapes say. */
  model?: ModelName;
  /** Of the state dict in the file, as of `load`. */
  key?: string;
  /** What its names begin with, as of `load`. */
  prefix?: string;
  /** Paths of modules whose convolutions stay float32, with all below them. */
  keep?: readonly string[];
  /** Called with the images that were seen, and how many will be. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** What was written. */
export interface Quantized {
  readonly model: string;
  readonly images: number;
  /** Of the compiled model: its steps say the scale of each layer and how far it is off. */
  readonly plan: CompiledPlan;
}

const WHERE = 'quantizeWeights';
const RULES = {
  calibration: required(datasetRule),
  model: optional(string),
  key: optional(string),
  prefix: optional(string),
  ...CALIBRATION_RULES,
  keep: orElse([], names),
  onProgress: optional(fn<(done: number, total: number) => void>()),
  signal,
} satisfies Rules<QuantizeOptions>;

/**
 * Quantises the weights of a file to int8 and saves them as safetensors, for `loadCompiled` and for `ImageClassifier.load`
 * with `dtype: 'int8'`.
 *
 * @param file any file that `load` reads; also a repository of the hub ('hf-hub:...') or a folder ('local-dir:...')
 * @param output a path that ends in `.safetensors`
 * @throws (rejects) ERR_SENET_CALIBRATION (no images), ERR_SENET_UNKNOWN_WEIGHTS, ERR_SENET_UNKNOWN_MODEL,
 *   ERR_SENET_STATE_DICT, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION,
 *   ERR_SENET_FILE, ERR_SENET_ABORTED, and as `load`
 */
export async function quantizeWeights(
  file: string,
  output: string,
  options: QuantizeOptions,
): Promise<Quantized> {
  const given = readOptions(options, RULES, WHERE);
  checkString(file, `${WHERE}: file`);
  checkSafetensorsPath(output, `${WHERE}: output`);
  throwIfAborted(given.signal);
  const opened = await openPlace(file, given.model, { ...given, progress: false }, WHERE);
  try {
    const { subject: record } = opened;
    const { labels, preprocessing = record.preprocessing } = await broughtBy(opened);
    if (preprocessing === null) {
      throw makeError(
        'ERR_SENET_ARG_MISSING',
        `${WHERE}: the weights say nothing of how images are prepared, and this network has no usual way`,
      );
    }
    const network = createWithWeights(opened);
    const dataset = given.calibration;
    const images = Math.min(given.limit, dataset.length);
    const abort = given.signal;
    try {
      const compiled = await network.eval().compile({
        dtype: 'int8',
        keep: given.keep,
        calibration: {
          data: networkInputs(dataset, images, preprocessing, abort),
          ...calibrationSettings(given),
          onProgress: (progress) => given.onProgress?.(progress.images, images),
        },
        ...(abort === undefined ? {} : { signal: abort }),
      });
      try {
        await compiled.save(output, {
          metadata: {
            model: record.name,
            ...(labels === undefined ? {} : { labels: JSON.stringify(labels) }),
            preprocessing: JSON.stringify(preprocessing),
          },
        });
        return { model: record.name, images, plan: compiled.explain() };
      } finally {
        compiled.dispose();
      }
    } finally {
      network.dispose();
    }
  } finally {
    opened.state.dispose();
  }
}
