/**
 * ImageWork: one image on its way through a classifier's pipeline, from what the caller gave to the network's input.
 * Knows no other image and no network.
 */
import { makeError } from '../errors';
import type { Preprocessing } from '../models/preprocessing-record';
import { isFloating } from '../tensor/dtype';
import { describe } from '../tensor/options';
import { poolThreads } from '../tensor/pool-threads';
import { detached, tidy, type Disposable } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import type { Hold } from './byte-budget';
import { openBytes } from './decode';
import { prepareByRows } from './input-by-rows';
import {
  borrowBytes,
  IMAGE_SOURCES,
  isImageFileSource,
  labelOf,
  readBytes,
  type ImageFileSource,
} from './image-source';
import type { Work } from './pipeline';
import { Places } from './places';
import { preprocess, resizedSize, shapePixels, toPixels } from './preprocessing';
import { recordChannels } from './preprocessing-options';
import type { Wanted } from './ranking';

/**
 * An image file (its path, a `file:` or `data:` URL, its bytes, a Blob), or a tensor: uint8 C x H x W with C 1 or 3
 * (pixels), or floating and preprocessed: 3 x H x W, or 1 x H x W for a network of one channel.
 */
export type ImageSource = ImageFileSource | Tensor;

/** @throws ERR_SENET_ARG_TYPE; ERR_SENET_DTYPE, ERR_SENET_SHAPE, ERR_SENET_DISPOSED of a tensor */
export function checkSource(
  source: unknown,
  record: Preprocessing,
  place: string,
  where = 'classify',
): asserts source is ImageSource {
  if (isImageFileSource(source)) return;
  if (!Tensor.isTensor(source)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: ${place}: expected ${IMAGE_SOURCES} or a Tensor, got ${describe(source)}`,
    );
  }
  const { shape, dtype } = source;
  const [channels = 0] = shape;
  const preprocessed = isFloating(dtype);
  if (!preprocessed && dtype !== 'uint8') {
    throw makeError(
      'ERR_SENET_DTYPE',
      `${where}: ${place}: expected uint8 pixels or a floating, preprocessed image, got ${dtype}`,
    );
  }
  const widths = preprocessed ? [recordChannels(record)] : [3, 1];
  const expected = !preprocessed ? '3 channels or 1' : widths[0] === 1 ? '1 channel' : '3 channels';
  if (shape.length !== 3 || shape.includes(0) || !widths.includes(channels)) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: ${place}: expected an image tensor of channels x height x width, ${expected}, got [${shape.join(', ')}]`,
    );
  }
}

/** How a classifier's image files are decoded, as `ImageClassifier.load` takes it. */
export interface DecodingSettings {
  readonly shrinkOnLoad: boolean;
  readonly maxPixels: number;
}

/** Images whole at a time: each occupies a thread of libuv's pool, of which one stays free for files and names. */
const wholes = new Places(Math.max(1, poolThreads() - 1));

export class ImageWork implements Work {
  readonly encoded: boolean;
  /** Of the answer. */
  readonly wanted: Wanted;
  readonly #record: Preprocessing;
  readonly #decoding: DecodingSettings;
  readonly #asPixels: boolean;
  /** Until it is decoded. */
  #source: ImageFileSource | undefined;
  /** 1 x C x H x W: pixels, or what is preprocessed already; then the network's input. */
  #x: Tensor | undefined;
  /** Whether decoding made the network's input at once. */
  #ready = false;
  /** Tensors of this work, outside of any caller's scope: they wait for a batch. */
  readonly #owned = new Set<Disposable>();

  /**
   * @param source - that `checkSource` has passed; a tensor may be disposed from here on
   * @param asPixels - of pixels the network takes what `shapePixels` makes of them
   */
  constructor(
    source: ImageSource,
    record: Preprocessing,
    decoding: DecodingSettings,
    wanted: Wanted,
    asPixels: boolean,
  ) {
    this.encoded = !Tensor.isTensor(source);
    this.wanted = wanted;
    this.#record = record;
    this.#decoding = decoding;
    this.#asPixels = asPixels;
    if (!Tensor.isTensor(source)) this.#source = source;
    // A tensor of our own, though on the same memory.
    else this.#x = detached(this.#owned, () => source.detach().unsqueeze(0));
  }

  get key(): string {
    return `${this.input.dtype} ${this.input.shape.join(' x ')}`;
  }

  /** 1 x C x H x W, float32 or pixels, once it is preprocessed. */
  get input(): Tensor {
    return this.#x as Tensor;
  }

  async decode(reserve: Hold['reserve'], restart: Hold['restart']): Promise<void> {
    const record = this.#record;
    const source = this.#source as ImageFileSource;
    const own = borrowBytes(source);
    const borrowed = own !== undefined;
    const bytes = own ?? (await readBytes(source));
    // A device that takes pixels normalises them itself.
    const input = this.#asPixels
      ? undefined
      : await detached(this.#owned, () =>
          prepareByRows(bytes, { record, ...this.#decoding, borrowed, reserve }),
        );
    this.#ready = input !== undefined;
    if (input === undefined) restart();
    this.#x =
      input ??
      (await wholes.run(async () => {
        const kept = borrowed ? await readBytes(source) : bytes;
        return this.#decodeWhole(kept, labelOf(source), reserve);
      }));
    this.#source = undefined;
  }

  async #decodeWhole(bytes: Buffer, label: string, reserve: Hold['reserve']): Promise<Tensor> {
    const wanted = (height: number, width: number): [number, number] =>
      resizedSize(this.#record.size, height, width);
    const { shrinkOnLoad, maxPixels } = this.#decoding;
    const image = await openBytes(bytes, label, {
      maxPixels,
      ...(shrinkOnLoad ? { wantedSize: wanted } : {}),
    });
    await reserve(image.pixelBytes);
    const decoded = await image.decode();
    return detached(this.#owned, () => toPixels(decoded));
  }

  async preprocess(reserve: Hold['reserve'], signal: AbortSignal): Promise<void> {
    if (this.#ready) return;
    const x = this.input;
    const pixels = !isFloating(x.dtype);
    if (pixels && !this.encoded) await reserve(x.numel);
    this.#x = await detached(this.#owned, () =>
      tidy(() => {
        const here = x.to('cpu');
        if (!pixels) return Promise.resolve(here.to('float32'));
        const prepare = this.#asPixels ? shapePixels : preprocess;
        return prepare(here, this.#record, signal);
      }),
    );
    if (this.#x !== x) x.dispose(); // the pixels of a large photograph must not wait for the batch
  }

  dispose(): void {
    for (const tensor of this.#owned) tensor.dispose();
    this.#owned.clear();
    this.#source = undefined;
    this.#x = undefined;
  }
}
