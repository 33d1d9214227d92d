#!/usr/bin/env node
'use strict';
// What docs/models.md says of each network besides its record: the multiply-adds of one image of its usual size, and the
// milliseconds that it takes compiled, in float32, all threads. Writes networks.json beside this file; of several runs of
// this script on one machine the least time stays, since whatever else the machine does only adds. Names choose networks
// (default: all); `--plan` takes no times; `--fresh` forgets those of before.
const { readFileSync, writeFileSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const FILE = path.join(__dirname, 'networks.json');
const UNMEASURED_RUNS = 2;
const RUNS = 7;

const { values: options, positionals } = parseArgs({
  options: {
    plan: { type: 'boolean', default: false },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
  allowPositionals: true,
});

/** The median of `RUNS` forwards of one image. */
async function timeOf(senet, compiled, shape) {
  const times = [];
  const x = senet.rand(shape);
  for (let run = 0; run < UNMEASURED_RUNS + RUNS; run++) {
    const start = process.hrtime.bigint();
    (await compiled.forward(x)).dispose();
    if (run >= UNMEASURED_RUNS) times.push(Number(process.hrtime.bigint() - start) / 1e6);
  }
  x.dispose();
  return times.sort((left, right) => left - right)[RUNS >> 1];
}

async function main() {
  if (options.help) {
    console.log('usage: node scripts/bench/networks.js [NAME...] [--plan] [--fresh]');
    return;
  }
  const senet = require('../..');
  const names = positionals.length > 0 ? positionals : senet.listModels();
  const { networks: before, ...measured } = JSON.parse(readFileSync(FILE, 'utf8'));
  if (!options.plan) measured.machine = `${os.availableParallelism()} cores of ${os.cpus()[0]?.model.trim()}`;
  for (const name of names) {
    const { inChannels, numClasses } = senet.modelRecord(name);
    const model = senet.createModel(name, { initWeights: false, numClasses: numClasses ?? 1000 }).eval();
    const compiled = await model.compile();
    model.dispose();
    const { multiplyAdds, inputSize } = compiled.explain();
    const known = options.fresh ? undefined : before[name]?.milliseconds;
    const time = options.plan ? undefined : await timeOf(senet, compiled, [1, inChannels, ...inputSize]);
    compiled.dispose();
    const least = Math.min(known ?? Infinity, time ?? Infinity);
    const billions = multiplyAdds / 1e9;
    before[name] = {
      billionMultiplyAdds: Number(billions.toFixed(billions < 1 ? 3 : 2)),
      ...(Number.isFinite(least) && { milliseconds: Number(least.toPrecision(3)) }),
    };
    console.log(`${name} ${before[name].billionMultiplyAdds} ${before[name].milliseconds ?? '-'} ms`);
    write({ ...measured, networks: before }, senet.listModels());
  }
}

/** In the order of the registry. */
function write({ machine, networks }, names) {
  const sorted = Object.fromEntries(
    names.flatMap((name) => (name in networks ? [[name, networks[name]]] : [])),
  );
  writeFileSync(FILE, `${JSON.stringify({ machine, networks: sorted }, null, 2)}\n`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
