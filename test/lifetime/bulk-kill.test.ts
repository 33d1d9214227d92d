/**
 * `senet-torch classify --recursive` that is killed (SIGKILL) and interrupted (Ctrl-C) at random moments ends with the
 * rows of a run that was not, byte for byte. SENET_TEST_SEED=... tries other moments.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';

import { Random } from '../../lib/data/random';
import { bundledImages } from '../../lib/vision/bundled-images';
import { CLI } from '../support/built';
import { Temporary } from '../support/temporary';

const IMAGES = 500;

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
}

describe('many images that are interrupted', function () {
  this.timeout(240_000);
  const temporary = new Temporary();
  const folder = temporary.path('photos');
  after(() => temporary.cleanUp());

  before(async () => {
    const bundled = await bundledImages();
    for (let place = 0; place < IMAGES; place++) {
      const file = path.join(folder, `class ${place % 7}`, `${place}.png`);
      mkdirSync(path.dirname(file), { recursive: true });
      if (place % 97 === 13) writeFileSync(file, `damaged, "${place}"`);
      else symlinkSync(bundled[place % bundled.length] as string, file);
    }
  });

  /** Until the end, or until the output has so many bytes more than at the beginning, and a moment. */
  function run(output: string, end?: { bytes: number; moment: number; by: NodeJS.Signals }): Promise<Ended> {
    return new Promise((resolve, reject) => {
      const before = sizeOf(output);
      const args = ['classify', '--recursive', folder, '--output', output, '--top-k', '2', '--json'];
      const child = spawn(process.execPath, [CLI, ...args]);
      let ended = false;
      let out = '';
      let err = '';
      child.stdout.on('data', (data: Buffer) => (out += data.toString()));
      child.stderr.on('data', (data: Buffer) => (err += data.toString()));
      child.on('error', reject);
      child.on('close', (code, signal) => {
        ended = true;
        resolve({ code, signal, out, err });
      });
      const watch = async (): Promise<void> => {
        while (!ended && end !== undefined) {
          await delay(5);
          if (sizeOf(output) < before + end.bytes) continue;
          await delay(end.moment);
          child.kill(end.by);
          return;
        }
      };
      void watch();
    });
  }

  for (const [ending, ends] of [['.jsonl', ['SIGKILL', 'SIGINT', 'SIGKILL']]] as const) {
    it(`goes on without a double or a lost row: ${ending}`, async () => {
      const seed = Number(process.env.SENET_TEST_SEED ?? 11);
      const random = new Random(seed, ending.length);
      const [whole, killed] = [temporary.path(`whole${ending}`), temporary.path(`killed${ending}`)];
      const expected = await run(whole);
      expect([expected.code, expected.err]).to.deep.equal([1, '']); // there are damaged images
      const report = JSON.parse(expected.out) as { rows: number; failed: object };
      expect([report.rows, report.failed]).to.deep.equal([IMAGES, { ERR_SENET_IMAGE: 6 }]);

      const seen: string[] = [];
      for (const by of ends) {
        const moment = random.integer(0, 120);
        const ended = await run(killed, { bytes: random.integer(1, 15_000), moment, by });
        seen.push(`${by} ${ended.signal ?? ended.code} at ${sizeOf(killed)} bytes`);
        if (by === 'SIGINT' && ended.code === 130)
          expect(ended.err).to.match(/^interrupted: .* has the first \d+ rows?\. The same command goes on/);
      }
      const last = await run(killed);
      const facts = `SENET_TEST_SEED=${seed}: ${seen.join('; ')}`;
      expect([last.code, last.err], facts).to.deep.equal([1, '']);
      expect((JSON.parse(last.out) as { earlier: number }).earlier, facts).to.be.above(0);
      expect(readFileSync(killed).equals(readFileSync(whole)), facts).to.equal(true);
    });
  }

  function sizeOf(file: string): number {
    return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  }
});
