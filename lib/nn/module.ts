/**
 * Module: parameters, buffers and children by name, as `torch.nn.Module`. This is the public face: the tree, the tensors
 * and the calls of forward are the files beside it, jobs, handles and native modes the addon's.
 */
import { markClass } from '../brands';
import type { CalibrationHandle, CompiledHandle, DType, PortableModel } from '../binding';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { binding } from '../native';
import { parseTarget, type Target } from '../tensor/dtype';
import { runJob } from '../tensor/jobs';
import { checkBoolean, checkString } from '../tensor/options';
import { boolean, names, orElse, readOptions, signal, unchecked } from '../tensor/rules';
import { handleOf, type Tensor } from '../tensor/tensor';
import {
  columnsOf,
  compileCalibrated,
  type CalibrationData,
  type CalibrationOptions,
  type QuantizationRecord,
} from './calibration';
import { compiledDType, CompiledModel, type CompiledDType } from './compiled-model';
import { callNative, callNativeSync, watchForward, type ForwardOptions } from './forward-call';
import type { HookHandle } from './hooks';
import type { LoadStateDictOptions, LoadStateDictResult } from './load-state-dict';
import {
  allTensors,
  loadInto,
  namedTensors,
  ownTensors,
  registerTensor,
  stateDictOf,
} from './module-tensors';
import { findNode, requireNode, TreeNode } from './module-tree';
import { NativePart } from './native-part';
import { currentRecorder } from './recorder';
import { isBeingTraced, runTraced } from './trace';
import { summarise, type ModelSummary, type SummaryOptions } from './summary';

export interface CompileOptions {
  dtype?: CompiledDType;
  calibration?: CalibrationData | CalibrationOptions | QuantizationRecord;
  keep?: readonly string[];
  allowTF32?: boolean;
  signal?: AbortSignal;
}

const COMPILE = {
  dtype: orElse('float32', compiledDType),
  calibration: unchecked<CalibrationData | CalibrationOptions | QuantizationRecord>(),
  keep: orElse([], names),
  allowTF32: orElse(false, boolean),
  signal,
};

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
  readonly #node: TreeNode;

  /** Arguments are of no account, but for the library's own classes, which give their native part. */
  constructor(...source: unknown[]) {
    const [native] = source;
    this.#node = new TreeNode(this, native instanceof NativePart ? native : undefined);
    watchForward(this.#node);
  }

  /** @internal True for modules of this very copy of the library. */
  static isModule(value: unknown): value is Module<unknown> {
    return findNode(value) !== undefined;
  }

  /** @internal The name of Python's class, or of the user's. */
  static typeOf(module: Module<unknown>): string {
    return module.#node.type;
  }

  /** @internal */
  static isNative(module: Module<unknown>): boolean {
    return module.#node.handle !== undefined;
  }

  /** @internal Whether C++ alone can run the module: its forward is native and nobody hooks it. */
  static runsNatively(module: Module<unknown>): boolean {
    return module.#node.runsNatively;
  }

  /** @internal Channels or features of a native module's input and output; 0 is any number. */
  static widthOf(module: Module<unknown>): readonly [number, number] {
    module.#node.checkOpen();
    return module.#node.readFacts().width;
  }

  /** @internal Features that a head of a native module is given, whatever stands there; undefined for another child. */
  static headFeaturesOf(module: Module<unknown>, name: string): number | undefined {
    module.#node.checkOpen();
    return module.#node.readFacts().headFeatures.get(name);
  }

  /**
   * @internal What the module computes in evaluation mode, to be written in a format of others, with weights of float32,
   * float16 or, as `quantization` says, int8; the tensors are the caller's. Errors: as `compile`, and ERR_SENET_EXPORT.
   */
  static async describe(
    module: Module<unknown>,
    {
      dtype,
      keepBatchNorm,
      quantization,
    }: { dtype: DType; keepBatchNorm: boolean; quantization: QuantizationRecord | undefined },
    signal: AbortSignal | undefined,
  ): Promise<PortableModel> {
    const node = module.#node;
    node.checkOpen();
    const record = quantization === undefined ? ([] as const) : columnsOf(quantization);
    if (!node.hasNativeForward) {
      return (await runTraced(
        node,
        (output) => binding.describeTraced(output, dtype, keepBatchNorm, ...record),
        signal,
      )) as PortableModel;
    }
    const handle = node.requireNative('export', 'be exported');
    return (await runJob(
      () => binding.describeModule(handle, dtype, keepBatchNorm, ...record),
      signal,
    )) as PortableModel;
  }

  /** @internal A module's own tensor, or null. */
  static ownTensor(module: Module<unknown>, name: string): Tensor | null {
    module.#node.checkOpen();
    return ownTensors(module.#node).find((own) => own.name === name)?.tensor ?? null;
  }

  /** @internal Once what made a change of the module ERR_SENET_BUSY has ended; another forward may have begun since. */
  static async whenIdle(module: Module<unknown>): Promise<void> {
    return module.#node.whenIdle();
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
    return callNative(this.#node, inputs) as Promise<Out>;
  }

  /**
   * As `forward`, blocking the calling thread until it is done.
   * @throws as `forward`; ERR_SENET_TS_FORWARD where forward is TypeScript or has hooks
   */
  forwardSync(x: Tensor, options?: ForwardOptions): Out {
    return callNativeSync(this.#node, x, options) as Out;
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
    this.#node.checkOpen();
    if (this.#node.isNativeChild) {
      throw makeError(
        'ERR_SENET_NATIVE_FORWARD',
        `registerForwardHook: '${this.#node.path}' is called by a native forward, which calls no JavaScript`,
      );
    }
    return this.#node.hooks.add(hook);
  }

  /**
   * An inference-only copy: BatchNorm folded into the convolutions, weights prepacked, everything fused that can be. It
   * shares nothing with this module, which may be trained further, or disposed, without changing it.
   *
   * A forward that is TypeScript is called once, with a Tensor that has no numbers: what it does with its parts and with
   * `add`, `mul` by a factor for each channel, `cat` of channels, `relu`, `sigmoid`, `flatten`, pools and `dropout` is
   * compiled; a branch on a value or a size, and any other operator, is refused with the line where it stands.
   *
   * @param options.dtype of weights and activations: 'float32' (default), 'bfloat16', 'float16' where the device computes
   *   with it, or on the processor 'int8'. The compiled model takes and gives float32 whatever this is.
   * @param options.calibration of 'int8': images as the network takes them (a Tensor, an iterable of Tensors, a DataLoader),
   *   options with them, or what an earlier calibration of the same weights gave (`CompiledModel.quantization`)
   * @param options.keep of 'int8': paths of modules whose convolutions stay float32, with all below them. Default none
   * @param options.allowTF32 lets the convolutions of a float32 model round their factors to TensorFloat-32 on CUDA devices
   *   that have it: faster, and about 1e-3 off. Default false, whatever `cuda.allowTF32` says; changes nothing elsewhere
   * @param options.signal rejects at once with ERR_SENET_ABORTED when it aborts
   * @throws (rejects) ERR_SENET_DTYPE for another dtype or one that this device does not compute with;
   *   ERR_SENET_CALIBRATION without an image for 'int8', or with numbers that are not finite;
   *   ERR_SENET_COMPILE for a module that takes no image, or with a part that cannot be compiled (the message names it);
   *   ERR_SENET_SHAPE for parts whose channels do not fit each other; ERR_SENET_TS_FORWARD where a module that it runs has
   *   hooks; ERR_SENET_DISPOSED, ERR_SENET_ABORTED
   */
  async compile(options?: CompileOptions): Promise<CompiledModel> {
    const { dtype, calibration, keep, allowTF32, signal } = readOptions(options, COMPILE, 'compile');
    this.#node.checkOpen();
    if (dtype !== 'int8' && (calibration !== undefined || keep.length > 0)) {
      throw makeError('ERR_SENET_ARG_RANGE', "compile: calibration and keep are of the dtype 'int8' alone");
    }
    if (dtype === 'int8') {
      return new CompiledModel(
        await compileCalibrated(() => this.#beginCalibration(signal), calibration, keep, signal),
        dtype,
      );
    }
    if (!this.#node.hasNativeForward) {
      const { type } = this.#node;
      const traced = await runTraced(
        this.#node,
        (output) => binding.compileTraced(output, type, dtype, allowTF32),
        signal,
      );
      return new CompiledModel(traced as CompiledHandle, dtype);
    }
    const handle = this.#node.requireNative('compile', 'be compiled');
    const value = await runJob(() => binding.compileModule(handle, dtype, allowTF32), signal);
    return new CompiledModel(value as CompiledHandle, dtype);
  }

  async #beginCalibration(signal: AbortSignal | undefined): Promise<CalibrationHandle> {
    const { type } = this.#node;
    const handle = this.#node.hasNativeForward ? this.#node.requireNative('compile', 'be compiled') : null;
    const value = await (handle === null
      ? runTraced(this.#node, (output) => binding.beginTracedCalibration(output, type), signal)
      : runJob(() => binding.beginCalibration(handle), signal));
    return value as CalibrationHandle;
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
    return summarise(this, inputShape, options);
  }

  // --- mode ---

  /** True in training mode, which is how modules are made. */
  get training(): boolean {
    if (currentRecorder() !== undefined || isBeingTraced()) return false; // both run in evaluation mode
    return this.#node.training;
  }

  /**
   * Sets training mode here and in all descendants. Native jobs that were submitted before keep the mode of their call;
   * inside a TypeScript forward that is under way, each layer has the mode of its own call.
   */
  train(mode = true): this {
    checkBoolean(mode, 'train: mode');
    this.#node.train(mode);
    return this;
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
    return namedTensors(this.#node, 'parameter');
  }

  /** Running statistics and the like, in PyTorch's order; the same objects each time. */
  namedBuffers(): [string, Tensor][] {
    return namedTensors(this.#node, 'buffer');
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
    const parameter = registerTensor(this.#node, name, tensor, 'parameter', true);
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
    const { persistent } = readOptions(options, { persistent: orElse(true, boolean) }, 'registerBuffer');
    return registerTensor(this.#node, name, tensor, 'buffer', persistent);
  }

  /** Sets every parameter's gradient to null, as PyTorch does by default. @throws ERR_SENET_BUSY, and changes none */
  zeroGrad(): void {
    binding.clearGrads(this.parameters().map((parameter) => handleOf(parameter, 'parameter')));
  }

  /**
   * Converts floating parameters and buffers to a dtype, or all to a device, in place, as `torch.nn.Module.to`.
   *
   * @throws ERR_SENET_BUSY while a job on this module, or one that reads a tensor of it, is queued or running;
   *   ERR_SENET_DTYPE, ERR_SENET_CUDA_UNAVAILABLE
   */
  to(target: Target): this {
    const { dtype, device, memoryFormat } = parseTarget(target);
    const tensors = allTensors(this.#node).map(({ name, tensor }) => handleOf(tensor, name));
    binding.moduleTo(this.#node.idleHandles(), tensors, dtype, device, memoryFormat);
    return this;
  }

  /** Parameters and buffers by name, sharing this module's memory as in PyTorch, with the module versions as metadata. */
  stateDict(): StateDict {
    return stateDictOf(this.#node);
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
    const rules = { strict: orElse(true, boolean), assign: orElse(false, boolean) };
    const { strict, assign } = readOptions(options, rules, 'loadStateDict');
    return loadInto(this.#node, stateDict, strict, assign);
  }

  // --- the tree ---

  /** The modules directly below, in PyTorch's order; the same objects each time. @throws ERR_SENET_MODULE_TREE */
  namedChildren(): [string, Module<unknown>][] {
    this.#node.checkOpen();
    return this.#node.children().map(({ name, node }) => [name, moduleOf(node)]);
  }

  /** This module (path '') and its descendants, in PyTorch's order. @throws ERR_SENET_MODULE_TREE */
  namedModules(): [string, Module<unknown>][] {
    return this.#node.walk().map(([path, node]) => [path, moduleOf(node)]);
  }

  /** The descendant at a dotted path ("layer1.0.se"); '' is this module. @throws ERR_SENET_ARG_RANGE */
  getSubmodule(path: string): Module<unknown> {
    checkString(path, 'getSubmodule: path');
    return moduleOf(this.#node.descendant(path));
  }

  /**
   * Puts another module where the descendant at `path` is: a new head, another SELayer. The order of the keys stays.
   * Optimisers made before hold the old parameters, as in PyTorch.
   *
   * In a native module the new one must be native, of the same type, and as wide as the old one; only the beginning and
   * the end of the whole are free (`fc` may have other outputs, the first convolution other input channels). A network's
   * head may be a Linear, an Identity or a Sequential: `new Sequential(new Dropout(), new Linear(2048, 5))`.
   *
   * @returns the module that was there, which is part of nothing now
   * @throws ERR_SENET_ARG_RANGE (no such path, or a fixed part), ERR_SENET_ARG_TYPE (another type), ERR_SENET_SHAPE
   *   (another width), ERR_SENET_TS_FORWARD, ERR_SENET_MODULE_TREE (part of another module), ERR_SENET_BUSY
   */
  replaceModule(path: string, module: Module<unknown>): Module<unknown> {
    const where = `replaceModule: '${checkString(path, 'replaceModule: path')}'`;
    const node = requireNode(module, where);
    const dot = path.lastIndexOf('.');
    const parent = this.getSubmodule(path.slice(0, Math.max(dot, 0)));
    return moduleOf(parent.#node.replaceChild(path.slice(dot + 1), node, where));
  }

  /**
   * Frees this module with its parameters and buffers (the Tensors that `parameters()` gave are disposed too; those of
   * `stateDict()` live on). Calls that run finish first; later ones are refused. Children belong to their root:
   * disposing one is an error.
   *
   * @throws ERR_SENET_ARG_RANGE for a child
   */
  dispose(): void {
    this.#node.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

markClass(Module);

function moduleOf({ module }: { module: unknown }): Module<unknown> {
  return module as Module<unknown>;
}
