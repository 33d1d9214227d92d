/**
 * The layers and a network of a user's own against PyTorch's recorded answers (scripts/fixtures/make_layers.py): draws, keys,
 * versions, outputs, gradients, running statistics, and two steps of training.
 */
import { expect } from 'chai';

import { ModuleList, Sequential } from '../../lib/nn/containers';
import * as layers from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { full, ones, randn, tensor } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { manualSeed } from '../../lib/tensor/runtime';
import { noGrad } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import {
  expectSummary,
  numbers,
  readFixture,
  relativeError,
  toOptions,
  type Summary,
} from '../support/parity';

interface LayerRecord {
  name: string;
  arguments: unknown[];
  keywords: Record<string, unknown>;
  seed: number;
  shape: number[];
  drawn: Record<string, Summary>;
  versions: Record<string, number>;
  trained: Summary;
  inputGradient: Summary;
  gradients: Record<string, Summary>;
  after: Record<string, Summary>;
  evaluated: Summary;
}

interface NetworkRecord {
  dtype: 'float32' | 'float64';
  keys: string[];
  parameters: string[];
  buffers: string[];
  modules: string[];
  versions: Record<string, number>;
  drawn: Record<string, Summary>;
  losses: number[];
  gradients: Record<string, Summary>;
  finalState: Record<string, Summary>;
  logits: number[];
}

const fixture = readFixture<{ layers: LayerRecord[]; networks: NetworkRecord[] }>('layers.json');

/**
 * Shape, dtype, norm and first values within `tolerance` of the root mean square. A gradient that is zero but for
 * rounding (that of a bias before a BatchNorm) has no digits to compare.
 */
function expectNear(actual: Tensor, expected: Summary, tolerance: number, what: string): void {
  expect(actual.shape, `${what}: shape`).to.deep.equal(expected.shape);
  expect(actual.dtype, `${what}: dtype`).to.equal(expected.dtype);
  const values = numbers(actual);
  const norm = Math.max(expected.l2, 1e-3);
  const unit = norm / Math.sqrt(values.length);
  expect(Math.hypot(...values), `${what}: norm`).to.be.closeTo(expected.l2, tolerance * norm);
  expected.head.forEach((value, index) => {
    expect(values[index], `${what}: [${index}]`).to.be.closeTo(value, tolerance * unit);
  });
}

function versionsOf(module: Module<unknown>): Record<string, unknown> {
  return Object.fromEntries([...module.stateDict().metadata].map(([path, { version }]) => [path, version]));
}

/** The gradient or a failure. */
function gradientOf(of: Tensor | undefined): Tensor {
  const gradient = of?.grad;
  if (gradient === null || gradient === undefined) throw new Error('there is no gradient');
  return gradient;
}

/** Element-wise squares, summed: the loss of the fixture's layers. */
function sumOfSquares(x: Tensor): Tensor {
  return x.mul(x).sum();
}

describe('layers equal PyTorch', function () {
  this.timeout(30_000);

  for (const record of fixture.layers) {
    const call = [...record.arguments, record.keywords].map((one) => JSON.stringify(one)).join(', ');
    it(`${record.name}(${call})`, async () => {
      manualSeed(record.seed);
      const LayerClass = layers[record.name as keyof typeof layers] as unknown as new (
        ...args: unknown[]
      ) => Module;
      const keywords = toOptions(record.keywords);
      const args = Object.keys(keywords).length === 0 ? record.arguments : [...record.arguments, keywords];
      const layer = new LayerClass(...args);
      const drawn = layer.stateDict();
      expect([...drawn.keys()]).to.deep.equal(Object.keys(record.drawn));
      for (const [key, expected] of Object.entries(record.drawn))
        expectSummary(drawn.get(key) as Tensor, expected, key);
      expect(versionsOf(layer)).to.deep.equal(record.versions);

      const x = randn(record.shape, { requiresGrad: true });
      const trained = await layer.forward(x);
      await layer.forward(x);
      expectNear(trained, record.trained, 1e-5, 'output');
      await sumOfSquares(trained).backward();
      expectNear(gradientOf(x), record.inputGradient, 1e-4, 'gradient of the input');
      const parameters = new Map(layer.namedParameters());
      expect([...parameters.keys()]).to.deep.equal(Object.keys(record.gradients));
      for (const [key, expected] of Object.entries(record.gradients))
        expectNear(gradientOf(parameters.get(key)), expected, 1e-4, `gradient of ${key}`);
      const after = layer.stateDict();
      for (const [key, expected] of Object.entries(record.after))
        expectNear(after.get(key) as Tensor, expected, 1e-5, `${key} after`);
      expectNear(await layer.eval().forward(x), record.evaluated, 1e-5, 'output of eval()');
    });
  }
});

class Block extends Module {
  readonly scale: Tensor;
  readonly body: Sequential;
  readonly se: SELayer;

  constructor(width: number) {
    super();
    this.scale = this.registerParameter('scale', full([1, width, 1, 1], 0.5));
    this.body = new Sequential(
      new layers.Conv2d(width, width, 3, { padding: 1, bias: false }),
      new layers.BatchNorm2d(width),
      new layers.ReLU(),
    );
    this.se = new SELayer(width, 4);
  }

  override async forward(x: Tensor): Promise<Tensor> {
    const branch = await this.se.forward(await this.body.forward(x));
    return x.add(branch.mul(this.scale));
  }
}

class Net extends Module {
  mean = this.registerBuffer('mean', tensor([0.4, 0.5, 0.6], { shape: [1, 3, 1, 1] }));
  unsaved = this.registerBuffer('unsaved', ones([2]), { persistent: false });
  conv = new layers.Conv2d(3, 16, 3, { padding: 1 });
  bn = new layers.BatchNorm2d(16);
  relu = new layers.ReLU();
  pool = new layers.MaxPool2d(2);
  blocks = new ModuleList([new Block(16), new Block(16)]);
  dropout = new layers.Dropout(0.25);
  head = new Sequential(new layers.AdaptiveAvgPool2d(1), new layers.Flatten(), new layers.Linear(16, 5));

  override async forward(input: Tensor): Promise<Tensor> {
    let x = await this.bn.forward(await this.conv.forward(input.sub(this.mean)));
    x = await this.pool.forward(await this.relu.forward(x));
    for (const block of this.blocks) x = await block.forward(x);
    return this.head.forward(await this.dropout.forward(x));
  }
}

describe("a network of a user's own equals PyTorch", function () {
  this.timeout(30_000);

  for (const record of fixture.networks) {
    const tolerance = record.dtype === 'float64' ? 1e-9 : 1e-3;
    it(`keys, draws and two steps in ${record.dtype}`, async () => {
      manualSeed(7);
      const net = new Net();
      const x = randn([4, 3, 12, 12]).to(record.dtype);
      const drawn = net.stateDict();
      expect([...drawn.keys()]).to.deep.equal(record.keys);
      for (const [key, expected] of Object.entries(record.drawn))
        expectSummary(drawn.get(key) as Tensor, expected, key);
      expect(net.namedParameters().map(([key]) => key)).to.deep.equal(record.parameters);
      expect(net.namedBuffers().map(([key]) => key)).to.deep.equal(record.buffers);
      expect(net.namedModules().map(([path]) => path)).to.deep.equal(record.modules);
      expect(versionsOf(net)).to.deep.equal(record.versions);

      expect(net.to(record.dtype)).to.equal(net);
      expect(net.blocks.at(0).scale.dtype).to.equal(record.dtype);
      const target = tensor([0n, 3n, 1n, 4n]);
      manualSeed(8);
      const losses: number[] = [];
      for (let step = 0; step < 2; step++) {
        net.zeroGrad();
        const logits = await net.forward(x);
        const loss = (await ops.callAsync('aten::cross_entropy_loss', logits, target)) as Tensor;
        await loss.backward();
        losses.push(Number(loss.item()));
        const parameters = new Map(net.namedParameters());
        if (step === 0) {
          for (const [key, expected] of Object.entries(record.gradients))
            expectNear(gradientOf(parameters.get(key)), expected, tolerance, `gradient of ${key}`);
        }
        noGrad(() => {
          for (const parameter of parameters.values()) parameter.sub_(gradientOf(parameter), { alpha: 0.1 });
        });
      }
      losses.forEach((loss, step) => {
        const expected = record.losses[step] as number;
        expect(loss, `loss ${step}`).to.be.closeTo(expected, tolerance * 0.01 * expected);
      });
      const state = net.stateDict();
      for (const [key, expected] of Object.entries(record.finalState))
        expectNear(state.get(key) as Tensor, expected, tolerance, key);
      const logits = await net.eval().forward(x);
      expect(logits.requiresGrad).to.equal(false);
      expect(relativeError(logits, record.logits)).to.be.lessThan(tolerance);
    });
  }
});
