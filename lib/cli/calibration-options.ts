/** The options of int8 that `quantize` and `export` share: which images calibrate, and how. Loads nothing native. */
import { Option, type Command } from 'commander';

import { makeError } from '../errors';
import {
  CALIBRATION_DEFAULTS,
  CALIBRATION_METHODS,
  type CalibrationSettings,
} from '../nn/calibration-settings';
import { DATASET_KINDS, type DatasetKind } from '../train/recipe/settings';
import { atLeastOne } from './training-options';

/** What was typed, with the defaults. */
export interface CalibrationOptions extends Required<CalibrationSettings> {
  calibrationLabels?: string;
  dataset?: DatasetKind;
  keep?: string[];
}

export function addCalibrationOptions(command: Command): Command {
  return command
    .option('--calibration-labels <file>', 'of IDX files: the file of labels')
    .addOption(
      new Option('--dataset <kind>', 'what the images are; default: what their names say').choices(
        DATASET_KINDS,
      ),
    )
    .option(
      '-n, --limit <n>',
      'images for the calibration, evenly spread',
      atLeastOne,
      CALIBRATION_DEFAULTS.limit,
    )
    .addOption(
      new Option('--method <method>', 'from the numbers that were seen to the range of 256 values')
        .choices(CALIBRATION_METHODS)
        .default(CALIBRATION_DEFAULTS.method),
    )
    .option('--percentile <p>', 'of the method percentile', Number, CALIBRATION_DEFAULTS.percentile)
    .option('--keep <names...>', 'modules whose convolutions stay float32, with all below them')
    .option(
      '--quantize-first',
      'the convolution that reads the image computes in int8 too',
      CALIBRATION_DEFAULTS.quantizeFirst,
    )
    .option(
      '--error-budget <share>',
      'what the outputs may be off: the layers that are off the most stay float32, as few as that takes',
      Number,
    );
}

/** Those that do nothing without images, and nobody refuses behind them. */
const OF_IMAGES = ['calibrationLabels', 'dataset', 'limit', 'method', 'percentile', 'quantizeFirst'] as const;

/**
 * What was typed and would do nothing is refused.
 *
 * @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_RANGE
 */
export function checkCalibrationOptions(command: Command): void {
  const { calibration, method } = command.opts<{ calibration?: string; method: string }>();
  const isTyped = (name: string): boolean => command.getOptionValueSource(name) === 'cli';
  const alone = calibration === undefined ? OF_IMAGES.find(isTyped) : undefined;
  if (alone !== undefined)
    throw makeError('ERR_SENET_ARG_MISSING', `{ ${alone} } needs images: { calibration }`);
  if (isTyped('percentile') && method !== 'percentile')
    throw makeError('ERR_SENET_ARG_RANGE', `--percentile is of --method percentile, and not of ${method}`);
}
