/** `tidy`, `noGrad`, `autocast` and `memory`: which tensors live on, also when scopes overlap in time. */
import { setImmediate, setTimeout } from 'node:timers/promises';

import { expect } from 'chai';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SELayer } from '../../lib/nn/se-layer';
import { ones, rand, tensor, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { autocast, noGrad, tidy } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';

const wrong = (value: unknown): never => value as never;

function isDisposed(made: Tensor | null | undefined): boolean {
  try {
    return made?.shape === undefined;
  } catch {
    return true;
  }
}

describe('tidy', () => {
  it('a result that cannot be looked through keeps nothing', async () => {
    const made: Tensor[] = [];
    const result = (): object => ({
      first: made[made.push(ones([1])) - 1],
      get second(): never {
        throw new RangeError('no second');
      },
    });
    expect(() => tidy(result)).to.throw(RangeError, 'no second');
    const rejected = await tidy(() => Promise.resolve(result())).catch((error: unknown) => error);
    expect(rejected).to.be.instanceOf(RangeError);
    expect(made.map(isDisposed)).to.deep.equal([true, true]);
  });

  it('disposes what was made inside and keeps what is returned, and what was there before', () => {
    const outside = ones([2]);
    const made: Tensor[] = [];
    const result = tidy(() => {
      const first = outside.add(1);
      const second = first.mul(first);
      made.push(first, second);
      return second;
    });
    expect(made.map(isDisposed)).to.deep.equal([true, false]);
    expect(result.toArray()).to.deep.equal([4, 4]);
    expect(isDisposed(outside)).to.equal(false);
    expect(tidy(() => 7)).to.equal(7);
    expect(tidy(() => null)).to.equal(null);
  });

  it('keeps tensors in arrays, Maps, Sets and objects, however deep and even in circles', () => {
    const made = Array.from({ length: 6 }, () => zeros([1]));
    made.forEach((one) => one.dispose());
    const shapes: [string, (all: Tensor[]) => unknown][] = [
      ['array', (all) => all],
      ['nested', (all) => [[all[0]], { more: { and: all[1] } }, all.slice(2)]],
      [
        'Map',
        (all) =>
          new Map<unknown, unknown>(all.map((one, index) => (index % 2 === 0 ? [index, one] : [one, index]))),
      ],
      ['Set', (all) => new Set(all)],
      ['no prototype', (all) => Object.assign(Object.create(null) as object, all)],
      [
        'circle',
        (all) => {
          const circle: Record<string, unknown> = { all };
          circle.self = circle;
          return circle;
        },
      ],
    ];
    for (const [name, wrap] of shapes) {
      let all: Tensor[] = [];
      let dropped: Tensor | undefined;
      tidy(() => {
        all = [zeros([1]), zeros([1]), zeros([1])];
        dropped = zeros([1]);
        return wrap(all);
      });
      expect(all.map(isDisposed), name).to.deep.equal([false, false, false]);
      expect(isDisposed(dropped), name).to.equal(true);
    }
  });

  it('nested scopes: what the inner returns belongs to the outer', () => {
    let inner: Tensor | undefined;
    let kept: Tensor | undefined;
    const count = memory().tensors;
    const result = tidy(() => {
      inner = tidy(() => ones([1]).add(1));
      expect(isDisposed(inner)).to.equal(false);
      kept = tidy(() => inner?.add(1));
      return kept;
    });
    expect([isDisposed(inner), isDisposed(kept)]).to.deep.equal([true, false]);
    expect(result?.item()).to.equal(3);
    expect(memory().tensors).to.equal(count + 1);
  });

  it('disposes when the function throws or rejects, and passes the error on', async () => {
    let made: Tensor | undefined;
    const error = new Error('on purpose');
    expect(() =>
      tidy(() => {
        made = ones([1]);
        throw error;
      }),
    ).to.throw(error);
    expect(isDisposed(made)).to.equal(true);
    made = undefined;
    const rejected = await tidy(async () => {
      made = ones([1]);
      await setImmediate();
      throw error;
    }).catch((caught: unknown) => caught);
    expect(rejected).to.equal(error);
    expect(isDisposed(made)).to.equal(true);
    for (const bad of [undefined, null, 3, 'fn', {}]) {
      expectThrow(() => tidy(wrong(bad)), 'ERR_SENET_ARG_TYPE', /function/);
      expectThrow(() => noGrad(wrong(bad)), 'ERR_SENET_ARG_TYPE', /function/);
    }
  });

  it('concurrent async scopes never see the tensors of each other', async () => {
    const layer = new SELayer(16).eval();
    const x = rand([1, 16, 4, 4]);
    const dropped: Tensor[] = [];
    const loose = ones([1]);
    const runs = Array.from({ length: 8 }, (_, index) =>
      tidy(async () => {
        const mine = x.add(index);
        dropped.push(mine);
        await setTimeout((index * 3) % 7);
        const output = await layer.forward(mine); // submitted in this scope, settled whenever
        expect(isDisposed(mine)).to.equal(false);
        dropped.push(output);
        await setImmediate();
        return output.mean();
      }),
    );
    const outside = loose.add(1); // made while the scopes are open, in none of them
    const means = await Promise.all(runs);
    expect(dropped.every(isDisposed)).to.equal(true);
    expect(means.map(isDisposed)).to.deep.equal(means.map(() => false));
    expect(isDisposed(outside)).to.equal(false);
    for (const [index, mean] of means.entries()) {
      const expected = tidy(() => layer.forwardSync(x.add(index)).mean().item());
      expect(mean.item()).to.be.closeTo(Number(expected), 1e-5);
    }
  });

  it('what a job gives after its scope has ended is not disposed under its user', async () => {
    let job: Promise<Tensor> | undefined;
    tidy(() => {
      job = ops.callAsync('aten::relu', tensor([-1, 2])) as Promise<Tensor>;
    });
    expect((await job)?.toArray()).to.deep.equal([0, 2]);
  });

  it('parameters, buffers and gradients are never disposed', async () => {
    const layer = tidy(() => {
      const made = new SELayer(16);
      made.parameters();
      return made;
    });
    tidy(() => layer.parameters().length);
    const x = rand([1, 16, 2, 2]);
    await tidy(async () => {
      const loss = (await layer.forward(x)).sum();
      await loss.backward();
      for (const parameter of layer.parameters()) expect(parameter.grad).not.to.equal(null);
    });
    const first = layer.parameters()[0];
    expect(isDisposed(first)).to.equal(false);
    const gradient = tidy(() => ({ unrelated: 1, shape: first?.grad?.shape }));
    expect(gradient.shape).to.deep.equal([1, 16]);
    let grad: Tensor | null | undefined;
    tidy(() => {
      grad = first?.grad;
    });
    expect(isDisposed(grad)).to.equal(false);
  });

  it('a kept tensor disposed inside stays disposed, and disposing twice does no harm', () => {
    const result = tidy(() => {
      const one = ones([1]);
      one.dispose();
      return one;
    });
    expect(isDisposed(result)).to.equal(true);
  });

  it('leaves no tensors behind in a loop', () => {
    const x = ones([10]);
    const count = memory().tensors;
    for (let i = 0; i < 100; i++) tidy(() => x.add(1).mul(2).sum().item());
    expect(memory().tensors).to.equal(count);
  });
});

describe('noGrad', () => {
  const weight = ones([2], { requiresGrad: true });

  it('records nothing inside and everything outside', () => {
    expect(noGrad(() => weight.mul(2)).requiresGrad).to.equal(false);
    expect(weight.mul(2).requiresGrad).to.equal(true);
    expect(() =>
      noGrad(() => {
        throw new Error('on purpose');
      }),
    ).to.throw('on purpose');
    expect(weight.mul(2).requiresGrad).to.equal(true);
    expect(noGrad(() => ones([1], { requiresGrad: true })).requiresGrad).to.equal(true);
  });

  it('holds through awaits, and only there', async () => {
    const inside = noGrad(async () => {
      await setImmediate();
      const job = (await ops.callAsync('aten::mul.Tensor', weight, weight)) as Tensor;
      return [weight.mul(2).requiresGrad, job.requiresGrad];
    });
    const recorded = (await ops.callAsync('aten::mul.Tensor', weight, weight)) as Tensor;
    expect(recorded.requiresGrad).to.equal(true);
    expect(weight.mul(2).requiresGrad).to.equal(true);
    expect(await inside).to.deep.equal([false, false]);
  });

  it('and tidy nest either way', () => {
    let lost: Tensor | undefined;
    const kept = tidy(() =>
      noGrad(() => {
        lost = weight.mul(2);
        return weight.mul(3);
      }),
    );
    expect([isDisposed(lost), isDisposed(kept), kept.requiresGrad]).to.deep.equal([true, false, false]);
    const other = noGrad(() => tidy(() => weight.mul(2).add(1)));
    expect([isDisposed(other), other.requiresGrad]).to.deep.equal([false, false]);
  });

  it('a training module records unless it is called in noGrad or told otherwise', async () => {
    const layer = new SELayer(16);
    const x = rand([1, 16, 2, 2]);
    expect((await layer.forward(x)).requiresGrad).to.equal(true);
    expect((await noGrad(() => layer.forward(x))).requiresGrad).to.equal(false);
    expect((await layer.forward(x, { grad: false })).requiresGrad).to.equal(false);
    expect((await layer.eval().forward(x)).requiresGrad).to.equal(false);
    const asked = await layer.forward(x, { grad: true });
    expect(asked.requiresGrad).to.equal(true);
    await asked.sum().backward();
    await expectRejection((await layer.forward(x)).sum().backward(), 'ERR_SENET_AUTOGRAD');
  });
});

describe('autocast', () => {
  const a = (): Tensor => rand([4, 4]);

  it('computes products in bfloat16 inside, and in float32 outside and where it is switched off', async () => {
    expect(autocast(() => a().matmul(a())).dtype).to.equal('bfloat16');
    expect(a().matmul(a()).dtype).to.equal('float32');
    expect(autocast(() => autocast(() => a().matmul(a()), { enabled: false })).dtype).to.equal('float32');
    // What needs the range stays wide.
    expect(autocast(() => a().matmul(a()).sum()).dtype).to.be.oneOf(['float32', 'bfloat16']);
    expect(((await autocast(() => ops.callAsync('aten::matmul', a(), a()))) as Tensor).dtype).to.equal(
      'bfloat16',
    );
  });

  it('holds through awaits, beside other scopes, and ends with an error', async () => {
    const model = se_resnet20().eval();
    const x = rand([1, 3, 32, 32]);
    const [inside, outside] = await Promise.all([
      autocast(async () => {
        await model.forward(x);
        return (await model.forward(x)).dtype;
      }),
      model.forward(x).then(({ dtype }) => dtype),
    ]);
    expect([inside, outside]).to.deep.equal(['bfloat16', 'float32']);
    expect(() =>
      autocast(() => {
        throw new Error('inner');
      }),
    ).to.throw('inner');
    expect(a().matmul(a()).dtype).to.equal('float32');
    expect(autocast(() => tidy(() => noGrad(() => a().matmul(a())))).dtype).to.equal('bfloat16');
    expect(noGrad(() => autocast(() => zeros([1], { requiresGrad: true }).mul(2))).requiresGrad).to.equal(
      false,
    );
  });

  it('uses the weights of now: none that were converted before they changed', async () => {
    const weight = rand([4, 4], { requiresGrad: true });
    const x = rand([4, 4]);
    const first = autocast(() => x.matmul(weight));
    noGrad(() => weight.fill_(0));
    const second = autocast(() => x.matmul(weight));
    expect(first.sum().item()).to.be.above(0);
    expect(second.sum().item()).to.equal(0);
    await second.sum().backward();
    expect(weight.grad?.dtype).to.equal('float32');
  });

  it('computes in float16 where that is asked for', async () => {
    const half = { dtype: 'float16' } as const;
    const a = zeros([2, 2]);
    expect(autocast(() => a.matmul(a), half).dtype).to.equal('float16');
    expect(autocast(() => autocast(() => a.matmul(a), half)).dtype).to.equal('float16');
    expect(autocast(() => autocast(() => a.matmul(a)), half).dtype).to.equal('bfloat16');
    expect(((await autocast(() => ops.callAsync('aten::matmul', a, a), half)) as Tensor).dtype).to.equal(
      'float16',
    );
    expect(autocast(() => tidy(() => noGrad(() => a.matmul(a))), half).dtype).to.equal('float16');
  });

  for (const dtype of ['bfloat16', 'float16'] as const) {
    it(`networks compute in ${dtype}, and their weights have gradients in float32`, async () => {
      const model = se_resnet20();
      const x = rand([2, 3, 32, 32]);
      const expected = await model.forward(x);
      const logits = await autocast(() => model.forward(x), { dtype });
      expect(logits.dtype).to.equal(dtype);
      const error = Number(logits.to('float32').sub(expected).norm().item());
      expect(error / Number(expected.norm().item())).to.be.below(dtype === 'float16' ? 0.01 : 0.08);
      await logits.sum().backward();
      expect(model.parameters().map(({ grad }) => grad?.dtype)).to.deep.equal(
        model.parameters().map(() => 'float32'),
      );
      const other = dtype === 'float16' ? 'bfloat16' : 'float16';
      await expectRejection(
        autocast(() => model.forward(x.to(other)), { dtype }),
        'ERR_SENET_DTYPE',
        new RegExp(other),
      );
    });
  }

  it('refuses what is no function and options it does not have', () => {
    expectThrow(() => autocast(1 as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => autocast(() => 1, { type: 'float16' } as never), 'ERR_SENET_UNKNOWN_OPTION', /enabled/);
    expectThrow(() => autocast(() => 1, { dtype: 'float32' as never }), 'ERR_SENET_ARG_RANGE', /float16/);
    expectThrow(() => autocast(() => 1, { enabled: 1 as never }), 'ERR_SENET_ARG_TYPE');
  });
});
