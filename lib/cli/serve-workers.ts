/**
 * Several processes behind one port (node:cluster): the first one starts them, says when all are ready, starts anew what
 * fails, and passes the signal to end on.
 */
import cluster, { type Worker } from 'node:cluster';
import type { AddressInfo } from 'node:net';
import { clearTimeout, setTimeout } from 'node:timers';

import { whenAborted } from '../tensor/abort';
import { EXIT_FAILURE, printNote } from './output';

/** A worker that ends sooner than this after its start is not started anew at once. */
const SOON = 5_000;
const PAUSE = 1_000;

export function isPrimary(): boolean {
  return cluster.isPrimary;
}

/**
 * Runs until every worker has ended after the signal; rejects nothing: a start that fails is the exit code.
 *
 * @param servers - how many ports each listens on
 * @param ready - called once with these, in the order in which a worker began to listen
 */
export function runPrimary(
  workers: number,
  servers: number,
  signal: AbortSignal,
  ready: (ports: readonly number[]) => void,
): Promise<void> {
  return new Promise((resolve) => {
    const listening = new Map<number, number[]>();
    const timers = new Set<NodeJS.Timeout>();
    let announced = false;
    let failed = false;
    const start = (): void => {
      const begun = Date.now();
      const worker = cluster.fork();
      worker.on('listening', ({ port }: AddressInfo) => {
        const ports = [...(listening.get(worker.id) ?? []), port];
        listening.set(worker.id, ports);
        if (announced || listening.size < workers) return;
        if ([...listening.values()].some(({ length }) => length < servers)) return;
        announced = true;
        ready(ports);
      });
      worker.on('message', (message: unknown) => passOn(worker, message));
      worker.on('exit', (code, by) => {
        listening.delete(worker.id);
        if (signal.aborted || failed) {
          finish();
          return;
        }
        if (!announced) {
          // What does not start once will not start again: it has said why.
          failed = true;
          process.exitCode = code === 0 ? EXIT_FAILURE : code;
          for (const other of alive()) other.kill('SIGTERM');
          finish();
          return;
        }
        printNote(`a worker has ended (${by ?? code}) and is started anew`);
        const timer = setTimeout(start, Date.now() - begun < SOON ? PAUSE : 0);
        timers.add(timer);
      });
    };
    const finish = (): void => {
      if (alive().length === 0) resolve();
    };
    void whenAborted(signal).then(() => {
      for (const timer of timers) clearTimeout(timer);
      for (const worker of alive()) worker.process.kill('SIGTERM');
      finish();
    });
    for (let count = 0; count < workers; count++) start();
  });
}

function alive(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter(
    (worker): worker is Worker => worker !== undefined && !worker.isDead(),
  );
}

/** What one worker tells, all others hear. */
function passOn(from: Worker, message: unknown): void {
  for (const worker of alive()) if (worker !== from && worker.isConnected()) worker.send(message as object);
}
