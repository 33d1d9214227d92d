/** The pickle reader: every opcode that PyTorch writes, and what hostile pickles get. */
import { expect } from 'chai';

import { Budget, inSlices, sliceRecord, sorted } from '../../lib/checkpoint/budget';
import {
  MAX_DEPTH,
  MAX_ENTRIES,
  MAX_MEMO_INDEX,
  MAX_PICKLE_OPCODES,
  PIECE_BYTES,
} from '../../lib/checkpoint/limits';
import { loadCheckpoint } from '../../lib/checkpoint/load';
import { readPickle } from '../../lib/checkpoint/pickle';
import { EndOfPickle } from '../../lib/checkpoint/pickle-input';
import { TorchHost } from '../../lib/checkpoint/torch-globals';
import {
  Complex,
  Dict,
  GlobalName,
  LongText,
  NumpyRecord,
  Tuple,
  UnknownObject,
  unknownGlobal,
  type Value,
} from '../../lib/checkpoint/values';
import { isSenetError, type ErrorCode } from '../../lib/errors';
import { bytesOf, expectCode, parse, uint32, uint64, zipCheckpoint } from '../support/checkpoint-files';
import { colliding } from '../support/colliding-numbers';

const noStorages = {
  find(): never {
    throw new Error('a storage was asked for');
  },
};

async function read(...parts: (number | string | Uint8Array)[]): Promise<Value> {
  const bytes = bytesOf(...parts);
  const host = new TorchHost('test', noStorages);
  const result = await readPickle({ bytes, host, budget: new Budget('test'), label: 'test' });
  expect(result.end).to.equal(bytes.length);
  return result.value;
}

async function refusal(
  ...parts: (number | string | Uint8Array)[]
): Promise<{ code: string; message: string }> {
  try {
    await read(...parts);
  } catch (error) {
    if (error instanceof EndOfPickle) return { code: 'end', message: String(error.needed) };
    if (isSenetError(error)) return error;
    throw error;
  }
  throw new Error('the pickle was read');
}

const joined = (value: Value | undefined): string | null =>
  value instanceof LongText ? value.toString() : null;

describe('checkpoint: large values', () => {
  it('a dictionary of more than one table keeps its order, and each key once', async () => {
    const COUNT = 140_000;
    const pair = (key: number, value: number): Buffer => bytesOf('J', uint32(key), 'J', uint32(value));
    const pairs = Array.from({ length: COUNT }, (_, i) => pair((i * 7919) % COUNT, i));
    const dict = (await read('}(', Buffer.concat(pairs), pair(0, 7), pair(1, 8), 'u.')) as Dict;
    expect(dict.size).to.equal(COUNT);
    const keys = [...dict.keys()];
    expect(keys.every((key, i) => key === (i * 7919) % COUNT)).to.equal(true);
    expect([dict.get(0), dict.get(1), dict.has(COUNT - 1), dict.has(COUNT)]).to.deep.equal([
      7,
      8,
      true,
      false,
    ]);
    expect([...dict.values()].filter((value, i) => value !== i)).to.have.length(2);
  });

  it('loadCheckpoint gives a dictionary or set of so many entries, and refuses a larger one', async () => {
    const numbers = (count: number, value: string): Buffer =>
      Buffer.concat(Array.from({ length: count }, (_, i) => bytesOf('J', uint32(i), value)));
    const dictOf = (count: number): Promise<Buffer> =>
      zipCheckpoint(bytesOf('}(', numbers(count, 'N'), 'u.'));
    const setOf = (count: number): Promise<Buffer> =>
      zipCheckpoint(bytesOf('c__builtin__\nset\n](', numbers(count, ''), 'e', 0x85, 'R.'));
    for (const make of [dictOf, setOf]) {
      const given = (await loadCheckpoint(await make(MAX_ENTRIES))) as Map<number, null> | Set<number>;
      expect(given.size).to.equal(MAX_ENTRIES);
      const refused = await make(MAX_ENTRIES + 1);
      await expectCode(() => loadCheckpoint(refused), 'ERR_SENET_CHECKPOINT_LIMIT', /more than 131072/);
    }
  });

  it('a list, a tuple and arguments of several pages are whole', async () => {
    const items = Array.from({ length: 10_000 }, (_, i) => bytesOf('J', uint32(i)));
    const expected = Array.from({ length: 10_000 }, (_, i) => i);
    expect(await read('(', ...items, 'l.')).to.deep.equal(expected);
    expect(await read('](', ...items, 'e.')).to.deep.equal(expected);
    expect(((await read('N(', ...items, 't', 0x86, '.')) as Tuple).items[1]).to.deep.equal(
      new Tuple(expected),
    );
    expect((await refusal('(cm\nC\n', ...items, 'o.')).code).to.equal('ERR_SENET_CHECKPOINT_LIMIT');
  });

  it('long texts and what they encode are whole', async () => {
    const characters = 'aé\xff'.repeat(300_000);
    const utf8 = Buffer.from(characters);
    const unicode = bytesOf('X', uint32(utf8.length), utf8);
    expect(joined(await read(unicode, '.'))).to.equal(characters);
    expect(joined(await read('T', uint32(utf8.length), utf8, '.'))).to.equal(characters);
    const latin1 = bytesOf('X', uint32(6), 'latin1');
    const bytes = (await read('c_codecs\nencode\n', unicode, latin1, 0x86, 'R.')) as Uint8Array;
    expect(Buffer.from(bytes).equals(Buffer.from(characters, 'latin1'))).to.equal(true);
    const copy = (await read('cbuiltins\nbytearray\nB', uint32(utf8.length), utf8, 0x85, 'R.')) as Uint8Array;
    expect(utf8.equals(copy)).to.equal(true);
    const odd = Buffer.alloc(900_000, 0xff);
    expect(odd.equals((await read('T', uint32(odd.length), odd, '.')) as Uint8Array)).to.equal(true);
    const euro = Buffer.from('€'.repeat(300_000));
    const refused = await refusal('c_codecs\nencode\nX', uint32(euro.length), euro, latin1, 0x86, 'R.');
    expect(refused.message).to.match(/outside latin1/);
  });

  it('are sorted as toSorted sorts, equal ones in the order given', async () => {
    const items = Array.from({ length: 5000 }, (_, i) => ({ at: (i * 7919) % 600, i }));
    const byPlace = (a: { at: number }, b: { at: number }): number => a.at - b.at;
    const budget = new Budget('test');
    for (const given of [items, items.slice(0, 1), [], [...items].sort(byPlace)]) {
      expect(await inSlices(budget, sorted(given, byPlace, budget))).to.deep.equal([...given].sort(byPlace));
    }
  });

  it('text of Python 2 that is the data of an array of NumPy, in slices', async () => {
    const text = Buffer.from('aé€😀'.repeat(150_000));
    const array = (...data: (number | string | Uint8Array)[]): (number | string | Uint8Array)[] => [
      ...['cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK', 0, 0x85, 'U', 1, 'btR'],
      ...['(K', 1, 'J', uint32(text.length), 0x85, 'cnumpy\ndtype\nU', 2, 'u1', 0x85, 'R', 0x89],
      ...[...data, 'tb.'],
    ];
    const turns = sliceRecord.turns;
    const record = (await read(...array('T', uint32(text.length), text))) as NumpyRecord;
    expect(record).to.be.instanceOf(NumpyRecord);
    expect(text.equals(record.data as Uint8Array)).to.equal(true);
    // Once to read it and once to encode it, a piece at a time.
    expect(sliceRecord.turns - turns).to.be.at.least(2 * Math.floor(text.length / PIECE_BYTES));
    // Each time it is used is another copy, and counts.
    const again = bytesOf('(K', 1, 'J', uint32(text.length), 0x85, 'h', 1, 0x89, 'h', 2, 'tb');
    const { code } = await refusal(
      ...['T', uint32(text.length), text, 'q', 2, 'cnumpy\ndtype\nU', 2, 'u1', 0x85, 'Rq', 1],
      ...['cnumpy.core.multiarray\n_reconstruct\n)R', Buffer.alloc(200 * again.length, again), '.'],
    );
    expect(code).to.equal('ERR_SENET_CHECKPOINT_LIMIT');
  });

  it('an element type of NumPy of a million characters is only a name', async () => {
    const scalar = (type: string, size: number): (number | string | Uint8Array)[] => [
      ...['cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nU', type.length, type, 0x85, 'R'],
      ...['B', uint32(size), Buffer.alloc(size), 'tR.'],
    ];
    expect(await read(...scalar('U16384', 4 * 16_384))).to.equal('');
    expect(await read(...scalar('U999999', 4 * 999_999))).to.be.instanceOf(UnknownObject);
    expect(await read(...scalar('S999999', 999_999))).to.be.instanceOf(UnknownObject);
  });

  describe('numbers that share a place of a table', () => {
    const COUNT = 3000;
    const collidingNumbers = colliding(COUNT);
    const kinds: [name: string, numbers: (count: number) => Buffer][] = [
      [
        'integers',
        (count) => bytesOf(...collidingNumbers.integers.slice(0, count).map((key) => integer(key))),
      ],
      ['floats', (count) => bytesOf(...collidingNumbers.floats.slice(0, count).map((key) => float(key)))],
      ['long integers', (count) => bytesOf(...Array.from({ length: count }, (_, i) => long(i)))],
    ];
    const integer = (key: number): Buffer => bytesOf('J', uint32(key >>> 0));
    const float = (key: number): Buffer => {
      const bytes = Buffer.alloc(9, 'G');
      bytes.writeDoubleBE(key, 1);
      return bytes;
    };
    // The lowest 64 bits are the same.
    const long = (key: number): Buffer => bytesOf(0x8a, 12, Buffer.alloc(8, 7), uint32(key));

    for (const [name, numbers] of kinds) {
      it(`${name} are refused once there are many`, async () => {
        const { code, message } = await refusal('c__builtin__\nset\n](', numbers(COUNT), 'e', 0x85, 'R.');
        expect([code, /share a place/.test(message)], message).to.deep.equal([
          'ERR_SENET_CHECKPOINT_LIMIT',
          true,
        ]);
        const few = (await read('c__builtin__\nset\n](', numbers(1000), 'e', 0x85, 'R.')) as Set<Value>;
        expect(few.size).to.equal(1000);
      });
    }

    it('numbers that nobody chose, and one that is set again and again, are read', async () => {
      const pairs = Array.from({ length: 200_000 }, (_, i) =>
        bytesOf(i % 2 ? integer(i) : float(i / 7), 'N'),
      );
      const same = Array.from({ length: 2000 }, () => bytesOf(integer(5), 'N'));
      const dict = (await read('}(', Buffer.concat([...pairs, ...same]), 'u.')) as Dict;
      expect(dict.size).to.equal(200_000);
    });
  });
});

describe('checkpoint: pickle values', () => {
  const cases: [string, (number | string | Uint8Array)[], unknown][] = [
    ['None', ['N.'], null],
    ['True and False', [0x88, 0x89, 0x86, '.'], new Tuple([true, false])],
    ['BININT1', ['K', 255, '.'], 255],
    ['BININT2', ['M', 0xff, 0xff, '.'], 65535],
    ['BININT', ['J', uint32(0xffffffff), '.'], -1],
    ['LONG1 empty', [0x8a, 0, '.'], 0],
    ['LONG1 negative', [0x8a, 1, 0x80, '.'], -128],
    ['LONG1 of 7 bytes', [0x8a, 7, Buffer.from('ffffffffffff1f', 'hex'), '.'], 2 ** 53 - 1],
    ['LONG1 beyond 2**53', [0x8a, 8, uint64(2n ** 60n), '.'], 2n ** 60n],
    ['LONG4', [0x8b, uint32(2), 1, 1, '.'], 257],
    ['INT', ['I-12\n.'], -12],
    ['INT as boolean', ['I01\n.'], true],
    ['LONG', ['L1180591620717411303424L\n.'], 2n ** 70n],
    ['BINFLOAT', ['G', Buffer.from('3ff8000000000000', 'hex'), '.'], 1.5],
    ['FLOAT', ['F-2.5e3\n.'], -2500],
    ['FLOAT inf', ['F-inf\n.'], -Infinity],
    ['BINUNICODE', ['X', uint32(3), 'aé', '.'], 'aé'],
    ['BINUNICODE of U+FFFD', ['X', uint32(3), '\ufffd', '.'], '\ufffd'],
    ['SHORT_BINUNICODE', [0x8c, 1, 'a.'], 'a'],
    ['BINUNICODE8', [0x8d, uint64(1), 'a.'], 'a'],
    ['UNICODE', ['Va\\u00e9\n.'], 'aé'],
    ['STRING', ["S'a\\x62\\n'\n."], 'ab\n'],
    ['SHORT_BINSTRING as text', ['U', 3, 'aé', '.'], 'aé'],
    ['SHORT_BINSTRING as bytes', ['U', 1, 0xff, '.'], Uint8Array.of(255)],
    ['BINSTRING', ['T', uint32(1), 'a.'], 'a'],
    ['SHORT_BINBYTES', ['C', 1, 0xff, '.'], Uint8Array.of(255)],
    ['BINBYTES', ['B', uint32(1), 'a.'], Uint8Array.of(97)],
    ['BINBYTES8', [0x8e, uint64(1), 'a.'], Uint8Array.of(97)],
    ['BYTEARRAY8', [0x96, uint64(1), 'a.'], Uint8Array.of(97)],
    ['LIST and APPEND', ['(K', 1, 'lK', 2, 'a.'], [1, 2]],
    ['APPENDS', ['](K', 1, 'K', 2, 'e.'], [1, 2]],
    ['sets', [0x8f, '(K', 1, 'K', 1, 0x90, '.'], new Set([1])],
    ['FROZENSET', ['(K', 1, 0x91, '.'], new Set([1])],
    ['memo', ['K', 7, 'q', 0, '0h', 0, '.'], 7],
    ['LONG_BINPUT', ['K', 7, 'r', uint32(300), '0j', uint32(300), '.'], 7],
    ['PUT and GET', ['K', 7, 'p1\n0g1\n.'], 7],
    ['MEMOIZE and FRAME', [0x80, 4, 0x95, uint64(5), 'K', 7, 0x94, 'h', 0, '.'], 7],
    ['DUP', ['K', 7, '2', 0x86, '.'], new Tuple([7, 7])],
    ['POP_MARK', ['K', 7, '(K', 1, '1.'], 7],
    [
      'bytes of protocol 2',
      ['c_codecs\nencode\nX', uint32(3), 'aÿ', 'X', uint32(6), 'latin1', 0x86, 'R.'],
      Uint8Array.of(97, 255),
    ],
    ['bytearray of Python 2', ['c__builtin__\nbytearray\n)R.'], new Uint8Array()],
    ['set of protocol 2', ['c__builtin__\nset\n](K', 3, 'e', 0x85, 'R.'], new Set([3])],
    [
      'complex',
      ['c__builtin__\ncomplex\nG', Buffer.alloc(8), 'G', Buffer.from('3ff8000000000000', 'hex'), 0x86, 'R.'],
      new Complex(0, 1.5),
    ],
    ['torch.Size', ['ctorch\nSize\nK', 2, 'K', 3, 0x86, 0x85, 'R.'], new Tuple([2, 3])],
    ['torch.device', ['ctorch\ndevice\nX', uint32(4), 'cudaK', 1, 0x86, 'R.'], 'cuda:1'],
    ['a dtype', ['ctorch\nbfloat16\n.'], new GlobalName('torch.bfloat16')],
    [
      'STACK_GLOBAL',
      [0x8c, 5, 'torch', 0x8c, 4, 'half', '0', 0x8c, 7, 'float16', 0x93, '.'],
      new GlobalName('torch.float16'),
    ],
  ];
  for (const [name, parts, value] of cases) {
    it(name, async () => expect(await read(...parts)).to.deep.equal(value));
  }

  it('tuples inside tuples', async () => {
    expect(await read(')K', 1, 'K', 2, 'K', 3, 0x87, 0x86, '.')).to.deep.equal(
      new Tuple([new Tuple([]), new Tuple([1, 2, 3])]),
    );
  });

  it('keys that mean something to JavaScript objects are only keys', async () => {
    const dict = (await read(
      '}(X',
      uint32(9),
      '__proto__K',
      1,
      'X',
      uint32(11),
      'constructorK',
      2,
      'u.',
    )) as Dict;
    expect([...dict]).to.deep.equal([
      ['__proto__', 1],
      ['constructor', 2],
    ]);
    expect(Object.getPrototypeOf(dict)).to.equal(Dict.prototype);
    expect(({} as Record<string, unknown>).polluted).to.equal(undefined);
  });

  it('a list that holds itself', async () => {
    const list = (await read(']q', 0, 'h', 0, 'a.')) as Value[];
    expect(list[0]).to.equal(list);
  });

  it('an OrderedDict with _metadata, and one of pairs as Python 2 wrote it', async () => {
    const dict = (await read(
      'ccollections\nOrderedDict\n]](K',
      1,
      'K',
      2,
      'ea',
      0x85,
      'R}X',
      uint32(9),
      '_metadataK',
      5,
      'sb.',
    )) as Dict;
    expect([...dict]).to.deep.equal([[1, 2]]);
    expect(dict.metadata).to.equal(5);
  });
});

describe('checkpoint: hostile pickles', () => {
  const names: [string, (number | string | Uint8Array)[], string][] = [
    ['GLOBAL', ['cposix\nsystem\n.'], 'posix.system'],
    ['builtins', ['c__builtin__\neval\n.'], 'builtins.eval'],
    ['INST', ["(S'x'\nios\nsystem\n."], 'os.system'],
    ['OBJ', ["(cos\nsystem\nS'x'\no."], 'os.system'],
    ['REDUCE', ['cos\nsystem\nX', uint32(1), 'x', 0x85, 'R.'], 'os.system'],
    ['REDUCE of what came of one', ['c__builtin__\ngetattr\n)R)R.'], 'builtins.getattr'],
    ['NEWOBJ', ['cargparse\nNamespace\n)', 0x81, '.'], 'argparse.Namespace'],
    ['NEWOBJ_EX', ['cm\nC\n)}X', uint32(1), 'aNs', 0x92, '.'], 'm.C'],
    ['a class of the old kind', ['ccopy_reg\n_reconstructor\n(cm\nC\nc__builtin__\nobject\nNtR.'], 'm.C'],
    ['STACK_GLOBAL', [0x8c, 10, 'subprocess', 0x8c, 5, 'Popen', 0x93, '.'], 'subprocess.Popen'],
    ['a dotted name', [0x8c, 5, 'torch', 0x8c, 14, 'os.path.expand', 0x93, '.'], 'torch.os.path.expand'],
    ['a class of NumPy', ['cnumpy\nfloat64\n.'], 'numpy.float64'],
    ['defaultdict', ['ccollections\ndefaultdict\n.'], 'collections.defaultdict'],
    ['a whole module', ['ctorch.nn.modules.linear\nLinear\n.'], 'torch.nn.modules.linear.Linear'],
    ['a name of Object.prototype', ['ctorch\nconstructor\n.'], 'torch.constructor'],
    ['a tensor over one', ['ctorch._utils\n_rebuild_tensor_v2\n(cm\nC\nK', 0, '))', 0x89, 'NtR.'], 'm.C'],
    ['a parameter over one', ['ctorch._utils\n_rebuild_parameter\n(cm\nC\n)R', 0x88, 'NtR.'], 'm.C'],
    ['a dictionary of one', ['ccollections\nOrderedDict\ncm\nC\n', 0x85, 'R.'], 'm.C'],
    [
      'a tensor of a class of its own',
      ['ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\ncm\nC\n)NtR.'],
      'm.C',
    ],
  ];
  for (const [name, parts, global] of names) {
    it(`${name} is a name and nothing else`, async () => {
      const value = await read(...parts);
      expect(value).to.satisfy((one: Value) => one instanceof GlobalName || one instanceof UnknownObject);
      expect(unknownGlobal(value)).to.equal(global);
      expect(Object.getOwnPropertyNames(value)).to.not.include('a');
      // As a file it is refused, since nothing else is in it.
      const file = await zipCheckpoint(bytesOf(...parts));
      await expectCode(
        () => parse(file),
        'ERR_SENET_CHECKPOINT_UNSAFE',
        new RegExp(`'${global.replaceAll('.', '\\.')}'`),
      );
    });
  }

  it('what a file gives an unknown object is recorded in it and changes nothing else', async () => {
    const value = (await read(
      'cm\nC\n)R}X',
      uint32(9),
      '__proto__}X',
      uint32(8),
      'pollutedK',
      1,
      'ssb(K',
      5,
      'eX',
      uint32(11),
      'constructorK',
      2,
      's.',
    )) as UnknownObject;
    expect(value.items).to.deep.equal([5]);
    expect([...(value.entries ?? [])]).to.deep.equal([['constructor', 2]]);
    expect([...(value.state as Dict).keys()]).to.deep.equal(['__proto__']);
    expect(Object.getPrototypeOf(value)).to.equal(UnknownObject.prototype);
    expect(({} as Record<string, unknown>).polluted).to.equal(undefined);
  });

  it('storages and element types that are unknown are refused by name', async () => {
    const storage = ['(X', uint32(7), 'storagecm\nC\nX', uint32(1), '0X', uint32(3), 'cpuK', 1, 'tQ.'];
    const { code, message } = await refusal(...storage);
    expect(code).to.equal('ERR_SENET_CHECKPOINT_UNSAFE');
    expect(message).to.contain("'m.C'");
    expect((await refusal('cm\nC\nQ.')).code).to.equal('ERR_SENET_CHECKPOINT_UNSAFE');
  });

  it('names with control characters are escaped in messages', async () => {
    const { message } = await refusal('cos\n\u001b[31m\nQ.');
    expect(message).to.contain('os.\\u{1b}[31m').and.not.contain('\u001b');
  });

  it('extension codes are refused', async () => {
    expect((await refusal(0x82, 1, '.')).code).to.equal('ERR_SENET_CHECKPOINT_UNSAFE');
  });

  const table: [string, (number | string | Uint8Array)[], ErrorCode | 'end'][] = [
    ['nothing', [], 'end'],
    ['no STOP', ['N'], 'end'],
    ['STOP on an empty stack', ['.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['STOP inside a mark', ['N(.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['protocol 6', [0x80, 6, 'N.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['an unknown opcode', [0xff, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a frame longer than the file', [0x95, uint64(2n ** 63n), 'N.'], 'end'],
    ['BINUNICODE of 4 GB', ['X', uint32(0xffffffff), 'a.'], 'end'],
    ['BINUNICODE8 of 2**64 - 1', [0x8d, uint64(2n ** 64n - 1n), 'a.'], 'end'],
    ['BINBYTES8 of 2**63', [0x8e, uint64(2n ** 63n), 'a.'], 'end'],
    ['BINSTRING of a negative length', ['T', uint32(0xffffffff), '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['LONG4 of a negative length', [0x8b, uint32(0xffffffff), '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['LONG4 of 2 GB', [0x8b, uint32(0x7fffffff), '.'], 'end'],
    ['LONG4 of 2000 bytes', [0x8b, uint32(2000), Buffer.alloc(2000, 1), '.'], 'ERR_SENET_CHECKPOINT_LIMIT'],
    ['LONG of 5000 digits', [`L${'9'.repeat(5000)}L\n.`], 'ERR_SENET_CHECKPOINT_LIMIT'],
    ['INT of words', ['Iabc\n.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['FLOAT of words', ['Fabc\n.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a line without an end', ['c', 'a'.repeat(100)], 'end'],
    ['a line of 100 KB', ['c', 'a'.repeat(100_000), '\n.'], 'ERR_SENET_CHECKPOINT_LIMIT'],
    ['a string that is no UTF-8', ['X', uint32(1), 0xff, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a string without quotes', ['Sabc\n.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a memo entry that is not there', ['h', 3, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a memo index beyond the limit', ['Nr', uint32(MAX_MEMO_INDEX + 1), '.'], 'ERR_SENET_CHECKPOINT_LIMIT'],
    ['APPEND to a tuple', [')Na.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['SETITEM in a list', [']NNs.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['SETITEMS with an odd count', ['}(Nu.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['DICT with an odd count', ['(Nd.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['ADDITEMS to None', ['N(K', 1, 0x90, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a list as a key', ['}]Ns.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a tuple of a list as a key', ['}]', 0x85, 'Ns.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['TUPLE3 of two', ['NN', 0x87, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['TUPLE across a mark', ['N(N', 0x86, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['TUPLE without a mark', ['Nt.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['REDUCE of text', ['X', uint32(1), 'a)R.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['REDUCE with a list', ['ccollections\nOrderedDict\n]R.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['REDUCE of a dtype', ['ctorch\nfloat32\n)R.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    [
      'NEWOBJ_EX with keywords',
      ['ctorch\nSize\n)}X', uint32(1), 'aNs', 0x92, '.'],
      'ERR_SENET_CHECKPOINT_FORMAT',
    ],
    ['BUILD of a list', [']}b.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a persistent id that is text', ['X', uint32(1), 'aQ.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a persistent id in text', ['Pstorage\n.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['a persistent module', ['X', uint32(6), 'module', 0x85, 'Q.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    ['NEXT_BUFFER', [0x97, '.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    [
      'bytearray of a number',
      ['c__builtin__\nbytearray\nJ', uint32(0x7fffffff), 0x85, 'R.'],
      'ERR_SENET_CHECKPOINT_FORMAT',
    ],
    [
      'encode to another encoding',
      ['c_codecs\nencode\nX', uint32(1), 'aX', uint32(5), 'rot13', 0x86, 'R.'],
      'ERR_SENET_CHECKPOINT_FORMAT',
    ],
    ['a set of lists', ['c__builtin__\nset\n](]e', 0x85, 'R.'], 'ERR_SENET_CHECKPOINT_FORMAT'],
    [
      'a tensor over None',
      ['ctorch._utils\n_rebuild_tensor_v2\n(NK', 0, '))', 0x89, 'NtR.'],
      'ERR_SENET_CHECKPOINT_FORMAT',
    ],
    [
      '_rebuild_from_type_v2 of a class',
      ['ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nctorch\nTensor\n)NtR.'],
      'ERR_SENET_CHECKPOINT_FORMAT',
    ],
  ];
  for (const [name, parts, code] of table) {
    it(`${name}: ${code}`, async () => expect((await refusal(...parts)).code).to.equal(code));
  }

  it('an error tells the byte', async () => {
    expect((await refusal('NNN', 0xff, '.')).message).to.match(/0xff is known, at byte 3$/);
  });

  it('calls that copy one list again and again end at a limit, with little memory', async () => {
    // 10,000 items, copied 10,000 times.
    const list = ['](', Buffer.alloc(20_000, 'K\u0001'), 'eq', 0];
    const calls = Buffer.from('c__builtin__\nset\nh\u0000\u0085R0'.repeat(10_000), 'latin1');
    const before = process.memoryUsage().rss;
    expect((await refusal(...list, calls, 'N.')).code).to.equal('ERR_SENET_CHECKPOINT_LIMIT');
    expect(process.memoryUsage().rss - before).to.be.below(300e6);
  });

  it('a billion laughs is read once for each level', async () => {
    // l0 = []; each next list holds the one before ten times: 10**100 paths.
    const levels = Array.from({ length: 100 }, (_, i) =>
      bytesOf('](', bytesOf('h', i).toString('latin1').repeat(10), 'eq', i + 1),
    );
    const parsed = await parse(await zipCheckpoint(bytesOf(']q', 0, ...levels, '.')));
    expect(parsed.tensors).to.deep.equal([]);
  });

  it('more opcodes than the limit', async () => {
    expect((await refusal(Buffer.alloc(2 * MAX_PICKLE_OPCODES, 'N0'))).code).to.equal(
      'ERR_SENET_CHECKPOINT_LIMIT',
    );
  });

  it('nesting deeper than the limit, by any way down', async () => {
    const deep = bytesOf(Buffer.alloc(MAX_DEPTH + 1, ']'), Buffer.alloc(MAX_DEPTH, 'a'), '.');
    await expectCode(async () => parse(await zipCheckpoint(deep)), 'ERR_SENET_CHECKPOINT_LIMIT', /nested/);
    const many = bytesOf(Buffer.alloc(500_000, ']'), Buffer.alloc(499_999, 'a'), '.');
    await expectCode(async () => parse(await zipCheckpoint(many)), 'ERR_SENET_CHECKPOINT_LIMIT', /nested/);
    // Each list holds the one before; the outermost names the shallowest first, so a walk meets each at depth 1.
    const steps = Array.from({ length: 250 }, (_, i) => bytesOf(']h', i, 'aq', i + 1, '0')).slice(0, 250);
    const all = Array.from({ length: 250 }, (_, i) => bytesOf('h', i));
    const ladder = bytesOf(']q', 0, '0', ...steps, '](', ...all, 'e.');
    await expectCode(async () => parse(await zipCheckpoint(ladder)), 'ERR_SENET_CHECKPOINT_LIMIT', /nested/);
    const allowed = bytesOf(Buffer.alloc(MAX_DEPTH, ']'), Buffer.alloc(MAX_DEPTH - 1, 'a'), '.');
    expect((await parse(await zipCheckpoint(allowed))).tensors).to.deep.equal([]);
  });
});
