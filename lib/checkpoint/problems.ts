/**
 * How the readers of checkpoints word their errors: what is wrong, then where. Text that comes from the file is made
 * printable (`printable.ts`) and short first, because error messages reach terminals and logs. Knows no file format.
 */
import { makeError, type AnySenetError, type ErrorCode } from '../errors';

type CheckpointCode = Extract<ErrorCode, `ERR_SENET_CHECKPOINT_${string}`>;

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
