/**
 * Values of a forward that is being traced (`Module.compile` of a TypeScript forward): Tensors that stand for what will
 * flow there, and have no numbers. Operators on them are noted; what needs numbers, or a size, refuses them.
 */
import type { NativeValue, TensorHandle } from '../binding';

const traced = new WeakSet();
/** Forwards that are being traced: none, nearly always, and then nothing is looked up. */
let traces = 0;

/** Calls `work`, in which traced values exist. */
export async function whileTracing<T>(work: () => Promise<T>): Promise<T> {
  traces++;
  try {
    return await work();
  } finally {
    traces--;
  }
}

/** Notes that a handle is of a traced value, and gives it. */
export function markTraced(handle: TensorHandle): TensorHandle {
  traced.add(handle);
  return handle;
}

/** Whether a value is the handle of a traced value, or an array with one. */
export function isTraced(value: NativeValue): boolean {
  if (traces === 0) return false;
  return Array.isArray(value)
    ? value.some(isTraced)
    : typeof value === 'object' && value !== null && traced.has(value);
}
