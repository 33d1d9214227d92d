/** Losses, optimisers, schedules and whole training runs against PyTorch's recorded ones. */
import { expect } from 'chai';

import { se_preactresnet20, se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { se_inception_v3, type InceptionOutputs } from '../../lib/models/se-inception-v3';
import { se_resnet18 } from '../../lib/models/se-resnet';
import type { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import * as losses from '../../lib/nn/losses';
import { CrossEntropyLoss, L1Loss, MSELoss, type Reduction } from '../../lib/nn/losses';
import { Adagrad } from '../../lib/optim/adagrad';
import { Adam, AdamW } from '../../lib/optim/adam';
import { clipGradNorm_ } from '../../lib/optim/clip';
import { ExponentialMovingAverage } from '../../lib/optim/ema';
import type { Optimizer } from '../../lib/optim/optimizer';
import { OneCycleLR } from '../../lib/optim/one-cycle';
import type { LRScheduler } from '../../lib/optim/scheduler';
import * as schedulers from '../../lib/optim/schedulers';
import { RMSprop } from '../../lib/optim/rmsprop';
import { SGD } from '../../lib/optim/sgd';
import { rand, randn, tensor, zeros } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import { autocast, tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { numbers, readFixture, relativeError, toOptions, type Summary, type Values } from '../support/parity';

type SchedulerName =
  'StepLR' | 'MultiStepLR' | 'ExponentialLR' | 'CosineAnnealingLR' | 'LinearLR' | 'OneCycleLR';

interface Training {
  optimizers: {
    kind: 'SGD' | 'Adam' | 'AdamW';
    options: Record<string, unknown>;
    steps: { loss: number; parameters: Record<string, Values> }[];
  }[];
  schedulers: {
    kind: SchedulerName;
    lr: number;
    options: Record<string, unknown>;
    rates: { lr: number; momentum: number }[];
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

/** What scripts/fixtures/make_training.py wrote. */
interface More {
  train: Record<string, Run>;
  train64: Record<string, Run>;
  losses: {
    inputs: Record<string, Values>;
    cases: {
      kind: 'L1Loss' | 'MSELoss' | 'CrossEntropyLoss' | 'NLLLoss' | 'BCEWithLogitsLoss';
      options: Record<string, unknown>;
      input: string;
      target: string;
      loss: Values;
      gradient: Values;
    }[];
  };
  optimizers: {
    kind: keyof typeof OPTIMIZERS;
    options: Record<string, unknown>;
    second: Record<string, unknown>;
    parameters: Values[];
    state: Record<string, Record<string, Values>>;
    groups: Record<string, unknown>[];
  }[];
  schedules: {
    optimizer: 'SGD' | 'AdamW';
    chain: { kind: SchedulerName; options: Record<string, unknown> }[];
    rates: { lr: number; momentum: number | [number, number] }[];
    states: Record<string, unknown>[];
  }[];
  averages: { seed: number; decay: number; lr: number; steps: Record<string, Values>[] };
  clipping: { maxNorm: number; normType: number | 'inf'; norm: number; gradients: Values[] }[];
  mixedPrecision: {
    constructionSeed: number;
    inputSeed: number;
    logits: Values & { dtype: string };
    loss: Values & { dtype: string };
    gradientNorms: Record<string, number>;
  };
}

const training = readFixture<Training>('training.json');
const parity = readFixture<{ train: Record<string, Run>; train64: Record<string, Run> }>('parity.json');
const more = readFixture<More>('training-more.json');
const networks: Record<string, (options: Record<string, unknown>) => Module> = {
  se_resnet20,
  se_preactresnet20,
  se_resnet18,
};

const OPTIMIZERS = { SGD, Adam, AdamW, RMSprop, Adagrad };

/** What scripts/fixtures/make_optimizers.py wrote. */
const others = readFixture<Pick<More, 'optimizers'>>('optimizers.json');

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

function makeScheduler(optimizer: Optimizer, kind: SchedulerName, options: object): LRScheduler {
  const Scheduler = { ...schedulers, OneCycleLR }[kind] as unknown as new (
    optimizer: Optimizer,
    options: object,
  ) => LRScheduler;
  const given = toOptions(options as Record<string, unknown>);
  const { TMax: tMax, ...rest } = given;
  return new Scheduler(optimizer, tMax === undefined ? rest : { ...rest, tMax });
}

function optimizerForSchedules(kind: 'SGD' | 'AdamW', lr: number): Optimizer {
  const parameter = zeros([1], { requiresGrad: true });
  parameter.grad = zeros([1]);
  return kind === 'SGD' ? new SGD([parameter], { lr, momentum: 0.9 }) : new AdamW([parameter], { lr });
}

describe('parity: optimisers with two groups, one parameter without a gradient, and their state', () => {
  for (const { kind, options, second, parameters, state, groups } of [
    ...more.optimizers,
    ...others.optimizers,
  ]) {
    it(`${kind} ${JSON.stringify(options)} ${JSON.stringify(second)}`, async () => {
      manualSeed(91);
      const model = new SELayer(16, 4);
      const unused = rand([3], { requiresGrad: true });
      const [first, last] = model.parameters() as [Tensor, Tensor];
      const optimizer: Optimizer = new OPTIMIZERS[kind](
        [{ params: [first, unused] }, { params: last, ...toOptions(second) }],
        toOptions(options),
      );
      const x = rand([2, 16, 5, 5]);
      const target = rand([2, 16, 5, 5]);
      for (let step = 0; step < 6; step++) {
        optimizer.zeroGrad();
        await (await new MSELoss().forward(await model.forward(x), target)).backward();
        await optimizer.step();
      }
      for (const [i, parameter] of [first, unused, last].entries())
        expect(relativeError(parameter, (parameters[i] as Values).values), `parameter ${i}`).to.be.below(
          1e-6,
        );
      const saved = optimizer.stateDict();
      expect([...saved.state.keys()].map(String)).to.deep.equal(Object.keys(state));
      for (const [index, fields] of saved.state) {
        const expected = state[String(index)] as Record<string, Values>;
        expect(Object.keys(fields)).to.deep.equal(Object.keys(expected));
        for (const [name, tensor] of Object.entries(fields)) {
          expect(tensor.shape, name).to.deep.equal(expected[name]?.shape);
          const recorded = expected[name]?.values ?? [];
          // Of a parameter without a gradient Adagrad holds what it began with.
          if (recorded.every((value) => value === 0)) expect(numbers(tensor), name).to.deep.equal(recorded);
          else expect(relativeError(tensor, recorded), name).to.be.below(1e-5);
        }
      }
      expect(saved.param_groups).to.deep.equal(groups);
    });
  }
});

describe('parity: schedules', () => {
  for (const { kind, lr, options, rates } of training.schedulers) {
    it(`${kind} ${JSON.stringify(options)}`, async () => {
      const optimizer = optimizerForSchedules('SGD', lr);
      const scheduler = makeScheduler(optimizer, kind, options);
      for (const [step, expected] of rates.entries()) {
        const [group] = optimizer.paramGroups;
        expect(group?.lr, `step ${step}: lr`).to.be.closeTo(expected.lr, 1e-9);
        expect(group?.momentum, `step ${step}: momentum`).to.be.closeTo(expected.momentum, 1e-9);
        expect(scheduler.getLastLr()).to.deep.equal([group?.lr]);
        await optimizer.step();
        if (step + 1 < rates.length) scheduler.step();
      }
    });
  }

  for (const { optimizer: kind, chain, rates, states } of more.schedules) {
    it(`${kind}: ${JSON.stringify(chain)}`, () => {
      const optimizer = optimizerForSchedules(kind, 0.1);
      const made = chain.map((one) => makeScheduler(optimizer, one.kind, one.options));
      for (const [step, expected] of rates.entries()) {
        const [group] = optimizer.paramGroups;
        expect(group?.lr, `step ${step}: lr`).to.be.closeTo(expected.lr, 1e-9);
        const momentum = kind === 'SGD' ? [group?.momentum] : [...(group?.betas ?? [])];
        for (const [i, value] of [expected.momentum].flat().entries())
          expect(momentum[i], `step ${step}: momentum`).to.be.closeTo(value, 1e-9);
        if (step + 1 < rates.length) for (const scheduler of made) scheduler.step();
      }
      for (const [i, scheduler] of made.entries()) {
        const [actual, expected] = [scheduler.stateDict(), states[i] as Record<string, unknown>];
        expect(Object.keys(actual).sort()).to.deep.equal(Object.keys(expected).sort());
        for (const name of [
          'last_epoch',
          '_step_count',
          'total_steps',
          'step_size',
          'gamma',
          '_schedule_phases',
        ])
          expect(actual[name], name).to.deep.equal(expected[name]);
      }
    });
  }
});

describe('parity: losses', () => {
  const { inputs, cases } = more.losses;
  for (const { kind, options, input, target, loss, gradient } of cases) {
    it(`${kind} ${JSON.stringify(options)} of ${input} and ${target}`, async () => {
      const make = (name: string): Tensor => {
        const value = inputs[name] as Values;
        return name.toLowerCase().endsWith('labels')
          ? tensor(BigInt64Array.from(value.values, BigInt), { shape: value.shape })
          : fromValues(value);
      };
      const given = Object.entries(toOptions(options)).map(([name, value]) => [
        name,
        typeof value === 'string' && name !== 'reduction' ? make(value) : value,
      ]);
      const criterion = new losses[kind](Object.fromEntries(given) as object);
      const x = make(input);
      x.requiresGrad = true;
      const value = await criterion.forward(x, make(target));
      expect(value.shape).to.deep.equal(loss.shape);
      expect(relativeError(value, loss.values)).to.be.below(1e-6);
      await value.sum().backward();
      expect(relativeError(x.grad as Tensor, gradient.values)).to.be.below(1e-6);
    });
  }
});

describe('parity: averages of weights and clipping', () => {
  const oneStep = async (model: SELayer, x: Tensor, target: Tensor): Promise<void> => {
    await (await new MSELoss().forward(await model.forward(x), target)).backward();
  };

  it('exponential moving average, saved and loaded in between', async () => {
    const { seed, decay, lr, steps } = more.averages;
    manualSeed(seed);
    const model = new SELayer(16, 4);
    let average = new ExponentialMovingAverage(model, { decay });
    const optimizer = new SGD(model.parameters(), { lr });
    const x = rand([2, 16, 5, 5]);
    const target = rand([2, 16, 5, 5]);
    for (const [step, expected] of steps.entries()) {
      optimizer.zeroGrad();
      await oneStep(model, x, target);
      await optimizer.step();
      await average.update();
      for (const [name, value] of average.stateDict())
        expect(relativeError(value, expected[name]?.values ?? []), `step ${step}, ${name}`).to.be.below(1e-6);
      const next = new ExponentialMovingAverage(model, { decay });
      next.loadStateDict(average.stateDict());
      expect(next.updates).to.equal(step + 1);
      average.dispose();
      average = next;
    }
  });

  for (const { maxNorm, normType, norm, gradients } of more.clipping) {
    it(`clipGradNorm_ to ${maxNorm}, norm of order ${normType}`, async () => {
      manualSeed(93);
      const model = new SELayer(16, 4);
      const x = rand([2, 16, 5, 5]);
      await oneStep(model, x, rand([2, 16, 5, 5]));
      const order = normType === 'inf' ? Infinity : normType;
      const before = await clipGradNorm_(model.parameters(), maxNorm, { normType: order });
      expect(before.item()).to.be.closeTo(norm, 1e-6 * norm);
      for (const [i, parameter] of model.parameters().entries())
        expect(relativeError(parameter.grad as Tensor, gradients[i]?.values ?? [])).to.be.below(1e-6);
    });
  }
});

describe('parity: mixed precision', () => {
  it('se_resnet20 under autocast: logits, loss and gradients', async () => {
    const fixture = more.mixedPrecision;
    manualSeed(fixture.constructionSeed);
    const model = se_resnet20();
    manualSeed(fixture.inputSeed);
    const x = randn([8, 3, 32, 32]);
    const target = labelsOf([0, 1, 2, 3, 4, 5, 6, 7]);
    const { logits, loss } = await autocast(async () => {
      const output = await model.forward(x);
      return { logits: output, loss: await new CrossEntropyLoss().forward(output, target) };
    });
    expect(logits.dtype).to.equal(fixture.logits.dtype);
    expect(loss.dtype).to.equal(fixture.loss.dtype);
    // Both are a few times 1e-2 away from float32 (bfloat16 has 8 bits), and as near to each other.
    expect(relativeError(logits.to('float32'), fixture.logits.values)).to.be.below(3e-2);
    expect(loss.item()).to.be.closeTo(fixture.loss.values[0] as number, 1e-2);
    await loss.backward();
    const total = l2(Object.values(fixture.gradientNorms));
    for (const [name, parameter] of model.namedParameters()) {
      const gradient = parameter.grad as Tensor;
      expect(gradient.dtype, name).to.equal('float32');
      const expected = fixture.gradientNorms[name] as number;
      // The smallest are sums of what nearly cancels.
      expect(l2(numbers(gradient)), name).to.be.closeTo(expected, 0.1 * expected + 1e-3 * total);
    }
    expect((await model.forward(x)).dtype).to.equal('float32');
  });
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
    ['float32', { ...parity.train, ...more.train }],
    ['float64', { ...parity.train64, ...more.train64 }],
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
