/**
 * Networks by timm's names, with weights from the Hugging Face hub through the cache that Python shares, and from timm's
 * releases; against local servers.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  createModel,
  ImageClassifier,
  inspectCheckpoint,
  listModels,
  manualSeed,
  modelRecord,
  ops,
  save,
  tidy,
  trainFromSettings,
  type ClassifierModel,
  type ModelName,
  type ProgressOption,
  type Tensor,
} from '../../lib';
import { fetchFromHub, hubFolder } from '../../lib/hub/hugging-face';
import { adaptWeights } from '../../lib/models/adapt-weights';
import { findAmong } from '../../lib/models/find-weights';
import { allRecords, parseName } from '../../lib/models/registry';
import { timmPreprocessing } from '../../lib/models/timm-weights';
import { decodeImage } from '../support/decode';
import { preprocess, toPixels } from '../../lib/vision/preprocessing';
import { expectRejection, expectThrow } from '../support/errors';
import { startServer } from '../support/http-server';
import { startHub, type HubServer } from '../support/hub-server';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';

const NAMES = [
  'HF_HUB_CACHE',
  'HF_HOME',
  'HF_ENDPOINT',
  'HF_TOKEN',
  'HF_HUB_OFFLINE',
  'SENET_OFFLINE',
  'XDG_CACHE_HOME',
];
const OTHERS = ['TORCH_HOME', 'SENET_WEIGHTS_MIRROR'];
const REPOSITORY = 'timm/seresnext26t_32x4d.bt_in1k';
const quiet = { progress: false } as const;

type Row = readonly [
  ...[string, string, string | null, string | null, number, number | null, number, number | null],
  ...['bilinear' | 'bicubic', number, string],
];

describe('published weights of timm', () => {
  const file = path.join(__dirname, '..', 'fixtures', 'zoo', 'pretrained.json');
  const { tags, adapted, pixels } = JSON.parse(readFileSync(file, 'utf8')) as {
    pixels: [
      size: number,
      cropPct: number,
      interpolation: 'bilinear' | 'bicubic',
      short: number,
      sha256: string,
    ][];
    tags: Row[];
    adapted: Record<string, number[]>;
  };

  it('are timm’s, tag by tag, the usual one first', () => {
    const ours = allRecords()
      .filter(({ weights }) => weights.some(({ location }) => !('bundled' in location)))
      .filter(({ name }) => !name.startsWith('se_'));
    expect(ours.map(({ name }) => name)).to.have.members([...new Set(tags.map(([name]) => name))]);
    for (const { name, weights } of ours) {
      const own = tags.filter(([model]) => model === name);
      expect(weights.map((one) => one.name)).to.deep.equal(own.map(([, tag]) => tag));
      for (const [index, published] of weights.entries()) {
        const [, , hub, url, size, testSize, cropPct, testCropPct, interpolation, classes, licence] = own[
          index
        ] as Row;
        const { location, preprocessing, testPreprocessing } = published;
        expect('hub' in location ? location.hub : null).to.equal(hub);
        expect('url' in location ? location.url : null).to.equal(url);
        expect(published.sha256).to.equal(/-([0-9a-f]{8,})\.pth$/.exec(url ?? '')?.[1] ?? null);
        expect(published.licence.toLowerCase()).to.equal(licence);
        expect(published.numClasses ?? 1000).to.equal(classes);
        const usual = { size: Math.floor(size / cropPct), crop: [size, size], interpolation };
        expect(preprocessing).to.deep.include({
          ...usual,
          mean: [0.485, 0.456, 0.406],
          std: [0.229, 0.224, 0.225],
        });
        if (testSize === null) expect(testPreprocessing).to.equal(undefined);
        else {
          const short = Math.floor(testSize / (testCropPct ?? cropPct));
          expect(testPreprocessing).to.deep.include({
            size: short,
            crop: [testSize, testSize],
            interpolation,
          });
        }
      }
    }
    expect(listModels({ pretrained: true })).to.include.members(ours.map(({ name }) => name));
  });

  for (const [size, cropPct, interpolation, short, bytes] of pixels) {
    it(`see the pixels of timm's transform at ${size} of ${cropPct}, ${interpolation}`, async () => {
      const record = timmPreprocessing(size, cropPct, interpolation);
      expect(record.size).to.equal(short);
      const image = await decodeImage(path.join(__dirname, '..', 'fixtures', 'images', 'photo.jpg'));
      const values = await tidy(async () => {
        const x = await preprocess(await toPixels(image), { ...record, mean: [0], std: [1] });
        expect(x.shape).to.deep.equal([1, 3, size, size]);
        return x.permute([0, 2, 3, 1]).contiguous().toTypedArray() as Float32Array;
      });
      const recorded = [...Buffer.from(bytes, 'base64')];
      expect(recorded.map((_, index) => Math.round((values[197 * index] as number) * 255))).to.deep.equal(
        recorded,
      );
    });
  }

  it('adapt the convolution of the image as timm', () => {
    const model = createModel('seresnet18', { initWeights: false });
    for (const [channels, expected] of Object.entries(adapted)) {
      const state = model.stateDict();
      const other = createModel('seresnet18', { inChannels: Number(channels), initWeights: false });
      const weight = ops.call(
        'aten::reshape',
        ops.call('aten::arange', 6, { dtype: 'float32' }),
        [2, 3, 1, 1],
      ) as Tensor;
      state.set('conv1.weight', weight);
      const { state: made } = adaptWeights(modelRecord('seresnet18'), state, other);
      const values = numbers(made.get('conv1.weight') as Tensor);
      expect(values.map(Math.fround)).to.deep.equal(expected.map(Math.fround));
      other.dispose();
    }
    model.dispose();
  });

  it('are meant by names with tags, and by timm’s earlier names', () => {
    expect(parseName('seresnet50.ra2_in1k', 'x')).to.deep.include({ kind: 'model' });
    const former = parseName('gluon_seresnext50_32x4d', 'x');
    expect(former?.kind === 'model' && former.published).to.include({
      name: 'gluon_in1k',
      model: 'seresnext50_32x4d',
    });
    expect(parseName('seresnext26tn_32x4d', 'x')).to.deep.include({ published: null });
    expectThrow(
      () => parseName('seresnet50.a9_in1k', 'x'),
      'ERR_SENET_ARG_RANGE',
      /published are a1_in1k, a2_in1k/,
    );
    expect(parseName('hf_hub:timm/x@v1', 'x')).to.deep.equal({
      kind: 'hub',
      repository: 'timm/x',
      revision: 'v1',
    });
    for (const bad of ['hf-hub:', 'hf-hub:a/b/c', 'hf-hub:../x', 'hf-hub:a b'])
      expectThrow(() => parseName(bad, 'x'), 'ERR_SENET_ARG_RANGE', /repository of the hub/);
    for (const bad of ['hf-hub:a/b@', 'hf-hub:a/b@x@y', 'hf-hub:a/b@../x'])
      expectThrow(() => parseName(bad, 'x'), 'ERR_SENET_ARG_RANGE', /x: expected a revision/);
    expectThrow(() => parseName('local-dir:', 'x'), 'ERR_SENET_ARG_RANGE', /expected a folder/);
    expectThrow(() => parseName('nothing', 'x'), 'ERR_SENET_UNKNOWN_MODEL', /x: no model is named 'nothing'/);
    // As in timm, a tag alone draws initial weights, for its classes.
    expect(createModel('legacy_seresnet18.in1k', { initWeights: false })).to.have.property('layer0');
    const large = createModel('seresnextaa101d_32x8d.sw_in12k', { initWeights: false });
    expect(large.getClassifier()).to.include({ outFeatures: 11_821 });
    large.dispose();
  });

  it('are not meant by a tag and another one beside it', async () => {
    await expectRejection(
      createModel('seresnet50.a1_in1k', { pretrained: 'ra2_in1k' }),
      'ERR_SENET_ARG_RANGE',
      /'seresnet50\.a1_in1k' says the weights already, got 'ra2_in1k'/,
    );
    await expectRejection(
      findAmong(
        allRecords(),
        { subject: modelRecord('seresnet50'), weights: 'seresnet152d.ra2_in1k' },
        {},
        'x',
      ),
      'ERR_SENET_ARG_RANGE',
      /they are of seresnet152d/,
    );
    await expectRejection(
      findAmong(allRecords(), { subject: null, weights: 'ra2_in1k' }, {}, 'x'),
      'ERR_SENET_ARG_RANGE',
      /they are of seresnet50, seresnet152d,.*NETWORK\.NAME/,
    );
  });

  it('for channels that timm does not adapt are refused', () => {
    const six = createModel('seresnet18', { inChannels: 6, initWeights: false });
    const one = createModel('seresnet18', { inChannels: 1, initWeights: false });
    expectThrow(
      () => adaptWeights(modelRecord('seresnet18'), six.stateDict(), one),
      'ERR_SENET_STATE_DICT',
      /weights for 6 channels cannot be adapted to 1/,
    );
  });
});

describe('the Hugging Face hub', function () {
  this.timeout(120_000);
  let temporary: Temporary;
  let hub: HubServer;
  const before_ = new Map<string, string | undefined>();

  before(() => {
    for (const name of [...NAMES, ...OTHERS]) before_.set(name, process.env[name]);
  });
  beforeEach(async () => {
    temporary = new Temporary();
    hub = await startHub();
    for (const name of [...NAMES, ...OTHERS]) Reflect.deleteProperty(process.env, name);
    process.env.HF_ENDPOINT = hub.url;
    process.env.HF_HOME = temporary.path('home');
    process.env.TORCH_HOME = temporary.path('torch');
  });
  afterEach(async () => {
    await hub.close();
    temporary.cleanUp();
  });
  after(() => {
    for (const [name, value] of before_) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
  });

  /** A repository with drawn weights. */
  async function publish(repository: string, architecture: ModelName, config: object = {}): Promise<Buffer> {
    manualSeed(1);
    const model = createModel(architecture, { numClasses: 3 } as never) as unknown as ClassifierModel;
    const file = temporary.path('made.safetensors');
    await save(model, file);
    model.dispose();
    const bytes = readFileSync(file);
    hub.files.set(`${repository}/model.safetensors`, bytes);
    hub.files.set(
      `${repository}/config.json`,
      Buffer.from(JSON.stringify({ architecture, num_classes: 3, ...config })),
    );
    return bytes;
  }
  const cached = (repository: string, ...rest: string[]): string =>
    path.join(hubFolder(), `models--${repository.replace('/', '--')}`, ...rest);

  it('keeps its cache where Python does', () => {
    const { HF_HOME: home = '' } = process.env;
    expect(hubFolder()).to.equal(path.join(home, 'hub'));
    process.env.HF_HUB_CACHE = '/elsewhere';
    expect(hubFolder()).to.equal('/elsewhere');
    for (const name of ['HF_HUB_CACHE', 'HF_HOME']) Reflect.deleteProperty(process.env, name);
    process.env.XDG_CACHE_HOME = '/cache';
    expect(hubFolder()).to.equal('/cache/huggingface/hub');
    Reflect.deleteProperty(process.env, 'XDG_CACHE_HOME');
    expect(hubFolder()).to.match(/\/\.cache\/huggingface\/hub$/);
  });

  it('createModel and ImageClassifier take a repository: its network, weights, labels and preprocessing', async () => {
    const cfg = {
      input_size: [3, 32, 32],
      crop_pct: 0.8,
      interpolation: 'bilinear',
      test_input_size: [3, 40, 40],
      test_crop_pct: 1,
    };
    const texts = { n1: 'a cat', n2: 'a dog' };
    const config = { label_names: ['n1', 'n2', 'n3'], label_descriptions: texts, pretrained_cfg: cfg };
    const bytes = await publish('someone/tiny', 'pytorchcv_seresnet20', config);
    const model = await createModel('hf-hub:someone/tiny', quiet);
    expect(model.getClassifier()).to.include({ outFeatures: 3 });
    const digest = createHash('sha256').update(bytes).digest('hex');
    const pointer = cached('someone/tiny', 'snapshots', hub.commit, 'model.safetensors');
    expect(readlinkSync(pointer)).to.equal(`../../blobs/${digest}`);
    expect(readFileSync(cached('someone/tiny', 'refs', 'main'), 'utf8')).to.equal(hub.commit);
    expect(readFileSync(pointer).equals(bytes)).to.equal(true);
    const classifier = await ImageClassifier.load('hf-hub:someone/tiny', quiet);
    expect(classifier.labels).to.deep.equal(['a cat', 'a dog', 'n3']);
    expect(classifier.preprocessing).to.deep.include({ size: 40, crop: [32, 32], interpolation: 'bilinear' });
    await classifier.dispose();
    const larger = await ImageClassifier.load('hf-hub:someone/tiny', { ...quiet, useTestSize: true });
    expect(larger.preprocessing).to.deep.include({ size: 40, crop: [40, 40] });
    await larger.dispose();
    // Weights are fetched once.
    expect(hub.blobRequests.filter(({ method }) => method === 'GET')).to.have.length(1);
    const other = await createModel('hf-hub:someone/tiny', { ...quiet, numClasses: 7, inChannels: 1 });
    expect(other.getClassifier()).to.include({ outFeatures: 7 });
  });

  it('a folder is taken as it lies there, with config.json or by its keys', async () => {
    await publish('x/y', 'pytorchcv_seresnet20');
    const folder = temporary.path('folder');
    mkdirSync(folder);
    await expectRejection(
      Promise.resolve(createModel(`local-dir:${folder}`)),
      'ERR_SENET_FILE_NOT_FOUND',
      /model\.safetensors/,
    );
    writeFileSync(path.join(folder, 'model.safetensors'), hub.files.get('x/y/model.safetensors') as Buffer);
    expect((await createModel(`local-dir:${folder}`)).getClassifier()).to.include({ outFeatures: 3 });
    const config = path.join(folder, 'config.json');
    writeFileSync(config, '{"architecture": "vit_base"}');
    await expectRejection(
      Promise.resolve(createModel(`local-dir:${folder}`)),
      'ERR_SENET_UNKNOWN_MODEL',
      /vit_base/,
    );
    const squashed = {
      architecture: 'pytorchcv_seresnet20',
      pretrained_cfg: { input_size: [3, 32, 32], crop_mode: 'squash' },
    };
    writeFileSync(config, JSON.stringify(squashed));
    await expectRejection(
      ImageClassifier.load(`local-dir:${folder}`),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /crop_mode.*squash/,
    );
    // Without images it does not matter.
    expect((await createModel(`local-dir:${folder}`)).getClassifier()).to.include({ outFeatures: 3 });
    expect(hub.requests).to.deep.equal([]);
  });

  /** A data set of two classes. */
  function makePhotos(): string {
    const photo = path.join(__dirname, '..', 'fixtures', 'images', 'photo.jpg');
    const data = temporary.path('photos');
    for (const label of ['cats', 'dogs']) {
      mkdirSync(path.join(data, label), { recursive: true });
      for (let i = 0; i < 4; i++) copyFileSync(photo, path.join(data, label, `${i}.jpg`));
    }
    return data;
  }

  /** A folder with drawn weights of a small network. */
  async function makeFolder(options: object, config: object): Promise<string> {
    const folder = temporary.path('made');
    mkdirSync(folder, { recursive: true });
    await save(createModel('pytorchcv_seresnet20', options), path.join(folder, 'model.safetensors'));
    writeFileSync(
      path.join(folder, 'config.json'),
      JSON.stringify({ architecture: 'pytorchcv_seresnet20', ...config }),
    );
    return `local-dir:${folder}`;
  }

  it("ImageNet's classes have its labels where the tag says so, and others their numbers", async () => {
    for (const [tag, first] of [
      ['a1_in1k', 'tench'],
      ['sw_in12k_ft_in1k_288', 'tench'],
      ['sw_in12k', '0'],
    ] as const) {
      const name = await makeFolder({ numClasses: 1000 }, { num_classes: 1000, pretrained_cfg: { tag } });
      const classifier = await ImageClassifier.load(name);
      expect(classifier.labels[0]).to.equal(first);
      await classifier.dispose();
    }
  });

  it('a network for grey images has the mean and the deviation of one channel', async () => {
    const cfg = { input_size: [1, 28, 28], mean: [0.5], std: [0.25], crop_pct: 1 };
    const name = await makeFolder({ numClasses: 3, inChannels: 1 }, { num_classes: 3, pretrained_cfg: cfg });
    const classifier = await ImageClassifier.load(name);
    const expected = { channels: 'grey', mean: [0.5], std: [0.25], size: 28, crop: [28, 28] };
    expect(classifier.preprocessing).to.deep.include(expected);
    await classifier.dispose();
    const wrong = await makeFolder({ inChannels: 1 }, { pretrained_cfg: { ...cfg, std: [1, 1, 1] } });
    await expectRejection(
      ImageClassifier.load(wrong),
      'ERR_SENET_CHECKPOINT_FORMAT',
      /std: expected one number/,
    );
  });

  it('options that no network has are refused before anything is fetched', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    await expectRejection(
      Promise.resolve(createModel('hf-hub:someone/tiny', { ...quiet, num_classes: 3 } as never)),
      'ERR_SENET_UNKNOWN_OPTION',
      /did you mean 'numClasses'/,
    );
    expect(hub.requests).to.deep.equal([]);
  });

  it('weights are those of the commit whose config.json was read, and its name is written once', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    let asked = 0; // another commit with each question
    Object.defineProperty(hub, 'commit', { get: () => (++asked).toString(16).padStart(40, '0') });
    await createModel('hf-hub:someone/tiny', quiet);
    const [commit, ...others] = readdirSync(cached('someone/tiny', 'snapshots'));
    expect(others).to.deep.equal([]);
    expect(readdirSync(cached('someone/tiny', 'snapshots', commit as string))).to.have.members([
      'config.json',
      'model.safetensors',
    ]);
    // A cache for reading alone serves: a commit that is known is not written anew.
    Object.defineProperty(hub, 'commit', { value: commit });
    const before = statSync(cached('someone/tiny', 'refs', 'main')).ino;
    await createModel('hf-hub:someone/tiny', quiet);
    expect(statSync(cached('someone/tiny', 'refs', 'main')).ino).to.equal(before);
    // And several at once write it without disturbing each other.
    Object.defineProperty(hub, 'commit', { value: 'e'.repeat(40) });
    await Promise.all([1, 2, 3, 4].map(() => fetchFromHub('someone/tiny', 'config.json', quiet)));
    expect(readdirSync(cached('someone/tiny', 'refs'))).to.deep.equal(['main']);
  });

  it('a pickle that Python fetched is used, offline and out of reach', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    const config = hub.files.get('someone/tiny/config.json') as Buffer;
    const snapshot = cached('someone/tiny', 'snapshots', 'a'.repeat(40));
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(path.join(snapshot, 'config.json'), config);
    await save(createModel('pytorchcv_seresnet20', { numClasses: 3 }), path.join(snapshot, 'weights.pt'));
    renameSync(path.join(snapshot, 'weights.pt'), path.join(snapshot, 'pytorch_model.bin'));
    mkdirSync(cached('someone/tiny', 'refs'));
    writeFileSync(cached('someone/tiny', 'refs', 'main'), 'a'.repeat(40));
    process.env.HF_HUB_OFFLINE = '1';
    expect((await createModel('hf-hub:someone/tiny', quiet)).getClassifier()).to.include({ outFeatures: 3 });
    expect(hub.requests).to.deep.equal([]);
    Reflect.deleteProperty(process.env, 'HF_HUB_OFFLINE');
    process.env.HF_ENDPOINT = 'http://127.0.0.1:9';
    expect((await createModel('hf-hub:someone/tiny', quiet)).getClassifier()).to.include({ outFeatures: 3 });
  });

  it('what Python fetched is used, and offline nothing is asked', async () => {
    const bytes = await publish('someone/tiny', 'pytorchcv_seresnet20');
    const commit = 'a'.repeat(40);
    for (const [name, content] of [
      ['model.safetensors', bytes],
      ['config.json', hub.files.get('someone/tiny/config.json') as Buffer],
    ] as const) {
      const blob = createHash('sha256').update(content).digest('hex');
      mkdirSync(cached('someone/tiny', 'blobs'), { recursive: true });
      mkdirSync(cached('someone/tiny', 'snapshots', commit), { recursive: true });
      writeFileSync(cached('someone/tiny', 'blobs', blob), content);
      symlinkSync(`../../blobs/${blob}`, cached('someone/tiny', 'snapshots', commit, name));
    }
    mkdirSync(cached('someone/tiny', 'refs'));
    writeFileSync(cached('someone/tiny', 'refs', 'main'), commit);
    process.env.HF_HUB_OFFLINE = '1';
    await createModel('hf-hub:someone/tiny', quiet);
    await createModel(`hf-hub:someone/tiny@${commit}`, quiet);
    expect(hub.requests).to.deep.equal([]);
    await expectRejection(
      Promise.resolve(createModel('hf-hub:someone/other', quiet)),
      'ERR_SENET_OFFLINE',
      /HF_HUB_OFFLINE/,
    );
    // Out of reach, the cache is as good; and a commit never changes.
    Reflect.deleteProperty(process.env, 'HF_HUB_OFFLINE');
    process.env.HF_ENDPOINT = 'http://127.0.0.1:9';
    await createModel('hf-hub:someone/tiny', quiet);
    process.env.HF_ENDPOINT = hub.url;
    for (const status of [429, 503]) {
      hub.status = status;
      await createModel('hf-hub:someone/tiny', quiet);
    }
    hub.status = 200;
    // Within reach, another commit with the same bytes fetches none of them anew.
    await createModel('hf-hub:someone/tiny', quiet);
    expect(hub.blobRequests.filter(({ method }) => method === 'GET')).to.deep.equal([]);
    expect(existsSync(cached('someone/tiny', 'snapshots', hub.commit, 'model.safetensors'))).to.equal(true);
  });

  it('an interrupted download goes on where it ended, and other bytes are refused', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    // What had come and was not on disk yet is lost with the connection.
    hub.cutAfter = 500_000;
    await createModel('hf-hub:someone/tiny', quiet);
    const ranges = hub.blobRequests.map(({ range }) => range ?? 'all');
    expect(ranges.join(' ')).to.match(/^all bytes=[1-9]\d*- bytes=[1-9]\d*-$/);
    hub.cutAfter = Infinity;
    hub.headers = { 'x-linked-etag': `"${'0'.repeat(64)}"` };
    hub.commit = 'd'.repeat(40);
    await expectRejection(Promise.resolve(createModel('hf-hub:someone/tiny', quiet)), 'ERR_SENET_HASH');
    expect(existsSync(cached('someone/tiny', 'blobs', '0'.repeat(64)))).to.equal(false);
  });

  it('a token goes to the hub alone', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    process.env.HF_TOKEN = 'hf_secret';
    await createModel('hf-hub:someone/tiny', quiet);
    expect(new Set(hub.requests.map(({ authorization }) => authorization))).to.deep.equal(
      new Set(['Bearer hf_secret']),
    );
    expect(hub.blobRequests.map(({ authorization }) => authorization)).to.deep.equal([undefined]);
    Reflect.deleteProperty(process.env, 'HF_TOKEN');
    writeFileSync(path.join(process.env.HF_HOME as string, 'token'), 'kept\n');
    hub.requests.length = 0;
    await createModel('hf-hub:someone/tiny', quiet);
    expect(hub.requests[0]?.authorization).to.equal('Bearer kept');
  });

  it('refusals say what to do', async () => {
    const missing = await expectRejection(
      Promise.resolve(createModel('hf-hub:someone/none', quiet)),
      'ERR_SENET_DOWNLOAD',
      /404; there is no such file, revision or repository \(as the hub says\)/,
    );
    expect(missing.details).to.include({ status: 404 });
    hub.status = 403;
    await expectRejection(
      Promise.resolve(createModel('hf-hub:someone/gated', quiet)),
      'ERR_SENET_DOWNLOAD',
      /HF_TOKEN/,
    );
    const aborted = AbortSignal.abort();
    const stopped = Promise.resolve(createModel('hf-hub:a/b', { ...quiet, signal: aborted }));
    await expectRejection(stopped, 'ERR_SENET_ABORTED');
  });

  it('names that a server gives never leave the cache', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20');
    for (const headers of [{ etag: '"../../evil"' }, { 'x-repo-commit': '../../evil' }, { etag: '""' }]) {
      hub.headers = headers;
      await expectRejection(
        fetchFromHub('someone/tiny', 'config.json', quiet),
        'ERR_SENET_DOWNLOAD',
        /not the hub's/,
      );
    }
    await expectRejection(fetchFromHub('a/..', 'config.json', quiet), 'ERR_SENET_ARG_RANGE');
    await expectRejection(
      fetchFromHub('a/b', 'config.json', { ...quiet, revision: '../x' }),
      'ERR_SENET_ARG_RANGE',
    );
    expect(existsSync(hubFolder())).to.equal(false);
  });

  it('tags come from the hub, and from the release where it is out of reach', async () => {
    await publish(REPOSITORY, 'seresnext26t_32x4d');
    const model = await createModel('seresnext26t_32x4d', { pretrained: true, ...quiet });
    expect(model.getClassifier()).to.include({ outFeatures: 3 });
    const named = await createModel('seresnext26t_32x4d.bt_in1k', {
      pretrained: true,
      ...quiet,
      numClasses: 5,
    });
    expect(named.getClassifier()).to.include({ outFeatures: 5 });
    const bytes = hub.files.get(`${REPOSITORY}/model.safetensors`) as Buffer;
    const release = await startServer({ body: bytes });
    try {
      process.env.SENET_WEIGHTS_MIRROR = release.url;
      process.env.HF_ENDPOINT = 'http://127.0.0.1:9';
      process.env.HF_HOME = temporary.path('another');
      await expectRejection(
        createModel('seresnext26t_32x4d', { pretrained: true, ...quiet }),
        'ERR_SENET_DOWNLOAD',
        /127\.0\.0\.1:9[^]*\nThe release neither: .*begins with 569cb627/,
      );
      const options = { pretrained: true, checkHash: false, ...quiet } as const;
      expect((await createModel('seresnext26t_32x4d', options)).getClassifier()).to.include({
        outFeatures: 3,
      });
      expect(release.requests.at(-1)?.path).to.equal('/seresnext26tn_32x4d-569cb627.pth');
      expect(existsSync(temporary.path('torch/hub/checkpoints/seresnext26tn_32x4d-569cb627.pth'))).to.equal(
        true,
      );
    } finally {
      await release.close();
    }
  });

  it('the release is not asked where the hub is forbidden, and stops when it is told to', async () => {
    await publish(REPOSITORY, 'seresnext26t_32x4d');
    const release = await startServer({
      body: hub.files.get(`${REPOSITORY}/model.safetensors`) as Buffer,
      slow: 5,
    });
    const load = (signal?: AbortSignal, progress: ProgressOption = false): Promise<unknown> =>
      createModel('seresnext26t_32x4d', {
        ...{ pretrained: true, checkHash: false, progress },
        ...(signal === undefined ? {} : { signal }),
      });
    try {
      process.env.SENET_WEIGHTS_MIRROR = release.url;
      process.env.HF_HUB_OFFLINE = '1';
      await expectRejection(load(), 'ERR_SENET_OFFLINE', /HF_HUB_OFFLINE/);
      expect(release.requests).to.deep.equal([]);
      Reflect.deleteProperty(process.env, 'HF_HUB_OFFLINE');
      process.env.HF_ENDPOINT = 'http://127.0.0.1:9';
      const controller = new AbortController();
      await expectRejection(
        load(controller.signal, () => controller.abort()),
        'ERR_SENET_ABORTED',
      );
      release.behave({ slow: 0 });
      await load();
      // What lies there already is used.
      process.env.HF_HUB_OFFLINE = '1';
      const requests = release.requests.length;
      await load();
      expect(release.requests).to.have.length(requests);
    } finally {
      await release.close();
    }
  });

  it('a repository is fine-tuned by its name, and the checkpoint is of its network', async () => {
    await publish('someone/tiny', 'pytorchcv_seresnet20', {
      pretrained_cfg: { input_size: [3, 32, 32], crop_pct: 1 },
    });
    const data = makePhotos();
    const output = temporary.path('run');
    const options = { epochs: 1, batchSize: 4, validation: 0.25, ...quiet };
    const { settings } = await trainFromSettings({ data, model: 'hf-hub:someone/tiny', output, ...options });
    expect(settings).to.include({ command: 'finetune', model: 'pytorchcv_seresnet20' });
    const { metadata, network } = await inspectCheckpoint(path.join(output, 'best.safetensors'));
    expect(metadata).to.include({ model: 'pytorchcv_seresnet20', labels: '["cats","dogs"]' });
    expect(network).to.include({ model: 'pytorchcv_seresnet20', numClasses: 2 });
    // Training begins without weights, and so with what a network's name means alone.
    const tag = { data, model: 'legacy_seresnet18.in1k', imageSize: 32, output: temporary.path('tag') };
    const trained = await trainFromSettings({ ...tag, ...options });
    expect(trained.settings).to.include({ command: 'train', model: 'legacy_seresnet18', weights: null });
    for (const [given, words] of [
      [{ command: 'train', model: 'hf-hub:someone/tiny' }, /train: 'hf-hub:someone\/tiny' is of weights/],
      [{ model: 'seresnet50.a1_in1k', weights: 'ra2_in1k' }, /says the weights already/],
      [{ model: 'hf-hub:someone/tiny', weights: 'x.pt' }, /says the weights already/],
    ] as const)
      await expectRejection(
        trainFromSettings({ data, output: temporary.path('none'), ...given, ...options }),
        'ERR_SENET_ARG_RANGE',
        words,
      );
  });

  it('Cadene’s networks come by URL, with their hash', async () => {
    manualSeed(2);
    const file = temporary.path('legacy.pth');
    await save(createModel('legacy_seresnet18'), file);
    const release = await startServer({ body: readFileSync(file) });
    try {
      process.env.SENET_WEIGHTS_MIRROR = release.url;
      await expectRejection(
        createModel('legacy_seresnet18', { pretrained: true, ...quiet }),
        'ERR_SENET_HASH',
        /4bb0ce65/,
      );
      const classifier = await ImageClassifier.load('legacy_seresnet18.in1k', { checkHash: false, ...quiet });
      expect(classifier.labels).to.have.length(1000);
      expect(classifier.preprocessing).to.deep.include({
        size: 256,
        crop: [224, 224],
        interpolation: 'bicubic',
      });
      await classifier.dispose();
      // To fine-tune, a tag says the weights.
      const run = {
        data: makePhotos(),
        output: temporary.path('run'),
        epochs: 1,
        batchSize: 4,
        imageSize: 32,
      };
      const model = 'legacy_seresnet18.in1k';
      const { settings } = await trainFromSettings({ ...run, command: 'finetune', model, ...quiet });
      expect(settings).to.include({ model: 'legacy_seresnet18', weights: 'in1k' });
    } finally {
      await release.close();
    }
  });
});
