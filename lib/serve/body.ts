/**
 * The body of a request as bytes or JSON, bounded on the way: what is too large is refused when that is known, by its
 * `content-length`, by what has arrived, or by what it becomes when it is inflated. Knows no route.
 */
import { Readable, type Transform } from 'node:stream';
import { createGunzip, createInflate, constants } from 'node:zlib';

import { isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { headerOf, type InferenceRequest } from './exchange';

/** Arrays and objects in JSON may lie so deep in one another. A nested tensor has four levels, and its request three. */
const MAX_JSON_DEPTH = 32;
/** Values that JSON may hold: a second's work on the event loop would be some 30 times as many. */
const MAX_JSON_VALUES = 2 ** 20;
const MAX_LENGTH_DIGITS = 15;

/** Bytes of bodies that a server holds at the same time. */
export class BodyMemory {
  readonly #limit: number;
  #used = 0;

  /** @param limit - in bytes, of all bodies together */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get used(): number {
    return this.#used;
  }

  /** @throws ERR_SENET_QUEUE_FULL */
  take(bytes: number): void {
    if (this.#used + bytes > this.#limit) {
      throw makeError(
        'ERR_SENET_QUEUE_FULL',
        `the bodies of other requests take ${this.#used} bytes of ${this.#limit}; try again later`,
      );
    }
    this.#used += bytes;
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}

/** What one request may send, and what it has taken. */
export class BodyReader {
  readonly #request: InferenceRequest;
  readonly #maxBytes: number;
  readonly #memory: BodyMemory;
  #held = 0;
  #done = false;
  #released = false;
  #bytes: Promise<Buffer> | undefined;

  constructor(request: InferenceRequest, maxBytes: number, memory: BodyMemory) {
    this.#request = request;
    this.#maxBytes = maxBytes;
    this.#memory = memory;
  }

  /** Whether any of it was wanted. */
  get begun(): boolean {
    return this.#bytes !== undefined;
  }

  /** Whether all of it has arrived. */
  get done(): boolean {
    return this.#done;
  }

  /** Gives the memory back; the bytes are no longer used. */
  release(): void {
    this.#released = true;
    this.#memory.give(this.#held);
    this.#held = 0;
  }

  /**
   * All bytes, inflated; asked again, the same.
   *
   * @throws (rejects) ERR_SENET_REQUEST_SIZE, ERR_SENET_MEDIA_TYPE (an encoding that is not known), ERR_SENET_REQUEST
   *   (what is not so encoded, a body that ends early), ERR_SENET_QUEUE_FULL (the server holds too many bodies)
   */
  bytes(): Promise<Buffer> {
    this.#bytes ??= this.#read();
    return this.#bytes;
  }

  async #read(): Promise<Buffer> {
    this.#checkLength();
    const parts: Uint8Array[] = [];
    try {
      for await (const part of this.#inflated()) {
        // Its request was given up meanwhile: what comes is nobody's.
        if (this.#released) throw new Error('the request has ended');
        this.#memory.take(part.length);
        this.#held += part.length;
        if (this.#held > this.#maxBytes) throw this.#tooLarge(`more than ${this.#maxBytes}`);
        parts.push(part);
      }
    } catch (error) {
      throw isSenetError(error) ? error : unreadable(error);
    }
    this.#done = true;
    return parts.length === 1 ? asBuffer(parts[0] as Uint8Array) : Buffer.concat(parts);
  }

  /** @throws (rejects) as `bytes`, and as `parseJson` */
  async json(): Promise<Readonly<Record<string, unknown>>> {
    return parseJson(await this.bytes());
  }

  #checkLength(): void {
    const length = headerOf(this.#request, 'content-length');
    if (length === undefined) return;
    // A server of ours has looked at it; whoever calls `handle` may not.
    if (!/^\d+$/.test(length) || length.length > MAX_LENGTH_DIGITS)
      throw makeError('ERR_SENET_REQUEST', `content-length: expected a number of bytes, got '${length}'`);
    if (Number(length) > this.#maxBytes) throw this.#tooLarge(length);
  }

  #tooLarge(bytes: string): Error {
    return makeError(
      'ERR_SENET_REQUEST_SIZE',
      `expected a body of at most ${this.#maxBytes} bytes, got ${bytes}`,
    );
  }

  #inflated(): AsyncIterable<Uint8Array> {
    const body = this.#request.body ?? [];
    const encoding = (headerOf(this.#request, 'content-encoding') ?? 'identity').trim().toLowerCase();
    if (encoding === 'identity' || encoding === '') return body as AsyncIterable<Uint8Array>;
    const make = INFLATERS[encoding as keyof typeof INFLATERS];
    if (make === undefined || !Object.hasOwn(INFLATERS, encoding)) {
      throw makeError(
        'ERR_SENET_MEDIA_TYPE',
        `content-encoding: expected gzip, deflate or identity, got '${encoding}'`,
      );
    }
    return inflate(body as AsyncIterable<Uint8Array>, make());
  }
}

/** A body that is cut short must not pass for a whole one. */
const STRICT = { finishFlush: constants.Z_FINISH } as const;
const INFLATERS = {
  gzip: () => createGunzip(STRICT),
  'x-gzip': () => createGunzip(STRICT),
  deflate: () => createInflate(STRICT),
} satisfies Record<string, () => Transform>;

/** Whoever stops reading ends both streams. */
async function* inflate(body: AsyncIterable<Uint8Array>, inflater: Transform): AsyncGenerator<Uint8Array> {
  const source = Readable.from(body);
  source.on('error', (error) => inflater.destroy(error));
  source.pipe(inflater);
  try {
    for await (const part of inflater) yield part as Uint8Array;
  } finally {
    source.destroy();
    inflater.destroy();
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function unreadable(cause: unknown): Error {
  const reason = isError(cause) ? cause.message : String(cause);
  return makeError('ERR_SENET_REQUEST', `the body cannot be read: ${reason}`, { cause });
}

/**
 * The value of UTF-8 JSON, which must be an object; `what` is how messages name it.
 *
 * @throws ERR_SENET_REQUEST (no JSON, no object, too deep), ERR_SENET_REQUEST_SIZE (too many values)
 */
export function parseJson(bytes: Buffer, what = 'the body'): Readonly<Record<string, unknown>> {
  checkJsonSize(bytes);
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw makeError('ERR_SENET_REQUEST', `${what} is no JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw makeError('ERR_SENET_REQUEST', 'expected a JSON object');
  return value as Record<string, unknown>;
}

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/** Before it is parsed: each level and each value takes many times the bytes that it is written with. */
function checkJsonSize(bytes: Uint8Array): void {
  let depth = 0;
  let values = 0;
  for (let place = 0; place < bytes.length; place++) {
    switch (bytes[place]) {
      case QUOTE:
        place = endOfString(bytes, place);
        break;
      case OPEN_ARRAY:
      case OPEN_OBJECT:
        if (++depth > MAX_JSON_DEPTH)
          throw makeError('ERR_SENET_REQUEST', `expected JSON of at most ${MAX_JSON_DEPTH} levels`);
        break;
      case CLOSE_ARRAY:
      case CLOSE_OBJECT:
        depth--;
        break;
      case COMMA:
        if (++values > MAX_JSON_VALUES) {
          throw makeError(
            'ERR_SENET_REQUEST_SIZE',
            `expected at most ${MAX_JSON_VALUES} values in JSON; send large tensors as binary data`,
          );
        }
        break;
      default:
    }
  }
}

/** The place of the quote that ends the string; the length if none does. */
function endOfString(bytes: Uint8Array, start: number): number {
  for (let end = bytes.indexOf(QUOTE, start + 1); end >= 0; end = bytes.indexOf(QUOTE, end + 1)) {
    let escapes = 0;
    while (bytes[end - 1 - escapes] === BACKSLASH) escapes++;
    if (escapes % 2 === 0) return end;
  }
  return bytes.length;
}
