/** Which layer a class activation map is of, where nobody says. */
import { makeError } from '../errors';
import { Module } from '../nn/module';
import type { Tensor } from '../tensor/tensor';
import { observe, type Observation } from './observe';
import { findSELayers } from './se-layers';

export interface TargetLayer {
  /** From the model. */
  readonly path: string;
  readonly module: Module<unknown>;
}

/**
 * The layer at `path`; by default the last block: the one that the last SE layer is in, or, of a model without, the last
 * module that gives images of more than a pixel.
 *
 * @throws (rejects) ERR_SENET_ARG_RANGE: there is no such layer, or none that gives images
 */
export async function chooseLayer(
  model: Module<unknown>,
  path: string | undefined,
  x: Tensor,
  { signal, where }: { signal: AbortSignal | undefined; where: string },
): Promise<TargetLayer> {
  const modules = model.namedModules();
  const at = (wanted: string): TargetLayer | undefined => {
    const found = modules.find(([name]) => name === wanted);
    return found === undefined ? undefined : { path: found[0], module: found[1] };
  };
  if (path !== undefined) {
    const given = at(path);
    if (given !== undefined) return given;
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: layer: there is no module at '${path}'`);
  }
  const last = findSELayers(model).at(-1);
  if (last !== undefined) {
    const block = last.path.slice(0, Math.max(last.path.lastIndexOf('.'), 0));
    return at(block === '' ? last.path : block) as TargetLayer;
  }
  const found = lastImages(await observe(model, x, { signal }, where));
  const [name] = modules.find(([, module]) => module === found) ?? [];
  if (found !== undefined && name !== undefined) return { path: name, module: found };
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: no layer of this ${Module.typeOf(model)} gives images of more than one pixel`,
  );
}

/** What gave the last images; of a Sequential its last part, which gives the same. */
function lastImages({ calls }: Observation): Module<unknown> | undefined {
  let found = calls.findLast(
    ({ shape }) => shape.length === 4 && (shape[2] as number) * (shape[3] as number) > 1,
  )?.module;
  while (found !== undefined && Module.typeOf(found) === 'Sequential')
    found = found.namedChildren().at(-1)?.[1];
  return found;
}

/** What a layer gave, as activations. @throws ERR_SENET_ARG_RANGE unless that is N x C x h x w */
export function activationsOf(
  seen: Observation,
  { path, module }: TargetLayer,
  x: Tensor,
  where: string,
): Tensor {
  const output = seen.outputOf(module);
  if (output === undefined)
    throw makeError('ERR_SENET_ARG_RANGE', `${where}: layer: '${path}' was not called by the forward`);
  const { shape } = output;
  if (shape.length === 4 && shape[0] === x.shape[0]) return output;
  throw makeError(
    'ERR_SENET_ARG_RANGE',
    `${where}: layer: expected one that gives N x C x h x w, '${path}' gives [${shape.join(', ')}]`,
  );
}
