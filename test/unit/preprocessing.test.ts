/** Sizes and offsets against torchvision's rules, pixels against Pillow's (scripts/fixtures/make_images.py). */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import fc from 'fast-check';
import { IMAGENET, PLAIN, type Preprocessing } from '../../lib/models/preprocessing-record';

import { randn, tensor } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { decodeImage } from '../support/decode';
import type { DecodedImage } from '../../lib/vision/encoded-image';
import { preprocess, resizedSize, roundHalfToEven, toPixels } from '../../lib/vision/preprocessing';
import { checkPreprocessing } from '../../lib/vision/preprocessing-options';
import { expectCoded, expectRejection } from '../support/errors';

const IMAGES = path.join(__dirname, '..', 'fixtures', 'images');
const { resized, photoLuma } = JSON.parse(readFileSync(path.join(IMAGES, 'expected.json'), 'utf8')) as {
  resized: { file: string; source: string; interpolation: 'bilinear' | 'bicubic'; size: [number, number] }[];
  photoLuma: string;
};

async function pixelsOf(name: string): Promise<Tensor> {
  return toPixels(await decodeImage(path.join(IMAGES, name)));
}

/** What comes out, times 255: whole numbers again, since nothing is subtracted. */
async function bytesAfter(
  pixels: Tensor,
  record: Partial<Preprocessing>,
): Promise<{ shape: readonly number[]; bytes: number[] }> {
  const x = await preprocess(pixels, { ...PLAIN, ...record });
  return {
    shape: x.shape,
    bytes: Array.from(x.toTypedArray() as Float32Array, (value) => Math.round(value * 255)),
  };
}

/** 1 x 1 x height x width, each pixel its own number. */
function numbered(height: number, width: number): Tensor {
  return tensor(
    Uint8Array.from({ length: height * width }, (_, index) => index + 1),
    { shape: [1, 1, height, width] },
  );
}

describe('toPixels', () => {
  const imageOf = (height: number, width: number): DecodedImage => {
    const data = new Uint8Array(height * width * 3);
    for (let i = 0; i < data.length; i++) data[i] = (i * 2_654_435_761) >>> 24;
    return { data, height, width };
  };

  it('gives the bytes of the image, copied here or in a job, and leaves nothing else', async () => {
    for (const [height, width] of [
      [1, 1],
      [7, 5],
      [1000, 1000], // 3 MB, here
      [1500, 1000], // 4.5 MB, in a job
    ] as const) {
      const image = imageOf(height, width);
      const before = memory().tensors;
      const pixels = await toPixels(image);
      expect(memory().tensors).to.be.at.most(before + 1);
      expect(pixels.shape).to.deep.equal([1, 3, height, width]);
      const rows = pixels.permute([0, 2, 3, 1]).toTypedArray() as Uint8Array;
      expect(Buffer.compare(rows, image.data)).to.equal(0);
    }
  });

  it('keeps the bytes of a large image alive while the job waits, and belongs to the tidy around it', async () => {
    const expected = imageOf(1500, 1000).data;
    const before = memory().tensors;
    await tidy(async () => {
      const x = randn([1500, 1500]);
      const running = Array.from({ length: 4 }, () => ops.callAsync('aten::matmul', x, x));
      const copying = toPixels(imageOf(1500, 1000));
      for (let i = 0; i < 8; i++) imageOf(1500, 1000); // the collector has work
      globalThis.gc?.();
      await Promise.all(running);
      const rows = (await copying).permute([0, 2, 3, 1]).toTypedArray() as Uint8Array;
      expect(Buffer.compare(rows, expected)).to.equal(0);
    });
    expect(memory().tensors).to.be.at.most(before);
  });

  it('rejects at once when it is aborted, before, queued or running', async () => {
    const image = imageOf(4000, 3000);
    const before = memory().tensors;
    await expectRejection(toPixels(image, AbortSignal.abort()), 'ERR_SENET_ABORTED');
    const controller = new AbortController();
    const all = [1, 2, 3].map(() => expectRejection(toPixels(image, controller.signal), 'ERR_SENET_ABORTED'));
    controller.abort();
    await Promise.all(all);
    (await toPixels(image)).dispose(); // behind those
    expect(memory().tensors).to.be.at.most(before);
  });

  it('refuses bytes that are not as many as the size says', async () => {
    const image = { ...imageOf(1500, 1000), height: 1501 };
    await expectRejection(toPixels(image), 'ERR_SENET_SHAPE', /needs 4503000 elements, got 4500000/);
  });
});

describe('preprocess', () => {
  for (const { file, source, interpolation, size } of resized) {
    it(`resizes as Pillow: ${file}`, async () => {
      const expected = await pixelsOf(file);
      const { shape, bytes } = await bytesAfter(await pixelsOf(source), { size, interpolation });
      expect(shape).to.deep.equal(expected.shape);
      expect(bytes).to.deep.equal(Array.from(expected.contiguous().toTypedArray() as Uint8Array));
    });
  }

  it("makes grey by Pillow's formula", async () => {
    const { data } = await decodeImage(path.join(IMAGES, 'photo.jpg'));
    const { bytes, shape } = await bytesAfter(await pixelsOf('photo.jpg'), { channels: 'grey-repeated' });
    expect(shape).to.deep.equal([1, 3, 300, 420]);
    const plane = data.length / 3;
    const luma = Buffer.alloc(data.length);
    for (let pixel = 0; pixel < plane; pixel++) {
      for (let channel = 0; channel < 3; channel++)
        luma[3 * pixel + channel] = bytes[channel * plane + pixel] as number;
    }
    const grey = Buffer.from(Uint8Array.from({ length: plane }, (_, pixel) => luma[3 * pixel] as number));
    expect(createHash('sha256').update(grey).digest('hex')).to.equal(photoLuma);
    expect(bytes.slice(0, plane)).to.deep.equal(bytes.slice(2 * plane));
  });

  it('makes a large picture grey in bands, so that its int32 sums stay small', async () => {
    const [count, height, width] = [2, 1201, 900];
    const plane = height * width;
    const rgb = Uint8Array.from({ length: 3 * count * plane }, (_, i) => (i * 2_654_435_761) >>> 24);
    const callAsync = ops.callAsync.bind(ops);
    const sums: number[] = [];
    ops.callAsync = (name, ...args) => {
      if (name === 'aten::mul_.Scalar') sums.push((args[0] as Tensor).numel);
      return callAsync(name, ...args);
    };
    try {
      const { bytes } = await bytesAfter(tensor(rgb, { shape: [count, 3, height, width] }), {
        channels: 'grey-repeated',
      });
      const expected = (image: number, pixel: number): number => {
        const [r, g, b] = [0, 1, 2].map((channel) => rgb[(3 * image + channel) * plane + pixel]) as [
          number,
          number,
          number,
        ];
        return (19595 * r + 38470 * g + 7471 * b + 2 ** 15) >> 16;
      };
      for (let pixel = 0; pixel < plane; pixel += 97) {
        expect(bytes[pixel]).to.equal(expected(0, pixel));
        expect(bytes[3 * plane + pixel]).to.equal(expected(1, pixel));
      }
    } finally {
      ops.callAsync = callAsync;
    }
    expect(sums.length).to.be.at.least(2);
    expect(Math.max(...sums)).to.be.at.most(1_000_000);
  });

  it('normalises each channel as PyTorch does', async () => {
    const x = await preprocess(tensor(Uint8Array.of(0, 51, 255), { shape: [1, 3, 1, 1] }), {
      ...IMAGENET,
      size: null,
      crop: null,
    });
    const f = Math.fround;
    const expected = [0, 51, 255].map((value, channel) => {
      const mean = f(IMAGENET.mean[channel] as number);
      return f(f(f(value / 255) - mean) / f(IMAGENET.std[channel] as number));
    });
    expect(Array.from(x.toTypedArray() as Float32Array)).to.deep.equal(expected);
  });

  it('applies the record of the bundled network', async () => {
    const record: Preprocessing = {
      ...PLAIN,
      channels: 'grey-repeated',
      size: [2, 2],
      pad: 1,
      mean: [0.286],
      std: [0.353],
    };
    const x = await preprocess(tensor(Uint8Array.of(255, 0, 0, 51), { shape: [1, 1, 2, 2] }), record);
    expect(x.shape).to.deep.equal([1, 3, 4, 4]);
    const f = Math.fround;
    const normal = (value: number): number => f(f(f(value / 255) - f(0.286)) / f(0.353));
    const [edge, white, dark] = [normal(0), normal(255), normal(51)];
    const plane = [
      edge,
      edge,
      edge,
      edge,
      edge,
      white,
      edge,
      edge,
      edge,
      edge,
      dark,
      edge,
      edge,
      edge,
      edge,
      edge,
    ];
    expect(Array.from(x.toTypedArray() as Float32Array)).to.deep.equal([...plane, ...plane, ...plane]);
  });

  it('cuts the centre, at the offsets of torchvision', async () => {
    // (5 - 2) / 2 = 1.5 rounds to 2, (7 - 2) / 2 = 2.5 rounds to 2: half to even.
    const { bytes } = await bytesAfter(numbered(5, 7), { crop: [2, 2] });
    expect(bytes.slice(0, 4)).to.deep.equal([2 * 7 + 3, 2 * 7 + 4, 3 * 7 + 3, 3 * 7 + 4]);
  });

  it('pads with black what is smaller than the crop, the odd pixel at the end', async () => {
    const { shape, bytes } = await bytesAfter(numbered(1, 4), { crop: [2, 3] });
    expect(shape).to.deep.equal([1, 3, 2, 3]);
    // Height 1 is padded by 0 above and 1 below; (4 - 3) / 2 = 0.5 rounds to 0.
    expect(bytes.slice(0, 6)).to.deep.equal([1, 2, 3, 0, 0, 0]);
    const narrow = await bytesAfter(numbered(1, 2), { crop: [1, 5] });
    expect(narrow.bytes.slice(0, 5)).to.deep.equal([0, 1, 2, 0, 0]);
  });

  it('works on large images as jobs, with the same result as on small ones', async () => {
    const large = tensor(new Uint8Array(2048 * 2100).fill(7), { shape: [1, 1, 2048, 2100] });
    const { shape, bytes } = await bytesAfter(large, { channels: 'grey-repeated', size: [2, 2], pad: 1 });
    expect(shape).to.deep.equal([1, 3, 4, 4]);
    expect(bytes.slice(4, 8)).to.deep.equal([0, 7, 7, 0]);
    const whole = await preprocess(large, { ...PLAIN, mean: [7 / 255] });
    expect(whole.abs().max().item()).to.be.below(1e-7);
  });

  it('refuses a resize to more pixels than an image may have', async () => {
    const strip = tensor(new Uint8Array(30_000), { shape: [1, 1, 1, 30_000] });
    await expectRejection(
      preprocess(strip, { ...PLAIN, size: 256 }),
      'ERR_SENET_IMAGE_SIZE',
      /7680000 x 256/,
    );
  });

  it('rejects when its signal aborts, before and while it runs', async () => {
    const large = tensor(new Uint8Array(2048 * 2100), { shape: [1, 1, 2048, 2100] });
    await expectRejection(
      preprocess(large, { ...PLAIN, size: 64 }, AbortSignal.abort()),
      'ERR_SENET_ABORTED',
    );
    const controller = new AbortController();
    const running = preprocess(large, { ...PLAIN, size: 64 }, controller.signal);
    controller.abort();
    await expectRejection(running, 'ERR_SENET_ABORTED');
  });

  it('begins no resize when its signal has aborted', async () => {
    // LibTorch resizes no int64, so a resize that was begun would end with its error.
    const pixels = tensor(new BigInt64Array(16), { shape: [1, 1, 4, 4] });
    const record = { ...PLAIN, size: 2 };
    await expectRejection(preprocess(pixels, record), 'ERR_SENET_LIBTORCH');
    await expectRejection(preprocess(pixels, record, AbortSignal.abort()), 'ERR_SENET_ABORTED');
  });
});

describe('resizedSize', () => {
  it("is torchvision's", () => {
    // Values of torchvision's Resize(256): height, width -> height, width.
    expect(resizedSize(256, 480, 640)).to.deep.equal([256, 341]);
    expect(resizedSize(256, 641, 480)).to.deep.equal([341, 256]);
    expect(resizedSize(256, 100, 100)).to.deep.equal([256, 256]);
    expect(resizedSize([28, 30], 5, 6)).to.deep.equal([28, 30]);
    expect(resizedSize(null, 5, 6)).to.deep.equal([5, 6]);
  });

  it('makes the short side what was asked for, and cuts the fraction off the long one', () => {
    const side = fc.integer({ min: 1, max: 5000 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), side, side, (size, height, width) => {
        const [newHeight, newWidth] = resizedSize(size, height, width);
        expect(Math.min(newHeight, newWidth)).to.equal(size);
        const exact = (size * Math.max(height, width)) / Math.min(height, width);
        expect(exact - Math.max(newHeight, newWidth)).to.be.within(0, 1);
        expect(newHeight <= newWidth).to.equal(height <= width || newHeight === newWidth);
      }),
    );
  });
});

describe('roundHalfToEven', () => {
  it("is Python's round", () => {
    expect([0.5, 1.5, 2.5, 3.5, 0.49, 2.51, 7].map(roundHalfToEven)).to.deep.equal([0, 2, 2, 4, 0, 3, 7]);
  });
});

describe('checkPreprocessing', () => {
  const refuses = (given: unknown, code: Parameters<typeof expectCoded>[1], words: RegExp): void => {
    let thrown: unknown;
    try {
      checkPreprocessing(given, IMAGENET, 'test');
    } catch (error) {
      thrown = error;
    }
    expectCoded(thrown, code, words);
  };

  it('completes a record from its base', () => {
    expect(checkPreprocessing({ size: 232 }, IMAGENET, 'test')).to.deep.equal({ ...IMAGENET, size: 232 });
    expect(checkPreprocessing(undefined, IMAGENET, 'test')).to.deep.equal(IMAGENET);
    expect(checkPreprocessing(JSON.parse(JSON.stringify(IMAGENET)), PLAIN, 'test')).to.deep.equal(IMAGENET);
  });

  it('refuses what is no record', () => {
    refuses({ scale: 2 }, 'ERR_SENET_UNKNOWN_OPTION', /scale/);
    refuses('imagenet', 'ERR_SENET_ARG_TYPE', /options object/);
    refuses({ channels: 'bgr' }, 'ERR_SENET_ARG_RANGE', /channels/);
    refuses({ interpolation: 'nearest' }, 'ERR_SENET_ARG_RANGE', /interpolation/);
    refuses({ size: 0 }, 'ERR_SENET_ARG_RANGE', /size/);
    refuses({ size: NaN }, 'ERR_SENET_ARG_RANGE', /size/);
    refuses({ size: '256' }, 'ERR_SENET_ARG_TYPE', /size/);
    refuses({ crop: 224 }, 'ERR_SENET_ARG_TYPE', /crop/);
    refuses({ crop: [224] }, 'ERR_SENET_ARG_TYPE', /crop/);
    refuses({ pad: -1 }, 'ERR_SENET_ARG_RANGE', /pad/);
    refuses({ mean: [1, 2] }, 'ERR_SENET_ARG_TYPE', /mean/);
    refuses({ mean: [0, 0, Infinity] }, 'ERR_SENET_ARG_TYPE', /mean/);
    refuses({ mean: new Array<number>(3) }, 'ERR_SENET_ARG_TYPE', /mean/);
    refuses({ std: [1, 0, 1] }, 'ERR_SENET_ARG_RANGE', /std/);
    refuses({ channels: 'grey-repeated' }, 'ERR_SENET_ARG_TYPE', /mean: expected one number/);
  });
});
