/**
 * What stands around a classifier's network: the labels and the preprocessing that weights bring, the channels of its
 * images, its classes, and what runs it. The network itself is made in `models`.
 */
import type { Device, DType } from '../binding';
import { printable } from '../checkpoint/problems';
import type { StateDict } from '../checkpoint/state-dict';
import { makeError } from '../errors';
import { ClassifierModel } from '../models/classifier-model';
import { labelsFileOf } from '../models/pretrained';
import type { PublishedWeights } from '../models/record';
import { COMPILED_DTYPES, type CompiledDType } from '../nn/compiled-model';
import { Linear } from '../nn/layers';
import { Module } from '../nn/module';
import { describe } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';
import { checkLabels, readLabels } from './labels';
import {
  CHANNELS,
  checkPreprocessing,
  inputChannels,
  PLAIN,
  recordFor,
  type Preprocessing,
} from './preprocessing';

interface Brought {
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
}

/** Labels and preprocessing that come with the weights. */
export async function broughtBy(
  state: StateDict | undefined,
  published: PublishedWeights | undefined,
  label: string,
): Promise<Brought> {
  const file = printable(label, 1000);
  const read = (name: string): unknown => {
    const text = state?.fileMetadata.get(name);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw makeError(
        'ERR_SENET_CHECKPOINT_FORMAT',
        `${file}: metadata '${name}': expected JSON, got ${describe(text)}`,
        { cause },
      );
    }
  };
  const labelsFile = published && labelsFileOf(published);
  const labels = read('labels') ?? (labelsFile === undefined ? undefined : await readLabels(labelsFile));
  const record = read('preprocessing');
  return {
    ...(labels === undefined ? {} : { labels: checkLabels(labels, `${file}: metadata 'labels'`) }),
    ...(record === undefined
      ? published?.preprocessing && { preprocessing: published.preprocessing }
      : { preprocessing: checkPreprocessing(record, PLAIN, `${file}: metadata 'preprocessing'`) }),
  };
}

/** Channels of the images that a module takes; 0 if it does not say, as with a forward in TypeScript. */
export function channelsOf(model: Module<unknown>): number {
  return Module.runsNatively(model) ? Module.widthOf(model)[0] : 0;
}

/** @throws ERR_SENET_ARG_RANGE unless images have so many channels */
export function checkImageChannels(channels: number, where: string): number {
  if (channels === 1 || channels === 3) return channels;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: the network takes ${channels} channels, and images have 1 (grey) or 3 (colour)`,
  );
}

/**
 * The record of a classifier: what is given, over what the weights bring or is usual, for so many channels (0: unknown).
 *
 * @throws as `checkPreprocessing`; ERR_SENET_ARG_RANGE if the record would make another number of channels
 */
export function chooseRecord(
  given: Partial<Preprocessing> | undefined,
  base: Preprocessing,
  channels: number,
  where: string,
): Preprocessing {
  const kind = CHANNELS.find((name) => name === given?.channels);
  const wanted = kind === undefined ? channels : inputChannels({ channels: kind });
  if (channels === 0 || channels === wanted) return checkPreprocessing(given, recordFor(base, wanted), where);
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: channels: '${kind}' makes ${wanted}, and the network takes ${channels}`,
  );
}

/** Outputs of the classifier; in a module of one's own of the layer called `fc`, as in torchvision's. Else undefined. */
export function countClasses(model: Module<unknown>): number | undefined {
  const head =
    model instanceof ClassifierModel
      ? model.getClassifier()
      : model.namedChildren().find(([name]) => name === 'fc')?.[1];
  return head instanceof Linear ? head.outFeatures : undefined;
}

/** What gives the logits of a batch. */
export interface Network {
  /** @param x - float32, N x channels x height x width, on the CPU */
  forward(x: Tensor): Promise<Tensor>;
  dispose(): void;
}

/**
 * The network of a model in evaluation mode: a compiled copy, or the model itself for a dtype that is not compiled
 * (float64) and for a forward in TypeScript. What `owned` says is this network's to dispose.
 */
export async function makeNetwork(
  model: Module<unknown>,
  owned: boolean,
  dtype: DType,
  device: Device,
  signal: AbortSignal | undefined,
): Promise<Network> {
  model.eval();
  if (!COMPILED_DTYPES.includes(dtype as CompiledDType) || !Module.runsNatively(model)) {
    model.to({ dtype, device });
    return {
      forward: async (x) => (await model.forward(x.to({ dtype, device }))) as Tensor,
      dispose: () => owned && model.dispose(),
    };
  }
  model.to(device);
  const compiling = model.compile({
    dtype: dtype as CompiledDType,
    ...(signal === undefined ? {} : { signal }),
  });
  // The job holds its weights until it has read them, and no longer.
  if (owned) model.dispose();
  const compiled = await compiling;
  return {
    forward: (x) => compiled.forward(x.to(device)),
    dispose: () => compiled.dispose(),
  };
}
