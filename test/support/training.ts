/** What the training tests share: a small data set that can be learnt, and small networks for it. */
import { createHash } from 'node:crypto';

import { PixelDataset } from '../../lib/data/dataset';
import { RandomCrop, RandomHorizontalFlip } from '../../lib/data/geometry';
import { DataLoader, type DataLoaderOptions } from '../../lib/data/loader';
import { Random } from '../../lib/data/random';
import { Compose, Normalize, ToTensor } from '../../lib/data/transforms';
import type { Module } from '../../lib/nn/module';

export const CLASSES = ['dark', 'striped', 'bright'];

/** Images of 3 x 8 x 8: noise, and what their class is called. */
export function smallDataset(count: number, seed = 1): PixelDataset {
  const random = new Random(seed);
  const labels = Array.from({ length: count }, (_, index) => index % CLASSES.length);
  const pixels = new Uint8Array(count * 3 * 64);
  for (let at = 0; at < pixels.length; at++) {
    const label = labels[Math.floor(at / (3 * 64))] as number;
    const striped = label === 1 && at % 2 === 0;
    pixels[at] = random.integer(0, 80) + (label === 2 || striped ? 170 : 0);
  }
  return new PixelDataset(pixels, labels, [3, 8, 8], CLASSES);
}

/** Shuffled and augmented. */
export function trainLoader(dataset: PixelDataset, options: Partial<DataLoaderOptions> = {}): DataLoader {
  const transform = new Compose([
    new RandomCrop({ size: 8, padding: 1 }),
    new RandomHorizontalFlip(),
    new ToTensor(),
    new Normalize({ mean: [0.4], std: [0.3] }),
  ]);
  return new DataLoader(dataset, { batchSize: 8, shuffle: true, seed: 7, transform, ...options });
}

export function testLoader(dataset: PixelDataset): DataLoader {
  return new DataLoader(dataset, {
    batchSize: 16,
    transform: new Compose([new ToTensor(), new Normalize({ mean: [0.4], std: [0.3] })]),
  });
}

/** Of all parameters and buffers, bit for bit. */
export function digest(model: Module<unknown>): string {
  const hash = createHash('sha256');
  const state = model.stateDict();
  for (const [name, tensor] of state) {
    const { buffer, byteOffset, byteLength } = tensor.toTypedArray();
    hash.update(name).update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  state.dispose();
  return hash.digest('hex');
}
