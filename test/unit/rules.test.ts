import { expect } from 'chai';

import { ColorJitter } from '../../lib/data/color-jitter';
import { isSenetError } from '../../lib/errors';
import {
  boolean,
  fn,
  integer,
  matching,
  names,
  nullOr,
  number,
  oneOf,
  optional,
  optionsReader,
  orElse,
  readOptions,
  required,
  signal,
  string,
} from '../../lib/tensor/rules';

interface Options {
  count?: number;
  share?: number | null;
  kind?: 'fast' | 'slow';
  name?: string;
  exact?: boolean;
  then?: () => void;
  signal?: AbortSignal;
}

const RULES = {
  count: orElse(2, integer(1, 9)),
  share: orElse(0.5, nullOr(number(0, 1))),
  kind: orElse('fast', oneOf(['fast', 'slow'])),
  name: optional(string),
  exact: orElse(false, boolean),
  then: optional(fn<() => void>()),
  signal,
};

const read = (options?: object): unknown => readOptions(options as Options | undefined, RULES, 'make');

function expectRefused(run: () => unknown, code: string, message: RegExp): void {
  try {
    run();
  } catch (error) {
    expect(isSenetError(error), String(error)).to.equal(true);
    expect((error as { code: string }).code).to.equal(code);
    expect((error as Error).message).to.match(message);
    return;
  }
  expect.fail(`expected ${code}`);
}

describe('tables of rules', () => {
  const defaults = {
    count: 2,
    share: 0.5,
    kind: 'fast',
    name: undefined,
    exact: false,
    then: undefined,
    signal: undefined,
  };

  it('give the defaults of what is left out, or is undefined', () => {
    expect(read()).to.deep.equal(defaults);
    expect(read({ count: undefined, kind: undefined })).to.deep.equal(defaults);
  });

  it('give what is given, null where null may be', () => {
    const given = { count: 9, share: null, kind: 'slow', name: '', exact: true };
    expect(read(given)).to.deep.equal({ ...defaults, ...given });
  });

  it('refuse the wrong type, the wrong range and the wrong name, and say where', () => {
    expectRefused(
      () => read({ count: '3' }),
      'ERR_SENET_ARG_TYPE',
      /^make: count: expected an integer, got '3'/,
    );
    expectRefused(() => read({ count: 10 }), 'ERR_SENET_ARG_RANGE', /^make: count: .*from 1 to 9, got 10/);
    expectRefused(() => read({ share: NaN }), 'ERR_SENET_ARG_RANGE', /^make: share: .*from 0 to 1, got NaN/);
    expectRefused(() => read({ kind: 'fats' }), 'ERR_SENET_ARG_RANGE', /one of 'fast', 'slow', got 'fats'/);
    expectRefused(() => read({ then: 3 }), 'ERR_SENET_ARG_TYPE', /^make: then: expected a function, got 3/);
    expectRefused(() => read({ cuont: 3 }), 'ERR_SENET_UNKNOWN_OPTION', /did you mean 'count'/);
    expectRefused(() => read([]), 'ERR_SENET_ARG_TYPE', /^make: expected an options object/);
  });

  it('refuse what is left out and required', () => {
    const make = (): unknown => readOptions({}, { size: required(integer(1)) }, 'make');
    expectRefused(make, 'ERR_SENET_ARG_MISSING', /^make: size is required/);
  });

  it('say in their own words what fits, with a code of their own', () => {
    const even = matching<number>(
      'an even number',
      (value) => Number(value) % 2 === 0,
      'ERR_SENET_ARG_RANGE',
    );
    const make = (options: object): unknown =>
      readOptions<object, object>(options, { even: optional(even), names: optional(names) }, 'make');
    expect(make({ even: 4, names: ['cat'] })).to.deep.equal({ even: 4, names: ['cat'] });
    expectRefused(
      () => make({ even: 3 }),
      'ERR_SENET_ARG_RANGE',
      /^make: even: expected an even number, got 3$/,
    );
    expectRefused(() => make({ names: ['cat', 3] }), 'ERR_SENET_ARG_TYPE', /^make: names: .*array of names/);
  });

  it('are read for hot calls as for others, and without options nothing is', () => {
    const quick = optionsReader(RULES);
    expect(quick(undefined, 'make')).to.deep.equal(defaults);
    expect(quick(undefined, 'make')).to.equal(quick(undefined, 'other'));
    const given = { count: 9, share: null, name: undefined };
    expect(quick(given, 'make')).to.deep.equal(read(given));
    expect(quick(undefined, 'make')).to.deep.equal(defaults);
    expectRefused(() => quick({ cuont: 3 }, 'make'), 'ERR_SENET_UNKNOWN_OPTION', /^make: .*mean 'count'/);
    expectRefused(() => quick({ count: 10 }, 'make'), 'ERR_SENET_ARG_RANGE', /^make: count: .*got 10/);
    expectRefused(() => quick([], 'make'), 'ERR_SENET_ARG_TYPE', /^make: expected an options object/);
  });

  it('refuse what is no range of a ColorJitter with a code', () => {
    const make = (hue: unknown) => () => new ColorJitter({ hue: hue as number });
    expectRefused(make(true), 'ERR_SENET_ARG_TYPE', /^ColorJitter: hue: expected \[low, high\], got true/);
    expectRefused(make({}), 'ERR_SENET_ARG_TYPE', /^ColorJitter: hue: expected \[low, high\]/);
  });
});
