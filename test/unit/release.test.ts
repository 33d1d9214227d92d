/** What scripts/release says of its packages, of the symbols that a binary asks for, and of what a release consists of. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';
import { parse } from 'yaml';

import { skip } from '../support/skip';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const RELEASE = path.join(ROOT, 'scripts', 'release');
const { version } = require('../../package.json') as { version: string };

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly os: string[];
  readonly cpu: string[];
  readonly libc?: string[];
  readonly scripts?: object;
  readonly repository?: { readonly url: string };
  readonly optionalDependencies?: Record<string, string>;
}
const packages = require('../../scripts/release/packages') as {
  PLATFORMS: Record<string, object>;
  addonManifest: (platform: string) => Manifest;
  libtorchManifest: (platform: string, version: string) => Manifest;
  mainManifest: (manifest: object, platforms: readonly string[]) => Manifest;
  libtorchFolders: (platform: string) => string[];
};
const { compareVersions, examineSymbols } = require('../../scripts/release/symbols') as {
  compareVersions: (a: string, b: string) => number;
  examineSymbols: (
    file: string,
    limits: Record<string, string>,
  ) => { newest: Record<string, string>; above: { version: string; symbols: string[] }[] };
};
const { makeSbom } = require('../../scripts/release/sbom') as {
  makeSbom: (packed: readonly object[]) => {
    metadata: { component: { 'bom-ref': string; hashes: object[] } };
    components: { 'bom-ref': string; name: string; components?: { name: string; hashes: object[] }[] }[];
    dependencies: { ref: string; dependsOn: string[] }[];
  };
};

describe('a release', () => {
  let temporary: Temporary;
  beforeEach(() => {
    temporary = new Temporary();
    temporary.environment({ GITHUB_REPOSITORY: undefined });
  });
  afterEach(() => temporary.cleanUp());

  it('has packages of one version for each platform, which ask for each other exactly and run nothing', () => {
    for (const platform of Object.keys(packages.PLATFORMS)) {
      const [os, cpu] = platform.split('-');
      const addon = packages.addonManifest(platform);
      const libtorch = packages.libtorchManifest(platform, '2.13.0');
      expect(addon.name).to.equal(`@senet-torch/${platform}`);
      expect(addon.optionalDependencies).to.deep.equal({ [libtorch.name]: version });
      for (const manifest of [addon, libtorch]) {
        expect(manifest).to.deep.include({ version, os: [os], cpu: [cpu] });
        expect(manifest.libc).to.deep.equal(os === 'linux' ? ['glibc'] : undefined);
        expect(manifest).not.to.have.any.keys('scripts', 'repository');
      }
    }
    const main = packages.mainManifest({ name: 'senet-torch', version }, ['linux-x64', 'darwin-arm64']);
    expect(main.optionalDependencies).to.deep.equal({
      '@senet-torch/linux-x64': version,
      '@senet-torch/darwin-arm64': version,
    });
  });

  it('says where its sources are, which provenance is compared with, where the workflow does', () => {
    temporary.environment({ GITHUB_REPOSITORY: 'someone/senet' });
    const url = 'git+https://github.com/someone/senet.git';
    expect(packages.addonManifest('linux-x64').repository?.url).to.equal(url);
    expect(packages.mainManifest({ name: 'senet-torch', version }, []).repository?.url).to.equal(url);
  });

  it("looks where Yarn's Plug'n'Play has LibTorch: the hash is that of its name and version", () => {
    const sha512 = (text: string): string => createHash('sha512').update(text).digest('hex');
    const hash = sha512(`${sha512('senet-torchlibtorch-linux-x64')}npm:${version}`).slice(0, 10);
    expect(packages.libtorchFolders('linux-x64')).to.include(
      `../../../../@senet-torch-libtorch-linux-x64-npm-${version}-${hash}/node_modules/@senet-torch/libtorch-linux-x64/lib`,
    );
  });

  it('of another platform is not made here, and an unknown one is named', () => {
    const script = path.join(RELEASE, 'release.js');
    const said = (platform: string): string => {
      const args = [script, '--platform', platform, '--out', temporary.path('out')];
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      expect(status).to.equal(1);
      return stderr;
    };
    const other = process.platform === 'darwin' ? 'linux-arm64' : 'darwin-arm64';
    expect(said(other)).to.match(new RegExp(`^The packages of ${other} are made on such a machine`));
    expect(said('linux-mips')).to.match(/^--platform: expected one of linux-x64, .*, got 'linux-mips'/);
  });

  it('is made with one LibTorch: that of set-up, in the container and in the workflow', () => {
    const { VERSION } = require('../../scripts/setup/libtorch') as { VERSION: string };
    const recipe = readFileSync(path.join(RELEASE, 'Dockerfile'), 'utf8');
    expect(/^ARG TORCH=(.*)$/m.exec(recipe)?.[1]).to.equal(VERSION);
    const text = readFileSync(path.join(ROOT, '.github', 'workflows', 'release.yml'), 'utf8');
    const { jobs } = parse(text) as { jobs: Record<string, { needs?: string | string[]; if?: string }> };
    expect(Object.keys(jobs)).to.deep.equal(['linux', 'macos', 'main', 'publish']);
    expect(jobs.publish).to.include({ needs: 'main', if: 'inputs.publish' });
    const versions = [...text.matchAll(/torch==(\S+)/g)].map(([, one]) => one);
    expect(new Set(versions)).to.deep.equal(new Set([VERSION]));
  });

  it('versions are compared by their numbers', () => {
    expect(compareVersions('2.9', '2.28')).to.be.below(0);
    expect(compareVersions('3.4.30', '3.4.9')).to.be.above(0);
    expect(compareVersions('2.28', '2.28.0')).to.equal(0);
  });

  it('asks for no symbols above its limits, and each that is above is named', function () {
    const prelude = path.join(ROOT, 'build', 'Release', 'senet_prelude.node');
    if (process.platform !== 'linux') skip(this, 'symbols have versions on Linux alone');
    if (!existsSync(prelude)) skip(this, 'there is no build made by setup');
    const free = examineSymbols(prelude, { GLIBC: '99' });
    expect(free.above).to.deep.equal([]);
    expect(free.newest.GLIBC).to.match(/^2\.\d+/);
    const { above } = examineSymbols(prelude, { GLIBC: '2.1' });
    expect(above.map((one) => one.version)).to.include(`GLIBC_${free.newest.GLIBC ?? ''}`);
    expect(above.flatMap(({ symbols }) => symbols)).to.include('malloc');
  });

  it('is told by a bill of materials: what npm installs, the packages, and LibTorch with a hash of each library', function () {
    this.timeout(120_000);
    for (const name of ['a.tgz', 'b.tgz', 'c.tgz', 'libc10.so']) writeFileSync(temporary.path(name), name);
    const one = (name: string, file: string, more: object = {}): object => ({
      ...{ name, version, license: 'MIT', tarball: temporary.path(file), binaries: [], needs: [] },
      ...more,
    });
    const sbom = makeSbom([
      one('@senet-torch/libtorch-linux-x64', 'a.tgz', {
        libtorch: '2.13.0',
        binaries: [temporary.path('libc10.so')],
      }),
      one('@senet-torch/linux-x64', 'b.tgz', { needs: ['@senet-torch/libtorch-linux-x64'] }),
      one('senet-torch', 'c.tgz', { needs: ['@senet-torch/linux-x64'] }),
    ]);
    const ref = (name: string): string => `pkg:npm/%40senet-torch/${name}@${version}`;
    const needs = (of: string): string[] =>
      sbom.dependencies.find((entry) => entry.ref === of)?.dependsOn ?? [];
    expect(needs(sbom.metadata.component['bom-ref'])).to.include(ref('linux-x64'));
    expect(needs(ref('linux-x64'))).to.deep.equal([ref('libtorch-linux-x64')]);
    expect(needs(ref('libtorch-linux-x64'))).to.deep.equal(['pkg:github/pytorch/pytorch@v2.13.0']);
    expect(sbom.components.map(({ name }) => name)).to.include.members(['sharp', 'LibTorch']);
    expect(sbom.components.map(({ name }) => name)).not.to.include('senet-torch');
    const libtorch = sbom.components.find((component) => component['bom-ref'] === ref('libtorch-linux-x64'));
    const content = createHash('sha256').update('libc10.so').digest('hex');
    expect(libtorch?.components).to.deep.include.members([
      {
        ...{ type: 'file', 'bom-ref': `${ref('libtorch-linux-x64')}#libc10.so`, name: 'libc10.so' },
        hashes: [{ alg: 'SHA-256', content }],
      },
    ]);
    expect(sbom.metadata.component.hashes).to.have.length(1);
  });
});
