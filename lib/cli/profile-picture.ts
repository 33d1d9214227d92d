/**
 * A profile as a picture: SVG 1.1 in one file that needs no other, a bar for each step as long as its time and coloured by
 * its operation. Readable on light and dark (`prefers-color-scheme`), and without styles. Knows no command line.
 */
import type { CompiledProfile, ProfiledStep } from '../nn/compiled-model';

/** In this order; operations that are not named here get what is left, in the order in which they come. */
const COLOURS: readonly (readonly [operation: string, colour: string])[] = [
  ['convolution', '#3d7fc1'],
  ['scale', '#d9822b'],
  ['squeeze', '#c24d6b'],
  ['mean', '#2f9e77'],
  ['max_pool', '#8d6cc4'],
  ['average_pool', '#b09a2c'],
  ['load', '#7f8894'],
  ['store', '#5c6672'],
];
const OTHER_COLOURS = ['#3a9fb0', '#a5673f', '#b25fa8', '#6f9440', '#5b68c0', '#c9663d'];

const WIDTH = 960;
const MARGIN = 16;
const ROW = 18;
const BAR = 13;
const LETTER = 6.7; // at 11 pixels; wide enough for every usual font
const VALUE_WIDTH = 150;

/**
 * @param title first line
 * @param summary second line
 * @param profile.steps those that are shown, from top to bottom
 * @param profile.of what they are part of
 */
export function drawProfile(
  title: string,
  summary: string,
  { steps, of }: { steps: readonly ProfiledStep[]; of: CompiledProfile },
): string {
  const colours = chooseColours(of.steps);
  const timeOf = new Map<string, number>();
  for (const { operation, milliseconds } of of.steps)
    timeOf.set(operation, (timeOf.get(operation) ?? 0) + milliseconds);
  const sum = [...timeOf.values()].reduce((total, time) => total + time, 0) || 1;
  const legend = [...timeOf].sort(([, left], [, right]) => right - left);

  const names = steps.map(({ name, operation }) => labelOf(name, operation, of.steps));
  const left = MARGIN + Math.ceil(LETTER * Math.max(0, ...names.map((name) => name.length))) + 8;
  const longest = Math.max(0, ...steps.map(({ milliseconds }) => milliseconds)) || 1;
  const scale = (WIDTH - left - VALUE_WIDTH - MARGIN) / longest;

  const parts: string[] = [];
  let y = MARGIN + 16;
  parts.push(text(MARGIN, y, title, 'title'));
  y += 20;
  parts.push(text(MARGIN, y, summary, 'quiet'));
  if (steps.length < of.steps.length) {
    y += 16;
    parts.push(text(MARGIN, y, `the ${steps.length} slowest of ${of.steps.length} steps`, 'quiet'));
  }
  y += 14;
  let x = MARGIN;
  for (const [operation, time] of legend) {
    const entry = `${operation} ${((100 * time) / sum).toFixed(1)} %`;
    const width = 18 + Math.ceil(LETTER * entry.length) + 14;
    if (x > MARGIN && x + width > WIDTH - MARGIN) {
      x = MARGIN;
      y += ROW;
    }
    parts.push(rectangle(x, y, 12, 12, colours.get(operation) ?? '#000'));
    parts.push(text(x + 18, y + 10, entry));
    x += width;
  }
  y += ROW + 14;
  steps.forEach((step, index) => {
    const { milliseconds, multiplyAdds, operation, fused, input, output } = step;
    const rate =
      multiplyAdds === 0 || milliseconds === 0
        ? ''
        : `, ${((2 * multiplyAdds * of.batch) / milliseconds / 1e6).toFixed(0)} GFLOP/s`;
    const value = `${milliseconds.toFixed(3)} ms${rate}`;
    const hint = [
      `${step.name}: ${[operation, ...fused].join(' + ')}`,
      `${input.join(' x ')} to ${output.join(' x ')}`,
      value,
    ].join('\n');
    const width = Math.max(0.5, milliseconds * scale);
    parts.push(
      '<g>' +
        `<title>${escapeXml(hint)}</title>` +
        text(left - 8, y + BAR - 3, names[index] ?? '', 'name') +
        rectangle(left, y, width, BAR, colours.get(operation) ?? '#000') +
        text(left + width + 6, y + BAR - 3, value, 'quiet') +
        '</g>',
    );
    y += ROW;
  });
  const height = y + MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" fill="#1c2127" font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="11">`,
    `<title>${escapeXml(title)}</title>`,
    '<style>',
    '.paper { fill: #ffffff } .quiet { fill: #57606a } .title { font-size: 16px; font-weight: 600 } .name { text-anchor: end }',
    '@media (prefers-color-scheme: dark) { svg { fill: #e6e9ed } .paper { fill: #14171b } .quiet { fill: #9aa4af } }',
    '</style>',
    `<rect class="paper" width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function chooseColours(steps: readonly ProfiledStep[]): Map<string, string> {
  const colours = new Map<string, string>(COLOURS);
  let next = 0;
  for (const { operation } of steps) {
    if (colours.has(operation)) continue;
    colours.set(operation, OTHER_COLOURS[next++ % OTHER_COLOURS.length] as string);
  }
  return colours;
}

/** An SE layer is several steps of one name: those say what they do. */
function labelOf(name: string, operation: string, all: readonly ProfiledStep[]): string {
  return all.filter((step) => step.name === name).length > 1 ? `${name} (${operation})` : name;
}

function text(x: number, y: number, content: string, style?: string): string {
  const kind = style === undefined ? '' : ` class="${style}"`;
  // Attributes for renderers that ignore style sheets.
  const plain = style === 'name' ? ' text-anchor="end"' : style === 'title' ? ' font-size="16"' : '';
  return `<text x="${round(x)}" y="${round(y)}"${kind}${plain}>${escapeXml(content)}</text>`;
}

function rectangle(x: number, y: number, width: number, height: number, colour: string): string {
  return `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${height}" rx="1.5" fill="${colour}"/>`;
}

function round(value: number): number {
  return Math.round(100 * value) / 100;
}

function escapeXml(content: string): string {
  const entities: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
  };
  return content.replace(/[&<>"]/g, (character) => entities[character] ?? character);
}
