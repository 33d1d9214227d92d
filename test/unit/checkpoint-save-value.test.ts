/** `saveCheckpoint`: which values go into a file and come back, which are refused, and what a failure leaves behind. */
import { expect } from 'chai';
import fc from 'fast-check';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

import { loadCheckpoint } from '../../lib/checkpoint/load';
import { saveCheckpoint } from '../../lib/checkpoint/save';
import { StateDict } from '../../lib/checkpoint/state-dict';
import { tensor, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import type { Tensor } from '../../lib/tensor/tensor';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';

describe('saveCheckpoint', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());
  const file = temporary.path('value.pt');
  const roundTrip = async (value: unknown): Promise<unknown> => {
    await saveCheckpoint(value, file);
    return loadCheckpoint(file);
  };

  it('values of every kind come back', async () => {
    const value = new Map<unknown, unknown>([
      ['null', null],
      ['booleans', [true, false]],
      ['integers', [0, 255, 256, -1, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, Number.MAX_SAFE_INTEGER]],
      ['bigints', [2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n, 2n ** 200n, -(2n ** 55n)]],
      ['floats', [0.1, -0, 1e300, 5e-324, NaN, Infinity, -Infinity]],
      ['text', ['', 'ä €𝄞', '\0', 'x'.repeat(1000)]],
      ['bytes', Uint8Array.of(0, 10, 127, 128, 255)],
      ['set', new Set([1, 'a', null])],
      [3, 'a number as a key'],
      ['empty', [[], new Map()]],
    ]);
    expect(await roundTrip(value)).to.deep.equal(value);
    expect(await roundTrip(7)).to.equal(7);
    expect(Object.is(await roundTrip(-0), -0)).to.equal(true);
  });

  it('objects become dictionaries without what is undefined; names are only names', async () => {
    const value = JSON.parse('{"a":{"b":1},"__proto__":2}') as Record<string, unknown>;
    const loaded = (await roundTrip({ ...value, ['__proto__']: 2, gone: undefined })) as Map<string, unknown>;
    expect([...loaded.keys()]).to.deep.equal(['a', '__proto__']);
    expect(loaded.get('a')).to.deep.equal(new Map([['b', 1]]));
  });

  it('tensors keep values, dtypes, strides, shared memory and requiresGrad', async () => {
    const base = tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    const weight = tensor([7], { requiresGrad: true });
    const loaded = (await roundTrip([
      base,
      base.transpose(0, 1),
      weight,
      tensor(5n),
      zeros([0]),
    ])) as Tensor[];
    const [a, b, c, d, e] = loaded as [Tensor, Tensor, Tensor, Tensor, Tensor];
    expect(b.shape).to.deep.equal([3, 2]);
    expect(numbers(b)).to.deep.equal([1, 4, 2, 5, 3, 6]);
    ops.call('aten::fill_', a, 9);
    expect(numbers(b)).to.deep.equal(Array(6).fill(9));
    expect([c.requiresGrad, d.dtype, d.shape, e.shape]).to.deep.equal([true, 'int64', [], [0]]);
  });

  it('state dicts keep their metadata, shared and cyclic values their identity', async () => {
    const state = new StateDict([['a.weight', zeros([2])]], new Map([['a', { version: 2 }]]));
    const shared = [1];
    const cycle: unknown[] = [state, shared, shared];
    cycle.push(cycle);
    const loaded = (await roundTrip(cycle)) as unknown[];
    expect(loaded[0]).to.be.instanceOf(StateDict);
    expect((loaded[0] as StateDict).metadata.get('a')).to.deep.equal({ version: 2 });
    expect(loaded[1]).to.equal(loaded[2]);
    expect(loaded[3]).to.equal(loaded);
    // More values than an index of one byte counts.
    const many = Array.from({ length: 400 }, (_, i) => [i]);
    expect(await roundTrip([...many, many[399]])).to.deep.equal([...many, [399]]);
  });

  it('any nested plain value comes back (property)', async () => {
    const key = fc.string();
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, true, false),
        fc.double(),
        fc.maxSafeInteger(),
        fc.bigInt({ min: 2n ** 53n, max: 2n ** 80n }),
        fc.string({ unit: 'grapheme' }),
        fc.uint8Array(),
        fc.array(tie('value'), { maxLength: 5 }),
        fc.array(fc.tuple(key, tie('value')), { maxLength: 5 }).map((entries) => new Map(entries)),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(value, async (given) => {
        expect(await roundTrip(given)).to.deep.equal(given);
      }),
      { numRuns: 60 },
    );
  });

  it('refuses what is no plain value, naming its place, before it touches the file', async () => {
    writeFileSync(file, 'old');
    const refuse = (value: unknown, place: RegExp): Promise<unknown> =>
      expectRejection(saveCheckpoint(value, file), 'ERR_SENET_ARG_TYPE', place);
    await refuse(undefined, /got undefined/);
    await refuse({ a: [1, () => 1] }, /at 'a\.1', got a function/);
    await refuse({ when: new Date() }, /'when', got an object \(Date\)/);
    await refuse([new Float32Array(2)], /'0', got an object \(Float32Array\)/);
    await refuse({ s: Symbol('x') }, /symbol/);
    await refuse(new Map([[{}, 1]]), /as a key/);
    await refuse([undefined], /'0', got undefined/);
    const gone = zeros([1]);
    gone.dispose();
    await expectRejection(saveCheckpoint({ gone }, file), 'ERR_SENET_DISPOSED');
    let deep: unknown = 1;
    for (let i = 0; i < 250; i++) deep = [deep];
    await expectRejection(saveCheckpoint(deep, file), 'ERR_SENET_ARG_RANGE', /200 levels/);
    await expectRejection(saveCheckpoint(1, 5 as never), 'ERR_SENET_ARG_TYPE');
    expect(readFileSync(file, 'utf8')).to.equal('old');
    expect(readdirSync(temporary.folder)).to.deep.equal(['value.pt']);
  });

  it('refuses keys that would be one in Python', async () => {
    const file = temporary.path('keys.pt');
    for (const keys of [
      ['\ud800', '\ud801'],
      [1, 1n],
      [1, true],
      [0, false],
    ])
      await expectRejection(
        saveCheckpoint(new Map(keys.map((key, value) => [key, value])), file),
        'ERR_SENET_ARG_RANGE',
        /key/,
      );
    // So are elements of a set; and a text would come back as another.
    for (const value of [new Set([1, 1n]), new Set([0, false]), new Set(['\ud800', 'a']), { a: ['b\ud800'] }])
      await expectRejection(saveCheckpoint({ value }, file), 'ERR_SENET_ARG_RANGE', /at 'value/);
    await saveCheckpoint(
      new Map<unknown, number>([
        [1, 0],
        ['1', 1],
        [2, 2],
      ]),
      file,
    );
    expect(((await loadCheckpoint(file)) as Map<unknown, unknown>).size).to.equal(3);
    rmSync(file);
  });

  it('a write that fails leaves the old file and no other', async () => {
    await saveCheckpoint({ epoch: 1 }, file);
    await expectRejection(saveCheckpoint({}, temporary.path('missing', 'x.pt')), 'ERR_SENET_FILE_NOT_FOUND');
    // A tensor that is disposed while it is being written stands for a disk that is full.
    const large = zeros([3 * 1024 * 1024]);
    const writing = saveCheckpoint({ epoch: 2, large }, file);
    large.dispose();
    await expectRejection(writing, 'ERR_SENET_DISPOSED');
    expect(await loadCheckpoint(file)).to.deep.equal(new Map([['epoch', 1]]));
    expect(readdirSync(temporary.folder)).to.deep.equal(['value.pt']);
  });
});
