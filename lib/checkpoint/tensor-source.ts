/**
 * What the writers of files need of a tensor: where its elements lie, and their bytes in pieces. Knows no file format.
 */
import type { DType, TensorHandle } from '../binding';
import { binding } from '../native';
import { handleOf, type Tensor } from '../tensor/tensor';
import { ITEM_SIZE, contiguousStride, countElements } from './tensor-record';

/** Bytes copied out of LibTorch at a time on the JavaScript thread: about a millisecond. */
const PIECE_BYTES = 1024 * 1024;

/** Where a tensor lies and what of it is to be written. */
export interface SavedTensor {
  readonly name: string;
  readonly tensor: Tensor;
  readonly handle: TensorHandle;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storageOffset: number;
  readonly storageId: bigint;
  readonly storageBytes: number;
}

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_DISPOSED */
export function savedTensor(tensor: Tensor, name: string): SavedTensor {
  const handle = handleOf(tensor, `'${name}'`);
  const { dtype, shape } = binding.tensorInfo(handle);
  const { id, bytes, stride, storageOffset } = binding.storageInfo(handle);
  return { name, tensor, handle, dtype, shape, stride, storageOffset, storageId: id, storageBytes: bytes };
}

/** A tensor's elements in row-major order. */
export function* elementPieces(entry: SavedTensor): Iterable<Uint8Array> {
  const { shape, stride, dtype, storageOffset } = entry;
  const elements = countElements(shape);
  if (elements === 0) return;
  const expected = contiguousStride(shape);
  const contiguous = shape.every((size, i) => size === 1 || stride[i] === expected[i]);
  if (contiguous) {
    yield* storagePieces(entry, storageOffset * ITEM_SIZE[dtype], elements * ITEM_SIZE[dtype]);
    return;
  }
  const copy = binding.toTypedArray(entry.handle);
  const bytes = new Uint8Array(copy.buffer, copy.byteOffset, copy.byteLength);
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
}

/** Bytes of the storage that the tensor lies in. */
export function* storagePieces(entry: SavedTensor, start: number, length: number): Iterable<Uint8Array> {
  for (let done = 0; done < length; done += PIECE_BYTES) {
    yield binding.storageBytes(entry.handle, start + done, Math.min(PIECE_BYTES, length - done));
  }
}
