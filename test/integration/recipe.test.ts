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
  tensor,
  Trainer,
  trainFromSettings,
  type StartedRun,
  type TrainingOptions,
  type ErrorCode,
  type TrainedRun,
} from '../../lib/index';
import { binding } from '../../lib/native';
import { withDefaults } from '../../lib/train/recipe/option-checks';
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

  it('mixes data sets, holds one fold, and learns at other rates in parts; a resumed run does too', async () => {
    const place = temporary.path('mixed');
    const mixed: TrainingOptions = {
      ...{ data, also: [data], fold: '2/3', reduction: 4, limit: 30, batchSize: 10, seed: 3 },
      ...{ lr: 0.02, lrScale: { fc: 2, 'layer1.0': 0.5 } },
    };
    const first = await trainFromSettings({ ...mixed, epochs: 1, schedule: 'none', output: place });
    const { settings } = first;
    expect(settings).to.deep.include({ also: [data], fold: '2/3', validation: null, lrScale: mixed.lrScale });
    const datasets = await createDatasets({ ...settings, limit: null, labels: undefined });
    expect([datasets.train.length, datasets.validation?.length]).to.deep.equal([667, 333]);
    expect(Object.fromEntries(datasets.taken)).to.include({
      'validation images': 'part 2 of 3 of the training images',
    });
    const again = await trainFromSettings({ resume: path.join(place, first.files.checkpoint) });
    expect(again.settings).to.deep.equal(settings);
    await expectRejection(
      trainFromSettings({ resume: path.join(place, first.files.checkpoint), fold: '1/3' }),
      'ERR_SENET_RESUME',
      /fold/,
    );
  });

  it('refuses a fold that is none, one beside validation, and a rate of a part that is not there', async () => {
    const wrong: [TrainingOptions, ErrorCode, RegExp][] = [
      [{ fold: '0/3' }, 'ERR_SENET_ARG_RANGE', /fold.*K\/N/],
      [{ fold: '4/3' }, 'ERR_SENET_ARG_RANGE', /fold/],
      [{ fold: '1/3', validation: 0.2 }, 'ERR_SENET_ARG_RANGE', /exclude each other/],
      [{ lrScale: { layr1: 2 } }, 'ERR_SENET_ARG_RANGE', /no part 'layr1'; did you mean 'layer1'\?/],
      [{ lrScale: { fc: -1 } }, 'ERR_SENET_ARG_RANGE', /lrScale/],
      [{ also: 'x' as never }, 'ERR_SENET_ARG_TYPE', /also/],
      [{ also: [temporary.path('nowhere')] }, 'ERR_SENET_FILE_NOT_FOUND', /nowhere/],
    ];
    for (const [options, code, message] of wrong)
      await expectRejection(
        trainFromSettings({ data, reduction: 4, epochs: 1, output: temporary.path('wrong'), ...options }),
        code,
        message,
      );
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

  it('balances classes that are rare, in the draws or in the loss', async () => {
    const datasets = await createDatasets({ ...run.settings, validation: null, labels: undefined });
    const { classes } = datasets;
    const labels = datasets.train.labels ?? [];
    expect(labels).to.have.length(60);
    const drawn = createLoaders(
      datasets,
      { size: [32, 32] },
      {
        balance: 'sampler',
        batchSize: 20,
      },
    ).train;
    expect(drawn.stateDict()).to.include({ samples: 60, sampled: 60, shuffle: false });
    // The loss of one epoch at a rate of 0 is that of the first weights: by hand, with weights and without.
    const options: TrainingOptions = {
      ...{ data, reduction: 4, limit: 60, epochs: 1, batchSize: 60, validation: null, seed: 3, lr: 0 },
      ...{ schedule: 'none', augment: [], labelSmoothing: 0 },
    };
    const losses: number[] = [];
    let { settings } = run;
    for (const balance of ['none', 'weights'] as const) {
      const place = temporary.path(`balance-${balance}`);
      const trained = await trainFromSettings({ ...options, balance, output: place });
      ({ settings } = trained);
      expect(settings.balance).to.equal(balance);
      losses.push(trained.history.epochs[0]?.loss ?? NaN);
    }
    manualSeed(3);
    const model = createModel('se_resnet20', { reduction: 4, numClasses: 10 });
    const preprocessing = testPreprocessing(datasets.shape, 32, 3, settings);
    const { train: loader } = createLoaders(datasets, preprocessing, {
      ...{ batchSize: 60, seed: 3, augment: [] },
    });
    for await (const batch of loader) {
      const counts = classes.map((_, label) => labels.filter((one) => one === label).length);
      const weight = tensor(counts.map((count) => (count === 0 ? 0 : 60 / (10 * count))));
      const logits = await model.forward(batch.images);
      for (const [index, loss] of [new CrossEntropyLoss(), new CrossEntropyLoss({ weight })].entries())
        expect((await loss.forward(logits, batch.labels)).item()).to.be.closeTo(
          losses[index] as number,
          1e-4,
        );
    }
    expect(losses[0]).not.to.be.closeTo(losses[1] as number, 1e-3);
    model.dispose();
  });

  it('adds up batches in a step, and ends when no epoch is better', async () => {
    const place = temporary.path('patience');
    const ended = await trainFromSettings({
      ...{ ...given, epochs: 40, lr: 0, ema: null, schedule: 'none', accumulate: 2, patience: 1 },
      output: place,
    });
    const epochs = ended.history.epochs.length;
    expect([ended.stoppedEarly, epochs]).to.deep.equal([true, (ended.best?.epoch ?? 0) + 1]);
    expect(ended.steps).to.equal(2 * epochs); // of three batches
    const report = readFileSync(path.join(place, ended.files.report), 'utf8');
    expect(report).to.contain('40, or 1 without a better one').and.to.contain('20, 2 in a step');
    // The rate of a recipe follows the images of a step.
    const facts = { command: 'train', smallSize: 28, model: { inputSize: 32, anyInputSize: true } } as const;
    const rate = (options: TrainingOptions): number => withDefaults(options, facts).lr;
    expect(rate({ accumulate: 4, batchSize: 32 })).to.equal(rate({ batchSize: 128 }));
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

  it('an optimiser has a group for each factor, the longest path first, and its schedule the rate of each', () => {
    const model = createModel('se_resnet20', { numClasses: 4 });
    for (const parameter of model.getSubmodule('conv1').parameters()) parameter.requiresGrad = false;
    const lrScale = { layer1: 0.5, 'layer1.0': 3, fc: 10, conv1: 2 };
    const { paramGroups } = createOptimizer(model, { optimizer: 'adamw', lr: 0.01, lrScale });
    const namesOf = (params: readonly unknown[]): string[] =>
      model.namedParameters().flatMap(([name, one]) => (params.includes(one) ? [name] : []));
    const found = paramGroups.map(({ lr, params }) => [Number(lr.toFixed(6)), namesOf(params)] as const);
    expect(found.map(([lr]) => lr)).to.deep.equal([0.01, 0.03, 0.005, 0.1]);
    expect(found.flatMap(([, names]) => names)).to.have.lengthOf(model.parameters().length - 1);
    const starts = ['bn1.', 'layer1.0.', 'layer1.1.', 'fc.'];
    for (const [at, start] of starts.entries())
      expect(
        found[at]?.[1].every(
          (name) => at === 0 || name.startsWith(start === 'layer1.1.' ? 'layer1.' : start),
        ),
      ).to.equal(true);
    expect(found[0]?.[1].some((name) => /^(layer1|fc|conv1)\./.test(name))).to.equal(false);
    const optimizer = createOptimizer(model, { lr: 0.01, lrScale });
    createScheduler(optimizer, { lr: 0.01 }, { epochs: 2, stepsPerEpoch: 5 });
    expect(optimizer.paramGroups.map(({ maxLr }) => Number(maxLr?.toFixed(6)))).to.deep.equal([
      0.01, 0.03, 0.005, 0.1,
    ]);
    model.dispose();
  });
});
