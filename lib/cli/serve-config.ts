/** What `serve` is told, by options, by the environment and by a file: options before the file. Loads nothing native. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { fileError, makeError } from '../errors';
import { besideFile } from '../models/model-source';
import type { Preprocessing } from '../models/preprocessing-record';
import { TIMEOUT } from '../serve/options';
import { describe } from '../tensor/options';
import {
  boolean,
  integer,
  matching,
  milliseconds,
  names,
  optional,
  orElse,
  readOptions,
  string,
  unchecked,
  type Rule,
  type Values,
} from '../tensor/rules';
import type { ServeOptions } from './serve-options';

const MAX_PORT = 65_535;

/** Of one model in the file. */
const MODEL = {
  model: optional(string),
  weights: optional(string),
  key: optional(string),
  prefix: optional(string),
  pretrained: optional(boolean),
  labels: unchecked<string | readonly string[]>(),
  preprocessing: unchecked<Partial<Preprocessing>>(),
  inChannels: optional(integer(1)),
  device: orElse('cpu', string),
  dtype: optional(string),
  useTestSize: optional(boolean),
  shrinkOnLoad: optional(boolean),
  maxPixels: optional(integer(1)),
  checkHash: orElse(true, boolean),
  maxBatch: optional(integer(1)),
  delay: optional(integer(0)),
  maxQueue: orElse(128, integer(1)),
  /** Whether it is loaded when the server starts; else a request may load it. */
  load: orElse(true, boolean),
};

export type ServedModelConfig = Values<typeof MODEL>;

const urls: Rule<boolean | { hosts?: readonly string[]; privateAddresses?: boolean }> = (given, what) =>
  typeof given === 'object' && given !== null ? given : orElse(false, boolean)(given, what);

const CONFIG = {
  models: matching<Record<string, object>>(
    'an object of NAME or NAME@VERSION to a model',
    (value) => value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value)),
  ),
  port: orElse(8080, integer(0, MAX_PORT)),
  host: orElse('127.0.0.1', string),
  grpcPort: optional(integer(0, MAX_PORT)),
  workers: orElse(1, integer(1, 256)),
  threads: optional(integer(1, 256)),
  watch: optional(string),
  apiKey: orElse([], names),
  cors: orElse([], names),
  rateLimit: optional(integer(1)),
  allowUrls: urls,
  tlsCert: optional(string),
  tlsKey: optional(string),
  maxBody: optional(integer(1)),
  maxImages: optional(integer(1)),
  /** Of every model that has none of its own. */
  maxPixels: optional(integer(1)),
  timeout: TIMEOUT,
  drainDelay: orElse(0, milliseconds(0)),
  log: orElse('warn', string),
};

export interface ServeConfig extends Omit<Values<typeof CONFIG>, 'models'> {
  /** By NAME or NAME@VERSION; undefined is what the options of the command line say. */
  readonly models: Readonly<Record<string, ServedModelConfig>> | undefined;
  /** What the command line says of one network. */
  readonly options: ServeOptions;
}

/** Those of `CONFIG` that are paths. */
const PATHS: ReadonlySet<string> = new Set(['watch', 'tlsCert', 'tlsKey']);

/** The names of options that choose a network, which a file's models have instead. */
const NETWORK = [
  'model',
  'weights',
  'key',
  'prefix',
  'pretrained',
  'labels',
  'preprocessing',
  'useTestSize',
  'name',
] as const;
/** What each of a file's models says for itself; of the files of a watched folder the command line says it. */
const EACH = ['device', 'dtype', 'shrinkOnLoad', 'maxBatch', 'delay', 'maxQueue'] as const;

/**
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ARG_RANGE (no JSON, options that exclude each
 *   other), ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ARG_MISSING
 */
export async function readServeConfig(options: ServeOptions): Promise<ServeConfig> {
  const folder = options.config === undefined ? '.' : path.dirname(options.config);
  const file = options.config === undefined ? {} : besideIt(await readJson(options.config), folder);
  const said = Object.fromEntries(
    Object.entries({ ...options, allowUrls: allowedUrls(options.allowUrls) }).filter(
      ([name, value]) => name in CONFIG && value !== undefined,
    ),
  );
  const where = options.config === undefined ? 'serve' : `--config ${options.config}`;
  const { SENET_API_KEY: key } = process.env;
  const fromEnvironment = key === undefined || key === '' ? {} : { apiKey: [key] };
  const { models, ...config } = readOptions({ ...fromEnvironment, ...file, ...said }, CONFIG, where);
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined))
    throw makeError('ERR_SENET_ARG_MISSING', '--tls-cert and --tls-key need each other');
  if (config.apiKey.some((one) => one.length < 8))
    throw makeError('ERR_SENET_ARG_RANGE', '--api-key: expected at least 8 characters');
  const checked = models && checkModels(models, folder, where);
  if (checked !== undefined) {
    const names = config.watch === undefined ? [...NETWORK, ...EACH] : NETWORK;
    // Nobody typed the device that is the usual one.
    const both = names.find((name) => options[name] !== undefined && options[name] !== 'cpu');
    if (both !== undefined) {
      const flag = both.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      throw makeError('ERR_SENET_ARG_RANGE', `--${flag} and the models of --config exclude each other`);
    }
  }
  return { ...config, models: checked, options };
}

/** Paths in the file are beside it. */
function besideIt(file: object, folder: string): object {
  return Object.fromEntries(
    Object.entries(file).map(([name, value]: [string, unknown]) => [
      name,
      PATHS.has(name) && typeof value === 'string' ? path.resolve(folder, value) : value,
    ]),
  );
}

/** `--allow-urls` alone is public hosts, with names these. */
function allowedUrls(given: ServeOptions['allowUrls']): true | { hosts: string[] } | undefined {
  return typeof given === 'string' ? { hosts: given.split(',').map((host) => host.trim()) } : given;
}

function checkModels(
  models: Readonly<Record<string, object>>,
  folder: string,
  where: string,
): Record<string, ServedModelConfig> {
  return Object.fromEntries(
    Object.entries(models).map(([key, given]) => {
      const model = readOptions(given, MODEL, `${where}: models: ${key}`);
      const place = (name: string | undefined): string | undefined => name && besideFile(name, folder);
      const text = <T>(value: T): T | string =>
        typeof value === 'string' ? path.resolve(folder, value) : value;
      return [
        key,
        {
          ...model,
          ...{ model: place(model.model), weights: place(model.weights) },
          ...{
            labels: text(model.labels),
            preprocessing: text(model.preprocessing) as Partial<Preprocessing>,
          },
        },
      ];
    }),
  );
}

async function readJson(file: string): Promise<object> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw fileError(`--config ${file}`, cause);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw makeError('ERR_SENET_ARG_RANGE', `--config ${file}: expected JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw makeError('ERR_SENET_ARG_RANGE', `--config ${file}: expected an object, got ${describe(value)}`);
}
