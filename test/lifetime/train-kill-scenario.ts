/**
 * A training run in a process of its own, for train-kill.test.ts: goes on from its checkpoint if there is one, saves
 * after every second step, and prints the digest of the weights at the end. Kills itself some turns of the event loop
 * after its `STEP`-th step, if one is given. `node --require tsx/cjs train-kill-scenario.ts FOLDER [STEP TURNS]`
 */
import { existsSync, writeSync } from 'node:fs';
import path from 'node:path';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { OneCycleLR } from '../../lib/optim/one-cycle';
import { SGD } from '../../lib/optim/sgd';
import { configure, manualSeed } from '../../lib/tensor/runtime';
import { Trainer } from '../../lib/train/trainer';
import { readTrainingCheckpoint } from '../../lib/train/training-checkpoint';
import { CLASSES, digest, smallDataset, testLoader, trainLoader } from '../support/training';

const EPOCHS = 3;
const IMAGES = 60;

/** Turns and not milliseconds: however fast the machine is, it has done as much. */
function dieAfter(turns: number): void {
  if (turns === 0) process.kill(process.pid, 'SIGKILL');
  else setImmediate(() => dieAfter(turns - 1));
}

async function main(folder: string, killStep: number, killTurns: number): Promise<void> {
  let steps = 0;
  // One thread: what is being shown is that nothing is forgotten, and other tests want the other processor.
  configure({ threadsPerWorker: 1 });
  const place = path.join(folder, 'run.pt');
  manualSeed(5);
  const model = se_resnet20({ numClasses: CLASSES.length });
  const optimizer = new SGD(model.parameters(), {
    lr: 0.05,
    momentum: 0.9,
    nesterov: true,
    weightDecay: 5e-4,
  });
  const train = trainLoader(smallDataset(IMAGES));
  const trainer = new Trainer({
    model,
    train,
    validation: testLoader(smallDataset(20, 2)),
    optimizer,
    scheduler: new OneCycleLR(optimizer, { maxLr: 0.05, totalSteps: EPOCHS * train.length }),
    epochs: EPOCHS,
    classes: CLASSES,
    checkpoint: { path: place, everySteps: 2 },
    log: path.join(folder, 'log.jsonl'),
    onProgress: ({ phase, step }) => {
      if (phase !== 'training') return;
      writeSync(1, `step ${step}\n`); // before anything else: a killed process flushes nothing
      if (++steps === killStep) dieAfter(killTurns);
    },
  });
  if (existsSync(place)) trainer.restore(await readTrainingCheckpoint(place));
  await trainer.run();
  process.stdout.write(`digest ${digest(model)}\n`);
}

void main(process.argv[2] as string, Number(process.argv[3]), Number(process.argv[4]));
