/**
 * timm's legacy SENets, which are Cadene's: `legacy_seresnet*`, `legacy_seresnext*` and `legacy_senet154`
 * (timm/models/senet.py of pytorch-image-models; pretrainedmodels/models/senet.py). One class; a network is a row of its
 * arguments. Stride and pools lie elsewhere than in `timm-resnet.ts`: weights of one fit the other and are wrong there.
 */
import type { Sequential } from '../nn/containers';
import type { AdaptiveAvgPool2d, Linear, MaxPool2d } from '../nn/layers';
import { createNativeModule } from '../nn/native-module';
import { boolean, integer, number, oneOf, orElse, readOptions, type Rules } from '../tensor/rules';
import { ClassifierModel, registerModel } from './classifier-model';
import { MONAI } from './key-maps';
import { depths, INIT_OPTIONS, type InitOptions } from './options';
import { IMAGENET } from './preprocessing-record';
import { defineModels, type ModelFamily } from './record';
import { timmWeights } from './timm-weights';

/** The options of the networks by name. */
export interface SENetModelOptions extends InitOptions {
  /** Default 1000. */
  numClasses?: number;
  /** Of the dropout before the classifier, in training; 0 to 1. Default 0.2. */
  dropRate?: number;
}

/** The arguments of timm's legacy SENet. */
export interface SENetOptions extends SENetModelOptions {
  /** The block: SE-ResNet 18 and 34, SE-ResNet from 50 on, SE-ResNeXt, SENet-154. */
  block: 'SEResNetBlock' | 'SEResNetBottleneck' | 'SEResNeXtBottleneck' | 'SEBottleneck';
  /** Blocks in each of the four stages. */
  layers: readonly number[];
  /** Of the 3 x 3 convolutions. Default 1. */
  groups?: number;
  /** Of the SE modules. Default 16. */
  reduction?: number;
  /** Channels behind the stem. Default 64. */
  inplanes?: number;
  /** Three 3 x 3 convolutions in place of one 7 x 7. Default false. */
  input3x3?: boolean;
  /** Of the shortcuts' convolutions from the second stage on. Default 1. */
  downsampleKernelSize?: number;
  /** Default 0. */
  downsamplePadding?: number;
}

const MODEL_OPTIONS = {
  numClasses: orElse(1000, integer(0)),
  dropRate: orElse(0.2, number(0, 1)),
  ...INIT_OPTIONS,
} satisfies Rules<SENetModelOptions>;

const OPTIONS = {
  block: oneOf(['SEResNetBlock', 'SEResNetBottleneck', 'SEResNeXtBottleneck', 'SEBottleneck']),
  layers: depths,
  groups: orElse(1, integer(1)),
  reduction: orElse(16, integer(1)),
  inplanes: orElse(64, integer(1)),
  input3x3: orElse(false, boolean),
  downsampleKernelSize: orElse(1, integer(1)),
  downsamplePadding: orElse(0, integer(0)),
  ...MODEL_OPTIONS,
} satisfies Rules<SENetOptions>;

const SENET: ModelFamily = {
  inputSize: 224,
  anyInputSize: true,
  inChannels: 3,
  numClasses: 1000,
  rules: MODEL_OPTIONS,
  toldOptions: [],
  stem: 'layer0.conv1',
  classifier: 'last_linear',
  auxiliaryClassifiers: [],
  preprocessing: IMAGENET,
  framework: "Cadene, timm's legacy",
  firstBlock: 'layer1.0',
  mark: /^layer1\.0\.se_module\.fc1\.weight$/,
  adaptsWeights: true,
  keyMaps: [MONAI],
  optionsFrom: () => ({}),
};

/** N x inChannels x H x W images to N x numClasses logits. */
export class SENet extends ClassifierModel {
  /** @internal */
  static override readonly family = SENET;

  declare layer0: Sequential;
  declare pool0: MaxPool2d;
  declare layer1: Sequential;
  declare layer2: Sequential;
  declare layer3: Sequential;
  declare layer4: Sequential;
  declare global_pool: AdaptiveAvgPool2d;
  declare last_linear: Linear;

  /** @throws ERR_SENET_ARG_TYPE, ERR_SENET_ARG_RANGE, ERR_SENET_UNKNOWN_OPTION */
  constructor(options: SENetOptions) {
    super(createNativeModule('SENet', readOptions(options, OPTIONS, 'SENet')));
  }
}
registerModel('SENet', SENet, [
  'layer0',
  'pool0',
  'layer1',
  'layer2',
  'layer3',
  'layer4',
  'global_pool',
  'last_linear',
]);

type Configuration = Omit<SENetOptions, keyof SENetModelOptions>;
type Create = (options?: SENetModelOptions) => SENet;

const NEXT = { block: 'SEResNeXtBottleneck', groups: 32 } as const;

const CONFIGURATIONS = {
  legacy_seresnet18: { block: 'SEResNetBlock', layers: [2, 2, 2, 2] },
  legacy_seresnet34: { block: 'SEResNetBlock', layers: [3, 4, 6, 3] },
  legacy_seresnet50: { block: 'SEResNetBottleneck', layers: [3, 4, 6, 3] },
  legacy_seresnet101: { block: 'SEResNetBottleneck', layers: [3, 4, 23, 3] },
  legacy_seresnet152: { block: 'SEResNetBottleneck', layers: [3, 8, 36, 3] },
  legacy_seresnext26_32x4d: { ...NEXT, layers: [2, 2, 2, 2] },
  legacy_seresnext50_32x4d: { ...NEXT, layers: [3, 4, 6, 3] },
  legacy_seresnext101_32x4d: { ...NEXT, layers: [3, 4, 23, 3] },
  legacy_senet154: {
    block: 'SEBottleneck',
    layers: [3, 8, 36, 3],
    groups: 64,
    inplanes: 128,
    input3x3: true,
    downsampleKernelSize: 3,
    downsamplePadding: 1,
  },
} as const satisfies Readonly<Record<string, Configuration>>;

type Name = keyof typeof CONFIGURATIONS;

export const SENET_MODELS = defineModels(
  SENET,
  Object.fromEntries(
    Object.entries(CONFIGURATIONS).map(([name, configuration]) => {
      const create: Create = (options) =>
        new SENet({ ...configuration, ...readOptions(options, MODEL_OPTIONS, name) });
      return [name, { create, weights: timmWeights(name) }];
    }),
  ) as Readonly<Record<Name, { create: Create; weights: ReturnType<typeof timmWeights> }>>,
);
