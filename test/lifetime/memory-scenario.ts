/**
 * One kind of long work: `node --require tsx/cjs memory-scenario.ts NAME` runs it and prints, as JSON, the peaks of what
 * it held in one stretch after the other, until they rise no more; or, for the name of a fact, what memory is held when.
 * memory.test.ts looks at the numbers.
 */
import path from 'node:path';
import { setImmediate, setTimeout as delay } from 'node:timers/promises';

import { load } from '../../lib/checkpoint/load';
import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { se_resnet18 } from '../../lib/models/se-resnet';
import type { CompiledDType } from '../../lib/nn/compiled-model';
import { SELayer } from '../../lib/nn/se-layer';
import { rand, zeros } from '../../lib/tensor/factories';
import { ops } from '../../lib/tensor/ops';
import { memory } from '../../lib/tensor/runtime';
import { tidy } from '../../lib/tensor/scope';
import { ImageClassifier } from '../../lib/vision/image-classifier';

const MB = 2 ** 20;

/** A peak that is higher by less is none. What would leak in a stretch of any scenario is more than that. */
const RISE_MB = 4;
/** How often V8 and the allocators below may find a higher peak before there is no plateau. */
const STRETCHES = 16;

interface Scenario {
  /** In a stretch of work. */
  rounds: number;
  /** Gives the work of one round. */
  prepare: () => () => unknown;
}

const layer = new SELayer(64);
// Outputs of 64 KB: what is not freed shows at once.
const x = rand([1, 64, 16, 16]);
const image = path.join(__dirname, '..', 'fixtures', 'images', 'rgb.png');
const photograph = rand([3, 32, 32]);
const checkpoint = path.join(__dirname, '..', 'fixtures', 'se_resnet20-legacy.pkl');

const scenarios: Record<string, Scenario> = {
  forwards: {
    rounds: 5_000,
    prepare: () => {
      layer.eval();
      return () => layer.forward(x);
    },
  },
  'forwards that record a graph': { rounds: 2_500, prepare: () => () => layer.forward(x) },
  'forwards and backwards': {
    rounds: 1_500,
    prepare: () => async () => {
      await (await layer.forward(x)).sum().backward();
      layer.zeroGrad();
    },
  },
  'forwards that are refused or aborted': {
    rounds: 2_500,
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
  'operators as jobs': { rounds: 2_500, prepare: () => () => ops.callAsync('aten::relu', x) },
  'a synchronous loop with dispose': {
    rounds: 25,
    prepare: () => () => {
      for (let i = 0; i < 200; i++) x.add(i).dispose();
    },
  },
  'a synchronous loop with tidy': {
    rounds: 25,
    prepare: () => () => {
      layer.eval();
      for (let i = 0; i < 100; i++) tidy(() => layer.forwardSync(x.add(i)).sum().item());
    },
  },
  'tensors dropped, one macrotask a turn': {
    rounds: 2_500,
    prepare: () => () => {
      x.add(1).mul(2);
      return setImmediate();
    },
  },
  // V8 sees little garbage of its own here: it collects only because it is told what the tensors weigh.
  'large tensors dropped, one macrotask a turn': {
    rounds: 200,
    prepare: () => () => {
      zeros([1024, 1024]);
      return setImmediate();
    },
  },
  'models made and disposed': {
    rounds: 12,
    prepare: () => async () => {
      const model = se_resnet20().eval();
      await model.forward(zeros([1, 3, 32, 32]));
      model.parameters();
      model.dispose();
    },
  },
  'models made and dropped': {
    rounds: 60,
    prepare: () => async () => {
      const model = se_resnet20({ initWeights: false });
      model.parameters();
      await setImmediate();
    },
  },
  'concurrent classifications, some refused or aborted': {
    rounds: 60,
    prepare: () => {
      const loading = ImageClassifier.load('se_resnet20', {
        weights: 'fashion_mnist',
        batching: { maxQueue: 24 },
      });
      return async () => {
        const classifier = await loading;
        const controller = new AbortController();
        const { signal } = controller;
        const calls = Array.from({ length: 32 }, (_, index) =>
          classifier.classify(index % 16 === 0 ? image : photograph, index % 5 === 0 ? { signal } : {}),
        );
        const settled = Promise.allSettled(calls);
        await setImmediate();
        controller.abort();
        await settled;
      };
    },
  },
  'compiled forwards': {
    rounds: 2_000,
    prepare: () => {
      const compiled = layer.eval().compile();
      return async () => (await compiled).forward(x);
    },
  },
  'models compiled, run and disposed': {
    rounds: 50,
    prepare: () => {
      const model = se_resnet20().eval();
      return async () => {
        for (const dtype of ['float32', 'bfloat16'] as const) {
          const compiled = await model.compile({ dtype });
          await compiled.forward(zeros([2, 3, 32, 32]));
          compiled.dispose();
        }
      };
    },
  },
  'models compiled and dropped': {
    rounds: 200,
    prepare: () => {
      const model = se_resnet20().eval();
      return async () => {
        await (await model.compile()).forward(zeros([2, 3, 32, 32]));
        await setImmediate();
      };
    },
  },
  // A layout is kept for each of the latest sizes only. Nothing else is left for V8 to collect.
  'compiled forwards of ever other sizes': {
    rounds: 400,
    prepare: () => {
      const compiled = se_resnet20().eval().compile();
      let size = 0;
      return async () => {
        size = (size + 7) % 400;
        const images = zeros([1, 3, 8 + size, 24]);
        (await (await compiled).forward(images)).dispose();
        images.dispose();
      };
    },
  },
  'compiles and compiled forwards that are aborted': {
    rounds: 50,
    prepare: () => {
      const model = se_resnet20().eval();
      const ready = model.compile();
      const images = zeros([4, 3, 32, 32]);
      let later = false;
      return async () => {
        const compiled = await ready;
        const controller = new AbortController();
        const { signal } = controller;
        const jobs = [
          model.compile({ signal }),
          compiled.forward(images, { signal }),
          compiled.profile(images, { signal }),
        ];
        later = !later;
        if (later) await setImmediate();
        controller.abort();
        await Promise.allSettled(jobs);
        while (memory().jobs.running + memory().jobs.queued > 0) await setImmediate();
      };
    },
  },
  'checkpoints loaded': {
    rounds: 60,
    prepare: () => async () => {
      const state = await load(checkpoint);
      state.dispose();
    },
  },
};

const facts: Record<string, () => Promise<unknown>> = {
  /** MB cached after a burst, and when jobs have gone on until most of it is gone (or for ever). */
  'a burst': async () => {
    zeros([12, MB]).dispose(); // 48 MB: kept for some seconds, whatever the machine
    const burst = memory().cachedBytes / MB;
    layer.eval();
    let after = burst;
    while (after > 10) {
      (await layer.forward(x)).dispose();
      await delay(20);
      after = memory().cachedBytes / MB;
    }
    return { burst, after };
  },
  /** MB held: with a model; with its compiled copy too; with that alone; after a forward; and with neither. */
  'weights of a compiled model': async () => {
    const result: Record<string, unknown> = {};
    for (const dtype of ['float32', 'bfloat16'] satisfies CompiledDType[]) {
      const start = memory().bytes;
      const held = (): number => (memory().bytes - start) / MB;
      const model = se_resnet18();
      const source = held();
      const compiled = await model.compile({ dtype });
      const both = held();
      model.dispose();
      const alone = held();
      const images = zeros([1, 3, 64, 64]);
      (await compiled.forward(images)).dispose();
      images.dispose(); // or it may be collected later, while the next dtype's start counts it
      const used = held();
      const weights = compiled.explain().weightBytes / MB;
      compiled.dispose();
      result[dtype] = { source, both, alone, used, weights, nothing: held() };
    }
    return result;
  },
};

async function main(): Promise<void> {
  const fact = facts[process.argv[2] ?? ''];
  if (fact !== undefined) {
    process.stdout.write(JSON.stringify(await fact()));
    return;
  }
  const { rounds, prepare } = scenarios[process.argv[2] ?? ''] as Scenario;
  const round = prepare();
  /** The largest resident set and the most that tensors held, in MB. */
  const peaks: { resident: number; held: number }[] = [];
  const highest = (of: 'resident' | 'held'): number => Math.max(0, ...peaks.map((peak) => peak[of]));
  let flat = false;
  while (!flat && peaks.length < STRETCHES) {
    const peak = { resident: 0, held: 0 };
    for (let i = 0; i < rounds; i++) {
      await round();
      peak.held = Math.max(peak.held, memory().bytes / MB);
      if (i % Math.ceil(rounds / 25) === 0)
        peak.resident = Math.max(peak.resident, process.memoryUsage().rss / MB);
    }
    flat = peak.resident < highest('resident') + RISE_MB && peak.held < highest('held') + RISE_MB;
    peaks.push(peak);
  }
  process.stdout.write(JSON.stringify({ flat, peaks }));
}

void main();
