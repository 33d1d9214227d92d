/**
 * One job's rows as one file that appears whole, named by the job: however often a job is done, and by how many workers
 * at the same time, its rows are there once.
 */
import { createHash } from 'node:crypto';
import { readFile, realpath } from 'node:fs/promises';
import path from 'node:path';

import { writeAtomically } from '../checkpoint/atomic-file';
import { fileError, makeError } from '../errors';
import { printable } from '../printable';
import type { ImageClassifier } from '../vision/image-classifier';
import { Tally } from './answers';
import { answersTo } from './classify-many';
import { selectImages, type NamedImage } from './image-list';
import { digestOf, type ImagesJob, type JobResult } from './queue-job';
import { jsonRow } from './text-formats';

export interface JobPartOptions {
  /** Folder of the parts. */
  readonly output: string;
  /** Folder that images may lie in; its real path. */
  readonly root: string;
  readonly inFlight: number;
  readonly signal: AbortSignal | undefined;
  /** Called after each row. */
  readonly onRow: (done: number, code: string | null) => void;
}

/** A longer name of a file would be refused. */
const LONGEST_NAME = 180;

/** Letters that every file system takes, told apart from every other job's. */
export function partName(id: string, job: ImagesJob): string {
  const digest = digestOf(job);
  const whole = id.endsWith(digest) ? id : `${id}-${digest}`;
  const name = encodeURIComponent(whole).replaceAll('*', '%2A');
  if (name.length <= LONGEST_NAME && !name.startsWith('.')) return `${name}.jsonl`;
  return `${createHash('sha256').update(whole).digest('hex')}.jsonl`;
}

/** @throws (rejects) ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND (the output), ERR_SENET_ABORTED, and as `classifyMany` */
export async function answerJob(
  classifier: ImageClassifier,
  id: string,
  job: ImagesJob,
  { output, root, inFlight, signal, onRow }: JobPartOptions,
): Promise<JobResult> {
  const part = partName(id, job);
  const place = path.join(output, part);
  const earlier = await readPart(place);
  // It was done, and the worker died before the queue knew.
  if (earlier !== null) return { ...earlier, part };
  const tally = new Tally();
  const lines: string[] = [];
  const list = selectImages(imagesIn(job, root), {});
  for await (const row of answersTo(classifier, list, { topK: job.topK ?? 5, inFlight, signal })) {
    const code = row.error?.code ?? null;
    tally.add(row.file, code);
    lines.push(`${JSON.stringify({ job: id, ...jsonRow(row) })}\n`);
    onRow(tally.rows, code);
  }
  await writeAtomically(
    place,
    async (sink) => {
      for (const line of lines) await sink.write(Buffer.from(line));
    },
    'worker',
  );
  return { rows: tally.rows, failed: Object.fromEntries(tally.failed), part };
}

async function readPart(place: string): Promise<Omit<JobResult, 'part'> | null> {
  let text: string;
  try {
    text = await readFile(place, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw fileError(printable(place, 1000), cause);
  }
  const tally = new Tally();
  for (const line of text.trimEnd().split('\n')) {
    const { file, error } = JSON.parse(line) as { file: string; error?: { code: string } };
    tally.add(file, error?.code ?? null);
  }
  return { rows: tally.rows, failed: Object.fromEntries(tally.failed) };
}

/** The queue says which files are opened: only those below the root, by their real places. */
function* imagesIn({ images }: ImagesJob, root: string): Generator<NamedImage> {
  for (const file of images) yield { file, image: () => placeIn(root, file) };
}

async function placeIn(root: string, file: string): Promise<string> {
  const label = printable(file, 1000);
  if (file.includes('\0')) throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: expected a path`);
  const place = await realpath(path.resolve(root, file)).catch((cause: unknown) => {
    throw fileError(label, cause, 'no such file');
  });
  if (place.startsWith(root.endsWith(path.sep) ? root : root + path.sep)) return place;
  throw makeError('ERR_SENET_FILE', `${label}: outside of the folder that this worker reads`);
}
