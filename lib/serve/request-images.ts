/**
 * The images that a request brings, and what it says beside them: as the bytes of one image, as a form, or as JSON with
 * base64 or, where the operator allows it, addresses. Knows no model.
 */
import { makeError } from '../errors';
import { printable } from '../printable';
import { describe } from '../tensor/options';
import type { BodyReader } from './body';
import { parseJson } from './body';
import { headerOf, type InferenceRequest } from './exchange';
import { fetchImage } from './fetch-image';
import { parseForm } from './multipart';
import type { HandlerSettings } from './options';

export interface RequestImage {
  /** What the caller calls it: a file's name, an address. */
  readonly name: string | undefined;
  readonly bytes: Uint8Array;
}

export interface ImageRequest {
  readonly images: readonly RequestImage[];
  /** Whether the answer is to be a list, also of one. */
  readonly list: boolean;
  /** Everything else: of the query, of the form's fields or of the JSON, which go before the query. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** What is a number in JSON, and so in a query or a form: however large, so that the same rules say what is wrong with it. */
const NUMBER = /^-?\d{1,400}(\.\d{1,400})?(e[-+]?\d{1,3})?$/i;
/** Always text, whatever it looks like. */
const TEXTS = ['model', 'version', 'layer'];

/**
 * @throws (rejects) ERR_SENET_REQUEST, ERR_SENET_REQUEST_SIZE, ERR_SENET_MEDIA_TYPE, ERR_SENET_FORBIDDEN,
 *   ERR_SENET_DOWNLOAD, ERR_SENET_ABORTED, and as `BodyReader.bytes`
 */
export async function readImages(
  request: InferenceRequest,
  query: URLSearchParams,
  body: BodyReader,
  settings: HandlerSettings,
  signal: AbortSignal,
): Promise<ImageRequest> {
  const type = headerOf(request, 'content-type') ?? '';
  const kind = (type.split(';')[0] ?? '').trim().toLowerCase();
  const said = typed(query);
  if (kind === 'multipart/form-data') {
    const { files, fields } = await parseForm(await body.bytes(), type, settings.maxImages);
    if (files.length === 0)
      throw makeError('ERR_SENET_REQUEST', 'expected an image among the parts of the form');
    return { images: files, list: files.length > 1, parameters: { ...said, ...typed(fields) } };
  }
  if (kind === 'application/json') {
    const { image, url, images, ...rest } = parseJson(await body.bytes());
    const given = [image, url && { url }, images].filter((one) => one !== undefined);
    if (given.length !== 1)
      throw makeError(
        'ERR_SENET_REQUEST',
        "expected one of 'image' (base64), 'url' and 'images' in the JSON",
      );
    const list = images !== undefined;
    if (list && (!Array.isArray(images) || images.length === 0))
      throw makeError('ERR_SENET_REQUEST', `images: expected an array of images, got ${describe(images)}`);
    const sources = list ? (images as unknown[]) : given;
    if (sources.length > settings.maxImages) throw tooMany(sources.length, settings.maxImages);
    return {
      images: await readAll(sources, settings, signal),
      list,
      parameters: { ...said, ...rest },
    };
  }
  if (kind === '' || kind === 'application/octet-stream' || kind.startsWith('image/')) {
    return { images: [{ name: undefined, bytes: await body.bytes() }], list: false, parameters: said };
  }
  throw makeError(
    'ERR_SENET_MEDIA_TYPE',
    `content-type: expected image/*, multipart/form-data or application/json, got ${describe(kind)}`,
  );
}

export function tooMany(images: number, most: number): Error {
  return makeError('ERR_SENET_REQUEST_SIZE', `expected at most ${most} images in a request, got ${images}`);
}

/** One after the other: together they take what one body may. */
async function readAll(
  sources: readonly unknown[],
  settings: HandlerSettings,
  signal: AbortSignal,
): Promise<RequestImage[]> {
  const images: RequestImage[] = [];
  let left = settings.maxBody;
  for (const [index, source] of sources.entries()) {
    const image = await readOne(source, `images[${index}]`, settings, left, signal);
    left -= image.bytes.length;
    images.push(image);
  }
  return images;
}

async function readOne(
  source: unknown,
  what: string,
  settings: HandlerSettings,
  maxBytes: number,
  signal: AbortSignal,
): Promise<RequestImage> {
  if (typeof source === 'string') {
    if (/^https?:/i.test(source)) return readUrl(source, settings, maxBytes, signal);
    return { name: undefined, bytes: fromBase64(source, what) };
  }
  const { url, base64, name } = (source ?? {}) as Record<string, unknown>;
  const called = typeof name === 'string' ? { name: printable(name, 200) } : {};
  if (typeof url === 'string') return { ...(await readUrl(url, settings, maxBytes, signal)), ...called };
  if (typeof base64 === 'string') return { name: undefined, bytes: fromBase64(base64, what), ...called };
  throw makeError(
    'ERR_SENET_REQUEST',
    `${what}: expected base64, or an object with 'base64' or 'url', got ${describe(source)}`,
  );
}

async function readUrl(
  url: string,
  { urls }: HandlerSettings,
  maxBytes: number,
  signal: AbortSignal,
): Promise<RequestImage> {
  return { name: printable(url, 200), bytes: await fetchImage(url, urls, maxBytes, signal) };
}

/**
 * The bytes of base64, of both alphabets, with or without padding, or of a `data:` URL of it.
 *
 * @throws ERR_SENET_REQUEST
 */
export function fromBase64(text: string, what: string): Buffer {
  const [head = ''] = /^data:[^,]{0,200};base64,/i.exec(text) ?? [];
  const digits = text.slice(head.length);
  for (const candidate of [digits, digits.replace(/\s+/g, '')]) {
    const bytes = Buffer.from(candidate, 'base64'); // leaves out what is none of its digits
    const length = candidate.length - (candidate.endsWith('==') ? 2 : candidate.endsWith('=') ? 1 : 0);
    if (length % 4 !== 1 && bytes.length === Math.floor((length * 3) / 4)) return bytes;
  }
  throw makeError('ERR_SENET_REQUEST', `${what}: expected base64`);
}

/** Numbers, truth and objects as such. */
function typed(texts: Iterable<[string, string]> | ReadonlyMap<string, string>): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, text] of texts as Iterable<[string, string]>) {
    // A name of Object's own must be none of ours.
    Object.defineProperty(values, name, {
      ...{ value: valueOf(name, text), enumerable: true, configurable: true, writable: true },
    });
  }
  return values;
}

function valueOf(name: string, text: string): unknown {
  if (TEXTS.includes(name)) return text;
  if (text === 'true' || text === 'false') return text === 'true';
  // What is an object in JSON (`gates`) is its JSON.
  if (text.startsWith('{')) return parseJson(Buffer.from(text), printable(name, 100));
  return NUMBER.test(text) ? Number(text) : text;
}
