/**
 * Files of the Hugging Face hub, through the cache that Python's huggingface_hub has: a file that one of them fetched is
 * the other's too. `blobs/ETAG` holds the bytes, `snapshots/COMMIT/FILE` is a link to them, `refs/REVISION` the commit that
 * a name stood for when it was last asked (huggingface.co/docs/hub/local-cache).
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { writeAtomically } from '../checkpoint/atomic-file';
import { fileError, isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { apartFromUser } from './cache';
import { askHead, downloadFile, type Head } from './download';
import type { ProgressOption } from './progress';

export interface HubOptions {
  /** A branch, a tag or a commit. Default 'main'. */
  revision?: string;
  /** Default true: a bar on a terminal. */
  progress?: ProgressOption;
  signal?: AbortSignal | undefined;
}

const COMMIT = /^[0-9a-f]{40}$/;
/** Of a repository on the hub: one owner and one name, or a name alone. */
const REPOSITORY = /^[\w-][\w.-]*(\/[\w-][\w.-]*)?$/;

/** `$HF_HUB_CACHE`, else `hub` in `$HF_HOME`, else in `huggingface` in `$XDG_CACHE_HOME` or `~/.cache`. */
export function hubFolder(): string {
  const { HF_HUB_CACHE: folder } = process.env;
  return folder === undefined || folder === '' ? path.join(hubHome(), 'hub') : expanded(folder);
}

function hubHome(): string {
  const { HF_HOME: home, XDG_CACHE_HOME: cache } = process.env;
  if (home !== undefined && home !== '') return expanded(home);
  return path.join(
    cache === undefined || cache === '' ? path.join(os.homedir(), '.cache') : cache,
    'huggingface',
  );
}

function expanded(folder: string): string {
  return /^~(\/|$)/.test(folder) ? path.join(os.homedir(), folder.slice(1)) : folder;
}

/** @throws ERR_SENET_ARG_RANGE unless it can be a repository of the hub */
export function checkRepository(repository: string, where: string): string {
  if (REPOSITORY.test(repository) && !repository.includes('..') && repository.length <= 200)
    return repository;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: expected a repository of the hub such as timm/seresnet50.a1_in1k, got ${describe(repository)}`,
  );
}

/** @throws ERR_SENET_ARG_RANGE unless it can be a branch, a tag or a commit */
export function checkRevision(revision: string, where: string): string {
  if (/^\w[\w./-]*$/.test(revision) && !revision.includes('..') && revision.length <= 200) return revision;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: expected a revision such as main, v1.0 or a commit, got ${describe(revision)}`,
  );
}

/**
 * The path of a file of a repository, in the cache. What it was is asked for anew unless `HF_HUB_OFFLINE` or
 * `SENET_OFFLINE` is 1; if the hub is out of reach, what the cache has is taken.
 *
 * @param file its name in the repository
 * @throws (rejects) ERR_SENET_ARG_RANGE, ERR_SENET_OFFLINE, ERR_SENET_DOWNLOAD (`details.status`), ERR_SENET_HASH,
 *   ERR_SENET_LOCKED, ERR_SENET_FILE, ERR_SENET_ABORTED
 */
export async function fetchFromHub(
  repository: string,
  file: string,
  options: HubOptions = {},
): Promise<string> {
  const { revision = 'main', signal } = options;
  checkRepository(repository, 'fetchFromHub');
  checkRevision(revision, 'fetchFromHub');
  const folder = path.join(hubFolder(), `models--${repository.replaceAll('/', '--')}`);
  const cached = await inCache(folder, file, revision);
  if (cached !== undefined && COMMIT.test(revision)) return cached;
  const { url, headers: user } = apartFromUser(
    `${endpoint()}/${repository}/resolve/${encodeURIComponent(revision)}/${file}`,
  );
  if (isOffline()) {
    if (cached !== undefined) return cached;
    const name = process.env.SENET_OFFLINE === '1' ? 'SENET_OFFLINE' : 'HF_HUB_OFFLINE';
    throw makeError('ERR_SENET_OFFLINE', `${url} is not cached and ${name}=1 forbids the network.`, {
      details: { url, file: path.join(folder, 'snapshots') },
    });
  }
  const headers = { ...user, ...(await authorization()) };
  let head: Known;
  try {
    head = checkHead(await askHead(url, { headers, signal }), url);
  } catch (error) {
    if (cached !== undefined && isOutOfReach(error)) return cached;
    throw error;
  }
  const { etag, commit } = head;
  const pointer = path.join(folder, 'snapshots', commit, file);
  const blob = path.join(folder, 'blobs', etag);
  if (!existsSync(pointer)) {
    if (!existsSync(blob)) {
      await downloadFile(url, blob, {
        headers,
        progress: options.progress ?? true,
        name: `${repository}/${file}`,
        advice: {
          transfer: `Put the file's folder under ${hubFolder()} with Python's huggingface_hub, or run it again.`,
          hash: 'Run it again.',
        },
        ...(etag.length === 64 ? { sha256Prefix: etag } : {}),
        ...(signal === undefined ? {} : { signal }),
      });
    }
    await link(blob, pointer);
  }
  await writeRef(folder, revision, commit);
  return pointer;
}

/** What the cache has of a file at a revision. */
async function inCache(folder: string, file: string, revision: string): Promise<string | undefined> {
  const commit = COMMIT.test(revision) ? revision : await readRef(folder, revision);
  const pointer = path.join(folder, 'snapshots', commit, file);
  return COMMIT.test(commit) && existsSync(pointer) ? pointer : undefined;
}

/** The commit that a revision last stood for; nothing if it was never asked for. */
async function readRef(folder: string, revision: string): Promise<string> {
  const text = await readFile(path.join(folder, 'refs', revision), 'utf8').catch(() => '');
  return text.trim();
}

/** As huggingface_hub reads it. */
function isOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? '') || process.env.SENET_OFFLINE === '1';
}

function endpoint(): string {
  return (process.env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
}

/** `$HF_TOKEN`, else the file in which `huggingface-cli login` keeps it. */
async function authorization(): Promise<Record<string, string>> {
  const kept = (): Promise<string> => readFile(path.join(hubHome(), 'token'), 'utf8').catch(() => '');
  const token = (process.env.HF_TOKEN || (await kept())).trim();
  return /^[\x21-\x7e]+$/.test(token) ? { authorization: `Bearer ${token}` } : {};
}

/** What the hub says of a file. */
interface Known {
  readonly etag: string;
  readonly commit: string;
}

/** Names that come from a server become names of files: they are what the hub's are, or nothing is written. */
function checkHead({ status, headers }: Head, url: string): Known {
  if (status >= 400) throw refused(status, headers, url);
  const etag = (headers['x-linked-etag'] ?? headers.etag ?? '').replace(/^W\//, '').replaceAll('"', '');
  const commit = headers['x-repo-commit'] ?? '';
  if (/^[0-9A-Za-z][0-9A-Za-z_-]{0,127}$/.test(etag) && COMMIT.test(commit)) return { etag, commit };
  throw makeError(
    'ERR_SENET_DOWNLOAD',
    `${url}: the server's answer is not the hub's: expected a commit and an etag, got ${describe(commit)} and ${describe(etag)}`,
    { details: { url } },
  );
}

function refused(status: number, headers: Readonly<Record<string, string>>, url: string): Error {
  const reason = printable(headers['x-error-message'] ?? '', 200);
  const advice =
    status === 401 || status === 403
      ? '; it is private, gated or does not exist: set HF_TOKEN to a token that may read it'
      : status === 404
        ? '; there is no such file, revision or repository'
        : '';
  return makeError(
    'ERR_SENET_DOWNLOAD',
    `${url}: the hub answered ${status}${advice}${reason && ` (${reason})`}`,
    {
      details: { url, status },
    },
  );
}

/** The status with which the hub refused a file; undefined of any other error. */
export function refusedStatus(error: unknown): number | undefined {
  return isSenetError(error) ? (error.details as { status?: number } | undefined)?.status : undefined;
}

/** No answer at all, an overloaded server, or no network allowed: what the cache has is as good as anything. */
export function isOutOfReach(error: unknown): boolean {
  if (!isSenetError(error)) return false;
  const { code } = error;
  return code === 'ERR_SENET_OFFLINE' || (code === 'ERR_SENET_DOWNLOAD' && isOverload(refusedStatus(error)));
}

/** No answer, a server that fails, or one of which this client has asked too much for now. */
function isOverload(status = 500): boolean {
  return status >= 500 || status === 429;
}

async function link(blob: string, pointer: string): Promise<void> {
  try {
    await mkdir(path.dirname(pointer), { recursive: true });
    await symlink(path.relative(path.dirname(pointer), blob), pointer).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // another process did it
    });
  } catch (error) {
    throw fileError(pointer, error);
  }
}

/** Only what is new: a cache that is shared may be for reading alone. */
async function writeRef(folder: string, revision: string, commit: string): Promise<void> {
  const file = path.join(folder, 'refs', revision);
  if (COMMIT.test(revision) || (await readRef(folder, revision)) === commit) return;
  await mkdir(path.dirname(file), { recursive: true }).catch((error: unknown) => {
    throw fileError(file, error);
  });
  await writeAtomically(file, (sink) => sink.write(Buffer.from(commit)), 'fetchFromHub');
}
