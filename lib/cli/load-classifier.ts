/**
 * The options that choose a network, shared by `classify` and `evaluate`, and what they mean. Loads the native build
 * only when a network is loaded.
 */
import { readFile } from 'node:fs/promises';

import type { Command } from 'commander';

import type { Device } from '../binding';
import { makeError } from '../errors';
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
}

export function addNetworkOptions(command: Command): Command {
  command
    .option('-m, --model <name>', 'the model (see `senet-torch models`); default: what the weights say')
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
    .option('--device <device>', "'cpu', 'cuda' or 'cuda:N'", 'cpu');
}

/** The bundled network, unless the options say otherwise. */
export async function loadClassifier(options: NetworkOptions, signal: AbortSignal): Promise<ImageClassifier> {
  const { model, weights } = await chooseNetwork(options);
  const { ImageClassifier } = lazy.classifier;
  const given: ImageClassifierOptions = {
    weights,
    signal,
    checkHash: options.checkHash,
    device: options.device as Device,
    progress: process.stderr.isTTY,
    ...(options.key === undefined ? {} : { key: options.key }),
    ...(options.prefix === undefined ? {} : { prefix: options.prefix }),
    ...(options.labels === undefined ? {} : { labels: options.labels }),
    ...(options.preprocessing === undefined
      ? {}
      : { preprocessing: await readPreprocessing(options.preprocessing) }),
  };
  return ImageClassifier.load(model as ModelName, given);
}

async function chooseNetwork({
  model,
  weights,
  pretrained,
  key,
  prefix,
}: NetworkOptions): Promise<{ model: string; weights: string }> {
  if (pretrained === true) {
    if (weights !== undefined)
      throw makeError('ERR_SENET_ARG_RANGE', '--pretrained and --weights exclude each other');
    if (model === undefined)
      throw makeError('ERR_SENET_ARG_MISSING', '--pretrained needs --model, such as se_resnet50');
    return { model, weights: usualWeights(model) };
  }
  if (weights !== undefined) return { model: model ?? (await modelOf(weights, { key, prefix })), weights };
  if (model === undefined) return { model: 'se_resnet20', weights: 'fashion_mnist' };
  lazy.models.modelRecord(model as ModelName); // an unknown model is the first thing to say
  throw makeError('ERR_SENET_ARG_MISSING', '--model needs --weights FILE or --pretrained');
}

/** What `--pretrained` means. @throws ERR_SENET_UNKNOWN_MODEL, ERR_SENET_ARG_RANGE */
export function usualWeights(model: string): string {
  const record = lazy.models.modelRecord(model as ModelName);
  return lazy.pretrained.publishedOf(record, true, '--pretrained').name;
}

/** The model that published weights belong to, or that the file is for. */
async function modelOf(weights: string, place: WeightsPlace): Promise<string> {
  const published = lazy.models.findPublished(weights);
  if (published !== undefined) return published.model;
  return (await lazy.models.modelOfFile(weights, place, '--weights')).name;
}

async function readPreprocessing(text: string): Promise<Partial<Preprocessing>> {
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
