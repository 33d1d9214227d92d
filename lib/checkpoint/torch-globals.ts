/**
 * The globals that mean something in a checkpoint, and what calling them means here: each becomes inert data by a rule of
 * this table, and there is no other. The list is PyTorch's own for `torch.load(weights_only=True)`
 * (`torch/_weights_only_unpickler.py`), NumPy's arrays, and what TorchScript's archives name; what each `_rebuild_*`
 * function takes is in `torch/_utils.py`. Every other global is only a name, and so is what a call is given one for: a
 * tensor over it does not come to be.
 * Must not read files: where a storage lies is the container's affair.
 */
import { isUint8Array } from '../brands';
import type { DType } from '../binding';
import { printable } from '../printable';
import { DTYPES } from '../tensor/dtype';
import type { Making, PickleHost } from './pickle';
import { copyPieces, type Sliced } from './budget';
import { COST, MAX_RANK, MAX_TENSORS } from './limits';
import { NUMPY_CALLS, NUMPY_CLASSES, buildNumpy } from './numpy-values';
import { checkpointError } from './problems';
import { ITEM_SIZE, STORAGE_NAMES, StorageRecord, TensorRecord, makeTensorRecord } from './tensor-record';
import {
  Complex,
  Dict,
  GlobalName,
  LongText,
  NumpyRecord,
  NumpyType,
  Tuple,
  UnknownObject,
  kindOf,
  unknownGlobal,
  type Value,
} from './values';

/** By Python's names of storages; null: PyTorch has it and this library does not. */
const STORAGE_TYPES: Readonly<Record<string, DType | null>> = {
  ...Object.fromEntries(DTYPES.map((dtype) => [STORAGE_NAMES[dtype], dtype])),
  ComplexDoubleStorage: null,
  ComplexFloatStorage: null,
  QUInt8Storage: null,
  QInt8Storage: null,
  QInt32Storage: null,
  QUInt4x2Storage: null,
  QUInt2x4Storage: null,
};

/** Python 2's names of modules, which protocol 2 keeps writing. */
const PYTHON2_MODULES: ReadonlyMap<string, string> = new Map([
  ['__builtin__', 'builtins'],
  ['copy_reg', 'copyreg'],
]);

/** No function of the table takes as many. */
const MAX_ARGUMENTS = 16;

/** The same by the full names that files use; files of CUDA machines may name `torch.cuda`'s. */
const STORAGE_GLOBALS: ReadonlyMap<string, DType | null> = new Map([
  ...['torch', 'torch.cuda'].flatMap((module) =>
    Object.entries(STORAGE_TYPES).map(([name, dtype]): [string, DType | null] => [
      `${module}.${name}`,
      dtype,
    ]),
  ),
]);

const UNTYPED_STORAGES = new Set(['torch.storage.UntypedStorage', 'torch.UntypedStorage']);

const OTHER_DTYPES = [
  ...[
    'complex32',
    'complex64',
    'complex128',
    'quint8',
    'qint8',
    'qint32',
    'quint4x2',
    'quint2x4',
    'bits8',
    'bits16',
  ],
  ...['bits1x8', 'bits2x4', 'bits4x2', 'float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz'],
  ...['float8_e8m0fnu', 'float4_e2m1fn_x2', 'uint16', 'uint32', 'uint64'],
  ...[1, 2, 3, 4, 5, 6, 7].flatMap((bits) => [`uint${bits}`, `int${bits}`]),
];

type Call = (args: readonly Value[], context: CallContext) => Value;

interface CallContext {
  readonly rebuilder: TorchHost;
  readonly name: string;
  readonly at: number;
  readonly making: Making;
}

/** Globals that are data, not calls: classes named as arguments, element types, quantisation schemes. */
const CONSTANTS = new Set<string>([
  'torch.Tensor',
  ...Object.keys(ITEM_SIZE).map((dtype) => `torch.${dtype}`),
  ...OTHER_DTYPES.map((dtype) => `torch.${dtype}`),
  ...['per_tensor_affine', 'per_tensor_symmetric', 'per_channel_affine', 'per_channel_symmetric'].map(
    (scheme) => `torch.${scheme}`,
  ),
  'torch.per_channel_affine_float_qparams',
  ...STORAGE_GLOBALS.keys(),
  ...UNTYPED_STORAGES,
  ...['torch', 'torch.cuda'].flatMap((module) =>
    ['Double', 'Float', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char', 'Byte', 'Bool'].map(
      (type) => `${module}.${type}Tensor`,
    ),
  ),
  'torch.storage.TypedStorage',
  'torch.TypedStorage',
  ...NUMPY_CLASSES,
]);

const CALLS: ReadonlyMap<string, Call> = new Map<string, Call>([
  ['collections.OrderedDict', makeDict],
  ['collections.Counter', makeDict],
  ['builtins.set', makeSet],
  ['builtins.complex', makeComplex],
  ['builtins.bytearray', makeByteArray],
  // Of no bytes, in protocol 2.
  ['builtins.bytes', makeByteArray],
  ['_codecs.encode', encode],
  ['torch.Size', makeSize],
  ['torch.device', makeDevice],
  ['torch.serialization._get_layout', (args, context) => text(args, 0, context)],
  ['torch._utils._rebuild_tensor', (args, context) => context.rebuilder.tensor(args, context, 1)],
  ['torch._utils._rebuild_tensor_v2', (args, context) => context.rebuilder.tensor(args, context, 2)],
  ['torch._utils._rebuild_tensor_v3', (args, context) => context.rebuilder.tensor(args, context, 3)],
  ['torch._utils._rebuild_parameter', makeParameter],
  ['torch._utils._rebuild_parameter_with_state', makeParameter],
  ['torch.nn.parameter.Parameter', makeParameter],
  ['torch._tensor._rebuild_from_type_v2', rebuildFromType],
  ...[
    ['_rebuild_sparse_tensor', 'a sparse tensor'],
    ['_rebuild_qtensor', 'a quantised tensor'],
    ['_rebuild_nested_tensor', 'a nested tensor'],
    ['_rebuild_meta_tensor_no_storage', 'a tensor of the meta device, which has no data'],
    ['_rebuild_wrapper_subclass', 'a tensor subclass'],
    ['_rebuild_device_tensor_from_numpy', 'a tensor of a device that is saved through NumPy'],
    ['_rebuild_device_tensor_from_cpu_tensor', 'a tensor of a device that is saved through the CPU'],
  ].map(([name, what]): [string, Call] => [
    `torch._utils.${name}`,
    (_, context) => {
      throw context.rebuilder.unsupported(`holds ${what}`, context.at);
    },
  ]),
  // What TorchScript calls for its typed lists and for the type of a value.
  ...['build_intlist', 'build_doublelist', 'build_boollist', 'build_tensorlist', 'restore_type_tag'].map(
    (name): [string, Call] => [`torch.jit._pickle.${name}`, ([value = null]) => value],
  ),
  ...[...NUMPY_CALLS].map(([name, rule]): [string, Call] => [
    name,
    (args, { rebuilder, making, at }) => {
      making.charge(COST.bytes);
      return rule(args, name, { refuse: (message) => rebuilder.format(message, at), making });
    },
  ]),
]);

/** The error about a value that cannot be had without what a global would have made. */
export function unsafe(label: string, message: string, global: string, at?: number): Error {
  return checkpointError(
    'ERR_SENET_CHECKPOINT_UNSAFE',
    label,
    `${message}: the pickle asks for '${printable(global)}', which is not among the globals that a checkpoint may name; nothing was executed`,
    at,
  );
}

/** Where a container keeps its storages: the storage of a key, made or found. */
export interface StorageTable {
  find(key: string, dtype: DType | null, bytes: number, at: number): StorageRecord;
}

/** A view of a storage that only the oldest files have: `view_metadata` of the legacy container. */
class StorageView {
  constructor(
    readonly storage: StorageRecord,
    readonly offset: number,
    readonly size: number,
  ) {}
}

/** The meaning of globals and persistent ids in a pickle that `torch.save` wrote. */
export class TorchHost implements PickleHost {
  private readonly views = new WeakMap<StorageRecord, StorageView>();
  private tensors = 0;

  constructor(
    readonly label: string,
    private readonly storages: StorageTable,
  ) {}

  findGlobal(module: string, name: string): GlobalName {
    const given = `${PYTHON2_MODULES.get(module) ?? module}.${name}`;
    const fullName = given === 'builtins.xrange' ? 'builtins.range' : given;
    return new GlobalName(fullName, CALLS.has(fullName) || CONSTANTS.has(fullName));
  }

  /** What is called with something unknown is as unknown: a tensor, a parameter or a dictionary over it names the same global. */
  call(callable: GlobalName, args: readonly Value[], at: number, making: Making): Value {
    const rule = CALLS.get(callable.name);
    if (!rule) throw this.format(`${callable.name} is called, and only named elsewhere`, at);
    const { name } = callable;
    if (args.length > MAX_ARGUMENTS) throw this.format(`${name} called with ${args.length} arguments`, at);
    // NumPy's arrays may be of a class or an element type of one's own, which their rules look at.
    const unknown = NUMPY_CALLS.has(name) ? undefined : args.find((value) => unknownGlobal(value) !== null);
    if (unknown !== undefined) {
      making.charge(COST.object);
      return new UnknownObject(unknownGlobal(unknown) as string, [callable, ...args]);
    }
    return rule(args, { rebuilder: this, name, at, making });
  }

  build(target: Value, state: Value, at: number, making: Making): void {
    if (target instanceof NumpyType || target instanceof NumpyRecord) {
      buildNumpy(target, state, { refuse: (message) => this.format(message, at), making });
    } else if (target instanceof Dict) {
      if (!(state instanceof Dict)) throw this.format(`a dictionary built from a ${kindOf(state)}`, at);
      const metadata = state.get('_metadata');
      if (metadata !== undefined) target.metadata = metadata;
    } else if (target instanceof TensorRecord) {
      throw this.unsupported('a tensor in the form that PyTorch wrote before 0.2', at);
    } else {
      throw this.format(`state given to a ${kindOf(target)}`, at);
    }
  }

  /** `('storage', type, key, location, count)`, and `view_metadata` in the legacy container; any location is read to the CPU. */
  findPersistent(id: Value, at: number): Value {
    if (!(id instanceof Tuple)) throw this.mismatch(id, `a persistent id that is a ${kindOf(id)}`, at);
    const [tag, type, key, , count, view] = id.items;
    if (tag !== 'storage') {
      const kind =
        typeof tag === 'string' ? `'${printable(tag, 40)}'` : tag === undefined ? 'none' : kindOf(tag);
      throw this.format(`a persistent id of the kind ${kind}, and only storages have one`, at);
    }
    if (!(type instanceof GlobalName) || !type.known) {
      throw this.mismatch(type, `a storage whose type is a ${kindOf(type ?? null)}`, at);
    }
    if (typeof key !== 'string' && typeof key !== 'number' && typeof key !== 'bigint') {
      throw this.mismatch(key, `a storage whose key is a ${kindOf(key ?? null)}`, at);
    }
    const dtype = this.storageType(type.name, at);
    const size = this.count(count, 'the size of a storage', at);
    const bytes = size * (dtype === null ? 1 : ITEM_SIZE[dtype]);
    if (!Number.isSafeInteger(bytes)) throw this.format(`a storage of ${size} elements`, at);
    const storage = this.storages.find(String(key), dtype, bytes, at);
    return view === undefined || view === null ? storage : this.viewOf(storage, view, at);
  }

  tensor(args: readonly Value[], context: CallContext, version: 1 | 2 | 3): TensorRecord {
    const { at } = context;
    context.making.charge(COST.tensor);
    if (++this.tensors > MAX_TENSORS) {
      throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, `more than ${MAX_TENSORS} tensors`, at);
    }
    const storage = args[0];
    if (!(storage instanceof StorageRecord)) {
      throw this.format(`a tensor over a ${kindOf(storage ?? null)}`, at);
    }
    const view = this.views.get(storage);
    const base = view?.storage ?? storage;
    const shape = this.counts(args[2], 'a shape', context);
    const stride = this.counts(args[3], 'strides', context);
    const offset = this.count(args[1], 'a storage offset', at);
    if (version >= 2 && typeof args[4] !== 'boolean') throw this.format('a tensor without requires_grad', at);
    const dtype = version === 3 ? this.dtypeOf(args[6], at) : base.dtype;
    if (dtype === null) throw this.format('a tensor over an untyped storage', at);
    const bits = args[version === 3 ? 7 : 6];
    if (bits instanceof Dict && !isAllFalse(bits)) {
      throw this.unsupported('a tensor with the conjugate or negative bit', at);
    }
    const where = `tensor of the pickle at byte ${at}`;
    const record = makeTensorRecord(
      {
        dtype,
        shape,
        stride,
        storageOffset: offset + (view?.offset ?? 0),
        storage: base,
        requiresGrad: version >= 2 && args[4] === true,
      },
      this.label,
      where,
    );
    if (view) {
      // The same rules against the narrower view; what it gives is only a check.
      const narrow = new StorageRecord(base.key, base.dtype, view.size * ITEM_SIZE[dtype]);
      const { requiresGrad } = record;
      makeTensorRecord(
        { dtype, shape, stride, storageOffset: offset, storage: narrow, requiresGrad },
        this.label,
        where,
      );
    }
    return record;
  }

  format(message: string, at: number): Error {
    return checkpointError('ERR_SENET_CHECKPOINT_FORMAT', this.label, `damaged pickle: ${message}`, at);
  }

  /** An error about a value of the wrong kind: one that a global is the reason of names it. */
  mismatch(value: Value | undefined, message: string, at: number): Error {
    const global = unknownGlobal(value);
    return global === null ? this.format(message, at) : unsafe(this.label, message, global, at);
  }

  tooManyDimensions(count: number, at: number): Error {
    const message = `a tensor of ${count} dimensions, and at most ${MAX_RANK} are read`;
    return checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, message, at);
  }

  unsupported(message: string, at: number): Error {
    return checkpointError('ERR_SENET_CHECKPOINT_UNSUPPORTED', this.label, message, at);
  }

  private viewOf(storage: StorageRecord, view: Value, at: number): StorageRecord {
    if (!(view instanceof Tuple) || view.items.length !== 3 || storage.dtype === null) {
      throw this.format('view metadata that is no triple', at);
    }
    const offset = this.count(view.items[1], 'the offset of a view', at);
    const size = this.count(view.items[2], 'the size of a view', at);
    if ((offset + size) * ITEM_SIZE[storage.dtype] > storage.length) {
      throw this.format(
        `a view of elements ${offset} to ${offset + size} of a storage of ${storage.length} bytes`,
        at,
      );
    }
    const record = new StorageRecord(storage.key, storage.dtype, storage.length);
    this.views.set(record, new StorageView(storage, offset, size));
    return record;
  }

  private storageType(name: string, at: number): DType | null {
    if (UNTYPED_STORAGES.has(name)) return null;
    const type = STORAGE_GLOBALS.get(name);
    if (type === undefined) throw this.format(`a storage of the type ${name}`, at);
    if (type === null)
      throw this.unsupported(`holds a ${name}, an element type this library does not have`, at);
    return type;
  }

  private dtypeOf(value: Value | undefined, at: number): DType {
    const name = value instanceof GlobalName ? /^torch\.(\w+)$/.exec(value.name)?.[1] : undefined;
    if (name !== undefined && Object.hasOwn(ITEM_SIZE, name)) return name as DType;
    if (name !== undefined && OTHER_DTYPES.includes(name)) {
      throw this.unsupported(
        `holds a tensor of torch.${name}, an element type this library does not have`,
        at,
      );
    }
    throw this.mismatch(value, `a ${kindOf(value ?? null)} where an element type belongs`, at);
  }

  private count(value: Value | undefined, what: string, at: number): number {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
    const found = typeof value === 'number' || typeof value === 'bigint' ? `${value}` : kindOf(value ?? null);
    throw this.mismatch(value, `${found} as ${what}`, at);
  }

  private counts(value: Value | undefined, what: string, context: CallContext): number[] {
    const items = value instanceof Tuple ? value.items : Array.isArray(value) ? value : undefined;
    if (!items) throw this.mismatch(value, `a ${kindOf(value ?? null)} as ${what}`, context.at);
    if (items.length > MAX_RANK) {
      throw this.tooManyDimensions(items.length, context.at);
    }
    return items.map((item) => this.count(item, `an element of ${what}`, context.at));
  }
}

function itemsOf(value: Value | undefined, context: CallContext): readonly Value[] {
  const items = value instanceof Tuple ? value.items : Array.isArray(value) ? value : undefined;
  if (!items) throw context.rebuilder.format(`${context.name} of a ${kindOf(value ?? null)}`, context.at);
  return items;
}

function text(args: readonly Value[], index: number, context: CallContext): string {
  const value = args[index];
  if (typeof value === 'string') return value;
  throw context.rebuilder.format(`${context.name} of a ${kindOf(value ?? null)}`, context.at);
}

/** Of the bits of a tensor, which are two. */
function isAllFalse(bits: Dict): boolean {
  if (bits.size > 8) return false;
  for (const bit of bits.values()) if (bit !== false) return false;
  return true;
}

/** No argument, a dictionary, or pairs as Python 2 wrote them. */
function makeDict(args: readonly Value[], context: CallContext): Dict {
  const { making } = context;
  making.charge(COST.dict);
  const dict = new Dict();
  const source = args[0];
  if (source === undefined) return dict;
  return making.fill(
    dict,
    source instanceof Dict ? flat(source) : flat(pairsOf(itemsOf(source, context), context)),
  );
}

function* flat(entries: Iterable<readonly [Value, Value]>): Iterable<Value> {
  for (const [key, value] of entries) {
    yield key;
    yield value;
  }
}

function* pairsOf(items: readonly Value[], context: CallContext): Iterable<readonly [Value, Value]> {
  for (const pair of items) {
    const [key, value] = itemsOf(pair, context);
    if (key === undefined || value === undefined)
      throw context.rebuilder.format(`${context.name} of something else than pairs`, context.at);
    yield [key, value];
  }
}

function makeSet(args: readonly Value[], context: CallContext): Set<Value> {
  const { making } = context;
  making.charge(COST.set);
  return args.length === 0 ? new Set() : making.fill(new Set<Value>(), itemsOf(args[0], context));
}

function makeComplex(args: readonly Value[], context: CallContext): Complex {
  const [real = 0, imaginary = 0] = args;
  if (typeof real !== 'number' || typeof imaginary !== 'number') {
    throw context.rebuilder.format(
      `${context.name} of a ${kindOf(real)} and a ${kindOf(imaginary)}`,
      context.at,
    );
  }
  return new Complex(real, imaginary);
}

/** Never of a number: `bytearray(n)` would take memory that the file does not hold. */
function makeByteArray(args: readonly Value[], context: CallContext): Uint8Array {
  context.making.charge(COST.bytes);
  if (args.length === 0) return new Uint8Array();
  if (args.length === 1 && isUint8Array(args[0])) {
    context.making.charge(args[0].length);
    const bytes = new Uint8Array(args[0].length);
    context.making.defer(copyPieces(bytes, args[0]));
    return bytes;
  }
  return encode(args, context);
}

/** How protocol 2 spells bytes: text whose characters are the bytes. */
function encode(args: readonly Value[], context: CallContext): Uint8Array {
  const [characters] = args;
  const pieces = characters instanceof LongText ? characters.pieces : [text(args, 0, context)];
  const encoding = args.length > 1 ? text(args, 1, context) : '';
  if (!/^latin-?1$/.test(encoding)) {
    throw context.rebuilder.format(
      `${context.name} to '${printable(encoding, 40)}', and only latin1 is read`,
      context.at,
    );
  }
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  context.making.charge(COST.bytes + length);
  const bytes = new Uint8Array(length);
  context.making.defer(encodeInto(bytes, pieces, context));
  return bytes;
}

function* encodeInto(bytes: Uint8Array, pieces: readonly string[], context: CallContext): Sliced<void> {
  const buffer = Buffer.from(bytes.buffer);
  let at = 0;
  for (const piece of pieces) {
    if (at > 0) yield;
    buffer.write(piece, at, 'latin1');
    if (buffer.toString('latin1', at, at + piece.length) !== piece) {
      throw context.rebuilder.format(`${context.name} of characters outside latin1`, context.at);
    }
    at += piece.length;
  }
}

function makeSize(args: readonly Value[], context: CallContext): Tuple {
  const items = itemsOf(args[0], context);
  if (items.length > MAX_RANK) throw context.rebuilder.tooManyDimensions(items.length, context.at);
  context.making.charge(COST.tuple);
  return new Tuple([...items]);
}

/** A device is only its name: everything is read to the CPU. */
function makeDevice(args: readonly Value[], context: CallContext): string {
  const type = text(args, 0, context);
  context.making.charge(COST.string + 2 * type.length);
  return typeof args[1] === 'number' ? `${type}:${args[1]}` : type;
}

/** A parameter is its tensor, with requires_grad as the file says; True where it does not, as in Python. */
function makeParameter(args: readonly Value[], context: CallContext): TensorRecord {
  const [tensor, requiresGrad = true] = args;
  if (!(tensor instanceof TensorRecord) || typeof requiresGrad !== 'boolean') {
    throw context.rebuilder.format(`${context.name} of a ${kindOf(tensor ?? null)}`, context.at);
  }
  const { dtype, shape, stride, storageOffset, storage } = tensor;
  context.making.charge(COST.object);
  return makeTensorRecord(
    { dtype, shape, stride, storageOffset, storage, requiresGrad },
    context.rebuilder.label,
    `parameter of the pickle at byte ${context.at}`,
  );
}

/** `(function, type, arguments, state)`: a tensor with Python attributes, which are dropped. Of another type it is unknown. */
function rebuildFromType(args: readonly Value[], context: CallContext): Value {
  const [callable, , inner] = args;
  if (
    !(callable instanceof GlobalName) ||
    !/^torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter)$/.test(callable.name) ||
    !(inner instanceof Tuple)
  ) {
    throw context.rebuilder.format(`${context.name} of a ${kindOf(callable ?? null)}`, context.at);
  }
  return context.rebuilder.call(callable, inner.items, context.at, context.making);
}
