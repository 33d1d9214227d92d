/** `OUTPUT.run.json`: what the rows of an output were made with, so that no run goes on with something else. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

import { writeAtomically } from '../checkpoint/atomic-file';
import { fileError, makeError } from '../errors';
import type { Preprocessing } from '../models/preprocessing-record';
import { packageVersion } from '../package-root';
import { printable } from '../printable';
import type { Shard } from './image-list';

export interface RunSettings {
  readonly topK: number;
  readonly shard: Shard | undefined;
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
  /** In words. */
  readonly network: string | undefined;
}

export class RunRecord {
  readonly #file: string;
  readonly #label: string;
  /** As JSON has it. */
  readonly #settings: Readonly<Record<string, unknown>>;

  constructor(output: string, { topK, shard, labels, preprocessing, network }: RunSettings) {
    this.#file = `${output}.run.json`;
    this.#label = printable(output, 1000);
    const settings = {
      topK,
      shard: shard === undefined ? null : `${shard.number}/${shard.of}`,
      network: network ?? null,
      classes: labels.length,
      labels: createHash('sha256').update(JSON.stringify(labels)).digest('hex'),
      preprocessing,
    };
    this.#settings = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
  }

  /**
   * @throws (rejects) ERR_SENET_RESUME if the rows that are there were made with something else; without a record
   *   nobody knows, and that is none
   */
  async check(): Promise<void> {
    const noted = await this.#noted();
    if (noted === null) return;
    for (const [name, value] of Object.entries(this.#settings)) {
      const [before, now] = [JSON.stringify(noted[name] ?? null), JSON.stringify(value)];
      if (before === now) continue;
      throw makeError(
        'ERR_SENET_RESUME',
        `${this.#label}: its rows were made with ${name} ${printable(before, 300)}, and this run has ${printable(now, 300)}; { overwrite: true } throws them away, another output keeps them`,
      );
    }
  }

  /** @param result - of a run that has ended */
  async write(result?: object): Promise<void> {
    const record = { 'senet-torch': packageVersion(), settings: this.#settings, ...result };
    const text = `${JSON.stringify(record, null, 2)}\n`;
    await writeAtomically(this.#file, (sink) => sink.write(Buffer.from(text)), 'classifyToFile');
  }

  async #noted(): Promise<Readonly<Record<string, unknown>> | null> {
    let text: string;
    try {
      text = await readFile(this.#file, 'utf8');
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw fileError(printable(this.#file, 1000), cause);
    }
    try {
      const { settings } = JSON.parse(text) as { settings: Record<string, unknown> };
      return settings;
    } catch {
      return null;
    }
  }
}
