/**
 * Exported networks in ONNX Runtime beside this library's own forward: a network of each kind at odd sizes and several
 * batches, random ones, every dtype, pixels and probabilities; in WebAssembly; and what `onnx.checker` says, where
 * SENET_TEST_PYTHON names a Python that has it.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';
import fc from 'fast-check';
import sharp from 'sharp';

import {
  AvgPool2d,
  BatchNorm2d,
  Conv2d,
  createModel,
  exportWeights,
  ImageClassifier,
  Linear,
  load,
  manualSeed,
  MaxPool2d,
  Module,
  ops,
  randint,
  randn,
  save,
  SELayer,
  Sequential,
  se_resnet20,
  tensor,
  Tensor,
  type ModelName,
  type ModelOptions,
  type OnnxOptions,
  type Preprocessing,
} from '../../lib';
import { readIdxDataset } from '../../lib/data/idx';
import { preprocess } from '../../lib/vision/preprocessing';
import { PLAIN } from '../../lib/models/preprocessing-record';
import { FUZZ_RUNS, FUZZ_SEED, printSeed } from '../support/fuzz';
import { LIGHT_MODELS } from '../support/models';
import { needOnnxRuntime, OnnxModel } from '../support/onnx-runtime';
import { numbers, perturbBatchNorms, relativeError } from '../support/parity';
import { Fitted, network } from '../support/random-networks';
import { skip } from '../support/skip';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
/** Of float32, everywhere. */
const NEAR = 1e-5;

/** Statistics that leave a network well-conditioned, so that 1e-5 can be asked of it. */
function varianceOf(name: string): readonly [number, number] {
  if (name.includes('inception')) return [5, 15];
  return /101|152|56/.test(name) ? [1, 3] : [0.5, 1.5];
}

function make(name: ModelName, options: Record<string, unknown> = {}): Module {
  manualSeed(31);
  const model = createModel(name, { numClasses: 10, ...options } as ModelOptions) as Module;
  perturbBatchNorms(model, varianceOf(name));
  return model.eval();
}

interface Int8 {
  readonly keep?: readonly string[];
  readonly quantizeFirst?: boolean;
}

describe('ONNX files', function () {
  this.timeout(300_000);
  const temporary = new Temporary();
  const file = temporary.path('net.onnx');
  before(function () {
    needOnnxRuntime(this);
  });
  after(() => temporary.cleanUp());

  /** How far the file is from an ordinary forward, for inputs of these shapes. */
  async function errorsOf(
    module: Module,
    shapes: readonly (readonly number[])[],
    options: OnnxOptions = {},
  ): Promise<number[]> {
    await save(module, file, options);
    const exported = await OnnxModel.open(file, 'node', 'extended');
    const errors: number[] = [];
    for (const shape of shapes) {
      const x = randn([...shape]);
      const [expected, given] = [await module.forward(x), await exported.run(x)];
      expect(given.shape).to.deep.equal(expected.shape);
      errors.push(relativeError(given, numbers(expected)));
    }
    await exported.close();
    return errors;
  }

  async function expectNear(
    module: Module,
    shapes: readonly (readonly number[])[],
    options?: OnnxOptions,
  ): Promise<void> {
    for (const error of await errorsOf(module, shapes, options)) expect(error).to.be.below(NEAR);
  }

  describe('float32, within 1e-5 of forward', () => {
    for (const name of LIGHT_MODELS.filter((one) => one !== 'se_inception_v3')) {
      it(name, async () => {
        const model = make(name);
        // Its shortcuts take no odd sizes.
        const isEven = name === 'seresnetaa50d';
        await expectNear(
          model,
          isEven
            ? [[2, 3, 64, 96]]
            : [
                [3, 3, 65, 97],
                [1, 3, 70, 33],
              ],
        );
        model.dispose();
      });
    }

    for (const options of [
      {},
      { transformInput: true, recalibrate: 'input' },
      { recalibrate: 'output', auxLogits: false },
    ]) {
      it(`se_inception_v3 ${JSON.stringify(options)}`, async () => {
        const model = make('se_inception_v3', options);
        await expectNear(model, [[2, 3, 299, 299]]);
        model.dispose();
      });
    }

    it('with every BatchNorm a node, and one that stands alone', async () => {
      for (const name of ['se_resnet18', 'se_preactresnet20', 'pytorchcv_sepreresnet10'] as const) {
        const model = make(name);
        await expectNear(model, [[2, 3, 65, 47]], { keepBatchNorm: true });
        model.dispose();
      }
      const inception = make('se_inception_v3', { transformInput: true });
      await expectNear(inception, [[1, 3, 299, 299]], { keepBatchNorm: true });
      inception.dispose();
    });

    it('pools with and without ceilMode and countIncludePad', async () => {
      const pools = [
        new MaxPool2d(3, { stride: 2, ceilMode: true }),
        new MaxPool2d(3, { stride: 2, padding: 1 }),
        ...[true, false].flatMap((ceilMode) =>
          [true, false].flatMap((countIncludePad) => [
            new AvgPool2d(3, { stride: 2, padding: 1, ceilMode, countIncludePad }),
            new AvgPool2d(2, { stride: 2, ceilMode, countIncludePad }),
            new AvgPool2d(5, { stride: 3, padding: 2, ceilMode, countIncludePad }),
          ]),
        ),
      ];
      for (const pool of pools) {
        const network = new Sequential(new Conv2d(3, 5, 1), pool).eval();
        await expectNear(network, [
          [1, 3, 9, 12],
          [2, 3, 14, 7],
          [1, 3, 8, 11],
        ]);
      }
    });

    it('a forward in TypeScript', async () => {
      class Net extends Module {
        conv = new Conv2d(3, 12, 3, { padding: 2, dilation: 2 });
        grouped = new Conv2d(12, 12, 3, { padding: 1, groups: 4, bias: false });
        bn = new BatchNorm2d(12);
        se = new SELayer(12, 4);
        gate = new Conv2d(12, 12, 1);
        fc = new Linear(24, 7);
        override async forward(x: Tensor): Promise<Tensor> {
          const first = (await this.conv.forward(x)).relu();
          const second = await this.se.forward(await this.bn.forward(await this.grouped.forward(first)));
          const gate = (await this.gate.forward(first.mean([2, 3], { keepdim: true }))).sigmoid();
          const joined = Tensor.cat([second.mul(gate).add(first), first], 1);
          return this.fc.forward(joined.mean([2, 3]));
        }
      }
      const net = new Net().eval();
      perturbBatchNorms(net, [0.5, 1.5]);
      await expectNear(net, [
        [3, 3, 17, 23],
        [1, 3, 9, 9],
      ]);
      await expectNear(net, [[2, 3, 12, 9]], { keepBatchNorm: true });
      net.dispose();
    });

    it('random networks', async () => {
      printSeed();
      await fc.assert(
        fc.asyncProperty(network, async (drawn) => {
          const fitted = new Fitted(drawn);
          manualSeed(drawn.seed);
          const model = fitted.make().eval();
          perturbBatchNorms(model, [0.5, 1.5]);
          const keepBatchNorm = drawn.seed % 2 === 1;
          await save(model, file, { keepBatchNorm });
          const exported = await OnnxModel.open(file);
          const x = randn([...fitted.shape]);
          const wide = fitted.make().eval();
          wide.loadStateDict(model.stateDict());
          const reference = numbers(await wide.to('float64').forward(x.to('float64')));
          const distance = (values: number[]): number =>
            reference.some((value) => value !== 0)
              ? relativeError(values, reference)
              : values.filter((value) => value !== 0).length;
          const own = distance(numbers(await model.forward(x)));
          const given = distance(numbers(await exported.run(x)));
          await exported.close();
          for (const done of [model, wide]) done.dispose();
          expect(given).to.be.at.most(Math.max(NEAR, 5 * own));
        }),
        { numRuns: 30 * FUZZ_RUNS, seed: FUZZ_SEED },
      );
    });
  });

  it('float16: weights rounded once, computed in float32', async () => {
    for (const name of ['se_resnet20', 'se_resnet18', 'ecaresnet26t', 'legacy_seresnet18'] as const) {
      const model = make(name);
      const errors = await errorsOf(
        model,
        [
          [3, 3, 65, 97],
          [1, 3, 33, 40],
        ],
        { dtype: 'float16' },
      );
      for (const error of errors) expect(error).to.be.within(1e-6, 5e-3);
      model.dispose();
    }
  });

  describe('int8, with the scales of compile', () => {
    /** How far the file and the compiled model are from float32, the latter without corrections too, and from each other. */
    async function compare(
      model: Module,
      images: Tensor,
      test: Tensor,
      options: Int8 = {},
    ): Promise<{ file: number; own: number; uncorrected: number; between: number }> {
      const { keep = [], quantizeFirst = false } = options;
      const compiled = await model.compile({
        dtype: 'int8',
        calibration: { data: images, quantizeFirst },
        keep,
      });
      const calibration = compiled.quantization;
      if (calibration === undefined) throw new Error('no record');
      await save(model, file, { dtype: 'int8', calibration });
      const exported = await OnnxModel.open(file);
      const expected = numbers(await model.forward(test));
      const own = numbers(await compiled.forward(test));
      const plain = await model.compile({ dtype: 'int8', calibration: { ...calibration, corrections: [] } });
      const uncorrected = relativeError(numbers(await plain.forward(test)), expected);
      plain.dispose();
      const given = numbers(await exported.run(test));
      await exported.close();
      compiled.dispose();
      return {
        file: relativeError(given, expected),
        own: relativeError(own, expected),
        uncorrected,
        between: relativeError(given, own),
      };
    }

    const cases: [ModelName, Record<string, unknown>, number[], Int8?][] = [
      ['se_resnet20', {}, [4, 3, 37, 32]],
      ['se_resnet20', {}, [4, 3, 32, 32], { quantizeFirst: true, keep: ['layer2.0'] }],
      ['se_preactresnet20', {}, [4, 3, 32, 35]],
      ['se_resnet18', {}, [4, 3, 65, 97]],
      ['se_resnet50', {}, [3, 3, 97, 65]],
      ['seresnext26t_32x4d', {}, [3, 3, 97, 65]],
      ['seresnetaa50d', {}, [3, 3, 97, 65]],
      ['ecaresnet26t', {}, [3, 3, 97, 65]],
      ['legacy_seresnet18', {}, [3, 3, 97, 65]],
      ['se_inception_v3', { transformInput: true, recalibrate: 'output' }, [2, 3, 299, 299]],
    ];
    for (const [name, options, shape, how] of cases) {
      it(`${name} ${JSON.stringify(options)} ${JSON.stringify(how ?? {})}`, async () => {
        const model = make(name, options);
        manualSeed(9);
        const {
          file: given,
          own,
          uncorrected,
          between,
        } = await compare(model, randn(shape), randn(shape), how);
        expect(given, `own ${own}, between ${between}`).to.be.at.most(1.25 * own + 1e-3);
        // No further apart than rounding the weights alone is off, which both correct for.
        expect(between).to.be.at.most(Math.max(uncorrected, 1e-3));
        model.dispose();
      });
    }

    it('the bundled network: the labels of 500 images are those of the compiled model', async () => {
      const weights = path.join(FIXTURES, 'se_resnet20_fashion_mnist-ec67461cf95ad.pkl');
      const model = se_resnet20({ reduction: 4, initWeights: false }).eval();
      model.loadStateDict(await load(weights));
      const data = await readIdxDataset(
        path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      );
      const pixels = tensor(data.images, { shape: [data.count, 1, data.height, data.width] });
      const x = pixels.to('float32').div(255).pad([2, 2, 2, 2]).sub(0.286).div(0.353);
      const images = x.expand([data.count, 3, 32, 32]).contiguous();
      const compiled = await model.compile({ dtype: 'int8', calibration: images.slice(0, 0, 200) });
      await save(model, file, { dtype: 'int8', calibration: compiled.quantization as never });
      const exported = await OnnxModel.open(file);
      const own = numbers((await compiled.forward(images)).argmax(1));
      const given = numbers((await exported.run(images)).argmax(1));
      const float32 = numbers((await model.forward(images)).argmax(1));
      const differing = own.filter((label, index) => label !== given[index]).length;
      expect(differing).to.be.at.most(1); // two logits that are equal up to a rounding
      expect(float32.filter((label, index) => label !== given[index]).length).to.be.below(5);
      await exported.close();
      for (const done of [compiled, model]) done.dispose();
    });
  });

  describe('pixels in, as the library prepares them', () => {
    /** A network that gives its input. */
    function passing(channels: number): Module {
      const conv = new Conv2d(channels, channels, 1, { bias: false });
      const one = ops.call('aten::eye', channels) as Tensor;
      conv.loadStateDict(new Map([['weight', one.reshape([channels, channels, 1, 1])]]));
      return new Sequential(conv).eval();
    }

    const records: [string, Partial<Preprocessing>][] = [
      ['ImageNet', { size: 256, crop: [224, 224], mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }],
      ['a short side', { size: 40 }],
      ['bicubic', { size: 48, crop: [40, 44], interpolation: 'bicubic' }],
      ['stretched and padded', { size: [32, 41], pad: 2, mean: [0.5], std: [0.25] }],
      ['stretched, cut and filled up', { size: [30, 50], crop: [36, 44] }],
      ['a crop that is larger', { size: 20, crop: [64, 31] }],
      ['a crop alone', { crop: [50, 61] }],
      ['grey', { channels: 'grey', size: 28, pad: 2, mean: [0.286], std: [0.353] }],
      ['grey, repeated', { channels: 'grey-repeated', crop: [31, 31] }],
    ];
    for (const [title, given] of records) {
      it(title, async () => {
        const record = { ...PLAIN, ...given };
        const module = passing(record.channels === 'grey' ? 1 : 3);
        await save(module, file, { preprocess: true, preprocessing: record });
        const exported = await OnnxModel.open(file);
        expect(exported.names).to.deep.equal({ input: ['pixels'], output: ['output'] });
        for (const [height, width] of [
          [91, 120],
          [64, 33],
          [255, 256],
        ] as const) {
          manualSeed(height);
          const pixels = randint(0, 256, [2, 3, height, width]).to('uint8');
          const expected = await preprocess(pixels, record);
          const actual = await exported.run(pixels.permute([0, 2, 3, 1]));
          expect(actual.shape).to.deep.equal(expected.shape);
          // A value of 255 more or less, where rounding has to choose.
          const step = 1 / 255 / Math.min(...record.std);
          const [own, theirs] = [numbers(expected), numbers(actual)];
          const far = own.map((value, index) => Math.abs(value - (theirs[index] as number)));
          const farthest = far.reduce((most, distance) => Math.max(most, distance));
          expect(farthest, `${height} x ${width}`).to.be.below(1.01 * step);
          const share = far.filter((distance) => distance > 0.01 * step).length / far.length;
          expect(share, `${height} x ${width}`).to.be.below(record.size === null ? 1e-9 : 0.02);
        }
        await exported.close();
      });
    }

    it('a photograph to probabilities', async () => {
      const model = make('se_resnet18');
      await save(model, file, { preprocess: true, softmax: true });
      const exported = await OnnxModel.open(file);
      expect(exported.names.output).to.deep.equal(['probabilities']);
      const photo = path.join(FIXTURES, 'images', 'photo.jpg');
      const { data, info } = await sharp(photo, { ignoreIcc: true })
        .raw()
        .toBuffer({ resolveWithObject: true });
      const classifier = await ImageClassifier.load(model);
      const { scores } = await classifier.predict(photo);
      const pixels = tensor(Uint8Array.from(data), { shape: [1, info.height, info.width, 3] });
      const given = numbers(await exported.run(pixels));
      expect(relativeError(given, Array.from(scores))).to.be.below(1e-3);
      await exported.close();
      await classifier.dispose();
      model.dispose();
    });
  });

  it('the bundled weights, from pixels to labels', async () => {
    const written = await exportWeights('fashion_mnist', file, { preprocess: true, softmax: true });
    expect(written).to.deep.include({ model: 'se_resnet20', labels: 10, opset: 18, images: null });
    const exported = await OnnxModel.open(file);
    const image = path.join(FIXTURES, '..', '..', 'assets', 'images', '18-bag.png');
    const { data, info } = await sharp(image)
      .removeAlpha()
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    const pixels = tensor(Uint8Array.from(data), { shape: [1, info.height, info.width, info.channels] });
    const rgb = info.channels === 3 ? pixels : pixels.expand([1, info.height, info.width, 3]).contiguous();
    const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    const { scores } = await classifier.predict(image);
    expect(relativeError(numbers(await exported.run(rgb)), Array.from(scores))).to.be.below(1e-4);
    await exported.close();
    await classifier.dispose();
  });

  it('in WebAssembly: onnxruntime-web', async () => {
    for (const dtype of ['float32', 'int8'] as const) {
      const model = make('se_resnet20');
      const calibration = randn([4, 3, 32, 32]);
      await save(model, file, { dtype, ...(dtype === 'int8' ? { calibration } : {}) });
      const [web, native] = [await OnnxModel.open(file, 'web'), await OnnxModel.open(file)];
      const x = randn([3, 3, 33, 47]);
      const expected = numbers(dtype === 'int8' ? await native.run(x) : await model.forward(x));
      expect(relativeError(await web.run(x), expected)).to.be.below(dtype === 'int8' ? 2e-2 : NEAR);
      for (const session of [web, native]) await session.close();
      model.dispose();
    }
  });

  it('every opset from 17 on is read', async () => {
    const model = make('se_resnet20');
    const prepared = {
      softmax: true,
      preprocess: true,
      preprocessing: { size: 32, crop: [32, 32] as const },
    };
    for (let opset = 17; opset <= 25; opset++) {
      await expectNear(model, [[1, 3, 32, 32]], { opset });
      await save(model, file, { dtype: 'int8', calibration: randn([2, 3, 32, 32]), opset });
      await (await OnnxModel.open(file)).close();
      if (opset < 18) continue;
      await save(model, file, { ...prepared, opset });
      await (await OnnxModel.open(file)).close();
    }
    model.dispose();
  });

  it('onnx.checker and its shape inference find nothing wrong', async function () {
    const python = process.env.SENET_TEST_PYTHON ?? 'python3';
    try {
      execFileSync(python, ['-c', 'import onnx'], { stdio: 'ignore' });
    } catch {
      skip(this, 'no Python with onnx (SENET_TEST_PYTHON names one)');
    }
    const files: string[] = [];
    const write = async (module: Module, options: OnnxOptions): Promise<void> => {
      files.push(temporary.path(`${files.length}.onnx`));
      await save(module, files.at(-1) as string, options);
    };
    const model = make('se_resnet20');
    for (let opset = 17; opset <= 25; opset++) {
      await write(model, { opset, keepBatchNorm: opset % 2 === 0 });
      await write(model, { opset, dtype: 'float16' });
      await write(model, { opset, dtype: 'int8', calibration: randn([2, 3, 32, 32]) });
      if (opset > 17) {
        await write(model, {
          opset,
          preprocess: true,
          softmax: true,
          preprocessing: { size: 32, crop: [30, 30] },
        });
      }
    }
    for (const name of ['ecaresnet26t', 'seresnetaa50d', 'se_inception_v3', 'legacy_seresnet18'] as const) {
      const other = make(name, name === 'se_inception_v3' ? { transformInput: true } : {});
      await write(other, {});
      other.dispose();
    }
    const program =
      'import onnx, sys\nfor f in sys.argv[1:]:\n m = onnx.load(f)\n onnx.checker.check_model(m, full_check=True)\n print(m.graph.output[0].type.tensor_type.shape.dim[0].dim_param, m.opset_import[0].version)';
    const told = execFileSync(python, ['-c', program, ...files], { encoding: 'utf8' });
    expect(told.trim().split('\n')).to.have.length(files.length);
    expect(told).to.match(/^batch 17\n/);
    model.dispose();
  });
});
