/** The rule by which weights of the public networks are drawn (`fixtures/zoo/README.md`). */
import { ops, rand, randn, type Tensor } from '../../lib';

/** An entry of a state dict, after `manualSeed(seed * 1000 + index)`. */
export function drawn(key: string, shape: number[]): Tensor {
  if (key.endsWith('num_batches_tracked')) return ops.call('aten::ones', shape, { dtype: 'int64' }) as Tensor;
  if (key.endsWith('running_var')) return rand(shape).add(0.5);
  if (!key.endsWith('weight')) return randn(shape).mul(0.1);
  const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
  switch (shape.length) {
    case 4:
      return randn(shape).mul(Math.sqrt(2 / fanIn));
    case 3:
    case 2:
      return randn(shape).div(Math.sqrt(fanIn));
    default:
      return randn(shape).mul(0.1).add(0.7);
  }
}
