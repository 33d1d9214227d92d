/**
 * The training loop: epochs of optimiser steps with validation, a log, progress, and checkpoints from which an
 * interrupted run goes on and ends with the same weights, bit for bit.
 *
 * Given a DistributedDataParallel it is one of several that train together: all take the same steps, read the same losses
 * and stop at the same step; the first of them writes.
 *
 * Every step's work is jobs of the executor; the event loop stays free, and the loader makes the next batches ready
 * meanwhile. Knows no model by name, no data set and no terminal.
 */

import { performance } from 'node:perf_hooks';

import { isPromise } from '../brands';
import type { Batch } from '../data/loader';
import { isSenetError, makeError } from '../errors';
import { CrossEntropyLoss } from '../nn/losses';
import type { Module } from '../nn/module';
import { clipGradNorm_ } from '../optim/clip';
import { GradScaler } from '../optim/grad-scaler';
import { OneCycleLR } from '../optim/one-cycle';
import { ReduceLROnPlateau } from '../optim/plateau';
import { checkInteger, describe } from '../tensor/options';
import { tensor } from '../tensor/factories';
import { readOptions, type Values } from '../tensor/rules';
import { getRngState, setRngState } from '../tensor/runtime';
import { tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { disposeBatches, inGroups } from './batch-groups';
import { Companions } from './companions';
import { evaluate } from './evaluation';
import { forwardToLoss, inPrecision } from './forward-to-loss';
import type { EpochRecord, StepRecord, TrainingHistory } from './history';
import { StepReadings, sum } from './readings';
import { atWorldSize, checkSameRun, restoreParts, type Part } from './restore-run';
import { RunPace } from './run-pace';
import type { Criterion } from './step';
import { TRAINER_RULES, type TrainerOptions, type TrainingProgress } from './trainer-options';
import {
  NO_TOTALS,
  writeTrainingCheckpoint,
  type Position,
  type RunIdentity,
  type Totals,
  type TrainingCheckpoint,
} from './training-checkpoint';
import { TrainingLog, type ResumePoint } from './training-log';
import { firstNotFinite, withAverage } from './training-weights';

export type { BatchLoader, CheckpointOptions, TrainerOptions, TrainingProgress } from './trainer-options';

export interface TrainingResult {
  readonly history: TrainingHistory;
  /** The best epoch's record; null if no epoch was done. */
  readonly best: EpochRecord | null;
  readonly steps: number;
  /** Of training, all interruptions left out. */
  readonly seconds: number;
  /** Whether `patience` ended the run before all its epochs were done. */
  readonly stoppedEarly: boolean;
}

/**
 * Trains a model. A native model on the CPU gets its images in channels-last order, which is faster than PyTorch's
 * default layout and rounds differently; a loop of one's own gives them as it likes.
 *
 * @example
 * const trainer = new Trainer({ model, train, validation, optimizer, scheduler, epochs: 10, checkpoint: { path: 'run.pt' } });
 * const { best } = await trainer.run();
 */
export class Trainer {
  readonly #options: Values<typeof TRAINER_RULES>;
  readonly #loss: Criterion;
  readonly #scaler: GradScaler | undefined;
  readonly #readings: StepReadings;
  readonly #companions: Companions;
  /** What computes: the model, or what is inside of a DistributedDataParallel. */
  readonly #network: Module<unknown>;
  #position: Position = {
    epoch: 0,
    stepInEpoch: 0,
    trained: false,
    step: 0,
    totals: NO_TOTALS,
    seconds: 0,
    pending: NO_TOTALS,
    learningRate: 0,
    best: null,
  };
  /** The state of the training loader at that position: it may have given out batches of a step that was not done. */
  #loader: unknown;
  /** Whether a step is under way, which may have changed anything: there is nothing to save. */
  #isStepping = false;
  #steps: StepRecord[] = [];
  #epochs: EpochRecord[] = [];
  #started = false;
  #resumed = false;
  #progressError: { error: unknown } | undefined;
  readonly #pace = new RunPace();
  /** What the checkpoint on disk holds: nothing new needs no second save. */
  #saved: Position | undefined;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: TrainerOptions) {
    this.#options = readOptions(options, TRAINER_RULES, 'Trainer');
    const { loss, precision, device, gradScaler } = this.#options;
    if (precision === 'float16' && device === 'cpu') {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        "Trainer: precision: 'float16' is for a CUDA device; on the CPU there are 'float32' and 'bfloat16'",
      );
    }
    this.#loss = loss ?? new CrossEntropyLoss();
    this.#companions = new Companions(this.#options.model, this.#options.signal);
    this.#network = this.#companions.parallel?.module ?? this.#options.model;
    this.#scaler = gradScaler ?? (precision === 'float16' ? new GradScaler() : undefined);
    this.#readings = new StepReadings(device === 'cpu' ? 0 : 1);
    for (const loader of [options.train, options.validation]) {
      // Progress, schedules and resuming count batches; a stream's loader throws that it cannot.
      if (loader !== undefined) checkInteger(loader.length, 'Trainer: batches of a loader', 1);
    }
  }

  /**
   * Puts model, optimiser, scheduler, loader and random generator where a checkpoint left them; `run` goes on there.
   * Nothing is changed unless the checkpoint fits.
   *
   * @param checkpoint - from `readTrainingCheckpoint`; stays the caller's to dispose
   * @throws ERR_SENET_RESUME if it belongs to another model, data set or number of batches, to a run of
   *   more epochs, or with OneCycleLR of fewer
   */
  restore(checkpoint: TrainingCheckpoint): void {
    const { optimizer, scheduler, ema, train } = this.#options;
    if (!isObject(checkpoint) || !isObject(checkpoint.identity))
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `restore: expected what readTrainingCheckpoint gave, got ${describe(checkpoint)}`,
      );
    if (this.#started) throw makeError('ERR_SENET_BUSY', 'Trainer: restore before run');
    const identity = this.#identity();
    checkSameRun(identity, checkpoint.identity, scheduler instanceof OneCycleLR);
    const [steps, epochs] = [[...checkpoint.history.steps], [...checkpoint.history.epochs]];
    const { position, loader } = atWorldSize(checkpoint, identity, train.stateDict());
    restoreParts([
      ['model', this.#network, checkpoint.model],
      ['optimiser', optimizer, checkpoint.optimizer],
      ['scheduler', scheduler, checkpoint.scheduler],
      ['moving average', ema, checkpoint.average],
      ['gradient scaler', this.#scaler, checkpoint.scaler],
      ['data loader', train as Part, loader],
      ['random generator', { stateDict: getRngState, loadStateDict: setRngState }, checkpoint.generator],
    ]);
    this.#position = position;
    this.#steps = steps;
    this.#epochs = epochs;
    this.#saved = position;
    this.#resumed = true;
  }

  /**
   * Trains until all epochs are done.
   *
   * @throws (rejects) ERR_SENET_NAN_LOSS, naming the step: the checkpoint on disk is older and good; ERR_SENET_LABELS (a
   *   label that is none of the classes, or a network with another number of outputs); ERR_SENET_SHAPE; ERR_SENET_FILE
   *   (the checkpoint or the log could not be written); ERR_SENET_ABORTED after a checkpoint was saved (not where a step
   *   itself was aborted, by its model or loss: the one on disk stays); what the loader throws
   */
  async run(): Promise<TrainingResult> {
    if (this.#started)
      throw makeError('ERR_SENET_BUSY', 'Trainer: run was called before; make another Trainer');
    this.#started = true;
    this.#loader = this.#options.train.stateDict();
    const { log: path, epochs, settings } = this.#options;
    const log =
      path === undefined || !this.#companions.isMain
        ? undefined
        : await TrainingLog.open(path, this.#resumed ? this.#resumePoint() : undefined);
    try {
      await log?.write(this.#resumed ? 'resume' : 'start', this.#position.step, {
        ...this.#identity(),
        settings: settings ?? null,
      });
      this.#throwIfAborted();
      while (this.#position.epoch < epochs && !this.#isOutOfPatience) await this.#runEpoch(log);
      if (this.#progressError !== undefined) throw this.#progressError.error;
      const result = this.#result();
      const { best, seconds, stoppedEarly } = result;
      await log?.write('end', this.#position.step, { best, seconds, stoppedEarly });
      return result;
    } catch (error) {
      await this.#companions.report(error);
      await this.#stopped(error, log);
      throw error;
    } finally {
      await log?.close();
    }
  }

  #resumePoint(): ResumePoint {
    const { step, epoch } = this.#position;
    return { step, recordedStep: this.#steps.at(-1)?.step ?? 0, recordedEpoch: epoch };
  }

  async #stopped(error: unknown, log: TrainingLog | undefined): Promise<void> {
    const aborted = this.#companions.isStopping && isSenetError(error) && error.code === 'ERR_SENET_ABORTED';
    if (aborted && !this.#isStepping) await this.#save(log);
    const facts = isSenetError(error)
      ? { code: error.code, message: error.message }
      : { message: String(error) };
    // A log that cannot be written must not hide why the run stopped.
    await log
      ?.write(aborted ? 'interrupted' : 'failed', this.#position.step, aborted ? {} : facts)
      .catch(() => undefined);
  }

  async #runEpoch(log: TrainingLog | undefined): Promise<void> {
    const { model, train, scheduler, frozen, checkpoint, accumulate } = this.#options;
    if (!this.#position.trained) {
      model.train();
      for (const part of frozen) part.eval();
      let began = performance.now();
      const where = (): string => `training step ${this.#position.step + 1}`;
      for await (const { batches, loader } of inGroups(train, accumulate, where)) {
        const learningRate = this.#options.optimizer.paramGroups[0]?.lr ?? 0;
        this.#isStepping = true;
        await tidy(() => this.#step(batches)).finally(() => disposeBatches(batches));
        if (this.#schedulerEvery() === 'step') scheduler?.step();
        this.#advance(learningRate, loader);
        const { step, stepInEpoch } = this.#position;
        const everySteps = checkpoint?.everySteps;
        const saves = everySteps !== undefined && step % everySteps === 0;
        const records = step % this.#options.recordEvery === 0;
        const first = this.#position.totals.images === 0; // there would be nothing to report
        const all = first || saves || records || this.#companions.isStopping;
        this.#count(await this.#readings.take(all), (performance.now() - began) / 1000);
        if (records) await this.#record(log);
        this.#report('training', stepInEpoch, this.#stepsPerEpoch);
        if (saves) await this.#save(log);
        this.#throwIfAborted();
        began = performance.now();
      }
      this.#count(await this.#readings.take(true), 0);
      if (this.#position.totals.images === 0)
        throw makeError(
          'ERR_SENET_DATASET',
          `training epoch ${this.#position.epoch + 1}: the loader gave no image`,
        );
      if (this.#position.pending.images > 0) await this.#record(log);
      this.#position = { ...this.#position, trained: true };
      this.#loader = train.stateDict();
    }
    await this.#finishEpoch(log);
  }

  /** Forward, loss and backward of each batch, optimiser. */
  async #step(batches: readonly Batch[]): Promise<void> {
    const { model, optimizer, clipGradNorm, ema } = this.#options;
    const step = this.#position.step + 1;
    const epoch = this.#position.epoch + 1;
    const where = `training step ${step}`;
    const scaler = this.#scaler;
    const images = batches.reduce((count, batch) => count + (batch.images.shape[0] ?? 0), 0);
    const learnt: { loss: Tensor; right: Tensor }[] = [];
    const learn = async (batch: Batch): Promise<void> => {
      const forward = { ...this.#options, network: this.#network, loss: this.#loss };
      const { loss, right } = await forwardToLoss(batch, forward, where);
      // Of the mean over all images of the step.
      const share = (batch.images.shape[0] ?? 0) / images;
      const part = share === 1 ? loss : loss.mul(share);
      if (learnt.length === 0) optimizer.zeroGrad();
      await (scaler?.scale(part) ?? part).backward();
      learnt.push({ loss: part.detach(), right });
    };
    const { parallel } = this.#companions;
    // Gradients are averaged over the processes with the last batch of the step.
    for (const [index, batch] of batches.entries())
      await (parallel === null || index === batches.length - 1
        ? learn(batch)
        : parallel.noSync(() => learn(batch)));
    const all = learnt.reduce((sum, { loss, right }) => ({
      loss: sum.loss.add(loss),
      right: sum.right.add(right),
    }));
    const read = await this.#ofAll(all, images);
    this.#readings.add(read.loss, read.right, {
      images: read.images,
      check: (value) => {
        if (Number.isFinite(value)) return;
        throw makeError(
          'ERR_SENET_NAN_LOSS',
          `${where} (epoch ${epoch}): the loss is ${value}; nothing was saved since step ${this.#saved?.step ?? 0}. A lower learning rate, clipGradNorm or a look at the data may help`,
          { details: { step, epoch } },
        );
      },
    });
    if (clipGradNorm !== undefined) {
      await scaler?.unscale_(optimizer);
      await clipGradNorm_(model.parameters(), clipGradNorm);
    }
    await (scaler === undefined ? optimizer.step() : scaler.step(optimizer));
    scaler?.update();
    await ema?.update();
  }

  /** What a step came to on all processes together. */
  async #ofAll(
    own: { readonly loss: Tensor; readonly right: Tensor },
    images: number,
  ): Promise<{ readonly loss: Tensor; readonly right: Tensor; readonly images: number }> {
    if (this.#companions.parallel === null) return { ...own, images };
    const [loss, right, count] = await this.#companions.sum([
      Number(own.loss.item()) * images,
      Number(own.right.item()),
      images,
    ]);
    return { loss: tensor(loss / count, { dtype: 'float64' }), right: tensor(right), images: count };
  }

  #advance(learningRate: number, loader: unknown): void {
    const { step, stepInEpoch } = this.#position;
    this.#isStepping = false;
    this.#loader = loader;
    this.#position = { ...this.#position, step: step + 1, stepInEpoch: stepInEpoch + 1, learningRate };
  }

  /** What was read of steps that are done; and how long the last step took, if one was. */
  #count(done: Totals, seconds: number): void {
    const position = this.#position;
    this.#position = {
      ...position,
      totals: sum(position.totals, done),
      pending: sum(position.pending, done),
      seconds: position.seconds + seconds,
    };
    if (seconds > 0) this.#pace.stepTook(seconds);
  }

  async #record(log: TrainingLog | undefined): Promise<void> {
    const { step, epoch, pending, learningRate } = this.#position;
    const record = { step, epoch: epoch + 1, ...means(pending), learningRate };
    this.#steps.push(record);
    this.#position = { ...this.#position, pending: NO_TOTALS };
    const imagesPerSecond = this.#imagesPerSecond();
    await log?.write('steps', step, { ...record, imagesPerSecond: Math.round(imagesPerSecond) });
  }

  async #finishEpoch(log: TrainingLog | undefined): Promise<void> {
    const { ema, epochs, checkpoint, scheduler, onBest } = this.#options;
    const record = await withAverage(this.#network, ema, async () => {
      const validation = await this.#validate();
      const { epoch, step, totals, seconds, learningRate, best } = this.#position;
      const training = means(totals);
      const value = validation === null ? -training.loss : validation.accuracy;
      const made: EpochRecord = {
        epoch: epoch + 1,
        step,
        ...training,
        learningRate,
        validation,
        best: best === null || value > best.value,
        seconds,
        imagesPerSecond: totals.images / seconds,
      };
      if (made.best) {
        await this.#checkFinite();
        if (this.#companions.isMain) await onBest?.(made);
        this.#position = { ...this.#position, best: { epoch: made.epoch, value } };
      }
      return made;
    });
    if (scheduler instanceof ReduceLROnPlateau) {
      const seen = record.validation ?? record;
      scheduler.step(scheduler.mode === 'min' ? seen.loss : seen.accuracy);
    } else if (this.#schedulerEvery() === 'epoch') scheduler?.step();
    this.#epochs.push(record);
    this.#position = {
      ...this.#position,
      epoch: this.#position.epoch + 1,
      stepInEpoch: 0,
      trained: false,
      totals: NO_TOTALS,
      seconds: 0,
    };
    await log?.write('epoch', record.step, record);
    this.#report('validation', 1, 1, record);
    const everyEpochs = checkpoint?.everyEpochs ?? null;
    const due = everyEpochs !== null && this.#position.epoch % everyEpochs === 0;
    const complete = this.#position.epoch === epochs || this.#isOutOfPatience;
    if (due || complete) await this.#save(log);
    if (!complete) this.#throwIfAborted();
  }

  async #validate(): Promise<{ loss: number; accuracy: number } | null> {
    const { validation, device } = this.#options;
    const { parallel } = this.#companions;
    if (validation === undefined) return null;
    // What is saved, and validated, are the statistics of rank 0.
    await parallel?.syncBuffers();
    const began = performance.now();
    let batch = 0;
    const { loss, accuracy, count } = await evaluate(this.#network, validation, {
      loss: this.#loss,
      device,
      inPrecision: (work) => inPrecision(this.#options.precision, work),
      onBatch: () => {
        // Others would wait for this process's sums.
        if (parallel === null) this.#throwIfAborted();
        this.#report('validation', ++batch, validation.length);
      },
    });
    this.#pace.validationTook((performance.now() - began) / 1000, validation.length);
    const [lossSum, right, all] = await this.#companions.sum([loss * count, accuracy * count, count]);
    return parallel === null ? { loss, accuracy } : { loss: lossSum / all, accuracy: right / all };
  }

  /** Saves where the run stands, unless the file holds just that. */
  async #save(log: TrainingLog | undefined): Promise<void> {
    const { checkpoint, optimizer, scheduler, ema, settings = null } = this.#options;
    if (!this.#companions.isMain || checkpoint === undefined || this.#saved === this.#position) return;
    if (this.#readings.outstanding > 0) this.#count(await this.#readings.take(true), 0);
    await this.#checkFinite();
    const state = this.#network.stateDict();
    const average = ema?.stateDict() ?? null;
    const generator = getRngState();
    try {
      await writeTrainingCheckpoint(checkpoint.path, {
        identity: this.#identity(),
        position: this.#position,
        history: { steps: this.#steps, epochs: this.#epochs },
        settings,
        model: state,
        optimizer: optimizer.stateDict(),
        scheduler: scheduler?.stateDict() ?? null,
        average,
        scaler: this.#scaler?.stateDict() ?? null,
        loader: this.#loader,
        generator,
      });
    } finally {
      state.dispose();
      average?.dispose();
      generator.dispose();
    }
    this.#saved = this.#position;
    await log?.write('checkpoint', this.#position.step);
  }

  /** A checkpoint must be one to go on from: weights that are not finite never replace it. */
  async #checkFinite(): Promise<void> {
    const bad = await firstNotFinite(this.#network);
    if (bad === null) return;
    const { step, epoch } = this.#position;
    throw makeError(
      'ERR_SENET_NAN_LOSS',
      `after training step ${step}: '${bad}' is not finite; nothing was saved since step ${this.#saved?.step ?? 0}`,
      { details: { step, epoch: epoch + 1 } },
    );
  }

  get #stepsPerEpoch(): number {
    return Math.ceil(this.#options.train.length / this.#options.accumulate);
  }

  /** Whether no epoch of so many was better than the ones before. */
  get #isOutOfPatience(): boolean {
    const { patience } = this.#options;
    const { epoch, best } = this.#position;
    return patience !== undefined && best !== null && epoch - best.epoch >= patience;
  }

  #schedulerEvery(): 'step' | 'epoch' {
    const { scheduler, schedulerEvery } = this.#options;
    return schedulerEvery ?? (scheduler instanceof OneCycleLR ? 'step' : 'epoch');
  }

  #identity(): RunIdentity {
    const { epochs, train, validation, precision, accumulate } = this.#options;
    return {
      epochs,
      trainImages: train.dataset?.length ?? 0,
      batchesPerEpoch: train.length,
      accumulate,
      validationImages: validation?.dataset?.length ?? null,
      precision,
      worldSize: this.#companions.worldSize,
    };
  }

  #throwIfAborted(): void {
    if (this.#progressError !== undefined) throw this.#progressError.error;
    this.#companions.throwIfStopping();
  }

  #imagesPerSecond(): number {
    const { totals, stepInEpoch } = this.#position;
    return this.#pace.imagesPerSecond(totals.images, stepInEpoch - this.#readings.outstanding);
  }

  #report(
    phase: TrainingProgress['phase'],
    batch: number,
    batches: number,
    finished: EpochRecord | null = null,
  ): void {
    const { onProgress, epochs } = this.#options;
    if (onProgress === undefined || !this.#companions.isMain) return;
    const { epoch, step, totals, learningRate } = this.#position;
    const tell: (progress: TrainingProgress) => unknown = onProgress;
    const told = tell({
      phase,
      epoch: finished?.epoch ?? epoch + 1,
      epochs,
      batch,
      batches,
      step,
      steps: epochs * this.#stepsPerEpoch,
      ...(finished === null ? means(totals) : { loss: finished.loss, accuracy: finished.accuracy }),
      learningRate,
      imagesPerSecond: finished?.imagesPerSecond ?? this.#imagesPerSecond(),
      secondsLeft: this.#secondsLeft(),
      finished,
    });
    // One that is async may reject; the run ends with that as with what one throws.
    if (isPromise(told)) told.catch((error: unknown) => (this.#progressError ??= { error }));
  }

  #secondsLeft(): number | null {
    const { epochs, validation } = this.#options;
    const { step, epoch } = this.#position;
    return this.#pace.secondsLeft(
      epochs * this.#stepsPerEpoch - step,
      validation === undefined ? 0 : (epochs - epoch) * validation.length,
    );
  }

  #result(): TrainingResult {
    const { best, step } = this.#position;
    return {
      history: { steps: this.#steps, epochs: this.#epochs },
      best: this.#epochs.find(({ epoch }) => epoch === best?.epoch) ?? null,
      steps: step,
      seconds: this.#epochs.reduce((total, { seconds }) => total + seconds, 0),
      stoppedEarly: this.#position.epoch < this.#options.epochs,
    };
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function means({ loss, right, images }: Totals): { loss: number; accuracy: number } {
  return { loss: images === 0 ? 0 : loss / images, accuracy: images === 0 ? 0 : right / images };
}
