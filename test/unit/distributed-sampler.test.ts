/** Which samples each process gets: PyTorch's indices, and shares that together are what one process gets. */
import { expect } from 'chai';

import { DistributedSampler, WeightedRandomSampler } from 'senet-torch';
import { PartSampler, ShareSampler } from '../../lib/data/distributed-sampler';
import { Random } from '../../lib/data/random';
import { findRendezvous, RENDEZVOUS } from '../../lib/distributed/rendezvous';
import { readOptions } from '../../lib/tensor/rules';
import { expectThrow } from '../support/errors';
import { readFixture } from '../support/parity';

interface Case {
  readonly length: number;
  readonly options: { readonly shuffle?: boolean; readonly seed?: number; readonly drop_last?: boolean };
  readonly epoch: number;
  readonly indices: readonly (readonly number[])[];
}

describe('samples of several processes', () => {
  const { samplers } = readFixture<{ samplers: Case[] }>('distributed.json');

  for (const { length, options, epoch, indices } of samplers) {
    it(`DistributedSampler: ${length} samples, ${indices.length} processes, ${JSON.stringify(options)}, epoch ${epoch}`, () => {
      for (const [rank, expected] of indices.entries()) {
        const { drop_last: dropLast = false, ...rest } = options;
        const sampler = new DistributedSampler(
          { length },
          { numReplicas: indices.length, rank, dropLast, ...rest },
        );
        sampler.setEpoch(epoch);
        expect(sampler.order()).to.deep.equal(expected);
        expect(sampler.length).to.equal(expected.length);
      }
    });
  }

  it("DistributedSampler: the loader's epoch, until somebody sets one", () => {
    const sampler = new DistributedSampler({ length: 50 }, { numReplicas: 2, rank: 0 });
    const later = sampler.order(new Random(0), 3);
    expect(later).not.to.deep.equal(sampler.order(new Random(0), 0));
    sampler.setEpoch(3);
    expect(sampler.order(new Random(0), 0)).to.deep.equal(later);
  });

  it('DistributedSampler: refuses what cannot be', () => {
    expectThrow(() => new DistributedSampler({ length: 3 }), 'ERR_SENET_DISTRIBUTED', /initProcessGroup/);
    expectThrow(
      () => new DistributedSampler({ length: 3 }, { numReplicas: 2, rank: 2 }),
      'ERR_SENET_ARG_RANGE',
    );
    expectThrow(
      () => new DistributedSampler({ length: 0 }, { numReplicas: 2, rank: 0 }),
      'ERR_SENET_ARG_TYPE',
    );
    expectThrow(
      () => new DistributedSampler({ length: 2 }, { numReplicas: 1, rank: 0 }).setEpoch(-1),
      'ERR_SENET_ARG_RANGE',
    );
  });

  it("shares are one process's batches together", () => {
    const weighted = new WeightedRandomSampler([1, 2, 3, 4, 5, 6, 7, 8]);
    for (const sampler of [null, weighted]) {
      const whole = sampler?.order(new Random(4)) ?? new Random(4).permutation(8);
      const shares = [0, 1].map(
        (rank) => new ShareSampler(8, sampler, { shuffle: true, rank, worldSize: 2 }),
      );
      const orders = shares.map((share) => share.order(new Random(4)));
      for (let step = 0; step < 2; step++) {
        const together = orders.flatMap((order) => order.slice(step * 2, step * 2 + 2));
        expect(together.sort()).to.deep.equal(whole.slice(step * 4, step * 4 + 4).sort());
      }
      expect(shares[0]?.isUnique).to.equal(sampler === null);
    }
  });

  it('parts have each sample once', () => {
    const parts = [0, 1, 2].map((rank) => new PartSampler(7, { rank, worldSize: 3 }));
    expect(parts.flatMap((part) => part.order()).sort()).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    expect(parts.map(({ length }) => length)).to.deep.equal([3, 2, 2]);
  });

  it('where they meet: options before variables, and what is missing by name', () => {
    const variables = { RANK: '1', WORLD_SIZE: '4', MASTER_ADDR: 'node1', MASTER_PORT: '29500' };
    const find = (given: object, environment: Record<string, string>) =>
      findRendezvous(readOptions({ timeout: 1000, ...given }, RENDEZVOUS, 'test'), environment, 'test');
    expect(find({}, variables)).to.deep.equal({
      ...{ rank: 1, worldSize: 4, host: 'node1', port: 29500, rank0HostsStore: true, timeout: 1000 },
    });
    expect(find({ rank: 0, masterPort: 1 }, variables)).to.deep.include({ rank: 0, port: 1, worldSize: 4 });
    expect(find({}, { ...variables, TORCHELASTIC_USE_AGENT_STORE: 'True' }).rank0HostsStore).to.equal(false);
    for (const name of Object.keys(variables))
      expectThrow(() => find({}, { ...variables, [name]: '' }), 'ERR_SENET_ARG_MISSING', new RegExp(name));
    for (const [name, value] of [
      ['RANK', '4'],
      ['RANK', '-1'],
      ['WORLD_SIZE', '0'],
      ['MASTER_PORT', '65536'],
      ['MASTER_PORT', '80x'],
    ] as const)
      expectThrow(() => find({}, { ...variables, [name]: value }), 'ERR_SENET_ARG_RANGE', new RegExp(name));
    expectThrow(() => find({ rank: 4 }, variables), 'ERR_SENET_ARG_RANGE', /from 0 to 3/);
  });
});
