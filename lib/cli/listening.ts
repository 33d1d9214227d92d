/** What commands say of an address on which they cannot listen. Loads nothing native. */
import { isError } from '../brands';
import { makeError, type AnySenetError } from '../errors';
import { printNote } from './output';

/** What the system said of an address, with a code and advice; any other error as it is. */
export function listenError<E>(error: E, host: string, port: number): E | AnySenetError {
  const { code, syscall = '' } = error as NodeJS.ErrnoException;
  if (!isError(error) || !/^(listen|bind|getaddrinfo)$/.test(syscall)) return error;
  if (code === 'EADDRINUSE') printNote(`another server listens on ${host}:${port}: give another --port`);
  return makeError('ERR_SENET_ARG_RANGE', `${host}:${port}: ${error.message}`, { cause: error });
}
