/** A row as a table has it: the same columns in CSV and in Parquet. */
import { errorRecord } from '../errors';
import type { ImageRow } from './classify-many';

export interface Column {
  readonly name: string;
  readonly type: 'integer' | 'number' | 'text';
  readonly of: (row: ImageRow) => number | string | null;
}

/** Labels stand beside each other, the best first; those that an image does not have are empty. */
export function columnsFor(labels: number): readonly Column[] {
  const columns: Column[] = [
    { name: 'index', type: 'integer', of: ({ index }) => index },
    { name: 'file', type: 'text', of: ({ file }) => file },
    { name: 'error', type: 'text', of: ({ error }) => (error === null ? null : errorRecord(error).code) },
    { name: 'message', type: 'text', of: ({ error }) => error?.message ?? null },
  ];
  for (let place = 0; place < labels; place++) {
    columns.push(
      { name: `label_${place + 1}`, type: 'text', of: ({ labels }) => labels?.[place]?.label ?? null },
      { name: `class_${place + 1}`, type: 'integer', of: ({ labels }) => labels?.[place]?.index ?? null },
      { name: `score_${place + 1}`, type: 'number', of: ({ labels }) => labels?.[place]?.score ?? null },
    );
  }
  return columns;
}
