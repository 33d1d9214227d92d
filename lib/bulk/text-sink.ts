/**
 * Rows in one file of text. Whole records are what counts: what a process that died left behind its last line end is
 * cut off before the next row is written.
 */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';

import { fileError, makeError } from '../errors';
import { printable } from '../printable';
import { Tally, type RowSink } from './answers';
import type { ImageRow } from './classify-many';
import type { TextFormat } from './text-formats';

/** Read at a time. */
const CHUNK = 1024 * 1024;
/** Characters that wait to be written together. */
const TOGETHER = 64 * 1024;
/** Milliseconds that they wait. */
const PATIENCE = 250;
/** Bytes of a record; none of ours is so long. */
const LONGEST_RECORD = 16 * 1024 * 1024;

export class TextSink implements RowSink {
  readonly earlier = new Tally();
  readonly #file: string;
  readonly #label: string;
  readonly #format: TextFormat;
  #handle: FileHandle | undefined;
  /** Bytes that are whole records: the next is written here. */
  #end = 0;
  /** Whether the beginning of a row stands behind them. */
  #isTorn = false;
  /** Whether the file's header was read. */
  #headed = false;
  #waiting = '';
  #written = performance.now();

  private constructor(file: string, format: TextFormat) {
    this.#file = file;
    this.#label = printable(file, 1000);
    this.#format = format;
  }

  /**
   * Reads what is there. Changes nothing before the first row, but for what `overwrite` throws away.
   *
   * @throws (rejects) ERR_SENET_RESUME (the file holds something else), ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND (no folder)
   */
  static async open(file: string, format: TextFormat, overwrite: boolean): Promise<TextSink> {
    const sink = new TextSink(file, format);
    try {
      sink.#handle = await open(file, constants.O_RDWR).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      });
      if (overwrite) await sink.#handle?.truncate(0);
      if (sink.#handle !== undefined) await sink.#readEarlier(sink.#handle);
      return sink;
    } catch (error) {
      await sink.#handle?.close();
      throw fileError(sink.#label, error);
    }
  }

  async write(row: ImageRow): Promise<void> {
    this.#waiting += this.#format.write(row);
    const due = this.#waiting.length >= TOGETHER || performance.now() - this.#written >= PATIENCE;
    if (due) await this.#flush();
  }

  async sync(): Promise<void> {
    await this.#flush();
    await this.#asFileErrors(async () => this.#handle?.datasync());
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await this.#asFileErrors(async () => handle?.close());
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.from((this.#end === 0 ? this.#format.header : '') + this.#waiting);
    this.#waiting = '';
    await this.#asFileErrors(async () => {
      this.#handle ??= await open(this.#file, constants.O_RDWR | constants.O_CREAT);
      if (this.#isTorn) await this.#handle.truncate(this.#end);
      this.#isTorn = false;
      for (let done = 0; done < bytes.length;) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, this.#end + done);
        done += bytesWritten;
      }
    });
    this.#end += bytes.length;
    this.#written = performance.now();
  }

  async #readEarlier(handle: FileHandle): Promise<void> {
    if (!(await handle.stat()).isFile())
      throw makeError('ERR_SENET_FILE', `${this.#label}: expected a file that rows can be written to`);
    let rest: Buffer = Buffer.alloc(0);
    let looked = 0;
    for (let at = 0; ;) {
      const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK, at);
      if (bytesRead === 0) break;
      at += bytesRead;
      rest = Buffer.concat([rest, buffer.subarray(0, bytesRead)]);
      let start = 0;
      for (let end = rest.indexOf(10, looked); end >= 0; end = rest.indexOf(10, end + 1)) {
        const record = rest.toString('utf8', start, end);
        if (!this.#format.isWhole(record)) continue;
        this.#take(record);
        start = end + 1;
      }
      this.#end += start;
      rest = rest.subarray(start);
      looked = rest.length;
      if (rest.length > LONGEST_RECORD) this.#refuse('it has no line ends');
    }
    this.#checkTorn(rest);
    this.#isTorn = rest.length > 0;
  }

  #take(record: string): void {
    const { header, read } = this.#format;
    if (header !== '' && !this.#headed) {
      if (`${record}\n` !== header) this.#refuse('its first line is another');
      this.#headed = true;
      return;
    }
    try {
      const { file, code } = read(record);
      this.earlier.add(file, code);
    } catch (cause) {
      this.#refuse(`row ${this.earlier.rows + 1}: ${(cause as Error).message}`);
    }
  }

  /** Behind the last whole record stands the beginning of one, or zeros that a machine wrote which lost its power. */
  #checkTorn(rest: Buffer): void {
    const expected = this.#headed || this.#format.header === '' ? this.#format.begins : this.#format.header;
    const torn = rest.toString('utf8');
    if (this.#format.isForeign(torn)) this.#refuse('its end is no row');
    if (torn.startsWith(expected) || expected.startsWith(torn) || rest.every((byte) => byte === 0)) return;
    this.#refuse('its end is no beginning of a row');
  }

  #refuse(reason: string): never {
    throw makeError(
      'ERR_SENET_RESUME',
      `${this.#label}: expected rows of an earlier run, to go on after them: ${printable(reason, 300)}; { overwrite: true } throws it away`,
    );
  }

  async #asFileErrors<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      throw fileError(this.#label, cause);
    }
  }
}
