/**
 * A training run that is killed (SIGKILL) at random moments, again and again, ends with the weights of one that was
 * not, bit for bit. SENET_TEST_SEED=... tries other moments.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { Random } from '../../lib/data/random';
import { Temporary } from '../support/temporary';

const SCENARIO = path.join(__dirname, 'train-kill-scenario.ts');
const STEPS = 24;
const KILLS = 4;

interface Ended {
  steps: number[];
  digest: string | undefined;
  signal: string | null;
  err: string;
}

/** Runs until the end, or until some turns of the event loop after the process's `step`-th step. */
function run(folder: string, kill: { step: number; turns: number } | null): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const moment = kill === null ? [] : [String(kill.step), String(kill.turns)];
    const tsx = require.resolve('tsx/cjs');
    const child = spawn(process.execPath, ['--require', tsx, SCENARIO, folder, ...moment]);
    let out = '';
    let err = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    child.on('error', reject);
    child.on('close', (_, signal) => {
      const steps = [...out.matchAll(/^step (\d+)$/gm)].map(([, step]) => Number(step));
      resolve({ steps, digest: /^digest (\w+)$/m.exec(out)?.[1], signal, err });
    });
  });
}

describe('a training run that is killed', function () {
  this.timeout(300_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  it('goes on from its checkpoint and ends with the same weights, bit for bit', async () => {
    const seed = Number(process.env.SENET_TEST_SEED ?? 5);
    const random = new Random(seed);
    const [whole, killed] = [temporary.path('whole'), temporary.path('killed')];
    mkdirSync(whole);
    mkdirSync(killed);
    const expected = await run(whole, null);
    expect(expected.err).to.equal('');
    expect(expected.digest).to.match(/^\w{64}$/);
    expect(expected.steps).to.have.lengthOf(STEPS);

    const starts: number[] = [];
    let last: Ended | undefined;
    for (let attempt = 0; attempt < KILLS; attempt++) {
      // Steps of this process; the turns end in the next step, in a save, in a validation. The first kill comes after
      // the first save (step 2): there is something to go on from.
      const least = attempt === 0 ? 3 : 1;
      last = await run(killed, { step: random.integer(least, 7), turns: random.integer(0, 60) });
      if (last.steps[0] !== undefined) starts.push(last.steps[0]);
      if (last.signal === null) break;
    }
    if (last?.signal !== null) {
      last = await run(killed, null);
      if (last.steps[0] !== undefined) starts.push(last.steps[0]);
    }
    const facts = `SENET_TEST_SEED=${seed}, began at steps ${starts.join(', ')}`;
    expect(last.err, facts).to.equal('');
    // It did go on, instead of beginning anew.
    expect(starts.length, facts).to.be.above(1);
    expect(starts.at(-1), facts).to.be.above(1);
    expect(last.digest, facts).to.equal(expected.digest);

    // The log is that of one run: every epoch once, in order.
    const epochs = readFileSync(path.join(killed, 'log.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string; epoch?: number })
      .filter(({ event }) => event === 'epoch')
      .map(({ epoch }) => epoch);
    expect(epochs, facts).to.deep.equal([1, 2, 3]);
    // A process that dies while it writes can leave its temporary file; the checkpoint itself is always whole.
    expect(readdirSync(killed), facts).to.include('run.pt');
  });
});
