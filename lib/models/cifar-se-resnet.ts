/**
 * The SE-ResNets for 32 x 32 images (senet.pytorch, se_resnet.py; He et al., CVPR 2016, section 4.2).
 */
import { makeError } from '../errors';
import type { Sequential } from '../nn/containers';
import type { AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, ReLU } from '../nn/layers';
import { createNativeModule } from '../nn/native-module';
import { checkInteger, describe } from '../tensor/options';
import { integer, orElse, readOptions, type Rules } from '../tensor/rules';
import { ClassifierModel, registerModel } from './classifier-model';
import { ARTICLE, SE_LAYER_OPTIONS } from './key-maps';
import { INIT_OPTIONS, type InitOptions } from './options';
import { defineModels, type ModelFamily, type WeightFacts } from './record';
import { CifarSEBasicBlock } from './residual-blocks';

// The narrowest stage, whose SELayers bound the reduction.
const FIRST_STAGE_WIDTH = 16;
const CHILDREN = ['conv1', 'bn1', 'relu', 'layer1', 'layer2', 'layer3', 'avgpool', 'fc'];

const OPTIONS = {
  numClasses: orElse(10, integer(1)),
  reduction: orElse(16, integer(1, FIRST_STAGE_WIDTH)),
  ...INIT_OPTIONS,
} satisfies Rules<CifarSEResNetOptions>;

const CIFAR_SE_RESNET: ModelFamily = {
  inputSize: 32,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 10,
  rules: OPTIONS,
  toldOptions: [],
  stem: 'conv1',
  classifier: 'fc',
  auxiliaryClassifiers: [],
  preprocessing: null,
  framework: 'senet.pytorch',
  firstBlock: 'layer1.0',
  mark: /^layer1\.0\.se\.fc\.0\.weight$/,
  adaptsWeights: false,
  keyMaps: [ARTICLE],
  optionKeys: SE_LAYER_OPTIONS,
  optionsFrom: (weights) => ({ reduction: findReduction(weights) }),
};

/** The reduction r of which every stage's SELayer has floor(channels / r) rows; the usual one if none fits. */
function findReduction({ shapeOf }: WeightFacts): number {
  const stages = [1, 2, 3].map((stage) => shapeOf(`layer${stage}.0.se.fc.0.weight`));
  for (let reduction = 1; reduction <= FIRST_STAGE_WIDTH; reduction++) {
    if (stages.every((shape) => shape !== undefined && shape[0] === Math.floor((shape[1] ?? 0) / reduction)))
      return reduction;
  }
  return 16;
}

function create(
  type: 'CifarSEResNet' | 'CifarSEPreActResNet',
  block: unknown,
  [nSize, numClasses, reduction]: readonly [number, number | undefined, number | undefined],
  options: InitOptions | undefined,
): ReturnType<typeof createNativeModule> {
  if (block !== CifarSEBasicBlock) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${type}: block: expected CifarSEBasicBlock, got ${describe(block)}`,
    );
  }
  const init = readOptions(options, INIT_OPTIONS, type);
  return createNativeModule(type, {
    nSize: checkInteger(nSize, `${type}: nSize`, 1),
    ...readOptions({ ...init, numClasses, reduction }, OPTIONS, type),
  });
}

/** N x inChannels x 32 x 32 images to N x numClasses logits; three stages of `nSize` blocks, 16, 32 and 64 channels wide. */
export class CifarSEResNet extends ClassifierModel {
  /** @internal */
  static override readonly family = CIFAR_SE_RESNET;

  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare relu: ReLU;
  declare layer1: Sequential;
  declare layer2: Sequential;
  declare layer3: Sequential;
  declare avgpool: AdaptiveAvgPool2d;
  declare fc: Linear;

  /**
   * The order of Python's arguments.
   *
   * @param numClasses Default 10
   * @param reduction From 1 to 16. Default 16
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(
    block: typeof CifarSEBasicBlock,
    nSize: number,
    numClasses?: number,
    reduction?: number,
    options?: InitOptions,
  ) {
    super(create('CifarSEResNet', block, [nSize, numClasses, reduction], options));
  }
}
registerModel('CifarSEResNet', CifarSEResNet, CHILDREN);

/**
 * The same with BatchNorm and ReLU after the last stage instead of after the first convolution.
 *
 * PARITY: the blocks are CifarSEResNet's own post-activation blocks, and the weights are drawn twice, as in the
 * original. Deviates in one thing: the original forward forgets to return its logits.
 */
export class CifarSEPreActResNet extends ClassifierModel {
  /** @internal */
  static override readonly family = CIFAR_SE_RESNET;

  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare relu: ReLU;
  declare layer1: Sequential;
  declare layer2: Sequential;
  declare layer3: Sequential;
  declare avgpool: AdaptiveAvgPool2d;
  declare fc: Linear;

  /**
   * The order of Python's arguments.
   *
   * @param numClasses Default 10
   * @param reduction From 1 to 16. Default 16
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(
    block: typeof CifarSEBasicBlock,
    nSize: number,
    numClasses?: number,
    reduction?: number,
    options?: InitOptions,
  ) {
    super(create('CifarSEPreActResNet', block, [nSize, numClasses, reduction], options));
  }
}
registerModel('CifarSEPreActResNet', CifarSEPreActResNet, CHILDREN);

export interface CifarSEResNetOptions extends InitOptions {
  /** Default 10. */
  numClasses?: number;
  /** From 1 to 16. Default 16. */
  reduction?: number;
}

type CifarClass<T> = new (
  block: typeof CifarSEBasicBlock,
  nSize: number,
  numClasses?: number,
  reduction?: number,
  options?: InitOptions,
) => T;

function build<T>(
  modelClass: CifarClass<T>,
  name: string,
  nSize: number,
  options: CifarSEResNetOptions | undefined,
): T {
  const { numClasses, reduction, ...rest } = readOptions(options, OPTIONS, name);
  return new modelClass(CifarSEBasicBlock, nSize, numClasses, reduction, rest);
}

/** 274,490 parameters (10 classes, reduction 16). @throws as `CifarSEResNet` */
export function se_resnet20(options?: CifarSEResNetOptions): CifarSEResNet {
  return build(CifarSEResNet, 'se_resnet20', 3, options);
}

/** 470,266 parameters. @throws as `CifarSEResNet` */
export function se_resnet32(options?: CifarSEResNetOptions): CifarSEResNet {
  return build(CifarSEResNet, 'se_resnet32', 5, options);
}

/** 861,818 parameters. @throws as `CifarSEResNet` */
export function se_resnet56(options?: CifarSEResNetOptions): CifarSEResNet {
  return build(CifarSEResNet, 'se_resnet56', 9, options);
}

/** 274,586 parameters. @throws as `CifarSEPreActResNet` */
export function se_preactresnet20(options?: CifarSEResNetOptions): CifarSEPreActResNet {
  return build(CifarSEPreActResNet, 'se_preactresnet20', 3, options);
}

/** 470,362 parameters. @throws as `CifarSEPreActResNet` */
export function se_preactresnet32(options?: CifarSEResNetOptions): CifarSEPreActResNet {
  return build(CifarSEPreActResNet, 'se_preactresnet32', 5, options);
}

/** 861,914 parameters. @throws as `CifarSEPreActResNet` */
export function se_preactresnet56(options?: CifarSEResNetOptions): CifarSEPreActResNet {
  return build(CifarSEPreActResNet, 'se_preactresnet56', 9, options);
}

export const CIFAR_MODELS = defineModels(CIFAR_SE_RESNET, {
  se_resnet20: {
    create: se_resnet20,
    weights: [
      {
        name: 'fashion_mnist',
        location: { bundled: 'se_resnet20_fashion_mnist.safetensors' },
        sha256: 'fd95447381b9133fc24ed5b25cb4b0247235e80b7b0ec9c4fa317c800cbc5d9f',
        licence: 'MIT',
        top1: 93.53,
      },
    ],
  },
  se_resnet32: { create: se_resnet32 },
  se_resnet56: { create: se_resnet56 },
  se_preactresnet20: { create: se_preactresnet20 },
  se_preactresnet32: { create: se_preactresnet32 },
  se_preactresnet56: { create: se_preactresnet56 },
});
