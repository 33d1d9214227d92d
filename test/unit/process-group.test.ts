/** What a process group is made of before there are other processes: backends, and which GPU is whose. */
import { expect } from 'chai';

import {
  allGather,
  allReduce,
  broadcast,
  cuda,
  destroyProcessGroup,
  DistributedDataParallel,
  initProcessGroup,
  Linear,
  ones,
  SGD,
  type InitProcessGroupOptions,
} from '../../lib';
import { backendFor } from '../../lib/distributed/process-group';
import { deviceOfRank } from '../../lib/distributed/rendezvous';
import { device } from '../support/device';
import { expectRejection } from '../support/errors';
import { numbers } from '../support/parity';
import { skip } from '../support/skip';

/** A group of this process alone. */
const ALONE: InitProcessGroupOptions = { rank: 0, worldSize: 1, masterAddr: '127.0.0.1', masterPort: 0 };

describe('process groups', () => {
  it("'cuda' is the GPU of the process's number on its machine", () => {
    expect(deviceOfRank('cuda', { LOCAL_RANK: '3' }, 4)).to.equal('cuda:3');
    // Each sees its own.
    expect(deviceOfRank('cuda', { LOCAL_RANK: '3' }, 1)).to.equal('cuda');
    for (const [given, LOCAL_RANK] of [
      ['cuda', undefined],
      ['cuda', ''],
      ['cuda', '-1'],
      ['cuda', 'x'],
      ['cuda:1', '3'],
      ['cpu', '3'],
    ] as const)
      expect(deviceOfRank(given, { LOCAL_RANK }, 4)).to.equal(given);
  });

  it('without CUDA there is no NCCL, which says why; gloo serves the processor', async function () {
    expect(backendFor('cpu')).to.equal('gloo');
    if (cuda.isAvailable()) return skip(this, 'this machine has CUDA');
    await expectRejection(
      initProcessGroup({ ...ALONE, backend: 'nccl' }),
      'ERR_SENET_DISTRIBUTED_UNAVAILABLE',
      /initProcessGroup: backend 'nccl': it needs CUDA: /,
    );
    expect(backendFor('cuda:0')).to.equal('gloo');
    // Nothing is left of the attempt.
    await initProcessGroup({ ...ALONE, backend: 'gloo' });
    await destroyProcessGroup();
  });

  it('NCCL carries the tensors of a GPU, and gloo those of the processor', async function () {
    if (device === 'cpu') return skip(this, 'SENET_TEST_DEVICE is no CUDA device');
    expect(backendFor(device)).to.equal('nccl');
    await initProcessGroup({ ...ALONE, backend: 'nccl' });
    try {
      for (const place of ['cpu', device] as const) {
        const values = ones([3]).to(place);
        await allReduce(values, { op: 'avg' });
        await broadcast([values, ones([2, 2]).to(place)]);
        const [all] = await allGather(values);
        expect(numbers(all ?? ones([0])), place).to.deep.equal([1, 1, 1]);
      }
      const model = new Linear(3, 2).to(device);
      const parallel = new DistributedDataParallel(model);
      const optimizer = new SGD(parallel.parameters(), { lr: 0.1 });
      for (let step = 0; step < 3; step++) {
        optimizer.zeroGrad();
        await (await parallel.forward(ones([4, 3]).to(device))).sum().backward();
        expect(numbers(model.bias?.grad ?? ones([0]))).to.deep.equal([4, 4]);
        await optimizer.step();
      }
    } finally {
      await destroyProcessGroup();
    }
  });
});
