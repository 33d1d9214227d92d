/**
 * The plain module behind a classifier, which keeps a compiled copy: what `explain` looks into. A Module that was given is
 * itself; one that the classifier made of weights is made of them once more when it is first wanted.
 */
import { stat } from 'node:fs/promises';

import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { printable } from '../printable';
import { detached } from '../tensor/scope';

/** Gives the module of a classifier; disposes it, if it was made for that. */
export class PlainModule {
  #made: Promise<Module<unknown>> | undefined;
  readonly #make: () => Promise<Module<unknown>>;
  readonly #owned: boolean;

  /** @param owned - whether what `make` gives is this one's to dispose */
  constructor(make: () => Promise<Module<unknown>>, owned: boolean) {
    this.#make = make;
    this.#owned = owned;
  }

  /** The module; made once, and anew after a failure. */
  get(): Promise<Module<unknown>> {
    this.#made ??= detached(null, this.#make).catch((error: unknown) => {
      this.#made = undefined;
      throw error;
    });
    return this.#made;
  }

  /** To be called when nobody uses the module any more. */
  async dispose(): Promise<void> {
    const made = this.#made;
    this.#made = undefined;
    if (!this.#owned || made === undefined) return;
    await made.then(
      (module) => module.dispose(),
      () => undefined,
    );
  }
}

/** What tells a file from another of its name. */
export async function fileIdentity(file: string): Promise<string> {
  const { dev, ino, size, mtimeNs } = await stat(file, { bigint: true });
  return [dev, ino, size, mtimeNs].join(':');
}

/** @throws (rejects) ERR_SENET_FILE_CHANGED: explaining other weights than those that classify would be a lie */
export async function checkUnchanged(file: string, identity: string): Promise<void> {
  const now = await fileIdentity(file).catch(() => undefined);
  if (now === identity) return;
  const state = now === undefined ? 'is not there any more' : 'is another';
  throw makeError(
    'ERR_SENET_FILE_CHANGED',
    `explain: ${printable(file, 1000)} ${state} since the classifier was loaded from it; load it again`,
  );
}
