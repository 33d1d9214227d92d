/**
 * A local HTTP server for the download tests: serves one body with ETag and ranges, and misbehaves on demand.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Behaviour {
  body: Buffer;
  etag?: string;
  /** Answer ranges. Default true. */
  ranges?: boolean;
  status?: number;
  /** Cut the connection after so many bytes of each answer. */
  cutAfter?: number;
  /** Promise this length instead of the real one, then end the answer early. */
  claimedLength?: number;
  /** Milliseconds before each 64 KB. */
  slow?: number;
  redirectTo?: string;
  /** Answer a range from so many bytes later than asked. */
  rangeShift?: number;
  /** Promise no length. */
  chunked?: boolean;
  /** Content-encoding that the answer claims. */
  encoding?: string;
}

export interface TestServer {
  readonly url: string;
  readonly requests: {
    path: string;
    range: string | undefined;
    host: string | undefined;
    authorization: string | undefined;
  }[];
  behave(change: Partial<Behaviour>): void;
  close(): Promise<void>;
}

export async function startServer(initial: Behaviour): Promise<TestServer> {
  let behaviour = initial;
  const requests: TestServer['requests'] = [];
  const server: Server = createServer((request, response) => {
    const { range, host, authorization } = request.headers;
    requests.push({ path: request.url ?? '', range, host, authorization });
    void answer(request, response, behaviour);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    behave: (change) => {
      behaviour = { ...behaviour, ...change };
    },
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  behaviour: Behaviour,
): Promise<void> {
  const { body, etag = '"v1"', ranges = true, status = 200, redirectTo } = behaviour;
  if (redirectTo !== undefined && request.url !== redirectTo) {
    response.writeHead(302, { location: redirectTo }).end();
    return;
  }
  if (status !== 200) {
    response.writeHead(status).end('no');
    return;
  }
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
  const fresh = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
  const start = ranges && range !== null && fresh ? Number(range[1]) + (behaviour.rangeShift ?? 0) : 0;
  if (start > body.length) {
    response.writeHead(416).end();
    return;
  }
  const part = body.subarray(start);
  const length = behaviour.claimedLength === undefined ? part.length : behaviour.claimedLength - start;
  const partial = start > 0 ? { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` } : {};
  const promise = behaviour.chunked === true ? {} : { 'content-length': length };
  const encoded = behaviour.encoding === undefined ? {} : { 'content-encoding': behaviour.encoding };
  response.writeHead(start > 0 ? 206 : 200, { etag, ...promise, ...encoded, ...partial });
  const sent = behaviour.cutAfter === undefined ? part : part.subarray(0, behaviour.cutAfter);
  for (let offset = 0; offset < sent.length; offset += 65_536) {
    if (behaviour.slow !== undefined) await new Promise((resolve) => setTimeout(resolve, behaviour.slow));
    if (response.destroyed) return;
    await new Promise((resolve) => response.write(sent.subarray(offset, offset + 65_536), resolve));
  }
  if (sent.length < length) {
    // What was written must reach the client before the connection breaks.
    await new Promise((resolve) => setTimeout(resolve, 50));
    response.destroy();
  } else response.end();
}
