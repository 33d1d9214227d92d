/** The bar of the commands that count one thing, while they run. Loads nothing native. */
import { SingleBar } from 'cli-progress';

/**
 * A bar on standard error; undefined where that is no terminal.
 *
 * @param format - as cli-progress has it: {bar}, {value}, {total}, {eta_formatted}, and what `values` names
 */
export function progressBar(format: string, total: number, values?: object): SingleBar | undefined {
  if (!process.stderr.isTTY) return undefined;
  const bar = new SingleBar({ format, stream: process.stderr, clearOnComplete: true });
  bar.start(total, 0, values);
  return bar;
}
