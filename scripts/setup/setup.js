#!/usr/bin/env node
'use strict';
// The native half of the set-up: find LibTorch, build the addon, and on demand copy LibTorch's libraries into the
// package so that its folder can be moved. Run by `npm start`, `npm test` and `npx senet-torch setup`.
const {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
} = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { ADDON, build, isCurrent, lastBuild } = require('./build');
const { cacheFolder, CUDA_LIBRARY, findLibtorch, LIBRARY, RUNGS, tryToLoad, VERSION } = require('./libtorch');
const { withLock } = require('./lock');
const { adviceFor, missingTools } = require('./tools');

const HELP = `usage: senet-torch setup [options]

Finds LibTorch ${VERSION} and builds the native addon. Steps that are done are skipped.

options:
  --cuda           take a LibTorch with CUDA: it has NVIDIA's libraries with it, 4 GB on disk, and needs no CUDA toolkit
  --from RUNG      take LibTorch from one source only: ${RUNGS.join(', ')}
  --into-package   copy LibTorch's libraries into the package, so that its folder can be moved (a Docker stage)
  --force          build again
  -h, --help       show this help

LibTorch is looked for in this order; the first that serves wins:
  env      the folder in the environment variable LIBTORCH
  cache    what an earlier set-up fetched (${cacheFolder()};
           with --cuda ${path.basename(cacheFolder(true))} beside it)
  archive  LibTorch's official archive (SENET_LIBTORCH_URL and SENET_LIBTORCH_SHA256 name another)
  wheel    the torch wheel from your pip index; with --cuda those of NVIDIA's libraries that it asks for, too
  python   the torch package of the active python3
  system   a libtorch installed by the system`;

// Where the addon looks for LibTorch first.
const PACKAGED = path.join(path.dirname(ADDON), 'libtorch');

/** Lines on stderr; on a terminal the last one is rewritten as work goes on. */
function makeReport() {
  const terminal = process.stderr.isTTY === true;
  let open = false;
  let shown = Date.now();
  const close = () => {
    if (open) process.stderr.write('\n');
    open = false;
  };
  return {
    line(text) {
      close();
      process.stderr.write(`${text}\n`);
    },
    update(text) {
      if (!terminal) return;
      process.stderr.write(`\r\x1b[K      ${text.slice(0, (process.stderr.columns || 80) - 8)}`);
      open = true;
    },
    /** Work that goes on: the last line of a terminal, elsewhere a sign of life now and then. */
    step(text) {
      if (terminal) this.update(text);
      else if (Date.now() - shown > 15_000) {
        shown = Date.now();
        this.line(`      ${text}`);
      }
    },
    close,
  };
}

/** LibTorch's shared libraries beside the addon; its RPATH looks there first. */
function copyIntoPackage(libtorch, report) {
  if (!existsSync(libtorch.lib)) return; // a folder that was moved already: its copy is all there is
  const work = `${PACKAGED}-incomplete`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  const wanted =
    /^(libtorch(_cpu|_cuda|_cuda_linalg|_global_deps|_nvshmem)?|libc10(_cuda)?|libcaffe2_nvrtc|libgomp.*|libcu.*|libnv.*|libnccl.*)\.(so|dylib)/;
  for (const name of readdirSync(libtorch.lib).filter((file) => wanted.test(file))) {
    copyFileSync(path.join(libtorch.lib, name), path.join(work, name));
  }
  rmSync(PACKAGED, { recursive: true, force: true });
  renameSync(work, PACKAGED);
  // A LibTorch may need libraries that lie elsewhere (those of a CUDA wheel do): better said now than after the move.
  try {
    for (const name of [LIBRARY, CUDA_LIBRARY]) {
      if (existsSync(path.join(PACKAGED, name))) tryToLoad(path.join(PACKAGED, name));
    }
  } catch (error) {
    rmSync(PACKAGED, { recursive: true, force: true });
    throw new Error(
      `--into-package: the LibTorch in ${libtorch.root} cannot be moved: ${error.message}\nTry --from archive or --from wheel. (ERR_SENET_SETUP)`,
    );
  }
  report.line(`      copied LibTorch's libraries to ${PACKAGED}`);
}

/**
 * Makes the addon ready. Rejects with an Error whose message is meant for a person.
 *
 * @param options { from, cuda, intoPackage, force }
 */
async function setUp({ from, cuda = false, intoPackage = false, force = false } = {}) {
  const last = lastBuild();
  const wish = process.env.LIBTORCH ? path.resolve(process.env.LIBTORCH) : undefined;
  const sameSource =
    last !== null &&
    (!cuda || last.libtorch.cudaLibrary) &&
    (existsSync(last.libtorch.lib) || existsSync(path.join(PACKAGED, LIBRARY))) &&
    (wish === undefined || (existsSync(wish) && realpathSync(wish) === last.libtorch.root));
  const report = makeReport();
  if (!force && from === undefined && sameSource && isCurrent(last.libtorch)) {
    if (intoPackage) await exclusively(report, () => copyIntoPackage(last.libtorch, report));
    return last.libtorch;
  }
  // Before anything is fetched: LibTorch is large, and useless without a compiler.
  const missing = missingTools();
  if (missing.length > 0) throw new Error(`${adviceFor(missing)}\n(ERR_SENET_SETUP)`);

  report.line('[3/4] Looking for LibTorch');
  const started = Date.now();
  const steps = {
    trying: (rung) => report.update(`trying ${rung}`),
    refused: (rung, reason) => {
      report.close();
      report.line(`      ${rung}: ${reason}`);
    },
    waiting: () => report.line('      another set-up is fetching LibTorch; waiting for it'),
    download: ({ bytes, total }) =>
      report.step(`${(bytes / 1e6).toFixed(0)}${total ? ` of ${(total / 1e6).toFixed(0)}` : ''} MB`),
  };
  const libtorch = await findLibtorch(from, steps, cuda);
  report.line(
    `      ${libtorch.source}: LibTorch ${libtorch.version} in ${libtorch.root} (${((Date.now() - started) / 1000).toFixed(1)} s)`,
  );

  await exclusively(report, async (waited) => {
    // The set-up that was waited for may have done it.
    if ((force && !waited) || !isCurrent(libtorch)) {
      report.line('[4/4] Building the native addon (three to six minutes on two cores)');
      const buildStarted = Date.now();
      await build(libtorch, (text) => report.step(text));
      report.line(`      done in ${((Date.now() - buildStarted) / 1000).toFixed(1)} s`);
    }
    if (intoPackage) copyIntoPackage(libtorch, report);
  });
  return libtorch;
}

/** One set-up at a time writes to the package's build folder. */
function exclusively(report, work) {
  const waiting = () => report.line('      another set-up is building this package; waiting for it');
  return withLock(path.join(path.dirname(ADDON), '..'), 'set-up', waiting, work);
}

async function main() {
  const { values } = parseArgs({
    options: {
      from: { type: 'string' },
      cuda: { type: 'boolean', default: false },
      'into-package': { type: 'boolean', default: false },
      force: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const { from, cuda, 'into-package': intoPackage, force } = values;
  await setUp({ from, cuda, intoPackage, force });
  console.error(`Ready: ${ADDON}`);
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = /^ERR_PARSE_ARGS_/.test(error.code) ? 2 : 1;
  });
}

module.exports = { setUp };
