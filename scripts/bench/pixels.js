#!/usr/bin/env node
'use strict';
// Photographs over HTTP to the labels of se_resnet20, where decoding is nearly all of the work: images a second with 32
// callers and with a lone one, beside sharp + onnxruntime-node written the usual way, and beside sharp that decodes the
// same files whole and does nothing else. Every server is a process of its own and runs alone; the callers are this
// process, on the same processors, as for the peer. Images of 28 x 28 reach the network: the peer shrinks a JPEG
// while it decodes it, as `shrinkOnLoad` does; without that option ours are Pillow's pixels.
//
// Targets: exact at least as many images a second as the peer at 640 x 480 and alone, and at 1920 x 1080 at least 90 %
// of what the decoder alone gives; with shrinkOnLoad 1.25 times the peer.
const { spawn } = require('node:child_process');
const { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const http = require('node:http');
const { availableParallelism, tmpdir } = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { findPython, installOnnxruntime, median, runJson, spread } = require('./peers');
const { makePhotograph } = require('./photograph');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
    callers: { type: 'string', default: '32' },
    python: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
    serve: { type: 'string' }, // internal: an engine, in this process
    folder: { type: 'string' }, // internal: weights and ONNX file
  },
});

const SIDE = 28;
const PAD = 2;
const [MEAN, STD] = [0.286, 0.353];
const PREPROCESSING = {
  ...{ channels: 'grey-repeated', size: [SIDE, SIDE], crop: null, pad: PAD, interpolation: 'bilinear' },
  ...{ mean: [MEAN], std: [STD] },
};
const OWN = 'senet-torch';
const SHRINKING = 'senet-torch, shrinkOnLoad';
const PEER = 'sharp + onnxruntime-node';
const DECODER = 'sharp, decoding alone';

/** What an engine's server answers to the bytes of an image. */
const ENGINES = {
  [OWN]: (folder) => classifying(folder, false),
  [SHRINKING]: (folder) => classifying(folder, true),
  [PEER]: async (folder) => {
    const sharp = require('sharp');
    const { InferenceSession, Tensor } = require('onnxruntime-node');
    const session = await InferenceSession.create(path.join(folder, 'network.onnx'));
    const side = SIDE + 2 * PAD;
    return async (bytes) => {
      const resized = sharp(bytes).resize(SIDE, SIDE, { fit: 'fill', kernel: 'linear' });
      const grey = await resized.greyscale().raw().toBuffer();
      const x = new Float32Array(3 * side * side).fill(-MEAN / STD);
      for (let channel = 0; channel < 3; channel++) {
        for (let at = 0; at < SIDE * SIDE; at++) {
          const row = Math.floor(at / SIDE) + PAD;
          x[(channel * side + row) * side + (at % SIDE) + PAD] = (grey[at] / 255 - MEAN) / STD;
        }
      }
      const { logits } = await session.run({ x: new Tensor('float32', x, [1, 3, side, side]) });
      return [...logits.data].map((score, index) => ({ index, score }));
    };
  },
  [DECODER]: () => {
    const sharp = require('sharp');
    return async (bytes) => (await sharp(bytes).raw().toBuffer()).length;
  },
};

async function classifying(folder, shrinkOnLoad) {
  const { ImageClassifier, se_resnet20 } = require('../..');
  const { load } = require('../..');
  const model = se_resnet20({ initWeights: false });
  model.loadStateDict(await load(path.join(folder, 'weights.pt')));
  const classifier = await ImageClassifier.load(model, { preprocessing: PREPROCESSING, shrinkOnLoad });
  return (bytes) => classifier.classify(bytes, { topK: 3 });
}

/** Prints the server's port. */
async function serve(engine, folder) {
  const answer = await ENGINES[engine](folder);
  const server = http.createServer(async (request, response) => {
    try {
      const parts = [];
      for await (const part of request) parts.push(part);
      response.end(JSON.stringify(await answer(Buffer.concat(parts))));
    } catch (error) {
      response.writeHead(500).end(String(error.stack));
    }
  });
  server.listen(0, '127.0.0.1', () => console.log(server.address().port));
}

/** Posts the image once, on one of the agent's connections. */
function post(port, agent, image) {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': image.length };
    const request = http.request({ host: '127.0.0.1', port, method: 'POST', agent, headers }, (response) => {
      response.resume();
      response.on('end', () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    request.on('error', reject);
    request.end(image);
  });
}

/** Images a second that a server answers to so many callers, and its processor time for each in milliseconds. */
async function measure(engine, folder, image, callers) {
  const args = [__filename, '--serve', engine, '--folder', folder];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const port = await new Promise((resolve, reject) => {
      child.stdout.once('data', (line) => resolve(Number(line)));
      child.once('exit', () => reject(new Error(`${engine} did not start`)));
    });
    const agent = new http.Agent({ keepAlive: true, maxSockets: callers });
    let [running, count] = [true, 0];
    const caller = async () => {
      for (; running; count++) await post(port, agent, image);
    };
    const calls = Promise.all(Array.from({ length: callers }, caller));
    await sleep(1000);
    const [counted, start] = [count, performance.now()];
    await sleep(1000 * Number(options.seconds));
    const rate = (1000 * (count - counted)) / (performance.now() - start);
    running = false;
    await calls;
    agent.destroy();
    return rate;
  } finally {
    child.kill();
  }
}

/** The peer's network, from the same weights; why there is none, if there is none. */
async function prepare(folder) {
  const { randn, save, se_resnet20 } = require('../..');
  const weights = path.join(folder, 'weights.pt');
  await save(se_resnet20(), weights);
  const { absent } = installOnnxruntime();
  if (absent) return absent;
  const python = findPython(options.python);
  if (python === null) return 'no Python with torch, onnx and onnxscript exports its network: --python PATH';
  const side = SIDE + 2 * PAD;
  const batch = { size: 1, input: path.join(folder, 'x.f32'), onnx: path.join(folder, 'network.onnx') };
  writeFileSync(batch.input, Buffer.from(randn([1, 3, side, side]).toTypedArray().buffer));
  const job = { model: 'se_resnet20', weights, side, batches: [batch] };
  try {
    runJson(python.python, [path.join(__dirname, 'engines', 'pytorch.py'), 'export', JSON.stringify(job)]);
    return undefined;
  } catch (error) {
    return `the export to ONNX failed: ${error.reason}`;
  }
}

async function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/pixels.js [--rounds 3] [--seconds 5] [--callers 32] [--python PATH] [--json]\n\n' +
        'Python needs torch, onnx and onnxscript: it exports the network of the peer, onnxruntime-node.',
    );
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  try {
    mkdirSync(folder, { recursive: true });
    const absent = await prepare(folder);
    if (absent) console.error(`${PEER}: absent (${absent})`);
    const engines = Object.keys(ENGINES).filter((name) => name !== PEER || !absent);
    const sharp = require('sharp');
    const photographs = {
      'JPEG, 640 x 480': await makePhotograph(640, 480),
      'JPEG, 1920 x 1080': await makePhotograph(1920, 1080),
      'PNG, 64 x 64': await sharp(await makePhotograph(64, 64))
        .png()
        .toBuffer(),
    };
    const many = Number(options.callers);
    const cases = Object.keys(photographs).flatMap((name) => [
      { name, callers: many },
      ...(name.endsWith('480') ? [{ name, callers: 1 }] : []),
    ]);
    const runs = cases.map((one) => ({
      ...one,
      rates: Object.fromEntries(engines.map((name) => [name, []])),
    }));
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const { name, callers, rates } of runs) {
        for (const engine of engines)
          rates[engine].push(await measure(engine, folder, photographs[name], callers));
      }
    }
    report(runs, many);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(runs, many) {
  if (options.json) {
    console.log(JSON.stringify(runs, null, 2));
    return;
  }
  console.log(
    `images a second, median (range) of ${options.rounds} runs of ${options.seconds} s; ${availableParallelism()} processors`,
  );
  for (const { name, callers, rates } of runs) {
    console.log(`\n${name}, ${callers === 1 ? 'a lone caller' : `${callers} callers`}`);
    const against = (engine, other) =>
      rates[other]?.length > 0
        ? `${median(rates[engine].map((rate, round) => rate / rates[other][round])).toFixed(2)} x ${other}`
        : '';
    for (const [engine, all] of Object.entries(rates)) {
      const ratios =
        engine === OWN || engine === SHRINKING
          ? [against(engine, PEER), ...(callers === many ? [against(engine, DECODER)] : [])]
          : [];
      console.log(
        `${engine.padEnd(28)}${spread(all).padEnd(26)}${ratios.filter((ratio) => ratio !== '').join(', ')}`.trimEnd(),
      );
    }
  }
}

(options.serve === undefined ? main() : serve(options.serve, options.folder)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
