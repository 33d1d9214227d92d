/**
 * The contents of zip entries that may be deflated: read piece by piece into as many bytes as the directory says, and
 * never more, then checked against its CRC. Knows nothing of PyTorch.
 */
import { constants, crc32, createInflateRaw, type InflateRaw } from 'node:zlib';

import { checkpointError } from './problems';
import type { ByteSource } from './source';
import type { Packed } from './tensor-record';

/** Compressed bytes that are read at a time. */
const PIECE_BYTES = 256 * 1024;

/** Contents of an entry, `start` being where its bytes begin in the file. */
interface Contents {
  /** Of the contents. */
  readonly length: number;
  readonly packed: Packed | null;
}

/**
 * The first bytes of an entry, at most `limit`.
 * Errors: ERR_SENET_CHECKPOINT_FORMAT if it does not become what the directory says.
 */
export async function contentOf(
  source: ByteSource,
  contents: Contents,
  start: number,
  limit: number,
): Promise<Uint8Array> {
  const { length, packed } = contents;
  if (packed === null) return source.read(start, Math.min(limit, length));
  const content = new Uint8Array(Math.min(limit, length));
  await unpack(source, contents, packed, start, content.length, (piece, at) => content.set(piece, at));
  return content;
}

/**
 * Gives the first bytes of a deflated entry in pieces, each with its place.
 * @param wanted - how many; fewer than all are not checked
 * Errors: ERR_SENET_CHECKPOINT_FORMAT if it does not become what the directory says.
 */
export async function unpack(
  source: ByteSource,
  { length }: Contents,
  packed: Packed,
  start: number,
  wanted: number,
  take: (piece: Uint8Array, at: number) => void,
): Promise<void> {
  let filled = 0;
  let crc = 0;
  await inflate(source, start, packed.length, (piece) => {
    if (filled + piece.length > wanted && wanted === length) throw wrongLength(source, start, length);
    const part = piece.subarray(0, wanted - filled);
    take(part, filled);
    crc = crc32(part, crc);
    filled += part.length;
    return filled < wanted || wanted === length;
  });
  if (filled < wanted) throw wrongLength(source, start, length);
  if (wanted === length && crc !== packed.crc) {
    throw damaged(source, start, 'its contents do not have the CRC that the directory gives');
  }
}

function damaged(source: ByteSource, start: number, message: string): Error {
  return checkpointError(
    'ERR_SENET_CHECKPOINT_FORMAT',
    source.label,
    `damaged zip archive: a compressed entry: ${message}`,
    start,
  );
}

function wrongLength(source: ByteSource, start: number, length: number): Error {
  return damaged(source, start, `it does not become the ${length} bytes that the directory gives`);
}

/** @param take - receives the pieces in order; what it throws ends the work, false ends it early */
async function inflate(
  source: ByteSource,
  start: number,
  length: number,
  take: (piece: Uint8Array) => boolean,
): Promise<void> {
  const stream = createInflateRaw({ chunkSize: PIECE_BYTES, finishFlush: constants.Z_SYNC_FLUSH });
  const feeding = feed(source, start, length, stream);
  // Its failure ends the stream, and is thrown from there.
  feeding.catch((error: unknown) => stream.destroy(error as Error));
  try {
    for await (const piece of stream) if (!take(piece as Uint8Array)) break;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code?.startsWith('Z_') !== true) throw error;
    throw damaged(source, start, (error as Error).message);
  } finally {
    stream.destroy();
    // The descriptor may be closed next, and may not be under a read.
    await feeding.catch(() => undefined);
  }
}

async function feed(source: ByteSource, start: number, length: number, stream: InflateRaw): Promise<void> {
  for (let done = 0; done < length && !stream.destroyed; done += PIECE_BYTES) {
    const piece = await source.read(start + done, Math.min(PIECE_BYTES, length - done));
    if (stream.destroyed) return;
    await new Promise<void>((resolve) => {
      stream.once('close', resolve);
      stream.write(piece, () => {
        stream.off('close', resolve);
        resolve();
      });
    });
  }
  if (!stream.destroyed) stream.end();
}
