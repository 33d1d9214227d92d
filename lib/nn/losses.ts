/** Loss functions, as `torch.nn`'s; each `forward` is a job of the executor. */
import { makeError } from '../errors';
import { checkOptions, describe } from '../tensor/options';
import { callOperatorAsync, handleOf, type Tensor } from '../tensor/tensor';

export type Reduction = 'mean' | 'sum' | 'none';

export interface LossOptions {
  /** Default 'mean'. */
  reduction?: Reduction;
}

// ATen's numbers for the reductions (at::Reduction).
const REDUCTIONS: Readonly<Record<Reduction, number>> = { none: 0, mean: 1, sum: 2 };

function checkReduction(reduction: unknown, where: string): number {
  if (typeof reduction === 'string' && Object.hasOwn(REDUCTIONS, reduction))
    return REDUCTIONS[reduction as Reduction];
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: expected a reduction ('mean', 'sum', 'none'), got ${describe(reduction)}`,
  );
}

/** PyTorch broadcasts with a warning; a loss over tensors of different shapes is almost always a mistake. */
function checkSameShape(input: Tensor, target: Tensor, where: string): void {
  handleOf(input, `${where}: input`);
  handleOf(target, `${where}: target`);
  const [left, right] = [input.shape.join(', '), target.shape.join(', ')];
  if (left !== right) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: input [${left}] and target [${right}] must have the same shape`,
    );
  }
}

/** Mean (or sum) of |input - target|, `torch.nn.L1Loss`. */
export class L1Loss {
  readonly #reduction: number;

  /** @throws ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options?: LossOptions) {
    const { reduction = 'mean' } = checkOptions(options, ['reduction'], 'L1Loss');
    this.#reduction = checkReduction(reduction, 'L1Loss');
  }

  /** @throws (rejects) ERR_SENET_SHAPE unless both have one shape */
  async forward(input: Tensor, target: Tensor): Promise<Tensor> {
    checkSameShape(input, target, 'L1Loss');
    return (await callOperatorAsync('aten::l1_loss', [input, target, this.#reduction])) as Tensor;
  }
}
