/**
 * What `train` and `finetune` do: settings from what was typed or from the checkpoint, data, network, optimiser; the
 * run; weights and report at the end. Loads the native build with it.
 */
import { access, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import type { Command } from 'commander';

import type { Device } from '../binding';
import { inspectCheckpoint } from '../checkpoint/inspect';
import { load } from '../checkpoint/load';
import { printable } from '../checkpoint/problems';
import { save } from '../checkpoint/save';
import { StateDict } from '../checkpoint/state-dict';
import { Subset, type Dataset } from '../data/dataset';
import { ImageFolder } from '../data/image-folder';
import { DataLoader } from '../data/loader';
import { Mixup } from '../data/mixup';
import { isSenetError, makeError } from '../errors';
import { ClassifierModel, familyOf } from '../models/classifier-model';
import { channelsIn, createFor, makeModel, readWeights, toFile } from '../models/pretrained';
import { createModel, isModelName, modelRecord, type ModelName } from '../models/registry';
import { findWeights } from '../models/weights';
import { binding } from '../native';
import { CrossEntropyLoss } from '../nn/losses';
import type { Module } from '../nn/module';
import { AdamW } from '../optim/adam';
import { ExponentialMovingAverage } from '../optim/ema';
import type { Optimizer } from '../optim/optimizer';
import { CosineAnnealingLR, OneCycleLR, StepLR, type LRScheduler } from '../optim/schedulers';
import { SGD } from '../optim/sgd';
import { configure, manualSeed, version } from '../tensor/runtime';
import { evaluate, type Evaluation } from '../train/evaluation';
import type { EpochRecord } from '../train/history';
import { pictureOf } from '../train/pictures';
import { duration, renderReport, significant, type ReportedMistake } from '../train/report';
import { Trainer, type TrainingResult } from '../train/trainer';
import {
  disposeTensors,
  readTrainingCheckpoint,
  type TrainingCheckpoint,
} from '../train/training-checkpoint';
import { readLabels } from '../vision/labels';
import { broughtBy, channelsOf, checkImageChannels } from '../vision/network';
import { checkPreprocessing, IMAGENET, PLAIN, recordFor, type Preprocessing } from '../vision/preprocessing';
import {
  count,
  EXIT_INTERRUPTED,
  percent,
  printJson,
  printLine,
  printLines,
  printNote,
  printTable,
  tableLines,
} from './output';
import {
  channelsFor,
  detectDataset,
  measurePixels,
  openData,
  testPreprocessing,
  testTransform,
  trainTransform,
  type OpenedData,
} from './training-data';
import { usualWeights } from './load-classifier';
import {
  checkSameOptions,
  checkSettings,
  parseValidation,
  type TrainingArguments,
  type TrainingSettings,
} from './training-options';
import { ProgressDisplay } from './training-progress';

const FILES = {
  checkpoint: 'checkpoint.pt',
  log: 'log.jsonl',
  best: 'best.safetensors',
  last: 'last.safetensors',
  report: 'report.html',
};
/** As `save` names them until they are whole. */
const UNFINISHED = /^\.(checkpoint\.pt|(best|last)\.safetensors)\.[0-9a-f]{12}\.tmp$/;
const DEFAULT_OUTPUT = 'training';
/** Of the report. */
const MISTAKES = 24;
/** Of loss and accuracy in a run, about: what a chart can show. */
const RECORDS = 400;
/** Images that the optimiser's default learning rate is meant for. */
const USUAL_BATCH = 128;

export async function runTraining(
  command: Command,
  kind: 'train' | 'finetune',
  data: string | undefined,
  given: TrainingArguments,
  signal: AbortSignal,
): Promise<void> {
  if (given.threads !== undefined) configure({ threadsPerWorker: given.threads });
  const resumed = given.resume === undefined ? null : await readTrainingCheckpoint(given.resume);
  try {
    const settings =
      resumed === null ? undefined : resumedSettings(command, kind, data, given.resume as string, resumed);
    const folder = path.resolve(
      given.output ?? (given.resume === undefined ? DEFAULT_OUTPUT : path.dirname(given.resume)),
    );
    const prepared = await prepare(kind, data, given, settings, resumed, signal);
    try {
      await prepareFolder(folder, given, resumed);
      await train(prepared, folder, given, resumed, signal);
    } finally {
      prepared.model.dispose();
    }
  } finally {
    disposeTensors(resumed);
  }
}

function resumedSettings(
  command: Command,
  kind: 'train' | 'finetune',
  data: string | undefined,
  file: string,
  checkpoint: TrainingCheckpoint,
): TrainingSettings {
  const settings = checkSettings(checkpoint.settings, printable(file));
  if (settings.command !== kind) {
    throw makeError(
      'ERR_SENET_RESUME',
      `--resume: this run was started by ${settings.command}: resume it with ${settings.command}`,
    );
  }
  checkSameOptions(command, settings);
  const { threadsPerWorker } = binding.configuration();
  if (threadsPerWorker !== settings.threads) {
    printNote(
      `the run was started with ${count(settings.threads, 'thread')} and goes on with ${threadsPerWorker}: sums round differently (--threads ${settings.threads} would not)`,
    );
  }
  // Where the same data lies may change.
  return data === undefined ? settings : { ...settings, data: path.resolve(data) };
}

interface Prepared {
  readonly settings: TrainingSettings;
  readonly opened: OpenedData;
  readonly preprocessing: Preprocessing;
  readonly model: Module<unknown>;
  readonly device: Device;
}

/** Settings, data and network: of a new run from what was typed, of a resumed one from its checkpoint. */
async function prepare(
  kind: 'train' | 'finetune',
  data: string | undefined,
  given: TrainingArguments,
  started: TrainingSettings | undefined,
  resumed: TrainingCheckpoint | null,
  signal: AbortSignal,
): Promise<Prepared> {
  const device = (given.device ?? 'cpu') as Device;
  if (started !== undefined && resumed !== null) {
    // Names that the data does not have itself.
    if (!(await stat(started.data).catch(() => null)))
      throw makeError(
        'ERR_SENET_FILE_NOT_FOUND',
        `--resume: the data of the run is not at ${printable(started.data, 1000)} any more; say where it lies: senet-torch ${started.command} DATA --resume ...`,
      );
    const named = started.dataset !== 'folder' || started.labels !== null;
    const opened = await openData({ ...started, labels: named ? started.classes : undefined });
    if (opened.classes.join('\0') !== started.classes.join('\0')) {
      throw makeError(
        'ERR_SENET_RESUME',
        `--resume: the run has the classes ${started.classes.slice(0, 8).join(', ')}, and ${printable(started.data)} ${opened.classes.slice(0, 8).join(', ')}`,
      );
    }
    const state = new StateDict(
      resumed.model,
      resumed.model.metadata,
      new Map(Object.entries(started.modelOptions).map(([name, value]) => [name, String(value)])),
    );
    const model = createFor(modelRecord(started.model as ModelName), state);
    const preprocessing = testPreprocessing(opened.shape, started.imageSize, channelsOf(model), started);
    model.to(device);
    freeze(model, started.freeze);
    return { settings: started, opened, preprocessing, model, device };
  }
  return prepareNew(kind, data, given, device, signal);
}

async function prepareNew(
  kind: 'train' | 'finetune',
  data: string | undefined,
  given: TrainingArguments,
  device: Device,
  signal: AbortSignal,
): Promise<Prepared> {
  if (data === undefined)
    throw makeError('ERR_SENET_ARG_MISSING', `${kind}: give the data, or --resume CHECKPOINT`);
  // What was typed wrong is said before anything long begins.
  if (given.model !== undefined) modelRecord(given.model as ModelName);
  const seed = given.seed ?? 0;
  const source = {
    data: path.resolve(data),
    dataset: given.dataset ?? (await detectDataset(data)),
    set: given.set ?? null,
    splits: given.splits ?? true,
    validation: given.validation === undefined ? undefined : parseValidation(given.validation),
    limit: given.limit ?? null,
    seed,
    labels: given.labels === undefined ? undefined : await readLabels(given.labels, '--labels'),
  };
  const opened = await openData(source);
  const classes = opened.classes;
  const base =
    kind === 'finetune'
      ? await networkFromWeights(given, classes.length, seed, signal)
      : newNetwork(given, classes.length, seed);
  const { model } = base;
  try {
    model.to(device);
    const info = modelRecord(base.name);
    const small = opened.shape !== null;
    const imageSize =
      given.imageSize ?? (small && info.anyInputSize ? Math.max(32, opened.shape[1]) : info.inputSize);
    const inChannels = channelsOf(model);
    const pixels = await pixelStatistics(given, opened, inChannels, base.preprocessing);
    const preprocessing = checkPreprocessing(
      testPreprocessing(opened.shape, imageSize, inChannels, pixels),
      PLAIN,
      kind,
    );
    const batchSize = given.batchSize ?? (small ? USUAL_BATCH : 32);
    const epochs = given.epochs ?? (kind === 'train' ? 10 : 5);
    const optimizer = given.optimizer ?? 'sgd';
    const gentle = kind === 'finetune' ? 0.1 : 1;
    const usualRate = optimizer === 'adamw' ? 1e-3 : (0.2 * batchSize) / USUAL_BATCH;
    const frozen = frozenParts(model, given.freeze);
    const settings: TrainingSettings = {
      command: kind,
      data: source.data,
      dataset: source.dataset,
      set: source.set,
      splits: source.splits,
      labels: given.labels === undefined ? null : path.resolve(given.labels),
      validation: opened.chosenValidation,
      limit: source.limit,
      imageSize,
      mean: pixels.mean,
      std: pixels.std,
      augment: given.augment ?? (small ? ['crop', 'flip'] : ['resized-crop', 'flip']),
      mixup: given.mixup ?? null,
      skipCorrupt: given.skipCorrupt ?? false,
      model: base.name,
      modelOptions: base.options,
      weights: base.weights,
      freeze: frozen,
      classes,
      epochs,
      batchSize,
      dropLast: given.dropLast ?? false,
      optimizer,
      lr: given.lr ?? Number((usualRate * gentle).toPrecision(6)),
      momentum: given.momentum ?? 0.9,
      nesterov: given.nesterov ?? true,
      weightDecay: given.weightDecay ?? (optimizer === 'adamw' ? 0.01 : 5e-4),
      schedule: given.schedule ?? 'onecycle',
      warmup: given.warmup ?? 0.25,
      minLr: given.minLr ?? 0,
      stepSize: given.stepSize ?? Math.max(1, Math.round(epochs / 3)),
      gamma: given.gamma ?? 0.1,
      labelSmoothing: given.labelSmoothing ?? 0.05,
      clipGradNorm: given.clipGradNorm ?? null,
      ema: given.ema ?? null,
      precision: given.precision ?? 'float32',
      seed,
      threads: binding.configuration().threadsPerWorker,
    };
    freeze(model, frozen);
    return { settings, opened, preprocessing, model, device };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

async function pixelStatistics(
  given: TrainingArguments,
  { train, shape }: OpenedData,
  inChannels: number,
  brought: Preprocessing | undefined,
): Promise<{ mean: readonly number[]; std: readonly number[] }> {
  const { mean, std } = given;
  if (mean !== undefined && std !== undefined) return { mean, std };
  if (mean !== undefined || std !== undefined)
    throw makeError('ERR_SENET_ARG_MISSING', '--mean and --std belong together: give both or none');
  // Weights expect the statistics that they were trained with; grey ones do not fit colour images.
  const kind = channelsFor(shape, inChannels);
  if (brought?.channels === kind) return brought;
  if (shape === null) return recordFor(IMAGENET, inChannels);
  return measurePixels(train, kind);
}

interface Network {
  readonly model: Module<unknown>;
  readonly name: ModelName;
  readonly options: TrainingSettings['modelOptions'];
  readonly weights: string | null;
  /** What the weights say of their input. */
  readonly preprocessing?: Preprocessing | undefined;
}

function newNetwork(given: TrainingArguments, classes: number, seed: number): Network {
  const name = (given.model ?? 'se_resnet20') as ModelName;
  const { options: known } = modelRecord(name);
  const { reduction, inChannels } = given;
  if (reduction !== undefined && !known.includes('reduction'))
    throw makeError('ERR_SENET_UNKNOWN_OPTION', `--reduction: ${name} has none to choose`);
  const options = {
    ...(reduction === undefined ? {} : { reduction }),
    ...(inChannels === undefined ? {} : { inChannels }),
  };
  manualSeed(seed);
  const wanted = { ...options, numClasses: classes } as Parameters<typeof createModel>[1];
  return { model: createModel(name, wanted), name, options, weights: null };
}

/** The network of the weights with a new head, drawn from the seed. */
async function networkFromWeights(
  given: TrainingArguments,
  classes: number,
  seed: number,
  signal: AbortSignal,
): Promise<Network> {
  const chosen = chooseWeights(given);
  const named = given.model === undefined ? null : (given.model as ModelName);
  const source = await findWeights(chosen, named, 'finetune');
  const file = await toFile(source, {
    checkHash: given.checkHash ?? true,
    progress: process.stderr.isTTY,
    signal,
  });
  const published = typeof source === 'object' ? source : undefined;
  const name = named ?? published?.model ?? (await inspectCheckpoint(file)).metadata.model;
  if (name === undefined || !isModelName(name))
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${printable(file)} does not say which model it belongs to: add --model NAME`,
    );
  const record = modelRecord(name);
  const state = await readWeights(file, record, given, signal);
  try {
    const { preprocessing } = await broughtBy(state, published, file);
    const inChannels = checkImageChannels(channelsIn(record, state), printable(file, 1000));
    const model = makeModel(record, state, { inChannels }, { assign: false });
    try {
      manualSeed(seed);
      model.resetClassifier(classes);
    } catch (error) {
      model.dispose();
      throw error;
    }
    const options: Record<string, string | number> = inChannels === record.inChannels ? {} : { inChannels };
    for (const key of record.toldOptions) {
      const value = state.fileMetadata.get(key);
      if (value !== undefined) options[key] = value;
    }
    return {
      model,
      name,
      options,
      weights: typeof source === 'string' ? path.resolve(file) : source.name,
      preprocessing,
    };
  } finally {
    state.dispose();
  }
}

function chooseWeights(given: TrainingArguments): string {
  const { weights, pretrained, model } = given;
  if (weights !== undefined && pretrained === true)
    throw makeError('ERR_SENET_ARG_RANGE', '--pretrained and --weights exclude each other');
  if (weights !== undefined) return weights;
  if (pretrained !== true)
    throw makeError('ERR_SENET_ARG_MISSING', 'finetune: give --weights FILE or --pretrained');
  if (model === undefined)
    throw makeError('ERR_SENET_ARG_MISSING', '--pretrained needs --model, such as se_resnet50');
  return usualWeights(model);
}

/** The paths that `--freeze` means. @throws ERR_SENET_ARG_RANGE for one that is none, or if nothing is left to train */
function frozenParts(model: Module<unknown>, text: string | undefined): string[] {
  if (text === undefined || text === 'none') return [];
  const names = model.namedModules().map(([name]) => name);
  const heads = ClassifierModel.headsOf(model);
  // The parts of the network that has the head, which may stand in another.
  const root = /^(.*\.)?/.exec(familyOf(model)?.classifier ?? '')?.[0] ?? '';
  const children = names.filter(
    (name) => name.startsWith(root) && name.length > root.length && !name.slice(root.length).includes('.'),
  );
  const holdsHead = (part: string): boolean =>
    heads.some((head) => head === part || head.startsWith(`${part}.`));
  const parts =
    text === 'backbone'
      ? children.filter((part) => !holdsHead(part))
      : text.split(',').map((part) => part.trim());
  for (const part of parts) {
    if (names.includes(part) && part !== '') continue;
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `--freeze: the model has no part '${printable(part)}'; it has ${children.join(', ')}`,
    );
  }
  const isFrozen = (name: string): boolean => parts.some((part) => name.startsWith(`${part}.`));
  if (model.namedParameters().every(([name]) => isFrozen(name)))
    throw makeError('ERR_SENET_ARG_RANGE', '--freeze: nothing would be left to train');
  return parts;
}

function freeze(model: Module<unknown>, parts: readonly string[]): void {
  for (const part of parts)
    for (const parameter of model.getSubmodule(part).parameters()) parameter.requiresGrad = false;
}

/** Makes the folder, and does not write over another run. */
async function prepareFolder(
  folder: string,
  given: TrainingArguments,
  resumed: TrainingCheckpoint | null,
): Promise<void> {
  const file = (name: string): string => path.join(folder, name);
  const exists = (name: string): Promise<boolean> =>
    access(file(name)).then(
      () => true,
      () => false,
    );
  if (resumed === null && given.overwrite !== true && (await exists(FILES.checkpoint))) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${printable(folder)} holds a run already: go on with it (--resume ${printable(file(FILES.checkpoint))}), choose another --output, or --overwrite it`,
    );
  }
  const best = resumed?.position.best ?? null;
  if (best !== null && !(await exists(FILES.best))) {
    throw makeError(
      'ERR_SENET_RESUME',
      `--resume: the best weights so far (${FILES.best}, epoch ${best.epoch}) are not in ${printable(folder)}`,
    );
  }
  try {
    await mkdir(folder, { recursive: true });
    // What a killed process was writing.
    for (const name of await readdir(folder))
      if (UNFINISHED.test(name)) await rm(file(name), { force: true });
    // Nothing of another run stays beside this one: a checkpoint would be resumed, and belong to another log.
    if (resumed === null && given.overwrite === true)
      for (const name of Object.values(FILES)) await rm(file(name), { force: true });
  } catch (cause) {
    throw makeError('ERR_SENET_FILE', `--output: ${printable(folder)}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function train(
  { settings, opened, preprocessing, model, device }: Prepared,
  folder: string,
  given: TrainingArguments,
  resumed: TrainingCheckpoint | null,
  signal: AbortSignal,
): Promise<void> {
  const file = (name: keyof typeof FILES): string => path.join(folder, FILES[name]);
  const loaders = makeLoaders(settings, opened, preprocessing);
  const optimizer = makeOptimizer(settings, model);
  const scheduler = makeScheduler(settings, optimizer, settings.epochs * loaders.train.length);
  const loss = new CrossEntropyLoss({ labelSmoothing: settings.labelSmoothing });
  const ema =
    settings.ema === null ? undefined : new ExponentialMovingAverage(model, { decay: settings.ema });
  const display = new ProgressDisplay();
  const weightsMetadata = (record: EpochRecord): Record<string, string> =>
    metadataOf(settings, preprocessing, opened, record);
  const trainer = new Trainer({
    model,
    train: loaders.train,
    ...(loaders.validation === null ? {} : { validation: loaders.validation }),
    optimizer,
    ...(scheduler === null
      ? {}
      : { scheduler, schedulerEvery: settings.schedule === 'step' ? 'epoch' : 'step' }),
    loss,
    epochs: settings.epochs,
    classes: settings.classes,
    precision: settings.precision,
    device,
    ...(settings.clipGradNorm === null ? {} : { clipGradNorm: settings.clipGradNorm }),
    ...(ema === undefined ? {} : { ema }),
    frozen: settings.freeze.map((part) => model.getSubmodule(part)),
    checkpoint: {
      path: file('checkpoint'),
      ...(given.checkpointEvery === undefined ? {} : { everySteps: given.checkpointEvery }),
    },
    log: file('log'),
    recordEvery: Math.max(1, Math.round((settings.epochs * loaders.train.length) / RECORDS)),
    signal,
    onProgress: (progress) => display.update(progress),
    onBest: (record) => save(model, file('best'), { metadata: weightsMetadata(record) }),
    settings,
  });
  if (resumed !== null) trainer.restore(resumed);
  if (given.json !== true) describeRun(settings, opened, model, resumed);
  let result: TrainingResult;
  try {
    result = await trainer.run();
  } catch (error) {
    display.stop();
    if (!(isSenetError(error) && error.code === 'ERR_SENET_ABORTED')) throw error;
    const place = shortest(file('checkpoint'));
    printNote(
      `interrupted: the run is saved in ${place}. To go on:`,
      `  senet-torch ${settings.command} --resume ${quote(place)}`,
    );
    process.exitCode = EXIT_INTERRUPTED;
    return;
  } finally {
    display.stop();
  }
  const last = result.history.epochs.at(-1) as EpochRecord;
  await save(ema?.stateDict() ?? model, file('last'), { metadata: weightsMetadata(last) });
  const evaluation = await evaluateBest(model, file('best'), loaders.validation, loss, device);
  await writeReport(file('report'), { settings, opened, preprocessing, model, result, evaluation });
  printResult(settings, folder, given, result, loaders);
}

function makeLoaders(
  settings: TrainingSettings,
  opened: OpenedData,
  preprocessing: Preprocessing,
): { train: DataLoader; validation: DataLoader | null } {
  const { batchSize, seed, dropLast, skipCorrupt, imageSize, augment, mixup } = settings;
  const train = new DataLoader(opened.train, {
    batchSize,
    seed,
    dropLast,
    skipCorrupt,
    shuffle: true,
    transform: trainTransform(preprocessing, imageSize, augment),
    ...(mixup === null
      ? {}
      : { batchTransform: new Mixup({ alpha: mixup, numClasses: settings.classes.length }) }),
  });
  const validation =
    opened.validation === null
      ? null
      : new DataLoader(opened.validation, {
          batchSize,
          skipCorrupt,
          transform: testTransform(preprocessing),
        });
  return { train, validation };
}

function makeOptimizer(settings: TrainingSettings, model: Module<unknown>): Optimizer {
  const { lr, momentum, nesterov, weightDecay } = settings;
  const parameters = model.parameters().filter(({ requiresGrad }) => requiresGrad);
  if (settings.optimizer === 'adamw') return new AdamW(parameters, { lr, weightDecay });
  return new SGD(parameters, { lr, momentum, weightDecay, nesterov: nesterov && momentum > 0 });
}

function makeScheduler(settings: TrainingSettings, optimizer: Optimizer, steps: number): LRScheduler | null {
  switch (settings.schedule) {
    case 'onecycle': {
      // A rise of one step would begin and end at once, which PyTorch's formula cannot express (0 / 0).
      const rise = Math.abs(settings.warmup * steps - 1) < 1e-9 ? 0 : settings.warmup;
      return new OneCycleLR(optimizer, { maxLr: settings.lr, totalSteps: steps, pctStart: rise });
    }
    case 'cosine':
      return new CosineAnnealingLR(optimizer, { tMax: steps, etaMin: settings.minLr });
    case 'step':
      return new StepLR(optimizer, { stepSize: settings.stepSize, gamma: settings.gamma });
    case 'none':
      return null;
  }
}

/** What the weights carry, so that `classify` and `ImageClassifier` need nothing else. */
function metadataOf(
  settings: TrainingSettings,
  preprocessing: Preprocessing,
  opened: OpenedData,
  { epoch, validation }: EpochRecord,
): Record<string, string> {
  const score =
    validation === null
      ? ''
      : `, ${percent(validation.accuracy)} of ${count(opened.validation?.length ?? 0, 'validation image')} right`;
  return {
    ...Object.fromEntries(
      Object.entries(settings.modelOptions).map(([name, value]) => [name, String(value)]),
    ),
    model: settings.model,
    labels: JSON.stringify(settings.classes),
    preprocessing: JSON.stringify(preprocessing),
    source: `senet-torch ${version.package} on ${path.basename(settings.data)}, epoch ${epoch} of ${settings.epochs}${score}`,
  };
}

async function evaluateBest(
  model: Module<unknown>,
  best: string,
  validation: DataLoader | null,
  loss: CrossEntropyLoss,
  device: Device,
): Promise<Evaluation | null> {
  if (validation === null) return null;
  const state = await load(best);
  model.loadStateDict(state);
  state.dispose();
  return evaluate(model, validation, { loss, device, mistakes: MISTAKES });
}

interface Finished {
  readonly settings: TrainingSettings;
  readonly opened: OpenedData;
  readonly preprocessing: Preprocessing;
  readonly model: Module<unknown>;
  readonly result: TrainingResult;
  readonly evaluation: Evaluation | null;
}

async function writeReport(file: string, finished: Finished): Promise<void> {
  const { settings, opened, preprocessing, model, result, evaluation } = finished;
  const { best, history, seconds } = result;
  const mistakes: ReportedMistake[] = [];
  for (const { image, index, ...mistake } of evaluation?.mistakes ?? []) {
    const name = nameOfImage(opened.validation as Dataset, index);
    mistakes.push({ ...mistake, name, picture: await pictureOf(image, preprocessing) });
  }
  const images = history.epochs.reduce((sum, epoch) => sum + epoch.imagesPerSecond * epoch.seconds, 0);
  const parameters = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
  const page = renderReport({
    title: `${settings.model} on ${path.basename(settings.data)}`,
    classes: settings.classes,
    history,
    evaluation,
    evaluated: `${count(evaluation?.count ?? 0, 'validation image')}, the best weights (epoch ${best?.epoch ?? 0})`,
    mistakes,
    highlights: [
      ...(evaluation === null
        ? []
        : [[percent(evaluation.accuracy), `validation accuracy (epoch ${best?.epoch ?? 0})`] as const]),
      [significant(history.epochs.at(-1)?.loss ?? 0), 'training loss at the end'],
      [duration(seconds), 'of training'],
      [Math.round(images / Math.max(seconds, 1e-9)).toLocaleString('en'), 'images a second'],
      [parameters.toLocaleString('en'), 'parameters'],
    ],
    settings: settingRows(settings, opened),
    machine: [
      ['processor', `${os.cpus()[0]?.model.trim() ?? 'unknown'}, ${os.cpus().length} cores`],
      ['threads', String(binding.configuration().threadsPerWorker)],
      ['memory', `${(os.totalmem() / 1024 ** 3).toFixed(1)} GiB`],
      ['system', `${os.type()} ${os.release()} ${os.arch()}`],
      ['senet-torch', version.package],
      ['LibTorch', `${version.libtorch} (${binding.libtorchConfig().cpuCapability})`],
      ['Node', version.node],
      ['finished', new Date().toISOString()],
    ],
    files: [
      [FILES.best, `the weights of epoch ${best?.epoch ?? 0}`],
      [FILES.last, 'the weights at the end'],
      [FILES.checkpoint, 'everything, to go on or to look at'],
      [FILES.log, 'the numbers of this page, a line of JSON each'],
    ],
  });
  const temporary = `${file}.tmp`;
  try {
    await writeFile(temporary, page);
    await rename(temporary, file);
  } catch (cause) {
    throw makeError('ERR_SENET_FILE', `the report could not be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function nameOfImage(dataset: Dataset, index: number): string {
  let [inner, place] = [dataset, index];
  while (inner instanceof Subset) [inner, place] = [inner.dataset as Dataset, inner.indices[place] as number];
  if (!(inner instanceof ImageFolder)) return `image ${place}`;
  return path.relative(inner.root, inner.samples[place]?.file ?? '');
}

function settingRows(settings: TrainingSettings, opened: OpenedData): [string, string][] {
  const { optimizer, schedule } = settings;
  const optimizerText =
    optimizer === 'sgd'
      ? `sgd, momentum ${settings.momentum}${settings.nesterov ? ' (Nesterov)' : ''}, weight decay ${settings.weightDecay}`
      : `adamw, weight decay ${settings.weightDecay}`;
  const schedules = {
    onecycle: `one cycle, up to ${settings.lr} at ${percent(settings.warmup)} of the run`,
    cosine: `cosine from ${settings.lr} to ${settings.minLr}`,
    step: `${settings.lr}, times ${settings.gamma} every ${count(settings.stepSize, 'epoch')}`,
    none: String(settings.lr),
  };
  const options = Object.entries(settings.modelOptions).map(([name, value]) => `${name} ${value}`);
  return [
    ['model', [settings.model, ...options].join(', ')],
    ...(settings.weights === null
      ? []
      : ([['started from', path.basename(settings.weights)]] as [string, string][])),
    ...(settings.freeze.length === 0 ? [] : ([['frozen', settings.freeze.join(', ')]] as [string, string][])),
    ['data', `${path.basename(settings.data)} (${settings.dataset})`],
    ['training images', opened.train.length.toLocaleString('en')],
    ['validation images', (opened.validation?.length ?? 0).toLocaleString('en')],
    ['image size', `${settings.imageSize} x ${settings.imageSize}`],
    ['mean, deviation', `${settings.mean.join(', ')}; ${settings.std.join(', ')}`],
    [
      'augmentation',
      [...settings.augment, ...(settings.mixup === null ? [] : [`mixup ${settings.mixup}`])].join(', ') ||
        'none',
    ],
    ['epochs', String(settings.epochs)],
    ['batch size', `${settings.batchSize}${settings.dropLast ? ', the last dropped' : ''}`],
    ['optimiser', optimizerText],
    ['learning rate', schedules[schedule]],
    ['label smoothing', String(settings.labelSmoothing)],
    ...(settings.clipGradNorm === null
      ? []
      : ([['gradient norm', `at most ${settings.clipGradNorm}`]] as [string, string][])),
    ...(settings.ema === null ? [] : ([['moving average', String(settings.ema)]] as [string, string][])),
    ['precision', settings.precision],
    ['seed', String(settings.seed)],
  ];
}

function describeRun(
  settings: TrainingSettings,
  opened: OpenedData,
  model: Module<unknown>,
  resumed: TrainingCheckpoint | null,
): void {
  const parameters = model.parameters().reduce((sum, { numel }) => sum + numel, 0);
  const held = opened.validation === null ? 'none' : opened.validation.length.toLocaleString('en');
  const first = `${settings.model} (${parameters.toLocaleString('en')} parameters) on ${path.basename(settings.data)}: ${count(opened.train.length, 'training image')}, ${held} for validation, ${settings.classes.length} classes`;
  const taken = tableLines(opened.taken);
  printLines([first, ...taken]);
  if (resumed !== null)
    printLine(
      `resumed at step ${resumed.position.step}, in epoch ${resumed.position.epoch + 1} of ${settings.epochs}`,
    );
}

function printResult(
  settings: TrainingSettings,
  folder: string,
  given: TrainingArguments,
  result: TrainingResult,
  loaders: { train: DataLoader; validation: DataLoader | null },
): void {
  const { best, history, seconds, steps } = result;
  const place = shortest(folder);
  const skipped = [...loaders.train.skipped, ...(loaders.validation?.skipped ?? [])].map(
    ({ message }) => message,
  );
  if (given.json === true) {
    printJson({
      output: folder,
      files: FILES,
      best,
      epochs: history.epochs,
      steps,
      seconds,
      skipped,
      settings,
    });
    return;
  }
  const name = (file: keyof typeof FILES): string => path.join(place, FILES[file]);
  printLine();
  if (best?.validation != null)
    printLine(
      `best: ${percent(best.validation.accuracy)} of the validation images right (epoch ${best.epoch}), ${duration(seconds)} of training`,
    );
  if (skipped.length > 0) {
    printLine(`${count(skipped.length, 'image')} left out:`);
    for (const message of skipped.slice(0, 20)) printLine(`  ${message}`);
  }
  printTable([
    ['weights', `${name('best')}, ${name('last')}`],
    ['report', name('report')],
    ['log', name('log')],
  ]);
  printLine();
  printLine(`$ senet-torch classify --weights ${quote(name('best'))} IMAGE`);
}

/** Relative where that is below the present folder. */
function shortest(file: string): string {
  const relative = path.relative(process.cwd(), file) || '.';
  return relative.startsWith('..') ? file : relative;
}

/** As one word of a shell's line. */
function quote(text: string): string {
  return /^[\w./@:+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
