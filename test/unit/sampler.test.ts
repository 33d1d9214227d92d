/** Samplers: what is drawn how often, what is refused, and what a loader does with an order. */
import { expect } from 'chai';

import { PixelDataset } from '../../lib/data/dataset';
import { RandomCrop } from '../../lib/data/geometry';
import { DataLoader, type DataLoaderOptions } from '../../lib/data/loader';
import { Random } from '../../lib/data/random';
import { WeightedRandomSampler, type Sampler } from '../../lib/data/sampler';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

const counted = (order: readonly number[], count: number): number[] =>
  Array.from({ length: count }, (_, index) => order.filter((one) => one === index).length);

const images = (count: number): PixelDataset =>
  new PixelDataset(
    Uint8Array.from({ length: count * 16 }, (_, index) => Math.imul(index + 7, 2654435761) >>> 24),
    Array.from({ length: count }, (_, index) => (index === 0 ? 0 : 1)),
    [1, 4, 4],
    ['rare', 'common'],
  );

async function seen(loader: DataLoader): Promise<{ indices: number[]; pixels: number[][] }> {
  const all = { indices: [] as number[], pixels: [] as number[][] };
  for await (const batch of loader) {
    all.indices.push(...batch.indices);
    const [size = 0] = batch.images.shape;
    for (let i = 0; i < size; i++) all.pixels.push(numbers(batch.images.select(0, i)));
    batch.images.dispose();
    batch.labels.dispose();
  }
  return all;
}

describe('WeightedRandomSampler', () => {
  it('draws in proportion to the weights, and never what has none', () => {
    const weights = [1, 0, 3, 0.5, 0];
    const order = new WeightedRandomSampler(weights, { numSamples: 45_000 }).order(new Random(1));
    const counts = counted(order, 5);
    expect([counts[1], counts[4]]).to.deep.equal([0, 0]);
    // Each within five deviations of what is expected.
    for (const [index, share] of [1 / 4.5, 0, 3 / 4.5, 0.5 / 4.5].entries()) {
      const deviation = Math.sqrt(45_000 * share * (1 - share));
      expect(counts[index], String(index)).to.be.closeTo(45_000 * share, 5 * deviation + 1e-9);
    }
  });

  it('without replacement each at most once, in proportion too', () => {
    const sampler = new WeightedRandomSampler([1, 2, 0, 1, 4], { numSamples: 2, replacement: false });
    const first = [0, 0, 0, 0, 0];
    for (let seed = 0; seed < 4000; seed++) {
      const order = sampler.order(new Random(seed));
      expect(new Set(order).size).to.equal(2);
      (first as [number])[order[0] as 0]++;
    }
    for (const [index, share] of [1 / 8, 2 / 8, 0, 1 / 8, 4 / 8].entries())
      expect(first[index], String(index)).to.be.closeTo(
        4000 * share,
        5 * Math.sqrt(4000 * share * (1 - share)) + 1e-9,
      );
  });

  it('without replacement never what has no weight, however small the others are', () => {
    for (let seed = 0; seed < 20; seed++) {
      const sampler = new WeightedRandomSampler([0, 1e-310, 1], { numSamples: 2, replacement: false });
      expect([...sampler.order(new Random(seed))].sort()).to.deep.equal([1, 2]);
    }
  });

  it('the same seed draws the same; balanced has each class as often', () => {
    const sampler = WeightedRandomSampler.balanced([0, 1, 1, 1, 1, 1, 1, 1, 2, 2], { numSamples: 30_000 });
    const order = sampler.order(new Random(3, 1));
    expect(sampler.order(new Random(3, 1))).to.deep.equal(order);
    expect(sampler.order(new Random(3, 2))).not.to.deep.equal(order);
    const counts = counted(order, 10);
    const sum = (from: number, to: number): number => counts.slice(from, to).reduce((a, b) => a + b, 0);
    for (const drawn of [sum(0, 1), sum(1, 8), sum(8, 10)]) expect(drawn).to.be.closeTo(10_000, 450);
  });

  it('refuses what are no weights', () => {
    const make = (weights: unknown, options?: object) => () =>
      new WeightedRandomSampler(weights as number[], options);
    for (const weights of [null, 'ab', {}, undefined, ['1']])
      expectThrow(make(weights), 'ERR_SENET_ARG_TYPE');
    for (const weights of [[], [0, 0], [-1, 2], [NaN], [Infinity], [Number.MAX_VALUE, Number.MAX_VALUE]])
      expectThrow(make(weights), 'ERR_SENET_ARG_RANGE');
    expectThrow(make([1], { numSamples: 0 }), 'ERR_SENET_ARG_RANGE', /numSamples/);
    expectThrow(make([1, 0, 1], { replacement: false }), 'ERR_SENET_ARG_RANGE', /3 samples.*of 2/);
    expectThrow(make([1], { replacements: false }), 'ERR_SENET_UNKNOWN_OPTION', /replacement/);
    expectThrow(() => WeightedRandomSampler.balanced([0, 0.5]), 'ERR_SENET_ARG_TYPE', /labels\[1\]/);
    expectThrow(() => WeightedRandomSampler.balanced([]), 'ERR_SENET_ARG_RANGE');
    expect(new WeightedRandomSampler(Float32Array.of(0, 1)).order(new Random(0))).to.deep.equal([1, 1]);
  });
});

describe('DataLoader with a sampler', () => {
  const options = (more: DataLoaderOptions = {}): DataLoaderOptions => ({
    batchSize: 4,
    seed: 5,
    sampler: WeightedRandomSampler.balanced(images(12).labels, { numSamples: 22 }),
    ...more,
  });

  it('has the samples of the order, another in each epoch, and goes on where it was', async () => {
    const loader = new DataLoader(images(12), options());
    expect(loader.length).to.equal(6);
    expect(new DataLoader(images(12), options({ dropLast: true })).length).to.equal(5);
    const epochs = [await seen(loader), await seen(loader)] as const;
    expect(epochs[0].indices).to.have.length(22);
    expect(epochs[0].indices).not.to.deep.equal(epochs[1].indices);
    expect(counted(epochs[0].indices, 12)[0]).to.be.above(4); // of 12 images that one is a class of its own

    const interrupted = new DataLoader(images(12), options());
    let batches = 0;
    for await (const batch of interrupted) {
      batch.images.dispose();
      batch.labels.dispose();
      if (++batches === 3) break;
    }
    const state = interrupted.stateDict();
    expect(state).to.include({ samples: 12, sampled: 22, position: 3, epoch: 0 });
    const resumed = new DataLoader(images(12), options());
    resumed.loadStateDict(state);
    expect((await seen(resumed)).indices).to.deep.equal(epochs[0].indices.slice(12));
    for (const sampler of [null, new WeightedRandomSampler(Array<number>(12).fill(1))]) {
      const other = new DataLoader(images(12), options({ sampler }));
      expectThrow(() => other.loadStateDict(state), 'ERR_SENET_RESUME', /sampled/);
    }
    // A state of before there were samplers.
    const { sampled: _, ...older } = new DataLoader(images(12)).stateDict();
    new DataLoader(images(12)).loadStateDict(older as never);
  });

  it('a sample that comes twice is augmented twice', async () => {
    const sampler: Sampler = { length: 6, order: () => [3, 3, 3, 3, 3, 3] };
    const transform = new RandomCrop({ size: [4, 4], padding: 3 });
    const { pixels } = await seen(new DataLoader(images(12), { sampler, transform, batchSize: 3 }));
    expect(new Set(pixels.map(String)).size).to.be.above(3);
    expect(
      (await seen(new DataLoader(images(12), { sampler, transform, batchSize: 3 }))).pixels,
    ).to.deep.equal(pixels);
  });

  it('refuses what is none, another order beside it, and indices that nothing has', async () => {
    const of = (more: object) => () => new DataLoader(images(12), options(more));
    expectThrow(of({ sampler: {} }), 'ERR_SENET_ARG_TYPE', /sampler/);
    expectThrow(of({ sampler: [1, 2] }), 'ERR_SENET_ARG_TYPE', /sampler/);
    expectThrow(of({ shuffle: true }), 'ERR_SENET_ARG_TYPE', /shuffle must be false/);
    expectThrow(of({ sampler: { length: 0, order: () => [] } }), 'ERR_SENET_DATASET', /no samples/);
    const stream: AsyncIterable<never> = { [Symbol.asyncIterator]: () => expect.fail('was not asked for') };
    expectThrow(() => new DataLoader(stream, options()), 'ERR_SENET_ARG_TYPE', /no sampler/);
    for (const index of [12, -1, 0.5, NaN, '1']) {
      const sampler = { length: 1, order: () => [index] };
      await expectRejection(seen(of({ sampler })()), 'ERR_SENET_ARG_RANGE', /no index of a data set of 12/);
    }
    const short = { length: 2, order: () => [1] };
    await expectRejection(seen(of({ sampler: short })()), 'ERR_SENET_ARG_RANGE', /gave 1 indices/);
    const failing = {
      length: 2,
      order: () => {
        throw new RangeError('no order');
      },
    };
    const error: unknown = await seen(of({ sampler: failing })()).catch((reason: unknown) => reason);
    expect(error).to.be.an.instanceOf(RangeError);
  });
});
