/**
 * Small files that make as much as they can of a few bytes: one value an opcode, tables that double, long headers. Each
 * is read or refused in a process of its own, which measures what it took: memory, and the longest slice of the reading
 * in steps, which no busy machine lengthens. The time that the event loop stood still is printed beside it.
 */
import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

import { MAX_ITEMS, PIECE_BYTES, SLICE_STEPS } from '../../lib/checkpoint/limits';
import { bytesOf, uint32, uint64, zipCheckpoint, zipOf } from '../support/checkpoint-files';
import { Temporary } from '../support/temporary';

const MEMORY_BYTES = 300e6;
/** A slice ends after the step that is over its length: the largest are a run of items and a piece of text. */
const LONGEST_SLICE = 2 * SLICE_STEPS + (MAX_ITEMS >>> 6) + (PIECE_BYTES >>> 7);
const COUNT = 3_900_000;

const CHILD = `
const [, , file, root] = process.argv;
const { loadCheckpoint, inspectCheckpoint } = require(root + '/lib');
const { sliceRecord } = require(root + '/lib/checkpoint/budget');
const { readFileSync } = require('node:fs');
const { performance } = require('node:perf_hooks');
const high = () => Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
async function main() {
  await loadCheckpoint(root + '/test/fixtures/checkpoints/views.pt');
  const before = high();
  sliceRecord.longest = 0;
  let last = performance.now();
  let blocked = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    blocked = Math.max(blocked, now - last);
    last = now;
  }, 1);
  const results = [];
  for (const read of [loadCheckpoint, inspectCheckpoint]) {
    await read(file).then(() => results.push('read'), (error) => results.push(error.code ?? String(error)));
  }
  clearInterval(timer);
  console.log(JSON.stringify({ results, bytes: high() - before, slice: sliceRecord.longest, turns: sliceRecord.turns, blocked }));
}
void main();
`;

interface Measured {
  results: string[];
  bytes: number;
  slice: number;
  turns: number;
  blocked: number;
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
    zipCheckpoint(bytesOf('c__builtin__\nset\n](', numbered(900_000, 0x4a, ''), 'e', 0x85, 'R.')),
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
  'the legacy container': () =>
    bytesOf(
      Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex'),
      bytesOf(0x80, 2, 'M', 0xe9, 3, '.', 0x80, 2, '}.', 0x80, 2, ']('),
      repeat(bytesOf('}'), COUNT),
      bytesOf('e.', 0x80, 2, '].'),
    ),
};

describe('fuzz: hostile checkpoints', function () {
  this.timeout(600_000);
  const root = path.join(__dirname, '..', '..');
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  for (const [name, make] of Object.entries(files)) {
    it(name, async () => {
      const file = temporary.path('hostile.pt');
      const script = temporary.path('child.cjs');
      writeFileSync(file, await make());
      writeFileSync(script, CHILD);
      const { stdout } = await promisify(execFile)(process.execPath, [
        ...['--require', require.resolve('tsx/cjs')],
        ...[script, file, root],
      ]);
      const { results, bytes, slice, turns, blocked } = JSON.parse(stdout) as Measured;
      console.log(
        `      ${results.join(', ')}: ${Math.round(bytes / 1e6)} MB, ${slice} steps, ${turns} turns, ${Math.round(blocked)} ms`,
      );
      for (const result of results) expect(result).to.match(/^read$|^ERR_SENET_CHECKPOINT_(LIMIT|FORMAT)$/);
      expect(bytes, 'bytes').to.be.below(MEMORY_BYTES);
      expect(slice, 'steps').to.be.at.most(LONGEST_SLICE);
    });
  }
});
