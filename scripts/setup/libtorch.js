'use strict';
// Finding LibTorch: a ladder of sources, tried in order; the first that serves wins, and each that does not says why.
// A source serves only if its version is accepted, its headers are there and its library loads in a process of its own.
// Nothing of this happens inside CMake.
const { spawn, spawnSync } = require('node:child_process');
const { createHash } = require('node:crypto');
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
const { createInterface } = require('node:readline');
const { extractZip } = require('./extract');
const { withLock } = require('./lock');

/** What is fetched. Anything from MINIMUM on is accepted where it is found. */
const VERSION = '2.13.0';
const MINIMUM = [2, 6];
/** Which CUDA is fetched: 13.0, for GPUs from Turing on (compute capability 7.5) and drivers from 580 on. */
const CUDA = 'cu130';
// The beginning of the names of folders that are being made.
const INCOMPLETE = 'incomplete-';
const RUNGS = ['env', 'cache', 'archive', 'wheel', 'python', 'system'];
const FETCHING = ['archive', 'wheel'];
const LIBRARY = process.platform === 'darwin' ? 'libtorch_cpu.dylib' : 'libtorch_cpu.so';
const CUDA_LIBRARY = 'libtorch_cuda.so';

/** Where fetched LibTorches live: SENET_HOME, or senet-torch in the user's cache folder. */
function home() {
  if (process.env.SENET_HOME) return path.resolve(process.env.SENET_HOME);
  return path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'senet-torch');
}

function cacheFolder(cuda = false) {
  const kind = cuda ? `-${CUDA}` : '';
  return path.join(home(), `libtorch-${VERSION}${kind}-${process.platform}-${process.arch}`);
}

function archiveUrl(cuda) {
  const kind = cuda ? CUDA : 'cpu';
  return `https://download.pytorch.org/libtorch/${kind}/libtorch-shared-with-deps-${VERSION}%2B${kind}.zip`;
}

/** The facts of a folder that holds include/ and lib/, or an Error that says what is wrong with it. */
function examine(root, source, cuda, layout = {}) {
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
  const cudaLibrary = path.join(lib, CUDA_LIBRARY);
  if (cuda && !existsSync(cudaLibrary)) throw new Error(`there is no ${CUDA_LIBRARY} in ${lib}`);
  tryToLoad(library);
  if (cuda) tryToLoad(cudaLibrary);
  return {
    source,
    root: realpathSync(root),
    include: include.map((folder) => realpathSync(folder)),
    lib: realpathSync(lib),
    version,
    cxx11Abi: usesCxx11Abi(library),
    cudaLibrary: existsSync(cudaLibrary),
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

/** Which std::string the library was compiled with: c10's function that throws has one in its signature. */
function usesCxx11Abi(library) {
  const c10 = path.join(path.dirname(library), 'libc10.so');
  return !existsSync(c10) || !readFileSync(c10).includes('torchCheckFailEPKcS2_jRKSs');
}

/**
 * Makes the cached folder under a temporary name, examines it and only then puts it in place: neither a fetch that was
 * interrupted nor a LibTorch that does not serve ever takes the place of one that does.
 */
async function intoCache(source, cuda, fill) {
  const target = cacheFolder(cuda);
  const work = mkdtempSync(path.join(home(), INCOMPLETE));
  const old = `${work}-old`;
  try {
    await fill(work);
    examine(work, source, cuda);
    if (existsSync(target)) renameSync(target, old);
    renameSync(work, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
    rmSync(old, { recursive: true, force: true });
  }
  return examine(target, source, cuda);
}

/** Of an archive or a wheel only headers, libraries and licences are kept, without LibTorch's Python part. */
function wanted(prefix) {
  return (name) => {
    const licence = /^torch-[^/]+\.dist-info\/(licenses\/.+)$/.exec(name)?.[1];
    if (licence !== undefined) return licence;
    if (!name.startsWith(prefix)) return null;
    const rest = name.slice(prefix.length);
    if (rest.startsWith('include/')) return rest;
    return /^lib\/[^/]+$/.test(rest) && !/(python|test|backend|aoti_custom)/.test(rest) ? rest : null;
  };
}

/** Of a wheel with NVIDIA's libraries, those; all in LibTorch's folder, as they lie in the official archive. */
function companion(name) {
  const file = /^nvidia\/(?:[^/]+\/)*lib\/([^/]+\.so(?:\.\d+)*)$/.exec(name)?.[1];
  return file === undefined ? null : `lib/${file}`;
}

function python(args) {
  const result = spawnSync('python3', args, { encoding: 'utf8' });
  if (result.error) throw pythonError(result.error);
  return result;
}

function pythonError(error) {
  return new Error(
    error.code === 'ENOENT'
      ? 'python3 is not installed (Debian, Ubuntu: sudo apt-get install python3 python3-pip)'
      : `python3 does not run: ${error.message}`,
  );
}

const CP311 = ['--python-version', '3.11', '--implementation', 'cp', '--abi', 'cp311'];

/** The path of the wheel that pip brought to `folder`, or an Error with pip's reasons. */
async function downloadWheel(folder, cuda, report) {
  // Any Python's wheel holds the same libraries; the last attempt takes what the active Python would.
  const attempts = [
    // A CUDA wheel needs libraries from other wheels, so without --cuda the CPU one is asked for first.
    [`torch==${VERSION}+${cuda ? CUDA : 'cpu'}`, ...CP311, '--platform', 'manylinux_2_28_x86_64'],
    [`torch==${VERSION}`, ...CP311, '--platform', 'manylinux_2_28_x86_64'],
    [`torch==${VERSION}`],
  ];
  const reasons = [];
  for (const [requirement, ...target] of attempts) {
    const said = await pip(['--no-deps', ...target, requirement], folder, report);
    if (said === null) {
      const name = readdirSync(folder).find((file) => file.endsWith('.whl'));
      if (name !== undefined) return path.join(folder, name);
    }
    reasons.push(`${requirement}: ${said ?? 'no wheel came'}`);
    // Without pip or a connection another attempt only takes time.
    if (
      /No module named pip|timed out|NewConnectionError|Temporary failure|Network is unreachable/.test(said)
    )
      break;
  }
  throw new Error(`pip has no wheel (${[...new Set(reasons)].join('; ')})`);
}

/** The wheels with NVIDIA's libraries that a torch wheel asks for, each unpacked by `take(file)` and dropped. */
async function downloadCompanions(wheel, folder, report, take) {
  const facts = path.join(folder, 'METADATA');
  await extractZip(wheel, folder, (name) => (/^[^/]+\.dist-info\/METADATA$/.test(name) ? 'METADATA' : null));
  const requirements = [...readFileSync(facts, 'utf8').matchAll(/^Requires-Dist: ([^;\r\n]+)/gm)]
    .map(([, requirement]) => requirement.trim())
    .filter((requirement) => /^(nvidia-|cuda-toolkit\b)/.test(requirement));
  if (requirements.length === 0) return;
  const wheels = path.join(folder, 'companions');
  mkdirSync(wheels);
  const platforms = ['manylinux_2_28', 'manylinux_2_27', 'manylinux_2_25', 'manylinux_2_18', 'manylinux2014'];
  const target = platforms.flatMap((platform) => ['--platform', `${platform}_x86_64`]);
  const said = await pip([...CP311, ...target, ...requirements], wheels, report);
  if (said !== null) throw new Error(`pip has not all that ${path.basename(wheel)} needs (${said})`);
  for (const name of readdirSync(wheels).filter((file) => file.endsWith('.whl'))) {
    await take(path.join(wheels, name));
    rmSync(path.join(wheels, name));
  }
}

const UNITS = { kB: 1e3, MB: 1e6, GB: 1e9 };

/** `pip download`, reporting bytes that have come and those announced; null if it succeeded, else the telling line. */
function pip(wanted, folder, report) {
  const offline = process.env.SENET_OFFLINE === '1' ? ['--no-index'] : [];
  const how = ['--retries', '0', '--timeout', '10', '--disable-pip-version-check', '--progress-bar', 'off'];
  const args = ['download', ...how, ...offline, '--only-binary=:all:', '--dest', folder, ...wanted];
  return new Promise((resolve, reject) => {
    const child = spawn('python3', ['-m', 'pip', ...args], {
      env: { ...process.env, TMPDIR: folder },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let total = 0;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [, size, unit] = /^\s*Downloading .* \(([\d.]+) (kB|MB|GB)\)/.exec(line) ?? [];
      if (unit !== undefined) total += size * UNITS[unit];
    });
    const progress = () => report.download({ bytes: bytesIn(folder), ...(total > 0 && { total }) });
    const timer = setInterval(progress, 1000);
    let said = '';
    child.stderr.on('data', (chunk) => (said += chunk));
    child.on('error', (error) => {
      clearInterval(timer);
      reject(pythonError(error));
    });
    child.on('close', (status) => {
      clearInterval(timer);
      const lines = said.trim().split('\n');
      const refused = lines.find((line) =>
        /timed out|NewConnectionError|Temporary failure|unreachable/.test(line),
      );
      resolve(status === 0 ? null : (refused ?? lines.at(-1)).trim().slice(0, 300));
    });
  });
}

function bytesIn(folder) {
  let bytes = 0;
  for (const name of readdirSync(folder, { recursive: true })) {
    bytes += statSync(path.join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

const SOURCES = {
  env(cuda) {
    const root = process.env.LIBTORCH;
    if (!root) throw new Error('LIBTORCH is not set');
    return examine(path.resolve(root), 'env', cuda);
  },

  cache(cuda) {
    const root = cacheFolder(cuda);
    if (!existsSync(root)) throw new Error(`nothing was fetched to ${root} yet`);
    return examine(root, 'cache', cuda);
  },

  async archive(cuda, report) {
    const url = process.env.SENET_LIBTORCH_URL || archiveUrl(cuda);
    if (process.env.SENET_OFFLINE === '1') throw new Error('SENET_OFFLINE=1 forbids the network');
    if (!process.env.SENET_LIBTORCH_URL && (process.platform !== 'linux' || process.arch !== 'x64')) {
      throw new Error(`the official archive is for linux x64, this is ${process.platform} ${process.arch}`);
    }
    const { downloadFile } = require('../../dist/hub/download');
    const sha256 = process.env.SENET_LIBTORCH_SHA256 || undefined;
    // Named after what was asked for: a file that a killed set-up left must not pass for another one.
    const asked = createHash('sha256').update(`${url} ${sha256}`).digest('hex').slice(0, 12);
    const file = path.join(home(), `libtorch-${VERSION}-${asked}.zip`);
    // No hash of the official archive is published: without SENET_LIBTORCH_SHA256 it is checked by TLS, its length, the
    // checksums of its entries and the trial load.
    await downloadFile(url, file, {
      progress: report.download,
      ...(sha256 === undefined ? {} : { sha256Prefix: sha256 }),
    });
    try {
      return await intoCache('archive', cuda, (folder) => extractZip(file, folder, wanted('libtorch/')));
    } finally {
      rmSync(file, { force: true });
    }
  },

  async wheel(cuda, report) {
    if (process.platform !== 'linux' || process.arch !== 'x64')
      throw new Error('wheels are used on linux x64 only');
    // In the home, so that what a killed set-up leaves (pip's own temporary files too) is cleaned by the next one.
    const folder = mkdtempSync(path.join(home(), INCOMPLETE));
    try {
      const file = await downloadWheel(folder, cuda, report);
      return await intoCache('wheel', cuda, async (root) => {
        await extractZip(file, root, wanted('torch/'));
        if (cuda) await downloadCompanions(file, folder, report, (one) => extractZip(one, root, companion));
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },

  python(cuda) {
    const program =
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')";
    const result = python(['-c', program]);
    const folder = result.stdout.trim();
    if (folder === '') throw new Error('the active python3 has no torch');
    return examine(folder, 'python', cuda);
  },

  system(cuda) {
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
    return examine(prefix, 'system', cuda, { include, lib });
  },
};

/** One process fetches at a time; another one waits and then takes what was fetched. */
function fetchLocked(rung, from, cuda, report) {
  return withLock(home(), 'fetch', report.waiting, (waited) => {
    for (const name of readdirSync(home())) {
      if (name.startsWith(INCOMPLETE)) rmSync(path.join(home(), name), { recursive: true, force: true });
    }
    if (waited && from === undefined && existsSync(cacheFolder(cuda))) return SOURCES.cache(cuda);
    return SOURCES[rung](cuda, report);
  });
}

/** A LibTorch that needs no fetching, or null. */
function findPresent() {
  for (const rung of ['env', 'cache', 'python', 'system']) {
    try {
      return SOURCES[rung](false);
    } catch {
      // the next may serve
    }
  }
  return null;
}

/**
 * The first LibTorch that serves, or only that of the rung `from`; with `cuda` one that has its CUDA library.
 *
 * @param report { trying(rung), refused(rung, reason), waiting(), download: progress callback of the downloader }
 */
async function findLibtorch(from, report, cuda = false) {
  if (from !== undefined && !RUNGS.includes(from)) {
    throw new Error(`--from: expected one of ${RUNGS.join(', ')}, got '${from}'`);
  }
  const reasons = [];
  for (const rung of from === undefined ? RUNGS : [from]) {
    report.trying(rung);
    try {
      return FETCHING.includes(rung)
        ? await fetchLocked(rung, from, cuda, report)
        : await SOURCES[rung](cuda, report);
    } catch (error) {
      reasons.push(`  ${rung.padEnd(8)}${error.message}`);
      report.refused(rung, error.message);
    }
  }
  throw new Error(
    [
      `No source of LibTorch ${VERSION}${cuda ? ' with CUDA' : ''} served (ERR_SENET_SETUP):`,
      ...reasons,
      'Set LIBTORCH to an unpacked LibTorch, or see docs/setup.md for the other ways.',
    ].join('\n'),
  );
}

module.exports = { cacheFolder, CUDA_LIBRARY, findLibtorch, findPresent, LIBRARY, RUNGS, tryToLoad, VERSION };
