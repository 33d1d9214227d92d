/** Long work leaves the resident set flat, most of it without a manual dispose: awaits settle in macrotasks of
 * their own, and V8 is told what tensors weigh. (`process.memoryUsage().external` counts array buffers only.) */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

const SCENARIO = path.join(__dirname, 'memory-scenario.ts');
/** What the resident set may grow by after the warm-up, and what tensors may hold at any time. */
const LIMITS_MB = { grown: 20, held: 150 };
/** Where V8 alone decides when to collect: far below what would pile up if it did not. */
const OTHER_LIMITS_MB: Readonly<Record<string, typeof LIMITS_MB>> = {
  // 1,600 MB pass through, and no job is awaited between.
  'large tensors dropped, one macrotask a turn': { grown: 400, held: 400 },
};

function run(name: string): { grown: number; held: number } {
  const done = spawnSync(process.execPath, ['--require', 'tsx/cjs', SCENARIO, name], { encoding: 'utf8' });
  expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
  return JSON.parse(done.stdout) as ReturnType<typeof run>;
}

describe('memory', function () {
  this.timeout(180_000);

  for (const name of [
    'forwards',
    'forwards that record a graph',
    'forwards and backwards',
    'forwards that are refused or aborted',
    'operators as jobs',
    'a synchronous loop with dispose',
    'a synchronous loop with tidy',
    'tensors dropped, one macrotask a turn',
    'large tensors dropped, one macrotask a turn',
    'models made and disposed',
    'models made and dropped',
    'checkpoints loaded',
  ]) {
    it(`stays flat: ${name}`, () => {
      const { grown, held } = run(name);
      const limits = OTHER_LIMITS_MB[name] ?? LIMITS_MB;
      expect(grown).to.be.below(limits.grown);
      expect(held).to.be.below(limits.held);
    });
  }
});
