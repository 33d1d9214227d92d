/**
 * The record that says how pixels become a model's input, and the usual ones. What executes it is in `vision`. Knows no
 * tensor, no file and no model.
 */

/** How an image becomes the input of a model. */
export interface Preprocessing {
  /**
   * 'rgb'; 'grey': one channel, by Pillow's `convert('L')` before anything else; 'grey-repeated': the same, and three
   * equal channels at the end.
   */
  readonly channels: 'rgb' | 'grey' | 'grey-repeated';
  /** A number resizes the short side to it and keeps the proportions; [height, width] stretches; null keeps the size. */
  readonly size: number | readonly [height: number, width: number] | null;
  /** Cuts the centre, filling with black what a smaller image lacks; null keeps all. */
  readonly crop: readonly [height: number, width: number] | null;
  /** Black pixels added on each side, after the crop. */
  readonly pad: number;
  readonly interpolation: 'bilinear' | 'bicubic';
  /** Subtracted after the division by 255: one number, or with 'rgb' three for red, green and blue. */
  readonly mean: readonly number[];
  /** Divided by at the end: as many numbers as `mean`. */
  readonly std: readonly number[];
}

/** Changes nothing but the range, to 0..1. */
export const PLAIN: Preprocessing = {
  channels: 'rgb',
  size: null,
  crop: null,
  pad: 0,
  interpolation: 'bilinear',
  mean: [0],
  std: [1],
};

/** torchvision's for ImageNet at test time: short side 256, centre 224 x 224. */
export const IMAGENET: Preprocessing = {
  ...PLAIN,
  size: 256,
  crop: [224, 224],
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

/** For images of CIFAR, which have the size already: mean and deviation of its training images. */
export const CIFAR: Preprocessing = {
  ...PLAIN,
  size: [32, 32],
  mean: [0.4914, 0.4822, 0.4465],
  std: [0.2023, 0.1994, 0.201],
};

/** torchvision's for Inception-v3: short side 342, centre 299 x 299. */
export const INCEPTION: Preprocessing = { ...IMAGENET, size: 342, crop: [299, 299] };
