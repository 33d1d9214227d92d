/**
 * The safetensors container: a length, a JSON header, then the tensors' bytes one after the other. Follows the
 * format's description and the rules of its reference implementation (`SafeTensors::deserialize`): offsets neither
 * overlap nor leave holes and end with the file.
 */
import type { DType } from '../binding';
import { printable } from '../printable';
import { inSlices, sorted, type Budget, type Sliced } from './budget';
import { readHeader, type HeaderEntry } from './safetensors-header';
import { COST, MAX_METADATA, MAX_SAFETENSORS_HEADER_BYTES, MAX_TENSORS } from './limits';
import { checkpointError } from './problems';
import type { ByteSource } from './source';
import {
  ITEM_SIZE,
  StorageRecord,
  contiguousStride,
  makeTensorRecord,
  type TensorRecord,
} from './tensor-record';
import { Dict } from './values';

export const LENGTH_BYTES = 8;

/** The format's names of element types; null: the format has it and this library does not. */
const DTYPES: ReadonlyMap<string, DType | null> = new Map<string, DType | null>([
  ['BOOL', 'bool'],
  ['U8', 'uint8'],
  ['I8', 'int8'],
  ['I16', 'int16'],
  ['I32', 'int32'],
  ['I64', 'int64'],
  ['F16', 'float16'],
  ['BF16', 'bfloat16'],
  ['F32', 'float32'],
  ['F64', 'float64'],
  ...['U16', 'U32', 'U64', 'C64', 'F4', 'F6_E2M3', 'F6_E3M2', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0'].map(
    (name): [string, null] => [name, null],
  ),
]);

export interface SafetensorsFile {
  /** By name. */
  readonly value: Dict;
  /** In the order of the header. */
  readonly tensors: readonly TensorRecord[];
  readonly metadata: Map<string, string>;
}

/** True if the first bytes of a file can only be those of a safetensors file. */
export function looksLikeSafetensors(head: Uint8Array): boolean {
  return head.length > LENGTH_BYTES && head[LENGTH_BYTES] === 0x7b && head[6] === 0 && head[7] === 0;
}

/** Reads the header. Errors: ERR_SENET_CHECKPOINT_FORMAT, _UNSUPPORTED, _LIMIT. */
export async function readSafetensors(source: ByteSource, budget: Budget): Promise<SafetensorsFile> {
  const { label, size } = source;
  const wrong = (message: string): Error =>
    checkpointError('ERR_SENET_CHECKPOINT_FORMAT', label, `damaged safetensors header: ${message}`);
  const lengthBytes = await source.read(0, LENGTH_BYTES);
  const headerLength = Buffer.from(lengthBytes).readBigUInt64LE();
  if (headerLength > BigInt(size - LENGTH_BYTES)) {
    throw wrong(`it claims ${headerLength} bytes and the file has ${size}`);
  }
  if (headerLength > BigInt(MAX_SAFETENSORS_HEADER_BYTES)) {
    const message = `a header of ${headerLength} bytes, and at most ${MAX_SAFETENSORS_HEADER_BYTES} are read`;
    throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
  }
  const dataStart = LENGTH_BYTES + Number(headerLength);
  budget.charge(Number(headerLength));
  const bytes = await source.read(LENGTH_BYTES, Number(headerLength));

  const metadata = new Map<string, string>();
  const value = new Dict();
  const tensors: TensorRecord[] = [];
  const take = (entry: HeaderEntry): void => {
    if (entry.kind === 'metadata') {
      if (metadata.size >= MAX_METADATA) {
        const message = `more than ${MAX_METADATA} entries of metadata`;
        throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, message);
      }
      metadata.set(entry.name, entry.text);
      return;
    }
    const { name } = entry;
    if (value.has(name)) throw wrong(`it has the name '${printable(name)}' twice`);
    if (tensors.length >= MAX_TENSORS) {
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, `more than ${MAX_TENSORS} tensors`);
    }
    budget.charge(COST.tensor);
    const record = makeRecord(entry, dataStart, label, wrong);
    value.set(name, record);
    tensors.push(record);
  };
  await inSlices(budget, readHeader(bytes, take, wrong, budget));
  await inSlices(budget, checkPlaces(tensors, dataStart, size, wrong, budget));
  return { value, tensors, metadata };
}

/** Storages neither overlap nor leave holes, and end with the file. */
function* checkPlaces(
  tensors: readonly TensorRecord[],
  dataStart: number,
  size: number,
  wrong: (message: string) => Error,
  budget: Budget,
): Sliced<void> {
  const byPlace = (a: TensorRecord, b: TensorRecord): number =>
    a.storage.offset - b.storage.offset || a.storage.length - b.storage.length;
  let position = dataStart;
  for (const { storage } of yield* sorted(tensors, byPlace, budget)) {
    if (budget.spend(1)) yield;
    const begin = storage.offset;
    const end = begin + storage.length;
    if (begin !== position) {
      const problem = begin < position ? 'overlaps another tensor' : 'leaves a hole in front of it';
      throw wrong(
        `tensor '${printable(storage.key)}' at [${begin - dataStart}, ${end - dataStart}] ${problem}`,
      );
    }
    position = end;
  }
  if (position !== size) {
    const [last, data] = [position - dataStart, size - dataStart];
    throw wrong(`its tensors end at byte ${last} of the data and the file has ${data}`);
  }
}

function makeRecord(
  { name, dtypeName, shape, begin, end }: Extract<HeaderEntry, { kind: 'tensor' }>,
  dataStart: number,
  label: string,
  wrong: (message: string) => Error,
): TensorRecord {
  const where = `tensor '${printable(name)}'`;
  const dtype = DTYPES.get(dtypeName);
  if (dtype === undefined || dtype === null) {
    const message = `${where} has the element type ${printable(dtypeName, 20)}, which this library does not have`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  if (begin > end) throw wrong(`${where} ends at ${end}, in front of its beginning ${begin}`);
  const storage = new StorageRecord(name, dtype, end - begin);
  storage.offset = dataStart + begin;
  const stride = contiguousStride(shape);
  const record = makeTensorRecord(
    { dtype, shape, stride, storageOffset: 0, storage, requiresGrad: false },
    label,
    where,
  );
  if (record.bytes !== end - begin) {
    throw wrong(
      `${where} of ${dtypeName} [${shape.join(', ')}] has ${end - begin} bytes at [${begin}, ${end}]`,
    );
  }
  return record;
}

/** The name of an element type in this format. */
export function safetensorsName(dtype: DType): string {
  for (const [name, type] of DTYPES) if (type === dtype) return name;
  throw new RangeError(`no safetensors name for ${dtype}, an element of ${ITEM_SIZE[dtype]} bytes`);
}
