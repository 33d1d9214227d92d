/** `ops`: every operator by its schema, and what it refuses. */
import { expect } from 'chai';

import { arange, ones, rand, tensor, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { Tensor } from '../../lib/tensor/tensor';
import { expectRejection, expectThrow } from '../support/errors';

const wrong = (value: unknown): never => value as never;
const call = (name: string, ...args: unknown[]): Tensor => ops.call(name, ...args) as Tensor;

describe('ops.call', () => {
  it('an overload by its full name, or the first that fits by the base name', () => {
    const x = tensor([1, 2, 3]);
    expect(call('aten::add.Tensor', x, x).toArray()).to.deep.equal([2, 4, 6]);
    expect(call('aten::add', x, 2).toArray()).to.deep.equal([3, 4, 5]);
    expect(call('aten::add', x, x).toArray()).to.deep.equal([2, 4, 6]);
    expect(call('aten::sum', x).item()).to.equal(6);
    expect(call('aten::sum', ones([2, 3]), [1]).toArray()).to.deep.equal([3, 3]);
    expect(call('aten::max.dim', x, 0)).to.have.length(2);
    expect(call('aten::max', x).item()).to.equal(3);
  });

  it('keywords by schema name, defaults where nothing or undefined is given', () => {
    const x = tensor([1, 2, 3]);
    expect(call('aten::add.Tensor', x, x, { alpha: 10 }).toArray()).to.deep.equal([11, 22, 33]);
    expect(call('aten::add.Tensor', x, { other: x, alpha: 2 }).toArray()).to.deep.equal([3, 6, 9]);
    expect(call('aten::add.Tensor', { self: x, other: x }).toArray()).to.deep.equal([2, 4, 6]);
    expect(call('aten::softmax.int', x, 0, undefined).dtype).to.equal('float32');
    expect(call('aten::softmax.int', x, 0, { dtype: 'float64' }).dtype).to.equal('float64');
    expect(call('aten::clamp', x, null, 2).toArray()).to.deep.equal([1, 2, 2]);
    const named = Object.assign(Object.create(null) as object, { device: 'cpu', dtype: 'int32' });
    expect(call('aten::zeros', [2], { ...named }).dtype).to.equal('int32');
    expect(
      call('aten::contiguous', ones([1, 2, 2, 2]), { memory_format: 'channels_last' }).shape,
    ).to.have.length(4);
  });

  it('numbers, bigints and booleans as scalars', () => {
    const integers = tensor([1n, 2n]);
    expect(call('aten::mul', integers, 3).dtype).to.equal('int64');
    expect(call('aten::mul', integers, 1.5).dtype).to.equal('float32');
    expect(
      call('aten::mul', integers, 2n ** 62n)
        .select(0, 0)
        .item(),
    ).to.equal(2n ** 62n);
    expect(call('aten::mul', integers, true).toArray()).to.deep.equal([1n, 2n]);
    expect(call('aten::mul_', integers.clone(), true).toArray()).to.deep.equal([1n, 2n]);
    expect(call('aten::mul_', tensor([true, false]), false).toArray()).to.deep.equal([false, false]);
    expect(Object.is(call('aten::mul', tensor([1]), -0).item(), -0)).to.equal(true);
    expect(call('aten::add', tensor([1]), Infinity).item()).to.equal(Infinity);
    expect(call('aten::add', tensor([1]), NaN).item()).to.be.NaN;
    expectThrow(() => call('aten::add', integers, 2n ** 63n), 'ERR_SENET_ARG_RANGE');
    expectThrow(() => call('aten::select.int', integers, 0, 0.5), 'ERR_SENET_OPERATOR_ARGS');
    expectThrow(() => call('aten::select.int', integers, 0, NaN), 'ERR_SENET_OPERATOR_ARGS');
    expectThrow(() => call('aten::select.int', integers, 0, 2 ** 53), 'ERR_SENET_OPERATOR_ARGS', /2\*\*53/);
  });

  it('lists, one number for a list of fixed length, typed arrays, optional tensors', () => {
    const image = arange(16).to('float32').reshape([1, 1, 4, 4]);
    expect(call('aten::avg_pool2d', image, 2).toArray()).to.deep.equal([
      [
        [
          [2.5, 4.5],
          [10.5, 12.5],
        ],
      ],
    ]);
    expect(call('aten::avg_pool2d', image, [2, 4]).shape).to.deep.equal([1, 1, 2, 1]);
    expect(call('aten::permute', image, new Int32Array([3, 2, 1, 0])).shape).to.deep.equal([4, 4, 1, 1]);
    expect(call('aten::permute', image, new BigInt64Array([3n, 2n, 1n, 0n])).shape).to.deep.equal([
      4, 4, 1, 1,
    ]);
    expect(call('aten::cat', [image, image], 1).shape).to.deep.equal([1, 2, 4, 4]);
    expect(call('aten::linear', ones([1, 2]), ones([3, 2]), null).toArray()).to.deep.equal([[2, 2, 2]]);
    expect(call('aten::linear', ones([1, 2]), ones([3, 2]), ones([3])).toArray()).to.deep.equal([[3, 3, 3]]);
    expect(call('aten::index.Tensor', arange(4), [tensor([3n, 0n])]).toArray()).to.deep.equal([3n, 0n]);
    expect(
      call('aten::index.Tensor', arange(4).reshape([2, 2]), [null, tensor([1n])]).toArray(),
    ).to.deep.equal([[1n], [3n]]);
    expect(call('aten::einsum', 'ij,jk->ik', [ones([2, 3]), ones([3, 2])]).toArray()).to.deep.equal([
      [3, 3],
      [3, 3],
    ]);
    expectThrow(() => call('aten::permute', image, 3), 'ERR_SENET_OPERATOR_ARGS', /expected an array/);
    expectThrow(
      () => call('aten::cat', [image, null]),
      'ERR_SENET_OPERATOR_ARGS',
      /expected a tensor, got null/,
    );
  });

  it('several results come as an array, none as undefined, plain values as they are', () => {
    const [values, indices] = ops.call('aten::sort', tensor([3, 1, 2])) as [Tensor, Tensor];
    expect([values.toArray(), indices.toArray()]).to.deep.equal([
      [1, 2, 3],
      [1n, 2n, 0n],
    ]);
    const parts = ops.call('aten::split.Tensor', arange(5), 2) as Tensor[];
    expect(parts.map(({ shape }) => shape[0])).to.deep.equal([2, 2, 1]);
    expect(ops.call('aten::equal', ones([2]), ones([2]))).to.equal(true);
    expect(ops.call('aten::size.int', ones([7]), 0)).to.equal(7);
    expect(ops.call('aten::item', tensor([2.5]))).to.equal(2.5);
    expect(ops.call('aten::_assert_async', ones([1]))).to.equal(undefined);
  });

  it('out variants write into their argument', () => {
    const out = zeros([2]);
    call('aten::add.out', ones([2]), ones([2]), { out }).dispose();
    expect(out.toArray()).to.deep.equal([2, 2]);
  });

  it('an operator that does not exist, with a hint', () => {
    const code = 'ERR_SENET_UNKNOWN_OPERATOR';
    expectThrow(() => call('add', ones([1]), 1), code, /did you mean 'aten::add'/);
    expectThrow(() => call('aten::add.Tensr'), code, /'aten::add.Tensor'/);
    expectThrow(() => call('aten::nothing'), code, /aten::nothing/);
    expectThrow(() => call('aten::nothing.Tensor'), code);
    expectThrow(() => call(''), code);
    expectThrow(() => call('.'), code);
    expectThrow(() => call('aten::\0add'), code);
    expectThrow(() => ops.schema('aten::nothing'), code);
    for (const name of [undefined, null, 3, {}, ['aten::add']]) {
      expectThrow(() => call(wrong(name)), 'ERR_SENET_ARG_TYPE', /operator name/);
    }
  });

  it('missing, superfluous and wrong arguments name the schema and the argument', () => {
    const code = 'ERR_SENET_OPERATOR_ARGS';
    const x = ones([2]);
    expectThrow(
      () => call('aten::add.Tensor'),
      code,
      /aten::add\.Tensor\(Tensor self.*\n.*'self' is missing/,
    );
    expectThrow(() => call('aten::add.Tensor', x), code, /'other' is missing/);
    expectThrow(() => call('aten::relu', x, x), code, /takes 1 positional arguments, got 2/);
    expectThrow(() => call('aten::relu', x, { alpha: 1 }), code, /keyword/);
    expectThrow(() => call('aten::relu', x, { self: x }), code, /keyword/);
    expectThrow(() => call('aten::relu', 'x'), code, /'self': expected a tensor, got the string 'x'/);
    expectThrow(() => call('aten::relu', undefined), code, /'self'/);
    expectThrow(() => call('aten::relu', () => x), code, /a function/);
    expectThrow(() => call('aten::relu', Symbol('x')), code, /a symbol/);
    expectThrow(() => call('aten::relu', [x]), code, /an array of length 1/);
    expectThrow(() => call('aten::relu', new Map()), code, /an object/);
    expectThrow(() => call('aten::softmax.int', x, '0'), code, /'dim'/);
    expectThrow(() => call('aten::zeros', [2], { dtype: 'float' }), code, /'dtype': expected a dtype/);
    expectThrow(() => call('aten::zeros', [2], { dtype: 6 }), code, /'dtype'/);
    expectThrow(() => call('aten::sum', x, { keepdim: 1 }), code, /keepdim/);
    expectThrow(() => call('aten::bernoulli', x, { generator: {} }), code, /Generator/);
    expectThrow(() => call('aten::zeros', [2], { device: 'tpu' }), 'ERR_SENET_ARG_RANGE', /tpu/);
    // An array that contains itself must end in an error, whatever its code.
    const endless: unknown[] = [];
    endless.push(endless);
    expect(() => call('aten::cat', endless)).to.throw();
  });

  it('getters in arrays and keywords that dispose what was given before', () => {
    const x = ones([2]);
    const list: Tensor[] = [x];
    Object.defineProperty(list, 1, {
      enumerable: true,
      get() {
        x.dispose();
        return ones([2]);
      },
    });
    expectThrow(() => call('aten::cat', list), 'ERR_SENET_DISPOSED');
    const y = ones([2]);
    const keywords = {
      get alpha(): number {
        y.dispose();
        return 1;
      },
    };
    expectThrow(() => call('aten::add.Tensor', y, y, keywords), 'ERR_SENET_DISPOSED');
    const thrown = new Error('by a getter');
    const throws = {
      get alpha(): number {
        throw thrown;
      },
    };
    expect(() => call('aten::add.Tensor', ones([2]), ones([2]), throws)).to.throw(thrown);
  });

  it('arrays inside themselves are a wrong type', async () => {
    const inItself: unknown[] = [];
    inItself.push(inItself);
    for (const run of [
      () => call('aten::stack', inItself),
      () => call('aten::stack', { tensors: inItself }),
      () => ones([1]).permute(inItself as number[]),
    ]) {
      expectThrow(run, 'ERR_SENET_ARG_TYPE', /64 deep/);
    }
    await expectRejection(ops.callAsync('aten::stack', inItself), 'ERR_SENET_ARG_TYPE', /64 deep/);
  });

  it('refuses by name what breaks memory safety, with the reason', () => {
    const x = ones([4]);
    const refused: [string, ...unknown[]][] = [
      ['aten::set_', x, x],
      ['aten::set_.source_Tensor', x, x],
      ['aten::resize_', x, [100]],
      ['aten::as_strided', x, [100], [1]],
      ['aten::as_strided_', x, [100], [1]],
      ['aten::from_file', '/etc/passwd'],
      ['aten::_unsafe_view', x, [4]],
      ['aten::_stack', [x], 9],
      ['aten::unsafe_split.Tensor', x, 2],
    ];
    for (const [name, ...args] of refused) {
      const error = expectThrow(() => call(name, ...args), 'ERR_SENET_REFUSED_OPERATOR', /is refused: it /);
      expect(error.message).to.contain(name.split('.')[0]);
    }
    expect(x.toArray()).to.deep.equal([1, 1, 1, 1]);
  });

  it('the quotient of integers that does not fit is an error, and not the end of the process', async () => {
    for (const [dtype, lowest] of [
      ['int64', -(2n ** 63n)],
      ['int32', -(2n ** 31n)],
    ] as const) {
      const all = tensor([lowest, 7n, lowest + 1n], { dtype });
      const down = { rounding_mode: 'trunc' };
      for (const other of [-1, tensor([-1n], { dtype }), tensor([-1n, 1n, -1n], { dtype })]) {
        for (const name of ['aten::div', 'aten::div_', 'aten::divide']) {
          expectThrow(() => call(name, all, other, down), 'ERR_SENET_ARG_RANGE', new RegExp(`no ${dtype}`));
        }
        await expectRejection(ops.callAsync('aten::div', all, other, down), 'ERR_SENET_ARG_RANGE');
      }
      const apart = tensor([1n, -1n, -1n], { dtype });
      expect(call('aten::div', all, apart, down).toArray()).to.deep.equal(
        [lowest, -7n, -(lowest + 1n)].map((one) => (dtype === 'int64' ? one : Number(one))),
      );
    }
    const narrow = tensor([-(2n ** 31n)], { dtype: 'int32' });
    expect(call('aten::div', narrow, tensor([-1n]), { rounding_mode: 'trunc' }).item()).to.equal(2n ** 31n);
  });

  it('what LibTorch refuses is its message without a backtrace', () => {
    const error = expectThrow(
      () => call('aten::mm', ones([2, 3]), ones([2, 3])),
      'ERR_SENET_LIBTORCH',
      /mat1 and mat2/,
    );
    expect(error.message).not.to.match(/frame #|Exception raised/);
    expectThrow(() => call('aten::linalg_inv', zeros([2, 2])), 'ERR_SENET_LIBTORCH', /singular/);
    expectThrow(() => call('aten::fft_fft', ones([4])).dtype, 'ERR_SENET_DTYPE', /Complex/);
  });

  it('list and schema', () => {
    const names = ops.list();
    expect(names.length).to.be.greaterThan(2500);
    expect(new Set(names).size).to.equal(names.length);
    expect(names).to.include.members(['aten::add.Tensor', 'aten::relu', 'aten::topk']);
    expect(names).to.deep.equal([...names].sort());
    expect(ops.schema('aten::relu').split('\n')[0]).to.equal('aten::relu(Tensor self) -> Tensor');
    expect(ops.schema('aten::add').split('\n')).to.have.length.greaterThan(3);
  });

  it('gives no tensor back that nobody owns', () => {
    const x = ones([8]);
    const before = memory().tensors;
    for (let i = 0; i < 50; i++) {
      call('aten::add', x, 1).dispose();
      expect(() => call('aten::mm', x, x)).to.throw();
      expect(() => call('aten::add', x)).to.throw();
      x.add_(1);
    }
    expect(memory().tensors).to.equal(before);
  });
});

describe('ops.callAsync', () => {
  it('runs as a job and gives the same', async () => {
    const x = rand([500, 500]);
    const job = ops.callAsync('aten::matmul', x, x) as Promise<Tensor>;
    expect(memory().jobs.queued + memory().jobs.running).to.be.greaterThan(0);
    const product = await job;
    expect(
      product
        .sub(call('aten::matmul', x, x))
        .abs()
        .max()
        .item(),
    ).to.be.below(1e-3);
    const [values] = (await ops.callAsync('aten::topk', x, 2, { dim: 0 })) as Tensor[];
    expect(values?.shape).to.deep.equal([2, 500]);
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
  });

  it('only rejects, and its errors carry the stack of the caller', async () => {
    const cases: [unknown[], Parameters<typeof expectRejection>[1]][] = [
      [['aten::nothing'], 'ERR_SENET_UNKNOWN_OPERATOR'],
      [['aten::relu'], 'ERR_SENET_OPERATOR_ARGS'],
      [[7], 'ERR_SENET_ARG_TYPE'],
      [['aten::set_', ones([1])], 'ERR_SENET_REFUSED_OPERATOR'],
      [['aten::relu', ones([1]), { signal: 3 }], 'ERR_SENET_ARG_TYPE'],
      [['aten::mm', ones([2, 3]), ones([2, 3])], 'ERR_SENET_LIBTORCH'],
    ];
    for (const [args, code] of cases) {
      const promise = ops.callAsync(...(args as [string]));
      expect(promise).to.be.instanceOf(Promise);
      await expectRejection(promise, code);
    }
    const error = await expectRejection(
      ops.callAsync('aten::mm', ones([2, 3]), ones([2, 3])),
      'ERR_SENET_LIBTORCH',
    );
    expect(error.stack).to.contain('ops.test');
  });

  it('out: the result goes there if it fits, and nothing is resized', async () => {
    const out = zeros([2]);
    expect(ops.call('aten::add', tensor([1, 2]), tensor([3, 4]), { out })).to.be.instanceOf(Tensor);
    expect(out.toArray()).to.deep.equal([4, 6]);
    expect(() => void ops.call('aten::add', ones([3]), ones([3]), { out }))
      .to.throw(/out: the result has the shape \[3\], and this tensor \[2\]/)
      .with.property('code', 'ERR_SENET_SHAPE');
    await expectRejection(ops.callAsync('aten::add', ones([3]), ones([3]), { out }), 'ERR_SENET_SHAPE');
    expect(out.toArray()).to.deep.equal([4, 6]);
    const columns = zeros([2, 2]).transpose(0, 1);
    ops.call('aten::add', tensor([[1, 2], [3, 4]]), 0, { out: columns }); // prettier-ignore
    expect(columns.toArray()).to.deep.equal([[1, 2], [3, 4]]); // prettier-ignore
    const [values, indices] = [zeros([1]), zeros([1], { dtype: 'int64' })];
    ops.call('aten::topk', tensor([3, 5, 4]), 1, { values, indices });
    expect([values.item(), indices.item()]).to.deep.equal([5, 1n]);
    const leaf = tensor([0, 0], { requiresGrad: true });
    expect(() => void ops.call('aten::add', ones([2]), ones([2]), { out: leaf })).to.throw(
      /automatic differentiation/,
    );
  });

  it('an abort by a getter of an argument counts', async () => {
    const controller = new AbortController();
    const options = Object.defineProperty({ signal: controller.signal }, 'alpha', {
      enumerable: true,
      get() {
        controller.abort();
        return 1;
      },
    });
    await expectRejection(ops.callAsync('aten::add', ones([1]), ones([1]), options), 'ERR_SENET_ABORTED');
  });

  it('an aborted call: before, queued, running', async () => {
    const reason = new Error('no longer wanted');
    const before = await expectRejection(
      ops.callAsync('aten::relu', ones([1]), { signal: AbortSignal.abort(reason) }),
      'ERR_SENET_ABORTED',
    );
    expect([before.name, before.cause]).to.deep.equal(['AbortError', reason]);
    const x = rand([600, 600]);
    const controllers = Array.from({ length: 4 }, () => new AbortController());
    const jobs = controllers.map(({ signal }) =>
      expectRejection(ops.callAsync('aten::matmul', x, x, { signal }), 'ERR_SENET_ABORTED'),
    );
    // The first may run, the rest wait; all reject at once.
    for (const controller of controllers) controller.abort(reason);
    for (const error of await Promise.all(jobs)) expect(error.cause).to.equal(reason);
    const after = (await ops.callAsync('aten::relu', tensor([-1, 1]))) as Tensor;
    expect(after.toArray()).to.deep.equal([0, 1]);
    // Aborting what has ended does nothing.
    const late = new AbortController();
    const done = (await ops.callAsync('aten::relu', tensor([2]), { signal: late.signal })) as Tensor;
    late.abort();
    expect(done.item()).to.equal(2);
  });
});
