/**
 * Training in channels-last order on the CPU, where BatchNorm, SE, residual and ReLU are computed in two passes, beside
 * PyTorch's default layout, where each is a layer: both against a float64 run of the same weights.
 */
import { expect } from 'chai';

import { se_preactresnet20, se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SEResNet } from '../../lib/models/se-resnet';
import { SENet } from '../../lib/models/timm-legacy-senet';
import { ResNet } from '../../lib/models/timm-resnet';
import { CrossEntropyLoss } from '../../lib/nn/losses';
import type { Module } from '../../lib/nn/module';
import { SEBasicBlock, SEBottleneck } from '../../lib/models/residual-blocks';
import { randn, tensor } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { manualSeed } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';

type Layout = 'contiguous' | 'channels_last';

interface Learnt {
  gradients: Map<string, Float64Array>;
  /** Running statistics. */
  buffers: Map<string, Float64Array>;
}

const toNumbers = (tensor: Tensor): Float64Array => tensor.to('float64').toTypedArray() as Float64Array;

const timm = (attnLayer: 'se' | 'eca'): Module =>
  new ResNet({ attnLayer, layers: [1, 1, 1, 1], zeroInitLast: false, numClasses: 10 });

const networks: Readonly<Record<string, { make: () => Module; side: number }>> = {
  se_resnet20: { make: () => se_resnet20(), side: 32 },
  se_preactresnet20: { make: () => se_preactresnet20(), side: 32 },
  'basic blocks': { make: () => new SEResNet(SEBasicBlock, [1, 1, 1, 1], { numClasses: 10 }), side: 64 },
  bottlenecks: { make: () => new SEResNet(SEBottleneck, [1, 1, 1, 1], { numClasses: 10 }), side: 64 },
  "timm's, SE with biases": { make: () => timm('se'), side: 64 },
  "timm's, ECA": { make: () => timm('eca'), side: 64 },
  "Cadene's": {
    make: () => new SENet({ block: 'SEResNetBottleneck', layers: [1, 1, 1, 1], dropRate: 0, numClasses: 10 }),
    side: 64,
  },
};

async function learn(
  { make, side }: { make: () => Module; side: number },
  seed: number,
  dtype: 'float32' | 'float64',
  memoryFormat: Layout,
): Promise<Learnt> {
  return tidy(async () => {
    manualSeed(seed);
    const model = make();
    const x = randn([6, 3, side, side]).to({ dtype, memoryFormat });
    model.to(dtype).train();
    const labels = tensor(BigInt64Array.from([0, 1, 2, 3, 4, 5].map(BigInt)));
    await (await new CrossEntropyLoss().forward(await model.forward(x), labels)).backward();
    const gradients = new Map(
      model.namedParameters().map(([key, { grad }]) => [key, toNumbers(grad as Tensor)]),
    );
    const buffers = new Map(model.namedBuffers().map(([key, value]) => [key, toNumbers(value)]));
    model.dispose();
    return { gradients, buffers };
  });
}

/** Relative L2 over all tensors together. */
function distance(found: Map<string, Float64Array>, exact: Map<string, Float64Array>): number {
  let [difference, norm] = [0, 0];
  for (const [key, expected] of exact) {
    const values = found.get(key);
    expect(values, key).to.have.lengthOf(expected.length);
    for (let i = 0; i < expected.length; i++) {
      const value = expected[i] as number;
      difference += ((values?.[i] ?? NaN) - value) ** 2;
      norm += value ** 2;
    }
  }
  return Math.sqrt(difference / norm);
}

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] as number;

describe('parity: fused training', function () {
  this.timeout(120_000);

  for (const [name, network] of Object.entries(networks)) {
    it(`${name}: gradients and statistics are as exact as those of the layers`, async () => {
      // A ReLU whose input is nearly 0 may fall on the other side in any float32 run, and then everything behind it
      // differs: the median of several seeds is not about those.
      const errors: Record<Layout, number[]> = { contiguous: [], channels_last: [] };
      for (const seed of [1, 2, 3, 4, 5]) {
        const exact = await learn(network, seed, 'float64', 'contiguous');
        for (const layout of ['contiguous', 'channels_last'] as const) {
          const found = await learn(network, seed, 'float32', layout);
          errors[layout].push(distance(found.gradients, exact.gradients));
          expect(distance(found.buffers, exact.buffers), `${layout}, seed ${seed}: buffers`).to.be.below(
            1e-5,
          );
        }
      }
      const said = JSON.stringify(errors);
      expect(median(errors.channels_last), said).to.be.below(3 * median(errors.contiguous) + 1e-6);
    });
  }

  it('a tensor whose negation is only noted (aten::_neg_view) is negated', async () => {
    manualSeed(1);
    const [x, gradient] = [randn([2, 16, 6, 6]), randn([2, 16, 6, 6])].map((values) =>
      values.to({ memoryFormat: 'channels_last' }),
    ) as [Tensor, Tensor];
    const noted = (values: Tensor): Tensor => ops.call('aten::_neg_view', values.neg()) as Tensor;
    const run = async (change: (values: Tensor) => Tensor): Promise<Float64Array[]> => {
      manualSeed(2);
      const block = new SEBasicBlock(16, 16);
      const y = await block.forward(change(x));
      await y.backward(change(gradient));
      return [y.detach(), ...block.parameters().map(({ grad }) => grad as Tensor)].map(toNumbers);
    };
    expect(await run(noted)).to.deep.equal(await run((values) => values));
  });
});
