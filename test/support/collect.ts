/** Collects all garbage now, so that what earlier tests dropped changes no count later. */
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  setFlagsFromString('--no-expose-gc');
  // Finalisers run in a turn of their own, and may let go of more.
  for (let round = 0; round < 3; round++) {
    gc();
    await setImmediate();
  }
}
