/** Whether what a caller gave is an ImageClassifier: by what it can do, since another copy of the library has another class. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import type { ImageClassifier } from './image-classifier';

/** @throws ERR_SENET_ARG_TYPE */
export function checkClassifier(given: unknown, what: string): ImageClassifier {
  const { classify, predict } = (given ?? {}) as Partial<ImageClassifier>;
  if (typeof classify === 'function' && typeof predict === 'function') return given as ImageClassifier;
  throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an ImageClassifier, got ${describe(given)}`);
}
