/** Rows as text: lines of JSON, and CSV (RFC 4180). How they are written and read back; knows no file. */
import { errorRecord } from '../errors';
import type { ImageRow } from './classify-many';
import { columnsFor } from './columns';

export interface TextFormat {
  /** What every file begins with, a whole record. */
  readonly header: string;
  /** What each record begins with. */
  readonly begins: string;
  /** One record with its end. */
  readonly write: (row: ImageRow) => string;
  /** Whether a line end may end the record. */
  readonly isWhole: (record: string) => boolean;
  /** Whether what has no line end is whole all the same, and nothing that was written here. */
  readonly isForeign: (torn: string) => boolean;
  /** What a record without its end says; throws for what was not written here. */
  readonly read: (record: string) => RowFacts;
}

export interface RowFacts {
  readonly file: string;
  /** Of its error. */
  readonly code: string | null;
}

/** A row as JSON has it, everywhere. */
export function jsonRow({ index, file, labels, error }: ImageRow): object {
  return labels === null ? { index, file, error: errorRecord(error) } : { index, file, labels };
}

export const JSON_LINES: TextFormat = {
  header: '',
  begins: '{"index":',
  write: (row) => `${JSON.stringify(jsonRow(row))}\n`,
  isWhole: () => true,
  isForeign: (torn) => {
    let value: { file?: unknown };
    try {
      value = JSON.parse(torn) as typeof value;
    } catch {
      return false;
    }
    return typeof value.file !== 'string';
  },
  read: readJson,
};

function readJson(record: string): RowFacts {
  const { file, error } = JSON.parse(record) as { file?: unknown; error?: { code?: unknown } };
  if (typeof file !== 'string') throw new Error('it names no file');
  return { file, code: error === undefined ? null : String(error.code) };
}

/** @param labels - of each row */
export function csv(labels: number): TextFormat {
  const columns = columnsFor(labels);
  const place = (name: string): number => columns.findIndex((column) => column.name === name);
  const [file, error] = [place('file'), place('error')];
  return {
    header: `${columns.map(({ name }) => name).join(',')}\n`,
    begins: '',
    write: (row) => `${columns.map((column) => field(column.of(row))).join(',')}\n`,
    // Line ends inside quotes belong to a field.
    isWhole: (record) => (record.split('"').length - 1) % 2 === 0,
    isForeign: () => false,
    read: (record) => {
      const fields = fieldsOf(record);
      if (fields.length !== columns.length || !/^\d+$/.test(fields[0] ?? ''))
        throw new Error(`expected ${columns.length} fields, the first a number`);
      return { file: fields[file] ?? '', code: fields[error] || null };
    },
  };
}

function field(value: number | string | null): string {
  const text = String(value ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function fieldsOf(record: string): string[] {
  const fields: string[] = [];
  for (const [, quoted, plain] of record.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,"]*))(?=,|$)/g))
    fields.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
  return fields;
}
