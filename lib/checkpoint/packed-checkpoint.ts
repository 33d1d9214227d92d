/**
 * A zip archive around one checkpoint, as pytorchcv publishes its files (`.pth.zip`): the checkpoint is unpacked into
 * memory and read as if it had been the file. Knows no pickles.
 */
import { printable } from '../printable';
import { Budget } from './budget';
import { CHECKPOINT_NAME } from './endings';
import { contentOf } from './inflate';
import { MAX_INFLATED_BYTES, MAX_INFLATION, MAX_LINE_BYTES } from './limits';
import { checkpointError } from './problems';
import { bytesSource, type ByteSource } from './source';
import type { DirectoryEntry } from './zip';

/** Loaded only here: yauzl takes its time, and safetensors and files of before 1.6 are no archives. */
export function archives(): typeof import('./zip') {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- CommonJS, as the output
  return require('./zip') as typeof import('./zip');
}

/** Whether a file begins as archives do. */
export function looksLikeZip(head: Uint8Array): boolean {
  return head[0] === 0x50 && head[1] === 0x4b; // PK
}

/**
 * The only file of an archive, where it is called as checkpoints are; null of another archive.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT, _LIMIT.
 */
export async function unpackOnly(
  source: ByteSource,
  directory: ReadonlyMap<string, DirectoryEntry>,
  budget: Budget,
): Promise<ByteSource | null> {
  const [entry] = directory.values();
  if (entry === undefined || directory.size !== 1 || !isPacked(entry)) return null;
  const { name, length } = entry;
  const label = `${source.label}: ${printable(name, 200)}`;
  if (length > MAX_INFLATED_BYTES + MAX_INFLATION * source.size) throw inflatedTooMuch(source, length);
  if (length === 0) {
    throw checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, 'expected a checkpoint, found no bytes');
  }
  const start = await archives().locateEntry(source, entry, budget);
  return bytesSource(await contentOf(source, entry, start, length), label);
}

function isPacked({ name }: DirectoryEntry): boolean {
  return name.length <= MAX_LINE_BYTES && CHECKPOINT_NAME.test(name) && !/(^|\/)data\.pkl$/.test(name);
}

/** The checkpoint that a file is an archive around, or the file itself. Errors: as `unpackOnly`. */
export async function unpacked(source: ByteSource): Promise<ByteSource> {
  if (!looksLikeZip(await source.read(0, Math.min(2, source.size)))) return source;
  const budget = new Budget(source.label);
  const directory = await archives().readDirectory(source, budget);
  return (await unpackOnly(source, directory, budget)) ?? source;
}

/** ERR_SENET_CHECKPOINT_LIMIT of a file that would become too many bytes. */
export function inflatedTooMuch(
  { label, size }: Pick<ByteSource, 'label' | 'size'>,
  inflated: number,
): Error {
  const message = `${inflated} bytes of tensors in a compressed file of ${size}: more than weights that were trained can be compressed`;
  return checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
}
