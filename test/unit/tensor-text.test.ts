/** Tensors as text: values as PyTorch prints them (recorded), then the facts; and what cannot be copied says so. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { inspect, isDeepStrictEqual } from 'node:util';
import { MessageChannel } from 'node:worker_threads';

import { expect } from 'chai';

import { memory, ones, tensor, tidy, zeros, type DType, type Element, type Tensor } from '../../lib/index';
import { expectThrow } from '../support/errors';

type Recorded =
  | (string | number | boolean)[]
  | { ramp: number; divisor: number }
  | { ones: number; then: number[]; 'ones again': number };
interface Case {
  name: string;
  dtype: DType;
  shape: number[];
  values: Recorded;
  text: string;
}

const { cases } = JSON.parse(
  readFileSync(path.join(__dirname, '..', 'fixtures', 'tensor-strings.json'), 'utf8'),
) as { cases: Case[] };

function element(value: string | number | boolean, dtype: DType): Element {
  if (typeof value !== 'string') return value;
  const special = { nan: NaN, inf: Infinity, '-inf': -Infinity, '-0': -0 }[value];
  return special ?? (dtype === 'int64' ? BigInt(value) : Number(value));
}

function made({ dtype, shape, values }: Case): Tensor {
  if (Array.isArray(values)) {
    const flat = values.map((value) => element(value, dtype));
    return tidy(() => tensor(flat, { dtype }).reshape(shape));
  }
  const flat =
    'ramp' in values
      ? Array.from({ length: values.ramp }, (_, i) => Math.fround(i) / values.divisor)
      : [
          ...Array<number>(values.ones).fill(1),
          ...values.then,
          ...Array<number>(values['ones again']).fill(1),
        ];
  return tidy(() => tensor(flat, { dtype }).reshape(shape));
}

describe('a tensor as text', () => {
  for (const recorded of cases) {
    it(`values as PyTorch prints them: ${recorded.name}`, () => {
      const text = String(made(recorded));
      expect(text.slice(0, `tensor(${recorded.text}`.length)).to.equal(`tensor(${recorded.text}`);
      expect(text.replaceAll('\n       ', ' ')).to.include(
        `shape: [${recorded.shape.join(', ')}], dtype: ${recorded.dtype}, device: cpu`,
      );
    });
  }

  it('names shape, dtype, device and the gradient, on another line where the last is full', () => {
    expect(String(tensor([[1, 2]]))).to.equal(
      'tensor([[1., 2.]], shape: [1, 2], dtype: float32, device: cpu)',
    );
    expect(inspect({ x: ones([1], { requiresGrad: true }) })).to.equal(
      '{\n  x: tensor([1.], shape: [1], dtype: float32, device: cpu, requiresGrad)\n}',
    );
    expect(String(zeros([20]))).to.equal(
      `tensor([${Array(20).fill('0.').join(', ')}],\n       shape: [20], dtype: float32, device: cpu)`,
    );
  });

  it('leaves nothing behind, inside a tidy and outside', () => {
    const large = ones([40, 50, 60]);
    const before = memory().tensors;
    tidy(() => {
      expect(String(large)).to.include('...');
      expect(memory().tensors).to.equal(before);
    });
    large.dispose();
    expect(String(large)).to.equal('Tensor { disposed }');
  });

  it('JSON has the values', () => {
    expect(JSON.stringify({ a: tensor([[1.5, 2]]), b: tensor([1n, -2n]), c: tensor(true) })).to.equal(
      '{"a":[[1.5,2]],"b":[1,-2],"c":true}',
    );
  });

  it('a copy that would be an empty object is a coded error', () => {
    const one = tensor([1]);
    const { port1, port2 } = new MessageChannel();
    for (const attempt of [
      () => structuredClone(one),
      () => structuredClone({ in: [one] }),
      () => port1.postMessage(one),
      () => Object.assign({}, one),
      () => isDeepStrictEqual(one, tensor([2])),
    ])
      expectThrow(attempt, 'ERR_SENET_ARG_TYPE', /toTypedArray/);
    port1.close();
    port2.close();
  });

  it('lists of integers are numbers too', () => {
    const x = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect(x.permute(1, 0).shape).to.deep.equal([3, 2]);
    expect(x.permute([1, 0]).shape).to.deep.equal([3, 2]);
    expect(x.reshape(3, 2).toArray()).to.deep.equal(x.reshape([3, 2]).toArray());
    expect(x.view(-1).shape).to.deep.equal([6]);
    expect(x.view(3, 2).shape).to.deep.equal([3, 2]);
    expect(tensor([[1], [2]]).expand(2, 3).shape).to.deep.equal([2, 3]);
    expect(tensor(5).view().shape).to.deep.equal([]);
    expect(() => x.view('a' as unknown as number))
      .to.throw()
      .with.property('code');
  });
});
