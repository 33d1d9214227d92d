#!/usr/bin/env node
'use strict';
// Imports point one way (CONTRIBUTING.md), between folders and between the files of a folder: no circles. Prints every
// import that does not and every circle, and exits with 1 if there is one.
// An argument names another folder to look at; tests give one that holds violations.
const { readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');
const { preProcessFile } = require('typescript');

const ROOT = path.resolve(process.argv[2] ?? path.join(__dirname, '..', '..'));

// From low to high: a folder imports only from lower layers (and from itself). Folders of one layer do not know each
// other.
const TYPESCRIPT_LAYERS = [
  ['brands', 'instruments', 'printable', 'package-root', 'platform-package'],
  ['binding', 'errors', 'preload'],
  ['native', 'peer'],
  ['tensor'],
  ['checkpoint'],
  ['hub', 'nn'],
  ['distributed'],
  ['models'],
  ['explain'],
  ['vision', 'optim'],
  ['data'],
  ['bulk', 'onnx'],
  ['train'],
  ['serve'],
  ['index', 'cli'],
  ['fastify', 'grpc'],
];
// Folder -> the folders that it may include.
const NATIVE_INCLUDES = {
  core: [],
  runtime: ['core'],
  graph: ['core'],
  nn: ['graph', 'core'],
  optim: ['core'],
  distributed: ['graph', 'runtime', 'core'],
  vision: ['core'],
  models: ['nn', 'graph', 'core'],
  inference: ['nn', 'graph', 'runtime', 'core'],
  addon: ['inference', 'models', 'distributed', 'vision', 'optim', 'nn', 'graph', 'runtime', 'core'],
};
/** The files that may load an addon: the addon, and its prelude. */
const LOADERS = [path.join('lib', 'native.ts'), path.join('lib', 'preload.ts')];
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

/** The file below lib/ that an import means. */
function fileOf(target, files) {
  const name = target.replace(/\.js$/, '');
  return [`${name}.ts`, path.join(name, 'index.ts')].find((file) => files.has(file));
}

/**
 * The shortest circle through each file, once.
 * @param imports - file -> the files of its own folder (sub-folders included) that it imports: a circle that leaves the
 *   folder has an import that points the wrong way, which is reported as such
 */
function reportCircles(imports, report) {
  const circles = new Set();
  for (const start of imports.keys()) {
    const from = new Map();
    const queue = [start];
    for (const file of queue) {
      for (const next of imports.get(file) ?? []) {
        if (from.has(next)) continue;
        from.set(next, file);
        queue.push(next);
      }
    }
    if (!from.has(start)) continue;
    const circle = [start];
    for (let file = from.get(start); file !== start; file = from.get(file)) circle.unshift(file);
    const first = circle.indexOf([...circle].sort()[0]);
    const turned = [...circle.slice(first), ...circle.slice(0, first)];
    circles.add([...turned, turned[0]].join(' -> '));
  }
  for (const circle of circles) report(`${circle}: a circle`);
}

function checkTypescript(report) {
  const files = new Set(filesOf('lib', ['.ts']));
  const imports = new Map([...files].map((file) => [file, []]));
  const height = new Map(TYPESCRIPT_LAYERS.flatMap((units, layer) => units.map((unit) => [unit, layer])));
  for (const file of files) {
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    const from = unitOf(file);
    if (!height.has(from)) report(`${file}: '${from}' has no layer`);
    for (const { fileName: target } of preProcessFile(text, true, true).importedFiles) {
      if (!target.startsWith('.')) continue;
      const resolved = path.join(path.dirname(file), target);
      const to = unitOf(resolved);
      if (to === from) imports.get(file).push(fileOf(resolved, files));
      else if (!(height.get(to) < height.get(from)))
        report(`${file} imports ${target}: '${from}' may not know '${to}'`);
    }
    if (!LOADERS.includes(file) && /\.node['"`]|\bdlopen\b/.test(text)) {
      report(`${file} loads an addon; only ${LOADERS.join(' and ')} do`);
    }
  }
  reportCircles(imports, report);
}

function checkNative(report) {
  const files = new Set(filesOf('native', ['.h', '.cpp']));
  const includes = new Map([...files].map((file) => [file, []]));
  for (const file of files) {
    const [, folder] = file.split(path.sep);
    if (!(folder in NATIVE_INCLUDES)) {
      report(`${file}: '${folder}' has no place in the order`);
      continue;
    }
    const text = readFileSync(path.join(ROOT, file), 'utf8');
    for (const [, target] of text.matchAll(/^\s*#\s*include\s*[<"]([^>"]+)[>"]/gm)) {
      if (NODE_HEADER.test(target) && folder !== 'addon')
        report(`${file} includes ${target}; only native/addon does`);
      const beside = path.join(path.dirname(file), target);
      const resolved = target.startsWith('.') || files.has(beside) ? beside : path.join('native', target);
      const [, to] = resolved.split(path.sep);
      if (to === folder) includes.get(file).push(resolved);
      else if (to in NATIVE_INCLUDES && !NATIVE_INCLUDES[folder].includes(to))
        report(`${file} includes ${target}: '${folder}' may not know '${to}'`);
    }
  }
  reportCircles(includes, report);
}

const problems = [];
checkTypescript((problem) => problems.push(problem));
checkNative((problem) => problems.push(problem));
for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0
    ? 'imports point one way'
    : `${problems.length} imports or circles point the wrong way`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
