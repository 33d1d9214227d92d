/**
 * The pipeline of a classifier: which images are decoded at the same time and which go through the network together, and
 * what becomes of a batch. What is done for one image is `image-work`'s, which goes when is `pipeline`'s.
 */
import { binding } from '../native';
import { callHereOrAsync } from '../tensor/ops';
import { integer, orElse, type Rules } from '../tensor/rules';
import { detached, tidy } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { classifierPixels } from './byte-budget';
import type { ImageWork } from './image-work';
import { Pipeline } from './pipeline';
import { INLINE_ELEMENTS } from './preprocessing';
import { nanError, type Classification, type Prediction, type Wanted } from './ranking';

export interface BatchingOptions {
  /** Images that go through the network together, 1 to 1,024. Default 16. */
  maxBatch?: number;
  /**
   * Milliseconds that an image waits for company while the network is free, 0 to 60,000. Default 0: it starts in the
   * same turn of the event loop.
   */
  delay?: number;
  /**
   * Images that may be accepted and not yet answered, 1 to 1,000,000. Default 1,024. Beyond it `classify` rejects with
   * ERR_SENET_QUEUE_FULL, before it reads anything. A server gives as many as it answers in the time that its callers
   * wait. An array counts as at most two batches, since it takes its images up one after the other.
   */
  maxQueue?: number;
}

/** Longest `delay`, in milliseconds. */
const MAX_DELAY = 60_000;
export const BATCHING = {
  maxBatch: orElse(16, integer(1, 1024)),
  delay: orElse(0, integer(0, MAX_DELAY)),
  maxQueue: orElse(1024, integer(1, 1_000_000)),
} satisfies Rules<BatchingOptions>;

/** What `wanted` says of each image of a batch; null where its scores are NaN. */
export type ClassifyInput = (
  input: Tensor,
  wanted: readonly Wanted[],
) => Promise<readonly (Classification[] | Prediction | null)[]>;

/** @param deviceLanes - batches that a device computes at once; 0: as many run as the executor has workers */
export function imagePipeline(
  batching: Required<BatchingOptions>,
  deviceLanes: number,
  classify: ClassifyInput,
): Pipeline<ImageWork, Classification[] | Prediction> {
  return new Pipeline({
    ...batching,
    // A processor is busy with one while the next comes.
    decoders: binding.configuration().availableThreads + 1,
    budget: classifierPixels,
    lanes: () => deviceLanes || binding.configuration().workers,
    run: (works) => detached(null, () => tidy(() => runBatch(works, classify))),
  });
}

/** Inputs of one shape and dtype. */
async function runBatch(
  works: readonly ImageWork[],
  classify: ClassifyInput,
): Promise<(Classification[] | Prediction | Error)[]> {
  const inputs = works.map(({ input }) => input);
  const elements = inputs.reduce((sum, input) => sum + input.numel, 0);
  const batch =
    inputs.length === 1
      ? (inputs[0] as Tensor)
      : ((await callHereOrAsync({ elements, inline: INLINE_ELEMENTS }, 'aten::cat', inputs, 0)) as Tensor);
  const results = await classify(
    batch,
    works.map(({ wanted }) => wanted),
  );
  return results.map((result) => result ?? nanError('classify: image'));
}
