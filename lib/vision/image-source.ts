/** The bytes of an image, however a caller names it. Knows no format. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';

import { checkRegular, fileError, makeError } from '../errors';
import { printable } from '../printable';
import { checkBuffer, describe } from '../tensor/options';

/**
 * An image file: its path, a `file:` or `data:` URL (an object, or a string that begins so), or its bytes. Nothing is
 * fetched from a network.
 */
export type ImageFileSource = string | URL | Uint8Array | ArrayBuffer | Blob;

/** The same in words. */
export const IMAGE_SOURCES = 'a path, a file: or data: URL, a Uint8Array, an ArrayBuffer, a Blob';

/** Length of an image file at most. */
export const MAX_FILE_BYTES = 512 * 1024 * 1024;

export function isImageFileSource(source: unknown): source is ImageFileSource {
  return (
    typeof source === 'string' ||
    types.isUint8Array(source) ||
    types.isAnyArrayBuffer(source) ||
    isUrl(source) ||
    isBlob(source)
  );
}

/** How messages name it. */
export function labelOf(source: ImageFileSource): string {
  const text = isUrl(source) ? source.href : source;
  if (typeof text !== 'string') return 'image bytes';
  return /^data:/i.test(text) ? 'data: URL' : printable(text, 1000);
}

/**
 * All bytes in memory of our own: they are read on other threads, when the caller may have let go of its array.
 *
 * @throws (rejects) ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE, ERR_SENET_IMAGE (a `data:` URL that is none),
 *   ERR_SENET_IMAGE_SIZE, ERR_SENET_BUFFER, ERR_SENET_ARG_RANGE (another URL), ERR_SENET_ARG_TYPE
 */
export async function readBytes(source: ImageFileSource): Promise<Buffer> {
  if (!isImageFileSource(source)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `image: expected ${IMAGE_SOURCES} or a Tensor, got ${describe(source)}`,
    );
  }
  const label = labelOf(source);
  if (typeof source === 'string') {
    return /^(file|data):/i.test(source) ? readUrl(source, label) : readImageFile(source, label);
  }
  if (isUrl(source)) return readUrl(source.href, label);
  if (isBlob(source)) return readBlob(source, label);
  return Buffer.from(borrowBytes(source) as Buffer);
}

/**
 * The caller's own bytes, if that is what he gave: not copied, so that they may change at every turn.
 *
 * @throws ERR_SENET_BUFFER
 */
export function borrowBytes(source: ImageFileSource): Buffer | undefined {
  if (!types.isUint8Array(source) && !types.isAnyArrayBuffer(source)) return undefined;
  const label = labelOf(source);
  const bytes = types.isUint8Array(source) ? source : viewOf(source, label);
  checkBuffer(bytes, label);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A detached buffer allows no view. */
function viewOf(buffer: ArrayBufferLike, label: string): Uint8Array {
  try {
    return new Uint8Array(buffer);
  } catch (cause) {
    throw makeError('ERR_SENET_BUFFER', `${label}: the bytes are detached (transferred elsewhere)`, {
      cause,
    });
  }
}

function isUrl(source: unknown): source is URL {
  const { href, protocol } = (source ?? {}) as Partial<URL>;
  return typeof source === 'object' && typeof href === 'string' && typeof protocol === 'string';
}

/** Of whichever realm. */
function isBlob(source: unknown): source is Blob {
  const { arrayBuffer, size } = (source ?? {}) as Partial<Blob>;
  return typeof source === 'object' && typeof arrayBuffer === 'function' && typeof size === 'number';
}

async function readBlob(blob: Blob, label: string): Promise<Buffer> {
  checkLength(blob.size, label);
  try {
    return Buffer.from(await blob.arrayBuffer());
  } catch (cause) {
    throw makeError('ERR_SENET_FILE', `${label}: ${printable((cause as Error).message)}`, { cause });
  }
}

async function readUrl(href: string, label: string): Promise<Buffer> {
  if (/^data:/i.test(href)) return readDataUrl(href, label);
  let file: string;
  try {
    file = fileURLToPath(href);
  } catch (cause) {
    const reason = printable((cause as Error).message);
    throw makeError('ERR_SENET_ARG_RANGE', `${label}: expected a path, or a file: or data: URL (${reason})`, {
      cause,
    });
  }
  return readImageFile(file, label);
}

/** RFC 2397; white space does not count, and percent signs escape bytes. */
function readDataUrl(href: string, label: string): Buffer {
  const comma = href.indexOf(',');
  if (comma < 0) throw makeError('ERR_SENET_IMAGE', `${label}: expected a comma before the data`);
  const body = href
    .slice(comma + 1)
    .replace(/%([0-9a-f]{2})/gi, (_, digits: string) => String.fromCharCode(parseInt(digits, 16)));
  checkLength(body.length, label);
  if (!/;\s*base64\s*$/i.test(href.slice(5, comma))) return Buffer.from(body, 'latin1');
  const digits = body.replace(/\s+/g, '');
  if (/^[A-Za-z0-9+/]*={0,2}$/.test(digits)) return Buffer.from(digits, 'base64');
  throw makeError('ERR_SENET_IMAGE', `${label}: expected base64`);
}

async function readImageFile(path: string, label: string): Promise<Buffer> {
  if (path === '' || path.includes('\0')) {
    throw makeError('ERR_SENET_FILE_NOT_FOUND', `expected the path of an image, got '${label}'`);
  }
  let file: FileHandle | undefined;
  try {
    // Without O_NONBLOCK, opening a named pipe waits for a writer for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await file.stat();
    checkRegular(stats, label, 'an image file');
    checkLength(stats.size, label);
    return await file.readFile();
  } catch (cause) {
    const hint = /^https?:/i.test(path) ? '; nothing is fetched here: give the bytes of the answer' : '';
    throw fileError(label, cause, `no such file${hint}`);
  } finally {
    await file?.close();
  }
}

function checkLength(bytes: number, label: string): void {
  if (bytes <= MAX_FILE_BYTES) return;
  throw makeError(
    'ERR_SENET_IMAGE_SIZE',
    `${label}: expected at most ${MAX_FILE_BYTES} bytes, found ${bytes}`,
  );
}
