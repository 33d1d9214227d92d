/** The reliability diagram: shares of right answers over scores, and how many images have them, as inline SVG. */
import type { Calibration, CalibrationBin } from './calibration';
import { escapeHtml } from './charts';
import { percent } from './words';

const WIDTH = 560;
const LEFT = 58;
const RIGHT = 26;
const TOP = 16;
/** Of the two plots, and what is between and below them. */
const PLOT = 240;
const COUNTS = 70;
const GAP = 26;
const BELOW = 44;
const HEIGHT = TOP + PLOT + GAP + COUNTS + BELOW;
const TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1];

export function reliabilityDiagram({ bins, ece }: Calibration): string {
  const x = (score: number): number => LEFT + score * (WIDTH - LEFT - RIGHT);
  const y = (share: number): number => TOP + (1 - share) * PLOT;
  const foot = TOP + PLOT + GAP + COUNTS;
  const most = Math.max(1, ...bins.map(({ count }) => count));
  const grid = TICKS.map(
    (share) =>
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${short(y(share))}" y2="${short(y(share))}"/>` +
      `<text x="${LEFT - 8}" y="${short(y(share) + 4)}" text-anchor="end">${Math.round(100 * share)} %</text>` +
      `<text x="${short(x(share))}" y="${foot + 18}" text-anchor="middle">${Math.round(100 * share)} %</text>`,
  );
  const bars = bins.map((bin) => {
    const { from, to, count, accuracy, meanScore } = bin;
    if (count === 0) return '';
    const [left, width] = [x(from) + 1, x(to) - x(from) - 2];
    const rect = (kind: string, top: number, height: number): string =>
      `<rect class="${kind}" x="${short(left)}" y="${short(top)}" width="${short(width)}" height="${short(Math.max(height, 0.8))}"/>`;
    const high = (count / most) * COUNTS;
    const between = rect('gap', y(Math.max(accuracy, meanScore)), Math.abs(accuracy - meanScore) * PLOT);
    return `<g>${rect('bar', y(accuracy), accuracy * PLOT)}${between}${rect('counts', foot - high, high)}<title>${escapeHtml(wordsOf(bin))}</title></g>`;
  });
  const label = `Reliability diagram, expected calibration error ${percent(ece)}`;
  return `<div class="charts"><figure class="chart">
<figcaption>Right answers by score<ul class="legend"><li class="series-1">right</li><li class="series-2">apart from the score</li></ul></figcaption>
<svg class="reliability" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(label)}">
${grid.join('')}
${bars.join('\n')}
<line class="ideal" x1="${x(0)}" y1="${y(0)}" x2="${x(1)}" y2="${y(1)}"/>
<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${foot}" y2="${foot}"/>
<text x="${LEFT - 8}" y="${foot - COUNTS + 8}" text-anchor="end">${most.toLocaleString('en')}</text>
<text x="${LEFT - 8}" y="${foot - COUNTS / 2 + 8}" text-anchor="end">images</text>
<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end">score of what the network said</text>
</svg>
</figure></div>`;
}

function wordsOf({ from, to, count, accuracy, meanScore }: CalibrationBin): string {
  return `scores ${percent(from)} to ${percent(to)}: ${count.toLocaleString('en')} images, ${percent(accuracy)} right, mean score ${percent(meanScore)}`;
}

function short(value: number): number {
  return Math.round(value * 10) / 10;
}
