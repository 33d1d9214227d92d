/**
 * The hub's `config.json`, which lies beside the weights in a snapshot or a folder (timm/models/_hub.py): the network, its
 * labels, how images become its input. What it says is checked, what it does not say is not guessed.
 */
import { open } from 'node:fs/promises';
import path from 'node:path';

import { isPlainObject } from '../brands';
import { makeError } from '../errors';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import type { Preprocessing } from './preprocessing-record';
import type { ModelRecord } from './record';
import { IMAGENET_LABELS, timmPreprocessing } from './timm-weights';

/** What is taken from it. */
export interface HubConfig {
  /** Of the network, from timm's `model_args`. */
  readonly options: Readonly<Record<string, number>>;
  /** What a classifier needs beside: checked when it is asked for, since a network alone needs none of it. */
  readonly bring: () => BroughtByHub;
}

export interface BroughtByHub {
  readonly labels?: readonly string[];
  /** A file of `assets/labels`, where it says none and its tag is of weights for ImageNet's 1,000 classes. */
  readonly labelsFile?: string;
  readonly preprocessing?: Preprocessing;
  /** For larger images, at which the network is better: timm's `use_test_size`. */
  readonly testPreprocessing?: Preprocessing;
}

const MAX_BYTES = 16 * 1024 * 1024;

/** The network that the file beside weights names; null if there is no such file. */
export async function architectureBeside(weights: string): Promise<string | null> {
  return (await readConfigBeside(weights))?.architecture ?? null;
}

/** Of the folder of a file of weights, unchecked; null if there is none, or one that is not timm's. */
export async function readConfigBeside(weights: string): Promise<Config | null> {
  return readConfig(fileBeside(weights));
}

function fileBeside(weights: string): string {
  return path.join(path.dirname(weights), 'config.json');
}

/** As it stands. */
export type Config = Fields & { readonly architecture: string };

async function readConfig(file: string): Promise<Config | null> {
  const text = await readSmall(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null; // of something else
  }
  const { architecture } = isPlainObject(value) ? value : {};
  return typeof architecture === 'string' ? (value as Config) : null;
}

async function readSmall(file: string): Promise<string | null> {
  const handle = await open(file).catch(() => null);
  if (handle === null) return null;
  try {
    const { size } = await handle.stat();
    return size > MAX_BYTES ? null : await handle.readFile('utf8');
  } catch {
    return null;
  } finally {
    await handle.close();
  }
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * What a file says of the network that it names.
 *
 * @param weights the file that it lies beside
 * @throws ERR_SENET_CHECKPOINT_FORMAT; ERR_SENET_CHECKPOINT_UNSUPPORTED for an argument that the network has not here, and
 *   `bring` for a crop or an interpolation
 */
export function configFor(record: ModelRecord, config: Config, weights: string): HubConfig {
  // Files of earlier versions of timm have the fields of `pretrained_cfg` beside the others.
  const fields = isPlainObject(config.pretrained_cfg) ? (config.pretrained_cfg as Fields) : config;
  const label = printable(fileBeside(weights), 1000);
  return {
    options: optionsOf(record, config.model_args, label),
    bring: () => {
      const labels = labelsOf(config, fields);
      return {
        ...(labels === undefined ? {} : { labels }),
        ...(labels === undefined && isOfImageNet(config, fields) ? { labelsFile: IMAGENET_LABELS } : {}),
        ...preprocessings(record, fields, label),
      };
    },
  };
}

/** Of timm's arguments those that a network here has, and what it calls them. */
const MODEL_ARGS: Readonly<Record<string, string>> = {
  in_chans: 'inChannels',
  num_classes: 'numClasses',
  drop_rate: 'dropRate',
};

function optionsOf(record: ModelRecord, args: unknown, label: string): Readonly<Record<string, number>> {
  if (args === undefined || args === null) return {};
  if (!isPlainObject(args)) throw wrong(label, 'model_args', 'an object', args);
  const entries = Object.entries(args as Fields).map(([name, value]) => {
    const option = Object.hasOwn(MODEL_ARGS, name) ? (MODEL_ARGS[name] as string) : '';
    if (!record.options.includes(option)) {
      const known = Object.entries(MODEL_ARGS).filter(([, own]) => record.options.includes(own));
      throw makeError(
        'ERR_SENET_CHECKPOINT_UNSUPPORTED',
        `${label}: model_args: '${printable(name)}' is no argument that ${record.name} has here (known are ${known.map(([one]) => one).join(', ')})`,
      );
    }
    if (typeof value !== 'number') throw wrong(label, `model_args: ${name}`, 'a number', value);
    return [option, value] as const;
  });
  return Object.fromEntries(entries);
}

/** The fields that say how images become the input: without any of them the network's usual way is meant. */
const IMAGE_FIELDS = ['input_size', 'mean', 'std', 'interpolation', 'crop_pct', 'crop_mode'];

function preprocessings(
  { inputSize }: ModelRecord,
  fields: Fields,
  label: string,
): Pick<BroughtByHub, 'preprocessing' | 'testPreprocessing'> {
  if (IMAGE_FIELDS.every((name) => fields[name] == null)) return {};
  const size = sideOf(fields.input_size, label, 'input_size') ?? inputSize;
  const mode = fields.crop_mode ?? 'center';
  const interpolation = fields.interpolation ?? 'bicubic';
  if (mode !== 'center') {
    const message = `${label}: crop_mode: expected 'center', the only one that is made here, got ${describe(mode)}`;
    throw makeError('ERR_SENET_CHECKPOINT_UNSUPPORTED', message);
  }
  if (interpolation !== 'bicubic' && interpolation !== 'bilinear') {
    const message = `${label}: interpolation: expected 'bicubic' or 'bilinear', got ${describe(interpolation)}`;
    throw makeError('ERR_SENET_CHECKPOINT_UNSUPPORTED', message);
  }
  const cropPct = partOf(fields.crop_pct, label, 'crop_pct') ?? 0.875;
  const values = pixelStatistics(fields, label);
  const usual = { ...timmPreprocessing(size, cropPct, interpolation), ...values };
  const testSize = sideOf(fields.test_input_size, label, 'test_input_size');
  if (testSize === undefined) return { preprocessing: usual };
  const testPct = partOf(fields.test_crop_pct, label, 'test_crop_pct') ?? cropPct;
  return {
    preprocessing: usual,
    testPreprocessing: { ...timmPreprocessing(testSize, testPct, interpolation), ...values },
  };
}

/** In the order of the classes: what people read where there is such text, else the names. */
function labelsOf(config: Fields, fields: Fields): string[] | undefined {
  const { label_names: names = fields.label_names, label_descriptions: texts = fields.label_descriptions } =
    config;
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) return undefined;
  const described = (name: string): string => {
    const text: unknown =
      isPlainObject(texts) && Object.hasOwn(texts, name) ? (texts as Fields)[name] : undefined;
    return typeof text === 'string' ? text : name;
  };
  return names.map(described);
}

/** Whether its classes are the 1,000 of ImageNet, by the tag under which timm publishes it. */
function isOfImageNet(config: Fields, fields: Fields): boolean {
  const { num_classes: classes = fields.num_classes ?? 1000 } = config;
  return classes === 1000 && typeof fields.tag === 'string' && /(^|_)in1k(_|$)/.test(fields.tag);
}

function wrong(label: string, field: string, expected: string, value: unknown): Error {
  return makeError(
    'ERR_SENET_CHECKPOINT_FORMAT',
    `${label}: ${field}: expected ${expected}, got ${describe(value)}`,
  );
}

function sideOf(value: unknown, label: string, field: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  const [, height, width] = Array.isArray(value) ? (value as unknown[]) : [];
  if (Number.isInteger(height) && height === width && (height as number) > 0) return height as number;
  throw wrong(label, field, '[channels, side, side]', value);
}

function partOf(value: unknown, label: string, field: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number' && value > 0 && value <= 1) return value;
  throw wrong(label, field, 'a part of 1', value);
}

/** Three of each, or as many as a network of one channel has: its images are grey. */
function pixelStatistics(fields: Fields, label: string): Partial<Preprocessing> {
  const [channels] = Array.isArray(fields.input_size) ? (fields.input_size as unknown[]) : [];
  const counts = channels === 1 ? [1, 3] : [3];
  const mean = numbersOf(fields.mean, counts, label, 'mean');
  const std = numbersOf(fields.std, mean === undefined ? [3] : [mean.length], label, 'std');
  return {
    ...(mean === undefined ? {} : { mean }),
    ...(std === undefined ? {} : { std }),
    ...(mean?.length === 1 ? { channels: 'grey' } : {}),
  };
}

function numbersOf(
  value: unknown,
  counts: readonly number[],
  label: string,
  field: string,
): readonly number[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value) && counts.includes(value.length) && value.every(Number.isFinite))
    return value as number[];
  throw wrong(
    label,
    field,
    counts.map((count) => (count === 1 ? 'one number' : 'three numbers')).join(' or '),
    value,
  );
}
