/**
 * The log of a training run: a file of JSON lines, each with the event, the time and the number of optimiser steps done.
 * A resumed run takes back what came after its checkpoint, since it does those steps again. Knows no tensor.
 */
import { open, readFile, type FileHandle } from 'node:fs/promises';

import { writeAtomically } from '../checkpoint/atomic-file';
import { fileError } from '../errors';
import { printable } from '../printable';

/** What a line is about. */
export type LogEvent =
  'start' | 'resume' | 'steps' | 'epoch' | 'checkpoint' | 'interrupted' | 'failed' | 'end';

/** How far the run had come that a checkpoint goes on with: what the log has beyond it is done again. */
export interface ResumePoint {
  readonly step: number;
  /** Of the last line of 'steps', and of 'epoch'. */
  readonly recordedStep: number;
  readonly recordedEpoch: number;
}

export class TrainingLog {
  readonly #label: string;
  readonly #file: FileHandle;

  private constructor(label: string, file: FileHandle) {
    this.#label = label;
    this.#file = file;
  }

  /**
   * A new log, in place of an existing file; or with `resumeAt` the existing one without what comes later than that (and
   * without a last line that was cut off).
   *
   * @throws (rejects) ERR_SENET_FILE_NOT_FOUND (no such folder), ERR_SENET_FILE
   */
  static async open(path: string, resumeAt?: ResumePoint): Promise<TrainingLog> {
    const label = printable(path, 1000);
    return coded(label, async () => {
      if (resumeAt === undefined) return new TrainingLog(label, await open(path, 'w'));
      const kept = linesUpTo(await readFile(path, 'utf8').catch(missingIsEmpty), resumeAt);
      // An interruption here must not cost the lines that are kept.
      await writeAtomically(path, (sink) => sink.write(Buffer.from(kept)));
      return new TrainingLog(label, await open(path, 'a'));
    });
  }

  /** Adds a line. @throws (rejects) ERR_SENET_FILE */
  async write(event: LogEvent, step: number, facts: object = {}): Promise<void> {
    const line = JSON.stringify({ event, step, time: new Date().toISOString(), ...facts });
    await coded(this.#label, async () => {
      await this.#file.appendFile(`${line}\n`);
    });
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function linesUpTo(text: string, point: ResumePoint): string {
  const lines = text.split('\n').slice(0, -1); // what follows the last line end was cut off
  const kept = lines.filter((line) => {
    let record: { event?: LogEvent; step?: number; epoch?: number };
    try {
      record = JSON.parse(line) as typeof record;
    } catch {
      return false;
    }
    const { event, step = Infinity, epoch = Infinity } = record;
    if (event === 'steps') return step <= point.recordedStep;
    if (event === 'epoch') return epoch <= point.recordedEpoch;
    return step <= point.step;
  });
  return kept.map((line) => `${line}\n`).join('');
}

function missingIsEmpty(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return '';
  throw error;
}

async function coded<T>(label: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw fileError(`log ${label} could not be written`, cause);
  }
}
