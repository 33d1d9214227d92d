/**
 * `listImages`: from what people name (folders, globs, files, archives, lists on standard input) to images in an order
 * that depends on names alone. Lists lazily: what is held does not grow with the number of images.
 */
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';

import { fileError, makeError } from '../errors';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkString, describe } from '../tensor/options';
import { boolean, optional, orElse, readOptions, signal, unchecked } from '../tensor/rules';
import { endingOf, IMAGE_ENDINGS } from '../vision/image-endings';
import { imagesOfArchive, isArchive, isTar } from './archives';
import {
  chooser,
  type Choose,
  type SelectableImages,
  type SelectedImage,
  type Selection,
} from './image-list';
import { globOf, type Glob } from './glob';
import { linesOf } from './lines';
import { walk, type Walked } from './walk';

export interface ListImagesOptions {
  /** Folders are walked to their ends; false: a folder is an error. Default true. */
  recursive?: boolean;
  /** What `-` stands for: text with the path of an image or an archive in each line. Default standard input. */
  input?: AsyncIterable<string | Uint8Array>;
  /** Ends the listing, also while it waits for input. */
  signal?: AbortSignal;
}

/** `-` is the list on standard input. */
const INPUT = '-';

const RULES = {
  recursive: orElse(true, boolean),
  input: optional(unchecked<AsyncIterable<string | Uint8Array>>()),
  signal,
};

type Source =
  | { readonly kind: 'input' }
  | { readonly kind: 'file'; readonly place: string }
  | { readonly kind: 'archive'; readonly place: string }
  | Walkable;

type Walkable =
  { readonly kind: 'folder'; readonly place: string } | { readonly kind: 'glob'; readonly glob: Glob };

/**
 * Lists images: of folders to their ends, of globs (`photos/**​/*.jpg`; what exists under that very name is no glob), of
 * tar and zip archives, and of lists, `-`. In folders and archives a file counts if its ending is that of an image and
 * its name begins with no dot; archives inside folders are opened, those inside archives are not. A folder's files come
 * before its folders, each sorted; links are followed, but in no circle. What could not be read (a folder, a damaged
 * archive) is an image that cannot be read, so that it is missed.
 *
 * @example
 * for await (const { file } of listImages(['photos', 'more.tar'])) console.log(file);
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (nothing named, `-` twice), ERR_SENET_UNKNOWN_OPTION; while listing
 *   ERR_SENET_FILE_NOT_FOUND (a path that does not exist, or no image at all), ERR_SENET_FILE, ERR_SENET_ABORTED
 */
export function listImages(paths: string | readonly string[], options?: ListImagesOptions): ImageListing {
  const where = 'listImages';
  const { recursive, input, signal } = readOptions(options, RULES, where);
  const given: readonly unknown[] = Array.isArray(paths) ? paths : [paths];
  const names = given.map((name, place) => checkString(name, `${where}: paths[${place}]`));
  if (names.length === 0) throw makeError('ERR_SENET_ARG_RANGE', `${where}: paths: expected at least one`);
  if (names.filter((name) => name === INPUT).length > 1)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: paths: expected '${INPUT}' once at most`);
  if (input !== undefined && typeof input[Symbol.asyncIterator] !== 'function')
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: input: expected a stream, got ${describe(input)}`);
  return new ImageListing(names, recursive, input, signal);
}

/**
 * Whether a name is surely that of several images: a glob, an archive, a list. Brackets alone are rather of a file that is
 * not there.
 */
export function namesMany(name: string): boolean {
  if (name === INPUT || isArchive(name)) return true;
  return /[*?{]/.test(name) && !existsSync(name) && globOf(name) !== null;
}

/** What `listImages` gives: images in an order, each read only when it is asked for. */
export class ImageListing implements SelectableImages {
  readonly #names: readonly string[];
  readonly #recursive: boolean;
  readonly #input: AsyncIterable<string | Uint8Array> | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #leftOut = new Map<string, number>();
  readonly #tar = { images: 0, read: 0, bytes: 0 };
  #counted: number | null | undefined;

  /** Made by `listImages`. */
  constructor(
    names: readonly string[],
    recursive: boolean,
    input: AsyncIterable<string | Uint8Array> | undefined,
    signal: AbortSignal | undefined,
  ) {
    this.#names = names;
    this.#recursive = recursive;
    this.#input = input;
    this.#signal = signal;
  }

  /**
   * Files that did not count, by kind: an ending such as '.txt', 'no ending', 'hidden' (folders too), 'link to nothing',
   * 'link in a circle'. Of the latest listing, as far as it is.
   */
  get leftOut(): ReadonlyMap<string, number> {
    return this.#leftOut;
  }

  /**
   * How many images there are, once `count` has told; with tar archives, which nobody has read before, an estimate from
   * the part of them that is read. Null where nobody knows.
   */
  get expected(): number | null {
    if (this.#counted === undefined || this.#counted === null) return null;
    const { images, read, bytes } = this.#tar;
    if (bytes === 0) return this.#counted;
    return read === 0 ? null : Math.round(this.#counted + (images * bytes) / Math.min(read, bytes));
  }

  [Symbol.asyncIterator](): AsyncGenerator<SelectedImage> {
    return this.select();
  }

  async *select(selection: Selection = {}): AsyncGenerator<SelectedImage> {
    this.#leftOut.clear();
    Object.assign(this.#tar, { images: 0, read: 0 });
    let found = 0;
    const choose = chooser(selection);
    const counting: Choose = () => {
      found++;
      return choose();
    };
    const sources = await this.#sources();
    for (const source of sources) yield* this.#imagesOf(source, counting);
    if (found > 0 || sources.some(({ kind }) => kind === 'input')) return;
    const leftOut = [...this.#leftOut].map(([kind, count]) => `${kind}: ${count}`).join(', ');
    throw makeError(
      'ERR_SENET_FILE_NOT_FOUND',
      `${printable(this.#names.join(', '), 1000)}: no images found (${IMAGE_ENDINGS.join(' ')})${leftOut === '' ? '' : `; left out: ${leftOut}`}`,
    );
  }

  /**
   * Goes through the names once, beside a listing or before it, and sets `expected`.
   *
   * @throws (rejects) as listing
   */
  async count(): Promise<number | null> {
    let counted: number | null = 0;
    let tarBytes = 0;
    const add = (images: number | null): void =>
      void (counted = images === null ? null : (counted ?? 0) + images);
    const silent = (): void => undefined;
    const archive = async (place: string): Promise<void> => {
      if (isTar(place))
        tarBytes += await stat(place).then(
          ({ size }) => size,
          () => 0,
        );
      else for await (const _ of this.#archive(place, silent, () => ({ index: 0, read: false }))) add(1);
    };
    for (const source of await this.#sources()) {
      if (source.kind === 'input') return (this.#counted = null);
      if (source.kind === 'archive') await archive(source.place);
      else if (source.kind === 'file') add(1);
      else
        for await (const { path: file, problem } of this.#walk(source, silent))
          if (problem === undefined && isArchive(file)) await archive(file);
          else add(1);
    }
    this.#tar.bytes = tarBytes;
    this.#counted = counted;
    return this.expected;
  }

  /** All that was named, looked at before anything is listed: a name that is mistyped is found out at once. */
  async #sources(): Promise<Source[]> {
    const sources: Source[] = [];
    for (const place of this.#names) sources.push(await this.#sourceOf(place));
    return sources;
  }

  async #sourceOf(place: string): Promise<Source> {
    if (place === INPUT) return { kind: 'input' };
    const label = printable(place, 1000);
    const stats = await stat(place).catch((cause: unknown) => {
      const glob = globOf(place);
      if (glob !== null) return glob;
      throw fileError(label, cause, 'no such file or folder');
    });
    if ('matches' in stats) {
      await stat(stats.base).catch((cause: unknown) => {
        throw fileError(label, cause, `there is no folder '${stats.base}'`);
      });
      return { kind: 'glob', glob: stats };
    }
    if (!stats.isDirectory()) return { kind: isArchive(place) ? 'archive' : 'file', place };
    if (this.#recursive) return { kind: 'folder', place };
    throw makeError('ERR_SENET_FILE', `${label}: a folder; { recursive: true } walks it`);
  }

  async *#imagesOf(source: Source, choose: Choose): AsyncGenerator<SelectedImage> {
    const leaveOut = (kind: string): void => void this.#leftOut.set(kind, (this.#leftOut.get(kind) ?? 0) + 1);
    if (source.kind === 'input') {
      const lines = linesOf(this.#input ?? process.stdin, this.#signal);
      for await (const line of lines) yield* this.#fileOrArchive(line, choose);
    } else if (source.kind === 'file' || source.kind === 'archive')
      yield* this.#fileOrArchive(source.place, choose);
    else
      for await (const { path: file, problem } of this.#walk(source, leaveOut)) {
        throwIfAborted(this.#signal);
        if (problem === undefined) yield* this.#fileOrArchive(file, choose);
        else yield* unreadable(file, fileError(printable(file, 1000), problem), choose);
      }
  }

  async *#walk(source: Walkable, leaveOut: (kind: string) => void): AsyncGenerator<Walked> {
    try {
      yield* this.#found(source, leaveOut);
    } catch (cause) {
      const place = source.kind === 'folder' ? source.place : source.glob.base;
      throw fileError(printable(place, 1000), cause, 'no such folder');
    }
  }

  #found(source: Walkable, leaveOut: (kind: string) => void): AsyncGenerator<Walked> {
    if (source.kind === 'folder')
      return walk(source.place, {
        takes: (name) => IMAGE_ENDINGS.includes(endingOf(name)) || isArchive(name),
        leaveOut: (kind, name) => leaveOut(kind === 'other' ? endingOf(name) : kind),
      });
    const { base, depth, hidden, matches } = source.glob;
    // A glob says itself what is wanted.
    return walk(base, {
      takes: (_, relative) => matches(relative),
      leaveOut: () => undefined,
      depth,
      hidden,
    });
  }

  async *#fileOrArchive(file: string, choose: Choose): AsyncGenerator<SelectedImage> {
    if (isArchive(file)) {
      const leaveOut = (kind: string): void =>
        void this.#leftOut.set(kind, (this.#leftOut.get(kind) ?? 0) + 1);
      try {
        yield* this.#archive(file, leaveOut, choose);
      } catch (problem) {
        throwIfAborted(this.#signal);
        yield* unreadable(file, problem, choose);
      }
      return;
    }
    const place = choose();
    if (place !== null) yield { index: place.index, file, image: place.read ? file : null, bytes: 0 };
  }

  #archive(file: string, leaveOut: (kind: string) => void, choose: Choose): AsyncGenerator<SelectedImage> {
    const before = this.#tar.read;
    return imagesOfArchive(file, {
      takes: (name) => {
        const base = path.posix.basename(name);
        const ending = endingOf(base);
        if (!base.startsWith('.') && IMAGE_ENDINGS.includes(ending)) return true;
        leaveOut(base.startsWith('.') ? 'hidden' : ending);
        return false;
      },
      choose: () => {
        if (isTar(file)) this.#tar.images++;
        return choose();
      },
      onBytes: (bytes) => void (this.#tar.read = before + bytes),
      signal: this.#signal,
    });
  }
}

/** In place of what cannot be listed, so that it has a row. */
function* unreadable(file: string, problem: unknown, choose: Choose): Generator<SelectedImage> {
  const place = choose();
  if (place === null) return;
  const image = (): never => {
    throw problem;
  };
  yield { index: place.index, file, image: place.read ? image : null, bytes: 0 };
}
