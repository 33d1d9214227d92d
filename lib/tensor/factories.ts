/**
 * Functions that make tensors from data, constants and the random generator, as PyTorch's of the same names.
 */
import { typedArrayKind } from '../brands';
import type { Device, DType, TensorHandle, TypedArray } from '../binding';
import { makeError } from '../errors';
import { binding } from '../native';
import { checkDevice, checkDType, isFloating, naturalDType, typedArrayFor } from './dtype';
import { runJob } from './jobs';
import { flatten, inferDType, toElements, type NestedArray } from './nested-array';
import { checkBuffer, checkShape, describe } from './options';
import { boolean, optional, optionsReader, orElse, type Rules } from './rules';
import { callOperator, wrapTensor, wrapUntracked, type Tensor } from './tensor';

export interface FactoryOptions {
  /** Default float32. */
  dtype?: DType;
  /** Default 'cpu'. */
  device?: Device;
  /** Default false. */
  requiresGrad?: boolean;
}

export interface TensorOptions extends FactoryOptions {
  /** Of flat data; its product must be the number of elements. */
  shape?: readonly number[];
}

const FACTORY = {
  dtype: optional(checkDType),
  device: orElse('cpu', checkDevice),
  requiresGrad: orElse(false, boolean),
} satisfies Rules<FactoryOptions>;
const TENSOR = {
  shape: optional((value) => checkShape(value, 'tensor')),
  ...FACTORY,
} satisfies Rules<TensorOptions>;
const readFactoryOptions = optionsReader(FACTORY);
const readTensorOptions = optionsReader(TENSOR);

/**
 * A tensor with a copy of `data`, as `torch.tensor`.
 *
 * Without a dtype: numbers give float32, booleans bool, bigints int64, typed arrays their own (Uint8ClampedArray uint8).
 * A Uint16Array holds 16-bit patterns and needs the dtype float16 or bfloat16.
 *
 * @throws ERR_SENET_SHAPE (ragged, or shape and length disagree), ERR_SENET_DTYPE, ERR_SENET_BUFFER (shared,
 *   detached or resizable), ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (does not fit the dtype), ERR_SENET_CUDA_UNAVAILABLE
 */
export function tensor(data: NestedArray | TypedArray | Uint8ClampedArray, options?: TensorOptions): Tensor {
  const { shape, dtype, device, requiresGrad } = readTensorOptions(options, 'tensor');
  const source = ArrayBuffer.isView(data) ? fromView(data, dtype) : fromNested(data, dtype);
  const finalDType = dtype ?? source.dtype;
  checkDifferentiable(requiresGrad, finalDType);
  const sizes = shape ?? source.shape;
  if (finalDType === source.dtype) {
    return wrapTensor(binding.fromTypedArray(source.array, sizes, source.dtype, device, requiresGrad));
  }
  const raw = wrapUntracked(binding.fromTypedArray(source.array, sizes, source.dtype, device, false));
  const converted = raw.to(finalDType);
  raw.dispose();
  if (requiresGrad) converted.requiresGrad = true;
  return converted;
}

function checkDifferentiable(requiresGrad: boolean, dtype: DType): void {
  if (requiresGrad && !isFloating(dtype))
    throw makeError('ERR_SENET_DTYPE', `only floating tensors can require gradients, not ${dtype}`);
}

/**
 * As `tensor` of a Uint8Array, copied in a job. Internal: the bytes must not change, nor be transferred, before the
 * promise settles, or, if it was aborted, before the job ends; so they are none of the user's.
 */
export async function tensorOfBytes(
  data: Uint8Array,
  shape: readonly number[],
  signal?: AbortSignal,
): Promise<Tensor> {
  return wrapTensor((await runJob(() => binding.copyBytes(data, shape), signal)) as TensorHandle);
}

interface Source {
  array: TypedArray;
  shape: readonly number[];
  dtype: DType;
}

function fromView(view: ArrayBufferView, wanted: DType | undefined): Source {
  checkBuffer(view, 'tensor');
  const kind = typedArrayKind(view);
  let dtype = naturalDType(view);
  if (kind === 'Uint16Array') {
    if (wanted !== 'float16' && wanted !== 'bfloat16') {
      throw makeError(
        'ERR_SENET_DTYPE',
        `a Uint16Array needs the dtype float16 or bfloat16, got ${describe(wanted)}`,
      );
    }
    dtype = wanted;
  }
  // A byte array may carry booleans.
  if (kind === 'Uint8Array' && wanted === 'bool') dtype = 'bool';
  if (dtype === undefined) {
    throw makeError('ERR_SENET_ARG_TYPE', `no dtype has the elements of a ${kind ?? 'DataView'}`);
  }
  const array =
    kind === 'Uint8ClampedArray'
      ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
      : // Node's Buffer is a Uint8Array; the addon looks at the kind of array alone.
        (view as TypedArray);
  return { array, shape: [array.length], dtype };
}

function fromNested(data: NestedArray, wanted: DType | undefined): Source {
  const { shape, elements } = flatten(data);
  // 16-bit floats are made from float32 by LibTorch, which rounds as PyTorch does.
  const dtype = wanted === 'float16' || wanted === 'bfloat16' ? 'float32' : (wanted ?? inferDType(elements));
  return {
    array: elements.length === 0 ? typedArrayFor(dtype, 0) : toElements(elements, dtype),
    shape,
    dtype,
  };
}

function make(
  name: string,
  args: readonly unknown[],
  options: FactoryOptions | undefined,
  where: string,
  usualDType: DType,
): Tensor {
  const { dtype = usualDType, device, requiresGrad } = readFactoryOptions(options, where);
  checkDifferentiable(requiresGrad, dtype);
  const made = callOperator(name, args, { dtype, device }) as Tensor;
  if (requiresGrad) made.requiresGrad = true;
  return made;
}

/** Uniform draws from [0, 1), the same as `torch.rand`'s for the same seed. */
export function rand(shape: readonly number[], options?: FactoryOptions): Tensor {
  return make('aten::rand', [checkShape(shape, 'rand')], options, 'rand', 'float32');
}

/** Normal draws (mean 0, deviation 1), the same as `torch.randn`'s for the same seed. */
export function randn(shape: readonly number[], options?: FactoryOptions): Tensor {
  return make('aten::randn', [checkShape(shape, 'randn')], options, 'randn', 'float32');
}

/** Integers from [low, high), int64 by default, the same as `torch.randint`'s for the same seed. */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options?: FactoryOptions,
): Tensor {
  return make('aten::randint.low', [low, high, checkShape(shape, 'randint')], options, 'randint', 'int64');
}

export function zeros(shape: readonly number[], options?: FactoryOptions): Tensor {
  return make('aten::zeros', [checkShape(shape, 'zeros')], options, 'zeros', 'float32');
}

export function ones(shape: readonly number[], options?: FactoryOptions): Tensor {
  return make('aten::ones', [checkShape(shape, 'ones')], options, 'ones', 'float32');
}

/** Memory as it comes: fill it before reading. */
export function empty(shape: readonly number[], options?: FactoryOptions): Tensor {
  return make('aten::empty', [checkShape(shape, 'empty')], options, 'empty', 'float32');
}

/** Deviates from PyTorch: an integral number gives float32 (JavaScript has one kind of number); bigint int64, boolean bool. */
export function full(
  shape: readonly number[],
  value: number | bigint | boolean,
  options?: FactoryOptions,
): Tensor {
  return make('aten::full', [checkShape(shape, 'full'), value], options, 'full', inferDType([value]));
}

/**
 * `arange(end)` or `arange(start, end, step = 1, options)`: int64 if all numbers are integers, else float32, as PyTorch.
 */
export function arange(end: number, options?: FactoryOptions): Tensor;
export function arange(start: number, end: number, options?: FactoryOptions): Tensor;
export function arange(start: number, end: number, step: number, options?: FactoryOptions): Tensor;
export function arange(...args: (number | FactoryOptions | undefined)[]): Tensor {
  const last = args.at(-1);
  const options = typeof last === 'object' ? last : undefined;
  const numbers = (typeof last === 'object' ? args.slice(0, -1) : args) as (number | undefined)[];
  // What is left out at the end was not given.
  while (numbers.length > 0 && numbers.at(-1) === undefined) numbers.pop();
  if (numbers.length === 0) throw makeError('ERR_SENET_ARG_MISSING', 'arange: give the end');
  const wrong = numbers.findIndex((value, place) => typeof value !== 'number' || place > 2);
  if (wrong >= 0)
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `arange: expected the numbers (end) or (start, end, step), got ${describe(numbers[wrong])} at place ${wrong + 1}`,
    );
  const [first, second, step = 1] = numbers as [number, number?, number?];
  const [start, end] = second === undefined ? [0, first] : [first, second];
  const integral = [start, end, step].every((value) => Number.isInteger(value));
  return make(
    'aten::arange.start_step',
    [start, end, step],
    options,
    'arange',
    integral ? 'int64' : 'float32',
  );
}
