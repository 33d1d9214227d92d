/**
 * A tensor of a checkpoint as a checked description: an element type, a shape and strides over a range of bytes of
 * the file. Every rule that later reading relies on is checked here, whichever container the tensor came from; the
 * native reader checks bounds again. Follows `at::native::set_storage` for what a view of a storage may be.
 */
import type { ByteRange, DType, TensorRead } from '../binding';
import { isFloating } from '../tensor/dtype';
import { MAX_RANK, MAX_REPEATED_ELEMENTS } from './limits';
import { checkpointError } from './problems';

export const ITEM_SIZE: Readonly<Record<DType, number>> = {
  float32: 4,
  float64: 8,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  int16: 2,
  int8: 1,
  uint8: 1,
  bool: 1,
};

/** Python's names of their storages. */
export const STORAGE_NAMES: Readonly<Record<DType, string>> = {
  float64: 'DoubleStorage',
  float32: 'FloatStorage',
  float16: 'HalfStorage',
  bfloat16: 'BFloat16Storage',
  int64: 'LongStorage',
  int32: 'IntStorage',
  int16: 'ShortStorage',
  int8: 'CharStorage',
  uint8: 'ByteStorage',
  bool: 'BoolStorage',
};

/** Deflated bytes. */
export interface Packed {
  /** Compressed. */
  readonly length: number;
  /** Of what they become. */
  readonly crc: number;
}

/** A storage of the file. In the legacy container its place is known only after the pickle that names it. */
export class StorageRecord {
  /** First byte in the file, or -1 while it is unknown. */
  offset = -1;
  /** How the bytes at `offset` are compressed; null if they are not. */
  packed: Packed | null = null;
  constructor(
    readonly key: string,
    /** null for an untyped storage, whose views bring their own type. */
    readonly dtype: DType | null,
    /** Length in bytes. */
    readonly length: number,
  ) {}
}

export class TensorRecord {
  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    /** In elements, as PyTorch counts them. */
    readonly stride: readonly number[],
    /** In elements, from the beginning of the storage. */
    readonly storageOffset: number,
    readonly storage: StorageRecord,
    readonly requiresGrad: boolean,
  ) {}

  get elements(): number {
    return countElements(this.shape);
  }

  get bytes(): number {
    return this.elements * ITEM_SIZE[this.dtype];
  }
}

export interface TensorClaim {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storageOffset: number;
  readonly storage: StorageRecord;
  readonly requiresGrad: boolean;
}

export function countElements(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

/** The strides of a tensor whose elements lie in the file one after the other, last dimension first. */
export function contiguousStride(shape: readonly number[]): number[] {
  const stride = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    stride[i] = step;
    step *= Math.max(shape[i] ?? 1, 1);
  }
  return stride;
}

/**
 * Checks what a file claims about a tensor and makes the record.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT, ERR_SENET_CHECKPOINT_LIMIT.
 */
export function makeTensorRecord(claim: TensorClaim, label: string, where: string): TensorRecord {
  const { dtype, shape, stride, storageOffset, storage, requiresGrad } = claim;
  const wrong = (message: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, `${where}: ${message}`);
  if (shape.length > MAX_RANK) {
    throw checkpointError(
      'ERR_SENET_CHECKPOINT_LIMIT',
      label,
      `${where}: ${shape.length} dimensions, and at most ${MAX_RANK} are read`,
    );
  }
  if (stride.length !== shape.length) {
    throw wrong(`${shape.length} dimensions with ${stride.length} strides`);
  }
  if (!isCount(storageOffset)) throw wrong(`impossible storage offset ${storageOffset}`);
  const capacity = Math.floor(storage.length / ITEM_SIZE[dtype]);
  // Sizes other than 0 are multiplied even where a 0 makes the tensor empty: LibTorch multiplies in order and must not overflow.
  let nonZero = 1;
  let empty = false;
  let last = storageOffset;
  for (let i = 0; i < shape.length; i++) {
    const size = shape[i] as number;
    const step = stride[i] as number;
    if (!isCount(size)) throw wrong(`impossible size ${size} in dimension ${i}`);
    if (!isCount(step)) throw wrong(`impossible stride ${step} in dimension ${i}`);
    if (size === 0) empty = true;
    else {
      nonZero *= size;
      last += (size - 1) * step;
    }
    if (!Number.isSafeInteger(nonZero * 8)) throw wrong(`shape [${shape.join(', ')}] overflows`);
  }
  if (empty) {
    if (storageOffset > capacity) {
      throw wrong(`storage offset ${storageOffset} in a storage of ${capacity} elements`);
    }
  } else {
    if (!(last < capacity)) {
      throw wrong(`reaches element ${last} of a storage of ${capacity} elements (${storage.length} bytes)`);
    }
    if (nonZero > capacity && nonZero > MAX_REPEATED_ELEMENTS) {
      throw checkpointError(
        'ERR_SENET_CHECKPOINT_LIMIT',
        label,
        `${where}: ${nonZero} elements over a storage of ${capacity}, and at most ${MAX_REPEATED_ELEMENTS} may be repeated`,
      );
    }
  }
  if (requiresGrad && !isFloating(dtype)) throw wrong(`a tensor of ${dtype} that requires gradients`);
  return new TensorRecord(dtype, shape, stride, storageOffset, storage, requiresGrad);
}

/** What the native reader is asked for: each storage once, and each tensor as a view of one. */
export interface ReadPlan {
  readonly ranges: readonly ByteRange[];
  readonly tensors: readonly TensorRead[];
}

/**
 * The ranges and views that `records` need, tensors in the same order. Storages that no record uses are not read.
 * @param placeOf - where the bytes of a storage begin. Default: where they are in the file.
 */
export function planRead(
  records: readonly TensorRecord[],
  placeOf: (storage: StorageRecord) => number = ({ offset }) => offset,
): ReadPlan {
  const indexOf = new Map<StorageRecord, number>();
  const ranges: ByteRange[] = [];
  const tensors: TensorRead[] = [];
  for (const record of records) {
    let range = indexOf.get(record.storage);
    if (range === undefined) {
      range = ranges.length;
      indexOf.set(record.storage, range);
      ranges.push({ offset: placeOf(record.storage), length: record.storage.length });
    }
    tensors.push({
      range,
      dtype: record.dtype,
      shape: record.shape,
      stride: record.stride,
      storageOffset: record.storageOffset,
    });
  }
  return { ranges, tensors };
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
