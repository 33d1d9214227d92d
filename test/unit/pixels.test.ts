/**
 * Pixels to logits: `forwardPixels` gives what preprocessing and `forward` give, `shapePixels` is the first part of
 * `preprocess`, and `toTypedArrayAsync` reads without waiting. With SENET_TEST_DEVICE=cuda, on the device.
 */
import { expect } from 'chai';

import { IMAGENET, PLAIN } from '../../lib/models/preprocessing-record';
import {
  CompiledModel,
  manualSeed,
  rand,
  randn,
  se_resnet20,
  SGD,
  tensor,
  tidy,
  zeros,
  type ErrorCode,
  type PixelOptions,
  type Tensor,
} from '../../lib';
import { preprocess, shapePixels } from '../../lib/vision/preprocessing';
import { device, unavailable } from '../support/device';
import { expectRejection } from '../support/errors';
import { skip } from '../support/skip';

const MEAN = [0.4914, 0.4822, 0.4465];
const STD = [0.2023, 0.1994, 0.201];

type Shape = [n: number, c: number, h: number, w: number];
const bytes = (shape: Shape): Tensor => rand(shape).mul(255).to('uint8');

describe('pixels', function () {
  this.timeout(120_000);
  let compiled: CompiledModel;

  before(async function () {
    const reason = unavailable();
    if (reason !== undefined) {
      skip(this, reason);
    }
    manualSeed(1);
    const model = se_resnet20({ numClasses: 10 }).eval().to(device);
    compiled = await model.compile();
    model.dispose();
  });
  after(() => compiled?.dispose());

  const record = { ...PLAIN, mean: MEAN, std: STD };
  const layouts: [string, (shape: Shape) => Tensor][] = [
    ['planar', bytes],
    ['interleaved', ([n, c, h, w]) => bytes([n, h, w, c]).permute([0, 3, 1, 2])],
    [
      'cut out',
      ([n, c, h, w]) =>
        bytes([n, c, h + 5, w + 3])
          .slice(2, 2, h + 2)
          .slice(3, 3),
    ],
  ];
  for (const [name, make] of layouts) {
    it(`${name}: forwardPixels is preprocess and forward`, async () => {
      for (const n of [1, 3, 300]) {
        const pixels = make([n, 3, 32, 32]);
        const x = (await preprocess(pixels, record)).to(device);
        const expected = (await compiled.forward(x)).to('cpu');
        const actual = await compiled.forwardPixels(pixels, { mean: MEAN, std: STD });
        expect(actual.device).to.equal('cpu');
        expect(actual.shape).to.deep.equal([n, 10]);
        expect(actual.sub(expected).abs().max().item()).to.be.at.most(device === 'cpu' ? 0 : 1e-4);
      }
    });
  }

  it('a single channel is repeated, and float32 is taken as it is', async () => {
    const grey = bytes([2, 1, 32, 32]);
    const options = { mean: MEAN, std: STD };
    const one = await compiled.forwardPixels(grey, options);
    const three = await compiled.forwardPixels(grey.expand([-1, 3, -1, -1]).contiguous(), options);
    expect(one.toArray()).to.deep.equal(three.toArray());
    const x = randn([2, 3, 32, 32]);
    const floats = await compiled.forwardPixels(x);
    const expected = (await compiled.forward(x.to(device))).to('cpu');
    expect(floats.sub(expected).abs().max().item()).to.be.at.most(device === 'cpu' ? 0 : 1e-4);
  });

  it('many callers at once, one that aborts and one that disposes', async () => {
    const model = se_resnet20({ numClasses: 10 }).eval().to(device);
    const other = await model.compile();
    const pixels = bytes([2, 3, 32, 32]);
    const options = { mean: MEAN, std: STD };
    const expected = (await other.forwardPixels(pixels, options)).toArray();
    const controller = new AbortController();
    const running = Array.from({ length: 20 }, () => other.forwardPixels(pixels, options));
    const large = other.forwardPixels(bytes([300, 3, 32, 32]), options); // several runs, on a device
    // A job that runs alone waits for all of them, and nothing that they have still to do waits for it.
    const step = new SGD([zeros([1], { requiresGrad: true })], { lr: 1 }).step();
    const aborted = other.forwardPixels(pixels, { ...options, signal: controller.signal });
    controller.abort();
    other.dispose();
    await expectRejection(aborted, 'ERR_SENET_ABORTED');
    await step;
    for (const logits of await Promise.all(running)) expect(logits.toArray()).to.deep.equal(expected);
    expect((await large).shape).to.deep.equal([300, 10]);
    await expectRejection(other.forwardPixels(pixels, options), 'ERR_SENET_DISPOSED');
    model.dispose();
  });

  it('results belong to the caller’s tidy', async () => {
    const kept = await tidy(async () => {
      const logits = await compiled.forwardPixels(bytes([1, 3, 32, 32]), { mean: MEAN, std: STD });
      return logits.toArray();
    });
    expect(kept).to.have.length(1);
  });

  it('refuses what is no image', async () => {
    const good = { mean: MEAN, std: STD };
    const cases: [unknown, unknown, ErrorCode][] = [
      [zeros([3, 32, 32]).to('uint8'), good, 'ERR_SENET_SHAPE'],
      [zeros([1, 2, 32, 32]).to('uint8'), good, 'ERR_SENET_SHAPE'],
      [zeros([0, 3, 32, 32]).to('uint8'), good, 'ERR_SENET_SHAPE'],
      [zeros([1, 3, 32, 32]).to('int32'), good, 'ERR_SENET_DTYPE'],
      [bytes([1, 3, 32, 32]), undefined, 'ERR_SENET_ARG_RANGE'],
      [bytes([1, 3, 32, 32]), { mean: [0], std: [1] }, 'ERR_SENET_ARG_RANGE'],
      [bytes([1, 3, 32, 32]), { ...good, std: [1, 0, 1] }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, std: [1, 1e-50, 1] }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, mean: [1, NaN, 1] }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, mean: [1, 1e39, 1] }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, mean: ['0', 1, 1] }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, mean: new Array<number>(3) }, 'ERR_SENET_ARG_TYPE'],
      [bytes([1, 3, 32, 32]), { ...good, deviation: 1 }, 'ERR_SENET_UNKNOWN_OPTION'],
      [1, good, 'ERR_SENET_ARG_TYPE'],
    ];
    for (const [pixels, options, code] of cases)
      await expectRejection(compiled.forwardPixels(pixels as never, options as PixelOptions), code);
  });

  describe('shapePixels', () => {
    it('is preprocess up to the pixels', async () => {
      const photo = bytes([1, 3, 300, 400]);
      const shaped = await shapePixels(photo, IMAGENET);
      expect([shaped.dtype, shaped.shape]).to.deep.equal(['uint8', [1, 3, 224, 224]]);
      const rest = { ...PLAIN, mean: IMAGENET.mean, std: IMAGENET.std };
      const [expected, actual] = [await preprocess(photo, IMAGENET), await preprocess(shaped, rest)];
      expect(actual.sub(expected).abs().max().item()).to.equal(0);
    });

    it('what was cut out without resizing does not keep the photograph', async () => {
      const photo = bytes([1, 3, 300, 400]);
      const shaped = await shapePixels(photo, { ...PLAIN, crop: [32, 32] });
      const expected = photo.slice(2, 134, 166).slice(3, 184, 216).toArray();
      photo.fill_(0);
      expect(shaped.toArray()).to.deep.equal(expected);
    });
  });
});

describe('toTypedArrayAsync', () => {
  it('gives what toTypedArray gives, of the tensor as it was called', async function () {
    const reason = unavailable();
    if (reason !== undefined) skip(this, reason);
    for (const dtype of ['float32', 'int64', 'bool', 'bfloat16'] as const) {
      const x = tensor([
        [1, 0, 3],
        [4, 5, 6],
      ])
        .to(dtype)
        .to(device)
        .transpose(0, 1);
      expect(await x.toTypedArrayAsync()).to.deep.equal(x.toTypedArray());
    }
    expect(await zeros([0], { device }).toTypedArrayAsync()).to.have.length(0);
  });

  it('reads tensors that are disposed meanwhile, many at once', async function () {
    const reason = unavailable();
    if (reason !== undefined) skip(this, reason);
    const readings = Array.from({ length: 50 }, (_, i) => {
      const x = tensor([i, i + 1], { device });
      const reading = x.toTypedArrayAsync();
      x.dispose();
      return reading;
    });
    for (const [i, values] of (await Promise.all(readings)).entries())
      expect([...values]).to.deep.equal([i, i + 1]);
  });

  it('aborts', async () => {
    await expectRejection(
      tensor([1]).toTypedArrayAsync({ signal: AbortSignal.abort() }),
      'ERR_SENET_ABORTED',
    );
    await expectRejection(tensor([1]).toTypedArrayAsync({ abort: 1 } as never), 'ERR_SENET_UNKNOWN_OPTION');
  });
});
