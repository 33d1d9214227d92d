/**
 * The server as others meet it: behind node:http and Express' `next`, as a plugin of Fastify, as the web's fetch, and as
 * `senet-torch serve`, a process with options, signals and workers.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { connect, type AddressInfo } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import * as grpc from '@grpc/grpc-js';
import { expect } from 'chai';
import fastify from 'fastify';
import sharp from 'sharp';

import { createInferenceHandler, type InferenceHandler } from '../../lib';
import inference from '../../lib/fastify';
import { CLI } from '../support/built';
import { makeCertificate } from '../support/certificate';
import { grpcClient, PROTO, SERVICE, statusOf } from '../support/grpc';
import { ASSETS, BAG, form, loadBundled, type AnswerJson } from '../support/serving';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const ROOT = path.join(__dirname, '..', '..');
const WEIGHTS = path.join(ASSETS, 'weights', 'se_resnet20_fashion_mnist.safetensors');
const PNG = { 'content-type': 'image/png' };

async function post(
  url: string,
  body: Uint8Array,
  headers: Record<string, string> = PNG,
): Promise<[number, AnswerJson]> {
  const answer = await fetch(url, { method: 'POST', headers, body: new Blob([new Uint8Array(body)]) });
  return [answer.status, (await answer.json()) as AnswerJson];
}

async function get(url: string, headers: Record<string, string> = {}): Promise<[number, string, Headers]> {
  const answer = await fetch(url, { headers });
  return [answer.status, await answer.text(), answer.headers];
}

/** Sends what is no whole request, and gives what comes back until the connection ends. */
function sendRaw(port: number, text: string | Buffer, hold = 0): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let said = '';
    socket.on('data', (data: Buffer) => (said += data.toString()));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(said));
    socket.write(text);
    if (hold > 0) setTimeout(() => socket.destroy(), hold);
  });
}

async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (await holds()) return;
    await delay(50);
  }
  throw new Error(`it never came that ${what}`);
}

/** How often which status, or error, comes for a body that is too large. */
async function answersToLarge(url: string, times: number): Promise<[unknown, number][]> {
  const large = Buffer.alloc(25e6);
  const seen = new Map<unknown, number>();
  for (let time = 0; time < times; time++) {
    const status = await new Promise((resolve) => {
      const request = http.request(`${url}/classify`, { method: 'POST', headers: PNG }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode));
      });
      request.on('error', ({ message }) => resolve(message)).end(large);
    });
    seen.set(status, (seen.get(status) ?? 0) + 1);
  }
  return [...seen];
}

describe('the server behind node:http', () => {
  let handler: InferenceHandler;
  let server: http.Server;
  let port: number;
  let url: string;

  before(async () => {
    handler = createInferenceHandler({ net: await loadBundled() }, { maxBody: 100_000, timeout: 2000 });
    server = http.createServer(handler);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as AddressInfo);
    url = `http://127.0.0.1:${port}`;
  });
  after(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await handler.close();
  });

  it('answers forms and raw images over a connection that stays', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (const { headers, body } of [form([BAG]), { headers: PNG, body: BAG }, form([BAG])]) {
      const status = await new Promise((resolve, reject) => {
        const request = http.request(`${url}/classify`, { method: 'POST', agent, headers }, (response) => {
          response.resume().on('end', () => resolve(response.statusCode));
        });
        request.on('error', reject).end(body);
      });
      expect(status).to.equal(200);
    }
    agent.destroy();
  });

  it('a body that is too large is told so, though it goes on, and the connection ends', async () => {
    const head =
      'POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n';
    const chunk = `8000\r\n${'x'.repeat(0x8000)}\r\n`;
    const said = await sendRaw(port, head + chunk.repeat(5));
    expect(said)
      .to.match(/^HTTP\/1.1 413 /)
      .and.to.match(/connection: close/i)
      .and.contain('ERR_SENET_REQUEST_SIZE');
  });

  it('whoever sends too large a body reads why, and not that the connection was reset', async () => {
    expect(await answersToLarge(url, 40)).to.deep.equal([[413, 40]]);
    const [status] = await post(`${url}/classify?topK=1`, BAG);
    expect(status).to.equal(200);
  });

  it('a body that does not come is 408, one that ends with its connection is no crash', async () => {
    const head =
      'POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 5000\r\n\r\n';
    expect(await sendRaw(port, `${head}abc`))
      .to.match(/^HTTP\/1.1 408 /)
      .and.contain('ERR_SENET_REQUEST_TIMEOUT');
    expect(await sendRaw(port, `${head}abc`, 50)).to.equal('');
    const [status, json] = await post(`${url}/classify?topK=1`, BAG);
    expect([status, json.labels[0]?.label]).to.deep.equal([200, 'Bag']);
    await until(
      async () => /^senet_requests_running 1$/m.test((await get(`${url}/metrics`))[1]),
      'nothing else runs',
    );
    expect((await get(`${url}/metrics`))[1]).to.match(/^senet_body_bytes 0$/m);
  });

  it('headers that are too large, and what is no HTTP, are refused by node:http itself', async () => {
    expect(await sendRaw(port, `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`)).to.match(
      /^HTTP\/1.1 431 /,
    );
    expect(await sendRaw(port, '\x16\x03\x01\r\n\r\n')).to.match(/^HTTP\/1.1 400 /);
  });

  it('has a page that tries its paths, and the document that it reads', async () => {
    const [status, page, headers] = await get(`${url}/docs`);
    expect([status, page.includes('openapi.json')]).to.deep.equal([200, true]);
    expect(headers.get('content-security-policy')).to.contain("default-src 'none'");
    const [, text] = await get(`${url}/openapi.json`);
    const api = JSON.parse(text) as {
      openapi: string;
      paths: Record<string, object>;
      components: { schemas: object };
    };
    expect(api.openapi).to.equal('3.1.0');
    for (const { method, path: route } of handler.routes) {
      if (
        ['/', '/docs', '/openapi.json'].includes(route) ||
        (method === 'GET' && route === '/v2/repository/index')
      )
        continue;
      const written = route.replace(/:(\w+)/g, '{$1}');
      expect(api.paths[written], `${method} ${route}`).to.have.property(method.toLowerCase());
    }
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g))
      expect(api.components.schemas).to.have.property(name as string);
  });

  it("leaves what is not its own to the next handler, and stands below a path as Express' routes do", async () => {
    const outer = http.createServer((request, response) => {
      request.url = request.url?.replace(/^\/vision(?=\/|$)/, '') ?? '/';
      handler(request, response, () => response.writeHead(418).end());
    });
    await new Promise<void>((resolve) => outer.listen(0, '127.0.0.1', resolve));
    const base = `http://127.0.0.1:${(outer.address() as AddressInfo).port}`;
    expect((await get(`${base}/vision/v2/health/live`))[0]).to.equal(200);
    expect((await get(`${base}/other`))[0]).to.equal(418);
    outer.closeAllConnections();
    await new Promise((resolve) => outer.close(resolve));
  });

  it('takes a body that a framework has parsed', async () => {
    const outer = http.createServer((request, response) => {
      const parts: Buffer[] = [];
      request
        .on('data', (part: Buffer) => parts.push(part))
        .on('end', () => {
          Object.assign(request, { body: JSON.parse(Buffer.concat(parts).toString()) as object });
          setImmediate(() => handler(request, response));
        });
    });
    await new Promise<void>((resolve) => outer.listen(0, '127.0.0.1', resolve));
    const { port: there } = outer.address() as AddressInfo;
    const body = Buffer.from(JSON.stringify({ image: BAG.toString('base64'), topK: 1 }));
    const [status, json] = await post(`http://127.0.0.1:${there}/classify`, body, {
      'content-type': 'application/json',
    });
    expect([status, json.labels[0]?.label]).to.deep.equal([200, 'Bag']);
    outer.closeAllConnections();
    await new Promise((resolve) => outer.close(resolve));
  });

  it("answers the web's Request", async () => {
    const request = new Request('http://x/classify?topK=1', {
      method: 'POST',
      headers: PNG,
      body: new Blob([new Uint8Array(BAG)]),
    });
    const answer = await handler.fetch(request);
    expect(answer.status).to.equal(200);
    expect(((await answer.json()) as AnswerJson).labels[0]?.label).to.equal('Bag');
    expect(
      (await handler.fetch(new Request('http://x/v2/health/ready', { method: 'HEAD' }))).status,
    ).to.equal(200);
  });
});

describe('the plugin of Fastify', () => {
  it('has every path below its prefix, leaves other routes their parsers, and closes with the application', async () => {
    const app = fastify();
    const classifier = await loadBundled();
    app.post('/echo', async (request) => Promise.resolve(request.body));
    await app.register(inference, { models: { net: classifier }, prefix: '/vision', maxBody: 50_000 });
    const { headers, body } = form([BAG], { topK: '1' });
    const classified = await app.inject({ method: 'POST', url: '/vision/classify', headers, payload: body });
    expect([classified.statusCode, classified.json<AnswerJson>().labels[0]?.label]).to.deep.equal([
      200,
      'Bag',
    ]);
    expect((await app.inject('/vision/v2/health/ready')).json()).to.deep.equal({ ready: true });
    expect((await app.inject('/vision/v2/models/net')).json<AnswerJson>().name).to.equal('net');
    expect((await app.inject('/v2/health/ready')).statusCode).to.equal(404);
    const large = await app.inject({
      method: 'POST',
      url: '/vision/classify',
      payload: Buffer.alloc(60_000),
      headers: PNG,
    });
    expect([large.statusCode, large.json<AnswerJson>().code]).to.deep.equal([413, 'ERR_SENET_REQUEST_SIZE']);
    const echo = await app.inject({ method: 'POST', url: '/echo', payload: { a: 1 } });
    expect(echo.json()).to.deep.equal({ a: 1 });
    expect(app.inference.ready).to.equal(true);
    await app.close();
    expect(await classifier.classify(BAG).catch((error: unknown) => error)).to.include({
      code: 'ERR_SENET_DISPOSED',
    });
  });

  it('stands on a handler that there is, whose maker closes it', async () => {
    const handler = createInferenceHandler({ net: await loadBundled() });
    const app = fastify();
    await app.register(inference, { handler });
    const answer = await app.inject({ method: 'POST', url: '/classify', headers: PNG, payload: BAG });
    expect(answer.statusCode).to.equal(200);
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    expect(await answersToLarge(url, 10)).to.deep.equal([[413, 10]]);
    await app.close();
    expect(
      (await handler.handle({ method: 'POST', url: '/classify', headers: {}, body: [BAG] as never })).status,
    ).to.equal(200);
    await handler.close();
  });
});

describe('senet-torch serve', () => {
  const temporary = new Temporary();
  const children = new Set<ChildProcess>();
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    temporary.cleanUp();
  });

  interface Serving {
    readonly url: string;
    readonly child: ChildProcess;
    readonly out: () => string;
    readonly err: () => string;
    readonly ended: Promise<[code: number | null, signal: string | null]>;
  }

  /** @param detached - in a group of its own */
  function start(
    args: readonly string[],
    environment: Record<string, string> = {},
    detached = false,
  ): Omit<Serving, 'url'> {
    const child = spawn(process.execPath, [CLI, 'serve', '--port', '0', ...args], {
      cwd: ROOT,
      env: { ...process.env, ...environment },
      detached,
    });
    children.add(child);
    let [out, err] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    const ended = new Promise<[number | null, string | null]>((resolve) =>
      child.on('close', (code, signal) => {
        children.delete(child);
        resolve([code, signal]);
      }),
    );
    return { child, out: () => out, err: () => err, ended };
  }

  async function serving(
    args: readonly string[],
    environment: Record<string, string> = {},
    detached = false,
  ): Promise<Serving> {
    const started = start(args, environment, detached);
    const address = (): string | undefined => /listening on (\S+)/.exec(started.out())?.[1];
    await until(() => address() !== undefined || started.child.exitCode !== null, 'it listens');
    const url = address();
    if (url === undefined) throw new Error(`it ended: ${started.err()}`);
    return { ...started, url };
  }

  it('serves the bundled network as se_resnet20, and ends with 0 after SIGTERM, when it has answered', async () => {
    const { url, child, ended, err } = await serving([
      ...['--drain-delay', '300', '--log', 'info', '--max-pixels', '784'],
    ]);
    expect((await get(`${url}/v2/models`))[1]).to.equal('{"models":["se_resnet20"]}');
    expect((await post(`${url}/classify?topK=1`, BAG))[1].labels[0]?.label).to.equal('Bag');
    const large = await sharp(BAG).resize(29, 28).png().toBuffer();
    expect((await post(`${url}/classify`, large))[0]).to.equal(413);
    const [status, page] = await get(url);
    expect([status, page.startsWith('<!')]).to.deep.equal([200, true]);
    const missing = await get(`${url}/missing`);
    expect([missing[0], JSON.parse(missing[1])]).to.deep.equal([
      404,
      { error: 'there is nothing at /missing', code: 'ERR_SENET_NO_ROUTE' },
    ]);
    expect((await get(`${url}/classify`))[0]).to.equal(405);
    const whole = await get(`${url}/openapi.json`);
    const head = await fetch(`${url}/openapi.json`, { method: 'HEAD' });
    expect([head.status, head.headers.get('content-length'), await head.text()]).to.deep.equal([
      ...[200, String(Buffer.byteLength(whole[1])), ''],
    ]);
    const media = await post(`${url}/classify`, BAG, { 'content-type': ';;;' });
    expect([media[0], media[1].code]).to.deep.equal([415, 'ERR_SENET_MEDIA_TYPE']);
    const broken = await get(`${url}/v2/models/%ff`);
    expect([broken[0], (JSON.parse(broken[1]) as AnswerJson).code]).to.deep.equal([400, 'ERR_SENET_REQUEST']);
    const [wrong, , allowed] = await get(`${url}/v2/models/se_resnet20/infer`);
    expect([wrong, allowed.get('allow')]).to.deep.equal([405, 'POST']);
    // What is nowhere counts too.
    expect((await get(`${url}/metrics`))[1]).to.match(
      /^senet_requests_total\{route="none",status="404"\} 1$/m,
    );
    const { port } = new URL(url);
    expect(
      await sendRaw(Number(port), `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`),
    ).to.match(/^HTTP\/1.1 431 [^]*ERR_SENET_REQUEST/);
    child.kill('SIGTERM');
    await until(async () => (await get(`${url}/v2/health/ready`))[0] === 503, 'it is not ready');
    expect((await post(`${url}/classify?topK=1`, BAG))[0]).to.equal(200);
    expect(await ended).to.deep.equal([0, null]);
    expect(err()).to.equal('');
  });

  it('several networks by a file: versions, one that is loaded later, a key, a limit, origins', async () => {
    copyFileSync(WEIGHTS, temporary.path('mine.safetensors'));
    writeFileSync(
      temporary.path('serve.json'),
      JSON.stringify({
        models: {
          fashion: { weights: 'mine.safetensors' },
          'fashion@2': {
            weights: './mine.safetensors',
            labels: Array.from({ length: 10 }, (_, i) => `label ${i}`),
          },
          later: { weights: 'fashion_mnist', load: false },
        },
        apiKey: ['a-secret-key'],
        cors: ['https://example.org'],
        rateLimit: 12,
        maxPixels: 28 * 28,
      }),
    );
    const { url, child, ended } = await serving(['--config', temporary.path('serve.json')]);
    expect((await get(`${url}/v2/models`))[0]).to.equal(401);
    expect((await get(`${url}/v2/health/ready`))[0]).to.equal(200);
    const key = { ...PNG, authorization: 'Bearer a-secret-key' };
    expect(
      (await post(`${url}/classify?model=fashion`, BAG, { ...PNG, authorization: 'Bearer another-key' }))[0],
    ).to.equal(401);
    const [, second] = await post(`${url}/classify?model=fashion`, BAG, key);
    expect([second.version, second.labels[0]?.label]).to.deep.equal(['2', 'label 8']);
    const [, first] = await post(`${url}/classify?model=fashion&version=1`, BAG, {
      ...PNG,
      'x-api-key': 'a-secret-key',
    });
    expect(first.labels[0]?.label).to.equal('Bag');
    expect((await post(`${url}/classify?model=later`, BAG, key))[0]).to.equal(503);
    const large = await sharp(BAG).resize(29, 28).png().toBuffer();
    const [tooLarge, why] = await post(`${url}/classify?model=fashion&version=1`, large, key);
    expect([tooLarge, why.code]).to.deep.equal([413, 'ERR_SENET_IMAGE_SIZE']);
    expect((await post(`${url}/v2/repository/models/later/load`, Buffer.alloc(0), key))[0]).to.equal(200);
    expect((await post(`${url}/classify?model=later`, BAG, key))[0]).to.equal(200);
    const [, , headers] = await get(`${url}/v2/models`, { ...key, origin: 'https://example.org' });
    expect(headers.get('access-control-allow-origin')).to.equal('https://example.org');
    let limited: [number, string, Headers] | undefined;
    for (let count = 0; count < 12; count++) limited = await get(`${url}/v2/models`, key);
    // As long as the minute lasts.
    expect(Number(limited?.[2].get('retry-after'))).to.be.within(2, 60);
    expect([limited?.[0], (JSON.parse(limited?.[1] ?? '') as AnswerJson).code]).to.deep.equal([
      429,
      'ERR_SENET_RATE_LIMIT',
    ]);
    child.kill('SIGINT');
    expect(await ended).to.deep.equal([0, null]);
  });

  it('a folder that is watched: files come, change and go while it serves', async () => {
    const folder = temporary.path('models');
    execFileSync('mkdir', [folder]);
    copyFileSync(WEIGHTS, path.join(folder, 'one.safetensors'));
    writeFileSync(path.join(folder, 'broken.safetensors'), 'no weights');
    writeFileSync(path.join(folder, 'notes.txt'), 'no model');
    const { url, child, ended } = await serving(['--watch', folder]);
    const states = async (): Promise<Record<string, string>> => {
      const answer = await fetch(`${url}/v2/repository/index`, { method: 'POST' });
      const all = (await answer.json()) as { name: string; state: string }[];
      return Object.fromEntries(all.map(({ name, state }) => [name, state]));
    };
    expect(await states()).to.deep.equal({ broken: 'UNAVAILABLE', one: 'READY' });
    copyFileSync(WEIGHTS, path.join(folder, 'part'));
    renameSync(path.join(folder, 'part'), path.join(folder, 'two.safetensors'));
    await until(async () => (await states()).two === 'READY', 'the second model is loaded');
    copyFileSync(WEIGHTS, path.join(folder, 'broken.safetensors'));
    await until(async () => (await states()).broken === 'READY', 'the mended model is loaded');
    rmSync(path.join(folder, 'one.safetensors'));
    await until(async () => !('one' in (await states())), 'the removed model is gone');
    expect((await post(`${url}/classify?model=two`, BAG))[0]).to.equal(200);
    child.kill('SIGTERM');
    expect(await ended).to.deep.equal([0, null]);
  });

  it('workers share a port, what they count, and what is loaded; one that dies is started anew', async function () {
    this.timeout(120_000);
    writeFileSync(
      temporary.path('workers.json'),
      '{"models":{"net":{"weights":"fashion_mnist"},"later":{"weights":"fashion_mnist","load":false}}}',
    );
    const { url, child, ended, err } = await serving([
      '--workers',
      '2',
      '--config',
      temporary.path('workers.json'),
    ]);
    const fresh = { ...PNG, connection: 'close' };
    for (let count = 0; count < 6; count++)
      expect((await post(`${url}/classify?model=net`, BAG, fresh))[0]).to.equal(200);
    const [, text] = await get(`${url}/metrics`);
    const counted = [...text.matchAll(/^senet_images_total\{.*worker="(\d+)"\} (\d+)$/gm)];
    expect(counted.map(([, , count]) => Number(count)).reduce((sum, count) => sum + count, 0)).to.equal(6);
    expect(
      new Set([...text.matchAll(/^senet_ready\{worker="(\d+)"\} 1$/gm)].map(([, worker]) => worker)).size,
    ).to.equal(2);
    expect((await post(`${url}/v2/repository/models/later/load`, Buffer.alloc(0), fresh))[0]).to.equal(200);
    await until(
      async () =>
        [...(await get(`${url}/metrics`))[1].matchAll(/^senet_model_ready\{model="later".*\} 1$/gm)]
          .length === 2,
      'both have it',
    );
    const [pid] = execFileSync('pgrep', ['-P', String(child.pid)], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map(Number);
    process.kill(pid as number, 'SIGKILL');
    const ready = async (): Promise<number> => {
      // A connection of the one that died ends with it.
      const [, said] = await get(`${url}/metrics`, { connection: 'close' }).catch(() => [0, ''] as const);
      return [...said.matchAll(/^senet_ready\{worker="\d+"\} 1$/gm)].length;
    };
    await until(async () => /started anew/.test(err()) && (await ready()) === 2, 'there are two again');
    child.kill('SIGTERM');
    expect(await ended).to.deep.equal([0, null]);
  });

  it('ends though callers hold connections: a silent one, half a request, one that stays', async () => {
    const { url, child, ended } = await serving(['--delay', '700', '--name', 'n'.repeat(150)]);
    // Longer than what Fastify takes of its own.
    expect((await get(`${url}/v2/models/${'n'.repeat(150)}/ready`))[0]).to.equal(200);
    const port = Number(new URL(url).port);
    const silent = connect(port, '127.0.0.1');
    const half = connect(port, '127.0.0.1');
    const agent = new http.Agent({ keepAlive: true });
    for (const socket of [silent, half]) socket.on('error', () => undefined);
    half.write('POST /classify HTTP/1.1\r\nhost: x\r\n');
    const answered = new Promise<number | undefined>((resolve, reject) => {
      const request = http.request(`${url}/classify`, { method: 'POST', headers: PNG, agent }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode));
      });
      request.on('error', reject).end(BAG);
    });
    await until(
      async () => /^senet_queue_waiting\{[^}]*\} 1$/m.test((await get(`${url}/metrics`))[1]),
      'it has work',
    );
    const told = Date.now();
    child.kill('SIGTERM');
    expect(await answered).to.equal(200);
    expect(await ended).to.deep.equal([0, null]);
    expect(Date.now() - told).to.be.below(10_000);
    for (const socket of [silent, half]) socket.destroy();
    agent.destroy();
  });

  it('what is told twice at once, as npx and terminals do, is told once; of several processes too', async function () {
    this.timeout(120_000);
    for (const workers of ['1', '2']) {
      const { url, child, ended } = await serving(['--delay', '1000', '--workers', workers], {}, true);
      const answer = post(`${url}/classify?topK=1`, BAG, { ...PNG, connection: 'close' });
      await delay(500);
      // A terminal's Ctrl-C goes to all of its processes; npx hands it on.
      process.kill(-(child.pid as number), 'SIGINT');
      child.kill('SIGINT');
      expect((await answer)[0]).to.equal(200);
      expect(await ended).to.deep.equal([0, null]);
    }
  });

  it('ends with 0 where it is told to while it starts, and with its error where a worker cannot start', async function () {
    this.timeout(120_000);
    const folder = temporary.path('many');
    execFileSync('mkdir', [folder]);
    for (let file = 0; file < 200; file++) copyFileSync(WEIGHTS, path.join(folder, `net${file}.safetensors`));
    const early = start(['--watch', folder, '--log', 'info']);
    await until(() => /the model was loaded/.test(early.out()), 'it loads');
    early.child.kill('SIGTERM');
    expect(await early.ended).to.deep.equal([0, null]);
    expect(early.out()).not.to.match(/net199|listening on/);
    expect(early.err()).to.equal('');
    const failing = start(['--workers', '2', '--weights', temporary.path('none.safetensors')]);
    expect(await failing.ended).to.deep.equal([1, null]);
    expect(failing.err()).to.match(/none\.safetensors.*ERR_SENET_FILE_NOT_FOUND/);
  });

  it('HTTPS and gRPC by files, with a key, of two workers', async function () {
    const made = makeCertificate(temporary);
    if (made === undefined) skip(this, 'there is no openssl');
    const { cert, key } = made;
    const { url, child, ended, err } = await serving([
      ...['--tls-cert', cert, '--tls-key', key, '--grpc-port', '0', '--workers', '2'],
      ...['--api-key', 'a-secret-key'],
    ]);
    const status = await new Promise((resolve, reject) => {
      https
        .get(`${url}/v2/health/live`, { rejectUnauthorized: false }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
        .on('error', reject);
    });
    expect([url.startsWith('https:'), status]).to.deep.equal([true, 200]);
    const ports = [...err().matchAll(/gRPC on port (\d+)/g)].map(([, port]) => port);
    expect(ports).to.have.length(1);
    const metadata = new grpc.Metadata();
    metadata.set('authorization', 'Bearer a-secret-key');
    for (let count = 0; count < 4; count++) {
      const client = grpcClient(
        PROTO,
        SERVICE,
        `localhost:${ports[0]}`,
        grpc.credentials.createSsl(readFileSync(cert)),
      );
      const input = { name: 'input', datatype: 'BYTES', shape: [1], contents: { bytes_contents: [BAG] } };
      const request = { model_name: 'se_resnet20', inputs: [input] };
      const answer = await client.call('ModelInfer', request, metadata);
      expect(answer).to.include({ model_name: 'se_resnet20' });
      expect((await statusOf(client.call('ModelInfer', request)))[0]).to.equal(grpc.status.UNAUTHENTICATED);
      client.close();
    }
    child.kill('SIGTERM');
    expect(await ended).to.deep.equal([0, null]);
  });

  it('says what is wrong with what it is told, and what is to be installed', async () => {
    writeFileSync(temporary.path('bad.json'), '{"models":{"a":{"weight":"x"}}}');
    writeFileSync(temporary.path('good.json'), '{"models":{"a":{"model":"se_resnet20"}}}');
    // What each model of a file says for itself would be passed over in silence.
    const passedOver = [
      ['--max-queue', '3'],
      ['--delay', '5'],
      ['--dtype', 'bfloat16'],
      ['--device', 'cuda'],
    ].map((option): [string[], RegExp, number] => [
      ['--config', temporary.path('good.json'), ...option],
      new RegExp(`${option[0]} and the models of --config exclude each other.*ERR_SENET_ARG_RANGE`),
      2,
    ]);
    const hidden = temporary.path('hidden.js');
    writeFileSync(
      hidden,
      `const { Module } = require('node:module'); const load = Module._load;
       Module._load = function (name, ...rest) {
         if (name === 'fastify') throw Object.assign(new Error("Cannot find module 'fastify'"), { code: 'MODULE_NOT_FOUND' });
         return load.call(this, name, ...rest);
       };`,
    );
    const cases: [string[], RegExp, number, Record<string, string>?][] = [
      [
        ['--config', temporary.path('bad.json')],
        /models: a: unknown option 'weight'; did you mean 'weights'/,
        2,
      ],
      [['--config', temporary.path('absent.json')], /no such file.*ERR_SENET_FILE_NOT_FOUND/, 1],
      [['--tls-cert', 'x.pem'], /--tls-cert and --tls-key need each other/, 2],
      [['--api-key', 'short'], /at least 8 characters/, 2],
      [['--log', 'loud'], /--log: expected one of/, 2],
      [['--host', 'no.such.invalid'], /no\.such\.invalid:0: getaddrinfo .*ERR_SENET_ARG_RANGE/, 2],
      [['--host', ''], /--host: expected an address.*ERR_SENET_ARG_RANGE/, 2],
      [
        ['--tls-cert', temporary.path('bad.json'), '--tls-key', temporary.path('bad.json')],
        /--tls-cert, --tls-key: no certificate with its key.*ERR_SENET_ARG_RANGE/,
        2,
      ],
      ...passedOver,
      [['--model', 'se_resnet20', '--weights', 'absent.pt'], /absent\.pt/, 1],
      [
        [],
        /needs the package fastify.*npm install fastify.*ERR_SENET_PEER_MISSING/,
        1,
        { NODE_OPTIONS: `--require ${hidden}` },
      ],
    ];
    await Promise.all(
      cases.map(async ([args, words, code, environment]) => {
        const started = start(args, environment);
        expect((await started.ended)[0], args.join(' ')).to.equal(code);
        expect(started.err()).to.match(words);
        expect(started.err().trimEnd().split('\n')).to.have.lengthOf(1);
      }),
    );
  });
});
