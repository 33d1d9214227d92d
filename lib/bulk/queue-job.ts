/** What a job of a queue is, and what it ends with. Knows no engine. */
import { createHash } from 'node:crypto';

import { makeError } from '../errors';
import { describe } from '../tensor/options';

/** What a job holds. */
export interface ImagesJob {
  /** Paths below the worker's root, or absolute ones in it. */
  readonly images: readonly string[];
  /** Labels of each image. Default 5. */
  readonly topK?: number;
}

/** What a job ends with. */
export interface JobResult {
  readonly rows: number;
  /** Rows with an error, by code. */
  readonly failed: Readonly<Record<string, number>>;
  /** Name of the part that has its rows. */
  readonly part: string;
}

/** Images of a job at most: its rows are one file, written at once. */
export const MOST_OF_JOB = 100_000;

/** Told by its images: the same list has the same digest. */
export function digestOf({ images, topK }: ImagesJob): string {
  return createHash('sha256')
    .update(JSON.stringify([images, topK ?? null]))
    .digest('hex')
    .slice(0, 12);
}

/** What somebody put into the queue, if it is a job of ours. @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE */
export function checkJob(data: unknown, id: string): ImagesJob {
  const { images, topK } = (data ?? {}) as Partial<ImagesJob>;
  const fits = Array.isArray(images) && images.every((image) => typeof image === 'string');
  if (!fits)
    throw makeError('ERR_SENET_ARG_TYPE', `job ${id}: expected { images: [paths] }, got ${describe(data)}`);
  if (images.length === 0 || images.length > MOST_OF_JOB)
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `job ${id}: expected 1 to ${MOST_OF_JOB} images, got ${images.length}`,
    );
  if (topK !== undefined && !(Number.isSafeInteger(topK) && topK >= 1))
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `job ${id}: topK: expected an integer of at least 1, got ${describe(topK)}`,
    );
  return { images, ...(topK === undefined ? {} : { topK }) };
}
