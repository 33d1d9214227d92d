/** The IDX reader on files made here, whole and damaged, and on the slice of Fashion-MNIST. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { readFileSync } from 'node:fs';

import { expect } from 'chai';
import fc from 'fast-check';

import { findIdxFiles, readIdx, readIdxDataset } from '../../lib/data/idx';
import { isSenetError } from '../../lib/errors';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const IMAGES = path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz');
const LABELS = path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz');

function idx(type: number, shape: readonly number[], body: Uint8Array): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header[2] = type;
  header[3] = shape.length;
  for (const [axis, size] of shape.entries()) header.writeUInt32BE(size, 4 + 4 * axis);
  return Buffer.concat([header, body]);
}

describe('readIdx', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  const write = (name: string, bytes: Uint8Array): string => {
    writeFileSync(temporary.path(name), bytes);
    return temporary.path(name);
  };

  it('reads the slice of Fashion-MNIST, compressed or not', async () => {
    const { shape, data } = await readIdx(IMAGES);
    expect(shape).to.deep.equal([500, 28, 28]);
    expect(data)
      .to.be.instanceOf(Uint8Array)
      .with.lengthOf(500 * 28 * 28);
    const plain = write('plain', gunzipSync(readFileSync(IMAGES)));
    expect(
      Buffer.from((await readIdx(plain)).data as Uint8Array).equals(Buffer.from(data as Uint8Array)),
    ).to.equal(true);
    const labels = await readIdx(LABELS);
    expect(Array.from(labels.data.slice(0, 5))).to.deep.equal([9, 2, 1, 1, 6]);
  });

  it('reads every element type, big-endian', async () => {
    const cases: [number, string, number[]][] = [
      [0x08, '00ff', [0, 255]],
      [0x09, '01ff', [1, -1]],
      [0x0b, '0102ffff', [258, -1]],
      [0x0c, '00000102ffffffff', [258, -1]],
      [0x0d, '3f800000c0000000', [1, -2]],
      [0x0e, '3ff0000000000000c000000000000000', [1, -2]],
    ];
    for (const [type, hex, expected] of cases) {
      const { shape, data } = await readIdx(write('typed', idx(type, [2], Buffer.from(hex, 'hex'))));
      expect(shape).to.deep.equal([2]);
      expect(Array.from(data)).to.deep.equal(expected);
    }
  });

  it('refuses what is no IDX file, naming it', async () => {
    await expectRejection(
      readIdx(write('text.idx', Buffer.from('hello'))),
      'ERR_SENET_DATA_FORMAT',
      /text\.idx.*68656c6c/,
    );
    await expectRejection(
      readIdx(write('empty.idx', Buffer.alloc(0))),
      'ERR_SENET_DATA_FORMAT',
      /empty\.idx/,
    );
    await expectRejection(
      readIdx(write('type.idx', idx(0x0a, [1], Buffer.alloc(1)))),
      'ERR_SENET_DATA_FORMAT',
    );
    await expectRejection(readIdx(write('rank.idx', Buffer.from([0, 0, 8, 0]))), 'ERR_SENET_DATA_FORMAT');
    await expectRejection(
      readIdx(write('header.idx', Buffer.from([0, 0, 8, 3, 0, 0]))),
      'ERR_SENET_DATA_FORMAT',
      /truncated/,
    );
    await expectRejection(
      readIdx(write('cut.idx', idx(8, [4, 4], Buffer.alloc(15)))),
      'ERR_SENET_DATA_FORMAT',
      /truncated: 4 x 4 needs 16/,
    );
    await expectRejection(
      readIdx(write('long.idx', idx(8, [4, 4], Buffer.alloc(17)))),
      'ERR_SENET_DATA_FORMAT',
      /too long/,
    );
    const huge = idx(8, [0xffffffff, 0xffffffff, 0xffffffff], Buffer.alloc(8));
    await expectRejection(readIdx(write('huge.idx', huge)), 'ERR_SENET_DATA_FORMAT', /truncated/);
    const cut = gzipSync(idx(8, [4, 4], Buffer.alloc(16))).subarray(0, -9);
    await expectRejection(readIdx(write('cut.gz', cut)), 'ERR_SENET_DATA_FORMAT', /cut\.gz.*gzip/);
  });

  it('stops at what the header says, and makes no room for what the file cannot hold', async () => {
    // 200 MB of zeros in 200 KB, behind a header of 16 bytes.
    const bomb = gzipSync(Buffer.concat([idx(8, [4, 4], Buffer.alloc(16)), Buffer.alloc(200e6)]));
    const before = process.memoryUsage().rss;
    await expectRejection(
      readIdx(write('bomb.gz', bomb)),
      'ERR_SENET_DATA_FORMAT',
      /bomb\.gz: too long: 4 x 4 needs 16 bytes of data, found \d+ or more/,
    );
    const promise = gzipSync(idx(8, [60_000, 100, 100], Buffer.alloc(9)));
    await expectRejection(
      readIdx(write('promise.gz', promise)),
      'ERR_SENET_DATA_FORMAT',
      /truncated: 60000 x 100 x 100 needs 600000000 bytes of data, found at most \d{5,6}$/,
    );
    const large = gzipSync(Buffer.concat([idx(8, [2000, 1000, 1000], Buffer.alloc(0)), Buffer.alloc(3e6)]), {
      level: 0,
    });
    await expectRejection(
      readIdx(write('large.gz', large)),
      'ERR_SENET_DATA_FORMAT',
      /2000 x 1000 x 1000 is too large/,
    );
    // Labels can be no more than the images.
    const labels = gzipSync(Buffer.concat([idx(8, [50e6], Buffer.alloc(0)), Buffer.alloc(50e6)]));
    await expectRejection(
      readIdxDataset(IMAGES, write('labels.gz', labels)),
      'ERR_SENET_DATA_FORMAT',
      /expected 500 labels.*found 50000000/,
    );
    expect(process.memoryUsage().rss - before).to.be.below(100e6);
  });

  it('refuses what is not there and what is no file', async () => {
    await expectRejection(readIdx(temporary.path('none')), 'ERR_SENET_FILE_NOT_FOUND', /none/);
    await expectRejection(readIdx(temporary.folder), 'ERR_SENET_FILE', /folder/);
    await expectRejection(readIdx(7 as never), 'ERR_SENET_ARG_TYPE');
  });

  it('answers any bytes with an array or a coded error', async () => {
    const file = temporary.path('any');
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.uint8Array({ maxLength: 40 }).map((tail) => Buffer.concat([Buffer.from([0, 0, 8]), tail])),
    );
    await fc.assert(
      fc.asyncProperty(bytes, async (content) => {
        writeFileSync(file, content);
        try {
          const { shape, data } = await readIdx(file);
          expect(data.length).to.equal(shape.reduce((product, size) => product * size, 1));
        } catch (error) {
          if (!isSenetError(error)) throw error;
          expect(error.code).to.equal('ERR_SENET_DATA_FORMAT');
        }
      }),
      { numRuns: 200 },
    );
  });

  it('reads images with their labels, and refuses those that do not belong together', async () => {
    const data = await readIdxDataset(IMAGES, LABELS);
    expect([data.count, data.height, data.width, data.labels.length]).to.deep.equal([500, 28, 28, 500]);
    await expectRejection(readIdxDataset(LABELS, LABELS), 'ERR_SENET_DATA_FORMAT', /expected images/);
    await expectRejection(readIdxDataset(IMAGES, IMAGES), 'ERR_SENET_DATA_FORMAT', /expected labels/);
    const few = write('few', idx(8, [3], Buffer.alloc(3)));
    await expectRejection(
      readIdxDataset(IMAGES, few),
      'ERR_SENET_DATA_FORMAT',
      /few: expected 500 labels.*found 3/,
    );
  });

  it('finds both files in a folder, the test set first', async () => {
    const folder = temporary.path('data');
    mkdirSync(folder);
    for (const name of [
      'train-images-idx3-ubyte',
      'train-labels-idx1-ubyte',
      't10k-images-idx3-ubyte.gz',
      't10k-labels-idx1-ubyte',
    ]) {
      writeFileSync(path.join(folder, name), '');
    }
    const found = await findIdxFiles(folder);
    expect(Object.values(found).map((file) => path.basename(file as string))).to.deep.equal([
      't10k-images-idx3-ubyte.gz',
      't10k-labels-idx1-ubyte',
    ]);
    await expectRejection(findIdxFiles(path.join(folder, 'none')), 'ERR_SENET_FILE_NOT_FOUND');
    mkdirSync(path.join(folder, 'bare'));
    await expectRejection(
      findIdxFiles(path.join(folder, 'bare')),
      'ERR_SENET_FILE_NOT_FOUND',
      /expected IDX files/,
    );
  });
});
