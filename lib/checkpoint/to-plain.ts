/**
 * What users see of the values of a checkpoint: Maps, arrays, numbers, text, and an `OpaqueValue` for what this library
 * does not know. In slices and without recursion. Makes no tensors: it is given them.
 */
import { isSet, isUint8Array } from '../brands';
import type { Budget, Sliced } from './budget';
import { COST, MAX_ENTRIES, MAX_FACTS } from './limits';
import { toNumpyArray } from './numpy-values';
import { Layers } from './pages';
import { checkpointError } from './problems';
import { StateDict, type ModuleMetadata } from './state-dict';
import { TensorRecord } from './tensor-record';
import {
  Complex,
  Dict,
  GlobalName,
  LongText,
  NumpyRecord,
  NumpyType,
  Tuple,
  UnknownObject,
  type Value,
} from './values';
import type { Tensor } from '../tensor/tensor';

/**
 * An object of a checkpoint whose class this library does not know (`argparse.Namespace`, `pathlib.PosixPath`, a class of
 * one's own), or that class or function itself. Nothing was imported or called: these are the parts that the file would
 * have had it made of.
 */
export class OpaqueValue {
  /** What it was called with to make it, keyword arguments in a Map at the end; null for a class or function that is only named. */
  args: unknown[] | null = null;
  /** What it was given then, such as its attributes in a Map; null if nothing. */
  state: unknown = null;
  /** Of a list or set of its own class; null if it was given none. */
  items: unknown[] | null = null;
  /** Of a dictionary of its own class; null if it was given none. */
  entries: Map<unknown, unknown> | null = null;

  /** @param global - Python's name: module and name, joined by a dot */
  constructor(readonly global: string) {}
}

export type TensorOf = (record: TensorRecord) => Tensor;

/** PyTorch's `_metadata`, its plain facts only; those of modules under `prefix`, without it. */
export function* moduleMetadata(
  value: Value,
  prefix: string,
  label: string,
  budget: Budget,
): Sliced<Map<string, ModuleMetadata>> {
  const metadata = new Map<string, ModuleMetadata>();
  if (!(value instanceof Dict)) return metadata;
  const tooMany = (what: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, `_metadata of more than ${what}`);
  if (value.size > MAX_ENTRIES) throw tooMany(`${MAX_ENTRIES} modules`);
  for (const [path, facts] of value) {
    if (budget.spend(1)) yield;
    if (typeof path !== 'string' || !(facts instanceof Dict)) continue;
    // 'module' is the wrapped module itself, 'module.layer1' one inside it.
    if (!`${path}.`.startsWith(prefix)) continue;
    if (facts.size > MAX_FACTS) throw tooMany(`${MAX_FACTS} facts for one module`);
    const known: [string, Value][] = [];
    for (const [name, fact] of facts) {
      if (budget.spend(1)) yield;
      budget.charge(COST.entry + COST.tuple);
      if (typeof name === 'string' && isPlain(fact)) known.push([name, fact]);
    }
    // fromEntries defines own properties, whatever their names.
    metadata.set(path.slice(prefix.length), Object.fromEntries(known));
  }
  return metadata;
}

function isPlain(value: Value): boolean {
  return value === null || ['number', 'bigint', 'string', 'boolean'].includes(typeof value);
}

/** A container that is made and not filled. */
interface Task {
  readonly children: Iterator<Value>;
  add(child: unknown): void;
}

/** True for a dictionary that has only tensors, under names. */
function* isStateDict(dict: Dict, budget: Budget): Sliced<boolean> {
  for (const [name, value] of dict) {
    if (budget.spend(1)) yield;
    if (typeof name !== 'string' || !(value instanceof TensorRecord)) return false;
  }
  return dict.size > 0;
}

/** Converts once each, so that what was shared or cyclic stays so. */
export function* toPlain(
  root: Value,
  fileMetadata: ReadonlyMap<string, string>,
  tensorOf: TensorOf,
  label: string,
  budget: Budget,
): Sliced<unknown> {
  const done = new Layers<object, object>();
  const tasks: Task[] = [];
  const list = (items: Iterable<Value>): unknown[] => {
    budget.charge(COST.list);
    const converted: unknown[] = [];
    tasks.push({
      children: items[Symbol.iterator](),
      add: (child) => {
        budget.charge(COST.slot);
        converted.push(child);
      },
    });
    return converted;
  };
  const map = (dict: Dict): Map<unknown, unknown> => {
    budget.charge(COST.dict);
    const converted = new Map<unknown, unknown>();
    let key: unknown;
    let odd = false;
    tasks.push({
      children: keysAndValues(dict),
      add: (child) => {
        odd = !odd;
        if (odd) {
          key = child;
          return;
        }
        if (converted.size >= MAX_ENTRIES) {
          const message = `a dictionary of more than ${MAX_ENTRIES} entries, which only load passes over`;
          throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
        }
        budget.charge(COST.entry);
        converted.set(key, child);
      },
    });
    return converted;
  };
  const set = (items: Set<Value>): Set<unknown> => {
    budget.charge(COST.set);
    const converted = new Set<unknown>();
    tasks.push({
      children: items.values(),
      add: (child) => {
        budget.charge(COST.entry);
        converted.add(child);
      },
    });
    return converted;
  };
  const opaque = (value: UnknownObject): OpaqueValue => {
    budget.charge(COST.object);
    const converted = new OpaqueValue(value.global);
    const { keywords, state, items, entries } = value;
    converted.args = list(keywords === null ? value.args : followedBy(value.args, keywords));
    if (items !== null) converted.items = list(items);
    if (entries !== null) converted.entries = map(entries);
    tasks.push({ children: [state].values(), add: (child) => (converted.state = child) });
    return converted;
  };
  const make = function* (value: Value & object): Sliced<unknown> {
    if (Array.isArray(value)) return list(value);
    if (value instanceof Tuple) return list(value.items);
    if (isSet(value)) return set(value);
    if (value instanceof UnknownObject) return opaque(value);
    if (value instanceof NumpyRecord) {
      return (yield* toNumpyArray(value, budget, list)) ?? new OpaqueValue('numpy.ndarray');
    }
    if (!(value instanceof Dict)) return null;
    if (!(yield* isStateDict(value, budget))) return map(value);
    const state = new StateDict(
      [],
      yield* moduleMetadata(value.metadata, '', label, budget),
      new Map(fileMetadata),
    );
    for (const [name, record] of value) {
      if (budget.spend(1)) yield;
      budget.charge(COST.entry);
      state.set(name as string, tensorOf(record as TensorRecord));
    }
    return state;
  };
  const convert = function* (value: Value): Sliced<unknown> {
    if (value === null || typeof value !== 'object' || isUint8Array(value)) return value;
    if (value instanceof TensorRecord) return tensorOf(value);
    const leaf = plainLeaf(value);
    if (leaf !== undefined) return leaf;
    const known = done.get(value);
    if (known !== undefined) return known;
    const converted = yield* make(value);
    budget.charge(COST.entry);
    done.set(value, converted as object);
    return converted;
  };
  const result = yield* convert(root);
  for (let task = tasks.at(-1); task !== undefined; task = tasks.at(-1)) {
    if (budget.spend(1)) yield;
    const next = task.children.next();
    if (next.done === true) tasks.pop();
    else task.add(yield* convert(next.value));
  }
  return result;
}

/** What has no parts; undefined for everything else. */
function plainLeaf(value: Value & object): unknown {
  if (value instanceof LongText) return value.toString();
  if (value instanceof Complex) return { real: value.real, imaginary: value.imaginary };
  if (value instanceof NumpyType) return `${value.bigEndian ? '>' : '<'}${value.kind}${value.size}`;
  if (!(value instanceof GlobalName)) return undefined;
  return value.known ? value.name.replace(/^torch\.(?=[a-z0-9_]+$)/, '') : new OpaqueValue(value.name);
}

function* followedBy(items: Iterable<Value>, last: Value): Iterable<Value> {
  yield* items;
  yield last;
}

function* keysAndValues(dict: Dict): IterableIterator<Value> {
  for (const [key, value] of dict) {
    yield key;
    yield value;
  }
}
