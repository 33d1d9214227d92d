/**
 * The inert values that a pickle may become. None of them has behaviour that a file could choose: dictionaries are
 * Maps, so keys such as `__proto__` are only keys, and a global is a name. Knows neither pickles nor files.
 */
import type { StorageRecord, TensorRecord } from './tensor-record';
import { isSet, isUint8Array } from '../brands';

export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Value[]
  | Set<Value>
  | Tuple
  | Dict
  | Complex
  | GlobalName
  | StorageRecord
  | TensorRecord;

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** A `dict`, `OrderedDict` or `Counter`; `metadata` is the `_metadata` attribute that state dicts carry. */
export class Dict extends Map<Value, Value> {
  metadata: Value = null;
}

export class Complex {
  constructor(
    readonly real: number,
    readonly imaginary: number,
  ) {}
}

/** A class, function or constant of Python that the file names, such as `torch.float32`: its full name and no more. */
export class GlobalName {
  constructor(readonly name: string) {}
}

/** What kind of value it is, in Python's words, for messages. */
export function kindOf(value: Value): string {
  if (value === null) return 'None';
  switch (typeof value) {
    case 'boolean':
      return 'bool';
    case 'number':
      return Number.isInteger(value) ? 'int' : 'float';
    case 'bigint':
      return 'int';
    case 'string':
      return 'str';
    default:
  }
  if (Array.isArray(value)) return 'list';
  if (isUint8Array(value)) return 'bytes';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Dict) return 'dict';
  if (isSet(value)) return 'set';
  if (value instanceof Complex) return 'complex';
  if (value instanceof GlobalName) return `global ${value.name}`;
  return 'shape' in value ? 'tensor' : 'storage';
}
