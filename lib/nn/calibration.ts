/**
 * Post-training quantisation for `compile({ dtype: 'int8' })`: which numbers the activations of a module have on images for
 * calibration, and the compiled copy that follows from them. What is done with the numbers is C++'s
 * (`native/inference/calibration.h`); here are the options, the walk through the images, and its end.
 */
import type { CalibrationHandle, CompiledHandle, QuantizationColumns } from '../binding';
import { QUANTIZATION } from '../checkpoint/quantized-weights';
import { makeError } from '../errors';
import { binding } from '../native';
import { throwIfAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { fn, optional, readOptions, required, type Rules } from '../tensor/rules';
import { Tensor, handleOf } from '../tensor/tensor';
import { CALIBRATION_RULES, type CalibrationSettings } from './calibration-settings';

/** Images that calibration takes: one image C x H x W, several N x C x H x W, or a batch of a DataLoader. */
export type CalibrationImages = Tensor | { readonly images: Tensor };

/** Images for calibration: all of them, or something that gives them one after the other, such as a DataLoader. */
export type CalibrationData =
  CalibrationImages | Iterable<CalibrationImages> | AsyncIterable<CalibrationImages>;

export interface CalibrationProgress {
  /** Images that were seen. */
  readonly images: number;
}

export interface CalibrationOptions extends CalibrationSettings {
  /** Images as the network takes them, float32 and preprocessed; some 100 that look like those to come are enough. */
  data: CalibrationData;
  /** Called after each piece of `data`. */
  onProgress?: (progress: CalibrationProgress) => void;
}

/** What the bytes of a compiled model mean: `scale * (byte - zero)`. Data, that JSON holds. */
export interface QuantizationRecord {
  readonly values: readonly { readonly name: string; readonly scale: number; readonly zero: number }[];
  readonly keep: readonly string[];
  readonly keepFirst: boolean;
  /**
   * What is added to the biases of a convolution, one number for each output channel: what the rounding of its weights takes
   * from the mean of that channel (Nagel et al., "Data-Free Quantization", ICCV 2019, section 4.2).
   */
  readonly corrections: readonly { readonly name: string; readonly bias: readonly number[] }[];
}

/**
 * What a file of weights says that the bytes of its network mean; undefined where it says nothing.
 *
 * @throws ERR_SENET_CHECKPOINT_FORMAT for what is none
 */
export function quantizationIn(
  metadata: ReadonlyMap<string, string>,
  label: string,
): QuantizationRecord | undefined {
  const text = metadata.get(QUANTIZATION);
  if (text === undefined) return undefined;
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch {
    given = null;
  }
  const record = recordOf(given);
  if (record !== undefined) return record;
  throw makeError(
    'ERR_SENET_CHECKPOINT_FORMAT',
    `${label}: metadata '${QUANTIZATION}': expected JSON as a compiled model's save writes it`,
  );
}

/**
 * What an earlier calibration gave; undefined for images, and for options that say where images are.
 *
 * @throws ERR_SENET_ARG_TYPE for a record that lacks something
 */
export function earlierCalibration(given: unknown, where: string): QuantizationRecord | undefined {
  if (!Array.isArray((given as Partial<QuantizationRecord> | null | undefined)?.values)) return undefined;
  const record = recordOf(given);
  if (record !== undefined) return record;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${where}: calibration: expected \`quantization\` of a compiled model`,
  );
}

/** A record, if it is one. */
function recordOf(given: unknown): QuantizationRecord | undefined {
  const { values, keep, keepFirst, corrections } = (given ?? {}) as Partial<QuantizationRecord>;
  const isValue = (value: Partial<QuantizationRecord['values'][number]> | null): boolean =>
    typeof value?.name === 'string' && typeof value.scale === 'number' && typeof value.zero === 'number';
  const isCorrection = (value: Partial<QuantizationRecord['corrections'][number]> | null): boolean =>
    typeof value?.name === 'string' &&
    Array.isArray(value.bias) &&
    value.bias.every((x) => typeof x === 'number');
  const isRecord =
    Array.isArray(values) &&
    values.every(isValue) &&
    Array.isArray(keep) &&
    keep.every((name) => typeof name === 'string') &&
    typeof keepFirst === 'boolean' &&
    Array.isArray(corrections) &&
    corrections.every(isCorrection);
  return isRecord ? { values, keep, keepFirst, corrections } : undefined;
}

const OPTIONS = {
  data: required((given: unknown) => given as CalibrationData),
  ...CALIBRATION_RULES,
  onProgress: optional(fn<(progress: CalibrationProgress) => void>()),
} satisfies Rules<CalibrationOptions>;

/**
 * The compiled copy of what `begin` starts to calibrate.
 *
 * @throws (rejects) ERR_SENET_CALIBRATION without an image, or with numbers that are not finite
 */
export async function compileCalibrated(
  begin: () => Promise<CalibrationHandle>,
  calibration: unknown,
  keep: readonly string[],
  signal: AbortSignal | undefined,
): Promise<CompiledHandle> {
  const restored = earlierCalibration(calibration, 'compile');
  const options =
    restored === undefined ? readOptions(toOptions(calibration), OPTIONS, 'compile: calibration') : undefined;
  const handle = await begin();
  try {
    if (restored !== undefined) return await restore(handle, restored, keep, signal);
    const { data, method, percentile, limit, quantizeFirst, errorBudget, onProgress } =
      options as NonNullable<typeof options>;
    let images = 0;
    for await (const piece of pieces(data)) {
      try {
        throwIfAborted(signal);
        images += await observe(handle, piece, limit - images, signal);
      } finally {
        if (isLoader(data)) disposeBatch(piece);
      }
      onProgress?.({ images });
      if (images >= limit) break;
    }
    return (await runJob(
      () =>
        binding.calibrationFinish(
          handle,
          method,
          percentile,
          keep,
          !quantizeFirst,
          errorBudget ?? Number.POSITIVE_INFINITY,
        ),
      signal,
    )) as CompiledHandle;
  } finally {
    binding.disposeCalibration(handle);
  }
}

/** Shows a piece of the data, and says how many images it had. */
async function observe(
  handle: CalibrationHandle,
  piece: unknown,
  most: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const images = Tensor.isTensor(piece) ? piece : (piece as Partial<{ images: unknown }> | null)?.images;
  if (!Tensor.isTensor(images)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `compile: calibration: expected Tensors, or batches with images, got ${describe(piece)}`,
    );
  }
  const count = images.shape.length === 4 ? (images.shape[0] ?? 0) : 1;
  const batch =
    images.shape.length === 3 ? images.unsqueeze(0) : count > most ? images.slice(0, 0, most) : images;
  try {
    await runJob(() => binding.calibrationObserve(handle, handleOf(batch, 'compile: calibration')), signal);
  } finally {
    if (batch !== images) batch.dispose();
  }
  return Math.min(count, most);
}

async function restore(
  handle: CalibrationHandle,
  record: QuantizationRecord,
  keep: readonly string[],
  signal: AbortSignal | undefined,
): Promise<CompiledHandle> {
  const columns = columnsOf(keep.length > 0 ? { ...record, keep } : record);
  return (await runJob(() => binding.calibrationRestore(handle, ...columns), signal)) as CompiledHandle;
}

/** As the addon takes it. */
export function columnsOf({ values, keep, keepFirst, corrections }: QuantizationRecord): QuantizationColumns {
  const column = <K extends 'name' | 'scale' | 'zero'>(name: K) => values.map((value) => value[name]);
  const corrected = corrections.map(({ name }) => name);
  return [
    column('name'),
    column('scale'),
    column('zero'),
    keep,
    keepFirst,
    corrected,
    corrections.map(({ bias }) => bias),
  ];
}

function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof (value as Partial<Iterable<unknown>> | null | undefined)?.[Symbol.iterator] === 'function';
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return (
    typeof (value as Partial<AsyncIterable<unknown>> | null | undefined)?.[Symbol.asyncIterator] ===
    'function'
  );
}

/** A DataLoader, whose batches belong to whoever takes them. */
function isLoader(data: unknown): boolean {
  return (
    isAsyncIterable(data) && typeof (data as Partial<{ loadStateDict: unknown }>).loadStateDict === 'function'
  );
}

function disposeBatch(batch: unknown): void {
  for (const part of Object.values(batch ?? {})) if (Tensor.isTensor(part)) part.dispose();
}

function hasImages(given: unknown): given is { readonly images: Tensor } {
  return Tensor.isTensor((given as { readonly images?: unknown } | null)?.images);
}

function toOptions(given: unknown): CalibrationOptions {
  if (given === undefined) {
    throw makeError('ERR_SENET_ARG_MISSING', "compile: the dtype 'int8' needs images: give calibration");
  }
  const isData = Tensor.isTensor(given) || isIterable(given) || isAsyncIterable(given) || hasImages(given);
  return (isData ? { data: given } : given) as CalibrationOptions;
}

/** Each piece of the data, whatever gives it. */
function pieces(data: unknown): Iterable<unknown> | AsyncIterable<unknown> {
  if (Tensor.isTensor(data)) return [data];
  if (isIterable(data) || isAsyncIterable(data)) return data;
  if (Tensor.isTensor((data as Partial<{ images: unknown }> | null)?.images)) return [data];
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `compile: calibration: expected a Tensor, or an iterable of Tensors or batches, got ${describe(data)}`,
  );
}
