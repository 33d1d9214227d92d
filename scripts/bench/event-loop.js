#!/usr/bin/env node
'use strict';
// Whether timers and fs.readFile keep their pace while se_resnet50 batches run, beside a control in the same run: as
// many threads spinning, and no library. Each measurement is a process of its own; they alternate.
//
// Targets: the p99 of the event loop's delay (monitorEventLoopDelay at a resolution of 1 ms) at most 10 ms or 1.5 times
// the control's; the p99 of readFile at most 15 ms or 1.5 times.
const { availableParallelism } = require('node:os');
const { parseArgs } = require('node:util');
const { startControl, watchLoop } = require('./loop-delay');
const { median, runJson } = require('./peers');

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: 'idle', 'control' or 'library' in this process
  },
});

/** Starts the load and gives a function that ends it and tells what it did. */
async function startLoad(kind) {
  if (kind === 'idle') return async () => ({});
  if (kind === 'control') {
    const endControl = await startControl();
    return async () => {
      await endControl();
      return {};
    };
  }
  const { se_resnet50, randn } = require('../..');
  const model = se_resnet50({ initWeights: false }).eval();
  const x = randn([8, 3, 224, 224]);
  (await model.forward(x)).dispose();
  let running = true;
  let batches = 0;
  const loop = (async () => {
    while (running) {
      (await model.forward(x)).dispose();
      batches++;
    }
  })();
  return async () => {
    running = false;
    await loop;
    return { batches };
  };
}

async function measure(kind) {
  const end = await startLoad(kind);
  const watched = await watchLoop(Number(options.seconds));
  const facts = await end();
  console.log(JSON.stringify({ ...facts, ...watched }));
  process.exit(0);
}

function main() {
  if (options.help) {
    console.log('usage: node scripts/bench/event-loop.js [--seconds 8] [--rounds 3] [--json]');
    return;
  }
  const kinds = ['idle', 'control', 'library'];
  const runs = Object.fromEntries(kinds.map((kind) => [kind, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const kind of kinds)
      runs[kind].push(
        runJson(process.execPath, [__filename, '--measure', kind, '--seconds', options.seconds]),
      );
  }
  const of = (kind, fact) => median(runs[kind].map((run) => run[fact]));
  const summary = Object.fromEntries(
    kinds.map((kind) => [
      kind,
      Object.fromEntries(
        ['delayP50', 'delayP99', 'readP50', 'readP99'].map((fact) => [fact, of(kind, fact)]),
      ),
    ]),
  );
  const holds = (fact, bound) => of('library', fact) <= Math.max(bound, 1.5 * of('control', fact));
  const verdict = { delay: holds('delayP99', 10), readFile: holds('readP99', 15) };
  if (options.json) {
    console.log(JSON.stringify({ milliseconds: summary, verdict, runs }, null, 2));
    return;
  }
  console.log(
    `event loop while se_resnet50 batches of 8 run; ms, medians of ${options.rounds} runs of ${options.seconds} s`,
  );
  console.log(`${''.padEnd(28)}delay p50   delay p99   readFile p50   readFile p99`);
  const names = {
    idle: 'idle',
    control: `${availableParallelism()} spinning threads`,
    library: 'senet-torch',
  };
  for (const kind of kinds) {
    const { delayP50, delayP99, readP50, readP99 } = summary[kind];
    const cells = [
      delayP50.toFixed(2).padStart(9),
      delayP99.toFixed(2).padStart(12),
      readP50.toFixed(2).padStart(15),
      readP99.toFixed(2).padStart(15),
    ];
    console.log(`${names[kind].padEnd(28)}${cells.join('')}`);
  }
  console.log(
    `p99 of the delay at most 10 ms or 1.5 x control: ${verdict.delay ? 'yes' : 'NO'}; of readFile at most 15 ms or 1.5 x: ${verdict.readFile ? 'yes' : 'NO'}`,
  );
}

if (options.measure === undefined) main();
else void measure(options.measure);
