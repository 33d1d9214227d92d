/** Progress of a transfer: a callback of the caller's, or a bar on a terminal. */
import { makeError } from '../errors';
import { printable } from '../printable';

export interface TransferProgress {
  /** Bytes that are there, resumed ones included. */
  bytes: number;
  /** Bytes in all, if the server says. */
  total?: number;
}

/** True: a bar on stderr if that is a terminal. False: silence. Or a function that is called as bytes arrive. */
export type ProgressOption = boolean | ((progress: TransferProgress) => void);

export interface ProgressReporter {
  update(progress: TransferProgress): void;
  stop(): void;
}

/** @throws ERR_SENET_ARG_TYPE */
export function makeProgress(option: ProgressOption, title: string): ProgressReporter {
  if (typeof option === 'function') return { update: option, stop: () => undefined };
  if (typeof option !== 'boolean') {
    throw makeError('ERR_SENET_ARG_TYPE', `progress: expected a boolean or a function, got ${typeof option}`);
  }
  if (!option || !process.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  // Loaded only here: few programs show a bar, and it takes its time.
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- CommonJS, as the output
  const { Presets, SingleBar } = require('cli-progress') as typeof import('cli-progress');
  const bar = new SingleBar(
    {
      format: `${printable(title)} {bar} {percentage}% | {done} of {size} MB | {eta_formatted} left`,
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: false,
    },
    Presets.shades_classic,
  );
  let started = false;
  return {
    update({ bytes, total }) {
      const payload = { done: megabytes(bytes), size: total === undefined ? '?' : megabytes(total) };
      if (!started) bar.start(total ?? bytes, bytes, payload);
      started = true;
      bar.update(bytes, payload);
    },
    stop: () => bar.stop(),
  };
}
