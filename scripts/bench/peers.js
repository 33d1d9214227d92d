'use strict';
// What the benchmarks share: finding Python with torch, running one measurement in a process of its own, medians.
const { spawnSync } = require('node:child_process');

/** The Python to compare with: `--python`, SENET_BENCH_PYTHON, or python3, if it can import torch. */
function findPython(wish) {
  const python = wish ?? process.env.SENET_BENCH_PYTHON ?? 'python3';
  const probe = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' });
  return probe.status === 0 ? { python, version: probe.stdout.trim() } : null;
}

/** Runs a program to its end and parses the last line that it prints as JSON. */
function runJson(command, args, input) {
  const done = spawnSync(command, args, { encoding: 'utf8', input, maxBuffer: 1 << 28 });
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')} failed:\n${done.stderr}`);
  return JSON.parse(done.stdout.trim().split('\n').at(-1));
}

function median(numbers) {
  const sorted = [...numbers].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** "12.3 (11.9 to 14.0)" */
function spread(numbers, digits = 1) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  return `${median(numbers).toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

module.exports = { findPython, median, runJson, spread };
