/**
 * PyTorch's container before 1.6 (`_use_new_zipfile_serialization=False` still writes it): five pickles one after the
 * other - magic number, protocol, system, object, list of storage keys - and then, for each key, a count of elements
 * and their bytes. Follows `_legacy_load` in `torch/serialization.py`. Files of Python 2 hold byte strings for text.
 */
import { printable } from '../printable';
import { inSlices, type Budget, type Sliced } from './budget';
import { COST, MAX_PICKLE_BYTES } from './limits';
import { readPickle } from './pickle';
import { EndOfPickle } from './pickle-input';
import { checkpointError } from './problems';
import { readSpans, type ByteSource } from './source';
import { ITEM_SIZE, StorageRecord } from './tensor-record';
import { TorchHost, unsafe, type StorageTable } from './torch-globals';
import { Dict, kindOf, unknownGlobal, type Value } from './values';

const MAGIC_NUMBER = 0x1950a86a20f9469cfc6cn;
const PROTOCOL_VERSION = 1001;
/** The pickles are read in one piece of this size, or a larger one where they do not fit. */
const FIRST_WINDOW_BYTES = 512 * 1024;
const COUNT_BYTES = 8;
/** Counts that are read together. */
const COUNTS_AT_ONCE = 1024;

/** Reads the object of a legacy checkpoint. Errors: ERR_SENET_CHECKPOINT_*. */
export async function readLegacy(source: ByteSource, budget: Budget): Promise<Value> {
  const { label, size } = source;
  const wrong = (message: string, offset?: number): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, offset);
  for (let length = FIRST_WINDOW_BYTES; ; length *= 8) {
    const window = await source.read(0, Math.min(length, size, MAX_PICKLE_BYTES));
    // What a shorter piece gave counts too: it may still lie in the heap.
    budget.charge(window.length);
    const storages = new LegacyStorages(label, size, budget);
    let pickles: Pickles;
    try {
      pickles = await readPickles(window, label, storages, budget);
    } catch (error) {
      if (!(error instanceof EndOfPickle)) throw error;
      if (error.needed > size || window.length === size) {
        throw wrong(`truncated: a pickle needs byte ${error.needed} and the file ends at ${size}`);
      }
      if (error.needed > MAX_PICKLE_BYTES || window.length === MAX_PICKLE_BYTES) {
        const message = `pickles of more than ${MAX_PICKLE_BYTES} bytes`;
        throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
      }
      continue;
    }
    const placed = await inSlices(budget, storages.place(pickles.keys, pickles.end));
    await storages.checkCounts(source, placed);
    return pickles.value;
  }
}

interface Pickles {
  readonly value: Value;
  readonly keys: Value;
  readonly end: number;
}

async function readPickles(
  bytes: Uint8Array,
  label: string,
  storages: LegacyStorages,
  budget: Budget,
): Promise<Pickles> {
  const pickle = { bytes, host: new TorchHost(label, storages), budget, label };
  const magic = await readPickle(pickle);
  if (magic.value !== MAGIC_NUMBER) {
    const global = unknownGlobal(magic.value);
    if (global !== null) throw unsafe(label, 'a pickle and not a file of torch.save', global, 0);
    const message = `a pickle of a ${kindOf(magic.value)} and not a file of torch.save`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, 0);
  }
  const protocol = await readPickle(pickle, magic.end);
  if (protocol.value !== PROTOCOL_VERSION) {
    const found = typeof protocol.value === 'number' ? protocol.value : kindOf(protocol.value);
    const message = `expected protocol ${PROTOCOL_VERSION} of the legacy container, found ${found}`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message, magic.end);
  }
  const system = await readPickle(pickle, protocol.end);
  if (system.value instanceof Dict && system.value.get('little_endian') === false) {
    const message = 'expected little-endian data, found a file of a big-endian machine';
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message, protocol.end);
  }
  const object = await readPickle(pickle, system.end);
  const keys = await readPickle(pickle, object.end);
  return { value: object.value, keys: keys.value, end: keys.end };
}

class LegacyStorages implements StorageTable {
  private readonly storages = new Map<string, StorageRecord>();

  constructor(
    private readonly label: string,
    private readonly fileSize: number,
    private readonly budget: Budget,
  ) {}

  find(key: string, dtype: StorageRecord['dtype'], bytes: number, at: number): StorageRecord {
    const known = this.storages.get(key);
    if (known) {
      if (known.dtype !== dtype || known.length !== bytes) {
        throw this.wrong(`storage '${printable(key)}' has two types or two sizes`, at);
      }
      return known;
    }
    if (bytes > this.fileSize) {
      throw this.wrong(`storage '${printable(key)}' of ${bytes} bytes in a file of ${this.fileSize}`, at);
    }
    this.budget.charge(COST.object + COST.entry, at);
    const storage = new StorageRecord(key, dtype, bytes);
    this.storages.set(key, storage);
    return storage;
  }

  /** Finds the place of each storage after the pickles. */
  *place(keys: Value, start: number): Sliced<StorageRecord[]> {
    if (!Array.isArray(keys)) throw this.wrong(`a ${kindOf(keys)} where the list of storages belongs`, start);
    const placed: StorageRecord[] = [];
    let position = start;
    for (const key of keys) {
      if (this.budget.spend(1)) yield;
      const text = printable(typeof key === 'object' ? kindOf(key) : String(key));
      const storage = typeof key === 'object' ? undefined : this.storages.get(String(key));
      if (!storage) throw this.wrong(`storage '${text}' is listed and no tensor has it`, start);
      if (storage.offset >= 0) throw this.wrong(`storage '${text}' is listed twice`, start);
      storage.offset = position + COUNT_BYTES;
      position = storage.offset + storage.length;
      if (position > this.fileSize) {
        throw this.wrong(
          `truncated: storage '${text}' ends at byte ${position} and the file at ${this.fileSize}`,
        );
      }
      placed.push(storage);
    }
    for (const storage of this.storages.values()) {
      if (this.budget.spend(1)) yield;
      if (storage.offset < 0)
        throw this.wrong(`storage '${printable(storage.key)}' is not in the file`, start);
    }
    return placed;
  }

  /** Checks the count that stands in front of each. */
  async checkCounts(source: ByteSource, placed: readonly StorageRecord[]): Promise<void> {
    for (let first = 0; first < placed.length; first += COUNTS_AT_ONCE) {
      const some = placed.slice(first, first + COUNTS_AT_ONCE);
      const spans = some.map(({ offset }) => ({ offset: offset - COUNT_BYTES, length: COUNT_BYTES }));
      const counts = await readSpans(source, spans);
      for (const [i, storage] of some.entries()) this.#checkCount(storage, counts[i] as Uint8Array);
      if (this.budget.spend(4 * some.length)) await this.budget.turn();
    }
  }

  #checkCount(storage: StorageRecord, bytes: Uint8Array): void {
    const count = Buffer.from(bytes.buffer, bytes.byteOffset, COUNT_BYTES).readBigInt64LE();
    const expected = storage.length / (storage.dtype === null ? 1 : ITEM_SIZE[storage.dtype]);
    if (count === BigInt(expected)) return;
    const message = `storage '${printable(storage.key)}' has ${expected} elements in the pickle and ${count} in front of its data`;
    throw this.wrong(message, storage.offset - COUNT_BYTES);
  }

  private wrong(message: string, offset?: number): Error {
    return checkpointError('ERR_SENET_CHECKPOINT_FORMAT', this.label, message, offset);
  }
}
