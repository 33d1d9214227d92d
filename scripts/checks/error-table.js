#!/usr/bin/env node
'use strict';
// The README's table of error codes comes from lib/errors.ts: compares them, or with --write renews the table. Also
// finds codes that are used and not in the table, or in the table and not used.
const { readdirSync, readFileSync, writeFileSync } = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const README = path.join(ROOT, 'README.md');
const BEGIN = '<!-- error codes: written by scripts/checks/error-table.js -->';
const END = '<!-- end of error codes -->';

const source = readFileSync(path.join(ROOT, 'lib', 'errors.ts'), 'utf8');
const entries = [...source.matchAll(/(ERR_SENET_\w+): \{\s*base: '(\w+)',\s*meaning:\s*'((?:[^'\\]|\\.)*)',?\s*\}/g)];
const table = ['| Code | Class | Meaning |', '|---|---|---|']
  .concat(entries.map(([, code, base, meaning]) => `| \`${code}\` | ${base} | ${meaning.replaceAll("\\'", "'")} |`))
  .join('\n');

const problems = [];
const readme = readFileSync(README, 'utf8');
const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)];
if (begin < 0 || end < begin) problems.push(`README.md has no place for the error codes (${BEGIN} ... ${END})`);
else if (readme.slice(begin + BEGIN.length, end).trim() !== table) {
  if (process.argv.includes('--write')) {
    writeFileSync(README, `${readme.slice(0, begin + BEGIN.length)}\n${table}\n${readme.slice(end)}`);
  } else problems.push('README.md: the table of error codes is not that of lib/errors.ts; run with --write');
}

const known = new Set(entries.map(([, code]) => code));
const used = new Set();
for (const folder of ['lib', 'native', 'scripts']) {
  for (const entry of readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    if (!entry.isFile() || file.endsWith('errors.ts') || file === __filename) continue;
    for (const [code] of readFileSync(file, 'utf8').matchAll(/ERR_SENET_[A-Z0-9_]*[A-Z0-9]/g)) {
      used.add(code);
      // 'ERR_SENET_CHECKPOINT' alone is the beginning of several.
      const beginsOne = [...known].some((candidate) => candidate.startsWith(`${code}_`));
      if (!known.has(code) && !beginsOne) problems.push(`${path.relative(ROOT, file)} uses ${code}, which lib/errors.ts does not have`);
    }
  }
}
for (const code of known) if (!used.has(code)) problems.push(`${code} is in lib/errors.ts and used nowhere`);

for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? `${known.size} error codes, all in the README` : `${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
