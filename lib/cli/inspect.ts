/**
 * `senet-torch inspect`: what is in a checkpoint. Nothing in the file is executed, and its text is made printable.
 * Needs no native build.
 */
import type { Command } from 'commander';

import type { CheckpointReport } from '../checkpoint/inspect';
import { printable } from '../checkpoint/problems';
import { lazy } from './lazy';
import { count, printJson, printLine, printTable } from './output';

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .description('Print the keys, shapes, dtypes and metadata of a checkpoint. Safe on files from anywhere.')
    .argument('<file>', 'a file of torch.save (zip or legacy) or safetensors')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ senet-torch inspect model.pt')
    .action(async (file: string, { json }: { json?: boolean }) => {
      const { inspectCheckpoint } = lazy.checkpoint;
      const report = await inspectCheckpoint(file);
      if (json === true) printJson(report);
      else printReport(report);
    });
}

function printReport(report: CheckpointReport): void {
  const { tensors, values, metadata, stateDictAt } = report;
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
    [
      'state dict',
      stateDictAt === null
        ? 'none'
        : stateDictAt.length === 0
          ? 'the whole file'
          : `under ${stateDictAt.map((name) => printable(name)).join('.')}`,
    ],
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

function printSection(title: string, rows: readonly string[][]): void {
  if (rows.length === 0) return;
  printLine();
  printLine(title);
  printTable(rows.map((row) => ['', ...row]));
}
