/**
 * The options that choose a network, shared by `classify`, `evaluate` and `serve`, and what they mean. Loads the native build
 * only when a network is loaded.
 */
import type { Command } from 'commander';

import type { Device } from '../binding';
import { BUNDLED_WEIGHTS, DEFAULT_NETWORK } from '../models/defaults';
import type { Preprocessing } from '../models/preprocessing-record';
import type { ImageClassifierOptions } from '../vision/classifier-loading';
import type { ImageClassifier } from '../vision/image-classifier';
import { parseJsonText, readJsonFile } from './json-file';
import { lazy } from './lazy';
import { addPlaceOptions } from './training-options';

export interface NetworkOptions {
  model?: string;
  weights?: string;
  key?: string;
  prefix?: string;
  pretrained?: boolean;
  labels?: string;
  preprocessing?: string;
  device?: string;
  /** Commander's form of --no-check-hash. */
  checkHash: boolean;
  useTestSize?: boolean;
}

export function addNetworkOptions(command: Command): Command {
  command
    .option(
      '-m, --model <name>',
      'the model (see `senet-torch models`), also with a tag (seresnet50.a1_in1k), hf-hub:REPOSITORY or local-dir:FOLDER; default: what the weights say',
    )
    .option(
      '-w, --weights <file>',
      'a checkpoint (.safetensors, .pt, .pth, .pkl), or the name of published weights',
    );
  return addPlaceOptions(command)
    .option('--pretrained', "the model's published weights; downloads them if need be")
    .option('--no-check-hash', 'accept a download whose SHA-256 is not the promised one')
    .option(
      '--labels <file>',
      'labels: a line for each, or a JSON array or object (index to name, or name to index)',
    )
    .option(
      '--preprocessing <json>',
      'JSON, or a file with it: channels, size, crop, pad, interpolation, mean, std',
    )
    .option(
      '--use-test-size',
      'images of the larger size at which the weights are better, where they say one',
    )
    .option('--device <device>', "'cpu', 'cuda' or 'cuda:N'", 'cpu');
}

/** Whether options name no network: then it is the bundled one. */
export function saysNoNetwork({ model, weights, pretrained }: Partial<NetworkOptions>): boolean {
  return model === undefined && weights === undefined && pretrained !== true;
}

/**
 * The bundled network, unless the options say otherwise.
 *
 * @param more - what else `ImageClassifier.load` is told
 */
export async function loadClassifier(
  options: NetworkOptions,
  signal: AbortSignal,
  more: ImageClassifierOptions = {},
): Promise<ImageClassifier> {
  const { ImageClassifier } = lazy.classifier;
  const { model = null, weights, pretrained = false } = options;
  const saysNothing = saysNoNetwork(options);
  const given: ImageClassifierOptions = {
    ...more,
    ...(weights === undefined ? {} : { weights }),
    ...(saysNothing ? { weights: BUNDLED_WEIGHTS } : {}),
    pretrained,
    signal,
    checkHash: options.checkHash,
    device: options.device as Device,
    progress: process.stderr.isTTY,
    ...(options.key === undefined ? {} : { key: options.key }),
    ...(options.prefix === undefined ? {} : { prefix: options.prefix }),
    ...(options.useTestSize === true ? { useTestSize: true } : {}),
    ...(options.labels === undefined ? {} : { labels: options.labels }),
    ...(options.preprocessing === undefined
      ? {}
      : { preprocessing: await readPreprocessing(options.preprocessing) }),
  };
  return ImageClassifier.load(saysNothing ? DEFAULT_NETWORK : model, given);
}

/** What a page or a report calls the network: as it was asked for with a tag, or by its name. */
export function titleOf({ model }: ImageClassifier, { model: asked }: NetworkOptions): string {
  return asked ?? model ?? 'network';
}

/** For whoever has many images in flight, `size` of which go through the network together; undefined is the usual size. */
export function batchesOf(size: number | undefined): ImageClassifierOptions {
  return size === undefined ? {} : { batching: { maxBatch: size, maxQueue: 4 * size + 1024 } };
}

/** As many images again while a batch of `size` runs, and some for one that takes longer than its neighbours. */
export function inFlightOf(size = 16): number {
  return Math.max(64, 4 * size);
}

/** What `--preprocessing` says. @throws ERR_SENET_ARG_RANGE, ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE */
export async function readPreprocessing(text: string): Promise<Partial<Preprocessing>> {
  const option = '--preprocessing';
  const json = text.trimStart().startsWith('{')
    ? parseJsonText(text, option)
    : await readJsonFile(text, option);
  return json as Partial<Preprocessing>;
}
