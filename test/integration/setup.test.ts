/**
 * The ladder of LibTorch sources against fake folders and a local server, what set-up says when a tool is missing, and
 * a package folder that is moved after `setup --into-package`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import { startServer, type TestServer } from '../support/http-server';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');

interface Found {
  source: string;
  root: string;
  version: string;
  cudaLibrary: boolean;
}
interface Ladder {
  findLibtorch: (
    from: string | undefined,
    report: { trying(rung: string): void; refused(rung: string, reason: string): void; download: boolean },
  ) => Promise<Found>;
  VERSION: string;
}
const { findLibtorch, VERSION } = require('../../scripts/setup/libtorch') as Ladder;

async function climb(
  from?: string,
): Promise<{ found?: Found; error?: Error; refused: Record<string, string> }> {
  const refused: Record<string, string> = {};
  const report = {
    trying: () => undefined,
    refused: (rung: string, reason: string) => {
      refused[rung] = reason;
    },
    download: false,
  };
  try {
    return { found: await findLibtorch(from, report), refused };
  } catch (error) {
    return { error: error as Error, refused };
  }
}

describe('LibTorch ladder', () => {
  let temporary: Temporary;
  let library: Buffer;

  before(() => {
    const workshop = new Temporary();
    const source = workshop.path('empty.cpp');
    writeFileSync(source, 'extern "C" int senet_test_library() { return 1; }\n');
    execFileSync('g++', ['-shared', '-fPIC', '-o', workshop.path('lib.so'), source]);
    library = readFileSync(workshop.path('lib.so'));
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
  function fake(name: string, change: { version?: string; without?: string; library?: Buffer } = {}): string {
    const root = temporary.path(name);
    const [major, minor, patch] = (change.version ?? VERSION).split('.');
    const files: Record<string, string | Buffer> = {
      'include/ATen/core/Tensor.h': '',
      'include/torch/csrc/api/include/torch/nn/module.h': '',
      'include/torch/headeronly/version.h': `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
      'lib/libtorch_cpu.so': change.library ?? library,
      'lib/libc10.so': library,
    };
    for (const [file, content] of Object.entries(files)) {
      if (file === change.without) continue;
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), content);
    }
    return root;
  }

  function zipOf(root: string): Buffer {
    const archive = temporary.path('archive.zip');
    // Stored, so that a test can damage a byte of an entry and know which.
    const stored = `
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_STORED) as archive:
    for folder, _, files in os.walk(sys.argv[2]):
        for file in files:
            archive.write(os.path.join(folder, file))
`;
    execFileSync('python3', ['-c', stored, archive, path.basename(root)], { cwd: path.dirname(root) });
    return readFileSync(archive);
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

    it('an archive with an old LibTorch in it does not serve', async () => {
      temporary.environment({ LIBTORCH: undefined });
      const old = new Temporary();
      server.behave({ body: zipOf(fake('old/libtorch', { version: '1.13.0' })) });
      expect((await climb('archive')).refused.archive).to.contain('LibTorch 1.13.0');
      old.cleanUp();
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
    expect(setup(['--help']).said).to.contain('--into-package');
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
      console.log('      skipped: there is no build made by setup');
      this.skip();
    }
    const made = temporary.path('made');
    for (const part of [
      'package.json',
      'dist',
      'native',
      'scripts',
      'CMakeLists.txt',
      'build/senet-stamp.json',
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
  });

  it('doctor prints what was found, as text and as data', () => {
    const doctor = path.join(ROOT, 'scripts', 'setup', 'doctor.js');
    const text = spawnSync(process.execPath, [doctor], { encoding: 'utf8' });
    for (const word of [
      'LibTorch',
      'CUDA library',
      'CUDA devices',
      'threads',
      'instruction set',
      'Node',
      'compiler',
      'Ready.',
    ]) {
      expect(text.stdout).to.contain(word);
    }
    const facts = JSON.parse(execFileSync(process.execPath, [doctor, '--json'], { encoding: 'utf8' })) as {
      addon: { loads: boolean; libtorch: { version: string }; threads: { available: number } };
    };
    expect(facts.addon.loads).to.equal(true);
    expect(facts.addon.libtorch.version).to.match(/^\d+\.\d+\.\d+$/);
    expect(facts.addon.threads.available).to.be.at.least(1);
  });
});
