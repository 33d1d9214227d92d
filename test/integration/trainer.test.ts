/**
 * The class Trainer: it learns, records what it does, goes on after an interruption as if there had been none, and says
 * what is wrong with bad input, the checkpoint on disk staying good.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { loadCheckpoint } from '../../lib/checkpoint/load';
import { StateDict } from '../../lib/checkpoint/state-dict';
import type { Dataset } from '../../lib/data/dataset';
import { DataLoader, type BatchTransform } from '../../lib/data/loader';
import { makeError } from '../../lib/errors';
import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { se_resnet18 } from '../../lib/models/se-resnet';
import { binding } from '../../lib/native';
import { Sequential } from '../../lib/nn/containers';
import { Conv2d, Dropout, Flatten, Linear, ReLU } from '../../lib/nn/layers';
import { CrossEntropyLoss } from '../../lib/nn/losses';
import type { Module } from '../../lib/nn/module';
import { AdamW } from '../../lib/optim/adam';
import { ExponentialMovingAverage } from '../../lib/optim/ema';
import { GradScaler } from '../../lib/optim/grad-scaler';
import { OneCycleLR } from '../../lib/optim/one-cycle';
import { ReduceLROnPlateau } from '../../lib/optim/plateau';
import { StepLR } from '../../lib/optim/schedulers';
import { SGD } from '../../lib/optim/sgd';
import { ones, rand, tensor, zeros } from '../../lib/tensor/factories';
import { configure, getRngState, manualSeed } from '../../lib/tensor/runtime';
import { Trainer, type TrainerOptions, type TrainingProgress } from '../../lib/train/trainer';
import { readTrainingCheckpoint } from '../../lib/train/training-checkpoint';
import { findPython } from '../support/checkpoint-files';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers } from '../support/parity';
import { Temporary } from '../support/temporary';
import { CLASSES, digest, smallDataset, testLoader, trainLoader } from '../support/training';
import { skip } from '../support/skip';

const EPOCHS = 3;
const IMAGES = 44;
/** Batches of 8 of 44 images, the last one of 4. */
const BATCHES = 6;

interface Parts {
  trainer: Trainer;
  model: Module<unknown>;
}

describe('Trainer', function () {
  this.timeout(120_000);
  const temporary = new Temporary();
  const models: Module<unknown>[] = [];
  // Images of 8 x 8 give a second thread nothing to do but wait.
  const { threadsPerWorker } = binding.configuration();
  before(() => configure({ threadsPerWorker: 1 }));
  after(() => {
    configure({ threadsPerWorker });
    for (const model of models) model.dispose();
    temporary.cleanUp();
  });

  function make(changes: Partial<TrainerOptions> = {}, images = IMAGES): Parts {
    manualSeed(3);
    const model = changes.model ?? se_resnet20({ numClasses: CLASSES.length });
    models.push(model);
    const optimizer =
      changes.optimizer ??
      new SGD(model.parameters(), { lr: 0.05, momentum: 0.9, nesterov: true, weightDecay: 1e-4 });
    const steps = EPOCHS * Math.ceil(images / 8);
    const trainer = new Trainer({
      model,
      train: trainLoader(smallDataset(images)),
      validation: testLoader(smallDataset(20, 2)),
      optimizer,
      // Only where no other is given: making one sets the optimiser's rate.
      ...('scheduler' in changes
        ? {}
        : { scheduler: new OneCycleLR(optimizer, { maxLr: 0.05, totalSteps: steps }) }),
      loss: new CrossEntropyLoss({ labelSmoothing: 0.05 }),
      epochs: EPOCHS,
      classes: CLASSES,
      recordEvery: 4,
      ...changes,
    });
    return { trainer, model };
  }

  const file = (name: string): string => temporary.path(name);

  it('learns, and records what it does in history, log, progress and checkpoint', async () => {
    const seen: TrainingProgress[] = [];
    const best: number[] = [];
    const { trainer, model } = make({
      log: file('log.jsonl'),
      checkpoint: { path: file('run.pt') },
      onProgress: (progress) => seen.push(progress),
      onBest: ({ epoch }) => void best.push(epoch),
      settings: { recipe: 'small', layers: [1, 2] },
    });
    const { history, best: chosen, steps } = await trainer.run();
    expect(steps).to.equal(EPOCHS * BATCHES);
    expect(history.epochs.map(({ epoch }) => epoch)).to.deep.equal([1, 2, 3]);
    expect(history.epochs[2]?.loss).to.be.below((history.epochs[0]?.loss ?? 0) * 0.8);
    expect(chosen?.validation?.accuracy).to.be.above(0.6);
    expect(chosen?.epoch).to.equal(best.at(-1));
    // Every fourth step, and the rest of an epoch.
    expect(history.steps.map(({ step }) => step)).to.deep.equal([4, 6, 8, 12, 16, 18]);

    const lines = readFileSync(file('log.jsonl'), 'utf8').trimEnd().split('\n');
    const events = lines.map((line) => (JSON.parse(line) as { event: string }).event);
    expect(events.filter((event) => event === 'epoch')).to.have.lengthOf(EPOCHS);
    expect([events[0], events.at(-1)]).to.deep.equal(['start', 'end']);

    const training = seen.filter(({ phase, finished }) => phase === 'training' && finished === null);
    expect(training.map(({ step }) => step)).to.deep.equal(
      Array.from({ length: EPOCHS * BATCHES }, (_, i) => i + 1),
    );
    expect(seen.filter(({ finished }) => finished !== null)).to.have.lengthOf(EPOCHS);
    expect(training.at(-1)?.secondsLeft).to.be.within(0, 60);

    const checkpoint = await loadCheckpoint(file('run.pt'));
    expect(checkpoint).to.be.instanceOf(Map);
    const saved = (checkpoint as Map<string, unknown>).get('model');
    expect(saved).to.be.instanceOf(StateDict);
    const twin = se_resnet20({ numClasses: CLASSES.length, initWeights: false });
    models.push(twin);
    twin.loadStateDict(saved as StateDict);
    expect(digest(twin)).to.equal(digest(model));
    expect((await readTrainingCheckpoint(file('run.pt'))).settings).to.deep.equal({
      recipe: 'small',
      layers: [1, 2],
    });
    expect(readdirSync(temporary.folder).filter((name) => name.endsWith('.tmp'))).to.deep.equal([]);
  });

  it('writes checkpoints that Python reads: weights, optimiser and scheduler', async function () {
    const python = findPython();
    if (python === null) {
      skip(this, 'no Python with torch and safetensors (set SENET_TEST_PYTHON to one)');
    }
    const { trainer, model } = make({ checkpoint: { path: file('for-python.pt') } });
    await trainer.run();
    const program = `
import json, sys, torch
saved = torch.load(sys.argv[1], weights_only=True)
parameters = [torch.nn.Parameter(t) for k, t in saved["model"].items() if t.is_floating_point() and "running" not in k]
optimizer = torch.optim.SGD(parameters, lr=1)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1, total_steps=2)
optimizer.load_state_dict(saved["optimizer"])
scheduler.load_state_dict(saved["scheduler"])
print(json.dumps({"keys": list(saved["model"]), "first": parameters[0].flatten().tolist(), "steps": scheduler.last_epoch,
    "momenta": sum(optimizer.state[p]["momentum_buffer"].shape == p.shape for p in parameters)}))`;
    const read = JSON.parse(
      execFileSync(python, ['-c', program, file('for-python.pt')]).toString(),
    ) as object;
    expect(read).to.deep.equal({
      keys: [...model.stateDict().keys()],
      first: Array.from(model.parameters()[0]?.toTypedArray() as Float32Array),
      steps: EPOCHS * BATCHES,
      momenta: model.parameters().length,
    });
  });

  describe('goes on after an interruption with the same weights, bit for bit', () => {
    let whole: { digest: string; history: unknown };

    /** Without what depends on the clock. */
    function timeless(history: unknown): unknown {
      return JSON.parse(
        JSON.stringify(history, (name, value: unknown) =>
          ['seconds', 'imagesPerSecond'].includes(name) ? undefined : value,
        ),
      );
    }

    before(async () => {
      const { trainer, model } = make();
      const { history } = await trainer.run();
      whole = { digest: digest(model), history: timeless(history) };
    });

    /** Stops when `when` says so, resumes in new objects, and gives those. */
    async function interrupted(
      when: (progress: TrainingProgress) => boolean,
      changes: () => Partial<TrainerOptions> = () => ({}),
    ): Promise<{ digest: string; history: unknown; log: string }> {
      const controller = new AbortController();
      const [place, log] = [
        file(`interrupted-${Math.random()}.pt`),
        file(`interrupted-${Math.random()}.jsonl`),
      ];
      const first = make({
        ...changes(),
        log,
        checkpoint: { path: place, everyEpochs: null },
        signal: controller.signal,
        onProgress: (progress) => {
          if (when(progress)) controller.abort();
        },
      });
      const error = await expectRejection(first.trainer.run(), 'ERR_SENET_ABORTED');
      expect(error.name).to.equal('AbortError');
      rand([100]).dispose(); // another program would have drawn other numbers meanwhile
      const second = make({ ...changes(), log, checkpoint: { path: place, everyEpochs: null } });
      second.trainer.restore(await readTrainingCheckpoint(place));
      const { history } = await second.trainer.run();
      return { digest: digest(second.model), history: timeless(history), log: readFileSync(log, 'utf8') };
    }

    for (const [where, when] of [
      ['at the first step', ({ step }) => step === 1],
      ['within an epoch', ({ step }) => step === BATCHES + 3],
      ['at the last batch of an epoch', ({ step, phase }) => step === BATCHES && phase === 'training'],
      [
        'during a validation',
        ({ phase, batch, epoch }) => phase === 'validation' && batch === 1 && epoch === 2,
      ],
      ['between two epochs', ({ finished }) => finished?.epoch === 2],
    ] as [string, (progress: TrainingProgress) => boolean][]) {
      it(where, async () => {
        const resumed = await interrupted(when);
        expect(resumed.history).to.deep.equal(whole.history);
        expect(resumed.digest).to.equal(whole.digest);
        const events = resumed.log
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line) as { event: string; step: number });
        expect(events.map(({ step }) => step)).to.deep.equal(
          events.map(({ step }) => step).sort((a, b) => a - b),
        );
        expect(events.filter(({ event }) => event === 'epoch')).to.have.lengthOf(EPOCHS);
        expect(events.filter(({ event }) => event === 'resume')).to.have.lengthOf(1);
      });
    }

    it('while the batches of a step are made, of which the loader has given out one', async () => {
      const accumulate = 2;
      const { trainer, model } = make({ accumulate });
      await trainer.run();
      const controller = new AbortController();
      const { signal } = controller;
      let made = 0;
      const batchTransform: BatchTransform = {
        forward: (batch) => {
          if (++made === 4) controller.abort();
          return batch;
        },
      };
      const train = trainLoader(smallDataset(IMAGES), { prefetch: 0, signal, batchTransform });
      const checkpoint = { path: file('half-step.pt') };
      await expectRejection(
        make({ accumulate, train, signal, checkpoint }).trainer.run(),
        'ERR_SENET_ABORTED',
      );
      const kept = await readTrainingCheckpoint(checkpoint.path);
      expect([
        kept.position.stepInEpoch,
        (kept.loader as Map<string, unknown>).get('position'),
      ]).to.deep.equal([1, accumulate]);
      const second = make({ accumulate });
      second.trainer.restore(kept);
      await second.trainer.run();
      expect(digest(second.model)).to.equal(digest(model));
    });

    it('after the last step of an epoch, of fewer batches than the others', async () => {
      const changes = (): Partial<TrainerOptions> => ({ accumulate: 4 });
      const { trainer, model } = make(changes());
      const { history } = await trainer.run();
      const resumed = await interrupted(({ step, phase }) => step === 2 && phase === 'training', changes);
      expect(resumed.history).to.deep.equal(timeless(history));
      expect(resumed.digest).to.equal(digest(model));
    });

    it('by the loss itself, within a step: the checkpoint on disk stays', async () => {
      const controller = new AbortController();
      const { signal } = controller;
      const criterion = new CrossEntropyLoss({ labelSmoothing: 0.05 });
      let steps = 0;
      const loss: TrainerOptions['loss'] = {
        forward: (logits, labels) => {
          if (++steps === 4) {
            controller.abort();
            throw makeError('ERR_SENET_ABORTED', 'the loss was aborted');
          }
          return criterion.forward(logits, labels);
        },
      };
      const checkpoint = { path: file('in-step.pt'), everySteps: 2 };
      await expectRejection(make({ loss, signal, checkpoint }).trainer.run(), 'ERR_SENET_ABORTED');
      const kept = await readTrainingCheckpoint(checkpoint.path);
      expect(kept.position.step).to.equal(2);
      const second = make();
      second.trainer.restore(kept);
      await second.trainer.run();
      expect(digest(second.model)).to.equal(whole.digest);
    });

    it('an abort that came before the start', async () => {
      const controller = new AbortController();
      controller.abort();
      const { trainer } = make({ checkpoint: { path: file('before.pt') }, signal: controller.signal });
      await expectRejection(trainer.run(), 'ERR_SENET_ABORTED');
      const second = make();
      second.trainer.restore(await readTrainingCheckpoint(file('before.pt')));
      await second.trainer.run();
      expect(digest(second.model)).to.equal(whole.digest);
    });

    it('with a moving average, a gradient limit, bfloat16 and a scheduler by epochs', async () => {
      const changes = (): Partial<TrainerOptions> => {
        manualSeed(3);
        const model = se_resnet20({ numClasses: CLASSES.length });
        const optimizer = new SGD(model.parameters(), { lr: 0.05, momentum: 0.9 });
        return {
          model,
          optimizer,
          scheduler: new StepLR(optimizer, { stepSize: 1, gamma: 0.5 }),
          ema: new ExponentialMovingAverage(model, { decay: 0.9 }),
          clipGradNorm: 1,
          precision: 'bfloat16',
        };
      };
      const { trainer, model } = make(changes());
      const { history } = await trainer.run();
      expect(history.epochs.map(({ learningRate }) => learningRate)).to.deep.equal([0.05, 0.025, 0.0125]);
      const resumed = await interrupted(({ step }) => step === BATCHES + 2, changes);
      expect(resumed.digest).to.equal(digest(model));
      expect(resumed.history).to.deep.equal(timeless(history));
    });

    it('with a gradient scaler, whose scales are powers of two and change no bit', async () => {
      const gradScaler = (): Partial<TrainerOptions> => ({
        gradScaler: new GradScaler({ initScale: 1024, growthInterval: 4 }),
      });
      const changes = gradScaler();
      const { trainer, model } = make(changes);
      await trainer.run();
      expect(digest(model)).to.equal(whole.digest);
      expect(changes.gradScaler?.getScale()).to.equal(1024 * 2 ** Math.floor((EPOCHS * BATCHES) / 4));
      const again: TrainerOptions['gradScaler'][] = [];
      const resumed = await interrupted(
        ({ step }) => step === BATCHES + 2,
        () => {
          const next = gradScaler();
          again.push(next.gradScaler);
          return next;
        },
      );
      expect(resumed.digest).to.equal(whole.digest);
      expect(again.at(-1)?.stateDict()).to.deep.equal(changes.gradScaler?.stateDict());
    });
  });

  it('a finished run goes on for more epochs, with the weights of one that was as long from the start', async () => {
    const parts = (changes: Partial<TrainerOptions>): Parts => {
      const model = se_resnet20({ numClasses: CLASSES.length, initWeights: false });
      const optimizer = new SGD(model.parameters(), { lr: 0.05, momentum: 0.9 });
      manualSeed(3);
      model.loadStateDict(se_resnet20({ numClasses: CLASSES.length }).stateDict());
      return make({ model, optimizer, scheduler: new StepLR(optimizer, { stepSize: 2 }), ...changes });
    };
    const whole = parts({ epochs: 4 });
    await whole.trainer.run();
    const first = parts({ epochs: 2, checkpoint: { path: file('longer.pt') } });
    await first.trainer.run();
    const longer = parts({ epochs: 4 });
    longer.trainer.restore(await readTrainingCheckpoint(file('longer.pt')));
    const { history, stoppedEarly } = await longer.trainer.run();
    expect([history.epochs.length, stoppedEarly]).to.deep.equal([4, false]);
    expect(digest(longer.model)).to.equal(digest(whole.model));
  });

  it('takes a history of any length, and the last one that it was given', async () => {
    const place = file('long.pt');
    await make({ checkpoint: { path: place }, epochs: 1 }).trainer.run();
    const checkpoint = await readTrainingCheckpoint(place);
    const { steps, epochs } = checkpoint.history;
    const { trainer } = make({ epochs: 1 });
    trainer.restore({
      ...checkpoint,
      history: { steps: Array.from({ length: 200_000 }, () => steps[0] as (typeof steps)[number]), epochs },
    });
    trainer.restore(checkpoint);
    const { history } = await trainer.run();
    expect(history).to.deep.equal({ steps, epochs });
  });

  it('adds up the gradients of several batches, which give those of one', async () => {
    /** Without BatchNorm, in float64: the rounding alone differs. */
    const run = async (
      batchSize: number,
      accumulate: number,
    ): Promise<{ weights: number[]; seen: number[][] }> => {
      manualSeed(8);
      const model = new Sequential(new Flatten(), new Linear(3 * 32 * 32, 4)).to('float64');
      models.push(model);
      const seen: number[][] = [];
      const images = Array.from({ length: 22 }, (_, index) => ({
        image: rand([3, 32, 32], { dtype: 'float64' }),
        label: index % 4,
      }));
      const { trainer } = make({
        model,
        train: new DataLoader(images, { batchSize, seed: 1, shuffle: true }) as never,
        optimizer: new SGD(model.parameters(), { lr: 0.1, momentum: 0.9 }),
        scheduler: undefined as never,
        validation: undefined as never,
        classes: undefined as never,
        accumulate,
        epochs: 2,
        clipGradNorm: 0.5,
        onProgress: ({ batch, batches, step, steps }) => void seen.push([batch, batches, step, steps]),
      });
      const { steps } = await trainer.run();
      expect(steps).to.equal(2 * Math.ceil(Math.ceil(22 / batchSize) / accumulate));
      return { weights: model.parameters().flatMap((parameter) => numbers(parameter)), seen };
    };
    const whole = await run(12, 1);
    for (const [batchSize, accumulate] of [
      [4, 3],
      [6, 2],
      [3, 4],
    ] as const) {
      const added = await run(batchSize, accumulate);
      expect(added.seen).to.deep.equal(whole.seen);
      for (const [index, weight] of added.weights.entries())
        expect(weight).to.be.closeTo(whole.weights[index] as number, 1e-12);
    }
  });

  it('ends when no epoch was better for a while, and its checkpoint is of a run that has ended', async () => {
    const model = se_resnet20({ numClasses: CLASSES.length });
    const still = new SGD(model.parameters(), { lr: 0 });
    const changes = { model, optimizer: still, scheduler: undefined as never, epochs: 50, patience: 2 };
    const { trainer } = make({
      ...changes,
      checkpoint: { path: file('patience.pt'), everyEpochs: null },
      log: file('patience.jsonl'),
    });
    const { history, best, stoppedEarly } = await trainer.run();
    // BatchNorm's statistics move, so that an epoch or two may be better nevertheless.
    const last = history.epochs.at(-1)?.epoch ?? 0;
    expect([last, stoppedEarly]).to.deep.equal([(best?.epoch ?? 0) + 2, true]);
    expect(last).to.be.below(50);
    expect(readFileSync(file('patience.jsonl'), 'utf8').trimEnd().split('\n').at(-1)).to.contain(
      '"stoppedEarly":true',
    );
    const resumed = make(changes);
    resumed.trainer.restore(await readTrainingCheckpoint(file('patience.pt')));
    expect((await resumed.trainer.run()).history.epochs).to.have.length(last);
  });

  it('gives a schedule that follows a metric the loss of the validation, or its accuracy', async () => {
    for (const mode of ['min', 'max'] as const) {
      const model = se_resnet20({ numClasses: CLASSES.length });
      const optimizer = new SGD(model.parameters(), { lr: 0.01 });
      const seen: (number | undefined)[] = [];
      class Listening extends ReduceLROnPlateau {
        override step(metric?: number): void {
          seen.push(metric);
          super.step(metric);
        }
      }
      const scheduler = new Listening(optimizer, { mode, patience: 0, threshold: 10, thresholdMode: 'abs' });
      const { trainer } = make({ model, optimizer, scheduler, checkpoint: { path: file('plateau.pt') } });
      const { history } = await trainer.run();
      expect(seen).to.deep.equal(
        history.epochs.map(({ validation }) => (mode === 'min' ? validation?.loss : validation?.accuracy)),
      );
      expect(history.epochs.map(({ learningRate }) => learningRate.toFixed(6))).to.deep.equal([
        '0.010000',
        '0.010000',
        '0.001000',
      ]);
      const saved = await readTrainingCheckpoint(file('plateau.pt'));
      const again = make({ model, optimizer, scheduler });
      again.trainer.restore(saved);
    }
  });

  it('trains networks of the user, whose dropout goes on from the same draws', async () => {
    const controller = new AbortController();
    const net = (): Partial<TrainerOptions> => {
      manualSeed(3);
      const model = new Sequential(
        new Conv2d(3, 6, 3),
        new ReLU(),
        new Dropout(0.5),
        new Flatten(),
        new Linear(6 * 6 * 6, CLASSES.length),
      );
      const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
      return { model, optimizer, scheduler: new StepLR(optimizer, { stepSize: 2 }) };
    };
    const whole = make(net());
    const { history } = await whole.trainer.run();
    expect(history.epochs[2]?.loss).to.be.below((history.epochs[0]?.loss ?? 0) * 0.8);
    const place = file('own.pt');
    const first = make({
      ...net(),
      checkpoint: { path: place },
      signal: controller.signal,
      onProgress: ({ step }) => {
        if (step === BATCHES + 1) controller.abort();
      },
    });
    await expectRejection(first.trainer.run(), 'ERR_SENET_ABORTED');
    const second = make(net());
    second.trainer.restore(await readTrainingCheckpoint(place));
    await second.trainer.run();
    expect(digest(second.model)).to.equal(digest(whole.model));
  });

  it('validates the moving average and trains on with the weights themselves', async () => {
    manualSeed(3);
    const model = se_resnet20({ numClasses: CLASSES.length });
    const ema = new ExponentialMovingAverage(model, { decay: 0.5 });
    const seen: string[] = [];
    const averaged = make({ model, ema, onBest: () => void seen.push(digest(model)) });
    const plain = make();
    await averaged.trainer.run();
    await plain.trainer.run();
    expect(digest(model)).to.equal(digest(plain.model));
    expect(seen).to.have.length.above(0);
    expect(seen).not.to.include(digest(model));
  });

  it('leaves frozen parts alone, their statistics too', async () => {
    manualSeed(3);
    const model = se_resnet20({ numClasses: CLASSES.length });
    const part = model.getSubmodule('layer1');
    for (const parameter of part.parameters()) parameter.requiresGrad = false;
    const before = digest(part);
    const rest = digest(model.getSubmodule('layer2'));
    const { trainer } = make({
      model,
      optimizer: new SGD(
        model.parameters().filter(({ requiresGrad }) => requiresGrad),
        { lr: 0.05 },
      ),
      frozen: [part],
    });
    await trainer.run();
    expect(digest(part)).to.equal(before);
    expect(digest(model.getSubmodule('layer2'))).not.to.equal(rest);
  });

  it('checks floating tensors alone, whatever their size, before it saves', async () => {
    manualSeed(3);
    const model = new Sequential(new Flatten(), new Linear(3 * 64, 3));
    model.registerBuffer('counts', tensor([1, 2], { dtype: 'int32' }));
    model.registerBuffer('large', tensor([1e20, 1e20]));
    model.registerBuffer('none', zeros([0]));
    const checkpoint = { path: file('buffers.pt') };
    await make({ model, checkpoint, epochs: 1 }).trainer.run();
    expect(existsSync(checkpoint.path)).to.equal(true);
  });

  describe('bad input', () => {
    it('a loss that is not a number stops the run, names the step, and keeps the last good checkpoint', async () => {
      const clean = smallDataset(16);
      let asked = 0;
      const poisoned: Dataset = {
        length: 16,
        get(index) {
          const { image, label } = clean.get(index);
          // The third batch of the second epoch holds NaNs.
          const scale = ++asked > 16 + 8 ? NaN : 1 / 255;
          return { image: image.to('float32').mul(scale), label };
        },
      };
      const place = file('nan.pt');
      const { trainer } = make({
        train: new DataLoader(poisoned, { batchSize: 4, prefetch: 0 }),
        checkpoint: { path: place },
        log: file('nan.jsonl'),
      });
      const error = await expectRejection(
        trainer.run(),
        'ERR_SENET_NAN_LOSS',
        /training step 7 \(epoch 2\): the loss is NaN.*since step 4/,
      );
      expect(error.details).to.deep.equal({ step: 7, epoch: 2 });
      const { position, model } = await readTrainingCheckpoint(place);
      expect(position.step).to.equal(4);
      for (const parameter of model.values())
        expect(Array.from(parameter.toTypedArray(), Number).every(Number.isFinite)).to.equal(true);
      expect(readFileSync(file('nan.jsonl'), 'utf8')).to.match(/"event":"failed".*ERR_SENET_NAN_LOSS.*\n$/);
    });

    it('weights that are not finite never become a checkpoint', async () => {
      manualSeed(3);
      const model = se_resnet20({ numClasses: CLASSES.length });
      const { trainer } = make({
        model,
        checkpoint: { path: file('infinite.pt'), everySteps: 1 },
        loss: {
          // The slope of a square root at 0 is infinite: the weights are spoilt by the very step whose loss was fine.
          forward: async (logits, labels) =>
            (await new CrossEntropyLoss().forward(logits, labels)).add(
              logits.sub(logits.detach()).sqrt().sum(),
            ),
        },
      });
      await expectRejection(trainer.run(), 'ERR_SENET_NAN_LOSS', /after training step 1: '.*' is not finite/);
      expect(existsSync(file('infinite.pt'))).to.equal(false);
    });

    it('a label that no output of the network is for', async () => {
      const samples = Array.from({ length: 8 }, (_, index) => ({
        image: rand([3, 8, 8]),
        label: index === 5 ? 3 : 0,
      }));
      const { trainer } = make({ train: new DataLoader(samples, { batchSize: 4 }), classes: CLASSES });
      await expectRejection(
        trainer.run(),
        'ERR_SENET_LABELS',
        /training step 2: image 5 has the label 3; the network has 3 classes \(0 to 2\)/,
      );
      const negative = [{ image: rand([3, 8, 8]), label: -1 }];
      await expectRejection(
        make({ train: new DataLoader(negative) }).trainer.run(),
        'ERR_SENET_LABELS',
        /image 0 has the label -1/,
      );
      const validation = new DataLoader(samples, { batchSize: 8 });
      await expectRejection(make({ validation }).trainer.run(), 'ERR_SENET_LABELS', /evaluation: image 5/);
    });

    it('a network with another number of outputs than there are classes', async () => {
      const { trainer } = make({ classes: [...CLASSES, 'fourth'] });
      await expectRejection(trainer.run(), 'ERR_SENET_LABELS', /4 classes and the network 3 outputs/);
    });

    it('a batch of one whose maps are 1 x 1', async () => {
      manualSeed(3);
      const model = se_resnet18({ numClasses: 2 });
      const images = Array.from({ length: 3 }, (_, label) => ({
        image: rand([3, 32, 32]),
        label: label % 2,
      }));
      const optimizer = new SGD(model.parameters(), { lr: 0.01 });
      const given = { model, optimizer, classes: ['a', 'b'], validation: undefined };
      const { trainer } = make({
        ...(given as unknown as Partial<TrainerOptions>),
        train: new DataLoader(images, { batchSize: 2 }),
        scheduler: new StepLR(optimizer, { stepSize: 1 }),
      });
      await expectRejection(
        trainer.run(),
        'ERR_SENET_SHAPE',
        /training step 2: a batch of one image: .*more than 1 value per channel.*dropLast/,
      );
    });

    it('parts that are none', () => {
      const { model } = make();
      const optimizer = new SGD(model.parameters(), { lr: 0.1 });
      const whole = { model, optimizer, train: trainLoader(smallDataset(8)), epochs: 1 };
      for (const [name, values] of Object.entries({
        model: [null, 5],
        train: [null, { length: 3 }, [1, 2]],
        validation: [null, { length: 1 }],
        optimizer: [null, {}],
        scheduler: [{}],
        loss: [{}],
        ema: [null, {}],
        frozen: [null, [null], 5, new Array(1)],
        classes: [null, [1]],
        onProgress: [null, 5],
        onBest: [5],
      }))
        for (const value of values)
          expectThrow(
            () => new Trainer({ ...whole, [name]: value }),
            'ERR_SENET_ARG_TYPE',
            new RegExp(`Trainer: ${name}: expected`),
          );
      for (const value of [null, {}, 5, { identity: null }])
        expectThrow(() => new Trainer(whole).restore(value as never), 'ERR_SENET_ARG_TYPE', /restore/);
    });

    it('batches that are none', async () => {
      for (const batch of [undefined, {}, { images: zeros([1, 3, 32, 32]) }]) {
        const train = trainLoader(smallDataset(8));
        const odd = Object.assign(Object.create(train) as typeof train, {
          // eslint-disable-next-line @typescript-eslint/require-await -- nothing to wait for
          async *[Symbol.asyncIterator]() {
            yield batch;
          },
        });
        const { model } = make();
        const optimizer = new SGD(model.parameters(), { lr: 0.1 });
        const loader = {
          length: 1,
          dataset: train.dataset,
          stateDict: () => train.stateDict(),
          loadStateDict: () => undefined,
          [Symbol.asyncIterator]: () => odd[Symbol.asyncIterator](),
        };
        const trainer = new Trainer({ model, optimizer, train: loader as never, epochs: 1 });
        await expectRejection(trainer.run(), 'ERR_SENET_ARG_TYPE', /training step 1: expected a batch/);
      }
    });

    it('an async onProgress that rejects ends the run with its error', async () => {
      const rejecting: unknown = () => Promise.reject(new Error('the screen is gone'));
      const { trainer } = make({ onProgress: rejecting as NonNullable<TrainerOptions['onProgress']> });
      expect(await trainer.run().catch((error: unknown) => (error as Error).message)).to.equal(
        'the screen is gone',
      );
    });

    it('a forward that holds the average while it is to go: the trained weights come back', async () => {
      const model = se_resnet20({ numClasses: CLASSES.length });
      const held: Promise<unknown>[] = [];
      const { trainer } = make({
        model,
        ema: new ExponentialMovingAverage(model, { decay: 0.5 }),
        onBest: () => {
          held.push((model as Module).forward(rand([8, 3, 32, 32])));
        },
      });
      await trainer.run();
      await Promise.all(held);
      expect(held.length).to.be.above(0);
    });

    it('a checkpoint of another model, data set, length or kind; nothing is changed by it', async () => {
      const place = file('other.pt');
      await make({ checkpoint: { path: place } }).trainer.run();
      const checkpoint = await readTrainingCheckpoint(place);
      const wider = make({ model: se_resnet20({ numClasses: 5 }), classes: ['a', 'b', 'c', 'd', 'e'] });
      const before = digest(wider.model);
      expectThrow(() => wider.trainer.restore(checkpoint), 'ERR_SENET_RESUME', /another model: .*fc/s);
      expect(digest(wider.model)).to.equal(before);
      for (const [changes, words] of [
        [{ train: trainLoader(smallDataset(IMAGES - 1)) }, /training images 44, this one 43/],
        [
          { train: trainLoader(smallDataset(IMAGES), { batchSize: 4 }) },
          /batches in an epoch 6, this one 11/,
        ],
        [{ validation: testLoader(smallDataset(21, 2)) }, /validation images 20, this one 21/],
        [{ epochs: EPOCHS + 1 }, /epochs 3, this one 4/],
        [{ epochs: EPOCHS - 1 }, /epochs 3, this one 2/],
        [{ accumulate: 2 }, /batches in a step 1, this one 2/],
        [{ precision: 'bfloat16' }, /precision float32, this one bfloat16/],
        [{ gradScaler: new GradScaler() }, /no gradient scaler, and this one has one/],
      ] as [Partial<TrainerOptions>, RegExp][]) {
        const { trainer, model } = make(changes);
        const untouched = digest(model);
        expectThrow(() => trainer.restore(checkpoint), 'ERR_SENET_RESUME', words);
        expect(digest(model)).to.equal(untouched);
      }
      // The model would fit, and another part does not: an optimiser of another kind, after a step of its own.
      const model = se_resnet20({ numClasses: CLASSES.length });
      const optimizer = new AdamW(model.parameters(), { lr: 0.01 });
      for (const parameter of model.parameters()) parameter.grad = ones(parameter.shape);
      await optimizer.step();
      const scheduler = new OneCycleLR(optimizer, { maxLr: 0.1, totalSteps: 100 });
      const other = make({ model, optimizer, scheduler });
      const [weightsBefore, generator] = [digest(model), getRngState().toTypedArray()];
      const moments = (): unknown =>
        [...optimizer.stateDict().state].map(([key, fields]) => [
          key,
          Object.entries(fields).map(([name, tensor]) => [name, tensor.toTypedArray()]),
        ]);
      const [momentsBefore, rates] = [moments(), scheduler.stateDict()];
      expectThrow(() => other.trainer.restore(checkpoint), 'ERR_SENET_RESUME', /another optimiser: /);
      expect(digest(model)).to.equal(weightsBefore);
      expect(moments()).to.deep.equal(momentsBefore);
      expect(scheduler.stateDict()).to.deep.equal(rates);
      expect(getRngState().toTypedArray()).to.deep.equal(generator);
      // A part after the optimiser does not fit: what schedulers wrote into the checkpoint's groups goes again.
      const plain = new SGD(model.parameters(), { lr: 0.5, momentum: 0.9 });
      const ema = new ExponentialMovingAverage(model);
      const { trainer: late } = make({ model, optimizer: plain, scheduler: undefined as never, ema });
      const untouched = [digest(model), plain.stateDict()];
      const kept = { ...checkpoint, scheduler: null, average: new StateDict([['x', zeros([1])]]) };
      expectThrow(() => late.restore(kept), 'ERR_SENET_RESUME', /another moving average/);
      expect([digest(model), plain.stateDict()]).to.deep.equal(untouched);
      // A part that is busy, of which no state can be taken.
      const updating = ema.update();
      expectThrow(() => late.restore(kept), 'ERR_SENET_BUSY');
      expect([digest(model), plain.stateDict()]).to.deep.equal(untouched);
      await updating;
      const weights = path.join(__dirname, '..', 'fixtures', 'se_resnet20-zip.pt');
      await expectRejection(
        readTrainingCheckpoint(weights),
        'ERR_SENET_RESUME',
        /expected a checkpoint that a training run/,
      );
      await expectRejection(
        readTrainingCheckpoint(path.join(__dirname, '..', 'fixtures', 'training-checkpoint.pt')),
        'ERR_SENET_RESUME',
      );
      writeFileSync(file('cut.pt'), readFileSync(place).subarray(0, 50_000));
      await expectRejection(readTrainingCheckpoint(file('cut.pt')), 'ERR_SENET_CHECKPOINT_FORMAT');
    });

    it('a disk that is full while a checkpoint is saved: the old one survives', async () => {
      const place = file('full.pt');
      await make({ checkpoint: { path: place } }).trainer.run();
      const old = readFileSync(place);
      // A limit on the size of files is what a full disk is to one process; Node ignores the signal that comes with it.
      const script = file('full.js');
      const load = (name: string): string => JSON.stringify(path.join(__dirname, '..', '..', 'lib', name));
      writeFileSync(
        script,
        `const { readTrainingCheckpoint, writeTrainingCheckpoint } = require(${load('train/training-checkpoint.ts')});
         readTrainingCheckpoint(${JSON.stringify(place)})
           .then((checkpoint) => writeTrainingCheckpoint(${JSON.stringify(place)}, checkpoint))
           .then(() => console.log('saved'), ({ code, message }) => console.log(code, message));`,
      );
      const command = `ulimit -f 200; exec "$0" --require tsx/cjs "$1"`;
      const child = spawn('bash', ['-c', command, process.execPath, script], {
        cwd: path.join(__dirname, '..', '..'),
      });
      let out = '';
      child.stdout.on('data', (data: Buffer) => (out += data.toString()));
      const code = await new Promise((resolve) => child.on('close', resolve));
      expect(out).to.match(/^ERR_SENET_FILE .*full\.pt could not be written/);
      expect(code).to.equal(0);
      expect(readFileSync(place).equals(old)).to.equal(true);
      expect(readdirSync(temporary.folder).filter((name) => name.endsWith('.tmp'))).to.deep.equal([]);
    });

    it('a folder that does not exist, for checkpoint and log', async () => {
      const nowhere = file('none/run.pt');
      await expectRejection(
        make({ checkpoint: { path: nowhere } }).trainer.run(),
        'ERR_SENET_FILE_NOT_FOUND',
      );
      await expectRejection(
        make({ log: file('none/log.jsonl') }).trainer.run(),
        'ERR_SENET_FILE_NOT_FOUND',
        /log/,
      );
    });

    it('options that are none', () => {
      expectThrow(() => make({ epochs: 0 }), 'ERR_SENET_ARG_RANGE', /epochs/);
      expectThrow(() => make({ precision: 'float16' as 'bfloat16' }), 'ERR_SENET_ARG_RANGE', /precision/);
      expectThrow(() => make({ clipGradNorm: NaN }), 'ERR_SENET_ARG_RANGE', /clipGradNorm/);
      expectThrow(
        () => make({ batchSize: 3 } as Partial<TrainerOptions>),
        'ERR_SENET_UNKNOWN_OPTION',
        /batchSize/,
      );
      const notAModule = {
        model: tensor([1]),
        train: 1,
        optimizer: 1,
        epochs: 1,
      } as unknown as TrainerOptions;
      expectThrow(() => new Trainer(notAModule), 'ERR_SENET_ARG_TYPE', /model/);
      expectThrow(
        () => new Trainer({ epochs: 1 } as TrainerOptions),
        'ERR_SENET_ARG_MISSING',
        /model is required/,
      );
    });

    it('a second run of the same object', async () => {
      const { trainer } = make({ epochs: 1, scheduler: undefined as never });
      await trainer.run();
      await expectRejection(trainer.run(), 'ERR_SENET_BUSY');
    });
  });
});
