/** Packages that only those install who need what they are for. */
import { isError } from './brands';
import { makeError } from './errors';

/**
 * @param purpose - what needs it, for the message: 'senet-torch serve'
 * @throws ERR_SENET_PEER_MISSING
 */
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- what the caller knows it to be
export function requirePeer<T>(name: string, purpose: string): T {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- there or not
    return require(name) as T;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    // What it itself lacks is another fault.
    if (code !== 'MODULE_NOT_FOUND' || !isError(cause) || !cause.message.includes(`'${name}'`)) throw cause;
    throw makeError(
      'ERR_SENET_PEER_MISSING',
      `${purpose} needs the package ${name}, which is not installed: npm install ${name}`,
      { cause },
    );
  }
}
