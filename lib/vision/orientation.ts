/**
 * How a picture is turned, by Pillow's rules (Image.getexif): what EXIF says, else XMP. sharp knows EXIF in the places
 * that the formats foresee; XMP, and the text chunks that ImageMagick writes into PNG, are read here. The values 1 to 8
 * are those of EXIF's tag Orientation.
 */
import type { DecodedImage } from './encoded-image';
import { Turns } from './turns';

const TAG = 274;
const [SHORT, LONG] = [3, 4];

/** Of an XMP packet. */
export function xmpOrientation(packet: string | undefined): number | undefined {
  const digit = /tiff:Orientation(?:="|>)([0-9])/.exec(packet ?? '')?.[1];
  return digit === undefined ? undefined : Number(digit);
}

/** Of a TIFF file, or an EXIF block, which is one: what the first directory says. */
export function exifOrientation(block: Buffer): number | undefined {
  const start = block.toString('latin1', 0, 6) === 'Exif\0\0' ? 6 : 0;
  const tiff = block.subarray(start);
  const little = tiff[0] === 0x49;
  const unsigned = (at: number, size: number): number =>
    at + size > tiff.length ? 0 : little ? tiff.readUIntLE(at, size) : tiff.readUIntBE(at, size);
  const big = unsigned(2, 2) === 43;
  // In the large variant, counts and places have 8 bytes, of which 6 can be those of a file.
  const wide = (at: number): number => unsigned(at + (little ? 0 : 2), 6);
  const directory = big ? wide(8) : unsigned(4, 4);
  const entries = Math.min(big ? wide(directory) : unsigned(directory, 2), 65_535);
  for (let index = 0; index < entries; index++) {
    const at = directory + (big ? 8 + 20 * index : 2 + 12 * index);
    if (unsigned(at, 2) !== TAG) continue;
    const type = unsigned(at + 2, 2);
    if (type === SHORT || type === LONG) return unsigned(at + (big ? 12 : 8), type === SHORT ? 2 : 4);
  }
  return undefined;
}

/** Turned upright. */
export async function applyOrientation(image: DecodedImage, orientation: number): Promise<DecodedImage> {
  if (!(orientation >= 2 && orientation <= 8)) return image;
  const { data, width, height } = image;
  const swapped = orientation >= 5;
  const right = [2, 3, 7, 8].includes(orientation) ? -3 : 3;
  const down = [3, 4, 6, 7].includes(orientation) ? -3 * width : 3 * width;
  const origin = (right < 0 ? (width - 1) * 3 : 0) + (down < 0 ? (height - 1) * 3 * width : 0);
  const [stepX, stepY] = swapped ? [down, right] : [right, down];
  const upright = {
    data: new Uint8Array(data.length),
    width: swapped ? height : width,
    height: swapped ? width : height,
  };
  const turns = new Turns();
  let to = 0;
  for (let y = 0; y < upright.height; y++) {
    let from = origin + y * stepY;
    for (let x = 0; x < upright.width; x++, from += stepX) {
      upright.data[to++] = data[from] as number;
      upright.data[to++] = data[from + 1] as number;
      upright.data[to++] = data[from + 2] as number;
    }
    await turns.take();
  }
  return upright;
}
