/**
 * timm's layers that scale channels by factors computed from their means (timm/layers/squeeze_excite.py and
 * timm/layers/eca.py of pytorch-image-models). They run natively (`native/nn/channel_attention.h`).
 */
import { checkInteger } from '../tensor/options';
import { boolean, integer, number, optional, orElse, readOptions } from '../tensor/rules';
import type { AdaptiveAvgPool2d, Conv1d, Conv2d, Identity, ReLU, Sigmoid } from './layers';
import { createNativeModule, defineChildProperties, NativeModule } from './native-module';
import { registerGate, registerModuleClass } from './native-part';

export interface SEModuleOptions {
  /** The squeezed width as a share of the channels, rounded to a multiple of `rdDivisor`. Default 1 / 16. */
  rdRatio?: number;
  /** The squeezed width itself. Default: what `rdRatio` and `rdDivisor` give. */
  rdChannels?: number;
  /** Default 8, which is also the least width. */
  rdDivisor?: number;
  /** Default true. */
  bias?: boolean;
}

/**
 * timm's SEModule: SELayer with 1 x 1 convolutions and biases (Hu et al., CVPR 2018, section 3). N x C x H x W to the same.
 * Keys `fc1.weight` [squeezed, C, 1, 1], `fc1.bias`, `fc2.weight`, `fc2.bias`.
 */
export class SEModule extends NativeModule {
  declare pool: AdaptiveAvgPool2d;
  declare fc1: Conv2d;
  declare bn: Identity;
  declare act: ReLU;
  declare fc2: Conv2d;
  declare gate: Sigmoid;

  /**
   * @param channels C, at least 1
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(channels: number, options?: SEModuleOptions) {
    checkInteger(channels, 'SEModule: channels', 1);
    const rules = {
      rdRatio: orElse(1 / 16, number(0, 1)),
      rdChannels: optional(integer(1)),
      rdDivisor: orElse(8, integer(1)),
      bias: orElse(true, boolean),
    };
    const { rdChannels, ...given } = readOptions(options, rules, 'SEModule');
    const squeezed = rdChannels === undefined ? {} : { rdChannels };
    super(createNativeModule('SEModule', { channels, ...given, ...squeezed }));
  }
}
registerModuleClass('SEModule', SEModule);
registerGate('SEModule', 'gate');
defineChildProperties(SEModule, ['pool', 'fc1', 'bn', 'act', 'fc2', 'gate']);

export interface EcaModuleOptions {
  /** Odd; for `channels` null only. Default 3. */
  kernelSize?: number;
  /** Of the kernel's size for given channels. Default 2. */
  gamma?: number;
  /** Default 1. */
  beta?: number;
}

/**
 * timm's EcaModule: a convolution along the channels' means, and a sigmoid (Wang et al., "ECA-Net", CVPR 2020).
 * N x C x H x W to the same, for any C. Key `conv.weight` [1, 1, kernel].
 */
export class EcaModule extends NativeModule {
  declare pool: AdaptiveAvgPool2d;
  declare conv: Conv1d;
  declare gate: Sigmoid;

  /**
   * @param channels C, from which the size of the kernel follows: |log2 C + beta| / gamma, made odd, at least 3
   *   (equation 12); null takes `kernelSize`
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(channels: number | null = null, options?: EcaModuleOptions) {
    const rules = {
      kernelSize: orElse(3, integer(1)),
      gamma: orElse(2, number(1e-6, 1e6)),
      beta: orElse(1, number(-1e6, 1e6)),
    };
    const given = readOptions(options, rules, 'EcaModule');
    const width = channels === null ? {} : { channels: checkInteger(channels, 'EcaModule: channels', 1) };
    super(createNativeModule('EcaModule', { ...given, ...width }));
  }
}
registerModuleClass('EcaModule', EcaModule);
registerGate('EcaModule', 'gate');
defineChildProperties(EcaModule, ['pool', 'conv', 'gate']);
