/** Modules: the tree and its tensors, modes, jobs, conversion, loading, dispose, and what forward refuses. */
import { expect } from 'chai';

import { StateDict } from '../../lib/checkpoint/state-dict';
import { se_resnet20, type CifarSEResNet } from '../../lib/models/cifar-se-resnet';
import { CifarSEBasicBlock } from '../../lib/models/residual-blocks';
import type { Module } from '../../lib/nn/module';
import { NativeModule } from '../../lib/nn/native-module';
import { Identity } from '../../lib/nn/layers';
import { L1Loss } from '../../lib/nn/losses';
import { SELayer } from '../../lib/nn/se-layer';
import { cuda } from '../../lib/tensor/cuda';
import { full, ones, rand, randn, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { manualSeed, memory } from '../../lib/tensor/runtime';
import { noGrad } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { whileOccupied } from '../support/occupy';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const wrong = (value: unknown): never => value as never;
const model = (): CifarSEResNet => se_resnet20({ numClasses: 3, initWeights: false });
const image = (): Tensor => rand([2, 3, 32, 32]);
/** Every value of a module, to see that nothing changed. */
const contents = (of: Module<unknown>): unknown =>
  [...of.stateDict()].map(([key, value]) => [key, numbers(value)]);

describe('modules: the tree', () => {
  it('gives the same objects each time', () => {
    const net = model();
    expect(net.parameters()[0]).to.equal(net.parameters()[0]);
    expect(net.namedParameters().map(([, one]) => one)).to.deep.equal(net.parameters());
    const block = net.getSubmodule('layer1.0');
    expect(block).to.equal(net.getSubmodule('layer1.0'));
    expect(block).to.equal(net.namedModules().find(([path]) => path === 'layer1.0')?.[1]);
    expect(block.parameters()[0]).to.equal(
      net.namedParameters().find(([key]) => key === 'layer1.0.conv1.weight')?.[1],
    );
    expect(net.getSubmodule('')).to.equal(net);
    expect(block.getSubmodule('se')).to.equal(net.getSubmodule('layer1.0.se'));
    expect(block.getSubmodule('')).to.equal(block);
    expect(net.namedBuffers()[0]?.[1]).to.equal(net.namedBuffers()[0]?.[1]);
  });

  it("is in PyTorch's order, and children are of their classes", () => {
    const net = model();
    const paths = net.namedModules().map(([path]) => path);
    expect(paths.slice(0, 14)).to.deep.equal([
      '',
      'conv1',
      'bn1',
      'relu',
      'layer1',
      'layer1.0',
      'layer1.0.conv1',
      'layer1.0.bn1',
      'layer1.0.relu',
      'layer1.0.conv2',
      'layer1.0.bn2',
      'layer1.0.se',
      'layer1.0.se.avg_pool',
      'layer1.0.se.fc',
    ]);
    expect(paths.slice(-2)).to.deep.equal(['avgpool', 'fc']);
    expect(net.getSubmodule('layer1.0')).to.be.instanceOf(CifarSEBasicBlock);
    expect(net.getSubmodule('layer1.0.se')).to.be.instanceOf(SELayer);
    expect(net.getSubmodule('bn1')).to.be.instanceOf(NativeModule);
    const inside = net.getSubmodule('layer2.0');
    expect(inside.namedModules().map(([path]) => path)).to.include.members([
      '',
      'se',
      'se.fc.0',
      'downsample.1',
    ]);
    expect([...inside.stateDict().keys()].slice(0, 2)).to.deep.equal(['conv1.weight', 'bn1.weight']);
    expect(
      net
        .namedBuffers()
        .slice(0, 3)
        .map(([name]) => name),
    ).to.deep.equal(['bn1.running_mean', 'bn1.running_var', 'bn1.num_batches_tracked']);
    // No partial names: 'layer1.0' is not inside 'layer1.0x'.
    expectThrow(() => net.getSubmodule('layer1.'), 'ERR_SENET_ARG_RANGE', /'layer1\.'/);
    expectThrow(() => net.getSubmodule('layer'), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => net.getSubmodule(wrong(undefined)), 'ERR_SENET_ARG_TYPE');
  });

  it('a child runs by itself', async () => {
    const net = model();
    const layer = net.getSubmodule('layer1.0.se') as Module;
    const x = rand([1, 16, 4, 4]);
    // Zero weights: sigmoid(0) = 0.5.
    expect(numbers(await layer.forward(x))).to.deep.equal(numbers(x.mul(0.5)));
    expectThrow(() => layer.dispose(), 'ERR_SENET_ARG_RANGE', /layer1\.0\.se/);
  });

  it('stateDict shares the memory of the module, with metadata', () => {
    const net = model();
    const state = net.stateDict();
    expect(state).to.be.instanceOf(StateDict);
    expect([...state.keys()].slice(0, 6)).to.deep.equal([
      'conv1.weight',
      'bn1.weight',
      'bn1.bias',
      'bn1.running_mean',
      'bn1.running_var',
      'bn1.num_batches_tracked',
    ]);
    expect(state.metadata.get('bn1')).to.deep.equal({ version: 2 });
    expect(state.metadata.get('conv1')).to.deep.equal({ version: 1 });
    const bias = state.get('fc.bias') as Tensor;
    bias.fill_(5);
    expect(numbers(net.parameters().at(-1) as Tensor)).to.deep.equal([5, 5, 5]);
    expect(bias.requiresGrad).to.equal(false);
  });
});

describe('modules: modes and jobs', () => {
  it('train and eval reach descendants, return the module, and check their argument', () => {
    const net = model();
    expect(net.training).to.equal(true);
    expect(net.eval()).to.equal(net);
    expect(net.namedModules().some(([, one]) => one.training)).to.equal(false);
    net.getSubmodule('layer2').train();
    expect(net.getSubmodule('layer2.0.bn1').training).to.equal(true);
    expect([net.training, net.getSubmodule('bn1').training]).to.deep.equal([false, false]);
    expect(net.train(false).training).to.equal(false);
    for (const mode of [1, 'true', null, {}]) expectThrow(() => net.train(wrong(mode)), 'ERR_SENET_ARG_TYPE');
  });

  it('the mode and the input of a job are those of its call', async () => {
    const net = model();
    const tracked = (): unknown =>
      net
        .namedBuffers()
        .find(([key]) => key === 'bn1.num_batches_tracked')?.[1]
        .item();
    const x = image();
    const jobs = [net.forward(x), net.forward(x)];
    net.eval();
    jobs.push(net.forward(x));
    net.train();
    x.dispose();
    const outputs = await Promise.all(jobs);
    expect(outputs.map((one) => one.requiresGrad)).to.deep.equal([true, true, false]);
    expect(tracked()).to.equal(2n);
  });

  it('forwardSync gives what forward gives, behind what was queued before', async () => {
    manualSeed(1);
    const net = se_resnet20({ numClasses: 3 }).eval();
    const x = image();
    const before = net.forward(x);
    const sync = net.forwardSync(x);
    expect(sync.shape).to.deep.equal([2, 3]);
    expect(numbers(await before)).to.deep.equal(numbers(sync));
    expect(net.forwardSync(x, { grad: true }).requiresGrad).to.equal(true);
    expectThrow(() => net.forwardSync(x, wrong({ signal: AbortSignal.abort() })), 'ERR_SENET_UNKNOWN_OPTION');
    expectThrow(() => net.forwardSync(zeros([1])), 'ERR_SENET_SHAPE');
  });

  it('jobs start in the order in which they were submitted', async () => {
    const net = model().eval();
    const x = image();
    const order: number[] = [];
    await Promise.all(Array.from({ length: 8 }, (_, index) => net.forward(x).then(() => order.push(index))));
    expect(order).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('is busy while a job is queued or running, and free once it is awaited', async () => {
    const net = model().eval();
    const state = net.stateDict();
    const x = rand([4, 3, 64, 64]);
    await whileOccupied(() => {
      const jobs = [net.forward(x), net.forward(x)];
      expectThrow(() => net.to('float64'), 'ERR_SENET_BUSY', /2 job/);
      expectThrow(() => net.getSubmodule('layer1').to('float64'), 'ERR_SENET_BUSY');
      expectThrow(() => net.loadStateDict(state), 'ERR_SENET_BUSY');
      return Promise.all(jobs);
    });
    net.loadStateDict(state);
    expect(net.to('float64')).to.equal(net);
    // A dropped job keeps nothing busy either.
    const controller = new AbortController();
    const y = x.to('float64');
    const running = net.forward(y);
    const dropped = expectRejection(net.forward(y, { signal: controller.signal }), 'ERR_SENET_ABORTED');
    controller.abort();
    await dropped;
    await running;
    net.to('float32');
  });

  it('keeps the memory of its tensors while a loss or an operator reads one', async () => {
    const net = model();
    const weight = net.getSubmodule('fc').parameters()[0] as Tensor;
    const other = full(weight.shape, 2);
    const state = net.stateDict();
    const before = contents(net);
    for (const read of [
      () => new L1Loss().forward(weight, other),
      () => new L1Loss().forward(other, weight),
      () => ops.callAsync('aten::cat', [other, weight]) as Promise<Tensor>,
      () => new Identity().forward(weight),
    ]) {
      await whileOccupied(() => {
        const job = read();
        expectThrow(() => net.to('float64'), 'ERR_SENET_BUSY', /a loss, an operator/);
        expectThrow(() => net.loadStateDict(state, { assign: true }), 'ERR_SENET_BUSY');
        net.loadStateDict(state); // whose numbers it takes where they are
        return job;
      });
    }
    expect(contents(net)).to.deep.equal(before);
    net.to('float64').loadStateDict(state, { assign: true });
  });

  it('an aborted forward: before, queued, running', async () => {
    const net = model().eval();
    const x = rand([4, 3, 64, 64]);
    const reason = { why: 'on purpose' };
    const early = await expectRejection(
      net.forward(x, { signal: AbortSignal.abort(reason) }),
      'ERR_SENET_ABORTED',
    );
    expect([early.name, early.cause]).to.deep.equal(['AbortError', reason]);
    const controller = new AbortController();
    const jobs = [1, 2, 3].map(() =>
      expectRejection(net.forward(x, { signal: controller.signal }), 'ERR_SENET_ABORTED'),
    );
    controller.abort(reason);
    for (const error of await Promise.all(jobs)) expect(error.cause).to.equal(reason);
    const { signal } = new AbortController();
    expect((await net.forward(x, { signal })).shape).to.deep.equal([4, 3]);
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
    await expectRejection(net.forward(x, wrong({ signal: {} })), 'ERR_SENET_ARG_TYPE', /AbortSignal/);
    const late = new AbortController();
    const forward = net.forward(x, { signal: late.signal });
    late.abort(new DOMException('too late', 'TimeoutError')); // as AbortSignal.timeout() does
    const timeout = await expectRejection(forward, 'ERR_SENET_ABORTED');
    expect((timeout.cause as Error).name).to.equal('TimeoutError');
  });

  it('dispose while a job runs: the job ends well, later calls are refused', async () => {
    const net = model().eval();
    const first = net.parameters()[0];
    const child = net.getSubmodule('layer1');
    const kept = net.stateDict().get('fc.bias');
    const jobs = [net.forward(image()), net.forward(image())];
    net.dispose();
    net.dispose();
    net[Symbol.dispose]();
    for (const output of await Promise.all(jobs)) expect(output.shape).to.deep.equal([2, 3]);
    const code = 'ERR_SENET_DISPOSED';
    await expectRejection(net.forward(image()), code, /module was disposed/);
    await expectRejection(child.forward(image()), code);
    const uses: (() => unknown)[] = [
      () => net.forwardSync(image()),
      () => net.training,
      () => net.train(),
      () => net.parameters(),
      () => net.namedModules(),
      () => net.getSubmodule('layer1'),
      () => net.stateDict(),
      () => net.to('float64'),
      () => {
        net.zeroGrad();
      },
      () => net.loadStateDict(new Map()),
      () => child.parameters(),
      () => first?.shape,
    ];
    for (const use of uses) expectThrow(use, code);
    expect(numbers(kept as Tensor)).to.deep.equal([0, 0, 0]);
  });

  it('dispose frees the memory', () => {
    const before = memory();
    const net = se_resnet20();
    net.parameters();
    expect(memory().bytes - before.bytes).to.be.greaterThan(1_000_000);
    net.dispose();
    const after = memory();
    expect([after.bytes - before.bytes, after.tensors - before.tensors]).to.deep.equal([0, 0]);
  });
});

describe('modules: what forward refuses', () => {
  const net = model().eval();
  const layer = new SELayer(64);
  const cases: [string, Module<unknown>, () => unknown, Parameters<typeof expectRejection>[1], RegExp][] = [
    ['three dimensions', net, () => zeros([3, 32, 32]), 'ERR_SENET_SHAPE', /\[N, 3, H, W\].*\[3, 32, 32\]/],
    ['five dimensions', net, () => zeros([1, 1, 3, 32, 32]), 'ERR_SENET_SHAPE', /got \[1, 1, 3, 32, 32\]/],
    ['no dimensions', net, () => zeros([]), 'ERR_SENET_SHAPE', /got \[\]/],
    ['one channel', net, () => zeros([1, 1, 32, 32]), 'ERR_SENET_SHAPE', /\[N, 3/],
    ['channels last in shape', net, () => zeros([1, 32, 32, 3]), 'ERR_SENET_SHAPE', /\[1, 32, 32, 3\]/],
    ['an empty batch', net, () => zeros([0, 3, 32, 32]), 'ERR_SENET_SHAPE', /at least 1.*\[0, 3, 32, 32\]/],
    ['no height', net, () => zeros([1, 3, 0, 32]), 'ERR_SENET_SHAPE', /\[1, 3, 0, 32\]/],
    [
      'float64',
      net,
      () => zeros([1, 3, 32, 32], { dtype: 'float64' }),
      'ERR_SENET_DTYPE',
      /float32.*float64/,
    ],
    ['uint8', net, () => zeros([1, 3, 32, 32], { dtype: 'uint8' }), 'ERR_SENET_DTYPE', /uint8/],
    ['SELayer: other channels', layer, () => zeros([1, 32, 4, 4]), 'ERR_SENET_SHAPE', /64.*\[1, 32, 4, 4\]/],
    ['SELayer: empty batch', layer, () => zeros([0, 64, 4, 4]), 'ERR_SENET_SHAPE', /\[0, 64, 4, 4\]/],
    ['SELayer: half', layer, () => zeros([1, 64, 4, 4], { dtype: 'float16' }), 'ERR_SENET_DTYPE', /float16/],
    ['an array', net, () => [[1]], 'ERR_SENET_ARG_TYPE', /expected a Tensor, got an array/],
    ['nothing', net, () => undefined, 'ERR_SENET_ARG_TYPE', /undefined/],
    ['a typed array', net, () => new Float32Array(3072), 'ERR_SENET_ARG_TYPE', /Float32Array/],
  ];
  for (const [what, module, make, code, words] of cases) {
    it(what, async () => {
      await expectRejection(module.forward(wrong(make())), code, words);
    });
  }

  it('unknown and wrong options, with hints', async () => {
    const x = image();
    await expectRejection(
      net.forward(x, wrong({ Grad: true })),
      'ERR_SENET_UNKNOWN_OPTION',
      /did you mean 'grad'/,
    );
    await expectRejection(
      net.forward(x, wrong({ abortSignal: null })),
      'ERR_SENET_UNKNOWN_OPTION',
      /grad, signal/,
    );
    await expectRejection(net.forward(x, wrong({ grad: 1 })), 'ERR_SENET_ARG_TYPE', /grad/);
    await expectRejection(net.forward(x, wrong(true)), 'ERR_SENET_ARG_TYPE', /options object/);
    expectThrow(() => new SELayer(0), 'ERR_SENET_ARG_RANGE', /channel/);
    expectThrow(() => new SELayer(8), 'ERR_SENET_ARG_RANGE', /reduction.*from 1 to 8.*16/);
    expectThrow(() => new SELayer(8, 0), 'ERR_SENET_ARG_RANGE', /reduction/);
    expectThrow(() => new SELayer(8.5, 2), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new SELayer(wrong('8')), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new SELayer(2 ** 40, 1), 'ERR_SENET_ARG_RANGE', /SELayer|channel/);
    expectThrow(() => new SELayer(2 ** 22, 1), 'ERR_SENET_OUT_OF_MEMORY');
  });
});

describe('modules: to', () => {
  it('converts floating parameters and buffers in place, gradients too, and nothing else', async () => {
    manualSeed(2);
    const net = se_resnet20({ numClasses: 2 });
    const parameter = net.parameters()[0] as Tensor;
    await (await net.forward(image())).sum().backward();
    const before = numbers(parameter);
    expect(net.to('float64')).to.equal(net);
    expect(net.parameters()[0]).to.equal(parameter);
    expect(parameter.dtype).to.equal('float64');
    expect(parameter.grad?.dtype).to.equal('float64');
    expect(parameter.requiresGrad).to.equal(true);
    expect(numbers(parameter)).to.deep.equal(before);
    for (const [key, buffer] of net.namedBuffers()) {
      expect(buffer.dtype, key).to.equal(key.endsWith('num_batches_tracked') ? 'int64' : 'float64');
    }
    const output = await net.eval().forward(image().to('float64'));
    expect(output.dtype).to.equal('float64');
    await expectRejection(net.forward(image()), 'ERR_SENET_DTYPE', /float64.*float32/);
    net.to({ dtype: 'float32', memoryFormat: 'channels_last' });
    const last = await net.forward(image());
    expect([last.dtype, numbers(last).every(Number.isFinite)]).to.deep.equal(['float32', true]);
    net.to('cpu');
  });

  it('refuses what a module cannot be', () => {
    const net = model();
    expectThrow(() => net.to('int64'), 'ERR_SENET_DTYPE', /int64/);
    expectThrow(() => net.to(wrong('float')), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => net.to(wrong(undefined)), 'ERR_SENET_ARG_MISSING');
    if (!cuda.isAvailable()) {
      const before = contents(net);
      expectThrow(() => net.to('cuda'), 'ERR_SENET_CUDA_UNAVAILABLE');
      expectThrow(() => net.to({ dtype: 'float64', device: 'cuda:1' }), 'ERR_SENET_CUDA_UNAVAILABLE');
      expect(contents(net)).to.deep.equal(before);
    }
  });
});

describe('modules: loadStateDict', () => {
  const source = (): CifarSEResNet => {
    manualSeed(3);
    const net = se_resnet20({ numClasses: 3 });
    for (const [key, buffer] of net.namedBuffers()) if (key.endsWith('num_batches_tracked')) buffer.fill_(7);
    return net;
  };

  it('copies by default and keeps the tensors of the module', () => {
    const net = model();
    const first = net.parameters()[0] as Tensor;
    const from = source();
    expect(net.loadStateDict(from.stateDict())).to.deep.equal({ missingKeys: [], unexpectedKeys: [] });
    expect(contents(net)).to.deep.equal(contents(from));
    expect(net.parameters()[0]).to.equal(first);
    from.parameters()[0]?.detach().fill_(0);
    expect(first.abs().sum().item()).not.to.equal(0);
  });

  it('converts dtypes when it copies, and adopts them when it assigns', () => {
    const net = new SELayer(16);
    const state = new Map([
      ['fc.0.weight', full([1, 16], 2, { dtype: 'float64' })],
      ['fc.2.weight', full([16, 1], 3, { dtype: 'float64' })],
    ]);
    net.loadStateDict(state);
    expect(net.parameters().map(({ dtype }) => dtype)).to.deep.equal(['float32', 'float32']);
    const parameter = net.parameters()[0] as Tensor;
    net.loadStateDict(state, { assign: true });
    expect([parameter.dtype, parameter.requiresGrad]).to.deep.equal(['float64', true]);
    expect(net.parameters()[0]).to.equal(parameter);
    // Adopted: the same memory.
    state.get('fc.0.weight')?.fill_(9);
    expect(parameter.mean().item()).to.equal(9);
    const integers = new Map([...state].map(([key, value]) => [key, value.to('int64')]));
    const before = contents(net);
    expectThrow(
      () => net.loadStateDict(integers, { assign: true }),
      'ERR_SENET_DTYPE',
      /fc\.0\.weight.*int64/,
    );
    expect(contents(net)).to.deep.equal(before);
  });

  it('strict names every missing, unexpected and mismatched key and changes nothing', () => {
    const net = model();
    const before = contents(net);
    const state = source().stateDict();
    state.delete('conv1.weight');
    state.delete('layer3.2.bn2.running_var');
    state.set('extra.weight', zeros([1]));
    state.set('fc.weight', zeros([10, 64]));
    state.set('fc.bias', zeros([]));
    const error = expectThrow(
      () => net.loadStateDict(state),
      'ERR_SENET_STATE_DICT',
      /missing \(2\): conv1\.weight, layer3\.2\.bn2\.running_var[^]*unexpected \(1\): extra\.weight[^]*'fc\.weight': expected \[3, 64\], got \[10, 64\]/,
    );
    expect(error.details).to.deep.equal({
      missingKeys: ['conv1.weight', 'layer3.2.bn2.running_var'],
      unexpectedKeys: ['extra.weight'],
      mismatchedKeys: [
        { key: 'fc.weight', expected: [3, 64], actual: [10, 64] },
        { key: 'fc.bias', expected: [3], actual: [] },
      ],
    });
    expect(contents(net)).to.deep.equal(before);
    // Shapes that differ are an error without strict too.
    expectThrow(
      () => net.loadStateDict(state, { strict: false }),
      'ERR_SENET_STATE_DICT',
      /shape of 'fc\.weight'/,
    );
    expect(contents(net)).to.deep.equal(before);
  });

  it('without strict gives back what did not match and loads the rest', () => {
    const net = model();
    const state = source().stateDict();
    const weight = numbers(state.get('fc.weight') as Tensor);
    state.delete('conv1.weight');
    state.set('extra', zeros([1]));
    expect(net.loadStateDict(state, { strict: false })).to.deep.equal({
      missingKeys: ['conv1.weight'],
      unexpectedKeys: ['extra'],
    });
    expect(numbers(net.stateDict().get('fc.weight') as Tensor)).to.deep.equal(weight);
    expect(net.stateDict().get('conv1.weight')?.abs().sum().item()).to.equal(0);
  });

  it("BatchNorm's rule: num_batches_tracked may be absent where no version 2 is recorded", () => {
    const from = source();
    const key = 'bn1.num_batches_tracked';
    const full = from.stateDict();
    const without = (metadata: StateDict['metadata']): StateDict =>
      new StateDict(
        [...full].filter(([name]) => name !== key),
        metadata,
      );
    const net = model();
    (net.stateDict().get(key) as Tensor).fill_(5);
    const others = new Map([...full.metadata].filter(([path]) => path !== 'bn1'));
    for (const metadata of [
      new Map<string, { version: number }>(),
      others,
      new Map([...others, ['bn1', { version: 1 }] as const]),
    ]) {
      expect(net.loadStateDict(without(metadata)).missingKeys).to.deep.equal([]);
      expect(net.stateDict().get(key)?.item()).to.equal(5n); // its own value, not 0
    }
    const error = expectThrow(() => net.loadStateDict(without(full.metadata)), 'ERR_SENET_STATE_DICT');
    expect(error.details?.missingKeys).to.deep.equal([key]);
    // A plain Map has no metadata at all.
    expect(net.loadStateDict(new Map(without(new Map()))).missingKeys).to.deep.equal([]);
    expect(net.loadStateDict(full).missingKeys).to.deep.equal([]);
    expect(net.stateDict().get(key)?.item()).to.equal(7n);
  });

  it("the article's spelling of the SE layer's halves", () => {
    const layer = new SELayer(16);
    const spelled = new Map([
      ['fc1.0.weight', full([1, 16], 2)],
      ['fc2.0.weight', full([16, 1], 3)],
    ]);
    expect(layer.loadStateDict(spelled)).to.deep.equal({ missingKeys: [], unexpectedKeys: [] });
    expect(layer.parameters().map((one) => one.mean().item())).to.deep.equal([2, 3]);
    const error = expectThrow(
      () => layer.loadStateDict(new Map([...spelled, ['fc1.0.weight', zeros([2, 16])]])),
      'ERR_SENET_STATE_DICT',
    );
    expect(error.details).to.deep.include({ missingKeys: [], unexpectedKeys: [] });
    const net = model();
    const renamed = [...source().stateDict()].map(
      ([key, value]) =>
        [
          key.replace('se.fc.0.weight', 'se.fc1.0.weight').replace('se.fc.2.weight', 'se.fc2.0.weight'),
          value,
        ] as const,
    );
    expect(net.loadStateDict(new Map(renamed))).to.deep.equal({ missingKeys: [], unexpectedKeys: [] });
    expect(contents(net)).to.deep.equal(contents(source()));
    // Both spellings at once: one of them is too much.
    const both = new Map([
      ...spelled,
      ['fc.0.weight', ones([1, 16])] as [string, Tensor],
      ['fc.2.weight', ones([16, 1])] as [string, Tensor],
    ]);
    const twice = expectThrow(() => layer.loadStateDict(both), 'ERR_SENET_STATE_DICT');
    expect(twice.details?.unexpectedKeys).to.deep.equal(['fc1.0.weight', 'fc2.0.weight']);
  });

  it('into a child, and from a module of another dtype or one that requires gradients', async () => {
    const net = model();
    const block = source().getSubmodule('layer1.0');
    net.getSubmodule('layer1.0').loadStateDict(block.stateDict());
    expect(contents(net.getSubmodule('layer1.0'))).to.deep.equal(contents(block));
    const layer = new SELayer(16);
    layer.loadStateDict(new Map(new SELayer(16).namedParameters()));
    expect(layer.parameters().map(({ requiresGrad }) => requiresGrad)).to.deep.equal([true, true]);
    layer.loadStateDict(new Map(new SELayer(16).namedParameters()), { assign: true });
    await (await layer.forward(randn([1, 16, 2, 2]))).sum().backward();
    expect(layer.parameters()[0]?.grad?.shape).to.deep.equal([1, 16]);
    layer.zeroGrad();
    expect(layer.parameters().map(({ grad }) => grad)).to.deep.equal([null, null]);
    noGrad(() => layer.parameters()[0]?.zero_());
  });

  it('arguments of the wrong type', () => {
    const layer = new SELayer(16);
    for (const state of [undefined, null, {}, [], 'file.pt', layer]) {
      expectThrow(() => layer.loadStateDict(wrong(state)), 'ERR_SENET_ARG_TYPE', /StateDict/);
    }
    expectThrow(
      () => layer.loadStateDict(new Map([['fc.0.weight', wrong([1])]])),
      'ERR_SENET_ARG_TYPE',
      /fc\.0\.weight/,
    );
    expectThrow(
      () => layer.loadStateDict(new Map(), wrong({ Strict: true })),
      'ERR_SENET_UNKNOWN_OPTION',
      /'strict'/,
    );
    expectThrow(() => layer.loadStateDict(new Map(), wrong({ strict: 0 })), 'ERR_SENET_ARG_TYPE', /strict/);
    const gone = zeros([1, 16]);
    gone.dispose();
    expectThrow(() => layer.loadStateDict(new Map([['fc.0.weight', gone]])), 'ERR_SENET_DISPOSED');
  });
});
