/**
 * The published weights by model and name: where the file is, and the labels and preprocessing where the file itself
 * does not carry them. New weights are one entry here.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';

import type { ModelName } from '../models/registry';
import { SE_RESNET50_URL } from '../models/se-resnet';
import { IMAGENET, type Preprocessing } from './preprocessing';

const ASSETS = path.join(__dirname, '..', '..', 'assets');

export interface PublishedWeights {
  readonly model: ModelName;
  readonly name: string;
  /** A file of the package, or a URL that is downloaded once. */
  readonly location: { readonly bundled: string } | { readonly url: string };
  /** Undefined where the file's metadata says it. */
  readonly labelsFile?: string;
  readonly preprocessing?: Preprocessing;
}

export const PUBLISHED_WEIGHTS: readonly PublishedWeights[] = [
  {
    model: 'se_resnet20',
    name: 'fashion_mnist',
    location: { bundled: path.join(ASSETS, 'weights', 'se_resnet20_fashion_mnist.safetensors') },
  },
  {
    model: 'se_resnet50',
    name: 'imagenet',
    location: { url: SE_RESNET50_URL },
    labelsFile: path.join(ASSETS, 'labels', 'imagenet.json'),
    preprocessing: IMAGENET,
  },
];

/** The bundled images that show what the bundled network does, in order. */
export async function bundledImages(): Promise<string[]> {
  const folder = path.join(ASSETS, 'images');
  const index = JSON.parse(await readFile(path.join(folder, 'index.json'), 'utf8')) as { file: string }[];
  return index.map(({ file }) => path.join(folder, file));
}
