#!/usr/bin/env node
'use strict';
// Resident memory of a process that runs se_resnet50: after loading, and after many batches; beside onnxruntime-node with
// its ONNX file. Linux.
//
// Target: at most 1.2 times onnxruntime-node's, both times.
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { readFloats, runJson } = require('./peers');
const { makeFiles } = require('./network-files');

const { values: options } = parseArgs({
  options: {
    batches: { type: 'string', default: '1000' },
    size: { type: 'string', default: '8' },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: an engine in this process, for the files in --files
    files: { type: 'string' },
  },
});

const TARGET = 1.2;

const loaders = {
  async float32(files) {
    return loadOurs(files, 'float32');
  },
  async bfloat16(files) {
    return loadOurs(files, 'bfloat16');
  },
  async onnxruntime({ onnx, shape, input }) {
    const { InferenceSession, Tensor } = require('onnxruntime-node');
    const session = await InferenceSession.create(onnx);
    return () => session.run({ x: new Tensor('float32', readFloats(input), shape) });
  },
};

async function loadOurs({ weights, shape, input }, dtype) {
  const { load, se_resnet50, tensor } = require('../..');
  const source = se_resnet50({ initWeights: false }).eval();
  const state = await load(weights);
  source.loadStateDict(state, { assign: true });
  state.dispose();
  const compiling = source.compile({ dtype });
  source.dispose(); // freed as soon as it has been read, as ImageClassifier does
  const compiled = await compiling;
  return async () => {
    const x = tensor(readFloats(input), { shape });
    (await compiled.forward(x)).dispose();
    x.dispose();
  };
}

function residentNow() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name) => Number(new RegExp(`^${name}:\\s*(\\d+) kB`, 'm').exec(status)[1]) / 1024;
  return { now: field('VmRSS'), peak: field('VmHWM') };
}

async function measure() {
  const before = residentNow().now;
  const run = await loaders[options.measure](JSON.parse(options.files));
  const loaded = residentNow();
  await run();
  const first = residentNow();
  for (let i = 1; i < Number(options.batches); i++) await run();
  const end = residentNow();
  console.log(JSON.stringify({ before, loaded: loaded.now, first: first.now, end: end.now, peak: end.peak }));
  process.exit(0);
}

function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/memory.js [--batches 1000] [--size 8] [--python PATH] [--json]\n\n' +
        'Python makes the ONNX file: it needs torch, onnx and onnxscript.',
    );
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    const { absent, python: _, ...files } = makeFiles(folder, Number(options.size), options.python);
    const results = {};
    for (const engine of Object.keys(loaders)) {
      if (absent[engine]) continue;
      const told = ['--files', JSON.stringify(files), '--batches', options.batches];
      try {
        results[engine] = runJson(process.execPath, [__filename, '--measure', engine, ...told]);
      } catch (error) {
        absent[engine] = error.reason ?? error.message;
      }
    }
    report(results, absent);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(results, absent) {
  const peer = results.onnxruntime;
  const verdict = Object.fromEntries(
    ['float32', 'bfloat16']
      .filter((engine) => peer && results[engine])
      .map((engine) => [
        engine,
        ['loaded', 'end'].every((when) => results[engine][when] <= TARGET * peer[when]),
      ]),
  );
  if (options.json) {
    console.log(JSON.stringify({ megabytes: results, absent, verdict }, null, 2));
    return;
  }
  console.log(`resident MB of a process that runs se_resnet50 in batches of ${options.size}`);
  console.log(`${''.padEnd(28)}after loading   first batch   ${options.batches} batches   at most`);
  const titles = {
    float32: 'senet-torch, float32',
    bfloat16: 'senet-torch, bfloat16',
    onnxruntime: 'onnxruntime-node',
  };
  for (const [engine, sizes] of Object.entries(results)) {
    const cells = ['loaded', 'first', 'end', 'peak'].map((when, column) => {
      const ratio =
        peer && engine !== 'onnxruntime' && when !== 'first' && when !== 'peak'
          ? ` (${(sizes[when] / peer[when]).toFixed(2)}x)`
          : '';
      return `${sizes[when].toFixed(0)}${ratio}`.padEnd([16, 14, 15, 0][column]);
    });
    console.log(`${titles[engine].padEnd(28)}${cells.join('')}`);
  }
  for (const [name, reason] of Object.entries(absent)) console.log(`${name}: absent: ${reason}`);
  for (const [engine, holds] of Object.entries(verdict))
    console.log(`${engine}: at most ${TARGET} x onnxruntime-node: ${holds ? 'yes' : 'NO'}`);
}

if (options.measure === undefined) main();
else void measure();
