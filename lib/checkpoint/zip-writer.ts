/**
 * Writes a stored zip archive piece by piece, each entry's contents at a multiple of 64 bytes as PyTorch has them, with
 * the CRC after the contents so that nothing is held or read twice. Zip64 where sizes need it. Follows the .ZIP File
 * Format Specification (APPNOTE 6.3) and `caffe2/serialize/inline_container.cc`. Knows nothing of tensors.
 */
import { crc32 } from 'node:zlib';

/** Where the archive goes; bytes are written in the order of the calls. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>;
}

const ALIGNMENT = 64;
/** Id of the extra field that PyTorch pads with: 'FB' in the file. */
const PADDING_FIELD = 0x4246;
const ZIP64_FIELD = 0x0001;
/** Sizes and CRC follow the contents; names are UTF-8. */
const FLAGS = 0x0808;
const VERSION = 45;
const LIMIT_32 = 0xffffffff;

interface WrittenEntry {
  readonly name: Buffer;
  readonly headerOffset: number;
  readonly length: number;
  readonly crc: number;
}

export class ZipWriter {
  private position = 0;
  private readonly entries: WrittenEntry[] = [];

  /**
   * @param sink - receives the archive
   * @param smallLimit - sizes and offsets from here on are written as zip64; smaller only in tests
   */
  constructor(
    private readonly sink: ByteSink,
    private readonly smallLimit = LIMIT_32,
  ) {}

  /** Writes one entry of exactly `length` bytes. */
  async add(name: string, length: number, pieces: Iterable<Uint8Array>): Promise<void> {
    const nameBytes = Buffer.from(name);
    const headerOffset = this.position;
    const large = length >= this.smallLimit;
    await this.write(localHeader(nameBytes, headerOffset, large));
    let crc = 0;
    let written = 0;
    for (const piece of pieces) {
      crc = crc32(piece, crc);
      written += piece.length;
      await this.write(piece);
    }
    if (written !== length) throw new RangeError(`entry '${name}': ${written} bytes written of ${length}`);
    await this.write(dataDescriptor(crc, length, large));
    this.entries.push({ name: nameBytes, headerOffset, length, crc });
  }

  /** Writes the directory; nothing may follow. */
  async finish(): Promise<void> {
    const start = this.position;
    for (const entry of this.entries) await this.write(directoryEntry(entry, this.smallLimit));
    const length = this.position - start;
    const count = this.entries.length;
    if (count >= 0xffff || start >= this.smallLimit || length >= this.smallLimit) {
      await this.write(zip64End(count, start, length, this.position));
    }
    const end = Buffer.alloc(22);
    end.writeUInt32LE(0x06054b50, 0);
    end.writeUInt16LE(Math.min(count, 0xffff), 8);
    end.writeUInt16LE(Math.min(count, 0xffff), 10);
    end.writeUInt32LE(length >= this.smallLimit ? LIMIT_32 : length, 12);
    end.writeUInt32LE(start >= this.smallLimit ? LIMIT_32 : start, 16);
    await this.write(end);
  }

  private async write(bytes: Uint8Array): Promise<void> {
    await this.sink.write(bytes);
    this.position += bytes.length;
  }
}

/** Ends at a multiple of the alignment. A large entry's zip64 field says that its descriptor has 64-bit sizes. */
function localHeader(name: Buffer, offset: number, large: boolean): Buffer {
  const zip64Bytes = large ? 20 : 0;
  const unpadded = offset + 30 + name.length + zip64Bytes + 4;
  const padding = (ALIGNMENT - (unpadded % ALIGNMENT)) % ALIGNMENT;
  const header = Buffer.alloc(30 + name.length + zip64Bytes + 4 + padding);
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(large ? VERSION : 0, 4);
  header.writeUInt16LE(FLAGS, 6);
  if (large) {
    header.writeUInt32LE(LIMIT_32, 18);
    header.writeUInt32LE(LIMIT_32, 22);
  }
  header.writeUInt16LE(name.length, 26);
  header.writeUInt16LE(zip64Bytes + 4 + padding, 28);
  header.set(name, 30);
  let at = 30 + name.length;
  if (large) {
    header.writeUInt16LE(ZIP64_FIELD, at);
    header.writeUInt16LE(16, at + 2);
    at += zip64Bytes;
  }
  header.writeUInt16LE(PADDING_FIELD, at);
  header.writeUInt16LE(padding, at + 2);
  header.fill('Z', at + 4);
  return header;
}

function dataDescriptor(crc: number, length: number, large: boolean): Buffer {
  const descriptor = Buffer.alloc(large ? 24 : 16);
  descriptor.writeUInt32LE(0x08074b50, 0);
  descriptor.writeUInt32LE(crc, 4);
  if (large) {
    descriptor.writeBigUInt64LE(BigInt(length), 8);
    descriptor.writeBigUInt64LE(BigInt(length), 16);
  } else {
    descriptor.writeUInt32LE(length, 8);
    descriptor.writeUInt32LE(length, 12);
  }
  return descriptor;
}

function directoryEntry(entry: WrittenEntry, smallLimit: number): Buffer {
  const largeLength = entry.length >= smallLimit;
  const largeOffset = entry.headerOffset >= smallLimit;
  const values = [
    ...(largeLength ? [entry.length, entry.length] : []),
    ...(largeOffset ? [entry.headerOffset] : []),
  ];
  const fieldBytes = values.length > 0 ? 4 + 8 * values.length : 0;
  const record = Buffer.alloc(46 + entry.name.length + fieldBytes);
  record.writeUInt32LE(0x02014b50, 0);
  record.writeUInt16LE(fieldBytes > 0 ? VERSION : 0, 6);
  record.writeUInt16LE(FLAGS, 8);
  record.writeUInt32LE(entry.crc, 16);
  record.writeUInt32LE(largeLength ? LIMIT_32 : entry.length, 20);
  record.writeUInt32LE(largeLength ? LIMIT_32 : entry.length, 24);
  record.writeUInt16LE(entry.name.length, 28);
  record.writeUInt16LE(fieldBytes, 30);
  record.writeUInt32LE(largeOffset ? LIMIT_32 : entry.headerOffset, 42);
  record.set(entry.name, 46);
  if (fieldBytes > 0) {
    let at = 46 + entry.name.length;
    record.writeUInt16LE(ZIP64_FIELD, at);
    record.writeUInt16LE(8 * values.length, at + 2);
    at += 4;
    for (const value of values) {
      record.writeBigUInt64LE(BigInt(value), at);
      at += 8;
    }
  }
  return record;
}

function zip64End(count: number, start: number, length: number, position: number): Buffer {
  const end = Buffer.alloc(56 + 20);
  end.writeUInt32LE(0x06064b50, 0);
  end.writeBigUInt64LE(44n, 4);
  end.writeUInt16LE(VERSION, 12);
  end.writeUInt16LE(VERSION, 14);
  end.writeBigUInt64LE(BigInt(count), 24);
  end.writeBigUInt64LE(BigInt(count), 32);
  end.writeBigUInt64LE(BigInt(length), 40);
  end.writeBigUInt64LE(BigInt(start), 48);
  end.writeUInt32LE(0x07064b50, 56);
  end.writeBigUInt64LE(BigInt(position), 64);
  end.writeUInt32LE(1, 72);
  return end;
}
