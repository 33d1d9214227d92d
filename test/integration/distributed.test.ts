/**
 * Training on several processes: what they reduce together, with Python's too; that they train the network that one would,
 * or PyTorch's; what becomes of them when one ends. Each process is `distributed-scenario.js` on dist.
 */
import { expect } from 'chai';

import { findPython } from '../support/checkpoint-files';
import { readFixture } from '../support/parity';
import { runGroup, scenario, startGroup, type Command, type Ended } from '../support/processes';
import { skip } from '../support/skip';

type Named = Readonly<Record<string, readonly number[]>>;

interface Trained {
  readonly losses: readonly number[];
  readonly gradients: Named;
  readonly parameters: Named;
  readonly buffers: Named;
}

interface Failed {
  readonly code: string;
  readonly message: string;
  readonly seconds: number;
}

const times = (count: number, name: string, ...args: string[]): Command[] =>
  Array.from({ length: count }, () => scenario(name, ...args));

const run = async <T>(count: number, name: string, ...args: string[]): Promise<T[]> =>
  (await runGroup(times(count, name, ...args))) as T[];

function expectClose(actual: Named, expected: Named, tolerance: number, what: string): void {
  expect(Object.keys(actual), what).to.deep.equal(Object.keys(expected));
  for (const [name, values] of Object.entries(expected)) {
    const own = actual[name] ?? [];
    expect(own, `${what}: ${name}`).to.have.length(values.length);
    for (const [index, value] of values.entries())
      expect(own[index], `${what}: ${name}[${index}]`).to.be.closeTo(value, tolerance);
  }
}

const PYTHON = `
import json, os, torch
import torch.distributed as dist
from torch import nn
torch.set_num_threads(1)
dist.init_process_group('gloo')
rank = dist.get_rank()
total = torch.tensor([rank + 1, 0.5], dtype=torch.float64)
dist.all_reduce(total)
given = torch.tensor([float(rank), float(rank)])
dist.broadcast(given, src=1)
every = [torch.zeros(1) for _ in range(2)]
dist.all_gather(every, torch.tensor([rank + 7.0]))
dist.barrier()
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).double())
dist.destroy_process_group()
print(json.dumps({'sum': total.tolist(), 'given': given.tolist(), 'all': [one.tolist() for one in every],
    'weight': next(model.parameters()).flatten().tolist()}))
`;

describe('training on several processes', () => {
  describe('collectives', () => {
    it('reduce, broadcast and gather in place, in order, and refuse what cannot be', async () => {
      const all = await run<Record<string, unknown>>(2, 'collectives');
      for (const [rank, result] of all.entries()) {
        const reduced = result.reduced as Record<string, number[]>;
        for (const dtype of ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int8', 'uint8'])
          expect(reduced[dtype], dtype).to.deep.equal([3, 6]);
        expect(reduced.avg).to.deep.equal([1.5, 3]);
        expect(reduced.product).to.deep.equal([2, 9]);
        expect(reduced.min).to.deep.equal([1, 3]);
        expect(reduced.max).to.deep.equal([2, 3]);
        expect(result.base, 'through a view').to.deep.equal([3, 6, 9, 12]);
        expect(result.pair).to.deep.equal([[1, 1], [1]]);
        expect(result.all).to.deep.equal([
          [0, 10],
          [1, 11],
        ]);
        expect(result.many).to.deep.equal(Array.from({ length: 20 }, (_, index) => 2 * index + 1));
        const different = result.different as string[];
        for (const words of [
          'rank 0 allReduce (sum) of 1000 values of float32, rank 1 allReduce (sum) of 10 values of float32',
          'rank 0 allReduce (sum) of 4 values of float32, rank 1 allReduce (max) of 4 values of float32',
          'rank 0 allGather of 2 values of float32, rank 1 allGather of 2 values of int64',
          'rank 0 broadcast of 2 values of float32 from rank 0, rank 1 broadcast of 2 values of float32 from rank 1',
          'rank 0 barrier, rank 1 allReduce (sum) of 3 values of float32',
        ])
          expect(different.shift()).to.equal(
            `ERR_SENET_DISTRIBUTED: the processes call different collectives: ${words}`,
          );
        expect(result.inLine).to.equal(1);
        expect(result.codes, `rank ${rank}`).to.deep.equal([
          'ERR_SENET_DTYPE',
          'ERR_SENET_DTYPE',
          'ERR_SENET_DTYPE',
          'ERR_SENET_ARG_TYPE',
          'ERR_SENET_ARG_RANGE',
          'ERR_SENET_DTYPE',
          'ERR_SENET_ARG_RANGE',
          'ERR_SENET_DISTRIBUTED',
          'ERR_SENET_DISTRIBUTED',
        ]);
      }
    });

    it('go together with processes of Python, whichever is rank 0', async function () {
      const python = findPython();
      if (python === null) return skip(this, 'no Python with torch');
      const commands: Command[] = [scenario('mixed'), [python, '-c', PYTHON]];
      const groups = await Promise.all([runGroup(commands), runGroup([...commands].reverse())]);
      for (const all of groups) {
        expect(all[0]).to.deep.equal(all[1]);
        expect(all[0]).to.deep.include({ sum: [3, 1], given: [1, 1], all: [[7], [8]] });
      }
    });
  });

  describe('DistributedDataParallel', () => {
    let alone: Record<string, Trained>;
    let onTwo: Record<string, Trained>[];
    let onFour: Record<string, Trained>[];
    const { ddp } = readFixture<{ ddp: Trained[] }>('distributed.json');

    before(async () => {
      [alone = {}] = await run<Record<string, Trained>>(1, 'train', 'plain', 'sync');
      onTwo = await run(2, 'train', 'plain', 'sync', 'norm', 'plain2');
      onFour = await run(4, 'train', 'plain', 'sync');
    });

    for (const network of ['plain', 'sync']) {
      for (const count of [2, 4]) {
        const what = network === 'plain' ? 'a network without BatchNorm' : 'SyncBatchNorm';
        it(`trains ${what} on ${count} processes as one process does`, () => {
          const expected = alone[network] as Trained;
          const all = (count === 2 ? onTwo : onFour).map((result) => result[network] as Trained);
          expect(all).to.have.length(count);
          for (const result of all) {
            expectClose(result.gradients, expected.gradients, 1e-12, 'gradients');
            expectClose(result.parameters, expected.parameters, 1e-12, 'parameters');
            expectClose(result.buffers, expected.buffers, 1e-12, 'buffers');
          }
          for (const [step, loss] of expected.losses.entries()) {
            const mean = all.reduce((sum, { losses }) => sum + (losses[step] ?? NaN), 0) / count;
            expect(mean).to.be.closeTo(loss, 1e-12);
          }
        });
      }
    }

    it('trains plain BatchNorm as PyTorch does', () => {
      for (const [rank, { losses, ...expected }] of ddp.entries()) {
        const own = onTwo[rank]?.norm as Trained;
        expectClose({ losses: own.losses }, { losses }, 1e-12, `rank ${rank}`);
        expectClose(own.gradients, expected.gradients, 1e-12, `rank ${rank}: gradients`);
        expectClose(own.parameters, expected.parameters, 1e-12, `rank ${rank}: parameters`);
        expectClose(own.buffers, expected.buffers, 1e-12, `rank ${rank}: buffers`);
      }
    });

    it('accumulates gradients to the same', () => {
      for (const { plain2 } of onTwo) {
        expectClose(plain2?.gradients ?? {}, alone.plain?.gradients ?? {}, 1e-12, 'gradients');
        expectClose(plain2?.parameters ?? {}, alone.plain?.parameters ?? {}, 1e-12, 'parameters');
      }
    });

    it('waits for nobody inside noSync', async () => {
      const all = await startGroup(times(2, 'noSync'));
      // Rank 1 comes to the barrier when rank 0 has done its backward.
      const ends = await Promise.all(all.map(({ ended }) => ended));
      expect(ends.map(({ code, result }) => [code, result])).to.deep.equal([
        [0, { waited: false }],
        [0, { waited: false }],
      ]);
    });

    it('begins with the weights of rank 0', async () => {
      const all = await run<{ code: string; weight: number[]; keys: string[] }>(2, 'different', 'weights');
      expect(all.map(({ code }) => code)).to.deep.equal(['none', 'none']);
      expect(all[1]?.weight).to.deep.equal(all[0]?.weight);
      expect(all[0]?.keys).to.deep.equal(['module.weight', 'module.bias']);
    });

    it('says that networks differ', async () => {
      const all = await startGroup(times(2, 'different', 'shape'));
      const ends = await Promise.all(all.map(({ ended }) => ended));
      const codes = ends.map(({ result }) => (result as { code: string }).code);
      expect(codes.join('\n')).to.match(/ERR_SENET_DISTRIBUTED: the processes have different networks/);
      expect(codes).not.to.include('none');
    });
  });

  // Most of their time is waiting, so all of them wait at the same time.
  describe('a rank that ends', () => {
    const started: Record<string, Promise<Ended[]>> = {};
    before(() => {
      const start = async (count: number, name: string, ...args: string[]): Promise<Ended[]> =>
        Promise.all((await startGroup(times(count, name, ...args))).map(({ ended }) => ended));
      started.killed = start(3, 'lost', 'killed');
      started.thrown = start(3, 'lost', 'thrown');
      started.plain = start(2, 'lostTraining', 'plain');
      started.sync = start(2, 'lostTraining', 'sync');
      started.timeout = start(2, 'timeout');
    });
    const failures = async (name: string, ...ranks: number[]): Promise<Failed[]> => {
      const ends = (await started[name]) ?? [];
      return ranks.map((rank) => {
        const { result, stderr } = ends[rank] as Ended;
        expect(result, stderr).to.be.an('object');
        return result as Failed;
      });
    };

    it('is named to the others within seconds when it is killed', async () => {
      for (const { code, message, seconds } of await failures('killed', 0, 2)) {
        expect(code).to.equal('ERR_SENET_RANK_LOST');
        expect(message).to.match(/^rank 1 has ended without a word/);
        expect(seconds).to.be.below(10);
      }
    });

    it('is named with its exit code when it throws', async () => {
      for (const { code, message } of await failures('thrown', 0, 2)) {
        expect(code).to.equal('ERR_SENET_RANK_LOST');
        expect(message).to.equal('rank 1 failed: its process ended with exit code 1');
      }
    });

    for (const [network, what] of [
      ['plain', 'backward'],
      ['sync', 'a forward with SyncBatchNorm'],
    ] as const) {
      it(`is named by ${what}`, async () => {
        for (const { code, message } of await failures(network, 0)) {
          expect(code).to.equal('ERR_SENET_RANK_LOST');
          expect(message).to.match(/^rank 1 has ended/);
        }
      });
    }

    it('is named when it does not call what the others call', async () => {
      for (const { code, message } of await failures('timeout', 0)) {
        expect(code).to.equal('ERR_SENET_DISTRIBUTED');
        expect(message).to.match(/longer than the group's timeout for rank 1, which did not call it/);
      }
    });
  });

  describe('waiting for the others', () => {
    const started: Record<string, Promise<Ended | undefined>> = {};
    before(() => {
      const start = async (how: string): Promise<Ended | undefined> => {
        const all = await startGroup(times(2, 'waiting', how));
        const end = await all[0]?.ended;
        for (const { child } of all) child.kill('SIGKILL');
        return end;
      };
      for (const how of ['destroy', 'abort', 'exit', 'throw']) started[how] = start(how);
    });
    const first = async (how: string): Promise<Ended | undefined> => started[how];

    it('ends with destroyProcessGroup', async () => {
      const { code, seconds } = (await first('destroy'))?.result as Failed;
      expect(code).to.equal('ERR_SENET_DISTRIBUTED');
      expect(seconds).to.be.below(2);
    });

    it('ends for the caller with its signal, and occupies no thread of the executor', async () => {
      expect((await first('abort'))?.result).to.deep.equal({ code: 'ERR_SENET_ABORTED', shape: [1, 2] });
    });

    it('keeps no process from ending', async () => {
      const exit = await first('exit');
      expect(exit?.code, exit?.stderr).to.equal(3);
      expect((exit?.result as Failed).seconds, 'a drain that waited takes ten').to.be.below(8);
      const thrown = await first('throw');
      expect(thrown?.code).to.equal(1);
      expect(thrown?.stderr).to.match(/uncaught/);
    });

    it('for a group that never comes together can be given up, and has an end', async () => {
      const [one] = await startGroup([scenario('connectAbort')], { WORLD_SIZE: '2' });
      const { code, result, stderr } = (await one?.ended) ?? {};
      expect(code, stderr).to.equal(0);
      const { code: aborted, again, seconds } = result as { code: string; again: string; seconds: number };
      expect(aborted).to.equal('ERR_SENET_ABORTED');
      expect(again).to.match(/^ERR_SENET_DISTRIBUTED: rank 0 .*not there: rank 1/);
      expect(seconds).to.be.below(10);
    });
  });
});
