/** Stochastic gradient descent with momentum, as `torch.optim.SGD`. */
import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';
import {
  anyNumber,
  atLeastZero,
  flag,
  Optimizer,
  type OptimizerKind,
  type Parameters,
  type ParamGroupOptions,
} from './optimizer';

export interface SGDOptions {
  /** Learning rate, at least 0. Default 0.001. */
  lr?: number;
  /** At least 0. Default 0. */
  momentum?: number;
  /** Default 0. */
  dampening?: number;
  /** L2 penalty, at least 0. Default 0. */
  weightDecay?: number;
  /** Nesterov's momentum; needs a momentum and no dampening. Default false. */
  nesterov?: boolean;
  /** Ascend instead of descending. Default false. */
  maximize?: boolean;
}

const KIND: OptimizerKind = {
  name: 'SGD',
  native: 'sgd',
  rules: {
    lr: atLeastZero(1e-3),
    momentum: atLeastZero(0),
    dampening: anyNumber(0),
    weightDecay: atLeastZero(0),
    nesterov: flag(false),
    maximize: flag(false),
  },
  extras: { foreach: null, differentiable: false, fused: null },
  stateNames: ['momentum_buffer'],
  checkTogether({ nesterov, momentum = 0, dampening }, where) {
    if (nesterov === true && (momentum <= 0 || dampening !== 0)) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${where}: nesterov needs a momentum above 0 and a dampening of 0`,
      );
    }
  },
};

/**
 * ```ts
 * const optimizer = new SGD(model.parameters(), { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 5e-4 });
 * ```
 */
export class SGD extends Optimizer {
  /**
   * @param params - parameters, named parameters, or groups of them with options of their own
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_AUTOGRAD, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(params: Parameters | Iterable<ParamGroupOptions>, options?: SGDOptions) {
    super(KIND, params as Iterable<Tensor>, options);
  }
}
