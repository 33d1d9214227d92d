'use strict';
// Which versions of the system's libraries a Linux binary asks for. A loader refuses a binary that asks for a symbol of a
// version that its system lacks, so the newest one says on which systems it runs.
const { spawnSync } = require('node:child_process');
const { SYMBOL_LIMITS } = require('./packages');

/** "GLIBC_2.34" -> symbols of that version that the file takes from elsewhere. */
function neededSymbols(file) {
  const { status, stdout, stderr, error } = spawnSync('objdump', ['--dynamic-syms', '--wide', file], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: 1 << 30,
  });
  if (error || status !== 0)
    throw new Error(`objdump ${file}: ${error?.message ?? stderr} (binutils are needed)`);
  const needed = new Map();
  for (const [, version, symbol] of stdout.matchAll(/\*UND\*\s+\w+\s+\(?(\w+_[\d.]+)\)?\s+(\S+)$/gm))
    needed.set(version, [...(needed.get(version) ?? []), symbol]);
  return needed;
}

function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number));
  for (let i = 0; i < Math.max(left.length, right.length); i++)
    if ((left[i] ?? 0) !== (right[i] ?? 0)) return (left[i] ?? 0) - (right[i] ?? 0);
  return 0;
}

/**
 * What the file asks for at most of each library, and which symbols lie above the limits.
 *
 * @returns { newest: { GLIBC: '2.34', ... }, above: [{ version: 'GLIBC_2.34', symbols: ['dlopen', ...] }] }
 */
function examineSymbols(file, limits = SYMBOL_LIMITS) {
  const newest = {};
  const above = [];
  for (const [named, symbols] of neededSymbols(file)) {
    const [, library, version] = /^(\w+)_([\d.]+)$/.exec(named);
    if (newest[library] === undefined || compareVersions(version, newest[library]) > 0)
      newest[library] = version;
    if (limits[library] !== undefined && compareVersions(version, limits[library]) > 0)
      above.push({ version: named, symbols });
  }
  above.sort((a, b) => (a.version < b.version ? -1 : 1));
  return { newest, above };
}

module.exports = { compareVersions, examineSymbols };
