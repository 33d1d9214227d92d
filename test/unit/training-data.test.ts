/** What `train` takes as what: kinds of data, parts of it, and what it says of them. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { createDatasets, detectDataset, type DatasetSettings } from '../../lib/train/recipe/datasets';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');

describe('the data of a training run', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  let count = 0;

  const make = (files: Record<string, string>): string => {
    const root = temporary.path(`data${count++}`);
    for (const [file, from] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      if (from === '') writeFileSync(path.join(root, file), '');
      else copyFileSync(path.join(FIXTURES, from), path.join(root, file));
    }
    return root;
  };
  const RGB = 'images/rgb.png';
  const open = async (data: string, more: Partial<DatasetSettings> = {}): Promise<unknown> => {
    const dataset = await detectDataset(data);
    const source = { data, dataset, validation: undefined, limit: null, seed: 0, labels: undefined, ...more };
    const { train, validation, classes, taken } = await createDatasets(source);
    const lines = taken.map(([what, from]) => `${what}: ${from.replaceAll(path.basename(data), 'DATA')}`);
    return [train.length, validation?.length ?? null, classes.join(), lines];
  };

  it('folders for training and test, whatever they are called', async () => {
    const parts = (train: string, test: string): Record<string, string> => ({
      ...{ [`${train}/cat/1.png`]: RGB, [`${train}/cat/2.png`]: RGB, [`${train}/dog/1.png`]: RGB },
      ...{ [`${test}/cat/1.png`]: RGB, [`${test}/dog/notes.txt`]: '', [`${test}/dog/1.png`]: RGB },
    });
    for (const [train, test] of [
      ['Training', 'Testing'],
      ['seg_train', 'seg_test'],
      ['Train', 'Val'],
    ] as const) {
      expect(await open(make(parts(train, test)))).to.deep.equal([
        ...[3, 2, 'cat,dog'],
        [`training images: DATA/${train}`, `validation images: DATA/${test}`, 'left out: files: 1 .txt'],
      ]);
    }
    const both = make({ ...parts('train', 'val'), 'test/cat/1.png': RGB, 'pred/1.png': RGB });
    expect(await open(both)).to.deep.equal([
      ...[3, 2, 'cat,dog'],
      [
        ...['training images: DATA/train', 'validation images: DATA/val', 'not used: DATA/test'],
        ...['not used: DATA/pred', 'left out: files: 1 .txt'],
      ],
    ]);
    expect(await open(both, { validation: path.join(both, 'test') })).to.deep.equal([
      ...[3, 1, 'cat,dog'],
      [
        ...['training images: DATA/train', 'validation images: test', 'not used: DATA/val'],
        ...['not used: DATA/test', 'not used: DATA/pred'],
      ],
    ]);
    expect(await open(make(parts('Training', 'Testing')), { splits: false, validation: null })).to.deep.equal(
      [
        ...[3 + 2, null, 'Testing,Training'],
        ['training images: DATA', 'validation images: none', 'left out: files: 1 .txt'],
      ],
    );
  });

  it('folders that are classes, of which a share is for validation', async () => {
    const data = make({ 'cat/1.png': RGB, 'cat/2.png': RGB, 'dog/1.png': RGB, 'train/1.png': RGB });
    expect(await open(data, { validation: 0.25 })).to.deep.equal([
      ...[3, 1, 'cat,dog,train'],
      ['training images: DATA', 'validation images: 25.00 % of the training images'],
    ]);
  });

  it('IDX files, of one data set of several', async () => {
    const files: Record<string, string> = {};
    for (const set of ['digits', 'letters'])
      for (const part of ['train', 'test'])
        for (const kind of ['images-idx3', 'labels-idx1'])
          files[`emnist-${set}-${part}-${kind}-ubyte.gz`] = `fashion-mnist-500-${kind}-ubyte.gz`;
    const data = make(files);
    await expectRejection(
      open(data),
      'ERR_SENET_DATASET',
      /several data sets: emnist-digits, emnist-letters; say which.*--set/,
    );
    expect(await open(data, { set: 'letters' })).to.deep.equal([
      ...[500, 500, '0,1,2,3,4,5,6,7,8,9'],
      [
        'training images: emnist-letters-train-images-idx3-ubyte.gz',
        'validation images: emnist-letters-test-images-idx3-ubyte.gz',
      ],
    ]);
    // As a run that is resumed names its validation.
    expect(await open(data, { set: 'letters', validation: data })).to.deep.include(500);
  });

  it('of several kinds in one folder is not guessed', async () => {
    const data = make({
      'data_batch_1.bin': '',
      'train-images-idx3-ubyte': '',
      'train-labels-idx1-ubyte': '',
    });
    await expectRejection(
      detectDataset(data),
      'ERR_SENET_DATASET',
      /several kinds \(idx, cifar10\); say which with --dataset/,
    );
    const both = make({ 'cifar-10-batches-py/x': '', 'cifar-100-python/x': '' });
    await expectRejection(detectDataset(both), 'ERR_SENET_DATASET', /cifar100, cifar10/);
  });
});
