/**
 * What only a CUDA device can show of `cuda`: SENET_TEST_DEVICE=cuda runs it. What needs no kernel is tested without one
 * in cuda-library.test.ts.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { expect } from 'chai';

import {
  arange,
  CrossEntropyLoss,
  cuda,
  empty,
  manualSeed,
  memory,
  randn,
  se_resnet20,
  SGD,
  tensor,
  zeros,
  type Tensor,
} from '../../lib';
import { device } from '../support/device';
import { skip } from '../support/skip';

const MB = 2 ** 20;

/** Why tests that need so many devices cannot run; undefined if they can. */
function lacking(devices: number): string | undefined {
  if (device === 'cpu') return 'SENET_TEST_DEVICE=cuda is not set';
  return cuda.deviceCount() < devices
    ? `needs ${devices} CUDA device(s), and this machine has ${cuda.deviceCount()}`
    : undefined;
}

function needs(devices: number): (this: Mocha.Context) => void {
  return function () {
    const reason = lacking(devices);
    if (reason !== undefined) {
      skip(this, reason);
    }
  };
}

/** Enough for the device to be busy for a while after the call. */
function keepBusy(place: typeof device): Tensor {
  let x = randn([2048, 2048], { device: place });
  const w = randn([2048, 2048], { device: place }).mul(0.02);
  for (let i = 0; i < 100; i++) x = x.matmul(w);
  return x;
}

describe('a CUDA device', function () {
  this.timeout(120_000);
  before(needs(1));

  it('has a name and memory', () => {
    expect(cuda.deviceName()).to.match(/\S/);
    const { allocated, reserved, free, total } = cuda.memory();
    expect(total).to.be.above(1024 * MB);
    expect(free).to.be.within(0, total);
    expect(reserved).to.be.within(allocated, total);
  });

  it('memory is counted, and dispose and emptyCache give it back', async () => {
    await cuda.synchronize();
    cuda.emptyCache();
    const before = cuda.memory();
    const counted = memory().deviceBytes;
    const x = zeros([64 * MB], { device });
    expect(cuda.memory().allocated - before.allocated).to.equal(256 * MB);
    expect(memory().deviceBytes - counted).to.equal(256 * MB);
    x.dispose();
    expect(cuda.memory().allocated).to.equal(before.allocated);
    expect(cuda.memory().reserved).to.be.at.least(256 * MB);
    cuda.emptyCache();
    expect(cuda.memory().reserved).to.be.at.most(before.reserved);
  });

  it('memory that is dropped is collected without a dispose', async () => {
    let most = 0;
    for (let i = 0; i < 400; i++) {
      empty([16 * MB], { device });
      await new Promise(setImmediate);
      most = Math.max(most, memory().deviceBytes);
    }
    expect(most).to.be.below(16 * 1024 * MB); // of 25 GB
  });

  it('synchronize waits for jobs and kernels, and the event loop turns meanwhile', async () => {
    await cuda.synchronize();
    const model = se_resnet20({ numClasses: 10, initWeights: false }).eval().to(device);
    const forward = model.forward(randn([64, 3, 32, 32], { device }));
    keepBusy(device);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await cuda.synchronize();
    clearInterval(timer);
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
    expect(turns).to.be.at.least(1);
    (await forward).dispose();
    model.dispose();
  });

  it('draws follow manualSeed', () => {
    const draw = (): unknown => {
      manualSeed(11);
      return randn([8], { device }).toArray();
    };
    expect(draw()).to.deep.equal(draw());
  });

  it('more memory than there is is a coded error, and the device goes on', () => {
    const attempt = (): unknown => empty([2 * cuda.memory().total], { device });
    expect(attempt).to.throw().with.property('code', 'ERR_SENET_OUT_OF_MEMORY');
    expect(zeros([2], { device }).add(1).toArray()).to.deep.equal([1, 1]);
  });

  it('indices that came from here are refused before a kernel could assert', async () => {
    const x = arange(0, 12, { device }).reshape(4, 3).to('float32');
    const index = tensor([1n, 3n], { device });
    expect(x.indexSelect(0, index).toArray()).to.deep.equal([
      [3, 4, 5],
      [9, 10, 11],
    ]);
    for (const wrong of [tensor([4n], { device }), tensor([-1n]).to(device)]) {
      expect(() => x.indexSelect(0, wrong))
        .to.throw()
        .with.property('code', 'ERR_SENET_ARG_RANGE');
    }
    const loss = new CrossEntropyLoss().forward(x, tensor([0n, 1n, 2n, 3n], { device }));
    expect(await loss.catch((error: unknown) => error)).to.have.property('code', 'ERR_SENET_LABELS');
    expect(x.sum().item()).to.equal(66);
  });

  it('is lost by an assert of a kernel: every later call says so, and the process ends as it should', () => {
    const program = `
      const { arange, cuda, se_resnet20, SGD, zeros } = require(${JSON.stringify(path.join(__dirname, '..', '..'))});
      const device = ${JSON.stringify(device)};
      const codeOf = async (attempt) => {
        try {
          await attempt();
          return 'no error';
        } catch (error) {
          return error.code ?? String(error);
        }
      };
      const main = async () => {
        const x = zeros([4], { device });
        const model = se_resnet20({ numClasses: 10 }).to(device);
        const input = zeros([2, 3, 32, 32], { device });
        const jobs = [];
        const codes = [
          // Of indices that a kernel made nothing is known.
          await codeOf(() => x.indexSelect(0, arange(0, 8, { dtype: 'int64', device })).toArray()),
          await codeOf(() => cuda.synchronize()),
          await codeOf(() => cuda.memory()),
          await codeOf(() => zeros([2], { device })),
          await codeOf(() => x.toArray()),
          await codeOf(() => model.forward(input)),
          await codeOf(() => model.to('cpu')),
        ];
        x.dispose();
        model.dispose();
        process.exitCode = 3;
        console.log('\\n' + JSON.stringify([codes, zeros([1]).toArray()]));
      };
      main();`;
    const done = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect([done.status, done.signal], done.stderr).to.deep.equal([3, null]);
    const [codes, onProcessor] = JSON.parse(done.stdout.trim().split('\n').at(-1) ?? '') as unknown[];
    expect(codes).to.deep.equal(Array.from({ length: 7 }, () => 'ERR_SENET_CUDA_LOST'));
    expect(onProcessor).to.deep.equal([0]);
  });
});

describe('two CUDA devices', function () {
  this.timeout(120_000);
  before(needs(2));

  it('hold what is theirs', () => {
    const [first, second] = [cuda.memory(0).allocated, cuda.memory(1).allocated];
    const x = zeros([MB], { device: 'cuda:1' });
    expect(x.device).to.equal('cuda:1');
    expect(cuda.memory(0).allocated).to.equal(first);
    expect(cuda.memory(1).allocated - second).to.equal(4 * MB);
    x.dispose();
  });

  it('draw alike from one seed', () => {
    const draw = (place: 'cuda:0' | 'cuda:1'): unknown => {
      manualSeed(12);
      return randn([8], { device: place }).toArray();
    };
    expect(draw('cuda:1')).to.deep.equal(draw('cuda:0'));
  });

  it('forward, compiled, backward and step on cuda:1 as on cuda:0, at the same time', async () => {
    const work = async (place: 'cuda:0' | 'cuda:1'): Promise<number[][]> => {
      const model = se_resnet20({ numClasses: 10 }).to(place);
      for (const parameter of model.parameters()) expect(parameter.device).to.equal(place);
      const x = arange(0, 4 * 3 * 32 * 32, { device: place })
        .reshape(4, 3, 32, 32)
        .div(12288);
      const optimizer = new SGD(model.parameters(), { lr: 0.01, momentum: 0.9 });
      const loss = await new CrossEntropyLoss().forward(
        await model.forward(x),
        tensor([0n, 1n, 2n, 3n], { device: place }),
      );
      await loss.backward();
      await optimizer.step();
      const compiled = await model.eval().compile();
      const logits = await compiled.forward(x);
      expect(logits.device).to.equal(place);
      return logits.toArray() as number[][];
    };
    cuda.allowTF32 = false;
    try {
      manualSeed(13);
      const first = work('cuda:0');
      manualSeed(13);
      const second = work('cuda:1');
      const [left, right] = await Promise.all([first, second]);
      left.flat().forEach((value, i) => expect(right.flat()[i]).to.be.closeTo(value, 1e-3));
    } finally {
      cuda.allowTF32 = true;
    }
  });

  it('tensors of both in one operator are refused', () => {
    const [x, y] = [zeros([2], { device: 'cuda:0' }), zeros([2], { device: 'cuda:1' })];
    expect(() => x.add(y))
      .to.throw()
      .with.property('code', 'ERR_SENET_LIBTORCH');
    expect(y.to('cuda:0').add(x).toArray()).to.deep.equal([0, 0]);
  });
});
