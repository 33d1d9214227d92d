/**
 * Netpbm's bitmaps, greymaps and pixmaps (PBM, PGM, PPM; P1 to P6) to RGB pixels. Follows Pillow's PpmImagePlugin to the
 * letter (comments, rounding, what comes after the pixels); the registry's libraries are a decade old.
 *
 * PARITY: 16-bit grey keeps its high byte, as that of PNG, where Pillow saturates nearly all of it to white.
 */
import type { EncodedImage } from './encoded-image';
import { Turns } from './turns';

const WHITESPACE = new Set([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d]);
const [HASH, LINE_FEED, CARRIAGE_RETURN] = [0x23, 0x0a, 0x0d];
/** Digits of a number at most. */
const MAX_DIGITS = 10;
/** Bytes of white space and comments between two numbers at most: they are skipped in one go. */
const MAX_GAP = 1024;
/** Samples between two looks at the clock. */
const PIECE = 4096;

/** Whether the bytes begin as one of the six formats. */
export function isNetpbm(bytes: Buffer): boolean {
  return /^P[1-6][ \t-\r]/.test(bytes.toString('latin1', 0, 3));
}

/**
 * @param checkSize - throws for an image that is too large
 * @throws (rejects) Error that says what is wrong
 */
// eslint-disable-next-line @typescript-eslint/require-await -- what it throws rejects
export async function openNetpbm(
  bytes: Buffer,
  checkSize: (width: number, height: number) => void,
): Promise<EncodedImage> {
  const kind = (bytes[1] as number) - 0x30;
  const reader = new Reader(bytes, 3);
  const [width, height] = [reader.header(), reader.header()];
  if (width === 0 || height === 0) throw new Error(`it has ${width} x ${height} pixels`);
  checkSize(width, height);
  const bits = kind === 1 || kind === 4;
  const most = bits ? 1 : reader.header();
  if (most < 1 || most > 65_535)
    throw new Error(`its greatest value is ${most}, and must be from 1 to 65535`);
  const channels = kind === 3 || kind === 6 ? 3 : 1;
  const count = width * height * channels;
  const size = most > 255 ? 2 : 1;
  const needed =
    kind === 4 ? Math.ceil(width / 8) * height : kind < 4 && !bits ? 2 * count - 1 : count * size;
  // Written out, each sample is a digit at least, and a space between two.
  if (bytes.length - reader.at < needed) throw truncated();
  // The usual pixmap holds what is wanted.
  const pixelBytes = width * height * 3;
  if (kind === 6 && most === 255) {
    const pixels = bytes.subarray(reader.at, reader.at + count);
    return { pixelBytes, decode: () => Promise.resolve({ data: new Uint8Array(pixels), width, height }) };
  }
  const sample =
    kind === 4
      ? bitsOf(bytes, reader.at, width)
      : kind === 1
        ? () => reader.bit()
        : kind < 4
          ? () => reader.sample(most)
          : size === 1
            ? () => bytes[reader.at++] as number
            : () => (((bytes[reader.at++] as number) << 8) | (bytes[reader.at++] as number)) >>> 0;
  return {
    pixelBytes,
    decode: async () => ({
      data: await toRgb(sample, count, channels, toBytes(most, channels, bits)),
      width,
      height,
    }),
  };
}

/** What each value becomes, 0 to 255. */
function toBytes(most: number, channels: number, bits: boolean): Uint8Array {
  const deep = channels === 1 && most > 255;
  // In binary files, samples may be above the greatest value.
  const table = new Uint8Array(most > 255 ? 65_536 : 256);
  for (let value = 0; value < table.length; value++) {
    const scaled = deep
      ? Math.min(65_535, roundHalfEven((value / most) * 65_535)) >> 8
      : roundHalfEven((value / most) * 255);
    table[value] = bits ? 255 * (1 - value) : Math.min(255, scaled);
  }
  return table;
}

async function toRgb(
  sample: () => number,
  count: number,
  channels: number,
  table: Uint8Array,
): Promise<Uint8Array> {
  const data = new Uint8Array(channels === 3 ? count : 3 * count);
  const turns = new Turns();
  for (let from = 0, to = 0; from < count;) {
    for (const end = Math.min(count, from + PIECE); from < end; from++) {
      const value = table[sample()] as number;
      data[to++] = value;
      if (channels === 1) {
        data[to++] = value;
        data[to++] = value;
      }
    }
    await turns.take();
  }
  return data;
}

/** Python's `round`. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** Pixels of a binary bitmap, row by row, each row from a whole byte. */
function bitsOf(bytes: Buffer, start: number, width: number): () => number {
  const stride = Math.ceil(width / 8);
  let [x, row] = [0, start];
  return () => {
    const bit = ((bytes[row + (x >> 3)] as number) >> (7 - (x & 7))) & 1;
    if (++x === width) [x, row] = [0, row + stride];
    return bit;
  };
}

/** Numbers that are written out. */
class Reader {
  constructor(
    readonly bytes: Buffer,
    public at: number,
  ) {}

  /** A number of the header, and the one white space behind it. */
  header(): number {
    const value = this.#number('its header');
    if (WHITESPACE.has(this.bytes[this.at] ?? 0)) this.at++;
    return value;
  }

  /** A sample of a greymap or pixmap. */
  sample(most: number): number {
    const value = this.#number('its pixels');
    if (value > most) throw new Error(`a sample is ${value}, and the greatest value ${most}`);
    return value;
  }

  /** A pixel of a bitmap, with or without white space between them. */
  bit(): number {
    this.#skipGap();
    const byte = this.bytes[this.at++];
    if (byte === undefined) throw truncated();
    if (byte === 0x30 || byte === 0x31) return byte - 0x30;
    throw new Error(`expected 0 or 1 for a pixel, found the byte ${byte}`);
  }

  /** A comment may stand inside a number, and takes its line's end away. */
  #number(where: string): number {
    this.#skipGap();
    let [value, digits] = [0, 0];
    for (; this.at < this.bytes.length;) {
      const byte = this.bytes[this.at] as number;
      if (WHITESPACE.has(byte)) break;
      if (byte === HASH) this.#skipComment();
      else {
        if (byte < 0x30 || byte > 0x39 || ++digits > MAX_DIGITS)
          throw new Error(`expected a number of ${MAX_DIGITS} digits at most in ${where}`);
        value = value * 10 + byte - 0x30;
        this.at++;
      }
    }
    if (digits === 0) throw truncated();
    return value;
  }

  #skipGap(): void {
    const start = this.at;
    for (;;) {
      const byte = this.bytes[this.at] ?? 0;
      if (byte === HASH) this.#skipComment();
      else if (WHITESPACE.has(byte)) this.at++;
      else return;
      if (this.at - start > MAX_GAP) throw new Error(`more than ${MAX_GAP} bytes lie between two numbers`);
    }
  }

  #skipComment(): void {
    const { bytes } = this;
    const end = Math.min(bytes.length, this.at + MAX_GAP);
    while (this.at < end && bytes[this.at] !== LINE_FEED && bytes[this.at] !== CARRIAGE_RETURN) this.at++;
    this.at++;
  }
}

function truncated(): Error {
  return new Error('it is truncated');
}
