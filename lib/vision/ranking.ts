/** From logits to labels with scores. */
import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';

export interface Classification {
  readonly label: string;
  readonly index: number;
  /** Softmax probability. */
  readonly score: number;
}

/**
 * The best classes for each image of a batch, as many as `topK` says for that image; null where its scores are NaN.
 *
 * @param labels - of all classes; none if they are not known, when the indices stand for them
 * @throws ERR_SENET_SHAPE, ERR_SENET_LABELS
 */
export function rank(
  logits: Tensor,
  labels: readonly string[],
  topK: readonly number[],
): (Classification[] | null)[] {
  const [count, classes] = logits.shape;
  if (logits.shape.length !== 2 || count !== topK.length || classes === undefined) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `classify: expected N x classes from the model, got [${logits.shape.join(', ')}]`,
    );
  }
  if (labels.length > 0 && labels.length !== classes) {
    throw makeError(
      'ERR_SENET_LABELS',
      `classify: the model has ${classes} classes and there are ${labels.length} labels`,
    );
  }
  const probabilities = logits.to('cpu').to('float32').softmax(1);
  const sums = probabilities.sum(1).toTypedArray() as Float32Array; // NaN with any score that is
  return topK.map((wanted, image) => {
    if (Number.isNaN(sums[image])) return null;
    // One by one: which of several equal scores come first depends on how many are wanted.
    const { values, indices } = probabilities.select(0, image).topk(Math.min(wanted, classes));
    const scores = values.toTypedArray() as Float32Array;
    return Array.from(indices.toTypedArray() as BigInt64Array, (place, nth) => {
      const index = Number(place);
      return { label: labels[index] ?? String(index), index, score: scores[nth] as number };
    });
  });
}

export function nanError(where: string): Error {
  return makeError(
    'ERR_SENET_NAN_OUTPUT',
    `${where}: expected numbers from the network, its scores are NaN; look at the weights and the preprocessing`,
  );
}
