/** The models' constructors and factories: arguments, options, errors, and what a forward refuses. */
import { expect } from 'chai';

import { isSenetError } from '../../lib/errors';
import {
  CifarSEPreActResNet,
  CifarSEResNet,
  se_preactresnet20,
  se_resnet20,
} from '../../lib/models/cifar-se-resnet';
import {
  createModel,
  isModelName,
  listModels,
  modelRecord,
  type ModelOptions,
} from '../../lib/models/registry';
import { CifarSEBasicBlock, SEBasicBlock, SEBottleneck } from '../../lib/models/residual-blocks';
import { SEInception3, se_inception_v3 } from '../../lib/models/se-inception-v3';
import { SEResNet, se_resnet18, se_resnet50 } from '../../lib/models/se-resnet';
import { Sequential } from '../../lib/nn/containers';
import { BatchNorm2d, Conv2d } from '../../lib/nn/layers';
import type { Module } from '../../lib/nn/module';
import { SELayer } from '../../lib/nn/se-layer';
import { empty, ones, rand, zeros } from '../../lib/tensor/factories';
import { manualSeed } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';
import { LIGHT_MODELS } from '../support/models';
import { numbers } from '../support/parity';

/** The code and message of what `run` throws or rejects with. */
async function failure(run: () => unknown): Promise<{ code: string; message: string }> {
  try {
    await run();
  } catch (error) {
    if (isSenetError(error)) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** A value of the wrong type, on purpose. */
const wrong = (value: unknown): never => value as never;

describe('models: constructors and factories', function () {
  this.timeout(20_000);

  it('a factory makes what the constructor makes', () => {
    const pairs: [() => Module<unknown>, () => Module<unknown>][] = [
      [
        () => se_resnet18({ numClasses: 3 }),
        () => new SEResNet(SEBasicBlock, [2, 2, 2, 2], { numClasses: 3 }),
      ],
      [() => se_resnet20({ reduction: 4 }), () => new CifarSEResNet(CifarSEBasicBlock, 3, 10, 4)],
      [() => se_preactresnet20({ numClasses: 7 }), () => new CifarSEPreActResNet(CifarSEBasicBlock, 3, 7)],
      [
        () => se_inception_v3({ numClasses: 2, auxLogits: false }),
        () => new SEInception3({ numClasses: 2, auxLogits: false, recalibrate: 'none' }),
      ],
      [() => createModel('se_resnet20', { numClasses: 4 }), () => se_resnet20({ numClasses: 4 })],
    ];
    for (const [left, right] of pairs) {
      const [first, second] = [left, right].map((make) => {
        manualSeed(1);
        return make();
      }) as [Module<unknown>, Module<unknown>];
      expect(first.constructor).to.equal(second.constructor);
      expect([...first.stateDict().keys()]).to.deep.equal([...second.stateDict().keys()]);
      const weight = (model: Module<unknown>): number[] => numbers(model.parameters().at(-2) as Tensor);
      expect(weight(first)).to.deep.equal(weight(second));
    }
  });

  it('initWeights: false has the same keys and shapes, zeros, and draws nothing', () => {
    for (const name of LIGHT_MODELS) {
      manualSeed(3);
      const expected = numbers(rand([2]));
      manualSeed(3);
      const model = createModel(name, { numClasses: 5, initWeights: false });
      expect(numbers(rand([2])), name).to.deep.equal(expected);
      for (const [key, parameter] of model.namedParameters()) {
        if (parameter.shape.length < 2) continue;
        expect(parameter.requiresGrad, key).to.equal(true);
        expect(parameter.sum().item(), `${name} ${key}`).to.equal(0);
      }
      model.dispose();
    }
    const shapes = (of: Module<unknown>): unknown[] =>
      [...of.stateDict()].map(([key, { shape }]) => [key, shape]);
    expect(shapes(se_resnet20({ initWeights: false }))).to.deep.equal(shapes(se_resnet20()));
  });

  it("blocks take Python's positional arguments and a downsample", async () => {
    expect([SEBasicBlock.expansion, SEBottleneck.expansion]).to.deep.equal([1, 4]);
    const downsample = new Sequential(
      new Conv2d(64, 128, 1, { stride: 2, bias: false }),
      new BatchNorm2d(128),
    );
    const block = new SEBasicBlock(64, 128, 2, downsample, 1, 64, 1, null, { reduction: 8 });
    expect(
      block
        .namedParameters()
        .map(([name]) => name)
        .slice(-3),
    ).to.deep.equal(['downsample.0.weight', 'downsample.1.weight', 'downsample.1.bias']);
    expect(block.stateDict().get('se.fc.0.weight')?.shape).to.deep.equal([16, 128]);
    expect((await block.forward(rand([1, 64, 8, 8]))).shape).to.deep.equal([1, 128, 4, 4]);
    expect((await new SEBottleneck(64, 16).eval().forward(rand([2, 64, 5, 7]))).shape).to.deep.equal([
      2, 64, 5, 7,
    ]);
    expect((await new CifarSEBasicBlock(4, 8, 2, 2).forward(rand([2, 4, 6, 6]))).shape).to.deep.equal([
      2, 8, 3, 3,
    ]);
  });

  it('children are of their classes', () => {
    const model = se_resnet50({ numClasses: 2, initWeights: false });
    expect(model.getSubmodule('layer1.0')).to.be.instanceOf(SEBottleneck);
    expect(model.getSubmodule('layer4.2.se')).to.be.instanceOf(SELayer);
    const inception = se_inception_v3({ numClasses: 2, initWeights: false });
    expect(inception.getSubmodule('model.Mixed_5b.SELayer')).to.be.instanceOf(SELayer);
  });

  it('the registry describes every model truly', () => {
    for (const name of listModels()) {
      expect(isModelName(name)).to.equal(true);
      const { numClasses, options, classifier } = modelRecord(name);
      const values: Record<string, unknown> = {
        auxLogits: false,
        transformInput: true,
        recalibrate: 'input',
        reduction: 2,
        inChannels: 3,
        dropRate: 0.5,
      };
      const given = { ...values, numClasses: 3, initWeights: false };
      const all = Object.fromEntries(Object.entries(given).filter(([option]) => options.includes(option)));
      expect(Object.keys(all).sort()).to.deep.equal([...options].sort());
      createModel(name, all as ModelOptions).dispose();
      if (numClasses === null) continue;
      const [, bias] =
        createModel(name, { initWeights: false })
          .namedParameters()
          .find(([key]) => key === `${classifier}.bias`) ?? [];
      expect(bias?.shape).to.deep.equal([numClasses]);
    }
    expect(isModelName('toString')).to.equal(false);
  });

  const refused: [string, () => unknown, string, RegExp][] = [
    [
      'an option in snake case',
      () => se_resnet50(wrong({ num_classes: 3 })),
      'ERR_SENET_UNKNOWN_OPTION',
      /'numClasses'/,
    ],
    [
      'an option of another model',
      () => se_resnet18(wrong({ reduction: 4 })),
      'ERR_SENET_UNKNOWN_OPTION',
      /'reduction'/,
    ],
    ['a number for the options', () => se_resnet20(wrong(10)), 'ERR_SENET_ARG_TYPE', /options object/],
    ['no class', () => se_resnet18({ numClasses: 0 }), 'ERR_SENET_ARG_RANGE', /numClasses.*0/],
    ['half a class', () => se_resnet20({ numClasses: 1.5 }), 'ERR_SENET_ARG_RANGE', /numClasses.*1\.5/],
    ['NaN classes', () => se_resnet20({ numClasses: NaN }), 'ERR_SENET_ARG_RANGE', /numClasses/],
    ['2^40 classes', () => se_resnet20({ numClasses: 2 ** 40 }), 'ERR_SENET_ARG_RANGE', /numClasses/],
    ['classes as text', () => se_resnet20({ numClasses: wrong('10') }), 'ERR_SENET_ARG_TYPE', /numClasses/],
    ['reduction 0', () => se_resnet20({ reduction: 0 }), 'ERR_SENET_ARG_RANGE', /reduction/],
    ['reduction over the channels', () => se_resnet20({ reduction: 17 }), 'ERR_SENET_ARG_RANGE', /1 to 16/],
    [
      'initWeights as text',
      () => se_resnet20({ initWeights: wrong('no') }),
      'ERR_SENET_ARG_TYPE',
      /initWeights/,
    ],
    ['no numClasses for Inception', () => se_inception_v3(wrong({})), 'ERR_SENET_ARG_MISSING', /numClasses/],
    [
      'no options for Inception',
      () => se_inception_v3(wrong(undefined)),
      'ERR_SENET_ARG_MISSING',
      /numClasses/,
    ],
    [
      'an unknown recalibrate',
      () => se_inception_v3({ numClasses: 2, recalibrate: wrong('both') }),
      'ERR_SENET_ARG_RANGE',
      /'none', 'input' or 'output', got 'both'/,
    ],
    ['three stages', () => new SEResNet(SEBottleneck, wrong([1, 1, 1])), 'ERR_SENET_ARG_TYPE', /four/],
    [
      'an empty stage',
      () => new SEResNet(SEBottleneck, [1, 0, 1, 1]),
      'ERR_SENET_ARG_RANGE',
      /layers.*got 0/,
    ],
    [
      'a foreign block',
      () => new SEResNet(wrong(CifarSEBasicBlock), [1, 1, 1, 1]),
      'ERR_SENET_ARG_TYPE',
      /block/,
    ],
    ['an ImageNet block', () => new CifarSEResNet(wrong(SEBasicBlock), 3), 'ERR_SENET_ARG_TYPE', /block/],
    [
      'a downsample that is no module',
      () => new SEBasicBlock(16, 16, 1, wrong({})),
      'ERR_SENET_ARG_TYPE',
      /downsample/,
    ],
    ['stride 0', () => new CifarSEBasicBlock(8, 8, 0, 1), 'ERR_SENET_ARG_RANGE', /stride/],
    [
      'a misspelt model',
      () => createModel(wrong('se_resnet-50')),
      'ERR_SENET_UNKNOWN_MODEL',
      /did you mean 'se_resnet50'/,
    ],
    ['an inherited name', () => createModel(wrong('constructor')), 'ERR_SENET_UNKNOWN_MODEL', /constructor/],
    ['no model name', () => createModel(wrong(undefined)), 'ERR_SENET_ARG_TYPE', /name/],
  ];
  for (const [what, run, code, message] of refused) {
    it(`refuses ${what}`, async () => {
      const error = await failure(run);
      expect(error.code).to.equal(code);
      expect(error.message).to.match(message);
    });
  }

  describe('input', () => {
    const model = se_resnet20({ initWeights: false }).eval();
    const inception = se_inception_v3({ numClasses: 2, initWeights: false }).eval();
    const cases: [string, Module<unknown>, () => Tensor, string, RegExp][] = [
      [
        'an image without a batch',
        model,
        () => rand([3, 32, 32]),
        'ERR_SENET_SHAPE',
        /\[N, 3, H, W\].*\[3, 32, 32\]/,
      ],
      ['grey images', model, () => rand([2, 1, 32, 32]), 'ERR_SENET_SHAPE', /\[2, 1, 32, 32\]/],
      ['an empty batch', model, () => empty([0, 3, 32, 32]), 'ERR_SENET_SHAPE', /\[0, 3, 32, 32\]/],
      ['images without height', model, () => empty([1, 3, 0, 32]), 'ERR_SENET_SHAPE', /\[1, 3, 0, 32\]/],
      [
        'float64',
        model,
        () => zeros([1, 3, 32, 32], { dtype: 'float64' }),
        'ERR_SENET_DTYPE',
        /float32.*float64/,
      ],
      ['bytes', model, () => ones([1, 3, 32, 32], { dtype: 'uint8' }), 'ERR_SENET_DTYPE', /float32.*uint8/],
      [
        '298 x 298 for Inception',
        inception,
        () => rand([1, 3, 298, 298]),
        'ERR_SENET_SHAPE',
        /input size must be \(299, 299\)/,
      ],
      [
        'too few channels for a block',
        model.getSubmodule('layer2.0'),
        () => rand([1, 8, 4, 4]),
        'ERR_SENET_SHAPE',
        /16/,
      ],
      [
        'less than the kernel',
        inception.getSubmodule('model.Conv2d_1a_3x3'),
        () => rand([1, 3, 2, 9]),
        'ERR_SENET_SHAPE',
        /kernel/,
      ],
      ['a vector of another length', model.getSubmodule('fc'), () => rand([2, 63]), 'ERR_SENET_SHAPE', /64/],
    ];
    for (const [what, module, input, code, message] of cases) {
      it(`refuses ${what}`, async () => {
        const error = await failure(() => module.forward(input()));
        expect(error.code).to.equal(code);
        expect(error.message).to.match(message);
      });
    }

    it('refuses one value per channel in training mode, as PyTorch does', async () => {
      const error = await failure(() => se_resnet18({ numClasses: 2 }).forward(rand([1, 3, 32, 32])));
      expect(error.code).to.equal('ERR_SENET_SHAPE');
      expect(error.message).to.match(/more than 1 value per channel/);
    });

    it('any part of a model runs by itself', async () => {
      expect(
        ((await model.getSubmodule('layer3').forward(rand([2, 32, 4, 4]))) as Tensor).shape,
      ).to.deep.equal([2, 64, 2, 2]);
      expect(
        ((await model.getSubmodule('layer1.0.se.fc').forward(rand([2, 16]))) as Tensor).shape,
      ).to.deep.equal([2, 16]);
      expect(
        ((await model.getSubmodule('avgpool').forward(rand([2, 4, 6, 6]))) as Tensor).shape,
      ).to.deep.equal([2, 4, 1, 1]);
    });
  });
});
