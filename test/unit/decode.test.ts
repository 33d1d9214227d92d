/** Decoding against Pillow's pixels (scripts/fixtures/make_images.py), and images that are none. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { deflateSync } from 'node:zlib';

import { expect } from 'chai';
import fc from 'fast-check';
import sharp from 'sharp';

import { isSenetError } from '../../lib/errors';
import { decodeImage } from '../../lib/vision/decode';
import { expectRejection } from '../support/errors';

const IMAGES = path.join(__dirname, '..', 'fixtures', 'images');
const { decoded } = JSON.parse(readFileSync(path.join(IMAGES, 'expected.json'), 'utf8')) as {
  decoded: Record<string, { width: number; height: number; sha256?: string; rgb?: string }>;
};

describe('decodeImage', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'senet-decode-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  const write = (name: string, contents: string | Uint8Array): string => {
    const file = path.join(folder, name);
    writeFileSync(file, contents);
    return file;
  };

  for (const [name, { width, height, sha256, rgb }] of Object.entries(decoded)) {
    it(`gives Pillow's pixels for ${name}`, async () => {
      const image = await decodeImage(path.join(IMAGES, name));
      expect([image.width, image.height]).to.deep.equal([width, height]);
      expect(image.data.length).to.equal(width * height * 3);
      if (sha256 !== undefined) {
        expect(createHash('sha256').update(image.data).digest('hex')).to.equal(sha256);
        return;
      }
      const expected = Buffer.from(rgb ?? '', 'base64');
      const worst = image.data.reduce(
        (most, value, index) => Math.max(most, Math.abs(value - (expected[index] ?? 0))),
        0,
      );
      expect(worst).to.be.at.most(1);
    });
  }

  describe('with a wanted size', () => {
    const wanted = (height: number, width: number): [number, number] =>
      height <= width ? [60, Math.trunc((60 * width) / height)] : [Math.trunc((60 * height) / width), 60];
    const large = (): sharp.Sharp => sharp(path.join(IMAGES, 'photo.jpg')).resize(1001, 715);

    for (const orientation of [1, 6]) {
      it(`gives a large JPEG at twice that size, near to all of it resized (orientation ${orientation})`, async () => {
        const bytes = await large().withMetadata({ orientation }).jpeg().toBuffer();
        const whole = await decodeImage(bytes);
        expect([whole.width, whole.height]).to.deep.equal(orientation === 1 ? [1001, 715] : [715, 1001]);
        const small = await decodeImage(bytes, wanted);
        expect([small.width, small.height]).to.deep.equal(orientation === 1 ? [168, 120] : [120, 168]);
        const { width, height } = small;
        const reference = await sharp(whole.data, { raw: { ...whole, channels: 3 } })
          .resize(width, height, { fit: 'fill', kernel: 'linear' })
          .raw()
          .toBuffer();
        const difference = small.data.reduce(
          (sum, value, index) => sum + Math.abs(value - (reference[index] ?? 999)),
          0,
        );
        expect(difference / reference.length).to.be.below(2);
      });
    }

    it('leaves alone what is not much larger, and every other format', async () => {
      const size = async (bytes: Buffer): Promise<number[]> => {
        const { width, height } = await decodeImage(bytes, wanted);
        return [width, height];
      };
      expect(await size(await large().resize(500, 357).jpeg().toBuffer())).to.deep.equal([500, 357]);
      expect(await size(await large().png().toBuffer())).to.deep.equal([1001, 715]);
      expect(await size(await large().toColourspace('cmyk').jpeg().toBuffer())).to.deep.equal([1001, 715]);
    });
  });

  it('takes bytes, and leaves them as they were', async () => {
    const bytes = readFileSync(path.join(IMAGES, 'transparent.gif'));
    const copy = Buffer.from(bytes);
    const fromBytes = await decodeImage(bytes);
    expect(bytes.equals(copy)).to.equal(true);
    expect(fromBytes).to.deep.equal(await decodeImage(path.join(IMAGES, 'transparent.gif')));
  });

  it('keeps its own copy of bytes that are transferred away meanwhile', async () => {
    const bytes = new Uint8Array(readFileSync(path.join(IMAGES, 'rgb.png')));
    const decoding = decodeImage(bytes);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    expect((await decoding).width).to.equal(36);
  });

  it('refuses what is not there and what is no file', async () => {
    await expectRejection(
      decodeImage(path.join(folder, 'none.png')),
      'ERR_SENET_FILE_NOT_FOUND',
      /none\.png/,
    );
    await expectRejection(decodeImage(''), 'ERR_SENET_FILE_NOT_FOUND');
    await expectRejection(decodeImage('a\0b'), 'ERR_SENET_FILE_NOT_FOUND');
    await expectRejection(decodeImage(folder), 'ERR_SENET_FILE', /folder/);
    await expectRejection(decodeImage('/dev/null'), 'ERR_SENET_FILE');
  });

  it('refuses files that are no images', async () => {
    await expectRejection(
      decodeImage(write('text.png', 'hello, world')),
      'ERR_SENET_IMAGE',
      /expected a JPEG/,
    );
    await expectRejection(decodeImage(write('short.jpg', '\xff')), 'ERR_SENET_IMAGE');
    const drawing = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>';
    await expectRejection(decodeImage(write('drawing.svg', drawing)), 'ERR_SENET_IMAGE');
    await expectRejection(decodeImage(write('empty.png', '')), 'ERR_SENET_IMAGE_SIZE', /no bytes/);
    await expectRejection(decodeImage(new Uint8Array(0)), 'ERR_SENET_IMAGE_SIZE');
  });

  it('refuses truncated images of every format', async () => {
    for (const name of [
      'progressive.jpg',
      'rgb.png',
      'lossy.webp',
      'palette.gif',
      'lzw.tif',
      'full-colour.avif',
    ]) {
      const bytes = readFileSync(path.join(IMAGES, name));
      await expectRejection(
        decodeImage(bytes.subarray(0, bytes.length / 2)),
        'ERR_SENET_IMAGE',
        /cannot be decoded/,
      );
    }
  });

  it('refuses an image of 30,000 x 30,000 pixels before it decodes it', async () => {
    const bytes = hugePng(30_000, 30_000);
    const before = process.memoryUsage().rss;
    await expectRejection(decodeImage(bytes), 'ERR_SENET_IMAGE_SIZE', /30000 x 30000/);
    expect(process.memoryUsage().rss - before).to.be.below(300e6);
  });

  it('refuses arrays that it cannot rely on', async () => {
    const detached = new Uint8Array(16);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    await expectRejection(decodeImage(detached), 'ERR_SENET_BUFFER', /detached/);
    await expectRejection(
      decodeImage(new Uint8Array(new SharedArrayBuffer(16))),
      'ERR_SENET_BUFFER',
      /shared/,
    );
    for (const wrong of [undefined, null, 7, {}, [1, 2], new Float32Array(4), new ArrayBuffer(4)]) {
      await expectRejection(decodeImage(wrong as never), 'ERR_SENET_ARG_TYPE');
    }
  });

  it('answers damaged images with pixels or a coded error', async () => {
    const sources = [
      'rgb.png',
      'grey.jpg',
      'transparent.gif',
      'lzw.tif',
      'alpha.webp',
      'full-colour.avif',
    ].map((name) => readFileSync(path.join(IMAGES, name)));
    const damage = fc.tuple(
      fc.constantFrom(...sources),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 }),
    );
    await fc.assert(
      fc.asyncProperty(damage, async ([source, changes]) => {
        const bytes = Buffer.from(source);
        for (const [place, value] of changes) bytes[place % bytes.length] = value;
        try {
          const { data, width, height } = await decodeImage(bytes);
          expect(data.length).to.equal(width * height * 3);
        } catch (error) {
          if (!isSenetError(error)) throw error;
          expect(error.code).to.match(/^ERR_SENET_IMAGE/);
        }
      }),
      { numRuns: 150 },
    );
  });
});

/** A valid header, and rows that are not all there. */
function hugePng(width: number, height: number): Buffer {
  const chunk = (name: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(name, 'latin1'), data]);
    const framed = Buffer.alloc(8 + body.length);
    framed.writeUInt32BE(data.length, 0);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), 4 + body.length);
    return framed;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(1000))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc32(bytes: Buffer): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
