/**
 * Which modules are SE layers, and which part of each gives its gates: the factors that channels are scaled by. A new kind
 * of SE layer is a row here. A class of a user's own that has the name and the part of one counts as it.
 */
import { Module } from '../nn/module';

/** Type of the layer -> its child whose output is the gates: N x C, N x C x 1 x 1 or N x 1 x C. */
const GATES: ReadonlyMap<string, string> = new Map([
  ['SELayer', 'fc'],
  ['SEModule', 'gate'], // timm's and Cadene's
  ['EcaModule', 'gate'],
  ['SEBlock', 'sigmoid'], // pytorchcv's
]);

export interface SELayerPlace {
  /** From the model ("layer1.0.se"). */
  readonly path: string;
  readonly layer: Module<unknown>;
  /** Gives the gates. */
  readonly gate: Module<unknown>;
}

/** The SE layers of a model, in the order of its modules. */
export function findSELayers(model: Module<unknown>): SELayerPlace[] {
  return model.namedModules().flatMap(([path, layer]) => {
    const name = GATES.get(Module.typeOf(layer));
    const gate = layer.namedChildren().find(([child]) => child === name)?.[1];
    return gate === undefined ? [] : [{ path, layer, gate }];
  });
}
