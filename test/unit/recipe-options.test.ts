/** The rows of a recipe's options: each is typed, checked, resumed and reported by what it says of itself. */
import { expect } from 'chai';
import { Command } from 'commander';

import { addTrainingOptions, typedOptions } from '../../lib/cli/training-options';
import {
  checkRecipe,
  checkSameOptions,
  checkTrainingOptions,
  settingRows,
  withDefaults,
} from '../../lib/train/recipe/option-checks';
import { OPTION_ROWS, type OptionName } from '../../lib/train/recipe/options';
import type { TrainingOptions, TrainingSettings } from '../../lib/train/recipe/settings';
import { flag as FLAG } from '../../lib/train/recipe/value-kinds';
import { expectThrow } from '../support/errors';

const NAMES = Object.keys(OPTION_ROWS) as OptionName[];
const LIBRARY = NAMES.filter((name) => OPTION_ROWS[name].commandLineOnly === undefined);

/** A value that the option takes, as typed. */
const TYPED: Partial<Record<OptionName, string>> = {
  augment: 'flip,erase',
  mean: '0.5,0.4,0.3',
  std: '0.2',
  validation: '0.25',
  dataset: 'cifar10',
  optimizer: 'adamw',
  schedule: 'step',
  precision: 'bfloat16',
  inChannels: '1',
  freeze: 'conv1, bn1',
  fold: '2/5',
  lrScale: 'fc=2, layer1=0.5',
};
const READ: Partial<Record<OptionName, unknown>> = {
  augment: ['flip', 'erase'],
  mean: [0.5, 0.4, 0.3],
  std: [0.2],
  validation: 0.25,
  freeze: ['conv1', 'bn1'],
  also: ['some'],
  lrScale: { fc: 2, layer1: 0.5 },
};

function parse(kind: 'train' | 'finetune', args: readonly string[]): TrainingOptions {
  const command = new Command('test').exitOverride().configureOutput({ writeErr: () => undefined });
  addTrainingOptions(command, kind).parse(args, { from: 'user' });
  return typedOptions(command, kind, undefined);
}

const flagOf = (name: OptionName): string =>
  (/--[\w-]+/.exec(OPTION_ROWS[name].flags) as string[])[0] as string;
const recipeOf = (name: OptionName): 'train' | 'finetune' => OPTION_ROWS[name].only ?? 'train';

describe('the options of a recipe', () => {
  const facts = { command: 'train', smallSize: 28, model: { inputSize: 32, anyInputSize: true } } as const;
  const settings = (given: TrainingOptions = {}): TrainingSettings => ({
    ...withDefaults(given, facts),
    ...{ command: 'train', data: '/data/photos', dataset: 'folder', labels: null, validation: 0.1 },
    ...{ mean: [0.5], std: [0.5], model: 'se_resnet20', modelOptions: { reduction: 4 }, weights: null },
    ...{ freeze: [], classes: ['a', 'b'], threads: 1 },
  });

  it('typed text becomes the value of the option of that name', () => {
    for (const name of NAMES) {
      const { kind } = OPTION_ROWS[name];
      const flag = flagOf(name);
      const isNumber = kind.read?.('1') === 1;
      const text = TYPED[name] ?? kind.choices?.[0] ?? (isNumber ? '1' : 'some');
      const args = kind === FLAG ? [flag] : [flag, text];
      const value = kind === FLAG ? !flag.startsWith('--no-') : isNumber ? 1 : text;
      expect(parse(recipeOf(name), args), name).to.deep.equal({
        command: recipeOf(name),
        [name]: READ[name] ?? value,
      });
    }
    expect(parse('train', [])).to.deep.equal({ command: 'train' });
    expect(parse('train', ['--no-nesterov', '--validation', 'none', '--augment', 'none'])).to.deep.equal({
      ...{ command: 'train', nesterov: false, validation: null, augment: [] },
    });
  });

  it('a wrong value is said as of any other function', () => {
    expectThrow(
      () => checkTrainingOptions({ epochs: 0 }, 'here'),
      'ERR_SENET_ARG_RANGE',
      /^here: epochs: expected an integer at least 1, got 0$/,
    );
    expectThrow(
      () => checkTrainingOptions({ optimizer: 'adam' as 'sgd' }, 'here'),
      'ERR_SENET_ARG_RANGE',
      /^here: optimizer: expected one of 'sgd', 'adamw', got 'adam'$/,
    );
  });

  it('a wrong value names the flag where it was typed, and the option in the library', () => {
    for (const name of LIBRARY) {
      const { kind, late } = OPTION_ROWS[name];
      const isOfFew = kind.choices !== undefined || name === 'inChannels';
      expectThrow(
        () => checkTrainingOptions({ [name]: name === 'lrScale' ? [] : {} }, 'here'),
        isOfFew ? 'ERR_SENET_ARG_RANGE' : 'ERR_SENET_ARG_TYPE',
        new RegExp(`^here: ${name}: expected `),
      );
      if ((kind.read === undefined && kind.choices === undefined) || late === true || name === 'freeze')
        continue;
      const flag = flagOf(name);
      expect(() => parse(recipeOf(name), [flag, 'wrong']), name).to.throw(new RegExp(`'.*${flag} .*'wrong'`));
    }
    for (const [name, value] of [
      ...([
        ['epochs', 0],
        ['epochs', 1.5],
        ['seed', -1],
        ['mixup', 0],
        ['ema', 1.1],
        ['lr', NaN],
      ] as const),
      ...([
        ['optimizer', 'adam'],
        ['inChannels', 2],
        ['validation', 1.5],
        ['mean', [1, 2]],
      ] as const),
      ...([
        ['augment', ['rotate']],
        ['warmup', -0.1],
        ['clipGradNorm', 0],
      ] as const),
    ] as const) {
      const given = { [name]: value };
      expectThrow(
        () => checkTrainingOptions(given, 'here'),
        'ERR_SENET_ARG_RANGE',
        new RegExp(`^here: ${name}: expected `),
      );
    }
    expectThrow(
      () => checkTrainingOptions({ learningrate: 1, batch_size: 3 } as never, 'here'),
      'ERR_SENET_UNKNOWN_OPTION',
    );
    expectThrow(
      () => checkTrainingOptions({ batch_size: 3 } as never, 'here'),
      'ERR_SENET_UNKNOWN_OPTION',
      /did you mean 'batchSize'/,
    );
    expectThrow(
      () => checkRecipe({ weights: 'a.pt' }, 'train', 'here'),
      'ERR_SENET_UNKNOWN_OPTION',
      /^here: weights: an option of finetune/,
    );
  });

  it('null is as left out where not is the default', () => {
    checkTrainingOptions({ mixup: null, ema: null, limit: null, labels: null, validation: null }, 'here');
    expectThrow(() => checkTrainingOptions({ lr: null } as never, 'here'), 'ERR_SENET_ARG_TYPE', /here: lr/);
  });

  it('the whole record of a run may be given again, and a run that goes on has it', () => {
    const { command, data, modelOptions, classes, threads, ...own } = settings();
    expect([command, data, modelOptions, classes, threads]).to.have.lengthOf(5);
    checkTrainingOptions(own, 'here');
    checkSameOptions(own, settings(), 'here');
    checkSameOptions(
      { reduction: 4, inChannels: 3, weights: 'imagenet' },
      {
        ...settings(),
        weights: 'imagenet',
      },
      'here',
    );
  });

  it('what changes the numbers of a run may not change when it goes on', () => {
    const others: TrainingOptions = {
      ...{ model: 'se_resnet32', reduction: 8, inChannels: 1, weights: 'other.pt', freeze: ['conv1'] },
      ...{ dataset: 'idx', set: 'letters', splits: false, labels: 'names.txt', validation: 0.2, limit: 5 },
      ...{ imageSize: 64, mean: [0.1], std: [0.1], augment: [], mixup: 0.2, skipCorrupt: true, epochs: 3 },
      ...{ batchSize: 5, dropLast: true, optimizer: 'adamw', lr: 0.5, momentum: 0.5, nesterov: false },
      ...{ weightDecay: 0.5, schedule: 'step', warmup: 0.5, minLr: 0.5, stepSize: 9, gamma: 0.5, seed: 9 },
      ...{ labelSmoothing: 0.5, clipGradNorm: 0.5, ema: 0.5, precision: 'bfloat16' },
      ...{ balance: 'sampler', accumulate: 2, patience: 3, syncBatchNorm: true },
      ...{ also: ['more'], fold: '1/5', lrScale: { fc: 2 } },
    };
    const bound = LIBRARY.filter((name) => OPTION_ROWS[name].free === undefined);
    expect(Object.keys(others)).to.have.members(bound);
    for (const [name, value] of Object.entries(others) as [string, unknown][])
      expectThrow(
        () => checkSameOptions({ [name]: value }, settings(), 'here'),
        'ERR_SENET_RESUME',
        new RegExp(`started with \\{ ${name}: .* \\}, not `),
      );
  });

  it('the report shows each, by itself or beside another', () => {
    const rows = (given: TrainingOptions): string =>
      JSON.stringify(settingRows(settings(given), { training: 1, validation: 1 }));
    for (const given of [
      ...[
        { imageSize: 64 },
        { mixup: 0.2 },
        { augment: [] },
        { epochs: 3 },
        { batchSize: 5 },
        { dropLast: true },
      ],
      ...[{ optimizer: 'adamw' }, { lr: 0.5 }, { momentum: 0.5 }, { nesterov: false }, { weightDecay: 0.5 }],
      ...[{ schedule: 'none' }, { warmup: 0.5 }, { labelSmoothing: 0.5 }, { clipGradNorm: 5 }, { ema: 0.5 }],
      ...[{ precision: 'bfloat16' }, { seed: 9 }],
      ...[{ balance: 'weights' }, { accumulate: 2 }, { patience: 3 }],
      ...[{ also: ['more'] }, { fold: '1/5' }, { lrScale: { fc: 2 } }],
    ] as TrainingOptions[])
      expect(rows(given), JSON.stringify(given)).not.to.equal(rows({}));
    const step: TrainingOptions = { schedule: 'step' };
    for (const given of [{ stepSize: 9 }, { gamma: 0.5 }])
      expect(rows({ ...step, ...given })).not.to.equal(rows(step));
    expect(rows({ schedule: 'cosine', minLr: 0.5 })).not.to.equal(rows({ schedule: 'cosine' }));
  });
});
