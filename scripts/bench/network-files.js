'use strict';
// The same network for several engines: a checkpoint, inputs, and ONNX files where they can be made. The scripts of
// `npm run bench` (engines/) do the work; what they need and lack is said.
const { existsSync } = require('node:fs');
const path = require('node:path');
const { findPython, runJson } = require('./peers');

const ENGINES = path.join(__dirname, 'engines');
const SIDES = { se_resnet50: 224, se_resnet20: 32 };

/**
 * @param folder where the files go
 * @param size images of a batch
 * @param model a name in SIDES
 * @returns { weights, input, onnx, python, absent }: files, Python with torch or null, and for 'pytorch' and
 *   'onnxruntime' why they can't be compared with
 */
function makeFiles(folder, size, pythonWish, model = 'se_resnet50') {
  const side = SIDES[model];
  const file = (name) => path.join(folder, name);
  const batch = {
    size,
    input: file('input.f32'),
    reference: file('reference.f32'),
    output: file('output.f32'),
    onnx: file('network.onnx'),
  };
  const job = {
    model,
    side,
    variance: [0.5, 1.5],
    weights: file('weights.pt'),
    batches: [batch],
  };
  runJson(process.execPath, [path.join(ENGINES, 'senet-torch.js'), 'prepare', JSON.stringify(job)]);
  const absent = {};
  const python = findPython(pythonWish);
  if (python === null) absent.pytorch = 'no Python with torch; name one with --python or SENET_BENCH_PYTHON';
  if (!existsSync(path.join(__dirname, 'node_modules', 'onnxruntime-node'))) {
    absent.onnxruntime = 'not installed; type: (cd scripts/bench && npm ci --ignore-scripts)';
  } else if (python === null) {
    absent.onnxruntime = 'no ONNX file without torch, onnx and onnxscript in Python';
  } else {
    const run = (...args) =>
      runJson(python.python, [path.join(ENGINES, 'pytorch.py'), ...args], { PYTHONDONTWRITEBYTECODE: '1' });
    const { export: missing } = run('probe');
    if (missing === null) run('export', JSON.stringify(job));
    else absent.onnxruntime = `no ONNX file without ${missing} in Python`;
  }
  return {
    weights: job.weights,
    input: batch.input,
    onnx: batch.onnx,
    shape: [size, 3, side, side],
    python,
    absent,
  };
}

module.exports = { makeFiles };
