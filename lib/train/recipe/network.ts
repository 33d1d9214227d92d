/** The network of a recipe: a new one, one from weights with a new head, or that of a checkpoint; and what of it is frozen. */
import path from 'node:path';

import { StateDict } from '../../checkpoint/state-dict';
import { makeError } from '../../errors';
import { ClassifierModel, familyOf } from '../../models/classifier-model';
import { DEFAULT_NETWORK } from '../../models/defaults';
import { wantedWeights } from '../../models/find-weights';
import { weightsChannels, createShapedLike, createWithWeights } from '../../models/from-weights';
import { createModel, modelRecord, openWeights, parseName, type ModelName } from '../../models/registry';
import type { Preprocessing } from '../../models/preprocessing-record';
import type { ModelRecord } from '../../models/record';
import type { Module } from '../../nn/module';
import { printable } from '../../printable';
import { manualSeed } from '../../tensor/runtime';
import { checkImageChannels } from '../../vision/model-facts';
import { broughtBy } from '../../vision/weights-metadata';
import type { TrainingOptions, TrainingSettings } from './settings';

const WHERE = 'trainFromSettings';

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
  const { name, options: known } = recordNamed(given.model ?? DEFAULT_NETWORK);
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
  const transfer = { checkHash: given.checkHash ?? true, progress: given.progress ?? true, signal };
  const named = given.model === undefined ? null : parseName(given.model, `${WHERE}: model`);
  const { key, prefix } = given;
  const opened = await openWeights(wantedWeights(named, given, WHERE), { ...transfer, key, prefix }, WHERE);
  const { subject: record, state, file, published } = opened;
  try {
    const { preprocessing } = await broughtBy(opened);
    const inChannels = checkImageChannels(weightsChannels(opened), printable(file, 1000));
    const model = createWithWeights(opened, { inChannels }, { assign: false });
    try {
      manualSeed(seed);
      model.resetClassifier(classes);
    } catch (error) {
      model.dispose();
      throw error;
    }
    const { numClasses: _, inChannels: __, ...others } = opened.options ?? {};
    const options: Record<string, string | number> = {
      ...others,
      ...(inChannels === record.inChannels ? {} : { inChannels }),
    };
    for (const key of record.toldOptions) {
      const value = state.fileMetadata.get(key);
      if (value !== undefined) options[key] = value;
    }
    return {
      model,
      name: record.name as ModelName,
      options,
      weights: published?.name ?? path.resolve(file),
      preprocessing,
    };
  } finally {
    state.dispose();
  }
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
  const record = modelRecord(settings.model as ModelName);
  const entries = Object.entries(settings.modelOptions);
  const isTold = ([name]: readonly [string, unknown]): boolean => record.toldOptions.includes(name);
  const told = entries.filter(isTold).map(([name, value]) => [name, String(value)] as const);
  return createShapedLike(
    record,
    new StateDict(saved, saved.metadata, new Map(told)),
    Object.fromEntries(entries.filter((entry) => !isTold(entry))),
  );
}
