/** The base of the networks that classify images: their head by the place that their record gives it, as timm's. */
import { makeError } from '../errors';
import { Identity, Linear } from '../nn/layers';
import { registerSpellings } from '../nn/load-state-dict';
import type { Module } from '../nn/module';
import { defineChildProperties, NativeModule } from '../nn/native-module';
import { registerModuleClass } from '../nn/native-part';
import { checkInteger, describe } from '../tensor/options';
import type { Tensor } from '../tensor/tensor';
import type { ModelFamily } from './record';

/**
 * A network whose last layer is a Linear. Its class says in `family` what is known of it (`registerModel`); its forward
 * may be native or TypeScript.
 *
 * @typeParam Out what `forward` gives
 */
export abstract class ClassifierModel<Out = Tensor> extends NativeModule<Out> {
  /** @internal */
  declare static readonly family: ModelFamily;

  /** @internal Paths of the layers that know the classes, in the order of the keys: the classifier and the auxiliary ones. */
  static headsOf(model: Module<unknown>): string[] {
    const family = familyOf(model);
    if (family === undefined) return [];
    const heads = [...family.auxiliaryClassifiers, family.classifier];
    return model
      .namedModules()
      .map(([path]) => path)
      .filter((path) => heads.includes(path));
  }

  /** The layer that gives the logits, as timm's `get_classifier`; an Identity after `resetClassifier(0)`. */
  getClassifier(): Linear | Identity {
    return this.getSubmodule((familyOf(this) as ModelFamily).classifier) as Linear | Identity;
  }

  /**
   * Gives the network a fresh head for other classes, as timm's `reset_classifier`: a Linear as wide as the old one, with
   * PyTorch's initial draw, dtype, device and mode of the old one; auxiliary heads too. The other weights and the order
   * of the keys stay. An optimiser that was made before holds the old head's parameters, which it would train in vain:
   * make a new one.
   *
   * @param numClasses outputs of the head, from 0; 0 puts an Identity there, so that `forward` gives the features: in a
   *   network whose forward is TypeScript
   * @throws ERR_SENET_ARG_TYPE (also for 0 in a native network, which has room for a Linear only), ERR_SENET_ARG_RANGE;
   *   ERR_SENET_BUSY
   */
  resetClassifier(numClasses: number): void {
    checkInteger(numClasses, 'resetClassifier: numClasses', 0);
    const heads = ClassifierModel.headsOf(this).map((path) => [path, this.getSubmodule(path)] as const);
    const fresh = heads.map(([path, old]) => [path, freshHead(old, path, numClasses)] as const);
    for (const [path, head] of fresh) this.replaceModule(path, head);
  }
}

/** @throws ERR_SENET_ARG_TYPE for a head whose width is not known any more */
function freshHead(old: Module<unknown>, path: string, numClasses: number): Linear | Identity {
  if (numClasses === 0) return new Identity();
  if (!(old instanceof Linear)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `resetClassifier: '${path}': expected a Linear, whose width the new one takes over, got ${describe(old)}; use replaceModule`,
    );
  }
  const { dtype, device } = old.weight;
  const head = new Linear(old.inFeatures, numClasses, { bias: old.bias !== null });
  return head.to({ dtype, device }).train(old.training);
}

/** What is known of the class of a module; undefined for one that is none of these networks. */
export function familyOf(module: Module<unknown>): ModelFamily | undefined {
  return module instanceof ClassifierModel
    ? (module.constructor as typeof ClassifierModel).family
    : undefined;
}

/**
 * Registers the class of a network: how files spell its keys, and for a native one the class of what C++ calls `type`,
 * with the names of its children.
 */
export function registerModel(
  type: string,
  modelClass: typeof ClassifierModel<unknown>,
  children: readonly string[] = [],
): void {
  registerModuleClass(type, modelClass);
  registerSpellings(type, modelClass.family.keyMaps);
  defineChildProperties(modelClass, children);
}
