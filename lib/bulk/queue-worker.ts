/**
 * `startQueueWorker`: takes jobs from a queue, answers their images, writes a part for each, until it is told to end. A
 * worker that dies loses nothing: the engine gives its jobs to others.
 */
import { realpath, stat } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';

import type { Worker } from 'bullmq';

import { fileError, isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { anySignal, onAbort, throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import {
  fn,
  integer,
  optional,
  orElse,
  readOptions,
  required,
  signal,
  string,
  type Rules,
} from '../tensor/rules';
import { checkClassifier } from '../vision/check-classifier';
import type { ImageClassifier } from '../vision/image-classifier';
import { MANY } from './classify-many';
import { answerJob } from './job-part';
import { bullmq, connect, queueError, queueName, type JobsQueue, type QueueJob, type Server } from './queue';
import { checkJob, type JobResult } from './queue-job';
import { WorkerMetrics } from './worker-metrics';

export interface QueueWorkerOptions {
  /** Folder in which each job gets a file of JSON lines. */
  output: string;
  /** Folder that images may lie in, and that relative paths are of. Default the present folder. */
  root?: string;
  /** Name of the queue. Default 'senet-torch'. */
  name?: string;
  /** Jobs at the same time. Default 2: while one ends, the network has work of the other. */
  concurrency?: number;
  /** Images of each job that are under way. Default 64, as of `classifyMany`. */
  inFlight?: number;
  /**
   * Seconds after which the jobs of a worker that died are given to another. Default 30. Living workers renew their claim
   * twice as often; work never holds that up.
   */
  lockSeconds?: number;
  /**
   * How many workers may die on one job before it counts as failed: it may be what kills them. Default 10.
   */
  maxDeaths?: number;
  /** Called when a job has ended well. */
  onJob?: (job: { id: string; seconds: number } & JobResult) => void;
  /** Called with what goes wrong and does not end the worker: a job that failed, a server that is away. */
  onError?: (error: Error) => void;
  /** Takes no further job and waits for those that run, as `close`. */
  signal?: AbortSignal;
}

/** A worker that `startQueueWorker` has started. */
export interface QueueWorker {
  /** Whether it takes jobs: it is connected, and nobody has told it to end. */
  readonly ready: boolean;
  /** What was done and what waits, in Prometheus' text. */
  metrics(): Promise<string>;
  /**
   * Settles when the queue has no job that waits or runs, on any worker: what failed for good is not waited for.
   *
   * @throws (rejects) ERR_SENET_ABORTED when the worker is closed before, ERR_SENET_QUEUE (the server refuses to tell)
   */
  untilEmpty(): Promise<void>;
  /** Takes no further job, and settles when those that run have ended and their parts are written. */
  close(): Promise<void>;
  /** Ends what runs without its answers; the queue gives the jobs to others. */
  abandon(): Promise<void>;
}

const RULES = {
  output: required(string),
  root: orElse('.', string),
  name: queueName,
  concurrency: orElse(2, integer(1, 100)),
  inFlight: MANY.inFlight,
  lockSeconds: orElse(30, integer(1, 86_400)),
  maxDeaths: orElse(10, integer(0, 1_000_000)),
  onJob: optional(fn<(job: { id: string; seconds: number } & JobResult) => void>()),
  onError: optional(fn<(error: Error) => void>()),
  signal,
} satisfies Rules<QueueWorkerOptions>;

/** Milliseconds between two notes of a job's progress, between two looks at what is left. */
const PROGRESS = 1000;
const LOOK = 500;
/** That a worker which is to end waits for a server that is away. */
const PATIENCE = 5000;

/**
 * Starts a worker on jobs that `enqueueImages` or whoever else has put into a queue (`{ images: [paths], topK? }`). Each
 * job's rows, keyed by job and index, are one file of the output that appears whole, so that the files together have
 * each row once, however often workers die.
 *
 * @param queue - redis://HOST:PORT
 * @throws (rejects) ERR_SENET_PEER_MISSING (bullmq, ioredis), ERR_SENET_QUEUE (no connection), ERR_SENET_FILE_NOT_FOUND,
 *   ERR_SENET_FILE (no such folder), ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE,
 *   ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED
 */
export async function startQueueWorker(
  classifier: ImageClassifier,
  queue: string,
  options: QueueWorkerOptions,
): Promise<QueueWorker> {
  const where = 'startQueueWorker';
  const checked = readOptions(options, RULES, where);
  checkClassifier(classifier, `${where}: classifier`);
  checkString(queue, `${where}: queue`);
  throwIfAborted(checked.signal);
  const root = await folderOf(checked.root, `${where}: root`);
  const output = await folderOf(checked.output, `${where}: output`);
  const { Queue, Worker } = bullmq();
  const server = await connect(queue, where);
  try {
    const jobs: JobsQueue = new Queue(checked.name, { connection: server.connection });
    return new RunningWorker({ ...checked, classifier, root, output, server, jobs, Worker });
  } catch (error) {
    server.end();
    throw error;
  }
}

async function folderOf(place: string, what: string): Promise<string> {
  const label = `${what}: ${printable(place, 1000)}`;
  try {
    const real = await realpath(place);
    if ((await stat(real)).isDirectory()) return real;
  } catch (cause) {
    throw fileError(label, cause, 'no such folder');
  }
  throw makeError('ERR_SENET_FILE', `${label}: expected a folder`);
}

type Started = ReturnType<typeof readOptions<QueueWorkerOptions, typeof RULES>> & {
  readonly classifier: ImageClassifier;
  readonly server: Server;
  readonly jobs: JobsQueue;
  readonly Worker: typeof Worker;
};

/** Not exported: its types are those of BullMQ, which not everybody has. */
class RunningWorker implements QueueWorker {
  readonly #options: Started;
  readonly #worker: Worker;
  readonly #metrics = new WorkerMetrics();
  /** Aborts what runs, where nobody wants to wait for it. */
  readonly #stop = new AbortController();
  #closing: Promise<void> | undefined;
  #unlisten: () => void = () => undefined;

  constructor(options: Started) {
    this.#options = options;
    const { name, concurrency, server, lockSeconds, maxDeaths, signal } = options;
    this.#worker = new options.Worker(name, (job: QueueJob) => this.#answer(job), {
      ...{ connection: server.connection, concurrency, maxStalledCount: maxDeaths },
      lockDuration: 1000 * lockSeconds,
      stalledInterval: 1000 * lockSeconds,
    }) as Worker;
    for (const part of [this.#worker, options.jobs])
      (part as Worker).on('error', (error) => options.onError?.(error));
    this.#worker.on('failed', (job, error) => {
      this.#metrics.ended('failed');
      options.onError?.(
        makeError('ERR_SENET_QUEUE', `job ${job?.id ?? ''}: ${error.message}`, { cause: error }),
      );
    });
    this.#worker.on('completed', () => this.#metrics.ended('completed'));
    this.#worker.on('stalled', () => this.#metrics.ended('stalled'));
    // Whoever closes it sees what goes wrong; `onError` else.
    const end = (): void => void this.close().catch((error: unknown) => options.onError?.(error as Error));
    if (signal !== undefined) this.#unlisten = onAbort(signal, end);
    if (signal?.aborted === true) end();
  }

  get ready(): boolean {
    return this.#closing === undefined && this.#options.server.isThere;
  }

  async metrics(): Promise<string> {
    const counts = this.ready ? await this.#options.jobs.getJobCounts().catch(() => ({})) : {};
    return this.#metrics.text(counts, this.ready);
  }

  async untilEmpty(): Promise<void> {
    const { jobs } = this.#options;
    for (;;) {
      this.#throwIfClosing();
      const {
        waiting = 0,
        active = 0,
        delayed = 0,
        prioritized = 0,
      } = await jobs.getJobCounts().catch((cause: unknown) => {
        this.#throwIfClosing();
        throw queueError('untilEmpty', cause);
      });
      if (waiting + active + delayed + prioritized === 0) return;
      await setTimeout(LOOK);
    }
  }

  #throwIfClosing(): void {
    if (this.#closing !== undefined)
      throw makeError('ERR_SENET_ABORTED', 'the worker was closed before the queue was empty');
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async abandon(): Promise<void> {
    this.#stop.abort(new Error('the worker was told to end'));
    await this.close();
  }

  async #close(): Promise<void> {
    const { jobs, server } = this.#options;
    this.#unlisten();
    const over = new AbortController();
    const closed = this.#worker.close().then(() => jobs.close());
    try {
      await Promise.race([closed, this.#untilAlone(over.signal)]);
    } finally {
      over.abort();
      server.end();
      closed.catch(() => undefined); // of a server that is away
    }
  }

  /** Settles when nothing runs here and the server has been away for a while; or with the signal. */
  async #untilAlone(over: AbortSignal): Promise<void> {
    for (let alone = 0; alone < PATIENCE && !over.aborted;) {
      await setTimeout(LOOK, undefined, { signal: over }).catch(() => undefined);
      const isAway = !this.#options.server.isThere && this.#metrics.running === 0;
      alone = isAway ? alone + LOOK : 0;
    }
  }

  async #answer(job: QueueJob): Promise<JobResult> {
    const { UnrecoverableError } = bullmq();
    const { classifier, root, output, inFlight, onJob } = this.#options;
    const id = job.id ?? '';
    const began = performance.now();
    this.#metrics.running++;
    const { signal, stop } = anySignal([this.#stop.signal]);
    let told = began;
    try {
      const data = checkJob(job.data, id);
      const onRow = (done: number, code: string | null): void => {
        this.#metrics.image(code);
        const now = performance.now();
        if (now - told < PROGRESS) return;
        told = now;
        // Of the notes none is missed.
        job.updateProgress({ done, total: data.images.length }).catch(() => undefined);
      };
      const result = await answerJob(classifier, id, data, { ...{ output, root, inFlight, signal, onRow } });
      onJob?.({ id, seconds: (performance.now() - began) / 1000, ...result });
      return result;
    } catch (error) {
      // What is no job does not become one.
      if (isSenetError(error) && /^ERR_SENET_ARG_/.test(error.code))
        throw new UnrecoverableError(error.message);
      throw error;
    } finally {
      stop();
      this.#metrics.running--;
    }
  }
}
