/** What a user calls weights: the name of published ones, a repository of the hub, or a path. Asks the registry. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

import { makeError } from '../errors';
import { printable } from '../printable';
import { checkString, hint } from '../tensor/options';
import type { PublishedWeights } from './record';
import type { Transfer } from './pretrained';
import { allRecords, findPublished, locateWeights, modelRecord, parseName, type ModelName } from './registry';

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
  const source = /^(hf|local)[-_](hub|dir):/.test(weights) ? parseName(weights, where) : null;
  if (source !== null && source.kind !== 'model') return (await locateWeights(source, transfer, where)).file;
  const published =
    model === null ? allRecords().flatMap((record) => record.weights) : modelRecord(model).weights;
  const named =
    model === null
      ? findPublished(weights)
      : published.find(({ name }) => name === weights || `${model}.${name}` === weights);
  if (named !== undefined) return named;
  if (/[/\\.]/.test(weights)) return weights; // a path, whether it exists or not
  const exists = await access(weights, constants.F_OK).then(
    () => true,
    () => false,
  );
  if (exists) return weights;
  const names = published.map(({ name }) => name);
  const elsewhere = findPublished(weights);
  const meant = elsewhere === undefined ? hint(weights, names) : `; they are of ${elsewhere.model}`;
  const list = names.length === 0 ? `${model} has no published weights` : `published are ${names.join(', ')}`;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: no file and no published weights '${printable(weights)}'${meant} (${list})`,
  );
}
