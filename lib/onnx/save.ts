/** The public `save`: weights in the formats of `checkpoint/save`, and a network as ONNX. */
import { saveWeights, type HasStateDict, type SaveOptions as WeightsOptions } from '../checkpoint/save';
import type { StateDict } from '../checkpoint/state-dict';
import { Module } from '../nn/module';
import type { Tensor } from '../tensor/tensor';
import { isOnnxPath, saveOnnx, type OnnxOptions } from './save-onnx';

/**
 * Saves a state dict, or a module's, or what a module computes. The extension chooses the format:
 *
 * - `.safetensors`; or `.pt`, `.pth`, `.pkl`, `.bin` for PyTorch's zip container: weights. A `.pt` keeps shared storages,
 *   strides and `_metadata`; safetensors, as in Python, refuses tensors that share memory and orders them by element type
 *   and name. Tensors on other devices are saved as CPU tensors. Do not change the tensors until the promise settles.
 * - `.onnx`: a module's forward in evaluation mode with its weights as they are at the call, for images of any number, and
 *   of any size that the module takes: all that `compile()` takes. The module may be in training mode, and changed or
 *   disposed afterwards; of the dtype 'int8' not until the promise settles.
 *
 * @param target - a StateDict, a Map of Tensors, or a Module
 * @param file - path of the file; an existing one is replaced at the end
 * @throws (rejects) ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (unknown extension, shared memory in safetensors),
 *   ERR_SENET_UNKNOWN_OPTION, ERR_SENET_DISPOSED, ERR_SENET_FILE_NOT_FOUND (no such folder), ERR_SENET_FILE; of `.onnx` also
 *   ERR_SENET_EXPORT (with the layer that ONNX has no operation for, a weight that float16 cannot hold, more than 2 GB),
 *   ERR_SENET_LABELS, ERR_SENET_ARG_MISSING, ERR_SENET_ABORTED, and as `compile`
 */
export function save(
  target: Module<unknown>,
  file: string,
  options?: WeightsOptions | OnnxOptions,
): Promise<void>;
export function save(
  target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict,
  file: string,
  options?: WeightsOptions,
): Promise<void>;
export async function save(
  target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict,
  file: string,
  options?: WeightsOptions | OnnxOptions,
): Promise<void> {
  if (isOnnxPath(file)) {
    await saveOnnx(target, file, options);
    return;
  }
  // What a module makes of itself here is nobody's afterwards; the state dict of anything else may be its own.
  if (!Module.isModule(target) || target.stateDict !== Module.prototype.stateDict)
    return saveWeights(target, file, options);
  const state = target.stateDict();
  try {
    await saveWeights(state, file, options);
  } finally {
    state.dispose();
  }
}
