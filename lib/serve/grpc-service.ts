/**
 * The Open Inference Protocol over gRPC, with the health and reflection services: a face of a handler, which makes each
 * call a request of the REST protocol with binary tensors, so that limits, errors and metrics are the same.
 */
import path from 'node:path';
import { clearInterval, setInterval } from 'node:timers';
import { setTimeout as delay } from 'node:timers/promises';

import type * as grpc from '@grpc/grpc-js';
import type * as protoLoader from '@grpc/proto-loader';
import type * as reflection from '@grpc/reflection';
import type * as health from 'grpc-health-check';

import { isError } from '../brands';
import { httpStatusOf, isSenetError, makeError } from '../errors';
import { ASSETS } from '../package-root';
import { printable } from '../printable';
import {
  boolean,
  fn,
  integer,
  matching,
  optional,
  orElse,
  readOptions,
  required,
  type Rule,
  type Rules,
  type Values,
} from '../tensor/rules';
import { checkCertificate } from './certificate';
import type { InferenceResponse } from './exchange';
import { asProtocDescribes } from './grpc-reflection';
import type { InferenceHandler } from './handler';
import { HOST } from './options';
import { requirePeer } from '../peer';

export interface GrpcServerOptions {
  /** Default '127.0.0.1'. */
  host?: string;
  /** Default 8081; 0 is any that is free. */
  port?: number;
  /** Certificate and key (PEM). Default: none, unencrypted. */
  tls?: { cert: Buffer; key: Buffer };
  /** Bytes of a message at most. Default 20 MiB. */
  maxMessage?: number;
  /** Whether clients may ask what services there are. Default true. */
  reflection?: boolean;
  /** Whether a call with these headers is allowed; health is told to all. Default: every call. */
  authorize?: (headers: Readonly<Record<string, string>>) => boolean;
}

export interface GrpcServer {
  readonly port: number;
  /** Takes no more calls, and settles when those that run are answered. */
  close(): Promise<void>;
}

const PURPOSE = 'senet-torch/grpc';
const LOADING = { keepCase: true, longs: Number, defaults: true, oneofs: true };
const SERVICE = 'inference.GRPCInferenceService';
const HEALTH_LOOK = 1_000;
/** Milliseconds in which the last answers go out, and clients may leave. */
const LEAVE = 1_000;

const bytes = matching<Buffer>('a Buffer (PEM)', (value) => Buffer.isBuffer(value));
const TLS = { cert: required(bytes), key: required(bytes) } satisfies Rules<
  NonNullable<GrpcServerOptions['tls']>
>;
const tls: Rule<Values<typeof TLS>> = (given, what) => readOptions(given as object, TLS, what);

const OPTIONS = {
  host: HOST,
  port: orElse(8081, integer(0, 65_535)),
  tls: optional(tls),
  maxMessage: orElse(20 * 2 ** 20, integer(1)),
  reflection: orElse(true, boolean),
  authorize: optional(fn<(headers: Readonly<Record<string, string>>) => boolean>()),
} satisfies Rules<GrpcServerOptions>;

/** HTTP's statuses as gRPC's; what is not here is INTERNAL. */
const CODES: Readonly<Record<number, keyof typeof grpc.status>> = {
  400: 'INVALID_ARGUMENT',
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  408: 'DEADLINE_EXCEEDED',
  413: 'RESOURCE_EXHAUSTED',
  415: 'INVALID_ARGUMENT',
  422: 'INVALID_ARGUMENT',
  429: 'RESOURCE_EXHAUSTED',
  499: 'CANCELLED',
  501: 'UNIMPLEMENTED',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
};

type Message = Readonly<Record<string, unknown>>;
type Method = (request: Message, signal: AbortSignal) => Promise<Message>;

/**
 * Starts a gRPC server on a handler, which stays the caller's to close. Needs the packages `@grpc/grpc-js`,
 * `@grpc/proto-loader`, `grpc-health-check` and `@grpc/reflection`.
 *
 * @throws (rejects) ERR_SENET_PEER_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (also an address that is in use)
 */
export async function startGrpcServer(
  handler: InferenceHandler,
  options?: GrpcServerOptions,
): Promise<GrpcServer> {
  const given = readOptions<GrpcServerOptions, typeof OPTIONS>(options, OPTIONS, 'startGrpcServer');
  const { Server, ServerCredentials, loadPackageDefinition, status } = requirePeer<typeof grpc>(
    '@grpc/grpc-js',
    PURPOSE,
  );
  const loader = requirePeer<typeof protoLoader>('@grpc/proto-loader', PURPOSE);
  const { HealthImplementation, protoPath: healthProto } = requirePeer<typeof health>(
    'grpc-health-check',
    PURPOSE,
  );
  const definition = loader.loadSync(path.join(ASSETS, 'serve', 'inference.proto'), LOADING);
  const { inference } = loadPackageDefinition(definition) as unknown as {
    inference: { GRPCInferenceService: { service: grpc.ServiceDefinition } };
  };
  const server = new Server({
    'grpc.max_receive_message_length': given.maxMessage,
    'grpc.max_send_message_length': given.maxMessage,
  });
  const running = new Set<Promise<void>>();
  const answer = ({ requestDeserialize: read }: grpc.MethodDefinition<Message, Message>, method: Method) => {
    const respond = async (call: grpc.ServerUnaryCall<Buffer, Message>): Promise<Message> => {
      const caller = new AbortController();
      call.on('cancelled', () => caller.abort());
      // Anything but true is no: a promise, and what was forgotten.
      const allowed: unknown = given.authorize === undefined || given.authorize(headersOf(call.metadata));
      if (allowed !== true) throw makeError('ERR_SENET_UNAUTHORIZED', 'expected a key in the metadata');
      return method(parseMessage(call.request, read), caller.signal);
    };
    return (call: grpc.ServerUnaryCall<Buffer, Message>, done: grpc.sendUnaryData<Message>): void => {
      const answered = respond(call).then(
        (message) => done(null, message),
        (error: unknown) => {
          const { http, message } = error instanceof Refusal ? error : refusalFor(error);
          done({ code: status[CODES[http] ?? 'INTERNAL'], details: message });
        },
      );
      running.add(answered);
      void answered.then(() => running.delete(answered));
    };
  };
  const { service } = inference.GRPCInferenceService;
  const methods = methodsOf(handler);
  server.addService(
    unread(service),
    Object.fromEntries(
      Object.entries(methods).map(([name, method]) => [
        name,
        answer(service[name] as grpc.MethodDefinition<Message, Message>, method),
      ]),
    ),
  );
  const healthService = new HealthImplementation({ '': 'SERVING', [SERVICE]: 'SERVING' });
  healthService.addToServer(server);
  if (given.reflection) {
    const { ReflectionService } = requirePeer<typeof reflection>('@grpc/reflection', PURPOSE);
    const told = { ...definition, ...loader.loadSync(healthProto, LOADING) };
    new ReflectionService(asProtocDescribes(told)).addToServer(server);
  }
  const credentials =
    given.tls === undefined ? ServerCredentials.createInsecure() : secured(given.tls, ServerCredentials);
  const host = given.host.includes(':') ? `[${given.host}]` : given.host;
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${given.port}`, credentials, (cause, bound) => {
      if (cause === null) resolve(bound);
      else reject(makeError('ERR_SENET_ARG_RANGE', `${host}:${given.port}: ${cause.message}`, { cause }));
    });
  });
  // Whoever watches learns that it is no longer ready.
  const timer = setInterval(() => {
    const serving = handler.ready ? 'SERVING' : 'NOT_SERVING';
    for (const name of ['', SERVICE]) healthService.setStatus(name, serving);
  }, HEALTH_LOOK);
  timer.unref();
  return {
    port,
    close: async () => {
      clearInterval(timer);
      for (const name of ['', SERVICE]) healthService.setStatus(name, 'NOT_SERVING');
      const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      while (running.size > 0) await Promise.all(running);
      // Streams that tell of health end when their client ends them, and calls whose message does not come never do.
      await Promise.race([closed, delay(LEAVE, undefined, { ref: false })]);
      server.forceShutdown();
    },
  };
}

/** @throws ERR_SENET_ARG_RANGE where the two are no certificate with its key */
function secured(
  { cert, key }: Values<typeof TLS>,
  credentials: typeof grpc.ServerCredentials,
): grpc.ServerCredentials {
  checkCertificate({ cert, key }, 'startGrpcServer: tls');
  return credentials.createSsl(null, [{ cert_chain: cert, private_key: key }]);
}

function methodsOf(handler: InferenceHandler): Record<string, Method> {
  return {
    ServerLive: async () => ({ live: (await ask(handler, 'GET', '/v2/health/live')).status === 200 }),
    ServerReady: () => Promise.resolve({ ready: handler.ready }),
    ModelReady: async ({ name, version }) => {
      const said = await ask(handler, 'GET', `${pathOf(name, version)}/ready`);
      if (said.status !== 200 && said.status !== 503) throw refusalOf(said);
      return { ready: said.status === 200 };
    },
    ServerMetadata: async () => json(await ask(handler, 'GET', '/v2')),
    ModelMetadata: async ({ name, version }) => json(await ask(handler, 'GET', pathOf(name, version))),
    ModelInfer: (request, signal) => infer(handler, request, signal),
  };
}

/** Messages as they come: gRPC's library would call one that it cannot read a fault of the server. */
function unread(service: grpc.ServiceDefinition): grpc.ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service).map(([name, method]) => [
      name,
      { ...method, requestDeserialize: (bytes: Buffer) => bytes },
    ]),
  );
}

function parseMessage(bytes: Buffer, read: (bytes: Buffer) => Message): Message {
  try {
    return read(bytes);
  } catch (cause) {
    const reason = isError(cause) ? cause.message : String(cause);
    throw makeError('ERR_SENET_REQUEST', `the message cannot be read: ${printable(reason, 200)}`, { cause });
  }
}

/** A request that was refused, with its status of HTTP. */
class Refusal extends Error {
  constructor(
    readonly http: number,
    message: string,
  ) {
    super(message);
  }
}

/** Of a fault of the server the caller learns nothing, as over HTTP. */
function refusalFor(error: unknown): Refusal {
  const http = httpStatusOf(error);
  return isSenetError(error) && http !== 500
    ? new Refusal(http, `${error.message} [${error.code}]`)
    : new Refusal(500, 'the server failed');
}

function ask(
  handler: InferenceHandler,
  method: string,
  url: string,
  body?: Buffer,
  headers: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<InferenceResponse> {
  return handler.handle({
    ...{ method, url, headers },
    ...(body === undefined ? {} : { body: bytesOf(body) }),
    ...(signal === undefined ? {} : { signal }),
  });
}

async function* bytesOf(body: Buffer): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(body);
}

function json(response: InferenceResponse): Message {
  if (response.status !== 200) throw refusalOf(response);
  return JSON.parse(Buffer.from(response.body).toString()) as Message;
}

function refusalOf({ status, body }: InferenceResponse): Refusal {
  const { error, code } = JSON.parse(Buffer.from(body).toString()) as {
    error?: string;
    code?: string | null;
  };
  return new Refusal(
    status,
    `${error ?? 'it is not ready'}${code === null || code === undefined ? '' : ` [${code}]`}`,
  );
}

function pathOf(name: unknown, version: unknown): string {
  // As a path it would be that of the list of models.
  if (name === '') throw makeError('ERR_SENET_UNKNOWN_SERVED_MODEL', `there is no model ''`);
  const end = version === '' ? '' : `/versions/${encodeURIComponent(String(version))}`;
  return `/v2/models/${encodeURIComponent(String(name))}${end}`;
}

function headersOf(metadata: grpc.Metadata): Record<string, string> {
  return Object.fromEntries(
    Object.entries(metadata.getMap()).map(([name, value]) => [name, Buffer.isBuffer(value) ? '' : value]),
  );
}

interface GrpcTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly parameters: Readonly<Record<string, Message>>;
  readonly contents: { fp32_contents: number[]; uint_contents: number[]; bytes_contents: Buffer[] } | null;
}

async function infer(handler: InferenceHandler, request: Message, signal: AbortSignal): Promise<Message> {
  const { model_name: name, model_version: version, id } = request as Record<string, string>;
  const inputs = request.inputs as readonly GrpcTensor[];
  const raw = request.raw_input_contents as readonly Buffer[];
  if (raw.length > 0 && (raw.length !== inputs.length || inputs.some(({ contents }) => contents !== null)))
    throw makeError(
      'ERR_SENET_REQUEST',
      'expected raw_input_contents of every input, or contents, and not both',
    );
  const tensors = inputs.map((input, index) => raw[index] ?? contentsOf(input));
  const head = Buffer.from(
    JSON.stringify({
      ...(id === '' ? {} : { id }),
      parameters: { binary_data_output: true },
      inputs: inputs.map(({ name: called, datatype, shape, parameters }, index) => ({
        ...{ name: called, datatype, shape },
        parameters: { ...plainParameters(parameters), binary_data_size: tensors[index]?.length ?? 0 },
      })),
      outputs: (request.outputs as readonly GrpcTensor[]).map(({ name: called, parameters }) => ({
        ...{ name: called, parameters: plainParameters(parameters) },
      })),
    }),
  );
  const headers = { 'inference-header-content-length': String(head.length) };
  const url = `${pathOf(name, version)}/infer`;
  const response = await ask(handler, 'POST', url, Buffer.concat([head, ...tensors]), headers, signal);
  if (response.status !== 200) throw refusalOf(response);
  const length = Number(response.headers['inference-header-content-length']);
  const body = Buffer.from(response.body);
  const { outputs, ...rest } = JSON.parse(body.subarray(0, length).toString()) as {
    outputs: (object & { parameters: { binary_data_size: number } })[];
  };
  let place = length;
  return {
    ...rest,
    outputs: outputs.map(({ parameters: _parameters, ...output }) => output),
    raw_output_contents: outputs.map(({ parameters: { binary_data_size: size } }) =>
      body.subarray(place, (place += size)),
    ),
  };
}

/** Typed contents as raw ones. */
function contentsOf({ datatype, contents }: GrpcTensor): Buffer {
  if (contents === null) return Buffer.alloc(0);
  if (datatype === 'FP32') return Buffer.from(Float32Array.from(contents.fp32_contents).buffer);
  if (datatype === 'UINT8') {
    if (contents.uint_contents.some((value) => value > 255))
      throw makeError('ERR_SENET_REQUEST', 'expected uint_contents of at most 255 for UINT8');
    return Buffer.from(contents.uint_contents);
  }
  return Buffer.concat(
    contents.bytes_contents.flatMap((bytes) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
}

/** The value of each, whichever kind it is. */
function plainParameters(parameters: Readonly<Record<string, Message>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(parameters).map(([name, value]) => [name, value[String(value.parameter_choice)]]),
  );
}
