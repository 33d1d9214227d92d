/** Folders and environment variables that a test changes and that are put back after it. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** A new folder, removed by `cleanUp`. */
export class Temporary {
  readonly folder = mkdtempSync(path.join(os.tmpdir(), 'senet-test-'));
  readonly #saved = new Map<string, string | undefined>();

  path(...parts: string[]): string {
    return path.join(this.folder, ...parts);
  }

  /** Sets or (undefined) unsets environment variables until `cleanUp`. */
  environment(values: Readonly<Record<string, string | undefined>>): void {
    for (const [name, value] of Object.entries(values)) {
      if (!this.#saved.has(name)) this.#saved.set(name, process.env[name]);
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
  }

  cleanUp(): void {
    for (const [name, value] of this.#saved) {
      if (value === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = value;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
