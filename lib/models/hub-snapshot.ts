/**
 * The weights of a repository of the Hugging Face hub, with the `config.json` that says what they are; and of a folder that
 * is laid out as one. Loads nothing native.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { makeError } from '../errors';
import { fetchFromHub, isOutOfReach, refusedStatus } from '../hub/hugging-face';
import type { ProgressOption } from '../hub/progress';
import { printable } from '../printable';
import type { WeightsSource } from './model-source';

interface SnapshotOptions {
  progress?: ProgressOption | undefined;
  signal?: AbortSignal | undefined;
}

/** The `config.json` of a repository. Errors: as `fetchFromHub`. */
export async function configOf(
  { repository, revision }: { repository: string; revision: string },
  { signal }: SnapshotOptions,
): Promise<string> {
  return fetchFromHub(repository, 'config.json', { revision, signal, progress: false });
}

/** The weights of a repository, with its `config.json` beside them. Errors: as `fetchFromHub`. */
export async function fetchSnapshot(
  repository: string,
  revision: string,
  { progress, signal }: SnapshotOptions,
): Promise<string> {
  const folder = path.dirname(await configOf({ repository, revision }, { signal }));
  // The commit that this is of: another may be published before the weights are asked for.
  const options = {
    revision: path.basename(folder),
    signal,
    ...(progress === undefined ? {} : { progress }),
  };
  try {
    return await fetchFromHub(repository, 'model.safetensors', options);
  } catch (error) {
    if (refusedStatus(error) === 404) return fetchFromHub(repository, 'pytorch_model.bin', options);
    const kept = path.join(folder, 'pytorch_model.bin');
    if (isOutOfReach(error) && existsSync(kept)) return kept;
    throw error;
  }
}

/** The file of weights: fetched if need be. @throws (rejects) ERR_SENET_FILE_NOT_FOUND, and as `fetchFromHub` */
export async function fileOf(
  source: WeightsSource,
  options: SnapshotOptions,
  where: string,
): Promise<string> {
  switch (source.kind) {
    case 'file':
      return source.file;
    case 'hub':
      return fetchSnapshot(source.repository, source.revision, options);
    case 'folder':
      return inFolder(source.folder, where);
  }
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
