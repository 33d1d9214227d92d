/**
 * 20,000 damaged checkpoints: each must be read or refused with a coded error, quickly and without much memory; so must
 * random pickles that call, build and fill objects of unknown classes wherever a value may stand.
 * SENET_FUZZ_SEED=... damages them in other ways, SENET_FUZZ_SEED=random in new ones; the seed is printed.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { inspectCheckpoint } from '../../lib/checkpoint/inspect';
import { load, loadCheckpoint } from '../../lib/checkpoint/load';
import { planRead } from '../../lib/checkpoint/tensor-record';
import { OpaqueValue } from '../../lib/checkpoint/to-plain';
import { isSenetError } from '../../lib/errors';
import { Tensor } from '../../lib/tensor/tensor';
import { bytesOf, fixture, parse, uint32, uint64, zipCheckpoint } from '../support/checkpoint-files';
import { FUZZ_SEED, printSeed } from '../support/fuzz';

/** Processor time, which a busy machine does not lengthen: a long one for a parse of a millisecond. */
const CASE_MILLISECONDS = 5000;
const GROWTH_BYTES = 600e6;

interface Target {
  readonly name: string;
  readonly bytes: Buffer;
  /** The part that is damaged. */
  readonly start: number;
  readonly end: number;
  readonly runs: number;
  readonly read: (bytes: Buffer) => Promise<unknown>;
}

/** Pieces that pickles are made of, and lies. */
const TOKENS: readonly Buffer[] = [
  ...[
    '.',
    '(',
    ')',
    't',
    'R',
    'Q',
    'b',
    's',
    'u',
    '}',
    ']',
    'a',
    'e',
    '0',
    '1',
    '2',
    'N',
    '\x81',
    '\x85',
    '\x86',
    '\x94',
  ],
  ...[
    'cos\nsystem\n',
    'c__builtin__\neval\n',
    'ccollections\nOrderedDict\n)R',
    'ctorch\nFloatStorage\n',
    'I-1\n',
    'L9999999999999999999L\n',
  ],
  ...[
    'ctorch._utils\n_rebuild_tensor_v2\n',
    'c_codecs\nencode\n',
    'c__builtin__\nbytearray\n',
    'h\x00',
    'q\x00',
    'q\x05',
  ],
]
  .map((text) => Buffer.from(text, 'latin1'))
  .concat([
    Buffer.concat([Buffer.from('X'), uint32(0xffffffff)]),
    Buffer.concat([Buffer.from([0x8d]), uint64(2n ** 63n)]),
    Buffer.concat([Buffer.from([0x8b]), uint32(0x7fffffff)]),
    Buffer.concat([Buffer.from([0x8a, 8]), uint64(2n ** 63n)]),
    Buffer.concat([Buffer.from('r'), uint32(0xffffffff)]),
    Buffer.concat([Buffer.from('J'), uint32(0xffffffff)]),
    Buffer.from('00000000', 'hex'),
    Buffer.from('ffffffffffffffff', 'hex'),
  ]);

const mutation = fc.record({
  kind: fc.constantFrom('byte', 'bit', 'overwrite', 'insert', 'delete', 'copy'),
  // Taken modulo the length; without noBias most of them would be near the ends of the range.
  at: fc.noBias(fc.nat(0x7fffffff)),
  from: fc.noBias(fc.nat(0x7fffffff)),
  length: fc.integer({ min: 1, max: 40 }),
  byte: fc.integer({ min: 0, max: 255 }),
  token: fc.constantFrom(...TOKENS),
});
type Mutation = typeof mutation extends fc.Arbitrary<infer M> ? M : never;

/** Damages a part in place; what is inserted pushes the rest out at its end. */
function damage(part: Buffer, { kind, at, from, length, byte, token }: Mutation): void {
  const index = at % part.length;
  const other = from % part.length;
  switch (kind) {
    case 'byte':
      part[index] = byte;
      break;
    case 'bit':
      part[index] = (part[index] as number) ^ (1 << (byte & 7));
      break;
    case 'overwrite':
      token.copy(part, index);
      break;
    case 'insert':
      part.copy(part, index + token.length, index);
      token.copy(part, index);
      break;
    case 'delete':
      part.copy(part, index, Math.min(index + length, part.length));
      break;
    case 'copy':
      part.copy(part, index, other, other + length);
      break;
  }
}

async function parseWhole(bytes: Buffer): Promise<void> {
  const { tensors } = await parse(bytes);
  for (const { offset, length } of planRead(tensors).ranges) {
    expect(offset).to.be.at.least(0);
    expect(offset + length).to.be.at.most(bytes.length);
  }
}

/** Down to LibTorch's tensors, every element read. */
async function loadWhole(bytes: Buffer): Promise<void> {
  const seen = new Set<unknown>();
  const visit = (value: unknown): void => {
    if (typeof value !== 'object' || value === null || seen.has(value)) return;
    seen.add(value);
    if (value instanceof Tensor) {
      if (value.numel < 1e6) value.toTypedArray();
      value.dispose();
    } else if (value instanceof Map) [...value].flat().forEach(visit);
    else if (Array.isArray(value) || value instanceof Set) [...value].forEach(visit);
  };
  visit(await loadCheckpoint(bytes));
}

function zipTarget(name: string, file: string, runs: number, read = parseWhole): Target {
  const bytes = readFileSync(file);
  const header = bytes.indexOf('/data.pkl');
  const start = header + '/data.pkl'.length;
  return { name, bytes, start, end: bytes.indexOf('PK\x07\x08', start, 'latin1'), runs, read };
}

function targets(): Target[] {
  const legacy = readFileSync(fixture('se_resnet20-legacy.pkl'));
  const old = readFileSync(fixture('checkpoints', 'python2.pkl'));
  const views = readFileSync(fixture('checkpoints', 'view-metadata.pkl'));
  const safetensors = readFileSync(fixture('se_resnet20.safetensors'));
  const small = readFileSync(fixture('checkpoints', 'dtypes.safetensors'));
  const zip = readFileSync(fixture('checkpoints', 'views.pt'));
  const headerEnd = (file: Buffer): number => 8 + Number(file.readBigUInt64LE());
  return [
    zipTarget('the pickle of the zip file', fixture('se_resnet20-zip.pt'), 4000),
    zipTarget('the pickle of the trainer checkpoint', fixture('se_resnet20-trainer-checkpoint.pt'), 1500),
    zipTarget('the pickle of the half file', fixture('se_resnet20-half.pt'), 500),
    zipTarget(
      'the pickle of training-checkpoint.pt, loaded',
      fixture('training-checkpoint.pt'),
      3000,
      loadWhole,
    ),
    zipTarget('the pickle of values.pt, loaded', fixture('checkpoints', 'values.pt'), 2000, loadWhole),
    zipTarget('the pickle of views.pt, loaded', fixture('checkpoints', 'views.pt'), 1000, loadWhole),
    {
      name: 'the pickles of the legacy file',
      bytes: legacy,
      start: 0,
      end: 30_000,
      runs: 4000,
      read: parseWhole,
    },
    {
      name: 'a file of Python 2, loaded',
      bytes: old,
      start: 0,
      end: old.length,
      runs: 1000,
      read: loadWhole,
    },
    {
      name: 'a file with views of storages, loaded',
      bytes: views,
      start: 0,
      end: views.length,
      runs: 500,
      read: loadWhole,
    },
    { name: 'a whole zip file, loaded', bytes: zip, start: 0, end: zip.length, runs: 1000, read: loadWhole },
    {
      name: 'a safetensors header',
      bytes: safetensors,
      start: 0,
      end: headerEnd(safetensors),
      runs: 500,
      read: parseWhole,
    },
    {
      name: 'a small safetensors file, loaded',
      bytes: small,
      start: 0,
      end: headerEnd(small),
      runs: 1000,
      read: loadWhole,
    },
  ];
}

describe('fuzz: damaged checkpoints', function () {
  this.timeout(600_000);
  const trace = path.join(tmpdir(), 'pickle-was-executed');
  const outcomes = new Map<string, number>();
  let memoryBefore: number;
  let cases = 0;

  before(() => {
    printSeed();
    rmSync(trace, { force: true });
    memoryBefore = process.memoryUsage().rss;
  });

  const check = async (read: () => Promise<unknown>): Promise<void> => {
    const start = process.cpuUsage();
    let outcome = 'read';
    try {
      await read();
    } catch (error) {
      if (!isSenetError(error)) throw error;
      expect(error.code, error.message).to.match(/^ERR_SENET_CHECKPOINT_|^ERR_SENET_OUT_OF_MEMORY$/);
      outcome = error.code;
    }
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000, 'milliseconds').to.be.below(CASE_MILLISECONDS);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    cases++;
  };

  for (const { name, bytes, start, end, runs, read } of targets()) {
    it(`${name}: ${runs} cases`, async () => {
      const part = bytes.subarray(start, end);
      const original = Buffer.from(part);
      const property = fc.asyncProperty(
        fc.array(mutation, { minLength: 1, maxLength: 4 }),
        async (mutations) => {
          original.copy(part);
          for (const one of mutations) damage(part, one);
          await check(() => read(bytes));
        },
      );
      await fc.assert(property, { seed: FUZZ_SEED, numRuns: runs });
      original.copy(part);
      await read(bytes);
    });
  }

  it('small files cut at every byte, loaded and inspected', async () => {
    for (const name of ['dtypes.pt', 'dtypes.pkl', 'dtypes.safetensors', 'python2.pkl']) {
      const bytes = readFileSync(fixture('checkpoints', name));
      for (let length = 0; length < bytes.length; length += 3) {
        const cut = bytes.subarray(0, length);
        await check(() => load(cut));
        await check(() => inspectCheckpoint(cut));
      }
    }
  });

  it('random pickles with unknown objects in every place: inert values or coded errors', async () => {
    const text = (value: string): Buffer => bytesOf('X', uint32(Buffer.byteLength(value)), value);
    const names = ['posix\nsystem', '__builtin__\neval', '__builtin__\ngetattr', 'm\nC', 'numpy\nndarray'];
    const calls = [
      ...['numpy\ndtype', 'numpy.core.multiarray\nscalar', 'numpy._core.multiarray\n_reconstruct'],
      ...['collections\nOrderedDict', '__builtin__\nset', 'torch\nSize', 'torch._utils\n_rebuild_tensor_v2'],
      ...['torch._utils\n_rebuild_parameter', 'torch._tensor\n_rebuild_from_type_v2', '_codecs\nencode'],
    ];
    const keys = ['__proto__', 'constructor', 'prototype', 'toString', 'state_dict', 'w'];
    const { pickle } = fc.letrec<{ pickle: Buffer; object: Buffer }>((tie) => ({
      object: fc
        .tuple(
          fc.constantFrom(...names, ...calls),
          fc.array(tie('pickle'), { maxLength: 3 }),
          fc.nat(6),
          tie('pickle'),
        )
        .map(([name, args, kind, state]) => {
          const tuple = bytesOf('(', ...args, 't');
          const made = bytesOf('c', name, '\n');
          switch (kind) {
            case 0:
              return made;
            case 1:
              return bytesOf('(', ...args, 'i', name, '\n');
            case 2:
              return bytesOf('(', made, ...args, 'o');
            case 3:
              return bytesOf(made, tuple, 0x81, state, 'b');
            case 4:
              return bytesOf(made, tuple, 'R', state, 'a');
            case 5:
              return bytesOf(made, tuple, 'R', text(keys[args.length] as string), state, 's');
            default:
              return bytesOf(made, tuple, '}', text('__proto__'), state, 's', 0x92);
          }
        }),
      pickle: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(bytesOf('N'), bytesOf('K', 1), text('storage'), bytesOf(')'), bytesOf(']')),
        tie('object'),
        fc.tuple(tie('object'), tie('pickle')).map(([object, args]) => bytesOf(object, args, 0x85, 'R')),
        fc
          .array(fc.tuple(fc.constantFrom(...keys), tie('pickle')), { maxLength: 4 })
          .map((entries) => bytesOf('}(', ...entries.map(([key, value]) => bytesOf(text(key), value)), 'u')),
      ),
    }));
    let opaque = 0;
    const inert = (value: unknown, seen = new Set<unknown>()): void => {
      if (typeof value === 'function') throw new Error('a function came out of a pickle');
      if (typeof value !== 'object' || value === null || seen.has(value)) return;
      seen.add(value);
      if (value instanceof OpaqueValue) opaque++;
      for (const part of value instanceof Map ? [...value].flat() : Object.values(value)) inert(part, seen);
    };
    await fc.assert(
      fc.asyncProperty(pickle, async (body) => {
        // Beside something, so that it is not refused for being all there is.
        const file = await zipCheckpoint(bytesOf('}(', text('epoch'), 'K', 1, text('x'), body, 'u.'));
        await check(async () => inert(await loadCheckpoint(file)));
        await check(async () => inert(await inspectCheckpoint(file)));
        expect(Object.keys(Object.prototype)).to.deep.equal([]);
        expect(Object.getOwnPropertyNames(OpaqueValue.prototype)).to.deep.equal(['constructor']);
      }),
      { seed: FUZZ_SEED, numRuns: 6000 },
    );
    expect(opaque).to.be.above(200);
  });

  it('20,000 cases and more, of both outcomes, in bounded memory; nothing was executed', () => {
    console.log(
      `      ${cases} cases: ${[...outcomes].map(([outcome, count]) => `${outcome} ${count}`).join(', ')}`,
    );
    expect(cases).to.be.at.least(20_000);
    for (const outcome of ['read', 'FORMAT', 'UNSAFE', 'UNSUPPORTED', 'LIMIT']) {
      expect(
        outcomes.get(outcome === 'read' ? outcome : `ERR_SENET_CHECKPOINT_${outcome}`),
        outcome,
      ).to.be.above(0);
    }
    expect(process.memoryUsage().rss - memoryBefore).to.be.below(GROWTH_BYTES);
    expect(existsSync(trace)).to.equal(false);
  });
});
