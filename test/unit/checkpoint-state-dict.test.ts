/** StateDict, prefixes, and what `load`, `loadCheckpoint` and `save` do besides formats. */
import { expect } from 'chai';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  lstatSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { load, loadCheckpoint } from '../../lib/checkpoint/load';
import { parseCheckpoint } from '../../lib/checkpoint/parse';
import { saveWeights as save } from '../../lib/checkpoint/save';
import { withSource } from '../../lib/checkpoint/source';
import { StateDict, consumePrefixInStateDictIfPresent } from '../../lib/checkpoint/state-dict';
import { planRead } from '../../lib/checkpoint/tensor-record';
import { binding } from '../../lib/native';
import { arange, ones, tensor, zeros } from '../../lib/tensor/factories';
import { runJob } from '../../lib/tensor/jobs';
import { ops } from '../../lib/tensor/ops';
import { callOperator, handleOf, type Tensor } from '../../lib/tensor/tensor';
import { SELayer } from '../../lib/nn/se-layer';
import { save as saveModule } from '../../lib/onnx/save';
import { memory } from '../../lib/tensor/runtime';
import { expectCode, fixture, zipOf, bytesOf, uint32 } from '../support/checkpoint-files';
import { collectGarbage } from '../support/collect';
import { skip } from '../support/skip';

describe('checkpoint: large storages that are copied in pieces', () => {
  it('give the views that reading the file gives, over one storage', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'senet-'));
    try {
      const base = arange(1_500_000, { dtype: 'float32' });
      const image = base.slice(0, 6, 6 + 1_200_000).view([20, 30, 2000]);
      const views: [string, Tensor][] = [
        ['whole', base],
        ['permuted', image.permute(2, 0, 1)],
        ['apart', image.slice(1, 3, 9).slice(2, 5, 1999)],
        ['every third', ops.call('aten::slice.Tensor', base, 0, 1, null, 3) as Tensor],
        ['repeated', base.slice(0, 4, 5).expand([7])],
        ['one', base.select(0, 1_499_999)],
        ['none', base.slice(0, 9, 9)],
      ];
      const file = path.join(folder, 'views.pt');
      await save(new StateDict(views), file);
      const [read, copied] = [await load(file), await load(readFileSync(file))];
      for (const [name, view] of views) {
        const one = copied.get(name) as Tensor;
        const other = read.get(name) as Tensor;
        expect([...one.shape], name).to.deep.equal([...view.shape]);
        expect(infoOf(one).stride, name).to.deep.equal(infoOf(other).stride);
        expect(infoOf(one).storageOffset, name).to.equal(infoOf(other).storageOffset);
        expect(ops.call('aten::equal', one, view), name).to.equal(true);
      }
      copied.get('whole')?.fill_(3);
      expect(copied.get('one')?.item()).to.equal(3);
      expect(infoOf(copied.get('one') as Tensor).bytes).to.equal(6_000_000);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
  const infoOf = (one: Tensor): ReturnType<typeof binding.storageInfo> =>
    binding.storageInfo(handleOf(one, 'it'));
});

describe('checkpoint: prefixes', () => {
  it('are stripped where they stand, metadata too, as in Python', async () => {
    const stateDict = await load(fixture('se_resnet20-dataparallel-old.pkl'));
    expect([...stateDict.keys()][0]).to.equal('module.conv1.weight');
    consumePrefixInStateDictIfPresent(stateDict, 'module.');
    expect([...stateDict.keys()][0]).to.equal('conv1.weight');
    expect([...stateDict.keys()].some((key) => key.startsWith('module.'))).to.equal(false);
    expect([...stateDict.metadata.keys()].some((key) => key.startsWith('module'))).to.equal(false);
  });
  it('leave other names alone and move what they rename to the end', () => {
    const entry = zeros([1]);
    const metadata = new Map([
      ['', { version: 9 }],
      ['module', { version: 1 }],
      ['module.a', { version: 2 }],
      ['b', { version: 3 }],
    ]);
    const stateDict = new StateDict(
      [
        ['module.a', entry],
        ['b', entry],
        ['modulex', entry],
      ],
      metadata,
    );
    consumePrefixInStateDictIfPresent(stateDict, 'module.');
    expect([...stateDict.keys()]).to.deep.equal(['b', 'modulex', 'a']);
    expect([...stateDict.metadata]).to.deep.equal([
      ['', { version: 1 }],
      ['b', { version: 3 }],
      ['a', { version: 2 }],
    ]);
    consumePrefixInStateDictIfPresent(stateDict, '_orig_mod.');
    expect([...stateDict.keys()]).to.deep.equal(['b', 'modulex', 'a']);
  });
  it('need a state dict and text', () => {
    expect(() => consumePrefixInStateDictIfPresent({} as never, 'a')).to.throw(TypeError);
    expect(() => consumePrefixInStateDictIfPresent(new Map(), 3 as never)).to.throw(TypeError);
  });
});

describe('checkpoint: load', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'senet-load-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('options: unknown, wrong, aborted before and during', async () => {
    const file = fixture('se_resnet20-zip.pt');
    await expectCode(() => load(file, { nmap: true } as never), 'ERR_SENET_UNKNOWN_OPTION', /mmap/);
    await expectCode(() => load(file, { mmap: 1 } as never), 'ERR_SENET_ARG_TYPE');
    const before = await expectCode(
      () => load(file, { signal: AbortSignal.abort('why') }),
      'ERR_SENET_ABORTED',
    );
    expect([before.name, before.cause]).to.deep.equal(['AbortError', 'why']);
    const controller = new AbortController();
    const during = expectCode(() => load(file, { signal: controller.signal }), 'ERR_SENET_ABORTED');
    controller.abort();
    await during;
  });
  it('what an aborted load had read, and what a module was saved by, is freed', async () => {
    const file = path.join(folder, 'layer.safetensors');
    const layer = new SELayer(64);
    layer.parameters(); // of which the module keeps each
    await collectGarbage(); // of what other tests left
    const before = memory().tensors;
    await saveModule(layer, file);
    expect(memory().tensors).to.equal(before);
    const bytes = readFileSync(fixture('se_resnet20-zip.pt'));
    for (let turns = 0; turns < 40; turns++) {
      const controller = new AbortController();
      const loading = load(bytes, { signal: controller.signal }).then(
        (state) => state.dispose(),
        () => undefined,
      );
      for (let turn = 0; turn < turns; turn++) await nextTurn();
      controller.abort();
      await loading;
    }
    // Work that nobody waits for ends by itself.
    for (let turn = 0; turn < 200 && memory().tensors > before; turn++) await nextTurn();
    expect(memory().tensors).to.be.at.most(before);
    layer.dispose();
  });
  it('a file without a state dict says what it holds', async () => {
    const pickle = bytesOf('}X', uint32(5), 'epochK', 1, 's.');
    const zip = await zipOf({ 'x/data.pkl': pickle });
    await expectCode(() => load(zip), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', /epoch \(int\).*loadCheckpoint/);
    expect(await loadCheckpoint(zip)).to.deep.equal(new Map([['epoch', 1]]));
  });
  it('mapped, read and from bytes give the same', async () => {
    for (const name of ['dtypes.pt', 'dtypes.pkl', 'dtypes.safetensors']) {
      const file = fixture('checkpoints', name);
      const [a, b, c] = [await load(file), await load(file, { mmap: true }), await load(readFileSync(file))];
      for (const [key, value] of a) {
        expect(b.get(key)?.toTypedArray(), key).to.deep.equal(value.toTypedArray());
        expect(c.get(key)?.toTypedArray(), key).to.deep.equal(value.toTypedArray());
      }
    }
  });
  it('a file that changes between parse and read', async () => {
    const file = path.join(folder, 'a.pt');
    for (const change of [() => truncateSync(file, 5000), () => utimesSync(file, 1, 1)]) {
      writeFileSync(file, readFileSync(fixture('se_resnet20-zip.pt')));
      const read = withSource(file, async (source) => {
        if (source.origin.kind !== 'file') throw new Error('not a file');
        const { fd } = source.origin;
        const modified = binding.modifiedTime(fd);
        const { ranges, tensors } = planRead((await parseCheckpoint(source)).tensors);
        change();
        return runJob(() => binding.readTensors(fd, source.size, modified, ranges, tensors));
      });
      await expectCode(() => read, 'ERR_SENET_FILE_CHANGED');
    }
  });
  it('closes its file, however it ends', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    for (let i = 0; i < 20; i++) {
      await load(fixture('checkpoints', 'dtypes.pt'));
      await load(fixture('evil-zip.pt')).catch(() => undefined);
      await load(fixture('truncated-legacy.pkl')).catch(() => undefined);
    }
    expect(open()).to.be.at.most(before + 2);
  });
});

describe('checkpoint: save', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'senet-save-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const place = (name: string): string => path.join(folder, name);

  it('a module, a StateDict and a Map, in both formats', async () => {
    const layer = new SELayer(16, 4);
    const state = layer.stateDict();
    for (const target of [layer, state, new Map(state)]) {
      for (const name of ['a.pt', 'a.safetensors']) {
        await save(target, place(name));
        const back = await load(place(name));
        expect([...back.keys()].sort()).to.deep.equal([...state.keys()].sort());
        for (const [key, value] of state) expect(back.get(key)?.toArray()).to.deep.equal(value.toArray());
        if (name === 'a.pt') expect([...back.keys()]).to.deep.equal([...state.keys()]);
      }
    }
    await save(layer, place('m.pt'));
    expect([...(await load(place('m.pt'))).metadata]).to.deep.equal([...state.metadata]);
    expect(readdirSync(folder).sort()).to.deep.equal(['a.pt', 'a.safetensors', 'm.pt']);
  });
  it('keeps shared storages and strides in a .pt, and parameters', async () => {
    const views = await load(fixture('checkpoints', 'views.pt'));
    await save(views, place('views.pt'));
    const back = await load(place('views.pt'));
    for (const [key, value] of views) {
      expect(back.get(key)?.toArray(), key).to.deep.equal(value.toArray());
      expect(back.get(key)?.requiresGrad, key).to.equal(value.requiresGrad);
    }
    back.get('whole')?.add_(100);
    expect(back.get('tail')?.toArray()).to.deep.equal([120, 121, 122, 123]);
    expect((back.get('transposed')?.toArray() as number[][])[1]?.[0]).to.equal(101);
  });
  it('refuses shared memory in safetensors, one storage of two types in .pt, and unknown extensions', async () => {
    const views = await load(fixture('checkpoints', 'views.pt'));
    await expectCode(
      () => save(views, place('v.safetensors')),
      'ERR_SENET_ARG_RANGE',
      /'whole' and 'tail' share memory/,
    );
    const rows = tensor([
      [1, 2],
      [3, 4],
      [5, 6],
    ]);
    const [above, below, across] = [rows.slice(0, 0, 1), rows.slice(0, 1, 3), rows.slice(1, 0, 1)];
    // Beside each other in one storage, they share nothing.
    const apart = new Map([
      ['below', below],
      ['above', above],
    ]);
    await save(apart, place('apart.safetensors'));
    const read = await load(place('apart.safetensors'));
    for (const [name, part] of apart) expect(read.get(name)?.toArray()).to.deep.equal(part.toArray());
    rmSync(place('apart.safetensors'));
    for (const other of [rows, below, across])
      await expectCode(
        () => save(new Map([...apart, ['other', other]]), place('v.safetensors')),
        'ERR_SENET_ARG_RANGE',
        /'(above|below)' and 'other' share memory|'other' and 'below' share memory/,
      );
    await expectCode(
      () => save(apart, place('v.safetensors'), { metadata: { note: 'half \ud800' } }),
      'ERR_SENET_ARG_RANGE',
      /metadata 'note' is not well-formed/,
    );
    const bits = ones([2]);
    const mixed = new Map([
      ['a', bits],
      ['b', callOperator('aten::view.dtype', [bits, 'int32']) as typeof bits],
    ]);
    await expectCode(
      () => save(mixed, place('v.pt')),
      'ERR_SENET_ARG_RANGE',
      /'a' \(float32\) and 'b' \(int32\)/,
    );
    await expectCode(() => save(views, place('v.onnx')), 'ERR_SENET_ARG_RANGE', /\.safetensors or \.pt/);
    await expectCode(() => save({} as never, place('v.pt')), 'ERR_SENET_ARG_TYPE');
    await expectCode(() => save(new Map([['a', 3 as never]]), place('v.pt')), 'ERR_SENET_ARG_TYPE', /'a'/);
    await expectCode(() => save(views, place('v.pt'), { metdata: {} } as never), 'ERR_SENET_UNKNOWN_OPTION');
    expect(readdirSync(folder)).to.deep.equal([]);
  });
  it('writes tensors that are not contiguous, and metadata, to safetensors', async () => {
    const transposed = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]).transpose(0, 1);
    const state = new StateDict(
      [
        ['t', transposed],
        ['e', zeros([0, 3])],
      ],
      new Map(),
      new Map([['size', '224']]),
    );
    await save(state, place('t.safetensors'), { metadata: { crop: '7' } });
    const back = await load(place('t.safetensors'));
    expect(back.get('t')?.toArray()).to.deep.equal([
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
    expect(Object.fromEntries(back.fileMetadata)).to.deep.equal({ format: 'pt', size: '224', crop: '7' });
  });
  it('leaves the old file and no other when it fails', async () => {
    writeFileSync(place('old.pt'), 'old');
    const gone = ones([2]);
    gone.dispose();
    await expectCode(
      () =>
        save(
          new Map([
            ['a', ones([2])],
            ['gone', gone],
          ]),
          place('old.pt'),
        ),
      'ERR_SENET_DISPOSED',
    );
    expect(readFileSync(place('old.pt'), 'utf8')).to.equal('old');
    mkdirSync(place('folder.pt'));
    await expectCode(() => save(new Map([['a', ones([2])]]), place('folder.pt')), 'ERR_SENET_FILE');
    await expectCode(() => save(new Map([['a', ones([2])]]), place('none/a.pt')), 'ERR_SENET_FILE_NOT_FOUND');
    expect(readdirSync(folder).sort()).to.deep.equal(['folder.pt', 'old.pt']);
  });
  it('a tensor that is disposed while it is written leaves no file', async () => {
    const large = ones([4_000_000]);
    const last = ones([2]);
    const saving = expectCode(
      () =>
        save(
          new Map([
            ['large', large],
            ['last', last],
          ]),
          place('a.pt'),
        ),
      'ERR_SENET_DISPOSED',
    );
    setImmediate(() => last.dispose());
    await saving;
    expect(readdirSync(folder)).to.deep.equal([]);
  });
  it('keeps the mode of the file that it replaces, and saves under the longest of names', async () => {
    writeFileSync(place('private.pt'), '', { mode: 0o600 });
    await save(new Map([['a', ones([2])]]), place('private.pt'));
    expect(statSync(place('private.pt')).mode & 0o777).to.equal(0o600);
    const longest = place(`${'x'.repeat(252)}.pt`);
    await save(new Map([['a', ones([2])]]), longest);
    expect((await load(longest)).size).to.equal(1);
  });
  it('refuses what it would not give back', async () => {
    const odd = (entries: unknown, options?: unknown): Promise<unknown> =>
      save(entries as Map<string, Tensor>, place('odd.pt'), options as never);
    await expectCode(() => odd(new Map([['a\ud800', ones([1])]])), 'ERR_SENET_ARG_RANGE', /well-formed/);
    await expectCode(() => odd(new Map([[5, ones([1])]])), 'ERR_SENET_ARG_TYPE', /a name/);
    await expectCode(() => odd({ stateDict: () => 5 }), 'ERR_SENET_ARG_TYPE');
    await expectCode(() => odd(new Map(), { metadata: null }), 'ERR_SENET_ARG_TYPE', /metadata/);
    await expectCode(() => save(new Map(), place('a\0.pt')), 'ERR_SENET_FILE_NOT_FOUND');
    expect(readdirSync(folder)).to.deep.equal([]);
  });
  it('writes through a link', async () => {
    writeFileSync(place('real.pt'), '');
    symlinkSync('real.pt', place('link.pt'));
    await save(new Map([['a', ones([2])]]), place('link.pt'));
    expect(lstatSync(place('link.pt')).isSymbolicLink()).to.equal(true);
    expect((await load(place('real.pt'))).size).to.equal(1);
  });
});

describe('ranges of a file', () => {
  it('whose lengths do not fit 64 bits together are refused', async function () {
    // Sparse: only a file system in memory has files of this size.
    const folder = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    const file = path.join(mkdtempSync(path.join(folder, 'senet-ranges-')), 'huge');
    writeFileSync(file, '');
    const size = Number.MAX_SAFE_INTEGER;
    try {
      truncateSync(file, size);
    } catch {
      rmSync(path.dirname(file), { recursive: true });
      skip(this, 'no file system here has files of 2^53 bytes');
    }
    const fd = openSync(file, 'r');
    try {
      const ranges = Array.from({ length: 1100 }, () => ({ offset: 0, length: size }));
      const modified = binding.modifiedTime(fd);
      await expectCode(
        () => runJob(() => binding.readTensors(fd, size, modified, ranges, [])),
        'ERR_SENET_CHECKPOINT_LIMIT',
      );
      await expectCode(() => runJob(() => binding.readBytes(fd, size, ranges)), 'ERR_SENET_CHECKPOINT_LIMIT');
    } finally {
      closeSync(fd);
      rmSync(path.dirname(file), { recursive: true });
    }
  });
});
