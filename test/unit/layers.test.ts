/** The layers' arguments, what their forwards refuse, and their properties. Numbers are in test/parity/layers.test.ts. */
import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  Conv2d,
  Dropout,
  Flatten,
  Identity,
  Linear,
  MaxPool2d,
  ReLU,
  Sigmoid,
} from '../../lib/nn/layers';
import { Sequential } from '../../lib/nn/containers';
import type { Module } from '../../lib/nn/module';
import { full, ones, rand, randn, tensor, zeros } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import { noGrad } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const wrong = (value: unknown): never => value as never;

describe('layers: arguments', function () {
  this.timeout(10_000);

  const refused: [string, () => unknown, Parameters<typeof expectThrow>[1], RegExp][] = [
    ['Conv2d: no channels', () => new Conv2d(0, 1, 1), 'ERR_SENET_ARG_RANGE', /inChannels/],
    ['Conv2d: half a channel', () => new Conv2d(1, 1.5, 1), 'ERR_SENET_ARG_RANGE', /outChannels/],
    ['Conv2d: text', () => new Conv2d(wrong('3'), 1, 1), 'ERR_SENET_ARG_TYPE', /inChannels/],
    ['Conv2d: no kernel', () => new Conv2d(1, 1, wrong(undefined)), 'ERR_SENET_ARG_TYPE', /kernelSize/],
    ['Conv2d: kernel 0', () => new Conv2d(1, 1, [3, 0]), 'ERR_SENET_ARG_RANGE', /kernelSize\[1\]/],
    ['Conv2d: three sizes', () => new Conv2d(1, 1, wrong([1, 2, 3])), 'ERR_SENET_ARG_RANGE', /height, width/],
    ['Conv2d: stride 0', () => new Conv2d(1, 1, 1, { stride: 0 }), 'ERR_SENET_ARG_RANGE', /stride/],
    ['Conv2d: padding -1', () => new Conv2d(1, 1, 1, { padding: -1 }), 'ERR_SENET_ARG_RANGE', /padding/],
    [
      "Conv2d: padding 'same'",
      () => new Conv2d(1, 1, 1, { padding: wrong('same') }),
      'ERR_SENET_ARG_TYPE',
      /padding/,
    ],
    ['Conv2d: dilation NaN', () => new Conv2d(1, 1, 1, { dilation: NaN }), 'ERR_SENET_ARG_RANGE', /dilation/],
    [
      'Conv2d: groups',
      () => new Conv2d(4, 6, 1, { groups: 4 }),
      'ERR_SENET_ARG_RANGE',
      /outChannels.*groups \(4\)/,
    ],
    [
      'Conv2d: groups of 3',
      () => new Conv2d(4, 6, 1, { groups: 3 }),
      'ERR_SENET_ARG_RANGE',
      /inChannels.*groups/,
    ],
    ['Conv2d: bias 1', () => new Conv2d(1, 1, 1, { bias: wrong(1) }), 'ERR_SENET_ARG_TYPE', /bias/],
    [
      'Conv2d: an option of Python',
      () => new Conv2d(1, 1, 1, wrong({ kernel_size: 3 })),
      'ERR_SENET_UNKNOWN_OPTION',
      /kernel_size/,
    ],
    ['Conv2d: huge', () => new Conv2d(2 ** 24, 2 ** 24, 64), 'ERR_SENET_OUT_OF_MEMORY', /Conv2d/],
    ['Conv2d: wider than allowed', () => new Conv2d(2 ** 40, 1, 1), 'ERR_SENET_ARG_RANGE', /inChannels/],
    ['BatchNorm2d: none', () => new BatchNorm2d(0), 'ERR_SENET_ARG_RANGE', /numFeatures/],
    ['BatchNorm2d: eps < 0', () => new BatchNorm2d(1, { eps: -1 }), 'ERR_SENET_ARG_RANGE', /eps/],
    ['BatchNorm2d: eps NaN', () => new BatchNorm2d(1, { eps: NaN }), 'ERR_SENET_ARG_RANGE', /eps/],
    ['BatchNorm2d: momentum 2', () => new BatchNorm2d(1, { momentum: 2 }), 'ERR_SENET_ARG_RANGE', /momentum/],
    [
      'BatchNorm2d: text',
      () => new BatchNorm2d(1, { momentum: wrong('') }),
      'ERR_SENET_ARG_TYPE',
      /momentum/,
    ],
    ['Linear: none', () => new Linear(1, 0), 'ERR_SENET_ARG_RANGE', /outFeatures/],
    ['Linear: huge', () => new Linear(2 ** 24, 2 ** 24), 'ERR_SENET_OUT_OF_MEMORY', /./],
    ['Linear: options', () => new Linear(1, 1, wrong(false)), 'ERR_SENET_ARG_TYPE', /options/],
    ['ReLU: in_place', () => new ReLU(wrong({ in_place: true })), 'ERR_SENET_UNKNOWN_OPTION', /'inplace'/],
    ['MaxPool2d: no window', () => new MaxPool2d(0), 'ERR_SENET_ARG_RANGE', /kernelSize/],
    ['MaxPool2d: padding', () => new MaxPool2d(3, { padding: 2 }), 'ERR_SENET_ARG_RANGE', /padding.*0 to 1/],
    ['AvgPool2d: padding', () => new AvgPool2d(2, { padding: 2 }), 'ERR_SENET_ARG_RANGE', /padding/],
    ['AvgPool2d: a pair', () => new AvgPool2d(wrong([2, 2])), 'ERR_SENET_ARG_TYPE', /kernelSize/],
    ['AdaptiveAvgPool2d: 0', () => new AdaptiveAvgPool2d(0), 'ERR_SENET_ARG_RANGE', /outputSize/],
    [
      'AdaptiveAvgPool2d: nothing',
      () => new AdaptiveAvgPool2d(wrong(undefined)),
      'ERR_SENET_ARG_TYPE',
      /outputSize/,
    ],
    ['Dropout: 1.1', () => new Dropout(1.1), 'ERR_SENET_ARG_RANGE', /p: .*from 0 to 1/],
    ['Dropout: NaN', () => new Dropout(NaN), 'ERR_SENET_ARG_RANGE', /p/],
    ['Dropout: text', () => new Dropout(wrong('0.5')), 'ERR_SENET_ARG_TYPE', /p/],
    ['Flatten: 64', () => new Flatten(64), 'ERR_SENET_ARG_RANGE', /startDim/],
    ['Flatten: 0.5', () => new Flatten(0, 0.5), 'ERR_SENET_ARG_RANGE', /endDim/],
  ];
  for (const [what, run, code, words] of refused)
    it(`refuses ${what}`, () => {
      expectThrow(run, code, words);
    });

  it('properties tell the sizes and give the tensors', () => {
    const conv = new Conv2d(4, 8, [3, 5], { groups: 2 });
    expect([conv.inChannels, conv.outChannels]).to.deep.equal([4, 8]);
    expect(conv.weight.shape).to.deep.equal([8, 2, 3, 5]);
    expect(conv.bias?.shape).to.deep.equal([8]);
    expect(conv.weight).to.equal(conv.parameters()[0]);
    expect(new Conv2d(1, 1, 1, { bias: false }).bias).to.equal(null);
    const linear = new Linear(3, 2, { bias: false });
    expect([linear.inFeatures, linear.outFeatures, linear.bias]).to.deep.equal([3, 2, null]);
    const bn = new BatchNorm2d(5);
    expect(bn.numFeatures).to.equal(5);
    expect(numbers(bn.runningVar)).to.deep.equal([1, 1, 1, 1, 1]);
    expect(bn.runningMean).to.equal(bn.namedBuffers()[0]?.[1]);
    expect(bn.bias.requiresGrad).to.equal(true);
    noGrad(() => linear.weight.fill_(1));
    expect(numbers(linear.forwardSync(full([1, 3], 2)))).to.deep.equal([6, 6]);
  });
});

describe('layers: forward', function () {
  it('deep nests are read in time that grows as they do', async () => {
    let nest: Module = new ReLU();
    for (let depth = 0; depth < 200; depth++) nest = new Sequential(nest);
    expect(nest.parameters()).to.deep.equal([]);
    expect((await nest.forward(tensor([-1, 2]))).toArray()).to.deep.equal([0, 2]);
  });

  it('BatchNorm2d: gradients do not depend on the memory of its weight', async () => {
    const gradientOf = async (weight: Tensor): Promise<Tensor> => {
      const bn = new BatchNorm2d(16);
      bn.loadStateDict(new Map([...bn.stateDict(), ['weight', weight]]), { assign: true });
      manualSeed(1);
      const x = randn([2, 16, 5, 5]).to({ memoryFormat: 'channels_last' });
      x.requiresGrad = true;
      await (
        await bn.forward(x)
      )
        .mul(randn([2, 16, 5, 5]))
        .sum()
        .backward();
      return x.grad as Tensor;
    };
    const expected = await gradientOf(ones([16]));
    for (const weight of [ones([1]).expand([16]), ones([16, 2]).select(1, 0)])
      expect((await gradientOf(weight)).sub(expected).abs().max().item()).to.be.below(1e-5);
  });

  this.timeout(10_000);

  const refused: [string, () => Module, () => Tensor, Parameters<typeof expectThrow>[1], RegExp][] = [
    [
      'Conv2d: channels',
      () => new Conv2d(3, 4, 3),
      () => rand([1, 4, 8, 8]),
      'ERR_SENET_SHAPE',
      /\[N, 3, H, W\]/,
    ],
    ['Conv2d: no batch', () => new Conv2d(3, 4, 3), () => rand([3, 8, 8]), 'ERR_SENET_SHAPE', /\[3, 8, 8\]/],
    [
      'Conv2d: less than the dilated kernel',
      () => new Conv2d(1, 1, 3, { dilation: 3 }),
      () => rand([1, 1, 6, 9]),
      'ERR_SENET_SHAPE',
      /kernel.*dilation \[3, 3\]/,
    ],
    [
      'Conv2d: bytes',
      () => new Conv2d(1, 1, 1),
      () => zeros([1, 1, 1, 1], { dtype: 'uint8' }),
      'ERR_SENET_DTYPE',
      /uint8/,
    ],
    [
      'BatchNorm2d: one value',
      () => new BatchNorm2d(2),
      () => rand([1, 2, 1, 1]),
      'ERR_SENET_SHAPE',
      /more than 1 value/,
    ],
    [
      'BatchNorm2d: channels',
      () => new BatchNorm2d(2),
      () => rand([1, 3, 2, 2]),
      'ERR_SENET_SHAPE',
      /\[N, 2, H, W\]/,
    ],
    ['Linear: features', () => new Linear(3, 1), () => rand([3, 2]), 'ERR_SENET_SHAPE', /3/],
    ['Linear: nothing', () => new Linear(3, 1), () => rand([0, 3]), 'ERR_SENET_SHAPE', /not empty/],
    ['MaxPool2d: small', () => new MaxPool2d(3), () => rand([1, 1, 2, 5]), 'ERR_SENET_SHAPE', /window of 3/],
    [
      'AvgPool2d: small',
      () => new AvgPool2d(4, { padding: 1 }),
      () => rand([1, 1, 9, 1]),
      'ERR_SENET_SHAPE',
      /window/,
    ],
    ['AvgPool2d: a vector', () => new AvgPool2d(1), () => rand([4]), 'ERR_SENET_SHAPE', /\[4\]/],
    [
      'AdaptiveAvgPool2d: empty',
      () => new AdaptiveAvgPool2d(1),
      () => rand([1, 0, 2, 2]),
      'ERR_SENET_SHAPE',
      /\[1, 0/,
    ],
    [
      'Flatten: out of range',
      () => new Flatten(3),
      () => rand([2, 2]),
      'ERR_SENET_SHAPE',
      /Flatten: dimensions 3 to -1/,
    ],
  ];
  for (const [what, make, input, code, words] of refused) {
    it(`refuses ${what}`, async () => {
      await expectRejection(make().forward(input()), code, words);
    });
  }

  it('ReLU leaves its input alone unless it is told otherwise', async () => {
    const x = full([2], -1);
    expect(numbers(await new ReLU().forward(x))).to.deep.equal([0, 0]);
    expect(numbers(x)).to.deep.equal([-1, -1]);
    await new ReLU({ inplace: true }).forward(x);
    expect(numbers(x)).to.deep.equal([0, 0]);
  });

  it('Dropout, Identity and Sigmoid', async () => {
    const x = full([1000], 1);
    const dropped = numbers(await new Dropout(0.25).forward(x));
    expect(new Set(dropped)).to.deep.equal(new Set([0, Math.fround(1 / 0.75)]));
    expect(numbers(await new Dropout(0.25).eval().forward(x))).to.deep.equal(numbers(x));
    expect(numbers(await new Dropout(1).forward(x)).some((value) => value !== 0)).to.equal(false);
    expect(numbers(await new Identity().forward(x))).to.deep.equal(numbers(x));
    expect((await new Sigmoid().forward(zeros([1]))).item()).to.equal(0.5);
  });

  it('the result of a layer that gives its input is a tensor of its own', async () => {
    const x = full([2], 3);
    const same = await new Identity().forward(x);
    x.dispose();
    expect(numbers(same)).to.deep.equal([3, 3]);
  });
});
