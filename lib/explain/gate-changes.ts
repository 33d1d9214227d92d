/** "What if": gates of SE layers that are set to other values before a forward, as tensors that replace them. */
import { makeError } from '../errors';
import type { Module } from '../nn/module';
import { full, tensor } from '../tensor/factories';
import { describe } from '../tensor/options';
import type { Rule } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import type { SELayerPlace } from './se-layers';

/**
 * What the gates of a layer are instead: one number for all channels; 'mean', for each image the mean of its gates over
 * the channels; or a number for each channel, null where it stays as the network computes it.
 */
export type GateChange = number | 'mean' | readonly (number | null)[];

/** Path of an SE layer -> what its gates are instead. */
export type GateChanges = Readonly<Record<string, GateChange>>;

const WORDS = "a number, 'mean', or an array of numbers and nulls";

/** Throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE (NaN, or a number that is none). */
export const gateChanges: Rule<GateChanges> = (given, what) => {
  if (given === undefined) return {};
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${what}: expected an object of SE layers' paths, got ${describe(given)}`,
    );
  }
  for (const [path, change] of Object.entries(given)) {
    const all: unknown[] = Array.isArray(change) ? change : [change];
    for (const one of all) {
      if (typeof one === 'number' && Number.isFinite(one)) continue;
      if (one === null ? Array.isArray(change) : one === 'mean' && !Array.isArray(change)) continue;
      const code = typeof one === 'number' ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE';
      throw makeError(code, `${what}: '${path}': expected ${WORDS}, got ${describe(one)}`);
    }
  }
  // A copy: what the caller does with his while the call runs is his.
  return Object.fromEntries(
    Object.entries(given as GateChanges).map(([path, change]) => [
      path,
      typeof change === 'object' ? [...change] : change,
    ]),
  );
};

/**
 * The tensors that replace the gates.
 *
 * @param count images in the batch
 * @param gatesOf what a layer's gates are without changes, N x C
 * @throws ERR_SENET_ARG_RANGE: no SE layer has this path, or another number of channels
 */
export function replacementsOf(
  changes: GateChanges,
  layers: readonly SELayerPlace[],
  count: number,
  gatesOf: (layer: SELayerPlace) => Tensor,
  where: string,
): Map<Module<unknown>, Tensor> {
  return new Map(
    Object.entries(changes).map(([path, change]) => {
      const place = layers.find((layer) => layer.path === path);
      if (place === undefined) {
        const known = layers.map((layer) => layer.path).join(', ');
        throw makeError(
          'ERR_SENET_ARG_RANGE',
          `${where}: gates: there is no SE layer at '${path}' (known are ${known})`,
        );
      }
      const gates = gatesOf(place);
      const channels = gates.shape[1] as number;
      return [place.gate, replacement(change, gates, [count, channels], `${where}: gates: '${path}'`)];
    }),
  );
}

function replacement(
  change: GateChange,
  gates: Tensor,
  [count, channels]: [number, number],
  what: string,
): Tensor {
  if (change === 'mean') return gates.mean(1, { keepdim: true }).mul(full([1, channels], 1, like(gates)));
  if (typeof change === 'number') return full([count, channels], change, like(gates));
  if (change.length !== channels) {
    throw makeError(
      'ERR_SENET_ARG_RANGE',
      `${what}: expected a value for each of ${channels} channels, got ${change.length}`,
    );
  }
  const row = change.map((value) => value ?? NaN);
  return tensor(
    Array.from({ length: count }, () => row),
    like(gates),
  );
}

function like({ dtype, device }: Tensor): Pick<Tensor, 'dtype' | 'device'> {
  return { dtype, device };
}
