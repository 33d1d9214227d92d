/**
 * Published weights, by a record: which of them a name means, the file of them, and a network with them. What becomes of
 * the file is `from-weights`'s. Knows the records that it is given, and not the registry.
 */
import path from 'node:path';

import { isPlainObject } from '../brands';
import { isSenetError, makeError, type AnySenetError } from '../errors';
import { cachedWeights, fetchWeights } from '../hub/hub';
import type { ProgressOption } from '../hub/progress';
import { ASSETS } from '../package-root';
import { checkBoolean, checkInteger, describe, hint } from '../tensor/options';
import {
  boolean,
  optional,
  orElse,
  readOptions,
  signal,
  string,
  unchecked,
  type Rules,
  type Values,
} from '../tensor/rules';
import { fetchSnapshot } from './hub-snapshot';
import { create, createWithWeights, readWeights, type WeightsPlace } from './from-weights';
import type { ClassifyingModule, ModelRecord, PublishedWeights } from './record';

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

const PLACE = { key: optional(string), prefix: optional(string) } satisfies Rules<WeightsPlace>;

export type Transfer = Partial<Values<typeof TRANSFER>>;

/** Of a model with published weights; `create`'s own options beside it. */
export interface PretrainedOptions extends Omit<TransferOptions, 'signal'> {
  /** True for the model's usual weights, or their name, such as 'imagenet'. */
  pretrained: true | string;
  /**
   * Default: the weights'. For another number the networks of timm, Cadene and pytorchcv have a classifier that is drawn
   * anew, as in timm; those of senet.pytorch reject with ERR_SENET_STATE_DICT (`resetClassifier` gives other classes).
   */
  numClasses?: number;
  /**
   * Default: the weights'. For another number the same networks have their first convolution adapted, as in timm; the
   * others reject with ERR_SENET_STATE_DICT before anything is downloaded.
   */
  inChannels?: number;
  signal?: AbortSignal;
}

/**
 * The published weights that a name means; true means the usual ones.
 *
 * @throws ERR_SENET_ARG_RANGE, naming those that there are
 */
export function publishedOf(
  { name: model, weights }: ModelRecord,
  wanted: true | string,
  where: string,
): PublishedWeights {
  const found = wanted === true ? weights[0] : weights.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  if (weights.length === 0)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: ${model} has no published weights`);
  const names = weights.map(({ name }) => name);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: ${model} has no published weights ${describe(wanted)}${hint(String(wanted), names)} (published are ${names.join(', ')})`,
  );
}

/** The file of labels that published weights bring; undefined where their own file says them. */
export function labelsFileOf({ labels }: Pick<PublishedWeights, 'labels'>): string | undefined {
  return labels === undefined ? undefined : path.join(ASSETS, 'labels', labels);
}

/** The path of weights, which are downloaded if need be. Errors: as `fetchWeights` and `fetchFromHub`. */
export async function toFile(
  source: PublishedWeights | string,
  { progress = true, checkHash = true, signal }: Transfer,
): Promise<string> {
  if (typeof source === 'string') return source;
  const { location, sha256 } = source;
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

/**
 * A network with the weights of a file or of the record: found, fetched, made. Errors: as `toFile`, `load` and
 * `createWithWeights`.
 */
export async function loadModel(
  record: ModelRecord,
  source: PublishedWeights | string,
  options: Transfer & WeightsPlace,
  given?: Readonly<Record<string, unknown>>,
): Promise<ClassifyingModule> {
  const file = await toFile(source, options);
  const state = await readWeights(file, record, options, options.signal);
  try {
    return createWithWeights(record, state, given);
  } finally {
    state.dispose();
  }
}

/** Whether the options of a factory ask for published weights, so that it gives a promise. */
export function wantsPretrained(options: { pretrained?: unknown } | undefined): boolean {
  const { pretrained } = options ?? {};
  return pretrained === true || typeof pretrained === 'string';
}

/**
 * What a factory gives: a model with initial weights, or with `pretrained` the promise of one with published weights.
 *
 * @throws as the model's own function; with `pretrained` (rejects) also ERR_SENET_ARG_RANGE (no weights of this name),
 *   ERR_SENET_STATE_DICT and as `loadStateDictFromUrl`
 */
export function makeOrLoad(
  record: ModelRecord,
  options: object | undefined,
): ClassifyingModule | Promise<ClassifyingModule> {
  if (!isPlainObject(options) || !('pretrained' in options)) return create(record, options);
  const { pretrained, ...rest } = options;
  if (wantsPretrained(options)) return loadPretrained(record, options);
  checkBoolean(pretrained ?? false, `${record.name}: pretrained`);
  return create(record, rest);
}

async function loadPretrained(
  record: ModelRecord,
  options: Readonly<Record<string, unknown>>,
): Promise<ClassifyingModule> {
  const where = record.name;
  const rules = { pretrained: unchecked<true | string>(), ...ownRules(record), ...TRANSFER };
  const { pretrained, progress, checkHash, signal, ...given } = readOptions(options, rules, where);
  const published = publishedOf(record, pretrained as true | string, `${where}: pretrained`);
  checkChannels(record, published, given);
  return loadModel(record, published, { progress, checkHash, signal }, given);
}

/** What a factory's own options are, beside weights. */
function ownRules(record: ModelRecord): Rules<Record<string, unknown>> {
  const own = record.options.filter((name) => name !== 'initWeights');
  return Object.fromEntries(own.map((name) => [name, unchecked()]));
}

/** Before anything is downloaded. @throws ERR_SENET_STATE_DICT */
function checkChannels(
  record: ModelRecord,
  { inChannels = record.inChannels }: PublishedWeights,
  given: { inChannels?: number },
): void {
  const what = `${record.name}: inChannels`;
  const channels = checkInteger(given.inChannels ?? inChannels, what, 1);
  if (channels === inChannels || record.adaptsWeights) return;
  throw makeError(
    'ERR_SENET_STATE_DICT',
    `${what}: the published weights take images of ${inChannels} channels, got ${channels}`,
  );
}

/**
 * Whether some network has these options, before anything is fetched for one that is not known yet.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION
 */
export function checkFileOptions(records: readonly ModelRecord[], options: object, where: string): void {
  const own = Object.fromEntries(records.flatMap((record) => Object.entries(ownRules(record))));
  readOptions(options as Record<string, unknown>, { ...PLACE, ...own, ...TRANSFER }, where);
}

/** A network with the weights of a file, with options of its record's own function beside those of `load`. */
export function loadFromFile(
  record: ModelRecord,
  file: string,
  options: object | undefined,
): Promise<ClassifyingModule> {
  const rules = { ...PLACE, ...ownRules(record), ...TRANSFER };
  const read = readOptions(options as Record<string, unknown> | undefined, rules, record.name);
  const { key, prefix, progress, checkHash, signal, ...given } = read;
  return loadModel(record, file, { key, prefix, progress, checkHash, signal }, given);
}
