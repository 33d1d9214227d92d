/** module.summary(): rows, shapes, parameters, multiply-adds, and that it leaves no trace. */
import { inspect } from 'node:util';

import { expect } from 'chai';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { createModel, listModels, modelRecord } from '../../lib/models/registry';
import { ModuleList, Sequential } from '../../lib/nn/containers';
import { BatchNorm2d, Conv2d, Dropout, Linear, ReLU } from '../../lib/nn/layers';
import { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { ones, rand } from '../../lib/tensor/factories';
import { memory } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';

const wrong = (value: unknown): never => value as never;

class Net extends Module {
  conv = new Conv2d(3, 8, 3, { padding: 1 });
  bn = new BatchNorm2d(8);
  relu = new ReLU();
  scale = this.registerParameter('scale', ones([8, 1, 1]));
  blocks = new ModuleList([new SELayer(8, 2)]);
  unused = new Linear(2, 2);
  head = new Sequential(new Dropout(0.5), new Linear(16, 4, { bias: false }));

  override async forward(x: Tensor): Promise<Tensor> {
    let y = await this.relu.forward(await this.bn.forward(await this.conv.forward(x)));
    for (const block of this.blocks) y = await this.relu.forward((await block.forward(y)).mul(this.scale));
    return this.head.forward(y.flatten(2));
  }
}

describe('summary', function () {
  this.timeout(60_000);

  it('of a mixed network: shapes, calls, parameters and multiply-adds by hand', async () => {
    const net = new Net();
    net.bn.requiresGrad_(false);
    const summary = await net.summary([2, 3, 4, 4]);
    const rows = summary.rows.map(({ path, type, depth, outputShapes, calls, parameters, multiplyAdds }) => [
      path,
      type,
      depth,
      outputShapes[0] ?? null,
      calls,
      parameters,
      multiplyAdds,
    ]);
    const image = [2, 8, 4, 4];
    expect(rows).to.deep.equal([
      ['', 'Net', 0, [2, 8, 4], 1, 8, 0],
      ['conv', 'Conv2d', 1, image, 1, 224, 224 * 2 * 16],
      ['bn', 'BatchNorm2d', 1, image, 1, 16, 16 * 2],
      ['relu', 'ReLU', 1, image, 2, 0, 0],
      ['blocks', 'ModuleList', 1, null, 0, 0, 0],
      ['blocks.0', 'SELayer', 2, image, 1, 0, 0],
      ['blocks.0.avg_pool', 'AdaptiveAvgPool2d', 3, [2, 8, 1, 1], 1, 0, 0],
      ['blocks.0.fc', 'Sequential', 3, [2, 8], 1, 0, 0],
      ['blocks.0.fc.0', 'Linear', 4, [2, 4], 1, 32, 64],
      ['blocks.0.fc.1', 'ReLU', 4, [2, 4], 1, 0, 0],
      ['blocks.0.fc.2', 'Linear', 4, [2, 8], 1, 32, 64],
      ['blocks.0.fc.3', 'Sigmoid', 4, [2, 8], 1, 0, 0],
      ['unused', 'Linear', 1, null, 0, 6, 0],
      ['head', 'Sequential', 1, [2, 8, 4], 1, 0, 0],
      ['head.0', 'Dropout', 2, [2, 8, 16], 1, 0, 0],
      ['head.1', 'Linear', 2, [2, 8, 4], 1, 64, 64 * 16],
    ]);
    expect(summary.totalParameters).to.equal(382);
    expect(summary.trainableParameters).to.equal(366);
    expect(summary.multiplyAdds).to.equal(7168 + 32 + 128 + 1024);
    expect(summary.inputShapes).to.deep.equal([[2, 3, 4, 4]]);
    const lines = String(summary).split('\n');
    expect(lines[0]).to.match(/^Layer +Output shape +Parameters +Multiply-adds$/);
    expect(lines).to.include.members([lines[1] as string, 'Input [2, 3, 4, 4]', 'Multiply-adds 8,352']);
    expect(lines.find((line) => line.includes('bn:'))).to.match(
      /^ {2}bn: BatchNorm2d +\[2, 8, 4, 4\] +16 \(frozen\) +32$/,
    );
    expect(lines.find((line) => line.includes('relu:'))).to.match(/ReLU \(2 calls\) +\[2, 8, 4, 4\]$/);
    expect(lines.find((line) => line.includes('unused'))).to.match(/not called +6$/);
    // Deeper than the table goes: counted where it ends.
    expect(lines.find((line) => line.includes('fc: Sequential'))).to.match(/64 +128$/);
    expect(lines.at(-2)).to.equal('Parameters 382: 366 trainable, 16 frozen');
    expect(inspect(summary)).to.equal(String(summary));
    const flat = String(await net.summary([2, 3, 4, 4], { depth: 0 })).split('\n');
    expect(flat[2]).to.match(/^Net +\[2, 8, 4\] +382 \(frozen\) +8,352$/);
    expect(flat).to.have.length(7);
  });

  it('of every model: the parameters that it is known to have, and torchinfo-like multiply-adds', async () => {
    const parameters: Record<string, number> = {
      se_resnet18: 11_776_552,
      se_resnet50: 28_071_976,
      se_resnet20: 274_490,
      se_preactresnet20: 274_586,
      se_inception_v3: 28_366_256,
    };
    for (const name of listModels().filter((one) => Object.hasOwn(parameters, one))) {
      const { inputSize, numClasses } = modelRecord(name);
      const model = createModel(name, { numClasses: numClasses ?? 1000, initWeights: false }) as Module;
      const summary = await model.summary([1, 3, inputSize, inputSize]);
      expect(summary.totalParameters, name).to.equal(parameters[name]);
      expect(summary.rows.map(({ path }) => path)).to.deep.equal(model.namedModules().map(([at]) => at));
      expect(summary.rows[0]?.outputShapes).to.deep.equal([[1, numClasses ?? 1000]]);
      // Of the convolutions alone, which the compiled plan counts too.
      const convolutions = summary.rows
        .filter(({ type }) => type === 'Conv2d')
        .reduce((total, { multiplyAdds }) => total + multiplyAdds, 0);
      const compiled = await model.eval().compile();
      const planned = compiled.explain().steps.reduce((total, { multiplyAdds }) => total + multiplyAdds, 0);
      expect(convolutions, name).to.be.within(0.98 * planned, 1.02 * planned);
      compiled.dispose();
      model.dispose();
    }
  });

  it('runs in evaluation mode whatever the mode is, and changes nothing', async () => {
    const net = new Net();
    const seen: boolean[] = [];
    net.registerForwardHook((module) => void seen.push(module.training));
    const state = [...net.stateDict()].map(([key, value]) => [key, numbers(value)]);
    const { tensors } = memory();
    // One image of 1 x 1 is an error in training mode.
    await new BatchNorm2d(3).summary([1, 3, 1, 1]);
    await Promise.all([net.summary([1, 3, 4, 4]), net.summary([1, 3, 4, 4])]);
    expect(seen).to.deep.equal([false, false]);
    expect(net.training).to.equal(true);
    expect([...net.stateDict()].map(([key, value]) => [key, numbers(value)])).to.deep.equal(state);
    expect(memory().tensors - tensors).to.be.lessThan(40); // handles of parameters, no activations
    // A forward beside it is not recorded, and keeps its mode.
    const [output, summary] = await Promise.all([net.forward(rand([3, 3, 4, 4])), net.summary([1, 3, 4, 4])]);
    expect(output.requiresGrad).to.equal(true);
    expect(summary.rows[0]?.calls).to.equal(1);
  });

  it('of a part, of another dtype, and of a module with several inputs or outputs', async () => {
    const model = se_resnet20({ initWeights: false }).to('float64');
    const summary = await model.layer2.summary([1, 16, 8, 8]);
    expect(summary.rows[0]?.outputShapes).to.deep.equal([[1, 32, 4, 4]]);
    expect((await new ReLU().summary([3])).multiplyAdds).to.equal(0);
    class Pair extends Module<Tensor[]> {
      override async forward(left: Tensor, right: Tensor): Promise<Tensor[]> {
        return Promise.resolve([left.add(right), right]);
      }
    }
    const pair = await new Pair().summary([
      [2, 1],
      [2, 3],
    ]);
    expect(pair.rows[0]?.outputShapes).to.deep.equal([
      [2, 3],
      [2, 3],
    ]);
    expect(String(pair)).to.match(/\[2, 3\], \[2, 3\]/);
  });

  it('refuses impossible arguments', async () => {
    const net = new Net();
    await expectRejection(net.summary(wrong(undefined)), 'ERR_SENET_ARG_TYPE', /shape/);
    await expectRejection(net.summary(wrong('3')), 'ERR_SENET_ARG_TYPE');
    await expectRejection(net.summary([1, -3]), 'ERR_SENET_SHAPE');
    await expectRejection(net.summary([1, 4, 4, 4]), 'ERR_SENET_SHAPE', /\[N, 3, H, W\]/);
    await expectRejection(net.summary([1, 3, 4, 4], wrong({ deep: 1 })), 'ERR_SENET_UNKNOWN_OPTION');
    await expectRejection(net.summary([1, 3, 4, 4], { depth: -1 }), 'ERR_SENET_ARG_RANGE');
  });
});
