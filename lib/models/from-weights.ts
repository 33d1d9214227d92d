/**
 * From a file of weights to a network: the state dict of the file that fits a model, in the model's spelling, and a model
 * of the shape that it needs. Knows the records that it is given, and not the registry.
 */
import { loadFor } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { keyAliasesOf, ownName, respell, type KeyAlias, type ShapeOf } from '../nn/load-state-dict';
import { Module } from '../nn/module';
import type { Tensor } from '../tensor/tensor';
import { adaptWeights, type Adapted } from './adapt-weights';
import { aliasesOf, type ClassifyingModule, type ModelRecord } from './record';

/** What weights are for: a network that is to be made, or a Module that there is. */
export type Subject = ModelRecord | Module<unknown>;

/** Where in a file the weights are, where the file alone does not say. */
export interface WeightsPlace {
  /** Of the state dict: names joined by dots. Default: the one that fits the model best. */
  key?: string | undefined;
  /** What its names begin with, such as 'model.'. Default: what stands in front of the model's own names. */
  prefix?: string | undefined;
}

/** Weights that were read, and the network that they are for. */
export interface ReadWeights<Of extends Subject = ModelRecord> {
  readonly subject: Of;
  readonly state: StateDict;
  /** Options of the network that stand beside the weights, in `config.json`. */
  readonly options?: Readonly<Record<string, unknown>>;
}

/** The state dict of a file that fits the model best. Errors: as `load`. */
export function readWeights(
  file: string,
  model: Subject,
  { key, prefix }: WeightsPlace,
  signal: AbortSignal | undefined,
): Promise<StateDict> {
  const options = {
    ...(key === undefined ? {} : { key }),
    ...(prefix === undefined ? {} : { prefix }),
    ...(signal === undefined ? {} : { signal }),
  };
  if (Module.isModule(model)) {
    const own = tensorsOf(model);
    const types = model.namedModules().map(([, module]) => Module.typeOf(module));
    const aliases = keyAliasesOf(types, (key) => own.get(key)?.shape);
    return loadFor(file, options, { expected: () => new ModelNames(own, aliases) });
  }
  return loadFor(file, options, {
    anchor: `${model.classifier}.weight`,
    expected: () => new ModelNames(namesOf(model), aliasesOf(model)),
  });
}

/** The names that a model knows, in every spelling. */
class ModelNames {
  constructor(
    private readonly names: Pick<ReadonlyMap<string, unknown>, 'has' | 'size'>,
    private readonly aliases: readonly KeyAlias[],
  ) {}

  get size(): number {
    return this.names.size;
  }

  has(name: string): boolean {
    return this.names.has(ownName(this.names, name, this.aliases));
  }
}

const namesByModel = new Map<ModelRecord, ReadonlySet<string>>();

function namesOf(record: ModelRecord): ReadonlySet<string> {
  let names = namesByModel.get(record);
  if (names === undefined) {
    const model = create(record, { numClasses: record.numClasses ?? 1, initWeights: false });
    names = new Set(tensorsOf(model).keys());
    model.dispose();
    namesByModel.set(record, names);
  }
  return names;
}

function tensorsOf(model: Module<unknown>): ReadonlyMap<string, Tensor> {
  return new Map([...model.namedParameters(), ...model.namedBuffers()]);
}

/** Shapes by the model's own keys, whatever the spelling of the file. */
function shapesIn(state: ReadonlyMap<string, Tensor>, aliases: readonly KeyAlias[]): ShapeOf {
  let respelt: ReadonlyMap<string, Tensor> | undefined;
  return (key) => {
    const found = state.get(key);
    if (found !== undefined) return found.shape;
    respelt ??= new Map([...state].map(([name, tensor]) => [respell(name, aliases), tensor]));
    return respelt.get(key)?.shape;
  };
}

/** Channels of the images that these weights are for: those of the options, else of the first convolution, else the usual. */
export function weightsChannels({ subject, state, options = {} }: ReadWeights): number {
  const { inChannels } = options;
  return typeof inChannels === 'number' ? inChannels : channelsOfStem(subject, state);
}

function channelsOfStem(record: ModelRecord, state: StateDict): number {
  const shape = shapesIn(state, aliasesOf(record))(`${record.stem}.weight`);
  return shape?.length === 4 && shape[1] !== 0 ? (shape[1] as number) : record.inChannels;
}

/** A model without weights of the shape that these weights need; options that are given go first. */
export function createShapedLike(
  record: ModelRecord,
  state: StateDict,
  given: Readonly<Record<string, unknown>> = {},
): ClassifyingModule {
  const shapeOf = shapesIn(state, aliasesOf(record));
  return create(record, {
    numClasses: shapeOf(`${record.classifier}.weight`)?.[0] ?? classesWithout(record),
    inChannels: channelsOfStem(record, state),
    initWeights: false,
    ...record.optionsFrom({ shapeOf, metadata: state.fileMetadata }),
    ...definedOf(given),
  });
}

/** Of weights without a classifier: timm's networks then give features, others refuse what lacks a key. */
function classesWithout({ adaptsWeights, numClasses }: ModelRecord): number {
  return adaptsWeights ? 0 : (numClasses ?? 1);
}

function definedOf(given: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

/**
 * The same with the weights, which it adopts, with their dtypes; `assign` false copies them. Of timm's and other public
 * networks weights for other classes and channels are adapted as timm does it.
 *
 * @throws as the model's own function; ERR_SENET_STATE_DICT
 */
export function createWithWeights(
  { subject: record, state, options }: ReadWeights,
  given?: Readonly<Record<string, unknown>>,
  { assign = true }: { assign?: boolean } = {},
): ClassifyingModule {
  const model = createShapedLike(record, state, { ...options, ...definedOf(given) });
  let adapted: Adapted | undefined;
  try {
    if (record.adaptsWeights) adapted = adaptWeights(record, state, model);
    model.loadStateDict(adapted?.state ?? state, { assign });
    if (adapted?.hasFreshClassifier === true) {
      const [like] = model.parameters();
      if (like !== undefined) model.getClassifier().to(like.dtype);
    }
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  } finally {
    for (const tensor of adapted?.made ?? []) tensor.dispose();
  }
}

/** One with the options that its record's own function takes. */
export function create(record: ModelRecord, options: object | undefined): ClassifyingModule {
  return (record.create as (options?: object) => ClassifyingModule)(options);
}
