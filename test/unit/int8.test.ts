/**
 * Compiled models of int8: calibration and what it takes, the same bits on every instruction set and from a file, how near
 * they are, and their life. The kernels' own numbers are test/native/byte_kernels_test.cpp's.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { expect } from 'chai';

import {
  BatchNorm2d,
  Conv2d,
  DataLoader,
  IdxDataset,
  ImageClassifier,
  load,
  loadCompiled,
  manualSeed,
  MaxPool2d,
  memory,
  Module,
  quantizeWeights,
  rand,
  randn,
  ReLU,
  se_inception_v3,
  SELayer,
  se_resnet20,
  se_resnet50,
  Sequential,
  tensor,
  tidy,
  zeros,
  type CompiledModel,
  type ErrorCode,
  type QuantizationRecord,
  type Tensor,
} from '../../lib';
import { collectGarbage } from '../support/collect';
import { expectRejection } from '../support/errors';
import { numbers, perturbBatchNorms, relativeError } from '../support/parity';
import { Temporary } from '../support/temporary';

const wrong = (value: unknown): never => value as never;
const ROOT = path.join(__dirname, '../..');
const FIXTURES = path.join(ROOT, 'test/fixtures');
const WEIGHTS = path.join(ROOT, 'assets/weights/se_resnet20_fashion_mnist.safetensors');
const KERNELS = ['scalar', 'avx2', 'avx2_vnni', 'avx512', 'avx512_vnni', 'amx_int8', 'amx_emulated'];

function makeModel(seed = 1): ReturnType<typeof se_resnet20> {
  manualSeed(seed);
  const model = se_resnet20({ reduction: 4 });
  perturbBatchNorms(model, [0.5, 1.5]);
  return model.eval();
}

/** Convolutions of several windows, widths and groups; nothing that stays float32 but the ends. */
function makeLayers(): Sequential {
  manualSeed(7);
  return new Sequential(
    new Conv2d(3, 24, 3, { padding: 1 }),
    new BatchNorm2d(24),
    new ReLU(),
    new MaxPool2d(3, { stride: 2, padding: 1 }),
    new Conv2d(24, 40, 1),
    new ReLU(),
    new Conv2d(40, 40, 3, { padding: 1, groups: 4 }),
    new Conv2d(40, 20, [1, 7], { padding: [0, 3] }),
    new ReLU(),
    new Conv2d(20, 72, 3, { padding: 1, stride: 2 }),
  ).eval();
}

function bits(output: Tensor): string {
  const values = output.toTypedArray() as Float32Array;
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64');
}

describe('compiled models of int8', () => {
  let temporary: Temporary;
  beforeEach(() => (temporary = new Temporary()));
  afterEach(() => temporary.cleanUp());

  async function calibrated(model: Module, shape: readonly number[]): Promise<CompiledModel> {
    manualSeed(3);
    return model.compile({ dtype: 'int8', calibration: randn([...shape]) });
  }

  describe('numbers', () => {
    it('are near those of float32, for any batch and size', async () => {
      const model = makeModel();
      const compiled = await calibrated(model, [16, 3, 32, 32]);
      for (const shape of [
        [1, 3, 32, 32],
        [5, 3, 32, 32],
        [2, 3, 19, 40],
      ]) {
        const x = randn(shape);
        const expected = numbers(await model.forward(x));
        expect(relativeError(numbers(await compiled.forward(x)), expected)).to.be.below(0.08);
      }
      const x = randn([3, 3, 32, 32]);
      const together = numbers(await compiled.forward(x));
      const alone: number[] = [];
      for (let image = 0; image < 3; image++)
        alone.push(...numbers(await compiled.forward(x.slice(0, image, image + 1))));
      expect(relativeError(alone, together)).to.be.below(1e-6);
      compiled.dispose();
      model.dispose();
    });

    it('of bottlenecks, and of branches that are concatenated', async () => {
      for (const [model, side] of [
        [se_resnet50({ numClasses: 10 }), 64],
        [se_inception_v3({ numClasses: 10, recalibrate: 'output' }), 299],
      ] as const) {
        perturbBatchNorms(model, side === 64 ? [0.5, 1.5] : [5, 15]);
        model.eval();
        manualSeed(5);
        const x = randn([1, 3, side, side]);
        const compiled = await model.compile({ dtype: 'int8', calibration: x });
        const expected = numbers((await model.forward(x)) as Tensor);
        expect(relativeError(numbers(await compiled.forward(x)), expected)).to.be.below(0.06);
        const convolutions = compiled
          .explain()
          .steps.filter(({ quantization }) => quantization !== undefined);
        expect(convolutions.length).to.be.above(40);
        for (const { name, quantization } of convolutions)
          expect(quantization?.error ?? 0, name).to.be.below(0.04);
        compiled.dispose();
        model.dispose();
      }
    });

    it('of an image that holds NaN are NaN, and those of the others are not', async () => {
      const model = makeModel();
      const compiled = await calibrated(model, [4, 3, 32, 32]);
      const x = randn([3, 3, 32, 32]);
      const clean = numbers(await compiled.forward(x));
      x.select(0, 1).select(0, 2).select(0, 4).slice(0, 9, 10).fill_(NaN);
      const output = numbers(await compiled.forward(x));
      expect(output.slice(0, 10)).to.deep.equal(clean.slice(0, 10));
      expect(output.slice(10, 20).every(Number.isNaN)).to.equal(true);
      expect(output.slice(20)).to.deep.equal(clean.slice(20));
      compiled.dispose();
      model.dispose();
    });

    it('are the same bits on every instruction set', async () => {
      const model = makeLayers();
      manualSeed(11);
      const images = randn([4, 3, 21, 17]);
      const first = await model.compile({
        dtype: 'int8',
        calibration: { data: images, quantizeFirst: true },
      });
      const calibration = first.quantization as QuantizationRecord;
      const expected = bits(await first.forward(images));
      expect(first.explain().steps.filter(({ kernel }) => kernel === 'int8')).to.have.length(5);
      first.dispose();
      const tried: string[] = [];
      for (const kernels of KERNELS) {
        temporary.environment({ SENET_COMPILE_KERNELS: kernels });
        let compiled: CompiledModel;
        try {
          compiled = await model.compile({ dtype: 'int8', calibration });
        } catch (error) {
          expect((error as { code?: string }).code, kernels).to.equal('ERR_SENET_COMPILE');
          continue; // this processor has no such instructions
        }
        expect(compiled.explain().backend).to.equal(kernels);
        expect(bits(await compiled.forward(images)), kernels).to.equal(expected);
        tried.push(kernels);
        compiled.dispose();
      }
      expect(tried).to.include('scalar').and.to.include('amx_emulated');
      model.dispose();
    });

    it('with every method of calibration', async () => {
      const model = makeModel();
      manualSeed(9);
      const data = randn([8, 3, 32, 32]);
      const expected = numbers(await model.forward(data));
      for (const method of ['minmax', 'percentile', 'mse'] as const) {
        const compiled = await model.compile({ dtype: 'int8', calibration: { data, method } });
        expect(relativeError(numbers(await compiled.forward(data)), expected), method).to.be.below(0.08);
        compiled.dispose();
      }
      model.dispose();
    });

    it('have the means of float32: biases give back what the rounding of weights takes', async () => {
      manualSeed(11);
      // One convolution, whose input is far from 0 and whose weights are mostly positive: rounding moves means.
      const model = new Sequential(
        new ReLU(),
        new Conv2d(64, 32, 1),
        new ReLU(),
        new Conv2d(32, 8, 1),
      ).eval();
      const x = rand([4, 64, 12, 12]).add(1);
      const compiled = await model.compile({
        dtype: 'int8',
        calibration: { data: x, quantizeFirst: true },
      });
      const record = compiled.quantization as QuantizationRecord;
      const [first] = record.corrections;
      expect(first?.bias).to.have.length(32);
      expect(first?.bias.some((bias) => bias !== 0)).to.equal(true);
      const plain = await model.compile({ dtype: 'int8', calibration: { ...record, corrections: [] } });
      const again = await model.compile({
        dtype: 'int8',
        calibration: JSON.parse(JSON.stringify(record)) as QuantizationRecord,
      });
      const means = async (network: CompiledModel | Sequential): Promise<number[]> =>
        numbers((await network.forward(x)).mean([0, 2, 3]));
      const expected = await means(model);
      const [corrected, uncorrected] = [await means(compiled), await means(plain)];
      expect(relativeError(corrected, expected)).to.be.below(relativeError(uncorrected, expected) / 3);
      expect(await means(again)).to.deep.equal(corrected);
      for (const network of [compiled, plain, again]) network.dispose();
      model.dispose();
    });

    it('have exactly those of float32 for images of one colour, padding, strides and groups included', async () => {
      manualSeed(17);
      for (const options of [{ padding: 1 }, { padding: 2, stride: 2 }, { padding: [0, 2], groups: 4 }]) {
        const model = new Sequential(new Conv2d(8, 12, 3, options as never)).eval();
        // From 0 to 1, so that bytes say the numbers exactly.
        const colours = [0, 17, 38, 90, 141, 200, 233, 255].map((byte) => byte / 255);
        const images = tensor(colours).reshape([1, 8, 1, 1]).expand([2, 8, 5, 7]).contiguous();
        const compiled = await model.compile({
          dtype: 'int8',
          calibration: { data: images, quantizeFirst: true },
        });
        const mean = (output: Tensor): number[] => numbers(output.mean([0, 2, 3]));
        const expected = mean(await model.forward(images));
        const given = mean(await compiled.forward(images));
        const { corrections } = compiled.quantization as QuantizationRecord;
        const rounding = Math.max(...(corrections[0]?.bias ?? []).map(Math.abs));
        expect(rounding).to.be.above(1e-4);
        for (const [channel, value] of expected.entries())
          expect(given[channel], `channel ${channel}`).to.be.closeTo(value, rounding / 100);
        compiled.dispose();
        model.dispose();
      }
    });

    it('of a forward in TypeScript', async () => {
      class Net extends Module {
        conv = new Conv2d(3, 16, 3, { padding: 1 });
        se = new SELayer(16, 4);
        last = new Conv2d(16, 8, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          return this.last.forward(await this.se.forward((await this.conv.forward(x)).relu()));
        }
      }
      manualSeed(2);
      const model = new Net().eval();
      const x = randn([4, 3, 12, 12]);
      const compiled = await model.compile({ dtype: 'int8', calibration: x });
      const expected = numbers(await model.forward(x));
      expect(relativeError(numbers(await compiled.forward(x)), expected)).to.be.below(0.03);
      await expectRejection(compiled.save(temporary.path('net.safetensors')), 'ERR_SENET_TS_FORWARD');
      compiled.dispose();
      model.dispose();
    });
  });

  describe('keep', () => {
    it('leaves layers in float32, and names what there is where it names nothing', async () => {
      const model = makeModel();
      const calibration = randn([2, 3, 32, 32]);
      const compiled = await model.compile({
        dtype: 'int8',
        calibration,
        keep: ['layer2', 'layer3.0.conv1'],
      });
      const kinds = new Map(compiled.explain().steps.map(({ name, kernel }) => [name, kernel]));
      expect(kinds.get('layer1.0.conv1')).to.equal('int8');
      expect(kinds.get('layer2.1.conv1')).to.equal(undefined);
      expect(kinds.get('layer3.1.conv1')).to.equal('int8');
      expect(compiled.quantization?.keep).to.deep.equal(['layer2', 'layer3.0.conv1']);
      const x = randn([2, 3, 32, 32]);
      expect(relativeError(numbers(await compiled.forward(x)), numbers(await model.forward(x)))).to.be.below(
        0.08,
      );
      compiled.dispose();
      const error = await expectRejection(
        model.compile({ dtype: 'int8', calibration, keep: ['layer9'] }),
        'ERR_SENET_ARG_RANGE',
      );
      expect(error.message).to.include("'layer9'").and.to.include('layer1.0.conv1');
      const everything = await model.compile({
        dtype: 'int8',
        calibration,
        keep: ['layer1', 'layer2', 'layer3'],
      });
      expect(
        relativeError(numbers(await everything.forward(x)), numbers(await model.forward(x))),
      ).to.be.below(1e-5);
      everything.dispose();
      model.dispose();
    });
  });

  describe('errorBudget', () => {
    it('keeps the layers that are off the most in float32, as few as it takes', async () => {
      const model = makeModel();
      manualSeed(13);
      const images = randn([6, 3, 32, 32]);
      const expected = numbers(await model.forward(images));
      const compile = (
        options: { errorBudget?: number },
        keep: readonly string[] = [],
      ): Promise<CompiledModel> =>
        model.compile({ dtype: 'int8', keep, calibration: { data: images, ...options } });
      const errorOf = async (compiled: CompiledModel): Promise<number> =>
        relativeError(numbers(await compiled.forward(images)), expected);
      const plain = await compile({});
      const record = plain.quantization as QuantizationRecord;
      const uncorrected = await model.compile({ dtype: 'int8', calibration: { ...record, corrections: [] } });
      const budget = (await errorOf(plain)) * 0.7;
      expect(budget).to.be.below((await errorOf(uncorrected)) / 2); // half of that needs no layer kept any more
      const within = await compile({ errorBudget: budget }, ['layer3.2']);
      const { keep = [] } = within.quantization ?? {};
      expect(keep[0]).to.equal('layer3.2');
      expect(keep.length).to.be.within(2, 15);
      expect(await errorOf(within)).to.be.at.most(1.0001 * budget);
      // The one that is off the least of them was needed, too.
      const fewer = await compile({}, keep.slice(0, -1));
      expect(await errorOf(fewer)).to.be.above(0.9999 * budget);
      const kinds = new Map(within.explain().steps.map(({ name, kernel }) => [name, kernel]));
      for (const name of keep.slice(1)) expect(kinds.get(name), name).to.equal(undefined);
      // Those that suffice are kept no more, and nothing is where all of it is within.
      const wide = await compile({ errorBudget: 1 });
      expect(wide.quantization?.keep).to.deep.equal([]);
      // With every layer in float32 there is no error left.
      const exact = await compile({ errorBudget: 1e-6 });
      expect(await errorOf(exact)).to.be.below(1e-5);
      for (const compiled of [plain, uncorrected, within, fewer, wide, exact]) compiled.dispose();
      model.dispose();
    });

    it('that nothing is within is an error', async () => {
      const model = makeModel();
      const images = randn([2, 3, 32, 32]);
      tidy(() => void model.getSubmodule('fc').parameters()[0]?.detach().fill_(NaN));
      const error = await expectRejection(
        model.compile({ dtype: 'int8', calibration: { data: images, errorBudget: 0.1 } }),
        'ERR_SENET_CALIBRATION',
      );
      expect(error.message).to.contain('errorBudget').and.to.contain('0.1');
      model.dispose();
    });
  });

  describe('a file', () => {
    it('gives the same bits, and its weights as float32', async () => {
      const model = makeModel();
      const compiled = await calibrated(model, [8, 3, 32, 32]);
      const x = randn([2, 3, 32, 32]);
      const expected = bits(await compiled.forward(x));
      const file = temporary.path('model.safetensors');
      await compiled.save(file, { metadata: { note: 'mine' } });
      model.dispose(); // it holds what it saves
      compiled.dispose();
      await expectRejection(compiled.save(file), 'ERR_SENET_DISPOSED');
      const again = await loadCompiled(file, { model: 'se_resnet20' });
      expect(bits(await again.forward(x))).to.equal(expected);
      const second = temporary.path('again.safetensors');
      await again.save(second);
      again.dispose();
      const state = await load(file);
      expect(state.fileMetadata.get('note')).to.equal('mine');
      expect(state.get('layer1.0.conv1.weight')?.dtype).to.equal('float32');
      expect([...state.keys()].some((name) => name.endsWith('_scale'))).to.equal(false);
      const other = await load(second);
      for (const [name, value] of state)
        expect(numbers(value), name).to.deep.equal(numbers(other.get(name) as Tensor));
      expect((await stat(file)).size).to.be.below(600_000); // 274,490 parameters, most of them of a byte
      other.dispose();
      state.dispose();
    });

    it('that was changed is refused, or of another network', async () => {
      const model = makeModel();
      const compiled = await calibrated(model, [2, 3, 32, 32]);
      const file = temporary.path('model.safetensors');
      await compiled.save(file);
      const record = compiled.quantization as QuantizationRecord;
      compiled.dispose();
      const text = (await readFile(file)).toString('latin1');
      const broken = temporary.path('broken.safetensors');
      await writeFile(
        broken,
        Buffer.from(text.replace('\\"keepFirst\\":true', '\\"keepFirst\\":1234'), 'latin1'),
      );
      await expectRejection(loadCompiled(broken, { model: 'se_resnet20' }), 'ERR_SENET_CHECKPOINT_FORMAT');
      await expectRejection(loadCompiled(WEIGHTS), 'ERR_SENET_CALIBRATION');
      await expectRejection(
        model.compile({ dtype: 'int8', calibration: { ...record, values: [] } }),
        'ERR_SENET_CALIBRATION',
      );
      const [first] = record.corrections;
      for (const [corrections, code] of [
        [undefined, 'ERR_SENET_ARG_TYPE'],
        [[null], 'ERR_SENET_ARG_TYPE'],
        [[{ ...first, bias: ['1'] }], 'ERR_SENET_ARG_TYPE'],
        [[{ ...first, bias: [NaN] }], 'ERR_SENET_ARG_RANGE'],
        [[{ ...first, bias: [1] }], 'ERR_SENET_CALIBRATION'],
      ] as const)
        await expectRejection(
          model.compile({ dtype: 'int8', calibration: wrong({ ...record, corrections }) }),
          code,
        );
      await expectRejection(
        model.compile({
          dtype: 'int8',
          calibration: { ...record, values: record.values.map((value) => ({ ...value, scale: NaN })) },
        }),
        'ERR_SENET_ARG_RANGE',
      );
      model.dispose();
    });
  });

  describe('the bundled network', () => {
    const IDX = {
      images: path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
      labels: path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
    };

    it('is as good in int8 as in float32, within 0.3 points, quantised by the command line', async function () {
      this.timeout(120_000);
      const output = temporary.path('int8.safetensors');
      const { stdout } = await promisify(execFile)(
        process.execPath,
        [
          ...['--require', 'tsx/cjs', path.join(ROOT, 'lib/cli/main.ts'), 'quantize', WEIGHTS],
          ...['--calibration', IDX.images, '--calibration-labels', IDX.labels, '--limit', '100'],
          ...['--output', output, '--json'],
        ],
        { cwd: ROOT },
      );
      const said = JSON.parse(stdout) as {
        accuracy: { before: number; after: number };
        layers: { name: string; error: number }[];
      };
      expect(said.accuracy.before).to.be.above(0.93);
      expect(said.accuracy.after).to.be.at.least(said.accuracy.before - 0.003);
      expect(said.layers).to.have.length(20);
      const classifier = await ImageClassifier.load('se_resnet20', { weights: output, dtype: 'int8' });
      const dataset = await IdxDataset.open(IDX);
      const { image, label } = dataset.get(0);
      expect((await classifier.classify(image))[0]?.index).to.equal(label);
      await classifier.dispose();
    });

    it('is refused in int8 as it is', async () => {
      await expectRejection(
        ImageClassifier.load('se_resnet20', { weights: 'fashion_mnist', dtype: 'int8' }),
        'ERR_SENET_CALIBRATION',
      );
    });

    it('is written wherever the output ends in .safetensors, in any case, and nowhere else', async () => {
      const calibration = await IdxDataset.open(IDX);
      const output = temporary.path('x.SAFETENSORS');
      const { images } = await quantizeWeights(WEIGHTS, output, { calibration, limit: 2 });
      expect(images).to.equal(2);
      const compiled = await loadCompiled(output);
      const again = temporary.path('again.SafeTensors');
      await compiled.save(again);
      expect((await readFile(again)).length).to.be.above(0);
      const words = /expected a path that ends in \.safetensors, got '.*x\.pt'/;
      const other = temporary.path('x.pt');
      await expectRejection(quantizeWeights(WEIGHTS, other, { calibration }), 'ERR_SENET_ARG_RANGE', words);
      await expectRejection(compiled.save(other), 'ERR_SENET_ARG_RANGE', words);
      expect(existsSync(other)).to.equal(false);
      compiled.dispose();
    });

    it('stops between two images when it is aborted, and writes nothing', async () => {
      const output = temporary.path('never.safetensors');
      const controller = new AbortController();
      await expectRejection(
        quantizeWeights(WEIGHTS, output, {
          calibration: await IdxDataset.open(IDX),
          onProgress: (done) => {
            if (done === 3) controller.abort();
          },
          signal: controller.signal,
        }),
        'ERR_SENET_ABORTED',
      );
      expect(existsSync(output)).to.equal(false);
    });
  });

  describe('calibration', () => {
    it('takes a Tensor, an image, arrays, iterables and a DataLoader, and so many images at most', async () => {
      const model = makeModel();
      const images = randn([6, 3, 32, 32]);
      const pieces = [images.slice(0, 0, 2), images.slice(0, 2, 6)];
      const whole = await model.compile({ dtype: 'int8', calibration: images });
      const expected = whole.quantization;
      whole.dispose();
      const sources = [
        pieces,
        new Set(pieces),
        { images },
        (async function* () {
          yield await Promise.resolve(pieces[0] as Tensor);
          yield { images: pieces[1] as Tensor };
        })(),
        [0, 1, 2, 3, 4, 5].map((place) => images.select(0, place)),
      ];
      for (const [place, calibration] of sources.entries()) {
        const compiled = await model.compile({ dtype: 'int8', calibration });
        expect(compiled.quantization?.values, String(place)).to.deep.equal(expected?.values);
        compiled.dispose();
      }
      const loader = new DataLoader(
        [0, 1, 2, 3].map((place) => ({ image: images.select(0, place), label: 0 })),
        { batchSize: 3 },
      );
      const seen: number[] = [];
      await collectGarbage();
      const held = memory().tensors;
      const compiled = await model.compile({
        dtype: 'int8',
        calibration: { data: loader, limit: 4, onProgress: (progress) => seen.push(progress.images) },
      });
      expect(seen).to.deep.equal([3, 4]);
      expect(memory().tensors).to.equal(held); // batches of a loader are of whoever takes them
      expect(images.sum().item()).to.be.a('number');
      compiled.dispose();
      model.dispose();
    });

    it('refuses what is no image, says what it wants, and frees what it made', async () => {
      const model = makeModel();
      const before = memory().tensors;
      const refused: [unknown, ErrorCode][] = [
        [undefined, 'ERR_SENET_ARG_MISSING'],
        [[], 'ERR_SENET_CALIBRATION'],
        [{ data: [] }, 'ERR_SENET_CALIBRATION'],
        [{}, 'ERR_SENET_ARG_MISSING'],
        [null, 'ERR_SENET_ARG_TYPE'],
        [7, 'ERR_SENET_ARG_TYPE'],
        [[null], 'ERR_SENET_ARG_TYPE'],
        [['photo.jpg'], 'ERR_SENET_ARG_TYPE'],
        [{ data: 7 }, 'ERR_SENET_ARG_TYPE'],
        [{ data: [], method: 'max' }, 'ERR_SENET_ARG_RANGE'],
        [{ data: [], limit: 0 }, 'ERR_SENET_ARG_RANGE'],
        [{ data: [], percentile: NaN }, 'ERR_SENET_ARG_RANGE'],
        ...([0, -1, 1.5, NaN, Infinity] as const).map(
          (errorBudget) => [{ data: [], errorBudget }, 'ERR_SENET_ARG_RANGE'] as [unknown, ErrorCode],
        ),
        [{ data: [], images: 3 }, 'ERR_SENET_UNKNOWN_OPTION'],
      ];
      for (const [calibration, code] of refused) {
        await expectRejection(model.compile({ dtype: 'int8', calibration: wrong(calibration) }), code);
      }
      const x = randn([1, 3, 32, 32]);
      const spoilt = x.clone();
      tidy(() => void spoilt.select(3, 5).fill_(Infinity));
      for (const [image, code] of [
        [spoilt, 'ERR_SENET_CALIBRATION'],
        [zeros([1, 4, 32, 32]), 'ERR_SENET_SHAPE'],
        [zeros([0, 3, 32, 32]), 'ERR_SENET_SHAPE'],
        [tensor(new Uint8Array(3 * 32 * 32), { shape: [1, 3, 32, 32] }), 'ERR_SENET_DTYPE'],
      ] as const) {
        await expectRejection(model.compile({ dtype: 'int8', calibration: [x, image] }), code);
        image.dispose();
      }
      x.dispose();
      expect(memory().tensors).to.be.at.most(before); // others may be collected meanwhile
      await expectRejection(
        model.compile({ calibration: wrong(rand([1, 3, 32, 32])) }),
        'ERR_SENET_ARG_RANGE',
      );
      model.dispose();
      await expectRejection(
        model.compile({ dtype: 'int8', calibration: rand([1, 3, 32, 32]) }),
        'ERR_SENET_DISPOSED',
      );
    });

    it('has weights of its own: the module may be changed and disposed while it runs', async () => {
      const model = makeModel();
      const x = randn([2, 3, 32, 32]);
      const plain = await model.compile({ dtype: 'int8', calibration: x });
      const expected = bits(await plain.forward(x));
      plain.dispose();
      const compiled = await model.compile({
        dtype: 'int8',
        calibration: (async function* () {
          yield await Promise.resolve(x);
          for (const parameter of model.parameters()) parameter.detach().fill_(7);
          model.dispose();
        })(),
      });
      expect(bits(await compiled.forward(x))).to.equal(expected);
      compiled.dispose();
    });

    it('ends its source when it is aborted or fails', async () => {
      const model = makeModel();
      const x = randn([1, 3, 32, 32]);
      let ended = 0;
      const endless = async function* (): AsyncGenerator<Tensor> {
        try {
          for (;;) yield await Promise.resolve(x);
        } finally {
          ended++;
        }
      };
      const controller = new AbortController();
      await expectRejection(
        model.compile({
          dtype: 'int8',
          calibration: { data: endless(), limit: 1e9, onProgress: () => controller.abort() },
          signal: controller.signal,
        }),
        'ERR_SENET_ABORTED',
      );
      expect(ended).to.equal(1);
      const failing = (async function* (): AsyncGenerator<Tensor> {
        yield await Promise.resolve(x);
        throw new Error('no more');
      })();
      await model.compile({ dtype: 'int8', calibration: failing }).then(
        () => expect.fail('it compiled'),
        (error: unknown) => expect((error as Error).message).to.equal('no more'),
      );
      model.dispose();
    });
  });
});
