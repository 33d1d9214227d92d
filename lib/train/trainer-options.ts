/** What a Trainer is given, with the rules for it, and what it tells of a run that goes on. */
import type { Device } from '../binding';
import type { DataLoader, Batch } from '../data/loader';
import { Module } from '../nn/module';
import { ExponentialMovingAverage } from '../optim/ema';
import { GradScaler } from '../optim/grad-scaler';
import { Optimizer } from '../optim/optimizer';
import { LRScheduler } from '../optim/scheduler';
import { checkDevice, PRECISIONS, type Precision } from '../tensor/dtype';
import {
  fn,
  integer,
  matching,
  isListOf,
  names,
  nullOr,
  oneOf,
  optional,
  orElse,
  readOptions,
  required,
  signal,
  string,
  unchecked,
  type Rule,
  type Rules,
} from '../tensor/rules';
import type { EpochRecord } from './history';
import type { Criterion } from './step';

export interface CheckpointOptions {
  /** The file (`.pt`); each save replaces it. */
  path: string;
  /** Save after every so many epochs; null only where `everySteps` and interruptions say. Default 1. */
  everyEpochs?: number | null;
  /** Save after every so many optimiser steps too. Default: not. */
  everySteps?: number;
}

/** What training needs of a loader: any DataLoader of a data set or an array. */
export type BatchLoader = Pick<DataLoader, 'length' | 'stateDict' | 'loadStateDict'> &
  AsyncIterable<Batch> & { readonly dataset: { readonly length: number } | null };

export interface TrainerOptions {
  /** Any module whose forward gives N x classes logits, or Inception's `{ logits, auxLogits }`. */
  model: Module<unknown>;
  train: BatchLoader;
  /** Evaluated after each epoch. Without it the training loss says which epoch was best. */
  validation?: BatchLoader;
  optimizer: Optimizer;
  /** A ReduceLROnPlateau gets each epoch's loss of the validation (without one, of the training), of mode 'max' the accuracy. */
  scheduler?: LRScheduler;
  /** When the scheduler steps. Default: 'step' for OneCycleLR, 'epoch' for the others. */
  schedulerEvery?: 'step' | 'epoch';
  /** Of logits and labels. Default: CrossEntropyLoss. */
  loss?: Criterion;
  epochs: number;
  /** The names of the classes: the network must have as many outputs. Default: not checked. */
  classes?: readonly string[];
  /**
   * 'bfloat16', 'float16': forward and loss under `autocast`, 'float16' on a CUDA device only and with a `gradScaler`.
   * Default 'float32'.
   */
  precision?: Precision;
  /** Scales the loss, and its state is part of the checkpoint. Default: a new one for 'float16', else none. */
  gradScaler?: GradScaler;
  /** Default 'cpu'; the model must be there. */
  device?: Device;
  /**
   * Batches whose gradients an optimiser step adds up, from 1: as if they were one, but for the statistics of BatchNorm, in
   * the memory of one. The last step of an epoch has those that are left. Default 1.
   */
  accumulate?: number;
  /** Epochs without a better one (`EpochRecord.best`) after which the run ends, from 1. Default: it does not. */
  patience?: number;
  /** Gradients are scaled down to this norm. Default: not. */
  clipGradNorm?: number;
  /** A moving average of the weights, updated after each step; validation and `onBest` see the average. */
  ema?: ExponentialMovingAverage;
  /** Parts of the model that stay in evaluation mode, such as frozen ones, so that their statistics stay too. */
  frozen?: readonly Module<unknown>[];
  checkpoint?: CheckpointOptions;
  /** A file of JSON lines. Default: none. */
  log?: string;
  /** Optimiser steps between two records of the history and the log. Default 20. */
  recordEvery?: number;
  /** Stops between two batches: a checkpoint is saved, and `run` rejects with ERR_SENET_ABORTED. */
  signal?: AbortSignal;
  /** Not awaited; what it throws, or rejects with, ends the run. */
  onProgress?: (progress: TrainingProgress) => void;
  /** Called after an epoch that is the best so far, while the model has the weights that were validated; awaited. */
  onBest?: (record: EpochRecord) => Promise<void> | void;
  /** Kept in the checkpoint and the log for the caller: values as JSON has them. */
  settings?: unknown;
}

export interface TrainingProgress {
  readonly phase: 'training' | 'validation';
  /** Counted from 1. */
  readonly epoch: number;
  readonly epochs: number;
  /** In this epoch, or this validation: batches done, and all. */
  readonly batch: number;
  readonly batches: number;
  /** Optimiser steps of the run. */
  readonly step: number;
  readonly steps: number;
  /** Means over this epoch's training images so far. */
  readonly loss: number;
  readonly accuracy: number;
  readonly learningRate: number;
  readonly imagesPerSecond: number;
  /** Until the end of the run; null before the first step. */
  readonly secondsLeft: number | null;
  /** After the last batch of the phase of an epoch: its record, once it is complete. */
  readonly finished: EpochRecord | null;
}

const CHECKPOINT_RULES = {
  path: string,
  everyEpochs: orElse(1, nullOr(integer(1))),
  everySteps: optional(integer(1)),
} satisfies Rules<CheckpointOptions>;

const has = (value: unknown, ...methods: readonly PropertyKey[]): boolean =>
  typeof value === 'object' &&
  value !== null &&
  methods.every((name) => typeof (value as Record<PropertyKey, unknown>)[name] === 'function');

const either = <const T extends string>(values: readonly T[]): Rule<T> => oneOf(values, values.join(' or '));

export const TRAINER_RULES = {
  model: required(matching<Module<unknown>>('a Module', (value) => Module.isModule(value))),
  train: required(
    matching<BatchLoader>('a DataLoader', (value) =>
      has(value, Symbol.asyncIterator, 'stateDict', 'loadStateDict'),
    ),
  ),
  validation: optional(matching<BatchLoader>('a DataLoader', (value) => has(value, Symbol.asyncIterator))),
  optimizer: required(matching<Optimizer>('an Optimizer', (value) => value instanceof Optimizer)),
  scheduler: optional(matching<LRScheduler>('a scheduler', (value) => value instanceof LRScheduler)),
  schedulerEvery: optional(either(['step', 'epoch'])),
  loss: optional(matching<Criterion>('a loss with forward(input, target)', (value) => has(value, 'forward'))),
  epochs: required(integer(1)),
  classes: optional(names),
  precision: orElse('float32', either(PRECISIONS)),
  gradScaler: optional(matching<GradScaler>('a GradScaler', (value) => value instanceof GradScaler)),
  device: orElse('cpu', checkDevice),
  accumulate: orElse(1, integer(1)),
  patience: optional(integer(1)),
  clipGradNorm: optional(
    matching<number>(
      'a number above 0',
      (value) => typeof value === 'number' && value > 0,
      'ERR_SENET_ARG_RANGE',
    ),
  ),
  ema: optional(
    matching<ExponentialMovingAverage>(
      'an ExponentialMovingAverage',
      (value) => value instanceof ExponentialMovingAverage,
    ),
  ),
  frozen: orElse(
    [],
    matching<readonly Module<unknown>[]>('an array of Modules', (value) =>
      isListOf(value, (part) => Module.isModule(part)),
    ),
  ),
  checkpoint: optional((given, what) =>
    readOptions(given as CheckpointOptions | undefined, CHECKPOINT_RULES, what),
  ),
  log: optional(string),
  recordEvery: orElse(20, integer(1)),
  signal,
  onProgress: optional(fn<NonNullable<TrainerOptions['onProgress']>>()),
  onBest: optional(fn<NonNullable<TrainerOptions['onBest']>>()),
  settings: unchecked<unknown>(),
} satisfies Rules<TrainerOptions>;
