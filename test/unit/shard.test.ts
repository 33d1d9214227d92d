/** Parts of a list, as people type them and as schedulers give them. */
import { expect } from 'chai';

import { checkShard } from '../../lib/bulk/shard';
import { shardOption } from '../../lib/cli/shard-option';
import type { ErrorCode } from '../../lib';
import { expectThrow } from '../support/errors';

describe('--shard', () => {
  const kubernetes = (index: string): Record<string, string> => ({ JOB_COMPLETION_INDEX: index });
  const slurm = (task: string, first?: string, step?: string): Record<string, string> => ({
    SLURM_ARRAY_TASK_ID: task,
    ...(first === undefined ? {} : { SLURM_ARRAY_TASK_MIN: first }),
    ...(step === undefined ? {} : { SLURM_ARRAY_TASK_STEP: step }),
  });

  it('is a part that is typed, or the one that a scheduler gave', () => {
    for (const [typed, environment, number] of [
      ['3/8', {}, 3],
      ['8/8', {}, 8],
      ['1/1', {}, 1],
      ['3/8', kubernetes('0'), 3],
      ['/8', kubernetes('0'), 1],
      ['/8', kubernetes('7'), 8],
      ['/8', slurm('0'), 1],
      ['/8', slurm('8', '1'), 8],
      ['/8', slurm('7', '1', '2'), 4],
      ['/8', { ...kubernetes('2'), ...slurm('5') }, 3],
      ['/8', { ...slurm('5'), JOB_COMPLETION_INDEX: '' }, 6],
    ] as const) {
      const shard = shardOption(typed, environment);
      expect(shard, `${typed} ${JSON.stringify(environment)}`).to.deep.equal({
        number,
        of: Number(typed.at(-1)),
      });
    }
  });

  it('refuses what is no part', () => {
    const refused: [typed: string, environment: Record<string, string>, code: ErrorCode, words: RegExp][] = [
      ['0/8', {}, 'ERR_SENET_ARG_RANGE', /from 1 to 8, got 0/],
      ['9/8', {}, 'ERR_SENET_ARG_RANGE', /from 1 to 8, got 9/],
      ['1/0', {}, 'ERR_SENET_ARG_RANGE', /at least 1|from 1/],
      ['1/9007199254740993', {}, 'ERR_SENET_ARG_RANGE', /from 1 to 1000000/],
      ...['NaN', '', '3', '3/', '3/8/1', '-1/8', '1.5/8', '3/NaN', ' 3/8', '0x1/8', '1e0/8', '\u0663/8'].map(
        (typed): (typeof refused)[number] => [typed, {}, 'ERR_SENET_ARG_RANGE', /such as '3\/8'/],
      ),
      ['/8', {}, 'ERR_SENET_ARG_MISSING', /JOB_COMPLETION_INDEX.*SLURM_ARRAY_TASK_ID.*3\/8/],
      ['/8', kubernetes(''), 'ERR_SENET_ARG_MISSING', /JOB_COMPLETION_INDEX/],
      ['/8', kubernetes('8'), 'ERR_SENET_ARG_RANGE', /JOB_COMPLETION_INDEX 8: .*from 1 to 8, got 9/],
      ['/8', kubernetes('one'), 'ERR_SENET_ARG_RANGE', /JOB_COMPLETION_INDEX one/],
      ['/8', kubernetes('-1'), 'ERR_SENET_ARG_RANGE', /from 1 to 8/],
      ['/8', slurm('9', '1'), 'ERR_SENET_ARG_RANGE', /from 1 to 8, got 9/],
      ['/8', slurm('4', '1', '2'), 'ERR_SENET_ARG_RANGE', /step 2/],
      ['/8', slurm('4', '0', '0'), 'ERR_SENET_ARG_RANGE', /step 0/],
      ['/', kubernetes('0'), 'ERR_SENET_ARG_RANGE', /such as '3\/8'/],
      ['/NaN', kubernetes('0'), 'ERR_SENET_ARG_RANGE', /such as '3\/8'/],
    ];
    for (const [typed, environment, code, words] of refused)
      expectThrow(() => shardOption(typed, environment), code, words);
  });

  it('is an object in a program', () => {
    expect(checkShard({ number: 3, of: 8 }, 'shard')).to.deep.equal({ number: 3, of: 8 });
    for (const given of [null, undefined, 3, NaN, true])
      expectThrow(() => checkShard(given, 'shard'), 'ERR_SENET_ARG_TYPE');
    for (const given of [{}, [], { number: '3', of: 8 }, { number: 3 }])
      expectThrow(() => checkShard(given, 'shard'), 'ERR_SENET_ARG_TYPE');
    for (const given of [
      { number: NaN, of: 8 },
      { number: 2 ** 53, of: 8 },
      { number: 1, of: 0 },
    ])
      expectThrow(() => checkShard(given, 'shard'), 'ERR_SENET_ARG_RANGE');
  });
});
