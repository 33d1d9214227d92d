/**
 * Images that are prepared in one job, row by row, against the whole picture decoded and then preprocessed: the same bits.
 * Both ways end in the same pixels as Pillow (decode.test.ts, preprocessing.test.ts), which is not repeated here.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';
import fc from 'fast-check';
import sharp from 'sharp';

import { IMAGENET, PLAIN, type Preprocessing } from '../../lib/models/preprocessing-record';
import { memory } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { tidy } from '../../lib/tensor/scope';
import { ByteBudget } from '../../lib/vision/byte-budget';
import { MAX_PIXELS } from '../../lib/vision/decode';
import { decodeImage } from '../support/decode';
import { prepareByRows } from '../../lib/vision/input-by-rows';
import { jpegFrame, pngFrame } from '../../lib/vision/image-frame';
import { ImageWork } from '../../lib/vision/image-work';
import { preprocess, toPixels } from '../../lib/vision/preprocessing';
import { expectRejection } from '../support/errors';
import { FUZZ_RUNS, FUZZ_SEED } from '../support/fuzz';

const IMAGES = path.join(__dirname, '..', 'fixtures', 'images');
const variants = JSON.parse(readFileSync(path.join(IMAGES, 'variants.json'), 'utf8')) as Record<
  string,
  { file: string }
>;
const PHOTO = path.join(IMAGES, 'photo.jpg');

/** Records that take every step another way. */
const RECORDS: readonly Preprocessing[] = [
  IMAGENET,
  { ...PLAIN, mean: [0.4], std: [0.3] },
  { ...IMAGENET, size: [9, 60], crop: [20, 40], interpolation: 'bicubic' },
  { ...IMAGENET, size: 17, crop: null, pad: 3 },
  { ...PLAIN, size: 28, crop: [28, 28], channels: 'grey', mean: [0.2], std: [0.4] },
  {
    ...PLAIN,
    size: [28, 20],
    channels: 'grey-repeated',
    mean: [0.286],
    std: [0.353],
    interpolation: 'bicubic',
  },
];

const enough = (): Promise<void> => Promise.resolve();

function byRows(bytes: Buffer, record: Preprocessing, shrinkOnLoad = false): Promise<Tensor | undefined> {
  return prepareByRows(bytes, { record, shrinkOnLoad, borrowed: false, reserve: enough });
}

function whole(bytes: Buffer, record: Preprocessing): Promise<Tensor> {
  return tidy(async () => preprocess(await toPixels(await decodeImage(bytes)), record));
}

/** Whether the image was prepared by rows; its input is then that of the other way to the bit. */
async function isSame(bytes: Buffer, record: Preprocessing): Promise<boolean> {
  const actual = await byRows(bytes, record);
  if (actual === undefined) return false;
  const expected = await whole(bytes, record);
  expect(actual.shape).to.deep.equal(expected.shape);
  const bits = (x: Tensor): Buffer => Buffer.from((x.contiguous().toTypedArray() as Float32Array).buffer);
  expect(bits(actual).equals(bits(expected)), JSON.stringify(record)).to.equal(true);
  return true;
}

describe('prepareByRows', () => {
  const files = readdirSync(IMAGES).filter(
    (name) => /\.(jpg|png)$/.test(name) && !name.startsWith('resized'),
  );
  /** CMYK and 16 bits have other pixels; the turn of an XMP packet is left to the other way. */
  const others = /cmyk|16\.png|^xmp.*\.jpg$/;

  for (const name of files) {
    it(`gives the input of the whole picture for ${name}`, async () => {
      const bytes = readFileSync(path.join(IMAGES, name));
      for (const record of RECORDS) expect(await isSame(bytes, record)).to.equal(!others.test(name));
    });
  }

  it('gives that for odd files too, or leaves them to the other way', async () => {
    const taken: string[] = [];
    for (const [name, { file }] of Object.entries(variants)) {
      const bytes = Buffer.from(file, 'base64');
      if (await isSame(bytes, RECORDS[2] as Preprocessing)) taken.push(name);
    }
    expect(taken).to.include.members(['interlaced.png', 'xmp-6.png', 'raw-exif.png', 'exif-and-raw.png']);
    expect(taken.filter((name) => /bmp|p[bgp]m|gif|tif|webp/.test(name))).to.deep.equal([]);
  });

  it('gives it for random pictures, however they are coded and turned', async function () {
    this.timeout(60_000);
    const size = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 500 }));
    const coding = fc.record({
      ...{ width: size, height: size, seed: fc.integer({ min: 1, max: 1e6 }) },
      bands: fc.constantFrom(1, 2, 3, 4),
      format: fc.constantFrom('jpeg', 'png'),
      quality: fc.integer({ min: 30, max: 100 }),
      progressive: fc.boolean(),
      chromaSubsampling: fc.constantFrom('4:2:0', '4:4:4'),
      palette: fc.boolean(),
      orientation: fc.integer({ min: 1, max: 8 }),
      record: fc.constantFrom(...RECORDS),
    });
    await fc.assert(
      fc.asyncProperty(coding, async (drawn) => {
        const { width, height, bands, seed, format, orientation, record, ...how } = drawn;
        const channels = bands;
        const noise = await sharp({
          create: { width, height, channels: 3, noise: { type: 'gaussian', mean: seed % 256, sigma: 60 } },
        } as never)
          .blur(1.5)
          .raw()
          .toBuffer();
        const pixels = Buffer.alloc(width * height * channels);
        for (let i = 0; i < pixels.length; i++) pixels[i] = noise[i % noise.length] as number;
        const image = sharp(pixels, { raw: { width, height, channels } }).withMetadata({ orientation });
        const bytes = await (
          format === 'jpeg'
            ? image.jpeg({
                quality: how.quality,
                progressive: how.progressive,
                chromaSubsampling: how.chromaSubsampling,
              })
            : image.png({ progressive: how.progressive, palette: how.palette && channels >= 3 })
        ).toBuffer();
        expect(await isSame(bytes, record)).to.equal(true);
      }),
      { seed: FUZZ_SEED, numRuns: 60 * FUZZ_RUNS },
    );
  });

  it('reserves what is held of a picture that comes row by row, and all of one that does not', async () => {
    const large = sharp(PHOTO).resize(3000, 2400, { kernel: 'nearest' });
    const reserved = async (bytes: Buffer): Promise<number> => {
      let sum = 0;
      const reserve = (count: number): Promise<void> => Promise.resolve(void (sum += count));
      const input = await prepareByRows(bytes, {
        record: IMAGENET,
        shrinkOnLoad: false,
        borrowed: false,
        reserve,
      });
      expect(input).to.not.equal(undefined);
      return sum;
    };
    const picture = 3000 * 2400 * 3;
    expect(await reserved(await large.jpeg().toBuffer())).to.be.below(picture / 3);
    expect(await reserved(await large.png().toBuffer())).to.be.below(picture / 3);
    expect(await reserved(await large.jpeg({ progressive: true }).toBuffer())).to.be.above(picture);
    expect(await reserved(await large.png({ progressive: true }).toBuffer())).to.be.above(picture);
  });

  it('shrinks a JPEG while it is decoded where that is allowed, near to the exact pixels, and nothing else', async () => {
    const record = { ...PLAIN, size: 60, crop: [50, 50] as const };
    const difference = async (bytes: Buffer): Promise<number> => {
      const [exact, near] = [await byRows(bytes, record), await byRows(bytes, record, true)];
      expect(near?.shape).to.deep.equal(exact?.shape);
      const values = exact?.toTypedArray() as Float32Array;
      const others = near?.toTypedArray() as Float32Array;
      return (
        values.reduce((sum, value, i) => sum + Math.abs(value - (others[i] as number)), 0) / values.length
      );
    };
    for (const orientation of [1, 6]) {
      const large = sharp(PHOTO).resize(1001, 715).withMetadata({ orientation });
      expect(await difference(await large.jpeg().toBuffer())).to.be.within(1e-4, 2 / 255);
      expect(await difference(await large.png().toBuffer())).to.equal(0);
      expect(await difference(await large.clone().resize(200, 143).jpeg().toBuffer())).to.equal(0);
    }
  });

  it('gives it for large pictures, several at a time', async () => {
    const large = sharp(PHOTO).resize(1001, 715);
    for (const image of [large.clone().jpeg(), large.clone().png(), large.clone().greyscale().png()]) {
      const bytes = await image.toBuffer();
      const same = RECORDS.slice(0, 4).map((record) => isSame(bytes, record));
      expect(await Promise.all(same)).to.deep.equal([true, true, true, true]);
    }
  });

  it('leaves damaged files to the other way, which says what is wrong with them', async () => {
    const large = sharp(PHOTO).resize(1001, 715);
    for (const image of [
      sharp(PHOTO).jpeg(),
      sharp(PHOTO).png(),
      large.clone().jpeg(),
      large.clone().png(),
    ]) {
      const bytes = await image.toBuffer();
      for (const length of [0, 3, 20, 60, bytes.length >> 1, bytes.length - 20]) {
        expect(await byRows(bytes.subarray(0, length), IMAGENET)).to.equal(undefined);
      }
    }
  });

  it('leaves more pixels than are decoded, or would be made, to the other way', async () => {
    const thin = await sharp({ create: { width: 8000, height: 1, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    expect(await byRows(thin, { ...PLAIN, size: 4000 })).to.equal(undefined);
    const header = await sharp(PHOTO).png().toBuffer();
    header.writeUInt32BE(60_000, 16);
    header.writeUInt32BE(60_000, 20);
    expect(await byRows(header, IMAGENET)).to.equal(undefined);
  });

  it('takes a PNG that is longer than any JPEG, and leaves one for which too many weights were held', async () => {
    const strip = async (width: number): Promise<Buffer> => {
      const data = Buffer.alloc(3 * width * 4, 0);
      for (let at = 0; at < data.length; at++) data[at] = (at * 31 + (at >> 9)) & 255;
      return sharp(data, { raw: { width, height: 4, channels: 3 } })
        .png()
        .toBuffer();
    };
    const record = { ...PLAIN, size: [8, 50], interpolation: 'bicubic' } as const;
    for (const width of [70_000, 240_000]) expect(await isSame(await strip(width), record)).to.equal(true);
    const longer = await strip(600_000);
    expect(await byRows(longer, record)).to.equal(undefined);
    expect((await whole(longer, record)).shape).to.deep.equal([1, 3, 8, 50]);
  });

  it('keeps no tensors but the input, and none of an image that it does not take', async () => {
    const bytes = readFileSync(PHOTO);
    const before = memory().tensors;
    for (const record of RECORDS) (await byRows(bytes, record))?.dispose();
    await byRows(bytes.subarray(0, 500), IMAGENET);
    expect(memory().tensors).to.be.at.most(before);
  });
});

const DECODING = { shrinkOnLoad: false, maxPixels: MAX_PIXELS };

describe('ImageWork', () => {
  it('gives back what it reserved before it goes the other way, so that it waits again', async () => {
    const budget = new ByteBudget(2 ** 27);
    const hold = budget.hold();
    const bytes = await sharp(PHOTO).resize(1200, 900).jpeg().toBuffer();
    const work = new ImageWork(bytes.subarray(0, bytes.length >> 1), IMAGENET, DECODING, 1, false);
    let most = 0;
    const reserve = async (count: number): Promise<void> => {
      await hold.reserve(count);
      most = Math.max(most, budget.used);
    };
    await expectRejection(work.decode(reserve, hold.restart), 'ERR_SENET_IMAGE');
    expect(most).to.equal(1200 * 900 * 3);
    hold.release();
    expect(budget.used).to.equal(0);
    work.dispose();
  });

  it('copies the bytes when its turn comes: what becomes of them then changes nothing', async () => {
    const bytes = await sharp(PHOTO).resize(1600, 1200).jpeg().toBuffer();
    const expected = await whole(bytes, IMAGENET);
    for (const make of [(): Uint8Array => new Uint8Array(bytes), () => new Uint8Array(bytes).buffer]) {
      const given = make();
      const work = new ImageWork(given, IMAGENET, DECODING, 1, false);
      const decoded = work.decode(enough, () => undefined);
      await turn();
      const view = given instanceof Uint8Array ? given : new Uint8Array(given);
      view.fill(0);
      structuredClone(view, { transfer: [view.buffer as ArrayBuffer] });
      await decoded;
      expect(work.input.toTypedArray()).to.deep.equal(expected.toTypedArray());
      work.dispose();
    }
  });

  it('refuses bytes that are gone before its turn comes', async () => {
    const given = new Uint8Array(readFileSync(PHOTO));
    const work = new ImageWork(given, IMAGENET, DECODING, 1, false);
    const decoded = work.decode(enough, () => undefined);
    structuredClone(given, { transfer: [given.buffer] });
    await expectRejection(decoded, 'ERR_SENET_BUFFER');
    work.dispose();
  });
});

describe('the frame of an image', () => {
  const jpeg = (): Promise<Buffer> => sharp(PHOTO).resize(321, 123).jpeg().toBuffer();

  it('is its size, and what is held of it as a whole', async () => {
    expect(jpegFrame(await jpeg())).to.deep.equal({ width: 321, height: 123, wholeBytes: 0 });
    const progressive = await sharp(PHOTO).resize(320, 120).jpeg({ progressive: true }).toBuffer();
    expect(jpegFrame(progressive)).to.deep.equal({ width: 320, height: 120, wholeBytes: 320 * 120 * 3 });
    const png = await sharp(PHOTO).resize(321, 123).png().toBuffer();
    expect(pngFrame(png)).to.deep.equal({ width: 321, height: 123, wholeBytes: 0 });
  });

  it('is none of what is cut off, wherever, or changed', async () => {
    const bytes = await jpeg();
    const scan = bytes.indexOf(Buffer.from([0xff, 0xda]));
    for (let length = 0; length < scan + 4; length++)
      expect(jpegFrame(bytes.subarray(0, length))).to.equal(undefined);
    fc.assert(
      fc.property(fc.nat(scan + 12), fc.nat(255), (at, value) => {
        const changed = Buffer.from(bytes);
        changed[at] = value;
        const frame = jpegFrame(changed);
        expect(frame === undefined || frame.wholeBytes >= 0).to.equal(true);
      }),
      { seed: FUZZ_SEED, numRuns: 2000 },
    );
    expect(pngFrame(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'))).to.equal(undefined);
    expect(pngFrame(Buffer.alloc(64))).to.equal(undefined);
  });

  it('is none of segments without end', () => {
    const segments = Buffer.alloc(4 * 100_000);
    for (let at = 0; at < segments.length; at += 4) segments.writeUInt32BE(0xffe00002, at);
    expect(jpegFrame(Buffer.concat([Buffer.from([0xff, 0xd8]), segments]))).to.equal(undefined);
  });
});
