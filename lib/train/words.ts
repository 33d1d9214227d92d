/** Shares and counts as people read them: in reports, records of weights, and the command line. Loads nothing. */

export function percent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}

/** A count with its noun: "1 image", "20 images". */
export function count(number: number, noun: string): string {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}
