/**
 * From pixels to a network's input as nodes of ONNX: the record of `vision/preprocessing`, step by step, for images of any
 * size. Resizing averages over what a pixel covers, as Pillow's, which ONNX has since opset 18. Knows no network.
 */
import { centreOf } from '../vision/preprocessing';
import { L_WEIGHTS } from '../vision/preprocessing-options';
import type { Preprocessing } from '../models/preprocessing-record';
import { Float, typeCode, type OnnxGraph } from './graph';

/** The oldest opset with the nodes that a record needs. */
export function opsetFor({ size }: Preprocessing): 17 | 18 {
  return size === null ? 17 : 18;
}

/**
 * Adds the nodes.
 *
 * @param pixels - name of a value of the graph: uint8, N x height x width x 3, red, green and blue
 * @returns the name of the network's input: float32, N x C x height x width
 */
export function preprocessNodes(graph: OnnxGraph, pixels: string, record: Preprocessing): string {
  const nodes = new Nodes(graph);
  let x = nodes.add('Transpose', [pixels], 'channels', { perm: [0, 3, 1, 2] });
  if (record.channels !== 'rgb') x = nodes.grey(x);
  if (record.size !== null) x = nodes.resize(x, record.size, record.interpolation);
  if (record.crop !== null) {
    x = Array.isArray(record.size)
      ? nodes.cropKnown(x, record.size as [number, number], record.crop)
      : nodes.crop(
          x,
          record.crop,
          record.size === null || Math.max(...record.crop) > (record.size as number),
        );
  }
  if (record.pad > 0) x = nodes.pad(x, new Array<number>(4).fill(record.pad));
  x = nodes.normalise(x, record);
  return record.channels === 'grey-repeated' ? nodes.add('Concat', [x, x, x], 'repeated', { axis: 1 }) : x;
}

class Nodes {
  constructor(readonly graph: OnnxGraph) {}

  add(
    operation: string,
    inputs: readonly string[],
    name: string,
    attributes: Parameters<OnnxGraph['node']>[3] = {},
  ): string {
    return this.graph.node(operation, inputs, `preprocess/${name}`, attributes);
  }

  integers(...values: readonly number[]): string {
    return this.graph.constant('int64', values);
  }

  /** Pillow's L: (19595 R + 38470 G + 7471 B + 2**15) >> 16. */
  grey(x: string): string {
    const whole = this.add('Cast', [x], 'grey/whole', { to: typeCode('int32') });
    const weighed = this.add(
      'Mul',
      [whole, this.graph.constant('int32', L_WEIGHTS, [1, 3, 1, 1])],
      'grey/weighed',
    );
    const sum = this.add('ReduceSum', [weighed, this.integers(1)], 'grey/sum', { keepdims: 1 });
    const rounded = this.add('Add', [sum, this.graph.constant('int32', [2 ** 15])], 'grey/rounded');
    const divided = this.add('Div', [rounded, this.graph.constant('int32', [2 ** 16])], 'grey/divided');
    return this.add('Cast', [divided], 'grey', { to: typeCode('uint8') });
  }

  resize(
    x: string,
    size: NonNullable<Preprocessing['size']>,
    interpolation: Preprocessing['interpolation'],
  ): string {
    const shape = this.add('Shape', [x], 'shape');
    const outer = this.add('Slice', [shape, this.integers(0), this.integers(2)], 'shape/outer');
    const sides = typeof size === 'number' ? this.#short(shape, size) : this.integers(...size);
    const sizes = this.add('Concat', [outer, sides], 'resize/sizes', { axis: 0 });
    const isCubic = interpolation === 'bicubic';
    // At the border, Pillow takes the pixels that there are, weighed anew.
    return this.add('Resize', [x, '', '', sizes], 'resize', {
      mode: isCubic ? 'cubic' : 'linear',
      antialias: 1,
      coordinate_transformation_mode: 'half_pixel',
      exclude_outside: 1,
      ...(isCubic ? { cubic_coeff_a: new Float(-0.5) } : {}),
    });
  }

  /** Both sides for a short one of `size`: the long one rounds down, as torchvision's. */
  #short(shape: string, size: number): string {
    const sides = this.add('Slice', [shape, this.integers(2), this.integers(4)], 'shape/sides');
    const short = this.add('ReduceMin', [sides], 'shape/short', { keepdims: 1 });
    const times = this.add('Mul', [sides, this.integers(size)], 'resize/times');
    return this.add('Div', [times, short], 'resize/sides');
  }

  cropKnown(x: string, size: readonly [number, number], crop: readonly [number, number]): string {
    const { box, padding } = centreOf(size, crop);
    const { top, left, height, width } = box;
    const cut = this.add(
      'Slice',
      [x, this.integers(top, left), this.integers(top + height, left + width), this.integers(2, 3)],
      'crop',
    );
    return padding === null ? cut : this.pad(cut, padding);
  }

  /** The centre of an image of any size, as `centreOf` has it. @param mayLack - whether it may be smaller */
  crop(x: string, crop: readonly [number, number], mayLack: boolean): string {
    const wanted = this.integers(...crop);
    const sidesOf = (of: string): string =>
      this.add('Slice', [this.add('Shape', [of], 'shape'), this.integers(2), this.integers(4)], 'crop/sides');
    let image = x;
    if (mayLack) {
      const lacking = this.add('Sub', [wanted, sidesOf(x)], 'crop/lacking');
      const missing = this.add('Max', [lacking, this.integers(0)], 'crop/missing');
      const before = this.add('Div', [missing, this.integers(2)], 'crop/before');
      const after = this.add('Sub', [missing, before], 'crop/after');
      const outer = this.integers(0, 0);
      const pads = this.add('Concat', [outer, before, outer, after], 'crop/pads', { axis: 0 });
      image = this.add('Pad', [x, pads], 'crop/pad');
    }
    const over = this.add('Sub', [sidesOf(image), wanted], 'crop/over');
    const whole = this.add('Cast', [over], 'crop/over/float', { to: typeCode('float32') });
    const half = this.add('Mul', [whole, this.graph.constant('float32', [0.5])], 'crop/half');
    const rounded = this.add('Round', [half], 'crop/half/even');
    const start = this.add('Cast', [rounded], 'crop/start', { to: typeCode('int64') });
    const end = this.add('Add', [start, wanted], 'crop/end');
    return this.add('Slice', [image, start, end, this.integers(2, 3)], 'crop');
  }

  /** @param zeros - left, right, top, bottom */
  pad(x: string, [left = 0, right = 0, top = 0, bottom = 0]: readonly number[]): string {
    return this.add('Pad', [x, this.integers(0, 0, top, left, 0, 0, bottom, right)], 'pad');
  }

  normalise(x: string, { mean, std }: Preprocessing): string {
    const numbers = (values: readonly number[]): string =>
      this.graph.constant('float32', values, [1, values.length, 1, 1]);
    const float = this.add('Cast', [x], 'float32', { to: typeCode('float32') });
    const scaled = this.add('Div', [float, numbers([255])], 'normalise/255');
    const centred = this.add('Sub', [scaled, numbers(mean)], 'normalise/mean');
    return this.add('Div', [centred, numbers(std)], 'normalise/std');
  }
}
