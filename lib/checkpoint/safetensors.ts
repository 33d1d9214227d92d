/**
 * The safetensors container: a length, a JSON header, then the tensors' bytes one after the other. Follows the
 * format's description and the rules of its reference implementation (`SafeTensors::deserialize`): offsets neither
 * overlap nor leave holes and end with the file.
 */
import { TextDecoder } from 'node:util';
import type { DType } from '../binding';
import { MAX_SAFETENSORS_HEADER_BYTES, MAX_TENSORS } from './limits';
import { checkpointError, printable } from './problems';
import type { ByteSource } from './source';
import {
  ITEM_SIZE,
  StorageRecord,
  contiguousStride,
  makeTensorRecord,
  type TensorRecord,
} from './tensor-record';

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
  readonly tensors: Map<string, TensorRecord>;
  readonly metadata: Map<string, string>;
}

/** True if the first bytes of a file can only be those of a safetensors file. */
export function looksLikeSafetensors(head: Uint8Array): boolean {
  return head.length > LENGTH_BYTES && head[LENGTH_BYTES] === 0x7b && head[6] === 0 && head[7] === 0;
}

/** Reads the header. Errors: ERR_SENET_CHECKPOINT_FORMAT, _UNSUPPORTED, _LIMIT. */
export async function readSafetensors(source: ByteSource): Promise<SafetensorsFile> {
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
  const header = parseHeader(await source.read(LENGTH_BYTES, Number(headerLength)), wrong);

  const metadata = new Map<string, string>();
  const found: { name: string; begin: number; end: number; record: TensorRecord }[] = [];
  for (const [name, entry] of header) {
    if (name === '__metadata__') {
      for (const [key, value] of Object.entries(
        isObject(entry) ? entry : fail(wrong('metadata is no object')),
      )) {
        if (typeof value !== 'string') throw wrong(`metadata '${printable(key)}' is no string`);
        metadata.set(key, value);
      }
      continue;
    }
    if (found.length >= MAX_TENSORS) {
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', label, `more than ${MAX_TENSORS} tensors`);
    }
    found.push({ name, ...readEntry(name, entry, dataStart, label, wrong) });
  }

  let position = 0;
  const inOrder = [...found].sort((a, b) => a.begin - b.begin || a.end - b.end);
  for (const { name, begin, end } of inOrder) {
    if (begin !== position) {
      const problem = begin < position ? 'overlaps another tensor' : 'leaves a hole in front of it';
      throw wrong(`tensor '${printable(name)}' at [${begin}, ${end}] ${problem}`);
    }
    position = end;
  }
  if (dataStart + position !== size) {
    throw wrong(`its tensors end at byte ${dataStart + position} and the file at ${size}`);
  }
  return { tensors: new Map(found.map(({ name, record }) => [name, record])), metadata };
}

function parseHeader(bytes: Uint8Array, wrong: (message: string) => Error): [string, unknown][] {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (cause) {
    throw wrong(`no JSON in UTF-8 (${printable((cause as Error).message)})`);
  }
  if (!text.startsWith('{') || !isObject(header)) throw wrong('it does not begin with {');
  if (!/\} *$/.test(text.slice(text.lastIndexOf('}'))))
    throw wrong('it is padded with something else than spaces');
  const entries = Object.entries(header);
  if (countTopLevelKeys(text) !== entries.length) throw wrong('it has a name twice');
  return entries;
}

function readEntry(
  name: string,
  entry: unknown,
  dataStart: number,
  label: string,
  wrong: (message: string) => Error,
): { begin: number; end: number; record: TensorRecord } {
  const where = `tensor '${printable(name)}'`;
  if (!isObject(entry)) throw wrong(`${where} is no object`);
  const { dtype: dtypeName, shape, data_offsets: offsets } = entry;
  const extra = Object.keys(entry).length !== 3;
  if (
    typeof dtypeName !== 'string' ||
    !isCountList(shape) ||
    !isCountList(offsets) ||
    offsets.length !== 2 ||
    extra
  ) {
    throw wrong(`${where} has not exactly dtype, shape and two data_offsets`);
  }
  const dtype = DTYPES.get(dtypeName);
  if (dtype === undefined || dtype === null) {
    const message = `${where} has the element type ${printable(dtypeName, 20)}, which this library does not have`;
    throw checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', label, message);
  }
  const [begin, end] = offsets as [number, number];
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
  return { begin, end, record };
}

/** Names at the top level as they stand in the text, which is valid JSON: `JSON.parse` keeps only the last of two that are equal. */
function countTopLevelKeys(text: string): number {
  let depth = 0;
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case '{':
      case '[':
        depth++;
        break;
      case '}':
      case ']':
        depth--;
        break;
      case ':':
        if (depth === 1) count++;
        break;
      case '"':
        for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
        break;
      default:
    }
  }
  return count;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCountList(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && (item as number) >= 0);
}

function fail(error: Error): never {
  throw error;
}

/** The name of an element type in this format. */
export function safetensorsName(dtype: DType): string {
  for (const [name, type] of DTYPES) if (type === dtype) return name;
  throw new RangeError(`no safetensors name for ${dtype}, an element of ${ITEM_SIZE[dtype]} bytes`);
}
