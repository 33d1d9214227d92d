/**
 * The beginning of a file that is being downloaded, and what is known of it. The folder may be one that others write to:
 * so both files have random names and are created exclusively, no link is followed, and what an earlier process left is
 * taken up only if nobody but this user can have written it.
 */
import { randomBytes } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import { lstat, open, readdir, rename, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

const SUFFIX = '.partial';
const FACTS_SUFFIX = '.partial.json';
const MAX_FACTS_BYTES = 65_536;
/** Of a name, so that what is added to it does not make it too long for a file system. */
const LONGEST_STEM = 100;
/** A folder full of look-alikes does not hold a download up. */
const MOST_CANDIDATES = 50;
const MODE = 0o644;

/** What was known of the file when the download began. */
interface Facts {
  readonly url: string;
  readonly destination: string;
  /** What identifies the version of the file: a difference means starting over. */
  readonly validator: string | null;
  /** Of the file beside: it can have been exchanged by whoever may rename here, not forged. */
  readonly inode: string;
}

export class PartialFile {
  private constructor(
    /** Without its endings. */
    readonly stem: string,
    readonly facts: Facts,
    readonly handle: FileHandle,
    readonly size: number,
  ) {}

  get path(): string {
    return this.stem + SUFFIX;
  }

  /** A new one, empty. */
  static async create(destination: string, url: string, validator: string | null): Promise<PartialFile> {
    const stem = `${stemOf(destination)}${randomBytes(8).toString('hex')}`;
    const handle = await open(stem + SUFFIX, 'wx+', MODE);
    try {
      const inode = (await handle.stat({ bigint: true })).ino.toString();
      const facts = { url, destination, validator, inode };
      const facted = await open(stem + FACTS_SUFFIX, 'wx', MODE);
      await facted.writeFile(JSON.stringify(facts)).finally(() => facted.close());
      return new PartialFile(stem, facts, handle, 0);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** What an earlier attempt of this user left of the same download; its other remains are removed. */
  static async find(destination: string, url: string): Promise<PartialFile | null> {
    const folder = path.dirname(destination);
    const prefix = path.basename(stemOf(destination));
    const names = (await readdir(folder).catch(() => [])).filter(
      (name) => name.startsWith(prefix) && /^[0-9a-f]{16}\.partial\.json$/.test(name.slice(prefix.length)),
    );
    let found: PartialFile | null = null;
    for (const name of names.slice(0, MOST_CANDIDATES)) {
      const stem = path.join(folder, name.slice(0, -FACTS_SUFFIX.length));
      const facts = await readFacts(stem + FACTS_SUFFIX);
      if (facts === null || facts.destination !== destination) continue;
      const partial: PartialFile | null =
        found === null && facts.url === url ? await PartialFile.#open(stem, facts) : null;
      if (partial !== null) found = partial;
      else await removeBoth(stem);
    }
    return found;
  }

  static async #open(stem: string, facts: Facts): Promise<PartialFile | null> {
    const flags = constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const handle = await open(stem + SUFFIX, flags).catch(() => null);
    if (handle === null) return null;
    const stats = await handle.stat({ bigint: true });
    if (isOurs(stats) && stats.ino.toString() === facts.inode)
      return new PartialFile(stem, facts, handle, Number(stats.size));
    await handle.close();
    return null;
  }

  /** Closes it; it stays for another attempt. */
  async close(): Promise<void> {
    await this.handle.close();
  }

  /** Closes and removes it. */
  async discard(): Promise<void> {
    await this.handle.close();
    await removeBoth(this.stem);
  }

  /** Gives the whole file its name. It is to be on the disk already. */
  async finish(): Promise<void> {
    const there = await lstat(this.path, { bigint: true });
    if (there.ino.toString() !== this.facts.inode)
      throw new Error('somebody else put another file in its place');
    await rename(this.path, this.facts.destination);
    const folder = await open(path.dirname(this.facts.destination));
    await folder.sync().finally(() => folder.close());
    await this.handle.close();
    await rm(this.stem + FACTS_SUFFIX, { force: true });
  }
}

function stemOf(destination: string): string {
  return path.join(path.dirname(destination), `${path.basename(destination).slice(0, LONGEST_STEM)}.`);
}

/** A regular file that nobody but this user, or root, can have written. */
function isOurs(stats: BigIntStats): boolean {
  return (
    stats.isFile() &&
    stats.nlink === 1n &&
    stats.uid === BigInt(process.getuid?.() ?? -1) &&
    (stats.mode & 0o022n) === 0n
  );
}

async function readFacts(file: string): Promise<Facts | null> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const handle = await open(file, flags).catch(() => null);
  if (handle === null) return null;
  try {
    const stats = await handle.stat({ bigint: true });
    if (!isOurs(stats) || stats.size > MAX_FACTS_BYTES) return null;
    const facts = JSON.parse(await handle.readFile('utf8')) as Facts | null;
    return typeof facts === 'object' ? facts : null;
  } catch {
    return null;
  } finally {
    await handle.close();
  }
}

async function removeBoth(stem: string): Promise<void> {
  await rm(stem + SUFFIX, { force: true });
  await rm(stem + FACTS_SUFFIX, { force: true });
}
