/** `trainFromSettings` and its parts: the library trains without the command line, to the same weights as with it. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  configure,
  createDatasets,
  createLoaders,
  createModel,
  createOptimizer,
  createScheduler,
  createTransform,
  CrossEntropyLoss,
  ExponentialMovingAverage,
  load,
  manualSeed,
  Trainer,
  trainFromSettings,
  type StartedRun,
  type TrainingOptions,
  type TrainedRun,
} from '../../lib/index';
import { binding } from '../../lib/native';
import { measurePixels, testPreprocessing } from '../../lib/train/recipe/transforms';
import { CLI } from '../support/built';
import { expectThrow, expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const FIXTURES = path.join(__dirname, '..', 'fixtures');

describe('trainFromSettings', function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  const data = temporary.path('fashion-mnist');
  const cut = temporary.path('cut');
  const { threadsPerWorker } = binding.configuration();
  const given: TrainingOptions = {
    ...{ data, reduction: 4, limit: 60, epochs: 2, batchSize: 20, validation: 0.25, seed: 3 },
    ...{ schedule: 'cosine', optimizer: 'adamw', lr: 0.01, ema: 0.5, mixup: 0.2, augment: ['crop', 'erase'] },
  };
  const args = [
    ...['--reduction', '4', '--limit', '60', '--epochs', '2', '--batch-size', '20', '--validation', '0.25'],
    ...['--schedule', 'cosine', '--optimizer', 'adamw', '--lr', '0.01', '--ema', '0.5', '--mixup', '0.2'],
    ...['--augment', 'crop,erase', '--seed', '3', '--threads', '1'],
  ];
  const bytes = (folder: string, name: string): Buffer =>
    readFileSync(path.join(folder, `${name}.safetensors`));
  const output = temporary.path('library');
  let started: StartedRun;
  let run: TrainedRun;

  before(async () => {
    mkdirSync(data);
    for (const [name, kind] of [
      ['images', 'idx3'],
      ['labels', 'idx1'],
    ] as const)
      cpSync(
        path.join(FIXTURES, `fashion-mnist-500-${name}-${kind}-ubyte.gz`),
        path.join(data, `train-${name}-${kind}-ubyte.gz`),
      );
    configure({ threadsPerWorker: 1 });
    run = await trainFromSettings({ ...given, output, onStart: (begun) => (started = begun) });
  });
  after(() => {
    configure({ threadsPerWorker });
    temporary.cleanUp();
  });

  it('gives the weights of `senet-torch train`, bit for bit', () => {
    const place = temporary.path('command-line');
    const all = [CLI, 'train', data, ...args, '--json', '--output', place];
    const { status, stdout, stderr } = spawnSync(process.execPath, all, { cwd: ROOT, encoding: 'utf8' });
    expect(status, stderr).to.equal(0);
    for (const name of ['best', 'last'])
      expect(bytes(output, name).equals(bytes(place, name)), name).to.equal(true);
    const { settings, files } = JSON.parse(stdout) as TrainedRun;
    expect([settings, files]).to.deep.equal([run.settings, run.files]);
    for (const name of Object.values(files)) expect(existsSync(path.join(output, name)), name).to.equal(true);
  });

  it('says what it begins and what it made', () => {
    expect(started).to.deep.include({ output, trainingImages: 60, validationImages: 60, resumedAt: null });
    expect(started.settings).to.equal(run.settings);
    expect([run.steps, run.history.epochs.length, run.output]).to.deep.equal([6, 2, output]);
  });

  it('its parts, with a Trainer, give these weights too', async () => {
    const { settings } = run;
    const datasets = await createDatasets({ ...settings, labels: undefined });
    const pixels = await measurePixels(datasets.train, 'grey-repeated');
    expect([settings.mean, settings.std]).to.deep.equal([pixels.mean, pixels.std]);
    const preprocessing = testPreprocessing(datasets.shape, settings.imageSize, 3, settings);
    manualSeed(settings.seed);
    const model = createModel('se_resnet20', { reduction: 4, numClasses: 10 });
    const { train, validation } = createLoaders(datasets, preprocessing, settings);
    const optimizer = createOptimizer(model, settings);
    const ema = new ExponentialMovingAverage(model, { decay: 0.5 });
    const length = { epochs: settings.epochs, stepsPerEpoch: train.length };
    await new Trainer({
      ...{
        model,
        train,
        optimizer,
        ...createScheduler(optimizer, settings, length),
        ema,
        epochs: length.epochs,
      },
      ...(validation === null ? {} : { validation }),
      loss: new CrossEntropyLoss({ labelSmoothing: settings.labelSmoothing }),
    }).run();
    const last = await load(path.join(output, 'last.safetensors'));
    for (const [name, tensor] of ema.stateDict())
      expect(tensor.toTypedArray(), name).to.deep.equal(last.get(name)?.toTypedArray());
  });

  it('stops at a signal, and goes on to the same weights with the same options only', async () => {
    const controller = new AbortController();
    const onProgress = (): void => controller.abort();
    const stopped = trainFromSettings({ ...given, output: cut, signal: controller.signal, onProgress });
    await expectRejection(stopped, 'ERR_SENET_ABORTED');
    const resume = path.join(cut, 'checkpoint.pt');
    await expectRejection(
      trainFromSettings({ resume, lr: 0.5 }),
      'ERR_SENET_RESUME',
      /^trainFromSettings: resume: the run was started with \{ lr: 0\.01 \}, not 0\.5/,
    );
    await expectRejection(
      trainFromSettings({ resume, command: 'finetune' }),
      'ERR_SENET_RESUME',
      /with train$/,
    );
    let begun: StartedRun | undefined;
    await trainFromSettings({ ...given, resume, onStart: (at) => (begun = at) });
    expect(begun?.resumedAt).to.deep.equal({ step: 1, epoch: 0 });
    for (const name of ['best', 'last'])
      expect(bytes(cut, name).equals(bytes(output, name)), name).to.equal(true);
  });

  it('refuses with codes, in the words of the library', async () => {
    for (const [options, code, words] of [
      [{}, 'ERR_SENET_ARG_MISSING', /give the data, or \{ resume: CHECKPOINT \}/],
      [{ data, output }, 'ERR_SENET_ARG_RANGE', /holds a run already.*\{ resume: .* \{ overwrite \}/],
      [{ data, mean: [0.5] }, 'ERR_SENET_ARG_MISSING', /\{ mean \} and \{ std \} belong together/],
      [{ data, command: 'finetune' }, 'ERR_SENET_ARG_MISSING', /\{ weights: FILE \} or \{ pretrained \}/],
      [{ data, weights: 'x.pt', reduction: 4 }, 'ERR_SENET_UNKNOWN_OPTION', /reduction: an option of train/],
      [{ data, epochs: 0 }, 'ERR_SENET_ARG_RANGE', /^trainFromSettings: epochs: expected an integer/],
      [{ data, onStart: 3 }, 'ERR_SENET_ARG_TYPE', /onStart: expected a function/],
    ] as const)
      await expectRejection(trainFromSettings(options as TrainingOptions), code, words);
    const model = createModel('se_resnet20');
    expectThrow(() => createOptimizer(model, {} as never), 'ERR_SENET_ARG_MISSING', /lr is required/);
    const optimizer = createOptimizer(model, { lr: 0.1 });
    expectThrow(
      () => createScheduler(optimizer, { lr: 0.1, warmup: 2 }, { epochs: 1, stepsPerEpoch: 2 }),
      ...(['ERR_SENET_ARG_RANGE', /^createScheduler: warmup/] as const),
    );
    expect(
      createScheduler(optimizer, { lr: 0.1, schedule: 'none' }, { epochs: 1, stepsPerEpoch: 2 }),
    ).to.equal(null);
    expectThrow(() => createTransform({}, { augment: ['crop'] }), 'ERR_SENET_ARG_MISSING', /a crop needs/);
    model.dispose();
  });
});
