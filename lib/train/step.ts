/** What training and evaluation share of one batch: the loss, and the check of the labels before a kernel meets them. */
import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';

/** A loss: `CrossEntropyLoss`, or anything that makes one number of logits and labels. */
export interface Criterion {
  forward(input: Tensor, target: Tensor): Promise<Tensor>;
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
