/**
 * Collections of V8's young generation, when asked for. V8 itself waits until 16 MB are full, and copies what of them is
 * still needed while the thread stands still: nearly all of it where a file becomes values, up to a tenth of a second.
 * Little is copied where little was made since the last collection. Knows nothing of checkpoints.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options: { type: 'minor' }) => void;

let collect: Collect | undefined;

/** Collects what was made lately. Does nothing on engines that have no such function. */
export function collectYoung(): void {
  collect ??= findCollect();
  collect({ type: 'minor' });
}

/** The function is in contexts that are made under `--expose-gc`, here one that nobody else sees. */
function findCollect(): Collect {
  const find = (): Collect | undefined => runInNewContext('globalThis.gc') as Collect | undefined;
  try {
    const given = find();
    if (given !== undefined) return given;
    setFlagsFromString('--expose-gc');
    try {
      return find() ?? (() => undefined);
    } finally {
      setFlagsFromString('--no-expose-gc');
    }
  } catch {
    return () => undefined;
  }
}
