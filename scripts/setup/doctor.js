#!/usr/bin/env node
'use strict';
// Prints what was found on this machine. Works without a build, and says then what is missing.
const { existsSync, readFileSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { ADDON, isCurrent, lastBuild, ROOT } = require('./build');
const { cacheFolder, findPresent, VERSION } = require('./libtorch');
const { adviceFor, compiler, missingTools, versionOf } = require('./tools');

const HELP = `usage: senet-torch doctor [--json]

Prints what was found: versions, LibTorch and its folder, the CUDA library with cuDNN and NVRTC, the driver, devices,
threads, the instruction set that LibTorch uses, the back ends of compiled models on each device, Node, compiler; and why something is
missing. Exits with 1 if the native part is not ready.`;

/** Facts of the addon, or why it does not load. */
function examineAddon() {
  if (!existsSync(path.join(ROOT, 'dist'))) return { loads: false, reason: 'there is no native build' };
  try {
    const { version } = require('../../dist/tensor/runtime');
    const { binding, loadNative } = require('../../dist/native');
    const file = loadNative();
    const { folder, cpuCapability } = binding.libtorchConfig();
    const { workers, threadsPerWorker, availableThreads } = binding.configuration();
    const cuda = binding.cudaState();
    return {
      loads: true,
      file,
      libtorch: { version: version.libtorch, folder: path.normalize(folder) },
      cuda,
      cudaDevices: Array.from({ length: cuda.devices }, (_, index) => examineDevice(binding, index)),
      threads: { available: availableThreads, workers, perWorker: threadsPerWorker },
      isa: cpuCapability,
      compiled: Object.fromEntries([...DTYPES, 'int8'].map((dtype) => [dtype, backendOf(binding, dtype)])),
    };
  } catch (error) {
    return { loads: false, reason: error.message };
  }
}

/** What compiled models of a dtype run on, and why on nothing faster; where nothing compiles, why. */
function backendOf(binding, dtype, device = 'cpu') {
  try {
    return binding.compiledBackend(dtype, device);
  } catch (error) {
    return { backend: 'none', reason: error.message };
  }
}

const DTYPES = ['float32', 'bfloat16', 'float16'];

/** What the driver tells of a device, and what compiled models would run on there; or why nobody tells. */
function examineDevice(binding, index) {
  try {
    const compiled = DTYPES.map((dtype) => [dtype, backendOf(binding, dtype, `cuda:${index}`)]);
    return { ...binding.cudaDevice(index), compiled: Object.fromEntries(compiled) };
  } catch (error) {
    return { reason: error.message };
  }
}

/** What was loaded, or would be: what `setup` built here, or the package of this platform. */
function examineBuild(last, { file = ADDON }) {
  if (file !== ADDON) {
    const { name, version } = JSON.parse(readFileSync(path.join(path.dirname(file), 'package.json'), 'utf8'));
    return { file, package: `${name} ${version}`, current: true, source: null };
  }
  return {
    file,
    package: null,
    current: last !== null && isCurrent(last.libtorch),
    source: last?.libtorch.source ?? null,
  };
}

function examine() {
  const last = lastBuild();
  const addon = examineAddon();
  // Without an addon that could tell: what a build would take, if it is here already.
  const present = addon.loads ? null : findPresent();
  return {
    package: JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    processor: os.cpus()[0]?.model ?? 'unknown',
    compiler: compiler()?.version ?? null,
    cmake: versionOf('cmake'),
    ninja: versionOf('ninja'),
    python: versionOf('python3'),
    missing: missingTools(),
    build: examineBuild(last, addon),
    cache: { folder: cacheFolder(), present: existsSync(cacheFolder()) },
    cudaCache: { folder: cacheFolder(true), present: existsSync(cacheFolder(true)) },
    present: present && {
      source: present.source,
      version: present.version,
      folder: present.root,
      cudaLibrary: present.cudaLibrary,
    },
    addon,
  };
}

/** "13.0" of 13000, as CUDA's libraries count. */
function cudaVersion(number) {
  return `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;
}

function cudaRows({ cuda, cudaDevices }) {
  const rows = [['CUDA library', cuda.library || 'not loaded']];
  if (cuda.runtime > 0) {
    const serves = cuda.driver > 0 ? `serves CUDA ${cudaVersion(cuda.driver)}` : 'none found';
    rows.push(['CUDA driver', `${serves}; LibTorch was built for CUDA ${cudaVersion(cuda.runtime)}`]);
  }
  if (cuda.library !== '') {
    const { cudnn, nvrtc, missing } = cuda;
    rows.push(
      [
        'cuDNN',
        cudnn > 0
          ? `${Math.floor(cudnn / 10_000)}.${Math.floor((cudnn % 10_000) / 100)}.${cudnn % 100}`
          : 'not found',
      ],
      ['NVRTC', nvrtc > 0 ? cudaVersion(nvrtc) : 'not found'],
    );
    if (missing !== '') rows.push(['CUDA lacks', missing]);
  }
  rows.push(['CUDA devices', `${cuda.devices}${cuda.reason && `: ${cuda.reason}`}`]);
  cudaDevices.forEach(({ name, capability, totalBytes, compiled, reason }, index) => {
    rows.push([
      `cuda:${index}`,
      reason ?? `${name}, compute capability ${capability}, ${(totalBytes / 2 ** 30).toFixed(1)} GiB`,
    ]);
    for (const row of compiledRows(compiled ?? {})) rows.push(['  compiled', row]);
  });
  return rows;
}

/** "float32, float16: cuda-fused"; what is the same for several dtypes stands once. */
function compiledRows(compiled) {
  const dtypes = new Map();
  for (const [dtype, { backend, reason }] of Object.entries(compiled)) {
    const what = reason === '' ? backend : `${backend}, since ${reason}`;
    dtypes.set(what, [...(dtypes.get(what) ?? []), dtype]);
  }
  return [...dtypes].map(([what, of]) => `${of.join(', ')}: ${what}`);
}

function print(facts) {
  const { addon } = facts;
  const rows = [
    ['senet-torch', facts.package],
    ['Node', facts.node],
    ['platform', `${facts.platform}, ${facts.processor}`],
    ['compiler', facts.compiler ?? 'not found'],
    ['cmake', facts.cmake ?? 'not found'],
    ['ninja', facts.ninja ?? 'not found (make serves)'],
    ['python3', facts.python ?? 'not found (only needed to fetch the wheel)'],
    ['LibTorch cache', `${facts.cache.folder}${facts.cache.present ? '' : ' (empty)'}`],
    ...(facts.cudaCache.present ? [['with CUDA', facts.cudaCache.folder]] : []),
    [
      'native build',
      existsSync(facts.build.file)
        ? `${facts.build.file}${facts.build.package === null ? '' : ` (${facts.build.package})`}${facts.build.current ? '' : ' (sources have changed since)'}`
        : 'none',
    ],
  ];
  if (addon.loads) {
    rows.push(
      ['LibTorch', `${addon.libtorch.version} in ${addon.libtorch.folder}`],
      ...cudaRows(addon),
      [
        'threads',
        `${addon.threads.available} granted; ${addon.threads.workers} worker(s) with ${addon.threads.perWorker} each`,
      ],
      ['instruction set', addon.isa],
      ...compiledRows(addon.compiled).map((row, index) => [index === 0 ? 'compiled models' : '', row]),
    );
  }
  if (facts.present !== null) {
    const { source, version, folder, cudaLibrary } = facts.present;
    rows.push(
      ['LibTorch', `${version} in ${folder} (${source}; not built against yet)`],
      ['CUDA library', cudaLibrary ? 'present' : 'not present'],
    );
  } else if (!addon.loads) rows.push(['LibTorch', 'none found on this machine; set-up fetches it']);
  for (const [name, value] of rows) console.log(`${name.padEnd(16)}${value}`);
  if (addon.loads) console.log('\nReady.');
  else {
    console.log(`\nNot ready: ${addon.reason}`);
    console.log(
      facts.missing.length > 0
        ? adviceFor(facts.missing)
        : `Run \`npx senet-torch setup\` to get LibTorch ${VERSION} and build.`,
    );
  }
}

/** What was typed; null of what is none of its options, which is said. */
function readArguments() {
  try {
    return parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }).values;
  } catch (error) {
    console.error(error.message);
    return null;
  }
}

const values = readArguments();
if (values === null) process.exitCode = 2;
else if (values.help) {
  console.log(HELP);
} else {
  const facts = examine();
  if (values.json) console.log(JSON.stringify(facts, null, 2));
  else print(facts);
  process.exitCode = facts.addon.loads ? 0 : 1;
}
