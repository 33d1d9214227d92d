/**
 * The entries of a stored zip archive, each with the place of its bytes in the file. yauzl reads the central
 * directory (zip64 included); this file checks what yauzl leaves to its callers: every entry is stored and not
 * encrypted, its local header agrees with the directory, and no two entries share a byte. Follows the .ZIP File
 * Format Specification (APPNOTE 6.3). Knows nothing of PyTorch.
 */
import { RandomAccessReader, fromRandomAccessReader, type Entry, type ZipFile } from 'yauzl';
import { MAX_ZIP_DIRECTORY_BYTES, MAX_ZIP_ENTRIES } from './limits';
import { checkpointError, printable } from './problems';
import { readSpans, type ByteSource } from './source';

export interface ZipEntry {
  readonly name: string;
  /** First byte of the contents in the file. */
  readonly offset: number;
  readonly length: number;
}

/** The end of an archive and its directory are read in pieces of this size: one piece for any network of this library. */
const WINDOW_BYTES = 256 * 1024;
const LOCAL_HEADER_BYTES = 30;
const LOCAL_HEADER_SIGNATURE = 0x04034b50;
const DATA_DESCRIPTOR_FLAG = 0x8;
const ENCRYPTED_FLAG = 0x1;
const IN_ZIP64_FIELD = 0xffffffff;

/**
 * Lists an archive.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT (damaged, lying or overlapping headers, duplicate names),
 * ERR_SENET_CHECKPOINT_UNSUPPORTED (compressed or encrypted), ERR_SENET_CHECKPOINT_LIMIT.
 */
export async function readZipEntries(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const wrong = (message: string, offset?: number): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_FORMAT', source.label, `damaged zip archive: ${message}`, offset);
  const { entries, directoryStart } = await readDirectory(source, wrong);

  const spans = entries.map((entry) => {
    const length = LOCAL_HEADER_BYTES + entry.fileNameLength;
    if (entry.relativeOffsetOfLocalHeader + length > directoryStart) {
      throw wrong(`the header of '${printable(entry.fileName)}' lies outside`, entry.relativeOffsetOfLocalHeader);
    }
    return { offset: entry.relativeOffsetOfLocalHeader, length };
  });
  const headers = await readSpans(source, spans);

  const found = new Map<string, ZipEntry>();
  const taken: { start: number; end: number; name: string }[] = [];
  for (const [i, entry] of entries.entries()) {
    const name = entry.fileName;
    const start = entry.relativeOffsetOfLocalHeader;
    const offset = start + checkLocalHeader(entry, headers[i] as Uint8Array, (message) => wrong(`'${printable(name)}' ${message}`, start));
    const end = offset + entry.uncompressedSize;
    if (end > directoryStart) throw wrong(`'${printable(name)}' reaches beyond the entries`, start);
    if (found.has(name)) throw wrong(`two entries are called '${printable(name)}'`, start);
    found.set(name, { name, offset, length: entry.uncompressedSize });
    taken.push({ start, end, name });
  }
  taken.sort((a, b) => a.start - b.start);
  for (let i = 1; i < taken.length; i++) {
    const before = taken[i - 1] as (typeof taken)[number];
    const after = taken[i] as (typeof taken)[number];
    if (after.start < before.end) {
      throw wrong(`'${printable(before.name)}' and '${printable(after.name)}' overlap`, after.start);
    }
  }
  return found;
}

async function readDirectory(
  source: ByteSource,
  wrong: (message: string, offset?: number) => Error,
): Promise<{ entries: Entry[]; directoryStart: number }> {
  const reader = new WindowReader(source);
  const fail = (error: unknown): never => {
    throw reader.failure ?? wrong((error as Error).message);
  };
  const zip = await new Promise<ZipFile>((resolve, reject) => {
    const options = { lazyEntries: true, autoClose: false, strictFileNames: true };
    fromRandomAccessReader(reader, source.size, options, (error, file) => {
      if (error) reject(error);
      else resolve(file);
    });
  }).catch(fail);
  if (zip.entryCount > MAX_ZIP_ENTRIES) {
    const message = `a zip archive of ${zip.entryCount} entries, and at most ${MAX_ZIP_ENTRIES} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', source.label, message);
  }
  const entries: Entry[] = [];
  let directoryBytes = 0;
  reader.firstPosition = -1;
  for (let entry = await nextEntry(zip).catch(fail); entry; entry = await nextEntry(zip).catch(fail)) {
    directoryBytes += 46 + entry.fileNameLength + entry.extraFieldLength + entry.fileCommentLength;
    if (directoryBytes > MAX_ZIP_DIRECTORY_BYTES) {
      const message = `a zip directory of more than ${MAX_ZIP_DIRECTORY_BYTES} bytes`;
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', source.label, message);
    }
    const name = printable(entry.fileName);
    if ((entry.generalPurposeBitFlag & ENCRYPTED_FLAG) !== 0) {
      throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', source.label, `entry '${name}' is encrypted`);
    }
    if (entry.compressionMethod !== 0) {
      const message = `entry '${name}' is compressed (method ${entry.compressionMethod}); PyTorch stores its entries`;
      throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', source.label, message);
    }
    entries.push(entry);
  }
  return { entries, directoryStart: entries.length > 0 ? reader.firstPosition : source.size };
}

/** The next entry, or null after the last. */
function nextEntry(zip: ZipFile): Promise<Entry | null> {
  return new Promise((resolve, reject) => {
    const done = (settle: () => void): void => {
      zip.removeAllListeners('entry').removeAllListeners('end').removeAllListeners('error');
      settle();
    };
    zip.on('entry', (entry: Entry) => done(() => resolve(entry)));
    zip.on('end', () => done(() => resolve(null)));
    zip.on('error', (error: Error) => done(() => reject(error)));
    zip.readEntry();
  });
}

/** Compares a local header with its entry and gives the distance from the header to the contents. */
function checkLocalHeader(entry: Entry, bytes: Uint8Array, wrong: (message: string) => Error): number {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (header.readUInt32LE(0) !== LOCAL_HEADER_SIGNATURE) throw wrong('has no local header');
  const flags = header.readUInt16LE(6);
  if (header.readUInt16LE(8) !== entry.compressionMethod || (flags & ENCRYPTED_FLAG) !== 0) {
    throw wrong('is stored another way in its local header');
  }
  if ((flags & DATA_DESCRIPTOR_FLAG) === 0) {
    for (const at of [18, 22]) {
      const length = header.readUInt32LE(at);
      if (length !== entry.uncompressedSize && length !== IN_ZIP64_FIELD) {
        throw wrong(`has ${entry.uncompressedSize} bytes in the directory and ${length} in its local header`);
      }
    }
  }
  const nameLength = header.readUInt16LE(26);
  const name = header.subarray(LOCAL_HEADER_BYTES, LOCAL_HEADER_BYTES + nameLength);
  if (nameLength !== entry.fileNameLength || !name.equals(entry.fileNameRaw)) {
    throw wrong('has another name in its local header');
  }
  return LOCAL_HEADER_BYTES + nameLength + header.readUInt16LE(28);
}

/** Lets yauzl, which reads a few bytes at a time, read from a window of the file. */
class WindowReader extends RandomAccessReader {
  /** Position of the first read after this was set to -1: where the directory begins. */
  firstPosition = -1;
  /** The error of a read that failed, since yauzl's callers see only its message. */
  failure: unknown;
  private windowStart = 0;
  private window: Uint8Array = new Uint8Array();

  constructor(private readonly source: ByteSource) {
    super();
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead?: number) => void,
  ): void {
    if (this.firstPosition < 0) this.firstPosition = position;
    if (position + length > this.source.size) {
      callback(new Error('the directory of entries points outside the file'));
      return;
    }
    const serve = (): void => {
      const from = position - this.windowStart;
      buffer.set(this.window.subarray(from, from + length), offset);
      callback(null, length);
    };
    if (position >= this.windowStart && position + length <= this.windowStart + this.window.length) {
      serve();
      return;
    }
    // yauzl begins at the end of the file and then reads forwards.
    const wanted = Math.max(length, WINDOW_BYTES);
    const start = Math.max(0, Math.min(position, this.source.size - wanted));
    this.source.read(start, Math.min(wanted, this.source.size - start)).then(
      (bytes) => {
        this.windowStart = start;
        this.window = bytes;
        serve();
      },
      (error: unknown) => {
        this.failure = error;
        callback(error as Error);
      },
    );
  }
}
