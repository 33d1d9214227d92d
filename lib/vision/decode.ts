/**
 * Image files and bytes to RGB pixels: what Python's `ImageOps.exif_transpose(Image.open(f)).convert('RGB')` gives.
 * Orientation is applied, the colour profile ignored, alpha dropped (not blended), grey repeated; of several frames the
 * first counts. Decoding is sharp's, but for BMP and netpbm. Knows no tensor and no model.
 *
 * Deviates from Pillow where that gives something else than the picture: 16-bit grey keeps its high byte (Pillow
 * saturates nearly all of it to white), and AVIF with subsampled colour is upsampled by another filter.
 */
import type sharp from 'sharp';

import { printable } from '../checkpoint/problems';
import { isSenetError, makeError } from '../errors';
import { Alone } from './alone';
import { decodeBmp, isBmp } from './bmp';
import { fillAround, prepareGif } from './gif';
import { labelOf, readBytes, type ImageFileSource } from './image-source';
import { decodeNetpbm, isNetpbm } from './netpbm';
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
export async function loadDecoder(): Promise<typeof sharp> {
  return (await import('sharp')).default;
}

/** Pixels in rows of RGB triples. */
export interface DecodedImage {
  /** height x width x 3 bytes. */
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/**
 * Decodes a JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM image.
 *
 * @param source - a path, a `file:` or `data:` URL, or the bytes of a file
 * @param wantedSize - where given, a JPEG may come smaller than it is, though not below twice the height and width that
 *   this function gives for its own. libjpeg then leaves out what would not be seen (it scales blocks by their
 *   frequencies) and the rest is resized: much faster, and not Pillow's pixels.
 * @throws (rejects) ERR_SENET_IMAGE (not an image, damaged), ERR_SENET_IMAGE_SIZE (no bytes, or more pixels than
 *   `MAX_PIXELS`), ERR_SENET_FILE_NOT_FOUND, ERR_SENET_FILE (a folder, no permission), ERR_SENET_BUFFER (detached,
 *   shared or resizable), ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (another URL)
 */
export async function decodeImage(source: ImageFileSource, wantedSize?: WantedSize): Promise<DecodedImage> {
  const bytes = await readBytes(source);
  const label = labelOf(source);
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
    if (width * height <= MAX_PIXELS) return;
    throw makeError(
      'ERR_SENET_IMAGE_SIZE',
      `${label}: expected at most ${MAX_PIXELS} pixels, the image has ${width} x ${height}`,
    );
  };
  try {
    return await DECODERS[format](bytes, checkSize, wantedSize);
  } catch (cause) {
    if (isSenetError(cause) || !(cause instanceof Error)) throw cause;
    throw makeError('ERR_SENET_IMAGE', `${label}: cannot be decoded as ${format}: ${reasonOf(cause)}`, {
      cause,
    });
  }
}

type WantedSize = (height: number, width: number) => readonly [height: number, width: number];
/** @throws (rejects) Error that says what is wrong with the image */
type Decoder = (
  bytes: Buffer,
  checkSize: (width: number, height: number) => void,
  wantedSize: WantedSize | undefined,
) => Promise<DecodedImage>;

const DECODERS = {
  jpeg: (bytes, checkSize, wantedSize) =>
    decodeBySharp(bytes, { checkSize, wantedSize, orientationOf: orientationOfXmp }),
  png: decodePng,
  webp: (bytes, checkSize) => decodeBySharp(bytes, { checkSize, orientationOf: orientationOfXmp }),
  avif: (bytes, checkSize) => decodeBySharp(bytes, { checkSize, orientationOf: orientationOfXmp }),
  // Every TIFF has an orientation to libvips, its tag or not.
  tiff: (bytes, checkSize) =>
    decodeBySharp(bytes, {
      checkSize,
      orientationOf: ({ xmpAsString }) => exifOrientation(bytes) ?? xmpOrientation(xmpAsString),
    }),
  gif: decodeGif,
  bmp: decodeBmp,
  netpbm: decodeNetpbm,
} satisfies Record<string, Decoder>;
type Format = keyof typeof DECODERS;

function orientationOfXmp({ orientation, xmpAsString }: sharp.Metadata): number | undefined {
  return orientation ?? xmpOrientation(xmpAsString);
}

async function decodePng(bytes: Buffer, checkSize: Parameters<Decoder>[1]): Promise<DecodedImage> {
  const orientation = pngOrientation(bytes);
  const options = { checkSize, orientationOf: () => orientation };
  try {
    return await decoding.together(() => decodeOnce(bytes, options));
  } catch (error) {
    if (isSenetError(error) || bytes.length > MAX_MENDED_BYTES) throw error;
    return decodeBySharp(await repairPng(bytes), options);
  }
}

async function decodeGif(bytes: Buffer, checkSize: Parameters<Decoder>[1]): Promise<DecodedImage> {
  const frame = prepareGif(bytes);
  const image = await decodeBySharp(bytes, { checkSize, orientationOf: () => undefined });
  if (frame !== undefined) fillAround(image, frame);
  return image;
}

interface SharpOptions {
  readonly checkSize: Parameters<Decoder>[1];
  readonly wantedSize?: WantedSize | undefined;
  readonly orientationOf: (metadata: sharp.Metadata) => number | undefined;
}

const decoding = new Alone();

/** What fails is decoded once more alone, so that the reason is its own. */
async function decodeBySharp(bytes: Buffer, options: SharpOptions): Promise<DecodedImage> {
  try {
    return await decoding.together(() => decodeOnce(bytes, options));
  } catch (error) {
    if (isSenetError(error)) throw error;
    return decoding.alone(() => decodeOnce(bytes, options));
  }
}

async function decodeOnce(bytes: Buffer, options: SharpOptions): Promise<DecodedImage> {
  const decoder = await loadDecoder();
  // As tolerant as Pillow: damage is an error, an odd header is not.
  const tolerance: sharp.SharpOptions = { ignoreIcc: true, failOn: 'error', limitInputPixels: MAX_PIXELS };
  const metadata = await decoder(bytes, { ...tolerance, limitInputPixels: false }).metadata();
  const { width, height, space } = metadata;
  options.checkSize(width, height);
  const orientation = options.orientationOf(metadata) ?? 1;
  const known = orientation === (metadata.orientation ?? 1);
  const image = known ? decoder(bytes, tolerance).autoOrient() : decoder(bytes, tolerance);
  const cmyk = space === 'cmyk';
  if (options.wantedSize !== undefined && !cmyk) {
    const turned = orientation >= 5;
    const upright = turned ? ([width, height] as const) : ([height, width] as const);
    const least = options.wantedSize(...upright).map((side) => 2 * side);
    const [leastHeight = 1, leastWidth = 1] = turned && !known ? least.reverse() : least;
    const [from, across] = turned && !known ? [height, width] : upright;
    const shrink = Math.min(from / leastHeight, across / leastWidth);
    if (shrink >= LEAST_SHRINK) image.resize(leastWidth, leastHeight, { fit: 'fill', kernel: 'linear' });
  }
  // sharp would convert CMYK by a colour profile; Pillow multiplies.
  const pixels = cmyk
    ? image.pipelineColourspace('cmyk').toColourspace('cmyk')
    : image.removeAlpha().toColourspace('srgb');
  const { data, info } = await pixels.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const channels = cmyk ? 4 : 3;
  if (data.length !== info.width * info.height * channels) {
    throw new Error(`${info.channels} channels of ${space} are not supported`);
  }
  const decoded = { data: cmyk ? await cmykToRgb(data) : data, width: info.width, height: info.height };
  return known ? decoded : applyOrientation(decoded, orientation);
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
function formatOf(bytes: Buffer): Format | undefined {
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
