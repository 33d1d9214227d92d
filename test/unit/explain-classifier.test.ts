/** `ImageClassifier.explain`: what it says of the bundled images, which module it looks into, queue, abort, disposal. */
import { copyFileSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  classActivationMap,
  classExcitations,
  ImageClassifier,
  memory,
  resizeMap,
  save,
  se_resnet20,
  tensor,
  zeros,
  type Explanation,
  type ExplanationJson,
} from '../../lib';
import { bundledImages } from '../../lib/vision/bundled-images';
import { collectGarbage } from '../support/collect';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';

const WEIGHTS = path.join(
  __dirname,
  '..',
  '..',
  'assets',
  'weights',
  'se_resnet20_fashion_mnist.safetensors',
);
const wrong = (value: unknown): never => value as never;

describe('ImageClassifier.explain', function () {
  this.timeout(30_000);
  const temporary = new Temporary();
  let images: string[];
  let bundled: ImageClassifier;
  before(async () => {
    images = await bundledImages();
    bundled = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
  });
  after(async () => {
    await bundled.dispose();
    temporary.cleanUp();
  });
  const image = (index: number): string => images[index] as string;

  it('gives labels, the map in the size of the input, its layer and the gates', async () => {
    const explanation = await bundled.explain(image(0));
    const labels = await bundled.classify(image(0));
    expect(explanation.labels.map(({ label }) => label)).to.deep.equal(labels.map(({ label }) => label));
    explanation.labels.forEach(({ score }, place) =>
      expect(score).to.be.closeTo(labels[place]?.score ?? NaN, 1e-5),
    );
    expect(explanation.target).to.deep.equal(explanation.labels[0]);
    expect(explanation).to.include({ layer: 'layer3.2', method: 'gradcam' });
    expect(explanation.map).to.include({ width: 32, height: 32 });
    expect(explanation.layerMap).to.include({ width: 8, height: 8 });
    expect(explanation.map?.data).to.have.length(1024);
    expect(Math.max(...(explanation.layerMap?.data ?? []))).to.be.closeTo(1, 1e-5);
    expect(
      explanation.excitations?.map(({ path: place, gates }) => [place, gates.length]),
    ).to.deep.include.members([
      ['layer1.0.se', 16],
      ['layer3.2.se', 64],
    ]);
    expect(explanation.excitations?.every(({ strongest }) => strongest.length === 0)).to.equal(true);
    expect(explanation.milliseconds).to.be.above(0);
  });

  it('shows the picture as the network saw it', async () => {
    const pixels = Uint8Array.from({ length: 3 * 28 * 28 }, (_, index) => index % 256);
    const { input } = await bundled.explain(tensor(pixels, { shape: [3, 28, 28] }), { cam: false });
    expect(input).to.include({ width: 32, height: 32 });
    expect(input.data[0]).to.equal(0); // padding
    const grey = (place: number): number => {
      const [r, g, b] = [0, 1, 2].map((colour) => pixels[colour * 784 + place] as number) as [
        number,
        number,
        number,
      ];
      return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    };
    for (const place of [0, 27, 783]) {
      const at = 3 * ((Math.floor(place / 28) + 2) * 32 + (place % 28) + 2);
      expect([...input.data.slice(at, at + 3)]).to.deep.equal(new Array(3).fill(grey(place)));
    }
  });

  it('is what the functions give for the module, and so is each method', async () => {
    const model = se_resnet20({ numClasses: 10, reduction: 4 });
    const own = await ImageClassifier.load(model, {
      weights: WEIGHTS,
      preprocessing: bundled.preprocessing,
    });
    const { input } = await own.explain(image(3), { cam: false });
    expect(input.data).to.have.length(3 * 32 * 32);
    for (const cam of ['gradcam', 'gradcam++', 'layercam', 'scorecam'] as const) {
      const options = { cam, layer: 'layer2.2', target: 4 };
      const [left, right] = [await own.explain(image(3), options), await bundled.explain(image(3), options)];
      expect(left.layerMap?.data, cam).to.deep.equal(right.layerMap?.data);
      expect(left.target).to.include({ index: 4 });
    }
    const { map } = await classActivationMap(model, zeros([1, 3, 32, 32]), { layer: 'layer2.2', target: 4 });
    const large = numbers(await resizeMap(map, [32, 32]));
    const x = zeros([3, 32, 32]);
    const explained = await own.explain(x, { layer: 'layer2.2', target: 4 });
    expect([...(explained.map?.data ?? [])]).to.deep.equal(large);
    model.train(); // it stays the caller's
    expect((await own.explain(x)).labels).to.deep.equal((await own.explain(x)).labels);
    expect(model.training).to.equal(true);
    await own.dispose();
    expect(model.parameters()[0]?.shape).to.deep.equal([16, 3, 3, 3]);
    model.dispose();
  });

  it('leaves out what is not wanted, and gives channels that are', async () => {
    const bare = await bundled.explain(image(1), { cam: false, excitations: false, topK: 2 });
    expect(bare).to.include({ map: null, layerMap: null, layer: null, method: null, excitations: null });
    expect(bare.labels).to.have.length(2);
    const { excitations } = await bundled.explain(image(1), { channels: 3 });
    for (const { gates, strongest, weakest, path: place } of excitations ?? []) {
      const sorted = [...gates].sort((left, right) => right - left);
      expect(
        strongest.map(({ gate }) => gate),
        place,
      ).to.deep.equal(sorted.slice(0, 3));
      expect(
        weakest.map(({ gate }) => gate),
        place,
      ).to.deep.equal(sorted.reverse().slice(0, 3));
      for (const { channel, gate, map } of [...strongest, ...weakest]) {
        expect(gates[channel]).to.equal(gate);
        expect(map.data).to.have.length(map.width * map.height);
        for (const value of map.data) expect(value).to.be.within(0, 1);
      }
    }
  });

  it('says what if gates were others', async () => {
    const gates = { 'layer3.2.se': 0, 'layer3.1.se': 'mean' } as const;
    const plain = await bundled.explain(image(2));
    const changed = await bundled.explain(image(2), { gates });
    expect(changed.labels).to.not.deep.equal(plain.labels);
    expect(changed.excitations?.at(-1)?.gates.every((gate) => gate === 0)).to.equal(true);
    await expectRejection(
      bundled.explain(image(2), { gates, cam: 'scorecam' }),
      'ERR_SENET_ARG_RANGE',
      /scorecam/,
    );
    await expectRejection(
      bundled.explain(image(2), { gates: { fc: 1 } }),
      'ERR_SENET_ARG_RANGE',
      /no SE layer at 'fc'/,
    );
  });

  it('is JSON, with base64 for pictures', async () => {
    const explanation: Explanation = await bundled.explain(image(0), { channels: 1 });
    const json = JSON.parse(JSON.stringify(explanation)) as ExplanationJson;
    expect(json.labels).to.deep.equal(explanation.labels);
    expect(json).to.deep.include({ layer: 'layer3.2', method: 'gradcam' });
    const map = Buffer.from(json.map?.data ?? '', 'base64');
    expect(map).to.have.length(1024);
    map.forEach((byte, place) =>
      expect(Math.abs(byte - 255 * (explanation.map?.data[place] as number))).to.be.at.most(0.51),
    );
    expect(Buffer.from(json.input.data, 'base64')).to.have.length(3 * 1024);
    expect(json.layerMap?.data).to.have.length(64);
    const [layer] = json.excitations ?? [];
    expect(layer?.gates).to.have.length(16);
    expect(layer?.gates[0]).to.be.closeTo(explanation.excitations?.[0]?.gates[0] ?? NaN, 1e-5);
    expect(Buffer.from(layer?.strongest[0]?.map.data ?? '', 'base64')).to.have.length(1024);
  });

  it('refuses what is none', async () => {
    await expectRejection(bundled.explain(wrong(3)), 'ERR_SENET_ARG_TYPE', /^explain: image/);
    await expectRejection(bundled.explain(Buffer.from('no image')), 'ERR_SENET_IMAGE');
    const refused = async (options: object, code = 'ERR_SENET_ARG_RANGE'): Promise<void> => {
      await expectRejection(bundled.explain(image(0), wrong(options)), code as never);
    };
    await refused({ cam: 'cam' });
    await refused({ cam: true });
    await refused({ layer: 'layer9' });
    await refused({ layer: 'fc' });
    await refused({ target: 10 });
    await refused({ target: 0.5 });
    await refused({ target: '1' }, 'ERR_SENET_ARG_TYPE');
    await refused({ channels: 65 });
    await refused({ excitations: 1 }, 'ERR_SENET_ARG_TYPE');
    await refused({ method: 'gradcam' }, 'ERR_SENET_UNKNOWN_OPTION');
    await refused({ signal: AbortSignal.abort() }, 'ERR_SENET_ABORTED');
  });

  it('rejects at once when the caller aborts, and the next are explained', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const running = bundled.explain(image(0), { cam: 'scorecam', layer: 'layer1.0', signal });
    const waiting = bundled.explain(image(1), { signal });
    const next = bundled.explain(image(2));
    setTimeout(() => controller.abort(), 20);
    await expectRejection(running, 'ERR_SENET_ABORTED');
    await expectRejection(waiting, 'ERR_SENET_ABORTED');
    expect((await next).labels[0]?.label).to.equal('Trouser');
  });

  it('has a bound on what waits, and dispose waits for what was accepted', async () => {
    await collectGarbage();
    const { tensors } = memory();
    const small = await ImageClassifier.load('se_resnet20', {
      weights: 'fashion_mnist',
      batching: { maxQueue: 2 },
    });
    const accepted = [small.explain(image(0)), small.explain(image(1))];
    await expectRejection(small.explain(image(2)), 'ERR_SENET_QUEUE_FULL');
    const disposed = small.dispose();
    await expectRejection(small.explain(image(3)), 'ERR_SENET_DISPOSED');
    const done = await Promise.all(accepted);
    expect(done.map(({ labels }) => labels[0]?.label)).to.deep.equal(['Ankle boot', 'Pullover']);
    await disposed;
    expect(memory().tensors).to.equal(tensors);
  });

  it('refuses weights that are others by now, or gone', async () => {
    const file = temporary.path('weights.safetensors');
    copyFileSync(WEIGHTS, file);
    const classifier = await ImageClassifier.load('se_resnet20', { weights: file });
    const other = se_resnet20({ numClasses: 10, reduction: 4 });
    await save(other, file);
    other.dispose();
    await expectRejection(classifier.explain(image(0)), 'ERR_SENET_FILE_CHANGED', /is another since/);
    copyFileSync(WEIGHTS, file);
    utimesSync(file, 1, 1);
    const again = await ImageClassifier.load('se_resnet20', { weights: file });
    expect((await again.explain(image(0))).labels[0]?.label).to.equal('Ankle boot');
    writeFileSync(file, 'gone');
    expect((await again.explain(image(1))).labels[0]?.label).to.equal('Pullover'); // made once
    await Promise.all([classifier.dispose(), again.dispose()]);
  });

  it('ablate: what each channel is worth for an image', async () => {
    const { drops, baseline } = await bundled.ablate(image(0), 'layer3.2.se', { target: 9 });
    expect(drops).to.have.length(64);
    expect(baseline).to.be.above(0.9);
    expect(Math.max(...drops.map(Math.abs))).to.be.above(0);
    await expectRejection(bundled.ablate(image(0), 'fc'), 'ERR_SENET_ARG_RANGE');
    await expectRejection(bundled.ablate(image(0), wrong(1)), 'ERR_SENET_ARG_TYPE');
  });
});

describe('classExcitations', function () {
  this.timeout(30_000);

  it('is the mean and deviation of the gates by class', async () => {
    const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    const images = await bundledImages();
    const given = [0, 2, 3, 5].map((index) => ({
      image: images[index] as string,
      label: index === 0 ? 0 : 1,
    }));
    const { classes, layers } = await classExcitations(classifier, given, { classes: ['boot', 'trouser'] });
    expect(classes).to.deep.equal([
      { label: 'boot', images: 1 },
      { label: 'trouser', images: 3 },
    ]);
    expect(layers.map(({ name }) => name)).to.deep.equal(
      [2, 3, 4].flatMap((stage) => [1, 2, 3].map((block) => `SE_${stage}_${block}`)),
    );
    const boot = (await classifier.explain(images[0] as string, { cam: false })).excitations;
    layers.forEach(({ classes: [first] }, index) =>
      first?.mean.forEach((mean, channel) =>
        expect(mean).to.be.closeTo(boot?.[index]?.gates[channel] ?? NaN, 1e-6),
      ),
    );
    const run = (labelled: unknown, options: unknown): Promise<unknown> =>
      classExcitations(classifier, wrong(labelled), wrong(options));
    await expectRejection(run(given, {}), 'ERR_SENET_ARG_MISSING');
    for (const images of [null, undefined, 7, 'photos', {}, [null], [undefined], ['boot.png']])
      await expectRejection(run(images, { classes: ['boot'] }), 'ERR_SENET_ARG_TYPE', /image, label/);
    await expectRejection(
      run(given, { classes: ['boot'] }),
      'ERR_SENET_ARG_RANGE',
      /index of one of 1 classes/,
    );
    await expectRejection(
      run([{ image: 'nowhere.png', label: 0 }], { classes: ['a'] }),
      'ERR_SENET_FILE_NOT_FOUND',
    );
    await expectRejection(
      run(given, { classes: ['boot', 'trouser'], signal: AbortSignal.abort() }),
      'ERR_SENET_ABORTED',
    );
    await classifier.dispose();
    await expectRejection(run(given, { classes: ['boot', 'trouser'] }), 'ERR_SENET_DISPOSED');
  });
});
