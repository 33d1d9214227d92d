/** Endings of the files that decode, where a name must say what a file is: in folders and archives. */
import path from 'node:path';

/** torchvision's, and three more. */
export const IMAGE_ENDINGS: readonly string[] = [
  ...['.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp'],
  ...['.avif', '.gif', '.pbm'],
];

/** The ending of a file's name in lower case, or the words 'no ending'. */
export function endingOf(name: string): string {
  return path.extname(name).toLowerCase() || 'no ending';
}
