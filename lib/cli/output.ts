/**
 * What the commands share: printing for people and for programs, errors in a line, exit codes, abort on Ctrl-C.
 * Loads nothing native.
 */
import { performance } from 'node:perf_hooks';

import { isError } from '../brands';
import { isSenetError } from '../errors';
import { printable, printableJson } from '../printable';

export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
export const EXIT_INTERRUPTED = 130;

/** Far beyond any line that a person reads, and short of what a hostile file can make of one. */
const LONGEST_LINE = 10_000;

/** One line: names and labels from anywhere may stand in it as they are. */
export function printLine(text = ''): void {
  printLines([text]);
}

/** Several in one piece, for a reader that goes after the first. */
export function printLines(lines: readonly string[]): void {
  process.stdout.write(lines.map((line) => `${printable(line, LONGEST_LINE)}\n`).join(''));
}

/** For people, beside the result: lines as `printLine`'s. */
export function printNote(...lines: readonly string[]): void {
  for (const line of lines) process.stderr.write(`${printable(line, LONGEST_LINE)}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(value, null, 2))}\n`);
}

export function printTable(cells: readonly (readonly string[])[], right: readonly number[] = []): void {
  for (const line of tableLines(cells, right)) printLine(line);
}

/** Columns as wide as their widest cell, two spaces apart; the columns of `right` are aligned at their ends. */
export function tableLines(
  cells: readonly (readonly string[])[],
  right: readonly number[] = [],
): readonly string[] {
  const rows = cells.map((row) => row.map((cell) => printable(cell, LONGEST_LINE)));
  const widths: number[] = [];
  for (const row of rows)
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  return rows.map((row) => {
    const aligned = row.map((cell, column) =>
      right.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
    );
    return aligned.join('  ').trimEnd();
  });
}

export { errorRecord } from '../errors';
export { count, percent } from '../train/words';

/**
 * A message of the library's in the words of the command line: `dropLast` is `--drop-last`, `labels: ...` of a function
 * or class is `--labels: ...`, and `{ weights: FILE }` is `--weights FILE`, if the command has such an option.
 */
export function inOptionNames(message: string, options: readonly { name: string; flag: string }[]): string {
  const written = message.replace(
    /(?:^[A-Za-z]\w*: (?=\{ ))?\{ (\w+)(?:: ([^{}]*))? \}/g,
    (text, name: string, value?: string) => {
      const flag = options.find((option) => option.name === name)?.flag;
      return flag === undefined
        ? text
        : `${flag}${value === undefined || value === 'true' ? '' : ` ${value}`}`;
    },
  );
  return options.reduce(
    (text, { name, flag }) =>
      /[A-Z]/.test(name)
        ? text.replace(new RegExp(`(?<![\\w.'-])${name}(?![\\w'])`, 'g'), flag)
        : text.replace(new RegExp(`^(?:error: )?[A-Za-z]\\w*(?:\\.\\w+)?: ${name}(?=[: ])`), flag),
    written,
  );
}

/** The message with its code; the stack too if SENET_DEBUG is set. */
export function printError(error: unknown, options: readonly { name: string; flag: string }[] = []): void {
  if (process.env.SENET_DEBUG && isError(error)) {
    printNote(...(error.stack ?? error.message).split('\n'));
    return;
  }
  const message = inOptionNames(isError(error) ? error.message : String(error), options);
  const code = isSenetError(error) ? ` [${error.code}]` : '';
  printNote(...`error: ${message}${code}`.split('\n'));
}

/** Whether an error says that the signal aborted, and nothing else. */
export function isAborted(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && isSenetError(error) && error.code === 'ERR_SENET_ABORTED';
}

/** 2 for what the user typed, 130 for Ctrl-C, 1 for the rest. */
export function exitCodeOf(error: unknown): number {
  if (!isSenetError(error)) return EXIT_FAILURE;
  if (error.code === 'ERR_SENET_ABORTED') return EXIT_INTERRUPTED;
  return /^ERR_SENET_(ARG_|UNKNOWN_MODEL|UNKNOWN_OPTION)/.test(error.code) ? EXIT_USAGE : EXIT_FAILURE;
}

/**
 * Milliseconds within which a signal that is repeated is still the same: a terminal tells all that it has started, a service
 * manager too, and npx and the first process of `serve` tell theirs once more.
 */
const SAME_SIGNAL = 1_000;

/** Aborts on the first Ctrl-C or SIGTERM, so that work is saved; another one, later, ends the process. */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController();
  let told = Infinity;
  for (const [signal, reason] of [
    ['SIGINT', 'Ctrl-C'],
    ['SIGTERM', 'SIGTERM'],
  ] as const) {
    process.on(signal, () => {
      if (performance.now() - told > SAME_SIGNAL) process.exit(EXIT_INTERRUPTED);
      if (controller.signal.aborted) return;
      told = performance.now();
      controller.abort(new Error(reason));
    });
  }
  return controller.signal;
}
