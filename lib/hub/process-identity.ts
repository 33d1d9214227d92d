/**
 * Which process holds a file, so that others on its machine see at once that it died. Where the system does not tell
 * (macOS), nobody can see that, and only the age of the file says it.
 */
import { readFile, readlink } from 'node:fs/promises';

/** This process, as no other is called: its machine since it started, its namespace of processes, its start. */
export async function ownIdentity(): Promise<string | null> {
  const here = await machine();
  const started = here === null ? null : await startOf(process.pid);
  return here === null || started === null ? null : `${here} ${process.pid} ${started}`;
}

/** True if a process of this machine had the identity and is no more; false if it lives or nobody knows. */
export async function hasDied(identity: string): Promise<boolean> {
  const [boot, namespace, pid, started, ...rest] = identity.split(' ');
  if (started === undefined || rest.length > 0 || !/^\d+$/.test(pid ?? '')) return false;
  if (`${boot} ${namespace}` !== (await machine())) return false;
  return (await startOf(Number(pid))) !== started;
}

async function machine(): Promise<string | null> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    return `${boot.trim()} ${await readlink('/proc/self/ns/pid')}`;
  } catch {
    return null;
  }
}

/** In clock ticks since the machine started; 'gone' if there is no such process. */
async function startOf(pid: number): Promise<string | null> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    // Behind the name in parentheses, which may hold anything: field 3 is the state, field 22 the start.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return ['Z', 'X'].includes(fields[0] ?? '') ? 'gone' : (fields[19] ?? null);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'gone' : null;
  }
}
