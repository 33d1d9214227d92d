/**
 * The models by name: the rows of all pages. The command line, the image classifier and the tests are driven by these
 * records. A new page is one line here; a new model of a page is a row there.
 */
import { identifyNetworks } from '../checkpoint/inspect';
import { makeError } from '../errors';
import type { ProgressOption } from '../hub/progress';
import { describeNetworks } from '../nn/load-state-dict';
import type { Module } from '../nn/module';
import { checkString, describe, hint } from '../tensor/options';
import { boolean, optional, readOptions, string } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import { CIFAR_MODELS } from './cifar-se-resnet';
import type { ClassifierModel } from './classifier-model';
import type { Subject, WeightsPlace } from './from-weights';
import { type Transfer } from './fetch-weights';
import { networkAmong, type WantedWeights } from './find-weights';
import { identify, problemOfDims, twinOf } from './identify';
import { isOfWeights, parseModel, parseSource, type ModelSource, type WeightsEnding } from './model-source';
import { loadModel, openAmong, type OpenedWeights } from './open-weights';
import { makeOrLoad, readFileOptions, wantsPretrained, type PretrainedOptions } from './pretrained';
import { PYTORCHCV_MODELS } from './pytorchcv-se-resnet';
import { recognise, type Shapes } from './recognise';
import { recordBehind, type ModelRecord, type PublishedWeights } from './record';
import { INCEPTION_MODELS, type InceptionOutputs } from './se-inception-v3';
import { SE_RESNET_MODELS } from './se-resnet';
import { SENET_MODELS } from './timm-legacy-senet';
import { RESNET_MODELS } from './timm-resnet';

const MODELS = {
  ...SE_RESNET_MODELS,
  ...CIFAR_MODELS,
  ...INCEPTION_MODELS,
  ...RESNET_MODELS,
  ...SENET_MODELS,
  ...PYTORCHCV_MODELS,
} as const;

/** A name that `createModel` knows. */
export type ModelName = keyof typeof MODELS;

type Factory<Name extends ModelName> = (typeof MODELS)[Name]['create'];
/** The options of a model's factory. */
export type ModelOptions<Name extends ModelName = ModelName> = Parameters<Factory<Name>>[0];
/** The class of a model. */
export type ModelOf<Name extends ModelName = ModelName> = ReturnType<Factory<Name>>;

/** Which models are meant. */
export interface ListModelsOptions {
  /** Only those with published weights, or with false those without. */
  pretrained?: boolean;
  /** Only names of this form; `*` stands for any characters, as in 'se_resnet*'. */
  match?: string;
}

/**
 * The names of all models, or of those that are meant.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION
 */
export function listModels(options?: ListModelsOptions): ModelName[] {
  const rules = { pretrained: optional(boolean), match: optional(string) };
  const { pretrained, match = '*' } = readOptions(options, rules, 'listModels');
  const parts = match.split('*');
  const form = new RegExp(
    `^${parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('.*')}$`,
    'u',
  );
  return allRecords()
    .filter(({ weights }) => pretrained === undefined || pretrained === weights.length > 0)
    .map(({ name }) => name as ModelName)
    .filter((name) => form.test(name));
}

/** @internal The records of all models. */
export function allRecords(): ModelRecord[] {
  return Object.values(MODELS);
}

/** Whether a string names a model. */
export function isModelName(name: string): name is ModelName {
  return Object.hasOwn(MODELS, name);
}

/**
 * What the library knows of a model: input, head, options, preprocessing and published weights.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_MODEL
 */
export function modelRecord(name: ModelName): ModelRecord {
  return recordOf(name, 'modelRecord');
}

/** @internal What a name means. @throws ERR_SENET_UNKNOWN_MODEL, and ERR_SENET_ARG_RANGE as `parseModel` */
export function parseName(name: string, where: string): ModelSource {
  const source = parseModel(allRecords(), name, where);
  if (source === null) throw unknownModel(name, where);
  return source;
}

/** @internal As `networkAmong` of all models. */
export function networkNamed(
  name: string,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<ModelRecord> {
  return networkAmong(allRecords(), parseName(name, where), options, where);
}

/** @internal As `openAmong` of all models. */
export function openWeights<Of extends Subject>(
  wanted: WantedWeights<Of>,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<OpenedWeights<ModelRecord | Of>> {
  return openAmong(allRecords(), wanted, options, where);
}

/**
 * @internal Weights that a path, a repository of the hub ('hf-hub:...') or a folder ('local-dir:...') says, and never a
 * name of published ones. @param model - the network that they are for; undefined: the one that they say
 */
export function openPlace(
  place: string,
  model: string | undefined,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<OpenedWeights> {
  const subject = model === undefined ? null : modelRecord(model as ModelName);
  return openWeights({ subject, weights: parseSource(place, where) }, options, where);
}

/** What is said of a state dict that is another network's. */
function describeForeign(given: Shapes, expected: Shapes): string | null {
  const found = recognise(allRecords(), given);
  if (found === null) return null;
  const names = found.candidates.map(({ name }) => name);
  if (names.length === 0) return problemOfDims(found.spatialDims);
  const own = recognise(allRecords(), expected)?.candidates.map(({ name }) => name) ?? [];
  if (names.some((name) => own.includes(name))) return null;
  return `its keys and shapes are those of ${names.join(' or ')} (${found.framework}): make that network for it`;
}
/**
 * Makes a model by name, with the options of the function of that name. With `pretrained` it is the promise of one with
 * published weights: true for the usual ones, or their name; number of classes, channels and other options are those of
 * the weights. A name may have a tag of timm's ('seresnet50.a1_in1k'), which `pretrained: true` then means.
 *
 * In place of a name, a repository of the Hugging Face hub ('hf-hub:timm/seresnet50.a1_in1k', with '@REVISION'), a folder
 * ('local-dir:PATH', with `config.json` and `model.safetensors`) or the path of a file of weights gives the promise of the
 * network that the weights are for, with them: `config.json` says which, else their keys and shapes.
 *
 * The module is in training mode, as in PyTorch: call `eval()`.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_RANGE (no weights of this tag), and what the model's
 *   own function throws; with `pretrained` (rejects) also ERR_SENET_STATE_DICT and as `loadStateDictFromUrl`; for a
 *   repository, a folder and a file (rejects) ERR_SENET_UNKNOWN_WEIGHTS, ERR_SENET_STATE_DICT, as `load`, and of the hub
 *   ERR_SENET_OFFLINE, ERR_SENET_DOWNLOAD, ERR_SENET_HASH, ERR_SENET_LOCKED
 */
export function createModel<Name extends ModelName>(
  name: Name | `${Name}.${string}`,
  options: PretrainedModelOptions<Name>,
): Promise<ModelOf<Name>>;
export function createModel(
  name: WeightsPath,
  options?: FileModelOptions,
): Promise<ClassifierModel<Tensor | InceptionOutputs>>;
export function createModel<Name extends ModelName>(
  name: Name | `${Name}.${string}`,
  options?: ModelOptions<Name> & { pretrained?: false },
): ModelOf<Name>;
export function createModel<S extends string>(
  name: AnyText<S>,
  options?: FileModelOptions,
): ClassifierModel<Tensor | InceptionOutputs> | Promise<ClassifierModel<Tensor | InceptionOutputs>>;
export function createModel(
  name: string,
  options?: object & { pretrained?: unknown },
): Module<unknown> | Promise<Module<unknown>> {
  return (typeof name === 'string' && isOfWeights(allRecords(), name)) || wantsPretrained(options)
    ? Promise.resolve().then(() => makeNamed(name, options))
    : makeNamed(name, options);
}

function makeNamed(
  name: string,
  options: (object & { pretrained?: unknown }) | undefined,
): Module<unknown> | Promise<Module<unknown>> {
  const source = parseName(checkString(name, 'createModel: name'), 'createModel');
  if (source.kind === 'model') {
    const { record, published } = source;
    return makeOrLoad(record, published === null ? options : optionsOfTag(published, options));
  }
  const { pretrained: _, ...rest } = (options ?? {}) as FileModelOptions & { pretrained?: unknown };
  // Of which network they are will be known when it is fetched.
  const [own, given] = readFileOptions(allRecords(), rest, 'createModel');
  return loadModel(allRecords(), { subject: null, weights: source }, own, 'createModel', given);
}

/** What options mean behind a name with a tag: `pretrained: true` the tag, and without weights its classes, as in timm. */
function optionsOfTag(
  { model, name, numClasses }: PublishedWeights,
  options: (object & { pretrained?: unknown }) | undefined,
): object {
  const { pretrained } = options ?? {};
  if (typeof pretrained === 'string' && pretrained !== name) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `createModel: pretrained: '${model}.${name}' says the weights already, got ${describe(pretrained)}`,
    );
  }
  if (wantsPretrained(options)) return { ...options, pretrained: name };
  return { ...(numClasses === undefined ? {} : { numClasses }), ...options };
}

/** A repository of the hub, a folder, or the path of a file of weights. */
export type WeightsPath =
  | `${'hf-hub' | 'hf_hub' | 'local-dir' | 'local_dir'}:${string}`
  | `${string}/${string}`
  | `${string}.${WeightsEnding}`;

/** A string of which the compiler knows no letter: what a literal means is checked instead. */
export type AnyText<S extends string> = string extends S ? S : never;

/** The options of a model that is made for a file of weights. */
export interface FileModelOptions {
  /** Of the state dict in the file: names joined by dots. Default: the one that fits best. */
  key?: string;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string;
  /** Of a download. Default true: a bar on a terminal. */
  progress?: ProgressOption;
  /** As with `pretrained`. */
  numClasses?: number;
  /** As with `pretrained`. */
  inChannels?: number;
  signal?: AbortSignal;
}

/** The options of a model with published weights. */
export type PretrainedModelOptions<Name extends ModelName = ModelName> = PretrainedOptions &
  Partial<Omit<NonNullable<ModelOptions<Name>>, 'initWeights' | keyof PretrainedOptions>>;

function recordOf(name: ModelName, where: string): ModelRecord {
  if (isModelName(checkString(name, `${where}: name`))) return MODELS[name];
  throw unknownModel(name, where);
}

function unknownModel(name: string, where: string): Error {
  return makeError(
    'ERR_SENET_UNKNOWN_MODEL',
    `${where}: no model is named ${describe(name)}${hint(name, listModels())} (listModels() names the ${allRecords().length} that there are)`,
  );
}

// What `checkpoint/inspect` and `nn/load-state-dict` say of networks: they lie below, and know none themselves.
identifyNetworks((report, file) => identify(allRecords(), report, file));
describeNetworks({
  foreign: describeForeign,
  twin: (module, metadata) => {
    const own = recordBehind(module as Module<unknown>);
    return own === undefined ? null : twinOf(own.name, metadata);
  },
});
