/** A Redis server of a test's own, where the system has one: Debian's redis-server. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

import { freePort } from './free-port';

const PROGRAM = 'redis-server';
export const HAS_REDIS = spawnSync(PROGRAM, ['--version']).status === 0;
export const NO_REDIS = `no ${PROGRAM} on this system (apt-get install redis-server)`;

export class Redis {
  readonly address: string;
  #process: ChildProcess;

  private constructor(
    readonly port: number,
    readonly folder: string,
  ) {
    this.address = `redis://127.0.0.1:${port}`;
    this.#process = this.#start();
  }

  /** @param folder - where it may write; it keeps nothing there */
  static async start(folder: string): Promise<Redis> {
    const redis = new Redis(await freePort(), folder);
    await redis.#answers();
    return redis;
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill('SIGKILL');
    await once(this.#process, 'exit');
  }

  /** The same address again, with nothing in it. */
  async restart(): Promise<void> {
    await this.stop();
    this.#process = this.#start();
    await this.#answers();
  }

  #start(): ChildProcess {
    const settings = ['--port', String(this.port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    return spawn(PROGRAM, [...settings, '--dir', this.folder], { stdio: 'ignore' });
  }

  async #answers(): Promise<void> {
    for (let attempt = 0; attempt < 200; attempt++) {
      const client = spawnSync('redis-cli', ['-p', String(this.port), 'ping'], { encoding: 'utf8' });
      if (client.stdout.startsWith('PONG')) return;
      await delay(50);
    }
    throw new Error(`${PROGRAM} does not answer at port ${this.port}`);
  }
}
