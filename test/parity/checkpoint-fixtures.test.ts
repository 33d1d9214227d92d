/** Files that PyTorch and safetensors wrote give the tensors that Python sees in them. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';

import { load, loadCheckpoint } from '../../lib/checkpoint/load';
import { StateDict, consumePrefixInStateDictIfPresent } from '../../lib/checkpoint/state-dict';
import { Tensor } from '../../lib/tensor/tensor';
import { fixture } from '../support/checkpoint-files';

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
});
