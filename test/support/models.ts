/** The models that tests of every kind of network go through. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { listModels, type ModelName } from '../../lib';

/**
 * All but timm's and Cadene's deepest and widest, which are rows of the same classes: `parity/zoo.test.ts` has the keys and
 * the logits of those.
 */
export const LIGHT_MODELS: readonly ModelName[] = listModels().filter(
  (name) => name.startsWith('se_') || !/1\d\d|2\d\d|3[57]0|420/.test(name),
);

/** A line of `fixtures/zoo/keys.tsv`: whose a network is, how many entries its state dict has, and their digest. */
export interface ZooKeys {
  readonly source: string;
  readonly name: ModelName;
  readonly entries: number;
  readonly sha256: string;
}

export function zooKeys(): ZooKeys[] {
  const file = path.join(__dirname, '..', 'fixtures', 'zoo', 'keys.tsv');
  const [, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const [source, name, entries, sha256] = line.split('\t') as [string, ModelName, string, string];
    return { source, name, entries: Number(entries), sha256 };
  });
}

/** timm's and Cadene's networks. */
export function zooNames(): ModelName[] {
  return zooKeys().map(({ name }) => name);
}
