#!/usr/bin/env node
'use strict';
// A server's view of ImageClassifier with se_resnet50: images a second of 32 concurrent callers (preprocessed tensors, and
// the bytes of JPEGs) beside the best fixed batch of the same compiled model; what a lone caller waits beyond the run
// itself; how late the event loop is meanwhile, beside as many spinning threads; and both ways to give the executor two
// threads. Each measurement is a process of its own; they alternate. The event loop is watched after the images were
// counted, with the callers going on: a timer of 1 ms and a file read every 5 ms take some 8 % of two cores.
//
// Targets: at least 95 % of the best fixed batch; p99 of the event loop's delay at most 10 ms or 1.5 times the control's.
const { mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const { availableParallelism, tmpdir } = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { startControl, watchLoop } = require('./loop-delay');
const { median, runJson, spread } = require('./peers');
const { makePhotograph } = require('./photograph');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '8' },
    dtype: { type: 'string', default: 'float32' },
    callers: { type: 'string', default: '32' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: one of the kinds in this process
    photograph: { type: 'string' }, // internal: the JPEG of the kind 'jpegs'
    workers: { type: 'string', default: '1' }, // internal
  },
});

const FIXED_BATCHES = [1, 4, 8, 16, 32];
const PHOTOGRAPH = [640, 480];

/**
 * Calls `call` from so many callers, each the next time when it is answered: the times so far, calls a second until the
 * last answer, and what ends them.
 */
function startCallers(count, call) {
  let running = true;
  const times = [];
  const first = performance.now();
  let last;
  const caller = async () => {
    while (running) {
      const start = performance.now();
      await call();
      last = performance.now();
      times.push(last - start);
    }
  };
  const callers = Promise.all(Array.from({ length: count }, caller));
  const end = async () => {
    running = false;
    await callers;
  };
  return { times, rate: () => (1000 * times.length) / (last - first), end };
}

async function measure(kind) {
  const { configure, ImageClassifier, randn, se_resnet50 } = require('../..');
  const seconds = Number(options.seconds);
  if (kind === 'control') {
    const end = await startControl();
    const loop = await watchLoop(seconds);
    await end();
    return { loop };
  }
  const workers = Number(options.workers);
  const threads = availableParallelism();
  configure({ workers, threadsPerWorker: Math.max(1, Math.floor(threads / workers)) });
  const model = se_resnet50().eval();
  const [name, size] = kind.split('-');
  if (name === 'fixed') {
    const compiled = await model.compile({ dtype: options.dtype });
    const x = randn([Number(size), 3, 224, 224]);
    const call = async () => (await compiled.forward(x)).dispose();
    await call();
    // As many callers as workers: every worker is busy all the time.
    const { times, rate, end } = startCallers(workers, call);
    await sleep(1000 * seconds);
    await end();
    return { rate: rate() * Number(size), latency: median(times) };
  }
  const classifier = await ImageClassifier.load(model, { dtype: options.dtype });
  const x = randn([3, 224, 224]);
  const image = name === 'jpegs' ? readFileSync(options.photograph) : x;
  const call = () => classifier.classify(image);
  const callers = name === 'lone' ? 1 : Number(options.callers);
  await Promise.all(Array.from({ length: callers }, call));
  const { times, rate, end } = startCallers(callers, call);
  await sleep(1000 * seconds);
  const unwatched = { rate: rate(), latency: median(times) };
  const loop = await watchLoop(seconds);
  await end();
  return { ...unwatched, loop };
}

function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/service.js [--rounds 3] [--seconds 8] [--dtype float32] [--callers 32] [--json]',
    );
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  makePhotograph(...PHOTOGRAPH)
    .then((bytes) => {
      const photograph = path.join(folder, 'photograph.jpg');
      writeFileSync(photograph, bytes);
      report(runAll(photograph));
    })
    .finally(() => rmSync(folder, { recursive: true, force: true }));
}

/** runs[workers][kind]: a list with an entry for each round. */
function runAll(photograph) {
  const kinds = [...FIXED_BATCHES.map((size) => `fixed-${size}`), 'tensors', 'jpegs', 'lone'];
  const runs = {};
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const workers of ['1', '2']) {
      runs[workers] ??= {};
      for (const kind of workers === '1' ? ['control', ...kinds] : kinds) {
        const told = ['seconds', 'dtype', 'callers'].flatMap((name) => [`--${name}`, options[name]]);
        const args = [
          __filename,
          '--measure',
          kind,
          '--workers',
          workers,
          '--photograph',
          photograph,
          ...told,
        ];
        (runs[workers][kind] ??= []).push(runJson(process.execPath, args));
      }
    }
  }
  return runs;
}

function report(runs) {
  const all = (workers, kind, fact) => runs[workers][kind].map((run) => fact(run));
  const of = (workers, kind, fact) => median(all(workers, kind, fact));
  const rate = (run) => run.rate;
  const p99 = (run) => run.loop.delayP99;
  const best = (workers) =>
    FIXED_BATCHES.map((size) => `fixed-${size}`).reduce((left, right) =>
      of(workers, right, rate) > of(workers, left, rate) ? right : left,
    );
  const control = of('1', 'control', p99);
  const summary = Object.fromEntries(
    Object.keys(runs).map((workers) => [
      workers,
      {
        bestFixedBatch: Number(best(workers).split('-')[1]),
        shareOfBest: median(
          runs[workers].tensors.map((run, round) => run.rate / runs[workers][best(workers)][round].rate),
        ),
        loneBeyondRun:
          of(workers, 'lone', (run) => run.latency) - of(workers, 'fixed-1', (run) => run.latency),
        eventLoop: ['tensors', 'jpegs', 'lone'].every(
          (kind) => of(workers, kind, p99) <= Math.max(10, 1.5 * control),
        ),
      },
    ]),
  );
  if (options.json) {
    console.log(JSON.stringify({ summary, controlDelayP99: control, runs }, null, 2));
    return;
  }
  const threads = availableParallelism();
  console.log(
    `se_resnet50 ${options.dtype}, ${options.callers} concurrent callers; medians (range) of ${options.rounds} runs of ${options.seconds} s`,
  );
  console.log(`event loop's delay beside ${threads} spinning threads, p99: ${control.toFixed(1)} ms`);
  for (const [workers, { bestFixedBatch, shareOfBest, loneBeyondRun, eventLoop }] of Object.entries(
    summary,
  )) {
    console.log(`\nworkers: ${workers}, threadsPerWorker: ${Math.max(1, Math.floor(threads / workers))}`);
    console.log(`${''.padEnd(30)}${'images a second'.padEnd(24)}${'ms a call'.padEnd(12)}delay p99`);
    const titles = {
      tensors: 'classify, tensors',
      jpegs: `classify, JPEGs of ${PHOTOGRAPH.join(' x ')}`,
      lone: 'classify, one caller',
    };
    for (const kind of Object.keys(runs[workers]).filter((name) => name !== 'control')) {
      const delay = kind.startsWith('fixed') ? '' : of(workers, kind, p99).toFixed(1);
      const title = titles[kind] ?? `forward, batches of ${kind.split('-')[1]}`;
      const latency = of(workers, kind, (run) => run.latency).toFixed(1);
      console.log(
        `${title.padEnd(30)}${spread(all(workers, kind, rate)).padEnd(24)}${latency.padEnd(12)}${delay}`.trimEnd(),
      );
    }
    console.log(
      `tensors reach ${(100 * shareOfBest).toFixed(0)} % of the best fixed batch (${bestFixedBatch}), at least 95 %: ${shareOfBest >= 0.95 ? 'yes' : 'NO'}; ` +
        `a lone caller's call takes ${loneBeyondRun.toFixed(1)} ms more than a forward; event loop's delay at most 10 ms or 1.5 x control: ${eventLoop ? 'yes' : 'NO'}`,
    );
  }
}

if (options.measure === undefined) main();
else
  measure(options.measure).then((answer) => {
    console.log(JSON.stringify(answer));
    process.exit(0);
  });
