/** `compile()` of modules whose forward is TypeScript: traced once, equal to their forward, refused with the line. */
import path from 'node:path';

import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  BatchNorm2d,
  Conv2d,
  Flatten,
  Linear,
  Module,
  ReLU,
  SELayer,
  Sequential,
  Tensor,
  manualSeed,
  memory,
  noGrad,
  ops,
  randn,
  se_resnet20,
  tidy,
} from '../../lib';
import { collectGarbage } from '../support/collect';
import { expectRejection, expectThrow } from '../support/errors';
import { perturbBatchNorms, numbers, relativeError } from '../support/parity';
import { Temporary } from '../support/temporary';

class Net extends Module {
  readonly stem = new Conv2d(3, 24, 3, { padding: 1, bias: false });
  readonly bn = new BatchNorm2d(24);
  readonly wide = new Sequential(new Conv2d(24, 16, 3, { padding: 1 }), new BatchNorm2d(16), new ReLU());
  readonly narrow = new Conv2d(24, 8, 1);
  readonly se = new SELayer(24, 4);
  readonly pool = new AdaptiveAvgPool2d(1);
  readonly fc = new Linear(24, 5);
  traced = 0;

  override async forward(x: Tensor): Promise<Tensor> {
    this.traced++;
    const stem = (await this.bn.forward(await this.stem.forward(x))).relu();
    const both = Tensor.cat([await this.wide.forward(stem), await this.narrow.forward(stem)], 1);
    const out = (await this.se.forward(both)).add(stem).relu();
    return this.fc.forward((await this.pool.forward(out)).flatten(1));
  }
}

const call = (name: string, ...args: unknown[]): Tensor => ops.call(name, ...args) as Tensor;

function isPositive(x: Tensor): boolean {
  try {
    return Number(x.sum().item()) > 0;
  } catch {
    return false;
  }
}

function checkSquare(x: Tensor): Tensor {
  try {
    if (x.shape[2] === x.shape[3]) return x;
  } catch {
    // as if it were none
  }
  throw new RangeError('not square');
}

describe('compiled TypeScript forwards', () => {
  const temporary = new Temporary();
  afterEach(() => temporary.cleanUp());

  const make = <M extends Module>(net: M): M => {
    manualSeed(4);
    perturbBatchNorms(net, [0.5, 1.5]);
    return net;
  };
  const expectSame = async (net: Module, x: Tensor): Promise<void> => {
    const expected = numbers(await noGrad(() => net.eval().forward(x.clone())));
    for (const [kernels, dtype, most] of [
      [undefined, 'float32', 1e-5],
      ['libtorch', 'float32', 1e-5],
      [undefined, 'bfloat16', 2e-2],
    ] as const) {
      temporary.environment({ SENET_COMPILE_KERNELS: kernels });
      const compiled = await net.compile({ dtype });
      expect(relativeError(numbers(await compiled.forward(x)), expected), `${kernels} ${dtype}`).to.be.below(
        most,
      );
      compiled.dispose();
    }
  };

  it('the input has the channels of the module that reads it, wherever that is declared', async () => {
    class Backwards extends Module {
      readonly fc = new Linear(8, 5);
      readonly head = new Sequential(new Conv2d(16, 8, 1), new AdaptiveAvgPool2d(1), new Flatten());
      readonly left = new Conv2d(2, 8, 3, { padding: 1 });
      readonly right = new Conv2d(2, 8, 1);

      override async forward(x: Tensor): Promise<Tensor> {
        const both = Tensor.cat([await this.left.forward(x), await this.right.forward(x)], 1);
        return this.fc.forward(await this.head.forward(both));
      }
    }
    await expectSame(make(new Backwards()), randn([2, 2, 9, 7]));

    class Contradictory extends Backwards {
      readonly other = new Conv2d(3, 16, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        return (await super.forward(x)).add(await this.other.forward(x));
      }
    }
    await expectRejection(
      make(new Contradictory()).eval().compile(),
      'ERR_SENET_COMPILE',
      /'other'.*N, 3, H, W/s,
    );
  });

  it('an SE layer, a residual and a concatenation: the same numbers', async () => {
    const net = make(new Net());
    await expectSame(net, randn([3, 3, 13, 11]));
    expect(net.traced).to.equal(1 + 3);
    expect(net.training).to.equal(false);
    const compiled = await net.train().compile();
    expect(net.training).to.equal(true);
    const plan = compiled.explain([13, 11]);
    expect(plan.model).to.equal('Net');
    expect(plan.steps.map(({ name }) => name)).to.include.members(['stem', 'wide.0', 'narrow', 'fc']);
    // The sum with the residual is no step of its own.
    expect(plan.steps.filter(({ fused }) => fused.includes('residual'))).to.have.length(1);
    compiled.dispose();
    net.dispose();
  });

  it('forwards in forwards, models in models, and operators in place', async () => {
    class Inner extends Module {
      readonly conv = new Conv2d(10, 10, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.conv.forward(x);
        ops.call('aten::relu_', y);
        return y.add(x).sigmoid();
      }
    }
    class Outer extends Module {
      readonly body = new Sequential(new Conv2d(3, 10, 3), new Inner(), new ReLU());
      readonly gate = new Conv2d(10, 10, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.body.forward(x);
        const factors = await this.gate.forward(y.mean([2, 3], { keepdim: true }));
        return y.mul(factors.sigmoid());
      }
    }
    await expectSame(make(new Outer()), randn([2, 3, 9, 9]));
    class Whole extends Module {
      readonly model = se_resnet20({ numClasses: 7 });
      override forward(x: Tensor): Promise<Tensor> {
        return this.model.forward(x);
      }
    }
    await expectSame(make(new Whole()), randn([1, 3, 32, 32]));
  });

  it('arguments that say what is so without them', async () => {
    class Usual extends Module {
      readonly conv = new Conv2d(3, 16, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = (await this.conv.forward(x)).add(x.mean([2, 3], { keepdim: true }).mean(1), { alpha: 1 });
        return y;
      }
    }
    class Pools extends Module {
      readonly conv = new Conv2d(3, 16, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.conv.forward(x);
        const most = ops.call('aten::max_pool2d', y, [3], [2], 1, { dilation: 1 }) as Tensor;
        const mean = ops.call('aten::avg_pool2d', most, 2, [], 0, false, true, null) as Tensor;
        return (ops.call('aten::dropout', mean, 0.5, false) as Tensor).add(mean, { alpha: 1 });
      }
    }
    await expectRejection(make(new Usual()).compile(), 'ERR_SENET_COMPILE', /aten::mean/);
    await expectSame(make(new Pools()), randn([2, 3, 11, 9]));
  });

  it('what changes in place changes for all who read it later', async () => {
    class InPlace extends Module {
      readonly conv = new Conv2d(3, 16, 1);
      readonly flatten = new Flatten(1);
      readonly pool = new AdaptiveAvgPool2d(1);
      readonly relu = new ReLU({ inplace: true });
      readonly fc = new Linear(16, 4);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.pool.forward(await this.conv.forward(x));
        const flat = await this.flatten.forward(y);
        await this.relu.forward(y); // of which `flat` is a view
        return this.fc.forward(flat);
      }
    }
    await expectSame(make(new InPlace()), randn([2, 3, 5, 5]));
  });

  describe('what cannot be traced is refused with its line', () => {
    const cases: [string, (x: Tensor) => unknown, RegExp][] = [
      ['a branch on a value', (x) => (Number(x.sum().item()) > 0 ? x : x.relu()), /aten::sum/],
      ['numbers', (x) => x.toTypedArray() && x, /knows no numbers/],
      ['a size', (x) => x.view([x.shape[0] ?? 1, -1]), /no size/],
      ['an unknown operator', (x) => ops.call('aten::roll', x, [1], [2]) as Tensor, /aten::roll/],
      ['a tensor from elsewhere', (x) => x.add(randn([1])), /'other' does not come from/],
      ['a factor for each pixel', (x) => x.mul(x), /aten::mul.*factor for each channel/],
      ['numbers, where the forward catches it', (x) => (isPositive(x) ? x : x.relu()), /aten::sum/],
      ['a size, where the forward then throws its own', (x) => checkSquare(x), /no size/],
      ['its text', (x) => String(x) && x, /no numbers/],
      ['a pool with gaps', (x) => call('aten::max_pool2d', x, 2, 2, 0, 2), /'dilation' is not compiled/],
      ['a pool by name', (x) => call('aten::max_pool2d', x, 2, { dilation: 2 }), /'dilation'/],
      ['a divisor', (x) => call('aten::avg_pool2d', x, 2, { divisor_override: 7 }), /'divisor_override'/],
      ['a window without pixels', (x) => call('aten::max_pool2d', x, 0, 1), /'kernel_size' is 0/],
      ['a window that stands still', (x) => call('aten::avg_pool2d', x, 2, 0), /'stride' is 0/],
      ['a window all padding', (x) => call('aten::max_pool2d', x, 3, 1, 2), /'padding' is 2.* 0 to 1/],
      ['less than no padding', (x) => call('aten::avg_pool2d', x, 2, 2, -1), /'padding' is -1/],
      ['a window of 3 sides', (x) => call('aten::max_pool2d', x, [2, 2, 2]), /'kernel_size'/],
      ['means without places', (x) => call('aten::adaptive_avg_pool2d', x, []), /'output_size'/],
      ['means of one side', (x) => call('aten::adaptive_avg_pool2d', x, [3]), /'output_size'/],
      ['no means', (x) => call('aten::adaptive_avg_pool2d', x, [0, 2]), /'output_size' is 0/],
      ['means in float64', (x) => x.mean([2, 3], { dtype: 'float64' }), /'dtype' is not compiled/],
      ['a part of what is added', (x) => x.add(x, { alpha: 0.5 }), /alpha is not 1/],
    ];
    for (const [what, change, words] of cases) {
      it(what, async () => {
        class Bad extends Module {
          readonly conv = new Conv2d(3, 4, 1);
          override async forward(x: Tensor): Promise<Tensor> {
            return change(await this.conv.forward(x)) as Tensor;
          }
        }
        const net = new Bad();
        const error = await expectRejection(net.compile(), 'ERR_SENET_COMPILE', words);
        expect(error.message).to.match(/^compile: Bad: .*\(at .*compiled-typescript\.test\.ts:\d+:\d+\)$/);
        net.to({ dtype: 'float64' }); // not busy
        net.dispose();
      });
    }

    it("arguments of an operator that LibTorch does not take, as LibTorch's own refusal", async () => {
      class Bad extends Module {
        readonly conv = new Conv2d(3, 4, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          return ops.call('aten::max_pool2d', await this.conv.forward(x), 2, { dilations: 2 }) as Tensor;
        }
      }
      for (const call of [new Bad().compile(), new Bad().forward(randn([1, 3, 8, 8]))]) {
        await expectRejection(call, 'ERR_SENET_OPERATOR_ARGS', /\n {2}aten::max_pool2d.*dilation/);
      }
    });

    it('the same, where the library was loaded again and its other copy makes the errors', async () => {
      require(path.join(__dirname, '..', '..', 'dist'));
      class Bad extends Module {
        readonly conv = new Conv2d(3, 4, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          return ops.call('aten::roll', await this.conv.forward(x), [1], [2]) as Tensor;
        }
      }
      const error = await expectRejection(new Bad().compile(), 'ERR_SENET_COMPILE', /Bad/);
      expect(error.message).to.match(/aten::roll.*\(at .*compiled-typescript\.test\.ts:\d+:\d+\)$/);
    });

    it('what is no tensor, errors of its own, and parts that do not fit', async () => {
      class Pair extends Module {
        readonly conv = new Conv2d(3, 4, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          return [await this.conv.forward(x)] as unknown as Tensor;
        }
      }
      await expectRejection(
        new Pair().compile(),
        'ERR_SENET_COMPILE',
        /expected its forward to give one Tensor that comes from its input, got an array of length 1 \(at .*compiled-typescript\.test\.ts:\d+:\d+\)$/,
      );
      class Failing extends Pair {
        override forward(): Promise<Tensor> {
          return Promise.reject(new RangeError('mine'));
        }
      }
      const failed = await new Failing().compile().catch((error: unknown) => error);
      expect(failed).to.be.instanceOf(RangeError).with.property('message', 'mine');
      class Misfit extends Module {
        readonly a = new Conv2d(3, 4, 1);
        readonly b = new Conv2d(5, 4, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          return this.b.forward(await this.a.forward(x));
        }
      }
      await expectRejection(new Misfit().compile(), 'ERR_SENET_SHAPE', /Misfit.*5/);
      class Empty extends Module {
        override forward(x: Tensor): Promise<Tensor> {
          return Promise.resolve(x);
        }
      }
      await expectRejection(
        new Empty().compile(),
        'ERR_SENET_COMPILE',
        /compile: Empty cannot be compiled: none of its parts says how many channels/,
      );
    });

    it('forward hooks, on it or on a part of it', async () => {
      const net = new Net();
      const handle = net.registerForwardHook(() => undefined);
      await expectRejection(net.compile(), 'ERR_SENET_TS_FORWARD', /hooks/);
      handle.remove();
      net.se.registerForwardHook(() => undefined);
      await expectRejection(net.compile(), 'ERR_SENET_TS_FORWARD', /SELayer \('se'\) has forward hooks/);
      net.dispose();
      await expectRejection(net.compile(), 'ERR_SENET_DISPOSED');
    });
  });

  it('a traced value that is kept is of no use afterwards, inside another forward too', async () => {
    let kept: Tensor | undefined;
    class Keeping extends Module {
      readonly conv = new Conv2d(3, 4, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.conv.forward(x);
        if (kept === undefined) kept = y;
        else kept.add(kept);
        return y;
      }
    }
    const net = new Keeping();
    (await net.compile()).dispose();
    expectThrow(() => kept?.relu(), 'ERR_SENET_DISPOSED');
    expectThrow(() => kept?.toTypedArray(), 'ERR_SENET_DISPOSED');
    await expectRejection(net.compile(), 'ERR_SENET_COMPILE', /none of its tensors comes from/);
  });

  it('a pooled image that several read, as image and as vector', async () => {
    class Forked extends Module {
      readonly conv = new Conv2d(3, 16, 1);
      readonly pool = new AdaptiveAvgPool2d(1);
      readonly again = new AdaptiveAvgPool2d(1);
      readonly gate = new Conv2d(16, 16, 1);
      readonly fc = new Linear(16, 16);
      override async forward(x: Tensor): Promise<Tensor> {
        const y = await this.conv.forward(x);
        const pooled = await this.pool.forward(y);
        const scaled = y.mul((await this.gate.forward(pooled)).sigmoid());
        const flat = await this.fc.forward((await this.again.forward(pooled)).flatten(1));
        return (await this.again.forward(scaled)).flatten(1).add(flat);
      }
    }
    await expectSame(make(new Forked()), randn([3, 3, 7, 6]));
  });

  it('aborts, keeps nothing, and lets other forwards run meanwhile', async () => {
    const net = make(new Net());
    const x = randn([1, 3, 8, 8]);
    const expected = numbers(await net.eval().forward(x));
    await collectGarbage();
    const before = memory().tensors;
    await expectRejection(net.compile({ signal: AbortSignal.abort() }), 'ERR_SENET_ABORTED');
    const [compiled, eager] = await Promise.all([net.compile(), tidy(() => noGrad(() => net.forward(x)))]);
    expect(numbers(eager)).to.deep.equal(expected);
    eager.dispose();
    compiled.dispose();
    expect(memory().tensors).to.equal(before);
    net.dispose();
    expectThrow(() => net.stem.weight.shape, 'ERR_SENET_DISPOSED');
  });
});
