'use strict';
// The servers that `npm run bench:serve` measures, each for a process of its own: gives its port, with the options of serve.js.
const { spawn } = require('node:child_process');
const http = require('node:http');
const { connect } = require('node:net');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { makePhotograph } = require('./photograph');

const PHOTOGRAPH = [500, 375];

const ROLES = {
  bare: async () =>
    listening(
      http.createServer((request, response) => {
        request.resume().on('end', () => response.end('{}'));
      }),
    ),
  handler: async (options) => {
    const { createInferenceHandler } = require('../..');
    return listening(http.createServer(createInferenceHandler({ net: await loadOurs(options) })));
  },
  shrink: async (options) => {
    const { createInferenceHandler } = require('../..');
    const net = await loadOurs({ ...options, shrinkOnLoad: true });
    return listening(http.createServer(createInferenceHandler({ net })));
  },
  fastify: async (options) => {
    const app = require('fastify')();
    await app.register(require('../../dist/fastify'), { models: { net: await loadOurs(options) } });
    await app.listen({ port: 0, host: '127.0.0.1' });
    return app.server.address().port;
  },
  loop: async (options) => {
    const classifier = await loadOurs(options);
    const image = await makePhotograph(...PHOTOGRAPH);
    let count = 0;
    const caller = async () => {
      for (;;) {
        await classifier.classify(image, { topK: 5 });
        count++;
      }
    };
    for (let index = 0; index < options.connections; index++) void caller();
    process.on(
      'message',
      ({ question }) => question === 'count' && process.send({ count, at: performance.now() }),
    );
    return 0;
  },
  usual: async (options) => {
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
  /** A child of this process, whose event loop says nothing of it. */
  fastapi: async (options) => {
    const port = await listening(http.createServer()).then(release);
    const server = path.join(__dirname, 'engines', 'fastapi_server.py');
    const args = [server, options.model, options.weights, String(port)];
    const child = spawn(options.python, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    process.on('exit', () => child.kill('SIGKILL'));
    child.on('exit', (code) => process.exit(code ?? 1));
    while (!(await answers(port))) await sleep(100);
    return port;
  },
};

async function loadOurs({ model, dtype, shrinkOnLoad = false }) {
  const { ImageClassifier, se_resnet50 } = require('../..');
  return model === 'se_resnet50'
    ? ImageClassifier.load(se_resnet50().eval(), { dtype, shrinkOnLoad })
    : ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', dtype, shrinkOnLoad });
}

const servers = [];

function listening(server) {
  servers.push(server);
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
}

/** A port that was free, for another process. */
function release(port) {
  return new Promise((resolve) => servers.pop().close(() => resolve(port)));
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}

module.exports = { PHOTOGRAPH, ROLES };
