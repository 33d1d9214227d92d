/** One mistake has one code, whether a module runs itself, or compiled with our kernels or LibTorch's. */
import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  CifarSEBasicBlock,
  Conv2d,
  createModel,
  Flatten,
  Identity,
  isSenetError,
  Linear,
  MaxPool2d,
  rand,
  ReLU,
  SEBasicBlock,
  SEBottleneck,
  SELayer,
  se_inception_v3,
  se_resnet18,
  se_resnet20,
  Sequential,
  Sigmoid,
  type ErrorCode,
  type Module,
  type Tensor,
} from '../../lib';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';

const SHAPE = 'ERR_SENET_SHAPE';

/** What a module is given, and what that is: a code, or '' where it runs. */
type Case = readonly [what: string, make: () => Module<unknown>, input: () => Tensor, code: ErrorCode | ''];

function shape(...sizes: number[]): () => Tensor {
  return () => rand(sizes);
}

function inceptionPart(path: string): () => Module<unknown> {
  return () => se_inception_v3({ numClasses: 3, initWeights: false }).getSubmodule(path);
}

function withSmallerBranch(): Module<unknown> {
  const block = inceptionPart('model.Mixed_5b')();
  block.replaceModule('branch1x1.conv', new Conv2d(192, 64, 1, { stride: 2, bias: false }));
  return block;
}

const sequence = (...layers: Module<unknown>[]) => new Sequential(...layers);
const head = (...first: Module<unknown>[]) =>
  sequence(...first, new AdaptiveAvgPool2d(1), new Flatten(), new Linear(3, 5));

const CASES: readonly Case[] = [
  // Too small an image: at the first layer, and further in.
  ['a kernel', () => new Conv2d(3, 4, 5), shape(1, 3, 4, 9), SHAPE],
  ['a second kernel', () => sequence(new Conv2d(3, 4, 3), new Conv2d(4, 4, 3)), shape(1, 3, 4, 4), SHAPE],
  ['a maximum', () => sequence(new Conv2d(3, 4, 3), new MaxPool2d(3)), shape(1, 3, 4, 9), SHAPE],
  ['a mean', () => sequence(new Conv2d(3, 4, 3), new AvgPool2d(3)), shape(1, 3, 9, 4), SHAPE],
  ['InceptionA', inceptionPart('model.Mixed_5b'), shape(1, 192, 1, 1), ''],
  ['InceptionB', inceptionPart('model.Mixed_6a'), shape(1, 288, 2, 5), SHAPE],
  ['InceptionD', inceptionPart('model.Mixed_7a'), shape(1, 768, 5, 2), SHAPE],
  ['the auxiliary head: its pool', inceptionPart('model.AuxLogits'), shape(1, 768, 4, 17), SHAPE],
  ['the auxiliary head: its convolution', inceptionPart('model.AuxLogits'), shape(1, 768, 8, 17), SHAPE],
  ['Inception', inceptionPart('model'), shape(1, 3, 40, 75), SHAPE],
  ['se_resnet18 at one pixel', () => se_resnet18({ numClasses: 2 }), shape(1, 3, 1, 1), ''],
  ['se_resnet20 at one pixel', () => se_resnet20(), shape(1, 3, 1, 1), ''],
  // A residual of another size, or of other channels.
  ['a CIFAR block with a stride alone', () => new CifarSEBasicBlock(16, 16, 2), shape(1, 16, 8, 8), SHAPE],
  ['the same where the sizes agree', () => new CifarSEBasicBlock(16, 16, 2), shape(1, 16, 1, 1), ''],
  ['a basic block with a stride alone', () => new SEBasicBlock(16, 16, 2), shape(1, 16, 8, 8), SHAPE],
  ['a bottleneck with a stride alone', () => new SEBottleneck(16, 4, 2), shape(1, 16, 8, 8), SHAPE],
  [
    'a downsample with another stride',
    () => new SEBasicBlock(16, 32, 2, sequence(new Conv2d(16, 32, 1, { stride: 3 }))),
    shape(1, 16, 12, 12),
    SHAPE,
  ],
  ['a bottleneck of other channels', () => new SEBottleneck(16, 8), shape(1, 16, 8, 8), SHAPE],
  [
    'a downsample of other channels',
    () => new SEBasicBlock(16, 32, 1, new Conv2d(16, 8, 1)),
    shape(1, 16, 8, 8),
    SHAPE,
  ],
  ['a vector as residual', () => new SEBasicBlock(16, 32, 1, head()), shape(1, 16, 8, 8), SHAPE],
  ['branches of different sizes', withSmallerBranch, shape(1, 192, 9, 9), SHAPE],
  // Layers that do not fit each other.
  ['two convolutions', () => sequence(new Conv2d(3, 8, 1), new Conv2d(9, 8, 1)), shape(1, 3, 4, 4), SHAPE],
  ['a BatchNorm', () => sequence(new Conv2d(3, 8, 1), new BatchNorm2d(9)), shape(1, 3, 4, 4), SHAPE],
  ['a narrower BatchNorm', () => sequence(new Conv2d(3, 8, 1), new BatchNorm2d(7)), shape(1, 3, 4, 4), SHAPE],
  ['an SELayer', () => sequence(new Conv2d(3, 8, 1), new SELayer(9, 2)), shape(1, 3, 4, 4), SHAPE],
  [
    'a block',
    () => sequence(new Conv2d(3, 8, 1), new CifarSEBasicBlock(9, 9, 1, 3)),
    shape(1, 3, 4, 4),
    SHAPE,
  ],
  ['a Linear layer', () => sequence(new Conv2d(3, 8, 1), head()), shape(1, 3, 4, 4), SHAPE],
  [
    'the fc of an SELayer',
    () => {
      const layer = new SELayer(8, 2);
      layer.fc = sequence(new Linear(8, 4), new ReLU(), new Linear(5, 8), new Sigmoid());
      return layer;
    },
    shape(1, 8, 4, 4),
    SHAPE,
  ],
  // What is no input at all.
  ['other channels', () => se_resnet20(), shape(1, 4, 32, 32), SHAPE],
  ['no batch', () => se_resnet20(), shape(3, 32, 32), SHAPE],
  ['an empty batch', () => se_resnet20(), shape(0, 3, 32, 32), SHAPE],
  ['an empty image', () => se_resnet20(), shape(1, 3, 0, 32), SHAPE],
  ['another dtype', () => se_resnet20(), () => rand([1, 3, 32, 32]).to('float64'), 'ERR_SENET_DTYPE'],
  [
    'another size than Inception takes',
    () => createModel('se_inception_v3', { numClasses: 2, initWeights: false }),
    shape(1, 3, 32, 32),
    SHAPE,
  ],
  // Networks without a convolution.
  ['a mean and a Linear layer', () => head(), shape(2, 3, 8, 8), ''],
  ['an Identity in front of them', () => head(new Identity()), shape(2, 3, 8, 8), ''],
  ['a ReLU in front of them', () => head(new ReLU()), shape(2, 3, 8, 8), ''],
  ['a pool in front of them', () => head(new MaxPool2d(2)), shape(2, 3, 8, 8), ''],
  ['the channels of the Linear layer', () => head(new AvgPool2d(2)), shape(2, 4, 8, 8), SHAPE],
  ['a pool that does not fit in front of them', () => head(new AvgPool2d(9)), shape(2, 3, 8, 8), SHAPE],
];

async function outcomeOf(run: () => Promise<Tensor>): Promise<{ code: string; values: readonly number[] }> {
  try {
    return { code: '', values: numbers(await run()) };
  } catch (error) {
    if (!isSenetError(error)) throw error;
    return { code: error.code, values: [] };
  }
}

describe('the codes of what does not fit', function () {
  this.timeout(30_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  for (const [what, make, input, code] of CASES) {
    it(`${code === '' ? 'none' : code}: ${what}`, async () => {
      const module = make().eval() as Module;
      const x = input();
      const eager = await outcomeOf(() => module.forward(x.clone()));
      expect(eager.code, 'forward').to.equal(code);
      for (const kernels of [undefined, 'libtorch']) {
        temporary.environment({ SENET_COMPILE_KERNELS: kernels });
        const compiled = await outcomeOf(async () => (await module.compile()).forward(x));
        expect(compiled.code, `compiled, ${kernels ?? 'our kernels'}`).to.equal(code);
        compiled.values.forEach((value, at) => expect(value).to.be.closeTo(eager.values[at] as number, 1e-5));
      }
    });
  }
});
