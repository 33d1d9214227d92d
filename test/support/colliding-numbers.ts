/** Numbers that V8 puts into one place of a Map or Set of up to 65,536 entries; its rules are invertible. */

const PLACES = 32_768;
const PLACE = 7;

/** So many integers and floats of one place, none of them twice. */
export function colliding(count: number): { integers: number[]; floats: number[] } {
  const integers: number[] = [];
  const floats: number[] = [];
  const view = new DataView(new ArrayBuffer(8));
  for (let i = 0; i < count; i++) {
    // Hashes whose low bits are the same, back to what has them.
    integers.push(inverse32((i * PLACES + PLACE) >>> 0) | 0);
    view.setBigUint64(0, inverse64((BigInt(i) << 15n) + BigInt(PLACE)));
    floats.push(view.getFloat64(0));
  }
  return { integers, floats: floats.filter((value) => !Number.isNaN(value)) };
}

/** Of h ^= h >>> shift. */
function unshift(hash: bigint, shift: bigint, bits: number): bigint {
  let value = hash;
  for (let done = shift; done < bits; done += shift) value = hash ^ (value >> shift);
  return BigInt.asUintN(bits, value);
}

/** Of a product with an odd number. */
function divide(product: bigint, factor: bigint, bits: number): bigint {
  let inverse = 1n;
  for (let i = 0; i < 6; i++) inverse = BigInt.asUintN(bits, inverse * (2n - factor * inverse));
  return BigInt.asUintN(bits, product * inverse);
}

/** Of `ComputeUnseededHash`. */
function inverse32(hash: number): number {
  let value = unshift(BigInt(hash), 16n, 32);
  value = divide(value, 2057n, 32);
  value = unshift(value, 4n, 32);
  value = divide(value, 5n, 32);
  value = unshift(value, 12n, 32);
  // ~key + (key << 15) = key * (2 ** 15 - 1) - 1
  return Number(divide(value + 1n, 32_767n, 32));
}

/** Of `ComputeLongHash`. */
function inverse64(hash: bigint): bigint {
  let value = unshift(hash, 22n, 64);
  value = divide(value, 65n, 64);
  value = unshift(value, 11n, 64);
  value = divide(value, 21n, 64);
  value = unshift(value, 31n, 64);
  return divide(value + 1n, 262_143n, 64);
}
