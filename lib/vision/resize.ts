/**
 * Antialiased resizing, as torchvision's `resize` of an image: of uint8 by the addon, to the bits of Pillow; of floating
 * images, which Pillow has not, by LibTorch, as torchvision's of tensors.
 */
import type { TensorHandle } from '../binding';
import { makeError } from '../errors';
import type { Preprocessing } from '../models/preprocessing-record';
import { binding } from '../native';
import { throwIfAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { callHereOrAsync } from '../tensor/ops';
import { tidy } from '../tensor/scope';
import { handleOf, wrapTensor, type Tensor } from '../tensor/tensor';

/** A rectangle of an image. */
export interface Box {
  top: number;
  left: number;
  height: number;
  width: number;
}

/** Up to so many elements are resized here (a thread does four in a nanosecond), beyond it in a job. */
export const INLINE_RESIZE_ELEMENTS = 2 ** 22;

export interface Resizing {
  readonly size: readonly [height: number, width: number];
  readonly interpolation: Preprocessing['interpolation'];
  /** The part of the result that is wanted: of uint8 no other pixels are made. Default all of it. */
  readonly window?: Box;
}

/**
 * Images resized; they themselves, or a view of them, if they have the size already.
 *
 * @param images - N x C x H x W
 * @throws (rejects) ERR_SENET_ABORTED; ERR_SENET_SHAPE for images without a pixel; ERR_SENET_DEVICE for uint8 that is not on the
 *   CPU; what LibTorch says of integers
 */
export async function resize(
  images: Tensor,
  { size: [height, width], interpolation, window = { top: 0, left: 0, height, width } }: Resizing,
  signal?: AbortSignal,
): Promise<Tensor> {
  throwIfAborted(signal);
  const [count, channels, fromHeight, fromWidth] = images.shape as [number, number, number, number];
  if (fromHeight < 1 || fromWidth < 1) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `resize: expected images of N x C x H x W with pixels, got [${images.shape.join(', ')}]`,
    );
  }
  if (fromHeight === height && fromWidth === width) return cut(images, window);
  const elements = count * channels * Math.max(fromHeight * fromWidth, height * width);
  if (images.dtype !== 'uint8') {
    const call = async (name: string, x: Tensor, ...rest: unknown[]): Promise<Tensor> =>
      (await callHereOrAsync(
        { elements, inline: INLINE_RESIZE_ELEMENTS, signal },
        name,
        x,
        ...rest,
      )) as Tensor;
    const operator = `aten::_upsample_${interpolation}2d_aa`;
    if (images.dtype !== 'float16' && images.dtype !== 'bfloat16')
      return cut(await call(operator, images, [height, width], false, null, null), window);
    // As torchvision: LibTorch has no such kernel for 16 bits.
    return tidy(async () => {
      const wide = await call('aten::to.dtype', images, 'float32');
      const resized = await call(operator, wide, [height, width], false, null, null);
      return cut(await call('aten::to.dtype', resized, images.dtype), window);
    });
  }
  const { top, left } = window;
  const place = [top, left, window.height, window.width] as const;
  const call = [handleOf(images, 'resize'), [height, width], place, interpolation] as const;
  if (elements <= INLINE_RESIZE_ELEMENTS) return wrapTensor(binding.resizeImages(...call));
  return wrapTensor((await runJob(() => binding.resizeImagesAsync(...call), signal)) as TensorHandle);
}

/** The part of every image that a box covers, as a view. */
export function cut(images: Tensor, { top, left, height, width }: Box): Tensor {
  const [, , fullHeight, fullWidth] = images.shape;
  if (top === 0 && left === 0 && height === fullHeight && width === fullWidth) return images;
  return images.slice(2, top, top + height).slice(3, left, left + width);
}
