/**
 * Files that appear whole or not at all: written beside their place under another name, flushed to the disk and renamed.
 */
import { randomBytes } from 'node:crypto';
import { open, realpath, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import type { ByteSink } from './zip-writer';

/** Bytes up to which small writes are joined. */
const TOGETHER = 1024 * 1024;

/**
 * Writes to a temporary file beside `file` that then takes its place.
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
 */
export async function writeAtomically(
  file: string,
  write: (sink: ByteSink) => Promise<void>,
  where = 'save',
): Promise<void> {
  if (file.includes('\0'))
    throw makeError('ERR_SENET_FILE_NOT_FOUND', `${where}: expected a path, got ${JSON.stringify(file)}`);
  // A link is written through, as Python does, and not replaced.
  const place = await realpath(file).catch(() => file);
  const name = path.basename(place);
  const unique = randomBytes(6).toString('hex');
  // The longest name of a file has 255 bytes.
  const temporary = path.join(
    path.dirname(place),
    Buffer.byteLength(name) > 200 ? `.${unique}.tmp` : `.${name}.${unique}.tmp`,
  );
  // Whoever may read the file that is replaced, may read the new one, and nobody else.
  const mode = await stat(place).then(
    (stats) => stats.mode & 0o777,
    () => undefined,
  );
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'wx', mode);
    if (mode !== undefined) await handle.chmod(mode);
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
    if (isSenetError(error) || !isError(error) || !('syscall' in error)) throw error;
    const code =
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'ERR_SENET_FILE_NOT_FOUND' : 'ERR_SENET_FILE';
    throw makeError(code, `${where}: ${file} could not be written: ${error.message}`, { cause: error });
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
    if (this.waiting >= TOGETHER) await this.flush();
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
