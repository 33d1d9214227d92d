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
import { locateEntries, readDirectory, type DirectoryEntry } from './zip';

/** The versions of the container that exist: `kMinSupportedFileFormatVersion` and the writer's newest. */
const NEWEST_VERSION = 10;
const SMALL_ENTRY_BYTES = 64;

/** Reads the object of a zip checkpoint. Errors: ERR_SENET_CHECKPOINT_*. */
export async function readTorchZip(source: ByteSource): Promise<Value> {
  const { label } = source;
  const directory = await readDirectory(source);
  const pickles = [...directory.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (pickle === undefined || pickles.length > 1) {
    const found = pickles.length > 1 ? 'several' : 'none';
    const message = `expected a zip archive with one '<name>/data.pkl', found ${found}`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message);
  }
  if (pickle.length > MAX_PICKLE_BYTES) {
    const message = `a pickle of ${pickle.length} bytes, and at most ${MAX_PICKLE_BYTES} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
  }
  const folder = pickle.name.slice(0, -'data.pkl'.length);
  if (directory.has(`${folder}constants.pkl`)) {
    const message = 'a TorchScript archive, which holds a program; save its state dict instead';
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  // The local headers are scattered over the whole file: they are read while the pickle is parsed.
  const entries = [...directory.values()];
  const locating = locateEntries(source, entries);
  locating.catch(() => undefined);
  try {
    await checkFormat(source, directory, folder);
    const storages = new ZipStorages(label, directory, folder);
    const value = await readObject(source, pickle, new TorchHost(label, storages));
    const starts = await locating;
    storages.place(new Map(entries.map(({ name }, i) => [name, starts[i] as number])));
    return value;
  } finally {
    // The descriptor is closed next, and may not be under a read.
    await locating.catch(() => undefined);
  }
}

async function readObject(source: ByteSource, pickle: DirectoryEntry, host: TorchHost): Promise<Value> {
  const [start = 0] = await locateEntries(source, [pickle]);
  const bytes = await source.read(start, pickle.length);
  try {
    return readPickle(bytes, 0, host, source.label, start).value;
  } catch (error) {
    if (!(error instanceof EndOfPickle)) throw error;
    const message = `'${printable(pickle.name)}' ends inside its pickle`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', source.label, message, start + pickle.length);
  }
}

async function checkFormat(
  source: ByteSource,
  directory: ReadonlyMap<string, DirectoryEntry>,
  folder: string,
): Promise<void> {
  const unsupported = (message: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', source.label, message);
  const byteOrder = await readSmall(source, directory.get(`${folder}byteorder`));
  if (byteOrder !== undefined && byteOrder !== 'little') {
    throw unsupported(`expected little-endian data, found byteorder '${printable(byteOrder)}'`);
  }
  const version = await readSmall(
    source,
    directory.get(`${folder}.data/version`) ?? directory.get(`${folder}version`),
  );
  if (version !== undefined && !(/^\d{1,4}\s*$/.test(version) && Number(version) <= NEWEST_VERSION)) {
    throw unsupported(
      `version '${printable(version)}' of the container, and 1 to ${NEWEST_VERSION} are read`,
    );
  }
}

class ZipStorages implements StorageTable {
  private readonly storages = new Map<string, StorageRecord>();

  constructor(
    private readonly label: string,
    private readonly directory: ReadonlyMap<string, DirectoryEntry>,
    private readonly folder: string,
  ) {}

  find(key: string, dtype: StorageRecord['dtype'], bytes: number, at: number): StorageRecord {
    const known = this.storages.get(key);
    const wrong = (message: string): Error =>
      checkpointError(
        'ERR_SENET_CHECKPOINT_FORMAT',
        this.label,
        `storage '${printable(key)}' ${message}`,
        at,
      );
    if (known) {
      if (known.dtype !== dtype || known.length !== bytes) throw wrong('has two types or two sizes');
      return known;
    }
    const entry = this.directory.get(this.nameOf(key));
    if (!entry) throw wrong('is not in the archive');
    if (entry.length !== bytes)
      throw wrong(`has ${bytes} bytes in the pickle and ${entry.length} in the archive`);
    const storage = new StorageRecord(key, dtype, bytes);
    this.storages.set(key, storage);
    return storage;
  }

  /** Tells each storage where its entry begins. */
  place(starts: ReadonlyMap<string, number>): void {
    for (const [key, storage] of this.storages) storage.offset = starts.get(this.nameOf(key)) as number;
  }

  private nameOf(key: string): string {
    return `${this.folder}data/${key}`;
  }
}

async function readSmall(source: ByteSource, entry: DirectoryEntry | undefined): Promise<string | undefined> {
  if (!entry) return undefined;
  const [start = 0] = await locateEntries(source, [entry]);
  const bytes = await source.read(start, Math.min(entry.length, SMALL_ENTRY_BYTES));
  return Buffer.from(bytes).toString('latin1');
}
