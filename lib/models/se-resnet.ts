/**
 * SE-ResNet 18 to 152 for ImageNet: torchvision's ResNet with an SELayer at the end of every block
 * (senet.pytorch, se_resnet.py; He et al., CVPR 2016; Hu et al., CVPR 2018).
 */
import { makeError } from '../errors';
import { loadStateDictFromUrl } from '../hub/hub';
import type { ProgressOption } from '../hub/progress';
import type { Sequential } from '../nn/containers';
import type { AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, ReLU } from '../nn/layers';
import { createNativeModule, defineChildProperties, NativeModule } from '../nn/native-module';
import { registerModuleClass } from '../nn/native-part';
import { checkBoolean, checkInteger, checkOptions, describe } from '../tensor/options';
import { checkInChannels, checkInitWeights, checkNumClasses, type InitOptions } from './options';
import { SEBasicBlock, SEBottleneck } from './residual-blocks';

export interface SEResNetOptions extends InitOptions {
  /** Default 1000. */
  numClasses?: number;
}

/** N x inChannels x H x W images (ImageNet: 3 x 224 x 224, normalised) to N x numClasses logits. */
export class SEResNet extends NativeModule {
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
    if (!Array.isArray(layers) || layers.length !== 4) {
      throw makeError(
        'ERR_SENET_ARG_TYPE',
        `SEResNet: layers: expected four numbers of blocks, got ${describe(layers)}`,
      );
    }
    for (const count of layers) checkInteger(count, 'SEResNet: layers', 1);
    const known = ['numClasses', 'inChannels', 'initWeights'];
    const { numClasses = 1000, inChannels, initWeights } = checkOptions(options, known, 'SEResNet');
    super(
      createNativeModule('SEResNet', {
        block: block === SEBasicBlock ? 'SEBasicBlock' : 'SEBottleneck',
        layers,
        numClasses: checkNumClasses(numClasses, 'SEResNet'),
        inChannels: checkInChannels(inChannels, 'SEResNet'),
        initWeights: checkInitWeights(initWeights, 'SEResNet'),
      }),
    );
  }
}
registerModuleClass('SEResNet', SEResNet);
defineChildProperties(SEResNet, [
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

export interface PretrainedOptions {
  pretrained: true;
  /** The published weights have 1000 classes: another number is ERR_SENET_STATE_DICT. Default 1000. */
  numClasses?: number;
  /** The published weights take 3: another number is ERR_SENET_STATE_DICT, before anything is downloaded. Default 3. */
  inChannels?: number;
  /** Default true: a bar on a terminal while it downloads. */
  progress?: ProgressOption;
  /** Default true: the SHA-256 of what is downloaded must begin as the file's name says. */
  checkHash?: boolean;
  signal?: AbortSignal;
}

/** Trained on ImageNet, 77.06 % top-1 as its author reports (senet.pytorch). */
export const SE_RESNET50_URL =
  'https://github.com/moskomule/senet.pytorch/releases/download/archive/seresnet50-60a8950a85b2b.pkl';

/**
 * 28.1 million parameters. With `pretrained: true` the published ImageNet weights are downloaded once, to torch.hub's
 * cache, and loaded; the module is in training mode, as in PyTorch: call `eval()`.
 *
 * @throws as `SEResNet`; with `pretrained` (rejects) also as `loadStateDictFromUrl`
 */
export function se_resnet50(options: PretrainedOptions): Promise<SEResNet>;
export function se_resnet50(options?: SEResNetOptions & { pretrained?: false }): SEResNet;
export function se_resnet50(
  options?: PretrainedOptions | (SEResNetOptions & { pretrained?: false }),
): SEResNet | Promise<SEResNet> {
  if (options?.pretrained === true) return pretrainedSeResnet50(options);
  const { pretrained = false, ...rest } = options ?? {};
  checkBoolean(pretrained, 'se_resnet50: pretrained');
  return newSeResnet50(options === undefined ? undefined : rest);
}

/** Without the pretrained branch, so that it is never a promise. */
export function newSeResnet50(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 4, 6, 3], options);
}

async function pretrainedSeResnet50(options: PretrainedOptions): Promise<SEResNet> {
  const known = ['pretrained', 'numClasses', 'inChannels', 'progress', 'checkHash', 'signal'];
  const { pretrained: _, numClasses, inChannels, ...transfer } = checkOptions(options, known, 'se_resnet50');
  const channels = checkInChannels(inChannels, 'se_resnet50');
  if (channels !== 3) {
    throw makeError(
      'ERR_SENET_STATE_DICT',
      `se_resnet50: inChannels: the published weights take images of 3 channels, got ${channels}`,
    );
  }
  const model = newSeResnet50({
    initWeights: false,
    ...(numClasses === undefined ? {} : { numClasses }),
  });
  try {
    const state = await loadStateDictFromUrl(SE_RESNET50_URL, transfer);
    model.loadStateDict(state, { assign: true });
    state.dispose();
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** 49.3 million parameters. @throws as `SEResNet` */
export function se_resnet101(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 4, 23, 3], options);
}

/** 66.8 million parameters. @throws as `SEResNet` */
export function se_resnet152(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 8, 36, 3], options);
}
