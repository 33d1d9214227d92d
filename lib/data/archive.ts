/**
 * Files of a known name out of a folder or a tar archive (gzip-compressed or not), in memory. What is in them is the
 * caller's affair. Decompression runs on zlib's threads.
 */
import { constants, createReadStream } from 'node:fs';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';

import { printable } from '../checkpoint/problems';
import { isSenetError, makeError } from '../errors';
import { abortError } from '../tensor/abort';

/** Of one file, and of all of an archive when unpacked, at most. */
const MAX_BYTES = 1024 ** 3;

export interface FoundFile {
  /** How messages name it: its path, or the archive's and the name inside. */
  readonly label: string;
  readonly bytes: Buffer;
}

export interface FoundFiles {
  /** By base name. */
  readonly files: ReadonlyMap<string, FoundFile>;
  /** Names of everything that is there, for messages. */
  readonly seen: readonly string[];
}

/**
 * Reads the wanted files that are there.
 *
 * @param source - a folder, in which and in whose `subfolders` the files are looked for, or an archive
 * @param wanted - base names
 * @throws (rejects) ERR_SENET_DATA_FORMAT (no archive, damaged, too large), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE,
 *   ERR_SENET_ABORTED
 */
export async function readWanted(
  source: string,
  subfolders: readonly string[],
  wanted: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<FoundFiles> {
  const label = printable(source, 1000);
  try {
    const stats = await stat(source);
    if (stats.isDirectory()) return await readFolder(source, subfolders, wanted, signal);
    if (!stats.isFile()) throw makeError('ERR_SENET_FILE', `${label}: expected a folder or an archive`);
    return await readArchive(source, label, wanted, signal);
  } catch (cause) {
    if (isSenetError(cause)) throw cause;
    if (signal?.aborted === true) throw abortError(signal);
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such file or folder`, { cause });
    }
    // What is wrong inside a file has a code of zlib or tar; the system's have an errno.
    if ((cause as NodeJS.ErrnoException).syscall !== undefined) {
      throw makeError('ERR_SENET_FILE', `${label}: ${message}`, { cause });
    }
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
    seen.push(...names);
    for (const name of names) {
      if (!wanted.has(name) || files.has(name)) continue;
      const file = path.join(place, name);
      const label = printable(file, 1000);
      const stats = await stat(file);
      if (!stats.isFile()) continue;
      if (stats.size > MAX_BYTES) throw tooLarge(label, stats.size);
      const options = signal === undefined ? {} : { signal };
      files.set(name, { label, bytes: await readFile(file, options) });
    }
  }
  return { files, seen };
}

async function readArchive(
  archive: string,
  label: string,
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
      seen.push(path.posix.basename(name));
      return 'type' in entry && entry.type === 'File' && wanted.has(path.posix.basename(name));
    },
    onReadEntry: (entry) => {
      const name = path.posix.basename(entry.path);
      const chunks: Buffer[] = [];
      entry.on('data', (chunk: Buffer) => chunks.push(chunk));
      entry.on('end', () => {
        const inside = `${label}: ${printable(entry.path)}`;
        if (!files.has(name)) files.set(name, { label: inside, bytes: Buffer.concat(chunks) });
      });
    },
  });
  const ended = new Promise<void>((resolve) => parser.on('end', resolve));
  parser.on('error', (error: unknown) => (problem ??= error));
  let total = 0;
  const consume = async (chunks: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of chunks) {
      total += chunk.length;
      if (total > MAX_BYTES) throw tooLarge(label, total);
      parser.write(chunk);
      if (problem !== undefined) throw problem as Error;
    }
  };
  const options = signal === undefined ? {} : { signal };
  if (await isGzip(archive)) await pipeline(createReadStream(archive), createGunzip(), consume, options);
  else await pipeline(createReadStream(archive), consume, options);
  parser.end();
  if (problem === undefined) await ended;
  if (problem !== undefined) throw problem as Error;
  return { files, seen };
}

async function isGzip(file: string): Promise<boolean> {
  const handle = await open(file, constants.O_RDONLY);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
  } finally {
    await handle.close();
  }
}

function tooLarge(label: string, bytes: number): Error {
  return makeError(
    'ERR_SENET_DATA_FORMAT',
    `${label}: expected at most ${MAX_BYTES} bytes, found ${bytes} or more`,
  );
}
