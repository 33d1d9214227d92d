/** From logits to labels with scores. */
import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';

export interface Classification {
  readonly label: string;
  readonly index: number;
  /** Softmax probability. */
  readonly score: number;
}

/** What a network says of an image, class by class in the order of its outputs. */
export interface Prediction {
  /** As the network gives them, in float32. */
  readonly logits: Float32Array;
  /** Softmax probabilities. */
  readonly scores: Float32Array;
}

/** Of an image: so many of the best labels, or what the network says of all classes. */
export type Wanted = number | 'all';

/**
 * What is wanted of each image of a batch, the best classes or all; null where its scores are NaN.
 *
 * @param labels - of all classes; none if they are not known, when the indices stand for them
 * @throws ERR_SENET_SHAPE, ERR_SENET_LABELS
 */
export function rank(
  logits: Tensor,
  labels: readonly string[],
  wanted: readonly number[],
): (Classification[] | null)[];
export function rank(
  logits: Tensor,
  labels: readonly string[],
  wanted: readonly Wanted[],
): (Classification[] | Prediction | null)[];
export function rank(
  logits: Tensor,
  labels: readonly string[],
  wanted: readonly Wanted[],
): (Classification[] | Prediction | null)[] {
  const [count, classes] = logits.shape;
  if (logits.shape.length !== 2 || count !== wanted.length || classes === undefined) {
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
  const outputs = logits.to('cpu').to('float32');
  const probabilities = outputs.softmax(1);
  const sums = probabilities.sum(1).toTypedArray() as Float32Array; // NaN with any score that is
  return wanted.map((topK, image) => {
    if (Number.isNaN(sums[image])) return null;
    if (topK === 'all') {
      return { logits: valuesOf(outputs, image), scores: valuesOf(probabilities, image) };
    }
    // One by one: which of several equal scores come first depends on how many are wanted.
    const { values, indices } = probabilities.select(0, image).topk(Math.min(topK, classes));
    const scores = values.toTypedArray() as Float32Array;
    return Array.from(indices.toTypedArray() as BigInt64Array, (place, nth) => {
      const index = Number(place);
      return { label: labels[index] ?? String(index), index, score: scores[nth] as number };
    });
  });
}

function valuesOf(rows: Tensor, row: number): Float32Array {
  return rows.select(0, row).toTypedArray() as Float32Array;
}

export function nanError(where: string): Error {
  return makeError(
    'ERR_SENET_NAN_OUTPUT',
    `${where}: expected numbers from the network, its scores are NaN; look at the weights and the preprocessing`,
  );
}
