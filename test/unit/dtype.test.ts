/** Names of dtypes and devices, and typed arrays and nested arrays in and out of tensors for every dtype. */
import { expect } from 'chai';

import type { DType, TypedArray } from '../../lib/binding';
import { DTYPES, isDevice, isFloating } from '../../lib/tensor/dtype';
import { full, ones, tensor, zeros } from '../../lib/tensor/factories';
import { expectThrow } from '../support/errors';

const wrong = (value: unknown): never => value as never;

/** What carries each dtype, with extreme values. */
const carried: Record<DType, TypedArray> = {
  float32: new Float32Array([0, -0, 1.5, -3.4028234663852886e38, NaN, Infinity]),
  float64: new Float64Array([0, -0, 0.1, -1.7976931348623157e308, NaN, 5e-324]),
  // 1, -2, the largest, the smallest subnormal, infinity, a NaN
  float16: new Uint16Array([0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00]),
  bfloat16: new Uint16Array([0x3f80, 0xc000, 0x7f7f, 0x0001, 0x7f80, 0x7fc0]),
  int64: new BigInt64Array([0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n, 7n]),
  int32: new Int32Array([0, -1, 2147483647, -2147483648, 5, 6]),
  int16: new Int16Array([0, -1, 32767, -32768, 5, 6]),
  int8: new Int8Array([0, -1, 127, -128, 5, 6]),
  uint8: new Uint8Array([0, 1, 127, 128, 255, 6]),
  bool: new Uint8Array([0, 1, 1, 0, 0, 1]),
};

describe('dtypes', () => {
  for (const dtype of DTYPES) {
    it(`${dtype}: a typed array comes back as it went in`, () => {
      const data = carried[dtype];
      const made = tensor(data, { dtype, shape: [2, 3] });
      expect([made.dtype, made.shape]).to.deep.equal([dtype, [2, 3]]);
      const back = made.toTypedArray();
      expect(back.constructor).to.equal(data.constructor);
      // Bytes, so that -0 and the pattern of a NaN count.
      expect(Buffer.from(back.buffer)).to.deep.equal(Buffer.from(data.buffer));
      // A strided view: the transposed matrix, row by row.
      const turned = made.transpose(0, 1);
      expect(turned.shape).to.deep.equal([3, 2]);
      const expected = [0, 3, 1, 4, 2, 5].map((index) => data[index]);
      expect([...turned.toTypedArray()]).to.deep.equal(expected);
    });

    it(`${dtype}: zeros, ones, full, empty shapes and no dimensions`, () => {
      expect(zeros([2], { dtype }).dtype).to.equal(dtype);
      const one = dtype === 'int64' ? 1n : dtype === 'bool' ? true : 1;
      expect(ones([1], { dtype }).item()).to.equal(one);
      expect(full([], 1, { dtype }).toArray()).to.equal(one);
      const none = zeros([0, 3], { dtype });
      expect(none.toTypedArray()).to.have.length(0);
      expect(none.toArray()).to.deep.equal([]);
      expect(zeros([2, 0], { dtype }).toArray()).to.deep.equal([[], []]);
      const scalar = tensor(1, { dtype });
      expect([scalar.shape, scalar.dtype, scalar.item()]).to.deep.equal([[], dtype, one]);
    });

    it(`${dtype}: to every other dtype and back`, () => {
      const small = tensor([0, 1, 1, 0], { dtype });
      for (const other of DTYPES) {
        const there = small.to(other);
        expect(there.dtype).to.equal(other);
        expect(there.to(dtype).toArray()).to.deep.equal(small.toArray());
      }
    });
  }

  it('16-bit floats round as PyTorch does, from arrays and from typed arrays', () => {
    const data = [1 / 3, 65519, 65520, 1e-8, -2.5];
    const half = [0x3555, 0x7bff, 0x7c00, 0x0000, 0xc100];
    const brain = [0x3eab, 0x4780, 0x4780, 0x322c, 0xc020];
    for (const source of [data, new Float32Array(data)]) {
      expect([...tensor(source, { dtype: 'float16' }).toTypedArray()]).to.deep.equal(half);
      expect([...tensor(source, { dtype: 'bfloat16' }).toTypedArray()]).to.deep.equal(brain);
    }
    expect(tensor(new Uint16Array([0x3555]), { dtype: 'float16' }).item()).to.equal(0.333251953125);
    expect(tensor(new Uint16Array([0x3eab]), { dtype: 'bfloat16' }).toArray()).to.deep.equal([0.333984375]);
  });

  it('without a dtype: numbers float32, booleans bool, bigints int64, typed arrays their own', () => {
    const cases: [unknown, DType][] = [
      [1, 'float32'],
      [[1, 2], 'float32'],
      [[1, 2n, true], 'float32'],
      [[], 'float32'],
      [1n, 'int64'],
      [[1n, true], 'int64'],
      [[true, false], 'bool'],
      [new Float64Array(1), 'float64'],
      [new Int16Array(1), 'int16'],
      [new Uint8ClampedArray(1), 'uint8'],
      [Buffer.from('ab'), 'uint8'],
      [new BigInt64Array(1), 'int64'],
    ];
    for (const [data, dtype] of cases) expect(tensor(wrong(data)).dtype).to.equal(dtype);
    expect([full([1], 2).dtype, full([1], 2n).dtype, full([1], true).dtype]).to.deep.equal([
      'float32',
      'int64',
      'bool',
    ]);
  });

  it('a Uint16Array needs a 16-bit dtype, and arrays that no dtype has are refused', () => {
    for (const dtype of [undefined, 'float32', 'int16', 'uint8'] as const) {
      const options = dtype === undefined ? undefined : { dtype };
      expectThrow(() => tensor(new Uint16Array(1), options), 'ERR_SENET_DTYPE', /float16 or bfloat16/);
    }
    for (const data of [new Uint32Array(1), new BigUint64Array(1), new DataView(new ArrayBuffer(4))]) {
      expectThrow(() => tensor(wrong(data)), 'ERR_SENET_ARG_TYPE', new RegExp(data.constructor.name));
    }
  });

  it('names of dtypes and devices that do not exist', () => {
    expectThrow(() => zeros([1], { dtype: wrong('float') }), 'ERR_SENET_DTYPE', /float32.*'float'/);
    expectThrow(() => zeros([1], { dtype: wrong('toString') }), 'ERR_SENET_DTYPE');
    expectThrow(() => zeros([1], { dtype: wrong(7) }), 'ERR_SENET_DTYPE', /7/);
    expectThrow(() => zeros([1], { device: wrong('gpu') }), 'ERR_SENET_ARG_RANGE', /'cpu'.*'gpu'/);
    expectThrow(() => zeros([1], { device: wrong(0) }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => zeros([1]).to(wrong('complex64')), 'ERR_SENET_ARG_RANGE', /complex64/);
    expectThrow(() => zeros([1]).to(wrong(undefined)), 'ERR_SENET_ARG_MISSING');
    expectThrow(() => zeros([1]).to(wrong(null)), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => zeros([1]).to(wrong({ dtyp: 'float32' })), 'ERR_SENET_UNKNOWN_OPTION', /'dtype'/);
    expectThrow(() => zeros([1]).to({ memoryFormat: wrong('nhwc') }), 'ERR_SENET_ARG_RANGE', /channels_last/);
    expect(DTYPES.filter(isFloating)).to.deep.equal(['float32', 'float64', 'float16', 'bfloat16']);
    expect(['cpu', 'cuda', 'cuda:0', 'cuda:12'].every(isDevice)).to.equal(true);
    expect(['', 'cuda:', 'cuda:-1', 'cuda:1.5', 'cuda:1000', 'cpu:0', 0, null].some(isDevice)).to.equal(
      false,
    );
  });
});
