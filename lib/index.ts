/** The public surface of senet-torch, and nothing else. */
export {
  ERROR_CODES,
  isSenetError,
  SenetError,
  SenetRangeError,
  SenetTypeError,
  type AnySenetError,
  type ErrorCode,
  type SenetErrorOptions,
} from './errors';

export type { CompiledStep, Device, DType, MemoryFormat, TypedArray } from './binding';
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

export { Module, type AsyncForwardOptions, type CompileOptions, type ForwardOptions } from './nn/module';
export {
  CompiledModel,
  type CompiledDType,
  type CompiledPlan,
  type CompiledProfile,
  type ProfiledStep,
  type ProfileOptions,
} from './nn/compiled-model';
export type { LoadStateDictOptions, LoadStateDictResult } from './nn/load-state-dict';
export { SELayer } from './nn/se-layer';
export { L1Loss, type LossOptions, type Reduction } from './nn/losses';

export { SEBasicBlock, SEBottleneck, CifarSEBasicBlock, type BlockOptions } from './models/residual-blocks';
export {
  se_resnet101,
  se_resnet152,
  se_resnet18,
  se_resnet34,
  se_resnet50,
  SEResNet,
  type PretrainedOptions,
  type SEResNetOptions,
} from './models/se-resnet';
export {
  CifarSEPreActResNet,
  CifarSEResNet,
  se_preactresnet20,
  se_preactresnet32,
  se_preactresnet56,
  se_resnet20,
  se_resnet32,
  se_resnet56,
  type CifarSEResNetOptions,
} from './models/cifar-se-resnet';
export {
  se_inception_v3,
  SEInception3,
  type InceptionOutputs,
  type Recalibrate,
  type SEInception3Options,
} from './models/se-inception-v3';
export { createModel, listModels, type ModelName, type ModelOf, type ModelOptions } from './models/registry';

export { load, loadCheckpoint, type LoadOptions } from './checkpoint/load';
export { save, type HasStateDict, type SaveOptions } from './checkpoint/save';
export {
  inspectCheckpoint,
  type CheckpointReport,
  type InspectedTensor,
  type InspectedValue,
} from './checkpoint/inspect';
export type { Container } from './checkpoint/parse';
export { consumePrefixInStateDictIfPresent, StateDict, type ModuleMetadata } from './checkpoint/state-dict';

export { loadStateDictFromUrl, type FetchWeightsOptions } from './hub/hub';
export type { ProgressOption, TransferProgress } from './hub/progress';

export {
  ImageClassifier,
  type Classification,
  type ClassifyOptions,
  type ImageClassifierOptions,
  type ImageSource,
} from './vision/image-classifier';
export type { Preprocessing } from './vision/preprocessing';
export type { InitOptions } from './models/options';
