/** `senet-torch evaluate`: what share of a data set a network gets right, what it confuses, how sure it is. */
import path from 'node:path';

import { Option, type Command } from 'commander';

import type { ClassifierEvaluation } from '../train/classifier-evaluation';
import { DATASET_KINDS, type DatasetKind } from '../train/recipe/settings';
import type { Fact } from '../train/report-page';
import { lazy } from './lazy';
import {
  addNetworkOptions,
  batchesOf,
  loadClassifier,
  titleOf,
  type NetworkOptions,
} from './load-classifier';
import {
  count,
  EXIT_FAILURE,
  percent,
  printJson,
  printLine,
  printLines,
  printNote,
  printTable,
} from './output';
import { atLeastOne } from './training-options';
import { progressBar } from './progress-bar';

interface EvaluateOptions extends NetworkOptions {
  limit?: number;
  batchSize: number;
  dataset?: DatasetKind;
  also?: string[];
  report?: string;
  json?: boolean;
}

export function addEvaluate(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('evaluate')
    .description(
      'Print what share of a data set a network gets right, by class, and whether its scores are to be trusted.',
    )
    .argument(
      '<data>',
      'a folder with a folder of images for each class (or with train, val and test), IDX files (a folder, or the file of images), or CIFAR-10 or -100 (folder or archive)',
    )
    .argument('[labels]', 'of IDX files: the file of labels');
  addNetworkOptions(command)
    .addOption(
      new Option('--dataset <kind>', 'what <data> is; default: what its names say').choices(DATASET_KINDS),
    )
    .option('--also <data...>', 'further data sets, of whatever kind: classes of the same name are one')
    .option('-n, --limit <n>', 'only N images: the first, of folders evenly spread', atLeastOne)
    .option('-b, --batch-size <n>', 'images that go through the network together', atLeastOne, 100)
    .option('--report <file>', 'write a page: confusion matrix, reliability diagram, worst mistakes')
    .option('--json', 'print JSON, with the prediction for each image')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch evaluate photos --weights training/best.safetensors --report report.html\n  $ senet-torch evaluate cifar-10-binary.tar.gz --weights cifar.safetensors\n  $ senet-torch evaluate t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz --limit 500',
    )
    .action((data: string, labels: string | undefined, options: EvaluateOptions) =>
      evaluate(data, labels, options, interrupted()),
    );
}

async function evaluate(
  data: string,
  labels: string | undefined,
  options: EvaluateOptions,
  signal: AbortSignal,
): Promise<void> {
  const { dataset: kind, also, limit, batchSize, report, json } = options;
  const { openEvaluationData, evaluateClassifier, writeClassifierReport } = lazy.evaluation;
  const { dataset, from } = await openEvaluationData(data, { labels, dataset: kind, also, limit });
  if (labels === undefined) printNote(`Evaluating ${from}`);
  const classifier = await loadClassifier(options, signal, batchesOf(batchSize));
  const bar = progressBar(
    '{bar} {value} of {total} images, {right} right, {eta_formatted} left',
    dataset.length,
    { right: 0 },
  );
  let evaluation: ClassifierEvaluation;
  try {
    evaluation = await evaluateClassifier(classifier, dataset, {
      ...{ batchSize, signal, mistakes: report === undefined ? 0 : 24 },
      onProgress: (done, right) => bar?.update(done, { right }),
    });
  } finally {
    bar?.stop();
    await classifier.dispose();
  }
  try {
    if (report !== undefined) {
      const title = `${titleOf(classifier, options)} on ${path.basename(path.resolve(data))}`;
      const settings: Fact[] = [['images', from], ...settingsOf(options)];
      await writeClassifierReport(report, { title, evaluation, dataset, settings });
    }
  } finally {
    // What was measured is not lost with a page that cannot be written.
    if (json === true) printJson(recordOf(evaluation));
    else printEvaluation(evaluation);
    if (evaluation.failed.length > 0) process.exitCode = EXIT_FAILURE;
  }
  if (report !== undefined && json !== true) printLines(['', `report: ${report}`]);
}

function settingsOf({ model, weights, pretrained, preprocessing, labels, device }: EvaluateOptions): Fact[] {
  const given = { model, weights, pretrained, preprocessing, labels, device };
  return Object.entries(given).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)] as const],
  );
}

function recordOf(evaluation: ClassifierEvaluation): object {
  const { count: total, correct, top1, top5, seconds, predictions, mistakes: _, ...rest } = evaluation;
  return { total, correct, accuracy: top1, top5, seconds, predictions, ...rest };
}

function printEvaluation(evaluation: ClassifierEvaluation): void {
  const { count: total, correct, top1, top5, classes, calibration, failed, seconds } = evaluation;
  printLines([
    `${correct.toLocaleString('en')} of ${count(total, 'image')} right (${percent(top1)}), ${seconds.toFixed(1)} s`,
    ...(classes.length > 5 ? [`${percent(top5)} among the best five`] : []),
    `scores and shares of right answers are ${percent(calibration.ece)} apart (expected calibration error), at most ${percent(calibration.mce)}`,
  ]);
  printLine();
  printTable(byClass(evaluation), [1, 2]);
  for (const { message, code } of failed.slice(0, 20)) printNote(`error: ${message} [${code ?? ''}]`);
  if (failed.length > 0) printNote(`${count(failed.length, 'image')} could not be read`);
}

/** Of the classes that the data has. */
function byClass({ classes, confusion }: ClassifierEvaluation): string[][] {
  return confusion.flatMap((row, label) => {
    const total = row.reduce((sum, images) => sum + images, 0);
    const right = row[label] ?? 0;
    return total === 0 ? [] : [[classes[label] ?? '', `${right} of ${total}`, percent(right / total)]];
  });
}
