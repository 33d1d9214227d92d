/** JSON that an option names or is. Loads nothing native. */
import { readFile } from 'node:fs/promises';
import { TextDecoder } from 'node:util';

import { fileError, makeError } from '../errors';

/**
 * The value in a file. A byte-order mark, with which some editors begin one, is none of its text.
 *
 * @param option - with the file, as messages name them: '--config serve.json'
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ARG_RANGE (no JSON)
 */
export async function readJsonFile(file: string, option: string): Promise<unknown> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw fileError(option, cause);
  }
  return parseJsonText(new TextDecoder().decode(bytes), option);
}

/** @throws ERR_SENET_ARG_RANGE */
export function parseJsonText(text: string, option: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw makeError('ERR_SENET_ARG_RANGE', `${option}: expected JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}
