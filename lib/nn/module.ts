/**
 * Module: parameters, buffers and children by name, as `torch.nn.Module`.
 *
 * A module has a native part or not. With one (`NativeModule`), its forward and its children are C++'s, and this side
 * holds one wrapper for each of them, made when it is first asked for and the same ever after. Without one, its forward
 * is a user's method. Either kind has as children, after the native ones, the modules that are its own enumerable
 * properties, in the order of their declaration; they are looked up whenever they are needed, since a class field is
 * plain JavaScript that nobody announces. Jobs, handles and native modes are the addon's.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import { isAbortSignal, isPlainObject, markClass } from '../brands';
import type { CompiledHandle, ModuleHandle, ModuleOptionValue, TensorHandle } from '../binding';
import { StateDict } from '../checkpoint/state-dict';
import { makeError, type ErrorCode } from '../errors';
import { binding } from '../native';
import { isFloating, parseTarget, type Target } from '../tensor/dtype';
import { abortError, untilAborted } from '../tensor/abort';
import { runJob, runJobSync } from '../tensor/jobs';
import { checkBoolean, checkOptions, checkSignal, checkString, describe } from '../tensor/options';
import { autocastEnabled, currentScope, gradEnabled, noGrad, type Scope } from '../tensor/scope';
import { callOperator, handleOf, Tensor, wrapTensor, wrapUntracked } from '../tensor/tensor';
import { COMPILED_DTYPES, CompiledModel, type CompiledDType } from './compiled-model';
import { ForwardHooks, type HookHandle } from './hooks';
import { matchStateDict, type LoadStateDictOptions, type LoadStateDictResult } from './load-state-dict';
import { currentRecorder, summarise, type ModelSummary, type SummaryOptions } from './summary';

export interface ForwardOptions {
  /** Record a graph for `backward`. Default: in training mode yes, in evaluation mode no. */
  grad?: boolean;
}

export interface CompileOptions {
  dtype?: CompiledDType;
  allowTF32?: boolean;
  signal?: AbortSignal;
}

export interface AsyncForwardOptions extends ForwardOptions {
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/** A module's own parameter or buffer. */
interface OwnTensor {
  readonly name: string;
  readonly kind: 'parameter' | 'buffer';
  /** Part of the state dict. */
  readonly persistent: boolean;
  readonly tensor: Tensor;
}

/** What a module is natively; a module without a native part has no children and tensors here. */
interface Native {
  readonly type: string;
  readonly version: number;
  readonly width: readonly [number, number];
  readonly tensors: readonly OwnTensor[];
  readonly children: Map<string, Module<unknown>>;
}

interface Child {
  readonly name: string;
  readonly module: Module<unknown>;
  readonly native: boolean;
}

type ModuleClass = abstract new (...args: never[]) => Module<unknown>;
type Forward = (...inputs: unknown[]) => Promise<unknown>;

/** Python's class name -> the class whose prototype a child gets. Filled by the files that define the classes. */
const classes = new Map<string, ModuleClass>();

/** Makes children of the native type `type` instances of `moduleClass`. */
export function registerModuleClass(type: string, moduleClass: ModuleClass): void {
  classes.set(type, moduleClass);
}

/** The native part of a module that is being made, with the wrappers of the modules that become its children. */
class NativeSource {
  constructor(
    readonly handle: ModuleHandle,
    readonly adopted: ReadonlyMap<string, Module<unknown>>,
  ) {}
}
export type { NativeSource };

/**
 * A new native module. Modules among the options become children of it: one under the option's own name, an array's
 * under their numbers.
 *
 * @throws the argument errors of `native/models/registry.h`; ERR_SENET_MODULE_TREE, ERR_SENET_TS_FORWARD, ERR_SENET_BUSY
 */
export function createNativeModule(
  type: string,
  options: Readonly<Record<string, ModuleOptionValue | Module<unknown> | readonly Module<unknown>[]>>,
): NativeSource {
  const adopted = new Map<string, Module<unknown>>();
  const adopt = (module: Module<unknown>, name: string): ModuleHandle => {
    adopted.set(name, module);
    return Module.freeHandleOf(module, `${type}: ${name}`);
  };
  const plain = Object.entries(options).map(([name, value]): [string, ModuleOptionValue] => {
    if (Module.isModule(value)) return [name, adopt(value, name)];
    if (Array.isArray(value) && value.some((item) => Module.isModule(item))) {
      return [name, value.map((item: Module<unknown>, index) => adopt(item, String(index)))];
    }
    return [name, value as ModuleOptionValue];
  });
  return new NativeSource(binding.createModule(type, Object.fromEntries(plain)), adopted);
}

/**
 * Gives a class of native modules properties by the names of its children: reading gives the child (null if there is
 * none), writing replaces it, `model.fc = new Linear(2048, 5)`.
 */
export function defineChildProperties(moduleClass: ModuleClass, names: readonly string[]): void {
  for (const name of names) {
    Object.defineProperty(moduleClass.prototype, name, {
      configurable: true,
      get(this: Module<unknown>) {
        return this.namedChildren().find(([child]) => child === name)?.[1] ?? null;
      },
      set(this: Module<unknown>, value: Module<unknown>) {
        this.replaceModule(name, value);
      },
    });
  }
}

/** Forwards that run natively where their module has a native part; every other is the user's TypeScript. */
const nativeForwards = new Set<unknown>();

/** Says that a class's forward is native where its module has a native part. */
export function declareNativeForward(moduleClass: ModuleClass): void {
  nativeForwards.add(forwardOf(moduleClass.prototype as Module<unknown>));
}

/** Whether the forward of a user's module that is under way records a graph: what it calls does as it does. */
const recording = new AsyncLocalStorage<boolean>();

/**
 * The base of every module. Threads: a native `forward` runs on the library's own threads; several may be in flight.
 *
 * A network of one's own extends it, has modules as fields, and an async `forward`:
 *
 * ```ts
 * class Net extends Module {
 *   conv = new Conv2d(3, 64, 3, { padding: 1 });
 *   se = new SELayer(64);
 *   async forward(x: Tensor): Promise<Tensor> {
 *     return this.se.forward(await this.conv.forward(x));
 *   }
 * }
 * ```
 *
 * Fields that hold modules are children under the fields' names, in the order of declaration; private `#fields` and
 * modules inside arrays are not (use `ModuleList`). A module has one parent: one that is found in a second place, or
 * below itself, is ERR_SENET_MODULE_TREE.
 *
 * @typeParam Out what `forward` gives: a Tensor, or for SE-Inception-v3 in training `{ logits, auxLogits }`
 */
export abstract class Module<Out = Tensor> {
  readonly #handle: ModuleHandle | undefined;
  readonly #adopted: ReadonlyMap<string, Module<unknown>>;
  #native: Native | undefined;
  #parent: Module<unknown> | undefined;
  readonly #registered: OwnTensor[] = [];
  readonly #hooks = new ForwardHooks();
  #training = true; // without a native part
  #disposed = false;
  #running = 0; // calls of a TypeScript forward
  #whenIdle: (() => void)[] = [];

  /** Arguments are of no account, but for the library's own classes, which give their native part. */
  constructor(...source: unknown[]) {
    const [native] = source;
    if (native instanceof NativeSource) {
      this.#handle = native.handle;
      this.#adopted = native.adopted;
      for (const child of native.adopted.values()) child.#parent = this;
    } else {
      this.#handle = undefined;
      this.#adopted = new Map();
    }
    if (!this.#hasNativeForward()) this.#watchForward();
  }

  /** @internal True for modules of this very copy of the library. */
  static isModule(value: unknown): value is Module<unknown> {
    return typeof value === 'object' && value !== null && #handle in value;
  }

  /** @internal The name of Python's class, or of the user's. */
  static typeOf(module: Module<unknown>): string {
    return module.#handle === undefined ? module.constructor.name : module.#read().type;
  }

  /** @internal */
  static isNative(module: Module<unknown>): boolean {
    return module.#handle !== undefined;
  }

  /** @internal Whether C++ alone can run the module: its forward is native and nobody hooks it. */
  static runsNatively(module: Module<unknown>): boolean {
    return module.#hasNativeForward() && !module.#hooks.any;
  }

  /** @internal Channels or features of a native module's input and output; 0 is any number. */
  static widthOf(module: Module<unknown>): readonly [number, number] {
    module.#checkOpen();
    return module.#read().width;
  }

  /** @internal A module's own tensor, or null. */
  static ownTensor(module: Module<unknown>, name: string): Tensor | null {
    module.#checkOpen();
    return module.#ownTensors().find((own) => own.name === name)?.tensor ?? null;
  }

  /**
   * @internal The handle of a module that can become a part of a native one.
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_TS_FORWARD, ERR_SENET_MODULE_TREE
   */
  static freeHandleOf(module: Module<unknown>, where: string): ModuleHandle {
    checkModule(module, where);
    module.#requireNative(where, 'be part of a native module');
    module.#requireFree(where);
    return module.#handle as ModuleHandle;
  }

  // --- forward ---

  /**
   * What the module computes. A class of one's own defines it; native modules run on the executor's threads, off the
   * event loop, with the mode and the input of the call.
   *
   * Deviates from PyTorch: records a graph only in training mode or with `{ grad: true }`. Inside the forward of
   * another module, that one's mode decides.
   *
   * @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_DEVICE, ERR_SENET_DISPOSED, ERR_SENET_ABORTED;
   *   ERR_SENET_ARG_MISSING in a class that does not define it
   */
  // The arguments of a user's forward are the user's: one image, or two and a mask.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  async forward(...inputs: any[]): Promise<Out> {
    const handle = this.#handle;
    if (handle === undefined) {
      throw makeError('ERR_SENET_ARG_MISSING', `${this.constructor.name}: the class defines no forward`);
    }
    const [x, options] = inputs as [Tensor, AsyncForwardOptions | undefined];
    const { grad, signal } = checkOptions(options, ['grad', 'signal'], 'forward');
    const checkedSignal = checkSignal(signal, 'forward: signal');
    const scope = currentScope();
    const recorder = currentRecorder();
    // Where a TypeScript forward calls this one by `super`, the hooks are for the outer.
    const finish = this.#hasNativeForward() && this.#hooks.any ? this.#hooks.begin() : undefined;
    let output: unknown;
    if (recorder === undefined) {
      output = toOutput(await runJob(() => this.#submit(handle, x, grad), checkedSignal), scope);
    } else {
      const job = runJob(() => binding.moduleRecord(handle, handleOf(x, 'forward: x')), checkedSignal);
      const recorded = (await job) as Recorded;
      for (const [path, , shape] of recorded.calls) recorder.note(this.getSubmodule(path), [shape]);
      output = wrapTensor(recorded.output, scope);
    }
    return (finish === undefined ? output : await finish(this, inputs, output)) as Out;
  }

  /**
   * As `forward`, blocking the calling thread until it is done.
   * @throws as `forward`; ERR_SENET_TS_FORWARD where forward is TypeScript or has hooks
   */
  forwardSync(x: Tensor, options?: ForwardOptions): Out {
    const { grad } = checkOptions(options, ['grad'], 'forwardSync');
    const handle = this.#requireNative('forwardSync', 'block until it is done: call forward');
    return toOutput(
      runJobSync(() => this.#submit(handle, x, grad)),
      currentScope(),
    ) as Out;
  }

  #submit(handle: ModuleHandle, x: Tensor, grad: boolean | undefined): number {
    return binding.moduleForward(handle, handleOf(x, 'forward: x'), this.#records(grad), autocastEnabled());
  }

  #records(grad: boolean | undefined): boolean {
    if (grad !== undefined) return checkBoolean(grad, 'forward: grad');
    return (recording.getStore() ?? this.training) && gradEnabled();
  }

  #hasNativeForward(): boolean {
    return this.#handle !== undefined && nativeForwards.has(forwardOf(this));
  }

  /** @throws ERR_SENET_TS_FORWARD */
  #requireNative(where: string, what: string): ModuleHandle {
    if (this.#handle !== undefined && Module.runsNatively(this)) return this.#handle;
    const why = this.#hasNativeForward() ? 'has forward hooks' : 'is TypeScript';
    throw makeError(
      'ERR_SENET_TS_FORWARD',
      `${where}: the forward of this ${Module.typeOf(this)} ${why}, so it cannot ${what}`,
    );
  }

  /** Stands before a TypeScript forward, as Python's `__call__` does: counts calls, sets the grad mode, runs the hooks. */
  #watchForward(): void {
    const forward = forwardOf(this);
    Object.defineProperty(this, 'forward', {
      configurable: true,
      enumerable: false,
      writable: true,
      value: (...inputs: unknown[]) => this.#call(forward, inputs),
    });
  }

  async #call(forward: Forward, inputs: readonly unknown[]): Promise<unknown> {
    this.#checkOpen();
    const { grad, signal } = forwardOptions(inputs);
    if (signal?.aborted === true) throw abortError(signal);
    const finish = this.#hooks.begin();
    const recorder = currentRecorder();
    const run = (): Promise<unknown> => forward.apply(this, inputs as unknown[]);
    const records = this.#records(grad);
    this.#running++;
    try {
      const result = recording.run(records, () => (records ? run() : noGrad(run)));
      const output = await finish(this, inputs, await untilAborted(result, signal));
      recorder?.note(this, shapesOf(output));
      return output;
    } finally {
      this.#running--;
      if (this.#running === 0) for (const then of this.#whenIdle.splice(0)) then();
    }
  }

  /**
   * Calls `hook(module, inputs, output)` after each forward, as `torch.nn.Module.register_forward_hook`: `inputs` are
   * the arguments of the call as an array; what the hook returns, unless undefined, replaces the output; what it throws
   * rejects the forward. It may be async, and may call the module again. Hooks run in the order of their registration;
   * those of a call are the ones that were registered when it began and have not been removed since.
   *
   * @throws ERR_SENET_ARG_TYPE; ERR_SENET_NATIVE_FORWARD for a part of a native module, which calls it in C++;
   *   ERR_SENET_DISPOSED
   */
  registerForwardHook(hook: (module: this, inputs: readonly unknown[], output: Out) => unknown): HookHandle {
    this.#checkOpen();
    if (this.#isNativeChild()) {
      throw makeError(
        'ERR_SENET_NATIVE_FORWARD',
        `registerForwardHook: '${this.#path()}' is called by a native forward, which calls no JavaScript`,
      );
    }
    return this.#hooks.add(hook);
  }

  /**
   * An inference-only copy: BatchNorm folded into the convolutions, weights prepacked, everything fused that can be. It
   * shares nothing with this module, which may be trained further, or disposed, without changing it.
   *
   * @param options.dtype of weights and activations: 'float32' (default), 'bfloat16', or 'float16' where the device
   *   computes with it. The compiled model takes and gives float32 whatever this is.
   * @param options.allowTF32 lets the convolutions of a float32 model round their factors to TensorFloat-32 on CUDA devices
   *   that have it: faster, and about 1e-3 off. Default false, whatever `cuda.allowTF32` says; changes nothing elsewhere
   * @param options.signal rejects at once with ERR_SENET_ABORTED when it aborts
   * @throws (rejects) ERR_SENET_DTYPE for another dtype or one that this device does not compute with;
   *   ERR_SENET_COMPILE for a module that takes no image, or with a part that cannot be compiled (the message names it);
   *   ERR_SENET_SHAPE for parts whose channels do not fit each other; ERR_SENET_TS_FORWARD where forward is TypeScript or
   *   has hooks (its native parts compile); ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async compile(options?: CompileOptions): Promise<CompiledModel> {
    const {
      dtype = 'float32',
      allowTF32 = false,
      signal,
    } = checkOptions(options, ['dtype', 'allowTF32', 'signal'], 'compile');
    if (!COMPILED_DTYPES.includes(dtype)) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `compile: dtype: expected ${COMPILED_DTYPES.join(', ')}, got ${describe(dtype)}`,
      );
    }
    checkBoolean(allowTF32, 'compile: allowTF32');
    const checkedSignal = checkSignal(signal, 'compile: signal');
    const handle = this.#requireNative('compile', 'be compiled: compile its native parts');
    const value = await runJob(() => binding.compileModule(handle, dtype, allowTF32), checkedSignal);
    return new CompiledModel(value as CompiledHandle, dtype);
  }

  /**
   * Runs the module once on zeros, in evaluation mode and without a graph, and gives the table of its layers: output
   * shapes, parameters and multiply-adds (counted as torchinfo does). Print it with `console.log`.
   *
   * @param inputShape of `forward`'s argument, batch included: [1, 3, 224, 224]; or an array of shapes
   * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_SHAPE, and what forward rejects with
   */
  async summary(
    inputShape: readonly number[] | readonly (readonly number[])[],
    options?: SummaryOptions,
  ): Promise<ModelSummary> {
    return summarise(this, (module) => Module.typeOf(module), inputShape, options);
  }

  // --- mode ---

  /** True in training mode, which is how modules are made. */
  get training(): boolean {
    if (currentRecorder() !== undefined) return false; // a summary runs in evaluation mode
    if (this.#handle !== undefined) return binding.isTraining(this.#handle);
    this.#checkOpen();
    return this.#training;
  }

  /**
   * Sets training mode here and in all descendants. Native jobs that were submitted before keep the mode of their call;
   * inside a TypeScript forward that is under way, each layer has the mode of its own call.
   */
  train(mode = true): this {
    checkBoolean(mode, 'train: mode');
    this.#checkOpen();
    if (this.#handle !== undefined) binding.setTraining(this.#handle, mode);
    this.#training = mode;
    this.#trainProperties(mode);
    return this;
  }

  /** C++ sets the native children; here are the others. */
  #trainProperties(mode: boolean): void {
    for (const { module, native } of this.#children(false)) {
      if (native) module.#trainProperties(mode);
      else module.train(mode);
    }
  }

  /** Sets evaluation mode: BatchNorm uses its running statistics, dropout is the identity. */
  eval(): this {
    return this.train(false);
  }

  /** Whether the parameters take part in training, all of them, as `torch.nn.Module.requires_grad_`: false freezes. */
  requiresGrad_(requiresGrad = true): this {
    checkBoolean(requiresGrad, 'requiresGrad_: requiresGrad');
    for (const parameter of this.parameters()) parameter.requiresGrad = requiresGrad;
    return this;
  }

  // --- parameters and buffers ---

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

  #named(kind: OwnTensor['kind']): [string, Tensor][] {
    return this.#allTensors()
      .filter((entry) => entry.kind === kind)
      .map(({ name, tensor }) => [name, tensor]);
  }

  /**
   * Adds a parameter of this module's own, as `torch.nn.Module.register_parameter` of a `Parameter`.
   *
   * @param name without dots; the key in the state dict
   * @param tensor its data; the parameter shares its memory, requires gradients, and belongs to no `tidy`
   * @returns the parameter, for the field: `scale = this.registerParameter('scale', ones([64]))`
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (the name is taken), ERR_SENET_DTYPE (not floating)
   */
  registerParameter(name: string, tensor: Tensor): Tensor {
    const parameter = this.#register(name, tensor, 'parameter', true);
    parameter.requiresGrad = true;
    return parameter;
  }

  /**
   * Adds a buffer of this module's own, as `torch.nn.Module.register_buffer`.
   *
   * @param options.persistent whether it is part of the state dict. Default true
   * @returns the buffer, for the field; it shares the memory of `tensor`
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (the name is taken)
   */
  registerBuffer(name: string, tensor: Tensor, options?: { persistent?: boolean }): Tensor {
    const { persistent = true } = checkOptions(options, ['persistent'], 'registerBuffer');
    return this.#register(name, tensor, 'buffer', checkBoolean(persistent, 'registerBuffer: persistent'));
  }

  #register(name: string, data: Tensor, kind: OwnTensor['kind'], persistent: boolean): Tensor {
    const where = kind === 'parameter' ? 'registerParameter' : 'registerBuffer';
    this.#checkOpen();
    checkName(checkString(name, `${where}: name`), where);
    const handle = handleOf(data, `${where}: tensor`);
    if (kind === 'parameter' && !isFloating(data.dtype)) {
      throw makeError(
        'ERR_SENET_DTYPE',
        `${where}: a parameter must be floating, '${name}' is ${data.dtype}`,
      );
    }
    if (this.#names().includes(name)) {
      throw makeError('ERR_SENET_ARG_RANGE', `${where}: ${Module.typeOf(this)} has a '${name}' already`);
    }
    const alias = binding.callOperator('aten::detach', [handle], null, false, false) as TensorHandle;
    const tensor = wrapUntracked(alias);
    this.#registered.push({ name, kind, persistent, tensor });
    return tensor;
  }

  /** The names of children and own tensors. */
  #names(): string[] {
    return [...this.#children().map((child) => child.name), ...this.#ownTensors().map((own) => own.name)];
  }

  /** Sets every parameter's gradient to null, as PyTorch does by default. @throws ERR_SENET_BUSY, and changes none */
  zeroGrad(): void {
    binding.clearGrads(this.parameters().map((parameter) => handleOf(parameter, 'parameter')));
  }

  /**
   * Converts floating parameters and buffers to a dtype, or all to a device, in place, as `torch.nn.Module.to`.
   *
   * @throws ERR_SENET_BUSY while a job on this module is queued or running; ERR_SENET_DTYPE, ERR_SENET_CUDA_UNAVAILABLE
   */
  to(target: Target): this {
    const { dtype, device, memoryFormat } = parseTarget(target);
    const tensors = this.#allTensors().map(({ name, tensor }) => handleOf(tensor, name));
    binding.moduleTo(this.#idleHandles(), tensors, dtype, device, memoryFormat);
    return this;
  }

  /** Parameters and buffers by name, sharing this module's memory as in PyTorch, with the module versions as metadata. */
  stateDict(): StateDict {
    const versions = this.#walk().map(
      ([path, module]) => [path, { version: module.#read().version }] as const,
    );
    const state = new StateDict([], new Map(versions));
    for (const { name, tensor, persistent } of this.#allTensors())
      if (persistent) state.set(name, callOperator('aten::detach', [tensor]) as Tensor);
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
    const modules = this.#walk().map(([path, module]) => {
      const { type, version } = module.#read();
      return { path, type, version };
    });
    const own = new Map(
      this.#allTensors()
        .filter(({ persistent }) => persistent)
        .map((entry) => [entry.name, entry]),
    );
    const targets = [...own.values()].map(({ name, tensor }) => ({ path: name, tensor }));
    const { names, tensors, result } = matchStateDict(stateDict, targets, modules, strict);
    const pairs = names.map((name, index) => {
      const target = own.get(name) as OwnTensor;
      const source = tensors[index] as Tensor;
      if (assign && target.kind === 'parameter' && !isFloating(source.dtype)) {
        throw makeError(
          'ERR_SENET_DTYPE',
          `loadStateDict: '${name}' is a parameter and cannot adopt a tensor of ${source.dtype}`,
        );
      }
      return [handleOf(target.tensor, name), handleOf(source, name)] as const;
    });
    binding.moduleLoad(
      this.#idleHandles(),
      names,
      pairs.map(([target]) => target),
      pairs.map(([, source]) => source),
      assign,
    );
    return result;
  }

  // --- the tree ---

  /** The modules directly below, in PyTorch's order; the same objects each time. @throws ERR_SENET_MODULE_TREE */
  namedChildren(): [string, Module<unknown>][] {
    this.#checkOpen();
    return this.#children().map(({ name, module }) => [name, module]);
  }

  /** This module (path '') and its descendants, in PyTorch's order. @throws ERR_SENET_MODULE_TREE */
  namedModules(): [string, Module<unknown>][] {
    return this.#walk();
  }

  /** The descendant at a dotted path ("layer1.0.se"); '' is this module. @throws ERR_SENET_ARG_RANGE */
  getSubmodule(path: string): Module<unknown> {
    checkString(path, 'getSubmodule: path');
    this.#checkOpen();
    const names = path === '' ? [] : path.split('.');
    return names.reduce<Module<unknown>>((module, name) => {
      const child = module.#children().find((candidate) => candidate.name === name);
      if (child !== undefined) return child.module;
      throw makeError('ERR_SENET_ARG_RANGE', `getSubmodule: there is no module at '${path}'`);
    }, this);
  }

  /**
   * Puts another module where the descendant at `path` is: a new head, another SELayer. The order of the keys stays.
   * Optimisers made before hold the old parameters, as in PyTorch.
   *
   * In a native module the new one must be native, of the same type, and as wide as the old one; only the beginning and
   * the end of the whole are free (`fc` may have other outputs, the first convolution other input channels).
   *
   * @returns the module that was there, which is part of nothing now
   * @throws ERR_SENET_ARG_RANGE (no such path, or a fixed part), ERR_SENET_ARG_TYPE (another type), ERR_SENET_SHAPE
   *   (another width), ERR_SENET_TS_FORWARD, ERR_SENET_MODULE_TREE (part of another module), ERR_SENET_BUSY
   */
  replaceModule(path: string, module: Module<unknown>): Module<unknown> {
    const where = `replaceModule: '${checkString(path, 'replaceModule: path')}'`;
    checkModule(module, where);
    const dot = path.lastIndexOf('.');
    const parent = this.getSubmodule(path.slice(0, Math.max(dot, 0)));
    return parent.#replaceChild(path.slice(dot + 1), module, where);
  }

  #replaceChild(name: string, module: Module<unknown>, where: string): Module<unknown> {
    const child = this.#children().find((candidate) => candidate.name === name);
    if (child === undefined) throw makeError('ERR_SENET_ARG_RANGE', `${where}: there is no such module`);
    const old = child.module;
    if (old === module) return old;
    if (child.native) module.#requireNative(where, 'be part of a native module');
    module.#requireFree(where);
    if (module.#isAbove(this)) throw containsItself(where);
    this.#checkIdle();
    for (const handle of [...old.#idleHandles(), ...module.#idleHandles()]) binding.assertIdle(handle);
    if (child.native) {
      binding.replaceModule(this.#handle as ModuleHandle, name, module.#handle as ModuleHandle);
      this.#native?.children.set(name, module);
    } else {
      (this as unknown as Record<string, unknown>)[name] = module;
    }
    old.#parent = undefined;
    module.#parent = this;
    return old;
  }

  /**
   * Frees this module with its parameters and buffers (the Tensors that `parameters()` gave are disposed too; those of
   * `stateDict()` live on). Calls that run finish first; later ones are refused. Children belong to their root:
   * disposing one is an error.
   *
   * @throws ERR_SENET_ARG_RANGE for a child
   */
  dispose(): void {
    if (this.#currentParent() !== undefined) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `'${this.#path()}' is part of a larger module: dispose that one`,
      );
    }
    if (this.#disposed) return;
    this.#disposed = true;
    const running = this.#loaded().filter((module) => module.#running > 0);
    let left = running.length;
    if (left === 0) this.#free();
    for (const module of running) module.#whenIdle.push(() => --left === 0 && this.#free());
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal Once what made a change of the module ERR_SENET_BUSY has ended; another forward may have begun since. */
  static async whenIdle(module: Module<unknown>): Promise<void> {
    const busy = module.#runningForward();
    if (busy === undefined) await runJob(() => binding.afterQueued());
    else await new Promise<void>((resolve) => busy.#whenIdle.push(resolve));
  }

  #free(): void {
    for (const module of this.#loaded()) {
      module.#disposed = true;
      if (module.#handle !== undefined && !module.#isNativeChild()) binding.disposeModule(module.#handle);
      for (const { tensor } of [...(module.#native?.tensors ?? []), ...module.#registered]) tensor.dispose();
    }
  }

  /** @throws ERR_SENET_DISPOSED */
  #checkOpen(): void {
    if (this.#disposed) throw makeError('ERR_SENET_DISPOSED', 'the module was disposed');
    if (this.#handle !== undefined) binding.isTraining(this.#handle); // throws
  }

  #read(): Native {
    if (this.#native !== undefined) return this.#native;
    if (this.#handle === undefined) {
      const type = this.constructor.name;
      this.#native = { type, version: 1, width: [0, 0], tensors: [], children: new Map() };
      return this.#native;
    }
    const { type, version, width, parameters, buffers, children } = binding.moduleNode(this.#handle);
    const own = (kind: OwnTensor['kind'], all: typeof parameters): OwnTensor[] =>
      all.map(([name, handle]) => ({ name, kind, persistent: true, tensor: wrapUntracked(handle) }));
    this.#native = {
      type,
      version,
      width,
      tensors: [...own('parameter', parameters), ...own('buffer', buffers)],
      children: new Map(
        children.map(([name, childType, handle]) => [
          name,
          this.#adopted.get(name) ?? this.#wrap(childType, handle),
        ]),
      ),
    };
    return this.#native;
  }

  #wrap(type: string, handle: ModuleHandle): Module<unknown> {
    // The base constructor on another class's prototype: a child needs none of that class's own construction.
    const made = Reflect.construct(
      NativeModule,
      [new NativeSource(handle, new Map())],
      classes.get(type) ?? NativeModule,
    ) as Module<unknown>;
    made.#parent = this;
    return made;
  }

  #ownTensors(): OwnTensor[] {
    return [...this.#read().tensors, ...this.#registered];
  }

  /** Of the whole tree, under their full names. */
  #allTensors(): OwnTensor[] {
    return this.#walk().flatMap(([path, module]) =>
      module.#ownTensors().map((own) => ({ ...own, name: join(path, own.name) })),
    );
  }

  #walk(): [string, Module<unknown>][] {
    this.#checkOpen();
    const found: [string, Module<unknown>][] = [];
    const visit = (path: string, module: Module<unknown>): void => {
      found.push([path, module]);
      for (const child of module.#children()) visit(join(path, child.name), child.module);
    };
    visit('', this);
    return found;
  }

  /** The native children that have wrappers. */
  #known(): ReadonlyMap<string, Module<unknown>> {
    return this.#native?.children ?? this.#adopted;
  }

  /** Native children, then properties. With `read` false, only the native ones that have wrappers. */
  #children(read = true): Child[] {
    const known = read ? this.#read().children : this.#known();
    const children = Array.from(known, ([name, module]): Child => ({ name, module, native: true }));
    const native = children.length;
    for (const [name, module] of this.#properties()) {
      this.#claim(name, module, children.slice(0, native));
      children.push({ name, module, native: false });
    }
    return children;
  }

  /** Own enumerable properties that are modules. No getter is called. */
  #properties(): [string, Module<unknown>][] {
    const found: [string, Module<unknown>][] = [];
    for (const name of Object.keys(this)) {
      const value: unknown = Object.getOwnPropertyDescriptor(this, name)?.value;
      if (Module.isModule(value)) found.push([name, value]);
    }
    return found;
  }

  /** Makes a module that was found in a property this one's child. */
  #claim(name: string, child: Module<unknown>, native: readonly Child[]): void {
    checkName(name, Module.typeOf(this));
    const label = `'${name}' of ${this.constructor.name}`;
    if (native.some((other) => other.name === name)) {
      throw makeError(
        'ERR_SENET_MODULE_TREE',
        `${label} is a native child and a field too: assign it in the constructor, or use replaceModule`,
      );
    }
    const places = this.#properties().filter(([, other]) => other === child).length;
    if (places > 1 || native.some(({ module }) => module === child))
      throw shared(label, `is in this ${this.constructor.name} twice`);
    if (child.#parent === this) return;
    if (child.#isAbove(this)) throw containsItself(label);
    child.#requireFree(label);
    child.#parent = this;
  }

  /** @throws ERR_SENET_MODULE_TREE */
  #requireFree(where: string): void {
    const parent = this.#currentParent();
    if (parent !== undefined)
      throw shared(where, `is '${this.#path()}' of ${Module.typeOf(parent.#root())} already`);
  }

  /** The parent, if it holds this module still: a property may have been given another value. */
  #currentParent(): Module<unknown> | undefined {
    const parent = this.#parent;
    if (parent === undefined || parent.#holdsNatively(this)) return parent;
    return parent.#properties().some(([, module]) => module === this) ? parent : undefined;
  }

  #holdsNatively(child: Module<unknown>): boolean {
    return [...this.#known().values()].includes(child);
  }

  #isNativeChild(): boolean {
    const parent = this.#currentParent();
    return parent !== undefined && parent.#holdsNatively(this);
  }

  /** Whether this is `module` or one that `module` is inside of. */
  #isAbove(module: Module<unknown>): boolean {
    for (let one: Module<unknown> | undefined = module; one !== undefined; one = one.#currentParent())
      if (one === this) return true;
    return false;
  }

  #root(): Module<unknown> {
    const parent = this.#currentParent();
    return parent === undefined ? this : parent.#root();
  }

  /** From the root. */
  #path(): string {
    const parent = this.#currentParent();
    if (parent === undefined) return '';
    const name = parent.#children(false).find(({ module }) => module === this)?.name ?? '?';
    return join(parent.#path(), name);
  }

  /** This module and the descendants that have wrappers. */
  #loaded(): Module<unknown>[] {
    const found: Module<unknown>[] = [this];
    for (const child of this.#known().values()) found.push(...child.#loaded());
    for (const [, child] of this.#properties())
      if ((child.#currentParent() ?? this) === this) found.push(...child.#loaded());
    return found;
  }

  /** A module whose TypeScript forward runs, and this one takes part in it. */
  #runningForward(): Module<unknown> | undefined {
    const above: Module<unknown>[] = [];
    for (let one = this.#currentParent(); one !== undefined; one = one.#currentParent()) above.push(one);
    return [...above, ...this.#loaded()].find((module) => module.#running > 0);
  }

  /** @throws ERR_SENET_BUSY while a TypeScript forward runs in which this module takes part */
  #checkIdle(): void {
    const busy = this.#runningForward();
    if (busy !== undefined) {
      throw makeError(
        'ERR_SENET_BUSY',
        `${busy.#running} forward(s) of this ${Module.typeOf(busy)} are running; await them before changing it`,
      );
    }
  }

  /** The handles of the native parts of the tree; none of the TypeScript ones is running. @throws ERR_SENET_BUSY */
  #idleHandles(): ModuleHandle[] {
    this.#checkIdle();
    return this.#walk()
      .map(([, module]) => module)
      .filter((module) => module === this || !module.#isNativeChild())
      .flatMap((module) => module.#handle ?? []);
  }
}

markClass(Module);

/** A module that C++ runs: a layer, a block, a model. Those without a class of their own are of this one. */
export class NativeModule<Out = Tensor> extends Module<Out> {
  override async forward(x: Tensor, options?: AsyncForwardOptions): Promise<Out> {
    return super.forward(x, options);
  }
}
declareNativeForward(NativeModule);

interface Recorded {
  readonly output: TensorHandle;
  readonly calls: readonly (readonly [string, readonly number[], readonly number[]])[];
}

/** The method, which is called with its module. */
function forwardOf(module: Module<unknown>): Forward {
  return Reflect.get(module, 'forward') as Forward;
}

/** The library's own options, if a forward's last argument has them. */
function forwardOptions(inputs: readonly unknown[]): AsyncForwardOptions {
  const last = inputs.at(-1);
  if (!isPlainObject(last)) return {};
  const { grad, signal } = last;
  return {
    ...(typeof grad === 'boolean' ? { grad } : {}),
    ...(isAbortSignal(signal) ? { signal } : {}),
  };
}

/** The shapes of the tensors in an output: itself, or those of an array or object. */
function shapesOf(output: unknown): (readonly number[])[] {
  if (Tensor.isTensor(output)) return [output.shape];
  if (typeof output !== 'object' || output === null) return [];
  return Object.values(output).flatMap((part: unknown) => (Tensor.isTensor(part) ? [part.shape] : []));
}

function checkModule(module: unknown, where: string): void {
  if (!Module.isModule(module))
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Module, got ${describe(module)}`);
}

/** PyTorch's rule: a dot would make two keys of one. */
function checkName(name: string, where: string): void {
  if (name === '' || name.includes('.'))
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: a name must not be empty or have a dot, got '${name}'`);
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

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function toOutput(value: unknown, scope: Scope | undefined): unknown {
  const both = value as { logits?: TensorHandle; auxLogits?: TensorHandle };
  if (both.logits === undefined || both.auxLogits === undefined)
    return wrapTensor(value as TensorHandle, scope);
  return { logits: wrapTensor(both.logits, scope), auxLogits: wrapTensor(both.auxLogits, scope) };
}
