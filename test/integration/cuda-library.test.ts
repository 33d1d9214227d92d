/**
 * LibTorch's CUDA library is loaded before anything asks LibTorch whether CUDA exists, `doctor` says why there is no
 * device, and what the library does beside kernels (memory, waiting, failures, indices, a second device) holds: a copy of
 * the package meets a LibTorch with a stand-in for that library and for the driver's (test/support/fake_cuda.cpp,
 * fake_driver.cpp). With a real one the first test looks at that, too.
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
import { skip } from '../support/skip';

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
    mkdirSync(temporary.path('driver'));
    execFileSync(compiler.command, [
      ...['-shared', '-fPIC', path.join(ROOT, 'test', 'support', 'fake_driver.cpp')],
      ...['-o', temporary.path('driver', 'libcuda.so.1')],
    ]);
  });
  after(() => temporary.cleanUp());

  function run(args: readonly string[], environment: NodeJS.ProcessEnv): string {
    const { CUDA_VISIBLE_DEVICES: _, ...inherited } = process.env;
    const result = spawnSync(process.execPath, args, {
      env: { ...inherited, LD_LIBRARY_PATH: temporary.path('driver'), ...environment },
      encoding: 'utf8',
    });
    expect(result.stderr).to.equal('');
    return result.stdout;
  }

  function doctor(args: readonly string[], environment: NodeJS.ProcessEnv): string {
    return run([temporary.path('package', DOCTOR), ...args], environment);
  }

  function stateWith(environment: NodeJS.ProcessEnv): CudaState {
    const facts = JSON.parse(doctor(['--json'], environment)) as { addon: { cuda: CudaState } };
    return facts.addon.cuda;
  }

  /** What a program gives that meets two devices; `codeOf` and `errorOf` are of what a function throws or rejects with. */
  function withTwoDevices(program: string, environment: NodeJS.ProcessEnv = {}): unknown {
    const prelude = `
      const senet = require(${JSON.stringify(temporary.path('package'))});
      const errorOf = async (attempt) => {
        try {
          await attempt();
          return 'no error';
        } catch (error) {
          return error;
        }
      };
      const codeOf = async (attempt) => (await errorOf(attempt)).code ?? 'no error';
      const main = async () => {${program}};
      main().then((result) => console.log(JSON.stringify(result)));`;
    return JSON.parse(
      run(['-e', prelude], { FAKE_CUDA_DEVICES: '2', FAKE_CUDA_DRIVER: '13010', ...environment }),
    );
  }

  it('of this machine: LibTorch knows of it if it is there', () => {
    const state = binding.cudaState();
    expect(state.isSeen).to.equal(state.library !== '');
    expect(state.reason === '').to.equal(state.devices > 0);
  });

  it('is loaded before LibTorch is asked for CUDA', () => {
    const state = stateWith({ FAKE_CUDA_DEVICES: '2', FAKE_CUDA_DRIVER: '13010' });
    expect(state).to.include({
      library: path.join(libraries, 'libtorch_cuda.so'),
      isSeen: true,
      devices: 2,
      reason: '',
      driver: 13010,
      runtime: 13000,
      nvrtc: 0,
      cudnn: 0,
    });
    expect(state.missing).to.match(/libnvrtc: .*libcaffe2_nvrtc\.so/);
  });

  it('doctor prints the devices, and what of CUDA is missing', () => {
    const printed = doctor([], { FAKE_CUDA_DEVICES: '2', FAKE_CUDA_DRIVER: '13010' });
    expect(printed).to.match(/^CUDA devices +2$/m);
    expect(printed).to.match(/^cuda:1 +Stand-in 1, compute capability 9\.1, 1\.5 GiB$/m);
    expect(printed).to.match(/^cuDNN +not found$/m);
    expect(printed).to.match(/^CUDA lacks +.*libcaffe2_nvrtc\.so/m);
    const backends =
      /^ {2}compiled +float32, bfloat16, float16: cuda, since missing: .*libcaffe2_nvrtc\.so/gm;
    expect(printed.match(backends)).to.have.length(2);
    const asked = doctor([], { FAKE_CUDA_DEVICES: '1', SENET_COMPILE_KERNELS: 'libtorch' });
    expect(asked).to.match(/^ {2}compiled +.*: cuda, since SENET_COMPILE_KERNELS is libtorch$/m);
  });

  it('cuda tells names and memory of each device, and dispose and emptyCache give it back', () => {
    const result = withTwoDevices(`
      const { cuda, memory, zeros } = senet;
      const seen = [[cuda.deviceName(), cuda.deviceName(1)], cuda.memory(1), memory().deviceBytes];
      const x = zeros([256], { device: 'cuda:1' });
      seen.push(cuda.memory(1), cuda.memory().allocated, memory().deviceBytes, x.to('cpu').toArray().length);
      x.dispose();
      seen.push(cuda.memory(1), memory().deviceBytes);
      cuda.emptyCache();
      seen.push(cuda.memory(1), await cuda.synchronize(1) ?? null);
      return seen;`);
    const total = 2 ** 30;
    const held = (allocated: number, reserved: number): object => {
      return { allocated, reserved, free: total - reserved, total };
    };
    expect(result).to.deep.equal([
      ['Stand-in 0', 'Stand-in 1'],
      ...[held(0, 0), 0],
      ...[held(1024, 1024), 0, 1024, 256],
      ...[held(0, 1024), 0],
      ...[held(0, 0), null],
    ]);
  });

  it('an index of a device that is none is a coded error', () => {
    const result = withTwoDevices(`
      const { cuda } = senet;
      return Promise.all([
        () => cuda.deviceName(2),
        () => cuda.memory(2),
        () => cuda.synchronize(2),
        () => cuda.memory(-1),
        () => cuda.memory('cuda:0'),
        () => senet.zeros([1], { device: 'cuda:2' }),
      ].map(codeOf));`);
    const unavailable = 'ERR_SENET_CUDA_UNAVAILABLE';
    expect(result).to.deep.equal([
      ...[unavailable, unavailable, unavailable, 'ERR_SENET_ARG_RANGE', 'ERR_SENET_ARG_TYPE', unavailable],
    ]);
  });

  it('memory of a device that is dropped is collected without a dispose', () => {
    const gigabytes = withTwoDevices(`
      let most = 0;
      for (let i = 0; i < 3000; i++) {
        senet.empty([2 ** 18], { device: 'cuda' });
        await new Promise(setImmediate);
        most = Math.max(most, senet.memory().deviceBytes);
      }
      return most / 2 ** 30;`);
    expect(gigabytes).to.be.below(0.5); // untold, V8 lets more than 1 GB of them stay
  });

  const assertion = [
    'CUDA error: device-side assert triggered',
    'CUDA kernel errors might be asynchronously reported at some other API call',
  ].join('\n');

  for (const [name, failure] of [
    ["a kernel's assert", assertion],
    ['cuDNN, which does not tell why', 'cuDNN error: CUDNN_STATUS_EXECUTION_FAILED'],
  ] as const) {
    it(`a device is lost by ${name}: later calls say so at once, the other device goes on`, () => {
      const [first, later, rest] = withTwoDevices(
        `
        const { cuda, tensor, zeros } = senet;
        const [x, other] = [zeros([2], { device: 'cuda:0' }), tensor([1, 2], { device: 'cuda:1' })];
        await cuda.synchronize(1);
        const first = await errorOf(() => cuda.synchronize());
        const later = await Promise.all([
          () => cuda.synchronize(),
          () => cuda.memory(),
          () => cuda.deviceName(0),
          () => zeros([2], { device: 'cuda' }),
          () => x.toArray(),
          () => x.add(1),
          () => other.to('cuda:0'),
        ].map(codeOf));
        const known = [x.device, x.shape];
        x.dispose();
        const rest = [...known, other.toArray(), cuda.memory(1).allocated, zeros([1]).toArray()];
        return [{ code: first.code, message: first.message }, later, rest];`,
        { FAKE_CUDA_FAILURE: failure, FAKE_CUDA_SILENT: '0' },
      ) as [{ code: string; message: string }, string[], unknown[]];
      expect(first.code).to.equal('ERR_SENET_CUDA_LOST');
      expect(first.message).to.contain(`cuda:0 is lost to this process (${failure.split('\n')[0]})`);
      expect(first.message).to.contain('Restart the process');
      expect(new Set(later)).to.deep.equal(new Set(['ERR_SENET_CUDA_LOST']));
      expect(rest).to.deep.equal(['cuda:0', [2], [1, 2], 8, [0]]);
    });
  }

  const failures: [failure: string, code: string][] = [
    ['CUDA error: invalid configuration argument', 'ERR_SENET_CUDA'],
    ['cuDNN error: CUDNN_STATUS_NOT_SUPPORTED', 'ERR_SENET_CUDA'],
    ['CUDA error: out of memory', 'ERR_SENET_OUT_OF_MEMORY'],
    ['CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`', 'ERR_SENET_OUT_OF_MEMORY'],
    ['Expected all tensors to be on the same device, got cuda:0 and cpu', 'ERR_SENET_LIBTORCH'],
  ];
  for (const [failure, code] of failures) {
    it(`'${failure}' is ${code}, and the device goes on`, () => {
      const result = withTwoDevices(
        'return [await codeOf(() => senet.cuda.synchronize()), senet.cuda.memory().allocated];',
        { FAKE_CUDA_FAILURE: failure, FAKE_CUDA_SILENT: '-1' },
      );
      expect(result).to.deep.equal([code, 0]);
    });
  }

  it('indices that came from here are checked before a kernel could assert', () => {
    // What passes the check ends in ERR_SENET_LIBTORCH: the stand-in has no kernels.
    const result = withTwoDevices(`
      const { CrossEntropyLoss, NLLLoss, ops, tensor, zeros } = senet;
      const device = 'cuda:1';
      const x = zeros([4, 3], { device });
      const built = (...values) => tensor(values.map(BigInt), { device });
      const moved = (...values) => tensor(values.map(BigInt)).to(device);
      const changed = built(0, 4);
      ops.call('aten::zero_', changed);
      const message = (await errorOf(() => x.indexSelect(1, built(0, 3)))).message;
      const labels = await errorOf(() => new CrossEntropyLoss().forward(x, moved(0, 1, 2, 7)));
      const codes = await Promise.all([
        () => x.indexSelect(0, built(0, 3)),
        () => x.indexSelect(0, built(0, 4)),
        () => x.indexSelect(-2, moved(-1, 3)),
        () => x.indexSelect(0, changed),
        () => x.gather(1, moved(3).view(1, 1)),
        () => x.gather(1, tensor([[3n]], { device })),
        () => ops.call('aten::embedding', x, built(4)),
        () => ops.callAsync('aten::index_add', x, 0, tensor([9], { dtype: 'int32', device }), x),
        () => new CrossEntropyLoss({ ignoreIndex: 255 }).forward(x, built(0, 255, 2, 1)),
        () => new NLLLoss({ ignoreIndex: 255 }).forward(x, built(0, 255, 3, 1)),
        () => ops.call('aten::nll_loss_nd', x, built(0, 0, 0, 3), null, 1, -100),
        () => ops.call('aten::nll_loss_nd', x, built(0, 0, -100, 2), null, 1, -100),
      ].map(codeOf));
      return [message, labels.code, labels.message, codes];`);
    const [range, kernel] = ['ERR_SENET_ARG_RANGE', 'ERR_SENET_LIBTORCH'];
    expect(result).to.deep.equal([
      'aten::index_select: index 3 is out of range for dimension 1 of size 3',
      'ERR_SENET_LABELS',
      'CrossEntropyLoss: label 7 is none of the 3 classes (0 to 2)',
      [
        ...[kernel, range, range, kernel],
        ...[kernel, range, range, range], // of a view nothing is known
        ...[kernel, 'ERR_SENET_LABELS', range, kernel],
      ],
    ]);
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
        skip(this, 'this machine has a driver');
      }
      const state = stateWith(environment);
      expect(state).to.include({ isSeen: true, devices: 0 });
      expect(state.reason).to.match(reason);
    });
  }

  it('doctor prints the reason behind the number of devices', () => {
    const printed = doctor([], { FAKE_CUDA_STATUS: '100', FAKE_CUDA_DRIVER: '12020' });
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
