#!/usr/bin/env node
'use strict';
// From the start of a process to the first label of a se_resnet50 from a checkpoint on disk: this library, Python with
// PyTorch, and onnxruntime-node with its ONNX file. The input is a preprocessed image, the same for all; the page cache
// is warm. The processes alternate.
//
// Targets: at most 0.25 of Python's time, and no slower than onnxruntime-node.
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { median, readFloats, runJson, spread } = require('./peers');
const { makeFiles } = require('./network-files');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    dtype: { type: 'string', default: 'float32' },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    measure: { type: 'string' }, // internal: 'senet-torch' or 'onnxruntime' in this process, for the files in --files
    files: { type: 'string' },
  },
});

// What one writes; and what one writes who knows that construction draws weights only to throw them away.
const PYTHON = `
import json, sys, time
import numpy, torch
sys.path.insert(0, sys.argv[1])
import se_models
files, meta = json.loads(sys.argv[2]), sys.argv[3] == "meta"
if meta:
    network = se_models.load("se_resnet50", files["weights"])
else:
    network = se_models.MODELS["se_resnet50"]()
    network.load_state_dict(torch.load(files["weights"]))
    network.eval()
x = torch.from_numpy(numpy.fromfile(files["input"], dtype=numpy.float32)).view(files["shape"])
with torch.no_grad():
    score, index = network(x)[0].softmax(0).max(0)
print(json.dumps({"label": int(index), "end": 1000 * time.time()}))
`;

const measures = {
  'senet-torch': async ({ weights, input, shape }) => {
    const { ImageClassifier, tensor } = require('../..');
    const classifier = await ImageClassifier.load('se_resnet50', { weights, dtype: options.dtype });
    const x = tensor(readFloats(input), { shape: shape.slice(1) });
    const [best] = await classifier.classify(x, { topK: 1 });
    return Number(best.label);
  },
  onnxruntime: async ({ onnx, input, shape }) => {
    const { InferenceSession, Tensor } = require('onnxruntime-node');
    const session = await InferenceSession.create(onnx);
    const { logits } = await session.run({ x: new Tensor('float32', readFloats(input), shape) });
    return logits.data.indexOf(Math.max(...logits.data));
  },
};

async function measure() {
  const label = await measures[options.measure](JSON.parse(options.files));
  console.log(JSON.stringify({ label, end: Date.now() }));
  process.exit(0);
}

function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/cold-start.js [--rounds 5] [--dtype float32] [--python PATH] [--json]\n\n' +
        'Python needs torch, and onnx and onnxscript for the ONNX file.',
    );
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    const { python, absent, ...files } = makeFiles(folder, 1, options.python);
    const told = JSON.stringify(files);
    const own = (name) => () =>
      runJson(process.execPath, [__filename, '--measure', name, '--files', told, '--dtype', options.dtype]);
    const inPython = (mode) => () =>
      runJson(python.python, ['-c', PYTHON, path.join(__dirname, 'engines'), told, mode]);
    const engines = { 'senet-torch': own('senet-torch') };
    if (!absent.onnxruntime) engines['onnxruntime-node'] = own('onnxruntime');
    if (!absent.pytorch) {
      engines.PyTorch = inPython('plain');
      engines['PyTorch, no drawn weights'] = inPython('meta');
    }
    const runs = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
    const labels = new Set();
    // The first round warms the page cache.
    for (let round = 0; round <= Number(options.rounds); round++) {
      for (const [name, run] of Object.entries(engines)) {
        const start = Date.now();
        const { label, end } = run();
        labels.add(label);
        if (round > 0) runs[name].push(end - start);
      }
    }
    report(runs, absent, labels);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(runs, absent, labels) {
  const ratio = (peer) =>
    runs[peer] && median(runs[peer].map((peerTime, round) => runs['senet-torch'][round] / peerTime));
  const verdict = {
    sameLabel: labels.size === 1,
    pytorch: ratio('PyTorch') && ratio('PyTorch') <= 0.25,
    onnxruntime: ratio('onnxruntime-node') && ratio('onnxruntime-node') <= 1,
  };
  if (options.json) {
    console.log(JSON.stringify({ milliseconds: runs, absent, verdict }, null, 2));
    return;
  }
  console.log(
    `first se_resnet50 label after the start of the process (ours ${options.dtype}); ms, median (range) of ${options.rounds} runs`,
  );
  for (const [name, times] of Object.entries(runs)) {
    const share = name === 'senet-torch' ? '' : `ours takes ${ratio(name).toFixed(2)} of it`;
    console.log(`${name.padEnd(28)}${spread(times, 0).padEnd(26)}${share}`.trimEnd());
  }
  for (const [name, reason] of Object.entries(absent)) console.log(`${name}: absent: ${reason}`);
  const said = (holds) => (holds === undefined ? 'not measured' : holds ? 'yes' : 'NO');
  console.log(
    `at most 0.25 of PyTorch: ${said(verdict.pytorch)}; no slower than onnxruntime-node: ${said(verdict.onnxruntime)}; the same label: ${said(verdict.sameLabel)}`,
  );
}

if (options.measure === undefined) main();
else void measure();
