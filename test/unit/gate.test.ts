/** Gate: never more inside than allowed, first come first served, and every way out makes room. */
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';

import { Gate } from '../../lib/vision/gate';

describe('Gate', () => {
  it('lets in as many as may be inside, in the order of arrival, after failures too', async () => {
    const gate = new Gate((inside) => inside < 2);
    let inside = 0;
    const order: number[] = [];
    const results = await Promise.allSettled(
      Array.from({ length: 7 }, (_, index) =>
        gate.run(async () => {
          order.push(index);
          expect(++inside).to.be.at.most(2);
          await turn();
          inside--;
          if (index % 3 === 0) throw new Error('failed');
          return index;
        }),
      ),
    );
    expect(order).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value : 'failed'))).to.deep.equal([
      'failed',
      1,
      2,
      'failed',
      4,
      5,
      'failed',
    ]);
  });

  it('asks again when it is told to', async () => {
    let open = false;
    const gate = new Gate(() => open);
    let entered = 0;
    const work = gate.run(() => Promise.resolve(++entered));
    await turn();
    expect(entered).to.equal(0);
    open = true;
    gate.update();
    expect(await work).to.equal(1);
  });
});
