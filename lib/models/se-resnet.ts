/**
 * SE-ResNet 18 to 152 for ImageNet: torchvision's ResNet with an SELayer at the end of every block
 * (senet.pytorch, se_resnet.py; He et al., CVPR 2016; Hu et al., CVPR 2018).
 */
import { makeError } from '../errors';
import { createNativeModule, Module, registerModuleClass } from '../nn/module';
import { checkInteger, checkOptions, describe } from '../tensor/options';
import { checkInitWeights, checkNumClasses, type InitOptions } from './options';
import { SEBasicBlock, SEBottleneck } from './residual-blocks';

export interface SEResNetOptions extends InitOptions {
  /** Default 1000. */
  numClasses?: number;
}

/** N x 3 x H x W images (ImageNet: 224 x 224, normalised) to N x numClasses logits. */
export class SEResNet extends Module {
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
      throw makeError('ERR_SENET_ARG_TYPE', `SEResNet: block: expected SEBasicBlock or SEBottleneck, got ${describe(block)}`);
    }
    if (!Array.isArray(layers) || layers.length !== 4) {
      throw makeError('ERR_SENET_ARG_TYPE', `SEResNet: layers: expected four numbers of blocks, got ${describe(layers)}`);
    }
    for (const count of layers) checkInteger(count, 'SEResNet: layers', 1);
    const { numClasses = 1000, initWeights } = checkOptions(options, ['numClasses', 'initWeights'], 'SEResNet');
    super(
      createNativeModule('SEResNet', {
        block: block === SEBasicBlock ? 'SEBasicBlock' : 'SEBottleneck',
        layers,
        numClasses: checkNumClasses(numClasses, 'SEResNet'),
        initWeights: checkInitWeights(initWeights, 'SEResNet'),
      }),
    );
  }
}
registerModuleClass('SEResNet', SEResNet);

/** 11.8 million parameters. @throws as `SEResNet` */
export function se_resnet18(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBasicBlock, [2, 2, 2, 2], options);
}

/** 22.0 million parameters. @throws as `SEResNet` */
export function se_resnet34(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBasicBlock, [3, 4, 6, 3], options);
}

/** 28.1 million parameters. @throws as `SEResNet` */
export function se_resnet50(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 4, 6, 3], options);
}

/** 49.3 million parameters. @throws as `SEResNet` */
export function se_resnet101(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 4, 23, 3], options);
}

/** 66.8 million parameters. @throws as `SEResNet` */
export function se_resnet152(options?: SEResNetOptions): SEResNet {
  return new SEResNet(SEBottleneck, [3, 8, 36, 3], options);
}
