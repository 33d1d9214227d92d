'use strict';
// How late the event loop is, and how long fs.readFile takes, while something else runs; and the control to compare with:
// as many threads spinning as there are processors, and no library.
const { readFile } = require('node:fs/promises');
const { availableParallelism } = require('node:os');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { Worker } = require('node:worker_threads');

const SPIN = 'for (;;) Math.sqrt(Math.random());';

/** Threads that spin; gives the function that ends them. */
async function startControl() {
  const threads = Array.from({ length: availableParallelism() }, () => new Worker(SPIN, { eval: true }));
  await new Promise((resolve) => setTimeout(resolve, 300));
  return () => Promise.all(threads.map((thread) => thread.terminate()));
}

/** Watches this process's event loop for a while: percentiles in milliseconds. */
async function watchLoop(seconds) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const reads = [];
  const stop = Date.now() + 1000 * seconds;
  while (Date.now() < stop) {
    const start = performance.now();
    await readFile(__filename);
    reads.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  delay.disable();
  return {
    delayP50: delay.percentile(50) / 1e6,
    delayP99: delay.percentile(99) / 1e6,
    readP50: percentile(reads, 0.5),
    readP99: percentile(reads, 0.99),
  };
}

function percentile(numbers, share) {
  const sorted = [...numbers].sort((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

module.exports = { percentile, startControl, watchLoop };
