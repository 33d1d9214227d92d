/**
 * What a user calls a network, as timm's `create_model` and beyond it: a name with or without a tag (`seresnet50.a1_in1k`),
 * a repository of the hub (`hf-hub:timm/seresnet50.a1_in1k@revision`), a folder (`local-dir:path`) or a file of weights.
 * Knows the records that it is given, and not the registry.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { makeError } from '../errors';
import { checkRepository, checkRevision } from '../hub/hugging-face';
import { printable } from '../printable';
import { architectureBeside } from './hub-config';
import { fetchSnapshot } from './hub-snapshot';
import { identifyFile } from './identify';
import type { WeightsPlace } from './from-weights';
import type { Transfer } from './pretrained';
import type { ModelRecord, PublishedWeights } from './record';

/** A name that was taken apart. */
export type ModelSource =
  | { readonly kind: 'model'; readonly record: ModelRecord; readonly published: PublishedWeights | null }
  | { readonly kind: 'hub'; readonly repository: string; readonly revision: string }
  | { readonly kind: 'folder'; readonly folder: string }
  | { readonly kind: 'file'; readonly file: string };

/** Names that timm had before (timm/models/resnet.py, register_model_deprecations). */
const FORMER_NAMES: Readonly<Record<string, string>> = {
  gluon_senet154: 'senet154.gluon_in1k',
  gluon_seresnext50_32x4d: 'seresnext50_32x4d.gluon_in1k',
  gluon_seresnext101_32x4d: 'seresnext101_32x4d.gluon_in1k',
  gluon_seresnext101_64x4d: 'seresnext101_64x4d.gluon_in1k',
  seresnext26tn_32x4d: 'seresnext26t_32x4d',
};

const SCHEME = /^(hf-hub|hf_hub|local-dir|local_dir):(.*)$/s;

const FILE = /[/\\]|\.(safetensors|pth?|pkl|bin|ckpt|tar|zip)$/i;

/** Whether it says the weights too: a repository, a folder, a file, or a network with a tag. */
export function saysWeights(source: ModelSource): boolean {
  return source.kind !== 'model' || source.published !== null;
}

/** Whether a name is of a repository or a folder. */
export function hasScheme(name: string): boolean {
  return SCHEME.test(name);
}

/**
 * Takes a name apart; null if it means nothing of this.
 *
 * @throws ERR_SENET_ARG_RANGE for a tag that the network has not, or no repository
 */
export function parseModel(records: readonly ModelRecord[], name: string, where: string): ModelSource | null {
  const [, scheme, rest = ''] = SCHEME.exec(name) ?? [];
  if (scheme === 'hf-hub' || scheme === 'hf_hub') {
    const [repository = '', ...revisions] = rest.split('@');
    const revision = revisions.length === 0 ? 'main' : checkRevision(revisions.join('@'), where);
    return { kind: 'hub', repository: checkRepository(repository, where), revision };
  }
  if (scheme !== undefined) {
    if (rest === '')
      throw makeError('ERR_SENET_ARG_RANGE', `${where}: local-dir: expected a folder behind it`);
    return { kind: 'folder', folder: rest };
  }
  const known = Object.hasOwn(FORMER_NAMES, name) ? (FORMER_NAMES[name] as string) : name;
  const whole = records.find((record) => record.name === known);
  if (whole !== undefined) return { kind: 'model', record: whole, published: null };
  const dot = known.indexOf('.');
  const record = dot < 0 ? undefined : records.find((one) => one.name === known.slice(0, dot));
  if (record !== undefined) {
    const tag = known.slice(dot + 1);
    const published = record.weights.find((weights) => weights.name === tag);
    if (published !== undefined) return { kind: 'model', record, published };
    if (!FILE.test(name)) {
      const tags = record.weights.map((weights) => weights.name).join(', ') || 'none';
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: ${record.name} has no published weights '${printable(tag)}' (published are ${tags})`,
      );
    }
  }
  return FILE.test(name) ? { kind: 'file', file: name } : null;
}

/** A network and the file of its weights. */
export interface LocatedWeights {
  readonly record: ModelRecord;
  readonly file: string;
}

/** Of what is not named by a network: fetched if need be. Errors: as `fetchFromHub` and `identifyFile`. */
export async function locate(
  records: readonly ModelRecord[],
  source: Exclude<ModelSource, { kind: 'model' }>,
  options: Transfer & WeightsPlace,
  where: string,
): Promise<LocatedWeights> {
  if (source.kind === 'file') {
    return { record: await identifyFile(records, source.file, options, where), file: source.file };
  }
  const file =
    source.kind === 'hub'
      ? await fetchSnapshot(source.repository, source.revision, options)
      : inFolder(source.folder, where);
  const architecture = await architectureBeside(file);
  const record = records.find(({ name }) => name === architecture);
  if (record !== undefined) return { record, file };
  if (architecture === null) return { record: await identifyFile(records, file, options, where), file };
  throw makeError(
    'ERR_SENET_UNKNOWN_MODEL',
    `${where}: config.json names the network '${printable(architecture)}', which the library does not have`,
  );
}

function inFolder(folder: string, where: string): string {
  const found = ['model.safetensors', 'pytorch_model.bin']
    .map((name) => path.join(folder, name))
    .find((file) => existsSync(file));
  if (found !== undefined) return found;
  throw makeError(
    'ERR_SENET_FILE_NOT_FOUND',
    `${where}: ${printable(folder, 1000)}: expected a folder with model.safetensors or pytorch_model.bin`,
  );
}
