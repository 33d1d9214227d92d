/**
 * Compiled random networks against a float64 run of the same weights, with each set of kernels that this processor has.
 * SENET_FUZZ_SEED=... draws others, SENET_FUZZ_RUNS=... more of them.
 */
import { expect } from 'chai';
import fc from 'fast-check';

import { manualSeed, ops, rand, randn, type Module, type Tensor } from '../../lib';
import { FUZZ_RUNS, FUZZ_SEED, printSeed } from '../support/fuzz';
import { allowedError, EPSILON, numbers, perturbBatchNorms, relativeError } from '../support/parity';
import { PROCESSOR_FLAGS } from '../support/processor';
import { Fitted, network, type Network } from '../support/random-networks';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

type Tested = keyof typeof EPSILON;

const SETS: Record<Tested, readonly [kernels: string, needs: RegExp][]> = {
  float32: [
    ['avx512', /\bavx512bw\b/],
    ['avx2', /\bavx2\b/],
    ['libtorch', /(?:)/],
  ],
  bfloat16: [
    ['avx512_bf16', /\bavx512_bf16\b/],
    ['amx_bf16', /\bamx_bf16\b/],
    ['amx_emulated', /(?:)/],
    ['libtorch', /\bavx512bw\b/],
  ],
};

/** A drawn network with its weights, and an input. */
class Case {
  readonly fitted: Fitted;
  readonly model: Module;
  readonly input: Tensor;

  constructor(drawn: Network) {
    this.fitted = new Fitted(drawn);
    manualSeed(drawn.seed);
    this.model = this.fitted.make().eval();
    perturbBatchNorms(this.model, [0.5, 1.5]);
    this.input = (drawn.positive ? rand : randn)([...this.fitted.shape]);
  }

  /** The output of an ordinary forward. */
  async run(dtype: Tested | 'float64'): Promise<number[]> {
    const model = this.fitted.make().eval();
    model.loadStateDict(this.model.stateDict());
    const output = await model.to(dtype).forward(this.input.to(dtype));
    model.dispose();
    return numbers(output.to('float64'));
  }

  async runCompiled(dtype: Tested, kernels: string): Promise<number[]> {
    temporary.environment({ SENET_COMPILE_KERNELS: kernels });
    const compiled = await this.model.compile({ dtype });
    const output = await compiled.forward(this.input);
    compiled.dispose();
    return numbers(output);
  }

  /** Moves each weight by up to so much, relative to it. */
  moveWeights(most: number): void {
    for (const parameter of this.model.parameters()) {
      ops.call(
        'aten::mul_.Tensor',
        parameter.detach(),
        rand([...parameter.shape])
          .sub(0.5)
          .mul(2 * most)
          .add(1),
      );
    }
  }

  dispose(): void {
    this.model.dispose();
  }
}

const temporary = new Temporary();

async function check(drawn: Network, dtype: Tested, sets: readonly string[]): Promise<void> {
  const tested = new Case(drawn);
  const reference = await tested.run('float64');
  fc.pre(reference.some((value) => value !== 0)); // a ReLU may let nothing through
  const eager = relativeError(await tested.run(dtype), reference);
  const failed: string[] = [];
  let most = 0;
  for (const kernels of sets) {
    const error = relativeError(await tested.runCompiled(dtype, kernels), reference);
    if (!(error <= allowedError(dtype, eager))) failed.push(`${kernels} ${error}`);
    most = Math.max(most, error);
  }
  if (failed.length > 0) {
    // A small difference of large numbers moves as far when its weights do by two epsilons; that is no reason for more
    // than 16 beside the factor.
    tested.moveWeights(2 * EPSILON[dtype]);
    const moved = relativeError(await tested.run('float64'), reference);
    const allowed = allowedError(dtype, eager) + Math.min(moved, 14 * EPSILON[dtype]);
    expect(most, `${tested.fitted.toString()}: ${failed.join(', ')}; eager ${eager}`).to.be.at.most(allowed);
  }
  tested.dispose();
}

describe('compiled random networks', function () {
  this.timeout(600_000 * FUZZ_RUNS);
  before(printSeed);
  after(() => temporary.cleanUp());

  for (const [dtype, runs] of [
    ['float32', 120],
    ['bfloat16', 40],
  ] as const) {
    it(`${runs} in ${dtype}`, async function () {
      const sets = SETS[dtype].filter(([, needs]) => needs.test(PROCESSOR_FLAGS)).map(([kernels]) => kernels);
      if (sets.length === 0) {
        skip(this, `this processor has no ${dtype}`);
      }
      const property = fc.asyncProperty(network, (drawn) => check(drawn, dtype, sets));
      await fc.assert(property, { seed: FUZZ_SEED, numRuns: runs * FUZZ_RUNS });
    });
  }
});
