/** replaceModule and the properties of native modules: heads, layers, order of keys, what is refused. */
import { expect } from 'chai';

import { se_preactresnet20, se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SEBasicBlock } from '../../lib/models/residual-blocks';
import { se_inception_v3 } from '../../lib/models/se-inception-v3';
import { se_resnet18, se_resnet50, SEResNet } from '../../lib/models/se-resnet';
import { ModuleList, Sequential } from '../../lib/nn/containers';
import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  Conv2d,
  Dropout,
  Flatten,
  Identity,
  Linear,
  MaxPool2d,
  ReLU,
  Sigmoid,
} from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { rand, randn } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import { noGrad } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers, relativeError } from '../support/parity';
import { Temporary } from '../support/temporary';

const wrong = (value: unknown): never => value as never;
const keysOf = (module: Module<unknown>): string[] => [...module.stateDict().keys()];

/** What the compiled copy of a module gives, against the module itself in evaluation mode. */
async function expectCompiledLikeItself(module: Module, x: Tensor): Promise<void> {
  module.eval();
  const compiled = await module.compile();
  const expected = await module.forward(x);
  const actual = await compiled.forward(x);
  expect(actual.shape).to.deep.equal(expected.shape);
  expect(relativeError(actual, numbers(expected))).to.be.lessThan(1e-5);
  compiled.dispose();
}

describe('replacing modules', function () {
  this.timeout(30_000);

  it('model.fc = new Linear(2048, 5): the new parameters, in the same place', async () => {
    const model = se_resnet50({ initWeights: false });
    const keys = keysOf(model);
    const before = model.parameters();
    const old = model.fc;
    expect([old.inFeatures, old.outFeatures]).to.deep.equal([2048, 1000]);
    const head = new Linear(old.inFeatures, 5);
    model.fc = head;
    expect(model.fc).to.equal(head);
    expect(model.getSubmodule('fc')).to.equal(head);
    expect(keysOf(model)).to.deep.equal(keys);
    const parameters = model.parameters();
    expect(parameters.slice(0, -2)).to.deep.equal(before.slice(0, -2));
    expect(parameters.slice(-2)).to.deep.equal([head.weight, head.bias]);
    expect(parameters.at(-2)?.shape).to.deep.equal([5, 2048]);
    expect((await model.eval().forward(rand([1, 3, 64, 64]))).shape).to.deep.equal([1, 5]);
    expect(head.training).to.equal(false);
    // The old head is by itself again, and can be disposed or used.
    expect((await old.forward(rand([1, 2048]))).shape).to.deep.equal([1, 1000]);
    old.dispose();
    expectThrow(() => old.parameters(), 'ERR_SENET_DISPOSED');
    expect((await model.forward(rand([1, 3, 64, 64]))).shape).to.deep.equal([1, 5]);
  });

  it('trains the new head, and the old one has no part in it', async () => {
    manualSeed(4);
    const model = se_resnet20({ numClasses: 3 });
    const old = model.fc;
    model.fc = new Linear(64, 2);
    await (await model.forward(rand([2, 3, 32, 32]))).sum().backward();
    expect(model.fc.weight.grad?.shape).to.deep.equal([2, 64]);
    expect(old.weight.grad).to.equal(null);
    noGrad(() => model.fc.weight.zero_());
    noGrad(() => (model.fc.bias as Tensor).fill_(7));
    expect(numbers(await model.eval().forward(rand([1, 3, 32, 32])))).to.deep.equal([7, 7]);
  });

  it('every property of a model is the child of that name, and C++ calls what is put there', async () => {
    manualSeed(5);
    const model = se_resnet20({ numClasses: 2 }).eval();
    for (const name of ['conv1', 'bn1', 'relu', 'layer1', 'layer2', 'layer3', 'avgpool', 'fc'] as const)
      expect(model[name]).to.equal(model.getSubmodule(name));
    const x = randn([2, 3, 32, 32]);
    const keys = keysOf(model);
    const change = async (replace: () => unknown): Promise<void> => {
      const before = numbers(await model.forward(x));
      replace();
      model.eval();
      const after = numbers(await model.forward(x));
      expect(after).not.to.deep.equal(before);
      expect(keysOf(model)).to.deep.equal(keys);
    };
    await change(() => (model.conv1 = new Conv2d(3, 16, 3, { padding: 1, bias: false })));
    await change(() => {
      model.bn1 = new BatchNorm2d(16);
      model.bn1.runningMean.fill_(0.5);
    });
    await change(() => model.replaceModule('layer1.0.se', new SELayer(16, 16)));
    await change(() => model.replaceModule('layer2.0.se.fc.0', new Linear(32, 2, { bias: false })));
    await change(() =>
      model.replaceModule('layer3.2.conv2', new Conv2d(64, 64, 3, { padding: 1, bias: false })),
    );
    await change(() =>
      model.replaceModule(
        'layer2.0.downsample',
        new Sequential(new Conv2d(16, 32, 1, { stride: 2, bias: false }), new BatchNorm2d(32)),
      ),
    );
    await change(() =>
      model.replaceModule('layer3.0.downsample.0', new Conv2d(32, 64, 1, { stride: 2, bias: false })),
    );
    await change(() => (model.fc = new Linear(64, 2)));
    // The compiled copy and the summary see the same.
    await expectCompiledLikeItself(model, x);
    const summary = await model.summary([1, 3, 32, 32]);
    expect(summary.totalParameters).to.equal(model.parameters().reduce((total, one) => total + one.numel, 0));
    // Not in place, which changes nothing.
    const plain = numbers(await model.forward(x));
    model.relu = new ReLU();
    expect(numbers(await model.forward(x))).to.deep.equal(plain);
  });

  it('pre-activation, Inception and ImageNet models, blocks and SE layers', async () => {
    const pre = se_preactresnet20({ initWeights: false });
    expect(pre.bn1.numFeatures).to.equal(64);
    pre.bn1 = new BatchNorm2d(64);
    pre.fc = new Linear(64, 3);
    expect((await pre.eval().forward(rand([1, 3, 32, 32]))).shape).to.deep.equal([1, 3]);

    const inception = se_inception_v3({ numClasses: 4, initWeights: false });
    const keys = keysOf(inception);
    inception.model.fc = new Linear(2048, 6);
    inception.replaceModule('model.AuxLogits.fc', new Linear(768, 6));
    inception.model.dropout = new Dropout(0.1);
    inception.replaceModule('model.Mixed_5b.branch1x1.conv', new Conv2d(192, 64, 1, { bias: false }));
    inception.replaceModule('model.Mixed_6e.SELayer', new SELayer(768, 8));
    expect(keysOf(inception)).to.deep.equal(keys);
    expect(((await inception.eval().forward(rand([1, 3, 299, 299]))) as Tensor).shape).to.deep.equal([1, 6]);

    const model = se_resnet18({ numClasses: 2 });
    model.maxpool = new MaxPool2d(2);
    model.layer1 = new Sequential(new SEBasicBlock(64, 64), new SEBasicBlock(64, 64));
    // Grey images: the width of the beginning is free.
    model.conv1 = new Conv2d(1, 64, 7, { stride: 2, padding: 3, bias: false });
    expect((await model.eval().forward(rand([1, 1, 64, 64]))).shape).to.deep.equal([1, 2]);
    await expectRejection(model.forward(rand([1, 3, 64, 64])), 'ERR_SENET_SHAPE', /\[N, 1, H, W\]/);
    await expectCompiledLikeItself(model, rand([1, 1, 64, 64]));

    const layer = new SELayer(8, 2);
    expect(layer.fc.length).to.equal(4);
    layer.replaceModule('fc.1', new ReLU());
    expect((await layer.forward(rand([1, 8, 2, 2]))).shape).to.deep.equal([1, 8, 2, 2]);
    const block = new SEBasicBlock(64, 64);
    expect(block.downsample).to.equal(null);
    expectThrow(() => (block.downsample = new Identity()), 'ERR_SENET_ARG_RANGE', /'downsample'/);
  });

  it('in a Sequential and in modules of TypeScript', async () => {
    const sequence = new Sequential(new Linear(2, 3), new ReLU(), new Linear(3, 4), new Dropout(0.5));
    sequence.replaceModule('2', new Linear(3, 9)); // only the dropout stands behind it
    sequence.replaceModule('0', new Linear(5, 3));
    expect((await sequence.forward(rand([1, 5]))).shape).to.deep.equal([1, 9]);
    expectThrow(
      () => sequence.replaceModule('2', new Linear(4, 9)),
      'ERR_SENET_SHAPE',
      /'2' of Sequential takes 3/,
    );
    expectThrow(() => sequence.replaceModule('0', new Linear(5, 4)), 'ERR_SENET_SHAPE', /gives 3/);
    expectThrow(() => sequence.replaceModule('1', new Sigmoid()), 'ERR_SENET_ARG_TYPE', /ReLU, got Sigmoid/);

    class Net extends Module {
      list = new ModuleList<Module>([new Linear(2, 2), new ReLU()]);
      head: Module = new Linear(2, 2);
      override async forward(x: Tensor): Promise<Tensor> {
        for (const one of this.list) x = await one.forward(x);
        return this.head.forward(x);
      }
    }
    const net = new Net();
    const keys = keysOf(net);
    const old = net.head;
    expect(net.replaceModule('head', new Sequential(new Linear(2, 7)))).to.equal(old);
    expect(net.head).to.be.instanceOf(Sequential); // anything may stand in a field
    expect(net.replaceModule('head', old)).to.be.instanceOf(Sequential);
    net.replaceModule('list.1', new Sigmoid());
    expect(net.list.at(1)).to.be.instanceOf(Sigmoid);
    expect(keysOf(net)).to.deep.equal(keys);
    expect((await net.forward(rand([1, 2]))).shape).to.deep.equal([1, 2]);
    expect(net.replaceModule('head', net.head)).to.equal(net.head); // itself
    for (const bad of ['', 'nothing', 'list.2', 'head.x', 'list.'])
      expectThrow(() => net.replaceModule(bad, new ReLU()), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => net.replaceModule('head', net), 'ERR_SENET_MODULE_TREE', /part of itself/);
    expectThrow(() => net.list.replaceModule('0', net), 'ERR_SENET_MODULE_TREE');
  });

  it('refuses what does not fit, and changes nothing', async () => {
    const model = se_resnet20({ numClasses: 3, initWeights: false }).eval();
    const all = model.namedModules().map(([, one]) => one);
    const other = se_resnet20({ initWeights: false });
    class Scaled extends Linear {
      override async forward(x: Tensor): Promise<Tensor> {
        return (await super.forward(x)).mul(2);
      }
    }
    class Composite extends Module {
      inner = new Linear(64, 3);
      override async forward(x: Tensor): Promise<Tensor> {
        return this.inner.forward(x);
      }
    }
    const refused: [() => unknown, Parameters<typeof expectThrow>[1], RegExp][] = [
      [() => (model.fc = wrong(new ReLU())), 'ERR_SENET_ARG_TYPE', /'fc' of CifarSEResNet.*Linear, got ReLU/],
      [() => (model.fc = wrong(new Conv2d(64, 3, 1))), 'ERR_SENET_ARG_TYPE', /Linear, got Conv2d/],
      [() => (model.fc = wrong(undefined)), 'ERR_SENET_ARG_TYPE', /expected a Module, got undefined/],
      [() => (model.fc = wrong({ forward: () => 1 })), 'ERR_SENET_ARG_TYPE', /an object/],
      [() => (model.fc = new Linear(65, 3)), 'ERR_SENET_SHAPE', /takes 64.*takes 65/],
      [() => (model.bn1 = new BatchNorm2d(17)), 'ERR_SENET_SHAPE', /'bn1'.*16.*17/],
      [() => (model.conv1 = new Conv2d(3, 8, 3)), 'ERR_SENET_SHAPE', /gives 16.*gives 8/],
      [() => model.replaceModule('layer1.0.conv1', new Conv2d(3, 16, 3)), 'ERR_SENET_SHAPE', /takes 16/],
      [
        () => model.replaceModule('layer1.0.se', new SELayer(32)),
        'ERR_SENET_SHAPE',
        /'se' of CifarSEBasicBlock/,
      ],
      [() => (model.layer1 = new Sequential(new Conv2d(16, 8, 1))), 'ERR_SENET_SHAPE', /gives 16.*gives 8/],
      [() => (model.fc = wrong(new Composite())), 'ERR_SENET_TS_FORWARD', /Composite.*TypeScript/],
      [() => (model.fc = new Scaled(64, 3)), 'ERR_SENET_TS_FORWARD', /Linear is TypeScript/],
      [() => (model.fc = other.fc), 'ERR_SENET_MODULE_TREE', /'fc' of CifarSEResNet already/],
      [() => (model.layer1 = model.layer2), 'ERR_SENET_MODULE_TREE', /'layer2' of CifarSEResNet already/],
      [() => model.replaceModule('layer9', new ReLU()), 'ERR_SENET_ARG_RANGE', /'layer9'/],
      [() => model.replaceModule('layer1.7.se', new ReLU()), 'ERR_SENET_ARG_RANGE', /'layer1\.7'/],
      [() => model.replaceModule(wrong(1), new ReLU()), 'ERR_SENET_ARG_TYPE', /path/],
    ];
    for (const [run, code, words] of refused) expectThrow(run, code, words);
    expect(model.namedModules().map(([, one]) => one)).to.deep.equal(all);
    expect((await model.forward(rand([1, 3, 32, 32]))).shape).to.deep.equal([1, 3]);
    expect(other.fc.outFeatures).to.equal(10);
    // A fixed part: nothing here makes another of its type.
    const inception = se_inception_v3({ numClasses: 2, initWeights: false });
    expectThrow(
      () => inception.replaceModule('model.Mixed_5b', new Sequential()),
      'ERR_SENET_ARG_RANGE',
      /fixed part of Inception3/,
    );
    // A field of a subclass that hides the head.
    class Hiding extends SEResNet {
      override fc = new Linear(512, 2);
    }
    const hiding = new Hiding(SEBasicBlock, [1, 1, 1, 1], { numClasses: 2, initWeights: false });
    expectThrow(() => hiding.parameters(), 'ERR_SENET_MODULE_TREE', /'fc' of Hiding.*constructor/);
    class Proper extends SEResNet {
      constructor() {
        super(SEBasicBlock, [1, 1, 1, 1], { numClasses: 2, initWeights: false });
        this.fc = new Linear(512, 4);
      }
    }
    expect(new Proper().fc.outFeatures).to.equal(4);
  });

  it('a busy model, or a busy replacement, is ERR_SENET_BUSY', async () => {
    const model = se_resnet20({ initWeights: false }).eval();
    const jobs = [1, 2].map(() => model.forward(rand([64, 3, 64, 64])));
    expectThrow(() => (model.fc = new Linear(64, 2)), 'ERR_SENET_BUSY', /job/);
    expectThrow(() => model.replaceModule('layer1.0.se', new SELayer(16)), 'ERR_SENET_BUSY');
    await Promise.all(jobs);
    const head = new Linear(64, 2);
    const working = [model.forward(rand([64, 3, 64, 64])), head.forward(rand([1, 64]))];
    const idle = se_resnet20({ initWeights: false });
    expectThrow(() => (idle.fc = head), 'ERR_SENET_BUSY');
    await Promise.all(working);
    idle.fc = head;
    expect(idle.fc).to.equal(head);
  });

  it('busy and dispose see the whole after a replacement; the old part is free of it', async () => {
    const model = se_resnet20({ initWeights: false }).eval();
    const [old, head] = [model.fc, new Linear(64, 2)];
    model.fc = head;
    const jobs = [1, 2].map(() => model.forward(rand([64, 3, 64, 64])));
    expectThrow(() => head.to('float64'), 'ERR_SENET_BUSY');
    old.to('float64');
    await Promise.all(jobs);
    model.to('float64');
    expect(head.weight.dtype).to.equal('float64');
    expectThrow(() => head.dispose(), 'ERR_SENET_ARG_RANGE', /'fc'/);
    const weight = head.weight;
    model.dispose();
    expectThrow(() => head.parameters(), 'ERR_SENET_DISPOSED');
    expectThrow(() => weight.shape, 'ERR_SENET_DISPOSED');
    expect((await old.forward(rand([1, 64], { dtype: 'float64' }))).shape).to.deep.equal([1, 10]);
    // A disposed module is not adopted, and a disposed model takes nothing.
    const gone = new Linear(64, 2);
    gone.dispose();
    const fresh = se_resnet20({ initWeights: false });
    expectThrow(() => (fresh.fc = gone), 'ERR_SENET_DISPOSED');
    expectThrow(() => (model.fc = new Linear(64, 2)), 'ERR_SENET_DISPOSED');
    expect(fresh.fc.outFeatures).to.equal(10);
  });

  it('may be repeated, and the old one may come back', async () => {
    manualSeed(6);
    const model = se_resnet20({ numClasses: 2 }).eval();
    const x = rand([1, 3, 32, 32]);
    const expected = numbers(await model.forward(x));
    const old = model.fc;
    for (let round = 0; round < 20; round++) {
      model.fc = new Linear(64, 2 + round);
      expect((await model.forward(x)).shape).to.deep.equal([1, 2 + round]);
    }
    model.fc = old;
    expect(numbers(await model.forward(x))).to.deep.equal(expected);
    const swapped = se_resnet20({ numClasses: 2 }).eval();
    model.fc = new Linear(64, 2);
    swapped.fc = old; // into another model
    expect(swapped.parameters().at(-1)).to.equal(old.bias);
  });
});

describe('compiling what users build', function () {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  this.timeout(30_000);

  const networks: [string, () => Sequential, readonly number[]][] = [
    [
      'convolutions with bias, pools and a head',
      () =>
        new Sequential(
          new Conv2d(3, 24, 3, { padding: 1 }),
          new ReLU(),
          new MaxPool2d(2),
          new Conv2d(24, 40, 1),
          new BatchNorm2d(40),
          new ReLU(),
          new AvgPool2d(3, { stride: 2, padding: 1 }),
          new SELayer(40, 4),
          new AdaptiveAvgPool2d(1),
          new Flatten(),
          new Dropout(0.5),
          new Linear(40, 7),
        ),
      [2, 3, 20, 20],
    ],
    [
      'an average pool before a narrowing convolution with bias',
      () =>
        new Sequential(new Conv2d(1, 32, 3), new ReLU(), new AvgPool2d(2), new Conv2d(32, 16, 1), new ReLU()),
      [1, 1, 13, 17],
    ],
    [
      'pooled features, flattened',
      () => new Sequential(new Conv2d(2, 20, 3), new Identity(), new AdaptiveAvgPool2d(1), new Flatten()),
      [3, 2, 9, 9],
    ],
    [
      'groups and a dilation, which the kernels do not have',
      () =>
        new Sequential(
          new Conv2d(4, 32, 3, { groups: 2, padding: 1 }),
          new BatchNorm2d(32),
          new ReLU(),
          new SELayer(32, 4),
          new Conv2d(32, 32, 3, { dilation: 2 }),
          new ReLU(),
          new Conv2d(32, 8, 1),
        ),
      [3, 4, 11, 13],
    ],
    [
      'a window of 17 rows',
      () => new Sequential(new Conv2d(3, 8, [17, 1]), new Conv2d(8, 5, 1)),
      [2, 3, 20, 5],
    ],
    [
      'a pool to 2 x 2, Sigmoid, and a Flatten whose length Linear knows',
      () =>
        new Sequential(
          new Conv2d(3, 20, 3),
          new AdaptiveAvgPool2d(2),
          new Sigmoid(),
          new Conv2d(20, 6, 1),
          new Flatten(),
          new Linear(24, 5),
        ),
      [3, 3, 9, 7],
    ],
    [
      'several Linear layers',
      () =>
        new Sequential(
          new Conv2d(1, 20, 1),
          new AdaptiveAvgPool2d(1),
          new Flatten(),
          new ReLU(),
          new Linear(20, 40),
          new ReLU(),
          new Linear(40, 10),
          new Sigmoid(),
          new Linear(10, 3),
        ),
      [4, 1, 5, 5],
    ],
    [
      'a nested Sequential',
      () => new Sequential(new Sequential(new Conv2d(3, 8, 3)), new Sequential()),
      [1, 3, 8, 8],
    ],
    [
      'a block with a downsample of its own',
      () =>
        new Sequential(
          new SEBasicBlock(
            16,
            32,
            2,
            new Sequential(new AvgPool2d(2), new Conv2d(16, 32, 1), new BatchNorm2d(32)),
          ),
        ),
      [1, 16, 12, 12],
    ],
  ];
  for (const [what, make, shape] of networks) {
    it(`${what}: the same numbers`, async () => {
      manualSeed(9);
      const network = make();
      await network.forward(randn(shape)); // statistics that are not 0 and 1
      await expectCompiledLikeItself(network, randn(shape));
    });
  }

  const refused: [string, () => Module, RegExp][] = [
    [
      'Flatten of an image that nothing reads',
      () => new Sequential(new Conv2d(1, 1, 1), new Flatten()),
      /Flatten \('1'\)/,
    ],
    [
      'Flatten to another rank',
      () => new Sequential(new Conv2d(1, 1, 1), new Flatten(2)),
      /Flatten \('1'\).*neither images nor vectors/,
    ],
    ['a Linear layer alone', () => new Linear(4, 4), /Linear.*no image/],
    ['nothing', () => new Sequential(), /nothing in it says how many channels/],
  ];
  for (const [what, make, words] of refused) {
    it(`refuses ${what} by name`, async () => {
      await expectRejection(make().compile(), 'ERR_SENET_COMPILE', words);
    });
  }

  it('an SELayer whose fc has biases, and one whose fc is another chain: the same numbers', async () => {
    manualSeed(8);
    const model = se_resnet20({ numClasses: 2 });
    model.replaceModule(
      'layer1.0.se.fc',
      new Sequential(new Linear(16, 4), new ReLU(), new Linear(4, 16), new Sigmoid()),
    );
    for (const kernels of [undefined, 'libtorch']) {
      temporary.environment({ SENET_COMPILE_KERNELS: kernels });
      await expectCompiledLikeItself(model, rand([1, 3, 8, 8]));
    }
    model.replaceModule(
      'layer1.0.se.fc',
      new Sequential(new Linear(16, 4), new Sigmoid(), new Linear(4, 16), new ReLU()),
    );
    for (const kernels of [undefined, 'libtorch']) {
      temporary.environment({ SENET_COMPILE_KERNELS: kernels });
      await expectCompiledLikeItself(model, rand([1, 3, 8, 8]));
    }
  });
});
