'use strict';
// This library's side of `npm run bench`: one process does one thing for one model, and prints one line of JSON.
//
// senet-torch.js prepare JOB   writes the weights, the inputs and what the outputs are checked against;
//                              { versions, multiplyAdds } (null where the build has no compile)
// senet-torch.js measure JOB   times the job's engine: { batches, instructions }, or { absent } if this build or machine
//                              lacks it
// JOB is the JSON that inference.js makes; inputs and outputs are files of raw float32.
const { writeFileSync } = require('node:fs');
const senet = require('../../..');
const { readFloats, timeRuns } = require('../peers');

const [command, job] = [process.argv[2], JSON.parse(process.argv[3])];

function shapeOf(batch) {
  return [batch.size, 3, job.side, job.side];
}

function createModel(options) {
  const numClasses = job.model === 'se_inception_v3' ? { numClasses: 1000, auxLogits: false } : {};
  return senet.createModel(job.model, { ...numClasses, ...options });
}

function writeFloats(file, tensor) {
  writeFileSync(file, tensor.contiguous().toTypedArray());
}

/** Seeds and statistics as in the parity fixtures: random weights alone would leave every BatchNorm an identity. */
async function prepare() {
  senet.manualSeed(0);
  const model = createModel().eval();
  senet.manualSeed(1);
  senet.noGrad(() => {
    // timm's branches begin as zero, which would leave nothing to compare; with this rule deep ones stay well-conditioned.
    for (const [name, parameter] of job.model.startsWith('se_') ? [] : model.namedParameters()) {
      if (parameter.shape.length === 1 && name.endsWith('weight'))
        senet.ops.call('aten::normal_', parameter, 0.7, 0.1);
    }
    for (const [name, buffer] of model.namedBuffers()) {
      if (name.endsWith('running_mean')) senet.ops.call('aten::normal_', buffer, 0, 0.1);
      if (name.endsWith('running_var')) senet.ops.call('aten::uniform_', buffer, ...job.variance);
    }
  });
  await senet.save(model, job.weights);
  for (const batch of job.batches) {
    senet.manualSeed(2);
    const x = senet.randn(shapeOf(batch));
    writeFloats(batch.input, x);
    writeFloats(batch.reference, await model.forward(x));
  }
  let multiplyAdds = null;
  if (typeof model.compile === 'function') {
    const compiled = await model.compile({ dtype: 'float32' });
    multiplyAdds = compiled.explain([job.side, job.side]).multiplyAdds;
  }
  return { versions: senet.version, multiplyAdds };
}

async function measure() {
  senet.configure({ workers: 1, threadsPerWorker: job.threads });
  const source = createModel({ initWeights: false }).eval();
  source.loadStateDict(await senet.load(job.weights), { assign: true });
  let model = source;
  let layout = 'contiguous';
  if (job.engine.startsWith('compiled-')) {
    if (typeof source.compile !== 'function') return { absent: 'this build of senet-torch has no compile' };
    try {
      const [, dtype] = job.engine.split('-');
      // On what onnxruntime is calibrated on.
      const last = job.batches.at(-1);
      const calibration =
        dtype === 'int8' ? senet.tensor(readFloats(last.input), { shape: shapeOf(last) }) : null;
      model = await source.compile({ dtype, ...(calibration === null ? {} : { calibration }) });
      calibration?.dispose();
    } catch (error) {
      // The latter of SENET_COMPILE_KERNELS, which names an instruction set.
      if (error.code !== 'ERR_SENET_DTYPE' && error.code !== 'ERR_SENET_COMPILE') throw error;
      return { absent: error.message };
    }
    source.dispose();
  } else if (job.engine === 'eager-channels-last') {
    layout = 'channels_last';
    source.to({ memoryFormat: layout });
  }
  const batches = [];
  for (const batch of job.batches) {
    const x = senet.tensor(readFloats(batch.input), { shape: shapeOf(batch) }).to({ memoryFormat: layout });
    let output = null;
    const times = await timeRuns(async () => {
      output?.dispose();
      output = await model.forward(x);
    }, job);
    writeFloats(batch.output, output);
    batches.push({ size: batch.size, ...times });
  }
  return { batches, instructions: model === source ? null : model.explain().backend };
}

(command === 'prepare' ? prepare() : measure()).then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
