'use strict';
// onnxruntime-node's side of `npm run bench`: `onnxruntime.js measure JOB` times it on one model's ONNX files and prints
// { batches } as one line of JSON. JOB is the JSON that inference.js makes; inputs and outputs are raw float32.
const { writeFileSync } = require('node:fs');
const { InferenceSession, Tensor } = require('onnxruntime-node');
const { readFloats, timeRuns } = require('../peers');

const job = JSON.parse(process.argv[3]);

async function measure() {
  const batches = [];
  for (const batch of job.batches) {
    const file = job.engine === 'onnxruntime-int8' ? batch.onnxInt8 : batch.onnx;
    const session = await InferenceSession.create(file, {
      intraOpNumThreads: job.threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
      graphOptimizationLevel: 'all',
    });
    const x = new Tensor('float32', readFloats(batch.input), [batch.size, 3, job.side, job.side]);
    let output;
    const times = await timeRuns(async () => {
      output = (await session.run({ x })).logits;
    }, job);
    writeFileSync(batch.output, output.data);
    batches.push({ size: batch.size, ...times });
    await session.release();
  }
  return { batches };
}

measure().then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
