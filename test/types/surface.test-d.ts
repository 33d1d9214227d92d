/**
 * The public surface as a caller's types see it. Never run: `npm run lint` compiles it against the sources, and
 * package.test.ts against the packed package. Each `@ts-expect-error` is a call that must not compile.
 */
import {
  ablateChannels,
  allGather,
  allReduce,
  barrier,
  broadcast,
  destroyProcessGroup,
  DistributedDataParallel,
  DistributedSampler,
  getRank,
  initProcessGroup,
  type InitProcessGroupOptions,
  isInitialized,
  SyncBatchNorm,
  AdaptiveAvgPool2d,
  arange,
  BatchNorm2d,
  type ChannelImportance,
  classActivationMap,
  type ClassActivationMap,
  type ClassExcitations,
  classExcitations,
  CifarSEBasicBlock,
  CifarSEPreActResNet,
  CifarSEResNet,
  classifyMany,
  classifyToFile,
  type ClassifierEvaluation,
  type Enqueued,
  enqueueImages,
  evaluateClassifier,
  type ImageListing,
  type ImageRow,
  listImages,
  type ManyReport,
  type QueueWorker,
  startQueueWorker,
  type ClassifierModel,
  type Classification,
  type CompiledDType,
  type QuantizationRecord,
  CompiledModel,
  type CompiledPlan,
  type CompiledProfile,
  type CompiledStep,
  type CompileOptions,
  configure,
  consumePrefixInStateDictIfPresent,
  Conv2d,
  createDatasets,
  createInferenceHandler,
  createLoaders,
  createModel,
  createOptimizer,
  createScheduler,
  createTransform,
  cuda,
  type CudaMemory,
  detectDataset,
  type Device,
  Dropout,
  type DType,
  empty,
  ERROR_CODES,
  type ErrorCode,
  excitations,
  type Explanation,
  type Exported,
  type ExportOptions,
  exportWeights,
  Flatten,
  full,
  gatedForward,
  type HookHandle,
  httpStatusOf,
  type Identity,
  ImageClassifier,
  type InceptionOutputs,
  type InferenceHandler,
  type InferenceResponse,
  isSenetError,
  L1Loss,
  Linear,
  listModels,
  load,
  loadCheckpoint,
  loadCompiled,
  loadStateDictFromUrl,
  type LoadStateDictResult,
  manualSeed,
  MaxPool2d,
  memory,
  type ModelName,
  type ModelSummary,
  modelRecord,
  type ModelRecord,
  type PublishedWeights,
  Module,
  ModuleList,
  type NestedArray,
  noGrad,
  ones,
  type OnnxOptions,
  ops,
  type Preprocessing,
  type ProfiledStep,
  type ProfileOptions,
  rand,
  randn,
  ReLU,
  type ResNet,
  save,
  se_inception_v3,
  se_preactresnet20,
  se_preactresnet32,
  se_preactresnet56,
  se_resnet101,
  se_resnet152,
  se_resnet18,
  se_resnet20,
  se_resnet32,
  se_resnet34,
  se_resnet50,
  se_resnet56,
  SEBasicBlock,
  SEBottleneck,
  SEInception3,
  SELayer,
  SenetError,
  SenetRangeError,
  SenetTypeError,
  Sequential,
  SEResNet,
  StateDict,
  tensor,
  Tensor,
  tidy,
  trainFromSettings,
  type TrainingSettings,
  type TypedArray,
  version,
  zeros,
} from 'senet-torch';
import {
  Adam,
  AdamW,
  autocast,
  BCEWithLogitsLoss,
  clipGradNorm_,
  CosineAnnealingLR,
  CrossEntropyLoss,
  Adagrad,
  ChainedScheduler,
  CosineAnnealingWarmRestarts,
  ExponentialLR,
  ExponentialMovingAverage,
  getRngState,
  GradScaler,
  type AutocastDType,
  type GradScalerOptions,
  type GradScalerState,
  LinearLR,
  type LRScheduler,
  MSELoss,
  LambdaLR,
  MultiStepLR,
  NLLLoss,
  OneCycleLR,
  type Optimizer,
  ReduceLROnPlateau,
  RMSprop,
  saveCheckpoint,
  SequentialLR,
  setRngState,
  StepLR,
  type OptimizerState,
  type ParamGroup,
} from 'senet-torch';
import {
  CenterCrop,
  Cifar10,
  Cifar100,
  ColorJitter,
  Compose,
  DataLoader,
  Grayscale,
  IdxDataset,
  ImageFolder,
  Mixup,
  Normalize,
  Pad,
  PixelDataset,
  Random,
  RandomCrop,
  RandomErasing,
  RandomHorizontalFlip,
  RandomResizedCrop,
  randomSplit,
  resizeMap,
  Resize,
  Subset,
  ToTensor,
  type Batch,
  type DataLoaderState,
  type Dataset,
  type Sample,
  type SkippedSample,
  type Transform,
} from 'senet-torch';

import {
  readTrainingCheckpoint,
  SGD,
  Trainer,
  type BatchLoader,
  type EpochRecord,
  type TrainingCheckpoint,
  type TrainingHistory,
  type TrainingProgress,
  type TrainingResult,
} from 'senet-torch';

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** Compiles only if the value has exactly the type. */
function exactly<Expected>(): <Actual>(
  value: Actual & (Same<Actual, Expected> extends true ? unknown : never),
) => void {
  return () => undefined;
}

export function runtime(): void {
  exactly<string>()(version.package);
  exactly<string>()(version.libtorch);
  exactly<string>()(version.node);
  exactly<boolean>()(cuda.isAvailable());
  exactly<number>()(cuda.deviceCount());
  exactly<string>()(cuda.deviceName());
  exactly<CudaMemory>()(cuda.memory(1));
  exactly<Promise<void>>()(cuda.synchronize());
  exactly<number>()(memory().deviceBytes);
  configure({ workers: 1, threadsPerWorker: 2 });
  configure({ workers: 1 });
  manualSeed(7);
  manualSeed(7n);
  const { tensors, bytes, jobs } = memory();
  exactly<number>()(tensors);
  exactly<number>()(bytes);
  exactly<number>()(jobs.queued);
  exactly<number>()(jobs.running);
  // @ts-expect-error an unknown option
  configure({ threads: 1 });
  // @ts-expect-error a seed is a number
  manualSeed('7');
}

export function tensors(): void {
  const dtypes: DType[] = [
    'float32',
    'float64',
    'float16',
    'bfloat16',
    'int64',
    'int32',
    'int16',
    'int8',
    'uint8',
    'bool',
  ];
  const devices: Device[] = ['cpu', 'cuda', 'cuda:1'];
  exactly<Tensor>()(tensor(1));
  tensor(1n);
  tensor(true);
  tensor(
    [
      [1, 2],
      [3, 4],
    ],
    { shape: [4], dtype: 'float64', device: 'cpu', requiresGrad: true },
  );
  for (const data of [new Float32Array(1), new Float64Array(1), new BigInt64Array(1), new Uint16Array(1)])
    tensor(data);
  tensor(new Uint8ClampedArray(4), { shape: [2, 2] });
  const options = { dtype: 'float64', device: 'cpu', requiresGrad: true } as const;
  for (const make of [rand, randn, zeros, ones, empty]) exactly<Tensor>()(make([2, 3], options));
  full([2], 1, options);
  full([2], 1n);
  arange(3);
  arange(0, 3);
  arange(0, 3, 0.5, { dtype: 'float64' });

  const x = zeros([2, 3]);
  exactly<readonly number[]>()(x.shape);
  exactly<DType>()(x.dtype);
  exactly<Device>()(x.device);
  exactly<Tensor | null>()(x.grad);
  exactly<boolean>()(x.requiresGrad);
  x.requiresGrad = true;
  exactly<Tensor>()(x.to('float16'));
  x.to('cuda:0').to({ dtype: 'int64', device: 'cpu', memoryFormat: 'channels_last' });
  exactly<TypedArray>()(x.toTypedArray());
  exactly<NestedArray>()(x.toArray());
  exactly<number | bigint | boolean>()(x.item());

  exactly<Tensor>()(x.add(1).sub(x, { alpha: 2 }).mul(2n).div(x).matmul(x));
  exactly<Tensor>()(x.neg().abs().sqrt().exp().log().relu().sigmoid().tanh().softmax(1).logSoftmax(1));
  exactly<Tensor>()(x.sum().mean(1).sum([0, 1], { keepdim: true, dtype: 'float64' }));
  exactly<Tensor>()(x.max());
  exactly<Tensor>()(x.min());
  exactly<{ values: Tensor; indices: Tensor }>()(x.max(1));
  exactly<{ values: Tensor; indices: Tensor }>()(x.min(1, { keepdim: true }));
  exactly<{ values: Tensor; indices: Tensor }>()(x.topk(1, { dim: 0, largest: false, sorted: true }));
  exactly<Tensor>()(
    x.argmax(1).view([2]).reshape([1, 2]).permute([1, 0]).transpose(0, 1).flatten().squeeze().unsqueeze(0),
  );
  exactly<Tensor>()(x.select(0, 1).slice(0, 0, 1, 1).indexSelect(0, x).gather(0, x).pad([1, 1], 'reflect'));
  exactly<Tensor>()(x.clone().detach().contiguous());
  exactly<Tensor>()(Tensor.cat([x, x], 1));
  exactly<Tensor>()(Tensor.stack([x, x]));
  exactly<Tensor>()(x.add_(1).mul_(2).relu_().zero_().fill_(1).copy_(x));
  exactly<Promise<void>>()(x.backward());
  exactly<Promise<void>>()(x.backward(x));
  exactly<void>()(x.dispose());
  x[Symbol.dispose]();

  // @ts-expect-error no such dtype
  tensor([1], { dtype: 'float' });
  // @ts-expect-error no such device
  x.to('gpu');
  // @ts-expect-error shapes are arrays
  zeros(2, 3);
  // @ts-expect-error strings are no elements
  tensor(['1']);
  // @ts-expect-error read only
  x.shape = [1];
  // @ts-expect-error made by the factories only
  new Tensor();
  console.log(dtypes, devices);
}

export function scopesAndOperators(x: Tensor): void {
  exactly<Tensor>()(tidy(() => x));
  exactly<{ a: Tensor[] }>()(tidy(() => ({ a: [x] })));
  exactly<Promise<Tensor>>()(tidy(async () => Promise.resolve(x)));
  exactly<number>()(noGrad(() => 1));
  const called: Tensor = ops.call('aten::add.Tensor', x, x, { alpha: 2 }) as Tensor;
  const later: Promise<unknown> = ops.callAsync('aten::topk', x, 1);
  exactly<string[]>()(ops.list());
  exactly<string>()(ops.schema('aten::relu'));
  console.log(called, later);
}

export async function modules(x: Tensor, signal: AbortSignal): Promise<void> {
  const layer = new SELayer(64);
  new SELayer(64, 16);
  exactly<boolean>()(layer.training);
  exactly<SELayer>()(layer.train().train(false).eval());
  exactly<SELayer>()(layer.to('float64').to({ device: 'cpu' }));
  exactly<Promise<Tensor>>()(layer.forward(x, { grad: true, signal }));
  exactly<Tensor>()(layer.forwardSync(x, { grad: false }));
  exactly<Tensor[]>()(layer.parameters());
  exactly<[string, Tensor][]>()(layer.namedParameters());
  exactly<[string, Tensor][]>()(layer.namedBuffers());
  const parts: readonly (readonly [string, Module<unknown>])[] = layer.namedModules();
  const part: Module<unknown> = layer.getSubmodule('fc.0');
  exactly<void>()(layer.zeroGrad());
  exactly<StateDict>()(layer.stateDict());
  exactly<LoadStateDictResult>()(
    layer.loadStateDict(new Map<string, Tensor>(), { strict: false, assign: true }),
  );
  const { missingKeys, unexpectedKeys } = layer.loadStateDict(layer.stateDict());
  exactly<string[]>()(missingKeys);
  exactly<string[]>()(unexpectedKeys);
  exactly<void>()(layer.dispose());
  exactly<Promise<Tensor>>()(new L1Loss().forward(x, x));
  new L1Loss({ reduction: 'none' });

  const ImageNet = [se_resnet18, se_resnet34, se_resnet101, se_resnet152];
  for (const make of ImageNet) exactly<SEResNet>()(make({ numClasses: 5, initWeights: false }));
  exactly<SEResNet>()(se_resnet50());
  exactly<Promise<SEResNet>>()(se_resnet50({ pretrained: true, numClasses: 1000, signal, progress: true }));
  void se_resnet50({
    pretrained: true,
    progress: ({ bytes, total }) => {
      console.log(bytes, total ?? 0);
    },
  });
  for (const make of [se_resnet20, se_resnet32, se_resnet56])
    exactly<CifarSEResNet>()(make({ numClasses: 2, reduction: 4 }));
  for (const make of [se_preactresnet20, se_preactresnet32, se_preactresnet56])
    exactly<CifarSEPreActResNet>()(make());
  const inception = se_inception_v3({
    numClasses: 10,
    auxLogits: false,
    transformInput: true,
    recalibrate: 'output',
  });
  exactly<SEInception3>()(inception);
  exactly<Tensor | InceptionOutputs>()(await inception.forward(x));
  const { logits, auxLogits } = inception.forwardSync(x) as InceptionOutputs;
  new SEResNet(SEBottleneck, [1, 1, 1, 1], { numClasses: 2 });
  new CifarSEResNet(CifarSEBasicBlock, 3, 10, 16);
  const block: Module = new SEBasicBlock(64, 64, 1, null);

  exactly<ModelName[]>()(listModels());
  exactly<SEResNet>()(createModel('se_resnet18', { numClasses: 3 }));
  exactly<SEInception3>()(createModel('se_inception_v3', { numClasses: 3, recalibrate: 'input' }));
  exactly<Promise<SEResNet>>()(createModel('se_resnet18', { pretrained: 'imagenet', numClasses: 3 }));
  exactly<Promise<SEInception3>>()(createModel('se_inception_v3', { pretrained: true, auxLogits: false }));
  exactly<ResNet>()(createModel('seresnet50.a1_in1k', { numClasses: 3 }));
  exactly<Promise<ResNet>>()(createModel('seresnet50.a1_in1k', { pretrained: true }));
  type Found = Promise<ClassifierModel<Tensor | InceptionOutputs>>;
  exactly<Found>()(createModel('hf-hub:timm/seresnet50.a1_in1k', { numClasses: 3 }));
  exactly<Found>()(createModel('local-dir:photos'));
  exactly<Found>()(createModel('seresnet50.pth'));
  exactly<ModelName[]>()(listModels({ pretrained: true, match: 'se_resnet*' }));
  const record: ModelRecord = modelRecord('se_resnet50');
  exactly<readonly PublishedWeights[]>()(record.weights);
  exactly<Linear | Identity>()(createModel('se_resnet18').getClassifier());
  createModel('se_resnet20').resetClassifier(2);
  // @ts-expect-error weights are not drawn where they are loaded
  void createModel('se_resnet50', { pretrained: true, initWeights: false });

  // @ts-expect-error camelCase
  se_resnet18({ num_classes: 10 });
  // @ts-expect-error numClasses is required
  se_inception_v3({});
  // @ts-expect-error no such model
  void createModel('se_resnet19');
  // @ts-expect-error no such mode
  se_inception_v3({ numClasses: 10, recalibrate: 'both' });
  // @ts-expect-error only se_resnet50 has published weights
  se_resnet18({ pretrained: true });
  // @ts-expect-error a forwardSync cannot be aborted
  layer.forwardSync(x, { signal });
  // @ts-expect-error abstract
  new Module();
  console.log(parts, part, logits, auxLogits, block);
}

export async function compiled(x: Tensor, signal: AbortSignal): Promise<void> {
  const model = se_resnet50();
  exactly<Promise<CompiledModel>>()(model.compile());
  const options: CompileOptions = { dtype: 'bfloat16', signal };
  const fast = await model.compile(options);
  await se_inception_v3({ numClasses: 10 }).compile({ dtype: 'float16' });
  await model.getSubmodule('layer1').compile({ signal });
  const bytes = await model.compile({ dtype: 'int8', calibration: [x], keep: ['layer1'] });
  await model.compile({ dtype: 'int8', calibration: { data: x, method: 'percentile', percentile: 99.9 } });
  await model.compile({ dtype: 'int8', calibration: { data: x, errorBudget: 0.01 } });
  exactly<QuantizationRecord | undefined>()(bytes.quantization);
  exactly<Promise<void>>()(bytes.save('int8.safetensors', { metadata: { note: 'mine' } }));
  exactly<Promise<CompiledModel>>()(loadCompiled('int8.safetensors', { model: 'se_resnet50', signal }));
  // @ts-expect-error no such method
  await model.compile({ dtype: 'int8', calibration: { data: x, method: 'max' } });
  exactly<CompiledDType>()(fast.dtype);
  exactly<Promise<Tensor>>()(fast.forward(x, { signal }));
  exactly<Tensor>()(fast.forwardSync(x));
  const plan = fast.explain();
  exactly<CompiledPlan>()(plan);
  exactly<CompiledPlan>()(fast.explain([224, 160]));
  exactly<string>()(plan.backend);
  exactly<Device>()(plan.device);
  exactly<readonly [number, number]>()(plan.inputSize);
  exactly<readonly CompiledStep[]>()(plan.steps);
  for (const {
    name,
    operation,
    fused,
    input,
    output,
    weightBytes,
    activationBytes,
    multiplyAdds,
  } of plan.steps)
    console.log(
      name,
      operation,
      fused.join(),
      [...input, ...output],
      weightBytes + activationBytes + multiplyAdds,
    );
  const measure: ProfileOptions = { runs: 3, signal };
  const profile = await fast.profile(x, measure);
  exactly<CompiledProfile>()(profile);
  exactly<readonly ProfiledStep[]>()(profile.steps);
  exactly<number>()(
    profile.milliseconds + profile.batch + profile.runs + (profile.steps[0]?.milliseconds ?? 0),
  );
  exactly<void>()(fast.dispose());
  // @ts-expect-error float64 is not compiled
  void model.compile({ dtype: 'float64' });
  // @ts-expect-error a compiled model records no graph
  void fast.forward(x, { grad: true });
  // @ts-expect-error a forwardSync cannot be aborted
  fast.forwardSync(x, { signal });
  // @ts-expect-error height and width
  fast.explain([224]);
  // @ts-expect-error read only
  plan.steps[0] = null;
}

export async function userModules(x: Tensor): Promise<void> {
  class Net extends Module {
    scale = this.registerParameter('scale', ones([1]));
    mean = this.registerBuffer('mean', zeros([1]), { persistent: false });
    conv = new Conv2d(3, 16, [3, 3], { stride: 2, padding: [1, 1], dilation: 1, groups: 1, bias: false });
    bn = new BatchNorm2d(16, { eps: 1e-3, momentum: null });
    blocks = new ModuleList([new SELayer(16, 4), new SELayer(16, 4)]);
    head = new Sequential(
      new ReLU({ inplace: true }),
      new MaxPool2d(2, { stride: 2, padding: 1 }),
      new AdaptiveAvgPool2d(1),
      new Flatten(),
      new Dropout(0.5),
      new Linear(16, 2, { bias: true }),
    );
    override async forward(input: Tensor, mask?: Tensor): Promise<Tensor> {
      let y = await this.bn.forward(await this.conv.forward(input));
      for (const block of this.blocks) y = await block.forward(y);
      return this.head.forward(mask === undefined ? y : y.mul(mask));
    }
  }
  const net = new Net();
  exactly<Promise<Tensor>>()(net.forward(x));
  exactly<Net>()(net.train().eval().to('float64').requiresGrad_(false));
  exactly<Tensor>()(net.conv.weight);
  exactly<Tensor | null>()(net.conv.bias);
  exactly<number>()(net.conv.inChannels + net.bn.numFeatures);
  const any: Module<unknown> = net;
  const handle: HookHandle = net.registerForwardHook((module, inputs, output) => {
    exactly<readonly unknown[]>()(inputs);
    exactly<Tensor>()(output);
    return module.scale.mul(output);
  });
  handle.remove();
  exactly<Module<unknown>>()(net.replaceModule('blocks.0', new SELayer(16)));
  exactly<[string, Module<unknown>][]>()(net.namedChildren());
  exactly<Promise<ModelSummary>>()(net.summary([1, 3, 8, 8], { depth: 2 }));
  exactly<string>()((await net.summary([[1, 3, 8, 8]])).toString());
  const model = se_resnet50();
  model.fc = new Linear(model.fc.inFeatures, 5);
  exactly<Sequential>()(model.layer1);
  se_inception_v3({ numClasses: 2 }).model.fc = new Linear(2048, 3);
  // @ts-expect-error no layer
  model.fc = 5;
  // @ts-expect-error the argument of this forward is a Tensor
  void net.forward('x');
  // @ts-expect-error no such option
  new Conv2d(1, 1, 1, { kernelSize: 3 });
  console.log(any);
}

export async function files(x: Tensor, signal: AbortSignal): Promise<void> {
  const state = await load('model.pt', { mmap: true, signal });
  exactly<StateDict>()(state);
  exactly<Tensor | undefined>()(state.get('conv1.weight'));
  const metadata: ReadonlyMap<string, { readonly version?: number }> = state.metadata;
  exactly<Promise<StateDict>>()(load(new Uint8Array()));
  exactly<Promise<unknown>>()(loadCheckpoint('trainer.pt'));
  exactly<Promise<void>>()(save(state, 'model.safetensors'));
  exactly<Promise<void>>()(save(new SELayer(4, 2), 'model.pt'));
  exactly<Promise<void>>()(
    save(new SELayer(4, 2), 'model.onnx', { dtype: 'float16', opset: 18 } satisfies OnnxOptions),
  );
  exactly<Promise<void>>()(
    save(new SELayer(4, 2), 'model.onnx', { dtype: 'int8', calibration: zeros([1, 4, 8, 8]) }),
  );
  // @ts-expect-error no such option
  void save(new SELayer(4, 2), 'model.onnx', { opSet: 18 });
  // @ts-expect-error weights say nothing of what is computed
  void save(state, 'model.onnx', { dtype: 'float16' });
  const exported: Promise<Exported> = exportWeights('best.safetensors', 'net.onnx', {
    model: 'se_resnet20',
    preprocess: true,
    onProgress: ({ phase, done, total }) => console.log(phase satisfies 'calibrate' | 'write', done, total),
  } satisfies ExportOptions);
  exactly<number>()((await exported).bytes);
  const options = { modelDir: '.', fileName: 'model.pt', checkHash: false, progress: false, signal };
  exactly<Promise<StateDict>>()(loadStateDictFromUrl('https://example.org/model.pt', options));
  exactly<void>()(consumePrefixInStateDictIfPresent(state, 'module.'));

  const preprocessing: Partial<Preprocessing> = { size: 256, crop: [224, 224], mean: [0.5], std: [0.5] };
  const classifier = await ImageClassifier.load('se_resnet20', {
    weights: 'fashion_mnist',
    preprocessing,
    device: 'cpu',
    dtype: 'float32',
    inChannels: 3,
  });
  for (const source of [new Blob([]), new URL('file:///a.png'), new ArrayBuffer(8), 'data:,'] as const)
    await classifier.classify(source);
  await ImageClassifier.load(new SELayer(4, 2), { labels: ['a', 'b'] });
  await ImageClassifier.load('se_resnet50', { weights: 'imagenet', labels: 'labels.txt' });
  exactly<Classification[]>()(await classifier.classify('image.png', { topK: 1, signal }));
  exactly<Classification[]>()(await classifier.classify(new Uint8Array()));
  exactly<Classification[]>()(await classifier.classify(x));
  exactly<Classification[][]>()(await classifier.classify(['image.png', new Uint8Array(), x]));
  exactly<Float32Array>()((await classifier.predict(x, { onTimes: ([one]) => one?.network })).logits);
  // @ts-expect-error nothing is chosen
  await classifier.predict(x, { topK: 3 });
  const handler = createInferenceHandler({ net: classifier }, { maxBody: 1000, urls: { hosts: ['a.org'] } });
  exactly<InferenceHandler>()(handler);
  exactly<InferenceResponse>()(await handler.handle({ method: 'GET', url: '/v2', headers: {} }));
  exactly<number>()(httpStatusOf(new Error()));
  // @ts-expect-error no such option
  createInferenceHandler({}, { maxbody: 1000 });
  const [first] = await classifier.classify(x);
  if (first) console.log(first.label.length, first.index + first.score);
  exactly<Promise<void>>()(classifier.dispose());
  // @ts-expect-error no such model
  void ImageClassifier.load('resnet50');
  // @ts-expect-error private
  new ImageClassifier();
  console.log(metadata);
}

export async function data(x: Tensor, signal: AbortSignal): Promise<void> {
  const folder = await ImageFolder.open('photos', {
    extensions: ['.jpg'],
    classes: ['cat', 'dog'],
    allowEmpty: true,
  });
  exactly<readonly string[]>()(folder.classes);
  exactly<ReadonlyMap<string, number>>()(folder.classToIdx);
  exactly<Promise<Sample>>()(folder.get(0, { signal }));
  const idx = await IdxDataset.open('mnist', { train: false });
  await IdxDataset.open({ images: 'images', labels: 'labels' }, { classes: ['a', 'b'] });
  const cifar: PixelDataset = await Cifar10.open('cifar-10-python.tar.gz', { train: false, signal });
  await Cifar100.open('cifar-100-binary', { labels: 'coarse' });
  const part: Subset = new Subset(idx, [1, 2]);
  exactly<Subset[]>()(randomSplit<Sample>(cifar, [0.9, 0.1], 7));

  const transform: Transform = new Compose([
    new Resize({ size: 256, interpolation: 'bicubic' }),
    new CenterCrop({ size: [224, 224] }),
    new Pad({ padding: [1, 2], fill: 0, paddingMode: 'reflect' }),
    new RandomCrop({ size: 32, padding: 4 }),
    new RandomResizedCrop({ size: 224, scale: [0.5, 1], ratio: [0.9, 1.1] }),
    new RandomHorizontalFlip({ p: 0.5 }),
    new ColorJitter({ brightness: 0.2, contrast: [0.8, 1.2], saturation: 0.1, hue: 0.05 }),
    new Grayscale({ outputChannels: 3, formula: 'pillow' }),
    new ToTensor(),
    new Normalize({ mean: [0.5], std: [0.5] }),
    new RandomErasing({ value: 'random' }),
    { forward: (images, randoms) => images.mul(randoms[0]?.uniform() ?? 1) },
  ]);
  exactly<Tensor | Promise<Tensor>>()(transform.forward(x, [new Random(1, 2)], { signal }));

  const options = {
    batchSize: 8,
    shuffle: true,
    seed: 1,
    dropLast: true,
    prefetch: 0,
    skipCorrupt: true,
    signal,
  };
  const loader = new DataLoader(folder, {
    ...options,
    transform,
    batchTransform: new Mixup({ alpha: 0.2, numClasses: 2 }),
  });
  exactly<number>()(loader.length);
  exactly<readonly SkippedSample[]>()(loader.skipped);
  const state: DataLoaderState = loader.stateDict();
  exactly<void>()(loader.loadStateDict(state));
  for await (const batch of loader) {
    exactly<Batch>()(batch);
    exactly<Tensor>()(batch.images);
    exactly<Tensor>()(batch.labels);
    exactly<readonly number[]>()(batch.indices);
  }
  for await (const batch of new DataLoader([{ image: x, label: 1 }])) exactly<Batch>()(batch);
  const words: Dataset<string> = { length: 1, get: () => 'word' };
  const lengths = new DataLoader(words, { collate: (samples) => samples.map(({ length }) => length) });
  for await (const batch of lengths) exactly<number[]>()(batch);
  // @ts-expect-error torchvision's names in camelCase
  new RandomResizedCrop({ size: 224, interpolation: 'nearest' });
  // @ts-expect-error no such option
  new DataLoader(folder, { batch_size: 8 });
  // @ts-expect-error a data set is opened
  new ImageFolder('photos');
  console.log(part);
}

export async function training(signal: AbortSignal, folder: ImageFolder): Promise<void> {
  const model = se_resnet20({ numClasses: 2 });
  const optimizer = new SGD(model.parameters(), { lr: 0.1 });
  const train: BatchLoader = new DataLoader(folder, { batchSize: 8, shuffle: true });
  const trainer = new Trainer({
    model,
    train,
    validation: train,
    optimizer,
    epochs: 3,
    precision: 'bfloat16',
    checkpoint: { path: 'run.pt', everySteps: 100 },
    signal,
    onProgress: (progress) => exactly<TrainingProgress>()(progress),
    onBest: async (record) => {
      exactly<EpochRecord>()(record);
      await save(model, 'best.safetensors');
    },
  });
  const checkpoint = await readTrainingCheckpoint('run.pt');
  exactly<TrainingCheckpoint>()(checkpoint);
  exactly<void>()(trainer.restore(checkpoint));
  const result = await trainer.run();
  exactly<TrainingResult>()(result);
  exactly<TrainingHistory>()(result.history);
  exactly<number | undefined>()(result.best?.validation?.accuracy);
  new Trainer({ model, train, optimizer, epochs: 1, precision: 'float16', gradScaler: new GradScaler() });
  // @ts-expect-error no such precision
  new Trainer({ model, train, optimizer, epochs: 1, precision: 'float8' });
  // @ts-expect-error an optimiser is needed
  new Trainer({ model, train, epochs: 1 });
}

export async function optimisers(model: Module<unknown>, x: Tensor, signal: AbortSignal): Promise<void> {
  exactly<Promise<Tensor>>()(
    new CrossEntropyLoss({ labelSmoothing: 0.1, weight: x }).forward(x, x, { signal }),
  );
  exactly<Promise<Tensor>>()(new NLLLoss({ ignoreIndex: 0 }).forward(x, x));
  exactly<Promise<Tensor>>()(new BCEWithLogitsLoss({ posWeight: x, reduction: 'sum' }).forward(x, x));
  exactly<Promise<Tensor>>()(autocast(() => new MSELoss().forward(x, x)));
  const dtype: AutocastDType = 'float16';
  exactly<Promise<Tensor>>()(autocast(() => new MSELoss().forward(x, x), { dtype }));

  const optimizer = new SGD(model.parameters(), {
    lr: 0.1,
    momentum: 0.9,
    nesterov: true,
    weightDecay: 5e-4,
  });
  new Adam(model.namedParameters(), { betas: [0.9, 0.99] });
  const groups = new AdamW([{ params: model.parameters(), name: 'body', lr: 1 }, { params: x }], {
    amsgrad: true,
  });
  exactly<ParamGroup[]>()(groups.paramGroups);
  groups.addParamGroup({ params: [x], weightDecay: 0 });
  new RMSprop([{ params: x, alpha: 0.9, centered: true }]).addParamGroup({ params: [x], alpha: 0.5 });
  new Adagrad([{ params: x, lrDecay: 0.1 }]).addParamGroup({ params: [x], initialAccumulatorValue: 0.5 });
  exactly<(number | undefined)[]>()(groups.paramGroups.map(({ alpha }) => alpha));
  // @ts-expect-error no optimiser has it
  groups.addParamGroup({ params: [x], beta: 1 });
  const scaling: GradScalerOptions = {
    initScale: 1024,
    growthFactor: 2,
    backoffFactor: 0.5,
    growthInterval: 10,
  };
  const scaler = new GradScaler({ ...scaling, enabled: true });
  exactly<Tensor>()(scaler.scale(x));
  exactly<Tensor[]>()(scaler.scale([x, x]));
  exactly<Promise<void>>()(scaler.unscale_(groups));
  exactly<Promise<void>>()(scaler.step(groups));
  exactly<void>()(scaler.update());
  exactly<number>()(scaler.getScale());
  exactly<GradScalerState>()(scaler.stateDict());
  exactly<void>()(scaler.loadStateDict(scaler.stateDict()));
  for (const group of groups.paramGroups) group.lr *= 0.5;
  exactly<Promise<void>>()(optimizer.step());
  exactly<void>()(optimizer.zeroGrad());
  exactly<OptimizerState>()(optimizer.stateDict());
  optimizer.loadStateDict(await loadCheckpoint('x.pt'));
  exactly<Promise<Tensor>>()(
    clipGradNorm_(model.parameters(), 1, { normType: Infinity, errorIfNonfinite: true }),
  );

  const scheduler = new OneCycleLR(optimizer, { maxLr: [1], epochs: 2, stepsPerEpoch: 3 });
  new StepLR(optimizer, { stepSize: 1 });
  new MultiStepLR(optimizer, { milestones: [1, 2], gamma: 0.5 });
  new ExponentialLR(optimizer, { gamma: 0.9 });
  new CosineAnnealingLR(optimizer, { tMax: 5 });
  new RMSprop(model.parameters(), { alpha: 0.9, centered: true, momentum: 0.9 });
  new Adagrad(model.parameters(), { lrDecay: 0.1, initialAccumulatorValue: 0.1 });
  const warmUp = new LinearLR(optimizer);
  new LambdaLR(optimizer, { lrLambda: [(epoch) => 1 / (epoch + 1)] });
  new CosineAnnealingWarmRestarts(optimizer, { t0: 2, tMult: 2, etaMin: 0.1 }).step(1.5);
  new ReduceLROnPlateau(optimizer, { mode: 'max', patience: 2, minLr: [0.1] }).step(0.9);
  const both: LRScheduler = new SequentialLR(optimizer, { schedulers: [warmUp], milestones: [] });
  exactly<void>()(new ChainedScheduler([both]).step());
  exactly<void>()(scheduler.step());
  exactly<number[]>()(scheduler.getLastLr());
  scheduler.loadStateDict(scheduler.stateDict());
  for (const one of [optimizer, groups] as Optimizer[]) await one.step();
  for (const one of [scheduler] as LRScheduler[]) one.step();

  const average = new ExponentialMovingAverage(model, { decay: 0.99 });
  exactly<Promise<void>>()(average.update());
  exactly<StateDict>()(average.stateDict());
  setRngState(getRngState());
  exactly<Promise<void>>()(saveCheckpoint({ epoch: 1, optimizer: optimizer.stateDict() }, 'x.pt'));

  // @ts-expect-error no such option
  new SGD(model.parameters(), { weight_decay: 1 });
  // @ts-expect-error required
  new StepLR(optimizer, {});
  // @ts-expect-error no such mode
  new ReduceLROnPlateau(optimizer, { mode: 'best' });
  // @ts-expect-error no such reduction
  new MSELoss({ reduction: 'average' });
}

export async function explaining(model: Module, classifier: ImageClassifier, x: Tensor): Promise<void> {
  const { signal } = new AbortController();
  const gates = { 'layer4.2.se': 'mean', 'layer1.0.se': 0, 'layer1.1.se': [1, null] } as const;
  exactly<Map<string, Tensor>>()(await excitations(model, x, { gates, signal }));
  exactly<Promise<Tensor>>()(gatedForward(model, x, { gates }));
  exactly<ClassActivationMap>()(
    await classActivationMap(model, x, { method: 'gradcam++', layer: 'layer4.2', target: [1, 2], signal }),
  );
  exactly<Promise<Tensor>>()(resizeMap(x, [224, 224]));
  exactly<ChannelImportance>()(await ablateChannels(model, x, 'layer4.2.se', { channels: [1], value: 0 }));
  const explanation = await classifier.explain('a.png', { cam: 'scorecam', target: 3, excitations: true });
  exactly<Explanation>()(explanation);
  exactly<Float32Array | undefined>()(explanation.map?.data);
  exactly<ChannelImportance>()(await classifier.ablate('a.png', 'layer4.2.se'));
  exactly<ClassExcitations>()(
    await classExcitations(classifier, [{ image: 'a.png', label: 0 }], { classes: ['a'] }),
  );

  // @ts-expect-error no such method
  await classActivationMap(model, x, { method: 'cam' });
  // @ts-expect-error no such change
  await gatedForward(model, x, { gates: { se: 'most' } });
  // @ts-expect-error required
  await classExcitations(classifier, []);
}

export async function recipes(model: Module): Promise<void> {
  const run = await trainFromSettings({
    ...{ data: 'photos', model: 'se_resnet18', epochs: 3, mixup: null },
    onStart: ({ settings }) => console.log(settings.lr),
  });
  exactly<TrainingSettings>()(run.settings);
  const datasets = await createDatasets({
    data: 'photos',
    dataset: await detectDataset('photos'),
    validation: 0.2,
  });
  const { train, validation } = createLoaders(datasets, { size: [32, 32] }, { batchSize: 8 });
  exactly<DataLoader>()(train);
  exactly<DataLoader | null>()(validation);
  exactly<Transform>()(createTransform({ size: [32, 32] }, { augment: ['crop'] }));
  const made = createOptimizer(model, run.settings);
  exactly<Optimizer>()(made);
  createScheduler(made, run.settings, { epochs: 3, stepsPerEpoch: train.length });

  // @ts-expect-error no such option
  await trainFromSettings({ data: 'photos', batch_size: 8 });
  // @ts-expect-error no such augmentation
  createTransform({}, { augment: ['rotate'] });
}

export async function many(classifier: ImageClassifier, signal: AbortSignal): Promise<void> {
  const list = listImages(['photos', '-'], { recursive: true, signal });
  exactly<ImageListing>()(list);
  for await (const row of classifyMany(classifier, list, { topK: 3, inFlight: 8, signal })) {
    exactly<ImageRow>()(row);
    if (row.labels !== null) exactly<readonly Classification[]>()(row.labels);
  }
  classifyMany(classifier, ['a.png', new Uint8Array(3), { file: 'b', image: () => new Uint8Array(3) }]);
  const report = await classifyToFile(classifier, list, 'rows.csv', { shard: '3/8', overwrite: true });
  exactly<ManyReport>()(report);
  exactly<Promise<Enqueued>>()(enqueueImages('redis://localhost', list, { jobSize: 100 }));
  const worker = await startQueueWorker(classifier, 'redis://localhost', { output: 'answers' });
  exactly<QueueWorker>()(worker);
  await worker.close();
  const evaluation = await evaluateClassifier(classifier, await ImageFolder.open('photos'));
  exactly<ClassifierEvaluation>()(evaluation);

  // @ts-expect-error no such option
  listImages('photos', { deep: true });
  // @ts-expect-error required
  await startQueueWorker(classifier, 'redis://localhost', {});
  // @ts-expect-error no list
  classifyMany(classifier, 7);
}

export async function distributed(x: Tensor, signal: AbortSignal): Promise<void> {
  await initProcessGroup({ backend: 'gloo', timeout: 60_000, signal } satisfies InitProcessGroupOptions);
  exactly<boolean>()(isInitialized());
  exactly<Promise<void>>()(allReduce(x, { op: 'avg', signal }));
  exactly<Promise<void>>()(broadcast([x], { src: 1 }));
  exactly<Tensor[]>()(await allGather(x));
  exactly<Promise<void>>()(barrier());
  const inception = new DistributedDataParallel(se_inception_v3({ numClasses: 2 }), { bucketCapMb: 4 });
  exactly<Tensor | InceptionOutputs>()(await inception.forward(x));
  const model = new DistributedDataParallel(se_resnet18());
  exactly<Tensor>()(await model.forward(x));
  exactly<number>()(await model.noSync(() => Promise.resolve(1)));
  exactly<Module>()(await model.unwrap());
  exactly<SEResNet>()(SyncBatchNorm.convertSyncBatchnorm(se_resnet18()));
  exactly<number>()(new DistributedSampler([1, 2], { rank: getRank(), dropLast: true }).length);
  exactly<Promise<void>>()(destroyProcessGroup());
  // @ts-expect-error no such reduction
  void allReduce(x, { op: 'mean' });
  // @ts-expect-error no such backend
  void initProcessGroup({ backend: 'mpi' });
}

export function errors(error: unknown): ErrorCode | undefined {
  if (!isSenetError(error)) return undefined;
  exactly<SenetError | SenetTypeError | SenetRangeError>()(error);
  exactly<ErrorCode>()(error.code);
  const builtIn: Error = error;
  const type: TypeError | undefined = error instanceof SenetTypeError ? error : undefined;
  const range: RangeError | undefined = error instanceof SenetRangeError ? error : undefined;
  const meaning: string = ERROR_CODES[error.code].meaning;
  // @ts-expect-error no such code
  if (error.code === 'ERR_SENET_NOPE') return undefined;
  console.log(builtIn, type, range, meaning, error.details);
  return error.code;
}
