/** The bundled images that show what the bundled network does, in order. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { ASSETS } from '../package-root';

export async function bundledImages(): Promise<string[]> {
  const folder = path.join(ASSETS, 'images');
  const index = JSON.parse(await readFile(path.join(folder, 'index.json'), 'utf8')) as { file: string }[];
  return index.map(({ file }) => path.join(folder, file));
}
