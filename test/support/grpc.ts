/** What the tests of gRPC share: clients made of a proto file or of what a server tells of itself, and bare calls. */
import http2 from 'node:http2';
import path from 'node:path';

import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';

import { ASSETS } from './serving';

export const SERVICE = 'inference.GRPCInferenceService';
export const PROTO = path.join(ASSETS, 'serve', 'inference.proto');
const LOADING = { keepCase: true, longs: Number, defaults: true };

export interface GrpcClient {
  /** Its unary methods by name. */
  readonly call: (
    name: string,
    request: object,
    metadata?: grpc.Metadata,
  ) => Promise<Record<string, unknown>>;
  readonly stub: grpc.Client;
  close(): void;
}

/** @param service - with its package */
export function grpcClient(
  definition: loader.PackageDefinition | string,
  service: string,
  address: string | number,
  credentials = grpc.credentials.createInsecure(),
): GrpcClient {
  const loaded = typeof definition === 'string' ? loader.loadSync(definition, LOADING) : definition;
  const Service = service
    .split('.')
    .reduce<unknown>((place, name) => (place as grpc.GrpcObject)[name], grpc.loadPackageDefinition(loaded));
  const where = typeof address === 'number' ? `127.0.0.1:${address}` : address;
  const stub = new (Service as grpc.ServiceClientConstructor)(where, credentials);
  const methods = stub as unknown as Record<string, (...args: unknown[]) => void>;
  return {
    stub,
    close: () => stub.close(),
    call: (name, request, metadata = new grpc.Metadata()) =>
      new Promise((resolve, reject) => {
        methods[name]?.(request, metadata, (error: Error | null, answer: Record<string, unknown>) =>
          error === null ? resolve(answer) : reject(error),
        );
      }),
  };
}

/** The status of a call: 0 of one that was answered. */
export async function statusOf(calling: Promise<unknown>): Promise<[status: number, details: string]> {
  return calling.then(
    () => [grpc.status.OK, ''],
    (error: unknown) => [(error as grpc.ServiceError).code, (error as grpc.ServiceError).details],
  );
}

/** What a client sends that keeps to nothing: a stream of HTTP/2 with these headers and bytes, and how it ended. */
export function bareCall(
  port: number,
  method: string,
  body: Uint8Array | null,
  headers: http2.OutgoingHttpHeaders = {},
): Promise<{ http: number | undefined; status: number | undefined; message: string; error?: string }> {
  return new Promise((resolve) => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on('error', () => undefined);
    const stream = session.request({
      ...{ ':method': 'POST', ':path': `/${SERVICE}/${method}` },
      ...{ 'content-type': 'application/grpc', te: 'trailers', ...headers },
    });
    let [http, status, message] = [undefined, undefined, ''] as [
      number | undefined,
      number | undefined,
      string,
    ];
    let failure: string | undefined;
    const take = (said: http2.IncomingHttpHeaders): void => {
      http ??= said[':status'] as number | undefined;
      if (said['grpc-status'] !== undefined) status = Number(said['grpc-status']);
      message = decodeURIComponent(String(said['grpc-message'] ?? message));
    };
    stream.on('response', take).on('trailers', take);
    stream.on('error', (error: Error) => (failure = error.message));
    stream.on('close', () => {
      session.close();
      resolve({ http, status, message, ...(failure === undefined ? {} : { error: failure }) });
    });
    stream.resume();
    if (body === null) stream.end();
    else stream.end(body);
  });
}

/** A message behind its five bytes; `length` is what they say. */
export function framed(message: Uint8Array, compressed = 0, length = message.length): Buffer {
  const head = Buffer.alloc(5);
  head[0] = compressed;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}
