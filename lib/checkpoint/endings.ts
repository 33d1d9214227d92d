/** What files of weights are called. What is in a file is said by its bytes (`parse.ts`), never by these. */
import path from 'node:path';

import { makeError } from '../errors';
import { printable } from '../printable';
import { checkString } from '../tensor/options';

/** What checkpoints are called. */
export const CHECKPOINT_ENDINGS = ['safetensors', 'pt', 'pth', 'pkl', 'bin', 'ckpt'] as const;
export const CHECKPOINT_NAME = new RegExp(`\\.(${CHECKPOINT_ENDINGS.join('|')})$`);

/** Of these, what `save` writes beside `.safetensors`. */
export const TORCH_ENDINGS: readonly string[] = ['.pt', '.pth', '.pkl', '.bin'];

/** In any case, as the endings of all files that are written. */
export function isSafetensorsPath(file: string): boolean {
  return endingOf(file) === '.safetensors';
}

export function isTorchPath(file: string): boolean {
  return TORCH_ENDINGS.includes(endingOf(file));
}

function endingOf(file: string): string {
  return path.extname(file).toLowerCase();
}

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE for a path that ends otherwise */
export function checkSafetensorsPath(file: unknown, what: string): string {
  const given = checkString(file, what);
  if (isSafetensorsPath(given)) return given;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${what}: expected a path that ends in .safetensors, got '${printable(given, 1000)}'`,
  );
}
