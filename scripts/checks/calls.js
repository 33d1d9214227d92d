#!/usr/bin/env node
'use strict';
// The plain JavaScript of scripts/ and test/ asks the library for what it has: names that a file of dist/ exports, as many
// arguments as a function takes, options that are known. (It is not type-checked otherwise; test/runtimes/ runs in folders
// of its own and is left out.) Prints what is asked for in vain, and exits with 1 if there is any.
// An argument names another folder to look at; tests give one that holds some.
const path = require('node:path');
const ts = require('typescript');

const ROOT = path.resolve(process.argv[2] ?? path.join(__dirname, '..', '..'));

/** Of all that TypeScript finds in JavaScript: what a change of the other side makes wrong, not what lacks a type. */
const TELLING = new Set([
  2305, // a module has no such export
  2353, // no such option,
  2561, // ... but another is like it
  2551, // no such property, but another is like it
  2554, // another number of arguments
  2555, // too few arguments
]);
/** A property of what a module exports, and a file: a package of the benchmarks' own need not be installed. */
const MISSING = /^Property '.*' does not exist on type 'typeof import\(|^Cannot find module '\./;

const options = {
  allowJs: true,
  checkJs: true,
  noEmit: true,
  strict: false,
  skipLibCheck: true,
  resolveJsonModule: true,
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
  module: ts.ModuleKind.Node16,
  types: ['node', 'mocha'],
  typeRoots: [path.join(__dirname, '..', '..', 'node_modules', '@types')],
};

/** The package, and a file of dist/, are the files of lib/ that they are made of, so that nothing has to be built. */
function sourceOf(name, file) {
  const target = name.startsWith('.') ? path.resolve(path.dirname(file), name) : name;
  const within = target === ROOT ? 'index' : path.relative(path.join(ROOT, 'dist'), target);
  return path.isAbsolute(target) && !within.startsWith('..') ? path.join(ROOT, 'lib', within) : name;
}

const host = ts.createCompilerHost(options);
host.resolveModuleNameLiterals = (literals, file, redirected, settings, source) =>
  literals.map((literal) => {
    const mode = ts.getModeForUsageLocation(source, literal, settings);
    const name = sourceOf(literal.text, file);
    return ts.resolveModuleName(name, file, settings, host, undefined, redirected, mode);
  });

const files = ts.sys.readDirectory(
  ROOT,
  ['.js'],
  ['**/node_modules', '**/fixtures', 'test/runtimes'],
  ['scripts', 'test'],
);
const program = ts.createProgram(files, options, host);

let found = 0;
for (const file of program.getSourceFiles()) {
  if (!file.fileName.endsWith('.js') || file.fileName.includes('node_modules')) continue;
  for (const { code, start, messageText } of program.getSemanticDiagnostics(file)) {
    const text = ts.flattenDiagnosticMessageText(messageText, ' ');
    if (!TELLING.has(code) && !MISSING.test(text)) continue;
    found++;
    const { line } = file.getLineAndCharacterOfPosition(start);
    console.error(`${path.relative(ROOT, file.fileName)}:${line + 1}: ${text.replaceAll(`${ROOT}/`, '')}`);
  }
}
console.log(found === 0 ? 'scripts ask the library for what it has' : `${found} calls of what is not there`);
process.exitCode = found === 0 ? 0 : 1;
