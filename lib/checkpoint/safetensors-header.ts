/**
 * A reader of the JSON in a safetensors file, for the one shape that the format gives it: an object of tensors by name,
 * and `__metadata__`, an object of text. Reads bytes in slices and gives each entry as it comes, so that a header takes no
 * more memory than its entries and never a tree of whatever JSON the file holds. Anything else than that shape is an error.
 */
import { TextDecoder } from 'node:util';
import { printable } from '../printable';
import type { Budget, Sliced } from './budget';
import { COST, MAX_RANK, MAX_HEADER_TEXT_BYTES } from './limits';

export type HeaderEntry =
  | { readonly kind: 'metadata'; readonly name: string; readonly text: string }
  | {
      readonly kind: 'tensor';
      readonly name: string;
      readonly dtypeName: string;
      readonly shape: readonly number[];
      readonly begin: number;
      readonly end: number;
    };

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SPACE = 0x20;
/** White space between two tokens; what fills the header up to a multiple of 8 stands behind it. */
const MAX_SPACES = 4096;
/** The reference implementation's: a longer one is no tensor's. Checked again where records are made. */
const MAX_NUMBERS = 4 * MAX_RANK;

/**
 * Reads a header, in slices.
 * @param take - receives the entries in the order of the file; what it throws ends the work
 * @param wrong - makes the error of a damaged header
 */
export function* readHeader(
  bytes: Uint8Array,
  take: (entry: HeaderEntry) => void,
  wrong: (message: string) => Error,
  budget: Budget,
): Sliced<void> {
  const json = new JsonBytes(bytes, wrong, budget);
  if (bytes[0] !== 0x7b) throw wrong('it does not begin with {');
  let hasMetadata = false;
  for (const name of json.keys()) {
    if (name === '__metadata__') {
      if (hasMetadata) throw wrong("it has the name '__metadata__' twice");
      hasMetadata = true;
      // The reference implementation takes null for none.
      if (json.skip('null')) continue;
      if (json.peek() !== '{') throw wrong('metadata is no object');
      for (const key of json.keys()) {
        if (json.peek() !== '"') throw wrong(`metadata '${printable(key)}' is no string`);
        take({ kind: 'metadata', name: key, text: json.text() });
        if (json.spend()) yield;
      }
    } else {
      take(readTensor(json, name, wrong));
    }
    if (json.spend()) yield;
  }
  yield* json.padding();
}

function readTensor(json: JsonBytes, name: string, wrong: (message: string) => Error): HeaderEntry {
  const where = `tensor '${printable(name)}'`;
  const odd = (): Error => wrong(`${where} has not exactly dtype, shape and two data_offsets`);
  if (json.peek() !== '{') throw wrong(`${where} is no object`);
  let dtypeName: string | undefined;
  let shape: readonly number[] | undefined;
  let offsets: readonly number[] | undefined;
  for (const field of json.keys()) {
    if (field === 'dtype' && dtypeName === undefined && json.peek() === '"') dtypeName = json.text();
    else if (field === 'shape' && shape === undefined && json.peek() === '[') shape = json.counts(odd);
    else if (field === 'data_offsets' && offsets === undefined && json.peek() === '[') {
      offsets = json.counts(odd);
    } else throw odd();
  }
  if (dtypeName === undefined || shape === undefined || offsets?.length !== 2) throw odd();
  const [begin, end] = offsets as [number, number];
  return { kind: 'tensor', name, dtypeName, shape, begin, end };
}

/** JSON's tokens, one after the other. */
class JsonBytes {
  private readonly buffer: Buffer;
  private position = 0;
  private spent = 0;

  constructor(
    bytes: Uint8Array,
    private readonly wrong: (message: string) => Error,
    private readonly budget: Budget,
  ) {
    this.buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Counts what was read since the last call; true when the slice is over. */
  spend(): boolean {
    const steps = 1 + ((this.position - this.spent) >> 5);
    this.spent = this.position;
    return this.budget.spend(steps);
  }

  /** The next character that is no white space; '' at the end. */
  peek(): string {
    for (let spaces = 0; ;) {
      const byte = this.buffer[this.position];
      if (byte === undefined) return '';
      if (byte !== SPACE && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return String.fromCharCode(byte);
      this.position++;
      if (++spaces > MAX_SPACES) throw this.wrong(`more than ${MAX_SPACES} spaces inside it`);
    }
  }

  /** Goes past a word, if it is there. */
  skip(word: string): boolean {
    this.peek();
    const { buffer, position } = this;
    if (buffer.toString('latin1', position, position + word.length) !== word) return false;
    this.position += word.length;
    return true;
  }

  /** The names of an object, each when the value of the one before has been read. */
  *keys(): Iterable<string> {
    this.need('{');
    if (this.skip('}')) return;
    do {
      const name = this.text();
      this.need(':');
      yield name;
    } while (this.skip(','));
    this.need('}');
  }

  text(): string {
    this.need('"');
    const { buffer } = this;
    const start = this.position;
    let end = start;
    let escaped = false;
    for (; ; end++) {
      const byte = buffer[end];
      if (byte === QUOTE) break;
      if (byte === undefined || byte < SPACE) throw this.noJson(end);
      if (byte === BACKSLASH) {
        escaped = true;
        end++;
      }
      if (end - start > MAX_HEADER_TEXT_BYTES)
        throw this.wrong(`a text of more than ${MAX_HEADER_TEXT_BYTES} bytes`);
    }
    this.budget.charge(COST.string + COST.entry + 2 * (end - start));
    this.position = end + 1;
    const bytes = buffer.subarray(start, end);
    try {
      if (escaped) return JSON.parse(`"${strictUtf8.decode(bytes)}"`) as string;
      return strictUtf8.decode(bytes);
    } catch {
      throw this.noJson(start);
    }
  }

  /** A list of whole numbers from 0. */
  counts(odd: () => Error): number[] {
    const numbers: number[] = [];
    this.need('[');
    if (this.skip(']')) return numbers;
    do {
      this.peek();
      const start = this.position;
      while (isDigit(this.buffer[this.position])) this.position++;
      const length = this.position - start;
      if (length === 0 || length > 16 || (length > 1 && this.buffer[start] === 0x30)) throw odd();
      const number = Number(this.buffer.toString('latin1', start, this.position));
      if (!Number.isSafeInteger(number) || numbers.length >= MAX_NUMBERS) throw odd();
      numbers.push(number);
    } while (this.skip(','));
    if (this.peek() !== ']') throw odd();
    this.position++;
    return numbers;
  }

  /** Nothing but spaces may follow. */
  *padding(): Sliced<void> {
    const { buffer } = this;
    for (; this.position < buffer.length; this.position++) {
      if (buffer[this.position] !== SPACE) throw this.wrong('it is padded with something else than spaces');
      if ((this.position & 0xfff) === 0 && this.spend()) yield;
    }
  }

  private need(character: string): void {
    if (this.peek() !== character) throw this.noJson(this.position);
    this.position++;
  }

  private noJson(at: number): Error {
    const found =
      this.buffer[at] === undefined ? 'its end' : printable(this.buffer.toString('latin1', at, at + 12));
    return this.wrong(`no JSON of names, dtypes, shapes and offsets in UTF-8 (byte ${at}: ${found})`);
  }
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}
