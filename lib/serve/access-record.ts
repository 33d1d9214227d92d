/** What is told of each request when it was answered. */
import type { ErrorCode } from '../errors';

export interface AccessRecord {
  readonly method: string;
  /** With its query; nothing of the body. */
  readonly url: string;
  /** As the routes have it, with names in place of their values: '/v2/models/:model/infer'. */
  readonly route: string;
  /** 499 for a caller who left. */
  readonly status: number;
  readonly milliseconds: number;
  /** Of an error; null of what is no error of this library. */
  readonly code?: ErrorCode | null;
  /** The error itself, also of one image among several: what the caller is not told of a fault of the server. */
  readonly error?: unknown;
}
