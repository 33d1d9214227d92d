/** Files of labels as people keep them: read right, or refused with ERR_SENET_LABELS. */
import { mkdirSync, writeFileSync } from 'node:fs';

import { expect } from 'chai';
import fc from 'fast-check';

import { isSenetError } from '../../lib/errors';
import { readLabels } from '../../lib/vision/labels';
import { Entries, parseLiteral, type Literal } from '../../lib/vision/literal';
import { expectRejection } from '../support/errors';
import { Temporary } from '../support/temporary';

const NAMES = ['tench, Tinca tinca', "gold'fish", 'a "quoted" name', 'crane', 'crane', 'é – 金魚'];

describe('readLabels', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  const read = (content: string | Uint8Array): Promise<readonly string[]> => {
    writeFileSync(temporary.path('labels'), content);
    return readLabels(temporary.path('labels'));
  };
  const utf16be = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16();
  const entries = NAMES.map((name, index) => [index, name] as const);
  const object = Object.fromEntries(entries);
  const shuffled = [3, 0, 5, 2, 1, 4].map((index) => [index, NAMES[index] ?? ''] as const);
  const python = (text: string): string => (text.includes("'") ? JSON.stringify(text) : `'${text}'`);
  const lines = (separator: string): string =>
    entries.map(([index, name]) => `${index}${separator}${name}`).join('\n');

  const understood: Record<string, string | Uint8Array> = {
    lines: NAMES.join('\n'),
    'lines that end': NAMES.join('\n') + '\n\n\n',
    'lines of Windows': NAMES.join('\r\n') + '\r\n',
    'a byte-order mark': `\ufeff${NAMES.join('\n')}`,
    'UTF-16, little-endian': Buffer.from(`\ufeff${NAMES.join('\r\n')}`, 'utf16le'),
    'UTF-16, big-endian': utf16be(`\ufeff${NAMES.join('\n')}`),
    'an array': JSON.stringify(NAMES, null, 2),
    'an array behind a byte-order mark': `\ufeff${JSON.stringify(NAMES)}`,
    'an array in UTF-16': Buffer.from(`\ufeff${JSON.stringify(NAMES)}`, 'utf16le'),
    'an array with escapes': JSON.stringify(NAMES).replace(
      /[^\x20-\x7e]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
    ),
    'index to name': JSON.stringify(object),
    'index to name in another order': `{${shuffled.map(([index, name]) => `"${index}": ${JSON.stringify(name)}`).join()}}`,
    "Keras' imagenet_class_index.json": JSON.stringify(
      Object.fromEntries(entries.map(([index, name]) => [index, [`n0${index}`, name]])),
    ),
    'config.json of a model': JSON.stringify({
      architectures: ['X'],
      dropout: 0.5,
      id2label: object,
      label2id: null,
    }),
    'a Python dict': `{${entries.map(([index, name]) => `${index}: ${python(name)}`).join(',\n ')},}`,
    'a Python list': `[${NAMES.map(python).join(', ')}] # made by hand\n`,
    'Python tuples': `{${entries.map(([index, name]) => `${index}: ('n0${index}', ${python(name)})`).join()}}`,
    'tab-separated, index first': lines('\t'),
    'colon-separated, index first': lines(': '),
    'index and space': lines(' '),
    'tab-separated, index last': shuffled.map(([index, name]) => `${name}\t${index}`).join('\n'),
    'comma-separated, index last': shuffled.map(([index, name]) => `${name},${index}`).join('\n'),
  };
  for (const [what, content] of Object.entries(understood)) {
    it(`reads ${what}`, async () => {
      expect(await read(content)).to.deep.equal(NAMES);
    });
  }

  it('reads name to index', async () => {
    const names = ['cat', "dog's", '7', 'ant'];
    const expected = ["dog's", 'ant', 'cat', '7'];
    const places = names.map((name) => [name, expected.indexOf(name)] as const);
    expect(await read(JSON.stringify(Object.fromEntries(places)))).to.deep.equal(expected);
    expect(
      await read(`{${places.map(([name, index]) => `${python(name)}: ${index}`).join()}}`),
    ).to.deep.equal(expected);
    expect(await read('{"cat": "1", "dog": "0"}')).to.deep.equal(['dog', 'cat']);
  });

  it('leaves alone names that begin or end with a number', async () => {
    for (const names of [
      ['0', '1', '2'],
      ['10 speed bike', '3 wheeler'],
      ['1 cent', '2 cent', '5 cent'],
      ['Boeing 747', 'Boeing 707'],
      ['n01440764 tench', 'n01443537 goldfish'],
      ['12:30 bus', 'train'],
    ]) {
      expect(await read(names.join('\n'))).to.deep.equal(names);
    }
  });

  const refused: Record<string, [content: string | Uint8Array, message: RegExp]> = {
    'an empty file': ['', /no labels/],
    'blank lines': ['a\n\nb\n', /line 2 is blank/],
    'a first blank line': ['\na\nb\n', /line 1 is blank/],
    'an empty array': ['[]', /no labels/],
    'an empty object': ['{}', /no labels/],
    numbers: ['[0, 1, 2]', /entry 0 is 0/],
    'arrays of pairs': ['[["n01", "tench"]]', /entry 0 is an array/],
    'an index that is missing': ['{"0": "a", "2": "c"}', /index 1 is missing: expected 0 to 1, found 0 to 2/],
    'indices from 1': ['{"1": "a", "2": "b"}', /index 0 is missing/],
    'lines with indices from 1': ['1\ta\n2\tb\n', /index 0 is missing/],
    'a key twice': ['{"0": "a", "1": "b", "1": "c"}', /index 1 stands twice: for 'b' and 'c'/],
    'a Python key twice': ["{0: 'a', 0: 'b'}", /index 0 stands twice/],
    'an index twice': ['{"cat": 0, "dog": 0}', /index 0 stands twice/],
    'a key that is no index': ['{"0": "a", "one": "b"}', /expected a name for each index.*'one'/],
    'a negative index': ["{-1: 'a', 0: 'b'}", /expected a name for each index/],
    'a fraction': ['{"cat": 0.5, "dog": 0}', /expected a name for each index/],
    'numbers on both sides': ['{0: 1, 1: 0}', /expected a name for each index/],
    'no name': ['{"0": null}', /found '0': null/],
    'JSON that is cut': ['["a", "b"', /line 1, column 10: expected ',' or ']', found \\?"the end/],
    'JSON with more behind it': ['["a"] ["b"]', /nothing more/],
    'a call': ['dict(a=0)\n'.replace('dict', '['), /expected/],
    'Latin-1': [Buffer.from('caf\xe9\nth\xe9', 'latin1'), /UTF-8/],
    'UTF-16 without a mark': [Buffer.from('a\nb', 'utf16le'), /control character.*byte-order mark/],
    'a line as long as a book': ['x'.repeat(5000), /5000 characters/],
    'brackets without end': ['['.repeat(5000), /fewer brackets/],
    'an unknown escape': ["['\\q']", /escape/],
  };
  for (const [what, [content, message]] of Object.entries(refused)) {
    it(`refuses ${what}`, async () => {
      await expectRejection(read(content), 'ERR_SENET_LABELS', message);
    });
  }

  it('refuses what is no such file', async () => {
    await expectRejection(readLabels(temporary.path('none')), 'ERR_SENET_FILE_NOT_FOUND');
    mkdirSync(temporary.path('folder'));
    await expectRejection(readLabels(temporary.path('folder')), 'ERR_SENET_FILE', /found a folder/);
    await expectRejection(readLabels(['a', 7]), 'ERR_SENET_ARG_TYPE');
    await expectRejection(readLabels(new Array<string>(2)), 'ERR_SENET_ARG_TYPE');
  });

  it('answers any text with labels or a coded error, and quickly', async () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      '0',
      '1',
      ':',
      ',',
      '"a"',
      "'b'",
      '\\',
      '\n',
      '\t',
      ' ',
      'x',
      '#',
      '"',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 40 }), async (pieces) => {
        try {
          const labels = await read(pieces.join(''));
          expect(labels.length).to.be.above(0);
          for (const label of labels) expect(label).to.be.a('string');
        } catch (error) {
          if (!isSenetError(error)) throw error;
          expect(error.code).to.equal('ERR_SENET_LABELS');
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('parseLiteral', () => {
  const plain = (value: Literal): unknown =>
    value instanceof Entries
      ? Object.fromEntries(value.pairs.map(([key, inner]) => [key as string, plain(inner)]))
      : Array.isArray(value)
        ? (value as Literal[]).map(plain)
        : value;

  it('reads whatever JSON writes', () => {
    fc.assert(
      fc.property(fc.jsonValue({ depthSize: 'small' }), (value) => {
        const text = JSON.stringify(value);
        expect(plain(parseLiteral(text))).to.deep.equal(JSON.parse(text));
      }),
    );
  });

  it("reads Python's escapes", () => {
    expect(parseLiteral(String.raw`'\x41\u0042\U0001F600\n\'\"\\'`)).to.equal('AB\u{1f600}\n\'"\\');
    expect(plain(parseLiteral("{'a': (1, -2.5e1, True), 'b': None}"))).to.deep.equal({
      a: [1, -25, true],
      b: null,
    });
  });
});
