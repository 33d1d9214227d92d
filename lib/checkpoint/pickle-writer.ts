/**
 * Pickles of protocol 2 for a state dict, as `torch.save` writes them and `torch.load(weights_only=True)` reads them:
 * an OrderedDict of `_rebuild_tensor_v2` calls, with `_metadata` as its state. Knows where nothing lies in a file.
 */
import type { DType } from '../binding';
import type { ModuleMetadata } from './state-dict';

export interface PickledTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storageOffset: number;
  readonly storageKey: string;
  /** Elements of the whole storage. */
  readonly storageSize: number;
  readonly requiresGrad: boolean;
}

const STORAGE_TYPES: Readonly<Record<DType, string>> = {
  float64: 'DoubleStorage',
  float32: 'FloatStorage',
  float16: 'HalfStorage',
  bfloat16: 'BFloat16Storage',
  int64: 'LongStorage',
  int32: 'IntStorage',
  int16: 'ShortStorage',
  int8: 'CharStorage',
  uint8: 'ByteStorage',
  bool: 'BoolStorage',
};

const MARK = 0x28;
const EMPTY_TUPLE = 0x29;
const TUPLE = 0x74;
const REDUCE = 0x52;
const SETITEMS = 0x75;
const BUILD = 0x62;

/** The pickle of a state dict. */
export function pickleStateDict(
  tensors: readonly PickledTensor[],
  metadata: ReadonlyMap<string, ModuleMetadata>,
): Buffer {
  const writer = new PickleWriter();
  writer.raw(0x80, 2);
  writer.orderedDict();
  writer.raw(MARK);
  for (const tensor of tensors) {
    writer.text(tensor.name);
    writer.tensor(tensor);
  }
  writer.raw(SETITEMS);
  if (metadata.size > 0) {
    writer.raw(0x7d, MARK); // EMPTY_DICT
    writer.text('_metadata');
    writer.orderedDict();
    writer.raw(MARK);
    for (const [path, facts] of metadata) {
      writer.text(path);
      writer.facts(facts);
    }
    writer.raw(SETITEMS, SETITEMS, BUILD);
  }
  writer.raw(0x2e); // STOP
  return writer.finish();
}

class PickleWriter {
  private readonly parts: Uint8Array[] = [];

  raw(...bytes: number[]): void {
    this.parts.push(Uint8Array.from(bytes));
  }

  text(text: string): void {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(5);
    head.writeUInt8(0x58, 0); // BINUNICODE
    head.writeUInt32LE(bytes.length, 1);
    this.parts.push(head, bytes);
  }

  integer(value: number): void {
    if (value >= 0 && value <= 0xff)
      this.raw(0x4b, value); // BININT1
    else if (value >= -(2 ** 31) && value < 2 ** 31) {
      const bytes = Buffer.alloc(5);
      bytes.writeUInt8(0x4a, 0); // BININT
      bytes.writeInt32LE(value, 1);
      this.parts.push(bytes);
    } else {
      const bytes = Buffer.alloc(10);
      bytes.writeUInt8(0x8a, 0); // LONG1
      bytes.writeUInt8(8, 1);
      bytes.writeBigInt64LE(BigInt(value), 2);
      this.parts.push(bytes);
    }
  }

  boolean(value: boolean): void {
    this.raw(value ? 0x88 : 0x89);
  }

  integers(values: readonly number[]): void {
    this.raw(MARK);
    for (const value of values) this.integer(value);
    this.raw(TUPLE);
  }

  global(module: string, name: string): void {
    this.parts.push(Buffer.from(`c${module}\n${name}\n`));
  }

  orderedDict(): void {
    this.global('collections', 'OrderedDict');
    this.raw(EMPTY_TUPLE, REDUCE);
  }

  tensor(tensor: PickledTensor): void {
    this.global('torch._utils', '_rebuild_tensor_v2');
    this.raw(MARK, MARK);
    this.text('storage');
    this.global('torch', STORAGE_TYPES[tensor.dtype]);
    this.text(tensor.storageKey);
    this.text('cpu');
    this.integer(tensor.storageSize);
    this.raw(TUPLE, 0x51); // BINPERSID
    this.integer(tensor.storageOffset);
    this.integers(tensor.shape);
    this.integers(tensor.stride);
    this.boolean(tensor.requiresGrad);
    this.orderedDict(); // backward hooks: always none
    this.raw(TUPLE, REDUCE);
  }

  /** What is known of one module: its version, and other plain facts that a file brought. */
  facts(facts: ModuleMetadata): void {
    this.raw(0x7d, MARK);
    for (const [name, value] of Object.entries(facts)) {
      if (typeof value === 'number' && Number.isSafeInteger(value)) {
        this.text(name);
        this.integer(value);
      } else if (typeof value === 'boolean') {
        this.text(name);
        this.boolean(value);
      } else if (typeof value === 'string') {
        this.text(name);
        this.text(value);
      }
    }
    this.raw(SETITEMS);
  }

  finish(): Buffer {
    return Buffer.concat(this.parts);
  }
}
