/**
 * `ImageFolder`: a folder of pictures whose subfolders are the classes, as torchvision's. Decoding is lib/vision's
 * affair. Knows no transform and no batch.
 */
import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';

import { fileError, makeError } from '../errors';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkInteger, checkString, describe } from '../tensor/options';
import { boolean, isListOf, oneOf, optional, orElse, readOptions, type Rule } from '../tensor/rules';
import { openImage } from '../vision/decode';
import { endingOf, IMAGE_ENDINGS } from '../vision/image-endings';
import { toPixels } from '../vision/preprocessing';
import type { Dataset, GetOptions, Sample } from './dataset';
import { findSplitFolders } from './splits';

export interface ImageFolderOptions {
  /** Endings of the files that count, in any case. Default those of the formats that can be decoded. */
  extensions?: readonly string[];
  /**
   * The classes in their order, for instance those of the training set, of which each subfolder must be one. Default all
   * subfolders, sorted.
   */
  classes?: readonly string[];
  /** Takes class folders without images. Default false: they are an error. */
  allowEmpty?: boolean;
  /**
   * Of a folder with folders for training, validation and test (`train`, `Testing`, `seg_val` and the like), the one that
   * is meant; 'none' if folders of such names are classes like others. Default: such a folder is an error that names its
   * parts, unless `classes` are given.
   */
  split?: 'train' | 'validation' | 'test' | 'none';
}

/** An image file and its class. */
export interface ImageFile {
  readonly file: string;
  readonly label: number;
}

const SPLITS = ['train', 'validation', 'test', 'none'] as const;

const names: Rule<readonly string[]> = (value, what) => {
  if (isListOf(value, (name) => typeof name === 'string') && value.length > 0) {
    if (new Set(value).size === value.length) return [...(value as string[])];
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected each name once`);
  }
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an array of strings, got ${describe(value)}`);
};

const OPEN_RULES = {
  extensions: orElse(IMAGE_ENDINGS, names),
  classes: optional(names),
  allowEmpty: orElse(false, boolean),
  split: optional(oneOf(SPLITS)),
};

/**
 * Pictures in a folder for each class, at any depth: `root/cat/1.jpg`, `root/dog/summer/2.png`.
 *
 * Images are uint8, 3 x height x width, of the files' own sizes. As torchvision's, but for hidden files and folders,
 * which do not count, and links: a class may be one, and inside a class each folder counts once, under the first of its
 * names, where Python follows links in every way there is, and without end in a circle.
 */
export class ImageFolder implements Dataset {
  readonly root: string;
  readonly classes: readonly string[];
  readonly classToIdx: ReadonlyMap<string, number>;
  /** Sorted by class, then by path. */
  readonly samples: readonly ImageFile[];
  /**
   * How many files were not taken, by kind: an ending such as '.txt' in lower case, 'no ending', 'hidden' (folders too),
   * 'link to nothing', 'seen before' (a folder by another link).
   */
  readonly leftOut: ReadonlyMap<string, number>;

  private constructor(
    root: string,
    classes: readonly string[],
    samples: readonly ImageFile[],
    leftOut: ReadonlyMap<string, number>,
  ) {
    this.leftOut = leftOut;
    this.root = root;
    this.classes = classes;
    this.classToIdx = new Map(classes.map((name, label) => [name, label]));
    this.samples = samples;
  }

  /**
   * Lists the images of a folder; none is opened.
   *
   * @throws (rejects) ERR_SENET_DATASET (no class folders, only one, a class without images, a folder that is not among
   *   `classes`, folders for training and test without `split`, or without the one that is asked for), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (no folder, no permission), ERR_SENET_ARG_TYPE
   */
  static async open(root: string, options?: ImageFolderOptions): Promise<ImageFolder> {
    checkString(root, 'ImageFolder.open: root');
    const checked = readOptions(options, OPEN_RULES, 'ImageFolder.open');
    const { allowEmpty } = checked;
    const extensions = checked.extensions.map((ending) => {
      const lower = ending.toLowerCase();
      return lower.startsWith('.') ? lower : `.${lower}`;
    });
    const place = await placeOf(root, checked.split, checked.classes !== undefined);
    const label = printable(place, 1000);
    const found = new Finder(extensions);
    const folders = await found.folders(place);
    const classes = checked.classes ?? folders;
    const fail = (problem: string): never => {
      throw makeError('ERR_SENET_DATASET', `${label}: ${problem}`);
    };
    if (folders.length === 0) fail('expected a folder for each class, found none');
    if (classes.length === 1) {
      fail(`expected at least two classes, found only '${printable(classes[0] as string)}'`);
    }
    const unknown = folders.find((name) => !classes.includes(name));
    if (unknown !== undefined) fail(`the folder '${printable(unknown)}' is none of the classes given`);
    const samples: ImageFile[] = [];
    for (const [index, name] of classes.entries()) {
      const files = folders.includes(name) ? await found.images(path.join(place, name)) : [];
      // With classes given, this may be a part of the data that lacks one.
      if (files.length === 0 && !allowEmpty && (checked.classes === undefined || folders.includes(name))) {
        fail(`the class '${printable(name)}' has no images (${extensions.join(', ')})`);
      }
      for (const file of files) samples.push({ file, label: index });
    }
    if (samples.length === 0) fail(`no class has images (${extensions.join(', ')})`);
    return new ImageFolder(place, classes, samples, found.leftOut);
  }

  get length(): number {
    return this.samples.length;
  }

  /** The label of each image. */
  get labels(): readonly number[] {
    return this.samples.map(({ label }) => label);
  }

  /**
   * @throws (rejects) ERR_SENET_IMAGE (not an image, damaged), ERR_SENET_IMAGE_SIZE, ERR_SENET_FILE_NOT_FOUND,
   *   ERR_SENET_FILE, all naming the file; ERR_SENET_ARG_RANGE, ERR_SENET_ABORTED
   */
  async get(index: number, options?: GetOptions): Promise<Sample> {
    const { file, label } = this.samples[
      checkInteger(index, 'dataset index', 0, this.length - 1)
    ] as ImageFile;
    throwIfAborted(options?.signal);
    const opened = await openImage(file);
    await options?.reserve?.(opened.pixelBytes);
    const pixels = await toPixels(await opened.decode(), options?.signal);
    const image = pixels.select(0, 0);
    pixels.dispose();
    return { image, label };
  }
}

/** The folder with the classes. */
async function placeOf(
  root: string,
  split: ImageFolderOptions['split'],
  classesGiven: boolean,
): Promise<string> {
  if (split === 'none' || (split === undefined && classesGiven)) return root;
  const label = printable(root, 1000);
  const splits = await findSplitFolders(root);
  if (splits === null && split === undefined) return root;
  const { train, validation, test } = splits ?? { train: null, validation: null, test: null };
  const parts = Object.entries({ train, validation, test }).flatMap(([name, folder]) =>
    folder === null ? [] : [`${name}: ${printable(path.relative(root, folder))}`],
  );
  if (split === undefined) {
    throw makeError(
      'ERR_SENET_DATASET',
      `${label}: its folders are parts of a data set (${parts.join(', ')}): say which with split, or that they are classes with split: 'none'`,
    );
  }
  const chosen = { train, validation, test }[split];
  if (chosen !== null) return chosen;
  throw makeError(
    'ERR_SENET_DATASET',
    `${label}: expected a folder for ${split}, found ${parts.join(', ') || 'no folders for training, validation or test'}`,
  );
}

/** Looks through folders, and counts what it does not take. */
class Finder {
  readonly leftOut = new Map<string, number>();

  constructor(readonly extensions: readonly string[]) {}

  /** Names of the folders in a folder, whose files do not count. */
  async folders(root: string): Promise<string[]> {
    const folders: string[] = [];
    for (const name of await this.#namesIn(root)) {
      const kind = await this.#kindOf(path.join(root, name));
      if (kind === 'folder') folders.push(name);
      else if (kind === 'file') this.#leaveOut(endingOf(name));
    }
    return folders;
  }

  /** Images below a folder, sorted as Python sorts: by code points. */
  async images(folder: string, seen = new Set<string>()): Promise<string[]> {
    const place = await realpath(folder);
    if (seen.has(place)) {
      this.#leaveOut('seen before');
      return [];
    }
    seen.add(place);
    const files: string[] = [];
    const folders: string[] = [];
    for (const name of await this.#namesIn(folder)) {
      const full = path.join(folder, name);
      const kind = await this.#kindOf(full);
      if (kind === 'folder') folders.push(full);
      else if (kind === 'file') {
        if (this.extensions.includes(path.extname(name).toLowerCase())) files.push(full);
        else this.#leaveOut(endingOf(name));
      }
    }
    for (const inner of folders) for (const file of await this.images(inner, seen)) files.push(file);
    return files;
  }

  async #namesIn(folder: string): Promise<string[]> {
    const names = await namesIn(folder);
    const shown = names.filter((name) => !name.startsWith('.'));
    this.#leaveOut('hidden', names.length - shown.length);
    return shown;
  }

  /** Links count as what they lead to. */
  async #kindOf(file: string): Promise<'file' | 'folder' | undefined> {
    const stats = await stat(file).catch(() => undefined);
    if (stats === undefined) this.#leaveOut('link to nothing');
    if (stats?.isDirectory() === true) return 'folder';
    return stats?.isFile() === true ? 'file' : undefined;
  }

  #leaveOut(kind: string, count = 1): void {
    if (count > 0) this.leftOut.set(kind, (this.leftOut.get(kind) ?? 0) + count);
  }
}

/** What is in a folder, sorted. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  } catch (cause) {
    const label = printable(folder, 1000);
    if ((cause as NodeJS.ErrnoException).code === 'ENOTDIR') {
      throw makeError('ERR_SENET_FILE', `${label}: expected a folder with a folder for each class`, {
        cause,
      });
    }
    throw fileError(label, cause, 'no such folder');
  }
}
