/** The public surface of senet-torch, and nothing else. */
export { isSenetError, SenetError, SenetRangeError, SenetTypeError, type AnySenetError, type ErrorCode } from './errors';

export type { Device, DType, MemoryFormat, TypedArray } from './binding';
export {
  configure,
  cuda,
  manualSeed,
  memory,
  version,
  type ConfigureOptions,
  type MemoryUsage,
} from './tensor/runtime';
export {
  arange,
  empty,
  full,
  ones,
  rand,
  randint,
  randn,
  tensor,
  zeros,
  type FactoryOptions,
  type TensorOptions,
} from './tensor/factories';
export { Tensor } from './tensor/tensor';
export type { Element, NestedArray } from './tensor/nested-array';
export type { Target } from './tensor/dtype';
export { ops } from './tensor/ops';
export { noGrad, tidy } from './tensor/scope';

export { Module, type AsyncForwardOptions, type ForwardOptions } from './nn/module';
export type { LoadStateDictOptions, LoadStateDictResult } from './nn/load-state-dict';
export { SELayer } from './nn/se-layer';
export { L1Loss, type LossOptions, type Reduction } from './nn/losses';
