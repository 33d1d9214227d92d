/** The models that tests of every kind of network go through. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { listModels, type ModelName } from '../../lib';

/** A network of timm's, Cadene's and pytorchcv's for each kind of block, stem, attention and pool; the others are rows of the same classes. */
const EXAMPLES = [
  'seresnet18',
  'seresnext26t_32x4d',
  'seresnetaa50d',
  'resnetrs50',
  'ecaresnet26t',
  'legacy_seresnet18',
  'legacy_seresnet50',
  'legacy_seresnext26_32x4d',
  'pytorchcv_seresnet20',
  'pytorchcv_sepreresnet10',
] as const satisfies ModelName[];

/** What takes seconds for a network is tested with these: `parity/zoo.test.ts` has the keys and logits of the others. */
export const LIGHT_MODELS: readonly ModelName[] = listModels().filter(
  (name) => name.startsWith('se_') || EXAMPLES.some((example) => example === name),
);

/** A line of `fixtures/zoo/keys.tsv`, or an entry of `pytorchcv.json`: whose a network is, how many entries its state dict has, and their digest. */
export interface ZooKeys {
  readonly source: string;
  readonly name: ModelName;
  readonly entries: number;
  readonly sha256: string;
}

const ZOO = path.join(__dirname, '..', 'fixtures', 'zoo');

function readZoo<T>(name: string): T {
  return JSON.parse(readFileSync(path.join(ZOO, name), 'utf8')) as T;
}

export function zooKeys(): ZooKeys[] {
  const [, ...lines] = readFileSync(path.join(ZOO, 'keys.tsv'), 'utf8').trimEnd().split('\n');
  const { keys } = readZoo<{ keys: readonly Omit<ZooKeys, 'source'>[] }>('pytorchcv.json');
  return [
    ...lines.map((line) => {
      const [source, name, entries, sha256] = line.split('\t') as [string, ModelName, string, string];
      return { source, name, entries: Number(entries), sha256 };
    }),
    ...keys.map((one) => ({ source: 'pytorchcv', ...one })),
  ];
}

/** Those, and what `recognise.test.ts` has under other frameworks' keys. */
export function zooNames(): ModelName[] {
  const { cases } = readZoo<{ cases: readonly { model: ModelName }[] }>('frameworks.json');
  return [...new Set([...zooKeys().map(({ name }) => name), ...cases.map(({ model }) => model)])];
}
