/**
 * pytorchcv's SE-ResNets (pytorchcv/models/seresnet.py, seresnet_cifar.py, sepreresnet.py, sepreresnet_cifar.py of
 * imgclsmob): for ImageNet, for CIFAR and SVHN, and both with pre-activation. One class; a network is a row of its
 * arguments, under its original's name behind `pytorchcv_`, since timm has other networks under those names.
 */
import type { Sequential } from '../nn/containers';
import type { Linear } from '../nn/layers';
import { createNativeModule } from '../nn/native-module';
import { registerGate } from '../nn/native-part';
import { boolean, integer, optional, orElse, readOptions, type Rules } from '../tensor/rules';
import { ClassifierModel, registerModel } from './classifier-model';
import { PYTORCHCV } from './key-maps';
import { depths, INIT_OPTIONS, type InitOptions } from './options';
import { CIFAR, IMAGENET, type Preprocessing } from './preprocessing-record';
import { defineModels, type ModelFamily } from './record';

/** The options of the networks by name. */
export interface PytorchcvModelOptions extends InitOptions {
  /** Default 1000, and 10 of a network for CIFAR. */
  numClasses?: number;
}

/** What distinguishes the networks. Of `layers` and `unitsPerStage` one is given. */
export interface PytorchcvSEResNetOptions extends PytorchcvModelOptions {
  /** For ImageNet: units in each of the four stages, from 64 channels, behind a 7 x 7 convolution and a pool. */
  layers?: readonly number[];
  /** For CIFAR: units in each of the three stages, from 16 channels, behind a 3 x 3 convolution. */
  unitsPerStage?: number;
  /** 1 x 1, 3 x 3 and 1 x 1 convolutions to four times the channels in a unit, else two 3 x 3. Default false. */
  bottleneck?: boolean;
  /** The stride of a bottleneck in its first convolution, as in Caffe, else in its second. Default false. */
  conv1Stride?: boolean;
  /** BatchNorm and ReLU in front of each convolution. Default false. */
  preactivation?: boolean;
}

const OPTIONS = {
  layers: optional(depths),
  unitsPerStage: optional(integer(1)),
  bottleneck: orElse(false, boolean),
  conv1Stride: orElse(false, boolean),
  preactivation: orElse(false, boolean),
  numClasses: optional(integer(0)),
  ...INIT_OPTIONS,
} satisfies Rules<PytorchcvSEResNetOptions>;

const MODEL_OPTIONS = {
  numClasses: optional(integer(0)),
  ...INIT_OPTIONS,
} satisfies Rules<PytorchcvModelOptions>;

const FAMILY: ModelFamily = {
  inputSize: 224,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 1000,
  rules: MODEL_OPTIONS,
  toldOptions: [],
  stem: 'features.init_block.conv.conv',
  classifier: 'output',
  auxiliaryClassifiers: [],
  preprocessing: IMAGENET,
  framework: PYTORCHCV.framework,
  firstBlock: 'stage1.unit1',
  mark: /^features\.stage1\.unit1\.se\.conv1\.weight$/,
  adaptsWeights: true,
  keyMaps: [],
  optionsFrom: () => ({}),
};

/** N x inChannels x H x W images to N x numClasses logits. */
export class PytorchcvSEResNet extends ClassifierModel {
  /** @internal */
  static override readonly family = FAMILY;

  declare features: Sequential;
  declare output: Linear;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_ARG_MISSING, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: PytorchcvSEResNetOptions) {
    const { layers, unitsPerStage, numClasses, ...rest } = readOptions(options, OPTIONS, 'PytorchcvSEResNet');
    const isCifar = unitsPerStage !== undefined;
    super(
      createNativeModule('PytorchcvSEResNet', {
        ...rest,
        ...(layers === undefined ? {} : { layers }),
        ...(isCifar ? { unitsPerStage } : {}),
        numClasses: numClasses ?? (isCifar ? 10 : 1000),
      }),
    );
  }
}
registerModel('PytorchcvSEResNet', PytorchcvSEResNet, ['features', 'output']);
registerGate('SEBlock', 'sigmoid');

type Configuration = Omit<PytorchcvSEResNetOptions, keyof PytorchcvModelOptions>;
type Create = (options?: PytorchcvModelOptions) => PytorchcvSEResNet;

const CAFFE = { bottleneck: true, conv1Stride: true } as const;
const BOTTLENECK = { bottleneck: true } as const;

/** Without the prefix and without 'pre', in whose place `preactivation` stands. */
const CONFIGURATIONS = {
  seresnet10: { layers: [1, 1, 1, 1] },
  seresnet12: { layers: [2, 1, 1, 1] },
  seresnet16: { layers: [2, 2, 2, 1] },
  seresnet18: { layers: [2, 2, 2, 2] },
  seresnet26: { layers: [3, 3, 3, 3] },
  seresnetbc26b: { ...BOTTLENECK, layers: [2, 2, 2, 2] },
  seresnet34: { layers: [3, 4, 6, 3] },
  seresnetbc38b: { ...BOTTLENECK, layers: [3, 3, 3, 3] },
  seresnet50: { ...CAFFE, layers: [3, 4, 6, 3] },
  seresnet50b: { ...BOTTLENECK, layers: [3, 4, 6, 3] },
  seresnet101: { ...CAFFE, layers: [3, 4, 23, 3] },
  seresnet101b: { ...BOTTLENECK, layers: [3, 4, 23, 3] },
  seresnet152: { ...CAFFE, layers: [3, 8, 36, 3] },
  seresnet152b: { ...BOTTLENECK, layers: [3, 8, 36, 3] },
  seresnet200: { ...CAFFE, layers: [3, 24, 36, 3] },
  seresnet200b: { ...BOTTLENECK, layers: [3, 24, 36, 3] },
  seresnet20: { unitsPerStage: 3 },
  seresnet56: { unitsPerStage: 9 },
  seresnet110: { unitsPerStage: 18 },
  seresnet164bn: { ...BOTTLENECK, unitsPerStage: 18 },
  seresnet272bn: { ...BOTTLENECK, unitsPerStage: 30 },
  seresnet542bn: { ...BOTTLENECK, unitsPerStage: 60 },
} as const satisfies Readonly<Record<string, Configuration>>;

type Depth = keyof typeof CONFIGURATIONS extends `se${infer Name}` ? Name : never;
type Name = `${typeof PREFIX}se${'' | 'pre'}${Depth}`;
interface Row {
  readonly create: Create;
  readonly stem: string;
  readonly inputSize: number;
  readonly numClasses: number;
  readonly preprocessing: Preprocessing;
  readonly publishedFile: RegExp;
}

const PREFIX = 'pytorchcv_';

function row(name: string, configuration: Configuration): Row {
  const create: Create = (options) => {
    const { numClasses, ...given } = readOptions(options, MODEL_OPTIONS, name);
    return new PytorchcvSEResNet({
      ...configuration,
      ...given,
      ...(numClasses === undefined ? {} : { numClasses }),
    });
  };
  const isCifar = configuration.unitsPerStage !== undefined;
  const isFlat = isCifar || configuration.preactivation === true;
  return {
    create,
    stem: `features.init_block.${isFlat ? 'conv' : 'conv.conv'}`,
    inputSize: isCifar ? 32 : 224,
    numClasses: isCifar ? 10 : 1000,
    preprocessing: isCifar ? CIFAR : IMAGENET,
    // With the data set, if it is not ImageNet, and the error: seresnet50b-0539-0123abcd.pth.
    publishedFile: new RegExp(
      `^${name.slice(PREFIX.length)}(?:_[a-z0-9]+)?-\\d{4}-([0-9a-f]{8})\\.pth(?:\\.zip)?$`,
    ),
  };
}

export const PYTORCHCV_MODELS = defineModels(
  FAMILY,
  Object.fromEntries(
    [false, true].flatMap((preactivation) =>
      Object.entries(CONFIGURATIONS).map(([name, configuration]) => {
        const full = `${PREFIX}se${preactivation ? 'pre' : ''}${name.slice(2)}`;
        return [full, row(full, { ...configuration, preactivation })];
      }),
    ),
  ) as Readonly<Record<Name, Row>>,
);
