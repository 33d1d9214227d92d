/**
 * Images of another number of channels than three: models, what weights of one channel bring by their shapes, and grey as
 * Pillow makes it. What PyTorch answers for such models is in parity/models.test.ts.
 */
import path from 'node:path';

import { expect } from 'chai';
import sharp from 'sharp';

import {
  CifarSEBasicBlock,
  CifarSEPreActResNet,
  CifarSEResNet,
  Conv2d,
  createModel,
  Flatten,
  Grayscale,
  ImageClassifier,
  listModels,
  manualSeed,
  Module,
  rand,
  randn,
  Random,
  save,
  se_inception_v3,
  se_resnet18,
  se_resnet20,
  se_resnet50,
  SEBasicBlock,
  SEResNet,
  Sequential,
  Tensor,
  tensor,
  zeros,
  type ImageClassifierOptions,
  type ModelName,
  type Preprocessing,
} from '../../lib';
import { IMAGENET, PLAIN } from '../../lib/models/preprocessing-record';
import { createTransform, measurePixels, testPreprocessing } from '../../lib/train/recipe/transforms';
import { decodeImage } from '../support/decode';
import { modelRecord } from '../../lib/models/registry';
import { preprocess, toPixels } from '../../lib/vision/preprocessing';
import { recordFor } from '../../lib/vision/preprocessing-options';
import { expectRejection, expectThrow } from '../support/errors';
import { LIGHT_MODELS } from '../support/models';
import { binding } from '../../lib/native';
import { numbers, relativeError } from '../support/parity';
import { Temporary } from '../support/temporary';

const IMAGES = path.join(__dirname, '..', 'fixtures', 'images');
const make = (name: ModelName, options: object): Module =>
  createModel(name, { numClasses: 4, ...options }) as Module;
const sizeOf = (name: ModelName): number =>
  modelRecord(name).anyInputSize ? 32 : modelRecord(name).inputSize;

describe('input channels of models', function () {
  this.timeout(60_000);

  for (const name of LIGHT_MODELS) {
    it(`${name}: any number, 3 by default; compiled as eager, and one code for another number`, async () => {
      expect(modelRecord(name).options).to.include('inChannels');
      manualSeed(4);
      const usual = make(name, {});
      manualSeed(4);
      const three = make(name, { inChannels: 3 });
      for (const [key, parameter] of usual.namedParameters().slice(0, 2))
        expect(numbers(parameter), key).to.deep.equal(
          numbers(three.namedParameters().find(([other]) => other === key)?.[1] as Tensor),
        );
      usual.dispose();
      three.dispose();
      for (const inChannels of [1, 4]) {
        const model = make(name, { inChannels }).eval();
        expect(model.parameters()[0]?.shape[1]).to.equal(inChannels);
        const [size, wrong] = [sizeOf(name), 3];
        const x = randn([1, inChannels, size, size]);
        const compiled = await model.compile();
        const expected = await model.forward(x);
        expect(relativeError(await compiled.forward(x), numbers(expected))).to.be.below(1e-4);
        expect(compiled.explain().steps[0]?.input[0]).to.equal(inChannels);
        for (const network of [model, compiled])
          await expectRejection(
            network.forward(randn([1, wrong, size, size])),
            'ERR_SENET_SHAPE',
            new RegExp(`\\[N, ${inChannels}, H, W\\]`),
          );
        expect((await model.summary([1, inChannels, size, size])).totalParameters).to.equal(
          model.parameters().reduce((sum, { numel }) => sum + numel, 0),
        );
        compiled.dispose();
        model.dispose();
      }
    });
  }

  it('constructors take it too', () => {
    const models = [
      new SEResNet(SEBasicBlock, [1, 1, 1, 1], { inChannels: 2 }),
      new CifarSEResNet(CifarSEBasicBlock, 1, 10, 16, { inChannels: 2 }),
      new CifarSEPreActResNet(CifarSEBasicBlock, 1, 10, 16, { inChannels: 2, initWeights: false }),
    ];
    for (const model of models) expect(model.conv1.inChannels).to.equal(2);
  });

  it('a grey image, and the same in three channels through weights that sum to the same, give the same', async () => {
    const grey = se_resnet20({ inChannels: 1 }).eval();
    const colour = se_resnet20().eval();
    const state = grey.stateDict();
    const parts = [0.5, 0.3, 0.2].map((share) => (state.get('conv1.weight') as Tensor).mul(share));
    state.set('conv1.weight', Tensor.cat(parts, 1));
    colour.loadStateDict(state);
    const x = rand([2, 1, 32, 32]);
    const [once, thrice] = [await grey.forward(x), await colour.forward(x.expand([-1, 3, -1, -1]))];
    expect(relativeError(once, numbers(thrice))).to.be.below(1e-5);
  });

  it('refuses what is no number of channels', () => {
    for (const name of listModels()) {
      for (const wrong of [0, -1, 1.5, NaN])
        expectThrow(() => make(name, { inChannels: wrong }), 'ERR_SENET_ARG_RANGE', /inChannels/);
      expectThrow(() => make(name, { inChannels: '1' }), 'ERR_SENET_ARG_TYPE', /inChannels/);
      expectThrow(() => make(name, { in_channels: 1 }), 'ERR_SENET_UNKNOWN_OPTION', /'inChannels'/);
    }
  });

  it('transformInput is of three channels', () => {
    const options = { numClasses: 2, transformInput: true, initWeights: false };
    const words = /inChannels.*transformInput.*got 1/;
    expectThrow(() => se_inception_v3({ ...options, inChannels: 1 }), 'ERR_SENET_ARG_RANGE', words);
    const native = { ...options, auxLogits: false, recalibrate: 'none', inChannels: 1 };
    expectThrow(
      () => binding.createModule('SEInception3', native),
      'ERR_SENET_ARG_RANGE',
      /inChannels must be 3 with transformInput, got 1/,
    );
    se_inception_v3({ ...options, inChannels: 3 }).dispose();
  });

  it('the published weights are of three channels, which is said before they are fetched', async () => {
    await expectRejection(
      se_resnet50({ pretrained: true, inChannels: 1 }),
      'ERR_SENET_STATE_DICT',
      /inChannels: the published weights take images of 3 channels, got 1/,
    );
  });
});

describe('grey images', () => {
  const photo = async (): Promise<Tensor> => toPixels(await decodeImage(path.join(IMAGES, 'photo.jpg')));

  it("are Pillow's L of the pixels before they are resized", async () => {
    const pixels = await photo();
    const bytes = pixels.toTypedArray() as Uint8Array;
    const plane = bytes.length / 3;
    const grey = Uint8Array.from({ length: plane }, (_, at) => {
      const [r, g, b] = [bytes[at], bytes[plane + at], bytes[2 * plane + at]] as [number, number, number];
      return (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
    });
    const [, , height = 0, width = 0] = pixels.shape;
    const greyPixels = tensor(grey, { shape: [1, 1, height, width] });
    const record: Preprocessing = {
      ...PLAIN,
      channels: 'grey',
      size: 64,
      crop: [56, 56],
      mean: [0.4],
      std: [0.2],
    };
    const x = await preprocess(pixels, record);
    expect(x.shape).to.deep.equal([1, 1, 56, 56]);
    expect(numbers(x)).to.deep.equal(numbers(await preprocess(greyPixels, record)));
    const repeated = await preprocess(pixels, { ...record, channels: 'grey-repeated' });
    expect(numbers(repeated.slice(1, 1, 2))).to.deep.equal(numbers(x));
    const converted = await new Grayscale({ formula: 'pillow' }).forward(pixels);
    expect(Buffer.compare(converted.toTypedArray() as Uint8Array, grey)).to.equal(0);
    const transformed = await createTransform(record).forward(pixels, []);
    expect(numbers(transformed)).to.deep.equal(numbers(x));
  });

  it('keep their values if they are grey already', async () => {
    const values = Uint8Array.from({ length: 256 }, (_, value) => value);
    const grey = tensor(values, { shape: [1, 1, 16, 16] });
    for (const x of [grey, grey.expand([-1, 3, -1, -1])])
      expect((await new Grayscale({ formula: 'pillow' }).forward(x)).toTypedArray()).to.deep.equal(values);
  });

  it("Grayscale: Pillow's formula is of bytes", () => {
    const grayscale = new Grayscale({ formula: 'pillow' });
    expectThrow(() => grayscale.forward(zeros([1, 3, 2, 2])), 'ERR_SENET_DTYPE', /before ToTensor/);
    expectThrow(() => new Grayscale({ formula: 'luma' as never }), 'ERR_SENET_ARG_RANGE', /'pillow'/);
  });

  it('training sees one channel, augmented or not, of data in colour too', async () => {
    const images = await photo();
    for (const shape of [null, [3, 300, 420]] as const) {
      const record = testPreprocessing(shape, 32, 1, { mean: [0.5], std: [0.5] });
      expect(record.channels).to.equal('grey');
      const transform = createTransform(record, { augment: ['resized-crop', 'flip', 'jitter', 'erase'] });
      expect((await transform.forward(images, [new Random(1, 1)])).shape).to.deep.equal([1, 1, 32, 32]);
      expect((await createTransform(record).forward(images, [])).shape).to.deep.equal([1, 1, 32, 32]);
    }
    const dataset = {
      length: 1,
      get: () => Promise.reject(new Error('not one by one')),
      getBatch: () => Promise.resolve({ images: images.clone(), labels: tensor([0n]) }),
    };
    const { mean, std } = await measurePixels(dataset as never, 'grey');
    const grey = (await new Grayscale({ formula: 'pillow' }).forward(images)).to('float64').div(255);
    expect(mean).to.deep.equal([Number(Number(grey.mean().item()).toFixed(4))]);
    expect(std).to.have.lengthOf(1);
    expect(await measurePixels(dataset as never, 'rgb'))
      .to.have.property('mean')
      .of.length(3);
  });

  it('a record for colour becomes the one for grey', () => {
    const grey = recordFor(IMAGENET, 1);
    expect(grey).to.deep.equal({ ...IMAGENET, channels: 'grey', mean: [0.459], std: [0.2256] });
    expect(recordFor(grey, 1)).to.equal(grey);
    expect(recordFor(IMAGENET, 3)).to.equal(IMAGENET);
    expect(recordFor({ ...PLAIN, channels: 'grey-repeated' }, 1)).to.deep.equal({
      ...PLAIN,
      channels: 'grey',
    });
    expect(recordFor(grey, 3)).to.deep.equal({ ...grey, channels: 'grey-repeated' });
  });
});

describe('ImageClassifier of one channel', function () {
  this.timeout(30_000);
  const temporary = new Temporary();
  const record: Partial<Preprocessing> = { size: [32, 32], mean: [0.3], std: [0.2] };
  const weights = temporary.path('grey.safetensors');
  const four = temporary.path('four.safetensors');
  const grey = se_resnet20({ numClasses: 3, reduction: 4, inChannels: 1 });
  const files = ['photo.jpg', 'grey.png', 'rgb.png', 'grey16.png'].map((name) => path.join(IMAGES, name));
  before(async () => {
    await save(grey, weights, { metadata: { model: 'se_resnet20' } });
    await save(se_resnet20({ inChannels: 4, initWeights: false }), four);
  });
  after(() => temporary.cleanUp());

  /** Probabilities of the network for a picture, step by step. */
  async function expectedOf(file: string): Promise<number[]> {
    const { data, info } = await sharp(file)
      .toColourspace('srgb')
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const pixels = tensor(new Uint8Array(data), {
      shape: [1, info.height, info.width, info.channels],
    }).permute([0, 3, 1, 2]);
    const x = await new Grayscale({ formula: 'pillow' }).forward(pixels);
    const bytes = (await preprocess(x, { ...PLAIN, channels: 'grey', size: [32, 32] })).sub(0.3).div(0.2);
    return numbers((await grey.eval().forward(bytes)).softmax(1));
  }

  async function expectSame(classifier: ImageClassifier, file: string): Promise<void> {
    const expected = await expectedOf(file);
    for (const { index, score } of await classifier.classify(file))
      expect(score, file).to.be.closeTo(expected[index] as number, 1e-5);
  }

  it('knows it by the weights, and classifies grey and colour', async () => {
    for (const inChannels of [undefined, 1]) {
      const options: ImageClassifierOptions = { weights, preprocessing: record };
      const classifier = await ImageClassifier.load('se_resnet20', {
        ...options,
        ...(inChannels === undefined ? {} : { inChannels }),
      });
      expect(classifier.preprocessing).to.deep.equal({ ...PLAIN, ...record, channels: 'grey' });
      for (const file of files) await expectSame(classifier, file);
      await classifier.dispose();
    }
  });

  it('by a Module too, by what the caller says where its forward is TypeScript, and by the record', async () => {
    class Wrapped extends Module {
      network = grey;
      override forward(x: Tensor): Promise<Tensor> {
        return this.network.forward(x);
      }
    }
    const wrapped = new Wrapped();
    for (const [model, options] of [
      [grey, {}],
      [grey, { inChannels: 1 }],
      [wrapped, { inChannels: 1 }],
      [wrapped, { preprocessing: { ...record, channels: 'grey' as const } }],
    ] as const) {
      const classifier = await ImageClassifier.load(model, { preprocessing: record, ...options });
      await expectSame(classifier, files[0] as string);
      await classifier.dispose();
    }
  });

  it('takes batches of pixels, and preprocessed images of one channel', async () => {
    const classifier = await ImageClassifier.load(grey, { preprocessing: record });
    const x = rand([1, 32, 32]);
    const expected = numbers((await grey.forward(x.unsqueeze(0))).softmax(1));
    for (const { index, score } of await classifier.classify(x))
      expect(score).to.be.closeTo(expected[index] as number, 1e-5);
    await expectRejection(classifier.classify(rand([3, 32, 32])), 'ERR_SENET_SHAPE', /1 channel, got \[3,/);
    const pixels = tensor(
      Uint8Array.from({ length: 2 * 1024 }, (_, at) => at % 251),
      { shape: [2, 1, 32, 32] },
    );
    const results = await classifier.classifyBatch(pixels);
    const repeated = await classifier.classifyBatch(pixels.expand([-1, 3, -1, -1]));
    expect(results).to.deep.equal(repeated);
    await classifier.dispose();
  });

  it("has ImageNet's record in grey for models of its size", async () => {
    const model = se_resnet18({ numClasses: 2, inChannels: 1, initWeights: false });
    const file = temporary.path('18.pt');
    await save(model, file);
    const classifier = await ImageClassifier.load('se_resnet18', { weights: file });
    expect(classifier.preprocessing).to.deep.equal(recordFor(IMAGENET, 1));
    await classifier.classify(files[0] as string);
    await classifier.dispose();
  });

  it('takes a record in colour, which the weights bring, for the one in grey', async () => {
    const file = temporary.path('colour-record.safetensors');
    const preprocessing = JSON.stringify({ ...IMAGENET, size: [32, 32], crop: null });
    await save(grey, file, { metadata: { preprocessing } });
    const classifier = await ImageClassifier.load('se_resnet20', { weights: file });
    expect(classifier.preprocessing).to.deep.include({ channels: 'grey', mean: [0.459], std: [0.2256] });
    await classifier.dispose();
  });

  it('refuses what does not fit', async () => {
    const load = (model: ModelName | Module<unknown>, options: ImageClassifierOptions): Promise<unknown> =>
      ImageClassifier.load(model, { preprocessing: record, ...options });
    const flat = new Sequential(new Flatten());
    const cases: [() => Promise<unknown>, Parameters<typeof expectRejection>[1], RegExp][] = [
      [() => load('se_resnet20', { weights, inChannels: 3 }), 'ERR_SENET_STATE_DICT', /conv1\.weight/],
      [
        () => load('se_resnet20', { weights: 'fashion_mnist', inChannels: 1 }),
        'ERR_SENET_STATE_DICT',
        /conv1\.weight/,
      ],
      [() => load(grey, { inChannels: 3 }), 'ERR_SENET_ARG_RANGE', /inChannels: the module takes 1, got 3/],
      [
        () => load('se_resnet20', { weights: four }),
        'ERR_SENET_ARG_RANGE',
        /4 channels, and images have 1 .* or 3/,
      ],
      [
        () => load('se_resnet20', { weights, inChannels: 2 }),
        'ERR_SENET_ARG_RANGE',
        /2 channels, and images have 1/,
      ],
      [() => load(new Conv2d(2, 4, 3), {}), 'ERR_SENET_ARG_RANGE', /2 channels, and images have 1/],
      [() => load(flat, { inChannels: 5 }), 'ERR_SENET_ARG_RANGE', /5 channels, and images have 1/],
      [() => load('se_resnet20', { weights, inChannels: 0 }), 'ERR_SENET_ARG_RANGE', /inChannels/],
      [
        () => load('se_resnet20', { weights, preprocessing: { ...record, channels: 'rgb' } }),
        'ERR_SENET_ARG_RANGE',
        /channels: 'rgb' makes 3, and the network takes 1/,
      ],
      [
        () => load('se_resnet20', { weights: 'fashion_mnist', preprocessing: { channels: 'grey' } }),
        'ERR_SENET_ARG_RANGE',
        /channels: 'grey' makes 1, and the network takes 3/,
      ],
      [
        () => load('se_resnet20', { weights, preprocessing: { ...record, mean: [0.5, 0.5, 0.5] } }),
        'ERR_SENET_ARG_TYPE',
        /mean: expected one number/,
      ],
    ];
    for (const [promise, code, words] of cases) await expectRejection(promise(), code, words);
  });
});
