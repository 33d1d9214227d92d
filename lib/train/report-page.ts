/**
 * The page that every report is: one HTML file that holds everything it shows (styles, SVG, pictures) and asks nothing of
 * the network. Turns texts into a page; knows nothing of what is reported.
 */
import { escapeHtml } from './charts';

export interface ReportPage {
  readonly title: string;
  /** Facts under the title: value and what it is. */
  readonly highlights: readonly Fact[];
  /** HTML, such as `section` gives. */
  readonly sections: readonly string[];
}

export type Fact = readonly [name: string, value: string];

export function renderPage({ title, highlights, sections }: ReportPage): string {
  const name = escapeHtml(title);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${name}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${name}</h1>
<dl class="highlights">${highlights
    .map(([value, meaning]) => `<div><dd>${escapeHtml(value)}</dd><dt>${escapeHtml(meaning)}</dt></div>`)
    .join('')}</dl>
</header>
<main>
${sections.join('\n')}
</main>
</body>
</html>
`;
}

export function section(heading: string, body: string): string {
  return `<section><h2>${escapeHtml(heading)}</h2>\n${body}</section>`;
}

/** Sections beside each other, where there is room. */
export function columns(sections: readonly string[]): string {
  return `<div class="columns">\n${sections.join('\n')}\n</div>`;
}

export function factTable(facts: readonly Fact[]): string {
  const rows = facts.map(
    ([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<div class="scroll"><table class="facts"><tbody>${rows.join('\n')}</tbody></table></div>`;
}

export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly number[],
): string {
  const align = (column: number): string => (right.includes(column) ? ' class="number"' : '');
  const header = head
    .map((text, column) => `<th scope="col"${align(column)}>${escapeHtml(text)}</th>`)
    .join('');
  const body = rows
    .map(
      (row) =>
        `<tr>${row.map((text, column) => `<td${align(column)}>${escapeHtml(text)}</td>`).join('')}</tr>`,
    )
    .join('\n');
  return `<div class="scroll"><table class="list"><thead><tr>${header}</tr></thead><tbody>${body}</tbody></table></div>`;
}

/** Four digits that count. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return String(Number(value.toPrecision(4)));
}

/** "1 h 02 min", "3 min 05 s", "12.4 s". */
export function duration(seconds: number): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

const STYLE = `
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --text: #1d2327; --quiet: #5d6870; --line: #dfe3e6;
  --series-1: #1f6fd6; --series-2: #c8500a; --right: 31 111 214; --wrong: 200 80 10; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --card: #1c2024; --text: #e7eaec; --quiet: #9aa5ad; --line: #343a40;
    --series-1: #6fb0ff; --series-2: #ffa25c; --right: 62 132 224; --wrong: 214 102 36; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 16px; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 0 0 10px; }
.note { color: var(--quiet); font-size: 13px; }
.highlights { display: flex; flex-wrap: wrap; gap: 10px; margin: 0; }
.highlights div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; }
.highlights dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.highlights dt { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 14px; }
figure { margin: 0; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.chart figcaption { font-weight: 600; display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; }
.chart svg { display: block; width: 100%; height: auto; margin-top: 6px; }
.chart text { fill: var(--quiet); font-size: 12px; font-variant-numeric: tabular-nums; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.chart polyline.series-1 { stroke: var(--series-1); } .chart polyline.series-2 { stroke: var(--series-2); }
.chart circle.series-1 { fill: var(--series-1); } .chart circle.series-2 { fill: var(--series-2); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0; padding: 0; font-weight: 400;
  font-size: 13px; color: var(--quiet); }
.legend li::before { content: ''; display: inline-block; width: 16px; border-top: 3px solid; margin-right: 6px;
  vertical-align: middle; }
.legend .series-1::before { border-color: var(--series-1); } .legend .series-2::before { border-color: var(--series-2); }
.chart .reliability { max-width: 640px; }
.reliability .bar { fill: var(--series-1); opacity: 0.75; } .reliability .gap { fill: var(--series-2); opacity: 0.55; }
.reliability .counts { fill: var(--quiet); opacity: 0.6; }
.reliability .ideal { stroke: var(--text); stroke-width: 1.2; stroke-dasharray: 5 4; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.list th, .list td, .facts th, .facts td { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.list th, .facts th { color: var(--quiet); font-weight: 500; }
.list .number { text-align: right; }
.facts td { overflow-wrap: anywhere; }
.facts th { white-space: nowrap; }
.matrix th { font-weight: 400; font-size: 13px; color: var(--quiet); padding: 2px 8px; white-space: nowrap; }
.matrix th[scope=row] { text-align: right; }
.matrix th[scope=col] { vertical-align: bottom; padding: 6px 2px; }
.matrix th[scope=col] span { writing-mode: vertical-rl; transform: rotate(180deg); }
.matrix tbody td { min-width: 18px; width: 46px; height: 26px; padding: 0 3px; text-align: center; font-size: 12px;
  border: 1px solid var(--line); }
.matrix .right { background: rgb(var(--right) / var(--share)); }
.matrix .wrong { background: rgb(var(--wrong) / var(--share)); }
.matrix .strong { color: #ffffff; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 14px; }
.mistakes figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
.mistakes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: auto; border-radius: 4px;
  background: #000000; }
.mistakes figcaption { font-size: 13px; line-height: 1.4; margin-top: 8px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 0 36px; }
`;
