/** What an explanation of an image is, in memory and as JSON. Knows no network. */
import type { CamMethod } from '../explain/cam-methods';
import type { Classification } from './ranking';

/** One number for each pixel, from 0 to 1, row by row. */
export interface Plane {
  readonly width: number;
  readonly height: number;
  readonly data: Float32Array;
}

/** A picture: red, green and blue of each pixel, row by row. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray;
}

/** One channel in front of what an SE layer gives. */
export interface ChannelActivation {
  readonly channel: number;
  readonly gate: number;
  /** What the layer gives in this channel, from its least value to its greatest. */
  readonly map: Plane;
}

/** The gates of one SE layer. */
export interface LayerExcitation {
  /** "layer4.2.se". */
  readonly path: string;
  /** "SELayer", "SEModule", "EcaModule", "SEBlock". */
  readonly type: string;
  /** One for each channel, from 0 to 1. */
  readonly gates: Float32Array;
  /** As many as `channels` asks for, the strongest first; empty without. */
  readonly strongest: readonly ChannelActivation[];
  /** The weakest first. */
  readonly weakest: readonly ChannelActivation[];
}

/** What a classifier's network saw in an image. `JSON.stringify` gives what `POST /explain` answers. */
export interface Explanation {
  /** As of `classify`; those of the plain network where the classifier runs a compiled copy, with the changed gates if there are. */
  readonly labels: readonly Classification[];
  /** The class that the map is of. */
  readonly target: Classification;
  /** Null without a map. */
  readonly method: CamMethod | null;
  /** Path of the module that the map is of; null without one. */
  readonly layer: string | null;
  /** Where the network saw the class, in the size of its input; null without. */
  readonly map: Plane | null;
  /** The same in the size of the layer. */
  readonly layerMap: Plane | null;
  /** The picture as the network saw it: resized and cut. */
  readonly input: Picture;
  /** Of every SE layer that was called, in the network's order; null without. */
  readonly excitations: readonly LayerExcitation[] | null;
  /** Of the network and the map, without the decoding of the image. */
  readonly milliseconds: number;
  toJSON(): ExplanationJson;
}

/** Bytes of a picture in base64: with `channels` 1 from 0 to 255 for 0 to 1, with 3 red, green and blue. */
export interface PictureJson {
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 3;
  readonly data: string;
}

export interface ChannelJson {
  readonly channel: number;
  readonly gate: number;
  readonly map: PictureJson;
}

export interface LayerExcitationJson {
  readonly path: string;
  readonly type: string;
  /** With five digits behind the point. */
  readonly gates: readonly number[];
  readonly strongest: readonly ChannelJson[];
  readonly weakest: readonly ChannelJson[];
}

export interface ExplanationJson {
  readonly labels: readonly Classification[];
  readonly target: Classification;
  readonly method: string | null;
  readonly layer: string | null;
  /** In the size of the input. */
  readonly map: PictureJson | null;
  /** In the size of the layer, row by row, with six digits behind the point. */
  readonly layerMap: {
    readonly width: number;
    readonly height: number;
    readonly data: readonly number[];
  } | null;
  readonly input: PictureJson;
  readonly excitations: readonly LayerExcitationJson[] | null;
  readonly milliseconds: number;
}

export function toJson(explanation: Omit<Explanation, 'toJSON'>): ExplanationJson {
  const { map, layerMap, input, excitations, milliseconds, labels, target, method, layer } = explanation;
  return {
    ...{ labels, target, method, layer },
    map: map && planeToJson(map),
    layerMap: layerMap && {
      width: layerMap.width,
      height: layerMap.height,
      data: Array.from(layerMap.data, (value) => rounded(value, 1e6)),
    },
    input: pictureToJson(input),
    excitations:
      excitations?.map(({ path, type, gates, strongest, weakest }) => ({
        ...{ path, type },
        gates: Array.from(gates, (gate) => rounded(gate, 1e5)),
        strongest: strongest.map(channelToJson),
        weakest: weakest.map(channelToJson),
      })) ?? null,
    milliseconds: rounded(milliseconds, 1000),
  };
}

function planeToJson({ width, height, data }: Plane): PictureJson {
  const bytes = Uint8ClampedArray.from(data, (value) => 255 * value);
  return { width, height, channels: 1, data: Buffer.from(bytes.buffer).toString('base64') };
}

function pictureToJson({ width, height, data }: Picture): PictureJson {
  return { width, height, channels: 3, data: Buffer.from(data).toString('base64') };
}

function channelToJson({ channel, gate, map }: ChannelActivation): ChannelJson {
  return { channel, gate: rounded(gate, 1e5), map: planeToJson(map) };
}

function rounded(value: number, digits: number): number {
  return Math.round(value * digits) / digits;
}
