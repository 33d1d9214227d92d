/**
 * `train` and `finetune` at a terminal: what was typed goes to the library's recipe, and what that says of its run is
 * printed. Loads the native build with it.
 */
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { isSenetError } from '../errors';
import { configure } from '../tensor/runtime';
import { RUN_FILES, type RunFile } from '../train/recipe/folder';
import { trainFromSettings, type TrainedRun } from '../train/recipe/run';
import type { StartedRun } from '../train/recipe/settings';
import { duration } from '../train/report-page';
import {
  count,
  EXIT_INTERRUPTED,
  percent,
  printJson,
  printLine,
  printLines,
  printNote,
  printTable,
  tableLines,
} from './output';
import type { TrainingArguments } from './training-options';
import { ProgressDisplay } from './training-progress';

export async function runTraining(
  { threads, json = false, ...options }: TrainingArguments,
  signal: AbortSignal,
): Promise<void> {
  const processes = options.distributed === true ? Number(process.env.LOCAL_WORLD_SIZE || 1) : 1;
  if (threads !== undefined) configure({ threadsPerWorker: threads });
  // Processes on one machine share it.
  else if (processes > 1)
    configure({ threadsPerWorker: Math.max(1, Math.floor(availableParallelism() / processes)) });
  const display = new ProgressDisplay();
  let started: StartedRun | undefined;
  try {
    const run = await trainFromSettings({
      ...options,
      signal,
      progress: process.stderr.isTTY,
      onStart: (run) => {
        started = run;
        noteThreads(run);
        if (!json) describeRun(run);
      },
      onProgress: (progress) => display.update(progress),
    });
    display.stop();
    if (run.rank !== 0) return;
    if (json) printRecord(run);
    else printResult(run);
  } catch (error) {
    display.stop();
    const interrupted = isSenetError(error) && error.code === 'ERR_SENET_ABORTED';
    if (!interrupted || (started === undefined && options.distributed !== true)) throw error;
    process.exitCode = EXIT_INTERRUPTED;
    if (started === undefined) return; // another process has saved, and says so
    const place = shortest(path.join(started.output, RUN_FILES.checkpoint));
    printNote(
      `interrupted: the run is saved in ${place}. To go on:`,
      `  senet-torch ${started.settings.command} --resume ${quote(place)}`,
    );
  }
}

function noteThreads({ settings, threads }: StartedRun): void {
  if (threads === settings.threads) return;
  printNote(
    `the run was started with ${count(settings.threads, 'thread')} and goes on with ${threads}: sums round differently (--threads ${settings.threads} would not)`,
  );
}

function describeRun(run: StartedRun): void {
  const { settings, parameters, trainingImages, validationImages, taken, resumedAt } = run;
  const held = validationImages === null ? 'none' : validationImages.toLocaleString('en');
  const first = `${settings.model} (${parameters.toLocaleString('en')} parameters) on ${path.basename(settings.data)}: ${count(trainingImages, 'training image')}, ${held} for validation, ${settings.classes.length} classes`;
  printLines([first, ...tableLines(taken)]);
  if (resumedAt !== null)
    printLine(`resumed at step ${resumedAt.step}, in epoch ${resumedAt.epoch + 1} of ${settings.epochs}`);
}

function printRecord(run: TrainedRun): void {
  const { output, files, best, history, steps, seconds, stoppedEarly, skipped, settings } = run;
  printJson({ output, files, best, epochs: history.epochs, steps, seconds, stoppedEarly, skipped, settings });
}

function printResult(run: TrainedRun): void {
  const { output, files, best, history, seconds, skipped, stoppedEarly, settings } = run;
  const name = (file: RunFile): string => path.join(shortest(output), files[file]);
  printLine();
  if (best?.validation != null)
    printLine(
      `best: ${percent(best.validation.accuracy)} of the validation images right (epoch ${best.epoch}), ${duration(seconds)} of training`,
    );
  if (stoppedEarly)
    printLine(
      `ended after epoch ${history.epochs.length} of ${settings.epochs}: ${count(settings.patience ?? 0, 'epoch')} without a better one`,
    );
  if (skipped.length > 0) {
    printLine(`${count(skipped.length, 'image')} left out:`);
    for (const message of skipped.slice(0, 20)) printLine(`  ${message}`);
  }
  printTable([
    ['weights', `${name('best')}, ${name('last')}`],
    ['report', name('report')],
    ['log', name('log')],
  ]);
  printLine();
  printLine(`$ senet-torch classify --weights ${quote(name('best'))} IMAGE`);
}

/** Relative where that is below the present folder. */
function shortest(file: string): string {
  const relative = path.relative(process.cwd(), file) || '.';
  return relative.startsWith('..') ? file : relative;
}

/** As one word of a shell's line. */
function quote(text: string): string {
  return /^[\w./@:+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
