/**
 * Which samples an epoch has, and in which order, as `torch.utils.data.Sampler`. Knows neither data sets nor batches: a
 * sampler gives indices, and the loader reads what they are of.
 */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { boolean, integer, optional, orElse, readOptions } from '../tensor/rules';
import type { Random } from './random';

/** An order for a DataLoader. What it gives must depend on `random` alone: a run that goes on asks again. */
export interface Sampler {
  /** Indices in an epoch. */
  readonly length: number;
  /** Whether no index comes twice in an epoch but to fill it up: transforms then draw for the index, wherever it stands. */
  readonly isUnique?: boolean;
  /**
   * @param random - of this epoch: the same seed and epoch give the same draws
   * @param epoch - of the loader, from 0
   */
  order(random: Random, epoch?: number): readonly number[];
}

export interface WeightedRandomSamplerOptions {
  /** Indices in an epoch, from 1. Default: as many as there are weights. */
  numSamples?: number;
  /** Whether an index may come again in an epoch. Default true. */
  replacement?: boolean;
}

/**
 * Draws indices in proportion to their weights, as `torch.utils.data.WeightedRandomSampler` (from the loader's seed and
 * epoch; PyTorch's draws are others).
 *
 * @example
 * // As many of each class in an epoch, however many there are.
 * const sampler = WeightedRandomSampler.balanced(dataset.labels);
 * const loader = new DataLoader(dataset, { batchSize: 64, sampler });
 */
export class WeightedRandomSampler implements Sampler {
  readonly length: number;
  readonly #weights: readonly number[];
  readonly #replacement: boolean;

  /**
   * @param weights - one for each sample of the data set, from 0; their sum needs not be 1
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (a weight that is negative or not finite, none above 0; without
   *   replacement more samples than there are weights above 0), ERR_SENET_UNKNOWN_OPTION
   */
  constructor(weights: ArrayLike<number>, options?: WeightedRandomSamplerOptions) {
    const where = 'WeightedRandomSampler';
    this.#weights = checkWeights(weights, `${where}: weights`);
    const rules = { numSamples: optional(integer(1)), replacement: orElse(true, boolean) };
    const { numSamples, replacement } = readOptions(options, rules, where);
    this.length = numSamples ?? this.#weights.length;
    this.#replacement = replacement;
    const possible = this.#weights.filter((weight) => weight > 0).length;
    if (!replacement && this.length > possible) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: ${this.length} samples without replacement of ${possible} whose weight is above 0`,
      );
    }
  }

  /**
   * One whose draws have each class equally often.
   *
   * @param labels - of each sample of the data set
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  static balanced(labels: ArrayLike<number>, options?: WeightedRandomSamplerOptions): WeightedRandomSampler {
    const counts = samplesPerClass(labels, 'WeightedRandomSampler.balanced: labels');
    return new WeightedRandomSampler(
      Array.from(labels, (label) => 1 / (counts.get(label) as number)),
      options,
    );
  }

  order(random: Random): readonly number[] {
    return this.#replacement ? this.#again(random) : this.#once(random);
  }

  #again(random: Random): number[] {
    let sum = 0;
    const sums = this.#weights.map((weight) => (sum += weight));
    const last = this.#weights.findLastIndex((weight) => weight > 0);
    return Array.from({ length: this.length }, () => {
      const drawn = random.uniform(0, sum);
      // The first sum above what was drawn; a weight of 0 has none.
      let [low, high] = [0, last];
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((sums[middle] as number) > drawn) high = middle;
        else low = middle + 1;
      }
      return low;
    });
  }

  /** Efraimidis and Spirakis: the greatest of uniform ** (1 / weight), here by their logarithms. */
  #once(random: Random): number[] {
    const keys = this.#weights.map((weight, index) => ({
      index,
      key: weight > 0 ? Math.log(1 - random.uniform()) / weight : -Infinity,
    }));
    const drawn = keys.filter(({ index }) => (this.#weights[index] as number) > 0);
    // Not their difference: that of two infinite ones is no number.
    drawn.sort((a, b) => (a.key === b.key ? a.index - b.index : b.key - a.key));
    return drawn.slice(0, this.length).map(({ index }) => index);
  }
}

function checkWeights(weights: unknown, what: string): number[] {
  const given = weights as ArrayLike<unknown> | null;
  if (typeof given !== 'object' || given === null || !Number.isSafeInteger(given.length))
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array of numbers, got ${describe(weights)}`);
  const numbers = Array.from(given, (weight, index) => {
    if (typeof weight !== 'number')
      throw makeError('ERR_SENET_ARG_TYPE', `${what}[${index}]: expected a number, got ${describe(weight)}`);
    if (weight >= 0 && weight < Infinity) return weight;
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${what}[${index}]: expected a finite number from 0, got ${weight}`,
    );
  });
  const sum = numbers.reduce((total, weight) => total + weight, 0);
  if (sum > 0 && sum < Infinity) return numbers;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected a finite sum above 0, got ${sum}`);
}

/** How many samples each class has. @throws ERR_SENET_ARG_TYPE */
export function samplesPerClass(labels: ArrayLike<number>, what: string): Map<number, number> {
  const counts = new Map<number, number>();
  const given = labels as ArrayLike<unknown> | null;
  if (typeof given !== 'object' || given === null || !Number.isSafeInteger(given.length))
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array of labels, got ${describe(labels)}`);
  for (let index = 0; index < given.length; index++) {
    const label = given[index];
    if (!Number.isSafeInteger(label) || (label as number) < 0) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${what}[${index}]: expected an integer from 0, got ${describe(label)}`,
      );
    }
    counts.set(label as number, (counts.get(label as number) ?? 0) + 1);
  }
  return counts;
}
