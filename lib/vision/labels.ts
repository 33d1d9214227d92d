/**
 * Names of classes from the files in which people keep them: a line for each, a JSON array, JSON objects (index to name,
 * as `{"0": "tench"}` and Keras' `imagenet_class_index.json`, name to index, as `class_to_idx.json`, a `config.json`
 * with `id2label`), the same as Python prints them. What is not surely understood is an error, never a wrong label.
 */
import { readFile, stat } from 'node:fs/promises';
import { TextDecoder } from 'node:util';

import { isError } from '../brands';
import { checkRegular, fileError, isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import { isListOf } from '../tensor/rules';
import { Entries, parseLiteral, type Literal } from './literal';

const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** Characters of a line. */
const MAX_LABEL = 1000;

/**
 * Labels in the order of their classes, from a file or as given.
 *
 * @param where - how messages name the argument
 * @throws (rejects) ERR_SENET_LABELS (not understood, an index missing or twice), ERR_SENET_ARG_TYPE,
 *   ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE
 */
export async function readLabels(
  labels: unknown,
  where = 'ImageClassifier.load: labels',
): Promise<readonly string[]> {
  if (typeof labels !== 'string') return checkLabels(labels, where);
  const label = `${where}: ${printable(labels, 1000)}`;
  const bytes = await readLabelsFile(labels, where, label);
  try {
    const text = textOf(bytes);
    return /^\s*[[{]/.test(text) ? fromLiteral(parseLiteral(text)) : fromLines(text);
  } catch (cause) {
    if (isSenetError(cause) || !isError(cause)) throw cause;
    throw makeError('ERR_SENET_LABELS', `${label}: ${printable(cause.message, 300)}`, { cause });
  }
}

/** @throws ERR_SENET_ARG_TYPE */
export function checkLabels(labels: unknown, where: string): readonly string[] {
  if (isListOf(labels, (label) => typeof label === 'string')) return labels as string[];
  throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected an array of strings, got ${describe(labels)}`);
}

async function readLabelsFile(file: string, where: string, label: string): Promise<Buffer> {
  try {
    const stats = await stat(file);
    // A named pipe would wait for a writer for ever.
    checkRegular(stats, label, 'a file of labels');
    if (stats.size > MAX_FILE_BYTES) {
      throw makeError(
        'ERR_SENET_LABELS',
        `${label}: expected at most ${MAX_FILE_BYTES} bytes, found ${stats.size}`,
      );
    }
    return await readFile(file);
  } catch (cause) {
    throw fileError(where, cause);
  }
}

/** UTF-8, or what a byte-order mark says. Other encodings cannot be told apart. */
function textOf(bytes: Buffer): string {
  const marked = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : 'utf-16be';
  const encoding = marked === 'utf-16le' || (bytes[0] === 0xfe && bytes[1] === 0xff) ? marked : 'utf-8';
  let text: string;
  try {
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error(`expected ${encoding.toUpperCase()} text; save it in that encoding`, { cause });
  }
  const control = /[\0-\x08\x0e-\x1f\x7f]/.exec(text);
  if (control === null) return text;
  const line = text.slice(0, control.index).split('\n').length;
  throw new Error(
    `line ${line} holds a control character: expected text in UTF-8, or UTF-16 with a byte-order mark`,
  );
}

function fromLiteral(value: Literal): readonly string[] {
  if (isList(value)) {
    const wrong = value.findIndex((label) => typeof label !== 'string');
    if (value.length === 0) throw new Error('it holds no labels');
    if (wrong < 0) return value as readonly string[];
    throw new Error(`expected strings, and entry ${wrong} is ${shown(value[wrong])}`);
  }
  if (!(value instanceof Entries)) throw new Error('expected a list or a dictionary of labels');
  const inner = value.pairs.filter(([key]) => key === 'id2label');
  if (inner.length === 1 && inner[0]?.[1] instanceof Entries) return fromEntries(inner[0][1]);
  return fromEntries(value);
}

/** Index to name, or name to index; a pair of an identifier and a name counts as the name. */
function fromEntries({ pairs }: Entries): readonly string[] {
  const nameOf = (value: Literal): string | undefined => {
    const [identifier, name] = isList(value) && value.length === 2 ? value : ['', value];
    return typeof identifier === 'string' && typeof name === 'string' ? name : undefined;
  };
  const byIndex = pairs.map(([key, value]) => [indexOf(key), nameOf(value)] as const);
  const byName = pairs.map(([key, value]) => [indexOf(value), nameOf(key)] as const);
  for (const entries of [byIndex, byName]) if (areWhole(entries)) return inOrder(entries);
  const odd = byIndex.findIndex(([index, name]) => index === undefined || name === undefined);
  throw new Error(
    `expected a name for each index, or an index for each name, found ${shown(pairs[odd]?.[0])}: ${shown(pairs[odd]?.[1])}`,
  );
}

function areWhole(
  entries: readonly (readonly [index: number | undefined, name: string | undefined])[],
): entries is readonly (readonly [index: number, name: string])[] {
  return entries.every(([index, name]) => index !== undefined && name !== undefined);
}

function indexOf(key: Literal): number | undefined {
  if (typeof key === 'number') return Number.isSafeInteger(key) && key >= 0 ? key : undefined;
  return typeof key === 'string' && /^(0|[1-9]\d{0,8})$/.test(key) ? Number(key) : undefined;
}

/** Every index from 0 once. */
function inOrder(entries: readonly (readonly [index: number, name: string])[]): readonly string[] {
  if (entries.length === 0) throw new Error('it holds no labels');
  const labels = new Map<number, string>();
  for (const [index, name] of entries) {
    const before = labels.get(index);
    if (before !== undefined)
      throw new Error(`the index ${index} stands twice: for ${shown(before)} and ${shown(name)}`);
    labels.set(index, name);
  }
  return Array.from({ length: labels.size }, (_, index) => {
    const name = labels.get(index);
    if (name !== undefined) return name;
    const others = [...labels.keys()].sort((a, b) => a - b);
    throw new Error(
      `the index ${index} is missing: expected 0 to ${labels.size - 1}, found ${others[0]} to ${others.at(-1)}`,
    );
  });
}

function fromLines(text: string): readonly string[] {
  const lines = text.split(/\r\n|\n|\r/).map((line) => line.trim());
  while (lines.at(-1) === '') lines.pop();
  if (lines.length === 0) throw new Error('it holds no labels');
  for (const [index, line] of lines.entries()) {
    if (line === '') throw new Error(`line ${index + 1} is blank: expected a label in each line`);
    if (line.length > MAX_LABEL)
      throw new Error(`line ${index + 1} has ${line.length} characters: too many for a label`);
  }
  // An index before each name, or behind it, counts if it is there in every line.
  for (const split of [indexFirst, indexLast]) {
    const entries = lines.map(split);
    if (areWhole(entries)) return inOrder(entries);
  }
  // "0 tench", "1 goldfish": only if the numbers are exactly those, since names may begin with one.
  const spaced = lines.map((line) => /^(\d+)\s+(.+)$/.exec(line));
  if (spaced.every((parts, index) => parts?.[1] === String(index)))
    return spaced.map((parts) => parts?.[2] ?? '');
  return lines;
}

type Split = readonly [index: number | undefined, name: string | undefined];

function indexFirst(line: string): Split {
  const [, index, name] = /^(\d+)\s*[\t:,;|]\s*(.+)$/.exec(line) ?? [];
  return [index === undefined ? undefined : Number(index), name];
}

function indexLast(line: string): Split {
  const at = line.search(/[\t,;|]\s*\d+$/);
  const name = line.slice(0, Math.max(at, 0)).trim();
  return /\D/.test(name) ? [Number(line.slice(at + 1)), name] : [undefined, undefined];
}

function isList(value: Literal): value is readonly Literal[] {
  return Array.isArray(value);
}

function shown(value: Literal | undefined): string {
  return value instanceof Entries ? 'a dictionary' : describe(value);
}
