/** Resized uint8 images against Pillow's pixels (scripts/fixtures/make_resized.py). */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { ones, tensor } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { cut, INLINE_RESIZE_ELEMENTS, resize } from '../../lib/vision/resize';
import { expectRejection } from '../support/errors';

type Case = [[number, number, number], [number, number], 'bilinear' | 'bicubic', string];

const cases = JSON.parse(
  readFileSync(path.join(__dirname, '..', 'fixtures', 'images', 'resized.json'), 'utf8'),
) as Case[];

/** 1 x C x H x W with the channels side by side. */
function noise(channels: number, height: number, width: number): Tensor {
  const bytes = Uint8Array.from(
    { length: channels * height * width },
    (_, index) => Math.imul(index, 2_654_435_761) >>> 24,
  );
  return tensor(bytes, { shape: [1, height, width, channels] }).permute([0, 3, 1, 2]);
}

/** Of the pixels row by row, channels side by side. */
function digest(x: Tensor): string {
  const rows = x.permute([0, 2, 3, 1]).contiguous().toTypedArray() as Uint8Array;
  return createHash('sha256').update(rows).digest('hex');
}

function same(actual: Tensor, expected: Tensor): boolean {
  return ops.call('aten::equal', actual, expected) as boolean;
}

describe('resize', () => {
  for (const [shape, size, interpolation, sha256] of cases) {
    it(`gives Pillow's pixels: ${shape.join(' x ')} to ${size.join(' x ')}, ${interpolation}`, () =>
      tidy(async () => {
        const images = noise(...shape);
        expect(digest(await resize(images, { size, interpolation }))).to.equal(sha256);
        // The same pixels in planes, and within a larger image.
        expect(digest(await resize(images.contiguous(), { size, interpolation }))).to.equal(sha256);
        const [, height, width] = shape;
        const framed = cut(images.pad([2, 3, 1, 4]), { top: 1, left: 2, height, width });
        expect(digest(await resize(framed, { size, interpolation }))).to.equal(sha256);
      }));
  }

  it('makes a part as it cuts it out of the whole', () =>
    tidy(async () => {
      const images = noise(3, 61, 83);
      const size = [29, 150] as const;
      for (const interpolation of ['bilinear', 'bicubic'] as const) {
        const whole = await resize(images, { size, interpolation });
        expect(whole.shape).to.deep.equal([1, 3, ...size]);
        for (const window of [
          { top: 0, left: 0, height: 1, width: 150 },
          { top: 3, left: 17, height: 24, width: 24 },
          { top: 28, left: 149, height: 1, width: 1 },
        ]) {
          const part = await resize(images, { size, interpolation, window });
          expect(same(part, cut(whole, window))).to.equal(true);
        }
      }
    }));

  it('gives images that have the size as they are, or the part of them', async () => {
    const images = noise(3, 5, 6);
    const size = [5, 6] as const;
    expect(await resize(images, { size, interpolation: 'bilinear' })).to.equal(images);
    const window = { top: 1, left: 2, height: 3, width: 4 };
    const part = await resize(images, { size, interpolation: 'bilinear', window });
    expect(same(part, cut(images, window))).to.equal(true);
  });

  it('resizes large images in a job, each of a batch as it would alone', () =>
    tidy(async () => {
      const image = noise(3, 1200, 1300);
      expect(image.numel).to.be.above(INLINE_RESIZE_ELEMENTS);
      const wanted = { size: [224, 243], interpolation: 'bicubic' } as const;
      const whole = await resize(image, wanted);
      // The same rows from halves whose borders are far enough away not to be seen.
      const upper = await resize(image.slice(2, 0, 600), { ...wanted, size: [112, 243] });
      expect(same(whole.slice(2, 0, 100), upper.slice(2, 0, 100))).to.equal(true);
      const small = image.slice(2, 0, 40).slice(3, 0, 50);
      const mirrored = ops.call('aten::flip', small, [3]) as Tensor;
      const batch = ops.call('aten::cat', [small, mirrored]) as Tensor;
      const both = await resize(batch, { ...wanted, size: [30, 20] });
      const second = await resize(mirrored, { ...wanted, size: [30, 20] });
      expect(same(both.slice(0, 1, 2), second)).to.equal(true);
    }));

  it('leaves floating images to LibTorch', () =>
    tidy(async () => {
      const images = noise(3, 20, 30).to('float32');
      const expected = ops.call('aten::_upsample_bicubic2d_aa', images, [9, 11], false, null, null) as Tensor;
      const window = { top: 2, left: 3, height: 4, width: 5 };
      const part = await resize(images, { size: [9, 11], interpolation: 'bicubic', window });
      expect(same(part, cut(expected, window))).to.equal(true);
    }));

  it('rejects at once when it is aborted, before, queued or running, and leaves nothing', async () => {
    const images = ones([1, 3, 2000, 2000], { dtype: 'uint8' });
    const before = memory().tensors;
    const wanted = { size: [500, 500], interpolation: 'bilinear' } as const;
    await expectRejection(resize(images, wanted, AbortSignal.abort()), 'ERR_SENET_ABORTED');
    const controller = new AbortController();
    const all = [1, 2, 3].map(() =>
      expectRejection(resize(images, wanted, controller.signal), 'ERR_SENET_ABORTED'),
    );
    controller.abort();
    await Promise.all(all);
    (await resize(images, wanted)).dispose(); // behind those
    expect(memory().tensors).to.be.at.most(before);
  });
});
