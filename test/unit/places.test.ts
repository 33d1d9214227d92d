/** Places: so many at a time, in order, and a failure frees its place; and how many libuv's pool has. */
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';

import { poolThreads } from '../../lib/tensor/pool-threads';
import { Places } from '../../lib/vision/places';

describe('Places', () => {
  it('runs so many at a time, first come first served, whatever becomes of them', async () => {
    const places = new Places(2);
    const begun: number[] = [];
    const ends: ((failed: boolean) => void)[] = [];
    const works = [0, 1, 2, 3].map((index) =>
      places
        .run(async () => {
          begun.push(index);
          const failed = await new Promise<boolean>((resolve) => (ends[index] = resolve));
          if (failed) throw new Error('on purpose');
          return index;
        })
        .catch(() => 'failed'),
    );
    await turn();
    expect(begun).to.deep.equal([0, 1]);
    ends[1]?.(true);
    await turn();
    expect(begun).to.deep.equal([0, 1, 2]);
    ends[0]?.(false);
    await turn();
    expect(begun).to.deep.equal([0, 1, 2, 3]);
    ends[2]?.(false);
    ends[3]?.(false);
    expect(await Promise.all(works)).to.deep.equal([0, 'failed', 2, 3]);
  });
});

describe('the threads of libuv’s pool', () => {
  const before = process.env.UV_THREADPOOL_SIZE;
  afterEach(() => {
    if (before === undefined) delete process.env.UV_THREADPOOL_SIZE;
    else process.env.UV_THREADPOOL_SIZE = before;
  });

  it('are four, or as many as the environment says', () => {
    delete process.env.UV_THREADPOOL_SIZE;
    expect(poolThreads()).to.equal(4);
    for (const [given, expected] of [
      ['1', 1],
      ['16', 16],
      [' 7x', 7],
      ['0', 1],
      ['', 1],
      ['many', 1],
      ['9999', 1024],
      ['-1', 1024],
    ] as const) {
      process.env.UV_THREADPOOL_SIZE = given;
      expect(poolThreads(), given).to.equal(expected);
    }
  });
});
