/** The options that every model factory has, and their rules. */
import { boolean, integer, orElse, type Rules } from '../tensor/rules';

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
