/**
 * A training recipe from start to end: settings from what was given or from the checkpoint; data, network, optimiser; the
 * run; weights and report. What `senet-torch train` and `finetune` do, for programs: prints nothing and sets no exit code.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';

import type { Device } from '../../binding';
import { load } from '../../checkpoint/load';
import type { DataLoader } from '../../data/loader';
import { samplesPerClass } from '../../data/sampler';
import { DistributedDataParallel } from '../../distributed/data-parallel';
import {
  backendFor,
  barrier,
  destroyProcessGroup,
  getRank,
  getWorldSize,
  initProcessGroup,
  isInitialized,
} from '../../distributed/process-group';
import { deviceOfRank } from '../../distributed/rendezvous';
import { SyncBatchNorm } from '../../distributed/sync-batch-norm';
import { makeError } from '../../errors';
import { familyOf } from '../../models/classifier-model';
import { IMAGENET, PLAIN, type Preprocessing } from '../../models/preprocessing-record';
import { modelRecord, parseName } from '../../models/registry';
import { binding } from '../../native';
import { CrossEntropyLoss } from '../../nn/losses';
import type { Module } from '../../nn/module';
import { save } from '../../onnx/save';
import { ExponentialMovingAverage } from '../../optim/ema';
import { printable } from '../../printable';
import { tensor } from '../../tensor/factories';
import { version } from '../../tensor/runtime';
import type { Tensor } from '../../tensor/tensor';
import { readLabels } from '../../vision/labels';
import { moduleChannels } from '../../vision/model-facts';
import { checkPreprocessing, recordFor } from '../../vision/preprocessing-options';
import { reportError } from '../companions';
import { evaluate, type Evaluation } from '../evaluation';
import type { EpochRecord } from '../history';
import { Trainer, type TrainingResult } from '../trainer';
import { disposeTensors, readTrainingCheckpoint, type TrainingCheckpoint } from '../training-checkpoint';
import { count, percent } from '../words';
import { createDatasets, createLoaders, detectDataset, labelsOf, type TrainingDatasets } from './datasets';
import { prepareFolder, RUN_FILES, type RunFile } from './folder';
import { freeze, frozenParts, networkFromWeights, networkOfCheckpoint, newNetwork } from './network';
import { createOptimizer, createScheduler } from './optimizer';
import {
  checkRecipe,
  checkSameOptions,
  checkSettings,
  checkTrainingOptions,
  withDefaults,
} from './option-checks';
import { MISTAKES, writeReport } from './run-report';
import type { StartedRun, TrainingOptions, TrainingSettings } from './settings';
import { colourKind, measurePixels, resizingOf, sideOf, testPreprocessing } from './transforms';

const WHERE = 'trainFromSettings';
const DEFAULT_OUTPUT = 'training';
/** Of loss and accuracy in a run, about: what a chart can show. */
const RECORDS = 400;

/** What a recipe made. */
export interface TrainedRun extends TrainingResult {
  readonly settings: TrainingSettings;
  /** Of this process among those that trained; 0 wrote the files. */
  readonly rank: number;
  /** The absolute path of the folder with everything. */
  readonly output: string;
  /** Names in it: `best` and `last` are weights that `ImageClassifier.load` needs nothing else for. */
  readonly files: Readonly<Record<RunFile, string>>;
  /** Messages of the images that `skipCorrupt` left out. */
  readonly skipped: readonly string[];
}

/**
 * Trains a network by a recipe, as `senet-torch train` and `senet-torch finetune` do, with the same weights, bit for bit:
 * finds out what the data is, makes the network, optimiser and schedule, trains with a checkpoint and a log, and writes
 * the best and the last weights and a report.
 *
 * @example
 * const { best, output } = await trainFromSettings({ data: 'photos', model: 'se_resnet18', epochs: 30, output: 'run' });
 * const classifier = await ImageClassifier.load('se_resnet18', { weights: `${output}/best.safetensors` });
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (a folder that holds a run already, too), ERR_SENET_ARG_MISSING,
 *   ERR_SENET_UNKNOWN_OPTION, ERR_SENET_UNKNOWN_MODEL; ERR_SENET_RESUME (other options than the run's, a checkpoint of
 *   something else); ERR_SENET_ABORTED after a checkpoint was saved; ERR_SENET_FILE; as `createDatasets`, `Trainer.run` and
 *   `ImageClassifier.load`
 */
export async function trainFromSettings(options: TrainingOptions): Promise<TrainedRun> {
  checkTrainingOptions(options, WHERE);
  const { distributed = false, signal } = options;
  if (!distributed) return runRecipe(options, null);
  const device = deviceOfRank(options.device ?? 'cpu', process.env, binding.cudaState().devices);
  const joins = !isInitialized();
  if (joins)
    await initProcessGroup({ backend: backendFor(device), ...(signal === undefined ? {} : { signal }) });
  try {
    const run = await runRecipe({ ...options, device }, { rank: getRank(), worldSize: getWorldSize() });
    await barrier(); // rank 0 has written everything
    return run;
  } catch (error) {
    await reportError(error);
    throw error;
  } finally {
    if (joins) await destroyProcessGroup();
  }
}

/** Of the processes that train together, which one this is; null of one alone. */
type Share = { readonly rank: number; readonly worldSize: number } | null;

async function runRecipe(options: TrainingOptions, share: Share): Promise<TrainedRun> {
  const { signal, resume } = options;
  const resumed = resume === undefined ? null : await readTrainingCheckpoint(resume);
  try {
    const output = path.resolve(
      options.output ?? (resume === undefined ? DEFAULT_OUTPUT : path.dirname(resume)),
    );
    const prepared =
      resumed === null
        ? await prepareNew(options, signal)
        : await prepareResumed(options, startedSettings(options, resumed), resumed);
    try {
      if (isMain(share)) await prepareFolder(output, options, resumed?.position.best ?? null);
      if (share !== null) await barrier();
      return await train(prepared, output, options, resumed, share);
    } finally {
      prepared.model.dispose();
    }
  } finally {
    disposeTensors(resumed);
  }
}

/** The settings of the run that goes on, which what was given must not contradict. */
function startedSettings(options: TrainingOptions, { settings: kept }: TrainingCheckpoint): TrainingSettings {
  const settings = checkSettings(kept, WHERE, printable(options.resume as string));
  const { command } = settings;
  if (options.command !== undefined && options.command !== command) {
    throw makeError(
      'ERR_SENET_RESUME',
      `${WHERE}: resume: this run was started by ${command}: resume it with ${command}`,
    );
  }
  checkSameOptions(options, settings, WHERE);
  // Where the same data lies may change.
  return options.data === undefined ? settings : { ...settings, data: path.resolve(options.data) };
}

interface Prepared {
  readonly settings: TrainingSettings;
  readonly datasets: TrainingDatasets;
  readonly preprocessing: Preprocessing;
  readonly model: Module<unknown>;
}

async function prepareResumed(
  options: TrainingOptions,
  settings: TrainingSettings,
  resumed: TrainingCheckpoint,
): Promise<Prepared> {
  const { command, data, imageSize } = settings;
  if (!(await stat(data).catch(() => null)))
    throw makeError(
      'ERR_SENET_FILE_NOT_FOUND',
      `${WHERE}: resume: the data of the run is not at ${printable(data, 1000)} any more; say where it lies: option data, senet-torch ${command} DATA --resume ...`,
    );
  // Names that the data does not have itself.
  const named = settings.dataset !== 'folder' || settings.labels !== null;
  const datasets = await createDatasets({ ...settings, labels: named ? settings.classes : undefined });
  if (datasets.classes.join('\0') !== settings.classes.join('\0')) {
    throw makeError(
      'ERR_SENET_RESUME',
      `${WHERE}: resume: the run has the classes ${settings.classes.slice(0, 8).join(', ')}, and ${printable(data)} ${datasets.classes.slice(0, 8).join(', ')}`,
    );
  }
  const model = networkOfCheckpoint(settings, resumed.model);
  const preprocessing = testPreprocessing(datasets.shape, imageSize, moduleChannels(model), settings);
  model.to(options.device ?? 'cpu');
  freeze(model, settings.freeze);
  return { settings, datasets, preprocessing, model };
}

/** A repository, a folder or a file says weights; a network with a tag begins without, as `createModel` has it. */
function beginsWithWeights({ weights, pretrained, model }: TrainingOptions): boolean {
  if (weights != null || pretrained === true) return true;
  return typeof model === 'string' && parseName(model, 'trainFromSettings: model').kind !== 'model';
}

async function prepareNew(given: TrainingOptions, signal: AbortSignal | undefined): Promise<Prepared> {
  const command = given.command ?? (beginsWithWeights(given) ? 'finetune' : 'train');
  checkRecipe(given, command, WHERE);
  if (given.data === undefined)
    throw makeError('ERR_SENET_ARG_MISSING', `${command}: give the data, or { resume: CHECKPOINT }`);
  // What was typed wrong is said before anything long begins.
  if (given.model !== undefined) parseName(given.model, 'trainFromSettings: model');
  const data = path.resolve(given.data);
  const seed = given.seed ?? 0;
  const dataset = given.dataset ?? (await detectDataset(given.data));
  const { set, splits, limit, fold } = given;
  const also = (given.also ?? []).map((one) => path.resolve(one));
  const validation = typeof given.validation === 'string' ? path.resolve(given.validation) : given.validation;
  const labels = given.labels == null ? undefined : await readLabels(given.labels, `${WHERE}: labels`);
  const datasets = await createDatasets({
    ...{ data, dataset, also, set, splits, limit, seed, validation, fold, labels },
  });
  const network =
    command === 'finetune'
      ? await networkFromWeights(given, datasets.classes.length, seed, signal)
      : newNetwork(given, datasets.classes.length, seed);
  const { model } = network;
  try {
    model.to(given.device ?? 'cpu');
    const inChannels = moduleChannels(model);
    const smallSize = datasets.shape?.[1] ?? null;
    const { inputSize, anyInputSize, preprocessing: own } = modelRecord(network.name);
    const usual = network.preprocessing ?? own;
    const side = (anyInputSize && usual !== null ? sideOf(usual) : null) ?? inputSize;
    const chosen = withDefaults(given, { command, smallSize, model: { inputSize: side, anyInputSize } });
    const { mean, std } = await pixelStatistics(given, datasets, inChannels, network.preprocessing);
    const pixels = { mean, std, ...(datasets.shape === null ? resizingOf(usual, chosen.imageSize) : {}) };
    const preprocessing = checkPreprocessing(
      testPreprocessing(datasets.shape, chosen.imageSize, inChannels, pixels),
      PLAIN,
      command,
    );
    const settings: TrainingSettings = {
      ...chosen,
      command,
      data,
      dataset,
      also,
      labels: given.labels == null ? null : path.resolve(given.labels),
      validation: datasets.chosenValidation,
      ...pixels,
      model: network.name,
      modelOptions: network.options,
      weights: network.weights,
      freeze: frozenParts(model, given.freeze),
      classes: datasets.classes,
      threads: binding.configuration().threadsPerWorker,
    };
    freeze(model, settings.freeze);
    return { settings, datasets, preprocessing, model };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

async function pixelStatistics(
  { mean, std }: TrainingOptions,
  { train, shape }: TrainingDatasets,
  inChannels: number,
  brought: Preprocessing | undefined,
): Promise<{ mean: readonly number[]; std: readonly number[] }> {
  if (mean !== undefined && std !== undefined) return { mean, std };
  if (mean !== undefined || std !== undefined)
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${WHERE}: { mean } and { std } belong together: give both or none`,
    );
  // Weights expect the statistics that they were trained with; grey ones do not fit colour images.
  const kind = colourKind(shape, inChannels);
  if (brought?.channels === kind) return brought;
  if (shape === null) return recordFor(brought?.channels === 'rgb' ? brought : IMAGENET, inChannels);
  return measurePixels(train, kind);
}

async function train(
  prepared: Prepared,
  output: string,
  options: TrainingOptions,
  resumed: TrainingCheckpoint | null,
  share: Share,
): Promise<TrainedRun> {
  const { settings, model } = prepared;
  if (settings.syncBatchNorm === true) SyncBatchNorm.convertSyncBatchnorm(model);
  const findUnusedParameters = familyOf(model)?.hasUncalledLayers ?? false;
  const parallel = share === null ? null : new DistributedDataParallel(model, { findUnusedParameters });
  try {
    await parallel?.whenReady();
    return await trainModel(prepared, output, options, resumed, share, parallel);
  } finally {
    await parallel?.unwrap();
  }
}

async function trainModel(
  prepared: Prepared,
  output: string,
  options: TrainingOptions,
  resumed: TrainingCheckpoint | null,
  share: Share,
  parallel: DistributedDataParallel<unknown> | null,
): Promise<TrainedRun> {
  const { settings, datasets, preprocessing, model } = prepared;
  const { device = 'cpu', signal, checkpointEvery, onProgress, onStart } = options;
  const { epochs, classes, precision, clipGradNorm, accumulate = 1, patience = null } = settings;
  const file = (name: RunFile): string => path.join(output, RUN_FILES[name]);
  const loaders = createLoaders(datasets, preprocessing, settings, share ?? undefined);
  const optimizer = createOptimizer(model, settings);
  const stepsPerEpoch = Math.ceil(loaders.train.length / accumulate);
  const loss = new CrossEntropyLoss({
    labelSmoothing: settings.labelSmoothing,
    ...(settings.balance === 'weights' ? { weight: classWeights(datasets).to(device) } : {}),
  });
  const ema =
    settings.ema === null ? undefined : new ExponentialMovingAverage(model, { decay: settings.ema });
  const metadata = (record: EpochRecord): Record<string, string> => metadataOf(prepared, record);
  const trainer = new Trainer({
    model: parallel ?? model,
    train: loaders.train,
    ...(loaders.validation === null ? {} : { validation: loaders.validation }),
    optimizer,
    ...createScheduler(optimizer, settings, { epochs, stepsPerEpoch }),
    loss,
    epochs,
    classes,
    precision,
    device,
    accumulate,
    ...(patience === null ? {} : { patience }),
    ...(clipGradNorm === null ? {} : { clipGradNorm }),
    ...(ema === undefined ? {} : { ema }),
    frozen: settings.freeze.map((part) => model.getSubmodule(part)),
    checkpoint: {
      path: file('checkpoint'),
      ...(checkpointEvery === undefined ? {} : { everySteps: checkpointEvery }),
    },
    log: file('log'),
    recordEvery: Math.max(1, Math.round((epochs * stepsPerEpoch) / RECORDS)),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
    onBest: (record) => save(model, file('best'), { metadata: metadata(record) }),
    settings,
  });
  if (resumed !== null) trainer.restore(resumed);
  if (isMain(share)) onStart?.(startedRun(prepared, output, resumed));
  const result = await trainer.run();
  const made = { ...result, settings, rank: share?.rank ?? 0, output, files: RUN_FILES };
  const skipped = [...loaders.train.skipped, ...(loaders.validation?.skipped ?? [])];
  const messages = skipped.map(({ message }) => message);
  if (!isMain(share)) return { ...made, skipped: messages };
  const last = result.history.epochs.at(-1) as EpochRecord;
  await save(ema?.stateDict() ?? model, file('last'), { metadata: metadata(last) });
  const whole = share === null ? loaders : createLoaders(datasets, preprocessing, settings);
  const best = whole.validation && (await evaluateBest(model, file('best'), whole.validation, loss, device));
  await writeReport(file('report'), { ...prepared, result, evaluation: best });
  return { ...made, skipped: messages };
}

/** Whether this process writes the files and tells of progress. */
function isMain(share: Share): boolean {
  return share === null || share.rank === 0;
}

/** In inverse proportion to the images of each class, 1 where all have as many; 0 of one that has none. */
function classWeights({ train, classes }: TrainingDatasets): Tensor {
  const labels = labelsOf(train);
  const counts = samplesPerClass(labels, 'balance: labels');
  const weights = classes.map((_, label) => {
    const images = counts.get(label) ?? 0;
    return images === 0 ? 0 : labels.length / (counts.size * images);
  });
  return tensor(weights);
}

function startedRun(
  { settings, datasets, model }: Prepared,
  output: string,
  resumed: TrainingCheckpoint | null,
): StartedRun {
  return {
    settings,
    output,
    parameters: model.parameters().reduce((sum, { numel }) => sum + numel, 0),
    trainingImages: datasets.train.length,
    validationImages: datasets.validation?.length ?? null,
    taken: datasets.taken,
    resumedAt: resumed === null ? null : { step: resumed.position.step, epoch: resumed.position.epoch },
    threads: binding.configuration().threadsPerWorker,
  };
}

/** What the weights carry, so that `classify` and `ImageClassifier` need nothing else. */
function metadataOf(
  { settings, preprocessing, datasets }: Prepared,
  { epoch, validation }: EpochRecord,
): Record<string, string> {
  const score =
    validation === null
      ? ''
      : `, ${percent(validation.accuracy)} of ${count(datasets.validation?.length ?? 0, 'validation image')} right`;
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
  validation: DataLoader,
  loss: CrossEntropyLoss,
  device: Device,
): Promise<Evaluation> {
  const state = await load(best);
  model.loadStateDict(state);
  state.dispose();
  return evaluate(model, validation, { loss, device, mistakes: MISTAKES });
}
