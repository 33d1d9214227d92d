'use strict';
// The binaries of a platform's packages, from the build of this repository (scripts/setup): the addon, linked once more for
// the package, its prelude, and of LibTorch the libraries that the addon loads, without their symbol tables.
const { execFileSync, spawnSync } = require('node:child_process');
const { copyFileSync, existsSync, mkdirSync, readdirSync } = require('node:fs');
const path = require('node:path');
const { libtorchFolders, HERE, ROOT } = require('./packages');
const { ADDON, isCurrent, lastBuild } = require('../setup/build');
const { tryToLoad } = require('../setup/libtorch');
const { withLock } = require('../setup/lock');

const BUILD = path.join(ROOT, 'build');
const MACOS = process.platform === 'darwin';
const ORIGIN = MACOS ? '@loader_path' : '$ORIGIN';

/** Runs a tool and gives what it prints; its messages are in English whatever the user's language is. */
function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: 1 << 28,
  });
  if (error) throw new Error(`${command} does not run: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`);
  return stdout;
}

/** Links the addon for the package into `folder`, its prelude beside it. Nothing that was compiled is compiled again. */
async function linkAddon(folder) {
  builtWith();
  const search = libtorchFolders(HERE).map((place) => `${ORIGIN}/${place}`);
  const waiting = () => console.error('another set-up is building this package; waiting for it');
  await withLock(BUILD, 'set-up', waiting, async () => {
    run('cmake', [`-DSENET_PACKAGE_RPATH=${search.join(';')}`, '-S', ROOT, '-B', BUILD]);
    run('cmake', ['--build', BUILD, '--config', 'Release', '--target', 'senet_package']);
  });
  mkdirSync(folder, { recursive: true });
  copyStripped(path.join(BUILD, 'package', 'senet_torch.node'), folder);
  copyStripped(path.join(path.dirname(ADDON), 'senet_prelude.node'), folder);
  const addon = path.join(folder, 'senet_torch.node');
  // Exactly there: a folder of this machine would hide that those are wrong.
  const searched = searchedBy(addon);
  if (searched.join() !== search.join())
    throw new Error(`${addon} looks for LibTorch in ${searched.join(', ')}, not in ${search.join(', ')}`);
}

/** Where the loader looks for the libraries of a binary. */
function searchedBy(file) {
  return MACOS
    ? [...run('otool', ['-l', file]).matchAll(/LC_RPATH[^]*?path (\S+)/g)].map(([, place]) => place)
    : (/\(R(?:UN)?PATH\).*\[(.*)\]/.exec(run('readelf', ['--dynamic', '--wide', file]))?.[1] ?? '').split(
        ':',
      );
}

/** The names of the libraries that a binary is linked to. */
function linkedTo(file) {
  return MACOS
    ? [...run('otool', ['-L', file]).matchAll(/^\t@(?:rpath|loader_path)\/(\S+)/gm)].map(([, name]) => name)
    : [...run('readelf', ['--dynamic', '--wide', file]).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(
        ([, name]) => name,
      );
}

/** Of the libraries in `folder` those that `file` loads, directly or through others. */
function loadedFrom(folder, file) {
  const names = new Set();
  const visit = (binary) => {
    for (const name of linkedTo(binary)) {
      const library = path.join(folder, name);
      if (names.has(name) || !existsSync(library)) continue;
      names.add(name);
      visit(library);
    }
  };
  visit(file);
  return [...names].sort();
}

function copyStripped(file, folder) {
  const target = path.join(folder, path.basename(file));
  // In two steps: what strip writes itself takes its time and mode from the original.
  copyFileSync(file, target);
  run('strip', MACOS ? ['-x', target] : ['--strip-unneeded', target]);
  // Apple's loader takes nothing whose signature is of other bytes.
  if (MACOS) execFileSync('codesign', ['--force', '--sign', '-', target], { stdio: 'pipe' });
}

/**
 * Copies the libraries that the addon loads of the LibTorch of the last build into `folder`.
 *
 * @returns { version: LibTorch's, libraries: their names }
 */
function copyLibraries(folder) {
  const { lib, version, cudaLibrary, root } = builtWith();
  if (cudaLibrary) throw new Error(`${root} is a LibTorch with CUDA: build with one for the CPU.`);
  const libraries = loadedFrom(lib, ADDON);
  mkdirSync(folder, { recursive: true });
  for (const name of libraries) copyStripped(path.join(lib, name), folder);
  // Tools that strip have damaged libraries before.
  for (const name of libraries) tryToLoad(path.join(folder, name));
  return { version, libraries };
}

/** The folder with the licences of the LibTorch of the last build, as its wheel has them; undefined if there is none. */
function licencesOfLibtorch() {
  const { root } = builtWith();
  const beside = readdirSync(path.dirname(root))
    .filter((name) => /^torch-.*\.dist-info$/.test(name)) // of an installed torch
    .map((name) => path.join(path.dirname(root), name, 'licenses'));
  return [path.join(root, 'licenses'), ...beside].find((folder) => existsSync(path.join(folder, 'LICENSE')));
}

/** The LibTorch of the last build, if that is of these sources. */
function builtWith() {
  const last = lastBuild();
  if (last === null || !isCurrent(last.libtorch))
    throw new Error('There is no build of these sources: run `npm run build` first.');
  return last.libtorch;
}

module.exports = { copyLibraries, licencesOfLibtorch, linkAddon };
