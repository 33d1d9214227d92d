/**
 * Numbers that share a place of a Map or Set. Where V8 puts a text depends on a secret of the process; where it puts a
 * number, anybody can compute, and thousands that share a place take a step for each other at each look-up. So places are
 * counted by V8's own rule (`ComputeUnseededHash`, `ComputeLongHash` and `Object::GetSimpleHash` of its sources; Node 20
 * to 24), and too many in one place are not put there. Knows no file format.
 */
import { MAX_COLLISIONS } from './limits';

/** Places of a table of 65,536 entries; larger ones have more. */
const PLACES = 32_768;
/** Smaller tables are not counted: so few cannot take long. */
const LEAST_SIZE = 1024;

/** Bytes of heap that counting one table takes. */
const COUNTS_BYTES = 2 * PLACES;

interface Table {
  readonly size: number;
  has(key: number | bigint): boolean;
}

/** Of the tables of one file. */
export class Collisions {
  readonly #counts = new WeakMap<object, Uint16Array>();

  /** @param charge - is told of bytes of heap before they are taken */
  constructor(private readonly charge: (bytes: number) => void) {}

  /** Counts a key that is put into the table; false where its place has too many already. */
  fits(table: Table, key: unknown): boolean {
    if (table.size < LEAST_SIZE || (typeof key !== 'number' && typeof key !== 'bigint')) return true;
    if (table.has(key)) return true;
    let counts = this.#counts.get(table);
    if (counts === undefined) {
      this.charge(COUNTS_BYTES);
      counts = new Uint16Array(PLACES);
      this.#counts.set(table, counts);
    }
    const place = hashOf(key) & (PLACES - 1);
    return ++(counts[place] as number) <= MAX_COLLISIONS;
  }
}

function hashOf(key: number | bigint): number {
  if (typeof key === 'bigint') return hashOf64(key < 0n ? -key : key);
  // Also of -0, which is 0 as a key.
  if ((key | 0) === key) return hashOf32(key);
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, key);
  return hashOf64(view.getBigUint64(0));
}

function hashOf32(key: number): number {
  let hash = (~key + (key << 15)) | 0;
  hash ^= hash >>> 12;
  hash = (hash + (hash << 2)) | 0;
  hash ^= hash >>> 4;
  hash = Math.imul(hash, 2057);
  return hash ^ (hash >>> 16);
}

function hashOf64(key: bigint): number {
  const word = (value: bigint): bigint => BigInt.asUintN(64, value);
  let hash = word(key);
  hash = word(~hash + (hash << 18n));
  hash ^= hash >> 31n;
  hash = word(hash * 21n);
  hash ^= hash >> 11n;
  hash = word(hash + (hash << 6n));
  return Number(BigInt.asUintN(32, hash ^ (hash >> 22n)));
}
