/**
 * A small seeded generator for everything random about data: shuffles and augmentation. Each use has a generator of its
 * own, seeded by what it is for (seed, epoch, index of the image), so that draws never depend on the order in which
 * images happen to be ready, and the process's generator (weights, dropout) is left alone.
 *
 * The algorithm is xoshiro128** of Blackman and Vigna (https://prng.di.unimi.it), its state filled from the seeds by
 * MurmurHash3's mixing. Good for augmentation, not for cryptography. Knows no tensor.
 */
import { makeError } from '../errors';
import { describe } from '../tensor/options';

/** A stream of random numbers that its seeds alone determine: the same on every machine and in every version 0.x. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  /**
   * @param seeds - safe integers from 0; other numbers, another order or another count give another stream
   * @throws ERR_SENET_ARG_TYPE
   */
  constructor(...seeds: number[]) {
    let hash = 0x9e3779b9;
    for (const seed of seeds) {
      if (!Number.isSafeInteger(seed) || seed < 0) {
        throw makeError('ERR_SENET_ARG_TYPE', `Random: expected integers from 0, got ${describe(seed)}`);
      }
      hash = mix(hash, seed >>> 0);
      hash = mix(hash, Math.floor(seed / 2 ** 32));
    }
    const next = (): number => (hash = mix(hash, seeds.length));
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1; // a state of zeros would stay zeros
  }

  /** An integer from [0, 2**32). */
  uint32(): number {
    const scrambled = Math.imul(this.#b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  /**
   * A number from [low, high), with 53 random bits; [0, 1) without arguments.
   *
   * @throws ERR_SENET_ARG_RANGE unless both are finite numbers
   */
  uniform(low = 0, high = 1): number {
    if (!Number.isFinite(low) || !Number.isFinite(high))
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `Random.uniform: expected two finite numbers, got ${describe(low)} and ${describe(high)}`,
      );
    const fraction = ((this.uint32() >>> 5) * 2 ** 26 + (this.uint32() >>> 6)) / 2 ** 53;
    return low + (high - low) * fraction;
  }

  /**
   * An integer from [low, high), each equally likely.
   *
   * @throws ERR_SENET_ARG_RANGE unless both are safe integers and `high - low` is 1 to 2**32
   */
  integer(low: number, high: number): number {
    const range = Number.isSafeInteger(low) && Number.isSafeInteger(high) ? high - low : 0;
    if (range < 1 || range > 2 ** 32) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `Random.integer: expected integers with high - low from 1 to 2**32, got ${describe(low)} and ${describe(high)}`,
      );
    }
    // Draws beyond the largest multiple of the range would favour small numbers.
    const limit = 2 ** 32 - (2 ** 32 % range);
    for (;;) {
      const drawn = this.uint32();
      if (drawn < limit) return low + (drawn % range);
    }
  }

  /** A draw from the normal distribution of mean 0 and deviation 1 (Box and Muller). */
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  /** A draw from Beta(a, b), for a and b above 0. @throws ERR_SENET_ARG_RANGE */
  beta(a: number, b: number): number {
    for (const shape of [a, b]) {
      if (!(shape > 0 && shape < Infinity))
        throw makeError(
          'ERR_SENET_ARG_RANGE',
          `Random.beta: expected numbers above 0, got ${describe(shape)}`,
        );
    }
    const left = this.#gamma(a);
    const right = this.#gamma(b);
    // Both underflow to 0 for tiny parameters, whose distribution is all but two points.
    if (left + right === 0) return this.uniform() < a / (a + b) ? 1 : 0;
    return left / (left + right);
  }

  /** The integers from 0 to count - 1 in random order (Fisher and Yates). @throws ERR_SENET_ARG_RANGE */
  permutation(count: number): number[] {
    if (!Number.isSafeInteger(count) || count < 0 || count >= 2 ** 32)
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `Random.permutation: expected an integer from 0 to 2**32 - 1, got ${describe(count)}`,
      );
    const order = Array.from({ length: count }, (_, index) => index);
    for (let last = count - 1; last > 0; last--) {
      const other = this.integer(0, last + 1);
      const moved = order[last] as number;
      order[last] = order[other] as number;
      order[other] = moved;
    }
    return order;
  }

  /** Marsaglia and Tsang's method; below 1 by way of shape + 1. */
  #gamma(shape: number): number {
    if (shape < 1) return this.#gamma(shape + 1) * (1 - this.uniform()) ** (1 / shape);
    const d = shape - 1 / 3;
    for (;;) {
      const x = this.normal();
      const v = (1 + x / Math.sqrt(9 * d)) ** 3;
      if (v > 0 && Math.log(1 - this.uniform()) < x ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v;
    }
  }
}

/** One word into a hash: MurmurHash3's body and finaliser. */
function mix(hash: number, word: number): number {
  let k = Math.imul(word, 0xcc9e2d51);
  k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
  let h = hash ^ k;
  h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
