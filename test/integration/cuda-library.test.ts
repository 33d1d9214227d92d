/**
 * LibTorch's CUDA library is loaded before anything asks LibTorch whether CUDA exists, and `doctor` says why there is no
 * device: a copy of the package meets a LibTorch with a stand-in for that library (test/support/fake_cuda.cpp). With a
 * real one the first test looks at that, too.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';

import { expect } from 'chai';

import type { CudaState } from '../../lib/binding';
import { binding } from '../../lib/native';
import { Temporary } from '../support/temporary';

const ROOT = path.join(__dirname, '..', '..');
const DOCTOR = path.join('scripts', 'setup', 'doctor.js');

interface Stamp {
  readonly compiler: { readonly command: string };
  readonly libtorch: {
    readonly include: readonly string[];
    readonly lib: string;
    readonly cxx11Abi: boolean;
  };
}
const { compiler, libtorch } = JSON.parse(
  readFileSync(path.join(ROOT, 'build', 'senet-stamp.json'), 'utf8'),
) as Stamp;

describe("LibTorch's CUDA library", function () {
  this.timeout(120_000);
  const temporary = new Temporary();
  const libraries = temporary.path('package', 'build', 'Release', 'libtorch');

  before(() => {
    for (const part of ['dist', 'scripts', 'package.json', path.join('build', 'Release')]) {
      cpSync(path.join(ROOT, part), temporary.path('package', part), { recursive: true });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), temporary.path('package', 'node_modules'));
    rmSync(libraries, { recursive: true, force: true });
    mkdirSync(libraries);
    for (const name of readdirSync(libtorch.lib)) {
      if (!name.includes('cuda')) symlinkSync(path.join(libtorch.lib, name), path.join(libraries, name));
    }
    execFileSync(compiler.command, [
      ...[
        '-std=c++20',
        '-O0',
        '-w',
        '-shared',
        '-fPIC',
        `-D_GLIBCXX_USE_CXX11_ABI=${libtorch.cxx11Abi ? 1 : 0}`,
      ],
      ...libtorch.include.map((folder) => `-I${folder}`),
      ...[
        path.join(ROOT, 'test', 'support', 'fake_cuda.cpp'),
        '-o',
        path.join(libraries, 'libtorch_cuda.so'),
      ],
      ...[`-L${libtorch.lib}`, '-ltorch_cpu', '-lc10'],
    ]);
    writeFileSync(temporary.path('libcuda.cpp'), 'extern "C" int cuInit(unsigned) { return 0; }\n');
    mkdirSync(temporary.path('driver'));
    execFileSync(compiler.command, [
      ...['-shared', '-fPIC', temporary.path('libcuda.cpp'), '-o', temporary.path('driver', 'libcuda.so.1')],
    ]);
  });
  after(() => temporary.cleanUp());

  function run(file: string, args: readonly string[], environment: NodeJS.ProcessEnv): string {
    const { CUDA_VISIBLE_DEVICES: _, ...inherited } = process.env;
    const result = spawnSync(process.execPath, [temporary.path('package', file), ...args], {
      env: { ...inherited, LD_LIBRARY_PATH: temporary.path('driver'), ...environment },
      encoding: 'utf8',
    });
    expect(result.stderr).to.equal('');
    return result.stdout;
  }

  function stateWith(environment: NodeJS.ProcessEnv): CudaState {
    const facts = JSON.parse(run(DOCTOR, ['--json'], environment)) as {
      addon: { cuda: CudaState };
    };
    return facts.addon.cuda;
  }

  it('of this machine: LibTorch knows of it if it is there', () => {
    const state = binding.cudaState();
    expect(state.isSeen).to.equal(state.library !== '');
    expect(state.reason === '').to.equal(state.devices > 0);
  });

  it('is loaded before LibTorch is asked for CUDA', () => {
    const state = stateWith({ FAKE_CUDA_DEVICES: '2', FAKE_CUDA_DRIVER: '13010' });
    expect(state).to.deep.equal({
      library: path.join(libraries, 'libtorch_cuda.so'),
      isSeen: true,
      devices: 2,
      reason: '',
      driver: 13010,
      runtime: 13000,
    });
  });

  const reasons: [string, NodeJS.ProcessEnv, RegExp][] = [
    ['no driver', { LD_LIBRARY_PATH: '' }, /^there is no NVIDIA driver: libcuda\.so\.1/],
    [
      'a driver that is too old',
      { FAKE_CUDA_STATUS: '35', FAKE_CUDA_DRIVER: '12020' },
      /^the NVIDIA driver is too old: it serves CUDA 12\.2 at most, and this LibTorch was built for CUDA 13\.0$/,
    ],
    [
      'hidden devices',
      { FAKE_CUDA_STATUS: '100', CUDA_VISIBLE_DEVICES: '' },
      /^CUDA_VISIBLE_DEVICES='' hides every device$/,
    ],
    ['no device', { FAKE_CUDA_STATUS: '100' }, /^the NVIDIA driver finds no device$/],
    ['another failure', { FAKE_CUDA_STATUS: '999' }, /^CUDA does not start: an error of the stand-in$/],
  ];
  for (const [name, environment, reason] of reasons) {
    it(`doctor says why there is no device: ${name}`, function () {
      if (name === 'no driver' && binding.cudaState().driver > 0) {
        console.log('      skipped: this machine has a driver');
        this.skip();
      }
      const state = stateWith(environment);
      expect(state).to.include({ isSeen: true, devices: 0 });
      expect(state.reason).to.match(reason);
    });
  }

  it('doctor prints the reason behind the number of devices', () => {
    const printed = run(DOCTOR, [], { FAKE_CUDA_STATUS: '100', FAKE_CUDA_DRIVER: '12020' });
    expect(printed).to.match(/^CUDA driver +serves CUDA 12\.2; LibTorch was built for CUDA 13\.0$/m);
    expect(printed).to.match(/^CUDA devices +0: the NVIDIA driver finds no device$/m);
  });

  it('doctor says that the library is not there, or why it does not load', () => {
    const file = path.join(libraries, 'libtorch_cuda.so');
    const kept = `${file}.kept`;
    renameSync(file, kept);
    try {
      expect(stateWith({}).reason).to.match(
        /^this LibTorch has no CUDA library \(there is no .*libtorch_cuda\.so\)$/,
      );
      writeFileSync(file, 'no library');
      expect(stateWith({}).reason).to.match(/^LibTorch's CUDA library does not load: .*libtorch_cuda\.so/);
    } finally {
      rmSync(file, { force: true });
      renameSync(kept, file);
    }
  });
});
