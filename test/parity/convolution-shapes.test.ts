/**
 * Convolutions of drawn shapes, narrow ones above all, on every path that leads to LibTorch's operators, against float64:
 * oneDNN computes some shapes wrong on some processors (native/graph/convolution.h), and nobody knows beforehand which.
 * SENET_FUZZ_SEED=... draws others, SENET_FUZZ_RUNS=... more of them; each failure is printed with its shape.
 *
 * What this processor computes right says nothing of others, so the second test reads oneDNN's own log of what it was
 * asked for: no shape of the kind that it computes wrong anywhere.
 */
import { expect } from 'chai';
import fc from 'fast-check';
import { execFileSync } from 'node:child_process';
import path from 'node:path';

import { autocast, Conv2d, manualSeed, randn, Sequential, tidy, type DType, type Tensor } from '../../lib';
import { HAS_FLOAT16 } from '../support/processor';
import { FUZZ_RUNS, FUZZ_SEED, printSeed } from '../support/fuzz';

const CASES = 150 * FUZZ_RUNS;

interface Shape {
  readonly batch: number;
  readonly inChannels: number;
  readonly outChannels: number;
  readonly groups: number;
  readonly kernel: [number, number];
  readonly stride: [number, number];
  readonly padding: [number, number];
  readonly dilation: [number, number];
  /** Height and width of the output, and how many pixels more than needed the input has. */
  readonly output: readonly [number, number];
  readonly surplus: readonly [number, number];
}

const channels = fc.constantFrom(1, 2, 3, 8, 16, 32, 39, 64, 128, 256);
const pair = (of: fc.Arbitrary<number>): fc.Arbitrary<[number, number]> => fc.tuple(of, of);
const drawn: fc.Arbitrary<Shape> = fc.record({
  batch: fc.constantFrom(1, 2, 8),
  inChannels: channels,
  outChannels: channels,
  groups: fc.constantFrom(1, 1, 1, 2, 8),
  kernel: pair(fc.constantFrom(1, 2, 3, 3, 4, 5, 7, 8)),
  stride: pair(fc.constantFrom(1, 2, 2, 3, 4)),
  padding: pair(fc.constantFrom(0, 1, 1, 2, 3)),
  dilation: pair(fc.constantFrom(1, 1, 1, 2)),
  output: fc.tuple(fc.integer({ min: 1, max: 14 }), fc.constantFrom(1, 1, 1, 2, 2, 3, 5)),
  surplus: pair(fc.integer({ min: 0, max: 2 })),
});

/** Height and width of the input; undefined where the drawn parts make no convolution. */
function inputSize(shape: Shape): [number, number] | undefined {
  const { kernel, stride, padding, dilation, output, surplus } = shape;
  const side = (axis: 0 | 1): number =>
    (output[axis] - 1) * stride[axis] +
    dilation[axis] * (kernel[axis] - 1) +
    1 -
    2 * padding[axis] +
    Math.min(surplus[axis], stride[axis] - 1);
  const size: [number, number] = [side(0), side(1)];
  const fits = size[0] >= 1 && size[1] >= 1 && shape.inChannels * shape.outChannels <= 128 * 256;
  return fits && shape.inChannels % shape.groups === 0 && shape.outChannels % shape.groups === 0
    ? size
    : undefined;
}

function relativeError(actual: Tensor, expected: Tensor): number {
  const wide = actual.to('float64');
  const difference = wide.sub(expected);
  const norm = Math.sqrt(Number(expected.mul(expected).sum().item()));
  const error = Math.sqrt(Number(difference.mul(difference).sum().item()));
  return Number.isNaN(error) ? Infinity : error / Math.max(norm, 1e-3);
}

/** The convolution and an input; what is rounded to a dtype is rounded before, so that only the arithmetic differs. */
function make(shape: Shape, size: readonly [number, number], dtype: DType): { layer: Conv2d; x: Tensor } {
  const { batch, inChannels, outChannels, kernel, stride, padding, dilation, groups } = shape;
  manualSeed(1);
  const layer = new Conv2d(inChannels, outChannels, kernel, { stride, padding, dilation, groups });
  layer.to(dtype).to('float32');
  return {
    layer,
    x: randn([batch, inChannels, ...size])
      .to(dtype)
      .to('float32'),
  };
}

const LIMITS: Partial<Record<DType, number>> = { float32: 1e-5, bfloat16: 1e-2, float16: 2e-3 };

/** Relative errors by path. */
async function measure(shape: Shape, size: readonly [number, number]): Promise<string[]> {
  const wrong: string[] = [];
  const note = (name: string, dtype: DType, actual: Tensor, expected: Tensor): void => {
    const error = relativeError(actual, expected);
    if (error > (LIMITS[dtype] as number)) wrong.push(`${name} ${dtype} ${error.toExponential(1)}`);
  };
  const dtypes: DType[] = ['float32', 'bfloat16', ...(HAS_FLOAT16 ? (['float16'] as const) : [])];
  for (const dtype of dtypes) {
    const { layer, x } = make(shape, size, dtype);
    const exact = make(shape, size, dtype).layer.to('float64');
    const wideInput = x.to('float64').detach();
    wideInput.requiresGrad = true;
    const expected = await exact.forward(wideInput, { grad: true });
    const upstream = randn(expected.shape).to(dtype).to('float64');
    await expected.backward(upstream);
    const gradients = [wideInput.grad, ...exact.parameters().map(({ grad }) => grad)] as Tensor[];

    for (const memoryFormat of ['contiguous', 'channels_last'] as const) {
      for (const way of dtype === 'bfloat16' ? (['plain', 'autocast'] as const) : (['plain'] as const)) {
        layer
          .to('float32')
          .to({ dtype: way === 'plain' ? dtype : 'float32', memoryFormat })
          .zeroGrad();
        const input = x.to({ dtype: way === 'plain' ? dtype : 'float32', memoryFormat }).detach();
        input.requiresGrad = true;
        const forward = (): Promise<Tensor> => layer.forward(input, { grad: true });
        const y = await (way === 'plain' ? forward() : autocast(forward));
        note(`${way} ${memoryFormat}`, dtype, y, expected);
        await y.backward(upstream.to(y.dtype));
        for (const [index, gradient] of [
          input.grad,
          ...layer.parameters().map(({ grad }) => grad),
        ].entries()) {
          const part = ['input', 'weight', 'bias'][index] as string;
          note(
            `${way} ${memoryFormat} gradient of ${part}`,
            dtype,
            gradient as Tensor,
            gradients[index] as Tensor,
          );
        }
      }
    }
    if (shape.groups > 1 || Math.max(...shape.dilation) > 1) continue; // not compiled
    const compiled = await new Sequential(layer.to('float32')).compile({ dtype: dtype as 'float32' });
    note('compiled', dtype, await compiled.forward(x), expected);
    compiled.dispose();
  }
  return wrong;
}

/** What oneDNN's log says of a convolution: its dilation is one less than PyTorch's. */
const GEOMETRY = /oh\d+kh(\d+)sh\d+dh(\d+)ph(\d+)_iw\d+ow(\d+)kw(\d+)sw(\d+)dw(\d+)pw(\d+)/;

/** Of a process's oneDNN: the convolutions that it ran, as its log has them. */
function convolutionsOf(kernels: string): string[] {
  const log = execFileSync(
    process.execPath,
    ['--require', require.resolve('tsx/cjs'), path.join(__dirname, '..', 'support', 'narrow-networks.ts')],
    {
      env: { ...process.env, ONEDNN_VERBOSE: '1', DNNL_VERBOSE: '1', SENET_COMPILE_KERNELS: kernels },
      encoding: 'utf8',
      maxBuffer: 256e6,
    },
  );
  return log.split('\n').filter((line) => /^(onednn|dnnl)_verbose.*,exec.*,convolution,/.test(line));
}

describe('convolutions of drawn shapes', function () {
  this.timeout(1_800_000);
  const wish = process.env.SENET_COMPILE_KERNELS;
  before(printSeed);
  after(() => {
    if (wish === undefined) delete process.env.SENET_COMPILE_KERNELS;
    else process.env.SENET_COMPILE_KERNELS = wish;
  });

  it(`${CASES} shapes, eager, in mixed precision, backward and compiled, as in float64`, async () => {
    process.env.SENET_COMPILE_KERNELS = 'libtorch';
    const wrong: string[] = [];
    for (const shape of fc.sample(drawn, { numRuns: CASES, seed: FUZZ_SEED })) {
      const size = inputSize(shape);
      if (size === undefined) continue;
      const found = await tidy(() => measure(shape, size));
      if (found.length > 0)
        wrong.push(`${JSON.stringify(shape)}, input ${size.join(' x ')}: ${found.join('; ')}`);
    }
    expect(wrong, wrong.join('\n')).to.be.empty;
  });

  it('oneDNN is asked for no shape of a kind that it computes wrong, forward, backward, compiled or in mixed precision', () => {
    const asked = convolutionsOf('libtorch').map((line) => {
      const numbers = GEOMETRY.exec(line)?.slice(1).map(Number);
      expect(numbers, line).to.have.length(8);
      const [height, rowDilation, rowPadding, output, kernel, stride, dilation, padding] = numbers as [
        ...[number, number, number],
        ...[number, number, number, number, number],
      ];
      return { line, height, rowDilation, rowPadding, output, kernel, stride, dilation, padding };
    });
    for (const kind of ['forward', 'backward_data', 'backward_weights', 'bf16', 'f32']) {
      expect(
        asked.some(({ line }) => line.includes(kind)),
        kind,
      ).to.equal(true);
    }
    expect(asked.some(({ output, stride }) => output === 2 && stride > 1)).to.equal(true); // they were widened
    const wrong = asked.filter(
      ({ line, output, kernel, stride, dilation, padding, height, rowDilation, rowPadding }) =>
        (output === 1 && kernel > 1 && stride > 1) ||
        (line.includes('bf16') && kernel > 1 && (![2, 3, 5, 7].includes(kernel) || stride >= kernel)) ||
        2 * padding >= (dilation + 1) * (kernel - 1) + 1 ||
        2 * rowPadding >= (rowDilation + 1) * (height - 1) + 1,
    );
    expect(wrong, wrong.map(({ line }) => line).join('\n')).to.be.empty;
  });
});
