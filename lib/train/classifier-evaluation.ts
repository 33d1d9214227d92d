/**
 * `evaluateClassifier`: a classifier's answers on a data set with known labels, with the preprocessing that it has in a
 * service: what share is right, what it confuses, whether it knows how sure it is.
 */
import { performance } from 'node:perf_hooks';

import { classifyMany } from '../bulk/classify-many';
import type { NamedImage } from '../bulk/image-list';
import { Subset, type Dataset, type Sample } from '../data/dataset';
import { ImageFolder, type ImageFile } from '../data/image-folder';
import { isError } from '../brands';
import { errorRecord, makeError } from '../errors';
import { throwIfAborted } from '../tensor/abort';
import { describe } from '../tensor/options';
import { fn, integer, optional, orElse, readOptions, signal, type Rules } from '../tensor/rules';
import { checkClassifier } from '../vision/check-classifier';
import type { ImageClassifier } from '../vision/image-classifier';
import type { Classification } from '../vision/ranking';
import { CalibrationCounter, type Calibration } from './calibration';
import { matchClasses } from './match-classes';

export interface EvaluateClassifierOptions {
  /** Images that go through the network together, where the data set has them in memory. Default 100. */
  batchSize?: number;
  /** Mistakes that are kept, the most certain first. Default 24. */
  mistakes?: number;
  /** Called now and then with the numbers of images that are done and right. */
  onProgress?: (done: number, right: number) => void;
  signal?: AbortSignal;
}

export interface ClassifierMistake {
  /** Place in the data set. */
  readonly index: number;
  /** The file, or 'image N'. */
  readonly name: string;
  readonly label: number;
  readonly prediction: number;
  /** Softmax probabilities of the prediction, and of the label; null if that is not among the best five. */
  readonly score: number;
  readonly labelScore: number | null;
}

export interface ClassifierEvaluation {
  /** Images that got an answer. */
  readonly count: number;
  /** How many of them were right. */
  readonly correct: number;
  /** Share of them whose best label was right, and of those with the right label among the best five. */
  readonly top1: number;
  readonly top5: number;
  /** Names of the network's outputs. */
  readonly classes: readonly string[];
  /** Whether the classes of the data were told by their names, or by their order. */
  readonly matched: 'name' | 'order';
  /** `confusion[label][prediction]` images, by outputs of the network. */
  readonly confusion: readonly (readonly number[])[];
  readonly calibration: Calibration;
  /** Output of the network for each image of the data set; -1 for those that got none. */
  readonly predictions: readonly number[];
  /** Images that could not be read or decoded. */
  readonly failed: readonly {
    readonly name: string;
    readonly code: string | null;
    readonly message: string;
  }[];
  readonly mistakes: readonly ClassifierMistake[];
  readonly seconds: number;
}

const RULES = {
  batchSize: orElse(100, integer(1)),
  mistakes: orElse(24, integer(0)),
  onProgress: optional(fn<(done: number, right: number) => void>()),
  signal,
} satisfies Rules<EvaluateClassifierOptions>;

/** Labels of each image that are asked for. */
const TOP = 5;

/**
 * Evaluates a classifier. Classes of the data are the network's labels of the same names (whatever their case), or,
 * where they are numbers, those of their places. An image that cannot be read is counted apart.
 *
 * @param dataset - such as an `ImageFolder`, a `Cifar10`, an `IdxDataset`, a `Subset` of one
 * @example
 * const { top1, calibration } = await evaluateClassifier(classifier, await ImageFolder.open('photos/val'));
 * @throws (rejects) ERR_SENET_LABELS (a class that the network does not have), ERR_SENET_DATASET (no images),
 *   ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED, and as `classifyMany`
 */
export async function evaluateClassifier(
  classifier: ImageClassifier,
  dataset: Dataset,
  options?: EvaluateClassifierOptions,
): Promise<ClassifierEvaluation> {
  const where = 'evaluateClassifier';
  const checked = readOptions(options, RULES, where);
  checkClassifier(classifier, `${where}: classifier`);
  if (typeof (dataset as Partial<Dataset> | null | undefined)?.get !== 'function')
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: dataset: expected a data set, got ${describe(dataset)}`);
  const began = performance.now();
  const { outputs, by } = matchClasses(dataset.classes ?? [], classifier.labels);
  const counter = new Counter(classifier.labels, outputs, checked.mistakes);
  let told = began;
  const answers = dataset.getBatch === undefined ? oneByOne : inBatches;
  for await (const answer of answers(classifier, dataset, checked)) {
    counter.add(answer);
    const now = performance.now();
    if (now - told < 100) continue;
    told = now;
    checked.onProgress?.(counter.done, counter.correct);
  }
  checked.onProgress?.(counter.done, counter.correct);
  if (counter.done === 0) throw makeError('ERR_SENET_DATASET', `${where}: the data set has no images`);
  return { ...counter.result(), matched: by, seconds: (performance.now() - began) / 1000 };
}

interface Answer {
  readonly index: number;
  readonly name: string;
  /** As the data set gives it. */
  readonly label: unknown;
  /** Best first, or what is wrong with the image. */
  readonly best: readonly Classification[] | Error;
}

type Checked = ReturnType<typeof readOptions<EvaluateClassifierOptions, typeof RULES>>;

async function* inBatches(
  classifier: ImageClassifier,
  dataset: Dataset,
  { batchSize, signal }: Checked,
): AsyncGenerator<Answer> {
  for (let start = 0; start < dataset.length; start += batchSize) {
    throwIfAborted(signal);
    const indices = Array.from(
      { length: Math.min(batchSize, dataset.length - start) },
      (_, at) => start + at,
    );
    const { images, labels } = (await dataset.getBatch?.(indices)) as {
      images: never;
      labels?: readonly unknown[];
    };
    const pixels = images as Sample['image'];
    try {
      const results = await classifier.classifyBatch(pixels, { topK: TOP, ...(signal && { signal }) });
      for (const [at, best] of results.entries())
        yield { index: start + at, name: nameIn(dataset, start + at), label: labels?.[at], best };
    } finally {
      pixels.dispose();
    }
  }
}

async function* oneByOne(
  classifier: ImageClassifier,
  dataset: Dataset,
  { signal }: Checked,
): AsyncGenerator<Answer> {
  const labels = new Map<number, unknown>();
  function* images(): Generator<NamedImage> {
    for (let index = 0; index < dataset.length; index++) {
      const place = index;
      const file = fileIn(dataset, place);
      // The classifier decodes files itself, several at a time.
      if (file !== null) {
        labels.set(place, file.label);
        yield { file: file.file, image: file.file };
        continue;
      }
      const image = async (): Promise<Sample['image']> => {
        const sample = await dataset.get(place, signal === undefined ? {} : { signal });
        labels.set(place, sample.label);
        return sample.image;
      };
      yield { file: `image ${place}`, image };
    }
  }
  const options = { topK: TOP, ...(signal && { signal }) };
  for await (const row of classifyMany(classifier, images(), options)) {
    const { index, labels: best, error } = row;
    const label = labels.get(index);
    labels.delete(index);
    const name = nameIn(dataset, index);
    yield { index, name, label, best: best ?? (error as Error) };
  }
}

/** What an image of a part of a folder is. */
function fileIn(dataset: Dataset, index: number): ImageFile | null {
  let [inner, place] = [dataset, index];
  while (inner instanceof Subset) [inner, place] = [inner.dataset as Dataset, inner.indices[place] as number];
  return inner instanceof ImageFolder ? (inner.samples[place] ?? null) : null;
}

/** How reports and messages name an image of a data set. */
function nameIn(dataset: Dataset, index: number): string {
  return fileIn(dataset, index)?.file ?? `image ${index}`;
}

class Counter {
  readonly #labels: readonly string[];
  readonly #outputs: readonly number[];
  readonly #kept: number;
  readonly #confusion: number[][] = [];
  readonly #calibration = new CalibrationCounter();
  readonly #predictions: number[] = [];
  readonly #failed: { name: string; code: string | null; message: string }[] = [];
  #mistakes: ClassifierMistake[] = [];
  #count = 0;
  #inFive = 0;
  correct = 0;

  constructor(labels: readonly string[], outputs: readonly number[], kept: number) {
    this.#labels = labels;
    this.#outputs = outputs;
    this.#kept = kept;
  }

  get done(): number {
    return this.#predictions.length;
  }

  add({ index, name, label: given, best }: Answer): void {
    if (isError(best)) {
      this.#predictions.push(-1);
      this.#failed.push({ name, ...errorRecord(best) });
      return;
    }
    if (!Number.isSafeInteger(given) || (given as number) < 0) {
      throw makeError(
        'ERR_SENET_LABELS',
        `${name}: expected a label that is an integer from 0, got ${describe(given)}`,
      );
    }
    const label = this.#outputs[given as number] ?? (given as number);
    if (this.#labels.length > 0 && label >= this.#labels.length)
      throw makeError(
        'ERR_SENET_LABELS',
        `${name}: the data has the label ${label} and the network ${this.#labels.length} classes`,
      );
    const [first] = best as [Classification];
    const right = first.index === label;
    this.#count++;
    this.#predictions.push(first.index);
    this.#calibration.add(first.score, right);
    const own = best.find((one) => one.index === label);
    if (own !== undefined) this.#inFive++;
    this.#cell(label, first.index);
    if (right) this.correct++;
    else
      this.#keep({
        ...{ index, name, label, prediction: first.index, score: first.score },
        labelScore: own?.score ?? null,
      });
  }

  result(): Omit<ClassifierEvaluation, 'matched' | 'seconds'> {
    const share = (of: number): number => (this.#count === 0 ? 0 : of / this.#count);
    const size = Math.max(this.#labels.length, this.#confusion.length);
    const confusion = Array.from({ length: size }, (_, label) =>
      Array.from({ length: size }, (_, prediction) => this.#confusion[label]?.[prediction] ?? 0),
    );
    return {
      ...{ count: this.#count, correct: this.correct, top1: share(this.correct), top5: share(this.#inFive) },
      classes: Array.from({ length: size }, (_, at) => this.#labels[at] ?? String(at)),
      ...{ confusion, calibration: this.#calibration.result(), predictions: this.#predictions },
      ...{ failed: this.#failed, mistakes: this.#mistakes },
    };
  }

  #cell(label: number, prediction: number): void {
    for (let size = this.#confusion.length; size <= Math.max(label, prediction); size++)
      this.#confusion.push([]);
    const row = this.#confusion[label] as number[];
    row[prediction] = (row[prediction] ?? 0) + 1;
  }

  #keep(mistake: ClassifierMistake): void {
    const least = this.#mistakes.at(-1)?.score ?? 0;
    if (this.#kept === 0 || (this.#mistakes.length >= this.#kept && mistake.score <= least)) return;
    this.#mistakes = [...this.#mistakes, mistake].sort((a, b) => b.score - a.score).slice(0, this.#kept);
  }
}
