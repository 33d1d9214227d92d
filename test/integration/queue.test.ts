/**
 * Jobs of images on a real Redis: each row once, whoever dies. SENET_TEST_SEED=... kills workers at other moments.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { getEventListeners, once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { Queue } from 'bullmq';
import { expect } from 'chai';

import {
  enqueueImages,
  ImageClassifier,
  listImages,
  startQueueWorker,
  type JobResult,
  type QueueWorkerOptions,
} from '../../lib';
import { partName } from '../../lib/bulk/job-part';
import { Random } from '../../lib/data/random';
import { bundledImages } from '../../lib/vision/bundled-images';
import { expectRejection } from '../support/errors';
import { CLI } from '../support/built';
import { HAS_REDIS, NO_REDIS, Redis } from '../support/redis';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

interface Row {
  readonly job: string;
  readonly index: number;
  readonly file: string;
  readonly labels?: unknown[];
  readonly error?: { code: string };
}

describe(`a queue of images${HAS_REDIS ? '' : ` (skipped: ${NO_REDIS})`}`, function () {
  this.timeout(180_000);
  const temporary = new Temporary();
  const photos = temporary.path('photos');
  let redis: Redis;
  let images: string[];
  let classifier: ImageClassifier;

  before(async function () {
    if (!HAS_REDIS) skip(this, 'there is no redis-server');
    redis = await Redis.start(temporary.folder);
    classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    images = [...(await bundledImages())];
    mkdirSync(photos);
    for (let place = 0; place < 300; place++) {
      const file = path.join(photos, `${String(place).padStart(4, '0')}.png`);
      if (place % 100 === 50) writeFileSync(file, 'damaged');
      else symlinkSync(images[place % images.length] as string, file);
    }
  });
  after(async () => {
    await classifier?.dispose();
    await redis?.stop();
    temporary.cleanUp();
  });

  function folder(name: string): string {
    const place = temporary.path(name);
    mkdirSync(place);
    return place;
  }

  function rowsIn(output: string): Row[] {
    return readdirSync(output)
      .filter((name) => name.endsWith('.jsonl'))
      .sort()
      .flatMap((name) => readFileSync(path.join(output, name), 'utf8').trimEnd().split('\n'))
      .map((line) => JSON.parse(line) as Row);
  }

  async function work(name: string, options: Partial<QueueWorkerOptions>): Promise<JobResult[]> {
    const done: JobResult[] = [];
    const worker = await startQueueWorker(classifier, redis.address, {
      ...{ output: temporary.folder, root: '/', name, onJob: (job) => void done.push(job) },
      ...options,
    });
    await worker.untilEmpty();
    await worker.close();
    return done;
  }

  it('has each row once, though workers are killed, and what is enqueued again adds nothing', async () => {
    const seed = Number(process.env.SENET_TEST_SEED ?? 3);
    const random = new Random(seed);
    const output = folder('killed');
    const enqueue = (): Promise<unknown> =>
      enqueueImages(redis.address, listImages(photos), { name: 'killed', jobSize: 20 });
    expect(await enqueue()).to.deep.equal({ jobs: 15, images: 300 });
    const start = (): ChildProcess => {
      const args = [
        'worker',
        '--queue',
        redis.address,
        '--name',
        'killed',
        '--root',
        '/',
        '--output',
        output,
      ];
      const flags = ['--lock-seconds', '1', '--until-empty', '--json'];
      return spawn(process.execPath, [CLI, ...args, ...flags], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    };
    // A worker is killed when it has done a job or two, in the middle of the next; then another takes its place.
    const jobs: number[] = [];
    for (let kill = 0; kill < 3; kill++) {
      const child = start();
      const wanted = random.integer(1, 2);
      let seen = 0;
      child.stdout?.on('data', (data: Buffer) => (seen += data.toString().split('\n').length - 1));
      while (seen < wanted && child.exitCode === null) await delay(5);
      await delay(random.integer(0, 30));
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      jobs.push(seen);
    }
    const last = start();
    let err = '';
    last.stderr?.on('data', (data: Buffer) => (err += data.toString()));
    const [code] = (await once(last, 'exit')) as [number | null];
    const facts = `SENET_TEST_SEED=${seed}, jobs ${jobs.join(', ')}: ${err}`;
    expect(code, facts).to.equal(0);
    await enqueue();
    const queue = new Queue('killed', { connection: { url: redis.address } });
    expect(await queue.getJobCounts('waiting', 'active', 'completed', 'failed'), facts).to.include({
      ...{ waiting: 0, active: 0, completed: 15, failed: 0 },
    });
    await queue.close();
    const rows = rowsIn(output);
    expect(
      rows.map(({ file }) => path.basename(file)),
      facts,
    ).to.deep.equal(readdirSync(photos).sort());
    expect(new Set(rows.map(({ job, index }) => `${job} ${index}`)).size).to.equal(300);
    expect(rows.filter(({ error }) => error?.code === 'ERR_SENET_IMAGE')).to.have.length(3);
  });

  it('does a job once whose part is there, though the queue does not know', async () => {
    const output = folder('known');
    const list = images.slice(0, 3);
    await enqueueImages(redis.address, list, { name: 'known', topK: 1 });
    const [first] = await work('known', { output });
    const place = path.join(output, first?.part ?? '');
    const [row] = rowsIn(output);
    expect(row).to.include({ index: 0, file: list[0] });
    expect(row?.labels).to.have.length(1);
    writeFileSync(place, readFileSync(place, 'utf8').replace('Ankle boot', 'seen before'));
    const queue = new Queue('known', { connection: { url: redis.address } });
    await queue.add('classify', { images: list, topK: 1 }, { jobId: row?.job ?? '' }); // is known: nothing
    await queue.obliterate();
    await queue.add('classify', { images: list, topK: 1 }, { jobId: row?.job ?? '' });
    await queue.close();
    const [again] = await work('known', { output });
    expect(again).to.include({ rows: 3, part: first?.part });
    expect(readFileSync(place, 'utf8')).to.include('seen before');
  });

  it('reads below its root alone, and nothing that is no job of it', async () => {
    const output = folder('hostile');
    const root = folder('root');
    symlinkSync(images[0] as string, path.join(root, 'out.png'));
    writeFileSync(path.join(root, 'in.png'), readFileSync(images[0] as string));
    const queue = new Queue('hostile', { connection: { url: redis.address } });
    const inside = [
      'in.png',
      path.join(root, 'in.png'),
      'out.png',
      images[0],
      '../root2/x',
      '/etc/passwd',
      'a\0b',
      '',
    ];
    await queue.add('classify', { images: inside }, { jobId: '../../escape' });
    for (const data of [
      null,
      7,
      { images: [] },
      { images: [1] },
      { images: 'x' },
      { images: ['x'], topK: 0 },
    ])
      await queue.add('classify', data, { attempts: 3 });
    const problems: string[] = [];
    await work('hostile', { output, root, onError: ({ message }) => void problems.push(message) });
    const codes = rowsIn(output).map(({ error }) => error?.code ?? null);
    expect(codes.slice(0, 4)).to.deep.equal([null, null, 'ERR_SENET_FILE', 'ERR_SENET_FILE']);
    for (const code of codes.slice(4))
      expect(code).to.be.oneOf(['ERR_SENET_FILE', 'ERR_SENET_FILE_NOT_FOUND']);
    expect(readdirSync(output)).to.have.length(1); // and not above
    expect(problems).to.have.length(6); // each tried once: they will be no jobs the next time either
    for (const message of problems) expect(message).to.match(/^job .*: (expected|topK)/);
    await queue.close();
  });

  it('ends its jobs before it ends, says how it is, and lets others have what it abandons', async () => {
    const output = folder('drained');
    const list = Array.from({ length: 40 }, (_, place) => images[place % images.length] as string);
    await enqueueImages(redis.address, list, { name: 'drained', jobSize: 20 });
    const started: string[] = [];
    const worker = await startQueueWorker(classifier, redis.address, {
      ...{ output, root: '/', name: 'drained', concurrency: 1, inFlight: 1 },
      onJob: ({ id }) => void started.push(id),
    });
    expect(worker.ready).to.equal(true);
    for (let text = ''; !/senet_worker_images_total [1-9]/.test(text); text = await worker.metrics())
      await delay(2);
    expect(await worker.metrics()).to.match(/^senet_queue_jobs\{state="active"\} 1$/m);
    const closing = worker.close();
    expect(worker.ready).to.equal(false);
    await expectRejection(worker.untilEmpty(), 'ERR_SENET_ABORTED');
    await closing;
    expect([started.length, rowsIn(output).length]).to.deep.equal([1, 20]);
    expect(await worker.metrics()).to.match(/^senet_worker_jobs_total\{outcome="completed"\} 1$/m);

    const second = await startQueueWorker(classifier, redis.address, {
      ...{ output, root: '/', name: 'drained', inFlight: 1 },
    });
    for (let text = ''; !/senet_worker_images_total [1-9]/.test(text); text = await second.metrics())
      await delay(2);
    await second.abandon();
    expect(rowsIn(output)).to.have.length(20); // nothing half-written
    const counts = new Queue('drained', { connection: { url: redis.address } });
    expect(await counts.getJobCounts('completed', 'delayed', 'active', 'waiting')).to.include({
      completed: 1,
    });
    await counts.close();
    await work('drained', { output });
    expect(
      rowsIn(output)
        .map(({ file }) => file)
        .sort(),
    ).to.deep.equal([...list].sort());
  });

  it('says what is wrong, and lives on while its server is away', async () => {
    await expectRejection(enqueueImages('http://x', images), 'ERR_SENET_ARG_RANGE', /redis:/);
    await expectRejection(enqueueImages('redis://127.0.0.1:1', images), 'ERR_SENET_QUEUE', /ECONNREFUSED/);
    const bytes = readFileSync(images[0] as string);
    await expectRejection(enqueueImages(redis.address, [bytes]), 'ERR_SENET_ARG_TYPE', /path/);
    await expectRejection(enqueueImages(redis.address, images, { run: 'a/b' }), 'ERR_SENET_ARG_RANGE');
    const start = (options: object): Promise<unknown> =>
      startQueueWorker(classifier, redis.address, { output: temporary.folder, ...options });
    await expectRejection(start({ output: temporary.path('none') }), 'ERR_SENET_FILE_NOT_FOUND', /output/);
    await expectRejection(start({ output: images[0] }), 'ERR_SENET_FILE');
    await expectRejection(start({ concurrency: 0 }), 'ERR_SENET_ARG_RANGE');
    await expectRejection(
      startQueueWorker(classifier, redis.address, {} as never),
      'ERR_SENET_ARG_MISSING',
      /output/,
    );
    const output = folder('away');
    const errors: Error[] = [];
    const worker = await startQueueWorker(classifier, redis.address, {
      ...{ output, root: '/', name: 'away', onError: (error: Error) => void errors.push(error) },
    });
    await redis.restart();
    while (!worker.ready) await delay(20);
    await enqueueImages(redis.address, images, { name: 'away' });
    while (rowsIn(output).length < images.length) await delay(20);
    await worker.close();
  });

  it('refuses names that no queue has', async () => {
    await expectRejection(
      enqueueImages(redis.address, images, { name: 3 as never }),
      'ERR_SENET_ARG_TYPE',
      /name/,
    );
    for (const name of ['a:b', '']) {
      await expectRejection(enqueueImages(redis.address, images, { name }), 'ERR_SENET_ARG_RANGE', /name/);
      await expectRejection(
        startQueueWorker(classifier, redis.address, { output: temporary.folder, name }),
        'ERR_SENET_ARG_RANGE',
        /name/,
      );
    }
  });

  it('ends though its server is away for good, and leaves no listener', async () => {
    const controller = new AbortController();
    const workers = await Promise.all(
      ['gone', 'lost'].map((name) =>
        startQueueWorker(classifier, redis.address, {
          ...{ output: folder(name), name, signal: controller.signal, onError: () => undefined },
        }),
      ),
    );
    const listeners = (): number => getEventListeners(controller.signal, 'abort').length;
    expect(listeners()).to.equal(1);
    const leaving = new AbortController();
    const list = async function* (): AsyncGenerator<string> {
      yield images[0] as string;
      await redis.stop();
      globalThis.setTimeout(() => leaving.abort(), 500);
    };
    try {
      await expectRejection(
        enqueueImages(redis.address, list(), { name: 'left', signal: leaving.signal }),
        'ERR_SENET_ABORTED',
      );
      await Promise.all([workers[0]?.close(), workers[1]?.abandon()]);
    } finally {
      await redis.restart();
    }
    expect(listeners()).to.equal(0);
  });

  it('a port that another has is told before a job is taken', async () => {
    await enqueueImages(redis.address, images, { name: 'taken' });
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    const place = ['--output', temporary.path('taken'), '--root', '/', '--port', String(port)];
    const child = spawn(process.execPath, [CLI, 'worker', '-q', redis.address, '--name', 'taken', ...place]);
    let err = '';
    child.stderr.on('data', (data: Buffer) => (err += data.toString()));
    const limit = globalThis.setTimeout(() => child.kill('SIGKILL'), 60_000);
    const [code] = (await once(child, 'close')) as [number | null];
    globalThis.clearTimeout(limit);
    other.close();
    expect([code, err]).to.deep.equal([2, err]);
    expect(err).to.match(
      /give another --port\nerror: 127\.0\.0\.1:\d+: .*EADDRINUSE.* \[ERR_SENET_ARG_RANGE\]\n$/,
    );
    const queue = new Queue('taken', { connection: { url: redis.address } });
    expect(await queue.getJobCounts('waiting', 'active', 'completed', 'failed', 'delayed')).to.deep.equal({
      ...{ waiting: 1, active: 0, completed: 0, failed: 0, delayed: 0 },
    });
    await queue.close();
  });

  it('a server that takes no more jobs says so with a code', async () => {
    const tell = (...words: string[]): void =>
      void spawnSync('redis-cli', ['-p', String(redis.port), 'config', 'set', ...words]);
    tell('maxmemory', '1');
    try {
      await expectRejection(enqueueImages(redis.address, images, { name: 'full' }), 'ERR_SENET_QUEUE', /OOM/);
    } finally {
      tell('maxmemory', '0');
    }
  });

  it('names parts so that none is outside, and none two jobs', () => {
    const job = { images: ['a'] };
    const names = ['1', '../x', '.', 'a/b', 'a%2Fb', 'x'.repeat(400), 'y'.repeat(400), '*', ''].map((id) =>
      partName(id, job),
    );
    expect(new Set(names).size).to.equal(names.length);
    for (const name of names) {
      expect(path.basename(name)).to.equal(name);
      expect(name.length).to.be.below(200);
    }
    expect(partName('1', job)).not.to.equal(partName('1', { images: ['b'] }));
  });
});
