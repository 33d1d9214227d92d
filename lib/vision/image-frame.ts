/**
 * What the first bytes of a JPEG or PNG say of its size, without a decoder: enough to plan what becomes of the image, and
 * what memory that takes. (ITU T.81, annex B; PNG specification, section 11.2.2.) An odd file has no frame here.
 */

export interface Frame {
  readonly width: number;
  readonly height: number;
  /** Bytes of the whole image that a decoder holds before it gives the first row; 0 where rows come one by one. */
  readonly wholeBytes: number;
}

/** More segments in front of the image data are a file that wants to keep its reader busy. */
const MAX_SEGMENTS = 1000;
/** Markers of JPEG: segments with a frame are SOF0 to SOF15, but for those that are none. */
const [SOF0, SOF2, SOF15, START_OF_SCAN] = [0xc0, 0xc2, 0xcf, 0xda];
const NO_FRAMES: readonly number[] = [0xc4, 0xc8, 0xcc];
/** Markers without a segment: restarts, the image's start and end, and one of arithmetic coding. */
const isBare = (marker: number): boolean => (marker >= 0xd0 && marker <= 0xd9) || marker === 0x01;

/** Of colours that are read row by row elsewhere: three components or one. */
export function jpegFrame(bytes: Buffer): Frame | undefined {
  let frame: (Frame & { progressive: boolean; components: number }) | undefined;
  let at = 2;
  for (let count = 0; count < MAX_SEGMENTS && at + 4 <= bytes.length; count++) {
    const marker = bytes[at + 1] as number;
    const length = bytes.readUInt16BE(at + 2);
    const data = bytes.subarray(at + 4, at + 2 + length);
    if (bytes[at] !== 0xff || marker === 0xff || isBare(marker) || length < 2) return undefined;
    if (marker === START_OF_SCAN) {
      if (frame === undefined || data.length === 0) return undefined;
      const { width, height, wholeBytes, progressive, components } = frame;
      // All coefficients are kept where a pixel's components do not come together.
      const rowByRow = !progressive && data[0] === components;
      return { width, height, wholeBytes: rowByRow ? 0 : wholeBytes };
    }
    if (marker >= SOF0 && marker <= SOF15 && !NO_FRAMES.includes(marker)) {
      if (frame !== undefined) return undefined;
      const components = data[5] ?? 0;
      if (![1, 3].includes(components) || data.length < 6 + 3 * components) return undefined;
      const [height, width] = [data.readUInt16BE(1), data.readUInt16BE(3)];
      frame = {
        ...{ width, height, components, progressive: marker === SOF2 },
        wholeBytes: 2 * width * height * samplesOf(data, components),
      };
    }
    at += 2 + length;
  }
  return undefined;
}

/** Samples of a pixel, on average: components may have fewer than a pixel each. */
function samplesOf(segment: Buffer, components: number): number {
  let [sum, most] = [0, 1];
  for (let component = 0; component < components; component++) {
    const factors = segment[7 + 3 * component] as number;
    const blocks = (factors >> 4) * (factors & 15);
    sum += blocks;
    most = Math.max(most, blocks);
  }
  return components === 1 ? 1 : sum / most;
}

/** Bytes of a pixel at most, of 8 bits. */
const PNG_PIXEL = 4;

export function pngFrame(bytes: Buffer): Frame | undefined {
  if (bytes.length < 33 || bytes.toString('latin1', 12, 16) !== 'IHDR') return undefined;
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const [bits, interlaced] = [bytes[24] as number, bytes[28] !== 0];
  if (bits > 8) return undefined; // its low bytes are left out elsewhere
  return { width, height, wholeBytes: interlaced ? width * height * PNG_PIXEL : 0 };
}
