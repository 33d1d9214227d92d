'use strict';
// The packages of a release: their names and `package.json`, and where package managers put one beside the other. All have
// the version of senet-torch.
//   senet-torch                       JavaScript, types, and the sources for `setup`; asks for
//     @senet-torch/linux-x64          the addon and its prelude, one package for each platform; asks for
//       @senet-torch/libtorch-linux-x64   LibTorch's libraries for the CPU
// Both lower ones are optional dependencies of an exact version, so a package manager brings only those of its platform.
const { createHash } = require('node:crypto');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const SCOPE = 'senet-torch';
const own = require('../../package.json');

/** Platform -> what its packages say that they are for. */
const PLATFORMS = {
  'linux-x64': { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  'linux-arm64': { os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
  'darwin-arm64': { os: ['darwin'], cpu: ['arm64'] },
};
/** Of the C and C++ libraries, the newest versions whose symbols Linux packages may ask for: RHEL 8's, as Node's own. */
const SYMBOL_LIMITS = { GLIBC: '2.28', GLIBCXX: '3.4.25', CXXABI: '1.3.11', GCC: '8.0.0', GOMP: '4.5' };
const MB = 1e6;
/** Of a packed file: what registries take, and what senet-torch without LibTorch may weigh. */
const MAX_PACKED_BYTES = 200 * MB;
const MAX_WITHOUT_LIBTORCH_BYTES = 8 * MB;
const HERE = `${process.platform}-${process.arch}`;

function addonPackage(platform) {
  return `@${SCOPE}/${platform}`;
}

function libtorchPackage(platform) {
  return `@${SCOPE}/libtorch-${platform}`;
}

/** Where the sources are, which a provenance is compared with: as package.json says, else as the workflow does. */
function repositoryOf() {
  const { GITHUB_REPOSITORY: name } = process.env;
  if (own.repository !== undefined) return { repository: own.repository };
  return name ? { repository: { type: 'git', url: `git+https://github.com/${name}.git` } } : {};
}

/** What is the same in the manifests of all packages of a platform. */
function platformManifest(name, platform, description) {
  const { version, license, engines } = own;
  return {
    name,
    version,
    description,
    license,
    ...repositoryOf(),
    engines,
    ...PLATFORMS[platform],
    // Shared libraries can be loaded from no archive (Yarn's Plug'n'Play).
    preferUnplugged: true,
    publishConfig: { access: 'public' },
  };
}

function addonManifest(platform) {
  const name = addonPackage(platform);
  const manifest = platformManifest(name, platform, `The native part of senet-torch for ${platform}`);
  return { ...manifest, optionalDependencies: { [libtorchPackage(platform)]: manifest.version } };
}

/** @param version - LibTorch's */
function libtorchManifest(platform, version) {
  const description = `LibTorch ${version} for the CPU, as senet-torch loads it on ${platform}`;
  const manifest = platformManifest(libtorchPackage(platform), platform, description);
  return { ...manifest, license: 'SEE LICENSE IN licenses/LICENSE' };
}

/** The manifest of senet-torch as it is published with the packages of these platforms. */
function mainManifest(manifest, platforms) {
  const prebuilt = platforms.map((platform) => [addonPackage(platform), manifest.version]);
  return { ...manifest, ...repositoryOf(), optionalDependencies: Object.fromEntries(prebuilt) };
}

/** Where LibTorch's libraries lie, seen from the folder of the addon, in the layouts of package managers. */
function libtorchFolders(platform) {
  const { version } = own;
  const name = `libtorch-${platform}`;
  return [
    `../${name}/lib`, // npm, pnpm, Bun, Yarn (node-modules)
    `node_modules/@${SCOPE}/${name}/lib`, // npm, nested (--install-strategy=nested)
    `../../../../@${SCOPE}/${name}/lib`, // npm, if only the addon's package is nested
    `../node_modules/@${SCOPE}/${name}/lib`, // Yarn (nodeLinker: pnpm)
    `../../../../${yarnSlug(name, version)}/node_modules/@${SCOPE}/${name}/lib`, // Yarn (Plug'n'Play)
    `../../${name}/${version}/lib`, // Deno's cache
  ];
}

/** How Yarn's Plug'n'Play calls the folder of a package of ours: its name and version, and the hash that Yarn makes of both. */
function yarnSlug(name, version) {
  const hash = (...parts) =>
    parts.reduce((sum, part) => sum.update(part), createHash('sha512')).digest('hex');
  return `@${SCOPE}-${name}-npm-${version}-${hash(hash(SCOPE, name), `npm:${version}`).slice(0, 10)}`;
}

module.exports = {
  addonManifest,
  addonPackage,
  HERE,
  libtorchFolders,
  libtorchManifest,
  libtorchPackage,
  mainManifest,
  MAX_PACKED_BYTES,
  MAX_WITHOUT_LIBTORCH_BYTES,
  PLATFORMS,
  ROOT,
  SYMBOL_LIMITS,
};
