#!/usr/bin/env node
'use strict';
// What `npm publish` would send: packs it, then looks at its contents, with publint and with attw.
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { linksOf, pagesOf } = require('./pages');

const ROOT = path.join(__dirname, '..', '..');
const MAX_FILE_BYTES = 2 * 1024 * 1024;
const MAX_PACKED_BYTES = 3 * 1024 * 1024;
const REQUIRED = [
  'package.json',
  'README.md',
  'LICENSE',
  'THIRD_PARTY_NOTICES.md',
  'CHANGELOG.md',
  'CMakeLists.txt',
  ...pagesOf(ROOT).filter((page) => page.startsWith('docs/')),
  'dist/index.js',
  'dist/library.js',
  'dist/index.d.ts',
  'dist/cli/main.js',
  'dist/serve/page.html',
  'dist/fastify.js',
  'dist/fastify.d.ts',
  'dist/grpc.js',
  'dist/grpc.d.ts',
  'assets/serve/docs.html',
  'assets/serve/inference.proto',
  'native/addon/exports.cpp',
  'scripts/setup/setup.js',
  'scripts/setup/doctor.js',
  'assets/weights/se_resnet20_fashion_mnist.safetensors',
  'assets/labels/imagenet.json',
];
const FORBIDDEN = /\.node$|\.so(\.|$)|\.o$|^build\/|^test\/|^node_modules\/|libtorch_|\.log$/;

/** Packs the package in `root` into `folder` and gives npm's description of the tarball. */
function pack(folder, root = ROOT) {
  const packed = spawnSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    encoding: 'utf8',
  });
  if (packed.status !== 0) throw new Error(`npm pack failed:\n${packed.stderr}`);
  const described = JSON.parse(packed.stdout);
  // npm 12 gives an object by name, earlier ones an array.
  return Array.isArray(described) ? described[0] : Object.values(described)[0];
}

function checkContents({ files, size }) {
  const problems = [];
  const names = new Set(files.map((file) => file.path));
  for (const name of REQUIRED) if (!names.has(name)) problems.push(`${name} is missing`);
  for (const file of files) {
    if (FORBIDDEN.test(file.path)) problems.push(`${file.path} does not belong into the package`);
    if (file.size > MAX_FILE_BYTES)
      problems.push(`${file.path} has ${file.size} bytes, more than ${MAX_FILE_BYTES}`);
  }
  for (const page of pagesOf(ROOT).filter((name) => names.has(name))) {
    for (const { file, line } of linksOf(page, readFileSync(path.join(ROOT, page), 'utf8')))
      if (!names.has(file)) problems.push(`${page}:${line} leads to ${file}, which is not in the package`);
  }
  if (size > MAX_PACKED_BYTES) problems.push(`the package has ${size} bytes, more than ${MAX_PACKED_BYTES}`);
  return problems;
}

function tool(name, args) {
  const program = path.join(ROOT, 'node_modules', '.bin', name);
  const result = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8' });
  return result.status === 0 ? [] : [`${name}:\n${result.stdout}${result.stderr}`];
}

function main() {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'senet-pack-'));
  try {
    const packed = pack(folder);
    const tarball = path.join(folder, packed.filename);
    const problems = [
      ...checkContents(packed),
      ...tool('publint', ['run', tarball, '--strict']),
      ...tool('attw', [tarball]),
    ];
    for (const problem of problems) console.error(problem);
    console.log(
      problems.length === 0
        ? `${packed.filename}: ${packed.files.length} files, ${(packed.size / 1e6).toFixed(2)} MB packed, ${(packed.unpackedSize / 1e6).toFixed(2)} MB unpacked; publint and attw find nothing`
        : `${problems.length} problems`,
    );
    process.exitCode = problems.length === 0 ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (require.main === module) main();
module.exports = { pack };
