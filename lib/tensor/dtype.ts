/**
 * Names of dtypes, devices and memory formats, and which typed array carries which dtype.
 */
import { typedArrayKind } from '../brands';
import type { Device, DType, MemoryFormat, TypedArray } from '../binding';
import { makeError } from '../errors';
import { describe } from './options';
import { oneOf, optional, readOptions, type Values } from './rules';

export const DTYPES = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
] as const satisfies readonly DType[];

/** Those of a forward under `autocast`, and without. */
export const PRECISIONS = ['float32', 'bfloat16', 'float16'] as const satisfies readonly DType[];
export type Precision = (typeof PRECISIONS)[number];

/** Those of compiled models. */
export const COMPILED_DTYPES = ['float32', 'bfloat16', 'float16', 'int8'] as const satisfies readonly DType[];

const MEMORY_FORMATS = ['contiguous', 'channels_last', 'preserve'] as const satisfies readonly MemoryFormat[];

/** What `to` takes: a dtype, a device, or both with a memory format. */
export type Target = DType | Device | { dtype?: DType; device?: Device; memoryFormat?: MemoryFormat };

function isDType(value: unknown): value is DType {
  return (DTYPES as readonly unknown[]).includes(value);
}

export function isDevice(value: unknown): value is Device {
  return typeof value === 'string' && /^(cpu|cuda|cuda:\d{1,3})$/.test(value);
}

export function isFloating(dtype: DType): boolean {
  return dtype === 'float32' || dtype === 'float64' || dtype === 'float16' || dtype === 'bfloat16';
}

/** @throws ERR_SENET_DTYPE */
export function checkDType(value: unknown, what: string): DType {
  if (isDType(value)) return value;
  throw makeError(
    'ERR_SENET_DTYPE',
    `${what}: expected a dtype (${DTYPES.join(', ')}), got ${describe(value)}`,
  );
}

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export function checkDevice(value: unknown, what: string): Device {
  if (isDevice(value)) return value;
  const code = typeof value === 'string' ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE';
  throw makeError(code, `${what}: expected a device ('cpu', 'cuda' or 'cuda:N'), got ${describe(value)}`);
}

const TARGET = {
  dtype: optional(checkDType),
  device: optional(checkDevice),
  memoryFormat: optional(oneOf(MEMORY_FORMATS)),
};

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_DTYPE, ERR_SENET_UNKNOWN_OPTION */
export function parseTarget(target: Target): Values<typeof TARGET> {
  if (typeof target === 'string') {
    if (isDType(target)) return { dtype: target, device: undefined, memoryFormat: undefined };
    if (isDevice(target)) return { dtype: undefined, device: target, memoryFormat: undefined };
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `to: expected a dtype (${DTYPES.join(', ')}) or a device ('cpu', 'cuda', 'cuda:N'), got '${String(target)}'`,
    );
  }
  if (target === undefined)
    throw makeError('ERR_SENET_ARG_MISSING', 'to: expected a dtype, a device or an object of both');
  return readOptions(target, TARGET, 'to');
}

/** float16 and bfloat16 travel as raw 16-bit patterns. */
const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  int16: Int16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>;

/** An empty-handed array of the kind that carries `dtype`. */
export function typedArrayFor(dtype: DType, length: number): TypedArray {
  return new ARRAYS[dtype](length);
}

/** The addon's array, which is of the realm that loaded the addon first, as one of this realm. */
export function ownView(array: TypedArray, dtype: DType): TypedArray {
  return new ARRAYS[dtype](array.buffer as ArrayBuffer, array.byteOffset, array.length);
}

const NATURAL_DTYPES: Readonly<Record<string, DType>> = {
  Float32Array: 'float32',
  Float64Array: 'float64',
  BigInt64Array: 'int64',
  Int32Array: 'int32',
  Int16Array: 'int16',
  Int8Array: 'int8',
  Uint8Array: 'uint8',
  Uint8ClampedArray: 'uint8',
};

/** The dtype of a typed array by itself; undefined for one that needs a dtype beside it or has no counterpart. */
export function naturalDType(array: ArrayBufferView): DType | undefined {
  return NATURAL_DTYPES[typedArrayKind(array) ?? ''];
}
