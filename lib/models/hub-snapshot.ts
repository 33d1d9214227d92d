/** The weights of a repository of the Hugging Face hub, with the `config.json` that says what they are. */
import { isSenetError } from '../errors';
import { fetchFromHub } from '../hub/hugging-face';
import type { ProgressOption } from '../hub/progress';

/** The weights of a repository, with its `config.json` beside them. */
export async function fetchSnapshot(
  repository: string,
  revision: string,
  { progress, signal }: { progress?: ProgressOption | undefined; signal?: AbortSignal | undefined },
): Promise<string> {
  const options = { revision, signal, ...(progress === undefined ? {} : { progress }) };
  await fetchFromHub(repository, 'config.json', { ...options, progress: false });
  try {
    return await fetchFromHub(repository, 'model.safetensors', options);
  } catch (error) {
    if (!isSenetError(error) || (error.details as { status?: number } | undefined)?.status !== 404)
      throw error;
    return fetchFromHub(repository, 'pytorch_model.bin', options);
  }
}
