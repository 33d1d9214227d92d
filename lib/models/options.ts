/** The options that every model factory has, and their rules. */
import { makeError } from '../errors';
import { checkInteger, describe } from '../tensor/options';
import { boolean, integer, orElse, type Rule, type Rules } from '../tensor/rules';

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
export const depths: Rule<readonly number[]> = (value, what) => {
  const isFour = Array.isArray(value) && value.length === 4;
  if (!isFour)
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected four numbers of blocks, got ${describe(value)}`);
  return value.map((count, stage) => checkInteger(count, `${what}[${stage}]`, 1));
};
