'use strict';
// Finding LibTorch: a ladder of sources, tried in order; the first that serves wins, and each that does not says why.
// A source serves only if its version is accepted, its headers are there and its library loads in a process of its own.
// Nothing of this happens inside CMake.
const { spawnSync } = require('node:child_process');
const {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { extractZip } = require('./extract');

/** What is fetched. Anything from MINIMUM on is accepted where it is found. */
const VERSION = '2.13.0';
const MINIMUM = [2, 6];
const ARCHIVE_URL = `https://download.pytorch.org/libtorch/cpu/libtorch-shared-with-deps-${VERSION}%2Bcpu.zip`;
const RUNGS = ['env', 'cache', 'archive', 'wheel', 'python', 'system'];
const LIBRARY = process.platform === 'darwin' ? 'libtorch_cpu.dylib' : 'libtorch_cpu.so';

/** Where fetched LibTorches live: SENET_HOME, or senet-torch in the user's cache folder. */
function home() {
  if (process.env.SENET_HOME) return path.resolve(process.env.SENET_HOME);
  return path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'senet-torch');
}

function cacheFolder() {
  return path.join(home(), `libtorch-${VERSION}-${process.platform}-${process.arch}`);
}

/** The facts of a folder that holds include/ and lib/, or an Error that says what is wrong with it. */
function examine(root, source, layout = {}) {
  const include = layout.include ?? [
    path.join(root, 'include'),
    path.join(root, 'include', 'torch', 'csrc', 'api', 'include'),
  ];
  const lib = layout.lib ?? path.join(root, 'lib');
  const library = path.join(lib, LIBRARY);
  if (!existsSync(root)) throw new Error(`${root} does not exist`);
  if (!existsSync(library)) throw new Error(`there is no ${LIBRARY} in ${lib}`);
  for (const header of ['ATen/core/Tensor.h', 'torch/nn/module.h']) {
    if (!include.some((folder) => existsSync(path.join(folder, header)))) {
      throw new Error(`the header ${header} is missing below ${include[0]}`);
    }
  }
  const version = versionOf(include);
  const [major, minor] = version.split('.').map(Number);
  if (major < MINIMUM[0] || (major === MINIMUM[0] && minor < MINIMUM[1])) {
    throw new Error(`it is LibTorch ${version}, and ${MINIMUM.join('.')} or newer is needed`);
  }
  tryToLoad(library);
  return {
    source,
    root: realpathSync(root),
    include: include.map((folder) => realpathSync(folder)),
    lib: realpathSync(lib),
    version,
    cxx11Abi: usesCxx11Abi(library),
    cudaLibrary: existsSync(path.join(lib, 'libtorch_cuda.so')),
  };
}

/** Read from the headers; where they lie differs from version to version. */
function versionOf(include) {
  for (const folder of include) {
    for (const name of ['torch/headeronly/version.h', 'torch/version.h']) {
      const file = path.join(folder, name);
      if (!existsSync(file)) continue;
      const text = readFileSync(file, 'utf8');
      const parts = ['MAJOR', 'MINOR', 'PATCH'].map(
        (part) => new RegExp(`define TORCH_VERSION_${part} (\\d+)`).exec(text)?.[1],
      );
      if (parts.every((part) => part !== undefined)) return parts.join('.');
    }
  }
  throw new Error(`no version.h below ${include[0]} tells the version`);
}

/** dlopen in a child: a broken library must not take this process with it. */
function tryToLoad(library) {
  const program = `process.dlopen({ exports: {} }, ${JSON.stringify(library)}, require('os').constants.dlopen.RTLD_NOW)`;
  const child = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', timeout: 60_000 });
  // A library that is no addon loads, then fails to register itself.
  const said = `${child.stderr}`;
  if (child.status === 0 || /did not self-register/.test(said)) return;
  const reason =
    /Error: (.*)/.exec(said)?.[1] ??
    child.error?.message ??
    `the process ended with ${child.signal ?? child.status}`;
  throw new Error(`${library} does not load: ${reason}`);
}

/** Which std::string the library was compiled with: a symbol of c10 that has one in its signature tells. */
function usesCxx11Abi(library) {
  const c10 = path.join(path.dirname(library), 'libc10.so');
  return !existsSync(c10) || readFileSync(c10).includes('__cxx11');
}

/** Makes a folder under a temporary name and renames it, so that one that was interrupted never serves. */
async function intoCache(fill) {
  const target = cacheFolder();
  mkdirSync(home(), { recursive: true });
  const work = mkdtempSync(path.join(home(), 'incomplete-'));
  try {
    await fill(work);
    rmSync(target, { recursive: true, force: true });
    renameSync(work, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

/** Of an archive or a wheel only headers and libraries are kept, without LibTorch's Python part. */
function wanted(prefix) {
  return (name) => {
    if (!name.startsWith(prefix)) return null;
    const rest = name.slice(prefix.length);
    if (rest.startsWith('include/')) return rest;
    return /^lib\/[^/]+$/.test(rest) && !/(python|test|backend|aoti_custom)/.test(rest) ? rest : null;
  };
}

function python(args, options = {}) {
  const result = spawnSync('python3', args, { encoding: 'utf8', ...options });
  if (result.error) throw new Error(`python3 does not run: ${result.error.message}`);
  return result;
}

const SOURCES = {
  env() {
    const root = process.env.LIBTORCH;
    if (!root) throw new Error('LIBTORCH is not set');
    return examine(path.resolve(root), 'env');
  },

  cache() {
    const root = cacheFolder();
    if (!existsSync(root)) throw new Error(`nothing was fetched to ${root} yet`);
    return examine(root, 'cache');
  },

  async archive(report) {
    const url = process.env.SENET_LIBTORCH_URL || ARCHIVE_URL;
    if (process.env.SENET_OFFLINE === '1') throw new Error('SENET_OFFLINE=1 forbids the network');
    if (!process.env.SENET_LIBTORCH_URL && (process.platform !== 'linux' || process.arch !== 'x64')) {
      throw new Error(`the official archive is for linux x64, this is ${process.platform} ${process.arch}`);
    }
    const { downloadFile } = require('../../dist/hub/download');
    mkdirSync(home(), { recursive: true });
    const file = path.join(home(), `libtorch-${VERSION}.zip`);
    await downloadFile(url, file, {
      progress: report.download,
      ...(process.env.SENET_LIBTORCH_SHA256 ? { sha256Prefix: process.env.SENET_LIBTORCH_SHA256 } : {}),
    });
    try {
      return examine(await intoCache((folder) => extractZip(file, folder, wanted('libtorch/'))), 'archive');
    } finally {
      rmSync(file, { force: true });
    }
  },

  async wheel() {
    if (process.platform !== 'linux' || process.arch !== 'x64')
      throw new Error('wheels are used on linux x64 only');
    const folder = mkdtempSync(path.join(os.tmpdir(), 'senet-wheel-'));
    const target = [
      '--python-version',
      '3.11',
      '--implementation',
      'cp',
      '--abi',
      'cp311',
      '--platform',
      'manylinux_2_28_x86_64',
    ];
    try {
      const reasons = [];
      // A CUDA wheel needs libraries from other wheels, so the CPU one is asked for first.
      for (const requirement of [`torch==${VERSION}+cpu`, `torch==${VERSION}`]) {
        const args = [
          '-m',
          'pip',
          'download',
          '--retries',
          '0',
          '--timeout',
          '10',
          '--disable-pip-version-check',
          '--quiet',
        ];
        const result = python([
          ...args,
          '--no-deps',
          '--only-binary=:all:',
          ...target,
          '--dest',
          folder,
          requirement,
        ]);
        const file = readdirSync(folder).find((name) => name.endsWith('.whl'));
        if (result.status === 0 && file !== undefined) {
          return examine(
            await intoCache((root) => extractZip(path.join(folder, file), root, wanted('torch/'))),
            'wheel',
          );
        }
        reasons.push(`${requirement}: ${result.stderr.trim().split('\n').at(-1)}`);
      }
      throw new Error(`pip has no wheel (${reasons.join('; ')})`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },

  python() {
    const program =
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";
    const result = python(['-c', program]);
    const folder = result.stdout.trim();
    if (folder === '') throw new Error('the active python3 has no torch');
    return examine(folder, 'python');
  },

  system() {
    const lib = [
      '/usr/lib/x86_64-linux-gnu',
      '/usr/lib/aarch64-linux-gnu',
      '/usr/lib64',
      '/usr/lib',
      '/opt/homebrew/lib',
    ].find((folder) => existsSync(path.join(folder, LIBRARY)));
    if (lib === undefined) throw new Error('no libtorch is installed');
    const prefix = lib.startsWith('/opt/homebrew') ? '/opt/homebrew' : '/usr';
    const include = [
      path.join(prefix, 'include'),
      path.join(prefix, 'include', 'torch', 'csrc', 'api', 'include'),
    ];
    return examine(prefix, 'system', { include, lib });
  },
};

/**
 * The first LibTorch that serves, or only that of the rung `from`.
 *
 * @param report { trying(rung), refused(rung, reason), download: progress callback of the downloader }
 */
async function findLibtorch(from, report) {
  if (from !== undefined && !RUNGS.includes(from)) {
    throw new Error(`--from: expected one of ${RUNGS.join(', ')}, got '${from}'`);
  }
  const reasons = [];
  for (const rung of from === undefined ? RUNGS : [from]) {
    report.trying(rung);
    try {
      return await SOURCES[rung](report);
    } catch (error) {
      reasons.push(`  ${rung.padEnd(8)}${error.message}`);
      report.refused(rung, error.message);
    }
  }
  throw new Error(
    [
      `No source of LibTorch ${VERSION} served (ERR_SENET_SETUP):`,
      ...reasons,
      'Set LIBTORCH to an unpacked LibTorch, or see "LibTorch" in the README for the other ways.',
    ].join('\n'),
  );
}

module.exports = { cacheFolder, examine, findLibtorch, home, RUNGS, VERSION };
