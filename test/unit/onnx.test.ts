/**
 * ONNX files: what is in them, every network that there is, what is refused and how, the end of an export that fails, and
 * what `load` says of such a file. What they compute is test/parity/onnx.test.ts's.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  Conv2d,
  createModel,
  exportWeights,
  IdxDataset,
  ImageClassifier,
  inspectCheckpoint,
  Linear,
  listModels,
  load,
  manualSeed,
  MaxPool2d,
  memory,
  modelRecord,
  Module,
  ops,
  quantizeWeights,
  randn,
  ReLU,
  save,
  Sequential,
  se_inception_v3,
  se_resnet18,
  se_resnet20,
  StateDict,
  version,
  type ModelOptions,
  type OnnxOptions,
  type Tensor,
} from '../../lib';
import { looksLikeOnnx } from '../../lib/checkpoint/onnx-file';
import { OnnxGraph } from '../../lib/onnx/graph';
import { lower } from '../../lib/onnx/lower';
import { Message } from '../../lib/onnx/protobuf';
import { writeModel } from '../../lib/onnx/save-onnx';
import { wrapUntracked } from '../../lib/tensor/tensor';
import { CLI } from '../support/built';
import { collectGarbage } from '../support/collect';
import { expectRejection } from '../support/errors';
import { countOperations, readOnnx } from '../support/onnx-file';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '../..');
const WEIGHTS = path.join(ROOT, 'assets/weights/se_resnet20_fashion_mnist.safetensors');
const FIXTURES = path.join(ROOT, 'test/fixtures');
const run = promisify(execFile);
const wrong = (value: unknown): never => value as never;

describe('ONNX files', () => {
  let temporary: Temporary;
  let file: string;
  beforeEach(() => {
    temporary = new Temporary();
    file = temporary.path('net.onnx');
  });
  afterEach(() => temporary.cleanUp());

  const nothingLeft = (): void => void expect(readdirSync(temporary.folder)).to.deep.equal([]);

  describe('hold', () => {
    it('a network whose batch and size are free, its name, and who wrote it', async () => {
      const model = createModel('se_resnet18', { numClasses: 10 });
      await save(model, file);
      const onnx = readOnnx(file);
      expect(onnx).to.deep.include({
        irVersion: 8,
        opset: 17,
        producer: ['senet-torch', version.package],
        inputs: ['input'],
        outputs: ['logits'],
      });
      expect(onnx.metadata.model).to.equal('se_resnet18');
      expect(JSON.parse(onnx.metadata.preprocessing ?? '')).to.deep.include({ size: 256, crop: [224, 224] });
      expect(onnx.metadata).not.to.have.property('labels');
      expect(countOperations(onnx)).to.deep.equal({
        ...{ Conv: 20 + 2 * 8, Relu: 1 + 2 * 8 + 8, GlobalAveragePool: 8 + 1, Sigmoid: 8, Mul: 8, Add: 8 },
        ...{ MaxPool: 1, Flatten: 1, Gemm: 1 },
      });
      expect(onnx.initializers.get('layer1.0.se.fc.0.weight')).to.deep.equal({
        type: 1,
        shape: [4, 64, 1, 1],
      });
      expect(model.training).to.equal(true);
      model.dispose();
    });

    it('every BatchNorm, where that is wanted', async () => {
      const model = se_resnet20();
      await save(model, file, { keepBatchNorm: true });
      const onnx = readOnnx(file);
      expect(countOperations(onnx)).to.deep.include({ Conv: 21 + 2 * 9, BatchNormalization: 21 });
      expect(onnx.initializers.has('bn1.bn.running_var')).to.equal(false);
      expect(onnx.initializers.has('conv1.bn.running_var')).to.equal(true);
      model.dispose();
    });

    it('float16 weights, which become float32', async () => {
      const model = se_resnet20();
      await save(model, file);
      const whole = statSync(file).size;
      await save(model, file, { dtype: 'float16' });
      const onnx = readOnnx(file);
      expect(statSync(file).size).to.be.below(0.6 * whole);
      expect(onnx.initializers.get('conv1.weight')).to.deep.equal({ type: 10, shape: [16, 3, 3, 3] });
      expect(onnx.initializers.get('conv1.bias')?.type).to.equal(1);
      expect(countOperations(onnx).Cast).to.equal(21 + 2 * 9 + 1);
      model.dispose();
    });

    it('int8 weights and the bytes of values, but for the first convolution, the gates and the head', async () => {
      manualSeed(1);
      const model = se_resnet20();
      await save(model, file, { dtype: 'int8', calibration: randn([2, 3, 32, 32]) });
      const onnx = readOnnx(file);
      expect(onnx.initializers.get('layer1.0.conv1.weight')).to.deep.equal({
        type: 3,
        shape: [16, 16, 3, 3],
      });
      expect(onnx.initializers.get('layer1.0.conv1.bias')).to.deep.equal({ type: 6, shape: [16] });
      expect(onnx.initializers.get('layer1.0.conv1.weight_scale')?.shape).to.deep.equal([16]);
      for (const name of ['conv1.weight', 'fc.weight', 'layer1.0.se.fc.0.weight'])
        expect(onnx.initializers.get(name)?.type, name).to.equal(1);
      model.dispose();
    });

    it('labels and preprocessing of the weights, and what is given over them', async () => {
      const seen: string[] = [];
      const written = await exportWeights('fashion_mnist', file, {
        preprocess: true,
        softmax: true,
        preprocessing: { interpolation: 'bicubic' },
        onProgress: ({ phase, done, total }) => seen.push(`${phase} ${Math.round(done / total)}`),
      });
      const onnx = readOnnx(file);
      expect(onnx.inputs).to.deep.equal(['pixels']);
      expect(onnx.outputs).to.deep.equal(['probabilities']);
      expect(onnx.opset).to.equal(18);
      expect(JSON.parse(onnx.metadata.labels ?? ''))
        .to.include('Bag')
        .and.have.length(10);
      expect(JSON.parse(onnx.metadata.preprocessing ?? '')).to.deep.include({
        channels: 'grey-repeated',
        interpolation: 'bicubic',
      });
      expect(written).to.deep.equal({
        model: 'se_resnet20',
        images: null,
        dtype: 'float32',
        opset: 18,
        bytes: statSync(file).size,
        input: { name: 'pixels', dtype: 'uint8', shape: ['batch', 'height', 'width', 3] },
        output: { name: 'probabilities', dtype: 'float32', shape: ['batch', 10] },
        labels: 10,
        preprocessing: JSON.parse(onnx.metadata.preprocessing ?? '') as object,
      });
      expect(seen.at(-1)).to.equal('write 1');
    });

    it('the only size that a network takes', async () => {
      const model = se_inception_v3({ numClasses: 3, initWeights: false });
      await save(model, file, { labels: ['a', 'b', 'c'], metadata: { note: 'x' } });
      const bytes = readFileSync(file);
      expect(bytes.includes('height')).to.equal(false);
      expect(readOnnx(file).metadata).to.include({ note: 'x', labels: '["a","b","c"]' });
      model.dispose();
    });

    it('images, and features', async () => {
      const model = se_resnet18();
      await save(model.getSubmodule('layer1'), file);
      expect(readOnnx(file).outputs).to.deep.equal(['output']);
      model.resetClassifier(0);
      await save(model, file);
      expect(readOnnx(file).outputs).to.deep.equal(['output']);
      model.dispose();
    });
  });

  describe('every network becomes nodes whose inputs are there, with all of its weights', function () {
    this.timeout(120_000);
    for (const name of listModels()) {
      it(name, async () => {
        const { numClasses } = modelRecord(name);
        const options = { initWeights: false, ...(numClasses === null ? { numClasses: 1000 } : {}) };
        const model = createModel(name, options as ModelOptions) as Module;
        const asTheyAre = { dtype: 'float32' as const, keepBatchNorm: false, quantization: undefined };
        const described = await Module.describe(model, asTheyAre, undefined);
        const parameters = model.parameters().reduce((sum, { numel }) => sum + 4 * numel, 0);
        model.dispose();
        const graph = new OnnxGraph(['input', 'logits']);
        const tensors: Tensor[] = [];
        const input = graph.input('input', 'float32', ['n', 3, 'h', 'w']);
        const output = lower(described, graph, input, (handle) => {
          const tensor = wrapUntracked(handle);
          tensors.push(tensor);
          return tensor;
        });
        graph.output(output, 'logits', ['n', 1000]);
        const producer = ['senet-torch', '0'] as const;
        const { length } = graph.finish({ opset: 17, name, producer, metadata: new Map() });
        // SE's layers of an Inception that does not recalibrate are in the state dict alone, and so is its auxiliary head.
        if (name !== 'se_inception_v3') expect(length).to.be.within(0.99 * parameters, 1.05 * parameters);
        for (const tensor of tensors) tensor.dispose();
      });
    }
  });

  describe('refuse', () => {
    const conv = (): Conv2d => new Conv2d(3, 4, 3);
    const refused: [
      string,
      () => Module<unknown>,
      OnnxOptions,
      Parameters<typeof expectRejection>[1],
      RegExp,
    ][] = [
      [
        'what ONNX has no operation for, with the layer',
        () => new Sequential(conv(), new AdaptiveAvgPool2d([2, 2])),
        {},
        'ERR_SENET_EXPORT',
        /'1': adaptive_average_pool cannot be exported/,
      ],
      [
        'a window that may begin in the padding',
        () => new Sequential(conv(), new MaxPool2d(2, { stride: 2, padding: 1, ceilMode: true })),
        {},
        'ERR_SENET_EXPORT',
        /'1': max_pool .*ceilMode/,
      ],
      ['what takes no image', () => new Linear(3, 4), {}, 'ERR_SENET_COMPILE', /Linear/],
      [
        'softmax of images',
        conv,
        { softmax: true },
        'ERR_SENET_ARG_RANGE',
        /softmax: the network gives images/,
      ],
      ['another opset', conv, { opset: 16 }, 'ERR_SENET_ARG_RANGE', /opset/],
      [
        'resizing in opset 17',
        se_resnet18,
        { opset: 17, preprocess: true },
        'ERR_SENET_ARG_RANGE',
        /opset: preprocess resizes images, which needs 18/,
      ],
      ['another dtype', conv, { dtype: wrong('bfloat16') }, 'ERR_SENET_ARG_RANGE', /dtype/],
      ['int8 without images', conv, { dtype: 'int8' }, 'ERR_SENET_ARG_MISSING', /calibration/],
      ['a calibration of float32', conv, { calibration: randn([1, 3, 9, 9]) }, 'ERR_SENET_ARG_RANGE', /int8/],
      [
        'a BatchNorm beside bytes',
        conv,
        { dtype: 'int8', keepBatchNorm: true, calibration: randn([1, 3, 9, 9]) },
        'ERR_SENET_ARG_RANGE',
        /keepBatchNorm/,
      ],
      [
        'a calibration of another network',
        () => new Sequential(conv(), new ReLU(), new Conv2d(4, 4, 1)),
        { dtype: 'int8', calibration: { values: [], keep: [], keepFirst: true, corrections: [] } },
        'ERR_SENET_CALIBRATION',
        /another network/,
      ],
      [
        'pixels for which nobody says how',
        conv,
        { preprocess: true },
        'ERR_SENET_ARG_MISSING',
        /preprocessing/,
      ],
      [
        'pixels of five channels',
        () => new Conv2d(5, 4, 1),
        { preprocess: true, preprocessing: { size: 8 } },
        'ERR_SENET_ARG_RANGE',
        /takes 5 channels/,
      ],
      [
        'too few labels',
        se_resnet20,
        { labels: ['a'] },
        'ERR_SENET_LABELS',
        /10 classes and there are 1 labels/,
      ],
      ['an unknown option', conv, wrong({ opSet: 17 }), 'ERR_SENET_UNKNOWN_OPTION', /opset/],
      ['metadata that are no text', conv, { metadata: wrong({ a: 1 }) }, 'ERR_SENET_ARG_TYPE', /metadata/],
      [
        'metadata of half a character',
        conv,
        { metadata: { a: '\ud800' } },
        'ERR_SENET_ARG_RANGE',
        /metadata 'a'/,
      ],
    ];
    for (const [title, make, options, code, words] of refused) {
      it(title, async () => {
        const module = make();
        await expectRejection(save(module, file, options), code, words);
        nothingLeft();
        module.dispose();
      });
    }

    it('a weight that float16 cannot hold', async () => {
      const module = new Sequential(conv());
      const weight = module.parameters()[0] as Tensor;
      ops.call('aten::fill_', weight.detach(), 1e5);
      await expectRejection(save(module, file, { dtype: 'float16' }), 'ERR_SENET_EXPORT', /'0': .*float16/);
      nothingLeft();
      module.dispose();
    });

    it('what is no Module, hooks, a disposed one, a folder that is not there', async () => {
      const model = se_resnet20();
      await expectRejection(save(model.stateDict(), file), 'ERR_SENET_ARG_TYPE', /expected a Module/);
      await expectRejection(save(new StateDict(), file), 'ERR_SENET_ARG_TYPE', /expected a Module/);
      const hook = model.registerForwardHook(() => undefined);
      await expectRejection(save(model, file), 'ERR_SENET_TS_FORWARD');
      hook.remove();
      await expectRejection(save(model, temporary.path('no', 'net.onnx')), 'ERR_SENET_FILE_NOT_FOUND');
      model.dispose();
      await expectRejection(save(model, file), 'ERR_SENET_DISPOSED');
      nothingLeft();
    });

    it('a forward that reads numbers, with its line', async () => {
      class Net extends Module {
        conv = new Conv2d(3, 4, 1);
        override async forward(x: Tensor): Promise<Tensor> {
          const y = await this.conv.forward(x);
          return y.item() === 0 ? x : y;
        }
      }
      const net = new Net();
      await expectRejection(save(net, file), 'ERR_SENET_COMPILE', /onnx\.test\.ts/);
      nothingLeft();
      net.dispose();
    });

    it('more than 2 GB, before anything is written', async () => {
      const message = new Message().bytes(1, {
        length: 2 ** 31 - 7,
        pieces: () => {
          throw new Error('written');
        },
      });
      expect(message.length).to.equal(2 ** 31 - 1);
      const write = (): Promise<void> =>
        writeModel(message, file, { signal: undefined, onProgress: undefined }, 'save');
      expect(await write().catch(String)).to.equal('Error: written'); // just as long as may be
      message.integer(2, 0);
      await expectRejection(write(), 'ERR_SENET_EXPORT', /2147483649 bytes, and .* at most 2147483647/);
      nothingLeft();
    });
  });

  describe('an export', () => {
    it('that is aborted leaves nothing, before it begins and while it writes', async () => {
      const model = se_resnet20();
      await save(model, file);
      const before = readFileSync(file);
      const aborted = AbortSignal.abort('why');
      const { cause } = await expectRejection(save(model, file, { signal: aborted }), 'ERR_SENET_ABORTED');
      expect(cause).to.equal('why');
      const controller = new AbortController();
      const big = se_resnet18({ initWeights: false });
      const writing = save(big, file, {
        signal: controller.signal,
        onProgress: (done, total) => {
          if (done > total / 3) controller.abort();
        },
      });
      await expectRejection(writing, 'ERR_SENET_ABORTED');
      expect(readFileSync(file).equals(before)).to.equal(true);
      expect(readdirSync(temporary.folder)).to.deep.equal(['net.onnx']);
      for (const done of [model, big]) done.dispose();
    });

    it('has the weights of its call, whatever happens to the module meanwhile', async () => {
      const model = se_resnet20();
      const other = temporary.path('other.onnx');
      await save(model, other);
      const saving = save(model, file);
      model.dispose();
      await saving;
      expect(readFileSync(file).equals(readFileSync(other))).to.equal(true);
    });

    it('two at a time, of one module into one file', async () => {
      const model = se_resnet20();
      await Promise.all([save(model, file), save(model, file, { keepBatchNorm: true }), save(model, file)]);
      readOnnx(file);
      expect(readdirSync(temporary.folder)).to.deep.equal(['net.onnx']);
      model.dispose();
    });

    it('whose progress throws, fails with that', async () => {
      const model = se_resnet20();
      const failing = save(model, file, {
        onProgress: () => {
          throw new Error('enough');
        },
      });
      expect(await failing.catch(String)).to.equal('Error: enough');
      nothingLeft();
      model.dispose();
    });

    it('keeps no tensors', async () => {
      const model = se_resnet20();
      await save(model, file);
      await collectGarbage();
      const { tensors } = memory();
      for (let time = 0; time < 5; time++) await save(model, file, { dtype: 'float16' });
      await expectRejection(save(model, file, { softmax: wrong(1) }), 'ERR_SENET_ARG_TYPE');
      await expectRejection(save(model, temporary.path('no', 'net.onnx')), 'ERR_SENET_FILE_NOT_FOUND');
      await collectGarbage();
      expect(memory().tensors).to.be.at.most(tensors);
      model.dispose();
    });

    it('of other dtypes and strides holds float32', async () => {
      const module = new Sequential(new Conv2d(3, 4, 3), new BatchNorm2d(4), new AvgPool2d(2)).eval();
      await save(module, file);
      const float32 = readFileSync(file);
      module.to('float64').to({ memoryFormat: 'channels_last' });
      await save(module, file);
      expect(readFileSync(file).equals(float32)).to.equal(true);
      module.dispose();
    });

    it('of int8 twice: with images, and with what these said', async () => {
      manualSeed(2);
      const model = se_resnet20();
      const compiled = await model.compile({ dtype: 'int8', calibration: randn([4, 3, 32, 32]) });
      const calibration = compiled.quantization;
      await save(model, file, { dtype: 'int8', calibration: wrong(calibration) });
      const first = readFileSync(file);
      manualSeed(2);
      const again = se_resnet20();
      await save(again, file, { dtype: 'int8', calibration: randn([4, 3, 32, 32]) });
      expect(readFileSync(file).equals(first)).to.equal(true);
      for (const done of [model, again, compiled]) done.dispose();
    });

    it('of weights that were quantised says the same bytes', async () => {
      const images = await IdxDataset.open({
        images: path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        labels: path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      });
      const int8 = temporary.path('int8.safetensors');
      await quantizeWeights(WEIGHTS, int8, { calibration: images, limit: 32 });
      const other = temporary.path('other.onnx');
      const first = await exportWeights(int8, file, { dtype: 'int8' });
      const phases = new Set<string>();
      const second = await exportWeights(WEIGHTS, other, {
        dtype: 'int8',
        calibration: images,
        limit: 32,
        onProgress: ({ phase }) => phases.add(phase),
      });
      expect([...phases]).to.deep.equal(['calibrate', 'write']);
      expect([first.images, second.images]).to.deep.equal([null, 32]);
      const [one, two] = [readOnnx(file), readOnnx(other)];
      expect(one.nodes).to.deep.equal(two.nodes);
      await expectRejection(
        exportWeights(WEIGHTS, file, { dtype: 'int8' }),
        'ERR_SENET_CALIBRATION',
        /quantize/,
      );
      await expectRejection(
        exportWeights(WEIGHTS, file, { calibration: images }),
        'ERR_SENET_ARG_RANGE',
        /int8/,
      );
    });

    it('keeps the layers in float32 that an error budget takes, as quantised weights do', async () => {
      const calibration = await IdxDataset.open({
        images: path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz'),
        labels: path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz'),
      });
      const bytesOf = async (errorBudget?: number): Promise<number> => {
        await exportWeights(WEIGHTS, file, { dtype: 'int8', calibration, limit: 8, errorBudget });
        return readOnnx(file).nodes.filter(({ operation }) => operation === 'QuantizeLinear').length;
      };
      const [all, wide, exact] = [await bytesOf(), await bytesOf(1), await bytesOf(1e-6)];
      expect(wide).to.equal(all);
      expect(exact).to.be.below(all);
      const { nodes } = readOnnx(file);
      const int8 = temporary.path('int8.safetensors');
      await quantizeWeights(WEIGHTS, int8, { calibration, limit: 8, errorBudget: 1e-6 });
      await exportWeights(int8, file, { dtype: 'int8' });
      expect(readOnnx(file).nodes).to.deep.equal(nodes);
      for (const [options, code] of [
        [{ dtype: 'int8', calibration, errorBudget: 0 }, 'ERR_SENET_ARG_RANGE'],
        [{ dtype: 'int8', calibration, errorBudget: NaN }, 'ERR_SENET_ARG_RANGE'],
        [{ dtype: 'int8', errorBudget: 0.1 }, 'ERR_SENET_ARG_MISSING'],
      ] as const)
        await expectRejection(exportWeights(int8, file, options), code, /exportWeights: .*errorBudget/);
    });

    it('is refused a calibration that is no data set, or has no images', async () => {
      for (const [calibration, words] of [
        [null, /calibration: expected a data set/],
        [7, /calibration: expected a data set/],
        [{ length: -1, get: () => null }, /calibration: length/],
        [{ length: 3, get: () => null }, /sample 0/],
        [{ length: 3, get: () => ({ label: 1 }) }, /sample 0/],
      ] as const)
        for (const calibrated of [
          () => exportWeights(WEIGHTS, file, { dtype: 'int8', calibration } as never),
          () => quantizeWeights(WEIGHTS, temporary.path('none.safetensors'), { calibration } as never),
        ]) {
          const code = String(words).includes('length') ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE';
          await expectRejection(calibrated(), code, words);
        }
    });

    it('is refused another ending, and weights that are not there', async () => {
      await expectRejection(exportWeights(WEIGHTS, temporary.path('a.pt')), 'ERR_SENET_ARG_RANGE', /\.onnx/);
      await expectRejection(
        exportWeights('nobody', file),
        'ERR_SENET_ARG_RANGE',
        /no published weights 'nobody'/,
      );
      await expectRejection(exportWeights(temporary.path('x.pt'), file), 'ERR_SENET_FILE_NOT_FOUND');
      await expectRejection(exportWeights(WEIGHTS, file, { labels: ['a'] }), 'ERR_SENET_LABELS');
      nothingLeft();
    });
  });

  describe('are named for what they are', () => {
    it('by load, inspect, createModel and ImageClassifier.load', async () => {
      const model = se_resnet20();
      await save(model, file);
      model.dispose();
      const says = /an ONNX model, which is written here and not read/;
      for (const refused of [
        () => load(file),
        () => load(readFileSync(file)),
        () => inspectCheckpoint(file),
        async () => createModel(file),
        () => ImageClassifier.load(file),
        () => exportWeights(file, temporary.path('again.onnx')),
      ])
        await expectRejection(refused(), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', says);
      const ort = temporary.path('net.ort');
      writeFileSync(ort, Buffer.concat([Buffer.from([24, 0, 0, 0]), Buffer.from('ORTM'), Buffer.alloc(99)]));
      await expectRejection(load(ort), 'ERR_SENET_CHECKPOINT_UNSUPPORTED', says);
    });

    it('whoever wrote them, and nothing else is', () => {
      const model = (fields: (message: Message) => Message): Buffer =>
        Buffer.concat([...fields(new Message().integer(1, 10)).pieces()]);
      const graph = new Message().text(2, 'main');
      for (const [bytes, size] of [
        [model((m) => m.text(2, 'pytorch').text(3, '2.9').bytes(7, graph)), 0],
        [model((m) => m.bytes(8, new Message().integer(2, 21)).bytes(7, graph)), 0],
        [model((m) => m.text(2, 'x').integer(5, 3).text(6, 'doc').bytes(7, graph)), 0],
        [model((m) => m.text(2, 'tf2onnx').bytes(7, graph)).subarray(0, 14), 1e6],
      ] as const)
        expect(looksLikeOnnx(bytes, size || bytes.length)).to.equal(true);
      for (const bytes of [
        Buffer.alloc(0),
        Buffer.from([8]),
        Buffer.from([8, 7]),
        Buffer.from([8, 0, 18, 1, 65]),
        Buffer.from([8, 7, 18, 9, 65]),
        Buffer.from([8, 7, 19, 9, 65]),
        Buffer.from([8, 7, 98, 1, 65]),
        Buffer.from([0x80, 2, 8, 7, 18]),
        Buffer.from('\x08\x07text'),
      ])
        expect(looksLikeOnnx(bytes, bytes.length), bytes.toString('hex')).to.equal(false);
    });
  });

  describe('the command', function () {
    this.timeout(60_000);
    it('writes one and says what it takes', async () => {
      const said = await run(process.execPath, [CLI, 'export', WEIGHTS, '-o', file, '--softmax'], {
        cwd: ROOT,
      });
      expect(said.stdout).to.match(
        /net\.onnx: se_resnet20, 1\.\d MB of float32, opset 17, 10 labels\ntakes input: float32, batch x 3 x height x width, gives probabilities: float32, batch x 10\n/,
      );
      expect(readOnnx(file).outputs).to.deep.equal(['probabilities']);
      const json = await run(
        process.execPath,
        [CLI, 'export', 'fashion_mnist', '-o', file, '--format', 'onnx', '--dtype', 'float16', '--json'],
        { cwd: ROOT },
      );
      expect(JSON.parse(json.stdout)).to.deep.include({ file, model: 'se_resnet20', dtype: 'float16' });
    });

    it('calibrates, and refuses with its own options’ names', async () => {
      const images = path.join(FIXTURES, 'fashion-mnist-500-images-idx3-ubyte.gz');
      const labels = path.join(FIXTURES, 'fashion-mnist-500-labels-idx1-ubyte.gz');
      const given = ['--dtype', 'int8', '--calibration', images, '--calibration-labels', labels, '-n', '20'];
      const said = await run(process.execPath, [CLI, 'export', WEIGHTS, '-o', file, ...given], { cwd: ROOT });
      expect(said.stderr).to.match(/Calibrating with 20 images/);
      expect(said.stdout).to.match(/of int8/);
      const { nodes } = readOnnx(file);
      const exact = ['--error-budget', '1e-6'];
      await run(process.execPath, [CLI, 'export', WEIGHTS, '-o', file, ...given, ...exact], { cwd: ROOT });
      expect(readOnnx(file).nodes).to.not.deep.equal(nodes);
      const fails = async (...args: string[]): Promise<string> => {
        try {
          await run(process.execPath, [CLI, 'export', WEIGHTS, ...args], { cwd: ROOT });
        } catch (error) {
          const { code, stderr } = error as { code: number; stderr: string };
          return `${code} ${stderr}`;
        }
        throw new Error('it did not fail');
      };
      expect(await fails('-o', temporary.path('a.pt'))).to.match(
        /^2 .*--output: expected a path that ends in \.onnx/,
      );
      expect(await fails('-o', file, '--opset', 'x')).to.match(/^2 .*whole number/);
      expect(await fails('-o', file, '--dtype', 'int8')).to.match(/^1 .*--calibration/);
      expect(await fails('-o', file, ...given, '--error-budget', '2')).to.match(/^2 [^]*--error-budget/);
      expect(await fails('-o', file, '--error-budget', '0.1')).to.match(/^2 .*--error-budget needs images/);
      for (const idle of [
        ['--calibration-labels', labels],
        ['--limit', '5'],
        ['--method', 'mse'],
        ['--quantize-first'],
      ])
        expect(await fails('-o', file, ...idle)).to.match(
          new RegExp(`^2 .*${idle[0]} needs images: --calibration`),
        );
      expect(await fails('-o', file, ...given, '--percentile', '99')).to.match(
        /^2 .*--percentile is of --method percentile, and not of minmax/,
      );
      const other = temporary.path('other.onnx');
      expect(await fails('-o', other, '--opset', '17', '--preprocess')).to.match(/^2 .*--opset/);
      expect(existsSync(other)).to.equal(false);
    });
  });
});
