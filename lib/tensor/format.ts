/**
 * A tensor as text, in PyTorch's layout (torch/_tensor_str.py with its default options): columns of one width, four
 * decimals or powers of ten, and of more than a thousand elements only the first and last three of each dimension. The
 * facts behind the values are named here always; PyTorch names those that are not its defaults.
 */
import type { Element, NestedArray } from './nested-array';

/** More elements than this are abridged. */
export const THRESHOLD = 1000;
/** Of an abridged dimension, at each end. */
export const EDGE_ITEMS = 3;
const PRECISION = 4;
const LINE_WIDTH = 80;
const PREFIX = 'tensor(';

interface Format {
  /** Of a column. */
  readonly width: number;
  text(value: Element): string;
}

/**
 * @param values nested; of an abridged tensor the edges alone
 * @param shape of the whole tensor
 * @param floating whether its numbers are fractions, which PyTorch tells by a point
 */
export function tensorText(
  values: NestedArray,
  shape: readonly number[],
  floating: boolean,
  facts: readonly string[],
): string {
  const numel = shape.reduce((product, size) => product * size, 1);
  const abridged = numel > THRESHOLD;
  const flat = (Array.isArray(values) ? values.flat(Infinity) : [values]) as Element[];
  const format = floating ? fractionFormat(flat as number[]) : plainFormat(flat);
  const text = numel === 0 ? '[]' : arrayText(values, shape, PREFIX.length, abridged, format);
  return withFacts(PREFIX + text, facts);
}

function arrayText(
  values: NestedArray,
  shape: readonly number[],
  indent: number,
  abridged: boolean,
  format: Format,
): string {
  const [size, ...inner] = shape;
  if (size === undefined) return format.text(values as Element).padStart(format.width);
  const cut = abridged && size > 2 * EDGE_ITEMS;
  const parts = (values as readonly NestedArray[]).map((part) =>
    arrayText(part, inner, indent + 1, abridged, format),
  );
  const margin = ' '.repeat(indent + 1);
  if (inner.length > 0) {
    if (cut) parts.splice(EDGE_ITEMS, 0, '...');
    return `[${parts.join(`,${'\n'.repeat(inner.length)}${margin}`)}]`;
  }
  const perLine = Math.max(1, Math.floor((LINE_WIDTH - indent) / (format.width + 2)));
  if (cut) parts.splice(EDGE_ITEMS, 0, ' ...');
  const lines: string[] = [];
  for (let i = 0; i < parts.length; i += perLine) lines.push(parts.slice(i, i + perLine).join(', '));
  return `[${lines.join(`,\n${margin}`)}]`;
}

function withFacts(text: string, facts: readonly string[]): string {
  let shown = text;
  let lastLine = text.length - text.lastIndexOf('\n') + 1;
  for (const fact of facts) {
    if (lastLine + fact.length + 2 > LINE_WIDTH) {
      shown += `,\n${' '.repeat(PREFIX.length)}${fact}`;
      lastLine = PREFIX.length + fact.length;
    } else {
      shown += `, ${fact}`;
      lastLine += fact.length + 2;
    }
  }
  return `${shown})`;
}

/** Integers and booleans, the latter by Python's names. */
function plainFormat(values: readonly Element[]): Format {
  const text = (value: Element): string =>
    typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value);
  return { width: values.reduce<number>((widest, value) => Math.max(widest, text(value).length), 1), text };
}

function fractionFormat(values: readonly number[]): Format {
  const finite = values.filter((value) => Number.isFinite(value) && value !== 0);
  const sizes = finite.map(Math.abs);
  const largest = sizes.reduce((one, other) => Math.max(one, other), 0);
  const smallest = sizes.reduce((one, other) => Math.min(one, other), Infinity);
  const integral = finite.every(Number.isInteger);
  const scientific =
    finite.length > 0 && (largest / smallest > 1000 || largest > 1e8 || (!integral && smallest < 1e-4));
  const text = (element: Element): string => {
    const value = element as number;
    if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
    if (scientific) return exponential(value);
    return integral ? `${fixed(value, 0)}.` : fixed(value, PRECISION);
  };
  // Of the finite ones alone, as PyTorch measures: a longer 'nan' is not padded.
  return { width: finite.reduce((widest, value) => Math.max(widest, text(value).length), 1), text };
}

// Python rounds a tie to the even digit, JavaScript up; a double of this size has no more than 60 digits to tell one by.

const TIE = /^50*$/;

function fixed(value: number, digits: number): string {
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const size = Math.abs(value);
  return sign + (roundedDown(size.toFixed(60), digits) ?? size.toFixed(digits));
}

function exponential(value: number): string {
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const size = Math.abs(value);
  const [exact = '', power = '0'] = size.toExponential(60).split('e');
  const [rounded = '', roundedPower = '0'] = size.toExponential(PRECISION).split('e');
  const down = roundedDown(exact, PRECISION);
  const [mantissa, exponent] = down === undefined ? [rounded, Number(roundedPower)] : [down, Number(power)];
  const digits = String(Math.abs(exponent)).padStart(2, '0');
  return `${sign}${mantissa}e${exponent < 0 ? '-' : '+'}${digits}`;
}

/** The decimal cut off after so many digits if it is a tie and the last of them is even; else undefined. */
function roundedDown(decimal: string, digits: number): string | undefined {
  const [whole = '', fraction = ''] = decimal.split('.');
  if (!TIE.test(fraction.slice(digits))) return undefined;
  const cut = digits === 0 ? whole : `${whole}.${fraction.slice(0, digits)}`;
  return Number(cut.at(-1)) % 2 === 0 ? cut : undefined;
}
