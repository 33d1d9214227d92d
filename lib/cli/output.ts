/**
 * What the commands share: printing for people and for programs, errors in a line, exit codes, abort on Ctrl-C.
 * Loads nothing native.
 */
import { printable } from '../checkpoint/problems';
import { isError } from '../brands';
import { isSenetError } from '../errors';

export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
export const EXIT_INTERRUPTED = 130;

export function printLine(text = ''): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  printLine(JSON.stringify(value, null, 2));
}

/** Columns as wide as their widest cell, two spaces apart; the columns of `right` are aligned at their ends. */
export function printTable(rows: readonly (readonly string[])[], right: readonly number[] = []): void {
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  for (const row of rows) {
    const cells = row.map((cell, column) =>
      right.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
    );
    printLine(cells.join('  ').trimEnd());
  }
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

/** A count with its noun: "1 image", "20 images". */
export function count(number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

/** The message with its code; the stack too if SENET_DEBUG is set. */
export function printError(error: unknown): void {
  if (process.env.SENET_DEBUG && isError(error)) {
    process.stderr.write(`${error.stack ?? error.message}\n`);
    return;
  }
  const message = isError(error) ? error.message : String(error);
  const lines = message.split('\n').map((line) => printable(line, 2000));
  const code = isSenetError(error) ? ` [${error.code}]` : '';
  process.stderr.write(`error: ${lines.join('\n')}${code}\n`);
}

/** How a program reads an error. */
export function errorRecord(error: unknown): { code: string | null; message: string } {
  return {
    code: isSenetError(error) ? error.code : null,
    message: isError(error) ? error.message : String(error),
  };
}

/** 2 for what the user typed, 130 for Ctrl-C, 1 for the rest. */
export function exitCodeOf(error: unknown): number {
  if (!isSenetError(error)) return EXIT_FAILURE;
  if (error.code === 'ERR_SENET_ABORTED') return EXIT_INTERRUPTED;
  return /^ERR_SENET_(ARG_|UNKNOWN_MODEL|UNKNOWN_OPTION)/.test(error.code) ? EXIT_USAGE : EXIT_FAILURE;
}

/** Aborts on the first Ctrl-C or SIGTERM, so that work is saved; the second ends the process. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  for (const [signal, reason] of [
    ['SIGINT', 'Ctrl-C'],
    ['SIGTERM', 'SIGTERM'],
  ] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED);
      controller.abort(new Error(reason));
    });
  }
  return controller.signal;
}
