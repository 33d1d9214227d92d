/**
 * What a training run records of itself: the lines of the log, the curves of the report, the part of a checkpoint that
 * lets a resumed run go on with both. Plain numbers; knows no tensor and no file.
 */

/** Means over the optimiser steps since the previous record. */
export interface StepRecord {
  /** Optimiser steps done, counted from the beginning of the run. */
  readonly step: number;
  /** Counted from 1. */
  readonly epoch: number;
  readonly loss: number;
  /** Share of the training images that were right, before the step that learned from them. */
  readonly accuracy: number;
  /** Of the first parameter group, in the last of these steps. */
  readonly learningRate: number;
}

export interface ValidationRecord {
  readonly loss: number;
  readonly accuracy: number;
}

export interface EpochRecord {
  readonly epoch: number;
  readonly step: number;
  /** Means over the epoch's training images. */
  readonly loss: number;
  readonly accuracy: number;
  /** Of the last step. */
  readonly learningRate: number;
  readonly validation: ValidationRecord | null;
  /** Whether this epoch is the best so far: by validation accuracy, or without validation by training loss. */
  readonly best: boolean;
  /** Wall time of training, without validation and saving; what an interruption took is not in it. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

export interface TrainingHistory {
  readonly steps: readonly StepRecord[];
  readonly epochs: readonly EpochRecord[];
}
