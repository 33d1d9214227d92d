/** `senet-torch classify`: the labels of image files; of few of them as a table, of many as rows. */
import path from 'node:path';

import type { Command } from 'commander';

import type { ImageRow } from '../bulk/classify-many';
import { cellsOf, classifyMany, TOP_K_TABLE, type ClassifyOptions } from './classify-many';
import { lazy } from './lazy';
import { addNetworkOptions, batchesOf, loadClassifier } from './load-classifier';
import { errorRecord, EXIT_FAILURE, percent, printError, printJson, printLine, printTable } from './output';
import { atLeastOne } from './training-options';
import { progressBar } from './progress-bar';

/** Labels of one image stand below each other, those of several beside each other. */
const TOP_K_ALONE = 5;

export function addClassify(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('classify')
    .description(
      'Print the top labels of images, with scores. Without files: of the images that come with the package.',
    )
    .argument(
      '[files...]',
      'JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM images; folders (with --recursive), globs, tar and zip archives of them; - for a list on standard input',
    );
  addNetworkOptions(command)
    .option(
      '-k, --top-k <n>',
      `labels for each image (default: ${TOP_K_ALONE}, or ${TOP_K_TABLE} for several images)`,
      atLeastOne,
    )
    .option('--json', 'print JSON; of many images a line each')
    .optionsGroup('Many images:')
    .option('-r, --recursive', 'walk folders')
    .option(
      '-o, --output <file>',
      'write a row for each image: .jsonl, .csv, or .parquet (a folder of parts). What is there stays: the same command goes on after an interruption',
    )
    .option('--overwrite', 'throw away what is there')
    .option(
      '--shard <part>',
      'the third of eight parts of the list: 3/8; /8 is the part of this index of a Kubernetes Job, or task of a Slurm array',
    )
    .option('--allow-bad-images', 'exit with 0 though images could not be read; their rows say so')
    .option('-b, --batch-size <n>', 'images that go through the network together (default: 16)', atLeastOne)
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch classify\n  $ senet-torch classify --model se_resnet50 --pretrained photo.jpg\n  $ senet-torch classify --weights mine.safetensors --json *.png\n  $ senet-torch classify --recursive photos --output labels.jsonl\n  $ find photos -name "*.jpg" | senet-torch classify - --output labels.csv',
    )
    .action(async (files: string[], options: ClassifyOptions) => {
      const signal = interrupted();
      if (isMany(files, options)) await classifyMany(files, options, signal);
      else await classify(files, options, signal);
    });
}

function isMany(files: readonly string[], { recursive, output, shard, overwrite }: ClassifyOptions): boolean {
  if (recursive === true || overwrite === true || output !== undefined || shard !== undefined) return true;
  return files.some((file) => lazy.bulk.list.namesMany(file));
}

async function classify(
  given: readonly string[],
  options: ClassifyOptions,
  signal: AbortSignal,
): Promise<void> {
  const { bundledImages } = lazy.bundledImages;
  const files = given.length > 0 ? given : await bundledImages();
  const topK = options.topK ?? (files.length === 1 ? TOP_K_ALONE : TOP_K_TABLE);
  const classifier = await loadClassifier(options, signal, batchesOf(options.batchSize));
  const rows: ImageRow[] = [];
  const bar = files.length > 1 ? progressBar('{bar} {value} of {total} images', files.length) : undefined;
  try {
    for await (const row of lazy.bulk.classifyMany.classifyMany(classifier, files, { topK, signal })) {
      rows.push(row);
      bar?.increment();
    }
  } finally {
    bar?.stop();
    await classifier.dispose();
  }
  if (options.json === true) printJson(rows.map(toRecord));
  else printRows(rows, given.length === 0);
  const bad = rows.some(({ error }) => error !== null);
  if (bad && options.allowBadImages !== true) process.exitCode = EXIT_FAILURE;
}

function toRecord({ file, labels, error }: ImageRow): object {
  return labels === null ? { file, error: errorRecord(error) } : { file, labels };
}

function printRows(rows: readonly ImageRow[], bundled: boolean): void {
  const named = rows.map((row) => (bundled ? { ...row, file: path.basename(row.file) } : row));
  const done = named.filter(({ labels }) => labels !== null);
  if (rows.length === 1) {
    for (const { file, labels } of done) {
      printLine(file);
      printTable(
        (labels ?? []).map(({ label, score }) => ['', label, percent(score)]),
        [2],
      );
    }
  } else {
    const cells = done.map(cellsOf);
    const longest = Math.max(0, ...cells.map((row) => row.length));
    printTable(
      cells,
      Array.from({ length: longest }, (_, column) => column).filter(
        (column) => column > 0 && column % 2 === 0,
      ),
    );
  }
  for (const { error } of named) if (error !== null) printError(error);
}
