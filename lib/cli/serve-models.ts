/** The classifiers that `serve` begins with, and how those are made that are loaded later. */
import { anySignal } from '../tensor/abort';
import type { ModelLoader } from '../serve/model-table';
import type { ImageClassifierOptions } from '../vision/classifier-loading';
import type { ImageClassifier } from '../vision/image-classifier';
import { chooseNetwork, loadClassifier, type NetworkOptions } from './load-classifier';
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
  if (
    models === undefined &&
    watch !== undefined &&
    options.model === undefined &&
    options.weights === undefined
  )
    return { models: {}, repository: {} };
  const listed =
    models === undefined
      ? [{ key: await nameOf(options), load: true, make: loaderOf(options, maxPixels) }]
      : Object.entries(models).map(([key, model]) => ({
          key,
          load: model.load,
          make: loaderOf(model, maxPixels),
        }));
  const loaded: Record<string, ImageClassifier> = {};
  try {
    // One by one: each takes all processors, and memory for twice its weights.
    for (const { key, load, make } of listed) if (load) loaded[key] = await make(signal);
  } catch (error) {
    for (const classifier of Object.values(loaded)) await classifier.dispose();
    throw error;
  }
  const repository = Object.fromEntries(
    listed.map(({ key, make }): [string, ModelLoader] => [
      key,
      async (closing) => {
        const { signal: either, stop } = anySignal([signal, closing]);
        return make(either).finally(stop);
      },
    ]),
  );
  return { models: loaded, repository };
}

/** What requests call the one network of the command line: a name without what separates paths and versions. */
async function nameOf(options: ServeOptions): Promise<string> {
  if (options.name !== undefined) return options.name;
  const { model } = await chooseNetwork(options);
  return (model.split(/[/:\\]/).at(-1) ?? model)
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
