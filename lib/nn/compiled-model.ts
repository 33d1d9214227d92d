/**
 * CompiledModel: an inference-only copy of a module, folded, prepacked and fused, as `module.compile()` gives it.
 * What it computes and how is C++'s (`native/inference`); here are its options, results and life.
 */
import type { CompiledHandle, CompiledStep, Device, TensorHandle } from '../binding';
import { checkSafetensorsPath } from '../checkpoint/endings';
import { QUANTIZATION } from '../checkpoint/quantized-weights';
import { saveWeights, type SaveOptions } from '../checkpoint/save';
import { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { binding } from '../native';
import { COMPILED_DTYPES } from '../tensor/dtype';
import { runJob, runJobSync } from '../tensor/jobs';
import { checkInteger, describe } from '../tensor/options';
import {
  integer,
  isListOf,
  matching,
  orElse,
  readOptions,
  signal,
  type Rule,
  type Rules,
} from '../tensor/rules';
import { currentScope } from '../tensor/scope';
import { handleOf, wrapTensor, wrapUntracked, type Tensor } from '../tensor/tensor';

import type { QuantizationRecord } from './calibration';

/** Of weights and activations while a compiled model computes; it takes and gives float32 whatever this is. */
export type CompiledDType = (typeof COMPILED_DTYPES)[number];

/** @throws ERR_SENET_DTYPE */
export const compiledDType: Rule<CompiledDType> = (given, what) => {
  if (COMPILED_DTYPES.includes(given as CompiledDType)) return given as CompiledDType;
  throw makeError(
    'ERR_SENET_DTYPE',
    `${what}: expected ${COMPILED_DTYPES.join(', ')}, got ${describe(given)}`,
  );
};

/** What a compiled model does, as data. */
export interface CompiledPlan {
  /** Class of the source module. */
  readonly model: string;
  readonly dtype: CompiledDType;
  readonly device: Device;
  /**
   * What the steps run on: 'amx_int8', 'amx_bf16', 'avx512_vnni', 'avx512_bf16', 'avx512', 'avx2_vnni', 'avx2' and 'scalar'
   * are this library's own kernels, 'cuda-fused' its own and cuDNN's fused ones in a CUDA graph; 'onednn', 'cuda' and
   * 'libtorch' are LibTorch's operators.
   */
  readonly backend: string;
  /** Why a faster back end for this device does not serve it: "missing: libnvrtc.so.13". Left out if the fastest does. */
  readonly backendReason?: string;
  /** Height and width of the images that shapes and counts are for. */
  readonly inputSize: readonly [number, number];
  readonly weightBytes: number;
  readonly multiplyAdds: number;
  readonly steps: readonly CompiledStep[];
}

export interface ProfiledStep extends CompiledStep {
  /** Median over the runs; with several threads, their mean. */
  readonly milliseconds: number;
}

/** A plan with the time of each step. */
export interface CompiledProfile extends Omit<CompiledPlan, 'steps'> {
  readonly batch: number;
  readonly runs: number;
  /** Median of whole runs. */
  readonly milliseconds: number;
  readonly steps: readonly ProfiledStep[];
}

export interface ProfileOptions {
  /** Measured runs, after two that are not. Default 10, range 1 to 10,000. */
  runs?: number;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface PixelOptions {
  /** Subtracted from pixels / 255, for each channel of the model. */
  mean?: readonly number[];
  /** Divides what is left; none is 0. */
  std?: readonly number[];
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/** Of float32, in which they are computed with. */
const numbers = (words: string, fits: (value: number) => boolean): Rule<readonly number[]> =>
  matching(words, (value) =>
    isListOf(
      value,
      (each) => typeof each === 'number' && Number.isFinite(Math.fround(each)) && fits(Math.fround(each)),
    ),
  );
const PIXELS = {
  mean: orElse(
    [],
    numbers('an array of float32 numbers', () => true),
  ),
  std: orElse(
    [],
    numbers('an array of float32 numbers other than 0', (value) => value !== 0),
  ),
  signal,
} satisfies Rules<PixelOptions>;

const UNMEASURED_RUNS = 2;
const PROFILE = { runs: orElse(10, integer(1, 10_000)), signal };

/** Any number of `forward` calls may be in flight at once; they share the packed weights. */
export class CompiledModel {
  readonly dtype: CompiledDType;
  readonly #handle: CompiledHandle;

  /** @internal */
  constructor(handle: CompiledHandle, dtype: CompiledDType) {
    this.#handle = handle;
    this.dtype = dtype;
  }

  /**
   * Runs the model on the executor's threads, off the event loop; never records a graph.
   *
   * @param x - float32, N x C x H x W, for any N and any size that the source takes; any strides
   * @returns float32: what the source gives in evaluation mode, up to rounding
   * @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_DEVICE, ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async forward(x: Tensor, options?: { signal?: AbortSignal }): Promise<Tensor> {
    const checked = readOptions(options, { signal }, 'forward');
    const scope = currentScope();
    const value = await runJob(() => this.#submit(x), checked.signal);
    return wrapTensor(value as TensorHandle, scope);
  }

  /** As `forward`, blocking the calling thread until it is done. */
  forwardSync(x: Tensor): Tensor {
    return wrapTensor(runJobSync(() => this.#submit(x)) as TensorHandle, currentScope());
  }

  /**
   * From pixels on the CPU to logits on the CPU: they are normalised, uploaded, computed and brought back. On a CUDA device
   * all of that is one CUDA graph on one of a few streams, from memory that the device reads by itself, so that uploads
   * overlap with what runs before, and no thread waits for the device; beyond those streams, calls wait in a queue. What
   * `forward` gives of the same images, up to rounding.
   *
   * @param pixels - on the CPU, N x C x H x W: uint8, normalised as (x / 255 - mean) / std, or float32 as the model takes
   *   them; any strides. One channel is repeated for all that the model takes. It must not change until this has settled
   * @param options - `mean` and `std`: for each channel that the model takes, needed for uint8
   * @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_DEVICE (pixels on a device), ERR_SENET_ARG_RANGE (another
   *   number of channels, a `std` of 0), ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_OUT_OF_MEMORY,
   *   ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async forwardPixels(pixels: Tensor, options?: PixelOptions): Promise<Tensor> {
    const { mean, std, signal: abort } = readOptions(options, PIXELS, 'forwardPixels');
    const scope = currentScope();
    const value = await runJob(
      () =>
        binding.compiledAnswer(
          this.#handle,
          handleOf(pixels, 'forwardPixels: pixels'),
          Float32Array.from(mean),
          Float32Array.from(std),
        ),
      abort,
    );
    return wrapTensor(value as TensorHandle, scope);
  }

  /** Calls of `forwardPixels` that a device computes at once; 0: they compute on the executor's threads. @internal */
  get lanes(): number {
    return binding.compiledInfo(this.#handle).lanes;
  }

  #submit(x: Tensor): number {
    return binding.compiledForward(this.#handle, handleOf(x, 'forward: x'));
  }

  /**
   * The plan: steps with their shapes, what is fused into each, and bytes.
   *
   * @param inputSize - height and width of an image. Default: what the network was designed for (`inputSize` of its record), else
   *   32 x 32
   * @throws ERR_SENET_SHAPE for a size that the model does not take; ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE,
   *   ERR_SENET_DISPOSED
   */
  explain(inputSize?: readonly [number, number]): CompiledPlan {
    const { usualSize, ...info } = binding.compiledInfo(this.#handle);
    const [height, width] = inputSize === undefined ? usualSize : checkSize(inputSize);
    const steps = binding.compiledExplain(this.#handle, height, width);
    return {
      model: info.model,
      dtype: this.dtype,
      device: info.device,
      backend: info.backend,
      ...(info.backendReason === '' ? {} : { backendReason: info.backendReason }),
      inputSize: [height, width],
      weightBytes: info.weightBytes,
      multiplyAdds: steps.reduce((sum, step) => sum + step.multiplyAdds, 0),
      steps,
    };
  }

  /**
   * Times each step on an input: two runs to warm up, then medians of `runs`.
   *
   * @throws (rejects) as `forward`, and ERR_SENET_ARG_RANGE
   */
  async profile(x: Tensor, options?: ProfileOptions): Promise<CompiledProfile> {
    const { runs, signal: abort } = readOptions(options, PROFILE, 'profile');
    const handle = handleOf(x, 'profile: x');
    const all: Float64Array[] = [];
    for (let run = 0; run < UNMEASURED_RUNS + runs; run++) {
      const seconds = await runJob(() => binding.compiledProfile(this.#handle, handle), abort);
      if (run >= UNMEASURED_RUNS) all.push(seconds as Float64Array);
    }
    const [batch = 0, , height = 0, width = 0] = x.shape;
    const plan = this.explain([height, width]);
    const steps = plan.steps.map((step, index) => ({
      ...step,
      milliseconds: 1000 * median(all.map((seconds) => seconds[index] ?? 0)),
    }));
    const totals = all.map((seconds) => seconds.reduce((sum, second) => sum + second, 0));
    return { ...plan, batch, runs, milliseconds: 1000 * median(totals), steps };
  }

  /** What the bytes of a model of int8 mean: `calibration` of another `compile` of the same network takes it. */
  get quantization(): QuantizationRecord | undefined {
    return binding.compiledQuantization(this.#handle) ?? undefined;
  }

  /**
   * Saves a model of int8 as safetensors: its weights as int8 with a scale for each output channel (`NAME_scale`), the rest
   * of its module's state dict, and in the metadata what the bytes mean. `load` gives the weights of such a file as
   * float32, `loadCompiled` the model, which computes the same bits. The file appears whole or not at all.
   *
   * @param file - ends in `.safetensors`
   * @param options.metadata - text that is added to the file's, such as labels and preprocessing as JSON
   * @throws (rejects) ERR_SENET_DTYPE for another dtype; ERR_SENET_TS_FORWARD for a forward in TypeScript, which no file
   *   holds; ERR_SENET_ARG_RANGE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_DISPOSED
   */
  async save(file: string, options?: SaveOptions): Promise<void> {
    const record = this.quantization;
    if (record === undefined) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `save: expected a compiled model of int8, this one is ${this.dtype}`,
      );
    }
    checkSafetensorsPath(file, 'save: file');
    const entries = binding.compiledTensors(this.#handle);
    if (entries.length === 0) {
      throw makeError(
        'ERR_SENET_TS_FORWARD',
        'save: a forward in TypeScript is in no file; keep the weights, and `quantization` for `calibration`',
      );
    }
    const state = new StateDict(
      entries.map(([name, tensor]) => [name, wrapUntracked(tensor)]),
      undefined,
      new Map([[QUANTIZATION, JSON.stringify(record)]]),
    );
    try {
      await saveWeights(state, file, options);
    } finally {
      state.dispose();
    }
  }

  /** Frees the packed weights, once the calls that run have ended; later calls throw ERR_SENET_DISPOSED. */
  dispose(): void {
    binding.disposeCompiled(this.#handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function checkSize(size: unknown): [number, number] {
  if (!Array.isArray(size) || size.length !== 2) {
    throw makeError('ERR_SENET_ARG_TYPE', `explain: expected [height, width], got ${describe(size)}`);
  }
  const [height, width] = size as [number, number];
  checkInteger(height, 'explain: height', 1);
  checkInteger(width, 'explain: width', 1);
  return [height, width];
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}
