/** `senet-torch models`: the networks by name, and what is known of one with its published weights. */
import type { Command } from 'commander';

import type { PublishedWeights, ModelRecord } from '../models/record';
import { lazy } from './lazy';
import { printJson, printLine, printTable } from './output';

export function addModels(program: Command, interrupted: () => AbortSignal): void {
  program
    .command('models')
    .description('List the networks and their published weights, or print what is known of one.')
    .argument(
      '[name]',
      'a network, such as seresnet50, or what is of one: hf-hub:REPOSITORY, local-dir:FOLDER, a file of weights',
    )
    .option('--pretrained', 'only those with published weights')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ senet-torch models --pretrained\n  $ senet-torch models seresnet50\n  $ senet-torch models --json',
    )
    .action(
      async (name: string | undefined, { json, pretrained }: { json?: boolean; pretrained?: boolean }) => {
        const { listModels, modelRecord, networkNamed } = lazy.models;
        if (name !== undefined) {
          const transfer = { progress: process.stderr.isTTY, signal: interrupted() };
          const record = await networkNamed(name, transfer, 'models');
          if (json === true) printJson(described(record));
          else printRecord(record);
          return;
        }
        const records = listModels(pretrained === true ? { pretrained } : {}).map((model) =>
          modelRecord(model),
        );
        if (json === true) printJson(records.map(described));
        else printRecords(records);
      },
    );
}

/** A record in plain values; `weights` are the names, and `tags` what is known of each. */
function described(record: ModelRecord): object {
  const { name, framework, inputSize, anyInputSize, inChannels, numClasses, classifier, preprocessing } =
    record;
  const { options, weights } = record;
  return {
    ...{
      name,
      framework,
      inputSize,
      anyInputSize,
      inChannels,
      numClasses,
      classifier,
      preprocessing,
      options,
    },
    bytes: lazy.signatures.STATE_BYTES[name],
    weights: weights.map((published) => published.name),
    tags: weights.map((published) => {
      const { model: _, ...known } = published;
      return { ...known, bytes: bytesOf(published), source: sourceOf(published) };
    }),
  };
}

/** Of their tensors in float32. */
function bytesOf({ model, bytes }: PublishedWeights): number {
  return bytes ?? (lazy.signatures.STATE_BYTES[model] as number);
}

function printRecords(records: readonly ModelRecord[]): void {
  const rows = records.flatMap(({ name, inputSize, numClasses, weights }) => {
    const classes = numClasses === null ? 'required' : String(numClasses);
    const images = `${inputSize} x ${inputSize}`;
    if (weights.length === 0) return [[name, classes, images, '-', '', '', '']];
    return weights.map((published, index) => [
      index === 0 ? name : '',
      published.numClasses === undefined ? classes : String(published.numClasses),
      published.preprocessing?.crop?.join(' x ') ?? images,
      published.name,
      accuracyOf(published),
      sizeOf(published),
      published.licence,
    ]);
  });
  printTable([['MODEL', 'CLASSES', 'IMAGES', 'WEIGHTS', 'TOP-1', 'SIZE', 'LICENCE'], ...rows]);
}

function printRecord(record: ModelRecord): void {
  const { name, framework, inputSize, anyInputSize, numClasses, options, weights } = record;
  printTable([
    ['network', name],
    ['keys of', framework],
    ['images', `${inputSize} x ${inputSize}${anyInputSize ? ', or others' : ' only'}`],
    ['classes', numClasses === null ? 'required' : String(numClasses)],
    ['options', options.filter((option) => option !== 'initWeights').join(', ')],
    ['weights', weights.length === 0 ? 'none are published' : ''],
  ]);
  for (const published of weights) {
    const { top5, testTop1 } = published;
    const better = testTop1 === undefined ? '' : `, top-1 ${testTop1} %`;
    printLine();
    printTable([
      ['', published.name, published === weights[0] ? 'what --pretrained means' : ''],
      ['', 'top-1', `${accuracyOf(published)}${top5 === undefined ? '' : `, top-5 ${top5} %`}`],
      ['', 'classes', String(published.numClasses ?? numClasses ?? '')],
      ['', 'size', sizeOf(published)],
      ['', 'from', sourceOf(published)],
      ['', 'licence', published.licence],
      ['', 'images', geometryOf(published.preprocessing ?? record.preprocessing)],
      ...(published.testPreprocessing === undefined
        ? []
        : [['', 'test size', `${geometryOf(published.testPreprocessing)} (--use-test-size${better})`]]),
    ]);
  }
  if (weights.some(({ location }) => !('bundled' in location))) {
    printLine();
    printLine(
      'Weights are others’ work, and none but the bundled ones are part of this package. What was trained on',
    );
    printLine('ImageNet may fall under its terms too, which are for research.');
  }
}

function accuracyOf({ top1, top1Size, numClasses }: PublishedWeights): string {
  if (top1 === null) return numClasses === undefined ? '-' : '- (other classes)';
  return top1Size === undefined ? `${top1} %` : `${top1} % at ${top1Size}`;
}

function sizeOf(published: PublishedWeights): string {
  const bytes = bytesOf(published);
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

function sourceOf({ location }: Omit<PublishedWeights, 'model'>): string {
  if ('bundled' in location) return 'this package';
  return 'hub' in location ? `hf-hub:${location.hub}` : location.url;
}

function geometryOf(record: ModelRecord['preprocessing']): string {
  if (record === null) return 'as they are';
  const { size, crop, interpolation } = record;
  const resized =
    size === null ? '' : `${typeof size === 'number' ? size : size.join(' x ')} ${interpolation}`;
  const cropped = crop === null ? '' : `centre ${crop.join(' x ')}`;
  return [resized, cropped].filter((part) => part !== '').join(', ');
}
