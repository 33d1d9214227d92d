/** What gives a classifier its logits: a compiled copy of a model, or the model. */
import type { Device, DType } from '../binding';
import type { Preprocessing } from '../models/preprocessing-record';
import type { QuantizationRecord } from '../nn/calibration';
import type { CompiledDType, CompiledModel } from '../nn/compiled-model';
import { Module } from '../nn/module';
import { COMPILED_DTYPES } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';
import { recordChannels } from './preprocessing-options';

/** What gives the logits of a batch. */
export interface Predictor {
  /** What runs, unless it is a compiled copy. */
  readonly module?: Module<unknown>;
  /** Whether `forward` also takes pixels as `shapePixels` makes them, and does the rest of their preprocessing itself. */
  readonly takesPixels: boolean;
  /** Batches that a device computes at once; 0: they run on the executor's threads. */
  readonly lanes: number;
  /**
   * @param x - float32, N x channels x height x width, on the CPU; or pixels
   * @returns logits, wherever they are
   */
  forward(x: Tensor): Promise<Tensor>;
  dispose(): void;
}

/**
 * The predictor of a model in evaluation mode: a compiled copy, or the model itself for a dtype that is not compiled
 * (float64) and for a forward in TypeScript that cannot be traced. What `owned` says is the predictor's to dispose.
 */
export async function makePredictor(
  model: Module<unknown>,
  owned: boolean,
  dtype: DType,
  device: Device,
  record: Preprocessing,
  signal: AbortSignal | undefined,
  calibration?: QuantizationRecord,
): Promise<Predictor> {
  model.eval();
  const compiled = await compileFor(model, owned, { dtype, device, signal, calibration });
  if (compiled === undefined) {
    model.to({ dtype, device });
    return {
      module: model,
      takesPixels: false,
      lanes: 0,
      forward: async (x) => (await model.forward(x.to({ dtype, device }))) as Tensor,
      dispose: () => owned && model.dispose(),
    };
  }
  const dispose = (): void => compiled.dispose();
  const { lanes } = compiled;
  if (lanes > 0) {
    const channels = recordChannels(record);
    const [mean, std] = [perChannel(record.mean, channels), perChannel(record.std, channels)];
    return {
      takesPixels: true,
      lanes,
      forward: (x) => compiled.forwardPixels(x.to('cpu'), { mean, std }),
      dispose,
    };
  }
  return { takesPixels: false, lanes, forward: (x) => compiled.forward(x.to(device)), dispose };
}

/** One number is that of every channel. */
function perChannel(values: readonly number[], channels: number): readonly number[] {
  return values.length === 1 ? new Array<number>(channels).fill(values[0] as number) : values;
}

/** A compiled copy, which is all that is left of an owned model; undefined where the model itself is to run. */
async function compileFor(
  model: Module<unknown>,
  owned: boolean,
  {
    dtype,
    device,
    signal,
    calibration,
  }: {
    dtype: DType;
    device: Device;
    signal: AbortSignal | undefined;
    calibration: QuantizationRecord | undefined;
  },
): Promise<CompiledModel | undefined> {
  if (!COMPILED_DTYPES.includes(dtype as CompiledDType)) return undefined;
  model.to(device);
  const compiling = model.compile({
    dtype: dtype as CompiledDType,
    ...(calibration === undefined ? {} : { calibration }),
    ...(signal === undefined ? {} : { signal }),
  });
  const traced = !Module.runsNatively(model);
  // The job holds its weights until it has read them, and no longer. Ours are native.
  if (owned) model.dispose();
  try {
    return await compiling;
  } catch (error) {
    // What a forward in TypeScript throws while it is traced, it need not throw for numbers.
    if (!traced || signal?.aborted === true) throw error;
    return undefined;
  }
}
