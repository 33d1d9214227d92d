/**
 * The SE layers of a model and the part of each that gives its gates: the factors that channels are scaled by. The file of
 * an SE layer's class says which (`registerGate`); a class of a user's own that has the name and the part of one counts as it.
 */
import { Module } from '../nn/module';
import { gateOf } from '../nn/native-part';

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
    const name = gateOf(Module.typeOf(layer));
    const gate = layer.namedChildren().find(([child]) => child === name)?.[1];
    return gate === undefined ? [] : [{ path, layer, gate }];
  });
}
