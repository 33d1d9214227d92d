/** What tests say about errors: the code, the class that belongs to it, and words of the message. */
import { expect } from 'chai';

import { ERROR_CODES, isSenetError, type AnySenetError, type ErrorCode } from '../../lib/errors';

const CLASSES = { Error, TypeError, RangeError };

export function expectCoded(error: unknown, code: ErrorCode, words?: RegExp): AnySenetError {
  if (!isSenetError(error)) throw error;
  expect(error.code).to.equal(code);
  expect(error).to.be.instanceOf(CLASSES[ERROR_CODES[code].base]);
  if (words !== undefined) expect(error.message).to.match(words);
  return error;
}

/** Awaits a promise that must reject with `code`, and gives the error. */
export async function expectRejection(
  promise: Promise<unknown>,
  code: ErrorCode,
  words?: RegExp,
): Promise<AnySenetError> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    return expectCoded(error, code, words);
  }
  throw new Error(`expected ${code}, got ${String(value)}`);
}

/** Calls what must throw `code` at once, and gives the error. */
export function expectThrow(run: () => unknown, code: ErrorCode, words?: RegExp): AnySenetError {
  let value: unknown;
  try {
    value = run();
  } catch (error) {
    return expectCoded(error, code, words);
  }
  throw new Error(`expected ${code}, got ${String(value)}`);
}
