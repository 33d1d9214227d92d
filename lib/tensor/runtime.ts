/**
 * The process-wide settings and facts: threads, seeds, memory, versions.
 */
import { makeError } from '../errors';
import { binding, whenLoaded } from '../native';
import { packageVersion } from '../package-root';
import { describe } from './options';
import { integer, orElse, readOptions } from './rules';
import { handleOf, wrapTensor, type Tensor } from './tensor';

/** Versions of this package, of the LibTorch that it runs on, and of Node. */
export const version: { readonly package: string; readonly libtorch: string; readonly node: string } = {
  package: packageVersion(),
  libtorch: '',
  node: process.versions.node,
};
whenLoaded(() => {
  Object.freeze(Object.assign(version, { libtorch: binding.libtorchVersion }));
});

export interface ConfigureOptions {
  /** Jobs that run at the same time, 1 to 256. Default 1. */
  workers?: number;
  /** Threads of each job's operators, 1 to 256, and 1024 with all workers. Default: the processors granted by affinity and cgroup. */
  threadsPerWorker?: number;
}

/**
 * Sets the executor's threads for jobs that start from now on; what is left out stays as it is.
 *
 * One worker with all threads answers a single caller soonest; several workers with fewer threads each give more
 * throughput to many callers. Random draws are reproducible with one worker only.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
 */
export function configure(options: ConfigureOptions): void {
  const current = binding.configuration();
  const rules = {
    workers: orElse(current.workers, integer(1, 256)),
    threadsPerWorker: orElse(current.threadsPerWorker, integer(1, 256)),
  };
  const { workers, threadsPerWorker } = readOptions(options, rules, 'configure');
  binding.configure(workers, threadsPerWorker);
}

/**
 * Seeds the process's generators, the CPU's and each CUDA device's, at the call, also for jobs that wait or run: one that was queued before and draws
 * (a forward with Dropout) draws from the new seed, and what follows draws after it. Await such jobs first; the draws
 * are then those after `torch.manual_seed(seed)`.
 *
 * @param seed an integer from -2**63 to 2**64 - 1; use a bigint beyond 2**53. Negative ones wrap, as in PyTorch
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
 */
export function manualSeed(seed: number | bigint): void {
  if (typeof seed !== 'number' && typeof seed !== 'bigint') {
    throw makeError('ERR_SENET_ARG_TYPE', `manualSeed: expected an integer, got ${describe(seed)}`);
  }
  if (typeof seed === 'number' && !Number.isSafeInteger(seed)) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `manualSeed: expected an integer up to 2**53 - 1 or a bigint, got ${seed}`,
    );
  }
  const value = BigInt(seed);
  if (value < -(2n ** 63n) || value >= 2n ** 64n) {
    throw makeError('ERR_SENET_ARG_RANGE', `manualSeed: expected -2**63 to 2**64 - 1, got ${value}`);
  }
  binding.manualSeed(BigInt.asUintN(64, value));
}

/** The state of the process's CPU generator, the bytes of `torch.get_rng_state()`. */
export function getRngState(): Tensor {
  return wrapTensor(binding.generatorState());
}

/**
 * Puts the process's CPU generator where `getRngState`, or `torch.get_rng_state()` of Python, found it.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE unless it is a generator's state (uint8)
 */
export function setRngState(state: Tensor): void {
  binding.setGeneratorState(handleOf(state, 'setRngState'));
}

/** What the library holds, for the whole process. */
export interface MemoryUsage {
  /** Tensor objects that were neither disposed nor collected. */
  tensors: number;
  /** Bytes of CPU memory in use by tensors, modules and running jobs. */
  bytes: number;
  /**
   * Bytes of freed CPU memory kept for the next allocation. What is not taken again goes back to the system: after five
   * seconds, blocks of 64 MiB and more after one; later if the same size has lately been wanted after a longer time,
   * within 30 seconds.
   */
  cachedBytes: number;
  /**
   * What `cachedBytes` may reach at present: twice the most that `bytes` was in the last half minute to minute, at least
   * 64 MiB and at most an eighth of the memory that the process is granted; 0 under `SENET_CACHING_ALLOCATOR=0`.
   */
  cacheLimit: number;
  /**
   * Bytes of memory of CUDA devices in use by tensors, modules and running jobs; `cuda.memory` tells more. NaN with a
   * LibTorch before 2.9, which does not tell.
   */
  deviceBytes: number;
  jobs: { queued: number; running: number };
}

export function memory(): MemoryUsage {
  const { tensors, bytes, cachedBytes, cacheLimit, deviceBytes, queued, running } = binding.memory();
  return { tensors, bytes, cachedBytes, cacheLimit, deviceBytes, jobs: { queued, running } };
}
