/** SELayer against PyTorch's recorded answers, the article's own demonstration first. */
import { expect } from 'chai';

import { L1Loss } from '../../lib/nn/losses';
import { SELayer } from '../../lib/nn/se-layer';
import { rand } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectSummary, numbers, readFixture, type Summary } from '../support/parity';

interface Demonstration {
  channel: number;
  reduction: number;
  seed: number;
  input: Summary;
  output: Summary;
  loss: number;
  gradients: Record<string, Summary>;
}

describe('SELayer equals PyTorch', function () {
  this.timeout(60_000);

  for (const record of readFixture<{ selayer: Demonstration[] }>('parity.json').selayer) {
    it(`SELayer(${record.channel}, ${record.reduction}) on ${record.input.shape.join(' x ')}: loss and gradients`, async () => {
      manualSeed(record.seed);
      const layer = new SELayer(record.channel, record.reduction);
      const x = rand(record.input.shape);
      const output = await layer.forward(x);
      expect(output.shape).to.deep.equal(record.output.shape);
      numbers(output.slice(0, 0, 1).select(1, 0).flatten().slice(0, 0, 4)).forEach((value, index) => {
        expect(value).to.be.closeTo(record.output.head[index] as number, 1e-6);
      });
      expect(Number(output.sum(null, { dtype: 'float64' }).item())).to.be.closeTo(
        record.output.sum,
        1e-6 * record.output.sum,
      );

      const loss = await new L1Loss().forward(output, x);
      expect(Number(loss.item())).to.be.closeTo(record.loss, 1e-6);
      await loss.backward();
      const gradients = new Map(layer.namedParameters().map(([name, parameter]) => [name, parameter.grad]));
      expect([...gradients.keys()]).to.deep.equal(Object.keys(record.gradients));
      for (const [name, expected] of Object.entries(record.gradients)) {
        // In the demonstration every hidden unit is cut off by the ReLU, so its gradients are exact zeros.
        const gradient = numbers(gradients.get(name) as Tensor);
        expect(gradients.get(name)?.shape).to.deep.equal(expected.shape);
        expect(Math.hypot(...gradient), name).to.be.closeTo(expected.l2, 1e-5 * expected.l2);
        if (expected.l2 === 0) expectSummary(gradients.get(name) as Tensor, expected, name);
      }
    });
  }
});
