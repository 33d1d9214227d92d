/**
 * Damaged JPEGs and PNGs, in a process of their own: row by row they give what the whole picture gives, or are left to
 * that way, which reads or refuses them; none crashes. SENET_FUZZ_SEED=... damages them in other ways.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import { FUZZ_RUNS, FUZZ_SEED, printSeed } from '../support/fuzz';

const SCENARIO = path.join(__dirname, 'images-scenario.js');
const COUNT = 800 * FUZZ_RUNS;

describe(`${COUNT} damaged JPEGs and PNGs`, function () {
  this.timeout(300_000 * FUZZ_RUNS);
  before(printSeed);

  it('agree with the whole pictures, or are refused, and crash nothing', async () => {
    const child = spawn(process.execPath, [SCENARIO, String(FUZZ_SEED), String(COUNT)]);
    let [told, said] = ['', ''];
    child.stdout.on('data', (part: Buffer) => (told += part.toString()));
    child.stderr.on('data', (part: Buffer) => (said += part.toString()));
    const ended = await new Promise((resolve) =>
      child.on('close', (code, signal) => resolve({ code, signal })),
    );
    expect(ended, said).to.deep.equal({ code: 0, signal: null });
    const ends = JSON.parse(told) as Record<string, number>;
    expect(Object.values(ends).reduce((sum, count) => sum + count)).to.equal(COUNT);
    expect(Object.keys(ends)).to.include.members(['direct', 'whole', 'ERR_SENET_IMAGE']);
    expect(ends.direct).to.be.above(COUNT / 10);
  });
});
