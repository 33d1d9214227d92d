/**
 * Tables of rules: what each option of a function must be, and what it is where it is left out. A public function that
 * takes options reads them with `readOptions` and its table, which refuses everything else.
 */
import { makeError } from '../errors';
import {
  checkBoolean,
  checkInteger,
  checkNumber,
  checkOptions,
  checkSignal,
  checkString,
  describe,
} from './options';

/** Gives the value that is meant, or throws; undefined is an option that was left out. */
export type Rule<T> = (value: unknown, what: string) => T;

type RulesOf<O> = Readonly<Record<keyof O & string, Rule<unknown>>>;
type Values<R> = { [K in keyof R]: R[K] extends Rule<infer T> ? T : never };

/**
 * The values of all options of a table, in its order.
 *
 * @throws ERR_SENET_ARG_TYPE (no options object), ERR_SENET_UNKNOWN_OPTION (with the nearest name), and what the rules
 *   throw
 */
export function readOptions<O extends object, const R extends RulesOf<O>>(
  given: O | undefined,
  rules: R,
  where: string,
): Values<R> {
  const names = Object.keys(rules) as (keyof R & string)[];
  const checked = checkOptions(given, names, where) as Readonly<Record<string, unknown>>;
  const values = {} as Values<R>;
  for (const name of names) {
    values[name] = (rules[name] as Rule<Values<R>[typeof name]>)(checked[name], `${where}: ${name}`);
  }
  return values;
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

export const number =
  (minimum?: number, maximum?: number): Rule<number> =>
  (given, what) =>
    checkNumber(given, what, minimum, maximum);

export const boolean: Rule<boolean> = checkBoolean;
export const string: Rule<string> = checkString;
/** May be left out. */
export const signal: Rule<AbortSignal | undefined> = checkSignal;

/** A function; the compiler alone knows of what. */
export const fn =
  <T extends (...args: never[]) => unknown>(): Rule<T> =>
  (given, what) => {
    if (typeof given === 'function') return given as T;
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected a function, got ${describe(given)}`);
  };

/** Throws ERR_SENET_ARG_RANGE for any other value. */
export const oneOf =
  <const T extends string | number>(values: readonly T[]): Rule<T> =>
  (given, what) => {
    if (values.includes(given as T)) return given as T;
    const list = values.map(describe).join(', ');
    throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected one of ${list}, got ${describe(given)}`);
  };
