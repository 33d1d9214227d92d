/**
 * A local hub as huggingface.co answers: repositories of files, of which large ones lie on another host that it redirects
 * to, with the headers by which huggingface_hub keeps its cache.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubServer {
  readonly url: string;
  /** Method, path, and whether it brought a token. */
  readonly requests: {
    method: string;
    path: string;
    authorization: string | undefined;
    range: string | undefined;
  }[];
  /** What is asked of the other host. */
  readonly blobRequests: HubServer['requests'];
  /** repository/file -> bytes. */
  readonly files: Map<string, Buffer>;
  /** What a name such as main stands for; a commit stands for itself. */
  commit: string;
  /** Answers with this status in place of a file's. */
  status: number;
  /** Cuts each answer of the other host after so many bytes. */
  cutAfter: number;
  /** Headers that take the place of the hub's. */
  headers: Record<string, string>;
  close(): Promise<void>;
}

const LARGE = 4096;

export async function startHub(): Promise<HubServer> {
  const listen = async (
    answer: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<[Server, string]> => {
    const server = createServer(answer);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return [server, `http://127.0.0.1:${(server.address() as AddressInfo).port}`];
  };
  const note = (list: HubServer['requests'], { method = '', url = '', headers }: IncomingMessage): void => {
    const { authorization, range } = headers;
    list.push({ method, path: url, authorization, range });
  };
  const digest = (bytes: Buffer, kind: string): string => createHash(kind).update(bytes).digest('hex');
  const [blobs, blobUrl] = await listen((request, response) => {
    note(hub.blobRequests, request);
    const bytes = [...hub.files.values()].find((file) => request.url === `/${digest(file, 'sha256')}`);
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const etag = `"${digest(bytes, 'sha256')}"`;
    const part = bytes.subarray(start);
    const range = start > 0 ? { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
    response.writeHead(start > 0 ? 206 : 200, { etag, 'content-length': part.length, ...range });
    if (hub.cutAfter >= part.length) response.end(part);
    else response.write(part.subarray(0, hub.cutAfter), () => response.destroy());
  });
  const [front, url] = await listen((request, response) => {
    note(hub.requests, request);
    const [, repository = '', revision = '', file = ''] =
      /^\/(.+)\/resolve\/([^/]+)\/(.+)$/.exec(request.url ?? '') ?? [];
    const bytes = hub.files.get(`${repository}/${file}`);
    if (hub.status !== 200 || bytes === undefined) {
      const status = hub.status === 200 ? 404 : hub.status;
      response.writeHead(status, { 'x-error-message': 'as the hub says' }).end();
      return;
    }
    const etag = digest(bytes, bytes.length > LARGE ? 'sha256' : 'sha1');
    const commit = /^[0-9a-f]{40}$/.test(revision) ? revision : hub.commit;
    const facts = { 'x-repo-commit': commit, etag: `"${etag}"`, ...hub.headers };
    if (bytes.length > LARGE) {
      response
        .writeHead(302, {
          ...facts,
          'x-linked-etag': `"${etag}"`,
          ...hub.headers,
          location: `${blobUrl}/${etag}`,
        })
        .end();
    } else {
      response.writeHead(200, { ...facts, 'content-length': bytes.length });
      response.end(request.method === 'HEAD' ? undefined : bytes);
    }
  });
  const hub: HubServer = {
    url,
    requests: [],
    blobRequests: [],
    files: new Map(),
    commit: 'c'.repeat(40),
    status: 200,
    cutAfter: Infinity,
    headers: {},
    close: async () => {
      for (const server of [front, blobs]) {
        server.closeAllConnections();
        await new Promise<void>((resolve) => server.close(() => resolve()));
      }
    },
  };
  return hub;
}
