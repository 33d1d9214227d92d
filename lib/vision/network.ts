/**
 * How a classifier's network comes together: weights by name or path, the labels and the preprocessing that they bring,
 * a model of the shape that they need, and what runs it.
 */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

import type { Device, DType } from '../binding';
import { printable } from '../checkpoint/problems';
import { loadFor } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { fetchWeights } from '../hub/hub';
import type { ProgressOption } from '../hub/progress';
import { createModel, modelInfo, type ModelName } from '../models/registry';
import { SEInception3 } from '../models/se-inception-v3';
import { SEResNet } from '../models/se-resnet';
import { COMPILED_DTYPES, type CompiledDType } from '../nn/compiled-model';
import { articleOr } from '../nn/load-state-dict';
import { Module } from '../nn/module';
import { checkString, describe, nearest } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';
import { checkLabels, readLabels } from './labels';
import {
  CHANNELS,
  checkPreprocessing,
  IMAGENET,
  INCEPTION,
  inputChannels,
  PLAIN,
  recordFor,
  type Preprocessing,
} from './preprocessing';
import { PUBLISHED_WEIGHTS, type PublishedWeights } from './weights';

/** Published weights, or the path itself. */
export async function findWeights(
  weights: string,
  model: ModelName | null,
): Promise<PublishedWeights | string> {
  checkString(weights, 'ImageClassifier.load: weights');
  const published = PUBLISHED_WEIGHTS.filter((entry) => model === null || entry.model === model);
  const named = published.find(({ name }) => name === weights);
  if (named !== undefined) return named;
  if (/[/\\.]/.test(weights)) return weights; // a path, whether it exists or not
  const exists = await access(weights, constants.F_OK).then(
    () => true,
    () => false,
  );
  if (exists) return weights;
  const names = published.map(({ name }) => name);
  const elsewhere = PUBLISHED_WEIGHTS.find(({ name }) => name === weights);
  const near = nearest(weights, names);
  const hint =
    elsewhere !== undefined
      ? `; they are of ${elsewhere.model}`
      : near === undefined
        ? ''
        : `; did you mean '${near}'?`;
  const list = names.length === 0 ? `${model} has no published weights` : `published are ${names.join(', ')}`;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `ImageClassifier.load: no file and no published weights '${printable(weights)}'${hint} (${list})`,
  );
}

export async function toFile(
  source: PublishedWeights | string,
  options: { progress?: ProgressOption; checkHash?: boolean },
  signal: AbortSignal | undefined,
): Promise<string> {
  if (typeof source === 'string') return source;
  if ('bundled' in source.location) return source.location.bundled;
  const { progress = true, checkHash = true } = options;
  return fetchWeights(source.location.url, {
    progress,
    checkHash,
    ...(signal === undefined ? {} : { signal }),
  });
}

interface Brought {
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
}

/** Labels and preprocessing that come with the weights. */
export async function recordOf(
  state: StateDict | undefined,
  published: PublishedWeights | undefined,
  label: string,
): Promise<Brought> {
  const file = printable(label, 1000);
  const read = (name: string): unknown => {
    const text = state?.fileMetadata.get(name);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw makeError(
        'ERR_SENET_CHECKPOINT_FORMAT',
        `${file}: metadata '${name}': expected JSON, got ${describe(text)}`,
        { cause },
      );
    }
  };
  const labels =
    read('labels') ??
    (published?.labelsFile === undefined ? undefined : await readLabels(published.labelsFile));
  const record = read('preprocessing');
  return {
    ...(labels === undefined ? {} : { labels: checkLabels(labels, `${file}: metadata 'labels'`) }),
    ...(record === undefined
      ? published?.preprocessing && { preprocessing: published.preprocessing }
      : { preprocessing: checkPreprocessing(record, PLAIN, `${file}: metadata 'preprocessing'`) }),
  };
}

/** torchvision's, for models of ImageNet's size; the small ones have none that is usual. */
export function defaultPreprocessing(model: ModelName | Module<unknown>): Preprocessing | undefined {
  const size =
    typeof model === 'string'
      ? modelInfo(model).inputSize
      : model instanceof SEInception3
        ? 299
        : model instanceof SEResNet
          ? 224
          : 0;
  if (size === 224) return IMAGENET;
  if (size === 299) return INCEPTION;
  return undefined;
}

/** The first convolution of every model here; SE-Inception's is the second. */
const FIRST_KEYS = ['conv1.weight', 'model.Conv2d_1a_3x3.conv.weight'];

/** Channels of the images that these weights are for, by the shape of the first convolution; the usual three without it. */
export function channelsIn(state: StateDict): number {
  const shape = FIRST_KEYS.map((key) => state.get(key)?.shape).find((found) => found !== undefined);
  return shape?.length === 4 && shape[1] !== 0 ? (shape[1] as number) : 3;
}

/** Channels of the images that a module takes; 0 if it does not say, as with a forward in TypeScript. */
export function channelsOf(model: Module<unknown>): number {
  return Module.runsNatively(model) ? Module.widthOf(model)[0] : 0;
}

/** @throws ERR_SENET_ARG_RANGE unless images have so many channels */
export function checkImageChannels(channels: number, where: string): number {
  if (channels === 1 || channels === 3) return channels;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: the network takes ${channels} channels, and images have 1 (grey) or 3 (colour)`,
  );
}

/**
 * The record of a classifier: what is given, over what the weights bring or is usual, for so many channels (0: unknown).
 *
 * @throws as `checkPreprocessing`; ERR_SENET_ARG_RANGE if the record would make another number of channels
 */
export function chooseRecord(
  given: Partial<Preprocessing> | undefined,
  base: Preprocessing,
  channels: number,
  where: string,
): Preprocessing {
  const kind = CHANNELS.find((name) => name === given?.channels);
  const wanted = kind === undefined ? channels : inputChannels({ channels: kind });
  if (channels === 0 || channels === wanted) return checkPreprocessing(given, recordFor(base, wanted), where);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: channels: '${kind}' makes ${wanted}, and the network takes ${channels}`,
  );
}

// The last layer of every model here; SE-Inception's is the second.
const CLASSIFIER_KEYS = ['fc.weight', 'model.fc.weight'];

export function countClasses(model: Module<unknown>): number | undefined {
  return model.namedParameters().find(([name]) => CLASSIFIER_KEYS.includes(name))?.[1].shape[0];
}

/** Where in a file the weights are, where the file alone does not say. */
export interface WeightsPlace {
  /** Of the state dict: names joined by dots. Default: the one that fits the model best. */
  key?: string;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string;
}

/** The state dict of a file that fits the model best, under the model's names. Errors: as `load`. */
export function loadWeights(
  file: string,
  model: ModelName | Module<unknown>,
  { key, prefix }: WeightsPlace,
  signal: AbortSignal | undefined,
): Promise<StateDict> {
  const options = {
    ...(key === undefined ? {} : { key }),
    ...(prefix === undefined ? {} : { prefix }),
    ...(signal === undefined ? {} : { signal }),
  };
  if (typeof model !== 'string')
    return loadFor(file, options, { expected: () => new ModelNames(keysOf(model)) });
  const anchor = CLASSIFIER_KEYS[modelInfo(model).options.includes('recalibrate') ? 1 : 0];
  return loadFor(file, options, { anchor, expected: () => new ModelNames(namesOf(model)) });
}

/** The names that a model knows, in the article's spelling too. */
class ModelNames {
  constructor(private readonly names: ReadonlySet<string>) {}

  has(name: string): boolean {
    return this.names.has(articleOr(this.names, name));
  }
}

const namesByModel = new Map<ModelName, ReadonlySet<string>>();

function namesOf(name: ModelName): ReadonlySet<string> {
  let names = namesByModel.get(name);
  if (names === undefined) {
    const numClasses = modelInfo(name).numClasses ?? 1;
    const model = createModel(name, { numClasses, initWeights: false });
    names = keysOf(model);
    model.dispose();
    namesByModel.set(name, names);
  }
  return names;
}

function keysOf(model: Module<unknown>): ReadonlySet<string> {
  return new Set([...model.namedParameters(), ...model.namedBuffers()].map(([name]) => name));
}

/** A model without weights of the shape that these weights need. */
export function createFor(
  name: ModelName,
  state: StateDict,
  inChannels: number = channelsIn(state),
): Module<unknown> {
  const shapeOf = (key: string): readonly number[] | undefined => state.get(key)?.shape;
  const numClasses = CLASSIFIER_KEYS.map(shapeOf).find((shape) => shape !== undefined)?.[0];
  const { options, numClasses: usual } = modelInfo(name);
  const wanted: Record<string, unknown> = {
    numClasses: numClasses ?? usual ?? 1,
    inChannels,
    initWeights: false,
  };
  if (options.includes('reduction')) wanted.reduction = findReduction(shapeOf);
  if (options.includes('auxLogits')) wanted.auxLogits = state.has('model.AuxLogits.fc.weight');
  if (options.includes('recalibrate')) {
    // 'none' and 'input' have the same weights: those that were used say so in their metadata.
    const widths = shapeOf('model.Mixed_5b.SELayer.fc.0.weight');
    const told = state.fileMetadata.get('recalibrate');
    wanted.recalibrate = widths?.[1] === 256 ? 'output' : told === 'input' ? 'input' : 'none';
  }
  if (options.includes('transformInput'))
    wanted.transformInput = state.fileMetadata.get('transformInput') === 'true';
  return createModel(name, wanted as Parameters<typeof createModel>[1]);
}

/** The reduction r of which every stage's SELayer has floor(channels / r) rows; the usual one if none fits. */
function findReduction(shapeOf: (key: string) => readonly number[] | undefined): number {
  const stages = [1, 2, 3].map(
    (stage) => shapeOf(`layer${stage}.0.se.fc.0.weight`) ?? shapeOf(`layer${stage}.0.se.fc1.0.weight`),
  );
  for (let reduction = 1; reduction <= 16; reduction++) {
    if (stages.every((shape) => shape !== undefined && shape[0] === Math.floor((shape[1] ?? 0) / reduction)))
      return reduction;
  }
  return 16;
}

/** What gives the logits of a batch. */
export interface Network {
  /** @param x - float32, N x channels x height x width, on the CPU */
  forward(x: Tensor): Promise<Tensor>;
  dispose(): void;
}

/**
 * The network of a model in evaluation mode: a compiled copy, or the model itself for a dtype that is not compiled
 * (float64) and for a forward in TypeScript. What `owned` says is this network's to dispose.
 */
export async function makeNetwork(
  model: Module<unknown>,
  owned: boolean,
  dtype: DType,
  device: Device,
  signal: AbortSignal | undefined,
): Promise<Network> {
  model.eval();
  if (!COMPILED_DTYPES.includes(dtype as CompiledDType) || !Module.runsNatively(model)) {
    model.to({ dtype, device });
    return {
      forward: async (x) => (await model.forward(x.to({ dtype, device }))) as Tensor,
      dispose: () => owned && model.dispose(),
    };
  }
  model.to(device);
  const compiling = model.compile({
    dtype: dtype as CompiledDType,
    ...(signal === undefined ? {} : { signal }),
  });
  // The job holds its weights until it has read them, and no longer.
  if (owned) model.dispose();
  const compiled = await compiling;
  return {
    forward: (x) => compiled.forward(x.to(device)),
    dispose: () => compiled.dispose(),
  };
}
