/**
 * SE-ResNet 18 to 152 for ImageNet: torchvision's ResNet with an SELayer at the end of every block
 * (senet.pytorch, se_resnet.py; He et al., CVPR 2016; Hu et al., CVPR 2018).
 */
import { makeError } from '../errors';
import type { Sequential } from '../nn/containers';
import type { AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, ReLU } from '../nn/layers';
import { createNativeModule } from '../nn/native-module';
import { describe } from '../tensor/options';
import { integer, orElse, readOptions, type Rules } from '../tensor/rules';
import { ClassifierModel, registerModel } from './classifier-model';
import { ARTICLE, SE_LAYER_OPTIONS } from './key-maps';
import { depths, INIT_OPTIONS, type InitOptions } from './options';
import { IMAGENET } from './preprocessing-record';
import { makeOrLoad, type PretrainedOptions } from './pretrained';
import { defineModels, type ModelFamily } from './record';
import { SEBasicBlock, SEBottleneck } from './residual-blocks';

export interface SEResNetOptions extends InitOptions {
  /** Default 1000. */
  numClasses?: number;
}

const OPTIONS = { numClasses: orElse(1000, integer(1)), ...INIT_OPTIONS } satisfies Rules<SEResNetOptions>;

const SE_RESNET: ModelFamily = {
  inputSize: 224,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 1000,
  rules: OPTIONS,
  toldOptions: [],
  stem: 'conv1',
  classifier: 'fc',
  auxiliaryClassifiers: [],
  preprocessing: IMAGENET,
  framework: 'senet.pytorch',
  firstBlock: 'layer1.0',
  mark: /^layer1\.0\.se\.fc\.0\.weight$/,
  adaptsWeights: false,
  keyMaps: [ARTICLE],
  optionKeys: SE_LAYER_OPTIONS,
  optionsFrom: () => ({}),
};

/** N x inChannels x H x W images (ImageNet: 3 x 224 x 224, normalised) to N x numClasses logits. */
export class SEResNet extends ClassifierModel {
  /** @internal */
  static override readonly family = SE_RESNET;

  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare relu: ReLU;
  declare maxpool: MaxPool2d;
  declare layer1: Sequential;
  declare layer2: Sequential;
  declare layer3: Sequential;
  declare layer4: Sequential;
  declare avgpool: AdaptiveAvgPool2d;
  declare fc: Linear;

  /**
   * @param block `SEBasicBlock` or `SEBottleneck`
   * @param layers blocks in each of the four stages
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(
    block: typeof SEBasicBlock | typeof SEBottleneck,
    layers: readonly number[],
    options?: SEResNetOptions,
  ) {
    if (block !== SEBasicBlock && block !== SEBottleneck) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `SEResNet: block: expected SEBasicBlock or SEBottleneck, got ${describe(block)}`,
      );
    }
    super(
      createNativeModule('SEResNet', {
        block: block === SEBasicBlock ? 'SEBasicBlock' : 'SEBottleneck',
        layers: depths(layers, 'SEResNet: layers'),
        ...readOptions(options, OPTIONS, 'SEResNet'),
      }),
    );
  }
}
registerModel('SEResNet', SEResNet, [
  'conv1',
  'bn1',
  'relu',
  'maxpool',
  'layer1',
  'layer2',
  'layer3',
  'layer4',
  'avgpool',
  'fc',
]);

/** 11.8 million parameters. @throws as `SEResNet` */
export function se_resnet18(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBasicBlock, [2, 2, 2, 2], options);
}

/** 22.0 million parameters. @throws as `SEResNet` */
export function se_resnet34(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBasicBlock, [3, 4, 6, 3], options);
}

/**
 * 28.1 million parameters. With `pretrained: true` the published ImageNet weights are downloaded once, to torch.hub's
 * cache, and loaded; the module is in training mode, as in PyTorch: call `eval()`.
 *
 * @throws as `SEResNet`; with `pretrained` (rejects) also ERR_SENET_ARG_RANGE (no weights of this name) and as
 *   `loadStateDictFromUrl`
 */
export function se_resnet50(options: PretrainedOptions): Promise<SEResNet>;
export function se_resnet50(options?: SEResNetOptions & { pretrained?: false }): SEResNet;
export function se_resnet50(
  options?: PretrainedOptions | (SEResNetOptions & { pretrained?: false }),
): SEResNet | Promise<SEResNet> {
  return makeOrLoad(SE_RESNET_MODELS.se_resnet50, options) as SEResNet | Promise<SEResNet>;
}

/** 49.3 million parameters. @throws as `SEResNet` */
export function se_resnet101(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 4, 23, 3], options);
}

/** 66.8 million parameters. @throws as `SEResNet` */
export function se_resnet152(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 8, 36, 3], options);
}

export const SE_RESNET_MODELS = defineModels(SE_RESNET, {
  se_resnet18: { create: se_resnet18 },
  se_resnet34: { create: se_resnet34 },
  se_resnet50: {
    create: (options?: SEResNetOptions) => new SEResNet(SEBottleneck, [3, 4, 6, 3], options),
    weights: [
      {
        name: 'imagenet',
        location: {
          url: 'https://github.com/moskomule/senet.pytorch/releases/download/archive/seresnet50-60a8950a85b2b.pkl',
        },
        sha256: '60a8950a85b2b',
        licence: 'MIT',
        top1: 77.06, // as its author reports
        labels: 'imagenet.json',
        preprocessing: IMAGENET,
      },
    ],
  },
  se_resnet101: { create: se_resnet101 },
  se_resnet152: { create: se_resnet152 },
});
