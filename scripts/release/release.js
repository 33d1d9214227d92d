#!/usr/bin/env node
'use strict';
// Makes the files of a release from a build of this repository, and publishes nothing: the packages of this machine's
// platform, then senet-torch, which asks for the packages of every platform whose files lie in the folder by then, and a
// bill of materials. packages.js says what the packages are.
const { spawnSync } = require('node:child_process');
const {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const tar = require('tar');
const packages = require('./packages');
const { copyLibraries, licencesOfLibtorch, linkAddon } = require('./native');
const { makeSbom } = require('./sbom');
const { examineSymbols } = require('./symbols');
const { pack } = require('../checks/package');

const { HERE, PLATFORMS, ROOT } = packages;
const { version } = require('../../package.json');

const HELP = `usage: node scripts/release/release.js [options]

Packs a release from the build of \`npm run build\`. Exits with 1 if a file is not fit for a release; it is made all the same.

options:
  --out FOLDER        where the files go (default: release)
  --platform NAME     ${Object.keys(PLATFORMS).join(', ')}: must be this machine's (default: ${HERE})
  --only PART         platform: the packages of the platform; main: senet-torch and the bill of materials
  --licences FOLDER   LibTorch's licences, where set-up found none (torch-*.dist-info/licenses of a wheel)
  -h, --help          show this help`;

/** What a released file may not be: lines for people. */
const problems = [];

/** The version that the changelog begins with: the one of every package. */
function checkVersion() {
  const [, newest] = /^## (\S+)/m.exec(readFileSync(path.join(ROOT, 'CHANGELOG.md'), 'utf8')) ?? [];
  if (newest !== version)
    problems.push(`CHANGELOG.md begins with ${newest}, and package.json has version ${version}`);
}

/** Packs what lies in `folder` into `out`; gives the path of the file. */
function packFolder(folder, out) {
  const { filename } = pack(out, folder);
  return path.join(out, filename);
}

function writePackage(folder, manifest, readme) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  writeFileSync(path.join(folder, 'README.md'), readme);
}

/** What the binaries of a folder ask of the system, printed, and a problem for each that asks for more than it may. */
function checkSymbols(folder) {
  if (process.platform !== 'linux') return;
  for (const name of binariesIn(folder)) {
    const { newest, above } = examineSymbols(path.join(folder, name));
    const asked = Object.entries(newest).map(([library, wanted]) => `${library} ${wanted}`);
    console.log(`  ${name} asks for ${asked.sort().join(', ')}`);
    for (const { version: named, symbols } of above)
      problems.push(
        `${name} asks for ${named} (${symbols.slice(0, 5).join(', ')}), above the limit: build in the container of scripts/release/Dockerfile`,
      );
  }
}

function binariesIn(folder) {
  return readdirSync(folder).filter((name) => /\.(node|so|dylib)(\.|$)/.test(name));
}

/** The addon's package in `folder`, without LibTorch. */
async function makeAddonPackage(folder, platform) {
  const manifest = packages.addonManifest(platform);
  writePackage(
    folder,
    manifest,
    `# ${manifest.name}\n\n${manifest.description}: installed with senet-torch, of no use alone.\n`,
  );
  await linkAddon(folder);
  cpSync(path.join(ROOT, 'LICENSE'), path.join(folder, 'LICENSE'));
  checkSymbols(folder);
}

/** @param licences - folder with LibTorch's licences, or undefined */
function makeLibtorchPackage(folder, platform, licences) {
  const { version: libtorch, libraries } = copyLibraries(path.join(folder, 'lib'));
  const manifest = packages.libtorchManifest(platform, libtorch);
  writePackage(
    folder,
    manifest,
    `# ${manifest.name}\n\n${manifest.description}: ${libraries.join(', ')} of PyTorch's own build, unchanged but for their symbol tables.\n\n` +
      'PyTorch and what it holds have the licences in `licenses`. libgomp is GPL-3.0-or-later with the GCC Runtime Library\n' +
      'Exception; the oneMKL that libtorch_cpu of x64 holds has the Intel Simplified Software License.\n',
  );
  if (licences === undefined)
    problems.push(`${manifest.name} has no licences of LibTorch: give them with --licences`);
  else cpSync(licences, path.join(folder, 'licenses'), { recursive: true });
  checkSymbols(path.join(folder, 'lib'));
}

/** senet-torch as `npm pack` makes it, asking for the packages of `platforms`. */
function makeMainPackage(folder, platforms) {
  const work = mkdtempSync(path.join(os.tmpdir(), 'senet-release-'));
  try {
    tar.extract({ file: packFolder(ROOT, work), cwd: work, sync: true });
    const unpacked = path.join(work, 'package');
    const manifest = JSON.parse(readFileSync(path.join(unpacked, 'package.json'), 'utf8'));
    cpSync(unpacked, folder, { recursive: true });
    writeFileSync(
      path.join(folder, 'package.json'),
      `${JSON.stringify(packages.mainManifest(manifest, platforms), null, 2)}\n`,
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The packed file of a package of this version, as npm calls it. */
function tarballOf(out, name) {
  return path.join(out, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`);
}

function exists(file) {
  return statSync(file, { throwIfNoEntry: false }) !== undefined;
}

/** The platforms both of whose packages lie in `out`. */
function platformsIn(out) {
  return Object.keys(PLATFORMS).filter((platform) => {
    const files = [packages.addonPackage(platform), packages.libtorchPackage(platform)].map((name) =>
      tarballOf(out, name),
    );
    return files.every(exists);
  });
}

function checkSizes(out) {
  const sizes = readdirSync(out)
    .filter((name) => name.endsWith(`-${version}.tgz`))
    .map((name) => [name, statSync(path.join(out, name)).size]);
  for (const [name, bytes] of sizes) {
    console.log(`${name.padEnd(48)}${(bytes / 1e6).toFixed(2).padStart(8)} MB packed`);
    if (bytes > packages.MAX_PACKED_BYTES)
      problems.push(`${name} has ${bytes} bytes, and registries take ${packages.MAX_PACKED_BYTES}`);
  }
  for (const platform of platformsIn(out)) {
    const files = ['senet-torch', packages.addonPackage(platform)]
      .map((name) => tarballOf(out, name))
      .filter(exists);
    const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
    console.log(
      `${`without LibTorch, ${platform}`.padEnd(48)}${(bytes / 1e6).toFixed(2).padStart(8)} MB packed`,
    );
    if (bytes > packages.MAX_WITHOUT_LIBTORCH_BYTES)
      problems.push(
        `without LibTorch a user of ${platform} installs ${bytes} bytes, more than ${packages.MAX_WITHOUT_LIBTORCH_BYTES}`,
      );
  }
}

/** What a packed file holds, for the bill of materials; a problem if it would run something when it is installed. */
function describe(tarball, work) {
  const folder = mkdtempSync(path.join(work, 'described-'));
  tar.extract({ file: tarball, cwd: folder, strip: 1, sync: true });
  const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  const scripts = ['preinstall', 'install', 'postinstall', 'prepare'].filter(
    (name) => manifest.scripts?.[name],
  );
  if (scripts.length > 0 || exists(path.join(folder, 'binding.gyp')))
    problems.push(`${manifest.name} runs scripts when it is installed: ${scripts.join(', ') || 'node-gyp'}`);
  const places = [folder, path.join(folder, 'lib')].filter(exists);
  return {
    ...{ name: manifest.name, version: manifest.version, license: manifest.license, tarball },
    binaries: places.flatMap((place) => binariesIn(place).map((name) => path.join(place, name))),
    libtorch: /^LibTorch (\S+)/.exec(manifest.description)?.[1],
    needs: Object.keys(manifest.optionalDependencies ?? {}).filter((name) =>
      name.startsWith('@senet-torch/'),
    ),
  };
}

async function releasePlatform(out, platform, licences) {
  if (platform !== HERE)
    throw new Error(
      `The packages of ${platform} are made on such a machine, and this is ${HERE}: nothing here compiles for another.`,
    );
  const work = mkdtempSync(path.join(os.tmpdir(), 'senet-release-'));
  try {
    console.log(packages.addonPackage(platform));
    await makeAddonPackage(path.join(work, 'addon'), platform);
    packFolder(path.join(work, 'addon'), out);
    console.log(packages.libtorchPackage(platform));
    makeLibtorchPackage(path.join(work, 'libtorch'), platform, licences ?? licencesOfLibtorch());
    packFolder(path.join(work, 'libtorch'), out);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function releaseMain(out) {
  const platforms = platformsIn(out);
  if (platforms.length === 0)
    throw new Error(`${out} holds the packages of no platform, version ${version}.`);
  const absent = Object.keys(PLATFORMS).filter((platform) => !platforms.includes(platform));
  console.log(`senet-torch for ${platforms.join(', ')}`);
  if (absent.length > 0)
    console.log(`  not in ${out}: ${absent.join(', ')}; there users run \`npx senet-torch setup\``);
  const work = mkdtempSync(path.join(os.tmpdir(), 'senet-release-'));
  try {
    makeMainPackage(path.join(work, 'main'), platforms);
    packFolder(path.join(work, 'main'), out);
    const names = platforms.flatMap((platform) => [
      packages.libtorchPackage(platform),
      packages.addonPackage(platform),
    ]);
    const described = [...names, 'senet-torch'].map((name) => describe(tarballOf(out, name), work));
    writeFileSync(
      path.join(out, `senet-torch-${version}.cdx.json`),
      `${JSON.stringify(makeSbom(described), null, 2)}\n`,
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function main() {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'release' },
      platform: { type: 'string', default: HERE },
      only: { type: 'string' },
      licences: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return void console.log(HELP);
  if (PLATFORMS[values.platform] === undefined)
    throw new Error(
      `--platform: expected one of ${Object.keys(PLATFORMS).join(', ')}, got '${values.platform}'`,
    );
  if (![undefined, 'platform', 'main'].includes(values.only))
    throw new Error(`--only: expected platform or main, got '${values.only}'`);
  const out = path.resolve(values.out);
  mkdirSync(out, { recursive: true });
  checkVersion();
  if (values.only !== 'main') await releasePlatform(out, values.platform, values.licences);
  if (values.only !== 'platform') releaseMain(out);
  checkSizes(out);
  for (const problem of problems) console.error(`not fit for a release: ${problem}`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

if (require.main === module) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}

module.exports = { makeAddonPackage, makeMainPackage, packFolder };
