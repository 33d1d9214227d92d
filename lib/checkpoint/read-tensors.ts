/**
 * Turns records into tensors: ranges of a file by the executor, arrays and deflated entries by copying. A batch at a time,
 * because each batch holds up the JavaScript thread while its tensors are handed over, and a large copy in pieces. The only file of this folder that
 * makes tensors.
 */
import { binding } from '../native';
import type { TensorHandle } from '../binding';
import { runJob } from '../tensor/jobs';
import { checkBuffer } from '../tensor/options';
import { empty, tensor } from '../tensor/factories';
import { ops } from '../tensor/ops';
import { noGrad, tidy } from '../tensor/scope';
import { wrapTensor, type Tensor } from '../tensor/tensor';
import { inSlices, type Budget, type Sliced } from './budget';
import { contentOf, unpack } from './inflate';
import { COST, MAX_VIEWS, PIECE_BYTES } from './limits';
import { Layers } from './pages';
import { checkpointError } from './problems';
import type { ByteSource } from './source';
import { ITEM_SIZE, planRead, type StorageRecord, type TensorRecord } from './tensor-record';

/** Tensors of one batch, but for those of one storage, which stay together. */
const BATCH_TENSORS = 1024;
/** Bytes of one batch that is copied on the JavaScript thread; a storage that is larger is copied in pieces. */
const BATCH_COPIED_BYTES = 4 * 1024 * 1024;

/** How a file is read. */
export interface Reading {
  readonly mmap: boolean;
  /** Its time of change, taken before it was parsed (`binding.modifiedTime`). */
  readonly modified: bigint;
}

/**
 * Reads the records' tensors, and gives what `finish` makes of them. They are disposed if that, or the reading, throws.
 * @param proceed - throws if the work is to end
 * Errors: ERR_SENET_FILE, ERR_SENET_FILE_CHANGED, ERR_SENET_OUT_OF_MEMORY, ERR_SENET_BUFFER; of deflated entries
 * ERR_SENET_CHECKPOINT_FORMAT.
 */
export async function readTensors<T>(
  source: ByteSource,
  records: readonly TensorRecord[],
  reading: Reading,
  budget: Budget,
  proceed: () => void,
  finish: (tensorOf: (record: TensorRecord) => Tensor) => Promise<T>,
): Promise<T> {
  const tensors = new Layers<TensorRecord, Tensor>();
  try {
    await readInto(tensors, source, records, reading, budget, proceed);
    return await finish((record) => tensors.get(record) as Tensor);
  } catch (error) {
    for (const [, tensor] of tensors) tensor.dispose();
    throw error;
  }
}

async function readInto(
  tensors: Layers<TensorRecord, Tensor>,
  source: ByteSource,
  records: readonly TensorRecord[],
  reading: Reading,
  budget: Budget,
  proceed: () => void,
): Promise<void> {
  const copied = ({ packed, length }: StorageRecord): number =>
    packed !== null || source.origin.kind === 'bytes' ? length : 0;
  for (const batch of await inSlices(budget, batchesOf(source, records, copied, budget))) {
    const { storage } = batch[0] as TensorRecord;
    const made =
      copied(storage) > BATCH_COPIED_BYTES
        ? await copyLarge(source, storage, batch, budget, proceed)
        : (await readBatch(source, batch, reading)).map((handle) => wrapTensor(handle));
    for (const [i, record] of batch.entries()) {
      const tensor = made[i] as Tensor;
      if (record.requiresGrad) tensor.requiresGrad = true;
      tensors.set(record, tensor);
    }
    proceed();
    budget.made(COST.handle * batch.length);
    if (budget.spend(2 * batch.length)) await budget.turn();
  }
}

/** Whole storages with all their records, deflated ones and others apart. */
function* batchesOf(
  source: ByteSource,
  records: readonly TensorRecord[],
  copied: (storage: StorageRecord) => number,
  budget: Budget,
): Sliced<TensorRecord[][]> {
  const byStorage = new Layers<StorageRecord, TensorRecord[]>();
  for (const record of records) {
    const views = byStorage.get(record.storage);
    if (views === undefined) {
      budget.made(COST.entry + COST.list + COST.firstItem);
      byStorage.set(record.storage, [record]);
    } else views.push(record);
    if (budget.spend(1)) yield;
  }
  const batches: TensorRecord[][] = [];
  const open = new Map<boolean, { batch: TensorRecord[]; bytes: number }>();
  for (const [storage, views] of byStorage) {
    if (budget.spend(1)) yield;
    const isPacked = storage.packed !== null;
    const bytes = copied(storage);
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
  const bytes = new Uint8Array(end);
  let at = 0;
  for (const content of contents) {
    bytes.set(content, at);
    at += Math.ceil(content.length / 8) * 8;
  }
  const { ranges, tensors } = planRead(batch, (storage) => offsets.get(storage) as number);
  return binding.tensorsFromBytes(bytes, ranges, tensors);
}

/** A storage that is copied in pieces, as they come, and the tensors over it. */
async function copyLarge(
  source: ByteSource,
  storage: StorageRecord,
  records: readonly TensorRecord[],
  budget: Budget,
  proceed: () => void,
): Promise<Tensor[]> {
  const { length, offset, packed } = storage;
  const base = empty([length], { dtype: 'uint8' });
  try {
    const take = (piece: Uint8Array, at: number): void => {
      proceed();
      tidy(() => {
        ops.call('aten::copy_', base.slice(0, at, at + piece.length), tensor(piece));
      });
    };
    if (packed !== null) await unpack(source, storage, packed, offset, length, take);
    else {
      for (let at = 0; at < length; at += PIECE_BYTES) {
        take(await source.read(offset + at, Math.min(PIECE_BYTES, length - at)), at);
        await budget.turn();
      }
    }
    const views: Tensor[] = [];
    for (const record of records) {
      views.push(viewOf(base, record));
      if (budget.spend(32)) await budget.turn();
    }
    return views;
  } finally {
    base.dispose();
  }
}

/** `torch.as_strided`, made of operators that cannot leave the storage: `unfold` gives one dimension after the other. */
function viewOf(base: Tensor, { dtype, shape, stride, storageOffset, elements }: TensorRecord): Tensor {
  return noGrad(() =>
    tidy(() => {
      const whole = base.slice(0, 0, base.numel - (base.numel % ITEM_SIZE[dtype]));
      let view = (dtype === 'uint8' ? whole : (ops.call('aten::view.dtype', whole, dtype) as Tensor)).slice(
        0,
        storageOffset,
      );
      if (elements === 0) return view.slice(0, 0, 0).view(shape).detach();
      // Elements from the first to the last of what lies in the dimensions from here on.
      let extent = shape.reduce((last, size, i) => last + (size - 1) * (stride[i] as number), 1);
      for (const [i, size] of shape.entries()) {
        const step = stride[i] as number;
        extent -= (size - 1) * step;
        view =
          step === 0
            ? view.unsqueeze(i).expand([...shape.slice(0, i + 1), -1])
            : (ops.call('aten::unfold', view, i, extent, step) as Tensor).slice(i, 0, size);
      }
      return view.select(-1, 0).detach();
    }),
  );
}
