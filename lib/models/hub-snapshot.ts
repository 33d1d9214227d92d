/** The weights of a repository of the Hugging Face hub, with the `config.json` that says what they are. */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { fetchFromHub, isOutOfReach, refusedStatus } from '../hub/hugging-face';
import type { ProgressOption } from '../hub/progress';

/** The weights of a repository, with its `config.json` beside them. Errors: as `fetchFromHub`. */
export async function fetchSnapshot(
  repository: string,
  revision: string,
  { progress, signal }: { progress?: ProgressOption | undefined; signal?: AbortSignal | undefined },
): Promise<string> {
  const config = await fetchFromHub(repository, 'config.json', { revision, signal, progress: false });
  const folder = path.dirname(config);
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
