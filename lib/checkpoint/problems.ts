/**
 * How the readers of checkpoints word their errors: what is wrong, then where. Text that comes from the file is made
 * printable and short first, because error messages reach terminals and logs. Knows no file format.
 */
import { makeError, type AnySenetError, type ErrorCode } from '../errors';

type CheckpointCode = Extract<ErrorCode, `ERR_SENET_CHECKPOINT_${string}`>;

/** Text from a file as one short line of printable characters; everything else is escaped. */
export function printable(text: string, maxLength = 120): string {
  const cut = text.length > maxLength ? `${text.slice(0, maxLength)}...` : text;
  return cut.replace(
    /[^\x20-\x7e\u00a1-\u02ff\u0370-\u1fff\u3040-\ud7ff]/g,
    (character) => `\\u{${character.charCodeAt(0).toString(16)}}`,
  );
}

/** An error about the contents of `label`, at a byte of the file where one is known. */
export function checkpointError(
  code: CheckpointCode,
  label: string,
  message: string,
  offset?: number,
): AnySenetError {
  const place = offset === undefined ? '' : `, at byte ${offset}`;
  return makeError(code, `${label}: ${message}${place}`);
}
