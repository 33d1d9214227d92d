/**
 * Tensor: a handle on a LibTorch tensor, and the typed methods over LibTorch's operators. Also the one function through
 * which every operator call goes (`callOperator`), since results become Tensors here.
 *
 * Methods run on the calling thread and record gradients as in PyTorch; what takes long (forward, backward, losses,
 * `ops.callAsync`) is a job of the executor instead.
 */
import { inspect } from 'node:util';

import type { Device, DType, NativeValue, TensorHandle, TypedArray } from '../binding';
import { isOfAnotherCopy, isPlainObject, markClass, typedArrayKind } from '../brands';
import { makeError } from '../errors';
import { binding } from '../native';
import { isFloating, ownView, parseTarget, type Target } from './dtype';
import { EDGE_ITEMS, tensorText, THRESHOLD } from './format';
import { runJob } from './jobs';
import { nest, type Element, type NestedArray } from './nested-array';
import { checkBoolean, checkInteger, describe, MAX_DIMENSIONS } from './options';
import { optionsReader, orElse, signal, unchecked } from './rules';
import { adopt, autocastDType, currentScope, gradEnabled, type Scope } from './scope';
import { isTraced, markTraced } from './tracing';

/** Only this module makes Tensors: a handle from elsewhere would be nobody's to dispose. */
const CONSTRUCT = Symbol('senet-torch tensor');

const UNCLONEABLE = 'elements';

/**
 * structuredClone, postMessage, a spread and deep equality read an object's own enumerable properties, of which a tensor
 * would have none: an empty object in place of the tensor, any two tensors equal. This one makes it an error.
 */
const uncloneable: PropertyDescriptor = {
  enumerable: true,
  get() {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      'a Tensor cannot be cloned, posted to another thread or compared by its properties: send its toTypedArray() and shape, and make a tensor of them there; compare what toArray() gives',
    );
  },
};

export type Keywords = Readonly<Record<string, unknown>>;

const NO_KEYWORDS: Keywords = Object.freeze({});

const readSignal = optionsReader({ signal });
// Values of what operators take are their schemas' to check.
const keepdim = orElse(false, unchecked<boolean>());
const readScaledOptions = optionsReader({ alpha: unchecked<number>() });
const readExtremeOptions = optionsReader({ keepdim });
const readReduceOptions = optionsReader({ keepdim, dtype: unchecked<DType>() });
const readSpreadOptions = optionsReader({ correction: orElse(1, unchecked<number>()), keepdim });
const readSortOptions = optionsReader({
  descending: orElse(false, unchecked<boolean>()),
  stable: orElse(false, unchecked<boolean>()),
});
const readDTypeOptions = optionsReader({ dtype: unchecked<DType>() });
const readTopkOptions = optionsReader({
  dim: orElse(-1, unchecked<number>()),
  largest: orElse(true, unchecked<boolean>()),
  sorted: orElse(true, unchecked<boolean>()),
});

/**
 * A multi-dimensional array with a dtype and a device, as `torch.Tensor`.
 *
 * Made by the factories (`tensor`, `rand`, ...) and by operations. Memory is freed by `dispose()`, by the end of a
 * `tidy`, or by the garbage collector. Every method of a disposed tensor throws ERR_SENET_DISPOSED; operators that
 * LibTorch refuses (shapes that do not fit) throw ERR_SENET_LIBTORCH with its message.
 */
export class Tensor {
  readonly #handle: TensorHandle;

  /** @internal */
  constructor(key: typeof CONSTRUCT, handle: TensorHandle) {
    if (key !== CONSTRUCT)
      throw makeError('ERR_SENET_ARG_TYPE', 'use tensor(...) or another factory to make a Tensor');
    this.#handle = handle;
    Object.defineProperty(this, UNCLONEABLE, uncloneable);
  }

  /** @internal */
  static handleOf(value: Tensor): TensorHandle {
    return value.#handle;
  }

  /** @internal True for Tensors of this very copy of the library. */
  static isTensor(value: unknown): value is Tensor {
    return typeof value === 'object' && value !== null && #handle in value;
  }

  get shape(): readonly number[] {
    return binding.tensorInfo(this.#handle).shape;
  }

  get dtype(): DType {
    return binding.tensorInfo(this.#handle).dtype;
  }

  get device(): Device {
    return binding.tensorInfo(this.#handle).device;
  }

  /** The shape, or its size along `dim`; negative ones count from the end. @throws ERR_SENET_ARG_RANGE */
  size(): readonly number[];
  size(dim: number): number;
  size(dim?: number): readonly number[] | number {
    const { shape } = this;
    if (dim === undefined) return shape;
    return shape.at(checkInteger(dim, 'size: dim', -shape.length, shape.length - 1)) as number;
  }

  /** Number of elements. */
  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  /**
   * The gradient that `backward` accumulated, or null. Never disposed by `tidy`.
   *
   * @throws ERR_SENET_BUSY while a job that uses it (backward, an optimiser's step, clipping) is queued or running
   */
  get grad(): Tensor | null {
    const handle = binding.grad(this.#handle);
    return handle === null ? null : wrapUntracked(handle);
  }

  set grad(value: Tensor | null) {
    binding.setGrad(this.#handle, value === null ? null : handleOf(value, 'grad'));
  }

  get requiresGrad(): boolean {
    return binding.requiresGrad(this.#handle);
  }

  set requiresGrad(value: boolean) {
    binding.setRequiresGrad(this.#handle, checkBoolean(value, 'requiresGrad'));
  }

  /** The same values with another dtype, device or memory format; this tensor itself if nothing changes. */
  to(target: Target): Tensor {
    const { dtype, device, memoryFormat } = parseTarget(target);
    if (device !== undefined) {
      return this.#call('aten::to.dtype_layout', {
        dtype: dtype ?? this.dtype,
        device,
        ...(memoryFormat === undefined ? {} : { memory_format: memoryFormat }),
      });
    }
    const keywords = memoryFormat === undefined ? {} : { memory_format: memoryFormat };
    return this.#call('aten::to.dtype', dtype ?? this.dtype, keywords);
  }

  /** A copy of the elements in row-major order; float16 and bfloat16 as their 16-bit patterns, bool as 0 and 1. */
  toTypedArray(): TypedArray {
    return ownView(binding.toTypedArray(this.#handle), this.dtype);
  }

  /**
   * As `toTypedArray`, without waiting: of a tensor on a CUDA device it settles when the device has come to it, and neither
   * the event loop nor a thread of the executor waits. It must not change in place until then.
   *
   * @throws (rejects) ERR_SENET_ABORTED; what ended the device's work
   */
  async toTypedArrayAsync(options?: { signal?: AbortSignal }): Promise<TypedArray> {
    const { signal: abort } = readSignal(options, 'toTypedArrayAsync');
    const { dtype } = this;
    const array = await runJob(() => binding.toTypedArrayLater(this.#handle), abort);
    return ownView(array as TypedArray, dtype);
  }

  /** A copy as nested arrays: numbers, bigints for int64, booleans for bool. A tensor of no dimensions gives its element. */
  toArray(): NestedArray {
    return nest(this.#elements(), this.shape);
  }

  /** The element of a tensor that has exactly one. @throws ERR_SENET_SHAPE */
  item(): Element {
    const elements = this.numel === 1 ? this.#elements() : [];
    const [element] = elements;
    if (element === undefined) {
      throw makeError(
        'ERR_SENET_SHAPE',
        `item: expected a tensor of one element, this one has the shape [${this.shape.join(', ')}]`,
      );
    }
    return element;
  }

  #elements(): Element[] {
    const { dtype } = this;
    if (dtype === 'float16' || dtype === 'bfloat16') {
      const wide = noGradCall('aten::to.dtype', [this, 'float32']) as Tensor;
      const elements = wide.#elements();
      wide.dispose();
      return elements;
    }
    const array = this.toTypedArray();
    return dtype === 'bool'
      ? Array.from(array as Uint8Array, (byte) => byte !== 0)
      : Array.from<Element>(array);
  }

  /**
   * Computes the gradients of everything that led here and requires them, as a job of the executor.
   *
   * @param gradient of this tensor's shape; may be left out if it has one element
   * @throws (rejects) ERR_SENET_AUTOGRAD, ERR_SENET_SHAPE, ERR_SENET_ABORTED
   */
  async backward(gradient?: Tensor | null, options?: { signal?: AbortSignal }): Promise<void> {
    const { signal: abort } = readSignal(options, 'backward');
    const gradientHandle =
      gradient === undefined || gradient === null ? null : handleOf(gradient, 'gradient');
    await runJob(() => binding.backward(this.#handle, gradientHandle), abort);
  }

  /** Frees the memory now (unless others share it). Harmless when repeated; a job that uses it keeps it until it ends. */
  dispose(): void {
    binding.disposeTensor(this.#handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * The values in PyTorch's layout, abridged beyond 1000 elements, then shape, dtype and device; so `console.log` too.
   * Reads the values, of a CUDA tensor from its device.
   */
  toString(): string {
    let info: { shape: readonly number[]; dtype: DType; device: Device };
    try {
      info = binding.tensorInfo(this.#handle);
    } catch {
      return 'Tensor { disposed }';
    }
    const { shape, dtype, device } = info;
    const facts = [`shape: [${shape.join(', ')}]`, `dtype: ${dtype}`, `device: ${device}`];
    if (this.requiresGrad) facts.push('requiresGrad');
    return tensorText(this.#edges(shape), shape, isFloating(dtype), facts);
  }

  /** The values as nested arrays, for `JSON.stringify`: bigints as numbers, which JSON has alone. */
  toJSON(): NestedArray {
    const plain = (value: NestedArray): NestedArray =>
      typeof value === 'bigint' ? Number(value) : isNested(value) ? value.map(plain) : value;
    return plain(this.toArray());
  }

  [inspect.custom](): string {
    return this.toString();
  }

  /** Nested arrays of what is shown of the tensor. */
  #edges(shape: readonly number[]): NestedArray {
    if (this.numel <= THRESHOLD) return this.toArray();
    let shown: Tensor | undefined;
    for (const [dim, size] of shape.entries()) {
      if (size <= 2 * EDGE_ITEMS) continue;
      const ends = [
        [0, EDGE_ITEMS],
        [size - EDGE_ITEMS, size],
      ];
      const parts = ends.map(
        ([start, end]) => noGradCall('aten::slice.Tensor', [shown ?? this, dim, start, end, 1]) as Tensor,
      );
      shown?.dispose();
      shown = noGradCall('aten::cat', [parts, dim]) as Tensor;
      for (const part of parts) part.dispose();
    }
    const values = (shown ?? this).toArray();
    shown?.dispose();
    return values;
  }

  /** Calls an operator with this tensor first and gives its one tensor; a last plain object holds keyword arguments. */
  #call(name: string, ...args: unknown[]): Tensor {
    return splitAndCall(name, [this, ...args]) as Tensor;
  }

  // Arithmetic. Numbers that are integral stay integers: int64 tensors keep their dtype.

  /** this + alpha * other, with broadcasting. */
  add(other: Tensor | number | bigint, options?: { alpha?: number }): Tensor {
    return this.#call('aten::add', other, scaledBy(options, 'add'));
  }
  /** this - alpha * other, with broadcasting. */
  sub(other: Tensor | number | bigint, options?: { alpha?: number }): Tensor {
    return this.#call('aten::sub', other, scaledBy(options, 'sub'));
  }
  mul(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::mul', other);
  }
  /** True division: integers give float32. */
  div(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::div', other);
  }
  pow(exponent: Tensor | number | bigint): Tensor {
    return this.#call('aten::pow', exponent);
  }
  matmul(other: Tensor): Tensor {
    return this.#call('aten::matmul', other);
  }
  neg(): Tensor {
    return this.#call('aten::neg');
  }
  abs(): Tensor {
    return this.#call('aten::abs');
  }
  sqrt(): Tensor {
    return this.#call('aten::sqrt');
  }
  exp(): Tensor {
    return this.#call('aten::exp');
  }
  log(): Tensor {
    return this.#call('aten::log');
  }
  clamp(min?: number | null, max?: number | null): Tensor {
    return this.#call('aten::clamp', min ?? null, max ?? null);
  }
  /** The greater element of both, with broadcasting. */
  maximum(other: Tensor): Tensor {
    return this.#call('aten::maximum', other);
  }
  /** The lesser element of both, with broadcasting. */
  minimum(other: Tensor): Tensor {
    return this.#call('aten::minimum', other);
  }
  relu(): Tensor {
    return this.#call('aten::relu');
  }
  sigmoid(): Tensor {
    return this.#call('aten::sigmoid');
  }
  tanh(): Tensor {
    return this.#call('aten::tanh');
  }
  softmax(dim: number): Tensor {
    return this.#call('aten::softmax.int', dim);
  }
  logSoftmax(dim: number): Tensor {
    return this.#call('aten::log_softmax.int', dim);
  }

  // In-place forms change this tensor and give it back.

  add_(other: Tensor | number | bigint, options?: { alpha?: number }): this {
    this.#inPlace('aten::add_', other, scaledBy(options, 'add_'));
    return this;
  }
  sub_(other: Tensor | number | bigint, options?: { alpha?: number }): this {
    this.#inPlace('aten::sub_', other, scaledBy(options, 'sub_'));
    return this;
  }
  mul_(other: Tensor | number | bigint): this {
    this.#inPlace('aten::mul_.Tensor', other);
    return this;
  }
  div_(other: Tensor | number | bigint): this {
    this.#inPlace('aten::div_', other);
    return this;
  }
  relu_(): this {
    this.#inPlace('aten::relu_');
    return this;
  }
  clamp_(min?: number | null, max?: number | null): this {
    this.#inPlace('aten::clamp_', min ?? null, max ?? null);
    return this;
  }
  zero_(): this {
    this.#inPlace('aten::zero_');
    return this;
  }
  fill_(value: number | bigint | boolean): this {
    this.#inPlace('aten::fill_', value);
    return this;
  }
  /** Copies `source` into this tensor, with broadcasting and conversion. */
  copy_(source: Tensor): this {
    this.#inPlace('aten::copy_', source);
    return this;
  }
  /** Draws from the normal distribution of the process's generator, as `Tensor.normal_`. */
  normal_(mean = 0, std = 1): this {
    this.#inPlace('aten::normal_', mean, std);
    return this;
  }
  /** Draws from [from, to), as `Tensor.uniform_`. */
  uniform_(from = 0, to = 1): this {
    this.#inPlace('aten::uniform_', from, to);
    return this;
  }

  /** Writes `value` where `mask` (bool, broadcast) is true. */
  maskedFill_(mask: Tensor, value: Tensor | number | bigint | boolean): this {
    this.#inPlace('aten::masked_fill_', mask, value);
    return this;
  }

  #inPlace(name: string, ...args: unknown[]): void {
    // The operator gives its first argument back: a second handle on this tensor that nobody needs.
    this.#call(name, ...args).dispose();
  }

  // Comparisons give bool tensors.

  eq(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::eq', other);
  }
  ne(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::ne', other);
  }
  gt(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::gt', other);
  }
  ge(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::ge', other);
  }
  lt(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::lt', other);
  }
  le(other: Tensor | number | bigint): Tensor {
    return this.#call('aten::le', other);
  }

  isnan(): Tensor {
    return this.#call('aten::isnan');
  }
  isfinite(): Tensor {
    return this.#call('aten::isfinite');
  }
  /** Whether shape and elements are the same; a NaN is never. */
  equal(other: Tensor): boolean {
    return callOperator('aten::equal', [this, other]) as boolean;
  }

  // Logic: whatever is not 0 is true.

  logicalAnd(other: Tensor): Tensor {
    return this.#call('aten::logical_and', other);
  }
  logicalOr(other: Tensor): Tensor {
    return this.#call('aten::logical_or', other);
  }
  logicalXor(other: Tensor): Tensor {
    return this.#call('aten::logical_xor', other);
  }
  logicalNot(): Tensor {
    return this.#call('aten::logical_not');
  }
  /** Whether all elements are true, without `dim` of the whole tensor. */
  all(dim?: number, options?: { keepdim?: boolean }): Tensor {
    return this.#judge('all', dim, options);
  }
  /** Whether any element is true, without `dim` of the whole tensor. */
  any(dim?: number, options?: { keepdim?: boolean }): Tensor {
    return this.#judge('any', dim, options);
  }
  #judge(name: string, dim: number | undefined, options: { keepdim?: boolean } | undefined): Tensor {
    const { keepdim } = readExtremeOptions(options, name);
    return dim === undefined ? this.#call(`aten::${name}`) : this.#call(`aten::${name}.dim`, dim, keepdim);
  }
  /** This tensor's elements where `condition` (bool) is true, `other`'s elsewhere, with broadcasting. */
  where(condition: Tensor, other: Tensor | number | bigint): Tensor {
    return Tensor.where(condition, this, other);
  }
  /** A copy with `value` where `mask` (bool, broadcast) is true. */
  maskedFill(mask: Tensor, value: Tensor | number | bigint | boolean): Tensor {
    return this.#call('aten::masked_fill', mask, value);
  }

  // Reductions. Without `dim` over all elements.

  sum(dim?: number | readonly number[] | null, options?: { keepdim?: boolean; dtype?: DType }): Tensor {
    return this.#reduce('sum', dim, options);
  }
  mean(dim?: number | readonly number[] | null, options?: { keepdim?: boolean; dtype?: DType }): Tensor {
    return this.#reduce('mean', dim, options);
  }
  #reduce(
    name: string,
    dim: number | readonly number[] | null | undefined,
    options: { keepdim?: boolean; dtype?: DType } | undefined,
  ): Tensor {
    const { keepdim, dtype } = readReduceOptions(options, name);
    const keywords = dtype === undefined ? NO_KEYWORDS : { dtype };
    if (dim === undefined || dim === null) return this.#call(`aten::${name}`, keywords);
    return this.#call(`aten::${name}.${name === 'sum' ? 'dim_IntList' : 'dim'}`, dim, keepdim, keywords);
  }
  /**
   * The standard deviation, as `torch.std`.
   *
   * @param options - `correction`: what is taken from the number of elements that the sum of squares is divided by;
   *   default 1 (Bessel's)
   */
  std(dim?: number | readonly number[] | null, options?: { correction?: number; keepdim?: boolean }): Tensor {
    return this.#spread('std', dim, options);
  }
  /** The variance, as `torch.var`; options as of `std`. */
  var(dim?: number | readonly number[] | null, options?: { correction?: number; keepdim?: boolean }): Tensor {
    return this.#spread('var', dim, options);
  }
  #spread(
    name: string,
    dim: number | readonly number[] | null | undefined,
    options: { correction?: number; keepdim?: boolean } | undefined,
  ): Tensor {
    return this.#call(`aten::${name}.correction`, dim ?? null, { ...readSpreadOptions(options, name) });
  }
  /**
   * The vector norm of order `p`, as `torch.linalg.vector_norm` and `Tensor.norm`.
   *
   * @param p - default 2; Infinity is the largest absolute value, 0 the number of elements that are not 0
   */
  norm(
    p = 2,
    dim?: number | readonly number[] | null,
    options?: { keepdim?: boolean; dtype?: DType },
  ): Tensor {
    const { keepdim, dtype } = readReduceOptions(options, 'norm');
    const keywords = dtype === undefined ? NO_KEYWORDS : { dtype };
    return this.#call('aten::linalg_vector_norm', p, dim ?? null, keepdim, keywords);
  }
  /** Sums of the elements up to each along `dim`. */
  cumsum(dim: number, options?: { dtype?: DType }): Tensor {
    const { dtype } = readDTypeOptions(options, 'cumsum');
    return this.#call('aten::cumsum', dim, dtype === undefined ? NO_KEYWORDS : { dtype });
  }
  /**
   * The elements in order along `dim` (default -1), and where they were.
   *
   * @param options - `descending` and `stable` (equal elements keep their order), default false
   */
  sort(dim = -1, options?: { descending?: boolean; stable?: boolean }): { values: Tensor; indices: Tensor } {
    const { descending, stable } = readSortOptions(options, 'sort');
    return valuesAndIndices(callOperator('aten::sort.stable', [this], { stable, dim, descending }));
  }
  /** The indices of `sort`. */
  argsort(dim = -1, options?: { descending?: boolean; stable?: boolean }): Tensor {
    const { descending, stable } = readSortOptions(options, 'argsort');
    return this.#call('aten::argsort.stable', { stable, dim, descending });
  }
  /** The largest element, or with `dim` `{ values, indices }` as PyTorch's named tuple. */
  max(): Tensor;
  max(dim: number, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor };
  max(dim?: number, options?: { keepdim?: boolean }): Tensor | { values: Tensor; indices: Tensor } {
    return this.#extreme('max', dim, options);
  }
  /** The smallest element, or with `dim` `{ values, indices }` as PyTorch's named tuple. */
  min(): Tensor;
  min(dim: number, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor };
  min(dim?: number, options?: { keepdim?: boolean }): Tensor | { values: Tensor; indices: Tensor } {
    return this.#extreme('min', dim, options);
  }
  #extreme(
    name: string,
    dim: number | undefined,
    options: { keepdim?: boolean } | undefined,
  ): Tensor | { values: Tensor; indices: Tensor } {
    const { keepdim } = readExtremeOptions(options, name);
    if (dim === undefined) return this.#call(`aten::${name}`);
    return valuesAndIndices(callOperator(`aten::${name}.dim`, [this, dim, keepdim]));
  }
  argmax(dim?: number | null, options?: { keepdim?: boolean }): Tensor {
    const { keepdim } = readExtremeOptions(options, 'argmax');
    return this.#call('aten::argmax', dim ?? null, keepdim);
  }
  argmin(dim?: number | null, options?: { keepdim?: boolean }): Tensor {
    const { keepdim } = readExtremeOptions(options, 'argmin');
    return this.#call('aten::argmin', dim ?? null, keepdim);
  }
  /** The k largest (or smallest) along `dim`, sorted. */
  topk(
    k: number,
    options?: { dim?: number; largest?: boolean; sorted?: boolean },
  ): { values: Tensor; indices: Tensor } {
    const { dim, largest, sorted } = readTopkOptions(options, 'topk');
    return valuesAndIndices(callOperator('aten::topk', [this, k, dim, largest, sorted]));
  }

  // Shapes. Views share memory with this tensor. A list of integers may be given as arguments too, as in PyTorch.

  /** A view of another shape; one size may be -1. @throws ERR_SENET_LIBTORCH if only a copy could have it */
  view(shape: readonly number[]): Tensor;
  view(...shape: number[]): Tensor;
  view(...shape: Integers): Tensor {
    return this.#call('aten::view', integers(shape));
  }
  /** As `view`, copying where it must. */
  reshape(shape: readonly number[]): Tensor;
  reshape(...shape: number[]): Tensor;
  reshape(...shape: Integers): Tensor {
    return this.#call('aten::reshape', integers(shape));
  }
  /** This tensor's dimensions in another order. */
  permute(dims: readonly number[]): Tensor;
  permute(...dims: number[]): Tensor;
  permute(...dims: Integers): Tensor {
    return this.#call('aten::permute', integers(dims));
  }
  transpose(dim0: number, dim1: number): Tensor {
    return this.#call('aten::transpose.int', dim0, dim1);
  }
  flatten(startDim = 0, endDim = -1): Tensor {
    return this.#call('aten::flatten.using_ints', startDim, endDim);
  }
  squeeze(dim?: number): Tensor {
    return dim === undefined ? this.#call('aten::squeeze') : this.#call('aten::squeeze.dim', dim);
  }
  unsqueeze(dim: number): Tensor {
    return this.#call('aten::unsqueeze', dim);
  }
  /** Repeats dimensions of size 1 without copying; -1 leaves one as it is. */
  expand(shape: readonly number[]): Tensor;
  expand(...shape: number[]): Tensor;
  expand(...shape: Integers): Tensor {
    return this.#call('aten::expand', integers(shape));
  }
  /** Copies side by side, so many along each dimension; there may be more than this tensor has, in front. */
  repeat(sizes: readonly number[]): Tensor;
  repeat(...sizes: number[]): Tensor;
  repeat(...sizes: Integers): Tensor {
    return this.#call('aten::repeat', integers(sizes));
  }
  /** Views of `size` along `dim`, the last of what is left; or of the sizes of an array, whose sum is that of `dim`. */
  split(size: number | readonly number[], dim = 0): Tensor[] {
    const name = typeof size === 'number' ? 'aten::split.Tensor' : 'aten::split_with_sizes';
    return callOperator(name, [this, size, dim]) as Tensor[];
  }
  /** At most `chunks` views of one size along `dim`, the last of what is left. */
  chunk(chunks: number, dim = 0): Tensor[] {
    return callOperator('aten::chunk', [this, chunks, dim]) as Tensor[];
  }
  /** The slices along `dim`, without that dimension. */
  unbind(dim = 0): Tensor[] {
    return callOperator('aten::unbind.int', [this, dim]) as Tensor[];
  }
  /** The slice at `index` of `dim`, without that dimension. */
  select(dim: number, index: number): Tensor {
    return this.#call('aten::select.int', dim, index);
  }
  /** Elements [start, end) of `dim` in steps; negative numbers count from the end. */
  slice(dim = 0, start?: number | null, end?: number | null, step = 1): Tensor {
    return this.#call('aten::slice.Tensor', dim, start ?? null, end ?? null, step);
  }
  indexSelect(dim: number, index: Tensor): Tensor {
    return this.#call('aten::index_select', dim, index);
  }
  gather(dim: number, index: Tensor): Tensor {
    return this.#call('aten::gather', dim, index);
  }
  /** Pads the last dimensions, `[left, right, top, bottom, ...]` as `torch.nn.functional.pad`. */
  pad(
    padding: readonly number[],
    mode: 'constant' | 'reflect' | 'replicate' | 'circular' = 'constant',
    value = 0,
  ): Tensor {
    return this.#call('aten::pad', padding, mode, mode === 'constant' ? value : null);
  }
  clone(): Tensor {
    return this.#call('aten::clone');
  }
  /** The same memory without its graph. */
  detach(): Tensor {
    return this.#call('aten::detach');
  }
  contiguous(): Tensor {
    return this.#call('aten::contiguous');
  }

  /** Joins tensors along an existing dimension. */
  static cat(tensors: readonly Tensor[], dim = 0): Tensor {
    return callOperator('aten::cat', [tensors, checkInteger(dim, 'cat: dim', -64, 64)]) as Tensor;
  }
  /** Elements of `input` where `condition` (bool) is true, of `other` elsewhere, with broadcasting: `torch.where`. */
  static where(condition: Tensor, input: Tensor | number | bigint, other: Tensor | number | bigint): Tensor {
    return callOperator('aten::where', [condition, input, other]) as Tensor;
  }
  /** Joins tensors of one shape along a new dimension. */
  static stack(tensors: readonly Tensor[], dim = 0): Tensor {
    return callOperator('aten::stack', [tensors, checkInteger(dim, 'stack: dim', -64, 64)]) as Tensor;
  }
}

markClass(Tensor);

/** An array, or the numbers themselves. */
type Integers = [readonly number[]] | number[];

function integers(given: Integers): readonly number[] {
  const [first] = given;
  return given.length === 1 && typeof first !== 'number' ? first : (given as number[]);
}

function isNested(value: NestedArray): value is readonly NestedArray[] {
  return Array.isArray(value);
}

/** A Tensor on a handle, owned by `scope` if a `tidy` is open there. */
export function wrapTensor(handle: TensorHandle, scope: Scope | undefined = currentScope()): Tensor {
  const tensor = new Tensor(CONSTRUCT, handle);
  adopt(tensor, scope);
  return tensor;
}

/** A Tensor that no `tidy` disposes: parameters, buffers and gradients. */
export function wrapUntracked(handle: TensorHandle): Tensor {
  return new Tensor(CONSTRUCT, handle);
}

/** The handle of a Tensor. @throws ERR_SENET_ARG_TYPE */
export function handleOf(value: unknown, what: string): TensorHandle {
  if (Tensor.isTensor(value)) return Tensor.handleOf(value);
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a Tensor, got ${describe(value)}`);
}

/** Calls an operator on this thread. */
export function callOperator(name: string, args: readonly unknown[], keywords?: Keywords): unknown {
  const native = args.map(toNative);
  const named = nativeKeywords(keywords);
  const value = native.some(isTraced)
    ? markTraced(binding.traceOperator(name, native, named))
    : binding.callOperator(name, native, named, gradEnabled(), autocastDType());
  return fromNative(value, currentScope());
}

/** Calls an operator as a job of the executor. */
export async function callOperatorAsync(
  name: string,
  args: readonly unknown[],
  keywords?: Keywords,
  signal?: AbortSignal,
): Promise<unknown> {
  const scope = currentScope();
  const grad = gradEnabled();
  const autocast = autocastDType();
  if (args.map(toNative).some(isTraced)) return callOperator(name, args, keywords);
  const value = await runJob(
    () => binding.callOperatorAsync(name, args.map(toNative), nativeKeywords(keywords), grad, autocast),
    signal,
  );
  return fromNative(value, scope);
}

/** Separates a last plain object, the keyword arguments, from the positional ones. */
export function splitKeywords(
  args: readonly unknown[],
): [positional: readonly unknown[], keywords: Keywords | undefined] {
  const last = args.at(-1);
  return isPlainObject(last) ? [args.slice(0, -1), last] : [args, undefined];
}

function splitAndCall(name: string, args: readonly unknown[]): unknown {
  const [positional, keywords] = splitKeywords(args);
  return callOperator(name, positional, keywords);
}

function noGradCall(name: string, args: readonly unknown[]): unknown {
  return fromNative(binding.callOperator(name, args.map(toNative), null, false, null), undefined);
}

function nativeKeywords(keywords: Keywords | undefined): Record<string, NativeValue> | null {
  if (keywords === undefined) return null;
  return Object.fromEntries(Object.entries(keywords).map(([name, value]) => [name, toNative(value)]));
}

/** Tensors to handles, in arrays too; what no operator takes is refused by the schema. */
function toNative(value: unknown): NativeValue {
  return nativeAt(value, 0);
}

function nativeAt(value: unknown, depth: number): NativeValue {
  if (Tensor.isTensor(value)) return Tensor.handleOf(value);
  if (Array.isArray(value)) {
    if (depth < MAX_DIMENSIONS) return value.map((item) => nativeAt(item, depth + 1));
    throw makeError('ERR_SENET_ARG_TYPE', `expected arrays at most ${MAX_DIMENSIONS} deep`);
  }
  if (typedArrayKind(value) !== undefined) return Array.from(value as ArrayLike<number | bigint>);
  if (typeof value === 'object' && value !== null && isOfAnotherCopy(value))
    throw makeError('ERR_SENET_ARG_TYPE', `expected a Tensor, got ${describe(value)}`);
  return value as NativeValue;
}

/** Handles to Tensors, in arrays too. Operators give no other objects. */
function fromNative(value: unknown, scope: Scope | undefined): unknown {
  if (Array.isArray(value)) return value.map((item: unknown) => fromNative(item, scope));
  if (typeof value === 'object' && value !== null) return wrapTensor(value as TensorHandle, scope);
  return value;
}

/** The keyword of `add` and `sub`; one that is left out is the operator's. */
function scaledBy(options: { alpha?: number } | undefined, where: string): Keywords {
  const { alpha } = readScaledOptions(options, where);
  return alpha === undefined ? NO_KEYWORDS : { alpha };
}

function valuesAndIndices(results: unknown): { values: Tensor; indices: Tensor } {
  const [values, indices] = results as [Tensor, Tensor];
  return { values, indices };
}
