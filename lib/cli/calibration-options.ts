/** The options of int8 that `quantize` and `export` share: which images calibrate, and how. Loads nothing native. */
import { Option, type Command } from 'commander';

import type { CalibrationMethod } from '../nn/calibration';
import { CALIBRATION_METHODS } from '../nn/calibration-methods';
import { DATASET_KINDS, type DatasetKind } from '../train/recipe/settings';
import { atLeastOne } from './training-options';

export interface CalibrationOptions {
  calibrationLabels?: string;
  dataset?: DatasetKind;
  limit: number;
  method: CalibrationMethod;
  percentile: number;
  keep?: string[];
  quantizeFirst?: boolean;
}

export function addCalibrationOptions(command: Command): Command {
  return command
    .option('--calibration-labels <file>', 'of IDX files: the file of labels')
    .addOption(
      new Option('--dataset <kind>', 'what the images are; default: what their names say').choices(
        DATASET_KINDS,
      ),
    )
    .option('-n, --limit <n>', 'images for the calibration, evenly spread', atLeastOne, 256)
    .addOption(
      new Option('--method <method>', 'from the numbers that were seen to the range of 256 values')
        .choices(CALIBRATION_METHODS)
        .default('minmax'),
    )
    .option('--percentile <p>', 'of the method percentile', Number, 99.99)
    .option('--keep <names...>', 'modules whose convolutions stay float32, with all below them')
    .option('--quantize-first', 'the convolution that reads the image computes in int8 too');
}
