/** Processes that form a group, as torchrun starts them: what each of them printed and how it ended. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

import { freePort } from './free-port';

/** Longer than any of them takes on a busy machine. */
const LIMIT_MS = 50_000;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last line of its output, or all of it, as JSON; undefined without any. */
  readonly result: unknown;
  readonly stderr: string;
  /** From the start of the group. */
  readonly seconds: number;
}

export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  /** Settles when the process has printed this line. */
  said(line: string): Promise<void>;
}

export type Command = readonly [program: string, ...args: string[]];

/** A part of `distributed-scenario.js`. */
export function scenario(name: string, ...args: string[]): Command {
  return [
    process.execPath,
    path.join(__dirname, '..', 'integration', 'distributed-scenario.js'),
    name,
    ...args,
  ];
}

/** One process for each command, which are the ranks of a group. */
export async function startGroup(
  commands: readonly Command[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Started[]> {
  const port = await freePort();
  const began = performance.now();
  return commands.map(([program, ...args], rank) => {
    const child = spawn(program, args, {
      env: {
        ...process.env,
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: String(port),
        RANK: String(rank),
        WORLD_SIZE: String(commands.length),
        LOCAL_RANK: String(rank),
        LOCAL_WORLD_SIZE: String(commands.length),
        OMP_NUM_THREADS: '1',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    const waiting = new Map<string, () => void>();
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      for (const [line, tell] of waiting) if (stdout.includes(`${line}\n`)) tell();
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const limit = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const ended = once(child, 'close').then(([code, signal]): Ended => {
      clearTimeout(limit);
      const last = stdout.startsWith('{\n') ? stdout : (stdout.trimEnd().split('\n').at(-1) ?? '');
      const result: unknown = /^[[{"]/.test(last) ? JSON.parse(last) : undefined;
      const seconds = (performance.now() - began) / 1000;
      return {
        code: code as number | null,
        signal: signal as NodeJS.Signals | null,
        result,
        stderr,
        seconds,
      };
    });
    const said = async (line: string): Promise<void> => {
      if (stdout.includes(`${line}\n`)) return;
      await Promise.race([
        new Promise<void>((resolve) => waiting.set(line, resolve)),
        ended.then(({ stderr: text }) => {
          throw new Error(`rank ${rank} ended before it said '${line}': ${text}`);
        }),
      ]);
    };
    return { child, ended, said };
  });
}

/** The results of a group all of whose processes end well. */
export async function runGroup(
  commands: readonly Command[],
  environment?: Readonly<Record<string, string>>,
): Promise<unknown[]> {
  const all = await startGroup(commands, environment);
  const ends = await Promise.all(all.map(({ ended }) => ended));
  for (const [rank, { code, signal, stderr }] of ends.entries())
    if (code !== 0) throw new Error(`rank ${rank} ended with ${signal ?? code}:\n${stderr}`);
  return ends.map(({ result }) => result);
}
