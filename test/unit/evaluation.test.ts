/** evaluate: what it counts, and that scores which are no numbers are no answers. */
import { expect } from 'chai';

import { CrossEntropyLoss, Module, tensor, type Tensor } from '../../lib';
import { DataLoader } from '../../lib/data/loader';
import { evaluate, type Evaluation } from '../../lib/train/evaluation';
import { expectRejection, expectThrow } from '../support/errors';

/** Its logits are the means of the channels. */
class Means extends Module {
  override forward(x: Tensor): Promise<Tensor> {
    return Promise.resolve(x.mean([2, 3]));
  }
}

/** Images of one pixel; the label of each is 0. */
function evaluateMeans(images: readonly (readonly number[])[]): Promise<Evaluation> {
  const samples = images.map((channels) => ({
    image: tensor(Float32Array.from(channels), { shape: [3, 1, 1] }),
    label: 0,
  }));
  const loss = new CrossEntropyLoss();
  return evaluate(new Means(), new DataLoader(samples, { batchSize: 2 }), { loss, mistakes: 5 });
}

describe('evaluate', () => {
  it('counts what is right, what is confused with what, and the mistakes', async () => {
    const { count, accuracy, confusion, mistakes } = await evaluateMeans([
      [3, 1, 2],
      [1, 3, 2],
      [-Infinity, 1, 2],
      [5, 4, 3],
    ]);
    expect([count, accuracy]).to.deep.equal([4, 0.5]);
    expect(confusion[0]).to.deep.equal([2, 1, 1]);
    expect(mistakes.map(({ index }) => index).sort()).to.deep.equal([1, 2]);
  });

  it('disposes the batch that fails', async () => {
    const batch = { images: tensor([1, 2, 3], { shape: [1, 3, 1, 1] }), labels: tensor([0n]), indices: [0] };
    const loss = { forward: () => Promise.reject(new Error('no loss')) };
    // eslint-disable-next-line @typescript-eslint/require-await -- nothing to wait for
    const batches = (async function* () {
      yield batch;
    })();
    const told = await evaluate(new Means(), batches, { loss }).catch((error: unknown) => error);
    expect(told).to.have.property('message', 'no loss');
    expectThrow(() => batch.images.numel, 'ERR_SENET_DISPOSED');
    expectThrow(() => batch.labels.numel, 'ERR_SENET_DISPOSED');
  });

  it('refuses NaN, and infinities that make it, instead of saying class 0', async () => {
    for (const wrong of [
      [NaN, NaN, NaN],
      [1, 2, NaN],
      [Infinity, 1, 2],
    ]) {
      await expectRejection(
        evaluateMeans([[1, 2, 3], [1, 2, 3], [1, 2, 3], wrong]),
        'ERR_SENET_NAN_OUTPUT',
        /sample 3: .*NaN/,
      );
    }
  });
});
