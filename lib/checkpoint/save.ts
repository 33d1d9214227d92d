/**
 * `save`: a state dict as safetensors, or as a `.pt` that `torch.load(weights_only=True)` reads; `saveCheckpoint`: any
 * nested value of a training run, as such a `.pt`. The file appears whole or not at all (`atomic-file.ts`).
 */
import path from 'node:path';
import { isMap } from '../brands';
import type { DType } from '../binding';
import { makeError } from '../errors';
import { isWellFormed, printable } from '../printable';
import { checkString, describe } from '../tensor/options';
import { orElse, readOptions, type Rule } from '../tensor/rules';
import { handleOf, type Tensor } from '../tensor/tensor';
import { writeAtomically } from './atomic-file';
import { isSafetensorsPath, isTorchPath, TORCH_ENDINGS } from './endings';
import { LENGTH_BYTES, safetensorsName } from './safetensors';
import { StateDict } from './state-dict';
import { ITEM_SIZE, countElements } from './tensor-record';
import { elementPieces, savedTensor, type SavedTensor } from './tensor-source';
import { TorchArchive } from './torch-zip-writer';
import type { ByteSink } from './zip-writer';

export interface SaveOptions {
  /** Text for the `__metadata__` of a safetensors file, added to the state dict's own `fileMetadata`. */
  metadata?: Readonly<Record<string, string>>;
}

/** What has a state dict: a module. */
export interface HasStateDict {
  stateDict(): StateDict;
}

/** The order in which the reference implementation writes element types: the most aligned first. */
const SAFETENSORS_ORDER: readonly DType[] = [
  ...([
    'int64',
    'float64',
    'float32',
    'int32',
    'bfloat16',
    'float16',
    'int16',
    'int8',
    'uint8',
    'bool',
  ] as const),
];

/**
 * Saves a state dict or a module's as `.safetensors`, `.pt`, `.pth`, `.pkl` or `.bin`: what the public `save`
 * (`onnx/save.ts`, which says what it does and throws) does with weights.
 */
export async function saveWeights(
  target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict,
  file: string,
  options?: SaveOptions,
): Promise<void> {
  checkString(file, 'save: file');
  const { metadata } = readOptions(options, { metadata: orElse({}, texts) }, 'save');
  const isSafetensors = isSafetensorsPath(file);
  if (!isSafetensors && !isTorchPath(file)) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `save: expected a path that ends in .safetensors or ${TORCH_ENDINGS.join(', ')}, got '${printable(file, 1000)}'`,
    );
  }
  const stateDict = toStateDict(target);
  const fileMetadata = new Map([['format', 'pt'], ...stateDict.fileMetadata, ...Object.entries(metadata)]);
  if (isSafetensors) {
    checkTexts(stateDict.fileMetadata, 'save: metadata of the state dict');
    // The entries keep the tensors of a module's state dict alive until they are written.
    const entries = [...stateDict].map(([name, tensor]) => savedTensor(tensor, checkName(name)));
    await writeAtomically(file, (sink) => writeSafetensors(sink, entries, fileMetadata));
  } else {
    for (const [name, tensor] of stateDict) handleOf(tensor, `save: '${checkName(name)}'`);
    await writeTorchFile(file, stateDict, 'save');
  }
}

/** Metadata of a file. Throws ERR_SENET_ARG_TYPE; ERR_SENET_ARG_RANGE for text that no UTF-8 can hold. */
export const texts: Rule<Readonly<Record<string, string>>> = (given, what) => {
  if (typeof given !== 'object' || given === null)
    throw makeError('ERR_SENET_ARG_TYPE', `${what}: expected an object, got ${describe(given)}`);
  checkTexts(Object.entries(given), what);
  return given as Readonly<Record<string, string>>;
};

function checkTexts(entries: Iterable<readonly [name: string, value: unknown]>, what: string): void {
  for (const [name, value] of entries) {
    checkText(name, `${what}: a name`);
    checkText(value, `${what} '${printable(name)}'`);
  }
}

function checkName(name: unknown): string {
  return checkText(name, 'save: a name');
}

/** What UTF-8 can hold. */
function checkText(given: unknown, what: string): string {
  const text = checkString(given, what);
  if (isWellFormed(text)) return text;
  throw makeError('ERR_SENET_ARG_RANGE', `${what} is not well-formed text: ${JSON.stringify(text)}`);
}

/** As `torch.save`. */
async function writeTorchFile(file: string, value: unknown, where: string): Promise<void> {
  const archive = new TorchArchive(value, where);
  await writeAtomically(file, (sink) => archive.write(sink, path.basename(file, path.extname(file))));
}

/**
 * Saves any nested value of a training run as a file that `torch.load(weights_only=True)` reads and `loadCheckpoint` too:
 * Maps and plain objects become dictionaries, a StateDict an OrderedDict, arrays lists, whole numbers and bigints int,
 * other numbers float, null None, a Uint8Array bytes, a Set a set; booleans, strings and Tensors are themselves. What is
 * shared or cyclic stays so. Properties that are undefined are left out.
 *
 * The file appears whole or not at all: a crash, or a full disk, leaves the one that was there. Do not change the tensors
 * until the promise settles.
 *
 * @param value - such as `{ epoch, model: model.stateDict(), optimizer: optimizer.stateDict() }`
 * @param file - path of the file, of any extension; an existing one is replaced at the end
 * @throws (rejects) ERR_SENET_ARG_TYPE for a value that is none of these, naming its place; ERR_SENET_ARG_RANGE (deeper
 *   than 200 levels, tensors that view one storage as different types); ERR_SENET_DISPOSED; ERR_SENET_FILE_NOT_FOUND (no
 *   such folder), ERR_SENET_FILE
 */
export async function saveCheckpoint(value: unknown, file: string): Promise<void> {
  checkString(file, 'saveCheckpoint: file');
  await writeTorchFile(file, value, 'saveCheckpoint');
}

function toStateDict(target: StateDict | ReadonlyMap<string, Tensor> | HasStateDict): StateDict {
  if (target instanceof StateDict) return target;
  if (isMap(target)) return new StateDict(target as ReadonlyMap<string, Tensor>);
  if (
    typeof target === 'object' &&
    target !== null &&
    'stateDict' in target &&
    typeof target.stateDict === 'function'
  ) {
    const stateDict: unknown = target.stateDict();
    if (stateDict instanceof StateDict) return stateDict;
  }
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `save: expected a StateDict, a Map or a Module, got ${describe(target)}`,
  );
}

async function writeSafetensors(
  sink: ByteSink,
  entries: readonly SavedTensor[],
  fileMetadata: ReadonlyMap<string, string>,
): Promise<void> {
  refuseShared(entries);
  const rank = (dtype: DType): number => SAFETENSORS_ORDER.indexOf(dtype);
  const ordered = [...entries].sort((a, b) => rank(a.dtype) - rank(b.dtype) || (a.name < b.name ? -1 : 1));
  const header: [string, unknown][] = [['__metadata__', Object.fromEntries(fileMetadata)]];
  let position = 0;
  for (const { name, dtype, shape } of ordered) {
    if (name === '__metadata__')
      throw makeError('ERR_SENET_ARG_RANGE', `save: a tensor cannot be called '${name}'`);
    const end = position + countElements(shape) * ITEM_SIZE[dtype];
    header.push([name, { dtype: safetensorsName(dtype), shape, data_offsets: [position, end] }]);
    position = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padding = (LENGTH_BYTES - (json.length % LENGTH_BYTES)) % LENGTH_BYTES;
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeBigUInt64LE(BigInt(json.length + padding));
  await sink.write(Buffer.concat([length, json, Buffer.alloc(padding, ' ')]));
  for (const entry of ordered) {
    for (const piece of elementPieces(entry)) await sink.write(piece);
  }
}

/**
 * As `safetensors.torch.save_file`: tensors that share memory would come back as copies, so they are refused; those that
 * lie beside each other in one storage are not.
 */
function refuseShared(entries: readonly SavedTensor[]): void {
  const byStorage = new Map<bigint, SavedTensor[]>();
  for (const entry of entries) {
    if (countElements(entry.shape) === 0) continue;
    const others = byStorage.get(entry.storageId);
    if (others === undefined) byStorage.set(entry.storageId, [entry]);
    else others.push(entry);
  }
  for (const together of byStorage.values()) {
    const places = together.map(placeOf).sort((a, b) => a.begin - b.begin);
    if (places.every(({ begin }, index) => index === 0 || begin >= (places[index - 1] as Place).end))
      continue;
    for (const [index, entry] of together.entries()) {
      const { begin, end } = placeOf(entry);
      const owner = together.slice(0, index).find((other) => {
        const place = placeOf(other);
        return begin < place.end && place.begin < end;
      });
      if (owner === undefined) continue;
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `save: '${owner.name}' and '${entry.name}' share memory, which safetensors cannot express; clone one of them, or save as .pt`,
      );
    }
  }
}

/** Bytes of a storage. */
interface Place {
  readonly begin: number;
  readonly end: number;
}

/** From a tensor's first element to its last. */
function placeOf({ dtype, shape, stride, storageOffset }: SavedTensor): Place {
  const last = shape.reduce((sum, size, axis) => sum + (size - 1) * (stride[axis] as number), storageOffset);
  return { begin: storageOffset * ITEM_SIZE[dtype], end: (last + 1) * ITEM_SIZE[dtype] };
}
