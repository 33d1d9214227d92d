/** evaluateClassifier: shares, confusion, calibration, classes by name, images that cannot be read; and its page. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  evaluateClassifier,
  IdxDataset,
  ImageClassifier,
  ImageFolder,
  Subset,
  type ClassifierEvaluation,
  type Dataset,
} from '../../lib';
import { CalibrationCounter } from '../../lib/train/calibration';
import { renderClassifierReport } from '../../lib/train/classifier-report';
import { openEvaluationData } from '../../lib/train/evaluation-data';
import { matchClasses } from '../../lib/train/match-classes';
import { bundledImages } from '../../lib/vision/bundled-images';
import { expectRejection, expectThrow } from '../support/errors';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
const IMAGES = path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz');
const LABELS = path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz');

describe('evaluateClassifier', () => {
  const temporary = new Temporary();
  const photos = temporary.path('photos');
  let classifier: ImageClassifier;

  before(async () => {
    classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    for (const file of await bundledImages()) {
      // 08-sandal.png lies in the folder "sandal".
      const name = path.basename(file, '.png').slice(3);
      const folder = path.join(photos, name);
      mkdirSync(folder, { recursive: true });
      cpSync(file, path.join(folder, path.basename(file)));
    }
  });
  after(async () => {
    await classifier.dispose();
    temporary.cleanUp();
  });

  it('counts what is right, among the best five, and confused, as classify says', async () => {
    const dataset = await IdxDataset.open({ images: IMAGES, labels: LABELS });
    const progress: number[] = [];
    const evaluation = await evaluateClassifier(classifier, dataset, {
      ...{ batchSize: 64, mistakes: 5, onProgress: (done) => void progress.push(done) },
    });
    const { count, correct, top1, top5, confusion, calibration, predictions, mistakes } = evaluation;
    expect([count, correct, top1, top5]).to.deep.equal([500, 471, 471 / 500, 1]);
    expect(evaluation).to.deep.include({ matched: 'order', failed: [], classes: [...classifier.labels] });
    expect(confusion.flat().reduce((sum, images) => sum + images, 0)).to.equal(500);
    expect(confusion.reduce((sum, row, label) => sum + (row[label] as number), 0)).to.equal(471);
    expect(calibration.bins.reduce((sum, bin) => sum + bin.count, 0)).to.equal(500);
    expect(predictions).to.have.length(500);
    expect(progress.at(-1)).to.equal(500);
    expect(mistakes).to.have.length(5);
    for (const { index, label, prediction, name } of mistakes) {
      expect([dataset.labels[index], predictions[index]]).to.deep.equal([label, prediction]);
      expect(name).to.equal(`image ${index}`);
    }
    const scores = mistakes.map(({ score }) => score);
    expect(scores).to.deep.equal([...scores].sort((a, b) => b - a));
    // The same by single images, which go another way.
    const single: Dataset = { length: 40, classes: dataset.classes, get: (index) => dataset.get(index) };
    expect((await evaluateClassifier(classifier, single)).predictions).to.deep.equal(
      predictions.slice(0, 40),
    );
  });

  it('takes class folders by their names, and images that cannot be read apart', async () => {
    writeFileSync(path.join(photos, 'bag', 'broken.png'), 'broken');
    const dataset = await ImageFolder.open(photos);
    const evaluation = await evaluateClassifier(classifier, dataset);
    expect(evaluation).to.include({ matched: 'name', count: 20, top1: 1, top5: 1 });
    expect(evaluation.failed.map(({ name, code }) => [path.basename(name), code])).to.deep.equal([
      ['broken.png', 'ERR_SENET_IMAGE'],
    ]);
    expect(evaluation.predictions.filter((prediction) => prediction === -1)).to.have.length(1);
    const some = await evaluateClassifier(classifier, new Subset(dataset, [5, 0]));
    expect(some.predictions).to.deep.equal([evaluation.predictions[5], evaluation.predictions[0]]);
  });

  it('opens what a path holds, and spreads a limit over classes', async () => {
    const folder = await openEvaluationData(photos, { limit: 5 });
    expect(folder.dataset.length).to.equal(5);
    const chosen = await evaluateClassifier(classifier, folder.dataset);
    expect(new Set(chosen.predictions).size).to.be.above(3);
    const idx = await openEvaluationData(IMAGES, { labels: LABELS, limit: 7 });
    expect(idx.dataset.length).to.equal(7);
    await expectRejection(openEvaluationData(IMAGES), 'ERR_SENET_ARG_MISSING');
    await expectRejection(openEvaluationData(temporary.path('none')), 'ERR_SENET_FILE_NOT_FOUND');
  });

  it('refuses what it cannot evaluate', async () => {
    const dataset = await ImageFolder.open(photos);
    const caller = new AbortController();
    const running = evaluateClassifier(classifier, dataset, { signal: caller.signal });
    caller.abort();
    await expectRejection(running, 'ERR_SENET_ABORTED');
    await expectRejection(evaluateClassifier(classifier, new Subset(dataset, [])), 'ERR_SENET_DATASET');
    await expectRejection(evaluateClassifier(classifier, 1 as never), 'ERR_SENET_ARG_TYPE', /dataset/);
    const zoo: Dataset = { length: 1, classes: ['cat', 'dog'], get: () => dataset.get(0) };
    await expectRejection(evaluateClassifier(classifier, zoo), 'ERR_SENET_LABELS', /'cat', 'dog'/);
    const beyond: Dataset = {
      length: 1,
      get: async () => ({ image: (await dataset.get(0)).image, label: 10 }),
    };
    await expectRejection(evaluateClassifier(classifier, beyond), 'ERR_SENET_LABELS', /10 .* 10 classes/);
    for (const label of [undefined, null, '3', -1, NaN, 1.5]) {
      const get: Dataset['get'] = async () => ({
        image: (await dataset.get(0)).image,
        label: label as never,
      });
      await expectRejection(
        evaluateClassifier(classifier, { length: 1, get }),
        'ERR_SENET_LABELS',
        /image 0: expected a label that is an integer from 0/,
      );
    }
  });

  it('its page shows all of it and asks nothing of the network', async () => {
    const dataset = await ImageFolder.open(photos);
    const evaluation = await evaluateClassifier(classifier, dataset);
    const wrong: ClassifierEvaluation = {
      ...evaluation,
      mistakes: [{ index: 0, name: '<b>.png', label: 1, prediction: 2, score: 0.9, labelScore: null }],
    };
    const page = await renderClassifierReport({
      ...{ title: 'se_resnet20 on <photos>', evaluation: wrong, dataset, settings: [['images', photos]] },
    });
    for (const text of [
      'se_resnet20 on &lt;photos&gt;',
      'class="reliability"',
      'class="matrix"',
      '&lt;b&gt;.png',
    ])
      expect(page).to.include(text);
    expect(page).to.match(/broken\.png<\/td><td>ERR_SENET_IMAGE/);
    expect(page).to.include('src="data:image/png;base64,');
    expect(page).not.to.match(/(?:src|href)="(?!data:)|https?:\/\//);
    expect(readFileSync(path.join(photos, 'bag', 'broken.png'), 'utf8')).to.equal('broken');
  });
});

describe('calibration', () => {
  it('is the mean distance of scores and shares of right answers, by bins', () => {
    const counter = new CalibrationCounter();
    // In (0.8, 0.867]: two of three right at 0.85; in (0.267, 0.333]: none of one right at 0.3.
    for (const right of [true, true, false]) counter.add(0.85, right);
    counter.add(0.3, false);
    const { ece, mce, meanScore, bins } = counter.result();
    const gap = 0.85 - 2 / 3;
    expect(ece).to.be.closeTo((3 * gap + 0.3) / 4, 1e-12);
    expect(mce).to.be.closeTo(0.3, 1e-12);
    expect(meanScore).to.be.closeTo((3 * 0.85 + 0.3) / 4, 1e-12);
    expect(bins.map(({ count }) => count).filter(Boolean)).to.deep.equal([1, 3]);
  });

  it('has the edges in a bin each, and none of NaN', () => {
    const counter = new CalibrationCounter();
    for (const score of [0, 1, 1 / 15, NaN]) counter.add(score, true);
    const { bins } = counter.result();
    expect(bins).to.have.length(15);
    expect([bins[0]?.count, bins[14]?.count]).to.deep.equal([2, 1]);
    expect(new CalibrationCounter().result()).to.include({ ece: 0, mce: 0, meanScore: 0 });
  });
});

describe('matchClasses', () => {
  it('goes by names, however they are written, and by order where names say nothing', () => {
    const labels = ['Great white shark, Carcharodon', 'tench', 'T-shirt/top'];
    expect(matchClasses(['t_shirt-top', 'TENCH', 'great_white shark'], labels)).to.deep.equal({
      ...{ outputs: [2, 1, 0], by: 'name' },
    });
    expect(matchClasses(['0', '1'], labels)).to.deep.equal({ outputs: [0, 1], by: 'order' });
    expect(matchClasses(['n01440764', 'n01443537', 'n01484850'], labels).by).to.equal('order');
    expect(matchClasses(['anything'], []).outputs).to.deep.equal([0]);
    for (const wrong of [['0', '1', '2', '3'], ['n01440764'], ['tench', 'cat'], ['tench', 'Tench']])
      expectThrow(() => matchClasses(wrong, labels), 'ERR_SENET_LABELS');
    expectThrow(() => matchClasses(['a'], ['a', 'A']), 'ERR_SENET_LABELS'); // which of them?
  });
});
