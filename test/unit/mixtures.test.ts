/** Several data sets as one, and one in folds. */
import { expect } from 'chai';

import { ConcatDataset } from '../../lib/data/concat-dataset';
import { PixelDataset, randomSplit, Subset, type Dataset } from '../../lib/data/dataset';
import { kFold } from '../../lib/data/folds';
import { DataLoader } from '../../lib/data/loader';
import { memory } from '../../lib/tensor/runtime';
import { collectGarbage } from '../support/collect';
import { expectRejection, expectThrow } from '../support/errors';
import { CLASSES, smallDataset } from '../support/training';

/** Images of one pixel, which is its number here. */
function pixels(
  values: readonly number[],
  labels: readonly number[],
  classes: readonly string[],
): PixelDataset {
  return new PixelDataset(Uint8Array.from(values), labels, [1, 1, 1], classes);
}

const animals = pixels([10, 11, 12], [0, 1, 1], ['cat', 'dog']);
const others = pixels([20, 21], [1, 0], ['dog', 'emu']);

async function read(dataset: Dataset, index: number): Promise<[number, number]> {
  const { image, label } = await dataset.get(index);
  const value = Number(image.item());
  image.dispose();
  return [value, label];
}

describe('ConcatDataset', () => {
  it('has the samples one data set after the other, and one numbering of the classes', async () => {
    const both = new ConcatDataset([animals, others]);
    expect(both.length).to.equal(5);
    expect(both.classes).to.deep.equal(['cat', 'dog', 'emu']);
    expect(both.labels).to.deep.equal([0, 1, 1, 2, 1]);
    const all = await Promise.all([0, 1, 2, 3, 4].map((index) => read(both, index)));
    expect(all).to.deep.equal([
      [10, 0],
      [11, 1],
      [12, 1],
      [20, 2],
      [21, 1],
    ]);
  });

  it('numbers classes as it is told', () => {
    const both = new ConcatDataset([animals, others], { classes: ['emu', 'yak', 'dog', 'cat'] });
    expect(both.labels).to.deep.equal([3, 2, 2, 0, 2]);
    expectThrow(
      () => new ConcatDataset([animals, others], { classes: ['cat', 'dog'] }),
      'ERR_SENET_DATASET',
      /the class 'emu' is none of/,
    );
  });

  it('takes no label without a class for one of the others', async () => {
    const { image } = animals.get(0);
    const beyond = { length: 1, classes: ['cat', 'dog'], get: () => ({ image, label: 3 }) };
    const both = new ConcatDataset([beyond, others, animals]);
    await expectRejection(both.get(0), 'ERR_SENET_LABELS', /data set 0 has the label 3, and 2 classes/);
    expect((await both.get(1)).label).to.equal(2);
    for (const label of [2, -1, NaN, 0.5, undefined as never])
      expectThrow(
        () => new ConcatDataset([animals, { ...beyond, labels: [label] }]),
        'ERR_SENET_LABELS',
        /data set 1 has the label/,
      );
  });

  it('reads a batch of images in memory at once, each where it belongs, and keeps none', async () => {
    const both = new ConcatDataset([animals, new Subset(others, [1, 0]), animals]);
    await collectGarbage();
    const before = memory().tensors;
    const { images, labels } = await (both.getBatch as NonNullable<Dataset['getBatch']>)([7, 3, 0, 4, 3]);
    expect(Array.from(images.toTypedArray(), Number)).to.deep.equal([12, 21, 10, 20, 21]);
    expect(labels).to.deep.equal([1, 1, 0, 2, 1]);
    expect(memory().tensors).to.equal(before + 1);
    images.dispose();
    const one = await (both.getBatch as NonNullable<Dataset['getBatch']>)([6, 5]);
    expect(Array.from(one.images.toTypedArray(), Number)).to.deep.equal([11, 10]);
    one.images.dispose();
    expect(memory().tensors).to.equal(before);
  });

  it('of images of two sizes is read one by one, and of labels that nobody knows has none', async () => {
    const wide = new PixelDataset(Uint8Array.from([1, 2]), [0], [1, 1, 2], ['dog']);
    expect(new ConcatDataset([animals, wide]).getBatch).to.equal(undefined);
    const unknown: Dataset = { length: 1, classes: ['dog'], get: () => animals.get(1) };
    expect(new ConcatDataset([animals, unknown]).labels).to.equal(undefined);
    const nameless: Dataset = { length: 2, get: (index) => ({ ...animals.get(0), label: index + 4 }) };
    expect(await read(new ConcatDataset([nameless, nameless]), 3)).to.deep.equal([10, 5]);
  });

  it('is a data set of a loader, and one of another', async () => {
    const inner = new ConcatDataset([smallDataset(6), smallDataset(3, 2)]);
    const loader = new DataLoader(new ConcatDataset([inner, smallDataset(4, 3)]), { batchSize: 5 });
    const labels: number[] = [];
    for await (const batch of loader) {
      labels.push(...Array.from(batch.labels.toTypedArray(), Number));
      batch.images.dispose();
      batch.labels.dispose();
    }
    expect(labels).to.deep.equal([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
  });

  it('refuses what is none, some classes without names, and indices that there are not', async () => {
    expectThrow(() => new ConcatDataset('a' as never), 'ERR_SENET_ARG_TYPE', /array of data sets/);
    expectThrow(() => new ConcatDataset([null] as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => new ConcatDataset([]), 'ERR_SENET_ARG_RANGE', /one data set at least/);
    expectThrow(() => new ConcatDataset([animals], { classe: [] } as never), 'ERR_SENET_UNKNOWN_OPTION');
    const nameless: Dataset = { length: 1, get: () => animals.get(0) };
    expectThrow(
      () => new ConcatDataset([animals, nameless]),
      'ERR_SENET_DATASET',
      /1 of 2 data sets do not name their classes/,
    );
    for (const index of [-1, 3, 0.5, NaN])
      await expectRejection(new ConcatDataset([animals]).get(index), 'ERR_SENET_ARG_RANGE');
  });
});

describe('kFold', () => {
  const dataset = smallDataset(23);
  const counts = ({ labels = [] }: Dataset): number[] =>
    CLASSES.map((_, label) => labels.filter((one) => one === label).length);

  it('has each sample in one fold, folds of one size, and each with its share of every class', () => {
    const folds = kFold(dataset, { folds: 4, seed: 5 });
    expect(folds.map(({ validation }) => validation.length).sort()).to.deep.equal([5, 6, 6, 6]);
    const held = folds.flatMap(({ validation }) => validation.indices);
    expect([...held].sort((a, b) => a - b)).to.deep.equal([...Array(23).keys()]);
    for (const { train, validation } of folds) {
      expect([...train.indices, ...validation.indices].sort((a, b) => a - b)).to.have.lengthOf(23);
      expect(train.indices.some((index) => validation.indices.includes(index))).to.equal(false);
      for (const [label, count] of counts(validation).entries())
        expect(Math.abs(count - (counts(dataset)[label] as number) / 4), `class ${label}`).to.be.below(1);
    }
  });

  it('gives the same folds for the same seed, and others for another', () => {
    const indices = (seed: number): unknown =>
      kFold(dataset, { folds: 3, seed }).map(({ validation }) => validation.indices);
    expect(indices(1)).to.deep.equal(indices(1));
    expect(indices(1)).not.to.deep.equal(indices(2));
  });

  it('takes data sets that do not know their labels, unless they are to be stratified', () => {
    const unknown: Dataset = { length: 5, get: (index) => dataset.get(index) };
    const sizes = kFold(unknown, { folds: 5 }).map(({ validation }) => validation.length);
    expect(sizes).to.deep.equal([1, 1, 1, 1, 1]);
    expectThrow(
      () => kFold(unknown, { folds: 2, stratified: true }),
      'ERR_SENET_DATASET',
      /does not know the labels/,
    );
  });

  it('refuses fewer than two folds, and more than there are samples', () => {
    for (const folds of [1, 0, -1, 24, 2.5, NaN])
      expectThrow(() => kFold(dataset, { folds }), 'ERR_SENET_ARG_RANGE', /kFold: folds/);
    expectThrow(() => kFold(dataset, {} as never), 'ERR_SENET_ARG_MISSING', /folds/);
    for (const few of [0, 1])
      expectThrow(
        () => kFold({ length: few, get: () => null }, { folds: 2 }),
        'ERR_SENET_ARG_RANGE',
        /kFold: dataset/,
      );
    expectThrow(() => kFold(null as never, { folds: 2 }), 'ERR_SENET_ARG_TYPE', /kFold: dataset/);
    expectThrow(() => randomSplit(dataset, null as never), 'ERR_SENET_ARG_TYPE', /lengths/);
    expectThrow(() => randomSplit(dataset, [null] as never), 'ERR_SENET_ARG_TYPE', /length/);
    expectThrow(() => new Subset(null as never, [0]), 'ERR_SENET_ARG_TYPE', /Subset: dataset/);
    expectThrow(() => new Subset(dataset, null as never), 'ERR_SENET_ARG_TYPE', /Subset: indices/);
    expectThrow(() => new Subset(dataset, new Array<number>(1)), 'ERR_SENET_ARG_TYPE', /Subset: index/);
  });
});
