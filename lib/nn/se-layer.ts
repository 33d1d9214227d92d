/** SELayer, the squeeze-and-excitation block (Hu et al., CVPR 2018, section 3; senet.pytorch, se_module.py). */
import { checkInteger } from '../tensor/options';
import type { Sequential } from './containers';
import type { AdaptiveAvgPool2d } from './layers';
import { registerSpellings, type KeyAlias } from './load-state-dict';
import { createNativeModule, defineChildProperties, NativeModule } from './native-module';
import { registerGate, registerModuleClass } from './native-part';

/** The article's first listing of SELayer names its halves fc1 and fc2. */
export const SE_LAYER_ALIASES: readonly KeyAlias[] = [
  [/(^|\.)fc1\.0\.weight$/, '$1fc.0.weight'],
  [/(^|\.)fc2\.0\.weight$/, '$1fc.2.weight'],
];

/**
 * Recalibrates the channels of an N x C x H x W tensor: average over H and W, two linear layers without bias
 * (C -> C / reduction, ReLU, -> C), sigmoid, product with the input. The output has the input's shape.
 */
export class SELayer extends NativeModule {
  declare avg_pool: AdaptiveAvgPool2d;
  /**
   * Linear, ReLU, Linear, Sigmoid, without biases. What replaces it may be any Sequential that makes C factors of C means:
   * `forward` and training run it as it is; `compile` takes the same four layers, with biases or without.
   */
  declare fc: Sequential;

  /**
   * @param channel C, at least 1
   * @param reduction from 1 to `channel`; the hidden width is floor(channel / reduction). Default 16
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
   */
  constructor(channel: number, reduction = 16) {
    checkInteger(channel, 'SELayer: channel', 1);
    checkInteger(reduction, 'SELayer: reduction', 1, channel);
    super(createNativeModule('SELayer', { channel, reduction }));
  }
}
registerModuleClass('SELayer', SELayer);
registerGate('SELayer', 'fc');
registerSpellings('SELayer', [{ aliases: SE_LAYER_ALIASES }]);
defineChildProperties(SELayer, ['avg_pool', 'fc']);
