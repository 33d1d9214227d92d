/** Concurrent `classify` calls share batches: the same answers as one by one, and each call its own errors and end. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';
import sharp from 'sharp';

import {
  ImageClassifier,
  memory,
  randn,
  se_resnet20,
  tensor,
  tidy,
  zeros,
  type BatchingOptions,
  type Classification,
  type Tensor,
} from '../../lib';
import { CompiledModel } from '../../lib/nn/compiled-model';
import { bundledImages } from '../../lib/vision/bundled-images';
import { expectRejection } from '../support/errors';

const PHOTO = path.join(__dirname, '..', 'fixtures', 'images', 'photo.jpg');

/** Rounding may differ between batches of different sizes. */
function expectSame(results: readonly Classification[], expected: readonly Classification[]): void {
  expect(results.map(({ label }) => label)).to.deep.equal(expected.map(({ label }) => label));
  results.forEach(({ score }, index) => expect(score).to.be.closeTo(expected[index]?.score ?? NaN, 1e-6));
}

describe('batching', () => {
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own `this`, and put back at the end
  const plainForward = CompiledModel.prototype.forward;
  let images: string[];
  let expected: Classification[][];
  /** Shapes of what went through networks. */
  let batches: (readonly number[])[];
  /** Called when a batch's job was handed over: it has not ended, since it ends in a later turn of the event loop. */
  let onBatch: (() => void) | undefined;
  const unhandled: unknown[] = [];
  const warnings: Error[] = [];
  const onUnhandled = (error: unknown): void => void unhandled.push(error);
  const onWarning = (warning: Error): void => void warnings.push(warning);

  const load = (batching?: BatchingOptions): Promise<ImageClassifier> =>
    ImageClassifier.load('se_resnet20', {
      weights: 'fashion_mnist',
      ...(batching === undefined ? {} : { batching }),
    });

  before(async () => {
    images = await bundledImages();
    const classifier = await load();
    expected = [];
    for (const image of images) expected.push(await classifier.classify(image));
    await classifier.dispose();
    process.on('unhandledRejection', onUnhandled).on('warning', onWarning);
    CompiledModel.prototype.forward = function (x, options) {
      batches.push(x.shape);
      const job = plainForward.call(this, x, options);
      if (onBatch !== undefined) queueMicrotask(onBatch);
      return job;
    };
  });
  beforeEach(() => {
    batches = [];
    onBatch = undefined;
  });
  after(() => {
    process.off('unhandledRejection', onUnhandled).off('warning', onWarning);
    CompiledModel.prototype.forward = plainForward;
    expect(unhandled).to.deep.equal([]);
    expect(warnings.map(({ message }) => message)).to.deep.equal([]);
  });

  const sizes = (): number[] => batches.map(([count]) => count as number);

  it('32 concurrent callers get what they would get one by one', async () => {
    const classifier = await load();
    const callers = Array.from({ length: 32 }, (_, index) => index % images.length);
    const results = await Promise.all(callers.map((index) => classifier.classify(images[index] ?? '')));
    results.forEach((result, caller) => expectSame(result, expected[callers[caller] ?? 0] ?? []));
    expect(sizes().reduce((sum, size) => sum + size, 0)).to.equal(32);
    expect(Math.max(...sizes())).to.be.at.most(16);
    await classifier.dispose();
  });

  it('a lone caller goes alone; who arrives in the same turn goes along', async () => {
    const classifier = await load();
    const x = randn([3, 32, 32]);
    const alone = await classifier.classify(x);
    expect(sizes()).to.deep.equal([1]);
    batches = [];
    const together = await Promise.all(Array.from({ length: 24 }, () => classifier.classify(x)));
    expect(sizes()).to.deep.equal([16, 8]);
    for (const result of together) expectSame(result, alone);
    await classifier.dispose();
  });

  it('an array shares batches with other calls, and keeps its order', async () => {
    const classifier = await load({ maxBatch: 4 });
    const [array, one] = await Promise.all([
      classifier.classify(images),
      classifier.classify(images[3] ?? '', { topK: 2 }),
    ]);
    array.forEach((result, index) => expectSame(result, expected[index] ?? []));
    expectSame(one, (expected[3] ?? []).slice(0, 2));
    expect(Math.max(...sizes())).to.be.at.most(4);
    await classifier.dispose();
  });

  it('images of different sizes go in batches of their own', async () => {
    const model = se_resnet20();
    const classifier = await ImageClassifier.load(model, {
      preprocessing: { size: null, mean: [0.5], std: [0.25] },
    });
    const of = (height: number, width: number): Tensor => randn([3, height, width]);
    const all = [of(32, 32), of(40, 32), of(32, 32), of(32, 40), of(40, 32)];
    const alone: Classification[][] = [];
    for (const x of all) alone.push(await classifier.classify(x));
    batches = [];
    (await classifier.classify(all)).forEach((result, index) => expectSame(result, alone[index] ?? []));
    expect(batches.map((shape) => shape.join(' ')).sort()).to.deep.equal([
      '1 3 32 40',
      '2 3 32 32',
      '2 3 40 32',
    ]);
    await classifier.dispose();
    model.dispose();
  });

  it('refuses what does not fit in the queue, and takes it when there is room', async () => {
    const classifier = await load({ maxBatch: 2, maxQueue: 3 });
    const first = [0, 1, 2].map((index) => classifier.classify(images[index] ?? ''));
    await expectRejection(
      classifier.classify(images[3] ?? ''),
      'ERR_SENET_QUEUE_FULL',
      /3 images are waiting.*maxQueue is 3/,
    );
    await expectRejection(classifier.classify([images[3] ?? '']), 'ERR_SENET_QUEUE_FULL');
    (await Promise.all(first)).forEach((result, index) => expectSame(result, expected[index] ?? []));
    expectSame(await classifier.classify(images[3] ?? ''), expected[3] ?? []);
    // An array takes its images up one after the other: it may be longer than the queue.
    (await classifier.classify(images)).forEach((result, index) => expectSame(result, expected[index] ?? []));
    // Images that failed or were aborted give their places back.
    const controller = new AbortController();
    const failing = [
      classifier.classify(path.join(__dirname, 'none.png')),
      classifier.classify(images[0] ?? '', { signal: controller.signal }),
    ];
    controller.abort();
    await Promise.allSettled(failing);
    await turn();
    await Promise.all([0, 1, 2].map((index) => classifier.classify(images[index] ?? '')));
    await classifier.dispose();
  });

  it("a bad image and an abort leave the batch's other images alone", async () => {
    const classifier = await load();
    const controller = new AbortController();
    const reason = new Error('left');
    const x = randn([3, 32, 32]);
    const alone = await classifier.classify(x);
    const calls = [
      classifier.classify(x),
      classifier.classify(x, { signal: controller.signal }),
      classifier.classify(new Uint8Array([1, 2, 3])),
      classifier.classify(readFileSync(PHOTO).subarray(0, 5000)),
      classifier.classify(x),
    ];
    const settled = Promise.allSettled(calls);
    controller.abort(reason);
    const results = await settled;
    for (const index of [0, 4])
      expectSame((results[index] as PromiseFulfilledResult<Classification[]>).value, alone);
    const reasons = results.map((result) => (result.status === 'rejected' ? (result.reason as Error) : null));
    expect(reasons[1]).to.include({ name: 'AbortError', code: 'ERR_SENET_ABORTED', cause: reason });
    expect(reasons[2]).to.include({ code: 'ERR_SENET_IMAGE' });
    expect(reasons[3]).to.include({ code: 'ERR_SENET_IMAGE' });
    expect(sizes()).to.deep.equal([1, 2]); // the aborted one had not started
    await classifier.dispose();
  });

  it('an abort while the batch runs rejects its own caller only', async () => {
    const classifier = await load();
    const controller = new AbortController();
    const x = randn([3, 32, 32]);
    onBatch = () => controller.abort();
    const calls = await Promise.allSettled([
      classifier.classify(x, { signal: controller.signal }),
      classifier.classify(x),
    ]);
    expect(calls.map(({ status }) => status)).to.deep.equal(['rejected', 'fulfilled']);
    expect(sizes()).to.deep.equal([2]);
    await classifier.dispose();
  });

  it('what the network refuses goes to the images of that shape', async () => {
    const classifier = await ImageClassifier.load(se_resnet20(), {
      preprocessing: { size: null, mean: [0.5], std: [0.25] },
    });
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own `this`, and put back at the end
    const forward = CompiledModel.prototype.forward;
    CompiledModel.prototype.forward = function (x, options) {
      if (x.shape[2] === 36) return Promise.reject(new Error('not this one'));
      return forward.call(this, x, options);
    };
    try {
      const results = await Promise.allSettled(
        [32, 36, 32, 36].map((side) => classifier.classify(randn([3, side, side]))),
      );
      expect(results.map(({ status }) => status)).to.deep.equal([
        'fulfilled',
        'rejected',
        'fulfilled',
        'rejected',
      ]);
    } finally {
      CompiledModel.prototype.forward = forward;
    }
    await classifier.dispose();
  });

  it('callers that leave while they wait let those behind them go on, and dispose settles', async () => {
    const classifier = await ImageClassifier.load(se_resnet20(), {
      preprocessing: { size: null, mean: [0.5], std: [0.25] },
      batching: { maxBatch: 1 },
    });
    const pixels = zeros([3, 32, 32], { dtype: 'uint8' });
    let goOn = (): void => undefined;
    const held = new Promise<void>((resolve) => (goOn = resolve));
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own `this`, and put back at the end
    const forward = CompiledModel.prototype.forward;
    CompiledModel.prototype.forward = async function (x, options) {
      await held;
      return forward.call(this, x, options);
    };
    try {
      const first = classifier.classify(pixels);
      await turn();
      await turn();
      expect(classifier.queue).to.deep.equal({ waiting: 0, running: 1, limit: 1024 });
      const controller = new AbortController();
      const { signal } = controller;
      const leaving = Promise.allSettled(
        Array.from({ length: 40 }, () => classifier.classify([pixels, PHOTO], { signal })),
      );
      await turn();
      const behind = [classifier.classify(pixels), classifier.classify(PHOTO), classifier.classify(pixels)];
      expect(classifier.queue).to.deep.equal({ waiting: 83, running: 1, limit: 1024 });
      controller.abort();
      expect(classifier.queue).to.deep.equal({ waiting: 3, running: 1, limit: 1024 });
      goOn();
      expect((await leaving).map(({ status }) => status)).to.deep.equal(new Array(40).fill('rejected'));
      await Promise.all([first, ...behind]);
      await classifier.dispose();
      expect(classifier.queue).to.deep.equal({ waiting: 0, running: 0, limit: 1024 });
    } finally {
      CompiledModel.prototype.forward = forward;
    }
  });

  it('two classifiers share nothing but memory: one that stands still holds nobody up', async () => {
    const [standing, going] = await Promise.all([load(), load()]);
    const controller = new AbortController();
    const stuck = standing.classify(new Array<string>(20).fill(PHOTO), { signal: controller.signal });
    const answers = Promise.all(images.map((image) => going.classify(image)));
    await Promise.all([expectRejection(stuck, 'ERR_SENET_ABORTED'), turn().then(() => controller.abort())]);
    const disposed = standing.dispose();
    (await answers).forEach((result, index) => expectSame(result, expected[index] ?? []));
    await Promise.all([disposed, going.dispose()]);
  });

  it('a full queue is refused before any file is read', async () => {
    const classifier = await load({ maxQueue: 1 });
    const first = classifier.classify(images[0] ?? '');
    await expectRejection(classifier.classify(path.join(__dirname, 'none.png')), 'ERR_SENET_QUEUE_FULL');
    await first;
    await expectRejection(classifier.classify(path.join(__dirname, 'none.png')), 'ERR_SENET_FILE_NOT_FOUND');
    await classifier.dispose();
  });

  it('tensors of an array, and of classifyBatch, may be disposed once it is called', async () => {
    const classifier = await load({ maxBatch: 1 });
    const x = randn([3, 32, 32]);
    const alone = await classifier.classify(x);
    const many = Array.from({ length: 6 }, () => x.clone());
    const call = classifier.classify(many);
    for (const one of many) one.dispose();
    for (const result of await call) expectSame(result, alone);
    const pixels = zeros([2, 3, 28, 28], { dtype: 'uint8' });
    const batch = tidy(() => ({ call: classifier.classifyBatch(pixels) }));
    pixels.dispose();
    expect(await batch.call).to.have.lengthOf(2);
    await classifier.dispose();
  });

  it('a delay gathers callers of several turns', async () => {
    // It goes when it is full, long before the delay is over.
    const classifier = await load({ delay: 60_000, maxBatch: 3 });
    const x = randn([3, 32, 32]);
    const calls: Promise<unknown>[] = [];
    for (let i = 0; i < 3; i++) {
      calls.push(classifier.classify(x));
      await turn();
    }
    await Promise.all(calls);
    expect(sizes()).to.deep.equal([3]);
    await classifier.dispose();
  });

  it('a call may be made when another settles', async () => {
    const classifier = await load({ maxBatch: 2, maxQueue: 4 });
    const chains = [0, 1, 2, 3].map((index) =>
      classifier
        .classify(images[index] ?? '')
        .then(() => classifier.classify(images[index + 4] ?? ''))
        .then(() => classifier.classify(images[index + 8] ?? '')),
    );
    (await Promise.all(chains)).forEach((result, index) => expectSame(result, expected[index + 8] ?? []));
    await classifier.dispose();
  });

  it('dispose waits for what is queued, and refuses what comes after', async () => {
    const classifier = await load({ maxBatch: 2 });
    const calls = images.map((image) => classifier.classify(image));
    const ended: string[] = [];
    void Promise.all(calls).then(() => ended.push('calls'));
    const disposed = classifier.dispose().then(() => ended.push('dispose'));
    await expectRejection(classifier.classify(images[0] ?? ''), 'ERR_SENET_DISPOSED');
    await disposed;
    expect(ended).to.deep.equal(['calls', 'dispose']);
    (await Promise.all(calls)).forEach((result, index) => expectSame(result, expected[index] ?? []));
  });

  it("a caller's tidy, or dispose, takes nothing away from the queue, and nothing is left behind", async () => {
    const classifier = await load();
    const x = randn([3, 32, 32]);
    const alone = await classifier.classify(x);
    const before = memory().tensors;
    const calls: Promise<Classification[]>[] = [];
    tidy(() => {
      // Neither is awaited inside: the scope ends, and the tensor is disposed, while the images wait.
      calls.push(classifier.classify(x.clone()), classifier.classify(PHOTO));
    });
    const gone = x.clone();
    calls.push(classifier.classify(gone));
    gone.dispose();
    const [first, , third] = await Promise.all(calls);
    expectSame(first ?? [], alone);
    expectSame(third ?? [], alone);
    expect(memory().tensors).to.be.at.most(before);
    await classifier.dispose();
  });

  it('one signal serves many calls without a warning', async () => {
    const classifier = await load();
    const { signal } = new AbortController();
    const calls = [images.slice(0, 2), ...images.slice(0, 12)];
    await Promise.all(calls.map((given) => classifier.classify(given as string, { signal })));
    await classifier.dispose();
  });

  it('after a failure an array takes up no further image', async () => {
    const classifier = await load({ maxBatch: 1 });
    const many = [path.join(__dirname, 'none.png'), ...images, ...images, ...images];
    await expectRejection(classifier.classify(many), 'ERR_SENET_FILE_NOT_FOUND');
    expect(batches.length).to.be.below(many.length / 2);
    await classifier.dispose();
  });

  it('refuses bad options', async () => {
    const refuses = (batching: unknown, code: Parameters<typeof expectRejection>[1], words: RegExp) =>
      expectRejection(load(batching as BatchingOptions), code, words);
    await refuses(16, 'ERR_SENET_ARG_TYPE', /batching/);
    await refuses({ maxbatch: 2 }, 'ERR_SENET_UNKNOWN_OPTION', /did you mean 'maxBatch'/);
    await refuses({ maxBatch: 0 }, 'ERR_SENET_ARG_RANGE', /batching: maxBatch.*1 to 1024/);
    await refuses({ maxBatch: '2' }, 'ERR_SENET_ARG_TYPE', /maxBatch/);
    await refuses({ delay: -1 }, 'ERR_SENET_ARG_RANGE', /delay.*0 to 60000/);
    await refuses({ delay: NaN }, 'ERR_SENET_ARG_RANGE', /delay/);
    await refuses({ maxQueue: 0 }, 'ERR_SENET_ARG_RANGE', /maxQueue/);
    await expectRejection(
      ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', shrinkOnLoad: 1 as never }),
      'ERR_SENET_ARG_TYPE',
      /shrinkOnLoad/,
    );
  });

  it('runs float64 as the plain module, in batches too', async () => {
    const classifier = await ImageClassifier.load('se_resnet20', {
      weights: 'fashion_mnist',
      dtype: 'float64',
    });
    const results = await Promise.all(images.map((image) => classifier.classify(image)));
    results.forEach((result, index) => expectSame(result, expected[index] ?? []));
    expect(batches).to.deep.equal([]);
    await classifier.dispose();
  });

  it('shrinks JPEGs while decoding where that is allowed: near to the exact scores, on fewer pixels', async () => {
    const photograph = await sharp(PHOTO).resize(1680, 1200).jpeg().toBuffer();
    const [exact, shrunk] = await Promise.all(
      [false, true].map((shrinkOnLoad) =>
        ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', shrinkOnLoad }),
      ),
    );
    const byIndex = async (classifier: ImageClassifier | undefined): Promise<number[]> =>
      ((await classifier?.classify(photograph, { topK: 10 })) ?? [])
        .sort((left, right) => left.index - right.index)
        .map(({ score }) => score);
    const [scores, near] = [await byIndex(exact), await byIndex(shrunk)];
    expect(near).to.not.deep.equal(scores);
    near.forEach((score, index) => expect(score).to.be.closeTo(scores[index] ?? NaN, 0.05));
    await Promise.all([exact?.dispose(), shrunk?.dispose()]);
  });

  it('keeps a copy of a Module: what becomes of it later changes nothing', async () => {
    const model = se_resnet20();
    const classifier = await ImageClassifier.load(model, {
      preprocessing: { size: [32, 32], mean: [0.5], std: [0.25] },
    });
    const x = tensor(new Uint8Array(3 * 32 * 32).fill(99), { shape: [3, 32, 32] });
    const first = await classifier.classify(x);
    model.dispose();
    expectSame(await classifier.classify(x), first);
    await classifier.dispose();
  });
});
