/** The options that every model factory has, and their rules. */
import { boolean, integer, matching, orElse, type Rules } from '../tensor/rules';

export interface InitOptions {
  /** Channels of the images, from 1: 1 for grey ones. Default 3. */
  inChannels?: number;
  /**
   * Draw initial weights. False leaves them zeros (BatchNorm at 1 and 0) and takes milliseconds: for models
   * whose weights are loaded next. Default true.
   */
  initWeights?: boolean;
}

export const INIT_OPTIONS = {
  inChannels: orElse(3, integer(1)),
  initWeights: orElse(true, boolean),
} satisfies Rules<InitOptions>;

/** Blocks in each of the four stages of a residual network. */
export const depths = matching<readonly number[]>(
  'four numbers of blocks, each from 1',
  (value) =>
    Array.isArray(value) &&
    value.length === 4 &&
    value.every((count) => Number.isInteger(count) && count > 0),
);
