/**
 * The life of a compiled model: what it shares with its source (nothing), jobs, aborts and disposal, memory, bad input, and
 * what explain() and profile() say. Its numbers are test/parity/compiled.test.ts's.
 */
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  CifarSEBasicBlock,
  CompiledModel,
  Conv1d,
  Conv2d,
  EcaModule,
  Flatten,
  Linear,
  configure,
  manualSeed,
  memory,
  noGrad,
  ops,
  rand,
  randn,
  SELayer,
  Sequential,
  se_inception_v3,
  se_resnet18,
  se_resnet20,
  se_resnet50,
  StateDict,
  tidy,
  zeros,
  type CompiledPlan,
  type CompileOptions,
  type Module,
  type Tensor,
} from '../../lib';
import { binding } from '../../lib/native';
import { whileOccupied } from '../support/occupy';
import { expectRejection, expectThrow } from '../support/errors';
import { numbers, perturbBatchNorms, relativeError } from '../support/parity';
import { HAS_FLOAT16 } from '../support/processor';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const wrong = (value: unknown): never => value as never;

/** Small, with weights and statistics that are not those of construction. */
function makeModel(seed = 1): ReturnType<typeof se_resnet20> {
  manualSeed(seed);
  const model = se_resnet20({ reduction: 4 });
  perturbBatchNorms(model, [0.5, 1.5]);
  return model.eval();
}

/** Once no job runs: those whose callers gave up end unseen. */
async function idle(): Promise<void> {
  for (let turn = 0; turn < 3;) {
    await delay(5);
    const { queued, running } = memory().jobs;
    turn = queued + running === 0 ? turn + 1 : 0;
  }
}

/** A job that keeps a worker busy for a while. */
async function occupy(): Promise<void> {
  await tidy(async () => {
    const x = rand([2048, 2048]);
    await ops.callAsync('aten::matmul', x, x);
  });
}

describe('compiled models', function () {
  this.timeout(60_000);
  const configuration = binding.configuration();
  const temporary = new Temporary();
  let model: ReturnType<typeof se_resnet20>;
  let compiled: CompiledModel;
  let x: Tensor;
  let expected: number[];

  before(async () => {
    configure({ workers: 1 });
    model = makeModel();
    compiled = await model.compile();
    x = randn([2, 3, 32, 32]);
    expected = numbers(await compiled.forward(x));
  });
  after(() => {
    compiled.dispose();
    model.dispose();
    configure({ workers: configuration.workers, threadsPerWorker: configuration.threadsPerWorker });
    temporary.cleanUp();
  });

  async function expectUnchanged(of = compiled): Promise<void> {
    expect(numbers(await of.forward(x))).to.deep.equal(expected);
  }

  describe('what they compute', () => {
    it('inputs and weights whose negation is only noted (aten::_neg_view) are negated', async () => {
      const noted = (values: Tensor): Tensor => ops.call('aten::_neg_view', values.neg()) as Tensor;
      await tidy(async () => {
        expect(numbers(await compiled.forward(noted(x)))).to.deep.equal(expected);
      });
      const source = makeModel();
      const weights = new StateDict([...model.stateDict()].map(([name, value]) => [name, noted(value)]));
      source.loadStateDict(weights, { assign: true });
      const other = await source.compile();
      await expectUnchanged(other);
      other.dispose();
    });

    it('evaluation mode, whatever mode the source is in, and the source keeps its mode', async () => {
      const source = makeModel().train();
      const other = await source.compile();
      expect(source.training).to.equal(true);
      await expectUnchanged(other);
      expect(relativeError(await source.eval().forward(x), expected)).to.be.below(1e-5);
      other.dispose();
      source.dispose();
    });

    it('float32, with no graph, whatever asks for one', async () => {
      const watched = randn([1, 3, 32, 32], { requiresGrad: true });
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const other = await model.compile({ dtype });
        for (const output of [await other.forward(watched), other.forwardSync(watched)]) {
          expect([output.dtype, output.requiresGrad, output.shape]).to.deep.equal([
            'float32',
            false,
            [1, 10],
          ]);
        }
        expect(other.dtype).to.equal(dtype);
        other.dispose();
      }
    });

    it('the same from a source in float64, and nearly from one in bfloat16', async () => {
      for (const [dtype, bound] of [
        ['float64', 1e-6],
        ['bfloat16', 2e-2],
      ] as const) {
        const source = makeModel().to(dtype);
        const other = await source.compile();
        expect(relativeError(await other.forward(x), expected), dtype).to.be.below(bound);
        other.dispose();
        source.dispose();
      }
    });

    it('the same twice, and from many callers at once', async () => {
      const outputs = await Promise.all(Array.from({ length: 20 }, () => compiled.forward(x)));
      for (const output of outputs) expect(numbers(output)).to.deep.equal(expected);
    });

    it('the same on two workers at once', async () => {
      const inputs = Array.from({ length: 24 }, (_, index) =>
        randn([1 + (index % 3), 3, 32, 32 + (index % 5)]),
      );
      const alone: number[][] = [];
      for (const input of inputs) alone.push(numbers(await compiled.forward(input)));
      configure({ workers: 2, threadsPerWorker: 1 });
      try {
        const together = await Promise.all(inputs.map((input) => compiled.forward(input)));
        together.forEach((output, index) => {
          // Sums over an image are cut at other places when another number of threads works on it.
          expect(relativeError(output, alone[index] as number[])).to.be.below(1e-6);
        });
        const models = await Promise.all([model.compile(), model.compile({ dtype: 'bfloat16' })]);
        const both = await Promise.all(models.map((each) => each.forward(x)));
        expect(relativeError(both[0] as Tensor, expected)).to.be.below(1e-6);
        expect(relativeError(both[1] as Tensor, expected)).to.be.below(5e-2);
        for (const each of models) each.dispose();
      } finally {
        configure({ workers: 1, threadsPerWorker: configuration.threadsPerWorker });
      }
    });

    it('the same in Workers', async () => {
      const root = path.join(__dirname, '..', '..');
      const code = `
        require(${JSON.stringify(require.resolve('tsx/cjs'))});
        const { parentPort, workerData } = require('node:worker_threads');
        const { se_resnet20, StateDict, tensor } = require(${JSON.stringify(path.join(root, 'lib', 'index.ts'))});
        (async () => {
          const model = se_resnet20({ reduction: 4, initWeights: false }).eval();
          for (const [name, own] of [...model.namedParameters(), ...model.namedBuffers()]) {
            const { data, shape } = workerData.state[name];
            own.detach().copy_(tensor(data, { shape }));
          }
          const compiled = await model.compile();
          model.dispose();
          const outputs = [];
          for (let i = 0; i < 3; i++) {
            outputs.push(compiled.forward(tensor(workerData.x, { shape: [2, 3, 32, 32] })));
          }
          parentPort.postMessage((await Promise.all(outputs)).map((output) => [...output.toTypedArray()]));
        })();`;
      const state = Object.fromEntries(
        [...model.stateDict()].map(([name, value]) => [
          name,
          { data: value.toTypedArray(), shape: [...value.shape] },
        ]),
      );
      const workerData = { state, x: x.toTypedArray() };
      const workers = [1, 2].map(() => new Worker(code, { eval: true, workerData }));
      const answers = workers.map(
        (worker) =>
          new Promise<number[][]>((resolve, reject) => worker.on('message', resolve).on('error', reject)),
      );
      const here = Promise.all([compiled.forward(x), compiled.forward(x)]);
      for (const outputs of await Promise.all(answers)) {
        expect(outputs).to.have.lengthOf(3);
        for (const output of outputs) expect(output).to.deep.equal(expected);
      }
      for (const output of await here) expect(numbers(output)).to.deep.equal(expected);
      await Promise.all(workers.map((worker) => worker.terminate()));
    });
  });

  describe('and their source', () => {
    it('share nothing: training, loading and converting the source change nothing', async () => {
      const source = makeModel();
      const other = await source.compile();
      for (const [, parameter] of source.namedParameters()) ops.call('aten::add_', parameter.detach(), 0.5);
      expect(relativeError(await source.forward(x), expected)).to.be.above(0.1);
      await expectUnchanged(other);
      source.loadStateDict(makeModel(2).stateDict());
      await expectUnchanged(other);
      source.train();
      await source.forward(x); // moves the running statistics
      source.to('float64');
      await expectUnchanged(other);
      source.dispose();
      await expectUnchanged(other);
      other.dispose();
    });

    it('every parameter and statistic is copied: none changes the compiled model in place', async () => {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        for (const kernels of [undefined, 'libtorch']) {
          temporary.environment({ SENET_COMPILE_KERNELS: kernels });
          const source = makeModel();
          const other = await source.compile({ dtype });
          temporary.environment({ SENET_COMPILE_KERNELS: undefined });
          const before = numbers(await other.forward(x));
          for (const tensor of source.stateDict().values()) tensor.zero_();
          expect(numbers(await other.forward(x)), `${dtype} ${kernels}`).to.deep.equal(before);
          other.dispose();
          source.dispose();
        }
      }
    });

    it('a compile and forwards of the source run beside each other', async () => {
      configure({ workers: 2, threadsPerWorker: 1 });
      try {
        const forwards = Array.from({ length: 6 }, () => model.forward(x));
        const compiles = [model.compile(), model.compile()];
        const more = Array.from({ length: 6 }, () => model.forward(x));
        for (const output of await Promise.all([...forwards, ...more]))
          expect(relativeError(output, expected)).to.be.below(1e-5);
        for (const other of await Promise.all(compiles)) {
          expect(relativeError(await other.forward(x), expected)).to.be.below(1e-6);
          other.dispose();
        }
      } finally {
        configure({ workers: 1, threadsPerWorker: configuration.threadsPerWorker });
      }
    });

    it('while a compile is queued or runs, the source is busy', async () => {
      const source = makeModel();
      const state = model.stateDict();
      const other = await whileOccupied(() => {
        const job = source.compile();
        expectThrow(() => source.loadStateDict(state), 'ERR_SENET_BUSY');
        expectThrow(() => source.to('float64'), 'ERR_SENET_BUSY');
        expectThrow(() => source.getSubmodule('layer1').to('float64'), 'ERR_SENET_BUSY');
        return job;
      });
      source.loadStateDict(makeModel(2).stateDict());
      await expectUnchanged(other);
      other.dispose();
      source.dispose();
    });

    it('a source that is disposed while it is compiled is compiled', async () => {
      const source = makeModel();
      const before = occupy();
      const compiling = source.compile();
      source.dispose();
      await expectRejection(source.compile(), 'ERR_SENET_DISPOSED');
      await before;
      const other = await compiling;
      await expectUnchanged(other);
      other.dispose();
    });

    it('a part of a disposed model is disposed too', async () => {
      const source = makeModel();
      const part = source.getSubmodule('layer1') as Module;
      const other = await part.compile();
      source.dispose();
      await expectRejection(part.compile(), 'ERR_SENET_DISPOSED');
      const y = await other.forward(zeros([1, 16, 4, 4]));
      expect(y.shape).to.deep.equal([1, 16, 4, 4]);
      other.dispose();
    });
  });

  describe('dispose', () => {
    it('lets jobs end, and refuses later calls', async () => {
      const other = await model.compile();
      const before = occupy();
      const running = [other.forward(x), other.forward(x)];
      other.dispose();
      other.dispose();
      await before;
      for (const output of await Promise.all(running)) expect(numbers(output)).to.deep.equal(expected);
      await expectRejection(other.forward(x), 'ERR_SENET_DISPOSED', /compiled model/);
      await expectRejection(other.profile(x), 'ERR_SENET_DISPOSED');
      expectThrow(() => other.forwardSync(x), 'ERR_SENET_DISPOSED');
      expectThrow(() => other.explain(), 'ERR_SENET_DISPOSED');
    });

    it('comes with `using`', async () => {
      const other = await model.compile();
      other[Symbol.dispose]();
      expectThrow(() => other.forwardSync(x), 'ERR_SENET_DISPOSED');
    });

    it('a profile that is under way ends with ERR_SENET_DISPOSED', async () => {
      const other = await model.compile();
      const profiling = other.profile(x, { runs: 10_000 });
      await delay(5);
      other.dispose();
      await expectRejection(profiling, 'ERR_SENET_DISPOSED');
    });
  });

  describe('an input that changes meanwhile', () => {
    it('is read as it was when forward was called', async () => {
      const photo = rand([4, 3, 40, 32]);
      const expected = (await compiled.forward(photo)).toArray();
      const before = occupy();
      const job = compiled.forward(photo);
      ops.call('aten::transpose_', photo, 2, 3);
      expect(photo.shape).to.deep.equal([4, 3, 32, 40]);
      expect((await job).toArray()).to.deep.equal(expected);
      await before;
    });
  });

  describe('memory', () => {
    it('an abort rejects at once, wherever the job is, and jobs end unseen', async () => {
      const source = se_resnet18({ initWeights: false });
      await idle();
      const reason = new Error('no longer wanted');
      // Queued behind another job; running; and so late that it may have ended.
      for (const wait of [0, 3, 10, 40]) {
        const other = await source.compile();
        const photo = zeros([4, 3, 96, 96]);
        const controller = new AbortController();
        const { signal } = controller;
        const before = wait === 0 ? occupy() : undefined;
        const jobs = [
          source.compile({ signal }),
          other.forward(photo, { signal }),
          other.profile(photo, { signal }),
        ];
        if (wait > 0) await delay(wait);
        controller.abort(reason);
        const outcomes = await Promise.allSettled<CompiledModel | Tensor | object>(jobs);
        if (wait === 0)
          expect(outcomes.map(({ status }) => status)).to.deep.equal(jobs.map(() => 'rejected'));
        for (const outcome of outcomes) {
          if (outcome.status === 'rejected') {
            expect(outcome.reason).to.include({
              name: 'AbortError',
              code: 'ERR_SENET_ABORTED',
              cause: reason,
            });
          } else if ('dispose' in outcome.value) (outcome.value as Tensor).dispose();
        }
        photo.dispose();
        other.dispose();
        await before;
      }
      await idle();
      source.dispose();
    });

    it('an abort before the call starts no job', async () => {
      const signal = AbortSignal.abort(new Error('before'));
      const error = await expectRejection(model.compile({ signal }), 'ERR_SENET_ABORTED');
      expect([error.name, error.cause]).to.deep.equal(['AbortError', signal.reason]);
      await expectRejection(compiled.forward(x, { signal }), 'ERR_SENET_ABORTED');
      await expectRejection(compiled.profile(x, { signal }), 'ERR_SENET_ABORTED');
      expect(memory().jobs).to.deep.equal({ queued: 0, running: 0 });
    });

    it('outputs belong to the tidy around the call, compiled models to nobody', async () => {
      let inside: Tensor | undefined;
      const { other, kept } = await tidy(async () => {
        inside = await compiled.forward(x);
        compiled.forwardSync(x);
        return { other: await model.compile(), kept: await compiled.forward(x) };
      });
      expectThrow(() => inside?.toTypedArray(), 'ERR_SENET_DISPOSED');
      expect(numbers(kept)).to.deep.equal(expected);
      await expectUnchanged(other);
      const count = memory().tensors;
      await tidy(async () => {
        await Promise.all([compiled.forward(x), compiled.forward(x)]);
      });
      tidy(() => {
        compiled.forwardSync(x);
      });
      expect(memory().tensors).to.be.at.most(count);
      const free = await noGrad(() => model.compile());
      expect(numbers(await noGrad(() => free.forward(x)))).to.deep.equal(expected);
      other.dispose();
      free.dispose();
    });
  });

  describe('bad input', () => {
    it('compile refuses dtypes that it has not, options that it has not, and disposed modules', async () => {
      const refused: [unknown, Parameters<typeof expectRejection>[1], RegExp][] = [
        [{ dtype: 'float64' }, 'ERR_SENET_DTYPE', /float32, bfloat16, float16, int8, got 'float64'/],
        [{ dtype: 'int16' }, 'ERR_SENET_DTYPE', /'int16'/],
        [{ dtype: 32 }, 'ERR_SENET_DTYPE', /got 32/],
        [{ type: 'float32' }, 'ERR_SENET_UNKNOWN_OPTION', /'type'; did you mean 'dtype'/],
        [{ signal: {} }, 'ERR_SENET_ARG_TYPE', /AbortSignal/],
        ['bfloat16', 'ERR_SENET_ARG_TYPE', /options object/],
      ];
      for (const [options, code, words] of refused)
        await expectRejection(model.compile(options as CompileOptions), code, words);
    });

    it('float16 computes, or is refused by name where the processor has none', async () => {
      const half = model.compile({ dtype: 'float16' });
      if (HAS_FLOAT16) {
        const other = await half;
        expect(relativeError(await other.forward(x), expected)).to.be.below(1e-2);
        other.dispose();
      } else await expectRejection(half, 'ERR_SENET_DTYPE', /float16.*use float32 or bfloat16/);
    });

    it('a tensor whose shape was changed behind its module is refused by name', async () => {
      for (const [name, change, words] of [
        ['fc.bias', 'aten::unsqueeze_', /bias of 'fc'/],
        ['fc.weight', 'aten::unsqueeze_', /weight of 'fc'/],
        ['conv1.weight', 'aten::unsqueeze_', /weight of 'conv1'/],
        ['bn1.weight', 'aten::unsqueeze_', /weight of 'bn1'/],
        ['layer1.0.se.fc.0.weight', 'aten::unsqueeze_', /weight of 'layer1.0.se.fc.0'/],
      ] as const) {
        const other = makeModel();
        const [, tensor] = other.namedParameters().find(([path]) => path === name) ?? [];
        noGrad(() => void ops.call(change, tensor, 0));
        await expectRejection(other.compile(), 'ERR_SENET_COMPILE', words);
        other.dispose();
      }
    });

    it('a layer that takes no image, or does not say how many channels, is refused by name', async () => {
      const channels = 'nothing in it says how many channels its images have';
      for (const [module, words] of [
        [new EcaModule(8), `EcaModule cannot be compiled: ${channels}`],
        [new Sequential(new EcaModule(8)), `Sequential cannot be compiled: ${channels}`],
        [
          new Conv1d(3, 8, 3),
          'Conv1d cannot be compiled: it does not take the images of its model: Conv1d: ',
        ],
        [
          new Sequential(new Conv1d(3, 8, 3), new Flatten(), new Linear(8, 2)),
          "Conv1d ('0') cannot be compiled: it does not take the images of its model: Conv1d: expected",
        ],
      ] as const) {
        const error = await expectRejection(module.compile(), 'ERR_SENET_COMPILE');
        expect(error.message).to.contain(`compile: ${words}`);
      }
    });

    it('what our kernels do not have is said to be by LibTorch', async function () {
      const module = new Sequential(new Conv2d(3, 4, 3), new Conv2d(4, 4, 3, { dilation: 2 }));
      const dilated = await module.compile();
      const { backend, steps } = dilated.explain([32, 32]);
      if (!backend.startsWith('avx')) skip(this, 'this processor has none of our kernels');
      expect(steps.map(({ name, operation, kernel }) => [name, operation, kernel])).to.deep.equal([
        ['input', 'load', undefined],
        ['0', 'convolution', undefined],
        ['1', 'convolution', 'libtorch'],
        ['output', 'store', undefined],
      ]);
    });

    it('what joins the images of a batch is refused by name', async () => {
      for (const flatten of [new Flatten(0, 2), new Flatten(-4, -2), new Flatten(0, 1), new Flatten(0)]) {
        const net = new Sequential(new Conv2d(3, 4, 1), new AdaptiveAvgPool2d(1), flatten);
        await expectRejection(net.compile(), 'ERR_SENET_COMPILE', /Flatten \('2'\).*joins the images/);
      }
    });

    it('a part that takes no image, or has no weights, is refused by name', async () => {
      const source = se_resnet18({ initWeights: false });
      for (const [part, words] of [
        ['fc', /Linear/],
        ['relu', /ReLU/],
        ['maxpool', /MaxPool2d/],
        ['avgpool', /AdaptiveAvgPool2d/],
        ['layer1.0.se.fc', /Linear/],
        ['layer1.0.se.fc.3', /Sigmoid/],
      ] as const) {
        const module = source.getSubmodule(part) as Module;
        await expectRejection(module.compile(), 'ERR_SENET_COMPILE', words);
      }
      source.dispose();
    });

    const inputs: [string, () => unknown, Parameters<typeof expectRejection>[1], RegExp][] = [
      [
        'an image without a batch',
        () => zeros([3, 32, 32]),
        'ERR_SENET_SHAPE',
        /\[N, 3, H, W\].*\[3, 32, 32\]/,
      ],
      ['five axes', () => zeros([1, 3, 1, 32, 32]), 'ERR_SENET_SHAPE', /\[1, 3, 1, 32, 32\]/],
      ['a scalar', () => zeros([]), 'ERR_SENET_SHAPE', /\[\]/],
      ['four channels', () => zeros([1, 4, 32, 32]), 'ERR_SENET_SHAPE', /\[1, 4, 32, 32\]/],
      ['channels last', () => zeros([1, 32, 32, 3]), 'ERR_SENET_SHAPE', /\[1, 32, 32, 3\]/],
      ['an empty batch', () => zeros([0, 3, 32, 32]), 'ERR_SENET_SHAPE', /\[0, 3, 32, 32\]/],
      ['empty images', () => zeros([1, 3, 32, 0]), 'ERR_SENET_SHAPE', /\[1, 3, 32, 0\]/],
      ['float64', () => zeros([1, 3, 32, 32], { dtype: 'float64' }), 'ERR_SENET_DTYPE', /float32.*float64/],
      ['bfloat16', () => zeros([1, 3, 32, 32], { dtype: 'bfloat16' }), 'ERR_SENET_DTYPE', /bfloat16/],
      ['uint8', () => zeros([1, 3, 32, 32], { dtype: 'uint8' }), 'ERR_SENET_DTYPE', /uint8/],
      ['an array', () => [[1]], 'ERR_SENET_ARG_TYPE', /Tensor/],
      ['nothing', () => undefined, 'ERR_SENET_ARG_TYPE', /Tensor/],
      [
        'a disposed tensor',
        () => {
          const tensor = zeros([1, 3, 32, 32]);
          tensor.dispose();
          return tensor;
        },
        'ERR_SENET_DISPOSED',
        /disposed/,
      ],
    ];
    for (const [name, make, code, words] of inputs) {
      it(`forward, forwardSync and profile refuse ${name}`, async () => {
        for (const dtype of ['float32', 'bfloat16'] as const) {
          const other = dtype === 'float32' ? compiled : await model.compile({ dtype });
          const input = make() as Tensor;
          await expectRejection(other.forward(input), code, words);
          await expectRejection(other.profile(input), code, words);
          expectThrow(() => other.forwardSync(input), code, words);
          if (other !== compiled) other.dispose();
        }
        await expectUnchanged();
      });
    }

    it('options that do not exist are refused', async () => {
      await expectRejection(compiled.forward(x, wrong({ grad: true })), 'ERR_SENET_UNKNOWN_OPTION', /signal/);
      await expectRejection(compiled.forward(x, wrong(5)), 'ERR_SENET_ARG_TYPE');
      await expectRejection(compiled.profile(x, wrong({ run: 1 })), 'ERR_SENET_UNKNOWN_OPTION', /'runs'/);
      for (const runs of [0, -1, 1.5, NaN, 10_001])
        await expectRejection(compiled.profile(x, { runs }), 'ERR_SENET_ARG_RANGE', /runs/);
      await expectRejection(compiled.profile(x, { runs: wrong('3') }), 'ERR_SENET_ARG_TYPE', /runs/);
    });

    it('Inception takes 299 x 299 and says so', async () => {
      const source = se_inception_v3({ numClasses: 3, initWeights: false });
      const inception = await source.compile();
      source.dispose();
      const words = /input size must be \(299, 299\), got \(298, 299\)/;
      await expectRejection(inception.forward(zeros([1, 3, 298, 299])), 'ERR_SENET_SHAPE', words);
      expectThrow(() => inception.explain([298, 299]), 'ERR_SENET_SHAPE', words);
      expect(inception.explain().inputSize).to.deep.equal([299, 299]);
      expect(inception.explain([299, 299]).steps).to.deep.equal(inception.explain().steps);
      inception.dispose();
    });

    it('a block that cannot add its residual compiles and refuses its input', async () => {
      const block = new CifarSEBasicBlock(16, 16, 2);
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const other = await block.compile({ dtype });
        const words = dtype === 'float32' ? /residual is 8 x 8 .* output 4 x 4/ : /./;
        await expectRejection(other.forward(zeros([1, 16, 8, 8])), 'ERR_SENET_SHAPE', words);
        other.dispose();
      }
      block.dispose();
    });

    it('images that fit in no memory are coded errors, however they are described', async () => {
      const pixel = zeros([1, 3, 1, 1]);
      for (const size of [40_000, 2 ** 20, 2 ** 28, 2 ** 29 - 2, 2 ** 29, 2 ** 30 - 1]) {
        const error: unknown = await compiled
          .forward(pixel.expand([1, 3, size, size]))
          .catch((e: unknown) => e);
        expect(error, String(size))
          .to.have.property('code')
          .that.is.oneOf(['ERR_SENET_SHAPE', 'ERR_SENET_OUT_OF_MEMORY']);
      }
      const many = pixel.expand([2 ** 40, 3, 32, 32]);
      await expectRejection(compiled.forward(many), 'ERR_SENET_OUT_OF_MEMORY');
      for (const size of [2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER])
        expectThrow(() => compiled.explain([size, size]), 'ERR_SENET_SHAPE', /too large/);
    });
  });

  describe('explain', () => {
    const sum = (plan: CompiledPlan, of: 'weightBytes' | 'multiplyAdds'): number =>
      plan.steps.reduce((total, step) => total + step[of], 0);

    it('names the convolutions that a matrix unit computes', async () => {
      const source = se_resnet20({ initWeights: false });
      temporary.environment({ SENET_COMPILE_KERNELS: 'amx_emulated' });
      const half = await source.compile({ dtype: 'bfloat16' });
      temporary.environment({ SENET_COMPILE_KERNELS: undefined });
      const plan = half.explain([32, 32]);
      expect(plan.backend).to.equal('amx_emulated');
      expect(plan.weightBytes).to.equal(sum(plan, 'weightBytes'));
      for (const { name, operation, output, kernel } of plan.steps) {
        const isImage = operation === 'convolution' && output[1] !== 1;
        expect(kernel, name).to.equal(isImage ? 'tiles' : undefined);
      }
      expect(plan.steps.filter(({ kernel }) => kernel === 'tiles')).to.have.length(1 + 3 * 6 + 2);
      // Of few windows vectors compute all.
      for (const { kernel } of half.explain([3, 3]).steps) expect(kernel).to.equal(undefined);
      half.dispose();
      source.dispose();
    });

    it('counts the multiply-adds and the bytes of se_resnet50, on every backend', async () => {
      const source = se_resnet50({ initWeights: false });
      for (const kernels of [undefined, 'libtorch']) {
        temporary.environment({ SENET_COMPILE_KERNELS: kernels });
        const other = await source.compile();
        const half = await source.compile({ dtype: 'bfloat16' });
        temporary.environment({ SENET_COMPILE_KERNELS: undefined });
        const plan = other.explain();
        expect(plan).to.include({ model: 'SEResNet', dtype: 'float32', device: 'cpu' });
        expect(plan.backend).to.match(
          kernels === undefined ? /^(avx512_bf16|avx512|avx2|onednn)$/ : /^onednn$/,
        );
        expect(plan.inputSize).to.deep.equal([224, 224]);
        expect(plan.multiplyAdds)
          .to.be.within(0.98 * 4.09e9, 1.02 * 4.09e9)
          .and.to.equal(sum(plan, 'multiplyAdds'));
        // 28,071,976 parameters, 53,120 of them the two of each BatchNorm that become one bias. Winograd's convolutions
        // have sixteen numbers for each nine.
        expect(plan.weightBytes)
          .to.be.within(0.95 * 112e6, 1.08 * 112e6)
          .and.to.equal(sum(plan, 'weightBytes'));
        const halfPlan = half.explain();
        expect(halfPlan.weightBytes).to.be.within(0.95 * 56e6, 1.1 * 56e6);
        expect(halfPlan.multiplyAdds).to.be.within(0.99 * plan.multiplyAdds, 1.01 * plan.multiplyAdds);
        for (const step of plan.steps) {
          expect(step.name).to.be.a('string').and.not.equal('');
          expect(step.operation).to.match(/^[a-z_]+$/);
          for (const shape of [step.input, step.output]) expect(shape).to.have.lengthOf(3);
          expect(Math.min(...step.input, ...step.output)).to.be.at.least(1);
          expect(step.activationBytes).to.be.above(0);
          if (step.multiplyAdds > 0) expect(step.weightBytes).to.be.above(0);
        }
        const names = plan.steps.map(({ name }) => name);
        expect(names).to.include('conv1').and.to.include('layer4.2.conv3').and.to.include('fc');
        expect(plan.steps.find(({ name }) => name === 'conv1')).to.deep.include({
          operation: 'convolution',
          input: [3, 224, 224],
          output: [64, 112, 112],
          multiplyAdds: 118_013_952,
        });
        other.dispose();
        half.dispose();
      }
      source.dispose();
    });

    it('is for images of any size', () => {
      const usual = compiled.explain();
      expect(usual.inputSize).to.deep.equal([32, 32]);
      const large = compiled.explain([64, 48]);
      expect(large.inputSize).to.deep.equal([64, 48]);
      expect(large.weightBytes).to.equal(usual.weightBytes);
      expect(large.multiplyAdds / usual.multiplyAdds).to.be.closeTo(3, 0.05);
      expect(large.steps.map(({ name }) => name)).to.deep.equal(usual.steps.map(({ name }) => name));
      expect(compiled.explain([1, 1]).multiplyAdds).to.be.above(0);
      const json = JSON.parse(JSON.stringify(large)) as object;
      expect(json).to.deep.equal(large);
    });

    it('and refuses what is none', () => {
      for (const size of [
        [0, 1],
        [1, -1],
        [1.5, 1],
        [1, NaN],
        [Infinity, 1],
      ] as [number, number][])
        expectThrow(() => compiled.explain(size), 'ERR_SENET_ARG_RANGE', /height|width/);
      for (const size of [[1], [1, 2, 3], 32, null, '32x32', { height: 1, width: 1 }])
        expectThrow(() => compiled.explain(wrong(size)), 'ERR_SENET_ARG_TYPE', /\[height, width\]/);
      expectThrow(() => compiled.explain(wrong(['32', 32])), 'ERR_SENET_ARG_TYPE', /height/);
    });
  });

  describe('profile', () => {
    it('is the plan for the input, with a time for each step, on every backend', async () => {
      for (const kernels of [undefined, 'libtorch']) {
        for (const dtype of ['float32', 'bfloat16'] as const) {
          temporary.environment({ SENET_COMPILE_KERNELS: kernels });
          const other = await model.compile({ dtype });
          temporary.environment({ SENET_COMPILE_KERNELS: undefined });
          const profile = await other.profile(randn([3, 3, 40, 24]), { runs: 3 });
          const { batch, runs, milliseconds, steps, ...plan } = profile;
          expect([batch, runs]).to.deep.equal([3, 3]);
          const { steps: plain, ...rest } = other.explain([40, 24]);
          expect(plan).to.deep.equal(rest);
          expect(steps.map(({ milliseconds: _, ...step }) => step)).to.deep.equal(plain);
          for (const step of steps) expect(step.milliseconds, step.name).to.be.a('number').and.at.least(0);
          const total = steps.reduce((all, step) => all + step.milliseconds, 0);
          expect(milliseconds).to.be.above(0);
          expect(total / milliseconds).to.be.within(0.2, 5); // medians of parts, and of the whole
          const products = steps.filter((step) => step.multiplyAdds > 1e5);
          expect(Math.min(...products.map((step) => step.milliseconds))).to.be.above(0);
          other.dispose();
        }
      }
    });

    it('leaves the model as it was', async () => {
      const profile = await compiled.profile(x, { runs: 1 });
      expect(profile.runs).to.equal(1);
      await expectUnchanged();
    });
  });

  it('an SELayer too', async () => {
    const layer = new SELayer(32, 4).eval();
    const other = await layer.compile();
    const input = randn([2, 32, 5, 5]);
    expect(relativeError(await other.forward(input), numbers(await layer.forward(input)))).to.be.below(1e-6);
    expect(other.explain([5, 5]).model).to.equal('SELayer');
    other.dispose();
    layer.dispose();
  });
});
