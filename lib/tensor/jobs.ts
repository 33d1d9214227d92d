/**
 * Jobs of the executor as promises. A job starts when it is submitted and settles in a macrotask of its own, so that
 * finalisers get their turn in a loop of awaits; nothing here runs on libuv's pool.
 */
import type { CompiledHandle, TensorHandle } from '../binding';
import { makeError, ofThisCopy, type ErrorCode } from '../errors';
import { binding, shared, whenLoaded } from '../native';
import { abortError, onAbort } from './abort';
import { noteRefusal } from './tracing';

interface Settler {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/**
 * Job -> who waits for it. Beside the addon, of which there is one where this library is loaded again (by Jest, for each
 * file of tests): it then settles the jobs of both copies through the last.
 */
const pending = shared('pending', () => new Map<number, Settler>());

/**
 * An error of the addon. Its stack begins where the addon was called: this copy of the library makes the errors of all
 * that are loaded, and its own files are none of the others'.
 */
function errorOfAddon(code: string, message: string): Error {
  const error = makeError(code as ErrorCode, message.split('\n'));
  Error.captureStackTrace(error, errorOfAddon);
  return noteRefusal(error);
}

whenLoaded(() => {
  binding.initialize(errorOfAddon, settle);
});

function settle(job: number, error: Error | null, value: unknown): void {
  const settler = pending().get(job);
  if (settler === undefined) {
    discard(value); // aborted: the job ended unseen, and nobody else could free what it made
    return;
  }
  pending().delete(job);
  if (error === null) settler.resolve(value);
  else settler.reject(error);
}

/** Frees the tensors, or the compiled model, of a result that nobody takes. */
function discard(value: unknown): void {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return;
  const parts: unknown[] = Object.values(value);
  // A handle has no properties; arrays and pairs of outputs have handles in them.
  if (parts.length > 0) parts.forEach(discard);
  else if (!Array.isArray(value)) binding.discard(value as TensorHandle | CompiledHandle);
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

/**
 * Submits a job and gives its value. Aborting rejects at once: a queued job is dropped, a running one ends unseen.
 * Errors carry the caller's stack.
 */
export function runJob(submit: () => number, signal?: AbortSignal): Promise<unknown> {
  const caller: { stack?: string } = {};
  Error.captureStackTrace(caller, runJob);
  return new Promise((resolve, reject) => {
    if (isAborted(signal)) {
      reject(abortError(signal as AbortSignal));
      return;
    }
    const job = submit(); // what it throws rejects
    const drop = (): void => {
      binding.cancel(job);
      pending().delete(job);
      reject(abortError(signal as AbortSignal));
    };
    const settled = signal === undefined ? () => undefined : onAbort(signal, drop);
    pending().set(job, {
      resolve(value) {
        settled();
        resolve(value);
      },
      reject(failure) {
        settled();
        const error = ofThisCopy(failure);
        const frames = caller.stack?.split('\n').slice(1) ?? [];
        error.stack = [`${error.name}: ${error.message}`, ...frames].join('\n');
        reject(error);
      },
    });
    if (isAborted(signal)) drop(); // by a getter of an argument, while the job was submitted
  });
}

/** Submits a job and blocks until it has ended. */
export function runJobSync(submit: () => number): unknown {
  return binding.wait(submit());
}
