/**
 * Image files and bytes to RGB pixels: what Python's `ImageOps.exif_transpose(Image.open(f)).convert('RGB')` gives.
 * Orientation is applied, the colour profile ignored, alpha dropped (not blended), grey repeated; of several frames the
 * first counts. Decoding is sharp's. Knows no tensor and no model.
 *
 * Deviates from Pillow where that gives something else than the picture: 16-bit grey keeps its high byte (Pillow
 * saturates nearly all of it to white), and AVIF with subsampled colour is upsampled by another filter.
 */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';

import type sharp from 'sharp';

import { printable } from '../checkpoint/problems';
import { isError, isUint8Array } from '../brands';
import { makeError } from '../errors';
import { checkBuffer, describe } from '../tensor/options';

/** Width x height at most: where Pillow begins to warn of decompression bombs, 256 MiB of RGB. */
export const MAX_PIXELS = 89_478_485;
/** Length of an image file at most. */
const MAX_FILE_BYTES = 512 * 1024 * 1024;

/**
 * A JPEG is shrunk while it is decoded if it is so many times too large: below that, sharp decodes all of it anyway, for
 * fear of libjpeg's rounding.
 */
const LEAST_SHRINK = 3;

/**
 * sharp takes a tenth of a second to load, which nobody should wait for who never decodes: the first image does, or
 * whoever calls this before, while there is nothing else to do.
 */
export function loadDecoder(): Promise<typeof sharp> {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- other realms refuse `import()`
  return Promise.resolve().then(() => require('sharp') as typeof sharp);
}

/** Pixels in rows of RGB triples. */
export interface DecodedImage {
  /** height x width x 3 bytes. */
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** An image whose header was read. */
export interface EncodedImage {
  /** Most that `decode` holds of pixels at a time, in bytes. */
  readonly pixelBytes: number;
  /** @throws (rejects) ERR_SENET_IMAGE (damaged) */
  readonly decode: () => Promise<DecodedImage>;
}

/** Height and width that are wanted of an image, from its own. */
export type WantedSize = (height: number, width: number) => readonly [height: number, width: number];

/** `openImage` and `decode` in one. */
export async function decodeImage(
  source: string | Uint8Array,
  wantedSize?: WantedSize,
): Promise<DecodedImage> {
  return (await openImage(source, wantedSize)).decode();
}

/**
 * Reads the header of a JPEG, PNG, WebP, AVIF, GIF or TIFF image: what its pixels will take is known before they are made.
 *
 * @param source - a path, or the bytes of a file, which are copied
 * @param wantedSize - where given, a JPEG may come smaller than it is, though not below twice the height and width that
 *   this function gives for its own. libjpeg then leaves out what would not be seen (it scales blocks by their
 *   frequencies) and the rest is resized: much faster, and not Pillow's pixels.
 * @throws (rejects) ERR_SENET_IMAGE (not an image, damaged), ERR_SENET_IMAGE_SIZE (no bytes, or more pixels than
 *   `MAX_PIXELS`), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (a folder, no permission), ERR_SENET_BUFFER (detached,
 *   shared or resizable), ERR_SENET_ARG_TYPE
 */
export async function openImage(source: string | Uint8Array, wantedSize?: WantedSize): Promise<EncodedImage> {
  const label = typeof source === 'string' ? printable(source, 1000) : 'image bytes';
  const bytes = await readBytes(source, label);
  if (bytes.length === 0) {
    throw makeError('ERR_SENET_IMAGE_SIZE', `${label}: expected an image, found no bytes`);
  }
  const format = formatOf(bytes);
  if (format === undefined) {
    throw makeError(
      'ERR_SENET_IMAGE',
      `${label}: expected a JPEG, PNG, WebP, AVIF, GIF or TIFF image; its first bytes are ${bytes.subarray(0, 8).toString('hex')}`,
    );
  }
  if (format === 'gif') clearGifTransparency(bytes);
  const coded = (cause: unknown): never => {
    if (!isError(cause) || 'code' in cause) throw cause;
    const reason = printable(cause.message.trim(), 300);
    if (/creat\w* (a )?thread/i.test(reason))
      // GLib's and libvips's words
      throw makeError('ERR_SENET_THREADS', `${label}: the system gives the decoder no thread: ${reason}`, {
        cause,
      });
    throw makeError('ERR_SENET_IMAGE', `${label}: cannot be decoded as ${format}: ${reason}`, { cause });
  };
  const { pixelBytes, decode } = await openBytes(
    bytes,
    label,
    format === 'jpeg' ? wantedSize : undefined,
  ).catch(coded);
  return { pixelBytes, decode: () => decode().catch(coded) };
}

async function openBytes(
  bytes: Buffer,
  label: string,
  wantedSize: WantedSize | undefined,
): Promise<EncodedImage> {
  const decoder = await loadDecoder();
  // As tolerant as Pillow: damage is an error, an odd header is not.
  const options: sharp.SharpOptions = { ignoreIcc: true, failOn: 'error', limitInputPixels: MAX_PIXELS };
  const metadata = await decoder(bytes, { ...options, limitInputPixels: false }).metadata();
  const { width, height, space } = metadata;
  if (width * height > MAX_PIXELS) {
    throw makeError(
      'ERR_SENET_IMAGE_SIZE',
      `${label}: expected at most ${MAX_PIXELS} pixels, the image has ${width} x ${height}`,
    );
  }
  const cmyk = space === 'cmyk';
  const smaller = cmyk ? undefined : shrunkSize(metadata.autoOrient, wantedSize);
  const pixels = smaller === undefined ? width * height : smaller.height * smaller.width;
  return {
    pixelBytes: pixels * (cmyk ? 4 + 3 : 3),
    decode: async () => {
      const image = decoder(bytes, options).autoOrient();
      if (smaller !== undefined)
        image.resize(smaller.width, smaller.height, { fit: 'fill', kernel: 'linear' });
      // sharp would convert CMYK by a colour profile; Pillow multiplies.
      const raw = cmyk
        ? image.pipelineColourspace('cmyk').toColourspace('cmyk')
        : image.removeAlpha().toColourspace('srgb');
      const { data, info } = await raw.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
      const channels = cmyk ? 4 : 3;
      if (data.length !== info.width * info.height * channels) {
        throw new Error(`${info.channels} channels of ${space} are not supported`);
      }
      return { data: cmyk ? cmykToRgb(data) : data, width: info.width, height: info.height };
    },
  };
}

/** What a JPEG of this size is decoded to where that may be smaller; undefined if it is too small for that. */
function shrunkSize(
  { height, width }: { height: number; width: number },
  wantedSize: WantedSize | undefined,
): { height: number; width: number } | undefined {
  if (wantedSize === undefined) return undefined;
  const [wantedHeight, wantedWidth] = wantedSize(height, width);
  const least = { height: 2 * wantedHeight, width: 2 * wantedWidth };
  return Math.min(height / least.height, width / least.width) >= LEAST_SHRINK ? least : undefined;
}

/** Pillow's conversion: each colour times black, in integers. */
function cmykToRgb(cmyk: Uint8Array): Uint8Array {
  const rgb = new Uint8Array((cmyk.length / 4) * 3);
  for (let from = 0, to = 0; from < cmyk.length; from += 4) {
    const white = 255 - (cmyk[from + 3] as number);
    for (let channel = 0; channel < 3; channel++) {
      const product = (cmyk[from + channel] as number) * white + 128;
      rgb[to++] = Math.max(0, white - ((product + (product >> 8)) >> 8));
    }
  }
  return rgb;
}

/** All bytes in memory of our own: sharp reads them on other threads, when the caller may have let go of its array. */
async function readBytes(source: unknown, label: string): Promise<Buffer> {
  if (typeof source === 'string') return readImageFile(source, label);
  if (!isUint8Array(source)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `image: expected a path, a Uint8Array or a Tensor, got ${describe(source)}`,
    );
  }
  checkBuffer(source, label);
  return Buffer.from(source);
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
    if (!stats.isFile()) {
      const kind = stats.isDirectory() ? 'a folder' : 'no regular file';
      throw makeError('ERR_SENET_FILE', `${label}: expected an image file, found ${kind}`);
    }
    if (stats.size > MAX_FILE_BYTES) {
      throw makeError(
        'ERR_SENET_IMAGE_SIZE',
        `${label}: expected at most ${MAX_FILE_BYTES} bytes, found ${stats.size}`,
      );
    }
    return await file.readFile();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code?.startsWith('ERR_SENET_') === true) throw cause;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      throw makeError('ERR_SENET_FILE_NOT_FOUND', `${label}: no such file`, { cause });
    }
    throw makeError('ERR_SENET_FILE', `${label}: ${message}`, { cause });
  } finally {
    await file?.close();
  }
}

type Format = 'jpeg' | 'png' | 'webp' | 'avif' | 'gif' | 'tiff';

/** By the first bytes. sharp alone would also render SVG, which is a program rather than a picture. */
function formatOf(bytes: Buffer): Format | undefined {
  const head = bytes.subarray(0, 64).toString('latin1');
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'gif';
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return 'webp';
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) return 'tiff';
  // ISO media: a box of brands, AVIF's among them.
  if (head.slice(4, 8) === 'ftyp' && /avi[fs]/.test(head.slice(8, Math.min(64, bytes.readUInt32BE(0)))))
    return 'avif';
  return undefined;
}

/**
 * Clears the transparency flag of the first frame in place, so that transparent pixels keep the palette's colour, as
 * in Pillow, instead of becoming black (GIF89a, sections 18, 23 and 26).
 */
function clearGifTransparency(bytes: Buffer): void {
  const screen = bytes[10] ?? 0;
  let at = 13 + (screen & 0x80 ? 3 << ((screen & 7) + 1) : 0);
  while (bytes[at] === 0x21) {
    if (bytes[at + 1] === 0xf9 && at + 3 < bytes.length) bytes[at + 3] = (bytes[at + 3] as number) & ~1;
    at += 2;
    for (let length = bytes[at] ?? 0; length > 0; length = bytes[at] ?? 0) at += 1 + length;
    at += 1;
  }
}
