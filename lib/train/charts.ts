/**
 * Line charts as inline SVG. Colours come from the page (`--series-1`, `--series-2`, `currentColor`), so that a chart
 * follows its light and dark scheme. Knows nothing of training.
 */

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** 1 or 2: which of the page's two colours. */
  readonly colour: 1 | 2;
  /** Mark each point, with its value as the tooltip. Default false. */
  readonly marks?: boolean;
}

export interface Chart {
  readonly title: string;
  readonly xLabel: string;
  readonly series: readonly Series[];
  /** How a value is written, at the axis and in tooltips. */
  readonly format: (y: number) => string;
  /** The value axis begins here if no value is lower. Default: at the lowest value. */
  readonly from?: number;
}

const WIDTH = 560;
const HEIGHT = 270;
const LEFT = 58;
const RIGHT = 14;
const TOP = 16;
const BOTTOM = 40;
/** More points than pixels only make the file large. */
const MAX_POINTS = 400;

/** One chart with its legend, as an HTML figure. */
export function lineChart({ title, xLabel, series, format, from }: Chart): string {
  const shown = series.map((one) => ({ ...one, points: thinOut(one.points) }));
  const points = shown.flatMap((one) => one.points).filter(([, y]) => Number.isFinite(y));
  if (points.length === 0) return '';
  const xs = extent(points.map(([x]) => x));
  const values = extent(points.map(([, y]) => y));
  const yTicks = niceTicks(Math.min(from ?? values[0], values[0]), values[1], 5);
  const ys: [number, number] = [yTicks[0] as number, yTicks.at(-1) as number];
  const px = (x: number): number => LEFT + ((x - xs[0]) / (xs[1] - xs[0] || 1)) * (WIDTH - LEFT - RIGHT);
  const py = (y: number): number =>
    HEIGHT - BOTTOM - ((y - ys[0]) / (ys[1] - ys[0] || 1)) * (HEIGHT - TOP - BOTTOM);

  const grid = yTicks.map(
    (y) =>
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${round(py(y))}" y2="${round(py(y))}"/>` +
      `<text x="${LEFT - 8}" y="${round(py(y) + 4)}" text-anchor="end">${escapeHtml(format(y))}</text>`,
  );
  const xTicks = niceTicks(xs[0], xs[1], 8).filter((x) => x >= xs[0] && x <= xs[1]);
  const axis = xTicks.map(
    (x) => `<text x="${round(px(x))}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${plain(x)}</text>`,
  );
  const lines = shown.map((one) => {
    const visible = one.points.filter(([, y]) => Number.isFinite(y));
    const path = visible.map(([x, y]) => `${round(px(x))},${round(py(y))}`).join(' ');
    const marks =
      one.marks === true
        ? visible.map(
            ([x, y]) =>
              `<circle class="series-${one.colour}" cx="${round(px(x))}" cy="${round(py(y))}" r="3"><title>${escapeHtml(
                `${one.name}, ${xLabel} ${plain(x)}: ${format(y)}`,
              )}</title></circle>`,
          )
        : [];
    return `<polyline class="series-${one.colour}" points="${path}"/>${marks.join('')}`;
  });
  const legend =
    shown.length < 2
      ? ''
      : `<ul class="legend">${shown
          .map((one) => `<li class="series-${one.colour}">${escapeHtml(one.name)}</li>`)
          .join('')}</ul>`;
  return `<figure class="chart">
<figcaption>${escapeHtml(title)}${legend}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">
${grid.join('')}
${axis.join('')}<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end">${escapeHtml(xLabel)}</text>
${lines.join('\n')}
</svg>
</figure>`;
}

/** Neighbours averaged, so that at most `MAX_POINTS` are left. */
function thinOut(points: Series['points']): Series['points'] {
  const together = Math.ceil(points.length / MAX_POINTS);
  if (together <= 1) return points;
  const result: [number, number][] = [];
  for (let start = 0; start < points.length; start += together) {
    const group = points.slice(start, start + together);
    const mean = (axis: 0 | 1): number => group.reduce((sum, point) => sum + point[axis], 0) / group.length;
    result.push([mean(0), mean(1)]);
  }
  return result;
}

function extent(values: readonly number[]): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

/** Round numbers that enclose [low, high], about `count` of them, a step of 1, 2 or 5 times a power of ten apart. */
export function niceTicks(low: number, high: number, count: number): number[] {
  if (!(high > low)) {
    // One value: the line lies in the middle of an axis around it.
    const around = Math.abs(low) > 0 ? Math.abs(low) / 2 : 1;
    return niceTicks(low - around, low + around, count);
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  // From whole numbers, so that no error adds up: 0.3 and not 0.30000000000000004.
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number(((first + index) * step).toFixed(Math.min(20, digits))),
  );
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function plain(value: number): string {
  return Number.isInteger(value) ? String(value) : String(Number(value.toFixed(2)));
}

/** Text that shows as it is inside HTML and attributes. */
export function escapeHtml(text: string): string {
  const names: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return text.replace(/[&<>"']/g, (character) => names[character] as string);
}
