/**
 * The kinds of values that options of a recipe take: the rule of a value, and how it is typed on the command line. Loads
 * nothing native.
 */
import * as rules from '../../tensor/rules';
import type { Rule } from '../../tensor/rules';
import { AUGMENTATIONS } from './settings';

/** What values an option takes. */
export interface ValueKind {
  readonly rule: Rule<unknown>;
  /** From what was typed. Default: the text. */
  readonly read?: (text: string) => unknown;
  /** What the command line says that it expected; of choices it lists them. */
  readonly words?: string;
  readonly choices?: readonly string[];
}

/** ERR_SENET_ARG_TYPE for what is of another type altogether, ERR_SENET_ARG_RANGE for other values. */
const some =
  (words: string, isTyped: (value: unknown) => boolean, fits: (value: unknown) => boolean): Rule<unknown> =>
  (given, what) =>
    rules.matching(
      words,
      (value) => isTyped(value) && fits(value),
      isTyped(given) ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE',
    )(given, what);

const arrayOf = (words: string, fits: (value: readonly unknown[]) => boolean): Rule<unknown> =>
  some(words, Array.isArray, (value) => fits(value as readonly unknown[]));

export const text: ValueKind = { rule: rules.string };

export const flag: ValueKind = { rule: rules.boolean };

export function integer(low: 0 | 1): ValueKind {
  return {
    rule: rules.integer(low),
    words: `an integer of at least ${low}`,
    read: (typed) => (/^\d+$/.test(typed) ? Number(typed) : NaN),
  };
}

export function number(low: number, high: number, bound: 'from' | 'above' = 'from'): ValueKind {
  const most = high === Infinity ? undefined : high;
  return {
    rule: bound === 'from' ? rules.number(low, most) : rules.above(low, most),
    words: `a number ${bound} ${low}${most === undefined ? '' : ` to ${most}`}`,
    read: (typed) => (typed.trim() === '' ? NaN : Number(typed)),
  };
}

export function choice(choices: readonly string[]): ValueKind {
  return { rule: rules.oneOf(choices), choices };
}

const CHANNELS = '1 (grey images) or 3 (colour)';
export const imageChannels: ValueKind = {
  rule: rules.oneOf([1, 3], CHANNELS),
  words: CHANNELS,
  read: (typed) => (/^[13]$/.test(typed) ? Number(typed) : NaN),
};

export const channelNumbers: ValueKind = {
  rule: arrayOf(
    'an array of one finite number, or three',
    (values) => (values.length === 1 || values.length === 3) && values.every(Number.isFinite),
  ),
  words: 'one number, or three with commas',
  read: (typed) => typed.split(',').map(Number),
};

export const augmentations: ValueKind = {
  rule: arrayOf(`an array of some of ${AUGMENTATIONS.join(', ')}`, (values) =>
    values.every((name) => AUGMENTATIONS.includes(name as 'flip')),
  ),
  words: `none, or some of ${AUGMENTATIONS.join(', ')}`,
  read: (typed) => (typed === 'none' ? [] : typed.split(',')),
};

export const modelParts: ValueKind = {
  rule: rules.names,
  read: (typed) => (typed === 'none' ? [] : typed.split(',').map((part) => part.trim())),
};

export const paths: ValueKind = { rule: rules.names };

const FOLD = /^([1-9]\d{0,3})\/([1-9]\d{0,3})$/;

/** The part that is meant and how many there are, of 'K/N'; undefined of anything else. */
export function parseFold(text: string): { readonly fold: number; readonly folds: number } | undefined {
  const [, fold, folds] = (FOLD.exec(text) ?? []).map(Number);
  if (fold === undefined || folds === undefined || folds < 2 || fold > folds) return undefined;
  return { fold, folds };
}

export const foldOf: ValueKind = {
  rule: some(
    "'K/N', such as '2/5', with N of at least 2 and K from 1 to N",
    (value) => typeof value === 'string',
    (value) => parseFold(value as string) !== undefined,
  ),
  words: 'K/N, such as 2/5, with N of at least 2 and K from 1 to N',
  read: (typed) => typed,
};

export const partFactors: ValueKind = {
  rule: some(
    'an object of numbers from 0 by the paths of parts',
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    (value) => Object.values(value as object).every((one) => Number.isFinite(one) && (one as number) >= 0),
  ),
  words: 'paths of parts with numbers from 0, such as layer1=0.1,fc=10',
  read: (typed) =>
    Object.fromEntries(
      typed.split(',').map((pair) => {
        const [part = '', factor = ''] = pair.split('=').map((one) => one.trim());
        return [part, factor === '' ? NaN : Number(factor)];
      }),
    ),
};

export const shareOrPath: ValueKind = {
  rule: some(
    'a path, a share between 0 and 1, or none',
    (value) => value === null || ['string', 'number'].includes(typeof value),
    (value) => value === null || (typeof value === 'string' ? value !== '' : between(value as number)),
  ),
  read: (typed) => {
    if (typed === 'none' || typed === '0') return null;
    const share = Number(typed);
    return typed.trim() === '' || Number.isNaN(share) ? typed : share;
  },
};

function between(share: number): boolean {
  return share > 0 && share < 1;
}
