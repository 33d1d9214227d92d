#!/usr/bin/env node
'use strict';
// How long a se_resnet50 checkpoint takes to load, beside PyTorch in the same run: zip container against
// torch.load(mmap=True) + load_state_dict, legacy container against plain torch.load + load_state_dict.
// Every engine runs alone in a process of its own; the processes alternate; the page cache is warm.
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { findPython, median, runJson, spread } = require('./peers');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    loads: { type: 'string', default: '5' },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: measure this file in this process
  },
});

// A module with se_resnet50's keys and shapes is all that load_state_dict needs; the file comes from us.
const PYTHON = `
import json, sys, time, torch
file, mmap, loads = sys.argv[1], sys.argv[2] == "mmap", int(sys.argv[3])
class Holder(torch.nn.Module):
    pass
root = Holder()
for name, value in torch.load(file).items():
    *path, leaf = name.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            module.add_module(part, Holder())
        module = module._modules[part]
    if value.is_floating_point() and "running_" not in leaf:
        module.register_parameter(leaf, torch.nn.Parameter(torch.empty_like(value)))
    else:
        module.register_buffer(leaf, torch.empty_like(value))
times = []
for _ in range(loads + 1):
    start = time.perf_counter()
    root.load_state_dict(torch.load(file, mmap=mmap))
    times.append((time.perf_counter() - start) * 1000)
print(json.dumps(times[1:]))
`;
const TO_LEGACY = `
import sys, torch
torch.save(torch.load(sys.argv[1]), sys.argv[2], _use_new_zipfile_serialization=False)
print("{}")
`;

async function measure(file) {
  const { load, se_resnet50 } = require('../..');
  const model = se_resnet50({ initWeights: false });
  const times = [];
  for (let i = 0; i <= Number(options.loads); i++) {
    const start = performance.now();
    const state = await load(file);
    model.loadStateDict(state, { assign: true });
    times.push(performance.now() - start);
    state.dispose();
  }
  console.log(JSON.stringify(times.slice(1)));
}

async function main() {
  if (options.help) {
    console.log('usage: node scripts/bench/load.js [--rounds 5] [--loads 5] [--python PATH] [--json]');
    return;
  }
  const python = findPython(options.python);
  if (python === null) {
    console.error(
      'no Python with torch was found (--python PATH or SENET_BENCH_PYTHON): nothing to compare with',
    );
    process.exitCode = 1;
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    const { save, se_resnet50 } = require('../..');
    const files = { zip: path.join(folder, 'zip.pt'), legacy: path.join(folder, 'legacy.pkl') };
    await save(se_resnet50(), files.zip);
    runJson(python.python, ['-c', TO_LEGACY, files.zip, files.legacy]);
    const results = {};
    for (const [container, file] of Object.entries(files)) {
      const ours = [];
      const theirs = [];
      for (let round = 0; round < Number(options.rounds); round++) {
        ours.push(...runJson(process.execPath, [__filename, '--measure', file, '--loads', options.loads]));
        const mode = container === 'zip' ? 'mmap' : 'plain';
        theirs.push(...runJson(python.python, ['-c', PYTHON, file, mode, options.loads]));
      }
      results[container] = { ours, pytorch: theirs, ratio: median(ours) / median(theirs) };
    }
    if (options.json) {
      console.log(JSON.stringify({ pytorch: python.version, milliseconds: results }, null, 2));
      return;
    }
    console.log(`se_resnet50 checkpoint (112 MB), ms, median (range); PyTorch ${python.version}`);
    for (const [container, { ours, pytorch, ratio }] of Object.entries(results)) {
      const peer = container === 'zip' ? 'torch.load(mmap=True)' : 'torch.load';
      console.log(
        `${container.padEnd(7)} load + loadStateDict(assign) ${spread(ours)}   ${peer} + load_state_dict ${spread(pytorch)}   ratio ${ratio.toFixed(2)}`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

(options.measure === undefined ? main() : measure(options.measure)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
