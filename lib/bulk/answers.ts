/** What is known of rows that were written by an earlier run, and what every kind of output is to the writer. */
import { createHash } from 'node:crypto';

import type { ImageRow } from './classify-many';

/** Counts of rows, and which images they are of. */
export class Tally {
  rows = 0;
  /** Rows with an error, by code. */
  readonly failed = new Map<string, number>();
  /** Of the last row. */
  file: string | null = null;
  readonly #names = createHash('sha256');

  /** @param code - of the error, or null */
  add(file: string, code: string | null): void {
    this.rows++;
    this.file = file;
    if (code !== null) this.failed.set(code, (this.failed.get(code) ?? 0) + 1);
    // JSON: no name can look like two.
    this.#names.update(JSON.stringify(file));
  }

  /** The same for the same names in the same order. Later rows count on. */
  digest(): string {
    return this.#names.copy().digest('hex');
  }
}

/** Where rows go. What was written before `sync` ends is there whatever happens to the process. */
export interface RowSink {
  /** Rows that are there already, whole. */
  readonly earlier: Tally;
  write(row: ImageRow): Promise<void>;
  /** To the disk; a kind that writes in parts ends the present one. */
  sync(): Promise<void>;
  /** After the last row, or after what went wrong. */
  close(): Promise<void>;
}
