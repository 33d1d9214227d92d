/** The network of a recipe: a new one, one from weights with a new head, or that of a checkpoint; and what of it is frozen. */
import path from 'node:path';

import { StateDict } from '../../checkpoint/state-dict';
import { makeError } from '../../errors';
import { ClassifierModel, familyOf } from '../../models/classifier-model';
import { channelsIn, createShapedLike, createWithWeights, readWeights } from '../../models/from-weights';
import { publishedOf, toFile } from '../../models/pretrained';
import { createModel, locateWeights, modelRecord, parseName, type ModelName } from '../../models/registry';
import { findWeights } from '../../models/find-weights';
import { saysWeights } from '../../models/model-source';
import type { Preprocessing } from '../../models/preprocessing-record';
import type { ModelRecord } from '../../models/record';
import type { Module } from '../../nn/module';
import { printable } from '../../printable';
import { manualSeed } from '../../tensor/runtime';
import { checkImageChannels } from '../../vision/network';
import { broughtBy } from '../../vision/weights-metadata';
import type { TrainingOptions, TrainingSettings } from './settings';

export interface RecipeNetwork {
  readonly model: Module<unknown>;
  readonly name: ModelName;
  readonly options: TrainingSettings['modelOptions'];
  readonly weights: string | null;
  /** What the weights say of their input. */
  readonly preprocessing?: Preprocessing | undefined;
}

/** A new network, drawn from the seed. */
export function newNetwork(given: TrainingOptions, classes: number, seed: number): RecipeNetwork {
  const { name, options: known } = recordNamed(given.model ?? 'se_resnet20');
  const { reduction, inChannels } = given;
  if (reduction !== undefined && !known.includes('reduction'))
    throw makeError('ERR_SENET_UNKNOWN_OPTION', `trainFromSettings: reduction: ${name} has none to choose`);
  const options = {
    ...(reduction === undefined ? {} : { reduction }),
    ...(inChannels === undefined ? {} : { inChannels }),
  };
  manualSeed(seed);
  const wanted = { ...options, numClasses: classes } as Parameters<typeof createModel>[1];
  const model = createModel(name as ModelName, wanted);
  return { model, name: name as ModelName, options, weights: null };
}

/** Of a network's name, which may have a tag. @throws ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_RANGE */
function recordNamed(model: string): ModelRecord {
  const source = parseName(model, 'trainFromSettings: model');
  if (source.kind === 'model') return source.record;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `train: '${printable(model)}' is of weights, and training begins without: finetune begins with them`,
  );
}

/** The network of the weights with a new head, drawn from the seed. */
export async function networkFromWeights(
  given: TrainingOptions,
  classes: number,
  seed: number,
  signal: AbortSignal | undefined,
): Promise<RecipeNetwork> {
  const { weights: chosen, model: named } = chooseWeights(given);
  const transfer = { checkHash: given.checkHash ?? true, progress: given.progress ?? true, signal };
  const source = await findWeights(chosen, named, 'finetune', transfer);
  const file = await toFile(source, transfer);
  const published = typeof source === 'object' ? source : undefined;
  const name = (named ?? published?.model ?? (await modelOfFile(file, given))) as ModelName;
  const record = modelRecord(name);
  const state = await readWeights(file, record, given, signal);
  try {
    const { preprocessing } = await broughtBy({ state, published, file, model: name });
    const inChannels = checkImageChannels(channelsIn(record, state), printable(file, 1000));
    const model = createWithWeights(record, state, { inChannels }, { assign: false });
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

/** The network that a file is for. Errors: as `locateWeights`. */
async function modelOfFile(file: string, { key, prefix }: TrainingOptions): Promise<string> {
  return (await locateWeights({ kind: 'file', file }, { key, prefix }, 'finetune')).record.name;
}

interface Chosen {
  /** Null where the weights say it. */
  readonly model: ModelName | null;
  readonly weights: string;
}

function chooseWeights(given: TrainingOptions): Chosen {
  const { weights, pretrained, model } = given;
  if (weights != null && pretrained === true)
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      'trainFromSettings: { pretrained } and { weights } exclude each other',
    );
  if (model === undefined) {
    if (weights != null) return { model: null, weights };
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      pretrained === true
        ? 'trainFromSettings: { pretrained } needs { model }, such as se_resnet50'
        : 'finetune: give { weights: FILE } or { pretrained }',
    );
  }
  const where = 'trainFromSettings: model';
  const source = parseName(model, where);
  if (weights != null && saysWeights(source))
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: '${printable(model)}' says the weights already: leave { weights } out`,
    );
  if (source.kind !== 'model') return { model: null, weights: model };
  const { record, published } = source;
  const named = weights ?? published?.name;
  if (named === undefined && pretrained !== true)
    throw makeError('ERR_SENET_ARG_MISSING', 'finetune: give { weights: FILE } or { pretrained }');
  const usual = (): string => publishedOf(record, true, 'trainFromSettings: pretrained').name;
  return { model: record.name as ModelName, weights: named ?? usual() };
}

/** The paths that the option `freeze` means. @throws ERR_SENET_ARG_RANGE for one that is none, or if nothing is left to train */
export function frozenParts(model: Module<unknown>, given: readonly string[] = []): string[] {
  if (given.length === 0) return [];
  const names = model.namedModules().map(([name]) => name);
  const heads = ClassifierModel.headsOf(model);
  // The parts of the network that has the head, which may stand in another.
  const root = /^(.*\.)?/.exec(familyOf(model)?.classifier ?? '')?.[0] ?? '';
  const children = names.filter(
    (name) => name.startsWith(root) && name.length > root.length && !name.slice(root.length).includes('.'),
  );
  const holdsHead = (part: string): boolean =>
    heads.some((head) => head === part || head.startsWith(`${part}.`));
  const parts = given.flatMap((part) =>
    part === 'backbone' ? children.filter((child) => !holdsHead(child)) : [part],
  );
  for (const part of parts) {
    if (names.includes(part) && part !== '') continue;
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `trainFromSettings: freeze: the model has no part '${printable(part)}'; it has ${children.join(', ')}`,
    );
  }
  const isFrozen = (name: string): boolean => parts.some((part) => name.startsWith(`${part}.`));
  if (model.namedParameters().every(([name]) => isFrozen(name)))
    throw makeError('ERR_SENET_ARG_RANGE', 'trainFromSettings: freeze: nothing would be left to train');
  return parts;
}

export function freeze(model: Module<unknown>, parts: readonly string[]): void {
  for (const part of parts)
    for (const parameter of model.getSubmodule(part).parameters()) parameter.requiresGrad = false;
}

/** The network of a run that goes on, with the shapes and options of its checkpoint; without its weights. */
export function networkOfCheckpoint(settings: TrainingSettings, saved: StateDict): Module<unknown> {
  const options = Object.entries(settings.modelOptions).map(
    ([name, value]) => [name, String(value)] as const,
  );
  return createShapedLike(
    modelRecord(settings.model as ModelName),
    new StateDict(saved, saved.metadata, new Map(options)),
  );
}
