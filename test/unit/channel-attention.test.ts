/** timm's SEModule and EcaModule, pools in ceil mode and Conv1d: against LibTorch's operators, and what they refuse. */
import { expect } from 'chai';

import {
  AvgPool2d,
  Conv1d,
  Conv2d,
  EcaModule,
  manualSeed,
  MaxPool2d,
  ops,
  randn,
  ResNet,
  SEModule,
  SENet,
  Sequential,
  type Module,
  type Tensor,
} from '../../lib';
import type { ErrorCode } from '../../lib/errors';
import { expectCoded, expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const call = (name: string, ...args: unknown[]): Tensor => ops.call(name, ...args) as Tensor;

async function expectSame(module: Module, x: Tensor, expected: Tensor): Promise<void> {
  const found = await module.forward(x);
  expect(found.shape).to.deep.equal(expected.shape);
  const values = numbers(expected);
  numbers(found).forEach((value, index) => expect(value).to.be.closeTo(values[index] as number, 1e-6));
}

describe("timm's channel attention", () => {
  it('SEModule scales by what its convolutions make of the means', async () => {
    manualSeed(1);
    const se = new SEModule(24, { rdRatio: 0.25, rdDivisor: 4 });
    const x = randn([2, 24, 3, 5]);
    const { weight: w1, bias: b1 } = se.fc1;
    const { weight: w2, bias: b2 } = se.fc2;
    expect(w1.shape).to.deep.equal([8, 24, 1, 1]);
    const mean = call('aten::adaptive_avg_pool2d', x, [1, 1]);
    const hidden = call('aten::relu', call('aten::conv2d', mean, w1, b1));
    const gate = call('aten::sigmoid', call('aten::conv2d', hidden, w2, b2));
    await expectSame(se, x, x.mul(gate));
    expect([...se.stateDict().keys()]).to.deep.equal(['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']);
  });

  it('the squeezed width is rounded as timm rounds it', () => {
    const width = (channels: number, options?: object): number =>
      new SEModule(channels, options).fc1.weight.shape[0] as number;
    expect([64, 256, 1024, 2048].map((channels) => width(channels))).to.deep.equal([8, 16, 64, 128]);
    expect(width(72, { rdRatio: 0.25 })).to.equal(16); // 18 is nearer to 16 than to 24
    expect(width(64, { rdChannels: 5, bias: false })).to.equal(5);
  });

  it('EcaModule convolves the means along the channels', async () => {
    manualSeed(2);
    const eca = new EcaModule(256);
    const x = randn([2, 256, 4, 3]);
    expect(eca.conv.weight.shape).to.deep.equal([1, 1, 5]);
    const mean = call('aten::adaptive_avg_pool2d', x, [1, 1]).view([2, 1, 256]);
    const gate = call('aten::sigmoid', call('aten::conv1d', mean, eca.conv.weight, null, [1], [2]));
    await expectSame(eca, x, x.mul(gate.view([2, 256, 1, 1])));
  });

  it("EcaModule's kernel follows from the channels, or is given", () => {
    const size = (module: EcaModule): number => module.conv.weight.shape[2] as number;
    expect([16, 64, 256, 512, 2048].map((channels) => size(new EcaModule(channels)))).to.deep.equal([
      3, 3, 5, 5, 7,
    ]);
    expect(size(new EcaModule(null, { kernelSize: 9 }))).to.equal(9);
    expect(size(new EcaModule())).to.equal(3);
  });

  it('their children may be replaced: forward, compiled and trained agree', async () => {
    for (const [name, make] of [
      ['fc1', () => new Conv2d(8, 5, 1)],
      ['conv', () => new Conv1d(1, 1, 7, { padding: 3 })],
    ] as const) {
      const attention = name === 'fc1' ? new SEModule(8, { rdChannels: 5 }) : new EcaModule(8);
      attention.replaceModule(name, make());
      const net = new Sequential(new Conv2d(3, 8, 1), attention).eval();
      const x = randn([2, 3, 4, 5]);
      const expected = numbers(await net.forward(x));
      const compiled = await net.compile().then(
        (model) => model.forward(x),
        (error: unknown) => {
          expectCoded(error, 'ERR_SENET_COMPILE');
          return null; // a convolution with a bias is none of EcaModule's
        },
      );
      if (compiled !== null)
        numbers(compiled).forEach((value, index) =>
          expect(value).to.be.closeTo(expected[index] as number, 1e-5),
        );
      expect(numbers(await net.train().forward(x))).to.deep.equal(expected);
    }
  });

  const wrong: [string, () => unknown, ErrorCode, RegExp][] = [
    ['SEModule: no channels', () => new SEModule(0), 'ERR_SENET_ARG_RANGE', /channels/],
    ['SEModule: unknown', () => new SEModule(8, { rd: 1 } as object), 'ERR_SENET_UNKNOWN_OPTION', /rd/],
    ['EcaModule: even', () => new EcaModule(null, { kernelSize: 4 }), 'ERR_SENET_ARG_RANGE', /odd/],
    ['EcaModule: NaN', () => new EcaModule(Number.NaN), 'ERR_SENET_ARG_RANGE', /channels/],
    ['Conv1d: groups', () => new Conv1d(3, 4, 1, { groups: 2 }), 'ERR_SENET_ARG_RANGE', /groups/],
    [
      'ResNet: an empty stage',
      () => new ResNet({ layers: [1, 0, 1, 1] }),
      'ERR_SENET_ARG_RANGE',
      /layers\[1\].*got 0/,
    ],
    ['ResNet: stages', () => new ResNet({ layers: [1, 2, 3] }), 'ERR_SENET_ARG_TYPE', /four numbers/],
    [
      'ResNet: block',
      () => new ResNet({ layers: [1, 1, 1, 1], block: 'Basic' as never }),
      'ERR_SENET_ARG_RANGE',
      /block/,
    ],
    [
      'ResNet: groups of a BasicBlock',
      () => new ResNet({ layers: [1, 1, 1, 1], block: 'BasicBlock', cardinality: 2 }),
      'ERR_SENET_ARG_RANGE',
      /BasicBlock/,
    ],
    [
      'SENet: groups',
      () => new SENet({ block: 'SEResNetBottleneck', layers: [1, 1, 1, 1], groups: 3 }),
      'ERR_SENET_ARG_RANGE',
      /groups/,
    ],
  ];
  for (const [name, make, code, message] of wrong) {
    it(`refuses ${name}`, () => {
      expectThrow(make, code, message);
    });
  }
});

describe('pools in ceil mode', () => {
  const shapes = [
    [2, 3, 7, 8],
    [1, 2, 2, 2],
    [1, 3, 9, 6],
  ];
  for (const shape of shapes) {
    it(`of ${shape.join(' x ')} are LibTorch's, forward and backward`, async () => {
      for (const countIncludePad of [true, false]) {
        const x = randn(shape);
        await expectSame(
          new MaxPool2d(3, { stride: 2, ceilMode: true }),
          x,
          call('aten::max_pool2d', x, [3, 3], [2, 2], [0, 0], [1, 1], true),
        );
        const args = [[3, 3], [2, 2], [1, 1], true, countIncludePad];
        await expectSame(
          new AvgPool2d(3, { stride: 2, padding: 1, ceilMode: true, countIncludePad }),
          x,
          call('aten::avg_pool2d', x, ...args),
        );
        const [ours, theirs] = [randn(shape), randn(shape)];
        call('aten::copy_', theirs, ours);
        ours.requiresGrad = theirs.requiresGrad = true;
        const pool = new AvgPool2d(3, { stride: 2, padding: 1, ceilMode: true, countIncludePad });
        await (await pool.forward(ours)).sum().backward();
        await call('aten::avg_pool2d', theirs, ...args)
          .sum()
          .backward();
        expect(numbers(ours.grad as Tensor)).to.deep.equal(numbers(theirs.grad as Tensor));
      }
    });
  }

  it('an input with no window is refused, and one that a last window reaches is not', async () => {
    const pool = new MaxPool2d(3, { stride: 2, ceilMode: true });
    expect((await pool.forward(randn([1, 1, 2, 2]))).shape).to.deep.equal([1, 1, 1, 1]);
    await expectRejection(pool.forward(randn([1, 1, 1, 1])), 'ERR_SENET_SHAPE');
  });
});

describe('Conv1d', () => {
  it("is LibTorch's, with stride, padding, dilation, groups and bias", async () => {
    const conv = new Conv1d(4, 6, 3, { stride: 2, padding: 2, dilation: 2, groups: 2 });
    const x = randn([2, 4, 11]);
    const expected = call('aten::conv1d', x, conv.weight, conv.bias, [2], [2], [2], 2);
    const found = await conv.forward(x);
    expect(found.shape).to.deep.equal(expected.shape);
    const values = numbers(expected);
    numbers(found).forEach((value, index) => expect(value).to.be.closeTo(values[index] as number, 1e-6));
  });

  it('refuses an image and a short input', async () => {
    for (const shape of [
      [2, 4, 3, 3],
      [2, 4, 2],
      [2, 3, 5],
    ]) {
      await expectRejection(new Conv1d(4, 6, 3).forward(randn(shape)), 'ERR_SENET_SHAPE');
    }
  });
});
