/** The options that every model factory has, and the checks that they share. */
import { checkBoolean, checkInteger } from '../tensor/options';

export interface InitOptions {
  /** Channels of the images, from 1: 1 for grey ones. Default 3. */
  inChannels?: number;
  /**
   * Draw initial weights. False leaves them zeros (BatchNorm at 1 and 0) and takes milliseconds: for models
   * whose weights are loaded next. Default true.
   */
  initWeights?: boolean;
}

export function checkInitWeights(value: boolean | undefined, where: string): boolean {
  return checkBoolean(value ?? true, `${where}: initWeights`);
}

export function checkInChannels(value: number | undefined, where: string): number {
  return checkInteger(value ?? 3, `${where}: inChannels`, 1);
}

export function checkNumClasses(value: number, where: string): number {
  return checkInteger(value, `${where}: numClasses`, 1);
}
