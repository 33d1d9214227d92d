#!/usr/bin/env node
'use strict';
// The server under load (autocannon): images a second, latencies and the event loop's delay of createInferenceHandler on
// node:http and of the plugin of Fastify, beside
// - what a bare node:http server answers, that reads the same bodies: the load's own cost;
// - the library's own loop of as many callers with the same decode, while such a bare server answers as many requests;
// - a server as it is usually written: Fastify, onnxruntime-node and sharp (--onnx FILE, of a network of --model's size).
// Each server is a process of its own, and they alternate. --soak MINUTES instead sends good requests, requests that are
// aborted, garbage, slow ones and bodies that are too large, and watches memory and answers.
//
// Targets: at least 90 % of the library's loop; p99 below three batch times at 80 % load; event loop p99 below 10 ms; 1.3
// times the usual server.
const { fork } = require('node:child_process');

const http = require('node:http');
const { connect } = require('node:net');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { median, spread } = require('./peers');
const { makePhotograph } = require('./photograph');

const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: 'se_resnet20' },
    dtype: { type: 'string', default: 'float32' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '8' },
    connections: { type: 'string', default: '32' },
    idle: { type: 'string', default: '10000' },
    onnx: { type: 'string' },
    soak: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    role: { type: 'string' }, // internal: one of ROLES in this process
  },
});

const PHOTOGRAPH = [500, 375];

/** What runs in a process of its own: gives a function (request, response), or an object with `listen` and `close`. */
const ROLES = {
  bare: async () =>
    listening(
      http.createServer((request, response) => {
        request.resume().on('end', () => response.end('{}'));
      }),
    ),
  handler: async () => {
    const { createInferenceHandler } = require('../..');
    return listening(http.createServer(createInferenceHandler({ net: await loadOurs() })));
  },
  fastify: async () => {
    const app = require('fastify')();
    await app.register(require('../../dist/fastify'), { models: { net: await loadOurs() } });
    await app.listen({ port: 0, host: '127.0.0.1' });
    return app.server.address().port;
  },
  loop: async () => {
    const classifier = await loadOurs();
    const image = await makePhotograph(...PHOTOGRAPH);
    let count = 0;
    const caller = async () => {
      for (;;) {
        await classifier.classify(image, { topK: 5 });
        count++;
      }
    };
    for (let index = 0; index < Number(options.connections); index++) void caller();
    process.on(
      'message',
      ({ question }) => question === 'count' && process.send({ count, at: performance.now() }),
    );
    return 0;
  },
  usual: async () => {
    const { InferenceSession, Tensor } = require('onnxruntime-node');
    const sharp = require('sharp');
    const session = await InferenceSession.create(options.onnx);
    const side = options.model === 'se_resnet50' ? 224 : 32;
    const app = require('fastify')({ bodyLimit: 20e6 });
    app.addContentTypeParser('image/jpeg', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    app.post('/classify', async (request) => {
      const pixels = await sharp(request.body)
        .resize(side, side, { fit: 'fill' })
        .removeAlpha()
        .raw()
        .toBuffer();
      const input = new Float32Array(3 * side * side);
      for (let place = 0; place < side * side; place++)
        for (let channel = 0; channel < 3; channel++)
          input[channel * side * side + place] = pixels[3 * place + channel] / 255;
      const feeds = { [session.inputNames[0]]: new Tensor('float32', input, [1, 3, side, side]) };
      const { data } = (await session.run(feeds))[session.outputNames[0]];
      const total = data.reduce((sum, value) => sum + Math.exp(value), 0);
      return Array.from(data, (value, index) => ({ index, score: Math.exp(value) / total }))
        .sort((left, right) => right.score - left.score)
        .slice(0, 5);
    });
    await app.listen({ port: 0, host: '127.0.0.1' });
    return app.server.address().port;
  },
};

async function loadOurs() {
  const { ImageClassifier, se_resnet50 } = require('../..');
  const { dtype } = options;
  return options.model === 'se_resnet50'
    ? ImageClassifier.load(se_resnet50().eval(), { dtype })
    : ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', dtype });
}

function listening(server) {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
}

/** In the process of a role: says its port, and what it is asked. */
async function play(role) {
  const port = await ROLES[role]();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  process.on('message', ({ question }) => {
    if (question === 'watch') delay.enable();
    if (question === 'delay')
      process.send({ delayP99: delay.percentile(99) / 1e6, rss: process.memoryUsage.rss() });
  });
  process.on('disconnect', () => process.exit(0));
  process.send({ port });
}

class Player {
  static async start(role) {
    const player = new Player();
    player.child = fork(__filename, [...process.argv.slice(2), '--role', role]);
    player.child.on('exit', () => (player.gone = true));
    ({ port: player.port } = await player.next());
    return player;
  }

  next() {
    return new Promise((resolve, reject) => {
      this.child.once('message', resolve);
      this.child.once('exit', (code) => reject(new Error(`it ended with ${code}`)));
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
    player.child.send({ question: 'watch' });
    const eighty = await load(player.port, image, { seconds, rate: 0.8 * full.rate });
    const { delayP99 } = await player.ask('delay');
    return { ...full, p99At80: eighty.p99, delayP99 };
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
    for (let index = 0; index < count; index++) {
      const socket = connect(player.port, '127.0.0.1');
      socket.on('error', () => undefined);
      sockets.push(socket);
      if (index % 200 === 199) await sleep(20);
    }
    await sleep(1000);
    const held = sockets.filter((socket) => socket.readyState === 'open').length;
    return { held, ...(await load(player.port, image, { seconds: 2 })) };
  } finally {
    for (const socket of sockets) socket.destroy();
    player.stop();
  }
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/serve.js [--model se_resnet20|se_resnet50] [--dtype float32] [--rounds 3] [--seconds 8] [--connections 32] [--idle 10000] [--onnx FILE] [--json] | --soak MINUTES',
    );
    return;
  }
  const image = await makePhotograph(...PHOTOGRAPH);
  if (options.soak !== undefined) return soak(image, 60 * Number(options.soak));
  const seconds = Number(options.seconds);
  const usual = reasonAgainstUsual();
  const runs = { bare: [], handler: [], fastify: [], loop: [], ...(usual === null ? { usual: [] } : {}) };
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const role of Object.keys(runs)) {
      if (role === 'loop') runs.loop.push(await measureLoop(image, seconds, runs.handler.at(-1).rate));
      else runs[role].push(await measureServer(role, image, seconds));
    }
  }
  const idle = await holdConnections(Number(options.idle), image);
  const shareOf = (role, other) =>
    median(runs[role].map(({ rate }, round) => rate / runs[other][round].rate));
  const summary = {
    ofLoop: { handler: shareOf('handler', 'loop'), fastify: shareOf('fastify', 'loop') },
    ...(usual === null
      ? { ofUsual: { handler: shareOf('handler', 'usual'), fastify: shareOf('fastify', 'usual') } }
      : {}),
    idle,
  };
  if (options.json) return void console.log(JSON.stringify({ summary, runs }, null, 2));
  report(runs, summary, usual);
}

function reasonAgainstUsual() {
  if (options.onnx === undefined) return 'no --onnx FILE (`npm run bench` exports some)';
  try {
    require.resolve('onnxruntime-node');
    return null;
  } catch {
    return 'onnxruntime-node is not installed in scripts/bench (`npm run bench` does it)';
  }
}

function report(runs, { ofLoop, ofUsual, idle }, usual) {
  console.log(
    `${options.model} ${options.dtype}, JPEGs of ${PHOTOGRAPH.join(' x ')}, ${options.connections} connections; medians (range) of ${options.rounds} runs of ${options.seconds} s`,
  );
  const titles = {
    bare: 'bare node:http',
    handler: 'createInferenceHandler',
    fastify: 'senet-torch/fastify',
    loop: 'the loop beside a bare server',
    usual: 'Fastify, onnxruntime-node, sharp',
  };
  console.log(
    `${''.padEnd(34)}${'images a second'.padEnd(26)}${'p50'.padEnd(8)}${'p99'.padEnd(8)}${'p99 at 80 %'.padEnd(13)}loop p99`,
  );
  for (const [role, all] of Object.entries(runs)) {
    const of = (fact, digits = 0) =>
      all[0][fact] === undefined ? '' : median(all.map((run) => run[fact])).toFixed(digits);
    console.log(
      `${titles[role].padEnd(34)}${spread(all.map(({ rate }) => rate)).padEnd(26)}${of('p50').padEnd(8)}${of('p99').padEnd(8)}${of('p99At80').padEnd(13)}${of('delayP99', 1)}`.trimEnd(),
    );
  }
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  console.log(
    `of the loop, at least 90 %: handler ${percent(ofLoop.handler)}, Fastify ${percent(ofLoop.fastify)}`,
  );
  console.log(
    ofUsual === undefined
      ? `the usual server is left out: ${usual}`
      : `beside the usual server, at least 1.3: handler ${ofUsual.handler.toFixed(2)}, Fastify ${ofUsual.fastify.toFixed(2)}`,
  );
  console.log(`${idle.held} idle connections held, ${idle.rate.toFixed(1)} images a second beside them`);
}

/** Everything at once that a server meets, and worse. */
async function soak(image, seconds) {
  const player = await Player.start('handler');
  const until = Date.now() + 1000 * seconds;
  const counts = { good: 0, aborted: 0, garbage: 0, slow: 0, large: 0, wrong: 0, unanswered: 0 };
  const send = (body, { abortAfter, pause } = {}) =>
    new Promise((resolve) => {
      const request = http.request(
        {
          host: '127.0.0.1',
          port: player.port,
          path: '/classify',
          method: 'POST',
          headers: { 'content-type': 'image/jpeg' },
        },
        (response) =>
          response
            .resume()
            .on('end', () => resolve(response.statusCode))
            .on('error', () => resolve('cut')),
      );
      request.on('error', () => resolve('error'));
      request.setTimeout(40_000, () => request.destroy(resolve('unanswered')));
      if (abortAfter !== undefined) setTimeout(() => request.destroy(), abortAfter);
      if (pause === undefined) request.end(body);
      else {
        request.write(body.subarray(0, 1000));
        setTimeout(() => request.end(body.subarray(1000)), pause);
      }
    });
  const expect = (kind, right) => (status) => {
    counts[kind]++;
    if (status === 'unanswered') counts.unanswered++;
    else if (!right.includes(status)) counts.wrong++;
  };
  const forEver = async (work) => {
    while (Date.now() < until && !player.gone) await work();
  };
  const large = Buffer.alloc(25e6);
  const garbage = () =>
    Buffer.concat([image.subarray(0, Math.random() * 500), Buffer.from('garbage'.repeat(50))]);
  const memory = [];
  const watch = (async () => {
    while (Date.now() < until && !player.gone) {
      memory.push((await player.ask('delay')).rss / 2 ** 20);
      await sleep(Math.min(5000, 200 * seconds));
    }
  })();
  await Promise.all([
    ...Array.from({ length: 12 }, () => forEver(async () => expect('good', [200])(await send(image)))),
    ...Array.from({ length: 4 }, () =>
      forEver(async () =>
        expect('aborted', [200, 'error', 'cut'])(await send(image, { abortAfter: 30 * Math.random() })),
      ),
    ),
    ...Array.from({ length: 2 }, () =>
      forEver(async () => expect('garbage', [400, 413])(await send(garbage()))),
    ),
    ...Array.from({ length: 4 }, () =>
      forEver(async () => expect('slow', [200])(await send(image, { pause: 2000 * Math.random() }))),
    ),
    forEver(async () => {
      expect('large', [413, 'error', 'cut'])(await send(large));
      await sleep(200);
    }),
    watch,
  ]);
  const text = await (await fetch(`http://127.0.0.1:${player.port}/metrics`)).text();
  player.stop();
  const running = /^senet_requests_running (\d+)$/m.exec(text)?.[1];
  const third = (part) => median(memory.slice((part * memory.length) / 3, ((part + 1) * memory.length) / 3));
  console.log(JSON.stringify(counts));
  console.log(
    `memory: ${third(0).toFixed(0)} MB in the first third, ${third(1).toFixed(0)}, ${third(2).toFixed(0)} in the last; ${running - 1} requests left over; crashed: ${player.gone ?? false}`,
  );
  process.exitCode = counts.unanswered + counts.wrong > 0 || player.gone ? 1 : 0;
}

(options.role === undefined ? main() : play(options.role)).catch((error) => {
  console.error(error);
  process.exit(1);
});
