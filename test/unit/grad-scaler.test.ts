/** GradScaler: the scale's way, steps that are left out, several optimisers, its state; as torch.amp.GradScaler's. */
import { expect } from 'chai';

import { Adam, AdamW } from '../../lib/optim/adam';
import { clipGradNorm_ } from '../../lib/optim/clip';
import { GradScaler, type GradScalerOptions } from '../../lib/optim/grad-scaler';
import type { Optimizer } from '../../lib/optim/optimizer';
import { SGD } from '../../lib/optim/sgd';
import { tensor } from '../../lib/tensor/factories';
import { memory } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';

const START = [0.3, -1.7, 2.5, 1e-3];
/** Gradients of the steps, of which a third are not finite. */
const GRADIENTS = [
  [0.1, 0.2, -0.7, 1e-4],
  [Infinity, 0.2, 0.3, 0.4],
  [0.5, -0.25, 0.125, 3e-5],
  [0.1, NaN, 0.3, -Infinity],
  [-0.9, 0.3, 0.4, 0.7],
];
const isFinite = (values: readonly number[]): boolean => values.every(Number.isFinite);

type Make = (parameters: Tensor[]) => Optimizer;
const OPTIMIZERS: [name: string, make: Make][] = [
  ['SGD', (p) => new SGD(p, { lr: 0.1 })],
  ['SGD with momentum', (p) => new SGD(p, { lr: 0.1, momentum: 0.9, weightDecay: 0.01 })],
  ['SGD with Nesterov', (p) => new SGD(p, { lr: 0.1, momentum: 0.9, nesterov: true })],
  ['SGD with dampening', (p) => new SGD(p, { lr: 0.1, momentum: 0.9, dampening: 0.3 })],
  ['Adam', (p) => new Adam(p, { lr: 0.1, weightDecay: 0.01 })],
  ['AdamW with AMSGrad', (p) => new AdamW(p, { lr: 0.1, amsgrad: true })],
];

const parameter = (values: readonly number[] = START): Tensor => tensor([...values], { requiresGrad: true });
/** A loss whose gradients of `x` are these. */
const lossOf = (x: Tensor, gradients: readonly number[]): Tensor => x.mul(tensor([...gradients])).sum();

async function scaledStep(
  scaler: GradScaler,
  optimizer: Optimizer,
  x: Tensor,
  gradients: readonly number[],
): Promise<void> {
  optimizer.zeroGrad();
  await scaler.scale(lossOf(x, gradients)).backward();
  await scaler.step(optimizer);
  scaler.update();
}

describe('GradScaler', () => {
  for (const [name, make] of OPTIMIZERS) {
    it(`${name}: steps are those without it, bit for bit, and one that is not finite leaves no trace`, async () => {
      const [x, plain] = [parameter(), parameter()];
      const [optimizer, usual] = [make([x]), make([plain])];
      const scaler = new GradScaler();
      // Both begin with a step that is left out, and end with one.
      for (const gradients of [...GRADIENTS.slice(3), ...GRADIENTS, ...GRADIENTS.slice(0, 2)]) {
        await scaledStep(scaler, optimizer, x, gradients);
        if (isFinite(gradients)) {
          usual.zeroGrad();
          await lossOf(plain, gradients).backward();
          await usual.step();
        }
        expect(x.toArray(), gradients.join()).to.deep.equal(plain.toArray());
      }
      const [state, expected] = [optimizer, usual].map((one) =>
        Object.entries(one.stateDict().state.get(0) ?? {}).map(([key, value]) => [key, value.toArray()]),
      );
      expect(state).to.deep.equal(expected);
    });
  }

  it('the scale shrinks after what is not finite, and grows after so many finite steps in a row', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 0.01 });
    const scaler = new GradScaler({
      initScale: 1024,
      growthInterval: 3,
      growthFactor: 4,
      backoffFactor: 0.25,
    });
    expect(scaler.getScale()).to.equal(1024);
    const [good, bad] = [GRADIENTS[0] as number[], GRADIENTS[1] as number[]];
    const scales: number[] = [];
    for (const gradients of [good, good, bad, good, good, good, good, bad, bad]) {
      await scaledStep(scaler, optimizer, x, gradients);
      scales.push(scaler.getScale());
    }
    expect(scales).to.deep.equal([1024, 1024, 256, 256, 256, 1024, 1024, 256, 64]);
    expect(scaler.stateDict()).to.deep.equal({
      ...{ scale: 64, growth_factor: 4, backoff_factor: 0.25, growth_interval: 3, _growth_tracker: 0 },
    });
  });

  it('grows no further than to what float32 can hold', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 0 });
    const scaler = new GradScaler({ initScale: 2 ** 127, growthInterval: 1 });
    await scaledStep(scaler, optimizer, x, [0, 0, 0, 0]);
    expect(scaler.getScale()).to.equal(2 ** 127);
  });

  it('unscale_ gives the gradients as they are to what looks at them, once', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 1 });
    const scaler = new GradScaler({ initScale: 4096 });
    await scaler.scale(lossOf(x, [3, 4, 0, 0])).backward();
    expect(x.grad?.toArray()).to.deep.equal([3 * 4096, 4 * 4096, 0, 0]);
    await scaler.unscale_(optimizer);
    expect(x.grad?.toArray()).to.deep.equal([3, 4, 0, 0]);
    expect((await clipGradNorm_([x], 1)).item()).to.equal(5);
    await scaler.step(optimizer);
    scaler.update();
    expect(Number(x.select(0, 0).item())).to.be.closeTo(0.3 - 3 / 5, 1e-6);
  });

  it('scales several losses, and steps several optimisers: what is not finite stops its own alone', async () => {
    const [x, y] = [parameter(), parameter()];
    const [first, second] = [new SGD([x], { lr: 0.1 }), new AdamW([y])];
    const scaler = new GradScaler({ initScale: 16 });
    const [one, two] = scaler.scale([lossOf(x, [1, 1, 1, 1]), lossOf(y, [NaN, 1, 1, 1])] as const);
    for (const loss of [one, two]) await loss.backward();
    await scaler.step(first);
    await scaler.step(second);
    scaler.update();
    expect(x.toArray()).not.to.deep.equal(parameter().toArray());
    expect(y.toArray()).to.deep.equal(parameter().toArray());
    expect(scaler.getScale()).to.equal(8);
  });

  it('parameters without a gradient, and of another dtype, go along', async () => {
    const [x, unused] = [parameter(), parameter()];
    const wide = tensor([1, 2], { dtype: 'float64', requiresGrad: true });
    const optimizer = new SGD([x, unused, wide], { lr: 1 });
    const scaler = new GradScaler({ initScale: 8 });
    await scaler.scale(lossOf(x, [1, 1, 1, 1]).add(wide.sum())).backward();
    await scaler.step(optimizer);
    scaler.update();
    expect(wide.toArray()).to.deep.equal([0, 1]);
    expect(unused.toArray()).to.deep.equal(parameter().toArray());
  });

  it('a tidy around the step takes nothing of it away', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 0.1 });
    const scaler = new GradScaler();
    for (let i = 0; i < 2; i++) await tidy(() => scaledStep(scaler, optimizer, x, GRADIENTS[0] as number[]));
    expect(scaler.getScale()).to.equal(65536);
  });

  it('an update leaves no tensor behind', async () => {
    const x = parameter();
    const [first, second] = [new SGD([x], { lr: 0.1 }), new SGD([x], { lr: 0.1 })];
    const scaler = new GradScaler();
    await tidy(() => scaler.scale(lossOf(x, GRADIENTS[0] as number[])).backward());
    await scaler.step(first);
    await scaler.step(second);
    const before = memory().tensors;
    scaler.update();
    expect(memory().tensors).to.equal(before - 2); // what the steps found
  });

  describe('its state', () => {
    it('goes on elsewhere, also as Python writes it', async () => {
      const x = parameter();
      const optimizer = new SGD([x], { lr: 0.1 });
      const scaler = new GradScaler({ growthInterval: 3 });
      for (let i = 0; i < 2; i++) await scaledStep(scaler, optimizer, x, GRADIENTS[0] as number[]);
      const state = scaler.stateDict();
      expect(state).to.deep.include({ scale: 65536, _growth_tracker: 2 });
      for (const form of [state, new Map(Object.entries(state))]) {
        const other = new GradScaler();
        other.loadStateDict(form);
        expect(other.stateDict()).to.deep.equal(state);
        await scaledStep(other, optimizer, x, GRADIENTS[0] as number[]);
        expect(other.getScale()).to.equal(2 * 65536);
        other.loadStateDict(form); // also after its first step
        expect(other.stateDict()).to.deep.equal(state);
      }
    });

    it('that is empty or impossible is refused, and changes nothing', () => {
      const scaler = new GradScaler();
      const before = scaler.stateDict();
      const impossible: unknown[] = [{}, new Map(), null, { scale: 1 }];
      for (const change of [
        { scale: NaN },
        { growth_factor: 1 },
        { backoff_factor: 1 },
        { growth_interval: 1.5 },
        { _growth_tracker: -1 },
        { scale: '1' },
        { scale: 1e300 },
        { _growth_tracker: 2 ** 40 },
        { growth_interval: 2 ** 40 },
      ])
        impossible.push({ ...before, ...change });
      for (const state of impossible)
        expectThrow(() => scaler.loadStateDict(state as never), 'ERR_SENET_STATE_DICT');
      expect(scaler.stateDict()).to.deep.equal(before);
    });
  });

  it('that is not enabled does nothing but the step', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 1 });
    const scaler = new GradScaler({ enabled: false });
    const loss = lossOf(x, [1, 1, 1, 1]);
    expect(scaler.scale(loss)).to.equal(loss);
    await loss.backward();
    await scaler.unscale_(optimizer);
    await scaler.step(optimizer);
    scaler.update();
    expect(x.toArray()).to.deep.equal(
      parameter(START.map((value) => Math.fround(Math.fround(value) - 1))).toArray(),
    );
    expect([scaler.isEnabled(), scaler.getScale(), scaler.stateDict()]).to.deep.equal([false, 1, {}]);
    scaler.loadStateDict({});
  });

  it('factors and interval can be read and set', () => {
    const scaler = new GradScaler();
    expect([scaler.getGrowthFactor(), scaler.getBackoffFactor(), scaler.getGrowthInterval()]).to.deep.equal([
      ...[2, 0.5, 2000],
    ]);
    scaler.setGrowthFactor(3);
    scaler.setBackoffFactor(0.1);
    scaler.setGrowthInterval(7);
    expect(scaler.stateDict()).to.deep.include({ growth_factor: 3, backoff_factor: 0.1, growth_interval: 7 });
    expectThrow(() => scaler.setGrowthFactor(1), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => scaler.setBackoffFactor(1), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => scaler.setGrowthInterval(0), 'ERR_SENET_ARG_RANGE');
  });

  it('update(newScale) sets it', async () => {
    const x = parameter();
    const optimizer = new SGD([x], { lr: 0.1 });
    const scaler = new GradScaler();
    await scaler.scale(lossOf(x, [1, 1, 1, 1])).backward();
    await scaler.step(optimizer);
    for (const bad of [-1, 1e300, 1e-60])
      expectThrow(() => scaler.update(bad), 'ERR_SENET_ARG_RANGE', /newScale/);
    scaler.update(512);
    expect(scaler.getScale()).to.equal(512);
  });

  describe('refuses', () => {
    it('options that cannot be', () => {
      const make = (options: unknown) => () => new GradScaler(options as GradScalerOptions);
      expectThrow(make({ init_scale: 1 }), 'ERR_SENET_UNKNOWN_OPTION', /initScale/);
      for (const bad of [
        { initScale: 0 },
        { initScale: Infinity },
        { initScale: 1e300 },
        { initScale: 1e-60 },
        { growthInterval: 2 ** 31 },
        { growthFactor: 1 },
        { backoffFactor: 1 },
        { backoffFactor: 0 },
        { growthInterval: 0 },
        { growthInterval: 2 ** 53 },
      ])
        expectThrow(make(bad), 'ERR_SENET_ARG_RANGE');
      expectThrow(make({ enabled: 1 }), 'ERR_SENET_ARG_TYPE');
    });

    it('calls out of their order', async () => {
      const x = parameter();
      const optimizer = new SGD([x], { lr: 0.1 });
      const scaler = new GradScaler();
      expectThrow(() => scaler.update(), 'ERR_SENET_AUTOGRAD', /no loss was scaled/);
      await expectRejection(scaler.unscale_(optimizer), 'ERR_SENET_AUTOGRAD', /no loss was scaled/);
      const loss = scaler.scale(lossOf(x, [1, 1, 1, 1]));
      await expectRejection(scaler.step(optimizer), 'ERR_SENET_AUTOGRAD', /no parameter .* has a gradient/);
      expectThrow(() => scaler.update(), 'ERR_SENET_AUTOGRAD', /no step/);
      await loss.backward();
      await scaler.unscale_(optimizer);
      await expectRejection(scaler.unscale_(optimizer), 'ERR_SENET_AUTOGRAD', /already/);
      await scaler.step(optimizer);
      await expectRejection(scaler.step(optimizer), 'ERR_SENET_AUTOGRAD', /already/);
      await expectRejection(scaler.unscale_(optimizer), 'ERR_SENET_AUTOGRAD', /after step/);
      scaler.update();
    });

    it('arguments of another kind', async () => {
      const scaler = new GradScaler();
      expectThrow(() => scaler.scale(1 as never), 'ERR_SENET_ARG_TYPE');
      expectThrow(() => scaler.scale([1] as never), 'ERR_SENET_ARG_TYPE', /outputs\[0\]/);
      await expectRejection(scaler.step({} as never), 'ERR_SENET_ARG_TYPE', /Optimizer/);
      await expectRejection(scaler.unscale_(null as never), 'ERR_SENET_ARG_TYPE');
      expect(scaler.scale([])).to.deep.equal([]);
    });

    it('gradients of float16', async () => {
      const x = tensor([1, 2], { dtype: 'float16', requiresGrad: true });
      const optimizer = new SGD([x], { lr: 0.1 });
      const scaler = new GradScaler({ initScale: 2 });
      await scaler.scale(x.sum()).backward();
      await expectRejection(scaler.step(optimizer), 'ERR_SENET_DTYPE', /float16/);
    });

    it('to go on while a step runs, which it then finishes', async () => {
      const x = parameter();
      const optimizer = new SGD([x], { lr: 1 });
      const scaler = new GradScaler();
      await scaler.scale(lossOf(x, [1, 1, 1, 1])).backward();
      const stepping = scaler.step(optimizer);
      expectThrow(() => scaler.update(), 'ERR_SENET_BUSY');
      expectThrow(() => scaler.scale(x), 'ERR_SENET_BUSY');
      expectThrow(() => scaler.loadStateDict(new GradScaler().stateDict()), 'ERR_SENET_BUSY');
      await expectRejection(scaler.unscale_(optimizer), 'ERR_SENET_BUSY');
      await stepping;
      expect(Number(x.select(0, 0).item())).to.be.closeTo(-0.7, 1e-6);
      scaler.update();
    });
  });
});
