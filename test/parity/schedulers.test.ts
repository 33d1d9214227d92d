/** Schedules that restart, are combined, or follow a metric, against PyTorch's recorded rates and state dicts. */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import * as senet from '../../lib';
import type { LRScheduler, Optimizer, SchedulerState } from '../../lib';
import { toOptions } from '../support/parity';

interface Case {
  kind: string;
  options: Record<string, unknown>;
  /** What each step is given; 'nan' for a metric that is none. */
  steps: (number | 'nan')[][];
  /** Before the first step, and after each. */
  rates: number[][];
  /** The state dict after half of the steps. */
  half: SchedulerState;
  last: number[];
}

const { cases } = JSON.parse(readFileSync(path.join(__dirname, '../fixtures/schedulers.json'), 'utf8')) as {
  cases: Case[];
};

const LAMBDAS: Record<string, senet.LrLambda> = {
  decay: (epoch) => 0.95 ** epoch,
  rise: (epoch) => (epoch + 1) / 4,
};

function makeOptimizer(): Optimizer {
  const parameter = (): senet.Tensor => senet.zeros([1], { requiresGrad: true });
  return new senet.SGD([{ params: [parameter()] }, { params: [parameter()], lr: 1 }], { lr: 0.1 });
}

/** `T_max` -> `tMax`, `eta_min` -> `etaMin`. */
function ours(options: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(toOptions(options)).map(([name, value]) => [
    name.replace(/^T_?(.)/, (_, next: string) => `t${next.toUpperCase()}`),
    value,
  ]);
  return Object.fromEntries(entries) as Record<string, unknown>;
}

function make(optimizer: Optimizer, kind: string, options: Record<string, unknown>): LRScheduler {
  const parts = (): LRScheduler[] =>
    (options.schedulers as [string, Record<string, unknown>][]).map((part) => make(optimizer, ...part));
  if (kind === 'ChainedScheduler') return new senet.ChainedScheduler(parts());
  if (kind === 'SequentialLR')
    return new senet.SequentialLR(optimizer, {
      schedulers: parts(),
      milestones: options.milestones as number[],
    });
  if (kind === 'LambdaLR') {
    const names = options.lr_lambda as string | string[];
    const named = (name: string): senet.LrLambda => LAMBDAS[name] as senet.LrLambda;
    return new senet.LambdaLR(optimizer, {
      lrLambda: typeof names === 'string' ? named(names) : names.map(named),
    });
  }
  const Kind = senet[kind as 'StepLR'] as unknown as new (to: Optimizer, options: object) => LRScheduler;
  return new Kind(optimizer, ours(options));
}

function step(scheduler: LRScheduler, given: (number | 'nan')[]): void {
  const [value] = given.map(Number);
  if (scheduler instanceof senet.ReduceLROnPlateau) scheduler.step(value);
  else if (scheduler instanceof senet.CosineAnnealingWarmRestarts) scheduler.step(value);
  else scheduler.step();
}

/** JSON has no infinities; the numbers of a schedule are as near as two libraries' cosines. */
function expectAlike(actual: unknown, expected: unknown, what: string): void {
  if (expected === 'inf' || expected === '-inf')
    expect(actual, what).to.equal(Number(`${expected}inity`.replace('i', 'I')));
  else if (typeof expected === 'number')
    expect(actual, what).to.be.closeTo(expected, 1e-14 * Math.max(1, Math.abs(expected)));
  else if (Array.isArray(expected)) {
    expect(actual, what).to.have.length(expected.length);
    expected.forEach((one, i) => expectAlike((actual as unknown[])[i], one, `${what}[${i}]`));
  } else if (typeof expected === 'object' && expected !== null) {
    const given = actual instanceof Map ? (Object.fromEntries(actual) as object) : (actual as object);
    for (const [name, value] of Object.entries(expected))
      expectAlike((given as Record<string, unknown>)[name], value, `${what}.${name}`);
  } else expect(actual, what).to.equal(expected);
}

describe('parity: schedules that restart, are combined or follow a metric', () => {
  for (const { kind, options, steps, rates, half, last } of cases) {
    const given = steps[0]?.length === 0 ? '' : ` by ${JSON.stringify(steps.flat())}`;
    it(`${kind} ${JSON.stringify(options)}${given}`.slice(0, 180), () => {
      const optimizer = makeOptimizer();
      const scheduler = make(optimizer, kind, options);
      const present = (): number[] => optimizer.paramGroups.map(({ lr }) => lr);
      const middle = Math.floor(steps.length / 2);
      let saved: SchedulerState = {};
      let atMiddle: number[] = [];
      expectAlike(present(), rates[0], 'at first');
      for (const [index, values] of steps.entries()) {
        step(scheduler, values);
        expectAlike(present(), rates[index + 1], `after step ${index + 1}`);
        if (index === middle - 1) [saved, atMiddle] = [scheduler.stateDict(), present()];
      }
      expectAlike(scheduler.getLastLr(), last, 'the last rates');
      expectAlike(saved, half, 'the state dict');

      // Both states, ours and Python's, go on in another scheduler.
      const python = JSON.parse(JSON.stringify(half), (_, value: unknown) =>
        value === 'inf' ? Infinity : value === '-inf' ? -Infinity : value,
      ) as SchedulerState;
      for (const state of [saved, python]) {
        const other = makeOptimizer();
        const resumed = make(other, kind, options);
        resumed.loadStateDict(state);
        for (const [index, group] of other.paramGroups.entries()) group.lr = atMiddle[index] as number;
        for (const [index, values] of steps.slice(middle).entries()) {
          step(resumed, values);
          const now = other.paramGroups.map(({ lr }) => lr);
          expectAlike(now, rates[middle + index + 1], `resumed, step ${middle + index + 1}`);
        }
      }
    });
  }
});
