/**
 * From what a user calls a network and its weights to the network's record and the file of the weights, in one way for
 * every caller: published ones by name, a repository of the hub, a folder or a path. Knows the records that it is given,
 * and not the registry; reads no weights.
 */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

import { makeError } from '../errors';
import { Module } from '../nn/module';
import { printable } from '../printable';
import { checkString, describe, hint } from '../tensor/options';
import { toFile, type Transfer } from './fetch-weights';
import type { Subject, WeightsPlace } from './from-weights';
import { architectureBeside } from './hub-config';
import { configOf, fileOf } from './hub-snapshot';
import { identifyFile } from './identify';
import { parseModel, parseScheme, saysWeights, type ModelSource, type WeightsSource } from './model-source';
import type { ModelRecord, PublishedWeights } from './record';

/** Which weights are meant, and what for. */
export interface WantedWeights<Of extends Subject = ModelRecord> {
  /** Null where the weights say it. */
  readonly subject: Of | null;
  /** What published ones or a file are called, or what that means. */
  readonly weights: string | PublishedWeights | WeightsSource;
}

/** Their file. */
export interface FoundWeights<Of extends Subject = ModelRecord> {
  readonly subject: Of;
  /** Of published ones. */
  readonly published: PublishedWeights | undefined;
  readonly file: string;
}

/**
 * What a network's name, taken apart, and the weights beside it mean together; `pretrained` the usual ones.
 *
 * @throws ERR_SENET_ARG_RANGE where they say two things; ERR_SENET_ARG_MISSING where nothing says the weights
 */
export function wantedWeights(
  model: ModelSource | null,
  { weights, pretrained = false }: { weights?: string | null | undefined; pretrained?: boolean | undefined },
  where: string,
): WantedWeights {
  const given = weights ?? null;
  if (given !== null && pretrained)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: { pretrained } and { weights } exclude each other`);
  if (given !== null && model !== null && saysWeights(model)) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: weights: the model says the weights already: leave { weights } out`,
    );
  }
  if (model === null) {
    if (given !== null) return { subject: null, weights: given };
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `${where}: ${pretrained ? '{ pretrained } needs { model }, such as se_resnet50' : 'give { weights: FILE } or { pretrained }'}`,
    );
  }
  if (model.kind !== 'model') return { subject: null, weights: model };
  const { record, published } = model;
  const usual = pretrained ? publishedOf(record, true, `${where}: pretrained`) : null;
  const wanted = given ?? published ?? usual;
  if (wanted !== null) return { subject: record, weights: wanted };
  const names = record.weights.map(({ name }) => `'${name}'`).join(', ');
  throw makeError(
    'ERR_SENET_ARG_MISSING',
    `${where}: weights: expected a path or a name, or { pretrained } (${record.name}: ${names === '' ? 'there are no published ones' : `published: ${names}`})`,
  );
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

/** All that are meant by a name of their own, or behind their model's: 'seresnet50.a1_in1k'. */
function publishedAmong(records: readonly ModelRecord[], weights: string): PublishedWeights[] {
  const all = records.flatMap((record) => record.weights);
  return all.filter(({ name, model }) => name === weights || `${model}.${name}` === weights);
}

/**
 * The file of the weights, fetched if need be, and the network that they are for.
 *
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (neither a file nor a name, with the names that there are),
 *   ERR_SENET_FILE_NOT_FOUND, ERR_SENET_UNKNOWN_MODEL, and as `toFile`, `fetchFromHub` and `identifyFile`
 */
export async function findAmong<Of extends Subject>(
  records: readonly ModelRecord[],
  { subject, weights }: WantedWeights<Of>,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<FoundWeights<ModelRecord | Of>> {
  const named: Subject | null = subject;
  const record = Module.isModule(named) ? null : named;
  const meant = typeof weights === 'string' ? await meaningOf(records, weights, record, where) : weights;
  if ('location' in meant) {
    const own = subject ?? (records.find(({ name }) => name === meant.model) as ModelRecord);
    return { subject: own, published: meant, file: await toFile(meant, options) };
  }
  const file = await fileOf(meant, options, where);
  const own = subject ?? (await recordOf(records, meant, file, options, where));
  return { subject: own, published: undefined, file };
}

/** What a user calls weights. */
async function meaningOf(
  records: readonly ModelRecord[],
  weights: string,
  record: ModelRecord | null,
  where: string,
): Promise<PublishedWeights | WeightsSource> {
  checkString(weights, `${where}: weights`);
  const source = parseScheme(weights, where);
  if (source !== null) return source;
  const elsewhere = publishedAmong(records, weights);
  const own = record === null ? elsewhere : elsewhere.filter(({ model }) => model === record.name);
  const [named, ...others] = own;
  if (named !== undefined && others.length === 0) return named;
  const exists = await access(weights, constants.F_OK).then(
    () => true,
    () => false,
  );
  if (exists) return { kind: 'file', file: weights };
  if (elsewhere.length === 0) {
    // A tag that its network has not is said as such; what else looks like a path is one.
    const parsed = parseModel(records, weights, where);
    if (parsed?.kind === 'model' && parsed.published !== null) return parsed.published;
    if (/[/\\.]/.test(weights)) return { kind: 'file', file: weights };
  }
  const names = (record === null ? records : [record]).flatMap((one) => one.weights.map(({ name }) => name));
  const owners = elsewhere.map(({ model }) => model);
  const meant = owners.length === 0 ? hint(weights, names) : `; they are of ${owners.join(', ')}`;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: no file and no published weights '${printable(weights)}'${meant} (${listOf(record, names)})`,
  );
}

function listOf(record: ModelRecord | null, names: readonly string[]): string {
  if (record === null) return 'give one as NETWORK.NAME';
  return names.length === 0 ? `${record.name} has no published weights` : `published are ${names.join(', ')}`;
}

/** The network that a file is for: of a repository and a folder what `config.json` says, else what the file does. */
async function recordOf(
  records: readonly ModelRecord[],
  { kind }: WeightsSource,
  file: string,
  place: WeightsPlace,
  where: string,
): Promise<ModelRecord> {
  const architecture = kind === 'file' ? null : await architectureBeside(file);
  return architecture === null
    ? identifyFile(records, file, place, where)
    : recordNamed(records, architecture, where);
}

/** What `config.json` names. */
function recordNamed(records: readonly ModelRecord[], architecture: string, where: string): ModelRecord {
  const record = records.find(({ name }) => name === architecture);
  if (record !== undefined) return record;
  throw makeError(
    'ERR_SENET_UNKNOWN_MODEL',
    `${where}: config.json names the network '${printable(architecture)}', which the library does not have`,
  );
}

/** The network that a name is of; of a repository only its `config.json` is fetched, if that says it. Errors: as `findAmong`. */
export async function networkAmong(
  records: readonly ModelRecord[],
  source: ModelSource,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<ModelRecord> {
  if (source.kind === 'model') return source.record;
  if (source.kind === 'hub') {
    const architecture = await architectureBeside(await configOf(source, options));
    if (architecture !== null) return recordNamed(records, architecture, where);
  }
  const wanted: WantedWeights = { subject: null, weights: source };
  return (await findAmong(records, wanted, options, where)).subject;
}
