/** Which native package is found in which layout of node_modules, and what is said where none is. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { explainAbsence, explainFailure, findPlatformPackage } from '../../lib/platform-package';
import { Temporary } from '../support/temporary';

const HERE = `${process.platform}-${process.arch}`;
const NAME = `@senet-torch/${HERE}`;
const LIBTORCH = `@senet-torch/libtorch-${HERE}`;
const FOREIGN = '@senet-torch/aix-ppc64';

describe('the package of this platform', () => {
  let temporary: Temporary;
  beforeEach(() => {
    temporary = new Temporary();
  });
  afterEach(() => temporary.cleanUp());

  /** A package at `place` in the project; gives its folder. */
  function put(place: string, version: string, needs: Record<string, string> = {}): string {
    const folder = temporary.path(place);
    mkdirSync(folder, { recursive: true });
    writeFileSync(
      path.join(folder, 'package.json'),
      JSON.stringify({ name: place, version, optionalDependencies: needs }),
    );
    return folder;
  }
  /** senet-torch 1.2.3, which asks for this platform's package and another's. */
  const putMain = (place = 'node_modules/senet-torch', names = [NAME, FOREIGN]): string =>
    put(place, '1.2.3', { ...Object.fromEntries(names.map((name) => [name, '1.2.3'])), other: '^1.0.0' });
  const putAddon = (place = `node_modules/${NAME}`, version = '1.2.3'): string =>
    put(place, version, { [LIBTORCH]: '1.2.3' });

  for (const [layout, place] of [
    ['flat', `node_modules/${NAME}`],
    ['nested', `node_modules/senet-torch/node_modules/${NAME}`],
  ] as const)
    it(`is found where it lies ${layout}`, () => {
      const root = putMain();
      const folder = putAddon(place);
      expect(findPlatformPackage(root)).to.deep.equal({ name: NAME, folder });
      put(`node_modules/${LIBTORCH}`, '1.2.3');
      expect(explainFailure(root, { name: NAME, folder })).to.equal(undefined);
    });

  it('is found through links, as pnpm lays them', () => {
    const root = putMain('node_modules/.pnpm/senet-torch@1.2.3/node_modules/senet-torch');
    const folder = putAddon(`node_modules/.pnpm/addon@1.2.3/node_modules/${NAME}`);
    const link = path.join(root, '..', NAME);
    mkdirSync(path.dirname(link), { recursive: true });
    symlinkSync(folder, link);
    expect(findPlatformPackage(root)).to.deep.equal({ name: NAME, folder });
  });

  it('is none of a package that asks for none, as a clone, whatever lies beside it', () => {
    const root = putMain('node_modules/senet-torch', []);
    putAddon();
    expect(findPlatformPackage(root)).to.equal(undefined);
    expect(explainAbsence(root)).to.equal(undefined);
  });

  it('of a platform without one, those are named that have one', () => {
    const root = putMain('node_modules/senet-torch', [FOREIGN]);
    expect(explainAbsence(root)).to.equal(
      `There is no package with a native build for ${HERE}, only for aix-ppc64.`,
    );
  });

  it('is not taken in another version', () => {
    const root = putMain();
    const folder = putAddon(undefined, '1.2.2');
    expect(findPlatformPackage(root)).to.equal(undefined);
    expect(explainAbsence(root)).to.equal(
      `The package ${NAME} in ${folder} is 1.2.2, and 1.2.3 is needed. Remove node_modules and install again, with optional dependencies.`,
    );
  });

  // Dependencies are named in each of them; what counts is the entry of the package itself.
  for (const [file, option, install, entry, asked] of [
    [
      'package-lock.json',
      '--omit=optional',
      'npm install --include=optional',
      '"node_modules/NAME": {',
      '"NAME": "1.2.3"',
    ],
    [
      'npm-shrinkwrap.json',
      '--omit=optional',
      'npm install --include=optional',
      '"node_modules/NAME": {',
      '"NAME": "1.2.3"',
    ],
    ['pnpm-lock.yaml', '--no-optional', 'pnpm install', "  'NAME@1.2.3':", "  'NAME': 1.2.3"],
    ['yarn.lock', '--ignore-optional', 'yarn install', '"NAME@npm:1.2.3":', '"NAME": "npm:1.2.3"'],
    ['bun.lock', '--omit=optional', 'bun install', '"NAME": ["NAME@1.2.3",', '"NAME": "1.2.3"'],
  ] as const) {
    const lockFile = (...lines: string[]): void =>
      writeFileSync(temporary.path(file), lines.join('\n').replaceAll('NAME', NAME));

    it(`left out: ${file} names it`, () => {
      const root = putMain();
      lockFile(asked, entry);
      expect(explainAbsence(root)).to.equal(
        `The package ${NAME} is not installed: ${temporary.path(file)} names it, so it was left out when that was ` +
          `installed (${option}, or a setting for another os, cpu or libc). Type \`rm -rf node_modules && ${install}\`.`,
      );
    });

    it(`not resolved: ${file} does not name it`, () => {
      const root = putMain();
      lockFile(asked);
      expect(explainAbsence(root)).to.equal(
        `The package ${NAME} is not installed: ${temporary.path(file)} does not name it: it was made on another ` +
          `platform, or before this version. Type \`rm -rf node_modules ${file} && ${install}\`.`,
      );
    });
  }

  it('copied from another platform: its package is there', () => {
    const root = putMain();
    put(`node_modules/${FOREIGN}`, '1.2.3');
    writeFileSync(temporary.path('package-lock.json'), NAME);
    expect(explainAbsence(root)).to.equal(
      `The package ${NAME} is not installed: ${FOREIGN} is, so node_modules comes from another platform, or was made ` +
        'for one. Type `rm -rf node_modules && npm install --include=optional`.',
    );
  });

  it('without a lock file, every way to leave it out is named', () => {
    expect(explainAbsence(putMain())).to.match(
      /is not installed: .*--omit=optional, --no-optional, --ignore-optional.* install again/,
    );
  });

  it("LibTorch's package is told apart from the addon's", () => {
    const root = putMain();
    const folder = putAddon();
    expect(explainFailure(root, { name: NAME, folder })).to.match(
      new RegExp(`^The package ${LIBTORCH} is not installed: `),
    );
    put(`node_modules/${LIBTORCH}`, '1.2.4');
    expect(explainFailure(root, { name: NAME, folder })).to.match(/ is 1\.2\.4, and 1\.2\.3 is needed\. /);
  });
});
