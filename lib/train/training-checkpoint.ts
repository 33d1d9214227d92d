/**
 * The checkpoint of a training run: one file from which it goes on as if nothing had happened. A `.pt` that Python's
 * `torch.load(weights_only=True)` reads; `model`, `optimizer` and `scheduler` are state dicts as PyTorch's own. What was
 * read is checked here before anything is changed by it.
 */
import { loadCheckpoint } from '../checkpoint/load';
import { saveCheckpoint } from '../checkpoint/save';
import { StateDict } from '../checkpoint/state-dict';
import { isMap } from '../brands';
import { makeError } from '../errors';
import { printable } from '../printable';
import { Tensor } from '../tensor/tensor';
import type { TrainingHistory } from './history';

const FORMAT = 'senet-torch training run';
const VERSION = 1;

/** Sums over images. */
export interface Totals {
  readonly loss: number;
  readonly right: number;
  readonly images: number;
}

export const NO_TOTALS: Totals = { loss: 0, right: 0, images: 0 };

/** Where a run stands between two optimiser steps. */
export interface Position {
  /** Epochs that are finished, with their validation. */
  readonly epoch: number;
  /** Optimiser steps of the epoch that is not finished. */
  readonly stepInEpoch: number;
  /** Whether the training part of that epoch is done, and its validation comes next. */
  readonly trained: boolean;
  /** All optimiser steps. */
  readonly step: number;
  /** Of the epoch that is not finished. */
  readonly totals: Totals;
  readonly seconds: number;
  /** Since the last step record, and the rate of the last step. */
  readonly pending: Totals;
  readonly learningRate: number;
  readonly best: { readonly epoch: number; readonly value: number } | null;
}

/** What must be the same when a run goes on. */
export interface RunIdentity {
  readonly epochs: number;
  readonly trainImages: number;
  readonly batchesPerEpoch: number;
  /** Batches in an optimiser step. */
  readonly accumulate: number;
  readonly validationImages: number | null;
  readonly precision: string;
  /** Processes that trained together; the numbers of batches are those of each. */
  readonly worldSize: number;
}

export interface TrainingCheckpoint {
  readonly identity: RunIdentity;
  readonly position: Position;
  readonly history: TrainingHistory;
  /** The caller's own record, of values as JSON has them. */
  readonly settings: unknown;
  readonly model: StateDict;
  readonly optimizer: unknown;
  readonly scheduler: unknown;
  /** Of the moving average; null without one. */
  readonly average: StateDict | null;
  /** Of the gradient scaler; null without one, and in checkpoints of before there were any. */
  readonly scaler: unknown;
  readonly loader: unknown;
  /** The process's random generator, as `getRngState` gives it. */
  readonly generator: Tensor;
}

/** Writes the file whole or not at all: an older one under this name survives every failure. */
export async function writeTrainingCheckpoint(path: string, checkpoint: TrainingCheckpoint): Promise<void> {
  await saveCheckpoint({ format: FORMAT, version: VERSION, ...checkpoint }, path);
}

/**
 * @throws (rejects) ERR_SENET_RESUME if the file is no checkpoint of a training run; as `loadCheckpoint`
 */
export async function readTrainingCheckpoint(path: string): Promise<TrainingCheckpoint> {
  const label = printable(path, 1000);
  const value = await loadCheckpoint(path);
  const fail = (message: string): never => {
    disposeTensors(value);
    throw makeError('ERR_SENET_RESUME', `${label}: ${message}`);
  };
  if (!isMap(value) || value.get('format') !== FORMAT)
    return fail('expected a checkpoint that a training run saved; this file holds something else');
  if (value.get('version') !== VERSION)
    return fail(`expected version ${VERSION} of the format, found ${String(value.get('version'))}`);
  const model: unknown = value.get('model');
  const average: unknown = value.get('average');
  const generator: unknown = value.get('generator');
  // Runs of before there were these had one batch in a step, and one process.
  const identity = { accumulate: 1, worldSize: 1, ...(toPlain(value.get('identity')) as object) };
  const position = toPlain(value.get('position'));
  const history = toPlain(value.get('history'));
  if (
    !(model instanceof StateDict) ||
    !(average === null || average instanceof StateDict) ||
    !Tensor.isTensor(generator) ||
    !isIdentity(identity) ||
    !isPosition(position) ||
    !isHistory(history)
  )
    return fail('the checkpoint is damaged: a part of it is missing or of another kind');
  return {
    identity,
    position,
    history,
    settings: toPlain(value.get('settings')),
    model,
    optimizer: value.get('optimizer'),
    scheduler: value.get('scheduler'),
    average,
    scaler: value.get('scaler') ?? null,
    loader: value.get('loader'),
    generator,
  };
}

/** Frees the tensors anywhere in a value that `loadCheckpoint` gave, or in a checkpoint. */
export function disposeTensors(value: unknown): void {
  if (Tensor.isTensor(value)) value.dispose();
  else if (isMap(value) || Array.isArray(value)) for (const part of value.values()) disposeTensors(part);
  else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value))
    for (const part of Object.values(value)) disposeTensors(part);
}

/** Dictionaries as objects: for what was written from values as JSON has them. */
function toPlain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toPlain);
  if (!isMap(value)) return value;
  // fromEntries defines own properties, whatever their names.
  return Object.fromEntries([...value].map(([name, part]) => [String(name), toPlain(part)]));
}

type Fields<T> = Record<keyof T, unknown>;

function isObject<T>(value: unknown): value is Fields<T> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isIdentity(value: unknown): value is RunIdentity {
  return (
    isObject<RunIdentity>(value) &&
    isCount(value.epochs) &&
    isCount(value.trainImages) &&
    isCount(value.batchesPerEpoch) &&
    isCount(value.accumulate) &&
    (value.validationImages === null || isCount(value.validationImages)) &&
    typeof value.precision === 'string' &&
    isCount(value.worldSize) &&
    value.worldSize > 0
  );
}

function isTotals(value: unknown): value is Totals {
  return (
    isObject<Totals>(value) && typeof value.loss === 'number' && isCount(value.right) && isCount(value.images)
  );
}

function isPosition(value: unknown): value is Position {
  return (
    isObject<Position>(value) &&
    isCount(value.epoch) &&
    isCount(value.stepInEpoch) &&
    isCount(value.step) &&
    typeof value.trained === 'boolean' &&
    isTotals(value.totals) &&
    isTotals(value.pending) &&
    typeof value.seconds === 'number' &&
    typeof value.learningRate === 'number' &&
    (value.best === null ||
      (isObject<NonNullable<Position['best']>>(value.best) &&
        isCount(value.best.epoch) &&
        typeof value.best.value === 'number'))
  );
}

function isHistory(value: unknown): value is TrainingHistory {
  const all = (records: unknown, numbers: readonly string[]): boolean =>
    Array.isArray(records) &&
    records.every(
      (record: unknown) =>
        isObject<Record<string, unknown>>(record) &&
        numbers.every((name) => typeof record[name] === 'number'),
    );
  return (
    isObject<TrainingHistory>(value) &&
    all(value.steps, ['step', 'epoch', 'loss', 'accuracy', 'learningRate']) &&
    all(value.epochs, ['epoch', 'step', 'loss', 'accuracy', 'learningRate', 'seconds', 'imagesPerSecond'])
  );
}
