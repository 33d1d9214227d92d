/**
 * The types of exactly what the native addon exports (`native/addon/exports.cpp`). No code.
 * Handles are opaque objects that only the addon can make; it checks their type tags on every call.
 */

export type DType =
  'float32' | 'float64' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'int16' | 'int8' | 'uint8' | 'bool';

/** What mixed precision computes in. */
export type AutocastDType = 'bfloat16' | 'float16';

/** `'cuda'` is the current CUDA device, as in PyTorch. */
export type Device = 'cpu' | 'cuda' | `cuda:${number}`;

export type MemoryFormat = 'contiguous' | 'channels_last' | 'preserve';

export type TypedArray =
  | Float32Array
  | Float64Array
  | BigInt64Array
  | Int32Array
  | Int16Array
  | Int8Array
  | Uint8Array
  | Uint16Array;

declare const tensorHandle: unique symbol;
declare const moduleHandle: unique symbol;
declare const compiledHandle: unique symbol;
declare const calibrationHandle: unique symbol;
declare const optimizerHandle: unique symbol;
declare const groupHandle: unique symbol;
declare const dataParallelHandle: unique symbol;
export interface TensorHandle {
  readonly [tensorHandle]: true;
}
export interface ModuleHandle {
  readonly [moduleHandle]: true;
}
export interface OptimizerHandle {
  readonly [optimizerHandle]: true;
}
export interface CompiledHandle {
  readonly [compiledHandle]: true;
}
/** The group of processes that this one belongs to. */
export interface GroupHandle {
  readonly [groupHandle]: true;
}
/** A network whose gradients a group averages. */
export interface DataParallelHandle {
  readonly [dataParallelHandle]: true;
}
/** A module that is being calibrated for int8. */
export interface CalibrationHandle {
  readonly [calibrationHandle]: true;
}

/** What an operator takes and gives once tensors are handles. */
export type NativeValue =
  | TensorHandle
  | number
  | bigint
  | boolean
  | string
  | null
  | undefined
  | readonly NativeValue[]
  | { readonly [name: string]: NativeValue };

/** A range of bytes of a file or buffer that becomes one storage. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** A tensor as a view of one of the ranges; stride and storageOffset count elements. */
export interface TensorRead {
  readonly range: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storageOffset: number;
}

/** A native module without its descendants, in the order of registration. */
export interface ModuleNode {
  readonly type: string;
  readonly version: number;
  /** Channels or features of input and output; 0 is any number, or one that the module does not know. */
  readonly width: readonly [number, number];
  readonly parameters: readonly (readonly [string, TensorHandle])[];
  readonly buffers: readonly (readonly [string, TensorHandle])[];
  /** `headFeatures`: of a head the values of one image that it is given, else 0. */
  readonly children: readonly (readonly [
    name: string,
    type: string,
    handle: ModuleHandle,
    headFeatures: number,
  ])[];
}

/** Shapes of one call of a module's forward; the path is relative to the module whose forward was recorded. */
export type ModuleCall = readonly [path: string, input: readonly number[], output: readonly number[]];

/** One step of a compiled model; shapes are channels x height x width, counts are for one image. */
export interface CompiledStep {
  /**
   * Path of the module that the step computes ("layer1.0.conv3"), or of the first of several; 'input' and 'output' are those
   * of the model.
   */
  readonly name: string;
  /** 'convolution', 'scale', 'max_pool', ... */
  readonly operation: string;
  /** What else the step computes in the same pass. */
  readonly fused: readonly string[];
  readonly input: readonly number[];
  readonly output: readonly number[];
  readonly weightBytes: number;
  /** Read and written. */
  readonly activationBytes: number;
  readonly multiplyAdds: number;
  /**
   * What computes it, where there is a choice: 'libtorch' where our kernels have nothing for it, 'tiles' where the
   * processor's matrix unit multiplies bfloat16, 'int8' where bytes are multiplied. On CUDA, once a batch of
   * images of this size was run: 'ours', 'libtorch', or 'cudnn' with how much of the step its plan does and which it is.
   */
  readonly kernel?: string;
  /** Of a step that computes in int8. */
  readonly quantization?: {
    /** What a byte of its output means: `scale * (byte - zero)`. */
    readonly scale: number;
    readonly zero: number;
    /**
     * How far its output is off where its input is not, on images for calibration: the errors' root mean square over the
     * values'. Null where nobody measured it.
     */
    readonly error: number | null;
  };
}

/** What can be said of CUDA on this machine. */
export interface CudaState {
  /** Path of LibTorch's CUDA library; empty if it is not there or does not load. */
  readonly library: string;
  /** Whether LibTorch knows that the library is loaded. */
  readonly isSeen: boolean;
  readonly devices: number;
  /** Why there are no devices; empty if there are. */
  readonly reason: string;
  /** The newest CUDA that the driver serves, and the one that LibTorch was built for: 1000 x major + 10 x minor, 0 if unknown. */
  readonly driver: number;
  readonly runtime: number;
  /** Likewise, of NVRTC. */
  readonly nvrtc: number;
  /** 10000 x major + 100 x minor + patch, 0 if unknown. */
  readonly cudnn: number;
  /** What of the libraries for CUDA's compiled models is not there; empty if nothing, or without LibTorch's CUDA library. */
  readonly missing: string;
}

/** What the driver tells of a device, without starting it. */
export interface CudaDevice {
  readonly name: string;
  /** The compute capability: "9.0". */
  readonly capability: string;
  readonly totalBytes: number;
}

/** What a byte means: `scale * (byte - zero)`. */
export interface ByteMeaning {
  readonly scale: number;
  readonly zero: number;
}

/** One operation of a network that is handed on, as a compiled model has it (`native/inference/plan.h`). */
export interface PortableNode {
  /** 'convolution', 'squeeze_excite', 'max_pool', ... */
  readonly operation: string;
  /** Path of its module: "layer1.0.conv3". */
  readonly name: string;
  /** Of the layers of a squeeze_excite. */
  readonly squeezeName: string;
  readonly exciteName: string;
  /** Indices of values. */
  readonly inputs: readonly number[];
  /** Of each input: the bytes that it is rounded to first; null for one that is taken as it is. */
  readonly rounds: readonly (ByteMeaning | null)[];
  readonly output: number;
  readonly relu: boolean;
  /** Height and width, of convolutions and pools, as the following. */
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];
  readonly dilation: readonly number[];
  readonly groups: number;
  readonly ceilMode: boolean;
  readonly countIncludePad: boolean;
  /** Of a BatchNorm that was kept. */
  readonly eps: number;
  /** The first and the last axis of a flatten, which may count from the end; else empty. */
  readonly axes: readonly number[];
  /** On the CPU, contiguous. */
  readonly tensors: readonly (readonly [name: PortableTensor, TensorHandle])[];
}

export type PortableTensor =
  | 'weight'
  | 'bias'
  | 'weightScale'
  | 'biasScale'
  | 'squeezeWeight'
  | 'squeezeBias'
  | 'exciteWeight'
  | 'exciteBias'
  | 'channelKernel'
  | 'normWeight'
  | 'normBias'
  | 'runningMean'
  | 'runningVar';

/** A network that is handed on: data, and tensors that are nobody else's. */
export interface PortableModel {
  /** In an order in which they can run. */
  readonly nodes: readonly PortableNode[];
  readonly values: readonly {
    readonly channels: number;
    /** N x channels, else N x channels x height x width. */
    readonly isVector: boolean;
    /** What it is rounded to, for whoever reads it. */
    readonly bytes: ByteMeaning | null;
  }[];
  readonly input: number;
  readonly output: number;
  /** Height and width, where it takes no others. */
  readonly onlySize: readonly number[] | null;
}

/** What an earlier calibration gave, in columns: names, scales, zeros, keep, keepFirst, corrected, corrections. */
export type QuantizationColumns = readonly [
  names: readonly string[],
  scales: readonly number[],
  zeros: readonly number[],
  keep: readonly string[],
  keepFirst: boolean,
  corrected: readonly string[],
  corrections: readonly (readonly number[])[],
];

export type ModuleOptionValue =
  number | boolean | string | readonly number[] | ModuleHandle | readonly ModuleHandle[] | null;

/** What becomes of an image: its size when it is resized, the part of that which is kept, its place in the input, the input. */
export type NativePlacement = readonly [
  ...size: [height: number, width: number],
  ...window: [top: number, left: number, height: number, width: number],
  ...place: [top: number, left: number],
  ...input: [height: number, width: number],
];

export interface NativeBinding {
  /** Of the LibTorch that was met at load. When it differs from the next, nothing else is exported. */
  readonly libtorchVersion: string;
  readonly builtWithLibtorch: string;

  // runtime
  /** How the addon makes errors and settles jobs: one call for each, made once per environment. */
  initialize(
    makeError: (code: string, message: string) => Error,
    settle: (job: number, error: Error | null, value: unknown) => void,
  ): void;
  configure(workers: number, threadsPerWorker: number): void;
  configuration(): { workers: number; threadsPerWorker: number; availableThreads: number };
  manualSeed(seed: bigint): void;
  /** Of the process's CPU generator: as many bytes as PyTorch's. */
  generatorState(): TensorHandle;
  setGeneratorState(state: TensorHandle): void;
  memory(): {
    tensors: number;
    bytes: number;
    cachedBytes: number;
    cacheLimit: number;
    /** Of tensors on CUDA devices. */
    deviceBytes: number;
    /** Blocks of memory that came from the system so far, not from the cache. */
    mappings: number;
    queued: number;
    running: number;
  };
  cudaDeviceCount(): number;
  cudaState(): CudaState;
  cudaDevice(index: number): CudaDevice;
  cudaMemory(index: number): { allocated: number; reserved: number; free: number; total: number };
  emptyCudaCache(): void;
  /** A job that waits for the device. */
  synchronizeCuda(index: number): number;
  /** cuDNN's flag: whether float32 convolutions on CUDA may use TensorFloat-32. */
  allowTF32(): boolean;
  setAllowTF32(allow: boolean): void;
  libtorchConfig(): { cpuCapability: string; folder: string; build: string };
  /** Refuses new work, waits for running jobs; ends the process with `exitCode` if one outlasts the limit. Main thread only. */
  drain(exitCode: number): void;
  /** True if the job had not started and never will. */
  cancel(job: number): boolean;
  /** Blocks until the job has ended and gives its value or throws its error. */
  wait(job: number): unknown;
  /** A job that does nothing once those before it have ended. */
  afterQueued(): number;
  /** Frees what a job made and nobody takes. */
  discard(handle: TensorHandle | CompiledHandle | GroupHandle): void;
  /** The integers below a count in random order, `torch.randperm` of a generator with this seed; int64. */
  permutation(count: number, seed: bigint): TensorHandle;

  // tensors
  fromTypedArray(
    data: TypedArray,
    shape: readonly number[],
    dtype: DType,
    device: string,
    requiresGrad: boolean,
  ): TensorHandle;
  /** A job: bytes, which nobody may write to or detach before it has ended, to a uint8 tensor. */
  copyBytes(data: Uint8Array, shape: readonly number[]): number;
  toTypedArray(t: TensorHandle): TypedArray;
  /** The same as a job, which occupies no thread while a device computes what it reads. */
  toTypedArrayLater(t: TensorHandle): number;
  tensorInfo(t: TensorHandle): { shape: number[]; dtype: DType; device: Device };
  /**
   * The least and the greatest of the integers of a tensor on a device that are not `ignored`, if they came from here and
   * were not changed since; else null. Never waits for the device.
   */
  knownRange(t: TensorHandle, ignored: number): [least: number | bigint, greatest: number | bigint] | null;
  requiresGrad(t: TensorHandle): boolean;
  setRequiresGrad(t: TensorHandle, value: boolean): void;
  grad(t: TensorHandle): TensorHandle | null;
  setGrad(t: TensorHandle, grad: TensorHandle | null): void;
  /** Sets the gradients of all to null, or of none if a job uses one of them. */
  clearGrads(tensors: readonly TensorHandle[]): void;
  disposeTensor(t: TensorHandle): void;
  backward(t: TensorHandle, gradient: TensorHandle | null): number;
  /**
   * A job that gives the gradients of one element with respect to tensors of its graph, null for those that it does not
   * depend on; no other tensor's gradient changes.
   */
  gradients(output: TensorHandle, inputs: readonly TensorHandle[], retainGraph: boolean): number;

  // operators
  callOperator(
    name: string,
    args: readonly NativeValue[],
    kwargs: { readonly [name: string]: NativeValue } | null,
    gradMode: boolean,
    autocast: AutocastDType | null,
  ): unknown;
  callOperatorAsync(
    name: string,
    args: readonly NativeValue[],
    kwargs: { readonly [name: string]: NativeValue } | null,
    gradMode: boolean,
    autocast: AutocastDType | null,
  ): number;
  listOperators(): string[];
  operatorSchemas(name: string): string[];

  // images
  /**
   * The part `window` of uint8 images, N x C x H x W on the CPU, that are resized to `size` to the bits of Pillow;
   * `interpolation` is 'bilinear' or 'bicubic'.
   */
  resizeImages(
    images: TensorHandle,
    size: readonly [height: number, width: number],
    window: readonly [top: number, left: number, height: number, width: number],
    interpolation: string,
  ): TensorHandle;
  resizeImagesAsync(...args: Parameters<NativeBinding['resizeImages']>): number;
  /** Whether `prepareImage` finds a decoder in this process: sharp must have been loaded. */
  canPrepareImages(): boolean;
  /**
   * A job on the decoders' threads: the bytes of an image to a network's input, 1 x C x H x W of
   * float32; null for an image that is not read here, damaged ones among them.
   */
  prepareImage(
    bytes: Uint8Array,
    format: 'jpeg' | 'png',
    size: readonly [height: number, width: number],
    /** Both sides are divided by 2 so often while a JPEG is decoded, 0 to 3. */
    halvings: number,
    /** 1 to 8, or 0 for what a JPEG's EXIF says. */
    orientation: number,
    upright: NativePlacement,
    turned: NativePlacement,
    interpolation: string,
    grey: boolean,
    /** C x 256: what the values of each channel become. */
    table: Float32Array,
    /** Whether somebody may change the bytes: they are copied before this returns. */
    borrowed: boolean,
  ): number;

  // modules
  /** Modules among the options become parts of the new one. */
  createModule(type: string, options: { readonly [name: string]: ModuleOptionValue }): ModuleHandle;
  moduleNode(m: ModuleHandle): ModuleNode;
  moduleForward(m: ModuleHandle, x: TensorHandle, gradMode: boolean, autocast: AutocastDType | null): number;
  /**
   * A job: forward in evaluation mode, with every call of a module in it, inner ones first, and what the modules at
   * `outputs` gave in their last call (null for one that was not called). A module of `replacements` gives that tensor
   * instead, with as many elements; where it is NaN, what was computed. Paths are relative to `m`.
   */
  moduleRecord(
    m: ModuleHandle,
    x: TensorHandle,
    gradMode: boolean,
    autocast: AutocastDType | null,
    outputs: readonly string[],
    replacements: readonly (readonly [path: string, TensorHandle])[],
  ): number;
  /** Has every BatchNorm2d of `m` normalise over the whole group in training. */
  syncBatchNorms(m: ModuleHandle): void;
  /** Puts `replacement`, which is part of no other module, where the child `name` is; that one is then free. */
  replaceModule(parent: ModuleHandle, name: string, replacement: ModuleHandle): void;
  setTraining(m: ModuleHandle, training: boolean): void;
  isTraining(m: ModuleHandle): boolean;
  /** Converts floating tensors in place, all or none; undefined leaves dtype or device as it is. */
  moduleTo(
    mustBeIdle: readonly ModuleHandle[],
    tensors: readonly TensorHandle[],
    dtype: DType | undefined,
    device: string | undefined,
    memoryFormat: MemoryFormat | undefined,
  ): void;
  /** Copies the sources into the targets, or with `assign` makes these adopt them: all or none. */
  moduleLoad(
    mustBeIdle: readonly ModuleHandle[],
    names: readonly string[],
    targets: readonly TensorHandle[],
    sources: readonly TensorHandle[],
    assign: boolean,
  ): void;
  assertIdle(m: ModuleHandle): void;
  disposeModule(m: ModuleHandle): void;

  // optimisers; each job runs alone: those before it have ended, those after it wait
  createOptimizer(kind: 'sgd' | 'adam' | 'rmsprop' | 'adagrad'): OptimizerHandle;
  optimizerStep(
    o: OptimizerHandle,
    groups: readonly {
      readonly params: readonly TensorHandle[];
      readonly options: { readonly [name: string]: number | boolean };
    }[],
    /** Of `unscaleGradients`: where it is 1, nothing changes. */
    foundInf: TensorHandle | null,
  ): number;
  /** By Python's names ("exp_avg"), in its order; null for a parameter that was never updated. */
  optimizerState(o: OptimizerHandle, parameter: TensorHandle): Record<string, TensorHandle> | null;
  /** Replaces everything that is remembered by copies of these: all or none. */
  setOptimizerState(
    o: OptimizerHandle,
    parameters: readonly TensorHandle[],
    states: readonly { readonly [name: string]: TensorHandle }[],
  ): void;
  /** A job that gives the norm before clipping. */
  clipGradients(
    parameters: readonly TensorHandle[],
    maxNorm: number,
    normType: number,
    errorIfNonfinite: boolean,
  ): number;
  /**
   * A job: divides the gradients by a scale; gives 1 if any of them is not finite, else 0, as a tensor.
   */
  unscaleGradients(parameters: readonly TensorHandle[], scale: TensorHandle): number;
  /** averages += weight * (values - averages); tensors of integers are copied. */
  averageInto(averages: readonly TensorHandle[], values: readonly TensorHandle[], weight: number): number;

  // training on several processes
  /** Why this backend is not there; empty if it is. */
  distributedAbsence(backend: 'gloo' | 'nccl'): string;
  /** A job that gives a GroupHandle once all processes are there; `timeout` in milliseconds. One at a time. */
  connectGroup(
    backend: 'gloo' | 'nccl',
    host: string,
    port: number,
    rank: number,
    worldSize: number,
    rank0HostsStore: boolean,
    timeout: number,
  ): number;
  /** Lets the job that connects end early. */
  stopConnecting(): void;
  // Jobs that begin in the order of their calls and settle when all processes have called them.
  groupAllReduce(g: GroupHandle, t: TensorHandle, op: 'sum' | 'avg' | 'product' | 'min' | 'max'): number;
  groupBroadcast(g: GroupHandle, tensors: readonly TensorHandle[], src: number): number;
  groupAllGather(g: GroupHandle, t: TensorHandle): number;
  groupBarrier(g: GroupHandle): number;
  /** A job that tells the other processes why this one fails. */
  groupFail(g: GroupHandle, reason: string): number;
  /** A job; whatever waits in the group is rejected. */
  destroyGroup(g: GroupHandle): number;
  /** A job that gives a DataParallelHandle; `state` becomes rank 0's. */
  createDataParallel(
    g: GroupHandle,
    names: readonly string[],
    parameters: readonly TensorHandle[],
    state: readonly TensorHandle[],
    bucketBytes: number,
    findUnusedParameters: boolean,
  ): number;
  /** A job before a forward: `averages` if the backward of it will; `buffers` become rank 0's. */
  dataParallelBegin(d: DataParallelHandle, averages: boolean, buffers: readonly TensorHandle[]): number;
  /** A job after a forward whose backward averages. */
  dataParallelEnd(d: DataParallelHandle, outputs: readonly TensorHandle[]): number;
  dataParallelDetach(d: DataParallelHandle): number;

  // compiled models
  /** A job that gives a CompiledHandle. */
  compileModule(m: ModuleHandle, dtype: DType, allowTF32: boolean): number;
  /** A value of a forward that is being traced: N x channels x H x W, without numbers. */
  traceInput(channels: number): TensorHandle;
  /** What a module gives for one; `path` is where it stands in the module that is traced. */
  traceModule(m: ModuleHandle, x: TensorHandle, path: string): TensorHandle;
  traceOperator(
    name: string,
    args: readonly NativeValue[],
    keywords: Record<string, NativeValue> | null,
  ): TensorHandle;
  /** A job that gives a CompiledHandle of what was traced on the way to `output`. */
  compileTraced(output: TensorHandle, name: string, dtype: DType, allowTF32: boolean): number;
  /**
   * What compiled models of this dtype, or of 'int8', run on there (`compiledInfo`'s), and why on nothing faster. Of a CUDA
   * device that was not used yet, it starts it.
   */
  compiledBackend(dtype: DType, device: Device): { backend: string; reason: string };
  compiledInfo(c: CompiledHandle): {
    model: string;
    device: Device;
    backend: string;
    /** Why no faster one took it; empty if none is. */
    backendReason: string;
    weightBytes: number;
    /** Calls of `compiledAnswer` that a device computes at once; 0: they compute on the executor's threads. */
    lanes: number;
    usualSize: [number, number];
  };
  compiledForward(c: CompiledHandle, x: TensorHandle): number;
  /**
   * A job that gives results on the CPU of images there: N x channels (or 1) x H x W, float32, or uint8 of which the network
   * takes (x / 255 - mean) / std. It occupies no thread while a device computes.
   */
  compiledAnswer(c: CompiledHandle, x: TensorHandle, mean: Float32Array, std: Float32Array): number;
  compiledExplain(c: CompiledHandle, height: number, width: number): CompiledStep[];
  /** A job that gives the seconds of each step, as a Float64Array. */
  compiledProfile(c: CompiledHandle, x: TensorHandle): number;
  disposeCompiled(c: CompiledHandle): void;
  /** A job that copies the weights and gives a CalibrationHandle. */
  beginCalibration(m: ModuleHandle): number;
  beginTracedCalibration(output: TensorHandle, name: string): number;
  /** A job without a value. */
  calibrationObserve(c: CalibrationHandle, images: TensorHandle): number;
  /** A job that gives a CompiledHandle. */
  calibrationFinish(
    c: CalibrationHandle,
    method: string,
    percentile: number,
    keep: readonly string[],
    keepFirst: boolean,
    errorBudget: number,
  ): number;
  calibrationRestore(c: CalibrationHandle, ...record: QuantizationColumns): number;
  disposeCalibration(c: CalibrationHandle): void;
  /** Null unless it is of int8. */
  compiledQuantization(c: CompiledHandle): {
    values: { name: string; scale: number; zero: number }[];
    keep: string[];
    keepFirst: boolean;
    corrections: { name: string; bias: number[] }[];
    error: number | null;
  } | null;
  compiledTensors(c: CompiledHandle): [name: string, tensor: TensorHandle][];
  /** A job that gives a PortableModel; the columns are of the dtype 'int8' alone. */
  describeModule(
    m: ModuleHandle,
    dtype: DType,
    keepBatchNorm: boolean,
    ...record: QuantizationColumns | []
  ): number;
  /** The same of what was traced on the way to `output`. */
  describeTraced(
    output: TensorHandle,
    dtype: DType,
    keepBatchNorm: boolean,
    ...record: QuantizationColumns | []
  ): number;

  // files
  /** When the file was last modified, in nanoseconds; taken before it is parsed, and given to what reads it. */
  modifiedTime(fd: number): bigint;
  /** Reads each range once, in parallel, into memory that the tensors own; `fd` must stay open until the job has ended. */
  readTensors(
    fd: number,
    size: number,
    modified: bigint,
    ranges: readonly ByteRange[],
    tensors: readonly TensorRead[],
  ): number;
  /** As readTensors, mapped instead of read; ranges that are not aligned to their elements are copied. */
  mapTensors(
    fd: number,
    size: number,
    modified: bigint,
    ranges: readonly ByteRange[],
    tensors: readonly TensorRead[],
  ): number;
  /** The bytes of small ranges of a file (headers), one after the other, as one Uint8Array. */
  readBytes(fd: number, size: number, ranges: readonly ByteRange[]): number;
  /** Copies the ranges out of `bytes` before it returns. */
  tensorsFromBytes(
    bytes: Uint8Array,
    ranges: readonly ByteRange[],
    tensors: readonly TensorRead[],
  ): TensorHandle[];
  /** Where a tensor's elements lie: `id` is equal for tensors that share a storage; stride and offset count elements. */
  storageInfo(t: TensorHandle): { id: bigint; bytes: number; stride: number[]; storageOffset: number };
  /** A copy of bytes of a tensor's storage. */
  storageBytes(t: TensorHandle, offset: number, length: number): Uint8Array;
}
