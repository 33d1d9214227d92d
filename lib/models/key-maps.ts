/**
 * How files of other frameworks spell the keys of networks that this library has: data, one list a framework. A network
 * takes them wherever it loads a state dict (`registerModel`), and `recognise` tells by them whose a file is. A matrix
 * [r, C] of a Linear becomes the weights [r, C, 1, 1] of the 1 x 1 convolution that it stands for.
 */
import { SE_LAYER_ALIASES } from '../nn/se-layer';
import type { KeyMap } from './record';

/** The article's first listing of SELayer (senet.pytorch). */
export const ARTICLE: KeyMap = { framework: 'senet.pytorch (article)', aliases: SE_LAYER_ALIASES };

/** In senet.pytorch's networks: what the reduction, the auxiliary head and the place of the SE layers change. */
export const SE_LAYER_OPTIONS = { shapes: /\.(se|SELayer)\.fc\.\d\.weight$/, names: /(^|\.)AuxLogits\./ };

/**
 * mmpretrain/models/backbones/seresnet.py and utils/se_layer.py: the network below `backbone.`, its head as `head.fc`.
 * Of style 'pytorch', as its published ones: strides in the 3 x 3, a pool with padding, widths of SE as timm's.
 */
export const MMPRETRAIN: KeyMap = {
  framework: 'mmpretrain',
  aliases: [
    [/^backbone\./, ''],
    [/^head\.fc\./, 'fc.'],
    [/\.se_layer\.conv1\.conv\./, '.se.fc1.'],
    [/\.se_layer\.conv2\.conv\./, '.se.fc2.'],
  ],
};

/**
 * DeepLearningExamples, PyTorch/Classification/ConvNets, models/resnet.py: stages numbered from 0, or in the files of
 * 20.06 named as timm's; SE called `squeeze`.
 */
export const NVIDIA: KeyMap = {
  framework: 'NVIDIA DeepLearningExamples',
  firstBlock: 'layers.0.0',
  aliases: [
    [/^layers\.0\./, 'layer1.'],
    [/^layers\.1\./, 'layer2.'],
    [/^layers\.2\./, 'layer3.'],
    [/^layers\.3\./, 'layer4.'],
    [/\.squeeze\.squeeze\./, '.se.fc1.'],
    [/\.squeeze\.expand\./, '.se.fc2.'],
  ],
};

/**
 * pytorchcv/models/seresnext.py and senet.py: units numbered from 1, SE's convolutions as its SE-ResNets spell them
 * (`pytorchcv-se-resnet.ts`). Of networks with groups only: these have their strides in the 3 x 3, as timm's, and of the
 * others neither keys nor shapes say it.
 */
export const PYTORCHCV: KeyMap = {
  framework: 'pytorchcv',
  firstBlock: 'stage1.unit1',
  isOf: (shapeOf) => {
    const [outputs = 0, inputsOfGroup = 0] = shapeOf('layer1.0.conv2.weight') ?? [];
    return inputsOfGroup < outputs;
  },
  aliases: [
    [/^features\.stage(\d)\.unit([1-9]\d?)\./, (_, stage, unit) => `layer${stage}.${Number(unit) - 1}.`],
    [/^(layer\d\.\d+)\.body\.(conv\d)\.conv\./, '$1.$2.'],
    [/^(layer\d\.\d+)\.body\.conv(\d)\.bn\./, '$1.bn$2.'],
    [/^(layer\d\.\d+)\.se\.conv(\d)\./, '$1.se.fc$2.'],
    [/^(layer\d\.\d+)\.identity_conv\.conv\./, '$1.downsample.0.'],
    [/^(layer\d\.\d+)\.identity_conv\.bn\./, '$1.downsample.1.'],
    [/^features\.init_block\.conv\.conv\./, 'conv1.'],
    [/^features\.init_block\.conv\.bn\./, 'bn1.'],
    [/^features\.init_block\.conv1\.conv\./, 'conv1.0.'],
    [/^features\.init_block\.conv1\.bn\./, 'conv1.1.'],
    [/^features\.init_block\.conv2\.conv\./, 'conv1.3.'],
    [/^features\.init_block\.conv2\.bn\./, 'conv1.4.'],
    [/^features\.init_block\.conv3\.conv\./, 'conv1.6.'],
    [/^features\.init_block\.conv3\.bn\./, 'bn1.'],
    [/^output\.(fc\.)?/, 'fc.'],
  ],
};

/** monai/networks/nets/senet.py and blocks/squeeze_and_excitation.py in two dimensions: Cadene's networks. */
export const MONAI: KeyMap = {
  framework: 'MONAI',
  aliases: [
    [/^(layer\d+\.\d+\.conv\d)\.conv\./, '$1.'],
    [/^(layer\d+\.\d+)\.conv(\d)\.adn\.N\./, '$1.bn$2.'],
    [/^(layer\d+\.\d+)\.se_layer\.fc\.0\./, '$1.se_module.fc1.'],
    [/^(layer\d+\.\d+)\.se_layer\.fc\.2\./, '$1.se_module.fc2.'],
    [/^(layer\d+\.\d+)\.project\.conv\./, '$1.downsample.0.'],
    [/^(layer\d+\.\d+)\.project\.adn\.N\./, '$1.downsample.1.'],
  ],
};
