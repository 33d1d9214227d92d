/**
 * Random networks for property-based tests. What fast-check draws is data, so that it can shrink a network; `Fitted` makes
 * of every draw one that runs.
 */
import fc from 'fast-check';

import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  CifarSEBasicBlock,
  Conv2d,
  Flatten,
  Linear,
  MaxPool2d,
  ReLU,
  SEBasicBlock,
  SEBottleneck,
  SELayer,
  Sequential,
  type Module,
} from '../../lib';

type Size = readonly [number, number];

export type Layer =
  | {
      readonly kind: 'conv';
      readonly out: number;
      readonly kernel: Size;
      readonly stride: Size;
      readonly padding: Size;
      readonly bias: boolean;
      readonly bn: boolean;
      readonly relu: boolean;
    }
  | { readonly kind: 'se'; readonly reduction: number }
  | { readonly kind: 'basic' | 'cifar' | 'bottleneck'; readonly out: number; readonly stride: number }
  | {
      readonly kind: 'max' | 'average';
      readonly kernel: number;
      readonly stride: number;
      readonly padding: number;
    }
  | { readonly kind: 'bn' | 'relu' };

type LayerOf<Kind extends Layer['kind']> = Extract<Layer, { kind: Kind }>;

export interface Network {
  readonly size: Size;
  readonly batch: number;
  readonly channels: number;
  readonly layers: readonly Layer[];
  /** What stands behind them. */
  readonly head: 'none' | 'pool' | 'linear';
  /** Of the linear layer. */
  readonly classes: number;
  /** Of weights and input. */
  readonly seed: number;
  /** An input as an image has it, 0 to 1; else normally distributed. */
  readonly positive: boolean;
}

const between = (min: number, max: number): fc.Arbitrary<number> => fc.integer({ min, max });
const pair = (each: fc.Arbitrary<number>): fc.Arbitrary<Size> => fc.tuple(each, each);
const width = fc.oneof(between(1, 24), between(1, 160), fc.constantFrom(16, 32, 64, 128, 256));

const layer: fc.Arbitrary<Layer> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .record({
        out: width,
        window: fc.oneof(
          fc.constant<readonly [Size, Size]>([
            [3, 3],
            [1, 1],
          ]),
          fc.constant<readonly [Size, Size]>([
            [1, 1],
            [0, 0],
          ]),
          fc.tuple(pair(between(1, 7)), pair(between(0, 3))),
        ),
        stride: fc.oneof(fc.constant<Size>([1, 1]), pair(between(1, 4))),
        bias: fc.boolean(),
        bn: fc.boolean(),
        relu: fc.boolean(),
      })
      .map(({ window: [kernel, padding], ...rest }) => ({ kind: 'conv' as const, kernel, padding, ...rest })),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('se' as const), reduction: between(1, 16) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom('basic' as const, 'cifar' as const, 'bottleneck' as const),
      out: width,
      stride: between(1, 2),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('max' as const, 'average' as const),
      kernel: fc.oneof(between(1, 4), between(1, 40)),
      stride: between(1, 4),
      padding: between(0, 2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('bn' as const, 'relu' as const) }) },
);

/** A ReLU or a pool takes any number of channels, so that alone it cannot be compiled. */
const fixesChannels = ({ kind }: Layer): boolean => !['max', 'average', 'relu'].includes(kind);

export const network: fc.Arbitrary<Network> = fc.record({
  size: fc.oneof(
    { weight: 4, arbitrary: pair(between(1, 20)) },
    { weight: 4, arbitrary: pair(between(1, 80)) },
    { weight: 1, arbitrary: pair(between(1, 1024)) },
  ),
  batch: fc.oneof(fc.constant(1), between(1, 9)),
  channels: fc.oneof(fc.constant(3), width),
  layers: fc
    .array(layer, { minLength: 1, maxLength: 6, size: 'max' })
    .filter((layers) => layers.some(fixesChannels)),
  head: fc.constantFrom('none' as const, 'pool' as const, 'linear' as const),
  classes: between(1, 100),
  seed: between(0, 1e6),
  positive: fc.boolean(),
});

/** Elements of a value for the whole batch, and multiply-adds of a layer, at most. */
const MOST_ELEMENTS = 2e6;
const MOST_PRODUCTS = 4e7;

/**
 * Fits what was drawn together: windows that are larger than their input shrink, and so do numbers of channels that would
 * cost too much.
 */
export class Fitted {
  /** Of the input. */
  readonly shape: readonly number[];
  #size: Size;
  readonly #parts: [text: string, make: () => Module<unknown>][] = [];
  readonly #batch: number;
  #channels: number;

  constructor(drawn: Network) {
    this.#size = drawn.size;
    const area = drawn.size[0] * drawn.size[1];
    this.#batch = Math.max(1, Math.min(drawn.batch, Math.floor(MOST_ELEMENTS / 4 / area)));
    this.#channels = this.#atMost(drawn.channels, 0);
    this.shape = [this.#batch, this.#channels, ...drawn.size];
    for (const layer of drawn.layers) this.#add(layer);
    if (drawn.head !== 'none') this.#append([1, 1], 'pool', () => new AdaptiveAvgPool2d(1));
    if (drawn.head === 'linear') {
      const inputs = this.#channels;
      this.#append([1, 1], 'flatten', () => new Flatten());
      this.#append([1, 1], `Linear(${inputs},${drawn.classes})`, () => new Linear(inputs, drawn.classes));
    }
  }

  /** With the weights of the construction. */
  make(): Module {
    return new Sequential(...this.#parts.map(([, make]) => make()));
  }

  toString(): string {
    return `${this.shape.join(' x ')}: ${this.#parts.map(([text]) => text).join(' ')}`;
  }

  /** As many channels as are wanted, or as the last value's size allows with so many products for each of its pixels. */
  #atMost(wanted: number, products: number, pixels = this.#size[0] * this.#size[1]): number {
    const all = pixels * this.#batch;
    return Math.max(1, Math.floor(Math.min(wanted, MOST_ELEMENTS / all, MOST_PRODUCTS / (all * products))));
  }

  #append(size: Size, text: string, make: () => Module<unknown>): void {
    this.#size = size;
    this.#parts.push([text, make]);
  }

  #after(kernel: Size, stride: Size, padding: Size): Size {
    const count = (axis: 0 | 1): number =>
      Math.floor((this.#size[axis] + 2 * padding[axis] - kernel[axis]) / stride[axis]) + 1;
    return [count(0), count(1)];
  }

  #add(layer: Layer): void {
    const channels = this.#channels;
    switch (layer.kind) {
      case 'conv': {
        this.#addConvolution(layer);
        return;
      }
      case 'basic':
      case 'cifar':
      case 'bottleneck': {
        this.#addBlock(layer);
        return;
      }
      case 'max':
      case 'average': {
        this.#addPool(layer);
        return;
      }
      case 'se': {
        const reduction = Math.min(layer.reduction, channels);
        const make = (): Module<unknown> => new SELayer(channels, reduction);
        this.#append(this.#size, `SE(${channels},${reduction})`, make);
        return;
      }
      case 'bn': {
        this.#append(this.#size, 'BN', () => new BatchNorm2d(channels));
        return;
      }
      case 'relu': {
        this.#append(this.#size, 'ReLU', () => new ReLU());
        return;
      }
    }
  }

  #addConvolution({ out, kernel, stride, padding, bias, bn, relu }: LayerOf<'conv'>): void {
    const inputs = this.#channels;
    const window: Size = [
      Math.min(kernel[0], this.#size[0] + 2 * padding[0]),
      Math.min(kernel[1], this.#size[1] + 2 * padding[1]),
    ];
    const size = this.#after(window, stride, padding);
    const outputs = this.#atMost(out, inputs * window[0] * window[1], size[0] * size[1]);
    this.#channels = outputs;
    const text = `${window.join('x')},s${stride.join('x')},p${padding.join('x')}${bias ? '' : ',no bias'}`;
    this.#append(
      size,
      `Conv(${inputs},${outputs},${text})`,
      () => new Conv2d(inputs, outputs, [...window], { stride: [...stride], padding: [...padding], bias }),
    );
    if (bn) this.#append(size, 'BN', () => new BatchNorm2d(outputs));
    if (relu) this.#append(size, 'ReLU', () => new ReLU());
  }

  #addBlock({ kind, out, stride: wanted }: LayerOf<'basic' | 'cifar' | 'bottleneck'>): void {
    const inputs = this.#channels;
    const expansion = kind === 'bottleneck' ? 4 : 1;
    const planes = this.#atMost(out, 9 * Math.max(inputs, out));
    const outputs = planes * expansion;
    // The original's block makes no downsample for a stride alone.
    const stride = kind === 'cifar' && inputs === outputs ? 1 : wanted;
    const reduction = Math.min(16, outputs);
    const size = this.#after([1, 1], [stride, stride], [0, 0]);
    const downsample = (): Module | null =>
      inputs === outputs && stride === 1
        ? null
        : new Sequential(new Conv2d(inputs, outputs, 1, { stride, bias: false }), new BatchNorm2d(outputs));
    this.#channels = outputs;
    this.#append(size, `${kind}(${inputs},${planes},s${stride})`, () => {
      if (kind === 'cifar') return new CifarSEBasicBlock(inputs, planes, stride, reduction);
      const Block = kind === 'basic' ? SEBasicBlock : SEBottleneck;
      return new Block(inputs, planes, stride, downsample(), 1, 64, 1, null, { reduction });
    });
  }

  #addPool({ kind, kernel: wanted, stride, padding: most }: LayerOf<'max' | 'average'>): void {
    const kernel = Math.min(wanted, ...this.#size);
    const padding = Math.min(most, kernel >> 1);
    const size = this.#after([kernel, kernel], [stride, stride], [padding, padding]);
    const Pool = kind === 'max' ? MaxPool2d : AvgPool2d;
    this.#append(
      size,
      `${kind}(${kernel},s${stride},p${padding})`,
      () => new Pool(kernel, { stride, padding }),
    );
  }
}
