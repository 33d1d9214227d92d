/** A certificate of this machine by openssl, for servers of tests. */
import { execFileSync } from 'node:child_process';

import type { Temporary } from './temporary';

/** The files of a certificate of 'localhost' and of its key; undefined, said aloud, where openssl makes none. */
export function makeCertificate(temporary: Temporary): { cert: string; key: string } | undefined {
  const [cert, key] = [temporary.path('cert.pem'), temporary.path('key.pem')];
  const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const name = ['-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  try {
    execFileSync('openssl', [...kind, ...name, '-keyout', key, '-out', cert], { stdio: 'pipe' });
  } catch (error) {
    console.log(`      skipped: openssl makes no certificate here: ${String(error)}`);
    return undefined;
  }
  return { cert, key };
}
