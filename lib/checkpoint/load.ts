/**
 * `load` and `loadCheckpoint`: parse a checkpoint, choose what of it is wanted, have its tensors read.
 */
import { binding } from '../native';
import { throwIfAborted, untilAborted } from '../tensor/abort';
import { runJob } from '../tensor/jobs';
import { boolean, optional, orElse, readOptions, signal, string } from '../tensor/rules';
import { inSlices, type Budget, type Sliced } from './budget';
import { findStateDict, noStateDict, type FoundStateDict, type Wish } from './find';
import { COST } from './limits';
import { Layers } from './pages';
import { parseCheckpoint, type ParsedCheckpoint } from './parse';
import { dequantize } from './quantized-weights';
import { readTensors } from './read-tensors';
import { withSource, type ByteSource } from './source';
import { StateDict } from './state-dict';
import type { TensorRecord } from './tensor-record';
import { moduleMetadata, toPlain, type TensorOf } from './to-plain';
import type { Tensor } from '../tensor/tensor';

export interface LoadCheckpointOptions {
  /**
   * Map the file instead of reading it. Default false: if another process truncates a mapped file, this process dies
   * with SIGBUS. What is not aligned to its elements (most of a legacy file) is read in any case.
   */
  mmap?: boolean;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

export interface LoadOptions extends LoadCheckpointOptions {
  /**
   * Where the state dict is: names joined by dots, such as 'state_dict_ema' or 'model.ema'; '' for the whole file.
   * Default: it is looked for.
   */
  key?: string;
  /** What its names begin with, such as 'module.': it is taken away, and names without it are left out. Default ''. */
  prefix?: string;
}

/**
 * Loads a state dict: a file of `torch.save` (zip or legacy container, stored or deflated), `torch.jit.save` (its weights)
 * or safetensors, told apart by content, or a zip archive around one of them (`.pth.zip`). A state dict that sits inside dictionaries is found there, whatever their names:
 * of several the largest, one called `state_dict`, `model_state_dict`, `model`, `net`, ... before others, averages (`ema`,
 * ...) and what belongs to an optimiser last. `source` of the result says which, what was left out, and where the others
 * are. Names stay as they are in the file, unless `prefix` says otherwise.
 *
 * Whoever wrote the file, its description takes less than 300 MB and never holds the event loop up for more than 50 ms:
 * beyond 32,768 tensors, 8,192 of them over one storage, a pickle of 64 MB, a list of 524,288 items, a set of 131,072
 * or one text of 16 MB it is refused (ERR_SENET_CHECKPOINT_LIMIT). `loadCheckpoint` also refuses a dictionary of more than
 * 131,072 entries, which `load` passes over where it lies beside the weights.
 *
 * Nothing in the file is executed; objects of unknown classes beside the weights do not matter. Tensors keep their dtypes,
 * strides and shared storages and come to the CPU wherever they were saved.
 *
 * @param source - a path, or the bytes of a file
 * @throws (rejects) ERR_SENET_CHECKPOINT_FORMAT, _UNSAFE, _UNSUPPORTED, _LIMIT; ERR_SENET_FILE_NOT_FOUND,
 *   ERR_SENET_FILE, ERR_SENET_FILE_CHANGED; ERR_SENET_BUFFER, ERR_SENET_ARG_TYPE, ERR_SENET_UNKNOWN_OPTION;
 *   ERR_SENET_ARG_RANGE (nothing at `key`, no name with `prefix`); ERR_SENET_ABORTED
 */
export function load(source: string | Uint8Array, options?: LoadOptions): Promise<StateDict> {
  return loadFor(source, options, {});
}

const RULES = { mmap: orElse(false, boolean), signal };

/**
 * As `load`, with the names of the model that the weights are for: they choose the state dict and its prefix, where the
 * options do not. @internal
 */
export async function loadFor(
  source: string | Uint8Array,
  options: LoadOptions | undefined,
  model: Pick<Wish, 'anchor' | 'expected'>,
): Promise<StateDict> {
  const rules = { ...RULES, key: optional(string), prefix: optional(string) };
  const { key, prefix, ...reading } = readOptions(options, rules, 'load');
  return readWith(source, reading, async (parsed, { label }) => {
    const found = await findStateDict(parsed.value, { key, prefix, ...model }, label, parsed.budget);
    if (!found) throw noStateDict(parsed.value, label);
    return {
      records: await inSlices(parsed.budget, onceEach(found.tensors.values(), parsed.budget)),
      finish: async (tensorOf) => dequantize(await toStateDict(found, parsed, tensorOf, label), label),
    };
  });
}

/**
 * Loads everything a checkpoint holds (epoch, optimiser, ...) as inert values: a dictionary becomes a Map, and a
 * StateDict where it holds only tensors; lists and tuples arrays; int a number, or a bigint beyond 2**53; bytes a
 * Uint8Array; a set a Set; complex `{ real, imaginary }`; None null; devices and dtypes their names; NumPy's scalars
 * values and its arrays NumpyArrays. What is of any other class is an OpaqueValue with its name.
 *
 * @throws (rejects) as `load`
 */
export async function loadCheckpoint(
  source: string | Uint8Array,
  options?: LoadCheckpointOptions,
): Promise<unknown> {
  const reading = readOptions(options, RULES, 'loadCheckpoint');
  return readWith(source, reading, ({ value, tensors, metadata, budget }, { label }) => ({
    records: tensors,
    finish: (tensorOf) => inSlices(budget, toPlain(value, metadata, tensorOf, label, budget)),
  }));
}

interface Wanted<T> {
  readonly records: readonly TensorRecord[];
  finish(tensorOf: TensorOf): Promise<T>;
}

async function readWith<T>(
  source: string | Uint8Array,
  { mmap, signal: abort }: { mmap: boolean; signal: AbortSignal | undefined },
  choose: (parsed: ParsedCheckpoint, opened: ByteSource) => Wanted<T> | Promise<Wanted<T>>,
): Promise<T> {
  throwIfAborted(abort);
  let made: () => readonly Tensor[] = () => [];
  const work = withSource(source, async (opened) => {
    const { origin } = opened;
    let modified = 0n;
    if (origin.kind === 'file') {
      modified = binding.modifiedTime(origin.fd);
      opened.readBatch = async (spans) =>
        (await runJob(() => binding.readBytes(origin.fd, opened.size, spans))) as Uint8Array;
    }
    const parsed = await parseCheckpoint(opened);
    throwIfAborted(abort);
    const wanted = await choose(parsed, parsed.source);
    throwIfAborted(abort);
    return readTensors(
      parsed.source,
      wanted.records,
      { mmap, modified },
      parsed.budget,
      () => throwIfAborted(abort),
      (tensorOf) => {
        made = () => wanted.records.map(tensorOf);
        return wanted.finish(tensorOf);
      },
    );
  });
  // The signal is not given to the job: a running read ends unseen, and the descriptor must stay open until it has.
  return untilAborted(work, abort).catch((error: unknown) => {
    // It was aborted, and what is read all the same reaches nobody.
    work.then(
      () => made().forEach((tensor) => tensor.dispose()),
      () => undefined,
    );
    throw error;
  });
}

function* onceEach(records: Iterable<TensorRecord>, budget: Budget): Sliced<TensorRecord[]> {
  const seen = new Layers<TensorRecord, true>();
  const all: TensorRecord[] = [];
  for (const record of records) {
    if (budget.spend(1)) yield;
    if (seen.has(record)) continue;
    budget.made(COST.entry);
    seen.set(record, true);
    all.push(record);
  }
  return all;
}

async function toStateDict(
  { dict, tensors, prefix, wrappers, dropped, others }: FoundStateDict,
  { metadata, budget }: ParsedCheckpoint,
  tensorOf: TensorOf,
  label: string,
): Promise<StateDict> {
  const versions = await inSlices(budget, moduleMetadata(dict.metadata, prefix, label, budget));
  const source = { key: wrappers.join('.'), prefix, dropped, others };
  const state = new StateDict([], versions, new Map(metadata), source);
  for (const [name, record] of tensors) {
    if (budget.spend(1)) await budget.turn();
    state.set(name, tensorOf(record));
  }
  return state;
}
