/**
 * timm's ResNets with channel attention: `seresnet*`, `seresnext*`, `seresnetaa*`, `senet154`, `resnetrs*` and
 * `ecaresnet*` (timm/models/resnet.py of pytorch-image-models); NVIDIA's se-resnext101-32x4d (DeepLearningExamples), which
 * differs in the squeezed width; and pytorchcv's smaller SENets (pytorchcv/models/senet.py of imgclsmob), of 32 groups. One
 * class; a network is a row of its arguments.
 */
import type { Sequential } from '../nn/containers';
import type { AdaptiveAvgPool2d, BatchNorm2d, Linear, ReLU } from '../nn/layers';
import type { Module } from '../nn/module';
import { createNativeModule } from '../nn/native-module';
import { boolean, integer, number, oneOf, optional, orElse, readOptions, type Rules } from '../tensor/rules';
import { ClassifierModel, registerModel } from './classifier-model';
import { MMPRETRAIN, NVIDIA, PYTORCHCV } from './key-maps';
import { depths, INIT_OPTIONS, type InitOptions } from './options';
import { defineModels, type ModelFamily } from './record';
import { timmPreprocessing, timmWeights } from './timm-weights';

/** The options of the networks by name. */
export interface ResNetModelOptions extends InitOptions {
  /** Default 1000. */
  numClasses?: number;
  /** Of the dropout before the classifier, in training; 0 to 1. Default 0, and 0.2 of pytorchcv's SENets. */
  dropRate?: number;
}

/** The arguments of timm's ResNet, under timm's names. */
export interface ResNetOptions extends ResNetModelOptions {
  /** Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 to four times the planes. Default 'Bottleneck'. */
  block?: 'BasicBlock' | 'Bottleneck';
  /** Blocks in each of the four stages. */
  layers: readonly number[];
  /** Groups of the 3 x 3 convolution of a Bottleneck. Default 1. */
  cardinality?: number;
  /** Width of a group for each 64 planes. Default 64. */
  baseWidth?: number;
  /** Channels of a deep stem. Default 64. */
  stemWidth?: number;
  /** One 7 x 7 convolution (''), or three 3 x 3 ones; of 'deep_tiered' the first is narrower. Default ''. */
  stemType?: '' | 'deep' | 'deep_tiered';
  /** A convolution with a stride in place of the stem's max pool. Default false. */
  replaceStemPool?: boolean;
  /** An average pool in front of a shortcut's 1 x 1 convolution, in place of its stride. Default false. */
  avgDown?: boolean;
  /** Of a shortcut's convolution where it has a stride. Default 1. */
  downKernelSize?: number;
  /** Divides the width of a block's first convolution. Default 1. */
  blockReduceFirst?: number;
  /** timm's `aa_layer` as `nn.AvgPool2d`: average pools in place of strides. Default false. */
  antiAlias?: boolean;
  /** The channel attention at the end of each branch: SEModule or EcaModule. Default 'se'. */
  attnLayer?: 'se' | 'eca';
  /** Of an SEModule. Default 1 / 16. */
  rdRatio?: number;
  /** Squeezed width of every SEModule, in place of `rdRatio`. */
  rdChannels?: number;
  /** Each branch begins as zero. Default true. */
  zeroInitLast?: boolean;
}

const MODEL_OPTIONS = {
  numClasses: orElse(1000, integer(0)),
  dropRate: optional(number(0, 1)),
  ...INIT_OPTIONS,
} satisfies Rules<ResNetModelOptions>;

const OPTIONS = {
  block: orElse('Bottleneck', oneOf(['BasicBlock', 'Bottleneck'])),
  layers: depths,
  cardinality: orElse(1, integer(1)),
  baseWidth: orElse(64, integer(1)),
  stemWidth: orElse(64, integer(1)),
  stemType: orElse('', oneOf(['', 'deep', 'deep_tiered'])),
  replaceStemPool: orElse(false, boolean),
  avgDown: orElse(false, boolean),
  downKernelSize: orElse(1, integer(1)),
  blockReduceFirst: orElse(1, integer(1)),
  antiAlias: orElse(false, boolean),
  attnLayer: orElse('se', oneOf(['se', 'eca'])),
  rdRatio: orElse(1 / 16, number(0, 1)),
  rdChannels: optional(integer(1)),
  zeroInitLast: orElse(true, boolean),
  ...MODEL_OPTIONS,
} satisfies Rules<ResNetOptions>;

const RESNET: ModelFamily = {
  inputSize: 224,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 1000,
  rules: MODEL_OPTIONS,
  toldOptions: [],
  stem: 'conv1',
  classifier: 'fc',
  auxiliaryClassifiers: [],
  preprocessing: timmPreprocessing(224, 0.875),
  framework: 'timm',
  firstBlock: 'layer1.0',
  mark: /^layer1\.0\.se\.(fc1|conv)\.weight$/,
  adaptsWeights: true,
  keyMaps: [MMPRETRAIN, NVIDIA, PYTORCHCV],
  optionsFrom: () => ({}),
};

/** N x inChannels x H x W images to N x numClasses logits. */
export class ResNet extends ClassifierModel {
  /** @internal */
  static override readonly family = RESNET;

  /** A Conv2d, or a Sequential of a deep stem. */
  declare conv1: Module;
  declare bn1: BatchNorm2d;
  declare act1: ReLU;
  declare maxpool: Module;
  declare layer1: Sequential;
  declare layer2: Sequential;
  declare layer3: Sequential;
  declare layer4: Sequential;
  declare global_pool: AdaptiveAvgPool2d;
  declare fc: Linear;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: ResNetOptions) {
    const { rdChannels, dropRate = 0, ...rest } = readOptions(options, OPTIONS, 'ResNet');
    const made = { ...rest, dropRate };
    super(createNativeModule('ResNet', rdChannels === undefined ? made : { ...made, rdChannels }));
  }
}
registerModel('ResNet', ResNet, [
  'conv1',
  'bn1',
  'act1',
  'maxpool',
  'layer1',
  'layer2',
  'layer3',
  'layer4',
  'global_pool',
  'fc',
]);

type Configuration = Omit<ResNetOptions, keyof InitOptions | 'numClasses'>;
type Create = (options?: ResNetModelOptions) => ResNet;
interface Row {
  readonly create: Create;
  readonly stem: string;
  readonly weights: ReturnType<typeof timmWeights>;
}

/** A network by its configuration; a deep stem's image goes to `conv1.0`. */
function row(name: string, configuration: Configuration): Row {
  const create: Create = (options) => {
    const { dropRate = configuration.dropRate ?? 0, ...given } = readOptions(options, MODEL_OPTIONS, name);
    return new ResNet({ ...configuration, ...given, dropRate });
  };
  const stem = (configuration.stemType ?? '') === '' ? 'conv1' : 'conv1.0';
  return { create, stem, weights: timmWeights(name) };
}

const DEEP = { stemType: 'deep', stemWidth: 32, avgDown: true } as const;
const TIERED = { stemType: 'deep_tiered', stemWidth: 32, avgDown: true } as const;
const X32X4D = { cardinality: 32, baseWidth: 4 } as const;
const X32X8D = { cardinality: 32, baseWidth: 8 } as const;
const ANTI_ALIAS = { ...DEEP, antiAlias: true } as const;
const RS = { ...DEEP, replaceStemPool: true, rdRatio: 0.25 } as const;
const ECA = { attnLayer: 'eca' } as const;
const SENET = { baseWidth: 4, stemType: 'deep', downKernelSize: 3, blockReduceFirst: 2 } as const;
const SENET32 = { ...SENET, cardinality: 32, dropRate: 0.2, zeroInitLast: false } as const;

const CONFIGURATIONS = {
  seresnet18: { block: 'BasicBlock', layers: [2, 2, 2, 2] },
  seresnet34: { block: 'BasicBlock', layers: [3, 4, 6, 3] },
  seresnet50: { layers: [3, 4, 6, 3] },
  seresnet50t: { ...TIERED, layers: [3, 4, 6, 3] },
  seresnet101: { layers: [3, 4, 23, 3] },
  seresnet152: { layers: [3, 8, 36, 3] },
  seresnet152d: { ...DEEP, layers: [3, 8, 36, 3] },
  seresnet200d: { ...DEEP, layers: [3, 24, 36, 3] },
  seresnet269d: { ...DEEP, layers: [3, 30, 48, 8] },
  seresnext26d_32x4d: { ...DEEP, ...X32X4D, layers: [2, 2, 2, 2] },
  seresnext26t_32x4d: { ...TIERED, ...X32X4D, layers: [2, 2, 2, 2] },
  seresnext50_32x4d: { ...X32X4D, layers: [3, 4, 6, 3] },
  seresnext101_32x4d: { ...X32X4D, layers: [3, 4, 23, 3] },
  seresnext101_32x8d: { ...X32X8D, layers: [3, 4, 23, 3] },
  seresnext101d_32x8d: { ...DEEP, ...X32X8D, layers: [3, 4, 23, 3] },
  seresnext101_64x4d: { cardinality: 64, baseWidth: 4, layers: [3, 4, 23, 3] },
  senet154: { ...SENET, cardinality: 64, layers: [3, 8, 36, 3] },
  seresnetaa50d: { ...ANTI_ALIAS, layers: [3, 4, 6, 3] },
  seresnextaa101d_32x8d: { ...ANTI_ALIAS, ...X32X8D, layers: [3, 4, 23, 3] },
  seresnextaa201d_32x8d: { ...ANTI_ALIAS, ...X32X8D, stemWidth: 64, layers: [3, 24, 36, 4] },
  resnetrs50: { ...RS, layers: [3, 4, 6, 3] },
  resnetrs101: { ...RS, layers: [3, 4, 23, 3] },
  resnetrs152: { ...RS, layers: [3, 8, 36, 3] },
  resnetrs200: { ...RS, layers: [3, 24, 36, 3] },
  resnetrs270: { ...RS, layers: [4, 29, 53, 4] },
  resnetrs350: { ...RS, layers: [4, 36, 72, 4] },
  resnetrs420: { ...RS, layers: [4, 44, 87, 4] },
  ecaresnet26t: { ...TIERED, ...ECA, layers: [2, 2, 2, 2] },
  ecaresnet50t: { ...TIERED, ...ECA, layers: [3, 4, 6, 3] },
  ecaresnet50d: { ...DEEP, ...ECA, layers: [3, 4, 6, 3] },
  ecaresnet101d: { ...DEEP, ...ECA, layers: [3, 4, 23, 3] },
  ecaresnet269d: { ...DEEP, ...ECA, layers: [3, 30, 48, 8] },
  nvidia_seresnext101_32x4d: { ...X32X4D, layers: [3, 4, 23, 3], rdChannels: 16 },
  pytorchcv_senet16: { ...SENET32, layers: [1, 1, 1, 1] },
  pytorchcv_senet28: { ...SENET32, layers: [2, 2, 2, 2] },
  pytorchcv_senet40: { ...SENET32, layers: [3, 3, 3, 3] },
  pytorchcv_senet52: { ...SENET32, layers: [3, 4, 6, 3] },
  pytorchcv_senet103: { ...SENET32, layers: [3, 4, 23, 3] },
} as const satisfies Readonly<Record<string, Configuration>>;

type Name = keyof typeof CONFIGURATIONS;

export const RESNET_MODELS = defineModels(
  RESNET,
  Object.fromEntries(
    Object.entries(CONFIGURATIONS).map(([name, configuration]) => [name, row(name, configuration)]),
  ) as Readonly<Record<Name, Row>>,
);
