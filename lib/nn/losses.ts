/**
 * Loss functions, as `torch.nn`'s; each `forward` is a job of the executor. What a kernel would take on trust (labels
 * that are classes) is checked before it runs: on a CUDA device a wrong one would end the process's use of it.
 */
import { makeError } from '../errors';
import { binding } from '../native';
import { isFloating } from '../tensor/dtype';
import { describe } from '../tensor/options';
import { integer, number, oneOf, orElse, readOptions, signal, type Rule } from '../tensor/rules';
import { callOperatorAsync, handleOf, Tensor } from '../tensor/tensor';

export type Reduction = 'mean' | 'sum' | 'none';

export interface LossOptions {
  /** Default 'mean'. */
  reduction?: Reduction;
}

export interface NLLLossOptions extends LossOptions {
  /** A factor for each class; 'mean' then divides by the sum of the factors used. Default: 1 for each. */
  weight?: Tensor;
  /** A label that counts for nothing. Default -100. */
  ignoreIndex?: number;
}

export interface CrossEntropyLossOptions extends NLLLossOptions {
  /** How much of each target is spread evenly over the classes, 0 to 1. Default 0. */
  labelSmoothing?: number;
}

export interface BCEWithLogitsLossOptions extends LossOptions {
  /** A factor for each element, broadcast to the input's shape. Default: 1 for each. */
  weight?: Tensor;
  /** A factor for positive targets, broadcast to the input's shape; a vector has one for each class. Default: 1. */
  posWeight?: Tensor;
}

export interface LossForwardOptions {
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

// ATen's numbers for the reductions (at::Reduction).
const REDUCTIONS: Readonly<Record<Reduction, number>> = { none: 0, mean: 1, sum: 2 };
const IGNORED_LABEL = -100;

/** ATen's number of a reduction. */
const reduction: Rule<number> = orElse('mean', (given, what) => {
  return REDUCTIONS[oneOf(['mean', 'sum', 'none'])(given, what)];
});

const weight: Rule<Tensor | null> = (given, what) => {
  if (given === undefined || given === null) return null;
  if (!Tensor.isTensor(given))
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a Tensor, got ${describe(given)}`);
  if (isFloating(given.dtype)) return given;
  throw makeError('ERR_SENET_DTYPE', `${what}: expected a floating tensor, got ${given.dtype}`);
};

const NLL = { weight, reduction, ignoreIndex: orElse(IGNORED_LABEL, integer(Number.MIN_SAFE_INTEGER)) };
const CROSS_ENTROPY = { ...NLL, labelSmoothing: orElse(0, number(0, 1)) };

const text = (shape: readonly number[]): string => `[${shape.join(', ')}]`;

/** PyTorch broadcasts with a warning; a loss over tensors of different shapes is almost always a mistake. */
function checkSameShape(input: Tensor, target: Tensor, where: string): void {
  handleOf(input, `${where}: input`);
  handleOf(target, `${where}: target`);
  const [left, right] = [text(input.shape), text(target.shape)];
  if (left !== right) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: input ${left} and target ${right} must have the same shape`,
    );
  }
}

/** Input N x C x d1 x ... (or C) and labels N x d1 x ... (or none): gives the number of classes. */
function checkClassShapes(input: Tensor, target: Tensor, where: string): number {
  const { shape } = input;
  const expected = shape.length === 1 ? [] : shape.filter((_, dimension) => dimension !== 1);
  if (shape.length === 0 || text(target.shape) !== text(expected)) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: expected input N x classes (x more) and labels of its shape without the classes, got ${text(shape)} and ${text(target.shape)}`,
    );
  }
  return (shape.length === 1 ? shape[0] : shape[1]) as number;
}

/** Of labels that were copied to a device the ends are known; those that were computed there are waited for. */
function checkLabels(target: Tensor, classes: number, ignored: number, where: string): void {
  const ends = binding.knownRange(handleOf(target, where), ignored);
  const labels = ends ?? target.toTypedArray();
  for (let i = 0; i < labels.length; i++) {
    const label = Number(labels[i]);
    if ((label >= 0 && label < classes) || label === ignored) continue;
    const position = ends === null ? ` at position ${i}` : '';
    throw makeError(
      'ERR_SENET_LABELS',
      `${where}: label ${label}${position} is none of the ${classes} classes (0 to ${classes - 1})`,
    );
  }
}

function checkClassWeight(weight: Tensor | null, classes: number, where: string): void {
  if (weight !== null && text(weight.shape) !== text([classes])) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: weight: expected a factor for each of the ${classes} classes, got the shape ${text(weight.shape)}`,
    );
  }
}

/** The base of the losses that compare element by element. */
abstract class ElementwiseLoss {
  readonly #reduction: number;
  readonly #operator: string;

  /** @internal */
  protected constructor(operator: string, options: LossOptions | undefined, where: string) {
    this.#reduction = readOptions(options, { reduction }, where).reduction;
    this.#operator = operator;
  }

  /** @throws (rejects) ERR_SENET_SHAPE unless both have one shape; ERR_SENET_ABORTED */
  async forward(input: Tensor, target: Tensor, options?: LossForwardOptions): Promise<Tensor> {
    const where = this.constructor.name;
    const { signal: abort } = readOptions(options, { signal }, where);
    checkSameShape(input, target, where);
    return (await callOperatorAsync(
      this.#operator,
      [input, target, this.#reduction],
      undefined,
      abort,
    )) as Tensor;
  }
}

/** Mean (or sum) of |input - target|, `torch.nn.L1Loss`. */
export class L1Loss extends ElementwiseLoss {
  /** @throws ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: LossOptions) {
    super('aten::l1_loss', options, 'L1Loss');
  }
}

/** Mean (or sum) of (input - target) squared, `torch.nn.MSELoss`. */
export class MSELoss extends ElementwiseLoss {
  /** @throws ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: LossOptions) {
    super('aten::mse_loss', options, 'MSELoss');
  }
}

/**
 * Cross-entropy of logits, `torch.nn.CrossEntropyLoss`. The target is labels (int64, N for an input N x C) or
 * probabilities (floating, of the input's shape).
 */
export class CrossEntropyLoss {
  readonly #weight: Tensor | null;
  readonly #reduction: number;
  readonly #ignored: number;
  readonly #smoothing: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_DTYPE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: CrossEntropyLossOptions) {
    const where = 'CrossEntropyLoss';
    const checked = readOptions(options, CROSS_ENTROPY, where);
    this.#weight = checked.weight;
    this.#reduction = checked.reduction;
    this.#ignored = checked.ignoreIndex;
    this.#smoothing = checked.labelSmoothing;
  }

  /**
   * @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE (a target that is neither int64 nor floating), ERR_SENET_LABELS (a
   *   label that is no class), ERR_SENET_ABORTED
   */
  async forward(input: Tensor, target: Tensor, options?: LossForwardOptions): Promise<Tensor> {
    const where = 'CrossEntropyLoss';
    const { signal: abort } = readOptions(options, { signal }, where);
    handleOf(input, `${where}: input`);
    handleOf(target, `${where}: target`);
    const { dtype } = target;
    if (isFloating(dtype)) {
      checkSameShape(input, target, where);
      checkClassWeight(
        this.#weight,
        (input.shape.length === 1 ? input.shape[0] : input.shape[1]) ?? 0,
        where,
      );
    } else if (dtype === 'int64') {
      const classes = checkClassShapes(input, target, where);
      checkClassWeight(this.#weight, classes, where);
      checkLabels(target, classes, this.#ignored, where);
    } else {
      throw makeError(
        'ERR_SENET_DTYPE',
        `${where}: target: expected labels (int64) or probabilities (floating), got ${dtype}`,
      );
    }
    return (await callOperatorAsync(
      'aten::cross_entropy_loss',
      [input, target, this.#weight, this.#reduction, this.#ignored, this.#smoothing],
      undefined,
      abort,
    )) as Tensor;
  }
}

/** Negative log-likelihood of log-probabilities N x C (x more) and labels, `torch.nn.NLLLoss`. */
export class NLLLoss {
  readonly #weight: Tensor | null;
  readonly #reduction: number;
  readonly #ignored: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_DTYPE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: NLLLossOptions) {
    const where = 'NLLLoss';
    const checked = readOptions(options, NLL, where);
    this.#weight = checked.weight;
    this.#reduction = checked.reduction;
    this.#ignored = checked.ignoreIndex;
  }

  /** @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_LABELS, ERR_SENET_ABORTED */
  async forward(input: Tensor, target: Tensor, options?: LossForwardOptions): Promise<Tensor> {
    const where = 'NLLLoss';
    const { signal: abort } = readOptions(options, { signal }, where);
    handleOf(input, `${where}: input`);
    handleOf(target, `${where}: target`);
    if (target.dtype !== 'int64') {
      throw makeError('ERR_SENET_DTYPE', `${where}: target: expected labels (int64), got ${target.dtype}`);
    }
    const classes = checkClassShapes(input, target, where);
    checkClassWeight(this.#weight, classes, where);
    checkLabels(target, classes, this.#ignored, where);
    return (await callOperatorAsync(
      'aten::nll_loss_nd',
      [input, target, this.#weight, this.#reduction, this.#ignored],
      undefined,
      abort,
    )) as Tensor;
  }
}

/** Binary cross-entropy of logits and targets from 0 to 1 of one shape, `torch.nn.BCEWithLogitsLoss`. */
export class BCEWithLogitsLoss {
  readonly #weight: Tensor | null;
  readonly #posWeight: Tensor | null;
  readonly #reduction: number;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_DTYPE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: BCEWithLogitsLossOptions) {
    const where = 'BCEWithLogitsLoss';
    const checked = readOptions(options, { weight, posWeight: weight, reduction }, where);
    this.#weight = checked.weight;
    this.#posWeight = checked.posWeight;
    this.#reduction = checked.reduction;
  }

  /** @throws (rejects) ERR_SENET_SHAPE, ERR_SENET_DTYPE, ERR_SENET_ABORTED; ERR_SENET_LIBTORCH for a weight that does not fit */
  async forward(input: Tensor, target: Tensor, options?: LossForwardOptions): Promise<Tensor> {
    const where = 'BCEWithLogitsLoss';
    const { signal: abort } = readOptions(options, { signal }, where);
    checkSameShape(input, target, where);
    if (!isFloating(target.dtype)) {
      throw makeError('ERR_SENET_DTYPE', `${where}: target: expected a floating tensor, got ${target.dtype}`);
    }
    return (await callOperatorAsync(
      'aten::binary_cross_entropy_with_logits',
      [input, target, this.#weight, this.#posWeight, this.#reduction],
      undefined,
      abort,
    )) as Tensor;
  }
}
