/**
 * What a value is, whichever realm made it. `instanceof` asks for the constructor of this very realm; under Jest, in
 * vitest's vm pools, in `node:vm` and in Electron, arrays, Maps and errors come from several. So ESLint refuses
 * `instanceof` of a built-in everywhere else. And what is of another copy of this library, of which a process may load
 * several.
 */
import { types } from 'node:util';

export function isMap(value: unknown): value is Map<unknown, unknown> {
  return types.isMap(value);
}

export function isSet(value: unknown): value is Set<unknown> {
  return types.isSet(value);
}

export function isPromise(value: unknown): value is Promise<unknown> {
  return types.isPromise(value);
}

export function isSharedArrayBuffer(value: unknown): value is SharedArrayBuffer {
  return types.isSharedArrayBuffer(value);
}

/** Its getter reads a typed array's kind from its internal slot, and nothing from any other value. */
const KIND = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype) as object,
  Symbol.toStringTag,
);

/** 'Float32Array' of such an array and of every subclass ('Uint8Array' of a Buffer); undefined of anything else. */
export function typedArrayKind(value: unknown): string | undefined {
  return KIND?.get?.call(value) as string | undefined;
}

export function isUint8Array(value: unknown): value is Uint8Array {
  return types.isUint8Array(value);
}

/** An Error, or a DOMException, which some versions of Node do not count among them. */
export function isError(value: unknown): value is Error {
  return types.isNativeError(value) || tagOf(value) === 'DOMException';
}

export function isAggregateError(value: unknown): value is AggregateError {
  return isError(value) && Array.isArray((value as Partial<AggregateError>).errors);
}

/** By what it can do: jsdom has a class of its own. */
export function isAbortSignal(value: unknown): value is AbortSignal {
  if (typeof value !== 'object' || value === null) return false;
  const { aborted, addEventListener, removeEventListener } = value as Partial<AbortSignal>;
  return (
    typeof aborted === 'boolean' &&
    typeof addEventListener === 'function' &&
    typeof removeEventListener === 'function'
  );
}

/** `{}`, whatever realm's, or an object without a prototype; no instance of a class. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // An Object.prototype is the one kind of prototype that has none itself.
  return prototype === null || (Object.getPrototypeOf(prototype) === null && tagOf(value) === 'Object');
}

const COPY = Symbol.for('senet-torch.copy');
/** Of this copy of the library. */
const THIS_COPY = {};

/** Lets every copy of the library know the instances of a class of this one. */
export function markClass({ prototype }: { readonly prototype: object }): void {
  Object.defineProperty(prototype, COPY, { value: THIS_COPY });
}

/** An instance of a class that another copy marked. */
export function isOfAnotherCopy(value: object): boolean {
  return COPY in value && value[COPY] !== THIS_COPY;
}

function tagOf(value: unknown): string {
  return Object.prototype.toString.call(value).slice('[object '.length, -1);
}
