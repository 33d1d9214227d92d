/**
 * The models by name, with what others need to know of them: the command line, the image classifier and the
 * tests are driven by this table. A new model is one line here.
 */
import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { checkString, describe, nearest } from '../tensor/options';
import * as cifar from './cifar-se-resnet';
import { se_inception_v3 } from './se-inception-v3';
import * as imagenet from './se-resnet';

export interface ModelInfo {
  /** Height and width of the images that the model was designed for. */
  readonly inputSize: number;
  /** False if it takes `inputSize` only. */
  readonly anyInputSize: boolean;
  /** The default of `numClasses`; null if it is required. */
  readonly numClasses: number | null;
  /** The options of its factory. */
  readonly options: readonly string[];
  /** Names of its published weights. */
  readonly weights: readonly string[];
}

interface ModelEntry<Options, Model> extends ModelInfo {
  readonly create: (options?: Options) => Model;
}

type ImagenetEntry = ModelEntry<imagenet.SEResNetOptions, imagenet.SEResNet>;
type CifarEntry<Model> = ModelEntry<cifar.CifarSEResNetOptions, Model>;

function imagenetEntry(create: ImagenetEntry['create'], weights: string[] = []): ImagenetEntry {
  return {
    create,
    inputSize: 224,
    anyInputSize: true,
    numClasses: 1000,
    options: ['numClasses', 'inChannels', 'initWeights'],
    weights,
  };
}

function cifarEntry<Model>(create: CifarEntry<Model>['create'], weights: string[] = []): CifarEntry<Model> {
  const options = ['numClasses', 'reduction', 'inChannels', 'initWeights'];
  return { create, inputSize: 32, anyInputSize: true, numClasses: 10, options, weights };
}

const MODELS = {
  se_resnet18: imagenetEntry(imagenet.se_resnet18),
  se_resnet34: imagenetEntry(imagenet.se_resnet34),
  se_resnet50: imagenetEntry(imagenet.newSeResnet50, ['imagenet']),
  se_resnet101: imagenetEntry(imagenet.se_resnet101),
  se_resnet152: imagenetEntry(imagenet.se_resnet152),
  se_resnet20: cifarEntry(cifar.se_resnet20, ['fashion_mnist']),
  se_resnet32: cifarEntry(cifar.se_resnet32),
  se_resnet56: cifarEntry(cifar.se_resnet56),
  se_preactresnet20: cifarEntry(cifar.se_preactresnet20),
  se_preactresnet32: cifarEntry(cifar.se_preactresnet32),
  se_preactresnet56: cifarEntry(cifar.se_preactresnet56),
  se_inception_v3: {
    create: se_inception_v3,
    inputSize: 299,
    anyInputSize: false,
    numClasses: null,
    options: ['numClasses', 'auxLogits', 'transformInput', 'recalibrate', 'inChannels', 'initWeights'],
    weights: [],
  },
} as const;

/** A name that `createModel` knows. */
export type ModelName = keyof typeof MODELS;

type Factory<Name extends ModelName> = (typeof MODELS)[Name]['create'];
/** The options of a model's factory. */
export type ModelOptions<Name extends ModelName = ModelName> = Parameters<Factory<Name>>[0];
/** The class of a model. */
export type ModelOf<Name extends ModelName = ModelName> = ReturnType<Factory<Name>>;

/** The names of all models. */
export function listModels(): ModelName[] {
  return Object.keys(MODELS) as ModelName[];
}

/** Whether a string names a model. */
export function isModelName(name: string): name is ModelName {
  return Object.hasOwn(MODELS, name);
}

/** What the registry knows of a model. @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_MODEL */
export function modelInfo(name: ModelName): ModelInfo {
  const { create: _, ...info } = entryOf(name, 'modelInfo');
  return info;
}

/**
 * Makes a model by name, with the options of the function of that name.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_MODEL, and what the model's own function throws
 */
export function createModel<Name extends ModelName>(name: Name, options?: ModelOptions<Name>): ModelOf<Name> {
  const create = entryOf(name, 'createModel').create as (options?: ModelOptions<Name>) => Module<unknown>;
  return create(options) as ModelOf<Name>;
}

function entryOf(name: ModelName, where: string): (typeof MODELS)[ModelName] {
  if (isModelName(checkString(name, `${where}: name`))) return MODELS[name];
  const hint = nearest(name, listModels());
  const suggestion = hint === undefined ? '' : `; did you mean '${hint}'?`;
  throw makeError(
    'ERR_SENET_UNKNOWN_MODEL',
    `${where}: no model is named ${describe(name)}${suggestion} (known are ${listModels().join(', ')})`,
  );
}
