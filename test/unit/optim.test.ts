/** Optimisers: groups, options, state dicts, and how their jobs stand among others. Trajectories are in test/parity. */
import { expect } from 'chai';

import { makeError } from '../../lib/errors';
import { Adam, AdamW } from '../../lib/optim/adam';
import { clipGradNorm_ } from '../../lib/optim/clip';
import { ExponentialMovingAverage } from '../../lib/optim/ema';
import { RMSprop } from '../../lib/optim/rmsprop';
import { SGD, type SGDOptions } from '../../lib/optim/sgd';
import { SELayer } from '../../lib/nn/se-layer';
import { L1Loss } from '../../lib/nn/losses';
import { full, ones, rand, randn, tensor, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { configure, getRngState, manualSeed, memory, setRngState } from '../../lib/tensor/runtime';
import { noGrad, tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { whileOccupied } from '../support/occupy';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const parameter = (...values: number[]): Tensor => tensor(values, { requiresGrad: true });

describe('optimisers: parameters and options', () => {
  const x = parameter(1, 2);

  it('refuse what is no parameter', () => {
    expectThrow(() => new SGD([]), 'ERR_SENET_ARG_RANGE', /got none/);
    expectThrow(() => new SGD(x as never), 'ERR_SENET_ARG_TYPE', /got a Tensor/);
    expectThrow(() => new SGD([1] as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new SGD([x, 1] as never), 'ERR_SENET_ARG_TYPE', /params\[1\]/);
    expectThrow(() => new SGD([{}] as never), 'ERR_SENET_ARG_MISSING', /params/);
    expectThrow(() => new SGD([x.mul(2)]), 'ERR_SENET_AUTOGRAD', /only leaves/);
    expectThrow(() => new SGD([x, x]), 'ERR_SENET_ARG_RANGE', /params\[1\] appears/);
    expectThrow(() => new SGD([{ params: [x] }, { params: x }]), 'ERR_SENET_ARG_RANGE', /paramGroups\[1\]/);
    expectThrow(() => new SGD([{ params: [x] }, parameter(1)] as never), 'ERR_SENET_ARG_TYPE', /\[1\]/);
    expectThrow(() => new SGD([{ params: new Set([x]) }]), 'ERR_SENET_ARG_TYPE', /Set/);
    expectThrow(() => new SGD([['a', x], parameter(1)] as never), 'ERR_SENET_ARG_RANGE', /names/);
    // A constant may be optimised, as in PyTorch: it just never has a gradient.
    expect(new SGD([zeros([1])]).paramGroups).to.have.length(1);
  });

  it('refuse options that do not exist or cannot be', () => {
    const make = (options: unknown) => () => new SGD([x], options as SGDOptions);
    expectThrow(make({ weight_decay: 1 }), 'ERR_SENET_UNKNOWN_OPTION', /weightDecay/);
    expectThrow(make({ betas: [0.9, 0.999] }), 'ERR_SENET_UNKNOWN_OPTION');
    expectThrow(make({ lr: NaN }), 'ERR_SENET_ARG_RANGE', /SGD: lr: .* got NaN/);
    expectThrow(make({ lr: Infinity }), 'ERR_SENET_ARG_RANGE');
    expectThrow(make({ lr: -1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(make({ lr: '0.1' }), 'ERR_SENET_ARG_TYPE');
    expectThrow(make({ momentum: -0.1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(make({ nesterov: true }), 'ERR_SENET_ARG_RANGE', /nesterov needs/);
    expectThrow(make({ nesterov: true, momentum: 0.9, dampening: 0.1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Adam([x], { betas: [0.9, 1] }), 'ERR_SENET_ARG_RANGE', /betas\[1\]/);
    expectThrow(() => new Adam([x], { betas: 0.9 as never }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new Adam([x], { betas: new Array(2) as never }), 'ERR_SENET_ARG_TYPE', /betas\[0\]/);
    expectThrow(() => new Adam([x], { eps: -1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new AdamW([{ params: x, lr: NaN }]), 'ERR_SENET_ARG_RANGE', /paramGroups\[0\]: lr/);
    expectThrow(() => new AdamW([{ params: x, momentum: 1 }]), 'ERR_SENET_UNKNOWN_OPTION');
    expect(new SGD([x], { lr: 0 }).paramGroups[0]?.lr).to.equal(0);
  });

  it('groups: defaults, names, parameters with names, added later', async () => {
    const [a, b, c] = [parameter(1), parameter(1), parameter(1)];
    const optimizer = new SGD(
      [
        { params: a, name: 'body' },
        { params: [b], lr: 0.5 },
      ],
      { lr: 0.1 },
    );
    optimizer.addParamGroup({ params: [c], name: 'head', lr: 0 });
    expect(optimizer.paramGroups.map(({ name, lr }) => [name, lr])).to.deep.equal([
      ['body', 0.1],
      [undefined, 0.5],
      ['head', 0],
    ]);
    for (const one of [a, b, c]) one.grad = ones([1]);
    await optimizer.step();
    const head = optimizer.paramGroups.find(({ name }) => name === 'head');
    if (head) head.lr = 1;
    await optimizer.step();
    expect([a, b, c].map((one) => Number(one.item()).toFixed(4))).to.deep.equal([
      '0.8000',
      '0.0000',
      '0.0000',
    ]);
    expectThrow(() => optimizer.addParamGroup({ params: a }), 'ERR_SENET_ARG_RANGE');

    const model = new SELayer(16, 4);
    const named = new SGD(model.namedParameters());
    expect(named.paramGroups[0]?.paramNames).to.deep.equal(['fc.0.weight', 'fc.2.weight']);
    expect(named.stateDict().param_groups[0]?.param_names).to.deep.equal(['fc.0.weight', 'fc.2.weight']);
    expectThrow(() => named.addParamGroup({ params: a }), 'ERR_SENET_ARG_RANGE', /names/);
  });

  it('options changed to impossible ones are refused by the next step', async () => {
    const optimizer = new SGD([x], { lr: 0.1 });
    (optimizer.paramGroups[0] as { lr: number }).lr = NaN;
    await expectRejection(optimizer.step(), 'ERR_SENET_ARG_RANGE', /paramGroups\[0\]: lr/);
  });

  it('a disposed parameter rejects', async () => {
    const gone = parameter(1);
    const optimizer = new SGD([gone]);
    gone.dispose();
    await expectRejection(optimizer.step(), 'ERR_SENET_DISPOSED');
    expectThrow(() => optimizer.zeroGrad(), 'ERR_SENET_DISPOSED');
  });
});

describe('optimisers: steps', () => {
  for (const dtype of ['bfloat16', 'float16'] as const) {
    it(`SGD: every element of ${dtype} parameters is updated, by PyTorch's arithmetic`, async () => {
      // LibTorch's fused operator leaves all but the last few alone. torch/optim/sgd.py, operator by operator.
      for (const options of [
        { lr: 0.1 },
        { lr: 0.1, momentum: 0.9, weightDecay: 0.1 },
        { lr: 0.1, momentum: 0.9, nesterov: true, maximize: true },
        { lr: 0.1, momentum: 0.9, dampening: 0.5 },
      ]) {
        manualSeed(1);
        const start = randn([1000], { dtype });
        const gradients = [randn([1000], { dtype }), randn([1000], { dtype })];
        const p = start.clone();
        p.requiresGrad = true;
        const optimizer = new SGD([p], options);
        let expected = start;
        let buffer: Tensor | undefined;
        const { lr, momentum = 0, weightDecay = 0, dampening = 0 } = options as Record<string, number>;
        for (const gradient of gradients) {
          p.grad = gradient;
          await optimizer.step();
          let g = 'maximize' in options ? gradient.neg() : gradient;
          const plus = (x: Tensor, y: Tensor, alpha: number): Tensor =>
            ops.call('aten::add.Tensor', x, y, { alpha }) as Tensor;
          if (weightDecay !== 0) g = plus(g, expected, weightDecay);
          if (momentum !== 0) {
            buffer = buffer === undefined ? g : plus(buffer.mul(momentum), g, 1 - dampening);
            g = 'nesterov' in options ? plus(g, buffer, momentum) : buffer;
          }
          expected = plus(expected, g, -(lr as number));
        }
        expect(p.toTypedArray()).to.deep.equal(expected.toTypedArray());
        expect(Number(p.ne(start).sum().item())).to.be.at.least(900);
      }
    });
  }

  // torch.optim.RMSprop of PyTorch 2.13, six steps with lr 0.01, momentum 0.9, alpha 0.99.
  for (const [dtype, centered, values, squares] of [
    [
      'bfloat16',
      false,
      [-0.220703125, -0.765625, -0.7265625],
      [0.00531005859375, 0.002349853515625, 0.0001468658447265625],
    ],
    [
      'bfloat16',
      true,
      [-0.240234375, -0.765625, -0.7421875],
      [0.00531005859375, 0.002349853515625, 0.0001468658447265625],
    ],
    [
      'float16',
      false,
      [-0.22216796875, -0.77734375, -0.72265625],
      [0.005268096923828125, 0.002338409423828125, 0.0001461505889892578],
    ],
    [
      'float16',
      true,
      [-0.23779296875, -0.7626953125, -0.7373046875],
      [0.005268096923828125, 0.002338409423828125, 0.0001461505889892578],
    ],
  ] as const)
    it(`RMSprop${centered ? ', centered' : ''}: ${dtype} parameters by PyTorch's arithmetic`, async () => {
      const parameter = tensor([1, -2, 0.5], { dtype, requiresGrad: true });
      const optimizer = new RMSprop([parameter], { lr: 0.01, momentum: 0.9, alpha: 0.99, centered });
      for (let step = 0; step < 6; step++) {
        parameter.grad = tensor([0.3, -0.2, 0.05], { dtype });
        await optimizer.step();
      }
      expect(numbers(parameter.detach().to('float32'))).to.deep.equal(values);
      const average = optimizer.stateDict().state.get(0)?.square_avg as Tensor;
      expect(numbers(average.to('float32'))).to.deep.equal(squares);
    });

  it('a rate that no float32 can hold is refused before anything changes', async () => {
    const parameter = tensor([1], { requiresGrad: true });
    const optimizer = new RMSprop([parameter], { lr: 1e39 });
    parameter.grad = ones([1]);
    await expectRejection(optimizer.step(), 'ERR_SENET_ARG_RANGE', /lr: .*float32/);
    expect(optimizer.stateDict().state.size).to.equal(0);
  });

  it("Adam decays as AdamW does once it has AdamW's state, and AdamW always does", async () => {
    const step = async (optimizer: Adam | AdamW, p: Tensor): Promise<number> => {
      p.grad = zeros([1]);
      await optimizer.step();
      return Number(p.item());
    };
    const from = parameter(1);
    const adamW = new AdamW([from], { lr: 0.1, weightDecay: 0.5 });
    const first = await step(adamW, from);
    expect(first).to.be.closeTo(0.95, 1e-6);
    const [p, q] = [parameter(1), parameter(1)];
    const adam = new Adam([p], { lr: 0.1 });
    adam.loadStateDict(adamW.stateDict());
    expect(await step(adam, p)).to.be.closeTo(0.95, 1e-6);
    expect(adam.stateDict().param_groups[0]?.decoupled_weight_decay).to.equal(true);
    const other = new AdamW([q], { lr: 0.1 });
    other.loadStateDict(new Adam([q], { lr: 0.1, weightDecay: 0.5 }).stateDict());
    expect(await step(other, q)).to.be.closeTo(0.95, 1e-6);
  });

  it('groups may combine what the constructor refuses, as in PyTorch', async () => {
    const p = parameter(1);
    const optimizer = new SGD([{ params: [p], nesterov: true, dampening: 0.5 }], { lr: 0.1, momentum: 0.9 });
    for (let step = 0; step < 2; step++) {
      p.grad = ones([1]);
      await optimizer.step();
    }
    // Buffers 1 and 0.9 + 0.5; steps of 1 + 0.9 and 1 + 0.9 * 1.4.
    expect(Number(p.item())).to.be.closeTo(1 - 0.1 * (1.9 + 2.26), 1e-6);
    const other = new SGD([parameter(1)], { lr: 0.1, momentum: 0.9 });
    other.loadStateDict(optimizer.stateDict());
    expect(other.paramGroups[0]).to.include({ nesterov: true, dampening: 0.5 });
    expectThrow(
      () =>
        new SGD([{ params: [p], dampening: 0 }], { lr: 0.1, momentum: 0.9, dampening: 0.5, nesterov: true }),
      'ERR_SENET_ARG_RANGE',
      /nesterov needs/,
    );
  });

  it('takes a rate that is a tensor in a state dict', () => {
    const optimizer = new Adam([parameter(1)], { lr: 0.1 });
    const state = optimizer.stateDict();
    Object.assign(state.param_groups[0] as object, { lr: tensor(0.25) });
    optimizer.loadStateDict(state);
    expect(optimizer.paramGroups[0]?.lr).to.equal(0.25);
  });

  for (const Optimizer of [SGD, Adam, AdamW]) {
    it(`${Optimizer.name}: strides, views and other dtypes give what contiguous float32 gives`, async () => {
      const values = rand([4, 3, 5, 5]);
      const gradient = rand([4, 3, 5, 5]).sub(0.5);
      const options = { lr: 0.1, ...(Optimizer === SGD ? { momentum: 0.9 } : {}) };
      const run = async (weight: Tensor, grad: Tensor): Promise<number[]> => {
        weight.requiresGrad = true;
        const optimizer = new Optimizer([weight], options);
        for (let step = 0; step < 3; step++) {
          weight.grad = grad;
          await optimizer.step();
        }
        return numbers(weight.detach().to('float32').contiguous());
      };
      const expected = await run(values.clone(), gradient);
      const near = (actual: number[], tolerance: number): void => {
        for (const [i, value] of expected.entries())
          expect(actual[i], `${i}`).to.be.closeTo(value, tolerance);
      };
      const channelsLast = (t: Tensor): Tensor => t.clone().to({ memoryFormat: 'channels_last' });
      near(await run(channelsLast(values), gradient), 1e-6);
      near(await run(values.clone(), channelsLast(gradient)), 1e-6);
      // Every other element of a larger tensor: there are gaps in its memory, which must stay as they are.
      const wide = zeros([4, 3, 5, 10]);
      const view = ops.call('aten::slice.Tensor', wide, 3, 0, null, 2) as Tensor;
      view.copy_(values);
      near(await run(view, gradient), 1e-6);
      expect(
        numbers(ops.call('aten::slice.Tensor', wide, 3, 1, null, 2) as Tensor).every((v) => v === 0),
      ).to.equal(true);
      // A gradient that broadcasts.
      const one = gradient.slice(0, 0, 1);
      const repeated = Optimizer === SGD ? one.expand([4, 3, 5, 5]) : undefined;
      if (repeated) expect(await run(values.clone(), repeated)).to.have.length(300);
      near(await run(values.to('float64'), gradient.to('float64')), 1e-6);
    });
  }

  it('a parameter without a gradient keeps its value and gets no state', async () => {
    const [used, unused] = [parameter(1), parameter(1)];
    const optimizer = new AdamW([used, unused], { lr: 0.1, weightDecay: 0.5 });
    used.grad = ones([1]);
    await optimizer.step();
    expect(unused.item()).to.equal(1);
    expect([...optimizer.stateDict().state.keys()]).to.deep.equal([0]);
  });

  it('a momentum that begins later begins from the gradient', async () => {
    const [early, late] = [parameter(0), parameter(0)];
    const optimizer = new SGD([early, late], { lr: 1, momentum: 0.5, dampening: 0.5 });
    early.grad = ones([1]);
    await optimizer.step(); // early: -1
    late.grad = ones([1]);
    await optimizer.step(); // early: buffer 0.5 * 1 + 0.5 * 1, late: buffer 1
    expect(early.item()).to.equal(-2);
    expect(late.item()).to.equal(-1);
  });

  it('goes on in another dtype after the model was converted', async () => {
    const model = new SELayer(16, 4);
    const optimizer = new Adam(model.parameters());
    const step = async (dtype: 'float32' | 'float64'): Promise<void> => {
      const x = rand([1, 16, 2, 2]).to(dtype);
      optimizer.zeroGrad();
      await (await new L1Loss().forward(await model.forward(x), x.mul(2))).backward();
      await optimizer.step();
    };
    await step('float32');
    model.to('float64');
    await step('float64');
    expect(optimizer.stateDict().state.get(0)?.exp_avg?.dtype).to.equal('float64');
    expect(optimizer.stateDict().state.get(0)?.step?.item()).to.equal(2);
  });

  it('makes an old graph unusable, as an in-place change does', async () => {
    const weight = parameter(1);
    const loss = weight.mul(weight);
    await weight.mul(2).backward();
    await new SGD([weight], { lr: 0.1 }).step();
    await expectRejection(loss.backward(), 'ERR_SENET_AUTOGRAD', /inplace/);
  });

  it('leaves no tensors and no memory behind in a loop', async () => {
    const model = new SELayer(64);
    const optimizer = new AdamW(model.parameters());
    const average = new ExponentialMovingAverage(model);
    const loop = (): Promise<void> =>
      tidy(async () => {
        const x = rand([2, 64, 4, 4]);
        optimizer.zeroGrad();
        await (await new L1Loss().forward(await model.forward(x), x)).backward();
        await clipGradNorm_(model.parameters(), 1);
        await optimizer.step();
        await average.update();
      });
    for (let i = 0; i < 3; i++) await loop();
    const before = memory();
    for (let i = 0; i < 50; i++) await loop();
    expect(memory().tensors).to.be.at.most(before.tensors);
    expect(memory().bytes).to.be.at.most(before.bytes + 1024);
  });
});

describe('optimisers: state dicts', () => {
  const make = (values = [1, 2]): { weight: Tensor; optimizer: AdamW } => {
    const weight = parameter(...values);
    return { weight, optimizer: new AdamW([weight], { lr: 0.1 }) };
  };
  const stepWith = async ({ weight, optimizer }: ReturnType<typeof make>, grad: number[]): Promise<void> => {
    weight.grad = tensor(grad);
    await optimizer.step();
  };

  it('continue where another stopped, without sharing its memory', async () => {
    const first = make();
    await stepWith(first, [0.5, -1]);
    const second = make(numbers(first.weight));
    second.optimizer.loadStateDict(first.optimizer.stateDict());
    await stepWith(first, [1, 1]);
    await stepWith(second, [1, 1]);
    expect(numbers(second.weight)).to.deep.equal(numbers(first.weight));
    expect(first.optimizer.stateDict().state.get(0)?.step?.item()).to.equal(2);
  });

  it('bring their options, and keep what only PyTorch knows', () => {
    const { optimizer } = make();
    const saved = optimizer.stateDict();
    expect(Object.keys(saved.param_groups[0] as object)).to.deep.equal([
      ...['lr', 'betas', 'eps', 'weight_decay', 'amsgrad', 'maximize', 'foreach', 'capturable'],
      ...['differentiable', 'fused', 'decoupled_weight_decay', 'params'],
    ]);
    optimizer.loadStateDict({
      state: {},
      param_groups: [
        { ...saved.param_groups[0], lr: 0.7, betas: [0.5, 0.6], foreach: true, later_option: 3 },
      ],
    });
    expect(optimizer.paramGroups[0]).to.include({ lr: 0.7 });
    expect(optimizer.paramGroups[0]?.betas).to.deep.equal([0.5, 0.6]);
    expect(optimizer.stateDict().param_groups[0]).to.include({ foreach: true, later_option: 3 });
  });

  it('take a counter that is a number, a buffer that is None, and keys that are text', async () => {
    const { weight, optimizer } = make();
    const groups = optimizer.stateDict().param_groups;
    optimizer.loadStateDict({
      state: { '0': { step: 4, exp_avg: zeros([2]), exp_avg_sq: ones([2]) } },
      param_groups: groups,
    });
    await stepWith({ weight, optimizer }, [0, 0]);
    expect(optimizer.stateDict().state.get(0)?.step?.item()).to.equal(5);
    const sgd = new SGD([weight], { momentum: 0.9 });
    sgd.loadStateDict({ ...sgd.stateDict(), state: new Map([[0, { momentum_buffer: null }]]) });
    expect(sgd.stateDict().state.size).to.equal(0);
  });

  it('take whatever PyTorch can reach: rates below 0, options and counters that are tensors, empty states', async () => {
    const { weight, optimizer } = make();
    const [group] = optimizer.stateDict().param_groups;
    const state = { exp_avg: zeros([2]), exp_avg_sq: ones([2]) };
    for (const dtype of ['float64', 'float16', 'bfloat16', 'int64'] as const) {
      for (const shape of [[], [1]]) {
        optimizer.loadStateDict({
          state: { 0: { ...state, step: full(shape, 3, { dtype }) } },
          param_groups: [
            {
              ...{ ...group, lr: tensor(-0.25), initial_lr: tensor([0.5]), max_lr: NaN },
              betas: [tensor(0.5), tensor([1.0625])],
            },
          ],
        });
        expect(optimizer.stateDict().state.get(0)?.step?.item()).to.equal(3);
        const [loaded] = optimizer.paramGroups;
        expect([loaded?.lr, loaded?.initialLr, loaded?.betas]).to.deep.equal([-0.25, 0.5, [0.5, 1.0625]]);
      }
    }
    optimizer.loadStateDict({ state: { 0: {} }, param_groups: [{ ...group, lr: -0.5 }] });
    await stepWith({ weight, optimizer }, [1, 1]);
    expect(numbers(weight).every((value) => value > 0)).to.equal(true);
  });

  it('that do not fit are refused, and nothing changes', async () => {
    const owner = make();
    await stepWith(owner, [1, 1]);
    const { optimizer } = owner;
    const before = optimizer.stateDict();
    const [group] = before.param_groups;
    const state = before.state.get(0) as Record<string, Tensor>;
    const refuse = (value: unknown, words: RegExp): void => {
      expectThrow(() => optimizer.loadStateDict(value), 'ERR_SENET_STATE_DICT', words);
    };
    refuse(null, /dictionary/);
    refuse([], /dictionary/);
    refuse({ state: {}, param_groups: [] }, /expected 1 parameter groups, got 0/);
    refuse({ state: {}, param_groups: [{ ...group, params: [0, 1] }] }, /expected 1 parameters, got 2/);
    refuse({ state: {}, param_groups: [{ ...group, lr: NaN }] }, /lr/);
    refuse({ state: {}, param_groups: [{ ...group, lr: zeros([2]) }] }, /lr/);
    refuse({ state: { 1: state }, param_groups: [group] }, /no parameter/);
    refuse(
      { state: { 0: { momentum_buffer: ones([2]) } }, param_groups: [group] },
      /nothing that AdamW remembers/,
    );
    refuse({ state: { 0: { ...state, exp_avg: ones([3]) } }, param_groups: [group] }, /exp_avg.*\[3\]/);
    refuse({ state: { 0: { ...state, step: ones([2]) } }, param_groups: [group] }, /step/);
    refuse({ state: { 0: { ...state, exp_avg: 1 } }, param_groups: [group] }, /expected a Tensor, got 1/);
    const after = optimizer.stateDict();
    expect(after.param_groups).to.deep.equal(before.param_groups);
    expect(numbers(after.state.get(0)?.exp_avg as Tensor)).to.deep.equal(numbers(state.exp_avg as Tensor));
  });
});

describe('clipping and averages', () => {
  it('refuse impossible norms', async () => {
    const weight = parameter(3, 4);
    for (const bad of [NaN, -1, '1'])
      expect(
        await clipGradNorm_([weight], bad as number).catch(
          (error: unknown) => (error as { code: string }).code,
        ),
      ).to.match(/ARG_/);
    await expectRejection(clipGradNorm_([weight], 1, { normType: NaN }), 'ERR_SENET_ARG_RANGE', /normType/);
    await expectRejection(clipGradNorm_(1 as never, 1), 'ERR_SENET_ARG_TYPE');
    expect((await clipGradNorm_([weight], 1)).item()).to.equal(0);
    weight.grad = tensor([3, 4]);
    expect((await clipGradNorm_(weight, 1)).item()).to.equal(5);
    expect(Math.hypot(...numbers(weight.grad))).to.be.closeTo(1, 1e-5);
  });

  it('norms of any order; no limit only measures', async () => {
    const weight = parameter(3, 4);
    for (const [normType, norm] of [
      [0, 1], // of the tensors' norms
      [-Infinity, 3],
      [Infinity, 4],
      [1, 7],
    ]) {
      weight.grad = tensor([3, -4]);
      expect((await clipGradNorm_(weight, Infinity, { normType: normType as number })).item()).to.equal(norm);
      expect(numbers(weight.grad)).to.deep.equal([3, -4]);
    }
  });

  it('a norm that is not finite: rejected if asked, the gradients as they were', async () => {
    const weight = parameter(3, 4);
    weight.grad = tensor([NaN, 4]);
    await expectRejection(
      clipGradNorm_([weight], 1, { errorIfNonfinite: true }),
      'ERR_SENET_AUTOGRAD',
      /nan/,
    );
    expect(numbers(weight.grad)[1]).to.equal(4);
    expect((await clipGradNorm_([weight], 1)).item()).to.be.NaN;
  });

  it('gradients of two dtypes are clipped together', async () => {
    const [a, b] = [parameter(1), tensor(Float64Array.of(1), { requiresGrad: true })];
    a.grad = tensor([3]);
    b.grad = tensor(Float64Array.of(4));
    const norm = await clipGradNorm_([a, b], 2.5);
    expect(norm.dtype).to.equal('float64');
    expect(norm.item()).to.equal(5);
    expect(numbers(a.grad)[0]).to.be.closeTo(1.5, 1e-5);
    expect(numbers(b.grad)[0]).to.be.closeTo(2, 1e-5);
  });

  it('an average refuses what is not the module its state', async () => {
    const model = new SELayer(16, 4);
    const average = new ExponentialMovingAverage(model);
    expectThrow(() => new ExponentialMovingAverage({} as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new ExponentialMovingAverage(model, { decay: 1.1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(
      () => average.loadStateDict(new SELayer(32).stateDict()),
      'ERR_SENET_STATE_DICT',
      /fc.0.weight/,
    );
    expectThrow(
      () => average.loadStateDict(new Map([['x', zeros([1])]])),
      'ERR_SENET_STATE_DICT',
      /unexpected: x/,
    );
    // The last entry is wrong: those before it are not taken.
    const before = [...average.stateDict()].map(([, tensor]) => numbers(tensor));
    const gone = zeros([1]);
    gone.dispose();
    for (const [wrong, code] of [
      [null, 'ERR_SENET_STATE_DICT'],
      [1, 'ERR_SENET_STATE_DICT'],
      [gone, 'ERR_SENET_DISPOSED'],
    ] as const) {
      const state = new Map<string, unknown>(
        [...model.stateDict()].map(([name, tensor]) => [name, tensor.add(1)]),
      );
      state.set([...state.keys()].at(-1) as string, wrong);
      expectThrow(() => average.loadStateDict(state), code, /fc.2.weight|disposed/);
    }
    expect([...average.stateDict()].map(([, tensor]) => numbers(tensor))).to.deep.equal(before);
    model.to('float64');
    await expectRejection(average.update(), 'ERR_SENET_SHAPE');
  });

  it('an update that fails is none: the first that does not copies the weights', async () => {
    const model = new SELayer(16, 4);
    const average = new ExponentialMovingAverage(model, { decay: 0.9 });
    model.to('float64');
    await expectRejection(average.update(), 'ERR_SENET_SHAPE');
    model.to('float32');
    expect(average.updates).to.equal(0);
    noGrad(() => {
      for (const weight of model.parameters()) ops.call('aten::fill_', weight, 2);
    });
    await average.update();
    expect(average.updates).to.equal(1);
    for (const tensor of average.stateDict().values())
      expect(new Set(numbers(tensor))).to.deep.equal(new Set([2]));
  });
});

for (const workers of [1, 2]) {
  describe(`jobs that use parameters, with ${workers} worker${workers === 1 ? '' : 's'}`, () => {
    before(() => configure({ workers, threadsPerWorker: 1 }));
    after(() => configure({ workers: 1, threadsPerWorker: 2 }));

    it('a step runs after what was submitted before it and before what comes after', async () => {
      const size = 200;
      const factor = rand([size, size]);
      for (let round = 0; round < 10; round++) {
        const weight = ones([size, size], { requiresGrad: true });
        const optimizer = new SGD([weight], { lr: 1 });
        // Reads the weight slowly, then adds gradients slowly, none of it awaited.
        const earlier = ops.callAsync('aten::linalg_matrix_power', weight.detach(), 3) as Promise<Tensor>;
        const loss = weight.matmul(factor).matmul(factor).sum().mul(0).add(weight.sum());
        const backward = loss.backward();
        const step = optimizer.step();
        const second = optimizer.step();
        const later = ops.callAsync('aten::clone', weight.detach()) as Promise<Tensor>;
        const [powers, , , , copy] = await Promise.all([earlier, backward, step, second, later]);
        expect(
          numbers(powers).every((value) => value === size * size),
          'the job before',
        ).to.equal(true);
        expect(
          numbers(copy).every((value) => value === -1),
          'the job after two steps',
        ).to.equal(true);
      }
    });

    it('clipping, step and average queue in their order', async () => {
      const model = new SELayer(16, 4);
      const [first] = model.parameters() as [Tensor];
      const average = new ExponentialMovingAverage(model);
      noGrad(() => first.fill_(0));
      first.grad = full(first.shape, 1);
      const optimizer = new SGD(model.parameters(), { lr: 1 });
      const done = [
        clipGradNorm_(model.parameters(), 4),
        optimizer.step(),
        average.update(),
        optimizer.step(),
      ];
      await Promise.all(done);
      // 64 elements of gradient 1 have the norm 8: half of each is left.
      expect(numbers(first)[0]).to.be.closeTo(-1, 1e-5);
      expect(numbers(average.stateDict().get('fc.0.weight') as Tensor)[0]).to.be.closeTo(-0.5, 1e-5);
    });

    it('gradients in use can be neither read nor changed', async () => {
      const model = new SELayer(16, 4);
      const [first] = model.parameters() as [Tensor];
      const optimizer = new SGD(model.parameters(), { lr: 1 });
      const average = new ExponentialMovingAverage(model);
      const other = parameter(1);
      const state = model.stateDict();

      const refused = (what: string): void => {
        for (const [name, run] of Object.entries({
          'the getter': (): unknown => first.grad,
          'the setter': (): unknown => (first.grad = null),
          'module.zeroGrad': () => model.zeroGrad(),
          'optimizer.zeroGrad': () => optimizer.zeroGrad(),
          'module.to': () => model.to('float64'),
          loadStateDict: () => model.loadStateDict(state),
        })) {
          try {
            expectThrow(run, 'ERR_SENET_BUSY');
          } catch (cause) {
            throw makeError('ERR_SENET_INTERNAL', `${name} during ${what}: ${String(cause)}`, { cause });
          }
        }
        expect(other.grad, 'an unrelated gradient').to.equal(null);
      };
      // What runs alone waits for the job that occupies a worker, and everything else waits behind it.
      await whileOccupied(() => {
        const jobs = [new SGD([parameter(1)]).step(), first.sum().backward()];
        refused('backward');
        return Promise.all(jobs);
      });
      expect(numbers(first.grad as Tensor)).to.have.length(64);
      await whileOccupied(() => {
        const jobs = [optimizer.step()];
        refused('a step');
        expectThrow(() => optimizer.stateDict(), 'ERR_SENET_BUSY', /step/);
        expectThrow(() => optimizer.loadStateDict({ state: {}, param_groups: [] }), 'ERR_SENET_STATE_DICT');
        return Promise.all(jobs);
      });
      await whileOccupied(() => {
        const jobs = [clipGradNorm_(model.parameters(), 1)];
        refused('clipping');
        return Promise.all(jobs);
      });
      await whileOccupied(() => {
        const jobs = [average.update()];
        refused('averaging');
        expectThrow(() => average.stateDict(), 'ERR_SENET_BUSY');
        return Promise.all(jobs);
      });
      optimizer.zeroGrad();
      expect(first.grad).to.equal(null);
    });

    it('a dropped backward frees its gradients', async () => {
      let weight = parameter(1);
      await whileOccupied(() => {
        weight = parameter(1);
        const waiting = new SGD([parameter(1)]).step();
        const controller = new AbortController();
        const backward = weight.mul(2).backward(null, { signal: controller.signal });
        expectThrow(() => weight.grad, 'ERR_SENET_BUSY');
        controller.abort();
        return Promise.all([waiting, expectRejection(backward, 'ERR_SENET_ABORTED')]);
      });
      expect(weight.grad).to.equal(null);
    });
  });
}

describe('the generator', () => {
  it('goes on where its state was taken', () => {
    manualSeed(5);
    rand([3]);
    const state = getRngState();
    expect([state.dtype, state.shape]).to.deep.equal(['uint8', [5056]]);
    const first = numbers(rand([100]));
    setRngState(state);
    expect(numbers(rand([100]))).to.deep.equal(first);
  });

  it('refuses what is no state', () => {
    expectThrow(() => setRngState(zeros([5056])), 'ERR_SENET_ARG_RANGE', /uint8/);
    expectThrow(() => setRngState(zeros([10], { dtype: 'uint8' })), 'ERR_SENET_ARG_RANGE', /5056/);
    expectThrow(() => setRngState(1 as never), 'ERR_SENET_ARG_TYPE');
    const none = getRngState().fill_(255);
    expectThrow(() => setRngState(none), 'ERR_SENET_ARG_RANGE', /state/);
  });
});
