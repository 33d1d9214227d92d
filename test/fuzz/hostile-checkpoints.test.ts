/**
 * Files that make as much as they can of their bytes: one value an opcode, tables that double, long headers, texts that
 * or numbers that collide. Each is read or refused in a process of its own, which measures what that took: memory, and how
 * long the JavaScript thread went without a turn of the event loop, with V8's collections. That is the thread's own
 * processor time, which other processes hardly lengthen; the collections alone, in milliseconds of the clock, are printed
 * beside it.
 */
import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

import { DIST } from '../support/built';
import { bytesOf, deflatedZip, uint32, uint64, zipCheckpoint, zipOf } from '../support/checkpoint-files';
import { colliding } from '../support/colliding-numbers';
import { Temporary } from '../support/temporary';

const MEMORY_BYTES = 300e6;
const BLOCKED_MS = 50;
const COUNT = 3_900_000;

const CHILD = `
const [, , file, root, from] = process.argv;
const { load, loadCheckpoint, inspectCheckpoint } = require(root + '/dist');
const { openSync, readFileSync, readSync } = require('node:fs');
const { performance, PerformanceObserver } = require('node:perf_hooks');
const high = () => Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
// Nanoseconds on a processor of this process's first thread, which is JavaScript's.
const clock = openSync('/proc/self/task/' + process.pid + '/schedstat');
const text = Buffer.alloc(100);
const cpu = () => Number(text.toString('latin1', 0, readSync(clock, text, 0, 100, 0)).split(' ')[0]) / 1e6;
const collections = [];
new PerformanceObserver((list) => collections.push(...list.getEntries())).observe({ entryTypes: ['gc'] });
async function main() {
  await loadCheckpoint(root + '/test/fixtures/checkpoints/views.pt');
  const source = from === 'bytes' ? readFileSync(file) : file;
  const before = high();
  const turns = [];
  let last = { at: performance.now(), cpu: cpu() };
  let reading = true;
  const turn = () => {
    const now = { at: performance.now(), cpu: cpu() };
    turns.push([last.at, now.at, now.cpu - last.cpu]);
    last = now;
    if (reading) setImmediate(turn);
  };
  turn();
  const results = [];
  let given = 0;
  for (const read of [load, loadCheckpoint, inspectCheckpoint]) {
    // What the one before left is not this one's.
    gc();
    last = { at: performance.now(), cpu: cpu() };
    const value = await read(source).then((value) => (results.push('read'), value), (error) => void results.push(error.code ?? String(error)));
    if (read === load) for (const tensor of value?.values() ?? []) given += tensor.numel * 4;
    if (read !== inspectCheckpoint) for (const tensor of value?.values?.() ?? []) tensor?.dispose?.();
  }
  const bytes = high() - before - given;
  reading = false;
  await new Promise((resolve) => setTimeout(resolve, 20));
  const most = (numbers) => numbers.reduce((a, b) => Math.max(a, b), 0);
  const inTurns = collections.filter(({ startTime }) => turns.some(([from, to]) => startTime >= from && startTime <= to));
  const collecting = most(inTurns.map(({ duration }) => duration));
  console.log(JSON.stringify({ results, bytes, blocked: most(turns.map(([, , used]) => used)), collecting }));
}
void main();
`;

interface Measured {
  results: string[];
  bytes: number;
  /** Milliseconds of the thread in the longest turn, and of the clock in the longest collection. */
  blocked: number;
  collecting: number;
}

const repeat = (piece: Buffer, count: number): Buffer => Buffer.alloc(piece.length * count, piece);
const inList = (...parts: Uint8Array[]): Promise<Buffer> =>
  zipCheckpoint(bytesOf(0x80, 2, '](', ...parts, 'e.'));
const numbered = (count: number, opcode: number, last: string): Buffer => {
  const size = 5 + last.length;
  const bytes = Buffer.alloc(count * size, last);
  for (let i = 0; i < count; i++) {
    bytes[i * size] = opcode;
    bytes.writeUInt32LE(i, i * size + 1);
  }
  return bytes;
};
const withHeader = (header: Buffer, data = 0): Buffer =>
  Buffer.concat([uint64(header.length), header, Buffer.alloc(data)]);
const text = (value: string): Buffer => bytesOf('U', value.length, value);
/** `{name: tensor}` for so many tensors, each over the storage that `keyOf` names. */
const tensors = (count: number, keyOf: (index: number) => string): Buffer =>
  Buffer.concat([
    bytesOf('}('),
    ...Array.from({ length: count }, (_, i) =>
      bytesOf(
        ...[
          text(`t${i}`),
          'ctorch._utils\n_rebuild_tensor_v2\n((',
          text('storage'),
          'ctorch\nFloatStorage\n',
        ],
        ...[text(keyOf(i)), text('cpu'), 'K', 1, 'tQK', 0, '))', 0x89, '}tR'],
      ),
    ),
    bytesOf('u.'),
  ]);

/** 100 MB of one tensor. */
const largeStorage = (isDeflated: boolean): Buffer | Promise<Buffer> => {
  const elements = 25e6;
  const tensor = bytesOf(
    ...['}', text('w'), 'ctorch._utils\n_rebuild_tensor_v2\n((', text('storage')],
    ...['ctorch\nFloatStorage\n', text('0'), text('cpu'), 'J', uint32(elements), 'tQK', 0],
    ...['J', uint32(elements), 0x85, 'K', 1, 0x85, 0x89, '}tRs.'],
  );
  const content = Buffer.alloc(4 * elements);
  // Weights hardly shrink, and what shrinks more is refused.
  content.set(randomBytes(5e6));
  const others = { 'x/data/0': content };
  return isDeflated ? deflatedZip({ 'x/data.pkl': tensor, ...others }) : zipCheckpoint(tensor, others);
};

const files: Record<string, () => Buffer | Promise<Buffer>> = {
  'empty dictionaries': () => inList(repeat(bytesOf('}'), COUNT)),
  'empty lists': () => inList(repeat(bytesOf(']'), COUNT)),
  'empty tuples': () => inList(repeat(bytesOf(')'), COUNT)),
  'empty sets': () => inList(repeat(bytesOf(0x8f), COUNT)),
  'lists of one': () => inList(repeat(bytesOf(']Na'), COUNT)),
  'dictionaries of one': () => inList(repeat(bytesOf('}NNs'), COUNT)),
  'bytearrays of nothing': () =>
    inList(bytesOf('cbuiltins\nbytearray\nq', 0), repeat(bytesOf('h', 0, ')R'), COUNT)),
  'unknown objects': () => inList(bytesOf('cm\nC\nq', 0), repeat(bytesOf('h', 0, ')R'), COUNT)),
  'bytes of one': () => inList(repeat(bytesOf('C', 1, 'a'), COUNT)),
  numbers: () => inList(repeat(bytesOf('G', Buffer.alloc(8)), COUNT)),
  'long integers': () => inList(repeat(bytesOf(0x8a, 9, Buffer.alloc(8, 0xff), 0x7f), COUNT)),
  texts: () => inList(repeat(bytesOf('U', 8, 'abcdefgh'), COUNT)),
  globals: () => inList(repeat(bytesOf('cm\nC\n'), COUNT)),
  Nones: () => inList(repeat(bytesOf('N'), COUNT)),
  'a memo': () => inList(bytesOf('N'), numbered(COUNT, 0x72, '')),
  'a sparse memo': () =>
    inList(bytesOf('N'), ...Array.from({ length: 900 }, (_, i) => bytesOf('r', uint32(i * 4096)))),
  'one dictionary': () => zipCheckpoint(bytesOf('}(', numbered(COUNT / 2, 0x4a, 'N'), 'u.')),
  'one set of a list': () =>
    zipCheckpoint(bytesOf('c__builtin__\nset\n](', numbered(500_000, 0x4a, ''), 'e', 0x85, 'R.')),
  'long texts': () =>
    inList(...Array.from({ length: 4 }, () => bytesOf('X', uint32(15e6), Buffer.alloc(15e6, 'é')))),
  'one array of bytes': () => inList(bytesOf('B', uint32(6e7), Buffer.alloc(6e7))),
  'one text encoded again and again': () =>
    inList(
      bytesOf(
        'c_codecs\nencode\nq',
        0,
        'X',
        uint32(15e6),
        Buffer.alloc(15e6, 'a'),
        'q',
        1,
        text('latin1'),
        'q',
        2,
      ),
      repeat(bytesOf('h', 0, 'h', 1, 'h', 2, 0x86, 'R'), 1000),
    ),
  'tensors over one storage': () =>
    zipCheckpoint(
      tensors(8000, () => '0'),
      { 'x/data/0': Buffer.alloc(4) },
    ),
  'tensors with storages': () =>
    zipCheckpoint(
      tensors(32_000, String),
      Object.fromEntries(Array.from({ length: 32_000 }, (_, i) => [`x/data/${i}`, Buffer.alloc(4)])),
    ),
  'entries of an archive': () =>
    zipOf({
      'x/data.pkl': 'N.',
      ...Object.fromEntries(Array.from({ length: 32_000 }, (_, i) => [`x/${i}${'-'.repeat(400)}`, ''])),
    }),
  'a header of tensors': () => {
    const entries = Array.from(
      { length: 32_000 },
      (_, i) => `"${i}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
    );
    return withHeader(Buffer.from(`{${entries.join()}}`), 32_000);
  },
  'a header of lists': () => withHeader(bytesOf('{"a":[', repeat(bytesOf('[],'), 10_000_000), '[]]}')),
  'a header of metadata': () => {
    const entries = Array.from({ length: 1_500_000 }, (_, i) => `"${i}":""`);
    return withHeader(Buffer.from(`{"__metadata__":{${entries.join()}}}`));
  },
  'a header of spaces': () => withHeader(bytesOf('{}', Buffer.alloc(30e6, ' '))),
  'a header of text': () => {
    const escaped = Buffer.alloc(1_040_000, '\\"');
    const entries = Array.from({ length: 28 }, (_, i) =>
      bytesOf(`"${i}":"`, escaped, '"', i < 27 ? ',' : ''),
    );
    return withHeader(bytesOf('{"__metadata__":{', ...entries, '}}'));
  },
  'metadata that is read': () => {
    const entries = Array.from({ length: 16_000 }, (_, i) => `"${i}":""`);
    const tensor = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
    return withHeader(Buffer.from(`{"__metadata__":{${entries.join()}},${tensor}}`), 1);
  },
  'tensors out of order': () => {
    const count = 32_000;
    const entries = Array.from({ length: count }, (_, i) => {
      const at = (i * 7919) % count;
      return `"${i}":{"dtype":"U8","shape":[1],"data_offsets":[${at},${at + 1}]}`;
    });
    return withHeader(Buffer.from(`{${entries.join()}}`), count);
  },
  'state dicts': () => {
    const first = bytesOf(text('first'), tensors(1, String).subarray(0, -1), 'q', 0);
    const others = Array.from({ length: 200_000 }, (_, i) =>
      bytesOf(text(`d${i}`), '}', text('t'), 'h', 1, 's'),
    );
    const tensor = bytesOf(text('one'), tensors(1, String).subarray(5, -2), 'q', 1);
    return zipCheckpoint(bytesOf('}(', first, tensor, Buffer.concat(others), 'u.'), {
      'x/data/0': Buffer.alloc(4),
    });
  },
  'long texts as keys': () => {
    const key = (i: number): Buffer =>
      bytesOf('X', uint32(17_000), Buffer.alloc(16_992, 'a'), String(i).padStart(8, '0'), 'N');
    return zipCheckpoint(bytesOf('}(', ...Array.from({ length: 3500 }, (_, i) => key(i)), 'u.'));
  },
  'bytes of Python 2': () => inList(bytesOf('T', uint32(15e6), Buffer.alloc(15e6, 0xff))),
  'text of Python 2 that is an array': () => {
    const text = Buffer.alloc(15e6, 'aé');
    return inList(
      bytesOf(
        ...['cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK', 0, 0x85, 'U', 1, 'btR'],
        ...['(K', 1, 'J', uint32(text.length), 0x85, 'cnumpy\ndtype\nU', 2, 'u1', 0x85, 'R', 0x89],
        ...['T', uint32(text.length), text, 'tb'],
      ),
    );
  },
  'integers that collide': () => {
    const keys = colliding(COUNT / 30).integers.map((key) => bytesOf('J', uint32(key >>> 0), 'N'));
    return zipCheckpoint(bytesOf('}(', Buffer.concat(keys), 'u.'));
  },
  'floats that collide in many dictionaries': () => {
    const keys = colliding(1500).floats.map((key) => {
      const bytes = Buffer.alloc(10, 'N');
      bytes.write('G');
      bytes.writeDoubleBE(key, 1);
      return bytes;
    });
    const dictionary = bytesOf('}(', Buffer.concat(keys.slice(0, 1200)), 'u');
    return inList(repeat(dictionary, 1000));
  },
  'text of Python 2': () => inList(bytesOf('T', uint32(15e6), Buffer.alloc(15e6, 'a'))),
  'one tuple': () => zipCheckpoint(bytesOf('(', repeat(bytesOf('N'), 500_000), 't.')),
  'one object of many arguments': () =>
    zipCheckpoint(bytesOf('cm\nC\n(', repeat(bytesOf('N'), 500_000), 'tR.')),
  'bytes copied again': () =>
    inList(bytesOf('cbuiltins\nbytearray\nB', uint32(3e7), Buffer.alloc(3e7), 0x85, 'R')),
  'an array of NumPy, big-endian': () =>
    zipCheckpoint(
      bytesOf(
        ...['cnumpy\ndtype\n', text('f8'), 0x85, 'R(K', 3, text('>'), 'tbq', 0],
        ...['0cnumpy.core.numeric\n_frombuffer\n(B', uint32(3.2e7), Buffer.alloc(3.2e7), 'h', 0],
        ...['J', uint32(4e6), 0x85, text('C'), 'tR.'],
      ),
    ),
  'the legacy container': () =>
    bytesOf(
      Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'),
      bytesOf(0x80, 2, 'M', 0xe9, 3, '.', 0x80, 2, '}.', 0x80, 2, ']('),
      repeat(bytesOf('}'), COUNT),
      bytesOf('e.', 0x80, 2, '].'),
    ),
};

/** Names as of networks, of so many words that where the network's own begins is far to seek. */
for (const [count, length] of [
  [5000, 256],
  [4000, 128],
] as const) {
  files[`${count} names of words with ${length} characters`] = () => {
    const entries = Array.from({ length: count }, (_, i) => {
      const name =
        `${String(i).padStart(5, '0')}${'.a'.repeat(length)}`.slice(0, length - 11) + '.layer1.0.x';
      return `"${name}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`;
    });
    return withHeader(Buffer.from(`{${entries.join()}}`), count);
  };
}

/** As many names as a network may have, in a spelling that takes the most to read. */
files['names of words of another framework'] = () => {
  const block = 'features.stage1.unit1.';
  const first = [`${block}se.conv1.weight`, `${block}body.conv2.conv.weight`];
  const others = Array.from({ length: 3998 }, (_, i) => `${block}body.${String(i).padStart(101, '0')}`);
  const entries = [...first, ...others].map(
    (name, i) => `"${name}":{"dtype":"U8","shape":[2,1],"data_offsets":[${2 * i},${2 * i + 2}]}`,
  );
  return withHeader(Buffer.from(`{${entries.join()}}`), 8000);
};

/** Read, and not small. */
const large: Record<string, () => Buffer | Promise<Buffer>> = {
  'a large storage': () => largeStorage(false),
  'a large storage, deflated': () => largeStorage(true),
  'a large tensor of safetensors': () => {
    const length = 100e6;
    const header = `{"a":{"dtype":"F32","shape":[${length / 4}],"data_offsets":[0,${length}]}}`;
    return withHeader(Buffer.from(header), length);
  },
  'a vocabulary beside the weights': () => {
    const word = (i: number): Buffer =>
      bytesOf('X', uint32(`word${i}`.length), `word${i}`, 'J', uint32(i), i % 1000 === 999 ? 'u(' : '');
    const words = Array.from({ length: 500_000 }, (_, i) => word(i));
    return zipCheckpoint(
      bytesOf(
        '}(',
        text('state_dict'),
        tensors(1, String).subarray(0, -1),
        text('words'),
        '}(',
        Buffer.concat(words),
        'uu.',
      ),
      { 'x/data/0': Buffer.alloc(4) },
    );
  },
};

describe('fuzz: hostile checkpoints', function () {
  this.timeout(600_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  const measure = async (file: string, from: string): Promise<Measured> => {
    const script = temporary.path('child.cjs');
    writeFileSync(script, CHILD);
    const command = ['--expose-gc', script, file, path.dirname(DIST), from];
    const { stdout } = await promisify(execFile)(process.execPath, command);
    return JSON.parse(stdout) as Measured;
  };
  const check = async (file: string, from: string): Promise<string[]> => {
    let measured = await measure(file, from);
    // A step that is long is long again; what another process took from the caches is not.
    for (let again = 0; again < 2 && measured.blocked >= BLOCKED_MS; again++) {
      measured = await measure(file, from);
    }
    const { results, bytes, blocked, collecting } = measured;
    const times = [blocked, collecting].map((milliseconds) => Math.round(milliseconds)).join(', ');
    console.log(`      ${results.join(', ')}: ${Math.round(bytes / 1e6)} MB, ${times} ms`);
    for (const result of results) {
      expect(result).to.match(/^read$|^ERR_SENET_CHECKPOINT_(LIMIT|FORMAT|UNSAFE|UNSUPPORTED)$/);
    }
    expect(bytes, 'bytes').to.be.below(MEMORY_BYTES);
    expect(blocked, 'ms').to.be.below(BLOCKED_MS);
    return results;
  };
  for (const [name, make] of Object.entries(files)) {
    it(name, async () => {
      const file = temporary.path('hostile.pt');
      writeFileSync(file, await make());
      await check(file, 'path');
    });
  }

  for (const [name, make] of Object.entries(large)) {
    for (const from of ['path', 'bytes']) {
      it(`${name}, by ${from}`, async () => {
        const file = temporary.path('large.pt');
        writeFileSync(file, await make());
        expect((await check(file, from))[0]).to.equal('read');
      });
    }
  }
});
