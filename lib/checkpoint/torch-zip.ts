/**
 * PyTorch's zip container (since 1.6): `<name>/data.pkl`, one entry `<name>/data/<key>` for each storage, and small
 * entries about the format. PyTorch stores its entries; those of an archive that was packed again may be deflated.
 * An archive of `torch.jit.save` has the same, and a program, which is not looked at: the modules in its `data.pkl` are
 * objects whose attributes are the weights. Follows `caffe2/serialize/inline_container.cc`, `torch/serialization.py` and
 * `torch/csrc/jit/serialization`.
 */
import { printable } from '../printable';
import { inSlices, type Budget, type Sliced } from './budget';
import { contentOf } from './inflate';
import {
  COST,
  MAX_DEPTH,
  MAX_INFLATED_BYTES,
  MAX_INFLATION,
  MAX_LINE_BYTES,
  MAX_PICKLE_BYTES,
} from './limits';
import { CHECKPOINT_NAME } from './endings';
import { archives, inflatedTooMuch, unpackOnly } from './packed-checkpoint';
import { readPickle } from './pickle';
import { EndOfPickle } from './pickle-input';
import { checkpointError } from './problems';
import type { ByteSource } from './source';
import { StorageRecord, TensorRecord } from './tensor-record';
import { TorchHost, type StorageTable } from './torch-globals';
import { Dict, UnknownObject, type Value } from './values';
import type { DirectoryEntry, LocatedEntry } from './zip';

/** The versions of the container that exist: `kMinSupportedFileFormatVersion` and the writer's newest. */
const NEWEST_VERSION = 10;
const SMALL_ENTRY_BYTES = 64;

export interface TorchZip {
  readonly container: 'zip' | 'torchscript';
  readonly value: Value;
}

/** The object of a zip checkpoint, or the one checkpoint that an archive is packed around. Errors: ERR_SENET_CHECKPOINT_*. */
export async function readTorchZip(source: ByteSource, budget: Budget): Promise<TorchZip | ByteSource> {
  const { label } = source;
  const directory = await archives().readDirectory(source, budget);
  const packed = await unpackOnly(source, directory, budget);
  if (packed !== null) return packed;
  const pickle = await findPickle(directory, label, budget);
  if (pickle.length > MAX_PICKLE_BYTES) {
    const message = `a pickle of ${pickle.length} bytes, and at most ${MAX_PICKLE_BYTES} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
  }
  const folder = pickle.name.slice(0, -'data.pkl'.length);
  // The local headers are scattered over the whole file: they are read while the pickle is parsed.
  const locating = archives().locateEntries(source, directory.values(), budget);
  locating.catch(() => undefined);
  try {
    await checkFormat(source, directory, folder, budget);
    const storages = new ZipStorages(label, directory, folder, budget);
    const value = await readObject(source, pickle, new TorchHost(label, storages), budget);
    await inSlices(budget, storages.place(await locating, source.size));
    if (!directory.has(`${folder}constants.pkl`)) return { container: 'zip', value };
    return { container: 'torchscript', value: await inSlices(budget, scriptWeights(value, label, budget)) };
  } finally {
    // The descriptor is closed next, and may not be under a read.
    await locating.catch(() => undefined);
  }
}

/** Archives that programs around PyTorch write, by an entry that each has. */
const OTHER_ARCHIVES: readonly (readonly [entry: RegExp, what: string])[] = [
  [
    /(^|\/)(models\/\w+\.json|serialized_exported_program\.json|archive_format)$/,
    'an archive of torch.export, which holds a program; in Python: torch.save(torch.export.load(path).state_dict, path)',
  ],
  [/(^|\/)model\.json$/, 'a TorchScript archive of PyTorch before 1.3; load and save it with a later one'],
  [/\.npy$/, "an archive of NumPy's arrays; save a state dict with PyTorch"],
  [CHECKPOINT_NAME, 'a zip archive around a checkpoint and other files; unpack it first'],
];

async function findPickle(
  directory: ReadonlyMap<string, DirectoryEntry>,
  label: string,
  budget: Budget,
): Promise<DirectoryEntry> {
  const found: DirectoryEntry[] = [];
  let other = OTHER_ARCHIVES.length;
  for (const [name, entry] of directory) {
    // Longer names are no one's, and patterns take time.
    if (name.length <= MAX_LINE_BYTES) {
      if (/^([^/]+\/)?data\.pkl$/.test(name)) found.push(entry);
      const kind = OTHER_ARCHIVES.findIndex(([pattern]) => pattern.test(name));
      if (kind >= 0) other = Math.min(other, kind);
    }
    if (budget.spend(4 + (name.length >> 5))) await budget.turn();
  }
  const [pickle] = found;
  if (pickle !== undefined && found.length === 1) return pickle;
  if (found.length === 0 && other < OTHER_ARCHIVES.length) {
    const [, what] = OTHER_ARCHIVES[other] as (typeof OTHER_ARCHIVES)[number];
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, what);
  }
  const count = found.length > 1 ? 'several' : 'none';
  const message = `expected a zip archive with one '<name>/data.pkl', found ${count}`;
  throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message);
}

async function readObject(
  source: ByteSource,
  pickle: DirectoryEntry,
  host: TorchHost,
  budget: Budget,
): Promise<Value> {
  const { label } = source;
  const start = await archives().locateEntry(source, pickle, budget);
  budget.charge(pickle.length);
  const bytes = await contentOf(source, pickle, start, pickle.length);
  try {
    return (await readPickle({ bytes, host, budget, label, base: start })).value;
  } catch (error) {
    if (!(error instanceof EndOfPickle)) throw error;
    const message = `'${printable(pickle.name)}' ends inside its pickle`;
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, start + pickle.length);
  }
}

/** The tensors among the attributes of a module and of the modules in it, under their paths. */
function* scriptWeights(root: Value, label: string, budget: Budget): Sliced<Dict> {
  const weights = new Dict();
  const visiting = new Set<Value>();
  const frames: { value: Value; prefix: string; entries: Iterator<[Value, Value]> }[] = [];
  const enter = (value: Value, prefix: string): void => {
    if (!(value instanceof UnknownObject) || !(value.state instanceof Dict) || visiting.has(value)) return;
    if (frames.length >= MAX_DEPTH) {
      const message = `modules nested more than ${MAX_DEPTH} deep`;
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
    }
    visiting.add(value);
    frames.push({ value, prefix, entries: value.state.entries() });
  };
  enter(root, '');
  for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
    if (budget.spend(1)) yield;
    const next = frame.entries.next();
    if (next.done === true) {
      frames.pop();
      visiting.delete(frame.value);
      continue;
    }
    const [name, item] = next.value;
    if (typeof name !== 'string') continue;
    const path = `${frame.prefix}${name}`;
    budget.charge(COST.entry + COST.string + path.length);
    if (item instanceof TensorRecord) weights.set(path, item);
    else enter(item, `${path}.`);
  }
  return weights;
}

async function checkFormat(
  source: ByteSource,
  directory: ReadonlyMap<string, DirectoryEntry>,
  folder: string,
  budget: Budget,
): Promise<void> {
  const unsupported = (message: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', source.label, message);
  const byteOrder = await readSmall(source, directory.get(`${folder}byteorder`), budget);
  if (byteOrder !== undefined && byteOrder !== 'little') {
    throw unsupported(`expected little-endian data, found byteorder '${printable(byteOrder)}'`);
  }
  const version = await readSmall(
    source,
    directory.get(`${folder}.data/version`) ?? directory.get(`${folder}version`),
    budget,
  );
  if (version !== undefined && !(/^\d{1,4}\s*$/.test(version) && Number(version) <= NEWEST_VERSION)) {
    throw unsupported(
      `version '${printable(version)}' of the container, and 1 to ${NEWEST_VERSION} are read`,
    );
  }
}

class ZipStorages implements StorageTable {
  /** By the names of their entries. */
  private readonly storages = new Map<string, StorageRecord>();

  constructor(
    private readonly label: string,
    private readonly directory: ReadonlyMap<string, DirectoryEntry>,
    private readonly folder: string,
    private readonly budget: Budget,
  ) {}

  find(key: string, dtype: StorageRecord['dtype'], bytes: number, at: number): StorageRecord {
    const name = `${this.folder}data/${key}`;
    const known = this.storages.get(name);
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
    const entry = this.directory.get(name);
    if (!entry) throw wrong('is not in the archive');
    if (entry.length !== bytes)
      throw wrong(`has ${bytes} bytes in the pickle and ${entry.length} in the archive`);
    this.budget.charge(COST.object + COST.entry, at);
    const storage = new StorageRecord(key, dtype, bytes);
    this.storages.set(name, storage);
    return storage;
  }

  /** Tells each storage where its entry begins. Errors: ERR_SENET_CHECKPOINT_LIMIT. */
  *place(entries: readonly LocatedEntry[], fileSize: number): Sliced<void> {
    let inflated = 0;
    for (const { entry, start } of entries) {
      if (this.budget.spend(1)) yield;
      const storage = this.storages.get(entry.name);
      if (storage === undefined) continue;
      storage.offset = start;
      storage.packed = entry.packed;
      if (entry.packed !== null) inflated += entry.length;
    }
    if (inflated > MAX_INFLATED_BYTES + MAX_INFLATION * fileSize) {
      throw inflatedTooMuch({ label: this.label, size: fileSize }, inflated);
    }
  }
}

async function readSmall(
  source: ByteSource,
  entry: DirectoryEntry | undefined,
  budget: Budget,
): Promise<string | undefined> {
  if (!entry) return undefined;
  const start = await archives().locateEntry(source, entry, budget);
  const bytes = await contentOf(source, entry, start, Math.min(entry.length, SMALL_ENTRY_BYTES));
  return Buffer.from(bytes).toString('latin1');
}
