/**
 * Weights by URL, through torch.hub's cache.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { load } from '../checkpoint/load';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { checkString } from '../tensor/options';
import { boolean, integer, optional, orElse, readOptions, signal, string } from '../tensor/rules';
import { apartFromUser, checkFileName, checkpointsFolder, fileNameOf, hashPrefixOf, parseUrl } from './cache';
import { downloadFile } from './download';
import type { ProgressOption } from './progress';

export interface FetchWeightsOptions {
  /** Default: torch.hub's, `$TORCH_HOME/hub/checkpoints`. */
  modelDir?: string;
  /** Default: the last part of the URL. */
  fileName?: string;
  /**
   * Default true: what is downloaded must have the SHA-256 whose beginning stands in the file's name (`name-<hex>.ext`);
   * a name without one is not checked. A cached file is never checked again, as in PyTorch.
   */
  checkHash?: boolean;
  /** Default true: a bar on a terminal. */
  progress?: ProgressOption;
  /**
   * Most bytes that are taken, 1 to 2**53 - 1: a server may promise, or send, any number. Default 4 GiB, and 1 GiB of what
   * comes without a promised length. Beyond it ERR_SENET_DOWNLOAD, and nothing is kept.
   */
  maxBytes?: number;
  signal?: AbortSignal;
}

const RULES = {
  modelDir: optional(string),
  fileName: optional(string),
  checkHash: orElse(true, boolean),
  progress: (given: unknown) => (given ?? true) as ProgressOption, // the download checks it
  maxBytes: optional(integer(1)),
  signal,
};

/**
 * The path of a file of weights: the cached one, or the one that is downloaded now.
 *
 * @param sha256 of the file, or its beginning. Default: what the file's name says
 * @throws (rejects) ERR_SENET_OFFLINE (`SENET_OFFLINE=1`), ERR_SENET_DOWNLOAD, ERR_SENET_HASH, ERR_SENET_LOCKED,
 *   ERR_SENET_FILE, ERR_SENET_ABORTED; ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
 */
export async function fetchWeights(
  url: string,
  options?: FetchWeightsOptions,
  sha256?: string,
): Promise<string> {
  const where = 'loadStateDictFromUrl';
  const { modelDir, fileName, checkHash, progress, maxBytes, ...rest } = readOptions(options, RULES, where);
  const source = parseUrl(checkString(url, `${where}: url`));
  const shown = apartFromUser(source.href).url;
  const name = fileName ?? fileNameOf(source);
  checkFileName(name);
  const folder = modelDir ?? checkpointsFolder();
  const file = path.resolve(folder, name);
  if (existsSync(file)) return file;
  const byHand = `Put the file at ${file} by hand (mkdir -p '${path.dirname(file)}' && curl -L -o '${file}' '${shown}') and run it again`;
  if (process.env.SENET_OFFLINE === '1') {
    throw makeError(
      'ERR_SENET_OFFLINE',
      `${shown} is not cached and SENET_OFFLINE=1 forbids the network. ${byHand}.`,
      {
        details: { url: shown, file },
      },
    );
  }
  const sha256Prefix = checkHash ? (sha256 ?? hashPrefixOf(name)) : undefined;
  await downloadFile(mirrored(source), file, {
    progress,
    advice: { transfer: `${byHand}.`, hash: 'If the file is known to be good, pass { checkHash: false }.' },
    ...(sha256Prefix === undefined ? {} : { sha256Prefix }),
    ...(maxBytes === undefined ? {} : { maxBytes }),
    ...withSignal(rest.signal),
  });
  return file;
}

/** The path of a file of weights that `fetchWeights` would take as it is. @throws ERR_SENET_ARG_RANGE */
export function cachedWeights(url: string): string | undefined {
  const file = path.join(checkpointsFolder(), fileNameOf(parseUrl(url)));
  return existsSync(file) ? file : undefined;
}

/**
 * Loads a state dict from a URL, as `torch.hub.load_state_dict_from_url`.
 *
 * @throws (rejects) as `fetchWeights` and `load`
 */
export async function loadStateDictFromUrl(url: string, options?: FetchWeightsOptions): Promise<StateDict> {
  const file = await fetchWeights(url, options);
  return load(file, withSignal(options?.signal));
}

/** SENET_WEIGHTS_MIRROR, the URL of a folder with the same file names, takes the place of every URL's folder. */
function mirrored(url: URL): string {
  const mirror = process.env.SENET_WEIGHTS_MIRROR;
  return mirror === undefined || mirror === ''
    ? url.href
    : `${mirror.replace(/\/+$/, '')}/${path.posix.basename(url.pathname)}`;
}

function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
