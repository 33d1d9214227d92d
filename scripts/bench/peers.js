'use strict';
// What the benchmarks share: finding Python with torch, running one measurement in a process of its own, timing, medians.
const { spawnSync } = require('node:child_process');
const { existsSync, readFileSync } = require('node:fs');
const path = require('node:path');

/** The Python to compare with: `--python`, SENET_BENCH_PYTHON, or python3, if it can import torch. */
function findPython(wish) {
  const python = wish ?? process.env.SENET_BENCH_PYTHON ?? 'python3';
  const probe = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' });
  return probe.status === 0 ? { python, version: probe.stdout.trim() } : null;
}

/** onnxruntime-node and -web from this folder's own package.json, which only benchmarks and tests of ONNX files install. */
function installOnnxruntime(progress = { show: console.error }) {
  const placeOf = (name) => path.join(__dirname, 'node_modules', name, 'package.json');
  const installed = placeOf('onnxruntime-node');
  if (!existsSync(installed) || !existsSync(placeOf('onnxruntime-web'))) {
    progress.show('installing onnxruntime-node and onnxruntime-web into scripts/bench (once) ...');
    // Its install script would fetch CUDA libraries, which nothing here needs.
    const done = spawnSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
      cwd: __dirname,
      encoding: 'utf8',
    });
    if (done.status !== 0) {
      const said =
        (done.stderr ?? '').split('\n').find((line) => line.startsWith('npm error')) ?? 'npm failed';
      return { absent: `${said}; type: (cd scripts/bench && npm ci --ignore-scripts)` };
    }
  }
  return { version: require(installed).version };
}

/** Runs a program to its end and parses the last line that it prints as JSON; `environment` adds variables. */
function runJson(command, args, environment = {}) {
  const done = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
    maxBuffer: 1 << 28,
  });
  if (done.status !== 0) {
    const said =
      (done.stderr ?? '').trim() || done.error?.message || `ended by ${done.signal ?? done.status}`;
    const problem = new Error(`${command} ${args.join(' ')} failed:\n${said}`);
    const lines = said.split('\n');
    // In one line: Node prints a stack and its version after an uncaught error, Python the stack before it.
    problem.reason = lines.find((line) => /^\w*Error( \[\w+\])?: /.test(line)) ?? lines.at(-1);
    problem.interrupted = done.signal === 'SIGINT';
    throw problem;
  }
  return JSON.parse(done.stdout.trim().split('\n').at(-1));
}

/** Awaits `run` until the time is over, and at least so often; gives the milliseconds of each run. */
async function repeat(run, seconds, leastRuns) {
  const milliseconds = [];
  const until = performance.now() + 1000 * seconds;
  while (milliseconds.length < leastRuns || performance.now() < until) {
    const start = performance.now();
    await run();
    milliseconds.push(performance.now() - start);
  }
  return milliseconds;
}

/**
 * Warms up, then measures: the median of a run and the page faults (of the whole process) that each took.
 *
 * @param options - { warmUpSeconds, seconds, leastRuns }
 */
async function timeRuns(run, { warmUpSeconds, seconds, leastRuns }) {
  await repeat(run, warmUpSeconds, 2);
  const before = process.resourceUsage().minorPageFault;
  const milliseconds = await repeat(run, seconds, leastRuns);
  const faults = process.resourceUsage().minorPageFault - before;
  const runs = milliseconds.length;
  return { milliseconds: median(milliseconds), runs, pageFaults: faults / runs };
}

/** A file of raw float32. */
function readFloats(file) {
  return new Float32Array(new Uint8Array(readFileSync(file)).buffer);
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

module.exports = { findPython, installOnnxruntime, median, readFloats, runJson, spread, timeRuns };
