/**
 * Optimisers, clipping and averages on tensors of every memory layout: what they give is what the same values give when
 * they are contiguous. (What contiguous ones give is PyTorch's: test/parity.)
 */
import { expect } from 'chai';

import { StateDict } from '../../lib/checkpoint/state-dict';
import { Linear } from '../../lib/nn/layers';
import { Adam, AdamW, type AdamOptions } from '../../lib/optim/adam';
import { clipGradNorm_ } from '../../lib/optim/clip';
import { ExponentialMovingAverage } from '../../lib/optim/ema';
import type { Optimizer, OptimizerState } from '../../lib/optim/optimizer';
import { SGD, type SGDOptions } from '../../lib/optim/sgd';
import { ones, rand, randn, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { manualSeed } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';

/** The same values in memory of another order. */
type Layout = (values: Tensor) => Tensor;

const backwards = <T>(items: readonly T[]): T[] => [...items].reverse();

/** The values in what `view` gives of memory with `factor` times as many numbers, the dimensions in `order`. */
function place(
  values: Tensor,
  order: (dims: number[]) => number[],
  factor = 1,
  view = (whole: Tensor): Tensor => whole,
): Tensor {
  const { shape, dtype } = values;
  if (shape.length === 0) return values.clone();
  const dims = order([...shape.keys()]);
  const sizes = dims.map((dim) => shape[dim] as number);
  const wide = [...sizes.slice(0, -1), factor * (sizes.at(-1) as number)];
  const part = view(zeros(wide, { dtype })).permute(shape.map((_, dim) => dims.indexOf(dim)));
  part.copy_(values);
  return part;
}

const asTheyAre = (dims: number[]): number[] => dims;
const half = (whole: Tensor): Tensor => whole.slice(-1, 0, (whole.shape.at(-1) as number) / 2);
const everyOther = (whole: Tensor): Tensor => whole.slice(-1, 0, null, 2);

const LAYOUTS: Record<string, Layout> = {
  contiguous: (values) => values.clone(),
  permuted: (values) => place(values, backwards),
  'with gaps': (values) => place(values, asTheyAre, 2, half),
  'permuted, with gaps': (values) => place(values, backwards, 2, half),
  'every other element, permuted': (values) => place(values, backwards, 2, everyOther),
  'channels last': (values) =>
    place(values, (dims) =>
      [...dims.slice(0, 1), ...dims.slice(2), ...dims.slice(1, 2)].slice(0, dims.length),
    ),
  'in the middle of a storage': (values) => {
    const part = zeros([values.numel + 5], { dtype: values.dtype }).slice(0, 3, values.numel + 3);
    part.view(values.shape).copy_(values);
    return part.view(values.shape);
  },
};

// Multiples of 64, so that whatever order memory is walked in, all of it is walked with vectors: bits are compared.
const SHAPES = [[8, 4, 2, 4], [16, 8], [64], [1, 64, 1, 1], [0, 3], []];

const SGD_OPTIONS: SGDOptions[] = [
  { lr: 0.1 },
  { lr: 0.1, momentum: 0.9 },
  { lr: 0.1, momentum: 0.9, dampening: 0.5, weightDecay: 0.1, maximize: true },
  { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1 },
];
const ADAM_OPTIONS: AdamOptions[] = [
  { lr: 0.1 },
  { lr: 0.1, amsgrad: true, weightDecay: 0.1 },
  { lr: 0.1, maximize: true, weightDecay: 0.1, betas: [0.5, 0.9] },
];
const CASES: [name: string, make: (params: Tensor[]) => Optimizer][] = [
  ...SGD_OPTIONS.map((options): (typeof CASES)[0] => [
    `SGD ${JSON.stringify(options)}`,
    (params) => new SGD(params, options),
  ]),
  ...[Adam, AdamW].flatMap((Kind) =>
    ADAM_OPTIONS.map((options): (typeof CASES)[0] => [
      `${Kind.name} ${JSON.stringify(options)}`,
      (params) => new Kind(params, options),
    ]),
  ),
];

interface Sample {
  name: string;
  shape: number[];
  parameter: Layout;
  gradient: Layout;
}

const SAMPLES: Sample[] = SHAPES.flatMap((shape) =>
  Object.entries(LAYOUTS).flatMap(([parameterName, parameter]) =>
    [
      ...Object.entries(LAYOUTS),
      ['expanded', (values: Tensor): Tensor => values] as const, // see gradientsOf
    ].map(([gradientName, gradient]) => ({
      name: `[${String(shape)}] ${parameterName}, gradient ${gradientName}`,
      shape,
      parameter,
      gradient,
    })),
  ),
);

/** The state with every tensor's memory in another order. */
function relaid(state: OptimizerState): OptimizerState {
  const layouts = Object.values(LAYOUTS);
  const entries = [...state.state].map(([index, fields]): [number, Record<string, Tensor>] => [
    index,
    Object.fromEntries(
      Object.entries(fields).map(([name, value], i) => [
        name,
        (layouts[(index + i) % layouts.length] as Layout)(value),
      ]),
    ),
  ]);
  return { ...state, state: new Map(entries) };
}

/** Values and shapes of what an optimiser has made, by name. */
function outcome(params: Tensor[], optimizer: Optimizer): Map<string, unknown> {
  const state = [...optimizer.stateDict().state].flatMap(([index, fields]) =>
    Object.entries(fields).map(([name, value]): [string, unknown] => [
      `${name} of ${(SAMPLES[index] as Sample).name}`,
      [value.shape, value.dtype, numbers(value)],
    ]),
  );
  return new Map([
    ...params.map((p, i): [string, unknown] => [(SAMPLES[i] as Sample).name, numbers(p.detach())]),
    ...state,
  ]);
}

function expectSame(actual: Map<string, unknown>, expected: Map<string, unknown>): void {
  expect([...actual.keys()]).to.deep.equal([...expected.keys()]);
  for (const [name, value] of expected) expect(actual.get(name), name).to.deep.equal(value);
}

describe('optimisers: every layout of parameter, gradient and state gives what contiguous ones give', () => {
  for (const dtype of ['float32', 'float64', 'bfloat16', 'float16'] as const) {
    for (const [name, make] of CASES) {
      it(`${name}, ${dtype}`, async () => {
        manualSeed(1);
        const values = SAMPLES.map(({ shape }) => randn(shape, { dtype }));
        const leaf = (tensor: Tensor): Tensor => {
          const parameter = tensor.detach();
          parameter.requiresGrad = true;
          return parameter;
        };
        const odd = SAMPLES.map(({ parameter }, i) => leaf(parameter(values[i] as Tensor)));
        const plain = values.map((value) => leaf(value.clone()));
        const [ours, theirs] = [make(odd), make(plain)];
        for (let step = 0; step < 4; step++) {
          for (const [i, { shape, gradient, name: sample }] of SAMPLES.entries()) {
            // Some begin later than others.
            if (i % 5 === 0 && step === 0) continue;
            const expanded = sample.endsWith('expanded');
            const drawn = randn(
              expanded ? shape.map((size, dim) => (dim === 0 && size > 0 ? 1 : size)) : shape,
              {
                dtype,
              },
            );
            const given = expanded ? drawn.expand(shape) : gradient(drawn);
            (odd[i] as Tensor).grad = given;
            (plain[i] as Tensor).grad = ops.call('aten::clone', given, {
              memory_format: 'contiguous',
            }) as Tensor;
          }
          if (step === 2) ours.loadStateDict(relaid(ours.stateDict()));
          await ours.step();
          await theirs.step();
          expectSame(outcome(odd, ours), outcome(plain, theirs));
        }
      });
    }
  }

  it('what lies between the elements of a parameter stays as it is', async () => {
    const whole = ones([6, 16]);
    const parameter = whole.slice(1, 0, 8).transpose(0, 1).detach();
    parameter.requiresGrad = true;
    parameter.grad = ones([8, 6]);
    await new SGD([parameter], { lr: 1, momentum: 0.9 }).step();
    expect(numbers(whole.slice(1, 0, 8))).to.deep.equal(Array<number>(48).fill(0));
    expect(numbers(whole.slice(1, 8))).to.deep.equal(Array<number>(48).fill(1));
  });

  it('views of one memory are updated one after the other', async () => {
    const views = (whole: Tensor): Tensor[] =>
      [whole.slice(1, 0, 3), whole.view([32]).slice(0, 2, 20), whole.transpose(0, 1).slice(0, 1, 4)].map(
        (view) => {
          const parameter = view.detach();
          parameter.requiresGrad = true;
          return parameter;
        },
      );
    for (const options of [
      { lr: 0.1, weightDecay: 0.5 },
      { lr: 0.1, momentum: 0.9, weightDecay: 0.5 },
    ]) {
      const start = randn([8, 4]);
      const [together, apart] = [start.clone(), start.clone()];
      const [ours, theirs] = [views(together), views(apart)];
      const one = new SGD(ours, options);
      const several = theirs.map((parameter) => new SGD([parameter], options));
      for (let step = 0; step < 3; step++) {
        for (const [i, parameter] of ours.entries()) {
          if (step === 0 && i === 0) continue;
          parameter.grad = (theirs[i] as Tensor).grad = randn(parameter.shape);
        }
        await one.step();
        for (const optimizer of several) await optimizer.step();
        expect(numbers(together)).to.deep.equal(numbers(apart));
      }
    }
  });

  it('an expanded parameter is refused before any other changes', async () => {
    const [first, expanded] = [ones([2]), ones([1]).expand([3]).detach()];
    for (const parameter of [first, expanded]) {
      parameter.requiresGrad = true;
      parameter.grad = ones(parameter.shape);
    }
    await expectRejection(new SGD([first, expanded]).step(), 'ERR_SENET_AUTOGRAD', /shape \[3\] is expanded/);
    expect(numbers(first.detach())).to.deep.equal([1, 1]);
  });

  it('a gradient whose negation is only noted counts with its sign', async () => {
    for (const Kind of [SGD, AdamW]) {
      const [p, q] = [ones([3], { requiresGrad: true }), ones([3], { requiresGrad: true })];
      p.grad = ops.call('aten::_neg_view', ones([3])) as Tensor;
      q.grad = ones([3]).neg();
      for (const parameter of [p, q]) await new Kind([parameter], { lr: 0.5 }).step();
      expect(numbers(p.detach())).to.deep.equal(numbers(q.detach()));
    }
  });
});

describe('clipping and averages: every layout gives what contiguous ones give', () => {
  const shape = [8, 4, 2, 4];

  for (const [name, layout] of Object.entries(LAYOUTS)) {
    it(`clipping: ${name}`, async () => {
      const values = [randn(shape), randn([3, 5]), randn([])];
      const clipped = async (change: Layout): Promise<number[][]> => {
        const parameters = values.map((value) => {
          const parameter = rand(value.shape, { requiresGrad: true });
          parameter.grad = change(value);
          return parameter;
        });
        const norm = await clipGradNorm_(parameters, 1);
        return [numbers(norm), ...parameters.map(({ grad }) => numbers(grad as Tensor))];
      };
      const expected = (await clipped((value) => value.clone())).flat();
      for (const [i, value] of (await clipped(layout)).flat().entries())
        expect(value).to.be.closeTo(expected[i] as number, 1e-6 * Math.abs(expected[i] as number));
    });

    it(`averages: ${name}`, async () => {
      const model = new Linear(16, 8, { bias: false });
      const steps = [randn([8, 16]), randn([8, 16]), randn([8, 16])];
      let expected: Tensor | undefined;
      const average = new ExponentialMovingAverage(model, { decay: 0.75 });
      for (const value of steps) {
        model.loadStateDict(new StateDict([['weight', layout(value)]]), { assign: true });
        await average.update();
        expected =
          expected === undefined ? value : (ops.call('aten::lerp.Scalar', expected, value, 0.25) as Tensor);
        expect(numbers(average.stateDict().get('weight') as Tensor)).to.deep.equal(numbers(expected));
      }
    });
  }

  it('an expanded gradient cannot be clipped: refused before any other changes', async () => {
    const [first, second] = [ones([2], { requiresGrad: true }), ones([3], { requiresGrad: true })];
    first.grad = ones([2]);
    second.grad = ones([1]).expand([3]);
    await expectRejection(
      clipGradNorm_([first, second], 0.1),
      'ERR_SENET_AUTOGRAD',
      /gradient .* is expanded/,
    );
    expect(numbers(first.grad)).to.deep.equal([1, 1]);
  });
});
