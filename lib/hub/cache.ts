/**
 * Where torch.hub keeps downloaded weights, so that a file which Python downloaded is used, and the other way round
 * (torch/hub.py: get_dir, load_state_dict_from_url).
 */
import os from 'node:os';
import path from 'node:path';

import { makeError } from '../errors';
import { describe } from '../tensor/options';

/** `$TORCH_HOME`, else `torch` in `$XDG_CACHE_HOME` or `~/.cache`; there `hub/checkpoints`. */
export function checkpointsFolder(): string {
  const cache = process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache');
  const home = process.env.TORCH_HOME || path.join(cache, 'torch');
  const expanded = /^~(\/|$)/.test(home) ? path.join(os.homedir(), home.slice(1)) : home;
  return path.join(expanded, 'hub', 'checkpoints');
}

/** @throws ERR_SENET_ARG_RANGE unless it is an http or https URL */
export function parseUrl(url: string): URL {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch (cause) {
    throw makeError('ERR_SENET_ARG_RANGE', `expected a URL, got ${describe(url)}`, { cause });
  }
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw makeError('ERR_SENET_ARG_RANGE', `expected an http or https URL, got ${describe(url)}`);
  }
  return parsed;
}

/** The last part of the URL's path, percent signs as they are, as torch.hub names files. @throws ERR_SENET_ARG_RANGE */
export function fileNameOf(url: URL): string {
  const name = path.posix.basename(url.pathname);
  checkFileName(name);
  return name;
}

/** A name must stay in its folder. @throws ERR_SENET_ARG_RANGE */
export function checkFileName(name: string): void {
  if (name === '' || name === '.' || name === '..' || /[/\\\0]/.test(name)) {
    throw makeError('ERR_SENET_ARG_RANGE', `expected a file name, got ${describe(name)}`);
  }
}

/** torch.hub's convention: `name-<hex>.ext` carries the beginning of its SHA-256. */
export function hashPrefixOf(fileName: string): string | undefined {
  return /-([a-f0-9]*)\./.exec(fileName)?.[1];
}

/**
 * An address without its user and password, which no message is to repeat, and the header that says them.
 */
export function apartFromUser(address: string): { url: string; headers: Readonly<Record<string, string>> } {
  if (!URL.canParse(address)) return { url: address, headers: {} };
  const url = new URL(address);
  const { username, password } = url;
  if (username === '' && password === '') return { url: address, headers: {} };
  url.username = '';
  url.password = '';
  const said = Buffer.from([username, password].map(unescaped).join(':'));
  return { url: url.href, headers: { authorization: `Basic ${said.toString('base64')}` } };
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not escaped
  }
}
