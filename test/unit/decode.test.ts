/**
 * Decoding against Pillow's pixels (scripts/fixtures/make_images.py and make_image_variants.py), whatever names an image,
 * and images that are none.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { deflateSync } from 'node:zlib';

import { expect } from 'chai';
import fc from 'fast-check';
import sharp from 'sharp';

import { isSenetError, type ErrorCode } from '../../lib/errors';
import { decodeImage } from '../support/decode';
import { expectRejection } from '../support/errors';

const IMAGES = path.join(__dirname, '..', 'fixtures', 'images');
const { decoded } = JSON.parse(readFileSync(path.join(IMAGES, 'expected.json'), 'utf8')) as {
  decoded: Record<string, { width: number; height: number; sha256?: string; rgb?: string }>;
};

const variants = JSON.parse(readFileSync(path.join(IMAGES, 'variants.json'), 'utf8')) as Record<
  string,
  { file: string; width: number; height: number; sha256: string }
>;
const variant = (name: string): Buffer => Buffer.from(variants[name]?.file ?? '', 'base64');
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

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

  for (const [name, { width, height, sha256: digest, rgb }] of Object.entries(decoded)) {
    it(`gives Pillow's pixels for ${name}`, async () => {
      const image = await decodeImage(path.join(IMAGES, name));
      expect([image.width, image.height]).to.deep.equal([width, height]);
      expect(image.data.length).to.equal(width * height * 3);
      if (digest !== undefined) {
        expect(sha256(image.data)).to.equal(digest);
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

  for (const [name, { width, height, sha256: digest }] of Object.entries(variants)) {
    it(`gives Pillow's pixels, or what the format means, for ${name}`, async () => {
      const image = await decodeImage(variant(name));
      expect([image.width, image.height]).to.deep.equal([width, height]);
      expect(sha256(image.data)).to.equal(digest);
    });
  }

  describe('with a wanted size', () => {
    const wanted = (height: number, width: number): [number, number] =>
      height <= width ? [60, Math.trunc((60 * width) / height)] : [Math.trunc((60 * height) / width), 60];
    const large = (): sharp.Sharp => sharp(path.join(IMAGES, 'photo.jpg')).resize(1001, 715);

    const tellings: readonly [
      what: string,
      orientation: number,
      tell: (image: sharp.Sharp) => sharp.Sharp,
    ][] = [
      ['1', 1, (image) => image.withMetadata({ orientation: 1 })],
      ['6', 6, (image) => image.withMetadata({ orientation: 6 })],
      ['6 in XMP', 6, (image) => image.withXmp('<rdf:Description tiff:Orientation="6"/>')],
    ];
    for (const [what, orientation, tell] of tellings) {
      it(`gives a large JPEG at twice that size, near to all of it resized (orientation ${what})`, async () => {
        const bytes = await tell(large()).jpeg().toBuffer();
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

  it('takes the pixels of a GIF without any palette for greys, as Pillow does', async () => {
    // 4 x 2 with a frame of 2 x 2 at (1, 0), whose transparent colour is 7.
    const codes = [256, 0, 100, 200, 255, 257];
    const bits = codes.reduce((sum, code, i) => sum | (BigInt(code) << BigInt(9 * i)), 0n);
    const packed = Buffer.from(bits.toString(16).padStart(14, '0'), 'hex').reverse();
    const screen = Buffer.from([...Buffer.from('GIF89a'), 4, 0, 2, 0, 0x70, 0, 0]);
    const control = Buffer.from([0x21, 0xf9, 4, 1, 0, 0, 7, 0]);
    const frame = Buffer.from([0x2c, 1, 0, 0, 0, 2, 0, 2, 0, 0, 8, packed.length]);
    const gif = Buffer.concat([screen, control, frame, packed, Buffer.from([0, 0x3b])]);
    const { data, width, height } = await decodeImage(gif);
    expect([width, height]).to.deep.equal([4, 2]);
    const greys = [7, 0, 100, 7, 7, 200, 255, 7];
    expect([...data]).to.deep.equal(greys.flatMap((grey) => [grey, grey, grey]));
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
    const buffer = new ArrayBuffer(16);
    structuredClone(buffer, { transfer: [buffer] });
    await expectRejection(decodeImage(buffer), 'ERR_SENET_BUFFER', /detached/);
    await expectRejection(decodeImage(new SharedArrayBuffer(16) as never), 'ERR_SENET_BUFFER', /shared/);
    for (const wrong of [
      undefined,
      null,
      7,
      {},
      [1, 2],
      new Float32Array(4),
      new DataView(new ArrayBuffer(4)),
    ]) {
      await expectRejection(decodeImage(wrong as never), 'ERR_SENET_ARG_TYPE', /a Blob or a Tensor/);
    }
  });

  it('takes ArrayBuffer, Blob, and file: and data: URLs', async () => {
    const bytes = readFileSync(path.join(IMAGES, 'rgb.png'));
    const expected = await decodeImage(bytes);
    const file = write('with space & %41#?.png', bytes);
    const base64 = bytes.toString('base64');
    const escaped = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
    for (const source of [
      new Uint8Array(bytes).buffer,
      new Blob([bytes]),
      new File([bytes], 'rgb.png'),
      pathToFileURL(file),
      pathToFileURL(file).href,
      pathToFileURL(file).href.replace('file:', 'FILE:'),
      `data:image/png;base64,${base64}`,
      new URL(`data:image/png;base64,${base64}`),
      `data:;Base64,${base64.replace(/(.{40})/g, '$1\n')}`,
      `data:image/png;base64,${encodeURIComponent(base64)}`,
      `data:,${escaped}`,
    ]) {
      expect(await decodeImage(source)).to.deep.equal(expected);
    }
  });

  it('refuses other URLs, and those that hold no image, without fetching anything', async () => {
    await expectRejection(decodeImage(new URL('https://example.org/a.png')), 'ERR_SENET_ARG_RANGE', /file:/);
    await expectRejection(decodeImage('https://example.org/a.png'), 'ERR_SENET_FILE_NOT_FOUND', /fetched/);
    await expectRejection(decodeImage('file://elsewhere/a.png'), 'ERR_SENET_ARG_RANGE', /elsewhere/);
    await expectRejection(decodeImage('file:///a%2fb.png'), 'ERR_SENET_ARG_RANGE');
    await expectRejection(decodeImage('file:///a%00b.png'), 'ERR_SENET_FILE_NOT_FOUND');
    await expectRejection(
      decodeImage(pathToFileURL(path.join(folder, 'gone.png'))),
      'ERR_SENET_FILE_NOT_FOUND',
    );
    await expectRejection(decodeImage(pathToFileURL(folder)), 'ERR_SENET_FILE', /folder/);
    await expectRejection(decodeImage('data:image/png;base64'), 'ERR_SENET_IMAGE', /comma/);
    await expectRejection(decodeImage('data:image/png;base64,%%%'), 'ERR_SENET_IMAGE', /base64/);
    await expectRejection(decodeImage('data:,'), 'ERR_SENET_IMAGE_SIZE', /^data: URL: /);
    await expectRejection(decodeImage(`data:,${'x'.repeat(9999)}`), 'ERR_SENET_IMAGE', /^.{0,200}$/);
    await expectRejection(decodeImage(new Blob([])), 'ERR_SENET_IMAGE_SIZE', /no bytes/);
  });

  it('says of each damaged image what is wrong with that one, however many there are at once', async () => {
    const photo = await sharp(path.join(IMAGES, 'photo.jpg')).resize(200).jpeg().toBuffer();
    const cut = (name: string): Buffer => {
      const bytes = readFileSync(path.join(IMAGES, name));
      return bytes.subarray(0, bytes.length * 0.6);
    };
    const damaged: [source: Buffer, reason: RegExp][] = [
      [photo.subarray(0, photo.length / 2), /as jpeg: VipsJpeg: [^;]*premature end[^;]*$/],
      [cut('rgb.png'), /as png: it is truncated/],
      [cut('lossy.webp'), /as webp: [^;]*webp/i],
      [cut('lzw.tif'), /as tiff: it is damaged, or of a kind that is not read$/],
      [cut('palette.gif'), /as gif: [^;]*gif/i],
      [cut('full-colour.avif'), /as avif: [^;]*(heif|avif)/i],
      [variant('24-header40.bmp').subarray(0, 100), /as bmp: it is truncated$/],
      [variant('p2-255.pgm').subarray(0, 30), /as netpbm: it is truncated$/],
    ];
    const good = path.join(IMAGES, 'photo.jpg');
    const results = await Promise.allSettled(
      Array.from({ length: 120 }, (_, place) => decodeImage(damaged[place % 9]?.[0] ?? good)),
    );
    for (const [place, result] of results.entries()) {
      const expected = damaged[place % 9]?.[1];
      const message = result.status === 'rejected' ? (result.reason as Error).message : 'decoded';
      expect(message).to.match(expected ?? /^decoded$/);
      expect(message).not.to.match(/unknown error/i);
    }
  });

  it('names the compression of a TIFF that the decoder was not built with', async () => {
    const kinds: [compression: number, name: RegExp][] = [
      [6, /old-style jpeg/i],
      [34661, /jbig/i],
      [34887, /lerc/i],
      [34925, /lzma/i],
      [50000, /zstd/i],
      [50002, /compression scheme 50002/i], // JPEG XL
    ];
    const compressed = kinds.map(([compression]) => {
      const bytes = variant('plain.tif');
      const entry = bytes.readUInt32LE(4) + 2 + 3 * 12;
      expect(bytes.readUInt16LE(entry)).to.equal(259);
      bytes.writeUInt16LE(compression, entry + 8);
      return bytes;
    });
    const results = await Promise.allSettled(
      Array.from({ length: 60 }, (_, place) => decodeImage(compressed[place % kinds.length] as Buffer)),
    );
    for (const [place, result] of results.entries()) {
      const reason: unknown = result.status === 'rejected' ? result.reason : undefined;
      expect(isSenetError(reason) && reason.code).to.equal('ERR_SENET_IMAGE');
      expect((reason as Error).message).to.match(/cannot be decoded as tiff: /);
      for (const [index, [, name]] of kinds.entries()) {
        expect(name.test((reason as Error).message), `${place}: ${name}`).to.equal(
          index === place % kinds.length,
        );
      }
    }
  });

  it('refuses a PNG whose image data is damaged, though its checksums may be wrong too', async () => {
    const bytes = variant('idat-crc.png');
    const at = bytes.indexOf('IDAT') + 4 + bytes.readUInt32BE(bytes.indexOf('IDAT') - 4) - 4;
    bytes[at] = (bytes[at] as number) ^ 1; // zlib's checksum
    await expectRejection(
      decodeImage(bytes),
      'ERR_SENET_IMAGE',
      /as png: the checksum of its image data is wrong/,
    );
    const header = variant('adler-missing.png');
    header[29] = (header[29] as number) ^ 1; // the checksum of the header
    await expectRejection(decodeImage(header), 'ERR_SENET_IMAGE', /as png: its chunk IHDR is damaged/);
  });

  it('reads BMP files of a pixel or two', async () => {
    for (const bits of [24, 32]) {
      for (const height of [1, 2]) {
        const bytes = Buffer.alloc(54 + 4 * height);
        bytes.write('BM', 'latin1');
        bytes.writeUInt32LE(54, 10);
        bytes.writeUInt32LE(40, 14);
        bytes.writeInt32LE(1, 18);
        bytes.writeInt32LE(height, 22);
        bytes.writeUInt16LE(bits, 28);
        for (let row = 0; row < height; row++) bytes.set([3 + row, 2, 1], 54 + 4 * row);
        const image = await decodeImage(bytes);
        expect([image.width, image.height]).to.deep.equal([1, height]);
        expect([...image.data]).to.deep.equal(height === 1 ? [1, 2, 3] : [1, 2, 4, 1, 2, 3]);
        await expectRejection(decodeImage(bytes.subarray(0, -2)), 'ERR_SENET_IMAGE', /truncated/);
      }
    }
  });

  it('refuses BMP and netpbm files that promise what they do not hold, before it makes room', async () => {
    const bmp = (edit: (bytes: Buffer) => unknown, name = '24-header40.bmp'): Buffer => {
      const bytes = variant(name);
      edit(bytes);
      return bytes;
    };
    const refused: [source: Buffer, code: ErrorCode, message: RegExp][] = [
      [bmp((bytes) => bytes.writeInt32LE(30_000, 18)), 'ERR_SENET_IMAGE', /truncated/],
      [bmp((bytes) => bytes.writeInt32LE(-1, 18)), 'ERR_SENET_IMAGE_SIZE', /pixels/],
      [bmp((bytes) => bytes.writeInt32LE(-0x80000000, 22)), 'ERR_SENET_IMAGE_SIZE', /pixels/],
      [bmp((bytes) => bytes.writeInt32LE(0, 22)), 'ERR_SENET_IMAGE', /7 x 0/],
      [bmp((bytes) => bytes.writeUInt16LE(7, 28)), 'ERR_SENET_IMAGE', /7 bits/],
      [bmp((bytes) => bytes.writeUInt32LE(4, 30)), 'ERR_SENET_IMAGE', /compression 4/],
      [bmp((bytes) => bytes.writeUInt32LE(0xfffffff0, 10)), 'ERR_SENET_IMAGE', /truncated/],
      [bmp((bytes) => bytes.writeUInt32LE(0xffffff, 46), '8.bmp'), 'ERR_SENET_IMAGE', /palette/],
      [bmp((bytes) => bytes.writeUInt32LE(5, 54), '16-565.bmp'), 'ERR_SENET_IMAGE', /gaps/],
      [Buffer.from('P6 7 5 255\nabc'), 'ERR_SENET_IMAGE', /truncated/],
      [Buffer.from('P6 99999 99999 255\nabc'), 'ERR_SENET_IMAGE_SIZE', /99999/],
      [Buffer.from('P6 0 5 255\nabc'), 'ERR_SENET_IMAGE', /0 x 5/],
      [Buffer.from('P5 1 1 65536\nabc'), 'ERR_SENET_IMAGE', /65535/],
      [Buffer.from('P5 1 1 0\nabc'), 'ERR_SENET_IMAGE', /greatest/],
      [Buffer.from('P2 1 1 -7\n1 '), 'ERR_SENET_IMAGE', /a number/],
      [Buffer.from('P2 1 2 7\n1 8'), 'ERR_SENET_IMAGE', /a sample is 8/],
      [Buffer.from('P1 1 2\n1 2'), 'ERR_SENET_IMAGE', /0 or 1/],
      [Buffer.from(`P2 1 2 7\n1 ${' '.repeat(5000)}1`), 'ERR_SENET_IMAGE', /lie between/],
      [Buffer.from(`P2 #${'x'.repeat(5000)}`), 'ERR_SENET_IMAGE', /lie between/],
      [Buffer.from('P5 12345678901 5 255\n'), 'ERR_SENET_IMAGE', /digits/],
    ];
    for (const [source, code, message] of refused) await expectRejection(decodeImage(source), code, message);
    // Text that only begins as one of them.
    await expectRejection(
      decodeImage(Buffer.from('BMP files are old, and P6 ones older')),
      'ERR_SENET_IMAGE',
      /expected a JPEG/,
    );
    await expectRejection(decodeImage(Buffer.from('P7\nWIDTH 2\n')), 'ERR_SENET_IMAGE', /expected a JPEG/);
  });

  it('answers damaged images with pixels or a coded error', async () => {
    const sources = ['rgb.png', 'grey.jpg', 'transparent.gif', 'lzw.tif', 'alpha.webp', 'full-colour.avif']
      .map((name) => readFileSync(path.join(IMAGES, name)))
      .concat(Object.keys(variants).map((name) => Buffer.from(variant(name))));
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
      { numRuns: 400 },
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
