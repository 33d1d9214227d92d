/**
 * What a network saw in one image that is its input already: labels, where it looked, and the gates of its SE layers, as
 * plain numbers. Knows no file and no queue.
 */
import { performance } from 'node:perf_hooks';

import { makeError } from '../errors';
import { CAM_METHODS, type CamMethod } from '../explain/cam-methods';
import { independent, mapOf, resizeMap, targetsOf } from '../explain/class-activation-map';
import { normalise } from '../explain/cam-formulas';
import { gatesOf, observeGates } from '../explain/excitations';
import { gateChanges, type GateChanges } from '../explain/gate-changes';
import { requireScores, type Observation } from '../explain/observe';
import { scoreMap } from '../explain/score-cam';
import { findSELayers, type SELayerPlace } from '../explain/se-layers';
import { activationsOf, chooseLayer, type TargetLayer } from '../explain/target-layer';
import type { Preprocessing } from '../models/preprocessing-record';
import { Module } from '../nn/module';
import { tensor } from '../tensor/factories';
import { callHereOrAsync } from '../tensor/ops';
import { boolean, integer, oneOf, optional, orElse, signal, string, type Rules } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import {
  toJson,
  type ChannelActivation,
  type Explanation,
  type LayerExcitation,
  type Picture,
  type Plane,
} from './explanation';
import { INLINE_ELEMENTS } from './preprocessing';
import { nanError, rank, type Classification } from './ranking';

export interface ExplainOptions {
  /** How many labels, best first; clamped to the number of classes. Default 5. */
  topK?: number;
  /**
   * How the map is made: 'gradcam' (default), 'gradcam++', 'layercam', or 'scorecam', which takes a forward for each channel
   * of the layer; false: no map.
   */
  cam?: CamMethod | false;
  /** Path of the module that the map is of ("layer4.2"). Default: the last block. */
  layer?: string;
  /** Index of the class that the map is of. Default: the best. */
  target?: number;
  /** Whether to give the gates of the SE layers. Default true. */
  excitations?: boolean;
  /** Of each SE layer so many of the strongest channels, and as many of the weakest, with their activations. Default 0. */
  channels?: number;
  /** "What if": gates that are others (`gatedForward`). Not with 'scorecam'. Default: none. */
  gates?: GateChanges;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

/** Most channels of a layer whose activations are given, of either kind. */
const MOST_CHANNELS = 64;

export const EXPLAIN = {
  topK: orElse(5, integer(1)),
  cam: (given: unknown, what: string): CamMethod | false =>
    given === false ? false : orElse('gradcam', oneOf(CAM_METHODS))(given, what),
  layer: optional(string),
  target: optional(integer(0)),
  excitations: orElse(true, boolean),
  channels: orElse(0, integer(0, MOST_CHANNELS)),
  gates: gateChanges,
  signal,
} satisfies Rules<ExplainOptions>;

export type CheckedExplainOptions = { [K in keyof typeof EXPLAIN]: ReturnType<(typeof EXPLAIN)[K]> };

/** What a classifier knows. */
export interface ExplainedNetwork {
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
}

const WHERE = 'explain';

/**
 * Explains one image. To be called inside a `tidy`.
 *
 * @param x - 1 x C x H x W, of the dtype and on the device of the model
 * @throws (rejects) as `ImageClassifier.explain`
 */
export async function explainInput(
  model: Module<unknown>,
  x: Tensor,
  options: CheckedExplainOptions,
  { labels, preprocessing }: ExplainedNetwork,
): Promise<Explanation> {
  const { topK, cam, gates, signal } = options;
  const began = performance.now();
  if (cam === 'scorecam' && Object.keys(gates).length > 0) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${WHERE}: gates: 'scorecam' is of the network as it is; ask for another map, or none`,
    );
  }
  const layers = findSELayers(model);
  const place = { signal, where: WHERE };
  const layer = cam === false ? undefined : await chooseLayer(model, options.layer, x, place);
  const also = [
    ...(layer === undefined ? [] : [layer.module]),
    ...(options.channels === 0 ? [] : layers.map((one) => one.layer)),
  ];
  const gradients = cam !== false && cam !== 'scorecam';
  const seen = await observeGates(model, x, { layers, gates, also, gradients, signal }, WHERE);
  const scores = requireScores(seen, x, WHERE);
  const detached = scores.detach();
  const [ranked] = rank(detached, labels, [topK]);
  if (ranked === null || ranked === undefined) throw nanError(`${WHERE}: image`);
  const [target] = targetsOf(options.target, detached, WHERE) as [number];
  const small = layer && (await makeMap(model, x, seen, { layer, target, scores, cam, signal }));
  const size = [x.shape[2] as number, x.shape[3] as number] as const;
  const large = small && (await resizeMap(small, size));
  const excitations = options.excitations ? await layersOf(seen, layers, options.channels) : null;
  const explanation = {
    labels: ranked,
    target: classOf(detached, labels, target),
    method: cam === false ? null : cam,
    layer: layer?.path ?? null,
    map: large === undefined ? null : planeOf(large.squeeze(0)),
    layerMap: small === undefined ? null : planeOf(small.squeeze(0)),
    input: await pictureOf(x, preprocessing),
    excitations,
    milliseconds: performance.now() - began,
  };
  return { ...explanation, toJSON: () => toJson(explanation) };
}

async function makeMap(
  model: Module<unknown>,
  x: Tensor,
  seen: Observation,
  given: {
    layer: TargetLayer;
    target: number;
    scores: Tensor;
    cam: CamMethod | false;
    signal: AbortSignal | undefined;
  },
): Promise<Tensor> {
  const { layer, target, scores, cam, signal } = given;
  if (cam === false) throw independent(layer.path);
  const activations = activationsOf(seen, layer, x, WHERE);
  const targets = [target];
  const map =
    cam === 'scorecam'
      ? await scoreMap(model, x, activations, { targets, signal, where: WHERE })
      : await mapOf(cam, activations, { scores, targets, signal, again: false, path: layer.path });
  return normalise(map);
}

/** Softmax of one class. */
function classOf(scores: Tensor, labels: readonly string[], index: number): Classification {
  const probabilities = scores.to('cpu').to('float32').softmax(1).toTypedArray() as Float32Array;
  return { label: labels[index] ?? String(index), index, score: probabilities[index] as number };
}

async function layersOf(
  seen: Observation,
  layers: readonly SELayerPlace[],
  count: number,
): Promise<LayerExcitation[]> {
  const gates = gatesOf(seen, layers);
  const found: LayerExcitation[] = [];
  for (const { path, layer } of layers) {
    const gate = gates.get(path);
    if (gate === undefined) continue;
    const values = gate.to('cpu').to('float32').toTypedArray() as Float32Array;
    const order = Array.from(values.keys()).sort(
      (left, right) => (values[right] as number) - (values[left] as number) || left - right,
    );
    const output = count === 0 ? undefined : seen.outputOf(layer);
    const chosen = (channels: number[]): Promise<ChannelActivation[]> =>
      output === undefined ? Promise.resolve([]) : activationsIn(output.detach(), channels, values);
    found.push({
      path,
      type: Module.typeOf(layer),
      gates: values,
      strongest: await chosen(order.slice(0, count)),
      weakest: await chosen(order.slice(-Math.max(count, 1)).reverse().slice(0, count)),
    });
  }
  return found;
}

/** @param output - 1 x C x h x w */
async function activationsIn(
  output: Tensor,
  channels: readonly number[],
  gates: Float32Array,
): Promise<ChannelActivation[]> {
  const picked = await call('aten::index_select', output, 1, indexOf(channels, output));
  const maps = normalise(picked.squeeze(0));
  return channels.map((channel, place) => ({
    channel,
    gate: gates[channel] as number,
    map: planeOf(maps.select(0, place)),
  }));
}

function planeOf(map: Tensor): Plane {
  const [height, width] = map.shape as [number, number];
  return { width, height, data: map.to('cpu').to('float32').toTypedArray() as Float32Array };
}

function indexOf(channels: readonly number[], { device }: Tensor): Tensor {
  return tensor([...channels], { dtype: 'int64', device });
}

function call(name: string, first: Tensor, ...rest: unknown[]): Promise<Tensor> {
  const extent = { elements: first.numel, inline: INLINE_ELEMENTS };
  return callHereOrAsync(extent, name, first, ...rest) as Promise<Tensor>;
}

/** Undoes the normalisation of pixels. */
async function pictureOf(x: Tensor, { mean, std }: Preprocessing): Promise<Picture> {
  const [, channels, height, width] = x.shape as [number, number, number, number];
  const values = (await call('aten::contiguous', x.to('cpu').to('float32'))).toTypedArray() as Float32Array;
  const pixels = height * width;
  const data = new Uint8ClampedArray(3 * pixels);
  for (let colour = 0; colour < 3; colour++) {
    const from = channels === 3 ? colour * pixels : 0;
    const factor = 255 * (std[colour] ?? std[0] ?? 1);
    const offset = 255 * (mean[colour] ?? mean[0] ?? 0);
    for (let pixel = 0; pixel < pixels; pixel++)
      data[3 * pixel + colour] = (values[from + pixel] as number) * factor + offset;
  }
  return { width, height, data };
}
