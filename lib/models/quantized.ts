/** `loadCompiled`: a compiled model of int8 from the file that `CompiledModel.save` or `quantizeWeights` wrote. */
import { makeError } from '../errors';
import { quantizationIn } from '../nn/calibration';
import type { CompiledModel } from '../nn/compiled-model';
import { printable } from '../printable';
import { throwIfAborted } from '../tensor/abort';
import { checkString } from '../tensor/options';
import { optional, readOptions, signal, string } from '../tensor/rules';
import { createWithWeights } from './from-weights';
import { openPlace, type ModelName } from './registry';

export interface LoadCompiledOptions {
  /** The network that the file is of. Default: what its metadata, or its keys and shapes, say. */
  model?: ModelName;
  signal?: AbortSignal;
}

const WHERE = 'loadCompiled';
const RULES = { model: optional(string), signal };

/**
 * A compiled model of int8, ready to run: no image is needed. It computes the bits of the one that was saved, on every
 * processor.
 *
 * @throws (rejects) ERR_SENET_CALIBRATION for weights that were not quantised; ERR_SENET_UNKNOWN_WEIGHTS,
 *   ERR_SENET_UNKNOWN_MODEL, ERR_SENET_STATE_DICT, ERR_SENET_CHECKPOINT_FORMAT and as `load`; ERR_SENET_ABORTED
 */
export async function loadCompiled(file: string, options?: LoadCompiledOptions): Promise<CompiledModel> {
  const { model, signal: abort } = readOptions(options, RULES, WHERE);
  checkString(file, `${WHERE}: file`);
  throwIfAborted(abort);
  const opened = await openPlace(file, model, { progress: false, signal: abort }, WHERE);
  try {
    const label = printable(file, 1000);
    const calibration = quantizationIn(opened.state.fileMetadata, label);
    if (calibration === undefined)
      throw makeError('ERR_SENET_CALIBRATION', `${WHERE}: ${label}: the weights were not quantised to int8`);
    const network = createWithWeights(opened);
    try {
      return await network.compile({
        ...{ dtype: 'int8', calibration },
        ...(abort === undefined ? {} : { signal: abort }),
      });
    } finally {
      network.dispose();
    }
  } finally {
    opened.state.dispose();
  }
}
