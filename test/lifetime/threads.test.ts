/** Where the work runs: on the executor's threads, as many as configured, and nowhere else. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import { configure, memory } from '../../lib/tensor/runtime';
import { expectThrow } from '../support/errors';
import { skip } from '../support/skip';

const SCENARIO = path.join(__dirname, 'threads-scenario.ts');

function run<T>(name: string): T {
  const done = spawnSync(process.execPath, ['--require', 'tsx/cjs', SCENARIO, name], {
    encoding: 'utf8',
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
  });
  expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
  return JSON.parse(done.stdout) as T;
}

describe('threads', function () {
  this.timeout(120_000);

  before(function () {
    if (process.platform !== 'linux') skip(this, 'of Linux only');
  });

  it('one copy of OpenMP is mapped', () => {
    expect(run<string[]>('copies of OpenMP')).to.have.length(1);
  });

  it("forwards run neither on the JS thread nor on libuv's pool", () => {
    const facts = run<{ endedWhileBlocked: boolean; turns: number }>('away from the event loop and the pool');
    expect(facts.endedWhileBlocked, 'ended while the pool was taken').to.equal(true);
    expect(facts.turns, 'turns of the event loop while jobs ran').to.be.greaterThan(20);
  });

  for (const [name, threads] of [
    ['one worker, one thread', 1],
    ['one worker, two threads', 2],
    ['two workers, one thread each', 2],
    ['reconfigured from two workers to one', 1],
  ] as const) {
    it(`${name}: ${threads} at work`, () => {
      expect(run<{ threads: number }>(name).threads).to.equal(threads);
    });
  }

  it('configure checks what it is given', () => {
    const wrong = (value: unknown): never => value as never;
    for (const value of [0, -1, 257, 1.5, NaN]) {
      expectThrow(() => configure({ workers: value }), 'ERR_SENET_ARG_RANGE', /workers/);
      expectThrow(() => configure({ threadsPerWorker: value }), 'ERR_SENET_ARG_RANGE', /threadsPerWorker/);
    }
    expectThrow(() => configure({ workers: wrong('2') }), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => configure(wrong({ threads: 2 })), 'ERR_SENET_UNKNOWN_OPTION', /threadsPerWorker/);
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
  });
});
