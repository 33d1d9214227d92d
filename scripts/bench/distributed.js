#!/usr/bin/env node
'use strict';
// `npm run bench:distributed`: what training on several processes costs and saves.
//
// Without arguments: images a second of se_resnet50 on two processes of one thread each, and on one process of two threads
// with the whole batch, a few steps of one and of the other in turns.
//
// `--overlap`, on each of two machines (or network namespaces) with torchrun's variables set: the time of a step whose
// gradients go in buckets while backward runs, and of one whose gradients go together when it has ended, in turns.
const { fork } = require('node:child_process');
const { once } = require('node:events');
const { createServer } = require('node:net');
const { performance } = require('node:perf_hooks');
const { parseArgs } = require('node:util');

const ROUNDS = Number(process.env.SENET_BENCH_ROUNDS ?? 6);
const STEPS = 2;
const BATCH = 8;

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** A step of training, on so many images. */
function makeStep(senet, model, module, images) {
  const { CrossEntropyLoss, randn, SGD, tensor, tidy } = senet;
  const optimizer = new SGD(module.parameters(), { lr: 1e-3 });
  const criterion = new CrossEntropyLoss();
  const x = randn([images, 3, 160, 160]).to({ memoryFormat: 'channels_last' });
  const labels = tensor(
    Array.from({ length: images }, (_, index) => index),
    { dtype: 'int64' },
  );
  return () =>
    tidy(async () => {
      optimizer.zeroGrad();
      const loss = await criterion.forward(await model.forward(x), labels);
      await loss.backward();
      await optimizer.step();
    });
}

/** A process that takes steps when it is told to. */
async function work() {
  const senet = require('../../dist');
  const processes = Number(process.env.WORLD_SIZE);
  senet.configure({ threadsPerWorker: 2 / processes });
  const module = senet.se_resnet50({ initWeights: false });
  if (processes > 1) await senet.initProcessGroup();
  const model = processes > 1 ? new senet.DistributedDataParallel(module) : module;
  const step = makeStep(senet, model, module, (2 * BATCH) / processes);
  process.on('message', async (steps) => {
    if (steps === 0) process.exit(0);
    const began = performance.now();
    for (let i = 0; i < steps; i++) await step();
    process.send(performance.now() - began);
  });
  process.send('ready');
}

async function efficiency() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = String(server.address().port);
  server.close();
  const start = (count) =>
    Array.from({ length: count }, (_, rank) =>
      fork(__filename, ['--work'], {
        env: { ...process.env, RANK: rank, WORLD_SIZE: count, MASTER_ADDR: '127.0.0.1', MASTER_PORT: port },
      }),
    );
  const groups = { 'one process, two threads': start(1), 'two processes, one thread each': start(2) };
  const run = async (group, steps) => {
    const answers = group.map(async (child) => (await once(child, 'message'))[0]);
    if (steps > 0) for (const child of group) child.send(steps);
    return Promise.all(answers);
  };
  for (const group of Object.values(groups)) await run(group, 0); // 'ready'
  const times = Object.fromEntries(Object.keys(groups).map((name) => [name, []]));
  for (const group of Object.values(groups)) await run(group, STEPS);
  for (let round = 0; round < ROUNDS; round++)
    for (const [name, group] of Object.entries(groups))
      times[name].push(Math.max(...(await run(group, STEPS))) / STEPS);
  for (const group of Object.values(groups)) for (const child of group) child.send(0);
  const rates = Object.entries(times).map(([name, all]) => [name, (2 * BATCH * 1000) / median(all)]);
  for (const [name, rate] of rates) console.log(`${name}: ${rate.toFixed(2)} images/s`);
  console.log(`ratio: ${(rates[1][1] / rates[0][1]).toFixed(3)}`);
}

async function overlap() {
  const senet = require('../../dist');
  await senet.initProcessGroup();
  senet.configure({ threadsPerWorker: 1 });
  const makers = { 'buckets of 4 MB': 4, 'all together': 4096 };
  const steps = {};
  for (const [name, bucketCapMb] of Object.entries(makers)) {
    const module = senet.se_resnet18({ initWeights: false });
    const model = new senet.DistributedDataParallel(module, { bucketCapMb });
    steps[name] = makeStep(senet, model, module, BATCH);
  }
  const times = Object.fromEntries(Object.keys(makers).map((name) => [name, []]));
  for (let round = -2; round < ROUNDS; round++)
    for (const [name, step] of Object.entries(steps)) {
      await senet.barrier();
      const began = performance.now();
      await step();
      if (round >= 0) times[name].push(performance.now() - began);
    }
  if (senet.getRank() === 0)
    for (const [name, all] of Object.entries(times))
      console.log(`${name}: ${median(all).toFixed(0)} ms a step`);
  await senet.barrier();
  await senet.destroyProcessGroup();
}

async function help() {
  console.log(
    'usage: node scripts/bench/distributed.js [--overlap]\n\n' +
      'SENET_BENCH_ROUNDS: rounds, default 6. --overlap wants the variables that torchrun sets.',
  );
}

const { values: options } = parseArgs({
  options: {
    overlap: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    work: { type: 'boolean', default: false }, // internal: a process of a group
  },
});
const main = options.help ? help : options.work ? work : options.overlap ? overlap : efficiency;
main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
