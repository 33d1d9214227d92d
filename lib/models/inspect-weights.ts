/** `inspectCheckpoint` of the public surface: what is in a file, and which network of the library it is for. */
import {
  inspectCheckpoint as inspect,
  type CheckpointReport,
  type InspectOptions,
} from '../checkpoint/inspect';
import type { WeightsNetwork } from './identify';
import { networkOf } from './registry';

/** What is in a checkpoint. */
export interface InspectedCheckpoint extends CheckpointReport {
  /** The network that its state dict is for, by keys and shapes; null if it is of none that the library has. */
  readonly network: WeightsNetwork | null;
}

/**
 * Describes a checkpoint.
 * @param source - a path, or the bytes of a file
 * @throws (rejects) as `load`
 */
export async function inspectCheckpoint(
  source: string | Uint8Array,
  options?: InspectOptions,
): Promise<InspectedCheckpoint> {
  const report = await inspect(source, options);
  return { ...report, network: await networkOf(report, typeof source === 'string' ? source : null) };
}
