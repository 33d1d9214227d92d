/**
 * What a factory gives: a network with initial weights, or with `pretrained` one with published weights. Knows the records
 * that it is given, and not the registry.
 */
import { isPlainObject } from '../brands';
import { makeError } from '../errors';
import { checkBoolean } from '../tensor/options';
import { optional, readOptions, string, unchecked, type Rules } from '../tensor/rules';
import { TRANSFER, type Transfer, type TransferOptions } from './fetch-weights';
import { publishedOf } from './find-weights';
import { create, type WeightsPlace } from './from-weights';
import { loadModel } from './open-weights';
import type { ClassifyingModule, ModelRecord, PublishedWeights } from './record';

const PLACE = { key: optional(string), prefix: optional(string) } satisfies Rules<WeightsPlace>;

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
  const wanted = { subject: record, weights: published };
  return loadModel([record], wanted, { progress, checkHash, signal }, where, given);
}

/** A factory's own options beside weights, which say the ones that are left out. */
function ownRules({ rules }: ModelRecord): Rules<Record<string, unknown>> {
  const own = Object.entries(rules).filter(([name]) => name !== 'initWeights');
  return Object.fromEntries(own.map(([name, rule]) => [name, optional(rule)]));
}

/** Before anything is downloaded. @throws ERR_SENET_STATE_DICT */
function checkChannels(
  record: ModelRecord,
  { inChannels = record.inChannels }: PublishedWeights,
  given: { inChannels?: number },
): void {
  const { inChannels: channels = inChannels } = given;
  if (channels === inChannels || record.adaptsWeights) return;
  throw makeError(
    'ERR_SENET_STATE_DICT',
    `${record.name}: inChannels: the published weights take images of ${inChannels} channels, got ${channels}`,
  );
}

/**
 * Options of a network that will be known when its file is found: those of the file, and its factory's own, of which some
 * network has each.
 *
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION
 */
export function readFileOptions(
  records: readonly ModelRecord[],
  options: object,
  where: string,
): [file: Transfer & WeightsPlace, network: Readonly<Record<string, unknown>>] {
  const names = records.flatMap((record) => Object.keys(ownRules(record)));
  const own = Object.fromEntries(names.map((name) => [name, unchecked()]));
  const rules = { ...own, ...PLACE, ...TRANSFER };
  const read = readOptions(options as Record<string, unknown>, rules, where);
  const { key, prefix, progress, checkHash, signal, ...network } = read;
  return [{ key, prefix, progress, checkHash, signal }, network];
}
