/**
 * Downloads one file: resumed after an interruption, checked, under its final name only when it is whole, and by one
 * process at a time. Serves the weights and, in scripts/setup, LibTorch; so it must not import the native addon.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, writeFile, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { lock } from 'proper-lockfile';
import { EnvHttpProxyAgent, fetch, type Dispatcher, type Response } from 'undici';

import { isAggregateError, isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { makeProgress, type ProgressOption, type ProgressReporter } from './progress';

export interface DownloadOptions {
  /** Hexadecimal beginning of the file's SHA-256; left out, the content is not checked. */
  sha256Prefix?: string;
  /** Default true: a bar on a terminal. */
  progress?: ProgressOption;
  /** Stops at once; what has arrived is kept for the next attempt. */
  signal?: AbortSignal;
  /** What errors say after the reason: of a failed transfer, and of another hash. */
  advice?: { transfer: string; hash: string };
}

const CONNECT_TIMEOUT_MS = 4_000;
// A server that sends nothing for so long is taken for dead.
const SILENCE_TIMEOUT_MS = 30_000;
const ATTEMPTS = 3;
const LOCK_TIMEOUT_MS = 15 * 60_000;
const LOCK_POLL_MS = 200;
const LOCK_UPDATE_MS = 2_000;

/** What was known of the file when a partial download began; a difference means starting over. */
interface PartialFacts {
  url: string;
  validator: string | null;
}

/** An answer that another attempt may improve: a broken connection, an overloaded server. */
class Retryable extends Error {}

/**
 * Downloads `url` to `destination`, unless it is there. HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.
 *
 * @throws (rejects) ERR_SENET_DOWNLOAD, ERR_SENET_HASH (nothing is kept), ERR_SENET_LOCKED, ERR_SENET_FILE,
 *   ERR_SENET_ABORTED
 */
export async function downloadFile(
  url: string,
  destination: string,
  options: DownloadOptions = {},
): Promise<void> {
  const { signal } = options;
  throwIfAborted(signal);
  const progress = makeProgress(options.progress ?? true, path.basename(destination));
  await asFileErrors(destination, () => mkdir(path.dirname(destination), { recursive: true }));
  const held = await takeLock(destination, signal);
  if (held === null) return; // another process finished it while this one waited
  try {
    if (!existsSync(destination)) await new Download(url, destination, options, progress, held.lost).run();
  } finally {
    progress.stop();
    // A lock that was lost is not ours to release.
    await held.release().catch(() => undefined);
  }
}

interface HeldLock {
  release: () => Promise<void>;
  /** Aborted when another process took the lock over or its folder was removed: this one must stop writing. */
  lost: AbortSignal;
}

/** Waits for the lock; null if the file appeared meanwhile. */
async function takeLock(destination: string, signal: AbortSignal | undefined): Promise<HeldLock | null> {
  const deadline = Date.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    throwIfAborted(signal);
    const lost = new AbortController();
    try {
      // The lock file is a folder beside the destination; a process that died leaves one that turns stale.
      const release = await lock(destination, {
        realpath: false,
        stale: 15_000,
        update: LOCK_UPDATE_MS,
        // Without this the lock's timer throws, which would end the process.
        onCompromised: (error) =>
          lost.abort(
            makeError(
              'ERR_SENET_LOCKED',
              `${destination}: the lock was lost (${error.message}); run it again`,
              {
                cause: error,
              },
            ),
          ),
      });
      return { release, lost: lost.signal };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw fileError(destination, error);
    }
    if (existsSync(destination)) return null;
    if (Date.now() > deadline) {
      throw makeError(
        'ERR_SENET_LOCKED',
        `another process has been downloading ${destination} for too long; is ${destination}.lock left over?`,
      );
    }
    await delay(LOCK_POLL_MS, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }
}

class Download {
  readonly #partial: string;
  readonly #facts: string;
  readonly #stop: AbortSignal;

  constructor(
    readonly url: string,
    readonly destination: string,
    readonly options: DownloadOptions,
    readonly progress: ProgressReporter,
    readonly lost: AbortSignal,
  ) {
    this.#stop = options.signal === undefined ? lost : AbortSignal.any([options.signal, lost]);
    this.#partial = `${destination}.partial`;
    this.#facts = `${destination}.partial.json`;
  }

  async run(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#finish(await this.#attempt());
        return;
      } catch (error) {
        throwIfAborted(this.options.signal);
        if (this.lost.aborted) throw this.lost.reason;
        if (!(error instanceof Retryable)) throw error;
        if (attempt === ATTEMPTS) throw this.#failure(error.message, error.cause);
        await delay(250 * attempt);
      }
    }
  }

  /** One connection; gives the digest of the whole file. */
  async #attempt(): Promise<string> {
    const dispatcher = new EnvHttpProxyAgent({
      connect: { timeout: CONNECT_TIMEOUT_MS },
      bodyTimeout: SILENCE_TIMEOUT_MS,
    });
    try {
      return await this.#transfer(dispatcher);
    } finally {
      // Also ends an answer that was not read to its end.
      await dispatcher.destroy();
    }
  }

  async #transfer(dispatcher: Dispatcher): Promise<string> {
    const facts = await this.#readFacts();
    const present = facts === null ? 0 : await sizeOf(this.#partial);
    const response = await this.#request(dispatcher, present, facts);
    const resumed = response.status === 206 && present > 0 && continuesAt(response, present);
    if (!resumed && response.status !== 200) {
      await this.#forget(); // 416, or a server that contradicts itself: nothing of the old partial can be trusted
      const reason = `the server answered ${response.status} ${response.statusText}`;
      // 206 without a range that was asked for counts as a contradiction too.
      if (response.status >= 500 || [206, 416, 429].includes(response.status)) throw new Retryable(reason);
      throw this.#failure(reason);
    }
    const start = resumed ? present : 0;
    const length = Number(response.headers.get('content-length') ?? NaN);
    const total = Number.isFinite(length) ? start + length : undefined;
    const hash = createHash('sha256');
    if (resumed) await hashFile(this.#partial, hash);
    const file = await asFileErrors(this.#partial, () => open(this.#partial, resumed ? 'a' : 'w'));
    try {
      // After the old bytes are gone: a new validator must never stand beside them.
      await asFileErrors(this.#facts, () =>
        writeFile(
          this.#facts,
          JSON.stringify({ url: this.url, validator: validatorOf(response) } satisfies PartialFacts),
        ),
      );
      const bytes = await this.#receive(response, file, hash, start, total);
      if (total !== undefined && bytes !== total) {
        throw new Retryable(`it is truncated: ${bytes} of ${total} bytes arrived`);
      }
      await asFileErrors(this.#partial, () => file.sync());
    } finally {
      await file.close();
    }
    return hash.digest('hex');
  }

  async #request(dispatcher: Dispatcher, present: number, facts: PartialFacts | null): Promise<Response> {
    const headers: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'senet-torch' };
    if (present > 0 && facts?.validator) {
      headers.range = `bytes=${present}-`;
      headers['if-range'] = facts.validator;
    }
    // Ours and not the client's own limit, which does not cover a proxy that accepts and never answers.
    const silence = new AbortController();
    const timer = setTimeout(
      () => silence.abort(new Error(`no answer within ${SILENCE_TIMEOUT_MS / 1000} s`)),
      SILENCE_TIMEOUT_MS,
    );
    try {
      const signal = AbortSignal.any([silence.signal, this.#stop]);
      return await fetch(this.url, { headers, dispatcher, signal });
    } catch (error) {
      const reason = reasonOf(error);
      if (/ECONNRESET|EPIPE|UND_ERR_SOCKET/.test(reason)) throw new Retryable(reason, { cause: error });
      // No connection at all: another attempt seconds later would only make the caller wait.
      throw this.#failure(reason, error);
    } finally {
      clearTimeout(timer);
    }
  }

  async #receive(
    response: Response,
    file: FileHandle,
    hash: Hash,
    start: number,
    total: number | undefined,
  ): Promise<number> {
    let bytes = start;
    this.#report(bytes, total);
    const chunks = (response.body ?? []) as AsyncIterable<Uint8Array>;
    const iterator = chunks[Symbol.asyncIterator]();
    for (;;) {
      let chunk: IteratorResult<Uint8Array>;
      try {
        chunk = await iterator.next();
      } catch (cause) {
        throw new Retryable(`the connection broke after ${bytes} bytes: ${reasonOf(cause)}`, { cause });
      }
      if (chunk.done === true) return bytes;
      const { value } = chunk;
      hash.update(value);
      await asFileErrors(this.#partial, () => file.writeFile(value));
      bytes += value.length;
      this.#report(bytes, total);
    }
  }

  #report(bytes: number, total: number | undefined): void {
    this.progress.update(total === undefined ? { bytes } : { bytes, total });
  }

  async #finish(digest: string): Promise<void> {
    const expected = this.options.sha256Prefix?.toLowerCase() ?? '';
    if (!digest.startsWith(expected)) {
      await this.#forget();
      throw makeError(
        'ERR_SENET_HASH',
        `${this.url}: expected a SHA-256 that begins with ${expected}, got ${digest}. ${this.options.advice?.hash ?? ''}`.trim(),
        { details: { url: this.url, expected, digest } },
      );
    }
    await asFileErrors(this.destination, async () => {
      await rename(this.#partial, this.destination);
      const folder = await open(path.dirname(this.destination));
      await folder.sync().finally(() => folder.close());
    });
    await rm(this.#facts, { force: true });
  }

  async #readFacts(): Promise<PartialFacts | null> {
    try {
      const facts = JSON.parse(await readFile(this.#facts, 'utf8')) as PartialFacts;
      return facts.url === this.url && typeof facts.validator === 'string' ? facts : null;
    } catch {
      return null; // none, or not ours: start over
    }
  }

  async #forget(): Promise<void> {
    await rm(this.#partial, { force: true });
    await rm(this.#facts, { force: true });
  }

  #failure(reason: string, cause?: unknown): Error {
    const message =
      `could not download ${this.url}: ${reason}. ${this.options.advice?.transfer ?? ''}`.trim();
    return makeError('ERR_SENET_DOWNLOAD', message, {
      cause,
      details: { url: this.url, destination: this.destination },
    });
  }
}

/** What identifies this version of the file: a strong ETag, or the time of change. */
function validatorOf(response: Response): string | null {
  const tag = response.headers.get('etag');
  return tag !== null && !tag.startsWith('W/') ? tag : response.headers.get('last-modified');
}

/** Whether a partial answer begins where the partial file ends. */
function continuesAt(response: Response, present: number): boolean {
  return (response.headers.get('content-range') ?? '').startsWith(`bytes ${present}-`);
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    (facts) => facts.size,
    () => 0,
  );
}

async function hashFile(file: string, hash: Hash): Promise<void> {
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) hash.update(chunk);
}

/** The innermost reason: fetch wraps what really happened. */
function reasonOf(error: unknown): string {
  let current = error;
  while (isError(current) && isError(current.cause)) current = current.cause;
  if (isAggregateError(current) && current.errors.length > 0) return reasonOf(current.errors[0]);
  if (!isError(current)) return String(current);
  const { code } = current as NodeJS.ErrnoException;
  return code === undefined || current.message.includes(code)
    ? current.message
    : `${current.message} (${code})`;
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw makeError('ERR_SENET_ABORTED', 'The download was aborted', { cause: signal.reason });
  }
}

function fileError(file: string, cause: unknown): Error {
  return makeError('ERR_SENET_FILE', `${file}: ${isError(cause) ? cause.message : String(cause)}`, {
    cause,
  });
}

async function asFileErrors<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw isSenetError(error) ? error : fileError(file, error);
  }
}
