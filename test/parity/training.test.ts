/** Losses, optimisers, schedules and whole training runs against PyTorch's recorded ones. */
import { expect } from 'chai';
import path from 'node:path';

import { loadCheckpoint } from '../../lib/checkpoint/load';
import { se_preactresnet20, se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { se_inception_v3, type InceptionOutputs } from '../../lib/models/se-inception-v3';
import { se_resnet18 } from '../../lib/models/se-resnet';
import type { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { CrossEntropyLoss, L1Loss, type Reduction } from '../../lib/nn/losses';
import { Adam, AdamW } from '../../lib/optim/adam';
import type { Optimizer } from '../../lib/optim/optimizer';
import * as schedulers from '../../lib/optim/schedulers';
import type { LRScheduler } from '../../lib/optim/schedulers';
import { SGD } from '../../lib/optim/sgd';
import { rand, randn, tensor, zeros } from '../../lib/tensor/factories';
import { getRngState, manualSeed, setRngState } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { numbers, readFixture, relativeError, toOptions, type Summary, type Values } from '../support/parity';

interface Training {
  optimizers: {
    kind: 'SGD' | 'Adam' | 'AdamW';
    options: Record<string, unknown>;
    steps: { loss: number; parameters: Record<string, Values> }[];
  }[];
  schedulers: {
    kind: 'StepLR';
    lr: number;
    options: Record<string, unknown>;
    rates: { lr: number; momentum: number }[] | number[];
  }[];
  crossEntropy: {
    input: Values;
    target: number[];
    weight: Values;
    cases: {
      reduction: Reduction;
      weighted: boolean;
      labelSmoothing: number;
      loss: Values;
      gradient: Values;
    }[];
  };
  inceptionTrain: {
    args: Record<string, unknown>;
    constructionSeed: number;
    inputSeed: number;
    forwardSeed: number;
    logits: Values;
    auxLogits: Values;
  };
}

interface Run {
  args: Record<string, unknown>;
  constructionSeed: number;
  inputSeed: number;
  input: Summary;
  target: number[];
  optimizer: { kind: 'SGD'; lr: number; momentum: number; weightDecay: number };
  losses: number[];
  firstGradients: Record<string, Summary>;
  finalState: Record<string, Summary>;
}

const training = readFixture<Training>('training.json');
const parity = readFixture<{ train: Record<string, Run>; train64: Record<string, Run> }>('parity.json');
const networks: Record<string, (options: Record<string, unknown>) => Module> = {
  se_resnet20: (options) => se_resnet20(options),
};

const OPTIMIZERS = { SGD, Adam, AdamW };

const fromValues = ({ shape, values }: Values): Tensor => tensor(Float32Array.from(values), { shape });
const labelsOf = (target: readonly number[]): Tensor => tensor(BigInt64Array.from(target, BigInt));

describe('parity: optimisers', () => {
  for (const { kind, options, steps } of training.optimizers) {
    it(`${kind} ${JSON.stringify(options)}`, async () => {
      manualSeed(90);
      const model = new SELayer(16, 4);
      const x = rand([2, 16, 5, 5]);
      const target = rand([2, 16, 5, 5]);
      const optimizer: Optimizer = new OPTIMIZERS[kind](model.parameters(), toOptions(options));
      const loss = new L1Loss();
      for (const [step, expected] of steps.entries()) {
        optimizer.zeroGrad();
        const value = await loss.forward(await model.forward(x), target);
        await value.backward();
        await optimizer.step();
        expect(value.item()).to.be.closeTo(expected.loss, 1e-6 * expected.loss);
        for (const [name, parameter] of model.namedParameters()) {
          const error = relativeError(parameter, (expected.parameters[name] as Values).values);
          expect(error, `step ${step}, ${name}`).to.be.below(1e-6);
        }
      }
    });
  }
});

describe('parity: schedules', () => {
  for (const { kind, lr, options, rates } of training.schedulers) {
    it(`${kind} ${JSON.stringify(options)}`, async () => {
      const parameter = zeros([1], { requiresGrad: true });
      parameter.grad = zeros([1]);
      const optimizer = new SGD([parameter], { lr, momentum: 0.9 });
      const given = toOptions(options);
      // PyTorch writes T_max.
      if ('TMax' in given || 'T_max' in given) {
        given.tMax = given.TMax ?? given.T_max;
        delete given.TMax;
        delete given.T_max;
      }
      const Scheduler = schedulers[kind] as new (optimizer: Optimizer, options: object) => LRScheduler;
      const scheduler = new Scheduler(optimizer, given);
      for (const [step, expected] of rates.entries()) {
        const [group] = optimizer.paramGroups;
        expect(group?.lr, `step ${step}: lr`).to.be.closeTo(expected.lr, 1e-9);
        expect(group?.momentum, `step ${step}: momentum`).to.be.closeTo(expected.momentum, 1e-9);
        await optimizer.step();
        if (step + 1 < rates.length) scheduler.step();
      }
    });
  }
});

describe('parity: cross-entropy', () => {
  const { input, target, weight, cases } = training.crossEntropy;
  for (const { reduction, weighted, labelSmoothing, loss, gradient } of cases) {
    it(`${reduction}, ${weighted ? 'weighted' : 'not weighted'}, smoothing ${labelSmoothing}`, async () => {
      const x = fromValues(input);
      x.requiresGrad = true;
      const criterion = new CrossEntropyLoss({
        reduction,
        labelSmoothing,
        ...(weighted ? { weight: fromValues(weight) } : {}),
      });
      const value = await criterion.forward(x, labelsOf(target));
      expect(value.shape).to.deep.equal(loss.shape);
      expect(relativeError(value, loss.values)).to.be.below(1e-6);
      await value.sum().backward();
      expect(relativeError(x.grad as Tensor, gradient.values)).to.be.below(1e-6);
    });
  }
});

function l2(elements: readonly number[]): number {
  return Math.sqrt(elements.reduce((total, value) => total + value * value, 0));
}

/** The tolerances: float32 training is chaotic, float64 is not. */
function expectState(actual: Tensor, expected: Summary, what: string, exact: boolean): void {
  const tolerance = exact ? 1e-9 : 1e-3;
  const size = expected.shape.reduce((product, value) => product * value, 1);
  const scale = Math.max(expected.l2, 0.1 * Math.sqrt(size));
  expect(actual.shape, `${what}: shape`).to.deep.equal(expected.shape);
  expect(l2(numbers(actual)), `${what}: norm`).to.be.closeTo(expected.l2, tolerance * scale);
}

function expectGradient(actual: Tensor, expected: Summary, what: string, exact: boolean): void {
  const tolerance = exact ? 1e-9 : 1e-3;
  const elements = numbers(actual);
  expect(l2(elements), `${what}: norm`).to.be.closeTo(expected.l2, tolerance * expected.l2);
  const rootMeanSquare = expected.l2 / Math.sqrt(elements.length);
  for (const [i, value] of expected.head.entries()) {
    expect(elements[i], `${what}: element ${i}`).to.be.closeTo(value, tolerance * rootMeanSquare);
  }
}

describe('parity: training', function () {
  this.timeout(120_000);
  for (const [kind, runs] of [
    ['float32', parity.train],
    ['float64', parity.train64],
  ] as const) {
    for (const [name, run] of Object.entries(runs)) {
      it(`${name} in ${kind}`, async () => {
        const exact = kind === 'float64';
        manualSeed(run.constructionSeed);
        const make = networks[name] as (options: Record<string, unknown>) => Module;
        const model = make(toOptions(run.args));
        manualSeed(run.inputSeed);
        const x = randn(run.input.shape).to(kind);
        model.to(kind);
        const target = labelsOf(run.target);
        const { lr, momentum, weightDecay } = run.optimizer;
        const optimizer = new SGD(model.parameters(), { lr, momentum, weightDecay });
        const criterion = new CrossEntropyLoss();
        for (const [step, expected] of run.losses.entries()) {
          const value = await tidy(async () => {
            optimizer.zeroGrad();
            const loss = await criterion.forward(await model.forward(x), target);
            await loss.backward();
            if (step === 0) {
              for (const [key, parameter] of model.namedParameters())
                expectGradient(parameter.grad as Tensor, run.firstGradients[key] as Summary, key, exact);
            }
            await optimizer.step();
            return Number(loss.item());
          });
          const tolerance = exact ? 1e-9 : step < 2 ? 1e-5 : 1e-3;
          expect(value, `loss ${step}`).to.be.closeTo(expected, tolerance * expected);
        }
        const state = model.stateDict();
        expect([...state.keys()]).to.deep.equal(Object.keys(run.finalState));
        for (const [key, value] of state) expectState(value, run.finalState[key] as Summary, key, exact);
        model.dispose();
      });
    }
  }

  it('se_inception_v3 with its auxiliary head and dropout from the seed', async () => {
    const fixture = training.inceptionTrain;
    manualSeed(fixture.constructionSeed);
    const model = se_inception_v3(toOptions(fixture.args) as { numClasses: number });
    manualSeed(fixture.inputSeed);
    const x = randn([2, 3, 299, 299]);
    manualSeed(fixture.forwardSeed);
    const { logits, auxLogits } = (await model.forward(x, { grad: false })) as InceptionOutputs;
    expect(relativeError(logits, fixture.logits.values)).to.be.below(1e-3);
    expect(relativeError(auxLogits, fixture.auxLogits.values)).to.be.below(5e-3);
    model.dispose();
  });
});
