/** Files that are gzip-compressed or not, read in pieces: what they unpack to is never held as a whole. */
import { constants, createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';

/** A byte of gzip data holds so many at most (deflate's limit). */
export const MAX_EXPANSION = 1032;

/** Unpacked at a time: each piece is a way to another thread and back. */
const CHUNK = 256 * 1024;

/** Whether a file is gzip-compressed, by its first bytes. */
export async function beginsAsGzip(file: string): Promise<boolean> {
  const handle = await open(file, constants.O_RDONLY);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b;
  } finally {
    await handle.close();
  }
}

/** A piece of what a file unpacks to. */
export interface Piece {
  readonly piece: Buffer;
  /** Bytes of the file that have been read so far. */
  readonly read: number;
}

/** The (unpacked) bytes of a file, piece by piece; who leaves early closes it. */
export async function* piecesOf(file: string, packed: boolean, signal?: AbortSignal): AsyncGenerator<Piece> {
  const source = createReadStream(file, {
    highWaterMark: CHUNK,
    ...(signal === undefined ? {} : { signal }),
  });
  const gunzip = packed ? createGunzip({ chunkSize: CHUNK }) : undefined;
  if (gunzip !== undefined) {
    source.on('error', (error) => gunzip.destroy(error));
    source.pipe(gunzip);
  }
  try {
    for await (const piece of (gunzip ?? source) as AsyncIterable<Buffer>)
      yield { piece, read: source.bytesRead };
  } finally {
    source.destroy();
    gunzip?.destroy();
  }
}

/**
 * Gives the (unpacked) bytes of a file to `take`, piece by piece; what that throws ends the reading and is thrown here.
 * (`stream.pipeline` would say "The operation was aborted" instead.)
 */
export async function readPieces(
  file: string,
  packed: boolean,
  take: (piece: Buffer) => void,
  signal?: AbortSignal,
): Promise<void> {
  for await (const { piece } of piecesOf(file, packed, signal)) take(piece);
}
