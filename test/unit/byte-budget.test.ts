/** ByteBudget: never more than the limit, or one that is larger; first come first served; every way out makes room. */
import { setImmediate as turn } from 'node:timers/promises';

import { expect } from 'chai';

import { ByteBudget, type Hold } from '../../lib/vision/byte-budget';
import { expectRejection } from '../support/errors';

describe('ByteBudget', () => {
  const entered: string[] = [];
  beforeEach(() => void (entered.length = 0));

  const enter = (budget: ByteBudget, name: string, bytes: number, signal?: AbortSignal): Hold => {
    const hold = budget.hold(signal);
    hold.reserve(bytes).then(
      () => entered.push(name),
      () => entered.push(`${name} left`),
    );
    return hold;
  };

  it('lets in what fits, in order; nobody overtakes who waits', async () => {
    const budget = new ByteBudget(10);
    const a = enter(budget, 'a', 6);
    const b = enter(budget, 'b', 5);
    enter(budget, 'c', 1);
    await turn();
    expect(entered).to.deep.equal(['a']);
    expect(budget.used).to.equal(6);
    a.release();
    await turn();
    expect(entered).to.deep.equal(['a', 'b', 'c']);
    b.release();
    b.release();
    expect(budget.used).to.equal(1);
  });

  it('what is larger than the limit goes alone', async () => {
    const budget = new ByteBudget(10);
    const small = enter(budget, 'small', 1);
    const large = [enter(budget, 'large', 25), enter(budget, 'other', 25)];
    enter(budget, 'behind', 1);
    await turn();
    expect(entered).to.deep.equal(['small']);
    small.release();
    await turn();
    expect(entered).to.deep.equal(['small', 'large']);
    large[0]?.release();
    await turn();
    expect(entered).to.deep.equal(['small', 'large', 'other']);
    large[1]?.release();
    await turn();
    expect(entered.at(-1)).to.equal('behind');
  });

  it('who aborts while he waits makes room for those behind, and holds nothing', async () => {
    const budget = new ByteBudget(10);
    const controller = new AbortController();
    enter(budget, 'a', 6);
    const gone = enter(budget, 'gone', 8, controller.signal);
    enter(budget, 'behind', 4);
    controller.abort();
    await turn();
    expect(entered.sort()).to.deep.equal(['a', 'behind', 'gone left']);
    expect(budget.used).to.equal(10);
    gone.release();
    expect(budget.used).to.equal(10);
    await expectRejection(budget.hold(AbortSignal.abort()).reserve(1), 'ERR_SENET_ABORTED');
  });

  it('who holds some never waits for more: two of them would wait for each other', async () => {
    const budget = new ByteBudget(10);
    const hold = budget.hold();
    await Promise.all([hold.reserve(8), hold.reserve(8)]);
    await hold.reserve(1);
    expect(budget.used).to.equal(17);
    hold.release();
    expect(budget.used).to.equal(0);
  });

  it('a hold that starts again gives back what it held, lets others in, and waits as the last', async () => {
    const budget = new ByteBudget(10);
    const a = enter(budget, 'a', 6);
    const b = enter(budget, 'b', 8);
    await turn();
    a.restart();
    expect(budget.used).to.equal(8);
    let again = false;
    const waiting = a.reserve(5).then(() => (again = true));
    await turn();
    expect([again, ...entered]).to.deep.equal([false, 'a', 'b']);
    b.release();
    await waiting;
    expect(budget.used).to.equal(5);
    a.release();
    expect(budget.used).to.equal(0);
  });

  it('a hold that is released while it waits takes nothing when its turn comes', async () => {
    const budget = new ByteBudget(10);
    const first = enter(budget, 'first', 10);
    enter(budget, 'second', 10).release();
    first.release();
    await turn();
    expect(budget.used).to.equal(0);
  });
});
