/**
 * The options that choose a network, shared by `classify`, `evaluate` and `serve`, and what they mean. Loads the native build
 * only when a network is loaded.
 */
import { readFile } from 'node:fs/promises';

import type { Command } from 'commander';

import type { Device } from '../binding';
import { makeError } from '../errors';
import type { WantedWeights } from '../models/find-weights';
import type { WeightsPlace } from '../models/from-weights';
import type { Preprocessing } from '../models/preprocessing-record';
import type { ModelName } from '../models/registry';
import type { ImageClassifierOptions } from '../vision/classifier-loading';
import type { ImageClassifier } from '../vision/image-classifier';
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
  const { model, weights } = await chooseNetwork(options);
  const { ImageClassifier } = lazy.classifier;
  const given: ImageClassifierOptions = {
    ...more,
    ...(weights === undefined ? {} : { weights }),
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
  return ImageClassifier.load(model as ModelName, given);
}

interface Chosen {
  readonly model: string;
  /** Undefined where the model says them: a tag, a repository, a folder. */
  readonly weights?: string;
}

/** For whoever has many images in flight, `size` of which go through the network together; undefined is the usual size. */
export function batchesOf(size: number | undefined): ImageClassifierOptions {
  return size === undefined ? {} : { batching: { maxBatch: size, maxQueue: 4 * size + 1024 } };
}

/** The model and weights that the options mean. */
export async function chooseNetwork({
  model,
  weights,
  pretrained,
  key,
  prefix,
}: NetworkOptions): Promise<Chosen> {
  if (pretrained === true) {
    if (weights !== undefined)
      throw makeError('ERR_SENET_ARG_RANGE', '--pretrained and --weights exclude each other');
    if (model === undefined)
      throw makeError('ERR_SENET_ARG_MISSING', '--pretrained needs --model, such as se_resnet50');
    return usualWeights(model);
  }
  if (weights !== undefined)
    return model === undefined ? modelOf(weights, { key, prefix }) : { model, weights };
  if (model === undefined) return { model: 'se_resnet20', weights: 'fashion_mnist' };
  const source = lazy.models.parseName(model, '--model');
  if (lazy.sources.saysWeights(source)) return { model };
  throw makeError('ERR_SENET_ARG_MISSING', '--model needs --weights FILE or --pretrained');
}

/** What `--pretrained` means: nothing beside a repository, a folder or a file. @throws ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_RANGE */
function usualWeights(model: string): Chosen {
  const source = lazy.models.parseName(model, '--model');
  if (source.kind === 'model') {
    const { record, published } = source;
    const { name } = published ?? lazy.weights.publishedOf(record, true, '--pretrained');
    return { model: record.name, weights: name };
  }
  return { model };
}

/** The model that published weights belong to, or that they themselves say: a tag, a repository, a file. */
async function modelOf(weights: string, place: WeightsPlace): Promise<Chosen> {
  const published = lazy.models.findPublished(weights);
  if (published !== undefined) return { model: published.model, weights: published.name };
  // Of several networks: the file of that name, or an error that names them.
  const source = lazy.sources.parseModel(lazy.models.allRecords(), weights, '--weights');
  if (source !== null && source.kind !== 'file') return { model: weights };
  const wanted: WantedWeights = { network: null, weights };
  const { network } = await lazy.models.findWeights(wanted, place, '--weights');
  return { model: network.name, weights };
}

/** What `--preprocessing` says. @throws ERR_SENET_ARG_RANGE, ERR_SENET_FILE_NOT_FOUND */
export async function readPreprocessing(text: string): Promise<Partial<Preprocessing>> {
  const json = text.trimStart().startsWith('{') ? text : await readTextFile(text);
  try {
    return JSON.parse(json) as Partial<Preprocessing>;
  } catch (cause) {
    throw makeError('ERR_SENET_ARG_RANGE', `--preprocessing: expected JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function readTextFile(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw makeError('ERR_SENET_FILE_NOT_FOUND', `--preprocessing: ${(cause as Error).message}`, { cause });
  }
}
