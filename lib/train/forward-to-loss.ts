/** The forward of a training step: from a batch to its loss and how many of its answers are right, where the network is. */
import type { Device } from '../binding';
import type { Batch } from '../data/loader';
import { isSenetError, makeError } from '../errors';
import type { Module } from '../nn/module';
import type { Precision } from '../tensor/dtype';
import { describe } from '../tensor/options';
import { autocast } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { checkBatchLabels, networkInput, toDevice, type Criterion } from './step';

/** As `TrainerOptions`. */
interface ForwardOptions {
  readonly model: Module<unknown>;
  /** What computes in the model, if that is only its shell. */
  readonly network: Module<unknown>;
  readonly loss: Criterion;
  readonly device: Device;
  readonly precision: Precision;
  readonly classes?: readonly string[] | undefined;
}

/** Weight of Inception's auxiliary loss (Szegedy et al. 2015; torchvision's reference training). */
const AUXILIARY_WEIGHT = 0.4;

/** Runs a forward and its loss under `autocast`, unless the precision is float32. */
export function inPrecision<T>(precision: Precision, work: () => T): T {
  return precision === 'float32' ? work() : autocast(work, { dtype: precision });
}

/** @throws (rejects) ERR_SENET_LABELS, ERR_SENET_SHAPE, ERR_SENET_ARG_TYPE for a forward that gives no logits */
export async function forwardToLoss(
  { images, labels, indices }: Batch,
  { model, network, loss: criterion, device, precision, classes }: ForwardOptions,
  where: string,
): Promise<{ loss: Tensor; right: Tensor }> {
  const x = networkInput(images, network, device);
  const target = toDevice(labels, device);
  const [logits, loss] = await inPrecision(precision, async () => {
    const output = await forward(model, x, where);
    const outputs = output.logits.shape[1] ?? 0;
    if (classes !== undefined && classes.length !== outputs) {
      throw makeError(
        'ERR_SENET_LABELS',
        `${where}: the data has ${classes.length} classes and the network ${outputs} outputs`,
      );
    }
    if (labels.dtype === 'int64')
      checkBatchLabels(Array.from(labels.toTypedArray(), Number), outputs, indices, where);
    let value = await criterion.forward(output.logits, target);
    if (output.auxLogits !== undefined)
      value = value.add((await criterion.forward(output.auxLogits, target)).mul(AUXILIARY_WEIGHT));
    return [output.logits, value] as const;
  });
  const truth = labels.dtype === 'int64' ? target : target.argmax(1); // mixed labels are probabilities
  return { loss, right: logits.detach().argmax(1).eq(truth).sum() };
}

async function forward(
  model: Module<unknown>,
  x: Tensor,
  where: string,
): Promise<{ logits: Tensor; auxLogits?: Tensor }> {
  let output: unknown;
  try {
    output = await model.forward(x);
  } catch (error) {
    // PyTorch's error for a batch of one; here it most often is the rest of a data set.
    if (x.shape[0] === 1 && isSenetError(error) && error.code === 'ERR_SENET_SHAPE') {
      throw makeError(
        'ERR_SENET_SHAPE',
        `${where}: a batch of one image: ${error.message}; dropLast leaves it out`.split('\n'),
        { cause: error },
      );
    }
    throw error;
  }
  if (Tensor.isTensor(output)) return { logits: output };
  const both = output as { logits: Tensor; auxLogits: Tensor };
  if (Tensor.isTensor(both.logits) && Tensor.isTensor(both.auxLogits)) return both;
  throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected logits from the model, got ${describe(output)}`);
}
