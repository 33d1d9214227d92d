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
import { timmPreprocessing } from './timm-weights';

/** What is taken from it. */
export interface HubConfig {
  /** The name of the network. */
  readonly architecture: string;
  readonly labels?: readonly string[];
  readonly preprocessing?: Preprocessing;
  /** For larger images, at which the network is better: timm's `use_test_size`. */
  readonly testPreprocessing?: Preprocessing;
}

const MAX_BYTES = 16 * 1024 * 1024;

/**
 * Of the folder of a file of weights; null if there is none, or one that is not timm's.
 *
 * @throws (rejects) ERR_SENET_CHECKPOINT_FORMAT, ERR_SENET_CHECKPOINT_UNSUPPORTED (a crop that is not made here)
 */
export async function configBeside(weights: string): Promise<HubConfig | null> {
  const file = path.join(path.dirname(weights), 'config.json');
  const text = await readSmall(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null; // of something else
  }
  const { architecture } = isPlainObject(value) ? value : {};
  return typeof architecture === 'string' ? configOf(architecture, value as Fields, file) : null;
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

function configOf(architecture: string, config: Fields, file: string): HubConfig {
  // Files of earlier versions of timm have the fields of `pretrained_cfg` beside the others.
  const fields = isPlainObject(config.pretrained_cfg) ? (config.pretrained_cfg as Fields) : config;
  const label = printable(file, 1000);
  const size = sideOf(fields.input_size, label, 'input_size');
  const labels = labelsOf(config, fields);
  return {
    architecture,
    ...(labels === undefined ? {} : { labels }),
    ...(size === undefined ? {} : preprocessings(fields, size, label)),
  };
}

function preprocessings(
  fields: Fields,
  size: number,
  label: string,
): Pick<HubConfig, 'preprocessing' | 'testPreprocessing'> {
  const { crop_mode: mode = 'center', interpolation = 'bicubic' } = fields;
  if (mode !== 'center') {
    const message = `${label}: crop_mode: expected 'center', the only one that is made here, got ${describe(mode)}`;
    throw makeError('ERR_SENET_CHECKPOINT_UNSUPPORTED', message);
  }
  if (interpolation !== 'bicubic' && interpolation !== 'bilinear') {
    const message = `${label}: interpolation: expected 'bicubic' or 'bilinear', got ${describe(interpolation)}`;
    throw makeError('ERR_SENET_CHECKPOINT_UNSUPPORTED', message);
  }
  const cropPct = partOf(fields.crop_pct, label, 'crop_pct') ?? 0.875;
  const mean = threeOf(fields.mean, label, 'mean');
  const std = threeOf(fields.std, label, 'std');
  const values = { ...(mean === undefined ? {} : { mean }), ...(std === undefined ? {} : { std }) };
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

function threeOf(value: unknown, label: string, field: string): readonly number[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (Array.isArray(value) && value.length === 3 && value.every(Number.isFinite)) return value as number[];
  throw wrong(label, field, 'three numbers', value);
}
