/** What a user calls weights: the name of published ones, a repository of the hub, or a path. Asks the registry. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

import { makeError } from '../errors';
import { printable } from '../printable';
import { checkString, hint } from '../tensor/options';
import type { PublishedWeights } from './record';
import type { Transfer } from './pretrained';
import { hasScheme } from './model-source';
import {
  allRecords,
  findPublished,
  locateWeights,
  modelRecord,
  parseName,
  publishedAs,
  type ModelName,
} from './registry';

/**
 * Published weights of a model, or of any (null), or a path: the one that is given, or that of a hub's file or a folder's.
 *
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (neither a file nor a name, with the names that there are)
 */
export async function findWeights(
  weights: string,
  model: ModelName | null,
  where: string,
  transfer: Transfer = {},
): Promise<PublishedWeights | string> {
  checkString(weights, `${where}: weights`);
  const source = hasScheme(weights) ? parseName(weights, where) : null;
  if (source !== null && source.kind !== 'model') return (await locateWeights(source, transfer, where)).file;
  const published =
    model === null ? allRecords().flatMap((record) => record.weights) : modelRecord(model).weights;
  const named =
    model === null
      ? findPublished(weights)
      : published.find(({ name }) => name === weights || `${model}.${name}` === weights);
  if (named !== undefined) return named;
  const elsewhere = publishedAs(weights);
  // A path, whether it exists or not.
  if (elsewhere.length === 0 && /[/\\.]/.test(weights)) return weights;
  const exists = await access(weights, constants.F_OK).then(
    () => true,
    () => false,
  );
  if (exists) return weights;
  const names = published.map(({ name }) => name);
  const owners = elsewhere.map((one) => one.model);
  const meant = owners.length === 0 ? hint(weights, names) : `; they are of ${owners.join(', ')}`;
  const list = listOf(model, names);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: no file and no published weights '${printable(weights)}'${meant} (${list})`,
  );
}

function listOf(model: ModelName | null, names: readonly string[]): string {
  if (model === null) return 'give one as NETWORK.NAME';
  return names.length === 0 ? `${model} has no published weights` : `published are ${names.join(', ')}`;
}
