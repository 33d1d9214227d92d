/** Gates of SE layers, what if they were others, and class activation maps: which modules, which modes, bad input. */
import { expect } from 'chai';

import {
  ablateChannels,
  classActivationMap,
  Conv2d,
  createModel,
  EcaModule,
  excitations,
  gatedForward,
  Linear,
  memory,
  Module,
  noGrad,
  rand,
  resizeMap,
  se_preactresnet20,
  se_resnet18,
  se_resnet20,
  se_inception_v3,
  SELayer,
  SEModule,
  Sequential,
  tidy,
  type Tensor,
} from '../../lib';
import { nameInArticle, ClassStatistics } from '../../lib/explain/class-statistics';
import { observe } from '../../lib/explain/observe';
import { findSELayers } from '../../lib/explain/se-layers';
import { collectGarbage } from '../support/collect';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';

const wrong = (value: unknown): never => value as never;

/** A user's network, with a layer of the library's, one of his own that looks like it, and a branch that leads nowhere. */
class Gate extends Module {
  linear = new Linear(4, 4);
  override async forward(x: Tensor): Promise<Tensor> {
    return (await this.linear.forward(x.mean([2, 3]))).sigmoid();
  }
}

class SEBlock extends Module {
  sigmoid = new Gate();
  override async forward(x: Tensor): Promise<Tensor> {
    return x.mul((await this.sigmoid.forward(x)).unsqueeze(2).unsqueeze(3));
  }
}

class Net extends Module {
  conv = new Conv2d(3, 4, 3, { padding: 1 });
  se = new SELayer(4, 2);
  own = new SEBlock();
  unused = new Conv2d(3, 4, 1);
  fc = new Linear(4, 3);
  modes: boolean[] = [];
  override async forward(x: Tensor): Promise<Tensor> {
    this.modes.push(this.training);
    await this.unused.forward(x);
    const features = await this.own.forward(await this.se.forward((await this.conv.forward(x)).relu_()));
    return this.fc.forward(features.mean([2, 3]));
  }
}

function largestDifference(left: Tensor, right: Tensor): number {
  expect(left.shape).to.deep.equal(right.shape);
  const others = numbers(right);
  return Math.max(...numbers(left).map((value, index) => Math.abs(value - (others[index] as number))));
}

describe('excitations', function () {
  this.timeout(30_000);

  it('are the gates of every kind of SE layer, in the order of the modules', async () => {
    const x = rand([2, 3, 32, 32]);
    const models = [
      [se_resnet20({ numClasses: 4, reduction: 4 }), 9, 'layer1.0.se', 16],
      [se_preactresnet20({ reduction: 4 }), 9, 'layer3.2.se', 64],
      [se_resnet18({ numClasses: 4 }), 8, 'layer4.1.se', 512],
      [createModel('seresnet18', { numClasses: 4 }), 8, 'layer2.0.se', 128],
      [createModel('ecaresnet26t', { numClasses: 4 }), 8, 'layer1.0.se', 256],
      [createModel('legacy_seresnet18', { numClasses: 4 }), 8, 'layer4.1.se_module', 512],
      [createModel('pytorchcv_sepreresnet10', { numClasses: 4 }), 4, 'features.stage4.unit1.se', 512],
    ] as const;
    for (const [model, count, path, channels] of models) {
      const gates = await excitations(model, x);
      const paths = model.namedModules().map(([name]) => name);
      expect([...gates.keys()], path).to.deep.equal(paths.filter((name) => gates.has(name)));
      expect(gates.size, path).to.equal(count);
      expect(gates.get(path)?.shape, path).to.deep.equal([2, channels]);
      for (const gate of gates.values()) {
        for (const value of numbers(gate)) expect(value, path).to.be.within(0, 1);
        gate.dispose();
      }
      model.dispose();
    }
  });

  it('of SE-Inception-v3, whose auxiliary head is not called', async () => {
    const model = se_inception_v3({ numClasses: 2, recalibrate: 'output' });
    const places = findSELayers(model).map(({ path }) => path);
    const gates = await excitations(model, rand([1, 3, 299, 299]));
    expect(places).to.include('model.AuxLogits.SELayer');
    expect([...gates.keys()]).to.deep.equal(places.filter((path) => path !== 'model.AuxLogits.SELayer'));
    expect(gates.get('model.Mixed_7c.SELayer')?.shape).to.deep.equal([1, 2048]);
    model.dispose();
  });

  it('of layers alone are what they scale by', async () => {
    const x = rand([2, 8, 3, 3]).add(0.1);
    for (const layer of [new SELayer(8, 2), new SEModule(8), new EcaModule(8)]) {
      const gate = (await excitations(layer, x)).get('') as Tensor;
      const output = await layer.eval().forward(x);
      expect(largestDifference(output.div(x).mean([2, 3]), gate)).to.be.below(1e-6);
    }
  });

  it('of a network in TypeScript, with layers of its own that have the names and parts of one', async () => {
    const net = new Net();
    const x = rand([2, 3, 5, 5]);
    const gates = await excitations(net, x);
    expect([...gates.keys()]).to.deep.equal(['se', 'own']);
    const features = (await net.conv.forward(x, { grad: false })).relu();
    const pooled = features.mean([2, 3]);
    expect(
      largestDifference(gates.get('se') as Tensor, await net.se.fc.forward(pooled, { grad: false })),
    ).to.be.below(1e-6);
    expect(gates.get('own')?.shape).to.deep.equal([2, 4]);
    expect(net.modes).to.deep.equal([false]); // in evaluation mode
    expect(net.training).to.equal(true);
  });

  it('change nothing of the model, whatever its mode, and leave no tensor behind', async () => {
    const model = se_resnet20({ numClasses: 4 });
    const x = rand([2, 3, 32, 32]);
    const before = model.stateDict();
    const copies = [...before].map(([key, value]) => [key, numbers(value.clone())] as const);
    await collectGarbage();
    const { tensors } = memory();
    const gates = await excitations(model, x);
    expect(memory().tensors).to.equal(tensors + gates.size);
    for (const gate of gates.values()) gate.dispose();
    const found = await classActivationMap(model, x);
    expect(memory().tensors).to.equal(tensors + 2);
    found.map.dispose();
    found.scores.dispose();
    for (const [key, values] of copies) expect(numbers(before.get(key) as Tensor), key).to.deep.equal(values);
    expect(model.training).to.equal(true);
    expect(model.parameters().every(({ grad }) => grad === null)).to.equal(true);
    model.dispose();
  });

  it('belong to the tidy that they are made in', async () => {
    const layer = new SELayer(4, 2);
    const x = rand([1, 4, 2, 2]);
    await excitations(layer, x); // the wrappers of its parameters stay
    await collectGarbage();
    const { tensors } = memory();
    const kept = await tidy(async () => (await excitations(layer, x)).get('') as Tensor);
    expect(memory().tensors).to.equal(tensors + 1);
    kept.dispose();
  });

  it('see what forward hooks made of a gate', async () => {
    const net = new Net();
    const hook = net.own.sigmoid.registerForwardHook((_module, _inputs, output) => output.mul(0).add(0.25));
    const gates = await excitations(net, rand([1, 3, 4, 4]));
    expect(numbers(gates.get('own') as Tensor)).to.deep.equal([0.25, 0.25, 0.25, 0.25]);
    hook.remove();
  });

  it('go on when the input is disposed meanwhile', async () => {
    const model = se_resnet20({ numClasses: 4 });
    const x = rand([1, 3, 32, 32]);
    const running = gatedForward(model, x, { gates: { 'layer1.0.se': 'mean' } });
    x.dispose();
    expect((await running).shape).to.deep.equal([1, 4]);
    const other = rand([1, 3, 32, 32]);
    const last = excitations(model, other);
    model.dispose();
    expect((await last).size).to.equal(9);
    await expectRejection(excitations(model, other), 'ERR_SENET_DISPOSED');
  });

  it('refuse what is none', async () => {
    const x = rand([1, 3, 32, 32]);
    const model = se_resnet20({ numClasses: 4 });
    await expectRejection(excitations(wrong('se_resnet20'), x), 'ERR_SENET_ARG_TYPE', /expected a Module/);
    await expectRejection(excitations(model, wrong([1])), 'ERR_SENET_ARG_TYPE', /expected a Tensor/);
    await expectRejection(excitations(model, rand([3, 32, 32])), 'ERR_SENET_SHAPE', /N x C x H x W/);
    await expectRejection(excitations(model, rand([1, 4, 32, 32])), 'ERR_SENET_SHAPE');
    await expectRejection(excitations(new Linear(2, 2), x), 'ERR_SENET_ARG_RANGE', /has no SE layer/);
    await expectRejection(excitations(model, x, wrong({ gate: {} })), 'ERR_SENET_UNKNOWN_OPTION', /gates/);
    await expectRejection(excitations(model, x, wrong({ gates: [1] })), 'ERR_SENET_ARG_TYPE');
    const gate = (change: unknown): Promise<unknown> =>
      excitations(model, x, { gates: { 'layer1.0.se': wrong(change) } });
    await expectRejection(gate(NaN), 'ERR_SENET_ARG_RANGE', /layer1\.0\.se/);
    await expectRejection(gate('most'), 'ERR_SENET_ARG_TYPE');
    await expectRejection(gate(null), 'ERR_SENET_ARG_TYPE');
    await expectRejection(gate(['mean']), 'ERR_SENET_ARG_TYPE');
    await expectRejection(gate([1, 2]), 'ERR_SENET_ARG_RANGE', /each of 16 channels, got 2/);
    await expectRejection(
      excitations(model, x, { gates: { layer1: 1 } }),
      'ERR_SENET_ARG_RANGE',
      /no SE layer at 'layer1' \(known are layer1\.0\.se, /,
    );
    await expectRejection(excitations(model, x, { signal: AbortSignal.abort('gone') }), 'ERR_SENET_ABORTED');
    model.dispose();
  });

  it('reject at once when the caller aborts', async () => {
    const model = se_resnet18({ numClasses: 2 });
    const controller = new AbortController();
    const running = excitations(model, rand([4, 3, 128, 128]), { signal: controller.signal });
    setImmediate(() => controller.abort());
    await expectRejection(running, 'ERR_SENET_ABORTED');
    model.dispose();
  });
});

describe('gatedForward', function () {
  this.timeout(30_000);

  it('sets gates to a number, their mean, or some channels to numbers', async () => {
    const layer = new SELayer(4, 2);
    const x = rand([2, 4, 3, 3]);
    const gates = (await excitations(layer, x)).get('') as Tensor;
    const of = (change: 0 | 1 | 'mean' | (number | null)[]): Promise<Tensor> =>
      gatedForward(layer, x, { gates: { '': change } });
    expect(largestDifference(await of(1), x)).to.equal(0);
    expect(largestDifference(await of(0), x.mul(0))).to.equal(0);
    const mean = gates.mean(1, { keepdim: true }).unsqueeze(2).unsqueeze(3);
    expect(largestDifference(await of('mean'), x.mul(mean))).to.be.below(1e-6);
    const some = await of([null, 0, null, 2]);
    const plain = await layer.eval().forward(x);
    expect(largestDifference(some.select(1, 0), plain.select(1, 0))).to.equal(0);
    expect(largestDifference(some.select(1, 1), plain.select(1, 1).mul(0))).to.equal(0);
    expect(largestDifference(some.select(1, 3), x.select(1, 3).mul(2))).to.equal(0);
  });

  it('is the forward in evaluation mode without changes, and later layers follow earlier ones', async () => {
    const model = se_resnet20({ numClasses: 4, reduction: 4 });
    const x = rand([2, 3, 32, 32]);
    const plain = await gatedForward(model, x);
    expect(largestDifference(plain, await model.eval().forward(x))).to.equal(0);
    const gates = { 'layer1.0.se': 0, 'layer2.1.se': 'mean' } as const;
    const changed = await excitations(model, x, { gates });
    const before = await excitations(model, x);
    expect(numbers(changed.get('layer1.0.se') as Tensor).every((gate) => gate === 0)).to.equal(true);
    const row = numbers((before.get('layer2.1.se') as Tensor).select(0, 0));
    const mean = row.reduce((sum, gate) => sum + gate, 0) / row.length;
    expect(numbers((changed.get('layer2.1.se') as Tensor).select(0, 0))[3]).to.be.closeTo(mean, 1e-6);
    expect(
      largestDifference(changed.get('layer1.1.se') as Tensor, before.get('layer1.1.se') as Tensor),
    ).to.be.above(0);
    expect(largestDifference(await gatedForward(model, x, { gates }), plain)).to.be.above(0);
    model.dispose();
  });

  it('takes the changes as they are at the call', async () => {
    const layer = new SELayer(4, 2);
    const x = rand([1, 4, 2, 2]);
    const change: (number | null)[] = [1, 1, 1, 1];
    const running = gatedForward(layer, x, { gates: { '': change } });
    change.fill(0);
    expect(largestDifference(await running, x)).to.equal(0);
  });

  it('changes gates of a module in TypeScript', async () => {
    const net = new Net();
    const x = rand([1, 3, 4, 4]);
    const gates = { se: 1, own: 1 } as const;
    const features = (await net.conv.forward(x, { grad: false })).relu().mean([2, 3]);
    const expected = await net.fc.forward(features, { grad: false });
    expect(largestDifference(await gatedForward(net, x, { gates }), expected)).to.be.below(1e-6);
  });
});

describe('classActivationMap', function () {
  this.timeout(30_000);

  it('is of the last block by default, and names it', async () => {
    const x = rand([1, 3, 32, 32]);
    const models = [
      [se_resnet20({ numClasses: 4 }), 'layer3.2', [1, 8, 8]],
      [se_preactresnet20({ numClasses: 4 }), 'layer3.2', [1, 8, 8]],
      [createModel('seresnet18', { numClasses: 4 }), 'layer4.1', [1, 1, 1]],
      [new Net(), 'se', [1, 32, 32]],
      [
        new Sequential(new Conv2d(3, 4, 3), new Conv2d(4, 5, 3), new Pooled(), new Linear(5, 2)),
        '1',
        [1, 28, 28],
      ],
    ] as const;
    for (const [model, layer, shape] of models) {
      const found = await classActivationMap(model, x);
      if (model instanceof Net) expect(found.layer).to.equal('own');
      else expect(found.layer).to.equal(layer);
      expect(found.map.shape, layer).to.deep.equal(shape);
      for (const value of numbers(found.map)) expect(value).to.be.within(0, 1);
    }
  });

  it('has a class for each image: the best, one for all, or its own', async () => {
    const model = se_resnet20({ numClasses: 4 });
    const x = rand([2, 3, 32, 32]);
    const best = await classActivationMap(model, x);
    expect(best.targets).to.deep.equal(Array.from(best.scores.argmax(1).toTypedArray(), Number));
    const [first, second] = [
      await classActivationMap(model, x, { target: 1 }),
      await classActivationMap(model, x, { target: 3 }),
    ];
    const both = await classActivationMap(model, x, { target: [1, 3] });
    expect(both.targets).to.deep.equal([1, 3]);
    expect(largestDifference(both.map.select(0, 0), first.map.select(0, 0))).to.be.below(1e-5);
    expect(largestDifference(both.map.select(0, 1), second.map.select(0, 1))).to.be.below(1e-5);
    model.dispose();
  });

  it('works where nothing requires gradients, and inside noGrad', async () => {
    const model = se_resnet20({ numClasses: 4 });
    const x = rand([1, 3, 32, 32]);
    const usual = await classActivationMap(model, x);
    model.requiresGrad_(false);
    for (const method of ['gradcam', 'gradcam++', 'layercam'] as const)
      expect((await noGrad(() => classActivationMap(model, x, { method }))).map.shape).to.deep.equal([
        1, 8, 8,
      ]);
    expect(largestDifference((await classActivationMap(model, x)).map, usual.map)).to.be.below(1e-5);
    model.dispose();
  });

  it('sees what a layer gave, though the next changes it in place', async () => {
    const model = se_resnet20({ numClasses: 4 }).eval();
    const x = rand([1, 3, 16, 16]);
    const bn = model.getSubmodule('bn1');
    const conv = model.getSubmodule('conv1') as Module;
    const seen = await tidy(
      async () => (await observe(model, x, { keep: [bn] }, 'test')).outputOf(bn)?.clone() as Tensor,
    );
    expect(largestDifference(seen, await (bn as Module).forward(await conv.forward(x)))).to.be.below(1e-6);
    expect(Math.min(...numbers(seen))).to.be.below(0);
    expect((await classActivationMap(model, x, { layer: 'bn1' })).map.shape).to.deep.equal([1, 16, 16]);
    model.dispose();
  });

  it('of a network in TypeScript, of a part of it that C++ runs and of one of its own', async () => {
    const net = new Net();
    for (const layer of ['conv', 'se', 'own']) {
      const { map } = await classActivationMap(net, rand([2, 3, 6, 6]), { layer });
      expect(map.shape, layer).to.deep.equal([2, 6, 6]);
    }
    expect(net.parameters().every(({ grad }) => grad === null)).to.equal(true);
  });

  it('refuses layers and classes that do not do', async () => {
    const model = se_resnet20({ numClasses: 4 });
    const x = rand([2, 3, 32, 32]);
    const refused = async (options: object, words: RegExp, code = 'ERR_SENET_ARG_RANGE'): Promise<void> => {
      await expectRejection(classActivationMap(model, x, wrong(options)), code as never, words);
    };
    await refused({ layer: 'layer9' }, /no module at 'layer9'/);
    await refused({ layer: 'fc' }, /'fc' gives \[2, 4\]/);
    await refused({ target: 4 }, /4 classes, got 4/);
    await refused({ target: [1] }, /each of 2 images, got 1/);
    await refused({ target: -1 }, /index of a class/);
    await refused({ target: 2 ** 53 }, /index of a class/);
    await refused({ target: '1' }, /index of a class/, 'ERR_SENET_ARG_TYPE');
    await refused({ method: 'cam' }, /gradcam/);
    await refused({ layer: 3 }, /layer/, 'ERR_SENET_ARG_TYPE');
    await expectRejection(
      classActivationMap(new Net(), rand([1, 3, 4, 4]), { layer: 'unused' }),
      'ERR_SENET_AUTOGRAD',
      /do not depend on what 'unused' gives/,
    );
    await expectRejection(classActivationMap(new SELayer(3, 1), x), 'ERR_SENET_SHAPE', /N x classes/);
    model.dispose();
  });

  it('stops between the forwards of Score-CAM when the caller aborts', async () => {
    const model = se_resnet18({ numClasses: 2 });
    const controller = new AbortController();
    const running = classActivationMap(model, rand([1, 3, 64, 64]), {
      method: 'scorecam',
      signal: controller.signal,
    });
    setTimeout(() => controller.abort(), 50);
    await expectRejection(running, 'ERR_SENET_ABORTED');
    model.dispose();
  });

  it('resizeMap: bilinear with half-pixel centres', async () => {
    const map = (await classActivationMap(new SmallNet(), rand([1, 1, 2, 2]), { layer: 'conv' })).map;
    const [a, b, c, d] = numbers(map) as [number, number, number, number];
    const large = numbers(await resizeMap(map, [4, 4]));
    expect(large[0]).to.be.closeTo(a, 1e-6);
    expect(large[1]).to.be.closeTo(0.75 * a + 0.25 * b, 1e-6);
    expect(large[5]).to.be.closeTo(0.75 * (0.75 * a + 0.25 * b) + 0.25 * (0.75 * c + 0.25 * d), 1e-6);
    await expectRejection(resizeMap(null as never, [4, 4]), 'ERR_SENET_ARG_TYPE', /resizeMap: map/);
    await expectRejection(resizeMap(rand([2, 2]), [4, 4]), 'ERR_SENET_SHAPE', /N x h x w, got \[2, 2\]/);
    for (const [size, code] of [
      [[0, 4], 'ERR_SENET_ARG_RANGE'],
      [[4], 'ERR_SENET_ARG_RANGE'],
      [[1.5, 4], 'ERR_SENET_ARG_RANGE'],
      [4, 'ERR_SENET_ARG_TYPE'],
      [new Array<number>(2), 'ERR_SENET_ARG_TYPE'],
    ] as const)
      await expectRejection(resizeMap(map, size as never), code, /resizeMap: size/);
  });
});

class Pooled extends Module {
  override forward(x: Tensor): Promise<Tensor> {
    return Promise.resolve(x.mean([2, 3]));
  }
}

class SmallNet extends Module {
  conv = new Conv2d(1, 2, 1);
  fc = new Linear(2, 2);
  override async forward(x: Tensor): Promise<Tensor> {
    return this.fc.forward((await this.conv.forward(x)).relu().mean([2, 3]));
  }
}

describe('ablateChannels', function () {
  this.timeout(30_000);

  it('is the fall of the probability with each gate at 0', async () => {
    const model = se_resnet20({ numClasses: 4, reduction: 4 });
    const x = rand([2, 3, 32, 32]);
    const layer = 'layer1.1.se';
    const { drops, baseline, channels } = await ablateChannels(model, x, layer, { target: 2, batchSize: 5 });
    const probability = async (gates: Record<string, (number | null)[]>): Promise<number> =>
      numbers((await gatedForward(model, x, { gates })).softmax(1).select(1, 2).mean())[0] as number;
    expect(channels).to.deep.equal(Array.from({ length: 16 }, (_, channel) => channel));
    expect(baseline).to.be.closeTo(await probability({}), 1e-6);
    for (const channel of [0, 5, 15]) {
      const change = Array.from({ length: 16 }, (_, one) => (one === channel ? 0 : null));
      expect(drops[channel], String(channel)).to.be.closeTo(
        baseline - (await probability({ [layer]: change })),
        1e-5,
      );
    }
    const some = await ablateChannels(model, x, layer, { target: 2, channels: [15, 0] });
    expect(some.drops[1]).to.be.closeTo(drops[0] as number, 1e-6);
    await expectRejection(ablateChannels(model, x, 'layer1.1'), 'ERR_SENET_ARG_RANGE', /no SE layer/);
    await expectRejection(
      ablateChannels(model, x, layer, { channels: [16] }),
      'ERR_SENET_ARG_RANGE',
      /has 16/,
    );
    for (const wrong of [[], new Array<number>(2)])
      await expectRejection(ablateChannels(model, x, layer, { channels: wrong }), 'ERR_SENET_ARG_TYPE');
    await expectRejection(ablateChannels(model, x, layer, { target: 4 }), 'ERR_SENET_ARG_RANGE');
    model.dispose();
  });
});

describe('gates by class', () => {
  it('mean, deviation and selectivity', () => {
    const statistics = new ClassStatistics(['a', 'b', 'none']);
    const add = (label: number, ...gates: number[]): void =>
      statistics.add(label, [{ path: 'layer4.1.se', gates: Float32Array.from(gates) }]);
    add(0, 0.5, 1);
    add(0, 0.75, 0.5);
    add(1, 0.25, 0.75);
    const { classes, layers } = statistics.result;
    expect(classes.map(({ images }) => images)).to.deep.equal([2, 1, 0]);
    const [layer] = layers;
    expect(layer?.name).to.equal('SE_5_2');
    expect([...(layer?.classes[0]?.mean ?? [])]).to.deep.equal([0.625, 0.75]);
    expect(layer?.classes[0]?.deviation[1]).to.be.closeTo(Math.sqrt(0.125), 1e-6);
    expect(layer?.classes[1]?.deviation[0]).to.equal(0);
    expect([...(layer?.all.mean ?? [])]).to.deep.equal([0.5, 0.75]);
    expect(layer?.all.deviation[0]).to.be.closeTo(0.25, 1e-6);
    expect(layer?.selectivity[0]).to.be.closeTo((0.625 - 0.25) / 0.875, 1e-6); // without the class of no image
    expect(layer?.selectivity[1]).to.equal(0);
  });

  it("names of the article's figure", () => {
    expect(nameInArticle('layer1.2.se')).to.equal('SE_2_3');
    expect(nameInArticle('layer3.5.se_module')).to.equal('SE_4_6');
    expect(nameInArticle('features.stage4.unit3.se')).to.equal('SE_5_3');
    expect(nameInArticle('model.Mixed_7c.SELayer')).to.equal(null);
  });
});
