/** What a source of images is to those who answer many: images with names, in an order. Reads nothing. */
import { makeError } from '../errors';
import { checkInteger, describe } from '../tensor/options';
import type { ImageSource } from '../vision/image-work';

/** An image with the name that its row has. */
export interface NamedImage {
  /** As rows name it: its path, or an archive's path with the name inside. */
  readonly file: string;
  /** The image, or what reads it; called at most once, before the next image is asked for. */
  readonly image: ImageSource | (() => ImageSource | Promise<ImageSource>);
  /** Bytes that `image` holds or reads into memory. Default 0: the classifier reads the file itself, when its turn comes. */
  readonly bytes?: number;
}

/** Images in an order: paths, or whatever else a classifier takes, with names or without. */
export type ManyImages =
  Iterable<ImageSource | NamedImage> | AsyncIterable<ImageSource | NamedImage> | SelectableImages;

/** One of several parts of a list: the images at the places number - 1, number - 1 + of, ... */
export interface Shard {
  /** From 1 to `of`. */
  readonly number: number;
  readonly of: number;
}

export interface Selection {
  readonly shard?: Shard | undefined;
  /** Images at the beginning of the shard whose names alone are wanted. Default 0. */
  readonly skip?: number | undefined;
}

export interface SelectedImage {
  /** In the whole list, from 0. */
  readonly index: number;
  readonly file: string;
  /** Null where the name alone was wanted. */
  readonly image: NamedImage['image'] | null;
  readonly bytes: number;
}

/** A list that saves itself the reading of what is not wanted. */
export interface SelectableImages {
  /** The images of a shard, in order. */
  select(selection?: Selection): AsyncIterable<SelectedImage>;
}

/** An image's place in a list. */
export interface Place {
  /** From 0. */
  readonly index: number;
  /** False where its name alone is wanted. */
  readonly read: boolean;
}

/** Asked once for each image of a list, in order: null for one of another shard. */
export type Choose = () => Place | null;

export function chooser({ shard, skip = 0 }: Selection): Choose {
  let [index, chosen] = [-1, 0];
  return () => {
    index++;
    if (shard !== undefined && index % shard.of !== shard.number - 1) return null;
    return { index, read: chosen++ >= skip };
  };
}

/** The images of a shard, whatever the list is. */
export async function* selectImages(images: ManyImages, selection: Selection): AsyncGenerator<SelectedImage> {
  if (isSelectable(images)) {
    yield* images.select(selection);
    return;
  }
  const choose = chooser(selection);
  for await (const given of images) {
    const place = choose();
    if (place === null) continue;
    const { file, image, bytes = 0 } = named(given, place.index);
    checkInteger(bytes, `${file}: bytes`, 0);
    yield { index: place.index, file, image: place.read ? image : null, bytes };
  }
}

function isSelectable(images: ManyImages): images is SelectableImages {
  return 'select' in images && typeof images.select === 'function';
}

/** @throws ERR_SENET_ARG_TYPE */
export function checkImages(images: unknown, where: string): asserts images is ManyImages {
  const { select, [Symbol.iterator]: each, [Symbol.asyncIterator]: eachAsync } = (images ?? {}) as never;
  if (typeof images === 'object' && [select, each, eachAsync].some((one) => typeof one === 'function'))
    return;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `${where}: images: expected an array or another iterable of images, or what listImages gives, got ${describe(images)}`,
  );
}

/** What has no path is called by its place. What is no image is the classifier's to tell. */
function named(given: ImageSource | NamedImage, index: number): NamedImage {
  if (isNamed(given)) return given;
  const text = (given as Partial<URL>).href ?? given;
  const file = typeof text === 'string' && !/^data:/i.test(text) ? text : `image ${index}`;
  return { file, image: given };
}

function isNamed(given: ImageSource | NamedImage): given is NamedImage {
  const { file, image } = ((given as unknown) ?? {}) as Partial<NamedImage>;
  return typeof given === 'object' && typeof file === 'string' && image !== undefined;
}
