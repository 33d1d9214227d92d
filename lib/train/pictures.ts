/** A network's input as a picture that a person recognises: the normalisation undone, as a PNG in a `data:` address. */
import { loadDecoder } from '../vision/decode';
import type { Preprocessing } from '../models/preprocessing-record';

/** Longer sides are scaled down, to keep a page with many pictures small. */
const MAX_SIDE = 160;

export interface InputImage {
  /** Channels x height x width, row-major. */
  readonly values: Float32Array;
  readonly height: number;
  readonly width: number;
}

/**
 * @param image - one channel or three, as the network got them
 * @param preprocessing - whose mean and std were applied
 */
export async function pictureOf(
  { values, height, width }: InputImage,
  { mean, std }: Pick<Preprocessing, 'mean' | 'std'>,
): Promise<string> {
  const plane = height * width;
  const channels = values.length === plane ? 1 : 3;
  const pixels = Buffer.alloc(channels * plane);
  for (let channel = 0; channel < channels; channel++) {
    const scale = (std[channel] ?? std[0] ?? 1) * 255;
    const shift = (mean[channel] ?? mean[0] ?? 0) * 255;
    for (let at = 0; at < plane; at++) {
      const value = (values[channel * plane + at] ?? 0) * scale + shift;
      pixels[channels * at + channel] = Math.max(0, Math.min(255, Math.round(value)));
    }
  }
  const sharp = await loadDecoder();
  const image = sharp(pixels, { raw: { width, height, channels } });
  if (Math.max(height, width) > MAX_SIDE) image.resize({ width: MAX_SIDE, height: MAX_SIDE, fit: 'inside' });
  const png = await image.png({ compressionLevel: 9 }).toBuffer();
  return `data:image/png;base64,${png.toString('base64')}`;
}
