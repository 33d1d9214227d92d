/**
 * SE-Inception-v3 (senet.pytorch, se_inception.py; torchvision's Inception3; Szegedy et al., CVPR 2016).
 */
import { makeError } from '../errors';
import type { AdaptiveAvgPool2d, Dropout, Linear } from '../nn/layers';
import type { Module } from '../nn/module';
import { createNativeModule, defineChildProperties, NativeModule } from '../nn/native-module';
import { registerModuleClass } from '../nn/native-part';
import { boolean, integer, oneOf, orElse, readOptions, required, type Rules } from '../tensor/rules';
import type { Tensor } from '../tensor/tensor';
import { ClassifierModel, registerModel } from './classifier-model';
import { ARTICLE, SE_LAYER_OPTIONS } from './key-maps';
import { INIT_OPTIONS, type InitOptions } from './options';
import { INCEPTION } from './preprocessing-record';
import { defineModels, type ModelFamily } from './record';

/** What training with the auxiliary head gives: two N x numClasses tensors. */
export interface InceptionOutputs {
  logits: Tensor;
  auxLogits: Tensor;
}

/** Where the SE layers act: nowhere (as in the original), on each block's input, or on its output (the paper). */
export type Recalibrate = 'none' | 'input' | 'output';

const RECALIBRATE: readonly Recalibrate[] = ['none', 'input', 'output'];

export interface SEInception3Options extends InitOptions {
  numClasses: number;
  /** The auxiliary head, which runs in training mode. Default true. */
  auxLogits?: boolean;
  /**
   * Converts ImageNet's normalisation to the one that Inception's own weights expect; of 3 channels only. Default false.
   */
  transformInput?: boolean;
  /**
   * Default 'none'. PARITY: the original registers its SE layers and never calls them; they have keys and no gradient.
   * 'input' uses the same state dict; 'output' has layers of the blocks' output widths.
   */
  recalibrate?: Recalibrate;
}

const OPTIONS = {
  numClasses: required(integer(1)),
  auxLogits: orElse(true, boolean),
  transformInput: orElse(false, boolean),
  recalibrate: orElse('none', oneOf(RECALIBRATE, "'none', 'input' or 'output'")),
  ...INIT_OPTIONS,
} satisfies Rules<SEInception3Options>;

const SE_INCEPTION: ModelFamily = {
  inputSize: 299,
  anyInputSize: false,
  inChannels: 3,
  numClasses: null,
  rules: OPTIONS,
  toldOptions: ['recalibrate', 'transformInput'],
  stem: 'model.Conv2d_1a_3x3.conv',
  classifier: 'model.fc',
  auxiliaryClassifiers: ['model.AuxLogits.fc'],
  hasUncalledLayers: true, // the SE layers, where `recalibrate` is 'none'; in training the auxiliary head runs
  preprocessing: INCEPTION,
  framework: 'senet.pytorch',
  firstBlock: 'Mixed_5b',
  mark: /^model\.Mixed_5b\.SELayer\.fc\.0\.weight$/,
  adaptsWeights: false,
  keyMaps: [ARTICLE],
  optionKeys: SE_LAYER_OPTIONS,
  optionsFrom: ({ shapeOf, metadata }) => ({
    auxLogits: shapeOf('model.AuxLogits.fc.weight') !== undefined,
    // 'none' and 'input' have the same weights: those that were used say so in their metadata.
    recalibrate:
      shapeOf('model.Mixed_5b.SELayer.fc.0.weight')?.[1] === 256
        ? 'output'
        : metadata.get('recalibrate') === 'input'
          ? 'input'
          : 'none',
    transformInput: metadata.get('transformInput') === 'true',
  }),
};

/** torchvision's network, which SEInception3 holds as `model`. Not to be made by itself. */
export class Inception3 extends NativeModule<Tensor | InceptionOutputs> {
  declare avgpool: AdaptiveAvgPool2d;
  declare dropout: Dropout;
  declare fc: Linear;
  /** The auxiliary head, whose last layer is its `fc`; null without `auxLogits`. */
  declare readonly AuxLogits: Module<unknown> | null;
}
registerModuleClass('Inception3', Inception3);
defineChildProperties(Inception3, ['avgpool', 'dropout', 'fc', 'AuxLogits']);

/** N x inChannels x 299 x 299 images to N x numClasses logits; in training with the auxiliary head to `{ logits, auxLogits }`. */
export class SEInception3 extends ClassifierModel<Tensor | InceptionOutputs> {
  /** @internal */
  static override readonly family = SE_INCEPTION;

  /** Its `fc` is the classifier. */
  declare readonly model: Inception3;

  /** @throws ERR_SENET_ARG_MISSING, ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: SEInception3Options) {
    const checked = readOptions(options, OPTIONS, 'SEInception3');
    const { transformInput, inChannels } = checked;
    if (transformInput && inChannels !== 3) {
      throw makeError(
        'ERR_SENET_ARG_RANGE',
        `SEInception3: inChannels: transformInput needs 3 channels, got ${inChannels}`,
      );
    }
    super(createNativeModule('SEInception3', checked));
  }
}
registerModel('SEInception3', SEInception3, ['model']);

/** 28.4 million parameters with the auxiliary head and 1000 classes. @throws as `SEInception3` */
export function se_inception_v3(options: SEInception3Options): SEInception3 {
  return new SEInception3(options);
}

export const INCEPTION_MODELS = defineModels(SE_INCEPTION, { se_inception_v3: { create: se_inception_v3 } });
