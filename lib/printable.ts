/**
 * Text that somebody else wrote (labels, file names, URLs, what servers and files say) for messages and terminals: no
 * control characters, so that it can neither give a terminal orders nor begin a line of a log, and not endless.
 */

/**
 * Controls (C0 and C1, with ESC and the line ends), formats (directions of writing, zero widths), line separators, and
 * what is no character; but the joiners that emoji and scripts are written with.
 */
const UNPRINTABLE = /(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}]/gu;

const LONGEST_WORD = 500;
const LONGEST_LINE = 4000;

/** One line of at most `maxLength` characters and '...'; what is not printable is spelled `\u{1b}`. */
export function printable(text: string, maxLength = 120): string {
  const cut = text.length > maxLength ? `${text.slice(0, maxLength)}...` : text;
  return cut.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)?.toString(16) ?? ''}}`);
}

/** Whether UTF-8 can hold it: of two texts with halves of characters both would become the same. */
export function isWellFormed(text: string): boolean {
  return text === Buffer.from(text).toString();
}

/** A line of a message, which quotes others: as `printable`, with its long words and at last itself shortened. */
export function printableLine(line: string): string {
  const words = line.slice(0, 2 * LONGEST_LINE).replace(/\S+/g, shortened);
  return printable(words, LONGEST_LINE);
}

/** Both ends of a word that is too long: a path is told by its last part, a URL by its first. */
function shortened(word: string): string {
  if (word.length <= LONGEST_WORD) return word;
  return `${word.slice(0, LONGEST_WORD / 2)}...${word.slice(-LONGEST_WORD / 2)}`;
}

/** JSON whose strings hold nothing that is not printable: the same value to a parser. */
export function printableJson(json: string): string {
  return json.replace(UNPRINTABLE, (character) =>
    character === '\n' ? character : character.split('').map(unicodeEscape).join(''),
  );
}

function unicodeEscape(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
