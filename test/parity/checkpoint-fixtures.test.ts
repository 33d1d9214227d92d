/** Files that PyTorch and safetensors wrote give the tensors that Python sees in them. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';

import { inspectCheckpoint } from '../../lib/checkpoint/inspect';
import { load, loadCheckpoint } from '../../lib/checkpoint/load';
import { NumpyArray } from '../../lib/checkpoint/numpy-values';
import { StateDict, consumePrefixInStateDictIfPresent } from '../../lib/checkpoint/state-dict';
import { OpaqueValue } from '../../lib/checkpoint/to-plain';
import { Tensor } from '../../lib/tensor/tensor';
import { expectCode, fixture } from '../support/checkpoint-files';

interface Summary {
  shape: number[];
  dtype: string;
  sum: number;
  l2: number;
  head: number[];
}

function numbers(tensor: Tensor | undefined): number[] {
  if (tensor === undefined) throw new Error('the tensor is missing');
  const flat = tensor.reshape([-1]).toArray() as (number | bigint | boolean)[];
  return flat.map(Number);
}

function readJson<T>(...names: string[]): T {
  return JSON.parse(readFileSync(fixture(...names), 'utf8')) as T;
}

describe('parity: one se_resnet20 in six files', () => {
  const { state } = readJson<{ state: Record<string, Summary> | [string, Summary][] }>(
    'se_resnet20-checkpoint.json',
  );
  const summaries = new Map(Array.isArray(state) ? state : Object.entries(state));
  const files = {
    'se_resnet20-zip.pt': 0,
    'se_resnet20-legacy.pkl': 0,
    'se_resnet20.safetensors': 0,
    'se_resnet20-trainer-checkpoint.pt': 0,
    'se_resnet20-dataparallel-old.pkl': 0,
    'se_resnet20-half.pt': 1e-3,
  };
  let reference: StateDict;
  before(async () => {
    reference = await load(fixture('se_resnet20-zip.pt'));
  });

  it('the zip file agrees with what Python recorded, in order', () => {
    expect([...reference.keys()]).to.deep.equal([...summaries.keys()]);
    for (const [key, summary] of summaries) {
      const tensor = reference.get(key);
      expect(tensor?.shape, key).to.deep.equal(summary.shape);
      expect(tensor?.dtype, key).to.equal(summary.dtype.replace('torch.', ''));
      const values = numbers(tensor);
      expect(values.slice(0, summary.head.length), key).to.deep.equal(summary.head);
      const tolerance = 1e-10 * Math.max(1, summary.l2);
      expect(
        values.reduce((sum, value) => sum + value, 0),
        key,
      ).to.be.closeTo(summary.sum, tolerance * Math.sqrt(values.length));
      expect(Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)), key).to.be.closeTo(
        summary.l2,
        tolerance,
      );
    }
  });
  for (const [name, tolerance] of Object.entries(files)) {
    it(name, async () => {
      const loaded = await load(fixture(name));
      consumePrefixInStateDictIfPresent(loaded, 'module.');
      const old = name.includes('dataparallel-old');
      const expected = [...reference.keys()].filter((key) => !old || !key.endsWith('num_batches_tracked'));
      expect([...loaded.keys()].sort()).to.deep.equal(expected.sort());
      for (const [key, tensor] of loaded) {
        const source = reference.get(key);
        const isHalf = tolerance > 0 && source?.dtype === 'float32';
        expect(tensor.dtype, key).to.equal(isHalf ? 'float16' : source?.dtype);
        expect(tensor.shape, key).to.deep.equal(source?.shape);
        const [actual, wanted] = [numbers(tensor), numbers(source)];
        if (tolerance === 0) expect(actual, key).to.deep.equal(wanted);
        else
          actual.forEach((value, i) =>
            expect(Math.abs(value - (wanted[i] ?? NaN)), key).to.be.at.most(
              tolerance * Math.max(1, Math.abs(wanted[i] ?? NaN)),
            ),
          );
      }
    });
  }
});

describe('parity: small files of every kind', () => {
  interface Expected {
    dtype: string;
    shape: number[];
    requiresGrad: boolean;
    values: (number | string)[];
  }
  const expected = readJson<Record<string, Record<string, Expected>>>('checkpoints', 'expected.json');
  for (const [name, tensors] of Object.entries(expected)) {
    it(name, async () => {
      const loaded = await load(fixture('checkpoints', name));
      expect([...loaded.keys()].sort()).to.deep.equal(Object.keys(tensors).sort());
      for (const [key, { dtype, shape, requiresGrad, values }] of Object.entries(tensors)) {
        const tensor = loaded.get(key);
        expect(tensor?.dtype, key).to.equal(dtype);
        expect(tensor?.shape, key).to.deep.equal(shape);
        expect(tensor?.requiresGrad, key).to.equal(requiresGrad && !name.endsWith('.safetensors'));
        expect(numbers(tensor), key).to.deep.equal(values.map(Number));
      }
    });
  }
  for (const name of ['views.pt', 'views.pkl', 'view-metadata.pkl', 'python2.pkl']) {
    it(`${name}: tensors that shared a storage share it`, async () => {
      const loaded = await load(fixture('checkpoints', name));
      const [whole, part] =
        name === 'python2.pkl' ? ['weight', 'bias'] : ['whole', name.startsWith('views') ? 'tail' : 'part'];
      const before = numbers(loaded.get(part));
      loaded.get(whole)?.add_(1000);
      expect(numbers(loaded.get(part))).to.deep.equal(before.map((value) => value + 1000));
    });
  }
});

describe('parity: whole checkpoints', () => {
  it('training-checkpoint.pt', async () => {
    const checkpoint = (await loadCheckpoint(fixture('training-checkpoint.pt'))) as Map<string, unknown>;
    expect([...checkpoint.keys()]).to.deep.equal([
      'epoch',
      'model',
      'optimizer',
      'scheduler',
      'best',
      'rng',
      'classes',
      'args',
    ]);
    expect(checkpoint.get('epoch')).to.equal(3);
    expect(checkpoint.get('model')).to.be.instanceOf(StateDict);
    const optimizer = checkpoint.get('optimizer') as Map<string, Map<number, Map<string, unknown>>>;
    expect(optimizer.get('state')?.get(0)?.get('exp_avg')).to.be.instanceOf(Tensor);
    const groups = optimizer.get('param_groups') as unknown as Map<string, unknown>[];
    expect(groups.map((group) => group.get('params'))).to.deep.equal([[0], [1]]);
    expect(groups[0]?.get('betas')).to.have.length(2);
    expect((checkpoint.get('rng') as Tensor).dtype).to.equal('uint8');
  });
  for (const name of ['values.pt', 'values-protocol4.pt']) {
    it(name, async () => {
      const values = (await loadCheckpoint(fixture('checkpoints', name))) as Map<string, unknown>;
      expect(values.get('state_dict')).to.be.instanceOf(StateDict);
      const plain = {
        counter: new Map([
          [3, 1],
          [7, 2],
        ]),
        set: new Set([1, 2]),
        bytes: Uint8Array.of(0, 255, 128),
        bytearray: Uint8Array.of(97, 98),
        complex: { real: 1, imaginary: 2 },
        big: 2n ** 70n,
        nan: NaN,
        size: [2, 3],
        device: 'cuda:1',
        dtype: 'bfloat16',
        tuple: [1, [2, null]],
        constructor: 2,
        negative: -(2 ** 31) - 1,
        text: '\u00fc\u{1f600}',
      };
      for (const [key, value] of Object.entries(plain)) {
        const found = values.get(key);
        expect(found instanceof Uint8Array ? Uint8Array.from(found) : found, key).to.deep.equal(value);
      }
      expect(values.get('__proto__')).to.equal(1);
      expect(values.get('self')).to.equal(values.get('tuple'));
      expect((values.get('cycle') as unknown[])[0]).to.equal(values.get('cycle'));
      expect(numbers(values.get('tensor with attribute') as Tensor)).to.deep.equal([1]);
    });
  }
  for (const protocol of [2, 5]) {
    const name = `objects-protocol${protocol}.pt`;
    it(`${name}: NumPy's values are values, and what is of other classes is a name with its parts`, async () => {
      const file = fixture('checkpoints', name);
      expect(numbers((await load(file)).get('weight'))).to.deep.equal([1, 1]);
      const values = (await loadCheckpoint(file)) as Map<string, unknown>;
      const arrays = values.get('arrays') as Map<string, NumpyArray>;
      const array = (key: string): unknown[] => {
        const { dtype, shape, data } = arrays.get(key) as NumpyArray;
        return [dtype, shape, Array.isArray(data) ? data : [...(data as Float64Array)]];
      };
      expect(array('float64')).to.deep.equal(['float64', [3], [0, 1, 2]]);
      expect(array('float32 fortran')).to.deep.equal(['float32', [2, 3], [0, 1, 2, 3, 4, 5]]);
      expect(array('float16')).to.deep.equal(['float16', [2], [0x3e00, 0xc000]]);
      expect(array('int64')).to.deep.equal(['int64', [1, 2], [2n ** 60n, -1n]]);
      expect(array('uint32')).to.deep.equal(['uint32', [1], [2 ** 32 - 1]]);
      expect(array('big-endian')).to.deep.equal(['int16', [2], [1, 2]]);
      expect(array('bool')).to.deep.equal(['bool', [2], [1, 0]]);
      expect(array('complex')).to.deep.equal(['complex128', [1], [1, 2]]);
      expect(array('text')).to.deep.equal(['str', [2], ['a', 'h\u00e9']]);
      expect(array('bytes')).to.deep.equal(['bytes', [1], [Uint8Array.of(97, 98)]]);
      expect(array('objects')).to.deep.equal(['object', [2], [1, 'two']]);
      expect(array('empty')).to.deep.equal(['float64', [0, 3], []]);
      for (const odd of ['dates', 'records']) {
        expect(arrays.get(odd), odd).to.be.instanceOf(OpaqueValue).with.property('global', 'numpy.ndarray');
      }
      const { date, ...scalars } = Object.fromEntries(values.get('scalars') as Map<string, unknown>);
      expect(date).to.be.instanceOf(OpaqueValue);
      expect(scalars).to.deep.equal({
        ...{
          float64: 93.1,
          float32: 0.5,
          float16: -1.5,
          int64: 7,
          uint64: 2n ** 64n - 1n,
          int8: -3,
          bool: true,
        },
        ...{ complex: { real: 1, imaginary: -1 }, text: 'h\u00e9' },
      });
      const globals = {
        ...{ 'numpy class': 'numpy.float64', args: 'argparse.Namespace', slice: 'builtins.slice' },
        ...{ time: 'datetime.datetime', range: 'builtins.range', deque: 'collections.deque' },
        ...{ defaults: 'collections.defaultdict', simple: 'types.SimpleNamespace', phase: '__main__.Phase' },
        ...{ settings: '__main__.Settings', method: 'builtins.getattr', bag: '__main__.Bag' },
        ...{
          queue: '__main__.Queue',
          keywords: protocol === 2 ? 'functools.partial' : '__main__.Keywords',
          class: '__main__.Settings',
        },
        'optimizer class': 'torch.optim.sgd.SGD',
      };
      const shown = new Map((await inspectCheckpoint(file)).values.map(({ key, type }) => [key, type]));
      for (const [key, global] of Object.entries(globals)) {
        expect(values.get(key), key).to.be.instanceOf(OpaqueValue).with.property('global', global);
        expect(shown.get(key), key).to.equal(global);
      }
      const parts = (key: string): OpaqueValue => values.get(key) as OpaqueValue;
      expect(parts('class').args).to.equal(null);
      expect(parts('args').state).to.deep.equal(
        new Map<string, unknown>([
          ['lr', 0.1],
          ['model', 'se'],
        ]),
      );
      expect(parts('path').args).to.include('tmp');
      expect(parts('defaults').entries).to.deep.equal(new Map([['a', [1]]]));
      expect(parts('queue').items).to.deep.equal([5]);
      expect(parts('bag').entries).to.deep.equal(new Map([['a', 1]]));
      expect(parts('method').args?.[1]).to.equal('anneal');
      if (protocol === 5) expect(parts('keywords').args?.at(-1)).to.deep.equal(new Map([['rate', 0.5]]));
      const key = [...values.keys()].at(-1) as unknown;
      expect(key).to.be.instanceOf(OpaqueValue);
    });
  }

  it('script.pt: the weights of a TorchScript archive; export.pt2 is named', async () => {
    expect((await inspectCheckpoint(fixture('checkpoints', 'script.pt'))).container).to.equal('torchscript');
    const checkpoint = await loadCheckpoint(fixture('checkpoints', 'script.pt'));
    expect(checkpoint).to.be.instanceOf(StateDict).with.property('size', 8);
    await expectCode(
      () => load(fixture('checkpoints', 'export.pt2')),
      'ERR_SENET_CHECKPOINT_UNSUPPORTED',
      /torch\.export.*torch\.save/,
    );
  });
});
