/** Schedulers: options, groups and state dicts. Their rates are in test/parity/training.test.ts. */
import { expect } from 'chai';

import { AdamW } from '../../lib/optim/adam';
import type { Optimizer } from '../../lib/optim/optimizer';
import {
  CosineAnnealingLR,
  ExponentialLR,
  LinearLR,
  MultiStepLR,
  OneCycleLR,
  StepLR,
  type LRScheduler,
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
  OneCycleLR: (target) =>
    new OneCycleLR(target, { maxLr: [0.2, 2], totalSteps: 12, threePhase: true, pctStart: 0.4 }),
};

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
    for (const pctStart of [0, 0.2, 0.3, 1]) {
      expect(make(pctStart, 4)().getLastLr().every(Number.isFinite), String(pctStart)).to.equal(true);
    }
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
        reference.step();
        rates.push(reference.getLastLr());
      }
      const [before, after] = [optimizer(), optimizer(0.7)];
      const first = make(before);
      for (let i = 0; i < 3; i++) first.step();
      const second = make(after);
      after.loadStateDict(JSON.parse(JSON.stringify({ ...before.stateDict(), state: {} })));
      second.loadStateDict(first.stateDict());
      for (let i = 3; i < 8; i++) {
        second.step();
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
      refuse({ ...before, base_lrs: [1] });
      refuse({ ...before, last_epoch: 'x' });
      const { base_lrs, last_epoch, _step_count, _last_lr, ...options } = before;
      const bare = { base_lrs, last_epoch, _step_count, _last_lr };
      for (const option of Object.keys(options).filter((key) => !/^_(is|get)|use_beta1/.test(key)))
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
