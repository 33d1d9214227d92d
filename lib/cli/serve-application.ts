/** The Fastify application of `serve`, from its start until it is drained. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { AddressInfo, Socket } from 'node:net';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

import type * as fastifyModule from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifyServerOptions } from 'fastify';

import { fileError, makeError, type ErrorCode } from '../errors';
import { checkCertificate } from '../serve/certificate';
import { errorResponse, headerOf } from '../serve/exchange';
import { makeFastifyPlugin } from '../serve/fastify-plugin';
import type { GrpcServer } from '../serve/grpc-service';
import { requirePeer } from '../peer';
import type { InferenceHandler } from '../serve/handler';
import { throwIfAborted, whenAborted } from '../tensor/abort';
import { lazy } from './lazy';
import { listenError } from './listening';
import { joinWorkers } from './serve-bus';
import type { ServeConfig } from './serve-config';
import { Connections } from './serve-connections';
import { fileLoader, loadModels, whileNeither } from './serve-models';

const PURPOSE = 'senet-torch serve';
/** Longer than a request may take: what is late is answered by us. */
const SLACK = 5_000;
/** Milliseconds between two looks at a folder; a file that comes is loaded after the second one that finds it the same. */
const WATCH_INTERVAL = 1_000;
const MAX_HEADER_BYTES = 16 * 1024;

export interface RunningServer {
  /** Of HTTP and, where it is served, of gRPC. */
  readonly ports: readonly number[];
  /** When it has answered everything after the signal. */
  readonly closed: Promise<void>;
}

/** Starts a server, which drains and closes when the signal aborts. */
export async function startServer(config: ServeConfig, signal: AbortSignal): Promise<RunningServer> {
  const { fastify } = requirePeer<typeof fastifyModule>('fastify', PURPOSE);
  const threads = config.threads ?? Math.max(1, Math.floor(availableParallelism() / config.workers));
  lazy.runtime.configure({ threadsPerWorker: threads });
  const app = fastify(await applicationOptions(config)) as unknown as FastifyInstance;
  const { models, repository } = await loadModels(config, signal);
  const { createInferenceHandler } = lazy.handler;
  const { maxBody, maxImages, timeout, allowUrls } = config;
  const handler = createInferenceHandler(models, {
    ...{ repository, timeout, urls: allowUrls, metrics: config.workers === 1 },
    ...(maxBody === undefined ? {} : { maxBody }),
    ...(maxImages === undefined ? {} : { maxImages }),
  });
  const stopped = new AbortController();
  void whenAborted(signal).then(() => stopped.abort());
  const connections = new Connections(app.server);
  let watching: Promise<void> | undefined;
  let grpcServer: GrpcServer | undefined;
  try {
    answerInOurWords(app, handler);
    await addGuards(app, config);
    await app.register(makeFastifyPlugin(createInferenceHandler), { handler });
    if (config.workers > 1) joinWorkers(app, handler, config.workers);
    if (config.watch !== undefined)
      ({ ended: watching } = await watch(config.watch, app, handler, config, stopped.signal));
    throwIfAborted(signal);
    await app.listen({ port: config.port, host: config.host });
    grpcServer = await startGrpc(config, handler);
  } catch (error) {
    stopped.abort();
    await app.close();
    await handler.close();
    throw listenError(error, config.host, config.port);
  }
  const closed = whenAborted(signal).then(async () => {
    handler.drain();
    // Whoever sends requests here learns that it is not ready before it takes no more.
    await delay(config.drainDelay);
    const ending = Promise.all([app.close(), grpcServer?.close()]);
    connections.end(config.timeout + SLACK);
    await ending;
    await handler.close();
    await watching;
  });
  const { port } = app.server.address() as AddressInfo;
  return { ports: [port, ...(grpcServer === undefined ? [] : [grpcServer.port])], closed };
}

/** Loads what the folder holds, and goes on to look at it. */
async function watch(
  folder: string,
  app: FastifyInstance,
  handler: InferenceHandler,
  config: ServeConfig,
  signal: AbortSignal,
): Promise<{ readonly ended: Promise<void> }> {
  return lazy.watchedFolder.watchFolder(folder, handler, {
    ...{ signal, interval: WATCH_INTERVAL },
    loaderOf: (file) => whileNeither(signal, fileLoader(config, file)),
    onChange: (what, model, file) => app.log.info({ model, file }, `the model was ${what}`),
    onError: (error, file) => app.log.error({ err: error, file }, 'the model could not be loaded'),
  });
}

async function applicationOptions({
  tlsCert,
  tlsKey,
  log,
  timeout,
}: ServeConfig): Promise<FastifyServerOptions & { https?: object }> {
  const tls = await readTls(tlsCert, tlsKey);
  const https = tls === undefined ? {} : { https: tls };
  return {
    ...https,
    logger: log === 'silent' ? false : { level: log },
    // Not what a client says of itself, which could be the same for all.
    requestIdHeader: false,
    genReqId: requestIds(),
    requestTimeout: timeout + SLACK,
    keepAliveTimeout: 72_000,
    forceCloseConnections: 'idle',
    // What still comes on a connection that is open is answered, as what came before.
    return503OnClosing: false,
    http: { maxHeaderSize: MAX_HEADER_BYTES },
    clientErrorHandler: answerBrokenRequest,
    frameworkErrors: answerFailure,
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: MAX_HEADER_BYTES },
  } as unknown as FastifyServerOptions;
}

function requestIds(): () => string {
  let last = 0;
  return () => `${process.pid}-${++last}`;
}

/** @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_ARG_RANGE (no certificate with its key) */
async function readTls(
  certificate: string | undefined,
  key: string | undefined,
): Promise<{ cert: Buffer; key: Buffer } | undefined> {
  if (certificate === undefined || key === undefined) return undefined;
  const tls = { cert: await readPem(certificate, '--tls-cert'), key: await readPem(key, '--tls-key') };
  checkCertificate(tls, '--tls-cert, --tls-key');
  return tls;
}

async function readPem(file: string, option: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    throw fileError(`${option} ${file}`, cause);
  }
}

/** Of what Fastify refuses itself, by its status; any other is a request that cannot be understood. */
const REFUSALS: Readonly<Record<number, ErrorCode>> = {
  413: 'ERR_SENET_REQUEST_SIZE',
  415: 'ERR_SENET_MEDIA_TYPE',
  429: 'ERR_SENET_RATE_LIMIT',
};

/** What Fastify itself says no to, in the form of our errors. */
function answerInOurWords(app: FastifyInstance, handler: InferenceHandler): void {
  app.setNotFoundHandler(async ({ method, url, headers: sent }, reply) => {
    // Its routes are all that there are: it says which method a path has, and counts what was asked for.
    const { status, headers, body } = await handler.handle({ method, url, headers: sent });
    return reply.code(status).headers(headers).send(Buffer.from(body));
  });
  app.setErrorHandler(answerFailure);
}

/** What Fastify refuses before or after a route, and what went wrong in one. */
function answerFailure(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const { statusCode = 500, message } = error as { statusCode?: number; message: string };
  const code = statusCode < 500 ? (REFUSALS[statusCode] ?? 'ERR_SENET_REQUEST') : undefined;
  const coded =
    code === undefined ? error : makeError(code, message, { details: { retryAfter: waitOf(reply) } });
  const { status, headers, body } = errorResponse(coded);
  if (status === 500) request.log.error({ err: error }, 'the request failed');
  void reply.code(status).headers(headers).send(Buffer.from(body));
}

/** Seconds after which a caller may ask again, as the limiter of requests has noted them. */
function waitOf(reply: FastifyReply): string {
  return String(reply.getHeader('retry-after') ?? 1);
}

/** Before there is a request: headers that are too large, or none of HTTP. */
function answerBrokenRequest(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) {
    socket.destroy();
    return;
  }
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request';
  const code = status.startsWith('408') ? 'ERR_SENET_REQUEST_TIMEOUT' : 'ERR_SENET_REQUEST';
  const body = JSON.stringify({ error: `the request is none of HTTP: ${error.code ?? ''}`, code });
  socket.write(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  // Nobody reads on here: what waits for the other end to close would wait for ever.
  socket.destroySoon();
}

async function addGuards(app: FastifyInstance, { apiKey, cors, rateLimit }: ServeConfig): Promise<void> {
  if (cors.length > 0) {
    const plugin = requirePeer<{ default: Parameters<FastifyInstance['register']>[0] }>(
      ...(['@fastify/cors', `${PURPOSE} --cors`] as const),
    );
    await app.register(plugin.default, { origin: cors.includes('*') ? '*' : [...cors] });
  }
  if (rateLimit !== undefined) {
    const plugin = requirePeer<{ default: Parameters<FastifyInstance['register']>[0] }>(
      ...(['@fastify/rate-limit', `${PURPOSE} --rate-limit`] as const),
    );
    await app.register(plugin.default, { max: rateLimit, timeWindow: 60_000, allowList: isProbe });
  }
  if (apiKey.length === 0) return;
  const allowed = keyCheck(apiKey);
  app.addHook('onRequest', async (request, reply) => {
    if (isProbe(request)) return;
    if (allowed(request.headers)) return;
    const error = makeError(
      'ERR_SENET_UNAUTHORIZED',
      'expected a key: Authorization: Bearer KEY, or x-api-key: KEY',
    );
    const { status, headers, body } = errorResponse(error);
    await reply.code(status).headers(headers).send(Buffer.from(body));
  });
}

/** Whether headers have one of the keys. */
function keyCheck(
  keys: readonly string[],
): (headers: Readonly<Record<string, string | readonly string[] | undefined>>) => boolean {
  const known = keys.map(digest);
  return (headers) => {
    const bearer = /^Bearer (.+)$/i.exec(headerOf({ headers }, 'authorization') ?? '')?.[1];
    const given = digest(bearer ?? headerOf({ headers }, 'x-api-key') ?? '');
    // All are compared, each in the same time.
    return known.filter((key) => timingSafeEqual(key, given)).length > 0;
  };
}

async function startGrpc(config: ServeConfig, handler: InferenceHandler): Promise<GrpcServer | undefined> {
  const { grpcPort, host, tlsCert, tlsKey, apiKey, maxBody } = config;
  if (grpcPort === undefined) return undefined;
  const tls = await readTls(tlsCert, tlsKey);
  return lazy.grpcService.startGrpcServer(handler, {
    ...{ host, port: grpcPort, ...(tls === undefined ? {} : { tls }) },
    ...(apiKey.length === 0 ? {} : { authorize: keyCheck(apiKey) }),
    ...(maxBody === undefined ? {} : { maxMessage: maxBody }),
  });
}

/** Whoever runs the server asks so whether it is well, without a key, and often; the pages tell nothing of it. */
function isProbe({ method, url }: { method: string; url: string }): boolean {
  return method === 'OPTIONS' || /^\/(v2\/health\/(live|ready)|docs|openapi\.json)?(\?|$)/.test(url);
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
