/** What a user calls weights: the name of published ones, or a path. Asks the registry. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';

import { makeError } from '../errors';
import { printable } from '../printable';
import { checkString, hint } from '../tensor/options';
import type { PublishedWeights } from './record';
import { allRecords, findPublished, modelRecord, type ModelName } from './registry';

/**
 * Published weights of a model, or of any (null), or the path itself.
 *
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (neither a file nor a name, with the names that there are)
 */
export async function findWeights(
  weights: string,
  model: ModelName | null,
  where: string,
): Promise<PublishedWeights | string> {
  checkString(weights, `${where}: weights`);
  const published =
    model === null ? allRecords().flatMap((record) => record.weights) : modelRecord(model).weights;
  const named = published.find(({ name }) => name === weights);
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
