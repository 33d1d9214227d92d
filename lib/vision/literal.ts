/**
 * Values as JSON writes them, or Python: strings in either quotes, numbers, lists, tuples, dictionaries. Unlike
 * JSON.parse, dictionaries keep keys that stand twice. Nothing is evaluated.
 */

export type Literal = string | number | boolean | null | readonly Literal[] | Entries;

/** A dictionary, in the order of the text. */
export class Entries {
  constructor(readonly pairs: readonly (readonly [key: Literal, value: Literal])[]) {}
}

/** Brackets inside each other at most. */
const MAX_DEPTH = 32;
const CLOSING: Readonly<Record<string, string>> = { '[': ']', '(': ')', '{': '}' };
const WORDS: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  null: null,
  None: null,
};
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** @throws SyntaxError that says where */
export function parseLiteral(text: string): Literal {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class Reader {
  #at = 0;

  constructor(readonly text: string) {}

  value(depth: number): Literal {
    this.#skip();
    if (depth > MAX_DEPTH) throw this.#error('fewer brackets inside each other');
    const first = this.text[this.#at] ?? '';
    if (first in CLOSING) return this.#collection(first, depth);
    if (first === '"' || first === "'") return this.#string(first);
    const [word = ''] = this.#match(/[-+.\w]+/y) ?? [];
    if (Object.hasOwn(WORDS, word)) return WORDS[word] as boolean | null;
    if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(word)) return Number(word);
    this.#at -= word.length;
    throw this.#error('a value');
  }

  end(): void {
    this.#skip();
    if (this.#at < this.text.length) throw this.#error('nothing more');
  }

  #collection(opening: string, depth: number): Literal {
    const closing = CLOSING[opening] as string;
    const items: Literal[] = [];
    const pairs: [Literal, Literal][] = [];
    this.#at++;
    for (;;) {
      this.#skip();
      if (this.#take(closing)) break;
      const item = this.value(depth + 1);
      this.#skip();
      if (opening === '{') {
        if (!this.#take(':')) throw this.#error("':'");
        pairs.push([item, this.value(depth + 1)]);
        this.#skip();
      } else items.push(item);
      if (this.#take(',')) continue;
      if (this.#take(closing)) break;
      throw this.#error(`',' or '${closing}'`);
    }
    return opening === '{' ? new Entries(pairs) : items;
  }

  #string(quote: string): string {
    this.#at++;
    let value = '';
    for (;;) {
      value += this.#match(quote === '"' ? /[^"\\\n]*/y : /[^'\\\n]*/y)?.[0] ?? '';
      if (this.#take(quote)) return value;
      const [, code] = this.#match(/\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|["'\\/bfnrt])/y) ?? [];
      if (code === undefined) throw this.#error('the end of the string, or a known escape');
      const point = parseInt(code.slice(1), 16);
      if (code.length > 1 && point > 0x10ffff) throw this.#error('a character');
      value += code.length > 1 ? String.fromCodePoint(point) : (ESCAPES[code] ?? code);
    }
  }

  /** White space, and Python's comments. */
  #skip(): void {
    this.#match(/(?:\s+|#.*)*/y);
  }

  #take(character: string): boolean {
    if (this.text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.text);
    if (found !== null) this.#at = pattern.lastIndex;
    return found;
  }

  #error(expected: string): SyntaxError {
    const before = this.text.slice(0, this.#at).split('\n');
    const found = this.text.slice(this.#at, this.#at + 10) || 'the end';
    return new SyntaxError(
      `line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}: expected ${expected}, found ${JSON.stringify(found)}`,
    );
  }
}
