/** What `createInferenceHandler` takes. */
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import {
  boolean,
  fn,
  integer,
  matching,
  milliseconds,
  names,
  optional,
  orElse,
  readOptions,
  string,
  type Rule,
  type Rules,
  type Values,
} from '../tensor/rules';
import type { AccessRecord } from './access-record';
import type { ModelLoader } from './model-table';

/** Which images a request may name by their address. */
export interface UrlOptions {
  /** Hosts that may be asked ('images.example.org'). Default: every host of a public address, at ports 80 and 443. */
  hosts?: readonly string[];
  /** Whether hosts that are listed may have addresses of private networks. Default false. */
  privateAddresses?: boolean;
}

export interface InferenceHandlerOptions {
  /**
   * Models that `POST /v2/repository/models/NAME/load` may load, by the same names as the others: what makes their
   * classifier, each time.
   */
  repository?: Readonly<Record<string, ModelLoader>>;
  /** Bytes of a request's body at most, inflated too. Default 20 MiB. */
  maxBody?: number;
  /** Bytes of all bodies that are in memory at the same time. Default 512 MiB; at least `maxBody`. */
  maxBodies?: number;
  /** Images of one request at most. Default 64. */
  maxImages?: number;
  /**
   * Milliseconds from the first byte of a request to its answer, at most; then its work is aborted. Default 30,000.
   */
  timeout?: number;
  /** Lets requests name images by `http:` and `https:` addresses; what they are is read here. Default false: none. */
  urls?: boolean | UrlOptions;
  /** Whether there is `GET /metrics`. Default true. */
  metrics?: boolean;
  /** Whether there are `GET /openapi.json` and `GET /docs`. Default true. */
  docs?: boolean;
  /** Whether there is a page for people at `GET /`. Default true. */
  page?: boolean;
  /** Called after each request, for a log. What it throws is ignored. */
  onRequest?: (record: AccessRecord) => void;
}

const MIB = 2 ** 20;

/** That a server listens on. None typed (`--host "$HOST"`) would be every address of the machine. */
export const HOST: Rule<string> = orElse('127.0.0.1', (given, what) => {
  const host = string(given, what);
  if (host !== '') return host;
  throw makeError('ERR_SENET_ARG_RANGE', `${what}: expected an address, got ''`);
});

/** Of a request, of a handler as of `senet-torch serve`. */
export const TIMEOUT = orElse(30_000, milliseconds(1));

/** Hosts as addresses have them: in small letters, without a port. */
const hosts: Rule<readonly string[]> = (given, what) =>
  names(given, what).map((host) => {
    const address = `http://${host}`;
    const url = URL.canParse(address) ? new URL(address) : null;
    if (url?.href === `http://${url?.hostname}/`) return url.hostname;
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${what}: expected hosts such as images.example.org, without a port, got ${describe(host)}`,
    );
  });

const URLS = {
  hosts: optional(hosts),
  privateAddresses: orElse(false, boolean),
} satisfies Rules<UrlOptions>;

/** What is allowed; as an option again, it is the same. */
export const urls: Rule<false | { hosts?: readonly string[]; privateAddresses: boolean }> = (given, what) => {
  if (given === undefined || given === false) return false;
  const allowed = readOptions<UrlOptions, typeof URLS>(
    given === true ? {} : (given as UrlOptions),
    URLS,
    what,
  );
  if (allowed.privateAddresses && allowed.hosts === undefined)
    throw makeError('ERR_SENET_ARG_MISSING', `${what}: hosts is required with privateAddresses`);
  const { hosts: listed, privateAddresses } = allowed;
  return { privateAddresses, ...(listed === undefined ? {} : { hosts: listed }) };
};

const repository: Rule<Readonly<Record<string, ModelLoader>>> = (given, what) => {
  if (given === undefined) return {};
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an object of functions, got ${describe(given)}`);
  for (const [key, loader] of Object.entries(given)) {
    matching('a function', (value) => typeof value === 'function')(loader, `${what}: ${key}`);
  }
  return given as Record<string, ModelLoader>;
};

const OPTIONS = {
  repository,
  maxBody: orElse(20 * MIB, integer(1)),
  maxBodies: orElse(512 * MIB, integer(1)),
  maxImages: orElse(64, integer(1, 65_536)),
  timeout: TIMEOUT,
  urls,
  metrics: orElse(true, boolean),
  docs: orElse(true, boolean),
  page: orElse(true, boolean),
  onRequest: optional(fn<(record: AccessRecord) => void>()),
} satisfies Rules<InferenceHandlerOptions>;

export type HandlerSettings = Values<typeof OPTIONS>;

export function readHandlerOptions(options: InferenceHandlerOptions | undefined): HandlerSettings {
  return readOptions(options, OPTIONS, 'createInferenceHandler');
}

/** What a form, a query or JSON may say of how images are classified or explained: everything but the images. */
export interface ImageParameters {
  readonly model?: string;
  readonly version?: string;
  readonly topK?: number;
  readonly explain?: boolean;
}

export const IMAGE_PARAMETERS = {
  model: optional(string),
  version: optional(string),
  topK: optional(integer(1)),
  explain: orElse(false, boolean),
} satisfies Rules<ImageParameters>;
