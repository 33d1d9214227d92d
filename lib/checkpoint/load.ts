/**
 * `load` and `loadCheckpoint`: parse a checkpoint, then let the executor read the checked ranges. The only file of this
 * folder that turns records into tensors.
 */
import { binding } from '../native';
import { isSet, isUint8Array } from '../brands';
import type { TensorHandle } from '../binding';
import { abortError, untilAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { checkBoolean, checkBuffer, checkOptions, checkSignal } from '../tensor/options';
import { wrapTensor, type Tensor } from '../tensor/tensor';
import {
  explainNoStateDict,
  findStateDict,
  isStateDict,
  parseCheckpoint,
  type ParsedCheckpoint,
} from './parse';
import { checkpointError } from './problems';
import { withSource, type ByteSource } from './source';
import { StateDict, type ModuleMetadata } from './state-dict';
import { TensorRecord, planRead } from './tensor-record';
import { Complex, Dict, GlobalName, Tuple, type Value } from './values';

export interface LoadOptions {
  /**
   * Map the file instead of reading it. Default false: if another process truncates a mapped file, this process dies
   * with SIGBUS. What is not aligned to its elements (most of a legacy file) is read in any case.
   */
  mmap?: boolean;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/**
 * Loads a state dict: a file of `torch.save` (zip or legacy container) or safetensors, told apart by content. A state
 * dict that sits under `state_dict`, `model_state_dict`, `model`, `net` or `weight` is found there. Nothing in the file
 * is executed; tensors keep their dtypes, strides and shared storages and come to the CPU wherever they were saved.
 *
 * @param source - a path, or the bytes of a file
 * @throws (rejects) ERR_SENET_CHECKPOINT_FORMAT, _UNSAFE, _UNSUPPORTED, _LIMIT; ERR_SENET_FILE_NOT_FOUND,
 *   ERR_SENET_FILE, ERR_SENET_FILE_CHANGED; ERR_SENET_BUFFER, ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION;
 *   ERR_SENET_ABORTED
 */
export async function load(source: string | Uint8Array, options?: LoadOptions): Promise<StateDict> {
  return readWith(source, options, 'load', (parsed, opened) => {
    const found = findStateDict(parsed.value);
    if (!found) {
      const message = `expected a state dict, and ${explainNoStateDict(parsed.value)}; loadCheckpoint reads the whole file`;
      throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', opened.label, message);
    }
    const records = new Set([...found.dict.values()] as TensorRecord[]);
    return { records: [...records], finish: (tensorOf) => toStateDict(found.dict, parsed, tensorOf) };
  });
}

/**
 * Loads everything a checkpoint holds (epoch, optimiser, ...) as inert values: a dictionary becomes a Map, and a
 * StateDict where it holds only tensors; lists and tuples arrays; int a number, or a bigint beyond 2**53; bytes a
 * Uint8Array; a set a Set; complex `{ real, imaginary }`; None null; devices and dtypes their names.
 *
 * @throws (rejects) as `load`
 */
export async function loadCheckpoint(source: string | Uint8Array, options?: LoadOptions): Promise<unknown> {
  return readWith(source, options, 'loadCheckpoint', (parsed) => ({
    records: parsed.tensors,
    finish: (tensorOf) => toPlain(parsed, tensorOf),
  }));
}

type TensorOf = (record: TensorRecord) => Tensor;

interface Wanted<T> {
  readonly records: readonly TensorRecord[];
  finish(tensorOf: TensorOf): T;
}

async function readWith<T>(
  source: string | Uint8Array,
  options: LoadOptions | undefined,
  where: string,
  choose: (parsed: ParsedCheckpoint, opened: ByteSource) => Wanted<T>,
): Promise<T> {
  const { mmap = false, signal } = checkOptions(options, ['mmap', 'signal'], where);
  checkBoolean(mmap, `${where}: mmap`);
  const abort = checkSignal(signal, `${where}: signal`);
  const throwIfAborted = (): void => {
    if (abort?.aborted === true) throw abortError(abort);
  };
  throwIfAborted();
  const work = withSource(source, async (opened) => {
    const { origin } = opened;
    let modified = 0n;
    if (origin.kind === 'file') {
      modified = binding.modifiedTime(origin.fd);
      opened.readBatch = async (spans) =>
        (await runJob(() => binding.readBytes(origin.fd, opened.size, spans))) as Uint8Array;
    }
    const parsed = await parseCheckpoint(opened);
    throwIfAborted();
    const wanted = choose(parsed, opened);
    const { records } = wanted;
    const handles = await readHandles(opened, modified, records, mmap);
    throwIfAborted();
    const tensors = new Map<TensorRecord, Tensor>();
    for (const [i, record] of records.entries()) {
      const tensor = wrapTensor(handles[i] as TensorHandle);
      if (record.requiresGrad) tensor.requiresGrad = true;
      tensors.set(record, tensor);
    }
    return wanted.finish((record) => tensors.get(record) as Tensor);
  });
  // The signal is not given to the job: a running read ends unseen, and the descriptor must stay open until it has.
  return untilAborted(work, abort);
}

async function readHandles(
  source: ByteSource,
  modified: bigint,
  records: readonly TensorRecord[],
  mmap: boolean,
): Promise<readonly TensorHandle[]> {
  const { ranges, tensors } = planRead(records);
  const { origin } = source;
  if (origin.kind === 'bytes') {
    // The array may have been detached while the parser waited.
    checkBuffer(origin.bytes, source.label);
    return binding.tensorsFromBytes(origin.bytes, ranges, tensors);
  }
  return (await runJob(() =>
    mmap
      ? binding.mapTensors(origin.fd, source.size, modified, ranges, tensors)
      : binding.readTensors(origin.fd, source.size, modified, ranges, tensors),
  )) as TensorHandle[];
}

function toStateDict(dict: Dict, parsed: ParsedCheckpoint, tensorOf: TensorOf): StateDict {
  const entries = [...dict].map(
    ([name, record]) => [name as string, tensorOf(record as TensorRecord)] as const,
  );
  return new StateDict(entries, moduleMetadata(dict.metadata), new Map(parsed.metadata));
}

function moduleMetadata(value: Value): Map<string, ModuleMetadata> {
  const metadata = new Map<string, ModuleMetadata>();
  if (!(value instanceof Dict)) return metadata;
  for (const [path, facts] of value) {
    if (typeof path !== 'string' || !(facts instanceof Dict)) continue;
    const known = [...facts].filter(([name, fact]) => typeof name === 'string' && isPlain(fact));
    // fromEntries defines own properties, whatever their names.
    metadata.set(path, Object.fromEntries(known) as ModuleMetadata);
  }
  return metadata;
}

function isPlain(value: Value): boolean {
  return value === null || ['number', 'bigint', 'string', 'boolean'].includes(typeof value);
}

/** Converts once each, so that what was shared or cyclic stays so. Depth is bounded by the parser. */
function toPlain(parsed: ParsedCheckpoint, tensorOf: TensorOf): unknown {
  const done = new Map<object, unknown>();
  const remember = <T>(value: object, converted: T): T => {
    done.set(value, converted);
    return converted;
  };
  const convert = (value: Value): unknown => {
    if (value === null || typeof value !== 'object' || isUint8Array(value)) return value;
    if (value instanceof TensorRecord) return tensorOf(value);
    if (value instanceof GlobalName) return value.name.replace(/^torch\.(?=[a-z0-9_]+$)/, '');
    if (value instanceof Complex) return { real: value.real, imaginary: value.imaginary };
    const known = done.get(value);
    if (known !== undefined) return known;
    if (Array.isArray(value) || value instanceof Tuple) {
      const list = remember<unknown[]>(value, []);
      for (const item of Array.isArray(value) ? value : value.items) list.push(convert(item));
      return list;
    }
    if (isSet(value)) {
      const set = remember(value, new Set<unknown>());
      for (const item of value) set.add(convert(item));
      return set;
    }
    if (value instanceof Dict) {
      if (value.size > 0 && isStateDict(value)) return remember(value, toStateDict(value, parsed, tensorOf));
      const map = remember(value, new Map<unknown, unknown>());
      for (const [key, item] of value) map.set(convert(key), convert(item));
      return map;
    }
    return null;
  };
  return convert(parsed.value);
}
