/**
 * Module: a native module, its parameters and its children, as `torch.nn.Module`.
 *
 * The tree lives in C++; this side holds one wrapper for each module and one Tensor for each parameter and buffer, made
 * when they are first asked for and the same objects ever after. Handles, modes and jobs are the addon's.
 */
import type { CompiledHandle, ModuleHandle, ModuleNode, ModuleOptionValue, TensorHandle } from '../binding';
import { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { binding } from '../native';
import { parseTarget, type Target } from '../tensor/dtype';
import { runJob, runJobSync } from '../tensor/jobs';
import { checkBoolean, checkOptions, checkSignal, checkString, describe } from '../tensor/options';
import { currentScope, gradEnabled, type Scope } from '../tensor/scope';
import { callOperator, handleOf, wrapTensor, wrapUntracked, type Tensor } from '../tensor/tensor';
import { COMPILED_DTYPES, CompiledModel, type CompiledDType } from './compiled-model';
import { matchStateDict, type LoadStateDictOptions, type LoadStateDictResult } from './load-state-dict';

export interface ForwardOptions {
  /** Record a graph for `backward`. Default: in training mode yes, in evaluation mode no. */
  grad?: boolean;
}

export interface CompileOptions {
  dtype?: CompiledDType;
  signal?: AbortSignal;
}

export interface AsyncForwardOptions extends ForwardOptions {
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/** One parameter or buffer of a tree. */
export interface TreeTensor {
  /** From the root, "layer1.0.conv1.weight". */
  readonly path: string;
  readonly kind: 'parameter' | 'buffer';
  readonly tensor: Tensor;
}

/** What the modules of one native tree share. */
interface Tree {
  readonly root: ModuleHandle;
  readonly nodes: readonly ModuleNode[];
  readonly tensors: readonly TreeTensor[];
  readonly modules: Map<string, Module<unknown>>;
}

type ModuleClass = abstract new (...args: never[]) => Module<unknown>;

/** Python's class name -> the class whose prototype a child gets. Filled by the files that define the classes. */
const classes = new Map<string, ModuleClass>();

/** Makes children of the native type `type` instances of `moduleClass`. */
export function registerModuleClass(type: string, moduleClass: ModuleClass): void {
  classes.set(type, moduleClass);
}

/** A new native module. @throws the argument errors of `native/models/registry.h` */
export function createNativeModule(
  type: string,
  options: Readonly<Record<string, ModuleOptionValue>>,
): ModuleHandle {
  return binding.createModule(type, options);
}

/** Where a child stands in its parent's tree. */
class Place {
  constructor(
    readonly tree: Tree,
    readonly node: ModuleNode,
  ) {}
}

/**
 * The base of every module. Threads: `forward` runs on the library's own threads; several may be in flight.
 *
 * @typeParam Out what `forward` gives: a Tensor, or for SE-Inception-v3 in training `{ logits, auxLogits }`
 */
export abstract class Module<Out = Tensor> {
  readonly #handle: ModuleHandle;
  #tree: Tree | undefined;
  readonly #path: string;

  /** @internal */
  protected constructor(source: ModuleHandle | Place) {
    if (source instanceof Place) {
      this.#handle = source.node.handle;
      this.#tree = source.tree;
      this.#path = source.node.path;
    } else {
      this.#handle = source;
      this.#path = '';
    }
  }

  /** @internal */
  static handleOf(module: Module<unknown>): ModuleHandle {
    return module.#handle;
  }

  /** @internal True for modules of this very copy of the library. */
  static isModule(value: unknown): value is Module<unknown> {
    return typeof value === 'object' && value !== null && #handle in value;
  }

  /** True in training mode, which is how modules are made. */
  get training(): boolean {
    return binding.isTraining(this.#handle);
  }

  /** Sets training mode here and in all descendants. Jobs that were submitted before keep the mode of their call. */
  train(mode = true): this {
    binding.setTraining(this.#handle, checkBoolean(mode, 'train: mode'));
    return this;
  }

  /** Sets evaluation mode: BatchNorm uses its running statistics, dropout is the identity. */
  eval(): this {
    return this.train(false);
  }

  /**
   * Runs the module on the executor's threads, off the event loop. Mode and input are those of the call.
   *
   * Deviates from PyTorch: records a graph only in training mode or with `{ grad: true }`.
   *
   * @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_DEVICE, ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async forward(x: Tensor, options?: AsyncForwardOptions): Promise<Out> {
    const { grad, signal } = checkOptions(options, ['grad', 'signal'], 'forward');
    const checkedSignal = checkSignal(signal, 'forward: signal');
    const scope = currentScope();
    const value = await runJob(() => this.#submit(x, grad), checkedSignal);
    return toOutput(value, scope) as Out;
  }

  /** As `forward`, blocking the calling thread until it is done. */
  forwardSync(x: Tensor, options?: ForwardOptions): Out {
    const { grad } = checkOptions(options, ['grad'], 'forwardSync');
    return toOutput(
      runJobSync(() => this.#submit(x, grad)),
      currentScope(),
    ) as Out;
  }

  #submit(x: Tensor, grad: boolean | undefined): number {
    const recorded =
      grad === undefined ? this.training && gradEnabled() : checkBoolean(grad, 'forward: grad');
    return binding.moduleForward(this.#handle, handleOf(x, 'forward: x'), recorded);
  }

  /**
   * Converts floating parameters and buffers to a dtype, or all to a device, in place, as `torch.nn.Module.to`.
   *
   * @throws ERR_SENET_BUSY while a job on this module is queued or running; ERR_SENET_DTYPE, ERR_SENET_CUDA_UNAVAILABLE
   */
  to(target: Target): this {
    const { dtype, device, memoryFormat } = parseTarget(target);
    binding.moduleTo(this.#handle, dtype, device, memoryFormat);
    return this;
  }

  /**
   * An inference-only copy: BatchNorm folded into the convolutions, weights prepacked, everything fused that can be. It
   * shares nothing with this module, which may be trained further, or disposed, without changing it.
   *
   * @param options.dtype of weights and activations: 'float32' (default), 'bfloat16', or 'float16' where the device
   *   computes with it. The compiled model takes and gives float32 whatever this is.
   * @param options.signal rejects at once with ERR_SENET_ABORTED when it aborts
   * @throws (rejects) ERR_SENET_DTYPE for another dtype or one that this device does not compute with;
   *   ERR_SENET_COMPILE for a part of a model that takes no image; ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async compile(options?: CompileOptions): Promise<CompiledModel> {
    const { dtype = 'float32', signal } = checkOptions(options, ['dtype', 'signal'], 'compile');
    if (!COMPILED_DTYPES.includes(dtype)) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `compile: dtype: expected ${COMPILED_DTYPES.join(', ')}, got ${describe(dtype)}`,
      );
    }
    const checkedSignal = checkSignal(signal, 'compile: signal');
    const value = await runJob(() => binding.compileModule(this.#handle, dtype), checkedSignal);
    return new CompiledModel(value as CompiledHandle, dtype);
  }

  /** The parameters of this module and its descendants, in PyTorch's order; the same objects each time. */
  parameters(): Tensor[] {
    return this.namedParameters().map(([, tensor]) => tensor);
  }

  namedParameters(): [string, Tensor][] {
    return this.#named('parameter');
  }

  /** Running statistics and the like, in PyTorch's order; the same objects each time. */
  namedBuffers(): [string, Tensor][] {
    return this.#named('buffer');
  }

  #named(kind: TreeTensor['kind']): [string, Tensor][] {
    return this.#ownTensors()
      .filter((entry) => entry.kind === kind)
      .map(({ path, tensor }) => [path, tensor]);
  }

  /** This module (path '') and its descendants, in PyTorch's order; the same objects each time. */
  namedModules(): [string, Module<unknown>][] {
    const tree = this.#openTree();
    return tree.nodes
      .filter(({ path }) => isInside(path, this.#path))
      .map((node) => [relative(node.path, this.#path), this.#moduleAt(tree, node)]);
  }

  /** The descendant at a dotted path ("layer1.0.se"); '' is this module. @throws ERR_SENET_ARG_RANGE */
  getSubmodule(path: string): Module<unknown> {
    checkString(path, 'getSubmodule: path');
    const tree = this.#openTree();
    const full = path === '' ? this.#path : this.#path === '' ? path : `${this.#path}.${path}`;
    const node = tree.nodes.find((candidate) => candidate.path === full);
    if (node === undefined)
      throw makeError('ERR_SENET_ARG_RANGE', `getSubmodule: there is no module at '${path}'`);
    return this.#moduleAt(tree, node);
  }

  /** Sets every parameter's gradient to null, as PyTorch does by default. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.grad = null;
  }

  /** Parameters and buffers by name, sharing this module's memory as in PyTorch, with the module versions as metadata. */
  stateDict(): StateDict {
    const versions = this.#openTree()
      .nodes.filter(({ path }) => isInside(path, this.#path))
      .map(({ path, version }) => [relative(path, this.#path), { version }] as const);
    const state = new StateDict([], new Map(versions));
    for (const { path, tensor } of this.#ownTensors())
      state.set(path, callOperator('aten::detach', [tensor]) as Tensor);
    return state;
  }

  /**
   * Loads parameters and buffers by name: all of them, or none.
   *
   * @param options.strict default true: keys that are missing or unexpected are an error. Shapes that differ always are.
   * @param options.assign default false: copy into this module. True adopts the given tensors, with their dtype and
   *   device, instead of copying, as PyTorch's `assign=True`.
   * @throws ERR_SENET_STATE_DICT with every missing, unexpected and mismatched key in `details`; ERR_SENET_BUSY
   */
  loadStateDict(
    stateDict: StateDict | Map<string, Tensor>,
    options?: LoadStateDictOptions,
  ): LoadStateDictResult {
    const { strict = true, assign = false } = checkOptions(options, ['strict', 'assign'], 'loadStateDict');
    checkBoolean(strict, 'loadStateDict: strict');
    checkBoolean(assign, 'loadStateDict: assign');
    const modules = this.#openTree()
      .nodes.filter(({ path }) => isInside(path, this.#path))
      .map(({ path, type, version }) => ({ path: relative(path, this.#path), type, version }));
    const { names, tensors, result } = matchStateDict(stateDict, this.#ownTensors(), modules, strict);
    binding.moduleLoad(
      this.#handle,
      names,
      tensors.map((tensor, index) => handleOf(tensor, names[index] ?? 'tensor')),
      assign,
    );
    return result;
  }

  /**
   * Frees this module with its parameters and buffers (the Tensors that `parameters()` gave are disposed too; those of
   * `stateDict()` live on). Jobs that run finish first. Children belong to their root: disposing one is an error.
   *
   * @throws ERR_SENET_ARG_RANGE for a child
   */
  dispose(): void {
    if (this.#path !== '') {
      throw makeError('ERR_SENET_ARG_RANGE', `'${this.#path}' is part of a larger module: dispose that one`);
    }
    binding.disposeModule(this.#handle);
    for (const { tensor } of this.#tree?.tensors ?? []) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #ownTensors(): TreeTensor[] {
    return this.#openTree()
      .tensors.filter(({ path }) => isInside(path, this.#path))
      .map((entry) => ({ ...entry, path: relative(entry.path, this.#path) }));
  }

  #openTree(): Tree {
    binding.isTraining(this.#handle); // throws ERR_SENET_DISPOSED
    if (this.#tree === undefined) {
      const nodes = binding.moduleTree(this.#handle);
      const tensors = nodes.flatMap((node) => [
        ...node.parameters.map(([name, handle]) => treeTensor(node.path, name, 'parameter', handle)),
        ...node.buffers.map(([name, handle]) => treeTensor(node.path, name, 'buffer', handle)),
      ]);
      this.#tree = { root: this.#handle, nodes, tensors, modules: new Map([['', this]]) };
    }
    return this.#tree;
  }

  #moduleAt(tree: Tree, node: ModuleNode): Module<unknown> {
    const known = tree.modules.get(node.path);
    if (known !== undefined) return known;
    // The base constructor on another class's prototype: a child needs none of that class's own construction.
    const made = Reflect.construct(
      Module,
      [new Place(tree, node)],
      classes.get(node.type) ?? NativeModule,
    ) as Module<unknown>;
    tree.modules.set(node.path, made);
    return made;
  }
}

/** A part of a model that has no class of its own here: a convolution, a BatchNorm, a Sequential. */
export class NativeModule extends Module {}

function treeTensor(
  modulePath: string,
  name: string,
  kind: TreeTensor['kind'],
  handle: TensorHandle,
): TreeTensor {
  return { path: modulePath === '' ? name : `${modulePath}.${name}`, kind, tensor: wrapUntracked(handle) };
}

function isInside(path: string, root: string): boolean {
  return root === '' || path === root || path.startsWith(`${root}.`);
}

function relative(path: string, root: string): string {
  return root === '' ? path : path.slice(root.length + 1);
}

function toOutput(value: unknown, scope: Scope | undefined): unknown {
  const both = value as { logits?: TensorHandle; auxLogits?: TensorHandle };
  if (both.logits === undefined || both.auxLogits === undefined)
    return wrapTensor(value as TensorHandle, scope);
  return { logits: wrapTensor(both.logits, scope), auxLogits: wrapTensor(both.auxLogits, scope) };
}
