/**
 * What libpng leaves to do: the orientation in a PNG's chunks, wherever they stand, and files whose image data is whole
 * though a checksum of it is wrong or missing, which Pillow reads. (PNG specification, sections 5 and 11.)
 */
import { crc32, createInflateRaw, inflateSync } from 'node:zlib';

import { exifOrientation, xmpOrientation } from './orientation';

interface Chunk {
  readonly name: string;
  readonly data: Buffer;
  /** Whether its checksum is right. */
  readonly checked: () => boolean;
}

const SIGNATURE_LENGTH = 8;
/** More are a file that wants to keep its reader busy. */
const MAX_CHUNKS = 100_000;
/** Of a header, or a palette of 256 colours. */
const MAX_HEAD_BYTES = 768;
/** Of a text that is compressed; as Pillow's limit. */
const MAX_TEXT_BYTES = 1024 * 1024;
const XMP = 'XML:com.adobe.xmp';
/** ImageMagick's: three lines of heading, then the block in hexadecimal digits. */
const RAW_EXIF = 'Raw profile type exif';

/** The chunks that are whole. */
function* chunksOf(bytes: Buffer): Generator<Chunk> {
  for (let [at, count] = [SIGNATURE_LENGTH, 0]; at + 12 <= bytes.length && count < MAX_CHUNKS; count++) {
    const end = at + 8 + bytes.readUInt32BE(at);
    if (end + 4 > bytes.length) return;
    const framed = bytes.subarray(at + 4, end);
    yield {
      name: framed.toString('latin1', 0, 4),
      data: framed.subarray(4),
      checked: () => crc32(framed) === bytes.readUInt32BE(end),
    };
    at = end + 4;
  }
}

/** The orientation that the chunks give, by Pillow's order: eXIf, else the raw profile; XMP where those say nothing. */
export function pngOrientation(bytes: Buffer): number | undefined {
  let exif: Buffer | undefined;
  const texts = new Map<string, string>();
  for (const { name, data } of chunksOf(bytes)) {
    if (name === 'eXIf') exif = data;
    if (name === 'tEXt' || name === 'zTXt' || name === 'iTXt') {
      const key = data.toString('latin1', 0, data.indexOf(0));
      if (key === XMP || key === RAW_EXIF) texts.set(key, textOf(name, data.subarray(key.length + 1)));
    }
  }
  exif ??= Buffer.from(texts.get(RAW_EXIF)?.split('\n').slice(3).join('') ?? '', 'hex');
  return exifOrientation(exif) ?? xmpOrientation(texts.get(XMP));
}

/** Of what follows the key; empty where it is damaged or too long. */
function textOf(name: string, data: Buffer): string {
  let [text, compressed] = [data, false];
  if (name === 'zTXt') [text, compressed] = [data.subarray(1), true];
  if (name === 'iTXt') {
    // Flag and method of compression, then language and translated key, each with a zero behind it.
    compressed = data[0] !== 0;
    text = data.subarray(2);
    for (let skipped = 0; skipped < 2; skipped++) text = text.subarray(text.indexOf(0) + 1);
  }
  try {
    return (compressed ? inflateSync(text, { maxOutputLength: MAX_TEXT_BYTES }) : text).toString('latin1');
  } catch {
    return '';
  }
}

/**
 * The same picture with right checksums.
 *
 * @throws (rejects) Error that says what is damaged
 */
export async function repairPng(bytes: Buffer): Promise<Buffer> {
  const kept: Buffer[] = [bytes.subarray(0, SIGNATURE_LENGTH)];
  const parts: Buffer[] = [];
  let expected = 0;
  for (const { name, data, checked } of chunksOf(bytes)) {
    if (name === 'IDAT') parts.push(data);
    if (name !== 'IHDR' && name !== 'PLTE') continue;
    if (data.length > MAX_HEAD_BYTES || !checked()) throw new Error(`its chunk ${name} is damaged`);
    if (name === 'IHDR') expected = lengthOfPixels(data);
    kept.push(chunk(name, data));
  }
  if (parts.length === 0) throw new Error('it is truncated');
  const stream = await repairZlib(Buffer.concat(parts), expected);
  return Buffer.concat([...kept, chunk('IDAT', stream), chunk('IEND', Buffer.alloc(0))]);
}

function chunk(name: string, data: Buffer): Buffer {
  const framed = Buffer.concat([Buffer.alloc(4), Buffer.from(name, 'latin1'), data, Buffer.alloc(4)]);
  framed.writeUInt32BE(data.length, 0);
  framed.writeUInt32BE(crc32(framed.subarray(4, -4)), framed.length - 4);
  return framed;
}

/** Samples of a pixel, by colour type. */
const SAMPLES: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
/** Start and step of each pass of an interlaced picture: rows, then columns. */
const PASSES = [
  [0, 8, 0, 8],
  [0, 8, 4, 8],
  [4, 8, 0, 4],
  [0, 4, 2, 4],
  [2, 4, 0, 2],
  [0, 2, 1, 2],
  [1, 2, 0, 1],
] as const;

/** Bytes of the filtered rows that a header promises. */
function lengthOfPixels(header: Buffer): number {
  const samples = SAMPLES[header[9] ?? 1];
  if (header.length !== 13 || samples === undefined) throw new Error('its header is damaged');
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const bits = samples * (header[8] as number);
  const passes = header[12] === 1 ? PASSES : ([[0, 1, 0, 1]] as const);
  let sum = 0;
  for (const [top, stepY, left, stepX] of passes) {
    const [rows, columns] = [Math.ceil((height - top) / stepY), Math.ceil((width - left) / stepX)];
    if (rows > 0 && columns > 0) sum += rows * (1 + Math.ceil((columns * bits) / 8));
  }
  return sum;
}

/** A zlib stream of so many bytes with its own end: what was behind the deflated data may be missing. */
async function repairZlib(stream: Buffer, expected: number): Promise<Buffer> {
  const inflate = createInflateRaw();
  const sum = new Adler32();
  let length = 0;
  inflate.end(stream.subarray(2));
  try {
    for await (const piece of inflate as AsyncIterable<Buffer>) {
      length += piece.length;
      if (length > expected) throw new Error('it has more image data than its header says');
      sum.update(piece);
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new Error(code === 'Z_BUF_ERROR' ? 'it is truncated' : `its image data is damaged (${message})`, {
      cause,
    });
  }
  if (length < expected) throw new Error(`it is truncated: its rows have ${expected} bytes, found ${length}`);
  const end = 2 + inflate.bytesWritten;
  const told = stream.subarray(end, end + 4);
  if (told.length === 4 && !told.equals(sum.digest()))
    throw new Error('the checksum of its image data is wrong');
  return Buffer.concat([stream.subarray(0, end), sum.digest()]);
}

/** zlib's checksum (RFC 1950). */
class Adler32 {
  #low = 1;
  #high = 0;

  update(bytes: Buffer): void {
    let [low, high] = [this.#low, this.#high];
    for (let at = 0; at < bytes.length;) {
      // So many bytes at most keep the sums below 2^32.
      for (const end = Math.min(bytes.length, at + 5552); at < end; at++) {
        low += bytes[at] as number;
        high += low;
      }
      low %= 65_521;
      high %= 65_521;
    }
    [this.#low, this.#high] = [low, high];
  }

  digest(): Buffer {
    const sum = Buffer.alloc(4);
    sum.writeUInt16BE(this.#high, 0);
    sum.writeUInt16BE(this.#low, 2);
    return sum;
  }
}
