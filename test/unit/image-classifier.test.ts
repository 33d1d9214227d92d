/** ImageClassifier: the bundled network against PyTorch's recorded predictions, what weights bring, and bad input. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

import { expect } from 'chai';

import {
  createModel,
  ImageClassifier,
  load,
  memory,
  Module,
  save,
  saveCheckpoint,
  se_inception_v3,
  se_preactresnet20,
  se_resnet18,
  se_resnet20,
  StateDict,
  tensor,
  zeros,
  type Classification,
  type Tensor,
} from '../../lib';
import { readIdxDataset } from '../../lib/data/idx';
import { IMAGENET } from '../../lib/models/preprocessing-record';
import { bundledImages } from '../../lib/vision/bundled-images';
import { expectCoded, expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const LEGACY = path.join(FIXTURES, 'se_resnet20_fashion_mnist-ec67461cf95ad.pkl');
const BUNDLED = path.join(
  __dirname,
  '..',
  '..',
  'assets',
  'weights',
  'se_resnet20_fashion_mnist.safetensors',
);

interface Recorded {
  predictions: number[];
  first64Logits: number[];
}
const readRecorded = (file: string): Recorded => JSON.parse(readFileSync(file, 'utf8')) as Recorded;
/** What PyTorch answers with the bundled weights, and with those of the legacy file. */
const recorded = readRecorded(path.join(FIXTURES, 'se_resnet20_fashion_mnist-bundled.json'));
const recordedOriginal = readRecorded(LEGACY.replace('.pkl', '.json'));
const CIFAR = { size: [32, 32] as const, mean: [0.5], std: [0.25] };

function softmax(logits: number[]): number[] {
  const exponents = logits.map(Math.exp);
  const sum = exponents.reduce((total, value) => total + value, 0);
  return exponents.map((value) => value / sum);
}

/** The same labels in the same order; scores up to rounding, since batches of other sizes sum in another order. */
function expectSame(results: readonly Classification[][], expected: readonly Classification[][]): void {
  const labels = (all: readonly Classification[][]): string[][] =>
    all.map((image) => image.map(({ label }) => label));
  expect(labels(results)).to.deep.equal(labels(expected));
  const scores = results.flat().map(({ score }) => score);
  const wanted = expected.flat().map(({ score }) => score);
  scores.forEach((score, index) => expect(score).to.be.closeTo(wanted[index] ?? NaN, 1e-6));
}

describe('ImageClassifier', () => {
  const temporary = new Temporary();
  let images: string[];
  let bundled: ImageClassifier;
  before(async () => {
    images = await bundledImages();
    bundled = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
  });
  after(async () => {
    await bundled.dispose();
    temporary.cleanUp();
  });

  describe('the bundled network', () => {
    it("gives PyTorch's predictions and scores on 500 test images", async () => {
      const {
        images: bytes,
        count,
        height,
        width,
      } = await readIdxDataset(
        path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      );
      const pixels = tensor(bytes, { shape: [count, 1, height, width] });
      const results = await bundled.classifyBatch(pixels, { topK: 10 });
      expect(results.map(([best]) => best?.index)).to.deep.equal(recorded.predictions.slice(0, 500));
      for (let image = 0; image < 64; image++) {
        const expected = softmax(recorded.first64Logits.slice(10 * image, 10 * image + 10));
        for (const { index, score } of results[image] ?? [])
          expect(score).to.be.closeTo(expected[index] ?? NaN, 1e-5);
      }
    });

    it('names what is on the bundled images', async () => {
      const index = JSON.parse(
        readFileSync(path.join(path.dirname(images[0] ?? ''), 'index.json'), 'utf8'),
      ) as { label: string }[];
      const results = await bundled.classify(images, { topK: 1 });
      expect(results.map(([best]) => best?.label)).to.deep.equal(index.map(({ label }) => label));
      expect(results.map(([best]) => best?.index)).to.deep.equal(recorded.predictions.slice(0, 20));
    });

    it('takes paths, bytes and tensors, one or many, with the same answer', async () => {
      const file = images[8] ?? '';
      const one = await bundled.classify(file);
      expect(one).to.have.lengthOf(5);
      expect(one[0]?.label).to.equal('Sandal');
      expect(await bundled.classify(readFileSync(file))).to.deep.equal(one);
      const [again, other] = await bundled.classify([readFileSync(file), images[1] ?? '']);
      expect(again?.map(({ index }) => index)).to.deep.equal(one.map(({ index }) => index));
      expect(other?.[0]?.label).to.equal('Pullover');
      expect(await bundled.classify([])).to.deep.equal([]);
      const { data } = await readIdxDataset(
        path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      ).then((set) => ({ data: set.images.slice(8 * 784, 9 * 784) }));
      const pixels = tensor(data, { shape: [1, 28, 28] });
      expect(await bundled.classify(pixels)).to.deep.equal(one);
      expect(await bundled.classify(pixels.expand([3, 28, 28]))).to.deep.equal(one);
    });

    it('takes a floating tensor as preprocessed', async () => {
      const x = zeros([3, 32, 32]);
      const [best] = await bundled.classify(x, { topK: 1 });
      expect(best?.score).to.be.within(0.1, 1);
      expect(x.shape).to.deep.equal([3, 32, 32]); // not disposed
    });

    it('classifies a photograph of another size, and leaves no tensor behind', async () => {
      const photo = path.join(FIXTURES, 'images', 'photo.jpg');
      await bundled.classify(photo);
      const before = memory().tensors;
      const results = await bundled.classify([photo, path.join(FIXTURES, 'images', 'rgb.png')]);
      expect(results.map((labels) => labels.length)).to.deep.equal([5, 5]);
      expect(memory().tensors).to.be.at.most(before);
    });

    it('clamps topK to the number of classes; scores fall and sum to 1', async () => {
      const labels = await bundled.classify(images[0] ?? '', { topK: 1000 });
      expect(labels).to.have.lengthOf(10);
      expect(new Set(labels.map(({ label }) => label)).size).to.equal(10);
      const scores = labels.map(({ score }) => score);
      expect([...scores].sort((left, right) => right - left)).to.deep.equal(scores);
      expect(scores.reduce((sum, score) => sum + score, 0)).to.be.closeTo(1, 1e-5);
    });
  });

  describe('load', () => {
    it('reads the original legacy file, with labels and preprocessing given', async () => {
      const labelsFile = temporary.path('labels.txt');
      writeFileSync(labelsFile, `${bundled.labels.join('\n')}\n`);
      const { size, pad, channels, mean, std } = bundled.preprocessing;
      const preprocessing = { size, pad, channels, mean, std };
      const original = await ImageClassifier.load('se_resnet20', {
        weights: LEGACY,
        labels: labelsFile,
        preprocessing,
      });
      const results = await original.classify(images);
      expect(results.map(([best]) => best?.index)).to.deep.equal(recordedOriginal.predictions.slice(0, 20));
      expect(original.labels).to.deep.equal(bundled.labels);
      await original.dispose();
    });

    it('overrides single fields of the record that the weights bring', async () => {
      const changed = await ImageClassifier.load('se_resnet20', {
        weights: 'fashion_mnist',
        preprocessing: { pad: 4 },
      });
      expect(changed.preprocessing).to.deep.equal({ ...bundled.preprocessing, pad: 4 });
      await changed.dispose();
    });

    it('finds class count and reduction in the shapes, and strips the prefix of DataParallel', async () => {
      for (const [numClasses, reduction] of [
        [3, 5],
        [7, 16],
        [1, 3],
      ] as const) {
        const model = se_preactresnet20({ numClasses, reduction });
        const prefixed = new StateDict(
          [...model.stateDict()].map(([name, value]) => [`module.${name}`, value]),
        );
        const file = temporary.path(`${numClasses}-${reduction}.pt`);
        await save(prefixed, file);
        const classifier = await ImageClassifier.load('se_preactresnet20', {
          weights: file,
          preprocessing: CIFAR,
        });
        expect(classifier.labels).to.deep.equal(
          Array.from({ length: numClasses }, (_, index) => String(index)),
        );
        const given = await ImageClassifier.load(model, { preprocessing: CIFAR });
        expect(await classifier.classify(images[0] ?? '')).to.deep.equal(
          await given.classify(images[0] ?? ''),
        );
        await Promise.all([classifier.dispose(), given.dispose()]);
        model.dispose();
      }
    });

    it("knows torchvision's preprocessing for models of ImageNet's size", async () => {
      const model = se_resnet18({ numClasses: 2, initWeights: false });
      const file = temporary.path('se_resnet18.safetensors');
      await save(model, file);
      const classifier = await ImageClassifier.load('se_resnet18', { weights: file, labels: ['cat', 'dog'] });
      expect(classifier.preprocessing).to.deep.equal(IMAGENET);
      expect(await classifier.classify(path.join(FIXTURES, 'images', 'rgb.png'))).to.have.lengthOf(2);
      await classifier.dispose();
      model.dispose();
    });

    it('tells the kinds of se_inception_v3 apart by their weights', async () => {
      const file = temporary.path('inception.safetensors');
      for (const options of [{ auxLogits: false }, { recalibrate: 'output' }] as const) {
        const model = se_inception_v3({ numClasses: 2, initWeights: false, ...options });
        await save(model, file);
        const classifier = await ImageClassifier.load('se_inception_v3', { weights: file });
        expect(classifier.labels).to.deep.equal(['0', '1']);
        expect(classifier.preprocessing.crop).to.deep.equal([299, 299]);
        await classifier.dispose();
        model.dispose();
      }
    });

    it('takes a Module: puts it into evaluation mode and leaves it to its owner', async () => {
      const model = se_resnet20({ reduction: 4 });
      model.loadStateDict(await load(BUNDLED));
      const classifier = await ImageClassifier.load(model, {
        labels: bundled.labels,
        preprocessing: bundled.preprocessing,
      });
      expect(model.training).to.equal(false);
      expectSame(await classifier.classify(images), await bundled.classify(images));
      await classifier.dispose();
      expect(model.stateDict().size).to.equal(146);
      model.dispose();
    });

    it('takes a Module whose forward is TypeScript: compiled where it can be traced, else as it is', async () => {
      class Mirrored extends Module {
        network = se_resnet20({ reduction: 4 });
        calls = 0;
        override async forward(x: Tensor): Promise<Tensor> {
          this.calls++;
          return (await this.network.forward(x)).neg();
        }
      }
      class Twice extends Mirrored {
        override async forward(x: Tensor): Promise<Tensor> {
          this.calls++;
          const logits = await this.network.forward(x);
          return logits.add(logits);
        }
      }
      const twice = new Twice();
      twice.network.loadStateDict(await load(BUNDLED));
      const compiled = await ImageClassifier.load(twice, {
        labels: bundled.labels,
        preprocessing: bundled.preprocessing,
      });
      const [label] = await compiled.classify(images[0] ?? '');
      expect(label?.label).to.equal((await bundled.classify(images[0] ?? ''))[0]?.label);
      expect(twice.calls).to.equal(1);
      await compiled.dispose();
      twice.dispose();
      const model = new Mirrored();
      model.network.loadStateDict(await load(BUNDLED));
      const classifier = await ImageClassifier.load(model, {
        labels: bundled.labels,
        preprocessing: bundled.preprocessing,
      });
      const best = async (of: ImageClassifier, topK: number): Promise<string | undefined> =>
        (await of.classify(images[0] ?? '', { topK })).at(-1)?.label;
      // What was least likely is the most likely now.
      expect(await best(classifier, 1)).to.equal(await best(bundled, 10));
      expect(model.calls).to.equal(2);
      await classifier.dispose();
      model.dispose();
    });

    it('runs in another dtype', async () => {
      const classifier = await ImageClassifier.load('se_resnet20', {
        weights: 'fashion_mnist',
        dtype: 'bfloat16',
      });
      const [best] = await classifier.classify(images[0] ?? '');
      expect(best?.label).to.equal('Ankle boot');
      await classifier.dispose();
    });

    it('reads half weights as float32', async () => {
      const state = await load(path.join(FIXTURES, 'se_resnet20-half.pt'));
      expect([...state.values()].some(({ dtype }) => dtype === 'float16')).to.equal(true);
      const classifier = await ImageClassifier.load('se_resnet20', {
        weights: path.join(FIXTURES, 'se_resnet20-half.pt'),
        preprocessing: CIFAR,
      });
      expect(await classifier.classify(images[0] ?? '')).to.have.lengthOf(5);
      await classifier.dispose();
    });

    it('gives back what it made when it fails', async () => {
      const attempt = (): Promise<unknown> =>
        expectRejection(
          ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', labels: ['a'] }),
          'ERR_SENET_LABELS',
          /10 classes.*1 label/,
        );
      await attempt();
      const before = memory();
      await attempt();
      // At most: the garbage collector may free others meanwhile.
      expect(memory().tensors).to.be.at.most(before.tensors);
      expect(memory().bytes).to.be.at.most(before.bytes);
    });

    it('refuses bad arguments', async () => {
      const weights = 'fashion_mnist';
      const refuses = (
        code: Parameters<typeof expectCoded>[1],
        words: RegExp,
        model: unknown,
        options?: unknown,
      ): Promise<unknown> =>
        expectRejection(ImageClassifier.load(model as 'se_resnet20', options as object), code, words);
      await refuses('ERR_SENET_UNKNOWN_MODEL', /did you mean 'se_resnet20'/, 'se_resnet2o', { weights });
      await refuses('ERR_SENET_ARG_TYPE', /name or a Module/, 7, { weights });
      await refuses('ERR_SENET_ARG_MISSING', /published: 'fashion_mnist'/, 'se_resnet20');
      await refuses('ERR_SENET_UNKNOWN_OPTION', /did you mean 'weights'/, 'se_resnet20', { weight: weights });
      await refuses('ERR_SENET_ARG_RANGE', /did you mean 'fashion_mnist'/, 'se_resnet20', {
        weights: 'fashion-mnist',
      });
      await refuses('ERR_SENET_ARG_RANGE', /they are of se_resnet50/, 'se_resnet20', { weights: 'imagenet' });
      await refuses('ERR_SENET_FILE_NOT_FOUND', /none\.pt/, 'se_resnet20', {
        weights: temporary.path('none.pt'),
      });
      await refuses('ERR_SENET_FILE', /folder/, 'se_resnet20', { weights: temporary.folder });
      await refuses('ERR_SENET_CHECKPOINT_UNSAFE', /system/, 'se_resnet20', {
        weights: path.join(FIXTURES, 'evil-zip.pt'),
      });
      await refuses('ERR_SENET_ARG_MISSING', /size, mean and std/, 'se_resnet20', { weights: LEGACY });
      await refuses('ERR_SENET_STATE_DICT', /./, 'se_resnet32', { weights: LEGACY, preprocessing: CIFAR });
      await refuses('ERR_SENET_LABELS', /10 classes.*2 labels/, 'se_resnet20', {
        weights,
        labels: ['a', 'b'],
      });
      await refuses('ERR_SENET_ARG_TYPE', /labels/, 'se_resnet20', { weights, labels: [1, 2] });
      await refuses('ERR_SENET_FILE_NOT_FOUND', /labels/, 'se_resnet20', {
        weights,
        labels: temporary.path('none.txt'),
      });
      writeFileSync(temporary.path('bad.json'), '["a", ');
      await refuses('ERR_SENET_LABELS', /bad\.json/, 'se_resnet20', {
        weights,
        labels: temporary.path('bad.json'),
      });
      await refuses('ERR_SENET_DTYPE', /floating/, 'se_resnet20', { weights, dtype: 'int32' });
      await refuses('ERR_SENET_CALIBRATION', /quantize/, 'se_resnet20', { weights, dtype: 'int8' });
      await refuses('ERR_SENET_ARG_RANGE', /device/, 'se_resnet20', { weights, device: 'tpu' });
      await refuses('ERR_SENET_ARG_RANGE', /pad/, 'se_resnet20', { weights, preprocessing: { pad: -1 } });
      await refuses('ERR_SENET_ABORTED', /aborted/, 'se_resnet20', { weights, signal: AbortSignal.abort() });
    });

    it('refuses metadata that is no JSON', async () => {
      const state = await load(path.join(FIXTURES, 'se_resnet20.safetensors'));
      const file = temporary.path('metadata.safetensors');
      await save(new StateDict(state, new Map(), new Map([['labels', '[']])), file);
      await expectRejection(
        ImageClassifier.load('se_resnet20', { weights: file, preprocessing: CIFAR }),
        'ERR_SENET_CHECKPOINT_FORMAT',
        /metadata 'labels'/,
      );
    });
  });

  it('takes an image file however it is named', async () => {
    const [file = ''] = images;
    const bytes = readFileSync(file);
    const expected = await bundled.classify(file);
    for (const source of [
      new Uint8Array(bytes).buffer,
      new Blob([bytes]),
      pathToFileURL(file),
      pathToFileURL(file).href,
      `data:image/png;base64,${bytes.toString('base64')}`,
    ]) {
      expect(await bundled.classify(source)).to.deep.equal(expected);
    }
  });

  describe('bad input', () => {
    it('refuses images that are none', async () => {
      for (const wrong of [undefined, null, 7, {}, new Float32Array(3)]) {
        await expectRejection(bundled.classify(wrong as never), 'ERR_SENET_ARG_TYPE', /expected a path/);
      }
      await expectRejection(bundled.classify([images[0], 7] as never), 'ERR_SENET_ARG_TYPE', /images\[1\]/);
      await expectRejection(
        bundled.classify([images[0] ?? '', temporary.path('none.png')]),
        'ERR_SENET_FILE_NOT_FOUND',
      );
      writeFileSync(temporary.path('text.png'), 'text');
      await expectRejection(bundled.classify(temporary.path('text.png')), 'ERR_SENET_IMAGE');
      await expectRejection(bundled.classify(new Uint8Array(0)), 'ERR_SENET_IMAGE_SIZE');
    });

    it('refuses tensors of another kind', async () => {
      const of = (shape: number[], dtype: 'uint8' | 'int64' | 'float32'): Tensor => zeros(shape, { dtype });
      await expectRejection(
        bundled.classify(of([28, 28], 'uint8')),
        'ERR_SENET_SHAPE',
        /channels x height x width/,
      );
      await expectRejection(bundled.classify(of([28, 28, 3], 'uint8')), 'ERR_SENET_SHAPE');
      await expectRejection(bundled.classify(of([1, 3, 28, 28], 'uint8')), 'ERR_SENET_SHAPE');
      await expectRejection(bundled.classify(of([3, 0, 28], 'uint8')), 'ERR_SENET_SHAPE');
      await expectRejection(bundled.classify(of([1, 32, 32], 'float32')), 'ERR_SENET_SHAPE', /3 channels/);
      await expectRejection(bundled.classify(of([3, 28, 28], 'int64')), 'ERR_SENET_DTYPE');
      await expectRejection(bundled.classifyBatch(of([3, 28, 28], 'uint8')), 'ERR_SENET_SHAPE');
      await expectRejection(bundled.classifyBatch(of([1, 3, 28, 28], 'float32')), 'ERR_SENET_DTYPE');
      const gone = of([3, 28, 28], 'uint8');
      gone.dispose();
      await expectRejection(bundled.classify(gone), 'ERR_SENET_DISPOSED');
    });

    it('refuses bad options', async () => {
      const file = images[0] ?? '';
      await expectRejection(bundled.classify(file, { topK: 0 }), 'ERR_SENET_ARG_RANGE', /topK/);
      await expectRejection(bundled.classify(file, { topK: 1.5 }), 'ERR_SENET_ARG_RANGE');
      await expectRejection(bundled.classify(file, { topK: '5' } as never), 'ERR_SENET_ARG_TYPE');
      await expectRejection(
        bundled.classify(file, { top_k: 5 } as never),
        'ERR_SENET_UNKNOWN_OPTION',
        /topK/,
      );
      await expectRejection(
        bundled.classify(file, { signal: {} } as never),
        'ERR_SENET_ARG_TYPE',
        /AbortSignal/,
      );
    });

    it('says that labels and classes differ, for a Module whose classes were unknown at load', async () => {
      const part = createModel('se_resnet20', { initWeights: false }).getSubmodule('conv1');
      const classifier = await ImageClassifier.load(part, { labels: ['a'], preprocessing: CIFAR });
      await expectRejection(classifier.classify(images[0] ?? ''), 'ERR_SENET_SHAPE', /N x classes/);
      await classifier.dispose();
    });
  });

  describe('scores that are no numbers', () => {
    /** Its logits are the means of the channels. */
    class Means extends Module {
      override forward(x: Tensor): Promise<Tensor> {
        return Promise.resolve(x.mean([2, 3]));
      }
    }
    let classifier: ImageClassifier;
    before(async () => {
      classifier = await ImageClassifier.load(new Means(), { preprocessing: CIFAR });
    });
    after(() => classifier.dispose());
    const image = (...channels: number[]): Tensor =>
      tensor(Float32Array.from(channels), { shape: [3, 1, 1] }).expand([3, 4, 4]);

    it('reject, and the other images of the batch are answered', async () => {
      const wrong = [
        image(1, NaN, 0),
        image(NaN, NaN, NaN),
        image(Infinity, 0, 0),
        image(-Infinity, -Infinity, -Infinity),
      ];
      const results = await Promise.allSettled(
        [image(1, 3, 2), ...wrong, image(5, -Infinity, 4)].map((one) => classifier.classify(one)),
      );
      const outcomes = results.map((result) =>
        result.status === 'fulfilled'
          ? result.value.map(({ index }) => index)
          : (result.reason as { code: string }).code,
      );
      expect(outcomes).to.deep.equal([[1, 2, 0], ...wrong.map(() => 'ERR_SENET_NAN_OUTPUT'), [0, 2, 1]]);
      await expectRejection(
        classifier.classify([image(1, 2, 3), image(NaN, 2, 3)], { topK: 1 }),
        'ERR_SENET_NAN_OUTPUT',
        /scores are NaN/,
      );
    });

    it('reject classifyBatch too, which says which image it is', async () => {
      const broken = await ImageClassifier.load(new Means(), {
        preprocessing: { ...CIFAR, std: [Number.MIN_VALUE] }, // 0 in float32: what is not 0.5 is infinite
      });
      const pixels = zeros([2, 1, 32, 32], { dtype: 'uint8' });
      await expectRejection(broken.classifyBatch(pixels), 'ERR_SENET_NAN_OUTPUT', /pixels\[0\]/);
      await broken.dispose();
    });
  });

  describe('abort and dispose', () => {
    it('rejects when the signal was aborted before', async () => {
      const reason = new Error('enough');
      const error = await expectRejection(
        bundled.classify(images, { signal: AbortSignal.abort(reason) }),
        'ERR_SENET_ABORTED',
      );
      expect(error.name).to.equal('AbortError');
      expect(error.cause).to.equal(reason);
    });

    it('an array that its caller changes meanwhile is classified as it was', async () => {
      const given: (string | null)[] = images.slice(0, 6);
      const running = bundled.classify(given as string[]);
      given.length = 2;
      given.fill(null);
      const results = await running;
      expect(results).to.have.lengthOf(6);
      for (const result of results) expect(result[0]?.label).to.be.a('string');
    });

    it('a named pipe is no file of labels', async function () {
      if (process.platform === 'win32') skip(this, 'Windows has no named pipes of files');
      const pipe = temporary.path('labels');
      execFileSync('mkfifo', [pipe]);
      await expectRejection(
        ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', labels: pipe }),
        'ERR_SENET_FILE',
        /regular file/,
      );
    });

    it('rejects when the signal aborts while it runs, and goes on working', async () => {
      const controller = new AbortController();
      const running = bundled.classify([...images, ...images, ...images], { signal: controller.signal });
      setImmediate(() => controller.abort());
      await expectRejection(running, 'ERR_SENET_ABORTED');
      expect((await bundled.classify(images[0] ?? ''))[0]?.label).to.equal('Ankle boot');
    });

    it('finishes what runs, refuses what comes after', async () => {
      const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
      const running = classifier.classify(images);
      const disposing = classifier.dispose();
      await expectRejection(classifier.classify(images[0] ?? ''), 'ERR_SENET_DISPOSED');
      expect(await running).to.have.lengthOf(20);
      await disposing;
      await classifier.dispose(); // harmless
    });
  });

  describe('weights of other people', () => {
    const prefixed = (state: StateDict, prefix: string): Map<string, Tensor> =>
      new Map([...state].map(([key, value]) => [prefix + key, value]));
    const classify = async (file: string, place: { key?: string; prefix?: string } = {}): Promise<number> => {
      const classifier = await ImageClassifier.load('se_resnet20', {
        ...{ weights: file, preprocessing: CIFAR },
        ...place,
      });
      const [best] = await classifier.classify((await bundledImages())[0] as string);
      await classifier.dispose();
      return best?.score ?? NaN;
    };

    it('whatever stands around them or in front of their names', async () => {
      const state = await load(BUNDLED);
      const zeroed = new Map(
        [...state].map(([key, value]) => [key, zeros(value.shape, { dtype: value.dtype })]),
      );
      const file = temporary.path('wrapped.pt');
      await save(state, file);
      const expected = await classify(file);
      const extra = { n_averaged: tensor(5n), 'criterion.weight': zeros([10]) };
      const files: unknown[] = [
        { ema: prefixed(state, 'module.') },
        { state_dict: new Map([...prefixed(state, 'model.'), ...Object.entries(extra)]), epoch: 3 },
        prefixed(state, '_orig_mod.module.'),
        {
          anything: { inside: prefixed(state, 'a.b.') },
          optimizer: { state: { 0: { exp_avg: zeros([1]) } } },
        },
        { state_dict: state, state_dict_ema: zeroed, ema: prefixed(state, 'module.') },
        { other: { x: zeros([1]), y: zeros([1]) }, teacher: prefixed(state, 'net.') },
        new Map([...prefixed(state, 'teacher.'), ...prefixed(state, 'student.')]),
      ];
      for (const value of files) {
        await saveCheckpoint(value, file);
        expect(await classify(file)).to.equal(expected);
      }
      await saveCheckpoint({ state_dict: zeroed, mine: { ema: prefixed(state, 'm.') } }, file);
      expect(await classify(file, { key: 'mine.ema' })).to.equal(expected);
      expect(await classify(file, { key: 'mine.ema', prefix: 'm.' })).to.equal(expected);
      expect(await classify(file)).to.not.equal(expected);
      await expectRejection(classify(file, { key: 'none' }), 'ERR_SENET_ARG_RANGE', /'mine\.ema'/);
      await expectRejection(classify(file, { prefix: 'none.' }), 'ERR_SENET_ARG_RANGE', /none\./);
    });

    it('a network whose own names begin with model.', async () => {
      const model = se_inception_v3({ numClasses: 3, auxLogits: false, initWeights: false });
      const file = temporary.path('inception.pt');
      for (const prefix of ['', 'model.', 'module.']) {
        await saveCheckpoint({ net: prefixed(model.stateDict(), prefix) }, file);
        const classifier = await ImageClassifier.load('se_inception_v3', { weights: file });
        expect(classifier.labels).to.have.length(3);
        await classifier.dispose();
      }
      model.dispose();
    });
  });
});
