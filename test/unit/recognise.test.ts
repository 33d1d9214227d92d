/**
 * Files of weights are known by their keys: whose they are, which network they are for; what other frameworks write loads
 * and answers as there; what is ambiguous or of another network is an error that names them.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  convertWeights,
  createModel,
  Identity,
  ImageClassifier,
  inspectCheckpoint,
  load,
  manualSeed,
  modelRecord,
  ones,
  ops,
  randn,
  save,
  tensor,
  tidy,
  type ModelName,
  type Tensor,
  type WeightsPath,
} from '../../lib';
import type { ClassifierModel } from '../../lib/models/classifier-model';
import { create } from '../../lib/models/from-weights';
import { identify } from '../../lib/models/identify';
import { recognise } from '../../lib/models/recognise';
import { recordBehind } from '../../lib/models/record';
import { allRecords } from '../../lib/models/registry';
import { SIGNATURES } from '../../lib/models/signatures';
import { zipOf } from '../support/checkpoint-files';
import { expectRejection } from '../support/errors';
import { numbers, relativeError } from '../support/parity';
import { Temporary } from '../support/temporary';
import { drawn } from '../support/zoo-weights';

/** Keys of blocks that differ in their number alone, which stands where # is. */
interface Blocks {
  readonly first: number;
  readonly last: number;
  readonly keys: string[];
}

interface Case {
  readonly framework: string;
  readonly model: ModelName;
  readonly keys: (string | Blocks)[];
  readonly seed: number;
  readonly input: number[];
  readonly logits64: number[];
}

const FIXTURE = path.join(__dirname, '..', 'fixtures', 'zoo', 'frameworks.json');
const { cases } = JSON.parse(readFileSync(FIXTURE, 'utf8')) as { cases: Case[] };

/** Names and shapes of a case's state dict, in order. */
function entriesOf({ keys }: Case): [key: string, shape: number[]][] {
  const lines = keys.flatMap((one) => {
    if (typeof one === 'string') return [one];
    const numbers = Array.from({ length: one.last - one.first + 1 }, (_, i) => String(one.first + i));
    return numbers.flatMap((number) => one.keys.map((line) => line.replace('#', number)));
  });
  return lines.map((line) => {
    const [key, sizes] = line.split(' ') as [string, string];
    return [key, sizes === '' ? [] : sizes.split('x').map(Number)];
  });
}

/** The state dict of a case under its framework's names, drawn by the rule of the fixtures. */
function stateOf(entry: Case): Map<string, Tensor> {
  return new Map(
    entriesOf(entry).map(([key, shape], index) => {
      manualSeed(entry.seed * 1000 + index);
      return [key, drawn(key, shape)];
    }),
  );
}

const shapesOf = (state: ReadonlyMap<string, { readonly shape: readonly number[] }>) =>
  new Map([...state].map(([key, { shape }]) => [key, shape]));

describe('recognised weights', function () {
  this.timeout(120_000);
  let temporary: Temporary;
  before(() => {
    temporary = new Temporary();
  });
  after(() => temporary.cleanUp());

  it('every network is known by its own state dict, whatever its classes and channels, below any prefix', () => {
    for (const record of allRecords()) {
      const options = { numClasses: 3, inChannels: 1, initWeights: false };
      const model = create(record, options);
      const shapes = shapesOf(model.stateDict());
      model.dispose();
      for (const prefix of ['', 'module.', 'model.net.']) {
        const found = recognise(
          allRecords(),
          new Map([...shapes].map(([key, shape]) => [prefix + key, shape])),
        );
        const names = found?.candidates.map(({ name }) => name);
        expect(names, record.name).to.include(record.name);
        expect(found).to.include({ prefix, framework: record.framework, numClasses: 3, inChannels: 1 });
        const alike = Object.keys(SIGNATURES).filter((name) => SIGNATURES[name] === SIGNATURES[record.name]);
        expect(names).to.have.members(alike);
      }
    }
  });

  it('options of senet.pytorch’s networks do not matter', () => {
    const model = createModel('se_resnet20', { reduction: 4, initWeights: false });
    expect(recognise(allRecords(), shapesOf(model.stateDict()))?.candidates[0]?.name).to.equal('se_resnet20');
    for (const recalibrate of ['none', 'output'] as const) {
      const inception = createModel('se_inception_v3', {
        numClasses: 2,
        auxLogits: false,
        recalibrate,
        initWeights: false,
      });
      const found = recognise(allRecords(), shapesOf(inception.stateDict()));
      expect(found?.candidates[0]?.name).to.equal('se_inception_v3');
    }
  });

  for (const entry of cases) {
    it(`${entry.framework}'s ${entry.model} loads by its path, and answers as there`, async () => {
      const file = temporary.path(`${entry.model}.pt`);
      await tidy(async () => {
        await save(stateOf(entry), file);
        const { network } = await inspectCheckpoint(file);
        expect(network).to.deep.equal({
          model: entry.model,
          candidates: [entry.model],
          family: modelRecord(entry.model).framework,
          framework: entry.framework,
          numClasses: 5,
          inChannels: 3,
          spatialDims: 2,
        });
        const model = await createModel(file);
        model.eval().to('float64');
        manualSeed(entry.seed);
        const output = (await model.forward(randn(entry.input).to('float64'))) as Tensor;
        expect(relativeError(numbers(output), entry.logits64)).to.be.at.most(1e-10);
        model.dispose();
      });
    });

    it(`a key of ${entry.framework}'s ${entry.model} too many, or too few, is an error that lists it`, () => {
      tidy(() => {
        const state = new Map(entriesOf(entry).map(([key, shape]) => [key, ones(shape)]));
        const model = createModel(entry.model, { numClasses: 5, initWeights: false });
        state.set('more.weight', ones([1]));
        expect(() => model.loadStateDict(state)).to.throw(/unexpected \(1\): more\.weight/);
        state.delete('more.weight');
        const [some] = [...state.keys()].filter((key) => key.endsWith('bias'));
        state.delete(some as string);
        expect(() => model.loadStateDict(state)).to.throw(/missing \(1\): /);
        model.dispose();
      });
    });
  }

  for (const { framework } of cases.filter(({ framework }, i) => cases[i - 1]?.framework !== framework)) {
    it(`${framework}'s keys load below DataParallel's prefix into the network that is named, head and all`, async () => {
      const file = temporary.path('wrapped.pt');
      const entry = cases.find((one) => one.framework === framework) as Case;
      await tidy(async () => {
        await save(new Map(entriesOf(entry).map(([key, shape]) => [`module.${key}`, ones(shape)])), file);
        const classifier = await ImageClassifier.load(entry.model, { weights: file });
        expect(classifier.labels).to.have.length(5);
        await classifier.dispose();
      });
    });
  }

  it('two networks of one shape are told apart by metadata, config.json or the published hash, and never guessed', async () => {
    const model = createModel('seresnext101d_32x8d', { numClasses: 2, initWeights: false });
    const folder = temporary.path('alike');
    mkdirSync(folder);
    const file = path.join(folder, 'weights.safetensors');
    // Keys and shapes tell a network; in bytes there is a quarter to write and to hash.
    await tidy(() =>
      save(new Map([...model.stateDict()].map(([key, value]) => [key, value.to('uint8')])), file),
    );
    model.dispose();
    const both = /seresnext101d_32x8d and of seresnextaa101d_32x8d/;
    const error = await expectRejection(
      Promise.resolve(createModel(file)),
      'ERR_SENET_UNKNOWN_WEIGHTS',
      both,
    );
    expect((error as { details?: { candidates?: unknown } }).details?.candidates).to.deep.equal([
      'seresnext101d_32x8d',
      'seresnextaa101d_32x8d',
    ]);
    expect((await inspectCheckpoint(file)).network).to.include({ model: null });
    // Nobody has a published file here: a record that says this one's hash stands for it.
    const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 16);
    const records = allRecords().map((record) =>
      record.name === 'seresnextaa101d_32x8d'
        ? { ...record, weights: record.weights.map((published) => ({ ...published, sha256 })) }
        : record,
    );
    const report = await inspectCheckpoint(file);
    expect((await identify(records, report, file))?.model).to.equal('seresnextaa101d_32x8d');
    const config = path.join(folder, 'config.json');
    writeFileSync(config, '{"architecture": "seresnextaa101d_32x8d"}');
    expect((await inspectCheckpoint(file)).network).to.include({ model: 'seresnextaa101d_32x8d' });
    writeFileSync(config, '[');
    await expectRejection(Promise.resolve(createModel(file)), 'ERR_SENET_UNKNOWN_WEIGHTS', both);
    const state = await load(file);
    await save(state, file, { metadata: { architecture: 'seresnext101d_32x8d' } });
    expect((await inspectCheckpoint(file)).network).to.include({ model: 'seresnext101d_32x8d' });
    state.dispose();
  });

  it('pytorchcv’s published name tells two networks of one shape apart where its hash is the file’s', async () => {
    const model = createModel('pytorchcv_seresnet50', { numClasses: 2, initWeights: false });
    let file = temporary.path('weights.pth');
    await save(model, file);
    const hash = createHash('sha1').update(readFileSync(file)).digest('hex').slice(0, 8);
    const other = hash.replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
    const calledAs = async (name: string) => {
      renameSync(file, temporary.path(name));
      file = temporary.path(name);
      return (await inspectCheckpoint(file)).network?.model;
    };
    expect(await calledAs(`seresnet50-0575-${hash}.pth`)).to.equal('pytorchcv_seresnet50');
    expect(await calledAs(`seresnet50b_cub-2772-${hash}.pth`)).to.equal('pytorchcv_seresnet50b');
    // As it is published: in an archive, and the hash is that of the file in it.
    const archive = temporary.path(`seresnet50-0575-${hash}.pth.zip`);
    writeFileSync(archive, await zipOf({ [`seresnet50-0575-${hash}.pth`]: readFileSync(file) }));
    expect((await inspectCheckpoint(archive)).network?.model).to.equal('pytorchcv_seresnet50');
    const loaded = await createModel(archive);
    expect(recordBehind(loaded)?.name).to.equal('pytorchcv_seresnet50');
    loaded.dispose();
    for (const name of [
      `seresnet50-0575-${other}.pth`,
      `seresnet50-${hash}.pth`,
      `my-seresnet50-0575-${hash}.pth`,
      `sepreresnet50-0575-${hash}.pth`,
      'seresnet50.pth',
    ]) {
      expect(await calledAs(name), name).to.equal(null);
    }
    await expectRejection(
      Promise.resolve(createModel(file)),
      'ERR_SENET_UNKNOWN_WEIGHTS',
      /pytorchcv_seresnet50 and of pytorchcv_seresnet50b/,
    );
    // Of which timm's network of these shapes, with its strides elsewhere, is none.
    await expectRejection(
      ImageClassifier.load('seresnet50', { weights: file, labels: ['a', 'b', 'c'] }),
      'ERR_SENET_STATE_DICT',
      /those of pytorchcv_seresnet50 or pytorchcv_seresnet50b \(pytorchcv\)/,
    );
    model.dispose();
  });

  it('networks for volumes and signals are an error that says so', async () => {
    const monai = cases.find(({ framework }) => framework === 'MONAI') as Case;
    for (const [dims, file] of [
      [3, temporary.path('volumes.pt')],
      [1, temporary.path('signals.pt')],
    ] as const) {
      const state = entriesOf(monai)
        .filter(([key]) => /^layer(0|1\.0)\./.test(key))
        .map(([key, shape]) => {
          const sizes = shape.length === 4 ? [...shape.slice(0, 2), ...shape.slice(-1)] : shape;
          const kernel = shape.length === 4 ? Array<number>(dims - 1).fill(shape[3] as number) : [];
          return [key, ones([...sizes, ...kernel])] as const;
        });
      await save(new Map(state), file);
      const { network } = await inspectCheckpoint(file);
      expect(network).to.deep.include({ model: null, framework: 'MONAI', inChannels: 3, spatialDims: dims });
      const problem = new RegExp(`convolutions are ${dims}-D \\(kernels of ${dims + 2} dimensions\\)`);
      await expectRejection(Promise.resolve(createModel(file)), 'ERR_SENET_UNKNOWN_WEIGHTS', problem);
      await expectRejection(
        ImageClassifier.load('legacy_seresnet50', { weights: file }),
        'ERR_SENET_STATE_DICT',
        problem,
      );
    }
  });

  it('of a key in the spellings of two frameworks one is too many', () => {
    tidy(() => {
      const [mmpretrain] = cases as [Case];
      const state = new Map(entriesOf(mmpretrain).map(([key, shape]) => [key, ones(shape)]));
      state.set('layers.0.0.conv1.weight', ones([64, 64, 1, 1]));
      const model = createModel(mmpretrain.model, { numClasses: 5, initWeights: false });
      expect(() => model.loadStateDict(state)).to.throw(/unexpected \(1\): layers\.0\.0\.conv1\.weight/);
      model.dispose();
    });
  });

  it('weights of another network are one error that names it', async () => {
    const file = temporary.path('legacy.safetensors');
    const legacy = createModel('legacy_seresnet18', { initWeights: false });
    await save(legacy, file);
    const state = await load(file);
    const model = createModel('seresnet18', { initWeights: false });
    expect(() => model.loadStateDict(state)).to.throw(/those of legacy_seresnet18 \(Cadene/);
    await expectRejection(
      ImageClassifier.load('seresnet18', { weights: file }),
      'ERR_SENET_STATE_DICT',
      /legacy_seresnet18/,
    );
    // Its own with other classes are no other network's.
    const other = createModel('legacy_seresnet18', { numClasses: 3, initWeights: false });
    expect(() => other.loadStateDict(state)).to.throw(/^(?![^]*those of)[^]*last_linear/);
    state.dispose();
  });

  it('also where little of it stays when it is looked for the names of the one that was asked for', async () => {
    for (const entry of cases.filter(({ model }) => model.endsWith('seresnet50'))) {
      const file = temporary.path('another.pt');
      await save(new Map(entriesOf(entry).map(([key, shape]) => [key, ones(shape)])), file);
      for (const name of [
        'se_resnet50',
        'seresnet50',
        'legacy_seresnet50',
        'pytorchcv_seresnet50',
      ] as const) {
        if (name === entry.model) continue;
        await expectRejection(
          ImageClassifier.load(name, { weights: file }),
          'ERR_SENET_STATE_DICT',
          new RegExp(`those of ${entry.model} \\(${entry.framework}\\)`),
        );
      }
    }
  });

  it('without a classifier they are the network’s all the same', async () => {
    const file = temporary.path('features.pt');
    const state = createModel('seresnet18', { initWeights: false }).stateDict();
    for (const key of ['fc.weight', 'fc.bias']) state.delete(key);
    await save(state, file);
    expect((await inspectCheckpoint(file)).network).to.include({ model: 'seresnet18', numClasses: null });
    const model = (await createModel(file)) as unknown as ClassifierModel;
    expect(model.getClassifier()).to.be.instanceOf(Identity);
    model.dispose();
    await expectRejection(ImageClassifier.load(file as WeightsPath), 'ERR_SENET_LABELS', /512 features/);
  });

  it('what no network has is an error that says so', async () => {
    const file = temporary.path('other.pt');
    await save(new Map([['a.weight', ones([2])]]), file);
    expect((await inspectCheckpoint(file)).network).to.equal(null);
    await expectRejection(
      Promise.resolve(createModel(file)),
      'ERR_SENET_UNKNOWN_WEIGHTS',
      /of no network that the library has/,
    );
    const strange = createModel('seresnet18', { initWeights: false }).stateDict();
    strange.set('layer1.0.more', tensor([1]));
    await save(strange, file);
    expect((await inspectCheckpoint(file)).network).to.deep.include({
      model: null,
      candidates: [],
      framework: 'timm',
    });
    await expectRejection(ImageClassifier.load(file), 'ERR_SENET_UNKNOWN_WEIGHTS', /keys as timm/);
    await expectRejection(
      Promise.resolve(createModel(temporary.path('none.pt'))),
      'ERR_SENET_FILE_NOT_FOUND',
    );
  });

  it('other classes and channels are adapted as timm does it', async () => {
    const file = temporary.path('adapted.safetensors');
    manualSeed(3);
    const model = createModel('seresnet18', { numClasses: 4 });
    await save(model, file);
    const stem = numbers(model.stateDict().get('conv1.weight') as Tensor);
    const at = (out: number, channel: number): number => stem[(out * 3 + channel) * 49] as number;
    const grey = await createModel(file, { inChannels: 1, numClasses: 7 });
    expect(grey.getClassifier()).to.include({ outFeatures: 7 });
    expect(
      numbers(grey.getClassifier().namedParameters()[0]?.[1] as Tensor).some((value) => value !== 0),
    ).to.equal(true);
    const summed = numbers(grey.stateDict().get('conv1.weight') as Tensor);
    expect(summed[49]).to.be.closeTo(at(1, 0) + at(1, 1) + at(1, 2), 1e-6);
    const five = numbers(
      (await createModel(file, { inChannels: 5 })).stateDict().get('conv1.weight') as Tensor,
    );
    expect(five[(1 * 5 + 4) * 49]).to.be.closeTo((at(1, 1) * 3) / 5, 1e-6);
    await save(grey, file);
    await expectRejection(
      Promise.resolve(createModel(file, { inChannels: 3 })),
      'ERR_SENET_STATE_DICT',
      /1 channels cannot be adapted to 3/,
    );
  });
});

describe('convertWeights', function () {
  this.timeout(120_000);
  let temporary: Temporary;
  before(() => {
    temporary = new Temporary();
  });
  after(() => temporary.cleanUp());

  it('writes a file that needs nothing else', async () => {
    const [entry] = cases as [Case];
    const [from, to] = [temporary.path('from.pt'), temporary.path('to.safetensors')];
    const labels = ['a', 'b', 'c', 'd', 'e'];
    await tidy(async () => {
      await save(stateOf(entry), from);
      const converted = await convertWeights(from, to, { labels });
      expect(converted).to.deep.equal({ model: 'seresnet50', tensors: 384, numClasses: 5, labels: 5 });
      const { metadata, network } = await inspectCheckpoint(to);
      expect(metadata).to.include({ model: 'seresnet50', labels: JSON.stringify(labels) });
      expect(JSON.parse(metadata.preprocessing as string)).to.deep.equal(
        modelRecord('seresnet50').preprocessing,
      );
      expect(network).to.include({ framework: 'timm', model: 'seresnet50' });
      const [own, given] = [await load(to), await load(from)];
      expect([...own.keys()].sort()).to.deep.equal(
        [...createModel('seresnet50', { initWeights: false }).stateDict().keys()].sort(),
      );
      const [a, b] = [
        own.get('layer1.0.se.fc1.weight'),
        given.get('backbone.layer1.0.se_layer.conv1.conv.weight'),
      ];
      expect(ops.call('aten::equal', a, b)).to.equal(true);
      const classifier = await ImageClassifier.load(to);
      expect(classifier.labels).to.deep.equal(labels);
      await classifier.dispose();
    });
  });

  it('refuses labels of another number, an output that exists, one of another format; writes nothing then', async () => {
    const from = temporary.path('small.pt');
    await save(createModel('se_resnet20', { initWeights: false }), from);
    const to = temporary.path('small.safetensors');
    await expectRejection(convertWeights(from, to, { labels: ['a'] }), 'ERR_SENET_LABELS');
    await expectRejection(convertWeights(from, temporary.path('small.onnx')), 'ERR_SENET_ARG_RANGE');
    expect(await convertWeights(from, temporary.path('small.SAFETENSORS'))).to.include({ labels: null });
    await convertWeights(from, to);
    await expectRejection(convertWeights(from, to), 'ERR_SENET_FILE', /exists/);
    await convertWeights(from, to, { overwrite: true });
    renameSync(to, from);
    await expectRejection(
      convertWeights(from, to, { model: 'se_resnet32' }),
      'ERR_SENET_STATE_DICT',
      /se_resnet20/,
    );
    await expectRejection(inspectCheckpoint(to), 'ERR_SENET_FILE_NOT_FOUND');
  });
});
