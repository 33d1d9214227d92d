'use strict';
// Joins what `require('senet-torch')` loads into one file, dist/index.js: Node then reads one file in place of 150. The
// command line, which loads little of it, and the types stay as the compiler left them.
const path = require('node:path');
const { buildSync } = require('esbuild');

const ROOT = path.join(__dirname, '..');

buildSync({
  entryPoints: [path.join(ROOT, 'lib', 'index.ts')],
  outfile: path.join(ROOT, 'dist', 'index.js'),
  bundle: true,
  packages: 'external',
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  keepNames: true,
  sourcemap: true,
  sourcesContent: false,
});
