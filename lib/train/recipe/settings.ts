/**
 * What a training recipe is told, and the whole record that a run keeps of it. The record goes into the checkpoint, so
 * that a run goes on with nothing else. Types only; `options.ts` has what each option allows and means by default.
 */
import type { Device } from '../../binding';
import type { ProgressOption } from '../../hub/progress';
import type { Precision } from '../../tensor/dtype';
import type { TrainingProgress } from '../trainer';

/** 'train': a new network. 'finetune': weights that exist, with a new head. */
export type RecipeKind = 'train' | 'finetune';

/** A folder of images for each class; IDX files, as MNIST's; CIFAR-10 or -100, as a folder or an archive. */
export type DatasetKind = 'folder' | 'idx' | 'cifar10' | 'cifar100';
export const DATASET_KINDS: readonly DatasetKind[] = ['folder', 'idx', 'cifar10', 'cifar100'];

/** What is done about classes that are rare: nothing, as many draws of each, or weights in the loss. */
export const BALANCES = ['none', 'sampler', 'weights'] as const;
export type Balance = (typeof BALANCES)[number];

export const AUGMENTATIONS = ['crop', 'flip', 'resized-crop', 'jitter', 'erase'] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

/** Options of the optimiser that a recipe makes. */
export interface OptimizerSettings {
  /** Default 'sgd'. */
  readonly optimizer: 'sgd' | 'adamw';
  /** The highest learning rate, from 0. Default: for SGD 0.2 for a batch of 128 and in proportion, for AdamW 0.001; a tenth of it to fine-tune. */
  readonly lr: number;
  /** Of SGD, from 0 to 1. Default 0.9. */
  readonly momentum: number;
  /** Nesterov's momentum, with SGD. Default true. */
  readonly nesterov: boolean;
  /** From 0. Default: SGD 0.0005, AdamW 0.01. */
  readonly weightDecay: number;
  /**
   * What the learning rate of parts of the model is multiplied with, from 0, by their paths: `{ layer1: 0.1, fc: 10 }`. Of
   * two that hold a parameter, the longer path counts. Default: none.
   */
  readonly lrScale?: Readonly<Record<string, number>> | null;
}

/** Options of the learning rate's schedule that a recipe makes. */
export interface SchedulerSettings {
  /** Default 'onecycle'. */
  readonly schedule: 'onecycle' | 'cosine' | 'step' | 'none';
  /** The highest learning rate, as the optimiser's. */
  readonly lr: number;
  /** 'onecycle': the share of the run in which the rate rises, from 0 to 1. Default 0.25. */
  readonly warmup: number;
  /** 'cosine': the rate at the end, from 0. Default 0. */
  readonly minLr: number;
  /** 'step': epochs between two changes, from 1. Default: a third of them. */
  readonly stepSize: number;
  /** 'step': what the rate is multiplied with, from 0. Default 0.1. */
  readonly gamma: number;
}

/** Everything that a run's numbers depend on, with all defaults chosen: what its checkpoint keeps. */
export interface TrainingSettings extends OptimizerSettings, SchedulerSettings {
  readonly command: RecipeKind;
  /** The absolute path. */
  readonly data: string;
  readonly dataset: DatasetKind;
  /** Of several data sets in a folder, the one that is meant; undefined in the record of an earlier version. */
  readonly set?: string | null;
  /** False: folders called train, test and the like are classes. */
  readonly splits?: boolean;
  /** The file of the classes' names; their names are in `classes`. */
  readonly labels: string | null;
  /** A folder or a pair of files, a share of the training images, or none. */
  readonly validation: string | number | null;
  /** Undefined, as `fold`, in the record of an earlier version: none. Absolute paths. */
  readonly also?: readonly string[];
  readonly fold?: string | null;
  readonly limit: number | null;
  readonly imageSize: number;
  /** Of the images of a folder, the short side before the crop; undefined of others and in the record of an earlier version. */
  readonly resize?: number;
  /** Of the images of a folder; undefined as `resize`. */
  readonly interpolation?: 'bilinear' | 'bicubic';
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly augment: readonly Augmentation[];
  readonly mixup: number | null;
  readonly skipCorrupt: boolean;
  /** Undefined, as the two below, in the record of an earlier version: 'none', 1 and null. */
  readonly balance?: Balance;
  /** Batches of an optimiser step. */
  readonly accumulate?: number;
  readonly patience?: number | null;
  readonly model: string;
  /** Options of the model's factory, but for the number of classes. */
  readonly modelOptions: Readonly<Record<string, number | boolean | string>>;
  readonly weights: string | null;
  /** Paths of the parts that are frozen. */
  readonly freeze: readonly string[];
  readonly classes: readonly string[];
  readonly epochs: number;
  readonly batchSize: number;
  readonly dropLast: boolean;
  readonly labelSmoothing: number;
  readonly clipGradNorm: number | null;
  readonly ema: number | null;
  readonly precision: Precision;
  readonly seed: number;
  /** Undefined in the record of an earlier version: false. */
  readonly syncBatchNorm?: boolean;
  /** Of each operator, as `configure({ threadsPerWorker })` had it: sums of others round differently. */
  readonly threads: number;
}

/** Options of `trainFromSettings`: those of `senet-torch train` and `finetune`. Null is as left out. */
export interface TrainingOptions extends Partial<OptimizerSettings>, Partial<SchedulerSettings> {
  /** Default: as the run that is resumed; 'finetune' if there are `weights` or `pretrained`, or `model` is a repository, a folder or a file; else 'train'. */
  command?: RecipeKind;
  /** A folder of images for each class (or with train and val), IDX files, or CIFAR-10 or -100 (folder or archive). */
  data?: string;
  /**
   * The model, one of `listModels()`; to fine-tune also what says the weights too: a name with a tag, a repository of the
   * hub ('hf-hub:...'), a folder ('local-dir:...'), a file. Default: 'se_resnet20'; to fine-tune, what the weights say.
   */
  model?: string;
  /** 'train': of the SE layers of the small models, from 1. Default 16. */
  reduction?: number;
  /** 'train': 3, or 1, which makes all images grey. Default 3. */
  inChannels?: number;
  /** 'finetune': the checkpoint to start from, or the name of published weights. */
  weights?: string | null;
  /** 'finetune': where in the file the state dict is, such as 'model.ema'. Default: the one that fits. */
  key?: string;
  /** 'finetune': what its names begin with, such as 'model.'. Default: what the model shows. */
  prefix?: string;
  /** 'finetune': start from the model's published weights; downloads them if need be. Default false. */
  pretrained?: boolean;
  /** 'finetune': false accepts a download whose SHA-256 is not the promised one. Default true. */
  checkHash?: boolean;
  /** 'finetune': parts that stay as they are, such as ['conv1', 'layer1']; ['backbone'] is all but the head. Default none. */
  freeze?: readonly string[];
  /** Default: `detectDataset(data)`. */
  dataset?: DatasetKind;
  /** Of several data sets in a folder of IDX files, the one that is meant, such as 'letters' of EMNIST. */
  set?: string | null;
  /** False: folders called train, val, test and the like are classes, as all others. Default true. */
  splits?: boolean;
  /** A file of the classes' names, where the data knows numbers only: a line for each, or a JSON array or object. */
  labels?: string | null;
  /**
   * A path of data of the same kind; a share of the training images, between 0 and 1; or null for none. Default: the
   * data set's own test images, a folder for validation or test beside the one for training, else 0.1.
   */
  validation?: string | number | null;
  /**
   * Further data sets, of whatever kind, whose images are mixed with those of `data`; classes of the same name are one.
   * Default: none.
   */
  also?: readonly string[];
  /**
   * 'K/N', such as '2/5': validation is the K-th of N equal parts of the training images, each with its share of every
   * class (`kFold`), in place of `validation`. Default: not.
   */
  fold?: string | null;
  /** Only the first so many images of a random order, from 1. Default: all. */
  limit?: number | null;
  /** Height and width of the network's input, in pixels, from 1. Default: 32 for small images, else the weights', else the model's. */
  imageSize?: number;
  /** One number or three, of pixels from 0 to 1. Default: the weights', ImageNet's for folders, else measured. */
  mean?: readonly number[];
  /** The same of the standard deviation; given with `mean` or not at all. */
  std?: readonly number[];
  /** Default: 'crop' and 'flip' for small images, 'resized-crop' and 'flip' for folders. */
  augment?: readonly Augmentation[];
  /** Mix pairs of images with this alpha, above 0 to 100. Default: not. */
  mixup?: number | null;
  /** Leave out images that cannot be decoded; the result says which. Default false. */
  skipCorrupt?: boolean;
  /**
   * Classes that are rare: 'sampler' draws each class as often (`WeightedRandomSampler.balanced`), 'weights' weighs them in
   * the loss, in inverse proportion to their images. Default 'none'.
   */
  balance?: Balance;
  /** From 1. Default 10, to fine-tune 5. */
  epochs?: number;
  /** Epochs without a better one after which the run ends, from 1. Default: it does not. */
  patience?: number | null;
  /** From 1. Default 128 for small images, else 32. */
  batchSize?: number;
  /** Leave out a last batch that is smaller. Default false. */
  dropLast?: boolean;
  /** Batches whose gradients a step of the optimiser adds up, from 1. Default 1. */
  accumulate?: number;
  /** From 0 to 1. Default 0.05. */
  labelSmoothing?: number;
  /** Scale gradients down to this norm, above 0. Default: not. */
  clipGradNorm?: number | null;
  /** Validate and save a moving average of the weights with this decay, from 0 to 1. Default: not. */
  ema?: number | null;
  /** Of forward and loss. Default 'float32'. */
  precision?: Precision;
  /** Of weights, order and augmentation, from 0. Default 0. */
  seed?: number;
  /**
   * Trains on all processes of the group, each on its share of the images, `batchSize` at a time on each. Joins the group of
   * the environment (`initProcessGroup`) for as long as the run takes, unless this process is in one. Rank 0 alone writes
   * and tells of progress. Default false.
   */
  distributed?: boolean;
  /** Distributed: BatchNorm over the images of all processes (`SyncBatchNorm`). Default false. */
  syncBatchNorm?: boolean;
  /** Default 'cpu'. Distributed, 'cuda' is the GPU of the process's number on its machine (`LOCAL_RANK`). */
  device?: Device;
  /** The folder where everything goes. Default 'training', or where `resume` is. */
  output?: string;
  /** Replace a run that is in the folder already. Default false. */
  overwrite?: boolean;
  /** Save after so many optimiser steps too, from 1. Default: after each epoch. */
  checkpointEvery?: number;
  /** The checkpoint of a run that was interrupted, to go on there; options given beside it must be the run's own. */
  resume?: string;
  /** Of a download of weights. Default true. */
  progress?: ProgressOption;
  /** Stops between two batches: a checkpoint is saved, and the promise rejects with ERR_SENET_ABORTED. */
  signal?: AbortSignal;
  /** Called once, before the first step. What it throws ends the run. */
  onStart?: (run: StartedRun) => void;
  /** As the Trainer's. */
  onProgress?: (progress: TrainingProgress) => void;
}

/** A run that is about to take its first step. */
export interface StartedRun {
  readonly settings: TrainingSettings;
  /** The absolute path of the folder where everything goes. */
  readonly output: string;
  /** Parameters of the network: numbers, not tensors. */
  readonly parameters: number;
  readonly trainingImages: number;
  /** Null without validation. */
  readonly validationImages: number | null;
  /** What of the data was taken as what. */
  readonly taken: readonly (readonly [what: string, from: string])[];
  /** Where a resumed run goes on: optimiser steps and epochs that are done; null for a new one. */
  readonly resumedAt: { readonly step: number; readonly epoch: number } | null;
  /** Of each operator now; where `settings.threads` is another number, a resumed run rounds differently. */
  readonly threads: number;
}
