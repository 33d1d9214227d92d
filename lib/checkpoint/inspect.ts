/**
 * `inspectCheckpoint`: what is in a file, without its tensors' bytes and without LibTorch. Safe on hostile files; names
 * in the result are the file's own and may hold control characters, so print them through `printable`.
 */
import { isSet, isUint8Array } from '../brands';
import type { DType } from '../binding';
import { optional, readOptions, string } from '../tensor/rules';
import { inSlices, type Budget, type Sliced } from './budget';
import { findStateDict, sharedInSlices } from './find';
import { COST } from './limits';
import { Layers } from './pages';
import { parseCheckpoint, type Container, type ParsedCheckpoint } from './parse';
import { checkpointError } from './problems';
import { withSource } from './source';
import type { ModuleMetadata, StateDictSource } from './state-dict';
import { TensorRecord } from './tensor-record';
import { moduleMetadata } from './to-plain';
import {
  Dict,
  LongText,
  NumpyRecord,
  Tuple,
  UnknownObject,
  kindOf,
  unknownGlobal,
  type Value,
} from './values';

export interface InspectedTensor {
  /** Names and indices on the way to it, joined by dots. */
  readonly key: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

export interface InspectedValue {
  readonly key: string;
  /** In Python's words: int, float, str, list, ...; of an object of an unknown class, or that class itself, its name. */
  readonly type: string;
  /** The value itself where it is a number, a boolean, text or None. */
  readonly value?: string | number | boolean | null;
}

/** The network that a file of weights is for. */
export interface WeightsNetwork {
  /** The name for `createModel`; null if the library has no such network, or where several are possible. */
  readonly model: string | null;
  /** The networks with these keys and shapes. Several differ in strides and pools alone: none may be guessed. */
  readonly candidates: readonly string[];
  /** Whose networks they are, such as 'timm'. */
  readonly family: string;
  /** Whose spelling the keys have: the family's, or that of another, such as 'mmpretrain'. */
  readonly framework: string;
  /** Null without a classifier. */
  readonly numClasses: number | null;
  readonly inChannels: number;
  /** Of what its convolutions take: 2 of images, which the library has; null without the first of them. */
  readonly spatialDims: number | null;
}

export interface CheckpointReport {
  readonly container: Container;
  /** Length of the file. */
  readonly fileBytes: number;
  /** Names around the state dict that `load` would give; null if it would find none. */
  readonly stateDictAt: readonly string[] | null;
  /** The same state dict as `StateDict.source` has it; null if there is none. */
  readonly stateDict: StateDictSource | null;
  /** What all its names begin with, such as 'module.'; '' if nothing. */
  readonly sharedPrefix: string;
  readonly tensors: readonly InspectedTensor[];
  /** What else the file holds, at most 1,000 entries. */
  readonly values: readonly InspectedValue[];
  /** `__metadata__` of a safetensors file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Version of each module by path, from `_metadata`. */
  readonly moduleVersions: Readonly<Record<string, number>>;
  /** The network that the state dict is for, by keys and shapes; null if it is of none that the library has. */
  readonly network: WeightsNetwork | null;
}

type Identify = (
  report: Omit<CheckpointReport, 'network'>,
  file: string | null,
) => Promise<WeightsNetwork | null>;

/** Says which network a state dict is for; those that know the networks say how. */
let identify: Identify = () => Promise.resolve(null);

/** Lets reports name the network. */
export function identifyNetworks(identifier: Identify): void {
  identify = identifier;
}

const MAX_VALUES = 1000;
/** Characters of all keys together: every key repeats the names above it, and one name may be as long as the pickle. */
const MAX_KEY_CHARACTERS = 16 * 1024 * 1024;

export interface InspectOptions {
  /** As of `load`: where the state dict is. */
  key?: string;
  /** As of `load`: what its names begin with. */
  prefix?: string;
}

/**
 * Describes a checkpoint.
 * @param source - a path, or the bytes of a file
 * @throws (rejects) as `load`
 */
export async function inspectCheckpoint(
  source: string | Uint8Array,
  options?: InspectOptions,
): Promise<CheckpointReport> {
  const where = 'inspectCheckpoint';
  const { key, prefix } = readOptions(options, { key: optional(string), prefix: optional(string) }, where);
  const described = await withSource(source, async (opened) =>
    report(await parseCheckpoint(opened), opened.size, { key, prefix }),
  );
  return { ...described, network: await identify(described, typeof source === 'string' ? source : null) };
}

async function report(
  parsed: ParsedCheckpoint,
  fileBytes: number,
  wish: { key: string | undefined; prefix: string | undefined },
): Promise<Omit<CheckpointReport, 'network'>> {
  const { value, budget, container, source } = parsed;
  const { tensors, values } = await inSlices(budget, listParts(parsed, source.label));
  // What stands in the place of a weight is for `load` to refuse; here it is shown.
  const found = await findStateDict(value, { ...wish, lenient: true }, source.label, budget);
  const versions = await inSlices(
    budget,
    moduleMetadata(found?.dict.metadata ?? null, '', source.label, budget),
  );
  return {
    container,
    fileBytes,
    stateDictAt: found ? found.wrappers : null,
    stateDict: found && {
      key: found.wrappers.join('.'),
      prefix: found.prefix,
      dropped: found.dropped,
      others: found.others,
    },
    sharedPrefix: found ? await inSlices(budget, sharedInSlices(found.tensors.keys(), budget)) : '',
    tensors,
    values,
    metadata: await inSlices(budget, toRecord(parsed.metadata, budget)),
    moduleVersions: await inSlices(budget, toRecord(versionsOf(versions), budget)),
  };
}

function* versionsOf(metadata: ReadonlyMap<string, ModuleMetadata>): Iterable<[string, number]> {
  for (const [path, { version }] of metadata) if (typeof version === 'number') yield [path, version];
}

/** As `Object.fromEntries`: own properties, whatever their names. */
function* toRecord<T>(entries: Iterable<readonly [string, T]>, budget: Budget): Sliced<Record<string, T>> {
  const record: Record<string, T> = {};
  const facts = { enumerable: true, configurable: true, writable: true };
  for (const [name, value] of entries) {
    if (name === '__proto__') Object.defineProperty(record, name, { value, ...facts });
    else record[name] = value;
    if (budget.spend(2)) yield;
  }
  return record;
}

interface Parts {
  readonly tensors: InspectedTensor[];
  readonly values: InspectedValue[];
}

function* listParts({ value: root, budget }: ParsedCheckpoint, label: string): Sliced<Parts> {
  const tensors: InspectedTensor[] = [];
  const values: InspectedValue[] = [];
  // Each container once: a few bytes of pickle can name one list in exponentially many places.
  const seen = new Layers<object, true>();
  const frames: { key: string; children: Iterator<[string, Value]> }[] = [];
  let keyCharacters = 0;
  const visit = (value: Value, key: string): void => {
    keyCharacters += key.length;
    if (keyCharacters > MAX_KEY_CHARACTERS) {
      const message = `names of more than ${MAX_KEY_CHARACTERS} characters together`;
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
    }
    if (value instanceof TensorRecord) {
      budget.charge(COST.dict);
      tensors.push({ key, dtype: value.dtype, shape: value.shape, bytes: value.bytes });
      return;
    }
    const children = childrenOf(value);
    const isShown = children === null || value instanceof UnknownObject;
    if (isShown && values.length < MAX_VALUES) {
      values.push({ key, type: unknownGlobal(value) ?? kindOf(value), ...plain(value) });
    }
    if (children === null || seen.get(value as object) === true) return;
    budget.charge(COST.entry);
    seen.set(value as object, true);
    frames.push({ key, children: children[Symbol.iterator]() });
  };
  visit(root, '');
  for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
    if (budget.spend(1)) yield;
    const next = frame.children.next();
    if (next.done === true) frames.pop();
    else {
      const [key, child] = next.value;
      visit(child, frame.key === '' ? key : `${frame.key}.${key}`);
    }
  }
  return { tensors, values };
}

function* numbered(items: Iterable<Value>): Iterable<[string, Value]> {
  let index = 0;
  for (const item of items) yield [String(index++), item];
}

function childrenOf(value: Value): Iterable<[string, Value]> | null {
  if (Array.isArray(value) || isSet(value)) return numbered(value);
  if (value instanceof Tuple) return numbered(value.items);
  if (value instanceof Dict) return named(value);
  if (value instanceof UnknownObject) return partsOf(value);
  if (value instanceof NumpyRecord && !isUint8Array(value.data)) return numbered(value.data);
  return null;
}

/** Attributes and entries under their names, the others numbered. */
function* partsOf({ args, keywords, state, items, entries }: UnknownObject): Iterable<[string, Value]> {
  yield* numbered(args);
  for (const dict of [keywords, state, entries]) {
    if (dict instanceof Dict) yield* named(dict);
    else if (dict !== null) yield ['state', dict];
  }
  if (items !== null) yield* numbered(items);
}

function* named(dict: Dict): Iterable<[string, Value]> {
  for (const [key, value] of dict) {
    yield [typeof key === 'object' && key !== null ? kindOf(key) : String(key), value];
  }
}

function plain(value: Value): { value?: string | number | boolean | null } {
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return { value };
  if (typeof value === 'bigint') return { value: value.toString() };
  if (value instanceof LongText) return plain(value.pieces[0] as string);
  if (typeof value === 'string') return { value: value.length > 200 ? `${value.slice(0, 200)}...` : value };
  return {};
}
