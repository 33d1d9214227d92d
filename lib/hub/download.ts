/**
 * Downloads one file: resumed after an interruption, checked, under its final name only when it is whole, and by one
 * process at a time. Serves the weights and, in scripts/setup, LibTorch; so it must not import the native addon.
 */
import { createHash, type Hash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { clearTimeout, setTimeout } from 'node:timers';

import type { Dispatcher, Response } from 'undici';

import { isAggregateError, isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { anySignal, throwIfAborted, untilAborted } from '../tensor/abort';
import { apartFromUser } from './cache';
import { tryLock, type HeldLock } from './lock';
import { PartialFile } from './partial';
import { makeProgress, type ProgressOption, type ProgressReporter } from './progress';

export interface DownloadOptions {
  /** Hexadecimal beginning of the file's SHA-256; left out, the content is not checked. */
  sha256Prefix?: string;
  /** Default true: a bar on a terminal. */
  progress?: ProgressOption;
  /** Stops at once; what has arrived is kept for the next attempt. */
  signal?: AbortSignal;
  /** Most bytes that are taken. Default 4 GiB where the server says how many will come, else 1 GiB. */
  maxBytes?: number;
  /** Sent with the request, and not to another host that it is redirected to. */
  headers?: Readonly<Record<string, string>>;
  /** What the bar calls it. Default: the name of the file. */
  name?: string;
  /** What errors say after the reason: of a failed transfer, and of another hash. */
  advice?: { transfer: string; hash: string };
}

const CONNECT_TIMEOUT_MS = 4_000;
// A server that sends nothing for so long is taken for dead.
const SILENCE_TIMEOUT_MS = 30_000;
/** Of a file that is downloaded, unless the caller says otherwise; without a promised length it may have no end. */
const MAX_BYTES = 4 * 1024 ** 3;
const MAX_UNKNOWN_BYTES = 1024 ** 3;
const ATTEMPTS = 3;
const OWN_HEADERS = { 'accept-encoding': 'identity', 'user-agent': 'senet-torch' };
const MOST_REDIRECTS = 5;
const LOCK_TIMEOUT_MS = 15 * 60_000;
const LOCK_POLL_MS = 200;

/** An answer that another attempt may improve: a broken connection, an overloaded server. */
class Retryable extends Error {}

/** More than is taken: nothing of it is kept. */
class TooLong extends Error {}

/**
 * Downloads what is at `address` to `destination`, unless it is there. HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.
 *
 * @throws (rejects) ERR_SENET_DOWNLOAD, ERR_SENET_HASH (nothing is kept), ERR_SENET_LOCKED, ERR_SENET_FILE,
 *   ERR_SENET_ABORTED
 */
export async function downloadFile(
  address: string,
  destination: string,
  given: DownloadOptions = {},
): Promise<void> {
  const { url, headers } = apartFromUser(address);
  const options = { ...given, headers: { ...headers, ...given.headers } };
  const { signal } = options;
  throwIfAborted(signal);
  const progress = makeProgress(options.progress ?? true, options.name ?? path.basename(destination));
  await asFileErrors(destination, () => mkdir(path.dirname(destination), { recursive: true }));
  const held = await takeLock(destination, signal);
  if (held === null) return; // another process finished it while this one waited
  try {
    if (!existsSync(destination)) await new Download(url, destination, options, progress, held.lost).run();
  } finally {
    progress.stop();
    await held.release();
  }
}

/** What a server says of a file. */
export interface Head {
  readonly status: number;
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * Asks for a file without its bytes. Redirections are followed on the same host only: what another host is asked for, it
 * says of this file.
 *
 * @throws (rejects) ERR_SENET_DOWNLOAD without an answer, ERR_SENET_ABORTED
 */
export async function askHead(
  url: string,
  { headers, signal }: { headers: Readonly<Record<string, string>>; signal: AbortSignal | undefined },
): Promise<Head> {
  throwIfAborted(signal);
  const { EnvHttpProxyAgent, fetch } = httpClient();
  const dispatcher = new EnvHttpProxyAgent({ connect: { timeout: CONNECT_TIMEOUT_MS } });
  const silence = AbortSignal.timeout(SILENCE_TIMEOUT_MS);
  const stop = anySignal([silence, signal]);
  try {
    let current = new URL(url);
    for (let redirects = 0; ; redirects++) {
      const response = await fetch(current, {
        method: 'HEAD',
        headers: { ...headers, ...OWN_HEADERS },
        redirect: 'manual',
        dispatcher,
        signal: stop.signal,
      });
      const location = response.headers.get('location');
      const next = location === null ? null : new URL(location, current);
      const isSame = next?.origin === current.origin && response.status >= 300 && response.status < 400;
      if (next === null || !isSame || redirects === MOST_REDIRECTS) {
        return { status: response.status, headers: Object.fromEntries(response.headers) };
      }
      current = next;
    }
  } catch (error) {
    throwIfAborted(signal);
    throw makeError('ERR_SENET_DOWNLOAD', `could not ask for ${url}: ${reasonOf(error)}`, {
      cause: error,
      details: { url },
    });
  } finally {
    stop.stop();
    await dispatcher.destroy();
  }
}

/** Waits for the lock; null if the file appeared meanwhile. */
async function takeLock(destination: string, signal: AbortSignal | undefined): Promise<HeldLock | null> {
  const deadline = performance.now() + LOCK_TIMEOUT_MS;
  for (;;) {
    throwIfAborted(signal);
    const held = await asFileErrors(destination, () => tryLock(destination));
    if (held !== null) return held;
    if (existsSync(destination)) return null;
    if (performance.now() > deadline) {
      throw makeError(
        'ERR_SENET_LOCKED',
        `another process has been downloading ${destination} for too long; is ${destination}.lock left over?`,
      );
    }
    await untilAborted(delay(LOCK_POLL_MS), signal).catch(() => undefined);
  }
}

/** Loaded only here: most programs download nothing, and it takes its time. */
function httpClient(): typeof import('undici') {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- CommonJS, as the output
  return require('undici') as typeof import('undici');
}

class Download {
  constructor(
    readonly url: string,
    readonly destination: string,
    readonly options: DownloadOptions,
    readonly progress: ProgressReporter,
    readonly lost: AbortSignal,
  ) {}

  async run(): Promise<void> {
    const { signal, stop } = anySignal([this.options.signal, this.lost]);
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          await this.#attempt(signal);
          return;
        } catch (error) {
          throwIfAborted(this.options.signal);
          if (this.lost.aborted) throw this.lost.reason;
          if (!(error instanceof Retryable)) throw error;
          if (attempt === ATTEMPTS) throw this.#failure(error.message, error.cause);
          await delay(250 * attempt);
        }
      }
    } finally {
      stop();
    }
  }

  /** One connection. */
  async #attempt(signal: AbortSignal): Promise<void> {
    const dispatcher = new (httpClient().EnvHttpProxyAgent)({
      connect: { timeout: CONNECT_TIMEOUT_MS },
      bodyTimeout: SILENCE_TIMEOUT_MS,
    });
    let partial = await this.#onDisk(() => PartialFile.find(this.destination, this.url));
    try {
      const response = await this.#request(dispatcher, signal, partial);
      const continued =
        partial !== null && response.status === 206 && continuesAt(response, partial.size) ? partial : null;
      if (continued === null) {
        await partial?.discard(); // of another version, or the server contradicts itself
        this.#checkWhole(response);
      }
      this.#checkPromise(response, continued?.size ?? 0);
      partial =
        continued ??
        (await this.#onDisk(() => PartialFile.create(this.destination, this.url, validatorOf(response))));
      await this.#transfer(response, partial);
    } catch (error) {
      if (!(error instanceof TooLong)) throw error;
      await partial?.discard();
      throw this.#failure(error.message);
    } finally {
      await partial?.close();
      // Also ends an answer that was not read to its end.
      await dispatcher.destroy();
    }
  }

  /** Of what is refused before a byte of it is written. */
  #checkPromise(response: Response, present: number): void {
    // It was asked for as it is; what the client unpacks has neither the length nor the hash that was promised.
    const encoding = response.headers.get('content-encoding') ?? 'identity';
    if (encoding !== 'identity')
      throw this.#failure(`the server sent it encoded (${printable(encoding, 40)}), though asked not to`);
    const length = lengthOf(response);
    this.#checkLength(present + (length ?? 0), length !== undefined);
  }

  #checkLength(bytes: number, isPromised: boolean): void {
    const most = mostBytes(this.options.maxBytes, isPromised);
    if (bytes <= most) return;
    throw new TooLong(`it has ${bytes} bytes or more, and ${most} at most are taken (option maxBytes)`);
  }

  #checkWhole({ status, statusText }: Response): void {
    if (status === 200) return;
    const reason = `the server answered ${status} ${printable(statusText)}`;
    // 206 without a range that was asked for counts as a contradiction too.
    if (status >= 500 || [206, 416, 429].includes(status)) throw new Retryable(reason);
    throw this.#failure(reason);
  }

  async #transfer(response: Response, partial: PartialFile): Promise<void> {
    const hash = createHash('sha256');
    if (partial.size > 0) {
      const present = partial.handle.createReadStream({ start: 0, autoClose: false });
      for await (const chunk of present as AsyncIterable<Buffer>) hash.update(chunk);
    }
    const length = lengthOf(response);
    const total = length === undefined ? undefined : partial.size + length;
    const bytes = await this.#receive(response, partial.handle, hash, partial.size, total);
    if (total !== undefined && bytes !== total) {
      throw new Retryable(`it is truncated: ${bytes} of ${total} bytes arrived`);
    }
    await this.#onDisk(() => partial.handle.sync());
    await this.#checkHash(hash.digest('hex'), partial);
    await this.#onDisk(() => partial.finish());
  }

  async #request(dispatcher: Dispatcher, stop: AbortSignal, partial: PartialFile | null): Promise<Response> {
    const headers: Record<string, string> = { ...this.options.headers, ...OWN_HEADERS };
    if (partial !== null && partial.size > 0 && partial.facts.validator !== null) {
      headers.range = `bytes=${partial.size}-`;
      headers['if-range'] = partial.facts.validator;
    }
    // Ours and not the client's own limit, which does not cover a proxy that accepts and never answers.
    const silence = new AbortController();
    const timer = setTimeout(
      () => silence.abort(new Error(`no answer within ${SILENCE_TIMEOUT_MS / 1000} s`)),
      SILENCE_TIMEOUT_MS,
    );
    // Not let go of after the answer: the body is stopped by it too.
    const { signal } = anySignal([silence.signal, stop]);
    try {
      return await httpClient().fetch(this.url, { headers, dispatcher, signal });
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
      this.#checkLength(bytes + value.length, total !== undefined);
      hash.update(value);
      await this.#onDisk(() => file.appendFile(value));
      bytes += value.length;
      this.#report(bytes, total);
    }
  }

  #report(bytes: number, total: number | undefined): void {
    this.progress.update(total === undefined ? { bytes } : { bytes, total });
  }

  async #checkHash(digest: string, partial: PartialFile): Promise<void> {
    const expected = this.options.sha256Prefix?.toLowerCase() ?? '';
    if (digest.startsWith(expected)) return;
    await partial.discard();
    throw makeError(
      'ERR_SENET_HASH',
      `${this.url}: expected a SHA-256 that begins with ${expected}, got ${digest}. ${this.options.advice?.hash ?? ''}`.trim(),
      { details: { url: this.url, expected, digest } },
    );
  }

  async #onDisk<T>(work: () => Promise<T>): Promise<T> {
    return asFileErrors(this.destination, work);
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

/** Bytes that are taken of an answer that promises its length, or does not. @internal */
export function mostBytes(maxBytes: number | undefined, isPromised: boolean): number {
  return maxBytes ?? (isPromised ? MAX_BYTES : MAX_UNKNOWN_BYTES);
}

/** Bytes that an answer promises. */
function lengthOf(response: Response): number | undefined {
  const length = Number(response.headers.get('content-length') ?? NaN);
  return Number.isFinite(length) ? length : undefined;
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

/** The innermost reason: fetch wraps what really happened. Parts of it are the server's words. */
function reasonOf(error: unknown): string {
  return printable(innermostReason(error), 300);
}

function innermostReason(error: unknown): string {
  let current = error;
  while (isError(current) && isError(current.cause)) current = current.cause;
  if (isAggregateError(current) && current.errors.length > 0) return innermostReason(current.errors[0]);
  if (!isError(current)) return String(current);
  const { code } = current as NodeJS.ErrnoException;
  return code === undefined || current.message.includes(code)
    ? current.message
    : `${current.message} (${code})`;
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
