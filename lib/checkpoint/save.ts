/**
 * `save`: a state dict as safetensors, or as a `.pt` that `torch.load(weights_only=True)` reads. The file appears whole
 * or not at all: it is written beside its place under another name, flushed to the disk and renamed.
 */
import { randomBytes } from 'node:crypto';
import { open, realpath, rename, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import type { DType, TensorHandle } from '../binding';
import { isSenetError, makeError } from '../errors';
import { binding } from '../native';
import { checkOptions, checkString, describe } from '../tensor/options';
import { handleOf, type Tensor } from '../tensor/tensor';
import { pickleStateDict, type PickledTensor } from './pickle-writer';
import { LENGTH_BYTES, safetensorsName } from './safetensors';
import { StateDict } from './state-dict';
import { ITEM_SIZE, contiguousStride, countElements } from './tensor-record';
import { ZipWriter, type ByteSink } from './zip-writer';

export interface SaveOptions {
  /** Text for the `__metadata__` of a safetensors file, added to the state dict's own `fileMetadata`. */
  metadata?: Readonly<Record<string, string>>;
}

/** What has a state dict: a module. */
export interface HasStateDict {
  stateDict(): StateDict;
}

/** Bytes copied out of LibTorch at a time on the JavaScript thread: about a millisecond. */
const PIECE_BYTES = 1024 * 1024;
const PT_EXTENSIONS = ['.pt', '.pth', '.pkl', '.bin'];

/** The order in which the reference implementation writes element types: the most aligned first. */
const SAFETENSORS_ORDER: readonly DType[] = [
  ...([
    'int64',
    'float64',
    'float32',
    'int32',
    'bfloat16',
    'float16',
    'int16',
    'int8',
    'uint8',
    'bool',
  ] as const),
];

interface Entry {
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

/**
 * Saves a state dict or a module's. The extension chooses the format: `.safetensors`; or `.pt`, `.pth`, `.pkl`, `.bin`
 * for PyTorch's zip container. A `.pt` keeps shared storages, strides and `_metadata`; safetensors, as in Python,
 * refuses tensors that share memory and orders them by element type and name. Tensors on other devices are saved as
 * CPU tensors. Do not change the tensors until the promise settles.
 *
 * @param target - a StateDict, a Map of Tensors, or a Module
 * @param file - path of the file; an existing one is replaced at the end
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown extension, shared memory in safetensors),
 *   ERR_SENET_UNKNOWN_OPTION, ERR_SENET_DISPOSED, ERR_SENET_FILE_NOT_FOUND (no such folder), ERR_SENET_FILE
 */
export async function save(
  target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict,
  file: string,
  options?: SaveOptions,
): Promise<void> {
  checkString(file, 'save: file');
  const { metadata = {} } = checkOptions(options, ['metadata'], 'save');
  for (const [name, value] of Object.entries(metadata)) checkString(value, `save: metadata '${name}'`);
  const extension = path.extname(file).toLowerCase();
  const write =
    extension === '.safetensors'
      ? writeSafetensors
      : PT_EXTENSIONS.includes(extension)
        ? writeTorchZip
        : undefined;
  if (write === undefined) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `save: expected a path that ends in .safetensors or ${PT_EXTENSIONS.join(', ')}, got '${file}'`,
    );
  }
  const stateDict = toStateDict(target);
  const fileMetadata = new Map([['format', 'pt'], ...stateDict.fileMetadata, ...Object.entries(metadata)]);
  // The entries keep the tensors of a module's state dict alive until they are written.
  const entries = [...stateDict].map(([name, tensor]) => describeEntry(name, tensor));
  await writeAtomically(file, (sink) =>
    write(sink, entries, stateDict, fileMetadata, path.basename(file, extension)),
  );
}

function toStateDict(target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict): StateDict {
  if (target instanceof StateDict) return target;
  if (target instanceof Map) return new StateDict(target);
  if (
    typeof target === 'object' &&
    target !== null &&
    'stateDict' in target &&
    typeof target.stateDict === 'function'
  ) {
    return target.stateDict();
  }
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `save: expected a StateDict, a Map or a Module, got ${describe(target)}`,
  );
}

function describeEntry(name: unknown, tensor: Tensor): Entry {
  const text = checkString(name, 'save: a name');
  const handle = handleOf(tensor, `save: '${text}'`);
  const { dtype, shape } = binding.tensorInfo(handle);
  const { id, bytes, stride, storageOffset } = binding.storageInfo(handle);
  return {
    name: text,
    tensor,
    handle,
    dtype,
    shape,
    stride,
    storageOffset,
    storageId: id,
    storageBytes: bytes,
  };
}

async function writeTorchZip(
  sink: ByteSink,
  entries: readonly Entry[],
  stateDict: StateDict,
  _fileMetadata: ReadonlyMap<string, string>,
  folder: string,
): Promise<void> {
  // As in torch.save, a storage is written whole and once, however little of it a tensor shows.
  const keys = new Map<bigint, string>();
  const storages: Entry[] = [];
  const pickled = entries.map((entry): PickledTensor => {
    let key = keys.get(entry.storageId);
    if (key === undefined) {
      key = String(keys.size);
      keys.set(entry.storageId, key);
      storages.push(entry);
    }
    return {
      ...entry,
      storageKey: key,
      storageSize: Math.floor(entry.storageBytes / ITEM_SIZE[entry.dtype]),
      requiresGrad: entry.tensor.requiresGrad,
    };
  });
  refuseMixedStorages(entries);
  const zip = new ZipWriter(sink);
  const small = (name: string, bytes: Buffer): Promise<void> =>
    zip.add(`${folder}/${name}`, bytes.length, [bytes]);
  await small('data.pkl', pickleStateDict(pickled, stateDict.metadata));
  await small('.format_version', Buffer.from('1'));
  await small('.storage_alignment', Buffer.from('64'));
  await small('byteorder', Buffer.from('little'));
  for (const [i, entry] of storages.entries()) {
    const length = Math.floor(entry.storageBytes / ITEM_SIZE[entry.dtype]) * ITEM_SIZE[entry.dtype];
    await zip.add(`${folder}/data/${i}`, length, storagePieces(entry, 0, length));
  }
  await small('version', Buffer.from('3\n'));
  await zip.finish();
}

/** PyTorch's container has one element type for each storage. */
function refuseMixedStorages(entries: readonly Entry[]): void {
  const first = new Map<bigint, Entry>();
  for (const entry of entries) {
    const known = first.get(entry.storageId);
    if (known === undefined) first.set(entry.storageId, entry);
    else if (known.dtype !== entry.dtype) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `save: '${known.name}' (${known.dtype}) and '${entry.name}' (${entry.dtype}) view one storage as different types, which the format cannot hold; clone one of them`,
      );
    }
  }
}

async function writeSafetensors(
  sink: ByteSink,
  entries: readonly Entry[],
  _stateDict: StateDict,
  fileMetadata: ReadonlyMap<string, string>,
): Promise<void> {
  refuseShared(entries);
  const rank = (dtype: DType): number => SAFETENSORS_ORDER.indexOf(dtype);
  const ordered = [...entries].sort((a, b) => rank(a.dtype) - rank(b.dtype) || (a.name < b.name ? -1 : 1));
  const header: [string, unknown][] = [['__metadata__', Object.fromEntries(fileMetadata)]];
  let position = 0;
  for (const { name, dtype, shape } of ordered) {
    if (name === '__metadata__')
      throw makeError('ERR_SENET_ARG_RANGE', `save: a tensor cannot be called '${name}'`);
    const end = position + countElements(shape) * ITEM_SIZE[dtype];
    header.push([name, { dtype: safetensorsName(dtype), shape, data_offsets: [position, end] }]);
    position = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padding = (LENGTH_BYTES - (json.length % LENGTH_BYTES)) % LENGTH_BYTES;
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeBigUInt64LE(BigInt(json.length + padding));
  await sink.write(Buffer.concat([length, json, Buffer.alloc(padding, ' ')]));
  for (const entry of ordered) {
    for (const piece of elementPieces(entry)) await sink.write(piece);
  }
}

/** As `safetensors.torch.save_file`: tensors that share memory would come back as copies, so they are refused. */
function refuseShared(entries: readonly Entry[]): void {
  const owners = new Map<bigint, Entry>();
  for (const entry of entries) {
    if (countElements(entry.shape) === 0) continue;
    const owner = owners.get(entry.storageId);
    if (owner !== undefined) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `save: '${owner.name}' and '${entry.name}' share memory, which safetensors cannot express; clone one of them, or save as .pt`,
      );
    }
    owners.set(entry.storageId, entry);
  }
}

/** A tensor's elements in row-major order. */
function* elementPieces(entry: Entry): Iterable<Uint8Array> {
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

function* storagePieces(entry: Entry, start: number, length: number): Iterable<Uint8Array> {
  for (let done = 0; done < length; done += PIECE_BYTES) {
    yield binding.storageBytes(entry.handle, start + done, Math.min(PIECE_BYTES, length - done));
  }
}

async function writeAtomically(file: string, write: (sink: ByteSink) => Promise<void>): Promise<void> {
  // A link is written through, as Python does, and not replaced.
  const place = await realpath(file).catch(() => file);
  const temporary = path.join(
    path.dirname(place),
    `.${path.basename(place)}.${randomBytes(6).toString('hex')}.tmp`,
  );
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'wx');
    const sink = new BufferedFile(handle);
    await write(sink);
    await sink.flush();
    await handle.sync();
    await handle.close();
    await rename(temporary, place);
  } catch (error) {
    if (handle !== undefined) {
      await handle.close().catch(() => undefined);
      await unlink(temporary).catch(() => undefined);
    }
    if (isSenetError(error) || !(error instanceof Error) || !('syscall' in error)) throw error;
    const code =
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'ERR_SENET_FILE_NOT_FOUND' : 'ERR_SENET_FILE';
    throw makeError(code, `save: ${file} could not be written: ${error.message}`, { cause: error });
  }
}

/** Joins small writes. */
class BufferedFile implements ByteSink {
  private parts: Uint8Array[] = [];
  private waiting = 0;

  constructor(private readonly handle: FileHandle) {}

  async write(bytes: Uint8Array): Promise<void> {
    this.parts.push(bytes);
    this.waiting += bytes.length;
    if (this.waiting >= PIECE_BYTES) await this.flush();
  }

  async flush(): Promise<void> {
    const bytes = this.parts.length === 1 ? (this.parts[0] as Uint8Array) : Buffer.concat(this.parts);
    this.parts = [];
    this.waiting = 0;
    for (let done = 0; done < bytes.length;) {
      done += (await this.handle.write(bytes, done, bytes.length - done)).bytesWritten;
    }
  }
}
