/**
 * Pickles of protocol 2 as `torch.save` writes them and `torch.load(weights_only=True)` reads them: plain values, and
 * tensors as `_rebuild_tensor_v2` calls. A state dict is an OrderedDict with `_metadata` as its state. Only globals of
 * torch-globals.ts are named. Knows nothing of where tensors lie in a file.
 */
import { isMap, isPlainObject, isSet, isUint8Array } from '../brands';
import type { DType } from '../binding';
import { makeError } from '../errors';
import { isWellFormed } from '../printable';
import { describe } from '../tensor/options';
import { Tensor } from '../tensor/tensor';
import { MAX_DEPTH } from './limits';
import { StateDict } from './state-dict';
import { STORAGE_NAMES } from './tensor-record';

export interface PickledTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly stride: readonly number[];
  readonly storageOffset: number;
  readonly storageKey: string;
  /** Elements of the whole storage. */
  readonly storageSize: number;
  readonly requiresGrad: boolean;
}

const MARK = 0x28;
const EMPTY_TUPLE = 0x29;
const TUPLE = 0x74;
const TUPLE1 = 0x85;
const REDUCE = 0x52;
const SETITEMS = 0x75;
const APPENDS = 0x65;
const EMPTY_DICT = 0x7d;
const EMPTY_LIST = 0x5d;
const NONE = 0x4e;
const BUILD = 0x62;
const BINPERSID = 0x51;
const STOP = 0x2e;

/** Where a tensor lies; `name` is its place in the value, for messages. */
export type PickleTensor = (tensor: Tensor, name: string) => PickledTensor;

/**
 * The pickle of a value: null, booleans, numbers, bigints, strings, Uint8Arrays, arrays, Sets, Maps, plain objects,
 * StateDicts and Tensors, nested. What occurs in two places is written once.
 *
 * @throws ERR_SENET_ARG_TYPE for another value; ERR_SENET_ARG_RANGE for more levels than a checkpoint may have, text that no
 *   UTF-8 can hold, and keys or elements that would be one in Python
 */
export function pickleValue(value: unknown, tensorOf: PickleTensor, where: string): Buffer {
  const writer = new PickleWriter(tensorOf, where);
  writer.raw(0x80, 2);
  writer.value(value, '', 0);
  writer.raw(STOP);
  return writer.finish();
}

class PickleWriter {
  private readonly parts: Uint8Array[] = [];
  private readonly memo = new Map<object, number>();

  constructor(
    private readonly tensorOf: PickleTensor,
    private readonly where: string,
  ) {}

  value(value: unknown, place: string, depth: number): void {
    switch (typeof value) {
      case 'boolean':
        this.boolean(value);
        return;
      case 'number':
        if (Number.isSafeInteger(value) && !Object.is(value, -0)) this.integer(BigInt(value));
        else this.float(value);
        return;
      case 'bigint':
        this.integer(value);
        return;
      case 'string':
        this.checkText(value, 'a text', place);
        this.text(value);
        return;
      case 'object':
        if (value === null) this.raw(NONE);
        else this.object(value, place, depth);
        return;
      default:
        throw this.refusal(value, place);
    }
  }

  private object(value: object, place: string, depth: number): void {
    const known = this.memo.get(value);
    if (known !== undefined) {
      this.indexed(0x68, 0x6a, known); // BINGET
      return;
    }
    if (depth > MAX_DEPTH) {
      throw makeError('ERR_SENET_ARG_RANGE', `${this.where}: more than ${MAX_DEPTH} levels at '${place}'`);
    }
    const inner = (item: unknown, name: string | number): void =>
      this.value(item, place === '' ? String(name) : `${place}.${name}`, depth + 1);

    if (Tensor.isTensor(value)) {
      this.tensor(this.tensorOf(value, place));
      this.remember(value);
    } else if (Array.isArray(value)) {
      this.raw(EMPTY_LIST);
      this.remember(value);
      this.raw(MARK);
      for (let i = 0; i < value.length; i++) inner(value[i], i); // holes are refused as undefined
      this.raw(APPENDS);
    } else if (isUint8Array(value)) {
      // How protocol 2 spells bytes: text whose characters are the bytes.
      this.global('_codecs', 'encode');
      this.raw(MARK);
      this.text(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1'));
      this.text('latin1');
      this.raw(TUPLE, REDUCE);
      this.remember(value);
    } else if (isSet(value)) {
      this.global('__builtin__', 'set');
      this.raw(EMPTY_LIST, MARK);
      const items = new Set<unknown>();
      for (const item of value) {
        this.checkKey(item, place);
        this.checkApart(item, items, 'elements', place);
        this.value(item, place, depth + 1);
      }
      this.raw(APPENDS, TUPLE1, REDUCE);
      this.remember(value);
    } else if (value instanceof StateDict) {
      this.global('collections', 'OrderedDict');
      this.raw(EMPTY_TUPLE, REDUCE);
      this.remember(value);
      this.items(value, place, inner);
      if (value.metadata.size > 0) {
        this.raw(EMPTY_DICT, MARK);
        this.text('_metadata');
        this.global('collections', 'OrderedDict');
        this.raw(EMPTY_TUPLE, REDUCE);
        this.items(value.metadata, place, (facts, name) => inner(facts, `metadata of '${name}'`));
        this.raw(SETITEMS, BUILD);
      }
    } else if (isMap(value) || isPlainObject(value)) {
      this.raw(EMPTY_DICT);
      this.remember(value);
      const entries: Iterable<[unknown, unknown]> = isMap(value)
        ? value
        : Object.entries(value).filter(([, item]) => item !== undefined);
      this.items(entries, place, inner);
    } else {
      throw this.refusal(value, place);
    }
  }

  private items(
    entries: Iterable<readonly [unknown, unknown]>,
    place: string,
    inner: (item: unknown, name: string | number) => void,
  ): void {
    this.raw(MARK);
    const keys = new Set<unknown>();
    for (const [name, item] of entries) {
      this.checkKey(name, place);
      this.checkApart(name, keys, 'keys', place);
      this.value(name, place, 0);
      inner(item, String(name));
    }
    this.raw(SETITEMS);
  }

  /** What Python can hash and JavaScript tells apart by value. */
  private checkKey(key: unknown, place: string): void {
    if (key === null || ['string', 'number', 'bigint', 'boolean'].includes(typeof key)) return;
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${this.where}: expected text or a number as a key${at(place)}, got ${describe(key)}`,
    );
  }

  /** In Python 1, 1.0 and True are one key, and one element of a set. */
  private checkApart(key: unknown, keys: Set<unknown>, what: 'keys' | 'elements', place: string): void {
    if (typeof key === 'string') this.checkText(key, what === 'keys' ? 'a key' : 'an element', place);
    const same =
      typeof key === 'boolean'
        ? Number(key)
        : typeof key === 'bigint' && Number.isSafeInteger(Number(key))
          ? Number(key)
          : key;
    if (keys.has(same))
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `${this.where}: two ${what}${at(place)} would be one in Python: ${describe(key)}`,
      );
    keys.add(same);
  }

  private checkText(text: string, what: string, place: string): void {
    if (isWellFormed(text)) return;
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${this.where}: ${what} is not well-formed text${at(place)}: ${JSON.stringify(text)}`,
    );
  }

  private refusal(value: unknown, place: string): Error {
    return makeError(
      'ERR_SENET_ARG_TYPE',
      `${this.where}: expected plain values and Tensors${at(place)}, got ${describe(value)}`,
    );
  }

  raw(...bytes: number[]): void {
    this.parts.push(Uint8Array.from(bytes));
  }

  private text(text: string): void {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(5);
    head.writeUInt8(0x58, 0); // BINUNICODE
    head.writeUInt32LE(bytes.length, 1);
    this.parts.push(head, bytes);
  }

  private integer(value: bigint): void {
    if (value >= 0n && value <= 0xffn) {
      this.raw(0x4b, Number(value)); // BININT1
    } else if (value >= -(2n ** 31n) && value < 2n ** 31n) {
      const bytes = Buffer.alloc(5);
      bytes.writeUInt8(0x4a, 0); // BININT
      bytes.writeInt32LE(Number(value), 1);
      this.parts.push(bytes);
    } else {
      // Two's complement, little-endian, in as few bytes as hold the sign.
      const bytes: number[] = [];
      let rest = value;
      do {
        bytes.push(Number(rest & 0xffn));
        rest >>= 8n;
      } while (!(
        (rest === 0n && (bytes.at(-1) ?? 0) < 0x80) ||
        (rest === -1n && (bytes.at(-1) ?? 0) >= 0x80)
      ));
      if (bytes.length > 0xff)
        throw makeError('ERR_SENET_ARG_RANGE', `${this.where}: an integer of ${bytes.length} bytes`);
      this.raw(0x8a, bytes.length, ...bytes); // LONG1
    }
  }

  private float(value: number): void {
    const bytes = Buffer.alloc(9);
    bytes.writeUInt8(0x47, 0); // BINFLOAT
    bytes.writeDoubleBE(value, 1);
    this.parts.push(bytes);
  }

  private boolean(value: boolean): void {
    this.raw(value ? 0x88 : 0x89);
  }

  private integers(values: readonly number[]): void {
    this.raw(MARK);
    for (const value of values) this.integer(BigInt(value));
    this.raw(TUPLE);
  }

  private global(module: string, name: string): void {
    this.parts.push(Buffer.from(`c${module}\n${name}\n`));
  }

  private remember(value: object): void {
    const index = this.memo.size;
    this.memo.set(value, index);
    this.indexed(0x71, 0x72, index); // BINPUT
  }

  /** An opcode with a memo index of one byte, or its long form. */
  private indexed(short: number, long: number, index: number): void {
    if (index <= 0xff) {
      this.raw(short, index);
      return;
    }
    const bytes = Buffer.alloc(5);
    bytes.writeUInt8(long, 0);
    bytes.writeUInt32LE(index, 1);
    this.parts.push(bytes);
  }

  private tensor(tensor: PickledTensor): void {
    this.global('torch._utils', '_rebuild_tensor_v2');
    this.raw(MARK, MARK);
    this.text('storage');
    this.global('torch', STORAGE_NAMES[tensor.dtype]);
    this.text(tensor.storageKey);
    this.text('cpu');
    this.integer(BigInt(tensor.storageSize));
    this.raw(TUPLE, BINPERSID);
    this.integer(BigInt(tensor.storageOffset));
    this.integers(tensor.shape);
    this.integers(tensor.stride);
    this.boolean(tensor.requiresGrad);
    this.global('collections', 'OrderedDict'); // backward hooks: always none
    this.raw(EMPTY_TUPLE, REDUCE, TUPLE, REDUCE);
  }

  finish(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function at(place: string): string {
  return place === '' ? '' : ` at '${place}'`;
}
