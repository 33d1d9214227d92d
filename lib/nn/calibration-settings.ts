/**
 * How images calibrate a network for int8: the options that `compile`, `quantizeWeights`, `exportWeights` and the command
 * line share, in one table. Loads nothing native.
 */
import { boolean, integer, number, oneOf, optional, orElse, type Rules } from '../tensor/rules';

export const CALIBRATION_METHODS = ['minmax', 'percentile', 'mse'] as const;

/** How the range of an activation's 256 values follows from the numbers that were seen. */
export type CalibrationMethod = (typeof CALIBRATION_METHODS)[number];

export interface CalibrationSettings {
  /**
   * 'minmax' (default): all the numbers that were seen; 'mse': the range whose 256 values have the least mean squared error,
   * for networks with a few numbers far from the rest; 'percentile': without the smallest and the largest.
   */
  method?: CalibrationMethod;
  /** Of 'percentile': per cent of the numbers that are not above the range. Default 99.99, from 50 to 100. */
  percentile?: number;
  /** Images that are taken at most: the first, of a `Dataset` evenly spread ones. Default 256. */
  limit?: number;
  /**
   * Whether the convolutions that read the image compute in int8 too. They are few of the products, and an image has more
   * than 256 values once it is normalised: default false.
   */
  quantizeFirst?: boolean;
  /**
   * What the outputs may be off, on up to eight of the images: the errors' root mean square over the values'. Where they are
   * off by more, the layers that are off the most stay float32 (`CompiledModel.quantization.keep`), as few as that takes.
   * Above 0, to 1; default: no budget.
   */
  errorBudget?: number | undefined;
}

export const CALIBRATION_DEFAULTS = {
  method: 'minmax',
  percentile: 99.99,
  limit: 256,
  quantizeFirst: false,
} as const satisfies CalibrationSettings;

export const CALIBRATION_RULES = {
  method: orElse(CALIBRATION_DEFAULTS.method, oneOf(CALIBRATION_METHODS)),
  percentile: orElse(CALIBRATION_DEFAULTS.percentile, number(50, 100)),
  limit: orElse(CALIBRATION_DEFAULTS.limit, integer(1)),
  quantizeFirst: orElse(CALIBRATION_DEFAULTS.quantizeFirst, boolean),
  errorBudget: optional(number(Number.MIN_VALUE, 1)),
} satisfies Rules<CalibrationSettings>;

/** Of more options, these alone. */
export function calibrationSettings({
  method,
  percentile,
  limit,
  quantizeFirst,
  errorBudget,
}: Required<CalibrationSettings>): Required<CalibrationSettings> {
  return { method, percentile, limit, quantizeFirst, errorBudget };
}
