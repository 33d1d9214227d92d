/** `senet-torch classify` of many images: what was typed goes to the library, its progress and its end are printed. */
import { once } from 'node:events';
import { stat } from 'node:fs/promises';

import type { ImageRow } from '../bulk/classify-many';
import type { ManyProgress, ManyReport } from '../bulk/classify-to-file';
import type { ImageListing } from '../bulk/list-images';
import type { Shard } from '../bulk/image-list';
import { jsonRow } from '../bulk/text-formats';
import { makeError } from '../errors';
import { printableJson } from '../printable';
import type { ImageClassifier } from '../vision/image-classifier';
import { lazy } from './lazy';
import { batchesOf, inFlightOf, loadClassifier, type NetworkOptions } from './load-classifier';
import { ManyDisplay } from './many-display';
import {
  count,
  EXIT_FAILURE,
  EXIT_INTERRUPTED,
  isAborted,
  percent,
  printError,
  printJson,
  printLine,
  printNote,
} from './output';
import { shardOption } from './shard-option';

export interface ClassifyOptions extends NetworkOptions {
  topK?: number;
  json?: boolean;
  recursive?: boolean;
  output?: string;
  shard?: string;
  batchSize?: number;
  overwrite?: boolean;
  allowBadImages?: boolean;
}

/** Labels of each image, where there are several. */
export const TOP_K_TABLE = 3;

/** The cells of an image in a table. */
export function cellsOf({ file, labels }: ImageRow): string[] {
  return [file, ...(labels ?? []).flatMap(({ label, score }) => [label, percent(score)])];
}

/** Standard output, for rows. */
const OUTPUT = '-';

export async function classifyMany(
  files: readonly string[],
  options: ClassifyOptions,
  signal: AbortSignal,
): Promise<void> {
  const { output = OUTPUT, recursive = false, overwrite = false, batchSize } = options;
  const shard = options.shard === undefined ? undefined : shardOption(options.shard, process.env);
  if (files.length === 0)
    throw makeError('ERR_SENET_ARG_MISSING', 'classify: give a folder, a glob, an archive, or - for a list');
  if (output === OUTPUT && (overwrite || shard !== undefined))
    throw makeError('ERR_SENET_ARG_MISSING', `${overwrite ? '--overwrite' : '--shard'} needs --output`);
  const list = lazy.bulk.list.listImages(files, { recursive, signal });
  const classifier = await loadClassifier(options, signal, batchesOf(batchSize));
  const inFlight = inFlightOf(batchSize);
  const topK = options.topK ?? TOP_K_TABLE;
  let bad: boolean;
  try {
    if (output === OUTPUT)
      bad = await toTerminal(classifier, list, { topK, inFlight, signal }, options.json === true);
    else
      bad = await toFile(classifier, list, output, {
        ...{
          topK,
          inFlight,
          signal,
          overwrite,
          network: await networkOf(options),
          json: options.json === true,
        },
        ...(shard === undefined ? {} : { shard }),
      });
  } finally {
    await classifier.dispose();
  }
  if (bad && options.allowBadImages !== true) process.exitCode = EXIT_FAILURE;
}

interface Common {
  readonly topK: number;
  readonly inFlight: number;
  readonly signal: AbortSignal;
}

/** A line for each image as soon as it is known: what comes last may be hours away. True if one was bad. */
async function toTerminal(
  classifier: ImageClassifier,
  list: ImageListing,
  common: Common,
  json: boolean,
): Promise<boolean> {
  let bad = false;
  for await (const row of lazy.bulk.classifyMany.classifyMany(classifier, list, common)) {
    if (row.error !== null) bad = true;
    if (json) process.stdout.write(`${printableJson(JSON.stringify(jsonRow(row)))}\n`);
    else if (row.error !== null) printError(row.error);
    else printLine(cellsOf(row).join('  '));
    // A reader that is slower must not fill the memory.
    if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain');
  }
  return bad;
}

/** True if a row has an error. */
async function toFile(
  classifier: ImageClassifier,
  list: ImageListing,
  output: string,
  { json, ...options }: Common & { json: boolean; overwrite: boolean; network: string; shard?: Shard },
): Promise<boolean> {
  const display = new ManyDisplay();
  let last: ManyProgress | undefined;
  // Beside the work: nobody waits for it, and what it meets the listing meets.
  list.count().catch(() => undefined);
  try {
    const report = await lazy.bulk.classifyToFile.classifyToFile(classifier, list, output, {
      ...options,
      onProgress: (progress) => display.update((last = progress)),
    });
    display.stop();
    const leftOut = Object.fromEntries(list.leftOut);
    if (json) printJson({ ...report, leftOut });
    else printReport(report, leftOut);
    return Object.keys(report.failed).length > 0;
  } catch (error) {
    display.stop();
    if (!isAborted(error, options.signal)) throw error;
    printNote(
      `interrupted: ${output} has ${last === undefined ? 'what was done' : `the first ${count(last.done, 'row')}`}. The same command goes on after it`,
    );
    process.exitCode = EXIT_INTERRUPTED;
    return false;
  }
}

function printReport(report: ManyReport, leftOut: Readonly<Record<string, number>>): void {
  const { output, rows, earlier, failed, seconds, imagesPerSecond, networkShare } = report;
  const codes = Object.entries(failed).map(([code, number]) => `${code} ${number.toLocaleString('en')}`);
  const bad = Object.values(failed).reduce((sum, number) => sum + number, 0);
  printLine(
    [
      `${output}: ${count(rows, 'row')}`,
      bad === 0 ? 'none with an error' : `${bad.toLocaleString('en')} with an error (${codes.join(', ')})`,
    ].join(', '),
  );
  const done = rows - earlier;
  printLine(
    `${count(done, 'image')}${earlier > 0 ? ` after ${earlier.toLocaleString('en')} of earlier runs` : ''} in ${seconds.toFixed(1)} s, ${Math.round(imagesPerSecond).toLocaleString('en')} images/s; a batch in the network ${percent(networkShare)} of the time`,
  );
  const kinds = Object.entries(leftOut).map(([kind, number]) => `${kind} ${number.toLocaleString('en')}`);
  if (kinds.length > 0) printLine(`left out: ${kinds.join(', ')}`);
}

/** Which network it is, so that other weights under the same name are told apart. */
async function networkOf(options: NetworkOptions): Promise<string> {
  const { model, weights, key, prefix, pretrained, useTestSize } = options;
  const stats = weights === undefined ? undefined : await stat(weights).catch(() => undefined);
  const version = stats?.isFile() === true ? { bytes: stats.size, modified: stats.mtime.toISOString() } : {};
  return JSON.stringify({ model, weights, ...version, key, prefix, pretrained, useTestSize });
}
