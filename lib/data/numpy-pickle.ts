/**
 * Pickles that hold NumPy arrays of bytes, as CIFAR's Python version: read by the checkpoints' pickle reader, which
 * executes nothing, with an allow-list of the four globals that such files name. What else a pickle asks for is refused
 * by name. The layout of an array's state is in NumPy's `ndarray.__reduce__`.
 */
import { Budget } from '../checkpoint/budget';
import { MAX_HEAP_BYTES } from '../checkpoint/limits';
import { readPickle, type PickleHost } from '../checkpoint/pickle';
import { EndOfPickle } from '../checkpoint/pickle-input';
import { checkpointError } from '../checkpoint/problems';
import { Dict, GlobalName, kindOf, LongText, Tuple, type Value } from '../checkpoint/values';
import { isUint8Array } from '../brands';
import { isSenetError, makeError } from '../errors';
import { printable } from '../printable';

/** An array of bytes. */
export class ByteArray extends Dict {
  shape: readonly number[] = [];
  bytes: Uint8Array = new Uint8Array();
}

/** A `numpy.dtype`: only that of unsigned bytes is read. */
class ByteType extends Dict {}

/** An image's bytes may be there as text, which takes two bytes for each, and once more as bytes. */
const COPIES = 4;

const RECONSTRUCT = ['numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct'];
const GLOBALS = new Set([...RECONSTRUCT, 'numpy.ndarray', 'numpy.dtype', '_codecs.encode']);

/**
 * Reads one pickle.
 *
 * @throws ERR_SENET_DATA_FORMAT (damaged, truncated, arrays of other types), ERR_SENET_CHECKPOINT_UNSAFE (a global that
 *   is not on the list), ERR_SENET_CHECKPOINT_LIMIT
 */
export async function readNumpyPickle(bytes: Uint8Array, label: string): Promise<Value> {
  const budget = new Budget(label, MAX_HEAP_BYTES + COPIES * bytes.length);
  const host = new NumpyHost(label, bytes.length);
  try {
    return (await readPickle({ bytes, host, budget, label, maxText: bytes.length })).value;
  } catch (cause) {
    if (cause instanceof EndOfPickle) {
      const message = `${label}: truncated pickle: expected at least ${cause.needed} bytes, found ${bytes.length}`;
      throw makeError('ERR_SENET_DATA_FORMAT', message, { cause });
    }
    if (isSenetError(cause) && cause.code === 'ERR_SENET_CHECKPOINT_FORMAT') {
      throw makeError('ERR_SENET_DATA_FORMAT', cause.message, { cause });
    }
    throw cause;
  }
}

/** Text of a `str`, or of the `bytes` that Python 2's become. */
export function textOf(value: Value | undefined): string | undefined {
  if (typeof value === 'string') return value;
  if (value instanceof LongText) return value.toString();
  return isUint8Array(value) ? Buffer.from(value).toString('utf8') : undefined;
}

/** The value of a dictionary's key, whichever kind of string the key is. */
export function lookUp(dict: Value, key: string): Value | undefined {
  if (!(dict instanceof Dict)) return undefined;
  for (const [name, value] of dict) if (textOf(name) === key) return value;
  return undefined;
}

class NumpyHost implements PickleHost {
  /** @param budget - bytes that calls may still copy: each text of the file once */
  constructor(
    private readonly label: string,
    private budget: number,
  ) {}

  findGlobal(module: string, name: string, at: number): GlobalName {
    const full = `${module}.${name}`;
    if (GLOBALS.has(full)) return new GlobalName(full);
    throw checkpointError(
      'ERR_SENET_CHECKPOINT_UNSAFE',
      this.label,
      `the pickle asks for the global '${printable(full)}', which a data set has no use for; nothing was executed`,
      at,
    );
  }

  call(callable: GlobalName, args: readonly Value[], at: number): Value {
    if (RECONSTRUCT.includes(callable.name)) return new ByteArray();
    if (callable.name === 'numpy.dtype') {
      const type = textOf(args[0]);
      if (type === 'u1') return new ByteType();
      throw this.#format(
        `an array of type ${printable(type ?? kindOf(args[0] ?? null))}; only bytes ('u1') are read`,
        at,
      );
    }
    const [text, encoding] = args;
    const pieces = text instanceof LongText ? text.pieces : typeof text === 'string' ? [text] : null;
    if (callable.name === '_codecs.encode' && pieces !== null && textOf(encoding) === 'latin1') {
      this.budget -= pieces.reduce((sum, piece) => sum + piece.length, 0);
      if (this.budget < 0) {
        const message = 'calls that copy more bytes than the file has';
        throw checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, message, at);
      }
      return Buffer.concat(pieces.map((piece) => Buffer.from(piece, 'latin1')));
    }
    throw this.#format(`a call of ${callable.name} that is not NumPy's`, at);
  }

  build(target: Value, state: Value, at: number): void {
    if (target instanceof ByteType) return; // byte order, of which bytes have none
    if (!(target instanceof ByteArray) || !(state instanceof Tuple)) {
      throw this.#format(`the state of a ${kindOf(target)}`, at);
    }
    const [, shape, type, fortran, data] = state.items;
    const sizes = shape instanceof Tuple ? shape.items : [];
    const valid = sizes.every((size): size is number => Number.isSafeInteger(size) && (size as number) >= 0);
    const bytes = typeof data === 'string' ? new Uint8Array(Buffer.from(data, 'utf8')) : data;
    if (!valid || !(type instanceof ByteType) || fortran !== false || !isUint8Array(bytes)) {
      throw this.#format('an array whose state is not that of bytes in C order', at);
    }
    const expected = sizes.reduce((product, size) => product * size, 1);
    if (bytes.length !== expected) {
      throw this.#format(
        `an array of ${sizes.join(' x ')}: expected ${expected} bytes, found ${bytes.length}`,
        at,
      );
    }
    target.shape = sizes;
    target.bytes = bytes;
  }

  findPersistent(_id: Value, at: number): Value {
    throw this.#format('a persistent id', at);
  }

  #format(message: string, at: number): Error {
    return checkpointError('ERR_SENET_CHECKPOINT_FORMAT', this.label, message, at);
  }
}
