/** The folder of a training run: the names in it, and that no run is written over. */
import { access, mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';

import { makeError } from '../../errors';
import { printable } from '../../printable';
import type { TrainingOptions } from './settings';

export const RUN_FILES = {
  checkpoint: 'checkpoint.pt',
  log: 'log.jsonl',
  best: 'best.safetensors',
  last: 'last.safetensors',
  report: 'report.html',
} as const;
export type RunFile = keyof typeof RUN_FILES;

/** As `save` names them until they are whole. */
const UNFINISHED = /^\.(checkpoint\.pt|(best|last)\.safetensors)\.[0-9a-f]{12}\.tmp$/;

/**
 * Makes the folder, and does not write over another run.
 *
 * @param best - of a resumed run, the best epoch so far
 * @throws (rejects) ERR_SENET_ARG_RANGE, ERR_SENET_RESUME, ERR_SENET_FILE
 */
export async function prepareFolder(
  folder: string,
  { resume, overwrite = false }: TrainingOptions,
  best: { readonly epoch: number } | null,
): Promise<void> {
  const file = (name: string): string => path.join(folder, name);
  const exists = (name: string): Promise<boolean> =>
    access(file(name)).then(
      () => true,
      () => false,
    );
  if (resume === undefined && !overwrite && (await exists(RUN_FILES.checkpoint))) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${printable(folder)} holds a run already: go on with it ({ resume: ${printable(file(RUN_FILES.checkpoint))} }), choose another { output }, or { overwrite } it`,
    );
  }
  if (best !== null && !(await exists(RUN_FILES.best))) {
    throw makeError(
      'ERR_SENET_RESUME',
      `trainFromSettings: resume: the best weights so far (${RUN_FILES.best}, epoch ${best.epoch}) are not in ${printable(folder)}`,
    );
  }
  try {
    await mkdir(folder, { recursive: true });
    // What a killed process was writing.
    for (const name of await readdir(folder))
      if (UNFINISHED.test(name)) await rm(file(name), { force: true });
    // Nothing of another run stays beside this one: a checkpoint would be resumed, and belong to another log.
    if (resume === undefined && overwrite)
      for (const name of Object.values(RUN_FILES)) await rm(file(name), { force: true });
  } catch (cause) {
    throw makeError(
      'ERR_SENET_FILE',
      `trainFromSettings: output: ${printable(folder)}: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}
