'use strict';
// Builds the addon with cmake-js against a LibTorch that was found (libtorch.js). Skipped when sources, LibTorch and
// compiler are those of the last build.
const { spawn } = require('node:child_process');
const { createHash } = require('node:crypto');
const { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { createInterface } = require('node:readline');
const { adviceFor, compiler, missingTools, versionOf } = require('./tools');

const ROOT = path.join(__dirname, '..', '..');
const ADDON = path.join(ROOT, 'build', 'Release', 'senet_torch.node');
const STAMP = path.join(ROOT, 'build', 'senet-stamp.json');
const TOOLCHAIN = path.join(ROOT, 'build', 'senet-toolchain.txt');
const LOG = path.join(ROOT, 'build', 'build.log');

/** A digest of everything that the build depends on. */
function inputsOf(libtorch) {
  const hash = createHash('sha256');
  const visit = (file) => {
    for (const entry of readdirSync(file, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const full = path.join(file, entry.name);
      if (entry.isDirectory()) visit(full);
      else hash.update(`${path.relative(ROOT, full)}\0`).update(readFileSync(full));
    }
  };
  visit(path.join(ROOT, 'native'));
  hash.update(readFileSync(path.join(ROOT, 'CMakeLists.txt')));
  return {
    sources: hash.digest('hex'),
    libtorch: libtorch.root,
    version: libtorch.version,
    arch: process.arch,
    napi: ['cmake-js', 'node-addon-api'].map((name) => require(`${name}/package.json`).version).join(' '),
  };
}

/** What CMakeLists.txt asks for. */
function definitionsOf(libtorch) {
  return {
    SENET_LIBTORCH_INCLUDE: libtorch.include.join(';'),
    SENET_LIBTORCH_LIB: libtorch.lib,
    SENET_LIBTORCH_VERSION: libtorch.version,
    SENET_CXX11_ABI: libtorch.cxx11Abi ? 1 : 0,
  };
}

/** What CMake keeps from its first run and does not notice when it changes. */
function toolchain() {
  return `${compiler()?.version ?? 'no compiler'}, ${versionOf('ninja') === null ? 'make' : 'ninja'}`;
}

/** What the last successful build was made from, or null. */
function lastBuild() {
  if (!existsSync(ADDON) || !existsSync(STAMP)) return null;
  try {
    return JSON.parse(readFileSync(STAMP, 'utf8'));
  } catch {
    return null; // cut off: as good as none
  }
}

function isCurrent(libtorch) {
  const last = lastBuild();
  if (last === null || JSON.stringify(last.inputs) !== JSON.stringify(inputsOf(libtorch))) return false;
  // A machine without a compiler, such as the second stage of a container, uses what another one built.
  const present = compiler();
  return present === null || present.version === last.compiler.version;
}

/**
 * Builds, reporting lines such as "[12/19] Building ..." through `onProgress`.
 * Rejects with one message that says what is missing or shows the compiler's last lines.
 */
async function build(libtorch, onProgress) {
  const missing = missingTools();
  if (missing.length > 0) throw new Error(adviceFor(missing));
  const inputs = inputsOf(libtorch);
  rmSync(STAMP, { force: true });
  if (!existsSync(TOOLCHAIN) || readFileSync(TOOLCHAIN, 'utf8') !== toolchain()) {
    for (const name of ['CMakeCache.txt', 'CMakeFiles']) {
      rmSync(path.join(ROOT, 'build', name), { recursive: true, force: true });
    }
    mkdirSync(path.dirname(TOOLCHAIN), { recursive: true });
    writeFileSync(TOOLCHAIN, toolchain());
  }
  const cmakeJs = path.join(path.dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js');
  const shared = [
    '--directory',
    ROOT,
    '--config',
    'Release',
    '--parallel',
    String(os.availableParallelism()),
  ];
  const defined = Object.entries(definitionsOf(libtorch)).map(([name, value]) => `--CD${name}=${value}`);
  const lines = [];
  // Configured each time, since `build` alone keeps the paths of the last LibTorch; unchanged sources stay compiled.
  let status = await run([cmakeJs, 'configure', ...shared, ...defined], lines, onProgress);
  if (status === 0) status = await run([cmakeJs, 'build', ...shared, ...defined], lines, onProgress);
  writeFileSync(LOG, `${lines.join('\n')}\n`);
  if (status !== 0 || !existsSync(ADDON)) {
    const telling = lines.filter((line) => /error|FAILED|fatal/i.test(line)).slice(0, 20);
    throw new Error(
      `${(telling.length > 0 ? telling : lines.slice(-20)).join('\n')}\n\nThe native build failed; the whole output is in ${LOG}.`,
    );
  }
  writeFileSync(STAMP, `${JSON.stringify({ inputs, compiler: compiler(), libtorch }, null, 2)}\n`);
}

function run(args, lines, onProgress) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    const take = (line) => {
      if (line.trim() === '') return;
      lines.push(line);
      const progress = /\[\s*(\d+\/\d+|\d+%)\]\s.*/.exec(line);
      if (progress) onProgress(progress[0]);
    };
    createInterface({ input: child.stdout }).on('line', take);
    createInterface({ input: child.stderr }).on('line', take);
    child.on('error', reject);
    child.on('close', resolve);
  });
}

module.exports = { ADDON, build, definitionsOf, isCurrent, lastBuild, ROOT };
