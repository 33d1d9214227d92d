/** A system that gives no more threads: coded errors, and never the end of the process. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import { loadInRealm } from '../support/realm';
import { skip } from '../support/skip';

const ROOT = path.join(__dirname, '..', '..');
/** Of a format that sharp alone decodes. */
const WEBP = path.join(ROOT, 'test', 'fixtures', 'images', 'lossy.webp');

/** A command that runs with at most so many threads, those of this user's other processes not counted. */
function limited(threads: number): string[] | undefined {
  const limit = ['prlimit', `--nproc=${threads}`];
  // The limit counts all threads of a user, and root's not at all: so a user that nothing else runs as.
  const capabilities = '+dac_read_search,+dac_override';
  const command =
    process.getuid?.() === 0
      ? [
          ...['setpriv', `--reuid=${200_000 + process.pid}`, '--clear-groups'],
          ...[`--inh-caps=${capabilities}`, `--ambient-caps=${capabilities}`, ...limit],
        ]
      : undefined;
  if (command === undefined) return undefined;
  const [program = '', ...rest] = command;
  return spawnSync(program, [...rest, 'true']).status === 0 ? command : undefined;
}

describe('threads that cannot be made', function () {
  this.timeout(120_000);

  it('a job says which limit to raise, the process goes on, and fewer threads do', function () {
    const command = limited(24);
    if (command === undefined) {
      skip(this, 'only root can run a process as another user (setpriv, prlimit)');
    }
    const program = `
      const { configure, load, se_resnet20, zeros } = require(${JSON.stringify(ROOT)});
      const weights = ${JSON.stringify(path.join(ROOT, 'assets/weights/se_resnet20_fashion_mnist.safetensors'))};
      (async () => {
        const model = se_resnet20({ initWeights: false }).eval();
        const said = [];
        const note = (promise) => promise.then(() => said.push('done'), ({ code }) => said.push(code));
        configure({ threadsPerWorker: 64 });
        await note(model.forward(zeros([1, 3, 32, 32])));
        await note(load(weights));
        configure({ threadsPerWorker: 2 });
        await note(model.forward(zeros([1, 3, 32, 32])));
        await note(load(weights));
        console.log(said.join());
      })();`;
    const [first = '', ...rest] = command;
    const done = spawnSync(first, [...rest, process.execPath, '-e', program], { encoding: 'utf8' });
    expect([done.status, done.signal], done.stderr).to.deep.equal([0, null]);
    expect(done.stdout.trim()).to.equal('ERR_SENET_THREADS,ERR_SENET_THREADS,done,done');
  });

  it('nor does what ends later than its job wait for ever', function () {
    const command = limited(24);
    if (command === undefined) {
      skip(this, 'only root can run a process as another user (setpriv, prlimit)');
    }
    const program = `
      const { configure, ones, se_resnet20, zeros } = require(${JSON.stringify(ROOT)});
      (async () => {
        const compiled = await se_resnet20({ initWeights: false }).compile();
        const calls = [() => ones([3]).toTypedArrayAsync(), () => compiled.forwardPixels(zeros([1, 3, 32, 32]))];
        for (const threadsPerWorker of [64, 2]) {
          configure({ threadsPerWorker });
          for (const call of calls) console.log(await call().then(() => 'done', ({ code }) => code));
        }
      })();`;
    const [first = '', ...rest] = command;
    const done = spawnSync(first, [...rest, process.execPath, '-e', program], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect([done.status, done.signal], done.stdout + done.stderr).to.deep.equal([0, null]);
    expect(done.stdout.trim().split('\n')).to.deep.equal([
      'ERR_SENET_THREADS',
      'ERR_SENET_THREADS',
      'done',
      'done',
    ]);
  });

  it('a decoder without a thread is no damaged image', async () => {
    const refused = (): Promise<never> =>
      Promise.reject(new Error('glib: Error creating thread: Resource temporarily unavailable'));
    const decoder = (): unknown =>
      new Proxy(
        {},
        {
          get: (_, name, self) =>
            name === 'then'
              ? undefined
              : /^(toBuffer|metadata|stats)$/.test(String(name))
                ? refused
                : () => self as unknown,
        },
      );
    const { library } = loadInRealm({
      sharp: Object.assign(decoder, { cache: () => undefined, concurrency: () => 1 }),
    });
    const classifier = await library.ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
    const error = await classifier.classify(WEBP).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    await classifier.dispose();
    expect(error).to.have.property('code', 'ERR_SENET_THREADS');
  });
});
