/**
 * `tidy`, `noGrad` and `autocast`: scopes that follow the caller through awaits (AsyncLocalStorage), so that concurrent ones never
 * see each other's tensors or mode.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import type { AutocastDType } from '../binding';
import { isMap, isPlainObject, isPromise, isSet } from '../brands';
import { makeError } from '../errors';
import { describe } from './options';
import { boolean, oneOf, orElse, readOptions, type Rules } from './rules';

/** What a scope disposes: anything that was made inside and was not returned. */
export interface Disposable {
  dispose(): void;
}

export interface Scope {
  readonly grad: boolean;
  readonly autocast: AutocastDType | null;
  /** Tensors made in this scope; null when no `tidy` encloses it, or once it has ended. */
  owned: Set<Disposable> | null;
}

const AUTOCAST = {
  dtype: orElse('bfloat16', oneOf(['bfloat16', 'float16'])),
  enabled: orElse(true, boolean),
} satisfies Rules<AutocastOptions>;

const storage = new AsyncLocalStorage<Scope>();

export function currentScope(): Scope | undefined {
  return storage.getStore();
}

/** False inside `noGrad`. */
export function gradEnabled(): boolean {
  return storage.getStore()?.grad ?? true;
}

/** What `autocast` computes in; null outside of it. */
export function autocastDType(): AutocastDType | null {
  return storage.getStore()?.autocast ?? null;
}

/** Gives a new tensor to the scope that was current when its operation was called. */
export function adopt(tensor: Disposable, scope: Scope | undefined): void {
  scope?.owned?.add(tensor);
}

/**
 * Runs `fn` and disposes every tensor made inside it that is not in its result. Tensors inside returned arrays, Maps,
 * Sets and plain objects are kept (and belong to the enclosing `tidy`, if there is one). Parameters, buffers and
 * gradients are never disposed. `fn` may be async: the scope lasts until its promise settles.
 *
 * @throws whatever `fn` throws, after everything made inside was disposed; ERR_SENET_ARG_TYPE
 */
export function tidy<T>(fn: () => T): T {
  const outer = storage.getStore();
  const scope: Scope = {
    grad: outer?.grad ?? true,
    autocast: outer?.autocast ?? null,
    owned: new Set(),
  };
  return runScoped(fn, scope, (result) => endTidy(scope, outer, result));
}

/**
 * Runs `fn` without recording gradients, as `torch.no_grad()`; `fn` may be async.
 *
 * @throws whatever `fn` throws; ERR_SENET_ARG_TYPE
 */
export function noGrad<T>(fn: () => T): T {
  return runInMode(fn, { grad: false });
}

export interface AutocastOptions {
  /**
   * What convolutions and matrix products compute in. 'float16' has three bits more than 'bfloat16' and a range that small
   * gradients fall out of: scale the loss with a `GradScaler`. Default 'bfloat16'.
   */
  dtype?: AutocastDType;
  /** False: full precision again inside an outer `autocast`. Default true. */
  enabled?: boolean;
}

/**
 * Runs `fn` in mixed precision, as `torch.autocast('cpu', dtype=torch.bfloat16)`: convolutions and matrix products compute
 * in 16 bits, losses and what else needs the range in float32. Weights stay float32, and so do their gradients. Run
 * forward and loss inside, backward and the optimiser's step outside. `fn` may be async.
 *
 * Pays on processors that compute in bfloat16 (AMX, AVX512-BF16), and on CUDA devices, in either dtype.
 *
 * @throws whatever `fn` throws; ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
 */
export function autocast<T>(fn: () => T, options?: AutocastOptions): T {
  const { enabled, dtype } = readOptions(options, AUTOCAST, 'autocast');
  return runInMode(fn, { autocast: enabled ? dtype : null });
}

/** Runs `fn` in the present scope with another mode. */
export function runInMode<T>(fn: () => T, mode: { grad?: boolean; autocast?: AutocastDType | null }): T {
  if (typeof fn !== 'function')
    throw makeError('ERR_SENET_ARG_TYPE', `expected a function, got ${describe(fn)}`);
  const outer = storage.getStore();
  // Shares what the enclosing tidy owns: a tensor made in here is made in there.
  const scope: Scope = {
    grad: mode.grad ?? outer?.grad ?? true,
    autocast: mode.autocast === undefined ? (outer?.autocast ?? null) : mode.autocast,
    get owned() {
      return outer?.owned ?? null;
    },
    set owned(_ended) {
      // only tidy ends a scope
    },
  };
  return storage.run(scope, fn);
}

/**
 * Runs `fn` outside the caller's scopes and without gradients: for work that goes on after the call that started it.
 * What it makes belongs to `owned`, or to nobody.
 */
export function detached<T>(owned: Set<Disposable> | null, fn: () => T): T {
  return storage.run({ grad: false, autocast: null, owned }, fn);
}

function runScoped<T>(fn: () => T, scope: Scope, end: (result: unknown) => void): T {
  if (typeof fn !== 'function')
    throw makeError('ERR_SENET_ARG_TYPE', `expected a function, got ${describe(fn)}`);
  let result: T;
  try {
    result = storage.run(scope, fn);
  } catch (error) {
    end(undefined);
    throw error;
  }
  if (isPromise(result)) {
    return result.then(
      (value: unknown) => {
        end(value);
        return value;
      },
      (error: unknown) => {
        end(undefined);
        throw error;
      },
    ) as T;
  }
  end(result);
  return result;
}

function endTidy(scope: Scope, outer: Scope | undefined, result: unknown): void {
  const owned = scope.owned;
  scope.owned = null;
  if (owned === null) return;
  const kept = new Set<unknown>();
  try {
    collect(result, kept);
  } catch (error) {
    for (const tensor of owned) tensor.dispose();
    throw error; // of a getter: nobody gets the result
  }
  for (const tensor of owned) {
    if (kept.has(tensor)) adopt(tensor, outer);
    else tensor.dispose();
  }
}

/** Everything reachable from a result through arrays, Maps, Sets and plain objects. */
function collect(value: unknown, seen: Set<unknown>): void {
  const waiting = [value];
  while (waiting.length > 0) {
    const next = waiting.pop();
    if (typeof next !== 'object' || next === null || seen.has(next)) continue;
    seen.add(next);
    if (ArrayBuffer.isView(next)) continue;
    // Pushed one by one: as arguments, a long array would overflow the stack.
    for (const item of contentsOf(next)) waiting.push(item);
  }
}

function contentsOf(container: object): Iterable<unknown> {
  if (Array.isArray(container) || isSet(container)) return container as Iterable<unknown>;
  if (isMap(container)) return [...container].flat();
  return isPlainObject(container) ? Object.values(container) : [];
}
