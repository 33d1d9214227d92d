/** The optimiser and the learning rate's schedule of a recipe. */
import { makeError } from '../../errors';
import { Module } from '../../nn/module';
import { AdamW } from '../../optim/adam';
import type { Optimizer } from '../../optim/optimizer';
import { OneCycleLR } from '../../optim/one-cycle';
import type { LRScheduler } from '../../optim/scheduler';
import { CosineAnnealingLR, StepLR } from '../../optim/schedulers';
import { SGD } from '../../optim/sgd';
import { printable } from '../../printable';
import { checkInteger, describe, hint } from '../../tensor/options';
import type { Tensor } from '../../tensor/tensor';
import { complete } from './option-checks';
import type { OptimizerSettings, SchedulerSettings } from './settings';

type Given<Settings extends { lr: number }> = Partial<Settings> & Pick<Settings, 'lr'>;

/**
 * The optimiser of a recipe, over the parameters of a model that require a gradient.
 *
 * @param settings - `lr` is required; the others have the defaults of `trainFromSettings`
 * @example
 * const optimizer = createOptimizer(model, { optimizer: 'adamw', lr: 0.001 });
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION
 */
export function createOptimizer(model: Module<unknown>, settings: Given<OptimizerSettings>): Optimizer {
  const where = 'createOptimizer';
  if (!Module.isModule(model))
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: model: expected a Module, got ${describe(model)}`);
  const names = ['optimizer', 'lr', 'momentum', 'nesterov', 'weightDecay', 'lrScale'] as const;
  const { optimizer, lr, momentum, nesterov, weightDecay, lrScale } = complete(settings, names, where, {
    required: 'lr',
  });
  const parameters = groupsOf(model, lr, lrScale ?? {}, where);
  if (optimizer === 'adamw') return new AdamW(parameters, { lr, weightDecay });
  return new SGD(parameters, { lr, momentum, weightDecay, nesterov: nesterov && momentum > 0 });
}

/** The parameters that require a gradient, a group for each factor of the learning rate, those without one first. */
function groupsOf(
  model: Module<unknown>,
  lr: number,
  factors: Readonly<Record<string, number>>,
  where: string,
): { params: Tensor[]; lr: number }[] {
  const parts = Object.keys(factors).sort((left, right) => right.length - left.length);
  const names = model.namedModules().map(([name]) => name);
  const unknown = parts.find((part) => part === '' || !names.includes(part));
  if (unknown !== undefined) {
    const children = model.namedChildren().map(([name]) => name);
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${where}: lrScale: the model, of ${children.join(', ')}, has no part '${printable(unknown)}'${hint(unknown, names)}`,
    );
  }
  const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad);
  const partOf = (name: string): string | undefined => parts.find((part) => name.startsWith(`${part}.`));
  return [undefined, ...parts]
    .map((part) => ({
      params: trained.filter(([name]) => partOf(name) === part).map(([, parameter]) => parameter),
      lr: part === undefined ? lr : lr * (factors[part] as number),
    }))
    .filter(({ params }) => params.length > 0);
}

/** How long a run is. */
export interface RunLength {
  readonly epochs: number;
  /** Optimiser steps of an epoch. */
  readonly stepsPerEpoch: number;
}

/**
 * The schedule of a recipe, and what the Trainer needs to know of it: 'step' steps after each epoch, the others after
 * each optimiser step.
 *
 * @param optimizer - of several groups, each has the rate that it is given now as its highest, and `lr` is not looked at
 * @param settings - `lr` is required; the others have the defaults of `trainFromSettings`
 * @returns null for the schedule 'none'
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION
 */
export function createScheduler(
  optimizer: Optimizer,
  settings: Given<SchedulerSettings>,
  { epochs, stepsPerEpoch }: RunLength,
): { scheduler: LRScheduler; schedulerEvery: 'step' | 'epoch' } | null {
  const where = 'createScheduler';
  const names = ['schedule', 'lr', 'warmup', 'minLr', 'stepSize', 'gamma'] as const;
  const steps =
    checkInteger(epochs, `${where}: epochs`, 1) * checkInteger(stepsPerEpoch, `${where}: stepsPerEpoch`, 1);
  const { schedule, lr, warmup, minLr, stepSize, gamma } = complete(settings, names, where, {
    required: 'lr',
    epochs,
  });
  switch (schedule) {
    case 'onecycle': {
      // A rise of one step would begin and end at once, which PyTorch's formula cannot express (0 / 0).
      const pctStart = Math.abs(warmup * steps - 1) < 1e-9 ? 0 : warmup;
      const rates = optimizer.paramGroups.map((group) => group.lr);
      const maxLr = rates.length === 1 ? lr : rates;
      const scheduler = new OneCycleLR(optimizer, { maxLr, totalSteps: steps, pctStart });
      return { scheduler, schedulerEvery: 'step' };
    }
    case 'cosine':
      return {
        scheduler: new CosineAnnealingLR(optimizer, { tMax: steps, etaMin: minLr }),
        schedulerEvery: 'step',
      };
    case 'step':
      return { scheduler: new StepLR(optimizer, { stepSize, gamma }), schedulerEvery: 'epoch' };
    case 'none':
      return null;
  }
}
