/**
 * One kind of long work: `node --require tsx/cjs memory-scenario.ts NAME` runs it and prints, as JSON, by how many MB the
 * resident set grew after the warm-up, and how many MB tensors held at most. memory.test.ts looks at the numbers.
 */
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';

import { load } from '../../lib/checkpoint/load';
import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SELayer } from '../../lib/nn/se-layer';
import { rand, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';

const MB = 2 ** 20;

interface Scenario {
  rounds: number;
  /** Gives the work of one round. */
  prepare: () => () => unknown;
}

const layer = new SELayer(64);
// Outputs of 64 KB: what is not freed shows at once.
const x = rand([1, 64, 16, 16]);
const checkpoint = path.join(__dirname, '..', 'fixtures', 'se_resnet20-legacy.pkl');

const scenarios: Record<string, Scenario> = {
  forwards: {
    rounds: 10_000,
    prepare: () => {
      layer.eval();
      return () => layer.forward(x);
    },
  },
  'forwards that record a graph': { rounds: 5_000, prepare: () => () => layer.forward(x) },
  'forwards and backwards': {
    rounds: 3_000,
    prepare: () => async () => {
      await (await layer.forward(x)).sum().backward();
      layer.zeroGrad();
    },
  },
  'forwards that are refused or aborted': {
    rounds: 5_000,
    prepare: () => {
      layer.eval();
      const wrong = zeros([1, 3, 16, 16]);
      return async () => {
        const controller = new AbortController();
        const jobs = [layer.forward(wrong), layer.forward(x, { signal: controller.signal })];
        controller.abort();
        await Promise.allSettled(jobs);
        await setImmediate(); // these reject at once, without a turn of the event loop
      };
    },
  },
  'operators as jobs': { rounds: 5_000, prepare: () => () => ops.callAsync('aten::relu', x) },
  'a synchronous loop with dispose': {
    rounds: 50,
    prepare: () => () => {
      for (let i = 0; i < 200; i++) x.add(i).dispose();
    },
  },
  'a synchronous loop with tidy': {
    rounds: 50,
    prepare: () => () => {
      layer.eval();
      for (let i = 0; i < 100; i++) tidy(() => layer.forwardSync(x.add(i)).sum().item());
    },
  },
  'tensors dropped, one macrotask a turn': {
    rounds: 5_000,
    prepare: () => () => {
      x.add(1).mul(2);
      return setImmediate();
    },
  },
  // V8 sees little garbage of its own here: it collects only because it is told what the tensors weigh.
  'large tensors dropped, one macrotask a turn': {
    rounds: 400,
    prepare: () => () => {
      zeros([1024, 1024]);
      return setImmediate();
    },
  },
  'models made and disposed': {
    rounds: 25,
    prepare: () => async () => {
      const model = se_resnet20().eval();
      await model.forward(zeros([1, 3, 32, 32]));
      model.parameters();
      model.dispose();
    },
  },
  'models made and dropped': {
    rounds: 120,
    prepare: () => async () => {
      const model = se_resnet20({ initWeights: false });
      model.parameters();
      await setImmediate();
    },
  },
  'checkpoints loaded': {
    rounds: 120,
    prepare: () => async () => {
      const state = await load(checkpoint);
      state.dispose();
    },
  },
};

async function main(): Promise<void> {
  const { rounds, prepare } = scenarios[process.argv[2] ?? ''] as Scenario;
  const round = prepare();
  for (let i = 0; i < rounds / 2; i++) await round();
  const start = process.memoryUsage().rss;
  let most = 0;
  let mostHeld = 0;
  for (let i = 0; i < rounds; i++) {
    await round();
    mostHeld = Math.max(mostHeld, memory().bytes);
    if (i % Math.ceil(rounds / 50) === 0) most = Math.max(most, process.memoryUsage().rss);
  }
  process.stdout.write(JSON.stringify({ grown: (most - start) / MB, held: mostHeld / MB }));
}

void main();
