/** Data sets that are read from files: ImageFolder, IdxDataset, Cifar10 and Cifar100, whole and damaged. */
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';

import { expect } from 'chai';
import { create } from 'tar';

import { readWanted } from '../../lib/data/archive';
import { Cifar10, Cifar100 } from '../../lib/data/cifar';
import { Resize } from '../../lib/data/geometry';
import { IdxDataset } from '../../lib/data/idx-dataset';
import { ImageFolder } from '../../lib/data/image-folder';
import { DataLoader } from '../../lib/data/loader';
import { readNumpyPickle, type ByteArray } from '../../lib/data/numpy-pickle';
import { Compose } from '../../lib/data/transforms';
import { memory } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { decodeImage } from '../support/decode';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const IMAGES = path.join(FIXTURES, 'images');

function bytesOf(image: Tensor): number[] {
  const bytes = numbers(image);
  image.dispose();
  return bytes;
}

describe('ImageFolder', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  /** A folder with these files: a name in the fixtures, or bytes. */
  function folder(name: string, files: Record<string, string | Uint8Array>): string {
    for (const [file, content] of Object.entries(files)) {
      const target = temporary.path(name, file);
      mkdirSync(path.dirname(target), { recursive: true });
      if (typeof content === 'string') copyFileSync(path.join(IMAGES, content), target);
      else writeFileSync(target, content);
    }
    mkdirSync(temporary.path(name), { recursive: true });
    return temporary.path(name);
  }

  it('finds classes and files in order, at any depth, and decodes them', async () => {
    const root = folder('good', {
      'dog/b.PNG': 'rgb.png',
      'dog/a.jpg': 'photo.jpg',
      'cat/deep/er/c.webp': 'lossy.webp',
      'cat/z.jpeg': 'photo.jpg',
      'cat/notes.txt': Buffer.from('no image'),
      'cat/.hidden.png': 'rgb.png',
      'Bird/x.gif': 'palette.gif',
      '.cache/x.png': 'rgb.png',
      'readme.png': 'rgb.png',
    });
    symlinkSync(path.join(root, 'cat'), path.join(root, 'cat', 'deep', 'circle'));
    symlinkSync(path.join(root, 'gone'), path.join(root, 'dog', 'broken.png'));
    symlinkSync(path.join(root, 'dog', 'a.jpg'), path.join(root, 'dog', 'link.jpg'));
    const dataset = await ImageFolder.open(root);
    expect(dataset.classes).to.deep.equal(['Bird', 'cat', 'dog']);
    expect([...dataset.classToIdx]).to.deep.equal([
      ['Bird', 0],
      ['cat', 1],
      ['dog', 2],
    ]);
    expect(dataset.samples.map(({ file, label }) => `${label} ${path.relative(root, file)}`)).to.deep.equal([
      '0 Bird/x.gif',
      '1 cat/z.jpeg',
      '1 cat/deep/er/c.webp',
      '2 dog/a.jpg',
      '2 dog/b.PNG',
      '2 dog/link.jpg',
    ]);
    expect([dataset.length, dataset.labels]).to.deep.equal([6, [0, 1, 1, 2, 2, 2]]);
    const { image, label } = await dataset.get(4);
    expect([image.shape, image.dtype, label]).to.deep.equal([[3, 24, 36], 'uint8', 2]);
    const { data, width, height } = await decodeImage(path.join(IMAGES, 'rgb.png'));
    const planes = [0, 1, 2].flatMap((channel) =>
      Array.from({ length: width * height }, (_, pixel) => data[pixel * 3 + channel]),
    );
    expect(bytesOf(image)).to.deep.equal(planes);

    let reserved = 0;
    const refuses = new Error('no room');
    const reserve = (bytes: number): Promise<void> => {
      reserved = bytes;
      return Promise.reject(refuses);
    };
    expect(await Promise.resolve(dataset.get(4, { reserve })).catch((error: unknown) => error)).to.equal(
      refuses,
    );
    expect(reserved).to.equal(data.length); // before it was decoded

    const only = await ImageFolder.open(root, { extensions: ['GIF', '.jpg', 'webp'] });
    expect(only.length).to.equal(4);
  });

  it('batches of files are of one size after a transform, and nothing is left', async () => {
    const root = folder('batches', {
      'a/1.jpg': 'photo.jpg',
      'a/2.png': 'rgb.png',
      'b/3.gif': 'palette.gif',
    });
    const before = memory().tensors;
    const dataset = await ImageFolder.open(root);
    await expectRejection(
      new DataLoader(dataset, { batchSize: 3 })[Symbol.asyncIterator]().next(),
      'ERR_SENET_SHAPE',
      /sample 0 is 3 x 300 x 420, sample 1 is 3 x 24 x 36/,
    );
    const loader = new DataLoader(dataset, {
      batchSize: 3,
      shuffle: true,
      transform: new Compose([new Resize({ size: [16, 16] })]),
    });
    for await (const { images, labels, indices } of loader) {
      expect(images.shape).to.deep.equal([3, 3, 16, 16]);
      expect(labels.toArray()).to.deep.equal(indices.map((index) => BigInt(index === 2 ? 1 : 0)));
      images.dispose();
      labels.dispose();
    }
    expect(memory().tensors).to.be.at.most(before);
  });

  it('a damaged image is an error that names the file, or is skipped and listed', async () => {
    const photo = readFileSync(path.join(IMAGES, 'photo.jpg'));
    const root = folder('damaged', {
      'a/good.jpg': 'photo.jpg',
      'a/cut.jpg': photo.subarray(0, photo.length / 2),
      'b/text.png': Buffer.from('this is no image'),
      'b/empty.png': new Uint8Array(),
      'b/good.png': 'rgb.png',
    });
    const dataset = await ImageFolder.open(root);
    await expectRejection(dataset.get(0), 'ERR_SENET_IMAGE', /damaged\/a\/cut\.jpg/);
    await expectRejection(dataset.get(2), 'ERR_SENET_IMAGE_SIZE', /damaged\/b\/empty\.png/);
    await expectRejection(dataset.get(5), 'ERR_SENET_ARG_RANGE');
    await expectRejection(dataset.get(1, { signal: AbortSignal.abort() }), 'ERR_SENET_ABORTED');
    const transform = new Resize({ size: [8, 8] });
    const all = new DataLoader(dataset, { batchSize: 5, transform });
    await expectRejection(all[Symbol.asyncIterator]().next(), 'ERR_SENET_IMAGE', /cut\.jpg/);
    const loader = new DataLoader(dataset, { batchSize: 2, transform, skipCorrupt: true });
    const seen: number[] = [];
    for await (const { images, labels, indices } of loader) {
      seen.push(...indices);
      expect(images.shape[0]).to.equal(indices.length);
      images.dispose();
      labels.dispose();
    }
    expect(seen).to.deep.equal([1, 3]);
    expect(loader.skipped.map(({ index }) => index)).to.deep.equal([0, 2, 4]);
    expect(loader.skipped.map(({ message }) => /(cut|empty|text)\./.exec(message)?.[1])).to.deep.equal([
      'cut',
      'empty',
      'text',
    ]);
    expect(loader.skipped.map(({ error }) => 'code' in error && error.code)).to.deep.equal([
      'ERR_SENET_IMAGE',
      'ERR_SENET_IMAGE_SIZE',
      'ERR_SENET_IMAGE',
    ]);
  });

  it('says how many files it left out, and of which kinds', async () => {
    const text = Buffer.from('x');
    const root = folder('left-out', {
      ...{
        'a/1.ppm': text,
        'a/2.BMP': text,
        'a/3.pgm': text,
        'a/4.pbm': text,
        'a/deep/5.webp': text,
        'b/1.avif': text,
      },
      ...{
        'a/notes.txt': text,
        'b/NOTES.TXT': text,
        'b/6.heic': text,
        'b/README': text,
        'b/.hidden.png': text,
      },
      'labels.csv': text,
    });
    symlinkSync(path.join(root, 'gone'), path.join(root, 'b', 'broken.png'));
    symlinkSync(path.join(root, 'a', 'deep'), path.join(root, 'a', 'again'));
    const { length, leftOut } = await ImageFolder.open(root);
    expect(length).to.equal(6);
    expect(Object.fromEntries(leftOut)).to.deep.equal({
      ...{ '.txt': 2, '.heic': 1, '.csv': 1 },
      ...{ 'no ending': 1, hidden: 1, 'link to nothing': 1, 'seen before': 1 },
    });
    const twelve = (await ImageFolder.open(root, { extensions: ['.txt', '.heic'] })).leftOut;
    expect(twelve.get('.bmp')).to.equal(1);
    expect(twelve.has('.txt')).to.equal(false);
  });

  it('visits each folder once however many ways lead to it, and as often as it is a class', async () => {
    const root = folder('links', {
      'a/0/1.png': 'rgb.png',
      'elsewhere/1.png': 'rgb.png',
      'elsewhere/2.png': 'rgb.png',
    });
    // 40 levels with two ways from each to the next: 2^40 paths.
    for (let level = 0; level < 40; level++) {
      mkdirSync(path.join(root, 'a', String(level + 1)));
      for (const way of ['left', 'right'])
        symlinkSync(path.join(root, 'a', String(level + 1)), path.join(root, 'a', String(level), way));
    }
    writeFileSync(path.join(root, 'a', '40', 'last.png'), '');
    for (const name of ['b', 'c']) symlinkSync(path.join(root, 'elsewhere'), path.join(root, name));
    const { classes, labels, samples } = await ImageFolder.open(root);
    expect(classes).to.deep.equal(['a', 'b', 'c', 'elsewhere']);
    expect(labels).to.deep.equal([0, 0, 1, 1, 2, 2, 3, 3]);
    expect(path.relative(root, samples[1]?.file ?? '')).to.equal(`a/0/${'left/'.repeat(40)}last.png`);
  });

  it('never takes folders for training and test as classes, unless it is told to', async () => {
    const root = folder('splits', {
      'Training/a/1.png': 'rgb.png',
      'Training/b/1.png': 'rgb.png',
      'Testing/b/1.png': 'rgb.png',
    });
    await expectRejection(
      ImageFolder.open(root),
      'ERR_SENET_DATASET',
      /splits: its folders are parts of a data set \(train: Training, test: Testing\): say which with split/,
    );
    const train = await ImageFolder.open(root, { split: 'train' });
    expect([train.classes, train.length, train.root]).to.deep.equal([
      ['a', 'b'],
      2,
      path.join(root, 'Training'),
    ]);
    const test = await ImageFolder.open(root, { split: 'test', classes: train.classes });
    expect(test.labels).to.deep.equal([1]);
    expect((await ImageFolder.open(root, { split: 'none' })).classes).to.deep.equal(['Testing', 'Training']);
    expect((await ImageFolder.open(root, { classes: ['Training', 'Testing'] })).labels).to.deep.equal([
      0, 0, 1,
    ]);
    await expectRejection(
      ImageFolder.open(root, { split: 'validation' }),
      'ERR_SENET_DATASET',
      /a folder for validation, found train: Training, test: Testing/,
    );
    await expectRejection(
      ImageFolder.open(train.root, { split: 'test' }),
      'ERR_SENET_DATASET',
      /no folders for training/,
    );
    await expectRejection(
      ImageFolder.open(root, { split: 'dev' as never }),
      'ERR_SENET_ARG_RANGE',
      /validation/,
    );
  });

  it('takes the classes of another folder', async () => {
    const root = folder('part', { 'dog/1.png': 'rgb.png', 'ant/1.png': 'rgb.png' });
    const dataset = await ImageFolder.open(root, { classes: ['dog', 'cat', 'ant'] });
    expect(dataset.labels).to.deep.equal([0, 2]);
    await expectRejection(ImageFolder.open(root, { classes: ['dog', 'cat'] }), 'ERR_SENET_DATASET', /'ant'/);
    await expectRejection(ImageFolder.open(root, { classes: ['dog', 'dog'] }), 'ERR_SENET_ARG_RANGE');
    await expectRejection(ImageFolder.open(root, { classes: [] }), 'ERR_SENET_ARG_TYPE');
  });

  it('refuses what cannot be trained on', async () => {
    await expectRejection(ImageFolder.open(folder('bare', {})), 'ERR_SENET_DATASET', /bare: .*found none/);
    await expectRejection(
      ImageFolder.open(folder('flat', { '1.png': 'rgb.png' })),
      'ERR_SENET_DATASET',
      /a folder for each class/,
    );
    await expectRejection(
      ImageFolder.open(folder('one', { 'a/1.png': 'rgb.png' })),
      'ERR_SENET_DATASET',
      /at least two classes.*'a'/,
    );
    const half = folder('half', { 'a/1.png': 'rgb.png', 'b/1.txt': Buffer.from('x') });
    await expectRejection(ImageFolder.open(half), 'ERR_SENET_DATASET', /class 'b' has no images \(\.jpg/);
    expect((await ImageFolder.open(half, { allowEmpty: true })).length).to.equal(1);
    const none = folder('none', { 'a/1.txt': Buffer.from('x'), 'b/1.txt': Buffer.from('x') });
    await expectRejection(
      ImageFolder.open(none, { allowEmpty: true }),
      'ERR_SENET_DATASET',
      /no class has images/,
    );
    await expectRejection(ImageFolder.open(temporary.path('nowhere')), 'ERR_SENET_FILE_NOT_FOUND', /nowhere/);
    await expectRejection(ImageFolder.open(path.join(IMAGES, 'rgb.png')), 'ERR_SENET_FILE', /rgb\.png/);
    await expectRejection(ImageFolder.open(7 as never), 'ERR_SENET_ARG_TYPE');
    await expectRejection(
      ImageFolder.open(half, { extension: ['.png'] } as never),
      'ERR_SENET_UNKNOWN_OPTION',
    );
  });
});

describe('IdxDataset', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  const images = path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz');
  const labels = path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz');

  it('opens a pair of files, or the right ones of a folder', async () => {
    const dataset = await IdxDataset.open({ images, labels });
    expect([dataset.length, dataset.shape, dataset.classes.length]).to.deep.equal([500, [1, 28, 28], 10]);
    expect(dataset.labels.slice(0, 5)).to.deep.equal([9, 2, 1, 1, 6]);
    const { image, label } = dataset.get(499);
    const raw = gunzipSync(readFileSync(images));
    expect([image.shape, label]).to.deep.equal([[1, 28, 28], dataset.labels[499]]);
    expect(bytesOf(image)).to.deep.equal([...raw.subarray(-784)]);

    copyFileSync(images, temporary.path('t10k-images-idx3-ubyte.gz'));
    copyFileSync(labels, temporary.path('t10k-labels-idx1-ubyte.gz'));
    expect((await IdxDataset.open(temporary.folder, { train: false })).length).to.equal(500);
    // Never the test set instead of a training set that is not there.
    await expectRejection(IdxDataset.open(temporary.folder), 'ERR_SENET_FILE_NOT_FOUND', /train-images/);
    copyFileSync(images, temporary.path('train-images-idx3-ubyte.gz'));
    copyFileSync(labels, temporary.path('train-labels-idx1-ubyte.gz'));
    const classes = Array.from({ length: 10 }, (_, index) => `class ${index}`);
    expect((await IdxDataset.open(temporary.folder, { classes })).classes).to.deep.equal(classes);
    await expectRejection(
      IdxDataset.open(temporary.folder, { classes: ['a', 'b'] }),
      'ERR_SENET_LABELS',
      /image 0 has the label 9.*2 classes/,
    );
  });

  it('takes the data set that is named, of several in a folder', async () => {
    for (const set of ['letters', 'digits']) {
      copyFileSync(images, temporary.path(`emnist-${set}-train-images-idx3-ubyte.gz`));
      copyFileSync(labels, temporary.path(`emnist-${set}-train-labels-idx1-ubyte.gz`));
    }
    await expectRejection(
      IdxDataset.open(temporary.folder),
      'ERR_SENET_DATASET',
      /emnist-digits, emnist-letters/,
    );
    expect((await IdxDataset.open(temporary.folder, { set: 'letters' })).length).to.equal(500);
    await expectRejection(IdxDataset.open(temporary.folder, { set: 7 as never }), 'ERR_SENET_ARG_TYPE');
    for (const set of ['letters', 'digits'])
      for (const kind of ['images-idx3', 'labels-idx1'])
        rmSync(temporary.path(`emnist-${set}-train-${kind}-ubyte.gz`));
  });

  it("takes QMNIST's labels, eight numbers for each image", async () => {
    const numbers = Buffer.alloc(12 + 500 * 32);
    numbers.set([0, 0, 0x0c, 2]);
    numbers.writeUInt32BE(500, 4);
    numbers.writeUInt32BE(8, 8);
    for (let image = 0; image < 500; image++) numbers.writeInt32BE(image % 10, 12 + image * 32);
    const file = temporary.path('qmnist-labels');
    writeFileSync(file, numbers);
    expect((await IdxDataset.open({ images, labels: file })).labels.slice(0, 12)).to.deep.equal([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1,
    ]);
    numbers.writeInt32BE(-1, 12 + 32);
    writeFileSync(file, numbers);
    await expectRejection(
      IdxDataset.open({ images, labels: file }),
      'ERR_SENET_DATA_FORMAT',
      /image 1 has the label -1/,
    );
  });

  it('refuses what is no such data set', async () => {
    await expectRejection(IdxDataset.open(images), 'ERR_SENET_FILE', /\{ images, labels \}/);
    await expectRejection(IdxDataset.open({ images } as never), 'ERR_SENET_ARG_TYPE');
    await expectRejection(
      IdxDataset.open({ images: labels, labels }),
      'ERR_SENET_DATA_FORMAT',
      /expected images/,
    );
    const cut = temporary.path('cut-images-idx3-ubyte');
    writeFileSync(cut, gunzipSync(readFileSync(images)).subarray(0, 100_000));
    await expectRejection(
      IdxDataset.open({ images: cut, labels }),
      'ERR_SENET_DATA_FORMAT',
      /cut-images.*truncated: 500 x 28 x 28 needs 392000 bytes of data, found 99984/,
    );
    const [none, noLabels] = [temporary.path('none'), temporary.path('no-labels')];
    writeFileSync(none, Buffer.from([0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28]));
    writeFileSync(noLabels, Buffer.from([0, 0, 8, 1, 0, 0, 0, 0]));
    await expectRejection(
      IdxDataset.open({ images: none, labels: noLabels }),
      'ERR_SENET_DATASET',
      /no images/,
    );
  });
});

describe('CIFAR', function () {
  this.timeout(600_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  const PYTHON10 = path.join(FIXTURES, 'data', 'cifar-10-python.tar.gz');
  const PYTHON100 = path.join(FIXTURES, 'data', 'cifar-100-python.tar.gz');

  /** The pixels of the fixture's first records, as its generator makes them. */
  const patterned = (record: number): number[] =>
    Array.from({ length: 3072 }, (_, pixel) => Math.imul(record * 3072 + pixel, 2654435761) >>> 24);

  /** Files of a size, nearly all of it holes, with bytes at places. */
  function sparse(name: string, size: number, bytes: Record<number, readonly number[]> = {}): string {
    const file = temporary.path(name);
    mkdirSync(path.dirname(file), { recursive: true });
    const content = Buffer.alloc(size);
    for (const [at, values] of Object.entries(bytes)) content.set(values, Number(at));
    writeFileSync(file, content);
    return file;
  }

  it('reads the Python version of CIFAR-10, as Python 2 pickled it', async () => {
    const dataset = await Cifar10.open(PYTHON10, { train: false });
    expect([dataset.length, dataset.shape]).to.deep.equal([10_000, [3, 32, 32]]);
    expect(dataset.classes).to.deep.equal(
      'airplane automobile bird cat deer dog frog horse ship truck'.split(' '),
    );
    expect(dataset.labels.slice(0, 12)).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    for (const record of [0, 3]) expect(bytesOf(dataset.get(record).image)).to.deep.equal(patterned(record));
    expect(bytesOf(dataset.get(9999).image)).to.deep.equal(new Array<number>(3072).fill(200));
    const missing = await expectRejection(Cifar10.open(PYTHON10), 'ERR_SENET_DATA_FORMAT', /'data_batch_1'/);
    expect(missing.message).to.contain('cifar-10-python.tar.gz').and.contain("'test_batch'");
  });

  it('reads the Python version of CIFAR-100, as Python 3 pickles it, with either labels', async () => {
    const fine = await Cifar100.open(PYTHON100, { train: false });
    expect([fine.length, fine.classes.length, fine.classes[57]]).to.deep.equal([10_000, 100, 'fine 57']);
    expect(fine.labels[1234]).to.equal(34);
    expect(bytesOf(fine.get(2).image)).to.deep.equal(patterned(2));
    const coarse = await Cifar100.open(PYTHON100, { train: false, labels: 'coarse' });
    expect([coarse.classes.length, coarse.labels[1234]]).to.deep.equal([20, 14]);
  });

  it('reads the binary versions, from a folder, its parent and an archive', async () => {
    const record = [7, ...patterned(1)];
    const records = 10_000 * 3073;
    const inner = 'bin/cifar-10-batches-bin';
    for (const number of [1, 2, 3, 4, 5])
      sparse(`${inner}/data_batch_${number}.bin`, records, { 0: [number], [3073 * 9_999]: record });
    writeFileSync(
      temporary.path(inner, 'batches.meta.txt'),
      'a b c d e f g h i j'.split(' ').join('\n') + '\n\n',
    );
    const train = await Cifar10.open(temporary.path('bin'));
    expect([train.length, train.classes[9]]).to.deep.equal([50_000, 'j']);
    expect([0, 1, 2, 3, 4].map((file) => train.labels[file * 10_000])).to.deep.equal([1, 2, 3, 4, 5]);
    expect([train.labels[49_999], bytesOf(train.get(49_999).image)]).to.deep.equal([7, patterned(1)]);
    await expectRejection(
      Cifar10.open(temporary.path(inner), { train: false }),
      'ERR_SENET_DATA_FORMAT',
      /'test_batch'.*'batches.meta.txt'/,
    );

    sparse('cifar-100-binary/test.bin', 10_000 * 3074, { [3074 * 9_999]: [19, 99, ...patterned(2)] });
    await create({ file: temporary.path('100.tar.gz'), gzip: { level: 1 }, cwd: temporary.folder }, [
      'cifar-100-binary',
    ]);
    await create({ file: temporary.path('100.tar'), cwd: temporary.folder }, ['cifar-100-binary']);
    for (const [source, labels, last] of [
      ['100.tar.gz', 'fine', 99],
      ['100.tar', 'coarse', 19],
      ['.', 'fine', 99],
    ] as const) {
      const dataset = await Cifar100.open(temporary.path(source), { train: false, labels });
      expect([dataset.length, dataset.labels[0], dataset.labels[9_999]]).to.deep.equal([10_000, 0, last]);
      expect(bytesOf(dataset.get(9_999).image)).to.deep.equal(patterned(2));
      expect(dataset.classes.at(-1)).to.equal(labels === 'fine' ? '99' : '19');
    }
  });

  it('truncated and wrong files are errors that say what was expected and what was found', async () => {
    const test = sparse('short/test_batch.bin', 10_000 * 3073);
    truncateSync(test, 3073 * 9_999);
    await expectRejection(
      Cifar10.open(temporary.path('short'), { train: false }),
      'ERR_SENET_DATA_FORMAT',
      /short\/test_batch\.bin: truncated: expected 30730000 bytes .*found 30726927/,
    );
    sparse('short/test_batch.bin', 10_000 * 3073, { [3073 * 5]: [10] });
    await expectRejection(
      Cifar10.open(temporary.path('short'), { train: false }),
      'ERR_SENET_DATA_FORMAT',
      /test_batch\.bin: record 5: expected a label from 0 to 9, found 10/,
    );
    // CIFAR-100's archive given as CIFAR-10.
    await expectRejection(
      Cifar10.open(PYTHON100),
      'ERR_SENET_DATA_FORMAT',
      /CIFAR-10 with the file 'data_batch_1'/,
    );
    const archive = readFileSync(PYTHON10);
    const write = (name: string, bytes: Uint8Array): string => {
      writeFileSync(temporary.path(name), bytes);
      return temporary.path(name);
    };
    for (const [name, bytes] of [
      ['cut.tar.gz', archive.subarray(0, 20_000)],
      ['cut.tar', gunzipSync(archive).subarray(0, 1_000_000)],
      ['text.tar.gz', Buffer.from('this is not an archive')],
      ['zipped-text.gz', gzipSync('this is not an archive, but it is compressed'.repeat(50))],
      ['empty.tar', Buffer.alloc(0)],
    ] as const) {
      const error = await expectRejection(
        Cifar10.open(write(name, bytes), { train: false }),
        'ERR_SENET_DATA_FORMAT',
      );
      expect(error.message).to.contain(name);
    }
    await expectRejection(Cifar10.open(temporary.path('nowhere')), 'ERR_SENET_FILE_NOT_FOUND', /nowhere/);
    await expectRejection(Cifar10.open(7 as never), 'ERR_SENET_ARG_TYPE');
    await expectRejection(Cifar100.open(PYTHON100, { labels: 'all' as never }), 'ERR_SENET_ARG_RANGE');
    await expectRejection(
      Cifar10.open(PYTHON10, { train: false, signal: AbortSignal.abort() }),
      'ERR_SENET_ABORTED',
    );
  });

  it('reads no more of an archive or a folder than the data set can have, and says what was too large', async () => {
    const limits = new Map([['small', 1000]]);
    const open = (source: string): Promise<unknown> => readWanted(source, [], limits, new Set(limits.keys()));
    const pack = async (name: string, content: Uint8Array): Promise<string> => {
      const folder = temporary.path(`large-${name}`);
      mkdirSync(folder);
      writeFileSync(path.join(folder, name), content);
      await create({ file: `${folder}.tar.gz`, gzip: true, cwd: folder }, [name]);
      return folder;
    };
    const wanted = await pack('small', Buffer.alloc(1001));
    const message = /too large: expected at most 1000 bytes, as the data set has, found 1001/;
    await expectRejection(open(`${wanted}.tar.gz`), 'ERR_SENET_DATA_FORMAT', message);
    await expectRejection(open(wanted), 'ERR_SENET_DATA_FORMAT', message);
    const other = await pack('other', Buffer.alloc(20 * 1024 * 1024));
    await expectRejection(
      open(`${other}.tar.gz`),
      'ERR_SENET_DATA_FORMAT',
      /other\.tar\.gz: unpacked: too large: expected at most 16778216 bytes/,
    );
    // CIFAR's own files have their own sizes.
    const bomb = await pack('test_batch.bin', Buffer.alloc(40e6));
    await expectRejection(
      Cifar10.open(`${bomb}.tar.gz`, { train: false }),
      'ERR_SENET_DATA_FORMAT',
      /test_batch\.bin: too large: expected at most 3\d{7} bytes/,
    );
  });

  it('a pickle that would run code is refused, naming the global; nothing else is built', async () => {
    const command = "cos\nsystem\n(S'true'\ntR.";
    mkdirSync(temporary.path('evil'));
    writeFileSync(temporary.path('evil', 'test_batch'), command);
    await expectRejection(
      Cifar10.open(temporary.path('evil'), { train: false }),
      'ERR_SENET_CHECKPOINT_UNSAFE',
      /evil\/test_batch: .*'os\.system'.*nothing was executed/,
    );
    const read = (text: string): Promise<unknown> => readNumpyPickle(Buffer.from(text, 'latin1'), 'x');
    await expectRejection(read('\x80\x02cnumpy\ndtype\n(U\x02f4tR.'), 'ERR_SENET_DATA_FORMAT', /type f4/);
    await expectRejection(read('\x80\x02cnumpy\nndarray\n)R.'), 'ERR_SENET_DATA_FORMAT', /numpy\.ndarray/);
    await expectRejection(read('\x80\x02Q.'), 'ERR_SENET_DATA_FORMAT');
    await expectRejection(
      read('\x80\x02'),
      'ERR_SENET_DATA_FORMAT',
      /truncated pickle: expected at least 3 bytes, found 2/,
    );
    const array = (shape: string, bytes: string): string =>
      '\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(' +
      `${shape}tcnumpy\ndtype\n(U\x02u1tR\x89U\x04${bytes}tb.`;
    const good = (await readNumpyPickle(
      Buffer.from(array('K\x02K\x02', '1234'), 'latin1'),
      'x',
    )) as ByteArray;
    expect([good.shape, Buffer.from(good.bytes).toString()]).to.deep.equal([[2, 2], '1234']);
    // One text encoded again and again, out of the memo.
    const bomb = `\x80\x02c_codecs\nencode\nq\x00X\x10\x00\x00\x00${'x'.repeat(16)}q\x01U\x06latin1q\x02`;
    await expectRejection(
      read(`${bomb}${'h\x00h\x01h\x02\x86R'.repeat(200)}.`),
      'ERR_SENET_CHECKPOINT_LIMIT',
      /more bytes than/,
    );
    await expectRejection(
      read(array('K\x02K\x03', '1234')),
      'ERR_SENET_DATA_FORMAT',
      /2 x 3: expected 6 bytes, found 4/,
    );
    await expectRejection(read(array('J\xff\xff\xff\xff', '1234')), 'ERR_SENET_DATA_FORMAT', /state/);
  });
});
