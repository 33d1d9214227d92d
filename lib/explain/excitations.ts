/** The gates of a model's SE layers for images, and its scores when they are others. */
import { makeError } from '../errors';
import { Module } from '../nn/module';
import { throwIfAborted } from '../tensor/abort';
import { describe } from '../tensor/options';
import { readOptions, signal, type Rules } from '../tensor/rules';
import { tidy } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { gateChanges, replacementsOf, type GateChanges } from './gate-changes';
import { observe, type Observation } from './observe';
import { findSELayers, type SELayerPlace } from './se-layers';

export interface ExcitationOptions {
  /** Gates that are set to other values, by the path of their SE layer. Default: none. */
  gates?: GateChanges;
  /** Rejects at once with ERR_SENET_ABORTED when it aborts. */
  signal?: AbortSignal;
}

const OPTIONS = { gates: gateChanges, signal } satisfies Rules<ExcitationOptions>;

/**
 * The gates of every SE layer of a model: the factors, of a sigmoid from 0 to 1, that its channels are scaled by. One
 * forward in evaluation mode, whatever mode the model is in, without a graph; nothing of the model changes. Works on every
 * model of this library that has SE layers, on parts of them, and on modules of one's own that have `SELayer`,
 * `SEModule` or `EcaModule` inside.
 *
 * @example
 * const gates = await excitations(model, x);
 * gates.get('layer4.2.se'); // N x 2048
 *
 * @param x what the model's forward takes, N x C x H x W
 * @param options.gates "what if": gates that are others, which those of later layers then follow
 * @returns path of the layer -> its gates, N x C, in the order of the model's modules. A layer that is called several times
 *   has those of the last call; one that is not called is not there
 * @throws (rejects) ERR_SENET_ARG_TYPE; ERR_SENET_ARG_RANGE for a model without SE layers, and for `gates` of a layer that
 *   is not there or has another number of channels; ERR_SENET_UNKNOWN_OPTION, ERR_SENET_ABORTED, and what forward rejects
 *   with
 */
export async function excitations(
  model: Module<unknown>,
  x: Tensor,
  options?: ExcitationOptions,
): Promise<Map<string, Tensor>> {
  const { gates, signal } = check(model, x, options, 'excitations');
  return tidy(async () => {
    const layers = requireSELayers(model, 'excitations');
    const own = x.detach(); // the caller may dispose his
    const seen = await observeGates(model, own, { layers, gates, signal }, 'excitations');
    return gatesOf(seen, layers);
  });
}

/**
 * What a model gives when gates of its SE layers are set to other values: "what if this layer did nothing" is
 * `{ gates: { 'layer4.2.se': 1 } }`, "what if it did not choose" 'mean'. In evaluation mode and without a graph.
 *
 * @param options.gates path of an SE layer -> a number for all its channels, 'mean' (for each image that of the gates which
 *   it has without any change), or an array with a number for each channel, null where it stays
 * @returns the model's output, as `forward` in evaluation mode
 * @throws (rejects) as `excitations`
 */
export async function gatedForward(
  model: Module<unknown>,
  x: Tensor,
  options?: ExcitationOptions,
): Promise<Tensor> {
  const { gates, signal } = check(model, x, options, 'gatedForward');
  return tidy(async () => {
    const layers = requireSELayers(model, 'gatedForward');
    const own = x.detach();
    return (await observeGates(model, own, { layers, gates, signal }, 'gatedForward')).output;
  });
}

/** A forward with changed gates, which keeps the gates, and what else is asked for. To be called inside a `tidy`. */
export async function observeGates(
  model: Module<unknown>,
  x: Tensor,
  {
    layers,
    gates,
    also = [],
    ...rest
  }: {
    layers: readonly SELayerPlace[];
    gates: GateChanges;
    also?: readonly Module<unknown>[];
    gradients?: boolean;
    signal: AbortSignal | undefined;
  },
  where: string,
): Promise<Observation> {
  const keep = [...layers.map(({ gate }) => gate), ...also];
  if (Object.keys(gates).length === 0) return observe(model, x, { keep, ...rest }, where);
  // What the gates are without changes: how many, and their mean.
  const before = await observe(
    model,
    x,
    { keep: layers.map(({ gate }) => gate), signal: rest.signal },
    where,
  );
  const known = gatesOf(before, layers);
  const replace = replacementsOf(
    gates,
    layers.filter(({ path }) => known.has(path)),
    x.shape[0] as number,
    ({ path }) => known.get(path) as Tensor,
    where,
  );
  return observe(model, x, { keep, replace, ...rest }, where);
}

/** Path of each layer that was called -> its gates, N x C. */
export function gatesOf(seen: Observation, layers: readonly SELayerPlace[]): Map<string, Tensor> {
  return new Map(
    layers.flatMap(({ path, gate }) => {
      const output = seen.outputOf(gate);
      return output === undefined ? [] : [[path, output.detach().flatten(1)] as const];
    }),
  );
}

/** @throws ERR_SENET_ARG_RANGE if there is none */
export function requireSELayers(model: Module<unknown>, where: string): SELayerPlace[] {
  const layers = findSELayers(model);
  if (layers.length > 0) return layers;
  throw makeError('ERR_SENET_ARG_RANGE', `${where}: this ${Module.typeOf(model)} has no SE layer`);
}

/** @throws ERR_SENET_ARG_TYPE, ERR_SENET_SHAPE */
export function checkModelAndInput(model: unknown, x: unknown, where: string): void {
  if (!Module.isModule(model))
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Module, got ${describe(model)}`);
  if (!Tensor.isTensor(x))
    throw makeError('ERR_SENET_ARG_TYPE', `${where}: expected a Tensor, got ${describe(x)}`);
  const { shape } = x;
  if (shape.length !== 4 || shape.includes(0)) {
    throw makeError(
      'ERR_SENET_SHAPE',
      `${where}: expected images of N x C x H x W, got [${shape.join(', ')}]`,
    );
  }
}

function check(
  model: unknown,
  x: unknown,
  options: ExcitationOptions | undefined,
  where: string,
): { gates: GateChanges; signal: AbortSignal | undefined } {
  checkModelAndInput(model, x, where);
  const checked = readOptions(options, OPTIONS, where);
  throwIfAborted(checked.signal);
  return checked;
}
