/**
 * Tables of rules: what each option of a function must be, and what it is where it is left out. A public function that
 * takes options reads them with `readOptions` and its table, which refuses everything else.
 */
import { isOfAnotherCopy } from '../brands';
import { makeError, type ErrorCode } from '../errors';
import { checkBoolean, checkInteger, checkNumber, checkSignal, checkString, describe, hint } from './options';

/** Gives the value that is meant, or throws; undefined is an option that was left out. */
export type Rule<T> = (value: unknown, what: string) => T;

/** A table for each option of `O`. */
export type Rules<O> = Readonly<Record<keyof O & string, Rule<unknown>>>;
/** What is read by a table. */
export type Values<R> = { [K in keyof R]: R[K] extends Rule<infer T> ? T : never };

/**
 * The values of all options of a table, in its order.
 *
 * @throws ERR_SENET_ARG_TYPE (no options object), ERR_SENET_UNKNOWN_OPTION (with the nearest name), and what the rules
 *   throw
 */
export function readOptions<O extends object, const R extends Rules<O>>(
  given: O | undefined,
  rules: R,
  where: string,
): Values<R> {
  const names = Object.keys(rules) as (keyof R & string)[];
  const checked = checkNames(given, names, where);
  const values = {} as Values<R>;
  for (const name of names) {
    values[name] = (rules[name] as Rule<Values<R>[typeof name]>)(checked[name], `${where}: ${name}`);
  }
  return values;
}

/**
 * As `readOptions` of this table, for calls that count nanoseconds: the defaults are read once, and each call reads what
 * it is given.
 */
export function optionsReader<const R extends Rules<Record<string, unknown>>>(
  rules: R,
): (given: object | undefined, where: string) => Values<R> {
  const names = Object.keys(rules) as (keyof R & string)[];
  const defaults = Object.freeze(readOptions<object, R>(undefined, rules, 'defaults'));
  return (given, where) => {
    if (given === undefined) return defaults;
    const values: { -readonly [K in keyof R]: Values<R>[K] } = { ...defaults };
    for (const [name, value] of Object.entries(checkNames(given, names, where))) {
      if (value !== undefined)
        values[name as keyof R] = (rules[name] as Rule<Values<R>[keyof R]>)(value, `${where}: ${name}`);
    }
    return values;
  };
}

/** `value`, or an empty object for undefined; throws for anything but a plain object with known names. */
function checkNames(
  value: object | undefined,
  known: readonly string[],
  where: string,
): Readonly<Record<string, unknown>> {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value) || isOfAnotherCopy(value)) {
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected an options object, got ${describe(value)}`);
  }
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    const list = known.length === 0 ? 'it takes none' : `known are ${known.join(', ')}`;
    throw makeError(
      'ERR_SENET_UNKNOWN_OPTION',
      `${where}: unknown option '${name}'${hint(name, known)} (${list})`,
    );
  }
  return value as Readonly<Record<string, unknown>>;
}

/** What is taken where the option is left out; checked as if it were given. */
export const orElse =
  <T>(value: unknown, rule: Rule<T>): Rule<T> =>
  (given, what) =>
    rule(given === undefined ? value : given, what);

/** An option that may be left out, and then is undefined. */
export const optional =
  <T>(rule: Rule<T>): Rule<T | undefined> =>
  (given, what) =>
    given === undefined ? undefined : rule(given, what);

/** Throws ERR_SENET_ARG_MISSING where the option is left out. */
export const required =
  <T>(rule: Rule<T>): Rule<T> =>
  (given, what) => {
    if (given === undefined) throw makeError('ERR_SENET_ARG_MISSING', `${what} is required`);
    return rule(given, what);
  };

export const nullOr =
  <T>(rule: Rule<T>): Rule<T | null> =>
  (given, what) =>
    given === null ? null : rule(given, what);

/** An option whose type the compiler alone knows: what it is given to checks it. */
export const unchecked =
  <T>(): Rule<T | undefined> =>
  (given) =>
    given as T | undefined;

export const integer =
  (minimum: number, maximum?: number): Rule<number> =>
  (given, what) =>
    checkInteger(given, what, minimum, maximum);

/** What Node's timers take. */
export const milliseconds = (minimum: number): Rule<number> => integer(minimum, 2 ** 31 - 1);

export const number =
  (minimum?: number, maximum?: number): Rule<number> =>
  (given, what) =>
    checkNumber(given, what, minimum, maximum);

/** A number above a bound that is none of them. */
export const above =
  (minimum: number, maximum?: number): Rule<number> =>
  (given, what) => {
    const words = `a number above ${minimum}${maximum === undefined ? '' : ` to ${maximum}`}`;
    const code = typeof given === 'number' ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE';
    const fits = (value: unknown): boolean =>
      Number.isFinite(value) && (value as number) > minimum && (value as number) <= (maximum ?? Infinity);
    return matching<number>(words, fits, code)(given, what);
  };

export const boolean: Rule<boolean> = checkBoolean;
export const string: Rule<string> = checkString;
/** May be left out. */
export const signal: Rule<AbortSignal | undefined> = checkSignal;

/** What `fits` says, in the words of messages. Throws ERR_SENET_ARG_TYPE, or `code`, for any other value. */
export const matching =
  <T>(words: string, fits: (value: unknown) => boolean, code: ErrorCode = 'ERR_SENET_ARG_TYPE'): Rule<T> =>
  (given, what) => {
    if (fits(given)) return given as T;
    throw makeError(code, `${what}: expected ${words}, got ${describe(given)}`);
  };

/** The compiler alone knows of what. */
export const fn = <T extends (...args: never[]) => unknown>(): Rule<T> =>
  matching<T>('a function', (value) => typeof value === 'function');

/** An array, each of whose places holds what `rule` takes: its holes too. */
export const arrayOf =
  <T>(words: string, rule: Rule<T>): Rule<T[]> =>
  (given, what) => {
    if (!Array.isArray(given))
      throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected ${words}, got ${describe(given)}`);
    return Array.from<unknown, T>(given, (one, index) => rule(one, `${what}[${index}]`));
  };

/** Whether it is an array each of whose places holds what fits: its holes too, which `every` passes over. */
export const isListOf = (value: unknown, fits: (one: unknown) => boolean): value is unknown[] =>
  Array.isArray(value) && Array.from<unknown>(value).every((one) => fits(one));

export const names: Rule<readonly string[]> = matching('an array of names', (value) =>
  isListOf(value, (name) => typeof name === 'string'),
);

/** Throws ERR_SENET_ARG_RANGE for any other value. @param words - how messages list the values */
export const oneOf = <const T extends string | number>(
  values: readonly T[],
  words = `one of ${values.map(describe).join(', ')}`,
): Rule<T> => matching(words, (value) => values.includes(value as T), 'ERR_SENET_ARG_RANGE');
