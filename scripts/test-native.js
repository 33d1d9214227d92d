#!/usr/bin/env node
'use strict';
// `npm run test:native`: the C++ tests (test/native), built and run under AddressSanitizer and
// UndefinedBehaviorSanitizer. Arguments go to the test program: a part of a test's name runs only those, and options are
// doctest's.
const { spawnSync } = require('node:child_process');
const os = require('node:os');
const path = require('node:path');
const { bootstrap, ROOT } = require('./bootstrap');

bootstrap();
const { definitionsOf } = require('./setup/build');
const { findLibtorch } = require('./setup/libtorch');
const { adviceFor, missingTools, versionOf } = require('./setup/tools');

const FOLDER = path.join(ROOT, 'build', 'native-test');
const PROGRAM = path.join(FOLDER, 'test', 'native', 'senet_native_tests');

const FLAGS = [
  '-O1',
  '-g1', // functions and lines, which is what a report names
  '-fno-omit-frame-pointer',
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=undefined',
  '-Wno-maybe-uninitialized', // of what the sanitizers add, GCC 12 thinks so
];

const ENVIRONMENT = {
  ASAN_OPTIONS: [
    // LibTorch, and this library's own singletons, are never freed.
    'detect_leaks=0',
    // What nobody wrote reads as NaN, in float32 and in bfloat16, so a test notices if it is used.
    'max_malloc_fill_size=1073741824',
    'malloc_fill_byte=255',
  ].join(':'),
  UBSAN_OPTIONS: 'print_stacktrace=1',
  // More threads than processors are tested: at a barrier they should sleep.
  OMP_WAIT_POLICY: 'passive',
};

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit', ...options });
  if (result.error) throw new Error(`${command}: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Error(`${path.basename(command)} ended with ${result.signal ?? `status ${result.status}`}`);
  }
}

function seconds(since) {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`;
}

async function main() {
  const missing = missingTools();
  if (missing.length > 0) throw new Error(adviceFor(missing));
  const libtorch = await findLibtorch(undefined, {
    trying() {},
    refused: (rung, reason) => console.error(`      ${rung}: ${reason}`),
    waiting: () => console.error('      another set-up is fetching LibTorch; waiting for it'),
    download() {},
  });
  console.error(`[1/2] Building the native tests against LibTorch ${libtorch.version} in ${libtorch.root}`);
  const started = Date.now();
  const definitions = {
    ...definitionsOf(libtorch),
    SENET_NATIVE_TESTS: 'ON',
    CMAKE_BUILD_TYPE: 'Sanitize',
    CMAKE_CXX_FLAGS_SANITIZE: FLAGS.join(' '),
  };
  const defined = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  const generator = versionOf('ninja') === null ? [] : ['-G', 'Ninja'];
  run('cmake', ['-S', ROOT, '-B', FOLDER, ...generator, ...defined], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const jobs = process.env.SENET_BUILD_JOBS ?? String(os.availableParallelism());
  run('cmake', ['--build', FOLDER, '--target', 'senet_native_tests', '--parallel', jobs]);
  console.error(`      done in ${seconds(started)}`);

  console.error('[2/2] Running them under AddressSanitizer and UndefinedBehaviorSanitizer');
  const runStarted = Date.now();
  const environment = { ...process.env };
  delete environment.SENET_COMPILE_KERNELS; // the tests set it themselves
  delete environment.GOMP_SPINCOUNT;
  run(PROGRAM, process.argv.slice(2), { env: { ...environment, ...ENVIRONMENT } });
  console.error(`      done in ${seconds(runStarted)}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
