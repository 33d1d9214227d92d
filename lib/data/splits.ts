/**
 * Which part of a data set a folder or a file is: for training, for validation or for test. The one place that decides
 * it, for the library and the command line: by name, in whatever case and with whatever around it, and by what a folder
 * holds. What can be meant in two ways is an error that says what was found and what to type.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';

import { printable } from '../printable';
import { makeError } from '../errors';

export type Split = 'train' | 'validation' | 'test';

const NOUNS = '(?:sets?|data|datasets?|images?|imgs?|labels?|splits?|samples?)?';
const WORDS: readonly (readonly [Split, RegExp])[] = [
  ['train', new RegExp(`^(?:train(?:ing)?|trn)${NOUNS}$`)],
  ['validation', new RegExp(`^(?:val|valid|validate|validation|dev|eval|evaluation)${NOUNS}$`)],
  // MNIST calls its 10,000 test images t10k.
  ['test', new RegExp(`^(?:test(?:ing)?|tst|t10k)${NOUNS}$`)],
];

export interface NamedSplit {
  readonly split: Split | undefined;
  /** The other words of the name, in lower case: what tells several data sets apart. */
  readonly rest: readonly string[];
}

/** `seg_train`, `Testing`, `val2017`, `trainSet`, `emnist-letters-test-images`: the split that a name says, and the rest. */
export function splitOf(name: string): NamedSplit {
  const words = name
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .flatMap((word) => (word === 't10k' ? [word] : (word.match(/\p{L}+|\p{N}+/gu) ?? [])));
  const rest: string[] = [];
  const found = new Set<Split>();
  for (const word of words) {
    const split = WORDS.find(([, pattern]) => pattern.test(word))?.[0];
    if (split === undefined) rest.push(word);
    else found.add(split);
  }
  // A name that says two of them ("train-val") says none.
  return found.size === 1 ? { split: [...found][0], rest } : { split: undefined, rest: words };
}

/** Folders of a data set that is split, each with a folder for each class. */
export interface SplitFolders {
  readonly train: string;
  readonly validation: string | null;
  readonly test: string | null;
  /** Other folders beside them, which are not used. */
  readonly others: readonly string[];
}

/**
 * The splits of a folder; null if its folders are the classes themselves.
 *
 * @throws (rejects) ERR_SENET_DATASET if it is not clear which folder is what, and for splits without class folders
 */
export async function findSplitFolders(root: string): Promise<SplitFolders | null> {
  const names = await foldersIn(root);
  const [only] = names;
  // An archive often unpacks to one more folder.
  if (names.length === 1 && only !== undefined && splitOf(only).split === undefined) {
    const inner = (await foldersIn(path.join(root, only))).filter((name) => splitOf(name).split === 'train');
    return inner.length === 0 ? null : findSplitFolders(path.join(root, only));
  }
  const found: Record<Split, string[]> = { train: [], validation: [], test: [] };
  const [flat, others]: [string[], string[]] = [[], []];
  for (const name of names) {
    const { split } = splitOf(name);
    const inner = split === undefined ? [] : await foldersIn(path.join(root, name));
    if (split === undefined) others.push(name);
    else if (inner.length === 0) flat.push(name);
    else found[split].push(await withoutWrapper(root, name, inner, split));
  }
  const splits = [...found.train, ...found.validation, ...found.test];
  if (splits.length === 0) {
    // A class may be called train, among others; these are nothing else.
    if (flat.length === 0 || others.length > 0) return null;
    throw unclear(
      root,
      `${quoted(flat)} hold no folder for each class`,
      'give a folder with a folder of images for each class',
    );
  }
  for (const split of ['train', 'validation', 'test'] as const) {
    if (found[split].length > 1) {
      throw unclear(
        root,
        `${quoted(found[split])} could each be for ${split === 'train' ? 'training' : split}`,
        TYPE_IT,
      );
    }
  }
  const [train] = found.train;
  const held = splits.length - found.train.length;
  if (train === undefined) throw unclear(root, `there are ${quoted(splits)} and none for training`, TYPE_IT);
  if (held === 0 && others.length > 0) {
    throw unclear(
      root,
      `'${printable(train)}' may be for training, or a class beside ${quoted(others)}`,
      `${TYPE_IT}, or say that each folder is a class`,
    );
  }
  const place = (name: string | undefined): string | null =>
    name === undefined ? null : path.join(root, name);
  return {
    train: path.join(root, train),
    validation: place(found.validation[0]),
    test: place(found.test[0]),
    others: [...flat, ...others].map((name) => path.join(root, name)),
  };
}

const TYPE_IT = 'give the folder itself that is meant for training';

/** `seg_train/seg_train/cat`: a split that holds but a folder of the same split. */
async function withoutWrapper(
  root: string,
  name: string,
  inner: readonly string[],
  split: Split,
): Promise<string> {
  const [only] = inner;
  if (inner.length !== 1 || only === undefined || splitOf(only).split !== split) return name;
  const deeper = await foldersIn(path.join(root, name, only));
  return deeper.length === 0 ? name : path.join(name, only);
}

function unclear(root: string, found: string, advice: string): Error {
  return makeError('ERR_SENET_DATASET', `${printable(root, 1000)}: ${found}; ${advice}`);
}

function quoted(names: readonly string[]): string {
  const shown = names.slice(0, 6).map((name) => `'${printable(name, 60)}'`);
  return shown.join(', ') + (names.length > shown.length ? ` and ${names.length - shown.length} more` : '');
}

/** Names of folders, links to them included, without hidden ones; sorted. None where there is no such folder. */
async function foldersIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const names: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith('.') || entry.name === '__MACOSX') continue;
    const isFolder = entry.isSymbolicLink()
      ? await stat(path.join(folder, entry.name)).then(
          (stats) => stats.isDirectory(),
          () => false,
        )
      : entry.isDirectory();
    if (isFolder) names.push(entry.name);
  }
  return names.sort();
}
