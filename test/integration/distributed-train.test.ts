/**
 * `senet-torch train --distributed`: that several processes train what one does, that one of them writes, and what is left
 * when one of them ends.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { expect } from 'chai';

import { disposeTensors, readTrainingCheckpoint } from '../../lib/train/training-checkpoint';
import { CLI } from '../support/built';
import { findPython } from '../support/checkpoint-files';
import { freePort } from '../support/free-port';
import { runGroup, scenario, startGroup, type Command, type Ended, type Started } from '../support/processes';
import { skip } from '../support/skip';
import { Temporary } from '../support/temporary';

const FIXTURES = path.join(__dirname, '..', 'fixtures');
/** Epochs of a run that does not come to its end. */
const MANY = 1000;

describe('senet-torch train --distributed', function () {
  this.timeout(120_000);
  const temporary = new Temporary();
  after(() => temporary.cleanUp());

  const data = temporary.path('fashion-mnist');
  before(() => {
    mkdirSync(data);
    for (const [name, kind] of [
      ['images', 'idx3'],
      ['labels', 'idx1'],
    ] as const) {
      const from = path.join(FIXTURES, `fashion-mnist-500-${name}-${kind}-ubyte.gz`);
      cpSync(from, path.join(data, `train-${name}-${kind}-ubyte.gz`));
    }
  });

  const train = (...args: string[]): Command => [process.execPath, CLI, 'train', ...args];
  const recipe = (folder: string, epochs: number, ...more: string[]): Command =>
    train(
      ...[
        data,
        '--output',
        folder,
        '--epochs',
        String(epochs),
        '--reduction',
        '4',
        '--schedule',
        'none',
        '--lr',
        '0.02',
      ],
      ...['--limit', '160', '--validation', '0.2', '--image-size', '16', '--threads', '1', ...more],
    );
  const distributed = (folder: string, epochs: number, ...more: string[]): Command =>
    recipe(folder, epochs, '--batch-size', '8', '--distributed', ...more);
  const ends = (all: readonly Started[]): Promise<Ended[]> => Promise.all(all.map(({ ended }) => ended));

  const historyOf = async (folder: string) => {
    const checkpoint = await readTrainingCheckpoint(path.join(folder, 'checkpoint.pt'));
    const { history, position, identity } = checkpoint;
    disposeTensors(checkpoint);
    return { history, position, identity };
  };

  it('trains what one process with the whole batch does', async () => {
    const [together, alone] = [temporary.path('together'), temporary.path('alone')];
    const command = distributed(together, 2, '--sync-batch-norm', '--json');
    const [first, second] = await runGroup([command, command]);
    await runGroup([recipe(alone, 2, '--batch-size', '16')]);
    expect(second, 'rank 1 prints nothing').to.equal(undefined);
    expect((first as { files: object }).files).to.be.an('object');
    expect(readdirSync(together).sort()).to.deep.equal(readdirSync(alone).sort());
    const [ours, theirs] = [await historyOf(together), await historyOf(alone)];
    expect(ours.identity.worldSize).to.equal(2);
    expect(ours.position.step).to.equal(theirs.position.step);
    for (const [index, expected] of theirs.history.epochs.entries()) {
      const own = ours.history.epochs[index];
      expect(own?.loss).to.be.closeTo(expected.loss, 0.02);
      expect(own?.validation?.loss).to.be.closeTo(expected.validation?.loss ?? NaN, 0.05);
    }
  });

  it('stops on all at the same step, and goes on with another number of processes', async () => {
    const folder = temporary.path('interrupted');
    const all = await startGroup([distributed(folder, MANY), distributed(folder, MANY)]);
    await waitForStep(folder, 1, all);
    all[1]?.child.kill('SIGINT');
    const stopped = await ends(all);
    expect(
      stopped.map(({ code }) => code),
      stopped[0]?.stderr,
    ).to.deep.equal([130, 130]);
    expect(stopped[0]?.stderr).to.match(/interrupted: the run is saved/);
    const before = await historyOf(folder);
    const resumed = await startGroup([
      train('--resume', path.join(folder, 'checkpoint.pt'), '--checkpoint-every', '1', '--threads', '1'),
    ]);
    await waitForStep(folder, before.position.step + 2, resumed);
    resumed[0]?.child.kill('SIGTERM');
    expect((await ends(resumed))[0]?.code).to.equal(130);
    const after = await historyOf(folder);
    expect(after.identity.worldSize).to.equal(1);
    expect(after.identity.batchesPerEpoch).to.equal(2 * before.identity.batchesPerEpoch);
    expect(after.history.epochs.slice(0, before.history.epochs.length)).to.deep.equal(before.history.epochs);
    // Back again: it reads what one process wrote. Its first steps may be those that the checkpoint has.
    const back = train(
      ...['--resume', path.join(folder, 'checkpoint.pt'), '--checkpoint-every', '1', '--threads', '1'],
      '--distributed',
    );
    const both = await startGroup([back, back]);
    await waitForStep(folder, after.position.step + 2, both);
    both[0]?.child.kill('SIGINT');
    expect((await ends(both)).map(({ code }) => code)).to.deep.equal([130, 130]);
    expect((await historyOf(folder)).identity.worldSize).to.equal(2);
  });

  /** Until the checkpoint of a run is of that step or a later one; an error if the run ends before. */
  async function waitForStep(folder: string, step: number, run: readonly Started[]): Promise<void> {
    let hasEnded = false;
    void run[0]?.ended.then(() => (hasEnded = true));
    for (;;) {
      const checkpoint = await readTrainingCheckpoint(path.join(folder, 'checkpoint.pt')).catch(() => null);
      const reached = checkpoint !== null && checkpoint.position.step >= step;
      disposeTensors(checkpoint);
      if (reached) return;
      if (hasEnded) throw new Error(`the run ended before step ${step}: ${(await run[0]?.ended)?.stderr}`);
      await delay(50);
    }
  }

  it('ends on all when one is killed, and leaves a good checkpoint', async () => {
    const folder = temporary.path('killed');
    const all = await startGroup([distributed(folder, MANY), distributed(folder, MANY)]);
    await waitForStep(folder, 1, all);
    all[1]?.child.kill('SIGKILL');
    const began = performance.now();
    const [first] = await ends(all);
    expect((performance.now() - began) / 1000).to.be.below(15);
    expect(first?.code).to.equal(1);
    expect(first?.stderr).to.match(/rank 1 has ended without a word/);
    const { position } = await historyOf(folder);
    expect(position.step).to.be.above(0);
    expect(readFileSync(path.join(folder, 'log.jsonl'), 'utf8')).to.match(/"code":"ERR_SENET_RANK_LOST"/);
  });

  it('ends on all with the code that one fails with', async () => {
    const folder = temporary.path('failed');
    const wrong = train('nowhere', '--output', folder, '--distributed', '--epochs', '1', '--threads', '1');
    const [first, second] = await ends(await startGroup([distributed(folder, 1), wrong]));
    expect(second?.code).to.equal(1);
    expect(first?.code).to.equal(1);
    expect(first?.stderr).to.match(/rank 1 failed: ERR_SENET_\w+: .*nowhere/);
    expect(existsSync(path.join(folder, 'checkpoint.pt'))).to.equal(false);
  });

  it('is started by torchrun', async function () {
    const python = findPython();
    if (python === null) return skip(this, 'no Python with torch');
    const [, ...program] = scenario('mixed');
    const [one] = await startGroup([
      [
        ...([python, '-m', 'torch.distributed.run', '--no-python', '--nproc-per-node', '2'] as const),
        ...['--master-port', String(await freePort()), process.execPath, ...program],
      ],
    ]);
    const { code, stderr, result } = (await one?.ended) as Ended;
    expect(code, stderr).to.equal(0);
    expect(result).to.deep.include({ sum: [3, 1], given: [1, 1] });
  });
});
