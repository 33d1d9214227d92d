/**
 * The images in tar archives (gzip-compressed or not) and in zip archives, in the archive's order, without unpacking them
 * to a disk. A tar archive is read once from its beginning to its end, of a zip archive only what is wanted.
 */
import { stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';

import type { Entry, ZipFile } from 'yauzl';

import { beginsAsGzip, piecesOf } from '../data/gzip';
import { checkRegular, fileError, isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { MAX_FILE_BYTES } from '../vision/image-source';
import type { Choose, SelectedImage } from './image-list';

const TAR = /\.(tar|tar\.gz|tgz)$/i;
const ZIP = /\.zip$/i;

export interface ArchiveOptions {
  /** Whether a file of this name counts. */
  readonly takes: (name: string) => boolean;
  /** Asked for each file that counts. */
  readonly choose: Choose;
  /** Told how many of the archive's bytes are read, where it is read from its beginning to its end. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export function isArchive(file: string): boolean {
  return isTar(file) || ZIP.test(file);
}

export function isTar(file: string): boolean {
  return TAR.test(file);
}

/**
 * Images of an archive, told by the ending of its name.
 *
 * @throws (rejects) ERR_SENET_DATA_FORMAT (no such archive, damaged, truncated), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ABORTED
 */
export async function* imagesOfArchive(
  archive: string,
  options: ArchiveOptions,
): AsyncGenerator<SelectedImage> {
  const kind = isTar(archive) ? 'tar' : 'zip';
  const label = printable(archive, 1000);
  try {
    checkRegular(await stat(archive), label, `a ${kind} archive`);
    yield* kind === 'tar' ? imagesOfTar(archive, options) : imagesOfZip(archive, options);
  } catch (cause) {
    throwIfAborted(options.signal);
    throw archiveError(label, kind, cause);
  }
}

function archiveError(label: string, kind: string, cause: unknown): Error {
  if (isSenetError(cause)) return cause;
  const { syscall, message } = cause as NodeJS.ErrnoException;
  // What is wrong inside a file has a code of zlib or none.
  if (syscall !== undefined) return fileError(label, cause, 'no such file');
  return makeError(
    'ERR_SENET_DATA_FORMAT',
    `${label}: not a ${kind} archive, or a damaged or truncated one (${printable(message, 200)})`,
    { cause },
  );
}

async function* imagesOfTar(
  archive: string,
  { takes, choose, onBytes, signal }: ArchiveOptions,
): AsyncGenerator<SelectedImage> {
  // Only here: few lists have archives.
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- other realms refuse `import()`
  const { Parser } = require('tar') as typeof import('tar');
  let whole: SelectedImage[] = [];
  let problem: unknown;
  const parser = new Parser({
    strict: true,
    filter: (name, entry) => 'type' in entry && isPlainFile(entry.type) && takes(insideName(name)),
    onReadEntry: (entry) => {
      const { size } = entry;
      const file = `${archive}/${insideName(entry.path)}`;
      const place = choose();
      const chunks: Buffer[] = [];
      const tooLarge = size > MAX_FILE_BYTES ? sizeError(file, size) : undefined;
      const kept = place?.read === true && tooLarge === undefined;
      entry.on('data', (chunk: Buffer) => kept && chunks.push(chunk));
      entry.on('end', () => {
        const image = (): Buffer => {
          if (tooLarge !== undefined) throw tooLarge;
          return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
        };
        if (place === null) return;
        whole.push({ index: place.index, file, image: place.read ? image : null, bytes: kept ? size : 0 });
      });
    },
  });
  const ended = new Promise<void>((resolve) => parser.on('end', resolve));
  parser.on('error', (error: unknown) => (problem ??= error));
  for await (const { piece, read } of piecesOf(archive, await beginsAsGzip(archive), signal)) {
    onBytes?.(read);
    parser.write(piece);
    const ready = whole;
    whole = [];
    yield* ready;
    if (problem !== undefined) throw problem as Error;
  }
  parser.end();
  if (problem === undefined) await ended;
  yield* whole;
  if (problem !== undefined) throw problem as Error;
}

/** Without what leads nowhere. */
function insideName(name: string): string {
  return name.replace(/^(\.?\/)+/, '');
}

function isPlainFile(type: string): boolean {
  return type === 'File' || type === 'OldFile' || type === 'ContiguousFile';
}

async function* imagesOfZip(
  archive: string,
  { takes, choose, signal }: ArchiveOptions,
): AsyncGenerator<SelectedImage> {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- as above
  const { openPromise } = require('yauzl') as typeof import('yauzl');
  const zip = await openPromise(archive, { lazyEntries: true, autoClose: false });
  // Without a listener an error would end the process.
  zip.on('error', () => undefined);
  const reads = new Set<Promise<unknown>>();
  try {
    for await (const entry of entriesOf(zip)) {
      throwIfAborted(signal);
      const { fileName: name, uncompressedSize: size } = entry;
      if (name.endsWith('/') || !takes(name)) continue;
      const place = choose();
      if (place === null) continue;
      const file = `${archive}/${name}`;
      const image = (): Promise<Buffer> => {
        const read = readEntry(zip, entry, file);
        reads.add(read);
        const forget = (): void => void reads.delete(read);
        read.then(forget, forget);
        return read;
      };
      const held = place.read && size <= MAX_FILE_BYTES ? size : 0;
      yield { index: place.index, file, image: place.read ? image : null, bytes: held };
    }
  } finally {
    // What was asked for is still read.
    void Promise.allSettled(reads).then(() => zip.close());
  }
}

/** The entries of the central directory, one after the other. */
async function* entriesOf(zip: ZipFile): AsyncGenerator<Entry> {
  for (;;) {
    const entry = await new Promise<Entry | null>((resolve, reject) => {
      const settle = (): void => {
        zip.removeListener('entry', onEntry).removeListener('end', onEnd).removeListener('error', onError);
      };
      const onEntry = (found: Entry): void => {
        settle();
        resolve(found);
      };
      const onEnd = (): void => {
        settle();
        resolve(null);
      };
      const onError = (error: Error): void => {
        settle();
        reject(error);
      };
      zip.on('entry', onEntry).on('end', onEnd).on('error', onError);
      zip.readEntry();
    });
    if (entry === null) return;
    yield entry;
  }
}

async function readEntry(zip: ZipFile, entry: Entry, file: string): Promise<Buffer> {
  const { uncompressedSize: size } = entry;
  if (size > MAX_FILE_BYTES) throw sizeError(file, size);
  try {
    if (entry.isEncrypted()) throw new Error('it is encrypted');
    const stream = await new Promise<Readable>((resolve, reject) => {
      zip.openReadStream(entry, (error, opened) => (error === null ? resolve(opened) : reject(error)));
    });
    const chunks: Buffer[] = [];
    for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks);
  } catch (cause) {
    throw archiveError(printable(file, 1000), 'zip', cause);
  }
}

function sizeError(file: string, bytes: number): Error {
  return makeError(
    'ERR_SENET_IMAGE_SIZE',
    `${printable(file, 1000)}: expected at most ${MAX_FILE_BYTES} bytes, found ${bytes}`,
  );
}
