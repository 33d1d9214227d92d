/** The kinds of values that options of a recipe take: what fits, how it is read from typed text, and what messages call it. */
import { AUGMENTATIONS } from './settings';

/** What values an option takes. */
export interface ValueKind {
  readonly type: 'string' | 'number' | 'boolean' | 'array' | 'share or path';
  /** What messages say that they expected. */
  readonly words: string;
  /** The same where it is typed; default: `words`. */
  readonly typedWords?: string;
  readonly choices?: readonly string[];
  readonly fits: (value: unknown) => boolean;
  /** From what was typed. Default: the text. */
  readonly read?: (text: string) => unknown;
}

export const text: ValueKind = {
  type: 'string',
  words: 'a string',
  fits: (value) => typeof value === 'string',
};

export const flag: ValueKind = {
  type: 'boolean',
  words: 'a boolean',
  fits: (value) => typeof value === 'boolean',
};

export function integer(low: 0 | 1): ValueKind {
  return {
    type: 'number',
    words: `a whole number of at least ${low}`,
    fits: (value) => Number.isSafeInteger(value) && (value as number) >= low,
    read: (typed) => (/^\d+$/.test(typed) ? Number(typed) : NaN),
  };
}

export function number(low: number, high: number, bound: 'from' | 'above' = 'from'): ValueKind {
  return {
    type: 'number',
    words: `a number ${bound} ${low}${high === Infinity ? '' : ` to ${high}`}`,
    fits: (value) =>
      Number.isFinite(value) &&
      (value as number) <= high &&
      (bound === 'from' ? (value as number) >= low : (value as number) > low),
    read: (typed) => (typed.trim() === '' ? NaN : Number(typed)),
  };
}

export function choice(choices: readonly string[]): ValueKind {
  return {
    type: 'string',
    words: `one of ${choices.join(', ')}`,
    choices,
    fits: (value) => choices.includes(value as string),
  };
}

export const imageChannels: ValueKind = {
  type: 'number',
  words: '1 (grey images) or 3 (colour)',
  fits: (value) => value === 1 || value === 3,
  read: (typed) => (/^[13]$/.test(typed) ? Number(typed) : NaN),
};

export const channelNumbers: ValueKind = {
  type: 'array',
  words: 'an array of one finite number, or three',
  typedWords: 'one number, or three with commas',
  fits: (value) =>
    Array.isArray(value) && (value.length === 1 || value.length === 3) && value.every(Number.isFinite),
  read: (typed) => typed.split(',').map(Number),
};

export const augmentations: ValueKind = {
  type: 'array',
  words: `an array of some of ${AUGMENTATIONS.join(', ')}`,
  typedWords: `none, or some of ${AUGMENTATIONS.join(', ')}`,
  fits: (value) => Array.isArray(value) && value.every((name) => AUGMENTATIONS.includes(name as 'flip')),
  read: (typed) => (typed === 'none' ? [] : typed.split(',')),
};

export const modelParts: ValueKind = {
  type: 'array',
  words: 'an array of names',
  fits: (value) => Array.isArray(value) && value.every((name) => typeof name === 'string'),
  read: (typed) => (typed === 'none' ? [] : typed.split(',').map((part) => part.trim())),
};

export const shareOrPath: ValueKind = {
  type: 'share or path',
  words: 'a path, a share between 0 and 1, or none',
  fits: (value) =>
    value === null ||
    (typeof value === 'string' && value !== '') ||
    (typeof value === 'number' && value > 0 && value < 1),
  read: (typed) => {
    if (typed === 'none' || typed === '0') return null;
    const share = Number(typed);
    return typed.trim() === '' || Number.isNaN(share) ? typed : share;
  },
};
