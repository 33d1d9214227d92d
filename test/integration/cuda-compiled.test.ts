/**
 * Compiled models on a GPU (SENET_TEST_DEVICE=cuda; skipped elsewhere): every kind of network in every dtype against
 * float64, beside PyTorch's own operators in the same dtype; batches that are padded or cut; the same bits again; many
 * callers; what `explain` and `profile` say; memory.
 */
import { expect } from 'chai';

import { createModel, manualSeed, randn, type CompiledDType, type Module, type Tensor } from '../../lib';
import { device, unavailable } from '../support/device';
import { skip } from '../support/skip';

const NETWORKS = [
  ['se_resnet50', 96],
  ['se_resnet18', 96],
  ['se_resnet20', 32],
  ['se_preactresnet20', 32],
  ['se_inception_v3', 299],
  ['seresnext26t_32x4d', 96],
  ['seresnext50_32x4d', 96],
  ['seresnet152d', 64],
  ['senet154', 64],
  ['seresnetaa50d', 96],
  ['resnetrs50', 96],
  ['ecaresnet26t', 96],
  ['legacy_seresnet50', 96],
  ['legacy_seresnext26_32x4d', 96],
  ['pytorchcv_seresnet20', 32],
  ['pytorchcv_sepreresnet10', 64],
] as const;

function numbers(tensor: Tensor): Float64Array {
  return tensor.to({ device: 'cpu', dtype: 'float64' }).toTypedArray() as Float64Array;
}

function distance(actual: Float64Array, expected: Float64Array): number {
  let difference = 0;
  let norm = 0;
  expected.forEach((value, i) => {
    difference += ((actual[i] as number) - value) ** 2;
    norm += value ** 2;
  });
  return Math.sqrt(difference / norm);
}

function networkOf(name: string): Module {
  manualSeed(5);
  const network = (createModel(name, { numClasses: 10 }) as Module).eval();
  // Variances that keep what is drawn within float16: an Inception's convolutions make their input larger.
  const scale = name.includes('inception') ? 10 : 1;
  for (const [key, value] of network.stateDict()) {
    if (key.endsWith('running_var')) value.copy_(randn(value.shape).mul(0.1).add(1).abs().mul(scale));
  }
  return network;
}

describe('compiled models on a GPU', function () {
  this.timeout(300_000);

  before(function () {
    const reason = device === 'cpu' ? 'SENET_TEST_DEVICE is not cuda' : unavailable();
    if (reason !== undefined) {
      skip(this, reason);
    }
  });

  for (const [name, side] of NETWORKS) {
    it(`${name}: as near to float64 as PyTorch's operators`, async () => {
      const network = networkOf(name).to(device);
      const x = randn([3, 3, side, side]).to(device);
      const wide = networkOf(name).to({ device, dtype: 'float64' });
      const expected = numbers(await wide.forward(x.to('float64')));
      const said: string[] = [];
      for (const dtype of ['float32', 'float16', 'bfloat16'] as CompiledDType[]) {
        const eager = networkOf(name).to({ device, dtype, memoryFormat: 'channels_last' });
        const usual = distance(numbers(await eager.forward(x.to(dtype))), expected);
        const compiled = await network.compile({ dtype });
        const actual = distance(numbers(await compiled.forward(x)), expected);
        const plan = compiled.explain([side, side]);
        const others = plan.steps.filter(({ kernel }) => kernel === 'libtorch').map((step) => step.name);
        said.push(
          `${dtype} ${actual.toExponential(1)} (${usual.toExponential(1)})${others.length > 0 ? ` ${others.length} by LibTorch` : ''}`,
        );
        expect(plan.backend).to.equal('cuda-fused');
        expect(actual, dtype).to.be.below(dtype === 'float32' ? 1e-5 : 2.5 * usual);
        const alone = numbers(await compiled.forward(x.slice(0, 1, 2)));
        expect(distance(alone, expected.slice(10, 20)), dtype).to.be.below(
          dtype === 'float32' ? 1e-5 : 4 * usual,
        );
        for (const each of [eager, compiled]) each.dispose();
      }
      console.log(`      ${said.join(', ')}`);
      for (const each of [network, wide]) each.dispose();
    });
  }

  it('batches that are padded and cut, other sizes and strides give what each image gives alone', async () => {
    const network = networkOf('se_resnet20').to(device);
    const compiled = await network.compile();
    for (const [n, h, w] of [
      [5, 32, 32],
      [300, 32, 32],
      [2, 40, 24],
      [7, 33, 31],
    ] as const) {
      const x = randn([n, w, 3, h]).permute([0, 2, 3, 1]).to(device);
      const expected = numbers(await network.forward(x));
      expect(distance(numbers(await compiled.forward(x)), expected), `${n} of ${h} x ${w}`).to.be.below(1e-3);
    }
    for (const each of [network, compiled]) each.dispose();
  });

  it('the same bits again, also among many callers', async () => {
    const network = networkOf('se_resnet50').to(device);
    const compiled = await network.compile({ dtype: 'float16' });
    const inputs = Array.from({ length: 8 }, (_, i) => randn([1 + (i % 3), 3, 64, 64]).to(device));
    const first = [];
    for (const x of inputs) first.push(numbers(await compiled.forward(x)));
    for (let round = 0; round < 5; round++) {
      const outputs = await Promise.all(inputs.map((x) => compiled.forward(x)));
      for (const [i, output] of outputs.entries()) expect(numbers(output)).to.deep.equal(first[i]);
    }
    for (const each of [network, compiled]) each.dispose();
  });

  it('NaN reaches the output, and only of its image', async () => {
    const network = networkOf('se_resnet20').to(device);
    const compiled = await network.compile({ dtype: 'float16' });
    const x = randn([2, 3, 32, 32]);
    x.select(0, 0).fill_(NaN);
    const output = numbers(await compiled.forward(x.to(device)));
    expect([...output.slice(0, 10)].every(Number.isNaN)).to.equal(true);
    expect([...output.slice(10)].some(Number.isNaN)).to.equal(false);
    for (const each of [network, compiled]) each.dispose();
  });

  it('explains and profiles its steps', async () => {
    const network = networkOf('se_resnet50').to(device);
    const compiled = await network.compile({ dtype: 'float16' });
    const { steps } = await compiled.profile(randn([4, 3, 64, 64]).to(device), { runs: 2 });
    const last = steps.find(({ name }) => name === 'layer1.0.conv3');
    expect(last).to.deep.include({
      operation: 'convolution',
      fused: ['factors of layer1.0.se', 'residual', 'relu'],
    });
    expect(last?.kernel).to.match(/^(ours \d+ rows|cudnn bias engine )/); // never cuDNN's own factors: sequence.cpp says why
    for (const step of steps) expect(step.milliseconds, step.name).to.be.above(0);
    for (const each of [network, compiled]) each.dispose();
  });

  it('disposed while it runs, it answers', async () => {
    const network = networkOf('se_resnet50').to(device);
    const compiled = await network.compile({ dtype: 'float16' });
    const x = randn([64, 3, 64, 64]).to(device);
    const expected = numbers(await compiled.forward(x));
    const flying = [compiled.forward(x), compiled.forward(x)];
    compiled.dispose();
    for (const output of await Promise.all(flying)) expect(numbers(output)).to.deep.equal(expected);
    network.dispose();
  });
});
