#!/usr/bin/env node
'use strict';
// A whole training step (data, forward, backward, optimiser) of se_resnet20 at batch 128 and se_resnet50 at batch 8: images
// a second, the largest resident set, and how late the event loop is meanwhile; beside PyTorch's eager loop with its
// DataLoader, in both layouts and with both ways to load, of which the fastest counts. Each engine runs alone in a process
// of its own; they alternate. Linux (the resident set).
//
// Targets: at least 1.25 times PyTorch's images a second in float32; at most 1.1 times its peak memory; p99 of the event
// loop's delay at most 10 ms or 1.5 times that of a control (as many threads spinning, no library).
const { mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { availableParallelism, tmpdir } = require('node:os');
const path = require('node:path');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { parseArgs } = require('node:util');
const { startControl } = require('./loop-delay');
const { findPython, median, runJson, spread } = require('./peers');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '8' },
    models: { type: 'string', default: 'se_resnet20,se_resnet50' },
    threads: { type: 'string', default: String(availableParallelism()) },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: this job in this process
  },
});

const MODELS = {
  se_resnet20: { batch: 128, side: 32, stored: 32, padding: 4, classes: 10, images: 128 * 16, lr: 0.05 },
  se_resnet50: { batch: 8, side: 224, stored: 256, padding: 0, classes: 1000, images: 8 * 16, lr: 0.01 },
};
const PREPROCESSING = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

const OURS = {
  'senet-torch': { bfloat16: false },
  'senet-torch, bfloat16': { bfloat16: true },
};
const PEERS = Object.fromEntries(
  [false, true].flatMap((channelsLast) =>
    [0, 1].map((workers) => [
      `PyTorch, ${channelsLast ? 'channels-last' : 'contiguous'}, ${workers === 0 ? 'loads in the loop' : `${workers} loading process`}`,
      { channelsLast, workers, bfloat16: false },
    ]),
  ),
);
const PEER_BFLOAT16 = {
  'PyTorch, bfloat16, channels-last': { channelsLast: true, workers: 1, bfloat16: true },
};

/** Image data, and weights that both begin with. */
async function prepare(folder, model) {
  const { createModel, manualSeed, save } = require('../..');
  const { images, stored, classes } = MODELS[model];
  const files = Object.fromEntries(
    ['pixels', 'labels', 'pt'].map((name) => [name, path.join(folder, `${model}.${name}`)]),
  );
  const pixels = Buffer.alloc(images * 3 * stored * stored);
  let state = 1;
  for (let i = 0; i < pixels.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    pixels[i] = state >>> 24;
  }
  writeFileSync(files.pixels, pixels);
  writeFileSync(
    files.labels,
    Buffer.from(Array.from({ length: images }, (_, i) => (i * 7) % Math.min(classes, 256))),
  );
  manualSeed(0);
  const network = createModel(model);
  await save(network, files.pt);
  network.dispose();
  return { pixels: files.pixels, labels: files.labels, weights: files.pt };
}

function peakMegabytes() {
  return Number(/^VmHWM:\s*(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
}

async function measureOurs(job) {
  const senet = require('../..');
  const { Compose, DataLoader, Normalize, PixelDataset, RandomCrop, RandomHorizontalFlip, ToTensor } = senet;
  senet.configure({ workers: 1, threadsPerWorker: job.threads });
  const model = senet.createModel(job.model, { initWeights: false });
  const state = await senet.load(job.weights);
  model.loadStateDict(state, { assign: true });
  model.train();
  const optimizer = new senet.SGD(model.parameters(), {
    lr: job.lr,
    momentum: 0.9,
    nesterov: true,
    weightDecay: 5e-4,
  });
  const criterion = new senet.CrossEntropyLoss();
  const forward = (x, labels) => model.forward(x).then((logits) => criterion.forward(logits, labels));
  const step = (images, labels) =>
    senet.tidy(async () => {
      optimizer.zeroGrad();
      const x = images.to({ memoryFormat: 'channels_last' });
      const loss = await (job.bfloat16 ? senet.autocast(() => forward(x, labels)) : forward(x, labels));
      await loss.backward();
      await optimizer.step();
      return loss.item();
    });
  const names = Array.from({ length: job.classes }, (_, i) => String(i));
  const shape = [3, job.stored, job.stored];
  const data = new PixelDataset(readFileSync(job.pixels), readFileSync(job.labels), shape, names);
  const plain = new Compose([new ToTensor(), new Normalize(PREPROCESSING)]);
  const transform = new Compose([
    new RandomCrop({ size: job.side, padding: job.padding }),
    new RandomHorizontalFlip(),
    plain,
  ]);
  let loss;
  for await (const { images, labels } of new DataLoader(data, { batchSize: job.batch, transform: plain })) {
    loss = await step(images.slice(2, 0, job.side).slice(3, 0, job.side).contiguous(), labels);
    break;
  }
  const loader = new DataLoader(data, { batchSize: job.batch, shuffle: true, dropLast: true, transform });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let steps = 0;
  let started = null;
  for (;;) {
    for await (const { images, labels } of loader) {
      await step(images, labels);
      images.dispose();
      labels.dispose();
      steps++;
      const now = performance.now();
      if (started === null) {
        if (steps < job.warmUpSteps) continue;
        [started, steps] = [now, 0];
        delay.enable();
      } else if (now - started >= 1000 * job.seconds && steps >= 3) {
        delay.disable();
        const secondsPerStep = (now - started) / 1000 / steps;
        return { loss, secondsPerStep, peak: peakMegabytes(), delayP99: delay.percentile(99) / 1e6 };
      }
    }
  }
}

async function measureControl(seconds) {
  const end = await startControl();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  delay.disable();
  await end();
  return { delayP99: delay.percentile(99) / 1e6 };
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/training.js [--rounds 5] [--seconds 8] [--models se_resnet20,se_resnet50] [--threads N] [--python PATH] [--json]',
    );
    return;
  }
  const python = findPython(options.python);
  const models = options.models.split(',');
  const unknown = models.find((model) => !Object.hasOwn(MODELS, model));
  if (unknown !== undefined)
    throw new Error(`--models: expected ${Object.keys(MODELS).join(', ')}, got ${unknown}`);
  const engines = { ...OURS, ...(python === null ? {} : { ...PEERS, ...PEER_BFLOAT16 }) };
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    const common = { threads: Number(options.threads), seconds: Number(options.seconds), warmUpSteps: 4 };
    const runs = {};
    const controls = [];
    for (const model of models) {
      const files = await prepare(folder, model);
      runs[model] = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
      for (let round = 0; round < Number(options.rounds); round++) {
        for (const [name, engine] of Object.entries(engines)) {
          const job = JSON.stringify({
            model,
            ...MODELS[model],
            ...PREPROCESSING,
            ...files,
            ...common,
            ...engine,
          });
          runs[model][name].push(
            name in OURS
              ? runJson(process.execPath, [__filename, '--measure', job])
              : runJson(python.python, [path.join(__dirname, 'engines', 'training.py'), job]),
          );
        }
        controls.push(
          runJson(process.execPath, [__filename, '--measure', JSON.stringify({ control: common.seconds })]),
        );
        console.error(`${model}, round ${round + 1} of ${options.rounds}`);
      }
    }
    report(runs, median(controls.map(({ delayP99 }) => delayP99)), python);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(runs, controlP99, python) {
  const summary = {};
  for (const [model, engines] of Object.entries(runs)) {
    const of = (name, fact) => median(engines[name].map((run) => run[fact]));
    const peers = Object.keys(PEERS).filter((name) => name in engines);
    const best = peers.sort((a, b) => of(a, 'secondsPerStep') - of(b, 'secondsPerStep'))[0];
    const ratios =
      best &&
      engines[best].map((run, round) => run.secondsPerStep / engines['senet-torch'][round].secondsPerStep);
    // The first step's loss, of the same weights and images.
    const losses = Object.entries(engines)
      .filter(([name]) => !name.includes('bfloat16'))
      .flatMap(([, all]) => all.map(({ loss }) => loss));
    if (Math.max(...losses) - Math.min(...losses) > 1e-4 * Math.max(...losses))
      throw new Error(`${model}: the first losses differ: ${losses.join(', ')}`);
    summary[model] = {
      best,
      faster: ratios && median(ratios),
      ratios,
      memory: best && of('senet-torch', 'peak') / Math.min(...peers.map((name) => of(name, 'peak'))),
      delayP99: of('senet-torch', 'delayP99'),
    };
  }
  if (options.json) {
    console.log(JSON.stringify({ summary, controlP99, python, runs }, null, 2));
    return;
  }
  for (const [model, engines] of Object.entries(runs)) {
    const { batch } = MODELS[model];
    console.log(
      `\n${model}, batch ${batch}, ${options.threads} threads; median (range) of ${options.rounds} rounds`,
    );
    console.log(`${''.padEnd(52)}${'images a second'.padEnd(26)}peak MB`);
    for (const [name, all] of Object.entries(engines)) {
      const rates = all.map(({ secondsPerStep }) => batch / secondsPerStep);
      console.log(
        `${name.padEnd(52)}${spread(rates).padEnd(26)}${median(all.map(({ peak }) => peak)).toFixed(0)}`,
      );
    }
    const { best, faster, ratios, memory, delayP99 } = summary[model];
    if (best !== undefined) {
      console.log(
        `float32: ${spread(ratios, 2)} times ${best}, at least 1.25: ${faster >= 1.25 ? 'yes' : 'NO'}; ` +
          `peak memory ${memory.toFixed(2)} times the smallest of PyTorch's, at most 1.1: ${memory <= 1.1 ? 'yes' : 'NO'}`,
      );
    }
    console.log(
      `event loop's delay p99 ${delayP99.toFixed(1)} ms (control ${controlP99.toFixed(1)}): ${delayP99 <= Math.max(10, 1.5 * controlP99) ? 'yes' : 'NO'}`,
    );
  }
  if (python === null)
    console.log('PyTorch: absent: no Python with torch (--python PATH or SENET_BENCH_PYTHON)');
}

async function measureJob(job) {
  console.log(
    JSON.stringify(await (job.control === undefined ? measureOurs(job) : measureControl(job.control))),
  );
  process.exit(0);
}

(options.measure === undefined ? main() : measureJob(JSON.parse(options.measure))).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
