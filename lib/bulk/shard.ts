/** A part of a list, as people write it. */
import { makeError } from '../errors';
import { checkInteger, describe } from '../tensor/options';
import type { Shard } from './image-list';

/** Of a list at most; each part is a process. */
const MAX_SHARDS = 1_000_000;

/** '3/8', or `{ number: 3, of: 8 }`. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export function checkShard(given: unknown, what: string): Shard {
  if (typeof given === 'string') {
    const [, number, of] = /^(\d+)\/(\d+)$/.exec(given) ?? [];
    if (of !== undefined) return checkShard({ number: Number(number), of: Number(of) }, what);
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected a part such as '3/8', got '${given}'`);
  }
  const { number, of } = (given ?? {}) as Partial<Shard>;
  if (typeof given !== 'object' || given === null)
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a part such as '3/8', got ${describe(given)}`);
  const parts = checkInteger(of, `${what}: of`, 1, MAX_SHARDS);
  return { number: checkInteger(number, `${what}: number (the first part is 1)`, 1, parts), of: parts };
}
