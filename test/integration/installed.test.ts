/**
 * A release as npm installs it: the packages of scripts/release from a registry that this test serves. Every other package
 * manager, runtime, bundler and way to lose a package: `npm run test:packages`. LibTorch's package comes without its
 * libraries, which take npm half a minute; those of this machine are put there afterwards.
 */
import { existsSync, linkSync, copyFileSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { skip } from '../support/skip';
import { Temporary } from '../support/temporary';
import '../support/built';

const ROOT = path.join(__dirname, '..', '..');
const HERE = `${process.platform}-${process.arch}`;
const STAMP = path.join(ROOT, 'build', 'senet-stamp.json');

interface Registry {
  readonly url: string;
  close(): Promise<void>;
}
const { startRegistry } = require('../packages/registry') as {
  startRegistry: (tarballs: readonly string[]) => Promise<Registry>;
};
const { output } = require('../packages/run') as {
  output: (command: string, args: readonly string[], options: object) => Promise<string>;
};
const { makeAddonPackage, makeMainPackage, packFolder } = require('../../scripts/release/release') as {
  makeAddonPackage: (folder: string, platform: string) => Promise<void>;
  makeMainPackage: (folder: string, platforms: readonly string[]) => void;
  packFolder: (folder: string, out: string) => string;
};
const { libtorchManifest, libtorchPackage } = require('../../scripts/release/packages') as {
  libtorchManifest: (platform: string, version: string) => object;
  libtorchPackage: (platform: string) => string;
};
const { version } = require('../../package.json') as { version: string };

describe('a release installed by npm', function () {
  this.timeout(300_000);
  let temporary: Temporary;
  let registry: Registry;
  let consumer: string;

  before(async function () {
    if (!existsSync(STAMP)) skip(this, 'there is no build made by setup');
    temporary = new Temporary();
    const packed = temporary.path('packed');
    for (const folder of ['packed', 'libtorch', 'consumer']) mkdirSync(temporary.path(folder));
    await makeAddonPackage(temporary.path('addon'), HERE);
    makeMainPackage(temporary.path('main'), [HERE]);
    const libtorch = JSON.stringify(libtorchManifest(HERE, '2.13.0'));
    writeFileSync(temporary.path('libtorch', 'package.json'), libtorch);
    const folders = ['addon', 'main', 'libtorch'].map((name) => temporary.path(name));
    registry = await startRegistry(folders.map((folder) => packFolder(folder, packed)));
    consumer = temporary.path('consumer');
    const dependencies = { 'senet-torch': version };
    writeFileSync(path.join(consumer, 'package.json'), JSON.stringify({ private: true, dependencies }));
    const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
    await output('npm', ['install', ...flags, '--registry', registry.url], { cwd: consumer });
  });
  after(async () => {
    await registry?.close();
    temporary?.cleanUp();
  });

  const node = (program: string): Promise<string> =>
    output(process.execPath, ['-e', program], { cwd: consumer, env: { PATH: '' } });

  it('without the libraries of LibTorch, the error says which package does not do', async () => {
    const said = await node(
      "try { require('senet-torch') } catch ({ code, message }) { console.log(code, message) }",
    );
    expect(said).to.match(
      /^ERR_SENET_NO_BUILD The package @senet-torch\/\S+ in .* does not load: libtorch_cpu.*npx senet-torch setup/,
    );
  });

  it('classifies with the LibTorch beside it, and after a move', async () => {
    const { libtorch } = JSON.parse(readFileSync(STAMP, 'utf8')) as { libtorch: { lib: string } };
    const lib = path.join(consumer, 'node_modules', libtorchPackage(HERE), 'lib');
    mkdirSync(lib);
    for (const name of ['libtorch_cpu.so', 'libc10.so', 'libgomp.so.1']) {
      const file = path.join(libtorch.lib, name);
      if (!existsSync(file)) continue;
      try {
        linkSync(file, path.join(lib, name));
      } catch {
        copyFileSync(file, path.join(lib, name)); // on another file system
      }
    }
    const program = readFileSync(path.join(ROOT, 'test', 'packages', 'consumer', 'required.cjs'), 'utf8');
    const check = async (): Promise<void> => {
      const { label, met } = JSON.parse(await node(program)) as { label: string; met: string[] };
      expect(label).to.equal('Ankle boot');
      const folder = path.join(consumer, 'node_modules', libtorchPackage(HERE), 'lib');
      expect(new Set(met.map((file) => path.dirname(file)))).to.deep.equal(new Set([folder]));
    };
    await check();
    const moved = temporary.path('moved');
    renameSync(consumer, moved);
    consumer = moved;
    await check();
  });

  it('runs nothing when it is installed, and none of its packages is optional to the other but by its exact version', () => {
    const { packages } = JSON.parse(readFileSync(path.join(consumer, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { hasInstallScript?: boolean; optionalDependencies?: Record<string, string> }>;
    };
    const own = Object.entries(packages).filter(([name]) => /(^|\/)(@senet-torch\/|senet-torch$)/.test(name));
    expect(own.map(([name]) => name.replace('node_modules/', ''))).to.have.members([
      'senet-torch',
      `@senet-torch/${HERE}`,
      libtorchPackage(HERE),
    ]);
    for (const [, one] of own) expect(one).not.to.have.property('hasInstallScript');
    expect(packages['node_modules/senet-torch']?.optionalDependencies).to.deep.equal({
      [`@senet-torch/${HERE}`]: version,
    });
    expect(packages[`node_modules/@senet-torch/${HERE}`]?.optionalDependencies).to.deep.equal({
      [libtorchPackage(HERE)]: version,
    });
  });
});
