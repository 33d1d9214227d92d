/**
 * Checks of one value each, and how messages name values. What takes an options object has a table of rules instead
 * (`rules.ts`).
 */
import { distance } from 'fastest-levenshtein';

import { isAbortSignal, isOfAnotherCopy, isSharedArrayBuffer } from '../brands';
import { makeError } from '../errors';
import { printable } from '../printable';

/** A safe integer within [minimum, maximum]; throws ERR_SENET_ARG_TYPE or ERR_SENET_ARG_RANGE. */
export function checkInteger(
  value: unknown,
  what: string,
  minimum: number,
  maximum = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value !== 'number')
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an integer, got ${describe(value)}`);
  if (!Number.isSafeInteger(value) || value < minimum || value > maximum) {
    const range =
      maximum === Number.MAX_SAFE_INTEGER ? `at least ${minimum}` : `from ${minimum} to ${maximum}`;
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected an integer ${range}, got ${value}`);
  }
  return value;
}

/** A finite number within [minimum, maximum]; throws ERR_SENET_ARG_TYPE or ERR_SENET_ARG_RANGE. */
export function checkNumber(
  value: unknown,
  what: string,
  minimum = -Number.MAX_VALUE,
  maximum = Number.MAX_VALUE,
): number {
  if (typeof value !== 'number')
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a number, got ${describe(value)}`);
  if (value >= minimum && value <= maximum) return value;
  const range =
    maximum !== Number.MAX_VALUE
      ? `from ${minimum} to ${maximum}`
      : minimum === -Number.MAX_VALUE
        ? 'that is finite'
        : `of at least ${minimum}`;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected a number ${range}, got ${value}`);
}

// As PyTorch: a tensor has at most 64 dimensions.
export const MAX_DIMENSIONS = 64;

/**
 * A copy of a shape: sizes that are integers from 0 and whose product is a number of elements that can exist.
 * ERR_SENET_ARG_TYPE for what is no array of numbers, ERR_SENET_SHAPE for impossible sizes.
 */
export function checkShape(value: unknown, where: string): number[] {
  if (!Array.isArray(value)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: expected a shape (an array of integers), got ${describe(value)}`,
    );
  }
  const shape = Array.from<unknown, number>(value, (size, index) => {
    if (typeof size !== 'number') {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${where}: shape[${index}]: expected an integer, got ${describe(size)}`,
      );
    }
    if (Number.isSafeInteger(size) && size >= 0) return size;
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: shape[${index}]: expected an integer of at least 0, got ${size}`,
    );
  });
  if (shape.length > MAX_DIMENSIONS) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: a tensor has at most ${MAX_DIMENSIONS} dimensions, got ${shape.length}`,
    );
  }
  // Zeros do not excuse the other sizes: LibTorch's strides are products of those alone.
  if (shape.reduce((product, size) => product * Math.max(size, 1), 1) > Number.MAX_SAFE_INTEGER) {
    throw makeError('ERR_SENET_SHAPE', `${where}: the shape [${shape.join(', ')}] is too large`);
  }
  return shape;
}

export function checkBoolean(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean')
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a boolean, got ${describe(value)}`);
  return value;
}

export function checkString(value: unknown, what: string): string {
  if (typeof value !== 'string')
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a string, got ${describe(value)}`);
  return value;
}

export function checkSignal(value: unknown, what: string): AbortSignal | undefined {
  if (value === undefined || isAbortSignal(value)) return value;
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an AbortSignal, got ${describe(value)}`);
}

/** Throws ERR_SENET_BUFFER unless the bytes behind a view are its thread's own, attached and of a fixed size. */
export function checkBuffer(view: ArrayBufferView, what: string): void {
  const { buffer } = view;
  if (isSharedArrayBuffer(buffer)) {
    throw makeError('ERR_SENET_BUFFER', `${what}: the bytes are shared with other threads; copy them first`);
  }
  // Its length changes under its views; the types of this TypeScript do not know the property.
  if ((buffer as { resizable?: boolean }).resizable === true) {
    throw makeError(
      'ERR_SENET_BUFFER',
      `${what}: the bytes are those of a resizable ArrayBuffer; copy them first`,
    );
  }
  // A detached buffer has no length, and neither has an empty one: only the first allows no new view.
  try {
    new Uint8Array(buffer);
  } catch (cause) {
    throw makeError('ERR_SENET_BUFFER', `${what}: the bytes are detached (transferred elsewhere)`, { cause });
  }
}

/** How error messages name a value. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return `'${printable(value, 80)}'`;
  if (typeof value === 'number' || typeof value === 'boolean' || value === undefined) return String(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (Array.isArray(value)) return `an array of length ${value.length}`;
  if (typeof value === 'object') {
    return isOfAnotherCopy(value)
      ? `one (${className(value)}) of another copy of senet-torch: this process has loaded the package twice (jest.resetModules, or two versions of it)`
      : `an object (${className(value)})`;
  }
  return `a ${typeof value}`;
}

function className(value: object): string {
  const { constructor } = value as { constructor?: { name?: unknown } };
  const name = constructor?.name;
  return typeof name === 'string' && name !== '' ? printable(name, 80) : 'no class';
}

/** Words about the known name that `name` most likely means (`num_classes`: `numClasses`); none if no name is near enough. */
export function hint(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? '' : `; did you mean '${near}'?`;
}

function nearest(name: string, known: readonly string[]): string | undefined {
  if (name.length > 100) return undefined; // no slip of the pen, and the distance is quadratic
  const plain = (text: string): string => text.replace(/[_-]/g, '').toLowerCase();
  const same = known.find((candidate) => plain(candidate) === plain(name));
  if (same !== undefined) return same;
  let best: string | undefined;
  let bestDistance = 3;
  for (const candidate of known) {
    const far = distance(plain(name), plain(candidate));
    if (far < bestDistance && far < candidate.length / 2) [best, bestDistance] = [candidate, far];
  }
  return best;
}
