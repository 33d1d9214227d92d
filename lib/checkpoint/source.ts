/**
 * Random access to the bytes of a checkpoint, a file or an array in memory, without ever holding more than what is
 * asked for. The descriptor stays open until the tensors have been read, so the file that was checked is the file
 * that is read, whatever happens to its name. Knows no checkpoint format.
 */
import { constants, fstat, open, read, close, type Stats } from 'node:fs';
import { inspect, promisify } from 'node:util';
import { isUint8Array } from '../brands';
import { checkRegular, fileError, makeError } from '../errors';
import { printable } from '../printable';
import { checkBuffer } from '../tensor/options';
import { poolThreads } from '../tensor/pool-threads';
import { checkpointError } from './problems';

const openFile = promisify(open);
const closeFile = promisify(close);
const fileStats: (fd: number) => Promise<Stats> = promisify(fstat);

/** Up to so many spans are read one by one: a batch may have to wait for a thread. */
const FEW_SPANS = 8;

export interface Span {
  readonly offset: number;
  readonly length: number;
}

export interface ByteSource {
  /** What messages call it. */
  readonly label: string;
  readonly size: number;
  /** The open descriptor, or the array. */
  readonly origin:
    { readonly kind: 'file'; readonly fd: number } | { readonly kind: 'bytes'; readonly bytes: Uint8Array };
  /** The bytes of a span inside the source; a view where that costs no copy. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** One call for many spans, where there is something faster than a thread-pool call for each. */
  readBatch?: (spans: readonly Span[]) => Promise<Uint8Array>;
  close(): Promise<void>;
}

/**
 * Opens a path or takes an array.
 * Errors: ERR_SENET_ARG_TYPE, ERR_SENET_BUFFER (detached, shared or resizable), ERR_SENET_FILE_NOT_FOUND,
 * ERR_SENET_FILE (a folder, a device, no permission), ERR_SENET_CHECKPOINT_FORMAT (empty).
 */
async function openSource(source: string | Uint8Array): Promise<ByteSource> {
  const opened = typeof source === 'string' ? await openPath(source) : takeBytes(source);
  if (opened.size === 0) {
    await opened.close();
    throw checkpointError(
      'ERR_SENET_CHECKPOINT_FORMAT',
      opened.label,
      'expected a checkpoint, found no bytes',
    );
  }
  return opened;
}

/** Opens a source, hands it to `use`, and closes it however that ends. */
export async function withSource<T>(
  source: string | Uint8Array,
  use: (opened: ByteSource) => Promise<T>,
): Promise<T> {
  const opened = await openSource(source);
  try {
    return await use(opened);
  } finally {
    await opened.close();
  }
}

/**
 * Reads many small spans, such as the headers that are scattered over a file between its tensors. At most as many
 * reads as libuv has threads are under way; all have ended when this ends, since the caller may close the file then.
 */
export async function readSpans(source: ByteSource, spans: readonly Span[]): Promise<Uint8Array[]> {
  if (source.readBatch && spans.length > FEW_SPANS) {
    const bytes = await source.readBatch(spans);
    let at = 0;
    return spans.map(({ length }) => bytes.subarray(at, (at += length)));
  }
  const results = new Array<Uint8Array>(spans.length);
  const failures: unknown[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let i = next++; i < spans.length && failures.length === 0; i = next++) {
      const { offset, length } = spans[i] as Span;
      try {
        results[i] = await source.read(offset, length);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(poolThreads(), spans.length) }, work));
  if (failures.length > 0) throw failures[0];
  return results;
}

async function openPath(path: string): Promise<ByteSource> {
  const label = printable(path, 1000);
  if (path.includes('\0') || path === '') {
    throw makeError('ERR_SENET_FILE_NOT_FOUND', `expected the path of a checkpoint, got '${label}'`);
  }
  let fd: number;
  try {
    // Without O_NONBLOCK, opening a named pipe waits for a writer for ever.
    fd = await openFile(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw fileError(label, cause, 'no such file');
  }
  try {
    const stats = await fileStats(fd);
    checkRegular(stats, label, 'a checkpoint file');
    const { size } = stats;
    return {
      label,
      size,
      origin: { kind: 'file', fd },
      read: (offset, length) => readFully(fd, label, size, offset, length),
      close: () => closeFile(fd),
    };
  } catch (error) {
    await closeFile(fd);
    throw error;
  }
}

function takeBytes(bytes: unknown): ByteSource {
  const label = 'checkpoint bytes';
  if (!isUint8Array(bytes)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `source: expected a path or a Uint8Array, got ${printable(inspect(bytes, { depth: 0 }), 60)}`,
    );
  }
  checkBuffer(bytes, label);
  return bytesSource(bytes, label);
}

/** An array as a source. */
export function bytesSource(bytes: Uint8Array, label: string): ByteSource {
  return {
    label,
    size: bytes.length,
    origin: { kind: 'bytes', bytes },
    read: (offset, length) => {
      checkSpan(label, bytes.length, offset, length);
      return Promise.resolve(bytes.subarray(offset, offset + length));
    },
    close: () => Promise.resolve(),
  };
}

function checkSpan(label: string, size: number, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= size)) {
    throw checkpointError(
      'ERR_SENET_CHECKPOINT_FORMAT',
      label,
      `truncated: ${length} bytes are needed at byte ${offset} and the file ends at ${size}`,
    );
  }
}

async function readFully(
  fd: number,
  label: string,
  size: number,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  checkSpan(label, size, offset, length);
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length;) {
    const count = await new Promise<number>((resolve, reject) =>
      read(fd, bytes, done, length - done, offset + done, (error, bytesRead) =>
        error ? reject(fileError(label, error, 'no such file')) : resolve(bytesRead),
      ),
    );
    if (count === 0) {
      throw makeError(
        'ERR_SENET_FILE_CHANGED',
        `${label}: had ${size} bytes when it was opened, and now ends before byte ${offset + length}`,
      );
    }
    done += count;
  }
  return bytes;
}
