/**
 * Every model against PyTorch's recorded answers: keys in order, initial weights for a seed, logits, and in
 * training mode outputs and gradients. scripts/fixtures/make_model_parity.py made the second set of records.
 */
import { createHash } from 'node:crypto';

import { expect } from 'chai';

import { createModel, listModels, type ModelName, type ModelOptions } from '../../lib/models/registry';
import type { InceptionOutputs } from '../../lib/models/se-inception-v3';
import type { Module } from '../../lib/nn/module';
import { randn, rand } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { zooNames } from '../support/models';
import {
  expectSummary,
  perturbBatchNorms,
  readFixture,
  relativeError,
  toOptions,
  type Summary,
  type Values,
} from '../support/parity';

type AnyModel = Module<Tensor | InceptionOutputs>;

interface EvalRecord {
  args: Record<string, unknown>;
  constructionSeed: number;
  state: Record<string, Summary>;
  bnSeed: number;
  bnVariance: [number, number];
  inputSeed: number;
  input: Summary;
  logits: Values;
  logits64: Values;
  logitsWithSEApplied?: Values;
}

interface InceptionOutputRecord {
  args: Record<string, unknown>;
  constructionSeed: number;
  inputSeed: number;
  keys: string[];
  logits: Values;
}

interface InceptionTrainRecord {
  args: Record<string, unknown>;
  constructionSeed: number;
  inputSeed: number;
  forwardSeed: number;
  logits: Values;
  auxLogits: Values;
}

interface CaseRecord {
  name: ModelName;
  args: Record<string, unknown>;
  shape: number[];
  variance: [number, number];
  keys: number;
  keysSha256: string;
  modulesSha256: string;
  weightsSha256: string;
  parameters: number;
  logits64: number[];
  trainOutputs64: number[][];
  gradientNorms64: Record<string, number | null>;
}

function construct(name: ModelName, args: Record<string, unknown>, seed: number): AnyModel {
  manualSeed(seed);
  return createModel(name, toOptions(args) as ModelOptions);
}

function sha256(items: Iterable<string | Uint8Array>): string {
  const hash = createHash('sha256');
  for (const item of items) hash.update(item);
  return hash.digest('hex');
}

function bytesOf(tensor: Tensor): Uint8Array {
  const array = tensor.toTypedArray();
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

const { eval: evalRecords } = readFixture<{ eval: Record<string, EvalRecord> }>('parity.json');
const training = readFixture<{
  inceptionOutput: InceptionOutputRecord;
  inceptionTrain: InceptionTrainRecord;
}>('training.json');
const { cases } = readFixture<{ cases: CaseRecord[] }>('model-parity.json');

describe('models equal PyTorch', function () {
  this.timeout(120_000);

  it('every registered model has a record, here or in zoo.test.ts', () => {
    const recorded = new Set([...cases.map(({ name }) => name), ...Object.keys(evalRecords), ...zooNames()]);
    expect(listModels().filter((name) => !recorded.has(name))).to.deep.equal([]);
  });

  for (const [name, record] of Object.entries(evalRecords) as [ModelName, EvalRecord][]) {
    it(`${name}: keys, initial weights and logits of parity.json`, async () => {
      const run = async (
        recalibrate: Record<string, unknown>,
      ): Promise<{ model: AnyModel; x: Tensor; logits: Tensor }> => {
        const model = construct(name, { ...record.args, ...recalibrate }, record.constructionSeed);
        const state = model.stateDict();
        expect([...state.keys()]).to.deep.equal(Object.keys(record.state));
        for (const [key, value] of state) expectSummary(value, record.state[key] as Summary, key);
        manualSeed(record.bnSeed);
        perturbBatchNorms(model.eval(), record.bnVariance);
        manualSeed(record.inputSeed);
        const x = randn(record.input.shape);
        expectSummary(x, record.input, 'input');
        return { model, x, logits: (await model.forward(x)) as Tensor };
      };
      const { model, x, logits } = await run({});
      expect(logits.shape).to.deep.equal(record.logits.shape);
      expect(relativeError(logits, record.logits.values), 'logits').to.be.below(1e-5);
      const logits64 = (await model.to('float64').forward(x.to('float64'))) as Tensor;
      expect(relativeError(logits64, record.logits64.values), 'logits64').to.be.below(1e-10);
      model.dispose();
      if (record.logitsWithSEApplied !== undefined) {
        const applied = await run({ recalibrate: 'input' });
        expect(relativeError(applied.logits, record.logitsWithSEApplied.values), 'input').to.be.below(1e-5);
        applied.model.dispose();
      }
    });
  }

  for (const record of cases) {
    it(`${record.name} ${JSON.stringify(record.args)} at ${record.shape.join(' x ')}: weights, outputs, gradients`, async () => {
      const model = construct(record.name, record.args, 5);
      const state = model.stateDict();
      expect(state.size).to.equal(record.keys);
      expect(sha256([...state.keys()].map((key) => `${key}\n`)), 'keys').to.equal(record.keysSha256);
      const paths = model.namedModules().map(([path]) => `${path}\n`);
      expect(sha256(paths), 'modules').to.equal(record.modulesSha256);
      expect(sha256([...state.values()].map(bytesOf)), 'weights').to.equal(record.weightsSha256);
      const parameters = model.parameters().reduce((total, parameter) => total + parameter.numel, 0);
      expect(parameters).to.equal(record.parameters);

      manualSeed(6);
      perturbBatchNorms(model, record.variance);
      manualSeed(7);
      const x = rand(record.shape).to('float64');
      model.to('float64').eval();
      expect(relativeError((await model.forward(x)) as Tensor, record.logits64), 'logits').to.be.below(1e-10);

      model.train();
      manualSeed(8);
      const output = await model.forward(x);
      const outputs = 'auxLogits' in output ? [output.logits, output.auxLogits] : [output];
      expect(outputs.length).to.equal(record.trainOutputs64.length);
      outputs.forEach((tensor, index) => {
        expect(relativeError(tensor, record.trainOutputs64[index] as number[]), 'training').to.be.below(1e-9);
      });
      const squares = outputs.map((tensor) => tensor.mul(tensor).sum());
      await squares.reduce((total, square) => total.add(square)).backward();
      const byName = new Map(model.namedParameters());
      for (const [key, norm] of Object.entries(record.gradientNorms64)) {
        const gradient = byName.get(key)?.grad;
        if (norm === null) expect(gradient, key).to.equal(null);
        else
          expect(Number(gradient?.mul(gradient).sum().sqrt().item()), key).to.be.closeTo(norm, 1e-8 * norm);
      }
      for (const [key, buffer] of model.namedBuffers()) {
        if (!key.endsWith('num_batches_tracked')) continue;
        expect(buffer.dtype, key).to.equal('int64');
        expect(buffer.item(), key).to.equal(1n);
      }
      model.dispose();
    });
  }

  it("se_inception_v3 with recalibrate 'output': keys and logits", async () => {
    const record = training.inceptionOutput;
    const model = construct('se_inception_v3', record.args, record.constructionSeed).eval();
    expect([...model.stateDict().keys()]).to.deep.equal(record.keys);
    manualSeed(record.inputSeed);
    const logits = (await model.forward(randn([1, 3, 299, 299]))) as Tensor;
    expect(relativeError(logits, record.logits.values)).to.be.below(1e-5);
    model.dispose();
  });

  it('se_inception_v3 in training mode: logits and auxLogits', async () => {
    const record = training.inceptionTrain;
    const model = construct('se_inception_v3', record.args, record.constructionSeed);
    manualSeed(record.inputSeed);
    const x = randn([2, 3, 299, 299]);
    manualSeed(record.forwardSeed);
    const { logits, auxLogits } = (await model.forward(x)) as InceptionOutputs;
    expect(relativeError(logits, record.logits.values)).to.be.below(1e-4);
    expect(relativeError(auxLogits, record.auxLogits.values)).to.be.below(1e-4);
    model.dispose();
  });
});
