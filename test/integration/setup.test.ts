/**
 * The ladder of LibTorch sources against fake folders and a local server, what set-up says when a tool is missing, and
 * a package folder that is moved after `setup --into-package`.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

import { expect } from 'chai';

import { Conv2d } from '../../lib';

import { startServer, type TestServer } from '../support/http-server';
import { Temporary } from '../support/temporary';
import { skip } from '../support/skip';

const ROOT = path.join(__dirname, '..', '..');

interface Found {
  source: string;
  root: string;
  version: string;
  cudaLibrary: boolean;
  cxx11Abi: boolean;
}
interface Ladder {
  findLibtorch: (
    from: string | undefined,
    report: {
      trying(rung: string): void;
      refused(rung: string, reason: string): void;
      waiting(): void;
      download(): void;
    },
    cuda: boolean,
  ) => Promise<Found>;
  VERSION: string;
}
const { findLibtorch, VERSION } = require('../../scripts/setup/libtorch') as Ladder;

async function climb(
  from?: string,
  cuda = false,
): Promise<{ found?: Found; error?: Error; refused: Record<string, string> }> {
  const refused: Record<string, string> = {};
  const report = {
    trying: () => undefined,
    refused: (rung: string, reason: string) => {
      refused[rung] = reason;
    },
    waiting: () => undefined,
    download: () => undefined,
  };
  try {
    return { found: await findLibtorch(from, report, cuda), refused };
  } catch (error) {
    return { error: error as Error, refused };
  }
}

describe('LibTorch ladder', () => {
  let temporary: Temporary;
  let library: Buffer;
  // Needs the other, which lies beside it.
  let cudaLibrary: Buffer;
  let companion: Buffer;

  before(() => {
    const workshop = new Temporary();
    const source = workshop.path('empty.cpp');
    writeFileSync(source, 'extern "C" int senet_test_library() { return 1; }\n');
    execFileSync('g++', ['-shared', '-fPIC', '-o', workshop.path('lib.so'), source]);
    library = readFileSync(workshop.path('lib.so'));
    const shared = ['-shared', '-fPIC', source];
    execFileSync('g++', [...shared, '-o', workshop.path('libcompanion.so.1')]);
    execFileSync('g++', [
      ...shared,
      ...['-o', workshop.path('cuda.so'), `-L${workshop.path()}`, '-Wl,--no-as-needed'],
      ...['-l:libcompanion.so.1', '-Wl,-rpath,$ORIGIN'],
    ]);
    companion = readFileSync(workshop.path('libcompanion.so.1'));
    cudaLibrary = readFileSync(workshop.path('cuda.so'));
    workshop.cleanUp();
  });
  beforeEach(() => {
    temporary = new Temporary();
    temporary.environment({
      LIBTORCH: undefined,
      SENET_HOME: temporary.path('home'),
      SENET_LIBTORCH_URL: undefined,
      SENET_LIBTORCH_SHA256: undefined,
      SENET_OFFLINE: undefined,
      HTTP_PROXY: undefined,
      http_proxy: undefined,
    });
  });
  afterEach(() => temporary.cleanUp());

  /** A folder that looks like LibTorch, with one thing changed. */
  function fake(
    name: string,
    change: { version?: string; without?: string; library?: Buffer; c10?: Buffer; cuda?: boolean } = {},
  ): string {
    const root = temporary.path(name);
    const [major, minor, patch] = (change.version ?? VERSION).split('.');
    const files: Record<string, string | Buffer> = {
      'include/ATen/core/Tensor.h': '',
      'include/torch/csrc/api/include/torch/nn/module.h': '',
      'include/torch/headeronly/version.h': `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
      'lib/libtorch_cpu.so': change.library ?? library,
      'lib/libc10.so': change.c10 ?? library,
      ...(change.cuda && { 'lib/libtorch_cuda.so': cudaLibrary, 'lib/libcompanion.so.1': companion }),
    };
    for (const [file, content] of Object.entries(files)) {
      if (file === change.without) continue;
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), content);
    }
    return root;
  }

  /** The folder as a zip archive; `more` is Python that adds entries to `archive`. */
  function zipOf(root: string, more = '', file = temporary.path('archive.zip')): Buffer {
    // Stored, so that a test can damage a byte of an entry and know which.
    const stored = `
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_STORED) as archive:
    for folder, _, files in os.walk(sys.argv[2]):
        for file in files:
            archive.write(os.path.join(folder, file))
    def link(name, target):
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, target)
    ${more}
`;
    execFileSync('python3', ['-c', stored, file, path.basename(root)], { cwd: path.dirname(root) });
    return readFileSync(file);
  }

  it('LIBTORCH serves first', async () => {
    const root = fake('libtorch');
    temporary.environment({ LIBTORCH: root });
    const { found, refused } = await climb();
    expect(found).to.include({ source: 'env', root, version: VERSION, cudaLibrary: false });
    expect(refused).to.deep.equal({});
  });

  const broken: [string, Parameters<typeof fake>[1], RegExp][] = [
    ['an old version', { version: '2.5.1' }, /it is LibTorch 2\.5\.1, and 2\.6 or newer is needed/],
    [
      'a missing header',
      { without: 'include/ATen/core/Tensor.h' },
      /the header ATen\/core\/Tensor\.h is missing/,
    ],
    ['no version', { without: 'include/torch/headeronly/version.h' }, /no version\.h .* tells the version/],
    ['no library', { without: 'lib/libtorch_cpu.so' }, /there is no libtorch_cpu\.so in/],
    [
      'a library that does not load',
      { library: Buffer.from('no library') },
      /libtorch_cpu\.so does not load: .*(invalid ELF|too short)/,
    ],
  ];
  for (const [name, change, reason] of broken) {
    it(`${name} does not serve and says so`, async () => {
      temporary.environment({ LIBTORCH: fake('libtorch', change) });
      const { error, refused } = await climb('env');
      expect(refused.env).to.match(reason);
      expect(error?.message).to.match(reason).and.contain('ERR_SENET_SETUP');
    });
  }

  it('a folder that does not exist, and LIBTORCH unset, say so', async () => {
    expect((await climb('env')).refused.env).to.equal('LIBTORCH is not set');
    temporary.environment({ LIBTORCH: temporary.path('nowhere') });
    expect((await climb('env')).refused.env).to.contain('does not exist');
  });

  it('--cuda takes only what has the CUDA library, and only if that loads', async () => {
    const root = fake('libtorch', { cuda: true });
    temporary.environment({ LIBTORCH: root });
    expect((await climb('env', true)).found).to.include({ source: 'env', root, cudaLibrary: true });
    rmSync(path.join(root, 'lib', 'libcompanion.so.1'));
    expect((await climb('env', true)).refused.env).to.match(
      /libtorch_cuda\.so does not load: .*libcompanion\.so\.1/,
    );
    expect((await climb('env')).found).to.include({ source: 'env', root });
    temporary.environment({ LIBTORCH: fake('without') });
    const { error, refused } = await climb('env', true);
    expect(refused.env).to.contain('there is no libtorch_cuda.so in');
    expect(error?.message).to.contain(`No source of LibTorch ${VERSION} with CUDA served`);
  });

  it('reads from c10 which std::string LibTorch was compiled with', async () => {
    const throwing = (string: string): Buffer =>
      Buffer.concat([
        library,
        Buffer.from(`\0_ZN3c106detail14torchCheckFailEPKcS2_jRK${string}\0_ZNSt7__cxx114noneE\0`),
      ]);
    for (const [string, expected] of [
      ['NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE', true],
      ['Ss', false],
    ] as const) {
      temporary.environment({ LIBTORCH: fake(`abi-${string}`, { c10: throwing(string) }) });
      expect((await climb('env')).found?.cxx11Abi).to.equal(expected);
    }
  });

  it('--from names an unknown rung', async () => {
    expect((await climb('clouds')).error?.message).to.contain(
      "expected one of env, cache, archive, wheel, python, system, got 'clouds'",
    );
  });

  it('SENET_OFFLINE=1 asks no server', async () => {
    temporary.environment({ SENET_OFFLINE: '1' });
    expect((await climb('archive')).refused.archive).to.contain('SENET_OFFLINE=1');
  });

  describe('archive', () => {
    let server: TestServer;
    let body: Buffer;
    beforeEach(async () => {
      body = zipOf(fake('libtorch'));
      server = await startServer({ body });
      temporary.environment({ SENET_LIBTORCH_URL: `${server.url}/libtorch.zip` });
    });
    afterEach(() => server.close());
    const homeFiles = (): string[] =>
      existsSync(temporary.path('home')) ? readdirSync(temporary.path('home')) : [];

    it('is fetched once, checked and cached', async () => {
      temporary.environment({ SENET_LIBTORCH_SHA256: createHash('sha256').update(body).digest('hex') });
      expect((await climb('archive')).found).to.include({ source: 'archive', version: VERSION });
      expect((await climb()).found).to.include({ source: 'cache', version: VERSION });
      expect(server.requests).to.have.length(1);
      expect(homeFiles()).to.have.length(1);
    });

    it('one with CUDA has a folder of its own beside the other, and one without is refused', async () => {
      await climb('archive');
      expect((await climb('archive', true)).refused.archive).to.contain('there is no libtorch_cuda.so');
      expect((await climb('cache', true)).refused.cache).to.match(/nothing was fetched to .*-cu130-/);
      server.behave({ body: zipOf(fake('cuda/libtorch', { cuda: true })), etag: '"cuda"' });
      const { found } = await climb('archive', true);
      expect(found).to.include({ source: 'archive', cudaLibrary: true });
      expect((await climb(undefined, true)).found).to.include({ source: 'cache', root: found?.root });
      expect((await climb()).found).to.include({ source: 'cache', cudaLibrary: false });
      expect(homeFiles()).to.have.length(2);
    });

    it('a wrong hash is refused and leaves nothing', async () => {
      temporary.environment({ SENET_LIBTORCH_SHA256: '0'.repeat(64) });
      expect((await climb('archive')).refused.archive).to.contain('expected a SHA-256');
      expect(homeFiles()).to.deep.equal([]);
    });

    it('a truncated archive is refused and leaves nothing that could serve', async () => {
      server.behave({ body: body.subarray(0, body.length - 300) });
      expect((await climb('archive')).refused.archive).to.be.a('string');
      expect((await climb('cache')).refused.cache).to.contain('nothing was fetched');
      expect(homeFiles()).to.deep.equal([]);
    });

    it('a damaged entry is refused by its checksum', async () => {
      const damaged = Buffer.from(body);
      const at = damaged.indexOf('TORCH_VERSION_MAJOR');
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      server.behave({ body: damaged });
      expect((await climb('archive')).refused.archive).to.contain('damaged');
    });

    it('404 says so', async () => {
      server.behave({ status: 404 });
      expect((await climb('archive')).refused.archive).to.contain('404');
    });

    it('is resumed', async () => {
      server.behave({ cutAfter: body.length - 1000 });
      expect((await climb('archive')).found).to.include({ source: 'archive' });
      expect(server.requests.map(({ range }) => range)).to.deep.equal([
        undefined,
        `bytes=${body.length - 1000}-`,
      ]);
    });

    it('an archive with an old LibTorch in it neither serves nor takes the place of the cached one', async () => {
      await climb('archive');
      server.behave({ body: zipOf(fake('old/libtorch', { version: '1.13.0' })), etag: '"old"' });
      expect((await climb('archive')).refused.archive).to.contain('LibTorch 1.13.0');
      expect((await climb()).found).to.include({ source: 'cache', version: VERSION });
      expect(homeFiles()).to.have.length(1);
    });

    it('links to a name beside them are made, others are refused', async () => {
      const root = fake('libtorch');
      server.behave({ body: zipOf(root, 'link("libtorch/lib/libgomp.so", "libc10.so")') });
      const { found } = await climb('archive');
      expect(readlinkSync(path.join(found?.root ?? '', 'lib', 'libgomp.so'))).to.equal('libc10.so');
      for (const target of ['/etc/passwd', '../../outside', '..']) {
        server.behave({ body: zipOf(root, `link("libtorch/lib/evil.so", "${target}")`) });
        expect((await climb('archive')).refused.archive).to.contain(
          `a link to ${target}, outside its folder`,
        );
      }
    });

    it('a name that leaves the folder is refused', async () => {
      const evil = 'archive.writestr("libtorch/include/../../../evil", "x")';
      server.behave({ body: zipOf(fake('libtorch'), evil) });
      expect((await climb('archive')).refused.archive)
        .to.contain('evil')
        .and.contain('..');
      expect(existsSync(temporary.path('evil'))).to.equal(false);
    });

    it('what a killed set-up left is cleaned by the next', async () => {
      mkdirSync(temporary.path('home', 'incomplete-killed', 'lib'), { recursive: true });
      await climb('archive');
      expect(homeFiles()).to.have.length(1);
    });

    it('of two set-ups at once one fetches and the other takes what it fetched', async () => {
      server.behave({ slow: 700 });
      const program = `
        require('tsx/cjs');
        const { findLibtorch } = require(${JSON.stringify(path.join(ROOT, 'scripts', 'setup', 'libtorch.js'))});
        const nothing = () => undefined;
        findLibtorch(undefined, { trying: nothing, refused: nothing, waiting: nothing, download: nothing })
          .then(({ source }) => console.log(source));`;
      const sources = await Promise.all(
        [0, 1].map(async () => {
          const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { cwd: ROOT });
          return stdout.trim();
        }),
      );
      expect(sources.sort()).to.deep.equal(['archive', 'cache']);
      expect(server.requests).to.have.length(1);
    });
  });

  describe('wheel', () => {
    /** A wheel of what lies in `root`. */
    function wheelOf(root: string, name: string, version: string, tag: string, needs: string[] = []): void {
      const facts = [`Name: ${name}`, `Version: ${version}`, ...needs.map((one) => `Requires-Dist: ${one}`)];
      const information = `
    name = "${name}-${version}.dist-info/"
    archive.writestr(name + "METADATA", ${JSON.stringify(['Metadata-Version: 2.1', ...facts, ''].join('\n'))})
    archive.writestr(name + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\nTag: py3-none-any\\n")
    archive.writestr(name + "licenses/third_party/LICENSE", "")
    archive.writestr(name + "RECORD", "")`;
      mkdirSync(temporary.path('wheels'), { recursive: true });
      zipOf(root, information, temporary.path('wheels', `${name}-${version}-${tag}.whl`));
    }

    /** Wheels of torch of these tags, the only ones that pip knows of. */
    function offer(...tags: string[]): void {
      const root = temporary.path('wheel', 'torch');
      cpSync(fake('libtorch'), root, { recursive: true });
      writeFileSync(path.join(root, '__init__.py'), '');
      mkdirSync(temporary.path('wheels'), { recursive: true });
      for (const tag of tags) wheelOf(root, 'torch', `${VERSION}+cpu`, tag);
      temporary.environment({
        PIP_NO_INDEX: '1',
        PIP_FIND_LINKS: temporary.path('wheels'),
        PIP_CONFIG_FILE: '/dev/null',
      });
    }

    for (const [name, tag] of [
      ['CPython 3.11', 'cp311-cp311-manylinux_2_28_x86_64'],
      ['whatever Python is active', `py3-none-linux_x86_64`],
    ] as const) {
      it(`of ${name} serves, its headers, libraries and licences only, without a network too`, async () => {
        offer(tag);
        temporary.environment({ SENET_OFFLINE: '1' });
        const { found, refused } = await climb('wheel');
        expect(refused).to.deep.equal({});
        expect(found).to.include({ source: 'wheel', version: VERSION });
        const root = found?.root ?? '';
        expect(readdirSync(root).sort()).to.deep.equal(['include', 'lib', 'licenses']);
        expect(existsSync(path.join(root, 'licenses', 'third_party', 'LICENSE'))).to.equal(true);
        expect(readdirSync(temporary.path('home'))).to.have.length(1);
      });
    }

    it('with CUDA serves with the libraries of NVIDIA that it asks for', async () => {
      offer();
      const root = temporary.path('cuda', 'torch');
      cpSync(fake('libtorch', { cuda: true }), root, { recursive: true });
      rmSync(path.join(root, 'lib', 'libcompanion.so.1'));
      const needs = ['nvidia-toolkit==1.0; platform_system == "Linux"', 'triton~=3.8.0'];
      wheelOf(root, 'torch', `${VERSION}+cu130`, 'cp311-cp311-manylinux_2_28_x86_64', needs);
      expect((await climb('wheel', true)).refused.wheel).to.match(
        /^pip has not all that torch-.*\.whl needs \(.*nvidia-toolkit==1\.0\)$/,
      );
      const libraries = temporary.path('toolkit', 'nvidia');
      for (const [file, content] of [
        ['cu13/lib/libcompanion.so.1', companion],
        ['cu13/lib/libcompanion_static.a', 'not needed'],
        ['cu13/include/companion.h', 'not needed'],
      ] as const) {
        mkdirSync(path.dirname(path.join(libraries, file)), { recursive: true });
        writeFileSync(path.join(libraries, file), content);
      }
      wheelOf(libraries, 'nvidia_toolkit', '1.0', 'py3-none-manylinux2014_x86_64');
      const { found, refused } = await climb('wheel', true);
      expect(refused).to.deep.equal({});
      expect(found).to.include({ source: 'wheel', version: VERSION, cudaLibrary: true });
      expect(readdirSync(path.join(found?.root ?? '', 'lib')).sort()).to.deep.equal([
        'libc10.so',
        'libcompanion.so.1',
        'libtorch_cpu.so',
        'libtorch_cuda.so',
      ]);
      expect(readdirSync(temporary.path('home'))).to.have.length(1);
    });

    it('says what pip said when there is none', async () => {
      offer();
      expect((await climb('wheel')).refused.wheel).to.match(
        /pip has no wheel \(torch==.*No matching distribution/,
      );
      expect(readdirSync(temporary.path('home'))).to.deep.equal([]);
    });

    it('says what to install when there is no python3', async () => {
      temporary.environment({ PATH: temporary.path('bin') });
      expect((await climb('wheel')).refused.wheel).to.contain('apt-get install python3');
    });
  });

  it('says of every rung why it did not serve', async () => {
    // No tools, no network, nothing installed: a PATH without python3.
    temporary.environment({ SENET_OFFLINE: '1', PATH: temporary.path('bin') });
    const { found, error } = await climb();
    // A LibTorch that the system installed is a legitimate find on the machine that runs this.
    if (found !== undefined) expect(found.source).to.equal('system');
    else
      for (const rung of ['env', 'cache', 'archive', 'wheel', 'python', 'system'])
        expect(error?.message).to.contain(`  ${rung}`);
  });
});

describe('setup', () => {
  let temporary: Temporary;
  before(() => {
    temporary = new Temporary();
  });
  after(() => temporary.cleanUp());
  const setup = (
    args: string[],
    root = ROOT,
    env: NodeJS.ProcessEnv = {},
  ): { status: number | null; said: string } => {
    const result = spawnSync(process.execPath, [path.join(root, 'scripts', 'setup', 'setup.js'), ...args], {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    });
    return { status: result.status, said: `${result.stdout}${result.stderr}` };
  };

  it('has help', () => {
    expect(setup(['--help'])).to.have.property('status', 0);
    expect(setup(['--help']).said)
      .to.contain('--into-package')
      .and.contain('--cuda');
  });

  it('refuses an unknown option with exit code 2', () => {
    expect(setup(['--form', 'wheel']).status).to.equal(2);
  });

  it('a missing compiler and cmake are one message that says what to install', () => {
    const { status, said } = setup(['--force'], ROOT, { PATH: temporary.path('no-tools'), CXX: '' });
    expect(status).to.equal(1);
    expect(said).to.contain('g++').and.contain('cmake').and.contain('apt-get install');
    expect(said).not.to.match(/\n\s+at /);
  });

  it('--into-package makes a folder that can be moved', function () {
    const stamp = path.join(ROOT, 'build', 'senet-stamp.json');
    if (!existsSync(stamp)) {
      skip(this, 'there is no build made by setup');
    }
    const made = temporary.path('made');
    for (const part of [
      'package.json',
      'dist',
      'native',
      'scripts',
      'CMakeLists.txt',
      'build/senet-stamp.json',
      'build/Release/senet_prelude.node',
      'build/Release/senet_torch.node',
    ]) {
      cpSync(path.join(ROOT, part), path.join(made, part), { recursive: true });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(made, 'node_modules'));
    const { status, said } = setup(['--into-package'], made);
    expect(said).to.contain('copied');
    expect(status).to.equal(0);
    const moved = temporary.path('moved');
    renameSync(made, moved);
    const program = `
      const { SELayer, ones } = require(${JSON.stringify(moved)});
      const shape = new SELayer(16).forwardSync(ones([1, 16, 2, 2])).shape;
      const maps = require('fs').readFileSync('/proc/self/maps', 'utf8');
      const folders = new Set([...maps.matchAll(/(\\/.*)\\/(libtorch_cpu|libc10|libgomp[^/]*)\\.so/g)].map((match) => match[1]));
      console.log(JSON.stringify({ shape, folders: [...folders] }));`;
    const result = execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' });
    expect(JSON.parse(result)).to.deep.equal({
      shape: [1, 16, 2, 2],
      folders: [path.join(moved, 'build', 'Release', 'libtorch')],
    });

    // As on another machine: the LibTorch that it was built with is not there, nor a compiler.
    const movedStamp = path.join(moved, 'build', 'senet-stamp.json');
    const { root: original } = (JSON.parse(readFileSync(stamp, 'utf8')) as { libtorch: Found }).libtorch;
    writeFileSync(movedStamp, readFileSync(stamp, 'utf8').replaceAll(original, '/gone'));
    const bare = { PATH: temporary.path('no-tools'), CXX: '', LIBTORCH: '' };
    for (const args of [[], ['--into-package']]) {
      const again = setup(args, moved, bare);
      expect(again.said).to.match(/^Ready: [^\n]*\n$/);
      expect(again.status).to.equal(0);
    }
    // A LIBTORCH that is not there is no crash.
    const wrong = setup([], moved, { ...bare, LIBTORCH: temporary.path('nowhere') });
    expect(wrong.status).to.equal(1);
    expect(wrong.said).to.contain('apt-get install').and.not.contain('ENOENT');
    writeFileSync(movedStamp, '{ "cut');
    expect(setup([], moved, bare).said).to.contain('apt-get install');
  });

  it('doctor says without a build what is missing, and which LibTorch a build would take', function () {
    const stamp = path.join(ROOT, 'build', 'senet-stamp.json');
    if (!existsSync(stamp)) {
      skip(this, 'there is no build made by setup');
    }
    const bare = temporary.path('bare');
    for (const part of ['package.json', 'native', 'scripts', 'CMakeLists.txt']) {
      cpSync(path.join(ROOT, part), path.join(bare, part), { recursive: true });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(bare, 'node_modules'));
    const { libtorch } = JSON.parse(readFileSync(stamp, 'utf8')) as { libtorch: Found };
    const { status, stdout } = spawnSync(
      process.execPath,
      [path.join(bare, 'scripts', 'setup', 'doctor.js')],
      {
        encoding: 'utf8',
        env: { ...process.env, LIBTORCH: libtorch.root },
      },
    );
    expect(status).to.equal(1);
    expect(stdout).to.contain('Not ready: there is no native build').and.contain('npx senet-torch setup');
    expect(stdout).to.contain(`${libtorch.version} in ${libtorch.root} (env; not built against yet)`);
  });

  it('doctor prints what was found, as text and as data', async () => {
    const doctor = path.join(ROOT, 'scripts', 'setup', 'doctor.js');
    const text = spawnSync(process.execPath, [doctor], { encoding: 'utf8' });
    for (const word of [
      'LibTorch',
      'CUDA library',
      'CUDA devices',
      'threads',
      'instruction set',
      'compiled models',
      'Node',
      'compiler',
      'Ready.',
    ]) {
      expect(text.stdout).to.contain(word);
    }
    const facts = JSON.parse(execFileSync(process.execPath, [doctor, '--json'], { encoding: 'utf8' })) as {
      addon: {
        loads: boolean;
        libtorch: { version: string };
        threads: { available: number };
        compiled: Record<string, { backend: string; reason: string }>;
      };
    };
    expect(facts.addon.loads).to.equal(true);
    expect(facts.addon.libtorch.version).to.match(/^\d+\.\d+\.\d+$/);
    expect(facts.addon.threads.available).to.be.at.least(1);
    expect(facts.addon.compiled.float32?.backend).to.be.oneOf(['avx512_bf16', 'avx512', 'avx2', 'onednn']);
    // Few processors compute in float16, and it says so where none is compiled.
    const compiles = await new Conv2d(3, 4, 1)
      .eval()
      .compile({ dtype: 'float16' })
      .then(
        (compiled) => compiled.dispose(),
        (error: unknown) => (error as Error).message,
      );
    const { backend, reason } = facts.addon.compiled.float16 ?? {};
    expect([backend, reason]).to.deep.equal(compiles === undefined ? ['onednn', reason] : ['none', compiles]);
    expect(facts.addon.compiled.int8?.backend).to.match(
      /^(amx_int8|avx512_vnni|avx2_vnni|avx512|avx2|scalar)$/,
    );
  });
});
