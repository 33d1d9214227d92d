/**
 * A queue of BullMQ on Redis, from which workers on any number of machines take lists of images. The engine keeps the jobs, hands each out at least once, and takes those back whose worker died.
 */
import { clearTimeout, setTimeout } from 'node:timers';

import type * as Bull from 'bullmq';
import type * as IoRedis from 'ioredis';

import { isError } from '../brands';
import { makeError } from '../errors';
import { requirePeer } from '../peer';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { orElse, string } from '../tensor/rules';
import type { ImagesJob, JobResult } from './queue-job';

export type JobsQueue = Bull.Queue<ImagesJob, JobResult>;
export type QueueJob = Bull.Job<ImagesJob, JobResult>;

/** The name of a queue, of letters that BullMQ takes. */
export const queueName = orElse('senet-torch', (given, what) => {
  const name = string(given, what);
  if (name !== '' && !name.includes(':')) return name;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected text without a colon, got ${describe(name)}`);
});
export const JOB_NAME = 'classify';
const PURPOSE = 'a queue of jobs';
/** Milliseconds in which a server must answer at first; later it may be away for as long as it likes. */
const FIRST_ANSWER = 10_000;
/** Milliseconds between two attempts to reach a server that is away. */
const LONGEST_RETRY = 2000;

/** BullMQ itself. @throws ERR_SENET_PEER_MISSING */
export function bullmq(): typeof Bull {
  return requirePeer<typeof Bull>('bullmq', PURPOSE);
}

/**
 * A server. BullMQ opens its connections itself, since it knows how to go on after one was lost; ours is to know whether
 * the server is there.
 */
export interface Server {
  readonly connection: Readonly<{
    url: string;
    maxRetriesPerRequest: null;
    retryStrategy: (times: number) => number | null;
  }>;
  /** Whether somebody answers at present. */
  readonly isThere: boolean;
  /** Ends all connections to it, BullMQ's too, which would wait for a server that is away for ever. */
  end(): void;
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
  let hasEnded = false;
  const retryStrategy = (times: number): number | null =>
    hasEnded ? null : Math.min(100 * times, LONGEST_RETRY);
  const settings = { maxRetriesPerRequest: null, retryStrategy };
  const watch = new Redis(address, { lazyConnect: true, ...settings });
  const shown = `${url.protocol}//${url.host}${url.pathname}`;
  let latest: Error | undefined;
  watch.on('error', (error: Error) => (latest = error));
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(latest ?? new Error('it does not answer')), FIRST_ANSWER);
    });
    await Promise.race([watch.connect().then(() => watch.ping()), late]);
    return {
      connection: { url: address, ...settings },
      get isThere() {
        return watch.status === 'ready';
      },
      end() {
        hasEnded = true;
        watch.disconnect();
      },
    };
  } catch (cause) {
    watch.disconnect();
    const reason = printable((latest ?? (cause as Error)).message, 300);
    throw makeError('ERR_SENET_QUEUE', `${where}: ${shown}: no connection to Redis: ${reason}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** What a server answers that takes no more: its memory is full, it is a replica. */
export function queueError(where: string, cause: unknown): Error {
  const reason = isError(cause) ? cause.message : String(cause);
  return makeError('ERR_SENET_QUEUE', `${where}: Redis refused: ${printable(reason, 300)}`, { cause });
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
