/**
 * Walks over the values that a checkpoint holds: which of them lie in which, the tensors among them, how deep they nest.
 * In slices and without recursion, since the file chose the structure. Knows no file format.
 */
import { isSet, isUint8Array } from '../brands';
import type { Budget, Sliced } from './budget';
import { COST, MAX_DEPTH, MAX_TENSORS } from './limits';
import { Layers } from './pages';
import { checkpointError } from './problems';
import { StorageRecord, TensorRecord } from './tensor-record';
import { Dict, NumpyRecord, Tuple, UnknownObject, type Value } from './values';

/** What lies in a value; null for a value that holds no others. */
function childrenOf(value: Value): Iterable<Value> | null {
  if (Array.isArray(value) || isSet(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return keysAndValues(value);
  if (value instanceof UnknownObject) return partsOf(value);
  if (value instanceof NumpyRecord && !isUint8Array(value.data)) return value.data;
  return null;
}

function* keysAndValues(dict: Dict): Iterable<Value> {
  for (const [key, value] of dict) {
    yield key;
    yield value;
  }
  yield dict.metadata;
}

function* partsOf({ args, keywords, state, items, entries }: UnknownObject): Iterable<Value> {
  yield* args;
  yield keywords;
  yield state;
  yield items;
  yield entries;
}

interface Frame {
  readonly value: object;
  readonly children: Iterator<Value>;
  /** Levels below it that are known so far. */
  height: number;
}

/**
 * Lists the tensors, once each, and makes sure that no consumer meets a structure that is too deep or has no JavaScript
 * form. Errors: ERR_SENET_CHECKPOINT_LIMIT, _UNSUPPORTED.
 */
export function* collectTensors(root: Value, label: string, budget: Budget): Sliced<TensorRecord[]> {
  const tensors: TensorRecord[] = [];
  const seen = new Layers<TensorRecord, true>();
  // The longest way down from each container; 0 while it is being visited, which ends cycles.
  const heights = new Layers<object, number>();
  const frames: Frame[] = [];
  /** The height of a value that is known at once; undefined for a container, whose turn is next. */
  const enter = (value: Value): number | undefined => {
    if (value === null || typeof value !== 'object') return 0;
    if (value instanceof TensorRecord) {
      if (seen.has(value)) return 0;
      if (tensors.length >= MAX_TENSORS) throw limit(`more than ${MAX_TENSORS} tensors`);
      seen.set(value, true);
      tensors.push(value);
      return 0;
    }
    if (value instanceof StorageRecord) {
      throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, 'a storage outside a tensor');
    }
    const known = heights.get(value);
    if (known !== undefined) return known;
    const children = childrenOf(value);
    if (children === null) return 0;
    if (frames.length >= MAX_DEPTH) throw tooDeep();
    budget.charge(COST.entry);
    heights.set(value, 0);
    frames.push({ value, children: children[Symbol.iterator](), height: 0 });
    return undefined;
  };
  const limit = (message: string): Error => checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
  const tooDeep = (): Error => limit(`containers nested more than ${MAX_DEPTH} deep`);
  enter(root);
  for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
    if (budget.spend(1)) yield;
    const next = frame.children.next();
    if (next.done === true) {
      const height = frame.height + 1;
      if (height > MAX_DEPTH) throw tooDeep();
      heights.set(frame.value, height);
      frames.pop();
      const parent = frames.at(-1);
      if (parent !== undefined) parent.height = Math.max(parent.height, height);
    } else {
      frame.height = Math.max(frame.height, enter(next.value) ?? 0);
    }
  }
  budget.release(heights.size * COST.entry);
  return tensors;
}
