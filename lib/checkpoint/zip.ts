/**
 * The entries of a zip archive, each with the place of its bytes in the file. yauzl reads the central directory (zip64
 * included); this file checks what yauzl leaves to its callers: every entry is stored or deflated and not encrypted, its
 * local header agrees with the directory, and no two entries share a byte. Follows the .ZIP File
 * Format Specification (APPNOTE 6.3). Knows nothing of PyTorch.
 */
import { setImmediate } from 'node:timers';

import { RandomAccessReader, fromRandomAccessReader, type Entry, type ZipFile } from 'yauzl';
import { printable } from '../printable';
import { inSlices, sorted, type Budget } from './budget';
import { COST, MAX_ZIP_DIRECTORY_BYTES, MAX_ZIP_ENTRIES } from './limits';
import { checkpointError } from './problems';
import { readSpans, type ByteSource } from './source';
import type { Packed } from './tensor-record';

// yauzl calls the global, and jsdom has none.
globalThis.setImmediate ??= setImmediate;

/** An entry as the central directory has it. */
export interface DirectoryEntry {
  readonly name: string;
  readonly nameBytes: Uint8Array;
  readonly headerOffset: number;
  /** Of the contents. */
  readonly length: number;
  /** null: stored as it is. */
  readonly packed: Packed | null;
}

/** The end of an archive and its directory are read in pieces of this size: one piece for any network of this library. */
const WINDOW_BYTES = 256 * 1024;
/** Local headers that are read together. */
const HEADERS_AT_ONCE = 1024;
const LOCAL_HEADER_BYTES = 30;
const LOCAL_HEADER_SIGNATURE = 0x04034b50;
const DATA_DESCRIPTOR_FLAG = 0x8;
const ENCRYPTED_FLAG = 0x1;
const STORED = 0;
const DEFLATED = 8;
const IN_ZIP64_FIELD = 0xffffffff;

/**
 * Reads the central directory.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT, ERR_SENET_CHECKPOINT_UNSUPPORTED (compressed in another way, or encrypted),
 * ERR_SENET_CHECKPOINT_LIMIT.
 */
export async function readDirectory(
  source: ByteSource,
  budget: Budget,
): Promise<ReadonlyMap<string, DirectoryEntry>> {
  const fault = (kind: 'LIMIT' | 'UNSUPPORTED', message: string): Error =>
    checkpointError(`ERR_SENET_CHECKPOINT_${kind}`, source.label, message);
  const reader = new WindowReader(source);
  const fail = (error: Error): Error =>
    (reader.failure as Error | undefined) ?? damaged(source, error.message);
  const zip = await new Promise<ZipFile>((resolve, reject) => {
    const options = { lazyEntries: true, autoClose: false, strictFileNames: true };
    fromRandomAccessReader(reader, source.size, options, (error, file) => {
      if (error) reject(fail(error));
      else resolve(file);
    });
  });
  if (zip.entryCount > MAX_ZIP_ENTRIES) {
    throw fault(
      'LIMIT',
      `a zip archive of ${zip.entryCount} entries, and at most ${MAX_ZIP_ENTRIES} are read`,
    );
  }
  const directory = new Map<string, DirectoryEntry>();
  let directoryBytes = 0;
  const add = (entry: Entry): void => {
    const name = entry.fileName;
    directoryBytes += 46 + entry.fileNameLength + entry.extraFieldLength + entry.fileCommentLength;
    if (directoryBytes > MAX_ZIP_DIRECTORY_BYTES) {
      throw fault('LIMIT', `a zip directory of more than ${MAX_ZIP_DIRECTORY_BYTES} bytes`);
    }
    if ((entry.generalPurposeBitFlag & ENCRYPTED_FLAG) !== 0) {
      throw fault('UNSUPPORTED', `entry '${printable(name)}' is encrypted`);
    }
    const method = entry.compressionMethod;
    if (method !== STORED && method !== DEFLATED) {
      throw fault(
        'UNSUPPORTED',
        `entry '${printable(name)}' is compressed by method ${method}; stored and deflated entries are read`,
      );
    }
    budget.charge(COST.zipEntry + 3 * name.length);
    if (directory.has(name)) throw damaged(source, `two entries are called '${printable(name)}'`);
    const headerOffset = entry.relativeOffsetOfLocalHeader;
    const length = entry.uncompressedSize;
    const packed = method === STORED ? null : { length: entry.compressedSize, crc: entry.crc32 };
    directory.set(name, { name, nameBytes: entry.fileNameRaw, headerOffset, length, packed });
  };
  reader.firstPosition = -1;
  await readAllEntries(zip, add, fail, budget);
  const directoryStart = directory.size > 0 ? reader.firstPosition : 0;
  for (const entry of directory.values()) {
    const { name, headerOffset, nameBytes } = entry;
    if (headerOffset + LOCAL_HEADER_BYTES + nameBytes.length + lengthInFile(entry) > directoryStart) {
      throw damaged(source, `'${printable(name)}' reaches beyond the entries`, headerOffset);
    }
    if (budget.spend(1)) await budget.turn();
  }
  return directory;
}

function lengthInFile({ length, packed }: DirectoryEntry): number {
  return packed?.length ?? length;
}

/** An entry and where its contents begin. */
export interface LocatedEntry {
  readonly entry: DirectoryEntry;
  readonly start: number;
}

/**
 * Finds where the contents of each entry begin, in the order of the file; checks their local headers and that none overlap.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT.
 */
export async function locateEntries(
  source: ByteSource,
  entries: Iterable<DirectoryEntry>,
  budget: Budget,
): Promise<LocatedEntry[]> {
  const order = await inSlices(
    budget,
    sorted(entries, (a, b) => a.headerOffset - b.headerOffset, budget),
  );
  const located: LocatedEntry[] = [];
  let end = 0;
  for (let first = 0; first < order.length; first += HEADERS_AT_ONCE) {
    const some = order.slice(first, first + HEADERS_AT_ONCE);
    const spans = some.map(({ headerOffset, nameBytes }) => ({
      offset: headerOffset,
      length: LOCAL_HEADER_BYTES + nameBytes.length,
    }));
    const headers = await readSpans(source, spans);
    for (const [i, entry] of some.entries()) {
      const { headerOffset } = entry;
      const wrong = (message: string): Error =>
        damaged(source, `'${printable(entry.name)}' ${message}`, headerOffset);
      if (headerOffset < end) throw wrong('overlaps the entry in front of it');
      const start = headerOffset + checkLocalHeader(entry, headers[i] as Uint8Array, wrong);
      located.push({ entry, start });
      end = start + lengthInFile(entry);
    }
    if (budget.spend(4 * some.length)) await budget.turn();
  }
  if (end > source.size) throw damaged(source, `an entry ends at byte ${end} and the file at ${source.size}`);
  return located;
}

/** Where the contents of one entry begin. Errors: ERR_SENET_CHECKPOINT_FORMAT. */
export async function locateEntry(
  source: ByteSource,
  entry: DirectoryEntry,
  budget: Budget,
): Promise<number> {
  const [located] = (await locateEntries(source, [entry], budget)) as [LocatedEntry];
  return located.start;
}

function damaged(source: ByteSource, message: string, offset?: number): Error {
  return checkpointError(
    'ERR_SENET_CHECKPOINT_FORMAT',
    source.label,
    `damaged zip archive: ${message}`,
    offset,
  );
}

/** yauzl calls back at once where the window holds the entry, and later where it does not; the loop waits only then. */
async function readAllEntries(
  zip: ZipFile,
  add: (entry: Entry) => void,
  fail: (error: Error) => Error,
  budget: Budget,
): Promise<void> {
  let state: 'waiting' | 'entry' | 'end' = 'waiting';
  let problem: Error | undefined;
  let wake: () => void = () => undefined;
  const arrive = (next: 'entry' | 'end'): void => {
    state = next;
    wake();
  };
  zip.on('entry', (entry: Entry) => {
    try {
      add(entry);
    } catch (error) {
      problem ??= error as Error;
    }
    arrive('entry');
  });
  zip.on('end', () => arrive('end'));
  zip.on('error', (error: Error) => {
    problem ??= fail(error);
    arrive('end');
  });
  const settled = (): boolean => state !== 'waiting';
  for (let ended = false; !ended; ended = (state as string) === 'end') {
    state = 'waiting';
    zip.readEntry();
    if (!settled()) await new Promise<void>((resolve) => (wake = resolve));
    if (problem) throw problem;
    if (budget.spend(8)) await budget.turn();
  }
}

/** Compares a local header with its entry and gives the distance from the header to the contents. */
function checkLocalHeader(
  entry: DirectoryEntry,
  bytes: Uint8Array,
  wrong: (message: string) => Error,
): number {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (header.readUInt32LE(0) !== LOCAL_HEADER_SIGNATURE) throw wrong('has no local header');
  const flags = header.readUInt16LE(6);
  if (
    header.readUInt16LE(8) !== (entry.packed === null ? STORED : DEFLATED) ||
    (flags & ENCRYPTED_FLAG) !== 0
  ) {
    throw wrong('is stored another way in its local header');
  }
  if ((flags & DATA_DESCRIPTOR_FLAG) === 0) {
    const sizes = [lengthInFile(entry), entry.length];
    for (const [i, expected] of sizes.entries()) {
      const length = header.readUInt32LE(18 + 4 * i);
      if (length !== expected && length !== IN_ZIP64_FIELD) {
        throw wrong(`has ${expected} bytes in the directory and ${length} in its local header`);
      }
    }
  }
  const nameLength = header.readUInt16LE(26);
  const name = header.subarray(LOCAL_HEADER_BYTES, LOCAL_HEADER_BYTES + nameLength);
  if (nameLength !== entry.nameBytes.length || !name.equals(entry.nameBytes)) {
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
