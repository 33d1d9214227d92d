/**
 * What a person sees of a training run: on a terminal a bar for the epoch, and a line for each that is finished;
 * elsewhere lines only, one for each epoch and one now and then within long ones. All of it on stderr.
 */
import { performance } from 'node:perf_hooks';
import { SingleBar } from 'cli-progress';

import type { TrainingProgress } from '../train/trainer';
import { duration, significant } from '../train/report-page';
import { percent, printNote } from './output';

/** Without a terminal: seconds between two lines within an epoch. */
const QUIET_SECONDS = 60;

export class ProgressDisplay {
  #bar: SingleBar | undefined;
  #shown = '';
  #lastLine = performance.now();

  update(progress: TrainingProgress): void {
    if (progress.finished !== null) {
      this.#stopBar();
      this.#printLine(finishedLine(progress));
    } else if (process.stderr.isTTY) this.#draw(progress);
    else if (performance.now() - this.#lastLine > QUIET_SECONDS * 1000)
      this.#printLine(`${phaseName(progress)}  ${progress.batch}/${progress.batches}  ${facts(progress)}`);
  }

  /** Leaves the terminal as it should be. */
  stop(): void {
    this.#stopBar();
  }

  #draw(progress: TrainingProgress): void {
    const name = phaseName(progress);
    if (name !== this.#shown) {
      this.#stopBar();
      this.#bar = new SingleBar({
        format: '{name} {bar} {value}/{total}  {facts}',
        stream: process.stderr,
        barsize: 24,
        hideCursor: true,
        clearOnComplete: true,
        // The library's own timer would count as a pending event.
        noTTYOutput: false,
      });
      this.#bar.start(progress.batches, 0, { name, facts: '' });
      this.#shown = name;
    }
    this.#bar?.update(progress.batch, { name, facts: facts(progress) });
  }

  #stopBar(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#shown = '';
  }

  #printLine(line: string): void {
    printNote(line);
    this.#lastLine = performance.now();
  }
}

function phaseName({ phase, epoch, epochs }: TrainingProgress): string {
  return `${phase === 'training' ? 'epoch' : 'check'} ${String(epoch).padStart(String(epochs).length)}/${epochs}`;
}

function facts({ loss, accuracy, imagesPerSecond, secondsLeft }: TrainingProgress): string {
  return [
    `loss ${significant(loss)}`,
    percent(accuracy),
    `${Math.round(imagesPerSecond).toLocaleString('en')} images/s`,
    ...(secondsLeft === null ? [] : [`${duration(secondsLeft)} left`]),
  ].join('  ');
}

function finishedLine(progress: TrainingProgress): string {
  const { epoch, epochs, finished, secondsLeft } = progress;
  if (finished === null) return '';
  const { loss, accuracy, validation, best, imagesPerSecond } = finished;
  return [
    `epoch ${String(epoch).padStart(String(epochs).length)}/${epochs}`,
    `loss ${loss.toFixed(4)}  accuracy ${percent(accuracy)}`,
    ...(validation === null
      ? []
      : [`validation: loss ${validation.loss.toFixed(4)}  accuracy ${percent(validation.accuracy)}`]),
    `${Math.round(imagesPerSecond).toLocaleString('en')} images/s`,
    ...(epoch === epochs || secondsLeft === null ? [] : [`${duration(secondsLeft)} left`]),
    ...(best ? ['best so far'] : []),
  ].join('  ');
}
