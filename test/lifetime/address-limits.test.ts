/** A system that gives no more memory: coded errors, and never the end of the process. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import { skip } from '../support/skip';

const ROOT = path.join(__dirname, '..', '..');

describe('memory that cannot be had', function () {
  this.timeout(120_000);

  it('for the numbers of a tensor as an array is an error of the call', function () {
    if (spawnSync('prlimit', ['--as']).status !== 0) skip(this, 'there is no prlimit');
    const program = `
      const { empty, ones } = require(${JSON.stringify(ROOT)});
      const { execFileSync } = require('node:child_process');
      const { readFileSync } = require('node:fs');
      (async () => {
        await ones([1]).toTypedArrayAsync(); // its thread is there
        const used = 1024 * Number(/VmSize:\\s*(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
        execFileSync('prlimit', ['--pid', process.pid, '--as=' + (used + 2.25 * 2 ** 30)]);
        const tensor = empty([1.5 * 2 ** 30], { dtype: 'uint8' });
        const calls = [() => tensor.toTypedArray(), () => tensor.toTypedArrayAsync()];
        for (const call of calls) console.log(await (async () => call())().catch(({ code }) => code));
        console.log(ones([2]).toTypedArray().length);
      })();`;
    const done = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
    expect(done.stdout.trim().split('\n')).to.deep.equal([
      'ERR_SENET_OUT_OF_MEMORY',
      'ERR_SENET_OUT_OF_MEMORY',
      '2',
    ]);
  });
});
