/** Batches as a loader gives them, checked, and together those that one optimiser step learns from. */
import type { Batch } from '../data/loader';
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import { Tensor } from '../tensor/tensor';

/** What one optimiser step learns from. */
export interface BatchGroup {
  readonly batches: readonly Batch[];
  /** The loader's state after these batches. */
  readonly loader: unknown;
}

/**
 * Groups of so many batches, the last of those that are left. What is not given out is disposed.
 *
 * @param where - what an error calls the step that the group is for
 */
export async function* inGroups(
  loader: AsyncIterable<Batch> & { stateDict(): unknown },
  size: number,
  where: () => string,
): AsyncGenerator<BatchGroup> {
  let group: Batch[] = [];
  let state: unknown;
  try {
    for await (const batch of loader) {
      group.push(checkBatch(batch, where()));
      // At its end, which is looked for before a group that is not full is given out, a loader goes on to the next epoch.
      state = loader.stateDict();
      if (group.length < size) continue;
      const full = group;
      group = [];
      yield { batches: full, loader: state };
    }
    const rest = group;
    group = [];
    if (rest.length > 0) yield { batches: rest, loader: state };
  } finally {
    disposeBatches(group);
  }
}

export function disposeBatches(batches: readonly Batch[]): void {
  for (const { images, labels } of batches) {
    images.dispose();
    labels.dispose();
  }
}

function checkBatch(batch: unknown, where: string): Batch {
  const { images, labels, indices } = (batch ?? {}) as Partial<Batch>;
  if (Tensor.isTensor(images) && Tensor.isTensor(labels) && (indices === undefined || Array.isArray(indices)))
    return { images, labels, indices: indices ?? [] };
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${where}: expected a batch { images, labels, indices } from the loader, got ${describe(batch)}`,
  );
}
