/**
 * What a report says of a network's answers on images whose labels are known: what it confuses, each class, how well it
 * knows how sure it is, the mistakes of which it was surest.
 */
import type { Calibration } from './calibration';
import { escapeHtml } from './charts';
import { reliabilityDiagram } from './reliability-diagram';
import { section, significant, table } from './report-page';
import { percent } from './words';

/** A network's answers on images whose labels are known. */
export interface ReportedEvaluation {
  readonly accuracy: number;
  /** Undefined where nobody computed one. */
  readonly loss?: number;
  /** `confusion[label][prediction]` images. */
  readonly confusion: readonly (readonly number[])[];
  readonly calibration?: Calibration;
}

/** An image that the network got wrong. */
export interface ReportedMistake {
  /** Where the image comes from: a file, or its place in the data set. */
  readonly name: string;
  readonly label: number;
  readonly prediction: number;
  /** Probability that the network gave to its prediction, and to the label. */
  readonly score: number;
  /** Null where nobody asked. */
  readonly labelScore: number | null;
  /** A `data:` address. */
  readonly picture: string;
}

export interface EvaluationSections {
  /** In the order of the network's outputs. */
  readonly classes: readonly string[];
  readonly evaluation: ReportedEvaluation;
  /** What was evaluated: "10,000 validation images, the best weights (epoch 9)". */
  readonly evaluated: string;
  /** The worst first. */
  readonly mistakes: readonly ReportedMistake[];
}

/** Classes up to which the whole matrix is shown; above, only what is confused most. */
const MAX_MATRIX = 40;
/** Classes up to which its cells have numbers. */
const MAX_NUMBERS = 20;
const MOST_CONFUSED = 30;

export function evaluationSections(data: EvaluationSections): string[] {
  const { classes, evaluation, evaluated, mistakes } = data;
  const { accuracy, loss, confusion, calibration } = evaluation;
  const matrix =
    classes.length <= MAX_MATRIX ? confusionMatrix(classes, confusion) : mostConfused(classes, confusion);
  const right = `${percent(accuracy)} right${loss === undefined ? '' : `, loss ${significant(loss)}`}`;
  return [
    ...(calibration === undefined ? [] : [calibrationSection(calibration)]),
    section(
      'Confusion',
      `<p>${escapeHtml(evaluated)}: ${right}. Rows are labels, columns what the network said.</p>${matrix}`,
    ),
    section('Classes', classTable(classes, confusion)),
    ...(mistakes.length === 0
      ? []
      : [
          section(
            'Worst mistakes',
            `<p>The images that it got wrong with the most confidence.</p><div class="mistakes">${mistakes
              .map((mistake) => mistakeFigure(mistake, classes))
              .join('\n')}</div>`,
          ),
        ]),
  ];
}

function calibrationSection(calibration: Calibration): string {
  const { ece, mce, bins, meanScore } = calibration;
  const words =
    `Of the images that got a score of 80 %, 80 % should be right. Here scores and shares of right answers are ` +
    `${percent(ece)} apart on average (expected calibration error, ${bins.length} bins of equal width), at most ${percent(mce)}; ` +
    `the mean score is ${percent(meanScore)}.`;
  return section('Calibration', `<p>${words}</p>${reliabilityDiagram(calibration)}`);
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
<figcaption><b>${escapeHtml(nameOf(classes, label))}</b>${labelScore === null ? '' : ` ${percent(labelScore)}`}<br>called ${escapeHtml(nameOf(classes, prediction))} ${percent(score)}</figcaption>
</figure>`;
}

function nameOf(classes: readonly string[], index: number): string {
  return classes[index] ?? String(index);
}
