/**
 * Finds out which container a checkpoint has, by content, and reads its description: every value except the tensors'
 * bytes, which stay in the file. What is no checkpoint is named for what it is.
 */
import { printable } from '../printable';
import { Budget, inSlices } from './budget';
import { readLegacy } from './legacy';
import { MAX_LINE_BYTES } from './limits';
import { looksLikeOnnx } from './onnx-file';
import { looksLikeZip } from './packed-checkpoint';
import { readPickle } from './pickle';
import { EndOfPickle } from './pickle-input';
import { checkpointError } from './problems';
import { looksLikeSafetensors, readSafetensors } from './safetensors';
import type { ByteSource } from './source';
import type { TensorRecord } from './tensor-record';
import { TorchHost, unsafe } from './torch-globals';
import { readTorchZip } from './torch-zip';
import { Dict, unknownGlobal, type Value } from './values';
import { collectTensors } from './walk';

/** 'torchscript' is an archive of `torch.jit.save`, of which only the weights are read. */
export type Container = 'zip' | 'legacy' | 'safetensors' | 'torchscript';

export interface ParsedCheckpoint {
  readonly container: Container;
  /** Where the bytes of its tensors are: what was opened, or of an archive around a checkpoint that checkpoint, in memory. */
  readonly source: ByteSource;
  /** Inert: Maps, arrays, numbers, text, records of tensors, and names of what is unknown. */
  readonly value: Value;
  /** Every tensor of the value, once, in the order of the file. */
  readonly tensors: readonly TensorRecord[];
  /** `__metadata__` of a safetensors file; empty for the others. */
  readonly metadata: ReadonlyMap<string, string>;
  /** What was spent on it so far. */
  readonly budget: Budget;
}

const HEAD_BYTES = 512;

/**
 * Reads the description of a checkpoint. Nothing in the file is executed and no tensor data is read.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT, _UNSAFE, _UNSUPPORTED, _LIMIT; ERR_SENET_FILE, ERR_SENET_FILE_CHANGED.
 */
export function parseCheckpoint(source: ByteSource): Promise<ParsedCheckpoint> {
  return parse(source, new Budget(source.label), true);
}

/** @param mayBePacked - whether it may be an archive around a checkpoint */
async function parse(source: ByteSource, budget: Budget, mayBePacked: boolean): Promise<ParsedCheckpoint> {
  const head = Buffer.from(await source.read(0, Math.min(HEAD_BYTES, source.size)));
  if (looksLikeZip(head)) {
    const read = await readTorchZip(source, budget);
    if ('value' in read) return describe(read.container, read.value, source, budget);
    if (mayBePacked) return parse(read, budget, false);
    const message = 'a zip archive around a zip archive; unpack it first';
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', source.label, message);
  }
  if (looksLikeSafetensors(head)) {
    return { container: 'safetensors', source, ...(await readSafetensors(source, budget)), budget };
  }
  if (head[0] === 0x80) {
    return describe('legacy', await readLegacy(source, budget), source, budget);
  }
  throw await unknownFormat(source, head);
}

async function describe(
  container: Container,
  value: Value,
  source: ByteSource,
  budget: Budget,
): Promise<ParsedCheckpoint> {
  const { label } = source;
  const tensors = await inSlices(budget, collectTensors(value, label, budget));
  refuseOnlyUnknown(value, tensors.length, label);
  return { container, source, value, tensors, metadata: new Map(), budget };
}

/** What is unknown may stand beside the weights. A file that is nothing else is no checkpoint, whoever asks what is in it. */
function refuseOnlyUnknown(value: Value, tensors: number, label: string): void {
  const global = unknownGlobal(value);
  if (global !== null) {
    const what = 'a whole object and no state dict (in Python: torch.save(model.state_dict(), path))';
    throw unsafe(label, what, global);
  }
  if (!(value instanceof Dict) || value.size === 0 || tensors > 0) return;
  for (const item of value.values()) if (unknownGlobal(item) === null) return;
  const [[name, item]] = value as unknown as [[Value, Value]];
  const where = typeof name === 'string' ? `'${printable(name)}'` : 'an entry';
  throw unsafe(label, `${where} is no tensor`, unknownGlobal(item) as string);
}

const ONNX =
  'an ONNX model, which is written here and not read: give the weights that it was exported from, or run it with ONNX Runtime';

/** What other files begin with, and what to do about them. */
const OTHER_FILES: readonly (readonly [magic: string, what: string])[] = [
  ['\x1f\x8b', 'a file that gzip compressed; unpack it first (gunzip)'],
  ['BZh', 'a file that bzip2 compressed; unpack it first (bunzip2)'],
  ['\xfd7zXZ', 'a file that xz compressed; unpack it first (unxz)'],
  ['\x28\xb5\x2f\xfd', 'a file that Zstandard compressed; unpack it first (unzstd)'],
  ['7z\xbc\xaf', 'a 7z archive; unpack it first'],
  ['Rar!', 'a RAR archive; unpack it first'],
  ['\x89HDF', 'an HDF5 file, as Keras writes them; save a state dict with PyTorch'],
  ['GGUF', 'a GGUF file; save a state dict with PyTorch'],
  ['\x93NUMPY', "one array of NumPy's; save a state dict with PyTorch"],
];

/** What text files are that bear the names of checkpoints. */
const OTHER_TEXTS: readonly (readonly [pattern: RegExp, what: string])[] = [
  [
    /^version https:\/\/git-lfs/,
    'a pointer of Git LFS in place of the file; fetch the file itself (git lfs pull)',
  ],
  [
    /^\s*<(!doctype|html|\?xml|head)/i,
    'a web page in place of the file; download it again and look at the page',
  ],
  [
    /^\s*\{[^]*"weight_map"/,
    'the index of a checkpoint in several files; give one of the files that it names, or join them into one first',
  ],
];

/** No container is recognised; a pickle of protocol 0 is still looked into, so that a dangerous one is called so. */
async function unknownFormat(source: ByteSource, head: Buffer): Promise<Error> {
  const { label } = source;
  const unsupported = (message: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  if (head.subarray(257, 262).toString('latin1') === 'ustar') {
    return unsupported(
      'a tar archive, the container of PyTorch before 0.1.10, which is not read; if it was packed around a checkpoint, unpack it first (tar -x)',
    );
  }
  if (looksLikeOnnx(head, source.size)) return unsupported(ONNX);
  if (head.subarray(4, 8).toString('latin1') === 'ORTM')
    return unsupported(`${ONNX} (in ONNX Runtime's own format)`);
  const text = head.toString('latin1');
  const other = OTHER_FILES.find(([magic]) => text.startsWith(magic));
  if (other !== undefined) return unsupported(other[1]);
  const beginning = Buffer.from(await source.read(0, Math.min(source.size, MAX_LINE_BYTES)));
  const long = beginning.toString('latin1');
  const named = OTHER_TEXTS.find(([pattern]) => pattern.test(long));
  if (named !== undefined) return unsupported(named[1]);
  if (/^[\w.]+\n/.test(text.slice(1)) || head[0] === 0x28 || head[0] === 0x5d || head[0] === 0x7d) {
    const global = await globalOf(beginning, label);
    if (global !== null) return unsafe(label, 'a pickle and not a file of torch.save', global, 0);
  }
  const start = head.subarray(0, 16);
  const isText = start.every(
    (byte) => byte === 9 || byte === 10 || byte === 13 || (byte >= 32 && byte < 127),
  );
  const found = isText ? `text, '${printable(start.toString('latin1'))}'` : `bytes ${start.toString('hex')}`;
  const message = `expected a file of torch.save or safetensors, found ${found}`;
  return checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, message, 0);
}

/** The unknown global that a plain pickle is made of, if it is one. */
async function globalOf(bytes: Uint8Array, label: string): Promise<string | null> {
  const storages = {
    find(): never {
      throw new EndOfPickle(0);
    },
  };
  const pickle = { bytes, host: new TorchHost(label, storages), budget: new Budget(label), label };
  return readPickle(pickle).then(
    ({ value }) => unknownGlobal(value),
    () => null,
  );
}
