/** Long work leaves the resident set flat, most of it without a manual dispose: awaits settle in macrotasks of
 * their own, and V8 is told what tensors weigh. (`process.memoryUsage().external` counts array buffers only.) */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

const SCENARIO = path.join(__dirname, 'memory-scenario.ts');
/** What the resident set may grow by after the warm-up, and what tensors may hold at any time. */
const LIMITS_MB = { grown: 20, held: 150 };
/** Far below what would pile up. */
const OTHER_LIMITS_MB: Readonly<Record<string, typeof LIMITS_MB>> = {
  // V8 alone decides when to collect: 1,600 MB pass through, and no job is awaited between.
  'large tensors dropped, one macrotask a turn': { grown: 400, held: 400 },
  // sharp's threads take longer to settle; inputs that leaked would be 70 MB.
  'concurrent classifications, some refused or aborted': { grown: 40, held: 150 },
};

function run<T>(name: string): T {
  const done = spawnSync(process.execPath, ['--require', 'tsx/cjs', SCENARIO, name], { encoding: 'utf8' });
  expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
  return JSON.parse(done.stdout) as T;
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
    'concurrent classifications, some refused or aborted',
    'compiled forwards',
    'models compiled, run and disposed',
    'models compiled and dropped',
    'compiled forwards of ever other sizes',
    'compiles and compiled forwards that are aborted',
    'checkpoints loaded',
  ]) {
    it(`stays flat: ${name}`, () => {
      const { grown, held } = run<typeof LIMITS_MB>(name);
      const limits = OTHER_LIMITS_MB[name] ?? LIMITS_MB;
      expect(grown).to.be.below(limits.grown);
      expect(held).to.be.below(limits.held);
    });
  }

  it('a compiled model holds its weights and nothing of a source that is disposed', () => {
    interface Held {
      source: number;
      both: number;
      alone: number;
      used: number;
      weights: number;
      nothing: number;
    }
    for (const [dtype, held] of Object.entries(run<Record<string, Held>>('weights of a compiled model'))) {
      const { source, both, alone, used, weights, nothing } = held;
      const said = `${dtype}: ${JSON.stringify(held)}`;
      expect(source, said).to.be.within(44, 50);
      expect(weights / source, said).to.be.within(
        dtype === 'float32' ? 0.9 : 0.45,
        dtype === 'float32' ? 1.2 : 0.6, // Winograd's weights are sixteen for nine
      );
      expect(both - source, said).to.be.within(weights, 1.1 * weights + 1);
      expect(alone, said).to.be.within(weights, 1.1 * weights + 1);
      expect(used, said).to.be.below(1.1 * weights + 1.5);
      expect(nothing, said).to.be.below(1);
    }
  });
});
