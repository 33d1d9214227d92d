/**
 * Long work reaches a plateau, most of it without a manual dispose: awaits settle in macrotasks of their own, and V8 is
 * told what tensors weigh. (`process.memoryUsage().external` counts array buffers only.) How high the plateau lies, and
 * how soon it is reached, is V8's affair.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

const SCENARIO = path.join(__dirname, 'memory-scenario.ts');
function run<T>(name: string): T {
  const done = spawnSync(process.execPath, ['--require', 'tsx/cjs', SCENARIO, name], { encoding: 'utf8' });
  expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
  return JSON.parse(done.stdout) as T;
}

describe('memory', function () {
  this.timeout(600_000);

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
    it(`comes to a plateau: ${name}`, () => {
      const { flat, peaks } = run<{ flat: boolean; peaks: object[] }>(name);
      expect(flat, `still rising: ${JSON.stringify(peaks)}`).to.equal(true);
    });
  }

  it('what a burst leaves behind is given back while jobs go on', () => {
    const { burst, after } = run<{ burst: number; after: number }>('a burst');
    expect(burst).to.be.at.least(48);
    expect(after).to.be.below(20);
  });

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
      // se_resnet18's 7,888 biases (float32, padded) count as weights and do not lie in the allocator's memory.
      const packed = weights - (7888 * 4) / 2 ** 20;
      expect(both - source, said).to.be.within(packed, 1.1 * weights + 1);
      expect(alone, said).to.be.within(packed, 1.1 * weights + 1);
      expect(used, said).to.be.below(1.1 * weights + 1.5);
      expect(nothing, said).to.be.below(1);
    }
  });
});
