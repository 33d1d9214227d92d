/**
 * The file of published weights: part of the package, from the hub, or by its URL. Knows no network.
 */
import path from 'node:path';

import { isSenetError, makeError, type AnySenetError } from '../errors';
import { cachedWeights, fetchWeights } from '../hub/hub';
import type { ProgressOption } from '../hub/progress';
import { ASSETS } from '../package-root';
import { boolean, orElse, signal, unchecked, type Rules, type Values } from '../tensor/rules';
import { fetchSnapshot } from './hub-snapshot';
import type { PublishedWeights } from './record';

/** Of a download. */
export interface TransferOptions {
  /** Default true: a bar on a terminal while it downloads. */
  progress?: ProgressOption;
  /** Default true: what is downloaded must have the SHA-256 that the record gives. */
  checkHash?: boolean;
  /** Rejects with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal | undefined;
}

/** Their rules. */
export const TRANSFER = {
  progress: unchecked<ProgressOption>(), // the download checks it
  checkHash: orElse(true, boolean),
  signal,
} satisfies Rules<TransferOptions>;

export type Transfer = Partial<Values<typeof TRANSFER>>;

/** The file of labels that published weights bring; undefined where their own file says them. */
export function labelsFileOf({ labels }: Pick<PublishedWeights, 'labels'>): string | undefined {
  return labels === undefined ? undefined : path.join(ASSETS, 'labels', labels);
}

/** The path of published weights, which are downloaded if need be. Errors: as `fetchWeights` and `fetchFromHub`. */
export async function toFile(
  { location, sha256 }: PublishedWeights,
  { progress = true, checkHash = true, signal }: Transfer,
): Promise<string> {
  if ('bundled' in location) return path.join(ASSETS, 'weights', location.bundled);
  const options = { progress, checkHash, ...(signal === undefined ? {} : { signal }) };
  const byUrl = (url: string): Promise<string> => fetchWeights(url, options, sha256 ?? undefined);
  if (!('hub' in location)) return byUrl(location.url);
  const { hub, url } = location;
  try {
    return await fetchSnapshot(hub, 'main', { progress, signal });
  } catch (error) {
    if (url === undefined || !isSenetError(error)) throw error;
    return fromRelease(url, error, byUrl);
  }
}

/** The release has the same weights as the hub that refused them; without a network only if they are there already. */
async function fromRelease(
  url: string,
  refusal: AnySenetError,
  byUrl: (url: string) => Promise<string>,
): Promise<string> {
  const { code, message, details } = refusal;
  if (code !== 'ERR_SENET_DOWNLOAD' && code !== 'ERR_SENET_OFFLINE') throw refusal;
  const cached = cachedWeights(url);
  if (cached !== undefined) return cached;
  if (code === 'ERR_SENET_OFFLINE') throw refusal;
  try {
    return await byUrl(url);
  } catch (cause) {
    if (!isSenetError(cause) || cause.code === 'ERR_SENET_ABORTED') throw cause;
    const lines = [...message.split('\n'), `The release neither: ${cause.message}`];
    throw makeError(code, lines, { cause, ...(details && { details }) });
  }
}
