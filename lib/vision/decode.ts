/**
 * Image files and bytes to RGB pixels: what Python's `ImageOps.exif_transpose(Image.open(f)).convert('RGB')` gives.
 * Orientation is applied, the colour profile ignored, alpha dropped (not blended), grey repeated; of several frames the
 * first counts. Decoding is sharp's, but for BMP and netpbm. Knows no tensor and no model.
 *
 * Deviates from Pillow where that gives something else than the picture: 16-bit grey keeps its high byte (Pillow
 * saturates nearly all of it to white), and AVIF with subsampled colour is upsampled by another filter.
 */
import type sharp from 'sharp';

import { isError } from '../brands';
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';
import { Alone } from './alone';
import { isBmp, openBmp } from './bmp';
import type { EncodedImage } from './encoded-image';
import { fillAround, prepareGif } from './gif';
import { labelOf, readBytes, type ImageFileSource } from './image-source';
import { isNetpbm, openNetpbm } from './netpbm';
import { applyOrientation, exifOrientation, xmpOrientation } from './orientation';
import { pngOrientation, repairPng } from './png';
import { Turns } from './turns';

/** Width x height at most: where Pillow begins to warn of decompression bombs, 256 MiB of RGB. */
export const MAX_PIXELS = 89_478_485;
/** Length of a PNG file whose checksums are mended, at most: a part of that has no turns. */
const MAX_MENDED_BYTES = 64 * 1024 * 1024;

/** Bytes of CMYK between two looks at the clock. */
const CMYK_PIECE = 65_536;

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

/** Height and width that are wanted of an image, from its own. */
export type WantedSize = (height: number, width: number) => readonly [height: number, width: number];

/**
 * Reads the header of a JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM image: what its pixels will take is known
 * before they are made.
 *
 * @param source - a path, a `file:` or `data:` URL, or the bytes of a file, which are copied
 * @param wantedSize - where given, a JPEG may come smaller than it is, though not below twice the height and width that
 *   this function gives for its own. libjpeg then leaves out what would not be seen (it scales blocks by their
 *   frequencies) and the rest is resized: much faster, and not Pillow's pixels.
 * @throws (rejects) ERR_SENET_IMAGE (not an image, damaged), ERR_SENET_IMAGE_SIZE (no bytes, or more pixels than
 *   `MAX_PIXELS`), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (a folder, no permission), ERR_SENET_BUFFER (detached,
 *   shared or resizable), ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (another URL), ERR_SENET_THREADS
 */
export async function openImage(source: ImageFileSource, wantedSize?: WantedSize): Promise<EncodedImage> {
  return openBytes(await readBytes(source), labelOf(source), { wantedSize });
}

/**
 * `openImage` of bytes that were read, and nobody changes; `label` is how messages name them, and `maxPixels` another bound
 * in place of `MAX_PIXELS`, below it.
 */
export async function openBytes(
  bytes: Buffer,
  label: string,
  { wantedSize, maxPixels = MAX_PIXELS }: { wantedSize?: WantedSize | undefined; maxPixels?: number } = {},
): Promise<EncodedImage> {
  if (bytes.length === 0) {
    throw makeError('ERR_SENET_IMAGE_SIZE', `${label}: expected an image, found no bytes`);
  }
  const format = formatOf(bytes);
  if (format === undefined) {
    throw makeError(
      'ERR_SENET_IMAGE',
      `${label}: expected a JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM image; its first bytes are ${bytes.subarray(0, 8).toString('hex')}`,
    );
  }
  const checkSize = (width: number, height: number): void => {
    if (width * height <= maxPixels) return;
    throw makeError(
      'ERR_SENET_IMAGE_SIZE',
      `${label}: expected at most ${maxPixels} pixels, the image has ${width} x ${height}`,
    );
  };
  const coded = (cause: unknown): never => {
    if (isSenetError(cause) || !isError(cause)) throw cause;
    const reason = reasonOf(cause);
    if (/creat\w* (a )?thread/i.test(reason))
      // GLib's and libvips's words
      throw makeError('ERR_SENET_THREADS', `${label}: the system gives the decoder no thread: ${reason}`, {
        cause,
      });
    throw makeError('ERR_SENET_IMAGE', `${label}: cannot be decoded as ${format}: ${reason}`, { cause });
  };
  const { pixelBytes, decode } = await OPENERS[format](bytes, checkSize, wantedSize).catch(coded);
  return { pixelBytes, decode: () => decode().catch(coded) };
}

/** @throws (rejects) Error that says what is wrong with the image */
type Opener = (
  bytes: Buffer,
  checkSize: (width: number, height: number) => void,
  wantedSize: WantedSize | undefined,
) => Promise<EncodedImage>;

const OPENERS = {
  jpeg: (bytes, checkSize, wantedSize) =>
    openBySharp(bytes, { checkSize, wantedSize, orientationOf: orientationOfXmp }),
  png: openPng,
  webp: (bytes, checkSize) => openBySharp(bytes, { checkSize, orientationOf: orientationOfXmp }),
  avif: (bytes, checkSize) => openBySharp(bytes, { checkSize, orientationOf: orientationOfXmp }),
  // Every TIFF has an orientation to libvips, its tag or not.
  tiff: (bytes, checkSize) =>
    openBySharp(bytes, {
      checkSize,
      orientationOf: ({ xmpAsString }) => exifOrientation(bytes) ?? xmpOrientation(xmpAsString),
    }),
  gif: openGif,
  bmp: openBmp,
  netpbm: openNetpbm,
} satisfies Record<string, Opener>;
type Format = keyof typeof OPENERS;

function orientationOfXmp({ orientation, xmpAsString }: sharp.Metadata): number | undefined {
  return orientation ?? xmpOrientation(xmpAsString);
}

async function openPng(bytes: Buffer, checkSize: Parameters<Opener>[1]): Promise<EncodedImage> {
  const orientation = pngOrientation(bytes);
  const options = { checkSize, orientationOf: () => orientation };
  const mend = async (error: unknown): Promise<EncodedImage> => {
    if (isSenetError(error) || bytes.length > MAX_MENDED_BYTES) throw error;
    return openBySharp(await repairPng(bytes), options);
  };
  let opened: EncodedImage;
  try {
    opened = await decoding.together(() => openOnce(bytes, options));
  } catch (error) {
    return mend(error);
  }
  return {
    pixelBytes: opened.pixelBytes,
    decode: () =>
      decoding.together(opened.decode).catch(async (error: unknown) => (await mend(error)).decode()),
  };
}

async function openGif(given: Buffer, checkSize: Parameters<Opener>[1]): Promise<EncodedImage> {
  const { bytes, frame } = prepareGif(given);
  const { pixelBytes, decode } = await openBySharp(bytes, { checkSize, orientationOf: () => undefined });
  return {
    pixelBytes,
    decode: async () => {
      const image = await decode();
      if (frame !== undefined) fillAround(image, frame);
      return image;
    },
  };
}

interface SharpOptions {
  readonly checkSize: Parameters<Opener>[1];
  readonly wantedSize?: WantedSize | undefined;
  readonly orientationOf: (metadata: sharp.Metadata) => number | undefined;
}

/** Whatever libvips does. */
export const decoding = new Alone();

/** What fails is done once more alone, so that the reason is its own. Nobody waits for memory meanwhile. */
async function attempt<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await decoding.together(work);
  } catch (error) {
    if (isSenetError(error)) throw error;
    return decoding.alone(work);
  }
}

async function openBySharp(bytes: Buffer, options: SharpOptions): Promise<EncodedImage> {
  const { pixelBytes, decode } = await attempt(() => openOnce(bytes, options));
  return { pixelBytes, decode: () => attempt(decode) };
}

async function openOnce(bytes: Buffer, options: SharpOptions): Promise<EncodedImage> {
  const decoder = await loadDecoder();
  // As tolerant as Pillow: damage is an error, an odd header is not.
  const tolerance: sharp.SharpOptions = { ignoreIcc: true, failOn: 'error', limitInputPixels: MAX_PIXELS };
  const metadata = await decoder(bytes, { ...tolerance, limitInputPixels: false }).metadata();
  const { width, height, space } = metadata;
  options.checkSize(width, height);
  const orientation = options.orientationOf(metadata) ?? 1;
  const known = orientation === (metadata.orientation ?? 1);
  const cmyk = space === 'cmyk';
  const smaller = cmyk ? undefined : shrunkSize(width, height, orientation, known, options.wantedSize);
  const pixels = smaller === undefined ? width * height : smaller.width * smaller.height;
  return {
    // Pixels that are turned here are there twice.
    pixelBytes: pixels * ((cmyk ? 4 + 3 : 3) + (known ? 0 : 3)),
    decode: async () => {
      const image = known ? decoder(bytes, tolerance).autoOrient() : decoder(bytes, tolerance);
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
      const decoded = { data: cmyk ? await cmykToRgb(data) : data, width: info.width, height: info.height };
      return known ? decoded : applyOrientation(decoded, orientation);
    },
  };
}

/** What a JPEG of this size is decoded to where that may be smaller; undefined if it is too small for that. */
function shrunkSize(
  width: number,
  height: number,
  orientation: number,
  known: boolean,
  wantedSize: WantedSize | undefined,
): { height: number; width: number } | undefined {
  if (wantedSize === undefined) return undefined;
  const turned = orientation >= 5;
  const upright = turned ? ([width, height] as const) : ([height, width] as const);
  const least = wantedSize(...upright).map((side) => 2 * side);
  const [leastHeight = 1, leastWidth = 1] = turned && !known ? least.reverse() : least;
  const [from, across] = turned && !known ? [height, width] : upright;
  const shrink = Math.min(from / leastHeight, across / leastWidth);
  return shrink >= LEAST_SHRINK ? { height: leastHeight, width: leastWidth } : undefined;
}

/** Pillow's conversion: each colour times black, in integers. */
async function cmykToRgb(cmyk: Uint8Array): Promise<Uint8Array> {
  const rgb = new Uint8Array((cmyk.length / 4) * 3);
  const turns = new Turns();
  for (let from = 0, to = 0; from < cmyk.length;) {
    for (const end = Math.min(cmyk.length, from + CMYK_PIECE); from < end; from += 4) {
      const white = 255 - (cmyk[from + 3] as number);
      for (let channel = 0; channel < 3; channel++) {
        const product = (cmyk[from + channel] as number) * white + 128;
        rgb[to++] = Math.max(0, white - ((product + (product >> 8)) >> 8));
      }
    }
    await turns.take();
  }
  return rgb;
}

/** Lines of libvips that say nothing of the image. */
const EMPTY_REASONS = /unknown error|bad seek|unsupported image format/i;

/** What the decoder says, each line once. */
function reasonOf({ message }: Error): string {
  const lines = [...new Set(message.trim().split('\n'))].filter((line) => !EMPTY_REASONS.test(line));
  return printable(lines.join('; ') || 'it is damaged, or of a kind that is not read', 300);
}

/** By the first bytes. sharp alone would also render SVG, which is a program rather than a picture. */
export function formatOf(bytes: Buffer): Format | undefined {
  const head = bytes.subarray(0, 64).toString('latin1');
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'gif';
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return 'webp';
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) return 'tiff';
  if (isBmp(bytes)) return 'bmp';
  if (isNetpbm(bytes)) return 'netpbm';
  // ISO media: a box of brands, AVIF's among them.
  if (head.slice(4, 8) === 'ftyp' && /avi[fs]/.test(head.slice(8, Math.min(64, bytes.readUInt32BE(0)))))
    return 'avif';
  return undefined;
}
