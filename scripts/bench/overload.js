#!/usr/bin/env node
'use strict';
// The server of the project's README under more load than it serves: its capacity (callers that ask again when they are
// answered), then, in turns, requests at that rate and at twice that rate, whatever becomes of them, and at twice the rate
// from callers who hang up after a time. Goodput is answers with status 200 a second. Server and callers share the machine:
// the callers cost little, and the same in every phase.
//
// Target: goodput at twice the capacity is at least 80 % of that at capacity, also where callers hang up, if they wait for
// longer than the server's queue takes. (A queue that takes longer than its callers wait answers hardly anyone in time,
// however fast the server is: it is too long.)
const { spawn } = require('node:child_process');
const { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } = require('node:fs');
const http = require('node:http');
const { tmpdir } = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');
const { examplesOf } = require('../checks/pages');
const { Callers, keepRate } = require('./callers');
const { percentile } = require('./loop-delay');
const { median, spread } = require('./peers');
const { makePhotograph } = require('./photograph');

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '10' },
    patience: { type: 'string', default: '1000' },
    connections: { type: 'string', default: '32' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const ROOT = path.join(__dirname, '..', '..');
const PHOTOGRAPH = [500, 375];

/** The README's server, on a free port. */
async function startServer(folder) {
  const { code } = examplesOf(ROOT).find((example) => example.code.includes('createServer'));
  const port = await freePort();
  mkdirSync(path.join(folder, 'node_modules'));
  symlinkSync(ROOT, path.join(folder, 'node_modules', 'senet-torch'));
  const file = path.join(folder, 'server.js');
  writeFileSync(file, code);
  const child = spawn(process.execPath, [file], {
    env: { ...process.env, PORT: String(port) },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return { port, child, limit: Number(/maxQueue: (\d+)/.exec(code)[1]) };
}

async function freePort() {
  const server = http.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** So many callers, each of which asks again when it is answered. */
async function measureCapacity(callers, seconds) {
  const stop = performance.now() + 1000 * seconds;
  const caller = async () => {
    while (performance.now() < stop) await callers.send();
  };
  await Promise.all(Array.from({ length: Number(options.connections) }, caller));
}

async function measure(port, body, work) {
  const seconds = Number(options.seconds);
  const callers = new Callers(port, body);
  const before = performance.now();
  await work(callers, seconds);
  const answered = callers.times.length;
  const elapsed = (performance.now() - before) / 1000;
  await callers.end();
  const { times, others } = callers;
  return { goodput: answered / elapsed, p50: percentile(times, 0.5), p99: percentile(times, 0.99), others };
}

async function runAll(folder) {
  const body = await makePhotograph(...PHOTOGRAPH);
  const { port, child, limit } = await startServer(folder);
  try {
    for (let attempt = 0; ; attempt++) {
      const probe = new Callers(port, body);
      const status = await probe.send();
      await probe.end();
      if (status === 200) break;
      if (attempt === 300 || child.exitCode !== null)
        throw new Error(`the server does not answer: ${status}`);
      await sleep(100);
    }
    await measure(port, body, (callers) => measureCapacity(callers, 2)); // warm
    const capacity = await measure(port, body, measureCapacity);
    const at = (times, patience) =>
      measure(port, body, (callers, seconds) =>
        keepRate(callers, seconds, times * capacity.goodput, patience),
      );
    const runs = { capacity: [capacity], once: [], twice: [], leaving: [] };
    for (let round = 0; round < Number(options.rounds); round++) {
      runs.once.push(await at(1));
      runs.twice.push(await at(2));
      runs.leaving.push(await at(2, Number(options.patience)));
    }
    return { runs, queueTime: (1000 * limit) / capacity.goodput };
  } finally {
    child.kill();
  }
}

function report({ runs, queueTime }) {
  const of = (phase, fact) => runs[phase].map((run) => run[fact]);
  const share = (phase) =>
    median(runs[phase].map(({ goodput }, round) => goodput / runs.once[round].goodput));
  if (options.json) {
    console.log(
      JSON.stringify(
        { queueTime, shares: { twice: share('twice'), leaving: share('leaving') }, runs },
        null,
        2,
      ),
    );
    return;
  }
  console.log(
    `the README's server, JPEGs of ${PHOTOGRAPH.join(' x ')}; answers a second, medians (range) of ${options.rounds} runs of ${options.seconds} s`,
  );
  console.log(
    `${''.padEnd(34)}${'goodput'.padEnd(22)}${'ms p50'.padEnd(9)}${'ms p99'.padEnd(9)}other outcomes`,
  );
  const titles = {
    capacity: `capacity: ${options.connections} connections`,
    once: 'requests at that rate',
    twice: 'at twice that rate',
    leaving: `twice, who leave after ${options.patience} ms`,
  };
  for (const phase of Object.keys(runs)) {
    const times = ['p50', 'p99'].map((fact) => median(of(phase, fact)).toFixed(0).padEnd(9)).join('');
    const others = {};
    for (const [status, count] of of(phase, 'others').flatMap(Object.entries))
      others[status] = (others[status] ?? 0) + count;
    const rest = Object.entries(others).map(([status, count]) => `${status}: ${count}`);
    const goodput = spread(of(phase, 'goodput')).padEnd(22);
    console.log(`${titles[phase].padEnd(34)}${goodput}${times}${rest.join(', ')}`.trimEnd());
  }
  const percent = (phase) => `${(100 * share(phase)).toFixed(0)} %`;
  const verdict = (phase) => `${percent(phase)} (${share(phase) >= 0.8 ? 'yes' : 'NO'})`;
  const patient = Number(options.patience) > 1.5 * queueTime;
  console.log(
    `of the goodput at capacity, at least 80 %: at twice the rate ${verdict('twice')}, where callers leave ` +
      (patient
        ? verdict('leaving')
        : `${percent('leaving')} (no target: the queue takes ${queueTime.toFixed(0)} ms, about as long as they wait)`),
  );
}

function main() {
  if (options.help) {
    console.log(
      'usage: node scripts/bench/overload.js [--rounds 3] [--seconds 10] [--patience 1000] [--connections 32] [--json]\n\n' +
        'patience: milliseconds after which callers of the last phase hang up',
    );
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'senet-bench-'));
  runAll(folder)
    .then(report)
    .finally(() => rmSync(folder, { recursive: true, force: true }));
}

main();
