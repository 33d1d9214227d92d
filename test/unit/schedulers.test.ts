/** Schedulers: options, groups and state dicts. Their rates are in test/parity/training.test.ts. */
import { expect } from 'chai';

import { Adagrad } from '../../lib/optim/adagrad';
import { AdamW } from '../../lib/optim/adam';
import { ChainedScheduler, SequentialLR } from '../../lib/optim/combined-schedulers';
import { OneCycleLR } from '../../lib/optim/one-cycle';
import type { Optimizer } from '../../lib/optim/optimizer';
import { ReduceLROnPlateau } from '../../lib/optim/plateau';
import type { LRScheduler } from '../../lib/optim/scheduler';
import {
  CosineAnnealingLR,
  CosineAnnealingWarmRestarts,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiStepLR,
  StepLR,
} from '../../lib/optim/schedulers';
import { SGD } from '../../lib/optim/sgd';
import { tensor, zeros } from '../../lib/tensor/factories';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectThrow } from '../support/errors';

const optimizer = (lr = 0.1): SGD =>
  new SGD(
    [{ params: zeros([1], { requiresGrad: true }) }, { params: zeros([1], { requiresGrad: true }), lr: 1 }],
    {
      lr,
      momentum: 0.9,
    },
  );

const makers: Record<string, (target: Optimizer) => LRScheduler> = {
  StepLR: (target) => new StepLR(target, { stepSize: 2 }),
  MultiStepLR: (target) => new MultiStepLR(target, { milestones: [1, 3, 3], gamma: 0.5 }),
  ExponentialLR: (target) => new ExponentialLR(target, { gamma: 0.9 }),
  CosineAnnealingLR: (target) => new CosineAnnealingLR(target, { tMax: 4, etaMin: 0.001 }),
  LinearLR: (target) => new LinearLR(target, { startFactor: 0.5, totalIters: 3 }),
  CosineAnnealingWarmRestarts: (target) => new CosineAnnealingWarmRestarts(target, { t0: 2, tMult: 2 }),
  LambdaLR: (target) => new LambdaLR(target, { lrLambda: (epoch) => 1 / (epoch + 1) }),
  ReduceLROnPlateau: (target) => new ReduceLROnPlateau(target, { patience: 0, minLr: 1e-4 }),
  SequentialLR: (target) =>
    new SequentialLR(target, {
      schedulers: [new LinearLR(target), new ExponentialLR(target, { gamma: 0.5 })],
      milestones: [2],
    }),
  ChainedScheduler: (target) =>
    new ChainedScheduler([new LinearLR(target), new ExponentialLR(target, { gamma: 0.5 })]),
  OneCycleLR: (target) =>
    new OneCycleLR(target, { maxLr: [0.2, 2], totalSteps: 12, threePhase: true, pctStart: 0.4 }),
};

/** Where a metric says what happens, one that gets worse. */
function stepOf(scheduler: LRScheduler, metric: number): void {
  if (scheduler instanceof ReduceLROnPlateau) scheduler.step(metric);
  else scheduler.step();
}

describe('schedulers', () => {
  it('refuse impossible options', () => {
    const target = optimizer();
    expectThrow(() => new StepLR({} as never, { stepSize: 1 }), 'ERR_SENET_ARG_TYPE', /optimiser/);
    expectThrow(() => new StepLR(target, {} as never), 'ERR_SENET_ARG_MISSING', /stepSize/);
    expectThrow(() => new StepLR(target, { step_size: 1 } as never), 'ERR_SENET_UNKNOWN_OPTION', /stepSize/);
    expectThrow(() => new StepLR(target, { stepSize: 0 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new StepLR(target, { stepSize: 1, gamma: NaN }), 'ERR_SENET_ARG_RANGE');
    expectThrow(
      () => new MultiStepLR(target, { milestones: [1.5] }),
      'ERR_SENET_ARG_RANGE',
      /milestones\[0\]/,
    );
    expectThrow(() => new MultiStepLR(target, { milestones: 3 as never }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new ExponentialLR(target, {} as never), 'ERR_SENET_ARG_MISSING', /gamma/);
    expectThrow(() => new CosineAnnealingLR(target, { tMax: 0 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new LinearLR(target, { startFactor: 0 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new LinearLR(target, { endFactor: 2 }), 'ERR_SENET_ARG_RANGE');
    const oneCycle = (options: object) => () =>
      new OneCycleLR(target, { maxLr: 1, totalSteps: 5, ...options });
    expectThrow(oneCycle({ totalSteps: undefined }), 'ERR_SENET_ARG_MISSING', /epochs and stepsPerEpoch/);
    expectThrow(
      oneCycle({ totalSteps: undefined, epochs: 0, stepsPerEpoch: 2 }),
      'ERR_SENET_ARG_RANGE',
      /epochs/,
    );
    expectThrow(oneCycle({ pctStart: 1.1 }), 'ERR_SENET_ARG_RANGE', /pctStart/);
    expectThrow(oneCycle({ annealStrategy: 'cosine' }), 'ERR_SENET_ARG_RANGE', /annealStrategy/);
    expectThrow(oneCycle({ maxLr: [1] }), 'ERR_SENET_ARG_RANGE', /each of the 2 groups/);
    expectThrow(oneCycle({ divFactor: 0 }), 'ERR_SENET_ARG_RANGE', /divFactor/);
    // Nothing was written into the groups.
    expect(target.paramGroups.map(({ lr, maxLr }) => [lr, maxLr])).to.deep.equal([
      [0.1, undefined],
      [1, undefined],
    ]);
  });

  it('made of others, or of functions, or that follow a metric: refuse what cannot be, and change nothing', () => {
    const target = optimizer();
    const rates = target.paramGroups.map(({ lr }) => lr);
    const step = (): StepLR => new StepLR(target, { stepSize: 1 });
    const sequential = (schedulers: unknown, milestones: unknown) => () =>
      new SequentialLR(target, { schedulers, milestones } as never);
    expectThrow(sequential(step(), []), 'ERR_SENET_ARG_TYPE', /schedulers: expected an array/);
    expectThrow(sequential([], []), 'ERR_SENET_ARG_RANGE', /at least one/);
    expectThrow(sequential([step(), {}], [1]), 'ERR_SENET_ARG_TYPE', /schedulers\[1\]/);
    expectThrow(sequential([step()], [1]), 'ERR_SENET_ARG_RANGE', /one less than schedulers \(0\), got 1/);
    expectThrow(sequential([step(), step(), step()], [3, 2]), 'ERR_SENET_ARG_RANGE', /got 2 after 3/);
    expectThrow(sequential([step(), step()], [0.5]), 'ERR_SENET_ARG_RANGE', /milestones\[0\]/);
    expectThrow(sequential([step(), new ReduceLROnPlateau(target)], [1]), 'ERR_SENET_ARG_TYPE', /metric/);
    expectThrow(
      sequential([step(), new ChainedScheduler([step()])], [1]),
      'ERR_SENET_ARG_RANGE',
      /only the first may be made of others: ChainedScheduler/,
    );
    expectThrow(
      sequential([new StepLR(optimizer(), { stepSize: 1 })], []),
      'ERR_SENET_ARG_RANGE',
      /same optimiser/,
    );
    const twice = step();
    expectThrow(
      sequential([twice, step(), twice], [1, 2]),
      'ERR_SENET_ARG_RANGE',
      /schedulers\[2\]: .*schedulers\[0\]/,
    );
    const holes: unknown = new Array(2);
    expectThrow(sequential(holes, [1]), 'ERR_SENET_ARG_TYPE', /schedulers\[0\]/);
    expectThrow(sequential([step(), step(), step()], holes), 'ERR_SENET_ARG_TYPE', /milestones\[0\]/);
    expectThrow(() => new ChainedScheduler(holes as never), 'ERR_SENET_ARG_TYPE', /schedulers\[0\]/);
    expectThrow(
      () => new MultiStepLR(target, { milestones: holes as number[] }),
      'ERR_SENET_ARG_TYPE',
      /milestones\[0\]/,
    );
    expectThrow(
      () => new OneCycleLR(target, { maxLr: holes as number[], totalSteps: 9 }),
      'ERR_SENET_ARG_TYPE',
      /maxLr/,
    );
    expectThrow(() => new ChainedScheduler([]), 'ERR_SENET_ARG_RANGE');
    expectThrow(
      () => new ChainedScheduler([step(), new StepLR(optimizer(), { stepSize: 1 })]),
      'ERR_SENET_ARG_RANGE',
      /schedulers\[1\]/,
    );
    const lambda = (lrLambda: unknown) => () => new LambdaLR(target, { lrLambda } as never);
    expectThrow(lambda(2), 'ERR_SENET_ARG_TYPE', /function/);
    expectThrow(lambda([() => 1]), 'ERR_SENET_ARG_RANGE', /expected 2 functions, got 1/);
    expectThrow(
      lambda(() => NaN),
      'ERR_SENET_ARG_RANGE',
      /lrLambda\(0\)/,
    );
    expectThrow(lambda([() => 1, () => 'half']), 'ERR_SENET_ARG_TYPE', /lrLambda\(0\)/);
    expectThrow(() => new CosineAnnealingWarmRestarts(target, { t0: 0 }), 'ERR_SENET_ARG_RANGE', /t0/);
    expectThrow(() => new CosineAnnealingWarmRestarts(target, { t0: 1, tMult: 1.5 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new ReduceLROnPlateau(target, { factor: 1 }), 'ERR_SENET_ARG_RANGE', /below 1/);
    expectThrow(() => new ReduceLROnPlateau(target, { minLr: [1] }), 'ERR_SENET_ARG_RANGE', /2 groups/);
    expectThrow(
      () => new ReduceLROnPlateau(target, { mode: 'best' as never }),
      'ERR_SENET_ARG_RANGE',
      /mode/,
    );
    const plateau = new ReduceLROnPlateau(target, { minLr: [0, 0] });
    expectThrow(() => plateau.step(), 'ERR_SENET_ARG_MISSING', /metric/);
    expectThrow(() => plateau.step('1' as never), 'ERR_SENET_ARG_TYPE', /metric/);
    target.addParamGroup({ params: [tensor([1], { requiresGrad: true })], lr: 0.7 });
    expectThrow(() => plateau.step(1), 'ERR_SENET_ARG_RANGE', /3 groups, and minLr was given for 2/);
    expect(plateau.lastEpoch).to.equal(0);
    expect(target.paramGroups.map(({ lr }) => lr)).to.deep.equal([...rates, 0.7]);
  });

  it('a function of LambdaLR that throws changes nothing', () => {
    const target = optimizer();
    const scheduler = new LambdaLR(target, {
      lrLambda: [
        () => 0.5,
        (epoch) => {
          if (epoch === 2) throw new RangeError('no more');
          return 0.25;
        },
      ],
    });
    scheduler.step();
    expect(() => scheduler.step()).to.throw(RangeError, 'no more');
    expect([
      scheduler.lastEpoch,
      scheduler.getLastLr(),
      target.paramGroups.map(({ lr }) => lr),
    ]).to.deep.equal([1, [0.05, 0.25], [0.05, 0.25]]);
  });

  it('scale every group, and act in turn on one optimiser', () => {
    const target = optimizer();
    const [first, second] = [
      new ExponentialLR(target, { gamma: 0.5 }),
      new StepLR(target, { stepSize: 1, gamma: 0.1 }),
    ];
    first.step();
    second.step();
    expect(target.paramGroups.map(({ lr }) => lr.toFixed(6))).to.deep.equal(['0.005000', '0.050000']);
    expect(first.getLastLr()).to.deep.equal([0.05, 0.5]);
    expect(first.lastEpoch).to.equal(1);
  });

  it('OneCycleLR refuses a step beyond its end, and leaves the rates', () => {
    const target = optimizer();
    const scheduler = new OneCycleLR(target, { maxLr: 1, totalSteps: 2 });
    scheduler.step();
    scheduler.step(); // PyTorch allows one more than the schedule has
    const rates = scheduler.getLastLr();
    expectThrow(() => scheduler.step(), 'ERR_SENET_ARG_RANGE', /step 3 of a schedule of 2/);
    expect(scheduler.getLastLr()).to.deep.equal(rates);
  });

  it('OneCycleLR refuses a group that was added after it, and leaves all rates', () => {
    const target = optimizer();
    const scheduler = new OneCycleLR(target, { maxLr: 1, totalSteps: 9 });
    target.addParamGroup({ params: [tensor([1], { requiresGrad: true })], lr: 0.7 });
    const rates = target.paramGroups.map(({ lr }) => lr);
    expectThrow(() => scheduler.step(), 'ERR_SENET_ARG_RANGE', /a group was added/);
    expect(target.paramGroups.map(({ lr }) => lr)).to.deep.equal(rates);
    expect(scheduler.lastEpoch).to.equal(0);
  });

  it('OneCycleLR refuses a rise of exactly one step, where PyTorch divides by zero', () => {
    const make = (pctStart: number, totalSteps: number) => () =>
      new OneCycleLR(optimizer(), { maxLr: 1, totalSteps, pctStart });
    expectThrow(make(0.25, 4), 'ERR_SENET_ARG_RANGE', /the rise would last exactly one step.*0\.25 of 4/);
    for (const pctStart of [0, 0.2, 0.3]) {
      expect(make(pctStart, 4)().getLastLr().every(Number.isFinite), String(pctStart)).to.equal(true);
    }
  });

  it('OneCycleLR refuses a last fall without a length, which its last step would divide by', () => {
    for (const annealStrategy of ['cos', 'linear'] as const)
      for (const options of [
        { totalSteps: 4, pctStart: 1 },
        { totalSteps: 5, pctStart: 0.6, threePhase: true },
      ])
        expectThrow(
          () => new OneCycleLR(optimizer(), { maxLr: 1, annealStrategy, ...options }),
          'ERR_SENET_ARG_RANGE',
          /the last fall would last no step/,
        );
  });

  it('OneCycleLR refuses to cycle the momentum of an optimiser that has none', () => {
    const target = new Adagrad([zeros([1], { requiresGrad: true })]);
    const make = (cycleMomentum: boolean) => () =>
      new OneCycleLR(target, { maxLr: 1, totalSteps: 9, cycleMomentum });
    expectThrow(make(true), 'ERR_SENET_ARG_RANGE', /with momentum or betas, got .*Adagrad/);
    expect(target.paramGroups[0]).not.to.have.property('maxLr');
    make(false)().step();
  });

  it('a step that throws changes nothing: neither momenta nor other parts', () => {
    const target = optimizer();
    const fails = (): LambdaLR =>
      new LambdaLR(target, {
        lrLambda: [
          () => 1,
          (epoch) => {
            if (epoch === 2) throw new RangeError('no more');
            return 1;
          },
        ],
      });
    const chained = new ChainedScheduler([
      new ExponentialLR(target, { gamma: 0.5 }),
      new CosineAnnealingWarmRestarts(target, { t0: 3 }),
      fails(),
    ]);
    chained.step();
    const begins = fails();
    // The second part throws at its very first step of a sequence.
    const sequential = new SequentialLR(target, {
      schedulers: [
        new ExponentialLR(target, { gamma: 0.5 }),
        new LambdaLR(target, {
          lrLambda: (epoch) => {
            if (begins.lastEpoch === 1) throw new RangeError('no more');
            return 1 / (epoch + 1);
          },
        }),
      ],
      milestones: [2],
    });
    sequential.step();
    begins.step();
    for (const scheduler of [chained, sequential]) {
      const before = [scheduler.stateDict(), target.stateDict().param_groups];
      expect(() => scheduler.step()).to.throw(RangeError, 'no more');
      expect([scheduler.stateDict(), target.stateDict().param_groups]).to.deep.equal(before);
    }
    const other = optimizer();
    const cycle = new OneCycleLR(other, { maxLr: 1, totalSteps: 9 });
    other.addParamGroup({ params: [tensor([1], { requiresGrad: true })], lr: 0.7 });
    const before = other.stateDict().param_groups;
    expectThrow(() => cycle.step(), 'ERR_SENET_ARG_RANGE', /a group was added/);
    expect(other.stateDict().param_groups).to.deep.equal(before);
  });

  it("OneCycleLR: whatever rates and momenta a schedule reaches, its states and the optimiser's load again", async () => {
    let lowest = 0;
    for (const annealStrategy of ['cos', 'linear'] as const) {
      for (const options of [
        { totalSteps: 3 },
        { totalSteps: 4, pctStart: 0.6 },
        { totalSteps: 7, threePhase: true },
      ]) {
        for (const make of [
          (weight: Tensor): Optimizer => new SGD([weight], { lr: 0.1, momentum: 0.9 }),
          (weight: Tensor): Optimizer => new AdamW([weight], { lr: 0.1 }),
        ]) {
          const weight = zeros([1], { requiresGrad: true });
          const target = make(weight);
          const scheduler = new OneCycleLR(target, { maxLr: 0.1, annealStrategy, ...options });
          for (let step = 0; step < options.totalSteps; step++) {
            weight.grad = tensor([1]);
            await target.step();
            scheduler.step();
            const again = make(zeros([1], { requiresGrad: true }));
            const second = new OneCycleLR(again, { maxLr: 0.1, annealStrategy, ...options });
            again.loadStateDict(target.stateDict());
            second.loadStateDict(scheduler.stateDict());
            expect(second.getLastLr()).to.deep.equal(scheduler.getLastLr());
            expect(again.paramGroups[0]?.lr).to.equal(target.paramGroups[0]?.lr);
            lowest = Math.min(lowest, ...scheduler.getLastLr());
          }
          weight.grad = tensor([1]);
          await target.step();
        }
      }
    }
    expect(lowest, 'PyTorch ends below 0 too').to.be.below(0);
  });

  it('states of Python: rates that are tensors or overflowed, and those of older versions', () => {
    const target = optimizer();
    const scheduler = new OneCycleLR(target, { maxLr: 0.1, totalSteps: 5, annealStrategy: 'linear' });
    const { _last_lr: _, _anneal_func_type: __, ...older } = scheduler.stateDict();
    scheduler.loadStateDict({ ...older, anneal_func: 'a bound method', last_epoch: 2 });
    expect([scheduler.lastEpoch, scheduler.stateDict()._anneal_func_type]).to.deep.equal([2, 'linear']);
    scheduler.loadStateDict({ ...scheduler.stateDict(), _last_lr: [tensor(0.5), Infinity] });
    expect(scheduler.getLastLr()).to.deep.equal([0.5, Infinity]);
  });

  for (const [name, make] of Object.entries(makers)) {
    it(`${name}: a state dict continues in another, whatever its options were`, () => {
      const whole = optimizer();
      const reference = make(whole);
      const rates: number[][] = [];
      for (let i = 0; i < 8; i++) {
        stepOf(reference, i);
        rates.push(reference.getLastLr());
      }
      const [before, after] = [optimizer(), optimizer(0.7)];
      const first = make(before);
      for (let i = 0; i < 3; i++) stepOf(first, i);
      const second = make(after);
      after.loadStateDict(JSON.parse(JSON.stringify({ ...before.stateDict(), state: {} })));
      second.loadStateDict(first.stateDict());
      for (let i = 3; i < 8; i++) {
        stepOf(second, i);
        expect(second.getLastLr(), `step ${i}`).to.deep.equal(rates[i]);
      }
    });

    it(`${name}: refuses the state of others and changes nothing`, () => {
      const scheduler = make(optimizer());
      const before = scheduler.stateDict();
      const refuse = (value: unknown): void => {
        expectThrow(() => scheduler.loadStateDict(value), 'ERR_SENET_STATE_DICT');
        expect(scheduler.stateDict()).to.deep.equal(before);
      };
      refuse(null);
      refuse({});
      for (const name of ['base_lrs', 'min_lrs', '_last_lr'].filter((key) => key in before))
        refuse({ ...before, [name]: [1] });
      for (const name of ['_schedulers', '_milestones'].filter((key) => key in before))
        refuse({ ...before, [name]: [] });
      if ('last_epoch' in before) refuse({ ...before, last_epoch: 'x' });
      const { base_lrs, last_epoch, _step_count, _last_lr, ...options } = before;
      const bare = { base_lrs, last_epoch, _step_count, _last_lr };
      const unread = /^_(is|get)|use_beta1|mode_worse|default_min_lr/;
      for (const option of Object.keys(options).filter((key) => !unread.test(key)))
        refuse({ ...before, [option]: null });
      refuse(bare);
    });
  }

  it('OneCycleLR cycles the first beta of Adam, or nothing', () => {
    const target = new AdamW([zeros([1], { requiresGrad: true })]);
    const scheduler = new OneCycleLR(target, { maxLr: 1, totalSteps: 10 });
    expect(target.paramGroups[0]?.betas).to.deep.equal([0.95, 0.999]);
    scheduler.step();
    expect(target.paramGroups[0]?.betas?.[0]).to.be.below(0.95);
    const still = new AdamW([zeros([1], { requiresGrad: true })]);
    new OneCycleLR(still, { maxLr: 1, totalSteps: 10, cycleMomentum: false });
    expect(still.paramGroups[0]?.betas).to.deep.equal([0.9, 0.999]);
  });
});
