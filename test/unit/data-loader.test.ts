/** The loader: order, batches, resuming, prefetching, ownership of tensors, abort, corrupt samples, errors. */
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';

import { PixelDataset, randomSplit, Subset, type Dataset, type Sample } from '../../lib/data/dataset';
import { RandomCrop, RandomHorizontalFlip, RandomResizedCrop } from '../../lib/data/geometry';
import { DataLoader, type Batch, type DataLoaderState } from '../../lib/data/loader';
import { Mixup } from '../../lib/data/mixup';
import { Random } from '../../lib/data/random';
import { RandomErasing } from '../../lib/data/random-erasing';
import { Compose, Grayscale, ToTensor, type Transform } from '../../lib/data/transforms';
import { makeError } from '../../lib/errors';
import { cuda } from '../../lib/tensor/cuda';
import { rand, tensor, zeros } from '../../lib/tensor/factories';
import { memory } from '../../lib/tensor/runtime';
import { gradEnabled, noGrad, tidy } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';

/** 2 x 4 x 5 images whose pixels are all different from those of the others. */
function pixels(count: number): PixelDataset {
  const data = Uint8Array.from({ length: count * 40 }, (_, index) => Math.imul(index + 7, 2654435761) >>> 24);
  const labels = Array.from({ length: count }, (_, index) => index % 3);
  return new PixelDataset(data, labels, [2, 4, 5], ['a', 'b', 'c']);
}

/** The same, one by one only, after a while that differs from image to image. */
function slowly(dataset: PixelDataset, milliseconds = 3): Dataset {
  return {
    length: dataset.length,
    async get(index) {
      await delay((index * 7) % (milliseconds + 1));
      return dataset.get(index);
    },
  };
}

interface Seen {
  indices: readonly number[];
  labels: number[];
  images: number[];
}

function see(batch: Batch): Seen {
  const seen = {
    indices: batch.indices,
    labels: numbers(batch.labels),
    images: numbers(batch.images),
  };
  batch.images.dispose();
  batch.labels.dispose();
  return seen;
}

async function epochOf(loader: DataLoader): Promise<Seen[]> {
  const all: Seen[] = [];
  for await (const batch of loader) all.push(see(batch));
  return all;
}

const augmentation = (): Transform =>
  new Compose([new RandomCrop({ size: [4, 5], padding: 1 }), new RandomHorizontalFlip()]);

describe('DataLoader', () => {
  let before = 0;
  beforeEach(() => (before = memory().tensors));
  /** Every tensor that a test made is gone. Other tests' may be collected in the meantime. */
  const expectNoLeak = (): void => {
    expect(memory().tensors).to.be.at.most(before);
  };
  /** Batches that were being made when nobody wanted them any more take a while to end. */
  const expectNoLeakSoon = async (): Promise<void> => {
    for (let wait = 0; wait < 1000 && memory().tensors > before; wait++) await delay(5);
    expectNoLeak();
  };

  it('gives all samples in order, float32 in 0..1, the last batch as it is', async () => {
    const dataset = pixels(7);
    const loader = new DataLoader(dataset, { batchSize: 3 });
    expect(loader.length).to.equal(3);
    const batches: Batch[] = [];
    for await (const batch of loader) batches.push(batch);
    expect(batches.map(({ indices }) => indices)).to.deep.equal([[0, 1, 2], [3, 4, 5], [6]]);
    const [first, , last] = batches as [Batch, Batch, Batch];
    expect([first.images.dtype, first.labels.dtype]).to.deep.equal(['float32', 'int64']);
    expect([first.images.shape, last.images.shape]).to.deep.equal([
      [3, 2, 4, 5],
      [1, 2, 4, 5],
    ]);
    expect(first.labels.toArray()).to.deep.equal([0n, 1n, 2n]);
    const { image } = dataset.get(4);
    const expected = numbers(image).map((value) => Math.fround(value / 255));
    const actual = (batches[1] as Batch).images.select(0, 1);
    expect(numbers(actual)).to.deep.equal(expected);
    for (const one of [image, actual]) one.dispose();
    for (const batch of batches) see(batch);
    expectNoLeak();
  });

  it('dropLast leaves out what is no full batch', async () => {
    const loader = new DataLoader(pixels(7), { batchSize: 3, dropLast: true });
    expect(loader.length).to.equal(2);
    expect((await epochOf(loader)).map(({ indices }) => indices)).to.deep.equal([
      [0, 1, 2],
      [3, 4, 5],
    ]);
  });

  it('shuffles anew in each epoch, by the seed alone', async () => {
    const order = async (seed: number, epochs: number): Promise<number[][]> => {
      const loader = new DataLoader(pixels(20), { batchSize: 6, shuffle: true, seed });
      const orders = [];
      for (let epoch = 0; epoch < epochs; epoch++)
        orders.push((await epochOf(loader)).flatMap(({ indices }) => indices));
      return orders;
    };
    const [first, second] = (await order(1, 2)) as [number[], number[]];
    for (const one of [first, second]) {
      expect([...one].sort((a, b) => a - b)).to.deep.equal(Array.from({ length: 20 }, (_, index) => index));
    }
    expect(first).to.not.deep.equal(second);
    expect(await order(1, 2)).to.deep.equal([first, second]);
    expect(await order(2, 1)).to.not.deep.equal([first]);
  });

  it('makes the same pixels in one piece, one by one, with any prefetch and any timing', async () => {
    const dataset = pixels(13);
    const options = { batchSize: 4, shuffle: true, seed: 5, transform: augmentation() };
    const expected = await epochOf(new DataLoader(dataset, options));
    for (const prefetch of [0, 1, 5])
      expect(await epochOf(new DataLoader(slowly(dataset), { ...options, prefetch }))).to.deep.equal(
        expected,
      );
    // A sample's augmentation depends on its index and the epoch, not on its batch.
    const ordered = await epochOf(new DataLoader(dataset, { ...options, shuffle: false, batchSize: 13 }));
    const [all] = ordered as [Seen];
    for (const { indices, images } of expected) {
      indices.forEach((index, place) =>
        expect(images.slice(place * 40, place * 40 + 40)).to.deep.equal(
          all.images.slice(index * 40, index * 40 + 40),
        ),
      );
    }
    expectNoLeak();
  });

  it('resumes anywhere: the rest of the epoch and the next are the same', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 11 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 0, max: 2 ** 40 }),
        fc.nat(20),
        fc.boolean(),
        async (count, batchSize, seed, steps, asMap) => {
          const make = (own: number): DataLoader =>
            new DataLoader(pixels(count), {
              ...{ batchSize, shuffle: true, seed: own, transform: augmentation() },
              batchTransform: new Mixup({ numClasses: 3 }),
            });
          const whole: Seen[][] = [];
          const states: DataLoaderState[] = [make(seed).stateDict()];
          const loader = make(seed);
          for (let epoch = 0; epoch < 3; epoch++) {
            const seen: Seen[] = [];
            for await (const batch of loader) {
              seen.push(see(batch));
              states.push(loader.stateDict());
            }
            whole.push(seen);
          }
          const at = states[steps % states.length] as DataLoaderState;
          const other = make(99);
          const kept = JSON.parse(JSON.stringify(at)) as DataLoaderState;
          other.loadStateDict(asMap ? new Map<unknown, unknown>(Object.entries(kept)) : kept);
          expect(other.stateDict()).to.deep.equal(at);
          const rest = await epochOf(other);
          expect(rest).to.deep.equal(whole[at.epoch]?.slice(at.position));
          if (at.epoch < 2) expect(await epochOf(other)).to.deep.equal(whole[at.epoch + 1]);
        },
      ),
      { numRuns: 25 },
    ));

  it('a loop that is left stays where it was until the next begins a new epoch', async () => {
    const loader = new DataLoader(slowly(pixels(9)), { batchSize: 2, shuffle: true, prefetch: 3 });
    const firstOfEpoch = [];
    for (let epoch = 0; epoch < 3; epoch++) {
      for await (const batch of loader) {
        firstOfEpoch.push(see(batch).indices);
        break;
      }
      expect(loader.stateDict()).to.include({ epoch, position: 1 });
      expectNoLeak();
    }
    expect(new Set(firstOfEpoch.map(String)).size).to.equal(3);
  });

  it('makes batches ahead, as many as it is told and no more', async () => {
    for (const prefetch of [0, 1, 3]) {
      let asked = 0;
      const dataset = pixels(40);
      const counted: Dataset = {
        length: 40,
        get: (index) => {
          asked++;
          return dataset.get(index);
        },
      };
      const iterator = new DataLoader(counted, { batchSize: 2, prefetch })[Symbol.asyncIterator]();
      expect(asked).to.equal(0);
      const { value } = (await iterator.next()) as { value: Batch };
      while (asked < 2 + 2 * prefetch) await delay(1);
      await delay(20);
      expect(asked).to.equal(2 + 2 * prefetch);
      see(value);
      await iterator.return?.();
      expectNoLeak();
    }
  });

  it('batches belong to whoever takes them, whatever scope the iteration began in', async () => {
    const loader = new DataLoader(slowly(pixels(8)), { batchSize: 2, prefetch: 2 });
    const iterator = loader[Symbol.asyncIterator]();
    // Those made ahead inside this scope must outlive it.
    const kept = await tidy(async () => {
      const first = (await iterator.next()).value as Batch;
      const second = (await iterator.next()).value as Batch;
      await delay(30);
      expect(first.images.shape).to.deep.equal([2, 2, 4, 5]);
      return second;
    });
    expect(kept.images.toTypedArray().length).to.equal(80);
    const third = (await iterator.next()).value as Batch;
    expect(third.images.toTypedArray().length).to.equal(80);
    for (const batch of [kept, third]) see(batch);
    await iterator.return?.();
    expectNoLeak();

    let withGrad = true;
    const transform: Transform = {
      forward(images) {
        withGrad &&= gradEnabled();
        return images;
      },
    };
    await noGrad(async () => {
      for await (const batch of new DataLoader(pixels(4), { batchSize: 2, transform })) {
        expect(batch.images.requiresGrad).to.equal(false);
        expect(gradEnabled()).to.equal(false);
        see(batch);
      }
    });
    for await (const batch of new DataLoader(pixels(4), { transform })) {
      expect(gradEnabled()).to.equal(true);
      see(batch);
    }
    expect(withGrad).to.equal(false);
    expectNoLeak();
  });

  it('does not grow in a loop', async () => {
    const transform = new Compose([
      new RandomResizedCrop({ size: 6 }),
      new RandomHorizontalFlip(),
      new ToTensor(),
      new RandomErasing(),
    ]);
    const loader = new DataLoader(slowly(pixels(12), 0), { batchSize: 5, shuffle: true, transform });
    for (let epoch = 0; epoch < 20; epoch++) {
      for await (const batch of loader) {
        // The batch, and at most those made ahead with what one in the making holds for a moment.
        expect(memory().tensors - before).to.be.at.most(60);
        see(batch);
      }
      expectNoLeak();
    }
  });

  it('abort ends an iteration at once, whatever is in the making', async () => {
    const controller = new AbortController();
    let seenSignal: AbortSignal | undefined;
    const stuck: Dataset = {
      length: 10,
      get: (index, options) => {
        seenSignal = options?.signal;
        if (index < 2) return { image: zeros([1, 2, 2]), label: 0 };
        return new Promise((_, reject) => {
          options?.signal?.addEventListener('abort', () => reject(new Error('given up')));
        });
      },
    };
    const loader = new DataLoader(stuck, { batchSize: 2, signal: controller.signal });
    const iterator = loader[Symbol.asyncIterator]();
    see((await iterator.next()).value as Batch);
    const next = iterator.next();
    controller.abort(new Error('enough'));
    const error = await expectRejection(next, 'ERR_SENET_ABORTED');
    expect((error.cause as Error).message).to.equal('enough');
    expect(seenSignal?.aborted).to.equal(true);
    expect(await iterator.next()).to.deep.equal({ done: true, value: undefined });
    expect(loader.stateDict()).to.include({ epoch: 0, position: 1 });
    await expectRejection(loader[Symbol.asyncIterator]().next(), 'ERR_SENET_ABORTED');
    await expectNoLeakSoon();
  });

  it('errors come where they belong: batches before them are given out', async () => {
    const dataset = pixels(10);
    const failing: Dataset = {
      length: 10,
      get(index) {
        if (index === 5) throw new Error('sample 5 is bad');
        return dataset.get(index);
      },
    };
    const seen: (readonly number[])[] = [];
    let message = '';
    try {
      for await (const batch of new DataLoader(failing, { batchSize: 2, prefetch: 4 }))
        seen.push(see(batch).indices);
    } catch (error) {
      ({ message } = error as Error);
    }
    expect(seen).to.deep.equal([
      [0, 1],
      [2, 3],
    ]);
    expect(message).to.equal('sample 5 is bad');
    expectNoLeak();
  });

  it('an error that nobody waits for is no unhandled rejection', async () => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', listener);
    try {
      const dataset = pixels(10);
      const failing: Dataset = {
        length: 10,
        async get(index) {
          await delay(1);
          if (index > 1) throw new Error('bad');
          return dataset.get(index);
        },
      };
      for await (const batch of new DataLoader(failing, { batchSize: 2, prefetch: 4 })) {
        see(batch);
        await delay(30);
        break;
      }
      await delay(10);
    } finally {
      process.off('unhandledRejection', listener);
    }
    expect(unhandled).to.deep.equal([]);
    await expectNoLeakSoon();
  });

  it('skipCorrupt leaves out, counts and lists; other errors stay errors', async () => {
    const dataset = pixels(9);
    const corrupt = new Set([1, 6, 7]);
    const damaged: Dataset = {
      length: 9,
      get(index) {
        if (corrupt.has(index)) throw makeError('ERR_SENET_IMAGE', `${index}.jpg: cannot be decoded`);
        return dataset.get(index);
      },
    };
    await expectRejection(epochOf(new DataLoader(damaged, { batchSize: 3 })), 'ERR_SENET_IMAGE', /1\.jpg/);
    const loader = new DataLoader(damaged, { batchSize: 2, skipCorrupt: true });
    for (let epoch = 0; epoch < 2; epoch++) {
      const indices = (await epochOf(loader)).map((seen) => seen.indices);
      expect(indices).to.deep.equal([[0], [2, 3], [4, 5], [8]]);
    }
    expect(loader.skipped.map(({ index, message }) => [index, message])).to.deep.equal(
      [1, 6, 7].map((index) => [index, `${index}.jpg: cannot be decoded`]),
    );
    const denied: Dataset = {
      length: 1,
      get: () => {
        throw makeError('ERR_SENET_FILE', '0.jpg: permission denied');
      },
    };
    await expectRejection(epochOf(new DataLoader(denied, { skipCorrupt: true })), 'ERR_SENET_FILE');
    expectNoLeak();
  });

  it('reads one sample at a time that is larger than the memory for pixels, and small ones together', async () => {
    const GIGABYTE = 2 ** 30;
    let [inside, most, small] = [0, 0, 0];
    const inTransform: Transform = {
      forward: async (images) => {
        await turn();
        inside--;
        return images.add(0);
      },
    };
    const dataset: Dataset = {
      length: 12,
      get: async (index, options) => {
        if (index < 6) {
          // In two pieces, none of which waits for the other.
          await Promise.all([options?.reserve?.(GIGABYTE), options?.reserve?.(GIGABYTE)]);
          most = Math.max(most, ++inside);
        } else {
          await options?.reserve?.(1000);
          small = Math.max(small, ++inside);
        }
        await turn();
        return { image: zeros([3, 4, 4], { dtype: 'uint8' }), label: index };
      },
    };
    const loader = new DataLoader(
      new Subset(
        dataset,
        Array.from({ length: 12 }, (_, index) => index),
      ),
      {
        batchSize: 6,
        transform: inTransform,
      },
    );
    const labels: number[] = [];
    for await (const batch of loader) labels.push(...Array.from(batch.labels.toTypedArray(), Number));
    expect(labels).to.deep.equal(Array.from({ length: 12 }, (_, index) => index));
    expect([most, small]).to.deep.equal([1, 6]);
  });

  it('takes arrays, whose tensors it leaves alone', async () => {
    const samples = Array.from({ length: 5 }, (_, index) => ({
      image: zeros([1, 3, 3]).add(index),
      label: index,
    }));
    for (let epoch = 0; epoch < 2; epoch++) {
      const seen = await epochOf(
        new DataLoader(samples, { batchSize: 2, transform: new Grayscale({ outputChannels: 3 }) }),
      );
      expect(seen.map(({ images }) => images.length)).to.deep.equal([54, 54, 27]);
      expect(seen.flatMap(({ labels }) => labels)).to.deep.equal([0, 1, 2, 3, 4]);
    }
    // A batch of one is a copy, too.
    for await (const { images, labels } of new DataLoader(samples)) {
      images.fill_(77);
      images.dispose();
      labels.dispose();
    }
    expect(samples.map(({ image }) => image.mean().item())).to.deep.equal([0, 1, 2, 3, 4]);
  });

  it('takes async iterables: order, last batch, resuming, ending early', async () => {
    const kept: Tensor[] = [];
    let ended = 0;
    const stream: AsyncIterable<Sample> = {
      async *[Symbol.asyncIterator]() {
        try {
          // Read in pieces, as from a file: tensors wait here until their turn comes.
          for (let piece = 0; piece < 3; piece++) {
            await delay(1);
            const images = Array.from({ length: 3 }, (_, place) => tensor([[[piece * 3 + place]]]));
            kept.push(...images);
            for (const [place, image] of images.entries()) yield { image, label: piece * 3 + place };
          }
        } finally {
          ended++;
        }
      },
    };
    const labelsOf = async (loader: DataLoader): Promise<number[][]> =>
      (await epochOf(loader)).map(({ labels, images, indices }) => {
        expect(images).to.deep.equal(labels);
        expect(indices).to.deep.equal(labels);
        return labels;
      });
    const loader = new DataLoader(stream, { batchSize: 4 });
    expect(await tidy(() => labelsOf(loader))).to.deep.equal([[0, 1, 2, 3], [4, 5, 6, 7], [8]]);
    expect(await labelsOf(new DataLoader(stream, { batchSize: 4, dropLast: true }))).to.have.length(2);
    const exact = new DataLoader(stream, { batchSize: 3, dropLast: true });
    expect(await labelsOf(exact)).to.have.length(3);
    expect(loader.stateDict()).to.include({ epoch: 1, position: 0, samples: null });
    loader.loadStateDict({ ...loader.stateDict(), position: 1 });
    expect(await labelsOf(loader)).to.deep.equal([[4, 5, 6, 7], [8]]);
    expect(ended).to.equal(4);
    for await (const batch of loader) {
      see(batch);
      break;
    }
    expect(ended).to.equal(5);
    expectThrow(() => loader.length, 'ERR_SENET_ARG_TYPE', /not known/);
    expectThrow(() => new DataLoader(stream, { shuffle: true }), 'ERR_SENET_ARG_TYPE', /own order/);
    for (const one of kept) one.dispose();
    expectNoLeak();
  });

  it('collate makes batches of anything', async () => {
    const words = ['a', 'bc', 'def', 'g'];
    const loader = new DataLoader(words, {
      batchSize: 3,
      collate: (samples: string[], indices) => ({ text: samples.join('-'), indices }),
    });
    const seen = [];
    for await (const batch of loader) seen.push(batch);
    expect(seen).to.deep.equal([
      { text: 'a-bc-def', indices: [0, 1, 2] },
      { text: 'g', indices: [3] },
    ]);
    const images = new DataLoader(pixels(4), {
      batchSize: 2,
      transform: new ToTensor(),
      collate: (samples) => samples.map(({ image }) => image.sum()),
    });
    for await (const sums of images) {
      expect(sums).to.have.length(2);
      for (const sum of sums) sum.dispose();
    }
    expectNoLeak();
  });

  it('gives out whatever collate makes', async () => {
    for (const made of [null, undefined, 0, '']) {
      const seen: unknown[] = [];
      const loader = new DataLoader([1, 2, 3], { batchSize: 2, collate: () => made });
      for await (const batch of loader) seen.push(batch);
      expect(seen).to.deep.equal([made, made]);
    }
  });

  it('takes the order of a sampler as a typed array too', async () => {
    for (const Typed of [Int32Array, Uint32Array, Float64Array]) {
      const sampler = { length: 3, order: () => Typed.of(2, 0, 1) as unknown as number[] };
      const options = { batchSize: 2, sampler, transform: new RandomHorizontalFlip() };
      const batches = await epochOf(new DataLoader(pixels(3), options));
      expect(batches.map(({ indices }) => indices)).to.deep.equal([[2, 0], [1]]);
    }
  });

  it('takes samples, and gives batches, of any class', async () => {
    class Photo {
      image = rand([3, 4, 4]);
      label = 1;
    }
    class Pile {
      constructor(readonly images: Tensor) {}
    }
    for await (const batch of new DataLoader({ length: 4, get: () => new Photo() }, { batchSize: 2 })) {
      expect(batch.images.toTypedArray()).to.have.lengthOf(2 * 48);
      see(batch);
    }
    const collate = (samples: Photo[]): Pile => new Pile(Tensor.stack(samples.map(({ image }) => image)));
    for await (const pile of new DataLoader(
      { length: 4, get: () => new Photo() },
      { batchSize: 2, collate },
    )) {
      expect(pile).to.be.instanceOf(Pile);
      expect(pile.images.toTypedArray()).to.have.lengthOf(2 * 48);
      pile.images.dispose();
    }
    await expectNoLeakSoon();
  });

  it('return ends a next that waits, without an error', async () => {
    let release = (): void => undefined;
    const image = zeros([1, 2, 2]);
    const slow: Dataset = {
      length: 2,
      get: () => new Promise((resolve) => (release = () => resolve({ image, label: 0 }))),
    };
    const iterator = new DataLoader(slow, { batchSize: 1 })[Symbol.asyncIterator]();
    const next = iterator.next();
    for (let turn = 0; turn < 5; turn++) await delay(1);
    const ended = iterator.return?.();
    void iterator.return?.(); // once more changes nothing
    expect(await next).to.deep.equal({ done: true, value: undefined });
    release();
    await ended;
    image.dispose();
    await expectNoLeakSoon();
  });

  it('Mixup makes probabilities of labels', async () => {
    const loader = new DataLoader(pixels(6), { batchSize: 3, batchTransform: new Mixup({ numClasses: 3 }) });
    for await (const { images, labels } of loader) {
      expect(labels.shape).to.deep.equal([3, 3]);
      expect(images.shape).to.deep.equal([3, 2, 4, 5]);
      for (const row of labels.toArray() as number[][])
        expect(row.reduce((sum, share) => sum + share, 0)).to.be.closeTo(1, 1e-6);
      images.dispose();
      labels.dispose();
    }
    expectNoLeak();
  });

  it('lets the event loop live while it works on this thread', async () => {
    const dataset = new PixelDataset(
      new Uint8Array(300 * 3 * 64 * 64),
      new Uint8Array(300),
      [3, 64, 64],
      ['a'],
    );
    const oneByOne: Dataset = { length: 300, get: (index) => dataset.get(index) };
    let turns = 0;
    let counting = true;
    const count = (): void => {
      turns++;
      if (counting) setImmediate(count);
    };
    setImmediate(count);
    // A millisecond of work on this thread for each sample, whatever the machine.
    const transform: Transform = {
      forward(images) {
        for (const start = performance.now(); performance.now() - start < 1;);
        return images;
      },
    };
    await epochOf(new DataLoader(oneByOne, { batchSize: 300, transform }));
    counting = false;
    expect(turns).to.be.at.least(20);
  });

  it('refuses what it cannot batch, saying where', async () => {
    const batchesOf = (samples: unknown[], options = {}): Promise<unknown> =>
      epochOf(new DataLoader(samples as Sample[], { batchSize: 2, ...options }));
    const image = zeros([1, 2, 2]);
    await expectRejection(
      batchesOf([
        { image, label: 0 },
        { image: zeros([1, 3, 2]), label: 0 },
      ]),
      'ERR_SENET_SHAPE',
      /sample 0 is 1 x 2 x 2, sample 1 is 1 x 3 x 2.*RandomResizedCrop/,
    );
    await expectRejection(
      batchesOf([{ image: zeros([2, 2]), label: 0 }]),
      'ERR_SENET_SHAPE',
      /channels x height/,
    );
    await expectRejection(batchesOf([7]), 'ERR_SENET_ARG_TYPE', /sample 0.*collate/);
    await expectRejection(batchesOf([7], { transform: new ToTensor() }), 'ERR_SENET_ARG_TYPE', /sample 0/);
    await expectRejection(batchesOf([{ image, label: 1.5 }]), 'ERR_SENET_LABELS', /integer/);
    await expectRejection(batchesOf([{ image }]), 'ERR_SENET_LABELS');
    expectThrow(() => new DataLoader([]), 'ERR_SENET_DATASET', /no samples/);
    expectThrow(
      () => new DataLoader(pixels(3), { batchSize: 4, dropLast: true }),
      'ERR_SENET_DATASET',
      /3 samples.*full batch of 4/,
    );
    expectThrow(() => new DataLoader(7 as never), 'ERR_SENET_ARG_TYPE');
    for (const batch of [
      null,
      {},
      { images: zeros([2, 1, 2, 2]), labels: [1] },
      { images: zeros([1, 1, 2, 2]), labels: [1, 2] },
      { images: null, labels: [1, 2] },
    ]) {
      const dataset = { length: 2, get: () => ({ image, label: 0 }), getBatch: () => batch as never };
      await expectRejection(
        epochOf(new DataLoader(dataset, { batchSize: 2 })),
        'ERR_SENET_ARG_TYPE',
        /getBatch: expected \{ images, labels \} of 2 samples/,
      );
    }
    for (const made of [null, {}, undefined]) {
      const nothing = { forward: () => Promise.resolve(made as never) };
      for (const options of [{ transform: nothing }, { batchTransform: nothing }])
        await expectRejection(epochOf(new DataLoader(pixels(3), options)), 'ERR_SENET_ARG_TYPE', /ransform/);
      const samples = [{ image, label: 0 }];
      for (const transform of [nothing, new Compose([nothing, new ToTensor()])])
        await expectRejection(batchesOf(samples, { transform }), 'ERR_SENET_ARG_TYPE', /ransform: expected/);
    }
    // Of two images for one, the second would be lost.
    for (const count of [0, 2]) {
      const wrong = { forward: () => zeros([count, 1, 2, 2]) };
      for (const source of [[{ image, label: 0 }], pixels(3)])
        await expectRejection(
          epochOf(new DataLoader(source, { transform: wrong })),
          'ERR_SENET_SHAPE',
          /as many images from it as it is given, 1, got the shape \[/,
        );
    }
    for (const order of [null, 7])
      await expectRejection(
        epochOf(new DataLoader(pixels(3), { sampler: { length: 3, order: () => order as never } })),
        'ERR_SENET_ARG_TYPE',
        /indices from the sampler/,
      );
    const holes = { length: 3, order: () => [0, undefined, 1] as never };
    await expectRejection(
      epochOf(new DataLoader(pixels(3), { sampler: holes })),
      'ERR_SENET_ARG_RANGE',
      /undefined, which is no index/,
    );
    expectThrow(() => new DataLoader({ length: -3, get: () => 7 }), 'ERR_SENET_ARG_TYPE', /length and get/);
    expectThrow(
      () => new DataLoader(pixels(3), { sampler: { length: -3, order: () => [] } }),
      'ERR_SENET_ARG_TYPE',
      /sampler/,
    );
    const own = { collate: (samples: unknown[]) => samples, pinMemory: true };
    expectThrow(() => new DataLoader([7], own), 'ERR_SENET_ARG_TYPE', /pinMemory/);
    if (!cuda.isAvailable())
      expectThrow(() => new DataLoader([7], { pinMemory: true }), 'ERR_SENET_CUDA_UNAVAILABLE', /doctor/);
    expectThrow(
      () => new DataLoader(pixels(3), { batchsize: 4 } as never),
      'ERR_SENET_UNKNOWN_OPTION',
      /batchSize/,
    );
    for (const [option, value] of Object.entries({ batchSize: 0, seed: -1, prefetch: 65 }))
      expectThrow(
        () => new DataLoader(pixels(3), { [option]: value }),
        'ERR_SENET_ARG_RANGE',
        new RegExp(option),
      );
    for (const [option, value] of Object.entries({ shuffle: 1, transform: {}, collate: 'x', signal: {} }))
      expectThrow(
        () => new DataLoader(pixels(3), { [option]: value }),
        'ERR_SENET_ARG_TYPE',
        new RegExp(option),
      );
  });

  it('refuses the state of another run', () => {
    const loader = new DataLoader(pixels(10), { batchSize: 3, shuffle: true });
    const state = loader.stateDict();
    for (const [name, value] of Object.entries({ samples: 11, batchSize: 4, shuffle: false, dropLast: true }))
      expectThrow(
        () => loader.loadStateDict({ ...state, [name]: value }),
        'ERR_SENET_RESUME',
        new RegExp(name),
      );
    expectThrow(() => loader.loadStateDict({ ...state, position: 5 }), 'ERR_SENET_ARG_RANGE', /position/);
    expectThrow(() => loader.loadStateDict({ ...state, epoch: -1 }), 'ERR_SENET_ARG_RANGE', /epoch/);
    expectThrow(() => loader.loadStateDict(null as never), 'ERR_SENET_ARG_TYPE');
    expect(loader.stateDict()).to.deep.equal(state);
  });
});

describe('Subset and randomSplit', () => {
  it('show a part of a data set, in one piece and one by one', async () => {
    const dataset = pixels(10);
    const part = new Subset(dataset, [7, 2, 2]);
    expect([part.length, part.classes]).to.deep.equal([3, ['a', 'b', 'c']]);
    const [whole] = (await epochOf(new DataLoader(dataset, { batchSize: 10 }))) as [Seen];
    const [seen] = (await epochOf(new DataLoader(part, { batchSize: 3 }))) as [Seen];
    expect(seen.indices).to.deep.equal([0, 1, 2]);
    expect(seen.labels).to.deep.equal([1, 2, 2]);
    expect(seen.images).to.deep.equal(
      [7, 2, 2].flatMap((index) => whole.images.slice(index * 40, index * 40 + 40)),
    );
    const [single] = (await epochOf(
      new DataLoader(new Subset(slowly(dataset), [7, 2, 2]), { batchSize: 3 }),
    )) as [Seen];
    expect(single).to.deep.equal(seen);
    expectThrow(() => new Subset(dataset, [10]), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => dataset.get(-1), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => dataset.getBatch([3, 10]), 'ERR_SENET_ARG_RANGE');
  });

  it('split by lengths and fractions, by the seed', () => {
    const dataset = pixels(11);
    const parts = (lengths: number[], seed?: number): number[][] =>
      randomSplit(dataset, lengths, seed).map(({ indices }) => [...indices]);
    const split = parts([8, 3]);
    expect(split.map(({ length }) => length)).to.deep.equal([8, 3]);
    expect(split.flat().sort((a, b) => a - b)).to.deep.equal(Array.from({ length: 11 }, (_, index) => index));
    expect(parts([8, 3])).to.deep.equal(split);
    expect(parts([8, 3], 1)).to.not.deep.equal(split);
    expect(parts([0.5, 0.3, 0.2]).map(({ length }) => length)).to.deep.equal([6, 3, 2]);
    expectThrow(() => randomSplit(dataset, [8, 4]), 'ERR_SENET_ARG_RANGE', /11.*12/);
    expectThrow(() => randomSplit(dataset, [0.5, 0.6]), 'ERR_SENET_ARG_RANGE');
  });

  it('PixelDataset refuses what is no pixels, sizes, labels or names', () => {
    const good = [new Uint8Array(4), [0], [1, 2, 2], ['a']] as const;
    for (const [place, wrong, code] of [
      [0, null, 'ERR_SENET_ARG_TYPE'],
      [0, new Float32Array(4), 'ERR_SENET_ARG_TYPE'], // batches would round them down
      [0, [0, 0, 0, 0], 'ERR_SENET_ARG_TYPE'],
      [1, null, 'ERR_SENET_ARG_TYPE'],
      [1, '0', 'ERR_SENET_ARG_TYPE'],
      [2, null, 'ERR_SENET_ARG_TYPE'],
      [2, [2, 2], 'ERR_SENET_ARG_RANGE'],
      [2, [1, 2, -2], 'ERR_SENET_ARG_RANGE'],
      [3, null, 'ERR_SENET_ARG_TYPE'],
      [3, 'a', 'ERR_SENET_ARG_TYPE'],
    ] as const) {
      const given = good.map((value, at) => (at === place ? wrong : value));
      const words = ['pixels', 'labels', 'shape', 'classes'][place] as string;
      expectThrow(
        () => new PixelDataset(...(given as unknown as ConstructorParameters<typeof PixelDataset>)),
        code,
        new RegExp(`PixelDataset: ${words}`),
      );
    }
    expect(new PixelDataset(new Uint8ClampedArray(4) as never, [0], [1, 2, 2], ['a']).length).to.equal(1);
  });

  it('PixelDataset refuses pixels and labels that do not belong together', () => {
    expectThrow(
      () => new PixelDataset(new Uint8Array(5), [0], [1, 2, 2], ['a']),
      'ERR_SENET_SHAPE',
      /4 pixels, got 5/,
    );
    expectThrow(
      () => new PixelDataset(new Uint8Array(4), [1], [1, 2, 2], ['a']),
      'ERR_SENET_LABELS',
      /image 0.*label 1/,
    );
  });
});

describe('Random', () => {
  it('is the same for the same seeds, and differs for others', () => {
    const first = (...seeds: number[]): number[] => {
      const random = new Random(...seeds);
      return Array.from({ length: 4 }, () => random.uint32());
    };
    // Recorded: saved runs depend on these numbers.
    expect(first(1, 2, 3)).to.deep.equal([2628290732, 3036226906, 2548057122, 683444939]);
    const others = [[1, 2, 3], [1, 3, 2], [1, 2], [1, 2, 3, 0], [0], [], [2 ** 32], [2 ** 53 - 1], [0, 0]];
    expect(new Set(others.map((seeds) => first(...seeds).join())).size).to.equal(others.length);
    expectThrow(() => new Random(-1), 'ERR_SENET_ARG_TYPE');
    for (const [low, high] of [
      [0, 0],
      [0, NaN],
      [0, -1],
      [0, 2 ** 33],
      [0.5, 2],
      [undefined, 3],
    ])
      expectThrow(() => new Random(1).integer(low as number, high as number), 'ERR_SENET_ARG_RANGE');
    for (const bound of ['1', NaN, 1n, Symbol('1'), Infinity] as unknown[] as number[]) {
      expectThrow(() => new Random(1).uniform(bound, 2), 'ERR_SENET_ARG_RANGE', /uniform/);
      expectThrow(() => new Random(1).integer(bound, 2), 'ERR_SENET_ARG_RANGE', /integer/);
    }
    for (const shape of [NaN, 0, -1, Infinity])
      expectThrow(() => new Random(1).beta(shape, 1), 'ERR_SENET_ARG_RANGE');
    for (const count of [-1, 0.5, 2 ** 32])
      expectThrow(() => new Random(1).permutation(count), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Random(0.5), 'ERR_SENET_ARG_TYPE');
  });

  it('draws from the distributions that it names', () => {
    const count = 20_000;
    const moments = (draw: (random: Random) => number): [number, number] => {
      let [sum, squares] = [0, 0];
      for (let index = 0; index < count; index++) {
        const value = draw(new Random(7, index));
        sum += value;
        squares += value * value;
      }
      return [sum / count, squares / count - (sum / count) ** 2];
    };
    const expectMoments = (draw: (random: Random) => number, mean: number, variance: number): void => {
      const [actualMean, actualVariance] = moments(draw);
      expect(actualMean).to.be.closeTo(mean, 5 * Math.sqrt(variance / count));
      expect(actualVariance).to.be.closeTo(variance, 0.1 * variance);
    };
    // Of generators with neighbouring seeds: this is how they are used.
    expectMoments((random) => random.uniform(), 1 / 2, 1 / 12);
    expectMoments((random) => random.uniform(-2, 4), 1, 3);
    expectMoments((random) => random.normal(), 0, 1);
    expectMoments((random) => random.integer(3, 8), 5, 2);
    expectMoments((random) => random.beta(2, 3), 0.4, 0.04);
    expectMoments((random) => random.beta(0.2, 0.2), 0.5, 0.25 / 1.4);
    expectMoments((random) => random.permutation(10).indexOf(0), 4.5, 8.25);
    expect(new Random(1).beta(1e-300, 1e-300)).to.be.oneOf([0, 1]);
  });
});
