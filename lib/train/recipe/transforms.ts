/**
 * How pixels become the network's input: the record of a recipe, the transforms of the same steps with and without
 * augmentation, and the mean and deviation of a data set.
 */
import { setImmediate } from 'node:timers';

import { ColorJitter } from '../../data/color-jitter';
import type { Dataset } from '../../data/dataset';
import {
  CenterCrop,
  Pad,
  RandomCrop,
  RandomHorizontalFlip,
  RandomResizedCrop,
  Resize,
} from '../../data/geometry';
import { RandomErasing } from '../../data/random-erasing';
import { Compose, Grayscale, Normalize, ToTensor, type Transform } from '../../data/transforms';
import { makeError } from '../../errors';
import { PLAIN, type Preprocessing } from '../../models/preprocessing-record';
import { orElse, readOptions, type Rule } from '../../tensor/rules';
import { toGrey } from '../../vision/preprocessing';
import { checkPreprocessing } from '../../vision/preprocessing-options';
import { SETTING_RULES } from './option-checks';
import type { Augmentation, TrainingSettings } from './settings';

/** Channels, height and width that all images of a data set have; null where they differ. */
type ImageShape = readonly [channels: number, height: number, width: number] | null;

/** torchvision resizes to 256 for a centre of 224. */
const RESIZE_SHARE = 256 / 224;

/** How images of a folder are resized. */
export type Resizing = Pick<TrainingSettings, 'resize' | 'interpolation'>;

/** Side of the square images that a record makes; null if it makes others. */
export function sideOf({ size, crop, pad }: Preprocessing): number | null {
  const made = crop ?? size;
  return typeof made === 'object' && made !== null && made[0] === made[1] ? made[0] + 2 * pad : null;
}

/** As the network is used to, of which `usual` is the record: the same part of an image, by the same interpolation. */
export function resizingOf(usual: Preprocessing | null, imageSize: number): Required<Resizing> {
  const { size = null, crop = null, interpolation = 'bilinear' } = usual ?? {};
  const share = typeof size === 'number' && crop !== null ? size / Math.min(...crop) : RESIZE_SHARE;
  return { resize: Math.round(imageSize * share), interpolation };
}

/** What images become for a network of one channel or three. */
export function colourKind(shape: ImageShape, inChannels: number): Preprocessing['channels'] {
  if (inChannels === 1) return 'grey';
  return shape?.[0] === 1 ? 'grey-repeated' : 'rgb';
}

/** How pixels become the network's input at test time, as `ImageClassifier` and `classify` do it too. */
export function testPreprocessing(
  shape: ImageShape,
  imageSize: number,
  inChannels: number,
  { mean, std, ...resizing }: Pick<TrainingSettings, 'mean' | 'std'> & Resizing,
): Preprocessing {
  const base = { ...PLAIN, channels: colourKind(shape, inChannels), mean, std };
  if (shape === null) {
    const { resize: size, interpolation } = { ...resizingOf(null, imageSize), ...resizing };
    return { ...base, size, crop: [imageSize, imageSize], interpolation };
  }
  const [, height, width] = shape;
  const pad =
    height === width && imageSize > height && (imageSize - height) % 2 === 0 && imageSize - height <= 8;
  return {
    ...base,
    // A few pixels are added as a border, which keeps the others sharp; more are a matter of resizing.
    size: pad ? [height, width] : [imageSize, imageSize],
    pad: pad ? (imageSize - height) / 2 : 0,
  };
}

export interface CreateTransformOptions {
  /** For training: 'crop' (shifted by up to an eighth), 'resized-crop', 'flip', 'jitter' (of colours), 'erase'. Default: none of them. */
  augment?: readonly Augmentation[];
}

/**
 * The transform of the steps of a preprocessing, for a loader: as `ImageClassifier` does them, or with augmentation in
 * their place.
 *
 * @param preprocessing - what it does not say changes nothing
 * @example
 * const transform = createTransform(preprocessing, { augment: ['resized-crop', 'flip'] });
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE; ERR_SENET_ARG_MISSING for a crop of a preprocessing without a size
 */
export function createTransform(
  preprocessing: Partial<Preprocessing>,
  options?: CreateTransformOptions,
): Transform {
  const rules = { augment: orElse([], SETTING_RULES.augment as Rule<readonly Augmentation[]>) };
  const { augment } = readOptions(options, rules, 'createTransform');
  const record = checkPreprocessing(preprocessing, PLAIN, 'createTransform: preprocessing');
  const resized = augment.includes('resized-crop');
  const cropped = !resized && augment.includes('crop');
  const steps: Transform[] = resized
    ? [new RandomResizedCrop({ size: inputSize(record), interpolation: record.interpolation })]
    : geometry(record, !cropped || record.crop === null);
  if (cropped) steps.push(randomCrop(record));
  if (augment.includes('flip')) steps.push(new RandomHorizontalFlip());
  if (augment.includes('jitter'))
    steps.push(new ColorJitter({ brightness: 0.4, contrast: 0.4, saturation: 0.4 }));
  return new Compose([...start(record), ...steps, ...finish(record, augment)]);
}

/** torchvision's and the papers' 4 of 32; larger images are cut out of the resized one. */
function randomCrop(record: Preprocessing): Transform {
  const size = inputSize(record);
  if (record.crop !== null) return new RandomCrop({ size, padIfNeeded: true });
  return new RandomCrop({ size, padding: Math.max(1, Math.round(Math.max(...size) / 8)) });
}

/** Height and width of what a record makes. */
function inputSize({ size, crop, pad }: Preprocessing): [height: number, width: number] {
  const made = crop ?? size;
  if (typeof made === 'object' && made !== null) return [made[0] + 2 * pad, made[1] + 2 * pad];
  throw makeError(
    'ERR_SENET_ARG_MISSING',
    'createTransform: augment: a crop needs a preprocessing with crop, or with height and width as size',
  );
}

/** Grey before anything else, as a folder of grey images gives it. */
function start({ channels }: Preprocessing): Transform[] {
  return channels === 'grey' ? [new Grayscale({ formula: 'pillow' })] : [];
}

function geometry(record: Preprocessing, crop: boolean): Transform[] {
  const { size, pad, interpolation } = record;
  return [
    ...(size === null ? [] : [new Resize({ size, interpolation })]),
    ...(record.crop === null || !crop ? [] : [new CenterCrop({ size: record.crop })]),
    ...(pad === 0 ? [] : [new Pad({ padding: pad })]),
  ];
}

function finish({ channels, mean, std }: Preprocessing, augment: readonly Augmentation[]): Transform[] {
  return [
    new ToTensor(),
    new Normalize({ mean, std }),
    ...(augment.includes('erase') ? [new RandomErasing()] : []),
    ...(channels === 'grey-repeated' ? [new Grayscale({ outputChannels: 3 })] : []),
  ];
}

/** Images of the training set that are looked at, at most, to measure mean and deviation. */
const MEASURED_IMAGES = 60_000;
const MEASURED_TOGETHER = 1000;

/**
 * Mean and standard deviation of the pixels of each channel, from 0 to 1, to four digits.
 *
 * @param kind - what becomes of the data set's images
 */
export async function measurePixels(
  dataset: Dataset,
  kind: Preprocessing['channels'],
): Promise<{ mean: number[]; std: number[] }> {
  const channels = kind === 'rgb' ? 3 : 1;
  const histograms = Array.from({ length: channels }, () => new Float64Array(256));
  const count = Math.min(dataset.length, MEASURED_IMAGES);
  for (let start = 0; start < count; start += MEASURED_TOGETHER) {
    const indices = Array.from({ length: Math.min(MEASURED_TOGETHER, count - start) }, (_, i) => start + i);
    const batch = await dataset.getBatch?.(indices);
    if (batch === undefined) throw makeError('ERR_SENET_INTERNAL', 'the data set has no batches');
    const { images } = batch;
    const measured = images.shape[1] === channels ? images : await toGrey(images, undefined);
    const pixels = measured.toTypedArray() as Uint8Array;
    for (const done of new Set([images, measured])) done.dispose();
    const plane = pixels.length / (indices.length * channels);
    for (let place = 0, at = 0; at < pixels.length; place++) {
      const histogram = histograms[place % channels] as Float64Array;
      for (const end = at + plane; at < end; at++) {
        const value = pixels[at] as number;
        histogram[value] = (histogram[value] as number) + 1;
      }
    }
    await new Promise((resolve) => setImmediate(resolve)); // Ctrl-C and the rest get their turn
  }
  const mean: number[] = [];
  const std: number[] = [];
  for (const histogram of histograms) {
    let [total, sum, squares] = [0, 0, 0];
    for (const [value, times] of histogram.entries()) {
      total += times;
      sum += times * (value / 255);
      squares += times * (value / 255) ** 2;
    }
    mean.push(fourDigits(sum / total));
    // Images of one colour have no deviation, and cannot be divided by it.
    std.push(fourDigits(Math.sqrt(Math.max(0, squares / total - (sum / total) ** 2))) || 1);
  }
  return { mean, std };
}

function fourDigits(value: number): number {
  return Math.round(value * 1e4) / 1e4;
}
