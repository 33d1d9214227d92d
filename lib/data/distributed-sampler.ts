/** Which samples each process of a group gets: `DistributedSampler`, as PyTorch's, and what `train --distributed` uses. */
import { getRank, getWorldSize } from '../distributed/process-group';
import { makeError } from '../errors';
import { binding } from '../native';
import { describe } from '../tensor/options';
import { boolean, integer, optional, orElse, readOptions } from '../tensor/rules';
import { wrapUntracked } from '../tensor/tensor';
import type { Random } from './random';
import type { Sampler } from './sampler';

export interface DistributedSamplerOptions {
  /** Processes. Default: those of the group. */
  numReplicas?: number;
  /** Which of them this one is. Default: its rank in the group. */
  rank?: number;
  /** A new random order in each epoch, PyTorch's of the same seed. Default true. */
  shuffle?: boolean;
  /** The same on every process. Default 0. */
  seed?: number;
  /** Leaves out the last samples instead of repeating the first, so that all processes have as many. Default false. */
  dropLast?: boolean;
}

/**
 * The share of one process in each epoch, index for index as `torch.utils.data.DistributedSampler`: of the samples in
 * their order every `numReplicas`-th, as many for each process.
 *
 * @example
 * const loader = new DataLoader(dataset, { batchSize: 64, sampler: new DistributedSampler(dataset) });
 */
export class DistributedSampler implements Sampler {
  readonly length: number;
  readonly isUnique = true;
  readonly #samples: number;
  readonly #replicas: number;
  readonly #rank: number;
  readonly #shuffle: boolean;
  readonly #seed: number;
  readonly #dropLast: boolean;
  #epoch: number | null = null;

  /**
   * @param dataset - anything with a length
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION; ERR_SENET_DISTRIBUTED outside of a group,
   *   where the options do not say what it would
   */
  constructor(dataset: { readonly length: number }, options?: DistributedSamplerOptions) {
    const where = 'DistributedSampler';
    const samples = (dataset as { length?: unknown } | null)?.length;
    if (!Number.isSafeInteger(samples) || (samples as number) < 1)
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${where}: expected a data set with samples, got ${describe(dataset)}`,
      );
    const rules = {
      numReplicas: optional(integer(1)),
      rank: optional(integer(0)),
      shuffle: orElse(true, boolean),
      seed: orElse(0, integer(0)),
      dropLast: orElse(false, boolean),
    };
    const { numReplicas, rank, shuffle, seed, dropLast } = readOptions(options, rules, where);
    this.#samples = samples as number;
    this.#replicas = numReplicas ?? getWorldSize();
    this.#rank = rank ?? getRank();
    this.#shuffle = shuffle;
    this.#seed = seed;
    this.#dropLast = dropLast;
    if (this.#rank >= this.#replicas) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: rank: expected an integer from 0 to ${this.#replicas - 1}, got ${this.#rank}`,
      );
    }
    this.length = shareLength(this.#samples, this.#replicas, dropLast);
  }

  /** The epoch whose order comes next. Until it is called, that is the loader's own. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
  setEpoch(epoch: number): void {
    this.#epoch = integer(0)(epoch, 'DistributedSampler.setEpoch: epoch');
  }

  /** @param epoch - of the loader */
  order(_random?: Random, epoch = 0): readonly number[] {
    return shareOf(this.#indices(this.#epoch ?? epoch), this.#rank, this.#replicas, this.#dropLast);
  }

  #indices(epoch: number): number[] {
    if (!this.#shuffle) return Array.from({ length: this.#samples }, (_, index) => index);
    const drawn = wrapUntracked(binding.permutation(this.#samples, BigInt(this.#seed) + BigInt(epoch)));
    const indices = Array.from(drawn.toTypedArray(), Number);
    drawn.dispose();
    return indices;
  }
}

/**
 * The share of one process in the order that a loader on one process would have, whose batches are then those of all
 * processes together.
 */
export class ShareSampler implements Sampler {
  readonly length: number;
  readonly isUnique: boolean;
  readonly #whole: (random: Random, epoch: number) => readonly number[];
  readonly #rank: number;
  readonly #worldSize: number;

  /** @param sampler - of the whole epoch; null for the data set's own order or a shuffled one */
  constructor(
    samples: number,
    sampler: Sampler | null,
    { shuffle, rank, worldSize }: { shuffle: boolean; rank: number; worldSize: number },
  ) {
    this.isUnique = sampler === null || sampler.isUnique === true;
    this.#whole = (random, epoch) =>
      sampler?.order(random, epoch) ??
      (shuffle ? random.permutation(samples) : Array.from({ length: samples }, (_, index) => index));
    this.#rank = rank;
    this.#worldSize = worldSize;
    this.length = shareLength(sampler?.length ?? samples, worldSize, false);
  }

  order(random: Random, epoch = 0): readonly number[] {
    return shareOf(this.#whole(random, epoch), this.#rank, this.#worldSize, false);
  }
}

/** Every so many of a data set in its order, none of them twice: what one of several processes evaluates. */
export class PartSampler implements Sampler {
  readonly length: number;
  readonly isUnique = true;
  readonly #rank: number;
  readonly #worldSize: number;

  constructor(samples: number, { rank, worldSize }: { readonly rank: number; readonly worldSize: number }) {
    this.#rank = rank;
    this.#worldSize = worldSize;
    this.length = Math.ceil((samples - rank) / worldSize);
  }

  order(): readonly number[] {
    return Array.from({ length: this.length }, (_, place) => place * this.#worldSize + this.#rank);
  }
}

function shareLength(samples: number, replicas: number, dropLast: boolean): number {
  return dropLast && samples % replicas !== 0
    ? Math.max(0, Math.ceil((samples - replicas) / replicas))
    : Math.ceil(samples / replicas);
}

/** Every so many of an order that was filled up with its beginning, or shortened. */
function shareOf(order: readonly number[], rank: number, replicas: number, dropLast: boolean): number[] {
  const length = shareLength(order.length, replicas, dropLast);
  return Array.from({ length }, (_, place) => order[(place * replicas + rank) % order.length] as number);
}
