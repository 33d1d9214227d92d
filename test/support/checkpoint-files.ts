/**
 * What the checkpoint tests share: paths of the fixtures, builders of hostile files, and a Python with torch if there is one.
 */
import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';

import { makeError, isSenetError, type ErrorCode } from '../../lib/errors';
import { parseCheckpoint, type ParsedCheckpoint } from '../../lib/checkpoint/parse';
import { withSource } from '../../lib/checkpoint/source';
import { ZipWriter } from '../../lib/checkpoint/zip-writer';

const FOLDER = path.join(__dirname, '..', 'fixtures');

export function fixture(...names: string[]): string {
  return path.join(FOLDER, ...names);
}

export function parse(source: string | Uint8Array): Promise<ParsedCheckpoint> {
  return withSource(source, parseCheckpoint);
}

/** Bytes from numbers, text (as UTF-8) and bytes. */
export function bytesOf(...parts: (number | string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : Buffer.from(part as Uint8Array))),
  );
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function uint64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** A zip archive; `smallLimit` 0 writes every size as zip64. */
export async function zipOf(
  entries: Record<string, Uint8Array | string>,
  smallLimit?: number,
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const sink = {
    write: (bytes: Uint8Array): Promise<void> => {
      parts.push(Buffer.from(bytes));
      return Promise.resolve();
    },
  };
  const zip = new ZipWriter(sink, smallLimit);
  for (const [name, content] of Object.entries(entries)) {
    const bytes = Buffer.from(content as Uint8Array);
    await zip.add(name, bytes.length, [bytes]);
  }
  await zip.finish();
  return Buffer.concat(parts);
}

/** A zip checkpoint around a pickle. */
export function zipCheckpoint(
  pickle: Uint8Array,
  others: Record<string, Uint8Array | string> = {},
): Promise<Buffer> {
  return zipOf({ 'x/data.pkl': pickle, 'x/byteorder': 'little', 'x/version': '3\n', ...others });
}

/** A zip archive of deflated entries; `claims` are what the directory says of those of tensors. */
export function deflatedZip(
  entries: Record<string, Uint8Array>,
  claims: { length?: number; crc?: number; packed?: Buffer } = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let position = 0;
  for (const [name, bytes] of Object.entries(entries)) {
    const isClaimed = name.includes('data/');
    const packed = (isClaimed ? claims.packed : undefined) ?? deflateRawSync(bytes);
    const length = (isClaimed ? claims.length : undefined) ?? bytes.length;
    const crc = (isClaimed ? claims.crc : undefined) ?? crc32(bytes);
    const facts = Buffer.alloc(26);
    facts.writeUInt16LE(8, 4);
    facts.writeUInt32LE(crc, 10);
    facts.writeUInt32LE(packed.length, 14);
    facts.writeUInt32LE(length, 18);
    facts.writeUInt16LE(name.length, 22);
    const local = bytesOf('PK\x03\x04', facts, name, packed);
    directory.push(bytesOf('PK\x01\x02', 0, 0, facts, Buffer.alloc(10), uint32(position), name));
    parts.push(local);
    position += local.length;
  }
  const names = Buffer.concat(directory);
  const count = Buffer.alloc(4);
  count.writeUInt16LE(directory.length, 0);
  count.writeUInt16LE(directory.length, 2);
  return Buffer.concat([
    ...parts,
    names,
    bytesOf('PK\x05\x06', Buffer.alloc(4), count, uint32(names.length), uint32(position), 0, 0),
  ]);
}

/** A safetensors file from a header, an object or JSON text. */
export function safetensorsOf(header: unknown, dataLength: number, padding = ''): Buffer {
  const json = Buffer.from((typeof header === 'string' ? header : JSON.stringify(header)) + padding);
  return Buffer.concat([uint64(json.length), json, Buffer.alloc(dataLength)]);
}

/** Runs `action`, which must reject with this code, and gives the error. */
export async function expectCode(
  action: () => Promise<unknown>,
  code: ErrorCode,
  message?: RegExp,
): Promise<Error> {
  let result: unknown;
  try {
    result = await action();
  } catch (error) {
    if (!isSenetError(error)) throw error;
    expect(error.code, error.message).to.equal(code);
    expect(error).to.be.instanceOf(makeError(code, '').constructor);
    if (message) expect(error.message).to.match(message);
    return error;
  }
  throw new Error(`expected ${code}, and got ${String(result)}`);
}

/** A Python with torch: SENET_TEST_PYTHON, else python3; null if there is none. */
export function findPython(): string | null {
  const python = process.env.SENET_TEST_PYTHON ?? 'python3';
  try {
    execFileSync(python, ['-c', 'import torch, safetensors.torch'], { stdio: 'ignore' });
    return python;
  } catch {
    return null;
  }
}
