/**
 * The records of the models, each of them: what they say is true of the network, its head can be asked for and changed,
 * options follow from the shapes of weights, and published weights are found, fetched and loaded.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  Conv2d,
  createModel,
  CrossEntropyLoss,
  Dropout,
  Identity,
  ImageClassifier,
  Linear,
  listModels,
  load,
  manualSeed,
  modelRecord,
  randn,
  save,
  se_resnet20,
  Sequential,
  SELayer,
  SGD,
  StateDict,
  tensor,
  Tensor,
  type InceptionOutputs,
  type ModelName,
  type ModelOptions,
} from '../../lib';
import { ClassifierModel, registerModel } from '../../lib/models/classifier-model';
import { createShapedLike, createWithWeights, readWeights } from '../../lib/models/from-weights';
import { labelsFileOf } from '../../lib/models/fetch-weights';
import { loadModel } from '../../lib/models/open-weights';
import { defineModels, type ModelFamily, type PublishedWeights } from '../../lib/models/record';
import { findAmong } from '../../lib/models/find-weights';
import { allRecords } from '../../lib/models/registry';
import { IMAGENET } from '../../lib/models/preprocessing-record';
import { expectRejection, expectThrow } from '../support/errors';
import { startServer } from '../support/http-server';
import { LIGHT_MODELS } from '../support/models';
import { numbers, relativeError } from '../support/parity';
import { boolean, integer } from '../../lib/tensor/rules';
import { Temporary } from '../support/temporary';

const ASSETS = path.join(__dirname, '..', '..', 'assets');
const FASHION = path.join(ASSETS, 'weights', 'se_resnet20_fashion_mnist.safetensors');

type AnyModel = ClassifierModel<unknown>;
const made = <T>(value: unknown, type: abstract new (...args: never[]) => T): T => {
  expect(value).to.be.instanceOf(type);
  return value as T;
};
const make = (name: ModelName, options: object = {}): AnyModel =>
  createModel(name, { numClasses: 4, ...options } as ModelOptions);
/** In the order of the names: files have their own. */
const shapes = (state: StateDict): unknown =>
  [...state].map(([key, { shape }]) => `${key}: ${shape.join()}`).sort();

for (const name of listModels()) {
  describe(`the record of ${name}`, function () {
    this.timeout(60_000);
    const record = modelRecord(name);
    const size = record.anyInputSize ? 32 : record.inputSize;

    it('is true of the network', () => {
      expect(record.name).to.equal(name);
      const model = make(name, { initWeights: false });
      expect(model).to.be.instanceOf(ClassifierModel);
      expect(model.getClassifier()).to.be.instanceOf(Linear);
      expect(model.getClassifier()).to.equal(model.getSubmodule(record.classifier));
      expect((model.getClassifier() as Linear).outFeatures).to.equal(4);
      const stem = made(model.getSubmodule(record.stem), Conv2d);
      expect(stem.inChannels).to.equal(record.inChannels);
      for (const head of record.auxiliaryClassifiers)
        expect(made(model.getSubmodule(head), Linear).outFeatures).to.equal(4);
      // C++ has it that the network begins and ends there: both may be replaced by others of another width.
      const { outChannels, weight, bias } = stem;
      const kernelSize = [weight.shape[2] as number, weight.shape[3] as number] as const;
      expect(ClassifierModel.widthOf(model)).to.deep.equal([record.inChannels, 4]);
      model.replaceModule(record.stem, new Conv2d(5, outChannels, kernelSize, { bias: bias !== null }));
      model.resetClassifier(9);
      expect(ClassifierModel.widthOf(model)).to.deep.equal([5, 9]);
      expect(record.options).to.include.members(['numClasses', 'inChannels', 'initWeights']);
      expect(record.options).to.include.members([...record.toldOptions]);
      if (record.numClasses === null) return;
      const usual = createModel(name, { initWeights: false } as ModelOptions) as AnyModel;
      expect((usual.getClassifier() as Linear).outFeatures).to.equal(record.numClasses);
    });

    it('says of published weights where they are, what they are and what one may do', async () => {
      for (const weights of record.weights) {
        expect(weights.model).to.equal(name);
        if (weights.sha256 !== null) expect(weights.sha256).to.match(/^[0-9a-f]{8,64}$/);
        else expect(weights.location).to.have.property('hub');
        expect(weights.licence).to.match(/^[\w.+-]+$/);
        if (weights.top1 !== null) expect(weights.top1).to.be.within(0, 100);
        const labels = labelsFileOf(weights);
        if (labels !== undefined)
          expect(JSON.parse(readFileSync(labels, 'utf8'))).to.have.lengthOf(record.numClasses as number);
        if (!('bundled' in weights.location)) {
          const { url } = weights.location;
          if (url !== undefined) expect(new URL(url).protocol).to.equal('https:');
          continue;
        }
        const file = path.join(ASSETS, 'weights', weights.location.bundled);
        const digest = createHash('sha256').update(readFileSync(file)).digest('hex');
        expect(digest.startsWith(weights.sha256 as string)).to.equal(true);
        const model = (await createModel(name, { pretrained: weights.name })) as AnyModel;
        expect(shapes(model.stateDict())).to.deep.equal(shapes(await load(file)));
        model.dispose();
      }
      if (record.weights.length === 0) {
        const code = 'ERR_SENET_ARG_RANGE';
        await expectRejection(createModel(name, { pretrained: true }), code, /has no published weights/);
      }
    });

    if (!LIGHT_MODELS.includes(name)) return; // a row of a class that others stand for

    it('has another head after resetClassifier, forward and compiled, under the same keys', async () => {
      manualSeed(5);
      const model = make(name);
      const keys = [...model.stateDict().keys()];
      const old = model.getClassifier();
      const stem = numbers(made(model.getSubmodule(record.stem), Conv2d).weight);
      model.resetClassifier(7);
      expect([...model.stateDict().keys()]).to.deep.equal(keys);
      expect(model.getClassifier()).to.not.equal(old);
      expect(numbers(made(model.getSubmodule(record.stem), Conv2d).weight)).to.deep.equal(stem);
      for (const head of record.auxiliaryClassifiers)
        expect(made(model.getSubmodule(head), Linear).outFeatures).to.equal(7);
      model.eval();
      const x = randn([2, record.inChannels, size, size]);
      const eager = (await model.forward(x)) as Tensor;
      expect(eager.shape).to.deep.equal([2, 7]);
      const compiled = await model.compile();
      expect(relativeError(await compiled.forward(x), numbers(eager))).to.be.below(1e-4);
      expect(compiled.explain().inputSize).to.deep.equal([record.inputSize, record.inputSize]);
      compiled.dispose();
      model.dispose();
    });

    it('has a gradient of every parameter, but where its record says that its forward calls not all', async () => {
      const model = make(name);
      const out = await model.forward(randn([2, record.inChannels, size, size]));
      const outs = out instanceof Tensor ? [out] : (Object.values(out as InceptionOutputs) as Tensor[]);
      const sums = outs.map((one) => one.sum());
      await sums.reduce((sum, one) => sum.add(one)).backward();
      const without = model.namedParameters().filter(([, { grad }]) => grad === null);
      expect(without.length > 0, without.map(([key]) => key).join()).to.equal(
        record.hasUncalledLayers ?? false,
      );
      model.dispose();
    });

    it('gives its features without a head, forward and compiled, and takes a head again', async () => {
      const model = make(name).eval();
      const { numFeatures } = model;
      expect(numFeatures).to.equal((model.getClassifier() as Linear).inFeatures);
      model.resetClassifier(0);
      expect(model.getClassifier()).to.be.instanceOf(Identity);
      expect(
        [...model.stateDict().keys()].filter((key) => key.startsWith(`${record.classifier}.`)),
      ).to.deep.equal([]);
      expect(model.numFeatures).to.equal(numFeatures);
      expect(ClassifierModel.widthOf(model)).to.deep.equal([record.inChannels, numFeatures]);
      const x = randn([2, record.inChannels, size, size]);
      const features = (await model.forward(x)) as Tensor;
      expect(features.shape).to.deep.equal([2, numFeatures]);
      const compiled = await model.compile();
      expect(relativeError(await compiled.forward(x), numbers(features))).to.be.below(1e-4);
      compiled.dispose();
      model.resetClassifier(3);
      const head = model.getClassifier() as Linear;
      expect(head.training).to.equal(false);
      const logits = (await model.forward(x)) as Tensor;
      expect(relativeError(await head.forward(features), numbers(logits))).to.be.below(1e-6);
      model.dispose();
    });

    it('tells the options from the shapes of weights', () => {
      const values: Record<string, readonly unknown[]> = {
        numClasses: [2, 11],
        inChannels: [1, 4],
        reduction: [1, 4, 16],
        auxLogits: [true, false],
        recalibrate: ['none', 'output'],
      };
      for (const option of record.options.filter((one) => one in values)) {
        for (const value of values[option] ?? []) {
          const model = make(name, { [option]: value, initWeights: false });
          const state = model.stateDict();
          const again = createShapedLike(record, state);
          expect(shapes(again.stateDict()), `${option} ${String(value)}`).to.deep.equal(shapes(state));
          again.dispose();
          model.dispose();
        }
      }
    });
  });
}

describe('resetClassifier', function () {
  this.timeout(20_000);

  it("draws what a new Linear draws, with the old one's dtype and mode", () => {
    const model = se_resnet20({ initWeights: false }).to('float64').eval();
    manualSeed(8);
    model.resetClassifier(3);
    const head = model.getClassifier() as Linear;
    manualSeed(8);
    const linear = new Linear(64, 3).to('float64');
    expect(numbers(head.weight)).to.deep.equal(numbers(linear.weight));
    expect(numbers(head.bias as Tensor)).to.deep.equal(numbers(linear.bias as Tensor));
    expect([head.weight.dtype, head.training]).to.deep.equal(['float64', false]);
    expect(head.weight.requiresGrad).to.equal(true);
  });

  it('trains the auxiliary head for the new classes too', async () => {
    const model = make('se_inception_v3');
    model.resetClassifier(3);
    const { logits, auxLogits } = (await model.forward(randn([2, 3, 299, 299]))) as InceptionOutputs;
    expect([logits.shape, auxLogits.shape]).to.deep.equal([
      [2, 3],
      [2, 3],
    ]);
  });

  it('refuses what is no number of classes, and a model that works', async () => {
    const model = se_resnet20({ initWeights: false });
    const head = model.getClassifier();
    for (const [classes, code] of [
      [-1, 'ERR_SENET_ARG_RANGE'],
      [2.5, 'ERR_SENET_ARG_RANGE'],
      ['3', 'ERR_SENET_ARG_TYPE'],
    ] as const)
      expectThrow(() => model.resetClassifier(classes as number), code);
    const running = model.forward(randn([500, 3, 32, 32]), { grad: false });
    expectThrow(() => model.resetClassifier(3), 'ERR_SENET_BUSY');
    await running;
    expect(model.getClassifier()).to.equal(head);
  });

  it('puts a Linear with a bias where a head of several layers was', async () => {
    const model = se_resnet20({ numClasses: 4 }).eval();
    model.replaceModule('fc', new Sequential(new Dropout(), new Linear(64, 5)).eval());
    expect([...model.stateDict().keys()].slice(-2)).to.deep.equal(['fc.1.weight', 'fc.1.bias']);
    const x = randn([2, 3, 32, 32]);
    const logits = await model.forward(x);
    expect(logits.shape).to.deep.equal([2, 5]);
    const compiled = await model.compile();
    expect(relativeError(await compiled.forward(x), numbers(logits))).to.be.below(1e-4);
    compiled.dispose();
    expectThrow(
      () => model.replaceModule('fc', new Linear(63, 5)),
      'ERR_SENET_SHAPE',
      /takes 64 .* takes 63/,
    );
    model.resetClassifier(6);
    expect((model.getClassifier() as Linear).inFeatures).to.equal(64);
    expect((await model.forward(x)).shape).to.deep.equal([2, 6]);
  });

  it("gives timm's networks without classes as timm does, from weights without a classifier too", async () => {
    manualSeed(3);
    const features = createModel('seresnet18', { numClasses: 0 }).eval();
    expect(features.getClassifier()).to.be.instanceOf(Identity);
    const whole = createModel('seresnet18', { numClasses: 4 });
    const temporary = new Temporary();
    try {
      const file = temporary.path('features.safetensors');
      await save(features, file);
      const again = (await createModel(file)) as AnyModel;
      expect(again.getClassifier()).to.be.instanceOf(Identity);
      expect(shapes(again.stateDict())).to.deep.equal(shapes(features.stateDict()));
      manualSeed(9);
      const headed = (await createModel(file, { numClasses: 4 })) as AnyModel;
      expect(shapes(headed.stateDict())).to.deep.equal(shapes(whole.stateDict()));
      expect(numbers(made(headed.getSubmodule('conv1'), Conv2d).weight)).to.deep.equal(
        numbers(features.conv1.namedParameters()[0]?.[1] as Tensor),
      );
      await expectRejection(ImageClassifier.load(file as ModelName), 'ERR_SENET_LABELS', /512 features/);
      await expectRejection(ImageClassifier.load(features), 'ERR_SENET_LABELS', /512 features/);
    } finally {
      temporary.cleanUp();
    }
  });

  it('a new optimiser trains the new head', async () => {
    const model = se_resnet20();
    model.resetClassifier(2);
    const { weight } = model.getClassifier() as Linear;
    const before = numbers(weight);
    const optimizer = new SGD(model.parameters(), { lr: 0.1 });
    await (await model.forward(randn([2, 3, 32, 32]))).sum().backward();
    await optimizer.step();
    expect(numbers(weight)).to.not.deep.equal(before);
  });
});

describe('createModel with pretrained', function () {
  this.timeout(20_000);

  it('gives the bundled weights, by name and as the usual ones, with the options that they need', async () => {
    const state = await load(FASHION);
    for (const pretrained of ['fashion_mnist', true] as const) {
      const model = await createModel('se_resnet20', { pretrained });
      expect(model.training).to.equal(true);
      expect(shapes(model.stateDict())).to.deep.equal(shapes(state));
      for (const [key, tensor] of model.stateDict())
        expect(numbers(tensor), key).to.deep.equal(numbers(state.get(key) as Tensor));
      model.dispose();
    }
  });

  it('refuses names that there are not, options that weights contradict, and what it does not know', async () => {
    const wrong = (value: unknown): never => value as never;
    const cases: [() => unknown, Parameters<typeof expectRejection>[1], RegExp][] = [
      [
        () => createModel('se_resnet20', { pretrained: 'fashion_mnits' }),
        'ERR_SENET_ARG_RANGE',
        /'fashion_mnits'; did you mean 'fashion_mnist'\? \(published are fashion_mnist\)/,
      ],
      [
        () => createModel('se_resnet50', { pretrained: 'fashion_mnist' }),
        'ERR_SENET_ARG_RANGE',
        /published are imagenet/,
      ],
      [
        () => createModel('se_resnet18', { pretrained: true }),
        'ERR_SENET_ARG_RANGE',
        /se_resnet18 has no published/,
      ],
      [
        () => createModel('se_resnet20', { pretrained: true, numClasses: 5 }),
        'ERR_SENET_STATE_DICT',
        /'fc.weight': expected \[5, 64\], got \[10, 64\]/,
      ],
      [
        () => createModel('se_resnet50', { pretrained: true, inChannels: 1 }),
        'ERR_SENET_STATE_DICT',
        /images of 3 channels, got 1/,
      ],
      [
        () => createModel('se_resnet20', wrong({ pretrained: true, initWeights: false })),
        'ERR_SENET_UNKNOWN_OPTION',
        /initWeights/,
      ],
      [
        () => createModel(wrong('se_resnet19'), wrong({ pretrained: true })),
        'ERR_SENET_UNKNOWN_MODEL',
        /se_resnet19/,
      ],
    ];
    for (const [run, code, words] of cases) await expectRejection(run() as Promise<unknown>, code, words);
    expectThrow(
      () => createModel('se_resnet20', wrong({ pretrained: 1 })),
      'ERR_SENET_ARG_TYPE',
      /pretrained/,
    );
  });

  it('pretrained: false is the plain model', () => {
    expect(createModel('se_resnet20', { pretrained: false, numClasses: 3 }).getClassifier()).to.include({
      outFeatures: 3,
    });
  });

  it('an unknown name of weights says whose they are', async () => {
    await expectRejection(
      findAmong(allRecords(), { subject: modelRecord('se_resnet20'), weights: 'imagenet' }, {}, 'test'),
      'ERR_SENET_ARG_RANGE',
      /test: no file and no published weights 'imagenet'; they are of se_resnet50/,
    );
  });
});

it("timm's published weights have the licence that docs/models.md says", () => {
  const tags = listModels()
    .map((name) => modelRecord(name))
    .filter(({ framework }) => framework.includes('timm'))
    .flatMap(({ weights }) => weights);
  expect(tags).to.have.length.above(40);
  expect(tags.filter(({ licence }) => licence !== 'Apache-2.0')).to.deep.equal([]);
});

it('weights of other classes say the bytes of their tensors', () => {
  for (const name of listModels())
    for (const { numClasses, bytes } of modelRecord(name).weights) {
      expect(bytes === undefined).to.equal(numClasses === undefined);
      if (numClasses === undefined) continue;
      const model = make(name, { numClasses, initWeights: false });
      const size = { float32: 4, int64: 8 };
      const tensors = [...model.namedParameters(), ...model.namedBuffers()];
      const total = tensors.reduce((sum, [, { numel, dtype }]) => sum + numel * size[dtype as 'int64'], 0);
      expect(bytes, name).to.equal(total);
      model.dispose();
    }
});

describe('listModels', () => {
  it('chooses by published weights and by form', () => {
    const pretrained = listModels({ pretrained: true, match: 'se_*' });
    expect(pretrained).to.deep.equal(['se_resnet50', 'se_resnet20']);
    const all = [...listModels({ pretrained: false }), ...listModels({ pretrained: true })];
    expect(all).to.have.members(listModels());
    expect(listModels({ match: 'se_resnet5*' })).to.deep.equal(['se_resnet50', 'se_resnet56']);
    expect(listModels({ match: '*act*20' })).to.deep.equal(['se_preactresnet20']);
    // Nothing but the asterisk means anything.
    for (const match of [
      'se-resnet*',
      'se resnet20',
      'é#"%&~<',
      '[',
      '(',
      '\\',
      'se_resnet2?',
      '/',
      '{1}',
      '^',
    ])
      expect(listModels({ match }), match).to.deep.equal([]);
    expect(listModels({ match: 'se.resnet20' })).to.deep.equal([]);
    expectThrow(() => listModels({ match: 5 as never }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => listModels({ pretrainde: true } as never), 'ERR_SENET_UNKNOWN_OPTION', /pretrained/);
  });
});

// A page as someone would write it: a class whose forward is TypeScript, what is known of it, a row.
const TINY: ModelFamily = {
  inputSize: 16,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 5,
  rules: { numClasses: integer(0), inChannels: integer(1), initWeights: boolean, width: integer(1) },
  toldOptions: [],
  stem: 'stem',
  classifier: 'head',
  auxiliaryClassifiers: [],
  preprocessing: { ...IMAGENET, size: 16, crop: [16, 16] },
  framework: 'its author',
  firstBlock: 'stem',
  mark: /^stem\.weight$/,
  adaptsWeights: false,
  keyMaps: [
    {
      framework: 'another',
      aliases: [
        [/^backbone\./, ''],
        [/^last_linear\./, 'head.'],
      ],
    },
  ],
  optionsFrom: ({ shapeOf }) => ({ width: shapeOf('stem.weight')?.[0] ?? 8 }),
};

interface TinyOptions {
  numClasses?: number;
  inChannels?: number;
  initWeights?: boolean;
  width?: number;
}

class Tiny extends ClassifierModel {
  static override readonly family = TINY;
  readonly stem: Conv2d;
  readonly se: SELayer;
  head: Linear | Identity;

  constructor({ numClasses = 5, inChannels = 3, width = 8 }: TinyOptions = {}) {
    super();
    this.stem = new Conv2d(inChannels, width, 3, { padding: 1 });
    this.se = new SELayer(width, 4);
    this.head = new Linear(width, numClasses);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const features = await this.se.forward(await this.stem.forward(x));
    return this.head.forward(features.mean([2, 3]));
  }
}

registerModel('Tiny', Tiny);

const { tiny } = defineModels(TINY, {
  tiny: { create: (options?: TinyOptions) => new Tiny(options), inputSize: 24 },
});

describe('a row that someone adds', () => {
  let temporary: Temporary;
  before(() => (temporary = new Temporary()));
  after(() => temporary.cleanUp());

  it('brings what its class shares, and what differs', () => {
    expect(tiny).to.include({ name: 'tiny', inputSize: 24, classifier: 'head', numClasses: 5 });
    expect(Object.isFrozen(tiny)).to.equal(true);
  });

  it("loads a file in another library's spelling, with the options of its shapes", async () => {
    const original = new Tiny({ numClasses: 3, inChannels: 1, width: 12 });
    const foreign = new StateDict(
      [...original.stateDict()].map(([key, tensor]) => [
        key.startsWith('head.') ? key.replace('head.', 'last_linear.') : `backbone.${key}`,
        tensor,
      ]),
    );
    const file = temporary.path('foreign.safetensors');
    await save(foreign, file);
    const model = made(await loadModel([tiny], { subject: tiny, weights: file }, {}, 'test'), Tiny);
    expect(shapes(model.stateDict())).to.deep.equal(shapes(original.stateDict()));
    const x = randn([2, 1, 8, 8]);
    expect(numbers(await model.forward(x))).to.deep.equal(numbers(await original.forward(x)));
  });

  it('has its download checked against the hash of the record, whatever its name says', async () => {
    const original = new Tiny();
    await save(original, temporary.path('made.pt'));
    const body = readFileSync(temporary.path('made.pt'));
    const server = await startServer({ body });
    temporary.environment({
      TORCH_HOME: temporary.path('home'),
      SENET_OFFLINE: undefined,
      SENET_WEIGHTS_MIRROR: undefined,
    });
    const sha256 = createHash('sha256').update(body).digest('hex');
    const weights = (name: string, hash: string): PublishedWeights => ({
      model: 'tiny',
      name,
      location: { url: `${server.url}/${name}-0000000000.pt` },
      sha256: hash,
      licence: 'MIT',
      top1: 50,
    });
    try {
      const bad = weights('bad', '0123456789');
      await expectRejection(
        loadModel([tiny], { subject: tiny, weights: bad }, { progress: false }, 'test'),
        'ERR_SENET_HASH',
      );
      for (const good of [weights('whole', sha256), weights('begin', sha256.slice(0, 8))]) {
        const model = await loadModel([tiny], { subject: tiny, weights: good }, { progress: false }, 'test');
        expect(shapes(model.stateDict())).to.deep.equal(shapes(original.stateDict()));
      }
    } finally {
      await server.close();
    }
  });

  it('has a head that becomes an Identity, since its forward is TypeScript', async () => {
    const model = new Tiny();
    model.resetClassifier(0);
    expect(model.getClassifier()).to.be.instanceOf(Identity);
    expect((await model.forward(randn([2, 3, 8, 8]))).shape).to.deep.equal([2, 8]);
    expectThrow(() => model.resetClassifier(3), 'ERR_SENET_ARG_TYPE', /'head': expected a Linear/);
  });

  it('is compiled, trained and summarised', async () => {
    manualSeed(3);
    const model = new Tiny();
    const images = randn([6, 3, 16, 16]);
    const labels = tensor([0n, 1n, 2n, 3n, 4n, 0n]);
    const criterion = new CrossEntropyLoss();
    const optimizer = new SGD(model.parameters(), { lr: 0.1 });
    const losses: number[] = [];
    for (let step = 0; step < 12; step++) {
      optimizer.zeroGrad();
      const loss = await criterion.forward(await model.forward(images), labels);
      await loss.backward();
      await optimizer.step();
      losses.push(loss.item() as number);
    }
    expect(losses.at(-1)).to.be.below(losses[0] as number);
    const compiled = await model.eval().compile();
    const exact = numbers(await model.forward(images));
    expect(relativeError(numbers(await compiled.forward(images)), exact)).to.be.below(1e-5);
    const summary = await model.summary([1, 3, 16, 16]);
    // stem, both layers of SELayer(8, 4), head: each parameter once for each place.
    expect(summary.multiplyAdds).to.equal((3 * 9 + 1) * 8 * 256 + 2 * 16 + (8 + 1) * 5);
    expect(summary.rows.map(({ path: place }) => place)).to.include.members(['stem', 'se.fc.0', 'head']);
    compiled.dispose();
  });

  it('is classified by with what its family says', async () => {
    const classifier = await ImageClassifier.load(new Tiny({ numClasses: 4 }));
    expect(classifier.labels).to.deep.equal(['0', '1', '2', '3']);
    expect(classifier.preprocessing).to.deep.equal(TINY.preprocessing);
    await classifier.dispose();
  });
});

describe("the article's spelling", () => {
  it('is read wherever an SELayer is: options, prefix and weights', async () => {
    const temporary = new Temporary();
    const original = se_resnet20({ reduction: 2, numClasses: 3 });
    const spelt = new StateDict(
      [...original.stateDict()].map(([key, tensor]) => [
        `net.${key.replace('se.fc.0.', 'se.fc1.0.').replace('se.fc.2.', 'se.fc2.0.')}`,
        tensor,
      ]),
    );
    const file = temporary.path('article.safetensors');
    await save(spelt, file);
    const record = modelRecord('se_resnet20');
    const state = await readWeights(file, record, {}, undefined);
    const model = createWithWeights({ subject: record, state });
    expect(shapes(model.stateDict())).to.deep.equal(shapes(original.stateDict()));
    const given = await readWeights(file, original, {}, undefined);
    expect(given.has('layer1.0.se.fc1.0.weight')).to.equal(true);
    temporary.cleanUp();
  });
});
