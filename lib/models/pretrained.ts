/**
 * From a record and weights to a network: which weights a name means, the file of them, its state dict in the model's
 * spelling, and a model of the shape that they need. Every way to a network with weights goes through here. Knows the
 * records that it is given, and not the registry.
 */
import path from 'node:path';

import { loadFor } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { isPlainObject } from '../brands';
import { makeError } from '../errors';
import { fetchWeights } from '../hub/hub';
import type { ProgressOption } from '../hub/progress';
import { keyAliasesOf, ownName, respell, type KeyAlias } from '../nn/load-state-dict';
import { Module } from '../nn/module';
import { checkBoolean, checkOptions, describe, nearest } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';
import { checkInChannels } from './options';
import type { ClassifyingModule, ModelRecord, PublishedWeights } from './record';

const ASSETS = path.join(__dirname, '..', '..', 'assets');

/** Of a download. */
export interface TransferOptions {
  /** Default true: a bar on a terminal while it downloads. */
  progress?: ProgressOption;
  /** Default true: what is downloaded must have the SHA-256 that the record gives. */
  checkHash?: boolean;
  /** Rejects with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal | undefined;
}

/** Where in a file the weights are, where the file alone does not say. */
export interface WeightsPlace {
  /** Of the state dict: names joined by dots. Default: the one that fits the model best. */
  key?: string;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string;
}

/** Of a model with published weights; `create`'s own options beside it. */
export interface PretrainedOptions extends Omit<TransferOptions, 'signal'> {
  /** True for the model's usual weights, or their name, such as 'imagenet'. */
  pretrained: true | string;
  /** Default: the weights'. Another number is ERR_SENET_STATE_DICT; `resetClassifier` gives other classes. */
  numClasses?: number;
  /** Default: the weights'. Another number is ERR_SENET_STATE_DICT, before anything is downloaded. */
  inChannels?: number;
  signal?: AbortSignal;
}

/**
 * The published weights that a name means; true means the usual ones.
 *
 * @throws ERR_SENET_ARG_RANGE, naming those that there are
 */
export function publishedOf(
  { name: model, weights }: ModelRecord,
  wanted: true | string,
  where: string,
): PublishedWeights {
  const found = wanted === true ? weights[0] : weights.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  if (weights.length === 0)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: ${model} has no published weights`);
  const names = weights.map(({ name }) => name);
  const near = nearest(String(wanted), names);
  const hint = near === undefined ? '' : `; did you mean '${near}'?`;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: ${model} has no published weights ${describe(wanted)}${hint} (published are ${names.join(', ')})`,
  );
}

/** The file of labels that published weights bring; undefined where their own file says them. */
export function labelsFileOf({ labels }: PublishedWeights): string | undefined {
  return labels === undefined ? undefined : path.join(ASSETS, 'labels', labels);
}

/** The path of weights, which are downloaded if need be. Errors: as `fetchWeights`. */
export async function toFile(
  source: PublishedWeights | string,
  { progress = true, checkHash = true, signal }: TransferOptions,
): Promise<string> {
  if (typeof source === 'string') return source;
  const { location, sha256 } = source;
  if ('bundled' in location) return path.join(ASSETS, 'weights', location.bundled);
  const options = { progress, checkHash, ...(signal === undefined ? {} : { signal }) };
  return fetchWeights(location.url, options, sha256);
}

/** The state dict of a file that fits the model best. Errors: as `load`. */
export function readWeights(
  file: string,
  model: ModelRecord | Module<unknown>,
  { key, prefix }: WeightsPlace,
  signal: AbortSignal | undefined,
): Promise<StateDict> {
  const options = {
    ...(key === undefined ? {} : { key }),
    ...(prefix === undefined ? {} : { prefix }),
    ...(signal === undefined ? {} : { signal }),
  };
  if (Module.isModule(model)) {
    const aliases = keyAliasesOf(model.namedModules().map(([, module]) => Module.typeOf(module)));
    return loadFor(file, options, { expected: () => new ModelNames(keysOf(model), aliases) });
  }
  return loadFor(file, options, {
    anchor: `${model.classifier}.weight`,
    expected: () => new ModelNames(namesOf(model), model.aliases),
  });
}

/** The names that a model knows, in every spelling. */
class ModelNames {
  constructor(
    private readonly names: ReadonlySet<string>,
    private readonly aliases: readonly KeyAlias[],
  ) {}

  has(name: string): boolean {
    return this.names.has(ownName(this.names, name, this.aliases));
  }
}

const namesByModel = new Map<ModelRecord, ReadonlySet<string>>();

function namesOf(record: ModelRecord): ReadonlySet<string> {
  let names = namesByModel.get(record);
  if (names === undefined) {
    const model = create(record, { numClasses: record.numClasses ?? 1, initWeights: false });
    names = keysOf(model);
    model.dispose();
    namesByModel.set(record, names);
  }
  return names;
}

function keysOf(model: Module<unknown>): ReadonlySet<string> {
  return new Set([...model.namedParameters(), ...model.namedBuffers()].map(([name]) => name));
}

/** Shapes by the model's own keys, whatever the spelling of the file. */
function shapesIn(state: ReadonlyMap<string, Tensor>, aliases: readonly KeyAlias[]) {
  let respelt: ReadonlyMap<string, Tensor> | undefined;
  return (key: string): readonly number[] | undefined => {
    const found = state.get(key);
    if (found !== undefined) return found.shape;
    respelt ??= new Map([...state].map(([name, tensor]) => [respell(name, aliases), tensor]));
    return respelt.get(key)?.shape;
  };
}

/** Channels of the images that these weights are for, by the shape of the first convolution; the usual ones without it. */
export function channelsIn(record: ModelRecord, state: StateDict): number {
  const shape = shapesIn(state, record.aliases)(`${record.stem}.weight`);
  return shape?.length === 4 && shape[1] !== 0 ? (shape[1] as number) : record.inChannels;
}

/** A model without weights of the shape that these weights need; options that are given go first. */
export function createFor(
  record: ModelRecord,
  state: StateDict,
  given: Readonly<Record<string, unknown>> = {},
): ClassifyingModule {
  const shapeOf = shapesIn(state, record.aliases);
  return create(record, {
    numClasses: shapeOf(`${record.classifier}.weight`)?.[0] ?? record.numClasses ?? 1,
    inChannels: channelsIn(record, state),
    initWeights: false,
    ...record.optionsFrom({ shapeOf, metadata: state.fileMetadata }),
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  });
}

/**
 * The same with the weights, which it adopts, with their dtypes; `assign` false copies them.
 *
 * @throws as the model's own function; ERR_SENET_STATE_DICT
 */
export function makeModel(
  record: ModelRecord,
  state: StateDict,
  given?: Readonly<Record<string, unknown>>,
  { assign = true }: { assign?: boolean } = {},
): ClassifyingModule {
  const model = createFor(record, state, given);
  try {
    model.loadStateDict(state, { assign });
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

function create(record: ModelRecord, options: object | undefined): ClassifyingModule {
  return (record.create as (options?: object) => ClassifyingModule)(options);
}

/** A network with the weights of a file or of the record: found, fetched, made. Errors: as `toFile`, `load` and `makeModel`. */
export async function loadModel(
  record: ModelRecord,
  source: PublishedWeights | string,
  options: TransferOptions & WeightsPlace,
  given?: Readonly<Record<string, unknown>>,
): Promise<ClassifyingModule> {
  const file = await toFile(source, options);
  const state = await readWeights(file, record, options, options.signal);
  try {
    return makeModel(record, state, given);
  } finally {
    state.dispose();
  }
}

/**
 * What a factory gives: a model with initial weights, or with `pretrained` the promise of one with published weights.
 *
 * @throws as the model's own function; with `pretrained` (rejects) also ERR_SENET_ARG_RANGE (no weights of this name),
 *   ERR_SENET_STATE_DICT and as `loadStateDictFromUrl`
 */
export function makeOrLoad(
  record: ModelRecord,
  options: object | undefined,
): ClassifyingModule | Promise<ClassifyingModule> {
  if (!isPlainObject(options) || !('pretrained' in options)) return create(record, options);
  const { pretrained, ...rest } = options;
  if (pretrained === true || typeof pretrained === 'string') return loadPretrained(record, options);
  checkBoolean(pretrained ?? false, `${record.name}: pretrained`);
  return create(record, rest);
}

async function loadPretrained(
  record: ModelRecord,
  options: Readonly<Record<string, unknown>>,
): Promise<ClassifyingModule> {
  const where = record.name;
  const own = record.options.filter((name) => name !== 'initWeights');
  const known = ['pretrained', ...own, 'progress', 'checkHash', 'signal'];
  const { pretrained, progress, checkHash, signal, ...given } = checkOptions(options, known, where);
  const published = publishedOf(record, pretrained as true | string, `${where}: pretrained`);
  const { inChannels = record.inChannels } = published;
  const channels = checkInChannels((given.inChannels as number | undefined) ?? inChannels, where);
  if (channels !== inChannels) {
    throw makeError(
      'ERR_SENET_STATE_DICT',
      `${where}: inChannels: the published weights take images of ${inChannels} channels, got ${channels}`,
    );
  }
  const transfer = {
    ...(progress === undefined ? {} : { progress }),
    ...(checkHash === undefined ? {} : { checkHash }),
    ...(signal === undefined ? {} : { signal }),
  } as TransferOptions;
  return loadModel(record, published, transfer, given);
}
