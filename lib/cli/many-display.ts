/**
 * What a person sees of work on many images: on a terminal a bar, elsewhere a line now and then. All of it on stderr.
 */
import { performance } from 'node:perf_hooks';
import { SingleBar } from 'cli-progress';

import type { ManyProgress } from '../bulk/classify-to-file';
import { duration } from '../train/report-page';
import { count, printNote } from './output';

/** Without a terminal: seconds between two lines. */
const QUIET_SECONDS = 30;

export class ManyDisplay {
  #bar: SingleBar | undefined;
  #lastLine = performance.now();

  update(progress: ManyProgress): void {
    if (process.stderr.isTTY) this.#draw(progress);
    else if (performance.now() - this.#lastLine > QUIET_SECONDS * 1000) {
      this.#lastLine = performance.now();
      const { done, total } = progress;
      printNote(
        `${count(done, 'image')}${total === null ? '' : ` of ${total.toLocaleString('en')}`}  ${facts(progress)}`,
      );
    }
  }

  /** Leaves the terminal as it should be. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #draw(progress: ManyProgress): void {
    const { done, total } = progress;
    const shown = { total: total === null ? '?' : total.toLocaleString('en'), facts: facts(progress) };
    this.#bar ??= this.#start(shown);
    this.#bar.setTotal(Math.max(1, total ?? done));
    this.#bar.update(done, { of: shown.total, facts: shown.facts });
  }

  #start(shown: { total: string; facts: string }): SingleBar {
    const bar = new SingleBar({
      format: '{bar} {value} of {of}  {facts}',
      stream: process.stderr,
      barsize: 24,
      hideCursor: true,
      clearOnComplete: true,
      noTTYOutput: false,
    });
    bar.start(1, 0, { of: shown.total, facts: shown.facts });
    return bar;
  }
}

function facts({ failed, imagesPerSecond, secondsLeft }: ManyProgress): string {
  return [
    `${Math.round(imagesPerSecond).toLocaleString('en')} images/s`,
    ...(secondsLeft === null ? [] : [`${duration(secondsLeft)} left`]),
    ...(failed === 0 ? [] : [`${failed.toLocaleString('en')} with an error`]),
  ].join('  ');
}
