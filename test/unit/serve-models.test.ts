/** Models of a server while requests run: replaced, loaded, unloaded, drained, closed; and what is counted of it. */
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { SpanStatusCode, trace, type Span, type Tracer, type TracerProvider } from '@opentelemetry/api';
import { expect } from 'chai';

import { createInferenceHandler, memory, se_resnet20, type ImageClassifier } from '../../lib';
import { ImageClassifier as Classifier } from '../../lib';
import { expositionText, mergeFamilies } from '../../lib/instruments';
import { watchFolder } from '../../lib/serve/watch-folder';
import { collectGarbage } from '../support/collect';
import { expectRejection } from '../support/errors';
import { ask, BAG, loadBundled, SANDAL } from '../support/serving';
import { Temporary } from '../support/temporary';

const CLASSIFY = '/classify?topK=1';

async function labelled(label: string): Promise<ImageClassifier> {
  return loadBundled({ labels: Array.from({ length: 10 }, () => label) });
}

describe('models of a server', () => {
  it('are replaced while requests run: none fails, the old one is disposed when it has answered', async () => {
    const old = await labelled('old');
    const handler = createInferenceHandler({ net: old });
    const seen: string[] = [];
    let running = true;
    const caller = async (): Promise<void> => {
      while (running) {
        const { status, json } = await ask(handler, 'POST', CLASSIFY, { body: BAG });
        expect(status, JSON.stringify(json)).to.equal(200);
        seen.push(json.labels[0]?.label ?? '');
      }
    };
    const callers = Promise.all(Array.from({ length: 4 }, caller));
    await delay(50);
    await handler.replace('net', await labelled('new'));
    const at = seen.length;
    while (seen.length < at + 20) await delay(5);
    running = false;
    await callers;
    expect(seen[0]).to.equal('old');
    expect(seen.at(-1)).to.equal('new');
    expect(seen.lastIndexOf('old')).to.be.below(seen.length - 4);
    await expectRejection(old.classify(BAG), 'ERR_SENET_DISPOSED');
    await handler.close();
  });

  it('one that does not work does not replace one that does', async () => {
    const handler = createInferenceHandler(
      { net: await loadBundled() },
      {
        repository: { bad: () => Promise.reject(new Error('no file /srv/x')) },
      },
    );
    const broken = await loadBundled();
    Object.assign(broken, { classify: () => Promise.reject(new Error('broken')) });
    const failed: unknown = await handler.replace('net', broken).catch((error: unknown) => error);
    expect((failed as Error).message).to.equal('broken');
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG, headers: {} })).status).to.equal(400); // two names, none said
    expect((await ask(handler, 'POST', `${CLASSIFY}&model=net`, { body: BAG })).status).to.equal(200);
    const { status, json } = await ask(handler, 'POST', '/v2/repository/models/bad/load');
    expect([status, json.code]).to.deep.equal([500, null]);
    expect(JSON.stringify(json)).not.to.contain('/srv');
    expect(handler.models()).to.deep.include({
      name: 'bad',
      version: '1',
      state: 'UNAVAILABLE',
      reason: 'it could not be loaded',
    });
    await handler.close();
  });

  it('come, go and come again under their names, and nothing of them stays', async () => {
    const handler = createInferenceHandler(
      {},
      { repository: { net: () => loadBundled(), 'net@2': () => labelled('two') } },
    );
    await collectGarbage();
    const before = memory();
    await handler.load('net');
    expect(handler.models().map(({ version, state }) => [version, state])).to.deep.equal([
      ['1', 'READY'],
      ['2', 'READY'],
    ]);
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG })).json).to.deep.include({ version: '2' });
    await handler.unload('net', '2');
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG })).json).to.deep.include({ version: '1' });
    await Promise.all([handler.load('net', '1'), handler.load('net', '1'), handler.unload('net', '1')]);
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG })).json.code).to.equal('ERR_SENET_NOT_READY');
    await handler.remove('net@2');
    await handler.remove('net');
    expect(handler.models()).to.deep.equal([]);
    await collectGarbage();
    expect(memory().tensors).to.equal(before.tensors);
    await expectRejection(handler.load('net'), 'ERR_SENET_UNKNOWN_SERVED_MODEL');
    await expectRejection(handler.replace('a@b@c', await loadBundled()), 'ERR_SENET_ARG_RANGE');
    await handler.close();
  });

  it('what comes under a name while another goes from there is another', async () => {
    await collectGarbage();
    const before = memory().tensors;
    const handler = createInferenceHandler({ net: await labelled('old') });
    const second = await labelled('second');
    await Promise.all([handler.remove('net'), handler.replace('net', second)]);
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG })).json.labels[0]?.label).to.equal('second');
    const removing = handler.remove('net');
    handler.list('net', () => labelled('third'));
    await removing;
    await handler.load('net');
    expect((await ask(handler, 'POST', CLASSIFY, { body: BAG })).json.labels[0]?.label).to.equal('third');
    // What was begun before is of the one that goes, and leaves nothing.
    const loading = handler.load('net');
    await Promise.all([expectRejection(loading, 'ERR_SENET_UNKNOWN_SERVED_MODEL'), handler.remove('net')]);
    expect(handler.models()).to.deep.equal([]);
    await handler.close();
    await collectGarbage();
    expect(memory().tensors).to.equal(before);
  });

  it('one that is not taken any more is disposed', async () => {
    const handler = createInferenceHandler({});
    await handler.close();
    const late = await loadBundled();
    await expectRejection(handler.replace('net', late), 'ERR_SENET_CLOSING');
    await expectRejection(late.classify(BAG), 'ERR_SENET_DISPOSED');
  });

  it('of a folder, NAME and NAME@1 are one: the other file takes its place when it goes', async () => {
    const temporary = new Temporary();
    const handler = createInferenceHandler({});
    const stop = new AbortController();
    const loaded: string[] = [];
    const errors: string[] = [];
    try {
      for (const name of ['net.pt', 'net@1.pt', 'bad@name@x.pt']) writeFileSync(temporary.path(name), '');
      const { ended } = await watchFolder(temporary.folder, handler, {
        ...{ interval: 10, signal: stop.signal },
        loaderOf: (file) => () => labelled(path.basename(file)),
        onChange: (what, _key, file) => void loaded.push(`${what} ${path.basename(file)}`),
        onError: (error) => void errors.push((error as Error).message),
      });
      expect(handler.models()).to.have.length(1);
      expect(loaded).to.deep.equal(['loaded net.pt']);
      expect(errors.some((message) => /net@1\.pt: another file is the model net/.test(message))).to.equal(
        true,
      );
      rmSync(temporary.path('net.pt'));
      const label = async (): Promise<string | undefined> =>
        (await ask(handler, 'POST', CLASSIFY, { body: BAG })).json.labels?.[0]?.label;
      for (let look = 0; look < 500 && (await label()) !== 'net@1.pt'; look++) await delay(10);
      expect(await label()).to.equal('net@1.pt');
      stop.abort();
      await ended;
    } finally {
      stop.abort();
      await handler.close();
      temporary.cleanUp();
    }
  });

  it('drain: not ready, and still answering; close: refused, what runs is answered, everything disposed', async () => {
    const classifier = await loadBundled();
    const handler = createInferenceHandler({ net: classifier });
    handler.drain();
    expect(handler.ready).to.equal(false);
    expect((await ask(handler, 'GET', '/v2/health/ready')).status).to.equal(503);
    expect((await ask(handler, 'GET', '/v2/health/live')).status).to.equal(200);
    const under = [BAG, SANDAL].map((body) => ask(handler, 'POST', CLASSIFY, { body }));
    const closing = handler.close();
    const late = await ask(handler, 'POST', CLASSIFY, { body: BAG });
    expect([late.status, late.json.code, late.headers['retry-after']]).to.deep.equal([
      503,
      'ERR_SENET_CLOSING',
      '1',
    ]);
    expect((await Promise.all(under)).map(({ status }) => status)).to.deep.equal([200, 200]);
    await closing;
    await handler.close();
    await expectRejection(classifier.classify(BAG), 'ERR_SENET_DISPOSED');
    await expectRejection(handler.replace('net', await loadBundled()), 'ERR_SENET_CLOSING');
    expect((await ask(handler, 'GET', '/v2/health/ready')).status).to.equal(503);
  });

  it('a name that nothing says, a network without labels', async () => {
    const plain = se_resnet20({ numClasses: 4, initWeights: false });
    const handler = createInferenceHandler({
      plain: await Classifier.load(plain, { preprocessing: { size: [32, 32] } }),
    });
    const { json } = await ask(handler, 'POST', CLASSIFY, { body: BAG });
    expect(json).to.deep.include({ model: 'plain' });
    expect(json.labels[0]?.label).to.match(/^[0-3]$/);
    await handler.close();
    plain.dispose();
  });
});

describe('what a server counts', () => {
  it('is the text that Prometheus reads', async () => {
    const handler = createInferenceHandler({ net: await loadBundled() });
    await ask(handler, 'POST', CLASSIFY, { body: BAG });
    await ask(handler, 'POST', CLASSIFY, { body: 'text' });
    await ask(handler, 'GET', '/no');
    const { headers, bytes } = await ask(handler, 'GET', '/metrics');
    const text = bytes.toString();
    expect(headers['content-type']).to.contain('version=0.0.4');
    for (const line of text.trimEnd().split('\n'))
      expect(line).to.match(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? (-?[\d.e+-]+|NaN|[+-]Inf))$/);
    expect(text).to.contain('senet_requests_total{route="/classify",status="200"} 1');
    expect(text).to.contain('senet_requests_total{route="none",status="404"} 1');
    expect(text).to.contain('senet_errors_total{code="ERR_SENET_IMAGE"} 1');
    expect(text).to.contain('senet_images_total{model="net",version="1"} 1');
    expect(text).to.contain('senet_batch_images_bucket{model="net",version="1",le="1"} 1');
    expect(text).to.contain('senet_network_seconds_count{model="net",version="1"} 1');
    expect(text).to.contain('senet_requests_running 1');
    expect(text).to.match(/^senet_queue_limit\{model="net",version="1"\} 1024$/m);
    expect(text).to.match(/^process_resident_memory_bytes \d{8,}$/m);
    await handler.close();
  });

  it('of several processes stands beside each other, and labels may be any text', () => {
    const family = {
      name: 'x',
      help: 'X.',
      type: 'gauge',
      samples: [{ name: 'x', labels: { a: 'q"\\\n' }, value: NaN }],
    } as const;
    const text = expositionText(
      mergeFamilies([
        { labels: { worker: '1' }, families: [family] },
        { labels: { worker: '2' }, families: [family] },
      ]),
    );
    expect(text).to.equal(
      '# HELP x X.\n# TYPE x gauge\nx{a="q\\"\\\\\\n",worker="1"} NaN\nx{a="q\\"\\\\\\n",worker="2"} NaN\n',
    );
  });

  it('has spans for who set OpenTelemetry up: of the request, and of what its image went through', async () => {
    const spans: { name: string; attributes: object; status?: number; start: unknown; ended?: unknown }[] =
      [];
    const startSpan: Tracer['startSpan'] = (name, options) => {
      const one: (typeof spans)[number] = {
        name,
        attributes: { ...options?.attributes },
        start: options?.startTime,
      };
      spans.push(one);
      const span = {
        isRecording: () => true,
        updateName: (text: string) => void (one.name = text),
        setAttributes: (more: object) => void Object.assign(one.attributes, more),
        setStatus: ({ code }: { code: number }) => void (one.status = code),
        recordException: () => undefined,
        end: (time?: unknown) => void (one.ended = time ?? true),
        spanContext: () => ({ traceId: '0'.repeat(32), spanId: '0'.repeat(16), traceFlags: 1 }),
      };
      return span as unknown as Span;
    };
    const provider: TracerProvider = { getTracer: () => ({ startSpan }) as unknown as Tracer };
    trace.setGlobalTracerProvider(provider);
    try {
      const handler = createInferenceHandler({ net: await loadBundled() });
      await ask(handler, 'POST', CLASSIFY, { body: BAG });
      await ask(handler, 'POST', CLASSIFY, { body: 'text' });
      await handler.close();
    } finally {
      trace.disable();
    }
    const names = spans.map(({ name }) => name);
    expect(names.filter((name) => name === 'POST /classify')).to.have.lengthOf(2);
    expect(names).to.include.members(['senet.decode', 'senet.network']);
    expect(spans.every(({ ended }) => ended !== undefined)).to.equal(true);
    expect(spans[0]).to.deep.include({
      attributes: { 'http.route': '/classify', 'http.response.status_code': 200 },
    });
    expect(spans.filter(({ status }) => status === SpanStatusCode.ERROR)).to.deep.equal([]);
    const decode = spans.find(({ name }) => name === 'senet.decode');
    expect(Number(decode?.ended) - Number(decode?.start)).to.be.above(0);
  });
});
