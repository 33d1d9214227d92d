/**
 * Compiled models against a float64 run of the same weights: every model, size, batch and layout of the input, parts of
 * models, each set of kernels, and the predictions of a trained network. `allowedError` says
 * how far from float64 they may be; compiled-random.test.ts asks the same of networks that are drawn.
 * SENET_TEST_DEVICE chooses the device; SENET_TEST_FASHION_MNIST the folder of the whole data set.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import fc from 'fast-check';

import { findIdxFiles, readIdxDataset } from '../../lib/data/idx';
import {
  AdaptiveAvgPool2d,
  createModel,
  isSenetError,
  listModels,
  modelRecord,
  load,
  manualSeed,
  randn,
  SEBasicBlock,
  CifarSEBasicBlock,
  SEBottleneck,
  Conv2d,
  ReLU,
  SELayer,
  Sequential,
  se_inception_v3,
  se_resnet20,
  tensor,
  type CompiledDType,
  type CompiledModel,
  type ModelName,
  type ModelOptions,
  type Module,
  type Tensor,
} from '../../lib';
import { device, unavailable } from '../support/device';
import { zooNames } from '../support/models';
import { allowedError, numbers, perturbBatchNorms, readFixture, relativeError } from '../support/parity';
import { PROCESSOR_FLAGS } from '../support/processor';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const FASHION_MNIST = process.env.SENET_TEST_FASHION_MNIST ?? '/usr/share/datasets/fashion-mnist';
const DTYPES = ['float32', 'bfloat16'] as const;
type Tested = (typeof DTYPES)[number];

/** Variances from 0.5 on make deep networks so ill-conditioned that float32 differs from itself by 0.1. */
type Variance = readonly [number, number];
const NARROW: Variance = [0.5, 1.5];
const DEEP: Variance = [1, 3];
const INCEPTION: Variance = [5, 15];

/** A module that is to be compiled, and copies of it that say how near its numbers can be. */
class Subject {
  readonly #wide: Module;
  readonly #half: Module;
  readonly #part: string;
  /** On the device; `part` names the descendant that is run. */
  readonly root: Module;

  constructor(make: () => Module<unknown>, variance: Variance, part = '', seed = 5) {
    manualSeed(seed);
    this.root = make() as Module;
    manualSeed(seed + 1);
    perturbBatchNorms(this.root, variance);
    const copy = (): Module => {
      const module = make() as Module;
      module.loadStateDict(this.root.stateDict());
      return module.eval();
    };
    this.#wide = copy().to('float64');
    this.#half = copy().to('bfloat16').to(device);
    this.root.to(device).eval();
    this.#part = part;
  }

  static model(
    name: ModelName,
    options: Record<string, unknown> = {},
    variance: Variance = NARROW,
    seed = 5,
  ): Subject {
    return new Subject(() => createModel(name, options as ModelOptions), variance, '', seed);
  }

  get module(): Module {
    return this.root.getSubmodule(this.#part) as Module;
  }

  /** In float64, on the CPU. */
  async reference(x: Tensor): Promise<number[]> {
    return numbers(await (this.#wide.getSubmodule(this.#part) as Module).forward(x.to('float64')));
  }

  async eagerError(dtype: Tested, x: Tensor, reference: readonly number[]): Promise<number> {
    const module = dtype === 'float32' ? this.module : (this.#half.getSubmodule(this.#part) as Module);
    return relativeError((await module.forward(x.to({ dtype, device }))).to('float32'), reference);
  }

  /** Compiled and eager error on `x`, which is float32 on the CPU. */
  async errors(compiled: CompiledModel, x: Tensor): Promise<{ actual: number; eager: number }> {
    const reference = await this.reference(x);
    const output = await compiled.forward(x.to(device));
    expect(output.dtype).to.equal('float32');
    expect(output.device.split(':')[0]).to.equal(device.split(':')[0]);
    return {
      actual: relativeError(output, reference),
      eager: await this.eagerError(compiled.dtype as Tested, x, reference),
    };
  }

  async expectNear(compiled: CompiledModel, x: Tensor, what = x.shape.join(' x ')): Promise<void> {
    const { actual, eager } = await this.errors(compiled, x);
    expect(actual, `${compiled.dtype} at ${what}; eager ${eager}`).to.be.at.most(
      allowedError(compiled.dtype as Tested, eager),
    );
  }

  dispose(): void {
    for (const module of [this.root, this.#wide, this.#half]) module.dispose();
  }
}

/** What differs between two runs of one compiled model on the same numbers: nothing. */
function expectSame(actual: Tensor, expected: Tensor, what: string): void {
  expect(actual.shape, what).to.deep.equal(expected.shape);
  expect(numbers(actual), what).to.deep.equal(numbers(expected));
}

function input(seed: number, ...shape: number[]): Tensor {
  manualSeed(seed);
  return randn(shape);
}

describe(`compiled models on ${device}`, function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  before(function () {
    const reason = unavailable();
    if (reason === undefined) return;
    skip(this, reason);
  });
  after(() => temporary.cleanUp());

  /** Where the processor has no bfloat16 that is an error which says so, and nothing is left to compare. */
  let bfloat16 = true;
  before(async () => {
    const layer = new SELayer(4, 2).to(device);
    try {
      (await layer.compile({ dtype: 'bfloat16' })).dispose();
    } catch (error) {
      if (!isSenetError(error) || error.code !== 'ERR_SENET_DTYPE') throw error;
      expect(error.message).to.match(/bfloat16/);
      expect(PROCESSOR_FLAGS).not.to.match(/avx512bw/);
      console.log(`      bfloat16 skipped: ${error.message}`);
      bfloat16 = false;
    }
    layer.dispose();
  });
  const dtypes = (): readonly Tested[] => (bfloat16 ? DTYPES : ['float32']);

  const cases: [ModelName, Record<string, unknown>, number[], Variance][] = [
    ['se_resnet18', { numClasses: 7 }, [2, 3, 64, 64], NARROW],
    ['se_resnet34', {}, [1, 3, 97, 64], NARROW],
    ['se_resnet50', {}, [1, 3, 224, 224], NARROW],
    ['se_resnet101', {}, [1, 3, 96, 64], DEEP],
    ['se_resnet152', { numClasses: 10 }, [1, 3, 64, 96], DEEP],
    ['se_resnet20', { numClasses: 1 }, [3, 3, 32, 32], NARROW],
    ['se_resnet20', { reduction: 3, numClasses: 37 }, [1, 3, 32, 32], NARROW],
    ['se_resnet32', { reduction: 1 }, [2, 3, 32, 32], NARROW],
    ['se_resnet56', { reduction: 4 }, [2, 3, 32, 32], DEEP],
    ['se_preactresnet20', {}, [2, 3, 32, 32], NARROW],
    ['se_preactresnet32', { reduction: 2 }, [2, 3, 32, 32], NARROW],
    ['se_preactresnet56', {}, [2, 3, 32, 32], DEEP],
    ['se_inception_v3', { numClasses: 10 }, [2, 3, 299, 299], INCEPTION],
    ['se_inception_v3', { numClasses: 4, transformInput: true }, [1, 3, 299, 299], INCEPTION],
    [
      'se_inception_v3',
      { numClasses: 3, recalibrate: 'input', transformInput: true },
      [1, 3, 299, 299],
      INCEPTION,
    ],
    [
      'se_inception_v3',
      { numClasses: 2, recalibrate: 'output', auxLogits: false },
      [1, 3, 299, 299],
      INCEPTION,
    ],
  ];

  // Those without a case, here or in zoo.test.ts, as they are made by default.
  const tested = new Set<string>([...cases.map(([name]) => name), ...zooNames()]);
  for (const name of listModels().filter((one) => !tested.has(one))) {
    const { inChannels, inputSize } = modelRecord(name);
    cases.push([name, {}, [1, inChannels, inputSize, inputSize], NARROW]);
  }

  for (const [name, options, shape, variance] of cases) {
    it(`${name} ${JSON.stringify(options)} at ${shape.join(' x ')}`, async () => {
      const subject = Subject.model(name, options, variance);
      const x = input(7, ...shape);
      for (const dtype of dtypes()) {
        const compiled = await subject.module.compile({ dtype });
        await subject.expectNear(compiled, x);
        compiled.dispose();
      }
      subject.dispose();
    });
  }

  // One draw of an ill-conditioned network says little: eager bfloat16 itself is off by 0.005 to 0.06 there.
  it('an ill-conditioned network is no worse than eager over several draws', async function () {
    if (!bfloat16) skip(this, 'no bfloat16 here');
    const ratios: number[] = [];
    for (let seed = 100; seed < 1000; seed += 100) {
      const subject = Subject.model('se_preactresnet56', {}, NARROW, seed);
      const compiled = await subject.module.compile({ dtype: 'bfloat16' });
      const { actual, eager } = await subject.errors(compiled, input(seed + 2, 2, 3, 32, 32));
      ratios.push(actual / eager);
      compiled.dispose();
      subject.dispose();
    }
    ratios.sort((left, right) => left - right);
    expect(ratios[ratios.length >> 1], ratios.join(' ')).to.be.below(2.5);
  });

  describe('one compiled se_resnet20 takes', () => {
    let subject: Subject;
    const compiled = {} as Record<Tested, CompiledModel>;
    before(async () => {
      subject = Subject.model('se_resnet20', { numClasses: 10 });
      for (const dtype of dtypes()) compiled[dtype] = await subject.module.compile({ dtype });
    });
    after(() => {
      for (const dtype of dtypes()) compiled[dtype].dispose();
      subject.dispose();
    });

    for (const batch of [1, 2, 3, 33]) {
      it(`${batch} images`, async () => {
        for (const dtype of dtypes()) await subject.expectNear(compiled[dtype], input(8, batch, 3, 32, 32));
      });
    }

    for (const [height, width] of [
      [33, 47],
      [8, 8],
      [1, 1],
      [1, 50],
      [2, 3],
      [17, 1],
      [200, 96],
    ] as const) {
      it(`images of ${height} x ${width}`, async () => {
        for (const dtype of dtypes())
          await subject.expectNear(compiled[dtype], input(9, 2, 3, height, width));
      });
    }

    it('any size, batch and seed', () =>
      fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 5 }),
          fc.integer({ min: 1, max: 48 }),
          fc.integer({ min: 1, max: 48 }),
          fc.integer({ min: 0, max: 1e6 }),
          async (batch, height, width, seed) => {
            for (const dtype of dtypes())
              await subject.expectNear(compiled[dtype], input(seed, batch, 3, height, width));
          },
        ),
        { numRuns: 25 },
      ));

    it('an image in a batch as it takes it alone', async () => {
      const x = input(10, 33, 3, 32, 32);
      const all = await compiled.float32.forward(x.to(device));
      for (const index of [0, 16, 32]) {
        const alone = await compiled.float32.forward(x.slice(0, index, index + 1).to(device));
        expect(relativeError(alone, numbers(all.slice(0, index, index + 1)))).to.be.below(1e-6);
      }
    });

    const layouts: Record<string, () => Tensor> = {
      'channels-last': () => input(11, 3, 3, 32, 32).to({ memoryFormat: 'channels_last' }),
      'transposed axes': () => input(11, 3, 3, 32, 48).transpose(2, 3),
      'batch and channels swapped': () => input(11, 3, 4, 16, 16).transpose(0, 1),
      'every second column of a larger image': () => input(11, 2, 3, 64, 64).slice(3, 0, 64, 2),
      'a window in larger images': () =>
        input(11, 2, 5, 40, 40).slice(1, 1, 4).slice(2, 3, 35).slice(3, 8, 40),
      'one image, expanded to a batch': () => input(11, 1, 3, 32, 32).expand([4, 3, 32, 32]),
      'one channel, expanded to three': () => input(11, 2, 1, 32, 32).expand([2, 3, 32, 32]),
      'one pixel, expanded to an image': () => input(11, 1, 3, 1, 1).expand([2, 3, 9, 7]),
    };
    for (const [name, make] of Object.entries(layouts)) {
      it(`${name}: as the same numbers in order`, async () => {
        // Four channels when swapped: three of them are left.
        const made = make();
        const x = (made.shape[1] === 3 ? made : made.slice(1, 0, 3)).to(device);
        const ordered = tensor(numbers(x), { shape: [...x.shape], device });
        for (const dtype of dtypes()) {
          const expected = await compiled[dtype].forward(ordered);
          expectSame(await compiled[dtype].forward(x), expected, dtype);
          expectSame(compiled[dtype].forwardSync(x), expected, `${dtype}, forwardSync`);
        }
        await subject.expectNear(compiled.float32, x.to('cpu'));
      });
    }
  });

  describe('a size that eager refuses is refused', () => {
    it('by se_resnet18, which takes all from 1 x 1 on', async () => {
      const subject = Subject.model('se_resnet18', { numClasses: 5 });
      for (const dtype of dtypes()) {
        const compiled = await subject.module.compile({ dtype });
        for (const [height, width] of [
          [1, 1],
          [2, 33],
          [65, 31],
        ] as const)
          await subject.expectNear(compiled, input(12, 2, 3, height, width));
        compiled.dispose();
      }
      subject.dispose();
    });

    it('by the head of Inception, whose windows need 17 x 17, and by all of it but 299 x 299', async () => {
      const model = se_inception_v3({ numClasses: 4, initWeights: false }).eval().to(device);
      const head = model.getSubmodule('model.AuxLogits') as Module;
      const compiled = await head.compile();
      const outcome = async (
        module: { forward(x: Tensor): Promise<Tensor> },
        x: Tensor,
      ): Promise<unknown> => {
        try {
          return (await module.forward(x)).shape;
        } catch (error) {
          return isSenetError(error) ? 'refused' : error;
        }
      };
      for (const size of [4, 5, 16, 17, 18, 21]) {
        const x = input(13, 1, 768, size, size).to(device);
        expect(await outcome(compiled, x), String(size)).to.deep.equal(await outcome(head, x));
      }
      const whole = await model.compile();
      for (const size of [298, 300]) {
        const x = input(13, 1, 3, size, size).to(device);
        expect(await outcome(whole, x))
          .to.equal('refused')
          .and.to.equal(await outcome(model as Module, x));
      }
      for (const each of [compiled, whole, model]) each.dispose();
    });
  });

  describe('parts of models', () => {
    const modules: [string, () => Module<unknown>, number[]][] = [
      ['SELayer(64)', () => new SELayer(64), [2, 64, 7, 9]],
      ['SELayer(5, 2), fewer channels than a vector', () => new SELayer(5, 2), [3, 5, 1, 1]],
      ['SELayer(35, 35), one hidden unit', () => new SELayer(35, 35), [1, 35, 3, 50]],
      ['SEBasicBlock(17, 17)', () => new SEBasicBlock(17, 17), [2, 17, 5, 6]],
      ['SEBottleneck(68, 17)', () => new SEBottleneck(68, 17, 1, null), [2, 68, 4, 3]],
      ['CifarSEBasicBlock(16, 32, stride 2)', () => new CifarSEBasicBlock(16, 32, 2, 8), [2, 16, 9, 8]],
      [
        'a padded convolution of a mean',
        () =>
          new Sequential(new Conv2d(5, 8, 1), new AdaptiveAvgPool2d(1), new Conv2d(8, 4, 3, { padding: 1 })),
        [2, 5, 7, 8],
      ],
      [
        'SELayer(16, 2) behind a convolution of fewer channels than it reads',
        () => new Sequential(new Conv2d(20, 256, 1), new ReLU(), new Conv2d(256, 16, 1), new SELayer(16, 2)),
        [2, 20, 4, 5],
      ],
    ];
    for (const [name, make, shape] of modules) {
      it(name, async () => {
        const subject = new Subject(make, NARROW);
        for (const dtype of dtypes()) {
          const compiled = await subject.module.compile({ dtype });
          await subject.expectNear(compiled, input(14, ...shape));
          compiled.dispose();
        }
        subject.dispose();
      });
    }

    const parts: [ModelName, string, number[], Record<string, unknown>?][] = [
      ['se_resnet50', 'layer1', [1, 64, 20, 21]],
      ['se_resnet50', 'layer2.0', [2, 256, 9, 7]],
      ['se_resnet50', 'layer2.0.downsample', [2, 256, 9, 7]],
      ['se_resnet50', 'layer4.2.se', [2, 2048, 3, 3]],
      ['se_resnet18', 'conv1', [2, 3, 30, 31]],
      ['se_resnet18', 'bn1', [2, 64, 5, 5]],
      ['se_resnet20', 'layer2', [2, 16, 16, 15]],
      ['se_resnet20', 'layer3.0.conv1', [1, 32, 1, 3]],
      ['se_inception_v3', 'model', [1, 3, 299, 299], { transformInput: true }],
      ['se_inception_v3', 'model.Conv2d_1a_3x3', [2, 3, 20, 33], { transformInput: true }],
      ['se_inception_v3', 'model.Mixed_5b', [1, 192, 9, 12], { recalibrate: 'input' }],
      ['se_inception_v3', 'model.Mixed_6a', [2, 288, 9, 10], { recalibrate: 'output' }],
      ['se_inception_v3', 'model.Mixed_6b', [1, 768, 5, 6], { recalibrate: 'output' }],
      ['se_inception_v3', 'model.Mixed_6b.branch7x7dbl_3', [1, 128, 4, 9]],
      ['se_inception_v3', 'model.AuxLogits', [2, 768, 17, 17]],
      ['se_inception_v3', 'model.Mixed_7a', [1, 768, 7, 9]],
      ['se_inception_v3', 'model.Mixed_7c', [2, 2048, 3, 2], { recalibrate: 'output' }],
    ];
    for (const [name, part, shape, options] of parts) {
      it(`${part} of ${name} ${JSON.stringify(options ?? {})}`, async () => {
        const inception = name === 'se_inception_v3';
        const make = (): Module<unknown> =>
          createModel(name, { ...(inception ? { numClasses: 10 } : {}), ...options });
        const subject = new Subject(make, inception ? INCEPTION : NARROW, part);
        for (const dtype of dtypes()) {
          const compiled = await subject.module.compile({ dtype });
          await subject.expectNear(compiled, input(15, ...shape));
          compiled.dispose();
        }
        subject.dispose();
      });
    }
  });

  describe('each set of kernels', () => {
    const sets: [string, needs: RegExp, backend: string][] = [
      ['avx2', /\bavx2\b/, 'avx2'],
      ['avx512', /\bavx512bw\b/, 'avx512'],
      ['amx_bf16', /\bamx_bf16\b/, 'amx_bf16'],
      ['amx_emulated', /(?:)/, 'amx_emulated'], // the code of amx_bf16 over tiles that are computed
      ['libtorch', /(?:)/, 'onednn'],
    ];
    for (const [kernels, needs, backend] of sets) {
      const tried = (): readonly CompiledDType[] => (kernels.startsWith('amx') ? ['bfloat16'] : dtypes());
      it(kernels, async function () {
        if (device !== 'cpu' || !needs.test(PROCESSOR_FLAGS)) {
          skip(this, device === 'cpu' ? 'this processor has none' : 'of the CPU only');
        }
        temporary.environment({ SENET_COMPILE_KERNELS: kernels });
        try {
          for (const [name, shapes] of [
            [
              'se_resnet20',
              [
                [2, 3, 32, 32],
                [3, 3, 19, 27],
              ],
            ],
            ['se_resnet50', [[2, 3, 97, 64]]],
          ] as const) {
            const subject = Subject.model(name);
            for (const dtype of tried()) {
              const compiled = await subject.module.compile({ dtype });
              if (dtype === tried()[0]) expect(compiled.explain().backend).to.equal(backend);
              for (const shape of shapes) await subject.expectNear(compiled, input(16, ...shape));
              compiled.dispose();
            }
            subject.dispose();
          }
          for (const [name, part, shape] of [
            ['se_inception_v3', 'model.Mixed_6b', [1, 768, 5, 6]],
            ['se_inception_v3', 'model.Mixed_7a', [2, 768, 7, 9]],
          ] as const) {
            const make = (): Module<unknown> => createModel(name, { numClasses: 3, recalibrate: 'output' });
            const subject = new Subject(make, INCEPTION, part);
            for (const dtype of tried()) {
              const compiled = await subject.module.compile({ dtype });
              await subject.expectNear(compiled, input(17, ...shape), part);
              compiled.dispose();
            }
            subject.dispose();
          }
        } finally {
          temporary.environment({ SENET_COMPILE_KERNELS: undefined });
        }
      });
    }
  });

  describe('a network trained on Fashion-MNIST', () => {
    const { predictions } = readFixture<{ predictions: number[] }>(
      'se_resnet20_fashion_mnist-ec67461cf95ad.json',
    );

    async function classify(
      files: { images: string; labels: string },
      dtype: CompiledDType,
    ): Promise<number[]> {
      const data = await readIdxDataset(files.images, files.labels);
      const model = se_resnet20({ reduction: 4, initWeights: false }).eval();
      model.loadStateDict(await load(path.join(FIXTURES, 'se_resnet20_fashion_mnist-ec67461cf95ad.pkl')));
      const compiled = await model.to(device).compile({ dtype });
      model.dispose();
      const pixels = data.height * data.width;
      const results: number[] = [];
      for (let start = 0; start < data.count; start += 250) {
        const end = Math.min(data.count, start + 250);
        const batch = tensor(data.images.subarray(start * pixels, end * pixels), {
          shape: [end - start, 1, data.height, data.width],
        });
        const x = batch.to('float32').div(255).pad([2, 2, 2, 2]).sub(0.286).div(0.353);
        const logits = await compiled.forward(x.expand([end - start, 3, 32, 32]).to(device));
        results.push(...numbers(logits.argmax(1)));
      }
      compiled.dispose();
      return results;
    }

    async function compare(files: { images: string; labels: string }): Promise<void> {
      const float32 = await classify(files, 'float32');
      expect(float32).to.deep.equal(predictions.slice(0, float32.length));
      if (!bfloat16) return;
      const half = await classify(files, 'bfloat16');
      const same = half.filter((prediction, index) => prediction === float32[index]).length;
      expect(same / float32.length, `${same} of ${float32.length}`).to.be.at.least(0.995);
    }

    it('500 images: the recorded predictions, and in bfloat16 99.5 % of them', () =>
      compare({
        images: path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        labels: path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      }));

    it('all 10,000', async function () {
      if (!existsSync(FASHION_MNIST)) {
        skip(this, `no ${FASHION_MNIST} (Debian's dataset-fashion-mnist)`);
      }
      await compare(await findIdxFiles(FASHION_MNIST));
    });
  });
});
