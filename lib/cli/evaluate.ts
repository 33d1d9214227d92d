/** `senet-torch evaluate`: accuracy of a network on a data set of IDX files. */
import { stat } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';

import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';

import { makeError } from '../errors';
import { findIdxFiles, readIdxDataset } from '../data/idx';
import { lazy } from './lazy';
import { addNetworkOptions, loadClassifier, type NetworkOptions } from './load-classifier';
import { count, percent, printJson, printLine, printNote, printTable } from './output';
import { atLeastOne } from './training-options';

interface EvaluateOptions extends NetworkOptions {
  limit?: number;
  batchSize: number;
  json?: boolean;
}

export function addEvaluate(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('evaluate')
    .description(
      'Print how many images of a data set a network gets right. IDX files (MNIST and its relatives), gzip or not.',
    )
    .argument('<images>', 'the file of images, or a folder with both files')
    .argument('[labels]', 'the file of labels');
  addNetworkOptions(command)
    .option('-n, --limit <n>', 'only the first N images', atLeastOne)
    .option('-b, --batch-size <n>', 'images that go through the network together', atLeastOne, 100)
    .option('--json', 'print JSON, with the prediction for each image')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch evaluate /usr/share/datasets/fashion-mnist\n  $ senet-torch evaluate t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz --limit 500',
    )
    .action((images: string, labels: string | undefined, options: EvaluateOptions) =>
      evaluate(images, labels, options, interrupted()),
    );
}

async function evaluate(
  images: string,
  labels: string | undefined,
  options: EvaluateOptions,
  signal: AbortSignal,
): Promise<void> {
  const files = await findFiles(images, labels);
  if (labels === undefined) printNote(`Evaluating ${files.images} with the labels ${files.labels}`);
  const data = await readIdxDataset(files.images, files.labels);
  const classifier = await loadClassifier(options, signal);
  const total = Math.min(options.limit ?? data.count, data.count);
  const classes = classifier.labels;
  const largest = data.labels.subarray(0, total).reduce((most, label) => Math.max(most, label), 0);
  if (classes.length > 0 && largest >= classes.length) {
    throw makeError(
      'ERR_SENET_LABELS',
      `the data has the label ${largest} and the network ${count(classes.length, 'class')}`,
    );
  }
  const { tensor } = lazy.factories;
  const bar = process.stderr.isTTY
    ? new SingleBar({
        format: '{bar} {value} of {total} images, {right} right, {eta_formatted} left',
        stream: process.stderr,
        clearOnComplete: true,
      })
    : undefined;
  bar?.start(total, 0, { right: 0 });
  const predictions: number[] = [];
  let right = 0;
  const began = performance.now();
  try {
    const pixelsOfOne = data.height * data.width;
    for (let start = 0; start < total; start += options.batchSize) {
      const end = Math.min(start + options.batchSize, total);
      const pixels = tensor(data.images.subarray(start * pixelsOfOne, end * pixelsOfOne), {
        shape: [end - start, 1, data.height, data.width],
      });
      const results = await classifier.classifyBatch(pixels, { topK: 1, signal });
      pixels.dispose();
      for (const [best] of results) {
        const prediction = best?.index ?? -1;
        if (prediction === data.labels[predictions.length]) right++;
        predictions.push(prediction);
      }
      bar?.update(end, { right });
    }
  } finally {
    bar?.stop();
    await classifier.dispose();
  }
  const seconds = (performance.now() - began) / 1000;
  const accuracy = total === 0 ? 0 : right / total;
  if (options.json === true) {
    printJson({ total, correct: right, accuracy, seconds, predictions });
    return;
  }
  printLine(
    `${right.toLocaleString('en')} of ${count(total, 'image')} right (${percent(accuracy)}), ${seconds.toFixed(1)} s`,
  );
  printLine();
  printTable(byClass(classes, data.labels, predictions), [1, 2]);
}

function byClass(classes: readonly string[], labels: Uint8Array, predictions: readonly number[]): string[][] {
  const tally = new Map<number, { total: number; right: number }>();
  for (const [index, prediction] of predictions.entries()) {
    const label = labels[index] as number;
    const entry = tally.get(label) ?? { total: 0, right: 0 };
    tally.set(label, { total: entry.total + 1, right: entry.right + (prediction === label ? 1 : 0) });
  }
  return [...tally.entries()]
    .sort(([left], [right]) => left - right)
    .map(([label, { total, right }]) => [
      classes[label] ?? String(label),
      `${right} of ${total}`,
      percent(right / total),
    ]);
}

async function findFiles(
  images: string,
  labels: string | undefined,
): Promise<{ images: string; labels: string }> {
  if (labels !== undefined) return { images, labels };
  const folder = await stat(images).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (folder) return findIdxFiles(images);
  const exists = await stat(images).catch(() => undefined);
  if (exists === undefined) throw makeError('ERR_SENET_FILE_NOT_FOUND', `${images}: no such file or folder`);
  throw makeError('ERR_SENET_ARG_MISSING', 'evaluate: give the file of labels too, or a folder with both');
}
