/**
 * What only a process of its own can show about threads: `node --require tsx/cjs threads-scenario.ts NAME` prints facts
 * as JSON. threads.test.ts looks at them.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { se_resnet20 } from '../../lib/models/cifar-se-resnet';
import { SELayer } from '../../lib/nn/se-layer';
import { rand } from '../../lib/tensor/factories';
import { configure } from '../../lib/tensor/runtime';
import type { Tensor } from '../../lib/tensor/tensor';

const layer = new SELayer(64).eval();
const large = rand([8, 64, 256, 256]);

/** CPU time in clock ticks of each thread of this process. */
function threadTimes(): Map<string, number> {
  const times = new Map<string, number>();
  for (const thread of readdirSync('/proc/self/task')) {
    try {
      const fields =
        readFileSync(`/proc/self/task/${thread}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
      times.set(thread, Number(fields[11]) + Number(fields[12]));
    } catch {
      // the thread has ended
    }
  }
  return times;
}

/** How many threads worked while `jobs` ran, without the JS thread. */
async function busyThreads(jobs: () => Promise<unknown>): Promise<number> {
  const before = threadTimes();
  await jobs();
  const after = threadTimes();
  const spent = [...after].map(([thread, time]) => [thread, time - (before.get(thread) ?? 0)] as const);
  const most = Math.max(...spent.map(([, time]) => time));
  return spent.filter(([thread, time]) => thread !== String(process.pid) && time > most / 4).length;
}

const scenarios: Record<string, () => Promise<unknown>> = {
  'copies of OpenMP': async () => {
    await layer.forward(large);
    const mapped = readFileSync('/proc/self/maps', 'utf8').match(/\/\S*lib[gi]?omp\S*/g) ?? [];
    return [...new Set(mapped)];
  },

  // libuv's only thread is taken for long, and the JS thread goes on.
  'away from the event loop and the pool': async () => {
    // Whoever opens a named pipe to read waits, on the pool's only thread, until somebody opens it to write.
    const folder = mkdtempSync(path.join(tmpdir(), 'senet-test-'));
    const pipe = path.join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    let blocked = true;
    const pool = open(pipe, 'r').then((reader) => {
      blocked = false;
      return reader.close();
    });
    await layer.forward(rand([1, 64, 32, 32]));
    const endedWhileBlocked = blocked;
    closeSync(openSync(pipe, 'w'));
    let running = true;
    const jobs = Promise.all(Array.from({ length: 6 }, () => layer.forward(large))).then(
      () => (running = false),
    );
    let turns = 0;
    for (; running; turns++) await new Promise((resolve) => setImmediate(resolve));
    await jobs;
    await pool;
    rmSync(folder, { recursive: true });
    return { endedWhileBlocked, turns };
  },

  'one worker, one thread': () => count(1, 1),
  'one worker, two threads': () => count(1, 2),
  'two workers, one thread each': () => count(2, 1),
  'reconfigured from two workers to one': async () => {
    await count(2, 1);
    return count(1, 1);
  },
};

// Much work for small outputs: V8, which collects garbage on threads of its own, has nothing to do meanwhile.
async function count(workers: number, threadsPerWorker: number): Promise<unknown> {
  configure({ workers, threadsPerWorker });
  const model = se_resnet20({ initWeights: false }).eval();
  const images = rand([64, 3, 32, 32]);
  const run = (): Promise<Tensor[]> => Promise.all(Array.from({ length: 4 }, () => model.forward(images)));
  await run();
  // The system counts in hundredths of a second: long enough that a thread which only woke up does not count.
  const enough = 1.5e6;
  const threads = await busyThreads(async () => {
    for (const start = process.cpuUsage(); process.cpuUsage(start).user < enough;)
      for (const output of await run()) output.dispose();
  });
  return { threads };
}

void (scenarios[process.argv[2] ?? ''] as () => Promise<unknown>)().then((facts) => {
  process.stdout.write(JSON.stringify(facts));
});
