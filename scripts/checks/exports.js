#!/usr/bin/env node
'use strict';
// Nothing of lib/ is exported for nobody: each function, class and constant is imported by another file of lib/, or
// required by a script from dist/; what tests alone import is used by its own file. Types may be exported for the sake of
// the functions that take them. Prints every other export, and exits with 1 if there is one.
// An argument names another folder to look at; tests give one that holds some.
const { existsSync, readdirSync, readFileSync } = require('node:fs');
const path = require('node:path');
const ts = require('typescript');

const ROOT = path.resolve(process.argv[2] ?? path.join(__dirname, '..', '..'));
/** The package's own entries (`exports` of package.json): all of it is for users. */
const PUBLIC = ['lib/index.ts', 'lib/fastify.ts', 'lib/grpc.ts'];

function filesOf(folder, ending) {
  if (!existsSync(path.join(ROOT, folder))) return [];
  return readdirSync(path.join(ROOT, folder), { recursive: true })
    .filter((name) => ending.test(name) && !/node_modules|fixtures/.test(name))
    .map((name) => path.posix.join(folder, name.split(path.sep).join('/')));
}

const textOf = (file) => readFileSync(path.join(ROOT, file), 'utf8');

/** The file below lib/ that an import means; undefined of any other. */
function targetOf(file, specifier) {
  if (!specifier.startsWith('.')) return undefined;
  const base = path.posix.join(path.posix.dirname(file), specifier);
  const found = [base, `${base}.ts`, `${base}/index.ts`].filter((name) => name.endsWith('.ts'));
  return found.find((name) => name.startsWith('lib/') && existsSync(path.join(ROOT, name)));
}

/** What a file imports: [file, name], of all of a file '*'. */
function importsOf(file, source) {
  const found = [];
  const add = (specifier, ...names) => {
    const target = targetOf(file, specifier.text);
    if (target !== undefined) found.push(...names.map((name) => [target, name]));
  };
  const namesOf = (list) => list.elements.map(({ propertyName, name }) => (propertyName ?? name).text);
  const visit = (node) => {
    if (ts.isImportDeclaration(node)) {
      const names = node.importClause?.namedBindings;
      if (names !== undefined)
        add(node.moduleSpecifier, ...(ts.isNamedImports(names) ? namesOf(names) : ['*']));
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      const names = node.exportClause;
      add(
        node.moduleSpecifier,
        ...(names !== undefined && ts.isNamedExports(names) ? namesOf(names) : ['*']),
      );
    } else if (ts.isImportTypeNode(node)) {
      add(node.argument.literal, node.qualifier?.getText(source).split('.')[0] ?? '*');
    } else if (ts.isCallExpression(node) && ts.isStringLiteralLike(node.arguments[0] ?? node)) {
      const callee = node.expression.getText(source);
      if (callee === 'require' || callee === 'import') add(node.arguments[0], '*');
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** The functions, classes and constants that a file exports where they stand. */
function valuesOf(source) {
  return source.statements.flatMap((statement) => {
    const isExported = statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false;
    if (!isExported) return [];
    if (ts.isVariableStatement(statement))
      return statement.declarationList.declarations.flatMap(({ name }) =>
        ts.isIdentifier(name) ? [name.text] : name.elements.map((element) => element.name.text),
      );
    return ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement)
      ? [statement.name.text]
      : [];
  });
}

/** How often a name stands in a file, beside comments and texts. */
function countOf(source, wanted) {
  let count = 0;
  const visit = (node) => {
    if (ts.isIdentifier(node) && node.text === wanted) count++;
    ts.forEachChild(node, visit);
  };
  visit(source);
  return count;
}

const parse = (file) => ts.createSourceFile(file, textOf(file), ts.ScriptTarget.Latest, true);
const library = new Map(filesOf('lib', /\.ts$/).map((file) => [file, parse(file)]));
const tests = new Map(filesOf('test', /\.ts$/).map((file) => [file, parse(file)]));
const scripts = filesOf('scripts', /\.js$/)
  .map(textOf)
  .filter((text) => /\bdist\b/.test(text));

/** 'FILE NAME' of what is imported -> the files that do. */
const importers = new Map();
for (const [file, source] of [...library, ...tests]) {
  for (const place of importsOf(file, source)) {
    const key = place.join(' ');
    importers.set(key, (importers.get(key) ?? new Set()).add(file));
  }
}

function isUsed(file, source, name) {
  const others = [...(importers.get(`${file} ${name}`) ?? [])].filter((other) => other !== file);
  if (others.some((other) => library.has(other))) return true;
  if (others.length > 0 && countOf(source, name) > 1) return true;
  // Of what is taken whole, some file has to say the name.
  const isWhole = importers.has(`${file} *`);
  if (isWhole && [...library].some(([other, text]) => other !== file && countOf(text, name) > 0)) return true;
  return scripts.some((text) => new RegExp(`\\b${name}\\b`).test(text));
}

let unused = 0;
for (const [file, source] of library) {
  if (PUBLIC.includes(file)) continue;
  for (const name of valuesOf(source)) {
    if (isUsed(file, source, name)) continue;
    unused++;
    console.error(`${file} exports ${name}, which no other file of lib/ imports`);
  }
}
console.log(unused === 0 ? 'every export is imported' : `${unused} exports that nobody imports`);
process.exitCode = unused === 0 ? 0 : 1;
