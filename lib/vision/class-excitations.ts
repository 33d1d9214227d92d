/** The gates of a classifier's SE layers by the classes of many images. */
import { makeError } from '../errors';
import { ClassStatistics, type ClassExcitations } from '../explain/class-statistics';
import { describe } from '../tensor/options';
import { names, readOptions, required, signal, type Rules } from '../tensor/rules';
import { ImageClassifier } from './image-classifier';
import type { ImageSource } from './image-work';

/** An image, and which of the classes it is of. */
export interface LabelledImage {
  readonly image: ImageSource;
  /** Index into `classes`. */
  readonly label: number;
}

export interface ClassExcitationsOptions {
  /** Names of the classes of the images, which need not be those of the network. */
  classes: readonly string[];
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

const OPTIONS = { classes: required(names), signal } satisfies Rules<ClassExcitationsOptions>;

/** Images that are asked for ahead: decoded while the network is busy. */
const AHEAD = 4;

/**
 * Mean and standard deviation of every gate for each class of images, and how selective each channel is: the article's
 * figure of what SE layers learn (Hu et al., section "Role of excitation"), from images of one's own. Takes up a few images at a
 * time.
 *
 * @param images `{ image, label }`; also what yields them one by one
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (a label that is no class, a network without SE layers),
 *   ERR_SENET_ARG_MISSING, and as `ImageClassifier.explain`
 */
export async function classExcitations(
  classifier: ImageClassifier,
  images: Iterable<LabelledImage> | AsyncIterable<LabelledImage>,
  options: ClassExcitationsOptions,
): Promise<ClassExcitations> {
  const where = 'classExcitations';
  if (!(classifier instanceof ImageClassifier))
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: expected an ImageClassifier, got ${describe(classifier)}`,
    );
  const { classes, signal } = readOptions(options, OPTIONS, where);
  const { [Symbol.iterator]: each, [Symbol.asyncIterator]: eachAsync } = (images ?? {}) as Partial<
    Iterable<unknown> & AsyncIterable<unknown>
  >;
  if (typeof images !== 'object' || (each ?? eachAsync) === undefined) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: images: expected an array or another iterable of { image, label }, got ${describe(images)}`,
    );
  }
  const statistics = new ClassStatistics([...classes]);
  const running = new Set<Promise<void>>();
  const failures: unknown[] = [];
  const add = async ({ image, label }: LabelledImage): Promise<void> => {
    const explained = await classifier.explain(image, {
      ...{ cam: false, topK: 1 },
      ...(signal === undefined ? {} : { signal }),
    });
    if (explained.excitations?.length === 0)
      throw makeError('ERR_SENET_ARG_RANGE', `${where}: the network has no SE layer`);
    statistics.add(label, explained.excitations ?? []);
  };
  try {
    for await (const labelled of images) {
      if (typeof labelled !== 'object' || (labelled as unknown) === null)
        throw makeError(
          'ERR_SENET_ARG_TYPE',
          `${where}: images: expected { image, label }, got ${describe(labelled)}`,
        );
      const { label } = labelled;
      if (!Number.isInteger(label) || label < 0 || label >= classes.length) {
        throw makeError(
          'ERR_SENET_ARG_RANGE',
          `${where}: label: expected the index of one of ${classes.length} classes, got ${describe(label)}`,
        );
      }
      const one = add(labelled)
        .catch((error: unknown) => void failures.push(error))
        .finally(() => running.delete(one));
      running.add(one);
      if (running.size >= AHEAD) await Promise.race(running);
      if (failures.length > 0) break;
    }
  } finally {
    await Promise.all(running);
  }
  if (failures.length > 0) throw failures[0];
  return statistics.result;
}
