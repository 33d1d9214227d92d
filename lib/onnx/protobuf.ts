/**
 * Writes Protocol Buffers: the wire format (protobuf.dev/programming-guides/encoding) and no schema. A message knows its
 * length before a large field of it exists, so that a file is written as a stream. Knows nothing of ONNX.
 */
import { isUint8Array } from '../brands';

/** Bytes that are made when their turn comes. */
export interface LateBytes {
  readonly length: number;
  pieces(): Iterable<Uint8Array>;
}

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** One message; fields are written in the order of the calls. */
export class Message implements LateBytes {
  readonly #parts: (Uint8Array | LateBytes)[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Of int32, int64, uint64, bool and enums. @param value - a safe integer */
  integer(field: number, value: number): this {
    return this.#tagged(field, VARINT, varint(value));
  }

  float(field: number, value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return this.#tagged(field, FIXED32, bytes);
  }

  text(field: number, value: string): this {
    return this.bytes(field, Buffer.from(value));
  }

  /** Of bytes, and of a message inside this one, which must not change afterwards. */
  bytes(field: number, value: Uint8Array | LateBytes): this {
    return this.#tagged(field, LENGTH_DELIMITED, varint(value.length)).#add(value);
  }

  *pieces(): Iterable<Uint8Array> {
    for (const part of this.#parts) {
      if (isUint8Array(part)) yield part;
      else yield* part.pieces();
    }
  }

  #tagged(field: number, wireType: number, value: Uint8Array): this {
    return this.#add(varint(field * 8 + wireType)).#add(value);
  }

  #add(part: Uint8Array | LateBytes): this {
    this.#parts.push(part);
    this.#length += part.length;
    return this;
  }
}

/** Seven bits a byte, the lowest first; a negative number as the 64 bits of its two's complement. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}
