/**
 * What training and evaluation share of one batch: the loss, the images as the network is fastest on them, and the check
 * of the labels before a kernel meets them.
 */
import type { Device } from '../binding';
import { makeError } from '../errors';
import { Module } from '../nn/module';
import type { Tensor } from '../tensor/tensor';

/** A loss: `CrossEntropyLoss`, or anything that makes one number of logits and labels. */
export interface Criterion {
  forward(input: Tensor, target: Tensor): Promise<Tensor>;
}

/**
 * The images on the device; for a native model on the CPU in channels-last order, which its convolutions and the fused
 * training steps want. A forward in TypeScript gets them as they are: it may view them as rows.
 */
export function networkInput(images: Tensor, model: Module<unknown>, device: Device): Tensor {
  const rearranged = device === 'cpu' && images.shape.length === 4 && Module.runsNatively(model);
  return images.to({ device, memoryFormat: rearranged ? 'channels_last' : 'preserve' });
}

/** Throws ERR_SENET_LABELS, naming the image, for a label that is none of the network's `classes`. */
export function checkBatchLabels(
  labels: readonly number[],
  classes: number,
  indices: readonly number[],
  where: string,
): void {
  for (const [row, label] of labels.entries()) {
    if (Number.isInteger(label) && label >= 0 && label < classes) continue;
    throw makeError(
      'ERR_SENET_LABELS',
      `${where}: image ${indices[row] ?? row} has the label ${label}; the network has ${classes} classes (0 to ${classes - 1})`,
    );
  }
}
