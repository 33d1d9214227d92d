/**
 * One process at a time (downloads here, set-up in scripts/setup): a file beside the one that is made, created exclusively and touched while it is held. A process
 * that died leaves one that is touched no more. How long ago that was is told by the folder's own clock, the times of
 * its files: the clock of this machine may jump, and that of a file server may be another. The file says whose it is, so
 * that on the same machine nobody waits for the dead.
 */
import { randomBytes } from 'node:crypto';
import { link, lstat, open, readFile, rename, rm, unlink, type FileHandle } from 'node:fs/promises';
import { clearInterval, setInterval } from 'node:timers';

import { makeError } from '../errors';
import { hasDied, ownIdentity } from './process-identity';

const STALE_MS = 15_000;
const TOUCH_MS = 2_000;

export interface HeldLock {
  release: () => Promise<void>;
  /** Aborted when the lock was taken over or removed: its holder must stop writing. */
  lost: AbortSignal;
}

/**
 * Null while another process holds it; one that was not touched for `staleMs`, or whose holder died, is taken over. Rejects with the system's
 * errors.
 */
export async function tryLock(file: string, staleMs = STALE_MS): Promise<HeldLock | null> {
  const place = `${file}.lock`;
  for (let attempt = 0; attempt < 2; attempt++) {
    const handle = await open(place, 'wx').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return null;
      throw error;
    });
    if (handle !== null) return hold(file, place, handle, (await ownIdentity()) ?? 'unknown');
    if (!(await removeStale(place, staleMs))) return null;
  }
  return null;
}

async function hold(file: string, place: string, handle: FileHandle, identity: string): Promise<HeldLock> {
  const lost = new AbortController();
  const isOurs = async (): Promise<boolean> => {
    const [held, there] = await Promise.all([handle.stat({ bigint: true }), lstat(place, { bigint: true })]);
    return held.ino === there.ino && held.dev === there.dev;
  };
  const touch = async (): Promise<void> => {
    await handle.write(identity, 0);
    if (!(await isOurs())) throw new Error('another process took it over');
  };
  await handle.write(identity, 0).catch(async (error: unknown) => {
    await handle.close();
    await unlink(place);
    throw error;
  });
  const timer = setInterval(() => {
    touch().catch((cause: unknown) => {
      clearInterval(timer);
      const reason = `${file}: the lock was lost (${(cause as Error).message}); run it again`;
      lost.abort(makeError('ERR_SENET_LOCKED', reason, { cause }));
    });
  }, TOUCH_MS);
  return {
    lost: lost.signal,
    release: async () => {
      clearInterval(timer);
      try {
        // A lock that was lost is not ours to release.
        if (await isOurs()) await unlink(place);
      } catch {
        // removed already
      } finally {
        await handle.close();
      }
    },
  };
}

/** Removes a lock that is touched no more, or whose holder died; true if there is none any longer. */
async function removeStale(place: string, staleMs: number): Promise<boolean> {
  const seen = await lstat(place, { bigint: true }).catch(() => null);
  if (seen === null) return true;
  const age = (await folderTime(place)) - seen.mtimeMs;
  if (age < staleMs && !(await hasDied(await readFile(place, 'utf8').catch(() => '')))) return false;
  // Moved first: between the look and the removal another may have done the same and locked anew.
  const aside = `${place}.${randomBytes(8).toString('hex')}`;
  await rename(place, aside).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  });
  const moved = await lstat(aside, { bigint: true }).catch(() => null);
  const stale = moved === null || moved.ino === seen.ino;
  if (!stale) await link(aside, place).catch(() => undefined);
  await rm(aside, { recursive: true, force: true });
  return stale;
}

/** The present, in milliseconds, as the file system tells it. */
async function folderTime(beside: string): Promise<bigint> {
  const probe = `${beside}.${randomBytes(8).toString('hex')}`;
  const handle = await open(probe, 'wx');
  try {
    return (await handle.stat({ bigint: true })).mtimeMs;
  } finally {
    await handle.close();
    await unlink(probe);
  }
}
