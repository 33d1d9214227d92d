/** `POST /classify`: every way to bring images, what is answered, addresses that are not asked, limits, and ends. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { expect } from 'chai';

import {
  createInferenceHandler,
  isSenetError,
  type AccessRecord,
  type ImageClassifier,
  type InferenceHandler,
} from '../../lib';
import { makeError } from '../../lib/errors';
import { isPrivateAddress } from '../../lib/serve/fetch-image';
import { expectThrow } from '../support/errors';
import { ask, BAG, form, loadBundled, SANDAL, type Answer } from '../support/serving';

const PNG = { 'content-type': 'image/png' };

describe('POST /classify', () => {
  let classifier: ImageClassifier;
  let handler: InferenceHandler;
  let records: AccessRecord[];

  before(async () => {
    classifier = await loadBundled();
    handler = createInferenceHandler(
      { net: classifier },
      { onRequest: (record) => void records.push(record) },
    );
  });
  beforeEach(() => (records = []));
  after(() => handler.close());

  it('the bytes of an image: labels with scores, the model, and what took how long', async () => {
    const { status, json } = await ask(handler, 'POST', '/classify?topK=2', { headers: PNG, body: BAG });
    expect(status).to.equal(200);
    expect(json).to.deep.include({
      model: 'net',
      version: '1',
      labels: await classifier.classify(BAG, { topK: 2 }),
    });
    expect(json.times).to.have.all.keys('total', 'queue', 'decode', 'preprocess', 'wait', 'network', 'batch');
    expect(json.times.decode).to.be.above(0);
    expect(json.times.total).to.be.at.least(json.times.decode + json.times.network);
    expect(records).to.have.lengthOf(1);
    expect(records[0])
      .to.deep.include({ method: 'POST', route: '/classify', status: 200 })
      .and.not.have.property('code');
  });

  it('without a content type, too', async () => {
    const { json } = await ask(handler, 'POST', '/classify', { body: BAG });
    expect(json.labels[0]).to.deep.include({ label: 'Bag', index: 8 });
    expect(json.labels).to.have.lengthOf(5);
  });

  it('a form, with its fields', async () => {
    const { json } = await ask(handler, 'POST', '/classify', form([BAG], { topK: '1', model: 'net' }));
    expect(json.labels.map(({ label }) => label)).to.deep.equal(['Bag']);
  });

  it('several files: a list, in which a damaged one has its own error', async () => {
    const { status, json } = await ask(
      handler,
      'POST',
      '/classify?topK=1',
      form([BAG, Buffer.from('text'), SANDAL]),
    );
    expect(status).to.equal(200);
    expect(json.results.map(({ name }) => name)).to.deep.equal(['0.png', '1.png', '2.png']);
    expect(json.results[0]?.labels[0]?.label).to.equal('Bag');
    expect(json.results[1]?.error).to.deep.include({ code: 'ERR_SENET_IMAGE', status: 400 });
    expect(json.results[2]?.labels[0]?.label).to.equal('Sandal');
  });

  it('JSON: base64 of either alphabet, a data: URL, a list', async () => {
    const base64 = BAG.toString('base64');
    for (const image of [
      base64,
      BAG.toString('base64url'),
      `data:image/png;base64,${base64}`,
      `${base64.slice(0, 40)}\n${base64.slice(40)}`,
    ]) {
      const { status, json } = await ask(handler, 'POST', '/classify', { body: { image, topK: 1 } });
      expect([status, json.labels[0]?.label]).to.deep.equal([200, 'Bag']);
    }
    const { json } = await ask(handler, 'POST', '/classify', {
      body: { images: [{ base64, name: 'one' }, SANDAL.toString('base64')], topK: 1 },
    });
    expect(json.results.map((one) => [one.name, one.labels[0]?.label])).to.deep.equal([
      ['one', 'Bag'],
      [undefined, 'Sandal'],
    ]);
  });

  it('explain answers what the classifier does, as JSON, and takes its options', async () => {
    const own = await loadBundled();
    const { milliseconds: _, ...expected } = (
      await own.explain(BAG, { cam: 'layercam', target: 3, channels: 1 })
    ).toJSON();
    const explaining = createInferenceHandler({ net: own });
    const { status, json } = await ask(explaining, 'POST', '/explain', {
      body: { image: BAG.toString('base64'), cam: 'layercam', target: 3, channels: 1 },
    });
    expect(status).to.equal(200);
    expect(json).to.deep.include({ model: 'net', ...(JSON.parse(JSON.stringify(expected)) as object) });
    const both = await ask(explaining, 'POST', '/classify?explain=true&topK=1', { headers: PNG, body: BAG });
    expect(both.json.labels).to.have.lengthOf(1);
    expect(both.json.explanation).to.include({ method: 'gradcam', layer: 'layer3.2' });
    const wrong = await ask(explaining, 'POST', '/explain', {
      body: { image: BAG.toString('base64'), cam: 'none' },
    });
    expect(wrong).to.deep.include({ status: 400 });
    // The same in a query and in a form, whose numbers, truth and objects are text.
    const said = 'cam=layercam&target=3&channels=1&topK=2&excitations=true&layer=layer2.2';
    const asked = { cam: 'layercam', target: 3, channels: 1, topK: 2, excitations: true, layer: 'layer2.2' };
    const gates = { 'layer3.2.se': 'mean' };
    const told = (answer: Answer): object => ({ ...answer.json, times: 0, milliseconds: 0 });
    const byJson = await ask(explaining, 'POST', '/explain', {
      body: { image: BAG.toString('base64'), ...asked, gates },
    });
    const inQuery = `${said}&gates=${encodeURIComponent(JSON.stringify(gates))}`;
    const byQuery = await ask(explaining, 'POST', `/explain?${inQuery}`, { headers: PNG, body: BAG });
    const fields = Object.fromEntries(new URLSearchParams(inQuery));
    const byForm = await ask(explaining, 'POST', '/explain', form([BAG], fields));
    expect([byJson.status, byJson.json.labels.length]).to.deep.equal([200, 2]);
    expect(told(byQuery)).to.deep.equal(told(byJson));
    expect(told(byForm)).to.deep.equal(told(byJson));
    const none = await ask(explaining, 'POST', '/explain?cam=false&excitations=false', {
      headers: PNG,
      body: BAG,
    });
    expect(none.json).to.include({ method: null, map: null, excitations: null });
    for (const [query, code] of [
      ['target=-1', 'ERR_SENET_ARG_RANGE'],
      ['target=10', 'ERR_SENET_ARG_RANGE'],
      ['target=1.5', 'ERR_SENET_ARG_RANGE'],
      ['target=9007199254740993', 'ERR_SENET_ARG_RANGE'],
      ['target=1e400', 'ERR_SENET_ARG_RANGE'],
      ['target=NaN', 'ERR_SENET_ARG_TYPE'],
      ['target=', 'ERR_SENET_ARG_TYPE'],
      ['topK=0', 'ERR_SENET_ARG_RANGE'],
      ['channels=65', 'ERR_SENET_ARG_RANGE'],
      ['excitations=1', 'ERR_SENET_ARG_TYPE'],
      ['cam=3', 'ERR_SENET_ARG_RANGE'],
      ['layer=3', 'ERR_SENET_ARG_RANGE'],
      ['gates=mean', 'ERR_SENET_ARG_TYPE'],
      ['gates={', 'ERR_SENET_REQUEST'],
      [`gates={"a":${'['.repeat(500)}`, 'ERR_SENET_REQUEST'],
      ['targets=3', 'ERR_SENET_UNKNOWN_OPTION'],
    ] as const) {
      const { status: refused, json: why } = await ask(explaining, 'POST', `/explain?${query}`, {
        ...{ headers: PNG, body: BAG },
      });
      expect([query, refused, why.code]).to.deep.equal([query, 400, code]);
    }
    await explaining.close();
  });

  it('a queue that is full is 503 with Retry-After, before the body is read', async () => {
    const own = await loadBundled({ batching: { maxQueue: 1 } });
    const small = createInferenceHandler({ net: own });
    const busy = own.classify(SANDAL);
    let read = false;
    const answer = await small.handle({
      ...{ method: 'POST', url: '/classify', headers: PNG },
      body: (async function* () {
        read = true;
        await Promise.resolve();
        yield BAG;
      })(),
    });
    expect([answer.status, answer.headers['retry-after'], answer.code]).to.deep.equal([
      503,
      '1',
      'ERR_SENET_QUEUE_FULL',
    ]);
    expect(read).to.equal(false);
    await busy;
    expect((await ask(small, 'POST', '/classify', { body: BAG })).status).to.equal(200);
    await small.close();
  });

  it('what all bodies take together is bounded', async () => {
    const own = createInferenceHandler({ net: await loadBundled() }, { maxBody: 1000, maxBodies: 1000 });
    let end = (): void => undefined;
    const held = own.handle({
      ...{ method: 'POST', url: '/classify', headers: PNG },
      body: (async function* () {
        yield Buffer.alloc(900);
        await new Promise<void>((resolve) => (end = resolve));
      })(),
    });
    await new Promise((resolve) => setImmediate(resolve));
    const refused = await ask(own, 'POST', '/classify', { body: Buffer.alloc(200) });
    expect([refused.status, refused.json.code]).to.deep.equal([503, 'ERR_SENET_QUEUE_FULL']);
    end();
    expect((await held).code).to.equal('ERR_SENET_IMAGE');
    expect((await ask(own, 'POST', '/classify', { body: BAG.subarray(0, 100) })).json.code).to.equal(
      'ERR_SENET_IMAGE',
    );
    await own.close();
  });

  it('the time is over: 408 while the body comes, 504 while it works; the work is aborted', async () => {
    const own = await loadBundled();
    let aborted = false;
    const classify = (_image: unknown, { signal }: { signal: AbortSignal }): Promise<never> =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true;
          reject(signal.reason as Error);
        });
      });
    const slow = createInferenceHandler({ net: Object.assign(own, { classify }) }, { timeout: 50 });
    const late = await slow.handle({
      ...{ method: 'POST', url: '/classify', headers: PNG },
      body: (async function* () {
        yield BAG.subarray(0, 10);
        await new Promise(() => undefined);
      })(),
    });
    expect([late.status, late.code, late.headers.connection]).to.deep.equal([
      408,
      'ERR_SENET_REQUEST_TIMEOUT',
      'close',
    ]);
    const working = await ask(slow, 'POST', '/classify', { body: BAG });
    expect([working.status, working.json.code, aborted]).to.deep.equal([504, 'ERR_SENET_TIMEOUT', true]);
    await slow.close();
  });

  it('a caller who leaves aborts his work', async () => {
    const caller = new AbortController();
    const answer = ask(handler, 'POST', '/classify', { body: BAG, signal: caller.signal });
    setImmediate(() => caller.abort());
    expect((await answer).json.code).to.be.oneOf(['ERR_SENET_ABORTED', undefined]);
    const gone = new AbortController();
    gone.abort();
    const { status, json } = await ask(handler, 'POST', '/classify', { body: BAG, signal: gone.signal });
    expect([status, json.code]).to.deep.equal([499, 'ERR_SENET_ABORTED']);
    expect(classifier.queue.waiting + classifier.queue.running).to.be.at.most(1);
  });

  it('a fault of the server says nothing of it to the caller, and all of it to the log', async () => {
    const own = await loadBundled();
    const secret = new Error('cannot read /srv/secret');
    const classify = (): Promise<never> => Promise.reject(secret);
    const seen: AccessRecord[] = [];
    const broken = createInferenceHandler(
      { net: Object.assign(own, { classify }) },
      {
        onRequest: (record) => {
          seen.push(record);
          throw new Error('a log that fails');
        },
      },
    );
    const { status, json } = await ask(broken, 'POST', '/classify', { body: BAG });
    expect([status, json.code]).to.deep.equal([500, null]);
    expect(JSON.stringify(json)).not.to.contain('secret');
    expect(seen[0]).to.deep.include({ status: 500, code: null, error: secret });
    await broken.close();
  });

  it('among several images too: the log has the fault of one, and a device that is lost is everybody’s', async () => {
    const own = await loadBundled();
    const classify = own.classify.bind(own) as (image: Uint8Array, options: object) => Promise<unknown>;
    const fault = new Error('cannot read /srv/secret');
    let failure: Error = fault;
    const seen: AccessRecord[] = [];
    const broken = createInferenceHandler(
      {
        net: Object.assign(own, {
          classify: (image: Uint8Array, options: object) =>
            Buffer.from(image).equals(BAG) ? classify(image, options) : Promise.reject(failure),
        }),
      },
      { onRequest: (record) => void seen.push(record) },
    );
    const sent = form([BAG, SANDAL]);
    const { status, json } = await ask(broken, 'POST', '/classify', sent);
    expect([status, json.results[1]?.error]).to.deep.equal([
      200,
      { code: null, status: 500, message: 'the server failed' },
    ]);
    expect(seen[0]).to.deep.include({ status: 200, error: fault });
    expect(seen[0]).not.to.have.property('code');
    failure = makeError('ERR_SENET_CUDA_LOST', 'the device is lost');
    const lost = await ask(broken, 'POST', '/classify', sent);
    expect([lost.status, lost.json.code]).to.deep.equal([503, 'ERR_SENET_CUDA_LOST']);
    expect((await ask(broken, 'GET', '/v2/health/live')).status).to.equal(503);
    await broken.close();
  });

  it('what is no classifier, name or option is refused when it is made', () => {
    expectThrow(
      () => createInferenceHandler({ net: 7 as never }),
      'ERR_SENET_ARG_TYPE',
      /net: expected an ImageClassifier/,
    );
    expectThrow(() => createInferenceHandler(null as never), 'ERR_SENET_ARG_TYPE');
    expectThrow(() => createInferenceHandler({ 'a/b': classifier }), 'ERR_SENET_ARG_RANGE', /without '\/'/);
    expectThrow(
      () => createInferenceHandler({}, { maxbody: 3 } as object),
      'ERR_SENET_UNKNOWN_OPTION',
      /maxBody/,
    );
    expectThrow(
      () => createInferenceHandler({}, { urls: { privateAddresses: true } }),
      'ERR_SENET_ARG_MISSING',
    );
    for (const host of ['localhost:9000', 'http://localhost', '', 'a b', 'user@localhost', 'localhost/x']) {
      expectThrow(
        () => createInferenceHandler({}, { urls: { hosts: [host] } }),
        'ERR_SENET_ARG_RANGE',
        /hosts: expected hosts such as images\.example\.org, without a port/,
      );
    }
    expectThrow(() => createInferenceHandler({}, { timeout: NaN }), 'ERR_SENET_ARG_RANGE');
  });

  describe('addresses', () => {
    let target: Server;
    let port: number;
    let answers: Record<string, { status?: number; headers?: Record<string, string>; body?: Buffer }>;

    before(async () => {
      target = createServer((request, response) => {
        const { status = 200, headers = {}, body = BAG } = answers[request.url ?? ''] ?? { status: 404 };
        response.writeHead(status, headers).end(body);
      });
      await new Promise<void>((resolve) => target.listen(0, '127.0.0.1', resolve));
      ({ port } = target.address() as AddressInfo);
    });
    beforeEach(() => (answers = { '/bag.png': {} }));
    after(() => new Promise((resolve) => target.close(resolve)));

    const codeOf = async (options: object, url: string): Promise<string> => {
      const own = createInferenceHandler({ net: classifier }, { maxBody: 20_000, ...options });
      const { json } = await ask(own, 'POST', '/classify', { body: { url, topK: 1 } });
      return json.code ?? json.labels[0]?.label ?? '';
    };

    it('are fetched where the operator allowed the host and its private address', async () => {
      const urls = { hosts: ['127.0.0.1', 'LocalHost'], privateAddresses: true };
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/bag.png`)).to.equal('Bag');
      expect(await codeOf({ urls }, `http://localhost:${port}/bag.png`)).to.equal('Bag');
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/absent.png`)).to.equal('ERR_SENET_DOWNLOAD');
      answers['/large'] = { body: Buffer.alloc(30_000) };
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/large`)).to.equal('ERR_SENET_REQUEST_SIZE');
      answers['/moved'] = { status: 302, headers: { location: '/bag.png' } };
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/moved`)).to.equal('Bag');
      answers['/round'] = { status: 302, headers: { location: '/round' } };
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/round`)).to.equal('ERR_SENET_DOWNLOAD');
    });

    it('are looked at again when one leads to another', async () => {
      answers['/away'] = { status: 302, headers: { location: 'http://169.254.169.254/latest/meta-data' } };
      answers['/file'] = { status: 302, headers: { location: 'file:///etc/passwd' } };
      const urls = { hosts: ['127.0.0.1'], privateAddresses: true };
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/away`)).to.equal('ERR_SENET_FORBIDDEN');
      expect(await codeOf({ urls }, `http://127.0.0.1:${port}/file`)).to.equal('ERR_SENET_ARG_RANGE');
    });

    it('of private networks are refused, by number, by another way to write it, and by name', async () => {
      for (const [url, code] of [
        [`http://127.0.0.1:80/bag.png`, 'ERR_SENET_FORBIDDEN'],
        ['http://0x7f.1/', 'ERR_SENET_FORBIDDEN'],
        ['http://2130706433/', 'ERR_SENET_FORBIDDEN'],
        ['http://[::1]/', 'ERR_SENET_FORBIDDEN'],
        ['http://[::ffff:10.0.0.1]/', 'ERR_SENET_FORBIDDEN'],
        ['http://localhost/bag.png', 'ERR_SENET_FORBIDDEN'],
        [`http://localhost:${port}/bag.png`, 'ERR_SENET_FORBIDDEN'],
        ['http://user:word@example.org/', 'ERR_SENET_FORBIDDEN'],
        ['file:///etc/passwd', 'ERR_SENET_ARG_RANGE'],
        ['ftp://example.org/', 'ERR_SENET_ARG_RANGE'],
        ['no address', 'ERR_SENET_ARG_RANGE'],
      ] as const)
        expect(await codeOf({ urls: true }, url), url).to.equal(code);
      // A listed name does not make its private address one that is asked.
      expect(await codeOf({ urls: { hosts: ['localhost'] } }, `http://localhost:${port}/bag.png`)).to.equal(
        'ERR_SENET_FORBIDDEN',
      );
    });

    it('are private wherever the public internet is not', () => {
      const kept =
        '10.1.2.3 100.64.0.1 127.9.9.9 169.254.169.254 172.31.0.1 192.168.1.1 198.18.0.1 224.0.0.1 255.255.255.255 0.0.0.0 :: ::1 ::ffff:8.8.8.8 64:ff9b::1 fc00::1 fe80::1 ff02::1 2001:db8::1 2002:a00::1 nonsense';
      for (const address of kept.split(' ')) expect(isPrivateAddress(address), address).to.equal(true);
      for (const address of ['8.8.8.8', '172.32.0.1', '2606:4700::1111', '2a00:1450::1'])
        expect(isPrivateAddress(address), address).to.equal(false);
    });
  });

  it('every error of the library has a status, and what is none is 500', async () => {
    const { ERROR_CODES, httpStatusOf } = await Promise.resolve(
      require('../../lib') as typeof import('../../lib'),
    );
    for (const [code, { status }] of Object.entries(ERROR_CODES)) expect(status, code).to.be.within(400, 599);
    expect(httpStatusOf(new Error('other'))).to.equal(500);
    expect(httpStatusOf(undefined)).to.equal(500);
    const error: unknown = await classifier.classify('absent.png').catch((one: unknown) => one);
    expect([isSenetError(error), httpStatusOf(error)]).to.deep.equal([true, 404]);
  });
});
