/**
 * Rows as Parquet: a folder of parts, each a file that appears whole. What is not in a part when a process dies is
 * answered again; a run that ends or is interrupted ends its part. Written with hyparquet-writer, read back with
 * hyparquet.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';

import type * as Reader from 'hyparquet' with { 'resolution-mode': 'import' };
import type * as Writer from 'hyparquet-writer' with { 'resolution-mode': 'import' };

import { writeAtomically } from '../checkpoint/atomic-file';
import { fileError, isSenetError, makeError } from '../errors';
import { requirePeer } from '../peer';
import { printable } from '../printable';
import { Tally, type RowSink } from './answers';
import type { ImageRow } from './classify-many';
import { columnsFor, type Column } from './columns';

/** Rows are held in memory until their part is full. */
const ROWS_OF_PART = 10_000;
const PART = /^part-(\d{5,})\.parquet$/;
/** What a process that died was writing. */
const UNFINISHED = /^\.part-\d+\.parquet\.[0-9a-f]+\.tmp$/;

export class ParquetSink implements RowSink {
  readonly earlier = new Tally();
  readonly #folder: string;
  readonly #label: string;
  readonly #columns: readonly Column[];
  readonly #writer: typeof Writer;
  readonly #reader: typeof Reader;
  #rows: ImageRow[] = [];
  #parts = 0;

  private constructor(folder: string, labels: number) {
    this.#folder = folder;
    this.#label = printable(folder, 1000);
    this.#columns = columnsFor(labels);
    this.#writer = requirePeer<typeof Writer>('hyparquet-writer', 'output as Parquet');
    this.#reader = requirePeer<typeof Reader>('hyparquet', 'output as Parquet');
  }

  /**
   * @param labels - of each row
   * @throws (rejects) ERR_SENET_PEER_MISSING; ERR_SENET_RESUME (the folder holds something else), ERR_SENET_FILE,
   *   ERR_SENET_FILE_NOT_FOUND (no folder to make it in)
   */
  static async open(folder: string, labels: number, overwrite: boolean): Promise<ParquetSink> {
    const sink = new ParquetSink(folder, labels);
    try {
      await mkdir(folder).catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      });
      await sink.#readEarlier(overwrite);
      return sink;
    } catch (error) {
      throw fileError(sink.#label, error);
    }
  }

  async write(row: ImageRow): Promise<void> {
    this.#rows.push(row);
    if (this.#rows.length >= ROWS_OF_PART) await this.#endPart();
  }

  async sync(): Promise<void> {
    // A part for each time that somebody wants to be sure would be a heap of small files.
  }

  async close(): Promise<void> {
    await this.#endPart();
  }

  async #endPart(): Promise<void> {
    if (this.#rows.length === 0) return;
    const rows = this.#rows;
    this.#rows = [];
    const bytes = this.#writer.parquetWriteBuffer({
      columnData: this.#columns.map(({ name, type, of }) => ({
        ...{ name, data: rows.map(of), nullable: true },
        type: ({ integer: 'INT32', number: 'DOUBLE', text: 'STRING' } as const)[type],
      })),
    });
    const file = path.join(this.#folder, nameOf(this.#parts));
    await writeAtomically(file, (sink) => sink.write(new Uint8Array(bytes)), 'classifyToFile');
    this.#parts++;
  }

  async #readEarlier(overwrite: boolean): Promise<void> {
    const names = await readdir(this.#folder);
    const parts = names.filter((name) => PART.test(name)).sort();
    const foreign = names.find((name) => !PART.test(name) && !name.startsWith('.'));
    if (foreign !== undefined) this.#refuse(`it holds '${printable(foreign)}'`);
    const unwanted = [...names.filter((name) => UNFINISHED.test(name)), ...(overwrite ? parts : [])];
    for (const name of unwanted) await rm(path.join(this.#folder, name));
    if (overwrite) return;
    for (const name of parts) {
      if (name !== nameOf(this.#parts)) this.#refuse(`after ${this.#parts} parts there is ${name}`);
      await this.#readPart(name);
      this.#parts++;
    }
  }

  async #readPart(name: string): Promise<void> {
    const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects, parquetSchema } = this.#reader;
    const place = path.join(this.#folder, name);
    try {
      const file = await asyncBufferFromFile(place);
      const metadata = await parquetMetadataAsync(file);
      const found = parquetSchema(metadata).children.map(({ element }) => element.name);
      if (found.join() !== this.#columns.map((column) => column.name).join())
        this.#refuse(`${name} has other columns`);
      const rows = await parquetReadObjects({ file, metadata, columns: ['file', 'error'] });
      for (const { file: image, error } of rows as { file: string; error?: string | null }[])
        this.earlier.add(image, error ?? null);
    } catch (cause) {
      if (isSenetError(cause)) throw cause;
      this.#refuse(`${name}: ${(cause as Error).message}`);
    }
  }

  #refuse(reason: string): never {
    throw makeError(
      'ERR_SENET_RESUME',
      `${this.#label}: expected parts of an earlier run, to go on after them: ${printable(reason, 300)}; { overwrite: true } throws them away`,
    );
  }
}

function nameOf(part: number): string {
  return `part-${String(part).padStart(5, '0')}.parquet`;
}
