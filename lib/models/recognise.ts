/**
 * Whose weights a file has, by its keys: the framework by how it spells them, the network by all of them with their
 * shapes. Equal shapes of two families tell nothing (strides and pools lie elsewhere), their keys do. Knows the records
 * that it is given, and not the registry; reads no file and makes no network: what each network's state dict looks like
 * stands in `signatures.ts`.
 */
import { createHash } from 'node:crypto';

import { inOneStep, type Sliced } from '../checkpoint/budget';
import { respell, type KeyAlias, type ShapeOf } from '../nn/load-state-dict';
import type { KeyMap, ModelRecord } from './record';
import { SIGNATURES } from './signatures';

/** Names and shapes of a state dict. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** What a state dict's keys and shapes say. */
export interface Recognised {
  /** Whose networks they are, by the spelling of those here. */
  readonly family: string;
  /** Whose spelling the keys have. */
  readonly framework: string;
  /** What stands in front of the network's own names. */
  readonly prefix: string;
  /** The networks with these keys and shapes: none that is known, one, or several that differ in strides and pools alone. */
  readonly candidates: readonly ModelRecord[];
  /** Outputs of the classifier; null without one. */
  readonly numClasses: number | null;
  readonly inChannels: number;
  /** Of what the convolutions take: 2 of images, as the library has them; null without the first of them. */
  readonly spatialDims: number | null;
}

/** What is no weight, or may be missing. */
const UNCOUNTED = /(^|\.)(num_batches_tracked|n_averaged)$|_extra_state$/;

/** No network has more entries, nor longer names, and hostile files may have any. */
const MAX_ENTRIES = 4000;
const MAX_NAME = 128;
/** Keys that are respelt in one step, some milliseconds. */
const KEYS_PER_STEP = 512;
/** So many keys of a first block are looked at, */
const MAX_MARKED = 64;
/** and before it so many words, of which the last may be the network's own: `features.stage1.unit1`. */
const WORDS_BEFORE = 2;

/** Of all networks those whose state dict this may be; null if it has no key that any of them is known by. */
export function recognise(records: readonly ModelRecord[], shapes: Shapes): Recognised | null {
  return inOneStep(recogniseInSteps(records, shapes));
}

/** The same with a yield after each step. */
export function* recogniseInSteps(
  records: readonly ModelRecord[],
  shapes: Shapes,
): Sliced<Recognised | null> {
  if (shapes.size > MAX_ENTRIES) return null;
  const marked: Marked[] = [];
  const firstBlock = firstBlockOf(records);
  for (const key of shapes.keys()) {
    if (key.length > MAX_NAME) return null;
    const block = marked.length < MAX_MARKED ? firstBlock.exec(key) : null;
    if (block !== null) marked.push({ key, starts: startsOf(key, block.index) });
  }
  for (const family of familiesOf(records)) {
    const [{ framework, mark, keyMaps }] = family;
    for (const spelling of [{ framework, aliases: [] } as KeyMap, ...keyMaps]) {
      const prefix = prefixOf(marked, mark, spelling.aliases);
      if (prefix === undefined) continue;
      if (spelling.isOf?.(shapesOfBlock(marked, shapes, prefix, spelling.aliases)) === false) continue;
      const entries = yield* inOwnSpelling(shapes, prefix, spelling.aliases);
      const own = new Map(entries);
      const signature = signatureOf(family, entries);
      const candidates = family.filter(({ name }) => SIGNATURES[name] === signature);
      const [{ classifier }] = family;
      const stem = family
        .map((record) => own.get(`${record.stem}.weight`))
        .find((shape) => shape !== undefined && shape.length >= 3 && shape.length <= 5);
      return {
        family: framework,
        framework: spelling.framework,
        prefix,
        candidates,
        numClasses: own.get(`${classifier}.weight`)?.[0] ?? null,
        inChannels: stem?.[1] ?? 0,
        spatialDims: stem === undefined ? null : stem.length - 2,
      };
    }
  }
  return null;
}

type Family = readonly [ModelRecord, ...ModelRecord[]];

/** The records by the key that they are known by. */
function familiesOf(records: readonly ModelRecord[]): Family[] {
  const families = new Map<string, [ModelRecord, ...ModelRecord[]]>();
  for (const record of records) {
    const family = families.get(record.mark.source);
    if (family === undefined) families.set(record.mark.source, [record]);
    else family.push(record);
  }
  return [...families.values()];
}

/** Where the marks are, in every spelling. */
function firstBlockOf(records: readonly ModelRecord[]): RegExp {
  const paths = records.flatMap(({ firstBlock, keyMaps }) => [
    firstBlock,
    ...keyMaps.map((spelling) => spelling.firstBlock ?? firstBlock),
  ]);
  const alternatives = [...new Set(paths)].map((path) => path.replaceAll('.', '\\.'));
  return new RegExp(`(?<![^.])(${alternatives.join('|')})\\.`);
}

/** A key of the first block, and where the network's own name for it may begin, the longest first. */
interface Marked {
  readonly key: string;
  readonly starts: readonly number[];
}

/** Where the words begin from `WORDS_BEFORE` before `block` on. */
function startsOf(key: string, block: number): number[] {
  const starts = [block];
  for (let start = block; start > 0 && starts.length <= WORDS_BEFORE; starts.unshift(start)) {
    start = key.lastIndexOf('.', start - 2) + 1;
  }
  return starts;
}

/** What stands in front of the mark; undefined without it. */
function prefixOf(marked: readonly Marked[], mark: RegExp, aliases: readonly KeyAlias[]): string | undefined {
  for (const { key, starts } of marked) {
    const start = starts.find((at) => mark.test(respell(key.slice(at), aliases)));
    if (start !== undefined) return key.slice(0, start);
  }
  return undefined;
}

/** Shapes of the first block's weights under the network's own names. */
function shapesOfBlock(
  marked: readonly Marked[],
  shapes: Shapes,
  prefix: string,
  aliases: readonly KeyAlias[],
): ShapeOf {
  return (name) => {
    const isMeant = ({ key }: Marked) =>
      key.startsWith(prefix) && respell(key.slice(prefix.length), aliases) === name;
    return shapes.get(marked.find(isMeant)?.key ?? '');
  };
}

/** Under the network's own names, two under one included; 1 x 1 convolutions for matrices that stand for them. */
function* inOwnSpelling(
  shapes: Shapes,
  prefix: string,
  aliases: readonly KeyAlias[],
): Sliced<[string, readonly number[]][]> {
  const entries: [string, readonly number[]][] = [];
  for (const [key, shape] of shapes) {
    const name = key.startsWith(prefix) ? key.slice(prefix.length) : key;
    const respelt = respell(name, aliases);
    const isMatrix =
      respelt !== name && shape.length === 2 && /\.(se|se_module)\.fc\d\.weight$/.test(respelt);
    if (entries.push([respelt, isMatrix ? [...shape, 1, 1] : shape]) % KEYS_PER_STEP === 0) yield;
  }
  return entries;
}

/**
 * The digest of a state dict in a family's spelling, in which its classifiers, the images' channels and what options
 * change do not count.
 */
export function signatureOf(family: Family, own: Iterable<readonly [string, readonly number[]]>): string {
  const [{ classifier, auxiliaryClassifiers, optionKeys }] = family;
  const heads = [classifier, ...auxiliaryClassifiers].flatMap((head) => [`${head}.weight`, `${head}.bias`]);
  const stems = family.map(({ stem }) => `${stem}.weight`);
  const lines: string[] = [];
  for (const [key, shape] of own) {
    if (UNCOUNTED.test(key) || optionKeys?.names.test(key) === true || heads.includes(key)) continue;
    const sizes: (number | string)[] = [...shape];
    if (stems.includes(key) && shape.length === 4) sizes[1] = 'channels';
    lines.push(`${key} ${optionKeys?.shapes.test(key) === true ? '' : sizes.join('x')}\n`);
  }
  return createHash('sha256').update(lines.sort().join('')).digest('hex').slice(0, 16);
}
