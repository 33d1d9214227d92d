/** Places: so many at a time, in order, and a failure frees its place. */
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';

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
