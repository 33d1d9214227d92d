/**
 * A network's answers on a data set with known labels: loss, accuracy, which classes it confuses, and the mistakes of
 * which it was most certain.
 */
import type { Device } from '../binding';
import type { Batch } from '../data/loader';
import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { noGrad, tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { disposeBatches } from './batch-groups';
import type { InputImage } from './pictures';
import { checkBatchLabels, networkInput, type Criterion } from './step';

export interface Mistake {
  /** Place in the data set. */
  readonly index: number;
  readonly label: number;
  readonly prediction: number;
  /** Softmax probabilities of the prediction and of the label. */
  readonly score: number;
  readonly labelScore: number;
  /** What the network got. */
  readonly image: InputImage;
}

export interface Evaluation {
  readonly count: number;
  /** Mean over the images. */
  readonly loss: number;
  readonly accuracy: number;
  /** `confusion[label][prediction]` images. */
  readonly confusion: readonly (readonly number[])[];
  /** The most certain first. */
  readonly mistakes: readonly Mistake[];
}

export interface EvaluateOptions {
  readonly loss: Criterion;
  /** Default 'cpu'. */
  readonly device?: Device;
  /** How many mistakes to keep. Default 0. */
  readonly mistakes?: number;
  /** Runs a forward and its loss, for mixed precision. Default: runs it. */
  readonly inPrecision?: <T>(work: () => T) => T;
  /** Called after each batch with the number of images done. What it throws ends the evaluation. */
  readonly onBatch?: (done: number) => void;
}

/**
 * Runs a network over a loader in evaluation mode, without gradients, and puts its mode back.
 *
 * @throws (rejects) ERR_SENET_LABELS if a label is outside the network's classes; ERR_SENET_NAN_OUTPUT; what the loader and `onBatch` throw
 */
export async function evaluate(
  model: Module<unknown>,
  loader: AsyncIterable<Batch>,
  { loss, device = 'cpu', mistakes: kept = 0, inPrecision = (work) => work(), onBatch }: EvaluateOptions,
): Promise<Evaluation> {
  const modes = model.namedModules().map(([, part]) => [part, part.training] as const);
  const confusion: number[][] = [];
  let mistakes: Mistake[] = [];
  let [count, right, lossSum] = [0, 0, 0];
  model.eval();
  try {
    for await (const batch of loader) {
      const { images, labels, indices } = batch;
      await tidy(() =>
        noGrad(async () => {
          const known = Array.from(labels.toTypedArray(), Number);
          const [logits, value] = await inPrecision(async () => {
            const output = (await model.forward(networkInput(images, model, device))) as Tensor;
            checkBatchLabels(known, output.shape[1] ?? 0, indices, 'evaluation');
            return [output, await loss.forward(output, labels.to(device))];
          });
          lossSum += Number(value.item()) * known.length;
          const classes = logits.shape[1] as number;
          const scores = logits.to('float32').softmax(1).toTypedArray() as Float32Array;
          for (const [row, label] of known.entries()) {
            const own = scores.subarray(row * classes, (row + 1) * classes);
            const prediction = indexOfLargest(own, `evaluation: sample ${indices[row] ?? count + row}`);
            for (let size = confusion.length; size < classes; size++)
              confusion.push(new Array<number>(classes).fill(0));
            const counts = confusion[label] as number[];
            counts[prediction] = (counts[prediction] ?? 0) + 1;
            if (prediction === label) {
              right++;
              continue;
            }
            const score = own[prediction] as number;
            if (kept === 0 || (mistakes.length >= kept && score <= (mistakes.at(-1)?.score ?? 0))) continue;
            mistakes.push({
              index: indices[row] as number,
              label,
              prediction,
              score,
              labelScore: own[label] as number,
              image: inputImage(images, row),
            });
            mistakes = mistakes.sort((a, b) => b.score - a.score).slice(0, kept);
          }
          count += known.length;
        }),
      ).finally(() => disposeBatches([batch]));
      onBatch?.(count);
    }
  } finally {
    // The root first: its mode is that of all, then each part gets back what it had.
    for (const [part, mode] of modes) if (part.training !== mode) part.train(mode);
  }
  if (count === 0)
    throw makeError('ERR_SENET_DATASET', 'evaluation: the data set that was to be evaluated has no images');
  return { count, loss: lossSum / count, accuracy: right / count, confusion, mistakes };
}

function indexOfLargest(scores: Float32Array, where: string): number {
  let best = 0;
  for (const [index, score] of scores.entries()) {
    // No score is larger than NaN: class 0 would be the answer.
    if (Number.isNaN(score))
      throw makeError(
        'ERR_SENET_NAN_OUTPUT',
        `${where}: expected numbers from the network, its scores are NaN`,
      );
    if (score > (scores[best] as number)) best = index;
  }
  return best;
}

function inputImage(images: Tensor, row: number): InputImage {
  const image = images.select(0, row);
  const [, height = 0, width = 0] = image.shape;
  return { values: image.toTypedArray() as Float32Array, height, width };
}
