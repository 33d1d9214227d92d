#!/usr/bin/env node
'use strict';
// Imports point one way (CONTRIBUTING.md). Prints every import that does not, and exits with 1 if there is one.
const { readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');

// From low to high: a folder imports only from lower layers (and from itself). Folders of one layer do not know each
// other.
const TYPESCRIPT_LAYERS = [
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
  nn: ['core'],
  models: ['nn', 'core'],
  inference: ['models', 'nn', 'core'],
  addon: ['inference', 'models', 'nn', 'runtime', 'core'],
};

function filesOf(folder, endings) {
  return readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => path.relative(ROOT, path.join(entry.parentPath ?? entry.path, entry.name)));
}

/** The layer unit of a file below lib/: its folder, or its own name at the top. */
function unitOf(file) {
  const [first] = path.relative('lib', file).split(path.sep);
  return first.replace(/\.ts$/, '');
}

function checkTypescript(report) {
  const height = new Map(TYPESCRIPT_LAYERS.flatMap((units, layer) => units.map((unit) => [unit, layer])));
  for (const file of filesOf('lib', ['.ts'])) {
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    const from = unitOf(file);
    if (!height.has(from)) report(`${file}: the folder '${from}' has no layer`);
    for (const [, target] of text.matchAll(/(?:from|import|require)\s*\(?\s*'(\.[^']*)'/g)) {
      const to = unitOf(path.normalize(path.join(path.dirname(file), target)));
      if (to === from || (from === 'index' && to !== 'cli')) continue;
      if (!(height.get(to) < height.get(from))) report(`${file} imports ${target}: '${from}' may not know '${to}'`);
    }
    if (text.includes('.node') && file !== path.join('lib', 'native.ts') && /require\([^)]*\.node/.test(text)) {
      report(`${file} loads the addon; only lib/native.ts does`);
    }
  }
}

function checkNative(report) {
  for (const file of filesOf('native', ['.h', '.cpp'])) {
    const [, folder] = file.split(path.sep);
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    if (folder !== 'addon' && /#include <napi/.test(text)) report(`${file} includes napi.h; only native/addon does`);
    for (const [, target] of text.matchAll(/#include "([a-z]+)\//g)) {
      if (target !== folder && !NATIVE_INCLUDES[folder]?.includes(target)) {
        report(`${file} includes ${target}/: '${folder}' may not know '${target}'`);
      }
    }
  }
}

const problems = [];
checkTypescript((problem) => problems.push(problem));
checkNative((problem) => problems.push(problem));
for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? 'imports point one way' : `${problems.length} imports point the wrong way`);
process.exitCode = problems.length === 0 ? 0 : 1;
