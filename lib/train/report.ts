/**
 * The report of a training run: one HTML page that holds everything it shows (styles, SVG, pictures) and asks nothing of
 * the network. Turns numbers into a page; measures, reads and writes nothing.
 */
import { escapeHtml, lineChart, type Series } from './charts';
import type { EpochRecord, TrainingHistory } from './history';
import { percent } from './words';

/** A network's answers on images whose labels are known. */
export interface ReportedEvaluation {
  readonly count: number;
  readonly loss: number;
  readonly accuracy: number;
  /** `confusion[label][prediction]` images. */
  readonly confusion: readonly (readonly number[])[];
}

/** An image that the network got wrong. */
export interface ReportedMistake {
  /** Where the image comes from: a file, or its place in the data set. */
  readonly name: string;
  readonly label: number;
  readonly prediction: number;
  /** Probability that the network gave to its prediction, and to the label. */
  readonly score: number;
  readonly labelScore: number;
  /** A `data:` address. */
  readonly picture: string;
}

export interface ReportData {
  readonly title: string;
  /** In the order of the network's outputs. */
  readonly classes: readonly string[];
  readonly history: TrainingHistory;
  /** Of the weights that the run recommends; null without validation. */
  readonly evaluation: ReportedEvaluation | null;
  /** What was evaluated: "10,000 validation images, the best weights (epoch 9)". */
  readonly evaluated: string;
  /** The worst first. */
  readonly mistakes: readonly ReportedMistake[];
  /** Facts under the title: value and what it is. */
  readonly highlights: readonly (readonly [value: string, meaning: string])[];
  readonly settings: readonly (readonly [name: string, value: string])[];
  readonly machine: readonly (readonly [name: string, value: string])[];
  /** Files of the run. */
  readonly files: readonly (readonly [name: string, value: string])[];
}

/** Classes up to which the whole matrix is shown; above, only what is confused most. */
const MAX_MATRIX = 40;
/** Classes up to which its cells have numbers. */
const MAX_NUMBERS = 20;
const MOST_CONFUSED = 30;

/** The page. */
export function renderReport(data: ReportData): string {
  const title = escapeHtml(data.title);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<dl class="highlights">${data.highlights
    .map(([value, meaning]) => `<div><dd>${escapeHtml(value)}</dd><dt>${escapeHtml(meaning)}</dt></div>`)
    .join('')}</dl>
</header>
<main>
${section('Curves', `<div class="charts">${curves(data.history)}</div>`)}
${data.evaluation === null ? '' : evaluationSections(data, data.evaluation)}
${section('Epochs', epochTable(data.history.epochs))}
<div class="columns">
${section('Settings', factTable(data.settings))}
${section('Machine', factTable(data.machine))}
${section('Files', factTable(data.files))}
</div>
</main>
</body>
</html>
`;
}

function section(heading: string, body: string): string {
  return `<section><h2>${escapeHtml(heading)}</h2>\n${body}</section>`;
}

function curves({ steps, epochs }: TrainingHistory): string {
  // Step records by the epoch in which they fall, so that all curves share an axis.
  const stepsPerEpoch = (epochs[0]?.step ?? steps.at(-1)?.step ?? 1) / (epochs[0]?.epoch ?? 1);
  const atStep = (step: number): number => step / stepsPerEpoch;
  const validated = epochs.flatMap(({ epoch, validation }) =>
    validation === null ? [] : [{ epoch, ...validation }],
  );
  const validation = (name: 'loss' | 'accuracy'): Series[] =>
    validated.length === 0
      ? []
      : [
          {
            name: 'validation',
            colour: 2,
            marks: true,
            points: validated.map((record) => [record.epoch, record[name]] as const),
          },
        ];
  const training = (name: 'loss' | 'accuracy'): Series[] => [
    {
      name: 'training',
      colour: 1,
      points:
        steps.length > epochs.length
          ? steps.map((record) => [atStep(record.step), record[name]] as const)
          : epochs.map((record) => [record.epoch, record[name]] as const),
    },
  ];
  const rates =
    steps.length === 0
      ? epochs.map(({ epoch, learningRate }) => [epoch, learningRate] as const)
      : steps.map(({ step, learningRate }) => [atStep(step), learningRate] as const);
  return [
    lineChart({
      title: 'Loss',
      xLabel: 'epoch',
      format: (y) => significant(y),
      series: [...training('loss'), ...validation('loss')],
    }),
    lineChart({
      title: 'Accuracy',
      xLabel: 'epoch',
      format: (y) => `${Number((100 * y).toFixed(2))} %`,
      series: [...training('accuracy'), ...validation('accuracy')],
    }),
    lineChart({
      title: 'Learning rate',
      xLabel: 'epoch',
      format: (y) => significant(y),
      from: 0,
      series: [{ name: 'learning rate', colour: 1, points: rates }],
    }),
  ].join('\n');
}

function evaluationSections(data: ReportData, evaluation: ReportedEvaluation): string {
  const matrix =
    data.classes.length <= MAX_MATRIX
      ? confusionMatrix(data.classes, evaluation.confusion)
      : mostConfused(data.classes, evaluation.confusion);
  return [
    section(
      'Confusion',
      `<p>${escapeHtml(data.evaluated)}: ${percent(evaluation.accuracy)} right, loss ${significant(evaluation.loss)}. Rows are labels, columns what the network said.</p>${matrix}`,
    ),
    section('Classes', classTable(data.classes, evaluation.confusion)),
    data.mistakes.length === 0
      ? ''
      : section(
          'Worst mistakes',
          `<p>The images that it got wrong with the most confidence.</p><div class="mistakes">${data.mistakes
            .map((mistake) => mistakeFigure(mistake, data.classes))
            .join('\n')}</div>`,
        ),
  ].join('\n');
}

function confusionMatrix(classes: readonly string[], confusion: readonly (readonly number[])[]): string {
  const numbers = classes.length <= MAX_NUMBERS;
  const head = classes.map((name) => `<th scope="col"><span>${escapeHtml(name)}</span></th>`).join('');
  const rows = confusion.map((row, label) => {
    const total = row.reduce((sum, count) => sum + count, 0);
    const cells = row.map((count, prediction) => {
      const share = total === 0 ? 0 : count / total;
      const words = `${nameOf(classes, label)} called ${nameOf(classes, prediction)}: ${count} (${percent(share)})`;
      // Shares are shown by their square root: a few mistakes among thousands would be invisible.
      const strength = Math.sqrt(share).toFixed(3);
      const kind = `${label === prediction ? 'right' : 'wrong'}${share > 0.4 ? ' strong' : ''}`;
      return `<td class="${kind}" style="--share:${strength}" title="${escapeHtml(words)}">${numbers && count > 0 ? count : ''}</td>`;
    });
    return `<tr><th scope="row">${escapeHtml(nameOf(classes, label))}</th>${cells.join('')}</tr>`;
  });
  return `<div class="scroll"><table class="matrix"><thead><tr><td></td>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function mostConfused(classes: readonly string[], confusion: readonly (readonly number[])[]): string {
  const pairs = confusion
    .flatMap((row, label) =>
      row.map((count, prediction) => ({
        label,
        prediction,
        count,
        total: row.reduce((sum, value) => sum + value, 0),
      })),
    )
    .filter(({ label, prediction, count }) => label !== prediction && count > 0)
    .sort((a, b) => b.count - a.count)
    .slice(0, MOST_CONFUSED)
    .map(({ label, prediction, count, total }) => [
      nameOf(classes, label),
      nameOf(classes, prediction),
      `${count} of ${total}`,
    ]);
  return table(['Label', 'Called', 'Images'], pairs, [2]);
}

function classTable(classes: readonly string[], confusion: readonly (readonly number[])[]): string {
  const rows = classes.map((name, label) => {
    const row = confusion[label] ?? [];
    const right = row[label] ?? 0;
    const total = row.reduce((sum, count) => sum + count, 0);
    const called = confusion.reduce((sum, other) => sum + (other[label] ?? 0), 0);
    const share = (of: number): string => (of === 0 ? '-' : percent(right / of));
    return [name, String(total), share(total), share(called)];
  });
  return table(['Class', 'Images', 'Found (recall)', 'Right when said (precision)'], rows, [1, 2, 3]);
}

function mistakeFigure(mistake: ReportedMistake, classes: readonly string[]): string {
  const { name, label, prediction, score, labelScore, picture } = mistake;
  return `<figure>
<img src="${escapeHtml(picture)}" alt="${escapeHtml(name)}" title="${escapeHtml(name)}">
<figcaption><b>${escapeHtml(nameOf(classes, label))}</b> ${percent(labelScore)}<br>called ${escapeHtml(nameOf(classes, prediction))} ${percent(score)}</figcaption>
</figure>`;
}

function epochTable(epochs: readonly EpochRecord[]): string {
  const rows = epochs.map((epoch) => [
    `${epoch.epoch}${epoch.best ? ' *' : ''}`,
    significant(epoch.loss),
    percent(epoch.accuracy),
    epoch.validation === null ? '-' : significant(epoch.validation.loss),
    epoch.validation === null ? '-' : percent(epoch.validation.accuracy),
    significant(epoch.learningRate),
    Math.round(epoch.imagesPerSecond).toLocaleString('en'),
    duration(epoch.seconds),
  ]);
  const head = [
    'Epoch',
    'Loss',
    'Accuracy',
    'Validation loss',
    'Validation accuracy',
    'Learning rate',
    'Images/s',
    'Time',
  ];
  return `${table(head, rows, [0, 1, 2, 3, 4, 5, 6, 7])}<p class="note">* the best so far.</p>`;
}

function factTable(facts: readonly (readonly [name: string, value: string])[]): string {
  const rows = facts.map(
    ([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<div class="scroll"><table class="facts"><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function table(
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

function nameOf(classes: readonly string[], index: number): string {
  return classes[index] ?? String(index);
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
