/**
 * Finds out which container a checkpoint has, by content, and reads its description: every value except the tensors'
 * bytes, which stay in the file. Also walks the values that come out: depth, cycles and what a state dict is.
 */
import { readLegacy } from './legacy';
import { MAX_DEPTH, MAX_LINE_BYTES, MAX_TENSORS, MAX_WRAPPERS } from './limits';
import { EndOfPickle, readPickle } from './pickle';
import { checkpointError, printable } from './problems';
import { looksLikeSafetensors, readSafetensors } from './safetensors';
import type { ByteSource } from './source';
import { StorageRecord, TensorRecord } from './tensor-record';
import { TorchHost } from './torch-globals';
import { readTorchZip } from './torch-zip';
import { Dict, Tuple, kindOf, type Value } from './values';
import { isSet } from '../brands';
import { isSenetError } from '../errors';

export type Container = 'zip' | 'legacy' | 'safetensors';

export interface ParsedCheckpoint {
  readonly container: Container;
  /** Inert: Maps, arrays, numbers, text and records of tensors. */
  readonly value: Value;
  /** Every tensor of the value, once, in the order of the file. */
  readonly tensors: readonly TensorRecord[];
  /** `__metadata__` of a safetensors file; empty for the others. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** A state dict inside a checkpoint, and the names of the wrappers around it. */
export interface FoundStateDict {
  readonly dict: Dict;
  readonly wrappers: readonly string[];
}

/** The names under which training scripts keep a state dict, in the order in which they are tried. */
const WRAPPERS = ['state_dict', 'model_state_dict', 'model', 'net', 'weight'];

const HEAD_BYTES = 512;

/**
 * Reads the description of a checkpoint. Nothing in the file is executed and no tensor data is read.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT, _UNSAFE, _UNSUPPORTED, _LIMIT; ERR_SENET_FILE, ERR_SENET_FILE_CHANGED.
 */
export async function parseCheckpoint(source: ByteSource): Promise<ParsedCheckpoint> {
  const head = Buffer.from(await source.read(0, Math.min(HEAD_BYTES, source.size)));
  if (head.subarray(0, 2).toString('latin1') === 'PK') {
    return describe('zip', await readTorchZip(source), source.label);
  }
  if (looksLikeSafetensors(head)) {
    const { tensors, metadata } = await readSafetensors(source);
    return { container: 'safetensors', value: new Dict(tensors), tensors: [...tensors.values()], metadata };
  }
  if (head[0] === 0x80) return describe('legacy', await readLegacy(source), source.label);
  throw await unknownFormat(source, head);
}

/** The state dict of a checkpoint: the value itself, or what one of the usual wrappers holds. */
export function findStateDict(value: Value): FoundStateDict | null {
  const wrappers: string[] = [];
  for (let level = 0; level <= MAX_WRAPPERS && value instanceof Dict; level++) {
    if (isStateDict(value)) return { dict: value, wrappers };
    const dict = value;
    const wrapper = WRAPPERS.find((name) => dict.get(name) instanceof Dict);
    if (wrapper === undefined) return null;
    wrappers.push(wrapper);
    value = dict.get(wrapper) as Value;
  }
  return null;
}

/** True for a dictionary that has only tensors, under names. */
export function isStateDict(dict: Dict): boolean {
  for (const [name, value] of dict) {
    if (typeof name !== 'string' || !(value instanceof TensorRecord)) return false;
  }
  return true;
}

/** Why `findStateDict` found none, in words. */
export function explainNoStateDict(value: Value): string {
  if (!(value instanceof Dict)) return `the file holds a ${kindOf(value)}`;
  const entries = [...value].slice(0, 8).map(([name, item]) => {
    return `${typeof name === 'string' ? printable(name, 40) : kindOf(name)} (${kindOf(item)})`;
  });
  return `its top level holds ${entries.join(', ')}${value.size > 8 ? ', ...' : ''}`;
}

function describe(container: Container, value: Value, label: string): ParsedCheckpoint {
  return { container, value, tensors: collectTensors(value, label), metadata: new Map() };
}

/** Lists the tensors and makes sure that no consumer meets a structure that is too deep or has no JavaScript form. */
function collectTensors(root: Value, label: string): TensorRecord[] {
  const tensors = new Set<TensorRecord>();
  // The longest way down from each container; 0 while it is being visited, which ends cycles.
  const heights = new Map<object, number>();
  const tooDeep = (): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, `containers nested more than ${MAX_DEPTH} deep`);
  const visit = (value: Value, depth: number): number => {
    if (value === null || typeof value !== 'object') return 0;
    if (value instanceof TensorRecord) {
      if (tensors.add(value).size > MAX_TENSORS) {
        throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, `more than ${MAX_TENSORS} tensors`);
      }
      return 0;
    }
    if (value instanceof StorageRecord) {
      const message = 'a storage outside a tensor';
      throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
    }
    const children = childrenOf(value);
    if (children === null) return 0;
    const known = heights.get(value);
    if (known !== undefined) return known;
    if (depth >= MAX_DEPTH) throw tooDeep();
    heights.set(value, 0);
    let height = 0;
    for (const child of children) height = Math.max(height, visit(child, depth + 1));
    if (height + 1 > MAX_DEPTH) throw tooDeep();
    heights.set(value, height + 1);
    return height + 1;
  };
  visit(root, 0);
  return [...tensors];
}

function childrenOf(value: Value & object): Iterable<Value> | null {
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) return entriesOf(value);
  if (isSet(value)) return value;
  return null;
}

function* entriesOf(dict: Dict): Iterable<Value> {
  for (const [key, value] of dict) {
    yield key;
    yield value;
  }
  yield dict.metadata;
}

/** No container is recognised; a pickle of protocol 0 is still looked into, so that a dangerous one is called so. */
async function unknownFormat(source: ByteSource, head: Buffer): Promise<Error> {
  const { label } = source;
  if (head.subarray(257, 262).toString('latin1') === 'ustar') {
    const message = 'a tar archive, the container of PyTorch before 0.1.10, which is not read';
    return checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  if (
    /^[\w.]+\n/.test(head.toString('latin1', 1)) ||
    head[0] === 0x28 ||
    head[0] === 0x5d ||
    head[0] === 0x7d
  ) {
    const bytes = await source.read(0, Math.min(source.size, MAX_LINE_BYTES));
    const storages = {
      find(): never {
        throw new EndOfPickle(0);
      },
    };
    try {
      readPickle(bytes, 0, new TorchHost(label, storages), label, 0);
    } catch (error) {
      if (isSenetError(error) && error.code === 'ERR_SENET_CHECKPOINT_UNSAFE') return error;
    }
  }
  const start = head.subarray(0, 16);
  const isText = start.every(
    (byte) => byte === 9 || byte === 10 || byte === 13 || (byte >= 32 && byte < 127),
  );
  const found = isText ? `text, '${printable(start.toString('latin1'))}'` : `bytes ${start.toString('hex')}`;
  const message = `expected a file of torch.save or safetensors, found ${found}`;
  return checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, 0);
}
