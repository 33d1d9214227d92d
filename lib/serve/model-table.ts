/**
 * ModelTable: the classifiers of a server by name and version, and what becomes of them while requests run: loaded,
 * replaced, unloaded. Whoever asks gets the classifier that answers now; one that was replaced is disposed, which waits for
 * its calls. Knows no request.
 */
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { zeros } from '../tensor/factories';
import type { ImageClassifier } from '../vision/image-classifier';

/** Makes the classifier of a listed model, each time that it is loaded. */
export type ModelLoader = (signal: AbortSignal) => Promise<ImageClassifier>;

export type ModelState = 'READY' | 'LOADING' | 'UNAVAILABLE';

/** What is known of one version of a model. */
export interface ModelStatus {
  readonly name: string;
  readonly version: string;
  readonly state: ModelState;
  /** Why it is not there; empty if nothing failed. */
  readonly reason: string;
}

/** A model that answers. */
export interface ServedModel {
  readonly name: string;
  readonly version: string;
  readonly classifier: ImageClassifier;
}

interface Entry {
  readonly name: string;
  readonly version: string;
  loader: ModelLoader | undefined;
  classifier: ImageClassifier | undefined;
  reason: string;
  /** The change that is under way, of which each waits for the one before. */
  changing: Promise<unknown>;
  changes: number;
  /** Whether nobody can find it any more. */
  isGone: boolean;
}

const KEY = /^([^@/]{1,200})(?:@([^@/]{1,50}))?$/;
/** Where a request or a key says none and the model has no other. */
const FIRST_VERSION = '1';
/** Pixels of the image that a new network is tried with. */
const TRIAL = [3, 320, 320] as const;

/** 'resnet@2' is version 2 of resnet, 'resnet' is version 1. @throws ERR_SENET_ARG_RANGE */
export function parseModelKey(key: string): { name: string; version: string } {
  const [, name, version = FIRST_VERSION] = KEY.exec(key) ?? [];
  if (name !== undefined && printable(key, 300) === key) return { name, version };
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `expected a model's name, or NAME@VERSION, without '/', got ${describe(key)}`,
  );
}

export class ModelTable {
  /** Name -> version -> entry, in the order in which they were listed. */
  readonly #entries = new Map<string, Map<string, Entry>>();
  /** Classifiers that were replaced and still answer what they were asked. */
  readonly #leaving = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  /** Takes a classifier under a key, once it has classified a first image; whatever had it goes. */
  async put(key: string, made: ImageClassifier): Promise<void> {
    const entry = this.#entryOf(key);
    await this.#change(entry, () => this.#try(entry, made)).catch(async (error: unknown) => {
      if (entry.classifier !== made) await made.dispose();
      throw error;
    });
  }

  /** What may be loaded under a key from now on. */
  list(key: string, loader: ModelLoader): void {
    this.#entryOf(key).loader = loader;
  }

  /** As `put`, of a classifier that was used before and so needs no trial. */
  putWarm(key: string, classifier: ImageClassifier): void {
    this.#install(this.#entryOf(key), classifier);
  }

  /**
   * The classifier that answers now. Ask again after every await: this one may have been replaced.
   *
   * @param name - undefined is the only model
   * @param version - undefined is the highest that is ready
   * @throws ERR_SENET_UNKNOWN_SERVED_MODEL, ERR_SENET_NOT_READY, ERR_SENET_ARG_MISSING (no name, and several models)
   */
  find(name: string | undefined, version?: string): ServedModel {
    const entry = this.#lookUp(this.#nameOf(name), version);
    const { classifier } = entry;
    if (classifier !== undefined) return { name: entry.name, version: entry.version, classifier };
    throw makeError(
      'ERR_SENET_NOT_READY',
      `the model ${printable(entry.name)} is ${stateOf(entry) === 'LOADING' ? 'being loaded' : 'not loaded'}${entry.reason === '' ? '' : `: ${entry.reason}`}`,
    );
  }

  /** Names of all models, with those that may be loaded. */
  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** @throws ERR_SENET_UNKNOWN_SERVED_MODEL */
  versionsOf(name: string): ModelStatus[] {
    return [...this.#versions(name).values()].map(statusOf);
  }

  get all(): ModelStatus[] {
    return this.names.flatMap((name) => this.versionsOf(name));
  }

  get ready(): ServedModel[] {
    return [...this.#entries.values()].flatMap((versions) =>
      [...versions.values()].flatMap(({ name, version, classifier }) =>
        classifier === undefined ? [] : [{ name, version, classifier }],
      ),
    );
  }

  /**
   * Makes a listed model's classifier, tries it, and lets it answer from then on. What answered before does so till then.
   *
   * @param version - undefined is every version that has a loader
   * @throws (rejects) ERR_SENET_UNKNOWN_SERVED_MODEL, ERR_SENET_FORBIDDEN (it has no loader), what the loader throws
   */
  async load(name: string, version?: string): Promise<void> {
    const entries =
      version === undefined ? [...this.#versions(name).values()] : [this.#lookUp(name, version)];
    const loadable = entries.filter(({ loader }) => loader !== undefined);
    if (loadable.length === 0)
      throw makeError('ERR_SENET_FORBIDDEN', `the model ${printable(name)} is none that may be loaded`);
    for (const entry of loadable) {
      await this.#change(entry, async () => {
        const made = await (entry.loader as ModelLoader)(this.#closing.signal);
        checkMade(made, entry);
        await this.#try(entry, made).catch(async (error: unknown) => {
          await made.dispose();
          throw error;
        });
      });
    }
  }

  /**
   * Takes a model's versions, or one, out of service; settles when they have answered what they were asked.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_SERVED_MODEL, ERR_SENET_FORBIDDEN (it could not be loaded again)
   */
  async unload(name: string, version?: string): Promise<void> {
    const entries =
      version === undefined ? [...this.#versions(name).values()] : [this.#lookUp(name, version)];
    const loadable = entries.filter(({ loader }) => loader !== undefined);
    if (loadable.length === 0)
      throw makeError('ERR_SENET_FORBIDDEN', `the model ${printable(name)} is none that may be unloaded`);
    for (const entry of loadable) {
      await this.#change(entry, async () => {
        const { classifier } = entry;
        entry.classifier = undefined;
        await this.#retire(classifier);
      });
    }
  }

  /** Forgets a version: nothing can load it any more, and what comes under its name from now on is another. */
  async remove(key: string): Promise<void> {
    const { name, version } = parseModelKey(key);
    const entry = this.#lookUp(name, version);
    entry.isGone = true;
    const versions = this.#versions(name);
    versions.delete(version);
    if (versions.size === 0) this.#entries.delete(name);
    // Changes that are under way are of the one that goes, and end with it.
    const gone = entry.changing.then(() => entry.classifier?.dispose());
    this.#leaving.add(gone);
    await gone.finally(() => this.#leaving.delete(gone));
  }

  /** Nothing is loaded any more; settles when every classifier has answered and is disposed. */
  async close(): Promise<void> {
    this.#closing.abort();
    const entries = [...this.#entries.values()].flatMap((versions) => [...versions.values()]);
    await Promise.all(entries.map(({ changing }) => changing));
    for (const entry of entries) {
      const { classifier } = entry;
      entry.classifier = undefined;
      if (classifier !== undefined) this.#leaving.add(classifier.dispose());
    }
    await Promise.all(this.#leaving);
  }

  #nameOf(name: string | undefined): string {
    if (name !== undefined) return name;
    const [only, ...others] = this.names;
    if (only !== undefined && others.length === 0) return only;
    throw makeError(
      'ERR_SENET_ARG_MISSING',
      `model: expected the name of one of the models ${this.names.map((one) => printable(one)).join(', ')}`,
    );
  }

  #versions(name: string): Map<string, Entry> {
    const versions = this.#entries.get(name);
    if (versions !== undefined) return versions;
    throw makeError('ERR_SENET_UNKNOWN_SERVED_MODEL', `there is no model ${describe(name)}`);
  }

  #lookUp(name: string, version: string | undefined): Entry {
    const versions = this.#versions(name);
    if (version === undefined) return latest([...versions.values()]);
    const entry = versions.get(version);
    if (entry !== undefined) return entry;
    throw unknownVersion({ name, version });
  }

  #entryOf(key: string): Entry {
    const { name, version } = parseModelKey(key);
    const versions = this.#entries.get(name) ?? new Map<string, Entry>();
    this.#entries.set(name, versions);
    const known = versions.get(version);
    if (known !== undefined) return known;
    const entry: Entry = {
      ...{ name, version, loader: undefined, classifier: undefined, reason: '' },
      ...{ changing: Promise.resolve(), changes: 0, isGone: false },
    };
    versions.set(version, entry);
    return entry;
  }

  /** Runs a first image through a classifier, and lets it answer: what does not work must not replace what does. */
  async #try(entry: Entry, classifier: ImageClassifier): Promise<void> {
    const image = zeros(TRIAL, { dtype: 'uint8' });
    try {
      await classifier.classify(image, { topK: 1 });
    } finally {
      image.dispose();
    }
    this.#install(entry, classifier);
  }

  #install(entry: Entry, classifier: ImageClassifier): void {
    const before = entry.classifier;
    entry.classifier = classifier;
    entry.reason = '';
    if (before !== classifier) void this.#retire(before);
  }

  /** One change after the other; a change that fails leaves what answers as it was. */
  async #change(entry: Entry, change: () => Promise<void>): Promise<void> {
    entry.changes++;
    const changed = entry.changing.then(async () => {
      if (this.#closing.signal.aborted) throw closed();
      if (entry.isGone) throw unknownVersion(entry);
      await change();
    });
    entry.changing = changed.then(
      () => {
        entry.changes--;
      },
      (error: unknown) => {
        entry.changes--;
        // A message may name files, and this is told to whoever asks.
        entry.reason = isSenetError(error) ? error.code : 'it could not be loaded';
      },
    );
    await changed;
  }

  async #retire(classifier: ImageClassifier | undefined): Promise<void> {
    if (classifier === undefined) return;
    const gone = classifier.dispose();
    this.#leaving.add(gone);
    await gone.finally(() => this.#leaving.delete(gone));
  }
}

function closed(): Error {
  return makeError('ERR_SENET_CLOSING', 'the server is closing');
}

function unknownVersion({ name, version }: { name: string; version: string }): Error {
  return makeError(
    'ERR_SENET_UNKNOWN_SERVED_MODEL',
    `the model ${printable(name)} has no version ${describe(version)}`,
  );
}

/** The highest version that is ready, else the highest. */
function latest(entries: readonly Entry[]): Entry {
  const ready = entries.filter(({ classifier }) => classifier !== undefined);
  return (ready.length > 0 ? ready : entries).reduce((best, entry) =>
    compareVersions(entry.version, best.version) > 0 ? entry : best,
  );
}

function compareVersions(left: string, right: string): number {
  return left.localeCompare(right, 'en', { numeric: true });
}

function stateOf({ classifier, changes }: Entry): ModelState {
  if (classifier !== undefined) return 'READY';
  return changes > 0 ? 'LOADING' : 'UNAVAILABLE';
}

function statusOf(entry: Entry): ModelStatus {
  return { name: entry.name, version: entry.version, state: stateOf(entry), reason: entry.reason };
}

/** @throws ERR_SENET_ARG_TYPE */
function checkMade(made: unknown, { name }: Entry): asserts made is ImageClassifier {
  if (typeof (made as Partial<ImageClassifier> | undefined)?.classify === 'function') return;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `the loader of ${printable(name)}: expected an ImageClassifier, got ${describe(made)}`,
  );
}
