'use strict';
// Joins what `require('senet-torch')` loads into one file, dist/library.js: Node then reads one file in place of 150. Its
// entry, dist/index.js, is another, since Node compiles a file before it runs any of it, and LibTorch is to be loaded by
// then (lib/preload.ts). The command line, which loads little of it, and the types stay as the compiler left them.
const { rmSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { buildSync } = require('esbuild');
const { makePage } = require('./page');

const ROOT = path.join(__dirname, '..');

const [{ path: file, text }] = buildSync({
  entryPoints: [path.join(ROOT, 'lib', 'index.ts')],
  outfile: path.join(ROOT, 'dist', 'library.js'),
  bundle: true,
  packages: 'external',
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  write: false,
}).outputFiles;

// A class that names itself became `var Name = class _Name`, which users would see. (`keepNames` mends it at run time, for
// every arrow function too, and that costs 20 microseconds a call of `forward`.)
const classes = text.matchAll(/^var (\w+) = class _\1\b/gm);
const named = [...classes].reduce(
  (code, [, name]) => code.replaceAll(new RegExp(`\\b_${name}\\b`, 'g'), name),
  text,
);
writeFileSync(file, named);
const entry = path.join(ROOT, 'dist', 'index.js');
writeFileSync(
  entry,
  `'use strict';\nrequire('./preload').preload();\nmodule.exports = require('./library');\n`,
);
rmSync(`${entry}.map`, { force: true }); // of what the compiler had put there

makePage();
