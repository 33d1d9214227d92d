/** What is called while a job surely runs, so that jobs submitted meanwhile are surely queued. */
import { isSenetError } from '../../lib/errors';
import { Linear } from '../../lib/nn/layers';
import { rand } from '../../lib/tensor/factories';

/**
 * Calls `act` while a job keeps a worker busy, and awaits its promise. If that job had ended before `act` returned (on a
 * busy machine this thread may stand still for long), all is done again with a longer one, whatever `act` did: it must be
 * able to run more than once.
 */
export async function whileOccupied<T>(act: () => Promise<T>): Promise<T> {
  const layer = new Linear(1000, 1000);
  try {
    for (let rows = 2000; ; rows *= 4) {
      const busy = layer.forward(rand([rows, 1000]));
      const done = (async () => act())(); // at once; what it throws becomes a rejection
      const inTime = isBusy(layer);
      const [outcome] = await Promise.allSettled([done, busy]);
      if (inTime && outcome.status === 'fulfilled') return outcome.value;
      if (inTime && outcome.status === 'rejected') throw outcome.reason;
    }
  } finally {
    layer.dispose();
  }
}

/** Whether a job of the layer is queued or running. */
function isBusy(layer: Linear): boolean {
  try {
    layer.to('float32');
    return false;
  } catch (error) {
    if (isSenetError(error) && error.code === 'ERR_SENET_BUSY') return true;
    throw error;
  }
}
