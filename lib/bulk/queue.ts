/**
 * A queue of BullMQ on Redis, from which workers on any number of machines take lists of images: how it is opened, and
 * what a job is. The engine keeps the jobs, hands each out at least once, and takes those back whose worker died.
 */
import { createHash } from 'node:crypto';
import { clearTimeout, setTimeout } from 'node:timers';

import type * as Bull from 'bullmq';
import type * as IoRedis from 'ioredis';

import { makeError } from '../errors';
import { requirePeer } from '../peer';
import { printable } from '../printable';
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

export type JobsQueue = Bull.Queue<ImagesJob, JobResult>;
export type QueueJob = Bull.Job<ImagesJob, JobResult>;

/** Images of a job at most: its rows are one file, written at once. */
export const MOST_OF_JOB = 100_000;
export const QUEUE_NAME = 'senet-torch';
export const JOB_NAME = 'classify';
const PURPOSE = 'a queue of jobs';
/** Milliseconds in which a server must answer at first; later it may be away for as long as it likes. */
const FIRST_ANSWER = 10_000;

/** BullMQ itself. @throws ERR_SENET_PEER_MISSING */
export function bullmq(): typeof Bull {
  return requirePeer<typeof Bull>('bullmq', PURPOSE);
}

/**
 * A server. BullMQ opens its connections itself, since it knows how to go on after one was lost; ours is to know whether
 * the server is there.
 */
export interface Server {
  readonly connection: Readonly<{ url: string; maxRetriesPerRequest: null }>;
  readonly watch: IoRedis.Redis;
}

/**
 * Connects, and makes sure that somebody answers.
 *
 * @param address - redis://HOST:PORT/DATABASE, or rediss:// with TLS; user and password as in any URL
 * @throws (rejects) ERR_SENET_PEER_MISSING, ERR_SENET_ARG_RANGE (no such address), ERR_SENET_QUEUE (no answer)
 */
export async function connect(address: string, where: string): Promise<Server> {
  const url = urlOf(address, where);
  const { Redis } = requirePeer<typeof IoRedis>('ioredis', PURPOSE);
  const watch = new Redis(address, { lazyConnect: true, maxRetriesPerRequest: null });
  const shown = `${url.protocol}//${url.host}${url.pathname}`;
  let latest: Error | undefined;
  watch.on('error', (error: Error) => (latest = error));
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(latest ?? new Error('it does not answer')), FIRST_ANSWER);
    });
    await Promise.race([watch.connect().then(() => watch.ping()), late]);
    return { connection: { url: address, maxRetriesPerRequest: null }, watch };
  } catch (cause) {
    watch.disconnect();
    const reason = printable((latest ?? (cause as Error)).message, 300);
    throw makeError('ERR_SENET_QUEUE', `${where}: ${shown}: no connection to Redis: ${reason}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

function urlOf(address: string, where: string): URL {
  try {
    const url = new URL(address);
    if (/^rediss?:$/.test(url.protocol)) return url;
  } catch {
    // said below; the address may hold a password, and is not repeated
  }
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: queue: expected an address such as redis://localhost:6379`,
  );
}

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
