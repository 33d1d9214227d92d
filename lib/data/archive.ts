/**
 * Files of a known name and length out of a folder or a tar archive (gzip-compressed or not), in memory. What is in them
 * is the caller's affair. Decompression runs on zlib's threads, and ends at what the data set can have.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { fileError, isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { beginsAsGzip, readPieces } from './gzip';

/** What an archive may hold beside the files of its data set: a text about it, a page. */
const OTHER_BYTES = 16 * 1024 * 1024;
/** Names of what was seen, for a message. */
const MAX_SEEN = 100;

export interface FoundFile {
  /** How messages name it: its path, or the archive's and the name inside. */
  readonly label: string;
  readonly bytes: Buffer;
}

export interface FoundFiles {
  /** By base name. */
  readonly files: ReadonlyMap<string, FoundFile>;
  /** Names of what is there, for messages. */
  readonly seen: readonly string[];
}

/**
 * Reads the wanted files that are there.
 *
 * @param source - a folder, in which and in whose `subfolders` the files are looked for, or an archive
 * @param limits - base name and most bytes of every file that the data set has
 * @param wanted - those of them that are read
 * @throws (rejects) ERR_SENET_DATA_FORMAT (no archive, damaged, too large), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE,
 *   ERR_SENET_ABORTED
 */
export async function readWanted(
  source: string,
  subfolders: readonly string[],
  limits: ReadonlyMap<string, number>,
  wanted: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<FoundFiles> {
  const label = printable(source, 1000);
  try {
    const stats = await stat(source);
    if (stats.isDirectory()) return await readFolder(source, subfolders, limits, wanted, signal);
    if (!stats.isFile()) throw makeError('ERR_SENET_FILE', `${label}: expected a folder or an archive`);
    return await readArchive(source, label, limits, wanted, signal);
  } catch (cause) {
    if (isSenetError(cause)) throw cause;
    throwIfAborted(signal);
    const { syscall, message } = cause as NodeJS.ErrnoException;
    // What is wrong inside a file has a code of zlib or tar.
    if (syscall !== undefined) throw fileError(label, cause, 'no such file or folder');
    throw makeError(
      'ERR_SENET_DATA_FORMAT',
      `${label}: not a tar archive, or a damaged or truncated one (${printable(message, 200)})`,
      { cause },
    );
  }
}

async function readFolder(
  folder: string,
  subfolders: readonly string[],
  limits: ReadonlyMap<string, number>,
  wanted: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<FoundFiles> {
  const files = new Map<string, FoundFile>();
  const seen: string[] = [];
  for (const sub of ['.', ...subfolders]) {
    const place = path.join(folder, sub);
    const names = await readdir(place).catch((cause: unknown) => {
      if (sub === '.') throw cause;
      return [];
    });
    seen.push(...names.slice(0, MAX_SEEN));
    for (const name of names) {
      if (!wanted.has(name) || files.has(name)) continue;
      const file = path.join(place, name);
      const label = printable(file, 1000);
      const stats = await stat(file);
      if (!stats.isFile()) continue;
      checkLength(label, stats.size, limits.get(name));
      const options = signal === undefined ? {} : { signal };
      files.set(name, { label, bytes: await readFile(file, options) });
    }
  }
  return { files, seen };
}

async function readArchive(
  archive: string,
  label: string,
  limits: ReadonlyMap<string, number>,
  wanted: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<FoundFiles> {
  // Only here: few data sets are archives.
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- other realms refuse `import()`
  const { Parser } = require('tar') as typeof import('tar');
  const files = new Map<string, FoundFile>();
  const seen: string[] = [];
  let problem: unknown;
  const parser = new Parser({
    strict: true,
    filter: (name, entry) => {
      const base = path.posix.basename(name);
      if (seen.length < MAX_SEEN) seen.push(base);
      return 'type' in entry && entry.type === 'File' && wanted.has(base) && !files.has(base);
    },
    onReadEntry: (entry) => {
      const name = path.posix.basename(entry.path);
      const inside = `${label}: ${printable(entry.path)}`;
      const chunks: Buffer[] = [];
      try {
        checkLength(inside, entry.size, limits.get(name));
      } catch (error) {
        problem ??= error;
      }
      entry.on('data', (chunk: Buffer) => problem === undefined && chunks.push(chunk));
      entry.on('end', () => files.set(name, { label: inside, bytes: Buffer.concat(chunks) }));
    },
  });
  const ended = new Promise<void>((resolve) => parser.on('end', resolve));
  parser.on('error', (error: unknown) => (problem ??= error));
  const most = [...limits.values()].reduce((sum, bytes) => sum + bytes, OTHER_BYTES);
  let total = 0;
  const take = (piece: Buffer): void => {
    total += piece.length;
    checkLength(`${label}: unpacked`, total, most);
    parser.write(piece);
    if (problem !== undefined) throw problem as Error;
  };
  await readPieces(archive, await beginsAsGzip(archive), take, signal);
  parser.end();
  if (problem === undefined) await ended;
  if (problem !== undefined) throw problem as Error;
  return { files, seen };
}

function checkLength(label: string, bytes: number, most = 0): void {
  if (bytes <= most) return;
  throw makeError(
    'ERR_SENET_DATA_FORMAT',
    `${label}: too large: expected at most ${most} bytes, as the data set has, found ${bytes} or more`,
  );
}
