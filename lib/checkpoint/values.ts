/**
 * The inert values that a pickle may become. None of them has behaviour that a file could choose: dictionaries are
 * made of Maps, so keys such as `__proto__` are only keys, and a global is a name. Knows neither pickles nor files.
 */
import { Layers } from './pages';
import type { StorageRecord, TensorRecord } from './tensor-record';
import { isSet, isUint8Array } from '../brands';
import { printable } from '../printable';

export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | LongText
  | Uint8Array
  | Value[]
  | Set<Value>
  | Tuple
  | Dict
  | Complex
  | GlobalName
  | UnknownObject
  | NumpyType
  | NumpyRecord
  | StorageRecord
  | TensorRecord;

/** Text in pieces, since V8 would join a long one in one step. Nobody's key or name. */
export class LongText {
  /** @param bytes - of the text in UTF-8 */
  constructor(
    readonly pieces: readonly string[],
    readonly bytes: number,
  ) {}

  /** As a string, which V8 joins when it is looked into. */
  toString(): string {
    return this.pieces.reduce((text, piece) => text + piece, '');
  }
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** A `dict`, `OrderedDict` or `Counter`; `metadata` is the `_metadata` attribute that state dicts carry. */
export class Dict extends Layers<Value, Value> {
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
  /** @param known - whether a table of this library says what it means */
  constructor(
    readonly name: string,
    readonly known = true,
  ) {}
}

/** What stands in for an object of a class that this library does not know: what the file would have made it of. */
export class UnknownObject {
  state: Value = null;
  items: Value[] | null = null;
  entries: Dict | null = null;

  constructor(
    readonly global: string,
    readonly args: readonly Value[],
    readonly keywords: Dict | null = null,
  ) {}
}

/** A `numpy.dtype` of plain elements, as in `<f8`. */
export class NumpyType {
  bigEndian = false;

  constructor(
    /** 'b', 'i', 'u', 'f', 'c', 'S', 'U', ... */
    readonly kind: string,
    /** Bytes of an element. */
    readonly size: number,
  ) {}
}

/** A `numpy.ndarray`: empty until its state is built. */
export class NumpyRecord {
  shape: readonly number[] = [];
  type: NumpyType | null = null;
  fortran = false;
  /** The elements' bytes, as the file has them; a list for an array of objects. */
  data: Uint8Array | readonly Value[] = [];
}

/** The name of the unknown global that a value is or came of; null for every other value. */
export function unknownGlobal(value: Value | undefined): string | null {
  if (value instanceof UnknownObject) return value.global;
  return value instanceof GlobalName && !value.known ? value.name : null;
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
  if (value instanceof LongText) return 'str';
  if (isUint8Array(value)) return 'bytes';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Dict) return 'dict';
  if (isSet(value)) return 'set';
  if (value instanceof Complex) return 'complex';
  if (value instanceof GlobalName) return `global ${printable(value.name)}`;
  if (value instanceof UnknownObject) return `object of ${printable(value.global)}`;
  if (value instanceof NumpyType) return 'numpy.dtype';
  if (value instanceof NumpyRecord) return 'numpy.ndarray';
  return 'shape' in value ? 'tensor' : 'storage';
}
