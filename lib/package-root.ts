/** Where this package lies: the only file that asks for its own place, since the build joins the others into one. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** The folder of this file; of what runs from source `lib`, else `dist`. A bundle of ES modules has no __dirname. */
export const LIBRARY = typeof __dirname === 'string' ? __dirname : '';
/** The folder of `package.json`. */
export const PACKAGE_ROOT = path.join(LIBRARY, '..');
/** Weights, labels and images that are part of the package. */
export const ASSETS = path.join(PACKAGE_ROOT, 'assets');

export function packageVersion(): string {
  const text = readFileSync(path.join(PACKAGE_ROOT, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
