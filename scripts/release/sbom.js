'use strict';
// What a release consists of, in CycloneDX: npm's own list of what senet-torch installs, and of the native packages LibTorch
// with the hash of each library.
const { createHash } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { ROOT } = require('./packages');

function sha(file, algorithm) {
  return createHash(algorithm).update(readFileSync(file)).digest('hex');
}

function purlOf(name, version) {
  return `pkg:npm/${name.replace('@', '%40')}@${version}`;
}

/** A package of this release as a component. @param packed - { name, version, tarball, binaries } */
function packageComponent({ name, version, license, tarball, binaries }) {
  return {
    type: 'library',
    'bom-ref': purlOf(name, version),
    name,
    version,
    purl: purlOf(name, version),
    licenses: [/^SEE /.test(license) ? { license: { name: license } } : { expression: license }],
    hashes: [{ alg: 'SHA-512', content: sha(tarball, 'sha512') }],
    ...(binaries.length > 0 && {
      components: binaries.map((file) => ({
        type: 'file',
        'bom-ref': `${purlOf(name, version)}#${path.basename(file)}`,
        name: path.basename(file),
        hashes: [{ alg: 'SHA-256', content: sha(file, 'sha256') }],
      })),
    }),
  };
}

/** LibTorch, of which the libraries are. */
function libtorchComponent(version) {
  return {
    type: 'framework',
    'bom-ref': `pkg:github/pytorch/pytorch@v${version}`,
    name: 'LibTorch',
    version,
    purl: `pkg:github/pytorch/pytorch@v${version}`,
  };
}

/**
 * The bill of materials of the packed packages.
 *
 * @param packed - [{ name, version, license, tarball, binaries, libtorch, needs }]; `libtorch` is its version in the
 *   package that holds it, `needs` names packages of this release
 */
function makeSbom(packed) {
  const args = [
    'sbom',
    '--sbom-format',
    'cyclonedx',
    '--omit',
    'dev',
    '--omit',
    'peer',
    '--package-lock-only',
  ];
  const { status, stdout, stderr } = spawnSync('npm', args, {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`npm sbom failed:\n${stderr}`);
  const sbom = JSON.parse(stdout);
  const root = sbom.metadata.component['bom-ref'];
  for (const one of packed) {
    const needed = one.needs.map((name) => purlOf(name, one.version));
    if (one.name === 'senet-torch') {
      sbom.metadata.component.hashes = packageComponent(one).hashes;
      sbom.dependencies.find(({ ref }) => ref === root).dependsOn.push(...needed);
      continue;
    }
    sbom.components.push(packageComponent(one));
    if (one.libtorch !== undefined) {
      const libtorch = libtorchComponent(one.libtorch);
      if (!sbom.components.some((component) => component['bom-ref'] === libtorch['bom-ref'])) {
        sbom.components.push(libtorch);
        sbom.dependencies.push({ ref: libtorch['bom-ref'], dependsOn: [] });
      }
      needed.push(libtorch['bom-ref']);
    }
    sbom.dependencies.push({ ref: purlOf(one.name, one.version), dependsOn: needed });
  }
  return sbom;
}

module.exports = { makeSbom };
