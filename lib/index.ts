/** The public surface of senet-torch, and nothing else. Its last line loads the native part, or says why it cannot. */
import { loadNative } from './native';

export {
  ERROR_CODES,
  httpStatusOf,
  isSenetError,
  SenetError,
  SenetRangeError,
  SenetTypeError,
  type AnySenetError,
  type ErrorCode,
  type SenetErrorOptions,
} from './errors';

export type { AutocastDType, CompiledStep, Device, DType, MemoryFormat, TypedArray } from './binding';
export {
  configure,
  getRngState,
  manualSeed,
  memory,
  setRngState,
  version,
  type ConfigureOptions,
  type MemoryUsage,
} from './tensor/runtime';
export { cuda, type CudaMemory } from './tensor/cuda';
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
export { autocast, noGrad, tidy, type AutocastOptions } from './tensor/scope';

export type { AsyncForwardOptions, ForwardOptions } from './nn/forward-call';
export { Module, type CompileOptions } from './nn/module';
export type { NativeModule } from './nn/native-module';
export type { HookHandle } from './nn/hooks';
export type { ModelSummary, SummaryOptions, SummaryRow } from './nn/summary';
export {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  Conv1d,
  Conv2d,
  Dropout,
  Flatten,
  Identity,
  Linear,
  MaxPool2d,
  ReLU,
  Sigmoid,
  type AvgPoolOptions,
  type BatchNorm2dOptions,
  type Conv1dOptions,
  type Conv2dOptions,
  type PoolOptions,
  type Size2,
} from './nn/layers';
export { ModuleList, Sequential } from './nn/containers';
export {
  CompiledModel,
  type CompiledDType,
  type CompiledPlan,
  type CompiledProfile,
  type PixelOptions,
  type ProfiledStep,
  type ProfileOptions,
} from './nn/compiled-model';
export type {
  CalibrationData,
  CalibrationImages,
  CalibrationOptions,
  CalibrationProgress,
  QuantizationRecord,
} from './nn/calibration';
export type { CalibrationMethod } from './nn/calibration-settings';
export { loadCompiled, type LoadCompiledOptions } from './models/quantized';
export { quantizeWeights, type Quantized, type QuantizeOptions } from './train/quantize-weights';
export { save } from './onnx/save';
export type { OnnxDType, OnnxOptions, OnnxSummary, OnnxValue } from './onnx/save-onnx';
export { exportWeights, type Exported, type ExportOptions, type ExportProgress } from './onnx/export-weights';
export type { LoadStateDictOptions, LoadStateDictResult } from './nn/load-state-dict';
export { EcaModule, SEModule, type EcaModuleOptions, type SEModuleOptions } from './nn/channel-attention';
export { SELayer } from './nn/se-layer';
export {
  allGather,
  allReduce,
  barrier,
  broadcast,
  destroyProcessGroup,
  getRank,
  getWorldSize,
  initProcessGroup,
  isInitialized,
  type DistributedBackend,
  type InitProcessGroupOptions,
  type ReduceOp,
} from './distributed/process-group';
export type { RendezvousOptions } from './distributed/rendezvous';
export { DistributedDataParallel, type DistributedDataParallelOptions } from './distributed/data-parallel';
export { SyncBatchNorm } from './distributed/sync-batch-norm';
export {
  BCEWithLogitsLoss,
  CrossEntropyLoss,
  L1Loss,
  MSELoss,
  NLLLoss,
  type BCEWithLogitsLossOptions,
  type CrossEntropyLossOptions,
  type LossForwardOptions,
  type LossOptions,
  type NLLLossOptions,
  type Reduction,
} from './nn/losses';

export { SEBasicBlock, SEBottleneck, CifarSEBasicBlock, type BlockOptions } from './models/residual-blocks';
export {
  se_resnet101,
  se_resnet152,
  se_resnet18,
  se_resnet34,
  se_resnet50,
  SEResNet,
  type SEResNetOptions,
} from './models/se-resnet';
export { ResNet, type ResNetModelOptions, type ResNetOptions } from './models/timm-resnet';
export {
  PytorchcvSEResNet,
  type PytorchcvModelOptions,
  type PytorchcvSEResNetOptions,
} from './models/pytorchcv-se-resnet';
export { SENet, type SENetModelOptions, type SENetOptions } from './models/timm-legacy-senet';
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
  type Inception3,
  type InceptionOutputs,
  type Recalibrate,
  type SEInception3Options,
} from './models/se-inception-v3';
export {
  createModel,
  listModels,
  modelRecord,
  type ListModelsOptions,
  type ModelName,
  type ModelOf,
  type ModelOptions,
  type FileModelOptions,
  type PretrainedModelOptions,
  type WeightsPath,
} from './models/registry';
export type { KeyMap, ModelRecord, PublishedWeights } from './models/record';
export type { PretrainedOptions } from './models/pretrained';
export type { ClassifierModel } from './models/classifier-model';

export {
  classActivationMap,
  resizeMap,
  type ClassActivationMap,
  type ClassActivationMapOptions,
} from './explain/class-activation-map';
export type { CamMethod } from './explain/cam-methods';
export { excitations, gatedForward, type ExcitationOptions } from './explain/excitations';
export type { GateChange, GateChanges } from './explain/gate-changes';
export { ablateChannels, type AblateChannelsOptions, type ChannelImportance } from './explain/ablation';
export type { ClassExcitations, GateStatistics, LayerStatistics } from './explain/class-statistics';

export { load, loadCheckpoint, type LoadCheckpointOptions, type LoadOptions } from './checkpoint/load';
export { NumpyArray } from './checkpoint/numpy-values';
export { saveCheckpoint, type HasStateDict, type SaveOptions } from './checkpoint/save';
export {
  inspectCheckpoint,
  type CheckpointReport,
  type InspectOptions,
  type InspectedTensor,
  type InspectedValue,
  type WeightsNetwork,
} from './checkpoint/inspect';
export type { Container } from './checkpoint/parse';
export {
  consumePrefixInStateDictIfPresent,
  StateDict,
  type ModuleMetadata,
  type StateDictSource,
} from './checkpoint/state-dict';
export { OpaqueValue } from './checkpoint/to-plain';

export { Adagrad, type AdagradOptions } from './optim/adagrad';
export { Adam, AdamW, type AdamOptions } from './optim/adam';
export { RMSprop, type RMSpropOptions } from './optim/rmsprop';
export { SGD, type SGDOptions } from './optim/sgd';
export { GradScaler, type GradScalerOptions, type GradScalerState } from './optim/grad-scaler';
export {
  Optimizer,
  type GroupOptions,
  type OptimizerState,
  type Parameters,
  type ParamGroup,
  type ParamGroupOptions,
} from './optim/optimizer';
export { LRScheduler, type SchedulerState } from './optim/scheduler';
export {
  CosineAnnealingLR,
  CosineAnnealingWarmRestarts,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiStepLR,
  StepLR,
  type CosineAnnealingLROptions,
  type CosineAnnealingWarmRestartsOptions,
  type ExponentialLROptions,
  type LambdaLROptions,
  type LinearLROptions,
  type LrLambda,
  type MultiStepLROptions,
  type StepLROptions,
} from './optim/schedulers';
export { OneCycleLR, type OneCycleLROptions } from './optim/one-cycle';
export { ReduceLROnPlateau, type ReduceLROnPlateauOptions } from './optim/plateau';
export { ChainedScheduler, SequentialLR, type SequentialLROptions } from './optim/combined-schedulers';
export { clipGradNorm_, type ClipGradNormOptions } from './optim/clip';
export { ExponentialMovingAverage, type ExponentialMovingAverageOptions } from './optim/ema';

export { loadStateDictFromUrl, type FetchWeightsOptions } from './hub/hub';
export type { ProgressOption, TransferProgress } from './hub/progress';

export { convertWeights, type ConvertOptions, type Converted } from './vision/convert';
export { ImageClassifier, type ClassifyOptions, type PredictOptions } from './vision/image-classifier';
export type { ImageClassifierOptions } from './vision/classifier-loading';
export type { BatchingOptions } from './vision/image-batches';
export type { Classification, Prediction } from './vision/ranking';
export type { ExplainOptions } from './vision/explain-input';
export type {
  ChannelActivation,
  ChannelJson,
  Explanation,
  ExplanationJson,
  LayerExcitation,
  LayerExcitationJson,
  Picture,
  PictureJson,
  Plane,
} from './vision/explanation';
export {
  classExcitations,
  type ClassExcitationsOptions,
  type LabelledImage,
} from './vision/class-excitations';
export type { ImageFileSource } from './vision/image-source';
export type { ImageSource } from './vision/image-work';
export type { ItemTimes, QueueState } from './vision/pipeline';
export type { Preprocessing } from './models/preprocessing-record';
export type { InitOptions } from './models/options';

export {
  PixelDataset,
  randomSplit,
  Subset,
  type Dataset,
  type GetOptions,
  type Sample,
  type SampleBatch,
} from './data/dataset';
export { Cifar10, Cifar100, type Cifar100Options, type CifarOptions } from './data/cifar';
export { IdxDataset, type IdxDatasetOptions } from './data/idx-dataset';
export { ImageFolder, type ImageFile, type ImageFolderOptions } from './data/image-folder';
export {
  DataLoader,
  type Batch,
  type BatchTransform,
  type DataLoaderOptions,
  type DataLoaderState,
  type DataSource,
  type SkippedSample,
} from './data/loader';
export { ConcatDataset, type ConcatDatasetOptions } from './data/concat-dataset';
export { kFold, type Fold, type KFoldOptions } from './data/folds';
export { DistributedSampler, type DistributedSamplerOptions } from './data/distributed-sampler';
export { WeightedRandomSampler, type Sampler, type WeightedRandomSamplerOptions } from './data/sampler';
export { Random } from './data/random';
export {
  Compose,
  Grayscale,
  Normalize,
  ToTensor,
  type GrayscaleOptions,
  type NormalizeOptions,
  type Size,
  type Transform,
  type TransformOptions,
} from './data/transforms';
export {
  CenterCrop,
  Pad,
  RandomCrop,
  RandomHorizontalFlip,
  RandomResizedCrop,
  Resize,
  type Box,
  type CenterCropOptions,
  type Interpolation,
  type Padding,
  type PaddingMode,
  type PadOptions,
  type RandomCropOptions,
  type RandomHorizontalFlipOptions,
  type RandomResizedCropOptions,
  type ResizeOptions,
} from './data/geometry';
export { ColorJitter, type ColorJitterOptions, type JitterDraw, type JitterRange } from './data/color-jitter';
export { RandomErasing, type RandomErasingOptions } from './data/random-erasing';
export { Mixup, type MixupOptions } from './data/mixup';

export { classifyMany, type ClassifyManyOptions, type ImageRow } from './bulk/classify-many';
export {
  classifyToFile,
  type ClassifyToFileOptions,
  type ManyProgress,
  type ManyReport,
} from './bulk/classify-to-file';
export { enqueueImages, type Enqueued, type EnqueueOptions } from './bulk/enqueue';
export type { ImagesJob, JobResult } from './bulk/queue-job';
export { startQueueWorker, type QueueWorker, type QueueWorkerOptions } from './bulk/queue-worker';
export { listImages, type ImageListing, type ListImagesOptions } from './bulk/list-images';
export type {
  ManyImages,
  NamedImage,
  SelectableImages,
  SelectedImage,
  Selection,
  Shard,
} from './bulk/image-list';

export {
  Trainer,
  type BatchLoader,
  type CheckpointOptions,
  type TrainerOptions,
  type TrainingProgress,
  type TrainingResult,
} from './train/trainer';
export {
  evaluateClassifier,
  type ClassifierEvaluation,
  type ClassifierMistake,
  type EvaluateClassifierOptions,
} from './train/classifier-evaluation';
export type { Calibration, CalibrationBin } from './train/calibration';
export { readTrainingCheckpoint, type TrainingCheckpoint } from './train/training-checkpoint';
export type { EpochRecord, StepRecord, TrainingHistory, ValidationRecord } from './train/history';
export type { Criterion } from './train/step';

export { trainFromSettings, type TrainedRun } from './train/recipe/run';
export {
  createDatasets,
  createLoaders,
  detectDataset,
  type DatasetSettings,
  type LoaderSettings,
  type TrainingDatasets,
} from './train/recipe/datasets';
export { createTransform, type CreateTransformOptions } from './train/recipe/transforms';
export { createOptimizer, createScheduler, type RunLength } from './train/recipe/optimizer';
export type {
  Augmentation,
  DatasetKind,
  OptimizerSettings,
  RecipeKind,
  SchedulerSettings,
  StartedRun,
  TrainingOptions,
  TrainingSettings,
} from './train/recipe/settings';

export { createInferenceHandler, type InferenceHandler } from './serve/handler';
export type { InferenceHandlerOptions, UrlOptions } from './serve/options';
export type { InferenceRequest, InferenceResponse } from './serve/exchange';
export type { AccessRecord } from './serve/access-record';
export type { ModelLoader, ModelState, ModelStatus } from './serve/model-table';
export type { RoutePattern } from './serve/router';
export type { Next } from './serve/faces';
export type { Labels, MetricFamily, Sample as MetricSample } from './instruments';

loadNative();
