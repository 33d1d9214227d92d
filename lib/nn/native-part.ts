/**
 * The native part of a module: its handle, and what C++ says of it. The children that C++ made get wrappers here, of
 * the classes that were registered for their types. Knows nothing of the tree that they become part of.
 */
import type { ModuleHandle } from '../binding';
import { binding } from '../native';
import { wrapUntracked, type Tensor } from '../tensor/tensor';

/** What everything below `Module` knows of one. */
export interface AnyModule {
  // The arguments of a user's forward are the user's.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  forward(...inputs: any[]): Promise<unknown>;
  readonly training: boolean;
  train(mode?: boolean): unknown;
}

export type ModuleClass = abstract new (...args: never[]) => AnyModule;
export type Forward = (...inputs: unknown[]) => Promise<unknown>;

/** A module's own parameter or buffer. */
export interface OwnTensor {
  readonly name: string;
  readonly kind: 'parameter' | 'buffer';
  /** Part of the state dict. */
  readonly persistent: boolean;
  readonly tensor: Tensor;
}

/** What a module is natively; a module without a native part has no children and tensors here. */
export interface NativeFacts {
  readonly type: string;
  readonly version: number;
  readonly width: readonly [number, number];
  readonly tensors: readonly OwnTensor[];
  readonly children: Map<string, AnyModule>;
  /** Of the children that make a network's classes of its features: how many features that are. */
  readonly headFeatures: ReadonlyMap<string, number>;
}

/** The native part of a module, with the wrappers of the modules that become its children when it is made. */
export class NativePart {
  constructor(
    readonly handle: ModuleHandle,
    readonly adopted: ReadonlyMap<string, AnyModule>,
  ) {}

  /** Channels in and out, which are others once the first or the last child was replaced. */
  readWidth(): NativeFacts['width'] {
    return binding.moduleNode(this.handle).width;
  }

  /** The facts, with the one wrapper of each child: call it once. */
  read(): NativeFacts {
    const { type, version, width, parameters, buffers, children } = binding.moduleNode(this.handle);
    const own = (kind: OwnTensor['kind'], all: typeof parameters): OwnTensor[] =>
      all.map(([name, handle]) => ({ name, kind, persistent: true, tensor: wrapUntracked(handle) }));
    return {
      type,
      version,
      width,
      tensors: [...own('parameter', parameters), ...own('buffer', buffers)],
      children: new Map(
        children.map(([name, childType, handle]) => [
          name,
          this.adopted.get(name) ?? wrap(childType, handle),
        ]),
      ),
      headFeatures: new Map(
        children.filter(([, , , features]) => features > 0).map(([name, , , features]) => [name, features]),
      ),
    };
  }
}

/** Python's class name -> the class whose prototype a child gets. Filled by the files that define the classes. */
const classes = new Map<string, ModuleClass>();
/** Makes the wrappers of children, and is the class of those whose type has none. */
let wrapperClass: ModuleClass | undefined;

/** Type of an SE layer -> its child whose output is the gates. */
const gates = new Map<string, string>();

/** Makes children of the native type `type` instances of `moduleClass`. */
export function registerModuleClass(type: string, moduleClass: ModuleClass): void {
  classes.set(type, moduleClass);
}

/**
 * Makes modules of a type SE layers.
 *
 * @param gate - the child whose output is the gates, the factors that channels are scaled by: N x C, N x C x 1 x 1 or
 *   N x 1 x C
 */
export function registerGate(type: string, gate: string): void {
  gates.set(type, gate);
}

/** The child of an SE layer of this type whose output is the gates; undefined of another type. */
export function gateOf(type: string): string | undefined {
  return gates.get(type);
}

/** Gives the base of the classes of native modules. */
export function setWrapperClass(moduleClass: ModuleClass): void {
  wrapperClass = moduleClass;
}

function wrap(type: string, handle: ModuleHandle): AnyModule {
  const base = wrapperClass as ModuleClass;
  // The base constructor on another class's prototype: a child needs none of that class's own construction.
  const part = new NativePart(handle, new Map());
  return Reflect.construct(base, [part], classes.get(type) ?? base) as AnyModule;
}

/** Forwards that run natively where their module has a native part; every other is the user's TypeScript. */
const nativeForwards = new Set<unknown>();

/** Says that a class's forward is native where its module has a native part. */
export function declareNativeForward(moduleClass: ModuleClass): void {
  nativeForwards.add(forwardOf(moduleClass.prototype as AnyModule));
}

export function isNativeForward(forward: Forward): boolean {
  return nativeForwards.has(forward);
}

/** The method, which is called with its module. */
export function forwardOf(module: AnyModule): Forward {
  return Reflect.get(module, 'forward') as Forward;
}
