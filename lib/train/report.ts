/** The report of a training run. Turns numbers into a page; measures, reads and writes nothing. */
import { lineChart, type Series } from './charts';
import { evaluationSections, type ReportedEvaluation, type ReportedMistake } from './evaluation-sections';
import type { EpochRecord, TrainingHistory } from './history';
import {
  columns,
  duration,
  factTable,
  renderPage,
  section,
  significant,
  table,
  type Fact,
} from './report-page';
import { percent } from './words';

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
  readonly highlights: readonly Fact[];
  readonly settings: readonly Fact[];
  readonly machine: readonly Fact[];
  /** Files of the run. */
  readonly files: readonly Fact[];
}

/** The page. */
export function renderReport(data: ReportData): string {
  const { title, highlights, history, evaluation, evaluated, classes, mistakes } = data;
  return renderPage({
    title,
    highlights,
    sections: [
      section('Curves', `<div class="charts">${curves(history)}</div>`),
      ...(evaluation === null ? [] : evaluationSections({ classes, evaluation, evaluated, mistakes })),
      section('Epochs', epochTable(history.epochs)),
      columns([
        section('Settings', factTable(data.settings)),
        section('Machine', factTable(data.machine)),
        section('Files', factTable(data.files)),
      ]),
    ],
  });
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
