/**
 * What a user calls a network, as timm's `create_model` and beyond it: a name with or without a tag (`seresnet50.a1_in1k`),
 * a repository of the hub (`hf-hub:timm/seresnet50.a1_in1k@revision`), a folder (`local-dir:path`) or a file of weights.
 * Knows the records that it is given, and not the registry.
 */
import path from 'node:path';

import { CHECKPOINT_ENDINGS } from '../checkpoint/endings';
import { makeError } from '../errors';
import { checkRepository, checkRevision } from '../hub/hugging-face';
import { printable } from '../printable';
import type { ModelRecord, PublishedWeights } from './record';

/** Where weights are that no network's name says. */
export type WeightsSource =
  | { readonly kind: 'hub'; readonly repository: string; readonly revision: string }
  | { readonly kind: 'folder'; readonly folder: string }
  | { readonly kind: 'file'; readonly file: string };

/** A name that was taken apart. */
export type ModelSource =
  | { readonly kind: 'model'; readonly record: ModelRecord; readonly published: PublishedWeights | null }
  | WeightsSource;

/** Names that timm had before (timm/models/resnet.py, register_model_deprecations). */
const FORMER_NAMES: Readonly<Record<string, string>> = {
  gluon_senet154: 'senet154.gluon_in1k',
  gluon_seresnext50_32x4d: 'seresnext50_32x4d.gluon_in1k',
  gluon_seresnext101_32x4d: 'seresnext101_32x4d.gluon_in1k',
  gluon_seresnext101_64x4d: 'seresnext101_64x4d.gluon_in1k',
  seresnext26tn_32x4d: 'seresnext26t_32x4d',
};

const SCHEME = /^(hf-hub|hf_hub|local-dir|local_dir):(.*)$/s;

/** What files of weights are called; the last two so that the error is about what they are. */
const ENDINGS = [...CHECKPOINT_ENDINGS, 'zip', 'tar', 'onnx'] as const;
export type WeightsEnding = (typeof ENDINGS)[number];

const FILE = new RegExp(`[/\\\\]|\\.(${ENDINGS.join('|')})$`, 'i');

/** Whether it says the weights too: a repository, a folder, a file, or a network with a tag. */
export function saysWeights(source: ModelSource): boolean {
  return source.kind !== 'model' || source.published !== null;
}

/**
 * What is called as a repository or a folder is; null of any other name.
 *
 * @throws ERR_SENET_ARG_RANGE for no repository, no revision or no folder
 */
export function parseScheme(name: string, where: string): Exclude<WeightsSource, { kind: 'file' }> | null {
  const [, scheme, rest = ''] = SCHEME.exec(name) ?? [];
  if (scheme === undefined) return null;
  if (scheme === 'hf-hub' || scheme === 'hf_hub') {
    const [repository = '', ...revisions] = rest.split('@');
    const revision = revisions.length === 0 ? 'main' : checkRevision(revisions.join('@'), where);
    return { kind: 'hub', repository: checkRepository(repository, where), revision };
  }
  if (rest !== '') return { kind: 'folder', folder: rest };
  throw makeError('ERR_SENET_ARG_RANGE', `${where}: local-dir: expected a folder behind it`);
}

/** Where weights are that are called by no name of their own. @throws as `parseScheme` */
export function parseSource(name: string, where: string): WeightsSource {
  return parseScheme(name, where) ?? { kind: 'file', file: name };
}

/** What a name is that was written in a file of `folder`: a path is taken from there, any other name stays. */
export function besideFile(name: string, folder: string): string {
  const [, scheme, rest = ''] = SCHEME.exec(name) ?? [];
  if (scheme === undefined) return FILE.test(name) ? path.resolve(folder, name) : name;
  return scheme.startsWith('local') && rest !== '' ? `${scheme}:${path.resolve(folder, rest)}` : name;
}

/** Whether a name is of weights and not of a network: a repository, a folder or a file. */
export function isOfWeights(records: readonly ModelRecord[], name: string): boolean {
  return SCHEME.test(name) || (FILE.test(name) && parseModel(records, name, '')?.kind === 'file');
}

/**
 * Takes a name apart; null if it means nothing of this.
 *
 * @throws ERR_SENET_ARG_RANGE for a tag that the network has not, or no repository
 */
export function parseModel(records: readonly ModelRecord[], name: string, where: string): ModelSource | null {
  const source = parseScheme(name, where);
  if (source !== null) return source;
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
