/**
 * The answer to an inference request: what a network said of some images, as the protocol's tensors. Knows no transport.
 */
import { makeError } from '../../errors';
import { describe } from '../../tensor/options';
import type { Prediction } from '../../vision/ranking';
import { OUTPUT_NAMES, type OutputName } from './datatypes';

/** One output that a request asks for. */
export interface WantedOutput {
  readonly name: OutputName;
  /** So many of the best classes, as 'value:index:label', in place of all values; 0 is the values. */
  readonly classification: number;
  readonly binary: boolean;
}

export interface OutputTensor {
  readonly name: string;
  readonly datatype: 'FP32' | 'BYTES';
  readonly shape: readonly number[];
  readonly values: Float32Array | readonly string[];
  readonly binary: boolean;
}

/** @throws ERR_SENET_REQUEST */
export function checkOutputName(name: unknown): OutputName {
  if (OUTPUT_NAMES.includes(name as OutputName)) return name as OutputName;
  throw makeError(
    'ERR_SENET_REQUEST',
    `the outputs: expected the names ${OUTPUT_NAMES.join(' and ')}, got ${describe(name)}`,
  );
}

/** @throws ERR_SENET_REQUEST */
export function checkClassification(count: unknown): number {
  if (count === undefined) return 0;
  if (Number.isSafeInteger(count) && (count as number) >= 0) return count as number;
  throw makeError(
    'ERR_SENET_REQUEST',
    `the outputs: classification: expected a number of classes, got ${describe(count)}`,
  );
}

/** @param predictions - one for each image, of the same number of classes */
export function outputTensors(
  predictions: readonly Prediction[],
  labels: readonly string[],
  wanted: readonly WantedOutput[],
): OutputTensor[] {
  const classes = predictions[0]?.scores.length ?? 0;
  return wanted.map(({ name, classification, binary }) => {
    if (classification === 0) {
      const values = new Float32Array(predictions.length * classes);
      predictions.forEach((prediction, image) => values.set(prediction[name], image * classes));
      return { name, datatype: 'FP32', shape: [predictions.length, classes], values, binary };
    }
    const count = Math.min(classification, classes);
    const values = predictions.flatMap((prediction) => best(prediction[name], labels, count));
    return { name, datatype: 'BYTES', shape: [predictions.length, count], values, binary };
  });
}

/** Of equal values the first comes first. */
function best(values: Float32Array, labels: readonly string[], count: number): string[] {
  const order = Array.from(values.keys()).sort(
    (left, right) => (values[right] as number) - (values[left] as number) || left - right,
  );
  return order.slice(0, count).map((index) => {
    const label = labels[index];
    return `${(values[index] as number).toFixed(6)}:${index}${label === undefined ? '' : `:${label}`}`;
  });
}

/** Little-endian; BYTES each behind its length. */
export function rawBytes({ values }: OutputTensor): Buffer {
  if (!Array.isArray(values)) {
    const { buffer, byteOffset, byteLength } = values as Float32Array;
    return Buffer.from(buffer, byteOffset, byteLength);
  }
  return Buffer.concat(
    (values as string[]).flatMap((text) => {
      const bytes = Buffer.from(text, 'utf8');
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
}
