/** Which outputs of a network the classes of a data set are. Knows names and numbers only. */
import { makeError } from '../errors';
import { printable } from '../printable';

export interface MatchedClasses {
  /** Output of the network for each class of the data. */
  readonly outputs: readonly number[];
  /** Whether names said so; else the order did. */
  readonly by: 'name' | 'order';
}

/** Names that say nothing: numbers, and WordNet's identifiers (ImageNet's folders). */
const NUMBERED = /^(\d+|n\d{8})$/;
const SHOWN = 5;

/**
 * By their names, whatever their case and however words are joined; by their order where the names say nothing, or the
 * network has none.
 *
 * @param classes - of the data
 * @param labels - of the network
 * @throws ERR_SENET_LABELS if it is not clear which is which
 */
export function matchClasses(classes: readonly string[], labels: readonly string[]): MatchedClasses {
  const places = new Map<string, number>();
  // ImageNet's labels are lists of synonyms; a name that two labels have is none's.
  for (const [place, label] of labels.entries())
    for (const name of new Set([label, label.split(',')[0] ?? ''].map(plain)))
      places.set(name, places.has(name) ? -1 : place);
  const found = classes.map((name) => places.get(plain(name)) ?? -1);
  const inOrder = { outputs: classes.map((_, place) => place), by: 'order' } as const;
  if (labels.length === 0) return inOrder;
  if (found.every((place) => place >= 0)) {
    const twice = found.findIndex((place, at) => found.indexOf(place) !== at);
    if (twice < 0) return { outputs: found, by: 'name' };
    throw makeError(
      'ERR_SENET_LABELS',
      `the classes '${printable(classes[found.indexOf(found[twice] as number)] ?? '')}' and '${printable(classes[twice] ?? '')}' of the data are the same label of the network`,
    );
  }
  const numbered = classes.every((name) => NUMBERED.test(name));
  const fits = classes.every((name) => /^\d+$/.test(name))
    ? classes.length <= labels.length
    : classes.length === labels.length;
  if (numbered && fits) return inOrder;
  const unknown = classes.filter((_, place) => (found[place] as number) < 0);
  const names = (all: readonly string[]): string =>
    `${all
      .slice(0, SHOWN)
      .map((name) => `'${printable(name)}'`)
      .join(', ')}${all.length > SHOWN ? `, and ${all.length - SHOWN} more` : ''}`;
  throw makeError(
    'ERR_SENET_LABELS',
    `the network has no label for ${unknown.length} of the ${classes.length} classes of the data: ${names(unknown)}; its labels are ${names(labels)}. Give names that fit with { labels }`,
  );
}

function plain(name: string): string {
  // Folders cannot be called "T-shirt/top".
  return name
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
}
