/**
 * Reading state dicts of optimisers and schedulers: what `stateDict()` gives (objects), and what `loadCheckpoint` reads
 * from a file (Maps). Knows neither optimisers nor files.
 */
import { isMap, isPlainObject } from '../brands';
import { makeError } from '../errors';
import { describe } from '../tensor/options';

/** A Map or a plain object as a Map. @throws ERR_SENET_STATE_DICT */
export function dictionary(value: unknown, what: string): Map<unknown, unknown> {
  if (isMap(value)) return value;
  if (isPlainObject(value)) return new Map(Object.entries(value));
  throw makeError('ERR_SENET_STATE_DICT', `${what}: expected a dictionary, got ${describe(value)}`);
}

/** @throws ERR_SENET_STATE_DICT */
export function list(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value as unknown[];
  throw makeError('ERR_SENET_STATE_DICT', `${what}: expected a list, got ${describe(value)}`);
}
