/**
 * The weights that timm publishes for these networks, tag by tag as in its `default_cfgs` (timm/models/resnet.py and
 * timm/models/senet.py of pytorch-image-models 1.0.29), the usual one first: data. Accuracies are those of timm's
 * `results-imagenet.csv`. On the hub a tag is `timm/NAME.TAG`; the legacy networks have files by URL only.
 */
import { IMAGENET, type Preprocessing } from './preprocessing-record';
import type { PublishedWeights } from './record';

interface Tag {
  readonly tag: string;
  /** On GitHub, its hash in its name; none of what is on the hub alone. */
  readonly url?: string;
  /** Side of the images and the part of them that the crop keeps. */
  readonly eval: readonly [size: number, cropPct: number];
  /** The same where a larger image is better (timm's `use_test_size`). */
  readonly test?: readonly [size: number, cropPct: number];
  /** Percent of ImageNet's validation images, at a size. */
  readonly top1: readonly (readonly [percent: number, size: number])[];
  /** At the size of the first of them. */
  readonly top5?: number;
  /** Default 1000. */
  readonly classes?: number;
  /** Of the tensors, where there are other classes. */
  readonly bytes?: number;
  /** Default 'bicubic'. */
  readonly interpolation?: 'bilinear';
}

/** A file of `assets/labels`. */
export const IMAGENET_LABELS = 'imagenet.json';

const TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download';
const CADENE = `${TIMM}/v0.1-cadene/`;
const WEIGHTS = `${TIMM}/v0.1-weights/`;
const RS = `${TIMM}/v0.1-rs-weights/`;
const TPU = `${TIMM}/v0.1-tpu-weights/`;
const GLUON = 'https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/';
const RSB = 'https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/';
const TRESNET = `${TIMM}/v0.1-tresnet/`;

const TAGS: Readonly<Record<string, readonly Tag[]>> = {
  seresnet50: [
    {
      tag: 'a1_in1k',
      url: `${RSB}seresnet50_a1_0-ffa00869.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [80.012, 224],
        [81.114, 288],
      ],
    },
    {
      tag: 'a2_in1k',
      url: `${RSB}seresnet50_a2_0-850de0d9.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [80.102, 224],
        [81.094, 288],
      ],
    },
    {
      tag: 'a3_in1k',
      url: `${RSB}seresnet50_a3_0-317ecd56.pth`,
      eval: [160, 0.95],
      test: [224, 0.95],
      top1: [
        [75.104, 160],
        [77.036, 224],
      ],
    },
    {
      tag: 'ra2_in1k',
      url: `${WEIGHTS}seresnet50_ra_224-8efdb4bb.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [80.26, 224],
        [81.288, 288],
      ],
    },
  ],
  seresnet152d: [
    {
      tag: 'ra2_in1k',
      url: `${WEIGHTS}seresnet152d_ra2-04464dd2.pth`,
      eval: [256, 0.95],
      test: [320, 1],
      top1: [
        [83.702, 256],
        [84.344, 320],
      ],
    },
  ],
  seresnext26d_32x4d: [
    {
      tag: 'bt_in1k',
      url: `${WEIGHTS}seresnext26d_32x4d-80fa48a3.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [77.592, 224],
        [78.816, 288],
      ],
    },
  ],
  seresnext26t_32x4d: [
    {
      tag: 'bt_in1k',
      url: `${WEIGHTS}seresnext26tn_32x4d-569cb627.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [77.98, 224],
        [78.736, 288],
      ],
    },
  ],
  seresnext50_32x4d: [
    {
      tag: 'racm_in1k',
      url: `${WEIGHTS}seresnext50_32x4d_racm-a304a460.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [81.268, 224],
        [82.186, 288],
      ],
    },
    {
      tag: 'gluon_in1k',
      url: `${GLUON}gluon_seresnext50_32x4d-90cf2d6e.pth`,
      eval: [224, 0.875],
      top1: [[79.916, 224]],
    },
  ],
  seresnext101_32x4d: [
    {
      tag: 'gluon_in1k',
      url: `${GLUON}gluon_seresnext101_32x4d-cf52900d.pth`,
      eval: [224, 0.875],
      top1: [[80.886, 224]],
    },
  ],
  seresnext101_32x8d: [
    {
      tag: 'ah_in1k',
      url: `${TPU}seresnext101_32x8d_ah-e6bc4c0a.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [83.618, 224],
        [84.192, 288],
      ],
    },
  ],
  seresnext101d_32x8d: [
    {
      tag: 'ah_in1k',
      url: `${TPU}seresnext101d_32x8d_ah-191d7b94.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [83.702, 224],
        [84.38, 288],
      ],
    },
  ],
  seresnext101_64x4d: [
    {
      tag: 'gluon_in1k',
      url: `${GLUON}gluon_seresnext101_64x4d-f9926f93.pth`,
      eval: [224, 0.875],
      top1: [[80.884, 224]],
    },
  ],
  senet154: [
    {
      tag: 'gluon_in1k',
      url: `${GLUON}gluon_senet154-70a1a3c0.pth`,
      eval: [224, 0.875],
      top1: [[81.258, 224]],
      top5: 95.358,
    },
  ],
  seresnextaa101d_32x8d: [
    {
      tag: 'sw_in12k_ft_in1k_288',
      eval: [288, 0.95],
      test: [320, 1],
      top1: [
        [86.53, 288],
        [86.722, 320],
      ],
    },
    {
      tag: 'ah_in1k',
      url: `${TPU}seresnextaa101d_32x8d_ah-83c8ae12.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [83.9, 224],
        [84.58, 288],
      ],
    },
    { tag: 'sw_in12k', eval: [224, 0.95], test: [288, 1], top1: [], classes: 11821, bytes: 463_854_916 },
    {
      tag: 'sw_in12k_ft_in1k',
      eval: [224, 0.875],
      test: [288, 1],
      top1: [
        [85.956, 224],
        [86.524, 288],
      ],
    },
  ],
  seresnextaa201d_32x8d: [
    { tag: 'sw_in12k_ft_in1k_384', eval: [384, 1], top1: [[87.304, 384]], top5: 98.334 },
    { tag: 'sw_in12k', eval: [320, 0.95], test: [384, 1], top1: [], classes: 11821, bytes: 687_697_652 },
  ],
  resnetrs50: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs50_ema-6b53758b.pth`,
      eval: [160, 0.91],
      test: [224, 0.91],
      top1: [[79.934, 224]],
    },
  ],
  resnetrs101: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs101_i192_ema-1509bbf6.pth`,
      eval: [192, 0.94],
      test: [288, 0.94],
      top1: [[82.288, 288]],
    },
  ],
  resnetrs152: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs152_i256_ema-a9aff7f9.pth`,
      eval: [256, 1],
      test: [320, 1],
      top1: [[83.71, 320]],
    },
  ],
  resnetrs200: [
    {
      tag: 'tf_in1k',
      url: `${TPU}resnetrs200_c-6b698b88.pth`,
      eval: [256, 1],
      test: [320, 1],
      top1: [[84.448, 320]],
    },
  ],
  resnetrs270: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs270_ema-b40e674c.pth`,
      eval: [256, 1],
      test: [352, 1],
      top1: [[84.438, 352]],
    },
  ],
  resnetrs350: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs350_i256_ema-5a1aa8f1.pth`,
      eval: [288, 1],
      test: [384, 1],
      top1: [[84.71, 384]],
    },
  ],
  resnetrs420: [
    {
      tag: 'tf_in1k',
      url: `${RS}resnetrs420_ema-972dee69.pth`,
      eval: [320, 1],
      test: [416, 1],
      top1: [[85.01, 416]],
    },
  ],
  ecaresnet26t: [
    {
      tag: 'ra2_in1k',
      url: `${WEIGHTS}ecaresnet26t_ra2-46609757.pth`,
      eval: [256, 0.875],
      test: [320, 0.95],
      top1: [
        [78.894, 256],
        [79.9, 320],
      ],
    },
  ],
  ecaresnet50t: [
    {
      tag: 'ra2_in1k',
      url: `${WEIGHTS}ecaresnet50t_ra2-f7ac63c4.pth`,
      eval: [256, 0.875],
      test: [320, 0.95],
      top1: [
        [81.45, 256],
        [82.37, 320],
      ],
    },
    {
      tag: 'a1_in1k',
      url: `${RSB}ecaresnet50t_a1_0-99bd76a8.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [81.282, 224],
        [82.11, 288],
      ],
    },
    {
      tag: 'a2_in1k',
      url: `${RSB}ecaresnet50t_a2_0-b1c7b745.pth`,
      eval: [224, 0.95],
      test: [288, 1],
      top1: [
        [80.884, 224],
        [81.682, 288],
      ],
    },
    {
      tag: 'a3_in1k',
      url: `${RSB}ecaresnet50t_a3_0-8cc311f1.pth`,
      eval: [160, 0.95],
      test: [224, 0.95],
      top1: [
        [77.786, 160],
        [79.548, 224],
      ],
    },
  ],
  ecaresnet50d: [
    {
      tag: 'miil_in1k',
      url: `${TRESNET}ecaresnet50d-93c81e3b.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [80.634, 224],
        [81.648, 288],
      ],
    },
  ],
  ecaresnet101d: [
    {
      tag: 'miil_in1k',
      url: `${TRESNET}ecaresnet101d-153dad65.pth`,
      eval: [224, 0.875],
      test: [288, 0.95],
      top1: [
        [82.18, 224],
        [83.006, 288],
      ],
    },
  ],
  ecaresnet269d: [
    {
      tag: 'ra2_in1k',
      url: `${WEIGHTS}ecaresnet269d_320_ra2-7baa55cb.pth`,
      eval: [320, 0.95],
      test: [352, 1],
      top1: [
        [84.724, 320],
        [84.968, 352],
      ],
    },
  ],
  legacy_seresnet18: [
    { tag: 'in1k', url: `${WEIGHTS}seresnet18-4bb0ce65.pth`, eval: [224, 0.875], top1: [[71.742, 224]] },
  ],
  legacy_seresnet34: [
    {
      tag: 'in1k',
      url: `${WEIGHTS}seresnet34-a4004e63.pth`,
      eval: [224, 0.875],
      top1: [[74.788, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_seresnet50: [
    {
      tag: 'in1k',
      url: `${CADENE}se_resnet50-ce0d4300.pth`,
      eval: [224, 0.875],
      top1: [[77.65, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_seresnet101: [
    {
      tag: 'in1k',
      url: `${CADENE}se_resnet101-7e38fcc6.pth`,
      eval: [224, 0.875],
      top1: [[78.37, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_seresnet152: [
    {
      tag: 'in1k',
      url: `${CADENE}se_resnet152-d17c99b7.pth`,
      eval: [224, 0.875],
      top1: [[78.662, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_seresnext26_32x4d: [
    {
      tag: 'in1k',
      url: `${WEIGHTS}seresnext26_32x4d-65ebdb501.pth`,
      eval: [224, 0.875],
      top1: [[77.1, 224]],
    },
  ],
  legacy_seresnext50_32x4d: [
    {
      tag: 'in1k',
      url: `${WEIGHTS}legacy_se_resnext50_32x4d-f3651bad.pth`,
      eval: [224, 0.875],
      top1: [[79.08, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_seresnext101_32x4d: [
    {
      tag: 'in1k',
      url: `${WEIGHTS}legacy_se_resnext101_32x4d-37725eac.pth`,
      eval: [224, 0.875],
      top1: [[80.274, 224]],
      interpolation: 'bilinear',
    },
  ],
  legacy_senet154: [
    {
      tag: 'in1k',
      url: `${WEIGHTS}legacy_senet154-e9eb9fe6.pth`,
      eval: [224, 0.875],
      top1: [[81.32, 224]],
      top5: 95.502,
      interpolation: 'bilinear',
    },
  ],
};

/** timm's evaluation transform: the short side to floor(size / cropPct), the centre of it. */
export function timmPreprocessing(
  size: number,
  cropPct: number,
  interpolation: Preprocessing['interpolation'] = 'bicubic',
): Preprocessing {
  return { ...IMAGENET, size: Math.floor(size / cropPct), crop: [size, size], interpolation };
}

/** The published weights of a network of timm's, the usual one first; none of one that timm did not train. */
export function timmWeights(name: string): readonly Omit<PublishedWeights, 'model'>[] {
  return (TAGS[name] ?? []).map((row) => {
    const { tag, url, eval: usual, test, top1, top5, classes = 1000, bytes, interpolation } = row;
    const [measured] = top1.filter(([, size]) => size === usual[0]).concat(top1);
    const tested = top1.find(([, size]) => size === test?.[0]);
    const onHub = !name.startsWith('legacy_');
    return {
      name: tag,
      location: onHub
        ? { hub: `timm/${name}.${tag}`, ...(url === undefined ? {} : { url }) }
        : { url: url ?? '' },
      sha256: /-([0-9a-f]{8,})\.pth$/.exec(url ?? '')?.[1] ?? null,
      licence: 'Apache-2.0',
      top1: measured?.[0] ?? null,
      ...(measured === undefined ? {} : { top1Size: measured[1] }),
      ...(top5 === undefined ? {} : { top5 }),
      ...(tested === undefined ? {} : { testTop1: tested[0] }),
      ...(classes === 1000 ? { labels: IMAGENET_LABELS } : { numClasses: classes }),
      ...(bytes === undefined ? {} : { bytes }),
      preprocessing: timmPreprocessing(...usual, interpolation),
      ...(test === undefined ? {} : { testPreprocessing: timmPreprocessing(...test, interpolation) }),
    };
  });
}
