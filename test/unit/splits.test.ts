/** What names and folders say of training, validation and test; and that nothing is guessed where they say two things. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { findIdxFiles, findIdxSplits, isIdxName } from '../../lib/data/idx';
import { findSplitFolders, splitOf, type SplitFolders } from '../../lib/data/splits';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

describe('splitOf', () => {
  const names: Record<'train' | 'validation' | 'test' | 'none', string[]> = {
    train: [
      ...[
        'train',
        'Train',
        'TRAIN',
        'training',
        'Training',
        'trn',
        'seg_train',
        'trainset',
        'TrainSet',
        'trainingset',
      ],
      ...[
        'train_images',
        'train2017',
        'ILSVRC2012_img_train',
        'my-train-data',
        'Training Set',
        '01_train',
        'traindata',
      ],
    ],
    validation: [
      ...[
        'val',
        'Val',
        'valid',
        'validation',
        'Validation',
        'dev',
        'eval',
        'evaluation',
        'valset',
        'val2017',
      ],
      ...['ILSVRC2012_img_val', 'valid_images', 'imagenet-val', 'devset'],
    ],
    test: [
      'test',
      'Test',
      'testing',
      'Testing',
      'seg_test',
      'testset',
      'TestSet',
      'test2015',
      'tst',
      't10k',
      'test-images',
    ],
    none: [
      ...[
        'cat',
        'trainer',
        'restraint',
        'trainers',
        'contest',
        'testament',
        'attest',
        'developer',
        'value',
        'valley',
      ],
      ...['devil', 'evaluator', 'train-val', 'train_test', 'latest', '', 'pred', 'extra', 'détrain'],
    ],
  };
  for (const [split, all] of Object.entries(names)) {
    it(`finds ${split} in ${all.length} names`, () => {
      for (const name of all) expect(splitOf(name).split ?? 'none', name).to.equal(split);
    });
  }

  it('keeps the other words', () => {
    expect(splitOf('emnist-letters-train-images').rest).to.deep.equal(['emnist', 'letters', 'images']);
    expect(splitOf('Sport Cars').rest).to.deep.equal(['sport', 'cars']);
  });
});

describe('findSplitFolders', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  let count = 0;

  /** A folder with these files. */
  const make = (...files: string[]): string => {
    const root = temporary.path(`data${count++}`);
    mkdirSync(root);
    for (const file of files) {
      mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
      writeFileSync(path.join(root, file), '');
    }
    return root;
  };
  const find = async (root: string): Promise<unknown> => {
    const found = await findSplitFolders(root);
    const relative = (folder: string | null): string | null =>
      folder === null ? null : path.relative(root, folder);
    if (found === null) return null;
    const { train, validation, test, others }: SplitFolders = found;
    return [relative(train), relative(validation), relative(test), others.map(relative)];
  };

  it('finds them whatever their case, and whatever is around the name', async () => {
    for (const [train, test] of [
      ['Training', 'Testing'],
      ['trainset', 'testset'],
      ['seg_train', 'seg_test'],
      ['TRAIN', 'TEST'],
      ['my_train', 't10k'],
    ] as const)
      expect(await find(make(`${train}/cat/1.png`, `${test}/cat/1.png`))).to.deep.equal([
        train,
        null,
        test,
        [],
      ]);
    expect(await find(make('Train/cat/1.png', 'Val/cat/1.png'))).to.deep.equal(['Train', 'Val', null, []]);
    expect(await find(make('train/cat/1.png'))).to.deep.equal(['train', null, null, []]);
  });

  it('names all of them, and what is not used', async () => {
    expect(await find(make('train/a/1', 'val/a/1', 'test/a/1'))).to.deep.equal(['train', 'val', 'test', []]);
    expect(
      await find(make('train/a/1', 'dev/a/1', 'test/1.png', 'seg_pred/2.png', 'doc/1.txt')),
    ).to.deep.equal(['train', 'dev', null, ['test', 'doc', 'seg_pred']]);
  });

  it('looks through one more folder, as archives have it', async () => {
    expect(await find(make('archive/train/a/1', 'archive/test/a/1'))).to.deep.equal([
      'archive/train',
      null,
      'archive/test',
      [],
    ]);
    expect(
      await find(make('seg_train/seg_train/a/1', 'seg_test/seg_test/a/1', 'seg_pred/seg_pred/1')),
    ).to.deep.equal(['seg_train/seg_train', null, 'seg_test/seg_test', ['seg_pred']]);
    // One class is one class.
    expect(await find(make('cat/young/1.png', 'cat/old/1.png'))).to.equal(null);
  });

  it('takes folders as classes that are called so and hold images', async () => {
    expect(await find(make('bus/1.png', 'car/1.png', 'train/1.png'))).to.equal(null);
    expect(await find(make('beaker/1.png', 'test_tube/1.png'))).to.equal(null);
    expect(await find(make('cat/1.png', 'dog/1.png'))).to.equal(null);
    expect(await find(make('readme.txt'))).to.equal(null);
  });

  it('follows links', async () => {
    const root = make('elsewhere/a/1.png');
    const data = make('test/a/1.png');
    symlinkSync(path.join(root, 'elsewhere'), path.join(data, 'train'));
    symlinkSync(path.join(root, 'nowhere'), path.join(data, 'val'));
    expect(await find(data)).to.deep.equal(['train', null, 'test', []]);
  });

  it('says what was found and what to type where it is not clear', async () => {
    const refused: [files: string[], message: RegExp][] = [
      [
        ['train/a/1', 'Training/a/1', 'test/a/1'],
        /'Training', 'train' could each be for training; give the folder itself/,
      ],
      [['train/a/1', 'val/a/1', 'valid/a/1'], /'val', 'valid' could each be for validation; give/],
      [['trainA/a/1', 'trainB/a/1'], /'trainA', 'trainB' could each be for training/],
      [['test/a/1', 'val/a/1'], /there are 'val', 'test' and none for training; give/],
      [
        ['train/a/1', 'bus/a/1', 'car/a/1'],
        /'train' may be for training, or a class beside 'bus', 'car'; give.*each folder is a class/,
      ],
      [['train/1.png', 'test/1.png'], /'test', 'train' hold no folder for each class/],
    ];
    for (const [files, message] of refused)
      await expectRejection(find(make(...files)), 'ERR_SENET_DATASET', message);
  });
});

describe('IDX files of a folder', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  let count = 0;
  const make = (...names: string[]): string => {
    const folder = temporary.path(`idx${count++}`);
    mkdirSync(folder);
    for (const name of names) writeFileSync(path.join(folder, name), '');
    return folder;
  };
  const both = (...names: string[]): string[] =>
    names.flatMap((name) => [name, name.replace(/images|imgs/i, 'labels').replace(/idx3/i, 'idx1')]);
  const base = async (files: Promise<{ images: string; labels: string }>): Promise<string[]> =>
    Object.values(await files).map((file: string) => path.basename(file));

  it('are told apart by whatever surrounds train and test', async () => {
    for (const [train, test] of [
      ['train-images-idx3-ubyte', 't10k-images-idx3-ubyte'],
      ['train-images.idx3-ubyte', 'test-images.idx3-ubyte'],
      ['emnist-letters-train-images-idx3-ubyte.gz', 'emnist-letters-test-images-idx3-ubyte.gz'],
      ['qmnist-train-images-idx3-ubyte', 'qmnist-test-images-idx3-ubyte'],
      ['k49-train-imgs.idx', 'k49-test-imgs.idx'],
      ['Training-Images.IDX3-ubyte', 'Testing-Images.IDX3-ubyte'],
    ] as const) {
      const folder = make(...both(train, test));
      expect((await base(findIdxFiles(folder, 'train')))[0]).to.equal(train);
      expect((await base(findIdxFiles(folder, 'test')))[0]).to.equal(test);
    }
  });

  it('pairs labels with other element types, and takes unpacked files before packed ones', async () => {
    const qmnist = make('qmnist-train-images-idx3-ubyte', 'qmnist-train-labels-idx2-int');
    expect(await base(findIdxFiles(qmnist, 'train'))).to.deep.equal([
      'qmnist-train-images-idx3-ubyte',
      'qmnist-train-labels-idx2-int',
    ]);
    const twice = make(...both('train-images-idx3-ubyte', 'train-images-idx3-ubyte.gz'));
    expect(await base(findIdxFiles(twice, 'train'))).to.deep.equal([
      'train-images-idx3-ubyte',
      'train-labels-idx1-ubyte',
    ]);
  });

  it('of several data sets one must be named', async () => {
    const sets = ['balanced', 'digits', 'letters'].flatMap((set) =>
      both(`emnist-${set}-train-images-idx3-ubyte`, `emnist-${set}-test-images-idx3-ubyte`),
    );
    const folder = make(...sets);
    for (const part of ['train', 'test'] as const) {
      await expectRejection(
        findIdxFiles(folder, part),
        'ERR_SENET_DATASET',
        /several data sets: emnist-balanced, emnist-digits, emnist-letters; say which \(option set, --set emnist-balanced\)/,
      );
    }
    for (const set of ['letters', 'emnist-letters', 'EMNIST Letters'])
      expect((await base(findIdxFiles(folder, 'train', set)))[0]).to.equal(
        'emnist-letters-train-images-idx3-ubyte',
      );
    await expectRejection(
      findIdxFiles(folder, 'train', 'mnist'),
      'ERR_SENET_DATASET',
      /no data set 'mnist' \(found emnist-/,
    );
    await expectRejection(findIdxFiles(folder, 'train', 'emnist'), 'ERR_SENET_DATASET', /several data sets/);
    await expectRejection(
      findIdxFiles(make(...both('train-images-idx3-ubyte', 'training-images-idx3-ubyte'))),
      'ERR_SENET_DATASET',
      /several files may be for training/,
    );
  });

  it('for training are never those for test, nor the other way round', async () => {
    const test = make(...both('t10k-images-idx3-ubyte'));
    await expectRejection(
      findIdxFiles(test, 'train'),
      'ERR_SENET_FILE_NOT_FOUND',
      /found only t10k-images-idx3-ubyte/,
    );
    const train = make(...both('train-images-idx3-ubyte'));
    await expectRejection(findIdxFiles(train, 'test'), 'ERR_SENET_FILE_NOT_FOUND', /found only train-images/);
    // What says neither serves for both.
    const plain = make(...both('shapes-images-idx3-ubyte'));
    for (const part of ['train', 'test'] as const)
      expect((await base(findIdxFiles(plain, part)))[0]).to.equal('shapes-images-idx3-ubyte');
    expect(
      Object.entries(await findIdxSplits(plain)).flatMap(([name, files]) => (files === null ? [] : [name])),
    ).to.deep.equal(['whole']);
  });

  it('are recognised by their names', () => {
    expect(['train-images-idx3-ubyte.gz', 'k49-train-imgs.idx', 'x-images.IDX'].every(isIdxName)).to.equal(
      true,
    );
    expect(
      ['train-labels-idx1-ubyte', 'images', 'images.png', 'emnist-letters-mapping.txt'].some(isIdxName),
    ).to.equal(false);
  });
});
