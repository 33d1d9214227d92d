#!/usr/bin/env node
'use strict';
// What Node costs: `await compiled.forward(x)` beside the same compiled model called in a C++ loop
// (engines/loop.cpp, which this builds from the addon's own objects). Float32, batch 1. The processes alternate.
//
// Targets: at most 2 % for se_resnet50 and 60 microseconds for se_resnet20.
const { spawnSync } = require('node:child_process');
const { existsSync } = require('node:fs');
const { availableParallelism } = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { median, runJson, spread, timeRuns } = require('./peers');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(availableParallelism()) },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: this model, in this process
  },
});

const BUILD = path.join(__dirname, '..', '..', 'build');
const LOOP = path.join(BUILD, 'senet_loop');
const WARM_UP_SECONDS = 1;
/** Whether what Node adds, in milliseconds, is little enough beside the C++ loop's. */
const TARGETS = {
  se_resnet50: { said: 'at most 2 %', holds: (added, loop) => added <= 0.02 * loop },
  se_resnet20: { said: 'at most 60 us', holds: (added) => added <= 0.06 },
};

async function measure(name) {
  const { configure, createModel, randn } = require('../..');
  configure({ workers: 1, threadsPerWorker: Number(options.threads) });
  const compiled = await createModel(name).eval().compile();
  const x = randn(name === 'se_resnet20' ? [1, 3, 32, 32] : [1, 3, 224, 224]);
  const seconds = Number(options.seconds);
  return timeRuns(async () => (await compiled.forward(x)).dispose(), {
    warmUpSeconds: WARM_UP_SECONDS,
    seconds,
    leastRuns: 3,
  });
}

function build() {
  const done = existsSync(path.join(BUILD, 'CMakeCache.txt'))
    ? spawnSync('cmake', ['--build', BUILD, '--target', 'senet_loop'], { encoding: 'utf8' })
    : { status: 1, stdout: '', stderr: `no build in ${BUILD}: run \`npm run build\` first` };
  if (done.status !== 0) throw new Error(`cmake --build: ${done.stdout ?? ''}${done.stderr ?? done.error}`);
}

function main() {
  if (options.help) {
    console.log('usage: node scripts/bench/binding.js [--rounds 7] [--seconds 3] [--threads N] [--json]');
    return;
  }
  build();
  const results = {};
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const name of Object.keys(TARGETS)) {
      const result = (results[name] ??= { node: [], loop: [] });
      const told = ['--seconds', options.seconds, '--threads', options.threads];
      result.node.push(runJson(process.execPath, [__filename, '--measure', name, ...told]).milliseconds);
      // As lib/native.ts sets it for a Node process.
      const environment =
        (process.env.OMP_WAIT_POLICY ?? process.env.GOMP_SPINCOUNT) ? {} : { GOMP_SPINCOUNT: '1000' };
      const loop = [name, options.threads, String(WARM_UP_SECONDS), options.seconds];
      result.loop.push(runJson(LOOP, loop, environment).milliseconds);
    }
  }
  report(results);
}

function report(results) {
  for (const [name, result] of Object.entries(results)) {
    const loop = median(result.loop);
    result.added = median(result.node.map((time, round) => time - result.loop[round]));
    result.holds = TARGETS[name].holds(result.added, loop);
    if (options.json) continue;
    console.log(
      `${name}: await forward ${spread(result.node, 3)} ms, C++ loop ${spread(result.loop, 3)} ms; ` +
        `Node adds ${(1000 * result.added).toFixed(0)} us (${((100 * result.added) / loop).toFixed(1)} %), ` +
        `${TARGETS[name].said}: ${result.holds ? 'yes' : 'NO'}`,
    );
  }
  if (options.json) console.log(JSON.stringify(results, null, 2));
}

if (options.measure === undefined) main();
else void measure(options.measure).then((answer) => console.log(JSON.stringify(answer)));
