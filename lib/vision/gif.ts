/**
 * The first frame of a GIF as Pillow sees it (GIF89a, sections 18 to 26), where that is not what sharp makes of it:
 * transparent pixels keep the palette's colour, and around a frame that is smaller than the screen lies the transparent
 * colour, else the palette's first, whatever the file calls background; and without any palette the pixels are greys.
 */
import type { DecodedImage } from './encoded-image';

/** Where the first frame lies on the screen, and what is around it. */
export interface GifFrame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  readonly around: readonly [red: number, green: number, blue: number];
}

/** As many greys as there are pixels' values. */
const GREYS = Buffer.from(Array.from({ length: 3 * 256 }, (_, i) => Math.floor(i / 3)));

/** The file as it is to be decoded, and where its first frame lies; undefined if it has none. May change `bytes`. */
export function prepareGif(bytes: Buffer): { readonly bytes: Buffer; readonly frame: GifFrame | undefined } {
  const frame = readFrame(bytes);
  if (frame?.hasPalette !== false) return { bytes, frame };
  const screen = Buffer.from(bytes.subarray(0, SCREEN_END));
  screen[10] = byteOf(screen, 10) | 0x87;
  return { bytes: Buffer.concat([screen, GREYS, bytes.subarray(SCREEN_END)]), frame };
}

/** The bytes in front of the global palette. */
const SCREEN_END = 13;

function byteOf(bytes: Buffer, at: number): number {
  return bytes[at] ?? 0;
}

/** Also clears the flag of transparency, in place. */
function readFrame(bytes: Buffer): (GifFrame & { readonly hasPalette: boolean }) | undefined {
  const byte = (at: number): number => byteOf(bytes, at);
  const word = (at: number): number => byte(at) | (byte(at + 1) << 8);
  const tableLength = (flags: number): number => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  const global = tableLength(byte(10));
  let at = SCREEN_END + global;
  let colour = 0;
  while (byte(at) === 0x21) {
    if (byte(at + 1) === 0xf9 && at + 6 < bytes.length) {
      if (byte(at + 3) & 1) colour = byte(at + 6);
      bytes[at + 3] = byte(at + 3) & ~1;
    }
    at += 2;
    while (byte(at) > 0) at += 1 + byte(at);
    at += 1;
  }
  if (byte(at) !== 0x2c) return undefined;
  const local = tableLength(byte(at + 9));
  const [table, length] = local > 0 ? [at + 10, local] : [SCREEN_END, global];
  const known = 3 * colour < length;
  const hasPalette = length > 0;
  const around = [0, 1, 2].map((channel) => {
    if (!hasPalette) return colour;
    return known ? byte(table + 3 * colour + channel) : 0;
  });
  return {
    hasPalette,
    left: word(at + 1),
    top: word(at + 3),
    width: word(at + 5),
    height: word(at + 7),
    around: around as [number, number, number],
  };
}

/** Fills what the frame leaves of its screen. */
export function fillAround({ data, width, height }: DecodedImage, frame: GifFrame): void {
  const right = frame.left + frame.width;
  const bottom = frame.top + frame.height;
  const fill = (row: number, from: number, to: number): void => {
    for (let at = 3 * (row * width + from); at < 3 * (row * width + to); at += 3) data.set(frame.around, at);
  };
  for (let row = 0; row < height; row++) {
    if (row < frame.top || row >= bottom) fill(row, 0, width);
    else {
      fill(row, 0, Math.min(frame.left, width));
      fill(row, right, width);
    }
  }
}
