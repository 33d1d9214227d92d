/**
 * Nested JavaScript arrays to flat typed arrays and back.
 */
import type { DType, TypedArray } from '../binding';
import { makeError } from '../errors';
import { typedArrayFor } from './dtype';
import { describe, MAX_DIMENSIONS } from './options';

export type Element = number | bigint | boolean;
export type NestedArray = Element | readonly NestedArray[];

const INTEGER_RANGES: Partial<Record<DType, readonly [bigint, bigint]>> = {
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  int16: [-32768n, 32767n],
  int8: [-128n, 127n],
  uint8: [0n, 255n],
};

/** Shape and elements, in row-major order. @throws ERR_SENET_SHAPE, ERR_SENET_ARG_TYPE */
export function flatten(data: NestedArray): { shape: number[]; elements: Element[] } {
  const shape: number[] = [];
  for (let level: unknown = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length);
    if (shape.length > MAX_DIMENSIONS) {
      throw makeError('ERR_SENET_SHAPE', `a tensor has at most ${MAX_DIMENSIONS} dimensions`);
    }
  }
  const elements: Element[] = [];
  const visit = (value: unknown, depth: number): void => {
    const expected = shape[depth];
    if (expected !== undefined) {
      if (!Array.isArray(value) || value.length !== expected) {
        throw makeError(
          'ERR_SENET_SHAPE',
          `ragged data: expected an array of length ${expected} at depth ${depth}, got ${describe(value)}`,
        );
      }
      for (let i = 0; i < expected; i++) visit(value[i], depth + 1);
    } else if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') {
      elements.push(value);
    } else if (Array.isArray(value)) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `ragged data: expected a number at depth ${depth}, got ${describe(value)}`,
      );
    } else {
      throw makeError('ERR_SENET_ARG_TYPE', `expected a number, bigint or boolean, got ${describe(value)}`);
    }
  };
  visit(data, 0);
  return { shape, elements };
}

/** The dtype of plain data: booleans -> bool, bigints -> int64, anything with a number -> float32. */
export function inferDType(elements: readonly Element[]): DType {
  if (elements.length === 0 || elements.some((value) => typeof value === 'number')) return 'float32';
  return elements.some((value) => typeof value === 'bigint') ? 'int64' : 'bool';
}

/**
 * Elements as the typed array that carries `dtype`. float16 and bfloat16 are not made here: see `tensor`.
 * Fractions are cut off for integer dtypes, as in PyTorch; what does not fit is ERR_SENET_ARG_RANGE.
 */
export function toElements(elements: readonly Element[], dtype: DType): TypedArray {
  const array = typedArrayFor(dtype, elements.length);
  const range = INTEGER_RANGES[dtype];
  elements.forEach((value, index) => {
    // Not by truthiness: a NaN is true, as in PyTorch.
    if (dtype === 'bool') array[index] = Number(value) === 0 ? 0 : 1;
    else if (range === undefined) array[index] = Number(value);
    else array[index] = toInteger(value, dtype, range);
  });
  return array;
}

function toInteger(
  value: Element,
  dtype: DType,
  [minimum, maximum]: readonly [bigint, bigint],
): number | bigint {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw makeError('ERR_SENET_ARG_RANGE', `${value} cannot be an element of ${dtype}`);
  }
  const integer = typeof value === 'number' ? BigInt(Math.trunc(value)) : BigInt(value);
  if (integer < minimum || integer > maximum) {
    throw makeError('ERR_SENET_ARG_RANGE', `${value} is out of the range of ${dtype}`);
  }
  return dtype === 'int64' ? integer : Number(integer);
}

/** Flat elements as arrays of arrays; a shape of no dimensions gives the element itself. */
export function nest(flat: readonly Element[], shape: readonly number[]): NestedArray {
  let offset = 0;
  const build = (depth: number): NestedArray => {
    const size = shape[depth];
    if (size === undefined) return flat[offset++] as Element;
    return Array.from({ length: size }, () => build(depth + 1));
  };
  return build(0);
}
