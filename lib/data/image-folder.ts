/**
 * `ImageFolder`: a folder of pictures whose subfolders are the classes, as torchvision's. Decoding is lib/vision's
 * affair. Knows no transform and no batch.
 */
import { readdir, realpath, stat } from 'node:fs/promises';
import path from 'node:path';

import { printable } from '../checkpoint/problems';
import { makeError } from '../errors';
import { abortError } from '../tensor/abort';
import { checkBoolean, checkInteger, checkOptions, checkString, describe } from '../tensor/options';
import { openImage } from '../vision/decode';
import { toPixels } from '../vision/preprocessing';
import type { Dataset, GetOptions, Sample } from './dataset';

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
}

/** An image file and its class. */
export interface ImageFile {
  readonly file: string;
  readonly label: number;
}

/** Endings of what decodes. */
const EXTENSIONS = ['.jpg', '.jpeg', '.png', '.webp', '.avif', '.gif', '.tif', '.tiff'];
/** Folders inside each other; links may form circles. */
const MAX_DEPTH = 32;

/**
 * Pictures in a folder for each class, at any depth: `root/cat/1.jpg`, `root/dog/summer/2.png`.
 *
 * Images are uint8, 3 x height x width, of the files' own sizes. As torchvision's, but for hidden files and folders,
 * which do not count, and links that form a circle.
 */
export class ImageFolder implements Dataset {
  readonly root: string;
  readonly classes: readonly string[];
  readonly classToIdx: ReadonlyMap<string, number>;
  /** Sorted by class, then by path. */
  readonly samples: readonly ImageFile[];

  private constructor(root: string, classes: readonly string[], samples: readonly ImageFile[]) {
    this.root = root;
    this.classes = classes;
    this.classToIdx = new Map(classes.map((name, label) => [name, label]));
    this.samples = samples;
  }

  /**
   * Lists the images of a folder; none is opened.
   *
   * @throws (rejects) ERR_SENET_DATASET (no class folders, only one, a class without images, a folder that is not among
   *   `classes`), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (no folder, no permission), ERR_SENET_ARG_TYPE
   */
  static async open(root: string, options?: ImageFolderOptions): Promise<ImageFolder> {
    const label = printable(checkString(root, 'ImageFolder.open: root'), 1000);
    const checked = checkOptions(options, ['extensions', 'classes', 'allowEmpty'], 'ImageFolder.open');
    const extensions = checkNames(checked.extensions ?? EXTENSIONS, 'extensions').map((ending) => {
      const lower = ending.toLowerCase();
      return lower.startsWith('.') ? lower : `.${lower}`;
    });
    const allowEmpty = checkBoolean(checked.allowEmpty ?? false, 'ImageFolder.open: allowEmpty');
    const folders: string[] = [];
    for (const name of await namesIn(root)) {
      if ((await kindOf(path.join(root, name))) === 'folder') folders.push(name);
    }
    const classes = checked.classes === undefined ? folders : checkNames(checked.classes, 'classes');
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
      const files = folders.includes(name) ? await imagesIn(path.join(root, name), extensions, [], 0) : [];
      // With classes given, this may be a part of the data that lacks one.
      if (files.length === 0 && !allowEmpty && (checked.classes === undefined || folders.includes(name))) {
        fail(`the class '${printable(name)}' has no images (${extensions.join(', ')})`);
      }
      for (const file of files) samples.push({ file, label: index });
    }
    if (samples.length === 0) fail(`no class has images (${extensions.join(', ')})`);
    return new ImageFolder(root, classes, samples);
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
    refuseAborted(options?.signal);
    const opened = await openImage(file);
    await options?.reserve?.(opened.pixelBytes);
    const pixels = await toPixels(await opened.decode(), options?.signal);
    const image = pixels.select(0, 0);
    pixels.dispose();
    return { image, label };
  }
}

function refuseAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}

/** Images below a folder, sorted as Python sorts: by code points. */
async function imagesIn(
  folder: string,
  extensions: readonly string[],
  above: readonly string[],
  depth: number,
): Promise<string[]> {
  const place = await realpath(folder);
  if (above.includes(place) || depth > MAX_DEPTH) return [];
  const files: string[] = [];
  const folders: string[] = [];
  for (const name of await namesIn(folder)) {
    const full = path.join(folder, name);
    const kind = await kindOf(full);
    if (kind === 'folder') folders.push(full);
    else if (kind === 'file' && extensions.includes(path.extname(name).toLowerCase())) files.push(full);
  }
  for (const inner of folders) {
    for (const file of await imagesIn(inner, extensions, [...above, place], depth + 1)) files.push(file);
  }
  return files;
}

/** What is in a folder, sorted, without hidden names. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => !name.startsWith('.'))
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const label = printable(folder, 1000);
    if (code === 'ENOENT') throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such folder`, { cause });
    if (code === 'ENOTDIR') {
      throw makeError('ERR_SENET_FILE', `${label}: expected a folder with a folder for each class`, {
        cause,
      });
    }
    throw makeError('ERR_SENET_FILE', `${label}: ${message}`, { cause });
  }
}

/** Links count as what they lead to, and as nothing if it is gone. */
async function kindOf(file: string): Promise<'file' | 'folder' | undefined> {
  const stats = await stat(file).catch(() => undefined);
  if (stats?.isDirectory() === true) return 'folder';
  return stats?.isFile() === true ? 'file' : undefined;
}

function checkNames(value: unknown, what: string): readonly string[] {
  if (Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === 'string')) {
    const names = value;
    if (new Set(names).size === names.length) return [...names];
    throw makeError('ERR_SENET_ARG_RANGE', `ImageFolder.open: ${what}: expected each name once`);
  }
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `ImageFolder.open: ${what}: expected an array of strings, got ${describe(value)}`,
  );
}
