/** `enqueueImages`: a list of images as jobs of a queue. */
import { makeError } from '../errors';
import { onAbort, throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import { integer, matching, optional, orElse, readOptions, signal, type Rules } from '../tensor/rules';
import { checkImages, selectImages, type ManyImages } from './image-list';
import { bullmq, connect, JOB_NAME, queueError, queueName, type JobsQueue } from './queue';
import { digestOf, MOST_OF_JOB, type ImagesJob } from './queue-job';

export interface EnqueueOptions {
  /** Name of the queue. Default 'senet-torch'. */
  name?: string;
  /** Images of a job, 1 to 100,000. Default 500: some seconds to a minute of work. */
  jobSize?: number;
  /** Labels of each image. Default 5. */
  topK?: number;
  /** What the jobs, and the parts of the output, are called by; another for the same images once more. Default 'images'. */
  run?: string;
  /** How often a job is tried whose worker failed. Default 5. */
  attempts?: number;
  signal?: AbortSignal;
}

export interface Enqueued {
  readonly jobs: number;
  readonly images: number;
}

/** Letters that BullMQ, Redis and every file system take. */
const RUN = /^[\w.-]{1,100}$/;
/** Jobs that go to Redis together. */
const TOGETHER = 50;
/** Seconds that jobs are known after their end, so that enqueuing the same again does nothing. */
const REMEMBERED = 7 * 86_400;

const RULES = {
  name: queueName,
  jobSize: orElse(500, integer(1, MOST_OF_JOB)),
  topK: optional(integer(1)),
  run: orElse(
    'images',
    matching<string>('letters, digits, . _ -', (given) => RUN.test(String(given)), 'ERR_SENET_ARG_RANGE'),
  ),
  attempts: orElse(5, integer(1)),
  signal,
} satisfies Rules<EnqueueOptions>;

/**
 * Puts images into a queue, as jobs of lists of paths. Jobs are named by their run, place and images: to enqueue the same
 * list again, after an interruption, adds what is missing and nothing twice.
 *
 * @param queue - redis://HOST:PORT
 * @param images - paths, as `listImages` gives them of folders, globs and lists; the workers must see them under the same
 *   paths
 * @throws (rejects) ERR_SENET_PEER_MISSING (bullmq, ioredis), ERR_SENET_QUEUE (no connection, or a server that takes no jobs), ERR_SENET_ARG_TYPE (an
 *   image that has no path), ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED, and what the list throws
 */
export async function enqueueImages(
  queue: string,
  images: ManyImages,
  options?: EnqueueOptions,
): Promise<Enqueued> {
  const where = 'enqueueImages';
  const { name, jobSize, topK, run, attempts, signal } = readOptions(options, RULES, where);
  checkString(queue, `${where}: queue`);
  checkImages(images, where);
  throwIfAborted(signal);
  const { Queue } = bullmq();
  const server = await connect(queue, where);
  // Whoever aborts does not wait for a server that is away.
  const stop = signal === undefined ? () => undefined : onAbort(signal, () => server.end());
  const done = { jobs: 0, images: 0 };
  let jobs: JobsQueue | undefined;
  try {
    jobs = new Queue(name, { connection: server.connection });
    // Without a listener it is printed; what goes wrong rejects what waits for it.
    jobs.on('error', () => undefined);
    const remembered = { age: REMEMBERED };
    const opts = {
      attempts,
      backoff: { type: 'exponential', delay: 1000 },
      ...{ removeOnComplete: remembered, removeOnFail: remembered },
    };
    let waiting: { name: string; data: ImagesJob; opts: object }[] = [];
    const send = async (): Promise<void> => {
      throwIfAborted(signal);
      await jobs?.addBulk(waiting).catch((cause: unknown) => {
        throw queueError(where, cause);
      });
      waiting = [];
    };
    for await (const paths of groups(images, jobSize, where)) {
      const data: ImagesJob = { images: paths, ...(topK === undefined ? {} : { topK }) };
      const jobId = `${run}-${String(done.jobs).padStart(6, '0')}-${digestOf(data)}`;
      waiting.push({ name: JOB_NAME, data, opts: { ...opts, jobId } });
      done.jobs++;
      done.images += paths.length;
      if (waiting.length >= TOGETHER) await send();
    }
    if (waiting.length > 0) await send();
    return done;
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  } finally {
    stop();
    server.end();
    await jobs?.close().catch(() => undefined); // of a server that is away
  }
}

async function* groups(images: ManyImages, size: number, where: string): AsyncGenerator<string[]> {
  let paths: string[] = [];
  for await (const { file, image } of selectImages(images, {})) {
    if (typeof image !== 'string')
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `${where}: ${file}: expected an image with a path, which a worker can read; of archives and bytes there is none`,
      );
    paths.push(image);
    if (paths.length < size) continue;
    yield paths;
    paths = [];
  }
  if (paths.length > 0) yield paths;
}
