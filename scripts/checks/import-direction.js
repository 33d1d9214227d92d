#!/usr/bin/env node
'use strict';
// Imports point one way (CONTRIBUTING.md). Prints every import that does not, and exits with 1 if there is one.
// An argument names another folder to look at; tests give one that holds violations.
const { readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');
const { preProcessFile } = require('typescript');

const ROOT = path.resolve(process.argv[2] ?? path.join(__dirname, '..', '..'));

// From low to high: a folder imports only from lower layers (and from itself). Folders of one layer do not know each
// other.
const TYPESCRIPT_LAYERS = [
  ['brands', 'printable'],
  ['binding', 'errors'],
  ['native'],
  ['tensor'],
  ['checkpoint'],
  ['hub', 'nn'],
  ['models'],
  ['vision', 'optim'],
  ['data'],
  ['train'],
  ['index', 'cli'],
];
// Folder -> the folders that it may include.
const NATIVE_INCLUDES = {
  core: [],
  runtime: ['core'],
  graph: ['core'],
  nn: ['graph', 'core'],
  models: ['nn', 'graph', 'core'],
  inference: ['nn', 'graph', 'core'],
  addon: ['inference', 'models', 'nn', 'graph', 'runtime', 'core'],
};
const NODE_HEADER = /^(napi|node_api|js_native_api|node|v8|uv)[\w-]*\.h$/;

function filesOf(folder, endings) {
  return readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => path.relative(ROOT, path.join(entry.parentPath ?? entry.path, entry.name)));
}

/** The layer of a file below lib/: its folder, or its own name at the top ('' of the folder itself is the index). */
function unitOf(file) {
  const [first] = path.relative('lib', file).split(path.sep);
  return first.replace(/\.(ts|js)$/, '') || 'index';
}

function checkTypescript(report) {
  const height = new Map(TYPESCRIPT_LAYERS.flatMap((units, layer) => units.map((unit) => [unit, layer])));
  for (const file of filesOf('lib', ['.ts'])) {
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    const from = unitOf(file);
    if (!height.has(from)) report(`${file}: '${from}' has no layer`);
    for (const { fileName: target } of preProcessFile(text, true, true).importedFiles) {
      if (!target.startsWith('.')) continue;
      const to = unitOf(path.normalize(path.join(path.dirname(file), target)));
      if (to === from) continue;
      if (!(height.get(to) < height.get(from)))
        report(`${file} imports ${target}: '${from}' may not know '${to}'`);
    }
    if (file !== path.join('lib', 'native.ts') && /\.node['"`]|\bdlopen\b/.test(text)) {
      report(`${file} loads an addon; only lib/native.ts does`);
    }
  }
}

function checkNative(report) {
  for (const file of filesOf('native', ['.h', '.cpp'])) {
    const [, folder] = file.split(path.sep);
    if (!(folder in NATIVE_INCLUDES)) {
      report(`${file}: '${folder}' has no place in the order`);
      continue;
    }
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    for (const [, target] of text.matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)) {
      if (NODE_HEADER.test(target) && folder !== 'addon')
        report(`${file} includes ${target}; only native/addon does`);
      const resolved = target.startsWith('.')
        ? path.join(path.dirname(file), target)
        : path.join('native', target);
      const [, to] = resolved.split(path.sep);
      if (!(to in NATIVE_INCLUDES) || to === folder) continue;
      if (!NATIVE_INCLUDES[folder].includes(to))
        report(`${file} includes ${target}: '${folder}' may not know '${to}'`);
    }
  }
}

const problems = [];
checkTypescript((problem) => problems.push(problem));
checkNative((problem) => problems.push(problem));
for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0 ? 'imports point one way' : `${problems.length} imports point the wrong way`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
