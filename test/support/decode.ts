/** An image file decoded at once, as the library decodes it in steps. */
import type { DecodedImage } from '../../lib/vision/encoded-image';
import { openImage } from '../../lib/vision/decode';

export async function decodeImage(...given: Parameters<typeof openImage>): Promise<DecodedImage> {
  return (await openImage(...given)).decode();
}
