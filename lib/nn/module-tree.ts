/**
 * The tree of modules: a node for each module, with its children, parent and path, what of it is native, and whether
 * calls of it run.
 *
 * A module has a native part or not. With one, its forward and its children are C++'s, and this side holds one wrapper
 * for each of them, made when it is first asked for and the same ever after. Either kind has as children, after the
 * native ones, the modules that are its own enumerable properties, in the order of their declaration; they are looked up
 * whenever they are needed, since a class field is plain JavaScript that nobody announces.
 */
import type { ModuleHandle } from '../binding';
import { makeError, type ErrorCode } from '../errors';
import { binding } from '../native';
import { runJob } from '../tensor/jobs';
import { describe } from '../tensor/options';
import { ForwardHooks } from './hooks';
import {
  forwardOf,
  isNativeForward,
  type AnyModule,
  type NativeFacts,
  type NativePart,
  type OwnTensor,
} from './native-part';

interface Child {
  readonly name: string;
  readonly node: TreeNode;
  readonly native: boolean;
}

const nodes = new WeakMap<object, TreeNode>();

/** The node of a module of this very copy of the library; undefined for any other value. */
export function findNode(value: unknown): TreeNode | undefined {
  return typeof value === 'object' && value !== null ? nodes.get(value) : undefined;
}

export function nodeOf(module: AnyModule): TreeNode {
  return nodes.get(module) as TreeNode;
}

/** @throws ERR_SENET_ARG_TYPE */
export function requireNode(value: unknown, where: string): TreeNode {
  const node = findNode(value);
  if (node !== undefined) return node;
  throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Module, got ${describe(value)}`);
}

/** One module's place in the tree. */
export class TreeNode {
  readonly hooks = new ForwardHooks();
  /** Parameters and buffers that TypeScript registered. */
  readonly registered: OwnTensor[] = [];
  readonly #native: NativePart | undefined;
  #facts: NativeFacts | undefined;
  #parent: TreeNode | undefined;
  #training = true; // without a native part
  #disposed = false;
  #running = 0; // calls of a TypeScript forward
  #whenIdle: (() => void)[] = [];

  constructor(
    readonly module: AnyModule,
    native: NativePart | undefined,
  ) {
    this.#native = native;
    nodes.set(module, this);
    for (const child of native?.adopted.values() ?? []) nodeOf(child).#parent = this;
  }

  // --- what is native ---

  get handle(): ModuleHandle | undefined {
    return this.#native?.handle;
  }

  /** The name of Python's class, or of the user's. */
  get type(): string {
    return this.#native === undefined ? this.module.constructor.name : this.readFacts().type;
  }

  /** What the native part says of itself, read once; makes the wrappers of its children. */
  readFacts(): NativeFacts {
    if (this.#facts !== undefined) return this.#facts;
    this.#facts = this.#native?.read() ?? {
      type: this.type,
      version: 1,
      width: [0, 0],
      tensors: [],
      children: new Map(),
      headFeatures: new Map(),
    };
    for (const child of this.#facts.children.values()) nodeOf(child).#parent = this;
    return this.#facts;
  }

  get hasNativeForward(): boolean {
    return this.#native !== undefined && isNativeForward(forwardOf(this.module));
  }

  /** Whether C++ alone can run the module: its forward is native and nobody hooks it. */
  get runsNatively(): boolean {
    return this.hasNativeForward && !this.hooks.any;
  }

  /** @throws ERR_SENET_TS_FORWARD */
  requireNative(where: string, what: string): ModuleHandle {
    if (this.handle !== undefined && this.runsNatively) return this.handle;
    const why = this.hasNativeForward ? 'has forward hooks' : 'is TypeScript';
    throw makeError(
      'ERR_SENET_TS_FORWARD',
      `${where}: the forward of this ${this.type} ${why}, so it cannot ${what}`,
    );
  }

  /** The handle of a module that can become a part of a native one. @throws ERR_SENET_TS_FORWARD, ERR_SENET_MODULE_TREE */
  freeHandle(where: string): ModuleHandle {
    const handle = this.requireNative(where, 'be part of a native module');
    this.#requireFree(where);
    return handle;
  }

  get isNativeChild(): boolean {
    const parent = this.#currentParent();
    return parent !== undefined && parent.#holdsNatively(this);
  }

  // --- mode ---

  get training(): boolean {
    if (this.handle !== undefined) return binding.isTraining(this.handle);
    this.checkOpen();
    return this.#training;
  }

  train(mode: boolean): void {
    this.checkOpen();
    if (this.handle !== undefined) binding.setTraining(this.handle, mode);
    this.#training = mode;
    this.#trainProperties(mode);
  }

  /** C++ sets the native children; here are the others. */
  #trainProperties(mode: boolean): void {
    for (const { node, native } of this.#children(false)) {
      if (native) node.#trainProperties(mode);
      else node.module.train(mode);
    }
  }

  // --- children ---

  /** In PyTorch's order: native children, then properties. @throws ERR_SENET_MODULE_TREE */
  children(): readonly Child[] {
    return this.#children(true);
  }

  /** With `read` false, of the native children only those that have wrappers. */
  #children(read: boolean): Child[] {
    const known = read ? this.readFacts().children : this.#known();
    const children = Array.from(known, ([name, module]): Child => ({
      name,
      node: nodeOf(module),
      native: true,
    }));
    const native = children.length;
    for (const [name, node] of this.#properties()) {
      this.#claim(name, node, children.slice(0, native));
      children.push({ name, node, native: false });
    }
    return children;
  }

  /** The native children that have wrappers. */
  #known(): ReadonlyMap<string, AnyModule> {
    return this.#facts?.children ?? this.#native?.adopted ?? new Map();
  }

  /** Own enumerable properties that are modules. No getter is called. */
  #properties(): [string, TreeNode][] {
    const found: [string, TreeNode][] = [];
    for (const name of Object.keys(this.module)) {
      const node = findNode(Object.getOwnPropertyDescriptor(this.module, name)?.value);
      if (node !== undefined) found.push([name, node]);
    }
    return found;
  }

  /** Makes a module that was found in a property this one's child. */
  #claim(name: string, child: TreeNode, native: readonly Child[]): void {
    checkName(name, this.type);
    const className = this.module.constructor.name;
    const label = `'${name}' of ${className}`;
    if (native.some((other) => other.name === name)) {
      throw makeError(
        'ERR_SENET_MODULE_TREE',
        `${label} is a native child and a field too: assign it in the constructor, or use replaceModule`,
      );
    }
    const places = this.#properties().filter(([, other]) => other === child).length;
    if (places > 1 || native.some(({ node }) => node === child))
      throw shared(label, `is in this ${className} twice`);
    if (child.#parent === this) return;
    if (child.#isAbove(this)) throw containsItself(label);
    child.#requireFree(label);
    child.#parent = this;
  }

  /** Puts `node` where the child of that name is, and gives the one that was there. @throws as `Module.replaceModule` */
  replaceChild(name: string, node: TreeNode, where: string): TreeNode {
    const child = this.children().find((candidate) => candidate.name === name);
    if (child === undefined) throw makeError('ERR_SENET_ARG_RANGE', `${where}: there is no such module`);
    const old = child.node;
    if (old === node) return old;
    if (child.native) node.requireNative(where, 'be part of a native module');
    node.#requireFree(where);
    if (node.#isAbove(this)) throw containsItself(where);
    this.#checkIdle();
    for (const handle of [...old.idleHandles(), ...node.idleHandles()]) binding.assertIdle(handle);
    if (child.native) {
      binding.replaceModule(this.handle as ModuleHandle, name, node.handle as ModuleHandle);
      this.readFacts().children.set(name, node.module);
      this.#renewWidth();
    } else {
      (this.module as unknown as Record<string, unknown>)[name] = node.module;
    }
    old.#parent = undefined;
    node.#parent = this;
    return old;
  }

  /** Of this module and those that it is a part of, after a child was replaced. */
  #renewWidth(): void {
    if (this.#native === undefined) return;
    if (this.#facts !== undefined) this.#facts = { ...this.#facts, width: this.#native.readWidth() };
    const parent = this.#currentParent();
    if (parent !== undefined) parent.#renewWidth();
  }

  // --- places ---

  /** This node (path '') and its descendants, in PyTorch's order. @throws ERR_SENET_MODULE_TREE */
  walk(): [string, TreeNode][] {
    this.checkOpen();
    const found: [string, TreeNode][] = [];
    const visit = (path: string, node: TreeNode): void => {
      found.push([path, node]);
      for (const child of node.children()) visit(join(path, child.name), child.node);
    };
    visit('', this);
    return found;
  }

  /** @throws ERR_SENET_ARG_RANGE */
  descendant(path: string): TreeNode {
    this.checkOpen();
    const names = path === '' ? [] : path.split('.');
    return names.reduce<TreeNode>((node, name) => {
      const child = node.children().find((candidate) => candidate.name === name);
      if (child !== undefined) return child.node;
      throw makeError('ERR_SENET_ARG_RANGE', `getSubmodule: there is no module at '${path}'`);
    }, this);
  }

  /** From the root. */
  get path(): string {
    const parent = this.#currentParent();
    if (parent === undefined) return '';
    const name = parent.#children(false).find(({ node }) => node === this)?.name ?? '?';
    return join(parent.path, name);
  }

  #root(): TreeNode {
    const parent = this.#currentParent();
    return parent === undefined ? this : parent.#root();
  }

  /** The parent, if it holds this module still: a property may have been given another value. */
  #currentParent(): TreeNode | undefined {
    const parent = this.#parent;
    if (parent === undefined || parent.#holdsNatively(this)) return parent;
    return parent.#properties().some(([, node]) => node === this) ? parent : undefined;
  }

  #holdsNatively(child: TreeNode): boolean {
    return [...this.#known().values()].includes(child.module);
  }

  /** Whether this is `node` or one that `node` is inside of. */
  #isAbove(node: TreeNode): boolean {
    for (let one: TreeNode | undefined = node; one !== undefined; one = one.#currentParent())
      if (one === this) return true;
    return false;
  }

  /** @throws ERR_SENET_MODULE_TREE */
  #requireFree(where: string): void {
    const parent = this.#currentParent();
    if (parent !== undefined) throw shared(where, `is '${this.path}' of ${parent.#root().type} already`);
  }

  // --- calls that run ---

  /** Counts `work` among the calls of a TypeScript forward. */
  async whileRunning<T>(work: () => Promise<T>): Promise<T> {
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
      if (this.#running === 0) for (const then of this.#whenIdle.splice(0)) then();
    }
  }

  /** Once what made a change of the module ERR_SENET_BUSY has ended; another forward may have begun since. */
  async whenIdle(): Promise<void> {
    const busy = this.#runningForward();
    if (busy === undefined) await runJob(() => binding.afterQueued());
    else await new Promise<void>((resolve) => busy.#whenIdle.push(resolve));
  }

  /** The handles of the native parts of the tree; none of the TypeScript ones is running. @throws ERR_SENET_BUSY */
  idleHandles(): ModuleHandle[] {
    this.#checkIdle();
    return this.walk()
      .map(([, node]) => node)
      .filter((node) => node === this || !node.isNativeChild)
      .flatMap((node) => node.handle ?? []);
  }

  /** @throws ERR_SENET_BUSY while a TypeScript forward runs in which this module takes part */
  #checkIdle(): void {
    const busy = this.#runningForward();
    if (busy !== undefined) {
      throw makeError(
        'ERR_SENET_BUSY',
        `${busy.#running} forward(s) of this ${busy.type} are running; await them before changing it`,
      );
    }
  }

  /** A module whose TypeScript forward runs, and this one takes part in it. */
  #runningForward(): TreeNode | undefined {
    const above: TreeNode[] = [];
    for (let one = this.#currentParent(); one !== undefined; one = one.#currentParent()) above.push(one);
    return [...above, ...this.#loaded()].find((node) => node.#running > 0);
  }

  /** This node and the descendants that have wrappers. */
  #loaded(): TreeNode[] {
    const found: TreeNode[] = [this];
    for (const child of this.#known().values()) found.push(...nodeOf(child).#loaded());
    for (const [, child] of this.#properties())
      if ((child.#currentParent() ?? this) === this) found.push(...child.#loaded());
    return found;
  }

  // --- the end ---

  /** @throws ERR_SENET_DISPOSED */
  checkOpen(): void {
    if (this.#disposed) throw makeError('ERR_SENET_DISPOSED', 'the module was disposed');
    if (this.handle !== undefined) binding.isTraining(this.handle); // throws
  }

  /** Frees the tree once the calls that run have ended. @throws ERR_SENET_ARG_RANGE for a child */
  dispose(): void {
    if (this.#currentParent() !== undefined) {
      throw makeError('ERR_SENET_ARG_RANGE', `'${this.path}' is part of a larger module: dispose that one`);
    }
    if (this.#disposed) return;
    this.#disposed = true;
    const running = this.#loaded().filter((node) => node.#running > 0);
    let left = running.length;
    if (left === 0) this.#free();
    for (const node of running) node.#whenIdle.push(() => --left === 0 && this.#free());
  }

  #free(): void {
    for (const node of this.#loaded()) {
      node.#disposed = true;
      if (node.handle !== undefined && !node.isNativeChild) binding.disposeModule(node.handle);
      for (const { tensor } of [...(node.#facts?.tensors ?? []), ...node.registered]) tensor.dispose();
    }
  }
}

/** PyTorch's rule: a dot would make two keys of one. */
export function checkName(name: string, where: string): void {
  if (name === '' || name.includes('.'))
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: a name must not be empty or have a dot, got '${name}'`);
}

export function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function shared(where: string, why: string): Error {
  const code: ErrorCode = 'ERR_SENET_MODULE_TREE';
  return makeError(
    code,
    `${where}: this module ${why}; a module has one parent (call it from there, or make two)`,
  );
}

function containsItself(where: string): Error {
  return makeError('ERR_SENET_MODULE_TREE', `${where}: a module cannot be part of itself`);
}
