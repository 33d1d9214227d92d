#!/usr/bin/env node
'use strict';
// The server under load (autocannon): images a second, latencies and the event loop's delay of createInferenceHandler on
// node:http and of the plugin of Fastify, beside
// - what a bare node:http server answers, that reads the same bodies: the load's own cost;
// - the library's own loop of as many callers with the same decode, while such a bare server answers as many requests;
// - the same with shrinkOnLoad, which is what sharp does below;
// - a server as it is usually written: Fastify, onnxruntime-node and sharp (--onnx FILE: another file of the network);
// - one in Python as it is usually written: FastAPI, PyTorch and Pillow (--python FILE, or SENET_BENCH_PYTHON).
// Each server is a process of its own, and they alternate. --only bare,handler measures those alone. --soak MINUTES instead sends good requests, requests that are
// aborted, garbage, slow ones and bodies that are too large, and watches memory and answers.
//
// Targets: at least 90 % of the library's loop; event loop p99 below 10 ms; 1.3 times the usual server; at requests that
// come evenly, 80 % as many as it answers, p99 below three batch times (of so many images as a batch has at most).
const { fork } = require('node:child_process');
const { mkdtempSync, rmSync } = require('node:fs');
const { connect } = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { Callers, keepRate } = require('./callers');
const { percentile } = require('./loop-delay');
const { makeFiles } = require('./network-files');
const { installOnnxruntime, median, runJson, spread } = require('./peers');
const { makePhotograph } = require('./photograph');
const { PHOTOGRAPH, ROLES } = require('./serve-roles');
const { soak } = require('./serve-soak');

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'se_resnet20' },
    dtype: { type: 'string', default: 'float32' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '8' },
    connections: { type: 'string', default: '32' },
    idle: { type: 'string', default: '10000' },
    onnx: { type: 'string' },
    python: { type: 'string' },
    only: { type: 'string' },
    weights: { type: 'string' }, // internal: of the network, for Python
    soak: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    role: { type: 'string' }, // internal: one of ROLES in this process
  },
});

const FASTAPI = path.join(__dirname, 'engines', 'fastapi_server.py');

/** In the order in which they take turns. */
const TITLES = {
  bare: 'bare node:http',
  handler: 'createInferenceHandler',
  fastify: 'senet-torch/fastify',
  shrink: '... with shrinkOnLoad',
  loop: 'the loop beside a bare server',
  usual: 'Fastify, onnxruntime-node, sharp',
  fastapi: 'FastAPI, PyTorch, Pillow',
};

const OURS = ['handler', 'fastify', 'shrink'];
/** `batching.maxBatch` of a classifier, unless it is given. */
const MOST_IMAGES = 16;

/** In the process of a role: says its port, and what it is asked. */
async function play(role) {
  const port = await ROLES[role]({ ...options, connections: Number(options.connections) });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  process.on('message', ({ question }) => {
    if (question === 'watch') delay.enable();
    if (question === 'delay')
      process.send({
        ...(role === 'fastapi' ? {} : { delayP99: delay.percentile(99) / 1e6 }),
        rss: process.memoryUsage.rss(),
      });
  });
  process.on('disconnect', () => process.exit(0));
  process.send({ port });
}

class Player {
  /** Options for the peers, which this process has found out. */
  static found = [];

  static async start(role) {
    const player = new Player();
    player.child = fork(__filename, [...process.argv.slice(2), ...Player.found, '--role', role]);
    player.child.on('exit', () => (player.gone = true));
    ({ port: player.port } = await player.next());
    return player;
  }

  next() {
    return new Promise((resolve, reject) => {
      const ended = (code) => reject(new Error(`it ended with ${code}`));
      this.child.once('exit', ended);
      this.child.once('message', (message) => {
        this.child.off('exit', ended);
        resolve(message);
      });
    });
  }

  ask(question) {
    const answer = this.next();
    this.child.send({ question });
    return answer;
  }

  stop() {
    this.child.disconnect();
  }
}

/** Load on a server: answers a second and latencies. @param rate - requests a second; none is as many as there come */
async function load(port, image, { seconds, rate, path = '/classify' }) {
  const autocannon = require('autocannon');
  const result = await autocannon({
    url: `http://127.0.0.1:${port}${path}`,
    method: 'POST',
    headers: { 'content-type': 'image/jpeg' },
    body: image,
    connections: Number(options.connections),
    duration: seconds,
    ...(rate === undefined ? {} : { overallRate: Math.max(1, Math.round(rate)) }),
  });
  const { latency, duration, '2xx': good, non2xx, errors, timeouts } = result;
  return { rate: good / duration, p50: latency.p50, p99: latency.p99, others: non2xx + errors + timeouts };
}

async function measureServer(role, image, seconds) {
  const player = await Player.start(role);
  try {
    await load(player.port, image, { seconds: 2 });
    const full = await load(player.port, image, { seconds });
    // It answers faster than anyone here could ask.
    if (role === 'bare') return full;
    player.child.send({ question: 'watch' });
    const callers = new Callers(player.port, image, '/classify');
    await keepRate(callers, seconds, 0.8 * full.rate);
    await callers.end();
    const { delayP99 } = await player.ask('delay');
    return { ...full, p99At80: percentile(callers.times, 0.99), delayP99 };
  } finally {
    player.stop();
  }
}

/** The library's own callers, while a bare server answers so many requests a second. */
async function measureLoop(image, seconds, rate) {
  const [loop, bare] = await Promise.all([Player.start('loop'), Player.start('bare')]);
  try {
    await sleep(1500);
    const before = await loop.ask('count');
    await load(bare.port, image, { seconds, rate });
    const after = await loop.ask('count');
    return { rate: (1000 * (after.count - before.count)) / (after.at - before.at) };
  } finally {
    loop.stop();
    bare.stop();
  }
}

/** So many connections that ask nothing, held while one asks. */
async function holdConnections(count, image) {
  const player = await Player.start('handler');
  const sockets = [];
  try {
    // In pieces that the queue of the port holds.
    while (sockets.length < count) {
      const piece = Array.from({ length: Math.min(200, count - sockets.length) }, () =>
        connect(player.port, '127.0.0.1').on('error', () => undefined),
      );
      sockets.push(...piece);
      await Promise.all(
        piece.map((socket) => new Promise((done) => socket.once('connect', done).once('close', done))),
      );
    }
    await sleep(1000);
    const held = sockets.filter((socket) => socket.readyState === 'open').length;
    return { held, ...(await load(player.port, image, { seconds: Number(options.seconds) })) };
  } finally {
    for (const socket of sockets) socket.destroy();
    player.stop();
  }
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/serve.js [--model se_resnet20|se_resnet50] [--dtype float32] [--rounds 3] [--seconds 8] [--connections 32] [--idle 10000] [--onnx FILE] [--python FILE] [--only ROLE,...] [--json] | --soak MINUTES',
    );
    return;
  }
  const image = await makePhotograph(...PHOTOGRAPH);
  if (options.soak !== undefined)
    return soak(await Player.start('handler'), image, 60 * Number(options.soak));
  const folder = mkdtempSync(path.join(os.tmpdir(), 'senet-bench-'));
  try {
    await measure(image, findPeers(folder));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param absent - why which peers are not measured */
async function measure(image, absent) {
  const seconds = Number(options.seconds);
  const roles = Object.keys(TITLES).filter((role) => absent[role] === undefined);
  const runs = Object.fromEntries(roles.map((role) => [role, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const role of roles) {
      if (role === 'loop') runs.loop.push(await measureLoop(image, seconds, runs.handler.at(-1).rate));
      else runs[role].push(await measureServer(role, image, seconds));
    }
  }
  const idle = Number(options.idle) > 0 ? await holdConnections(Number(options.idle), image) : null;
  // A server that answered nothing is beside nobody: the run was too short for it.
  const ratio = (role, other) =>
    runs[role] && runs[other]?.every(({ rate }) => rate > 0)
      ? median(runs[role].map(({ rate }, round) => rate / runs[other][round].rate))
      : undefined;
  const shares = Object.fromEntries(
    ['loop', 'usual', 'fastapi'].map((other) => [
      other,
      Object.fromEntries(OURS.map((role) => [role, ratio(role, other)])),
    ]),
  );
  if (options.json) return void console.log(JSON.stringify({ shares, idle, absent, runs }, null, 2));
  report(runs, shares, idle, absent);
}

/** What the servers of others need: the network as ONNX and as a checkpoint, Python with FastAPI. */
function findPeers(folder) {
  const absent = {};
  const only = options.only?.split(',');
  for (const role of Object.keys(TITLES))
    if (only !== undefined && !only.includes(role)) absent[role] = 'not among --only';
  if (absent.handler !== undefined) absent.loop ??= 'it needs the rate of handler';
  if (absent.usual !== undefined && absent.fastapi !== undefined) return absent;
  const onnxruntime = installOnnxruntime();
  const files = makeFiles(folder, 1, options.python, options.model);
  const reason = onnxruntime.absent ?? (options.onnx === undefined ? files.absent.onnxruntime : undefined);
  if (reason !== undefined) absent.usual ??= reason;
  if (files.python === null) absent.fastapi ??= files.absent.pytorch;
  else {
    const { missing } = runJson(files.python.python, [FASTAPI, 'probe']);
    if (missing !== '') absent.fastapi ??= `Python has no ${missing}: pip install fastapi uvicorn pillow`;
    Player.found.push('--python', files.python.python, '--weights', files.weights);
  }
  if (options.onnx === undefined) Player.found.push('--onnx', files.onnx);
  return absent;
}

function report(runs, shares, idle, absent) {
  console.log(
    `${options.model} ${options.dtype}, JPEGs of ${PHOTOGRAPH.join(' x ')}, ${options.connections} connections; medians (range) of ${options.rounds} runs of ${options.seconds} s`,
  );
  console.log(
    `${''.padEnd(34)}${'images a second'.padEnd(26)}${'p50'.padEnd(8)}${'p99'.padEnd(8)}${'p99 at 80 %'.padEnd(13)}loop p99`,
  );
  for (const [role, all] of Object.entries(runs)) {
    const of = (fact, digits = 0) =>
      all[0][fact] === undefined ? '' : median(all.map((run) => run[fact])).toFixed(digits);
    console.log(
      `${TITLES[role].padEnd(34)}${spread(all.map(({ rate }) => rate)).padEnd(26)}${of('p50').padEnd(8)}${of('p99').padEnd(8)}${of('p99At80').padEnd(13)}${of('delayP99', 1)}`.trimEnd(),
    );
  }
  for (const [other, words] of [
    ['loop', 'of the loop, at least 0.9'],
    ['usual', 'beside onnxruntime-node, at least 1.3'],
    ['fastapi', 'beside FastAPI and PyTorch'],
  ]) {
    const known = Object.entries(shares[other]).filter(([, share]) => share !== undefined);
    if (known.length > 0)
      console.log(`${words}: ${known.map(([role, share]) => `${role} ${share.toFixed(2)}`).join(', ')}`);
  }
  const inBatches = OURS.filter((role) => runs[role] !== undefined).map((role) => {
    const times = runs[role].map(({ p99At80, rate }) => p99At80 / ((1000 * MOST_IMAGES) / rate));
    return `${role} ${median(times).toFixed(2)}`;
  });
  if (inBatches.length > 0)
    console.log(`p99 at 80 %, in times of ${MOST_IMAGES} images, at most 3: ${inBatches.join(', ')}`);
  for (const [role, reason] of Object.entries(absent)) console.log(`${TITLES[role]} is left out: ${reason}`);
  if (idle !== null)
    console.log(`${idle.held} idle connections held, ${idle.rate.toFixed(1)} images a second beside them`);
}

(options.role === undefined ? main() : play(options.role)).catch((error) => {
  console.error(error);
  process.exit(1);
});
