/**
 * The models by name: the rows of all pages. The command line, the image classifier and the tests are driven by these
 * records. A new page is one line here; a new model of a page is a row there.
 */
import type { CheckpointReport } from '../checkpoint/inspect';
import { makeError } from '../errors';
import { describeNetworks } from '../nn/load-state-dict';
import type { Module } from '../nn/module';
import { checkString, describe, hint } from '../tensor/options';
import { boolean, optional, readOptions, string } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import { CIFAR_MODELS } from './cifar-se-resnet';
import type { ClassifierModel } from './classifier-model';
import { identify, identifyFile, type WeightsNetwork } from './identify';
import { loadFromFile, makeOrLoad, wantsPretrained, type PretrainedOptions } from './pretrained';
import { PYTORCHCV_MODELS } from './pytorchcv-se-resnet';
import { recognise, type Shapes } from './recognise';
import type { ModelRecord, PublishedWeights } from './record';
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
  const form = new RegExp(`^${parts.map((part) => part.replace(/[^\w]/g, '\\$&')).join('.*')}$`, 'u');
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

/** @internal Published weights of any model by their name. */
export function findPublished(weights: string): PublishedWeights | undefined {
  return allRecords()
    .flatMap((record) => record.weights)
    .find(({ name }) => name === weights);
}

/** @internal The network that a file of weights is for, whatever framework wrote it. Errors: as `identifyFile`. */
export function modelOfFile(
  file: string,
  place: { key?: string | undefined; prefix?: string | undefined },
  where: string,
): Promise<ModelRecord> {
  const { key, prefix } = place;
  const options = { ...(key === undefined ? {} : { key }), ...(prefix === undefined ? {} : { prefix }) };
  return identifyFile(allRecords(), file, options, where);
}

/** @internal The same of what was inspected; null if it is of no network of the library. */
export function networkOf(report: CheckpointReport, file: string | null): Promise<WeightsNetwork | null> {
  return identify(allRecords(), report, file);
}

/** What is said of a state dict that is another network's. */
function describeForeign(given: Shapes, expected: Shapes): string | null {
  const found = recognise(allRecords(), given);
  const names = found?.candidates.map(({ name }) => name) ?? [];
  const own = recognise(allRecords(), expected)?.candidates.map(({ name }) => name) ?? [];
  if (found === null || names.length === 0 || names.some((name) => own.includes(name))) return null;
  return `its keys and shapes are those of ${names.join(' or ')} (${found.framework}): make that network for it`;
}
describeNetworks(describeForeign);

/** @internal Whether a string is meant as a file, and no name: with a folder, or the ending of a file of weights. */
export function isWeightsPath(name: string): boolean {
  return /[/\\]|\.(safetensors|pth?|pkl|bin|ckpt|tar|zip)$/i.test(name);
}

/**
 * Makes a model by name, with the options of the function of that name. With `pretrained` it is the promise of one with
 * published weights: true for the usual ones, or their name; number of classes, channels and other options are those of
 * the weights. The path of a file of weights in place of a name gives the promise of the network that they are for, by
 * their keys and shapes, with them. The module is in training mode, as in PyTorch: call `eval()`.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_MODEL, for a path (rejects) ERR_SENET_UNKNOWN_WEIGHTS and as `load`, and what the model's own function throws; with `pretrained`
 *   (rejects) also ERR_SENET_ARG_RANGE (no weights of this name), ERR_SENET_STATE_DICT and as `loadStateDictFromUrl`
 */
export function createModel<Name extends ModelName>(
  name: Name,
  options: PretrainedModelOptions<Name>,
): Promise<ModelOf<Name>>;
export function createModel<Name extends ModelName>(
  name: Name,
  options?: ModelOptions<Name> & { pretrained?: false },
): ModelOf<Name>;
export function createModel(
  name: WeightsPath,
  options?: FileModelOptions,
): Promise<ClassifierModel<Tensor | InceptionOutputs>>;
export function createModel<S extends string>(
  name: AnyText<S>,
  options?: FileModelOptions,
): ClassifierModel<Tensor | InceptionOutputs> | Promise<ClassifierModel<Tensor | InceptionOutputs>>;
export function createModel(
  name: string,
  options?: object & { pretrained?: unknown },
): Module<unknown> | Promise<Module<unknown>> {
  if (typeof name === 'string' && !isModelName(name) && isWeightsPath(name)) {
    const given = (options ?? {}) as FileModelOptions;
    return modelOfFile(name, given, 'createModel').then((record) => loadFromFile(record, name, given));
  }
  const make = (): Module<unknown> | Promise<Module<unknown>> =>
    makeOrLoad(recordOf(name as ModelName, 'createModel'), options);
  return wantsPretrained(options) ? Promise.resolve().then(make) : make();
}

/** The path of a file of weights. */
export type WeightsPath = `${string}/${string}` | `${string}.${'safetensors' | 'pt' | 'pth' | 'pkl' | 'bin'}`;

/** A string of which the compiler knows no letter: what a literal means is checked instead. */
export type AnyText<S extends string> = string extends S ? S : never;

/** The options of a model that is made for a file of weights. */
export interface FileModelOptions {
  /** Of the state dict in the file: names joined by dots. Default: the one that fits best. */
  key?: string;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string;
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
  throw makeError(
    'ERR_SENET_UNKNOWN_MODEL',
    `${where}: no model is named ${describe(name)}${hint(name, listModels())} (known are ${listModels().join(', ')})`,
  );
}
