/** Locks of files: one holder at a time; the dead of this machine are not waited for, others only by their age. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { expect } from 'chai';

import { tryLock } from '../../lib/hub/lock';
import { hasDied, ownIdentity } from '../../lib/hub/process-identity';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const TELLS = existsSync('/proc/self/stat');

describe('locks', () => {
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  it('are held by one at a time', async () => {
    const file = temporary.path('held');
    const first = await tryLock(file);
    expect(await tryLock(file)).to.equal(null);
    await first?.release();
    expect(existsSync(`${file}.lock`)).to.equal(false);
    const second = await tryLock(file);
    expect(second).not.to.equal(null);
    await second?.release();
  });

  it(`of a process that was killed are free at once${TELLS ? '' : ' (skipped: no /proc)'}`, async function () {
    if (!TELLS) skip(this, 'no /proc');
    const file = temporary.path('killed');
    const program = `require('tsx/cjs'); require(${JSON.stringify(require.resolve('../../lib/hub/lock'))})
      .tryLock(${JSON.stringify(file)}).then(() => { console.log('held'); setInterval(() => {}, 1000); });`;
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    expect(await tryLock(file)).to.equal(null);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lock = await tryLock(file);
    expect(lock).not.to.equal(null);
    await lock?.release();
  });

  it('of somebody whom this machine cannot know are free when they are old', async () => {
    const file = temporary.path('foreign');
    for (const text of ['', '.', 'unknown', 'another-boot pid:[1] 1 1', `x y ${process.pid} z`]) {
      writeFileSync(`${file}.lock`, text);
      expect(await tryLock(file), text).to.equal(null);
      expect(readFileSync(`${file}.lock`, 'utf8')).to.equal(text);
    }
    const old = await tryLock(file, 0);
    expect(old).not.to.equal(null);
    await old?.release();
  });

  it('tell the living from the dead, and from who has their number now', async function () {
    if (!TELLS) skip(this, 'no /proc');
    const own = (await ownIdentity()) ?? '';
    expect(await hasDied(own)).to.equal(false);
    const [boot, namespace, pid, started] = own.split(' ');
    expect(await hasDied(`${boot} ${namespace} ${pid} ${Number(started) - 1}`)).to.equal(true);
    const { pid: dead } = spawnSync(process.execPath, ['-e', '']);
    expect(await hasDied(`${boot} ${namespace} ${dead} 7`)).to.equal(true);
    expect(await hasDied(`other ${namespace} ${dead} 7`)).to.equal(false);
    expect(await hasDied('')).to.equal(false);
  });
});
