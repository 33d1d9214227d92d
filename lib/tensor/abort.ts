/**
 * AbortSignals of callers: many jobs may hang on one, and it stays as the caller made it. Node warns of a signal with
 * more than ten listeners, and to raise that limit would be to change the signal; so there is one listener for all.
 */
import { makeError } from '../errors';

/** Signal -> what is called when it aborts. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `callback` once when the signal aborts; the function that it gives ends that. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  const known = waiting.get(signal);
  const callbacks = known ?? new Set<() => void>();
  if (known === undefined) {
    waiting.set(signal, callbacks);
    signal.addEventListener('abort', callAll, { once: true });
  }
  // A function of its own: the same callback may wait twice.
  const entry = (): void => callback();
  callbacks.add(entry);
  return () => {
    if (!callbacks.delete(entry) || callbacks.size > 0 || waiting.get(signal) !== callbacks) return;
    waiting.delete(signal);
    signal.removeEventListener('abort', callAll);
  };
}

function callAll(this: AbortSignal): void {
  const callbacks = waiting.get(this);
  waiting.delete(this);
  for (const callback of callbacks ?? []) callback();
}

/**
 * A signal that aborts with any of these, until `stop` is called. Not AbortSignal.any, which refuses the signals of other
 * realms.
 */
export function anySignal(signals: readonly (AbortSignal | undefined)[]): {
  signal: AbortSignal;
  stop: () => void;
} {
  const controller = new AbortController();
  const stops = signals.map((signal) => {
    const abort = (): void => controller.abort(signal?.reason);
    if (signal?.aborted === true) abort();
    return signal === undefined ? () => undefined : onAbort(signal, abort);
  });
  return { signal: controller.signal, stop: () => stops.forEach((stop) => stop()) };
}

/** The error of an aborted signal: name 'AbortError', ERR_SENET_ABORTED, cause = the signal's reason. */
export function abortError(signal: AbortSignal): Error {
  return makeError('ERR_SENET_ABORTED', 'The operation was aborted', { cause: signal.reason });
}

/** @throws ERR_SENET_ABORTED */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}

/** Rejects at once when the signal aborts; what was begun ends unseen. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    if (signal.aborted) reject(abortError(signal));
    else stop = onAbort(signal, () => reject(abortError(signal)));
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stop?.();
  }
}

/** Settles when the signal aborts; at once where it has. */
export function whenAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else onAbort(signal, resolve);
  });
}
