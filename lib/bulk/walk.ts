/**
 * The files below a folder, in an order that depends on their names alone: a folder's files, then its folders, each
 * sorted by UTF-16 units. Holds the names of the folders that it stands in, and nothing of the rest. Knows no image.
 */
import { opendir, stat } from 'node:fs/promises';
import path from 'node:path';

/** Names that the system is asked for at a time. */
const NAMES_AT_ONCE = 512;

/** A file, or a folder that could not be read. */
export interface Walked {
  readonly path: string;
  /** What the system said of a folder. */
  readonly problem?: unknown;
}

export interface WalkOptions {
  /** Whether a file of this name, in this place below the root, counts. */
  readonly takes: (name: string, relative: string) => boolean;
  /** Told of each name that does not count. */
  readonly leaveOut: (kind: LeftOutKind, name: string) => void;
  /** Names that begin with a dot count too. Default false. */
  readonly hidden?: boolean;
  /** Folders below each other that are looked into; the root is the first. Default all. */
  readonly depth?: number;
}

/** Why a name does not count: `takes` said no, a dot in front, a link to nothing, a link to a folder that it lies in. */
export type LeftOutKind = 'other' | 'hidden' | 'link to nothing' | 'link in a circle';

interface Folder {
  readonly place: string;
  /** Below the root, with slashes. */
  readonly relative: string;
  readonly identity: string;
  /** Names in reverse: the last is next. */
  readonly files: string[];
  readonly folders: string[];
}

/**
 * Walks depth first. Links count as what they lead to; one to a folder that it lies in is left out, so that no circle is
 * walked.
 *
 * @throws (rejects) the system's error if the root cannot be read; of another folder that is an item
 */
export async function* walk(root: string, options: WalkOptions): AsyncGenerator<Walked> {
  const { depth = Infinity } = options;
  const above: Folder[] = [await listFolder(root, '', [], options)];
  for (let folder = above.at(-1); folder !== undefined; folder = above.at(-1)) {
    const file = folder.files.pop();
    if (file !== undefined) {
      yield { path: path.join(folder.place, file) };
      continue;
    }
    const name = folder.folders.pop();
    if (name === undefined) {
      above.pop();
      continue;
    }
    if (above.length >= depth) continue;
    const place = path.join(folder.place, name);
    try {
      above.push(await listFolder(place, `${folder.relative}${name}/`, above, options));
    } catch (problem) {
      if (problem instanceof Circle) options.leaveOut('link in a circle', name);
      else yield { path: place, problem };
    }
  }
}

class Circle extends Error {}

async function listFolder(
  place: string,
  relative: string,
  above: readonly Folder[],
  { takes, leaveOut, hidden = false }: WalkOptions,
): Promise<Folder> {
  const { dev, ino } = await stat(place, { bigint: true });
  const identity = `${dev}:${ino}`;
  if (above.some((folder) => folder.identity === identity)) throw new Circle();
  const files: string[] = [];
  const folders: string[] = [];
  for await (const entry of await opendir(place, { bufferSize: NAMES_AT_ONCE })) {
    const { name } = entry;
    if (!hidden && name.startsWith('.')) {
      leaveOut('hidden', name);
      continue;
    }
    let kind: { isFile(): boolean; isDirectory(): boolean } = entry;
    // Some file systems say nothing of kinds.
    if (entry.isSymbolicLink() || !(entry.isFile() || entry.isDirectory())) {
      const target = await stat(path.join(place, name)).catch(() => undefined);
      if (target === undefined) {
        leaveOut('link to nothing', name);
        continue;
      }
      kind = target;
    }
    if (kind.isDirectory()) folders.push(name);
    else if (kind.isFile() && takes(name, relative + name)) files.push(name);
    else leaveOut('other', name);
  }
  return { place, relative, identity, files: backwards(files), folders: backwards(folders) };
}

function backwards(names: string[]): string[] {
  return names.sort().reverse();
}
