/** RMSprop, as `torch.optim.RMSprop`. */
import type { Tensor } from '../tensor/tensor';
import {
  atLeastZero,
  flag,
  Optimizer,
  type OptimizerKind,
  type Parameters,
  type ParamGroupOptions,
} from './optimizer';

export interface RMSpropOptions {
  /** Learning rate, at least 0. Default 0.01. */
  lr?: number;
  /** At least 0. Default 0. */
  momentum?: number;
  /** How much of the running mean of squares is kept, at least 0. Default 0.99. */
  alpha?: number;
  /** Added to the denominator, at least 0. Default 1e-8. */
  eps?: number;
  /** Divide by the deviation of the gradient in place of its root mean square. Default false. */
  centered?: boolean;
  /** L2 penalty, at least 0. Default 0. */
  weightDecay?: number;
  /** Ascend instead of descending. Default false. */
  maximize?: boolean;
}

const KIND: OptimizerKind = {
  name: 'RMSprop',
  native: 'rmsprop',
  rules: {
    lr: atLeastZero(1e-2),
    momentum: atLeastZero(0),
    alpha: atLeastZero(0.99),
    eps: atLeastZero(1e-8),
    centered: flag(false),
    weightDecay: atLeastZero(0),
    maximize: flag(false),
  },
  extras: { capturable: false, foreach: null, differentiable: false },
  stateNames: ['step', 'square_avg', 'momentum_buffer', 'grad_avg'],
};

/** Tieleman and Hinton: *Lecture 6.5, RMSProp* (2012); centred as in Graves: *Generating Sequences* (2013). */
export class RMSprop extends Optimizer {
  /**
   * @param params - parameters, named parameters, or groups of them with options of their own
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_AUTOGRAD, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(params: Parameters | Iterable<ParamGroupOptions>, options?: RMSpropOptions) {
    super(KIND, params as Iterable<Tensor>, options);
  }
}
