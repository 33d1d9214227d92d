/**
 * `inspectCheckpoint`: what is in a file, without its tensors' bytes and without LibTorch. Safe on hostile files; names
 * in the result are the file's own and may hold control characters, so print them through `printable`.
 */
import { isSet } from '../brands';
import type { DType } from '../binding';
import { parseCheckpoint, findStateDict, type Container, type ParsedCheckpoint } from './parse';
import { checkpointError } from './problems';
import { withSource, type ByteSource } from './source';
import { TensorRecord } from './tensor-record';
import { Dict, Tuple, kindOf, type Value } from './values';

export interface InspectedTensor {
  /** Names and indices on the way to it, joined by dots. */
  readonly key: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

export interface InspectedValue {
  readonly key: string;
  /** In Python's words: int, float, str, list, ... */
  readonly type: string;
  /** The value itself where it is a number, a boolean, text or None. */
  readonly value?: string | number | boolean | null;
}

export interface CheckpointReport {
  readonly container: Container;
  /** Length of the file. */
  readonly fileBytes: number;
  /** Names around the state dict that `load` would give; null if it would find none. */
  readonly stateDictAt: readonly string[] | null;
  readonly tensors: readonly InspectedTensor[];
  /** What else the file holds, at most 1,000 entries. */
  readonly values: readonly InspectedValue[];
  /** `__metadata__` of a safetensors file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Version of each module by path, from `_metadata`. */
  readonly moduleVersions: Readonly<Record<string, number>>;
}

const MAX_VALUES = 1000;
/** Characters of all keys together: every key repeats the names above it, and one name may be as long as the pickle. */
const MAX_KEY_CHARACTERS = 64 * 1024 * 1024;

/**
 * Describes a checkpoint.
 * @param source - a path, or the bytes of a file
 * @throws (rejects) as `load`
 */
export function inspectCheckpoint(source: string | Uint8Array): Promise<CheckpointReport> {
  return withSource(source, async (opened) => report(await parseCheckpoint(opened), opened));
}

function report(parsed: ParsedCheckpoint, source: ByteSource): CheckpointReport {
  const tensors: InspectedTensor[] = [];
  const values: InspectedValue[] = [];
  // Each container once: a few bytes of pickle can name one list in exponentially many places.
  const seen = new Set<Value>();
  let keyCharacters = 0;
  const visit = (value: Value, key: string): void => {
    keyCharacters += key.length;
    if (keyCharacters > MAX_KEY_CHARACTERS) {
      const message = `names of more than ${MAX_KEY_CHARACTERS} characters together`;
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', source.label, message);
    }
    if (value instanceof TensorRecord) {
      tensors.push({ key, dtype: value.dtype, shape: value.shape, bytes: value.bytes });
      return;
    }
    const children = childrenOf(value);
    if (children === null) {
      if (values.length < MAX_VALUES) values.push({ key, type: kindOf(value), ...plain(value) });
      return;
    }
    if (seen.has(value)) return;
    seen.add(value);
    for (const [name, child] of children) visit(child, key === '' ? name : `${key}.${name}`);
  };
  visit(parsed.value, '');
  const found = findStateDict(parsed.value);
  return {
    container: parsed.container,
    fileBytes: source.size,
    stateDictAt: found ? found.wrappers : null,
    tensors,
    values,
    metadata: Object.fromEntries(parsed.metadata),
    moduleVersions: versionsOf(found?.dict.metadata ?? null),
  };
}

function* numbered(items: Iterable<Value>): Iterable<[string, Value]> {
  let index = 0;
  for (const item of items) yield [String(index++), item];
}

function childrenOf(value: Value): Iterable<[string, Value]> | null {
  if (Array.isArray(value) || isSet(value)) return numbered(value);
  if (value instanceof Tuple) return numbered(value.items);
  if (value instanceof Dict) return named(value);
  return null;
}

function* named(dict: Dict): Iterable<[string, Value]> {
  for (const [key, value] of dict) {
    yield [typeof key === 'object' && key !== null ? kindOf(key) : String(key), value];
  }
}

function plain(value: Value): { value?: string | number | boolean | null } {
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return { value };
  if (typeof value === 'bigint') return { value: value.toString() };
  if (typeof value === 'string') return { value: value.length > 200 ? `${value.slice(0, 200)}...` : value };
  return {};
}

function versionsOf(metadata: Value): Record<string, number> {
  if (!(metadata instanceof Dict)) return {};
  const versions: [string, number][] = [];
  for (const [path, facts] of metadata) {
    const version = facts instanceof Dict ? facts.get('version') : undefined;
    if (typeof path === 'string' && typeof version === 'number') versions.push([path, version]);
  }
  return Object.fromEntries(versions);
}
