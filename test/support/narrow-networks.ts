/**
 * A process of its own for convolution-shapes.test.ts: networks on narrow images by every path, so that oneDNN's log tells
 * which convolutions it was asked for.
 */
import {
  autocast,
  Conv2d,
  createModel,
  CrossEntropyLoss,
  manualSeed,
  randn,
  Sequential,
  tensor,
  type ModelName,
  type Module,
  type Tensor,
} from '../../lib';

const NETWORKS: readonly (readonly [ModelName, readonly number[]])[] = [
  ['se_resnet20', [2, 3, 40, 4]],
  ['se_preactresnet20', [2, 3, 40, 4]],
  ['se_resnet18', [2, 3, 96, 20]],
  ['se_resnet50', [2, 3, 64, 32]],
];

async function run(model: Module, x: Tensor): Promise<void> {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    (await model.eval().compile({ dtype })).dispose();
    const compiled = await model.compile({ dtype });
    await compiled.forward(x);
    for (const memoryFormat of ['contiguous', 'channels_last'] as const) {
      await model.to({ dtype, memoryFormat }).forward(x.to({ dtype, memoryFormat }));
      model.to('float32');
    }
  }
}

async function train(model: Module, x: Tensor): Promise<void> {
  const target = tensor([0n, 1n]);
  for (const memoryFormat of ['contiguous', 'channels_last'] as const) {
    const input = x.to({ memoryFormat });
    model.train().to({ memoryFormat });
    const step = async (): Promise<Tensor> =>
      new CrossEntropyLoss().forward((await model.forward(input)).flatten(1), target);
    for (const loss of [await step(), await autocast(step)]) await loss.backward();
  }
}

async function main(): Promise<void> {
  manualSeed(0);
  for (const [name, shape] of NETWORKS) {
    const model = createModel(name, { numClasses: 10 }) as Module;
    await train(model, randn(shape));
    await run(model, randn(shape));
  }
  // One input channel, and strides that differ.
  const narrow = new Sequential(new Conv2d(1, 39, [4, 2], { stride: [1, 4], padding: [2, 1] }));
  await run(narrow, randn([8, 1, 20, 2]));
  await train(narrow, randn([2, 1, 20, 2]));
  // Windows side by side, an unusual width, and more padding than half the kernel.
  for (const layer of [
    new Conv2d(16, 16, 4, { stride: 4 }),
    new Conv2d(16, 16, 8),
    new Conv2d(16, 16, [3, 5], { stride: [1, 3], padding: [2, 4] }),
  ]) {
    const network = new Sequential(layer);
    await run(network, randn([2, 16, 12, 12]));
    await train(network, randn([2, 16, 12, 12]));
  }
}

void main();
