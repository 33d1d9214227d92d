/**
 * Weights of int8 in a file: each beside the scales of its output channels, `NAME_scale`, where the metadata says so.
 * `load` gives them as float32, whose products are exact, so that every network takes them; what the bytes of activations
 * mean stays in the metadata, for `compile`.
 */
import { setImmediate as turn } from 'node:timers/promises';

import { makeError } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { StateDict } from './state-dict';

/** Of a safetensors file: what the bytes of a compiled model mean, as JSON. */
export const QUANTIZATION = 'quantization';

const SCALE = '_scale';

/**
 * The state dict with float32 in place of int8; itself, where its file has no such weights.
 *
 * @throws (rejects) ERR_SENET_CHECKPOINT_FORMAT for scales that do not fit
 */
export async function dequantize(state: StateDict, label: string): Promise<StateDict> {
  if (!state.fileMetadata.has(QUANTIZATION)) return state;
  const entries: [string, Tensor][] = [];
  for (const [name, tensor] of state) {
    if (name.endsWith(SCALE) && state.get(name.slice(0, -SCALE.length))?.dtype === 'int8') continue;
    const scale = state.get(name + SCALE);
    if (tensor.dtype !== 'int8' || scale === undefined) {
      entries.push([name, tensor]);
      continue;
    }
    if (scale.dtype !== 'float32' || scale.shape.length !== 1 || scale.shape[0] !== tensor.shape[0]) {
      throw makeError(
        'ERR_SENET_CHECKPOINT_FORMAT',
        `${label}: '${name}${SCALE}': expected float32 of the shape [${tensor.shape[0] ?? 0}], got ${scale.dtype} of [${scale.shape.join(', ')}]`,
      );
    }
    // A few milliseconds each: the loop turns in between.
    await turn();
    const whole = tensor.to('float32');
    const broadcast = scale.reshape([-1, ...tensor.shape.slice(1).map(() => 1)]);
    entries.push([name, whole.mul(broadcast)]);
    for (const done of [whole, broadcast, tensor, scale]) done.dispose();
  }
  return new StateDict(entries, state.metadata, state.fileMetadata, state.source);
}
