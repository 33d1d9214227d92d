/**
 * `senet-torch inspect`: what is in a checkpoint. Nothing in the file is executed, and its text is made printable.
 * Needs no native build.
 */
import type { Command } from 'commander';

import type { CheckpointReport, InspectOptions } from '../checkpoint/inspect';
import { printable } from '../printable';
import { lazy } from './lazy';
import { addPlaceOptions } from './training-options';
import { count, printJson, printLine, printTable } from './output';

export function addInspect(program: Command, interrupted: () => AbortSignal): void {
  const command = program
    .command('inspect')
    .description('Print the keys, shapes, dtypes and metadata of a checkpoint. Safe on files from anywhere.')
    .argument(
      '<file>',
      'a file of torch.save (zip or legacy), torch.jit.save or safetensors; hf-hub:REPOSITORY or local-dir:FOLDER',
    );
  addPlaceOptions(command)
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ senet-torch inspect model.pt')
    .action(async (name: string, { json, ...place }: InspectOptions & { json?: boolean }) => {
      const { inspectCheckpoint } = lazy.checkpoint;
      const source = lazy.sources.parseSource(name, 'inspect');
      const transfer = { progress: process.stderr.isTTY, signal: interrupted() };
      const file = await lazy.snapshots.fileOf(source, transfer, 'inspect');
      const isNamed = knowsNetworks();
      const report = await inspectCheckpoint(file, place);
      if (json === true) printJson(report);
      else printReport(report, isNamed);
    });
}

/** Loads what knows the networks; false where there is no native build for this machine: the rest needs none. */
function knowsNetworks(): boolean {
  try {
    return lazy.models.listModels().length > 0;
  } catch {
    return false;
  }
}

function networkRows({ network }: CheckpointReport): string[][] {
  if (network === null) return [['network', 'none that the library has, by its keys']];
  const { model, candidates, family, framework, numClasses, inChannels, spatialDims } = network;
  const name = model ?? (candidates.length === 0 ? 'none that the library has' : candidates.join(' or '));
  return [
    ['network', name],
    ['family', framework === family ? family : `${family}, with the keys of ${framework}`],
    ['classes', numClasses === null ? 'no classifier' : String(numClasses)],
    ['channels', `${inChannels} of the images`],
    ...(spatialDims === null || spatialDims === 2
      ? []
      : [['convolutions', `${spatialDims}-D, which the library has not`]]),
  ];
}

function printReport(report: CheckpointReport, isNamed: boolean): void {
  const { tensors, values, metadata, stateDict } = report;
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const elements = tensors.reduce(
    (sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1),
    0,
  );
  printTable([
    ['container', report.container],
    ['file', count(report.fileBytes, 'byte')],
    [
      'tensors',
      `${tensors.length.toLocaleString('en')} (${count(elements, 'element')}, ${count(bytes, 'byte')})`,
    ],
    ['state dict', stateDict === null ? 'none' : placeOf(stateDict.key)],
    ...noted(report),
    ...(isNamed ? networkRows(report) : []),
  ]);
  printSection(
    'metadata',
    Object.entries(metadata).map(([name, text]) => [printable(name), printable(text)]),
  );
  printSection(
    'tensors',
    tensors.map(({ key, dtype, shape }) => [printable(key), dtype, `[${shape.join(', ')}]`]),
  );
  printSection(
    'values',
    values.map(({ key, type, value }) => [
      printable(key),
      type,
      value === undefined ? '' : printable(String(value)),
    ]),
  );
}

function placeOf(key: string): string {
  return key === '' ? 'the whole file' : `under ${printable(key)}`;
}

/** Lines about the state dict that most files do not need. */
function noted({ stateDict, sharedPrefix }: CheckpointReport): string[][] {
  if (stateDict === null) return [];
  const { prefix, dropped, others } = stateDict;
  const some = (names: readonly string[]): string => {
    const shown = names.slice(0, 5).map((name) => printable(name));
    return `${shown.join(', ')}${names.length > shown.length ? ` and ${names.length - shown.length} more` : ''}`;
  };
  return [
    ...(prefix === '' ? [] : [['prefix', `${printable(prefix)} (taken away)`]]),
    ...(sharedPrefix === '' ? [] : [['', `all names begin with ${printable(sharedPrefix)}`]]),
    ...(dropped.length === 0 ? [] : [['left out', some(dropped)]]),
    ...(others.length === 0 ? [] : [['others', others.map(placeOf).join(', ')]]),
  ];
}

function printSection(title: string, rows: readonly string[][]): void {
  if (rows.length === 0) return;
  printLine();
  printLine(title);
  printTable(rows.map((row) => ['', ...row]));
}
