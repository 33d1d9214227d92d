/**
 * The public SE networks against PyTorch: keys and shapes as their sources have them, and logits with weights that are
 * drawn by rule (`fixtures/zoo/README.md`).
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import {
  createModel,
  CrossEntropyLoss,
  manualSeed,
  modelRecord,
  ops,
  randn,
  SGD,
  tensor,
  tidy,
  type Module,
  type ModelName,
  type Tensor,
} from '../../lib';
import { zooKeys } from '../support/models';
import { expectSummary, numbers, relativeError, type Summary } from '../support/parity';
import { drawn } from '../support/zoo-weights';
import { skip } from '../support/skip';

const FOLDER = path.join(__dirname, '..', 'fixtures', 'zoo');
/** What docs/models.md says of them (`scripts/checks/model-table.js`). */
const measured = JSON.parse(
  readFileSync(path.join(__dirname, '..', '..', 'scripts', 'bench', 'networks.json'), 'utf8'),
) as { networks: Record<ModelName, { billionMultiplyAdds: number }> };

interface Case {
  readonly model: ModelName;
  readonly seed: number;
  readonly inputSeed: number;
  readonly input: number[];
  readonly numClasses: number;
  readonly logits64: number[];
  readonly relative32: number;
}

type TensorSummary = Omit<Summary, 'dtype'>;

interface Summaries {
  readonly model: ModelName;
  readonly tensors: Readonly<Record<string, TensorSummary>>;
}

interface Training {
  readonly model: ModelName;
  readonly seed: number;
  readonly input: number[];
  readonly losses: number[];
  readonly loss32: number;
  readonly gradients: Readonly<Record<string, TensorSummary & { readonly relative32: number }>>;
}

interface Recorded {
  readonly logits: Case[];
  readonly initial: Summaries[];
  readonly training: Training[];
}

const read = <T>(name: string): T => JSON.parse(readFileSync(path.join(FOLDER, name), 'utf8')) as T;
const { cases } = read<{ cases: Case[] }>('parity.json');
const recorded = read<Recorded>('timm.json');

interface Pytorchcv extends Case, Summaries {
  readonly model: ModelName;
}
const { networks: pytorchcv, training: trainedElsewhere } = read<{
  networks: Pytorchcv[];
  training: Training[];
}>('pytorchcv.json');

/** Fills the state of a network by the rule of the fixtures. */
function draw(model: Module<unknown>, seed: number): void {
  let index = 0;
  for (const [key, tensor] of model.stateDict()) {
    manualSeed(seed * 1000 + index++);
    const values = drawn(key, [...tensor.shape]);
    ops.call('aten::copy_', tensor, values);
    values.dispose();
  }
}

describe('public SE networks', function () {
  this.timeout(600_000);

  for (const entry of [...cases, ...recorded.logits, ...pytorchcv]) {
    it(`${entry.model} at ${entry.input.join(' x ')}`, async () => {
      const model = createModel(entry.model, { numClasses: entry.numClasses, initWeights: false }).eval();
      await tidy(async () => {
        draw(model, entry.seed);
        manualSeed(entry.inputSeed);
        const input = randn(entry.input);
        const eager = (await model.forward(input)) as Tensor;
        expect(relativeError(numbers(eager), entry.logits64), 'float32').to.be.at.most(3 * entry.relative32);
        const compiled = await model.compile();
        expect(
          relativeError(numbers(await compiled.forward(input)), entry.logits64),
          'compiled',
        ).to.be.at.most(3 * entry.relative32);
        compiled.dispose();
        model.to('float64');
        const exact = numbers((await model.forward(input.to('float64'))) as Tensor);
        expect(relativeError(exact, entry.logits64), 'float64').to.be.at.most(1e-10);
      });
      model.dispose();
    });
  }

  for (const { source, name, entries, sha256 } of zooKeys()) {
    it(`${name} has the keys and shapes of ${source}`, () => {
      const model = createModel(name, { initWeights: false });
      const state = [...model.stateDict()];
      const text = state.map(([key, { shape }]) => `${key} ${shape.join('x')}\n`).join('');
      expect(state.length).to.equal(entries);
      expect(createHash('sha256').update(text).digest('hex')).to.equal(sha256);
      model.dispose();
    });
  }

  const timms = zooKeys().filter(({ source }) => source !== 'pytorchcv'); // which has no other layers
  for (const name of new Set(timms.map(({ name: one }) => one))) {
    it(`${name} compiles to kernels of ours alone, and its steps are modules`, async function () {
      const model = createModel(name, { initWeights: false });
      const compiled = await model.compile();
      const { backend, multiplyAdds, steps } = compiled.explain();
      compiled.dispose();
      if (!backend.startsWith('avx')) skip(this, 'this processor has none of our kernels');
      const { billionMultiplyAdds } = measured.networks[name];
      expect(billionMultiplyAdds, 'scripts/bench/networks.json').to.be.closeTo(multiplyAdds / 1e9, 0.0051);
      expect(steps.filter(({ kernel }) => kernel !== undefined)).to.deep.equal([]);
      const [first, ...inner] = steps.slice(0, -1).map(({ name: step }) => step);
      expect([first, steps.at(-1)?.name]).to.deep.equal(['input', 'output']);
      for (const step of inner) model.getSubmodule(step);
      model.dispose();
    });
  }

  for (const { model: name, tensors } of [...recorded.initial, ...pytorchcv]) {
    it(`${name} begins with its original's weights for a seed`, () => {
      manualSeed(5);
      const model = createModel(name, { numClasses: 5 });
      const state = model.stateDict();
      for (const [key, expected] of Object.entries(tensors)) {
        expectSummary(state.get(key) as Tensor, { dtype: 'float32', ...expected }, key);
      }
      model.dispose();
    });
  }

  for (const entry of [...recorded.training, ...trainedElsewhere]) {
    it(`${entry.model} trains as in PyTorch`, async () => {
      const exact = new Trained(entry, 'float64');
      for (const [step, expected] of entry.losses.entries()) {
        expect(await exact.backward(), `loss of step ${step}`).to.be.closeTo(expected, 1e-9);
        if (step === 0) exact.expectGradients();
        await exact.step();
      }
      exact.dispose();
    });

    // In channels-last passes are fused.
    it(`${entry.model} trains in float32, channels-last, as near to float64 as in PyTorch`, async () => {
      const exact = new Trained(entry, 'float64');
      const single = new Trained(entry, 'float32');
      const loss = await exact.backward();
      const margin = 3 * Math.abs(entry.loss32 - loss) + 2e-6;
      expect(await single.backward(), 'loss').to.be.closeTo(loss, margin);
      for (const [key, { relative32 }] of Object.entries(entry.gradients)) {
        const error = relativeError(single.gradient(key), numbers(exact.gradient(key)));
        expect(error, key).to.be.at.most(3 * relative32 + 1e-6);
      }
      exact.dispose();
      single.dispose();
    });
  }
});

/** A network that is trained on one batch, as recorded. */
class Trained {
  readonly #model: Module<unknown>;
  readonly #optimizer: SGD;
  readonly #x: Tensor;
  readonly #target: Tensor;

  constructor(
    readonly entry: Training,
    dtype: 'float32' | 'float64',
  ) {
    const { model, seed, input } = entry;
    const options = { numClasses: 5, initWeights: false };
    const hasDropout = modelRecord(model).options.includes('dropRate');
    this.#model = createModel(model, hasDropout ? { ...options, dropRate: 0 } : options);
    draw(this.#model, seed);
    this.#model.to({ dtype, memoryFormat: dtype === 'float32' ? 'channels_last' : 'contiguous' });
    manualSeed(seed);
    this.#x = randn(input).to(dtype);
    this.#target = tensor(BigInt64Array.from({ length: input[0] as number }, (_, i) => BigInt(i % 5)));
    this.#optimizer = new SGD(this.#model.parameters(), { lr: 0.01, momentum: 0.9 });
  }

  /** The loss. */
  async backward(): Promise<number> {
    this.#optimizer.zeroGrad();
    const logits = (await this.#model.forward(this.#x)) as Tensor;
    const loss = await new CrossEntropyLoss().forward(logits, this.#target);
    await loss.backward();
    return loss.item() as number;
  }

  gradient(key: string): Tensor {
    return new Map(this.#model.namedParameters()).get(key)?.grad as Tensor;
  }

  /** Norm, sum and first values. */
  expectGradients(): void {
    for (const [key, { shape, sum, l2, head }] of Object.entries(this.entry.gradients)) {
      const values = numbers(this.gradient(key));
      const margin = 1e-9 * l2;
      const total = (power: 1 | 2): number => values.reduce((all, value) => all + value ** power, 0);
      expect(this.gradient(key).shape, key).to.deep.equal(shape);
      expect(Math.sqrt(total(2)), `${key}: norm`).to.be.closeTo(l2, margin);
      expect(total(1), `${key}: sum`).to.be.closeTo(sum, margin * Math.sqrt(values.length));
      for (const [index, value] of head.entries())
        expect(values[index], `${key}[${index}]`).to.be.closeTo(value, margin);
    }
  }

  async step(): Promise<void> {
    await this.#optimizer.step();
  }

  dispose(): void {
    this.#model.dispose();
  }
}
