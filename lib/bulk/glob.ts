/** Globs, as shells have them and with double stars for folders at any depth. Reads nothing. */
import type picomatch from 'picomatch';

export interface Glob {
  /** The folder that everything which matches lies in. */
  readonly base: string;
  /** Folders below each other in which a match can lie, the base being the first. */
  readonly depth: number;
  /** Whether names that begin with a dot can match. */
  readonly hidden: boolean;
  /** @param relative - a path below the base, with slashes */
  readonly matches: (relative: string) => boolean;
}

/** Null for a plain name. */
export function globOf(text: string): Glob | null {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- only who types a glob needs it
  const match = require('picomatch') as typeof picomatch;
  const { isGlob, base, glob } = match.scan(text);
  if (!isGlob) return null;
  // What is in braces or brackets may hold slashes.
  const open = /\*\*|[{}()]/.test(glob);
  return {
    base: base === '' ? '.' : base,
    depth: open ? Infinity : glob.split('/').length,
    hidden: /(^|[/{,(|])\./.test(glob),
    matches: match(glob),
  };
}
