/**
 * The public surface as a caller's types see it; compiled against the packed package by package.test.ts and against the
 * sources by `npm run lint`. Never run.
 */
import {
  configure,
  consumePrefixInStateDictIfPresent,
  createModel,
  cuda,
  ImageClassifier,
  isSenetError,
  L1Loss,
  listModels,
  load,
  loadCheckpoint,
  loadStateDictFromUrl,
  manualSeed,
  memory,
  noGrad,
  ops,
  save,
  SEBottleneck,
  SELayer,
  SEResNet,
  se_inception_v3,
  se_preactresnet20,
  se_resnet20,
  se_resnet50,
  StateDict,
  tensor,
  Tensor,
  tidy,
  version,
  type InceptionOutputs,
  type Module,
  type ModelName,
} from 'senet-torch';

export async function surface(): Promise<void> {
  const versions: string = version.package + version.libtorch + version.node;
  const devices: number = cuda.isAvailable() ? cuda.deviceCount() : 0;
  configure({ workers: 1, threadsPerWorker: devices + versions.length });
  manualSeed(7n);
  const queued: number = memory().jobs.queued;

  const x: Tensor = tensor([[1, 2]], { dtype: 'float64', requiresGrad: true, shape: [1, 2], device: 'cpu' });
  const shape: readonly number[] = x.shape;
  const { values, indices } = x.max(1);
  const joined = Tensor.stack([values, indices.to('float64')]);
  await joined.sum().backward();
  const gradient: Tensor | null = x.grad;
  const kept: Tensor = tidy(() => noGrad(() => x.add(1)));
  const async: Promise<Tensor> = tidy(async () => Promise.resolve(x));
  const raw: unknown = ops.call('aten::topk', x, 1);
  const name: string = ops.schema(ops.list()[0] ?? '');

  const layer = new SELayer(64, 16);
  const out: Tensor = await layer.train().eval().forward(x, { grad: true, signal: AbortSignal.abort() });
  const loss: Tensor = await new L1Loss({ reduction: 'sum' }).forward(out, x);
  const model: SEResNet = se_resnet50({ numClasses: 5, initWeights: false });
  const pretrained: SEResNet = await se_resnet50({ pretrained: true, progress: ({ bytes }) => void bytes });
  const custom = new SEResNet(SEBottleneck, [1, 1, 1, 1], { numClasses: 2 });
  const inception = se_inception_v3({ numClasses: 10, recalibrate: 'output', auxLogits: false });
  const outputs: Tensor | InceptionOutputs = inception.forwardSync(x);
  const models: ModelName[] = listModels();
  const byName: Module<unknown> = createModel(models[0] ?? 'se_resnet18');
  const small = [se_resnet20({ reduction: 4 }), se_preactresnet20()];
  const parameters: [string, Tensor][] = model.namedParameters();
  const parts: [string, Module<unknown>][] = model.namedModules();

  const state: StateDict = await load('model.pt');
  consumePrefixInStateDictIfPresent(state, 'module.');
  const { missingKeys } = model.loadStateDict(state, { strict: false, assign: true });
  await save(model, 'model.safetensors');
  const whole: unknown = await loadCheckpoint(new Uint8Array());
  const remote: StateDict = await loadStateDictFromUrl('https://example.org/model.pt', { checkHash: false });

  const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
  const one: { label: string; index: number; score: number }[] = await classifier.classify('image.png', { topK: 1 });
  const many: { label: string }[][] = await classifier.classify([new Uint8Array(), x, 'image.png']);
  await classifier.dispose();
  try {
    layer.dispose();
  } catch (error) {
    if (isSenetError(error)) console.log(error.code === 'ERR_SENET_BUSY', error.details);
  }
  console.log(queued, shape, gradient, kept, async, raw, name, loss, pretrained, custom, outputs, byName, small);
  console.log(parameters, parts, missingKeys, whole, remote, one, many);
}
