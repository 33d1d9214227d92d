/** `senet-torch classify`: the labels of image files. */
import path from 'node:path';

import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';

import type { Classification } from '../vision/ranking';
import { lazy } from './lazy';
import { addNetworkOptions, loadClassifier, type NetworkOptions } from './load-classifier';
import { errorRecord, EXIT_FAILURE, percent, printError, printJson, printLine, printTable } from './output';
import { atLeastOne } from './training-options';

interface ClassifyOptions extends NetworkOptions {
  topK?: number;
  json?: boolean;
}

interface Outcome {
  file: string;
  labels?: Classification[];
  error?: unknown;
}

/** Labels of one image stand below each other, those of several beside each other. */
const TOP_K_ALONE = 5;
const TOP_K_TABLE = 3;

export function addClassify(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('classify')
    .description(
      'Print the top labels of images, with scores. Without files: of the images that come with the package.',
    )
    .argument('[files...]', 'JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM images');
  addNetworkOptions(command)
    .option(
      '-k, --top-k <n>',
      `labels for each image (default: ${TOP_K_ALONE}, or ${TOP_K_TABLE} for several images)`,
      atLeastOne,
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch classify\n  $ senet-torch classify --model se_resnet50 --pretrained photo.jpg\n  $ senet-torch classify --weights mine.safetensors --json *.png',
    )
    .action((files: string[], options: ClassifyOptions) => classify(files, options, interrupted()));
}

async function classify(
  given: readonly string[],
  options: ClassifyOptions,
  signal: AbortSignal,
): Promise<void> {
  const { bundledImages } = lazy.bundledImages;
  const files = given.length > 0 ? given : await bundledImages();
  const topK = options.topK ?? (files.length === 1 ? TOP_K_ALONE : TOP_K_TABLE);
  const classifier = await loadClassifier(options, signal);
  const outcomes: Outcome[] = [];
  const bar = files.length > 1 && process.stderr.isTTY ? progressBar(files.length) : undefined;
  try {
    // One by one: a bad file says so, and the others still get their labels.
    for (const file of files) {
      try {
        outcomes.push({ file, labels: await classifier.classify(file, { topK, signal }) });
      } catch (error) {
        if (signal.aborted) throw error;
        outcomes.push({ file, error });
      }
      bar?.increment();
    }
  } finally {
    bar?.stop();
    await classifier.dispose();
  }
  if (options.json === true) printJson(outcomes.map(toRecord));
  else printOutcomes(outcomes, given.length === 0);
  if (outcomes.some(({ error }) => error !== undefined)) process.exitCode = EXIT_FAILURE;
}

function progressBar(total: number): SingleBar {
  const bar = new SingleBar({
    format: '{bar} {value} of {total} images',
    stream: process.stderr,
    clearOnComplete: true,
  });
  bar.start(total, 0);
  return bar;
}

function toRecord({ file, labels, error }: Outcome): object {
  return labels === undefined ? { file, error: errorRecord(error) } : { file, labels };
}

function printOutcomes(outcomes: readonly Outcome[], bundled: boolean): void {
  const named = outcomes.map((outcome) => ({
    ...outcome,
    name: bundled ? path.basename(outcome.file) : outcome.file,
  }));
  const done = named.filter(({ labels }) => labels !== undefined);
  if (outcomes.length === 1) {
    for (const { name, labels = [] } of done) {
      printLine(name);
      printTable(
        labels.map(({ label, score }) => ['', label, percent(score)]),
        [2],
      );
    }
  } else {
    const rows = done.map(({ name, labels = [] }) => [
      name,
      ...labels.flatMap(({ label, score }) => [label, percent(score)]),
    ]);
    const longest = Math.max(0, ...rows.map((row) => row.length));
    printTable(
      rows,
      Array.from({ length: longest }, (_, column) => column).filter(
        (column) => column > 0 && column % 2 === 0,
      ),
    );
  }
  for (const { error } of named) if (error !== undefined) printError(error);
}
