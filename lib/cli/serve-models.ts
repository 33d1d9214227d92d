/** The classifiers that `serve` begins with, and how those are made that are loaded later. */
import { anySignal } from '../tensor/abort';
import type { ModelLoader } from '../serve/model-table';
import type { ImageClassifierOptions } from '../vision/classifier-loading';
import type { ImageClassifier } from '../vision/image-classifier';
import { loadClassifier, saysNoNetwork, titleOf, type NetworkOptions } from './load-classifier';
import type { ServeConfig, ServedModelConfig } from './serve-config';
import type { ServeOptions } from './serve-options';

export interface ServedModels {
  readonly models: Readonly<Record<string, ImageClassifier>>;
  /** By the same names: all that may be loaded, again or for the first time. */
  readonly repository: Readonly<Record<string, ModelLoader>>;
}

/** Images of one network that may wait: what a caller waits for without leaving. */
const MAX_QUEUE = 128;

export async function loadModels(
  { models, options, watch, maxPixels }: ServeConfig,
  signal: AbortSignal,
): Promise<ServedModels> {
  // A folder that is watched needs no other network.
  if (models === undefined && watch !== undefined && saysNoNetwork(options))
    return { models: {}, repository: {} };
  const again = (make: ModelLoader): ModelLoader => whileNeither(signal, make);
  if (models === undefined) {
    const make = loaderOf(options, maxPixels);
    const classifier = await make(signal);
    const name = options.name ?? nameOf(classifier, options);
    return { models: { [name]: classifier }, repository: { [name]: again(make) } };
  }
  const loaded: Record<string, ImageClassifier> = {};
  const repository: Record<string, ModelLoader> = {};
  try {
    // One by one: each takes all processors, and memory for twice its weights.
    for (const [name, model] of Object.entries(models)) {
      const make = loaderOf(model, maxPixels);
      repository[name] = again(make);
      if (model.load) loaded[name] = await make(signal);
    }
  } catch (error) {
    for (const classifier of Object.values(loaded)) await classifier.dispose();
    throw error;
  }
  return { models: loaded, repository };
}

/** A loader that another signal aborts too. */
export function whileNeither(signal: AbortSignal, make: ModelLoader): ModelLoader {
  return async (closing) => {
    const { signal: either, stop } = anySignal([signal, closing]);
    return make(either).finally(stop);
  };
}

/** What requests call the one network of the command line: its title without what separates paths and versions. */
function nameOf(classifier: ImageClassifier, options: ServeOptions): string {
  const title = titleOf(classifier, options);
  return (
    title
      .split(/[/:\\]/)
      .filter((part) => part !== '')
      .at(-1) ?? title
  )
    .replace(/\.(safetensors|pth?|pkl)$/, '')
    .replaceAll('@', '-');
}

/** Of what the command line or the file says. @param maxPixels - where that does not say it */
function loaderOf(
  given: ServeOptions | ServedModelConfig,
  maxPixels: number | undefined,
): (signal: AbortSignal) => Promise<ImageClassifier> {
  const { labels, preprocessing, ...rest } = given;
  const network = Object.fromEntries(
    Object.entries(rest).filter(([, value]) => value !== undefined),
  ) as unknown as NetworkOptions;
  const batching = Object.fromEntries(
    (['maxBatch', 'delay'] as const).flatMap((name) =>
      given[name] === undefined ? [] : [[name, given[name]]],
    ),
  );
  const most = given.maxPixels ?? maxPixels;
  const more: ImageClassifierOptions = {
    batching: { ...batching, maxQueue: given.maxQueue ?? MAX_QUEUE },
    ...(given.dtype === undefined ? {} : { dtype: given.dtype as 'float32' }),
    ...(given.shrinkOnLoad === true ? { shrinkOnLoad: true } : {}),
    ...(most === undefined ? {} : { maxPixels: most }),
    ...('inChannels' in given && given.inChannels !== undefined ? { inChannels: given.inChannels } : {}),
    ...(labels === undefined ? {} : { labels }),
    ...(typeof preprocessing === 'object' ? { preprocessing } : {}),
  };
  const text = typeof preprocessing === 'string' ? { preprocessing } : {};
  return (signal) => loadClassifier({ ...network, ...text }, signal, more);
}

/** The loader of a file of weights in a folder that is watched. */
export function fileLoader(
  { options, maxPixels }: ServeConfig,
  file: string,
): (signal: AbortSignal) => Promise<ImageClassifier> {
  const { model: _model, weights: _weights, pretrained: _pretrained, ...rest } = options;
  return loaderOf({ ...rest, weights: file }, maxPixels);
}
