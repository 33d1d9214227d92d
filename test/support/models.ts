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

export function zooKeys(): ZooKeys[] {
  const file = path.join(__dirname, '..', 'fixtures', 'zoo', 'keys.tsv');
  const [, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n');
  const others = readFileSync(path.join(path.dirname(file), 'pytorchcv.json'), 'utf8');
  const { keys } = JSON.parse(others) as { keys: readonly Omit<ZooKeys, 'source'>[] };
  return [
    ...lines.map((line) => {
      const [source, name, entries, sha256] = line.split('\t') as [string, ModelName, string, string];
      return { source, name, entries: Number(entries), sha256 };
    }),
    ...keys.map((one) => ({ source: 'pytorchcv', ...one })),
  ];
}

/** timm's, Cadene's and pytorchcv's networks; and NVIDIA's, which `recognise.test.ts` has under NVIDIA's keys. */
export function zooNames(): ModelName[] {
  return [...zooKeys().map(({ name }) => name), 'nvidia_seresnext101_32x4d'];
}
