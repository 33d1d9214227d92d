/**
 * Values of a forward that is being traced (`Module.compile` of a TypeScript forward): Tensors that stand for what will
 * flow there, and have no numbers. Operators on them are noted; what needs numbers, or a size, refuses them.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import type { NativeValue, TensorHandle } from '../binding';
import type { AnySenetError } from '../errors';
import { shared } from '../native';

/** A forward that is being traced. */
export interface Trace {
  /** The first refusal inside it. What follows one that the forward caught is not what it computes. */
  refusal?: AnySenetError;
  /** The stack of where its latest value was made. */
  latest?: { readonly stack?: string };
}

const traced = new WeakSet();
/** Forwards that are being traced: none, nearly always, and then nothing is looked up. */
let traces = 0;
/** The trace that code runs inside. Errors of the addon are made by one copy of the library for all of them. */
const current = shared('trace', () => new AsyncLocalStorage<Trace>());

/** Calls `work`, in which traced values exist. */
export async function whileTracing<T>(work: () => Promise<T>): Promise<T> {
  traces++;
  try {
    return await work();
  } finally {
    traces--;
  }
}

/** Calls a forward, which is what `trace` is of. */
export function insideTrace<T>(trace: Trace, forward: () => T): T {
  return current().run(trace, forward);
}

/** Of the forward that this is called inside; undefined where none is traced. */
export function currentTrace(): Trace | undefined {
  return current().getStore();
}

/** Notes that a handle is of a traced value, and where it was made; gives it. */
export function markTraced(handle: TensorHandle): TensorHandle {
  traced.add(handle);
  const trace = currentTrace();
  if (trace !== undefined) Error.captureStackTrace((trace.latest = {}), markTraced);
  return handle;
}

/** Notes an error of the addon that says what cannot be traced, and gives it. */
export function noteRefusal(error: AnySenetError): AnySenetError {
  const trace = error.code === 'ERR_SENET_COMPILE' ? currentTrace() : undefined;
  if (trace !== undefined) trace.refusal ??= error;
  return error;
}

/** Whether a value is the handle of a traced value, or an array with one. */
export function isTraced(value: NativeValue): boolean {
  if (traces === 0) return false;
  return Array.isArray(value)
    ? value.some(isTraced)
    : typeof value === 'object' && value !== null && traced.has(value);
}
