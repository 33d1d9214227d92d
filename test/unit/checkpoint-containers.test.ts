/** The three containers and their source: what they refuse, and with which code. */
import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { deflateRawSync } from 'node:zlib';

import { inspectCheckpoint } from '../../lib/checkpoint/inspect';
import { load } from '../../lib/checkpoint/load';
import type { StateDict } from '../../lib/checkpoint/state-dict';
import { findStateDict, type FoundStateDict, type Wish } from '../../lib/checkpoint/find';
import { TensorRecord } from '../../lib/checkpoint/tensor-record';
import { Dict, LongText } from '../../lib/checkpoint/values';
import type { ErrorCode } from '../../lib/errors';
import {
  bytesOf,
  deflatedZip,
  expectCode,
  fixture,
  parse,
  safetensorsOf,
  uint32,
  uint64,
  zipCheckpoint,
  zipOf,
} from '../support/checkpoint-files';

const FORMAT = 'ERR_SENET_CHECKPOINT_FORMAT';

function text(value: string): Buffer {
  return bytesOf('X', uint32(Buffer.byteLength(value)), value);
}

interface Claim {
  type?: string;
  key?: string;
  count?: Uint8Array;
  offset?: Uint8Array;
  shape?: Uint8Array;
  stride?: Uint8Array;
  requiresGrad?: boolean;
  extra?: Uint8Array;
}

const number = (value: number): Buffer => bytesOf('J', uint32(value >>> 0));

/** The pickle of `{ 'w': tensor }`, four float32 in storage '0' unless claimed otherwise. */
function tensorPickle(claim: Claim = {}): Buffer {
  const { type = 'FloatStorage', key = '0', count = number(4), offset = number(0) } = claim;
  const {
    shape = bytesOf(number(4), 0x85),
    stride = bytesOf(number(1), 0x85),
    requiresGrad = false,
    extra = Buffer.alloc(0),
  } = claim;
  const id = bytesOf(
    '(',
    text('storage'),
    `ctorch\n${type}\n`,
    text(key),
    text('cpu'),
    count,
    't',
    extra,
    'Q',
  );
  const rebuild = bytesOf(
    'ctorch._utils\n_rebuild_tensor_v2\n(',
    id,
    offset,
    shape,
    stride,
    requiresGrad ? 0x88 : 0x89,
    '}tR',
  );
  return bytesOf(0x80, 2, '}', text('w'), rebuild, 's.');
}

function tensorZip(claim: Claim = {}, others: Record<string, Uint8Array | string> = {}): Promise<Buffer> {
  return zipCheckpoint(tensorPickle(claim), { 'x/data/0': Buffer.alloc(16), ...others });
}

describe('checkpoint: sources', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'senet-sources-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  const file = (name: string, content: string | Uint8Array): string => {
    const place = path.join(folder, name);
    writeFileSync(place, content);
    return place;
  };

  it('a missing file', () =>
    expectCode(
      () => parse(path.join(folder, 'none.pt')),
      'ERR_SENET_FILE_NOT_FOUND',
      /none\.pt: no such file/,
    ));
  it('a folder', () => expectCode(() => parse(folder), 'ERR_SENET_FILE', /folder/));
  it('a named pipe does not hang', async () => {
    const pipe = path.join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    await expectCode(() => parse(pipe), 'ERR_SENET_FILE');
  });
  it('a device', () => expectCode(() => parse('/dev/null'), 'ERR_SENET_FILE'));
  it('an empty file', () => expectCode(() => parse(file('empty.pt', '')), FORMAT, /no bytes/));
  it('a text file', () =>
    expectCode(
      () => parse(file('text.pt', 'hello world, this is text')),
      FORMAT,
      /found text, 'hello world, thi'/,
    ));
  it('one byte of each kind', async () => {
    for (let byte = 0; byte < 256; byte++) await expectCode(() => parse(Uint8Array.of(byte)), FORMAT);
  });
  it('a tar archive', () => {
    const tar = Buffer.alloc(1024);
    tar.write('ustar', 257);
    return expectCode(() => parse(tar), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', /tar/);
  });
  it('neither path nor bytes', () => expectCode(() => parse(3 as never), 'ERR_SENET_ARG_TYPE'));
  it('empty bytes', () => expectCode(() => parse(new Uint8Array()), FORMAT));
  it('a detached buffer', () => {
    const bytes = new Uint8Array(16);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    return expectCode(() => parse(bytes), 'ERR_SENET_BUFFER', /detached/);
  });
  it('a shared buffer', () =>
    expectCode(() => parse(new Uint8Array(new SharedArrayBuffer(16))), 'ERR_SENET_BUFFER', /shared/));
  it('a resizable buffer', () => {
    const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer;
    return expectCode(
      () => parse(new Uint8Array(new Resizable(16, { maxByteLength: 32 }))),
      'ERR_SENET_BUFFER',
      /resizable/,
    );
  });
});

describe('checkpoint: files that are something else are named', () => {
  const files: [string, Uint8Array | string, RegExp][] = [
    ['gzip', bytesOf(0x1f, 0x8b, 8, Buffer.alloc(20)), /gzip.*gunzip/],
    ['bzip2', bytesOf('BZh9', Buffer.alloc(20)), /bzip2/],
    ['xz', bytesOf(0xfd, '7zXZ', Buffer.alloc(20)), /xz/],
    ['Zstandard', bytesOf(0x28, 0xb5, 0x2f, 0xfd, Buffer.alloc(20)), /Zstandard/],
    ['HDF5', bytesOf(0x89, 'HDF\r\n', Buffer.alloc(20)), /HDF5/],
    ['NumPy', bytesOf(0x93, 'NUMPY', Buffer.alloc(20)), /NumPy/],
    ['Git LFS', 'version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 100\n', /git lfs pull/],
    ['a web page', '<!DOCTYPE html><html><title>Virus scan warning</title></html>', /web page/],
    [
      'an index of safetensors',
      JSON.stringify({ metadata: { total_size: 8 }, weight_map: { a: 'model-00001-of-00001.safetensors' } }),
      /index.*several files.*one of the files/,
    ],
  ];
  for (const [name, content, message] of files) {
    it(name, () =>
      expectCode(() => parse(Buffer.from(content as string)), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', message),
    );
  }
  it('archives', async () => {
    const archive = (name: string, message: RegExp): Promise<Error> =>
      expectCode(
        async () => parse(await zipOf({ [name]: '{}', 'README.md': '' })),
        'ERR_SENET_CHECKPOINT_UNSUPPORTED',
        message,
      );
    await archive('model.pt', /zip archive around a checkpoint and other files; unpack/);
    await archive('x/models/model.json', /torch\.export/);
    await archive('serialized_exported_program.json', /torch\.export/);
    await archive('weights.npy', /NumPy/);
    await archive('x/model.json', /TorchScript.*before 1\.3/);
  });
});

describe('checkpoint: a zip archive around one', () => {
  for (const name of ['se_resnet20-zip.pt', 'se_resnet20-legacy.pkl', 'se_resnet20.safetensors'])
    for (const pack of [zipOf, deflatedZip])
      it(`${name} in a ${pack === zipOf ? 'stored' : 'deflated'} archive is that file`, async () => {
        const bytes = readFileSync(fixture(name));
        const archive = Buffer.from(await pack({ [`models/${name}`]: bytes }));
        const [packed, plain] = [await load(archive), await load(bytes)];
        expect([...packed.keys()]).to.deep.equal([...plain.keys()]);
        for (const [key, tensor] of plain) expect(packed.get(key)?.equal(tensor), key).to.equal(true);
        const [inside, outside] = [await inspectCheckpoint(archive), await inspectCheckpoint(bytes)];
        expect(inside).to.deep.equal({ ...outside, fileBytes: archive.length });
        for (const state of [packed, plain]) state.dispose();
      });

  it('is refused where it is no checkpoint, names which file, and where it is packed twice', async () => {
    const packed = (name: string, bytes: Uint8Array): Buffer => deflatedZip({ [name]: bytes });
    const nothing = packed('a.pth', Buffer.alloc(0));
    await expectCode(() => parse(nothing), 'ERR_SENET_CHECKPOINT_FORMAT', /a\.pth.*no bytes/);
    const noise = packed('a.pth', Buffer.from('<!DOCTYPE html>'));
    await expectCode(() => parse(noise), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', /a\.pth.*web page/);
    const evil = packed('a.pth', readFileSync(fixture('evil-zip.pt')));
    await expectCode(() => parse(evil), 'ERR_SENET_CHECKPOINT_UNSAFE', /a\.pth.*posix\.system/);
    const twice = packed('b.pth', packed('a.pth', readFileSync(fixture('se_resnet20-zip.pt'))));
    await expectCode(() => parse(twice), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', /around a zip archive/);
    const bomb = packed('a.pth', Buffer.alloc(100e6));
    await expectCode(() => parse(bomb), 'ERR_SENET_CHECKPOINT_LIMIT', /100000000 bytes/);
  });
});

describe('checkpoint: evil files', () => {
  const trace = path.join(tmpdir(), 'pickle-was-executed');
  for (const name of ['evil-zip.pt', 'evil-legacy.pkl']) {
    it(`${name} is refused by name and nothing runs`, async () => {
      rmSync(trace, { force: true });
      for (const read of [parse, inspectCheckpoint]) {
        await expectCode(() => read(fixture(name)), 'ERR_SENET_CHECKPOINT_UNSAFE', /'posix\.system'/);
      }
      expect(existsSync(trace)).to.equal(false);
    });
  }
  it('a plain pickle of any protocol', async () => {
    await expectCode(
      () => parse(Buffer.from("cos\nsystem\n(S'x'\ntR.")),
      'ERR_SENET_CHECKPOINT_UNSAFE',
      /'os\.system'/,
    );
    await expectCode(
      () => parse(bytesOf(0x80, 4, 0x8c, 2, 'os', 0x8c, 6, 'system', 0x93, '.')),
      'ERR_SENET_CHECKPOINT_UNSAFE',
    );
    await expectCode(
      () => parse(bytesOf(0x80, 2, '}.')),
      FORMAT,
      /a pickle of a dict and not a file of torch\.save/,
    );
  });
  for (const name of ['truncated-zip.pt', 'truncated-legacy.pkl']) {
    it(name, () => expectCode(() => parse(fixture(name)), FORMAT, /truncated/));
  }
});

describe('checkpoint: kinds of tensor that are not supported', () => {
  const kinds = { sparse: /sparse/, uint16: /uint16/, complex: /Complex/, quantized: /QInt8/, meta: /meta/ };
  for (const [name, message] of Object.entries(kinds)) {
    it(name, () =>
      expectCode(
        () => parse(fixture('checkpoints', `${name}.pt`)),
        'ERR_SENET_CHECKPOINT_UNSUPPORTED',
        message,
      ),
    );
  }
  it('a whole module', () =>
    expectCode(
      () => parse(fixture('checkpoints', 'module.pt')),
      'ERR_SENET_CHECKPOINT_UNSAFE',
      /'torch\.nn\.modules\.linear\.Linear'/,
    ));
});

describe('checkpoint: tensors that lie about their storage', () => {
  it('an honest one is read', async () => {
    const [record] = (await parse(await tensorZip())).tensors;
    expect(record).to.be.instanceOf(TensorRecord);
    expect(record?.shape).to.deep.equal([4]);
  });
  const pair = (a: number, b: number): Buffer => bytesOf(number(a), number(b), 0x86);
  const long = (value: bigint): Buffer => bytesOf(0x8a, 8, uint64(value));
  const lies: [string, Claim, ErrorCode][] = [
    ['one element too many', { shape: bytesOf(number(5), 0x85) }, FORMAT],
    ['an offset that is too large', { offset: number(1) }, FORMAT],
    ['a negative offset', { offset: number(-1) }, FORMAT],
    ['a negative stride', { stride: bytesOf(number(-1), 0x85) }, FORMAT],
    ['a negative size', { shape: bytesOf(number(-4), 0x85) }, FORMAT],
    ['a stride that is too large', { stride: bytesOf(number(2), 0x85) }, FORMAT],
    [
      'a product beyond 2**53',
      { shape: bytesOf(long(2n ** 40n), long(2n ** 40n), 0x86), stride: pair(0, 0) },
      FORMAT,
    ],
    [
      'a product that wraps to 0 in 64 bits',
      { shape: bytesOf(long(2n ** 32n), long(2n ** 32n), 0x86), stride: pair(1, 1) },
      FORMAT,
    ],
    ['integers that require gradients', { type: 'IntStorage', requiresGrad: true }, FORMAT],
    ['a size beyond 2**53', { shape: bytesOf(long(2n ** 62n), 0x85) }, FORMAT],
    ['a stride beyond 2**53', { stride: bytesOf(long(2n ** 62n), 0x85) }, FORMAT],
    [
      'an empty tensor whose other sizes overflow',
      {
        shape: bytesOf(number(0), long(2n ** 52n), long(2n ** 52n), 0x87),
        stride: bytesOf(number(1), number(1), number(1), 0x87),
      },
      FORMAT,
    ],
    [
      'repeated elements by the billion',
      { shape: bytesOf(number(2 ** 30), 0x85), stride: bytesOf(number(0), 0x85) },
      'ERR_SENET_CHECKPOINT_LIMIT',
    ],
    ['fewer strides than sizes', { stride: bytesOf(')') }, FORMAT],
    [
      '65 dimensions',
      { shape: bytesOf('(', ...Array<Buffer>(65).fill(number(1)), 't') },
      'ERR_SENET_CHECKPOINT_LIMIT',
    ],
    ['a shape of floats', { shape: bytesOf('G', Buffer.from('3ff8000000000000', 'hex'), 0x85) }, FORMAT],
    ['a storage of another size', { count: number(3) }, FORMAT],
    ['a storage of 2**62 elements', { count: long(2n ** 62n) }, FORMAT],
    ['a storage of -1 elements', { count: number(-1) }, FORMAT],
    ['a storage that is not there', { key: '1' }, FORMAT],
    ['a storage key that walks up', { key: '../data.pkl' }, FORMAT],
    ['a storage of another type', { type: 'DoubleStorage' }, FORMAT],
    ['a quantised storage', { type: 'QInt8Storage' }, 'ERR_SENET_CHECKPOINT_UNSUPPORTED'],
    ['an untyped storage without a dtype', { type: 'UntypedStorage', count: number(16) }, FORMAT],
  ];
  for (const [name, claim, code] of lies) {
    it(`${name}: ${code}`, () => expectCode(async () => parse(await tensorZip(claim)), code));
  }
});

describe('checkpoint: zip archives that lie', () => {
  const central = (zip: Buffer, name: string): number => zip.lastIndexOf(name) - 46;
  const local = (zip: Buffer, name: string): number => zip.indexOf(name) - 30;
  const change = async (edit: (zip: Buffer) => void): Promise<Buffer> => {
    const zip = await tensorZip();
    edit(zip);
    return zip;
  };
  const lies: [string, (zip: Buffer) => void, ErrorCode, RegExp?][] = [
    [
      'compressed by the directory',
      (zip) => zip.writeUInt16LE(8, central(zip, 'x/data/0') + 10),
      FORMAT,
      /another way/,
    ],
    [
      'compressed in a way that is not read',
      (zip) => zip.writeUInt16LE(12, central(zip, 'x/data/0') + 10),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /method 12/,
    ],
    [
      'encrypted',
      (zip) => {
        zip.writeUInt16LE(0x809, central(zip, 'x/data/0') + 8);
        zip.writeUInt32LE(28, central(zip, 'x/data/0') + 20);
      },
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /encrypted/,
    ],
    [
      'compressed by the local header',
      (zip) => zip.writeUInt16LE(8, local(zip, 'x/data/0') + 8),
      FORMAT,
      /another way/,
    ],
    [
      'another size in the local header',
      (zip) => {
        zip.writeUInt16LE(0x800, local(zip, 'x/data/0') + 6);
        zip.writeUInt32LE(15, local(zip, 'x/data/0') + 18);
      },
      FORMAT,
      /16 bytes in the directory and 15/,
    ],
    [
      'another name in the local header',
      (zip) => zip.write('9', local(zip, 'x/data/0') + 37),
      FORMAT,
      /another name/,
    ],
    ['no local header', (zip) => zip.writeUInt32LE(0, local(zip, 'x/data/0')), FORMAT, /no local header/],
    [
      'a header beyond the file',
      (zip) => zip.writeUInt32LE(0x7fffffff, central(zip, 'x/data/0') + 42),
      FORMAT,
      /beyond/,
    ],
    [
      'two entries at one place',
      (zip) => zip.writeUInt32LE(local(zip, 'x/data.pkl'), central(zip, 'x/data/0') + 42),
      FORMAT,
    ],
    [
      'a size that covers the next entry',
      (zip) => {
        zip.writeUInt32LE(300, central(zip, 'x/data.pkl') + 20);
        zip.writeUInt32LE(300, central(zip, 'x/data.pkl') + 24);
      },
      FORMAT,
      /overlaps/,
    ],
    [
      'a size that reaches the directory',
      (zip) => {
        zip.writeUInt32LE(0x7ffffff0, central(zip, 'x/data/0') + 20);
        zip.writeUInt32LE(0x7ffffff0, central(zip, 'x/data/0') + 24);
      },
      FORMAT,
      /beyond/,
    ],
    ['sizes that differ', (zip) => zip.writeUInt32LE(15, central(zip, 'x/data/0') + 20), FORMAT, /mismatch/],
    ['a duplicate name', (zip) => zip.write('x/data/0', central(zip, 'x/version') + 46), FORMAT],
    ['more entries than there are', (zip) => zip.writeUInt16LE(200, zip.length - 12), FORMAT],
    ['fewer entries than there are', (zip) => zip.writeUInt16LE(0, zip.length - 12), FORMAT, /none/],
    ['a directory beyond the file', (zip) => zip.writeUInt32LE(0xfffffff0, zip.length - 6), FORMAT],
    ['a comment that is not there', (zip) => zip.writeUInt16LE(9, zip.length - 2), FORMAT],
    [
      'a local name that ends the extra field late',
      (zip) => zip.writeUInt16LE(0xffff, local(zip, 'x/data/0') + 28),
      FORMAT,
    ],
  ];
  for (const [name, edit, code, message] of lies) {
    it(name, () => expectCode(async () => parse(await change(edit)), code, message));
  }

  it('names that walk up or are absolute', async () => {
    for (const name of ['../x/data.pkl', '/x/data.pkl', 'x\\data.pkl']) {
      await expectCode(async () => parse(await zipOf({ [name]: tensorPickle() })), FORMAT);
    }
  });
  it('no data.pkl, two of them, an empty archive', async () => {
    await expectCode(async () => parse(await zipOf({ 'x/other': 'a' })), FORMAT, /found none/);
    await expectCode(
      async () => parse(await zipOf({ 'x/data.pkl': 'N.', 'y/data.pkl': 'N.' })),
      FORMAT,
      /found several/,
    );
    await expectCode(async () => parse(await zipOf({})), FORMAT);
  });
  it('big-endian data, a future version', async () => {
    const other = async (entries: Record<string, string>, message: RegExp): Promise<void> => {
      await expectCode(
        async () => parse(await tensorZip({}, entries)),
        'ERR_SENET_CHECKPOINT_UNSUPPORTED',
        message,
      );
    };
    await other({ 'x/byteorder': 'big' }, /byteorder 'big'/);
    await other({ 'x/version': '11\n' }, /version/);
  });
  it('a pickle that ends early', () =>
    expectCode(
      async () => parse(await zipCheckpoint(bytesOf(0x80, 2, '}'))),
      FORMAT,
      /ends inside its pickle/,
    ));
  it('zip64 throughout', async () => {
    const zip = await zipOf({ 'x/data.pkl': tensorPickle(), 'x/data/0': Buffer.alloc(16) }, 0);
    const [record] = (await parse(zip)).tensors;
    expect(record?.storage.length).to.equal(16);
    expect(zip.includes(Buffer.from('504b0606', 'hex'))).to.equal(true);
  });
  it('names that torch.load does not ask for', async () => {
    const zip = await zipOf({
      'a b/data.pkl': tensorPickle(),
      'a b/data/0': Buffer.alloc(16),
      '__MACOSX/a b/._data.pkl': 'x',
      'a b/.DS_Store': 'x',
    });
    expect((await parse(zip)).tensors).to.have.length(1);
    const bare = await zipOf({ 'data.pkl': tensorPickle(), 'data/0': Buffer.alloc(16) });
    expect((await parse(bare)).tensors).to.have.length(1);
  });
  it('truncated at any byte', async () => {
    const zip = await tensorZip();
    for (let length = 0; length < zip.length; length++)
      await expectCode(() => parse(zip.subarray(0, length)), FORMAT);
  });
});

describe('checkpoint: deflated archives', () => {
  const SIZE = 300_000;
  const content = Buffer.alloc(SIZE, 'abcdefg');
  const checkpoint = (size = SIZE): Buffer =>
    tensorPickle({ type: 'ByteStorage', count: number(size), shape: bytesOf(number(size), 0x85) });
  const zip = (claims?: Parameters<typeof deflatedZip>[1], size?: number): Buffer =>
    deflatedZip(
      { 'x/data.pkl': checkpoint(size), 'x/version': Buffer.from('3\n'), 'x/data/0': content },
      claims,
    );
  const lies: [string, () => Buffer, RegExp][] = [
    [
      'fewer bytes than there are',
      () => zip({ length: SIZE - 1 }, SIZE - 1),
      /does not become the 299999 bytes/,
    ],
    [
      'more bytes than there are',
      () => zip({ length: SIZE + 1 }, SIZE + 1),
      /does not become the 300001 bytes/,
    ],
    ['another CRC', () => zip({ crc: 7 }), /CRC/],
    ['an end inside', () => zip({ packed: deflateRawSync(content).subarray(0, 200) }), /does not become/],
    ['no deflated bytes', () => zip({ packed: Buffer.alloc(40, 0xff) }), /compressed entry/],
  ];

  it('are read, from bytes and from a file', async () => {
    const bytes = zip();
    expect(Buffer.from((await load(bytes)).get('w')?.toTypedArray() as Uint8Array).equals(content)).to.equal(
      true,
    );
    const [deflated, plain] = await Promise.all(
      ['deflated.pt', 'views.pt'].map((name) => load(fixture('checkpoints', name))),
    );
    for (const [key, value] of plain as StateDict) {
      expect(deflated?.get(key)?.toArray(), key).to.deep.equal(value.toArray());
    }
    deflated?.get('whole')?.add_(1000);
    expect(deflated?.get('tail')?.toArray()).to.deep.equal([1020, 1021, 1022, 1023]);
  });
  for (const [name, make, message] of lies) {
    it(name, () => expectCode(() => load(make()), FORMAT, message));
  }
  it('more bytes than weights could be compressed from', async () => {
    const size = 80 * 1024 * 1024;
    await expectCode(() => load(zip({ length: size }, size)), 'ERR_SENET_CHECKPOINT_LIMIT', /compressed/);
  });
});

describe('checkpoint: legacy files that lie', () => {
  const magic = Buffer.from('80028a0a6cfc9c46f9206aa850192e', 'hex');
  const protocol = bytesOf(0x80, 2, 'M', 0xe9, 0x03, '.');
  const system = (little: number): Buffer => bytesOf(0x80, 2, '}', text('little_endian'), little, 's.');
  const keys = (...names: string[]): Buffer => bytesOf(0x80, 2, '](', ...names.map(text), 'e.');
  const data = bytesOf(uint64(4), Buffer.alloc(16));
  const extra = Buffer.from([]);
  const object = (claim: Claim = {}): Buffer => tensorPickle({ extra, ...claim });
  const whole = (...tail: Uint8Array[]): Buffer => bytesOf(magic, protocol, system(0x88), ...tail);

  it('an honest one is read', async () => {
    const parsed = await parse(whole(object(), keys('0'), data));
    expect(parsed.container).to.equal('legacy');
    expect(parsed.tensors[0]?.storage.offset).to.equal(whole(object(), keys('0')).length + 8);
  });
  const lies: [string, () => Buffer, ErrorCode, RegExp?][] = [
    [
      'another protocol',
      () => bytesOf(magic, 0x80, 2, 'K', 1, '.', system(0x88)),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /protocol 1001/,
    ],
    [
      'big-endian',
      () => bytesOf(magic, protocol, system(0x89), object(), keys('0'), data),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /big-endian/,
    ],
    ['a storage that is not listed', () => whole(object(), keys(), data), FORMAT, /not in the file/],
    [
      'a storage that no tensor has',
      () => whole(object(), keys('0', '1'), data, data),
      FORMAT,
      /no tensor has it/,
    ],
    ['a storage listed twice', () => whole(object(), keys('0', '0'), data, data), FORMAT, /twice/],
    [
      'a list that is a number',
      () => whole(object(), bytesOf('K', 1, '.'), data),
      FORMAT,
      /list of storages/,
    ],
    [
      'a count that differs',
      () => whole(object(), keys('0'), uint64(3), Buffer.alloc(16)),
      FORMAT,
      /4 elements in the pickle and 3/,
    ],
    [
      'a negative count',
      () => whole(object(), keys('0'), uint64(2n ** 64n - 4n), Buffer.alloc(16)),
      FORMAT,
      /-4/,
    ],
    [
      'a storage larger than the file',
      () => whole(object({ count: number(1_000_000) }), keys('0'), data),
      FORMAT,
      /in a file of/,
    ],
    [
      'a list as the view of a storage',
      () => whole(object({ count: bytesOf(number(4), ']') }), keys('0'), data),
      FORMAT,
      /view metadata/,
    ],
    [
      'a view beyond its storage',
      () =>
        whole(object({ count: bytesOf(number(4), text('v'), number(3), number(2), 0x87) }), keys('0'), data),
      FORMAT,
      /a view of elements 3 to 5/,
    ],
    [
      'a tensor beyond its view',
      () =>
        whole(object({ count: bytesOf(number(4), text('v'), number(0), number(3), 0x87) }), keys('0'), data),
      FORMAT,
      /storage of 3 elements/,
    ],
  ];
  for (const [name, make, code, message] of lies)
    it(name, () => expectCode(() => parse(make()), code, message));

  it('truncated at any byte', async () => {
    const file = whole(object(), keys('0'), data);
    for (let length = 0; length < file.length; length++)
      await expectCode(() => parse(file.subarray(0, length)), FORMAT);
  });
  it('pickles longer than the first piece that is read', async () => {
    const long = bytesOf(0x80, 2, '}', text('note'), text('x'.repeat(3_000_000)), 's.');
    const parsed = await parse(whole(long, keys()));
    const note = (parsed.value as Dict).get('note');
    expect(note instanceof LongText && note.toString()).to.have.length(3_000_000);
  });
  it('a string that claims 4 GB in a file of a few bytes', () =>
    expectCode(() => parse(whole(bytesOf('X', uint32(0xffffffff), 'abc'))), FORMAT, /truncated/));
});

describe('checkpoint: safetensors that lie', () => {
  const one = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const lies: [string, () => Buffer, ErrorCode?, RegExp?][] = [
    ['a header longer than the file', () => bytesOf(uint64(10_000), '{}'), FORMAT, /claims 10000 bytes/],
    ['a header of 48 bits', () => bytesOf(uint64(2n ** 47n), '{}'), FORMAT, /claims/],
    ['no JSON', () => safetensorsOf('{nonsense', 0), FORMAT, /no JSON/],
    ['bytes that are no UTF-8', () => bytesOf(uint64(9), '{"', 0xff, '":1}   '), FORMAT, /no JSON/],
    ['padding that is no space', () => safetensorsOf({ a: one }, 8, '\n\n'), FORMAT, /padded/],
    ['a hole', () => safetensorsOf({ a: { ...one, data_offsets: [4, 12] } }, 12), FORMAT, /hole/],
    [
      'a hole between',
      () => safetensorsOf({ a: one, b: { ...one, data_offsets: [12, 20] } }, 20),
      FORMAT,
      /hole/,
    ],
    [
      'an overlap',
      () => safetensorsOf({ a: one, b: { ...one, data_offsets: [4, 12] } }, 12),
      FORMAT,
      /overlaps/,
    ],
    ['one place for two', () => safetensorsOf({ a: one, b: one }, 8), FORMAT, /overlaps/],
    ['an end before the file', () => safetensorsOf({ a: one }, 9), FORMAT, /end at byte/],
    ['an end beyond the file', () => safetensorsOf({ a: one }, 7), FORMAT, /end at byte/],
    [
      'offsets that go backwards',
      () => safetensorsOf({ a: { ...one, data_offsets: [8, 0] } }, 8),
      FORMAT,
      /in front of its beginning/,
    ],
    ['another size than its shape', () => safetensorsOf({ a: { ...one, shape: [3] } }, 8), FORMAT],
    [
      'a smaller size than its bytes',
      () => safetensorsOf({ a: { ...one, shape: [1] } }, 8),
      FORMAT,
      /has 8 bytes/,
    ],
    [
      'a product that overflows',
      () => safetensorsOf({ a: { ...one, shape: [2 ** 40, 2 ** 40] } }, 8),
      FORMAT,
      /overflows/,
    ],
    ['a negative size', () => safetensorsOf({ a: { ...one, shape: [-2] } }, 8), FORMAT],
    ['a size beyond 2**53', () => safetensorsOf({ a: { ...one, shape: [1e300] } }, 8), FORMAT],
    ['a fraction', () => safetensorsOf({ a: { ...one, shape: [1.5] } }, 8), FORMAT],
    [
      '70 dimensions',
      () => safetensorsOf({ a: { ...one, shape: [2, ...Array<number>(69).fill(1)] } }, 8),
      'ERR_SENET_CHECKPOINT_LIMIT',
    ],
    [
      'an element type that is not supported',
      () => safetensorsOf({ a: { ...one, dtype: 'F8_E4M3' } }, 8),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /F8_E4M3/,
    ],
    [
      'an element type that does not exist',
      () => safetensorsOf({ a: { ...one, dtype: 'toString' } }, 8),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
    ],
    ['a missing field', () => safetensorsOf({ a: { dtype: 'F32', shape: [2] } }, 8)],
    ['an unknown field', () => safetensorsOf({ a: { ...one, stride: [1] } }, 8)],
    ['an entry that is a list', () => safetensorsOf({ a: [] }, 0)],
    [
      'metadata that is no text',
      () => safetensorsOf({ __metadata__: { a: 1 }, a: one }, 8),
      FORMAT,
      /metadata 'a'/,
    ],
    ['metadata that is a list', () => safetensorsOf({ __metadata__: [], a: one }, 8)],
    [
      'a name twice',
      () => safetensorsOf(`{"a":${JSON.stringify(one)},"a":${JSON.stringify(one)}}`, 8),
      FORMAT,
      /twice/,
    ],
  ];
  for (const [name, make, code = FORMAT, message] of lies)
    it(name, () => expectCode(() => parse(make()), code, message));

  it('what the format allows', async () => {
    const header = {
      'z\\"': { dtype: 'U8', shape: [3], data_offsets: [0, 3] },
      __metadata__: { format: 'pt' },
      __proto: { dtype: 'F32', shape: [], data_offsets: [3, 7] },
      empty: { dtype: 'F64', shape: [0, 5], data_offsets: [3, 3] },
    };
    const named = JSON.stringify(header).replace('__proto"', '__proto__"');
    const parsed = await parse(safetensorsOf(named, 7, '   '));
    expect([...(parsed.value as Dict).keys()]).to.deep.equal(['z\\"', '__proto__', 'empty']);
    expect(parsed.metadata.get('format')).to.equal('pt');
    expect((await parse(safetensorsOf({}, 0))).tensors).to.deep.equal([]);
  });
  it('truncated at any byte', async () => {
    const file = safetensorsOf({ a: one, b: { ...one, data_offsets: [8, 16] } }, 16, '  ');
    for (let length = 0; length < file.length; length++)
      await expectCode(() => parse(file.subarray(0, length)), FORMAT);
  });
});

describe('checkpoint: finding the state dict', () => {
  const tensor = tensorPickle().subarray(2 + 1 + text('w').length, -2);
  /** Dictionaries in dictionaries: a number is an int, null an object of an unknown class, a text a tensor. */
  interface Tree {
    [name: string]: Tree | number | string | null;
  }
  const pickled = (tree: Tree | number | string | null): Buffer => {
    if (tree === null) return bytesOf('cm\nC\n)R');
    if (typeof tree === 'number') return number(tree);
    if (typeof tree === 'string') return tensor;
    return bytesOf(
      '}',
      ...Object.entries(tree).map(([name, item]) => bytesOf(text(name), pickled(item), 's')),
    );
  };
  const find = async (tree: Tree, wish: Wish = {}): Promise<FoundStateDict | null> => {
    const file = await zipCheckpoint(bytesOf(0x80, 2, pickled(tree), '.'), { 'x/data/0': Buffer.alloc(16) });
    const { value, budget } = await parse(file);
    return findStateDict(value, wish, 'test', budget);
  };
  const net = { 'conv1.weight': 't', 'bn1.bias': 't', 'fc.weight': 't' };
  const named = (prefix: string): Tree =>
    Object.fromEntries(Object.keys(net).map((name) => [prefix + name, 't']));
  const model = { expected: () => new Set(Object.keys(net)) };

  it('itself, or under dictionaries of any name', async () => {
    for (const names of [
      [],
      ...['state_dict', 'model', 'ema', 'state_dict_ema', 'model_ema', 'module', 'params', 'params_ema'].map(
        (name) => [name],
      ),
      ...['network', 'weights', 'teacher', 'student', 'anything'].map((name) => [name]),
      ['model', 'state_dict'],
      ['a', 'b', 'c', 'd'],
    ]) {
      const wrapped = names.reduceRight<Tree>((inside, name) => ({ [name]: inside, epoch: 3 }), net);
      const found = await find(wrapped);
      expect(found?.wrappers, names.join()).to.deep.equal(names);
      expect([...(found?.tensors.keys() ?? [])]).to.deep.equal(Object.keys(net));
      expect([found?.prefix, found?.dropped, found?.others]).to.deep.equal(['', [], []]);
    }
    expect(await find({ epoch: 3, best: 't', args: null, more: 4 })).to.equal(null);
    expect(await find({ optimizer: { epoch: 3 } })).to.equal(null);
  });
  it('of several the largest; of equals a usual name, then any, then an average; an optimiser last', async () => {
    const chosen = async (tree: Tree, wish?: Wish): Promise<unknown> =>
      (await find(tree, wish))?.wrappers.join('.');
    const average = { ...net, n_averaged: 't' };
    expect(await chosen({ ema: average, anything: net })).to.equal('anything');
    expect(await chosen({ anything: net, model: net })).to.equal('model');
    expect(await chosen({ state_dict_ema: net, state_dict: net })).to.equal('state_dict');
    expect(await chosen({ small: { a: 't' }, large: net })).to.equal('large');
    expect(await chosen({ optimizer: { ...net, more: 't' }, model: net })).to.equal('model');
    expect(await chosen({ ema: net })).to.equal('ema');
    expect((await find({ state_dict: net, state_dict_ema: net }))?.others).to.deep.equal(['state_dict_ema']);
    expect(await chosen({ state_dict: net, state_dict_ema: net }, { key: 'state_dict_ema' })).to.equal(
      'state_dict_ema',
    );
    expect(await chosen({ a: { b: net } }, { key: 'a.b' })).to.equal('a.b');
    // What fits the model, however large the others are.
    const other = { x1: 't', x2: 't', x3: 't', x4: 't', x5: 't' };
    expect(await chosen({ model: other, generator: net }, model)).to.equal('generator');
  });
  it('the prefix that a model shows is taken away, and what stands beside it is left out', async () => {
    for (const prefix of [
      ...[
        'module.',
        '_orig_mod.',
        '_orig_mod.module.',
        'module.module.',
        'model.',
        'net.',
        'backbone.',
        'a.b.c.',
      ],
      '',
    ]) {
      const found = await find({ ...named(prefix), n_averaged: 't', epoch: 1 }, model);
      expect(found?.prefix).to.equal(prefix);
      expect([...(found?.tensors.keys() ?? [])].slice(0, 3)).to.deep.equal(Object.keys(net));
      expect(found?.dropped).to.deep.equal(prefix === '' ? ['epoch'] : ['n_averaged', 'epoch']);
      // Without a model names stay.
      expect((await find(named(prefix)))?.prefix).to.equal('');
    }
    // Names that the model itself begins so stay.
    const own = { expected: () => new Set(Object.keys(named('model.'))) };
    expect((await find(named('model.'), own))?.prefix).to.equal('');
    expect((await find(named('module.model.'), own))?.prefix).to.equal('module.');
    expect((await find({ ...named('model_ema.'), ...named('model.') }, model))?.prefix).to.equal('model.');
    const half = { 'module.conv1.weight': 't', 'module.bn1.bias': 't', 'fc.weight': 't' };
    expect([...((await find(half, model))?.tensors.keys() ?? [])]).to.deep.equal(Object.keys(net));
  });
  it('a lone dictionary that has the anchor is compared with nothing', async () => {
    const never = (): never => {
      throw new Error('the names of the model were asked for');
    };
    expect((await find(net, { anchor: 'fc.weight', expected: never }))?.prefix).to.equal('');
    expect((await find(net, { prefix: '', expected: never }))?.prefix).to.equal('');
  });
  it('what is said must be there', async () => {
    const tree = { state_dict: named('module.'), epoch: 3 };
    expect([...((await find(tree, { prefix: 'module.' }))?.tensors.keys() ?? [])]).to.deep.equal(
      Object.keys(net),
    );
    await expectCode(
      () => find(tree, { key: 'ema' }),
      'ERR_SENET_ARG_RANGE',
      /'ema'; there are some at 'state_dict' \(3\)/,
    );
    await expectCode(
      () => find(tree, { prefix: 'net.' }),
      'ERR_SENET_ARG_RANGE',
      /'net\.'; all 3 keys begin with 'module\.'/,
    );
  });
  it('objects of unknown classes may stand beside it and not in it', async () => {
    expect((await find({ state_dict: net, args: null }))?.wrappers).to.deep.equal(['state_dict']);
    await expectCode(() => find({ ...net, args: null }), 'ERR_SENET_CHECKPOINT_UNSAFE', /'args'.*'m\.C'/);
    await expectCode(
      () => find({ state_dict: { ...net, w: null } }),
      'ERR_SENET_CHECKPOINT_UNSAFE',
      /'w'.*'m\.C'/,
    );
    expect((await find({ ...net, args: null }, { lenient: true }))?.dropped).to.deep.equal(['args']);
    await expectCode(() => find({ args: null, more: null }), 'ERR_SENET_CHECKPOINT_UNSAFE', /'args'.*'m\.C'/);
  });
});

describe('checkpoint: inspect', () => {
  it('lists tensors, values, versions and metadata', async () => {
    const report = await inspectCheckpoint(fixture('training-checkpoint.pt'));
    expect(report.container).to.equal('zip');
    expect(report.stateDictAt).to.deep.equal(['model']);
    expect(report.stateDict).to.deep.equal({ key: 'model', prefix: '', dropped: [], others: [] });
    const old = await inspectCheckpoint(fixture('se_resnet20-dataparallel-old.pkl'));
    expect(old.sharedPrefix).to.equal('module.');
    const stripped = await inspectCheckpoint(fixture('se_resnet20-dataparallel-old.pkl'), {
      prefix: 'module.',
    });
    expect([stripped.stateDict?.prefix, stripped.sharedPrefix]).to.deep.equal(['module.', '']);
    await expectCode(
      () => inspectCheckpoint(fixture('training-checkpoint.pt'), { key: 'none' }),
      'ERR_SENET_ARG_RANGE',
    );
    expect(report.fileBytes).to.equal(readFileSync(fixture('training-checkpoint.pt')).length);
    expect(report.tensors[0]).to.deep.equal({
      key: 'model.fc.0.weight',
      dtype: 'float32',
      shape: [4, 64],
      bytes: 1024,
    });
    expect(report.values[0]).to.deep.equal({ key: 'epoch', type: 'int', value: 3 });
    expect(report.moduleVersions['fc.0']).to.equal(1);
    const other = await inspectCheckpoint(fixture('checkpoints', 'dtypes.safetensors'));
    expect(other.metadata).to.deep.equal({ format: 'pt', note: 'h\u00e9' });
    expect(JSON.parse(JSON.stringify(report))).to.deep.equal(report);
  });
});
