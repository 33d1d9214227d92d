/** How the range of an activation's 256 values may follow from the numbers that were seen: the names, for who lists them. */
export const CALIBRATION_METHODS = ['minmax', 'percentile', 'mse'] as const;
