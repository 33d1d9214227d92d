/**
 * Into every place of every model whatever the place takes: the compiled copy gives what `forward` gives, or says that
 * it cannot, and training in channels-last order, where several layers are one step, gives what the layers give. The
 * places come from the registry's models, so that a new block is tested by existing.
 */
import { expect } from 'chai';

import {
  AdaptiveAvgPool2d,
  AvgPool2d,
  BatchNorm2d,
  CifarSEBasicBlock,
  configure,
  Conv1d,
  Conv2d,
  createModel,
  Dropout,
  EcaModule,
  Flatten,
  Identity,
  isSenetError,
  Linear,
  manualSeed,
  MaxPool2d,
  Module,
  ops,
  randn,
  ReLU,
  SEBasicBlock,
  SEBottleneck,
  SELayer,
  SEModule,
  Sequential,
  Sigmoid,
  tidy,
  type ModelName,
  type Tensor,
} from '../../lib';
import { modelRecord } from '../../lib/models/registry';
import { binding } from '../../lib/native';
import { LIGHT_MODELS } from '../support/models';
import { perturbBatchNorms } from '../support/parity';

type Width = readonly [number, number];
type Candidates = Readonly<Record<string, (old: Module<unknown>, width: Width) => Module<unknown>>>;

function sequence(...layers: Module<unknown>[]): Sequential {
  return new Sequential(...layers);
}

function hiddenOf(channels: number): number {
  return Math.max(channels >> 2, 1);
}

/** `fc` of an SELayer of `c` channels. */
const FCS: Candidates = {
  'the same': (_, [c]) =>
    sequence(new Linear(c, 3, { bias: false }), new ReLU(), new Linear(3, c, { bias: false }), new Sigmoid()),
  biases: (_, [c]) =>
    sequence(new Linear(c, 3), new ReLU({ inplace: true }), new Linear(3, c), new Sigmoid()),
  'one bias': (_, [c]) =>
    sequence(new Linear(c, 3, { bias: false }), new ReLU(), new Linear(3, c), new Sigmoid()),
  'the other order': (_, [c]) =>
    sequence(new Linear(c, 4, { bias: false }), new Sigmoid(), new Linear(4, c, { bias: false }), new ReLU()),
  'two sigmoids': (_, [c]) => sequence(new Linear(c, 4), new Sigmoid(), new Linear(4, c), new Sigmoid()),
  'no ReLU': (_, [c]) => sequence(new Linear(c, 4), new Identity(), new Linear(4, c), new Sigmoid()),
  'no sigmoid': (_, [c]) => sequence(new Linear(c, 4), new ReLU(), new Linear(4, c)),
  'one layer': (_, [c]) => sequence(new Linear(c, c, { bias: false })),
  'five layers': (_, [c]) =>
    sequence(
      new Linear(c, 4, { bias: false }),
      new ReLU(),
      new Linear(4, c, { bias: false }),
      new Sigmoid(),
      new Linear(c, c, { bias: false }),
    ),
  'a dropout': (_, [c]) =>
    sequence(new Linear(c, 4), new ReLU(), new Dropout(0), new Linear(4, c), new Sigmoid()),
  nested: (_, [c]) =>
    sequence(sequence(new Linear(c, 4, { bias: false }), new ReLU()), new Linear(4, c), new Sigmoid()),
  'one gate for all': (_, [c]) => sequence(new Linear(c, 1), new Sigmoid(), new Flatten()),
  'a sigmoid alone': () => sequence(new Sigmoid()),
  nothing: () => sequence(),
  'layers that do not fit': (_, [c]) =>
    sequence(new Linear(c, 4), new ReLU(), new Linear(5, c), new Sigmoid()),
  'too many outputs': (_, [c]) =>
    sequence(new Linear(c, 4), new ReLU(), new Linear(4, c + 1), new Sigmoid(), new Flatten()),
};

/** A stage or the way of a residual. */
const CHAINS: Candidates = {
  'convolution, BatchNorm': (_, [a, b]) => sequence(new Conv2d(a, b, 1, { bias: false }), new BatchNorm2d(b)),
  'with a stride and a bias': (_, [a, b]) => sequence(new Conv2d(a, b, 1, { stride: 2 }), new BatchNorm2d(b)),
  'BatchNorm first': (_, [a, b]) => sequence(new BatchNorm2d(a), new ReLU(), new Conv2d(a, b, 1)),
  'BatchNorm first, stride': (_, [a, b]) => sequence(new BatchNorm2d(a), new Conv2d(a, b, 1, { stride: 2 })),
  'ReLU in place first': (_, [a, b]) =>
    sequence(new Identity(), sequence(new ReLU({ inplace: true })), new Conv2d(a, b, 1, { stride: 2 })),
  'ReLU in place first, no stride': (_, [a, b]) =>
    sequence(new Dropout(0), new ReLU({ inplace: true }), new Conv2d(a, b, 1)),
  'ReLU in place last': (_, [a, b]) => sequence(new Conv2d(a, b, 1), new ReLU({ inplace: true })),
  'average pool': (_, [a, b]) => sequence(new AvgPool2d(2), new Conv2d(a, b, 1), new BatchNorm2d(b)),
  'maximum pool': (_, [a, b]) =>
    sequence(new MaxPool2d(3, { stride: 2, padding: 1 }), new Conv2d(a, b, 1), new Dropout(0)),
  'a pool behind negative numbers': (_, [a, b]) =>
    sequence(new Conv2d(a, b, 1), new MaxPool2d(3, { stride: 1, padding: 1 })),
  sigmoid: (_, [a, b]) => sequence(new Conv2d(a, b, 1), new Sigmoid()),
  'an SELayer': (_, [a, b]) => sequence(new Conv2d(a, b, 3, { padding: 1 }), new SELayer(b, 4)),
  'a basic block': (_, [a, b]) =>
    sequence(new SEBasicBlock(a, b, 2, sequence(new Conv2d(a, b, 1, { stride: 2 }), new BatchNorm2d(b)))),
  'a block whose downsample is a convolution': (_, [a, b]) =>
    sequence(new SEBasicBlock(a, b, 1, new Conv2d(a, b, 1))),
  'a bottleneck': (_, [a, b]) =>
    sequence(new SEBottleneck(a, b / 4, 1, new Conv2d(a, b, 1), 1, 64, 1, null, { reduction: 4 })),
  'a CIFAR block': (_, [a, b]) => sequence(new CifarSEBasicBlock(a, b, 2, 4)),
  'a CIFAR block without a downsample': (_, [a, b]) =>
    sequence(new Conv2d(a, b, 1), new CifarSEBasicBlock(b, b, 2, 4)),
  'a mean': (_, [a, b]) => sequence(new Conv2d(a, b, 1), new AdaptiveAvgPool2d(1)),
  'two means': (_, [a, b]) =>
    sequence(new Conv2d(a, b, 1), new AdaptiveAvgPool2d(1), new AdaptiveAvgPool2d(1)),
  'a mean in front': (_, [a, b]) => sequence(new AdaptiveAvgPool2d(1), new Conv2d(a, b, 1)),
  'a vector': (_, [a, b]) => sequence(new Conv2d(a, b, 1), new AdaptiveAvgPool2d(1), new Flatten()),
  'logits too early': (_, [a, b]) => sequence(new AdaptiveAvgPool2d(1), new Flatten(), new Linear(a, b)),
  'other means': (_, [a, b]) => sequence(new AdaptiveAvgPool2d([3, 2]), new Conv2d(a, b, 1)),
  'one channel': (_, [a]) => sequence(new Conv2d(a, 1, 1), new Flatten(3)),
  'layers that do not fit': (_, [a, b]) => sequence(new Conv2d(a, b + 1, 1), new BatchNorm2d(b)),
  nothing: () => sequence(),
};

/** What stands in for a child, by its class; null where nobody can make another one. */
const REPLACEMENTS: Readonly<Record<string, Candidates | null>> = {
  Conv2d: {
    '1 x 1': (_, [a, b]) => new Conv2d(a, b, 1, { bias: false }),
    '1 x 1, bias': (_, [a, b]) => new Conv2d(a, b, 1),
    '1 x 1, stride': (_, [a, b]) => new Conv2d(a, b, 1, { stride: 2 }),
    '3 x 3, bias': (_, [a, b]) => new Conv2d(a, b, 3, { padding: 1 }),
    '3 x 3, stride': (_, [a, b]) => new Conv2d(a, b, 3, { padding: 1, stride: 2, bias: false }),
    '3 x 3, stride, no padding': (_, [a, b]) => new Conv2d(a, b, 3, { stride: 2 }),
    '1 x 3': (_, [a, b]) => new Conv2d(a, b, [1, 3], { padding: [0, 1], bias: false }),
    '5 x 5': (_, [a, b]) => new Conv2d(a, b, 5, { padding: 2, stride: [1, 2] }),
    dilated: (_, [a, b]) => new Conv2d(a, b, 3, { padding: 2, dilation: 2 }),
    grouped: (_, [a, b]) => new Conv2d(a, b, 3, { padding: 1, groups: a % 2 === 0 && b % 2 === 0 ? 2 : 1 }),
    'padded 1 x 1': (_, [a, b]) => new Conv2d(a, b, 1, { padding: 1 }),
    'larger than the image': (_, [a, b]) => new Conv2d(a, b, [100, 1]),
  },
  BatchNorm2d: {
    'another eps': (_, [a]) => new BatchNorm2d(a, { eps: 0.5 }),
    'another momentum': (_, [a]) => new BatchNorm2d(a, { momentum: 0.7 }),
    'the average of all batches': (_, [a]) => new BatchNorm2d(a, { momentum: null }),
    frozen: (_, [a]) => {
      const bn = new BatchNorm2d(a);
      for (const parameter of bn.parameters()) parameter.requiresGrad = false;
      return bn;
    },
  },
  ReLU: { 'in place': () => new ReLU({ inplace: true }), 'not in place': () => new ReLU() },
  Sigmoid: { another: () => new Sigmoid() },
  Dropout: { none: () => new Dropout(0) },
  MaxPool2d: {
    'a window of 1': () => new MaxPool2d(1),
    'a window of 2': () => new MaxPool2d(2),
    'a window of 5': () => new MaxPool2d(5, { stride: 1, padding: 2 }),
    'larger than the image': () => new MaxPool2d(100),
  },
  AdaptiveAvgPool2d: {
    'the same': () => new AdaptiveAvgPool2d(1),
    'a larger output': () => new AdaptiveAvgPool2d(2),
    'two sizes': () => new AdaptiveAvgPool2d([1, 2]),
  },
  Linear: {
    bias: (_, [a, b]) => new Linear(a, b),
    'no bias': (_, [a, b]) => new Linear(a, b, { bias: false }),
  },
  Sequential: { ...CHAINS },
  SELayer: {
    'another reduction': (_, [a]) => new SELayer(a, 2),
    biases: (_, [a]) => {
      const layer = new SELayer(a, hiddenOf(a));
      layer.fc = sequence(new Linear(a, 2), new ReLU(), new Linear(2, a), new Sigmoid());
      return layer;
    },
    'the other order': (_, [a]) => {
      const layer = new SELayer(a, hiddenOf(a));
      layer.fc = sequence(new Linear(a, 2), new Sigmoid(), new Linear(2, a), new ReLU());
      return layer;
    },
  },
  SEBasicBlock: {
    'with a stride': (_, [a, b]) => new SEBasicBlock(a, b, 2, new Conv2d(a, b, 1, { stride: 2 })),
    'whose residual keeps its size': (_, [a, b]) => new SEBasicBlock(a, b, 2, new Conv2d(a, b, 1)),
  },
  SEBottleneck: {
    'with a pool': (_, [a, b]) =>
      new SEBottleneck(a, b / 4, 2, sequence(new AvgPool2d(2), new Conv2d(a, b, 1))),
    'with an identity': (_, [a, b]) =>
      new SEBottleneck(a, b / 4, 1, a === b ? new Identity() : new Conv2d(a, b, 1)),
  },
  CifarSEBasicBlock: {
    'with another reduction': (_, [a, b]) => new CifarSEBasicBlock(a, b, 1, 2),
    'with a stride': (_, [a, b]) => new CifarSEBasicBlock(a, b, 2, 2),
  },
  AvgPool2d: {
    'a window of 1': () => new AvgPool2d(1),
    'a window of 2': () => new AvgPool2d(2),
    'in ceil mode': () => new AvgPool2d(2, { stride: 2, ceilMode: true, countIncludePad: false }),
    'larger than the image': () => new AvgPool2d(100),
  },
  Identity: { another: () => new Identity() },
  Conv1d: {
    'a smaller kernel': () => new Conv1d(1, 1, 3, { padding: 1, bias: false }),
    'a bias': () => new Conv1d(1, 1, 3, { padding: 1 }),
    'no padding': () => new Conv1d(1, 1, 3, { bias: false }),
  },
  SEModule: {
    'another width': (_, [a]) => new SEModule(a, { rdChannels: 3 }),
    'no biases': (_, [a]) => new SEModule(a, { bias: false }),
  },
  EcaModule: { 'another kernel': () => new EcaModule(null, { kernelSize: 9 }) },
  BasicBlock: null,
  Bottleneck: null,
  LegacySEBlock: null,
  SEResUnit: null,
  SEPreResUnit: null,
  PreResBody: null,
  PreConvBlock: null,
  SEBlock: null,
  BasicConv2d: null,
  Inception3: null,
  InceptionA: null,
  InceptionB: null,
  InceptionC: null,
  InceptionD: null,
  InceptionE: null,
  InceptionAux: null,
};

/** Modules that have no replaceable child but through these are no places of their own: they are tested where they stand. */
const HELPERS = new Set([
  ...['Sequential', 'SELayer', 'SEModule', 'EcaModule', 'BasicConv2d'],
  ...['SEBlock', 'PreResBody', 'PreConvBlock'],
]);

interface Subject {
  readonly model: Module<unknown>;
  /** Of the part that is run. */
  readonly path: string;
  readonly part: Module;
  readonly input: readonly number[];
  readonly places: readonly string[];
}

const typeOf = (module: Module<unknown>): string => Module.typeOf(module);

/** A part's class with its children's: two that are equal have the same places. */
function kindOf(module: Module<unknown>): string {
  const children = module.namedChildren().map(([name, child]) => `${name}: ${typeOf(child)}`);
  return typeOf(module) === 'Sequential' ? 'Sequential' : `${typeOf(module)}(${children.join(', ')})`;
}

/** The paths from `module` to all its descendants that are no part of a block inside it. */
function placesOf(module: Module<unknown>, path = ''): string[] {
  return module.namedChildren().flatMap(([name, child]) => {
    const place = path === '' ? name : `${path}.${name}`;
    return [place, ...(HELPERS.has(typeOf(child)) ? placesOf(child, place) : [])];
  });
}

/** The kinds of parts and of places that were tested. */
const seen = new Set<string>();

/** Places that differ in nothing but their number are one, and so are those of all Inception blocks. */
function distinct(module: Module<unknown>, places: readonly string[]): string[] {
  const part = typeOf(module).replace(/^Inception([A-E]|Aux)$/, 'an Inception block');
  return places.filter((place) => {
    const names = place.split('.');
    const child = module.getSubmodule(place);
    const kernel = child instanceof Conv2d ? child.weight.shape.slice(2).join('x') : '';
    const parent = typeOf(module.getSubmodule(names.slice(0, -1).join('.')));
    const pooled = place.startsWith('branch_pool') ? 'pooled' : '';
    const key = [
      part,
      parent,
      parent === 'BasicConv2d' ? pooled : names[0]?.replace(/^layer\d/, 'layer'),
      names.at(-1)?.replace(/^layer\d/, 'layer'),
      kernel,
    ].join(' ');
    return seen.size < seen.add(key).size;
  });
}

function drawWeights(module: Module<unknown>): void {
  for (const [name, parameter] of module.namedParameters()) {
    const [, ...fan] = parameter.shape;
    const inputs = fan.reduce((product, size) => product * size, 1);
    if (fan.length > 0) ops.call('aten::normal_', parameter.detach(), 0, Math.sqrt(1.5 / inputs));
    else if (name.endsWith('weight')) ops.call('aten::uniform_', parameter.detach(), 0.5, 1.5);
    else ops.call('aten::normal_', parameter.detach(), 0, 0.2);
  }
  perturbBatchNorms(module, [0.5, 1.5]);
}

/** Makes the stages after the first one convolution each: the places stay, and a test takes milliseconds. */
function shrink(part: Module<unknown>): void {
  for (const [name, stage] of part.namedModules()) {
    if (!/(^|\.)(layer|stage)[2-9]$/.test(name)) continue;
    part.replaceModule(name, sequence(new Conv2d(...Module.widthOf(stage), 1, { stride: 2 }))).dispose();
  }
}

/** An image that suits a part. */
function inputOf(part: Module, isModel: boolean, size: number): number[] {
  const channels = Module.widthOf(part)[0];
  // Inception's blocks are wide and are not trained here; the auxiliary head takes no less than this.
  // timm's blocks whose stride is a pool take even sizes only, there too.
  if (typeOf(part) === 'Bottleneck') return [2, channels, 6, 8];
  if (!isModel) return typeOf(part).startsWith('Inception') ? [1, channels, 17, 17] : [2, channels, 7, 8];
  return size > 250 ? [1, channels, 79, 80] : size > 100 ? [2, channels, 40, 41] : [2, channels, 12, 13];
}

/** The parts of a model of a kind that no model before had. */
function subjectsOf(name: ModelName): Subject[] {
  const { options, anyInputSize, inputSize } = modelRecord(name);
  const make = (): Module<unknown> =>
    createModel(name, {
      numClasses: 3,
      initWeights: false,
      ...(options.includes('recalibrate') ? { recalibrate: 'output' } : {}),
      ...(options.includes('dropRate') ? { dropRate: 0 } : {}),
    } as const);
  const whole = make();
  return whole.namedModules().flatMap(([path, found]): Subject[] => {
    const kind = kindOf(found);
    if (found.namedChildren().length === 0 || HELPERS.has(typeOf(found)) || seen.has(kind)) return [];
    seen.add(kind);
    // One size of image alone is a large one; what it holds is tested by itself.
    if (!anyInputSize && path === '') return [];
    const ends = ['avgpool', 'global_pool', 'output'];
    const isModel = found.namedChildren().some(([child]) => ends.includes(child));
    const model = isModel ? make() : whole;
    const part = model.getSubmodule(path) as Module;
    if (isModel) shrink(part);
    const input = inputOf(part, isModel, inputSize);
    return [{ model, path, part, input, places: distinct(part, placesOf(part)) }];
  });
}

interface Outcome {
  readonly code?: string;
  readonly output?: Tensor;
}

/** What came, or the code of the error. */
async function outcomeOf(run: () => Promise<Tensor>): Promise<Outcome> {
  try {
    return { output: (await run()).detach() };
  } catch (error) {
    if (!isSenetError(error)) throw error;
    return { code: error.code };
  }
}

function distance(actual: Tensor, expected: Tensor): number {
  expect(actual.shape).to.deep.equal(expected.shape);
  const norm = (one: Tensor): number => Number(one.mul(one).sum().item());
  return Math.sqrt(norm(actual.sub(expected)) / norm(expected));
}

/** Whether it compiles and runs. */
async function expectCompiledAsForward(part: Module, x: Tensor, what: string): Promise<boolean> {
  part.eval();
  // A ReLU in place may change what it is given.
  const eager = await outcomeOf(() => part.forward(x.clone()));
  const compiled = await outcomeOf(async () => {
    const model = await part.compile();
    try {
      return await model.forward(x);
    } finally {
      model.dispose();
    }
  });
  if (compiled.code !== undefined) {
    expect(compiled.code, what).to.be.oneOf(['ERR_SENET_COMPILE', 'ERR_SENET_SHAPE']);
    return false;
  }
  expect(eager.code, `${what}: forward alone fails`).to.equal(undefined);
  expect(distance(compiled.output as Tensor, eager.output as Tensor), what).to.be.below(1e-5);
  return true;
}

/** Output, gradients and running statistics of a step, all numbers in a row. */
async function learn(part: Module, x: Tensor): Promise<Tensor> {
  part.zeroGrad();
  const watched = x.detach();
  watched.requiresGrad = true;
  // A leaf that needs a gradient cannot be changed in place.
  const y = await part.forward(watched.mul(1));
  manualSeed(9);
  await y.mul(randn(y.shape)).sum().backward();
  const gradients = [watched, ...part.parameters()].flatMap(({ grad }) => (grad === null ? [] : [grad]));
  const all = [y.detach(), ...gradients, ...part.namedBuffers().map(([, buffer]) => buffer)];
  return ops.call(
    'aten::cat',
    all.map((one) => one.contiguous().to('float32').reshape([-1])),
  ) as Tensor;
}

async function expectLayoutsAlike(part: Module, x: Tensor, what: string): Promise<void> {
  const state = new Map([...part.stateDict()].map(([name, value]) => [name, value.clone()]));
  const learnt: Outcome[] = [];
  for (const memoryFormat of ['contiguous', 'channels_last'] as const) {
    part.loadStateDict(state);
    learnt.push(await outcomeOf(() => learn(part, x.to({ memoryFormat }))));
  }
  part.loadStateDict(state);
  part.zeroGrad();
  const [layers, fused] = learnt as [Outcome, Outcome];
  expect(fused.code, what).to.equal(layers.code);
  if (layers.code === undefined)
    expect(distance(fused.output as Tensor, layers.output as Tensor), what).to.be.below(1e-3);
}

/** Runs both comparisons with each candidate in one place; how many compiled there. */
async function replaceWithEach(subject: Subject, place: string): Promise<number> {
  const { model, path, part, input } = subject;
  const full = path === '' ? place : `${path}.${place}`;
  const old = model.getSubmodule(full);
  const isFc = place.split('.').at(-1) === 'fc' && typeOf(old) === 'Sequential';
  const candidates = isFc ? FCS : REPLACEMENTS[typeOf(old)];
  expect(candidates, `${full}: nothing to put in the place of a ${typeOf(old)}`).not.to.equal(undefined);
  let compiled = 0;
  for (const [what, make] of Object.entries(candidates ?? {})) {
    const said = `${typeOf(part)}: '${full}' replaced: ${what}`;
    let replacement: Module<unknown>;
    try {
      replacement = make(old, Module.widthOf(old));
      model.replaceModule(full, replacement);
    } catch (error) {
      if (isSenetError(error) && ['ERR_SENET_SHAPE', 'ERR_SENET_ARG_RANGE'].includes(error.code)) continue;
      throw error;
    }
    await tidy(async () => {
      manualSeed(7);
      perturbBatchNorms(replacement, [0.5, 1.5]);
      const x = randn(input);
      compiled += (await expectCompiledAsForward(part, x, said)) ? 1 : 0;
      // Inception's layers are BasicConv2d's; timm's stems in front of a whole network multiply what float32 rounds.
      if (/^(Inception|ResNet$|SENet$|Pytorchcv)/.test(typeOf(part))) return;
      part.train();
      await expectLayoutsAlike(part, x, said);
      if (replacement.namedBuffers().length === 0) return;
      replacement.eval();
      await expectLayoutsAlike(part, x, `${said}, in evaluation mode`);
    });
    model.replaceModule(full, old);
    replacement.dispose();
  }
  return compiled;
}

describe('parity: replaced children', function () {
  this.timeout(120_000);
  const { workers, threadsPerWorker } = binding.configuration();
  before(() => configure({ workers: 1, threadsPerWorker: 1 }));
  after(() => configure({ workers, threadsPerWorker }));

  for (const name of LIGHT_MODELS) {
    it(name, async () => {
      for (const subject of subjectsOf(name)) {
        manualSeed(3);
        drawWeights(subject.part);
        for (const place of subject.places) {
          const compiled = await replaceWithEach(subject, place);
          const child = subject.part.getSubmodule(place);
          const isFixed = typeOf(child) in REPLACEMENTS && REPLACEMENTS[typeOf(child)] === null;
          expect(compiled > 0 || isFixed, `${typeOf(subject.part)}: '${place}': nothing compiles`).to.equal(
            true,
          );
        }
      }
    });
  }
});
