/**
 * createInferenceHandler: classifiers as a service. The core takes a request of no framework and gives a whole answer;
 * `node:http` and what is built on it, and the web's Request, are faces of it (`faces`), Fastify's is in `fastify-plugin`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { performance } from 'node:perf_hooks';
import { clearTimeout, setTimeout } from 'node:timers';

import { isSenetError, makeError } from '../errors';
import { anySignal, untilAborted } from '../tensor/abort';
import { describe } from '../tensor/options';
import { checkClassifier } from '../vision/check-classifier';
import type { ImageClassifier } from '../vision/image-classifier';
import type { AccessRecord } from './access-record';
import { BodyMemory, BodyReader } from './body';
import type { Call, Route, ServerState } from './call';
import { errorResponse, withoutBody, type InferenceRequest, type InferenceResponse } from './exchange';
import { answerNode, answerWeb, type Next } from './faces';
import { expositionText, type MetricFamily } from '../instruments';
import { Metrics } from './metrics';
import { ModelTable, parseModelKey, type ModelLoader, type ModelStatus } from './model-table';
import { readHandlerOptions, type HandlerSettings, type InferenceHandlerOptions } from './options';
import { Router, type Match, type RoutePattern } from './router';
import { ROUTES } from './route-table';
import { findTracer, type RequestSpan, type Tracer } from './tracing';

/**
 * A service of classifiers. Itself it is what `node:http`, Express and Nest call with a request and a response.
 */
export interface InferenceHandler {
  /**
   * Answers a request of node:http. With `next`, as Express has it, what is none of its paths is the next one's; so
   * it can stand beside other routes, or below a path (`app.use('/vision', handler)`).
   */
  (request: IncomingMessage, response: ServerResponse, next?: Next): void;
  /** The core: answers any request. Never rejects. */
  handle(request: InferenceRequest): Promise<InferenceResponse>;
  /** Answers a Request of the web's: for Hono, Bun and Deno. Never rejects. */
  fetch(request: Request): Promise<Response>;
  /** What it has paths for, names of segments behind colons. */
  readonly routes: readonly RoutePattern[];
  /** Whether it wants requests: not after `drain`, and not after a CUDA device was lost. What `/v2/health/ready` says. */
  readonly ready: boolean;
  /** Every version of every model, and whether it answers. */
  models(): ModelStatus[];
  /**
   * Loads a model of `repository`, all its versions or one; one that answers already goes on until the new one has
   * classified a first image, and is disposed when it has answered what it was asked.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_SERVED_MODEL, ERR_SENET_FORBIDDEN (not in `repository`), ERR_SENET_CLOSING, and
   *   what its function rejects with
   */
  load(name: string, version?: string): Promise<void>;
  /**
   * Takes a model of `repository` out of service; settles when it has answered what it was asked and is disposed.
   *
   * @throws (rejects) ERR_SENET_UNKNOWN_SERVED_MODEL, ERR_SENET_FORBIDDEN, ERR_SENET_CLOSING
   */
  unload(name: string, version?: string): Promise<void>;
  /**
   * Puts a classifier in place of another, or beside them, while requests run, as `load` does.
   *
   * @param key - NAME, or NAME@VERSION
   * @throws (rejects) ERR_SENET_ARG_RANGE, ERR_SENET_ARG_TYPE, ERR_SENET_CLOSING, and what classifying a first image
   *   rejects with: then the old one stays, and this one is disposed
   */
  replace(key: string, classifier: ImageClassifier): Promise<void>;
  /** As `replace`, of what makes the classifier: it may then be loaded and unloaded by its name. Loads nothing. */
  list(key: string, loader: ModelLoader): void;
  /** Forgets a model, or a version of it: settles when it has answered what it was asked and is disposed. */
  remove(key: string): Promise<void>;
  /** What `/metrics` says, as data: for who joins it with that of other processes. */
  metrics(): MetricFamily[];
  /** Wants no more requests, and says so at `/v2/health/ready`; goes on to answer what comes. */
  drain(): void;
  /** Refuses requests (ERR_SENET_CLOSING, 503), answers those that are under way, and disposes every classifier. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Makes classifiers a service: `POST /classify`, the Open Inference Protocol version 2, `/metrics`, and a page.
 *
 * @param models - by NAME or NAME@VERSION; they are the handler's to dispose from here on
 * @returns what `http.createServer`, Express' and Nest's `use` and, by its methods, others take
 * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
 *
 * @example
 * const classifier = await ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist' });
 * http.createServer(createInferenceHandler({ se_resnet20: classifier })).listen(8080);
 */
export function createInferenceHandler(
  models: Readonly<Record<string, ImageClassifier>>,
  options?: InferenceHandlerOptions,
): InferenceHandler {
  const settings = readHandlerOptions(options);
  const core = new Core(tableOf(models, settings), settings);
  const handler = (request: IncomingMessage, response: ServerResponse, next?: Next): void =>
    answerNode(core, request, response, next);
  return Object.defineProperties(
    Object.assign(handler, {
      handle: (request: InferenceRequest) => core.handle(request),
      fetch: (request: Request) => answerWeb(core, request),
      routes: core.routes.map(({ method, path }) => ({ method, path })),
      models: () => core.models.all,
      load: async (name: string, version?: string) => core.models.load(name, version),
      unload: async (name: string, version?: string) => core.models.unload(name, version),
      replace: async (key: string, classifier: ImageClassifier) =>
        core.models.put(key, checkClassifier(classifier, 'replace')),
      list: (key: string, loader: ModelLoader) => core.models.list(key, loader),
      remove: async (key: string) => core.models.remove(key),
      metrics: () => core.families,
      drain: () => core.drain(),
      close: () => core.close(),
      [Symbol.asyncDispose]: () => core.close(),
    }),
    { ready: { get: () => core.ready, enumerable: true } },
  ) as unknown as InferenceHandler;
}

function tableOf(
  models: Readonly<Record<string, ImageClassifier>>,
  { repository }: HandlerSettings,
): ModelTable {
  if (typeof models !== 'object' || models === null || Array.isArray(models)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `createInferenceHandler: expected an object of name to ImageClassifier, got ${describe(models)}`,
    );
  }
  const table = new ModelTable();
  // All are looked at before any is taken.
  for (const key of [...Object.keys(models), ...Object.keys(repository)]) parseModelKey(key);
  for (const [key, classifier] of Object.entries(models))
    table.putWarm(key, checkClassifier(classifier, `createInferenceHandler: ${key}`));
  for (const [key, loader] of Object.entries(repository)) table.list(key, loader);
  return table;
}

/** Where nothing is found: one label for whatever is asked for. */
const NO_ROUTE = 'none';

class Core implements ServerState {
  readonly settings: HandlerSettings;
  readonly models: ModelTable;
  readonly metrics = new Metrics();
  readonly bodies: BodyMemory;
  readonly routes: readonly Route[];
  readonly #router: Router<Route>;
  readonly #tracer: Tracer | undefined = findTracer();
  readonly #running = new Set<Promise<unknown>>();
  #draining = false;
  #lost = false;
  #closed: Promise<void> | undefined;

  constructor(models: ModelTable, settings: HandlerSettings) {
    this.settings = settings;
    this.models = models;
    this.bodies = new BodyMemory(Math.max(settings.maxBodies, settings.maxBody));
    this.routes = ROUTES.filter(({ only }) => only === undefined || settings[only]);
    this.#router = new Router(this.routes);
  }

  get ready(): boolean {
    return !this.#draining && !this.#lost && this.#closed === undefined;
  }

  get live(): boolean {
    return !this.#lost;
  }

  get families(): MetricFamily[] {
    return this.metrics.families(this.models, this.ready, this.bodies.used);
  }

  get exposition(): string {
    return expositionText(this.families);
  }

  /** Whether a path is one of its own. */
  knows(method: string, url: string): boolean {
    try {
      return this.#router.match(method, url) !== undefined;
    } catch (error) {
      return !(isSenetError(error) && error.code === 'ERR_SENET_NO_ROUTE');
    }
  }

  async handle(request: InferenceRequest): Promise<InferenceResponse> {
    const begun = performance.now();
    const span = this.#tracer?.begin(request.method, request.headers);
    const body = new BodyReader(request, this.settings.maxBody, this.bodies);
    this.metrics.begin();
    let match: Match<Route> | undefined;
    let response: InferenceResponse;
    try {
      match = this.#router.match(request.method, request.url);
      const answering = this.#answer(match, request, body, span);
      this.#running.add(answering);
      response = await answering.finally(() => this.#running.delete(answering));
    } catch (error) {
      if (isSenetError(error) && error.code === 'ERR_SENET_CUDA_LOST') this.#lost = true;
      response = errorResponse(error);
    }
    body.release();
    const route = match?.route.path ?? NO_ROUTE;
    this.#tell(request, response, { route, milliseconds: performance.now() - begun });
    span?.end(route, response.status, response.error);
    return request.method === 'HEAD' ? withoutBody(response) : response;
  }

  async #answer(
    { route, parameters, query }: Match<Route>,
    request: InferenceRequest,
    body: BodyReader,
    span: RequestSpan | undefined,
  ): Promise<InferenceResponse> {
    // Health is told to the end.
    if (this.#closed !== undefined && route.method === 'POST')
      throw makeError('ERR_SENET_CLOSING', 'the server is closing');
    const { timeout } = this.settings;
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), timeout);
    const { signal, stop } = anySignal([request.signal, limit.signal]);
    const call: Call = { server: this, request, parameters, query, body, signal, span };
    try {
      return await untilAborted(Promise.resolve(route.run(call)), signal);
    } catch (error) {
      if (!limit.signal.aborted || request.signal?.aborted === true) throw error;
      throw body.begun && !body.done
        ? makeError('ERR_SENET_REQUEST_TIMEOUT', `the body did not arrive within ${timeout} ms`)
        : makeError('ERR_SENET_TIMEOUT', `there was no answer within ${timeout} ms`);
    } finally {
      clearTimeout(timer);
      stop();
    }
  }

  #tell(
    { method, url }: InferenceRequest,
    { status, code, error }: InferenceResponse,
    known: { route: string; milliseconds: number },
  ): void {
    const failed = { ...(code === undefined ? {} : { code }), ...(error === undefined ? {} : { error }) };
    const record: AccessRecord = { method, url, status, ...known, ...failed };
    this.metrics.end(record);
    try {
      this.settings.onRequest?.(record);
    } catch {
      // A log that fails must not fail the request.
    }
  }

  drain(): void {
    this.#draining = true;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.resolve(); // `#closed` is to be set before anything is waited for
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    await this.models.close();
  }
}
