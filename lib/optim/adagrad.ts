/** Adagrad, as `torch.optim.Adagrad`. */
import { zeros, full } from '../tensor/factories';
import { detached } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import {
  atLeastZero,
  flag,
  Optimizer,
  type OptimizerKind,
  type Parameters,
  type ParamGroupOptions,
} from './optimizer';

export interface AdagradOptions {
  /** Learning rate, at least 0. Default 0.01. */
  lr?: number;
  /** After n steps the rate is divided by 1 + n times this, at least 0. Default 0. */
  lrDecay?: number;
  /** Added to the denominator, at least 0. Default 1e-10. */
  eps?: number;
  /** L2 penalty, at least 0. Default 0. */
  weightDecay?: number;
  /** What the sums of squares begin with, at least 0. Default 0. */
  initialAccumulatorValue?: number;
  /** Ascend instead of descending. Default false. */
  maximize?: boolean;
}

const KIND: OptimizerKind = {
  name: 'Adagrad',
  native: 'adagrad',
  rules: {
    lr: atLeastZero(1e-2),
    lrDecay: atLeastZero(0),
    eps: atLeastZero(1e-10),
    weightDecay: atLeastZero(0),
    initialAccumulatorValue: atLeastZero(0),
    maximize: flag(false),
  },
  extras: { foreach: null, differentiable: false, fused: null },
  stateNames: ['step', 'sum'],
  // PyTorch's has it from the beginning, and steps with no other.
  initialState: ({ shape, dtype, device }, { initialAccumulatorValue }) =>
    detached(null, () => ({
      step: zeros([]),
      sum: full(shape, initialAccumulatorValue as number, { dtype, device }),
    })),
};

/** Duchi, Hazan and Singer: *Adaptive Subgradient Methods for Online Learning and Stochastic Optimization* (2011). */
export class Adagrad extends Optimizer {
  /**
   * @param params - parameters, named parameters, or groups of them with options of their own
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_AUTOGRAD, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(params: Parameters | Iterable<ParamGroupOptions>, options?: AdagradOptions) {
    super(KIND, params as Iterable<Tensor>, options);
  }
}
