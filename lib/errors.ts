/**
 * Every error that this library throws: one table of stable codes, three classes, one way to make them.
 * Native code reports a code and a message and never names a class; the class is looked up here.
 * The table of codes in `docs/errors.md` is generated from `ERROR_CODES` (`scripts/checks/error-table.js`).
 */
import { isError } from './brands';
import { printableLine } from './printable';

/** A message that quotes lists goes no further. */
const MOST_LINES = 200;

interface CodeEntry {
  readonly base: 'Error' | 'TypeError' | 'RangeError';
  /** Of an HTTP answer that a request ends with; 499 is a caller who has left. */
  readonly status: number;
  readonly meaning: string;
}

/** Code -> the built-in class that its errors extend, its HTTP status, and what it means to the reader of that table. */
export const ERROR_CODES = {
  // arguments
  ERR_SENET_ARG_TYPE: { base: 'TypeError', status: 400, meaning: 'An argument has the wrong type.' },
  ERR_SENET_ARG_RANGE: {
    base: 'RangeError',
    status: 400,
    meaning: 'An argument has the right type and an impossible value.',
  },
  ERR_SENET_ARG_MISSING: {
    base: 'TypeError',
    status: 400,
    meaning: 'A required argument or option is missing.',
  },
  ERR_SENET_UNKNOWN_OPTION: {
    base: 'TypeError',
    status: 400,
    meaning: 'An option that does not exist; the message names the nearest that does.',
  },
  ERR_SENET_UNKNOWN_MODEL: {
    base: 'RangeError',
    status: 404,
    meaning: 'No model has this name; `listModels()` names them all.',
  },
  ERR_SENET_UNKNOWN_WEIGHTS: {
    base: 'Error',
    status: 400,
    meaning:
      'A file of weights is of no network of the library by its keys, or of several that differ in strides and pools alone; `details.candidates` names them.',
  },
  ERR_SENET_SHAPE: {
    base: 'RangeError',
    status: 400,
    meaning: 'A tensor has the wrong rank, size or channel count, or data and shape disagree.',
  },
  ERR_SENET_DTYPE: {
    base: 'TypeError',
    status: 400,
    meaning: 'A tensor or array has the wrong element type.',
  },
  ERR_SENET_DEVICE: {
    base: 'TypeError',
    status: 500,
    meaning: 'A tensor is on another device than the module or operator needs.',
  },
  ERR_SENET_BUFFER: {
    base: 'TypeError',
    status: 400,
    meaning: 'The bytes behind an array are detached, shared or resizable.',
  },
  // state
  ERR_SENET_DISPOSED: {
    base: 'Error',
    status: 503,
    meaning: 'The tensor, module or classifier was disposed.',
  },
  ERR_SENET_QUEUE_FULL: {
    base: 'Error',
    status: 503,
    meaning: 'A classifier has as many images waiting as its `batching.maxQueue` allows; try again later.',
  },
  ERR_SENET_NAN_OUTPUT: {
    base: 'Error',
    status: 422,
    meaning: 'The network gave no numbers for an image (NaN, or infinities that make its scores NaN).',
  },
  ERR_SENET_BUSY: {
    base: 'Error',
    status: 503,
    meaning: 'A job that uses this module, gradient or optimiser is queued or running; await it first.',
  },
  ERR_SENET_ABORTED: {
    base: 'Error',
    status: 499,
    meaning: 'The signal was aborted (name `AbortError`, cause the reason of the signal).',
  },
  ERR_SENET_CLOSING: {
    base: 'Error',
    status: 503,
    meaning: 'The process or worker is ending and takes no new work.',
  },
  ERR_SENET_AUTOGRAD: {
    base: 'Error',
    status: 500,
    meaning: 'Gradients cannot be computed as asked (no graph, not a scalar, an in-place change).',
  },
  ERR_SENET_MODULE_TREE: {
    base: 'Error',
    status: 500,
    meaning: 'A module cannot stand here: it is part of another module already, or would be part of itself.',
  },
  ERR_SENET_TS_FORWARD: {
    base: 'Error',
    status: 500,
    meaning:
      'Only a module whose forward is native can do this (`compile`, `forwardSync`, a place in a native module), and the forward of this one is TypeScript or has hooks.',
  },
  ERR_SENET_NATIVE_FORWARD: {
    base: 'Error',
    status: 500,
    meaning:
      'No hook can be registered here: a native forward calls this module, and never calls JavaScript.',
  },
  ERR_SENET_COMPILE: {
    base: 'Error',
    status: 500,
    meaning: 'This module cannot be compiled; the message says which part of it and why.',
  },
  ERR_SENET_EXPORT: {
    base: 'Error',
    status: 400,
    meaning:
      'A network cannot be written in a format of others: an operation that the format lacks, a weight that its type cannot hold, a file beyond 2 GB; the message says which layer.',
  },
  // machine
  ERR_SENET_CALIBRATION: {
    base: 'Error',
    status: 400,
    meaning: 'The images for the calibration of an int8 model are none, or hold numbers that are not finite.',
  },
  ERR_SENET_NO_BUILD: {
    base: 'Error',
    status: 500,
    meaning: 'No native build was found; the message says what to type.',
  },
  ERR_SENET_LIBTORCH_VERSION: {
    base: 'Error',
    status: 500,
    meaning: 'The LibTorch found at load is not the one that the addon was built with.',
  },
  ERR_SENET_PLATFORM: {
    base: 'Error',
    status: 500,
    meaning: 'This operating system, C library or processor is not supported.',
  },
  ERR_SENET_SETUP: {
    base: 'Error',
    status: 500,
    meaning: 'Set-up failed: a tool is missing, or no source of LibTorch served; the message lists why.',
  },
  ERR_SENET_CUDA_UNAVAILABLE: {
    base: 'Error',
    status: 500,
    meaning: 'A CUDA device was asked for and there is none.',
  },
  ERR_SENET_CUDA: {
    base: 'Error',
    status: 500,
    meaning: 'A library of CUDA failed (the runtime, the driver, cuDNN, cuBLAS); the message is its own.',
  },
  ERR_SENET_CUDA_LOST: {
    base: 'Error',
    status: 503,
    meaning:
      'A CUDA device no longer serves this process: a kernel failed on it, or the GPU did. Restart the process.',
  },
  ERR_SENET_OUT_OF_MEMORY: { base: 'Error', status: 503, meaning: 'LibTorch could not allocate memory.' },
  ERR_SENET_THREADS: {
    base: 'Error',
    status: 503,
    meaning: 'The system refused the threads that a job needs; the message says which limit to raise.',
  },
  ERR_SENET_LIBTORCH: {
    base: 'Error',
    status: 500,
    meaning: 'LibTorch refused an operation; the message is its own.',
  },
  ERR_SENET_INTERNAL: { base: 'Error', status: 500, meaning: 'A defect of this library; please report it.' },
  // operators
  ERR_SENET_UNKNOWN_OPERATOR: {
    base: 'RangeError',
    status: 400,
    meaning: 'LibTorch has no operator of this name.',
  },
  ERR_SENET_REFUSED_OPERATOR: {
    base: 'Error',
    status: 400,
    meaning: '`ops.call` does not run this operator, since it can break memory safety or touch files.',
  },
  ERR_SENET_OPERATOR_ARGS: {
    base: 'TypeError',
    status: 400,
    meaning: 'The arguments fit no overload of the operator; the message shows its schemas.',
  },
  // files and checkpoints
  ERR_SENET_FILE_NOT_FOUND: { base: 'Error', status: 404, meaning: 'No such file.' },
  ERR_SENET_FILE: {
    base: 'Error',
    status: 500,
    meaning: 'A file could not be read or written (a folder, no permission, disk full).',
  },
  ERR_SENET_FILE_CHANGED: {
    base: 'Error',
    status: 500,
    meaning: 'A file was truncated or changed while it was read.',
  },
  ERR_SENET_CHECKPOINT_FORMAT: {
    base: 'Error',
    status: 400,
    meaning: 'The file is no checkpoint, or a damaged one; the message says where.',
  },
  ERR_SENET_CHECKPOINT_UNSAFE: {
    base: 'Error',
    status: 400,
    meaning:
      'In the place of weights a pickle asks for a global outside the allow-list; nothing of it was executed.',
  },
  ERR_SENET_CHECKPOINT_UNSUPPORTED: {
    base: 'Error',
    status: 400,
    meaning:
      'The checkpoint is valid and holds something this library does not have (a sparse tensor, an unknown dtype).',
  },
  ERR_SENET_CHECKPOINT_LIMIT: {
    base: 'Error',
    status: 400,
    meaning: 'The checkpoint exceeds a safety limit (depth, count or size).',
  },
  ERR_SENET_STATE_DICT: {
    base: 'Error',
    status: 400,
    meaning:
      'Keys are missing, unexpected or of another shape; `details` lists them all and nothing was loaded.',
  },
  // network
  ERR_SENET_OFFLINE: {
    base: 'Error',
    status: 503,
    meaning: 'The file is not cached and `SENET_OFFLINE=1` or `HF_HUB_OFFLINE=1` forbids the network.',
  },
  ERR_SENET_DOWNLOAD: {
    base: 'Error',
    status: 502,
    meaning: 'A download failed; the message names the URL, the reason, and where to put the file by hand.',
  },
  ERR_SENET_HASH: {
    base: 'Error',
    status: 502,
    meaning: 'A downloaded file has another SHA-256 than promised; the message prints the digest.',
  },
  ERR_SENET_LOCKED: {
    base: 'Error',
    status: 503,
    meaning:
      'Another process is writing the same file (a download, the answers to many images) and did not finish in time.',
  },
  // images and data
  ERR_SENET_IMAGE: { base: 'Error', status: 400, meaning: 'The bytes are no image that can be decoded.' },
  ERR_SENET_IMAGE_SIZE: {
    base: 'RangeError',
    status: 413,
    meaning: 'The image is empty or larger than the limit on pixels.',
  },
  ERR_SENET_LABELS: {
    base: 'RangeError',
    status: 400,
    meaning:
      'The number of labels is not the number of classes, a label is none of the classes, or a file of labels is not understood.',
  },
  ERR_SENET_DATA_FORMAT: {
    base: 'Error',
    status: 400,
    meaning: 'A data set file is not of the expected format.',
  },
  ERR_SENET_DATASET: {
    base: 'Error',
    status: 400,
    meaning:
      'A folder or file holds nothing to train on: no class folders, only one, or a class without images.',
  },
  // training
  ERR_SENET_NAN_LOSS: {
    base: 'Error',
    status: 422,
    meaning:
      'The loss or the weights of a training run are not finite; the message names the step, the last checkpoint is good.',
  },
  ERR_SENET_DISTRIBUTED: {
    base: 'Error',
    status: 500,
    meaning:
      'Processes that train together did not come together: not all joined in time, a collective waited longer than the timeout, their networks differ, or this process is in no group.',
  },
  ERR_SENET_DISTRIBUTED_UNAVAILABLE: {
    base: 'Error',
    status: 500,
    meaning: 'This build, or this machine, has not the backend that processes should train together with.',
  },
  ERR_SENET_RANK_LOST: {
    base: 'Error',
    status: 500,
    meaning:
      'A process of the group has ended or failed; the message names its rank and, if it could say, the code that it failed with.',
  },
  ERR_SENET_RESUME: {
    base: 'Error',
    status: 409,
    meaning:
      'What an earlier run left is of another run than the one to be resumed: a training checkpoint (model, data set, options), an output of rows (images, network, columns).',
  },
  // serving
  ERR_SENET_REQUEST: {
    base: 'Error',
    status: 400,
    meaning: 'A request to a server cannot be understood: its body, JSON, form, tensors or parameters.',
  },
  ERR_SENET_UNAUTHORIZED: { base: 'Error', status: 401, meaning: 'A request carries no key of this server.' },
  ERR_SENET_FORBIDDEN: {
    base: 'Error',
    status: 403,
    meaning: 'A request asks for what the operator did not allow: an address, a model to be loaded.',
  },
  ERR_SENET_NO_ROUTE: { base: 'Error', status: 404, meaning: 'A server has nothing at this path.' },
  ERR_SENET_UNKNOWN_SERVED_MODEL: {
    base: 'RangeError',
    status: 404,
    meaning: 'A server has no model of this name and version.',
  },
  ERR_SENET_METHOD: { base: 'Error', status: 405, meaning: 'A server has another method at this path.' },
  ERR_SENET_REQUEST_TIMEOUT: {
    base: 'Error',
    status: 408,
    meaning: 'The body of a request did not arrive in the time that the server gives it.',
  },
  ERR_SENET_REQUEST_SIZE: {
    base: 'RangeError',
    status: 413,
    meaning: 'A request is larger than the server takes, or says so, or becomes so when it is inflated.',
  },
  ERR_SENET_MEDIA_TYPE: {
    base: 'Error',
    status: 415,
    meaning: 'The content type or encoding of a request is none that this path of the server takes.',
  },
  ERR_SENET_RATE_LIMIT: {
    base: 'Error',
    status: 429,
    meaning: 'This client has sent as many requests as the server allows for now.',
  },
  ERR_SENET_NOT_READY: {
    base: 'Error',
    status: 503,
    meaning: 'A model of a server is not loaded, or is being loaded for the first time.',
  },
  ERR_SENET_TIMEOUT: {
    base: 'Error',
    status: 504,
    meaning: 'A server has given a request up that took longer than its limit.',
  },
  // queues
  ERR_SENET_QUEUE: {
    base: 'Error',
    status: 503,
    meaning: 'A queue of jobs: its server is not reached, or a job failed; the message says which.',
  },
  // packages
  ERR_SENET_PEER_MISSING: {
    base: 'Error',
    status: 500,
    meaning: 'A package that is installed only by who needs it is missing; the message says what to type.',
  },
} as const satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface SenetErrorOptions {
  /** The error that led to this one. */
  cause?: unknown;
  /** Machine-readable facts, such as the lists of keys of `ERR_SENET_STATE_DICT`. */
  details?: Readonly<Record<string, unknown>>;
}

/** An error of this library with a stable `code`; argument errors are `SenetTypeError` or `SenetRangeError`. */
export class SenetError extends Error {
  override readonly name: string = 'SenetError';
  readonly details: Readonly<Record<string, unknown>> | undefined;
  constructor(
    readonly code: ErrorCode,
    message: string,
    options: SenetErrorOptions = {},
  ) {
    super(message, causeOf(options));
    this.details = options.details;
    if (code === 'ERR_SENET_ABORTED') this.name = 'AbortError';
  }
}

/** A `TypeError` with a stable `code`. */
export class SenetTypeError extends TypeError {
  override readonly name: string = 'SenetTypeError';
  readonly details: Readonly<Record<string, unknown>> | undefined;
  constructor(
    readonly code: ErrorCode,
    message: string,
    options: SenetErrorOptions = {},
  ) {
    super(message, causeOf(options));
    this.details = options.details;
  }
}

/** A `RangeError` with a stable `code`. */
export class SenetRangeError extends RangeError {
  override readonly name: string = 'SenetRangeError';
  readonly details: Readonly<Record<string, unknown>> | undefined;
  constructor(
    readonly code: ErrorCode,
    message: string,
    options: SenetErrorOptions = {},
  ) {
    super(message, causeOf(options));
    this.details = options.details;
  }
}

export type AnySenetError = SenetError | SenetTypeError | SenetRangeError;

/**
 * Makes the error that belongs to `code`: its class comes from `ERROR_CODES`. Messages quote file names, labels, keys and
 * what servers say, and end in terminals and logs: whatever is not printable is escaped here, line ends too. A message of
 * several lines is given as such.
 */
export function makeError(
  code: ErrorCode,
  message: string | readonly string[],
  options?: SenetErrorOptions,
): AnySenetError {
  const lines = typeof message === 'string' ? [message] : message;
  const shown = lines.slice(0, MOST_LINES).map(printableLine);
  if (lines.length > MOST_LINES) shown.push(`... and ${lines.length - MOST_LINES} lines more`);
  const text = shown.join('\n');
  switch (ERROR_CODES[code].base) {
    case 'TypeError':
      return new SenetTypeError(code, text, options);
    case 'RangeError':
      return new SenetRangeError(code, text, options);
    case 'Error':
      return new SenetError(code, text, options);
  }
}

/** On the prototypes, and the same for every copy of the library that a process loads. */
const BRAND = Symbol.for('senet-torch.error');
const CLASSES = [SenetError, SenetTypeError, SenetRangeError];
for (const { prototype } of CLASSES) Object.defineProperty(prototype, BRAND, { value: true });

/** True for every error of this library, whichever of the three classes it has. */
export function isSenetError(error: unknown): error is AnySenetError {
  return typeof error === 'object' && error !== null && BRAND in error;
}

/** How a program reads an error. */
export function errorRecord(error: unknown): { code: ErrorCode | null; message: string } {
  return {
    code: isSenetError(error) ? error.code : null,
    message: isError(error) ? error.message : String(error),
  };
}

/**
 * The status of an HTTP answer to a request that failed with `error`: that of its code, 500 for what is no error of this
 * library.
 *
 * @example
 * response.writeHead(httpStatusOf(error)).end(error.message);
 */
export function httpStatusOf(error: unknown): number {
  // Of a newer copy of the library it may be a code that this one does not have.
  const entry = isSenetError(error) ? (ERROR_CODES[error.code] as CodeEntry | undefined) : undefined;
  return entry?.status ?? 500;
}

/**
 * What the system says of a file, with a code; an error of this library as it is.
 *
 * @param missing - what to say of a file that is not there, in place of the system's words
 */
export function fileError(label: string, cause: unknown, missing?: string): AnySenetError {
  if (isSenetError(cause)) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENOTDIR'
    ? makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: ${missing ?? message}`, { cause })
    : makeError('ERR_SENET_FILE', `${label}: ${message}`, { cause });
}

/** Throws ERR_SENET_FILE for what is no regular file. @param expected - such as 'a checkpoint file' */
export function checkRegular(
  stats: { isFile(): boolean; isDirectory(): boolean },
  label: string,
  expected: string,
): void {
  if (stats.isFile()) return;
  const found = stats.isDirectory() ? 'a folder' : 'no regular file';
  throw makeError('ERR_SENET_FILE', `${label}: expected ${expected}, found ${found}`);
}

/** An error of another copy of this library as one of this copy's classes; anything else as it is. */
export function ofThisCopy<T>(error: T): T | AnySenetError {
  if (!isSenetError(error) || CLASSES.some((one) => error instanceof one)) return error;
  const { code, message, details } = error;
  return makeError(code, message.split('\n'), {
    ...('cause' in error && { cause: error.cause }),
    ...(details && { details }),
  });
}

function causeOf(options: SenetErrorOptions): ErrorOptions | undefined {
  return 'cause' in options ? { cause: options.cause } : undefined;
}
