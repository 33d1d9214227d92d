/**
 * Finds the state dict in what a checkpoint holds, by what it is: a dictionary of tensors under names. Where there are
 * several, the one whose names fit the model best; without a model the largest, those of an optimiser last. And what
 * stands in front of its names: the prefix that wrappers such as DataParallel, torch.compile or Lightning leave there.
 * Knows no file format.
 */
import { Budget, inOneStep, inSlices, type Sliced } from './budget';
import { COST, MAX_WRAPPERS } from './limits';
import { Layers } from './pages';
import { checkpointError } from './problems';
import { TensorRecord } from './tensor-record';
import { unsafe } from './torch-globals';
import { Dict, NumpyRecord, kindOf, unknownGlobal, type Value } from './values';
import { makeError } from '../errors';
import { printable } from '../printable';

/** What is looked for. */
export interface Wish {
  /** Where the state dict is: names joined by dots, '' for the whole file. Default: it is looked for. */
  readonly key?: string | undefined;
  /** What its names begin with, and is taken away. Default: what the model says, and nothing without one. */
  readonly prefix?: string | undefined;
  /** A name of the model: the only dictionary of tensors, if it has that name, needs no comparison. */
  readonly anchor?: string | undefined;
  /** The names that the model has, asked for only where there is something to decide. */
  readonly expected?: (() => Names) | undefined;
  /** Leave out what stands in the place of a tensor, instead of refusing it. Default false. */
  readonly lenient?: boolean;
}

export interface Names {
  readonly size: number;
  has(name: string): boolean;
}

export interface FoundStateDict {
  /** Names of the dictionaries around it. */
  readonly wrappers: readonly string[];
  readonly dict: Dict;
  /** Its tensors, without the prefix. */
  readonly tensors: ReadonlyMap<string, TensorRecord>;
  readonly prefix: string;
  /** Names in the dictionary that are not in `tensors`. */
  readonly dropped: readonly string[];
  /** Where other state dicts are, by `key`. */
  readonly others: readonly string[];
}

interface Candidate {
  readonly dict: Dict;
  readonly wrappers: readonly string[];
  readonly tensors: number;
}

interface Fit {
  readonly prefix: string;
  readonly matches: number;
}

/** The names under which scripts keep what they train, in the order in which one of several is taken. */
const USUAL_NAMES = [
  'state_dict',
  'model_state_dict',
  'model',
  'net',
  'weight',
  'module',
  'network',
  'params',
];
/** Averages and other copies, which are taken only where nothing else is as good. */
const COPIES =
  /(^|[_.-])(ema|avg|averaged?|swa|shadow|teacher|momentum|target|old|prev|previous|best)([_.-]|\d|$)/i;
const OPTIMISERS = /optim/i;
/** Longer names are no one's: neither looked into nor compared with a model's. */
const MAX_NAME = 512;
/** So many other state dicts are told. */
const MAX_OTHERS = 32;
/** A dictionary that is nearly as large as the largest may be what is meant: an average has an entry more. */
const isNearly = (count: number, most: number): boolean => count >= Math.min(0.9 * most, most - 1);

/** The state dict of a checkpoint; null if it has none. Errors: ERR_SENET_CHECKPOINT_UNSAFE, _UNSUPPORTED, ERR_SENET_ARG_RANGE. */
export function findStateDict(
  value: Value,
  wish: Wish,
  label: string,
  budget: Budget,
): Promise<FoundStateDict | null> {
  return inSlices(budget, find(value, wish, label, budget));
}

function* find(value: Value, wish: Wish, label: string, budget: Budget): Sliced<FoundStateDict | null> {
  const all = yield* candidatesIn(value, budget);
  let pool =
    wish.key === undefined
      ? yield* trained(all, budget)
      : yield* only(all, ({ wrappers }) => keyOf(wrappers) === wish.key, budget);
  if (wish.key !== undefined && pool.length === 0) throw noSuchKey(wish.key, all, label);
  if (pool.length === 0) return null;
  const fits = new Layers<Candidate, Fit>();
  const clear = pool.length === 1 && wish.anchor !== undefined && pool[0]?.dict.has(wish.anchor) === true;
  if (wish.prefix === undefined && wish.expected !== undefined && !clear) {
    const expected = wish.expected();
    let best = 0;
    for (const one of pool) {
      const fit = yield* fitOf(one.dict, expected, budget);
      fits.set(one, fit);
      best = Math.max(best, fit.matches);
    }
    if (best > 0) pool = yield* only(pool, (one) => fits.get(one)?.matches === best, budget);
  }
  const chosen = yield* bestOf(pool, budget);
  const prefix = wish.prefix ?? fits.get(chosen)?.prefix ?? '';
  const { tensors, dropped } = yield* takeEntries(chosen.dict, prefix, wish, label, budget);
  if (wish.prefix !== undefined && tensors.size === 0 && chosen.tensors > 0) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${label}: prefix: expected what the names begin with, got '${printable(wish.prefix)}'; ${describeKeys([...chosen.dict.keys()].filter(isText))}`,
    );
  }
  const others: string[] = [];
  for (const one of all) {
    if (others.length === MAX_OTHERS) break;
    if (one !== chosen && one.tensors > 1) others.push(keyOf(one.wrappers));
  }
  return { wrappers: chosen.wrappers, dict: chosen.dict, tensors, prefix, dropped, others };
}

function* only(
  all: readonly Candidate[],
  isWanted: (one: Candidate) => boolean,
  budget: Budget,
): Sliced<readonly Candidate[]> {
  const wanted: Candidate[] = [];
  for (const one of all) {
    if (isWanted(one)) wanted.push(one);
    if (budget.spend(4)) yield;
  }
  return wanted;
}

/** Of those that are nearly as large as the largest the one of the best rank, then the largest, then the first of the file. */
function* bestOf(pool: readonly Candidate[], budget: Budget): Sliced<Candidate> {
  let most = 0;
  for (const { tensors } of pool) most = Math.max(most, tensors);
  let best: Candidate | undefined;
  for (const one of pool) {
    if (budget.spend(4)) yield;
    if (!isNearly(one.tensors, most)) continue;
    if (best === undefined || (rank(one) - rank(best) || best.tensors - one.tensors) < 0) best = one;
  }
  return best as Candidate;
}

function keyOf(wrappers: readonly string[]): string {
  return wrappers.join('.');
}

/** Every dictionary that is mostly tensors, from the outside inwards; an empty one only where a state dict is expected. */
function* candidatesIn(root: Value, budget: Budget): Sliced<Candidate[]> {
  const found: Candidate[] = [];
  const seen = new Layers<Dict, true>();
  let level: { dict: Dict; wrappers: readonly string[] }[] =
    root instanceof Dict ? [{ dict: root, wrappers: [] }] : [];
  for (let depth = 0; depth <= MAX_WRAPPERS && level.length > 0; depth++) {
    const next: typeof level = [];
    for (const { dict, wrappers } of level) {
      if (seen.get(dict) === true) continue;
      budget.charge(COST.entry);
      seen.set(dict, true);
      let tensors = 0;
      let others = 0;
      for (const [name, item] of dict) {
        if (budget.spend(1)) yield;
        if (typeof name === 'string' && item instanceof TensorRecord) tensors++;
        else if (typeof name !== 'string' || !name.endsWith('_extra_state')) {
          if (unknownGlobal(item) === null) others++;
        }
        if (typeof name === 'string' && name.length <= MAX_NAME && item instanceof Dict) {
          budget.charge(COST.object);
          next.push({ dict: item, wrappers: [...wrappers, name] });
        }
      }
      const place = wrappers.at(-1);
      const empty =
        dict.size === 0 && found.length === 0 && (place === undefined || USUAL_NAMES.includes(place));
      if (empty || tensors > others) found.push({ dict, wrappers, tensors });
    }
    level = next;
  }
  return found;
}

/** Without what belongs to an optimiser, and without empty ones, if anything else is there. */
function* trained(all: readonly Candidate[], budget: Budget): Sliced<readonly Candidate[]> {
  const isOptimisers = ({ wrappers }: Candidate): boolean => wrappers.some((name) => OPTIMISERS.test(name));
  const notOptimiser = yield* only(all, (one) => !isOptimisers(one), budget);
  const full = yield* only(notOptimiser, ({ tensors }) => tensors > 0, budget);
  return full.length > 0 ? full : notOptimiser;
}

function rank({ wrappers }: Candidate): number {
  const name = wrappers.at(-1);
  if (wrappers.some((one) => COPIES.test(one))) return USUAL_NAMES.length + 1;
  if (name === undefined) return 0;
  const index = USUAL_NAMES.indexOf(name);
  return index < 0 ? USUAL_NAMES.length : index;
}

/**
 * The prefix without which most names are the model's; of equals the first of the file that is no copy. None where fewer
 * than half of the model's, or of the file's, are: what begins so is a part, in which some names are the model's by chance.
 */
function* fitOf(dict: Dict, expected: Names, budget: Budget): Sliced<Fit> {
  const matches = new Layers<string, number>();
  for (const [name, item] of dict) {
    if (budget.spend(1)) yield;
    if (typeof name !== 'string' || name.length > MAX_NAME || !(item instanceof TensorRecord)) continue;
    for (let start = 0, dots = 0; start >= 0 && dots < 32; dots++) {
      if (budget.spend(1)) yield;
      if (expected.has(name.slice(start))) {
        const prefix = name.slice(0, start);
        matches.set(prefix, (matches.get(prefix) ?? 0) + 1);
      }
      const dot = name.indexOf('.', start);
      start = dot < 0 ? -1 : dot + 1;
    }
  }
  let best: Fit = { prefix: '', matches: matches.get('') ?? 0 };
  let copy = false;
  for (const [prefix, count] of matches) {
    if (budget.spend(1)) yield;
    const isCopy = COPIES.test(prefix);
    if (count > best.matches || (count === best.matches && copy && !isCopy)) {
      best = { prefix, matches: count };
      copy = isCopy;
    }
  }
  const isPart = best.matches < Math.min(expected.size, dict.size) / 2;
  return isPart ? { ...best, prefix: '' } : best;
}

/** The tensors under names that begin with the prefix, and those that the model has without it. */
function* takeEntries(
  dict: Dict,
  prefix: string,
  { prefix: wished, expected, lenient = false }: Wish,
  label: string,
  budget: Budget,
): Sliced<Pick<FoundStateDict, 'tensors' | 'dropped'>> {
  const tensors = new Map<string, TensorRecord>();
  const dropped: string[] = [];
  const plain: string[] = [];
  for (const [key, item] of dict) {
    if (budget.spend(1)) yield;
    budget.charge(COST.entry + COST.string);
    const name = isText(key) ? key : kindOf(key);
    if (!name.startsWith(prefix)) plain.push(name);
    else if (item instanceof TensorRecord) tensors.set(name.slice(prefix.length), item);
    else {
      if (!lenient) refuseEntry(name, item, label);
      dropped.push(name);
    }
  }
  const known = wished === undefined && plain.length > 0 ? expected?.() : undefined;
  for (const name of plain) {
    if (budget.spend(1)) yield;
    const item = dict.get(name);
    if (known?.has(name) === true && !tensors.has(name) && item instanceof TensorRecord)
      tensors.set(name, item);
    else dropped.push(name);
  }
  return { tensors, dropped };
}

/** An entry that stands for a weight and is none; what else lies between the tensors, such as a count of epochs, may stay out. */
function refuseEntry(name: string, item: Value, label: string): void {
  const global = unknownGlobal(item);
  const where = `'${printable(name)}' of the state dict`;
  if (global !== null) throw unsafe(label, `${where} is no tensor`, global);
  if (item instanceof NumpyRecord) {
    const message = `${where} is a NumPy array and no tensor; save torch.from_numpy(array) in its place`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
}

function isText(value: Value): value is string {
  return typeof value === 'string';
}

function noSuchKey(key: string, all: readonly Candidate[], label: string): Error {
  const places = all.slice(0, 8).map(({ wrappers, tensors }) => {
    const place = wrappers.length === 0 ? 'the whole file' : `'${printable(keyOf(wrappers))}'`;
    return `${place} (${tensors})`;
  });
  const found = places.length === 0 ? 'there are none' : `there are some at ${places.join(', ')}`;
  return makeError(
    'ERR_SENET_ARG_RANGE',
    `${label}: key: expected the place of a dictionary of tensors, got '${printable(key)}'; ${found}`,
  );
}

/** What all names begin with, up to a dot; '' if nothing, or if there is only one. */
export function sharedPrefix(keys: Iterable<string>): string {
  return inOneStep(sharedInSlices(keys, new Budget('names')));
}

/** The same in slices. */
export function* sharedInSlices(keys: Iterable<string>, budget: Budget): Sliced<string> {
  let shared: string | undefined;
  let count = 0;
  for (const key of keys) {
    shared = count++ === 0 ? upToDot(key, key.length) : sharedStart(shared as string, key);
    if (budget.spend(1 + (shared.length >> 5))) yield;
  }
  return count > 1 ? (shared as string) : '';
}

function upToDot(text: string, end: number): string {
  return text.slice(0, text.slice(0, end).lastIndexOf('.') + 1);
}

function sharedStart(shared: string, key: string): string {
  if (key.startsWith(shared)) return shared;
  let end = 0;
  while (end < key.length && shared[end] === key[end]) end++;
  return upToDot(shared, end);
}

/** What the names have in common, in words. */
export function describeKeys(keys: readonly string[]): string {
  const shared = sharedPrefix(keys);
  if (shared !== '') return `all ${keys.length} keys begin with '${printable(shared)}'`;
  const some = keys.slice(0, 3).map((key) => `'${printable(key, 60)}'`);
  return `the ${keys.length} keys are ${some.join(', ')}${keys.length > some.length ? ', ...' : ''}`;
}

/** Why `findStateDict` found none. */
export function noStateDict(value: Value, label: string): Error {
  const hint = 'loadCheckpoint reads the whole file';
  let looked = 0;
  for (const item of value instanceof Dict ? value.values() : []) {
    const global = unknownGlobal(item);
    const what = 'expected a state dict, and there is none beside what the file asks for';
    if (global !== null) return unsafe(label, what, global);
    if (++looked === 64) break;
  }
  const message = `expected a state dict, and ${explain(value)}; ${hint}`;
  return checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
}

function explain(value: Value): string {
  if (!(value instanceof Dict)) return `the file holds a ${kindOf(value)}`;
  const entries: string[] = [];
  for (const [name, item] of value) {
    if (entries.length === 8) break;
    entries.push(`${isText(name) ? printable(name, 40) : kindOf(name)} (${kindOf(item)})`);
  }
  return `its top level holds ${entries.join(', ')}${value.size > 8 ? ', ...' : ''}`;
}
