/**
 * From the bytes of a JPEG or PNG to a network's input in one job: rows go from the decoder (the libvips that sharp
 * brings) into the resize as they come, and the whole picture is never in memory. The same numbers as `decode` and
 * `preprocessing` one after the other, which do all other images: also those that turn out to be damaged, so that what is
 * wrong with them is said in one place.
 */
import type { NativePlacement, TensorHandle } from '../binding';
import type { Preprocessing } from '../models/preprocessing-record';
import { binding } from '../native';
import { runJob } from '../tensor/jobs';
import { wrapTensor, type Tensor } from '../tensor/tensor';
import type { Hold } from './byte-budget';
import { decoding, formatOf, loadDecoder, MAX_PIXELS } from './decode';
import { jpegFrame, pngFrame, type Frame } from './image-frame';
import { pngOrientation } from './png';
import { normalisationTable, placementOf, resizedSize } from './preprocessing';
import { recordChannels } from './preprocessing-options';

/** Bytes of a pixel at most, and rows that decoder and resize hold of an image, but for what the resize's window needs. */
const [PIXEL_BYTES, HELD_ROWS] = [4, 512];
/** Rows that a row of the result is made of, at most, for each that falls to it: cubic, twice, and as many that wait. */
const WINDOW = 8;
/** A JPEG that is shrunk while it is decoded stays so many times as large as the result of resizing. */
const LEFT_TO_RESIZE = 2;
const MOST_HALVINGS = 3;

export interface ByRowsOptions {
  readonly record: Preprocessing;
  /** Lets a JPEG be shrunk by libjpeg where it is much larger than the record wants it: not Pillow's pixels. */
  readonly shrinkOnLoad: boolean;
  /** Width x height at most. Default `MAX_PIXELS`. */
  readonly maxPixels?: number;
  /** Whether the bytes are somebody else's, who may change them once this has rejected or resolved, or before. */
  readonly borrowed: boolean;
  /** Waits for memory before anything is decoded. */
  readonly reserve: Hold['reserve'];
}

/**
 * The network's input, 1 x C x height x width, float32; undefined, soon, for an image that is not prepared in this way.
 *
 * @throws (rejects) what `reserve` rejects with; ERR_SENET_THREADS, ERR_SENET_OUT_OF_MEMORY, ERR_SENET_CLOSING
 */
export async function prepareByRows(
  bytes: Buffer,
  { record, shrinkOnLoad, maxPixels = MAX_PIXELS, borrowed, reserve }: ByRowsOptions,
): Promise<Tensor | undefined> {
  const format = formatOf(bytes);
  if (format !== 'jpeg' && format !== 'png') return undefined;
  const frame = format === 'jpeg' ? jpegFrame(bytes) : pngFrame(bytes);
  if (frame === undefined || !isUsual(frame, record, maxPixels)) return undefined;
  await loadDecoder();
  if (!binding.canPrepareImages()) return undefined;
  const { width, height } = frame;
  const table = await normalisationTable(record);
  await reserve(heldBytes(frame, record));
  const halvings = format === 'jpeg' && shrinkOnLoad ? halvingsOf(record, frame) : 0;
  const submit = (): number =>
    binding.prepareImage(
      ...([bytes, format, [height, width], halvings] as const),
      format === 'jpeg' ? 0 : uprightness(pngOrientation(bytes)),
      ...([placement(record, height, width), placement(record, width, height)] as const),
      ...([record.interpolation, record.channels !== 'rgb', table, borrowed] as const),
    );
  const handle = (await decoding.together(() => runJob(submit))) as TensorHandle | null;
  if (handle === null) return undefined;
  const input = wrapTensor(handle);
  const channels = recordChannels(record);
  if (channels === input.shape[1]) return input;
  const repeated = input.expand([-1, channels, -1, -1]);
  input.dispose();
  return repeated;
}

/** No more pixels than are decoded or made, which is refused elsewhere. */
function isUsual({ width, height }: Frame, { size }: Preprocessing, maxPixels: number): boolean {
  if (width < 1 || height < 1 || width * height > maxPixels) return false;
  const [newHeight, newWidth] = resizedSize(size, height, width);
  const [turnedHeight, turnedWidth] = resizedSize(size, width, height);
  return Math.max(newHeight * newWidth, turnedHeight * turnedWidth) <= MAX_PIXELS;
}

/** Most that decoder and resize hold at a time, in bytes. */
function heldBytes({ width, height, wholeBytes }: Frame, record: Preprocessing): number {
  const shrink = Math.max(...sidesOf(record, height, width).map(({ from, to }) => from / to));
  const rows = Math.min(height, HELD_ROWS + WINDOW * Math.ceil(shrink));
  return wholeBytes + rows * width * PIXEL_BYTES;
}

/** How often a JPEG may be halved, however it is turned. */
function halvingsOf(record: Preprocessing, { width, height }: Frame): number {
  const shrink = Math.min(...sidesOf(record, height, width).map(({ from, to }) => from / to));
  return Math.max(0, Math.min(MOST_HALVINGS, Math.floor(Math.log2(shrink / LEFT_TO_RESIZE))));
}

/** Each side and what it is resized to, for both ways that the image may be turned. */
function sidesOf({ size }: Preprocessing, height: number, width: number): { from: number; to: number }[] {
  const [newHeight, newWidth] = resizedSize(size, height, width);
  const [turnedHeight, turnedWidth] = resizedSize(size, width, height);
  return [
    { from: height, to: newHeight },
    { from: width, to: newWidth },
    { from: width, to: turnedHeight },
    { from: height, to: turnedWidth },
  ];
}

/** Of EXIF's values the eight that mean something; all others are no turn. */
function uprightness(orientation: number | undefined): number {
  return orientation !== undefined && orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/** What becomes of an upright image of this size. */
function placement(record: Preprocessing, height: number, width: number): NativePlacement {
  const { size, box, padding } = placementOf(record, height, width);
  const [left, right, top, bottom] = (padding ?? [0, 0, 0, 0]) as [number, number, number, number];
  const around = record.pad;
  return [
    ...size,
    ...([box.top, box.left, box.height, box.width] as const),
    ...([top + around, left + around] as const),
    ...([box.height + top + bottom + 2 * around, box.width + left + right + 2 * around] as const),
  ];
}
