/**
 * `classifyMany`: a stream of images through a classifier, with a bounded number under way and the answers in the order
 * of the images. What becomes of the answers is the caller's affair.
 */
import { setTimeout } from 'node:timers/promises';

import { isSenetError, makeError, type AnySenetError, type ErrorCode } from '../errors';
import { anySignal, throwIfAborted } from '../tensor/abort';
import { describe } from '../tensor/options';
import { integer, orElse, readOptions, signal, type Rules } from '../tensor/rules';
import { ByteBudget, PIXEL_BYTES } from '../vision/byte-budget';
import type { ImageClassifier } from '../vision/image-classifier';
import type { Classification } from '../vision/ranking';
import { checkImages, selectImages, type ManyImages, type SelectedImage } from './image-list';
import { Relay } from './relay';

export interface ClassifyManyOptions {
  /** How many labels of each image, best first; clamped to the number of classes. Default 5. */
  topK?: number;
  /**
   * Images that are read, decoded, in the network or wait for one before them, 1 to 100,000. Default 64. Several times
   * `batching.maxBatch`: while a batch runs, the next are made ready.
   */
  inFlight?: number;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/** The answer to one image. */
export interface ImageRow {
  /** Place in the list, from 0. */
  readonly index: number;
  /** Its name in the list. */
  readonly file: string;
  /** Best first; null if there is an error. */
  readonly labels: readonly Classification[] | null;
  /** What is wrong with the image; null if nothing is. */
  readonly error: AnySenetError | null;
}

export const MANY = {
  topK: orElse(5, integer(1)),
  inFlight: orElse(64, integer(1, 100_000)),
  signal,
} satisfies Rules<ClassifyManyOptions>;

/** Errors that are of one image, and say nothing of the next. */
const OF_AN_IMAGE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  ...(['ERR_SENET_IMAGE', 'ERR_SENET_IMAGE_SIZE', 'ERR_SENET_NAN_OUTPUT', 'ERR_SENET_DATA_FORMAT'] as const),
  ...(['ERR_SENET_FILE_NOT_FOUND', 'ERR_SENET_FILE', 'ERR_SENET_BUFFER'] as const),
  ...(['ERR_SENET_ARG_TYPE', 'ERR_SENET_ARG_RANGE', 'ERR_SENET_SHAPE', 'ERR_SENET_DTYPE'] as const),
]);

/** Milliseconds after which a classifier whose queue others have filled is asked again. */
const ASK_AGAIN = 20;

/**
 * Classifies a stream of images: reading, decoding and the network overlap, at most `inFlight` images are held, and the
 * rows come in the order of the images, so that memory does not grow with their number. An image that cannot be read
 * or decoded is a row with its error; what concerns all images (the device is lost, the classifier disposed) ends the
 * stream. Who leaves the loop early ends what is under way.
 *
 * @example
 * for await (const { file, labels, error } of classifyMany(classifier, listImages('photos')))
 *   console.log(file, labels?.[0]?.label ?? error?.code);
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, what the list throws,
 *   ERR_SENET_DISPOSED, ERR_SENET_LABELS, ERR_SENET_ABORTED, and the errors of the machine
 */
export async function* classifyMany(
  classifier: ImageClassifier,
  images: ManyImages,
  options?: ClassifyManyOptions,
): AsyncGenerator<ImageRow, void, undefined> {
  const where = 'classifyMany';
  const checked = readOptions(options, MANY, where);
  checkClassifier(classifier, where);
  checkImages(images, where);
  yield* answersTo(classifier, selectImages(images, {}), checked);
}

/** @throws ERR_SENET_ARG_TYPE */
export function checkClassifier(classifier: unknown, where: string): asserts classifier is ImageClassifier {
  if (typeof (classifier as Partial<ImageClassifier> | null | undefined)?.classify === 'function') return;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${where}: classifier: expected an ImageClassifier, got ${describe(classifier)}`,
  );
}

export interface AnswerOptions {
  readonly topK: number;
  readonly inFlight: number;
  readonly signal: AbortSignal | undefined;
}

/** Rows of the images that are to be read, in order. */
export async function* answersTo(
  classifier: ImageClassifier,
  images: AsyncIterable<SelectedImage>,
  { topK, inFlight, signal }: AnswerOptions,
): AsyncGenerator<ImageRow, void, undefined> {
  throwIfAborted(signal);
  const own = new AbortController();
  const both = anySignal([signal, own.signal]);
  const budget = new ByteBudget(PIXEL_BYTES);
  const most = Math.min(inFlight, classifier.queue.limit);
  const answer = async ({ index, file, image, bytes }: SelectedImage): Promise<ImageRow> => {
    const hold = budget.hold(both.signal);
    try {
      if (bytes > 0) await hold.reserve(bytes);
      const source = typeof image === 'function' ? await image() : image;
      const labels = await classifyPatiently(classifier, source as string, topK, both.signal);
      return { index, file, labels, error: null };
    } catch (error) {
      if (!isSenetError(error) || !OF_AN_IMAGE.has(error.code)) throw error;
      return { index, file, labels: null, error };
    } finally {
      hold.release();
    }
  };
  const relay = new Relay(images, answer, most);
  try {
    for (let row = await relay.next(both.signal); row !== null; row = await relay.next(both.signal))
      yield row;
  } finally {
    own.abort();
    both.stop();
    relay.stop();
  }
}

/** Others may have filled the classifier's queue: then it is asked again, and again. */
async function classifyPatiently(
  classifier: ImageClassifier,
  image: string,
  topK: number,
  signal: AbortSignal,
): Promise<Classification[]> {
  for (;;) {
    try {
      return await classifier.classify(image, { topK, signal });
    } catch (error) {
      if (!isSenetError(error) || error.code !== 'ERR_SENET_QUEUE_FULL') throw error;
    }
    await setTimeout(ASK_AGAIN);
    throwIfAborted(signal);
  }
}
