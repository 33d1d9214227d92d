/** Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW`. */
import type { Tensor } from '../tensor/tensor';
import {
  atLeastZero,
  flag,
  Optimizer,
  twoBetas,
  type OptimizerKind,
  type Parameters,
  type ParamGroupOptions,
} from './optimizer';

export interface AdamOptions {
  /** Learning rate, at least 0. Default 0.001. */
  lr?: number;
  /** How much of the running means of the gradient and of its square is kept, each from 0 to below 1. Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Added to the denominator, at least 0. Default 1e-8. */
  eps?: number;
  /** At least 0. Adam adds it to the gradient as an L2 penalty (default 0), AdamW shrinks the weights (default 0.01). */
  weightDecay?: number;
  /** Divide by the largest mean of squares so far. Default false. */
  amsgrad?: boolean;
  /** Ascend instead of descending. Default false. */
  maximize?: boolean;
}

const rules = (weightDecay: number): OptimizerKind['rules'] => ({
  lr: atLeastZero(1e-3),
  betas: twoBetas([0.9, 0.999]),
  eps: atLeastZero(1e-8),
  weightDecay: atLeastZero(weightDecay),
  amsgrad: flag(false),
  maximize: flag(false),
});

const DECOUPLED = 'decoupled_weight_decay';

const extras = (decoupled: boolean): Record<string, unknown> => ({
  foreach: null,
  capturable: false,
  differentiable: false,
  fused: null,
  [DECOUPLED]: decoupled,
});

const stateNames = ['step', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq'];

const ADAM: OptimizerKind = {
  name: 'Adam',
  native: 'adam',
  rules: rules(0),
  extras: extras(false),
  stateNames,
  // As in PyTorch, a state dict of AdamW makes an AdamW of it.
  decouplesWeightDecay: (groupExtras) => groupExtras.get(DECOUPLED) === true,
};
const ADAMW: OptimizerKind = {
  name: 'AdamW',
  native: 'adam',
  rules: rules(0.01),
  extras: extras(true),
  stateNames,
  decouplesWeightDecay: () => true,
};

/** Kingma and Ba: *Adam: A Method for Stochastic Optimization* (2015). */
export class Adam extends Optimizer {
  /**
   * @param params - parameters, named parameters, or groups of them with options of their own
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_AUTOGRAD, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(params: Parameters | Iterable<ParamGroupOptions>, options?: AdamOptions) {
    super(ADAM, params as Iterable<Tensor>, options);
  }
}

/** Loshchilov and Hutter: *Decoupled Weight Decay Regularization* (2019). */
export class AdamW extends Optimizer {
  /**
   * @param params - parameters, named parameters, or groups of them with options of their own
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_AUTOGRAD, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(params: Parameters | Iterable<ParamGroupOptions>, options?: AdamOptions) {
    super(ADAMW, params as Iterable<Tensor>, options);
  }
}
