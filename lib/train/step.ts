/**
 * What training and evaluation share of one batch: the loss, the images as the network is fastest on them, and the check
 * of the labels before a kernel meets them.
 */
import type { Device } from '../binding';
import { makeError } from '../errors';
import { Module } from '../nn/module';
import { ops } from '../tensor/ops';
import type { Tensor } from '../tensor/tensor';

/** A loss: `CrossEntropyLoss`, or anything that makes one number of logits and labels. */
export interface Criterion {
  forward(input: Tensor, target: Tensor): Promise<Tensor>;
}

/**
 * The images on the device; for a native model in channels-last order, which its convolutions want, on the CPU the fused
 * training steps too. A forward in TypeScript gets them as they are: it may view them as rows.
 */
export function networkInput(images: Tensor, model: Module<unknown>, device: Device): Tensor {
  const rearranged = images.shape.length === 4 && Module.runsNatively(model);
  const memoryFormat = rearranged ? 'channels_last' : 'preserve';
  if (device === 'cpu') return images.to({ device, memoryFormat });
  return toDevice(images, device).to({ memoryFormat }); // rearranged there, where it takes no time
}

/** On the device, without waiting for what that computes: from pinned memory (`pinMemory` of a loader) not even for the copy. */
export function toDevice(x: Tensor, device: Device): Tensor {
  if (device === 'cpu') return x.to(device);
  return ops.call('aten::to.dtype_layout', x, { dtype: x.dtype, device, non_blocking: true }) as Tensor;
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
