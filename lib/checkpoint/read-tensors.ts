/**
 * Turns records into tensors: ranges of a file by the executor, arrays and deflated entries by copying. A batch at a time,
 * because each batch holds up the JavaScript thread while its tensors are handed over. The only file of this folder that
 * makes tensors.
 */
import { binding } from '../native';
import type { TensorHandle } from '../binding';
import { runJob } from '../tensor/jobs';
import { checkBuffer } from '../tensor/options';
import { wrapTensor, type Tensor } from '../tensor/tensor';
import type { Budget } from './budget';
import { contentOf } from './inflate';
import { MAX_VIEWS } from './limits';
import { checkpointError } from './problems';
import type { ByteSource } from './source';
import { planRead, StorageRecord, type TensorRecord } from './tensor-record';

/** Tensors of one batch, but for those of one storage, which stay together. More than any network of this library has. */
const BATCH_TENSORS = 2048;
/** Bytes of one batch that is copied on the JavaScript thread, but for one storage. */
const BATCH_COPIED_BYTES = 8 * 1024 * 1024;

/** How a file is read. */
export interface Reading {
  readonly mmap: boolean;
  /** Its time of change, taken before it was parsed (`binding.modifiedTime`). */
  readonly modified: bigint;
}

/**
 * Reads the records' tensors.
 * @param proceed - throws if the work is to end
 * Errors: ERR_SENET_FILE, ERR_SENET_FILE_CHANGED, ERR_SENET_OUT_OF_MEMORY, ERR_SENET_BUFFER; of deflated entries
 * ERR_SENET_CHECKPOINT_FORMAT.
 */
export async function readTensors(
  source: ByteSource,
  records: readonly TensorRecord[],
  reading: Reading,
  budget: Budget,
  proceed: () => void,
): Promise<ReadonlyMap<TensorRecord, Tensor>> {
  const tensors = new Map<TensorRecord, Tensor>();
  for (const batch of batchesOf(source, records)) {
    const handles = await readBatch(source, batch, reading);
    for (const [i, record] of batch.entries()) {
      const tensor = wrapTensor(handles[i] as TensorHandle);
      if (record.requiresGrad) tensor.requiresGrad = true;
      tensors.set(record, tensor);
    }
    proceed();
    if (budget.spend(batch.length)) await budget.turn();
  }
  return tensors;
}

/** Whole storages with all their records, deflated ones and others apart. */
function batchesOf(source: ByteSource, records: readonly TensorRecord[]): TensorRecord[][] {
  const byStorage = new Map<StorageRecord, TensorRecord[]>();
  for (const record of records) {
    const views = byStorage.get(record.storage);
    if (views === undefined) byStorage.set(record.storage, [record]);
    else views.push(record);
  }
  const batches: TensorRecord[][] = [];
  const open = new Map<boolean, { batch: TensorRecord[]; bytes: number }>();
  for (const [{ packed, length }, views] of byStorage) {
    const isPacked = packed !== null;
    const bytes = isPacked || source.origin.kind === 'bytes' ? length : 0;
    let last = open.get(isPacked);
    if (
      last === undefined ||
      last.batch.length + views.length > BATCH_TENSORS ||
      last.bytes + bytes > BATCH_COPIED_BYTES
    ) {
      last = { batch: [], bytes: 0 };
      open.set(isPacked, last);
      batches.push(last.batch);
    }
    if (views.length > MAX_VIEWS) {
      const message = `${views.length} tensors over one storage, and at most ${MAX_VIEWS} are read`;
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', source.label, message);
    }
    for (const view of views) last.batch.push(view);
    last.bytes += bytes;
  }
  return batches;
}

async function readBatch(
  source: ByteSource,
  batch: readonly TensorRecord[],
  reading: Reading,
): Promise<readonly TensorHandle[]> {
  if (batch[0]?.storage.packed != null) return inflateBatch(source, batch);
  const { ranges, tensors } = planRead(batch);
  const { origin } = source;
  if (origin.kind === 'bytes') {
    // The array may have been detached while the parser waited.
    checkBuffer(origin.bytes, source.label);
    return binding.tensorsFromBytes(origin.bytes, ranges, tensors);
  }
  const { mmap, modified } = reading;
  return (await runJob(() =>
    mmap
      ? binding.mapTensors(origin.fd, source.size, modified, ranges, tensors)
      : binding.readTensors(origin.fd, source.size, modified, ranges, tensors),
  )) as TensorHandle[];
}

async function inflateBatch(
  source: ByteSource,
  batch: readonly TensorRecord[],
): Promise<readonly TensorHandle[]> {
  const contents: Uint8Array[] = [];
  const offsets = new Map<StorageRecord, number>();
  let end = 0;
  for (const { storage } of batch) {
    if (offsets.has(storage)) continue;
    contents.push(await contentOf(source, storage, storage.offset, storage.length));
    offsets.set(storage, end);
    // Aligned to every element.
    end += Math.ceil(storage.length / 8) * 8;
  }
  // A large storage is alone in its batch, and is not copied once more.
  const bytes = contents.length === 1 ? (contents[0] as Uint8Array) : new Uint8Array(end);
  let at = 0;
  for (const content of contents.length === 1 ? [] : contents) {
    bytes.set(content, at);
    at += Math.ceil(content.length / 8) * 8;
  }
  const { ranges, tensors } = planRead(batch, (storage) => offsets.get(storage) as number);
  return binding.tensorsFromBytes(bytes, ranges, tensors);
}
