/**
 * One request and its answer, as every face of the server (node:http, Fastify, the web's Request) gives and takes them,
 * and the answers that all routes share. Knows no framework and no route.
 */
import { isError } from '../brands';
import { httpStatusOf, isSenetError, type ErrorCode } from '../errors';

/** A request, whoever received it. */
export interface InferenceRequest {
  /** 'GET', 'POST', ... */
  readonly method: string;
  /** Path and query: '/classify?topK=3'. */
  readonly url: string;
  /** In lower case, as node:http has them. */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** Its bytes as they arrive; left out where there are none. */
  readonly body?: AsyncIterable<Uint8Array>;
  /** Aborts when the caller has left. */
  readonly signal?: AbortSignal;
}

/** The answer to a request, whole. */
export interface InferenceResponse {
  readonly status: number;
  /** In lower case; `content-length` is among them only of what has no body, and would have one if it were GET. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** Of an error: its code, or null of what is no error of this library. */
  readonly code?: ErrorCode | null;
  /** The error itself, for logs, also of one image among several: nothing of it but its message went to the caller. */
  readonly error?: unknown;
}

const JSON_TYPE = 'application/json; charset=utf-8';
/** Answers are facts of this moment, and what they hold is no page. */
const OWN_HEADERS = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' };

export function jsonResponse(value: unknown, status = 200): InferenceResponse {
  return bytesResponse(Buffer.from(JSON.stringify(value)), JSON_TYPE, status);
}

export function bytesResponse(
  body: Uint8Array,
  type: string,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): InferenceResponse {
  return { status, headers: { 'content-type': type, ...OWN_HEADERS, ...headers }, body };
}

/**
 * The answer to a request that failed: `{ error, code }`, as the Open Inference Protocol has its errors, with a code.
 * Of what is a fault of the server, not of the request, the caller learns the code alone: messages name files.
 */
export function errorResponse(error: unknown): InferenceResponse {
  const status = httpStatusOf(error);
  const code = isSenetError(error) ? error.code : null;
  const message =
    status === 500
      ? `the server failed${code === null ? '' : ` (${code})`}; its log says why`
      : isError(error)
        ? error.message
        : String(error);
  const response = jsonResponse({ error: message, code }, status);
  return { ...response, headers: { ...response.headers, ...extraHeaders(error, status) }, code, error };
}

/** What an answer of this status is to have beside its body. */
function extraHeaders(error: unknown, status: number): Record<string, string> {
  const facts = (isSenetError(error) ? error.details : undefined) ?? {};
  const { allow = '', retryAfter = '1' } = facts as { allow?: string; retryAfter?: string };
  switch (status) {
    case 401:
      return { 'www-authenticate': 'Bearer' };
    case 405:
      return { allow };
    // What has not been read of the body would be taken for the next request, or read for nothing.
    case 408:
    case 413:
      return { connection: 'close' };
    case 429:
    case 503:
      return { 'retry-after': retryAfter };
    default:
      return {};
  }
}

/** The answer to HEAD: what GET would be answered, but for the body. */
export function withoutBody(response: InferenceResponse): InferenceResponse {
  const { headers, body } = response;
  return {
    ...response,
    headers: { ...headers, 'content-length': String(body.byteLength) },
    body: new Uint8Array(0),
  };
}

/** The one value of a header; the first of several. */
export function headerOf({ headers }: Pick<InferenceRequest, 'headers'>, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : value?.[0];
}
