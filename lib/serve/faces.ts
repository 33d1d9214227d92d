/** How a request of node:http, and one of the web's, becomes one of the core's, and the core's answer theirs. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { clearTimeout, setTimeout } from 'node:timers';

import type { InferenceRequest, InferenceResponse } from './exchange';

export type Next = (error?: unknown) => void;

/** What a face needs of the core. */
export interface Answering {
  knows(method: string, url: string): boolean;
  handle(request: InferenceRequest): Promise<InferenceResponse>;
}

export function answerNode(
  core: Answering,
  request: IncomingMessage & { body?: unknown },
  response: ServerResponse,
  next: Next | undefined,
): void {
  const { method = 'GET', url = '/', headers } = request;
  if (next !== undefined && !core.knows(method, url)) {
    next();
    return;
  }
  const caller = new AbortController();
  response.on('close', () => response.writableFinished || caller.abort());
  // Where he goes while the answer is sent, nobody is left to tell.
  response.on('error', () => undefined);
  const given = { method, url, headers, body: bodyOfNode(request), signal: caller.signal };
  void core.handle(given).then((answer) => send(answer, request, response));
}

/** Of a body that was refused so much is read, and for so long, while its sender reads the answer. */
const LINGER_BYTES = 64 * 2 ** 20;
const LINGER_MS = 2000;

/** Whether the connection is to end although the body has not. */
export function mustLinger({ headers }: InferenceResponse, { complete }: IncomingMessage): boolean {
  return headers.connection === 'close' && !complete;
}

export function send(answer: InferenceResponse, request: IncomingMessage, response: ServerResponse): void {
  if (response.headersSent || response.destroyed) return;
  const { status, headers, body } = answer;
  response.writeHead(status, { 'content-length': body.byteLength, ...headers });
  if (!mustLinger(answer, request)) {
    response.end(body);
    return;
  }
  // A connection that is closed with bytes unread is reset, and with it the answer, if that has not been read.
  response.flushHeaders();
  response.write(body);
  readOn(request, () => response.end());
}

function readOn(request: IncomingMessage, done: () => void): void {
  let left = LINGER_BYTES;
  const end = (): void => {
    clearTimeout(timer);
    request.off('data', read).off('end', end).off('close', end);
    done();
  };
  const read = (part: Uint8Array): void => {
    left -= part.length;
    if (left < 0) end();
  };
  const timer = setTimeout(end, LINGER_MS);
  request.on('data', read).on('end', end).on('close', end).resume();
}

/** The stream, which whoever stops reading leaves as it is: an answer is still to be sent. */
function bodyOfNode(request: IncomingMessage & { body?: unknown }): AsyncIterable<Uint8Array> {
  // A parser of the framework may have been there before.
  const { body, readableEnded } = request;
  if (readableEnded && body !== undefined) return parsedBody(body);
  return request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
}

function parsedBody(body: unknown): AsyncIterable<Uint8Array> {
  if (Buffer.isBuffer(body)) return Readable.from([body]);
  return Readable.from([Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))]);
}

export async function answerWeb(core: Answering, request: Request): Promise<Response> {
  const { method, headers, body, signal } = request;
  const { pathname, search } = new URL(request.url);
  const answer = await core.handle({
    ...{ method, signal, url: `${pathname}${search}`, headers: Object.fromEntries(headers) },
    ...(body === null ? {} : { body: body }),
  });
  const { status, body: bytes } = answer;
  // The web's Response takes none above 599 and, with a body, no 204; ours are neither.
  return new Response(method === 'HEAD' ? null : (bytes as Uint8Array<ArrayBuffer>), {
    ...{ status, headers: answer.headers },
  });
}
