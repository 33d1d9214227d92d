/** Weights by URL and `se_resnet50({ pretrained: true })`, end to end against a local server with a file of real size. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, utimesSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  load,
  loadStateDictFromUrl,
  manualSeed,
  randn,
  save,
  se_resnet50,
  SELayer,
  type SEResNet,
  type Tensor,
} from '../../lib';
import { startServer, type TestServer } from '../support/http-server';
import { Temporary } from '../support/temporary';

const FILE = 'seresnet50-60a8950a85b2b.pkl';

async function rejection(
  promise: Promise<unknown>,
): Promise<Error & { code?: string; details?: Record<string, unknown> }> {
  return promise.then(
    () => expect.fail('it should reject'),
    (error: unknown) => error as Error,
  );
}

async function logitsOf(model: SEResNet, x: Tensor): Promise<unknown> {
  return (await model.eval().forward(x)).toArray();
}

describe('weights by URL', () => {
  let temporary: Temporary;
  let server: TestServer;
  let original: SEResNet;
  let bytes: Buffer;
  let home: string;

  before(async () => {
    temporary = new Temporary();
    manualSeed(9);
    original = se_resnet50();
    await save(original, temporary.path('made.pt'));
    bytes = readFileSync(temporary.path('made.pt'));
    server = await startServer({ body: bytes });
  });
  after(async () => {
    await server.close();
    temporary.cleanUp();
  });
  beforeEach(function () {
    home = temporary.path(String(Math.random()));
    temporary.environment({
      TORCH_HOME: home,
      SENET_OFFLINE: undefined,
      SENET_WEIGHTS_MIRROR: server.url,
      HTTP_PROXY: undefined,
      http_proxy: undefined,
    });
    server.behave({ status: 200 });
  });

  it('pretrained: downloads to the cache of torch.hub, loads, and the next time reads the cache', async () => {
    const cached = path.join(home, 'hub', 'checkpoints', FILE);
    const seen: number[] = [];
    const model = await se_resnet50({
      pretrained: true,
      checkHash: false,
      progress: ({ bytes: now }) => seen.push(now),
    });
    expect(seen.at(-1)).to.equal(bytes.length);
    expect(statSync(cached).size).to.equal(bytes.length);
    expect(model.training).to.equal(true);
    manualSeed(10);
    const x = randn([1, 3, 64, 64]);
    expect(await logitsOf(model, x)).to.deep.equal(await logitsOf(original, x));
    const requests = server.requests.length;
    (await se_resnet50({ pretrained: true, progress: false })).dispose(); // a cached file is not verified again
    expect(server.requests).to.have.length(requests);
    model.dispose();
  });

  it('a file that Python downloaded is used, offline too', async () => {
    const folder = path.join(temporary.path('xdg'), 'torch', 'hub', 'checkpoints');
    mkdirSync(folder, { recursive: true });
    await save(original, path.join(folder, 'copy.pt'));
    renameSync(path.join(folder, 'copy.pt'), path.join(folder, FILE));
    temporary.environment({
      TORCH_HOME: undefined,
      XDG_CACHE_HOME: temporary.path('xdg'),
      SENET_OFFLINE: '1',
    });
    (await se_resnet50({ pretrained: true })).dispose();
    temporary.environment({ XDG_CACHE_HOME: undefined });
  });

  it('by default a hash that differs is refused, prints the digest and names checkHash: false', async () => {
    const error = await rejection(se_resnet50({ pretrained: true, progress: false }));
    expect(error).to.have.property('code', 'ERR_SENET_HASH');
    expect(error.message)
      .to.contain(createHash('sha256').update(bytes).digest('hex'))
      .and.contain('checkHash: false');
    expect(existsSync(path.join(home, 'hub', 'checkpoints', FILE))).to.equal(false);
  });

  it('a matching hash in the name passes', async () => {
    const layer = new SELayer(16, 4);
    await save(layer, temporary.path('layer.pt'));
    const small = readFileSync(temporary.path('layer.pt'));
    const other = await startServer({ body: small });
    const name = `layer-${createHash('sha256').update(small).digest('hex').slice(0, 10)}.pt`;
    temporary.environment({ SENET_WEIGHTS_MIRROR: undefined });
    const state = await loadStateDictFromUrl(`${other.url}/files/${name}?download=1`, { progress: false });
    expect([...state.keys()]).to.deep.equal(['fc.0.weight', 'fc.2.weight']);
    expect(existsSync(path.join(home, 'hub', 'checkpoints', name))).to.equal(true);
    const elsewhere = temporary.path('elsewhere');
    await loadStateDictFromUrl(`${other.url}/${name}`, {
      progress: false,
      modelDir: elsewhere,
      fileName: 'mine.pt',
    });
    expect([...(await load(path.join(elsewhere, 'mine.pt'))).keys()]).to.have.length(2);
    await other.close();
  });

  it('without the network the error names the URL, the path to put the file at, and what to type', async () => {
    for (const [environment, code] of [
      [{ SENET_OFFLINE: '1' }, 'ERR_SENET_OFFLINE'],
      [{ SENET_OFFLINE: undefined, SENET_WEIGHTS_MIRROR: 'http://127.0.0.1:1' }, 'ERR_SENET_DOWNLOAD'],
    ] as const) {
      temporary.environment(environment);
      const error = await rejection(se_resnet50({ pretrained: true, progress: false }));
      expect(error).to.have.property('code', code);
      expect(error.message)
        .to.contain(path.join(home, 'hub', 'checkpoints', FILE))
        .and.contain(`/${FILE}`)
        .and.contain('curl');
    }
  });

  it('refuses what it does not know, and another number of classes', async () => {
    const unknown = await rejection(se_resnet50({ pretrained: true, num_classes: 10 } as never));
    expect(unknown).to.be.instanceOf(TypeError).and.to.have.property('code', 'ERR_SENET_UNKNOWN_OPTION');
    expect(unknown.message).to.contain("did you mean 'numClasses'");
    const classes = await rejection(
      se_resnet50({ pretrained: true, numClasses: 5, checkHash: false, progress: false }),
    );
    expect(classes).to.have.property('code', 'ERR_SENET_STATE_DICT');
    expect(classes.message).to.contain("'fc.weight': expected [5, 2048], got [1000, 2048]");
    for (const bad of ['ftp://host/x.pt', 'no url', 'http://host/']) {
      expect(await rejection(loadStateDictFromUrl(bad))).to.have.property('code', 'ERR_SENET_ARG_RANGE');
    }
    const escape = await rejection(loadStateDictFromUrl('http://host/x.pt', { fileName: '../x.pt' }));
    expect(escape).to.have.property('code', 'ERR_SENET_ARG_RANGE');
  });

  it('an aborted signal leaves no module and no file', async () => {
    const signal = AbortSignal.abort();
    const error = await rejection(se_resnet50({ pretrained: true, signal, progress: false }));
    expect(error).to.include({ name: 'AbortError', code: 'ERR_SENET_ABORTED' });
    expect(existsSync(path.join(home, 'hub', 'checkpoints', FILE))).to.equal(false);
  });

  it('a lock that a dead process left is taken over', async () => {
    const folder = path.join(home, 'hub', 'checkpoints');
    const lock = path.join(folder, `${FILE}.lock`);
    mkdirSync(lock, { recursive: true });
    utimesSync(lock, new Date(0), new Date(0));
    (await se_resnet50({ pretrained: true, checkHash: false, progress: false })).dispose();
    expect(existsSync(lock)).to.equal(false);
  });
});
