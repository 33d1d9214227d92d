/**
 * `classifyToFile`: the answers to a list of images in a file, whatever happens on the way. A run that was interrupted or
 * killed goes on where its whole rows end, after it has made sure that they are of the same images and the same network.
 */
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { clearInterval, setInterval } from 'node:timers';
import { setTimeout } from 'node:timers/promises';

import { fileError, isSenetError, makeError } from '../errors';
import { tryLock, type HeldLock } from '../hub/lock';
import { printable } from '../printable';
import { anySignal, throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import { boolean, fn, optional, orElse, readOptions, string, type Rules } from '../tensor/rules';
import { checkClassifier } from '../vision/check-classifier';
import type { ImageClassifier } from '../vision/image-classifier';
import { Tally, type RowSink } from './answers';
import { answersTo, MANY, type ClassifyManyOptions } from './classify-many';
import { checkImages, selectImages, type ManyImages, type SelectedImage, type Shard } from './image-list';
import { ImageListing } from './list-images';
import { RunRecord } from './run-record';
import { checkShard } from './shard';
import { csv, JSON_LINES } from './text-formats';
import { TextSink } from './text-sink';

export interface ClassifyToFileOptions extends ClassifyManyOptions {
  /** Answers one of several parts of the list alone: '3/8', or `{ number: 3, of: 8 }`. Each has its own output. */
  shard?: string | Shard;
  /** Throws away what is there. Default false: goes on after it. */
  overwrite?: boolean;
  /** Which network answers, in words: a run goes on only with the same. Default: what the classifier says of itself. */
  network?: string;
  /** Called now and then, and at the end. */
  onProgress?: (progress: ManyProgress) => void;
}

export interface ManyProgress {
  /** Rows that are written, earlier runs' too. */
  readonly done: number;
  /** Of them with an error. */
  readonly failed: number;
  /** Rows that there will be; null where nobody knows. */
  readonly total: number | null;
  /** Of this run. */
  readonly imagesPerSecond: number;
  readonly secondsLeft: number | null;
}

export interface ManyReport {
  readonly output: string;
  /** All that are in the output. */
  readonly rows: number;
  /** Of them from earlier runs. */
  readonly earlier: number;
  /** Rows with an error, by code. */
  readonly failed: Readonly<Record<string, number>>;
  /** Of this run. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
  /** Share of this run's time in which a batch was in the network, sampled. */
  readonly networkShare: number;
}

const RULES = {
  ...MANY,
  shard: optional(checkShard),
  overwrite: orElse(false, boolean),
  network: optional(string),
  onProgress: optional(fn<(progress: ManyProgress) => void>()),
} satisfies Rules<ClassifyToFileOptions>;

/** Milliseconds between two calls of `onProgress`, between two looks at the network, between two looks at a lock. */
const PROGRESS = 100;
const LOOK = 10;
const LOCK_POLL = 200;
/** Of waiting for another process, which may be ending. */
const LOCK_TIMEOUT = 20_000;
/** Between two writes to the disk that the system may not put off. */
const SYNC = 10_000;

/**
 * Classifies images and writes a row for each, in their order: `.jsonl` (a JSON object in each line), `.csv`, or
 * `.parquet` (a folder of parts). What an earlier run has written stays, and the run goes on after it: the images must
 * begin with the same names, and network and options must be the same. Beside the output `OUTPUT.run.json` notes them.
 *
 * @param output - where to; by its ending
 * @returns what is in the output now
 * @throws (rejects) ERR_SENET_RESUME (what is there is of another run); ERR_SENET_LOCKED (another process writes it);
 *   ERR_SENET_PEER_MISSING (Parquet); ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND; ERR_SENET_ABORTED, when rows that were
 *   ready are written; and as `classifyMany`
 */
export async function classifyToFile(
  classifier: ImageClassifier,
  images: ManyImages,
  output: string,
  options?: ClassifyToFileOptions,
): Promise<ManyReport> {
  const where = 'classifyToFile';
  const checked = readOptions(options, RULES, where);
  checkClassifier(classifier, `${where}: classifier`);
  checkImages(images, where);
  checkString(output, `${where}: output`);
  const { topK, shard, overwrite, network, signal } = checked;
  throwIfAborted(signal);
  const columns = classifier.labels.length === 0 ? topK : Math.min(topK, classifier.labels.length);
  const lock = await takeLock(output, signal);
  try {
    const sink = await openSink(output, columns, overwrite, where);
    const { signal: ending, stop } = anySignal([signal, lock.lost]);
    try {
      const { labels, preprocessing } = classifier;
      const record = new RunRecord(output, { topK: columns, shard, labels, preprocessing, network });
      if (sink.earlier.rows > 0) await record.check();
      else await record.write();
      const run = new Run(classifier, sink, images, checked);
      const report = { output, ...(await run.rows(ending)) };
      await sink.close(); // with its last rows, or there is nothing to report
      await record.write(report);
      return report;
    } catch (error) {
      if (isSenetError(lock.lost.reason) && !(signal?.aborted === true)) throw lock.lost.reason;
      throw error;
    } finally {
      stop();
      await sink.close();
    }
  } finally {
    await lock.release();
  }
}

/** @throws (rejects) ERR_SENET_LOCKED, ERR_SENET_FILE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_ABORTED */
async function takeLock(output: string, signal: AbortSignal | undefined): Promise<HeldLock> {
  const label = printable(output, 1000);
  const began = performance.now();
  for (;;) {
    throwIfAborted(signal);
    const lock = await tryLock(output).catch((cause: unknown) => {
      throw fileError(label, cause, 'no such folder');
    });
    if (lock !== null) return lock;
    if (performance.now() - began > LOCK_TIMEOUT)
      throw makeError('ERR_SENET_LOCKED', `${label}: another process writes it (${label}.lock)`);
    await setTimeout(LOCK_POLL);
  }
}

/** @throws (rejects) ERR_SENET_ARG_RANGE (an ending that is none of these), and as opening throws */
async function openSink(
  output: string,
  columns: number,
  overwrite: boolean,
  where: string,
): Promise<RowSink> {
  switch (path.extname(output).toLowerCase()) {
    case '.jsonl':
    case '.ndjson':
      return TextSink.open(output, JSON_LINES, overwrite);
    case '.csv':
      return TextSink.open(output, csv(columns), overwrite);
    case '.parquet': {
      // eslint-disable-next-line @typescript-eslint/no-require-imports -- only who writes Parquet needs it
      const { ParquetSink } = require('./parquet-sink') as typeof import('./parquet-sink');
      return ParquetSink.open(output, columns, overwrite);
    }
    default:
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: output: expected a path that ends in .jsonl, .ndjson, .csv or .parquet, got '${output}'`,
      );
  }
}

/** One run: the rows that are missing, and what there is to say of them. */
class Run {
  readonly #began = performance.now();
  readonly #tally: Tally;
  readonly #earlier: number;
  #samples = 0;
  #busy = 0;

  constructor(
    readonly classifier: ImageClassifier,
    readonly sink: RowSink,
    readonly images: ManyImages,
    readonly options: ReturnType<typeof readOptions<ClassifyToFileOptions, typeof RULES>>,
  ) {
    this.#tally = sink.earlier;
    this.#earlier = sink.earlier.rows;
  }

  async rows(signal: AbortSignal): Promise<Omit<ManyReport, 'output'>> {
    const { shard, topK, inFlight, onProgress } = this.options;
    const list = selectImages(this.images, { shard, skip: this.#earlier });
    const look = setInterval(() => this.#look(), LOOK).unref();
    let [told, synced] = [this.#began, this.#began];
    try {
      await this.#skip(list, signal);
      try {
        for await (const row of answersTo(this.classifier, list, { topK, inFlight, signal })) {
          await this.sink.write(row);
          this.#tally.add(row.file, row.error?.code ?? null);
          const now = performance.now();
          if (now - told > PROGRESS) {
            told = now;
            onProgress?.(this.#progress());
          }
          if (now - synced > SYNC) {
            synced = now;
            await this.sink.sync();
          }
        }
        onProgress?.(this.#progress());
      } finally {
        // What is ready is not lost, whatever ended the run.
        await this.sink.sync();
      }
    } finally {
      clearInterval(look);
      await list.return(undefined);
    }
    return this.#report();
  }

  /** Makes sure that what is there is of the images at the beginning of the list. */
  async #skip(list: AsyncIterator<SelectedImage>, signal: AbortSignal): Promise<void> {
    const names = new Tally();
    while (names.rows < this.#earlier) {
      throwIfAborted(signal);
      const next = await list.next();
      if (next.done === true) break;
      names.add(next.value.file, null);
    }
    if (names.digest() === this.#tally.digest()) return;
    const found =
      names.rows < this.#earlier ? `the list has only ${names.rows}` : `there the list has '${names.file}'`;
    throw makeError(
      'ERR_SENET_RESUME',
      `the output has rows of ${this.#earlier} images, the last of '${this.#tally.file}', and the list does not begin with them (${found}): files came, went or have another order. { overwrite: true } answers all anew`,
    );
  }

  #look(): void {
    this.#samples++;
    if (this.classifier.queue.running > 0) this.#busy++;
  }

  #failed(): number {
    let failed = 0;
    for (const count of this.#tally.failed.values()) failed += count;
    return failed;
  }

  #speed(): { seconds: number; imagesPerSecond: number } {
    const seconds = (performance.now() - this.#began) / 1000;
    return { seconds, imagesPerSecond: (this.#tally.rows - this.#earlier) / Math.max(seconds, 1e-9) };
  }

  #progress(): ManyProgress {
    const done = this.#tally.rows;
    const { imagesPerSecond } = this.#speed();
    const total = this.#total();
    const left = total === null || imagesPerSecond === 0 ? null : Math.max(0, total - done) / imagesPerSecond;
    return { done, failed: this.#failed(), total, imagesPerSecond, secondsLeft: left };
  }

  #total(): number | null {
    const { images, options } = this;
    const all =
      images instanceof ImageListing ? images.expected : Array.isArray(images) ? images.length : null;
    if (all === null || options.shard === undefined) return all;
    const { number, of } = options.shard;
    return Math.max(0, Math.ceil((all - number + 1) / of));
  }

  #report(): Omit<ManyReport, 'output'> {
    return {
      rows: this.#tally.rows,
      earlier: this.#earlier,
      failed: Object.fromEntries(this.#tally.failed),
      ...this.#speed(),
      networkShare: this.#busy / Math.max(1, this.#samples),
    };
  }
}
