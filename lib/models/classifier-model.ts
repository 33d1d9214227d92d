/** The base of the networks that classify images: their head by the place that their record gives it, as timm's. */
import { makeError } from '../errors';
import { Identity, Linear } from '../nn/layers';
import { registerSpellings } from '../nn/load-state-dict';
import { Module } from '../nn/module';
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
   * Values of one image that the classifier is given, timm's `num_features`: what `forward` gives after
   * `resetClassifier(0)`.
   *
   * @throws ERR_SENET_ARG_TYPE where a network whose forward is TypeScript has another classifier than a Linear
   */
  get numFeatures(): number {
    return featuresOf(this, (familyOf(this) as ModelFamily).classifier);
  }

  /**
   * Gives the network a fresh head for other classes, as timm's `reset_classifier`: a Linear on the same features, with
   * PyTorch's initial draw, dtype, device and mode of the old one; auxiliary heads too. The other weights and the order
   * of the keys stay. An optimiser that was made before holds the old head's parameters, which it would train in vain:
   * make a new one.
   *
   * @param numClasses outputs of the head, from 0; 0 puts an Identity there, so that `forward` gives the features,
   *   N x numFeatures
   * @throws ERR_SENET_ARG_TYPE, also as `numFeatures`; ERR_SENET_ARG_RANGE; ERR_SENET_BUSY
   */
  resetClassifier(numClasses: number): void {
    checkInteger(numClasses, 'resetClassifier: numClasses', 0);
    const heads = ClassifierModel.headsOf(this).map((path) => [path, this.getSubmodule(path)] as const);
    const fresh = heads.map(([path, old]) => [path, freshHead(this, old, path, numClasses)] as const);
    for (const [path, head] of fresh) this.replaceModule(path, head);
  }
}

function freshHead(
  model: Module<unknown>,
  old: Module<unknown>,
  path: string,
  numClasses: number,
): Linear | Identity {
  if (numClasses === 0) return new Identity().train(old.training);
  const bias = !(old instanceof Linear) || old.bias !== null;
  const head = new Linear(featuresOf(model, path), numClasses, { bias });
  const [like = head.weight] = [...old.parameters(), ...model.parameters()];
  return head.to({ dtype: like.dtype, device: like.device }).train(old.training);
}

/** What the head at `path` is given: a native network knows it, another one has it from its Linear. */
function featuresOf(model: Module<unknown>, path: string): number {
  const dot = path.lastIndexOf('.');
  const parent = model.getSubmodule(path.slice(0, Math.max(dot, 0)));
  const known = Module.headFeaturesOf(parent, path.slice(dot + 1));
  if (known !== undefined) return known;
  const head = model.getSubmodule(path);
  if (head instanceof Linear) return head.inFeatures;
  throw makeError(
    'ERR_SENET_ARG_TYPE',
    `'${path}': expected a Linear, whose width the features have, got ${describe(head)}; use replaceModule`,
  );
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
