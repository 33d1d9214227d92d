/** Certificates of servers. */
import { createSecureContext } from 'node:tls';

import { isError } from '../brands';
import { makeError } from '../errors';

/** @throws ERR_SENET_ARG_RANGE where the two (PEM) are no certificate with its key */
export function checkCertificate({ cert, key }: { cert: Buffer; key: Buffer }, what: string): void {
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    const reason = isError(cause) ? cause.message : String(cause);
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: no certificate with its key: ${reason}`, { cause });
  }
}
