/**
 * StateDict: tensors under the names of parameters and buffers, in order, with what PyTorch keeps beside them. Must not
 * know modules or files.
 */
import { isMap } from '../brands';
import { makeError } from '../errors';
import { describe } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';

/** What PyTorch records about one module; `version` tells how its parameters are to be read. */
export interface ModuleMetadata {
  readonly version?: number;
  readonly [name: string]: unknown;
}

/** Where in its file a state dict was, and what was done to its names. */
export interface StateDictSource {
  /** Names of the dictionaries around it, joined by dots; '' if it is the whole file. */
  readonly key: string;
  /** What was taken away from the beginning of each name. */
  readonly prefix: string;
  /** Entries of that dictionary that were left out: without the prefix, or no tensors. */
  readonly dropped: readonly string[];
  /** Where the file has other state dicts, such as a moving average. */
  readonly others: readonly string[];
}

/**
 * A state dict: a Map in the order of the module or file. Made by `module.stateDict()` and `load`.
 * Tensors may share memory with a module or with each other, as in PyTorch.
 */
export class StateDict extends Map<string, Tensor> {
  /**
   * @param entries - names and tensors
   * @param metadata - PyTorch's `_metadata`: by module path, '' for the root. Empty where the file has none.
   * @param fileMetadata - `__metadata__` of a safetensors file: text by name. `save` writes it back to safetensors.
   * @param source - where in a file it was found; null if it is of no file
   */
  constructor(
    entries: Iterable<readonly [string, Tensor]> = [],
    readonly metadata: Map<string, ModuleMetadata> = new Map(),
    readonly fileMetadata: Map<string, string> = new Map(),
    readonly source: StateDictSource | null = null,
  ) {
    super(entries);
  }

  /** Disposes every tensor; modules that adopted them (`assign: true`) keep theirs. */
  dispose(): void {
    for (const tensor of this.values()) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Removes a prefix such as `module.` (DataParallel) or `_orig_mod.` (torch.compile) from the names in place, where they
 * have it, and renames the metadata with them. As `torch.nn.modules.utils.consume_prefix_in_state_dict_if_present`.
 * @throws ERR_SENET_ARG_TYPE
 */
export function consumePrefixInStateDictIfPresent(
  stateDict: StateDict | Map<string, Tensor>,
  prefix: string,
): void {
  const where = 'consumePrefixInStateDictIfPresent';
  if (!isMap(stateDict)) {
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a StateDict, got ${describe(stateDict)}`);
  }
  if (typeof prefix !== 'string') {
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a prefix, got ${describe(prefix)}`);
  }
  const rename = <T>(map: Map<string, T>, key: string): void => {
    const value = map.get(key) as T;
    map.delete(key);
    map.set(key.slice(prefix.length), value);
  };
  if (prefix === '') return;
  for (const key of [...stateDict.keys()]) {
    if (key.startsWith(prefix)) rename(stateDict, key);
  }
  if (!(stateDict instanceof StateDict)) return;
  // '' is the wrapper itself, 'module' the wrapped module, 'module.layer1' one inside it.
  for (const key of [...stateDict.metadata.keys()]) {
    if (key !== '' && (key === prefix.replaceAll('.', '') || key.startsWith(prefix)))
      rename(stateDict.metadata, key);
  }
}
