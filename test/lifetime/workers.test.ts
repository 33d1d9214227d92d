/** Workers that are terminated while they work: what they held is gone, and gone from the counts. */
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { expect } from 'chai';

import { memory } from '../../lib';
import { collectGarbage } from '../support/collect';

const ROOT = path.join(__dirname, '..', '..');
const PROGRAM = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { ops, randn, se_resnet20 } = require(${JSON.stringify(ROOT)});
  const model = se_resnet20();
  const x = randn([4, 3, 32, 32]);
  const works = [
    async () => (await model.forward(x)).dispose(),
    async () => {
      await (await model.forward(x)).sum().backward();
      model.zeroGrad();
    },
    async () => (await model.compile()).dispose(),
    async () => (await ops.callAsync('aten::matmul', randn([200, 200]), randn([200, 200]))).dispose(),
    async () => randn([100]).add(1).mul(2).dispose(),
  ];
  parentPort.postMessage('ready');
  (async () => {
    while (true) await works[workerData % works.length]();
  })();`;

describe('Workers that are terminated while they work', function () {
  this.timeout(180_000);

  it('leave no tensors behind', async () => {
    await collectGarbage();
    const { tensors } = memory();
    for (let round = 0; round < 10; round++) {
      const workers = [round, round + 1].map((workerData) => new Worker(PROGRAM, { eval: true, workerData }));
      await Promise.all(
        workers.map((worker) => new Promise((resolve) => void worker.once('message', resolve))),
      );
      await setTimeout((11 * round) % 30);
      await Promise.all(workers.map((worker) => worker.terminate()));
    }
    expect(memory().tensors).to.equal(tensors);
    expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
  });
});
