/**
 * The layers of `torch.nn` for networks of one's own, with PyTorch's arguments, defaults, keys and initial draws. They
 * run natively (`native/nn/layers.h`).
 */
import { makeError } from '../errors';
import { checkInteger, checkNumber, describe } from '../tensor/options';
import { boolean, integer, nullOr, number, orElse, readOptions, type Rule } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import { Module } from './module';
import { createNativeModule, NativeModule } from './native-module';
import { registerModuleClass } from './native-part';

/** One number for height and width, or [height, width]. */
export type Size2 = number | readonly [number, number];

/** Both sides of a `Size2`. */
function size(minimum: number): Rule<[number, number]> {
  return (given, what) => {
    if (!Array.isArray(given)) {
      const both = checkInteger(given, what, minimum);
      return [both, both];
    }
    if (given.length !== 2) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${what}: expected a number or [height, width], got ${describe(given)}`,
      );
    }
    return [checkInteger(given[0], `${what}[0]`, minimum), checkInteger(given[1], `${what}[1]`, minimum)];
  };
}

export interface Conv2dOptions {
  /** Default 1. */
  stride?: Size2;
  /** Zeros on each side. Default 0. */
  padding?: Size2;
  /** Default 1. */
  dilation?: Size2;
  /** Divides both numbers of channels. Default 1. */
  groups?: number;
  /** Default true. */
  bias?: boolean;
}

const CONV2D = {
  stride: orElse(1, size(1)),
  padding: orElse(0, size(0)),
  dilation: orElse(1, size(1)),
  groups: orElse(1, integer(1)),
  bias: orElse(true, boolean),
};

/** Convolution of N x inChannels x H x W, `torch.nn.Conv2d`. */
export class Conv2d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_OUT_OF_MEMORY */
  constructor(inChannels: number, outChannels: number, kernelSize: Size2, options?: Conv2dOptions) {
    super(
      createNativeModule('Conv2d', {
        inChannels: checkInteger(inChannels, 'Conv2d: inChannels', 1),
        outChannels: checkInteger(outChannels, 'Conv2d: outChannels', 1),
        kernelSize: size(1)(kernelSize, 'Conv2d: kernelSize'),
        ...readOptions(options, CONV2D, 'Conv2d'),
      }),
    );
  }

  get inChannels(): number {
    return Module.widthOf(this)[0];
  }
  get outChannels(): number {
    return Module.widthOf(this)[1];
  }
  /** outChannels x inChannels / groups x kernel height x kernel width. */
  get weight(): Tensor {
    return Module.ownTensor(this, 'weight') as Tensor;
  }
  get bias(): Tensor | null {
    return Module.ownTensor(this, 'bias');
  }
}
registerModuleClass('Conv2d', Conv2d);

export interface Conv1dOptions {
  /** Default 1. */
  stride?: number;
  /** Zeros on each side. Default 0. */
  padding?: number;
  /** Default 1. */
  dilation?: number;
  /** Divides both numbers of channels. Default 1. */
  groups?: number;
  /** Default true. */
  bias?: boolean;
}

/** Convolution of N x inChannels x L, `torch.nn.Conv1d`. */
export class Conv1d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_OUT_OF_MEMORY */
  constructor(inChannels: number, outChannels: number, kernelSize: number, options?: Conv1dOptions) {
    const rules = {
      stride: orElse(1, integer(1)),
      padding: orElse(0, integer(0)),
      dilation: orElse(1, integer(1)),
      groups: orElse(1, integer(1)),
      bias: orElse(true, boolean),
    };
    super(
      createNativeModule('Conv1d', {
        inChannels: checkInteger(inChannels, 'Conv1d: inChannels', 1),
        outChannels: checkInteger(outChannels, 'Conv1d: outChannels', 1),
        kernelSize: checkInteger(kernelSize, 'Conv1d: kernelSize', 1),
        ...readOptions(options, rules, 'Conv1d'),
      }),
    );
  }

  /** outChannels x inChannels / groups x kernel. */
  get weight(): Tensor {
    return Module.ownTensor(this, 'weight') as Tensor;
  }
  get bias(): Tensor | null {
    return Module.ownTensor(this, 'bias');
  }
}
registerModuleClass('Conv1d', Conv1d);

export interface BatchNorm2dOptions {
  /** Added to the variance. Default 1e-5. */
  eps?: number;
  /** Weight of a new batch in the running statistics, 0 to 1; null averages all batches alike. Default 0.1. */
  momentum?: number | null;
}

const BATCH_NORM = { eps: orElse(1e-5, number(0, 1e6)), momentum: orElse(0.1, nullOr(number(0, 1))) };

/** Batch normalisation over N, H and W with affine parameters and running statistics, `torch.nn.BatchNorm2d`. */
export class BatchNorm2d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(numFeatures: number, options?: BatchNorm2dOptions) {
    const { eps, momentum } = readOptions(options, BATCH_NORM, 'BatchNorm2d');
    super(
      createNativeModule('BatchNorm2d', {
        features: checkInteger(numFeatures, 'BatchNorm2d: numFeatures', 1),
        eps,
        momentum: momentum ?? -1,
      }),
    );
  }

  get numFeatures(): number {
    return Module.widthOf(this)[0];
  }
  get weight(): Tensor {
    return Module.ownTensor(this, 'weight') as Tensor;
  }
  get bias(): Tensor {
    return Module.ownTensor(this, 'bias') as Tensor;
  }
  get runningMean(): Tensor {
    return Module.ownTensor(this, 'running_mean') as Tensor;
  }
  get runningVar(): Tensor {
    return Module.ownTensor(this, 'running_var') as Tensor;
  }
}
registerModuleClass('BatchNorm2d', BatchNorm2d);

/** Product with a matrix over the last dimension, `torch.nn.Linear`: ... x inFeatures to ... x outFeatures. */
export class Linear extends NativeModule {
  /**
   * @param options.bias default true
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_OUT_OF_MEMORY
   */
  constructor(inFeatures: number, outFeatures: number, options?: { bias?: boolean }) {
    super(
      createNativeModule('Linear', {
        inFeatures: checkInteger(inFeatures, 'Linear: inFeatures', 1),
        outFeatures: checkInteger(outFeatures, 'Linear: outFeatures', 1),
        ...readOptions(options, { bias: orElse(true, boolean) }, 'Linear'),
      }),
    );
  }

  get inFeatures(): number {
    return Module.widthOf(this)[0];
  }
  get outFeatures(): number {
    return Module.widthOf(this)[1];
  }
  /** outFeatures x inFeatures. */
  get weight(): Tensor {
    return Module.ownTensor(this, 'weight') as Tensor;
  }
  get bias(): Tensor | null {
    return Module.ownTensor(this, 'bias');
  }
}
registerModuleClass('Linear', Linear);

/** max(x, 0), `torch.nn.ReLU`. */
export class ReLU extends NativeModule {
  /**
   * @param options.inplace change the input. Default false
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(options?: { inplace?: boolean }) {
    const { inplace } = readOptions(options, { inplace: orElse(false, boolean) }, 'ReLU');
    super(createNativeModule('ReLU', { inPlace: inplace }));
  }
}
registerModuleClass('ReLU', ReLU);

/** 1 / (1 + exp(-x)), `torch.nn.Sigmoid`. */
export class Sigmoid extends NativeModule {
  constructor() {
    super(createNativeModule('Sigmoid', {}));
  }
}
registerModuleClass('Sigmoid', Sigmoid);

/** Gives its input, `torch.nn.Identity`. */
export class Identity extends NativeModule {
  constructor() {
    super(createNativeModule('Identity', {}));
  }
}
registerModuleClass('Identity', Identity);

export interface PoolOptions {
  /** Default: the size of the window. */
  stride?: number;
  /** On each side, at most half of the window. Default 0. */
  padding?: number;
  /** A last window that the input does not fill counts too. Default false. */
  ceilMode?: boolean;
}

function poolRules(kernelSize: number) {
  return {
    stride: orElse(kernelSize, integer(1)),
    padding: orElse(0, integer(0, Math.floor(kernelSize / 2))),
    ceilMode: orElse(false, boolean),
  };
}

/** The largest of each window of kernelSize x kernelSize, `torch.nn.MaxPool2d`. */
export class MaxPool2d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(kernelSize: number, options?: PoolOptions) {
    checkInteger(kernelSize, 'MaxPool2d: kernelSize', 1);
    const given = readOptions(options, poolRules(kernelSize), 'MaxPool2d');
    super(createNativeModule('MaxPool2d', { kernelSize, ...given }));
  }
}
registerModuleClass('MaxPool2d', MaxPool2d);

export interface AvgPoolOptions extends PoolOptions {
  /** The zeros of the padding count as values. Default true. */
  countIncludePad?: boolean;
}

/** The mean of each window of kernelSize x kernelSize, `torch.nn.AvgPool2d`. */
export class AvgPool2d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(kernelSize: number, options?: AvgPoolOptions) {
    checkInteger(kernelSize, 'AvgPool2d: kernelSize', 1);
    const rules = { ...poolRules(kernelSize), countIncludePad: orElse(true, boolean) };
    super(createNativeModule('AvgPool2d', { kernelSize, ...readOptions(options, rules, 'AvgPool2d') }));
  }
}
registerModuleClass('AvgPool2d', AvgPool2d);

/** Means of as many windows as the output has places, `torch.nn.AdaptiveAvgPool2d`. */
export class AdaptiveAvgPool2d extends NativeModule {
  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  constructor(outputSize: Size2) {
    const where = 'AdaptiveAvgPool2d: outputSize';
    super(createNativeModule('AdaptiveAvgPool2d', { outputSize: size(1)(outputSize, where) }));
  }
}
registerModuleClass('AdaptiveAvgPool2d', AdaptiveAvgPool2d);

/** In training sets values to 0 with probability p and scales the others by 1 / (1 - p), `torch.nn.Dropout`. */
export class Dropout extends NativeModule {
  /**
   * @param p from 0 to 1. Default 0.5
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
   */
  constructor(p = 0.5) {
    super(createNativeModule('Dropout', { p: checkNumber(p, 'Dropout: p', 0, 1) }));
  }
}
registerModuleClass('Dropout', Dropout);

/** Makes one dimension of those from startDim to endDim, `torch.nn.Flatten`. */
export class Flatten extends NativeModule {
  /**
   * @param startDim default 1
   * @param endDim negative counts from the last. Default -1
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
   */
  constructor(startDim = 1, endDim = -1) {
    super(
      createNativeModule('Flatten', {
        startDim: checkInteger(startDim, 'Flatten: startDim', -64, 63),
        endDim: checkInteger(endDim, 'Flatten: endDim', -64, 63),
      }),
    );
  }
}
registerModuleClass('Flatten', Flatten);
