/**
 * Weights as every caller opens them: what a file and the `config.json` beside it say of the network is heeded or refused,
 * and what is wrong is said before anything is fetched.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  convertWeights,
  createModel,
  ImageClassifier,
  inspectCheckpoint,
  load,
  modelRecord,
  save,
  StateDict,
  trainFromSettings,
  zeros,
  type ModelName,
  type ModelOptions,
  type Preprocessing,
  type Tensor,
} from '../../lib';
import { SIGNATURES } from '../../lib/models/signatures';
import { expectRejection, expectThrow } from '../support/errors';
import { Temporary } from '../support/temporary';

let temporary: Temporary;
before(() => (temporary = new Temporary()));
after(() => temporary.cleanUp());

/** A file of weights of three classes, with metadata. */
async function weightsOf(name: ModelName, metadata: Record<string, string> = {}): Promise<string> {
  const model = createModel(name, { numClasses: 3, initWeights: false } as ModelOptions);
  const file = temporary.path(`${name}.safetensors`);
  await save(model, file, { metadata });
  model.dispose();
  return file;
}

/** A folder of two classes. */
function photosIn(folder: string): string {
  const image = readFileSync(path.join(__dirname, '..', 'fixtures', 'images', 'grey.png'));
  for (const name of ['a', 'b']) {
    mkdirSync(path.join(folder, name), { recursive: true });
    writeFileSync(path.join(folder, name, '0.png'), image);
  }
  return folder;
}

/** A folder with weights and what `config.json` says. */
async function folderOf(architecture: string, config: object, of: ModelName): Promise<string> {
  const folder = temporary.path(`folder-${architecture}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/model.safetensors`, readFileSync(await weightsOf(of)));
  writeFileSync(`${folder}/config.json`, JSON.stringify({ architecture, num_classes: 3, ...config }));
  return folder;
}

describe('weights of 16 bits with another head', function () {
  this.timeout(60_000);

  it('are one network of their dtype, which computes', async () => {
    for (const dtype of ['float16', 'bfloat16', 'float32'] as const) {
      const half = createModel('seresnet18', { numClasses: 3, initWeights: false }).to(dtype);
      const file = temporary.path(`half-${dtype}.safetensors`);
      await save(half, file);
      half.dispose();
      for (const options of [{ numClasses: 5 }, { numClasses: 5, inChannels: 1 }, { inChannels: 4 }, {}]) {
        const model = await createModel(file, options);
        expect([...new Set(model.parameters().map((parameter) => parameter.dtype))]).to.deep.equal([dtype]);
        const x = zeros([1, options.inChannels ?? 3, 32, 32], { dtype });
        const logits = (await model.eval().forward(x)) as Tensor;
        expect(logits.shape).to.deep.equal([1, options.numClasses ?? 3]);
        model.dispose();
      }
    }
  });
});

describe('weights of a network whose keys and shapes another one has', function () {
  this.timeout(60_000);
  const [own, twin] = ['pytorchcv_seresnet50b', 'pytorchcv_seresnet50'] as const;
  const said = new RegExp(`says that it is of ${twin}, which has the keys and shapes of ${own} `);

  it('are refused for it wherever weights are loaded, if their file names itself', async () => {
    expect(SIGNATURES[own]).to.equal(SIGNATURES[twin]);
    const file = await weightsOf(twin, { model: twin });
    const state = await load(file);
    const model = createModel(own, { numClasses: 3, initWeights: false });
    expectThrow(() => model.loadStateDict(state), 'ERR_SENET_STATE_DICT', said);
    const data = { data: photosIn(temporary.path('photos')), validation: null };
    for (const begin of [
      () => ImageClassifier.load(own, { weights: file }),
      () => ImageClassifier.load(model, { weights: file }),
      () => convertWeights(file, temporary.path('converted.safetensors'), { model: own }),
      () => trainFromSettings({ ...data, output: temporary.path('run'), model: own, weights: file }),
    ])
      await expectRejection(begin(), 'ERR_SENET_STATE_DICT', said);
    const named = createModel(twin, { numClasses: 3, initWeights: false });
    named.loadStateDict(state);
    model.loadStateDict(new StateDict(state)); // which says of no file
    for (const made of [model, named]) made.dispose();
    state.dispose();
  });

  it('are refused if the config.json beside them names them', async () => {
    const folder = await folderOf(twin, {}, twin);
    await expectRejection(
      ImageClassifier.load(own, { weights: `local-dir:${folder}` }),
      'ERR_SENET_STATE_DICT',
      said,
    );
    const model = await createModel(`local-dir:${folder}`);
    expectThrow(
      () => model.loadStateDict(new StateDict([], new Map(), new Map([['model', own]]))),
      'ERR_SENET_STATE_DICT',
      /says that it is of pytorchcv_seresnet50b/,
    );
    model.dispose();
  });
});

describe('config.json beside weights', () => {
  const NAME = 'pytorchcv_seresnet20';
  const preprocessingOf = async (fields: object): Promise<Preprocessing> => {
    const folder = await folderOf(NAME, { pretrained_cfg: fields }, NAME);
    const classifier = await ImageClassifier.load(`local-dir:${folder}`);
    await classifier.dispose();
    return classifier.preprocessing;
  };

  it('is heeded without a size, which is the network’s then', async () => {
    const half = [0.5, 0.5, 0.5];
    const said = await preprocessingOf({ mean: half, std: half, interpolation: 'bilinear', crop_pct: 0.8 });
    expect(said).to.deep.include({
      mean: half,
      std: half,
      interpolation: 'bilinear',
      size: 40,
      crop: [32, 32],
    });
    await expectRejection(
      preprocessingOf({ crop_mode: 'squash' }),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /crop_mode: expected 'center'.*got 'squash'/,
    );
    expect(await preprocessingOf({ tag: 'mine' })).to.deep.equal(modelRecord(NAME).preprocessing);
  });

  it('says how images are prepared to fine-tune the network', async () => {
    const half = [0.5, 0.5, 0.5];
    const fields = { input_size: [3, 40, 40], crop_pct: 0.8, mean: half, std: half };
    const folder = await folderOf(NAME, { pretrained_cfg: fields }, NAME);
    const common = { data: photosIn(temporary.path('photos')), validation: null, epochs: 1, batchSize: 2 };
    const prepared = { imageSize: 40, resize: 50, interpolation: 'bicubic', mean: half, std: half };
    const output = temporary.path('finetuned');
    const { settings } = await trainFromSettings({ ...common, output, model: `local-dir:${folder}` });
    expect(settings).to.deep.include(prepared);
    const { metadata } = await inspectCheckpoint(`${output}/last.safetensors`);
    expect(JSON.parse(metadata.preprocessing as string)).to.deep.include({
      ...{ size: 50, crop: [40, 40], interpolation: 'bicubic', mean: half, std: half },
    });
    const other = await trainFromSettings({
      ...{ ...common, output, overwrite: true, model: `local-dir:${folder}`, imageSize: 32 },
    });
    expect(other.settings).to.deep.include({ ...prepared, imageSize: 32, resize: 40 });
  });

  it('gives the network its arguments, and refuses those that it has not', async () => {
    const named = 'legacy_seresnet18';
    const folder = await folderOf(named, { model_args: { in_chans: 3, drop_rate: 2 } }, named);
    await expectRejection(
      createModel(`local-dir:${folder}`),
      'ERR_SENET_ARG_RANGE',
      /legacy_seresnet18: dropRate: expected a number from 0 to 1, got 2/,
    );
    const model = await createModel(`local-dir:${folder}`, { dropRate: 0.1 } as object);
    model.dispose();
    for (const [args, code, words] of [
      [
        { output_stride: 16 },
        'ERR_SENET_CHECKPOINT_UNSUPPORTED',
        /model_args: 'output_stride'.*in_chans, num_classes, drop_rate/,
      ],
      [
        { drop_rate: '0.4' },
        'ERR_SENET_CHECKPOINT_FORMAT',
        /model_args: drop_rate: expected a number, got '0\.4'/,
      ],
      [[1], 'ERR_SENET_CHECKPOINT_FORMAT', /model_args: expected an object/],
    ] as const) {
      const bad = await folderOf(named, { model_args: args }, named);
      await expectRejection(createModel(`local-dir:${bad}`), code, words);
    }
    const cifar = await folderOf(NAME, { model_args: { drop_rate: 0.4 } }, NAME);
    await expectRejection(
      createModel(`local-dir:${cifar}`),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /'drop_rate'/,
    );
  });
});

describe('createModel', () => {
  it('rejects and never throws for what gives a Promise', async () => {
    const wrong: object = { foo: 1 };
    for (const begin of [
      () => createModel('/nope.safetensors', wrong),
      () => createModel('./nope', wrong),
      () => createModel('local-dir:/nope', wrong),
      () => createModel('hf-hub:timm/x', wrong),
      () => createModel('se_resnet50', { pretrained: true, ...wrong }),
    ])
      await expectRejection(begin(), 'ERR_SENET_UNKNOWN_OPTION', /foo/);
    for (const begin of [() => createModel('hf-hub:'), () => createModel('local-dir:')])
      await expectRejection(begin(), 'ERR_SENET_ARG_RANGE');
    await expectRejection(createModel('/nope.safetensors'), 'ERR_SENET_FILE_NOT_FOUND');
  });

  it('says what is wrong with an option before it fetches published weights', async () => {
    temporary.environment({
      SENET_OFFLINE: '1',
      HF_HOME: temporary.path('empty'),
      TORCH_HOME: temporary.path('empty'),
    });
    for (const options of [{ dropRate: 2 }, { numClasses: 'a' }, { inChannels: 0 }]) {
      const [name] = Object.keys(options);
      await expectRejection(
        createModel('seresnet50', { pretrained: true, ...options } as { pretrained: true }),
        name === 'numClasses' ? 'ERR_SENET_ARG_TYPE' : 'ERR_SENET_ARG_RANGE',
        new RegExp(`seresnet50: ${name}: expected`),
      );
    }
  });
});
