/** Networks of a user's own: how children are found, mixed trees, modes, jobs, dispose, and what is refused. */
import path from 'node:path';
import { Worker } from 'node:worker_threads';

import { expect } from 'chai';

import type { CifarSEResNet } from '../../lib/models/cifar-se-resnet';
import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SEBasicBlock } from '../../lib/models/residual-blocks';
import { ModuleList, Sequential } from '../../lib/nn/containers';
import { BatchNorm2d, Conv2d, Dropout, Linear, ReLU } from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { cuda } from '../../lib/tensor/cuda';
import { full, ones, rand, randn, zeros } from '../../lib/tensor/factories';
import { manualSeed, memory } from '../../lib/tensor/runtime';
import { autocast, noGrad, tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { whileOccupied } from '../support/occupy';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers, relativeError } from '../support/parity';

const wrong = (value: unknown): never => value as never;

/** A promise and the function that resolves it. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

class Inner extends Module {
  conv = new Conv2d(4, 4, 1);
  scale = this.registerParameter('scale', ones([1]));
  offset = this.registerBuffer('offset', zeros([1]));

  override async forward(x: Tensor): Promise<Tensor> {
    return (await this.conv.forward(x)).mul(this.scale).add(this.offset);
  }
}

class Net extends Module {
  first = new Conv2d(3, 4, 3, { padding: 1, bias: false });
  bn = new BatchNorm2d(4);
  inner = new Inner();
  se = new SELayer(4, 2);
  note = 'no module';
  array = [new ReLU()];

  override async forward(x: Tensor): Promise<Tensor> {
    const y = await this.bn.forward(await this.first.forward(x));
    return this.se.forward(await this.inner.forward(y));
  }
}

/** Waits between its two layers until it is told to go on. */
class Pausing extends Module {
  readonly first: Linear;
  readonly second: Linear;
  readonly entered = gate();
  readonly released = gate();

  constructor(width = 2) {
    super();
    this.first = new Linear(width, width);
    this.second = new Linear(width, width);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const y = await this.first.forward(x);
    this.entered.open();
    await this.released.opened;
    return this.second.forward(y);
  }
}

const input = (): Tensor => rand([2, 3, 5, 5]);

describe('user modules: the tree', function () {
  this.timeout(20_000);

  it('children are fields in the order of declaration; own parameters come first', () => {
    const net = new Net();
    expect(net.namedChildren().map(([name]) => name)).to.deep.equal(['first', 'bn', 'inner', 'se']);
    expect(net.namedModules().map(([at]) => at)).to.deep.equal([
      '',
      'first',
      'bn',
      'inner',
      'inner.conv',
      'se',
      'se.avg_pool',
      'se.fc',
      'se.fc.0',
      'se.fc.1',
      'se.fc.2',
      'se.fc.3',
    ]);
    expect([...net.stateDict().keys()]).to.deep.equal([
      'first.weight',
      'bn.weight',
      'bn.bias',
      'bn.running_mean',
      'bn.running_var',
      'bn.num_batches_tracked',
      'inner.scale',
      'inner.offset',
      'inner.conv.weight',
      'inner.conv.bias',
      'se.fc.0.weight',
      'se.fc.2.weight',
    ]);
    expect(net.namedBuffers().map(([name]) => name)).to.deep.equal([
      'bn.running_mean',
      'bn.running_var',
      'bn.num_batches_tracked',
      'inner.offset',
    ]);
    expect(net.stateDict().metadata.get('bn')).to.deep.equal({ version: 2 });
    expect(net.stateDict().metadata.get('inner')).to.deep.equal({ version: 1 });
    expect(net.getSubmodule('inner.conv')).to.equal(net.inner.conv);
    expect(net.getSubmodule('se.fc.0')).to.equal(net.se.fc.at(0));
    expect(net.parameters()[0]).to.equal(net.first.weight);
    expect(net.parameters()[0]).to.equal(net.parameters()[0]);
    for (const bad of ['array', 'array.0', 'note', 'inner.', 'inner.scale', 'constructor'])
      expectThrow(() => net.getSubmodule(bad), 'ERR_SENET_ARG_RANGE');
  });

  it('a field that is given another module later is the child from then on', () => {
    const net = new Net();
    const old = net.inner;
    net.parameters();
    net.inner = new Inner();
    expect(net.getSubmodule('inner')).to.equal(net.inner);
    // The old one is free: it can stand elsewhere.
    const list = new ModuleList([old]);
    expect(list.at(0)).to.equal(old);
    expect(net.namedModules().some(([, one]) => one === old)).to.equal(false);
  });

  it('calls no getter and takes no private or hidden field', () => {
    let called = 0;
    class Tricky extends Module {
      readonly #hidden = new Linear(1, 1);
      shown = new Linear(1, 2);
      constructor() {
        super();
        Object.defineProperty(this, 'computed', {
          enumerable: true,
          get: () => {
            called++;
            this.parameters(); // re-entrant, were it called
            return new Linear(1, 3);
          },
        });
        Object.defineProperty(this, 'secret', { enumerable: false, value: new Linear(1, 4) });
      }
      override async forward(x: Tensor): Promise<Tensor> {
        return this.#hidden.forward(x);
      }
    }
    const module = new Tricky();
    expect(module.namedChildren().map(([name]) => name)).to.deep.equal(['shown']);
    expect(called).to.equal(0);
  });

  it('one module in two places, or inside itself, is refused, and the message says where', async () => {
    const relu = new ReLU();
    class Twice extends Module {
      first = relu;
      second = relu;
    }
    expectThrow(() => new Twice().parameters(), 'ERR_SENET_MODULE_TREE', /'second' of Twice.*twice|twice/);
    class Loop extends Module {
      down: Module = new Linear(1, 1);
    }
    const loop = new Loop();
    loop.down = loop;
    expectThrow(() => loop.parameters(), 'ERR_SENET_MODULE_TREE', /part of itself/);
    const [outer, inner] = [new Loop(), new Loop()];
    outer.down = inner;
    inner.down = outer;
    expectThrow(() => outer.namedModules(), 'ERR_SENET_MODULE_TREE', /part of itself/);
    const owner = new Loop();
    owner.parameters();
    const thief = new Loop();
    thief.down = owner.down;
    expectThrow(() => thief.stateDict(), 'ERR_SENET_MODULE_TREE', /'down' of Loop already/);
    // A part of a native module, and a module that a Sequential took.
    const model = se_resnet20({ initWeights: false });
    class Borrower extends Module {
      fc = model.fc;
    }
    expectThrow(() => new Borrower().parameters(), 'ERR_SENET_MODULE_TREE', /'fc' of CifarSEResNet already/);
    const conv = new Conv2d(1, 1, 1);
    const sequence = new Sequential(conv);
    expectThrow(() => new Sequential(conv), 'ERR_SENET_MODULE_TREE', /'0' of Sequential already/);
    expectThrow(() => new Sequential(relu, relu), 'ERR_SENET_MODULE_TREE', /twice/);
    expectThrow(
      () => new SEBasicBlock(1, 1, 1, sequence.at(0), 1, 64, 1, null, { reduction: 1 }),
      'ERR_SENET_MODULE_TREE',
    );
    // What was refused is whole.
    expect((await sequence.forward(rand([1, 1, 2, 2]))).shape).to.deep.equal([1, 1, 2, 2]);
    expect((await new Sequential(relu).forward(zeros([1]))).shape).to.deep.equal([1]);
  });

  it('names with dots are refused, as in PyTorch', () => {
    class Dotted extends Module {
      'a.b' = new ReLU();
    }
    expectThrow(() => new Dotted().parameters(), 'ERR_SENET_ARG_RANGE', /'a\.b'/);
    const net = new Net();
    expectThrow(() => net.registerParameter('a.b', ones([1])), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => net.registerBuffer('', ones([1])), 'ERR_SENET_ARG_RANGE');
  });

  it('registered parameters and buffers: leaves that share memory, outside every tidy', async () => {
    const data = ones([2]);
    class Own extends Module {
      weight = this.registerParameter('weight', data);
      counter = this.registerBuffer('counter', zeros([1], { dtype: 'int64' }));
      cache = this.registerBuffer('cache', zeros([1]), { persistent: false });
      override async forward(x: Tensor): Promise<Tensor> {
        return Promise.resolve(x.mul(this.weight));
      }
    }
    const own = tidy(() => new Own() as unknown as { keep: Own }) as unknown as Own;
    expect(own.weight.requiresGrad).to.equal(true);
    data.fill_(3);
    expect(numbers(own.weight)).to.deep.equal([3, 3]);
    const frozen = new Own();
    expect(tidy(() => new Own().weight.shape)).to.deep.equal([2]);
    expect([...own.stateDict().keys()]).to.deep.equal(['weight', 'counter']);
    expect(own.namedBuffers().map(([name]) => name)).to.deep.equal(['counter', 'cache']);
    await (await own.forward(ones([2]))).sum().backward();
    expect(numbers(own.weight.grad as Tensor)).to.deep.equal([1, 1]);
    own.to('float64');
    expect([own.weight.dtype, own.counter.dtype, own.cache.dtype]).to.deep.equal([
      'float64',
      'int64',
      'float64',
    ]);
    expect(own.weight.grad?.dtype).to.equal('float64');
    frozen.requiresGrad_(false);
    expect((await frozen.forward(ones([2]))).requiresGrad).to.equal(false);
    expectThrow(() => own.registerParameter('weight', ones([1])), 'ERR_SENET_ARG_RANGE', /'weight' already/);
    expectThrow(() => own.registerBuffer('weight', ones([1])), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => own.registerParameter('n', zeros([1], { dtype: 'int64' })), 'ERR_SENET_DTYPE', /int64/);
    expectThrow(() => own.registerParameter('n', wrong([1])), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => own.registerParameter(wrong(3), ones([1])), 'ERR_SENET_ARG_TYPE');
    expectThrow(
      () => own.registerBuffer('n', ones([1]), wrong({ persistant: true })),
      'ERR_SENET_UNKNOWN_OPTION',
      /'persistent'/,
    );
    expectThrow(() => new Net().registerBuffer('bn', ones([1])), 'ERR_SENET_ARG_RANGE', /'bn' already/);
  });

  it('a subclass of a native module may have fields and a forward of its own', async () => {
    class Wrapped extends SELayer {
      extra = new Conv2d(4, 4, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        return this.extra.forward(await super.forward(x));
      }
    }
    const module = new Wrapped(4, 2);
    expect([...module.stateDict().keys()]).to.deep.equal([
      'fc.0.weight',
      'fc.2.weight',
      'extra.weight',
      'extra.bias',
    ]);
    module.eval();
    expect(module.namedModules().some(([, one]) => one.training)).to.equal(false);
    const x = rand([1, 4, 3, 3]);
    const plain = new SELayer(4, 2).eval();
    plain.loadStateDict(new Map([...module.stateDict()].filter(([key]) => key.startsWith('fc'))));
    const expected = await module.extra.forward(await plain.forward(x));
    expect(numbers(await module.forward(x))).to.deep.equal(numbers(expected));
    const compiled = await module.compile();
    expect(relativeError(numbers(await compiled.forward(x)), numbers(expected))).to.be.below(1e-5);
    // Not silently without its forward.
    expect(new Sequential(new Wrapped(4, 2)).namedChildren()).to.have.length(1);
    expectThrow(
      () => new SEBasicBlock(4, 4, 1, new Wrapped(4, 2), 1, 64, 1, null, { reduction: 2 }),
      'ERR_SENET_TS_FORWARD',
      /Wrapped|SELayer/,
    );
    class Shadow extends SELayer {
      constructor() {
        super(4, 2);
        Object.defineProperty(this, 'fc', { enumerable: true, value: new Linear(4, 4) });
      }
    }
    expectThrow(() => new Shadow().parameters(), 'ERR_SENET_MODULE_TREE', /'fc' of Shadow.*replaceModule/);
  });
});

describe('user modules: forward, modes and gradients', function () {
  this.timeout(20_000);

  it("records in training mode and not in evaluation mode; the outermost module's mode decides", async () => {
    const net = new Net();
    expect((await net.forward(input())).requiresGrad).to.equal(true);
    net.bn.eval(); // statistics frozen, gradients wanted
    await (await net.forward(input())).sum().backward();
    expect(net.first.weight.grad).not.to.equal(null);
    expect(net.bn.weight.grad).not.to.equal(null);
    net.eval();
    expect((await net.forward(input())).requiresGrad).to.equal(false);
    net.inner.train();
    expect((await net.forward(input())).requiresGrad).to.equal(false);
    expect((await net.inner.forward(rand([1, 4, 2, 2]))).requiresGrad).to.equal(true);
    expect((await (net as Module).forward(input(), { grad: true })).requiresGrad).to.equal(true);
    net.train();
    expect((await (net as Module).forward(input(), { grad: false })).requiresGrad).to.equal(false);
    expect((await noGrad(() => net.forward(input()))).requiresGrad).to.equal(false);
  });

  it('train and eval reach every descendant, through overridden methods', () => {
    class Frozen extends Net {
      override train(mode = true): this {
        super.train(mode);
        this.bn.eval();
        return this;
      }
    }
    class Outer extends Module {
      frozen = new Frozen();
    }
    const outer = new Outer().train();
    expect(outer.frozen.bn.training).to.equal(false);
    expect(outer.frozen.first.training).to.equal(true);
    outer.eval();
    expect(outer.namedModules().some(([, one]) => one.training)).to.equal(false);
    outer.train();
    expect(outer.namedModules().filter(([, one]) => !one.training)).to.have.length(1);
    for (const mode of [1, 'true', null]) expectThrow(() => outer.train(wrong(mode)), 'ERR_SENET_ARG_TYPE');
  });

  it('freezing: no gradient for frozen parameters, no graph where all are frozen', async () => {
    const net = new Net();
    net.first.requiresGrad_(false);
    net.bn.requiresGrad_(false);
    expect((await net.bn.forward(await net.first.forward(input()))).requiresGrad).to.equal(false);
    await (await net.forward(input())).sum().backward();
    const withGradient = net.namedParameters().filter(([, one]) => one.grad !== null);
    expect(withGradient.map(([name]) => name)).to.deep.equal([
      'inner.scale',
      'inner.conv.weight',
      'inner.conv.bias',
      'se.fc.0.weight',
      'se.fc.2.weight',
    ]);
    net.requiresGrad_(false);
    expect((await net.forward(input())).requiresGrad).to.equal(false);
    expect(
      net
        .requiresGrad_()
        .parameters()
        .every((one) => one.requiresGrad),
    ).to.equal(true);
    expectThrow(() => net.requiresGrad_(wrong(0)), 'ERR_SENET_ARG_TYPE');
    net.zeroGrad();
    expect(net.parameters().every((one) => one.grad === null)).to.equal(true);

    // In a native model: the head alone.
    const model = se_resnet20({ numClasses: 3 });
    model.requiresGrad_(false);
    model.fc.requiresGrad_(true);
    expect((await model.layer1.forward(rand([2, 16, 8, 8]))).requiresGrad).to.equal(false);
    await (await model.forward(rand([2, 3, 32, 32]))).sum().backward();
    expect(model.namedParameters().flatMap(([name, one]) => (one.grad === null ? [] : [name]))).to.deep.equal(
      ['fc.weight', 'fc.bias'],
    );
  });

  it('runs in mixed precision: its layers meet bfloat16, its parameters and gradients stay float32', async () => {
    manualSeed(5);
    const net = new Net();
    const x = input();
    const expected = numbers(await net.eval().forward(x));
    const mixed = await autocast(() => net.forward(x));
    const norm = Math.hypot(...expected);
    const error = Math.hypot(
      ...numbers(mixed.to('float32')).map((one, index) => one - (expected[index] ?? 0)),
    );
    expect(error / norm).to.be.within(1e-6, 3e-2);
    const trained = await autocast(() => net.train().forward(x));
    await trained.sum().backward();
    expect(net.parameters().every((one) => one.grad?.dtype === 'float32')).to.equal(true);
    await expectRejection(net.bn.forward(rand([1, 4, 2, 2], { dtype: 'bfloat16' })), 'ERR_SENET_DTYPE');
    const wide = rand([1, 4, 2, 2], { dtype: 'float64' });
    await expectRejection(
      autocast(() => net.bn.forward(wide)),
      'ERR_SENET_DTYPE',
    );
  });

  it('forwardSync is a coded error, and so is what cannot be compiled; native parts compile', async () => {
    const net = new Net().eval();
    const x = input();
    expectThrow(() => net.forwardSync(x), 'ERR_SENET_TS_FORWARD', /forwardSync.*Net.*TypeScript/);
    // A product with a parameter of its own is none of the operations that compile.
    await expectRejection(net.compile(), 'ERR_SENET_COMPILE', /Net: .*aten::mul.*user-modules\.test\.ts:\d+/);
    const compiled = await net.first.compile();
    const expected = numbers(await net.first.forward(x));
    numbers(await compiled.forward(x)).forEach((value, index) =>
      expect(value).to.be.closeTo(expected[index] as number, 1e-5),
    );
    expect(numbers(net.first.forwardSync(x))).to.deep.equal(expected);
  });

  it('a class without forward, a forward that throws, and one that gives no promise', async () => {
    class Nothing extends Module {}
    await expectRejection(new Nothing().forward(input()), 'ERR_SENET_ARG_MISSING', /Nothing.*no forward/);
    class Throwing extends Module {
      override forward(): Promise<Tensor> {
        throw new RangeError('on purpose');
      }
    }
    let error: unknown;
    await new Throwing().forward().catch((reason: unknown) => (error = reason));
    expect(error).to.be.instanceOf(RangeError);
    class Plain extends Module {
      override forward(x: Tensor): Promise<Tensor> {
        return wrong(x);
      }
    }
    const x = zeros([1]);
    expect(await new Plain().forward(x)).to.equal(x);
    class Two extends Module<Tensor[]> {
      override async forward(left: Tensor, right: Tensor): Promise<Tensor[]> {
        return Promise.resolve([right, left]);
      }
    }
    const y = zeros([1]);
    expect(await new Two().forward(x, y)).to.deep.equal([y, x]);
    expect(await (new Two() as Module<unknown>).forward(x, y)).to.deep.equal([y, x]);
  });

  it('constructors keep their own arguments', () => {
    class Sized extends Module {
      layer: Linear;
      constructor(readonly width: number) {
        super(width);
        this.layer = new Linear(width, width);
      }
    }
    expect(new Sized(7).layer.inFeatures).to.equal(7);
    const Implicit = class extends Module {} as unknown as new (...args: unknown[]) => Module;
    expect(new Implicit({ handle: {} }, 5).parameters()).to.deep.equal([]);
  });

  it('an aborted forward rejects at once', async () => {
    const net = new Pausing() as Pausing & Module;
    const reason = { why: 'on purpose' };
    const x = rand([1, 2]);
    const early = await expectRejection(
      (net as Module).forward(x, { signal: AbortSignal.abort(reason) }),
      'ERR_SENET_ABORTED',
    );
    expect([early.name, early.cause]).to.deep.equal(['AbortError', reason]);
    const controller = new AbortController();
    const running = expectRejection(
      (net as Module).forward(x, { signal: controller.signal }),
      'ERR_SENET_ABORTED',
    );
    await net.entered.opened;
    controller.abort(reason);
    expect((await running).cause).to.equal(reason);
    net.released.open();
    expect((await (net as Module).forward(x, { signal: new AbortController().signal })).shape).to.deep.equal([
      1, 2,
    ]);
  });

  it('runs concurrently with itself', async () => {
    manualSeed(1);
    const net = new Net().eval();
    const inputs = Array.from({ length: 6 }, input);
    const alone: number[][] = [];
    for (const x of inputs) alone.push(numbers(await net.forward(x)));
    const together = await Promise.all(inputs.map((x) => net.forward(x)));
    expect(together.map(numbers)).to.deep.equal(alone);
  });
});

describe('user modules: to, loadStateDict, dispose', function () {
  this.timeout(20_000);

  it('to converts the whole mixed tree, or nothing', async () => {
    const net = new Net();
    await (await net.forward(input())).sum().backward();
    const parameter = net.first.weight;
    expect(net.to('float64')).to.equal(net);
    expect(parameter.dtype).to.equal('float64');
    for (const [name, one] of [...net.namedParameters(), ...net.namedBuffers()])
      expect(one.dtype, name).to.equal(name.endsWith('num_batches_tracked') ? 'int64' : 'float64');
    expect(net.inner.scale.grad?.dtype).to.equal('float64');
    expect((await net.forward(input().to('float64'))).dtype).to.equal('float64');
    await expectRejection(net.forward(input()), 'ERR_SENET_DTYPE');
    expectThrow(() => net.to('int64'), 'ERR_SENET_DTYPE');
    if (!cuda.isAvailable()) {
      expectThrow(() => net.to('cuda'), 'ERR_SENET_CUDA_UNAVAILABLE');
      expect(net.parameters().every((one) => one.device === 'cpu' && one.dtype === 'float64')).to.equal(true);
    }
  });

  it('loadStateDict is all or none across the tree', () => {
    manualSeed(2);
    const [from, into] = [new Net(), new Net()];
    from.inner.offset.fill_(4);
    const contents = (net: Net): unknown => [...net.stateDict()].map(([key, value]) => [key, numbers(value)]);
    const before = contents(into);
    const state = from.stateDict();
    state.delete('inner.scale');
    state.set('se.fc.2.weight', zeros([9, 9]));
    state.set('extra', zeros([1]));
    const error = expectThrow(() => into.loadStateDict(state), 'ERR_SENET_STATE_DICT');
    expect(error.details).to.deep.equal({
      missingKeys: ['inner.scale'],
      unexpectedKeys: ['extra'],
      mismatchedKeys: [{ key: 'se.fc.2.weight', expected: [4, 2], actual: [9, 9] }],
    });
    expect(contents(into)).to.deep.equal(before);
    // The last check is the addon's: a tensor that is gone.
    const gone = from.stateDict();
    gone.get('se.fc.2.weight')?.dispose();
    expectThrow(() => into.loadStateDict(gone), 'ERR_SENET_DISPOSED');
    expect(contents(into)).to.deep.equal(before);
    expect(into.loadStateDict(from.stateDict())).to.deep.equal({ missingKeys: [], unexpectedKeys: [] });
    expect(contents(into)).to.deep.equal(contents(from));
    const partial = new Map([['inner.scale', full([1], 7)]]);
    expect(into.loadStateDict(partial, { strict: false }).missingKeys).to.have.length(10);
    expect(into.inner.scale.item()).to.equal(7);
    const adopted = full([1], 8, { dtype: 'float64' });
    into.loadStateDict(new Map([['inner.scale', adopted]]), { strict: false, assign: true });
    expect([into.inner.scale.dtype, into.inner.scale.requiresGrad]).to.deep.equal(['float64', true]);
    into.inner.scale.requiresGrad = false;
    const integers = new Map([['inner.scale', zeros([1], { dtype: 'int64' })]]);
    expectThrow(
      () => into.loadStateDict(integers, { strict: false, assign: true }),
      'ERR_SENET_DTYPE',
      /inner\.scale.*int64/,
    );
    // BatchNorm's rule holds here too.
    const old = new Map([...from.stateDict()].filter(([key]) => key !== 'bn.num_batches_tracked'));
    expect(into.loadStateDict(old).missingKeys).to.deep.equal([]);
  });

  it('is busy while a forward is under way, between its jobs too, and so are its parts', async () => {
    const net = new Pausing();
    class Outer extends Module {
      net = net;
      beside = new Linear(1, 1);
      override async forward(x: Tensor): Promise<Tensor> {
        return this.net.forward(x);
      }
    }
    const outer = new Outer();
    const state = outer.stateDict();
    const running = outer.forward(rand([1, 2]));
    await net.entered.opened;
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
    const changes: (() => unknown)[] = [
      () => outer.to('float64'),
      () => net.to('float64'),
      () => net.second.to('float64'),
      () => outer.beside.to('float64'),
      () => outer.loadStateDict(state),
      () => outer.replaceModule('beside', new Linear(1, 1)),
      () => net.replaceModule('second', new Linear(2, 2)),
    ];
    for (const change of changes) expectThrow(change, 'ERR_SENET_BUSY', /1 forward/);
    net.released.open();
    await running;
    outer.to('float64');
    // A native job of a part counts for the whole.
    await whileOccupied(() => {
      const job = outer.beside.forward(rand([64, 1], { dtype: 'float64' }));
      expectThrow(() => outer.to('float32'), 'ERR_SENET_BUSY', /1 job/);
      return job;
    });
    outer.to('float32');
    // A forward that failed is over.
    await expectRejection(outer.forward(zeros([1, 3])), 'ERR_SENET_SHAPE');
    outer.to('float64');
  });

  it('dispose while a forward runs: it ends well, later calls are refused, memory is freed', async () => {
    const before = memory();
    const net = new Pausing(256).eval(); // half a megabyte, and no graph that would keep it
    const x = rand([1, 256]);
    const running = net.forward(x);
    await net.entered.opened;
    net.dispose();
    net.dispose();
    await expectRejection(net.forward(x), 'ERR_SENET_DISPOSED');
    const state = net.first.stateDict();
    state.get('weight')?.dispose();
    net.released.open();
    const output = await running;
    expect(output.shape).to.deep.equal([1, 256]);
    expect(memory().bytes).to.be.lessThan(before.bytes + 100_000);
    expect(numbers(state.get('bias') as Tensor)).to.have.length(256);
    const uses: (() => unknown)[] = [
      () => net.training,
      () => net.train(),
      () => net.parameters(),
      () => net.stateDict(),
      () => net.namedModules(),
      () => net.getSubmodule('first'),
      () => net.to('float64'),
      () => net.first.parameters(),
      () => net.first.weight,
      () => net.registerBuffer('x', ones([1])),
      () => net.registerForwardHook(() => undefined),
      () => net.loadStateDict(new Map()),
    ];
    for (const use of uses) expectThrow(use, 'ERR_SENET_DISPOSED');
    await expectRejection(net.first.forward(x), 'ERR_SENET_DISPOSED');
    await expectRejection(net.summary([1, 256]), 'ERR_SENET_DISPOSED');
  });

  it('children are disposed with their root alone', () => {
    const net = new Net();
    net.parameters();
    expectThrow(() => net.inner.dispose(), 'ERR_SENET_ARG_RANGE', /'inner'/);
    expectThrow(() => net.inner.conv.dispose(), 'ERR_SENET_ARG_RANGE', /'inner\.conv'/);
    expectThrow(() => net.se.fc.dispose(), 'ERR_SENET_ARG_RANGE', /'se\.fc'/);
    const { scale } = net.inner;
    const weight = net.first.weight;
    net[Symbol.dispose]();
    expectThrow(() => scale.shape, 'ERR_SENET_DISPOSED');
    expectThrow(() => weight.shape, 'ERR_SENET_DISPOSED');
    expectThrow(() => net.inner.conv.training, 'ERR_SENET_DISPOSED');
    // Never asked for its children: they are freed all the same.
    const before = memory();
    const fresh = new Net();
    expect(memory().bytes).to.be.greaterThan(before.bytes);
    const { inner, array } = fresh;
    fresh.dispose();
    expectThrow(() => inner.conv.training, 'ERR_SENET_DISPOSED');
    expect(array[0]?.training).to.equal(true); // not a child
  });

  it('a downsample that was given to a block is part of it', async () => {
    const downsample = new Sequential(new Conv2d(4, 8, 1, { stride: 2, bias: false }), new BatchNorm2d(8));
    const bn = downsample.at(1);
    const block = new SEBasicBlock(4, 8, 2, downsample, 1, 64, 1, null, { reduction: 2 });
    expect(block.downsample).to.equal(downsample);
    expect(block.getSubmodule('downsample.1')).to.equal(bn);
    expect(block.namedModules().filter(([, one]) => one === bn)).to.have.length(1);
    block.eval();
    expect(bn.training).to.equal(false);
    const x = rand([1, 4, 4, 4]);
    await whileOccupied(() => {
      const job = block.forward(x);
      expectThrow(() => downsample.to('float64'), 'ERR_SENET_BUSY');
      return job;
    });
    await whileOccupied(() => {
      const own = downsample.forward(x);
      expectThrow(() => block.to('float64'), 'ERR_SENET_BUSY');
      return own;
    });
    expectThrow(() => downsample.dispose(), 'ERR_SENET_ARG_RANGE', /'downsample'/);
    block.dispose();
    expectThrow(() => downsample.parameters(), 'ERR_SENET_DISPOSED');
    await expectRejection(downsample.forward(x), 'ERR_SENET_DISPOSED');
    // Busy modules are not adopted.
    const layer = new Linear(2, 2);
    await whileOccupied(() => {
      const job = layer.forward(rand([2, 2]));
      expectThrow(() => new Sequential(layer), 'ERR_SENET_BUSY');
      return job;
    });
    expect(new Sequential(layer).at(0)).to.equal(layer);
  });
});

describe('user modules: containers', function () {
  this.timeout(20_000);

  it('a Sequential of native modules is native, of others TypeScript; both give the same', async () => {
    manualSeed(3);
    const native = new Sequential(new Conv2d(3, 4, 1), new ReLU(), new BatchNorm2d(4)).eval();
    class Same extends Module {
      relu = new ReLU();
      override async forward(x: Tensor): Promise<Tensor> {
        return this.relu.forward(x);
      }
    }
    const mixed = new Sequential(new Conv2d(3, 4, 1), new Same(), new BatchNorm2d(4)).eval();
    expect([...mixed.stateDict().keys()]).to.deep.equal([...native.stateDict().keys()]);
    mixed.loadStateDict(native.stateDict());
    const x = randn([2, 3, 4, 4]);
    expect(numbers(await mixed.forward(x))).to.deep.equal(numbers(await native.forward(x)));
    expect(numbers(native.forwardSync(x))).to.deep.equal(numbers(await mixed.forward(x)));
    expectThrow(() => mixed.forwardSync(x), 'ERR_SENET_TS_FORWARD');
    const [one, other] = [await native.compile(), await mixed.compile()];
    expect(numbers(await other.forward(x))).to.deep.equal(numbers(await one.forward(x)));
    for (const sequence of [native, mixed]) {
      expect(sequence.length).to.equal(3);
      expect(sequence.at(-1)).to.be.instanceOf(BatchNorm2d);
      expect([...sequence].map((one) => one.constructor.name)[0]).to.equal('Conv2d');
      expect(sequence).to.be.instanceOf(Sequential);
      for (const index of [3, -4, 0.5, NaN]) expectThrow(() => sequence.at(index), 'ERR_SENET_ARG_RANGE');
    }
    const empty = new Sequential();
    expect(numbers(await empty.forward(x))).to.deep.equal(numbers(x));
    expect(empty.length).to.equal(0);
    expectThrow(() => new Sequential(wrong([new ReLU()])), 'ERR_SENET_ARG_TYPE', /0.*array/);
    expectThrow(() => new Sequential(new ReLU(), wrong(null)), 'ERR_SENET_ARG_TYPE', /1.*null/);
    expect((await new Sequential(new Dropout(1)).forward(ones([3]))).sum().item()).to.equal(0);
  });

  it('ModuleList numbers its modules and takes more', async () => {
    const list = new ModuleList<Module>([new Linear(1, 2)]);
    expect(list.push(new Linear(2, 3), new Net())).to.equal(3);
    expect([...list.stateDict().keys()].slice(0, 4)).to.deep.equal([
      '0.weight',
      '0.bias',
      '1.weight',
      '1.bias',
    ]);
    expect(list.at(-1)).to.be.instanceOf(Net);
    expect([...list]).to.have.length(3);
    // All or none.
    expectThrow(() => list.push(new ReLU(), list.at(0)), 'ERR_SENET_MODULE_TREE');
    expect(list.length).to.equal(3);
    expectThrow(() => list.push(wrong('relu')), 'ERR_SENET_ARG_TYPE');
    await expectRejection(list.forward(zeros([1])), 'ERR_SENET_ARG_MISSING', /ModuleList/);
    // More than ten stay in order.
    const many = new ModuleList(Array.from({ length: 12 }, () => new ReLU()));
    expect(many.namedChildren().map(([name]) => name)).to.deep.equal(
      Array.from({ length: 12 }, (_, index) => String(index)),
    );
  });
});

describe('user modules: in two Workers', function () {
  this.timeout(60_000);

  it('each trains its own network', async () => {
    const run = (seed: number): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const worker = new Worker(
          `require('tsx/cjs');
           const { parentPort, workerData } = require('node:worker_threads');
           const lib = require(workerData.lib);
           class Net extends lib.Module {
             first = new lib.Linear(4, 4);
             second = new lib.Sequential(new lib.ReLU(), new lib.Linear(4, 1));
             async forward(x) { return this.second.forward(await this.first.forward(x)); }
           }
           (async () => {
             const net = new Net();
             for (const [, p] of net.namedParameters()) lib.noGrad(() => p.fill_(workerData.seed / 10));
             for (let step = 0; step < 3; step++) {
               net.zeroGrad();
               await (await net.forward(lib.ones([2, 4]))).sum().backward();
               for (const p of net.parameters()) lib.noGrad(() => p.sub_(p.grad, { alpha: 0.01 }));
             }
             net.first = new lib.Linear(4, 4);
             parentPort.postMessage([...net.stateDict().keys(), Number(net.second.at(1).bias.item())]);
           })();`,
          {
            eval: true,
            workerData: { seed, lib: path.join(__dirname, '..', '..', 'lib', 'index.ts') },
            execArgv: [],
          },
        );
        worker.once('message', resolve);
        worker.once('error', reject);
      });
    const keys = ['first.weight', 'first.bias', 'second.1.weight', 'second.1.bias'];
    const [one, two] = (await Promise.all([run(1), run(2)])) as unknown[][];
    expect(one?.slice(0, 4)).to.deep.equal(keys);
    expect(one?.[4]).to.be.closeTo(0.1 - 0.06, 1e-6);
    expect(two?.[4]).to.be.closeTo(0.2 - 0.06, 1e-6);
  });
});

describe('user modules: a model inside', function () {
  this.timeout(20_000);

  it('a whole model can be a part', async () => {
    class Classifier extends Module {
      backbone: CifarSEResNet = se_resnet20({ numClasses: 8, initWeights: false });
      head = new Linear(8, 2);
      override async forward(x: Tensor): Promise<Tensor> {
        return this.head.forward(await this.backbone.forward(x));
      }
    }
    const net = new Classifier().eval();
    expect(net.namedParameters()[0]?.[0]).to.equal('backbone.conv1.weight');
    expect(net.backbone.training).to.equal(false);
    expect((await net.forward(rand([1, 3, 32, 32]))).shape).to.deep.equal([1, 2]);
    net.backbone.fc = new Linear(64, 8);
    expect(net.getSubmodule('backbone.fc')).to.equal(net.backbone.fc);
    expect(net.namedParameters().at(-1)?.[0]).to.equal('head.bias');
    expect((await (await net.backbone.compile()).forward(rand([1, 3, 32, 32]))).shape).to.deep.equal([1, 8]);
  });
});
