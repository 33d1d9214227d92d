/**
 * `exportWeights`: weights, wherever they are, as an ONNX file of the network that they are for, with the labels and the
 * preprocessing that they bring.
 */
import { datasetRule, type Dataset } from '../data/dataset';
import { networkInputs } from '../data/network-inputs';
import { makeError } from '../errors';
import { TRANSFER, type TransferOptions } from '../models/fetch-weights';
import { weightsChannels, createWithWeights } from '../models/from-weights';
import type { Preprocessing } from '../models/preprocessing-record';
import type { OpenedWeights } from '../models/open-weights';
import { modelRecord, openWeights, type ModelName } from '../models/registry';
import { quantizationIn } from '../nn/calibration';
import { CALIBRATION_RULES, calibrationSettings, type CalibrationSettings } from '../nn/calibration-settings';
import type { CompileOptions } from '../nn/module';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import {
  boolean,
  fn,
  names,
  optional,
  orElse,
  readOptions,
  string,
  unchecked,
  type Rules,
  type Values,
} from '../tensor/rules';
import { readLabels } from '../vision/labels';
import { chooseRecord } from '../vision/preprocessing-options';
import { broughtBy } from '../vision/weights-metadata';
import { checkOnnxPath, saveOnnx, type OnnxOptions, type OnnxSummary } from './save-onnx';

/** How far an export is. */
export interface ExportProgress {
  /** 'calibrate' counts images, 'write' bytes. */
  readonly phase: 'calibrate' | 'write';
  readonly done: number;
  readonly total: number;
}

export interface ExportOptions
  extends
    Pick<
      OnnxOptions,
      'dtype' | 'keep' | 'keepBatchNorm' | 'opset' | 'preprocess' | 'softmax' | 'preprocessing'
    >,
    CalibrationSettings,
    TransferOptions {
  /** The network that the weights are for. Default: what their keys and shapes say. */
  model?: ModelName;
  /** Of the state dict in the file, as of `load`. */
  key?: string;
  /** What its names begin with, as of `load`. */
  prefix?: string;
  /** The labels in order, or a file of them, as of `ImageClassifier.load`. Default: what the weights bring, else none. */
  labels?: readonly string[] | string;
  /** Of 'int8': images like those to come. Default: what weights that were quantised say of themselves. */
  calibration?: Dataset;
  onProgress?: (progress: ExportProgress) => void;
}

/** What was written. */
export interface Exported extends OnnxSummary {
  readonly model: string;
  /** Images that int8 was calibrated on; null where none were. */
  readonly images: number | null;
}

const WHERE = 'exportWeights';
const RULES = {
  model: optional(string),
  key: optional(string),
  prefix: optional(string),
  labels: unchecked<readonly string[] | string>(),
  preprocessing: unchecked<Partial<Preprocessing>>(),
  dtype: unchecked<OnnxOptions['dtype']>(), // saveOnnx checks these
  opset: unchecked<number>(),
  keep: orElse([], names),
  keepBatchNorm: orElse(false, boolean),
  preprocess: orElse(false, boolean),
  softmax: orElse(false, boolean),
  calibration: optional(datasetRule),
  ...CALIBRATION_RULES,
  onProgress: optional(fn<(progress: ExportProgress) => void>()),
  ...TRANSFER,
} satisfies Rules<ExportOptions>;

type Given = Values<typeof RULES>;

/**
 * Writes the network of a file of weights as ONNX.
 *
 * @param weights any file that `load` reads; also a repository of the hub ('hf-hub:...'), a folder ('local-dir:...') or the
 *   name of published weights ('fashion_mnist', 'seresnet50.a1_in1k')
 * @param output a path that ends in `.onnx`; an existing file is replaced at the end
 * @throws (rejects) ERR_SENET_EXPORT, ERR_SENET_UNKNOWN_WEIGHTS, ERR_SENET_UNKNOWN_MODEL, ERR_SENET_STATE_DICT, ERR_SENET_LABELS,
 *   ERR_SENET_CALIBRATION, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION,
 *   ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_ABORTED, and as `load` and `loadStateDictFromUrl`
 */
export async function exportWeights(
  weights: string,
  output: string,
  options?: ExportOptions,
): Promise<Exported> {
  const given = readOptions(options, RULES, WHERE);
  checkString(weights, `${WHERE}: weights`);
  checkOnnxPath(output, `${WHERE}: output`);
  throwIfAborted(given.signal);
  const subject = given.model === undefined ? null : modelRecord(given.model as ModelName);
  const opened = await openWeights({ subject, weights }, given, WHERE);
  try {
    const { subject: record } = opened;
    const brought = await broughtBy(opened);
    const labels = given.labels === undefined ? brought.labels : await readLabels(given.labels);
    const base = brought.preprocessing ?? record.preprocessing ?? undefined;
    const model = createWithWeights(opened);
    try {
      const calibration = calibrationFor(opened, given, base);
      const { opset, dtype, keep, keepBatchNorm, preprocess, softmax, preprocessing, signal } = given;
      const summary = await saveOnnx(
        model,
        output,
        {
          ...{ keep, keepBatchNorm, preprocess, softmax },
          ...(dtype === undefined ? {} : { dtype }),
          ...(opset === undefined ? {} : { opset }),
          ...(labels === undefined ? {} : { labels }),
          ...(preprocessing === undefined ? {} : { preprocessing }),
          ...(calibration === undefined ? {} : { calibration }),
          ...(signal === undefined ? {} : { signal }),
          onProgress: (done, total) => given.onProgress?.({ phase: 'write', done, total }),
        },
        WHERE,
        base,
      );
      return { model: record.name, images: imagesOf(given), ...summary };
    } finally {
      model.dispose();
    }
  } finally {
    opened.state.dispose();
  }
}

function imagesOf({ calibration, limit }: Given): number | null {
  return calibration === undefined ? null : Math.min(limit, calibration.length);
}

/** What int8 is made of. @throws ERR_SENET_CALIBRATION, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING */
function calibrationFor(
  opened: OpenedWeights,
  given: Given,
  base: Preprocessing | undefined,
): CompileOptions['calibration'] {
  const { calibration: dataset, dtype, limit, errorBudget, signal } = given;
  if (dataset === undefined && errorBudget !== undefined) {
    throw makeError('ERR_SENET_ARG_MISSING', `${WHERE}: calibration: an errorBudget needs images`);
  }
  if (dtype !== 'int8') {
    if (dataset === undefined) return undefined;
    throw makeError('ERR_SENET_ARG_RANGE', `${WHERE}: calibration: it is of the dtype 'int8' alone`);
  }
  if (dataset === undefined) {
    const { state, file } = opened;
    const record = quantizationIn(state.fileMetadata, printable(file, 1000));
    if (record !== undefined) return record;
    throw makeError(
      'ERR_SENET_CALIBRATION',
      `${WHERE}: dtype: int8 needs images, { calibration }, or weights that were quantised (quantizeWeights, senet-torch quantize)`,
    );
  }
  if (base === undefined) {
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${WHERE}: preprocessing: the weights say nothing of how images are prepared, and this network has no usual way`,
    );
  }
  const channels = weightsChannels(opened);
  const preprocessing = chooseRecord(given.preprocessing, base, channels, `${WHERE}: preprocessing`);
  const images = Math.min(limit, dataset.length);
  return {
    data: networkInputs(dataset, images, preprocessing, signal),
    ...calibrationSettings(given),
    onProgress: (progress) =>
      given.onProgress?.({ phase: 'calibrate', done: progress.images, total: images }),
  };
}
