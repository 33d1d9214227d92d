#!/usr/bin/env node
'use strict';
// The table of error codes in docs/errors.md comes from lib/errors.ts: compares them, or with --write renews it. Also
// finds codes that are used and not in the table, or in the table and not used.
// An argument names another folder to look at; tests give one that holds disagreements.
const { readdirSync, readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { pagesOf } = require('./pages');

const { values: options, positionals } = parseArgs({
  options: { write: { type: 'boolean' } },
  allowPositionals: true,
});
const ROOT = path.resolve(positionals[0] ?? path.join(__dirname, '..', '..'));
const PAGE = 'docs/errors.md';
const BEGIN = '<!-- error codes: written by scripts/checks/error-table.js -->';
const END = '<!-- end of error codes -->';

const problems = [];
const source = readFileSync(path.join(ROOT, 'lib', 'errors.ts'), 'utf8');
const entries = [
  ...source.matchAll(
    /(ERR_SENET_\w+): \{\s*base: '(\w+)',\s*status: (\d+),\s*meaning:\s*'((?:[^'\\]|\\.)*)',?\s*\}/g,
  ),
];
const known = new Set(entries.map(([, code]) => code));
for (const [, code] of source.matchAll(/^ {2}(ERR_SENET_\w+):/gm)) {
  if (!known.has(code))
    problems.push(`lib/errors.ts: the entry of ${code} is not written as this script reads it`);
}

const table = ['| Code | Class | Status | Meaning |', '|---|---|---|---|']
  .concat(
    entries.map(
      ([, code, base, status, meaning]) =>
        `| \`${code}\` | ${base} | ${status} | ${meaning.replaceAll("\\'", "'")} |`,
    ),
  )
  .join('\n');
const page = readFileSync(path.join(ROOT, PAGE), 'utf8');
const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
if (begin < 0 || end < begin) problems.push(`${PAGE} has no place for the error codes (${BEGIN} ... ${END})`);
else if (page.slice(begin + BEGIN.length, end).trim() !== table) {
  if (options.write)
    writeFileSync(
      path.join(ROOT, PAGE),
      `${page.slice(0, begin + BEGIN.length)}\n${table}\n${page.slice(end)}`,
    );
  else problems.push(`${PAGE}: the table of error codes is not that of lib/errors.ts; run with --write`);
}
// Prose names codes too.
for (const name of pagesOf(ROOT)) {
  for (const [code] of readFileSync(path.join(ROOT, name), 'utf8').matchAll(/ERR_SENET_[A-Z0-9_]+/g)) {
    // `ERR_SENET_...` is any of them.
    if (!code.endsWith('_') && !known.has(code))
      problems.push(`${name} names ${code}, which lib/errors.ts does not have`);
  }
}

const used = new Set();
for (const folder of ['lib', 'native', 'scripts']) {
  for (const entry of readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    if (!entry.isFile() || path.basename(path.dirname(file)) === 'checks' || file.endsWith('errors.ts'))
      continue;
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      for (const [code] of line.matchAll(/ERR_SENET_[A-Z0-9_]+/g)) {
        // `ERR_SENET_CHECKPOINT_` is the beginning of several, completed where it stands.
        if (code.endsWith('_')) continue;
        if (!known.has(code))
          problems.push(`${path.relative(ROOT, file)} uses ${code}, which lib/errors.ts does not have`);
        // A mention in a comment is no use.
        if (!/^\s*(\/\/|\/?\*|#)/.test(line)) used.add(code);
      }
    }
  }
}
for (const code of known) if (!used.has(code)) problems.push(`${code} is in lib/errors.ts and used nowhere`);

for (const problem of problems) console.error(problem);
console.log(
  problems.length === 0 ? `${known.size} error codes, all in ${PAGE}` : `${problems.length} problems`,
);
process.exitCode = problems.length === 0 ? 0 : 1;
