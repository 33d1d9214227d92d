/**
 * Every kind of model on SENET_TEST_DEVICE (default: the CPU) against the CPU in float64, forward, compiled and backward,
 * without TensorFloat-32, and what happens where that device does not exist.
 */
import { expect } from 'chai';

import {
  createModel,
  cuda,
  L1Loss,
  manualSeed,
  rand,
  randn,
  SELayer,
  tensor,
  zeros,
  type Tensor,
} from '../../lib';
import { device, unavailable } from '../support/device';
import { skip } from '../support/skip';

function relativeError(actual: Tensor, expected: Tensor): number {
  const wide = actual.to({ dtype: 'float64', device: 'cpu' });
  const difference = wide.sub(expected);
  return Math.sqrt(
    Number(difference.mul(difference).sum().item()) / Number(expected.mul(expected).sum().item()),
  );
}

describe(`device ${device}`, function () {
  before(function () {
    const reason = unavailable();
    if (reason !== undefined) {
      skip(this, reason);
    }
    cuda.allowTF32 = false;
  });
  after(() => {
    cuda.allowTF32 = true;
  });

  const cases = [
    ['se_resnet18', [2, 3, 64, 64]],
    ['se_resnet50', [1, 3, 64, 64]],
    ['se_resnet20', [4, 3, 32, 32]],
    ['se_preactresnet20', [4, 3, 32, 32]],
    ['se_inception_v3', [1, 3, 299, 299]],
  ] as const;
  for (const [name, shape] of cases) {
    it(`${name}: logits as on the CPU in float64`, async () => {
      manualSeed(5);
      const model = createModel(name, { numClasses: 10 }).eval();
      const x = randn(shape);
      const actual = (await model.to(device).forward(x.to(device))) as Tensor;
      expect(actual.device.split(':')[0]).to.equal(device.split(':')[0]);
      const expected = (await model
        .to({ device: 'cpu', dtype: 'float64' })
        .forward(x.to('float64'))) as Tensor;
      expect(relativeError(actual, expected)).to.be.below(1e-5);
      model.dispose();
    });

    it(`${name}: compiled float32 is float32, whatever cuda.allowTF32 says`, async () => {
      cuda.allowTF32 = true;
      try {
        manualSeed(5);
        const model = createModel(name, { numClasses: 10 }).eval().to(device);
        const x = randn(shape);
        const compiled = await model.compile();
        const rounded = await model.compile({ allowTF32: true });
        const actual = await compiled.forward(x.to(device));
        const other = await rounded.forward(x.to(device));
        const expected = (await model
          .to({ device: 'cpu', dtype: 'float64' })
          .forward(x.to('float64'))) as Tensor;
        expect(relativeError(actual, expected)).to.be.below(1e-5);
        expect(relativeError(other, expected)).to.be.below(1e-2);
        for (const each of [compiled, rounded, model]) each.dispose();
      } finally {
        cuda.allowTF32 = false;
      }
    });
  }

  it('SELayer: gradients as on the CPU', async () => {
    manualSeed(6);
    const layer = new SELayer(32, 4);
    const x = rand([2, 32, 9, 7]);
    const gradients = async (place: typeof device): Promise<Tensor[]> => {
      layer.to(place).zeroGrad();
      const input = x.to(place);
      const loss = await new L1Loss().forward(await layer.forward(input), input);
      await loss.backward();
      return layer.parameters().map((parameter) => parameter.grad?.to('cpu') as Tensor);
    };
    const expected = await gradients('cpu');
    const actual = await gradients(device);
    actual.forEach((gradient, index) => {
      expect(relativeError(gradient, (expected[index] as Tensor).to('float64'))).to.be.below(1e-5);
    });
  });

  it('typed arrays come back from the device', () => {
    expect(tensor([1, 2, 3], { device }).mul(2).toArray()).to.deep.equal([2, 4, 6]);
  });

  it('an input on another device than the module is a coded error', async function () {
    if (device === 'cpu') {
      skip(this, 'needs two devices');
    }
    const layer = new SELayer(4, 2).to(device);
    const error = await layer.forward(zeros([1, 4, 2, 2])).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(TypeError).and.to.have.property('code', 'ERR_SENET_DEVICE');
  });
});

describe('a device that is not there', () => {
  const absent = cuda.isAvailable() ? `cuda:${cuda.deviceCount()}` : 'cuda';
  const attempts: Record<string, () => unknown> = {
    factory: () => zeros([2], { device: absent as 'cuda' }),
    'Tensor.to': () => zeros([2]).to(absent as 'cuda'),
    'Module.to': () => new SELayer(4, 2).to(absent as 'cuda'),
  };
  for (const [name, attempt] of Object.entries(attempts)) {
    it(`${name} refuses '${absent}' and never runs on the CPU instead`, () => {
      expect(attempt).to.throw().with.property('code', 'ERR_SENET_CUDA_UNAVAILABLE');
    });
  }
  it('cuda.allowTF32 is a boolean, true by default', () => {
    const before = cuda.allowTF32;
    cuda.allowTF32 = !before;
    expect(cuda.allowTF32).to.equal(!before);
    cuda.allowTF32 = before;
    for (const wrong of [1, 'true', null, undefined]) {
      expect(() => (cuda.allowTF32 = wrong as never))
        .to.throw(TypeError)
        .with.property('code', 'ERR_SENET_ARG_TYPE');
    }
    expect(cuda.allowTF32).to.equal(before);
  });
  it('compile refuses an allowTF32 that is no boolean', async () => {
    const error = await new SELayer(4, 2)
      .compile({ allowTF32: 1 as never })
      .catch((reason: unknown) => reason);
    expect(error).to.have.property('code', 'ERR_SENET_ARG_TYPE');
  });
  it('cuda reports what there is', () => {
    expect(cuda.deviceCount()).to.be.a('number').and.at.least(0);
    expect(cuda.isAvailable()).to.equal(cuda.deviceCount() > 0);
  });
});
