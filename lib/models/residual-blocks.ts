/**
 * The residual blocks with an SELayer (senet.pytorch, se_resnet.py): the SE layer stands after the last
 * BatchNorm and before the residual is added (Hu et al., CVPR 2018, section 3.3). Names and order of
 * arguments are Python's.
 */
import { makeError } from '../errors';
import type { BatchNorm2d, Conv2d, ReLU } from '../nn/layers';
import { Module } from '../nn/module';
import { createNativeModule, defineChildProperties, NativeModule } from '../nn/native-module';
import { registerModuleClass } from '../nn/native-part';
import type { SELayer } from '../nn/se-layer';
import { checkInteger, describe } from '../tensor/options';
import { integer, orElse, readOptions } from '../tensor/rules';

export interface BlockOptions {
  /** Of the SELayer: from 1 to its channels (`planes`, or 4 `planes` in a bottleneck). Default 16. */
  reduction?: number;
}

function blockOptions(
  where: string,
  expansion: number,
  inplanes: number,
  planes: number,
  stride: number,
  downsample: Module<unknown> | null,
  options: BlockOptions | undefined,
): Parameters<typeof createNativeModule>[1] {
  checkInteger(inplanes, `${where}: inplanes`, 1);
  checkInteger(planes, `${where}: planes`, 1);
  checkInteger(stride, `${where}: stride`, 1);
  const rules = { reduction: orElse(16, integer(1, planes * expansion)) };
  const { reduction } = readOptions(options, rules, where);
  if (downsample !== null && !Module.isModule(downsample)) {
    throw makeError(
      'ERR_SENET_ARG_TYPE',
      `${where}: downsample: expected a Module or null, got ${describe(downsample)}`,
    );
  }
  return { inplanes, planes, stride, reduction, downsample };
}

/**
 * Two 3 x 3 convolutions: N x inplanes x H x W to N x planes x H / stride x W / stride. The block of
 * SE-ResNet-18 and 34.
 */
export class SEBasicBlock extends NativeModule {
  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare relu: ReLU;
  declare conv2: Conv2d;
  declare bn2: BatchNorm2d;
  declare se: SELayer;
  /** Null where the block does not change its shape. */
  declare downsample: Module<unknown> | null;

  static readonly expansion = 1;

  /**
   * @param inplanes channels of the input
   * @param planes channels of the output
   * @param stride of the first convolution. Default 1
   * @param downsample what the residual goes through, where the block changes its shape. Default null: the
   *   identity
   * @param _groups accepted and ignored, as are the next three
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(
    inplanes: number,
    planes: number,
    stride = 1,
    downsample: Module<unknown> | null = null,
    // PARITY: torchvision's ResNet passes these, and the original's blocks ignore them.
    _groups = 1,
    _baseWidth = 64,
    _dilation = 1,
    _normLayer: unknown = null,
    options?: BlockOptions,
  ) {
    const type = 'SEBasicBlock';
    const { expansion } = SEBasicBlock;
    super(
      createNativeModule(type, blockOptions(type, expansion, inplanes, planes, stride, downsample, options)),
    );
  }
}
registerModuleClass('SEBasicBlock', SEBasicBlock);
defineChildProperties(SEBasicBlock, ['conv1', 'bn1', 'relu', 'conv2', 'bn2', 'se', 'downsample']);

/**
 * 1 x 1, 3 x 3 (which has the stride) and 1 x 1 convolutions: N x inplanes x H x W to N x 4 planes x H /
 * stride x W / stride. The block of SE-ResNet-50, 101 and 152.
 */
export class SEBottleneck extends NativeModule {
  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare conv2: Conv2d;
  declare bn2: BatchNorm2d;
  declare conv3: Conv2d;
  declare bn3: BatchNorm2d;
  declare relu: ReLU;
  declare se: SELayer;
  /** Null where the block does not change its shape. */
  declare downsample: Module<unknown> | null;

  static readonly expansion = 4;

  /**
   * @param inplanes channels of the input
   * @param planes channels inside; the output has four times as many
   * @param stride of the 3 x 3 convolution. Default 1
   * @param downsample what the residual goes through, where the block changes its shape. Default null: the
   *   identity
   * @param _groups accepted and ignored, as are the next three
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION
   */
  constructor(
    inplanes: number,
    planes: number,
    stride = 1,
    downsample: Module<unknown> | null = null,
    _groups = 1,
    _baseWidth = 64,
    _dilation = 1,
    _normLayer: unknown = null,
    options?: BlockOptions,
  ) {
    const type = 'SEBottleneck';
    const { expansion } = SEBottleneck;
    super(
      createNativeModule(type, blockOptions(type, expansion, inplanes, planes, stride, downsample, options)),
    );
  }
}
registerModuleClass('SEBottleneck', SEBottleneck);
defineChildProperties(SEBottleneck, [
  'conv1',
  'bn1',
  'conv2',
  'bn2',
  'conv3',
  'bn3',
  'relu',
  'se',
  'downsample',
]);

/**
 * SEBasicBlock that makes its own downsample when `inplanes` and `planes` differ. The block of the CIFAR
 * networks.
 */
export class CifarSEBasicBlock extends NativeModule {
  declare conv1: Conv2d;
  declare bn1: BatchNorm2d;
  declare relu: ReLU;
  declare conv2: Conv2d;
  declare bn2: BatchNorm2d;
  declare se: SELayer;
  /** Null where the block does not change its shape. */
  declare downsample: Module<unknown> | null;

  /**
   * PARITY: a stride other than 1 with equal `inplanes` and `planes` makes no downsample, so forward then
   * fails.
   *
   * @param stride of the first convolution. Default 1
   * @param reduction of the SELayer, from 1 to `planes`. Default 16
   * @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE
   */
  constructor(inplanes: number, planes: number, stride = 1, reduction = 16) {
    const where = 'CifarSEBasicBlock';
    checkInteger(inplanes, `${where}: inplanes`, 1);
    checkInteger(planes, `${where}: planes`, 1);
    checkInteger(stride, `${where}: stride`, 1);
    checkInteger(reduction, `${where}: reduction`, 1, planes);
    super(createNativeModule(where, { inplanes, planes, stride, reduction }));
  }
}
registerModuleClass('CifarSEBasicBlock', CifarSEBasicBlock);
defineChildProperties(CifarSEBasicBlock, ['conv1', 'bn1', 'relu', 'conv2', 'bn2', 'se', 'downsample']);
