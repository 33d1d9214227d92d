/**
 * NumPy's scalars and arrays as they stand in pickles: what `numpy.dtype`, `_reconstruct`, `scalar` and `_frombuffer`
 * are called with, and the states that `ndarray.__reduce__` and `dtype.__reduce__` give. Scalars of plain numbers, text
 * and booleans become values at once; arrays when the whole value is read. Nothing of NumPy is imported or called.
 */
import { TextEncoder } from 'node:util';

import { isUint8Array } from '../brands';
import { copyPieces, type Budget, type Sliced } from './budget';
import { COST, MAX_RANK, PIECE_BYTES } from './limits';
import type { Making } from './pickle';
import { Complex, LongText, NumpyRecord, NumpyType, Tuple, UnknownObject, type Value } from './values';

/** An array that a checkpoint holds beside its tensors, in row-major order. */
export class NumpyArray {
  constructor(
    /** NumPy's name of the element type: 'float64', 'int32', 'bool', 'str', 'object', ... */
    readonly dtype: string,
    readonly shape: readonly number[],
    /**
     * A typed array where JavaScript has one: bool as Uint8Array, float16 as the bits in a Uint16Array, complex numbers as
     * pairs. An array of strings, Uint8Arrays or values for 'str', 'bytes' and 'object'.
     */
    readonly data: ArrayBufferView | readonly unknown[],
  ) {}
}

type TypedArrayClass = new (buffer: ArrayBuffer) => ArrayBufferView;

/** Element types that typed arrays have, by NumPy's kind and size. */
const TYPED: ReadonlyMap<string, readonly [name: string, array: TypedArrayClass, swap: number]> = new Map<
  string,
  readonly [string, TypedArrayClass, number]
>([
  ['b1', ['bool', Uint8Array, 1]],
  ['i1', ['int8', Int8Array, 1]],
  ['i2', ['int16', Int16Array, 2]],
  ['i4', ['int32', Int32Array, 4]],
  ['i8', ['int64', BigInt64Array, 8]],
  ['u1', ['uint8', Uint8Array, 1]],
  ['u2', ['uint16', Uint16Array, 2]],
  ['u4', ['uint32', Uint32Array, 4]],
  ['u8', ['uint64', BigUint64Array, 8]],
  ['f2', ['float16', Uint16Array, 2]],
  ['f4', ['float32', Float32Array, 4]],
  ['f8', ['float64', Float64Array, 8]],
  ['c8', ['complex64', Float32Array, 4]],
  ['c16', ['complex128', Float64Array, 8]],
]);

const MULTIARRAY = ['numpy.core.multiarray', 'numpy._core.multiarray'];
const NUMERIC = ['numpy.core.numeric', 'numpy._core.numeric'];

/** Elements of text and bytes that are longer have no form here: each is made in one step. */
const MAX_ELEMENT_SIZE = 16_384;

/** What the reader lends to these rules. */
interface Reading {
  readonly refuse: (message: string) => Error;
  readonly making: Making;
}

/** The globals of this table, and what calling each gives. */
export const NUMPY_CALLS: ReadonlyMap<
  string,
  (args: readonly Value[], name: string, reading: Reading) => Value
> = new Map([
  ['numpy.dtype', (args, name) => makeType(args, name)],
  ...MULTIARRAY.flatMap((module) => [
    [`${module}._reconstruct`, () => new NumpyRecord()] as const,
    [`${module}.scalar`, makeScalar] as const,
  ]),
  ...NUMERIC.map((module) => [`${module}._frombuffer`, fromBuffer] as const),
]);

/** The class that `_reconstruct` is given; only named. */
export const NUMPY_CLASSES: readonly string[] = ['numpy.ndarray'];

function makeType(args: readonly Value[], name: string): Value {
  const spelt = typeof args[0] === 'string' ? /^[<>|=]?([a-zA-Z])(\d{1,6})?$/.exec(args[0]) : null;
  const size = Number(spelt?.[2] ?? 8);
  return spelt === null || size > MAX_ELEMENT_SIZE
    ? new UnknownObject(name, args)
    : new NumpyType(spelt[1] as string, size);
}

/** `(dtype, bytes)`, or `(dtype, object)`. */
function makeScalar(args: readonly Value[], name: string, { refuse, making }: Reading): Value {
  const [type, data = null] = args;
  if (!(type instanceof NumpyType)) return new UnknownObject(name, args);
  if (type.kind === 'O') return data;
  const bytes = data instanceof LongText ? null : bytesOf(data, making);
  if (bytes === null) return new UnknownObject(name, args);
  if (bytes.length !== type.size * (type.kind === 'U' ? 4 : 1)) {
    throw refuse(`a NumPy scalar of ${type.kind}${type.size} in ${bytes.length} bytes`);
  }
  return readElement(type, bytes) ?? new UnknownObject(name, args);
}

/** `(buffer, dtype, shape, order)`, as protocol 5 has it. */
function fromBuffer(args: readonly Value[], name: string, reading: Reading): Value {
  const [data = null, type = null, shape = null, order] = args;
  const array = new NumpyRecord();
  setState(array, { shape, type, fortran: order === 'F', data }, reading);
  return array.type === null ? new UnknownObject(name, args) : array;
}

/** Applies the state of a BUILD opcode. */
export function buildNumpy(target: NumpyType | NumpyRecord, state: Value, reading: Reading): void {
  if (!(state instanceof Tuple)) throw reading.refuse('a NumPy object without a state');
  if (target instanceof NumpyType) {
    // (version, byte order, subarray, names, fields, ...)
    target.bigEndian = state.items[1] === '>';
    return;
  }
  const [, shape = null, type = null, fortran, data = null] = state.items;
  setState(target, { shape, type, fortran: fortran === true, data }, reading);
}

/** An array whose elements have no form here keeps no type, and is shown by its name. */
function setState(
  target: NumpyRecord,
  { shape, type, fortran, data }: { shape: Value; type: Value; fortran: boolean; data: Value },
  { refuse, making }: Reading,
): void {
  if (!(type instanceof NumpyType)) return;
  const sizes = shape instanceof Tuple ? shape.items : [];
  if (!sizes.every((size): size is number => Number.isSafeInteger(size) && (size as number) >= 0)) {
    throw refuse('a NumPy array of an impossible shape');
  }
  if (sizes.length > MAX_RANK) throw refuse(`a NumPy array of ${sizes.length} dimensions`);
  const count = sizes.reduce((product, size) => product * size, 1);
  const content = Array.isArray(data) ? data : bytesOf(data, making);
  const expected = type.kind === 'O' ? count : count * type.size * (type.kind === 'U' ? 4 : 1);
  if (content?.length !== expected || Array.isArray(content) !== (type.kind === 'O')) {
    throw refuse(`a NumPy array of ${count} elements of ${type.kind}${type.size} with other data`);
  }
  target.shape = sizes;
  target.type = type;
  target.fortran = fortran && sizes.length > 1;
  target.data = content;
}

/** Python 2 kept the bytes of arrays as text. */
function bytesOf(value: Value, making: Making): Uint8Array | null {
  if (isUint8Array(value)) return value;
  if (value instanceof LongText) {
    making.charge(COST.bytes + value.bytes);
    const bytes = new Uint8Array(value.bytes);
    making.defer(encodeInto(bytes, value.pieces));
    return bytes;
  }
  if (typeof value !== 'string') return null;
  making.charge(COST.bytes + 3 * value.length);
  return new Uint8Array(Buffer.from(value, 'utf8'));
}

function* encodeInto(bytes: Uint8Array, pieces: readonly string[]): Sliced<void> {
  const encoder = new TextEncoder();
  let at = 0;
  for (const piece of pieces) {
    if (at > 0) yield;
    at += encoder.encodeInto(piece, bytes.subarray(at)).written;
  }
}

/** One element as a value; null where JavaScript has none for it. */
function readElement({ kind, size, bigEndian }: NumpyType, bytes: Uint8Array): Value {
  const text = kind === 'U' ? textOf(bytes, bigEndian) : undefined;
  if (text !== undefined) return text;
  if (kind === 'S') return Uint8Array.from(bytes);
  if (!TYPED.has(`${kind}${size}`)) return null;
  const copy = Uint8Array.from(bytes);
  if (bigEndian) swap(copy, kind === 'c' ? size / 2 : size);
  const view = new DataView(copy.buffer);
  if (kind === 'b') return view.getUint8(0) !== 0;
  if (kind === 'c') {
    return size === 8
      ? new Complex(view.getFloat32(0, true), view.getFloat32(4, true))
      : new Complex(view.getFloat64(0, true), view.getFloat64(8, true));
  }
  if (kind === 'f') {
    if (size === 2) return halfToNumber(view.getUint16(0, true));
    return size === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true);
  }
  const whole = Buffer.from(copy.buffer);
  if (size < 8) return kind === 'i' ? whole.readIntLE(0, size) : whole.readUIntLE(0, size);
  const large = kind === 'i' ? whole.readBigInt64LE() : whole.readBigUInt64LE();
  return Number.isSafeInteger(Number(large)) ? Number(large) : large;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** UTF-32 with zeros at the end. */
function textOf(bytes: Uint8Array, bigEndian: boolean): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const points: number[] = [];
  for (let at = 0; at + 4 <= bytes.length; at += 4) points.push(view.getUint32(at, !bigEndian));
  while (points.at(-1) === 0) points.pop();
  if (points.some((point) => point > 0x10ffff)) return undefined;
  return points.map((point) => String.fromCodePoint(point)).join('');
}

function swap(bytes: Uint8Array, size: number): void {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (size === 2) buffer.swap16();
  else if (size === 4) buffer.swap32();
  else if (size === 8) buffer.swap64();
}

/**
 * An array as users see it; null where its elements have no form in JavaScript.
 * @param convert - what becomes of the values of an array of objects
 */
export function* toNumpyArray(
  record: NumpyRecord,
  budget: Budget,
  convert: (values: readonly Value[]) => readonly unknown[],
): Sliced<NumpyArray | null> {
  const { type, shape, data } = record;
  if (type === null) return null;
  const count = shape.reduce((product, size) => product * size, 1);
  const order = record.fortran ? rowMajor(shape) : null;
  if (!isUint8Array(data)) {
    const values =
      order === null ? data : yield* reorder(budget, count, order, (from) => data[from] as Value);
    return new NumpyArray('object', shape, convert(values));
  }
  const bytes = type.size * (type.kind === 'U' ? 4 : 1);
  const at = (index: number): Uint8Array => data.subarray(index * bytes, (index + 1) * bytes);
  const typed = TYPED.get(`${type.kind}${type.size}`);
  if (typed !== undefined) {
    const [name, TypedArray, swapped] = typed;
    budget.charge(COST.bytes + data.length);
    const copy = new Uint8Array(data.length);
    if (order === null) yield* copyPieces(copy, data);
    else {
      let to = 0;
      yield* reorder(budget, count, order, (from) => {
        copy.set(at(from), bytes * to++);
      });
    }
    if (type.bigEndian) {
      for (let start = 0; start < copy.length; start += PIECE_BYTES) {
        swap(copy.subarray(start, start + PIECE_BYTES), swapped);
        yield;
      }
    }
    return new NumpyArray(name, shape, new TypedArray(copy.buffer));
  }
  if (type.kind !== 'U' && type.kind !== 'S') return null;
  const values = yield* reorder(budget, count, order ?? ((index) => index), (from) => {
    budget.charge(COST.bytes + 2 * bytes);
    budget.spend(bytes >> 3);
    return readElement(type, at(from));
  });
  return new NumpyArray(type.kind === 'U' ? 'str' : 'bytes', shape, values);
}

/** Where the element of a row-major index lies in column-major data. */
function rowMajor(shape: readonly number[]): (index: number) => number {
  return (index) => {
    let from = 0;
    let rest = index;
    let step = shape.reduce((product, size) => product * size, 1);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const size = shape[axis] as number;
      step /= size;
      from += (rest % size) * step;
      rest = Math.floor(rest / size);
    }
    return from;
  };
}

function* reorder<T>(
  budget: Budget,
  count: number,
  order: (index: number) => number,
  read: (from: number) => T,
): Sliced<T[]> {
  const values: T[] = [];
  for (let index = 0; index < count; index++) {
    budget.charge(COST.slot);
    values.push(read(order(index)));
    if (budget.spend(1)) yield;
  }
  return values;
}
