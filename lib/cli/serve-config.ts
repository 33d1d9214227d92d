/** What `serve` is told, by options, by the environment and by a file: options before the file. Loads nothing native. */
import path from 'node:path';

import { makeError } from '../errors';
import { besideFile } from '../models/model-source';
import type { Preprocessing } from '../models/preprocessing-record';
import { HOST, TIMEOUT, urls } from '../serve/options';
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
import { readJsonFile } from './json-file';
import { saysNoNetwork } from './load-classifier';
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

/** What a header can carry: anything else would be asked for and never come. */
const KEY = /^(?=.{8})[\x21-\x7e][\x20-\x7e]*[\x21-\x7e]$/;

/** Nothing of a key is said of it. */
const keys: Rule<readonly string[]> = (given, what) => {
  const texts = Array.isArray(given) && given.every((key) => typeof key === 'string') ? given : null;
  if (texts?.every((key) => KEY.test(key)) === true) return texts;
  throw makeError(
    texts === null ? 'ERR_SENET_ARG_TYPE' : 'ERR_SENET_ARG_RANGE',
    `${what} (or SENET_API_KEY): expected an array of keys, each of at least 8 characters of ASCII without spaces around them`,
  );
};

const CONFIG = {
  models: matching<Record<string, object>>(
    'an object of NAME or NAME@VERSION to a model',
    (value) => value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value)),
  ),
  port: orElse(8080, integer(0, MAX_PORT)),
  host: HOST,
  grpcPort: optional(integer(0, MAX_PORT)),
  workers: orElse(1, integer(1, 256)),
  threads: optional(integer(1, 256)),
  watch: optional(string),
  apiKey: orElse([], keys),
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
const EACH = ['device', 'checkHash', 'dtype', 'shrinkOnLoad', 'maxBatch', 'delay', 'maxQueue'] as const;
/** What nobody typed. */
const USUAL: Partial<ServeOptions> = { device: 'cpu', checkHash: true };

/**
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ARG_RANGE (no JSON, options that exclude each
 *   other), ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ARG_MISSING
 */
export async function readServeConfig(options: ServeOptions): Promise<ServeConfig> {
  const folder = options.config === undefined ? '.' : path.dirname(options.config);
  const file = options.config === undefined ? {} : besideIt(await readConfig(options.config), folder);
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
  const checked = models && checkModels(models, folder, where);
  if (checked !== undefined) {
    const names = config.watch === undefined ? [...NETWORK, ...EACH] : NETWORK;
    const both = names.find((name) => options[name] !== undefined && options[name] !== USUAL[name]);
    if (both !== undefined) {
      const flag =
        both === 'checkHash'
          ? 'no-check-hash'
          : both.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      throw makeError('ERR_SENET_ARG_RANGE', `--${flag} and the models of --config exclude each other`);
    }
  }
  if (
    checked === undefined &&
    config.watch !== undefined &&
    options.name !== undefined &&
    saysNoNetwork(options)
  )
    throw makeError('ERR_SENET_ARG_RANGE', '--name: files of --watch are called by their own names');
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

async function readConfig(file: string): Promise<object> {
  const value = await readJsonFile(file, `--config ${file}`);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw makeError('ERR_SENET_ARG_RANGE', `--config ${file}: expected an object, got ${describe(value)}`);
}
