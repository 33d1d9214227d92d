/**
 * The bytes of a pickle from opcode to opcode: fixed lengths, lines, and the numbers in them. Lengths are compared with the
 * bytes that are there before anything is made, and what is made is charged to a `Budget`. Knows neither opcodes nor
 * the stack.
 */
import { TextDecoder } from 'node:util';
import { printable } from '../printable';
import type { Budget } from './budget';
import { COST, MAX_INTEGER_DIGITS, MAX_LINE_BYTES } from './limits';
import { checkpointError } from './problems';

/** The bytes end inside the pickle. The caller knows whether the file goes on. */
export class EndOfPickle extends Error {
  /** @param needed - how many bytes the array would have to hold, at least */
  constructor(readonly needed: number) {
    super('the bytes end inside a pickle');
  }
}
/** What is read, as `PickleSource` has it. */
interface Input {
  readonly bytes: Uint8Array;
  readonly budget: Budget;
  readonly label: string;
  readonly base?: number;
}

export class PickleInput {
  protected readonly buffer: Buffer;
  protected readonly budget: Budget;
  protected readonly label: string;
  protected readonly base: number;
  protected position: number;
  protected opcodeAt: number;

  constructor({ bytes, budget, label, base = 0 }: Input, start: number) {
    this.buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.budget = budget;
    this.label = label;
    this.base = base;
    this.position = start;
    this.opcodeAt = start;
  }

  charge(bytes: number): void {
    this.budget.charge(bytes, this.here());
  }

  protected here(): number {
    return this.base + this.opcodeAt;
  }

  protected format(message: string): Error {
    return checkpointError(
      'ERR_SENET_CHECKPOINT_FORMAT',
      this.label,
      `damaged pickle: ${message}`,
      this.here(),
    );
  }

  protected limit(message: string): Error {
    return checkpointError('ERR_SENET_CHECKPOINT_LIMIT', this.label, message, this.here());
  }

  protected need(count: number): void {
    if (count > this.buffer.length - this.position) throw new EndOfPickle(this.position + count);
  }

  /** Skips `count` bytes that must be there and gives the index of the first. */
  protected take(count: number): number {
    this.need(count);
    const at = this.position;
    this.position += count;
    return at;
  }

  protected byte(): number {
    return this.buffer[this.take(1)] as number;
  }

  protected uint32(): number {
    return this.buffer.readUInt32LE(this.take(4));
  }

  /** A 64-bit length; beyond 2**53 it is certainly more than there is. */
  protected length64(): number {
    const at = this.take(8);
    return this.buffer.readUInt32LE(at + 4) * 2 ** 32 + this.buffer.readUInt32LE(at);
  }

  protected line(encoding: 'utf8' | 'latin1'): string {
    const limit = Math.min(this.buffer.length, this.position + MAX_LINE_BYTES);
    const end = this.buffer.subarray(this.position, limit).indexOf(0x0a);
    if (end < 0) {
      if (limit === this.buffer.length) throw new EndOfPickle(limit + 1);
      throw this.limit(`a line of more than ${MAX_LINE_BYTES} bytes`);
    }
    const at = this.take(end + 1);
    this.charge(COST.string + 2 * end);
    return this.buffer.toString(encoding, at, at + end);
  }

  protected long(length: number): number | bigint {
    this.need(length);
    if (length > MAX_INTEGER_DIGITS) throw this.limit(`an integer of ${length} bytes`);
    this.charge(COST.number + length);
    const at = this.take(length);
    if (length === 0) return 0;
    if (length <= 6) return this.buffer.readIntLE(at, length);
    const hex = Buffer.from(this.buffer.subarray(at, at + length))
      .reverse()
      .toString('hex');
    return narrow(BigInt.asIntN(length * 8, BigInt(`0x${hex}`)));
  }

  protected textInteger(mayBeBoolean: boolean): number | bigint | boolean {
    const line = this.line('latin1').trim();
    if (mayBeBoolean && (line === '00' || line === '01')) return line === '01';
    if (line.length > MAX_INTEGER_DIGITS) throw this.limit(`an integer of ${line.length} digits`);
    if (!/^[+-]?\d+L?$/.test(line)) throw this.format(`'${printable(line, 40)}' where an integer belongs`);
    return narrow(BigInt(line.replace(/[+L]/g, '')));
  }

  protected textIndex(): number {
    const line = this.line('latin1');
    if (!/^\d{1,10}$/.test(line)) throw this.format(`'${printable(line, 40)}' where a memo index belongs`);
    return Number(line);
  }

  protected textFloat(): number {
    const line = this.line('latin1').trim();
    const special = /^([+-]?)(inf|infinity|nan)$/i.exec(line);
    if (special) return /n/i.test(special[2]?.[0] ?? '') ? NaN : special[1] === '-' ? -Infinity : Infinity;
    if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(line)) {
      throw this.format(`'${printable(line, 40)}' where a number belongs`);
    }
    return Number(line);
  }
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Null for bytes that are no UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return null;
  }
}
function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** The escapes of Python's `repr` and `raw-unicode-escape`. */
export function unescape(text: string): string {
  return text.replace(
    /\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(00[01][0-9a-f]{5})|([0-7]{1,3})|([\s\S]))/gi,
    (whole, x?: string, u?: string, long?: string, octal?: string, other?: string) => {
      const hex = x ?? u ?? long;
      if (hex !== undefined) {
        const code = parseInt(hex, 16);
        return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
      }
      if (octal !== undefined) return String.fromCharCode(parseInt(octal, 8) & 0xff);
      return { n: '\n', r: '\r', t: '\t', '\\': '\\', "'": "'", '"': '"' }[other ?? ''] ?? whole;
    },
  );
}
