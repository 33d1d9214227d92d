/**
 * However a process, a Worker or an environment ends while jobs or kernels run: the exit code is the one asked for, and
 * no signal but the one sent. The work is done on SENET_TEST_DEVICE; SENET_TEST_REPEAT repeats each scenario more often
 * (default 3).
 */
import { spawn } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import { unavailable } from '../support/device';
import { skip } from '../support/skip';

const REPEAT = Number(process.env.SENET_TEST_REPEAT ?? 3);
const SCENARIO = path.join(__dirname, 'scenario.js');

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
}

function run(mode: string): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [SCENARIO, mode], { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    child.on('close', (code, signal) => resolve({ code, signal, stderr }));
  });
}

const expected: [mode: string, end: number | NodeJS.Signals, stderr: RegExp][] = [
  ['natural end', 0, /^$/],
  ['natural end after an await', 0, /^$/],
  ['process.exit mid-job', 3, /^$/],
  ['process.exit at once', 3, /^$/],
  ['process.exitCode', 3, /^$/],
  ['process.exit while kernels run', 3, /^$/],
  ['natural end while kernels run', 0, /^$/],
  ['SIGTERM mid-job', 'SIGTERM', /^$/],
  ['SIGTERM mid-job, with a handler that exits', 3, /^$/],
  ['worker.terminate while kernels run, then the main thread works on', 3, /^$/],
  ['uncaught throw mid-job', 1, /Error: thrown on purpose/],
  ['unhandled rejection mid-job', 1, /Error: rejected on purpose/],
  ['worker ends by itself', 0, /^$/],
  ['worker calls process.exit', 0, /^$/],
  ['worker throws', 3, /^$/],
  ['worker.terminate mid-job, then the main thread works on', 3, /^$/],
  ['worker.terminate in a synchronous loop', 3, /^$/],
  ['worker.terminate while it loads the addon', 3, /^$/],
  ['two workers and the main thread', 0, /^$/],
  ['process.exit while a worker has jobs', 3, /^$/],
  ['explaining: process.exit mid-job', 3, /^$/],
  ['explaining: process.exit after the first', 3, /^$/],
  ['compiled: natural end', 0, /^$/],
  ['compiled: process.exit mid-job', 3, /^$/],
  ['compiled: process.exit at once', 3, /^$/],
  ['compiled: process.exit while it compiles', 3, /^$/],
  ['compiled: uncaught throw mid-job', 1, /Error: thrown on purpose/],
  ['compiled: disposed mid-job', 3, /^$/],
  ['compiled: worker.terminate mid-job, then the main thread works on', 3, /^$/],
  ['images: natural end', 0, /^$/],
  ['images: process.exit while some are decoded', 3, /^$/],
  ['images: uncaught throw while some are decoded', 1, /Error: thrown on purpose/],
  ['images: SIGTERM while some are decoded', 'SIGTERM', /^$/],
  ['images: worker.terminate while some are decoded, then the main thread works on', 3, /^$/],
  ['forwardSync at exit is refused', 3, /^$/],
  ['module reset', 3, /^$/],
];

describe(`the end of a process while jobs run, ${REPEAT} times each`, function () {
  this.timeout(600_000);
  before(function () {
    const reason = unavailable();
    if (reason !== undefined) {
      skip(this, reason);
    }
  });
  for (const [mode, end, stderr] of expected) {
    it(mode, async () => {
      // One after the other: two OpenMP teams on the same cores spin against each other.
      for (let done = 0; done < REPEAT; done++) {
        const ended = await run(mode);
        const [code, signal] = typeof end === 'number' ? [end, null] : [null, end];
        expect(ended, ended.stderr).to.include({ code, signal });
        expect(ended.stderr).to.match(stderr);
      }
    });
  }
});
