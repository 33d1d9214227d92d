/**
 * PyTorch's zip container (since 1.6): `<name>/data.pkl`, one stored entry `<name>/data/<key>` for each storage, and
 * small entries about the format. Follows `caffe2/serialize/inline_container.cc` and `torch/serialization.py`.
 */
import { MAX_PICKLE_BYTES } from './limits';
import { EndOfPickle, readPickle } from './pickle';
import { checkpointError, printable } from './problems';
import type { ByteSource } from './source';
import { StorageRecord } from './tensor-record';
import { TorchHost, type StorageTable } from './torch-globals';
import type { Value } from './values';
import { readZipEntries, type ZipEntry } from './zip';

/** The versions of the container that exist: `kMinSupportedFileFormatVersion` and the writer's newest. */
const NEWEST_VERSION = 10;
const SMALL_ENTRY_BYTES = 64;

/** Reads the object of a zip checkpoint. Errors: ERR_SENET_CHECKPOINT_*. */
export async function readTorchZip(source: ByteSource): Promise<Value> {
  const { label } = source;
  const entries = await readZipEntries(source);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickleName] = pickles;
  if (pickleName === undefined || pickles.length > 1) {
    const found = pickles.length > 1 ? 'several' : 'none';
    const message = `expected a zip archive with one '<name>/data.pkl', found ${found}`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message);
  }
  const folder = pickleName.slice(0, -'data.pkl'.length);
  if (entries.has(`${folder}constants.pkl`)) {
    const message = 'a TorchScript archive, which holds a program; save its state dict instead';
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  const byteOrder = await readSmall(source, entries.get(`${folder}byteorder`));
  if (byteOrder !== undefined && byteOrder !== 'little') {
    const message = `expected little-endian data, found byteorder '${printable(byteOrder)}'`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  const version = await readSmall(source, entries.get(`${folder}.data/version`) ?? entries.get(`${folder}version`));
  if (version !== undefined && !(/^\d{1,4}\s*$/.test(version) && Number(version) <= NEWEST_VERSION)) {
    const message = `version '${printable(version)}' of the container, and 1 to ${NEWEST_VERSION} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }

  const pickle = entries.get(pickleName) as ZipEntry;
  if (pickle.length > MAX_PICKLE_BYTES) {
    const message = `a pickle of ${pickle.length} bytes, and at most ${MAX_PICKLE_BYTES} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
  }
  const bytes = await source.read(pickle.offset, pickle.length);
  const host = new TorchHost(label, new ZipStorages(label, entries, folder));
  try {
    return readPickle(bytes, 0, host, label, pickle.offset).value;
  } catch (error) {
    if (!(error instanceof EndOfPickle)) throw error;
    const message = `'${printable(pickleName)}' ends inside its pickle`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, pickle.offset + pickle.length);
  }
}

class ZipStorages implements StorageTable {
  private readonly storages = new Map<string, StorageRecord>();

  constructor(
    private readonly label: string,
    private readonly entries: ReadonlyMap<string, ZipEntry>,
    private readonly folder: string,
  ) {}

  find(key: string, dtype: StorageRecord['dtype'], bytes: number, at: number): StorageRecord {
    const known = this.storages.get(key);
    const wrong = (message: string): Error =>
      checkpointError('ERR_SENET_CHECKPOINT_FORMAT', this.label, `storage '${printable(key)}' ${message}`, at);
    if (known) {
      if (known.dtype !== dtype || known.length !== bytes) throw wrong('has two types or two sizes');
      return known;
    }
    const entry = this.entries.get(`${this.folder}data/${key}`);
    if (!entry) throw wrong('is not in the archive');
    if (entry.length !== bytes) throw wrong(`has ${bytes} bytes in the pickle and ${entry.length} in the archive`);
    const storage = new StorageRecord(key, dtype, bytes);
    storage.offset = entry.offset;
    this.storages.set(key, storage);
    return storage;
  }
}

async function readSmall(source: ByteSource, entry: ZipEntry | undefined): Promise<string | undefined> {
  if (!entry) return undefined;
  const bytes = await source.read(entry.offset, Math.min(entry.length, SMALL_ENTRY_BYTES));
  return Buffer.from(bytes).toString('latin1');
}
