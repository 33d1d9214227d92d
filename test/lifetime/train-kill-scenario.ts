/**
 * A training run in a process of its own, for train-kill.test.ts: goes on from its checkpoint if there is one, saves
 * after every second step, and prints the digest of the weights at the end. `node scenario.ts FOLDER`
 */
import { existsSync } from 'node:fs';
import path from 'node:path';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { OneCycleLR } from '../../lib/optim/schedulers';
import { SGD } from '../../lib/optim/sgd';
import { configure, manualSeed } from '../../lib/tensor/runtime';
import { Trainer } from '../../lib/train/trainer';
import { readTrainingCheckpoint } from '../../lib/train/training-checkpoint';
import { CLASSES, digest, smallDataset, testLoader, trainLoader } from '../support/training';

const EPOCHS = 3;
const IMAGES = 60;

async function main(folder: string): Promise<void> {
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
    // The parent counts steps, to kill at a step and not at a time.
    onProgress: ({ phase, step }) => {
      if (phase === 'training') process.stdout.write(`step ${step}\n`);
    },
  });
  if (existsSync(place)) trainer.restore(await readTrainingCheckpoint(place));
  await trainer.run();
  process.stdout.write(`digest ${digest(model)}\n`);
}

void main(process.argv[2] as string);
