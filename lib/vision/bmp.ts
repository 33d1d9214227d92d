/**
 * Windows and OS/2 bitmaps (BMP) to RGB pixels. Written against Pillow's BmpImagePlugin and Microsoft's BITMAPV5HEADER;
 * the libraries of the registry read a part of the variants, and do not check what a file claims. Reads 1, 4 and 8 bits
 * with a palette, run-length encoded or not, and 16, 24 and 32 bits with any masks; alpha is dropped, as everywhere here.
 *
 * PARITY: Pillow loses rows that only end and odd counts of 4-bit pixels in run-length data, and misreads 4 bits whose
 * palette is grey: read here as the format means them. A file is untrusted: no size drives an allocation before it was
 * checked against the bytes that are there, or against the limit of pixels.
 */
import type { EncodedImage } from './encoded-image';
import { Turns } from './turns';

interface Header {
  readonly width: number;
  readonly height: number;
  readonly topDown: boolean;
  readonly bits: number;
  readonly compression: number;
  /** Entries of the palette as the file says, and bytes of one. */
  readonly colours: number;
  readonly entry: number;
  /** Where the header ends, its masks included. */
  readonly end: number;
  readonly masks: readonly number[];
}

const HEADERS = [12, 40, 52, 56, 64, 108, 124];
const [RAW, RLE8, RLE4, BITFIELDS] = [0, 1, 2, 3];
/** A row is read in one piece. */
const MAX_WIDTH = 2 ** 20;
/** Run-length commands between two looks at the clock. */
const PIECE = 1024;

/** Whether the bytes begin as a BMP; two letters alone begin many texts. */
export function isBmp(bytes: Buffer): boolean {
  return (
    bytes.length >= 26 && bytes.toString('latin1', 0, 2) === 'BM' && HEADERS.includes(bytes.readUInt32LE(14))
  );
}

/**
 * @param checkSize - throws for an image that is too large
 * @throws (rejects) Error that says what is wrong
 */
// eslint-disable-next-line @typescript-eslint/require-await -- what it throws rejects
export async function openBmp(
  bytes: Buffer,
  checkSize: (width: number, height: number) => void,
): Promise<EncodedImage> {
  const header = readHeader(bytes);
  const { width, height, bits, compression } = header;
  if (width === 0 || height === 0) throw new Error(`it has ${width} x ${height} pixels`);
  checkSize(width, height);
  if (width > MAX_WIDTH) throw new Error(`its rows have ${width} pixels, and ${MAX_WIDTH} at most are read`);
  const paletteEnd = header.end + (bits <= 8 ? header.entry * header.colours : 0);
  const told = bytes.readUInt32LE(10);
  // As Pillow: pixels that begin where the palette does are said by programs that forgot it.
  const start = told === 0 || (told === header.end && bits <= 8) ? paletteEnd : told;
  checkLength(bytes, start, header);
  return {
    pixelBytes: width * height * 3,
    decode: async () => {
      const data = new Uint8Array(width * height * 3);
      if (bits > 8) await unpackColours(bytes, start, header, data);
      else {
        const palette = readPalette(bytes, header);
        const lines = compression === RAW ? rawLines(bytes, start, header) : runLines(bytes, start, header);
        await fillRows(lines, header, palette, data);
      }
      return { data, width, height };
    },
  };
}

function readHeader(bytes: Buffer): Header {
  const size = bytes.readUInt32LE(14);
  if (size === 12) {
    return {
      width: bytes.readUInt16LE(18),
      height: bytes.readUInt16LE(20),
      topDown: false,
      bits: checkBits(bytes.readUInt16LE(24), RAW),
      compression: RAW,
      colours: 1 << Math.min(bytes.readUInt16LE(24), 8),
      entry: 3,
      end: 26,
      masks: [],
    };
  }
  if (bytes.length < 14 + size) throw truncated();
  const rows = bytes.readInt32LE(22);
  const compression = bytes.readUInt32LE(30);
  const bits = checkBits(bytes.readUInt16LE(28), compression);
  const withMasks = compression === BITFIELDS;
  // The shortest header has them behind it, the others inside.
  const end = 14 + size + (withMasks && size === 40 ? 12 : 0);
  if (bytes.length <= end) throw truncated(); // nothing of a pixel
  const masks = withMasks ? [54, 58, 62].map((at) => bytes.readUInt32LE(at)) : [];
  const colours = bytes.readUInt32LE(46) || 1 << Math.min(bits, 8);
  if (bits <= 8 && colours > 65_536) throw new Error(`it has a palette of ${colours} colours`);
  return {
    width: bytes.readInt32LE(18) >>> 0,
    height: Math.abs(rows),
    topDown: rows < 0,
    bits,
    compression,
    colours,
    entry: 4,
    end,
    masks,
  };
}

function checkBits(bits: number, compression: number): number {
  const fitting: Readonly<Record<number, readonly number[]>> = {
    [RAW]: [1, 4, 8, 16, 24, 32],
    [RLE8]: [8],
    [RLE4]: [4],
    [BITFIELDS]: [16, 24, 32],
  };
  if (fitting[compression]?.includes(bits) === true) return bits;
  throw new Error(`${bits} bits with compression ${compression} are not supported`);
}

function strideOf({ width, bits }: Header): number {
  return Math.ceil((width * bits) / 32) * 4;
}

/** Pixels that are not run-length encoded must be there; only the last row may lack its padding. */
function checkLength(bytes: Buffer, start: number, header: Header): void {
  const { width, height, bits, compression } = header;
  const encoded = compression === RLE4 || compression === RLE8;
  const pixels = encoded ? 1 : (height - 1) * strideOf(header) + Math.ceil((width * bits) / 8);
  if (start + pixels > bytes.length) throw truncated();
}

/** RGB of each index. Those beyond the file's table are black, as in Pillow. */
function readPalette(bytes: Buffer, { colours, entry, end }: Header): Uint8Array {
  const palette = new Uint8Array(3 * 256);
  for (let index = 0; index < Math.min(colours, 256); index++) {
    const at = end + index * entry;
    if (at + 3 > bytes.length) break;
    palette.set([bytes[at + 2] as number, bytes[at + 1] as number, bytes[at] as number], 3 * index);
  }
  return palette;
}

/** Indices of one row after the other, in the order of the file. */
function* rawLines(bytes: Buffer, start: number, header: Header): Generator<Uint8Array> {
  const { width, height, bits } = header;
  const perByte = 8 / bits;
  const mask = (1 << bits) - 1;
  const line = new Uint8Array(width);
  for (let row = 0; row < height; row++) {
    const at = start + row * strideOf(header);
    for (let x = 0; x < width; x++) {
      const byte = bytes[at + Math.trunc(x / perByte)] as number;
      line[x] = (byte >> (8 - bits * (1 + (x % perByte)))) & mask;
    }
    yield line;
  }
}

/** The same of run-length encoded rows. What a file leaves out has the index 0. Null: no row yet. */
function* runLines(bytes: Buffer, start: number, header: Header): Generator<Uint8Array | null> {
  const { width, height, compression } = header;
  const nibbles = compression === RLE4;
  let line = new Uint8Array(width);
  let [x, row, at, commands] = [0, 0, start, 0];
  const next = (): number => {
    if (at >= bytes.length) throw truncated();
    return bytes[at++] as number;
  };
  const put = (index: number): void => {
    if (x < width) line[x] = index;
    x++;
  };
  /** Ends rows up to this one. */
  function* advance(to: number): Generator<Uint8Array> {
    for (; row < Math.min(to, height); row++) {
      yield line;
      line = new Uint8Array(width);
    }
  }
  while (row < height) {
    if (++commands % PIECE === 0) yield null;
    // The last pixel may end the file, without a mark.
    if (row === height - 1 && x >= width && at + 2 > bytes.length) break;
    const [count, value] = [next(), next()];
    if (count > 0) {
      for (let i = 0; i < count; i++) put(nibbles ? (i % 2 === 0 ? value >> 4 : value & 15) : value);
    } else if (value === 0) {
      yield* advance(row + 1);
      x = 0;
    } else if (value === 1) break;
    else if (value === 2) {
      const [right, up] = [next(), next()];
      x += right;
      yield* advance(row + up);
    } else {
      const length = nibbles ? Math.ceil(value / 2) : value;
      for (let i = 0; i < value; i++) {
        const byte = nibbles && i % 2 === 1 ? (bytes[at - 1] as number) : next();
        put(nibbles ? (i % 2 === 0 ? byte >> 4 : byte & 15) : byte);
      }
      at += length % 2; // to a whole word
    }
  }
  yield* advance(height);
}

async function fillRows(
  lines: Iterable<Uint8Array | null>,
  { width, height, topDown }: Header,
  palette: Uint8Array,
  data: Uint8Array,
): Promise<void> {
  const turns = new Turns();
  let row = 0;
  for (const line of lines) {
    await turns.take();
    if (line === null) continue;
    let to = (topDown ? row : height - 1 - row) * width * 3;
    for (let x = 0; x < width; x++) {
      const from = 3 * (line[x] as number);
      data[to++] = palette[from] as number;
      data[to++] = palette[from + 1] as number;
      data[to++] = palette[from + 2] as number;
    }
    row++;
  }
}

/** The masks of red, green and blue where the file has none, or none but zeros. */
const USUAL_MASKS: Readonly<Record<number, readonly number[]>> = {
  16: [0x7c00, 0x3e0, 0x1f],
  24: [0xff0000, 0xff00, 0xff],
  32: [0xff0000, 0xff00, 0xff],
};

async function unpackColours(bytes: Buffer, start: number, header: Header, data: Uint8Array): Promise<void> {
  const { width, height, topDown, bits } = header;
  const size = bits / 8;
  const masks = header.masks.some((mask) => mask !== 0) ? header.masks : (USUAL_MASKS[bits] ?? []);
  const channels = masks.map((mask) => {
    const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask);
    const most = mask >>> shift;
    if ((most & (most + 1)) !== 0) throw new Error(`the mask ${mask.toString(16)} has gaps`);
    return { mask, shift, most: most || 1 };
  });
  // Nearly always, each channel is a byte.
  const places = channels.flatMap(({ most, shift }) => (most === 255 && shift % 8 === 0 ? [shift / 8] : []));
  const turns = new Turns();
  for (let row = 0; row < height; row++) {
    let at = start + row * strideOf(header);
    let to = (topDown ? row : height - 1 - row) * width * 3;
    if (places.length === 3) {
      const [red, green, blue] = places as [number, number, number];
      for (let x = 0; x < width; x++, at += size) {
        data[to++] = bytes[at + red] as number;
        data[to++] = bytes[at + green] as number;
        data[to++] = bytes[at + blue] as number;
      }
    } else {
      for (let x = 0; x < width; x++, at += size) {
        const pixel = bytes.readUIntLE(at, size);
        for (const { mask, shift, most } of channels)
          data[to++] = Math.trunc((((pixel & mask) >>> shift) * 255) / most);
      }
    }
    await turns.take();
  }
}

function truncated(): Error {
  return new Error('it is truncated');
}
