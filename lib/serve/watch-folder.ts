/**
 * A folder whose files of weights are models: NAME.safetensors or NAME@VERSION.pt is loaded when it comes, again when it
 * changes, and goes when the file goes. Looked at again and again, since notices of changes do not come from every file
 * system; a file that changes still is left alone.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { fileError, isSenetError, makeError } from '../errors';
import { untilAborted } from '../tensor/abort';
import type { InferenceHandler } from './handler';
import { parseModelKey, type ModelLoader } from './model-table';

export interface WatchOptions {
  /** Makes the classifier of a file. */
  readonly loaderOf: (file: string) => ModelLoader;
  /** Milliseconds between two looks. */
  readonly interval: number;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Called for each model that came, changed or went. */
  readonly onChange: (what: 'loaded' | 'removed', key: string, file: string) => void;
  /** Called for each that could not. What is looked at goes on. */
  readonly onError: (error: unknown, file: string) => void;
}

interface Seen {
  readonly file: string;
  /** Changes with the file. */
  readonly stamp: string;
}

const WEIGHTS = /^([^.].*)\.(safetensors|pth?|pkl)$/;

/**
 * Loads what is there, and settles; then goes on until the signal aborts.
 *
 * @returns what settles when the last look has ended
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (the folder cannot be read)
 */
export async function watchFolder(
  folder: string,
  handler: Pick<InferenceHandler, 'list' | 'load' | 'remove'>,
  options: WatchOptions,
): Promise<{ readonly ended: Promise<void> }> {
  const watched = new WatchedFolder(folder, handler, options);
  await watched.look(true);
  return { ended: watched.goOn() };
}

class WatchedFolder {
  /** What is served of it, by key, as it was when it was loaded. */
  readonly #served = new Map<string, Seen>();
  /** As of the last look. */
  #before = new Map<string, Seen>();

  constructor(
    private readonly folder: string,
    private readonly handler: Pick<InferenceHandler, 'list' | 'load' | 'remove'>,
    private readonly options: WatchOptions,
  ) {}

  async goOn(): Promise<void> {
    const { interval, signal, onError } = this.options;
    while (!signal.aborted) {
      // A signal with a listener for each pause would be warned of.
      await untilAborted(delay(interval, undefined, { ref: false }), signal).catch(() => undefined);
      if (signal.aborted) return;
      await this.look(false).catch((error: unknown) => onError(error, this.folder));
    }
  }

  /** @param first - nobody has looked before: what is there is taken as it is */
  async look(first: boolean): Promise<void> {
    const now = await this.#read();
    for (const [key, { file }] of this.#served) if (!now.has(key)) await this.#remove(key, file);
    for (const [key, seen] of now) {
      const settled = first || this.#before.get(key)?.stamp === seen.stamp;
      if (this.options.signal.aborted) return;
      if (settled && this.#served.get(key)?.stamp !== seen.stamp) await this.#load(key, seen);
    }
    this.#before = now;
  }

  async #read(): Promise<Map<string, Seen>> {
    const found = new Map<string, Seen>();
    let names: string[];
    try {
      names = (await readdir(this.folder)).sort();
    } catch (cause) {
      throw fileError(this.folder, cause);
    }
    for (const name of names) {
      const key = keyOf(WEIGHTS.exec(name)?.[1]);
      const file = path.join(this.folder, name);
      // It may have gone meanwhile.
      const stats = key === undefined ? undefined : await stat(file).catch(() => undefined);
      if (key === undefined || stats?.isFile() !== true) continue;
      const seen = { file, stamp: `${file} ${stats.ino} ${stats.size} ${stats.mtimeMs}` };
      if (!found.has(key)) found.set(key, seen);
      else if (this.#before.get(key)?.stamp !== found.get(key)?.stamp)
        this.options.onError(makeError('ERR_SENET_FILE', `${file}: another file is the model ${key}`), file);
    }
    return found;
  }

  async #load(key: string, seen: Seen): Promise<void> {
    const { loaderOf, onChange, onError, signal } = this.options;
    // Also where it fails: what is wrong with a file is said once.
    this.#served.set(key, seen);
    try {
      const { name, version } = parseModelKey(key);
      this.handler.list(key, loaderOf(seen.file));
      await this.handler.load(name, version);
      onChange('loaded', key, seen.file);
    } catch (error) {
      if (!signal.aborted) onError(error, seen.file);
    }
  }

  async #remove(key: string, file: string): Promise<void> {
    this.#served.delete(key);
    try {
      await this.handler.remove(key);
      this.options.onChange('removed', key, file);
    } catch (error) {
      // It never was: its name is none of a model.
      if (!isSenetError(error) || error.code !== 'ERR_SENET_ARG_RANGE') this.options.onError(error, file);
    }
  }
}

/** The same of 'net' and 'net@1', which are one model; what is no name is said when it is loaded. */
function keyOf(called: string | undefined): string | undefined {
  if (called === undefined) return undefined;
  try {
    const { name, version } = parseModelKey(called);
    return `${name}@${version}`;
  } catch {
    return called;
  }
}
