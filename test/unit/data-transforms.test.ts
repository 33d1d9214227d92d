/** Transforms against torchvision's pixels with the same parameters, one by one and together, and their draws. */
import path from 'node:path';

import { expect } from 'chai';

import {
  adjustBrightness,
  adjustContrast,
  adjustHue,
  adjustSaturation,
  ColorJitter,
  jitter,
  type JitterDraw,
} from '../../lib/data/color-jitter';
import {
  CenterCrop,
  Pad,
  RandomCrop,
  RandomHorizontalFlip,
  RandomResizedCrop,
  Resize,
  type Box,
} from '../../lib/data/geometry';
import { Mixup } from '../../lib/data/mixup';
import { Random } from '../../lib/data/random';
import { RandomErasing } from '../../lib/data/random-erasing';
import { Compose, Grayscale, Normalize, ToTensor, type Transform } from '../../lib/data/transforms';
import type { DType } from '../../lib/binding';
import { tensor, zeros } from '../../lib/tensor/factories';
import { tidy } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';
import { readFixture } from '../support/parity';

interface Encoded {
  shape: number[];
  dtype: DType;
  data: string;
}
interface Case {
  name: string;
  parameters: Record<string, unknown>;
  result: Encoded;
}

const fixture = readFixture<{ images: Encoded; cases: Case[] }>(path.join('data', 'transforms.json'));

function decode({ shape, dtype, data }: Encoded): Tensor {
  const bytes = new Uint8Array(Buffer.from(data, 'base64'));
  const elements = dtype === 'uint8' ? bytes : new Float32Array(bytes.buffer);
  return tensor(elements, { shape, dtype });
}

/** Largest difference of elements. */
function distance(actual: Tensor, expected: Tensor): number {
  expect([actual.dtype, ...actual.shape]).to.deep.equal([expected.dtype, ...expected.shape]);
  return Number(actual.to('float64').sub(expected.to('float64')).abs().max().item());
}

/** Draws that end in a given box, for transforms whose drawing is replaced. */
function fixed<T extends { draw: unknown }>(transform: T, drawn: unknown): T {
  Object.assign(transform, { draw: () => drawn });
  return transform;
}

const randoms = (count: number, seed = 1): Random[] =>
  Array.from({ length: count }, (_, index) => new Random(seed, index));

type Numbers = readonly number[];

/** How each case of the fixture is run here. */
const RUN: Record<string, (x: Tensor, parameters: never) => Tensor | Promise<Tensor>> = {
  resize: (x, p: ConstructorParameters<typeof Resize>[0]) => new Resize(p).forward(x),
  centerCrop: (x, p: { size: number }) => new CenterCrop(p).forward(x),
  pad: (x, p: ConstructorParameters<typeof Pad>[0]) => new Pad(p).forward(x),
  resizedCrop: (x, { box, size }: { box: Numbers; size: number }) =>
    fixed(new RandomResizedCrop({ size }), toBox(box)).forward(x, randoms(x.shape[0] ?? 0)),
  flip: (x) => new RandomHorizontalFlip({ p: 1 }).forward(x, randoms(x.shape[0] ?? 0)),
  grey: (x, p: { outputChannels: 1 | 3 }) => new Grayscale(p).forward(x),
  toTensor: (x) => new ToTensor().forward(x),
  normalize: async (x, p: { mean: Numbers; std: Numbers }) =>
    new Compose([new ToTensor(), new Normalize(p)]).forward(x, []),
  adjust: (x, { kind, factors }: { kind: number; factors: Numbers }) => ADJUST[kind]?.(x, factors) ?? x,
  adjustFloat: async (x, { kind, factors }: { kind: number; factors: Numbers }) =>
    ADJUST[kind]?.(await new ToTensor().forward(x), factors) ?? x,
  jitter: (x, { draws }: { draws: JitterDraw[] }) => jitter(x, draws),
  erase: async (x, { box, value }: { box: Numbers; value: number }) =>
    fixed(new RandomErasing({ p: 1, value }), toBox(box)).forward(
      await new ToTensor().forward(x),
      randoms(x.shape[0] ?? 0),
    ),
  mixup: async (x, p: { share: number; labels: number[] }) => (await mixed(x, p)).images,
  mixupLabels: async (x, p: { share: number; labels: number[] }) => (await mixed(x, p)).labels,
};
const ADJUST = [adjustBrightness, adjustContrast, adjustSaturation, adjustHue];

function toBox([top = 0, left = 0, height = 0, width = 0]: Numbers): Box {
  return { top, left, height, width };
}

async function mixed(x: Tensor, { share, labels }: { share: number; labels: number[] }) {
  const batch = {
    images: await new ToTensor().forward(x),
    labels: tensor(BigInt64Array.from(labels, BigInt)),
    indices: labels,
  };
  return fixed(new Mixup({ numClasses: 4 }), share).forward(batch, new Random(1));
}

describe('transforms against torchvision', () => {
  const images = decode(fixture.images);

  for (const [index, { name, parameters, result }] of fixture.cases.entries()) {
    it(`${index} ${name} ${JSON.stringify(parameters).slice(0, 80)}`, () =>
      tidy(async () => {
        const actual = await (RUN[name] as (x: Tensor, p: unknown) => Tensor | Promise<Tensor>)(
          images,
          parameters,
        );
        // Floating results: the last bit is free, a sum of mixed products rounds once or twice.
        const limit = result.dtype === 'uint8' ? 0 : 3e-7;
        expect(distance(actual, decode(result))).to.be.at.most(limit);
      }));
  }

  it('covers every case', () => {
    expect(new Set(fixture.cases.map(({ name }) => name))).to.deep.equal(new Set(Object.keys(RUN)));
  });
});

describe('transforms', () => {
  const images = decode(fixture.images);
  const floats = images.to('float32').div(255);

  const random: Record<string, [Transform, Tensor]> = {
    RandomCrop: [new RandomCrop({ size: [10, 9], padding: [2, 1] }), images],
    'RandomCrop, padIfNeeded': [new RandomCrop({ size: [20, 13], padIfNeeded: true, fill: 7 }), images],
    'RandomCrop of floats': [new RandomCrop({ size: 8 }), floats],
    RandomHorizontalFlip: [new RandomHorizontalFlip(), images],
    RandomResizedCrop: [new RandomResizedCrop({ size: 7 }), images],
    ColorJitter: [new ColorJitter({ brightness: 0.5, contrast: 0.5, saturation: 0.5, hue: 0.3 }), images],
    RandomErasing: [new RandomErasing({ p: 0.7, value: 'random' }), floats],
    'RandomErasing by channel': [new RandomErasing({ p: 0.7, value: [1, 2, 3] }), floats],
  };
  for (const [name, [transform, input]] of Object.entries(random)) {
    it(`${name}: a batch is what its images are one by one; the input stays; another seed differs`, () =>
      tidy(async () => {
        const before = input.clone();
        const together = await transform.forward(input, randoms(3));
        const parts: Tensor[] = [];
        for (const [index, own] of randoms(3).entries())
          parts.push(await transform.forward(input.slice(0, index, index + 1), [own]));
        expect(distance(together, Tensor.cat(parts))).to.equal(0);
        expect(distance(input, before)).to.equal(0);
        let changed = 0;
        for (let seed = 2; seed < 8; seed++)
          changed += distance(await transform.forward(input, randoms(3, seed)), together) > 0 ? 1 : 0;
        expect(changed).to.be.at.least(2);
      }));
  }

  it('crops stay inside, and every place is drawn', () => {
    const crop = new RandomCrop({ size: 3 });
    const resized = new RandomResizedCrop({ size: 4, scale: [0.1, 0.9] });
    const tops = new Set<number>();
    for (let seed = 0; seed < 200; seed++) {
      const { top, left } = crop.draw(new Random(seed), 5, 6);
      tops.add(top);
      expect(top).to.be.within(0, 2);
      expect(left).to.be.within(0, 3);
      const box = resized.draw(new Random(seed), 50, 80);
      expect(box.top + box.height).to.be.at.most(50);
      expect(box.left + box.width).to.be.at.most(80);
      expect((box.height * box.width) / 4000).to.be.within(0.08, 0.95);
      expect(box.width / box.height).to.be.within(0.7, 1.4);
    }
    expect([...tops].sort()).to.deep.equal([0, 1, 2]);
    // An image that allows no try: the centre, of an allowed shape.
    expect(resized.draw(new Random(1), 4, 1000)).to.deep.equal({ top: 0, left: 497, height: 4, width: 5 });
    expect(resized.draw(new Random(1), 1000, 3)).to.deep.equal({ top: 498, left: 0, height: 4, width: 3 });
  });

  it('ColorJitter draws within its ranges, in any order, and keeps what is off', async () => {
    const transform = new ColorJitter({ brightness: 0.2, contrast: [0.5, 0.7], hue: 0.1 });
    const orders = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const { order, factors } = transform.draw(new Random(seed));
      orders.add(order.join(''));
      expect(factors[0]).to.be.within(0.8, 1.2);
      expect(factors[1]).to.be.within(0.5, 0.7);
      expect(factors[2]).to.equal(null);
      expect(factors[3]).to.be.within(-0.1, 0.1);
    }
    expect(orders.size).to.equal(24);
    const off = new ColorJitter({});
    expect(await off.forward(images, randoms(3))).to.equal(images);
    expect(new ColorJitter({ brightness: 2 }).ranges[0]).to.deep.equal([0, 3]);
  });

  it('RandomErasing leaves 1 - p of the images as they are', () => {
    const transform = new RandomErasing({ p: 0.25 });
    let erased = 0;
    for (let seed = 0; seed < 2000; seed++)
      erased += transform.draw(new Random(seed), 30, 30) === null ? 0 : 1;
    expect(erased / 2000).to.be.closeTo(0.25, 0.04);
    // Nothing smaller than a whole row of pixels fits.
    expect(new RandomErasing({ p: 1 }).draw(new Random(1), 1, 30)).to.equal(null);
  });

  it('channels-last pixels of a decoded image give the same', () =>
    tidy(async () => {
      const rows = images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
      const all = new Compose([
        new Resize({ size: 9 }),
        new RandomCrop({ size: 8 }),
        new RandomHorizontalFlip(),
        new ColorJitter({ contrast: 0.5, hue: 0.2 }),
        new ToTensor(),
        new Normalize({ mean: [0.5], std: [0.5] }),
      ]);
      const [own, other] = [await all.forward(images, randoms(3)), await all.forward(rows, randoms(3))];
      expect(distance(own, other)).to.be.at.most(1 / 127);
    }));

  it('Resize of 16-bit floats is that of float32, rounded', async () => {
    for (const dtype of ['float16', 'bfloat16'] as const) {
      for (const interpolation of ['bilinear', 'bicubic'] as const) {
        const resizing = new Resize({ size: [9, 5], interpolation });
        const narrow = floats.to(dtype);
        const expected = (await resizing.forward(narrow.to('float32'))).to(dtype);
        expect(distance(await resizing.forward(narrow), expected)).to.equal(0);
        const box = { top: 1, left: 2, height: 4, width: 3 };
        const cut = fixed(new RandomResizedCrop({ size: 6, interpolation }), box);
        expect((await cut.forward(narrow, randoms(narrow.shape[0] ?? 0))).dtype).to.equal(dtype);
      }
    }
  });

  it('Resize says what it cannot resize', async () => {
    for (const dtype of ['uint8', 'float32'] as const) {
      for (const shape of [
        [1, 3, 0, 4],
        [1, 3, 4, 0],
        [1, 3, 0, 0],
      ])
        for (const size of [3, [3, 3]] as const)
          await expectRejection(
            new Resize({ size }).forward(zeros(shape, { dtype })),
            'ERR_SENET_SHAPE',
            /with pixels, got \[1, 3/,
          );
      // 65,535 pixels in a row would become 4 GB of colour.
      await expectRejection(
        new Resize({ size: 256 }).forward(zeros([1, 1, 1, 65_535], { dtype })),
        'ERR_SENET_IMAGE_SIZE',
        /65535 x 1 would become 16776960 x 256/,
      );
    }
  });

  it('Mixup needs labels inside its classes', async () => {
    const batch = { images: zeros([2, 3, 4, 4]), labels: tensor([0n, 4n]), indices: [0, 1] };
    await expectRejection(
      new Mixup({ numClasses: 4 }).forward(batch, new Random(1)),
      'ERR_SENET_LABELS',
      /0 to 3, got 4/,
    );
  });

  it('refuses what it cannot mean', async () => {
    expectThrow(() => new Resize({ size: 0 }), 'ERR_SENET_ARG_RANGE', /Resize: size/);
    expectThrow(() => new Resize({ size: [1, 2, 3] as never }), 'ERR_SENET_ARG_TYPE', /\[height, width\]/);
    expectThrow(
      () => new Resize({ size: 4, interpolation: 'nearest' as never }),
      'ERR_SENET_ARG_RANGE',
      /bilinear/,
    );
    expectThrow(() => new Pad({ padding: [1, 2, 3] }), 'ERR_SENET_ARG_TYPE', /padding/);
    expectThrow(() => new Pad({ padding: -1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Pad({ padding: 1, paddingMode: 'symmetric' as never }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new RandomCrop({ size: 4, pad: 1 } as never), 'ERR_SENET_UNKNOWN_OPTION', /padding/);
    expectThrow(() => new RandomHorizontalFlip({ p: 1.5 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new RandomHorizontalFlip({ p: NaN }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new RandomResizedCrop({ size: 4, scale: [0.5, 0.1] }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new ColorJitter({ hue: 0.6 }), 'ERR_SENET_ARG_RANGE', /hue/);
    expectThrow(() => new ColorJitter({ brightness: -1 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new ColorJitter({ contrast: 'much' as never }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new Normalize({ mean: [0.5], std: [0] }), 'ERR_SENET_ARG_RANGE', /no zero/);
    expectThrow(() => new Normalize({ mean: [0.5, 1], std: [1] }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Normalize({ mean: [NaN], std: [1] }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new RandomErasing({ value: 'noise' as never }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new Mixup({ alpha: 0, numClasses: 3 }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Grayscale({ outputChannels: 2 as never }), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => new Compose([{} as never]), 'ERR_SENET_ARG_TYPE', /forward/);

    for (const transform of [
      new ToTensor(),
      new Resize({ size: 4 }),
      new CenterCrop({ size: 4 }),
      new Pad({ padding: 1 }),
      new RandomHorizontalFlip(),
      new ColorJitter({}),
      new Grayscale(),
      new RandomErasing(),
    ])
      for (const wrong of [null, undefined, {}, [1]])
        await expectRejection(
          Promise.resolve().then(() => transform.forward(wrong as never, [])),
          'ERR_SENET_ARG_TYPE',
          /images: expected a Tensor/,
        );
    const holes: number[] = [1, 1, 1];
    // eslint-disable-next-line @typescript-eslint/no-array-delete -- a hole is what is meant
    delete holes[1];
    expectThrow(
      () => new Normalize({ mean: holes, std: [1, 1, 1] }),
      'ERR_SENET_ARG_TYPE',
      /Normalize: mean/,
    );
    expectThrow(() => new RandomErasing({ value: holes }), 'ERR_SENET_ARG_TYPE', /RandomErasing: value/);
    expectThrow(() => new Pad({ padding: [holes[1] as never, 1] }), 'ERR_SENET_ARG_TYPE', /Pad: padding/);
    expectThrow(() => new Pad({ padding: holes.slice(1) }), 'ERR_SENET_ARG_TYPE', /Pad: padding/);

    const crop = new RandomCrop({ size: 40 });
    expectThrow(
      () => crop.forward(images, randoms(3)),
      'ERR_SENET_IMAGE_SIZE',
      /40 x 40.*12 x 15.*padIfNeeded/,
    );
    expectThrow(() => crop.forward(images, []), 'ERR_SENET_ARG_RANGE', /each of 3/);
    expectThrow(() => new CenterCrop({ size: 3 }).forward(zeros([3, 4])), 'ERR_SENET_SHAPE', /N x C x H x W/);
    expectThrow(() => new Grayscale().forward(zeros([1, 2, 4, 4])), 'ERR_SENET_SHAPE', /1 or 3/);
    expectThrow(
      () => new RandomErasing({ p: 1, value: [1, 2] }).forward(floats, randoms(3)),
      'ERR_SENET_SHAPE',
    );
    const normalize = new Normalize({ mean: [0, 0, 0], std: [1, 1, 1] });
    await expectRejection(normalize.forward(images), 'ERR_SENET_DTYPE', /ToTensor/);
    await expectRejection(normalize.forward(zeros([1, 2, 4, 4])), 'ERR_SENET_SHAPE', /3 channels/);
    await expectRejection(new ToTensor().forward(zeros([1, 1, 2, 2], { dtype: 'int64' })), 'ERR_SENET_DTYPE');
  });
});
